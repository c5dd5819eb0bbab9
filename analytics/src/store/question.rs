//! What is asked of a store.

use std::ops::Range;
use std::sync::Arc;

use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::metering::{ExporterNet, MeteringConfig};
use schemas::usage::UsageMode;
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};

/// Width of the points of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    FiveMinutes,
    Hour,
    /// A local day of the given time zone.
    Day,
}

/// What the overview is stacked by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[schema(as = OverviewDimension)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    Service,
    Protocol,
    /// Protocol and port of the application.
    Port,
    Interface,
    Exporter,
    Site,
    /// What the interface faces.
    Boundary,
    As,
}

impl Dimension {
    pub const ALL: [Dimension; 8] = [
        Dimension::Service,
        Dimension::Protocol,
        Dimension::Port,
        Dimension::Interface,
        Dimension::Exporter,
        Dimension::Site,
        Dimension::Boundary,
        Dimension::As,
    ];

    /// As it stands in URLs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Service => "service",
            Dimension::Protocol => "protocol",
            Dimension::Port => "port",
            Dimension::Interface => "interface",
            Dimension::Exporter => "exporter",
            Dimension::Site => "site",
            Dimension::Boundary => "boundary",
            Dimension::As => "as",
        }
    }
}

/// The site of each exporter, as configured.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sites {
    /// Sorted.
    names: Vec<String>,
    exporters: Vec<(ExporterNet, usize)>,
}

impl Sites {
    pub fn of(metering: &MeteringConfig) -> Sites {
        let with_site = || {
            metering
                .exporters
                .iter()
                .filter_map(|exporter| Some((exporter, exporter.site.as_ref()?)))
        };
        let mut names: Vec<String> = with_site().map(|(_, site)| site.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let position = |site: &String| names.binary_search(site).unwrap_or_default();
        let mut exporters: Vec<(ExporterNet, usize)> = with_site()
            .map(|(exporter, site)| (exporter.address, position(site)))
            .collect();
        // Narrower networks first.
        exporters.sort_by(|(a, _), (b, _)| match (a.covers(*b), b.covers(*a)) {
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Equal,
        });
        Sites { names, exporters }
    }

    /// Number of an exporter's site; as many as there are where it has none.
    pub(crate) fn number(&self, exporter: Address) -> u32 {
        let of_exporter = self.exporters.iter().find(|(net, _)| net.contains(exporter));
        of_exporter.map_or(self.names.len(), |(_, site)| *site) as u32
    }

    pub(crate) fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(String::as_str)
    }
}

/// Longest range in steps of an hour: any month with a day to spare, at most 769 steps.
const HOURLY_MAX_MS: i64 = 32 * DAY_MS;

/// Metered traffic of the whole network over time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OverviewQuery {
    pub from_ms: i64,
    pub to_ms: i64,
    pub by: Dimension,
    /// Keys that are named, the largest being rank 0.
    pub ranks: Range<usize>,
    /// For [`Dimension::Site`].
    pub sites: Arc<Sites>,
}

impl OverviewQuery {
    /// Width of a step.
    pub fn step_ms(&self) -> i64 {
        match self.to_ms.saturating_sub(self.from_ms) {
            range_ms if range_ms <= DAY_MS => WINDOW_MS,
            range_ms if range_ms <= HOURLY_MAX_MS => HOUR_MS,
            _ => DAY_MS,
        }
    }
}

/// The exporters whose flows count for a service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Meters {
    /// These, such as those of the service's site.
    Named(Vec<Address>),
    /// Every exporter that is heard but these, which are configured not to meter.
    AllBut(Vec<Address>),
}

/// A service and who meters it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MeteredService {
    pub service: u32,
    pub meters: Meters,
}

/// Usage of services together over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeriesQuery<'a> {
    /// One that is named twice counts once.
    pub services: &'a [MeteredService],
    pub from_ms: i64,
    pub to_ms: i64,
    pub step: Step,
    /// By whose days and hours steps are cut.
    pub zone: &'a TimeZone,
    /// Whether a window is over, so that it is measured or a gap, is judged as of this instant.
    pub now_ms: i64,
}

/// Usage of a service in a period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodQuery {
    pub service: MeteredService,
    pub from_ms: i64,
    pub to_ms: i64,
    pub mode: UsageMode,
    /// Windows that start in one of these `[from, to)` are told apart: they count neither as volume nor for the percentile.
    pub excluded: Vec<(i64, i64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_follows_the_range() {
        let step_of = |to_ms| {
            let query = OverviewQuery {
                from_ms: 0,
                to_ms,
                by: Dimension::As,
                ranks: 0..1,
                sites: Arc::default(),
            };
            query.step_ms()
        };
        assert_eq!(step_of(DAY_MS), WINDOW_MS);
        assert_eq!(step_of(DAY_MS + 1), HOUR_MS);
        assert_eq!(step_of(32 * DAY_MS), HOUR_MS);
        assert_eq!(step_of(32 * DAY_MS + 1), DAY_MS);
    }
}
