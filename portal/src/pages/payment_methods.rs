//! What a customer pays with: saved with the gateway, on its own page; card numbers never come here.
//!
//! ```text
//! add ──▶ the gateway's page ──▶ return: a form that sends itself ──▶ the gateway is asked what was entered ──▶ saved
//!                            └─▶ webhook: the same, should the customer never come back
//! ```
//!
//! Whichever comes first saves it, and the other finds it saved. Whose it is the gateway says, not the address (S1).

#[cfg(test)]
mod tests;

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::payment::method::{self, PaymentMethod};
use billing::payment::{GatewayError, GatewayName, PaymentError};
use schemas::ids::{CustomerId, InvoiceId, PaymentMethodId};

use crate::action;
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::customer::invoice_of;
use crate::error::{Failure, PageError, page};
use crate::path::Path;
use crate::query::{PageQuery, filter};
use crate::security::policy_with_form_targets;
use crate::shell::Shell;
use crate::state::AppState;

const PATH: &str = "/payment-methods";

/// A gateway's name as people know it.
pub(super) fn gateway_words(gateway: GatewayName) -> &'static str {
    match gateway {
        GatewayName::Stripe => "Card or bank account (Stripe)",
        GatewayName::Paypal => "PayPal",
        GatewayName::Manual => "Bank transfer",
        GatewayName::Test => "Test card (no money moves)",
    }
}

struct MethodRow {
    id: String,
    label: String,
    kind: String,
    expires: String,
    is_default: bool,
}

struct GatewayChoice {
    name: &'static str,
    words: &'static str,
}

/// The customer is at the gateway's page.
struct Waiting {
    gateway: &'static str,
    words: &'static str,
    reference: String,
    url: String,
}

/// The customer came back from the gateway's page.
#[derive(Template)]
#[template(path = "payment_methods_return.html")]
struct ReturnPage {
    shell: Shell,
    gateway: &'static str,
    words: &'static str,
    reference: String,
    /// Of the invoice that the customer came from; empty where they did not.
    invoice: String,
}

#[derive(Template)]
#[template(path = "payment_methods.html")]
struct MethodsPage {
    shell: Shell,
    methods: Vec<MethodRow>,
    gateways: Vec<GatewayChoice>,
    /// Nothing real is paid here.
    is_test: bool,
    waiting: Option<Waiting>,
    /// The open invoice that the customer came from to pay it.
    paying: Option<InvoiceToPay>,
    notice: Option<&'static str>,
    problem: Option<String>,
}

/// An invoice that is to be paid by what is saved here.
struct InvoiceToPay {
    id: String,
    number: String,
}

/// The invoice that an address or a form names, where it is the customer's (S1); none otherwise.
async fn paying(state: &AppState, customer: &Customer, invoice: &str) -> Result<Option<InvoiceToPay>, Failure> {
    let Some(id): Option<InvoiceId> = filter("invoice", invoice, "an invoice such as inv_7")? else {
        return Ok(None);
    };
    match invoice_of(state, customer.id, &id.to_string()).await {
        Ok(found) => Ok(Some(InvoiceToPay {
            id: found.invoice.id.to_string(),
            number: found.invoice.number,
        })),
        Err(Failure::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `&invoice=inv_7`, so that the way back to that invoice is kept; nothing where none is named.
fn invoice_query(invoice: &str) -> String {
    match invoice.parse::<InvoiceId>() {
        Ok(invoice) => format!("&invoice={invoice}"),
        Err(_) => String::new(),
    }
}

/// `12/2030` of the `2030-12` that is stored, as cards have it.
fn month_words(stored: &str) -> String {
    match stored.split_once('-') {
        Some((year, month)) => format!("{month}/{year}"),
        None => stored.to_owned(),
    }
}

fn row(method: PaymentMethod) -> MethodRow {
    MethodRow {
        id: method.id.to_string(),
        label: method.label,
        kind: method.kind.replace('_', " "),
        expires: month_words(&method.expires),
        is_default: method.is_default,
    }
}

async fn methods_page(
    state: &AppState,
    customer: &Customer,
    waiting: Option<Waiting>,
    invoice: &str,
    (notice, problem): (Option<&'static str>, Option<String>),
) -> Result<Response, PageError> {
    let methods = method::methods(state.db().pool(), customer.id).await?;
    let gateways = state
        .gateways()
        .iter()
        .filter(|gateway| gateway.capabilities().saves_methods);
    let mut response = page(&MethodsPage {
        shell: Shell::new(&customer.who, "Payment methods", PATH),
        methods: methods.into_iter().map(row).collect(),
        gateways: gateways
            .map(|gateway| GatewayChoice {
                name: gateway.name().name(),
                words: gateway_words(gateway.name()),
            })
            .collect(),
        is_test: state.gateways().get(GatewayName::Test).is_ok(),
        waiting,
        paying: paying(state, customer, invoice).await?,
        notice,
        problem,
    })?;
    // Its forms lead to the gateways' pages.
    let origins: Vec<String> = state
        .gateways()
        .iter()
        .flat_map(|gateway| gateway.page_origins())
        .collect();
    if let Some(policy) = policy_with_form_targets(&origins) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

#[derive(serde::Deserialize)]
pub(crate) struct MethodsQuery {
    #[serde(default)]
    done: String,
    #[serde(default)]
    invoice: String,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(shown): PageQuery<MethodsQuery>,
) -> Result<Response, PageError> {
    let notice = match shown.done.as_str() {
        "added" => Some("The payment method was saved."),
        "default" => Some("This payment method is charged from now on."),
        "removed" => Some("The payment method was removed."),
        _ => None,
    };
    let problem = match shown.done.as_str() {
        "unfinished" => Some("It was not entered to the end, so nothing was saved. Start again when you like."),
        "silent" => Some(
            "The payment provider does not answer at present. What you entered there appears here as soon as it does.",
        ),
        _ => None,
    };
    let told = (notice, problem.map(str::to_owned));
    methods_page(&state, &customer, None, &shown.invoice, told).await
}

async fn refused(
    state: &AppState,
    customer: &Customer,
    waiting: Option<Waiting>,
    invoice: &str,
    problem: &str,
) -> Result<Response, PageError> {
    let body = methods_page(state, customer, waiting, invoice, (None, Some(problem.to_owned()))).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct AddMethodForm {
    gateway: String,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    invoice: String,
}

const SILENT: &str = "The payment provider does not answer at present. Nothing was changed: try again in a moment.";

pub(crate) async fn add(
    State(state): State<AppState>,
    customer: Customer,
    CsrfForm(_, form): CsrfForm<AddMethodForm>,
) -> Result<Response, PageError> {
    let name: GatewayName = form.gateway.parse()?;
    let gateway = state.gateways().get(name)?;
    let (here, invoice) = (format!("{}{PATH}", state.portal_url()), invoice_query(&form.invoice));
    let cancelled = match invoice.strip_prefix('&') {
        Some(query) => format!("{here}?{query}"),
        None => here.clone(),
    };
    let back = format!("{here}/return?gateway={name}{invoice}");
    let started = match method::start_setup(state.db(), gateway, customer.id, &back, &cancelled).await {
        Ok(started) => started,
        Err(PaymentError::Gateway { gateway, source }) => {
            log(gateway, &source);
            return refused(&state, &customer, None, &form.invoice, SILENT).await;
        }
        Err(error) => return Err(error.into()),
    };
    if !started.url.starts_with("https://") && !started.url.starts_with("http://") {
        return refused(
            &state,
            &customer,
            None,
            &form.invoice,
            "The payment provider gave no page to enter it on. Choose another payment method, or contact us.",
        )
        .await;
    }
    let leads_there = |origin: &String| started.url.starts_with(&format!("{origin}/"));
    if gateway.page_origins().iter().any(leads_there) {
        return Ok(Redirect::to(&started.url).into_response());
    }
    // A page at another address, such as a domain of one's own: browsers follow a link there, and no form.
    let waiting = Waiting {
        gateway: name.name(),
        words: gateway_words(name),
        reference: started.reference,
        url: started.url,
    };
    methods_page(&state, &customer, Some(waiting), &form.invoice, (None, None)).await
}

fn log(gateway: GatewayName, error: &GatewayError) {
    let error: &(dyn std::error::Error + 'static) = error;
    tracing::warn!(error, %gateway, "a payment method was not set up");
}

/// What a gateway adds to the address that the customer comes back to.
#[derive(serde::Deserialize)]
pub(crate) struct GatewayReturnQuery {
    #[serde(default)]
    gateway: String,
    #[serde(default)]
    reference: String,
    /// PayPal's name for it.
    #[serde(default)]
    approval_token_id: String,
    #[serde(default)]
    invoice: String,
}

/// Opening an address changes nothing: the page has a form that sends itself, or by its button.
pub(crate) async fn gateway_return(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(back): PageQuery<GatewayReturnQuery>,
) -> Result<Response, PageError> {
    let invoice: Option<InvoiceId> = filter("invoice", &back.invoice, "an invoice such as inv_7")?;
    let name: GatewayName = filter("gateway", &back.gateway, "stripe or paypal")?.ok_or(Failure::NotFound)?;
    state.gateways().get(name)?;
    page(&ReturnPage {
        shell: Shell::new(&customer.who, "Payment methods", PATH),
        gateway: name.name(),
        words: gateway_words(name),
        reference: match back.reference.as_str() {
            "" => back.approval_token_id,
            _ => back.reference,
        },
        invoice: invoice.map(|id| id.to_string()).unwrap_or_default(),
    })
}

/// What was saved, for the audit log.
fn method_change(method: &PaymentMethod) -> serde_json::Value {
    serde_json::json!({"method": method.id, "gateway": method.gateway.name()})
}

pub(crate) async fn returned(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, form): CsrfForm<AddMethodForm>,
) -> Result<Response, PageError> {
    let name: GatewayName = form.gateway.parse()?;
    let gateway = state.gateways().get(name)?;
    let finish = method::finish_setup(state.db(), gateway, customer.id, &form.reference, state.now_ms());
    let begins = Note::new("payment_method.add", customer.id);
    let done = match action::in_steps(&state, (&who, ip), begins, finish, method_change).await? {
        // An old address, opened again after the method was removed, says nothing.
        Ok(method) if method.removed_at_ms.is_some() => "known",
        Ok(_) => "added",
        Err(PaymentError::SetupUnfinished { .. }) => "unfinished",
        Err(PaymentError::Gateway { gateway, source }) => {
            log(gateway, &source);
            "silent"
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Redirect::to(&format!("{PATH}?done={done}{}", invoice_query(&form.invoice))).into_response())
}

pub(crate) async fn finish(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, form): CsrfForm<AddMethodForm>,
) -> Result<Response, PageError> {
    let name: GatewayName = form.gateway.parse()?;
    let gateway = state.gateways().get(name)?;
    // The gateway says whose setup it is (S1).
    let finish = method::finish_setup(state.db(), gateway, customer.id, &form.reference, state.now_ms());
    let begins = Note::new("payment_method.add", customer.id);
    match action::in_steps(&state, (&who, ip), begins, finish, method_change).await? {
        Ok(_) => {
            let invoice = invoice_query(&form.invoice);
            Ok(Redirect::to(&format!("{PATH}?done=added{invoice}")).into_response())
        }
        Err(error) => {
            let problem = match &error {
                PaymentError::SetupUnfinished { .. } => {
                    "It is not finished there yet. Open the page again, finish, then press the button."
                }
                PaymentError::Gateway { .. } => SILENT,
                _ => return Err(error.into()),
            };
            let waiting = Some(Waiting {
                gateway: name.name(),
                words: gateway_words(name),
                reference: form.reference,
                // As it was shown; it goes nowhere but back to who sent it.
                url: form.url,
            })
            .filter(|waiting| waiting.url.starts_with("https://"));
            refused(&state, &customer, waiting, &form.invoice, problem).await
        }
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct EmptyForm {}

pub(crate) async fn make_default(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    let id: PaymentMethodId = id.parse().map_err(|_| Failure::NotFound)?;
    let mut act = action::begin(&state, &who, ip).await?;
    method::set_default(act.connection(), customer.id, id).await?;
    act.commit(Note::new("payment_method.default", id)).await?;
    Ok(Redirect::to("/payment-methods?done=default").into_response())
}

pub(crate) async fn remove(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    let method = method_of(&state, customer.id, &id).await?;
    let gateway = state.gateways().get(method.gateway)?;
    let remove = method::remove(state.db(), gateway, customer.id, method.id, state.now_ms());
    let begins = Note::new("payment_method.remove", method.id);
    match action::in_steps(&state, (&who, ip), begins, remove, |()| serde_json::json!({})).await? {
        Ok(()) => Ok(Redirect::to("/payment-methods?done=removed").into_response()),
        Err(PaymentError::Gateway { .. }) => refused(&state, &customer, None, "", SILENT).await,
        Err(error) => Err(error.into()),
    }
}

/// One method of the customer; whatever else is named is not found (S1).
pub(super) async fn method_of(state: &AppState, customer: CustomerId, id: &str) -> Result<PaymentMethod, Failure> {
    let id: PaymentMethodId = id.parse().map_err(|_| Failure::NotFound)?;
    let methods = method::methods(state.db().pool(), customer).await?;
    methods
        .into_iter()
        .find(|method| method.id == id)
        .ok_or(Failure::NotFound)
}
