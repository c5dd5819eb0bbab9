//! What comes with time: trials end, scheduled changes are made, cancelled subscriptions end, free plans that nobody uses
//! end too.
//!
//! [`advance`] does all of it up to an instant, each in a transaction of its own, in the order of the instants they were due
//! at: a program that was off for a week catches up to the same books. What cannot be done is told and does not keep the
//! rest from being done. Doing it again does nothing.

use schemas::db::Database;
use schemas::ids::SubscriptionId;
use schemas::window::DAY_MS;
use sqlx::Row as _;

use crate::BillingError;
use crate::subscription::State;
use crate::subscription::change::{self, End};
use crate::subscription::schedule::{self, ScheduledChange};

/// A free plan ends after so long without anybody signing in or any traffic (F-26).
pub const FREE_PLAN_IDLE_MS: i64 = 90 * DAY_MS;
/// How many things of a kind one call does at most; the next call does the rest.
const AT_ONCE: i64 = 1_000;

/// What was done.
#[derive(Debug, Default)]
pub struct Advanced {
    pub trials_ended: usize,
    pub reminders: usize,
    pub changes_executed: usize,
    pub changes_failed: usize,
    pub subscriptions_ended: usize,
    /// What could not be done, and why.
    pub failed: Vec<(SubscriptionId, BillingError)>,
}

/// Does what is due by `now_ms`.
///
/// # Errors
/// When the database cannot be read at all.
pub async fn advance(database: &Database, now_ms: i64) -> Result<Advanced, BillingError> {
    let mut done = Advanced::default();
    for id in due(database, "SELECT id FROM subscriptions WHERE status = 'trial' AND trial_ends_at_ms <= $1 ORDER BY trial_ends_at_ms, id LIMIT $2", now_ms).await? {
        let mut transaction = database.begin_write().await?;
        match change::end_trial(&mut transaction, id, now_ms).await {
            Ok(()) => {
                transaction.commit().await?;
                done.trials_ended += 1;
            }
            // Another worker was first.
            Err(BillingError::NoTransition { state, .. }) if state != State::Trial => {}
            Err(error) => done.failed.push((id, error)),
        }
    }
    for change in schedule::to_remind(database.pool(), now_ms).await? {
        let mut transaction = database.begin_write().await?;
        match schedule::remind(&mut transaction, &change, now_ms).await {
            Ok(()) => {
                transaction.commit().await?;
                done.reminders += 1;
            }
            Err(error) => done.failed.push((change.subscription, error)),
        }
    }
    for change in schedule::due(database.pool(), now_ms).await? {
        execute(database, &change, now_ms, &mut done).await?;
    }
    for id in due(database, "SELECT id FROM subscriptions WHERE status <> 'ended' AND cancel_at_ms <= $1 ORDER BY cancel_at_ms, id LIMIT $2", now_ms).await? {
        let mut transaction = database.begin_write().await?;
        match change::reach_end(&mut transaction, id, "billing", now_ms).await {
            Ok(()) => {
                transaction.commit().await?;
                done.subscriptions_ended += 1;
            }
            // Another worker was first, or somebody resumed it meanwhile.
            Err(BillingError::Refused { .. }) => {}
            Err(error) => done.failed.push((id, error)),
        }
    }
    Ok(done)
}

/// A change that cannot be made is noted as failed, with the reason, so that it is not tried for ever.
async fn execute(
    database: &Database,
    change: &ScheduledChange,
    now_ms: i64,
    done: &mut Advanced,
) -> Result<(), BillingError> {
    let mut transaction = database.begin_write().await?;
    let refused = match schedule::execute(&mut transaction, change, now_ms).await {
        Ok(()) => {
            transaction.commit().await?;
            done.changes_executed += 1;
            return Ok(());
        }
        // Another worker was first.
        Err(BillingError::ChangeSettled(_)) => return Ok(()),
        // The database's trouble is not the change's: it is tried again.
        Err(BillingError::Database(error)) => return Err(error.into()),
        Err(refused) => refused,
    };
    transaction.rollback().await?;
    let mut transaction = database.begin_write().await?;
    match schedule::fail(&mut transaction, change, &refused.to_string(), now_ms).await {
        Ok(()) => {
            transaction.commit().await?;
            done.changes_failed += 1;
        }
        Err(BillingError::ChangeSettled(_)) => {}
        Err(error) => done.failed.push((change.subscription, error)),
    }
    Ok(())
}

/// Ends free plans whose customers have not been seen for [`FREE_PLAN_IDLE_MS`]. `has_traffic` says whether a service sent
/// or received anything since an instant.
///
/// # Errors
/// When the database or usage cannot be read.
pub async fn end_idle_free_plans<U: crate::UsageSource>(
    database: &Database,
    usage: &U,
    now_ms: i64,
) -> Result<usize, BillingError> {
    let since_ms = now_ms - FREE_PLAN_IDLE_MS;
    let idle = due(
        database,
        "SELECT s.id FROM subscriptions s JOIN phases p ON p.subscription_id = s.id JOIN plans l ON l.id = p.plan_id \
         WHERE l.is_free = 1 AND s.status NOT IN ('ended', 'cancelled') AND s.started_at_ms <= $1 \
         AND NOT EXISTS (SELECT 1 FROM users u WHERE u.customer_id = s.customer_id AND u.last_seen_at_ms > $1) \
         ORDER BY s.id LIMIT $2",
        since_ms,
    );
    let mut ended = 0;
    for id in idle.await? {
        let mut connection = database.pool().acquire().await?;
        let contract = crate::subscription::contract(&mut connection, id).await?;
        drop(connection);
        let windows = usage.windows_from_flows(&contract.service, since_ms, now_ms).await?;
        if windows.iter().any(|window| window.bytes_in + window.bytes_out > 0) {
            continue;
        }
        let mut transaction = database.begin_write().await?;
        let reason = "the free plan was not used for 90 days";
        change::cancel(&mut transaction, id, End::Now, reason, "billing", now_ms).await?;
        transaction.commit().await?;
        ended += 1;
    }
    Ok(ended)
}

async fn due(database: &Database, sql: &'static str, now_ms: i64) -> Result<Vec<SubscriptionId>, BillingError> {
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(AT_ONCE)
        .fetch_all(database.pool())
        .await?;
    rows.iter().map(|row| Ok(SubscriptionId(row.try_get(0)?))).collect()
}
