//! From flow to number: usage windows, percentiles, coverage, and every question about flows.
//!
//! * [`store`]: the questions ([`FlowStore`]), and the tables that answer them.
//! * [`console`]: SQL for people; `output`: its answers as JSON, CSV and text.
//! * `rollup`: metered volume by service, interface, port and autonomous system, from flows (U1, U2).
//! * [`usage`]: the rollup that billing reads, and where a window is closed.
//! * `coverage`, `period`: what a service used in a billing period, and which windows were measured.
//! * [`series`], `overview`, `peers`: what charts and invoice explanations show (B5); `network`: the network in figures.
//! * [`error_bound`]: how far sampled volumes may be from the true ones.
//! * [`counter_reconciliation`]: flows against the interfaces' own counters.
//! * [`reattribute`], [`correct`]: stored flows after a backdated change of assignments, or read under other settings of their
//!   exporter; [`rewrite`] is how. [`retention`]: what age and size limits remove.

pub mod console;
pub mod correct;
pub mod counter_reconciliation;
mod coverage;
pub mod error_bound;
mod metered;
mod network;
mod output;
mod overview;
mod peers;
mod period;
pub mod reattribute;
pub mod retention;
pub mod rewrite;
mod rollup;
pub mod series;
pub mod store;
#[cfg(test)]
mod tests;
pub mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::error::DataFusionError;
pub use schemas::usage::{Gap, Peer, PeriodUsage, SeriesPoint, UsageMode, WindowUsage};
use tables::table::Storage;

pub use metered::MeteredUsage;
use store::parquet::Engine;
pub use store::parquet::QUERY_MEMORY_BYTES;
pub use store::{
    Attribution, Dimension, ExporterCount, FlowStore, MeteredService, Meters, Overview, OverviewQuery, OverviewSeries,
    PeriodQuery, SeriesQuery, Sites, Step, StoreError, WindowCount, WindowVolume,
};

/// What went wrong with the stored tables. Who asks through [`FlowStore`] is told with [`StoreError`].
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

schemas::error_codes! {
    AnalyticsError: "analytics";
    of []
    source []
    Fault:
        Query = "query", Manifest = "manifest", Write = "write", Open = "open", Parquet = "parquet", Arrow = "arrow",
        Column = "column", Calendar = "calendar", Contended = "contended", Task = "task";
}

/// The stored tables of one data folder or bucket, with DataFusion over them: a [`FlowStore`], and what keeps its tables. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct Analytics {
    store: Arc<Engine>,
    /// One refresh at a time, with what it left for the next.
    refreshing: Arc<tokio::sync::Mutex<Option<rollup::Counted<rollup::Cells<rollup::ByService>>>>>,
    refreshing_traffic: Arc<tokio::sync::Mutex<Option<rollup::Counted<rollup::TrafficCells>>>>,
    heard: Arc<tokio::sync::Mutex<Arc<coverage::ExporterActivity>>>,
}

impl Analytics {
    /// Opens the tables of a storage, or of a data directory with its own files; empty where there are none yet.
    ///
    /// # Errors
    /// When the folders cannot be made or read.
    pub fn open(storage: impl Into<Storage>) -> Result<Analytics, AnalyticsError> {
        Ok(Analytics {
            store: Arc::new(Engine::open(&storage.into())?),
            refreshing: Arc::default(),
            refreshing_traffic: Arc::default(),
            heard: Arc::default(),
        })
    }
}
