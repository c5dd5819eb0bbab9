//! The words every other crate shares: what a flow is, what a window is, what money is, and where each is kept.
//!
//! * [`column`], [`flow`], [`tables`]: one definition per stored table; Arrow schema, Parquet options, ClickHouse DDL
//!   and the documentation table are derived from it.
//! * [`table`]: how such a table lies on disk: Parquet files named by a manifest that commits atomically (F1).
//! * [`assignment`], [`metering`]: which service an address or interface belongs to, and which flows count.
//! * [`sampling`]: sampling rates as fractions, and what volume they make of a flow.
//! * [`names`]: what people call exporters and interfaces; [`interfaces`]: what exporters say of theirs.
//! * [`window`], [`period`]: 5-minute usage windows and billing periods, both half-open.
//! * [`money`], [`ids`], [`percent`]: closed value types.
//! * [`db`], [`inventory`]: the relational database behind one handle, and who and what is metered; [`trial`]: what
//!   something would do to it.
//! * [`secret`]: secrets at rest, sealed under a key file.
//! * [`clock`]: what time it is; a test can say.
//! * [`retention`]: how long the database keeps what no money depends on.
//! * [`search`]: what staff search for, in an index. [`spreadsheet`]: texts in CSV.
//! * [`fault`]: crashes at named points, for tests.

pub mod address;
pub mod assignment;
pub mod clock;
pub mod column;
pub mod correction;
pub mod db;
pub mod fault;
pub mod flow;
pub mod ids;
pub mod interfaces;
pub mod inventory;
pub mod iso;
pub mod metering;
pub mod money;
pub mod names;
pub mod percent;
pub mod period;
pub mod retention;
pub mod sampling;
pub mod search;
pub mod secret;
pub mod spreadsheet;
pub mod table;
pub mod tables;
pub mod trial;
pub mod usage;
pub mod vat_number;
pub mod window;
