use schemas::ids::{CustomerId, SubscriptionId};
use schemas::usage::UsageMode;

use crate::catalog::{BaseTiming, QuotaUnit, Terms};
use crate::collection_terms;
use crate::subscription::change::{self, CancellationTime, Change};
use crate::subscription::state::HoldCause;
use crate::subscription::{SubscriptionState, subscription};
use crate::testing::{DEAL, Deal, World, ms};
use crate::{invoice, ledger};

/// 31.00 a month in advance: a day of January is 1.00.
const MONTHLY: Deal = Deal {
    terms: Terms::Flat,
    base_minor: 3100,
    usage_price: "0",
    base_timing: BaseTiming::Advance,
    ..DEAL
};

struct Suspended {
    world: World,
    customer: CustomerId,
    id: SubscriptionId,
}

impl Suspended {
    async fn new(deal: Deal, bill_suspended: bool) -> Suspended {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let terms = collection_terms::Terms {
            bill_suspended,
            ..collection_terms::Terms::default()
        };
        let mut transaction = world.database.begin_write().await.unwrap();
        let _ = collection_terms::set_terms(&mut transaction, &terms).await.unwrap();
        transaction.commit().await.unwrap();
        let id = world.subscribe(customer, deal).await.subscription.id;
        Suspended { world, customer, id }
    }

    async fn hold(&self, cause: HoldCause, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::hold(&mut transaction, self.id, cause, "late", "billing", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn release(&self, cause: HoldCause, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::release(&mut transaction, self.id, cause, "billing", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn cancel(&self, end: CancellationTime, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::cancel(&mut transaction, self.id, end, "moving", "ada", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn resume(&self, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::resume(&mut transaction, self.id, "ada", ms(at)).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// What the documents that are due at an instant come to.
    async fn closed(&self, at: &str) -> Vec<i64> {
        let closing = invoice::close(&self.world.database, &self.world.usage, self.customer, ms(at)).await;
        let mut totals = Vec::new();
        for written in closing.unwrap().read(&self.world.database).await.unwrap() {
            totals.push(written.invoice.total.minor);
        }
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        totals
    }

    async fn state(&self) -> SubscriptionState {
        subscription(self.world.database.pool(), self.id).await.unwrap().state
    }
}

#[tokio::test]
async fn whole_days_of_a_suspension_are_charged_or_not_as_the_terms_say() {
    // 19 of February's 28 days: 21.04.
    for (bill_suspended, expected) in [
        (true, [vec![3100], vec![], vec![3100], vec![], vec![3100]]),
        (false, [vec![3100], vec![-200], vec![], vec![2104], vec![3100]]),
    ] {
        let one = Suspended::new(MONTHLY, bill_suspended).await;
        let mut totals = vec![one.closed("2026-01-01T00:10:00Z").await];
        one.hold(HoldCause::Unpaid, "2026-01-29T12:00:00Z").await;
        totals.push(one.closed("2026-01-30T00:10:00Z").await);
        totals.push(one.closed("2026-02-01T00:10:00Z").await);
        one.release(HoldCause::Unpaid, "2026-02-10T08:00:00Z").await;
        totals.push(one.closed("2026-02-10T08:10:00Z").await);
        totals.push(one.closed("2026-03-01T00:10:00Z").await);
        assert_eq!(totals, expected, "bill_suspended = {bill_suspended}");
        assert_eq!(one.state().await, SubscriptionState::Active);
    }
}

#[tokio::test]
async fn arrears_leave_out_the_days_too() {
    let deal = Deal {
        base_timing: BaseTiming::Arrears,
        ..MONTHLY
    };
    let one = Suspended::new(deal, false).await;
    one.hold(HoldCause::Unpaid, "2026-01-10T12:00:00Z").await;
    one.release(HoldCause::Unpaid, "2026-01-21T12:00:00Z").await;
    // 1 to 10 and 21 to 31 January.
    let mut totals = Vec::new();
    for at in ["2026-01-22T00:10:00Z", "2026-02-01T00:10:00Z", "2026-03-01T00:10:00Z"] {
        totals.extend(one.closed(at).await);
    }
    assert_eq!(totals.iter().sum::<i64>(), 1000 + 1100 + 3100, "{totals:?}");
}

#[tokio::test]
async fn less_than_a_whole_day_changes_nothing() {
    for lifted in ["2026-01-29T18:00:00Z", "2026-01-30T08:00:00Z"] {
        let one = Suspended::new(MONTHLY, false).await;
        assert_eq!(one.closed("2026-01-01T00:10:00Z").await, [3100]);
        one.hold(HoldCause::Unpaid, "2026-01-29T12:00:00Z").await;
        one.release(HoldCause::Unpaid, lifted).await;
        assert!(one.closed("2026-01-31T00:10:00Z").await.is_empty(), "{lifted}");
        assert_eq!(one.closed("2026-02-01T00:10:00Z").await, [3100], "{lifted}");
    }
}

#[tokio::test]
async fn only_a_suspension_for_an_unpaid_invoice_is_not_charged() {
    let one = Suspended::new(MONTHLY, false).await;
    assert_eq!(one.closed("2026-01-01T00:10:00Z").await, [3100]);
    one.hold(HoldCause::Budget, "2026-01-10T12:00:00Z").await;
    assert!(one.closed("2026-01-20T00:10:00Z").await.is_empty());
    // Both: not charged while it is unpaid, charged again while the budget holds it.
    one.hold(HoldCause::Unpaid, "2026-01-20T12:00:00Z").await;
    assert_eq!(one.closed("2026-01-21T00:10:00Z").await, [-1100]);
    one.release(HoldCause::Unpaid, "2026-01-25T12:00:00Z").await;
    assert_eq!(one.state().await, SubscriptionState::Suspended);
    assert_eq!(one.closed("2026-01-25T12:10:00Z").await, [700]);
    assert_eq!(one.closed("2026-02-01T00:10:00Z").await, [3100]);
}

#[tokio::test]
async fn cancelled_while_it_is_not_charged() {
    // With the cycle: none is paid for, so today.
    for end in [CancellationTime::Now, CancellationTime::CycleEnd] {
        let one = Suspended::new(MONTHLY, false).await;
        assert_eq!(one.closed("2026-01-01T00:10:00Z").await, [3100]);
        one.hold(HoldCause::Unpaid, "2026-01-29T12:00:00Z").await;
        one.cancel(end, "2026-02-05T12:00:00Z").await;
        assert_eq!(one.state().await, SubscriptionState::Ended, "{end:?}");
        assert_eq!(one.closed("2026-02-06T00:10:00Z").await, [-200], "{end:?}");
        assert!(one.closed("2026-04-01T00:10:00Z").await.is_empty(), "{end:?}");
    }
}

#[tokio::test]
async fn a_later_end_holds_when_it_goes_on() {
    let one = Suspended::new(MONTHLY, false).await;
    assert_eq!(one.closed("2026-01-01T00:10:00Z").await, [3100]);
    one.hold(HoldCause::Unpaid, "2026-01-29T12:00:00Z").await;
    assert_eq!(one.closed("2026-01-30T00:10:00Z").await, [-200]);
    one.cancel(
        CancellationTime::On("2026-02-25".parse().unwrap()),
        "2026-02-05T12:00:00Z",
    )
    .await;
    one.release(HoldCause::Unpaid, "2026-02-11T12:00:00Z").await;
    assert_eq!(one.state().await, SubscriptionState::Cancelled);
    // 11 to 24 February: 14 of 28 days.
    assert_eq!(one.closed("2026-02-11T12:10:00Z").await, [1550]);
    assert!(one.closed("2026-04-01T00:10:00Z").await.is_empty());
}

#[tokio::test]
async fn a_cancellation_that_is_taken_back_while_it_is_not_charged() {
    let one = Suspended::new(MONTHLY, false).await;
    assert_eq!(one.closed("2026-01-01T00:10:00Z").await, [3100]);
    one.hold(HoldCause::Unpaid, "2026-01-29T12:00:00Z").await;
    one.cancel(
        CancellationTime::On("2026-06-01".parse().unwrap()),
        "2026-02-05T12:00:00Z",
    )
    .await;
    one.resume("2026-02-06T12:00:00Z").await;
    assert_eq!(one.closed("2026-02-20T00:10:00Z").await, [-200]);
    one.release(HoldCause::Unpaid, "2026-03-01T12:00:00Z").await;
    assert_eq!(one.closed("2026-03-01T12:10:00Z").await, [3100]);
    assert_eq!(one.state().await, SubscriptionState::Active);
}

#[tokio::test]
async fn terms_are_changed_once_it_goes_on() {
    let one = Suspended::new(MONTHLY, false).await;
    assert_eq!(one.closed("2026-01-01T00:10:00Z").await, [3100]);
    let deal = Deal {
        base_minor: 6200,
        ..MONTHLY
    };
    let (_, price) = one.world.plan_and_price("USD", deal).await;
    let to = Change {
        price: price.id,
        quantity: 1,
    };
    one.hold(HoldCause::Unpaid, "2026-01-29T12:00:00Z").await;
    let mut transaction = one.world.database.begin_write().await.unwrap();
    let at_ms = ms("2026-02-05T12:00:00Z");
    let refused = change::change(&mut transaction, one.id, to, at_ms, "ada", at_ms).await;
    assert!(refused.unwrap_err().to_string().contains("suspended"));
    drop(transaction);
    one.release(HoldCause::Unpaid, "2026-02-15T08:00:00Z").await;
    let mut transaction = one.world.database.begin_write().await.unwrap();
    let at_ms = ms("2026-02-15T09:00:00Z");
    change::change(&mut transaction, one.id, to, at_ms, "ada", at_ms)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    // 2.00 back; the other half of February at the new price.
    let mut totals = one.closed("2026-02-15T09:10:00Z").await;
    totals.extend(one.closed("2026-03-01T00:10:00Z").await);
    assert_eq!(totals.iter().sum::<i64>(), -200 + 3100 + 6200, "{totals:?}");
}

/// The terms go by days, usage by the time of day: the days of the suspension and of its end are charged as a whole.
#[tokio::test]
async fn usage_is_left_out_on_the_days_that_are() {
    for (bill_suspended, expected) in [(true, 3100), (false, 2700)] {
        let deal = Deal {
            base_minor: 0,
            terms: Terms::Transfer {
                included_units: 0,
                unit: QuotaUnit::Gb,
                mode: UsageMode::Sum,
            },
            usage_price: "1",
            ..MONTHLY
        };
        let one = Suspended::new(deal, bill_suspended).await;
        let service = subscription(one.world.database.pool(), one.id).await.unwrap().service;
        for (at, gb) in [
            ("2026-01-10T09:00:00Z", 1),
            ("2026-01-10T18:00:00Z", 2),
            ("2026-01-15T12:00:00Z", 4),
            ("2026-01-20T03:00:00Z", 8),
            ("2026-01-20T20:00:00Z", 16),
        ] {
            one.world.usage.add(service, at, gb * 1_000_000_000, 0);
        }
        one.hold(HoldCause::Unpaid, "2026-01-10T12:00:00Z").await;
        let mut totals = one.closed("2026-01-11T01:00:00Z").await;
        one.release(HoldCause::Unpaid, "2026-01-20T08:00:00Z").await;
        totals.extend(one.closed("2026-02-01T01:00:00Z").await);
        assert_eq!(totals.iter().sum::<i64>(), expected, "{bill_suspended}: {totals:?}");
    }
}
