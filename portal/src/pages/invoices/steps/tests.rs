use billing::catalog::QuotaUnit;
use billing::evidence::{Measured, UsageCharge};

use super::usage::{charged_note, counted, coverage, priced};
use super::*;
use crate::format::VolumeUnits;
use crate::pages::invoices::lines::{RateSources, explained_taxes};
use crate::testing::world::World;

#[test]
fn prices_keep_their_digits_and_never_lose_one() {
    let usd = Currency::USD;
    for (text, shown) in [("5", "5.00"), ("0.0125000", "0.0125"), ("0.5", "0.50")] {
        assert_eq!(price(text.parse().unwrap(), usd), shown);
    }
    assert_eq!(price("120.0".parse().unwrap(), "JPY".parse().unwrap()), "120");
    assert_eq!(decimal("12.340000".parse().unwrap()), "12.34");
}

fn measured(billed_bytes: u64, percentile_95_bps: Option<u64>) -> Measured {
    Measured {
        mode: analytics::UsageMode::Max,
        bytes_in: billed_bytes,
        bytes_out: 0,
        billed_bytes,
        percentile_95_bps,
        percentile_rank: 8_197,
        windows_measured: 8_628,
        windows_expected: 8_640,
        gaps: Vec::new(),
        excluded: Vec::new(),
        windows_excluded: 2,
        excluded_bytes_in: 3_000_000_000,
        excluded_bytes_out: 0,
    }
}

fn said(steps: &[Step]) -> Vec<String> {
    let said = steps
        .iter()
        .map(|step| format!("{}: {} ({})", step.what, step.value, step.note));
    said.collect()
}

#[test]
fn tiers_packages_and_days_are_told_one_by_one() {
    let usd = Currency::USD;
    let transfer = |price: &str| UsageCharge::Transfer {
        unit: QuotaUnit::Gb,
        included_bytes: 1_000_000_000,
        from_pool_bytes: 0,
        price: price.parse().unwrap(),
    };
    let used = measured(112_500_000_000, None);
    let tiers = "10=1.5,110=1,*=0.5";
    assert_eq!(
        said(&priced(&transfer(&format!("graduated:{tiers}")), &used, usd)),
        [
            "Tier up to 10 GB: USD 15.00 (10 GB × 1.50)",
            "Tier over 10 up to 110 GB: USD 100.00 (100 GB × 1.00)",
            "Tier over 110 GB: USD 0.75 (1.5 GB × 0.50)",
        ]
    );
    assert_eq!(
        said(&priced(&transfer(&format!("volume:{tiers}")), &used, usd)),
        ["All at the rate over 110 GB: USD 55.75 (111.5 GB × 0.50: the last one falls into this tier)"]
    );
    assert_eq!(
        said(&priced(&transfer("package:10=100"), &used, usd)),
        ["Packages of 10 GB: 12 (begun ones count; USD 100.00 each)"]
    );
    let percentile = UsageCharge::Percentile {
        commit_bps: 5_000_000,
        from_pool_bps: 0,
        price: "1.20".parse().unwrap(),
        days: 16,
        nominal_days: 31,
        held: None,
    };
    let used = measured(0, Some(12_345_678));
    assert_eq!(
        said(&priced(&percentile, &used, usd)),
        [
            "Price: USD 1.20 (per Mbit/s over it)",
            "Days: 16 of 31 (the price is for a whole month)"
        ]
    );
    // 7.345678 × 1.2 × 16 ÷ 31.
    assert_eq!(
        charged_note(&percentile, &used, Money::new(455, usd)),
        "7.345678 Mbit/s × 1.20 × 16 ÷ 31 = USD 4.549581, rounded once"
    );
    // Begun and ended within days: by the time that the terms held.
    let held = UsageCharge::Percentile {
        commit_bps: 5_000_000,
        from_pool_bps: 0,
        price: "1.20".parse().unwrap(),
        days: 15,
        nominal_days: 31,
        held: Some(billing::evidence::PartialMonth {
            ms: 16 * 86_400_000 - 600_000,
            nominal_ms: 31 * 86_400_000,
        }),
    };
    assert_eq!(
        said(&priced(&held, &used, usd)),
        [
            "Price: USD 1.20 (per Mbit/s over it)",
            "Days: 15.99 of 31 (the time that these terms held; the price is for a whole month)"
        ]
    );
    assert_eq!(
        charged_note(&held, &used, Money::new(455, usd)),
        "7.345678 Mbit/s × 1.20 × 15.99 ÷ 31 = USD 4.547607, rounded once"
    );
    let steps = said(&counted(&percentile, &used));
    assert!(
        steps[0].contains("value 8,197 of 8,628 measured windows, smallest first: the 431 busiest"),
        "{steps:?}"
    );
    let steps = said(&coverage(&used, VolumeUnits::Decimal));
    assert_eq!(
        steps[0],
        "5-minute windows: 8,628 of 8,640 (10 not measured, in 0 gaps: never estimated, never charged)"
    );
    assert!(
        steps[1].starts_with("Attack traffic left out: 3.00 GB (2 windows"),
        "{steps:?}"
    );
}

#[test]
fn what_was_given_back_before_is_told() {
    let amount = Money::new(-11_000, Currency::USD);
    let line = InvoiceLine {
        id: "inl_3".parse().unwrap(),
        invoice: "inv_2".parse().unwrap(),
        position: 1,
        subscription: None,
        service: None,
        kind: billing::line_kind::LineKind::Unused,
        description: String::new(),
        quantity: Decimal::ONE,
        unit: "credit".to_owned(),
        unit_price: amount.to_major(),
        priced: amount,
        amount,
        tax_group: 0,
        period_start_ms: 0,
        period_end_ms: 1,
        evidence: Evidence::Unused {
            corrects_invoice: "inv_1".parse().unwrap(),
            corrects_number: "INV-2026-000001".to_owned(),
            corrects_line: "inl_1".parse().unwrap(),
            charged: BaseCharge {
                base_minor: 31_000,
                quantity: 1,
                days: 31,
                nominal_days: 31,
            },
            discount_minor: 0,
            unused_days: 21,
            given_before_minor: 10_000,
            free_by: None,
        },
    };
    let steps = said(&of_line(&line, "/invoices"));
    assert_eq!(
        steps[3..],
        [
            "Share of these days: -USD 210.00 (−310.00 × 21 ÷ 31)",
            "Credited before: USD 100.00 (nothing is credited twice)",
            "Credited: -USD 110.00 (what was left of that line)",
        ]
    );
}

#[test]
fn a_time_in_months_is_told_part_by_part() {
    let time = |first, months, days| {
        time_words(&MonthCount {
            first,
            months,
            days,
            month_days: 31,
        })
    };
    let first = billing::evidence::PartOfMonth {
        days: 14,
        month_days: 28,
    };
    assert_eq!(time(Some(first), 1, 0), "14 of 28 days and 1 month");
    assert_eq!(time(None, 2, 16), "2 months and 16 of 31 days");
    assert_eq!(time(None, 0, 7), "7 of 31 days");
}

#[tokio::test]
async fn a_tax_of_several_groups_is_one_row_that_explains_each() {
    let world = World::new().await;
    let found = billing::invoice::get(world.portal.state.db(), world.invoice_of_ada)
        .await
        .unwrap();
    let sources = RateSources::of(&world.portal.state, &found.invoice).await.unwrap();
    let one = found.taxes[0].clone();
    let usd = |minor: i64| Money::new(minor, Currency::USD);
    let part = |group: i64, net: i64, tax: i64| TaxAmount {
        group,
        net: usd(net),
        tax: usd(tax),
        ..one.clone()
    };
    let rows = explained_taxes(
        &[part(0, 10_00, 2_00), part(1, -4_00, -80)],
        &found.invoice,
        &sources,
        None,
    );
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].name.as_str(), rows[0].amount),
        (one.rule.name.as_str(), usd(1_20))
    );
    let what: Vec<&str> = rows[0].steps.iter().map(|step| step.what.as_str()).collect();
    let part = ["Rate", "Charged on", "Tax"];
    assert_eq!(what, [&["Seller in", "Customer in"][..], &part, &part].concat());
}
