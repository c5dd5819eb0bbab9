//! Credit and payment methods that come at any time, and money that was taken back after it was spent.

use super::*;
use crate::{aging, top_up};

impl Debt {
    async fn grant(&self, minor: i64, cause: &str, now_ms: i64) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let amount = Money::new(minor, Currency::USD);
        settlement::grant_credit(&mut transaction, self.customer, amount, cause, "goodwill", now_ms)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn top_up(&self, minor: i64, now_ms: i64) -> PaymentId {
        let by_hand = Script::new(&self.world.database, &[], Reply::Succeeds);
        let method = save_method(&self.world.database, self.customer).await;
        let order = ChargeOrder {
            customer: self.customer,
            method,
            purpose: Purpose::TopUp(Money::new(minor, Currency::USD)),
            note: "by hand",
        };
        match by_hand.charge(order, now_ms).await.unwrap() {
            ChargeResult::Succeeded(payment) => payment,
            other => panic!("{other:?}"),
        }
    }

    /// The payer takes a payment back: disputed and lost at once.
    async fn charge_back(&self, payment: PaymentId, minor: i64, now_ms: i64) {
        let reference = format!("dp_{payment}");
        let dispute = Dispute {
            payment,
            reference: &reference,
            amount: Money::new(minor, Currency::USD),
        };
        let mut transaction = self.world.database.begin_write().await.unwrap();
        sqlx::query(
            "INSERT INTO disputes (id, payment_id, gateway, reference, currency, amount_minor, status, reason, opened_at_ms, \
             updated_at_ms) VALUES ($1, $1, 'stripe', $2, 'USD', $3, 'lost', '', 0, 0)",
        )
        .bind(payment.0)
        .bind(&reference)
        .bind(minor)
        .execute(&mut *transaction)
        .await
        .unwrap();
        settlement::open_dispute(&mut transaction, dispute, now_ms)
            .await
            .unwrap();
        settlement::close_dispute(&mut transaction, dispute, false, now_ms)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    /// A refund that went out.
    async fn refund(&self, payment: PaymentId, minor: i64, now_ms: i64) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        sqlx::query(
            "INSERT INTO refunds (id, payment_id, currency, amount_minor, idempotency_key, state, reason, error, created_by, \
             created_at_ms, updated_at_ms) VALUES ($1, $1, 'USD', $2, 'refund', 'succeeded', '', '', 'test', 0, 0)",
        )
        .bind(payment.0)
        .bind(minor)
        .execute(&mut *transaction)
        .await
        .unwrap();
        let refund = schemas::ids::RefundId(payment.0);
        settlement::refund_posted(
            &mut transaction,
            refund,
            payment,
            Money::new(minor, Currency::USD),
            now_ms,
        )
        .await
        .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn credit(&self) -> i64 {
        let credit = settlement::credit_balance(self.world.database.pool(), self.customer, Currency::USD).await;
        credit.unwrap().minor
    }

    async fn open(&self, invoice: InvoiceId) -> i64 {
        settlement::outstanding(self.world.database.pool(), invoice)
            .await
            .unwrap()
            .minor
    }

    /// By the buckets of the aging.
    async fn aged(&self, now_ms: i64) -> [i64; 5] {
        let aged = aging::aging(self.world.database.pool(), now_ms).await.unwrap();
        aged.first().map_or([0; 5], |sums| sums.open.map(|amount| amount.minor))
    }

    async fn closed(&self, at: &str) -> InvoiceId {
        let closing = invoice::close(&self.world.database, &self.world.usage, self.customer, ms(at)).await;
        closing.unwrap().invoices[0]
    }
}

#[tokio::test]
async fn credit_granted_after_the_suspension_pays_and_the_service_goes_on() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    for day in 0..=28 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    // A part of it is used at once, and is not enough.
    debt.grant(500, "t:1", Debt::day(40)).await;
    let collected = debt.run(Debt::day(40)).await;
    assert_eq!(collected.from_credit, [(debt.invoice, Money::new(500, Currency::USD))]);
    assert_eq!(
        (debt.open(debt.invoice).await, debt.state().await),
        (1500, SubscriptionState::Suspended)
    );
    assert!(debt.run(Debt::day(41)).await.from_credit.is_empty());

    debt.grant(2000, "t:2", Debt::day(50)).await;
    debt.run(Debt::day(50)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.credit().await), (0, 500));
    assert_eq!(debt.state().await, SubscriptionState::Active);
    assert_eq!(debt.events("service.unsuspend_requested").await, 1);
}

#[tokio::test]
async fn one_payment_as_credit_pays_several_invoices_the_oldest_first() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    for day in 0..=28 {
        debt.run(Debt::day(day)).await;
    }
    let second = debt.closed("2026-03-01T00:10:00Z").await;
    debt.run(Debt::day(29)).await;
    debt.grant(3000, "transfer", Debt::day(45)).await;
    debt.run(Debt::day(45)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.open(second).await), (0, 1000));
    // The second is due since day 42.
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    debt.grant(1000, "rest", Debt::day(46)).await;
    debt.run(Debt::day(46)).await;
    assert_eq!(
        (debt.open(second).await, debt.state().await),
        (0, SubscriptionState::Active)
    );
}

#[tokio::test]
async fn credit_pays_nothing_that_may_be_paid_already() {
    let debt = Debt::new(&[Reply::Waits], Reply::Declines).await;
    let collected = debt.run(Debt::day(0)).await;
    let ChargeResult::UnderWay(payment) = collected.charged[0].1 else {
        panic!("{collected:?}");
    };
    debt.grant(2000, "t:1", Debt::day(1)).await;
    assert!(debt.run(Debt::day(1)).await.from_credit.is_empty());
    debt.script.finish(payment, Reply::Declines, Debt::day(2)).await;
    assert_eq!(debt.run(Debt::day(2)).await.from_credit.len(), 1);
    assert_eq!(debt.open(debt.invoice).await, 0);
}

#[tokio::test]
async fn what_holds_a_service_for_a_budget_stays_when_credit_pays() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    let id = debt.contract.subscription.id;
    for day in 0..=28 {
        debt.run(Debt::day(day)).await;
    }
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    change::hold(
        &mut transaction,
        id,
        HoldCause::Budget,
        "used up",
        "billing",
        Debt::day(29),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    debt.grant(2000, "t:1", Debt::day(30)).await;
    debt.run(Debt::day(30)).await;
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    let mut connection = debt.world.database.pool().acquire().await.unwrap();
    assert_eq!(holds(&mut connection, id).await.unwrap(), [HoldCause::Budget]);
}

#[tokio::test]
async fn credit_that_comes_after_a_write_off_stays_credit() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    for day in 0..=28 {
        debt.run(Debt::day(day)).await;
    }
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    settlement::write_off(&mut transaction, debt.invoice, "moved away", Debt::day(50))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    debt.grant(2000, "t:1", Debt::day(51)).await;
    assert!(debt.run(Debt::day(51)).await.from_credit.is_empty());
    assert_eq!(
        (debt.credit().await, debt.state().await),
        (2000, SubscriptionState::Suspended)
    );
}

#[tokio::test]
async fn a_card_saved_after_the_last_retry_is_charged_once() {
    for (answer, state, declines) in [
        (Reply::Succeeds, SubscriptionState::Active, 5),
        (Reply::Declines, SubscriptionState::Suspended, 6),
    ] {
        let debt = Debt::new(&[Reply::Declines; 5], answer).await;
        for day in 0..=22 {
            debt.run(Debt::day(day)).await;
        }
        save_method(&debt.world.database, debt.customer).await;
        for day in 23..=40 {
            debt.run(Debt::day(day)).await;
        }
        assert_eq!(debt.charged_days().await, [0, 14, 17, 19, 21, 23]);
        assert_eq!(debt.state().await, state);
        let left = debt.in_dunning().await;
        assert_eq!(left.first().map_or(declines, |left| left.declines), declines);
        // After the end of collection too.
        save_method(&debt.world.database, debt.customer).await;
        debt.run(Debt::day(41)).await;
        let asked = if state == SubscriptionState::Active { 6 } else { 7 };
        assert_eq!(debt.script.count(), asked);
    }
}

#[tokio::test]
async fn a_card_saved_after_the_suspension_is_charged_and_the_service_goes_on() {
    let debt = Debt::without_method(&[], Reply::Succeeds).await;
    for day in 0..=60 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    save_method(&debt.world.database, debt.customer).await;
    let collected = debt.run(Debt::day(61)).await;
    assert!(
        matches!(collected.charged[..], [(_, ChargeResult::Succeeded(_))]),
        "{collected:?}"
    );
    assert_eq!(debt.state().await, SubscriptionState::Active);
}

#[tokio::test]
async fn a_card_saved_before_the_due_date_waits_for_it_unless_another_was_declined() {
    let debt = Debt::without_method(&[], Reply::Succeeds).await;
    debt.run(Debt::day(0)).await;
    save_method(&debt.world.database, debt.customer).await;
    for day in 1..=14 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.charged_days().await, [14]);

    let debt = Debt::new(&[Reply::Declines], Reply::Succeeds).await;
    debt.run(Debt::day(0)).await;
    save_method(&debt.world.database, debt.customer).await;
    debt.run(Debt::day(3)).await;
    assert_eq!(
        (debt.charged_days().await, debt.in_dunning().await.len()),
        (vec![0, 3], 0)
    );
}

#[tokio::test]
async fn a_card_removed_during_collection_hands_over_to_the_next() {
    let debt = Debt::new(&[], Reply::Declines).await;
    let first = save_method(&debt.world.database, debt.customer).await;
    for day in 0..=18 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.charged_days().await, [0, 14, 17]);
    // The one that was there before is the default then, and no charge of this invoice was tried with it.
    debt.execute(
        "UPDATE payment_methods SET removed_at_ms = 1, is_default = 0 WHERE id = $1",
        first.0,
    )
    .await;
    debt.run(Debt::day(18)).await;
    debt.execute(
        "UPDATE payment_methods SET removed_at_ms = 1, is_default = 0 WHERE customer_id = $1",
        debt.customer.0,
    )
    .await;
    for day in 18..=40 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.charged_days().await, [0, 14, 17, 18]);
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_at_once_charge_a_new_card_once() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.run(Debt::day(28)).await;
    debt.run(Debt::day(28)).await;
    save_method(&debt.world.database, debt.customer).await;
    let looks = (0..6).map(|_| run(&debt.world.database, &debt.script, Debt::day(30)));
    for collected in futures::future::join_all(looks).await {
        assert!(collected.unwrap().failed.is_empty());
    }
    assert_eq!(debt.script.count(), 1);
}

#[tokio::test]
async fn a_top_up_that_was_spent_and_charged_back_opens_what_it_paid() {
    let debt = Debt::without_method(&[], Reply::Succeeds).await;
    let top_up = debt.top_up(2000, Debt::day(0)).await;
    debt.run(Debt::day(0)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.credit().await), (0, 0));

    debt.charge_back(top_up, 2000, Debt::day(30)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.credit().await), (2000, 0));
    assert_eq!(debt.events("invoice.reopened").await, 1);
    assert_eq!(debt.aged(Debt::day(30)).await, [0, 2000, 0, 0, 0]);
    let mut states = Vec::new();
    for day in 30..=60 {
        debt.run(Debt::day(day)).await;
        states.push((day, debt.state().await));
    }
    // It is collected from the day on which it was open again, and no card is charged for it by itself.
    let first = |wanted| states.iter().find(|(_, state)| *state == wanted).map(|(day, _)| *day);
    assert_eq!(
        (first(SubscriptionState::PastDue), first(SubscriptionState::Suspended)),
        (Some(30), Some(44))
    );
    assert_eq!(debt.script.count(), 0);
    assert_eq!(debt.aged(Debt::day(60)).await, [0, 0, 2000, 0, 0]);

    debt.pay(debt.invoice, Debt::day(61)).await;
    debt.run(Debt::day(61)).await;
    assert_eq!(
        (debt.state().await, debt.aged(Debt::day(61)).await),
        (SubscriptionState::Active, [0; 5])
    );
}

#[tokio::test]
async fn automatic_top_up_ends_with_a_top_up_that_was_taken_back() {
    let debt = Debt::without_method(&[], Reply::Succeeds).await;
    let usd = |minor| Money::new(minor, Currency::USD);
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    let _ = top_up::set(&mut transaction, debt.customer, usd(1000), usd(5000), Debt::day(0))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let payment = debt.top_up(5000, Debt::day(1)).await;
    debt.charge_back(payment, 5000, Debt::day(2)).await;
    for day in 2..=10 {
        let checked = top_up::check_all(&debt.world.database, &debt.script, Debt::day(day))
            .await
            .unwrap();
        assert!(checked.charged.is_empty() && checked.failed.is_empty(), "{checked:?}");
    }
    assert_eq!((debt.script.count(), debt.events("credit.low").await), (0, 1));
    let settings = top_up::settings(debt.world.database.pool(), debt.customer)
        .await
        .unwrap()
        .unwrap();
    assert!(!settings.is_enabled);
}

#[tokio::test]
async fn of_several_invoices_the_last_that_credit_paid_is_open_again() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    let second = debt.closed("2026-03-01T00:10:00Z").await;
    let top_up = debt.top_up(3000, Debt::day(30)).await;
    debt.grant(1000, "t:1", Debt::day(30)).await;
    debt.run(Debt::day(30)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.open(second).await), (0, 0));
    debt.charge_back(top_up, 3000, Debt::day(31)).await;
    // As if the 30.00 had never come: the 10.00 that were given pay half of the first.
    assert_eq!((debt.open(debt.invoice).await, debt.open(second).await), (1000, 2000));
    assert_eq!(debt.credit().await, 0);
    debt.assert_books_are_right().await;
}

#[tokio::test]
async fn what_was_refunded_and_taken_back_too_is_a_claim() {
    let debt = Debt::without_method(&[], Reply::Succeeds).await;
    debt.pay(debt.invoice, Debt::day(0)).await;
    let top_up = debt.top_up(5000, Debt::day(1)).await;
    debt.refund(top_up, 5000, Debt::day(2)).await;
    debt.charge_back(top_up, 5000, Debt::day(10)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.credit().await), (0, -5000));
    assert_eq!(debt.aged(Debt::day(10)).await, [5000, 0, 0, 0, 0]);
    let mut states = Vec::new();
    for day in 10..=60 {
        debt.run(Debt::day(day)).await;
        states.push((day, debt.state().await));
    }
    let first = |wanted| states.iter().find(|(_, state)| *state == wanted).map(|(day, _)| *day);
    assert_eq!(
        (first(SubscriptionState::PastDue), first(SubscriptionState::Suspended)),
        (Some(24), Some(38))
    );
    for (name, times) in [
        ("credit.owed", 1),
        ("credit.overdue", 1),
        ("service.suspend_requested", 1),
    ] {
        assert_eq!(debt.events(name).await, times, "{name}");
    }
    assert_eq!(debt.script.count(), 0);
    assert_eq!(debt.aged(Debt::day(60)).await, [0, 0, 5000, 0, 0]);

    // Whatever comes in pays it: a part first, then the rest.
    debt.grant(1000, "t:1", Debt::day(61)).await;
    debt.run(Debt::day(61)).await;
    assert_eq!(
        (debt.aged(Debt::day(61)).await[2], debt.state().await),
        (4000, SubscriptionState::Suspended)
    );
    debt.top_up(4000, Debt::day(62)).await;
    debt.run(Debt::day(62)).await;
    assert_eq!(
        (debt.aged(Debt::day(62)).await, debt.state().await),
        ([0; 5], SubscriptionState::Active)
    );
}

/// Before, it was what is owed now, and nothing once the claim was settled.
#[tokio::test]
async fn what_was_owed_as_credit_below_zero_on_a_past_day_is_the_same_whenever_it_is_asked() {
    let debt = Debt::without_method(&[], Reply::Succeeds).await;
    debt.pay(debt.invoice, Debt::day(0)).await;
    let top_up = debt.top_up(10_000, Debt::day(1)).await;
    debt.refund(top_up, 10_000, Debt::day(2)).await;
    debt.charge_back(top_up, 10_000, Debt::day(5)).await;
    for day in 5..=14 {
        match day {
            10 => debt.grant(6_000, "t:1", Debt::day(10)).await,
            12 => debt.grant(4_000, "t:2", Debt::day(12)).await,
            _ => {}
        }
        debt.run(Debt::day(day)).await;
        for (past, owed) in [(4, 0), (8, 10_000), (11, 4_000), (13, 0)] {
            if past <= day {
                let aged = debt.aged(Debt::day(past)).await;
                assert_eq!(
                    aged.iter().sum::<i64>(),
                    owed,
                    "day {past}, asked on day {day}: {aged:?}"
                );
            }
        }
    }
    assert_eq!(debt.credit().await, 0);
}

#[tokio::test]
async fn collection_on_postgresql() {
    let debt = Debt::of(World::on_postgres().await, &[Reply::Declines], Reply::Succeeds).await;
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    let terms = Terms {
        terminate_day: Some(60),
        remind_days_before: vec![3],
        card_expiry_notice_days: vec![7],
        bill_suspended: false,
        ..Terms::default()
    };
    let _ = set_terms(&mut transaction, &terms).await.unwrap();
    transaction.commit().await.unwrap();
    for day in [0, 11, 14, 28] {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(
        (debt.events("invoice.due_soon").await, debt.state().await),
        (1, SubscriptionState::Suspended)
    );
    // A card that is declined, one that is not, credit before it, and both taken back.
    debt.grant(500, "t:1", Debt::day(29)).await;
    save_method(&debt.world.database, debt.customer).await;
    let collected = debt.run(Debt::day(29)).await;
    assert_eq!((collected.from_credit.len(), collected.charged.len()), (1, 1));
    save_method(&debt.world.database, debt.customer).await;
    let collected = debt.run(Debt::day(30)).await;
    let ChargeResult::Succeeded(payment) = collected.charged[0].1 else {
        panic!("{collected:?}");
    };
    assert_eq!(debt.state().await, SubscriptionState::Active);
    let top_up = debt.top_up(1000, Debt::day(31)).await;
    debt.refund(top_up, 400, Debt::day(31)).await;
    debt.charge_back(top_up, 1000, Debt::day(32)).await;
    debt.charge_back(payment, 1500, Debt::day(32)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.credit().await), (1900, 0));
    assert_eq!(debt.aged(Debt::day(32)).await[1], 1900);
    debt.run(Debt::day(32)).await;
    debt.grant(2400, "t:2", Debt::day(33)).await;
    debt.run(Debt::day(33)).await;
    assert_eq!((debt.open(debt.invoice).await, debt.credit().await), (0, 500));
    assert_eq!(debt.aged(Debt::day(31)).await, [0; 5]);
}
