//! Coupons that end within a period, whatever changes within that period: what a change gives back of the discount and what
//! it takes off anew are counted in the same months, those of the period that is charged.
//!
//! Each plan comes twice at the same price: a change from one to the other costs nothing, whatever the day.

use schemas::ids::{PriceId, SubscriptionId};

use super::proration::{Shop, invoice};
use super::terms::percent;
use super::*;
use crate::catalog::{BaseTiming, Discount, NewCoupon, NewPlan};
use crate::subscription::NewSubscription;

impl Shop {
    /// A subscription with a coupon for some months.
    async fn begin_covered(
        &self,
        price: PriceId,
        anchor_day: Option<i64>,
        (discount, months): (Discount, i64),
        at: &str,
    ) -> SubscriptionId {
        self.coupon(NewCoupon {
            months: Some(months),
            ..NewCoupon::new("FREE", discount)
        })
        .await;
        let service = self.world.service(self.customer, "web-1").await;
        let new = NewSubscription {
            coupon: Some("FREE"),
            anchor_day,
            ..NewSubscription::new(service.id, price, ms(at))
        };
        self.begin_with(new).await.unwrap()
    }
}

/// Two monthly plans of 280.00; since 10 January 2026 one subscription to the first, with periods from the 15th.
async fn on_the_15th(discount: Discount, months: i64) -> (Shop, SubscriptionId, PriceId) {
    let shop = Shop::new("USD", "UTC").await;
    let (first, second) = (shop.price("P", 1, 28_000).await, shop.price("Q", 1, 28_000).await);
    let id = shop
        .begin_covered(first.id, Some(15), (discount, months), "2026-01-10T00:00:00Z")
        .await;
    for at in ["2026-01-10T00:00:00Z", "2026-01-15T00:20:00Z"] {
        shop.close(at).await;
    }
    (shop, id, second.id)
}

#[tokio::test]
async fn a_change_in_the_period_in_which_a_coupon_ends_costs_nothing_at_the_same_price() {
    let (shop, id, other) = on_the_15th(percent(100), 2).await;
    shop.close("2026-02-15T00:20:00Z").await;
    shop.change(id, other, 1, "2026-03-03T12:00:00Z").await.unwrap();
    // 15 February – 15 March are 28 days. 12 are left, 7 of them until 10 March are free: 7/28 × 280.00 both ways.
    assert_eq!(
        shop.close("2026-03-03T12:00:00Z").await,
        [invoice(&[
            (LineKind::Unused, -12_000),
            (LineKind::Discount, 7000),
            (LineKind::Base, 12_000),
            (LineKind::Discount, -7000)
        ])]
    );
}

#[tokio::test]
async fn a_change_after_a_long_month_began_takes_the_coupon_s_days_out_of_that_month() {
    let (shop, id, other) = on_the_15th(percent(100), 1).await;
    shop.change(id, other, 1, "2026-02-03T12:00:00Z").await.unwrap();
    // 15 January – 15 February are 31 days. 12 are left, 7 of them until 10 February are free: 7/31 × 280.00 both ways.
    assert_eq!(
        shop.close("2026-02-03T12:00:00Z").await,
        [invoice(&[
            (LineKind::Unused, -10_839),
            (LineKind::Discount, 6323),
            (LineKind::Base, 10_839),
            (LineKind::Discount, -6323)
        ])]
    );
}

#[tokio::test]
async fn an_amount_off_a_month_is_given_back_and_taken_off_by_the_same_days() {
    let amount = Discount::Amount(Money::new(14_000, "USD".parse().unwrap()));
    let (shop, id, other) = on_the_15th(amount, 1).await;
    shop.change(id, other, 1, "2026-02-03T12:00:00Z").await.unwrap();
    // 7/31 × 140.00 both ways.
    assert_eq!(
        shop.close("2026-02-03T12:00:00Z").await,
        [invoice(&[
            (LineKind::Unused, -10_839),
            (LineKind::Discount, 3161),
            (LineKind::Base, 10_839),
            (LineKind::Discount, -3161)
        ])]
    );
}

#[tokio::test]
async fn a_second_unit_pays_the_days_after_the_coupon_only() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, month) = shop.price_of(NewPlan::new("P", "vps", Terms::Flat), 1, 28_000).await;
    let quarter = shop.priced(plan.id, 3, 84_000, "1970-01-01T00:00:00Z").await;
    let id = shop
        .begin_covered(quarter.id, None, (percent(100), 2), "2026-01-10T00:00:00Z")
        .await;
    shop.close("2026-01-10T00:00:00Z").await;
    // To another length of cycle: periods begin on the 15th now.
    shop.change(id, month.id, 1, "2026-01-15T12:00:00Z").await.unwrap();
    shop.close("2026-01-15T12:00:00Z").await;
    shop.close("2026-02-15T00:20:00Z").await;
    shop.change(id, month.id, 2, "2026-03-03T12:00:00Z").await.unwrap();
    // The coupon ends on 10 March: 5 of 28 days are paid for, 50.00 more for one unit more.
    assert_eq!(
        shop.close("2026-03-03T12:00:00Z").await,
        [invoice(&[
            (LineKind::Unused, -12_000),
            (LineKind::Discount, 7000),
            (LineKind::Base, 24_000),
            (LineKind::Discount, -14_000)
        ])]
    );
}

#[tokio::test]
async fn of_a_year_what_is_given_back_and_taken_off_are_the_same_months() {
    let shop = Shop::new("USD", "UTC").await;
    let (plan, _month) = shop.price_of(NewPlan::new("P", "vps", Terms::Flat), 1, 10_000).await;
    let year = shop.priced(plan.id, 12, 102_000, "1970-01-01T00:00:00Z").await;
    let id = shop
        .begin_covered(year.id, None, (percent(50), 3), "2026-01-01T00:00:00Z")
        .await;
    assert_eq!(
        shop.close("2026-01-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 102_000), (LineKind::Discount, -15_000)])]
    );
    shop.change(id, year.id, 2, "2026-02-15T12:00:00Z").await.unwrap();
    // From 15 February to 1 April are 14/28 and 1 month: half of the three, 75.00 for each unit. 320 of 365 days are left.
    assert_eq!(
        shop.close("2026-02-15T12:00:00Z").await,
        [invoice(&[
            (LineKind::Unused, -89_425),
            (LineKind::Discount, 7500),
            (LineKind::Base, 178_849),
            (LineKind::Discount, -15_000)
        ])]
    );
}

#[tokio::test]
async fn a_change_of_a_longer_cycle_costs_nothing_at_the_same_price_whatever_the_day() {
    // A quarter from the 31st has months that begin on 31 January, 28 February and 31 March.
    for (cycle_months, base_minor, begins, changed) in [
        (12, 102_000, "2026-01-01", "2026-01-02"),
        (12, 102_000, "2026-01-01", "2026-02-10"),
        (12, 102_000, "2026-01-01", "2026-03-31"),
        (24, 192_000, "2026-03-20", "2026-05-19"),
        (3, 30_000, "2026-01-31", "2026-03-05"),
    ] {
        let shop = Shop::new("USD", "UTC").await;
        let mut prices = Vec::new();
        for name in ["P", "Q"] {
            let (plan, _month) = shop.price_of(NewPlan::new(name, "vps", Terms::Flat), 1, 10_000).await;
            let from = "1970-01-01T00:00:00Z";
            prices.push(shop.priced(plan.id, cycle_months, base_minor, from).await.id);
        }
        let discount = (percent(50), if cycle_months == 3 { 2 } else { 3 });
        let (begins, changed) = (format!("{begins}T00:00:00Z"), format!("{changed}T12:00:00Z"));
        let id = shop.begin_covered(prices[0], None, discount, &begins).await;
        shop.close(&begins).await;
        shop.change(id, prices[1], 1, &changed).await.unwrap();
        let [(_, lines)] = &shop.close(&changed).await[..] else {
            panic!("one document on {changed}")
        };
        assert_eq!(lines.len(), 4, "{changed}: {lines:?}");
        assert_eq!(
            lines.iter().map(|(_, minor)| minor).sum::<i64>(),
            0,
            "{changed}: {lines:?}"
        );
    }
}

#[tokio::test]
async fn in_arrears_a_change_does_not_move_the_days_of_a_coupon_either() {
    let shop = Shop::new("USD", "UTC").await;
    let in_arrears = |name| NewPlan {
        base_timing: BaseTiming::Arrears,
        ..NewPlan::new(name, "vps", Terms::Flat)
    };
    let first = shop.price_of(in_arrears("P"), 1, 28_000).await.1;
    let second = shop.price_of(in_arrears("Q"), 1, 28_000).await.1;
    let id = shop
        .begin_covered(first.id, Some(15), (percent(100), 1), "2026-01-10T00:00:00Z")
        .await;
    shop.close("2026-01-15T00:20:00Z").await;
    shop.change(id, second.id, 1, "2026-02-03T12:00:00Z").await.unwrap();
    // 19 of 31 days, all of them free.
    assert_eq!(
        shop.close("2026-02-03T12:00:00Z").await,
        [invoice(&[(LineKind::Base, 17_161), (LineKind::Discount, -17_161)])]
    );
    // 12 of 31 days, 7 of them free.
    assert_eq!(
        shop.close("2026-02-15T00:20:00Z").await,
        [invoice(&[(LineKind::Base, 10_839), (LineKind::Discount, -6323)])]
    );
}

#[tokio::test]
async fn days_that_a_coupon_had_made_free_are_not_said_to_be_given_back_before() {
    let shop = Shop::new("USD", "UTC").await;
    let (first, second) = (shop.price("P", 1, 28_000).await, shop.price("Q", 1, 28_000).await);
    let begins = "2026-06-01T00:00:00Z";
    let id = shop.begin_covered(first.id, None, (percent(100), 12), begins).await;
    shop.close(begins).await;
    shop.change(id, second.id, 1, "2026-06-16T12:00:00Z").await.unwrap();
    let made = closed(&shop.world, shop.customer, "2026-06-16T12:00:00Z")
        .await
        .invoices
        .remove(0);
    assert_eq!(
        amounts(&made),
        [
            (LineKind::Unused, 0),
            (LineKind::Base, 14_000),
            (LineKind::Discount, -14_000)
        ]
    );
    assert_eq!(
        made.lines[0].description,
        "web-1: P, 15 of 30 days not used (charged on INV-2026-000001; free by the coupon FREE)"
    );
}
