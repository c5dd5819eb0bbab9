//! Which service pays for which plan, at which price, and the periods that follow from it.
//!
//! Periods are half-open, local midnight to local midnight in the customer's time zone, and start on the anchor day agreed
//! at signup. The first period starts at local midnight of the day the subscription starts and ends where the nominal
//! period around it ends; it is charged for its calendar days out of the nominal period's.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::db::next_id;
use schemas::ids::{CustomerId, PlanId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory::{self, Customer, Service};
use schemas::period::{AnchorDay, Period};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;
use crate::catalog::{self, Plan, Price};

/// Periods of one subscription that one close looks at, at most: more than 40 years of months.
pub const MAX_PERIODS: usize = 500;

/// Where a subscription stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscriptionStatus {
    Active,
}

impl SubscriptionStatus {
    pub fn name(self) -> &'static str {
        match self {
            SubscriptionStatus::Active => "active",
        }
    }
}

/// A service's subscription to a plan at a price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub customer: CustomerId,
    pub service: ServiceId,
    pub plan: PlanId,
    pub price: PriceId,
    pub anchor: AnchorDay,
    pub started_at_ms: i64,
    pub ended_at_ms: Option<i64>,
    pub status: SubscriptionStatus,
}

/// A subscription to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewSubscription {
    pub service: ServiceId,
    /// Names the plan too; must be in the customer's currency.
    pub price: PriceId,
    /// Day of the month on which periods start; `None`: the local day of the start.
    pub anchor_day: Option<i64>,
    pub started_at_ms: i64,
}

/// A subscription with everything it refers to: what rating needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contract {
    pub subscription: Subscription,
    pub customer: Customer,
    pub service: Service,
    pub plan: Plan,
    pub price: Price,
}

/// A period to be charged, and the nominal period that the price is for. They differ in the first period only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChargedPeriod {
    pub period: Period,
    pub nominal: Period,
}

/// The share of a nominal period that is charged, in calendar days: never more than 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proration {
    pub days: i64,
    pub nominal_days: i64,
}

impl Proration {
    pub fn is_full(self) -> bool {
        self.days == self.nominal_days
    }
}

impl ChargedPeriod {
    pub fn proration(&self) -> Proration {
        Proration {
            days: days_between(self.period.start_date, self.period.end_date),
            nominal_days: days_between(self.nominal.start_date, self.nominal.end_date),
        }
    }
}

/// Calendar days from one date to another: days, not multiples of 24 hours.
fn days_between(from: Date, to: Date) -> i64 {
    from.duration_until(to).as_hours() / 24
}

impl Contract {
    /// The period that holds the instant `at_ms`.
    ///
    /// # Errors
    /// [`BillingError::BeforeStart`] before the first period, or at the edge of the calendar.
    pub fn period_at(&self, at_ms: i64) -> Result<ChargedPeriod, BillingError> {
        let mut periods = self.periods()?;
        for _ in 0..MAX_PERIODS {
            let charged = periods.next_period()?;
            if at_ms < charged.period.start_ms {
                return Err(BillingError::BeforeStart {
                    subscription: self.subscription.id,
                    at_ms,
                    started_at_ms: self.subscription.started_at_ms,
                });
            }
            if at_ms < charged.period.end_ms {
                return Ok(charged);
            }
        }
        Err(self.too_many_periods())
    }

    /// The periods that have ended by `now_ms`, oldest first.
    ///
    /// # Errors
    /// When there are more than [`MAX_PERIODS`] of them.
    pub fn ended_periods(&self, now_ms: i64) -> Result<Vec<ChargedPeriod>, BillingError> {
        let mut periods = self.periods()?;
        let mut ended = Vec::new();
        while ended.len() <= MAX_PERIODS {
            let charged = periods.next_period()?;
            if charged.period.end_ms > now_ms {
                return Ok(ended);
            }
            ended.push(charged);
        }
        Err(self.too_many_periods())
    }

    fn periods(&self) -> Result<Periods, BillingError> {
        let zone = self.customer.time_zone.clone();
        let started_at = Timestamp::from_millisecond(self.subscription.started_at_ms)
            .map_err(|error| BillingError::Period(error.into()))?;
        let first_day = started_at.to_zoned(zone.clone()).date();
        let anchor = self.subscription.anchor;
        Ok(Periods {
            first_day,
            nominal_start: Period::containing(started_at, anchor, &zone)?.start_date,
            anchor,
            cycle_months: self.price.cycle_months,
            zone,
        })
    }

    fn too_many_periods(&self) -> BillingError {
        BillingError::TooManyPeriods {
            subscription: self.subscription.id,
            limit: MAX_PERIODS,
        }
    }
}

/// Walks a subscription's periods from the first.
struct Periods {
    first_day: Date,
    nominal_start: Date,
    anchor: AnchorDay,
    cycle_months: i64,
    zone: TimeZone,
}

impl Periods {
    fn next_period(&mut self) -> Result<ChargedPeriod, BillingError> {
        let nominal = Period::starting(self.nominal_start, self.anchor, self.cycle_months, &self.zone)?;
        self.nominal_start = nominal.end_date;
        if self.first_day <= nominal.start_date {
            return Ok(ChargedPeriod {
                period: nominal,
                nominal,
            });
        }
        let midnight = self
            .first_day
            .to_zoned(self.zone.clone())
            .map_err(|error| BillingError::Period(error.into()))?;
        let period = Period {
            start_ms: midnight.timestamp().as_millisecond(),
            start_date: self.first_day,
            ..nominal
        };
        Ok(ChargedPeriod { period, nominal })
    }
}

const SELECT: &str = "SELECT id, customer_id, service_id, plan_id, price_id, anchor_day, started_at_ms, ended_at_ms, status \
                      FROM subscriptions";

/// Subscribes a service to the plan of a price.
///
/// # Errors
/// When the service has a subscription already, the plan is archived, the price is not in the customer's currency, or the
/// anchor is not a day of a month.
pub async fn subscribe(connection: &mut AnyConnection, new: NewSubscription) -> Result<Subscription, BillingError> {
    let service = inventory::service(&mut *connection, new.service).await?;
    let customer = inventory::customer(&mut *connection, service.customer).await?;
    let price = catalog::price(&mut *connection, new.price).await?;
    let plan = catalog::plan(&mut *connection, price.plan).await?;
    if price.currency() != customer.currency {
        return Err(BillingError::CurrencyMismatch {
            customer: customer.id,
            pays: customer.currency,
            price: price.currency(),
        });
    }
    if plan
        .archived_at_ms
        .is_some_and(|since_ms| since_ms <= new.started_at_ms)
    {
        return Err(BillingError::PlanArchived(plan.id));
    }
    let anchor_day = match new.anchor_day {
        Some(day) => day,
        None => local_day(new.started_at_ms, &customer.time_zone)?,
    };
    let subscription = Subscription {
        // The sequence's row lock makes concurrent writers take turns, so that the check below sees them.
        id: SubscriptionId(next_id(connection, "subscription").await?),
        customer: customer.id,
        service: service.id,
        plan: plan.id,
        price: price.id,
        anchor: AnchorDay::new(anchor_day)?,
        started_at_ms: new.started_at_ms,
        ended_at_ms: None,
        status: SubscriptionStatus::Active,
    };
    if let Some(existing) = subscription_of(&mut *connection, service.id).await? {
        return Err(BillingError::AlreadySubscribed {
            service: service.id,
            subscription: existing.id,
        });
    }
    sqlx::query(
        "INSERT INTO subscriptions (id, customer_id, service_id, plan_id, price_id, anchor_day, started_at_ms, status) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(subscription.id.0)
    .bind(subscription.customer.0)
    .bind(subscription.service.0)
    .bind(subscription.plan.0)
    .bind(subscription.price.0)
    .bind(subscription.anchor.get())
    .bind(subscription.started_at_ms)
    .bind(subscription.status.name())
    .execute(connection)
    .await?;
    Ok(subscription)
}

fn local_day(at_ms: i64, zone: &TimeZone) -> Result<i64, BillingError> {
    let at = Timestamp::from_millisecond(at_ms).map_err(|error| BillingError::Period(error.into()))?;
    Ok(i64::from(at.to_zoned(zone.clone()).day()))
}

/// One subscription.
///
/// # Errors
/// [`BillingError::NoSubscription`] when there is none of this id.
pub async fn subscription(db: impl AnyExecutor<'_>, id: SubscriptionId) -> Result<Subscription, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(BillingError::NoSubscription(id))?)
}

/// The subscription that a service has now, if any.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn subscription_of(
    db: impl AnyExecutor<'_>,
    service: ServiceId,
) -> Result<Option<Subscription>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE service_id = $1 AND ended_at_ms IS NULL ORDER BY id"
    ));
    let row = sqlx::query(sql).bind(service.0).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// Every subscription, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn subscriptions(db: impl AnyExecutor<'_>) -> Result<Vec<Subscription>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// The subscriptions of one customer, by id (S1: the customer is part of the question).
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn subscriptions_of(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
) -> Result<Vec<Subscription>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE customer_id = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(customer.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// A subscription with everything it refers to.
///
/// # Errors
/// When there is no such subscription.
pub async fn contract(connection: &mut AnyConnection, id: SubscriptionId) -> Result<Contract, BillingError> {
    let subscription = subscription(&mut *connection, id).await?;
    let customer = inventory::customer(&mut *connection, subscription.customer).await?;
    complete(connection, subscription, customer).await
}

/// The subscriptions of one customer with everything they refer to, by id.
///
/// # Errors
/// When there is no such customer.
pub async fn contracts_of(connection: &mut AnyConnection, customer: CustomerId) -> Result<Vec<Contract>, BillingError> {
    let customer = inventory::customer(&mut *connection, customer).await?;
    let mut contracts = Vec::new();
    for subscription in subscriptions_of(&mut *connection, customer.id).await? {
        contracts.push(complete(connection, subscription, customer.clone()).await?);
    }
    Ok(contracts)
}

async fn complete(
    connection: &mut AnyConnection,
    subscription: Subscription,
    customer: Customer,
) -> Result<Contract, BillingError> {
    let price = catalog::price(&mut *connection, subscription.price).await?;
    // The currency of a customer who has subscriptions may have been changed by hand since.
    if price.currency() != customer.currency {
        return Err(BillingError::CurrencyMismatch {
            customer: customer.id,
            pays: customer.currency,
            price: price.currency(),
        });
    }
    Ok(Contract {
        subscription,
        service: inventory::service(&mut *connection, subscription.service).await?,
        plan: catalog::plan(&mut *connection, subscription.plan).await?,
        price,
        customer,
    })
}

fn read(row: &AnyRow) -> Result<Subscription, BillingError> {
    let status: String = row.try_get("status")?;
    let status = match status.as_str() {
        "active" => SubscriptionStatus::Active,
        _ => return Err(BillingError::corrupt("subscription status", status)),
    };
    Ok(Subscription {
        id: SubscriptionId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        service: ServiceId(row.try_get("service_id")?),
        plan: PlanId(row.try_get("plan_id")?),
        price: PriceId(row.try_get("price_id")?),
        anchor: AnchorDay::new(row.try_get("anchor_day")?)?,
        started_at_ms: row.try_get("started_at_ms")?,
        ended_at_ms: row.try_get("ended_at_ms")?,
        status,
    })
}

#[cfg(test)]
mod tests;
