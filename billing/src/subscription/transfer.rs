//! A service's move to another customer (F-27): requested by ticket, approved by an admin who verified both parties,
//! completed on a day with prorated billing on both sides.
//!
//! The old owner's subscription ends with the day before, so that unused days come back as credit; the new owner's begins
//! on that day, in their currency and time zone, or on the next where their midnight comes before the old owner's: an hour of
//! the base price is charged to one of them at most. Usage is the old owner's until the 5-minute window in which the service
//! moves, and the new owner's from then on: every window is charged to one of them. What was measured before is not the new
//! owner's to see, and nothing from then on the old owner's (S1).

use activity::event::{EventType, NewEvent};
use jiff::tz::TimeZone;
use schemas::db::next_id;
use schemas::ids::{CustomerId, ServiceId, SubscriptionId, TransferId};
use schemas::inventory;
use schemas::period::{local_date, midnight_ms};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::Contract;
use super::begin::{NewSubscription, subscribe};
use super::change::{self, CancellationTime, Cancelling, MAX_REASON_CHARS, ServiceDisposition};
use super::load::{addons_of, contract, subscription_of};
use super::write::usage_turn_ms;
use crate::event;
use crate::field::{checked_text, named};
use crate::{BillingError, catalog};

/// Where a transfer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferStatus {
    Requested,
    Approved,
    Completed,
    Cancelled,
}

named!(TransferStatus, "status of a transfer", Requested => "requested", Approved => "approved",
    Completed => "completed", Cancelled => "cancelled");

/// A service's move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    pub id: TransferId,
    pub service: ServiceId,
    pub from: CustomerId,
    pub to: CustomerId,
    /// The ticket by which it was asked for.
    pub ticket: String,
    pub status: TransferStatus,
    pub reason: String,
    pub requested_at_ms: i64,
    /// The admin who verified both parties.
    pub approved_by: Option<String>,
    pub settled_at_ms: Option<i64>,
}

const SELECT: &str = "SELECT id, service_id, from_customer_id, to_customer_id, ticket, status, reason, requested_at_ms, approved_by, \
     settled_at_ms FROM service_transfers";

/// Asks for a move.
///
/// # Errors
/// When the service is the recipient's already, is free (F-26), or has a move under way.
pub async fn request(
    connection: &mut AnyConnection,
    service: ServiceId,
    to: CustomerId,
    ticket: &str,
    now_ms: i64,
) -> Result<TransferId, BillingError> {
    let ticket = checked_text("ticket", ticket, MAX_REASON_CHARS)?;
    let moved = inventory::service(&mut *connection, service).await?;
    inventory::customer(&mut *connection, to).await?;
    let refuse = |why| BillingError::TransferRefused { service, why };
    if moved.customer == to {
        return Err(refuse("it is theirs already"));
    }
    let id = TransferId(next_id(connection, "service_transfer").await?);
    let open =
        sqlx::query("SELECT id FROM service_transfers WHERE service_id = $1 AND status IN ('requested', 'approved')")
            .bind(service.0)
            .fetch_optional(&mut *connection)
            .await?;
    if open.is_some() {
        return Err(refuse("a transfer of it is under way"));
    }
    if let Some(subscription) = subscription_of(&mut *connection, service).await?
        && contract(connection, subscription.id).await?.last_phase().plan.is_free
    {
        return Err(refuse("its plan is free, and a free plan is its account's own"));
    }
    sqlx::query(
        "INSERT INTO service_transfers (id, service_id, from_customer_id, to_customer_id, ticket, status, reason, \
         requested_at_ms) VALUES ($1, $2, $3, $4, $5, 'requested', '', $6)",
    )
    .bind(id.0)
    .bind(service.0)
    .bind(moved.customer.0)
    .bind(to.0)
    .bind(&ticket)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let transfer = transfer(&mut *connection, id).await?;
    let facts = json!({ "ticket": ticket });
    publish_to_both(connection, &transfer, EventType::TransferRequested, &facts, now_ms).await?;
    Ok(id)
}

/// Notes that an admin verified both parties.
///
/// # Errors
/// When it is not waiting for that.
pub async fn approve(
    connection: &mut AnyConnection,
    id: TransferId,
    admin: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let done = sqlx::query(
        "UPDATE service_transfers SET status = 'approved', approved_by = $1, approved_at_ms = $2 \
         WHERE id = $3 AND status = 'requested'",
    )
    .bind(admin)
    .bind(now_ms)
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Err(not_in(connection, id, "approved").await);
    }
    let transfer = transfer(&mut *connection, id).await?;
    let facts = json!({ "ticket": transfer.ticket });
    publish_to_both(connection, &transfer, EventType::TransferApproved, &facts, now_ms).await
}

/// How many moves away from a customer were approved since an instant.
///
/// # Errors
/// As the database answers.
pub async fn approved_since(db: impl AnyExecutor<'_>, from: CustomerId, since_ms: i64) -> Result<i64, BillingError> {
    let sql = "SELECT count(*) FROM service_transfers WHERE from_customer_id = $1 AND approved_at_ms > $2 \
               AND status IN ('approved', 'completed')";
    let row = sqlx::query(sql).bind(from.0).bind(since_ms).fetch_one(db).await?;
    Ok(row.try_get(0)?)
}

/// Gives a move up.
///
/// # Errors
/// When it is settled.
pub async fn cancel(
    connection: &mut AnyConnection,
    id: TransferId,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    let done = sqlx::query(
        "UPDATE service_transfers SET status = 'cancelled', reason = $1, settled_at_ms = $2 \
         WHERE id = $3 AND status IN ('requested', 'approved')",
    )
    .bind(&reason)
    .bind(now_ms)
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Err(not_in(connection, id, "cancelled").await);
    }
    let transfer = transfer(&mut *connection, id).await?;
    let facts = json!({ "ticket": transfer.ticket, "reason": reason });
    publish_to_both(connection, &transfer, EventType::TransferCancelled, &facts, now_ms).await
}

/// Moves an approved service on the old owner's local day of `now_ms`. The new owner's subscription, if the service had
/// one, is to the same plan and cycle.
///
/// # Errors
/// When it is not approved, or the plan has no price in the new owner's currency; then nothing moves.
pub async fn complete(
    connection: &mut AnyConnection,
    id: TransferId,
    actor: &str,
    now_ms: i64,
) -> Result<Option<SubscriptionId>, BillingError> {
    let transfer = transfer(&mut *connection, id).await?;
    let done = sqlx::query(
        "UPDATE service_transfers SET status = 'completed', settled_at_ms = $1 WHERE id = $2 AND status = 'approved'",
    )
    .bind(now_ms)
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Err(not_in(connection, id, "completed").await);
    }
    let recipient = inventory::customer(&mut *connection, transfer.to).await?;
    let reason = format!("transferred to {} ({id})", recipient.id);
    // What is used until then is the old owner's, to see and to pay.
    let owned_from_ms = usage_turn_ms(now_ms);
    let mut begun = None;
    if let Some(old) = subscription_of(&mut *connection, transfer.service).await? {
        let mut wanted = vec![contract(connection, old.id).await?];
        // One that was cancelled by itself ends here.
        let addons = addons_of(&mut *connection, old.id).await?;
        for addon in addons
            .into_iter()
            .filter(|addon| addon.cancel_at_ms.is_none() || old.cancel_at_ms.is_some())
        {
            wanted.push(contract(connection, addon.id).await?);
        }
        let given_back_from_ms = midnight_ms(local_date(now_ms, &old.time_zone)?, &old.time_zone)?;
        let how = Cancelling {
            end: CancellationTime::Now,
            afterwards: ServiceDisposition::Keep,
            as_of_ms: now_ms,
            is_with_parent: false,
        };
        change::cancel_and(connection, old.id, how, &reason, actor, now_ms).await?;
        inventory::hand_over(connection, transfer.service, recipient.id, owned_from_ms).await?;
        let started_at_ms = first_day_ms(now_ms, given_back_from_ms, &recipient.time_zone)?;
        for contract in wanted {
            let phase = contract.last_phase();
            let price = catalog::price_at(
                &mut *connection,
                phase.plan.id,
                recipient.currency,
                phase.price.cycle_months,
                now_ms,
            );
            let price = price.await?.ok_or(BillingError::TransferRefused {
                service: transfer.service,
                why: "its plan has no price in the recipient's currency for that cycle",
            })?;
            let new = NewSubscription {
                quantity: phase.quantity,
                parent: contract.subscription.parent.and(begun),
                // A move begins no trial; what is left of one goes along.
                trial_days: Some(trial_days_left(&contract, now_ms)?),
                usage_from_ms: Some(owned_from_ms),
                ..NewSubscription::new(transfer.service, price.id, started_at_ms)
            };
            let made = subscribe(connection, new, actor, now_ms).await?;
            begun = begun.or(Some(made.id));
        }
    } else {
        inventory::hand_over(connection, transfer.service, recipient.id, owned_from_ms).await?;
    }
    let facts = json!({ "ticket": transfer.ticket });
    publish_to_both(connection, &transfer, EventType::TransferCompleted, &facts, now_ms).await?;
    Ok(begun)
}

/// Local days until the trial of a subscription is over.
fn trial_days_left(contract: &Contract, now_ms: i64) -> Result<i64, BillingError> {
    let today = local_date(now_ms, &contract.subscription.time_zone)?;
    let first_charged = contract.phases[0].from;
    let days = match contract.subscription.trial_ends_at_ms {
        Some(_) => today.duration_until(first_charged).as_hours() / 24,
        None => 0,
    };
    Ok(days.max(0))
}

/// `now_ms`, or the next midnight of the new owner where their day of it began before the days that the old owner gets back.
fn first_day_ms(now_ms: i64, given_back_from_ms: i64, zone: &TimeZone) -> Result<i64, BillingError> {
    let today = local_date(now_ms, zone)?;
    if midnight_ms(today, zone)? >= given_back_from_ms {
        return Ok(now_ms);
    }
    let tomorrow = today.tomorrow().map_err(|error| BillingError::Period(error.into()))?;
    Ok(midnight_ms(tomorrow, zone)?)
}

async fn publish_to_both(
    connection: &mut AnyConnection,
    transfer: &Transfer,
    event_type: EventType,
    facts: &serde_json::Value,
    now_ms: i64,
) -> Result<(), BillingError> {
    for (customer, side, other) in [
        (transfer.from, "giver", transfer.to),
        (transfer.to, "receiver", transfer.from),
    ] {
        let mut payload = facts.clone();
        payload["side"] = json!(side);
        payload["other_name"] = json!(inventory::customer(&mut *connection, other).await?.name);
        payload["service"] = json!(transfer.service);
        payload["at_ms"] = json!(now_ms);
        let new = NewEvent {
            event_type,
            customer: Some(customer),
            subject: transfer.id.to_string(),
            payload,
        };
        event::publish(connection, new, now_ms).await?;
    }
    Ok(())
}

async fn not_in(connection: &mut AnyConnection, id: TransferId, what: &'static str) -> BillingError {
    match transfer(connection, id).await {
        Ok(transfer) => BillingError::TransferState {
            transfer: id,
            what,
            status: transfer.status,
        },
        Err(error) => error,
    }
}

/// One transfer.
///
/// # Errors
/// [`BillingError::NoTransfer`] when there is none of this id.
pub async fn transfer(db: impl AnyExecutor<'_>, id: TransferId) -> Result<Transfer, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(BillingError::NoTransfer(id))?)
}

/// Every transfer, latest first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn transfers(db: impl AnyExecutor<'_>) -> Result<Vec<Transfer>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id DESC"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Transfer, BillingError> {
    Ok(Transfer {
        id: TransferId(row.try_get("id")?),
        service: ServiceId(row.try_get("service_id")?),
        from: CustomerId(row.try_get("from_customer_id")?),
        to: CustomerId(row.try_get("to_customer_id")?),
        ticket: row.try_get("ticket")?,
        status: row.try_get::<String, _>("status")?.parse()?,
        reason: row.try_get("reason")?,
        requested_at_ms: row.try_get("requested_at_ms")?,
        approved_by: row.try_get("approved_by")?,
        settled_at_ms: row.try_get("settled_at_ms")?,
    })
}

#[cfg(test)]
mod tests;
