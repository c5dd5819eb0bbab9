//! How an exporter's flows of a time are judged where a correction says it otherwise than the configuration of now.
//!
//! Corrections of one exporter are laid over each other in the order in which they were made, setting by setting, and cut
//! into stretches of time that do not overlap: a flow is looked up by the instant at which it ended.

use std::collections::{BTreeSet, HashMap, HashSet};

use schemas::address::Address;
use schemas::metering::MeterMode;
use schemas::metering::correction::{CorrectedDirection, Correction};

use crate::flow::Boundary;

/// What corrections say of one stretch of time; absent means as configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct CorrectedSpan {
    pub(super) mode: Option<MeterMode>,
    /// Where the mode is corrected and the metered observation is not, as the mode has it.
    pub(super) direction: Option<CorrectedDirection>,
    external: Option<HashSet<u32>>,
}

impl CorrectedSpan {
    /// The side that an interface faced, where a correction names the external ones.
    #[inline]
    pub(super) fn boundary(&self, if_index: u32) -> Option<Boundary> {
        let external = self.external.as_ref()?;
        Some(match if_index {
            0 => Boundary::Unknown,
            index if external.contains(&index) => Boundary::External,
            _ => Boundary::Internal,
        })
    }
}

/// The corrected stretches of all exporters.
#[derive(Debug, Default)]
pub(super) struct CorrectionHistory {
    /// Ascending and disjoint: start, end, what holds in between.
    exporters: HashMap<Address, Vec<(i64, i64, CorrectedSpan)>>,
}

impl CorrectionHistory {
    pub(super) fn new(corrections: &[Correction]) -> CorrectionHistory {
        let mut of_exporter: HashMap<Address, Vec<&Correction>> = HashMap::new();
        for correction in corrections.iter().filter(|correction| correction.settings.judges()) {
            of_exporter.entry(correction.exporter).or_default().push(correction);
        }
        let cut = |corrections: Vec<&Correction>| {
            let cuts: BTreeSet<i64> = corrections.iter().flat_map(|c| [c.from_ms, c.to_ms]).collect();
            let cuts: Vec<i64> = cuts.into_iter().collect();
            let pairs = cuts.windows(2).map(|pair| (pair[0], pair[1]));
            pairs
                .map(|(from_ms, to_ms)| (from_ms, to_ms, stretch_at(&corrections, from_ms)))
                .filter(|(_, _, stretch)| *stretch != CorrectedSpan::default())
                .collect()
        };
        CorrectionHistory {
            exporters: of_exporter
                .into_iter()
                .map(|(exporter, corrections)| (exporter, cut(corrections)))
                .collect(),
        }
    }

    #[inline]
    pub(super) fn at(&self, exporter: Address, end_at_ms: i64) -> Option<&CorrectedSpan> {
        if self.exporters.is_empty() {
            return None;
        }
        let stretches = self.exporters.get(&exporter)?;
        let after = stretches.partition_point(|(from_ms, _, _)| *from_ms <= end_at_ms);
        let (_, to_ms, stretch) = stretches.get(after.checked_sub(1)?)?;
        (end_at_ms < *to_ms).then_some(stretch)
    }
}

fn stretch_at(corrections: &[&Correction], at_ms: i64) -> CorrectedSpan {
    let mut stretch = CorrectedSpan::default();
    for correction in corrections.iter().filter(|c| c.covers(c.exporter, at_ms)) {
        let said = &correction.settings;
        if let Some(mode) = said.meter {
            stretch.mode = Some(mode);
            stretch.direction = Some(CorrectedDirection::Auto);
        }
        if said.direction.is_some() {
            stretch.direction = said.direction;
        }
        if let Some(external) = &said.external_interfaces {
            stretch.external = Some(external.iter().copied().collect());
        }
    }
    stretch
}

#[cfg(test)]
mod tests {
    use schemas::metering::correction::CorrectionSettings;

    use super::*;

    fn correction(from_ms: i64, to_ms: i64, settings: CorrectionSettings) -> Correction {
        Correction {
            exporter: Address::from_v4([192, 0, 2, 1]),
            from_ms,
            to_ms,
            settings,
        }
    }

    #[test]
    fn later_corrections_lie_over_earlier_ones_setting_by_setting() {
        let external = |indexes: &[u32]| CorrectionSettings {
            external_interfaces: Some(indexes.iter().copied().collect()),
            ..CorrectionSettings::default()
        };
        let egress = CorrectionSettings {
            direction: Some(CorrectedDirection::Egress),
            ..CorrectionSettings::default()
        };
        let boundary = CorrectionSettings {
            meter: Some(MeterMode::Boundary),
            ..CorrectionSettings::default()
        };
        let past = CorrectionHistory::new(&[
            correction(100, 200, external(&[1])),
            correction(150, 300, egress),
            correction(180, 190, external(&[2])),
            correction(400, 500, boundary),
        ]);
        let exporter = Address::from_v4([192, 0, 2, 1]);
        let side = |at_ms, index| past.at(exporter, at_ms).and_then(|stretch| stretch.boundary(index));
        assert_eq!(past.at(exporter, 99), None);
        assert_eq!(side(100, 1), Some(Boundary::External));
        assert_eq!(side(149, 2), Some(Boundary::Internal));
        assert_eq!(past.at(exporter, 149).unwrap().direction, None);
        assert_eq!(side(180, 1), Some(Boundary::Internal), "the later one's interfaces");
        assert_eq!(side(180, 0), Some(Boundary::Unknown));
        let direction = |at_ms| past.at(exporter, at_ms).unwrap().direction;
        assert_eq!(direction(180), Some(CorrectedDirection::Egress));
        assert_eq!(side(190, 1), Some(Boundary::External), "the earlier ones again");
        assert_eq!(side(200, 1), None, "only the direction");
        assert_eq!(past.at(exporter, 300), None);
        assert_eq!(direction(450), Some(CorrectedDirection::Auto), "as the mode has it");
        assert_eq!(past.at(Address::from_v4([192, 0, 2, 9]), 150), None);
    }
}
