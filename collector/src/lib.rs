//! From datagram to durable, attributed flow.
//!
//! * [`receive`](Listening), [`journal`], [`pipeline`]: sockets, the durable copy of what they received, and the threads
//!   between ([`Collector`]).
//! * [`allow`], [`decode`], [`counts`]: datagrams to flows, everything counted.
//! * [`import`]: captured or made-up datagrams through the same path, without sockets and journal ([`Importer`]).
//! * [`reading`]: what is configured of how records are read. [`sampling`], [`sequence`], [`times`]: what the protocols leave to the collector.
//! * [`simulate`]: exporters that encode real datagrams.
//! * `sink`: flows to Parquet to commits; [`compact`].
//! * [`snmp`]: what exporters' interfaces are called and what they counted.
//! * [`status`], [`metrics`]: what people and monitoring see.

pub mod allow;
pub mod config;
pub mod counts;
pub mod decode;
mod durable;
pub mod import;
pub mod journal;
pub mod metrics;
pub mod pipeline;
pub mod reading;
mod receive;
pub mod sampling;
pub mod sequence;
pub mod simulate;
mod sink;
pub mod snmp;
pub mod status;
#[cfg(test)]
mod test_support;
pub mod times;

pub use config::{CollectorConfig, ConfigError};
pub use durable::advice;
pub use import::{ImportError, ImportSummary, Importer};
pub use pipeline::{Collector, CollectorError, LiveCounts, found_formats};
pub use receive::{ListenKind, Listening};
pub use sink::{CompactLimits, Compaction, StoreError, compact};

/// An error and its sources in one line, for the log.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
