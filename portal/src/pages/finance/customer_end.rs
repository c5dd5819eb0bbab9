//! Ending all that a customer has, by an admin: every subscription, or the account (F-60). What ends more than a few
//! subscriptions, and any account, waits for a second admin.

use activity::act::{By, Note};
use axum::extract::State;
use axum::response::Response;
use billing::action::{Action as RequestedAction, NewRequest};
use billing::approval::{self, ExecutionOutcome, Gate, wanted};
use billing::subscription::{SubscriptionState, contracts_of};
use schemas::ids::SubscriptionId;
use schemas::inventory::Customer;
use serde_json::json;

use super::customer::{answer, find};
use crate::action::{Action, ActionFailure, Fields, said};
use crate::auth::{Admin, ClientIp, CsrfForm, Finance};
use crate::error::PageError;
use crate::path::Path;
use crate::state::AppState;

/// What runs; add-ons end with what they are beside.
async fn running(action: &mut Action, customer: &Customer) -> Result<Vec<SubscriptionId>, ActionFailure> {
    let contracts = contracts_of(action.connection(), customer.id).await?;
    let running = contracts
        .iter()
        .map(|contract| &contract.subscription)
        .filter(|subscription| subscription.state != SubscriptionState::Ended && subscription.parent.is_none());
    Ok(running.map(|subscription| subscription.id).collect())
}

/// What somebody asks for, about a customer.
fn request_of(customer: &Customer, wanted: RequestedAction, summary: String) -> NewRequest {
    NewRequest {
        action: wanted,
        subject: customer.id.to_string(),
        summary,
    }
}

/// Ends every subscription today: at once where they are few, else when a second admin approves it.
pub(crate) async fn terminate(
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
        let what = format!("all {count} subscriptions of {}", customer.name);
        let now_ms = action.now_ms;
        let wanted = wanted::termination(
            action.connection(),
            customer.id,
            subscriptions,
            (&what, &reason),
            now_ms,
        )
        .await?;
        if let Gate::Waits(asked) = action.gate(&wanted).await? {
            action.commit_entered(asked.entered).await?;
            return Ok("asked");
        }
        let (connection, by) = action.parts();
        let (what, _) = approval::execute(connection, &wanted.action, by.name, now_ms).await?;
        let (ExecutionOutcome::Executed(what) | ExecutionOutcome::Refunding { what, .. }) = what;
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
pub(crate) async fn delete(
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
        let wanted = request_of(
            &customer,
            RequestedAction::AccountDeletion { customer: customer.id },
            summary,
        );
        let (now_ms, by) = (action.now_ms, By::from(action.parts().1));
        let asked = billing::action::request(action.connection(), &wanted, &by, now_ms).await?;
        action.commit_entered(asked.entered).await?;
        Ok("asked")
    }
    .await;
    answer(&state, &Finance(admin.0), customer, "delete", fields, done).await
}
