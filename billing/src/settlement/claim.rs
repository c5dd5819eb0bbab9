//! Credit that was spent and is not there any more: a payment that had become credit was taken back.
//!
//! ```text
//! balance below zero ─▶ invoices that credit paid are open again, the last first      receivable +, credit −
//!                       what none of them takes (it had been refunded) ─▶ a claim     `credit_claims`
//! balance not below zero any more ─▶ the claim is settled                             `ended_credit_claims`
//! ```
//!
//! So what is owed is where everything else that is owed is: in the aging, in collection, on the customer's pages. The last
//! that was paid is the first to be open again, as it would have been if the credit had never come. An invoice is opened for
//! what its credit notes left of it at most.

use activity::event::EventType;
use schemas::db::next_id;
use schemas::ids::{AllocationId, CustomerId, InvoiceId};
use schemas::money::{Currency, Money};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{
    SettlementError, Source, credit_balance, insert_allocation, lock_customer, minus, nonzero, outstanding, post,
    recompute_status, smaller, tell,
};
use crate::collection_terms;
use crate::ledger::{Account, NewTransaction};

/// An invoice that credit paid, with how much of it can be open again.
struct PaidFromCredit {
    invoice: InvoiceId,
    number: String,
    amount: Money,
}

/// Brings a credit balance that is below zero back to it, as far as invoices that credit paid can be opened again; what is
/// left is noted as a claim. Where the balance is not below zero, a claim that was there is settled. Doing it again changes
/// nothing.
///
/// # Errors
/// As the database answers.
pub async fn claim_spent_credit(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
    now_ms: i64,
) -> Result<(), SettlementError> {
    lock_customer(connection, customer).await?;
    let mut missing = credit_balance(&mut *connection, customer, currency)
        .await?
        .checked_neg()?;
    if missing.minor > 0 {
        for paid in paid_from_credit(connection, customer, currency).await? {
            let amount = smaller(missing, paid.amount);
            if amount.minor == 0 {
                break;
            }
            reopen(connection, customer, &paid, amount, now_ms).await?;
            missing = minus(missing, amount)?;
        }
    }
    note(connection, customer, missing, now_ms).await
}

/// The last that was paid first.
async fn paid_from_credit(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
) -> Result<Vec<PaidFromCredit>, SettlementError> {
    let rows = sqlx::query(
        "SELECT i.id, i.number, CAST(sum(a.amount_minor) AS BIGINT), i.total_minor \
           + coalesce((SELECT CAST(sum(n.total_minor) AS BIGINT) FROM invoices n WHERE n.corrects_invoice_id = i.id), 0) \
           - (i.total_minor - coalesce((SELECT CAST(sum(x.amount_minor) AS BIGINT) FROM allocations x WHERE x.invoice_id = i.id), 0)) \
         FROM invoices i JOIN allocations a ON a.invoice_id = i.id \
         WHERE i.customer_id = $1 AND i.currency = $2 AND i.kind = 'invoice' AND i.status <> 'void' AND a.source = 'credit' \
         GROUP BY i.id, i.number, i.total_minor HAVING sum(a.amount_minor) > 0 ORDER BY max(a.id) DESC",
    )
    .bind(customer.0)
    .bind(currency.code())
    .fetch_all(connection)
    .await?;
    let mut paid = Vec::with_capacity(rows.len());
    for row in &rows {
        let (by_credit, still_owed): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let minor = by_credit.min(still_owed);
        if minor > 0 {
            paid.push(PaidFromCredit {
                invoice: InvoiceId(row.try_get(0)?),
                number: row.try_get(1)?,
                amount: Money::new(minor, currency),
            });
        }
    }
    Ok(paid)
}

async fn reopen(
    connection: &mut AnyConnection,
    customer: CustomerId,
    paid: &PaidFromCredit,
    amount: Money,
    now_ms: i64,
) -> Result<(), SettlementError> {
    let (invoice, currency) = (paid.invoice, amount.currency);
    let allocation = AllocationId(next_id(connection, "allocation").await?);
    let new = NewTransaction {
        idempotency_key: format!("uncredit:{invoice}:{allocation}"),
        customer: Some(customer),
        invoice: Some(invoice),
        payment: None,
        refund: None,
        description: format!("credit for {} reversed", paid.number),
        posted_at_ms: now_ms,
        postings: nonzero([
            (Account::receivable(customer, currency), amount),
            (Account::credit(customer, currency), amount.checked_neg()?),
        ]),
    };
    let transaction = post(connection, new).await?;
    let back = amount.checked_neg()?;
    insert_allocation(
        connection,
        allocation,
        invoice,
        Source::Credit,
        back,
        transaction,
        now_ms,
    )
    .await?;
    recompute_status(connection, invoice, now_ms).await?;
    publish_reopened(connection, customer, invoice, &paid.number, now_ms).await
}

/// Tells the customer that an invoice is to be paid again.
pub(super) async fn publish_reopened(
    connection: &mut AnyConnection,
    customer: CustomerId,
    invoice: InvoiceId,
    number: &str,
    now_ms: i64,
) -> Result<(), SettlementError> {
    let open = outstanding(&mut *connection, invoice).await?;
    let facts = serde_json::json!({
        "number": number, "amount_minor": open.minor, "open_minor": open.minor, "currency": open.currency.code(),
        "reason": "the payment that it was paid with was reversed",
    });
    let subject = invoice.to_string();
    tell(connection, EventType::InvoiceReopened, customer, subject, facts, now_ms).await?;
    Ok(())
}

/// Notes what is owed and on no invoice, and says so once; or that nothing is owed any more.
async fn note(
    connection: &mut AnyConnection,
    customer: CustomerId,
    missing: Money,
    now_ms: i64,
) -> Result<(), SettlementError> {
    let code = missing.currency.code();
    if missing.minor <= 0 {
        // The aging of a day before finds it. What began and ended at one instant was never owed.
        sqlx::query(
            "INSERT INTO ended_credit_claims (customer_id, currency, since_ms, due_at_ms, until_ms) \
             SELECT customer_id, currency, since_ms, due_at_ms, CAST($3 AS BIGINT) FROM credit_claims \
             WHERE customer_id = $1 AND currency = $2 AND since_ms < $3 ON CONFLICT (customer_id, currency, since_ms) DO NOTHING",
        )
        .bind(customer.0)
        .bind(code)
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM credit_claims WHERE customer_id = $1 AND currency = $2")
            .bind(customer.0)
            .bind(code)
            .execute(connection)
            .await?;
        return Ok(());
    }
    let due_at_ms = collection_terms::terms(&mut *connection).await?.due_at_ms(now_ms);
    let begun = sqlx::query(
        "INSERT INTO credit_claims (customer_id, currency, since_ms, due_at_ms, step, next_at_ms, updated_at_ms) \
         VALUES ($1, $2, $3, $4, 1, $4, $3) ON CONFLICT (customer_id, currency) DO NOTHING",
    )
    .bind(customer.0)
    .bind(code)
    .bind(now_ms)
    .bind(due_at_ms)
    .execute(&mut *connection)
    .await?;
    if begun.rows_affected() == 1 {
        let facts = serde_json::json!({
            "amount_minor": missing.minor, "balance_minor": -missing.minor, "currency": code, "due_at_ms": due_at_ms,
        });
        let subject = customer.to_string();
        tell(connection, EventType::CreditOwed, customer, subject, facts, now_ms).await?;
    }
    Ok(())
}

/// By when a customer's negative credit is to be paid; `None` where nothing is owed that way.
///
/// # Errors
/// As the database answers.
pub async fn credit_claim_due(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    currency: Currency,
) -> Result<Option<i64>, SettlementError> {
    let row = sqlx::query("SELECT due_at_ms FROM credit_claims WHERE customer_id = $1 AND currency = $2")
        .bind(customer.0)
        .bind(currency.code())
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
