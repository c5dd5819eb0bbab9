//! What a customer does to subscriptions, and what it costs before it is done.
//!
//! A quote does the very thing on trial, so that nothing of it stays and nobody waits for it ([`schemas::trial`]), and drafts
//! the invoices that follow: it is what will be charged and not an estimate. What is shown is sent back with the order ([`Quote::shown`]): when the amounts are not
//! those any more, the order is not carried out but shown anew.

use activity::act::{Act, By, Note};
use activity::audit::Actor;
pub(crate) use billing::invoice::next_charge_ms;
use billing::invoice::{self, Draft, Horizon};
use billing::rating::DraftLine;
use billing::subscription::change::{self, Change, End};
use billing::subscription::{Contract, NewSubscription, begin_trial, contract, subscribe};
use billing::tax::TaxAmount;
use billing::{BillingError, guard};
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory::{self, NewService};
use schemas::money::Money;
use schemas::period::{local_date, midnight_ms};
use schemas::window::DAY_MS;
use serde_json::{Value, json};
use sqlx::AnyConnection;

use crate::customer::metered_usage;
use crate::error::Failure;
use crate::format;
use crate::once;
use crate::pages::invoices::lines::{TaxRow, tax_rows};
use crate::refusal::refusal;
use crate::state::AppState;

/// Something a customer does. Whose the subscription is, and whether the price is offered, has been asked before (S1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed<'a> {
    /// A new service with its subscription.
    Order {
        name: &'a str,
        service_type: &'a str,
        price: PriceId,
        quantity: i64,
        coupon: Option<&'a str>,
    },
    Change {
        subscription: SubscriptionId,
        change: Change,
    },
    Addon {
        parent: SubscriptionId,
        service: ServiceId,
        price: PriceId,
        quantity: i64,
    },
    Cancel {
        subscription: SubscriptionId,
        end: End,
        reason: &'a str,
    },
}

async fn perform(
    connection: &mut AnyConnection,
    customer: CustomerId,
    deed: Deed<'_>,
    at_ms: i64,
    actor: &str,
    now_ms: i64,
) -> Result<SubscriptionId, BillingError> {
    guard::check(&mut *connection).await?;
    match deed {
        Deed::Order {
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
        Deed::Change { subscription, change } => {
            change::change(connection, subscription, change, at_ms, actor, now_ms).await?;
            Ok(subscription)
        }
        Deed::Addon {
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
        Deed::Cancel {
            subscription,
            end,
            reason,
        } => {
            change::cancel(connection, subscription, end, reason, actor, now_ms).await?;
            Ok(subscription)
        }
    }
}

/// What a deed charges.
#[derive(Clone, Debug)]
pub(crate) struct Quote {
    /// At once; empty where nothing is charged or given back.
    pub(crate) now: Vec<Draft>,
    /// What the service is charged next, without usage that is not measured yet; of a quote for a time ahead, after its day.
    pub(crate) own_next: Option<OwnNext>,
    /// The next invoice of the account that charges something, for whatever it is; of a quote for a time ahead, that of its
    /// day.
    pub(crate) next: Option<Draft>,
    pub(crate) is_ahead: bool,
    /// What the customer has as credit, which is used first.
    pub(crate) credit: Money,
}

/// The next charge of one service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnNext {
    pub(crate) at_ms: i64,
    pub(crate) amount: Money,
    /// Whether tax is in the amount, in words behind it.
    pub(crate) note: &'static str,
}

impl OwnNext {
    fn new(at_ms: i64, charge: invoice::Charge) -> OwnNext {
        OwnNext {
            at_ms,
            amount: charge.total,
            note: tax_note(charge),
        }
    }
}

/// Whether tax is in an amount, in words behind it.
fn tax_note(charge: invoice::Charge) -> &'static str {
    match charge.tax.minor {
        0 => "",
        _ => " with tax",
    }
}

impl Quote {
    /// The amounts as the form sends them back.
    pub(crate) fn shown(&self) -> String {
        let totals: Vec<String> = self.now.iter().map(|draft| draft.total.to_string()).collect();
        totals.join(" + ")
    }
}

/// What a deed would charge, or why it cannot be done.
pub(crate) async fn quote(
    state: &AppState,
    customer: CustomerId,
    deed: Deed<'_>,
) -> Result<Result<Quote, String>, Failure> {
    let now_ms = state.now_ms();
    let mut trial = begin_trial(state.db(), customer).await?;
    let connection = trial.connection();
    let subscription = match perform(connection, customer, deed, now_ms, "quote", now_ms).await {
        Ok(subscription) => subscription,
        Err(error) => {
            trial.end().await?;
            return refusal(error).map(Err);
        }
    };
    let after = contract(connection, subscription).await?;
    let next_ms = next_charge_ms(&after, now_ms)?;
    let base_ms = invoice::next_base_ms(&after, now_ms)?;
    let horizon_ms = quoted_until_ms(base_ms, next_ms, now_ms);
    let usage = metered_usage(state);
    let due = invoice::prospect(connection, &usage, customer, Horizon::DueBy { at_ms: now_ms }).await?;
    let ahead = match horizon_ms {
        Some(at_ms) => Some(invoice::prospect(connection, &usage, customer, Horizon::DueBy { at_ms }).await?),
        None => None,
    };
    let currency = after.customer.currency;
    let credit = billing::settlement::available_credit(connection, customer, currency)
        .await
        .map_err(BillingError::from)?;
    // Of a cycle that ends too far ahead to draft everything of the account until then.
    let base = match base_ms {
        Some(at_ms) => invoice::base_charge(connection, &after, at_ms)
            .await?
            .map(|charge| OwnNext::new(at_ms, charge)),
        None => None,
    };
    trial.end().await?;
    let now = due.drafts(&usage, now_ms).await?;
    let mut later = match ahead {
        Some(ahead) => ahead.drafts(&usage, now_ms).await?,
        None => Vec::new(),
    };
    later.retain(|draft| draft.due_ms > now_ms);
    let service = after.service.id;
    let charges = |draft: &&Draft| {
        let is_of = |line: &DraftLine| line.service == Some(service) && line.amount.minor != 0;
        draft.total.minor != 0 && draft.lines.iter().any(is_of)
    };
    let own_next = match later.iter().find(charges) {
        Some(draft) => Some(OwnNext::new(
            draft.due_ms,
            draft.charge_of(|line| line.service == Some(service))?,
        )),
        None => base,
    };
    Ok(Ok(Quote {
        now: now.into_iter().filter(|draft| !draft.lines.is_empty()).collect(),
        own_next,
        next: later.into_iter().find(|draft| draft.total.minor > 0),
        is_ahead: false,
        credit,
    }))
}

/// What a deed would charge on the day of an instant that lies ahead, as far as it is known now, or why it cannot be
/// done.
pub(crate) async fn quote_at(
    state: &AppState,
    customer: CustomerId,
    deed: Deed<'_>,
    at_ms: i64,
) -> Result<Result<Quote, String>, Failure> {
    let now_ms = state.now_ms();
    let mut trial = begin_trial(state.db(), customer).await?;
    let connection = trial.connection();
    let subscription = match perform(connection, customer, deed, at_ms, "quote", now_ms).await {
        Ok(subscription) => subscription,
        Err(error) => {
            trial.end().await?;
            return refusal(error).map(Err);
        }
    };
    let after = contract(connection, subscription).await?;
    let usage = metered_usage(state);
    let ahead = invoice::prospect(connection, &usage, customer, Horizon::DueBy { at_ms }).await?;
    let own_next = match invoice::next_base_ms(&after, at_ms)? {
        Some(next_ms) => invoice::base_charge(connection, &after, next_ms)
            .await?
            .map(|charge| OwnNext::new(next_ms, charge)),
        None => None,
    };
    let credit = billing::settlement::available_credit(connection, customer, after.customer.currency)
        .await
        .map_err(BillingError::from)?;
    trial.end().await?;
    let mut drafts = ahead.drafts(&usage, now_ms).await?;
    // Of renewals before that day it is not asked.
    let zone = &after.subscription.time_zone;
    let day = local_date(at_ms, zone).map_err(BillingError::from)?;
    let day_ms = midnight_ms(day, zone).map_err(BillingError::from)?;
    drafts.retain(|draft| {
        let is_of = |line: &DraftLine| line.subscription == Some(subscription);
        draft.due_ms >= day_ms && draft.lines.iter().any(is_of)
    });
    Ok(Ok(Quote {
        now: Vec::new(),
        own_next,
        next: drafts.pop(),
        is_ahead: true,
        credit,
    }))
}

/// What came of carrying something out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Done {
        subscription: SubscriptionId,
        /// That charges or gives back for it, if one was made at once.
        invoice: Option<InvoiceId>,
    },
    /// The same form was sent before: nothing was done.
    Again,
    /// Nothing was done, and why.
    Refused(String),
}

/// The action of the audit log, and what it changes.
async fn entry_of(connection: &mut AnyConnection, deed: Deed<'_>) -> Result<(&'static str, Value), BillingError> {
    Ok(match deed {
        Deed::Order {
            name,
            price,
            quantity,
            coupon,
            ..
        } => {
            let after = json!({"service": name, "price": price, "quantity": quantity, "coupon": coupon});
            ("subscription.add", json!({ "after": after }))
        }
        Deed::Change { subscription, change } => {
            let before = contract(connection, subscription).await?;
            let phase = before.last_phase();
            let change = json!({
                "before": {"price": phase.price.id, "quantity": phase.quantity},
                "after": {"price": change.price, "quantity": change.quantity},
            });
            ("subscription.change", change)
        }
        Deed::Addon {
            parent,
            price,
            quantity,
            ..
        } => {
            let after = json!({"parent": parent, "price": price, "quantity": quantity});
            ("subscription.add", json!({ "after": after }))
        }
        Deed::Cancel { end, reason, .. } => {
            let end = match end {
                End::Now => "now".to_owned(),
                End::CycleEnd => "cycle end".to_owned(),
                End::On(date) => date.to_string(),
            };
            ("subscription.cancel", json!({"after": {"end": end, "reason": reason}}))
        }
    })
}

/// Does it, once for each form token, with its entry in the audit log, and finalises what is due then.
pub(crate) async fn carry_out(
    state: &AppState,
    customer: CustomerId,
    deed: Deed<'_>,
    by: Actor<'_>,
    form_token: &str,
) -> Result<Outcome, Failure> {
    let now_ms = state.now_ms();
    let mut act = Act::begin(state.db(), By::from(by), now_ms).await?;
    if !once::take(act.connection(), form_token, now_ms).await? {
        return Ok(Outcome::Again);
    }
    let (action, change) = entry_of(act.connection(), deed).await?;
    let subscription = match perform(act.connection(), customer, deed, now_ms, by.name, now_ms).await {
        Ok(subscription) => subscription,
        Err(error) => return refusal(error).map(Outcome::Refused),
    };
    act.commit(Note::new(action, subscription).change(change)).await?;
    let invoice = match invoice_at_once(state, customer, subscription, now_ms).await {
        Ok(invoice) => invoice,
        // It is done all the same; what is due is finalised in the background, as every renewal is.
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(error, %subscription, "what was ordered is not invoiced yet");
            None
        }
    };
    Ok(Outcome::Done { subscription, invoice })
}

async fn invoice_at_once(
    state: &AppState,
    customer: CustomerId,
    subscription: SubscriptionId,
    now_ms: i64,
) -> Result<Option<InvoiceId>, BillingError> {
    let closing = invoice::close(state.db(), &metered_usage(state), customer, now_ms).await?;
    for made in closing.read(state.db()).await? {
        if made.lines.iter().any(|line| line.subscription == Some(subscription)) {
            return Ok(Some(made.invoice.id));
        }
    }
    Ok(None)
}

/// How far ahead the next amount is looked for. Everything of the account that is due until then is drafted.
const MAX_QUOTED_AHEAD_MS: i64 = 100 * DAY_MS;

/// Until when a quote drafts what follows: usage of the current period is not known yet, so where the next charge is of usage
/// alone, the next base price is drafted too.
fn quoted_until_ms(base_ms: Option<i64>, next_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    let near = |at_ms: &i64| at_ms.saturating_sub(now_ms) <= MAX_QUOTED_AHEAD_MS;
    next_ms.filter(near).max(base_ms.filter(near))
}

/// The draft of a subscription's next charge.
pub(crate) async fn next_charge(state: &AppState, contract: &Contract) -> Result<Option<Draft>, Failure> {
    let now_ms = state.now_ms();
    let Some(at_ms) = next_charge_ms(contract, now_ms)? else {
        return Ok(None);
    };
    let mut connection = state.db().pool().acquire().await?;
    let customer = contract.subscription.customer;
    let usage = metered_usage(state);
    let ahead = invoice::prospect(&mut connection, &usage, customer, Horizon::DueBy { at_ms }).await?;
    drop(connection);
    let mut drafts = ahead.drafts(&usage, now_ms).await?;
    drafts.retain(|draft| draft.due_ms == at_ms);
    Ok(drafts.pop())
}

/// A draft as pages show it.
pub(crate) struct DraftView {
    pub(crate) on: String,
    pub(crate) lines: Vec<DraftLineView>,
    pub(crate) subtotal: Money,
    pub(crate) taxes: Vec<TaxRow>,
    pub(crate) total: Money,
    /// More is given back than charged.
    pub(crate) gives_back: bool,
    /// What of the total the customer's credit pays, and what is left; absent where there is none.
    pub(crate) from_credit: Option<(Money, Money)>,
    /// What its lines come to with tax, and whether tax is in that, in words behind it.
    pub(crate) charge: (Money, &'static str),
    /// Lines that are left out, being of other subscriptions.
    pub(crate) others: usize,
}

pub(crate) struct DraftLineView {
    pub(crate) description: String,
    pub(crate) dates: String,
    pub(crate) amount: Money,
}

impl DraftView {
    pub(crate) fn new(draft: &Draft, credit: Money, zone: &TimeZone) -> DraftView {
        let paid = credit.minor.min(draft.total.minor).max(0);
        let money = |minor: i64| Money::new(minor, draft.currency);
        let lines = draft.lines.iter().map(|line| DraftLineView {
            description: line.description.clone(),
            dates: if line.period_end_ms > line.period_start_ms {
                format::dates(line.period_start_ms, line.period_end_ms - 1, zone)
            } else {
                String::new()
            },
            amount: line.amount,
        });
        let charged: Vec<TaxAmount> = billing::tax::merged(&draft.taxes);
        DraftView {
            on: format::date(draft.due_ms, zone),
            lines: lines.collect(),
            subtotal: draft.subtotal,
            taxes: tax_rows(&charged),
            total: draft.total,
            gives_back: draft.total.minor < 0,
            from_credit: (paid > 0).then(|| (money(paid), money(draft.total.minor - paid))),
            charge: (draft.total, if draft.tax.minor == 0 { "" } else { " with tax" }),
            others: 0,
        }
    }

    /// The lines of some subscriptions alone, with their sum before and with tax; the total stays the whole invoice's.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub(crate) fn of(
        draft: &Draft,
        subscriptions: &[SubscriptionId],
        zone: &TimeZone,
    ) -> Result<DraftView, BillingError> {
        let is_of = |line: &DraftLine| line.subscription.is_some_and(|of| subscriptions.contains(&of));
        let mut own = draft.clone();
        own.lines.retain(is_of);
        let sum = own.lines.iter().map(|line| line.amount.minor).sum();
        let mut view = DraftView::new(&own, Money::zero(draft.currency), zone);
        view.subtotal = Money::new(sum, draft.currency);
        view.others = draft.lines.len() - own.lines.len();
        let charge = draft.charge_of(is_of)?;
        view.charge = (charge.total, tax_note(charge));
        Ok(view)
    }
}

/// A quote as pages show it.
pub(crate) struct QuoteView {
    pub(crate) now: Vec<DraftView>,
    /// When the service is charged next, how much, and what that leaves out.
    pub(crate) own_next: Option<(String, Money, &'static str)>,
    pub(crate) next: Option<DraftView>,
    pub(crate) is_ahead: bool,
    pub(crate) shown: String,
}

impl QuoteView {
    pub(crate) fn new(quote: &Quote, zone: &TimeZone) -> QuoteView {
        let none = Money::new(0, quote.credit.currency);
        QuoteView {
            now: quote
                .now
                .iter()
                .map(|draft| DraftView::new(draft, quote.credit, zone))
                .collect(),
            own_next: quote
                .own_next
                .map(|own| (format::date(own.at_ms, zone), own.amount, own.note)),
            is_ahead: quote.is_ahead,
            // What credit is left by then nobody knows.
            next: quote.next.as_ref().map(|draft| DraftView::new(draft, none, zone)),
            shown: quote.shown(),
        }
    }
}
