use proptest::prelude::*;
use schemas::window::{DAY_MS, HOUR_MS};

use super::*;
use crate::catalog::BaseTiming;
use crate::charger::script::{Reply, Script, save_method};
use crate::charger::{ChargeOrder, ChargeResult, Charger as _, Purpose};
use crate::ledger;
use crate::subscription::state::SubscriptionState;
use crate::subscription::{self, Contract};
use crate::testing::{DEAL, Deal, World, ms};

const GIB: u64 = 1 << 30;

/// A customer with one service at 20.00 a month, 1000 GiB included, 0.05 for each GiB over it.
struct Spender {
    world: World,
    customer: CustomerId,
    contract: Contract,
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

impl Spender {
    async fn new(time_zone: &str, deal: Deal) -> Spender {
        let world = World::new().await;
        let customer = world.customer("USD", time_zone, "0").await;
        let contract = world.subscribe(customer, deal).await;
        Spender {
            world,
            customer,
            contract,
        }
    }

    /// From 1 January, in UTC, with a budget.
    async fn with_budget(minor: i64, suspends: bool) -> Spender {
        let spender = Spender::new("UTC", DEAL).await;
        spender.set(minor, suspends, "2026-01-01T00:00:00Z").await;
        spender
    }

    async fn set(&self, minor: i64, suspends: bool, now: &str) -> Budget {
        let new = NewBudget {
            amount: usd(minor),
            thresholds: Thresholds::default(),
            suspends,
            reset_day: None,
        };
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let note = set(&mut transaction, self.customer, &new, ms(now)).await.unwrap();
        assert_eq!(
            (note.action.as_str(), &note.change["amount_minor"]),
            ("budget.set", &json!(minor))
        );
        transaction.commit().await.unwrap();
        let stored = budget(self.world.database.pool(), self.customer).await.unwrap();
        stored.unwrap()
    }

    fn transfers(&self, at: &str, gib: u64) {
        self.world.usage.add(self.contract.service.id, at, gib * GIB, 0);
    }

    async fn check_at(&self, now_ms: i64) -> BudgetCheck {
        let looked = check(&self.world.database, &self.world.usage, self.customer, now_ms).await;
        looked.unwrap().unwrap()
    }

    async fn check(&self, now: &str) -> BudgetCheck {
        self.check_at(ms(now)).await
    }

    async fn state_of(&self, contract: &Contract) -> SubscriptionState {
        let id = contract.subscription.id;
        subscription::subscription(self.world.database.pool(), id)
            .await
            .unwrap()
            .state
    }

    async fn state(&self) -> SubscriptionState {
        self.state_of(&self.contract).await
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

    async fn close(&self, now: &str) -> Vec<InvoiceId> {
        let closing = invoice::close(&self.world.database, &self.world.usage, self.customer, ms(now)).await;
        closing.unwrap().invoices
    }

    async fn pays(&self, purpose: Purpose, note: &str, now: &str) {
        let script = Script::new(&self.world.database, &[], Reply::Succeeds);
        let order = ChargeOrder {
            customer: self.customer,
            method: save_method(&self.world.database, self.customer).await,
            purpose,
            note,
        };
        assert!(matches!(
            script.charge(order, ms(now)).await.unwrap(),
            ChargeResult::Succeeded(_)
        ));
    }

    async fn assert_books_are_right(&self) {
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[tokio::test]
async fn each_threshold_is_said_once_as_it_is_reached() {
    let spender = Spender::with_budget(10_000, false).await;
    // (usage before the look, look, spent, thresholds that are said, whether the forecast is)
    let steps: [(u64, &str, i64, &[i64], bool); 7] = [
        (0, "2026-01-05T12:00:00Z", 2000, &[], false),
        (1600, "2026-01-07T00:10:00Z", 5000, &[50], true),
        (0, "2026-01-07T12:00:00Z", 5000, &[], false),
        (500, "2026-01-08T00:10:00Z", 7500, &[75], false),
        (299, "2026-01-09T00:10:00Z", 8995, &[], false),
        (301, "2026-01-10T00:10:00Z", 10_500, &[90, 100], false),
        (900, "2026-01-20T00:10:00Z", 15_000, &[], false),
    ];
    for (gib, now, spent, said, forecast) in steps {
        let before = jiff::Timestamp::from_millisecond(ms(now) - HOUR_MS).unwrap();
        spender.transfers(&before.to_string(), gib);
        let looked = spender.check(now).await;
        assert_eq!((looked.status.spent.minor, &looked.said[..]), (spent, said), "{now}");
        assert_eq!(looked.said_forecast, forecast, "{now}");
        assert!(looked.held.is_empty());
    }
    let told = spender.events("budget.threshold_reached").await;
    let of = |told: &serde_json::Value| {
        (
            told["threshold_percent"].as_i64(),
            told["basis"].as_str().map(str::to_owned),
        )
    };
    let bases: Vec<_> = told.iter().map(of).collect();
    let expected = [(50, "spent"), (100, "forecast"), (75, "spent"), (90, "spent")];
    assert_eq!(
        bases,
        expected.map(|(percent, basis)| (Some(percent), Some(basis.to_owned())))
    );
    assert_eq!(
        (&told[0]["spent_minor"], &told[0]["budget_minor"]),
        (&json!(5000), &json!(10_000))
    );
    assert_eq!(told[0]["resets_at_ms"], ms("2026-02-01T00:00:00Z"));
    let exceeded = spender.events("budget.exceeded").await;
    assert_eq!((exceeded.len(), &exceeded[0]["suspends"]), (1, &json!(false)));
    // Without suspension services go on.
    assert_eq!(spender.state().await, SubscriptionState::Active);
}

#[tokio::test]
async fn the_forecast_goes_on_as_the_measured_days_did() {
    let spender = Spender::with_budget(12_500, false).await;
    spender.transfers("2026-01-03T00:00:00Z", 1500);
    // 15 of 31 days: 1500 GiB so far, 3100 at this pace.
    let looked = spender.check("2026-01-16T00:10:00Z").await;
    assert_eq!(
        (looked.status.spent.minor, looked.status.forecast.minor),
        (4500, 12_500)
    );
    assert!(!looked.said_forecast, "not over the budget");
    spender.transfers("2026-01-03T00:00:00Z", 1);
    assert!(spender.check("2026-01-16T00:10:00Z").await.said_forecast);
    assert!(!spender.check("2026-01-16T00:10:00Z").await.said_forecast);
}

#[tokio::test]
async fn a_budget_passed_a_minute_before_midnight_is_reset_at_midnight_when_the_clocks_change() {
    // (zone, start, the month before it is counted in, usage, a minute before the reset, the reset, invoices closed, end of the cycle)
    for (zone, start, used, before, reset, closed, ends) in [
        (
            "America/New_York",
            "2026-10-01T04:00:00Z",
            "2026-11-01T00:00:00Z",
            "2026-11-01T03:59:00Z",
            "2026-11-01T04:00:00Z",
            "2026-11-01T04:15:00Z",
            "2026-12-01T05:00:00Z",
        ),
        (
            "Europe/Berlin",
            "2026-02-27T23:00:00Z",
            "2026-03-28T20:00:00Z",
            "2026-03-28T22:59:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-28T23:15:00Z",
            "2026-04-28T22:00:00Z",
        ),
    ] {
        let anchor_day = if zone == "Europe/Berlin" { Some(29) } else { None };
        let deal = Deal {
            started_at: start,
            anchor_day,
            ..DEAL
        };
        let spender = Spender::new(zone, deal).await;
        let budget = spender.set(10_000, true, start).await;
        assert_eq!(
            budget.reset_day.get(),
            anchor_day.unwrap_or(1),
            "the day on which it is billed"
        );
        spender.transfers(used, 3000);
        let looked = spender.check(before).await;
        assert!(looked.status.is_exceeded(), "{looked:?}");
        assert_eq!(
            (looked.held.len(), spender.state().await),
            (1, SubscriptionState::Suspended)
        );
        assert_eq!(looked.status.cycle.end_ms, ms(reset));

        let looked = spender.check(reset).await;
        assert_eq!(
            (looked.released.len(), spender.state().await),
            (1, SubscriptionState::Active),
            "{zone}"
        );
        assert_eq!(
            (looked.status.spent.minor, looked.status.cycle.end_ms),
            (2000, ms(ends))
        );
        assert_eq!(spender.events("budget.reset").await.len(), 1);
        // The invoice of the month before is written in this cycle and does not count in it.
        assert_eq!(spender.close(closed).await.len(), 1);
        let looked = spender.check(closed).await;
        assert_eq!((looked.status.spent.minor, looked.said.len()), (2000, 0), "{zone}");
        assert_eq!(spender.events("budget.reset").await.len(), 1);
        spender.assert_books_are_right().await;
    }
}

#[tokio::test]
async fn a_base_price_in_advance_counts_when_its_cycle_starts_and_once() {
    let deal = Deal {
        base_timing: BaseTiming::Advance,
        ..DEAL
    };
    let spender = Spender::new("UTC", deal).await;
    spender.set(10_000, true, "2026-01-01T00:00:00Z").await;
    assert_eq!(
        spender.check("2026-01-01T00:00:00Z").await.status.spent.minor,
        2000,
        "a draft"
    );
    assert_eq!(spender.close("2026-01-01T00:10:00Z").await.len(), 1);
    assert_eq!(
        spender.check("2026-01-01T00:10:00Z").await.status.spent.minor,
        2000,
        "an invoice"
    );
    spender.transfers("2026-01-10T00:00:00Z", 1200);
    assert_eq!(spender.check("2026-01-11T00:00:00Z").await.status.spent.minor, 3000);
    // February: its base price, not January's usage on the same invoice.
    assert_eq!(spender.close("2026-02-01T00:10:00Z").await.len(), 1);
    assert_eq!(spender.check("2026-02-01T00:10:00Z").await.status.spent.minor, 2000);
}

#[tokio::test]
async fn services_that_are_excluded_neither_count_nor_stop() {
    let spender = Spender::with_budget(5_000, true).await;
    let other = spender.world.subscribe(spender.customer, DEAL).await;
    let exclude_it = async |service, is_excluded| {
        let mut transaction = spender.world.database.begin_write().await.unwrap();
        let at_ms = ms("2026-01-02T00:00:00Z");
        let done = exclude(&mut transaction, spender.customer, service, is_excluded, at_ms).await;
        assert!(done.unwrap().is_some());
        let again = exclude(&mut transaction, spender.customer, service, is_excluded, at_ms).await;
        assert_eq!(again.unwrap(), None);
        transaction.commit().await.unwrap();
    };
    exclude_it(other.service.id, true).await;
    spender
        .world
        .usage
        .add(other.service.id, "2026-01-03T00:00:00Z", 9000 * GIB, 0);
    let looked = spender.check("2026-01-04T00:00:00Z").await;
    assert_eq!((looked.status.spent.minor, looked.held.len()), (2000, 0));
    assert_eq!(looked.status.excluded, [other.service.id]);

    spender.transfers("2026-01-05T00:00:00Z", 1600);
    let looked = spender.check("2026-01-06T00:00:00Z").await;
    assert_eq!(
        (looked.status.spent.minor, &looked.held[..]),
        (5000, &[spender.contract.subscription.id][..])
    );
    assert_eq!(spender.state_of(&other).await, SubscriptionState::Active);

    // Taken in again it counts and stops; left out again it goes on.
    exclude_it(other.service.id, false).await;
    let looked = spender.check("2026-01-06T00:00:00Z").await;
    assert_eq!((looked.status.spent.minor, looked.held.len()), (5000 + 42_000, 1));
    exclude_it(spender.contract.service.id, true).await;
    let looked = spender.check("2026-01-06T00:00:00Z").await;
    assert_eq!(looked.released, [spender.contract.subscription.id]);
    assert_eq!(spender.state_of(&other).await, SubscriptionState::Suspended);

    let stranger = spender.world.customer("USD", "UTC", "0").await;
    let service = spender.world.service(stranger, "db-1").await;
    let mut transaction = spender.world.database.begin_write().await.unwrap();
    let refused = exclude(&mut transaction, spender.customer, service.id, true, 0).await;
    assert!(matches!(refused, Err(BudgetError::OtherCustomer { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_larger_budget_lifts_and_is_exceeded_anew() {
    let spender = Spender::with_budget(5_000, true).await;
    spender.transfers("2026-01-05T00:00:00Z", 1700);
    assert_eq!(spender.check("2026-01-06T00:00:00Z").await.held.len(), 1);
    spender.set(10_000, true, "2026-01-06T00:01:00Z").await;
    let looked = spender.check("2026-01-06T00:01:00Z").await;
    assert_eq!(
        (looked.released.len(), spender.state().await),
        (1, SubscriptionState::Active)
    );
    // 55 % of the new one: that more than half of it is spent was said of the old one, and what is to come was not.
    assert_eq!((looked.said.len(), looked.said_forecast), (0, true), "{looked:?}");
    spender.transfers("2026-01-07T00:00:00Z", 1000);
    let looked = spender.check("2026-01-08T00:00:00Z").await;
    assert_eq!((looked.said, looked.held.len()), (vec![75, 90, 100], 1));
    assert_eq!(spender.events("budget.exceeded").await.len(), 2);

    let mut transaction = spender.world.database.begin_write().await.unwrap();
    let (resumed, note) = clear(&mut transaction, spender.customer, ms("2026-01-08T00:00:00Z"))
        .await
        .unwrap();
    assert_eq!((resumed, note.action.as_str()), (1, "budget.clear"));
    transaction.commit().await.unwrap();
    assert_eq!(spender.state().await, SubscriptionState::Active);
    let gone = check(
        &spender.world.database,
        &spender.world.usage,
        spender.customer,
        ms("2026-01-09T00:00:00Z"),
    )
    .await;
    assert_eq!(gone.unwrap(), None);
    let all = spender.world.database.pool();
    assert_eq!(budget(all, spender.customer).await.unwrap(), None);
}

#[tokio::test]
async fn bought_credit_of_what_was_overspent_unlocks_until_the_cycle_ends() {
    let spender = Spender::with_budget(5_000, true).await;
    spender.transfers("2026-01-05T00:00:00Z", 2000);
    // Paid before it was exceeded: that is not what unlocks.
    spender
        .pays(Purpose::TopUp(usd(9000)), "early", "2026-01-05T23:00:00Z")
        .await;
    let looked = spender.check("2026-01-06T00:00:00Z").await;
    assert_eq!((looked.held.len(), looked.status.unlock_amount()), (1, usd(2000)));
    for (minor, note, now) in [
        (1999, "bought", "2026-01-06T01:00:00Z"),
        (9000, top_up::AUTOMATIC_NOTE, "2026-01-06T02:00:00Z"),
    ] {
        spender.pays(Purpose::TopUp(usd(minor)), note, now).await;
        assert!(!spender.check(now).await.unlocked, "{minor} {note}");
    }
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    let now = "2026-01-06T03:00:00Z";
    spender.pays(Purpose::TopUp(usd(1)), "bought", now).await;
    let (database, usage) = (&spender.world.database, &spender.world.usage);
    assert!(
        unlock_by_payment(database, usage, spender.customer, ms(now))
            .await
            .unwrap()
    );
    assert!(
        !unlock_by_payment(database, usage, spender.customer, ms(now))
            .await
            .unwrap()
    );
    assert_eq!(spender.state().await, SubscriptionState::Active);
    let unlocked = spender.events("budget.unlocked").await;
    assert_eq!((unlocked.len(), &unlocked[0]["amount_minor"]), (1, &json!(2000)));
    assert_eq!(unlocked[0]["unlocked_until_ms"], ms("2026-02-01T00:00:00Z"));
    // However much more is spent in this cycle; the next one is limited again.
    spender.transfers("2026-01-20T00:00:00Z", 5000);
    assert_eq!(spender.check("2026-01-21T00:00:00Z").await.held.len(), 0);
    spender.transfers("2026-02-10T00:00:00Z", 2000);
    assert_eq!(spender.check("2026-02-11T00:00:00Z").await.held.len(), 1);
    spender.assert_books_are_right().await;
}

#[tokio::test]
async fn paying_every_open_invoice_unlocks() {
    let spender = Spender::with_budget(5_000, true).await;
    let first = spender.close("2026-02-01T00:10:00Z").await[0];
    let second = spender
        .world
        .subscribe(
            spender.customer,
            Deal {
                started_at: "2026-01-02T00:00:00Z",
                ..DEAL
            },
        )
        .await;
    let second_invoice = spender.close("2026-02-02T00:10:00Z").await[0];
    spender.transfers("2026-02-05T00:00:00Z", 2000);
    assert_eq!(spender.check("2026-02-06T00:00:00Z").await.held.len(), 2);
    // Charged by collection: the limit was set against just that.
    spender
        .pays(
            Purpose::Invoice(first),
            dunning::COLLECTION_NOTE,
            "2026-02-06T01:00:00Z",
        )
        .await;
    assert!(!spender.check("2026-02-06T01:00:00Z").await.unlocked);
    spender
        .pays(Purpose::Invoice(second_invoice), "by hand", "2026-02-06T02:00:00Z")
        .await;
    let looked = spender.check("2026-02-06T02:00:00Z").await;
    assert!(looked.unlocked && looked.status.is_unlocked);
    assert_eq!(
        (looked.released.len(), spender.state_of(&second).await),
        (2, SubscriptionState::Active)
    );
    spender.assert_books_are_right().await;
}

#[tokio::test]
async fn an_open_invoice_keeps_it_locked_and_staff_can_unlock() {
    let spender = Spender::with_budget(3_000, true).await;
    let first = spender.close("2026-02-01T00:10:00Z").await[0];
    let other = spender
        .world
        .subscribe(
            spender.customer,
            Deal {
                started_at: "2026-01-03T00:00:00Z",
                ..DEAL
            },
        )
        .await;
    spender.close("2026-02-03T00:10:00Z").await;
    assert_eq!(spender.check("2026-02-06T00:00:00Z").await.held.len(), 2);
    spender
        .pays(Purpose::Invoice(first), "by hand", "2026-02-06T02:00:00Z")
        .await;
    assert!(!spender.check("2026-02-06T02:00:00Z").await.unlocked);
    let now_ms = ms("2026-02-06T03:00:00Z");
    for is_first in [true, false] {
        let mut transaction = spender.world.database.begin_write().await.unwrap();
        let unlocked = unlock(&mut transaction, spender.customer, "called", now_ms)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(unlocked.is_some(), is_first);
        if let Some((budget, note)) = unlocked {
            assert_eq!(budget.unlocked_until_ms, Some(ms("2026-03-01T00:00:00Z")));
            assert_eq!(note.change["reason"], "called");
        }
    }
    assert_eq!(spender.state_of(&other).await, SubscriptionState::Active);
    assert_eq!(spender.check("2026-02-07T00:00:00Z").await.held.len(), 0);
    assert_eq!(spender.events("budget.unlocked").await.len(), 1);
}

#[tokio::test]
async fn a_hold_for_something_else_stays() {
    let spender = Spender::with_budget(5_000, true).await;
    let id = spender.contract.subscription.id;
    let mut transaction = spender.world.database.begin_write().await.unwrap();
    change::hold(
        &mut transaction,
        id,
        HoldCause::Abuse,
        "spam",
        "ops",
        ms("2026-01-04T00:00:00Z"),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    spender.transfers("2026-01-05T00:00:00Z", 2000);
    assert_eq!(spender.check("2026-01-06T00:00:00Z").await.held, [id]);
    assert_eq!(spender.check("2026-02-01T00:00:00Z").await.released, [id]);
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    assert_eq!(spender.events("service.suspend_requested").await.len(), 1);
    assert!(spender.events("service.unsuspend_requested").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn looks_at_once_say_everything_once_also_while_invoices_are_written() {
    let spender = Spender::with_budget(5_000, true).await;
    spender.transfers("2026-01-20T00:00:00Z", 2000);
    let now_ms = ms("2026-02-01T00:15:00Z") - DAY_MS;
    let (database, usage) = (&spender.world.database, &spender.world.usage);
    let looks = (0..6).map(|_| check(database, usage, spender.customer, now_ms));
    for looked in futures::future::join_all(looks).await {
        assert_eq!(looked.unwrap().unwrap().status.spent.minor, 7000);
    }
    assert_eq!(spender.events("budget.exceeded").await.len(), 1);
    assert_eq!(spender.events("budget.threshold_reached").await.len(), 3);
    assert_eq!(spender.events("service.suspend_requested").await.len(), 1);

    // January is invoiced while February is looked at: it never counts, and nothing counts twice.
    let now_ms = ms("2026-02-01T00:15:00Z");
    let looks = (0..6).map(|_| check(database, usage, spender.customer, now_ms));
    let (closing, looks) = tokio::join!(
        invoice::close(database, usage, spender.customer, now_ms),
        futures::future::join_all(looks)
    );
    assert_eq!(closing.unwrap().invoices.len(), 1);
    for looked in looks {
        assert_eq!(looked.unwrap().unwrap().status.spent.minor, 2000);
    }
    spender.assert_books_are_right().await;
}

#[tokio::test]
async fn all_budgets_are_looked_at_with_one_scan_as_one_by_one() {
    let spender = Spender::with_budget(5_000, true).await;
    spender.transfers("2026-01-05T00:00:00Z", 2000);
    // One without a budget in between, and one with a budget and nothing to spend it on.
    spender.world.customer("USD", "UTC", "0").await;
    let idle = spender.world.customer("EUR", "UTC", "0").await;
    let new = NewBudget {
        amount: Money::new(100, Currency::EUR),
        thresholds: Thresholds::new(&[10]).unwrap(),
        suspends: true,
        reset_day: Some(AnchorDay::new(31).unwrap()),
    };
    let mut transaction = spender.world.database.begin_write().await.unwrap();
    let _ = set(&mut transaction, idle, &new, 0).await.unwrap();
    transaction.commit().await.unwrap();
    let (database, usage, now_ms) = (
        &spender.world.database,
        &spender.world.usage,
        ms("2026-01-06T00:00:00Z"),
    );
    let all = check_all(database, usage, now_ms).await.unwrap();
    assert_eq!((all.looked_at, all.held.len(), all.failed.len()), (2, 1, 0));
    let again = check_all(database, usage, now_ms).await.unwrap();
    assert_eq!((again.said, again.held.len(), again.released.len()), (0, 0, 0));
    let status = status(database, usage, spender.customer, now_ms)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((status.spent, status.is_exceeded()), (usd(7000), true));
}

#[tokio::test]
async fn budgets_are_closed_types() {
    for bad in [&[][..], &[0], &[201], &[50, 50], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]] {
        assert!(
            matches!(Thresholds::new(bad), Err(BudgetError::Thresholds(_))),
            "{bad:?}"
        );
    }
    assert_eq!(Thresholds::new(&[200, 1]).unwrap().percentages(), [1, 200]);
    let spender = Spender::with_budget(5_000, true).await;
    let mut connection = spender.world.database.pool().acquire().await.unwrap();
    for (amount, currency) in [(0, "USD"), (-1, "USD"), (MAX_AMOUNT_MINOR + 1, "USD"), (5000, "EUR")] {
        let new = NewBudget {
            amount: Money::new(amount, currency.parse().unwrap()),
            thresholds: Thresholds::default(),
            suspends: false,
            reset_day: None,
        };
        assert!(
            set(&mut connection, spender.customer, &new, 0).await.is_err(),
            "{amount} {currency}"
        );
    }
    let nobody = clear(&mut connection, CustomerId(77), 0).await;
    assert!(matches!(nobody, Err(BudgetError::NoBudget(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is used and whenever it is looked at and invoiced: services are held exactly while the budget is spent, and
    /// everything is said once per cycle.
    #[test]
    fn budgets_after_any_history(
        advance in any::<bool>(),
        looks in proptest::collection::vec((1i64..300, 0u64..700, 0u8..4), 5..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let base_timing = if advance { BaseTiming::Advance } else { BaseTiming::Arrears };
            let spender = Spender::new("America/New_York", Deal { base_timing, started_at: "2026-01-15T05:00:00Z", ..DEAL }).await;
            spender.set(6_000, true, "2026-01-15T05:00:00Z").await;
            let mut now_ms = ms("2026-01-15T05:00:00Z");
            for (hours, gib, what) in looks {
                now_ms += hours * HOUR_MS;
                let before = jiff::Timestamp::from_millisecond(now_ms - HOUR_MS).unwrap().to_string();
                spender.transfers(&before, gib);
                if what == 0 {
                    let now = jiff::Timestamp::from_millisecond(now_ms).unwrap().to_string();
                    spender.close(&now).await;
                }
                let looked = spender.check_at(now_ms).await;
                let is_spent = looked.status.spent.minor >= 6_000;
                assert_eq!(spender.state().await == SubscriptionState::Suspended, is_spent, "{looked:?}");
                let used: i64 = looked.status.spent.minor - 2000;
                assert!(used >= 0, "the base price and what was used: {looked:?}");
                assert!(looked.status.forecast.minor >= looked.status.spent.minor);
                spender.assert_books_are_right().await;
            }
            let said = sqlx::query("SELECT count(*) FROM budget_alerts WHERE basis = 'spent' AND threshold = 100")
                .fetch_one(spender.world.database.pool())
                .await
                .unwrap();
            assert_eq!(spender.events("budget.exceeded").await.len() as i64, said.get::<i64, _>(0));
        });
    }
}
