//! `ledger check`: whether the books agree with themselves and with the documents and payments they are about.
//!
//! Every check is one statement over whole tables, which returns what is wrong: subject, found, expected.

use schemas::db::Database;
use sqlx::Row as _;

use super::{LedgerError, LedgerReport, Violation};

/// Looks at everything: postings sum to zero per transaction and currency, documents and their status equal their postings
/// and allocations, customers owe what their documents leave open (B1); lines and taxes sum to totals (B2); payments and
/// refunds have moved money exactly if they say so (B4); nothing is credited twice, and credit has a cause (B6).
///
/// # Errors
/// As the database answers; a violation is not an error but a finding.
pub async fn check(database: &Database) -> Result<LedgerReport, LedgerError> {
    let mut report = LedgerReport::default();
    // One transaction, so that all statements see the same books.
    let mut transaction = database.pool().begin().await?;
    if database.backend() == schemas::db::Backend::Postgres {
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
    }
    for (count, table) in [
        (&mut report.transactions, "SELECT count(*) FROM ledger_transactions"),
        (&mut report.postings, "SELECT count(*) FROM ledger_postings"),
        (&mut report.invoices, "SELECT count(*) FROM invoices"),
        (&mut report.payments, "SELECT count(*) FROM payments"),
    ] {
        let found: i64 = sqlx::query(table).fetch_one(&mut *transaction).await?.try_get(0)?;
        *count = u64::try_from(found).unwrap_or(0);
    }
    for (invariant, sql) in CHECKS {
        for row in sqlx::query(sql).fetch_all(&mut *transaction).await? {
            let (subject, found, expected): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            report.violations.push(Violation {
                invariant,
                what: format!("{subject}: {found} minor units instead of {expected}"),
            });
        }
    }
    for row in sqlx::query(STATUSES).fetch_all(&mut *transaction).await? {
        let (number, status, expected): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        report.violations.push(Violation {
            invariant: "B1",
            what: format!("status of {number}: {status} instead of {expected}"),
        });
    }
    transaction.rollback().await?;
    Ok(report)
}

/// What the allocations of a document make of its status.
const STATUSES: &str = "SELECT number, status, expected FROM ( \
    SELECT i.number, i.status, CASE \
      WHEN coalesce(s.settled, 0) = i.total_minor AND coalesce(s.written_off, 0) <> 0 THEN 'uncollectible' \
      WHEN coalesce(s.settled, 0) = i.total_minor AND i.status = 'void' THEN 'void' \
      WHEN coalesce(s.settled, 0) = i.total_minor THEN 'paid' \
      WHEN coalesce(s.settled, 0) = 0 THEN 'finalised' \
      ELSE 'partially_paid' END AS expected \
    FROM invoices i LEFT JOIN ( \
      SELECT invoice_id, sum(amount_minor) AS settled, \
      sum(CASE WHEN source = 'write_off' THEN amount_minor ELSE 0 END) AS written_off \
      FROM allocations GROUP BY invoice_id) s ON s.invoice_id = i.id) judged \
    WHERE status <> expected ORDER BY number";

const CHECKS: [(&str, &str); 20] = [
    (
        "B1",
        "SELECT t.idempotency_key, CAST(sum(p.amount_minor) AS BIGINT), CAST(0 AS BIGINT) FROM ledger_transactions t \
         JOIN ledger_postings p ON p.transaction_id = t.id GROUP BY t.id, t.idempotency_key, p.currency \
         HAVING sum(p.amount_minor) <> 0 ORDER BY 1",
    ),
    (
        "B1",
        "SELECT 'account ' || a.name || ' has postings in ' || p.currency, CAST(sum(p.amount_minor) AS BIGINT), \
         CAST(0 AS BIGINT) FROM ledger_postings p JOIN ledger_accounts a ON a.id = p.account_id \
         WHERE a.currency <> p.currency GROUP BY a.name, p.currency ORDER BY 1",
    ),
    (
        "B1",
        "SELECT t.idempotency_key || ' has no postings', CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM ledger_transactions t \
         WHERE NOT EXISTS (SELECT 1 FROM ledger_postings p WHERE p.transaction_id = t.id) ORDER BY 1",
    ),
    (
        "B2",
        "SELECT 'lines of ' || i.number, CAST(coalesce(sum(l.amount_minor), 0) AS BIGINT), i.subtotal_minor \
         FROM invoices i LEFT JOIN invoice_lines l ON l.invoice_id = i.id GROUP BY i.id, i.number, i.subtotal_minor \
         HAVING coalesce(sum(l.amount_minor), 0) <> i.subtotal_minor ORDER BY 1",
    ),
    (
        "B2",
        "SELECT 'subtotal and tax of ' || number, subtotal_minor + tax_minor, total_minor FROM invoices \
         WHERE subtotal_minor + tax_minor <> total_minor ORDER BY 1",
    ),
    (
        "B2",
        "SELECT 'taxes of ' || i.number, CAST(coalesce(sum(x.tax_minor), 0) AS BIGINT), i.tax_minor \
         FROM invoices i LEFT JOIN invoice_taxes x ON x.invoice_id = i.id GROUP BY i.id, i.number, i.tax_minor \
         HAVING coalesce(sum(x.tax_minor), 0) <> i.tax_minor ORDER BY 1",
    ),
    // A tax is computed from the lines that bear it, be they charged now or correct what was charged.
    (
        "B2",
        "SELECT 'net of ' || x.name || ' on ' || i.number, CAST(coalesce(sum(l.amount_minor), 0) AS BIGINT), x.net_minor \
         FROM invoice_taxes x JOIN invoices i ON i.id = x.invoice_id \
         LEFT JOIN invoice_lines l ON l.invoice_id = x.invoice_id AND l.tax_group = x.tax_group \
         GROUP BY i.id, i.number, x.position, x.name, x.net_minor \
         HAVING coalesce(sum(l.amount_minor), 0) <> x.net_minor ORDER BY 1",
    ),
    // The document's own transaction, not those that settle it.
    (
        "B1",
        "SELECT 'receivable of ' || i.number, CAST(coalesce(sum(p.amount_minor), 0) AS BIGINT), i.total_minor \
         FROM invoices i LEFT JOIN ledger_transactions t ON t.idempotency_key = 'invoice:inv_' || CAST(i.id AS TEXT) \
         LEFT JOIN ledger_accounts a ON a.name = 'receivable:cus_' || CAST(i.customer_id AS TEXT) || ':' || i.currency \
         LEFT JOIN ledger_postings p ON p.transaction_id = t.id AND p.account_id = a.id \
         GROUP BY i.id, i.number, i.total_minor HAVING coalesce(sum(p.amount_minor), 0) <> i.total_minor ORDER BY 1",
    ),
    (
        "B1",
        "SELECT 'tax of ' || i.number, CAST(coalesce(-sum(p.amount_minor), 0) AS BIGINT), i.tax_minor \
         FROM invoices i LEFT JOIN ledger_transactions t ON t.idempotency_key = 'invoice:inv_' || CAST(i.id AS TEXT) \
         LEFT JOIN ledger_accounts a ON a.name = 'tax:' || i.currency \
         LEFT JOIN ledger_postings p ON p.transaction_id = t.id AND p.account_id = a.id \
         GROUP BY i.id, i.number, i.tax_minor HAVING coalesce(-sum(p.amount_minor), 0) <> i.tax_minor ORDER BY 1",
    ),
    (
        "B1",
        "SELECT 'allocations of ' || i.number, CAST(sum(l.amount_minor) AS BIGINT), i.total_minor \
         FROM invoices i JOIN allocations l ON l.invoice_id = i.id GROUP BY i.id, i.number, i.total_minor \
         HAVING sum(l.amount_minor) * (CASE WHEN i.total_minor < 0 THEN -1 ELSE 1 END) < 0 \
         OR abs(sum(l.amount_minor)) > abs(i.total_minor) ORDER BY 1",
    ),
    // What a customer owes by the ledger, and by what documents leave open.
    (
        "B1",
        "SELECT name, CAST(sum(owed) AS BIGINT), CAST(sum(open) AS BIGINT) FROM ( \
           SELECT a.name AS name, p.amount_minor AS owed, CAST(0 AS BIGINT) AS open FROM ledger_accounts a \
             JOIN ledger_postings p ON p.account_id = a.id WHERE a.name LIKE 'receivable:%' \
           UNION ALL SELECT 'receivable:cus_' || CAST(customer_id AS TEXT) || ':' || currency, 0, total_minor FROM invoices \
           UNION ALL SELECT 'receivable:cus_' || CAST(i.customer_id AS TEXT) || ':' || i.currency, 0, -l.amount_minor \
             FROM allocations l JOIN invoices i ON i.id = l.invoice_id) both_sides \
         GROUP BY name HAVING sum(owed) <> sum(open) ORDER BY 1",
    ),
    (
        "B4",
        "SELECT 'cash of pay_' || CAST(y.id AS TEXT), CAST(coalesce(sum(p.amount_minor), 0) AS BIGINT), \
         CASE WHEN y.state = 'succeeded' THEN y.amount_minor ELSE 0 END \
         FROM payments y LEFT JOIN ledger_transactions t ON t.idempotency_key = 'payment:pay_' || CAST(y.id AS TEXT) \
         LEFT JOIN ledger_accounts a ON a.name = 'cash:' || y.gateway || ':' || y.currency \
         LEFT JOIN ledger_postings p ON p.transaction_id = t.id AND p.account_id = a.id \
         GROUP BY y.id, y.state, y.amount_minor \
         HAVING coalesce(sum(p.amount_minor), 0) <> CASE WHEN y.state = 'succeeded' THEN y.amount_minor ELSE 0 END ORDER BY 1",
    ),
    (
        "B4",
        "SELECT 'cash of rfd_' || CAST(r.id AS TEXT), CAST(coalesce(-sum(p.amount_minor), 0) AS BIGINT), \
         CASE WHEN r.state = 'succeeded' THEN r.amount_minor ELSE 0 END \
         FROM refunds r JOIN payments y ON y.id = r.payment_id LEFT JOIN ledger_transactions t ON t.refund_id = r.id \
         LEFT JOIN ledger_accounts a ON a.name = 'cash:' || y.gateway || ':' || y.currency \
         LEFT JOIN ledger_postings p ON p.transaction_id = t.id AND p.account_id = a.id \
         GROUP BY r.id, r.state, r.amount_minor \
         HAVING coalesce(-sum(p.amount_minor), 0) <> CASE WHEN r.state = 'succeeded' THEN r.amount_minor ELSE 0 END ORDER BY 1",
    ),
    // What a payment settled is not more than it brought.
    (
        "B4",
        "SELECT 'allocations of pay_' || CAST(y.id AS TEXT), CAST(sum(l.amount_minor) AS BIGINT), y.amount_minor \
         FROM payments y JOIN allocations l ON l.payment_id = y.id GROUP BY y.id, y.amount_minor \
         HAVING sum(l.amount_minor) > y.amount_minor OR sum(l.amount_minor) < 0 ORDER BY 1",
    ),
    (
        "B4",
        "SELECT 'disputed of ' || d.gateway || ' ' || d.reference, CAST(coalesce(sum(p.amount_minor), 0) AS BIGINT), \
         CASE WHEN d.status = 'open' THEN d.amount_minor ELSE 0 END FROM disputes d \
         LEFT JOIN ledger_transactions t ON t.idempotency_key IN \
           ('dispute:' || d.gateway || ':' || d.reference || ':opened', 'dispute:' || d.gateway || ':' || d.reference || ':won', \
            'dispute:' || d.gateway || ':' || d.reference || ':lost') \
         LEFT JOIN ledger_accounts a ON a.name = 'disputes:' || d.currency \
         LEFT JOIN ledger_postings p ON p.transaction_id = t.id AND p.account_id = a.id \
         GROUP BY d.id, d.gateway, d.reference, d.status, d.amount_minor \
         HAVING coalesce(sum(p.amount_minor), 0) <> CASE WHEN d.status = 'open' THEN d.amount_minor ELSE 0 END ORDER BY 1",
    ),
    // What was given back of a line is at most that line, by whatever gave it back.
    (
        "B6",
        "SELECT 'given back of line ' || CAST(l.position AS TEXT) || ' of ' || i.number, CAST(sum(b.priced_minor) AS BIGINT), \
         l.priced_minor FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id JOIN line_credits b ON b.credited_line_id = l.id \
         GROUP BY l.id, l.position, l.priced_minor, i.number \
         HAVING sum(b.priced_minor) > CASE WHEN l.priced_minor > 0 THEN l.priced_minor ELSE 0 END \
         OR sum(b.priced_minor) < CASE WHEN l.priced_minor < 0 THEN l.priced_minor ELSE 0 END ORDER BY 1",
    ),
    // Whoever gives back says of which line; what was credited by hand is an item. The charges behind a line that gives back
    // itself are said beside it.
    (
        "B6",
        "SELECT 'charges that line ' || CAST(l.position AS TEXT) || ' of ' || i.number || ' gives back', \
         CAST(coalesce(sum(b.priced_minor), 0) AS BIGINT), -l.priced_minor FROM invoice_lines l \
         JOIN invoices i ON i.id = l.invoice_id LEFT JOIN line_credits b ON b.line_id = l.id AND NOT EXISTS ( \
           SELECT 1 FROM line_credits d JOIN line_credits f ON f.line_id = d.credited_line_id \
           WHERE d.line_id = l.id AND f.credited_line_id = b.credited_line_id) \
         WHERE l.priced_minor < 0 AND l.evidence NOT LIKE '{\"kind\":\"item\"%' \
         GROUP BY l.id, l.position, l.priced_minor, i.number \
         HAVING coalesce(sum(b.priced_minor), 0) <> -l.priced_minor ORDER BY 1",
    ),
    (
        "B6",
        "SELECT 'items of ' || i.number, CAST(sum(l.priced_minor) AS BIGINT), \
         CAST(coalesce((SELECT sum(c.amount_minor) FROM charge_items c WHERE c.invoice_id = i.id), 0) AS BIGINT) FROM invoices i \
         JOIN invoice_lines l ON l.invoice_id = i.id WHERE l.evidence LIKE '{\"kind\":\"item\"%' AND i.status <> 'void' \
         GROUP BY i.id, i.number HAVING sum(l.priced_minor) <> \
         coalesce((SELECT sum(c.amount_minor) FROM charge_items c WHERE c.invoice_id = i.id), 0) ORDER BY 1",
    ),
    // Credit comes from a payment, a credit note, or was granted; or it had paid an invoice that is open again.
    (
        "B6",
        "SELECT 'credit without a cause: ' || t.idempotency_key, CAST(-sum(p.amount_minor) AS BIGINT), CAST(0 AS BIGINT) \
         FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id \
         JOIN ledger_accounts a ON a.id = p.account_id WHERE a.name LIKE 'credit:%' \
         AND NOT EXISTS (SELECT 1 FROM payments y WHERE y.id = t.payment_id AND y.state = 'succeeded') \
         AND NOT EXISTS (SELECT 1 FROM invoices n WHERE n.id = t.invoice_id AND n.kind = 'credit_note') \
         AND NOT EXISTS (SELECT 1 FROM ledger_postings g JOIN ledger_accounts o ON o.id = g.account_id \
           WHERE g.transaction_id = t.id AND o.name LIKE 'promotion:%') \
         AND NOT EXISTS (SELECT 1 FROM allocations u JOIN invoices d ON d.id = u.invoice_id WHERE u.transaction_id = t.id \
           AND u.invoice_id = t.invoice_id AND u.source = 'credit' AND u.amount_minor < 0 AND d.kind = 'invoice') \
         GROUP BY t.id, t.idempotency_key HAVING sum(p.amount_minor) < 0 ORDER BY 1",
    ),
    // Credit notes on an invoice make no more credit than the customer paid for it. Those that correct others too are left out, and
    // invoices that were paid by what they gave back themselves, or by notes with more than what those gave back of them.
    (
        "B6",
        "SELECT 'credit from credit notes on ' || i.number, made.credit, CAST(coalesce(paid.settled, 0) AS BIGINT) FROM ( \
           SELECT n.corrects_invoice_id AS invoice_id, CAST(-sum(x.amount_minor) AS BIGINT) AS credit FROM invoices n \
             JOIN allocations x ON x.invoice_id = n.id AND x.source = 'credit' WHERE n.kind = 'credit_note' AND NOT EXISTS ( \
               SELECT 1 FROM invoice_lines l LEFT JOIN line_credits b ON b.line_id = l.id \
               LEFT JOIN invoice_lines c ON c.id = b.credited_line_id WHERE l.invoice_id = n.id AND l.priced_minor <> 0 \
               AND (c.id IS NULL OR c.invoice_id <> n.corrects_invoice_id)) \
             GROUP BY n.corrects_invoice_id) made JOIN invoices i ON i.id = made.invoice_id LEFT JOIN ( \
           SELECT invoice_id, sum(amount_minor) AS settled FROM allocations \
             WHERE source IN ('payment', 'credit') AND amount_minor > 0 GROUP BY invoice_id) paid ON paid.invoice_id = i.id \
         WHERE made.credit > coalesce(paid.settled, 0) AND NOT EXISTS (SELECT 1 FROM invoice_lines m \
           WHERE m.invoice_id = i.id AND m.priced_minor < 0 AND m.kind <> 'discount') \
         AND NOT EXISTS (SELECT 1 FROM allocations z JOIN invoice_lines l ON l.invoice_id = z.credit_note_id \
           LEFT JOIN line_credits b ON b.line_id = l.id LEFT JOIN invoice_lines c ON c.id = b.credited_line_id \
           WHERE z.invoice_id = i.id AND z.source = 'credit_note' AND l.priced_minor <> 0 \
           AND (c.id IS NULL OR c.invoice_id <> i.id)) ORDER BY 1",
    ),
];
