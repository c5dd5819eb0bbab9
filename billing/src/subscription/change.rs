//! What can be done to a subscription that there is: changed, cancelled, resumed, held, released, ended.
//!
//! Each function works in the caller's transaction and writes the event that tells of it into the same. Of the base price a
//! change takes the whole local day of `at_ms`; usage until then is by the old terms, and also what ends now was used until
//! now. Usage and arrears that were charged stay charged in the terms they were charged in, so a
//! change cannot reach back before them.
//!
//! Add-ons live and die with their plan ([`super::addon`]): they are cancelled, resumed, held and released with it.

use activity::event::EventType;
use jiff::civil::Date;
use schemas::ids::{CustomerId, PriceId, SubscriptionId};
use schemas::money::Currency;
use schemas::period::{AnchorDay, cycle_words, local_date, midnight_ms};
use serde_json::json;
use sqlx::AnyConnection;

use super::load::{addons_of, contract};
use super::state::{HoldCause, SubscriptionState, Transition};
use super::write::{
    NewPhase, cancel_pending, cycle_start, end_phase, insert_phase, record_state, tell, transition, usage_turn_ms,
};
use super::{Contract, ITSELF, MAX_QUANTITY, addon, hold, pause};
use crate::BillingError;
use crate::catalog::{self, BaseTiming, Plan, PlanKind, Price};
use crate::field::{check_range, checked_text};
use crate::guard;

/// Characters in a reason at most.
pub const MAX_REASON_CHARS: usize = 500;

/// What a subscription is changed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub price: PriceId,
    pub quantity: i64,
}

/// When a subscription ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CancellationTime {
    /// Today: the day is not charged any more.
    Now,
    /// With the cycle that is paid for.
    CycleEnd,
    /// With the local day before this one.
    On(Date),
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
    // While nothing is charged there is no phase to change: it is changed once it is paid for.
    let is_paused = pause::paused_from(connection, subscription).await?.is_some();
    if is_paused
        || matches!(
            subscription.state,
            SubscriptionState::Cancelled | SubscriptionState::Ended
        )
        || subscription.cancel_at_ms.is_some()
    {
        return Err(BillingError::Refused {
            subscription: id,
            what: "changed",
            state: subscription.state,
        });
    }
    apply(connection, &before, change, at_ms, actor, now_ms).await
}

/// Moves a subscription to a new version of its price, from the local day of `at_ms` on, or from when it was charged again
/// since; one that is cancelled too, up to its end, so that the new price holds when the cancellation is taken back.
///
/// # Errors
/// As [`change`].
pub(super) async fn reprice(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    price: PriceId,
    at_ms: i64,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = contract(connection, id).await?;
    let quantity = before.last_phase().quantity;
    let begun_ms = midnight_ms(before.last_phase().from, &before.subscription.time_zone)?;
    let at_ms = at_ms.max(begun_ms);
    apply(connection, &before, Change { price, quantity }, at_ms, actor, now_ms).await
}

async fn apply(
    connection: &mut AnyConnection,
    before: &Contract,
    change: Change,
    at_ms: i64,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let subscription = &before.subscription;
    let id = subscription.id;
    let price = catalog::price(&mut *connection, change.price).await?;
    let plan = catalog::plan(&mut *connection, price.plan).await?;
    check_price(&plan, &price, subscription.customer, before.customer.currency)?;
    check_range("quantity", change.quantity, 1, MAX_QUANTITY)?;
    let old = before.last_phase();
    if plan.is_free && change.quantity != 1 {
        return Err(BillingError::FreePlanIsOne { subscription: id });
    }
    if price.id != old.price.id {
        check_valid(&price, at_ms)?;
    }
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
    let today = local_date(at_ms, &subscription.time_zone)?;
    let date = today.max(before.phases[0].from);
    let turn_ms = if date == today {
        usage_turn_ms(at_ms)
    } else {
        midnight_ms(date, &subscription.time_zone)?
    };
    let turn_ms = turn_ms.max(old.usage_from_ms);
    check_reach(before, date, turn_ms)?;
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
        (old.anchor, cycle_start(old, before, date)?)
    } else {
        (AnchorDay::new(i64::from(date.day()))?, date)
    };
    end_phase(connection, old.id, date, turn_ms).await?;
    let phase = NewPhase {
        price: &price,
        quantity: change.quantity,
        anchor,
        cycle_from,
        from: date,
        usage_from_ms: Some(turn_ms),
    };
    let made = insert_phase(connection, id, &phase, now_ms).await?;
    // Of a cancelled one: it ends when it would have ended.
    if let Some(to) = old.to {
        let usage_to_ms = match old.usage_to_ms {
            Some(at_ms) => at_ms,
            None => midnight_ms(to, &subscription.time_zone)?,
        };
        end_phase(connection, made, to, usage_to_ms.max(turn_ms)).await?;
    }
    // Who changed it is part of its history, though its state stays.
    let what = format!(
        "changed from {} × {} at {} to {} × {} at {} on {date}",
        old.quantity,
        old.plan.name,
        price_words(&old.price),
        change.quantity,
        plan.name,
        price_words(&price)
    );
    let state = subscription.state;
    record_state(connection, id, Some(state), state, &what, actor, now_ms).await?;
    let facts = json!({
        "from_plan": old.plan.name, "from_price_id": old.price.id, "plan": plan.name, "plan_id": plan.id, "price_id": price.id,
        "price": price_words(&price),
        "quantity": change.quantity, "service": before.service.name, "from_date": date.to_string(), "actor": actor,
    });
    tell(connection, subscription, EventType::SubscriptionChanged, facts, now_ms).await
}

/// `EUR 499.80 per 12 months`.
fn price_words(price: &Price) -> String {
    format!("{} per {}", price.base, cycle_words(price.cycle_months))
}

/// Cancels a subscription and its add-ons: it runs to its end, or ends at once.
///
/// # Errors
/// When it is cancelled or ended already, or was charged for later days in arrears.
pub async fn cancel(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    end: CancellationTime,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let how = Cancelling {
        end,
        afterwards: ServiceDisposition::Terminate,
        as_of_ms: now_ms,
        is_with_parent: false,
    };
    cancel_and(connection, id, how, reason, actor, now_ms).await
}

/// As [`cancel`] on a local day, as if it were done at `as_of_ms`: a cancellation that was set for a time takes effect at
/// that time, however late the program gets to it.
///
/// # Errors
/// As [`cancel`].
pub(super) async fn cancel_as_of(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    date: Date,
    as_of_ms: i64,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let how = Cancelling {
        end: CancellationTime::On(date),
        afterwards: ServiceDisposition::Terminate,
        as_of_ms,
        is_with_parent: false,
    };
    cancel_and(connection, id, how, reason, actor, now_ms).await
}

/// What becomes of a service whose subscription ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ServiceDisposition {
    Terminate,
    /// It goes on with another owner.
    Keep,
}

/// How a subscription is cancelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancelling {
    pub(super) end: CancellationTime,
    pub(super) afterwards: ServiceDisposition,
    /// By whose local day the end is not in the past.
    pub(super) as_of_ms: i64,
    /// Of an add-on: its plan is cancelled, and it with that.
    pub(super) is_with_parent: bool,
}

pub(super) async fn cancel_and(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    how: Cancelling,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let Cancelling { end, afterwards, .. } = how;
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    let before = contract(connection, id).await?;
    let subscription = &before.subscription;
    if subscription.cancel_at_ms.is_some() && end != CancellationTime::Now && !how.is_with_parent {
        return Err(BillingError::Refused {
            subscription: id,
            what: "cancelled again",
            state: subscription.state,
        });
    }
    let today = local_date(how.as_of_ms, &subscription.time_zone)?;
    let first = before.phases[0].from;
    // The first day on which it does not run any more, and the first that is not charged: in a trial nothing is.
    let last_day = match end {
        CancellationTime::Now => today,
        CancellationTime::CycleEnd if today < first => first,
        // No cycle is paid for.
        CancellationTime::CycleEnd if pause::paused_from(connection, subscription).await?.is_some() => today,
        CancellationTime::CycleEnd => before.base_period_at(how.as_of_ms)?.1.nominal.end_date,
        CancellationTime::On(date) if date < today => {
            return Err(BillingError::DateOver {
                what: "the end of a subscription",
                date,
                today,
            });
        }
        CancellationTime::On(date) => date,
    };
    let date = last_day.max(first);
    let cancel_at_ms = match end {
        // In the trial too: the first charged day is not reached.
        CancellationTime::Now => how.as_of_ms,
        _ => midnight_ms(last_day, &subscription.time_zone)?,
    };
    // What ends at once, also with a day that is over, is used until then.
    let usage_to_ms = if cancel_at_ms <= how.as_of_ms {
        usage_turn_ms(how.as_of_ms)
    } else {
        cancel_at_ms
    };
    check_reach(&before, date, usage_to_ms)?;
    for phase in before.phases.iter().filter(|phase| phase.to.is_none_or(|to| to > date)) {
        let usage_to_ms = usage_to_ms.max(phase.usage_from_ms);
        end_phase(connection, phase.id, date.max(phase.from), usage_to_ms).await?;
    }
    if how.is_with_parent {
        addon::note_cancelled(connection, subscription).await?;
    }
    if subscription.cancel_at_ms.is_none() {
        transition(connection, subscription, Transition::Cancelled, &reason, actor, now_ms).await?;
    }
    sqlx::query("UPDATE subscriptions SET cancel_at_ms = $1 WHERE id = $2")
        .bind(cancel_at_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let facts = json!({
        "plan": before.last_phase().plan.name, "service": before.service.name, "reason": reason,
        "ends_at_ms": cancel_at_ms, "last_day": last_day.yesterday().map_or(last_day, |day| day).to_string(),
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
        // One that ends before goes its own way.
        if end == CancellationTime::Now || addon.cancel_at_ms.is_none_or(|at_ms| at_ms > cancel_at_ms) {
            let with_parent = Cancelling {
                end: if end == CancellationTime::Now {
                    CancellationTime::Now
                } else {
                    CancellationTime::On(last_day)
                },
                is_with_parent: true,
                ..how
            };
            Box::pin(cancel_and(connection, addon.id, with_parent, &reason, actor, now_ms)).await?;
        }
    }
    if cancel_at_ms <= now_ms {
        reach_end_and(connection, id, afterwards, actor, now_ms).await?;
    }
    Ok(())
}

/// Takes a cancellation back before its end, and with it that of the add-ons that were cancelled along.
///
/// # Errors
/// When it was not cancelled, or has ended; of an add-on, while its plan is cancelled; while billing is stopped.
pub async fn resume(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    guard::check(&mut *connection).await?;
    let before = contract(connection, id).await?;
    let subscription = &before.subscription;
    if subscription.cancel_at_ms.is_none() || subscription.state == SubscriptionState::Ended {
        return Err(BillingError::Refused {
            subscription: id,
            what: "resumed",
            state: subscription.state,
        });
    }
    addon::check_parent_continues(connection, subscription).await?;
    transition(connection, subscription, Transition::Resumed, "resumed", actor, now_ms).await?;
    sqlx::query("UPDATE subscriptions SET cancel_at_ms = NULL WHERE id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let paused_from = pause::paused_from(connection, subscription).await?;
    sqlx::query("UPDATE phases SET to_date = $2, usage_to_ms = NULL WHERE id = $1")
        .bind(before.last_phase().id.0)
        .bind(paused_from.map(|date| date.to_string()))
        .execute(&mut *connection)
        .await?;
    let facts = json!({ "plan": before.last_phase().plan.name, "service": before.service.name });
    tell(connection, subscription, EventType::SubscriptionResumed, facts, now_ms).await?;
    for addon in addons_of(&mut *connection, id).await? {
        if addon::take_back(connection, &addon).await? {
            Box::pin(resume(connection, addon.id, actor, now_ms)).await?;
        }
    }
    Ok(())
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
    reach_end_and(connection, id, ServiceDisposition::Terminate, actor, now_ms).await
}

async fn reach_end_and(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    afterwards: ServiceDisposition,
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
        .after(Transition::EndReached)
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
    cancel_pending(connection, id, "the subscription has ended", now_ms).await?;
    let last = before.last_phase();
    catalog::return_to_stock(connection, last.plan.id, last.quantity).await?;
    for addon in addons_of(&mut *connection, id).await? {
        if addon.cancel_at_ms.is_some_and(|at_ms| at_ms <= end_ms) {
            Box::pin(reach_end_and(connection, addon.id, afterwards, actor, now_ms)).await?;
            continue;
        }
        // All were cancelled along; what was not must not outlive its plan.
        let with_parent = Cancelling {
            end: CancellationTime::Now,
            afterwards,
            as_of_ms: end_ms,
            is_with_parent: true,
        };
        Box::pin(cancel_and(
            connection,
            addon.id,
            with_parent,
            "its plan has ended",
            actor,
            now_ms,
        ))
        .await?;
    }
    let facts = json!({ "plan": last.plan.name, "service": before.service.name, "ended_at_ms": end_ms });
    tell(connection, subscription, EventType::SubscriptionEnded, facts, now_ms).await?;
    if subscription.parent.is_none() && afterwards == ServiceDisposition::Terminate {
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
        Transition::TrialOver,
        "the trial is over",
        ITSELF,
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
    if before.subscription.state.after(Transition::PaymentLate).is_none() {
        return Ok(());
    }
    transition(
        connection,
        &before.subscription,
        Transition::PaymentLate,
        reason,
        ITSELF,
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
        SubscriptionState::PastDue => {
            transition(
                connection,
                &before.subscription,
                Transition::PaidUp,
                "paid",
                ITSELF,
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
        SubscriptionState::Suspended => release(connection, id, HoldCause::Unpaid, ITSELF, now_ms).await,
        _ => Ok(()),
    }
}

/// Places a hold on a subscription and its add-ons: the service is to stop. A second hold of the same cause changes nothing.
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
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    let before = contract(connection, id).await?;
    if hold::is_held(connection, id, cause, false).await? {
        return Ok(());
    }
    let was_running = before.subscription.state != SubscriptionState::Suspended;
    transition(
        connection,
        &before.subscription,
        Transition::HoldPlaced,
        &reason,
        actor,
        now_ms,
    )
    .await?;
    hold::place(connection, id, cause, false, &reason, now_ms).await?;
    addon::hold_all(connection, id, cause, &reason, actor, now_ms).await?;
    pause::follow(connection, id, now_ms).await?;
    if was_running && before.subscription.parent.is_none() {
        let facts = json!({
            "service": before.service.name, "service_id": before.service.id, "cause": cause.name(), "reason": reason,
        });
        tell(
            connection,
            &before.subscription,
            EventType::SubscriptionSuspended,
            facts.clone(),
            now_ms,
        )
        .await?;
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
    if !hold::lift(connection, id, cause, false, now_ms).await? {
        return Ok(());
    }
    pause::follow(connection, id, now_ms).await?;
    addon::release_all(connection, id, cause, actor, now_ms).await?;
    if !hold::holds(connection, id).await?.is_empty() {
        return Ok(());
    }
    let happening = match before.subscription.cancel_at_ms {
        Some(_) => Transition::HoldsLiftedOfCancelled,
        None => Transition::HoldsLifted,
    };
    let reason = format!("{} hold lifted", cause.name());
    transition(connection, &before.subscription, happening, &reason, actor, now_ms).await?;
    if before.subscription.parent.is_none() {
        let facts = json!({ "service": before.service.name, "service_id": before.service.id, "cause": cause.name() });
        // One that is cancelled beside goes on only until its end: it is not as it was.
        if happening == Transition::HoldsLifted {
            tell(
                connection,
                &before.subscription,
                EventType::SubscriptionResumed,
                facts.clone(),
                now_ms,
            )
            .await?;
        }
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

/// Usage and arrears that were charged are done with, and phases follow one another.
fn check_reach(contract: &Contract, date: Date, usage_ms: i64) -> Result<(), BillingError> {
    let refuse = |earliest: Date| BillingError::TooEarly {
        subscription: contract.subscription.id,
        date,
        earliest,
    };
    for phase in &contract.phases {
        let in_arrears = phase.plan.base_timing == BaseTiming::Arrears;
        let done = phase.base_to.filter(|_| in_arrears);
        if let Some(earliest) = done.filter(|&done| date < done) {
            return Err(refuse(earliest));
        }
        if let Some(done_ms) = phase.usage_charged_to_ms.filter(|&done_ms| usage_ms < done_ms) {
            return Err(refuse(local_date(done_ms, &contract.subscription.time_zone)?));
        }
    }
    let last = contract.last_phase();
    if date < last.from {
        return Err(refuse(last.from));
    }
    Ok(())
}

pub(super) fn check_price(
    plan: &Plan,
    price: &Price,
    customer: CustomerId,
    currency: Currency,
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
pub(super) fn check_plan(plan: &Plan, price: &Price, at_ms: i64) -> Result<(), BillingError> {
    if plan.archived_at_ms.is_some_and(|since_ms| since_ms <= at_ms) {
        return Err(BillingError::PlanArchived(plan.id));
    }
    check_valid(price, at_ms)
}

/// Whether a price can be taken at an instant: not before it is valid.
pub(super) fn check_valid(price: &Price, at_ms: i64) -> Result<(), BillingError> {
    if price.valid_from_ms > at_ms {
        return Err(BillingError::PriceNotYet {
            price: price.id,
            valid_from_ms: price.valid_from_ms,
        });
    }
    Ok(())
}
