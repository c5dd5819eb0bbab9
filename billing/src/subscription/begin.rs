//! Beginning: a service is subscribed to the plan of a price.

use activity::event::EventType;
use jiff::ToSpan as _;
use jiff::civil::Date;
use schemas::db::next_id;
use schemas::ids::{CustomerId, PlanId, PriceId, ServiceId, SubscriptionId};
use schemas::period::{AnchorDay, Period, local_date, midnight_ms};
use schemas::window::WindowStart;
use schemas::{identity, inventory};
use serde_json::json;
use sqlx::{AnyConnection, Row as _};

use super::change::{check_plan, check_price};
use super::load::{contract, subscription_of};
use super::write::{NewPhase, insert_phase, record_state, tell};
use super::{Contract, MAX_QUANTITY, Subscription, SubscriptionState, addon};
use crate::BillingError;
use crate::catalog::{self, PlanKind};
use crate::field::check_range;

/// A subscription to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewSubscription<'a> {
    pub service: ServiceId,
    /// Names the plan too; must be in the customer's currency.
    pub price: PriceId,
    pub quantity: i64,
    /// Day of the month on which periods start; `None`: the local day of the start, or the parent's.
    pub anchor_day: Option<i64>,
    pub started_at_ms: i64,
    pub coupon: Option<&'a str>,
    /// Of an add-on: what it is beside.
    pub parent: Option<SubscriptionId>,
    /// Days that are left of a trial which somebody else began; `None`: the plan's own, if the customer had none.
    pub trial_days: Option<i64>,
    /// Since when usage counts; `None`: since it starts, or since the trial is over.
    pub usage_from_ms: Option<i64>,
}

impl NewSubscription<'_> {
    /// One of a plan, from an instant on.
    pub fn new(service: ServiceId, price: PriceId, started_at_ms: i64) -> NewSubscription<'static> {
        NewSubscription {
            service,
            price,
            quantity: 1,
            anchor_day: None,
            started_at_ms,
            coupon: None,
            parent: None,
            trial_days: None,
            usage_from_ms: None,
        }
    }
}

/// Subscribes a service to the plan of a price.
///
/// # Errors
/// When the customer's account was deleted, the service has a subscription already, the plan is archived, sold out or for
/// other services, the price is not in the customer's currency, the coupon is refused, or a number is out of range.
pub async fn subscribe(
    connection: &mut AnyConnection,
    new: NewSubscription<'_>,
    actor: &str,
    now_ms: i64,
) -> Result<Subscription, BillingError> {
    let service = inventory::service(&mut *connection, new.service).await?;
    let customer = inventory::active_customer(&mut *connection, service.customer).await?;
    let price = catalog::price(&mut *connection, new.price).await?;
    let plan = catalog::plan(&mut *connection, price.plan).await?;
    if service.archived_at_ms.is_some() {
        return Err(inventory::InventoryError::Archived(service.id).into());
    }
    check_price(&plan, &price, customer.id, customer.currency)?;
    check_plan(&plan, &price, new.started_at_ms)?;
    check_range("quantity", new.quantity, 1, MAX_QUANTITY)?;
    // The sequence's row lock makes concurrent writers take turns, so that the checks below see them.
    let id = SubscriptionId(next_id(connection, "subscription").await?);
    let existing = subscription_of(&mut *connection, service.id).await?;
    let parent = match (plan.kind, new.parent) {
        (PlanKind::Addon, Some(parent)) => Some(parent_of(connection, parent, service.id).await?),
        (PlanKind::Addon, None) => return Err(BillingError::AddonAlone(plan.id)),
        (_, Some(_)) => return Err(BillingError::NotAnAddon(plan.id)),
        (_, None) => match existing {
            Some(existing) => {
                return Err(BillingError::AlreadySubscribed {
                    service: service.id,
                    subscription: existing.id,
                });
            }
            None => None,
        },
    };
    if plan.is_free {
        check_free(connection, &customer).await?;
        if new.quantity != 1 {
            return Err(BillingError::FreePlanIsOne { subscription: id });
        }
    }
    let coupon = match new.coupon {
        Some(code) => Some(catalog::redeem(connection, code, customer.id, &plan, customer.currency, now_ms).await?),
        None => None,
    };
    catalog::take_from_stock(connection, &plan, new.quantity).await?;

    let zone = parent
        .as_ref()
        .map_or(&customer.time_zone, |parent| &parent.subscription.time_zone);
    let start = local_date(new.started_at_ms, zone)?;
    let trial_days = match new.trial_days.unwrap_or(plan.trial_days) {
        0 => 0,
        _ if !plan.trial_repeats && had_trial(connection, customer.id, plan.id).await? => 0,
        days => days,
    };
    let from = start
        .checked_add(trial_days.days())
        .map_err(|error| BillingError::Period(error.into()))?;
    let trial_ends_at_ms = match trial_days {
        0 => None,
        _ => Some(midnight_ms(from, zone)?),
    };
    let anchor_day = match (new.anchor_day, &parent) {
        (Some(day), _) => day,
        (None, Some(parent)) => parent.last_phase().anchor.get(),
        (None, None) => i64::from(from.day()),
    };
    let anchor = AnchorDay::new(anchor_day)?;
    let subscription = Subscription {
        id,
        customer: customer.id,
        service: service.id,
        parent: parent.as_ref().map(|parent| parent.subscription.id),
        state: if trial_days > 0 {
            SubscriptionState::Trial
        } else {
            SubscriptionState::Active
        },
        time_zone: zone.clone(),
        started_at_ms: new.started_at_ms,
        trial_ends_at_ms,
        cancel_at_ms: None,
        ended_at_ms: None,
        coupon: coupon.as_ref().map(|coupon| coupon.id),
    };
    sqlx::query(
        "INSERT INTO subscriptions (id, customer_id, service_id, parent_id, status, time_zone, started_at_ms, \
         trial_ends_at_ms, coupon_id, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id.0)
    .bind(subscription.customer.0)
    .bind(subscription.service.0)
    .bind(subscription.parent.map(|parent| parent.0))
    .bind(subscription.state.name())
    .bind(subscription.time_zone_name())
    .bind(subscription.started_at_ms)
    .bind(subscription.trial_ends_at_ms)
    .bind(subscription.coupon.map(|coupon| coupon.0))
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    if let Some(coupon) = &coupon {
        let whose = (id, subscription.customer);
        catalog::keep_redemption(connection, coupon, whose, price.cycle_months, now_ms).await?;
    }
    let phase = NewPhase {
        price: &price,
        quantity: new.quantity,
        anchor,
        cycle_from: Period::containing(midnight(from, zone)?, anchor, zone)?.start_date,
        from,
        usage_from_ms: match trial_ends_at_ms {
            Some(_) => None,
            // The window that it starts in counts.
            None => Some(
                new.usage_from_ms
                    .unwrap_or(WindowStart::containing(new.started_at_ms).start_ms()),
            ),
        },
    };
    insert_phase(connection, id, &phase, now_ms).await?;
    record_state(connection, id, None, subscription.state, "subscribed", actor, now_ms).await?;
    let facts = json!({
        "plan": plan.name, "plan_id": plan.id, "price_id": price.id, "quantity": new.quantity,
        "service": service.name, "service_id": service.id, "starts_at_ms": new.started_at_ms,
    });
    tell(connection, &subscription, EventType::SubscriptionCreated, facts, now_ms).await?;
    if let Some(parent) = subscription.parent {
        addon::hold_as_parent(connection, &subscription, parent, actor, now_ms).await?;
    }
    Ok(subscription)
}

/// Whether a customer has had a trial of a plan.
///
/// # Errors
/// As the database answers.
pub async fn had_trial(
    connection: &mut AnyConnection,
    customer: CustomerId,
    plan: PlanId,
) -> Result<bool, BillingError> {
    let had = sqlx::query(
        "SELECT s.id FROM subscriptions s JOIN phases p ON p.subscription_id = s.id \
         AND p.id = (SELECT min(q.id) FROM phases q WHERE q.subscription_id = s.id) \
         WHERE s.customer_id = $1 AND s.trial_ends_at_ms IS NOT NULL AND p.plan_id = $2 LIMIT 1",
    )
    .bind(customer.0)
    .bind(plan.0)
    .fetch_optional(connection)
    .await?;
    Ok(had.is_some())
}

/// F-26: one free plan per account, with a verified email address and a second factor.
async fn check_free(connection: &mut AnyConnection, customer: &inventory::Customer) -> Result<(), BillingError> {
    let refuse = |why| BillingError::FreePlanRefused {
        customer: customer.id,
        why,
    };
    let standing = free_plan_eligibility(connection, customer).await?;
    if !standing.email_verified {
        return Err(refuse("its email address is not verified"));
    }
    if !standing.has_second_factor {
        return Err(refuse("none of its users has a second factor"));
    }
    if standing.has_one {
        return Err(refuse("it has one already"));
    }
    Ok(())
}

/// What a free plan goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreePlanEligibility {
    pub email_verified: bool,
    /// One of the customer's users has.
    pub has_second_factor: bool,
    /// There is one already.
    pub has_one: bool,
}

/// How a customer stands with free plans (F-26).
///
/// # Errors
/// As the database answers.
pub async fn free_plan_eligibility(
    connection: &mut AnyConnection,
    customer: &inventory::Customer,
) -> Result<FreePlanEligibility, BillingError> {
    let factors = identity::users_with_second_factor(&mut *connection, customer.id).await?;
    let others: i64 = sqlx::query(
        "SELECT count(*) FROM subscriptions s JOIN phases p ON p.subscription_id = s.id JOIN plans l ON l.id = p.plan_id \
         WHERE s.customer_id = $1 AND s.status <> 'ended' AND l.is_free = 1",
    )
    .bind(customer.id.0)
    .fetch_one(&mut *connection)
    .await?
    .try_get(0)?;
    Ok(FreePlanEligibility {
        email_verified: customer.email_verified_at_ms.is_some(),
        has_second_factor: factors > 0,
        has_one: others > 0,
    })
}

async fn parent_of(
    connection: &mut AnyConnection,
    parent: SubscriptionId,
    service: ServiceId,
) -> Result<Contract, BillingError> {
    let parent = contract(connection, parent).await?;
    let state = parent.subscription.state;
    if parent.subscription.service != service || parent.subscription.parent.is_some() {
        return Err(BillingError::OtherService {
            subscription: parent.subscription.id,
            service,
        });
    }
    // A suspended one that is cancelled stays suspended: its end tells.
    if matches!(state, SubscriptionState::Cancelled | SubscriptionState::Ended)
        || parent.subscription.cancel_at_ms.is_some()
    {
        return Err(BillingError::Refused {
            subscription: parent.subscription.id,
            what: "given an add-on",
            state,
        });
    }
    if parent.last_phase().plan.is_free {
        return Err(BillingError::FreePlanIsOne {
            subscription: parent.subscription.id,
        });
    }
    Ok(parent)
}

fn midnight(date: Date, zone: &jiff::tz::TimeZone) -> Result<jiff::Timestamp, BillingError> {
    let zoned = date
        .to_zoned(zone.clone())
        .map_err(|error| BillingError::Period(error.into()))?;
    Ok(zoned.timestamp())
}
