//! A database of version 7bef553 with credit below zero, opened by this one.

use schemas::db::Database;
use sqlx::Executor as _;

use super::*;
use crate::aging;
use crate::settlement::tests::usd;

/// As that version left it: a top-up of 50.00 that paid an invoice of 30.00, 20.00 that were refunded, and all of it charged
/// back, so that the credit is 50.00 below zero and nobody is asked for it; and another invoice, paid by a transfer.
const ROWS: &str = "
INSERT INTO sequences VALUES ('customer', 2), ('invoice', 3), ('payment', 3), ('allocation', 3), ('ledger_transaction', 9),
  ('ledger_account', 7);
INSERT INTO customers (id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms)
  VALUES (1, 'Ada', 'ada@example.net', 'USD', 'UTC', 'US', '0', 0);
INSERT INTO invoices (id, kind, number, entity_id, customer_id, customer_name, seller, buyer, currency, period_start_ms,
  period_end_ms, time_zone, status, reason, prices_include_tax, subtotal_minor, tax_minor, total_minor, finalised_at_ms,
  due_at_ms, settled_at_ms) VALUES
  (1, 'invoice', 'INV-1', 1, 1, 'Ada', '{}', '{}', 'USD', 0, 1, 'UTC', 'paid', '', 0, 3000, 0, 3000, 1000, 2000, 1000),
  (2, 'invoice', 'INV-2', 1, 1, 'Ada', '{}', '{}', 'USD', 0, 1, 'UTC', 'paid', '', 0, 700, 0, 700, 1000, 2000, 5000);
INSERT INTO invoice_lines (id, invoice_id, position, kind, description, quantity, unit, unit_price, amount_minor, priced_minor,
  period_start_ms, period_end_ms, evidence) VALUES (1, 1, 1, 'base', 'x', '1', '', '30', 3000, 3000, 0, 1, '{}'),
  (2, 2, 1, 'base', 'x', '1', '', '7', 700, 700, 0, 1, '{}');
INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, currency, amount_minor, idempotency_key, state, action_url,
  error, calls, note, created_at_ms, updated_at_ms, paid_at_ms) VALUES
  (1, 1, NULL, 'top_up', 'stripe', 'USD', 5000, 'k1', 'succeeded', '', '', 1, '', 500, 500, 500),
  (2, 1, 2, 'invoice', 'manual', 'USD', 700, 'k2', 'succeeded', '', '', 0, '', 5000, 5000, 5000);
INSERT INTO refunds (id, payment_id, currency, amount_minor, idempotency_key, state, reason, error, created_by, created_at_ms,
  updated_at_ms) VALUES (1, 1, 'USD', 2000, 'r1', 'succeeded', '', '', 'test', 3000, 3000);
INSERT INTO disputes (id, payment_id, gateway, reference, currency, amount_minor, status, reason, opened_at_ms, updated_at_ms)
  VALUES (1, 1, 'stripe', 'dp_1', 'USD', 5000, 'lost', '', 4000, 4000);
INSERT INTO ledger_accounts (id, name, kind, currency, customer_id) VALUES
  (1, 'receivable:cus_1:USD', 'asset', 'USD', 1), (2, 'credit:cus_1:USD', 'liability', 'USD', 1),
  (3, 'cash:stripe:USD', 'asset', 'USD', NULL), (4, 'revenue:base:USD', 'income', 'USD', NULL),
  (5, 'cash:manual:USD', 'asset', 'USD', NULL), (6, 'disputes:USD', 'asset', 'USD', NULL);
INSERT INTO ledger_transactions (id, idempotency_key, customer_id, invoice_id, payment_id, refund_id, description, posted_at_ms)
  VALUES (1, 'payment:pay_1', 1, NULL, 1, NULL, 'top-up', 500), (2, 'invoice:inv_1', 1, 1, NULL, NULL, 'sale', 1000),
  (3, 'invoice:inv_2', 1, 2, NULL, NULL, 'sale', 1000), (4, 'credit:inv_1:alc_1', 1, 1, NULL, NULL, 'credit', 1000),
  (5, 'refund:rfd_1', 1, NULL, 1, 1, 'refund', 3000), (6, 'dispute:stripe:dp_1:opened', 1, NULL, 1, NULL, 'opened', 4000),
  (7, 'dispute:stripe:dp_1:lost', 1, NULL, 1, NULL, 'lost', 4000), (8, 'payment:pay_2', 1, 2, 2, NULL, 'paid', 5000);
INSERT INTO ledger_postings (transaction_id, position, account_id, currency, amount_minor) VALUES
  (1, 1, 3, 'USD', 5000), (1, 2, 2, 'USD', -5000), (2, 1, 1, 'USD', 3000), (2, 2, 4, 'USD', -3000),
  (3, 1, 1, 'USD', 700), (3, 2, 4, 'USD', -700), (4, 1, 2, 'USD', 3000), (4, 2, 1, 'USD', -3000),
  (5, 1, 2, 'USD', 2000), (5, 2, 3, 'USD', -2000), (6, 1, 6, 'USD', 5000), (6, 2, 3, 'USD', -5000),
  (7, 1, 2, 'USD', 5000), (7, 2, 6, 'USD', -5000), (8, 1, 5, 'USD', 700), (8, 2, 1, 'USD', -700);
INSERT INTO allocations (id, invoice_id, source, payment_id, credit_note_id, amount_minor, transaction_id, created_at_ms) VALUES
  (1, 1, 'credit', NULL, NULL, 3000, 4, 1000), (2, 2, 'payment', 2, NULL, 700, 8, 5000);
";

#[tokio::test]
async fn credit_below_zero_of_an_earlier_version_is_claimed_and_values_are_dated() {
    sqlx::any::install_default_drivers();
    let folder = tempfile::tempdir().unwrap();
    let url = Database::default_url(folder.path());
    let before = sqlx::any::AnyPoolOptions::new()
        .max_connections(1)
        .connect(&format!("{url}?mode=rwc"))
        .await
        .unwrap();
    let version = "CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at_ms BIGINT NOT NULL); \
                   INSERT INTO schema_migrations VALUES (1, 'schema', 0);";
    for sql in [include_str!("../../../../schemas/sql/001_schema.sql"), version, ROWS] {
        before.execute(sqlx::raw_sql(sql)).await.unwrap();
    }
    before.close().await;

    let database = Database::open(&url).await.unwrap();
    let (customer, invoice) = (CustomerId(1), InvoiceId(1));
    let claim = sqlx::query("SELECT since_ms, due_at_ms FROM credit_claims")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(
        (claim.get::<i64, _>(0), claim.get::<i64, _>(1)),
        (4000, 4000 + 14 * DAY_MS)
    );
    // What was recorded without a value date has the one on which it was recorded.
    let open_at = async |at_ms: i64| {
        let aged = aging::aging(database.pool(), at_ms).await.unwrap();
        aged.first().map_or(0, |sums| sums.total.minor)
    };
    assert_eq!((open_at(4_999).await, open_at(5_000).await), (5_700, 5_000));

    // The first look opens what the credit had paid; the rest is a claim.
    let script = Script::new(&database, &[], Reply::Succeeds);
    let now_ms = 5_000 + 15 * DAY_MS;
    let collected = run(&database, &script, now_ms).await.unwrap();
    assert!(
        collected.failed.is_empty() && collected.claims_failed.is_empty(),
        "{collected:?}"
    );
    let credit = settlement::credit_balance(database.pool(), customer, Currency::USD)
        .await
        .unwrap();
    let open = settlement::outstanding(database.pool(), invoice).await.unwrap();
    assert_eq!((credit, open), (usd(-2_000), usd(3_000)));
    assert_eq!(open_at(now_ms).await, 5_000);
    let report = ledger::check(&database).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}
