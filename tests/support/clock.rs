//! The time, for tests.
//!
//! A test that asks what time it is twice may get two hours, two days or two months. What a test says about "now" it says about
//! [`began`], which is read once; only what must follow the running clock, such as datagrams that a collector takes in, asks
//! [`running`]. Tests that depend on the calendar run once more seconds before its edges: see `tests/at-edges`.

use std::sync::OnceLock;

use jiff::Timestamp;

/// When the test began, whenever it is asked. (Tests that share a process share it.)
pub(crate) fn began() -> Timestamp {
    static BEGAN: OnceLock<Timestamp> = OnceLock::new();
    *BEGAN.get_or_init(schemas::clock::machine_now)
}

/// UTC milliseconds of [`began`].
pub(crate) fn began_ms() -> i64 {
    began().as_millisecond()
}

/// The clock as it runs.
pub(crate) fn running() -> Timestamp {
    schemas::clock::machine_now()
}
