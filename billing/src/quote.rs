//! What a customer asks to be done to subscriptions, what it costs before it is done, and doing it.
//!
//! A quote does the very thing on trial, so that nothing of it stays and nobody waits for it ([`schemas::trial`]), and drafts
//! the invoices that follow: it is what will be charged and not an estimate.
//!
//! ```text
//! quote:      trial begins ─▶ perform ─▶ prospect ─▶ trial ends ─▶ drafts
//! carry_out:  the caller's act ─▶ perform ─▶ (commit with the note) ─▶ invoice_at_once
//! ```
//!
//! Whose the subscription is, and whether the price is offered, the caller has asked before (S1).

use activity::act::Note;
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory::{self, NewService};
use schemas::money::Money;
use schemas::period::{local_date, midnight_ms};
use schemas::usage::UsageSource;
use schemas::window::DAY_MS;
use serde_json::{Value, json};
use sqlx::AnyConnection;

use crate::invoice::{self, Charge, Draft, Horizon, next_base_ms, next_charge_ms};
use crate::rating::DraftLine;
use crate::subscription::change::{self, CancellationTime, Change};
use crate::subscription::{Contract, NewSubscription, begin_trial, contract, subscribe};
use crate::{BillingError, guard, settlement};

/// How far ahead the next amount is looked for. Everything of the account that is due until then is drafted.
const MAX_QUOTED_AHEAD_MS: i64 = 100 * DAY_MS;

/// What a customer asks for.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// A new service with its subscription.
    Order {
        name: &'a str,
        service_type: &'a str,
        price: PriceId,
        quantity: i64,
        coupon: Option<&'a str>,
    },
    /// Other terms for a subscription.
    Change {
        subscription: SubscriptionId,
        change: Change,
    },
    /// An add-on beside a subscription.
    Addon {
        parent: SubscriptionId,
        service: ServiceId,
        price: PriceId,
        quantity: i64,
    },
    /// The end of a subscription.
    Cancel {
        subscription: SubscriptionId,
        end: CancellationTime,
        reason: &'a str,
    },
}

async fn perform(
    connection: &mut AnyConnection,
    customer: CustomerId,
    request: Request<'_>,
    at_ms: i64,
    actor: &str,
    now_ms: i64,
) -> Result<SubscriptionId, BillingError> {
    guard::check(&mut *connection).await?;
    match request {
        Request::Order {
            name,
            service_type,
            price,
            quantity,
            coupon,
        } => {
            let new = NewService {
                customer,
                name,
                service_type,
                site: None,
            };
            let service = inventory::create_service(&mut *connection, new, now_ms).await?;
            let new = NewSubscription {
                quantity,
                coupon,
                ..NewSubscription::new(service.id, price, now_ms)
            };
            Ok(subscribe(connection, new, actor, now_ms).await?.id)
        }
        Request::Change { subscription, change } => {
            change::change(connection, subscription, change, at_ms, actor, now_ms).await?;
            Ok(subscription)
        }
        Request::Addon {
            parent,
            service,
            price,
            quantity,
        } => {
            let new = NewSubscription {
                quantity,
                parent: Some(parent),
                ..NewSubscription::new(service, price, at_ms)
            };
            Ok(subscribe(connection, new, actor, now_ms).await?.id)
        }
        Request::Cancel {
            subscription,
            end,
            reason,
        } => {
            change::cancel(connection, subscription, end, reason, actor, now_ms).await?;
            Ok(subscription)
        }
    }
}

/// What a request charges.
#[derive(Clone, Debug)]
pub struct Quote {
    /// At once; empty where nothing is charged or given back.
    pub now: Vec<Draft>,
    /// What the service is charged next, without usage that is not measured yet; of a quote for a time ahead, after its day.
    pub next_of_service: Option<NextCharge>,
    /// The next invoice of the account that charges something, for whatever it is; of a quote for a time ahead, that of its
    /// day.
    pub next: Option<Draft>,
    /// Of a time ahead.
    pub is_ahead: bool,
    /// What the customer has as credit, which is used first.
    pub credit: Money,
}

/// The next charge of one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextCharge {
    /// UTC milliseconds.
    pub at_ms: i64,
    pub charge: Charge,
}

/// What a request would charge.
///
/// # Errors
/// Why it cannot be done, or as the database and whoever measures usage answer.
pub async fn quote(
    db: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    request: Request<'_>,
    now_ms: i64,
) -> Result<Quote, BillingError> {
    let mut trial = begin_trial(db, customer).await?;
    let connection = trial.connection();
    let subscription = match perform(connection, customer, request, now_ms, "quote", now_ms).await {
        Ok(subscription) => subscription,
        Err(error) => {
            trial.end().await?;
            return Err(error);
        }
    };
    let after = contract(connection, subscription).await?;
    let next_ms = next_charge_ms(&after, now_ms)?;
    let base_ms = next_base_ms(&after, now_ms)?;
    let horizon_ms = quoted_until_ms(base_ms, next_ms, now_ms);
    let due = invoice::prospect(connection, usage, customer, Horizon::DueBy { at_ms: now_ms }).await?;
    let ahead = match horizon_ms {
        Some(at_ms) => Some(invoice::prospect(connection, usage, customer, Horizon::DueBy { at_ms }).await?),
        None => None,
    };
    let currency = after.customer.currency;
    let credit = settlement::available_credit(connection, customer, currency).await?;
    // Of a cycle that ends too far ahead to draft everything of the account until then.
    let base = match base_ms {
        Some(at_ms) => invoice::base_charge(connection, &after, at_ms)
            .await?
            .map(|charge| NextCharge { at_ms, charge }),
        None => None,
    };
    trial.end().await?;
    let now = due.drafts(usage, now_ms).await?;
    let mut later = match ahead {
        Some(ahead) => ahead.drafts(usage, now_ms).await?,
        None => Vec::new(),
    };
    later.retain(|draft| draft.due_ms > now_ms);
    let service = after.service.id;
    let charges = |draft: &&Draft| {
        let is_of = |line: &DraftLine| line.service == Some(service) && line.amount.minor != 0;
        draft.total.minor != 0 && draft.lines.iter().any(is_of)
    };
    let next_of_service = match later.iter().find(charges) {
        Some(draft) => Some(NextCharge {
            at_ms: draft.due_ms,
            charge: draft.charge_of(|line| line.service == Some(service))?,
        }),
        None => base,
    };
    Ok(Quote {
        now: now.into_iter().filter(|draft| !draft.lines.is_empty()).collect(),
        next_of_service,
        next: later.into_iter().find(|draft| draft.total.minor > 0),
        is_ahead: false,
        credit,
    })
}

/// What a request would charge on the day of an instant that lies ahead, as far as it is known now.
///
/// # Errors
/// Why it cannot be done, or as the database and whoever measures usage answer.
pub async fn quote_at(
    db: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    request: Request<'_>,
    at_ms: i64,
    now_ms: i64,
) -> Result<Quote, BillingError> {
    let mut trial = begin_trial(db, customer).await?;
    let connection = trial.connection();
    let subscription = match perform(connection, customer, request, at_ms, "quote", now_ms).await {
        Ok(subscription) => subscription,
        Err(error) => {
            trial.end().await?;
            return Err(error);
        }
    };
    let after = contract(connection, subscription).await?;
    let ahead = invoice::prospect(connection, usage, customer, Horizon::DueBy { at_ms }).await?;
    let next_of_service = match next_base_ms(&after, at_ms)? {
        Some(at_ms) => invoice::base_charge(connection, &after, at_ms)
            .await?
            .map(|charge| NextCharge { at_ms, charge }),
        None => None,
    };
    let credit = settlement::available_credit(connection, customer, after.customer.currency).await?;
    trial.end().await?;
    let mut drafts = ahead.drafts(usage, now_ms).await?;
    // Of renewals before that day it is not asked.
    let zone = &after.subscription.time_zone;
    let day_ms = midnight_ms(local_date(at_ms, zone)?, zone)?;
    drafts.retain(|draft| {
        let is_of = |line: &DraftLine| line.subscription == Some(subscription);
        draft.due_ms >= day_ms && draft.lines.iter().any(is_of)
    });
    Ok(Quote {
        now: Vec::new(),
        next_of_service,
        next: drafts.pop(),
        is_ahead: true,
        credit,
    })
}

/// The action of the audit log, and what it changes.
async fn entry_of(connection: &mut AnyConnection, request: Request<'_>) -> Result<(&'static str, Value), BillingError> {
    Ok(match request {
        Request::Order {
            name,
            price,
            quantity,
            coupon,
            ..
        } => {
            let after = json!({"service": name, "price": price, "quantity": quantity, "coupon": coupon});
            ("subscription.add", json!({ "after": after }))
        }
        Request::Change { subscription, change } => {
            let before = contract(connection, subscription).await?;
            let phase = before.last_phase();
            let change = json!({
                "before": {"price": phase.price.id, "quantity": phase.quantity},
                "after": {"price": change.price, "quantity": change.quantity},
            });
            ("subscription.change", change)
        }
        Request::Addon {
            parent,
            price,
            quantity,
            ..
        } => {
            let after = json!({"parent": parent, "price": price, "quantity": quantity});
            ("subscription.add", json!({ "after": after }))
        }
        Request::Cancel { end, reason, .. } => {
            let end = match end {
                CancellationTime::Now => "now".to_owned(),
                CancellationTime::CycleEnd => "cycle end".to_owned(),
                CancellationTime::On(date) => date.to_string(),
            };
            ("subscription.cancel", json!({"after": {"end": end, "reason": reason}}))
        }
    })
}

/// Does what was asked for in the caller's act, which is committed with the note. What is due then is finalised by
/// [`invoice_at_once`], once that is committed. `actor` stands in the subscription's history.
///
/// # Errors
/// Why it cannot be done, or as the database answers: the caller drops the act.
pub async fn carry_out(
    connection: &mut AnyConnection,
    customer: CustomerId,
    request: Request<'_>,
    actor: &str,
    now_ms: i64,
) -> Result<(SubscriptionId, Note), BillingError> {
    let (action, change) = entry_of(&mut *connection, request).await?;
    let subscription = perform(connection, customer, request, now_ms, actor, now_ms).await?;
    Ok((subscription, Note::new(action, subscription).change(change)))
}

/// Finalises what is due for a customer; the invoice that charges or gives back for a subscription, if one was made.
///
/// # Errors
/// When usage cannot be measured, or as the database answers. What was carried out stays: whatever is due is finalised in the
/// background, as every renewal is.
pub async fn invoice_at_once(
    db: &Database,
    usage: &dyn UsageSource,
    customer: CustomerId,
    subscription: SubscriptionId,
    now_ms: i64,
) -> Result<Option<InvoiceId>, BillingError> {
    let closing = invoice::close(db, usage, customer, now_ms).await?;
    for made in closing.read(db).await? {
        if made.lines.iter().any(|line| line.subscription == Some(subscription)) {
            return Ok(Some(made.invoice.id));
        }
    }
    Ok(None)
}

/// The draft of a subscription's next charge; `None` where it is charged no more.
///
/// # Errors
/// When a period does not fit the calendar, or as the database and whoever measures usage answer.
pub async fn next_charge(
    db: &Database,
    usage: &dyn UsageSource,
    contract: &Contract,
    now_ms: i64,
) -> Result<Option<Draft>, BillingError> {
    let Some(at_ms) = next_charge_ms(contract, now_ms)? else {
        return Ok(None);
    };
    let mut connection = db.pool().acquire().await?;
    let customer = contract.subscription.customer;
    let ahead = invoice::prospect(&mut connection, usage, customer, Horizon::DueBy { at_ms }).await?;
    drop(connection);
    let mut drafts = ahead.drafts(usage, now_ms).await?;
    drafts.retain(|draft| draft.due_ms == at_ms);
    Ok(drafts.pop())
}

/// Until when a quote drafts what follows: usage of the current period is not known yet, so where the next charge is of usage
/// alone, the next base price is drafted too.
fn quoted_until_ms(base_ms: Option<i64>, next_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    let near = |at_ms: &i64| at_ms.saturating_sub(now_ms) <= MAX_QUOTED_AHEAD_MS;
    next_ms.filter(near).max(base_ms.filter(near))
}

#[cfg(test)]
mod tests;
