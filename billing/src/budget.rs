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
//! * Everything is said once per cycle and basis. A changed budget says again what is true of it.
//! * Holds follow from what is so now, not from what happened: at each look the services that are not excluded are held if
//!   the budget suspends, is spent and is not unlocked, and are not held otherwise. A look that was missed is made good by
//!   the next one.
//! * A cycle begins at local midnight of the reset day in the customer's zone; in shorter months on their last day.
//! * What counts is the table in `budget/spend.rs`.
//! * **Unlocked by paying** means, after the budget was exceeded: the customer paid an invoice and no invoice is open any
//!   more, or bought credit of at least what was spent over the budget. What was charged by itself (collection, automatic
//!   top-up) does not unlock: the limit was set against just that. Staff can unlock without a payment.

mod spend;

use std::collections::HashSet;

use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, ServiceId, SubscriptionId};
use schemas::inventory::{self, Customer, InventoryError};
use schemas::money::{Currency, Money, MoneyError};
use schemas::period::{AnchorDay, Period, PeriodError};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use self::spend::{Spend, spend};
use crate::audit::{self, Actor, AuditError, Entry, Risk};
use crate::event::{EventError, EventType};
use crate::invoice::{self, Draft, Previews};
use crate::subscription::change;
use crate::subscription::state::HoldCause;
use crate::{BillingError, UsageSource, dunning, settlement, top_up};

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
    #[error("tell what happened")]
    Event(#[from] EventError),
    #[error("record who did it")]
    Audit(#[from] AuditError),
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

/// Percentages of a budget at which is said how much was spent: 1 to 10 of them, ascending, 1 to 200.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Thresholds(Vec<i64>);

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds(vec![50, 75, 90])
    }
}

impl Thresholds {
    /// # Errors
    /// When there are none or too many, or one is out of range or there twice.
    pub fn new(percentages: &[i64]) -> Result<Thresholds, BudgetError> {
        let mut sorted = percentages.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let fits = (1..=MAX_THRESHOLDS).contains(&sorted.len()) && sorted.len() == percentages.len();
        if !fits
            || sorted
                .iter()
                .any(|percent| !(1..=MAX_THRESHOLD_PERCENT).contains(percent))
        {
            return Err(BudgetError::Thresholds(percentages.to_vec()));
        }
        Ok(Thresholds(sorted))
    }

    pub fn percentages(&self) -> &[i64] {
        &self.0
    }
}

/// A customer's budget.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    pub customer: CustomerId,
    pub amount: Money,
    pub thresholds: Thresholds,
    /// Services are suspended when it is spent.
    pub suspends: bool,
    pub reset_day: AnchorDay,
    /// Paid free up to this instant, the end of a cycle.
    pub unlocked_until_ms: Option<i64>,
    pub updated_at_ms: i64,
}

/// A budget to be set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBudget {
    pub amount: Money,
    pub thresholds: Thresholds,
    pub suspends: bool,
    /// `None`: the day on which the customer's oldest subscription that runs begins its periods, or the first.
    pub reset_day: Option<AnchorDay>,
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

    fn holds(&self) -> bool {
        self.budget.suspends && self.is_exceeded() && !self.is_unlocked
    }
}

/// What a look at a budget did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
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
pub struct LookedAll {
    pub looked_at: u64,
    pub said: u64,
    pub held: Vec<SubscriptionId>,
    pub released: Vec<SubscriptionId>,
    pub failed: Vec<(CustomerId, BudgetError)>,
}

fn reaches(spent_minor: i64, percent: i64, amount: Money) -> bool {
    i128::from(spent_minor) * 100 >= i128::from(amount.minor) * i128::from(percent)
}

/// A customer's budget.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn budget(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Option<Budget>, BudgetError> {
    let row = sqlx::query(
        "SELECT b.customer_id, b.amount_minor, b.thresholds, b.suspends, b.reset_day, b.unlocked_until_ms, b.updated_at_ms, \
         c.currency FROM budgets b JOIN customers c ON c.id = b.customer_id WHERE b.customer_id = $1",
    )
    .bind(customer.0)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Services that do not count and are not suspended.
///
/// # Errors
/// As the database answers.
pub async fn exclusions(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Vec<ServiceId>, BudgetError> {
    let rows = sqlx::query("SELECT service_id FROM budget_exclusions WHERE customer_id = $1 ORDER BY service_id")
        .bind(customer.0)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok(ServiceId(row.try_get(0)?))).collect()
}

/// Sets or changes a budget. What follows from it is done by the next [`check`]: call it after the commit.
///
/// # Errors
/// When the amount is out of range or in another currency.
pub async fn set(
    connection: &mut AnyConnection,
    customer: CustomerId,
    new: &NewBudget,
    actor: Actor<'_>,
    now_ms: i64,
) -> Result<Budget, BudgetError> {
    settlement::lock_customer(connection, customer).await?;
    let owner = inventory::customer(&mut *connection, customer).await?;
    let NewBudget { amount, .. } = *new;
    if amount.currency != owner.currency {
        return Err(BudgetError::OtherCurrency {
            customer,
            pays: owner.currency,
            asked: amount.currency,
        });
    }
    if !(1..=MAX_AMOUNT_MINOR).contains(&amount.minor) {
        let money = |minor| Money::new(minor, owner.currency);
        return Err(BudgetError::OutOfRange {
            value: amount,
            min: money(1),
            max: money(MAX_AMOUNT_MINOR),
        });
    }
    let before = budget(&mut *connection, customer).await?;
    let reset_day = match (new.reset_day, &before) {
        (Some(day), _) => day,
        (None, Some(before)) => before.reset_day,
        (None, None) => billing_day(connection, customer).await?,
    };
    sqlx::query(
        "INSERT INTO budgets (customer_id, amount_minor, thresholds, suspends, reset_day, updated_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (customer_id) DO UPDATE SET amount_minor = $2, thresholds = $3, \
         suspends = $4, reset_day = $5, updated_at_ms = $6",
    )
    .bind(customer.0)
    .bind(amount.minor)
    .bind(json!(new.thresholds).to_string())
    .bind(i64::from(new.suspends))
    .bind(reset_day.get())
    .bind(later(now_ms, before.as_ref()))
    .execute(&mut *connection)
    .await?;
    // What was said of a smaller budget and is not so of this one will be said when it is.
    sqlx::query(
        "DELETE FROM budget_alerts WHERE customer_id = $1 AND basis <> 'reset' AND spent_minor * 100 < threshold * $2",
    )
    .bind(customer.0)
    .bind(amount.minor)
    .execute(&mut *connection)
    .await?;
    let change = json!({
        "amount_minor": amount.minor, "currency": amount.currency, "thresholds": new.thresholds,
        "suspends": new.suspends, "reset_day": reset_day.get(),
        "before_minor": before.map(|before| before.amount.minor),
    });
    record(connection, actor, "budget.set", customer, change, now_ms).await?;
    budget(connection, customer)
        .await?
        .ok_or(BudgetError::NoBudget(customer))
}

/// Takes a budget away, with its exclusions and holds.
///
/// # Errors
/// [`BudgetError::NoBudget`] when there is none.
pub async fn clear(
    connection: &mut AnyConnection,
    customer: CustomerId,
    actor: Actor<'_>,
    now_ms: i64,
) -> Result<(), BudgetError> {
    settlement::lock_customer(connection, customer).await?;
    let cleared = sqlx::query("DELETE FROM budgets WHERE customer_id = $1")
        .bind(customer.0)
        .execute(&mut *connection)
        .await?;
    if cleared.rows_affected() == 0 {
        return Err(BudgetError::NoBudget(customer));
    }
    sqlx::query("DELETE FROM budget_exclusions WHERE customer_id = $1")
        .bind(customer.0)
        .execute(&mut *connection)
        .await?;
    release_all(connection, customer, &HashSet::new(), now_ms).await?;
    record(connection, actor, "budget.clear", customer, json!({}), now_ms).await
}

/// Leaves a service out of the budget, or takes it in again. What follows is done by the next [`check`].
///
/// # Errors
/// When the service is not the customer's.
pub async fn exclude(
    connection: &mut AnyConnection,
    customer: CustomerId,
    service: ServiceId,
    is_excluded: bool,
    actor: Actor<'_>,
    now_ms: i64,
) -> Result<(), BudgetError> {
    settlement::lock_customer(connection, customer).await?;
    if inventory::service(&mut *connection, service).await?.customer != customer {
        return Err(BudgetError::OtherCustomer { service, customer });
    }
    let (sql, action) = if is_excluded {
        (
            "INSERT INTO budget_exclusions (customer_id, service_id) VALUES ($1, $2) ON CONFLICT (customer_id, service_id) DO NOTHING",
            "budget.exclude",
        )
    } else {
        (
            "DELETE FROM budget_exclusions WHERE customer_id = $1 AND service_id = $2",
            "budget.include",
        )
    };
    sqlx::query(sql)
        .bind(customer.0)
        .bind(service.0)
        .execute(&mut *connection)
        .await?;
    let before = budget(&mut *connection, customer).await?;
    sqlx::query("UPDATE budgets SET updated_at_ms = $2 WHERE customer_id = $1")
        .bind(customer.0)
        .bind(later(now_ms, before.as_ref()))
        .execute(&mut *connection)
        .await?;
    record(
        connection,
        actor,
        action,
        customer,
        json!({ "service": service }),
        now_ms,
    )
    .await
}

/// Staff lets a customer go on until the cycle ends, without a payment.
///
/// # Errors
/// [`BudgetError::NoBudget`] when there is none.
pub async fn unlock(
    connection: &mut AnyConnection,
    customer: CustomerId,
    reason: &str,
    actor: Actor<'_>,
    now_ms: i64,
) -> Result<Budget, BudgetError> {
    settlement::lock_customer(connection, customer).await?;
    let owner = inventory::customer(&mut *connection, customer).await?;
    let before = budget(&mut *connection, customer).await?;
    let before = before.ok_or(BudgetError::NoBudget(customer))?;
    let cycle = cycle_at(&owner, before.reset_day, now_ms)?;
    if mark_unlocked(connection, &before, &cycle, None, now_ms).await? {
        let change = json!({ "reason": reason, "unlocked_until_ms": cycle.end_ms });
        record(connection, actor, "budget.unlock", customer, change, now_ms).await?;
        release_all(connection, customer, &HashSet::new(), now_ms).await?;
    }
    budget(connection, customer)
        .await?
        .ok_or(BudgetError::NoBudget(customer))
}

/// Unlocks where the customer has paid: for the moment after a payment, so that nobody waits for the next look. True when
/// it unlocked.
///
/// # Errors
/// When usage cannot be measured, or the customer does not exist.
pub async fn unlock_by_payment<U: UsageSource>(
    database: &Database,
    usage: &U,
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
pub async fn status<U: UsageSource>(
    database: &Database,
    usage: &U,
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
pub async fn check<U: UsageSource>(
    database: &Database,
    usage: &U,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<Looked>, BudgetError> {
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
pub async fn check_all<U: UsageSource>(database: &Database, usage: &U, now_ms: i64) -> Result<LookedAll, BudgetError> {
    let mut all = LookedAll::default();
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
            match look_or_again(database, usage, customer, stamp, &mut previews, now_ms).await {
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

async fn look_or_again<U: UsageSource>(
    database: &Database,
    usage: &U,
    customer: CustomerId,
    stamp: Stamp,
    previews: &mut Previews,
    now_ms: i64,
) -> Result<Option<Looked>, BudgetError> {
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
) -> Result<Option<Looked>, BudgetError> {
    let mut transaction = database.begin_write().await?;
    settlement::lock_customer(&mut transaction, customer).await?;
    if self::stamp(&mut transaction, customer).await? != Some(stamp) {
        return Ok(None);
    }
    let Some(mut status) = read_status(&mut transaction, customer, drafts, now_ms).await? else {
        return Ok(None);
    };
    say_reset(&mut transaction, &status, now_ms).await?;
    let said = say_spent(&mut transaction, &status, now_ms).await?;
    let said_forecast = say_forecast(&mut transaction, &status, now_ms).await?;
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
            if !change::holds(&mut transaction, subscription)
                .await?
                .contains(&HoldCause::Budget)
            {
                change::hold(
                    &mut transaction,
                    subscription,
                    HoldCause::Budget,
                    &reason,
                    "billing",
                    now_ms,
                )
                .await?;
                held.push(subscription);
            }
        }
    }
    let released = release_all(&mut transaction, customer, &to_hold, now_ms).await?;
    transaction.commit().await?;
    Ok(Some(Looked {
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

/// Notes that something is said in this cycle; false when it was before.
async fn say_once(
    connection: &mut AnyConnection,
    status: &Status,
    threshold: i64,
    basis: &str,
    now_ms: i64,
) -> Result<bool, BudgetError> {
    let said = sqlx::query(
        "INSERT INTO budget_alerts (customer_id, cycle_start_ms, threshold, basis, spent_minor, said_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (customer_id, cycle_start_ms, threshold, basis) DO NOTHING",
    )
    .bind(status.budget.customer.0)
    .bind(status.cycle.start_ms)
    .bind(threshold)
    .bind(basis)
    .bind(status.spent.minor)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(said.rows_affected() == 1)
}

/// What was spent: every threshold that is reached, and that the budget is.
async fn say_spent(connection: &mut AnyConnection, status: &Status, now_ms: i64) -> Result<Vec<i64>, BudgetError> {
    let mut percentages = status.budget.thresholds.percentages().to_vec();
    percentages.push(EXCEEDED_PERCENT);
    percentages.sort_unstable();
    percentages.dedup();
    let mut said = Vec::new();
    for percent in percentages {
        let is_reached = reaches(status.spent.minor, percent, status.budget.amount);
        if !is_reached || !say_once(connection, status, percent, "spent", now_ms).await? {
            continue;
        }
        said.push(percent);
        let event_type = match percent {
            EXCEEDED_PERCENT => EventType::BudgetExceeded,
            _ => EventType::BudgetThresholdReached,
        };
        tell(
            connection,
            status,
            event_type,
            json!({ "threshold_percent": percent, "basis": "spent" }),
            now_ms,
        )
        .await?;
    }
    Ok(said)
}

/// That the cycle will end over the budget. When it is there already, that was said.
async fn say_forecast(connection: &mut AnyConnection, status: &Status, now_ms: i64) -> Result<bool, BudgetError> {
    let passes = status.forecast.minor > status.budget.amount.minor;
    if !passes || status.is_exceeded() {
        return Ok(false);
    }
    if !say_once(connection, status, EXCEEDED_PERCENT, "forecast", now_ms).await? {
        return Ok(false);
    }
    let facts = json!({ "threshold_percent": EXCEEDED_PERCENT, "basis": "forecast" });
    tell(connection, status, EventType::BudgetThresholdReached, facts, now_ms).await?;
    Ok(true)
}

/// That a cycle has begun, where something was said in one before.
async fn say_reset(connection: &mut AnyConnection, status: &Status, now_ms: i64) -> Result<(), BudgetError> {
    let row = sqlx::query(
        "SELECT count(*) FROM budget_alerts a WHERE a.customer_id = $1 AND a.basis <> 'reset' AND a.cycle_start_ms < $2 \
         AND a.cycle_start_ms >= (SELECT CAST(coalesce(max(r.cycle_start_ms), 0) AS BIGINT) FROM budget_alerts r \
         WHERE r.customer_id = $1 AND r.basis = 'reset')",
    )
    .bind(status.budget.customer.0)
    .bind(status.cycle.start_ms)
    .fetch_one(&mut *connection)
    .await?;
    if row.try_get::<i64, _>(0)? == 0 || !say_once(connection, status, 0, "reset", now_ms).await? {
        return Ok(());
    }
    tell(connection, status, EventType::BudgetReset, json!({}), now_ms).await
}

async fn tell(
    connection: &mut AnyConnection,
    status: &Status,
    event_type: EventType,
    mut facts: serde_json::Value,
    now_ms: i64,
) -> Result<(), BudgetError> {
    facts["spent_minor"] = json!(status.spent.minor);
    facts["forecast_minor"] = json!(status.forecast.minor);
    facts["budget_minor"] = json!(status.budget.amount.minor);
    facts["currency"] = json!(status.spent.currency);
    facts["resets_at_ms"] = json!(status.cycle.end_ms);
    facts["suspends"] = json!(status.budget.suspends);
    let customer = status.budget.customer;
    settlement::tell(connection, event_type, customer, customer.to_string(), facts, now_ms).await?;
    Ok(())
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
         AND coalesce(p.paid_at_ms, p.updated_at_ms) >= a.said_at_ms AND p.note NOT IN ($4, $5)",
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
            change::release(connection, subscription, HoldCause::Budget, "billing", now_ms).await?;
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

/// The day on which the customer's oldest subscription that runs begins its periods.
async fn billing_day(connection: &mut AnyConnection, customer: CustomerId) -> Result<AnchorDay, BudgetError> {
    let row = sqlx::query(
        "SELECT p.anchor_day FROM subscriptions s JOIN phases p ON p.subscription_id = s.id \
         WHERE s.customer_id = $1 AND s.status <> 'ended' ORDER BY s.id, p.id DESC LIMIT 1",
    )
    .bind(customer.0)
    .fetch_optional(connection)
    .await?;
    let day: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(AnchorDay::new(day.unwrap_or(1))?)
}

/// An instant of change that differs from the one before, also within a millisecond.
fn later(now_ms: i64, before: Option<&Budget>) -> i64 {
    before.map_or(now_ms, |before| now_ms.max(before.updated_at_ms + 1))
}

async fn record(
    connection: &mut AnyConnection,
    actor: Actor<'_>,
    action: &str,
    customer: CustomerId,
    change: serde_json::Value,
    now_ms: i64,
) -> Result<(), BudgetError> {
    let entry = Entry {
        actor,
        action,
        subject: &customer.to_string(),
        change,
        risk: Risk::Normal,
    };
    audit::record(connection, entry, now_ms).await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Budget, BudgetError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let text: String = row.try_get("thresholds")?;
    let percentages: Option<Vec<i64>> = serde_json::from_str(&text).ok();
    let thresholds = percentages.and_then(|percentages| Thresholds::new(&percentages).ok());
    Ok(Budget {
        customer: CustomerId(row.try_get("customer_id")?),
        amount: Money::new(row.try_get("amount_minor")?, currency),
        thresholds: thresholds.ok_or(BudgetError::Corrupt {
            what: "thresholds of a budget",
            text,
        })?,
        suspends: row.try_get::<i64, _>("suspends")? == 1,
        reset_day: AnchorDay::new(row.try_get("reset_day")?)?,
        unlocked_until_ms: row.try_get("unlocked_until_ms")?,
        updated_at_ms: row.try_get("updated_at_ms")?,
    })
}

#[cfg(test)]
mod tests;
