//! What the database forgets: records that no money depends on, once they are old.
//!
//! ```text
//! deliveries       delivered or given up, made out before the limit     never one that is still to be sent or retried
//! notifications    read before the limit                                never an unread one
//! events           dispatched before the limit, nothing of theirs left  never one that a consumer has not handled
//! gateway events   their text, counted before the limit                 the row stays: an event counts once, for ever
//! sessions, sign-ins, links, form tokens                                when they are over
//! attempts to sign in    after 90 days        known browsers            180 days after they last signed somebody in
//! ```
//!
//! The limits are those of [`RecordRetention`]. The audit log, invoices, ledger, payments with their idempotency keys,
//! contracts and evidence are never touched.
//!
//! It removes in small batches, each a transaction of its own, so that nobody waits for it, and stops after
//! [`BATCHES_MAX`] of a kind: the rest comes at the next call. Any number of processes may run it.

use schemas::db::Database;
use schemas::identity::{ATTEMPTS_KEPT_MS, DEVICE_KNOWN_MS};
use schemas::retention::RecordRetention;
use schemas::window::DAY_MS;
use tracing::info;

use crate::BillingError;

/// Rows in one transaction at most.
const BATCH: i64 = 500;
/// Transactions of one kind in one call at most.
const BATCHES_MAX: u32 = 100;
/// Forms that are sent once are remembered for so long: as long as a session can be used and more.
const FORM_TOKENS_MS: i64 = 30 * DAY_MS;

/// One kind of record: how much of it is removed by one batch.
struct Kind {
    /// As metrics name it.
    name: &'static str,
    /// `$1` is the instant before which it is over, `$2` the rows at most.
    sql: &'static str,
    before_ms: i64,
}

/// What a call removed, by kind, kinds of which there was nothing left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    pub rows: Vec<(&'static str, u64)>,
    /// There is more to remove: a kind reached its limit of batches.
    pub is_unfinished: bool,
}

/// The kinds of records, as metrics name them.
pub const KINDS: [&str; 11] = [
    "deliveries",
    "notifications",
    "events",
    "gateway_payloads",
    "sessions",
    "sign_ins",
    "verification_links",
    "password_links",
    "sign_in_attempts",
    "known_devices",
    "form_tokens",
];

fn kinds(keep: &RecordRetention, now_ms: i64) -> [Kind; 11] {
    let days_ago = |days: u32| now_ms.saturating_sub(i64::from(days) * DAY_MS);
    let kind = |name, before_ms, sql| Kind { name, sql, before_ms };
    [
        kind(
            KINDS[0],
            days_ago(keep.deliveries_days),
            "DELETE FROM deliveries WHERE status <> 'pending' AND id IN (SELECT id FROM deliveries \
             WHERE status <> 'pending' AND created_at_ms < $1 ORDER BY created_at_ms LIMIT $2)",
        ),
        kind(
            KINDS[1],
            days_ago(keep.notifications_days),
            "DELETE FROM notifications WHERE read_at_ms IS NOT NULL AND id IN (SELECT id FROM notifications \
             WHERE read_at_ms IS NOT NULL AND read_at_ms < $1 ORDER BY read_at_ms LIMIT $2)",
        ),
        // After what refers to them.
        kind(
            KINDS[2],
            days_ago(keep.events_days),
            "DELETE FROM events WHERE dispatched_at_ms IS NOT NULL AND id IN (SELECT e.id FROM events e \
             WHERE e.dispatched_at_ms IS NOT NULL AND e.dispatched_at_ms < $1 \
             AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_id = e.id) \
             AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.event_id = e.id) \
             AND NOT EXISTS (SELECT 1 FROM event_retries r WHERE r.event_id = e.id) \
             ORDER BY e.dispatched_at_ms, e.id LIMIT $2)",
        ),
        kind(
            KINDS[3],
            days_ago(keep.gateway_payloads_days),
            "UPDATE gateway_events SET payload = '' WHERE processed_at_ms IS NOT NULL AND payload <> '' \
             AND event_id IN (SELECT event_id FROM gateway_events \
             WHERE processed_at_ms IS NOT NULL AND processed_at_ms < $1 AND payload <> '' LIMIT $2) \
             AND processed_at_ms < $1",
        ),
        kind(
            KINDS[4],
            now_ms,
            "DELETE FROM sessions WHERE token_hash IN (SELECT token_hash FROM sessions WHERE expires_at_ms <= $1 LIMIT $2)",
        ),
        kind(
            KINDS[5],
            now_ms,
            "DELETE FROM sign_ins WHERE token_hash IN (SELECT token_hash FROM sign_ins WHERE expires_at_ms <= $1 LIMIT $2)",
        ),
        kind(
            KINDS[6],
            now_ms,
            "DELETE FROM email_verifications WHERE token_hash IN \
             (SELECT token_hash FROM email_verifications WHERE expires_at_ms <= $1 LIMIT $2)",
        ),
        kind(
            KINDS[7],
            now_ms,
            "DELETE FROM password_resets WHERE token_hash IN \
             (SELECT token_hash FROM password_resets WHERE expires_at_ms <= $1 LIMIT $2)",
        ),
        kind(
            KINDS[8],
            now_ms.saturating_sub(ATTEMPTS_KEPT_MS),
            "DELETE FROM sign_in_attempts WHERE id IN (SELECT id FROM sign_in_attempts WHERE at_ms < $1 LIMIT $2)",
        ),
        kind(
            KINDS[9],
            now_ms.saturating_sub(DEVICE_KNOWN_MS),
            "DELETE FROM known_devices WHERE token_hash IN \
             (SELECT token_hash FROM known_devices WHERE used_at_ms <= $1 LIMIT $2) AND used_at_ms <= $1",
        ),
        kind(
            KINDS[10],
            now_ms.saturating_sub(FORM_TOKENS_MS),
            "DELETE FROM form_tokens WHERE token IN (SELECT token FROM form_tokens WHERE used_at_ms < $1 LIMIT $2)",
        ),
    ]
}

/// Removes what is over.
///
/// # Errors
/// As the database answers; what was removed before stays removed.
pub async fn prune(database: &Database, keep: &RecordRetention, now_ms: i64) -> Result<Pruned, BillingError> {
    let mut pruned = Pruned::default();
    for kind in kinds(keep, now_ms) {
        let mut rows = 0;
        let mut batches = 0;
        loop {
            let removed = sqlx::query(kind.sql)
                .bind(kind.before_ms)
                .bind(BATCH)
                .execute(database.pool())
                .await?
                .rows_affected();
            rows += removed;
            batches += 1;
            if removed == 0 {
                break;
            }
            if batches == BATCHES_MAX {
                pruned.is_unfinished = true;
                break;
            }
        }
        if rows > 0 {
            info!(records = kind.name, rows, "old records removed");
            pruned.rows.push((kind.name, rows));
        }
    }
    Ok(pruned)
}

/// How much of each kind is over, without removing it.
///
/// # Errors
/// As the database answers.
pub async fn preview(
    database: &Database,
    keep: &RecordRetention,
    now_ms: i64,
) -> Result<Vec<(&'static str, i64)>, BillingError> {
    let counts = [
        "SELECT count(*) FROM deliveries WHERE status <> 'pending' AND created_at_ms < $1",
        "SELECT count(*) FROM notifications WHERE read_at_ms IS NOT NULL AND read_at_ms < $1",
        "SELECT count(*) FROM events e WHERE e.dispatched_at_ms IS NOT NULL AND e.dispatched_at_ms < $1 \
         AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_id = e.id) \
         AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.event_id = e.id) \
         AND NOT EXISTS (SELECT 1 FROM event_retries r WHERE r.event_id = e.id)",
        "SELECT count(*) FROM gateway_events WHERE processed_at_ms IS NOT NULL AND processed_at_ms < $1 AND payload <> ''",
        "SELECT count(*) FROM sessions WHERE expires_at_ms <= $1",
        "SELECT count(*) FROM sign_ins WHERE expires_at_ms <= $1",
        "SELECT count(*) FROM email_verifications WHERE expires_at_ms <= $1",
        "SELECT count(*) FROM password_resets WHERE expires_at_ms <= $1",
        "SELECT count(*) FROM sign_in_attempts WHERE at_ms < $1",
        "SELECT count(*) FROM known_devices WHERE used_at_ms <= $1",
        "SELECT count(*) FROM form_tokens WHERE used_at_ms < $1",
    ];
    let mut over = Vec::with_capacity(counts.len());
    for (kind, sql) in kinds(keep, now_ms).into_iter().zip(counts) {
        let row = sqlx::query(sql).bind(kind.before_ms).fetch_one(database.pool()).await?;
        over.push((kind.name, sqlx::Row::try_get(&row, 0)?));
    }
    Ok(over)
}

#[cfg(test)]
mod tests;
