//! What a person says about an exporter's past: settings under which its stored flows of a time are read anew.
//!
//! Two kinds of settings, kept together as one correction:
//!
//! * what the decoder made of a record: sampling rate, the zero rule, the active timeout. They are written into the stored
//!   flows (`tables::correction::apply`) from what was kept beside them: `marks`, `reported_start_at`.
//! * how a flow is judged: metering, the metered observation, the external interfaces. They hold for every flow of that time
//!   whenever it is judged (`tables::metering::Enricher`), so that a backdated assignment does not undo them (U1).
//!
//! A later correction of the same time comes on top of an earlier one, setting by setting.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{MeterDirection, MeterMode};
use crate::address::Address;
use crate::sampling::SamplingRate;
use crate::window::instant_text;

/// External interfaces that one correction may name.
pub const EXTERNAL_INTERFACES_MAX: usize = 1_024;
/// The largest active timeout that may be said: flows are never longer (see `collector::times`).
pub const ACTIVE_TIMEOUT_MAX_S: u32 = 86_400;

/// Which observation of a packet counted, as a correction says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CorrectedDirection {
    Ingress,
    Egress,
    Both,
    /// As where none is configured: of packets that were observed twice one, otherwise as its metering has it.
    Auto,
}

impl CorrectedDirection {
    /// The observation that is said to count; `None` where that is left to what the flows show.
    pub fn said(self) -> Option<MeterDirection> {
        match self {
            CorrectedDirection::Ingress => Some(MeterDirection::Ingress),
            CorrectedDirection::Egress => Some(MeterDirection::Egress),
            CorrectedDirection::Both => Some(MeterDirection::Both),
            CorrectedDirection::Auto => None,
        }
    }
}

/// What is said; absent means as it was.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorrectionSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<SamplingRate>,
    /// Whether next hop 0 and output interface 0 mean that the packets were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_route_is_discard: Option<bool>,
    /// Seconds; 0 = the start is believed as the exporter said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_timeout_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter: Option<MeterMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<CorrectedDirection>,
    /// SNMP indexes of the interfaces that faced other networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_interfaces: Option<BTreeSet<u32>>,
}

/// Why a correction is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CorrectionError {
    #[error("nothing is corrected: name at least one setting, such as --sampling-rate 1000")]
    Empty,
    #[error("the range is empty: --from {} must lie before --to {}", instant_text(*from_ms), instant_text(*to_ms))]
    EmptyRange { from_ms: i64, to_ms: i64 },
    #[error("--to {} lies in the future: flows that are yet to come are read as the configuration says", instant_text(*to_ms))]
    Ahead { to_ms: i64 },
    #[error("a sampling rate is at least 1, not 0: leave it out to keep the one that is stored")]
    NoRate,
    #[error("an active timeout has at most {max} seconds, not {found}")]
    ActiveTimeout { found: u32, max: u32 },
    #[error("at most {max} external interfaces can be named, not {found}")]
    TooManyInterfaces { found: usize, max: usize },
    #[error("external interfaces count only where metering is by boundary: add --meter boundary")]
    InterfacesWithoutBoundary,
}

crate::error_codes! {
    CorrectionError: "correction";
    of []
    source []
    Refused:
        Empty = "empty", EmptyRange = "empty_range", Ahead = "ahead", NoRate = "no_rate",
        ActiveTimeout = "active_timeout", InterfacesWithoutBoundary = "interfaces_without_boundary",
        TooManyInterfaces = "too_many_interfaces";
}

/// A correction of one exporter over `[from_ms, to_ms)`, by the time at which a flow ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Correction {
    pub exporter: Address,
    pub from_ms: i64,
    pub to_ms: i64,
    pub settings: CorrectionSettings,
}

impl Correction {
    /// Checks what can be checked without the exporter's flows.
    ///
    /// # Errors
    /// See [`CorrectionError`].
    pub fn check(&self, now_ms: i64) -> Result<(), CorrectionError> {
        let (from_ms, to_ms) = (self.from_ms, self.to_ms);
        if to_ms <= from_ms {
            return Err(CorrectionError::EmptyRange { from_ms, to_ms });
        }
        if to_ms > now_ms {
            return Err(CorrectionError::Ahead { to_ms });
        }
        self.settings.check()
    }

    /// Whether a flow of this exporter that ended then is of this correction.
    #[inline]
    pub fn covers(&self, exporter: Address, end_at_ms: i64) -> bool {
        self.exporter == exporter && (self.from_ms..self.to_ms).contains(&end_at_ms)
    }
}

impl CorrectionSettings {
    /// Checks what can be checked without the exporter's flows.
    ///
    /// # Errors
    /// See [`CorrectionError`].
    pub fn check(&self) -> Result<(), CorrectionError> {
        if *self == CorrectionSettings::default() {
            return Err(CorrectionError::Empty);
        }
        if self.sampling_rate.is_some_and(|rate| !rate.is_known()) {
            return Err(CorrectionError::NoRate);
        }
        if let Some(found) = self.active_timeout_s.filter(|&found| found > ACTIVE_TIMEOUT_MAX_S) {
            return Err(CorrectionError::ActiveTimeout {
                found,
                max: ACTIVE_TIMEOUT_MAX_S,
            });
        }
        if let Some(interfaces) = &self.external_interfaces {
            if interfaces.len() > EXTERNAL_INTERFACES_MAX {
                return Err(CorrectionError::TooManyInterfaces {
                    found: interfaces.len(),
                    max: EXTERNAL_INTERFACES_MAX,
                });
            }
            if self.meter.is_some_and(|meter| meter != MeterMode::Boundary) {
                return Err(CorrectionError::InterfacesWithoutBoundary);
            }
        }
        Ok(())
    }

    /// Whether it says how flows are judged, not only what they hold.
    pub fn judges(&self) -> bool {
        self.meter.is_some() || self.direction.is_some() || self.external_interfaces.is_some()
    }

    /// What was said, for people: `sampling rate 1 in 1000, external interfaces 1, 2`.
    pub fn text(&self) -> String {
        let mut parts = Vec::new();
        if let Some(rate) = self.sampling_rate {
            parts.push(format!("sampling rate {rate}"));
        }
        if let Some(is_discard) = self.zero_route_is_discard {
            let what = if is_discard { "dropped" } else { "forwarded" };
            parts.push(format!("next hop 0 and output interface 0 mean {what}"));
        }
        match self.active_timeout_s {
            Some(0) => parts.push("no active timeout".to_owned()),
            Some(seconds) => parts.push(format!("active timeout {seconds} s")),
            None => {}
        }
        if let Some(meter) = self.meter {
            parts.push(format!("meter {}", name_of(meter)));
        }
        if let Some(direction) = self.direction {
            parts.push(format!("metered observation {}", name_of(direction)));
        }
        if let Some(interfaces) = &self.external_interfaces {
            let list: Vec<String> = interfaces.iter().map(u32::to_string).collect();
            let list = if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            };
            parts.push(format!("external interfaces {list}"));
        }
        parts.join(", ")
    }
}

/// A setting as the configuration writes it.
fn name_of(setting: impl Serialize) -> String {
    let text = serde_json::to_value(setting).ok();
    text.and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let correction = |settings| Correction {
            exporter: Address::from_v4([192, 0, 2, 1]),
            from_ms: 1_000,
            to_ms: 2_000,
            settings,
        };
        let none = CorrectionSettings::default();
        assert_eq!(correction(none.clone()).check(5_000), Err(CorrectionError::Empty));
        let rated = CorrectionSettings {
            sampling_rate: Some(SamplingRate::whole(10)),
            ..none.clone()
        };
        assert_eq!(correction(rated.clone()).check(5_000), Ok(()));
        assert_eq!(
            correction(rated).check(1_500),
            Err(CorrectionError::Ahead { to_ms: 2_000 })
        );
        let interfaces = CorrectionSettings {
            external_interfaces: Some(BTreeSet::from([1])),
            meter: Some(MeterMode::Addresses),
            ..none
        };
        assert_eq!(interfaces.check(), Err(CorrectionError::InterfacesWithoutBoundary));
    }

    #[test]
    fn a_direction_is_stored_as_before_and_may_be_automatic() {
        for (direction, text) in [
            (CorrectedDirection::Ingress, "ingress"),
            (CorrectedDirection::Egress, "egress"),
            (CorrectedDirection::Both, "both"),
            (CorrectedDirection::Auto, "auto"),
        ] {
            let settings = CorrectionSettings {
                direction: Some(direction),
                ..CorrectionSettings::default()
            };
            let json = serde_json::json!({ "direction": text });
            assert_eq!(serde_json::to_value(&settings).unwrap(), json);
            assert_eq!(serde_json::from_value::<CorrectionSettings>(json).unwrap(), settings);
            assert_eq!(settings.text(), format!("metered observation {text}"));
            assert!(settings.judges());
        }
    }

    #[test]
    fn settings_survive_the_database() {
        let settings = CorrectionSettings {
            sampling_rate: Some(SamplingRate::of(3, 2)),
            active_timeout_s: Some(60),
            external_interfaces: Some(BTreeSet::from([1, 9])),
            ..CorrectionSettings::default()
        };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<CorrectionSettings>(&text).unwrap(), settings);
        assert_eq!(
            settings.text(),
            "sampling rate 3/2, active timeout 60 s, external interfaces 1, 9"
        );
    }
}
