//! Dated cases of changes in the middle of a cycle: what is charged, what is given back, to the minor unit.

use schemas::ids::{PriceId, SubscriptionId};

use super::*;
use crate::catalog::{self, BaseTiming, Discount, NewCoupon, NewPlan, NewPrice, Plan, Price};
use crate::payment::{Transfer, record_transfer};
use crate::settlement;
use crate::subscription::change::{self, CancellationTime, Change};
use crate::subscription::{NewSubscription, SubscriptionState, subscribe, subscription};

/// A world with one customer and flat plans charged in advance.
pub(super) struct Shop {
    pub(super) world: World,
    pub(super) customer: CustomerId,
    pub(super) currency: &'static str,
}

impl Shop {
    pub(super) async fn new(currency: &'static str, zone: &str) -> Shop {
        let world = World::new().await;
        let customer = world.customer(currency, zone, "0").await;
        Shop {
            world,
            customer,
            currency,
        }
    }

    pub(super) async fn price(&self, name: &str, cycle_months: i64, base_minor: i64) -> Price {
        self.price_of(NewPlan::new(name, "vps", Terms::Flat), cycle_months, base_minor)
            .await
            .1
    }

    pub(super) async fn price_of(&self, plan: NewPlan<'_>, cycle_months: i64, base_minor: i64) -> (Plan, Price) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let plan = catalog::create_plan(&mut transaction, plan, 0).await.unwrap();
        let new = NewPrice {
            plan: plan.id,
            cycle_months,
            base: Money::new(base_minor, self.currency.parse().unwrap()),
            usage: "0".parse().unwrap(),
            valid_from_ms: 0,
        };
        let price = catalog::add_price(&mut transaction, new).await.unwrap();
        transaction.commit().await.unwrap();
        (plan, price)
    }

    pub(super) async fn begin(&self, price: PriceId, at: &str) -> SubscriptionId {
        let service = self.world.service(self.customer, "web-1").await;
        self.begin_with(NewSubscription::new(service.id, price, ms(at)))
            .await
            .unwrap()
    }

    pub(super) async fn begin_with(&self, new: NewSubscription<'_>) -> Result<SubscriptionId, BillingError> {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let made = subscribe(&mut transaction, new, "test", new.started_at_ms).await?;
        transaction.commit().await.unwrap();
        Ok(made.id)
    }

    pub(super) async fn change(
        &self,
        id: SubscriptionId,
        price: PriceId,
        quantity: i64,
        at: &str,
    ) -> Result<(), BillingError> {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let change = Change { price, quantity };
        change::change(&mut transaction, id, change, ms(at), "test", ms(at)).await?;
        transaction.commit().await.unwrap();
        Ok(())
    }

    pub(super) async fn cancel(&self, id: SubscriptionId, end: CancellationTime, at: &str) -> Result<(), BillingError> {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::cancel(&mut transaction, id, end, "moved away", "test", ms(at)).await?;
        transaction.commit().await.unwrap();
        Ok(())
    }

    /// The documents that closing makes: kind and amounts of lines.
    pub(super) async fn close(&self, at: &str) -> Vec<(InvoiceKind, Vec<(LineKind, i64)>)> {
        let made = closed(&self.world, self.customer, at).await.invoices;
        assert_books_are_right(&self.world).await;
        made.iter().map(|made| (made.invoice.kind, amounts(made))).collect()
    }

    /// A bank transfer for the whole of an invoice.
    pub(super) async fn pay(&self, paid: &InvoiceWithLines) {
        let transfer = Transfer {
            customer: self.customer,
            invoice: Some(paid.invoice.id),
            amount: paid.invoice.total,
            reference: &paid.invoice.number,
            note: "",
            value_date: None,
        };
        let at_ms = paid.invoice.finalised_at_ms;
        record_transfer(&self.world.database, &transfer, at_ms).await.unwrap();
    }

    pub(super) async fn state(&self, id: SubscriptionId) -> SubscriptionState {
        subscription(self.world.database.pool(), id).await.unwrap().state
    }

    pub(super) async fn credit(&self) -> i64 {
        let pool = self.world.database.pool();
        let currency = self.currency.parse().unwrap();
        settlement::credit_balance(pool, self.customer, currency)
            .await
            .unwrap()
            .minor
    }
}

pub(super) fn invoice(lines: &[(LineKind, i64)]) -> (InvoiceKind, Vec<(LineKind, i64)>) {
    (InvoiceKind::Invoice, lines.to_vec())
}

pub(super) fn credit_note(lines: &[(LineKind, i64)]) -> (InvoiceKind, Vec<(LineKind, i64)>) {
    (InvoiceKind::CreditNote, lines.to_vec())
}

#[tokio::test]
async fn an_upgrade_gives_unused_days_back_and_charges_the_days_left() {
    let shop = Shop::new("USD", "UTC").await;
    let (small, large) = (
        shop.price("small", 1, 10_000).await,
        shop.price("large", 1, 20_000).await,
    );
    let id = shop.begin(small.id, "2025-01-01T09:00:00Z").await;
    assert_eq!(
        shop.close("2025-01-01T09:00:00Z").await,
        [invoice(&[(LineKind::Base, 10_000)])]
    );
    shop.change(id, large.id, 1, "2025-01-16T14:30:00Z").await.unwrap();
    assert_eq!(
        shop.close("2025-01-16T14:30:00Z").await,
        [invoice(&[(LineKind::Unused, -5161), (LineKind::Base, 10_323)])]
    );
    assert_eq!(
        shop.close("2025-02-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 20_000)])]
    );
    assert_eq!(shop.close("2025-02-28T23:59:59Z").await, []);
}

#[tokio::test]
async fn a_downgrade_leaves_credit_that_the_next_invoice_takes() {
    let shop = Shop::new("USD", "UTC").await;
    let (small, large) = (
        shop.price("small", 1, 10_000).await,
        shop.price("large", 1, 20_000).await,
    );
    let id = shop.begin(large.id, "2025-01-01T00:00:00Z").await;
    let first = closed(&shop.world, shop.customer, "2025-01-01T00:00:00Z")
        .await
        .invoices
        .remove(0);
    shop.pay(&first).await;

    shop.change(id, small.id, 1, "2025-01-16T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2025-01-16T00:00:00Z").await,
        [credit_note(&[(LineKind::Unused, -10_323), (LineKind::Base, 5161)])]
    );
    assert_eq!(shop.credit().await, 5162);
    let february = closed(&shop.world, shop.customer, "2025-02-01T00:00:00Z")
        .await
        .invoices
        .remove(0);
    assert_eq!(
        (february.invoice.total.minor, february.invoice.outstanding().minor),
        (10_000, 4838)
    );
    assert_eq!(february.invoice.status, InvoiceStatus::PartiallyPaid);
    assert_eq!(shop.credit().await, 0);
}

#[tokio::test]
async fn a_biennial_plan_changed_half_way_gives_366_of_731_days_back() {
    let shop = Shop::new("USD", "UTC").await;
    let (old, new) = (shop.price("old", 24, 4000).await, shop.price("new", 1, 1000).await);
    let id = shop.begin(old.id, "2023-03-01T00:00:00Z").await;
    assert_eq!(
        shop.close("2023-03-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 4000)])]
    );
    shop.change(id, new.id, 1, "2024-02-29T12:00:00Z").await.unwrap();
    // Another cycle starts on the day of the change.
    assert_eq!(
        shop.close("2024-02-29T12:00:00Z").await,
        [credit_note(&[(LineKind::Unused, -2003), (LineKind::Base, 1000)])]
    );
    assert_eq!(shop.close("2024-03-28T23:59:59Z").await, []);
    assert_eq!(
        shop.close("2024-03-29T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 1000)])]
    );
}

#[tokio::test]
async fn arrears_from_1_january_to_27_february_2011_are_14_31_and_1_and_12_28() {
    let shop = Shop::new("USD", "UTC").await;
    let plan = NewPlan {
        base_timing: BaseTiming::Arrears,
        ..NewPlan::new("arrears", "vps", Terms::Flat)
    };
    let price = shop.price_of(plan, 1, 86_800).await.1;
    let service = shop.world.service(shop.customer, "web-1").await;
    let new = NewSubscription {
        anchor_day: Some(15),
        ..NewSubscription::new(service.id, price.id, ms("2011-01-01T00:00:00Z"))
    };
    let id = shop.begin_with(new).await.unwrap();
    shop.cancel(
        id,
        CancellationTime::On("2011-02-27".parse().unwrap()),
        "2011-02-20T00:00:00Z",
    )
    .await
    .unwrap();
    // 868 = 28 × 31: 14/31 of it are 392, 12/28 are 372.
    assert_eq!(
        shop.close("2011-06-01T00:00:00Z").await,
        [
            invoice(&[(LineKind::Base, 39_200)]),
            invoice(&[(LineKind::Base, 86_800)]),
            invoice(&[(LineKind::Base, 37_200)])
        ]
    );
}

#[tokio::test]
async fn a_subscription_that_ends_today_gives_today_back() {
    let shop = Shop::new("USD", "Europe/Berlin").await;
    let price = shop.price("small", 1, 3100).await;
    let id = shop.begin(price.id, "2025-02-28T23:00:00Z").await;
    assert_eq!(
        shop.close("2025-02-28T23:00:00Z").await,
        [invoice(&[(LineKind::Base, 3100)])]
    );
    // 30 March is the 23-hour day; 2 of 31 days are left, whatever hours they have.
    shop.cancel(id, CancellationTime::Now, "2025-03-29T23:30:00Z")
        .await
        .unwrap();
    assert_eq!(shop.state(id).await, SubscriptionState::Ended);
    assert_eq!(
        shop.close("2025-03-29T23:30:00Z").await,
        [credit_note(&[(LineKind::Unused, -200)])]
    );
    assert_eq!(shop.close("2026-01-01T00:00:00Z").await, []);
}

#[tokio::test]
async fn one_that_ends_with_its_cycle_gives_nothing_back_and_can_be_resumed_before() {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("small", 1, 3000).await;
    let id = shop.begin(price.id, "2025-01-31T00:00:00Z").await;
    shop.close("2025-01-31T00:00:00Z").await;
    shop.cancel(id, CancellationTime::CycleEnd, "2025-02-10T00:00:00Z")
        .await
        .unwrap();
    assert_eq!(shop.state(id).await, SubscriptionState::Cancelled);
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    change::resume(&mut transaction, id, "test", ms("2025-02-11T00:00:00Z"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(shop.state(id).await, SubscriptionState::Active);
    assert_eq!(
        shop.close("2025-02-28T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 3000)])]
    );
    shop.cancel(id, CancellationTime::CycleEnd, "2025-03-01T00:00:00Z")
        .await
        .unwrap();
    let done = crate::lifecycle::advance(&shop.world.database, ms("2025-03-31T00:00:00Z"))
        .await
        .unwrap();
    assert_eq!((done.subscriptions_ended, done.failed.len()), (1, 0));
    assert_eq!(shop.state(id).await, SubscriptionState::Ended);
    assert_eq!(shop.close("2026-01-01T00:00:00Z").await, []);
}

#[tokio::test]
async fn an_end_that_is_brought_forward_gives_back_what_was_charged_up_to_it() {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("small", 1, 2800).await;
    let id = shop.begin(price.id, "2025-01-01T00:00:00Z").await;
    shop.close("2025-01-01T00:00:00Z").await;
    shop.cancel(
        id,
        CancellationTime::On("2025-02-15".parse().unwrap()),
        "2025-01-20T00:00:00Z",
    )
    .await
    .unwrap();
    assert_eq!(
        shop.close("2025-02-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 1400)])]
    );
    shop.cancel(id, CancellationTime::Now, "2025-02-05T00:00:00Z")
        .await
        .unwrap();
    assert_eq!(
        shop.close("2025-02-05T00:00:00Z").await,
        [credit_note(&[(LineKind::Unused, -1000)])]
    );
}

#[tokio::test]
async fn an_end_that_is_taken_back_lets_the_rest_of_the_cycle_be_charged() {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("small", 1, 2800).await;
    let id = shop.begin(price.id, "2025-01-01T00:00:00Z").await;
    shop.close("2025-01-01T00:00:00Z").await;
    shop.cancel(
        id,
        CancellationTime::On("2025-02-15".parse().unwrap()),
        "2025-01-20T00:00:00Z",
    )
    .await
    .unwrap();
    shop.close("2025-02-01T00:00:00Z").await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    change::resume(&mut transaction, id, "test", ms("2025-02-10T00:00:00Z"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(shop.close("2025-02-14T23:59:59Z").await, []);
    assert_eq!(
        shop.close("2025-02-15T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 1400)])]
    );
    assert_eq!(
        shop.close("2025-03-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 2800)])]
    );
    shop.cancel(id, CancellationTime::Now, "2025-03-04T00:00:00Z")
        .await
        .unwrap();
    assert_eq!(
        shop.close("2025-03-04T00:00:00Z").await,
        [credit_note(&[(LineKind::Unused, -2529)])]
    );
}

#[tokio::test]
async fn two_changes_on_one_day_charge_the_last_one() {
    let shop = Shop::new("USD", "UTC").await;
    let small = shop.price("small", 1, 3100).await;
    let (middle, large) = (shop.price("middle", 1, 6200).await, shop.price("large", 1, 9300).await);
    let id = shop.begin(small.id, "2025-01-01T00:00:00Z").await;
    shop.close("2025-01-01T00:00:00Z").await;
    shop.change(id, middle.id, 1, "2025-01-02T08:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2025-01-02T08:00:00Z").await,
        [invoice(&[(LineKind::Unused, -3000), (LineKind::Base, 6000)])]
    );
    shop.change(id, large.id, 1, "2025-01-02T09:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2025-01-02T09:00:00Z").await,
        [invoice(&[(LineKind::Unused, -6000), (LineKind::Base, 9000)])]
    );
}

#[tokio::test]
async fn quantity_coupons_and_their_share_of_what_is_given_back() {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("small", 1, 3100).await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let coupon = |code, discount| NewCoupon {
        code,
        discount,
        months: Some(1),
        per_customer: None,
        plan: None,
        max_redemptions: Some(1),
        expires_at_ms: None,
    };
    let ten_percent = Discount::Percent(schemas::percent::Percent::new(Decimal::TEN).unwrap());
    catalog::create_coupon(&mut transaction, coupon("ten", ten_percent), 0)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let service = shop.world.service(shop.customer, "web-1").await;
    let new = NewSubscription {
        quantity: 2,
        coupon: Some("TEN"),
        ..NewSubscription::new(service.id, price.id, ms("2025-01-01T00:00:00Z"))
    };
    let id = shop.begin_with(new).await.unwrap();
    assert_eq!(
        shop.close("2025-01-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 6200), (LineKind::Discount, -620)])]
    );
    // 10 of 31 days: of 62.00 that is 20.00, and of the discount 2.00. The coupon is for one month, and this is the same one.
    shop.change(id, price.id, 1, "2025-01-22T00:00:00Z").await.unwrap();
    assert_eq!(
        shop.close("2025-01-22T00:00:00Z").await,
        [credit_note(&[
            (LineKind::Unused, -2000),
            (LineKind::Discount, 200),
            (LineKind::Base, 1000),
            (LineKind::Discount, -100)
        ])]
    );
    assert_eq!(
        shop.close("2025-02-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 3100)])]
    );
    let other = shop.world.service(shop.customer, "web-2").await;
    let again = NewSubscription {
        coupon: Some("ten"),
        ..NewSubscription::new(other.id, price.id, ms("2025-02-01T00:00:00Z"))
    };
    let error = shop.begin_with(again).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the coupon TEN cannot be redeemed: it was redeemed as often as it may be"
    );
}

#[tokio::test]
async fn currencies_without_or_with_three_decimals_are_rounded_to_theirs() {
    for (currency, base_minor, given_back, charged) in [("JPY", 1_000, -516, 1_032), ("KWD", 1_000, -516, 1_032)] {
        let shop = Shop::new(currency, "UTC").await;
        let (small, large) = (
            shop.price("small", 1, base_minor).await,
            shop.price("large", 1, 2 * base_minor).await,
        );
        let id = shop.begin(small.id, "2025-01-01T00:00:00Z").await;
        shop.close("2025-01-01T00:00:00Z").await;
        shop.change(id, large.id, 1, "2025-01-16T00:00:00Z").await.unwrap();
        assert_eq!(
            shop.close("2025-01-16T00:00:00Z").await,
            [invoice(&[(LineKind::Unused, given_back), (LineKind::Base, charged)])]
        );
    }
}

#[tokio::test]
async fn trials_stock_and_add_ons() {
    let shop = Shop::new("USD", "UTC").await;
    let plan = NewPlan {
        trial_days: 14,
        stock: Some(1),
        ..NewPlan::new("trial", "vps", Terms::Flat)
    };
    let (plan, price) = shop.price_of(plan, 1, 2800).await;
    let id = shop.begin(price.id, "2025-01-18T10:00:00Z").await;
    assert_eq!(shop.state(id).await, SubscriptionState::Trial);
    assert_eq!(shop.close("2025-01-31T23:59:59Z").await, []);
    let other = shop.world.service(shop.customer, "web-2").await;
    let sold_out = NewSubscription::new(other.id, price.id, ms("2025-01-19T00:00:00Z"));
    assert_eq!(
        shop.begin_with(sold_out).await.unwrap_err().to_string(),
        "pln_1 is sold out"
    );

    let addon = NewPlan {
        kind: catalog::PlanKind::Addon,
        ..NewPlan::new("backup", "vps", Terms::Flat)
    };
    let addon = shop.price_of(addon, 1, 560).await.1;
    let service = subscription(shop.world.database.pool(), id).await.unwrap().service;
    let alone = NewSubscription::new(service, addon.id, ms("2025-02-11T00:00:00Z"));
    assert!(matches!(shop.begin_with(alone).await, Err(BillingError::AddonAlone(_))));
    let done = crate::lifecycle::advance(&shop.world.database, ms("2025-02-01T00:00:00Z"))
        .await
        .unwrap();
    assert_eq!(done.trials_ended, 1);
    assert_eq!(
        shop.close("2025-02-01T00:00:00Z").await,
        [invoice(&[(LineKind::Base, 2800)])]
    );
    let beside = NewSubscription {
        parent: Some(id),
        ..alone
    };
    let addon = shop.begin_with(beside).await.unwrap();
    // It takes over the anchor of what it is beside: 18 of 28 days.
    assert_eq!(
        shop.close("2025-02-11T00:00:00Z").await,
        [invoice(&[(LineKind::Addon, 360)])]
    );
    shop.cancel(id, CancellationTime::Now, "2025-02-15T00:00:00Z")
        .await
        .unwrap();
    assert_eq!(
        (shop.state(id).await, shop.state(addon).await),
        (SubscriptionState::Ended, SubscriptionState::Ended)
    );
    assert_eq!(
        shop.close("2025-02-15T00:00:00Z").await,
        [credit_note(&[(LineKind::Unused, -1400), (LineKind::Unused, -280)])]
    );
    let left = catalog::plan(shop.world.database.pool(), plan.id).await.unwrap().stock;
    assert_eq!(left, Some(1), "what ended is to be had again");
}

#[tokio::test]
async fn usage_that_was_charged_cannot_be_changed_and_a_part_of_a_month_has_its_part_of_the_transfer() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let deal = Deal {
        base_timing: BaseTiming::Advance,
        started_at: "2026-01-01T00:00:00Z",
        ..DEAL
    };
    let contract = world.subscribe(customer, deal).await;
    let (_, large) = world
        .plan_and_price(
            "USD",
            Deal {
                base_minor: 4000,
                ..deal
            },
        )
        .await;
    world
        .usage
        .add(contract.service.id, "2026-01-10T00:00:00Z", 600 * GIB, 0);
    world
        .usage
        .add(contract.service.id, "2026-02-20T00:00:00Z", 1000 * GIB, 0);
    let made = closed(&world, customer, "2026-02-01T00:10:00Z").await.invoices;
    assert_eq!(made.len(), 2);
    assert_eq!(
        amounts(&made[1]),
        [(LineKind::Base, 2000), (LineKind::TransferOverage, 0)]
    );
    let change = Change {
        price: large.id,
        quantity: 1,
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    let id = contract.subscription.id;
    let error = change::change(
        &mut transaction,
        id,
        change,
        ms("2026-01-31T00:00:00Z"),
        "test",
        ms("2026-02-02T00:00:00Z"),
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "sub_1 cannot change from 2026-01-31 on: days before 2026-02-01 are charged or changed already"
    );
    change::change(
        &mut transaction,
        id,
        change,
        ms("2026-02-15T00:00:00Z"),
        "test",
        ms("2026-02-15T00:00:00Z"),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    let made = closed(&world, customer, "2026-02-15T00:10:00Z").await.invoices;
    assert_eq!(
        amounts(&made[0]),
        [
            (LineKind::Unused, -1000),
            (LineKind::TransferOverage, 0),
            (LineKind::Base, 2000)
        ]
    );
    let made = closed(&world, customer, "2026-03-01T00:10:00Z").await.invoices;
    // 14 of 28 days have 500 GiB included: 500 over, at 0.05.
    assert_eq!(
        amounts(&made[0]),
        [(LineKind::Base, 4000), (LineKind::TransferOverage, 2500)]
    );
    assert_books_are_right(&world).await;
}

#[test]
fn cycles_cost_what_their_discounts_leave() {
    let month = Money::new(2999, Currency::USD);
    let plan = Plan {
        id: schemas::ids::PlanId(1),
        kind: catalog::PlanKind::Plan,
        name: String::new(),
        description: String::new(),
        service_type: String::new(),
        terms: Terms::Flat,
        base_timing: BaseTiming::Advance,
        trial_days: 0,
        attributes: catalog::Attributes::new(),
        badge: catalog::Badge::None,
        stock: None,
        is_free: false,
        trial_repeats: false,
        semi_annual_discount: schemas::percent::Percent::new(Decimal::TEN).unwrap(),
        created_at_ms: 0,
        archived_at_ms: None,
    };
    for (months, minor) in [(1, 2999), (3, 8547), (6, 16_195), (12, 30_590), (24, 57_581)] {
        assert_eq!(
            plan.derived_base(month, months).unwrap().minor,
            minor,
            "{months} months"
        );
    }
}
