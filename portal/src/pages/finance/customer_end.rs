//! Ending all that a customer has, by an admin: every subscription, or the account (F-60). What ends more than a few
//! subscriptions, and any account, waits for a second admin.

use activity::act::Note;
use activity::approval::MAX_REASON_CHARS;
use axum::extract::{Path, State};
use axum::response::Response;
use billing::approval::{self, Action as Asked, Done, NewRequest};
use billing::subscription::{State as Stand, contracts_of};
use schemas::ids::SubscriptionId;
use schemas::inventory::Customer;
use serde_json::json;

use super::customer::{answer, find};
use crate::action::{Action, Fields, Refused, said};
use crate::auth::{Admin, ClientIp, CsrfForm, Finance};
use crate::error::PageError;
use crate::state::AppState;

/// What runs; add-ons end with what they are beside.
async fn running(action: &mut Action, customer: &Customer) -> Result<Vec<SubscriptionId>, Refused> {
    let contracts = contracts_of(action.connection(), customer.id).await?;
    let running = contracts
        .iter()
        .map(|contract| &contract.subscription)
        .filter(|subscription| subscription.state != Stand::Ended && subscription.parent.is_none());
    Ok(running.map(|subscription| subscription.id).collect())
}

/// Asks a second admin.
async fn ask(mut action: Action, customer: &Customer, wanted: Asked, summary: &str) -> Result<(), Refused> {
    let summary: String = summary.chars().take(MAX_REASON_CHARS).collect();
    let (now_ms, user, ip) = (action.now_ms, action.user, action.ip.clone());
    let new = NewRequest {
        action: wanted,
        subject: &customer.id.to_string(),
        summary: &summary,
    };
    let by = approval::Admin { user, ip: &ip };
    let asked = approval::request(action.connection(), new, by, now_ms).await?;
    action.commit_entered(asked.entered).await
}

/// Ends every subscription today: at once where they are few, else when a second admin approves it.
pub(super) async fn terminate(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let reason = fields.text("reason").to_owned();
        if reason.is_empty() {
            return Err(said("Say why they end: the customer reads it."));
        }
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok("terminated");
        };
        let subscriptions = running(&mut action, &customer).await?;
        let count = subscriptions.len();
        if count == 0 {
            return Err(said("No active subscription."));
        }
        let wanted = Asked::BulkTermination { subscriptions, reason };
        if wanted.needs_second_admin() {
            let reason = fields.text("reason");
            let summary = format!(
                "End all {count} subscriptions of {} today. Reason: {reason}",
                customer.name
            );
            ask(action, &customer, wanted, &summary).await?;
            return Ok("asked");
        }
        let now_ms = action.now_ms;
        let (connection, by) = action.parts();
        let (what, _) = approval::execute(connection, &wanted, by.name, now_ms).await?;
        let (Done::Executed(what) | Done::Refunding { what, .. } | Done::ByHand(what)) = what;
        let change = json!({"after": {"done": what, "reason": fields.text("reason")}});
        action
            .commit(Note::new("customer.terminate", customer.id).change(change))
            .await?;
        Ok("terminated")
    }
    .await;
    answer(&state, &Finance(admin.0), customer, "terminate", fields, done).await
}

/// Asks for the account's deletion, which a second admin decides on.
pub(super) async fn delete(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let customer = find(&state, &id).await?;
    let done = async {
        let reason = fields.text("reason");
        if reason.is_empty() {
            return Err(said("Say why the account is deleted: the other admin reads it."));
        }
        if customer.deleted_at_ms.is_some() {
            return Err(said("This account was deleted before."));
        }
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok("asked");
        };
        let count = running(&mut action, &customer).await?.len();
        let summary = format!(
            "Delete the account of {}: {count} subscriptions end at once, nobody signs in any more. Reason: {reason}",
            customer.name
        );
        let wanted = Asked::AccountDeletion { customer: customer.id };
        ask(action, &customer, wanted, &summary).await?;
        Ok("asked")
    }
    .await;
    answer(&state, &Finance(admin.0), customer, "delete", fields, done).await
}
