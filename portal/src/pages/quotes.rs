//! What a customer does to subscriptions, and what it costs before it is done, in words. Both are computed in
//! [`billing::quote`].
//!
//! What is shown is sent back with the order ([`shown`]): when the amounts are not those any more, the order is not carried
//! out but shown anew.

use activity::act::{Act, By};
use activity::audit::Actor;
use billing::BillingError;
use billing::invoice::{Charge, Draft};
use billing::quote::{self, Quote, Request};
use billing::rating::DraftLine;
use billing::subscription::Contract;
use billing::tax::TaxAmount;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId, SubscriptionId};
use schemas::money::Money;

use super::invoices::lines::{TaxRow, tax_rows};
use crate::customer::metered_usage;
use crate::error::Failure;
use crate::format;
use crate::once;
use crate::refusal::refusal;
use crate::state::AppState;

/// What a request would charge, or why it cannot be done.
pub(super) async fn quote(
    state: &AppState,
    customer: CustomerId,
    request: Request<'_>,
) -> Result<Result<Quote, String>, Failure> {
    let quoted = quote::quote(state.db(), &metered_usage(state), customer, request, state.now_ms()).await;
    told(quoted)
}

/// What a request would charge on the day of an instant that lies ahead, or why it cannot be done.
pub(super) async fn quote_at(
    state: &AppState,
    customer: CustomerId,
    request: Request<'_>,
    at_ms: i64,
) -> Result<Result<Quote, String>, Failure> {
    let usage = metered_usage(state);
    let quoted = quote::quote_at(state.db(), &usage, customer, request, at_ms, state.now_ms()).await;
    told(quoted)
}

fn told(quoted: Result<Quote, BillingError>) -> Result<Result<Quote, String>, Failure> {
    match quoted {
        Ok(quote) => Ok(Ok(quote)),
        Err(error) => refusal(error).map(Err),
    }
}

/// What came of carrying something out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
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

/// Does it, once for each form token, with its entry in the audit log, and finalises what is due then.
pub(super) async fn carry_out(
    state: &AppState,
    customer: CustomerId,
    request: Request<'_>,
    by: Actor<'_>,
    form_token: &str,
) -> Result<Outcome, Failure> {
    let now_ms = state.now_ms();
    let mut act = Act::begin(state.db(), By::from(by), now_ms).await?;
    if !once::take(act.connection(), form_token, now_ms).await? {
        return Ok(Outcome::Again);
    }
    let (subscription, note) = match quote::carry_out(act.connection(), customer, request, by.name, now_ms).await {
        Ok(done) => done,
        Err(error) => return refusal(error).map(Outcome::Refused),
    };
    act.commit(note).await?;
    let usage = metered_usage(state);
    let invoice = match quote::invoice_at_once(state.db(), &usage, customer, subscription, now_ms).await {
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

/// The draft of a subscription's next charge.
pub(super) async fn next_charge(state: &AppState, contract: &Contract) -> Result<Option<Draft>, Failure> {
    Ok(quote::next_charge(state.db(), &metered_usage(state), contract, state.now_ms()).await?)
}

/// The amounts as the form sends them back.
pub(super) fn shown(quote: &Quote) -> String {
    let totals: Vec<String> = quote.now.iter().map(|draft| draft.total.to_string()).collect();
    totals.join(" + ")
}

/// Whether tax is in an amount, in words behind it.
pub(super) fn tax_note(charge: Charge) -> &'static str {
    match charge.tax.minor {
        0 => "",
        _ => " with tax",
    }
}

/// A draft as pages show it.
pub(super) struct DraftView {
    pub(super) on: String,
    pub(super) lines: Vec<DraftLineView>,
    pub(super) subtotal: Money,
    pub(super) taxes: Vec<TaxRow>,
    pub(super) total: Money,
    /// More is given back than charged.
    pub(super) gives_back: bool,
    /// What of the total the customer's credit pays, and what is left; absent where there is none.
    pub(super) from_credit: Option<(Money, Money)>,
    /// What its lines come to with tax, and whether tax is in that, in words behind it.
    pub(super) charge: (Money, &'static str),
    /// Lines that are left out, being of other subscriptions.
    pub(super) others: usize,
}

pub(super) struct DraftLineView {
    pub(super) description: String,
    pub(super) dates: String,
    pub(super) amount: Money,
}

impl DraftView {
    pub(super) fn new(draft: &Draft, credit: Money, zone: &TimeZone) -> DraftView {
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
    pub(super) fn of(
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
pub(super) struct QuoteView {
    pub(super) now: Vec<DraftView>,
    /// When the service is charged next, how much, and whether with tax.
    pub(super) own_next: Option<(String, Money, &'static str)>,
    pub(super) next: Option<DraftView>,
    pub(super) is_ahead: bool,
    pub(super) shown: String,
}

impl QuoteView {
    pub(super) fn new(quote: &Quote, zone: &TimeZone) -> QuoteView {
        let none = Money::new(0, quote.credit.currency);
        QuoteView {
            now: quote
                .now
                .iter()
                .map(|draft| DraftView::new(draft, quote.credit, zone))
                .collect(),
            own_next: quote
                .next_of_service
                .map(|own| (format::date(own.at_ms, zone), own.charge.total, tax_note(own.charge))),
            is_ahead: quote.is_ahead,
            // What credit is left by then nobody knows.
            next: quote.next.as_ref().map(|draft| DraftView::new(draft, none, zone)),
            shown: shown(quote),
        }
    }
}
