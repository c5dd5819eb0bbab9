use activity::event::{self, EventFilter};
use proptest::prelude::*;
use schemas::db::Database;
use schemas::ids::RefundId;
use schemas::inventory::{self, NewCustomer};

use super::*;

/// Books with documents and payments of known amounts, without subscriptions.
pub(crate) struct Books {
    pub(crate) database: Database,
    pub(crate) customer: CustomerId,
    _folder: tempfile::TempDir,
}

pub(crate) fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

impl Books {
    pub(crate) async fn new() -> Books {
        let folder = fixtures::in_memory_folder();
        crate::testing::migrated(folder.path()).await;
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        let mut transaction = database.begin_write().await.unwrap();
        let new = NewCustomer {
            name: "Ada Hosting",
            email: "ada@example.net",
            currency: "USD",
            time_zone: "UTC",
            country: "DE",
            tax_rate_percent: "0",
        };
        let customer = inventory::create_customer(&mut transaction, new, 0).await.unwrap().id;
        transaction.commit().await.unwrap();
        Books {
            database,
            customer,
            _folder: folder,
        }
    }

    /// A finalised document and its posting; below zero it is a credit note.
    pub(crate) async fn document(&self, minor: i64, corrects: Option<InvoiceId>) -> InvoiceId {
        let mut transaction = self.database.begin_write().await.unwrap();
        let id = next_id(&mut transaction, "invoice").await.unwrap();
        let kind = if minor < 0 { "credit_note" } else { "invoice" };
        sqlx::query(
            "INSERT INTO invoices (id, kind, number, entity_id, customer_id, customer_name, seller, buyer, currency, \
             period_start_ms, period_end_ms, time_zone, status, corrects_invoice_id, reason, prices_include_tax, subtotal_minor, \
             tax_minor, total_minor, finalised_at_ms, due_at_ms) \
             VALUES ($1, $2, $3, 1, $4, 'Ada', '{}', '{}', 'USD', 0, 1, 'UTC', 'finalised', $5, '', 0, $6, 0, $6, 0, 0)",
        )
        .bind(id)
        .bind(kind)
        .bind(format!("N-{id}"))
        .bind(self.customer.0)
        .bind(corrects.map(|invoice| invoice.0))
        .bind(minor)
        .execute(&mut *transaction)
        .await
        .unwrap();
        if minor != 0 {
            sqlx::query(
                "INSERT INTO invoice_lines (id, invoice_id, position, kind, description, quantity, unit, unit_price, amount_minor, \
                 priced_minor, period_start_ms, period_end_ms, evidence) VALUES ($1, $1, 1, 'base', 'x', '1', '', '1', $2, $2, 0, 1, '{}')",
            )
            .bind(id)
            .bind(minor)
            .execute(&mut *transaction)
            .await
            .unwrap();
            if let Some(corrects) = corrects {
                sqlx::query(
                    "INSERT INTO line_credits (line_id, credited_line_id, cause, priced_minor) VALUES ($1, $2, 'credit_note', $3)",
                )
                .bind(id)
                .bind(corrects.0)
                .bind(-minor)
                .execute(&mut *transaction)
                .await
                .unwrap();
            }
            let new = NewTransaction {
                idempotency_key: format!("invoice:inv_{id}"),
                customer: Some(self.customer),
                invoice: Some(InvoiceId(id)),
                payment: None,
                refund: None,
                description: "sale".to_owned(),
                posted_at_ms: 0,
                postings: nonzero([
                    (Account::receivable(self.customer, Currency::USD), usd(minor)),
                    (Account::revenue_base(Currency::USD), usd(-minor)),
                ]),
            };
            ledger::post(&mut transaction, &new).await.unwrap();
        }
        recompute_status(&mut transaction, InvoiceId(id), 1).await.unwrap();
        transaction.commit().await.unwrap();
        InvoiceId(id)
    }

    /// A payment that has succeeded; posting it is up to the test.
    async fn payment(&self, minor: i64, invoice: Option<InvoiceId>) -> PaymentId {
        let mut transaction = self.database.begin_write().await.unwrap();
        let id = next_id(&mut transaction, "payment").await.unwrap();
        sqlx::query(
            "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, currency, amount_minor, idempotency_key, state, \
             action_url, error, calls, note, created_at_ms, updated_at_ms) \
             VALUES ($1, $2, $3, $4, 'manual', 'USD', $5, $6, 'succeeded', '', '', 0, '', 0, 0)",
        )
        .bind(id)
        .bind(self.customer.0)
        .bind(invoice.map(|invoice| invoice.0))
        .bind(if invoice.is_some() { "invoice" } else { "top_up" })
        .bind(minor)
        .bind(format!("key-{id}"))
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        PaymentId(id)
    }

    async fn refund_row(&self, payment: PaymentId, minor: i64) -> RefundId {
        let mut transaction = self.database.begin_write().await.unwrap();
        let id = next_id(&mut transaction, "refund").await.unwrap();
        sqlx::query(
            "INSERT INTO refunds (id, payment_id, currency, amount_minor, idempotency_key, state, reason, error, created_by, \
             created_at_ms, updated_at_ms) VALUES ($1, $2, 'USD', $3, $4, 'succeeded', '', '', 'test', 0, 0)",
        )
        .bind(id)
        .bind(payment.0)
        .bind(minor)
        .bind(format!("key-{id}"))
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        RefundId(id)
    }

    fn received(&self, payment: PaymentId, minor: i64) -> ReceivedMoney<'static> {
        ReceivedMoney {
            payment,
            customer: self.customer,
            gateway: "manual",
            amount: usd(minor),
        }
    }

    async fn pay(&self, invoice: InvoiceId, minor: i64) -> (PaymentId, Split) {
        let payment = self.payment(minor, Some(invoice)).await;
        let mut transaction = self.database.begin_write().await.unwrap();
        let received = self.received(payment, minor);
        let split = pay_invoice(&mut transaction, received, invoice, 5).await.unwrap();
        // The same cause again moves nothing.
        let again = pay_invoice(&mut transaction, received, invoice, 6).await.unwrap();
        assert_eq!(split, again);
        transaction.commit().await.unwrap();
        (payment, split)
    }

    pub(crate) async fn top_up(&self, minor: i64) -> PaymentId {
        let payment = self.payment(minor, None).await;
        let mut transaction = self.database.begin_write().await.unwrap();
        for _ in 0..2 {
            let split = top_up(&mut transaction, self.received(payment, minor), 5)
                .await
                .unwrap();
            assert_eq!(split.to_credit, usd(minor));
        }
        transaction.commit().await.unwrap();
        payment
    }

    async fn apply_credit(&self, invoice: InvoiceId) -> i64 {
        let mut transaction = self.database.begin_write().await.unwrap();
        let applied = apply_credit(&mut transaction, invoice, 7).await.unwrap();
        transaction.commit().await.unwrap();
        applied.minor
    }

    /// Finalises a credit note and applies it, twice.
    async fn credit_note(&self, invoice: InvoiceId, minor: i64) -> (i64, i64) {
        let note = self.document(-minor, Some(invoice)).await;
        let mut transaction = self.database.begin_write().await.unwrap();
        let split = apply_credit_note(&mut transaction, note, 8).await.unwrap();
        let again = apply_credit_note(&mut transaction, note, 9).await.unwrap();
        assert_eq!((again.to_invoice, again.to_credit), (usd(0), usd(0)));
        transaction.commit().await.unwrap();
        assert_eq!(self.status(note).await, "paid");
        (split.to_invoice.minor, split.to_credit.minor)
    }

    pub(crate) async fn take_back(&self, payment: PaymentId, minor: i64) {
        let refund = self.refund_row(payment, minor).await;
        let mut transaction = self.database.begin_write().await.unwrap();
        for _ in 0..2 {
            settle_gateway_refund(&mut transaction, payment, refund, usd(minor), 10)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
    }

    async fn write_off(&self, invoice: InvoiceId) -> i64 {
        let mut transaction = self.database.begin_write().await.unwrap();
        let amount = write_off(&mut transaction, invoice, "bankrupt", 11).await.unwrap();
        transaction.commit().await.unwrap();
        amount.minor
    }

    pub(crate) async fn status(&self, invoice: InvoiceId) -> String {
        let row = sqlx::query("SELECT status, settled_at_ms FROM invoices WHERE id = $1")
            .bind(invoice.0)
            .fetch_one(self.database.pool())
            .await
            .unwrap();
        let status: String = row.try_get(0).unwrap();
        let settled_at_ms: Option<i64> = row.try_get(1).unwrap();
        assert_eq!(
            settled_at_ms.is_some(),
            ["paid", "uncollectible", "void"].contains(&status.as_str())
        );
        status
    }

    pub(crate) async fn credit(&self) -> i64 {
        credit_balance(self.database.pool(), self.customer, Currency::USD)
            .await
            .unwrap()
            .minor
    }

    pub(crate) async fn open(&self, invoice: InvoiceId) -> i64 {
        outstanding(self.database.pool(), invoice).await.unwrap().minor
    }

    async fn refundable(&self, payment: PaymentId) -> i64 {
        let mut connection = self.database.pool().acquire().await.unwrap();
        refundable(&mut connection, payment).await.unwrap().minor
    }

    pub(crate) async fn refund(&self, payment: PaymentId, minor: i64) {
        let refund = self.refund_row(payment, minor).await;
        let mut transaction = self.database.begin_write().await.unwrap();
        for _ in 0..2 {
            refund_posted(&mut transaction, refund, payment, usd(minor), 12)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
    }

    pub(crate) async fn assert_clean(&self) {
        let report = ledger::check(&self.database).await.unwrap();
        assert_eq!(report.violations, []);
    }
}

#[tokio::test]
async fn a_payment_settles_and_what_exceeds_becomes_credit() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    assert_eq!(books.status(invoice).await, "finalised");
    books.pay(invoice, 4_000).await;
    assert_eq!(books.status(invoice).await, "partially_paid");
    assert_eq!(books.open(invoice).await, 6_000);
    let (payment, split) = books.pay(invoice, 7_000).await;
    assert_eq!((split.to_invoice, split.to_credit), (usd(6_000), usd(1_000)));
    assert_eq!(books.status(invoice).await, "paid");
    assert_eq!(books.credit().await, 1_000);
    assert_eq!(books.refundable(payment).await, 1_000);
    books.assert_clean().await;
    let told = event::list(books.database.pool(), EventFilter::default(), 10)
        .await
        .unwrap();
    let types: Vec<&str> = told.iter().map(|event| event.event_type.name()).collect();
    assert_eq!(types, ["invoice.paid"]);
}

/// One slip of the keyboard made sums of an account overflow, and nothing of it could be read or collected any more.
#[tokio::test]
async fn an_amount_that_no_account_could_hold_is_refused() {
    let books = Books::new().await;
    let mut transaction = books.database.begin_write().await.unwrap();
    let grant = async |transaction: &mut AnyConnection, minor: i64| {
        grant_credit(
            transaction,
            books.customer,
            usd(minor),
            &format!("g{minor}"),
            "sorry",
            0,
        )
        .await
    };
    for minor in [0, -1, MAX_AMOUNT_MINOR + 1, i64::MAX] {
        let refused = grant(&mut transaction, minor).await.unwrap_err().to_string();
        assert!(refused.starts_with("an amount "), "{refused}");
    }
    grant(&mut transaction, MAX_AMOUNT_MINOR).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(books.credit().await, MAX_AMOUNT_MINOR);
    books.assert_clean().await;
}

#[tokio::test]
async fn credit_goes_as_far_as_it_goes() {
    let books = Books::new().await;
    books.top_up(3_000).await;
    let mut transaction = books.database.begin_write().await.unwrap();
    for _ in 0..2 {
        grant_credit(&mut transaction, books.customer, usd(500), "ticket:1", "outage", 1)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let first = books.document(2_000, None).await;
    let second = books.document(2_000, None).await;
    assert_eq!(books.apply_credit(first).await, 2_000);
    assert_eq!(books.apply_credit(second).await, 1_500);
    assert_eq!(books.apply_credit(second).await, 0);
    assert_eq!(books.status(second).await, "partially_paid");
    books.top_up(1_000).await;
    assert_eq!(books.apply_credit(second).await, 500);
    assert_eq!(books.status(second).await, "paid");
    assert_eq!(books.credit().await, 500);
    books.assert_clean().await;
}

#[tokio::test]
async fn a_credit_note_settles_its_invoice_and_the_rest_can_be_refunded() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    let (payment, _) = books.pay(invoice, 7_500).await;
    assert_eq!(books.refundable(payment).await, 0);
    assert_eq!(books.credit_note(invoice, 4_000).await, (2_500, 1_500));
    assert_eq!(books.status(invoice).await, "paid");
    assert_eq!(books.credit().await, 1_500);
    assert_eq!(books.refundable(payment).await, 1_500);
    books.refund(payment, 1_500).await;
    assert_eq!(books.credit().await, 0);
    assert_eq!(books.refundable(payment).await, 0);
    books.assert_clean().await;
}

#[tokio::test]
async fn what_the_gateway_took_back_is_owed_again() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    let (payment, _) = books.pay(invoice, 12_000).await;
    // The 20 that became credit go first.
    books.take_back(payment, 3_000).await;
    assert_eq!(books.credit().await, 0);
    assert_eq!(books.open(invoice).await, 1_000);
    assert_eq!(books.status(invoice).await, "partially_paid");
    books.take_back(payment, 9_000).await;
    assert_eq!(books.status(invoice).await, "finalised");
    books.assert_clean().await;

    // What credit paid that is taken back is open again.
    let top_up = books.top_up(1_000).await;
    assert_eq!(books.apply_credit(invoice).await, 1_000);
    books.take_back(top_up, 1_000).await;
    assert_eq!((books.credit().await, books.open(invoice).await), (0, 10_000));
    assert_eq!(books.apply_credit(invoice).await, 0);
    books.assert_clean().await;

    // What had been refunded is owed without an invoice.
    let top_up = books.top_up(1_000).await;
    books.refund(top_up, 600).await;
    books.take_back(top_up, 1_000).await;
    assert_eq!((books.credit().await, books.open(invoice).await), (-600, 10_000));
    books.assert_clean().await;
    let paid = books.document(2_000, None).await;
    books.pay(paid, 2_600).await;
    assert_eq!(books.credit().await, 0);
    books.assert_clean().await;
}

#[tokio::test]
async fn what_is_paid_in_after_credit_was_taken_back_can_be_refunded() {
    let books = Books::new().await;
    let invoice = books.document(1_000, None).await;
    let taken = books.top_up(1_000).await;
    assert_eq!(books.apply_credit(invoice).await, 1_000);
    books.take_back(taken, 1_000).await;
    assert_eq!((books.credit().await, books.open(invoice).await), (0, 1_000));
    let paid = books.top_up(500).await;
    assert_eq!(books.refundable(paid).await, 500);
    books.assert_clean().await;
}

#[tokio::test]
async fn an_invoice_is_opened_again_for_what_its_credit_notes_left_of_it() {
    let books = Books::new().await;
    let top_up = books.top_up(3_000).await;
    let (first, second) = (books.document(2_000, None).await, books.document(1_000, None).await);
    assert_eq!(
        (books.apply_credit(first).await, books.apply_credit(second).await),
        (2_000, 1_000)
    );
    // 15.00 of the first come back as credit and are refunded; then all of the payment is taken back.
    assert_eq!(books.credit_note(first, 1_500).await, (0, 1_500));
    books.refund(top_up, 1_500).await;
    books.take_back(top_up, 3_000).await;
    assert_eq!((books.open(first).await, books.open(second).await), (500, 1_000));
    assert_eq!(books.credit().await, -1_500);
    books.assert_clean().await;
}

#[tokio::test]
async fn disputes_hold_the_money_and_lost_ones_take_it() {
    let books = Books::new().await;
    for (is_won, status) in [(true, "paid"), (false, "finalised")] {
        let invoice = books.document(5_000, None).await;
        let (payment, _) = books.pay(invoice, 5_000).await;
        let reference = format!("dp_{is_won}");
        sqlx::query(
            "INSERT INTO disputes (id, payment_id, gateway, reference, currency, amount_minor, status, reason, opened_at_ms, \
             updated_at_ms) VALUES ($1, $1, 'manual', $2, 'USD', 5000, 'open', '', 0, 0)",
        )
        .bind(payment.0)
        .bind(&reference)
        .execute(books.database.pool())
        .await
        .unwrap();
        let dispute = Dispute {
            payment,
            reference: &reference,
            amount: usd(5_000),
        };
        let mut transaction = books.database.begin_write().await.unwrap();
        open_dispute(&mut transaction, dispute, 1).await.unwrap();
        transaction.commit().await.unwrap();
        books.assert_clean().await;
        assert_eq!(books.status(invoice).await, "paid");
        let mut transaction = books.database.begin_write().await.unwrap();
        for _ in 0..2 {
            close_dispute(&mut transaction, dispute, is_won, 2).await.unwrap();
        }
        sqlx::query("UPDATE disputes SET status = $1 WHERE reference = $2")
            .bind(if is_won { "won" } else { "lost" })
            .bind(&reference)
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(books.status(invoice).await, status);
        books.assert_clean().await;
    }
}

#[tokio::test]
async fn what_was_written_off_is_recovered_by_a_late_payment() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    books.pay(invoice, 1_000).await;
    assert_eq!(books.write_off(invoice).await, 9_000);
    assert_eq!(books.status(invoice).await, "uncollectible");
    assert_eq!(books.write_off(invoice).await, 0);
    let (_, split) = books.pay(invoice, 4_000).await;
    assert_eq!(split.to_credit, usd(0));
    assert_eq!(books.status(invoice).await, "uncollectible");
    let (_, split) = books.pay(invoice, 6_000).await;
    assert_eq!(split.to_credit, usd(1_000));
    assert_eq!(books.status(invoice).await, "paid");
    let lost = ledger::balance(books.database.pool(), &Account::bad_debt(Currency::USD))
        .await
        .unwrap();
    assert_eq!(lost, usd(0));
    books.assert_clean().await;
}

/// Before, a credit note on a debt that was given up became credit that could be spent.
#[tokio::test]
async fn a_credit_note_on_a_written_off_invoice_makes_no_spendable_credit() {
    let books = Books::new().await;
    let bad_debt = async || {
        let lost = ledger::balance(books.database.pool(), &Account::bad_debt(Currency::USD)).await;
        lost.unwrap().minor
    };
    // Nobody ever paid it.
    let invoice = books.document(10_000, None).await;
    assert_eq!(books.write_off(invoice).await, 10_000);
    assert_eq!(books.credit_note(invoice, 4_000).await, (4_000, 0));
    assert_eq!((books.credit().await, bad_debt().await), (0, 6_000));
    assert_eq!(books.status(invoice).await, "uncollectible");
    assert_eq!(books.credit_note(invoice, 6_000).await, (6_000, 0));
    assert_eq!((books.credit().await, bad_debt().await), (0, 0));
    assert_eq!(books.status(invoice).await, "paid");
    books.assert_clean().await;

    // A part was paid: what is not owed any more is first what was given up, then what was paid.
    let invoice = books.document(10_000, None).await;
    books.pay(invoice, 7_000).await;
    assert_eq!(books.write_off(invoice).await, 3_000);
    assert_eq!(books.credit_note(invoice, 10_000).await, (3_000, 7_000));
    assert_eq!((books.credit().await, bad_debt().await), (7_000, 0));
    books.assert_clean().await;
}

#[tokio::test]
async fn what_credit_pays_is_not_written_off() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    let (payment, _) = books.pay(invoice, 10_000).await;
    books.credit_note(invoice, 10_000).await;
    // The customer has the credit and takes the payment back as well: one of both is owed.
    books.take_back(payment, 10_000).await;
    assert_eq!((books.credit().await, books.open(invoice).await), (10_000, 10_000));
    assert_eq!(books.write_off(invoice).await, 0);
    assert_eq!((books.credit().await, books.open(invoice).await), (0, 0));
    assert_eq!(books.status(invoice).await, "paid");
    books.assert_clean().await;
}

#[tokio::test]
async fn an_invoice_of_nothing_is_paid_and_a_void_one_stays_void() {
    let books = Books::new().await;
    let nothing = books.document(0, None).await;
    assert_eq!(books.status(nothing).await, "paid");
    let invoice = books.document(1_000, None).await;
    assert_eq!(books.credit_note(invoice, 1_000).await, (1_000, 0));
    sqlx::query("UPDATE invoices SET status = 'void' WHERE id = $1")
        .bind(invoice.0)
        .execute(books.database.pool())
        .await
        .unwrap();
    let (_, split) = books.pay(invoice, 1_000).await;
    assert_eq!(split.to_credit, usd(1_000));
    assert_eq!(books.status(invoice).await, "void");
}

#[tokio::test]
async fn b4_the_check_finds_payments_without_money_and_money_without_payments() {
    let books = Books::new().await;
    let invoice = books.document(1_000, None).await;
    let paid = books.pay(invoice, 600).await.0;
    books.assert_clean().await;
    for (sql, words) in [
        (
            "UPDATE payments SET state = 'failed'",
            "cash of pay_1: 600 minor units instead of 0",
        ),
        (
            "UPDATE payments SET state = 'succeeded', amount_minor = 700",
            "600 minor units instead of 700",
        ),
        ("UPDATE payments SET amount_minor = 600", ""),
        (
            "UPDATE invoices SET status = 'paid'",
            "status of N-1: paid instead of partially_paid",
        ),
        ("UPDATE invoices SET status = 'partially_paid'", ""),
        (
            "UPDATE allocations SET amount_minor = 500",
            "receivable:cus_1:USD: 400 minor units instead of 500",
        ),
        (
            "UPDATE allocations SET amount_minor = 1100",
            "allocations of N-1: 1100 minor units instead of 1000",
        ),
    ] {
        sqlx::query(sql).execute(books.database.pool()).await.unwrap();
        let found = ledger::check(&books.database).await.unwrap().violations;
        assert!(
            found.iter().any(|violation| violation.what.contains(words)) || (words.is_empty() && found.is_empty()),
            "{paid}: {sql}: {found:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is paid, credited, corrected, taken back and written off in whatever order: the books stay clean, and what
    /// the customer paid, less what went back, is what was settled by payments and credit.
    #[test]
    fn b1_b4_hold_after_any_history(steps in proptest::collection::vec((0u8..8, 0usize..4, 1i64..3_000), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let books = Books::new().await;
            let mut invoices = vec![books.document(2_500, None).await];
            let mut left = vec![2_500];
            let mut payments: Vec<(PaymentId, i64)> = Vec::new();
            for (step, index, amount) in steps {
                let at = index % invoices.len();
                let invoice = invoices[at];
                match step {
                    0 => {
                        invoices.push(books.document(amount, None).await);
                        left.push(amount);
                    }
                    1 | 2 => payments.push((books.pay(invoice, amount).await.0, amount)),
                    3 => payments.push((books.top_up(amount).await, amount)),
                    4 => {
                        books.apply_credit(invoice).await;
                    }
                    5 if left[at] > 0 => {
                        let part = left[at].min(amount);
                        books.credit_note(invoice, part).await;
                        left[at] -= part;
                    }
                    6 => {
                        books.write_off(invoice).await;
                    }
                    _ if !payments.is_empty() => {
                        let chosen = index % payments.len();
                        let (payment, left) = payments[chosen];
                        let refundable = books.refundable(payment).await;
                        if refundable > 0 && amount % 2 == 0 {
                            let part = refundable.min(amount);
                            books.refund(payment, part).await;
                            payments[chosen].1 -= part;
                        } else if left > 0 {
                            let part = left.min(amount);
                            books.take_back(payment, part).await;
                            payments[chosen].1 -= part;
                        }
                    }
                    _ => {}
                }
                books.assert_clean().await;
            }
            let held: i64 = payments.iter().map(|(_, left)| left).sum();
            let cash = ledger::balance(books.database.pool(), &Account::cash("manual", Currency::USD)).await.unwrap();
            assert_eq!(cash.minor, held);
        });
    }
}
