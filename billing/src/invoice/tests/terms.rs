//! Coupons, prices, add-ons, trials and the free tier: what holds for how long, and for whom.

use schemas::ids::{PlanId, SubscriptionId};
use schemas::percent::Percent;

use super::proration::{Shop, credit_note, invoice};
use super::*;
use crate::catalog::{self, Discount, NewCoupon, NewPlan, NewPrice, PlanKind, Price};
use crate::lifecycle;
use crate::subscription::change::{self, CancellationTime, Change};
use crate::subscription::reprice::reprice;
use crate::subscription::schedule::{self, ChangeStatus, ScheduledAction};
use crate::subscription::state::HoldCause;
use crate::subscription::{NewSubscription, SubscriptionState, contract, subscription};

impl Shop {
    /// Another price of a plan.
    pub(super) async fn priced(&self, plan: PlanId, cycle_months: i64, base_minor: i64, from: &str) -> Price {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let new = NewPrice {
            plan,
            cycle_months,
            base: Money::new(base_minor, self.currency.parse().unwrap()),
            usage: "0".parse().unwrap(),
            valid_from_ms: ms(from),
        };
        let price = catalog::add_price(&mut transaction, new).await.unwrap();
        transaction.commit().await.unwrap();
        price
    }

    pub(super) async fn coupon(&self, new: NewCoupon<'_>) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        catalog::create_coupon(&mut transaction, new, 0).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// A subscription of a service of its own that redeems a coupon.
    async fn redeem(&self, price: &Price, code: &str, at: &str) -> Result<SubscriptionId, BillingError> {
        let service = self.world.service(self.customer, "web-1").await;
        let new = NewSubscription {
            coupon: Some(code),
            ..NewSubscription::new(service.id, price.id, ms(at))
        };
        self.begin_with(new).await
    }

    /// A subscription to a flat plan, and one to an add-on beside it.
    async fn with_addon(&self, at: &str) -> (SubscriptionId, SubscriptionId) {
        let plan = self.price("small", 1, 3000).await;
        let id = self.begin(plan.id, at).await;
        let addon = NewPlan {
            kind: PlanKind::Addon,
            ..NewPlan::new("backup", "vps", Terms::Flat)
        };
        let addon = self.price_of(addon, 1, 500).await.1;
        let beside = self.beside(id, &addon, at).await.unwrap();
        (id, beside)
    }

    async fn beside(&self, id: SubscriptionId, addon: &Price, at: &str) -> Result<SubscriptionId, BillingError> {
        let service = subscription(self.world.database.pool(), id).await.unwrap().service;
        let new = NewSubscription {
            parent: Some(id),
            ..NewSubscription::new(service, addon.id, ms(at))
        };
        self.begin_with(new).await
    }

    async fn resume(&self, id: SubscriptionId, at: &str) -> Result<(), BillingError> {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::resume(&mut transaction, id, "test", ms(at)).await?;
        transaction.commit().await.unwrap();
        Ok(())
    }

    async fn hold(&self, id: SubscriptionId, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::hold(&mut transaction, id, HoldCause::Admin, "a test", "test", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn release(&self, id: SubscriptionId, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::release(&mut transaction, id, HoldCause::Admin, "test", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn schedule(
        &self,
        id: SubscriptionId,
        planned: ScheduledAction,
        at: &str,
        now: &str,
    ) -> Result<(), BillingError> {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        schedule::schedule(&mut transaction, id, planned, ms(at), "a test", "test", ms(now)).await?;
        transaction.commit().await.unwrap();
        Ok(())
    }

    async fn advance(&self, at: &str) {
        let done = lifecycle::advance(&self.world.database, ms(at)).await.unwrap();
        assert!(done.failed.is_empty(), "{:?}", done.failed);
    }

    async fn ends_at(&self, id: SubscriptionId) -> Option<i64> {
        subscription(self.world.database.pool(), id).await.unwrap().cancel_at_ms
    }
}

pub(super) fn percent(off: i64) -> Discount {
    Discount::Percent(Percent::new(Decimal::from(off)).unwrap())
}

#[tokio::test]
async fn a_coupon_of_a_plan_does_not_follow_to_another() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, small) = shop
        .price_of(NewPlan::new("promo", "vps", Terms::Flat), 1, 10_000)
        .await;
    let large = shop.price("premium", 1, 90_000).await;
    shop.coupon(NewCoupon {
        plan: Some(plan.id),
        ..NewCoupon::new("HALF", percent(50))
    })
    .await;
    let id = shop.redeem(&small, "HALF", "2026-01-01T00:00:00Z").await.unwrap();
    let january = [invoice(&[(LineKind::Base, 10_000), (LineKind::Discount, -5000)])];
    assert_eq!(shop.close("2026-01-01T00:00:00Z").await, january);
    shop.change(id, large.id, 1, "2026-02-01T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-02-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 90_000)])]
    );
    // Back on its plan it holds again.
    shop.change(id, small.id, 1, "2026-03-01T00:00:00Z").await.unwrap();
    assert_eq!(shop.close("2026-03-01T00:00:00Z").await, january);
}

#[tokio::test]
async fn three_months_of_a_coupon_are_three_months_of_a_cycle_of_two_years() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, month) = shop
        .price_of(NewPlan::new("small", "vps", Terms::Flat), 1, 10_000)
        .await;
    let years = shop.priced(plan.id, 24, 192_000, "1970-01-01T00:00:00Z").await;
    shop.coupon(NewCoupon {
        months: Some(3),
        ..NewCoupon::new("WELCOME", percent(50))
    })
    .await;
    let id = shop.redeem(&month, "WELCOME", "2026-01-01T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-01-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 10_000), (LineKind::Discount, -5000)])]
    );
    // Changed on the same day: what is had in the end is three times 50.00.
    shop.change(id, years.id, 1, "2026-01-01T10:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-01-01T10:00:00Z").await,
        [invoice(&[
            (LineKind::Unused, -10_000),
            (LineKind::Discount, 5000),
            (LineKind::Base, 192_000),
            (LineKind::Discount, -15_000)
        ])]
    );
    // Ended after a month: 699 of 730 days; of the three months that the coupon covered two are not used: 2/3 × 150.00.
    shop.cancel(id, CancellationTime::Now, "2026-02-01T00:00:00Z")
        .await
        .unwrap();
    assert_eq!(
        shop.close("2026-02-01T00:00:00Z").await,
        [credit_note(&[
            (LineKind::Unused, -183_847),
            (LineKind::Discount, 10_000)
        ])]
    );
}

#[tokio::test]
async fn coupons_count_time_whatever_the_cycle() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, month) = shop
        .price_of(NewPlan::new("small", "vps", Terms::Flat), 1, 10_000)
        .await;
    let year = shop.priced(plan.id, 12, 102_000, "1970-01-01T00:00:00Z").await;
    shop.coupon(NewCoupon {
        months: Some(3),
        per_customer: None,
        ..NewCoupon::new("THREE", percent(50))
    })
    .await;
    // After a month and a half: of the second month 13 of 28 days are given back. The year begins on 16 February, and so do its
    // months: until 1 April the coupon covers the one up to 16 March and 16 of the 31 days of the next,
    // (1 + 16/31) × 100.00 × 50 % = 75.81.
    let id = shop.redeem(&month, "THREE", "2026-01-01T00:00:00Z").await.unwrap();
    shop.close("2026-02-01T00:00:00Z").await;
    shop.change(id, year.id, 1, "2026-02-16T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-02-16T00:00:00Z").await,
        [invoice(&[
            (LineKind::Unused, -4643),
            (LineKind::Discount, 2321),
            (LineKind::Base, 102_000),
            (LineKind::Discount, -7581)
        ])]
    );
    shop.cancel(id, CancellationTime::Now, "2026-02-16T00:00:00Z")
        .await
        .unwrap();
    shop.close("2026-02-16T00:00:00Z").await;

    // Ordered by the year it is worth the same: three months at the price of a month.
    shop.redeem(&year, "THREE", "2026-03-01T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-03-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 102_000), (LineKind::Discount, -15_000)])]
    );

    // A plan without a price for a month: a quarter of the year's price.
    let only_year = shop.price("only by the year", 12, 12_000).await;
    shop.redeem(&only_year, "THREE", "2026-04-01T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-04-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 12_000), (LineKind::Discount, -1500)])]
    );
}

#[tokio::test]
async fn a_coupon_that_ends_within_a_month_takes_its_days() {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("small", 1, 3000).await;
    shop.coupon(NewCoupon {
        months: Some(3),
        ..NewCoupon::new("THREE", percent(50))
    })
    .await;
    let service = shop.world.service(shop.customer, "web-1").await;
    let new = NewSubscription {
        coupon: Some("three"),
        anchor_day: Some(1),
        ..NewSubscription::new(service.id, price.id, ms("2026-01-20T00:00:00Z"))
    };
    shop.begin_with(new).await.unwrap();
    let mut discounts = Vec::new();
    for at in ["2026-01-20", "2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01"] {
        let [(_, lines)] = &shop.close(&format!("{at}T00:00:00Z")).await[..] else {
            panic!("one invoice on {at}")
        };
        discounts.push(lines.get(1).map_or(0, |(_, minor)| *minor));
    }
    // 12 of 31 days; two months; 19 of 30 days: until 20 April.
    assert_eq!(discounts, [-581, -1500, -1500, -950, 0]);
}

#[tokio::test]
async fn an_amount_off_a_year_is_a_twelfth_off_a_month() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, month) = shop
        .price_of(NewPlan::new("small", "vps", Terms::Flat), 1, 10_000)
        .await;
    let year = shop.priced(plan.id, 12, 102_000, "1970-01-01T00:00:00Z").await;
    let off = Discount::Amount(Money::new(12_000, "USD".parse().unwrap()));
    shop.coupon(NewCoupon::new("TWELVE", off)).await;
    let id = shop.redeem(&year, "TWELVE", "2026-01-01T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-01-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 102_000), (LineKind::Discount, -12_000)])]
    );
    shop.change(id, month.id, 1, "2027-01-01T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2027-01-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 10_000), (LineKind::Discount, -1000)])]
    );
}

#[tokio::test]
async fn a_customer_redeems_a_coupon_and_has_a_trial_once() {
    let shop = Shop::new("USD", "UTC").await;
    let plan = NewPlan {
        trial_days: 10,
        ..NewPlan::new("small", "vps", Terms::Flat)
    };
    let price = shop.price_of(plan, 1, 3100).await.1;
    shop.coupon(NewCoupon::new("ONCE", percent(10))).await;
    shop.coupon(NewCoupon {
        per_customer: Some(2),
        ..NewCoupon::new("TWICE", percent(10))
    })
    .await;
    let first = shop.redeem(&price, "ONCE", "2026-01-01T00:00:00Z").await.unwrap();
    assert_eq!(shop.state(first).await, SubscriptionState::Trial);
    shop.cancel(first, CancellationTime::Now, "2026-01-01T00:00:00Z")
        .await
        .unwrap();
    let refused = shop.redeem(&price, "once", "2026-01-02T00:00:00Z").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the coupon ONCE cannot be redeemed: this customer has redeemed it as often as one customer can"
    );
    // The second subscription to the plan is charged from its first day on.
    let second = shop.redeem(&price, "TWICE", "2026-01-02T00:00:00Z").await.unwrap();
    assert_eq!(shop.state(second).await, SubscriptionState::Active);
    assert_eq!(
        shop.close("2026-01-02T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 3100), (LineKind::Discount, -310)])]
    );
    shop.redeem(&price, "TWICE", "2026-01-02T00:00:00Z").await.unwrap();
    assert!(shop.redeem(&price, "TWICE", "2026-01-02T00:00:00Z").await.is_err());

    let each_time = NewPlan {
        trial_days: 10,
        trial_repeats: true,
        ..NewPlan::new("tried again", "vps", Terms::Flat)
    };
    let price = shop.price_of(each_time, 1, 3100).await.1;
    for _ in 0..2 {
        let id = shop.begin(price.id, "2026-01-03T00:00:00Z").await;
        assert_eq!(shop.state(id).await, SubscriptionState::Trial);
    }
}

#[tokio::test]
async fn a_coupon_that_is_over_as_it_is_made_is_refused() {
    let shop = Shop::new("USD", "UTC").await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let over = NewCoupon {
        expires_at_ms: Some(ms("2026-01-01T00:00:00Z")),
        ..NewCoupon::new("OVER", percent(10))
    };
    let refused = catalog::create_coupon(&mut transaction, over, ms("2026-01-02T00:00:00Z")).await;
    assert!(matches!(refused, Err(BillingError::NotAhead { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_price_is_not_taken_before_it_is_valid() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, price) = shop.price_of(NewPlan::new("small", "vps", Terms::Flat), 1, 3000).await;
    let later = shop.priced(plan.id, 1, 9900, "2027-01-01T00:00:00Z").await;
    let id = shop.begin(price.id, "2026-01-01T00:00:00Z").await;
    shop.close("2026-01-01T00:00:00Z").await;
    let refused = shop.change(id, later.id, 1, "2026-01-10T00:00:00Z").await;
    assert!(matches!(refused, Err(BillingError::PriceNotYet { .. })), "{refused:?}");
    let to_later = ScheduledAction::Change(Change {
        price: later.id,
        quantity: 1,
    });
    let too_early = shop
        .schedule(id, to_later, "2026-12-31T23:59:59Z", "2026-01-10T00:00:00Z")
        .await;
    assert!(
        matches!(too_early, Err(BillingError::PriceNotYet { .. })),
        "{too_early:?}"
    );
    shop.schedule(id, to_later, "2027-01-01T00:00:00Z", "2026-01-10T00:00:00Z")
        .await
        .unwrap();
    let past = shop
        .schedule(
            id,
            ScheduledAction::Cancel,
            "2026-01-10T00:00:00Z",
            "2026-01-10T00:00:00Z",
        )
        .await;
    assert!(matches!(past, Err(BillingError::NotAhead { .. })), "{past:?}");
}

#[tokio::test]
async fn a_pending_price_rise_holds_after_a_cancellation_is_taken_back() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, price) = shop.price_of(NewPlan::new("small", "vps", Terms::Flat), 1, 3000).await;
    let cancelled = shop.begin(price.id, "2026-01-01T00:00:00Z").await;
    let more = shop.begin(price.id, "2026-01-01T00:00:00Z").await;
    let leaving = shop.begin(price.id, "2026-01-01T00:00:00Z").await;
    shop.close("2026-02-01T00:00:00Z").await;
    let on = |date: &str| CancellationTime::On(date.parse().unwrap());
    shop.cancel(cancelled, on("2026-05-01"), "2026-02-10T00:00:00Z")
        .await
        .unwrap();
    shop.cancel(leaving, CancellationTime::CycleEnd, "2026-02-10T00:00:00Z")
        .await
        .unwrap();
    let higher = shop.priced(plan.id, 1, 3500, "2026-03-01T00:00:00Z").await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let done = reprice(&mut transaction, higher.id, "test", ms("2026-02-15T00:00:00Z"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((done.scheduled, done.left.len()), (3, 0));
    // The rise is for as many as there are when it comes.
    shop.change(more, price.id, 3, "2026-02-15T00:00:00Z").await.unwrap();
    shop.close("2026-02-15T00:00:00Z").await;
    shop.advance("2026-03-01T00:00:00Z").await;
    shop.resume(cancelled, "2026-03-10T00:00:00Z").await.unwrap();
    let charged = shop.close("2026-03-10T00:00:00Z").await;
    assert_eq!(charged, [invoice(&[(LineKind::Base, 3500), (LineKind::Base, 10_500)])]);
    assert_eq!(
        shop.close("2026-05-10T00:00:00Z").await.len(),
        2,
        "it goes on beyond May"
    );
    assert_eq!(shop.state(leaving).await, SubscriptionState::Ended);
    let changes = schedule::scheduled_of(shop.world.database.pool(), shop.customer)
        .await
        .unwrap();
    let of_leaving = changes.iter().find(|change| change.subscription == leaving).unwrap();
    assert_eq!(of_leaving.status, ChangeStatus::Cancelled);
    assert_eq!(of_leaving.reason, "the subscription ends before");
}

#[tokio::test]
async fn a_price_rise_waits_while_nothing_is_charged() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, price) = shop.price_of(NewPlan::new("small", "vps", Terms::Flat), 1, 3000).await;
    let id = shop.begin(price.id, "2026-01-01T00:00:00Z").await;
    shop.close("2026-02-01T00:00:00Z").await;
    let higher = shop.priced(plan.id, 1, 3500, "2026-03-01T00:00:00Z").await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    reprice(&mut transaction, higher.id, "test", ms("2026-02-15T00:00:00Z"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    // As while it is suspended and not charged: its phase has ended, and it is not cancelled.
    let pool = shop.world.database.pool();
    let set = async |sql: &'static str| {
        sqlx::query(sql).bind(id.0).execute(pool).await.unwrap();
    };
    set("UPDATE phases SET to_date = '2026-03-01' WHERE subscription_id = $1").await;
    shop.advance("2026-03-01T00:00:00Z").await;
    let status = async || schedule::scheduled_of(pool, shop.customer).await.unwrap()[0].status;
    assert_eq!(status().await, ChangeStatus::Pending);
    set("UPDATE phases SET to_date = NULL WHERE subscription_id = $1").await;
    shop.advance("2026-03-05T00:00:00Z").await;
    assert_eq!(status().await, ChangeStatus::Executed);
    assert_eq!(
        shop.close("2026-03-05T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 3500)])]
    );
}

#[tokio::test]
async fn add_ons_are_cancelled_and_resumed_with_their_plan() {
    let shop = Shop::new("USD", "UTC").await;
    let (id, addon) = shop.with_addon("2026-01-01T00:00:00Z").await;
    let both = [invoice(&[(LineKind::Base, 3000), (LineKind::Addon, 500)])];
    assert_eq!(shop.close("2026-01-01T00:00:00Z").await, both);
    shop.cancel(id, CancellationTime::CycleEnd, "2026-01-10T00:00:00Z")
        .await
        .unwrap();
    let alone = shop.resume(addon, "2026-01-10T00:00:00Z").await;
    assert!(matches!(alone, Err(BillingError::ParentCancelled { .. })), "{alone:?}");
    shop.resume(id, "2026-01-10T00:00:00Z").await.unwrap();
    assert_eq!(shop.close("2026-02-01T00:00:00Z").await, both);

    // One that was cancelled by itself keeps its own end.
    shop.cancel(addon, CancellationTime::CycleEnd, "2026-02-05T00:00:00Z")
        .await
        .unwrap();
    let own = shop.ends_at(addon).await;
    assert_eq!(own, Some(ms("2026-03-01T00:00:00Z")));
    shop.cancel(
        id,
        CancellationTime::On("2026-02-20".parse().unwrap()),
        "2026-02-10T00:00:00Z",
    )
    .await
    .unwrap();
    assert_eq!(shop.ends_at(addon).await, Some(ms("2026-02-20T00:00:00Z")));
    shop.resume(id, "2026-02-11T00:00:00Z").await.unwrap();
    assert_eq!((shop.ends_at(id).await, shop.ends_at(addon).await), (None, own));
    shop.resume(addon, "2026-02-11T00:00:00Z").await.unwrap();
    assert_eq!(shop.close("2026-03-01T00:00:00Z").await, both);

    // They end together, and nothing begins beside what is cancelled.
    let other = shop.price_of(
        NewPlan {
            kind: PlanKind::Addon,
            ..NewPlan::new("address", "vps", Terms::Flat)
        },
        1,
        100,
    );
    let other = other.await.1;
    shop.cancel(id, CancellationTime::CycleEnd, "2026-03-10T00:00:00Z")
        .await
        .unwrap();
    shop.hold(id, "2026-03-10T00:00:00Z").await;
    let beside = shop.beside(id, &other, "2026-03-11T00:00:00Z").await;
    assert!(matches!(beside, Err(BillingError::Refused { .. })), "{beside:?}");
    shop.advance("2026-04-02T00:00:00Z").await;
    assert_eq!(
        (shop.state(id).await, shop.state(addon).await),
        (SubscriptionState::Ended, SubscriptionState::Ended)
    );
    assert_eq!(shop.close("2026-05-01T00:00:00Z").await, []);
}

#[tokio::test]
async fn add_ons_are_held_and_released_with_their_plan() {
    let shop = Shop::new("USD", "UTC").await;
    let (id, addon) = shop.with_addon("2026-01-01T00:00:00Z").await;
    let states = async || (shop.state(id).await, shop.state(addon).await);
    shop.hold(id, "2026-01-02T00:00:00Z").await;
    assert_eq!(
        states().await,
        (SubscriptionState::Suspended, SubscriptionState::Suspended)
    );
    // A hold of its own stays when the plan's is lifted.
    shop.hold(addon, "2026-01-03T00:00:00Z").await;
    shop.release(id, "2026-01-04T00:00:00Z").await;
    assert_eq!(
        states().await,
        (SubscriptionState::Active, SubscriptionState::Suspended)
    );
    shop.release(addon, "2026-01-05T00:00:00Z").await;
    assert_eq!(states().await, (SubscriptionState::Active, SubscriptionState::Active));
    // What begins beside a plan that is held is held, and one that was cancelled meanwhile is cancelled when it is released.
    shop.hold(id, "2026-01-06T00:00:00Z").await;
    let price = contract(&mut shop.world.database.pool().acquire().await.unwrap(), addon)
        .await
        .unwrap()
        .last_phase()
        .price
        .clone();
    let late = shop.beside(id, &price, "2026-01-07T00:00:00Z").await.unwrap();
    assert_eq!(shop.state(late).await, SubscriptionState::Suspended);
    shop.cancel(late, CancellationTime::CycleEnd, "2026-01-08T00:00:00Z")
        .await
        .unwrap();
    shop.release(id, "2026-01-09T00:00:00Z").await;
    assert_eq!(states().await, (SubscriptionState::Active, SubscriptionState::Active));
    assert_eq!(shop.state(late).await, SubscriptionState::Cancelled);
}

#[tokio::test]
async fn a_subscription_does_not_end_on_a_day_that_is_over() {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("small", 1, 3100).await;
    let id = shop.begin(price.id, "2026-01-01T00:00:00Z").await;
    shop.close("2026-01-01T00:00:00Z").await;
    let on = |date: &str| CancellationTime::On(date.parse().unwrap());
    let refused = shop.cancel(id, on("2026-01-11"), "2026-01-21T12:00:00Z").await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the end of a subscription cannot be dated back: 2026-01-11 is before 2026-01-21, today there"
    );
    shop.cancel(id, on("2026-01-21"), "2026-01-21T12:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2026-01-21T12:00:00Z").await,
        [credit_note(&[(LineKind::Unused, -1100)])]
    );
    // Within a trial it ends on the day that was said, not with the trial.
    let trial = NewPlan {
        trial_days: 20,
        ..NewPlan::new("tried", "vps", Terms::Flat)
    };
    let tried = shop.price_of(trial, 1, 3100).await.1;
    let id = shop.begin(tried.id, "2026-03-01T00:00:00Z").await;
    shop.cancel(id, on("2026-03-05"), "2026-03-02T00:00:00Z").await.unwrap();
    assert_eq!(shop.ends_at(id).await, Some(ms("2026-03-05T00:00:00Z")));
    shop.advance("2026-03-05T00:00:00Z").await;
    assert_eq!(shop.state(id).await, SubscriptionState::Ended);
    assert_eq!(shop.close("2026-04-01T00:00:00Z").await, []);
}

#[tokio::test]
async fn a_cancellation_set_for_a_time_takes_effect_then_however_late_the_program_gets_to_it() {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("small", 1, 3100).await;
    let id = shop.begin(price.id, "2026-01-01T00:00:00Z").await;
    shop.close("2026-01-01T00:00:00Z").await;
    shop.schedule(
        id,
        ScheduledAction::Cancel,
        "2026-01-11T08:00:00Z",
        "2026-01-02T00:00:00Z",
    )
    .await
    .unwrap();
    // The program was off for ten days.
    shop.advance("2026-01-21T00:00:00Z").await;
    assert_eq!(shop.state(id).await, SubscriptionState::Ended);
    assert_eq!(
        shop.close("2026-01-21T00:00:00Z").await,
        [credit_note(&[(LineKind::Unused, -2100)])]
    );
}

#[tokio::test]
async fn the_free_tier_is_one_unit_with_nothing_beside_it() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, free) = shop.price_of(NewPlan::free_tier(), 1, 0).await;
    assert_eq!(plan.label(), "Development");
    let addon = NewPlan {
        kind: PlanKind::Addon,
        ..NewPlan::new("backup", "vps", Terms::Flat)
    };
    let addon = shop.price_of(addon, 1, 500).await.1;
    let pool = shop.world.database.pool();
    for sql in [
        "UPDATE customers SET email_verified_at_ms = 1",
        "INSERT INTO users (id, email, name, role, customer_id, password_hash, created_at_ms, two_factor_at_ms) \
         VALUES (1, 'a@example.net', 'A', 'customer', 1, '', 0, 1)",
    ] {
        sqlx::query(sql).execute(pool).await.unwrap();
    }
    let at = "2026-01-01T00:00:00Z";
    let service = shop.world.service(shop.customer, "dev").await;
    let new = NewSubscription::new(service.id, free.id, ms(at));
    let is_one = |refused: Result<SubscriptionId, BillingError>| {
        assert!(
            matches!(refused, Err(BillingError::FreePlanIsOne { .. })),
            "{refused:?}"
        );
    };
    is_one(shop.begin_with(NewSubscription { quantity: 2, ..new }).await);
    let id = shop.begin_with(new).await.unwrap();
    is_one(shop.beside(id, &addon, at).await);
    is_one(shop.change(id, free.id, 2, at).await.map(|()| id));
    let two = Change {
        price: free.id,
        quantity: 2,
    };
    let beside = Change {
        price: addon.id,
        quantity: 1,
    };
    for planned in [ScheduledAction::Change(two), ScheduledAction::Addon(beside)] {
        is_one(
            shop.schedule(id, planned, "2026-02-01T00:00:00Z", at)
                .await
                .map(|()| id),
        );
    }
    let other = shop.world.service(shop.customer, "dev-2").await;
    let second = shop.begin_with(NewSubscription::new(other.id, free.id, ms(at))).await;
    assert!(
        matches!(second, Err(BillingError::FreePlanRefused { .. })),
        "{second:?}"
    );
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let free_addon = NewPlan {
        kind: PlanKind::Addon,
        ..NewPlan::free_tier()
    };
    let refused = catalog::create_plan(&mut transaction, free_addon, 0).await;
    assert!(matches!(refused, Err(BillingError::FreeAddon)), "{refused:?}");
}
