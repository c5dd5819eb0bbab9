//! Collection of what customers owe on no invoice: a credit balance below zero (`credit_claims`, `settlement/claim.rs`).
//!
//! It takes the same days as an invoice: due by the payment term, said to be overdue on that day, all the customer's
//! subscriptions held for `unpaid` on the day of the suspension. Nothing is charged by itself: who took money back does not
//! want it taken again. Whatever comes in as credit pays it, because it is the same balance.

use activity::event::EventType;
use schemas::db::Database;
use schemas::ids::{CustomerId, SubscriptionId};
use schemas::money::Currency;
use sqlx::{AnyConnection, Row as _};
use tracing::info;

use super::schedule::Dates;
use super::{AT_ONCE, Collected, DunningError, Progress, recover_customer};
use crate::collection_terms::Schedule;
use crate::settlement;
use crate::subscription::state::HoldCause;
use crate::subscription::{ITSELF, change};

/// Does what is due about negative credit.
///
/// # Errors
/// When the database cannot be read at all.
pub(super) async fn run(
    database: &Database,
    schedule: &Schedule,
    now_ms: i64,
    collected: &mut Collected,
) -> Result<(), DunningError> {
    let rows = sqlx::query("SELECT customer_id, currency FROM credit_claims ORDER BY customer_id, currency LIMIT $1")
        .bind(AT_ONCE)
        .fetch_all(database.pool())
        .await?;
    for row in &rows {
        let customer = CustomerId(row.try_get(0)?);
        let currency: Currency = row.try_get::<String, _>(1)?.parse()?;
        // A suspension and the notice before it, where both were missed.
        for _ in 0..super::STEPS_AT_ONCE {
            match step(database, schedule, customer, currency, now_ms).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    collected.claims_failed.push((customer, error));
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Does the next step; false where there is none to do.
async fn step(
    database: &Database,
    schedule: &Schedule,
    customer: CustomerId,
    currency: Currency,
    now_ms: i64,
) -> Result<bool, DunningError> {
    let mut transaction = database.begin_write().await?;
    settlement::claim_spent_credit(&mut transaction, customer, currency, now_ms).await?;
    let row =
        sqlx::query("SELECT since_ms, due_at_ms, step FROM credit_claims WHERE customer_id = $1 AND currency = $2")
            .bind(customer.0)
            .bind(currency.code())
            .fetch_optional(&mut *transaction)
            .await?;
    let Some(row) = row else {
        // Settled: what was held for it goes on.
        recover_customer(&mut transaction, customer, now_ms).await?;
        transaction.commit().await?;
        info!(%customer, "no credit is owed any more");
        return Ok(false);
    };
    let dates = Dates {
        finalised_at_ms: row.try_get(0)?,
        due_at_ms: row.try_get(1)?,
    };
    let progress = Progress(row.try_get(2)?);
    let Some(due) = schedule.due(progress, dates, now_ms) else {
        transaction.commit().await?;
        return Ok(false);
    };
    sqlx::query(
        "UPDATE credit_claims SET step = $3, next_at_ms = $4, updated_at_ms = $5 WHERE customer_id = $1 AND currency = $2",
    )
    .bind(customer.0)
    .bind(currency.code())
    .bind(due.to.0)
    .bind(schedule.next_at_ms(due.to, dates))
    .bind(now_ms)
    .execute(&mut *transaction)
    .await?;
    let reason = "a payment was charged back after it had been refunded";
    if due.says_overdue {
        let owed = settlement::credit_balance(&mut *transaction, customer, currency).await?;
        let facts = serde_json::json!({
            "amount_minor": -owed.minor, "balance_minor": owed.minor, "currency": currency.code(),
            "due_at_ms": dates.due_at_ms, "suspends_at_ms": schedule.suspends_at_ms(dates),
        });
        let subject = customer.to_string();
        settlement::tell(
            &mut transaction,
            EventType::CreditOverdue,
            customer,
            subject,
            facts,
            now_ms,
        )
        .await?;
        for subscription in subscriptions_of(&mut transaction, customer).await? {
            change::payment_late(&mut transaction, subscription, reason, now_ms).await?;
        }
    }
    if due.suspends {
        for subscription in subscriptions_of(&mut transaction, customer).await? {
            change::hold(
                &mut transaction,
                subscription,
                HoldCause::Unpaid,
                reason,
                ITSELF,
                now_ms,
            )
            .await?;
        }
    }
    if due.terminates {
        // To end everything of a customer for it is a person's decision.
        info!(%customer, "negative credit is still owed: decide what becomes of the services");
    }
    transaction.commit().await?;
    Ok(true)
}

async fn subscriptions_of(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> Result<Vec<SubscriptionId>, DunningError> {
    let rows = sqlx::query("SELECT id FROM subscriptions WHERE customer_id = $1 AND status <> 'ended' ORDER BY id")
        .bind(customer.0)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok(SubscriptionId(row.try_get(0)?))).collect()
}
