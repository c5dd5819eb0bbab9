//! What a service used, and whom billing asks for it ([`UsageSource`]).

mod percentile;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize, Serializer};

pub use percentile::{Percentile95, percentile_95_bps, rank_95, window_bps};

use crate::address::Address;
use crate::ids::ServiceId;
use crate::inventory::Service;
use crate::window::{WINDOW_MS, WindowStart};

/// Why usage could not be measured, as whoever measures it says.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UsageError(Box<dyn std::error::Error + Send + Sync>);

impl UsageError {
    pub fn new(source: impl std::error::Error + Send + Sync + 'static) -> UsageError {
        UsageError(Box::new(source))
    }
}

/// Which of a service's directions count for billing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageMode {
    Sum,
    In,
    Out,
    Max,
}

/// Usage of one service in one 5-minute window, scaled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WindowUsage {
    pub window_start_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub flows: u64,
    /// Unscaled packets behind the volume.
    pub samples: u64,
    /// The true volume lies so close in 95 of 100 windows, parts per million; 0 = every packet was counted.
    pub error_bound_ppm: u32,
}

/// One point of a usage series; a step in which nothing was measured says so instead of pretending to be zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = UsagePoint)]
pub struct SeriesPoint {
    pub start_ms: i64,
    pub end_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Windows of the step in which the metering exporters were heard, and all its windows that lie in the past.
    pub windows_measured: u32,
    pub windows: u32,
    /// Sampling error of both directions together in 95 of 100 cases, by the variances of the windows, in parts per million;
    /// 0 = every packet was counted.
    pub error_bound_ppm: u32,
}

/// A run of windows in which nobody who meters the service was heard; `exporter` is one of those who were not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MeasurementGap)]
pub struct Gap {
    pub from_ms: i64,
    pub to_ms: i64,
    pub exporter: Address,
}

/// What a service used in a period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct PeriodUsage {
    /// Told as the id of the service.
    #[serde(serialize_with = "as_service_id")]
    #[schema(value_type = ServiceId)]
    pub service: u32,
    pub from_ms: i64,
    /// End of the period.
    pub to_ms: i64,
    /// Up to here windows were counted: the end of the period or the last closed window.
    pub measured_to_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes that count by the mode: sum, in, out, or the larger of the two.
    pub billed_bytes: u64,
    /// Bits per second, nearest rank over measured windows (a measured window without traffic is 0); `None` without any.
    pub percentile_95_bps: Option<u64>,
    /// Rank used (1-based) and number of windows it was taken from.
    pub percentile_rank: u64,
    pub windows_measured: u64,
    pub windows_expected: u64,
    /// Windows that the question left out, and what they hold: in none of the other sums.
    pub windows_excluded: u64,
    pub excluded_bytes_in: u64,
    pub excluded_bytes_out: u64,
    /// Sampling error of both directions together in 95 of 100 cases, by the variances of the windows, in parts per million;
    /// 0 = every packet was counted.
    pub error_bound_ppm: u32,
    pub gaps: Vec<Gap>,
}

fn as_service_id<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    ServiceId::from(*number).serialize(serializer)
}

/// A remote address that a service exchanged traffic with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct Peer {
    pub address: Address,
    pub autonomous_system: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// How much of its usage must be measured before a period is finalised without a person's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MeasureGuards {
    /// Percent of the windows; 0: any.
    pub min_coverage_percent: u32,
    /// Hold what ends after the newest data of all exporters.
    pub holds_beyond_measured: bool,
}

impl MeasureGuards {
    /// Those of a real installation.
    pub const DEFAULT: MeasureGuards = MeasureGuards {
        min_coverage_percent: 90,
        holds_beyond_measured: true,
    };
    /// None: rehearsals, whose time is not that of the data.
    pub const NONE: MeasureGuards = MeasureGuards {
        min_coverage_percent: 0,
        holds_beyond_measured: false,
    };
}

/// One question about usage: a service over `[from_ms, to_ms)`, by a mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageQuery {
    pub service: Service,
    pub from_ms: i64,
    pub to_ms: i64,
    pub mode: UsageMode,
    /// Windows that start in one of these `[from, to)` are not billed.
    pub excluded: Vec<(i64, i64)>,
}

/// What billing needs to know about usage.
#[async_trait]
pub trait UsageSource: Send + Sync {
    /// Makes sure that every flow stored before this call is in what [`UsageSource::period_usage`] answers.
    async fn settle(&self) -> Result<(), UsageError>;

    /// How much of it must be measured before it is finalised without a person's word.
    fn guards(&self) -> MeasureGuards {
        MeasureGuards::NONE
    }

    /// End of the newest window in which any exporter was heard; `None` where none ever was.
    async fn heard_until(&self) -> Result<Option<i64>, UsageError> {
        Ok(None)
    }

    /// Usage that was charged is corrected where its period ended after this.
    fn corrected_from_ms(&self, now_ms: i64) -> i64;

    /// For each `[from_ms, to_ms)` a mark of what usage is measured from: as long as it is the same,
    /// [`UsageSource::period_usage`] answers the same for it, whatever the service. `None` where it cannot be measured any
    /// more: what was charged then stays as it is.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, UsageError>;

    /// What was used, as far as its windows were closed by `now_ms`: one answer per question, in their order.
    async fn period_usage(&self, queries: &[UsageQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, UsageError>;

    /// The service's 5-minute windows over `[from_ms, to_ms)` counted anew from stored flows, ascending; windows without
    /// flows are absent.
    async fn windows_from_flows(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, UsageError>;

    /// The local days of `[from_ms, to_ms)`.
    async fn days(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> Result<Vec<SeriesPoint>, UsageError>;

    /// The remote addresses that the service exchanged most with.
    async fn top_peers(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, UsageError>;
}

/// How far back charged usage is corrected where nothing else is configured: a year and the month that it is noticed in.
pub const CORRECTION_REACH_DAYS: u32 = 400;
/// What can be configured, in days: at least the month that was charged last, at most ten years.
pub const CORRECTION_REACH_DAYS_RANGE: std::ops::RangeInclusive<u32> = 31..=3_653;

/// Volume expected at the end of a period when the rest of it goes on as the measured windows did: the total, scaled from
/// the measured to the expected windows and rounded down. Without measured windows the total itself.
pub fn project(total_bytes: u64, measured_windows: u64, expected_windows: u64) -> u64 {
    if measured_windows == 0 || expected_windows <= measured_windows {
        return total_bytes;
    }
    let projected = u128::from(total_bytes) * u128::from(expected_windows) / u128::from(measured_windows);
    u64::try_from(projected).unwrap_or(u64::MAX)
}

/// All windows of a period, for [`project`].
pub fn windows_of_period(from_ms: i64, to_ms: i64) -> u64 {
    let (first_ms, end_ms) = aligned(from_ms, to_ms);
    ((end_ms - first_ms) / WINDOW_MS) as u64
}

/// Start of the first and end of the last window that start in `[from_ms, to_ms)`.
pub fn aligned(from_ms: i64, to_ms: i64) -> (i64, i64) {
    let first_ms = WindowStart::containing(from_ms + WINDOW_MS - 1).start_ms();
    let end_ms = WindowStart::containing(to_ms + WINDOW_MS - 1).start_ms();
    (first_ms, end_ms.max(first_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_scales_from_measured_to_expected_windows() {
        assert_eq!(project(1000, 10, 100), 10_000);
        assert_eq!(project(10, 3, 10), 33, "rounded down");
        assert_eq!(project(1000, 0, 100), 1000);
        assert_eq!(project(1000, 100, 100), 1000);
        assert_eq!(project(u64::MAX, 1, 2), u64::MAX);
    }

    #[test]
    fn periods_count_the_windows_that_start_in_them() {
        assert_eq!(windows_of_period(0, 86_400_000), 288);
        assert_eq!(windows_of_period(1, 300_001), 1);
        assert_eq!(windows_of_period(300_000, 300_000), 0);
        assert_eq!(windows_of_period(600_000, 300_000), 0);
    }
}
