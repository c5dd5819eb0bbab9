//! Who may go on, and who is late: read from what is open, so that it is right whatever happened in between.
//!
//! A subscription is late while an invoice that charges for it is open past its due date, or its customer owes credit past
//! the date that was set for it. A hold for `unpaid` also stays
//! where that was written off after the hold was placed: giving up a debt is no reason to run the service again.

use schemas::db::Database;
use schemas::ids::{CustomerId, SubscriptionId};
use sqlx::{AnyConnection, Row as _};

use super::{AT_ONCE, DunningError, Progress};
use crate::settlement;
use crate::subscription::change;

/// What recovery did.
#[derive(Debug, Default)]
pub struct Recovered {
    pub subscriptions: Vec<SubscriptionId>,
    pub failed: Vec<(SubscriptionId, DunningError)>,
}

/// Subscriptions `s` that are late or held for it and need not be any more, by `$1`.
const PAID_UP: &str = "(s.status = 'past_due' OR (s.status = 'suspended' AND EXISTS \
     (SELECT 1 FROM holds h WHERE h.subscription_id = s.id AND h.cause = 'unpaid' AND h.with_parent = 0 AND h.lifted_at_ms IS NULL))) \
     AND NOT EXISTS (SELECT 1 FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id \
     WHERE l.subscription_id = s.id AND i.kind = 'invoice' AND i.status IN ('finalised', 'partially_paid') AND i.due_at_ms <= $1) \
     AND NOT EXISTS (SELECT 1 FROM credit_claims c WHERE c.customer_id = s.customer_id AND c.due_at_ms <= $1) \
     AND NOT EXISTS (SELECT 1 FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id \
     JOIN holds h ON h.subscription_id = l.subscription_id WHERE l.subscription_id = s.id AND h.cause = 'unpaid' \
     AND h.lifted_at_ms IS NULL AND i.status = 'uncollectible' AND i.settled_at_ms >= h.placed_at_ms)";

/// Lets every subscription go on that has nothing overdue any more. Doing it again does nothing.
///
/// # Errors
/// When the database cannot be read at all.
pub async fn recover(database: &Database, now_ms: i64) -> Result<Recovered, DunningError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT s.customer_id FROM subscriptions s WHERE {PAID_UP} GROUP BY s.customer_id ORDER BY s.customer_id LIMIT $2"
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(AT_ONCE)
        .fetch_all(database.pool())
        .await?;
    let mut recovered = Recovered::default();
    for row in &rows {
        let customer = CustomerId(row.try_get(0)?);
        let mut connection = database.pool().acquire().await?;
        let found = paid_up(&mut connection, customer, now_ms).await?;
        drop(connection);
        for subscription in found {
            let mut transaction = database.begin_write().await?;
            settlement::lock_customer(&mut transaction, customer).await?;
            // Looked at again: something may have become due between the transactions.
            if !paid_up(&mut transaction, customer, now_ms)
                .await?
                .contains(&subscription)
            {
                continue;
            }
            match change::paid_up(&mut transaction, subscription, now_ms).await {
                Ok(()) => {
                    transaction.commit().await?;
                    recovered.subscriptions.push(subscription);
                }
                Err(error) => recovered.failed.push((subscription, error.into())),
            }
        }
    }
    Ok(recovered)
}

/// As [`recover`] for one customer, in the caller's transaction: with the payment that settles the last overdue invoice the
/// services go on at once.
///
/// # Errors
/// As the database answers.
pub async fn recover_customer(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Vec<SubscriptionId>, DunningError> {
    let found = paid_up(connection, customer, now_ms).await?;
    for subscription in &found {
        change::paid_up(connection, *subscription, now_ms).await?;
    }
    Ok(found)
}

async fn paid_up(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Vec<SubscriptionId>, DunningError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT s.id FROM subscriptions s WHERE s.customer_id = $2 AND {PAID_UP} ORDER BY s.id"
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(customer.0)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok(SubscriptionId(row.try_get(0)?))).collect()
}

/// Subscriptions that run as if nothing was overdue although it is: their trial ended, or a hold for something else was
/// lifted, after the day on which they would have become late.
pub(super) async fn note_late(
    database: &Database,
    now_ms: i64,
) -> Result<Vec<(SubscriptionId, DunningError)>, DunningError> {
    let rows = sqlx::query(
        "SELECT s.id, s.customer_id, min(i.number) FROM subscriptions s JOIN invoice_lines l ON l.subscription_id = s.id \
         JOIN invoices i ON i.id = l.invoice_id JOIN dunning d ON d.invoice_id = i.id \
         WHERE s.status = 'active' AND d.step > $2 AND i.status IN ('finalised', 'partially_paid') AND i.due_at_ms <= $1 \
         GROUP BY s.id, s.customer_id ORDER BY s.id LIMIT $3",
    )
    .bind(now_ms)
    .bind(Progress::CHARGED_FIRST.0)
    .bind(AT_ONCE)
    .fetch_all(database.pool())
    .await?;
    let mut late = Vec::with_capacity(rows.len());
    for row in &rows {
        let reason = format!("invoice {} is overdue", row.try_get::<String, _>(2)?);
        late.push((SubscriptionId(row.try_get(0)?), CustomerId(row.try_get(1)?), reason));
    }
    let rows = sqlx::query(
        "SELECT s.id, s.customer_id FROM subscriptions s WHERE s.status = 'active' AND EXISTS (SELECT 1 FROM credit_claims c \
         WHERE c.customer_id = s.customer_id AND c.due_at_ms <= $1 AND c.step > $2) ORDER BY s.id LIMIT $3",
    )
    .bind(now_ms)
    .bind(Progress::CHARGED_FIRST.0)
    .bind(AT_ONCE)
    .fetch_all(database.pool())
    .await?;
    for row in &rows {
        let reason = "credit below zero is overdue".to_owned();
        late.push((SubscriptionId(row.try_get(0)?), CustomerId(row.try_get(1)?), reason));
    }
    let mut failed = Vec::new();
    for (id, customer, reason) in late {
        let mut transaction = database.begin_write().await?;
        settlement::lock_customer(&mut transaction, customer).await?;
        match change::payment_late(&mut transaction, id, &reason, now_ms).await {
            Ok(()) => transaction.commit().await?,
            Err(error) => failed.push((id, error.into())),
        }
    }
    Ok(failed)
}
