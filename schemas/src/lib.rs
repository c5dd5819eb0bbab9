//! The words every other crate shares: what a window is, what money is, who owns what, and the database that keeps it.
//!
//! * [`assignment`], [`metering`]: which service an address or interface belongs to, how exporters are configured, and what is
//!   said of their past.
//! * [`sampling`]: sampling rates as fractions, and what volume they make of a flow.
//! * [`names`]: what people call exporters and interfaces; [`interfaces`]: what exporters say of theirs.
//! * [`prefix`]: networks that people write.
//! * [`window`], [`period`]: 5-minute usage windows and billing periods, both half-open.
//! * [`money`], [`ids`], [`percent`]: closed value types.
//! * [`db`], [`inventory`]: the relational database behind one handle, and who and what is metered; [`bulk`]: many rows in
//!   one statement; [`trial`]: what something would do to it.
//! * [`identity`]: who signs in: users, sessions, second factors, known browsers.
//! * [`secret`]: secrets at rest, sealed under a key file; [`secret_keys`]: its keys at start, in rotation and when they are lost.
//! * [`clock`]: what time it is; a test can say.
//! * [`retention`]: how long the database keeps what no money depends on.
//! * [`search`]: what staff search for, in an index. [`spreadsheet`]: texts in CSV.
//! * [`file_format`]: versions of the files in a data folder. [`fault`]: crashes at named points, for tests.
//! * [`error_class`]: what kind of thing went wrong, and its stable code.

pub mod address;
mod api_text;
pub mod assignment;
pub mod audit_chain;
pub mod bulk;
pub mod clock;
pub mod db;
pub mod error_class;
pub mod fault;
pub mod file_format;
pub mod identity;
pub mod ids;
pub mod interfaces;
pub mod inventory;
pub mod iso;
pub mod metering;
pub mod money;
pub mod names;
pub mod percent;
pub mod period;
pub mod prefix;
pub mod retention;
pub mod sampling;
pub mod search;
pub mod secret;
pub mod secret_keys;
pub mod spreadsheet;
pub mod text;
pub mod trial;
pub mod usage;
pub mod vat_number;
pub mod window;
