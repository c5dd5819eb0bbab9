//! What waits for a second admin, and what was decided (F-60).

use activity::approval::{self, Approval, Status};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::action::Action as RequestedAction;
use billing::approval::{ExecutionOutcome, carry_out};
use billing::ledger::{self, Owed};
use billing::refund::{self, Preview, RefundRequest};
use billing::subscription::{Contract, SubscriptionState, contracts_of};
use jiff::tz::TimeZone;
use schemas::identity;
use schemas::ids::{ApprovalId, CustomerId, UserId};
use schemas::money::{Currency, Money, MoneyError};

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// Decided requests that are shown.
const SHOWN: i64 = 100;

struct Row {
    id: ApprovalId,
    kind: String,
    subject: String,
    summary: String,
    status: &'static str,
    badge: &'static str,
    asked_by: String,
    asked: String,
    decided: String,
    reason: String,
    /// What is left for a person once it is approved.
    by_hand: Option<String>,
    is_pending: bool,
    expires: String,
    /// The entries of request and decision in the audit log.
    entries: String,
    /// Whoever asked does not decide, and whom it is about neither.
    is_own: bool,
    is_about_oneself: bool,
    /// Of a refund that is pending: what it would do now.
    refund: Option<CurrentRefund>,
    /// Of the deletion of an account that is pending: what it has now.
    account: Option<CurrentAccount>,
}

/// What an account whose deletion is requested owes, has and is subscribed to.
struct CurrentAccount {
    customer: CustomerId,
    owed: Vec<Owed>,
    /// Services with their plans that end.
    subscriptions: Vec<String>,
}

async fn account_now(
    state: &AppState,
    status: Status,
    asked: &RequestedAction,
) -> Result<Option<CurrentAccount>, Failure> {
    let RequestedAction::AccountDeletion { customer } = asked else {
        return Ok(None);
    };
    if status != Status::Pending {
        return Ok(None);
    }
    let mut connection = state.db().pool().acquire().await?;
    let owed = ledger::owed(&mut *connection, Some(*customer))
        .await
        .map_err(BillingError::from)?;
    let contracts = contracts_of(&mut connection, *customer).await?;
    let running = contracts
        .iter()
        .filter(|contract| contract.subscription.state != SubscriptionState::Ended);
    let name = |contract: &Contract| format!("{}: {}", contract.service.name, contract.last_phase().plan.name);
    Ok(Some(CurrentAccount {
        customer: *customer,
        owed,
        subscriptions: running.map(name).collect(),
    }))
}

impl Row {
    /// Its refund would do something else than when it was requested.
    fn is_changed(&self) -> bool {
        self.refund.as_ref().is_some_and(|now| !now.is_as_requested)
    }
}

/// What a requested refund would do now, and whether that is what was shown to who asked.
struct CurrentRefund {
    effect: Result<Preview, String>,
    is_as_requested: bool,
}

impl CurrentRefund {
    /// What the decision confirms.
    fn shown(&self) -> String {
        self.effect.as_ref().map(Preview::shown).unwrap_or_default()
    }
}

async fn refund_now(
    state: &AppState,
    status: Status,
    asked: &RequestedAction,
) -> Result<Option<CurrentRefund>, Failure> {
    let RequestedAction::Refund {
        payment,
        currency,
        amount_minor,
        reason,
        shown,
        ..
    } = asked
    else {
        return Ok(None);
    };
    if status != Status::Pending {
        return Ok(None);
    }
    let currency: Currency = currency
        .parse()
        .map_err(|error: MoneyError| Failure::internal("read an amount")(error.into()))?;
    let request = RefundRequest {
        payment: *payment,
        amount: Some(Money::new(*amount_minor, currency)),
        reason,
    };
    let mut connection = state.db().pool().acquire().await?;
    let effect = match refund::preview_to_decide(&mut connection, &request, state.now_ms()).await {
        Ok(preview) => Ok(preview),
        Err(error) => match ActionFailure::from(error) {
            ActionFailure::ByRule(why) => Err(why),
            ActionFailure::Failed(failure) => return Err(failure),
        },
    };
    Ok(Some(CurrentRefund {
        is_as_requested: effect.as_ref().is_ok_and(|preview| preview.shown() == *shown),
        effect,
    }))
}

#[derive(Template)]
#[template(path = "admin_approvals.html")]
struct ApprovalsPage {
    shell: Shell,
    draft: Draft,
    rows: Vec<Row>,
    notice: Option<&'static str>,
}

async fn email_of(state: &AppState, user: UserId) -> Result<String, Failure> {
    let found = identity::user(state.db().pool(), user).await?;
    Ok(found.ok_or(sqlx::Error::RowNotFound)?.email)
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = match shown.done.as_str() {
        "approved" => Some("Approved and executed."),
        "rejected" => Some("Rejected."),
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
    let found = approval::list(state.db().pool(), None, None, SHOWN).await?;
    let mut rows = Vec::with_capacity(found.len());
    for approval in found {
        let decided = match (approval.decided_by, approval.decided_at_ms) {
            (Some(by), Some(at_ms)) => {
                format!(
                    "{}, {}",
                    email_of(state, by).await?,
                    format::minute(at_ms, &TimeZone::UTC)
                )
            }
            _ => String::new(),
        };
        rows.push(row(approval, decided, state, admin.0.user.id).await?);
    }
    // Those that wait come first.
    rows.sort_by_key(|row| !row.is_pending);
    let body = page(&ApprovalsPage {
        shell: Shell::new(&admin.0, "Approvals", PATH),
        rows,
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

async fn row(approval: Approval, decided: String, state: &AppState, user: UserId) -> Result<Row, Failure> {
    let asked = RequestedAction::of(&approval)?;
    Ok(Row {
        refund: refund_now(state, approval.status, &asked).await?,
        account: account_now(state, approval.status, &asked).await?,
        id: approval.id,
        kind: approval.kind.replace('_', " "),
        status: approval.status.name(),
        badge: match approval.status {
            Status::Pending => "info",
            Status::Approved => "ok",
            Status::Rejected | Status::Expired => "warn",
        },
        asked_by: approval::requester(&mut *state.db().pool().acquire().await?, &approval).await?,
        expires: format::minute(approval.expires_at_ms, &TimeZone::UTC),
        entries: [approval.request_entry, approval.decision_entry]
            .into_iter()
            .flatten()
            .map(|entry| entry.to_string())
            .collect::<Vec<_>>()
            .join(", "),
        asked: format::minute(approval.requested_at_ms, &TimeZone::UTC),
        decided,
        is_pending: approval.status == Status::Pending,
        by_hand: Some(&asked)
            .filter(|_| [Status::Pending, Status::Approved].contains(&approval.status))
            .and_then(RequestedAction::manual_step),
        is_own: approval.requested_by == Some(user),
        is_about_oneself: approval.subject == user.to_string(),
        subject: approval.subject,
        summary: approval.summary,
        reason: approval.reason,
    })
}

fn id_of(id: &str) -> Result<ApprovalId, Failure> {
    id.parse().map_err(|_| Failure::NotFound)
}

/// Approves, and does what was asked for in the same transaction: what cannot be done is not approved.
pub(crate) async fn approve(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let id = id_of(&id)?;
    approval::approval(state.db().pool(), id).await?;
    let done: Result<&'static str, ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok("approved");
        };
        let (now_ms, user, ip) = (action.now_ms, action.user, action.ip.clone());
        let (name, by) = (action.actor.clone(), approval::Admin { user, ip: &ip });
        let shown = fields.text("shown");
        let (done, note) = carry_out(action.connection(), id, (by, &name), shown, now_ms).await?;
        action.commit_decision(id, note).await?;
        if let ExecutionOutcome::Refunding { refund, .. } = done {
            refund::ask(state.db(), state.gateways(), refund, now_ms).await?;
        }
        Ok("approved")
    }
    .await;
    match done {
        Ok(said) => Ok(super::done("/admin/approvals", said)),
        Err(refused) => render(&state, &admin, Draft::refused(id.to_string(), refused, fields)?, None).await,
    }
}

pub(crate) async fn reject(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let id = id_of(&id)?;
    approval::approval(state.db().pool(), id).await?;
    let done: Result<(), ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let (now_ms, user, ip) = (action.now_ms, action.user, action.ip.clone());
        let by = approval::Admin { user, ip: &ip };
        let note = approval::reject(action.connection(), id, by, fields.text("reason"), now_ms).await?;
        action.commit_decision(id, note).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/approvals", "rejected")),
        Err(refused) => render(&state, &admin, Draft::refused(id.to_string(), refused, fields)?, None).await,
    }
}
