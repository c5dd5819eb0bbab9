//! Usage is charged by the terms that held at the time of day: every 5-minute window once, none for nothing.

use proptest::prelude::*;
use schemas::ids::{PriceId, ServiceId, SubscriptionId};
use schemas::window::WINDOW_MS;

use super::*;
use crate::catalog::{self, BaseTiming, NewPlan, NewPrice};
use crate::lifecycle;
use crate::subscription::change::{self, CancellationTime, Change};
use crate::subscription::state::HoldCause;
use crate::subscription::{NewSubscription, SubscriptionState, subscribe, subscription};

const GB: u64 = 1_000_000_000;
const USAGE: LineKind = LineKind::TransferOverage;
/// One dollar for each GB.
const METERED: Deal = Deal {
    base_timing: BaseTiming::Advance,
    ..corrections::METERED
};
const DEAR: Deal = Deal {
    usage_price: "10",
    ..METERED
};

struct Case {
    world: World,
    customer: CustomerId,
    service: ServiceId,
    subscription: SubscriptionId,
}

impl Case {
    async fn new(deal: Deal) -> Case {
        Case::with(deal, "UTC").await
    }

    async fn with(deal: Deal, zone: &str) -> Case {
        let world = World::new().await;
        let customer = world.customer("USD", zone, "0").await;
        let contract = world.subscribe(customer, deal).await;
        Case {
            world,
            customer,
            service: contract.service.id,
            subscription: contract.subscription.id,
        }
    }

    fn uses(&self, at: &str, gb: u64) {
        self.world.usage.add(self.service, at, gb * GB, 0);
    }

    async fn price(&self, deal: Deal) -> PriceId {
        self.world.plan_and_price("USD", deal).await.1.id
    }

    async fn change(&self, price: PriceId, quantity: i64, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let change = Change { price, quantity };
        change::change(&mut transaction, self.subscription, change, ms(at), "test", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn cancel(&self, end: CancellationTime, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::cancel(&mut transaction, self.subscription, end, "test", "test", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn close(&self, now: &str) {
        lifecycle::advance(&self.world.database, ms(now)).await.unwrap();
        closed(&self.world, self.customer, now).await;
        assert_books_are_right(&self.world).await;
    }

    /// Usage lines: from, to, amount.
    async fn usage(&self) -> Vec<(String, String, i64)> {
        let mut lines = self.lines().await;
        lines.retain(|line| line.kind.is_usage());
        lines.sort_by_key(|line| line.period_start_ms);
        let time = |at_ms| schemas::window::instant_text(at_ms);
        lines
            .iter()
            .map(|line| (time(line.period_start_ms), time(line.period_end_ms), line.amount.minor))
            .collect()
    }

    async fn lines(&self) -> Vec<InvoiceLine> {
        let mut lines = Vec::new();
        for made in list_of(self.world.database.pool(), self.customer).await.unwrap() {
            lines.extend(get(&self.world.database, made.id).await.unwrap().lines);
        }
        lines
    }

    async fn amount(&self, kind: LineKind) -> i64 {
        let lines = self.lines().await;
        lines
            .iter()
            .filter(|line| line.kind == kind)
            .map(|line| line.amount.minor)
            .sum()
    }
}

fn line(from: &str, to: &str, minor: i64) -> (String, String, i64) {
    let time = |text: &str| schemas::window::instant_text(ms(text));
    (time(from), time(to), minor)
}

#[tokio::test]
async fn what_was_used_on_the_day_of_order_and_end_is_charged_though_its_base_price_is_given_back() {
    let case = Case::new(Deal {
        started_at: "2026-01-01T00:30:00Z",
        base_minor: 3000,
        ..METERED
    })
    .await;
    case.close("2026-01-01T00:40:00Z").await;
    case.uses("2026-01-01T00:20:00Z", 1);
    case.uses("2026-01-01T12:01:00Z", 500);
    case.cancel(CancellationTime::Now, "2026-01-01T23:30:00Z").await;
    case.close("2026-01-02T01:00:00Z").await;
    assert_eq!(
        case.usage().await,
        [line("2026-01-01T00:30:00Z", "2026-01-01T23:30:00Z", 50_000)],
        "not what came before the order"
    );
    let base = case.amount(LineKind::Base).await + case.amount(LineKind::Unused).await;
    assert_eq!(base, 0);
    case.close("2026-02-02T01:00:00Z").await;
    assert_eq!(case.usage().await.len(), 1);
}

#[tokio::test]
async fn a_change_shortly_before_midnight_does_not_make_the_day_cheaper() {
    for (from, to, minor) in [(DEAR, METERED, 50_000 + 2 * 100), (METERED, DEAR, 5000 + 2 * 1000)] {
        let case = Case::new(from).await;
        case.uses("2026-01-16T12:00:00Z", 50);
        case.uses("2026-01-16T23:56:00Z", 1);
        case.uses("2026-01-17T00:00:00Z", 1);
        let price = case.price(to).await;
        case.change(price, 1, "2026-01-16T23:50:00Z").await;
        case.close("2026-02-01T01:00:00Z").await;
        let usage = case.usage().await;
        assert_eq!(usage[0].1, usage[1].0, "every window belongs to one of them");
        assert_eq!(usage[0].1, line("2026-01-16T23:50:00Z", "2026-01-16T23:50:00Z", 0).0);
        assert_eq!(usage.iter().map(|line| line.2).sum::<i64>(), minor);
    }
    // The window in which it happens is still the old terms'.
    let case = Case::new(DEAR).await;
    case.uses("2026-01-16T23:50:00Z", 1);
    let price = case.price(METERED).await;
    case.change(price, 1, "2026-01-16T23:51:00Z").await;
    case.close("2026-02-01T01:00:00Z").await;
    assert_eq!(case.usage().await[0].2, 1000);
}

#[tokio::test]
async fn what_is_included_is_what_was_paid_for() {
    // 31 GB a month: one a day.
    let included = |usage_price, base_minor| Deal {
        terms: Terms::Transfer {
            included_units: 31,
            unit: QuotaUnit::Gb,
            mode: UsageMode::Sum,
        },
        usage_price,
        base_minor,
        ..METERED
    };
    let case = Case::new(included("10", 3100)).await;
    case.uses("2026-01-10T00:00:00Z", 10);
    case.uses("2026-01-16T12:00:00Z", 10);
    case.uses("2026-01-20T12:00:00Z", 16);
    let price = case.price(included("1", 310)).await;
    case.change(price, 1, "2026-01-16T23:50:00Z").await;
    case.close("2026-02-01T01:00:00Z").await;
    // The sixteenth's base price is that of the new terms, and so is what it includes: 15 and 16 GB.
    let sums: Vec<i64> = case.usage().await.iter().map(|line| line.2).collect();
    assert_eq!(sums, [5000, 0]);

    // Ordered and ended within a day: nothing was paid for it, nothing is included.
    let case = Case::new(included("10", 3100)).await;
    case.uses("2026-01-01T12:00:00Z", 1);
    case.cancel(CancellationTime::Now, "2026-01-01T23:55:00Z").await;
    case.close("2026-01-03T01:00:00Z").await;
    assert_eq!(case.usage().await[0].2, 1000);
}

#[tokio::test]
async fn a_percentile_is_charged_for_the_time_that_its_terms_held() {
    let percentile = Deal {
        terms: Terms::Percentile {
            commit_mbps: Decimal::from(10),
            mode: UsageMode::Sum,
        },
        usage_price: "31",
        base_minor: 31_000,
        ..METERED
    };
    let flat = Deal {
        terms: Terms::Flat,
        usage_price: "0",
        ..METERED
    };
    // 20 Mbit/s all the time.
    let busy = |case: &Case, to: &str| {
        for window in schemas::window::windows(ms("2026-01-01T00:00:00Z"), ms(to)) {
            case.world.usage.add(case.service, &window.to_string(), 750_000_000, 0);
        }
    };
    // Ended within its first day: no day is paid for, nothing is committed.
    let case = Case::new(percentile).await;
    busy(&case, "2026-01-02T00:00:00Z");
    case.cancel(CancellationTime::Now, "2026-01-01T12:00:00Z").await;
    case.close("2026-01-03T01:00:00Z").await;
    assert_eq!(
        case.usage().await[0].2,
        31_00 * 20 / 62,
        "20 Mbit/s for half a day of 31"
    );

    // Changed at noon of the second day: one day and a half, of which one was paid for.
    let case = Case::new(percentile).await;
    busy(&case, "2026-01-03T00:00:00Z");
    let price = case.price(flat).await;
    case.change(price, 1, "2026-01-02T12:00:00Z").await;
    case.close("2026-01-03T01:00:00Z").await;
    let lines = case.lines().await;
    let usage = lines
        .iter()
        .find(|line| line.kind == LineKind::PercentileOverage)
        .unwrap();
    let Evidence::Usage { charge, .. } = &usage.evidence else {
        panic!("{:?}", usage.evidence);
    };
    assert!(
        matches!(
            charge,
            UsageCharge::Percentile {
                commit_bps: 6_666_666,
                ..
            }
        ),
        "{charge:?}"
    );
    assert!(usage.description.ends_with("1.5 of 31 days"), "{}", usage.description);
    // (20 − 6.666666) × 31 × 1.5 ÷ 31.
    assert_eq!(usage.amount.minor, 2000);
    let checks = recompute(&case.world.database, &case.world.usage, usage.invoice)
        .await
        .unwrap();
    assert!(checks.iter().all(|check| check.equal), "{checks:?}");

    // Begun at noon: the day is paid for, the commit holds, and half a day's overage is charged.
    let case = Case::new(Deal {
        started_at: "2026-01-31T12:00:00Z",
        anchor_day: Some(1),
        ..percentile
    })
    .await;
    busy(&case, "2026-02-01T00:00:00Z");
    case.close("2026-02-01T01:00:00Z").await;
    assert_eq!(case.usage().await[0].2, 31_00 * 10 / 62);
}

#[tokio::test]
async fn several_changes_of_a_day_each_charge_their_hours() {
    let case = Case::new(METERED).await;
    let dear = case.price(DEAR).await;
    for (hour, gb) in [("06", 1), ("10", 2), ("14", 3), ("18", 4)] {
        case.uses(&format!("2026-01-01T{hour}:00:00Z"), gb);
    }
    case.change(dear, 1, "2026-01-01T08:00:00Z").await;
    case.change(dear, 2, "2026-01-01T12:00:00Z").await;
    case.close("2026-01-01T13:00:00Z").await;
    let cheap = subscription_price(&case, 0).await;
    // After usage of the same day was charged.
    case.change(cheap, 1, "2026-01-01T16:00:00Z").await;
    case.close("2026-02-01T01:00:00Z").await;
    assert_eq!(
        case.usage().await,
        [
            line("2026-01-01T00:00:00Z", "2026-01-01T08:00:00Z", 100),
            line("2026-01-01T08:00:00Z", "2026-01-01T12:00:00Z", 2000),
            line("2026-01-01T12:00:00Z", "2026-01-01T16:00:00Z", 3000),
            line("2026-01-01T16:00:00Z", "2026-02-01T00:00:00Z", 400),
        ]
    );
}

async fn subscription_price(case: &Case, phase: usize) -> PriceId {
    let mut connection = case.world.database.pool().acquire().await.unwrap();
    let contract = crate::subscription::contract(&mut connection, case.subscription)
        .await
        .unwrap();
    contract.phases[phase].price.id
}

#[tokio::test]
async fn a_change_on_the_day_on_which_a_month_begins_charges_the_hours_before() {
    let case = Case::with(METERED, "America/New_York").await;
    case.uses("2026-01-20T00:00:00Z", 5);
    // It began on 31 December of New York, so months begin on the last day of February, too.
    case.uses("2026-02-28T10:00:00Z", 7);
    case.uses("2026-02-28T18:00:00Z", 9);
    let dear = case.price(DEAR).await;
    case.change(dear, 1, "2026-02-28T15:00:00Z").await;
    case.close("2026-04-02T12:00:00Z").await;
    let usage = case.usage().await;
    assert_eq!(usage.iter().map(|line| line.2).collect::<Vec<_>>(), [500, 0, 700, 9000]);
    for pair in usage.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "no window is left out, none is charged twice");
    }
}

#[tokio::test]
async fn a_service_that_is_held_and_released_within_a_day_is_charged_for_all_of_it() {
    let case = Case::new(METERED).await;
    for (hour, gb) in [("09", 1), ("11", 2), ("13", 4)] {
        case.uses(&format!("2026-01-05T{hour}:00:00Z"), gb);
    }
    for (at, held) in [("2026-01-05T10:00:00Z", true), ("2026-01-05T12:00:00Z", false)] {
        let mut transaction = case.world.database.begin_write().await.unwrap();
        let (id, now_ms) = (case.subscription, ms(at));
        if held {
            change::hold(&mut transaction, id, HoldCause::Abuse, "spam", "ops", now_ms)
                .await
                .unwrap();
        } else {
            change::release(&mut transaction, id, HoldCause::Abuse, "ops", now_ms)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
    }
    case.close("2026-02-01T01:00:00Z").await;
    assert_eq!(case.amount(USAGE).await, 700);
}

#[tokio::test]
async fn a_trial_is_free_until_its_midnight_whatever_is_changed_or_ended_in_it() {
    for (change_at, end_at, minor) in [
        (None, None, 500),
        (Some("2026-01-05T12:00:00Z"), None, 5000),
        (None, Some("2026-01-05T12:00:00Z"), 0),
        // The first day after it is paid for by nobody, and used.
        (None, Some("2026-01-08T12:00:00Z"), 200),
    ] {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let service = world.service(customer, "web").await;
        let mut transaction = world.database.begin_write().await.unwrap();
        let new = NewPlan {
            trial_days: 7,
            ..NewPlan::new("Trial", "vps", METERED.terms)
        };
        let plan = catalog::create_plan(&mut transaction, new, 0).await.unwrap();
        let price = |usage: &str| NewPrice {
            plan: plan.id,
            cycle_months: 1,
            base: Money::zero("USD".parse().unwrap()),
            usage: usage.parse().unwrap(),
            valid_from_ms: 0,
        };
        let cheap = catalog::add_price(&mut transaction, price("1")).await.unwrap();
        let mut dear = price("10");
        dear.cycle_months = 3;
        let dear = catalog::add_price(&mut transaction, dear).await.unwrap();
        let start_ms = ms("2026-01-01T10:00:00Z");
        let new = NewSubscription::new(service.id, cheap.id, start_ms);
        let made = subscribe(&mut transaction, new, "test", start_ms).await.unwrap();
        transaction.commit().await.unwrap();
        let case = Case {
            world,
            customer,
            service: service.id,
            subscription: made.id,
        };
        case.uses("2026-01-07T23:55:00Z", 100);
        case.uses("2026-01-08T00:00:00Z", 2);
        case.uses("2026-01-09T00:00:00Z", 3);
        if let Some(at) = change_at {
            case.change(dear.id, 1, at).await;
        }
        if let Some(at) = end_at {
            lifecycle::advance(&case.world.database, ms(at)).await.unwrap();
            case.cancel(CancellationTime::Now, at).await;
            let state = subscription(case.world.database.pool(), made.id).await.unwrap().state;
            assert_eq!(state, SubscriptionState::Ended);
        }
        case.close("2026-04-09T01:00:00Z").await;
        assert_eq!(case.amount(USAGE).await, minor, "{change_at:?} {end_at:?}");
    }
}

#[tokio::test]
async fn an_end_that_was_taken_back_leaves_no_hour_uncharged() {
    let case = Case::new(METERED).await;
    case.uses("2026-01-10T00:00:00Z", 1);
    case.uses("2026-01-31T23:55:00Z", 2);
    case.uses("2026-02-01T00:00:00Z", 4);
    case.cancel(CancellationTime::CycleEnd, "2026-01-10T00:00:00Z").await;
    // What was used until the end is charged before anybody ends it.
    closed(&case.world, case.customer, "2026-02-01T00:10:00Z").await;
    let mut transaction = case.world.database.begin_write().await.unwrap();
    change::resume(&mut transaction, case.subscription, "test", ms("2026-02-01T00:10:00Z"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    case.close("2026-03-01T01:00:00Z").await;
    assert_eq!(
        case.usage().await,
        [
            line("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", 300),
            line("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", 400),
        ]
    );
}

#[tokio::test]
async fn ended_with_a_day_that_has_begun_its_hours_are_charged() {
    let case = Case::new(METERED).await;
    case.uses("2026-01-10T12:00:00Z", 3);
    case.uses("2026-01-10T20:00:00Z", 5);
    case.cancel(
        CancellationTime::On("2026-01-10".parse().unwrap()),
        "2026-01-10T18:00:00Z",
    )
    .await;
    case.close("2026-02-01T01:00:00Z").await;
    assert_eq!(case.amount(USAGE).await, 300);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// Whatever is changed when, every window from the start to the end is charged once, by the terms of its time.
    #[test]
    fn every_window_is_charged_once_by_the_terms_of_its_time(
        changes in prop::collection::vec((1i64..4_000, 1i64..4), 0..6), end in 1i64..4_000, start in 0i64..400, zone in 0usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let zone = ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"][zone];
            let case = Case::with(Deal { usage_price: "1000", started_at: "2026-03-01T00:00:00Z", ..METERED }, zone).await;
            let text = |at_ms: i64| jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
            let mut now_ms = ms("2026-03-01T00:00:00Z") + start * 60_000;
            // A megabyte in each window for three weeks, longer than all of it lasts; rates by the megabyte.
            let mut rate = 1;
            let mut due = 0;
            let mut since_ms = ms("2026-03-01T00:00:00Z");
            for window in schemas::window::windows(since_ms - 86_400_000, since_ms + 26 * 86_400_000) {
                case.world.usage.add(case.service, &window.to_string(), 1_000_000, 0);
            }
            let turn = |at_ms: i64| (at_ms + WINDOW_MS - 1).div_euclid(WINDOW_MS) * WINDOW_MS;
            for (minutes, factor) in changes {
                now_ms += minutes * 60_000 + 7;
                let price = case.price(Deal { usage_price: ["1000", "2000", "3000"][factor as usize - 1], ..METERED }).await;
                case.change(price, 1, &text(now_ms)).await;
                due += (turn(now_ms) - since_ms) / WINDOW_MS * rate;
                (since_ms, rate) = (turn(now_ms), factor);
                if minutes % 3 == 0 {
                    closed(&case.world, case.customer, &text(now_ms + 3_600_000)).await;
                }
            }
            now_ms += end * 60_000 + 3_600_000;
            case.cancel(CancellationTime::Now, &text(now_ms)).await;
            due += (turn(now_ms) - since_ms) / WINDOW_MS * rate;
            case.close("2026-05-01T12:00:00Z").await;
            // A megabyte costs a dollar at the rate of 1.
            assert_eq!(case.amount(USAGE).await, due * 100);
            let usage = case.usage().await;
            for pair in usage.windows(2) {
                assert_eq!(pair[0].1, pair[1].0);
            }
        });
    }
}
