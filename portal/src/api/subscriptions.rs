//! `/api/v1/subscriptions…`, `/api/v1/plans`, `/api/v1/notifications`: a customer's subscriptions with what they are charged
//! next, what is sold to them, and what happened. Amounts are integer minor units beside their currency.

use std::collections::BTreeMap;

use activity::channel::in_app::{self, Notification};
use axum::Json;
use axum::extract::State;
use billing::catalog::{PlanKind, Price};
use billing::invoice::{Draft, next_charge_ms};
use billing::quote::next_charge;
use billing::subscription::{Contract, Phase, SubscriptionState, contracts_of};
use schemas::ids::{NotificationId, PhaseId, PlanId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory;
use schemas::money::Money;
use serde::Serialize;

use super::ApiQuery;
use crate::auth::{Customer, Principal};
use crate::customer::{contract_of, metered_usage};
use crate::error::{ApiError, Failure};
use crate::offers::offers;
use crate::path::Path;
use crate::query::optional;
use crate::state::AppState;

/// Notifications in one answer.
const PAGE_NOTIFICATIONS: i64 = 100;

#[derive(Serialize, utoipa::ToSchema)]
struct PhaseAnswer {
    id: PhaseId,
    plan: PlanId,
    plan_name: String,
    price: PriceId,
    base: Money,
    cycle_months: i64,
    quantity: i64,
    /// Local days, `to` not included.
    from: String,
    to: Option<String>,
}

impl From<&Phase> for PhaseAnswer {
    fn from(phase: &Phase) -> PhaseAnswer {
        PhaseAnswer {
            id: phase.id,
            plan: phase.plan.id,
            plan_name: phase.plan.label(),
            price: phase.price.id,
            base: phase.price.base,
            cycle_months: phase.price.cycle_months,
            quantity: phase.quantity,
            from: phase.from.to_string(),
            to: phase.to.map(|to| to.to_string()),
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
struct SubscriptionAnswer {
    id: SubscriptionId,
    service: ServiceId,
    service_name: String,
    parent: Option<SubscriptionId>,
    state: SubscriptionState,
    time_zone: String,
    started_at_ms: i64,
    trial_ends_at_ms: Option<i64>,
    cancel_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
    coupon: Option<String>,
    next_charge_ms: Option<i64>,
    phases: Vec<PhaseAnswer>,
}

impl SubscriptionAnswer {
    fn new(contract: &Contract, now_ms: i64) -> Result<SubscriptionAnswer, Failure> {
        let subscription = &contract.subscription;
        let next_charge_ms = match subscription.state {
            SubscriptionState::Ended => None,
            _ => next_charge_ms(contract, now_ms)?,
        };
        Ok(SubscriptionAnswer {
            id: subscription.id,
            service: subscription.service,
            service_name: contract.service.name.clone(),
            parent: subscription.parent,
            state: subscription.state,
            time_zone: subscription.time_zone_name().to_owned(),
            started_at_ms: subscription.started_at_ms,
            trial_ends_at_ms: subscription.trial_ends_at_ms,
            cancel_at_ms: subscription.cancel_at_ms,
            ended_at_ms: subscription.ended_at_ms,
            coupon: contract.coupon.as_ref().map(|coupon| coupon.coupon.code.clone()),
            next_charge_ms,
            phases: contract.phases.iter().map(PhaseAnswer::from).collect(),
        })
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SubscriptionsAnswer {
    subscriptions: Vec<SubscriptionAnswer>,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    customer: Customer<Principal>,
) -> Result<Json<SubscriptionsAnswer>, ApiError> {
    let mut connection = state.db().pool().acquire().await?;
    let contracts = contracts_of(&mut connection, customer.id).await?;
    let mut subscriptions = Vec::with_capacity(contracts.len());
    for contract in &contracts {
        subscriptions.push(SubscriptionAnswer::new(contract, state.now_ms())?);
    }
    Ok(Json(SubscriptionsAnswer { subscriptions }))
}

/// The next invoice as known now.
#[derive(Serialize, utoipa::ToSchema)]
struct NextAnswer {
    due_ms: i64,
    subtotal: Money,
    tax: Money,
    total: Money,
}

impl From<Draft> for NextAnswer {
    fn from(draft: Draft) -> NextAnswer {
        NextAnswer {
            due_ms: draft.due_ms,
            subtotal: draft.subtotal,
            tax: draft.tax,
            total: draft.total,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SubscriptionWithNextAnswer {
    #[serde(flatten)]
    subscription: SubscriptionAnswer,
    next_invoice: Option<NextAnswer>,
}

pub(crate) async fn one(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    Path(id): Path<String>,
) -> Result<Json<SubscriptionWithNextAnswer>, ApiError> {
    let mut connection = state.db().pool().acquire().await?;
    let contract = contract_of(&mut connection, customer.id, &id).await?;
    drop(connection);
    let next = match contract.subscription.state {
        SubscriptionState::Ended => None,
        _ => next_charge(state.db(), &metered_usage(&state), &contract, state.now_ms()).await?,
    };
    Ok(Json(SubscriptionWithNextAnswer {
        subscription: SubscriptionAnswer::new(&contract, state.now_ms())?,
        next_invoice: next.map(NextAnswer::from),
    }))
}

#[derive(Serialize, utoipa::ToSchema)]
struct PriceAnswer {
    id: PriceId,
    cycle_months: i64,
    base: Money,
    /// As people type it.
    usage: String,
    saving_percent: Option<i64>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct PlanAnswer {
    id: PlanId,
    name: String,
    description: String,
    service_type: String,
    badge: &'static str,
    is_free: bool,
    stock: Option<i64>,
    trial_days: i64,
    attributes: BTreeMap<String, String>,
    prices: Vec<PriceAnswer>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PlansAnswer {
    plans: Vec<PlanAnswer>,
}

pub(crate) async fn plans(
    State(state): State<AppState>,
    customer: Customer<Principal>,
) -> Result<Json<PlansAnswer>, ApiError> {
    let mut connection = state.db().pool().acquire().await?;
    let currency = inventory::customer(&mut *connection, customer.id).await?.currency;
    let sold = offers(&mut connection, currency, PlanKind::Plan, state.now_ms()).await?;
    let plans = sold.iter().map(|offer| {
        let price = |price: &Price| PriceAnswer {
            id: price.id,
            cycle_months: price.cycle_months,
            base: price.base,
            usage: price.usage.to_string(),
            saving_percent: offer.saving_percent(price),
        };
        PlanAnswer {
            id: offer.plan.id,
            name: offer.plan.name.clone(),
            description: offer.plan.description.clone(),
            service_type: offer.plan.service_type.clone(),
            badge: offer.plan.badge.name(),
            is_free: offer.plan.is_free,
            stock: offer.plan.stock,
            trial_days: offer.plan.trial_days,
            attributes: offer.plan.attributes.clone(),
            prices: offer.prices.iter().map(price).collect(),
        }
    });
    Ok(Json(PlansAnswer { plans: plans.collect() }))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
pub(crate) struct NotificationsQuery {
    /// The last notification of the page before.
    #[serde(default)]
    before: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct NotificationsAnswer {
    unread: i64,
    notifications: Vec<Notification>,
}

pub(crate) async fn notifications(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    ApiQuery(asked): ApiQuery<NotificationsQuery>,
) -> Result<Json<NotificationsAnswer>, ApiError> {
    let before: Option<NotificationId> = optional("before", asked.before.as_deref(), "the id of a notification")?;
    let unread = in_app::unread(state.db().pool(), customer.id).await?;
    let found = in_app::list(state.db().pool(), customer.id, before, PAGE_NOTIFICATIONS).await;
    Ok(Json(NotificationsAnswer {
        unread,
        notifications: found?,
    }))
}
