//! Budgets: what a customer wants to spend in a month at most, and what happens when it is spent (F-24).
//!
//! ```text
//! cycle starts ──▶ 50 % ──▶ 75 % ──▶ 90 % said ──▶ 100 %: said, and held where the budget suspends ──▶ next cycle: lifted
//!                    forecast over 100 %: said                │
//!                                                             ├─ raised, excluded, cleared: lifted
//!                                                             └─ paid: unlocked until the cycle ends
//! ```
//!
//! Promises:
//! * Everything is said once per cycle and basis. What was said of a smaller budget, and is not so of the one that was set
//!   since, is said again when it is.
//! * Holds follow from what is so now, not from what happened: at each look the services that are not excluded are held if
//!   the budget suspends, is spent and is not unlocked, and are not held otherwise. A look that was missed is made good by
//!   the next one.
//! * A cycle begins at local midnight of the reset day in the customer's zone; in shorter months on their last day.
//! * What counts is the table in `budget/spend.rs`.
//! * **Unlocked by paying** means, after the budget was exceeded: the customer paid an invoice and no invoice is open any
//!   more, or bought credit of at least what was spent over the budget. What was charged by itself (collection, automatic
//!   top-up) does not unlock: the limit was set against just that. Staff can unlock without a payment.

mod alerts;
mod settings;
mod spend;

pub use alerts::{Alert, alerts};
pub use settings::{Budget, NewBudget, Thresholds, budget, clear, exclude, exclusions, set, unlock};

use std::collections::HashSet;

use activity::event::{EventError, EventType};
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, ServiceId, SubscriptionId};
use schemas::inventory::{self, Customer, InventoryError};
use schemas::money::{Currency, Money, MoneyError};
use schemas::period::{AnchorDay, Period, PeriodError};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use self::alerts::{alert_forecast, alert_reset, alert_spent};
use self::settings::later;
use self::spend::{Spend, spend};
use crate::invoice::{self, Draft, Previews};
use crate::subscription::state::HoldCause;
use crate::subscription::{ITSELF, change, holds};
use crate::{BillingError, dunning, settlement, top_up};
use schemas::usage::UsageSource;

/// Percentages at which is said how much was spent, at most.
pub const MAX_THRESHOLDS: usize = 10;
/// The largest of them.
pub const MAX_THRESHOLD_PERCENT: i64 = 200;
/// The largest budget, in minor units.
pub const MAX_AMOUNT_MINOR: i64 = 1_000_000_000_000;
/// Percent at which a budget is exceeded.
const EXCEEDED_PERCENT: i64 = 100;
/// Budgets that are looked at with one scan of usage.
const AT_ONCE: i64 = 1_000;
/// How often a look that others got ahead of is made again.
const MAX_LOOKS: usize = 5;

/// Why a budget could not be set or looked at.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read the inventory")]
    Inventory(#[from] InventoryError),
    #[error("add up what was spent")]
    Billing(#[from] BillingError),
    #[error("compute the cycle")]
    Period(#[from] PeriodError),
    #[error("compute an amount")]
    Money(#[from] MoneyError),
    #[error("publish the event")]
    Event(#[from] EventError),
    #[error("{0} has no budget")]
    NoBudget(CustomerId),
    #[error("a budget lies between {min} and {max}, not {value}")]
    OutOfRange { value: Money, min: Money, max: Money },
    #[error("{customer} pays in {pays}, not in {asked}")]
    OtherCurrency {
        customer: CustomerId,
        pays: Currency,
        asked: Currency,
    },
    #[error(
        "thresholds are 1 to {MAX_THRESHOLDS} different percentages between 1 and {MAX_THRESHOLD_PERCENT}, not {0:?}"
    )]
    Thresholds(Vec<i64>),
    #[error("{service} is not of {customer}")]
    OtherCustomer { service: ServiceId, customer: CustomerId },
    #[error("invoices of {0} were written all the while: look again")]
    Busy(CustomerId),
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    BudgetError: "budget";
    of [Database, Inventory, Billing, Period, Money, Event]
    source []
    NotFound: NoBudget = "no_budget", OtherCustomer = "other_customer";
    Refused: OutOfRange = "out_of_range", OtherCurrency = "other_currency", Thresholds = "thresholds";
    Conflict: Busy = "busy";
    Fault: Corrupt = "corrupt";
}

/// Where a budget stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub budget: Budget,
    pub cycle: Period,
    pub spent: Money,
    /// What the cycle comes to if the rest of it goes on as the measured part did.
    pub forecast: Money,
    pub excluded: Vec<ServiceId>,
    pub is_unlocked: bool,
}

impl Status {
    /// All of it is spent.
    pub fn is_exceeded(&self) -> bool {
        reaches(self.spent.minor, EXCEEDED_PERCENT, self.budget.amount)
    }

    /// What was spent over the budget: what has to be bought as credit to unlock, one minor unit at least.
    pub fn unlock_amount(&self) -> Money {
        let over = self.spent.minor.saturating_sub(self.budget.amount.minor);
        Money::new(over.max(1), self.spent.currency)
    }

    /// Services that are not excluded are suspended.
    pub fn holds(&self) -> bool {
        self.budget.suspends && self.is_exceeded() && !self.is_unlocked
    }
}

/// What a look at a budget did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetCheck {
    pub status: Status,
    /// Percentages that were said, of what was spent.
    pub said: Vec<i64>,
    pub said_forecast: bool,
    pub held: Vec<SubscriptionId>,
    pub released: Vec<SubscriptionId>,
    /// The look found the payment that unlocks.
    pub unlocked: bool,
}

/// What a look at all budgets did.
#[derive(Debug, Default)]
pub struct BudgetChecks {
    pub looked_at: u64,
    pub said: u64,
    pub held: Vec<SubscriptionId>,
    pub released: Vec<SubscriptionId>,
    pub failed: Vec<(CustomerId, BudgetError)>,
}

fn reaches(spent_minor: i64, percent: i64, amount: Money) -> bool {
    i128::from(spent_minor) * 100 >= i128::from(amount.minor) * i128::from(percent)
}

/// Unlocks where the customer has paid: for the moment after a payment, so that nobody waits for the next look. True when
/// it unlocked.
///
/// # Errors
/// When usage cannot be measured, or the customer does not exist.
pub async fn unlock_by_payment(
    database: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    now_ms: i64,
) -> Result<bool, BudgetError> {
    let looked = check(database, usage, customer, now_ms).await?;
    Ok(looked.is_some_and(|looked| looked.unlocked))
}

/// Where a budget stands now; nothing is changed. `None` without a budget.
///
/// # Errors
/// When usage cannot be measured, or the customer does not exist.
pub async fn status(
    database: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<Status>, BudgetError> {
    for _ in 0..MAX_LOOKS {
        let mut connection = database.pool().acquire().await?;
        let Some(stamp) = stamp(&mut connection, customer).await? else {
            return Ok(None);
        };
        drop(connection);
        let drafts = invoice::preview(database, usage, customer, now_ms).await?;
        let mut connection = database.pool().acquire().await?;
        if self::stamp(&mut connection, customer).await? == Some(stamp) {
            return read_status(&mut connection, customer, &drafts, now_ms).await;
        }
    }
    Err(BudgetError::Busy(customer))
}

/// Looks at one budget: says what is to be said, and holds and lifts what follows. `None` without a budget.
///
/// # Errors
/// When usage cannot be measured, or the customer does not exist; then nothing is changed.
pub async fn check(
    database: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<BudgetCheck>, BudgetError> {
    for _ in 0..MAX_LOOKS {
        let mut connection = database.pool().acquire().await?;
        let Some(stamp) = stamp(&mut connection, customer).await? else {
            return Ok(None);
        };
        drop(connection);
        let drafts = invoice::preview(database, usage, customer, now_ms).await?;
        if let Some(looked) = look(database, customer, stamp, &drafts, now_ms).await? {
            return Ok(Some(looked));
        }
    }
    Err(BudgetError::Busy(customer))
}

/// Looks at every budget. One who fails does not keep the others from theirs.
///
/// # Errors
/// When the database or usage cannot be read at all.
pub async fn check_all(database: &Database, usage: &dyn UsageSource, now_ms: i64) -> Result<BudgetChecks, BudgetError> {
    let mut all = BudgetChecks::default();
    let mut after = CustomerId(0);
    loop {
        let rows = sqlx::query(
            "SELECT customer_id, updated_at_ms, CAST(coalesce((SELECT max(i.id) FROM invoices i \
             WHERE i.customer_id = b.customer_id), 0) AS BIGINT) FROM budgets b WHERE customer_id > $1 ORDER BY customer_id LIMIT $2",
        )
        .bind(after.0)
        .bind(AT_ONCE)
        .fetch_all(database.pool())
        .await?;
        let mut stamps = Vec::with_capacity(rows.len());
        for row in &rows {
            stamps.push((CustomerId(row.try_get(0)?), read_stamp(row, 1)?));
        }
        let (Some(&(first, _)), Some(&(last, _))) = (stamps.first(), stamps.last()) else {
            return Ok(all);
        };
        after = last;
        let mut previews = invoice::preview_between(database, usage, (first, last), now_ms).await?;
        for (customer, stamp) in stamps {
            all.looked_at += 1;
            match check_with_retry(database, usage, customer, stamp, &mut previews, now_ms).await {
                Ok(Some(looked)) => {
                    all.said += looked.said.len() as u64 + u64::from(looked.said_forecast);
                    all.held.extend(looked.held);
                    all.released.extend(looked.released);
                }
                Ok(None) => {}
                Err(error) => all.failed.push((customer, error)),
            }
        }
    }
}

async fn check_with_retry(
    database: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    stamp: Stamp,
    previews: &mut Previews,
    now_ms: i64,
) -> Result<Option<BudgetCheck>, BudgetError> {
    if let Some(at) = previews.failed.iter().position(|(failed, _)| *failed == customer) {
        return Err(previews.failed.swap_remove(at).1.into());
    }
    let drafts = previews.drafts.remove(&customer).unwrap_or_default();
    match look(database, customer, stamp, &drafts, now_ms).await? {
        Some(looked) => Ok(Some(looked)),
        None => check(database, usage, customer, now_ms).await,
    }
}

/// What drafts were made beside: when an invoice was written or the budget changed since, the sum would be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    updated_at_ms: i64,
    last_invoice: InvoiceId,
}

async fn stamp(connection: &mut AnyConnection, customer: CustomerId) -> Result<Option<Stamp>, BudgetError> {
    let row = sqlx::query(
        "SELECT updated_at_ms, CAST(coalesce((SELECT max(i.id) FROM invoices i WHERE i.customer_id = b.customer_id), 0) AS BIGINT) \
         FROM budgets b WHERE customer_id = $1",
    )
    .bind(customer.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(|row| read_stamp(row, 0)).transpose()
}

fn read_stamp(row: &AnyRow, first: usize) -> Result<Stamp, BudgetError> {
    Ok(Stamp {
        updated_at_ms: row.try_get(first)?,
        last_invoice: InvoiceId(row.try_get(first + 1)?),
    })
}

/// One look, in one transaction; `None` when the drafts are out of date.
async fn look(
    database: &Database,
    customer: CustomerId,
    stamp: Stamp,
    drafts: &[Draft],
    now_ms: i64,
) -> Result<Option<BudgetCheck>, BudgetError> {
    let mut transaction = database.begin_write().await?;
    settlement::lock_customer(&mut transaction, customer).await?;
    if self::stamp(&mut transaction, customer).await? != Some(stamp) {
        return Ok(None);
    }
    let Some(mut status) = read_status(&mut transaction, customer, drafts, now_ms).await? else {
        return Ok(None);
    };
    alert_reset(&mut transaction, &status, now_ms).await?;
    let said = alert_spent(&mut transaction, &status, now_ms).await?;
    let said_forecast = alert_forecast(&mut transaction, &status, now_ms).await?;
    let mut unlocked = false;
    if status.is_exceeded()
        && !status.is_unlocked
        && let Some(paid) = paid_to_unlock(&mut transaction, &status).await?
    {
        unlocked = mark_unlocked(&mut transaction, &status.budget, &status.cycle, Some(paid), now_ms).await?;
        status.is_unlocked = true;
        status.budget.unlocked_until_ms = Some(status.cycle.end_ms);
    }
    let mut to_hold = HashSet::new();
    let mut held = Vec::new();
    if status.holds() {
        let reason = format!("the budget of {} is spent", status.budget.amount);
        for (subscription, service) in running(&mut transaction, customer).await? {
            if status.excluded.contains(&service) {
                continue;
            }
            to_hold.insert(subscription);
            if !holds(&mut transaction, subscription)
                .await?
                .contains(&HoldCause::Budget)
            {
                change::hold(
                    &mut transaction,
                    subscription,
                    HoldCause::Budget,
                    &reason,
                    ITSELF,
                    now_ms,
                )
                .await?;
                held.push(subscription);
            }
        }
    }
    let released = release_all(&mut transaction, customer, &to_hold, now_ms).await?;
    transaction.commit().await?;
    Ok(Some(BudgetCheck {
        status,
        said,
        said_forecast,
        held,
        released,
        unlocked,
    }))
}

async fn read_status(
    connection: &mut AnyConnection,
    customer: CustomerId,
    drafts: &[Draft],
    now_ms: i64,
) -> Result<Option<Status>, BudgetError> {
    let owner = inventory::customer(&mut *connection, customer).await?;
    let Some(budget) = budget(&mut *connection, customer).await? else {
        return Ok(None);
    };
    let cycle = cycle_at(&owner, budget.reset_day, now_ms)?;
    let excluded = exclusions(&mut *connection, customer).await?;
    let services: HashSet<ServiceId> = excluded.iter().copied().collect();
    let Spend {
        spent_minor,
        forecast_minor,
    } = spend(connection, customer, drafts, &services, &cycle, now_ms).await?;
    Ok(Some(Status {
        is_unlocked: budget.unlocked_until_ms.is_some_and(|until_ms| until_ms > now_ms),
        spent: Money::new(spent_minor, owner.currency),
        forecast: Money::new(forecast_minor, owner.currency),
        budget,
        cycle,
        excluded,
    }))
}

fn cycle_at(owner: &Customer, reset_day: AnchorDay, now_ms: i64) -> Result<Period, BudgetError> {
    let now = jiff::Timestamp::from_millisecond(now_ms).map_err(PeriodError::from)?;
    Ok(Period::containing(now, reset_day, &owner.time_zone)?)
}

/// What the customer has paid since the budget was exceeded, where that unlocks it.
async fn paid_to_unlock(connection: &mut AnyConnection, status: &Status) -> Result<Option<Money>, BudgetError> {
    let row = sqlx::query(
        "SELECT CAST(coalesce(sum(CASE WHEN p.purpose = 'invoice' THEN p.amount_minor ELSE 0 END), 0) AS BIGINT) AS invoices_minor, \
         CAST(coalesce(sum(CASE WHEN p.purpose = 'top_up' THEN p.amount_minor ELSE 0 END), 0) AS BIGINT) AS credit_minor, \
         (SELECT count(*) FROM invoices i WHERE i.customer_id = $1 AND i.kind = 'invoice' \
          AND i.status IN ('finalised', 'partially_paid')) AS open_invoices \
         FROM payments p JOIN budget_alerts a ON a.customer_id = p.customer_id WHERE p.customer_id = $1 \
         AND a.cycle_start_ms = $2 AND a.threshold = $3 AND a.basis = 'spent' AND p.state = 'succeeded' \
         AND coalesce(p.paid_at_ms, p.updated_at_ms) > a.alerted_at_ms AND p.note NOT IN ($4, $5) \
         AND NOT EXISTS (SELECT 1 FROM payment_reversals v WHERE v.payment_id = p.id)",
    )
    .bind(status.budget.customer.0)
    .bind(status.cycle.start_ms)
    .bind(EXCEEDED_PERCENT)
    .bind(dunning::COLLECTION_NOTE)
    .bind(top_up::AUTOMATIC_NOTE)
    .fetch_one(connection)
    .await?;
    let (invoices_minor, credit_minor): (i64, i64) = (row.try_get("invoices_minor")?, row.try_get("credit_minor")?);
    let paid_up = invoices_minor > 0 && row.try_get::<i64, _>("open_invoices")? == 0;
    let bought = credit_minor >= status.unlock_amount().minor;
    let paid_minor = invoices_minor.saturating_add(credit_minor);
    Ok((paid_up || bought).then(|| Money::new(paid_minor, status.spent.currency)))
}

/// Unlocks until the cycle ends; false when it is.
async fn mark_unlocked(
    connection: &mut AnyConnection,
    budget: &Budget,
    cycle: &Period,
    paid: Option<Money>,
    now_ms: i64,
) -> Result<bool, BudgetError> {
    let unlocked = sqlx::query(
        "UPDATE budgets SET unlocked_until_ms = $2, updated_at_ms = $3 WHERE customer_id = $1 \
         AND (unlocked_until_ms IS NULL OR unlocked_until_ms < $2)",
    )
    .bind(budget.customer.0)
    .bind(cycle.end_ms)
    .bind(later(now_ms, Some(budget)))
    .execute(&mut *connection)
    .await?;
    if unlocked.rows_affected() == 0 {
        return Ok(false);
    }
    let mut facts = json!({
        "unlocked_until_ms": cycle.end_ms, "budget_minor": budget.amount.minor, "currency": budget.amount.currency,
    });
    if let Some(paid) = paid {
        facts["amount_minor"] = json!(paid.minor);
    }
    let subject = budget.customer.to_string();
    settlement::tell(
        connection,
        EventType::BudgetUnlocked,
        budget.customer,
        subject,
        facts,
        now_ms,
    )
    .await?;
    Ok(true)
}

/// Lifts the budget's holds, but for those of `but`.
async fn release_all(
    connection: &mut AnyConnection,
    customer: CustomerId,
    but: &HashSet<SubscriptionId>,
    now_ms: i64,
) -> Result<Vec<SubscriptionId>, BudgetError> {
    let rows = sqlx::query(
        "SELECT s.id FROM subscriptions s WHERE s.customer_id = $1 AND s.status <> 'ended' AND EXISTS \
         (SELECT 1 FROM holds h WHERE h.subscription_id = s.id AND h.cause = 'budget' AND h.lifted_at_ms IS NULL) ORDER BY s.id",
    )
    .bind(customer.0)
    .fetch_all(&mut *connection)
    .await?;
    let mut released = Vec::new();
    for row in &rows {
        let subscription = SubscriptionId(row.try_get(0)?);
        if !but.contains(&subscription) {
            change::release(connection, subscription, HoldCause::Budget, ITSELF, now_ms).await?;
            released.push(subscription);
        }
    }
    Ok(released)
}

/// The customer's subscriptions that have not ended, with their services.
async fn running(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> Result<Vec<(SubscriptionId, ServiceId)>, BudgetError> {
    let rows = sqlx::query(
        "SELECT id, service_id FROM subscriptions WHERE customer_id = $1 AND status <> 'ended' ORDER BY id",
    )
    .bind(customer.0)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((SubscriptionId(row.try_get(0)?), ServiceId(row.try_get(1)?))))
        .collect()
}

#[cfg(test)]
mod tests;
