//! Waiting for a condition, with a deadline and never for luck.
//!
//! A probe is asked again every [`POLL_INTERVAL`] until it answers; past the limit the test fails and says what it
//! waited for. There is no variant without a limit.

use std::time::{Duration, Instant};

/// Time between two askings. Short beside what tests wait for, long beside what a probe costs.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Asks `probe` until it gives a value.
///
/// Panics past `limit` with `what`, which should complete the sentence "timed out waiting for …".
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "timed out after {limit:?} waiting for {what}"
        );
        // An early wake-up only asks the probe sooner.
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// Asks `condition` until it holds; see [`wait_for`].
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}
