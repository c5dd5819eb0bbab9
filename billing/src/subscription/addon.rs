//! Add-ons live and die with the plan that they are beside.
//!
//! | the plan is | its add-ons are |
//! |---|---|
//! | cancelled | cancelled to the same end; one that ends before keeps its own |
//! | resumed | resumed, if they were cancelled along; one that had been cancelled by itself gets its own end back |
//! | ended | ended |
//! | suspended, released | held for the same cause, and released with it; their own holds stay theirs |
//! | transferred | begun again beside the new owner's plan, but for those that were cancelled |
//!
//! An add-on is not begun beside a plan that is cancelled, and not resumed before its plan is.

use schemas::ids::SubscriptionId;
use schemas::period::local_date;
use sqlx::{AnyConnection, Row as _};

use super::hold::{holds, is_held, lift, place};
use super::load::{addons_of, contract, subscription};
use super::state::{HoldCause, SubscriptionState, Transition};
use super::write::{end_phase, transition};
use super::{Subscription, pause};
use crate::BillingError;

/// Notes that an add-on is cancelled with its plan, and the end that it had before, if any.
///
/// # Errors
/// As the database answers.
pub(super) async fn note_cancelled(connection: &mut AnyConnection, addon: &Subscription) -> Result<(), BillingError> {
    sqlx::query(
        "UPDATE subscriptions SET cancelled_with_parent = 1, own_cancel_at_ms = cancel_at_ms \
         WHERE id = $1 AND cancelled_with_parent = 0",
    )
    .bind(addon.id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// After its plan was resumed: true where the add-on is to be resumed too. One that had been cancelled by itself before gets
/// that end back.
///
/// # Errors
/// As the database answers.
pub(super) async fn take_back(connection: &mut AnyConnection, addon: &Subscription) -> Result<bool, BillingError> {
    let row = sqlx::query("SELECT own_cancel_at_ms FROM subscriptions WHERE id = $1 AND cancelled_with_parent = 1")
        .bind(addon.id.0)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(false) };
    let own_ms: Option<i64> = row.try_get(0)?;
    sqlx::query(
        "UPDATE subscriptions SET cancelled_with_parent = 0, own_cancel_at_ms = NULL, \
         cancel_at_ms = coalesce(own_cancel_at_ms, cancel_at_ms) WHERE id = $1",
    )
    .bind(addon.id.0)
    .execute(&mut *connection)
    .await?;
    let Some(own_ms) = own_ms else { return Ok(true) };
    if pause::paused_from(&mut *connection, addon).await?.is_some() {
        // Its phase has ended; the end holds when it goes on.
        return Ok(false);
    }
    let last = contract(&mut *connection, addon.id).await?.last_phase().clone();
    let to = local_date(own_ms, &addon.time_zone)?;
    let usage_to_ms = own_ms.max(last.usage_from_ms);
    end_phase(connection, last.id, to.max(last.from), usage_to_ms).await?;
    Ok(false)
}

/// Whether an add-on can be resumed: not while its plan is cancelled. A plan always can.
///
/// # Errors
/// [`BillingError::ParentCancelled`].
pub(super) async fn check_parent_continues(
    connection: &mut AnyConnection,
    resumed: &Subscription,
) -> Result<(), BillingError> {
    let Some(parent) = resumed.parent else {
        return Ok(());
    };
    let parent = subscription(connection, parent).await?;
    if parent.cancel_at_ms.is_some() || parent.state == SubscriptionState::Ended {
        return Err(BillingError::ParentCancelled {
            addon: resumed.id,
            parent: parent.id,
        });
    }
    Ok(())
}

/// Holds what is beside a plan for the cause that the plan is held for.
///
/// # Errors
/// As the database answers.
pub(super) async fn hold_all(
    connection: &mut AnyConnection,
    parent: SubscriptionId,
    cause: HoldCause,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    for addon in addons_of(&mut *connection, parent).await? {
        hold(connection, &addon, cause, reason, actor, now_ms).await?;
    }
    Ok(())
}

/// Holds an add-on that was begun beside a plan that is held.
///
/// # Errors
/// As the database answers.
pub(super) async fn hold_as_parent(
    connection: &mut AnyConnection,
    addon: &Subscription,
    parent: SubscriptionId,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    for cause in holds(connection, parent).await? {
        let addon = subscription(&mut *connection, addon.id).await?;
        hold(connection, &addon, cause, "its plan is suspended", actor, now_ms).await?;
    }
    Ok(())
}

async fn hold(
    connection: &mut AnyConnection,
    addon: &Subscription,
    cause: HoldCause,
    reason: &str,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    if is_held(connection, addon.id, cause, true).await? {
        return Ok(());
    }
    transition(connection, addon, Transition::HoldPlaced, reason, actor, now_ms).await?;
    place(connection, addon.id, cause, true, reason, now_ms).await?;
    pause::follow(connection, addon.id, now_ms).await
}

/// Releases what was held with a plan.
///
/// # Errors
/// As the database answers.
pub(super) async fn release_all(
    connection: &mut AnyConnection,
    parent: SubscriptionId,
    cause: HoldCause,
    actor: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    for addon in addons_of(&mut *connection, parent).await? {
        if !lift(connection, addon.id, cause, true, now_ms).await? {
            continue;
        }
        pause::follow(connection, addon.id, now_ms).await?;
        if holds(connection, addon.id).await?.is_empty() {
            let happening = match addon.cancel_at_ms {
                Some(_) => Transition::HoldsLiftedOfCancelled,
                None => Transition::HoldsLifted,
            };
            let reason = format!("{} hold of its plan lifted", cause.name());
            transition(connection, &addon, happening, &reason, actor, now_ms).await?;
        }
    }
    Ok(())
}
