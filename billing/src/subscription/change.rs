//! What can be done to a subscription: begun, changed, cancelled, resumed, held, released, ended.
//!
//! Each function works in the caller's transaction and writes the event that tells of it into the same. A change takes the
//! whole local day of `at_ms`. Usage and arrears that were charged stay charged in the terms they were charged in, so a
//! change cannot reach back before them.

use jiff::ToSpan as _;
use jiff::civil::Date;
use schemas::db::next_id;
use schemas::ids::{HoldId, PhaseId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory;
use schemas::period::{AnchorDay, Period, local_date, midnight_ms};
use serde_json::json;
use sqlx::{AnyConnection, Row as _};

use super::load::{addons_of, contract, subscription_of};
use super::state::{Happening, HoldCause, State};
use super::{Contract, MAX_QUANTITY, Phase, Subscription};
use crate::BillingError;
use crate::catalog::{self, BaseTiming, Plan, PlanKind, Price};
use crate::event::{self, EventType, NewEvent};

/// Characters in a reason at most.
pub const MAX_REASON_CHARS: usize = 500;

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
        }
    }
}

/// What a subscription is changed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub price: PriceId,
    pub quantity: i64,
}

/// When a subscription ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Today: the day is not charged any more.
    Now,
    /// With the cycle that is paid for.
    CycleEnd,
    /// With the local day before this one.
    On(Date),
}

/// Subscribes a service to the plan of a price.
///
/// # Errors
/// When the service has a subscription already, the plan is archived, sold out or for other services, the price is not in
/// the customer's currency, the coupon is refused, or a number is out of range.
pub async fn subscribe(
    connection: &mut AnyConnection,
    new: NewSubscription<'_>,
    actor: &str,
    now_ms: i64,
) -> Result<Subscription, BillingError> {
    let service = inventory::service(&mut *connection, new.service).await?;
    let customer = inventory::customer(&mut *connection, service.customer).await?;
    let price = catalog::price(&mut *connection, new.price).await?;
    let plan = catalog::plan(&mut *connection, price.plan).await?;
    if service.archived_at_ms.is_some() {
        return Err(inventory::InventoryError::Archived(service.id).into());
    }
    check_price(&plan, &price, customer.id, customer.currency)?;
    check_plan(&plan, &price, new.started_at_ms)?;
    catalog::check_range("quantity", new.quantity, 1, MAX_QUANTITY)?;
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
    }
    let coupon = match new.coupon {
        Some(code) => Some(catalog::redeem(connection, code, plan.id, customer.currency, now_ms).await?),
        None => None,
    };
    catalog::take_from_stock(connection, &plan, new.quantity).await?;

    let zone = parent
        .as_ref()
        .map_or(&customer.time_zone, |parent| &parent.subscription.time_zone);
    let start = local_date(new.started_at_ms, zone)?;
    let from = start
        .checked_add(plan.trial_days.days())
        .map_err(|error| BillingError::Period(error.into()))?;
    let trial_ends_at_ms = match plan.trial_days {
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
        state: if plan.trial_days > 0 {
            State::Trial
        } else {
            State::Active
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
    let phase = NewPhase {
        price: &price,
        quantity: new.quantity,
        anchor,
        cycle_from: Period::containing(midnight(from, zone)?, anchor, zone)?.start_date,
        from,
    };
    insert_phase(connection, id, &phase, now_ms).await?;
    record_state(connection, id, None, subscription.state, "subscribed", actor, now_ms).await?;
    let facts = json!({
        "plan": plan.name, "plan_id": plan.id, "price_id": price.id, "quantity": new.quantity,
        "service": service.name, "service_id": service.id, "starts_at_ms": new.started_at_ms,
    });
    tell(connection, &subscription, EventType::SubscriptionCreated, facts, now_ms).await?;
    Ok(subscription)
}

/// Changes plan, price, cycle or quantity, from the local day of `at_ms` on. A cycle of other length starts on that day;
/// with one of the same length periods go on as they were.
///
/// # Errors
/// When the subscription is cancelled or ended, was changed or charged for later days, or the new terms are not to be had.
pub async fn change(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    change: Change,
    at_ms: i64,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    let subscription = &before.subscription;
    if matches!(subscription.state, State::Cancelled | State::Ended) || subscription.cancel_at_ms.is_some() {
        return Err(BillingError::Refused {
            subscription: id,
            what: "changed",
            state: subscription.state,
        });
    }
    let price = catalog::price(&mut *connection, change.price).await?;
    let plan = catalog::plan(&mut *connection, price.plan).await?;
    check_price(&plan, &price, subscription.customer, before.customer.currency)?;
    catalog::check_range("quantity", change.quantity, 1, MAX_QUANTITY)?;
    let old = before.last_phase();
    if plan.id != old.plan.id {
        check_plan(&plan, &price, at_ms)?;
        if old.plan.is_free || plan.is_free {
            return Err(BillingError::FreePlanFixed(id));
        }
        if (plan.kind == PlanKind::Addon) != (old.plan.kind == PlanKind::Addon) {
            return Err(BillingError::NotAnAddon(plan.id));
        }
        if plan.service_type != old.plan.service_type {
            return Err(BillingError::OtherServiceType {
                plan: plan.id,
                offers: plan.service_type.clone(),
                service: old.plan.service_type.clone(),
            });
        }
    }
    if price.id == old.price.id && change.quantity == old.quantity {
        return Err(BillingError::NothingChanges(id));
    }
    // In a trial the first day that is charged is the first that anything can change.
    let date = local_date(at_ms, &subscription.time_zone)?.max(before.phases[0].from);
    check_reach(&before, date)?;
    if plan.id == old.plan.id {
        let more = change.quantity - old.quantity;
        if more > 0 {
            catalog::take_from_stock(connection, &plan, more).await?;
        } else {
            catalog::return_to_stock(connection, plan.id, -more).await?;
        }
    } else {
        catalog::take_from_stock(connection, &plan, change.quantity).await?;
        catalog::return_to_stock(connection, old.plan.id, old.quantity).await?;
    }
    let (anchor, cycle_from) = if price.cycle_months == old.price.cycle_months {
        (old.anchor, cycle_start(old, &before, date)?)
    } else {
        (AnchorDay::new(i64::from(date.day()))?, date)
    };
    end_phase(connection, old.id, date).await?;
    let phase = NewPhase {
        price: &price,
        quantity: change.quantity,
        anchor,
        cycle_from,
        from: date,
    };
    insert_phase(connection, id, &phase, now_ms).await?;
    let facts = json!({
        "from_plan": old.plan.name, "from_price_id": old.price.id, "plan": plan.name, "plan_id": plan.id, "price_id": price.id,
        "quantity": change.quantity, "service": before.service.name, "from_date": date.to_string(), "actor": actor,
    });
    tell(connection, subscription, EventType::SubscriptionChanged, facts, now_ms).await
}

/// Cancels a subscription and its add-ons: it runs to its end, or ends at once.
///
/// # Errors
/// When it is cancelled or ended already, or was charged for later days in arrears.
pub async fn cancel(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    end: End,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    cancel_and(connection, id, end, Afterwards::Terminate, reason, actor, now_ms).await
}

/// What becomes of a service whose subscription ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Afterwards {
    Terminate,
    /// It goes on with another owner.
    Keep,
}

pub(super) async fn cancel_and(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    end: End,
    afterwards: Afterwards,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let reason = catalog::checked_text("reason", reason, MAX_REASON_CHARS)?;
    let before = contract(connection, id).await?;
    let subscription = &before.subscription;
    if subscription.cancel_at_ms.is_some() && end != End::Now {
        return Err(BillingError::Refused {
            subscription: id,
            what: "cancelled again",
            state: subscription.state,
        });
    }
    let today = local_date(now_ms, &subscription.time_zone)?;
    let first = before.phases[0].from;
    let date = match end {
        End::Now => today.max(first),
        End::CycleEnd if today < first => first,
        End::CycleEnd => before.base_period_at(now_ms)?.1.nominal.end_date,
        End::On(date) => date.max(today).max(first),
    };
    check_reach(&before, date)?;
    for phase in before.phases.iter().filter(|phase| phase.to.is_none_or(|to| to > date)) {
        end_phase(connection, phase.id, date.max(phase.from)).await?;
    }
    let cancel_at_ms = match end {
        // In the trial too: the first charged day is not reached.
        End::Now => now_ms,
        _ => midnight_ms(date, &subscription.time_zone)?,
    };
    if subscription.cancel_at_ms.is_none() {
        transition(connection, subscription, Happening::Cancelled, &reason, actor, now_ms).await?;
    }
    sqlx::query("UPDATE subscriptions SET cancel_at_ms = $1 WHERE id = $2")
        .bind(cancel_at_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let facts = json!({
        "plan": before.last_phase().plan.name, "service": before.service.name, "reason": reason,
        "ends_at_ms": cancel_at_ms, "last_day": date.yesterday().map_or(date, |day| day).to_string(),
    });
    tell(
        connection,
        subscription,
        EventType::SubscriptionCancelled,
        facts,
        now_ms,
    )
    .await?;
    for addon in addons_of(&mut *connection, id).await? {
        if addon.cancel_at_ms.is_none() || end == End::Now {
            let end = if end == End::Now { End::Now } else { End::On(date) };
            Box::pin(cancel_and(
                connection, addon.id, end, afterwards, &reason, actor, now_ms,
            ))
            .await?;
        }
    }
    if cancel_at_ms <= now_ms {
        reach_end_and(connection, id, afterwards, actor, now_ms).await?;
    }
    Ok(())
}

/// Takes a cancellation back before its end.
///
/// # Errors
/// When it was not cancelled, or has ended.
pub async fn resume(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    let subscription = &before.subscription;
    if subscription.cancel_at_ms.is_none() || subscription.state == State::Ended {
        return Err(BillingError::Refused {
            subscription: id,
            what: "resumed",
            state: subscription.state,
        });
    }
    transition(connection, subscription, Happening::Resumed, "resumed", actor, now_ms).await?;
    sqlx::query("UPDATE subscriptions SET cancel_at_ms = NULL WHERE id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE phases SET to_date = NULL WHERE id = $1")
        .bind(before.last_phase().id.0)
        .execute(&mut *connection)
        .await?;
    let facts = json!({ "plan": before.last_phase().plan.name, "service": before.service.name });
    tell(connection, subscription, EventType::SubscriptionResumed, facts, now_ms).await
}

/// Ends a cancelled subscription whose end has come.
///
/// # Errors
/// When it was not cancelled or its end has not come.
pub(crate) async fn reach_end(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    reach_end_and(connection, id, Afterwards::Terminate, actor, now_ms).await
}

async fn reach_end_and(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    afterwards: Afterwards,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    let subscription = &before.subscription;
    let Some(end_ms) = subscription.cancel_at_ms.filter(|&end_ms| end_ms <= now_ms) else {
        return Err(BillingError::Refused {
            subscription: id,
            what: "ended",
            state: subscription.state,
        });
    };
    let to = subscription
        .state
        .after(Happening::EndReached)
        .ok_or(BillingError::Refused {
            subscription: id,
            what: "ended",
            state: subscription.state,
        })?;
    sqlx::query("UPDATE subscriptions SET status = $1, ended_at_ms = $2 WHERE id = $3")
        .bind(to.name())
        .bind(end_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    record_state(
        connection,
        id,
        Some(subscription.state),
        to,
        "its end was reached",
        actor,
        now_ms,
    )
    .await?;
    sqlx::query("UPDATE holds SET lifted_at_ms = $1 WHERE subscription_id = $2 AND lifted_at_ms IS NULL")
        .bind(now_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    super::schedule::cancel_all_of(connection, id, "the subscription has ended", now_ms).await?;
    let last = before.last_phase();
    catalog::return_to_stock(connection, last.plan.id, last.quantity).await?;
    let facts = json!({ "plan": last.plan.name, "service": before.service.name, "ended_at_ms": end_ms });
    tell(connection, subscription, EventType::SubscriptionEnded, facts, now_ms).await?;
    if subscription.parent.is_none() && afterwards == Afterwards::Terminate {
        let facts =
            json!({ "service": before.service.name, "service_id": before.service.id, "reason": "subscription ended" });
        tell(connection, subscription, EventType::TerminateRequested, facts, now_ms).await?;
    }
    Ok(())
}

/// Notes that the trial is over.
///
/// # Errors
/// When it is not in a trial.
pub(crate) async fn end_trial(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    transition(
        connection,
        &before.subscription,
        Happening::TrialOver,
        "the trial is over",
        "billing",
        now_ms,
    )
    .await?;
    let facts = json!({ "plan": before.last_phase().plan.name, "service": before.service.name });
    tell(
        connection,
        &before.subscription,
        EventType::SubscriptionActivated,
        facts,
        now_ms,
    )
    .await
}

/// Notes that an invoice is overdue. Where the state does not know it (in a trial, when suspended) nothing changes.
///
/// # Errors
/// As the database answers.
pub async fn payment_late(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    if before.subscription.state.after(Happening::PaymentLate).is_none() {
        return Ok(());
    }
    transition(
        connection,
        &before.subscription,
        Happening::PaymentLate,
        reason,
        "billing",
        now_ms,
    )
    .await?;
    let facts = json!({ "plan": before.last_phase().plan.name, "service": before.service.name, "reason": reason });
    tell(
        connection,
        &before.subscription,
        EventType::SubscriptionPastDue,
        facts,
        now_ms,
    )
    .await
}

/// Notes that nothing is overdue any more, and lifts what was held for it.
///
/// # Errors
/// As the database answers.
pub async fn paid_up(connection: &mut AnyConnection, id: SubscriptionId, now_ms: i64) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    match before.subscription.state {
        State::PastDue => {
            transition(
                connection,
                &before.subscription,
                Happening::PaidUp,
                "paid",
                "billing",
                now_ms,
            )
            .await?;
            let facts = json!({ "plan": before.last_phase().plan.name, "service": before.service.name });
            tell(
                connection,
                &before.subscription,
                EventType::SubscriptionActivated,
                facts,
                now_ms,
            )
            .await
        }
        State::Suspended => release(connection, id, HoldCause::Unpaid, "billing", now_ms).await,
        _ => Ok(()),
    }
}

/// Places a hold: the service is to stop. A second hold of the same cause changes nothing.
///
/// # Errors
/// When the subscription has ended.
pub async fn hold(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    cause: HoldCause,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let reason = catalog::checked_text("reason", reason, MAX_REASON_CHARS)?;
    let before = contract(connection, id).await?;
    let held = holds(connection, id).await?;
    if held.contains(&cause) {
        return Ok(());
    }
    let was_running = before.subscription.state != State::Suspended;
    transition(
        connection,
        &before.subscription,
        Happening::HoldPlaced,
        &reason,
        actor,
        now_ms,
    )
    .await?;
    let hold = HoldId(next_id(connection, "hold").await?);
    sqlx::query("INSERT INTO holds (id, subscription_id, cause, reason, placed_at_ms) VALUES ($1, $2, $3, $4, $5)")
        .bind(hold.0)
        .bind(id.0)
        .bind(cause.name())
        .bind(&reason)
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    if was_running && before.subscription.parent.is_none() {
        let facts = json!({
            "service": before.service.name, "service_id": before.service.id, "cause": cause.name(), "reason": reason,
        });
        tell(
            connection,
            &before.subscription,
            EventType::SuspendRequested,
            facts,
            now_ms,
        )
        .await?;
    }
    Ok(())
}

/// Lifts a hold; with the last one the service goes on. Without such a hold nothing changes.
///
/// # Errors
/// As the database answers.
pub async fn release(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    cause: HoldCause,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    let lifted = sqlx::query(
        "UPDATE holds SET lifted_at_ms = $1 WHERE subscription_id = $2 AND cause = $3 AND lifted_at_ms IS NULL",
    )
    .bind(now_ms)
    .bind(id.0)
    .bind(cause.name())
    .execute(&mut *connection)
    .await?;
    if lifted.rows_affected() == 0 || !holds(connection, id).await?.is_empty() {
        return Ok(());
    }
    let happening = match before.subscription.cancel_at_ms {
        Some(_) => Happening::HoldsLiftedOfCancelled,
        None => Happening::HoldsLifted,
    };
    let reason = format!("{} hold lifted", cause.name());
    transition(connection, &before.subscription, happening, &reason, actor, now_ms).await?;
    if before.subscription.parent.is_none() {
        let facts = json!({ "service": before.service.name, "service_id": before.service.id, "cause": cause.name() });
        tell(
            connection,
            &before.subscription,
            EventType::UnsuspendRequested,
            facts,
            now_ms,
        )
        .await?;
    }
    Ok(())
}

/// The causes for which a subscription is held now.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn holds(connection: &mut AnyConnection, id: SubscriptionId) -> Result<Vec<HoldCause>, BillingError> {
    let rows = sqlx::query("SELECT cause FROM holds WHERE subscription_id = $1 AND lifted_at_ms IS NULL ORDER BY id")
        .bind(id.0)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| row.try_get::<String, _>(0)?.parse()).collect()
}

/// The start of the cycle of a phase that a day lies in.
fn cycle_start(phase: &Phase, contract: &Contract, date: Date) -> Result<Date, BillingError> {
    let whole = Phase {
        to: None,
        ..phase.clone()
    };
    let mut periods = whole.base_periods(&contract.subscription.time_zone);
    while let Some(charged) = periods.next_period()? {
        if date < charged.nominal.end_date {
            return Ok(charged.nominal.start_date);
        }
    }
    Ok(date)
}

/// Usage and arrears that were charged are done with, and phases follow one another.
fn check_reach(contract: &Contract, date: Date) -> Result<(), BillingError> {
    let refuse = |earliest: Date| BillingError::TooEarly {
        subscription: contract.subscription.id,
        date,
        earliest,
    };
    for phase in &contract.phases {
        let in_arrears = phase.plan.base_timing == BaseTiming::Arrears;
        let done = phase.usage_to.max(phase.base_to.filter(|_| in_arrears));
        if let Some(earliest) = done.filter(|&done| date < done) {
            return Err(refuse(earliest));
        }
    }
    let last = contract.last_phase();
    if date < last.from {
        return Err(refuse(last.from));
    }
    Ok(())
}

fn check_price(
    plan: &Plan,
    price: &Price,
    customer: schemas::ids::CustomerId,
    currency: schemas::money::Currency,
) -> Result<(), BillingError> {
    debug_assert_eq!(plan.id, price.plan);
    if price.currency() != currency {
        return Err(BillingError::CurrencyMismatch {
            customer,
            pays: currency,
            price: price.currency(),
        });
    }
    Ok(())
}

/// Whether somebody new can subscribe at an instant.
fn check_plan(plan: &Plan, price: &Price, at_ms: i64) -> Result<(), BillingError> {
    if plan.archived_at_ms.is_some_and(|since_ms| since_ms <= at_ms) {
        return Err(BillingError::PlanArchived(plan.id));
    }
    if price.valid_from_ms > at_ms {
        return Err(BillingError::PriceNotYet {
            price: price.id,
            valid_from_ms: price.valid_from_ms,
        });
    }
    Ok(())
}

/// F-26: one free plan per account, with a verified email address and a second factor.
async fn check_free(connection: &mut AnyConnection, customer: &inventory::Customer) -> Result<(), BillingError> {
    let refuse = |why| BillingError::FreePlanRefused {
        customer: customer.id,
        why,
    };
    if customer.email_verified_at_ms.is_none() {
        return Err(refuse("its email address is not verified"));
    }
    let count = |sql: &'static str| sqlx::query(sql).bind(customer.id.0);
    let factors: i64 = count(
        "SELECT count(*) FROM users WHERE customer_id = $1 AND disabled_at_ms IS NULL AND two_factor_at_ms IS NOT NULL",
    )
    .fetch_one(&mut *connection)
    .await?
    .try_get(0)?;
    if factors == 0 {
        return Err(refuse("none of its users has a second factor"));
    }
    let others: i64 = count(
        "SELECT count(*) FROM subscriptions s JOIN phases p ON p.subscription_id = s.id JOIN plans l ON l.id = p.plan_id \
         WHERE s.customer_id = $1 AND s.status <> 'ended' AND l.is_free = 1",
    )
    .fetch_one(&mut *connection)
    .await?
    .try_get(0)?;
    if others > 0 {
        return Err(refuse("it has one already"));
    }
    Ok(())
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
    if matches!(state, State::Cancelled | State::Ended) {
        return Err(BillingError::Refused {
            subscription: parent.subscription.id,
            what: "given an add-on",
            state,
        });
    }
    Ok(parent)
}

/// A phase to be made.
struct NewPhase<'a> {
    price: &'a Price,
    quantity: i64,
    anchor: AnchorDay,
    cycle_from: Date,
    from: Date,
}

async fn insert_phase(
    connection: &mut AnyConnection,
    subscription: SubscriptionId,
    new: &NewPhase<'_>,
    now_ms: i64,
) -> Result<PhaseId, BillingError> {
    let id = PhaseId(next_id(connection, "phase").await?);
    sqlx::query(
        "INSERT INTO phases (id, subscription_id, plan_id, price_id, quantity, anchor_day, cycle_from, from_date, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id.0)
    .bind(subscription.0)
    .bind(new.price.plan.0)
    .bind(new.price.id.0)
    .bind(new.quantity)
    .bind(new.anchor.get())
    .bind(new.cycle_from.to_string())
    .bind(new.from.to_string())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(id)
}

async fn end_phase(connection: &mut AnyConnection, id: PhaseId, to: Date) -> Result<(), BillingError> {
    sqlx::query("UPDATE phases SET to_date = $1 WHERE id = $2")
        .bind(to.to_string())
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves a subscription to the state that follows, and records it.
async fn transition(
    connection: &mut AnyConnection,
    subscription: &Subscription,
    happening: Happening,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let refused = BillingError::NoTransition {
        subscription: subscription.id,
        state: subscription.state,
        happening,
    };
    let to = subscription.state.after(happening).ok_or(refused)?;
    let moved = sqlx::query("UPDATE subscriptions SET status = $1 WHERE id = $2 AND status = $3")
        .bind(to.name())
        .bind(subscription.id.0)
        .bind(subscription.state.name())
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() == 0 {
        return Err(BillingError::ChangedMeanwhile(subscription.id));
    }
    record_state(
        connection,
        subscription.id,
        Some(subscription.state),
        to,
        reason,
        actor,
        now_ms,
    )
    .await
}

async fn record_state(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    from: Option<State>,
    to: State,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let event = next_id(connection, "subscription_event").await?;
    sqlx::query(
        "INSERT INTO subscription_events (id, subscription_id, from_status, to_status, reason, actor, at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(event)
    .bind(id.0)
    .bind(from.map_or("", State::name))
    .bind(to.name())
    .bind(reason)
    .bind(actor)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn tell(
    connection: &mut AnyConnection,
    subscription: &Subscription,
    event_type: EventType,
    payload: serde_json::Value,
    now_ms: i64,
) -> Result<(), BillingError> {
    let new = NewEvent {
        event_type,
        customer: Some(subscription.customer),
        subject: subscription.id.to_string(),
        payload,
    };
    event::publish(connection, new, now_ms).await?;
    Ok(())
}

fn midnight(date: Date, zone: &jiff::tz::TimeZone) -> Result<jiff::Timestamp, BillingError> {
    let zoned = date
        .to_zoned(zone.clone())
        .map_err(|error| BillingError::Period(error.into()))?;
    Ok(zoned.timestamp())
}
