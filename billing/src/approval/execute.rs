//! Doing what was approved, in the transaction of the approval.

use activity::act::Note;
use activity::channel::endpoint;
use activity::password_reset::{self, PasswordResetError};
use schemas::identity::{self, Role, SessionsToEnd};
use schemas::ids::{ApprovalId, CustomerId, RefundId, UserId};
use schemas::inventory;
use schemas::money::{Currency, Money, MoneyError};
use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::Admin;
use crate::action::{Action, ActionError, PriceVersion};
use crate::catalog::NewPrice;
use crate::catalog_act::add_price_moving;
use crate::invoice::add_item;
use crate::price::UsagePrice;
use crate::refund::{self, RefundConfirmation, RefundError, RefundRequest};
use crate::settlement::SettlementError;
use crate::subscription::change::{CancellationTime, cancel};
use crate::subscription::transfer;
use crate::subscription::{SubscriptionState, contracts_of, subscription};
use crate::top_up::TopUpError;
use crate::{BillingError, exclusion, settlement, top_up};

/// Why an approved action was not done; then it is not approved either.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error(transparent)]
    Action(#[from] ActionError),
    #[error("do what was approved")]
    Billing(#[from] BillingError),
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read an amount")]
    Money(#[from] MoneyError),
    #[error("read a usage price")]
    Usage(#[from] serde_json::Error),
    #[error("refund what was approved")]
    Refund(#[from] RefundError),
    #[error("grant what was approved")]
    TopUp(#[from] TopUpError),
    #[error("settle what was approved")]
    Settlement(#[from] SettlementError),
    #[error("end the links of a user")]
    PasswordReset(#[from] PasswordResetError),
    #[error("the request is out of date: {0}; reject it, and request again what is still needed")]
    Changed(String),
}

schemas::error_codes! {
    ExecuteError: "approval_execution";
    of [Action, Billing, Database, Money, Refund, TopUp, Settlement, PasswordReset]
    source []
    Conflict: Changed = "changed";
    Fault: Usage = "usage";
}

/// What became of an approved action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExecutionOutcome {
    /// It was done; what exactly, in a sentence.
    Executed(String),
    /// It is written down, and its gateway is asked once this is committed ([`crate::refund::ask`], or who reconciles next).
    Refunding { refund: RefundId, what: String },
}

impl Action {
    /// What is left for a person once it is approved, and for whom; `None` where approving it does all there is to do.
    pub fn manual_step(&self) -> Option<String> {
        match self {
            Action::AccountDeletion { customer } => Some(format!(
                "Finance: once the last invoice of {customer} is paid, delete its payment methods at the gateway."
            )),
            _ => None,
        }
    }
}

/// Approves, and does what was asked for in the same transaction: what cannot be done is not approved. Answers to what was done,
/// and to what the entry says, with which the caller commits ([`activity::approval::commit_decision`]). `name` is who decides, for
/// the histories of what is changed; `shown` is what was shown to them, where something was.
///
/// # Errors
/// As [`super::approve`] and [`execute()`].
pub async fn carry_out(
    connection: &mut AnyConnection,
    id: ApprovalId,
    (by, name): (Admin<'_>, &str),
    shown: &str,
    now_ms: i64,
) -> Result<(ExecutionOutcome, Note), ExecuteError> {
    let (action, note) = super::approve(&mut *connection, id, by, now_ms).await?;
    let (done, changed) = execute(connection, &action.confirmed(shown), name, now_ms).await?;
    let (ExecutionOutcome::Executed(text) | ExecutionOutcome::Refunding { what: text, .. }) = &done;
    let mut change = note.change.clone();
    change["after"] = json!({ "done": text });
    if !changed.is_null() {
        change["after"]["changed"] = changed;
    }
    Ok((done, note.change(change)))
}

/// Does an approved action, in the transaction of its approval: what cannot be done is not approved either. Nothing is done
/// twice, since an approval is handed out once; what was done meanwhile by somebody else is left as it is. `actor` stands in the
/// histories of what is changed. Answers also to what it changed, for the entry of the approval: `null` where the sentence says all.
///
/// # Errors
/// As what is to be done answers; [`ExecuteError::Changed`] when it would be another thing by now.
pub async fn execute(
    connection: &mut AnyConnection,
    action: &Action,
    actor: &str,
    now_ms: i64,
) -> Result<(ExecutionOutcome, Value), ExecuteError> {
    let mut change = Value::Null;
    let done = match action {
        Action::BulkTermination {
            subscriptions, reason, ..
        } => {
            let mut ended = 0;
            for id in subscriptions {
                if subscription(&mut *connection, *id).await?.state == SubscriptionState::Ended {
                    continue;
                }
                cancel(&mut *connection, *id, CancellationTime::Now, reason, actor, now_ms).await?;
                ended += 1;
            }
            ExecutionOutcome::Executed(format!("{} ended", count(ended, "subscription")))
        }
        Action::PriceChange {
            plan, currency, prices, ..
        } => {
            let currency: Currency = currency.parse()?;
            let (mut said, mut changes) = (Vec::new(), Vec::new());
            for version in prices {
                let PriceVersion {
                    cycle_months,
                    base_minor,
                    usage_price,
                    valid_from_ms,
                } = version;
                let usage: UsagePrice = serde_json::from_value(usage_price.clone())?;
                let new = NewPrice {
                    plan: *plan,
                    cycle_months: *cycle_months,
                    base: Money::new(*base_minor, currency),
                    usage,
                    // A price does not hold before it was approved.
                    valid_from_ms: (*valid_from_ms).max(now_ms),
                };
                let (price, repriced, note) = add_price_moving(&mut *connection, new, actor, now_ms).await?;
                said.push(format!(
                    "{} added; {} subscriptions change to it at their renewal, {} are left",
                    price.id,
                    repriced.scheduled,
                    repriced.left.len()
                ));
                changes.push(note.change);
            }
            change = match changes.len() {
                1 => changes.remove(0),
                _ => Value::Array(changes),
            };
            ExecutionOutcome::Executed(said.join("; "))
        }
        Action::AccountDeletion { customer } => delete_account(connection, *customer, actor, now_ms).await?,
        Action::Refund {
            payment,
            currency,
            amount_minor,
            reason,
            reference,
            shown,
            ..
        } => {
            let request = RefundRequest {
                payment: *payment,
                amount: Some(Money::new(*amount_minor, currency.parse()?)),
                reason,
            };
            let confirmed = RefundConfirmation {
                shown: Some(shown),
                is_approved: true,
                reference: reference.as_deref(),
                actor,
            };
            let made = refund::make(connection, &request, &confirmed, now_ms).await?;
            let note = made
                .note
                .map_or(String::new(), |note| format!(", with credit note {note}"));
            let what = format!("{} of {} of {payment}{note}", made.refund, made.preview.amount);
            ExecutionOutcome::Refunding {
                refund: made.refund,
                what,
            }
        }
        Action::CreditGrant {
            customer,
            currency,
            amount_minor,
            cause,
            reason,
            ..
        } => {
            let amount = Money::new(*amount_minor, currency.parse()?);
            let (granted, note) = top_up::grant(connection, *customer, amount, cause, reason, now_ms).await?;
            ExecutionOutcome::Executed(match note {
                Some(note) => {
                    change = note.change;
                    format!("{amount} of credit granted to {customer}")
                }
                None => format!("it was granted before, by {granted}"),
            })
        }
        Action::CreditItem {
            customer,
            currency,
            amount_minor,
            description,
            ..
        } => {
            let amount = Money::new(*amount_minor, currency.parse()?);
            let item = add_item(
                connection,
                *customer,
                None,
                description,
                amount.checked_neg()?,
                actor,
                now_ms,
            );
            let item = item.await?.id;
            ExecutionOutcome::Executed(format!("{amount} taken off the next invoice of {customer} ({item})"))
        }
        Action::WriteOff {
            invoice,
            currency,
            amount_minor,
            reason,
            ..
        } => {
            let approved = Money::new(*amount_minor, currency.parse()?);
            let open = settlement::outstanding(&mut *connection, *invoice).await?;
            if open.minor <= 0 || open.minor > approved.minor {
                return Err(ExecuteError::Changed(format!(
                    "{open} of {invoice} is open, not {approved}"
                )));
            }
            let amount = settlement::write_off(connection, *invoice, reason, now_ms).await?;
            ExecutionOutcome::Executed(format!("{amount} of {invoice} written off"))
        }
        Action::UsageExclusion {
            service,
            from_ms,
            to_ms,
            reason,
            ..
        } => {
            let made = exclusion::exclude(connection, *service, (*from_ms, *to_ms), reason, actor, now_ms).await?;
            ExecutionOutcome::Executed(format!("{} of {service} made", made.id))
        }
        Action::ServiceTransfer { transfer, .. } => {
            transfer::approve(connection, *transfer, actor, now_ms).await?;
            ExecutionOutcome::Executed(format!("{transfer} approved"))
        }
        Action::AdminCreated { user } => {
            let found = identity::user(&mut *connection, *user).await?;
            let found = found.filter(|found| found.role == Role::Admin);
            let found = found.ok_or_else(|| ExecuteError::Changed(format!("{user} is no admin")))?;
            match found.disabled_at_ms {
                Some(_) => {
                    identity::set_disabled(connection, *user, None).await?;
                    ExecutionOutcome::Executed(format!("{user} can sign in"))
                }
                None => ExecutionOutcome::Executed(format!("{user} could sign in already")),
            }
        }
        Action::AdminDeleted { user } => delete_admin(connection, *user, now_ms).await?,
        Action::AdminRole { user, role, customer } => {
            change_role(connection, *user, role, *customer, &mut change).await?
        }
    };
    Ok((done, change))
}

/// Gives somebody who is or becomes an admin another role, and ends what lets them in without the password.
async fn change_role(
    connection: &mut AnyConnection,
    user: UserId,
    role: &str,
    customer: Option<CustomerId>,
    change: &mut Value,
) -> Result<ExecutionOutcome, ExecuteError> {
    let role: Role = role
        .parse()
        .map_err(|error: identity::RoleError| ExecuteError::Changed(error.to_string()))?;
    let before = identity::user(&mut *connection, user).await?;
    let before = before.ok_or_else(|| ExecuteError::Changed(format!("there is no {user}")))?;
    if (before.role, before.customer) == (role, customer) {
        return Ok(ExecutionOutcome::Executed(format!(
            "{user} had the role {role} already"
        )));
    }
    if let Some(customer) = customer {
        inventory::customer(&mut *connection, customer)
            .await
            .map_err(BillingError::from)?;
    }
    identity::set_role(&mut *connection, user, role, customer).await?;
    identity::end_sessions(&mut *connection, user, SessionsToEnd::All).await?;
    password_reset::void(connection, user).await?;
    *change = json!({
        "before": { "role": before.role.name(), "customer": before.customer },
        "after": { "role": role.name(), "customer": customer },
    });
    Ok(ExecutionOutcome::Executed(format!(
        "{user} has the role {role}; their sessions were ended"
    )))
}

/// Ends what an account is charged for and lets nobody sign in for it any more. Documents and postings stay, as the law wants
/// them; what is due for the days up to now is charged once more, so ways to pay stay until that is settled.
async fn delete_account(
    connection: &mut AnyConnection,
    customer: CustomerId,
    actor: &str,
    now_ms: i64,
) -> Result<ExecutionOutcome, ExecuteError> {
    inventory::customer(&mut *connection, customer)
        .await
        .map_err(BillingError::from)?;
    let contracts = contracts_of(connection, customer).await?;
    // Add-ons end with what they are beside.
    let running = contracts
        .iter()
        .map(|contract| &contract.subscription)
        .filter(|subscription| subscription.state != SubscriptionState::Ended && subscription.parent.is_none());
    let mut ended = 0;
    for subscription in running {
        cancel(
            &mut *connection,
            subscription.id,
            CancellationTime::Now,
            "account deleted",
            actor,
            now_ms,
        )
        .await?;
        ended += 1;
    }
    sqlx::query("UPDATE top_ups SET is_enabled = 0, updated_at_ms = $1 WHERE customer_id = $2 AND is_enabled <> 0")
        .bind(now_ms)
        .bind(customer.0)
        .execute(&mut *connection)
        .await?;
    endpoint::disable_all(&mut *connection, customer, now_ms).await?;
    let users = identity::disable_users_of(&mut *connection, customer, now_ms).await?;
    inventory::mark_customer_deleted(connection, customer, now_ms)
        .await
        .map_err(BillingError::from)?;
    Ok(ExecutionOutcome::Executed(format!(
        "{customer} deleted: {} ended, {} signed out for good; documents and postings are kept",
        count(ended, "subscription"),
        count(users, "user")
    )))
}

/// `1 user`, `2 users`.
fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Signs an admin out for good. Whoever asked and whoever approves are two, so there is an admin left.
async fn delete_admin(
    connection: &mut AnyConnection,
    user: UserId,
    now_ms: i64,
) -> Result<ExecutionOutcome, ExecuteError> {
    let could_sign_in = identity::disable_admin(&mut *connection, user, now_ms).await?;
    identity::forget_devices(&mut *connection, user).await?;
    password_reset::void(connection, user).await?;
    Ok(ExecutionOutcome::Executed(match could_sign_in {
        false => format!("{user} was no admin who could sign in any more"),
        true => format!("{user} cannot sign in any more"),
    }))
}
