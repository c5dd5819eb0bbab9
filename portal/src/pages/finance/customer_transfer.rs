//! A bank transfer that came in for a customer and not for one invoice: it becomes credit, which pays what is open.

use activity::act::Note;
use axum::extract::State;
use axum::response::Response;
use billing::payment::{Transfer, record_transfer_in};
use serde_json::json;

use super::customer::{answer, find};
use crate::action::{Action, Fields};
use crate::auth::{ClientIp, CsrfForm, Finance};
use crate::error::PageError;
use crate::path::Path;
use crate::state::AppState;

pub(crate) async fn transfer(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let amount = fields.money("amount", customer.currency)?;
        let transfer = Transfer {
            customer: customer.id,
            invoice: None,
            amount,
            reference: fields.text("reference"),
            note: fields.text("note"),
            value_date: fields.optional_date("value_date")?,
        };
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok("transfer");
        };
        let now_ms = action.now_ms;
        let payment = record_transfer_in(action.connection(), &transfer, now_ms).await?;
        let change = json!({"after": {"payment": payment.id, "amount": amount.to_string(),
            "reference": payment.reference, "value_date": payment.value_date().map(|date| date.to_string())}});
        action
            .commit(Note::new("payment.record_transfer", customer.id).change(change))
            .await?;
        Ok("transfer")
    }
    .await;
    answer(&state, &finance, customer, "transfer", fields, done).await
}
