//! From flow to number: SQL on the stored tables, usage windows, percentiles, coverage.
//!
//! * `store`: the tables as SQL sees them; [`output`]: results as JSON, CSV and text.
//! * [`usage`]: `usage_5m` from flows (U1, U2), and where a window is closed.
//! * [`coverage`], [`period`]: what a service used in a billing period, and which windows were measured.
//! * [`series`], [`overview`], [`peers`]: what charts and invoice explanations show (B5).
//! * [`error_bound`]: how far sampled volumes may be from the true ones.
//! * [`truth`]: flows against the interfaces' own counters.
//! * [`reattribute`], [`correct`]: stored flows after a backdated change of assignments, or read under other settings of their
//!   exporter; [`rewrite`] is how. [`retention`]: what age and size limits remove.

pub mod correct;
pub mod coverage;
pub mod error_bound;
mod metered;
pub mod output;
pub mod overview;
pub mod peers;
pub mod period;
pub mod reattribute;
pub mod retention;
pub mod rewrite;
pub mod series;
mod store;
#[cfg(test)]
mod tests;
pub mod truth;
pub mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use schemas::address::Address;
use schemas::usage::UsageError;
pub use schemas::usage::{Gap, Peer, PeriodUsage, SeriesPoint, UsageMode, WindowUsage};
use tables::table::Storage;

pub use metered::MeteredUsage;
use store::FlowStore;
pub use store::QUERY_MEMORY_BYTES;

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    #[error("run query")]
    Query(#[from] DataFusionError),
    #[error("read the table")]
    Manifest(#[from] tables::table::ManifestError),
    #[error("write the table")]
    Write(#[from] tables::table::WriteError),
    #[error("open {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("read a stored file")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("work on columns")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The file is of another version of the table, or damaged.
    #[error("column {name} is missing or of another type")]
    Column { name: &'static str },
    #[error("the date is out of range")]
    Calendar(#[from] jiff::Error),
    #[error("others changed the table {attempts} times meanwhile")]
    Contended { attempts: u32 },
    #[error("a task was stopped")]
    Task(#[from] tokio::task::JoinError),
}

impl From<AnalyticsError> for UsageError {
    fn from(error: AnalyticsError) -> UsageError {
        UsageError::new(error)
    }
}

impl AnalyticsError {
    /// What is wrong with a question in SQL, said once: the parser's error is both in the query's error and its cause. `None`
    /// where the question is not at fault.
    pub fn of_question(&self) -> Option<String> {
        let AnalyticsError::Query(error) = self else {
            return None;
        };
        match error.find_root() {
            DataFusionError::SQL(parser, _) => Some(parser.to_string()),
            root @ (DataFusionError::Plan(_) | DataFusionError::SchemaError(..)) => {
                // The tables have no catalog or schema that anybody typed.
                Some(root.strip_backtrace().replace("datafusion.public.", ""))
            }
            _ => None,
        }
    }
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
    /// Keys with traffic in the range, named here or not.
    pub keys_total: usize,
    pub series: Vec<OverviewSeries>,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OverviewSeries {
    /// `svc_12`, `6`, `192.0.2.1 513`, `64500`, `unattributed`; `larger` and `other` for the sums of those before and after
    /// the ranks that were asked for.
    pub key: String,
    pub total_bytes: u64,
    /// Scaled bytes per step.
    pub bytes: Vec<u64>,
}

/// Answers questions about stored flows and usage. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Analytics {
    store: Arc<FlowStore>,
    /// One refresh at a time, with what it left for the next.
    refreshing: Arc<tokio::sync::Mutex<Option<usage::Counted>>>,
    heard: Arc<tokio::sync::Mutex<Arc<coverage::Heard>>>,
}

impl Analytics {
    /// Opens the tables of a storage, or of a data directory with its own files; empty where there are none yet.
    ///
    /// # Errors
    /// When the folders cannot be made or read.
    pub fn open(storage: impl Into<Storage>) -> Result<Analytics, AnalyticsError> {
        Ok(Analytics {
            store: Arc::new(FlowStore::open(&storage.into())?),
            refreshing: Arc::default(),
            heard: Arc::default(),
        })
    }

    /// Runs SQL over the tables `flows`, `usage_5m`, `counters`, `collection_5m`, `truth_1h`: one statement that only reads. A result
    /// without rows has one batch without rows, which tells the columns.
    ///
    /// # Errors
    /// When the statement is not SQL, would change something, or fails.
    pub async fn sql(&self, query: &str) -> Result<Vec<RecordBatch>, AnalyticsError> {
        let (mut batches, schema) = self.store.sql(query).await?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }

    /// As [`Analytics::sql`], batch by batch while the query runs; dropping the stream stops the query.
    ///
    /// # Errors
    /// When the statement is not SQL, would change something, or cannot start.
    pub async fn sql_stream(&self, query: &str) -> Result<SendableRecordBatchStream, AnalyticsError> {
        self.store.stream(query).await
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
