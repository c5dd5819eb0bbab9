//! Coupons: percent or amount off the base price, for some months or for ever.
//!
//! A coupon counts time, not cycles: three months are three months, of a monthly price or of two years at once. It stays with
//! its plan, where it is for one, and a customer redeems it once unless it says otherwise. What was agreed as it was redeemed
//! is kept with the subscription ([`Redemption`]).

use jiff::ToSpan as _;
use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::db::next_id;
use schemas::ids::{CouponId, CustomerId, PlanId, SubscriptionId};
use schemas::money::{Currency, Money};
use schemas::percent::Percent;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use std::sync::Arc;

use super::{MAX_BASE_MINOR, MAX_CYCLE_MONTHS, Plan, plan};
use crate::BillingError;
use crate::field::{check_range, read_decimal};

/// Characters in a code at most.
const MAX_CODE_CHARS: usize = 40;
/// Redemptions of a coupon at most.
const MAX_REDEMPTIONS: i64 = 1_000_000_000;

/// What a coupon takes off the base price of a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discount {
    Percent(Percent),
    /// Never more than the base price.
    Amount(Money),
}

/// A coupon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coupon {
    pub id: CouponId,
    /// In capital letters.
    pub code: String,
    pub discount: Discount,
    /// Months that it lasts, from the first charged day on; `None`: for ever.
    pub months: Option<i64>,
    /// The one plan that it is for; `None`: any.
    pub plan: Option<PlanId>,
    pub max_redemptions: Option<i64>,
    /// How often one customer can redeem it; `None`: any number of times.
    pub per_customer: Option<i64>,
    pub redeemed: i64,
    /// First instant at which nobody can redeem it any more.
    pub expires_at_ms: Option<i64>,
    pub created_at_ms: i64,
    pub archived_at_ms: Option<i64>,
}

/// A coupon to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewCoupon<'a> {
    pub code: &'a str,
    pub discount: Discount,
    pub months: Option<i64>,
    pub plan: Option<PlanId>,
    pub max_redemptions: Option<i64>,
    pub per_customer: Option<i64>,
    pub expires_at_ms: Option<i64>,
}

impl<'a> NewCoupon<'a> {
    /// For any plan, for ever, once for each customer.
    pub fn new(code: &'a str, discount: Discount) -> NewCoupon<'a> {
        NewCoupon {
            code,
            discount,
            months: None,
            plan: None,
            max_redemptions: None,
            per_customer: Some(1),
            expires_at_ms: None,
        }
    }
}

/// A coupon as a subscription redeemed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redemption {
    pub coupon: Arc<Coupon>,
    /// An amount is off so many months: the cycle that was ordered, or the coupon's months where those are fewer.
    pub cycle_months: i64,
    /// Months that it lasts, as agreed then; `None`: for ever.
    pub months: Option<i64>,
}

impl Redemption {
    /// The first local day that it does not cover, of a subscription that is charged from `from` on.
    ///
    /// # Errors
    /// At the edge of the calendar.
    pub fn until(&self, from: Date) -> Result<Option<Date>, BillingError> {
        let until = self.months.map(|months| from.checked_add(months.months())).transpose();
        until.map_err(|error| BillingError::Period(error.into()))
    }

    /// Whether it takes something off what is charged for a plan.
    pub fn is_for(&self, plan: PlanId) -> bool {
        self.coupon.plan.is_none_or(|only| only == plan)
    }
}

const SELECT: &str = "SELECT id, code, percent, amount_minor, currency, months, plan_id, max_redemptions, per_customer, redeemed, \
     expires_at_ms, created_at_ms, archived_at_ms FROM coupons";

/// Checks and stores a coupon.
///
/// # Errors
/// When a field is out of range, the plan does not exist, or the code is taken.
pub async fn create_coupon(
    connection: &mut AnyConnection,
    new: NewCoupon<'_>,
    now_ms: i64,
) -> Result<Coupon, BillingError> {
    let code = new.code.trim().to_ascii_uppercase();
    let is_sound = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if code.is_empty() || code.len() > MAX_CODE_CHARS || !code.chars().all(is_sound) {
        return Err(BillingError::CouponCode(new.code.to_owned()));
    }
    if let Discount::Amount(amount) = new.discount
        && !amount.currency.is_in_use()
    {
        return Err(BillingError::CurrencyNotInUse(amount.currency));
    }
    if let Some(plan_id) = new.plan {
        plan(&mut *connection, plan_id).await?;
    }
    if let Some(months) = new.months {
        check_range("number of months", months, 1, MAX_CYCLE_MONTHS)?;
    }
    if let Some(limit) = new.per_customer {
        check_range("number of redemptions by one customer", limit, 1, MAX_REDEMPTIONS)?;
    }
    if let Some(at_ms) = new.expires_at_ms.filter(|&at_ms| at_ms <= now_ms) {
        return Err(BillingError::NotAhead {
            what: "the expiry of a coupon",
            at_ms,
            now_ms,
        });
    }
    if let Some(limit) = new.max_redemptions {
        check_range("number of redemptions", limit, 1, MAX_REDEMPTIONS)?;
    }
    let (percent, amount) = match new.discount {
        Discount::Percent(percent) => (Some(percent.value().normalize().to_string()), None),
        Discount::Amount(amount) => {
            check_range("discount in minor units", amount.minor, 1, MAX_BASE_MINOR)?;
            (None, Some(amount))
        }
    };
    let id = CouponId(next_id(connection, "coupon").await?);
    if coupon_by_code(&mut *connection, &code).await?.is_some() {
        return Err(BillingError::CouponTaken(code));
    }
    sqlx::query(
        "INSERT INTO coupons (id, code, percent, amount_minor, currency, months, plan_id, max_redemptions, redeemed, \
         expires_at_ms, created_at_ms, per_customer) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11)",
    )
    .bind(id.0)
    .bind(&code)
    .bind(percent)
    .bind(amount.map(|amount| amount.minor))
    .bind(amount.map(|amount| amount.currency.code().to_owned()))
    .bind(new.months)
    .bind(new.plan.map(|plan| plan.0))
    .bind(new.max_redemptions)
    .bind(new.expires_at_ms)
    .bind(now_ms)
    .bind(new.per_customer)
    .execute(connection)
    .await?;
    Ok(Coupon {
        id,
        code,
        discount: new.discount,
        months: new.months,
        plan: new.plan,
        max_redemptions: new.max_redemptions,
        per_customer: new.per_customer,
        redeemed: 0,
        expires_at_ms: new.expires_at_ms,
        created_at_ms: now_ms,
        archived_at_ms: None,
    })
}

/// Redeems a code for a customer who subscribes to a plan. The caller has the lock of new subscriptions, and keeps what was
/// redeemed by [`keep_redemption`].
///
/// # Errors
/// [`BillingError::CouponRefused`] with the reason.
pub(crate) async fn redeem(
    connection: &mut AnyConnection,
    code: &str,
    customer: CustomerId,
    plan: &Plan,
    currency: Currency,
    now_ms: i64,
) -> Result<Coupon, BillingError> {
    let refuse = |reason| BillingError::CouponRefused {
        code: code.trim().to_ascii_uppercase(),
        reason,
    };
    let coupon = coupon_by_code(&mut *connection, code).await?;
    let coupon = coupon.ok_or_else(|| refuse("there is no such coupon"))?;
    if coupon.archived_at_ms.is_some() || coupon.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        return Err(refuse("it is over"));
    }
    if coupon.plan.is_some_and(|only| only != plan.id) {
        return Err(refuse("it is for another plan"));
    }
    if plan.is_free {
        return Err(refuse("the plan is free"));
    }
    if let Discount::Amount(amount) = coupon.discount
        && amount.currency != currency
    {
        return Err(refuse("it is in another currency"));
    }
    if let Some(limit) = coupon.per_customer {
        let row = sqlx::query("SELECT count(*) FROM coupon_redemptions WHERE customer_id = $1 AND coupon_id = $2")
            .bind(customer.0)
            .bind(coupon.id.0)
            .fetch_one(&mut *connection)
            .await?;
        if row.try_get::<i64, _>(0)? >= limit {
            return Err(refuse("this customer has redeemed it as often as one customer can"));
        }
    }
    let taken = sqlx::query(
        "UPDATE coupons SET redeemed = redeemed + 1 \
         WHERE id = $1 AND (max_redemptions IS NULL OR redeemed < max_redemptions)",
    )
    .bind(coupon.id.0)
    .execute(connection)
    .await?;
    match taken.rows_affected() {
        0 => Err(refuse("it was redeemed as often as it may be")),
        _ => Ok(coupon),
    }
}

/// Keeps what a subscription redeemed, as it is agreed now.
///
/// # Errors
/// As the database answers.
pub(crate) async fn keep_redemption(
    connection: &mut AnyConnection,
    coupon: &Coupon,
    (subscription, customer): (SubscriptionId, CustomerId),
    cycle_months: i64,
    now_ms: i64,
) -> Result<(), BillingError> {
    sqlx::query(
        "INSERT INTO coupon_redemptions (subscription_id, coupon_id, customer_id, cycle_months, months, redeemed_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(subscription.0)
    .bind(coupon.id.0)
    .bind(customer.0)
    .bind(coupon.months.map_or(cycle_months, |months| months.min(cycle_months)))
    .bind(coupon.months)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a coupon; subscriptions that redeemed it keep it. Archiving again changes nothing.
///
/// # Errors
/// [`BillingError::NoCoupon`] when there is none of this id.
pub async fn archive_coupon(connection: &mut AnyConnection, id: CouponId, now_ms: i64) -> Result<(), BillingError> {
    coupon(&mut *connection, id).await?;
    sqlx::query("UPDATE coupons SET archived_at_ms = $1 WHERE id = $2 AND archived_at_ms IS NULL")
        .bind(now_ms)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Every coupon, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn coupons(db: impl AnyExecutor<'_>) -> Result<Vec<Coupon>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// One coupon.
///
/// # Errors
/// [`BillingError::NoCoupon`] when there is none of this id.
pub async fn coupon(db: impl AnyExecutor<'_>, id: CouponId) -> Result<Coupon, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(BillingError::NoCoupon(id))?)
}

/// The coupon with this code, if any, however it is written.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn coupon_by_code(db: impl AnyExecutor<'_>, code: &str) -> Result<Option<Coupon>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE code = $1"));
    let code = code.trim().to_ascii_uppercase();
    let row = sqlx::query(sql).bind(code).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &AnyRow) -> Result<Coupon, BillingError> {
    let amount: Option<i64> = row.try_get("amount_minor")?;
    let discount = match amount {
        Some(minor) => {
            let currency: Option<String> = row.try_get("currency")?;
            let currency: Currency = currency.unwrap_or_default().parse()?;
            Discount::Amount(Money::new(minor, currency))
        }
        None => {
            let percent: Decimal = read_decimal("coupon", row, "percent")?;
            let percent = Percent::new(percent).map_err(|_| BillingError::corrupt("coupon", percent.to_string()))?;
            Discount::Percent(percent)
        }
    };
    Ok(Coupon {
        id: CouponId(row.try_get("id")?),
        code: row.try_get("code")?,
        discount,
        months: row.try_get("months")?,
        plan: row.try_get::<Option<i64>, _>("plan_id")?.map(PlanId),
        max_redemptions: row.try_get("max_redemptions")?,
        per_customer: row.try_get("per_customer")?,
        redeemed: row.try_get("redeemed")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        created_at_ms: row.try_get("created_at_ms")?,
        archived_at_ms: row.try_get("archived_at_ms")?,
    })
}
