//! Paying an invoice with a saved method: once for each form, and never beside a payment that is under way (B4).

use activity::act::Note;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use billing::dunning::{self, Outlook};
use billing::invoice::InvoiceKind;
use billing::payment::{self, NewPayment, PaymentError, PaymentFilter, PaymentState};
use billing::settlement::{self, SettlementError};
use jiff::tz::TimeZone;
use schemas::ids::CustomerId;
use schemas::money::Money;
use serde_json::json;

use super::{PATH, PageMessages, invoice_page, zone_of};
use crate::action;
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::customer::invoice_of;
use crate::error::{Failure, PageError};
use crate::format;
use crate::once::{self, form_token};
use crate::pages::paying::{self, MethodChoice, PendingPayment};
use crate::pages::payment_methods::method_of;
use crate::path::Path;
use crate::state::AppState;

/// How an open invoice can be paid.
pub(super) struct PayView {
    pub(super) methods: Vec<MethodChoice>,
    /// What the customer's credit pays of it; absent where there is none.
    pub(super) credit: Option<Money>,
    pub(super) under_way: Option<PendingPayment>,
    /// Why the last payment failed.
    pub(super) failed: Option<String>,
    pub(super) instructions: String,
    /// Methods can be saved here.
    pub(super) takes_cards: bool,
    /// What pays it within minutes, in a sentence; absent where nothing does.
    pub(super) automatic: Option<String>,
    /// When the default method is charged, in a sentence; absent where there is none.
    pub(super) charge: Option<String>,
    /// What happens by itself while it is not paid, in sentences.
    pub(super) coming: Vec<String>,
    pub(super) form_token: String,
}

/// What still comes by itself, on days of the invoice's own zone.
fn coming_words(outlook: &Outlook, zone: &TimeZone) -> Vec<String> {
    let day = |at_ms: i64| format::date(at_ms, zone);
    let mut words = Vec::new();
    let charges: Vec<String> = outlook.charges_at_ms.iter().copied().map(day).collect();
    match &charges[..] {
        [] => {}
        [once] => words.push(format!("Your default payment method is charged on {once}.")),
        [first, rest @ ..] => words.push(format!(
            "Your default payment method is charged on {first} and, if that fails, again on {}.",
            rest.join(", ")
        )),
    }
    if let Some(at_ms) = outlook.suspends_at_ms {
        let meanwhile = match outlook.bills_suspended {
            true => "Suspended services are still charged.",
            false => "Whole days of suspension are not charged.",
        };
        words.push(format!(
            "If it is still open on {}, the services on it are suspended. {meanwhile}",
            day(at_ms)
        ));
    }
    if let Some(at_ms) = outlook.terminates_at_ms {
        words.push(format!(
            "Subscriptions that are suspended for it end on {}, and their data is deleted.",
            day(at_ms)
        ));
    }
    words
}

/// How long it takes until an invoice that was just finalised is collected.
const COLLECTED_WITHIN: &str = "within a few minutes";

/// What pays an invoice that collection comes to next: credit first, then the default payment method.
fn automatic_words(from_credit: i64, open: i64, default: Option<&MethodChoice>) -> Option<String> {
    match default {
        _ if from_credit >= open => Some(format!("Paid automatically from your credit {COLLECTED_WITHIN}.")),
        None => None,
        Some(method) if from_credit > 0 => Some(format!(
            "Your credit is used first; the rest is charged automatically to {} {COLLECTED_WITHIN}.",
            method.label
        )),
        Some(method) => Some(format!("Charged automatically to {} {COLLECTED_WITHIN}.", method.label)),
    }
}

fn ask(error: SettlementError) -> Failure {
    Failure::internal("settle an invoice")(error.into())
}

pub(super) async fn pay_view(
    state: &AppState,
    customer: CustomerId,
    invoice: &billing::invoice::Invoice,
) -> Result<PayView, Failure> {
    let filter = PaymentFilter {
        customer: Some(customer),
        invoice: Some(invoice.id),
        ..PaymentFilter::default()
    };
    let last = payment::list(state.db().pool(), filter, 1).await?.into_iter().next();
    let zone = zone_of(&invoice.time_zone);
    let mut connection = state.db().pool().acquire().await?;
    let credit = settlement::available_credit(&mut connection, customer, invoice.currency)
        .await
        .map_err(ask)?;
    let outlook = dunning::outlook(&mut connection, invoice.id)
        .await
        .map_err(|error| Failure::internal("ask how an invoice is collected")(error.into()))?;
    let is_charged_next = dunning::is_charged_next(&mut connection, invoice.id)
        .await
        .map_err(|error| Failure::internal("ask how an invoice is collected")(error.into()))?;
    drop(connection);
    let open = invoice.outstanding().minor;
    let from_credit = credit.minor.min(open);
    let methods = paying::choices(state, customer).await?;
    let automatic = match is_charged_next {
        true => automatic_words(from_credit, open, paying::default_of(&methods)),
        false => None,
    };
    let coming = outlook
        .as_ref()
        .map_or(Vec::new(), |outlook| coming_words(outlook, &zone));
    let is_charged = outlook.is_some_and(|outlook| !outlook.charges_at_ms.is_empty()) && !methods.is_empty();
    Ok(PayView {
        takes_cards: paying::saves_methods(state),
        charge: automatic
            .clone()
            .or_else(|| coming.first().filter(|_| is_charged).cloned()),
        automatic,
        methods,
        credit: (from_credit > 0).then(|| Money::new(from_credit, credit.currency)),
        under_way: last.as_ref().and_then(|last| PendingPayment::of(last, &zone)),
        failed: last
            .filter(|last| last.state == PaymentState::Failed)
            .map(|last| paying::error_words(&last.error)),
        instructions: invoice.seller.payment_instructions.clone(),
        coming,
        form_token: form_token(),
    })
}

#[derive(serde::Deserialize)]
pub(crate) struct PaymentForm {
    method: String,
    form_token: String,
}

pub(crate) async fn pay(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, form): CsrfForm<PaymentForm>,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    let method = method_of(&state, customer.id, &form.method).await?;
    let gateway = state.gateways().get(method.gateway)?;
    let page = format!("{PATH}/{}", found.invoice.id);
    if !once::is_token(&form.form_token) {
        return Err(Failure::BadRequest("The form is not complete. Load the page again and retry.".to_owned()).into());
    }
    let back = format!("{}{page}", state.portal_url());
    let note = format!("invoice {}", found.invoice.number);
    let new = NewPayment {
        customer: customer.id,
        invoice: Some(found.invoice.id),
        amount: None,
        method: method.id,
        note: &note,
        return_url: Some(&back),
    };
    let start = payment::start_once(state.db(), gateway, &new, &form.form_token, state.now_ms());
    let begins = Note::new("payment.charge", found.invoice.id);
    match action::in_steps(&state, (&who, ip), begins, start, paying::outcome_change).await? {
        Ok(payment) => {
            paying::after_payment(&state, &payment).await;
            Ok(Redirect::to(&page).into_response())
        }
        Err(error) => {
            let problem = match &error {
                PaymentError::UnderWay { .. } => "A payment of this invoice is under way already: wait for it.",
                PaymentError::NotOpen { .. } | PaymentError::NotPositive(_) => "Nothing is open on this invoice.",
                _ => return Err(error.into()),
            };
            let body = invoice_page(&state, &customer, found, PageMessages::problem(problem)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
        }
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct CreditPaymentForm {
    form_token: String,
}

/// Pays as much of an invoice as there is credit for, once for each form. Nothing is asked of a gateway.
pub(crate) async fn pay_from_credit(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, form): CsrfForm<CreditPaymentForm>,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    let page = format!("{PATH}/{}", found.invoice.id);
    if found.invoice.kind != InvoiceKind::Invoice {
        return Err(Failure::NotFound.into());
    }
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    if once::take(act.connection(), &form.form_token, now_ms).await? {
        let applied = settlement::apply_credit(act.connection(), found.invoice.id, now_ms)
            .await
            .map_err(ask)?;
        // There may be none left.
        if applied.minor > 0 {
            let change = json!({"before": {"open": found.invoice.outstanding().to_string()},
                "after": {"applied": applied.to_string()}});
            act.commit(Note::new("invoice.apply_credit", found.invoice.id).change(change))
                .await?;
        }
    }
    Ok(Redirect::to(&format!("{page}?done=credit")).into_response())
}
