//! What came to a customer's credit and what went, with the balance after each.

use schemas::ids::{CustomerId, InvoiceId, PaymentId, TransactionId};
use schemas::inventory;
use schemas::money::Money;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{AUTOMATIC_NOTE, BOUGHT_NOTE, TopUpError};
use crate::ledger::{self, Account};

/// Why credit came or went, by the key of the transaction that moved it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CreditCause)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// By itself, because there was little left.
    TopUp,
    Bought,
    /// Paid in without an invoice, another way.
    PaidIn,
    /// More was paid than the invoice left open.
    Overpaid,
    /// It paid for an invoice.
    Invoice,
    /// What it had paid is to be paid again: the payment that it came from was taken back.
    InvoiceReopened,
    CreditNote,
    /// Given by staff.
    Granted,
    Refunded,
    /// A refund that the customer's bank did not take.
    RefundReturned,
    /// The gateway gave a payment back, or a dispute was lost.
    TakenBack,
    Other,
}

impl Cause {
    fn of(key: &str, note: &str, has_invoice: bool) -> Cause {
        let kind = key.split(':').next().unwrap_or_default();
        match (kind, has_invoice) {
            ("payment", true) => Cause::Overpaid,
            ("payment", false) if note == AUTOMATIC_NOTE => Cause::TopUp,
            ("payment", false) if note == BOUGHT_NOTE => Cause::Bought,
            ("payment", false) => Cause::PaidIn,
            ("credit", _) => Cause::Invoice,
            ("uncredit", _) => Cause::InvoiceReopened,
            ("credit_note", _) => Cause::CreditNote,
            ("grant", _) => Cause::Granted,
            ("refund", _) => Cause::Refunded,
            ("refund_returned", _) => Cause::RefundReturned,
            ("take_back" | "dispute", _) => Cause::TakenBack,
            _ => Cause::Other,
        }
    }
}

/// What one transaction did to a customer's credit.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CreditMovement)]
pub struct Movement {
    pub transaction: TransactionId,
    pub at_ms: i64,
    pub cause: Cause,
    /// What was said with credit that was granted; empty otherwise.
    pub reason: String,
    pub invoice: Option<InvoiceId>,
    pub invoice_number: Option<String>,
    pub payment: Option<PaymentId>,
    /// What it was paid with, as people know it.
    pub method: Option<String>,
    /// More than zero where credit came.
    pub amount: Money,
    pub balance: Money,
}

/// Movements of a customer's credit, the latest first, `limit` at most; `before` is the last of the page before. Balances run
/// over everything, whatever page is read.
///
/// # Errors
/// As the database answers, or when the customer does not exist.
pub async fn movements(
    connection: &mut AnyConnection,
    customer: CustomerId,
    before: Option<TransactionId>,
    limit: i64,
) -> Result<Vec<Movement>, TopUpError> {
    let currency = inventory::customer(&mut *connection, customer).await?.currency;
    let rows = sqlx::query(
        "SELECT r.id, r.amount, r.balance, t.idempotency_key, t.description, t.posted_at_ms, t.invoice_id, t.payment_id, \
         i.number, p.note, m.label FROM (SELECT id, amount, CAST(sum(amount) OVER (ORDER BY id) AS BIGINT) AS balance FROM ( \
           SELECT o.transaction_id AS id, CAST(sum(-o.amount_minor) AS BIGINT) AS amount \
           FROM ledger_accounts a JOIN ledger_postings o ON o.account_id = a.id \
           WHERE a.customer_id = $1 AND a.name = $2 GROUP BY o.transaction_id) s) r \
         JOIN ledger_transactions t ON t.id = r.id LEFT JOIN invoices i ON i.id = t.invoice_id \
         LEFT JOIN payments p ON p.id = t.payment_id LEFT JOIN payment_methods m ON m.id = p.method_id \
         WHERE r.id < $3 AND r.amount <> 0 ORDER BY r.id DESC LIMIT $4",
    )
    .bind(customer.0)
    .bind(Account::credit(customer, currency).name)
    .bind(before.map_or(i64::MAX, |before| before.0))
    .bind(limit.clamp(1, ledger::MAX_PAGE))
    .fetch_all(connection)
    .await?;
    let read = |row: &AnyRow| -> Result<Movement, TopUpError> {
        let invoice = row.try_get::<Option<i64>, _>("invoice_id")?.map(InvoiceId);
        let note: Option<String> = row.try_get("note")?;
        let key: String = row.try_get("idempotency_key")?;
        let cause = Cause::of(&key, note.as_deref().unwrap_or_default(), invoice.is_some());
        let description: String = row.try_get("description")?;
        Ok(Movement {
            transaction: TransactionId(row.try_get("id")?),
            at_ms: row.try_get("posted_at_ms")?,
            reason: match cause {
                Cause::Granted => description.split_once(": ").map_or("", |(_, reason)| reason).to_owned(),
                _ => String::new(),
            },
            cause,
            invoice,
            invoice_number: row.try_get("number")?,
            payment: row.try_get::<Option<i64>, _>("payment_id")?.map(PaymentId),
            method: row.try_get("label")?,
            amount: Money::new(row.try_get("amount")?, currency),
            balance: Money::new(row.try_get("balance")?, currency),
        })
    };
    rows.iter().map(read).collect()
}
