//! Days that are not charged because the service is suspended for an unpaid invoice, where the terms of collection say so
//! (`bill_suspended = false`).
//!
//! ```text
//! suspended on day D   the phase ends with D                 what was charged ahead is given back, as after any end
//! lifted on day E      a phase like it begins on E           periods go on by the same anchor; D+1 to E−1 are in no phase
//! ```
//!
//! So a day on which the service ran is charged, whole days on which it did not are not, and what is charged follows from
//! phases as everywhere: nothing else of billing knows of it. While it lasts the terms cannot be changed; a cancellation, one
//! that is taken back, a transfer and the end find the phases as they are.

use jiff::civil::Date;
use schemas::ids::SubscriptionId;
use schemas::period::{local_date, midnight_ms};
use sqlx::{AnyConnection, Row as _};

use super::hold::holds;
use super::load::contract;
use super::state::HoldCause;
use super::write::{NewPhase, cycle_start, end_phase, insert_phase};
use super::{Contract, Subscription};
use crate::catalog::BaseTiming;
use crate::{BillingError, collection_terms};

/// Since which local day a subscription is not charged, because its service is suspended for an unpaid invoice and the terms
/// say so; `None` while it is charged.
///
/// # Errors
/// As the database answers, or when what is stored is not understood.
pub async fn paused_from(
    connection: &mut AnyConnection,
    subscription: &Subscription,
) -> Result<Option<Date>, BillingError> {
    let row = sqlx::query("SELECT paused_from FROM subscriptions WHERE id = $1")
        .bind(subscription.id.0)
        .fetch_one(connection)
        .await?;
    let text: Option<String> = row.try_get(0)?;
    let read = |text: String| text.parse().map_err(|_| BillingError::corrupt("day of a pause", text));
    text.map(read).transpose()
}

/// After a hold was placed or lifted, its own or one that came with its plan: not charged while one for an unpaid invoice is
/// in force.
pub(super) async fn follow(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(&mut *connection, id).await?;
    match holds(&mut *connection, id).await?.contains(&HoldCause::Unpaid) {
        true => pause(connection, &before, now_ms).await,
        false => go_on(connection, &before, now_ms).await,
    }
}

/// The service was suspended for an unpaid invoice at `now_ms`: from the next day on it is not charged.
async fn pause(connection: &mut AnyConnection, before: &Contract, now_ms: i64) -> Result<(), BillingError> {
    let subscription = &before.subscription;
    if collection_terms::terms(&mut *connection).await?.bill_suspended
        || paused_from(connection, subscription).await?.is_some()
    {
        return Ok(());
    }
    let last = before.last_phase();
    let tomorrow = local_date(now_ms, &subscription.time_zone)?
        .tomorrow()
        .map_err(schemas::period::PeriodError::from)?;
    // Usage and arrears that were charged are done with.
    let in_arrears = last.plan.base_timing == BaseTiming::Arrears;
    let usage_to = last
        .usage_charged_to_ms
        .map(|to_ms| local_date(to_ms, &subscription.time_zone))
        .transpose()?;
    let done = usage_to.max(last.base_to.filter(|_| in_arrears)).unwrap_or(last.from);
    let from = tomorrow.max(last.from).max(done);
    if last.to.is_some_and(|to| to <= from) {
        return Ok(());
    }
    let usage_to_ms = midnight_ms(from, &subscription.time_zone)?.max(last.usage_from_ms);
    end_phase(connection, last.id, from, usage_to_ms).await?;
    sqlx::query("UPDATE subscriptions SET paused_from = $2 WHERE id = $1")
        .bind(subscription.id.0)
        .bind(from.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// The service is not suspended for an unpaid invoice any more: from today on it is charged again, up to the end that was
/// agreed meanwhile.
async fn go_on(connection: &mut AnyConnection, before: &Contract, now_ms: i64) -> Result<(), BillingError> {
    let subscription = &before.subscription;
    let Some(paused_from) = paused_from(connection, subscription).await? else {
        return Ok(());
    };
    sqlx::query("UPDATE subscriptions SET paused_from = NULL WHERE id = $1")
        .bind(subscription.id.0)
        .execute(&mut *connection)
        .await?;
    let end = subscription
        .cancel_at_ms
        .map(|at_ms| local_date(at_ms, &subscription.time_zone))
        .transpose()?;
    let today = local_date(now_ms, &subscription.time_zone)?;
    let last = before.last_phase();
    if end.is_some_and(|end| end <= today.max(paused_from)) {
        return Ok(());
    }
    if today <= paused_from {
        // No whole day has passed.
        let usage_to_ms = end.map(|end| midnight_ms(end, &subscription.time_zone)).transpose()?;
        sqlx::query("UPDATE phases SET to_date = $2, usage_to_ms = $3 WHERE id = $1")
            .bind(last.id.0)
            .bind(end.map(|end| end.to_string()))
            .bind(usage_to_ms)
            .execute(connection)
            .await?;
        return Ok(());
    }
    let phase = NewPhase {
        price: &last.price,
        quantity: last.quantity,
        anchor: last.anchor,
        cycle_from: cycle_start(last, before, today)?,
        from: today,
        usage_from_ms: None,
    };
    let phase = insert_phase(connection, subscription.id, &phase, now_ms).await?;
    match end {
        Some(end) => {
            let usage_to_ms = midnight_ms(end, &subscription.time_zone)?;
            end_phase(connection, phase, end, usage_to_ms).await
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
