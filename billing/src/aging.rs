//! How long what customers owe has been due, by customer and currency: open invoices, and credit below zero. Sums of different
//! currencies are never added. A past day is answered by the ledger as it stood then, with claims that were settled since.

use schemas::ids::CustomerId;
use schemas::money::{Currency, Money, MoneyError};
use schemas::window::DAY_MS;
use sqlx::{AnyExecutor, Row as _};

use crate::BillingError;

/// Last day overdue of every bucket but the first, which is not due, and the last, which is open.
pub const BUCKET_DAYS: [i64; 3] = [30, 60, 90];
/// Names of the buckets, in order.
pub const BUCKETS: [&str; 5] = ["Not due", "1–30 days", "31–60 days", "61–90 days", "Over 90 days"];

/// What one customer owes in one currency, by how long it has been due.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = AgedCustomer)]
pub struct Aged {
    pub customer: CustomerId,
    pub customer_name: String,
    /// Open invoices; what is owed as negative credit is none.
    pub invoices: i64,
    /// What is open, in five parts: not due yet, then 1 to 30, 31 to 60, 61 to 90 and over 90 days past the due date.
    pub open: [Money; 5],
    pub total: Money,
}

/// The sums of one currency.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct AgedCurrency {
    pub currency: Currency,
    pub customers: Vec<Aged>,
    /// What is open, in five parts: not due yet, then 1 to 30, 31 to 60, 61 to 90 and over 90 days past the due date.
    pub open: [Money; 5],
    pub total: Money,
}

/// Everything that was open at `at_ms` as it is known now, by currency, the largest debtor first: a payment counts from its
/// value date on, whenever it was recorded, everything else from when it was.
///
/// # Errors
/// As the database answers, or when a sum does not fit.
pub async fn aging(db: impl AnyExecutor<'_>, at_ms: i64) -> Result<Vec<AgedCurrency>, BillingError> {
    let [first, second, third] = BUCKET_DAYS.map(|days| at_ms.saturating_sub(days * DAY_MS));
    let rows = sqlx::query(
        "SELECT o.currency, o.customer_id, c.name, CAST(sum(o.invoices) AS BIGINT), \
         CAST(sum(CASE WHEN o.due_at_ms > $1 THEN o.open ELSE 0 END) AS BIGINT), \
         CAST(sum(CASE WHEN o.due_at_ms <= $1 AND o.due_at_ms > $2 THEN o.open ELSE 0 END) AS BIGINT), \
         CAST(sum(CASE WHEN o.due_at_ms <= $2 AND o.due_at_ms > $3 THEN o.open ELSE 0 END) AS BIGINT), \
         CAST(sum(CASE WHEN o.due_at_ms <= $3 AND o.due_at_ms > $4 THEN o.open ELSE 0 END) AS BIGINT), \
         CAST(sum(CASE WHEN o.due_at_ms <= $4 THEN o.open ELSE 0 END) AS BIGINT), CAST(sum(o.open) AS BIGINT) \
         FROM (SELECT i.currency, i.customer_id, i.due_at_ms, 1 AS invoices, i.total_minor - coalesce(( \
             SELECT CAST(sum(l.amount_minor) AS BIGINT) FROM allocations l WHERE l.invoice_id = i.id AND l.value_at_ms <= $1), 0) AS open \
           FROM invoices i WHERE i.kind = 'invoice' AND i.finalised_at_ms <= $1 \
             AND i.id IN (SELECT y.id FROM invoices y WHERE y.status IN ('finalised', 'partially_paid') \
               UNION SELECT x.invoice_id FROM allocations x WHERE x.value_at_ms > $1) \
           UNION ALL SELECT q.currency, q.customer_id, q.due_at_ms, 0, coalesce(( \
             SELECT CAST(sum(p.amount_minor) AS BIGINT) FROM ledger_postings p JOIN ledger_accounts a ON a.id = p.account_id \
             JOIN ledger_transactions t ON t.id = p.transaction_id \
             LEFT JOIN payments y ON y.id = t.payment_id AND t.idempotency_key = 'payment:pay_' || CAST(y.id AS TEXT) \
             WHERE a.name = 'credit:cus_' || CAST(q.customer_id AS TEXT) || ':' || q.currency \
               AND coalesce(y.value_at_ms, t.posted_at_ms) <= $1), 0) \
           FROM (SELECT c.customer_id, c.currency, c.due_at_ms FROM credit_claims c WHERE c.since_ms <= $1 \
             UNION ALL SELECT e.customer_id, e.currency, e.due_at_ms FROM ended_credit_claims e \
               WHERE e.since_ms <= $1 AND e.until_ms > $1) q) o \
         JOIN customers c ON c.id = o.customer_id WHERE o.open > 0 GROUP BY o.currency, o.customer_id, c.name \
         ORDER BY o.currency, 10 DESC, o.customer_id",
    )
    .bind(at_ms)
    .bind(first)
    .bind(second)
    .bind(third)
    .fetch_all(db)
    .await?;
    let mut currencies: Vec<AgedCurrency> = Vec::new();
    for row in &rows {
        let currency: Currency = row.try_get::<String, _>(0)?.parse()?;
        let mut open = [Money::zero(currency); 5];
        for (column, bucket) in (4..).zip(&mut open) {
            bucket.minor = row.try_get::<i64, _>(column)?;
        }
        let aged = Aged {
            customer: CustomerId(row.try_get(1)?),
            customer_name: row.try_get(2)?,
            invoices: row.try_get(3)?,
            open,
            total: Money::new(row.try_get(9)?, currency),
        };
        if currencies.last().is_none_or(|last| last.currency != currency) {
            currencies.push(AgedCurrency {
                currency,
                customers: Vec::new(),
                open: [Money::zero(currency); 5],
                total: Money::zero(currency),
            });
        }
        if let Some(sums) = currencies.last_mut() {
            sums.add(aged)?;
        }
    }
    Ok(currencies)
}

impl AgedCurrency {
    fn add(&mut self, aged: Aged) -> Result<(), MoneyError> {
        for (sum, open) in self.open.iter_mut().zip(aged.open) {
            *sum = sum.checked_add(open)?;
        }
        self.total = self.total.checked_add(aged.total)?;
        self.customers.push(aged);
        Ok(())
    }
}
