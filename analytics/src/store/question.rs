//! What is asked of a store.

use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::usage::UsageMode;

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[schema(as = OverviewDimension)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    Service,
    Protocol,
    Interface,
    As,
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
