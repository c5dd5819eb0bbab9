//! The examples of docs/billing.md, so that the model is right by itself.

use jiff::tz::TimeZone;

use super::*;

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn monthly(plan: usize, cents: i64) -> Offer {
    Offer {
        plan,
        is_addon: false,
        in_advance: true,
        months: 1,
        cents,
        metered: UsageTerms::Not,
        unit_price: UnitPrice::Free,
        trial_days: 0,
    }
}

fn model(agreed: i64, offers: &[Offer], coupons: &[Coupon]) -> Model {
    let customer = Customer {
        zone: TimeZone::UTC,
        country: "DE",
        taxed: Taxed {
            is_exempt: false,
            agreed,
            prices_include_tax: false,
        },
        pools_usage: false,
    };
    Model::new(vec![customer], offers.to_vec(), coupons.to_vec(), Vec::new())
}

fn lines(model: &Model, document: usize) -> Vec<(String, i64)> {
    let lines = model.books().documents[document].lines.clone();
    lines.into_iter().map(|line| (line.kind, line.priced)).collect()
}

fn line(kind: &str, cents: i64) -> (String, i64) {
    (kind.to_owned(), cents)
}

#[test]
fn a_change_on_16_january_gives_16_days_back_and_charges_16_days() {
    let mut model = model(0, &[monthly(0, 10_000), monthly(1, 20_000)], &[]);
    let (start_ms, change_ms) = (ms("2026-01-01T00:00:00Z"), ms("2026-01-16T12:00:00Z"));
    model.subscribe((0, 1), (0, 1), None, None, start_ms);
    model.close(start_ms, start_ms);
    model.change(0, 1, 1, change_ms);
    model.close(change_ms, change_ms);
    assert_eq!(lines(&model, 0), [line("base", 10_000)]);
    assert_eq!(lines(&model, 1), [line("unused", -5161), line("base", 10_323)]);
}

#[test]
fn half_off_for_three_months_of_100_is_150_also_of_two_years() {
    let half = Coupon {
        off: CouponDiscount::Percent(50_000),
        months: Some(3),
        plan: None,
    };
    let years = Offer {
        months: 24,
        ..monthly(0, 192_000)
    };
    let mut model = model(0, &[monthly(0, 10_000), years], &[half]);
    let start_ms = ms("2026-01-01T00:00:00Z");
    model.subscribe((0, 1), (1, 1), Some(0), None, start_ms);
    model.close(start_ms, start_ms);
    assert_eq!(lines(&model, 0), [line("base", 192_000), line("discount", -15_000)]);
}

#[test]
fn ten_tenths_give_back_the_whole_with_its_tax() {
    let mut model = model(19_000, &[monthly(0, 10_030)], &[]);
    let start_ms = ms("2026-01-01T00:00:00Z");
    model.subscribe((0, 1), (0, 1), None, None, start_ms);
    model.close(start_ms, start_ms);
    for _ in 0..10 {
        assert!(model.can_credit(0, Some(1003)));
        model.credit(0, Some(1003), start_ms);
    }
    assert!(!model.can_credit(0, Some(1)));
    let books = model.books();
    let taxes: Vec<i64> = books.documents.iter().map(|document| document.tax).collect();
    assert_eq!(
        taxes,
        [1906, -191, -190, -191, -190, -191, -191, -190, -191, -190, -191]
    );
    assert_eq!(books.documents[0].status, "paid");
    let balances: Vec<(&str, i64)> = books
        .balances
        .iter()
        .map(|(name, cents)| (name.as_str(), *cents))
        .collect();
    // What is taken back was earned where its lines were.
    assert!(balances.is_empty(), "{balances:?}");
}

#[test]
fn what_is_over_what_is_included_is_priced_in_the_ways_that_there_are() {
    let units = |units| fraction::Fraction::whole(units);
    const TIERS: &[(i64, i64)] = &[(10, 150_000), (110, 100_000), (i64::MAX, 50_000)];
    for (price, of, cents) in [
        (UnitPrice::Each(5000), 111, 555),
        (UnitPrice::Graduated(TIERS), 111, 11_550),
        (UnitPrice::Volume(TIERS), 111, 5550),
        (
            UnitPrice::Package {
                units: 10,
                rate: 10_000_000,
            },
            111,
            120_000,
        ),
        (UnitPrice::Free, 111, 0),
    ] {
        assert_eq!(price.cents(units(of)).round(), cents, "{price:?}");
    }
}

#[test]
fn usage_that_comes_late_costs_the_difference() {
    let transfer = Offer {
        metered: UsageTerms::Transfer {
            included_gib: 100,
            way: CountedDirection::Sum,
        },
        unit_price: UnitPrice::Each(5000),
        ..monthly(0, 2000)
    };
    let mut model = model(0, &[transfer], &[]);
    let (start_ms, end_ms) = (ms("2026-01-01T00:00:00Z"), ms("2026-02-01T00:00:00Z"));
    model.subscribe((0, 1), (0, 1), None, None, start_ms);
    model.add_traffic(1, ms("2026-01-10T00:00:00Z"), (60 << 30, 60 << 30));
    model.close(end_ms, end_ms);
    assert_eq!(lines(&model, 1), [line("base", 2000), line("transfer_overage", 100)]);
    model.add_traffic(1, ms("2026-01-20T00:00:00Z"), (10 << 30, 0));
    let later_ms = ms("2026-03-01T00:00:00Z");
    model.close(later_ms, later_ms);
    let last = lines(&model, 2);
    assert!(last.contains(&line("adjustment", 50)), "{last:?}");
}

#[test]
fn what_pooled_services_owe_does_not_depend_on_when_their_traffic_is_known() {
    let transfer = Offer {
        metered: UsageTerms::Transfer {
            included_gib: 100,
            way: CountedDirection::Sum,
        },
        unit_price: UnitPrice::Each(100_000),
        ..monthly(0, 1000)
    };
    let month = |number: u32| ms(&format!("2026-0{number}-01T00:00:00Z"));
    let mut model = model(0, &[transfer], &[]);
    model.change_pooling(0, true);
    model.subscribe((0, 1), (0, 1), None, None, month(1));
    model.subscribe((0, 2), (0, 1), None, None, month(1));
    model.add_traffic(1, ms("2026-01-10T00:00:00Z"), (150 << 30, 0));
    model.add_traffic(2, ms("2026-01-10T00:00:00Z"), (50 << 30, 0));
    model.close(month(2), month(2));
    let charged: i64 = lines(&model, 1).iter().map(|(_, cents)| cents).sum();
    assert_eq!(charged, 2 * 1000, "250 of 200 are not known yet");
    let late_ms = ms("2026-01-20T00:00:00Z");
    model.add_traffic(2, late_ms, (50 << 30, 0));
    model.change_pooling(0, false);
    model.close(month(3), month(3));
    assert!(lines(&model, 2).contains(&line("adjustment", 5000)));
    model.flag(2, late_ms, late_ms + 300_000);
    model.close(month(4), month(4));
    assert!(lines(&model, 3).contains(&line("adjustment", -5000)));
}
