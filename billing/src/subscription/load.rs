//! Reading subscriptions. Many at once cost a few statements, not a few each.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::ids::{CouponId, CustomerId, PhaseId, PlanId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory::{self, Customer, Service, zone_named};
use schemas::period::{AnchorDay, midnight_ms};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Contract, ITSELF, Phase, Subscription, SubscriptionState};
use crate::BillingError;
use crate::catalog::{self, Coupon, Plan, Price, Redemption};

const SELECT: &str = "SELECT s.id, s.customer_id, s.service_id, s.parent_id, s.status, s.time_zone, s.started_at_ms, \
     s.trial_ends_at_ms, s.cancel_at_ms, s.ended_at_ms, s.coupon_id FROM subscriptions s";
const SELECT_PHASE: &str = "SELECT p.id, p.subscription_id, p.plan_id, p.price_id, p.quantity, p.anchor_day, p.cycle_from, p.from_date, \
     p.to_date, p.base_to, p.usage_to, p.usage_from_ms, p.usage_to_ms, p.usage_charged_to_ms FROM phases p";

/// One subscription.
///
/// # Errors
/// [`BillingError::NoSubscription`] when there is none of this id.
pub async fn subscription(db: impl AnyExecutor<'_>, id: SubscriptionId) -> Result<Subscription, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE s.id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(BillingError::NoSubscription(id))?)
}

/// The subscription that a service has now, if any; add-ons do not count.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn subscription_of(
    db: impl AnyExecutor<'_>,
    service: ServiceId,
) -> Result<Option<Subscription>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE s.service_id = $1 AND s.status <> 'ended' AND s.parent_id IS NULL ORDER BY s.id"
    ));
    let row = sqlx::query(sql).bind(service.0).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// Every subscription, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn subscriptions(db: impl AnyExecutor<'_>) -> Result<Vec<Subscription>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY s.id"));
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
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE s.customer_id = $1 ORDER BY s.id"));
    let rows = sqlx::query(sql).bind(customer.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// The add-ons of a subscription that have not ended, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub(super) async fn addons_of(
    db: impl AnyExecutor<'_>,
    parent: SubscriptionId,
) -> Result<Vec<Subscription>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE s.parent_id = $1 AND s.status <> 'ended' ORDER BY s.id"
    ));
    let rows = sqlx::query(sql).bind(parent.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// Plans, prices and coupons that were read already: each is asked for once.
#[derive(Debug, Default)]
pub struct Catalog {
    plans: HashMap<PlanId, Arc<Plan>>,
    prices: HashMap<PriceId, Arc<Price>>,
    coupons: HashMap<CouponId, Arc<Coupon>>,
    months: HashMap<PriceId, Option<Arc<Price>>>,
}

/// What a subscription redeemed: coupon, the months that an amount is for, and those that it lasts.
type RedemptionRow = (CouponId, i64, Option<i64>);

async fn redemptions(
    connection: &mut AnyConnection,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashMap<SubscriptionId, RedemptionRow>, BillingError> {
    let rows = sqlx::query(
        "SELECT subscription_id, coupon_id, cycle_months, months FROM coupon_redemptions \
         WHERE customer_id BETWEEN $1 AND $2",
    )
    .bind(first.0)
    .bind(last.0)
    .fetch_all(connection)
    .await?;
    let read = |row: &AnyRow| {
        let redeemed = (CouponId(row.try_get(1)?), row.try_get(2)?, row.try_get(3)?);
        Ok((SubscriptionId(row.try_get(0)?), redeemed))
    };
    rows.iter().map(read).collect()
}

impl Catalog {
    async fn plan(&mut self, connection: &mut AnyConnection, id: PlanId) -> Result<Arc<Plan>, BillingError> {
        if let Some(plan) = self.plans.get(&id) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(catalog::plan(connection, id).await?);
        self.plans.insert(id, Arc::clone(&plan));
        Ok(plan)
    }

    async fn price(&mut self, connection: &mut AnyConnection, id: PriceId) -> Result<Arc<Price>, BillingError> {
        if let Some(price) = self.prices.get(&id) {
            return Ok(Arc::clone(price));
        }
        let price = Arc::new(catalog::price(connection, id).await?);
        self.prices.insert(id, Arc::clone(&price));
        Ok(price)
    }

    async fn coupon(&mut self, connection: &mut AnyConnection, id: CouponId) -> Result<Arc<Coupon>, BillingError> {
        if let Some(coupon) = self.coupons.get(&id) {
            return Ok(Arc::clone(coupon));
        }
        let coupon = Arc::new(catalog::coupon(connection, id).await?);
        self.coupons.insert(id, Arc::clone(&coupon));
        Ok(coupon)
    }

    async fn phase(
        &mut self,
        connection: &mut AnyConnection,
        row: &PhaseRow,
        zone: &TimeZone,
    ) -> Result<Phase, BillingError> {
        Ok(Phase {
            id: row.id,
            plan: self.plan(connection, row.plan).await?,
            price: self.price(connection, row.price).await?,
            quantity: row.quantity,
            anchor: row.anchor,
            cycle_from: row.cycle_from,
            from: row.from,
            to: row.reach.to,
            base_to: row.reach.base_to,
            usage_from_ms: row.reach.usage_from_ms(row.from, zone)?,
            usage_to_ms: row.reach.usage_to_ms(zone)?,
            usage_charged_to_ms: row.reach.usage_charged_to_ms(zone)?,
            month: None,
        })
    }

    /// The price of a month that held as a longer cycle's price began to, if the plan has one.
    async fn month(&mut self, connection: &mut AnyConnection, of: &Price) -> Result<Option<Arc<Price>>, BillingError> {
        if let Some(month) = self.months.get(&of.id) {
            return Ok(month.clone());
        }
        let found = catalog::price_at(connection, of.plan, of.currency(), 1, of.valid_from_ms).await?;
        let month = found.map(Arc::new);
        self.months.insert(of.id, month.clone());
        Ok(month)
    }
}

/// A subscription with everything it refers to.
///
/// # Errors
/// When there is no such subscription.
pub async fn contract(connection: &mut AnyConnection, id: SubscriptionId) -> Result<Contract, BillingError> {
    let subscription = subscription(&mut *connection, id).await?;
    let customer = inventory::customer(&mut *connection, subscription.customer).await?;
    let service = inventory::service(&mut *connection, subscription.service).await?;
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_PHASE} WHERE p.subscription_id = $1 ORDER BY p.id"));
    let rows = sqlx::query(sql).bind(id.0).fetch_all(&mut *connection).await?;
    let mut catalog = Catalog::default();
    let mut phases = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = read_phase(row)?;
        phases.push(catalog.phase(connection, &row, &subscription.time_zone).await?);
    }
    let redeemed = match subscription.coupon {
        Some(_) => redemptions(connection, subscription.customer, subscription.customer)
            .await?
            .remove(&id),
        None => None,
    };
    let (customer, service) = (Arc::new(customer), Arc::new(service));
    complete(
        connection,
        &mut catalog,
        subscription,
        (customer, service),
        phases,
        redeemed,
    )
    .await
}

/// The subscriptions of one customer with everything they refer to, by id.
///
/// # Errors
/// When there is no such customer.
pub async fn contracts_of(connection: &mut AnyConnection, customer: CustomerId) -> Result<Vec<Contract>, BillingError> {
    inventory::customer(&mut *connection, customer).await?;
    let mut all = contracts_between(connection, &mut Catalog::default(), customer, customer).await?;
    match all.pop() {
        Some((_, contracts)) => contracts,
        None => Ok(Vec::new()),
    }
}

/// The subscriptions of the customers with ids from `first` to `last`, with everything they refer to, for each customer by
/// id. What is wrong with one customer's does not keep the others' from being read.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub(crate) async fn contracts_between(
    connection: &mut AnyConnection,
    catalog: &mut Catalog,
    first: CustomerId,
    last: CustomerId,
) -> Result<Vec<(Arc<Customer>, Result<Vec<Contract>, BillingError>)>, BillingError> {
    let customers = inventory::customers_between(&mut *connection, first, last).await?;
    let services = inventory::services_subscribed_by(&mut *connection, first, last).await?;
    let services: HashMap<ServiceId, Arc<Service>> = services
        .into_iter()
        .map(|service| (service.id, Arc::new(service)))
        .collect();
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE s.customer_id BETWEEN $1 AND $2 ORDER BY s.id"));
    let rows = sqlx::query(sql)
        .bind(first.0)
        .bind(last.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut subscriptions: HashMap<CustomerId, Vec<Subscription>> = HashMap::new();
    let mut zones: HashMap<SubscriptionId, TimeZone> = HashMap::new();
    for row in &rows {
        let subscription = read(row)?;
        zones.insert(subscription.id, subscription.time_zone.clone());
        subscriptions
            .entry(subscription.customer)
            .or_default()
            .push(subscription);
    }
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT_PHASE} JOIN subscriptions s ON s.id = p.subscription_id \
         WHERE s.customer_id BETWEEN $1 AND $2 ORDER BY p.id"
    ));
    let rows = sqlx::query(sql)
        .bind(first.0)
        .bind(last.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut phases: HashMap<SubscriptionId, Vec<Phase>> = HashMap::new();
    for row in &rows {
        let row = read_phase(row)?;
        // Made since the subscriptions were read; the next pass has it.
        let Some(zone) = zones.get(&row.subscription) else {
            continue;
        };
        let phase = catalog.phase(connection, &row, zone).await?;
        phases.entry(row.subscription).or_default().push(phase);
    }
    let mut redeemed = redemptions(connection, first, last).await?;
    let mut all = Vec::with_capacity(customers.len());
    for customer in customers {
        let customer = Arc::new(customer);
        let mut contracts = Ok(Vec::new());
        for subscription in subscriptions.remove(&customer.id).unwrap_or_default() {
            let service = match services.get(&subscription.service) {
                Some(service) => Arc::clone(service),
                // Made since the services were read; the next pass has it.
                None => continue,
            };
            let phases = phases.remove(&subscription.id).unwrap_or_default();
            let redeemed = redeemed.remove(&subscription.id);
            let parties = (Arc::clone(&customer), service);
            let contract = complete(connection, catalog, subscription, parties, phases, redeemed).await;
            match (&mut contracts, contract) {
                (Ok(contracts), Ok(contract)) => contracts.push(contract),
                (_, Err(error)) => contracts = Err(error),
                (Err(_), Ok(_)) => {}
            }
        }
        all.push((customer, contracts));
    }
    Ok(all)
}

async fn complete(
    connection: &mut AnyConnection,
    catalog: &mut Catalog,
    subscription: Subscription,
    (customer, service): (Arc<Customer>, Arc<Service>),
    mut phases: Vec<Phase>,
    redeemed: Option<RedemptionRow>,
) -> Result<Contract, BillingError> {
    if phases.is_empty() {
        return Err(BillingError::corrupt(
            "subscription without phases",
            subscription.id.to_string(),
        ));
    }
    // The currency of a customer who has subscriptions may have been changed by hand since.
    let foreign = phases.iter().find(|phase| phase.price.currency() != customer.currency);
    if let Some(phase) = foreign {
        return Err(BillingError::CurrencyMismatch {
            customer: customer.id,
            pays: customer.currency,
            price: phase.price.currency(),
        });
    }
    let coupon = match redeemed {
        Some((id, cycle_months, months)) => Some(Redemption {
            coupon: catalog.coupon(connection, id).await?,
            cycle_months,
            months,
        }),
        None => None,
    };
    if coupon.as_ref().is_some_and(|redemption| redemption.months.is_some()) {
        for phase in phases.iter_mut().filter(|phase| phase.price.cycle_months > 1) {
            phase.month = catalog.month(connection, &phase.price).await?;
        }
    }
    Ok(Contract {
        subscription,
        customer,
        service,
        phases,
        coupon,
    })
}

/// A change of a subscription's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateChange {
    pub at_ms: i64,
    /// `None` as it begins.
    pub from: Option<SubscriptionState>,
    pub to: SubscriptionState,
    pub reason: String,
    pub actor: String,
}

/// How a subscription came to be in its state, oldest first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn state_history(db: impl AnyExecutor<'_>, id: SubscriptionId) -> Result<Vec<StateChange>, BillingError> {
    let rows = sqlx::query(
        "SELECT at_ms, from_status, to_status, reason, actor FROM subscription_events WHERE subscription_id = $1 ORDER BY id",
    )
    .bind(id.0)
    .fetch_all(db)
    .await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        let from: String = row.try_get("from_status")?;
        changes.push(StateChange {
            at_ms: row.try_get("at_ms")?,
            from: if from.is_empty() { None } else { Some(from.parse()?) },
            to: row.try_get::<String, _>("to_status")?.parse()?,
            reason: row.try_get("reason")?,
            actor: row.try_get("actor")?,
        });
    }
    Ok(changes)
}

/// The subscriptions of a customer that somebody has ended after an instant, and who: not those that came to their end, or were ended
/// for not being paid. Add-ons end with what they are beside, and count with it.
///
/// # Errors
/// As the database answers.
pub(crate) async fn ended_since(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    since_ms: i64,
) -> Result<Vec<(SubscriptionId, String)>, BillingError> {
    let sql = "SELECT DISTINCT e.subscription_id, e.actor FROM subscription_events e \
               JOIN subscriptions s ON s.id = e.subscription_id \
               WHERE s.customer_id = $1 AND s.parent_id IS NULL AND e.to_status = $2 AND e.at_ms > $3 AND e.actor <> $4";
    let rows = sqlx::query(sql)
        .bind(customer.0)
        .bind(SubscriptionState::Ended.name())
        .bind(since_ms)
        .bind(ITSELF)
        .fetch_all(db)
        .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in &rows {
        ended.push((SubscriptionId(row.try_get(0)?), row.try_get(1)?));
    }
    Ok(ended)
}

fn read(row: &AnyRow) -> Result<Subscription, BillingError> {
    Ok(Subscription {
        id: SubscriptionId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        service: ServiceId(row.try_get("service_id")?),
        parent: row.try_get::<Option<i64>, _>("parent_id")?.map(SubscriptionId),
        state: row.try_get::<String, _>("status")?.parse()?,
        time_zone: zone_named(&row.try_get::<String, _>("time_zone")?)?,
        started_at_ms: row.try_get("started_at_ms")?,
        trial_ends_at_ms: row.try_get("trial_ends_at_ms")?,
        cancel_at_ms: row.try_get("cancel_at_ms")?,
        ended_at_ms: row.try_get("ended_at_ms")?,
        coupon: row.try_get::<Option<i64>, _>("coupon_id")?.map(CouponId),
    })
}

/// A phase as stored.
struct PhaseRow {
    id: PhaseId,
    subscription: SubscriptionId,
    plan: PlanId,
    price: PriceId,
    quantity: i64,
    anchor: AnchorDay,
    cycle_from: Date,
    from: Date,
    reach: PhaseProgressRow,
}

/// How far a phase reaches and how far it was charged, as stored: what is nothing follows from the dates.
struct PhaseProgressRow {
    to: Option<Date>,
    base_to: Option<Date>,
    usage_to: Option<Date>,
    usage_from_ms: Option<i64>,
    usage_to_ms: Option<i64>,
    usage_charged_to_ms: Option<i64>,
}

impl PhaseProgressRow {
    fn usage_from_ms(&self, from: Date, zone: &TimeZone) -> Result<i64, BillingError> {
        match self.usage_from_ms {
            Some(at_ms) => Ok(at_ms),
            None => Ok(midnight_ms(from, zone)?),
        }
    }

    fn usage_to_ms(&self, zone: &TimeZone) -> Result<Option<i64>, BillingError> {
        or_midnight(self.usage_to_ms, self.to, zone)
    }

    fn usage_charged_to_ms(&self, zone: &TimeZone) -> Result<Option<i64>, BillingError> {
        or_midnight(self.usage_charged_to_ms, self.usage_to, zone)
    }
}

fn or_midnight(at_ms: Option<i64>, date: Option<Date>, zone: &TimeZone) -> Result<Option<i64>, BillingError> {
    match (at_ms, date) {
        (None, Some(date)) => Ok(Some(midnight_ms(date, zone)?)),
        (at_ms, _) => Ok(at_ms),
    }
}

fn read_reach(row: &AnyRow) -> Result<PhaseProgressRow, BillingError> {
    let optional = |column: &str| -> Result<Option<Date>, BillingError> {
        row.try_get::<Option<String>, _>(column)?.map(read_date).transpose()
    };
    Ok(PhaseProgressRow {
        to: optional("to_date")?,
        base_to: optional("base_to")?,
        usage_to: optional("usage_to")?,
        usage_from_ms: row.try_get("usage_from_ms")?,
        usage_to_ms: row.try_get("usage_to_ms")?,
        usage_charged_to_ms: row.try_get("usage_charged_to_ms")?,
    })
}

fn read_date(text: String) -> Result<Date, BillingError> {
    text.parse::<Date>()
        .map_err(|_| BillingError::corrupt("date of a phase", text))
}

/// A phase with its end, up to where its base price was charged, the end of its usage and up to where that was charged.
pub(crate) type PhaseProgress = (PhaseId, Option<Date>, Option<Date>, Option<i64>, Option<i64>);

/// How far a phase reaches and how far it was charged: its end, up to where its base price was charged, the end of its usage
/// and up to where that was charged. The row has the subscription's `time_zone` beside the phase's columns.
///
/// # Errors
/// When a stored value is not understood.
pub(crate) fn reached(row: &AnyRow) -> Result<PhaseProgress, BillingError> {
    let zone = zone_named(&row.try_get::<String, _>("time_zone")?)?;
    let reach = read_reach(row)?;
    Ok((
        PhaseId(row.try_get("id")?),
        reach.to,
        reach.base_to,
        reach.usage_to_ms(&zone)?,
        reach.usage_charged_to_ms(&zone)?,
    ))
}

fn read_phase(row: &AnyRow) -> Result<PhaseRow, BillingError> {
    Ok(PhaseRow {
        id: PhaseId(row.try_get("id")?),
        subscription: SubscriptionId(row.try_get("subscription_id")?),
        plan: PlanId(row.try_get("plan_id")?),
        price: PriceId(row.try_get("price_id")?),
        quantity: row.try_get("quantity")?,
        anchor: AnchorDay::new(row.try_get("anchor_day")?)?,
        cycle_from: read_date(row.try_get("cycle_from")?)?,
        from: read_date(row.try_get("from_date")?)?,
        reach: read_reach(row)?,
    })
}
