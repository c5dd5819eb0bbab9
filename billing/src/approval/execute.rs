//! Doing what was approved, in the transaction of the approval.

use schemas::money::{Currency, Money, MoneyError};
use sqlx::AnyConnection;

use super::{Action, ApprovalError};
use crate::BillingError;
use crate::catalog::{NewPrice, add_price};
use crate::price::UsagePrice;
use crate::subscription::change::{End, cancel};
use crate::subscription::reprice::reprice;

/// Why an approved action was not done; then it is not approved either.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error("do what was approved")]
    Billing(#[from] BillingError),
    #[error("read what was approved")]
    Approval(#[from] ApprovalError),
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read an amount")]
    Money(#[from] MoneyError),
    #[error("read a usage price")]
    Usage(#[from] serde_json::Error),
}

/// What became of an approved action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// It was done; what exactly, in a sentence.
    Executed(String),
    /// Only somebody at the machine can do it.
    ByHand,
}

/// Does an approved action.
///
/// # Errors
/// As what is to be done answers.
pub async fn execute(
    connection: &mut AnyConnection,
    action: &Action,
    actor: &str,
    now_ms: i64,
) -> Result<Done, ExecuteError> {
    match action {
        Action::BulkTermination { subscriptions, reason } => {
            for id in subscriptions {
                cancel(&mut *connection, *id, End::Now, reason, actor, now_ms).await?;
            }
            Ok(Done::Executed(format!("{} subscriptions ended", subscriptions.len())))
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
            let price = add_price(&mut *connection, new).await?;
            let repriced = reprice(connection, price.id, actor, now_ms).await?;
            Ok(Done::Executed(format!(
                "{} added; {} subscriptions change to it at their renewal, {} are left",
                price.id,
                repriced.scheduled,
                repriced.left.len()
            )))
        }
        Action::AccountDeletion { .. }
        | Action::GatewaySettings { .. }
        | Action::AdminCreated { .. }
        | Action::AdminDeleted { .. }
        | Action::ResellerBilling { .. }
        | Action::DatabaseChange { .. } => Ok(Done::ByHand),
    }
}
