//! Paying an invoice with a saved method: once for each form, and never beside a payment that is under way (B4).

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::payment::{self, NewPayment, PaymentError, PaymentFilter, State as Stand};
use schemas::ids::CustomerId;

use super::{PATH, invoice_page};
use crate::auth::{CsrfForm, Customer};
use crate::customer::invoice_of;
use crate::error::{Failure, PageError};
use crate::once::{self, form_token};
use crate::pages::payment_methods::method_of;
use crate::state::AppState;

/// How an open invoice can be paid.
pub(super) struct PayView {
    pub(super) methods: Vec<MethodChoice>,
    pub(super) under_way: Option<UnderWay>,
    /// Why the last payment failed.
    pub(super) failed: Option<String>,
    pub(super) instructions: String,
    pub(super) form_token: String,
}

pub(super) struct MethodChoice {
    pub(super) id: String,
    pub(super) label: String,
}

/// A payment that is not decided yet.
pub(super) struct UnderWay {
    pub(super) words: &'static str,
    /// Where the customer confirms it with the bank.
    pub(super) action_url: Option<String>,
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
    let under_way = last.as_ref().filter(|last| last.state.is_open()).map(|last| UnderWay {
        words: match last.state {
            Stand::RequiresAction => "Your bank wants you to confirm the payment.",
            Stand::Processing => "The payment is being processed. With some banks that takes days.",
            _ => "The payment is under way: we are asking the payment provider how it stands.",
        },
        action_url: Some(last.action_url.clone())
            .filter(|url| url.starts_with("https://") || url.starts_with("http://")),
    });
    let failed = last.filter(|last| last.state == Stand::Failed).map(|last| last.error);
    let methods = payment::method::methods(state.db().pool(), customer).await?;
    let methods = methods
        .into_iter()
        .filter(|method| state.gateways().get(method.gateway).is_ok())
        .map(|method| MethodChoice {
            id: method.id.to_string(),
            label: method.label,
        });
    Ok(PayView {
        methods: methods.collect(),
        under_way,
        failed,
        instructions: invoice.seller.payment_instructions.clone(),
        form_token: form_token(),
    })
}

#[derive(serde::Deserialize)]
pub(super) struct Paying {
    method: String,
    form_token: String,
}

pub(super) async fn pay(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    CsrfForm(_, form): CsrfForm<Paying>,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    let method = method_of(&state, customer.id, &form.method).await?;
    let gateway = state.gateways().get(method.gateway)?;
    let now_ms = state.now_ms();
    let page = format!("{PATH}/{}", found.invoice.id);
    let mut transaction = state.db().begin_write().await?;
    let is_new = once::take(&mut transaction, &form.form_token, now_ms).await?;
    transaction.commit().await?;
    if !is_new {
        return Ok(Redirect::to(&page).into_response());
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
    match payment::start(state.db(), gateway, &new, now_ms).await {
        Ok(_) => Ok(Redirect::to(&page).into_response()),
        Err(error) => {
            let problem = match &error {
                PaymentError::UnderWay { .. } => "A payment of this invoice is under way already: wait for it.",
                PaymentError::NotOpen { .. } | PaymentError::NotPositive(_) => "Nothing is open on this invoice.",
                _ => return Err(error.into()),
            };
            let body = invoice_page(&state, &customer, found, None, Some(problem)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
        }
    }
}
