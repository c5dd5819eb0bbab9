//! Reading the ledger: transactions with their postings, what customers owe, and a customer's statement.

use schemas::ids::{CustomerId, InvoiceId, PaymentId, RefundId, TransactionId};
use schemas::money::{Currency, Money};
use sqlx::{AnyExecutor, Row as _};

use super::{Account, LedgerError};

/// Transactions on one page at most.
pub const MAX_PAGE: i64 = 1_000;

/// A posting as it stands in the books.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LedgerPosting)]
pub struct Posted {
    /// Name of the account.
    pub account: String,
    /// Positive debits, negative credits.
    pub amount: Money,
}

/// A transaction as it stands in the books.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LedgerTransaction)]
pub struct PostedTransaction {
    pub id: TransactionId,
    pub idempotency_key: String,
    pub customer: Option<CustomerId>,
    pub invoice: Option<InvoiceId>,
    pub payment: Option<PaymentId>,
    pub refund: Option<RefundId>,
    pub description: String,
    pub posted_at_ms: i64,
    /// Of a payment that came in: its value date, where it is not when it was posted.
    pub value_at_ms: Option<i64>,
    pub postings: Vec<Posted>,
}

/// Which transactions to list; the default is all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransactionFilter<'a> {
    /// Name of an account that it posts to.
    pub account: Option<&'a str>,
    pub customer: Option<CustomerId>,
    pub invoice: Option<InvoiceId>,
    pub payment: Option<PaymentId>,
    /// Posted at or after.
    pub from_ms: Option<i64>,
    /// Posted before.
    pub to_ms: Option<i64>,
    /// Only transactions before this one: the last of the page before.
    pub before: Option<TransactionId>,
}

/// What transactions of a customer posted to an account since an instant: of those whose key begins so.
///
/// # Errors
/// As the database answers.
pub async fn posted_since(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    (account, key_prefix): (&Account, &str),
    since_ms: i64,
) -> Result<Money, LedgerError> {
    let sql = "SELECT CAST(COALESCE(sum(p.amount_minor), 0) AS BIGINT) FROM ledger_transactions t \
               JOIN ledger_postings p ON p.transaction_id = t.id JOIN ledger_accounts a ON a.id = p.account_id \
               WHERE t.customer_id = $1 AND a.name = $2 AND t.posted_at_ms > $3 AND t.idempotency_key LIKE $4";
    let row = sqlx::query(sql)
        .bind(customer.0)
        .bind(&account.name)
        .bind(since_ms)
        .bind(format!("{key_prefix}%"))
        .fetch_one(db)
        .await?;
    Ok(Money::new(row.try_get(0)?, account.currency))
}

/// Transactions with all their postings, newest first, `limit` at most.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn transactions(
    db: impl AnyExecutor<'_>,
    filter: TransactionFilter<'_>,
    limit: i64,
) -> Result<Vec<PostedTransaction>, LedgerError> {
    let rows = sqlx::query(
        "SELECT t.id, t.idempotency_key, t.customer_id, t.invoice_id, t.payment_id, t.refund_id, t.description, \
         t.posted_at_ms, (SELECT y.value_at_ms FROM payments y WHERE y.id = t.payment_id \
           AND t.idempotency_key = 'payment:pay_' || CAST(y.id AS TEXT)) AS value_at_ms, a.name, p.currency, p.amount_minor FROM ( \
           SELECT * FROM ledger_transactions x WHERE x.id < $1 AND ($2 = 0 OR x.customer_id = $2) \
             AND ($3 = 0 OR x.invoice_id = $3) AND ($4 = 0 OR x.payment_id = $4) \
             AND x.posted_at_ms >= $5 AND x.posted_at_ms < $6 AND ($7 = '' OR EXISTS ( \
               SELECT 1 FROM ledger_postings y JOIN ledger_accounts z ON z.id = y.account_id \
               WHERE y.transaction_id = x.id AND z.name = $7)) \
           ORDER BY x.id DESC LIMIT $8) t \
         JOIN ledger_postings p ON p.transaction_id = t.id JOIN ledger_accounts a ON a.id = p.account_id \
         ORDER BY t.id DESC, p.position",
    )
    .bind(filter.before.map_or(i64::MAX, |before| before.0))
    .bind(filter.customer.map_or(0, |customer| customer.0))
    .bind(filter.invoice.map_or(0, |invoice| invoice.0))
    .bind(filter.payment.map_or(0, |payment| payment.0))
    .bind(filter.from_ms.unwrap_or(i64::MIN))
    .bind(filter.to_ms.unwrap_or(i64::MAX))
    .bind(filter.account.unwrap_or(""))
    .bind(limit.clamp(1, MAX_PAGE))
    .fetch_all(db)
    .await?;
    let mut found: Vec<PostedTransaction> = Vec::new();
    for row in &rows {
        let id = TransactionId(row.try_get("id")?);
        let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
        let posted = Posted {
            account: row.try_get("name")?,
            amount: Money::new(row.try_get("amount_minor")?, currency),
        };
        match found.last_mut() {
            Some(last) if last.id == id => last.postings.push(posted),
            _ => found.push(PostedTransaction {
                id,
                idempotency_key: row.try_get("idempotency_key")?,
                customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
                invoice: row.try_get::<Option<i64>, _>("invoice_id")?.map(InvoiceId),
                payment: row.try_get::<Option<i64>, _>("payment_id")?.map(PaymentId),
                refund: row.try_get::<Option<i64>, _>("refund_id")?.map(RefundId),
                description: row.try_get("description")?,
                posted_at_ms: row.try_get("posted_at_ms")?,
                value_at_ms: row.try_get("value_at_ms")?,
                postings: vec![posted],
            }),
        }
    }
    Ok(found)
}

/// What a customer owes in one currency, and has as credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CustomerBalance)]
pub struct Owed {
    pub customer: CustomerId,
    /// Open invoices.
    pub receivable: Money,
    /// The customer's wallet; below zero when a payment that was spent was taken back.
    pub credit: Money,
}

/// What customers owe and have, by customer and currency; of one customer or all.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn owed(db: impl AnyExecutor<'_>, customer: Option<CustomerId>) -> Result<Vec<Owed>, LedgerError> {
    let rows = sqlx::query(
        "SELECT a.customer_id, a.currency, \
         CAST(sum(CASE WHEN a.kind = 'asset' THEN p.amount_minor ELSE 0 END) AS BIGINT), \
         CAST(sum(CASE WHEN a.kind = 'liability' THEN -p.amount_minor ELSE 0 END) AS BIGINT) \
         FROM ledger_accounts a JOIN ledger_postings p ON p.account_id = a.id \
         WHERE a.customer_id IS NOT NULL AND ($1 = 0 OR a.customer_id = $1) \
         GROUP BY a.customer_id, a.currency ORDER BY a.customer_id, a.currency",
    )
    .bind(customer.map_or(0, |customer| customer.0))
    .fetch_all(db)
    .await?;
    let mut owed = Vec::with_capacity(rows.len());
    for row in &rows {
        let currency: Currency = row.try_get::<String, _>(1)?.parse()?;
        owed.push(Owed {
            customer: CustomerId(row.try_get(0)?),
            receivable: Money::new(row.try_get(2)?, currency),
            credit: Money::new(row.try_get(3)?, currency),
        });
    }
    Ok(owed)
}

/// What one transaction did to a customer's account.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StatementLine {
    pub transaction: TransactionId,
    pub posted_at_ms: i64,
    /// Of a payment that came in: its value date.
    pub value_at_ms: Option<i64>,
    pub description: String,
    pub invoice: Option<InvoiceId>,
    pub payment: Option<PaymentId>,
    /// What the customer owes more, or less where it is negative.
    pub owed: Money,
    /// What the customer has more as credit, or less.
    pub credit: Money,
    /// All that is owed less all credit, after this transaction, in this currency.
    pub balance: Money,
}

/// A customer's statement, newest first, `limit` at most; `before` is the last of the page before. Balances run over
/// everything, whatever page is read.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn statement(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    before: Option<TransactionId>,
    limit: i64,
) -> Result<Vec<StatementLine>, LedgerError> {
    let rows = sqlx::query(
        "SELECT r.id, r.currency, r.owed, r.credit, r.balance, t.description, t.posted_at_ms, t.invoice_id, t.payment_id, \
         (SELECT y.value_at_ms FROM payments y WHERE y.id = t.payment_id \
           AND t.idempotency_key = 'payment:pay_' || CAST(y.id AS TEXT)) AS value_at_ms \
         FROM (SELECT id, currency, owed, credit, \
             CAST(sum(owed - credit) OVER (PARTITION BY currency ORDER BY id) AS BIGINT) AS balance FROM ( \
               SELECT p.transaction_id AS id, p.currency, \
                 CAST(sum(CASE WHEN a.kind = 'asset' THEN p.amount_minor ELSE 0 END) AS BIGINT) AS owed, \
                 CAST(sum(CASE WHEN a.kind = 'liability' THEN -p.amount_minor ELSE 0 END) AS BIGINT) AS credit \
               FROM ledger_accounts a JOIN ledger_postings p ON p.account_id = a.id \
               WHERE a.customer_id = $1 GROUP BY p.transaction_id, p.currency) s) r \
         JOIN ledger_transactions t ON t.id = r.id WHERE r.id < $2 ORDER BY r.id DESC, r.currency LIMIT $3",
    )
    .bind(customer.0)
    .bind(before.map_or(i64::MAX, |before| before.0))
    .bind(limit.clamp(1, MAX_PAGE))
    .fetch_all(db)
    .await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in &rows {
        let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
        lines.push(StatementLine {
            transaction: TransactionId(row.try_get("id")?),
            posted_at_ms: row.try_get("posted_at_ms")?,
            value_at_ms: row.try_get("value_at_ms")?,
            description: row.try_get("description")?,
            invoice: row.try_get::<Option<i64>, _>("invoice_id")?.map(InvoiceId),
            payment: row.try_get::<Option<i64>, _>("payment_id")?.map(PaymentId),
            owed: Money::new(row.try_get("owed")?, currency),
            credit: Money::new(row.try_get("credit")?, currency),
            balance: Money::new(row.try_get("balance")?, currency),
        });
    }
    Ok(lines)
}
