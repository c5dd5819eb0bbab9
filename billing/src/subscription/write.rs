//! What is written of subscriptions: phases, states and the events that tell of them.

use activity::event::{EventType, NewEvent};
use jiff::civil::Date;
use schemas::db::next_id;
use schemas::ids::{PhaseId, SubscriptionId};
use schemas::period::AnchorDay;
use schemas::window::{WINDOW_MS, WindowStart};
use sqlx::AnyConnection;

use super::state::{SubscriptionState, Transition};
use super::{Contract, Phase, Subscription};
use crate::BillingError;
use crate::catalog::Price;
use crate::event;

/// A phase to be made.
pub(super) struct NewPhase<'a> {
    pub(super) price: &'a Price,
    pub(super) quantity: i64,
    pub(super) anchor: AnchorDay,
    pub(super) cycle_from: Date,
    pub(super) from: Date,
    /// Since when usage counts by it; `None`: from the first moment of `from`.
    pub(super) usage_from_ms: Option<i64>,
}

/// The end of the window that holds an instant, or the instant itself where a window starts there: usage by the old terms ends
/// there, and by the new ones begins.
pub(super) fn usage_turn_ms(at_ms: i64) -> i64 {
    WindowStart::containing(at_ms + WINDOW_MS - 1).start_ms()
}

pub(super) async fn insert_phase(
    connection: &mut AnyConnection,
    subscription: SubscriptionId,
    new: &NewPhase<'_>,
    now_ms: i64,
) -> Result<PhaseId, BillingError> {
    let id = PhaseId(next_id(connection, "phase").await?);
    sqlx::query(
        "INSERT INTO phases (id, subscription_id, plan_id, price_id, quantity, anchor_day, cycle_from, from_date, created_at_ms, \
         usage_from_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id.0)
    .bind(subscription.0)
    .bind(new.price.plan.0)
    .bind(new.price.id.0)
    .bind(new.quantity)
    .bind(new.anchor.get())
    .bind(new.cycle_from.to_string())
    .bind(new.from.to_string())
    .bind(now_ms)
    .bind(new.usage_from_ms)
    .execute(connection)
    .await?;
    Ok(id)
}

/// Ends a phase before the local day `to`, and its usage at an instant.
pub(super) async fn end_phase(
    connection: &mut AnyConnection,
    id: PhaseId,
    to: Date,
    usage_to_ms: i64,
) -> Result<(), BillingError> {
    sqlx::query("UPDATE phases SET to_date = $1, usage_to_ms = $3 WHERE id = $2")
        .bind(to.to_string())
        .bind(id.0)
        .bind(usage_to_ms)
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves a subscription to the state that follows, and records it.
pub(super) async fn transition(
    connection: &mut AnyConnection,
    subscription: &Subscription,
    happening: Transition,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let refused = BillingError::NoTransition {
        subscription: subscription.id,
        state: subscription.state,
        happening,
    };
    let to = subscription.state.after(happening).ok_or(refused)?;
    let moved = sqlx::query("UPDATE subscriptions SET status = $1 WHERE id = $2 AND status = $3")
        .bind(to.name())
        .bind(subscription.id.0)
        .bind(subscription.state.name())
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() == 0 {
        return Err(BillingError::ChangedMeanwhile(subscription.id));
    }
    record_state(
        connection,
        subscription.id,
        Some(subscription.state),
        to,
        reason,
        actor,
        now_ms,
    )
    .await
}

pub(super) async fn record_state(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    from: Option<SubscriptionState>,
    to: SubscriptionState,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let event = next_id(connection, "subscription_event").await?;
    sqlx::query(
        "INSERT INTO subscription_events (id, subscription_id, from_status, to_status, reason, actor, at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(event)
    .bind(id.0)
    .bind(from.map_or("", SubscriptionState::name))
    .bind(to.name())
    .bind(reason)
    .bind(actor)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn tell(
    connection: &mut AnyConnection,
    subscription: &Subscription,
    event_type: EventType,
    payload: serde_json::Value,
    now_ms: i64,
) -> Result<(), BillingError> {
    let new = NewEvent {
        event_type,
        customer: Some(subscription.customer),
        subject: subscription.id.to_string(),
        payload,
    };
    event::publish(connection, new, now_ms).await?;
    Ok(())
}

/// The start of the cycle of a phase that a day lies in.
pub(super) fn cycle_start(phase: &Phase, contract: &Contract, date: Date) -> Result<Date, BillingError> {
    let whole = Phase {
        to: None,
        ..phase.clone()
    };
    let mut periods = whole.base_periods(&contract.subscription.time_zone);
    while let Some(charged) = periods.next_period()? {
        if date < charged.nominal.end_date {
            return Ok(charged.nominal.start_date);
        }
    }
    Ok(date)
}

/// Takes all changes back that are set for a subscription ([`super::schedule`]).
///
/// # Errors
/// As the database answers.
pub(super) async fn cancel_pending(
    connection: &mut AnyConnection,
    subscription: SubscriptionId,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    sqlx::query(
        "UPDATE scheduled_changes SET status = 'cancelled', reason = $1, settled_at_ms = $2 \
         WHERE subscription_id = $3 AND status = 'pending'",
    )
    .bind(reason)
    .bind(now_ms)
    .bind(subscription.0)
    .execute(connection)
    .await?;
    Ok(())
}
