use schemas::money::{Currency, Money};

use super::*;
use crate::catalog::{self, NewPrice, Terms};
use crate::testing::{DEAL, Deal, World, ms};

async fn contract_of(time_zone: &str, deal: Deal) -> Contract {
    let world = World::new().await;
    let customer = world.customer("USD", time_zone, "0").await;
    world.subscribe(customer, deal).await
}

/// The cycles that have ended by then.
fn ended_periods(contract: &Contract, now: &str) -> Vec<ChargedPeriod> {
    let mut periods = contract.last_phase().base_periods(&contract.subscription.time_zone);
    let mut ended = Vec::new();
    while let Some(charged) = periods.next_period().unwrap() {
        if charged.period.end_ms > ms(now) {
            break;
        }
        ended.push(charged);
    }
    ended
}

fn period_at(contract: &Contract, at: &str) -> ChargedPeriod {
    contract.base_period_at(ms(at)).unwrap().1
}

fn dates(periods: &[ChargedPeriod]) -> Vec<String> {
    periods.iter().map(|charged| charged.period.to_string()).collect()
}

#[tokio::test]
async fn the_anchor_day_is_kept_through_short_months() {
    let deal = Deal {
        started_at: "2024-01-31T10:00:00Z",
        ..DEAL
    };
    let contract = contract_of("UTC", deal).await;
    assert_eq!(contract.last_phase().anchor.get(), 31);
    let ended = ended_periods(&contract, "2024-04-30T00:00:00Z");
    assert_eq!(
        dates(&ended),
        [
            "2024-01-31 – 2024-02-29",
            "2024-02-29 – 2024-03-31",
            "2024-03-31 – 2024-04-30"
        ]
    );
    assert!(ended.iter().all(|charged| charged.proration().is_full()));
    let just_before = ended_periods(&contract, "2024-04-29T23:59:59Z");
    assert_eq!(
        just_before.len(),
        2,
        "a period is over when its last instant has passed"
    );
}

#[tokio::test]
async fn a_first_period_ends_at_the_anchor_and_counts_calendar_days() {
    for (started_at, period, days, nominal_days) in [
        ("2023-05-23T15:00:00Z", "2023-05-23 – 2023-06-15", 23, 31),
        ("2023-02-23T00:00:00Z", "2023-02-23 – 2023-03-15", 20, 28),
        ("2024-02-23T00:00:00Z", "2024-02-23 – 2024-03-15", 21, 29),
        ("2011-01-01T00:00:00Z", "2011-01-01 – 2011-01-15", 14, 31),
        ("2023-05-15T00:00:00Z", "2023-05-15 – 2023-06-15", 31, 31),
    ] {
        let deal = Deal {
            anchor_day: Some(15),
            started_at,
            ..DEAL
        };
        let contract = contract_of("UTC", deal).await;
        let first = period_at(&contract, started_at);
        assert_eq!(first.period.to_string(), period);
        assert_eq!(first.proration(), Proration { days, nominal_days }, "{period}");
        let second = contract.base_period_at(first.period.end_ms).unwrap().1;
        assert_eq!(second.period.start_ms, first.period.end_ms);
        assert!(second.proration().is_full());
    }
}

#[tokio::test]
async fn periods_are_local_and_a_day_is_a_day_when_the_clocks_change() {
    for (time_zone, started_at, hours, days) in [
        ("Europe/Berlin", "2024-02-29T23:00:00Z", 743, 31),
        ("Europe/Berlin", "2024-09-30T22:00:00Z", 745, 31),
        ("America/New_York", "2024-11-01T04:00:00Z", 721, 30),
        ("America/New_York", "2024-03-01T05:00:00Z", 743, 31),
    ] {
        let deal = Deal { started_at, ..DEAL };
        let contract = contract_of(time_zone, deal).await;
        assert_eq!(contract.last_phase().anchor.get(), 1, "{time_zone} {started_at}");
        let first = period_at(&contract, started_at);
        assert_eq!(first.period.duration_ms(), hours * schemas::window::HOUR_MS);
        let nominal_days = days;
        assert_eq!(first.proration(), Proration { days, nominal_days });
    }
}

#[tokio::test]
async fn longer_cycles_step_by_their_months() {
    let deal = Deal {
        terms: Terms::Flat,
        usage_price: "0",
        cycle_months: 3,
        started_at: "2023-11-30T00:00:00Z",
        ..DEAL
    };
    let contract = contract_of("UTC", deal).await;
    let ended = ended_periods(&contract, "2024-08-30T00:00:00Z");
    assert_eq!(
        dates(&ended),
        [
            "2023-11-30 – 2024-02-29",
            "2024-02-29 – 2024-05-30",
            "2024-05-30 – 2024-08-30"
        ]
    );
}

#[tokio::test]
async fn there_is_no_period_before_the_first() {
    let contract = contract_of("UTC", DEAL).await;
    for at in ["2025-12-31T23:59:59Z", "1990-01-01T00:00:00Z"] {
        let error = contract.base_period_at(ms(at)).unwrap_err();
        assert!(matches!(error, BillingError::NoPeriod { .. }), "{error}");
    }
    let error = contract.usage_period_at(ms("2090-01-01T00:00:00Z")).unwrap_err();
    assert!(matches!(error, BillingError::TooManyPeriods { .. }), "{error}");
}

#[tokio::test]
async fn what_cannot_be_subscribed_is_refused() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, DEAL).await;
    let (plan, price) = world.plan_and_price("EUR", DEAL).await;
    let other = world.service(customer, "web-2").await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let at_ms = ms("2026-01-01T00:00:00Z");
    let new = |service, price| NewSubscription {
        anchor_day: Some(1),
        ..NewSubscription::new(service, price, at_ms)
    };
    let (own_plan, own_price) = (&contract.last_phase().plan, &contract.last_phase().price);

    let error = subscribe(&mut transaction, new(other.id, price.id), "test", at_ms)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "cus_1 pays in USD and the price is in EUR");
    let again = new(contract.service.id, own_price.id);
    let error = subscribe(&mut transaction, again, "test", at_ms).await.unwrap_err();
    assert_eq!(error.to_string(), "svc_1 already has the subscription sub_1");
    let bad_day = NewSubscription {
        anchor_day: Some(32),
        ..new(other.id, own_price.id)
    };
    let error = subscribe(&mut transaction, bad_day, "test", at_ms).await.unwrap_err();
    assert!(matches!(error, BillingError::Period(_)), "{error}");
    catalog::archive_plan(&mut transaction, own_plan.id, 0).await.unwrap();
    let error = subscribe(&mut transaction, new(other.id, own_price.id), "test", at_ms)
        .await
        .unwrap_err();
    assert!(matches!(error, BillingError::PlanArchived(_)), "{error}");

    let quarterly = NewPrice {
        plan: plan.id,
        cycle_months: 3,
        base: Money::new(1, Currency::USD),
        usage: "0.01".parse().unwrap(),
        valid_from_ms: 0,
    };
    let too_fine = NewPrice {
        usage: "0.0000000001".parse().unwrap(),
        ..quarterly.clone()
    };
    let error = catalog::add_price(&mut transaction, too_fine).await.unwrap_err();
    assert!(matches!(error, BillingError::TooFine { .. }), "{error}");
    let negative = NewPrice {
        base: Money::new(-1, Currency::USD),
        ..quarterly
    };
    let error = catalog::add_price(&mut transaction, negative).await.unwrap_err();
    assert!(matches!(error, BillingError::OutOfRange { .. }), "{error}");
}
