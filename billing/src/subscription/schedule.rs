//! Changes at a date and time (F-25): pending → executed, cancelled or failed, each with its reason.
//!
//! A change takes effect at the time it was set for, however late the program gets to it: it is executed with that instant.
//! The customer is reminded once, [`REMINDER_MS`] before.

use activity::event::EventType;
use schemas::db::next_id;
use schemas::ids::{ChangeId, CustomerId, PriceId, SubscriptionId};
use schemas::period::local_date;
use schemas::window::DAY_MS;
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::begin::{NewSubscription, subscribe};
use super::change::{self, Change, MAX_REASON_CHARS, check_plan, check_price, check_valid};
use super::load::{contract, subscription};
use super::write::tell;
use super::{MAX_QUANTITY, SubscriptionState};
use crate::BillingError;
use crate::catalog;
use crate::field::{check_range, checked_text, named};
use crate::guard;

/// How long before a change the customer is reminded of it.
pub const REMINDER_MS: i64 = DAY_MS;
/// Pending changes of one subscription at most.
pub const MAX_PENDING: i64 = 20;
/// How far ahead a change can be set: ten years.
pub const MAX_AHEAD_MS: i64 = 3_653 * DAY_MS;

/// What is to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScheduledAction {
    /// To other terms.
    Change(Change),
    /// An add-on beside it.
    Addon(Change),
    Cancel,
}

/// Where a scheduled change stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeStatus {
    Pending,
    Executed,
    Cancelled,
    Failed,
}

named!(ChangeStatus, "status of a scheduled change", Pending => "pending", Executed => "executed",
    Cancelled => "cancelled", Failed => "failed");

/// A scheduled change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduledChange {
    pub id: ChangeId,
    pub subscription: SubscriptionId,
    pub planned: ScheduledAction,
    /// It is only meant for who still pays this price when it comes.
    pub from_price: Option<PriceId>,
    pub at_ms: i64,
    pub status: ChangeStatus,
    /// Why it was set; once settled, why it ended as it did.
    pub reason: String,
    pub requested_by: String,
    pub requested_at_ms: i64,
    pub reminded_at_ms: Option<i64>,
    pub settled_at_ms: Option<i64>,
}

const SELECT: &str = "SELECT id, subscription_id, kind, price_id, quantity, from_price_id, at_ms, status, reason, requested_by, requested_at_ms, \
     reminded_at_ms, settled_at_ms FROM scheduled_changes";

/// Sets a change for a time.
///
/// # Errors
/// When the time is not ahead, the price does not exist, or the subscription has ended or has too many changes pending;
/// while billing is stopped.
pub async fn schedule(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    planned: ScheduledAction,
    at_ms: i64,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<ChangeId, BillingError> {
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    guard::check(&mut *connection).await?;
    if at_ms <= now_ms {
        return Err(BillingError::NotAhead {
            what: "the time of a change",
            at_ms,
            now_ms,
        });
    }
    check_range("time ahead in milliseconds", at_ms - now_ms, 1, MAX_AHEAD_MS)?;
    let before = contract(connection, id).await?;
    if before.subscription.state == SubscriptionState::Ended {
        return Err(BillingError::Refused {
            subscription: id,
            what: "given a scheduled change",
            state: SubscriptionState::Ended,
        });
    }
    let (kind, terms) = match planned {
        ScheduledAction::Change(terms) => ("change", Some(terms)),
        ScheduledAction::Addon(terms) => ("addon", Some(terms)),
        ScheduledAction::Cancel => ("cancel", None),
    };
    let mut plan = None;
    if let Some(terms) = terms {
        check_range("quantity", terms.quantity, 1, MAX_QUANTITY)?;
        let price = catalog::price(&mut *connection, terms.price).await?;
        let to = catalog::plan(&mut *connection, price.plan).await?;
        // What can be known to be refused then is refused now.
        check_price(&to, &price, before.subscription.customer, before.customer.currency)?;
        let now = &before.last_phase().plan;
        if (now.is_free || to.is_free) && (terms.quantity != 1 || matches!(planned, ScheduledAction::Addon(_))) {
            return Err(BillingError::FreePlanIsOne { subscription: id });
        }
        if (now.is_free || to.is_free) && now.id != to.id {
            return Err(BillingError::FreePlanFixed(id));
        }
        if to.id == now.id {
            check_valid(&price, at_ms)?;
        } else {
            check_plan(&to, &price, at_ms)?;
        }
        plan = Some(to.name);
    }
    let change = ChangeId(next_id(connection, "scheduled_change").await?);
    let pending =
        sqlx::query("SELECT count(*) FROM scheduled_changes WHERE subscription_id = $1 AND status = 'pending'")
            .bind(id.0)
            .fetch_one(&mut *connection)
            .await?;
    check_range(
        "number of pending changes",
        pending.try_get::<i64, _>(0)? + 1,
        1,
        MAX_PENDING,
    )?;
    sqlx::query(
        "INSERT INTO scheduled_changes (id, subscription_id, kind, price_id, quantity, at_ms, status, reason, requested_by, \
         requested_at_ms) VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9)",
    )
    .bind(change.0)
    .bind(id.0)
    .bind(kind)
    .bind(terms.map(|terms| terms.price.0))
    .bind(terms.map(|terms| terms.quantity))
    .bind(at_ms)
    .bind(&reason)
    .bind(actor)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let facts = json!({
        "change_id": change, "kind": kind, "plan": plan, "at_ms": at_ms, "service": before.service.name, "reason": reason,
    });
    tell(
        connection,
        &before.subscription,
        EventType::ChangeScheduled,
        facts,
        now_ms,
    )
    .await?;
    Ok(change)
}

/// Takes a pending change back.
///
/// # Errors
/// When there is no such change, or it is settled; while billing is stopped.
pub async fn cancel(
    connection: &mut AnyConnection,
    id: ChangeId,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    guard::check(&mut *connection).await?;
    let change = scheduled(&mut *connection, id).await?;
    settle(connection, &change, ChangeStatus::Cancelled, &reason, now_ms).await?;
    let subscription = subscription(&mut *connection, change.subscription).await?;
    let facts = json!({ "change_id": id, "at_ms": change.at_ms, "reason": reason });
    tell(connection, &subscription, EventType::ChangeCancelled, facts, now_ms).await
}

/// Pending changes whose time has come, in their order.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn due(db: impl AnyExecutor<'_>, now_ms: i64) -> Result<Vec<ScheduledChange>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE status = 'pending' AND at_ms <= $1 ORDER BY at_ms, id"
    ));
    let rows = sqlx::query(sql).bind(now_ms).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// Pending changes that the customer is to be reminded of now, in their order.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn to_remind(db: impl AnyExecutor<'_>, now_ms: i64) -> Result<Vec<ScheduledChange>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE status = 'pending' AND reminded_at_ms IS NULL AND at_ms <= $1 AND at_ms > $2 ORDER BY at_ms, id"
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms + REMINDER_MS)
        .bind(now_ms)
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// Reminds of a change, once.
///
/// # Errors
/// As the database answers.
pub(crate) async fn remind(
    connection: &mut AnyConnection,
    change: &ScheduledChange,
    now_ms: i64,
) -> Result<(), BillingError> {
    let marked =
        sqlx::query("UPDATE scheduled_changes SET reminded_at_ms = $1 WHERE id = $2 AND reminded_at_ms IS NULL")
            .bind(now_ms)
            .bind(change.id.0)
            .execute(&mut *connection)
            .await?;
    if marked.rows_affected() == 0 {
        return Ok(());
    }
    let contract = contract(connection, change.subscription).await?;
    let (kind, plan) = match change.planned {
        ScheduledAction::Change(terms) => ("change", Some(terms.price)),
        ScheduledAction::Addon(terms) => ("addon", Some(terms.price)),
        ScheduledAction::Cancel => ("cancel", None),
    };
    let plan = match plan {
        Some(price) => {
            let price = catalog::price(&mut *connection, price).await?;
            Some(catalog::plan(&mut *connection, price.plan).await?.name)
        }
        None => None,
    };
    let facts = json!({
        "change_id": change.id, "kind": kind, "plan": plan, "at_ms": change.at_ms, "service": contract.service.name,
        "time_zone": contract.subscription.time_zone_name(),
    });
    tell(
        connection,
        &contract.subscription,
        EventType::ChangeReminder,
        facts,
        now_ms,
    )
    .await
}

/// Executes a due change, as of its own time. A change that cannot be made is the caller's to [`fail`], in a transaction of
/// its own.
///
/// # Errors
/// As what is to happen answers; [`BillingError::NotChargedNow`] where a new price is to wait.
pub(crate) async fn execute(
    connection: &mut AnyConnection,
    change: &ScheduledChange,
    now_ms: i64,
) -> Result<(), BillingError> {
    let id = change.subscription;
    if let Some(from_price) = change.from_price {
        let contract = contract(connection, id).await?;
        let moot = if contract.phase_at(change.at_ms)?.price.id != from_price {
            Some("its terms were changed before")
        } else if contract
            .subscription
            .cancel_at_ms
            .is_some_and(|end_ms| end_ms <= change.at_ms)
        {
            Some("the subscription ends before")
        } else {
            None
        };
        if let Some(reason) = moot {
            return settle(connection, change, ChangeStatus::Cancelled, reason, now_ms).await;
        }
        let date = local_date(change.at_ms, &contract.subscription.time_zone)?;
        if contract.last_phase().to.is_some_and(|to| to <= date) {
            return Err(BillingError::NotChargedNow(id));
        }
    }
    settle(connection, change, ChangeStatus::Executed, &change.reason, now_ms).await?;
    let actor = change.requested_by.as_str();
    match change.planned {
        // A new price of the same terms: for as many as there are then, and for who has cancelled too.
        ScheduledAction::Change(terms) if change.from_price.is_some() => {
            change::reprice(connection, id, terms.price, change.at_ms, actor, now_ms).await?;
        }
        ScheduledAction::Change(terms) => change::change(connection, id, terms, change.at_ms, actor, now_ms).await?,
        ScheduledAction::Addon(terms) => {
            let parent = subscription(&mut *connection, id).await?;
            let new = NewSubscription {
                quantity: terms.quantity,
                parent: Some(id),
                ..NewSubscription::new(parent.service, terms.price, change.at_ms)
            };
            subscribe(connection, new, actor, now_ms).await?;
        }
        ScheduledAction::Cancel => {
            let zone = subscription(&mut *connection, id).await?.time_zone;
            let date = local_date(change.at_ms, &zone)?;
            change::cancel_as_of(connection, id, date, change.at_ms, &change.reason, actor, now_ms).await?;
        }
    }
    let subscription = subscription(&mut *connection, id).await?;
    let facts = json!({ "change_id": change.id, "at_ms": change.at_ms });
    tell(connection, &subscription, EventType::ChangeExecuted, facts, now_ms).await
}

/// Notes that a due change could not be made.
///
/// # Errors
/// As the database answers.
pub(crate) async fn fail(
    connection: &mut AnyConnection,
    change: &ScheduledChange,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    settle(connection, change, ChangeStatus::Failed, reason, now_ms).await?;
    let subscription = subscription(&mut *connection, change.subscription).await?;
    let facts = json!({ "change_id": change.id, "at_ms": change.at_ms, "reason": reason });
    tell(connection, &subscription, EventType::ChangeFailed, facts, now_ms).await
}

async fn settle(
    connection: &mut AnyConnection,
    change: &ScheduledChange,
    to: ChangeStatus,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let settled = sqlx::query(
        "UPDATE scheduled_changes SET status = $1, reason = $2, settled_at_ms = $3 WHERE id = $4 AND status = 'pending'",
    )
    .bind(to.name())
    .bind(reason)
    .bind(now_ms)
    .bind(change.id.0)
    .execute(connection)
    .await?;
    match settled.rows_affected() {
        0 => Err(BillingError::ChangeSettled(change.id)),
        _ => Ok(()),
    }
}

/// One scheduled change.
///
/// # Errors
/// [`BillingError::NoChange`] when there is none of this id.
pub async fn scheduled(db: impl AnyExecutor<'_>, id: ChangeId) -> Result<ScheduledChange, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(BillingError::NoChange(id))?)
}

/// The scheduled changes of one customer's subscriptions, latest first (S1: the customer is part of the question).
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn scheduled_of(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
) -> Result<Vec<ScheduledChange>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE subscription_id IN (SELECT id FROM subscriptions WHERE customer_id = $1) ORDER BY at_ms DESC, id DESC"
    ));
    let rows = sqlx::query(sql).bind(customer.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<ScheduledChange, BillingError> {
    let kind: String = row.try_get("kind")?;
    let price: Option<i64> = row.try_get("price_id")?;
    let quantity: Option<i64> = row.try_get("quantity")?;
    let terms = price.map(|price| Change {
        price: PriceId(price),
        quantity: quantity.unwrap_or(1),
    });
    let planned = match (kind.as_str(), terms) {
        ("change", Some(terms)) => ScheduledAction::Change(terms),
        ("addon", Some(terms)) => ScheduledAction::Addon(terms),
        ("cancel", None) => ScheduledAction::Cancel,
        _ => return Err(BillingError::corrupt("scheduled change", kind)),
    };
    Ok(ScheduledChange {
        id: ChangeId(row.try_get("id")?),
        subscription: SubscriptionId(row.try_get("subscription_id")?),
        planned,
        from_price: row.try_get::<Option<i64>, _>("from_price_id")?.map(PriceId),
        at_ms: row.try_get("at_ms")?,
        status: row.try_get::<String, _>("status")?.parse()?,
        reason: row.try_get("reason")?,
        requested_by: row.try_get("requested_by")?,
        requested_at_ms: row.try_get("requested_at_ms")?,
        reminded_at_ms: row.try_get("reminded_at_ms")?,
        settled_at_ms: row.try_get("settled_at_ms")?,
    })
}
