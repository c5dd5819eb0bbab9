//! A refund, in two steps: what is asked for, then what it does to the credit note, the payment and the customer's credit, to
//! be confirmed. Above a threshold it waits for a second admin.

use activity::act::{By, Note};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::payment::{GatewayName, Payment, PaymentState};
use billing::refund::{self, Preview, RefundBalance, RefundConfirmation, RefundRequest};

use super::PATH;
use super::payments::{find, name_of};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Finance};
use crate::error::{Failure, PageError, page};
use crate::path::Path;
use crate::shell::Shell;
use crate::state::AppState;

/// Name of the form.
const FORM: &str = "refund";

#[derive(Template)]
#[template(path = "finance_refund.html")]
struct RefundPage {
    shell: Shell,
    draft: Draft,
    payment: Payment,
    customer_name: String,
    standing: RefundBalance,
    is_paid: bool,
    /// Came by bank transfer.
    is_transfer: bool,
    proposed: String,
    preview: Option<Preview>,
    amount: String,
    reason: String,
    reference: String,
}

/// How a payment stands, for pages.
pub(super) async fn refund_balance(state: &AppState, payment: &Payment) -> Result<RefundBalance, Failure> {
    let mut connection = state.db().pool().acquire().await?;
    Ok(refund::refund_balance(&mut connection, payment.id).await?)
}

async fn render(
    state: &AppState,
    finance: &Finance,
    payment: Payment,
    draft: Draft,
    preview: Option<Preview>,
    fields: &Fields,
) -> Result<Response, PageError> {
    let standing = refund_balance(state, &payment).await?;
    let body = page(&RefundPage {
        shell: Shell::new(&finance.0, format!("Refund {}", payment.id), PATH),
        customer_name: name_of(state, payment.customer).await?,
        proposed: standing.left.to_major().to_string(),
        is_paid: payment.state == PaymentState::Succeeded,
        is_transfer: payment.gateway == GatewayName::Manual,
        standing,
        preview,
        amount: fields.text("amount").to_owned(),
        reason: fields.text("reason").to_owned(),
        reference: fields.text("reference").to_owned(),
        payment,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

pub(crate) async fn show(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let payment = find(&state, &id).await?;
    render(&state, &finance, payment, Draft::default(), None, &Fields::default()).await
}

/// What a form asks for.
fn asked<'a>(payment: &Payment, fields: &'a Fields) -> Result<RefundRequest<'a>, ActionFailure> {
    let reason = fields.text("reason");
    if reason.is_empty() {
        return Err(said("Say why it is refunded: it is printed on the credit note."));
    }
    let amount = match fields.text("amount") {
        "" => None,
        _ => Some(fields.money("amount", payment.amount.currency)?),
    };
    if payment.gateway == GatewayName::Manual && fields.text("reference").is_empty() {
        return Err(said("Enter the bank's reference of the transfer that sends it back."));
    }
    Ok(RefundRequest {
        payment: payment.id,
        amount,
        reason,
    })
}

/// Shows what it does, or does it.
pub(crate) async fn refund(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let payment = find(&state, &id).await?;
    if fields.text("do") != "refund" {
        let previewed: Result<Preview, ActionFailure> = async {
            let request = asked(&payment, &fields)?;
            let mut connection = state.db().pool().acquire().await?;
            refund::check_gateway(&mut connection, state.gateways(), payment.id).await?;
            Ok(refund::preview(&mut connection, &request, state.now_ms()).await?)
        }
        .await;
        return match previewed {
            Ok(preview) => render(&state, &finance, payment, Draft::default(), Some(preview), &fields).await,
            Err(refused) => {
                let draft = Draft::refused(FORM, refused, fields.clone())?;
                render(&state, &finance, payment, draft, None, &fields).await
            }
        };
    }
    match confirm(&state, &finance, ip, &payment, &fields).await {
        Ok(done) => Ok(Redirect::to(&format!("{PATH}/payments/{}?done={done}", payment.id)).into_response()),
        Err(refused) => {
            let draft = Draft::refused(FORM, refused, fields.clone())?;
            render(&state, &finance, payment, draft, None, &fields).await
        }
    }
}

/// Does it, or asks a second admin for it. Credit note, refund and audit entry are kept before the gateway is asked, with the
/// form's token, so that a form that is sent twice refunds once.
async fn confirm(
    state: &AppState,
    finance: &Finance,
    ip: std::net::IpAddr,
    payment: &Payment,
    fields: &Fields,
) -> Result<&'static str, ActionFailure> {
    let request = asked(payment, fields)?;
    let Some(mut action) = Action::begin(state, &finance.0, ip, fields).await? else {
        return Ok("refund");
    };
    let (actor, now_ms) = (action.actor.clone(), action.now_ms);
    refund::check_gateway(action.connection(), state.gateways(), payment.id).await?;
    let preview = refund::preview(action.connection(), &request, now_ms).await?;
    let shown = fields.text("shown");
    let reference = fields.text("reference");
    if preview.needs_second_admin {
        let by = By::from(action.parts().1);
        let reference = Some(reference);
        let (asked, _) =
            refund::request_approval(action.connection(), &request, Some(shown), reference, &by, now_ms).await?;
        action.commit_entered(asked.entered).await?;
        return Ok("asked");
    }
    let confirmed = RefundConfirmation {
        shown: Some(shown),
        is_approved: false,
        reference: Some(reference),
        actor: &actor,
    };
    let made = refund::make(action.connection(), &request, &confirmed, now_ms).await?;
    let mut change = serde_json::json!({"after": made.preview.change(request.reason)});
    change["after"]["id"] = serde_json::json!(made.refund);
    change["after"]["credit_note_id"] = serde_json::json!(made.note);
    action
        .commit(Note::new("payment.refund", payment.id).change(change))
        .await?;
    if let Err(error) = refund::ask(state.db(), state.gateways(), made.refund, now_ms).await {
        // It is committed: whoever reconciles next asks for it.
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(error, refund = %made.refund, "a refund was not asked for yet");
    }
    Ok("refund")
}

#[cfg(test)]
mod tests;
