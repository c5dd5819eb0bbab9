//! Services that move to another customer (F-27): requested, approved by who verified both parties, completed.

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::approval::{Gate, wanted};
use billing::subscription::transfer::{self, TransferStatus};
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, ServiceId, TransferId};
use serde_json::json;
use sqlx::Row as _;

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

struct Row {
    id: TransferId,
    service: String,
    from: CustomerId,
    from_name: String,
    to: CustomerId,
    to_name: String,
    ticket: String,
    status: &'static str,
    badge: &'static str,
    asked: String,
    approved_by: String,
    reason: String,
    can_approve: bool,
    can_complete: bool,
    can_cancel: bool,
}

#[derive(Template)]
#[template(path = "admin_transfers.html")]
struct TransfersPage {
    shell: Shell,
    draft: Draft,
    rows: Vec<Row>,
    notice: Option<&'static str>,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = match shown.done.as_str() {
        "add" => Some("Transfer requested; both parties were notified."),
        "approve" => Some("Approved: it can be completed."),
        "complete" => Some("The service is the new owner's; both sides are charged for their days."),
        "cancel" => Some("The transfer was cancelled."),
        "asked" => Some("Requested. A second admin decides."),
        _ => None,
    };
    render(&state, &admin, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    admin: &Admin,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let transfers = transfer::transfers(pool).await?;
    let mut rows = Vec::with_capacity(transfers.len());
    for transfer in transfers {
        let names = sqlx::query(
            "SELECT s.name, f.name, t.name FROM services s, customers f, customers t \
             WHERE s.id = $1 AND f.id = $2 AND t.id = $3",
        )
        .bind(transfer.service.0)
        .bind(transfer.from.0)
        .bind(transfer.to.0)
        .fetch_one(pool)
        .await?;
        let status = transfer.status;
        rows.push(Row {
            id: transfer.id,
            service: format!("{} ({})", names.try_get::<String, _>(0)?, transfer.service),
            from: transfer.from,
            from_name: names.try_get(1)?,
            to: transfer.to,
            to_name: names.try_get(2)?,
            ticket: transfer.ticket,
            status: status.name(),
            badge: match status {
                TransferStatus::Requested | TransferStatus::Approved => "info",
                TransferStatus::Completed => "ok",
                TransferStatus::Cancelled => "",
            },
            asked: format::minute(transfer.requested_at_ms, &TimeZone::UTC),
            approved_by: transfer.approved_by.unwrap_or_default(),
            reason: transfer.reason,
            can_approve: status == TransferStatus::Requested,
            can_complete: status == TransferStatus::Approved,
            can_cancel: matches!(status, TransferStatus::Requested | TransferStatus::Approved),
        });
    }
    let body = page(&TransfersPage {
        shell: Shell::new(&admin.0, "Transfers", PATH),
        rows,
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

pub(crate) async fn add(
    State(state): State<AppState>,
    admin: Admin,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done: Result<(), ActionFailure> = async {
        let service: ServiceId = fields.id("service")?;
        let to: CustomerId = fields.id("to")?;
        let ticket = fields.text("ticket");
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let id = transfer::request(action.connection(), service, to, ticket, now_ms).await?;
        let change = json!({"after": {"service": service, "to": to, "ticket": ticket}});
        action.commit(Note::new("transfer.request", id).change(change)).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/transfers", "add")),
        Err(refused) => render(&state, &admin, Draft::refused("add", refused, fields)?, None).await,
    }
}

/// `approve`, `complete` or `cancel`.
pub(crate) async fn step(
    State(state): State<AppState>,
    admin: Admin,
    Path((id, step)): Path<(String, String)>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let id: TransferId = id.parse().map_err(|_| Failure::NotFound)?;
    let before = match transfer::transfer(state.db().pool(), id).await {
        Err(BillingError::NoTransfer(_)) => return Err(Failure::NotFound.into()),
        found => found?,
    };
    if !["approve", "complete", "cancel"].contains(&step.as_str()) {
        return Err(Failure::NotFound.into());
    }
    let done: Result<&str, ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(step.as_str());
        };
        let (actor, now_ms) = (action.actor.clone(), action.now_ms);
        if step == "approve" {
            let wanted = wanted::service_transfer(action.connection(), id, now_ms).await?;
            if let Gate::Waits(asked) = action.gate(&wanted).await? {
                action.commit_entered(asked.entered).await?;
                return Ok("asked");
            }
        }
        let connection = action.connection();
        match step.as_str() {
            "approve" => transfer::approve(connection, id, &actor, now_ms).await?,
            "complete" => {
                transfer::complete(connection, id, &actor, now_ms).await?;
            }
            _ => transfer::cancel(connection, id, fields.text("reason"), now_ms).await?,
        }
        let after = transfer::transfer(action.connection(), id).await?;
        let change =
            json!({"before": {"status": before.status}, "after": {"status": after.status, "reason": after.reason}});
        action
            .commit(Note::new(format!("transfer.{step}"), id).change(change))
            .await?;
        Ok(step.as_str())
    }
    .await;
    match done {
        Ok(what) => Ok(super::done("/admin/transfers", what)),
        Err(refused) => render(&state, &admin, Draft::refused(id.to_string(), refused, fields)?, None).await,
    }
}
