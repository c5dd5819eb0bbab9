//! From flow to number: SQL on the stored tables, usage windows, percentiles, coverage.

use std::path::Path;

use arrow::array::RecordBatch;
use schemas::address::Address;

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    #[error("run query")]
    Query(#[from] datafusion::error::DataFusionError),
    #[error("read the table")]
    Manifest(#[from] schemas::table::ManifestError),
}

/// Which of a service's directions count for billing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageMode {
    Sum,
    In,
    Out,
    Max,
}

/// Usage of one service in one 5-minute window, scaled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct WindowUsage {
    pub window_start_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub flows: u64,
}

/// Width of the points of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    FiveMinutes,
    Hour,
    /// A local day of the given time zone.
    Day,
}

/// One point of a usage series; a step in which nothing was measured says so instead of pretending to be zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SeriesPoint {
    pub start_ms: i64,
    pub end_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Windows of the step in which the metering exporters were heard, and all its windows that lie in the past.
    pub windows_measured: u32,
    pub windows: u32,
}

/// A run of windows in which an exporter that meters the service was not heard.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Gap {
    pub from_ms: i64,
    pub to_ms: i64,
    pub exporter: Address,
}

/// What a service used in a period.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PeriodUsage {
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
    pub gaps: Vec<Gap>,
}

/// A remote address that a service exchanged traffic with.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Peer {
    pub address: Address,
    pub autonomous_system: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What the overview is stacked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    Service,
    Protocol,
    Interface,
    As,
}

/// Traffic over time, stacked by a dimension; the smaller keys are summed as `other`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Overview {
    pub from_ms: i64,
    pub to_ms: i64,
    pub step_ms: i64,
    /// Start of each step.
    pub starts_ms: Vec<i64>,
    pub series: Vec<OverviewSeries>,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OverviewSeries {
    /// `svc_12`, `6`, `192.0.2.1 513`, `64500`, `unattributed` or `other`.
    pub key: String,
    pub total_bytes: u64,
    /// Scaled bytes per step.
    pub bytes: Vec<u64>,
}

/// Answers questions about stored flows and usage. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Analytics {}

#[allow(unused_variables, clippy::unused_async)]
impl Analytics {
    /// Opens the tables under `data_dir`.
    pub fn open(data_dir: &Path) -> Result<Analytics, AnalyticsError> {
        Ok(Analytics {})
    }

    /// Runs SQL over the tables `flows`, `usage_5m`, `counters`, `collection_5m`.
    pub async fn sql(&self, query: &str) -> Result<Vec<RecordBatch>, AnalyticsError> {
        Ok(Vec::new())
    }

    /// Rows of `usage_5m` of one service in `[from_ms, to_ms)`, ascending.
    pub async fn usage_windows(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, AnalyticsError> {
        Ok(Vec::new())
    }

    /// Sum over services by step, one point for every step of the range.
    pub async fn usage_series(
        &self,
        services: &[MeteredService],
        from_ms: i64,
        to_ms: i64,
        step: Step,
        zone: &jiff::tz::TimeZone,
    ) -> Result<Vec<SeriesPoint>, AnalyticsError> {
        Ok(Vec::new())
    }

    /// Totals, billed volume, percentile and coverage of a period, over the closed windows before `now_ms`.
    pub async fn period_usage(
        &self,
        service: &MeteredService,
        from_ms: i64,
        to_ms: i64,
        mode: UsageMode,
        now_ms: i64,
    ) -> Result<PeriodUsage, AnalyticsError> {
        Err(datafusion::error::DataFusionError::Plan(String::new()).into())
    }

    /// The remote addresses a service exchanged most with, from stored flows.
    pub async fn top_peers(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, AnalyticsError> {
        Ok(Vec::new())
    }

    /// Metered traffic over time stacked by a dimension; at most `limit` keys beside `other`.
    pub async fn overview(
        &self,
        from_ms: i64,
        to_ms: i64,
        by: Dimension,
        limit: usize,
    ) -> Result<Overview, AnalyticsError> {
        Ok(Overview {
            from_ms,
            to_ms,
            step_ms: 0,
            starts_ms: Vec::new(),
            series: Vec::new(),
        })
    }
}

/// A service and the exporters that meter it: those of its site, or all that meter where it has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MeteredService {
    pub service: u32,
    pub exporters: Vec<Address>,
}
