//! A new version of a price for those who pay the one before: whom it touches, and the change at each one's renewal.
//!
//! The change is scheduled, so that the customer is told and reminded as of any other (F-25). It is bound to the price that
//! it replaces: who has moved to other terms by then keeps those.

use schemas::ids::{CustomerId, PlanId, PriceId, SubscriptionId};
use schemas::money::Currency;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::change::Change;
use super::schedule::{self, ScheduledAction};
use super::{Contract, Phase, contract};
use crate::BillingError;
use crate::catalog;

/// Whom a new version of a price touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct RepriceImpact {
    pub customers: u64,
    pub subscriptions: u64,
}

/// Who has cancelled pays the new price too, if the cancellation is taken back.
const PAYING: &str = "FROM subscriptions s JOIN phases p ON p.subscription_id = s.id \
     AND p.id = (SELECT max(q.id) FROM phases q WHERE q.subscription_id = s.id) \
     JOIN prices r ON r.id = p.price_id WHERE s.status <> 'ended' AND r.plan_id = $1 \
     AND r.currency = $2 AND r.cycle_months = $3";

/// Who pays for a plan in one currency and cycle, by whatever version.
///
/// # Errors
/// As the database answers.
pub async fn touched(
    db: impl AnyExecutor<'_>,
    plan: PlanId,
    currency: Currency,
    cycle_months: i64,
) -> Result<RepriceImpact, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT count(DISTINCT s.customer_id), count(*) {PAYING}"));
    let row = sqlx::query(sql)
        .bind(plan.0)
        .bind(currency.code())
        .bind(cycle_months)
        .fetch_one(db)
        .await?;
    let count = |column: usize| Ok::<_, sqlx::Error>(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0));
    Ok(RepriceImpact {
        customers: count(0)?,
        subscriptions: count(1)?,
    })
}

/// The customers that [`touched`] counts.
///
/// # Errors
/// As the database answers.
pub async fn paying(
    db: impl AnyExecutor<'_>,
    plan: PlanId,
    currency: Currency,
    cycle_months: i64,
) -> Result<Vec<CustomerId>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT DISTINCT s.customer_id {PAYING}"));
    let rows = sqlx::query(sql)
        .bind(plan.0)
        .bind(currency.code())
        .bind(cycle_months)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok(CustomerId(row.try_get(0)?))).collect()
}

/// What was scheduled.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Repriced {
    pub scheduled: u64,
    /// Those whose next renewal is beyond what can be scheduled, or that have too many changes pending.
    pub left: Vec<SubscriptionId>,
}

/// Schedules the change to a new version for everybody who pays by another one, at the first renewal at which it holds.
///
/// # Errors
/// When there is no such price.
pub async fn reprice(
    connection: &mut AnyConnection,
    price: PriceId,
    actor: &str,
    now_ms: i64,
) -> Result<Repriced, BillingError> {
    let price = catalog::price(&mut *connection, price).await?;
    let plan = catalog::plan(&mut *connection, price.plan).await?;
    let sql = sqlx::AssertSqlSafe(format!("SELECT s.id {PAYING} AND r.id <> $4 ORDER BY s.id"));
    let rows = sqlx::query(sql)
        .bind(price.plan.0)
        .bind(price.currency().code())
        .bind(price.cycle_months)
        .bind(price.id.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut done = Repriced::default();
    for row in &rows {
        let id = SubscriptionId(row.try_get(0)?);
        let contract = contract(&mut *connection, id).await?;
        let phase = contract.last_phase();
        let (from_price, quantity) = (phase.price.id, phase.quantity);
        let Some(at_ms) = renewal_ms(&contract, price.valid_from_ms.max(now_ms + 1))? else {
            done.left.push(id);
            continue;
        };
        let terms = Change {
            price: price.id,
            quantity,
        };
        let reason = format!("new price of {}", plan.name);
        let planned = ScheduledAction::Change(terms);
        match schedule::schedule(&mut *connection, id, planned, at_ms, &reason, actor, now_ms).await {
            Ok(change) => {
                sqlx::query("UPDATE scheduled_changes SET from_price_id = $1 WHERE id = $2")
                    .bind(from_price.0)
                    .bind(change.0)
                    .execute(&mut *connection)
                    .await?;
                done.scheduled += 1;
            }
            Err(BillingError::OutOfRange { .. }) => done.left.push(id),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Start of the first cycle at or after an instant; of a cancelled one, as if it went on.
fn renewal_ms(contract: &Contract, from_ms: i64) -> Result<Option<i64>, BillingError> {
    let goes_on = Phase {
        to: None,
        ..contract.last_phase().clone()
    };
    let mut periods = goes_on.base_periods(&contract.subscription.time_zone);
    while let Some(charged) = periods.next_period()? {
        if charged.period.start_ms >= from_ms && charged.period.start_ms == charged.nominal.start_ms {
            return Ok(Some(charged.period.start_ms));
        }
    }
    Ok(None)
}
