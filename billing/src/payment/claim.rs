//! What those share who look for payments and refunds at a gateway: how long one of them has what it looks at, and what a run
//! did.

use std::time::Duration;

use super::engine::CHECK_AFTER_MS;

/// A claim lasts so long; another worker takes over afterwards.
pub(super) const LEASE_MS: i64 = 180_000;
/// What a claim allows must be done by then.
pub(super) const WORK_LIMIT: Duration = Duration::from_secs(120);

const _: () = assert!(LEASE_MS > WORK_LIMIT.as_millis() as i64 + CHECK_AFTER_MS / 2);

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reconciled {
    /// Payments and refunds that were looked for.
    pub looked_for: u64,
    /// Of those, settled one way or the other.
    pub settled: u64,
    /// Charges that were asked for again with their key.
    pub asked_again: u64,
    /// Of those looked for, the ones that gave an error; they are looked for again.
    pub errors: u64,
    /// Webhooks that came too early and were counted now.
    pub events: u64,
}
