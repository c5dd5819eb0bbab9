//! The days on which clocks change: a day of 23 or 25 hours is a day, and its windows are those that it has.

use jiff::Timestamp;
use schemas::window::WINDOW_MS;

use super::*;
use crate::catalog::BaseTiming;
use crate::subscription::change::{self, Change};

/// A month with a change of the clocks in it, and the change of price on that day: what the customer's clock says.
struct Case {
    zone: &'static str,
    /// Midnight of its first day and of the next month's.
    month: (&'static str, &'static str),
    hours: i64,
    /// Of the 95th percentile among the month's windows.
    rank: u64,
    /// An instant on the day of the change, and the days of the month that are left then, that day included.
    changed_at: &'static str,
    days_left: i64,
    days: i64,
}

const CASES: [Case; 6] = [
    // 30 March 2025: 02:00 becomes 03:00. 00:30 and 23:30 of that day are 22 hours apart.
    Case {
        zone: "Europe/Berlin",
        month: ("2025-02-28T23:00:00Z", "2025-03-31T22:00:00Z"),
        hours: 743,
        rank: 8471,
        changed_at: "2025-03-29T23:30:00Z",
        days_left: 2,
        days: 31,
    },
    Case {
        zone: "Europe/Berlin",
        month: ("2025-02-28T23:00:00Z", "2025-03-31T22:00:00Z"),
        hours: 743,
        rank: 8471,
        changed_at: "2025-03-30T21:30:00Z",
        days_left: 2,
        days: 31,
    },
    // 26 October 2025: 03:00 becomes 02:00. The second 02:30 of that day.
    Case {
        zone: "Europe/Berlin",
        month: ("2025-09-30T22:00:00Z", "2025-10-31T23:00:00Z"),
        hours: 745,
        rank: 8493,
        changed_at: "2025-10-26T01:30:00Z",
        days_left: 6,
        days: 31,
    },
    // 9 March 2025: 02:00 becomes 03:00.
    Case {
        zone: "America/New_York",
        month: ("2025-03-01T05:00:00Z", "2025-04-01T04:00:00Z"),
        hours: 743,
        rank: 8471,
        changed_at: "2025-03-09T07:00:00Z",
        days_left: 23,
        days: 31,
    },
    // 2 November 2025: 02:00 becomes 01:00. Its first and its last hour.
    Case {
        zone: "America/New_York",
        month: ("2025-11-01T04:00:00Z", "2025-12-01T05:00:00Z"),
        hours: 721,
        rank: 8220,
        changed_at: "2025-11-02T04:00:00Z",
        days_left: 29,
        days: 30,
    },
    Case {
        zone: "America/New_York",
        month: ("2025-11-01T04:00:00Z", "2025-12-01T05:00:00Z"),
        hours: 721,
        rank: 8220,
        changed_at: "2025-11-03T04:59:59Z",
        days_left: 29,
        days: 30,
    },
];

const PERCENTILE: Deal = Deal {
    terms: Terms::Percentile {
        commit_mbps: Decimal::ZERO,
        mode: UsageMode::Sum,
    },
    base_minor: 10_000,
    usage_price: "1.00",
    base_timing: BaseTiming::Arrears,
    ..DEAL
};

/// Milliseconds later.
fn later(at: &str, ms_later: i64) -> String {
    Timestamp::from_millisecond(ms(at) + ms_later).unwrap().to_string()
}

#[tokio::test]
async fn a_month_in_which_clocks_change_has_the_windows_that_it_has() {
    for case in &CASES {
        let (from, to) = case.month;
        let world = World::new().await;
        let customer = world.customer("USD", case.zone, "0").await;
        let deal = Deal {
            started_at: from,
            ..PERCENTILE
        };
        let service = world.subscribe(customer, deal).await.service;
        // 75 Mbit/s in exactly as many windows as the percentile leaves above its rank, and in that at its rank: the first
        // and the last window of the month are among them.
        let windows = (ms(to) - ms(from)) / WINDOW_MS;
        assert_eq!(windows, case.hours * 12, "{}", case.zone);
        let busy = windows - i64::try_from(case.rank).unwrap() + 1;
        for number in (0..busy - 1).chain([windows - 1]) {
            let at = later(from, number * WINDOW_MS);
            world.usage.add(service.id, &at, 75 * 1_000_000 / 8 * 300, 0);
        }
        // A window before and one after are other months'.
        world.usage.add(service.id, &later(from, -1), 1 << 40, 0);
        world.usage.add(service.id, to, 1 << 40, 0);

        let made = closed(&world, customer, &later(to, LATENESS_MS)).await.invoices;
        let [invoice] = made.as_slice() else {
            panic!("{}: {} invoices", case.zone, made.len());
        };
        assert_eq!(
            (invoice.invoice.period_start_ms, invoice.invoice.period_end_ms),
            (ms(from), ms(to)),
            "{}",
            case.zone
        );
        assert_eq!(
            amounts(invoice),
            [(LineKind::Base, 10_000), (LineKind::PercentileOverage, 7500)],
            "{}",
            case.zone
        );
        let Evidence::Usage { measured, .. } = &invoice.lines[1].evidence else {
            panic!("{:?}", invoice.lines[1].evidence);
        };
        assert_eq!(
            (measured.percentile_rank, measured.windows_expected),
            (case.rank, u64::try_from(windows).unwrap()),
            "{}",
            case.zone
        );
        assert_books_are_right(&world).await;
    }
}

#[tokio::test]
async fn a_change_on_the_day_clocks_change_counts_calendar_days() {
    for case in &CASES {
        let (from, to) = case.month;
        let world = World::new().await;
        let customer = world.customer("USD", case.zone, "0").await;
        let deal = Deal {
            terms: Terms::Flat,
            base_minor: 10_000,
            usage_price: "0",
            base_timing: BaseTiming::Advance,
            started_at: from,
            ..DEAL
        };
        let contract = world.subscribe(customer, deal).await;
        assert_eq!(closed(&world, customer, from).await.invoices.len(), 1);
        let (_, dearer) = world
            .plan_and_price(
                "USD",
                Deal {
                    base_minor: 20_000,
                    ..deal
                },
            )
            .await;
        let mut transaction = world.database.begin_write().await.unwrap();
        let change = Change {
            price: dearer.id,
            quantity: 1,
        };
        let at_ms = ms(case.changed_at);
        change::change(&mut transaction, contract.subscription.id, change, at_ms, "test", at_ms)
            .await
            .unwrap();
        transaction.commit().await.unwrap();

        let made = closed(&world, customer, case.changed_at).await.invoices;
        let share = |minor: i64| (minor * case.days_left * 2 + case.days) / (case.days * 2);
        assert_eq!(
            amounts(&made[0]),
            [(LineKind::Unused, -share(10_000)), (LineKind::Base, share(20_000))],
            "{} {}",
            case.zone,
            case.changed_at
        );
        // The next month begins at local midnight, not a millisecond before.
        assert_eq!(closed(&world, customer, &later(to, -1)).await.invoices.len(), 0);
        let made = closed(&world, customer, to).await.invoices;
        assert_eq!(amounts(&made[0]), [(LineKind::Base, 20_000)], "{}", case.zone);
        assert_books_are_right(&world).await;
    }
}
