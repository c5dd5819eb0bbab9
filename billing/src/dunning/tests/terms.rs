//! Terms that are not the default ones.

use super::*;
use crate::subscription::change::CancellationTime;

impl Debt {
    async fn terms(&self, terms: Terms) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let _ = set_terms(&mut transaction, &terms).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn days_of(&self, event: &str) -> Vec<i64> {
        let rows = sqlx::query("SELECT created_at_ms FROM events WHERE event_type = $1 ORDER BY id")
            .bind(event)
            .fetch_all(self.world.database.pool())
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get::<i64, _>(0) - ms(CLOSED_AT)) / DAY_MS)
            .collect()
    }
}

#[tokio::test]
async fn an_invoice_is_due_and_collected_by_the_terms_in_force() {
    let debt = Debt::new(&[], Reply::Declines).await;
    let terms = Terms {
        payment_term_days: 30,
        retry_days: vec![2],
        suspend_day: 5,
        ..Terms::default()
    };
    debt.terms(terms).await;
    // Issued before: due on day 14 as it says. What the schedule says holds for it.
    for day in 0..=28 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.charged_days().await, [0, 16]);
    assert_eq!(debt.days_of("invoice.overdue").await, [14]);
    assert_eq!(debt.days_of("service.suspend_requested").await, [19]);
    // Issued since: due 30 days later.
    let closing = invoice::close(
        &debt.world.database,
        &debt.world.usage,
        debt.customer,
        ms("2026-03-01T00:10:00Z"),
    )
    .await;
    let second = invoice::get(&debt.world.database, closing.unwrap().invoices[0])
        .await
        .unwrap();
    assert_eq!(second.invoice.due_at_ms, ms("2026-03-31T00:10:00Z"));
}

#[tokio::test]
async fn an_open_invoice_is_reminded_of_before_it_is_due_each_day_once() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.terms(Terms {
        remind_days_before: vec![7, 3],
        ..Terms::default()
    })
    .await;
    for day in 0..=20 {
        debt.run(Debt::day(day)).await;
        debt.run(Debt::day(day) + HOUR_MS).await;
    }
    assert_eq!(debt.days_of("invoice.due_soon").await, [7, 11]);
    assert_eq!(debt.days_of("invoice.overdue").await, [14]);

    // Days off: the last that was missed is given; who has paid is not reminded.
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.terms(Terms {
        remind_days_before: vec![7, 3],
        ..Terms::default()
    })
    .await;
    debt.run(Debt::day(0)).await;
    debt.run(Debt::day(12)).await;
    assert_eq!(debt.days_of("invoice.due_soon").await, [12]);
    let paid = Debt::new(&[], Reply::Succeeds).await;
    paid.terms(Terms {
        remind_days_before: vec![7],
        ..Terms::default()
    })
    .await;
    for day in 0..=13 {
        paid.run(Debt::day(day)).await;
    }
    assert_eq!(paid.events("invoice.due_soon").await, 0);
}

#[tokio::test]
async fn the_owner_of_a_card_that_expires_is_told() {
    let debt = Debt::new(&[], Reply::Succeeds).await;
    // CLOSED_AT is 1 February: good to the end of it, 27 days and 23 hours later.
    debt.execute(
        "UPDATE payment_methods SET expires = '2026-02' WHERE customer_id = $1",
        debt.customer.0,
    )
    .await;
    debt.run(Debt::day(0)).await;
    assert_eq!(debt.events("payment_method.expiring").await, 0);
    debt.terms(Terms {
        card_expiry_notice_days: vec![20, 5],
        ..Terms::default()
    })
    .await;
    for day in 0..=40 {
        debt.run(Debt::day(day)).await;
        debt.run(Debt::day(day) + HOUR_MS).await;
    }
    assert_eq!(debt.days_of("payment_method.expiring").await, [8, 23]);
    let row = sqlx::query("SELECT payload FROM events WHERE event_type = 'payment_method.expiring' LIMIT 1")
        .fetch_one(debt.world.database.pool())
        .await
        .unwrap();
    let payload: serde_json::Value = serde_json::from_str(&row.get::<String, _>(0)).unwrap();
    assert_eq!((&payload["expires"], &payload["days"]), (&"2026-02".into(), &20.into()));
    assert_eq!(payload["method_label"], "Visa 4242");
}

#[tokio::test]
async fn subscriptions_end_on_the_day_that_the_terms_name() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.terms(Terms {
        terminate_day: Some(30),
        ..Terms::default()
    })
    .await;
    for day in 0..=60 {
        debt.run(Debt::day(day)).await;
        let expected = match day {
            0..14 => SubscriptionState::Active,
            14..28 => SubscriptionState::PastDue,
            28..44 => SubscriptionState::Suspended,
            _ => SubscriptionState::Ended,
        };
        assert_eq!(debt.state().await, expected, "day {day}");
    }
    assert_eq!(debt.events("subscription.ended").await, 1);
    // What is owed is owed all the same, and a person decides about it.
    assert!(debt.in_dunning().await[0].is_exhausted());
    debt.pay(debt.invoice, Debt::day(61)).await;
    debt.run(Debt::day(61)).await;
    assert_eq!(
        (debt.state().await, debt.in_dunning().await.len()),
        (SubscriptionState::Ended, 0)
    );
}

#[tokio::test]
async fn after_days_off_a_subscription_is_suspended_as_long_before_it_ends() {
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.terms(Terms {
        terminate_day: Some(30),
        ..Terms::default()
    })
    .await;
    debt.run(Debt::day(100)).await;
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    debt.run(Debt::day(115)).await;
    assert_eq!(debt.state().await, SubscriptionState::Suspended);
    debt.run(Debt::day(116)).await;
    assert_eq!(debt.state().await, SubscriptionState::Ended);
}

#[tokio::test]
async fn whom_a_person_lets_go_on_and_who_has_cancelled() {
    let terms = Terms {
        terminate_day: Some(30),
        ..Terms::default()
    };
    // A hold that a person has lifted is no reason to end it.
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.terms(terms.clone()).await;
    for day in 0..=30 {
        debt.run(Debt::day(day)).await;
    }
    let id = debt.contract.subscription.id;
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    change::release(&mut transaction, id, HoldCause::Unpaid, "ops", Debt::day(31))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    for day in 31..=60 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.state().await, SubscriptionState::PastDue);

    // Who has cancelled to a later day ends earlier.
    let debt = Debt::without_method(&[], Reply::Declines).await;
    debt.terms(terms).await;
    for day in 0..=29 {
        debt.run(Debt::day(day)).await;
    }
    let mut transaction = debt.world.database.begin_write().await.unwrap();
    let end = CancellationTime::On("2026-06-01".parse().unwrap());
    change::cancel(
        &mut transaction,
        debt.contract.subscription.id,
        end,
        "moving",
        "ada",
        Debt::day(29),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    for day in 29..=44 {
        debt.run(Debt::day(day)).await;
    }
    assert_eq!(debt.state().await, SubscriptionState::Ended);
}

#[tokio::test]
async fn the_outlook_says_what_is_still_to_come() {
    let debt = Debt::new(&[], Reply::Declines).await;
    debt.terms(Terms {
        terminate_day: Some(30),
        ..Terms::default()
    })
    .await;
    let outlook = async || {
        let mut connection = debt.world.database.pool().acquire().await.unwrap();
        outlook(&mut connection, debt.invoice).await.unwrap()
    };
    // Collection has not begun with it.
    assert_eq!(outlook().await, None);
    let is_charged_next = async || {
        let mut connection = debt.world.database.pool().acquire().await.unwrap();
        is_charged_next(&mut connection, debt.invoice).await.unwrap()
    };
    assert!(is_charged_next().await);
    debt.run(Debt::day(0)).await;
    assert!(!is_charged_next().await, "it was tried");
    let at_first = outlook().await.unwrap();
    assert_eq!(at_first.charges_at_ms, [14, 17, 19, 21].map(Debt::day));
    assert_eq!(
        (at_first.suspends_at_ms, at_first.terminates_at_ms),
        (Some(Debt::day(28)), Some(Debt::day(44)))
    );
    for day in 1..=28 {
        debt.run(Debt::day(day)).await;
    }
    let late = outlook().await.unwrap();
    assert_eq!((late.charges_at_ms, late.suspends_at_ms), (Vec::new(), None));
    assert_eq!(late.terminates_at_ms, Some(Debt::day(44)));
    debt.pay(debt.invoice, Debt::day(29)).await;
    debt.run(Debt::day(29)).await;
    assert_eq!(outlook().await, None);
}
