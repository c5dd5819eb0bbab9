//! What is done about an open invoice whatever step its collection has come to, also after the last: credit that has come
//! pays it, and a payment method that is new for it is charged.
//!
//! Both are read from what is so, not from what was noted: credit that there is, a default payment method that no payment of
//! the invoice was tried with. A new method is charged once beside the steps, which `dunning.tried_method_id` says before the
//! charge is made; the invoice must be overdue, or a charge of it must have failed, as one that was not charged before its
//! due date because there was nothing to charge is charged on that date.

use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId};
use schemas::money::Money;
use sqlx::{AnyConnection, Row as _};
use tracing::{info, warn};

use super::{
    AT_ONCE, COLLECTION_NOTE, Collected, DunningError, IS_LEFT_ALONE, Progress, WAS_REOPENED, recover_customer,
};
use crate::charger::{self, ChargeOrder, ChargeResult, Charger, Purpose};
use crate::settlement;

/// Pays open invoices from their customers' credit, earliest due date first.
///
/// # Errors
/// When the database cannot be read at all; what fails for one customer is in [`Collected::failed`].
pub(super) async fn use_credit(
    database: &Database,
    now_ms: i64,
    collected: &mut Collected,
) -> Result<(), DunningError> {
    let rows = sqlx::query(
        "SELECT i.customer_id, min(i.id) FROM dunning d JOIN invoices i ON i.id = d.invoice_id JOIN ledger_accounts a \
         ON a.name = 'credit:cus_' || CAST(i.customer_id AS TEXT) || ':' || i.currency \
         WHERE (SELECT sum(p.amount_minor) FROM ledger_postings p WHERE p.account_id = a.id) < 0 \
         GROUP BY i.customer_id ORDER BY i.customer_id LIMIT $1",
    )
    .bind(AT_ONCE)
    .fetch_all(database.pool())
    .await?;
    for row in &rows {
        let (customer, first) = (CustomerId(row.try_get(0)?), InvoiceId(row.try_get(1)?));
        match use_credit_of(database, customer, now_ms).await {
            Ok(paid) => collected.from_credit.extend(paid),
            Err(error) => collected.failed.push((first, error)),
        }
    }
    Ok(())
}

async fn use_credit_of(
    database: &Database,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Vec<(InvoiceId, Money)>, DunningError> {
    let mut transaction = database.begin_write().await?;
    settlement::lock_customer(&mut transaction, customer).await?;
    // While it is not known whether a payment of an invoice has come, nobody pays it a second time.
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT i.id FROM dunning d JOIN invoices i ON i.id = d.invoice_id WHERE i.customer_id = $1 AND NOT {IS_LEFT_ALONE} \
         AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.invoice_id = i.id AND p.state IN ('intent', 'unknown', 'processing')) \
         ORDER BY i.due_at_ms, i.id"
    ));
    let rows = sqlx::query(sql).bind(customer.0).fetch_all(&mut *transaction).await?;
    let mut paid = Vec::new();
    for row in &rows {
        let invoice = InvoiceId(row.try_get(0)?);
        let amount = settlement::apply_credit(&mut transaction, invoice, now_ms).await?;
        if amount.minor > 0 {
            info!(%invoice, %amount, "paid from credit");
            paid.push((invoice, amount));
        }
    }
    if !paid.is_empty() {
        recover_customer(&mut transaction, customer, now_ms).await?;
        transaction.commit().await?;
    }
    Ok(paid)
}

/// Invoices that a method which is new for them is charged for: `$1` is now, `$2` the first step that was charged.
const IS_FOR_A_NEW_METHOD: &str = "d.step >= $2 AND (i.due_at_ms <= $1 \
     OR EXISTS (SELECT 1 FROM payments p WHERE p.invoice_id = i.id AND p.state = 'failed')) \
     AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.invoice_id = i.id \
       AND (p.method_id = m.id OR p.state IN ('intent', 'unknown', 'requires_action', 'processing'))) \
     AND d.tried_method_id <> m.id AND m.is_default = 1 AND m.removed_at_ms IS NULL";

/// Charges payment methods that customers have saved, or made their default, since the last charge of what they owe.
///
/// # Errors
/// When the database cannot be read at all; what fails for one invoice is in [`Collected::failed`].
pub(super) async fn charge_new_methods(
    database: &Database,
    charger: &dyn Charger,
    now_ms: i64,
    collected: &mut Collected,
) -> Result<(), DunningError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT DISTINCT i.id, i.customer_id FROM dunning d JOIN invoices i ON i.id = d.invoice_id \
         JOIN payment_methods m ON m.customer_id = i.customer_id \
         WHERE {IS_FOR_A_NEW_METHOD} AND NOT {IS_LEFT_ALONE} AND NOT {WAS_REOPENED} ORDER BY i.id LIMIT $3"
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(Progress::CHARGED_FIRST.0)
        .bind(AT_ONCE)
        .fetch_all(database.pool())
        .await?;
    for row in &rows {
        let (invoice, customer) = (InvoiceId(row.try_get(0)?), CustomerId(row.try_get(1)?));
        let charged = async {
            let mut transaction = database.begin_write().await?;
            let Some(order) = claim(&mut transaction, invoice, customer, now_ms).await? else {
                return Ok(None);
            };
            transaction.commit().await?;
            Ok::<_, DunningError>(Some(charger.charge(order, now_ms).await?))
        };
        match charged.await {
            Ok(Some(charge)) => {
                if let ChargeResult::Declined { payment, reason } = &charge {
                    warn!(%invoice, %payment, reason, "a new payment method was declined");
                }
                collected.charged.push((invoice, charge));
            }
            Ok(None) => {}
            Err(error) => collected.failed.push((invoice, error)),
        }
    }
    Ok(())
}

/// Notes that the default method is tried for an invoice; `None` where somebody else has, or it is not new for it.
async fn claim(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<ChargeOrder<'static>>, DunningError> {
    settlement::lock_customer(&mut *connection, customer).await?;
    let Some(method) = charger::default_method(&mut *connection, customer).await? else {
        return Ok(None);
    };
    let sql = sqlx::AssertSqlSafe(format!(
        "UPDATE dunning SET tried_method_id = $4, updated_at_ms = $1 WHERE invoice_id IN (SELECT d.invoice_id FROM dunning d \
         JOIN invoices i ON i.id = d.invoice_id JOIN payment_methods m ON m.customer_id = i.customer_id \
         WHERE i.id = $3 AND m.id = $4 AND {IS_FOR_A_NEW_METHOD} AND NOT {IS_LEFT_ALONE})"
    ));
    let claimed = sqlx::query(sql)
        .bind(now_ms)
        .bind(Progress::CHARGED_FIRST.0)
        .bind(invoice.0)
        .bind(method.0)
        .execute(connection)
        .await?;
    Ok((claimed.rows_affected() == 1).then_some(ChargeOrder {
        customer,
        method,
        purpose: Purpose::Invoice(invoice),
        note: COLLECTION_NOTE,
    }))
}
