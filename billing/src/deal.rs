//! Deals (F-28): what was agreed with one customer, recorded with its components and billed through a private plan.
//!
//! Nothing is provisioned from here. A deal makes, in one transaction, a service, a private plan whose attributes are its
//! components, a price, and the subscription that charges it.

use rust_decimal::Decimal;
use schemas::db::next_id;
use schemas::ids::{CustomerId, DealId, SubscriptionId};
use schemas::inventory::{self, NewService};
use schemas::money::{Money, MoneyError};
use schemas::text::is_plain;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;
use crate::catalog::{self, Attributes, MAX_ATTRIBUTE_CHARS, MAX_PLAN_NAME_CHARS, NewPlan, NewPrice, PlanKind, Terms};
use crate::field::{check_range, checked_text, named};
use crate::price::UsagePrice;
use crate::subscription::{NewSubscription, subscribe};

/// Components of one deal at most.
pub const MAX_COMPONENTS: usize = 30;
/// Units of one component at most.
pub const MAX_COMPONENT_QUANTITY: i64 = 10_000;
/// Characters in the agreement at most.
pub const MAX_AGREEMENT_CHARS: usize = 4_000;

/// What a component is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    LoadBalancer,
    Server,
    SharedStorage,
    Failover,
    Other,
}

named!(ComponentKind, "kind of component", LoadBalancer => "load_balancer", Server => "server",
    SharedStorage => "shared_storage", Failover => "failover", Other => "other");

impl ComponentKind {
    pub const ALL: [ComponentKind; 5] = [
        ComponentKind::LoadBalancer,
        ComponentKind::Server,
        ComponentKind::SharedStorage,
        ComponentKind::Failover,
        ComponentKind::Other,
    ];

    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            ComponentKind::LoadBalancer => "Load balancer",
            ComponentKind::Server => "Server",
            ComponentKind::SharedStorage => "Shared storage",
            ComponentKind::Failover => "Failover",
            ComponentKind::Other => "Other",
        }
    }
}

/// A part of what was agreed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Component {
    pub kind: ComponentKind,
    /// `32 cores, 256 GB`.
    pub description: String,
    pub quantity: i64,
    /// Of one, per month.
    pub monthly_minor: i64,
}

/// A deal to be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewDeal<'a> {
    pub customer: CustomerId,
    /// Of the deal, its service and its plan.
    pub name: &'a str,
    /// Where it is written down, and what was agreed beside the components.
    pub agreement: &'a str,
    pub service_type: &'a str,
    pub components: &'a [Component],
    pub cycle_months: i64,
    /// When it starts to be charged, in advance.
    pub started_at_ms: i64,
}

/// A deal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Deal {
    pub id: DealId,
    pub customer: CustomerId,
    pub name: String,
    pub agreement: String,
    pub components: Vec<Component>,
    pub subscription: SubscriptionId,
    pub created_by: String,
    pub created_at_ms: i64,
}

const SELECT: &str =
    "SELECT id, customer_id, name, agreement, components, subscription_id, created_by, created_at_ms FROM deals";

/// What the components cost for a cycle, in the customer's currency.
///
/// # Errors
/// When it does not fit.
fn base_of(components: &[Component], cycle_months: i64) -> Result<i64, MoneyError> {
    let mut month = 0i64;
    for component in components {
        let cost = component.quantity.checked_mul(component.monthly_minor);
        month = cost
            .and_then(|cost| month.checked_add(cost))
            .ok_or(MoneyError::Overflow)?;
    }
    month.checked_mul(cycle_months).ok_or(MoneyError::Overflow)
}

/// Records a deal, and makes what bills it.
///
/// # Errors
/// When there is no such customer, or a field is out of range.
pub async fn record(
    connection: &mut AnyConnection,
    new: NewDeal<'_>,
    actor: &str,
    now_ms: i64,
) -> Result<Deal, BillingError> {
    let name = checked_text("name of a deal", new.name, MAX_PLAN_NAME_CHARS)?;
    let agreement = new.agreement.trim();
    let is_text = |c: char| is_plain(c) || c == '\n' || c == '\r';
    if agreement.is_empty() || agreement.chars().count() > MAX_AGREEMENT_CHARS || !agreement.chars().all(is_text) {
        return Err(BillingError::Text {
            field: "agreement",
            max: MAX_AGREEMENT_CHARS,
            text: new.agreement.to_owned(),
        });
    }
    let count = i64::try_from(new.components.len()).unwrap_or(i64::MAX);
    let most = i64::try_from(MAX_COMPONENTS).unwrap_or(i64::MAX);
    check_range("number of components", count, 1, most)?;
    let mut attributes = Attributes::new();
    for (position, component) in (1..).zip(new.components) {
        checked_text("component", &component.description, MAX_ATTRIBUTE_CHARS)?;
        check_range("quantity of a component", component.quantity, 1, MAX_COMPONENT_QUANTITY)?;
        check_range(
            "price of a component in minor units",
            component.monthly_minor,
            0,
            catalog::MAX_BASE_MINOR,
        )?;
        let what = format!("{position:02} {}", component.kind.words());
        let text = format!("{} × {}", component.quantity, component.description.trim());
        attributes.insert(what, text.chars().take(MAX_ATTRIBUTE_CHARS).collect());
    }
    let customer = inventory::customer(&mut *connection, new.customer).await?;
    let base = Money::new(base_of(new.components, new.cycle_months)?, customer.currency);
    let service = NewService {
        customer: customer.id,
        name: &name,
        service_type: new.service_type,
        site: None,
    };
    let service = inventory::create_service(connection, service, now_ms).await?;
    let plan = NewPlan {
        kind: PlanKind::Private,
        attributes,
        ..NewPlan::new(&name, &service.service_type, Terms::Flat)
    };
    let plan = catalog::create_plan(connection, plan, now_ms).await?;
    let price = NewPrice {
        plan: plan.id,
        cycle_months: new.cycle_months,
        base,
        usage: UsagePrice::PerUnit { rate: Decimal::ZERO },
        valid_from_ms: new.started_at_ms.min(now_ms),
    };
    let price = catalog::add_price(connection, price).await?;
    let subscription = NewSubscription::new(service.id, price.id, new.started_at_ms);
    let subscription = subscribe(connection, subscription, actor, now_ms).await?;
    let deal = Deal {
        id: DealId(next_id(connection, "deal").await?),
        customer: customer.id,
        name,
        agreement: agreement.to_owned(),
        components: new.components.to_vec(),
        subscription: subscription.id,
        created_by: actor.to_owned(),
        created_at_ms: now_ms,
    };
    sqlx::query(
        "INSERT INTO deals (id, customer_id, name, agreement, components, subscription_id, created_by, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(deal.id.0)
    .bind(deal.customer.0)
    .bind(&deal.name)
    .bind(&deal.agreement)
    .bind(serde_json::to_string(&deal.components)?)
    .bind(deal.subscription.0)
    .bind(&deal.created_by)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(deal)
}

/// Every deal, latest first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn deals(db: impl AnyExecutor<'_>) -> Result<Vec<Deal>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id DESC"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Deal, BillingError> {
    let components: String = row.try_get("components")?;
    Ok(Deal {
        id: DealId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        name: row.try_get("name")?,
        agreement: row.try_get("agreement")?,
        components: serde_json::from_str(&components).map_err(|_| BillingError::corrupt("components", components))?,
        subscription: SubscriptionId(row.try_get("subscription_id")?),
        created_by: row.try_get("created_by")?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}
