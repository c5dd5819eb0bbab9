//! Traffic that is not billed, by decision of ops: the windows of an attack on a service.
//!
//! An excluded window counts neither as volume nor for the percentile, and every line that leaves windows out says how many
//! and how much. Excluding windows of a period that was charged already changes what the period costs, which the next
//! invoice corrects; revoking an exclusion does the same the other way. Whole 5-minute windows are excluded: those that
//! start in `[from, to)`.

use std::collections::HashMap;

use schemas::db::next_id;
use schemas::ids::{CustomerId, ExclusionId, ServiceId};
use schemas::inventory;
use schemas::window::{DAY_MS, WINDOW_MS};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;
use crate::field::{check_range, checked_text};

/// Characters in a reason at most.
const MAX_REASON_CHARS: usize = 300;
/// How long one exclusion lasts at most.
pub const MAX_LENGTH_MS: i64 = 31 * DAY_MS;
/// Exclusions of one service at most.
pub const MAX_PER_SERVICE: i64 = 10_000;

/// Windows of a service that are not billed.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Exclusion {
    pub id: ExclusionId,
    pub service: ServiceId,
    pub from_ms: i64,
    pub to_ms: i64,
    pub reason: String,
    pub created_by: String,
    pub created_at_ms: i64,
    pub revoked_at_ms: Option<i64>,
}

const SELECT: &str =
    "SELECT id, service_id, from_ms, to_ms, reason, created_by, created_at_ms, revoked_at_ms FROM usage_exclusions";

/// Whether a 5-minute window starts in `[from_ms, to_ms)`: without one nothing would be excluded.
fn has_window((from_ms, to_ms): (i64, i64)) -> bool {
    (to_ms - 1).div_euclid(WINDOW_MS) > (from_ms - 1).div_euclid(WINDOW_MS)
}

/// Checks the time of an exclusion.
///
/// # Errors
/// When it ends before it starts, is too long, or no window starts in it.
pub fn check_time((from_ms, to_ms): (i64, i64)) -> Result<(), BillingError> {
    if to_ms <= from_ms {
        return Err(BillingError::EndsBeforeStart { from_ms, to_ms });
    }
    check_range(
        "length of an exclusion in milliseconds",
        to_ms.saturating_sub(from_ms),
        1,
        MAX_LENGTH_MS,
    )?;
    if !has_window((from_ms, to_ms)) {
        return Err(BillingError::NoWindow);
    }
    Ok(())
}

/// Excludes windows.
///
/// # Errors
/// As [`check_time`]; when the service does not exist, or there is no reason.
pub async fn exclude(
    connection: &mut AnyConnection,
    service: ServiceId,
    (from_ms, to_ms): (i64, i64),
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<Exclusion, BillingError> {
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    check_time((from_ms, to_ms))?;
    inventory::service(&mut *connection, service).await?;
    take_turns(connection).await?;
    let id = ExclusionId(next_id(connection, "usage_exclusion").await?);
    let row = sqlx::query("SELECT count(*) FROM usage_exclusions WHERE service_id = $1 AND revoked_at_ms IS NULL")
        .bind(service.0)
        .fetch_one(&mut *connection)
        .await?;
    check_range(
        "number of exclusions of a service",
        row.try_get::<i64, _>(0)? + 1,
        1,
        MAX_PER_SERVICE,
    )?;
    sqlx::query(
        "INSERT INTO usage_exclusions (id, service_id, from_ms, to_ms, reason, created_by, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id.0)
    .bind(service.0)
    .bind(from_ms)
    .bind(to_ms)
    .bind(&reason)
    .bind(actor)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    mark_charged(connection, service, (from_ms, to_ms)).await?;
    Ok(Exclusion {
        id,
        service,
        from_ms,
        to_ms,
        reason,
        created_by: actor.to_owned(),
        created_at_ms: now_ms,
        revoked_at_ms: None,
    })
}

/// Takes an exclusion back: its windows are billed. Revoking again changes nothing.
///
/// # Errors
/// [`BillingError::NoExclusion`] when there is none of this id.
pub async fn revoke(connection: &mut AnyConnection, id: ExclusionId, now_ms: i64) -> Result<(), BillingError> {
    take_turns(connection).await?;
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(&mut *connection).await?;
    let exclusion = read(&row.ok_or(BillingError::NoExclusion(id))?)?;
    if exclusion.revoked_at_ms.is_some() {
        return Ok(());
    }
    sqlx::query("UPDATE usage_exclusions SET revoked_at_ms = $1 WHERE id = $2")
        .bind(now_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    mark_charged(connection, exclusion.service, (exclusion.from_ms, exclusion.to_ms)).await
}

/// Refuses what could not be excluded, before somebody else is asked for it.
///
/// # Errors
/// As [`check_time`]; when the reason is empty or too long.
pub fn check(time: (i64, i64), reason: &str) -> Result<(), BillingError> {
    checked_text("reason", reason, MAX_REASON_CHARS)?;
    check_time(time)
}

/// How long was excluded of the services of a customer by exclusions that were made since an instant, in milliseconds.
///
/// # Errors
/// As the database answers.
pub async fn excluded_since(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    since_ms: i64,
) -> Result<i64, BillingError> {
    let sql = "SELECT CAST(COALESCE(sum(e.to_ms - e.from_ms), 0) AS BIGINT) FROM usage_exclusions e \
               JOIN services s ON s.id = e.service_id \
               WHERE s.customer_id = $1 AND e.created_at_ms > $2 AND e.revoked_at_ms IS NULL";
    let row = sqlx::query(sql).bind(customer.0).bind(since_ms).fetch_one(db).await?;
    Ok(row.try_get(0)?)
}

/// The closers' row lock: an exclusion is made before a close looks whether there are new ones, or after it has charged.
async fn take_turns(connection: &mut AnyConnection) -> Result<(), BillingError> {
    next_id(connection, "closing").await?;
    Ok(())
}

/// What was charged for a service's windows in `[from_ms, to_ms)` has to be looked at again, and what was charged for the
/// services that shared with it: what it leaves them is not what it was.
async fn mark_charged(
    connection: &mut AnyConnection,
    service: ServiceId,
    (from_ms, to_ms): (i64, i64),
) -> Result<(), BillingError> {
    sqlx::query(
        "UPDATE charged SET usage_mark = '' WHERE kind = 'usage' AND start_ms < $1 AND end_ms > $2 \
         AND subscription_id IN (SELECT id FROM subscriptions WHERE service_id = $3)",
    )
    .bind(to_ms)
    .bind(from_ms)
    .bind(service.0)
    .execute(&mut *connection)
    .await?;
    // Few rows: those of one service, but for invoices that say that they were not pooled.
    let shared = sqlx::query(
        "SELECT DISTINCT c.invoice_id, c.start_ms, c.end_ms FROM charged c \
         JOIN subscriptions s ON s.id = c.subscription_id JOIN invoice_lines l ON l.id = c.line_id \
         WHERE c.kind = 'usage' AND c.start_ms < $1 AND c.end_ms > $2 AND s.service_id = $3 \
         AND l.evidence NOT LIKE '%\"is_pooled\":false%'",
    )
    .bind(to_ms)
    .bind(from_ms)
    .bind(service.0)
    .fetch_all(&mut *connection)
    .await?;
    for row in &shared {
        sqlx::query(
            "UPDATE charged SET usage_mark = '' WHERE kind = 'usage' AND invoice_id = $1 AND start_ms = $2 AND end_ms = $3",
        )
        .bind(row.try_get::<i64, _>(0)?)
        .bind(row.try_get::<i64, _>(1)?)
        .bind(row.try_get::<i64, _>(2)?)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Which exclusions there are: another after every change of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Revision {
    made: i64,
    revoked: i64,
}

/// The exclusions as they are now.
///
/// # Errors
/// As the database answers.
pub(crate) async fn revision(db: impl AnyExecutor<'_>) -> Result<Revision, BillingError> {
    let row = sqlx::query("SELECT count(*), count(revoked_at_ms) FROM usage_exclusions")
        .fetch_one(db)
        .await?;
    Ok(Revision {
        made: row.try_get(0)?,
        revoked: row.try_get(1)?,
    })
}

/// The exclusions of a service, revoked ones too, latest first.
///
/// # Errors
/// As the database answers.
pub async fn exclusions_of(db: impl AnyExecutor<'_>, service: ServiceId) -> Result<Vec<Exclusion>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE service_id = $1 ORDER BY from_ms DESC, id DESC"));
    let rows = sqlx::query(sql).bind(service.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// What holds of all services, by service, oldest first.
///
/// # Errors
/// As the database answers.
pub async fn in_force(db: impl AnyExecutor<'_>) -> Result<HashMap<ServiceId, Vec<Exclusion>>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE revoked_at_ms IS NULL ORDER BY from_ms, id"));
    let rows = sqlx::query(sql).fetch_all(db).await?;
    let mut by_service: HashMap<ServiceId, Vec<Exclusion>> = HashMap::new();
    for row in &rows {
        let exclusion = read(row)?;
        by_service.entry(exclusion.service).or_default().push(exclusion);
    }
    Ok(by_service)
}

/// Those of some exclusions that touch `[from_ms, to_ms)`, as a question about usage names them.
pub fn touching(exclusions: &[Exclusion], from_ms: i64, to_ms: i64) -> Vec<(i64, i64)> {
    let touches = |exclusion: &&Exclusion| exclusion.from_ms < to_ms && from_ms < exclusion.to_ms;
    let found = exclusions.iter().filter(touches);
    found.map(|exclusion| (exclusion.from_ms, exclusion.to_ms)).collect()
}

fn read(row: &AnyRow) -> Result<Exclusion, BillingError> {
    Ok(Exclusion {
        id: ExclusionId(row.try_get("id")?),
        service: ServiceId(row.try_get("service_id")?),
        from_ms: row.try_get("from_ms")?,
        to_ms: row.try_get("to_ms")?,
        reason: row.try_get("reason")?,
        created_by: row.try_get("created_by")?,
        created_at_ms: row.try_get("created_at_ms")?,
        revoked_at_ms: row.try_get("revoked_at_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_window_that_starts_in_it() {
        const MINUTE_MS: i64 = 60_000;
        for (from, to, expected) in [
            (0, 5, None),
            (4, 6, None),
            (1, 4, Some("no 5-minute window starts")),
            // The window that starts at the end belongs to the time after it.
            (1, 5, Some("no 5-minute window starts")),
            (5, 5, Some("must be after the start")),
            (9, 4, Some("must be after the start")),
            (0, 60 * 24 * 32, Some("length of an exclusion")),
        ] {
            let checked = check_time((from * MINUTE_MS, to * MINUTE_MS));
            match (checked, expected) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{from} to {to}: {error}"),
                (checked, expected) => panic!("{from} to {to}: {checked:?}, not {expected:?}"),
            }
        }
    }
}
