//! What finance does to an invoice: credit note, void, write-off, and a bank transfer that came in for it.

use activity::act::Note;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::approval::{Gate, credit_note_risk, wanted};
use billing::invoice::{self, CreditPreview, InvoiceWithLines, Rebill};
use billing::payment::{Transfer, record_transfer_in};
use billing::settlement;
use serde_json::json;

use super::invoice::{href, show_with};
use super::invoice_preview::{self, WriteOff};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Finance};
use crate::customer;
use crate::error::PageError;
use crate::path::Path;
use crate::state::AppState;

/// The redirect after a done action, or the page again with why it was refused.
async fn answer(
    state: &AppState,
    finance: &Finance,
    found: InvoiceWithLines,
    form: &'static str,
    fields: Fields,
    done: Result<(), ActionFailure>,
) -> Result<Response, PageError> {
    match done {
        Ok(()) => Ok(Redirect::to(&format!("{}?done={form}", href(found.invoice.id))).into_response()),
        Err(refused) => show_with(state, finance, found, Draft::refused(form, refused, fields)?).await,
    }
}

/// A credit note over the whole or a gross amount: shown first, then issued as it was shown.
pub(crate) async fn credit(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &id).await?;
    let currency = found.invoice.currency;
    let gross = match fields.text("amount") {
        "" => Ok(None),
        _ => fields.money("amount", currency).map(Some),
    };
    let reason = fields.text("reason").to_owned();
    if fields.text("do") != "issue" {
        let previewed: Result<CreditPreview, ActionFailure> = async {
            let gross = gross?;
            if reason.is_empty() {
                return Err(said("Enter a reason: it is printed on the credit note."));
            }
            let mut connection = state.db().pool().acquire().await?;
            Ok(invoice::preview_credit(&mut connection, found.invoice.id, gross, &reason).await?)
        }
        .await;
        return match previewed {
            Ok(preview) => {
                let asked = fields.money("amount", currency).ok();
                invoice_preview::credit_note(&finance, &found.invoice, preview, asked, &fields)
            }
            Err(refused) => show_with(&state, &finance, found, Draft::refused("credit", refused, fields)?).await,
        };
    }
    let done = async {
        let gross = gross?;
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok(());
        };
        let (now_ms, shown) = (action.now_ms, fields.text("shown"));
        let connection = action.connection();
        let (note, preview) =
            invoice::credit_gross(connection, found.invoice.id, gross, &reason, Some(shown), now_ms).await?;
        let change = json!({"before": {"open": found.invoice.outstanding().to_string()},
            "after": preview.change(note, &reason)});
        let risk = credit_note_risk(action.connection(), note, now_ms).await?;
        action
            .commit(Note::new("invoice.credit", found.invoice.id).change(change).risk(risk))
            .await
    }
    .await;
    answer(&state, &finance, found, "credit", fields, done).await
}

/// Makes the invoice void, and charges what was on it again if asked to: shown first, by a try that is rolled back, then done.
pub(crate) async fn void(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &id).await?;
    let rebill = if fields.is_ticked("rebill") {
        Rebill::Yes
    } else {
        Rebill::No
    };
    let reason = fields.text("reason").to_owned();
    if fields.text("do") != "void" {
        let tried: Result<(), ActionFailure> = async {
            if reason.is_empty() {
                return Err(said("Enter a reason: it is printed on the credit note."));
            }
            Ok(invoice::preview_void(state.db(), found.invoice.id, rebill, &reason, state.now_ms()).await?)
        }
        .await;
        return match tried {
            Ok(()) => invoice_preview::void(&finance, &found.invoice, rebill, &reason),
            Err(refused) => show_with(&state, &finance, found, Draft::refused("void", refused, fields)?).await,
        };
    }
    let done = async {
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let note = invoice::void(action.connection(), found.invoice.id, rebill, &reason, now_ms).await?;
        let change = json!({"before": {"status": found.invoice.status},
            "after": {"status": "void", "credit_note": note, "charged_again": rebill == Rebill::Yes, "reason": reason}});
        let risk = credit_note_risk(action.connection(), note, now_ms).await?;
        action
            .commit(Note::new("invoice.void", found.invoice.id).change(change).risk(risk))
            .await
    }
    .await;
    answer(&state, &finance, found, "void", fields, done).await
}

/// Gives up what is open: shown first, then done as it was shown.
pub(crate) async fn write_off(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &id).await?;
    let reason = fields.text("reason").to_owned();
    if fields.text("do") != "write_off" {
        let previewed: Result<WriteOff, ActionFailure> = async {
            if reason.is_empty() {
                return Err(said("Enter a reason for the write-off."));
            }
            let mut connection = state.db().pool().acquire().await?;
            invoice_preview::write_off_of(&mut connection, found.invoice.id, found.invoice.customer).await
        }
        .await;
        return match previewed {
            Ok(write_off) => invoice_preview::write_off(&finance, &found.invoice, write_off, &reason),
            Err(refused) => show_with(&state, &finance, found, Draft::refused("write_off", refused, fields)?).await,
        };
    }
    let done = async {
        if reason.is_empty() {
            return Err(said("Enter a reason for the write-off."));
        }
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok(false);
        };
        let invoice = &found.invoice;
        let shown = invoice_preview::write_off_of(action.connection(), invoice.id, invoice.customer).await?;
        if fields.text("shown") != shown.shown() {
            return Err(said(
                "The amounts changed since they were shown. Preview the write-off again.",
            ));
        }
        let now_ms = action.now_ms;
        let wanted = wanted::write_off(action.connection(), found.invoice.id, &reason, now_ms).await?;
        if let Gate::Waits(asked) = action.gate(&wanted).await? {
            action.commit_entered(asked.entered).await?;
            return Ok(true);
        }
        let amount = settlement::write_off(action.connection(), found.invoice.id, &reason, now_ms).await?;
        let open = found.invoice.outstanding();
        if amount.minor == 0 && open.minor <= 0 {
            return Err(said("Nothing of it is open."));
        }
        // The customer's credit may have paid all of it.
        let status = if amount.minor > 0 { "uncollectible" } else { "paid" };
        let change = json!({"before": {"open": open.to_string()},
            "after": {"status": status, "written_off": amount.to_string(), "reason": reason}});
        action
            .commit(Note::new("invoice.write_off", found.invoice.id).change(change))
            .await?;
        Ok(false)
    }
    .await;
    if let Ok(true) = done {
        return Ok(Redirect::to(&format!("{}?done=asked", href(found.invoice.id))).into_response());
    }
    answer(&state, &finance, found, "write_off", fields, done.map(drop)).await
}

/// A bank transfer that came in for it; more than is open becomes credit.
pub(crate) async fn transfer(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &id).await?;
    let done = async {
        let amount = fields.money("amount", found.invoice.currency)?;
        let reference = fields.text("reference").to_owned();
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let transfer = Transfer {
            customer: found.invoice.customer,
            invoice: Some(found.invoice.id),
            amount,
            reference: &reference,
            note: fields.text("note"),
            value_date: fields.optional_date("value_date")?,
        };
        let payment = record_transfer_in(action.connection(), &transfer, now_ms).await?;
        let change = json!({"before": {"open": found.invoice.outstanding().to_string()},
            "after": {"payment": payment.id, "amount": amount.to_string(), "reference": reference,
                "value_date": payment.value_date().map(|date| date.to_string())}});
        action
            .commit(Note::new("payment.record_transfer", found.invoice.id).change(change))
            .await
    }
    .await;
    answer(&state, &finance, found, "transfer", fields, done).await
}

/// What was done, for the page after it.
pub(super) fn notice(done: &str) -> Option<&'static str> {
    match done {
        "credit" => Some("Credit note issued and applied."),
        "void" => Some("Invoice voided: a credit note credits all of it."),
        "write_off" => Some("Open amount written off."),
        "transfer" => Some("Transfer recorded."),
        "asked" => Some("Requested. A second admin decides."),
        _ => None,
    }
}
