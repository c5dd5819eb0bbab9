//! The seam between who asks about flows and usage and what stores them: [`FlowStore`].
//!
//! * A question about flows or usage is a method of [`FlowStore`], asked by the portal, billing and the command line alike. Questions
//!   and answers are plain values: nothing of an engine shows, no SQL and no column format.
//! * Every store answers every question identically (U3): what is counted, how it is rounded and in which order it comes is said at
//!   the method, not left to an engine.
//! * Times are UTC milliseconds and ranges half-open, `[from_ms, to_ms)`; an empty or reversed range holds nothing and is answered
//!   without rows. Volumes are scaled by the sampling rate unless a name says otherwise; a flow whose rate is not known adds nothing
//!   to a volume and is counted by [`FlowStore::flows_without_rate`].
//!
//! ```text
//! portal, billing, command line ──▶ dyn FlowStore ──▶ parquet    Parquet files through DataFusion (crate::Analytics)
//! ```
//!
//! SQL for people is no part of it: [`crate::console`].

mod answer;
mod error;
pub(crate) mod parquet;
mod question;
mod shared;
mod truth;

use std::sync::Arc;

use async_trait::async_trait;
use schemas::usage::{Gap, Peer, PeriodUsage, SeriesPoint, WindowUsage};

pub use answer::{Attribution, ExporterCount, Overview, OverviewSeries, WindowCount, WindowVolume};
pub use error::StoreError;
pub use question::{Dimension, MeteredService, Meters, OverviewQuery, PeriodQuery, SeriesQuery, Sites, Step};
pub use shared::SharedAnswers;
pub use truth::{CounterReconciliationRow, Direction, MismatchCause, Verdict};

/// Answers questions about stored flows and usage.
///
/// A method that is added here is a question for every store; its documentation is the contract that they are compared by.
///
/// # Errors
/// Every method fails with [`StoreError`] when what is stored cannot be read; its class ([`schemas::error_class::Classified`]) tells that apart from a question
/// that nobody can answer. How long an answer may take is the caller's to say: dropping the future stops the work.
#[async_trait]
pub trait FlowStore: std::fmt::Debug + Send + Sync {
    /// Makes sure that every flow stored before this call is in the answers about usage of services. Costs what has changed since the
    /// last call. What is asked of the whole network (`overview`, `network_usage`, `attribution`) follows within seconds.
    async fn settle(&self) -> Result<(), StoreError>;

    /// The 5-minute windows of a service (0: traffic of no service) that start in the range and hold metered flows, ascending.
    async fn usage_windows(&self, service: u32, from_ms: i64, to_ms: i64) -> Result<Vec<WindowUsage>, StoreError>;

    /// Usage of services together over time: one point for every step of the range, at most [`crate::series::SERIES_POINTS_MAX`]
    /// (a longer range ends there). A window is measured when it was for each of the services.
    async fn usage_series(&self, query: &SeriesQuery<'_>) -> Result<Vec<SeriesPoint>, StoreError>;

    /// What services used in periods, each by its own mode, as far as windows are closed by `now_ms`
    /// ([`crate::usage::closed_until_ms`]): one answer for each question, in their order, for the price of one scan over the time
    /// that all of them span.
    async fn period_usage(&self, queries: &[PeriodQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, StoreError>;

    /// For each `[from_ms, to_ms)` a mark of what its usage is measured from: as long as it is the same, [`FlowStore::period_usage`]
    /// answers the same for every service. `None` where retention has removed some of it: it cannot be measured any more. The text
    /// of a mark means nothing to anybody else, and marks of two stores are not compared.
    async fn usage_marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, StoreError>;

    /// The windows that touch the range in which a service that these meter was not measured, as runs by time, then exporter.
    async fn gaps(&self, meters: &Meters, from_ms: i64, to_ms: i64) -> Result<Vec<Gap>, StoreError>;

    /// End of the newest window in which any exporter was heard; `None` where none ever was.
    async fn heard_until(&self) -> Result<Option<i64>, StoreError>;

    /// Metered traffic of the whole network over time, stacked by a dimension, largest first, ties by key. The keys of the query's
    /// ranks are named; those before are summed as `larger`, those after as `other`: whatever the ranks, the series
    /// add up to the same. Steps are aligned in UTC and at most 4,000 (a longer range ends there); [`Overview::step_ms`] tells their width.
    /// Ports and pairs of autonomous systems beyond the 4,096 largest of a window are part of `other`.
    async fn overview(&self, query: &OverviewQuery) -> Result<Overview, StoreError>;

    /// Usage of all services and of traffic of no service together, for every window that starts in the range and holds metered
    /// flows, ascending.
    async fn network_usage(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowVolume>, StoreError>;

    /// How much of the metered traffic in the windows that start in the range belongs to a service.
    async fn attribution(&self, from_ms: i64, to_ms: i64) -> Result<Attribution, StoreError>;

    /// How many flow records arrived, metered or not, for every window of arrival that starts in the range and in which they were
    /// counted, ascending.
    async fn flow_records(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowCount>, StoreError>;

    /// How many flows arrived whose sampling rate nobody knows, in the windows of arrival that start in the range, by exporter,
    /// ascending; exporters without such flows are absent.
    async fn flows_without_rate(&self, from_ms: i64, to_ms: i64) -> Result<Vec<ExporterCount>, StoreError>;

    /// What [`FlowStore::usage_windows`] answers, counted anew from the stored flows alone (U1, B5).
    async fn windows_from_flows(&self, service: u32, from_ms: i64, to_ms: i64) -> Result<Vec<WindowUsage>, StoreError>;

    /// The `limit` remote addresses that a service exchanged most with in the windows that touch the range, largest first, ties by
    /// address. A flow counts with what of it falls into these windows, as usage does: of one that went on when the service changed
    /// hands, each owner sees its part (S1). Of the autonomous systems that its flows were reported with, an address has the largest.
    async fn top_peers(&self, service: u32, from_ms: i64, to_ms: i64, limit: usize) -> Result<Vec<Peer>, StoreError>;

    /// Hours that were compared with interface counters and start in the range, by hour, exporter, interface and direction.
    async fn counter_reconciliation(
        &self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<CounterReconciliationRow>, StoreError>;

    /// The last whole hour that was compared with interface counters, unless it began more than a day before `now_ms`.
    async fn latest_counter_reconciliation(&self, now_ms: i64) -> Result<Vec<CounterReconciliationRow>, StoreError>;
}

impl From<crate::Analytics> for Arc<dyn FlowStore> {
    fn from(analytics: crate::Analytics) -> Arc<dyn FlowStore> {
        Arc::new(analytics)
    }
}
