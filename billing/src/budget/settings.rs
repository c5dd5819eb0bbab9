//! What people do with a budget: set it, clear it, leave services out, unlock it.

use std::collections::HashSet;

use activity::act::Note;
use schemas::ids::{CustomerId, ServiceId};
use schemas::inventory;
use schemas::money::{Currency, Money};
use schemas::period::AnchorDay;
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{
    BudgetError, MAX_AMOUNT_MINOR, MAX_THRESHOLD_PERCENT, MAX_THRESHOLDS, cycle_at, mark_unlocked, release_all,
};
use crate::settlement;

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

/// Sets or changes a budget. What follows from it is done by the next [`super::check`]: call it after the commit.
///
/// # Errors
/// When the amount is out of range or in another currency.
pub async fn set(
    connection: &mut AnyConnection,
    customer: CustomerId,
    new: &NewBudget,
    now_ms: i64,
) -> Result<Note, BudgetError> {
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
    Ok(Note::new("budget.set", customer).change(change))
}

/// Takes a budget away, with its exclusions and holds.
///
/// # Errors
/// [`BudgetError::NoBudget`] when there is none.
pub async fn clear(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<(usize, Note), BudgetError> {
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
    let resumed = release_all(connection, customer, &HashSet::new(), now_ms).await?;
    Ok((resumed.len(), Note::new("budget.clear", customer)))
}

/// Leaves a service out of the budget, or takes it in again; `None` where it is so already. What follows is done by the next
/// [`super::check`].
///
/// # Errors
/// When the service is not the customer's.
pub async fn exclude(
    connection: &mut AnyConnection,
    customer: CustomerId,
    service: ServiceId,
    is_excluded: bool,
    now_ms: i64,
) -> Result<Option<Note>, BudgetError> {
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
    let changed = sqlx::query(sql)
        .bind(customer.0)
        .bind(service.0)
        .execute(&mut *connection)
        .await?;
    if changed.rows_affected() == 0 {
        return Ok(None);
    }
    let before = budget(&mut *connection, customer).await?;
    sqlx::query("UPDATE budgets SET updated_at_ms = $2 WHERE customer_id = $1")
        .bind(customer.0)
        .bind(later(now_ms, before.as_ref()))
        .execute(connection)
        .await?;
    Ok(Some(Note::new(action, customer).change(json!({ "service": service }))))
}

/// Staff lets a customer go on until the cycle ends, without a payment; `None` where it is unlocked already.
///
/// # Errors
/// [`BudgetError::NoBudget`] when there is none.
pub async fn unlock(
    connection: &mut AnyConnection,
    customer: CustomerId,
    reason: &str,
    now_ms: i64,
) -> Result<Option<(Budget, Note)>, BudgetError> {
    settlement::lock_customer(connection, customer).await?;
    let owner = inventory::customer(&mut *connection, customer).await?;
    let before = budget(&mut *connection, customer).await?;
    let before = before.ok_or(BudgetError::NoBudget(customer))?;
    let cycle = cycle_at(&owner, before.reset_day, now_ms)?;
    if !mark_unlocked(connection, &before, &cycle, None, now_ms).await? {
        return Ok(None);
    }
    release_all(connection, customer, &HashSet::new(), now_ms).await?;
    let unlocked = budget(connection, customer).await?;
    let change = json!({ "reason": reason, "unlocked_until_ms": cycle.end_ms });
    let note = Note::new("budget.unlock", customer).change(change);
    Ok(Some((unlocked.ok_or(BudgetError::NoBudget(customer))?, note)))
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
pub(super) fn later(now_ms: i64, before: Option<&Budget>) -> i64 {
    before.map_or(now_ms, |before| now_ms.max(before.updated_at_ms + 1))
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
