//! What pages on which something is paid share: ways to pay, a payment that waits for the customer, giving it up, and coming
//! back from the bank.

use activity::act::Note;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::budget;
use billing::payment::{self, ACTION_LIMIT_MS, NewPayment, Payment, PaymentError, PaymentFilter, PaymentState};
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId, PaymentId};
use schemas::money::Money;

use crate::action;
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::customer::{invoice_of, metered_usage};
use crate::error::{Failure, PageError};
use crate::format;
use crate::once;
use crate::path::Path;
use crate::state::AppState;

/// A way to pay that can be charged here.
pub(crate) struct MethodChoice {
    pub(crate) id: String,
    pub(crate) label: String,
    /// Invoices are charged to it automatically.
    pub(crate) is_default: bool,
}

/// The one that invoices are charged to automatically.
pub(crate) fn default_of(methods: &[MethodChoice]) -> Option<&MethodChoice> {
    methods.iter().find(|method| method.is_default)
}

/// Whether a payment method can be saved here.
pub(crate) fn saves_methods(state: &AppState) -> bool {
    let mut gateways = state.gateways().iter();
    gateways.any(|gateway| gateway.capabilities().saves_methods)
}

/// What a customer can pay with now, the default first.
pub(crate) async fn choices(state: &AppState, customer: CustomerId) -> Result<Vec<MethodChoice>, Failure> {
    let methods = payment::method::methods(state.db().pool(), customer).await?;
    let usable = methods
        .into_iter()
        .filter(|method| state.gateways().get(method.gateway).is_ok());
    let choice = |method: payment::method::PaymentMethod| MethodChoice {
        id: method.id.to_string(),
        label: method.label,
        is_default: method.is_default,
    };
    Ok(usable.map(choice).collect())
}

/// A payment that is not decided yet.
pub(crate) struct PendingPayment {
    pub(crate) id: String,
    pub(crate) amount: Money,
    pub(crate) words: &'static str,
    /// Where the customer confirms it with the bank.
    pub(crate) action_url: Option<String>,
    /// The token of a form that begins it anew, where it is to be confirmed and there is no page for that.
    pub(crate) anew: Option<String>,
    /// When it is given up by itself; absent where the customer has nothing to do.
    pub(crate) expires: Option<String>,
}

impl PendingPayment {
    /// `None` for one that is decided.
    pub(crate) fn of(payment: &Payment, zone: &TimeZone) -> Option<PendingPayment> {
        let url = Some(payment.action_url.clone());
        let action_url = url.filter(|url| url.starts_with("https://") || url.starts_with("http://"));
        // Another payment of the invoice by the same method has such a page.
        let begins_anew = payment.state == PaymentState::RequiresAction
            && action_url.is_none()
            && payment.purpose.invoice().is_some()
            && payment.method.is_some();
        let words = match payment.state {
            PaymentState::RequiresAction if action_url.is_some() => "Your bank wants you to confirm the payment.",
            // It was charged while the customer was away, so there is no page of the bank's to go to.
            PaymentState::RequiresAction if begins_anew => "Your bank requires a confirmation.",
            PaymentState::RequiresAction => {
                "Your bank requires a confirmation. Cancel this payment and pay again to confirm it."
            }
            PaymentState::Processing => "The payment is being processed. With some banks that takes days.",
            PaymentState::Intent | PaymentState::Unknown => {
                "The payment is under way: we are asking the payment provider for its status."
            }
            PaymentState::Succeeded | PaymentState::Failed | PaymentState::Cancelled => return None,
        };
        Some(PendingPayment {
            anew: begins_anew.then(once::form_token),
            id: payment.id.to_string(),
            amount: payment.amount,
            words,
            expires: (payment.state == PaymentState::RequiresAction)
                .then(|| format::minute_and_zone(payment.created_at_ms + ACTION_LIMIT_MS, zone)),
            action_url,
        })
    }
}

/// Why a payment failed, for who made it: what the gateway says, without its code. A sentence with its full stop, or empty.
pub(crate) fn error_words(error: &str) -> String {
    let words = match error.split_once(": ") {
        Some(("not_sent", _)) => "The payment provider could not be reached".to_owned(),
        Some((_, message)) if !message.trim().is_empty() => message.trim().to_owned(),
        _ => error.trim_end_matches([':', ' ']).replace('_', " "),
    };
    match words.chars().last() {
        None | Some('.' | '!' | '?') => words,
        Some(_) => format!("{words}."),
    }
}

/// Where a payment is shown.
fn page_of(payment: &Payment) -> String {
    match payment.purpose.invoice() {
        Some(invoice) => format!("/invoices/{invoice}"),
        None => "/credit".to_owned(),
    }
}

/// What became of a payment, as the pages' notices name it.
pub(crate) fn outcome_name(payment: &Payment) -> &'static str {
    match payment.state {
        PaymentState::Succeeded => "paid",
        PaymentState::Failed => "declined",
        PaymentState::Cancelled => "given-up",
        PaymentState::RequiresAction => "confirm",
        PaymentState::Intent | PaymentState::Unknown | PaymentState::Processing => "under-way",
    }
}

/// What a page says after something was paid or given up: a notice, or a problem.
pub(crate) fn outcome_words(name: &str) -> (Option<&'static str>, Option<&'static str>) {
    match name {
        "paid" => (Some("The payment went through. Thank you."), None),
        "given-up" => (Some("The payment was cancelled. Nothing was charged."), None),
        "declined" => (
            None,
            Some("The payment did not go through, and nothing was charged. Try again, or pay with another method."),
        ),
        "kept" => (
            None,
            Some("The payment provider cancels this payment within a day. Until then it can still be confirmed."),
        ),
        "silent" => (
            None,
            Some("The payment provider does not answer at present. Nothing was changed: try again in a moment."),
        ),
        _ => (None, None),
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct EmptyForm {}

/// What came of a payment, for the audit log.
pub(crate) fn outcome_change(payment: &Payment) -> serde_json::Value {
    serde_json::json!({"payment": payment.id, "amount": payment.amount.to_string(), "state": payment.state.to_string()})
}

/// Gives up a payment of the customer's that waits to be confirmed, so that another can be made. What the gateway says then
/// counts, and that may be that the money came.
pub(crate) async fn give_up(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    let id: PaymentId = id.parse().map_err(|_| Failure::NotFound)?;
    let before = payment::payment(state.db().pool(), id).await?;
    // S1: another customer's is not found.
    if before.customer != customer.id {
        return Err(Failure::NotFound.into());
    }
    let page = page_of(&before);
    let gateway = state.gateways().get(before.gateway)?;
    let begins = Note::new("payment.cancel", id);
    let cancel = payment::cancel(state.db(), gateway, id, state.now_ms());
    let done = match action::in_steps(&state, (&who, ip), begins, cancel, outcome_change).await? {
        Ok(after) => {
            after_payment(&state, &after).await;
            match after.state {
                PaymentState::RequiresAction => "kept",
                _ => outcome_name(&after),
            }
        }
        Err(error @ PaymentError::Gateway { .. }) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(error, payment = %id, "a payment was not given up");
            "silent"
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Redirect::to(&format!("{page}?done={done}")).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct RestartPaymentForm {
    #[serde(default)]
    form_token: String,
}

/// Begins a payment of an invoice anew, by the same method, so that its customer gets a page to confirm it on: the one that
/// was charged while they were away is cancelled first.
pub(crate) async fn confirm(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, form): CsrfForm<RestartPaymentForm>,
) -> Result<Response, PageError> {
    let id: PaymentId = id.parse().map_err(|_| Failure::NotFound)?;
    let before = payment::payment(state.db().pool(), id).await?;
    // S1: another customer's is not found.
    if before.customer != customer.id {
        return Err(Failure::NotFound.into());
    }
    let (Some(invoice), Some(method)) = (before.purpose.invoice(), before.method) else {
        return Err(Failure::NotFound.into());
    };
    if !once::is_token(&form.form_token) {
        return Err(Failure::BadRequest("The form is not complete. Load the page again and retry.".to_owned()).into());
    }
    let page = page_of(&before);
    let to = |done: &str| Redirect::to(&format!("{page}?done={done}")).into_response();
    let gateway = state.gateways().get(before.gateway)?;
    if before.state == PaymentState::RequiresAction {
        let begins = Note::new("payment.cancel", id);
        let cancel = payment::cancel(state.db(), gateway, id, state.now_ms());
        match action::in_steps(&state, (&who, ip), begins, cancel, outcome_change).await? {
            Ok(after) if matches!(after.state, PaymentState::Cancelled | PaymentState::Failed) => {}
            Ok(after) if after.state == PaymentState::RequiresAction => return Ok(to("kept")),
            Ok(after) => {
                after_payment(&state, &after).await;
                return Ok(to(outcome_name(&after)));
            }
            Err(error @ PaymentError::Gateway { .. }) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, payment = %id, "a payment was not restarted");
                return Ok(to("silent"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let found = invoice_of(&state, customer.id, &invoice.to_string()).await?;
    let back = format!("{}{page}", state.portal_url());
    let note = format!("invoice {}", found.invoice.number);
    let new = NewPayment {
        customer: customer.id,
        invoice: Some(invoice),
        amount: None,
        method,
        note: &note,
        return_url: Some(&back),
    };
    let start = payment::start_once(state.db(), gateway, &new, &form.form_token, state.now_ms());
    let begins = Note::new("payment.charge", invoice);
    match action::in_steps(&state, (&who, ip), begins, start, outcome_change).await? {
        Ok(payment) => {
            after_payment(&state, &payment).await;
            Ok(match bank_page(&state, &payment) {
                Some(path) => Redirect::to(path).into_response(),
                None => to(outcome_name(&payment)),
            })
        }
        // The page says how it stands.
        Err(PaymentError::UnderWay { .. } | PaymentError::NotOpen { .. } | PaymentError::NotPositive(_)) => {
            Ok(Redirect::to(&page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// The page on which a payment is confirmed, where it is the portal's own, as that of the test bank: browsers let a form lead
/// there. To one elsewhere the page of the payment has a link.
fn bank_page<'a>(state: &AppState, payment: &'a Payment) -> Option<&'a str> {
    let path = payment.action_url.strip_prefix(state.portal_url())?;
    (payment.state == PaymentState::RequiresAction && path.starts_with('/')).then_some(path)
}

/// The customer is back from the bank's page, whose address names the payment as the gateway does. Asked at once, nobody waits
/// for the webhook. `None` when no payment of theirs waits under this name, or nobody answers.
pub(crate) async fn returned(
    state: &AppState,
    customer: CustomerId,
    invoice: Option<InvoiceId>,
    reference: &str,
) -> Result<Option<Payment>, Failure> {
    if reference.is_empty() {
        return Ok(None);
    }
    let filter = PaymentFilter {
        customer: Some(customer),
        invoice,
        top_ups: invoice.is_none(),
        ..PaymentFilter::default()
    };
    let last = payment::list(state.db().pool(), filter, 1).await?.into_iter().next();
    let Some(waits) = last.filter(|last| last.reference.as_deref() == Some(reference)) else {
        return Ok(None);
    };
    let gateway = state.gateways().get(waits.gateway)?;
    match payment::query_gateway(state.db(), gateway, waits.id, state.now_ms()).await {
        Ok(payment) => {
            after_payment(state, &payment).await;
            Ok(Some(payment))
        }
        Err(error @ PaymentError::Gateway { .. }) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(error, payment = %waits.id, "the gateway did not report the state of a confirmed payment");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What the customer gets for a payment at once: a budget that it unlocks. What fails here is done by the next look at budgets.
pub(crate) async fn after_payment(state: &AppState, payment: &Payment) {
    if payment.state != PaymentState::Succeeded {
        return;
    }
    let usage = metered_usage(state);
    if let Err(error) = budget::unlock_by_payment(state.db(), &usage, payment.customer, state.now_ms()).await {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(error, customer = %payment.customer, "a budget was not checked after a payment");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_without_the_gateway_s_codes() {
        for (error, words) in [
            (
                "insufficient_funds: Your card has insufficient funds.",
                "Your card has insufficient funds.",
            ),
            (
                "not_sent: the request was not sent: no connection",
                "The payment provider could not be reached.",
            ),
            ("card_declined: ", "card declined."),
            ("card_declined: Your card was declined", "Your card was declined."),
            ("", ""),
        ] {
            assert_eq!(error_words(error), words);
        }
    }
}
