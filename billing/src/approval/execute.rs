//! Doing what was approved, in the transaction of the approval.

use activity::channel::endpoint;
use schemas::ids::{CustomerId, RefundId, UserId};
use schemas::money::{Currency, Money, MoneyError};
use schemas::{identity, inventory};
use serde_json::Value;
use sqlx::AnyConnection;

use super::Action;
use crate::BillingError;
use crate::catalog::NewPrice;
use crate::catalog::act::add_price_moving;
use crate::price::UsagePrice;
use crate::refund::{self, Confirmed, RefundError, RefundRequest};
use crate::subscription::change::{End, cancel};
use crate::subscription::{State, contracts_of, subscription};

/// Why an approved action was not done; then it is not approved either.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
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
}

/// What became of an approved action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// It was done; what exactly, in a sentence.
    Executed(String),
    /// It is written down, and its gateway is asked once this is committed ([`crate::refund::ask`], or who reconciles next).
    Refunding { refund: RefundId, what: String },
    /// It is not billing's to do: who does what, in a sentence.
    ByHand(String),
}

impl Action {
    /// What is left for a person once it is approved, and for whom; `None` where approving it does all there is to do.
    ///
    /// Billing keeps no gateway keys, no passwords of others and no way to change its own database at will: what needs those
    /// is approved here and done by whoever has them.
    pub fn by_hand(&self) -> Option<String> {
        match self {
            Action::BulkTermination { .. }
            | Action::PriceChange { .. }
            | Action::AdminDeleted { .. }
            | Action::Refund { .. } => None,
            Action::AccountDeletion { customer } => Some(format!(
                "Finance: once the last invoice of {customer} is paid, delete its payment methods at the gateway."
            )),
            Action::GatewaySettings { gateway, settings } => Some(format!(
                "Operator: set {settings} in the section [{gateway}] of the configuration file, then restart \
                 `ezscale serve`."
            )),
            Action::AdminCreated { email, name } => Some(format!(
                "Operator: run `ezscale user add --role admin --email {email} --name \"{name}\"`, with a \
                 password that {name} chooses."
            )),
            Action::ResellerBilling { customer, change } => Some(format!(
                "Finance: enter it at {customer}, in the billing profile or as an item for the next invoice: {change}."
            )),
            Action::DatabaseChange { description } => Some(format!(
                "Operator of the database: make a backup, then apply exactly the approved change: {description}."
            )),
        }
    }
}

/// Does an approved action, in the transaction of its approval: what cannot be done is not approved either. Nothing is done
/// twice, since an approval is handed out once; what was done meanwhile by somebody else is left as it is. `actor` stands in the
/// histories of what is changed. Answers also to what it changed, for the entry of the approval: `null` where the sentence says all.
///
/// # Errors
/// As what is to be done answers.
pub async fn execute(
    connection: &mut AnyConnection,
    action: &Action,
    actor: &str,
    now_ms: i64,
) -> Result<(Done, Value), ExecuteError> {
    let mut change = Value::Null;
    let done = match action {
        Action::BulkTermination { subscriptions, reason } => {
            let mut ended = 0;
            for id in subscriptions {
                if subscription(&mut *connection, *id).await?.state == State::Ended {
                    continue;
                }
                cancel(&mut *connection, *id, End::Now, reason, actor, now_ms).await?;
                ended += 1;
            }
            Done::Executed(format!("{ended} subscriptions ended"))
        }
        Action::PriceChange {
            plan,
            currency,
            cycle_months,
            base_minor,
            usage_price,
            valid_from_ms,
            ..
        } => {
            let currency: Currency = currency.parse()?;
            let usage: UsagePrice = serde_json::from_value(usage_price.clone())?;
            let new = NewPrice {
                plan: *plan,
                cycle_months: *cycle_months,
                base: Money::new(*base_minor, currency),
                usage,
                // A price does not hold before it was approved.
                valid_from_ms: (*valid_from_ms).max(now_ms),
            };
            let (price, repriced, note) = add_price_moving(connection, new, actor, now_ms).await?;
            change = note.change;
            Done::Executed(format!(
                "{} added; {} subscriptions change to it at their renewal, {} are left",
                price.id,
                repriced.scheduled,
                repriced.left.len()
            ))
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
            let confirmed = Confirmed {
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
            Done::Refunding {
                refund: made.refund,
                what,
            }
        }
        Action::AdminDeleted { user } => delete_admin(connection, *user, now_ms).await?,
        Action::GatewaySettings { .. }
        | Action::AdminCreated { .. }
        | Action::ResellerBilling { .. }
        | Action::DatabaseChange { .. } => Done::ByHand(action.by_hand().unwrap_or_default()),
    };
    Ok((done, change))
}

/// Ends what an account is charged for and lets nobody sign in for it any more. Documents and postings stay, as the law wants
/// them; what is due for the days up to now is charged once more, so ways to pay stay until that is settled.
async fn delete_account(
    connection: &mut AnyConnection,
    customer: CustomerId,
    actor: &str,
    now_ms: i64,
) -> Result<Done, ExecuteError> {
    inventory::customer(&mut *connection, customer)
        .await
        .map_err(BillingError::from)?;
    let contracts = contracts_of(connection, customer).await?;
    // Add-ons end with what they are beside.
    let running = contracts
        .iter()
        .map(|contract| &contract.subscription)
        .filter(|subscription| subscription.state != State::Ended && subscription.parent.is_none());
    let mut ended = 0;
    for subscription in running {
        cancel(
            &mut *connection,
            subscription.id,
            End::Now,
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
    Ok(Done::Executed(format!(
        "{customer} deleted: {ended} subscriptions ended, {users} users cannot sign in any more; documents and postings are kept"
    )))
}

/// Signs an admin out for good. Whoever asked and whoever approves are two, so there is an admin left.
async fn delete_admin(connection: &mut AnyConnection, user: UserId, now_ms: i64) -> Result<Done, ExecuteError> {
    let could_sign_in = identity::disable_admin(connection, user, now_ms).await?;
    Ok(Done::Executed(match could_sign_in {
        false => format!("{user} was no admin who could sign in any more"),
        true => format!("{user} cannot sign in any more"),
    }))
}
