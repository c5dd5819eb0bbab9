//! Holds: why a service is suspended now. A subscription can be held for several causes at once, and an add-on for its own and
//! for those of its plan ([`super::addon`]).

use schemas::db::next_id;
use schemas::ids::{HoldId, SubscriptionId};
use sqlx::{AnyConnection, Row as _};

use super::state::HoldCause;
use crate::BillingError;

/// The causes for which a subscription is held now.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn holds(connection: &mut AnyConnection, id: SubscriptionId) -> Result<Vec<HoldCause>, BillingError> {
    let rows = sqlx::query("SELECT cause FROM holds WHERE subscription_id = $1 AND lifted_at_ms IS NULL ORDER BY id")
        .bind(id.0)
        .fetch_all(connection)
        .await?;
    let mut causes: Vec<HoldCause> = Vec::with_capacity(rows.len());
    for row in &rows {
        let cause = row.try_get::<String, _>(0)?.parse()?;
        // An add-on may have one of its own beside its plan's.
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    Ok(causes)
}

/// Whether a hold of a cause is in force: one of its own, or one that came with its plan.
///
/// # Errors
/// As the database answers.
pub(super) async fn is_held(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    cause: HoldCause,
    with_parent: bool,
) -> Result<bool, BillingError> {
    let held = sqlx::query(
        "SELECT id FROM holds WHERE subscription_id = $1 AND cause = $2 AND with_parent = $3 AND lifted_at_ms IS NULL",
    )
    .bind(id.0)
    .bind(cause.name())
    .bind(i64::from(with_parent))
    .fetch_optional(connection)
    .await?;
    Ok(held.is_some())
}

/// Writes a hold.
///
/// # Errors
/// As the database answers.
pub(super) async fn place(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    cause: HoldCause,
    with_parent: bool,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let hold = HoldId(next_id(connection, "hold").await?);
    sqlx::query(
        "INSERT INTO holds (id, subscription_id, cause, reason, placed_at_ms, with_parent) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(hold.0)
    .bind(id.0)
    .bind(cause.name())
    .bind(reason)
    .bind(now_ms)
    .bind(i64::from(with_parent))
    .execute(connection)
    .await?;
    Ok(())
}

/// Lifts holds of a cause; false where there was none.
///
/// # Errors
/// As the database answers.
pub(super) async fn lift(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    cause: HoldCause,
    with_parent: bool,
    now_ms: i64,
) -> Result<bool, BillingError> {
    let lifted = sqlx::query(
        "UPDATE holds SET lifted_at_ms = $1 WHERE subscription_id = $2 AND cause = $3 AND with_parent = $4 \
         AND lifted_at_ms IS NULL",
    )
    .bind(now_ms)
    .bind(id.0)
    .bind(cause.name())
    .bind(i64::from(with_parent))
    .execute(connection)
    .await?;
    Ok(lifted.rows_affected() > 0)
}
