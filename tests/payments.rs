//! B4: nobody is charged twice, and nobody is marked paid without money, whatever the gateway does and wherever the process
//! is killed.
//!
//! [`crate::support::stripe`] is a gateway that fails in every way it can and keeps the truth. Random schedules let several workers
//! charge, record transfers, reconcile and receive webhooks (repeated, reordered, before the answer) on one database; the
//! kill tests abort the built command between every two steps ([`schemas::fault::PAYMENT_POINTS`]).
//!
//! `EZSCALE_PAYMENT_SCHEDULES=200` makes it long; `EZSCALE_PAYMENT_SEED` repeats a schedule.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

mod returned;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use billing::ledger::{self, Account};
use billing::payment::method;
use billing::payment::stripe::{Stripe, StripeConfig, sign};
use billing::payment::{
    self, GatewayName, Gateways, NewPayment, Payment, PaymentFilter, PaymentGateway, PaymentState, Transfer,
    gateway::SavedMethod,
};
use billing::settlement;
use schemas::db::{Database, next_id};
use schemas::fault::PAYMENT_POINTS;
use schemas::ids::{CustomerId, InvoiceId, PaymentMethodId};
use schemas::inventory::{self, NewCustomer};
use schemas::money::{Currency, Money};
use sqlx::Row as _;

use crate::support::clock;
use crate::support::ezscale::DataDir;
use crate::support::stripe::{Fault, HostileStripe};

const SCHEDULES: &str = "EZSCALE_PAYMENT_SCHEDULES";
const SCHEDULES_SHORT: u64 = 5;
const SEED: &str = "EZSCALE_PAYMENT_SEED";
const WEBHOOK_SECRET: &str = "whsec_test";
/// Long enough for an answer on a busy machine, short enough to be waited for often.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
const WORKERS: u64 = 3;
const STEPS: u64 = 14;
const INVOICES: usize = 4;
const INVOICE_MINOR: i64 = 10_000;

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

/// A small generator, so that a seed repeats a schedule's choices.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// A customer with a card and invoices to pay.
async fn seed(database: &Database, invoices: usize) -> (CustomerId, PaymentMethodId, Vec<InvoiceId>) {
    let mut transaction = database.begin_write().await.unwrap();
    let new = NewCustomer {
        name: "Ada Hosting",
        email: "ada@example.net",
        currency: "USD",
        time_zone: "UTC",
        country: "US",
        tax_rate_percent: "0",
    };
    let customer = inventory::create_customer(&mut transaction, new, 0).await.unwrap().id;
    let saved = SavedMethod {
        gateway_customer: "cus_stub".to_owned(),
        reference: "pm_stub".to_owned(),
        kind: "card".to_owned(),
        label: "visa •••• 4242".to_owned(),
        expires: "2030-12".to_owned(),
    };
    let method = method::save(&mut transaction, GatewayName::Stripe, customer, &saved, 0)
        .await
        .unwrap();
    let mut ids = Vec::new();
    for _ in 0..invoices {
        let id = next_id(&mut transaction, "invoice").await.unwrap();
        sqlx::query(
            "INSERT INTO invoices (id, kind, number, entity_id, customer_id, customer_name, seller, buyer, currency, \
             period_start_ms, period_end_ms, time_zone, status, reason, prices_include_tax, subtotal_minor, tax_minor, \
             total_minor, finalised_at_ms, due_at_ms) \
             VALUES ($1, 'invoice', $2, 1, $3, 'Ada', '{}', '{}', 'USD', 0, 1, 'UTC', 'finalised', '', 0, $4, 0, $4, 0, 0)",
        )
        .bind(id)
        .bind(format!("N-{id}"))
        .bind(customer.0)
        .bind(INVOICE_MINOR)
        .execute(&mut *transaction)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO invoice_lines (id, invoice_id, position, kind, description, quantity, unit, unit_price, amount_minor, priced_minor, \
             period_start_ms, period_end_ms, evidence) VALUES ($1, $1, 1, 'base', 'x', '1', '', '1', $2, $2, 0, 1, '{}')",
        )
        .bind(id)
        .bind(INVOICE_MINOR)
        .execute(&mut *transaction)
        .await
        .unwrap();
        let posting = |account, minor| ledger::Posting {
            account,
            amount: usd(minor),
        };
        let new = ledger::NewTransaction {
            idempotency_key: format!("invoice:inv_{id}"),
            customer: Some(customer),
            invoice: Some(InvoiceId(id)),
            payment: None,
            refund: None,
            description: "sale".to_owned(),
            posted_at_ms: 0,
            postings: vec![
                posting(Account::receivable(customer, Currency::USD), INVOICE_MINOR),
                posting(Account::revenue_base(Currency::USD), -INVOICE_MINOR),
            ],
        };
        ledger::post(&mut transaction, &new).await.unwrap();
        ids.push(InvoiceId(id));
    }
    transaction.commit().await.unwrap();
    (customer, method.id, ids)
}

fn gateway(stub: &HostileStripe) -> Arc<dyn PaymentGateway> {
    let mut config = StripeConfig::new("sk_test_x", WEBHOOK_SECRET);
    config.base_url = stub.base_url();
    config.timeout = CALL_TIMEOUT;
    Arc::new(Stripe::new(config).unwrap())
}

/// One database, one gateway, several workers.
struct Schedule {
    database: Database,
    stub: HostileStripe,
    gateway: Arc<dyn PaymentGateway>,
    gateways: Gateways,
    customer: CustomerId,
    method: PaymentMethodId,
    invoices: Vec<InvoiceId>,
    now_ms: AtomicI64,
    /// Held shared by whoever may be asking the gateway: a minute never passes while a call is under way, whose own time-out
    /// is shorter.
    calls: tokio::sync::RwLock<()>,
    _folder: tempfile::TempDir,
}

impl Schedule {
    async fn new() -> Schedule {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        let (customer, method, invoices) = seed(&database, INVOICES).await;
        let stub = HostileStripe::start();
        let gateway = gateway(&stub);
        Schedule {
            database,
            stub,
            gateways: Gateways::new(vec![gateway.clone()]),
            gateway,
            customer,
            method,
            invoices,
            now_ms: AtomicI64::new(1_700_000_000_000),
            calls: tokio::sync::RwLock::new(()),
            _folder: folder,
        }
    }

    async fn worker(&self, mut random: Random, worker: u64) {
        for step in 0..STEPS {
            if random.below(3) == 0 {
                let _alone = self.calls.write().await;
                while self.stub.in_flight() > 0 {
                    tokio::task::yield_now().await;
                }
                self.now_ms.fetch_add(random.below(300_000) as i64, Ordering::SeqCst);
            }
            let _calling = self.calls.read().await;
            let now_ms = self.now_ms.fetch_add(random.below(1_000) as i64, Ordering::SeqCst);
            let invoice = self.invoices[random.below(self.invoices.len())];
            match random.below(10) {
                0..=3 => {
                    let new = NewPayment {
                        customer: self.customer,
                        invoice: Some(invoice),
                        amount: None,
                        method: self.method,
                        note: "",
                        return_url: None,
                    };
                    // Another may be under way, or nothing open any more.
                    let started = payment::start(&self.database, self.gateway.as_ref(), &new, now_ms).await;
                    let refused = matches!(
                        started,
                        Err(payment::PaymentError::UnderWay { .. } | payment::PaymentError::NotOpen { .. })
                    );
                    assert!(refused || started.is_ok(), "{started:?}");
                }
                4 => {
                    let reference = format!("transfer {worker} {step}");
                    let transfer = Transfer {
                        customer: self.customer,
                        invoice: Some(invoice),
                        amount: usd(3_000),
                        reference: &reference,
                        note: "",
                        value_date: None,
                    };
                    payment::record_transfer(&self.database, &transfer, now_ms)
                        .await
                        .unwrap();
                }
                5 | 6 => {
                    payment::reconcile(&self.database, &self.gateways, now_ms)
                        .await
                        .unwrap();
                }
                7 => {
                    // At the bank, whatever anybody here believes.
                    self.stub.truth().confirm();
                }
                8 => {
                    let payments = payment::list(self.database.pool(), PaymentFilter::default(), 500)
                        .await
                        .unwrap();
                    if !payments.is_empty() {
                        let id = payments[random.below(payments.len())].id;
                        let given_up = payment::cancel(&self.database, self.gateway.as_ref(), id, now_ms).await;
                        let silent = matches!(given_up, Err(payment::PaymentError::Gateway { .. }));
                        assert!(silent || given_up.is_ok(), "{given_up:?}");
                    }
                }
                _ => self.deliver(&mut random).await,
            }
        }
    }

    /// Delivers one of the webhooks, whichever, and leaves it there to be delivered again.
    async fn deliver(&self, random: &mut Random) {
        let events = self.stub.truth().events.clone();
        if !events.is_empty() {
            self.deliver_body(&events[random.below(events.len())]).await;
        }
    }

    async fn deliver_body(&self, body: &str) {
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        let mut headers = reqwest::header::HeaderMap::new();
        let signature = sign(WEBHOOK_SECRET, now_ms / 1000, body.as_bytes());
        headers.insert("stripe-signature", signature.parse().unwrap());
        payment::receive_webhook(
            &self.database,
            self.gateway.as_ref(),
            &headers,
            body.as_bytes(),
            now_ms,
            now_ms,
        )
        .await
        .unwrap();
    }

    /// The gateway behaves from now on, and everybody looks until nothing is under way.
    async fn settle(&self, random: &mut Random) {
        self.stub.truth().faults.clear();
        for _ in 0..60 {
            for _ in 0..4 {
                self.deliver(random).await;
            }
            while self.stub.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
            let now_ms = self.now_ms.fetch_add(3_700_000, Ordering::SeqCst) + 3_700_000;
            payment::reconcile(&self.database, &self.gateways, now_ms)
                .await
                .unwrap();
            let payments = payment::list(self.database.pool(), PaymentFilter::default(), 500)
                .await
                .unwrap();
            if payments.iter().all(|payment| payment.check_at_ms.is_none()) {
                return;
            }
        }
        let payments = payment::list(self.database.pool(), PaymentFilter::default(), 500)
            .await
            .unwrap();
        panic!("payments are still looked for: {payments:?}");
    }

    async fn check(&self) {
        let charged = self.stub.truth().charged();
        let payments = payment::list(self.database.pool(), PaymentFilter::default(), 500)
            .await
            .unwrap();
        let mut paid_minor: BTreeMap<InvoiceId, i64> = BTreeMap::new();
        let mut charged_minor: BTreeMap<InvoiceId, i64> = BTreeMap::new();
        for payment in &payments {
            let invoice = payment.purpose.invoice().unwrap();
            if payment.gateway == GatewayName::Stripe {
                let charges = charged.get(&payment.idempotency_key).cloned().unwrap_or_default();
                assert!(charges.len() <= 1, "{payment:?} was charged {charges:?}");
                assert_eq!(
                    payment.state == PaymentState::Succeeded,
                    charges.len() == 1,
                    "{payment:?}: {charges:?}"
                );
                *charged_minor.entry(invoice).or_default() += charges.iter().sum::<i64>();
            }
            if payment.state == PaymentState::Succeeded {
                *paid_minor.entry(invoice).or_default() += payment.amount.minor;
            }
        }
        for invoice in &self.invoices {
            let has_minor = paid_minor.get(invoice).copied().unwrap_or(0);
            let open = settlement::outstanding(self.database.pool(), *invoice).await.unwrap();
            assert_eq!(
                open.minor,
                (INVOICE_MINOR - has_minor).max(0),
                "{invoice}: {payments:?}"
            );
            let row = sqlx::query("SELECT status FROM invoices WHERE id = $1")
                .bind(invoice.0)
                .fetch_one(self.database.pool())
                .await
                .unwrap();
            let status: String = row.try_get(0).unwrap();
            assert_eq!(
                status == "paid",
                has_minor >= INVOICE_MINOR,
                "{invoice}: {status}, {has_minor}"
            );
            let by_card = charged_minor.get(invoice).copied().unwrap_or(0);
            assert!(
                by_card <= INVOICE_MINOR,
                "{invoice} was charged {by_card}: {payments:?}"
            );
        }
        let cash = ledger::balance(self.database.pool(), &Account::cash("stripe", Currency::USD))
            .await
            .unwrap();
        let at_the_gateway: i64 = charged.values().flatten().sum();
        assert_eq!(cash.minor, at_the_gateway);
        let report = ledger::check(&self.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text} is a whole number: {error}")),
    )
}

#[test]
fn b4_holds_whatever_the_gateway_does() {
    let first = number(SEED);
    let count = number(SCHEDULES).unwrap_or(if first.is_some() { 1 } else { SCHEDULES_SHORT });
    for seed in first.unwrap_or(1)..first.unwrap_or(1) + count {
        println!("schedule {seed}: {SEED}={seed} repeats its choices");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(schedule(seed));
    }
}

async fn schedule(number: u64) {
    let schedule = Arc::new(Schedule::new().await);
    let mut random = Random(number);
    let faults: Vec<Fault> = (0..200).map(|_| Fault::ALL[random.below(Fault::ALL.len())]).collect();
    schedule.stub.truth().faults.extend(faults);
    let workers = (0..WORKERS).map(|worker| {
        let schedule = schedule.clone();
        let random = Random(number * 1000 + worker);
        tokio::spawn(async move { schedule.worker(random, worker).await })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    let report = ledger::check(&schedule.database).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    schedule.settle(&mut random).await;
    schedule.check().await;
    // Every webhook, again and backwards: nothing changes.
    let events = schedule.stub.truth().events.clone();
    for body in events.iter().rev() {
        schedule.deliver_body(body).await;
    }
    schedule.check().await;
}

/// The built command on a data folder of its own, and the gateway.
struct Killed {
    data: DataDir,
    stub: HostileStripe,
    runtime: tokio::runtime::Runtime,
}

impl Killed {
    fn new() -> Killed {
        Killed::with(1)
    }

    /// With so many invoices that wait for their charge.
    fn with(invoices: usize) -> Killed {
        let data = DataDir::new();
        std::fs::create_dir_all(data.path()).unwrap();
        let stub = HostileStripe::start();
        let config = format!(
            "[payments.stripe]\nsecret_key = \"sk_test_x\"\nwebhook_secret = \"{WEBHOOK_SECRET}\"\nbase_url = \"{}\"\n",
            stub.base_url()
        );
        std::fs::write(data.path().join("ezscale.toml"), config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let killed = Killed { data, stub, runtime };
        let database = killed.database();
        killed.runtime.block_on(seed(&database, invoices));
        killed
    }

    fn database(&self) -> Database {
        let url = Database::default_url(&self.data.path());
        self.runtime.block_on(Database::open(&url)).unwrap()
    }

    fn abort(&self, arguments: &[&str], point: &str) {
        let output = self
            .data
            .command(arguments)
            .env("EZSCALE_FAULT", point)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(&format!("aborted at {point}")),
            "{arguments:?} is aborted at {point}, not {}: {said}",
            output.status
        );
    }

    fn reconcile(&self, minutes: i64) -> String {
        let at = (clock::running() + jiff::SignedDuration::from_mins(minutes)).to_string();
        self.data.run(&["payment", "reconcile", "--at", &at])
    }

    fn payments(&self) -> Vec<Payment> {
        let database = self.database();
        let listed = payment::list(database.pool(), PaymentFilter::default(), 500);
        self.runtime.block_on(listed).unwrap()
    }

    fn check(&self, point: &str, charges: usize, credit_minor: i64) {
        let charged = self.stub.truth().charged();
        assert_eq!(
            charged.values().map(Vec::len).sum::<usize>(),
            charges,
            "{point}: {charged:?}"
        );
        let database = self.database();
        self.runtime.block_on(async {
            let report = ledger::check(&database).await.unwrap();
            assert!(report.is_clean(), "{point}: {report:?}");
            let credit = settlement::credit_balance(database.pool(), CustomerId(1), Currency::USD)
                .await
                .unwrap();
            assert_eq!(credit.minor, credit_minor, "{point}");
        });
    }
}

#[test]
fn b4_holds_wherever_a_charge_is_killed() {
    for point in PAYMENT_POINTS.iter().filter(|point| point.starts_with("payment.")) {
        let killed = Killed::new();
        killed.abort(&["payment", "charge", "inv_1"], point);
        if *point == "payment.intending" {
            // Nothing was meant yet.
            assert!(killed.payments().is_empty());
            killed.data.run(&["payment", "charge", "inv_1"]);
        } else if *point != "payment.recorded" {
            let refused = killed.data.command(&["payment", "charge", "inv_1"]).output().unwrap();
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(said.contains("pay_1 is under way"), "{point}: {said}");
        }
        let said = killed.reconcile(5);
        let payments = killed.payments();
        assert!(
            payments.len() == 1 && payments[0].state == PaymentState::Succeeded,
            "{point}: {said} {payments:?}"
        );
        killed.check(point, 1, 0);
    }
}

#[test]
fn b4_holds_wherever_reconciliation_is_killed() {
    for (point, before) in [
        ("reconcile.claimed", "payment.intended"),
        ("reconcile.found", "payment.intended"),
        ("reconcile.found", "payment.answered"),
        ("reconcile.again", "payment.intended"),
        ("payment.recording", "payment.answered"),
        ("payment.recorded", "payment.intended"),
    ] {
        let killed = Killed::new();
        killed.abort(&["payment", "charge", "inv_1"], before);
        let at = (clock::running() + jiff::SignedDuration::from_mins(5)).to_string();
        killed.abort(&["payment", "reconcile", "--at", &at], point);
        let said = killed.reconcile(30);
        let payments = killed.payments();
        assert!(
            payments.len() == 1 && payments[0].state == PaymentState::Succeeded,
            "{point}: {said} {payments:?}"
        );
        killed.check(point, 1, 0);
    }
}

#[test]
fn b4_holds_wherever_a_refund_is_killed() {
    for point in PAYMENT_POINTS.iter().filter(|point| point.starts_with("refund.")) {
        let killed = Killed::new();
        killed.data.run(&["payment", "top-up", "cus_1", "--amount", "25"]);
        killed.check(point, 1, 2_500);
        killed.abort(&["payment", "refund", "pay_1", "--amount", "10"], point);
        // What is promised to the refund cannot be refunded again.
        let refused = killed
            .data
            .command(&["payment", "refund", "pay_1", "--amount", "20"])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("USD 15.00 of pay_1 can be refunded"));
        killed.reconcile(5);
        assert_eq!(killed.stub.truth().refunded_minor(), 1_000, "{point}");
        killed.check(point, 1, 1_500);
    }
}

#[test]
fn b4_an_error_after_the_charge_is_not_charged_again() {
    for fault in [
        Fault::ErrorAfter,
        Fault::ResetAfter,
        Fault::ErrorBefore,
        Fault::ResetBefore,
    ] {
        let killed = Killed::new();
        killed.stub.truth().faults.push_back(fault);
        let said = killed.data.run(&["payment", "charge", "inv_1"]);
        assert!(said.starts_with("pay_1 unknown"), "{fault:?}: {said}");
        assert_eq!(
            killed.reconcile(5),
            "1 looked up, 1 settled, X retried, 0 errors, 0 events\n".replace(
                'X',
                if matches!(fault, Fault::ErrorAfter | Fault::ResetAfter) {
                    "0"
                } else {
                    "1"
                },
            )
        );
        killed.check(&format!("{fault:?}"), 1, 0);
    }
}

#[test]
fn a_refund_of_an_invoice_that_stands_is_refused_without_its_credit_note() {
    let killed = Killed::with(0);
    killed.data.set_issuer();
    for command in [
        "plan add --name Yearly --model flat --price 100.00 --currency USD --months 12",
        "service add --name web --customer cus_1 --type vps",
        "subscription add svc_1 --price prc_1",
        "invoice close",
        "payment charge inv_1",
        "credit grant cus_1 100 --for t:1 --reason promotion",
    ] {
        killed.data.run(&command.split(' ').collect::<Vec<_>>());
    }
    // Credit that was granted does not leave as money, and the invoice is not credited by the way.
    let refused = killed.data.command(&["payment", "refund", "pay_1"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--credit-note"), "{said}");
    assert_eq!(killed.stub.truth().refunded_minor(), 0);
    killed.check("refused", 1, 10_000);
    let said = killed.data.run(&["payment", "refund", "pay_1", "--credit-note"]);
    assert!(said.contains("credit note inv_2"), "{said}");
    assert_eq!(killed.stub.truth().refunded_minor(), 10_000);
    killed.check("refunded", 1, 10_000);
}
