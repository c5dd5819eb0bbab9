//! What somebody is about to do, as the rules look at it: with its size, and what counts together with it. Parts of one action within
//! 24 hours are one action, those that are asked for and not decided too, so that parts are no way around a threshold. What is asked
//! for a second time does not count itself.

use std::collections::BTreeSet;

use activity::approval;
use activity::risk::HighRisk;
use schemas::identity::{self, Role};
use schemas::ids::{CustomerId, InvoiceId, ServiceId, SubscriptionId, TransferId, UserId};
use schemas::inventory;
use schemas::money::{Currency, Money};
use schemas::window::{DAY_MS, HOUR_MS, instant_text};
use sqlx::AnyConnection;

use super::ExecuteError;
use crate::action::{Action, ActionError, NewRequest, PriceVersion};
use crate::catalog::{NewPrice, Plan};
use crate::exclusion;
use crate::invoice::{check_item, credited_since};
use crate::ledger::{self, Account};
use crate::subscription::{ended_since, reprice, subscription, transfer};
use crate::{BillingError, settlement, top_up};

/// Actions that are no longer apart than this count together.
pub(super) const TOGETHER_MS: i64 = DAY_MS;
/// The actions of a kind that wait for a second admin.
async fn pending(connection: &mut AnyConnection, kind: HighRisk) -> Result<Vec<Action>, ExecuteError> {
    let mut actions = Vec::new();
    let waiting = approval::pending_of(connection, kind).await;
    for approval in waiting.map_err(ActionError::from)? {
        actions.push(Action::of(&approval)?);
    }
    Ok(actions)
}

/// What was given to a customer within the time of parts, in minor units: credit granted, and what items take off invoices; and what
/// is asked for and not decided, but for what `is_this` says is the very thing that is asked for now.
async fn given(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
    is_this: impl Fn(&Action) -> bool,
    now_ms: i64,
) -> Result<i64, ExecuteError> {
    let since_ms = now_ms - TOGETHER_MS;
    let account = Account::promotion(currency);
    let granted = ledger::posted_since(&mut *connection, customer, (&account, "grant:"), since_ms)
        .await
        .map_err(BillingError::from)?;
    let items = credited_since(&mut *connection, customer, currency, since_ms).await?;
    let mut given_minor = granted.minor.saturating_add(items.minor);
    for action in pending(connection, HighRisk::CreditGrant).await? {
        if let Action::CreditGrant {
            customer: whose,
            currency: in_currency,
            amount_minor,
            ..
        }
        | Action::CreditItem {
            customer: whose,
            currency: in_currency,
            amount_minor,
            ..
        } = &action
            && *whose == customer
            && in_currency == currency.code()
            && !is_this(&action)
        {
            given_minor = given_minor.saturating_add(*amount_minor);
        }
    }
    Ok(given_minor)
}

/// Credit that nobody pays for.
///
/// # Errors
/// When it could not be granted: as [`top_up::grant`].
pub async fn credit_grant(
    connection: &mut AnyConnection,
    customer: CustomerId,
    amount: Money,
    cause: &str,
    reason: &str,
    now_ms: i64,
) -> Result<NewRequest, ExecuteError> {
    // Of two at once, the second finds the first.
    settlement::lock_customer(&mut *connection, customer).await?;
    top_up::check_grant(&mut *connection, customer, amount, cause, reason).await?;
    let currency = amount.currency;
    let is_this = |action: &Action| matches!(action, Action::CreditGrant { cause: of, .. } if of == cause.trim());
    let counted = given(&mut *connection, customer, currency, is_this, now_ms).await?;
    // Granted before, it is not granted again.
    let counted_minor = match settlement::is_granted(connection, customer, cause).await? {
        true => 0,
        false => counted.saturating_add(amount.minor),
    };
    Ok(NewRequest {
        action: Action::CreditGrant {
            customer,
            currency: currency.to_string(),
            amount_minor: amount.minor,
            counted_minor,
            cause: cause.trim().to_owned(),
            reason: reason.trim().to_owned(),
        },
        subject: customer.to_string(),
        summary: format!("Grant {amount} of credit to {customer}. Reason: {reason}"),
    })
}

/// An item that takes off the next invoice: `amount` is below zero.
///
/// # Errors
/// When it could not be added: as [`crate::invoice::add_item`].
pub async fn credit_item(
    connection: &mut AnyConnection,
    customer: CustomerId,
    description: &str,
    amount: Money,
    now_ms: i64,
) -> Result<NewRequest, ExecuteError> {
    settlement::lock_customer(&mut *connection, customer).await?;
    let description = check_item(&mut *connection, customer, description, amount).await?;
    let off = amount.checked_neg()?;
    let is_this = |action: &Action| {
        matches!(action, Action::CreditItem { customer: of, amount_minor, description: pending, .. }
            if (*of, *amount_minor, pending) == (customer, off.minor, &description))
    };
    let counted = given(&mut *connection, customer, off.currency, is_this, now_ms).await?;
    Ok(NewRequest {
        summary: format!("Take {off} off the next invoice of {customer}: {description}"),
        action: Action::CreditItem {
            customer,
            currency: off.currency.to_string(),
            amount_minor: off.minor,
            counted_minor: counted.saturating_add(off.minor),
            description,
        },
        subject: customer.to_string(),
    })
}

/// Subscriptions of a customer that end at once, `what` they are in words.
///
/// # Errors
/// As the database answers.
pub async fn termination(
    connection: &mut AnyConnection,
    customer: CustomerId,
    subscriptions: Vec<SubscriptionId>,
    (what, reason): (&str, &str),
    now_ms: i64,
) -> Result<NewRequest, ExecuteError> {
    settlement::lock_customer(&mut *connection, customer).await?;
    let mut all: BTreeSet<SubscriptionId> = subscriptions.iter().copied().collect();
    for (ended, actor) in ended_since(&mut *connection, customer, now_ms - TOGETHER_MS).await? {
        // What customers end themselves is theirs to end.
        let who = identity::find_candidate(&mut *connection, &actor).await?;
        if who.is_none_or(|who| who.role != Role::Customer) {
            all.insert(ended);
        }
    }
    for action in pending(connection, HighRisk::BulkTermination).await? {
        if let Action::BulkTermination { subscriptions, .. } = action
            && contract_customer(connection, &subscriptions).await? == Some(customer)
        {
            all.extend(subscriptions);
        }
    }
    Ok(NewRequest {
        action: Action::BulkTermination {
            subscriptions,
            counted_subscriptions: i64::try_from(all.len()).unwrap_or(i64::MAX),
            reason: reason.to_owned(),
        },
        subject: customer.to_string(),
        summary: format!("End {what} today. Reason: {reason}"),
    })
}

/// Whose subscriptions these are: a request has those of one customer.
async fn contract_customer(
    connection: &mut AnyConnection,
    subscriptions: &[SubscriptionId],
) -> Result<Option<CustomerId>, ExecuteError> {
    match subscriptions.first() {
        Some(id) => Ok(Some(subscription(connection, *id).await?.customer)),
        None => Ok(None),
    }
}

/// What is open of an invoice, given up.
///
/// # Errors
/// When there is no such invoice.
pub async fn write_off(
    connection: &mut AnyConnection,
    id: InvoiceId,
    reason: &str,
    now_ms: i64,
) -> Result<NewRequest, ExecuteError> {
    let (customer, number, _) = settlement::open_of(&mut *connection, id).await?;
    settlement::lock_customer(&mut *connection, customer).await?;
    let open = settlement::outstanding(&mut *connection, id).await?;
    let (currency, since_ms) = (open.currency, now_ms - TOGETHER_MS);
    let account = Account::bad_debt(currency);
    let mut counted = ledger::posted_since(&mut *connection, customer, (&account, "write_off:"), since_ms)
        .await
        .map_err(BillingError::from)?
        .minor;
    for action in pending(&mut *connection, HighRisk::WriteOff).await? {
        if let Action::WriteOff {
            invoice: of,
            currency: in_currency,
            amount_minor,
            ..
        } = action
            && in_currency == currency.code()
            && of != id
            && settlement::open_of(&mut *connection, of).await?.0 == customer
        {
            counted += amount_minor;
        }
    }
    Ok(NewRequest {
        action: Action::WriteOff {
            invoice: id,
            currency: currency.to_string(),
            amount_minor: open.minor,
            counted_minor: counted.saturating_add(open.minor),
            reason: reason.trim().to_owned(),
        },
        subject: id.to_string(),
        summary: format!("Write off {open} of invoice {number} of {customer}. Reason: {reason}"),
    })
}

/// Windows of a service that are not charged.
///
/// # Errors
/// When it could not be excluded: as [`exclusion::exclude`].
pub async fn usage_exclusion(
    connection: &mut AnyConnection,
    id: ServiceId,
    (from_ms, to_ms): (i64, i64),
    reason: &str,
    now_ms: i64,
) -> Result<NewRequest, ExecuteError> {
    exclusion::check((from_ms, to_ms), reason)?;
    let service = inventory::service(&mut *connection, id)
        .await
        .map_err(BillingError::from)?;
    settlement::lock_customer(&mut *connection, service.customer).await?;
    let before_ms = exclusion::excluded_since(&mut *connection, service.customer, now_ms - TOGETHER_MS).await?;
    let mut counted_ms = before_ms + (to_ms - from_ms);
    for action in pending(&mut *connection, HighRisk::UsageExclusion).await? {
        if let Action::UsageExclusion {
            service: of,
            from_ms: pending_from_ms,
            to_ms: pending_to_ms,
            ..
        } = action
            && (of, pending_from_ms, pending_to_ms) != (id, from_ms, to_ms)
            && inventory::service(&mut *connection, of)
                .await
                .map_err(BillingError::from)?
                .customer
                == service.customer
        {
            counted_ms += pending_to_ms - pending_from_ms;
        }
    }
    Ok(NewRequest {
        action: Action::UsageExclusion {
            service: id,
            from_ms,
            to_ms,
            // A part of an hour counts.
            counted_hours: (counted_ms + HOUR_MS - 1) / HOUR_MS,
            reason: reason.trim().to_owned(),
        },
        subject: id.to_string(),
        summary: format!(
            "Do not charge usage of {id} ({}) from {} until {}. Reason: {reason}",
            service.name,
            instant_text(from_ms),
            instant_text(to_ms)
        ),
    })
}

/// The approval of a service's move to another customer.
///
/// # Errors
/// When there is no such transfer.
pub async fn service_transfer(
    connection: &mut AnyConnection,
    id: TransferId,
    now_ms: i64,
) -> Result<NewRequest, ExecuteError> {
    let moved = transfer::transfer(&mut *connection, id).await?;
    settlement::lock_customer(&mut *connection, moved.from).await?;
    let mut counted = 1 + transfer::approved_since(&mut *connection, moved.from, now_ms - TOGETHER_MS).await?;
    for action in pending(&mut *connection, HighRisk::ServiceTransfer).await? {
        if let Action::ServiceTransfer { transfer: of, .. } = action
            && of != id
            && transfer::transfer(&mut *connection, of).await?.from == moved.from
        {
            counted += 1;
        }
    }
    Ok(NewRequest {
        action: Action::ServiceTransfer {
            transfer: id,
            counted_services: counted,
        },
        subject: id.to_string(),
        summary: format!(
            "Move {} from {} to {} (ticket {})",
            moved.service, moved.from, moved.to, moved.ticket
        ),
    })
}

/// New versions of prices of one plan in one currency, to which subscriptions change: all of them are one change. `words` says what
/// the prices are.
///
/// # Errors
/// As the database answers.
pub async fn price_change(
    connection: &mut AnyConnection,
    plan: &Plan,
    new: &[NewPrice],
    words: &str,
    now_ms: i64,
) -> Result<NewRequest, ExecuteError> {
    let mut prices = Vec::with_capacity(new.len());
    let mut paying = BTreeSet::new();
    let mut currency = String::new();
    for price in new {
        currency = price.base.currency.to_string();
        prices.push(PriceVersion {
            cycle_months: price.cycle_months,
            base_minor: price.base.minor,
            usage_price: serde_json::to_value(&price.usage)?,
            // What holds from now on holds from the approval on, whenever it was asked for.
            valid_from_ms: if price.valid_from_ms <= now_ms {
                0
            } else {
                price.valid_from_ms
            },
        });
        let who = reprice::paying(&mut *connection, plan.id, price.base.currency, price.cycle_months);
        paying.extend(who.await?);
    }
    let customers = u64::try_from(paying.len()).unwrap_or(u64::MAX);
    Ok(NewRequest {
        action: Action::PriceChange {
            plan: plan.id,
            currency,
            prices,
            customers,
        },
        subject: plan.id.to_string(),
        summary: format!("{}: {}, for {customers} customers at their renewal", plan.name, words),
    })
}

/// Somebody who can sign in as an admin. `what` says how they become one, such as `Add the admin`.
pub fn admin_created(user: UserId, what: &str, email: &str) -> NewRequest {
    NewRequest {
        action: Action::AdminCreated { user },
        subject: user.to_string(),
        summary: format!("{what} {email}"),
    }
}

/// An admin who can sign in no more.
pub fn admin_deleted(user: UserId, email: &str) -> NewRequest {
    NewRequest {
        action: Action::AdminDeleted { user },
        subject: user.to_string(),
        summary: format!("Disable the admin {email}"),
    }
}

/// Another role of somebody who is or becomes an admin.
pub fn admin_role(user: UserId, role: &str, customer: Option<CustomerId>, email: &str) -> NewRequest {
    NewRequest {
        action: Action::AdminRole {
            user,
            role: role.to_owned(),
            customer,
        },
        subject: user.to_string(),
        summary: format!("Give {email} the role {role}"),
    }
}
