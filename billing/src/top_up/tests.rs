use proptest::prelude::*;

use super::*;
use crate::charger::script::{Reply, Script, save_method};
use crate::ledger;
use crate::testing::{World, ms};

const START: &str = "2026-03-01T00:00:00Z";
struct Wallet {
    world: World,
    customer: CustomerId,
    script: Script,
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

impl Wallet {
    /// Topped up by 50.00 below 10.00.
    async fn new(answers: &[Reply], otherwise: Reply) -> Wallet {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let wallet = Wallet {
            script: Script::new(&world.database, answers, otherwise),
            world,
            customer,
        };
        save_method(&wallet.world.database, customer).await;
        wallet.set(1000, 5000, ms(START)).await.unwrap();
        wallet
    }

    async fn set(&self, threshold: i64, amount: i64, now_ms: i64) -> Result<TopUp, TopUpError> {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let (threshold, amount) = (usd(threshold), usd(amount));
        let note = set(&mut transaction, self.customer, threshold, amount, now_ms).await?;
        assert_eq!(
            (note.action.as_str(), note.subject),
            ("top_up.set", self.customer.to_string())
        );
        transaction.commit().await.unwrap();
        Ok(self.settings().await)
    }

    async fn check(&self, now_ms: i64) -> TopUpCheck {
        let checked = check(&self.world.database, &self.script, self.customer, now_ms)
            .await
            .unwrap();
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        checked
    }

    /// Credit that the customer buys, as the engine charges it.
    async fn buys(&self, minor: i64, now_ms: i64) -> ChargeResult {
        let method = charger::default_method(self.world.database.pool(), self.customer)
            .await
            .unwrap();
        let order = ChargeOrder {
            customer: self.customer,
            method: method.unwrap(),
            purpose: Purpose::TopUp(usd(minor)),
            note: BOUGHT_NOTE,
        };
        self.script.charge(order, now_ms).await.unwrap()
    }

    async fn settings(&self) -> TopUp {
        settings(self.world.database.pool(), self.customer)
            .await
            .unwrap()
            .unwrap()
    }

    async fn balance(&self) -> i64 {
        let balance = settlement::credit_balance(self.world.database.pool(), self.customer, Currency::USD).await;
        balance.unwrap().minor
    }

    /// Credit that was used up for something.
    async fn use_up(&self, minor: i64, now_ms: i64) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let new = ledger::NewTransaction {
            idempotency_key: format!("used:{now_ms}"),
            customer: Some(self.customer),
            invoice: None,
            payment: None,
            refund: None,
            description: "used".to_owned(),
            posted_at_ms: now_ms,
            postings: vec![
                ledger::Posting {
                    account: ledger::Account::credit(self.customer, Currency::USD),
                    amount: usd(minor),
                },
                ledger::Posting {
                    account: ledger::Account::revenue_other(Currency::USD),
                    amount: usd(-minor),
                },
            ],
        };
        ledger::post(&mut transaction, &new).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn events(&self, name: &str) -> Vec<serde_json::Value> {
        let rows = sqlx::query("SELECT payload FROM events WHERE event_type = $1 ORDER BY id")
            .bind(name)
            .fetch_all(self.world.database.pool())
            .await
            .unwrap();
        rows.iter()
            .map(|row| serde_json::from_str(&row.get::<String, _>(0)).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn credit_below_the_threshold_is_topped_up_and_no_more() {
    let wallet = Wallet::new(&[], Reply::Succeeds).await;
    let mut now_ms = ms(START);
    assert!(matches!(
        wallet.check(now_ms).await,
        TopUpCheck::Charged(ChargeResult::Succeeded(_))
    ));
    assert_eq!(wallet.balance().await, 5000);
    // At the threshold is enough; one cent below is not.
    for (used, balance) in [(4000, 1000), (1, 5999)] {
        now_ms += HOUR_MS;
        wallet.use_up(used, now_ms).await;
        wallet.check(now_ms).await;
        assert_eq!(wallet.check(now_ms + 1).await, TopUpCheck::Enough);
        assert_eq!(wallet.balance().await, balance);
    }
    assert_eq!(wallet.script.count(), 2);
    let rows = sqlx::query("SELECT purpose, note, amount_minor, state FROM payments ORDER BY id")
        .fetch_all(wallet.world.database.pool())
        .await
        .unwrap();
    for row in &rows {
        let facts: (String, String, i64, String) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(
            facts,
            ("top_up".into(), AUTOMATIC_NOTE.into(), 5000, "succeeded".into())
        );
    }
}

#[tokio::test]
async fn declines_are_left_in_peace_longer_and_longer_and_then_for_good() {
    let wallet = Wallet::new(&[], Reply::Declines).await;
    let start_ms = ms(START);
    let mut charged_at = Vec::new();
    for minute in (0..4 * 24 * 60).step_by(10) {
        let now_ms = start_ms + minute * 60_000;
        if matches!(wallet.check(now_ms).await, TopUpCheck::Charged(_)) {
            charged_at.push(minute);
        }
    }
    assert_eq!(charged_at, [0, 60, 7 * 60, 31 * 60]);
    let settings = wallet.settings().await;
    assert_eq!((settings.is_enabled, settings.declines), (false, MAX_DECLINES));
    let failed = wallet.events("top_up.failed").await;
    assert_eq!(failed.len(), 1, "said once that it is off: {failed:?}");
    assert_eq!(
        (&failed[0]["is_disabled"], &failed[0]["declines"]),
        (&json!(true), &json!(4))
    );
    assert!(failed[0]["reason"].as_str().unwrap().contains("declined"));
    // And once that the credit is low, as nothing will be charged.
    assert_eq!(wallet.events("credit.low").await.len(), 1);
    let rows = sqlx::query("SELECT state, error FROM payments")
        .fetch_all(wallet.world.database.pool())
        .await
        .unwrap();
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row.get::<String, _>(0), "failed");
        assert!(!row.get::<String, _>(1).is_empty());
    }
}

#[tokio::test]
async fn a_success_forgets_declines_and_so_does_setting_it_again() {
    let wallet = Wallet::new(&[Reply::Declines, Reply::Declines, Reply::Succeeds], Reply::Declines).await;
    let start_ms = ms(START);
    wallet.check(start_ms).await;
    wallet.check(start_ms + HOUR_MS).await;
    assert_eq!(wallet.settings().await.declines, 2);
    assert_eq!(
        wallet.check(start_ms + 7 * HOUR_MS - 1).await,
        TopUpCheck::Waits {
            until_ms: start_ms + 7 * HOUR_MS
        }
    );
    wallet.check(start_ms + 7 * HOUR_MS).await;
    assert_eq!((wallet.settings().await.declines, wallet.balance().await), (0, 5000));

    wallet.use_up(4500, start_ms + 8 * HOUR_MS).await;
    let mut now_ms = start_ms + 8 * HOUR_MS;
    while wallet.settings().await.is_enabled {
        wallet.check(now_ms).await;
        now_ms += HOUR_MS;
    }
    assert_eq!(wallet.check(now_ms).await, TopUpCheck::Disabled);
    let set = wallet.set(2500, 10_000, now_ms).await.unwrap();
    assert_eq!((set.is_enabled, set.declines), (true, 0));
    let charged = wallet.check(now_ms + CLAIM_MS).await;
    assert!(
        matches!(charged, TopUpCheck::Charged(ChargeResult::Declined { .. })),
        "{charged:?}"
    );
    assert_eq!(wallet.settings().await.declines, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_top_up_is_under_way_and_workers_at_once_ask_for_one() {
    let wallet = Wallet::new(&[], Reply::Succeeds).await;
    let now_ms = ms(START);
    let looks = (0..8).map(|_| check(&wallet.world.database, &wallet.script, wallet.customer, now_ms));
    for checked in futures::future::join_all(looks).await {
        checked.unwrap();
    }
    assert_eq!((wallet.script.count(), wallet.balance().await), (1, 5000));

    // Declines are no reason to ask twice either.
    let wallet = Wallet::new(&[], Reply::Declines).await;
    let looks = (0..8).map(|_| check(&wallet.world.database, &wallet.script, wallet.customer, now_ms));
    for checked in futures::future::join_all(looks).await {
        checked.unwrap();
    }
    assert_eq!((wallet.script.count(), wallet.settings().await.declines), (1, 1));
}

#[tokio::test]
async fn what_is_under_way_is_waited_for_however_long() {
    let wallet = Wallet::new(&[Reply::Waits], Reply::Succeeds).await;
    let start_ms = ms(START);
    let TopUpCheck::Charged(ChargeResult::UnderWay(payment)) = wallet.check(start_ms).await else {
        panic!("not under way");
    };
    for hour in 1..100 {
        assert_eq!(
            wallet.check(start_ms + hour * HOUR_MS).await,
            TopUpCheck::UnderWay(payment)
        );
    }
    // Bought credit is not charged beside it.
    let bought = wallet.buys(5000, start_ms).await;
    assert_eq!(bought, ChargeResult::UnderWay(payment));
    // Days later it turns out to be declined: counted from then.
    let declined_ms = start_ms + 100 * HOUR_MS;
    wallet.script.finish(payment, Reply::Declines, declined_ms).await;
    let until_ms = declined_ms + HOUR_MS;
    assert_eq!(wallet.check(declined_ms + 1).await, TopUpCheck::Waits { until_ms });
    assert!(matches!(
        wallet.check(until_ms).await,
        TopUpCheck::Charged(ChargeResult::Succeeded(_))
    ));
    assert_eq!((wallet.script.count(), wallet.settings().await.declines), (2, 0));
}

#[tokio::test]
async fn a_process_that_died_at_the_charge_is_made_good_later() {
    let wallet = Wallet::new(&[Reply::Breaks], Reply::Succeeds).await;
    let start_ms = ms(START);
    let broken = check(&wallet.world.database, &wallet.script, wallet.customer, start_ms).await;
    assert!(matches!(broken, Err(TopUpError::Charge(_))));
    let TopUpCheck::UnderWay(payment) = wallet.check(start_ms + 1).await else {
        panic!("nobody knows");
    };
    wallet.script.finish(payment, Reply::NotSent, start_ms + 60_000).await;
    // Nothing was sent: nobody's decline, and tried again when the claim has run out.
    let until_ms = start_ms + CLAIM_MS;
    assert_eq!(wallet.check(start_ms + 60_001).await, TopUpCheck::Waits { until_ms });
    assert!(matches!(
        wallet.check(until_ms).await,
        TopUpCheck::Charged(ChargeResult::Succeeded(_))
    ));
    assert_eq!(wallet.settings().await.declines, 0);
}

#[tokio::test]
async fn low_credit_that_nothing_tops_up_is_said_once_until_it_was_enough() {
    let wallet = Wallet::new(&[], Reply::Succeeds).await;
    let mut transaction = wallet.world.database.begin_write().await.unwrap();
    let _ = disable(&mut transaction, wallet.customer, ms(START)).await.unwrap();
    transaction.commit().await.unwrap();
    let mut now_ms = ms(START);
    for round in 1..=3 {
        for _ in 0..3 {
            now_ms += HOUR_MS;
            assert_eq!(wallet.check(now_ms).await, TopUpCheck::Disabled);
        }
        let low = wallet.events("credit.low").await;
        assert_eq!(low.len(), round);
        assert_eq!(
            (&low[0]["balance_minor"], &low[0]["threshold_minor"]),
            (&json!(0), &json!(1000))
        );
        let mut transaction = wallet.world.database.begin_write().await.unwrap();
        grant(
            &mut transaction,
            wallet.customer,
            usd(1000),
            &format!("t:{round}"),
            "gift",
            now_ms,
        )
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(wallet.check(now_ms).await, TopUpCheck::Enough);
        wallet.use_up(1000, now_ms).await;
    }
    assert_eq!(wallet.script.count(), 0);
    // Without a payment method there is nothing to charge.
    sqlx::query("UPDATE payment_methods SET removed_at_ms = 1")
        .execute(wallet.world.database.pool())
        .await
        .unwrap();
    wallet.set(1000, 5000, now_ms).await.unwrap();
    assert_eq!(wallet.check(now_ms + CLAIM_MS).await, TopUpCheck::NoMethod);
}

#[tokio::test]
async fn terms_are_checked_and_recorded() {
    let wallet = Wallet::new(&[], Reply::Succeeds).await;
    let now_ms = ms(START);
    for (threshold, amount) in [
        (99, 5000),
        (100_001, 500_000),
        (1000, 499),
        (1000, 500_001),
        (5000, 4999),
    ] {
        assert!(
            wallet.set(threshold, amount, now_ms).await.is_err(),
            "{threshold} {amount}"
        );
    }
    let mut transaction = wallet.world.database.begin_write().await.unwrap();
    let euro = Money::new(5000, Currency::EUR);
    let other = set(&mut transaction, wallet.customer, euro, euro, now_ms).await;
    assert!(matches!(other, Err(TopUpError::OtherCurrency { .. })));
    let mut grant_it = async || {
        let granted = grant(
            &mut transaction,
            wallet.customer,
            usd(700),
            "ticket:1",
            "outage",
            now_ms,
        );
        granted.await.unwrap()
    };
    let (granted, note) = grant_it().await;
    assert_eq!(note.map(|note| note.action).as_deref(), Some("credit.grant"));
    // The same cause again moves nothing, and there is nothing to record.
    assert_eq!(grant_it().await, (granted, None));
    for reason in ["", "a\nb"] {
        let refused = grant(&mut transaction, wallet.customer, usd(1), "t", reason, now_ms).await;
        assert!(matches!(refused, Err(TopUpError::Reason(_))), "{reason:?}");
    }
    transaction.commit().await.unwrap();
    assert_eq!(wallet.balance().await, 700);
    let bought = wallet.buys(2000, now_ms).await;
    assert!(matches!(bought, ChargeResult::Succeeded(_)));
    assert_eq!(wallet.balance().await, 2700);
    assert_eq!(wallet.settings().await.declines, 0);
    let nobody = disable(
        &mut wallet.world.database.pool().acquire().await.unwrap(),
        CustomerId(99),
        now_ms,
    )
    .await;
    assert!(matches!(nobody, Err(TopUpError::NotSet(_))));
}

#[tokio::test]
async fn all_customers_are_looked_at() {
    let wallet = Wallet::new(&[], Reply::Succeeds).await;
    let poor = wallet.world.customer("USD", "UTC", "0").await;
    let mut transaction = wallet.world.database.begin_write().await.unwrap();
    let _ = set(&mut transaction, poor, usd(1000), usd(5000), 0).await.unwrap();
    transaction.commit().await.unwrap();
    let all = check_all(&wallet.world.database, &wallet.script, ms(START))
        .await
        .unwrap();
    assert_eq!((all.looked_at, all.charged.len(), all.failed.len()), (2, 1, 0));
    assert_eq!(all.charged[0].0, wallet.customer);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever the card answers and whenever it is looked at: the balance is what was charged less what was used, charges
    /// keep their distance after declines, and never more than four are declined in a row.
    #[test]
    fn top_ups_after_any_history(
        answers in proptest::collection::vec(0u8..4, 1..20),
        looks in proptest::collection::vec((1i64..600, 0i64..3_000), 5..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let answers: Vec<Reply> = answers
                .iter()
                .map(|answer| [Reply::Declines, Reply::Succeeds, Reply::Waits, Reply::NotSent][usize::from(*answer)])
                .collect();
            let wallet = Wallet::new(&answers, Reply::Declines).await;
            let (mut now_ms, mut used) = (ms(START), 0);
            for (minutes, uses) in looks {
                now_ms += minutes * 60_000;
                if uses > 0 {
                    wallet.use_up(uses, now_ms).await;
                    used += uses;
                }
                if let TopUpCheck::UnderWay(payment) = wallet.check(now_ms).await
                    && minutes % 2 == 0
                {
                    wallet.script.finish(payment, Reply::Succeeds, now_ms).await;
                }
                let row = sqlx::query(
                    "SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM payments WHERE state = 'succeeded'",
                );
                let paid: i64 = row.fetch_one(wallet.world.database.pool()).await.unwrap().get(0);
                assert_eq!(wallet.balance().await, paid - used);
                assert!(wallet.settings().await.declines <= MAX_DECLINES);
            }
            let asked = wallet.script.asked();
            assert!(asked.windows(2).all(|pair| pair[1].1 > pair[0].1), "{asked:?}");
            let failed = sqlx::query("SELECT id, updated_at_ms FROM payments WHERE state = 'failed' AND error NOT LIKE 'not_sent%'")
                .fetch_all(wallet.world.database.pool())
                .await
                .unwrap();
            for row in &failed {
                let (id, declined_ms): (i64, i64) = (row.get(0), row.get(1));
                let next: i64 = sqlx::query("SELECT CAST(coalesce(min(created_at_ms), $2) AS BIGINT) FROM payments WHERE id > $1")
                    .bind(id)
                    .bind(i64::MAX)
                    .fetch_one(wallet.world.database.pool())
                    .await
                    .unwrap()
                    .get(0);
                assert!(next >= declined_ms + HOUR_MS);
            }
        });
    }
}
