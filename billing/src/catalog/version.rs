//! Versions of prices.

use rust_decimal::Decimal;
use schemas::db::next_id;
use schemas::ids::{PlanId, PriceId};
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{MAX_BASE_MINOR, MAX_CYCLE_MONTHS, Plan, Terms, plan};
use crate::BillingError;
use crate::field::check_range;
use crate::price::UsagePrice;

/// What a plan costs in one currency and cycle, from an instant on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Price {
    pub id: PriceId,
    pub plan: PlanId,
    pub cycle_months: i64,
    /// Per cycle.
    pub base: Money,
    /// Of a quota unit or an Mbit/s over what is included, per month; nothing for flat plans.
    pub usage: UsagePrice,
    pub valid_from_ms: i64,
}

impl Price {
    pub fn currency(&self) -> Currency {
        self.base.currency
    }
}

/// A price to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPrice {
    pub plan: PlanId,
    pub cycle_months: i64,
    pub base: Money,
    pub usage: UsagePrice,
    pub valid_from_ms: i64,
}

const SELECT: &str = "SELECT id, plan_id, currency, cycle_months, base_minor, usage_price, valid_from_ms FROM prices";

/// Checks and stores a price. Subscriptions that exist keep theirs.
///
/// # Errors
/// When a field is out of range, the plan does not exist, or it has a price from that instant on already.
pub async fn add_price(connection: &mut AnyConnection, new: NewPrice) -> Result<Price, BillingError> {
    let plan = plan(&mut *connection, new.plan).await?;
    new.usage.check()?;
    if !new.base.currency.is_in_use() {
        return Err(BillingError::CurrencyNotInUse(new.base.currency));
    }
    check_range("base price in minor units", new.base.minor, 0, MAX_BASE_MINOR)?;
    check_range("billing cycle in months", new.cycle_months, 1, MAX_CYCLE_MONTHS)?;
    if plan.terms == Terms::Flat && new.usage != (UsagePrice::PerUnit { rate: Decimal::ZERO }) {
        return Err(BillingError::UsageOfFlatPlan(plan.id));
    }
    if plan.is_free && (new.base.minor != 0 || new.usage != (UsagePrice::PerUnit { rate: Decimal::ZERO })) {
        return Err(BillingError::FreePlanCosts(plan.id));
    }
    let id = PriceId(next_id(connection, "price").await?);
    let same = sqlx::query(
        "SELECT id FROM prices WHERE plan_id = $1 AND currency = $2 AND cycle_months = $3 AND valid_from_ms = $4",
    )
    .bind(new.plan.0)
    .bind(new.base.currency.code())
    .bind(new.cycle_months)
    .bind(new.valid_from_ms)
    .fetch_optional(&mut *connection)
    .await?;
    if same.is_some() {
        return Err(BillingError::PriceExists {
            plan: new.plan,
            currency: new.base.currency,
            cycle_months: new.cycle_months,
        });
    }
    sqlx::query(
        "INSERT INTO prices (id, plan_id, currency, cycle_months, base_minor, usage_price, valid_from_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id.0)
    .bind(new.plan.0)
    .bind(new.base.currency.code())
    .bind(new.cycle_months)
    .bind(new.base.minor)
    .bind(serde_json::to_string(&new.usage)?)
    .bind(new.valid_from_ms)
    .execute(connection)
    .await?;
    Ok(Price {
        id,
        plan: new.plan,
        cycle_months: new.cycle_months,
        base: new.base,
        usage: new.usage,
        valid_from_ms: new.valid_from_ms,
    })
}

/// Every price, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn prices(db: impl AnyExecutor<'_>) -> Result<Vec<Price>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// The prices of a plan, by currency, cycle and start.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn prices_of(db: impl AnyExecutor<'_>, plan: PlanId) -> Result<Vec<Price>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE plan_id = $1 ORDER BY currency, cycle_months, valid_from_ms"
    ));
    let rows = sqlx::query(sql).bind(plan.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// One price.
///
/// # Errors
/// [`BillingError::NoPrice`] when there is none of this id.
pub async fn price(db: impl AnyExecutor<'_>, id: PriceId) -> Result<Price, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(BillingError::NoPrice(id))?)
}

/// The price of a plan that holds at an instant, if there is one in that currency and cycle.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn price_at(
    db: impl AnyExecutor<'_>,
    plan: PlanId,
    currency: Currency,
    cycle_months: i64,
    at_ms: i64,
) -> Result<Option<Price>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE plan_id = $1 AND currency = $2 AND cycle_months = $3 AND valid_from_ms <= $4 \
         ORDER BY valid_from_ms DESC LIMIT 1"
    ));
    let row = sqlx::query(sql)
        .bind(plan.0)
        .bind(currency.code())
        .bind(cycle_months)
        .bind(at_ms)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(read).transpose()
}

/// The usage price of a new version: the one that was given, else that of the version that holds at `now_ms`. Usage is
/// never made free by leaving its price out.
///
/// # Errors
/// [`BillingError::NoUsagePrice`] when none was given, the plan bills usage, and there is no version to take it from; as the
/// database answers.
pub async fn usage_or_current(
    db: impl AnyExecutor<'_>,
    plan: &Plan,
    currency: Currency,
    cycle_months: i64,
    given: Option<&UsagePrice>,
    now_ms: i64,
) -> Result<UsagePrice, BillingError> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    if plan.terms == Terms::Flat || plan.is_free {
        return Ok(UsagePrice::FREE);
    }
    match price_at(db, plan.id, currency, cycle_months, now_ms).await? {
        Some(current) => Ok(current.usage),
        None => Err(BillingError::NoUsagePrice {
            plan: plan.id,
            currency,
            cycle_months,
        }),
    }
}

fn read(row: &AnyRow) -> Result<Price, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let usage: String = row.try_get("usage_price")?;
    Ok(Price {
        id: PriceId(row.try_get("id")?),
        plan: PlanId(row.try_get("plan_id")?),
        cycle_months: row.try_get("cycle_months")?,
        base: Money::new(row.try_get("base_minor")?, currency),
        usage: serde_json::from_str(&usage).map_err(|_| BillingError::corrupt("usage price", usage))?,
        valid_from_ms: row.try_get("valid_from_ms")?,
    })
}
