//! What is stored, column by column: what a flow is, how it is judged, and how tables lie on disk.
//!
//! * [`mod@column`], [`flow`], [`definitions`]: one definition per stored table; Arrow schema, Parquet options, ClickHouse DDL
//!   and the documentation table are derived from it.
//! * [`collection`]: rows of what the collector counts.
//! * [`table`]: how such a table lies on disk: Parquet files named by a manifest that commits atomically (F1).
//! * [`metering`]: which flows count, and for whom; [`correction`]: what is said later of flows that are stored.

pub mod collection;
pub mod column;
pub mod correction;
pub mod definitions;
pub mod flow;
pub mod metering;
pub mod table;
