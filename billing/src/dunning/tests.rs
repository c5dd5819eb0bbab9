mod anytime;
mod terms;
mod upgrade;

use proptest::prelude::*;
use schemas::ids::PaymentId;
use schemas::window::DAY_MS;

use super::*;
use crate::charger::script::{Reply, Script, save_method};
use crate::collection_terms::{Terms, set_terms};
use crate::settlement::Dispute;
use crate::subscription::state::SubscriptionState;
use crate::subscription::{self, Contract};
use crate::testing::{DEAL, World, ms};
use crate::{invoice, ledger};

/// January is over and its windows are closed.
const CLOSED_AT: &str = "2026-02-01T00:10:00Z";

/// A customer with an invoice of 20.00 for January, due on 15 February.
struct Debt {
    world: World,
    customer: CustomerId,
    contract: Contract,
    invoice: InvoiceId,
    script: Script,
}

impl Debt {
    async fn new(answers: &[Reply], otherwise: Reply) -> Debt {
        let debt = Debt::without_method(answers, otherwise).await;
        save_method(&debt.world.database, debt.customer).await;
        debt
    }

    async fn without_method(answers: &[Reply], otherwise: Reply) -> Debt {
        Debt::of(World::new().await, answers, otherwise).await
    }

    async fn of(world: World, answers: &[Reply], otherwise: Reply) -> Debt {
        let customer = world.customer("USD", "UTC", "0").await;
        let contract = world.subscribe(customer, DEAL).await;
        let closing = invoice::close(&world.database, &world.usage, customer, ms(CLOSED_AT)).await;
        let invoice = closing.unwrap().invoices[0];
        Debt {
            script: Script::new(&world.database, answers, otherwise),
            world,
            customer,
            contract,
            invoice,
        }
    }

    /// So many days after the invoice was finalised; it is due on day 14.
    fn day(day: i64) -> i64 {
        ms(CLOSED_AT) + day * DAY_MS
    }

    async fn run(&self, now_ms: i64) -> Collected {
        let collected = run(&self.world.database, &self.script, now_ms).await.unwrap();
        assert!(
            collected.failed.is_empty() && collected.stuck.is_empty(),
            "{collected:?}"
        );
        self.assert_books_are_right().await;
        collected
    }

    async fn assert_books_are_right(&self) {
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }

    async fn state(&self) -> SubscriptionState {
        let id = self.contract.subscription.id;
        subscription::subscription(self.world.database.pool(), id)
            .await
            .unwrap()
            .state
    }

    /// Charged when the customer presses the button, whatever the script says of others.
    async fn pay(&self, invoice: InvoiceId, now_ms: i64) -> PaymentId {
        let by_hand = Script::new(&self.world.database, &[], Reply::Succeeds);
        let method = save_method(&self.world.database, self.customer).await;
        let order = ChargeOrder {
            customer: self.customer,
            method,
            purpose: Purpose::Invoice(invoice),
            note: "by hand",
        };
        match by_hand.charge(order, now_ms).await.unwrap() {
            ChargeResult::Succeeded(payment) => payment,
            other => panic!("{other:?}"),
        }
    }

    async fn events(&self, name: &str) -> i64 {
        let row = sqlx::query("SELECT count(*) FROM events WHERE event_type = $1")
            .bind(name)
            .fetch_one(self.world.database.pool())
            .await
            .unwrap();
        row.get(0)
    }

    async fn in_dunning(&self) -> Vec<Collection> {
        list(self.world.database.pool(), CollectionFilter::default())
            .await
            .unwrap()
    }

    async fn charged_days(&self) -> Vec<i64> {
        let asked = self.script.asked();
        asked
            .iter()
            .map(|(_, at_ms)| (at_ms - ms(CLOSED_AT)) / DAY_MS)
            .collect()
    }

    async fn execute(&self, sql: &'static str, id: i64) {
        sqlx::query(sql)
            .bind(id)
            .execute(self.world.database.pool())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_debt_day_by_day() {
    let debt = Debt::new(&[], Reply::Declines).await;
    let mut changes = Vec::new();
    let mut before = debt.state().await;
    for day in 0..=40 {
        // Four looks a day: three of them find nothing to do.
        for hour in [0, 1, 12, 23] {
            let collected = debt.run(Debt::day(day) + hour * HOUR_MS).await;
            assert!(collected.charged.len() <= 1, "{collected:?}");
            assert!(hour == 0 || collected.charged.is_empty());
        }
        let state = debt.state().await;
        if state != before {
            changes.push((day, state));
            before = state;
        }
    }
    assert_eq!(debt.charged_days().await, [0, 14, 17, 19, 21]);
    assert_eq!(
        changes,
        [(14, SubscriptionState::PastDue), (28, SubscriptionState::Suspended)]
    );
    assert_eq!(debt.events("invoice.overdue").await, 1);
    assert_eq!(debt.events("subscription.past_due").await, 1);
    assert_eq!(debt.events("service.suspend_requested").await, 1);
    // Nothing more happens by itself: it waits for a person.
    let waiting = debt.in_dunning().await;
    assert_eq!(
        (waiting.len(), waiting[0].declines, waiting[0].is_exhausted()),
        (1, 5, true)
    );
    assert_eq!(
        (waiting[0].open.minor, waiting[0].progress.done_to_day()),
        (2000, Some(14))
    );

    // Paid after all: everything goes on with the next look, once.
    debt.pay(debt.invoice, Debt::day(41)).await;
    let collected = debt.run(Debt::day(41)).await;
    assert_eq!((collected.left, collected.recovered.len()), (1, 1));
    assert_eq!(debt.state().await, SubscriptionState::Active);
    assert!(debt.run(Debt::day(42)).await.recovered.is_empty());
    assert_eq!(debt.events("service.unsuspend_requested").await, 1);
    assert!(debt.in_dunning().await.is_empty());
}

#[tokio::test]
async fn the_event_says_what_is_open_and_when_services_stop() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.run(Debt::day(14)).await;
    let row = sqlx::query("SELECT subject, payload FROM events WHERE event_type = 'invoice.overdue'")
        .fetch_one(debt.world.database.pool())
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>(0), debt.invoice.to_string());
    let payload: serde_json::Value = serde_json::from_str(&row.get::<String, _>(1)).unwrap();
    assert_eq!(payload["open_minor"], 2000);
    assert_eq!(payload["number"], "INV-2026-000001");
    assert_eq!(payload["due_at_ms"], ms("2026-02-15T00:10:00Z"));
    assert_eq!(payload["suspends_at_ms"], ms("2026-03-01T00:10:00Z"));
}

#[tokio::test]
async fn the_first_charge_that_goes_through_ends_it() {
    for (declines, paid_on) in [(0, 0), (1, 14), (2, 17), (4, 21)] {
        let answers = vec![Reply::Declines; declines];
        let debt = Debt::new(&answers, Reply::Succeeds).await;
        for day in 0..=40 {
            debt.run(Debt::day(day)).await;
            let expected = if (14..paid_on).contains(&day) {
                SubscriptionState::PastDue
            } else {
                SubscriptionState::Active
            };
            assert_eq!(debt.state().await, expected, "day {day}, paid on {paid_on}");
        }
        assert_eq!(debt.charged_days().await.last(), Some(&paid_on));
        assert_eq!(debt.script.count(), declines + 1);
        assert!(debt.in_dunning().await.is_empty());
    }
}

#[tokio::test]
async fn days_off_are_caught_up_without_a_burst() {
    // (last look before, first look after, charges in it, state after it)
    for (before, after, charges, state) in [
        (13, 23, 1, SubscriptionState::PastDue),
        (14, 24, 1, SubscriptionState::PastDue),
        (20, 30, 1, SubscriptionState::Suspended),
        (0, 60, 1, SubscriptionState::Suspended),
        (21, 40, 0, SubscriptionState::Suspended),
    ] {
        let debt = Debt::new(&[], Reply::Declines).await;
        for day in 0..=before {
            debt.run(Debt::day(day)).await;
        }
        let so_far = debt.script.count();
        let collected = debt.run(Debt::day(after)).await;
        assert_eq!(debt.script.count() - so_far, charges, "off from {before} to {after}");
        assert_eq!(collected.charged.len(), charges);
        assert_eq!(debt.state().await, state, "off from {before} to {after}");
        for day in after..=70 {
            debt.run(Debt::day(day)).await;
        }
        assert_eq!(debt.events("invoice.overdue").await, 1);
        assert_eq!(debt.events("service.suspend_requested").await, 1);
    }
}

#[tokio::test]
async fn what_can_be_charged_is_charged_before_anything_is_suspended() {
    let debt = Debt::new(&[], Reply::Succeeds).await;
    let collected = debt.run(Debt::day(60)).await;
    assert!(
        matches!(collected.charged[..], [(_, ChargeResult::Succeeded(_))]),
        "{collected:?}"
    );
    assert!(collected.suspended.is_empty());
    assert_eq!(debt.state().await, SubscriptionState::Active);
    assert_eq!(debt.events("service.suspend_requested").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_at_once_do_each_step_once() {
    let debt = Debt::new(&[], Reply::Declines).await;
    for day in [0, 14, 17, 19, 21, 28] {
        let now_ms = Debt::day(day);
        let looks = (0..6).map(|_| run(&debt.world.database, &debt.script, now_ms));
        for collected in futures::future::join_all(looks).await {
            let collected = collected.unwrap();
            assert!(
                collected.failed.is_empty() && collected.stuck.is_empty(),
                "{collected:?}"
            );
        }
    }
    assert_eq!(debt.charged_days().await, [0, 14, 17, 19, 21]);
    for name in ["invoice.overdue", "subscription.past_due", "service.suspend_requested"] {
        assert_eq!(debt.events(name).await, 1, "{name}");
    }
    debt.assert_books_are_right().await;
}

#[tokio::test]
async fn who_has_no_payment_method_is_reminded_and_suspended() {
    let debt = Debt::without_method(&[], Reply::Succeeds).await;
    for day in 0..=30 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.script.count(), 0);
    assert_eq!(debt.events("invoice.overdue").await, 1);
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
}

#[tokio::test]
async fn credit_is_used_before_a_card() {
    let debt = Debt::new(&[], Reply::Declines).await;
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    let grant = |minor| Money::new(minor, Currency::USD);
    settlement::grant_credit(&mut transaction, debt.customer, grant(500), "a", "sorry", Debt::day(0))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    debt.run(Debt::day(0)).await;
    let open = settlement::outstanding(debt.world.database.pool(), debt.invoice)
        .await
        .unwrap();
    assert_eq!((open.minor, debt.script.count()), (1500, 1));

    let mut transaction = debt.world.database.begin_write().await.unwrap();
    settlement::grant_credit(
        &mut transaction,
        debt.customer,
        grant(1600),
        "b",
        "sorry",
        Debt::day(15),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    debt.run(Debt::day(16)).await;
    assert_eq!((debt.script.count(), debt.in_dunning().await.len()), (1, 0));
    let credit = settlement::credit_balance(debt.world.database.pool(), debt.customer, Currency::USD).await;
    assert_eq!(credit.unwrap().minor, 100);
}

#[tokio::test]
async fn while_a_payment_is_awaited_nothing_else_is_done() {
    let debt = Debt::new(&[Reply::Declines, Reply::Waits], Reply::Declines).await;
    debt.run(Debt::day(0)).await;
    let collected = debt.run(Debt::day(14)).await;
    let ChargeResult::UnderWay(payment) = collected.charged[0].1 else {
        panic!("{collected:?}");
    };
    for day in 15..=40 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(
        (debt.script.count(), debt.state().await),
        (2, SubscriptionState::PastDue)
    );
    debt.script.finish(payment, Reply::Declines, Debt::day(41)).await;
    let collected = debt.run(Debt::day(41)).await;
    assert_eq!((collected.charged.len(), collected.suspended.len()), (1, 1));

    // What nobody knows is waited for as well.
    let debt = Debt::new(&[Reply::Breaks], Reply::Declines).await;
    let collected = run(&debt.world.database, &debt.script, Debt::day(0)).await.unwrap();
    assert!(
        matches!(collected.failed[..], [(_, DunningError::Charge(_))]),
        "{collected:?}"
    );
    for day in 1..=40 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(
        (debt.script.count(), debt.state().await),
        (1, SubscriptionState::Active)
    );
}

#[tokio::test]
async fn a_subscription_goes_on_when_none_of_its_invoices_is_overdue() {
    let debt = Debt::new(&[], Reply::Declines).await;
    let february = ms("2026-03-01T00:10:00Z");
    for day in 0..=28 {
        debt.run(Debt::day(day)).await;
    }
    let closing = invoice::close(&debt.world.database, &debt.world.usage, debt.customer, february).await;
    let second = closing.unwrap().invoices[0];
    for day in 28..=45 {
        debt.run(Debt::day(day)).await;
    }
    // Both are overdue; paying one is not enough.
    debt.pay(debt.invoice, Debt::day(45)).await;
    assert!(debt.run(Debt::day(45)).await.recovered.is_empty());
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    debt.pay(second, Debt::day(46)).await;
    // The payment's own transaction can let the services go on.
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    let recovered = recover_customer(&mut transaction, debt.customer, Debt::day(46))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(recovered, [debt.contract.subscription.id]);
    assert_eq!(debt.state().await, SubscriptionState::Active);
    // What is not due yet holds nobody up.
    assert!(debt.run(Debt::day(46)).await.recovered.is_empty());
}

#[tokio::test]
async fn paid_while_past_due() {
    let debt = Debt::new(&[], Reply::Declines).await;
    debt.run(Debt::day(14)).await;
    assert_eq!(debt.state().await, SubscriptionState::PastDue);
    debt.pay(debt.invoice, Debt::day(16)).await;
    debt.run(Debt::day(16)).await;
    assert_eq!(
        (debt.state().await, debt.in_dunning().await.len()),
        (SubscriptionState::Active, 0)
    );
    assert_eq!(debt.events("service.suspend_requested").await, 0);
}

#[tokio::test]
async fn a_debt_that_is_given_up_is_left_alone_and_does_not_run_again() {
    let debt = Debt::new(&[], Reply::Declines).await;
    for day in 0..=28 {
        debt.run(Debt::day(day)).await;
    }
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    settlement::write_off(&mut transaction, debt.invoice, "moved away", Debt::day(50))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let collected = debt.run(Debt::day(50)).await;
    assert_eq!((collected.left, collected.recovered.len()), (1, 0));
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    // Paid after all, it goes on.
    debt.pay_written_off(Debt::day(60)).await;
    debt.run(Debt::day(60)).await;
    assert_eq!(debt.state().await, SubscriptionState::Active);
}

impl Debt {
    /// A bank transfer for an invoice that was given up.
    async fn pay_written_off(&self, now_ms: i64) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        sqlx::query(
            "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, currency, amount_minor, idempotency_key, state, \
             action_url, error, calls, note, created_at_ms, updated_at_ms) \
             VALUES (900, $1, $2, 'invoice', 'manual', 'USD', 2000, 'k', 'succeeded', '', '', 0, '', $3, $3)",
        )
        .bind(self.customer.0)
        .bind(self.invoice.0)
        .bind(now_ms)
        .execute(&mut *transaction)
        .await
        .unwrap();
        let received = settlement::ReceivedMoney {
            payment: PaymentId(900),
            customer: self.customer,
            gateway: "manual",
            amount: Money::new(2000, Currency::USD),
        };
        settlement::pay_invoice(&mut transaction, received, self.invoice, now_ms)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
}

#[tokio::test]
async fn void_invoices_and_open_disputes_are_left_alone() {
    let debt = Debt::new(&[], Reply::Declines).await;
    debt.run(Debt::day(0)).await;
    debt.execute(
        "INSERT INTO disputes (id, payment_id, gateway, reference, currency, amount_minor, status, reason, opened_at_ms, updated_at_ms) \
         SELECT 1, id, 'stripe', 'dp_1', 'USD', amount_minor, 'open', '', 0, 0 FROM payments WHERE invoice_id = $1",
        debt.invoice.0,
    )
    .await;
    let none = async |day| {
        let collected = run(&debt.world.database, &debt.script, Debt::day(day)).await.unwrap();
        assert_eq!(
            (collected.begun, collected.charged.len(), collected.overdue.len()),
            (0, 0, 0)
        );
        assert!(debt.in_dunning().await.is_empty());
    };
    none(14).await;
    none(40).await;
    debt.execute("UPDATE disputes SET status = 'won' WHERE id = $1", 1)
        .await;
    debt.execute("UPDATE invoices SET status = 'void' WHERE id = $1", debt.invoice.0)
        .await;
    none(41).await;
    assert_eq!(debt.state().await, SubscriptionState::Active);
}

#[tokio::test]
async fn money_that_was_taken_back_is_asked_for_anew_and_not_charged_by_itself() {
    let debt = Debt::new(&[], Reply::Succeeds).await;
    let collected = debt.run(Debt::day(0)).await;
    let ChargeResult::Succeeded(payment) = collected.charged[0].1 else {
        panic!("{collected:?}");
    };
    let dispute = Dispute {
        payment,
        reference: "dp_1",
        amount: Money::new(2000, Currency::USD),
    };
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    settlement::open_dispute(&mut transaction, dispute, Debt::day(30))
        .await
        .unwrap();
    settlement::close_dispute(&mut transaction, dispute, false, Debt::day(50))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    debt.execute(
        "INSERT INTO disputes (id, payment_id, gateway, reference, currency, amount_minor, status, reason, opened_at_ms, updated_at_ms) \
         VALUES (1, $1, 'stripe', 'dp_1', 'USD', 2000, 'lost', '', 0, 0)",
        payment.0,
    )
    .await;
    let mut states = Vec::new();
    for day in 50..=80 {
        debt.run(Debt::day(day)).await;
        states.push((day, debt.state().await));
    }
    // Two weeks from the day on which it was open again, though it was due long before.
    let first = |wanted| states.iter().find(|(_, state)| *state == wanted).map(|(day, _)| *day);
    assert_eq!(
        (first(SubscriptionState::PastDue), first(SubscriptionState::Suspended)),
        (Some(50), Some(64))
    );
    assert_eq!(debt.script.count(), 1);
}

#[tokio::test]
async fn a_subscription_that_was_held_for_something_else_is_late_when_it_goes_on() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    let id = debt.contract.subscription.id;
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    change::hold(&mut transaction, id, HoldCause::Abuse, "spam", "ops", Debt::day(10))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    debt.run(Debt::day(14)).await;
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    change::release(&mut transaction, id, HoldCause::Abuse, "ops", Debt::day(15))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    debt.run(Debt::day(15)).await;
    assert_eq!(debt.state().await, SubscriptionState::PastDue);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever answers and however irregular the looks: the books stay clean, charges are no more than there are steps, and
    /// a subscription is late or held when something of it is said to be overdue, and is not when nothing is.
    #[test]
    fn collection_after_any_history(
        answers in proptest::collection::vec(0u8..4, 1..12),
        looks in proptest::collection::vec((1i64..200, 0u8..8), 5..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let answers: Vec<Reply> = answers
                .iter()
                .map(|answer| [Reply::Declines, Reply::Declines, Reply::Succeeds, Reply::Waits][usize::from(*answer)])
                .collect();
            let debt = Debt::new(&answers, Reply::Declines).await;
            let mut now_ms = ms(CLOSED_AT);
            for (hours, what) in looks {
                now_ms += hours * HOUR_MS;
                match what {
                    0 | 1 => {
                        let closing = invoice::close(&debt.world.database, &debt.world.usage, debt.customer, now_ms).await;
                        assert!(closing.is_ok());
                    }
                    2 => {
                        let waiting = sqlx::query("SELECT id FROM payments WHERE state = 'unknown'")
                            .fetch_optional(debt.world.database.pool())
                            .await
                            .unwrap();
                        if let Some(row) = waiting {
                            debt.script.finish(PaymentId(row.get(0)), Reply::Succeeds, now_ms).await;
                        }
                    }
                    3 => {
                        let open = debt.in_dunning().await;
                        if let Some(open) = open.first() {
                            let awaited = sqlx::query("SELECT id FROM payments WHERE state = 'unknown' AND invoice_id = $1")
                                .bind(open.invoice.0)
                                .fetch_optional(debt.world.database.pool())
                                .await
                                .unwrap();
                            if awaited.is_none() && open.open.minor > 0 {
                                debt.pay(open.invoice, now_ms).await;
                            }
                        }
                    }
                    _ => {}
                }
                debt.run(now_ms).await;
                let overdue = CollectionFilter { overdue_at_ms: Some(now_ms), ..CollectionFilter::default() };
                let overdue = list(debt.world.database.pool(), overdue).await.unwrap();
                let state = debt.state().await;
                // What is overdue while an outcome is awaited is not said yet: it makes nobody late, and keeps late who is.
                let is_said = overdue.iter().any(|one| one.progress.done_to_day().is_some());
                assert!(!is_said || state != SubscriptionState::Active, "{state:?} {overdue:?}");
                assert!(!overdue.is_empty() || state == SubscriptionState::Active, "{state:?}");
                let asked = debt.script.asked();
                let mut by_invoice = std::collections::HashMap::<_, usize>::new();
                for (purpose, _) in asked {
                    let Purpose::Invoice(invoice) = purpose else { panic!("{purpose:?}") };
                    *by_invoice.entry(invoice).or_default() += 1;
                }
                // Each payment by hand saves a method, which what is open is charged with once.
                let methods: i64 = sqlx::query("SELECT count(*) FROM payment_methods")
                    .fetch_one(debt.world.database.pool())
                    .await
                    .unwrap()
                    .get(0);
                let most = 4 + usize::try_from(methods).unwrap();
                assert!(by_invoice.values().all(|charges| *charges <= most), "{by_invoice:?}");
            }
        });
    }
}

/// A transfer that never came in is no money that somebody took back.
#[tokio::test]
async fn what_a_reversed_transfer_had_settled_is_collected_from_that_day_on() {
    let debt = Debt::new(&[], Reply::Declines).await;
    let transfer = crate::payment::Transfer {
        customer: debt.customer,
        invoice: Some(debt.invoice),
        amount: Money::new(2_000, Currency::USD),
        reference: "T",
        note: "",
        value_date: None,
    };
    let paid = crate::payment::record_transfer(&debt.world.database, &transfer, Debt::day(1))
        .await
        .unwrap();
    assert_eq!(debt.run(Debt::day(20)).await.begun, 0);
    let new = crate::payment::NewReversal {
        payment: paid.id,
        reason: "returned by the bank",
        created_by: "ada",
    };
    crate::payment::reverse_transfer(&debt.world.database, &new, Debt::day(20))
        .await
        .unwrap();
    let collected = debt.run(Debt::day(20)).await;
    assert_eq!((collected.begun, collected.charged.len()), (1, 1), "{collected:?}");
    // 14 days after the reversal, not after the day on which it was due first.
    assert_eq!(debt.run(Debt::day(33)).await.suspended, []);
    assert_eq!(debt.run(Debt::day(34)).await.suspended, [debt.invoice]);
}
