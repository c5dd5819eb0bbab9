use schemas::usage::UsageMode;

use super::*;
use crate::catalog::QuotaUnit;
use crate::evidence::{Measured, MeasuredGap, UsageCharge};
use crate::testing::{DEAL, Deal, TRANSFER, World, ms};

const GIB: u64 = 1 << 30;

fn measured(billed_bytes: u64, percentile_95_bps: Option<u64>) -> Measured {
    Measured {
        mode: UsageMode::Sum,
        bytes_in: billed_bytes,
        bytes_out: 0,
        billed_bytes,
        percentile_95_bps,
        percentile_rank: 8208,
        windows_measured: 8640,
        windows_expected: 8640,
        gaps: Vec::new(),
        excluded: Vec::new(),
        windows_excluded: 0,
        excluded_bytes_in: 0,
        excluded_bytes_out: 0,
    }
}

fn transfer(unit: QuotaUnit, included_bytes: u64, rate: &str) -> UsageCharge {
    UsageCharge::Transfer {
        unit,
        included_bytes,
        from_pool_bytes: 0,
        price: rate.parse().unwrap(),
    }
}

#[test]
fn transfer_is_charged_to_the_byte_over_what_is_included() {
    let terabyte_and_a_tenth = 1_100_000_000_000;
    for (unit, included_bytes, rate, currency, billed_bytes, quantity, minor) in [
        // 100 GB over 1000 GB; the same bytes are 24.454... GiB over 1000 GiB.
        (
            QuotaUnit::Gb,
            1_000_000_000_000,
            "0.05",
            "USD",
            terabyte_and_a_tenth,
            "100",
            500,
        ),
        (
            QuotaUnit::Gib,
            1000 * GIB,
            "0.05",
            "USD",
            terabyte_and_a_tenth,
            "24.454832",
            122,
        ),
        (QuotaUnit::Gib, 1000 * GIB, "0.05", "USD", 1000 * GIB, "0", 0),
        (QuotaUnit::Gib, 1000 * GIB, "0.05", "USD", 0, "0", 0),
        // Half a cent rounds up, a byte less does not.
        (QuotaUnit::Gib, 0, "0.01", "USD", GIB / 2, "0.5", 1),
        (QuotaUnit::Gib, 0, "0.01", "USD", GIB / 2 - 1, "0.5", 0),
        (QuotaUnit::Gib, 0, "7", "JPY", 3 * GIB / 2, "1.5", 11),
        (QuotaUnit::Gb, 0, "0.0005", "KWD", 1_000_000_000, "1", 1),
        (QuotaUnit::Gib, 0, "1000000", "USD", 1 << 40, "1024", 102_400_000_000),
    ] {
        let charge = transfer(unit, included_bytes, rate);
        let rated = rate_usage(&charge, &measured(billed_bytes, None), currency.parse().unwrap()).unwrap();
        assert_eq!(
            (rated.quantity.to_string().as_str(), rated.amount.minor),
            (quantity, minor),
            "{billed_bytes} bytes at {rate} {currency} per {unit}"
        );
    }
}

#[test]
fn the_largest_terms_do_not_overflow_and_what_does_is_an_error() {
    let charge = transfer(QuotaUnit::Gib, 0, "999999.999999999");
    let rated = rate_usage(&charge, &measured(u64::MAX / 1000, None), Currency::USD).unwrap();
    // (2^64 - 1) / 1000 bytes at a millionth under a million.
    assert_eq!(rated.amount.minor, 1_717_986_918_399_998);
    assert!(rate_usage(&charge, &measured(u64::MAX, None), Currency::USD).is_ok());
}

#[test]
fn percentile_is_charged_over_the_commit_in_millions_of_bits() {
    let charge = |days, nominal_days| UsageCharge::Percentile {
        commit_bps: 20_000_000,
        from_pool_bps: 0,
        price: "2.5".parse().unwrap(),
        days,
        nominal_days,
        held: None,
    };
    for (bps, days, quantity, minor) in [
        (Some(75_000_000), 30, "55", 13_750),
        (Some(75_000_000), 12, "55", 5_500),
        (Some(20_000_000), 30, "0", 0),
        (Some(1), 30, "0", 0),
        (Some(20_000_001), 30, "0.000001", 0),
        (None, 30, "0", 0),
    ] {
        let rated = rate_usage(&charge(days, 30), &measured(0, bps), Currency::USD).unwrap();
        assert_eq!(
            (rated.quantity.to_string().as_str(), rated.amount.minor),
            (quantity, minor),
            "{bps:?}"
        );
    }
}

#[test]
fn a_description_names_what_was_not_measured() {
    let charge = transfer(QuotaUnit::Gib, 1000 * GIB, "0.05");
    let mut usage = measured(1024 * GIB, None);
    assert_eq!(
        describe(&charge, &usage).unwrap(),
        "transfer 1,024 GiB (in + out), 1,000 GiB included"
    );
    usage.windows_measured = 8628;
    usage.gaps.push(MeasuredGap {
        from_ms: 0,
        to_ms: 3_600_000,
        exporter: "192.0.2.1".parse().unwrap(),
    });
    assert_eq!(
        describe(&charge, &usage).unwrap(),
        "transfer 1,024 GiB (in + out), 1,000 GiB included; 12 of 8,640 windows not measured (1 gap)"
    );
    // Attack traffic is in the plan's unit, and no number has more than three decimal places.
    let in_gb = transfer(QuotaUnit::Gb, 5_000_000_000_000, "0.05");
    let mut attacked = measured(2_813_430_499_999, None);
    attacked.windows_measured = 7440;
    (attacked.windows_excluded, attacked.excluded_bytes_in) = (1200, 1_234_567_800_000);
    assert_eq!(
        describe(&in_gb, &attacked).unwrap(),
        "transfer 2,813.43 GB (in + out), 5,000 GB included; 1,200 windows of attack traffic not counted (1,234.568 GB)"
    );
    let charge = UsageCharge::Percentile {
        commit_bps: 20_000_000,
        from_pool_bps: 0,
        price: "1".parse().unwrap(),
        days: 23,
        nominal_days: 31,
        held: None,
    };
    let mut usage = measured(0, Some(75_500_000));
    usage.mode = UsageMode::Max;
    assert_eq!(
        describe(&charge, &usage).unwrap(),
        "95th percentile 75.5 Mbit/s (larger of in and out), 20 Mbit/s committed, 23 of 31 days"
    );
    usage.percentile_95_bps = None;
    assert!(describe(&charge, &usage).unwrap().contains("not measured"));
}

#[tokio::test]
async fn a_shorter_first_period_is_charged_for_its_days_exactly() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    for (base_minor, started_at, quantity, minor) in [
        (3100, "2023-05-23T00:00:00Z", "0.741935", 2300),
        (1000, "2023-05-23T00:00:00Z", "0.741935", 742),
        (2800, "2023-02-23T00:00:00Z", "0.714286", 2000),
        (2900, "2024-02-23T00:00:00Z", "0.724138", 2100),
        (1000, "2024-02-15T00:00:00Z", "1", 1000),
    ] {
        let deal = Deal {
            base_minor,
            anchor_day: Some(15),
            started_at,
            ..DEAL
        };
        let contract = world.subscribe(customer, deal).await;
        let (phase, charged) = contract.base_period_at(ms(started_at)).unwrap();
        let lines = base_lines(&contract, phase, &charged).unwrap();
        let line = &lines[0];
        assert_eq!(
            (line.quantity.to_string().as_str(), line.amount.minor),
            (quantity, minor),
            "{started_at}"
        );
        let Some(UsageCharge::Transfer { included_bytes, .. }) = usage_charge(phase, &charged).unwrap() else {
            panic!("{TRANSFER:?} is charged by transfer");
        };
        let Proration { days, nominal_days } = charged.proration();
        assert_eq!(
            included_bytes,
            1000 * GIB * days as u64 / nominal_days as u64,
            "floored to the byte"
        );
    }
}

#[test]
fn what_older_versions_kept_of_a_coupon_is_read_as_it_was() {
    let kept = r#"{"kind":"discount","code":"HALF","off_minor":102000,"percent":"50","amount_minor":null,"amount_months":1,"covered":{"until":"2026-04-01","months":1,"days":16,"month_days":31,"price_minor":10000,"price_months":1}}"#;
    let read: Evidence = serde_json::from_str(kept).unwrap();
    let Evidence::Discount {
        covered: Some(covered), ..
    } = &read
    else {
        panic!("{read:?}");
    };
    let months = exact_months(&covered.time).unwrap().to_decimal(6).unwrap();
    assert_eq!(months.to_string(), "1.516129");
    assert_eq!(serde_json::to_string(&read).unwrap(), kept);
}
