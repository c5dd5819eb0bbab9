use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, TaxRateId};
use schemas::inventory::{BillingProfile, Customer, EntityProfile};
use schemas::money::{Currency, Money};
use schemas::percent::Percent;

use super::*;

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn percent(text: &str) -> Percent {
    Percent::new(text.parse().unwrap()).unwrap()
}

fn seller(country: &str) -> EntityProfile {
    EntityProfile {
        country: country.to_owned(),
        ..EntityProfile::default()
    }
}

fn customer(country: &str, region: &str, vat_id: &str) -> Customer {
    Customer {
        id: CustomerId(1),
        name: "Example".to_owned(),
        email: "billing@example.net".to_owned(),
        currency: Currency::EUR,
        time_zone: TimeZone::UTC,
        country: country.to_owned(),
        tax_rate: Percent::ZERO,
        billing: BillingProfile {
            region: region.to_owned(),
            vat_id: vat_id.to_owned(),
            ..BillingProfile::default()
        },
        email_verified_at_ms: None,
        created_at_ms: 0,
        deleted_at_ms: None,
    }
}

fn rate(id: i64, place: (&str, &str), name: &str, rate: &str, valid: (&str, Option<&str>)) -> TaxRate {
    TaxRate {
        id: TaxRateId(id),
        country: place.0.to_owned(),
        region: place.1.to_owned(),
        name: name.to_owned(),
        rate: percent(rate),
        valid_from_ms: ms(valid.0),
        valid_to_ms: valid.1.map(ms),
    }
}

/// Germany's standard rate was 16 % in the second half of 2020; its days begin at midnight in Berlin.
fn known_rates() -> Vec<TaxRate> {
    let always = ("2007-01-01T00:00:00Z", None);
    let (lowered, raised) = ("2020-06-30T22:00:00Z", "2020-12-31T23:00:00Z");
    vec![
        rate(1, ("DE", ""), "VAT", "19", ("2006-12-31T23:00:00Z", Some(lowered))),
        rate(2, ("DE", ""), "VAT", "16", (lowered, Some(raised))),
        rate(3, ("DE", ""), "VAT", "19", (raised, None)),
        rate(4, ("CA", "QC"), "QST", "9.975", always),
        rate(5, ("CA", ""), "GST", "5", always),
        rate(6, ("FR", ""), "TVA", "20", always),
        rate(7, ("CH", ""), "MWST", "8.1", ("2023-12-31T23:00:00Z", None)),
        rate(8, ("AE", ""), "VAT", "0", always),
        rate(
            9,
            ("NO", ""),
            "MVA",
            "25",
            ("2005-01-01T00:00:00Z", Some("2026-01-01T00:00:00Z")),
        ),
        rate(10, ("IS", ""), "VSK", "24", ("2026-07-01T00:00:00Z", None)),
    ]
}

fn told(rules: &Result<Vec<TaxRule>, HoldReason>) -> Vec<String> {
    let rules = match rules {
        Ok(rules) => rules,
        Err(missing) => return vec![missing.to_string()],
    };
    rules
        .iter()
        .map(|rule| format!("{} {}", rule.category, rule.name))
        .collect()
}

#[test]
fn the_rate_is_that_of_its_day() {
    for (at, expected) in [
        ("2020-06-30T21:59:59.999Z", "S VAT 19 %"),
        ("2020-06-30T22:00:00Z", "S VAT 16 %"),
        ("2020-12-31T22:59:59.999Z", "S VAT 16 %"),
        ("2020-12-31T23:00:00Z", "S VAT 19 %"),
        // Before any rate that is known: nobody takes that for 0 %.
        (
            "2006-12-31T22:59:59.999Z",
            "no tax rate is known for DE at 2006-12-31T22:59:59.999Z",
        ),
    ] {
        let rules = rules(
            &seller("DE"),
            &customer("DE", "", "DE123456789"),
            VatNumberStatus::Accepted,
            &known_rates(),
            ms(at),
        );
        assert_eq!(told(&rules), [expected], "{at}");
    }
}

#[test]
fn the_first_rule_that_applies_decides() {
    let now_ms = ms("2026-01-15T12:00:00Z");
    for (from, country, region, vat_id, expected) in [
        ("DE", "DE", "", "", &["S VAT 19 %"][..]),
        ("DE", "DE", "", "DE123456789", &["S VAT 19 %"]),
        ("DE", "FR", "", "FR12345678901", &["AE Reverse charge"]),
        ("DE", "FR", "", "", &["S TVA 20 %"]),
        // Monaco is France, both for its residents and for a seller in France.
        ("DE", "MC", "", "FR12345678901", &["AE Reverse charge"]),
        ("FR", "MC", "", "FR12345678901", &["S TVA 20 %"]),
        // Greek numbers begin with EL; GR is no prefix.
        ("DE", "GR", "", "EL123456789", &["AE Reverse charge"]),
        (
            "DE",
            "GR",
            "",
            "GR123456789",
            &["no tax rate is known for GR at 2026-01-15T12:00:00Z"],
        ),
        // A number of the seller's own state: the customer buys as established there.
        ("DE", "FR", "", "DE123456789", &["S TVA 20 %"]),
        // A number of a third state still makes it a business.
        ("DE", "FR", "", "NL123456789B01", &["AE Reverse charge"]),
        // Northern Ireland's numbers are for goods.
        ("DE", "GB", "", "XI123456789", &["O Outside the scope of VAT"]),
        ("DE", "GB", "", "GB123456789", &["O Outside the scope of VAT"]),
        ("DE", "US", "CA", "", &["O Outside the scope of VAT"]),
        // Registered there: the rates of the place are charged to customers outside the Union too.
        ("DE", "CH", "", "", &["S MWST 8.1 %"]),
        ("CA", "CA", "QC", "", &["S GST 5 %", "S QST 9.975 %"]),
        ("CA", "CA", " qc", "", &["S GST 5 %", "S QST 9.975 %"]),
        ("CA", "CA", "AB", "", &["S GST 5 %"]),
        ("US", "FR", "", "FR12345678901", &["S TVA 20 %"]),
        ("US", "AE", "", "", &["Z VAT 0 %"]),
        ("US", "US", "TX", "", &["O No tax"]),
        (
            "DE",
            "IT",
            "",
            "",
            &["no tax rate is known for IT at 2026-01-15T12:00:00Z"],
        ),
        (
            "DE",
            "IT",
            "TN",
            "",
            &["no tax rate is known for IT (TN) at 2026-01-15T12:00:00Z"],
        ),
        // What has ended and was not followed by another is not 0 % either, be it outside the Union.
        (
            "NO",
            "NO",
            "",
            "",
            &["no tax rate is known for NO at 2026-01-15T12:00:00Z"],
        ),
        // What is to come was not there before.
        ("IS", "IS", "", "", &["O No tax"]),
    ] {
        let rules = rules(
            &seller(from),
            &customer(country, region, vat_id),
            VatNumberStatus::Accepted,
            &known_rates(),
            now_ms,
        );
        assert_eq!(told(&rules), expected, "{from} to {country} {region} {vat_id}");
        for rule in rules.iter().flatten() {
            let is_taxed = rule.category == TaxCategory::Standard;
            assert_eq!(is_taxed, rule.rate > Percent::ZERO);
            let needs_reason = !matches!(rule.category, TaxCategory::Standard | TaxCategory::ZeroRated);
            assert_eq!(needs_reason, !rule.note.is_empty(), "{rule:?}");
        }
    }
}

#[test]
fn only_a_number_that_is_taken_makes_it_reverse_charged() {
    let now_ms = ms("2026-01-15T12:00:00Z");
    let of = |vat_id: &str, vat: VatNumberStatus| {
        let rules = rules(&seller("DE"), &customer("FR", "", vat_id), vat, &known_rates(), now_ms);
        told(&rules)
    };
    for (vat_id, vat, expected) in [
        ("FR40303265045", VatNumberStatus::Accepted, "AE Reverse charge"),
        ("FR40303265045", VatNumberStatus::Refused, "S TVA 20 %"),
        (
            "FR40303265045",
            VatNumberStatus::Unconfirmed,
            "the VAT number FR40303265045 is not confirmed yet",
        ),
        // A number that decides nothing need not be confirmed.
        ("DE136695976", VatNumberStatus::Unconfirmed, "S TVA 20 %"),
        ("", VatNumberStatus::Unconfirmed, "S TVA 20 %"),
    ] {
        assert_eq!(of(vat_id, vat), [expected], "{vat_id} {vat:?}");
    }
}

#[test]
fn an_exemption_goes_before_an_agreed_rate_and_that_before_the_rules() {
    let now_ms = ms("2026-01-15T12:00:00Z");
    let mut customer = customer("FR", "", "FR12345678901");
    customer.tax_rate = percent("8.875");
    let agreed = rules(
        &seller("DE"),
        &customer,
        VatNumberStatus::Accepted,
        &known_rates(),
        now_ms,
    );
    assert_eq!(told(&agreed), ["S VAT 8.875 %"]);
    customer.billing.tax_exempt_reason = "Article 151 of Directive 2006/112/EC".to_owned();
    let exempt = rules(
        &seller("DE"),
        &customer,
        VatNumberStatus::Accepted,
        &known_rates(),
        now_ms,
    );
    assert_eq!(told(&exempt), ["E Exempt from tax"]);
    assert_eq!(exempt.unwrap()[0].note, "Article 151 of Directive 2006/112/EC");
}

fn taxed_minor(lines: &[i64], rates: &[&str], inclusive: bool, currency: &str) -> (Vec<i64>, Vec<i64>, i64, i64) {
    let currency: Currency = currency.parse().unwrap();
    let lines: Vec<Money> = lines.iter().map(|&minor| Money::new(minor, currency)).collect();
    let taxed = apply(&lines, &rules_of(rates), inclusive, currency).unwrap();
    assert_eq!(taxed.subtotal.minor + taxed.tax.minor, taxed.total.minor);
    let minors = |amounts: &[Money]| amounts.iter().map(|amount| amount.minor).collect();
    let taxes: Vec<Money> = taxed.taxes.iter().map(|amount| amount.tax).collect();
    (
        minors(&taxed.lines_net),
        minors(&taxes),
        taxed.subtotal.minor,
        taxed.total.minor,
    )
}

fn rules_of(rates: &[&str]) -> Vec<TaxRule> {
    let rule = |rate: &&str| TaxRule {
        name: "VAT".to_owned(),
        category: TaxCategory::Standard,
        rate: percent(rate),
        note: String::new(),
    };
    rates.iter().map(rule).collect()
}

#[test]
fn b2_amounts_by_hand() {
    for (lines, rates, inclusive, currency, expected) in [
        // 0.19 × 3.33 = 0.6327, from the sum: three lines of 1.11 would have given 0.21 × 3 = 0.63 too, 1.14 does not.
        (
            &[111, 111, 111][..],
            &["19"][..],
            false,
            "EUR",
            (vec![111, 111, 111], vec![63], 333, 396),
        ),
        (
            &[114, 114, 114],
            &["19"],
            false,
            "EUR",
            (vec![114, 114, 114], vec![65], 342, 407),
        ),
        // 10.00 × 5 % = 0.50, × 9.975 % = 0.9975: each on the net.
        (
            &[1000],
            &["5", "9.975"],
            false,
            "CAD",
            (vec![1000], vec![50, 100], 1000, 1150),
        ),
        // A tie goes away from zero: 0.50 × 19 % = 0.095.
        (&[50], &["19"], false, "EUR", (vec![50], vec![10], 50, 60)),
        (&[-50], &["19"], false, "EUR", (vec![-50], vec![-10], -50, -60)),
        (&[1005], &["10"], false, "JPY", (vec![1005], vec![101], 1005, 1106)),
        (&[1234], &["5"], false, "KWD", (vec![1234], vec![62], 1234, 1296)),
        // 119.00 holds 19.00.
        (
            &[11_900],
            &["19"],
            true,
            "EUR",
            (vec![10_000], vec![1900], 10_000, 11_900),
        ),
        // 3 × 1.00: tax 0.479 → 0.48, net 2.52 = 3 × 0.84 exactly 0.8403.
        (
            &[100, 100, 100],
            &["19"],
            true,
            "EUR",
            (vec![84, 84, 84], vec![48], 252, 300),
        ),
        // 2 × 0.10 at 7 %: tax 0.013 → 0.01, net 0.19 = 0.10 + 0.09.
        (&[10, 10], &["7"], true, "EUR", (vec![10, 9], vec![1], 19, 20)),
        (&[1100, 1], &["10"], true, "JPY", (vec![1000, 1], vec![100], 1001, 1101)),
        // 114.975 holds 5 and 9.975.
        (
            &[114_975],
            &["5", "9.975"],
            true,
            "KWD",
            (vec![100_000], vec![5000, 9975], 100_000, 114_975),
        ),
        (&[], &["19"], true, "EUR", (vec![], vec![0], 0, 0)),
        (
            &[500, 0, -500],
            &["19"],
            true,
            "EUR",
            (vec![420, 0, -420], vec![0], 0, 0),
        ),
        (
            &[1190, -119],
            &["0"],
            true,
            "EUR",
            (vec![1190, -119], vec![0], 1071, 1071),
        ),
        (&[77], &[], true, "EUR", (vec![77], vec![], 77, 77)),
    ] {
        assert_eq!(
            taxed_minor(lines, rates, inclusive, currency),
            expected,
            "{lines:?} {rates:?}"
        );
    }
}

#[test]
fn amounts_that_cannot_be_added_are_refused() {
    let rules = rules_of(&["19"]);
    let mixed = [Money::new(1, Currency::USD)];
    assert!(apply(&mixed, &rules, false, Currency::EUR).is_err());
    let large = [Money::new(i64::MAX, Currency::EUR); 2];
    assert!(apply(&large, &rules, false, Currency::EUR).is_err());
    assert!(
        apply(&large[..1], &rules, false, Currency::EUR).is_err(),
        "the total does not fit"
    );
    assert!(apply(&[Money::new(i64::MIN, Currency::EUR)], &rules, true, Currency::EUR).is_err());
}

proptest! {
    #[test]
    fn b2_sums_hold_and_a_credit_note_mirrors(
        minors in prop::collection::vec(-50_000_000i64..50_000_000, 0..12),
        rates in prop::collection::vec(0i64..30_000, 0..3),
        inclusive in any::<bool>(),
        currency in prop::sample::select(vec!["EUR", "JPY", "KWD"]),
    ) {
        let currency: Currency = currency.parse().unwrap();
        let rules: Vec<TaxRule> = rates
            .iter()
            .map(|&thousandths| TaxRule {
                name: "VAT".to_owned(),
                category: TaxCategory::Standard,
                rate: Percent::new(Decimal::new(thousandths, 3)).unwrap(),
                note: String::new(),
            })
            .collect();
        let lines: Vec<Money> = minors.iter().map(|&minor| Money::new(minor, currency)).collect();
        let taxed = apply(&lines, &rules, inclusive, currency).unwrap();

        prop_assert_eq!(taxed.subtotal.minor + taxed.tax.minor, taxed.total.minor);
        prop_assert_eq!(taxed.lines_net.iter().map(|net| net.minor).sum::<i64>(), taxed.subtotal.minor);
        prop_assert_eq!(taxed.taxes.iter().map(|amount| amount.tax.minor).sum::<i64>(), taxed.tax.minor);
        prop_assert_eq!(taxed.lines_net.len(), lines.len());
        let sum: i64 = minors.iter().sum();
        prop_assert_eq!(if inclusive { taxed.total.minor } else { taxed.subtotal.minor }, sum);

        // In thousandths of a percent, so that nothing below is rounded.
        let gross = 100_000 + rates.iter().sum::<i64>();
        for (amount, &rate) in taxed.taxes.iter().zip(&rates) {
            let divisor = if inclusive { gross } else { 100_000 };
            let twice_off = (i128::from(sum) * i128::from(rate) - i128::from(amount.tax.minor) * i128::from(divisor)).abs() * 2;
            prop_assert!(twice_off <= i128::from(divisor), "a tax is the nearest minor unit");
        }
        if inclusive {
            for (line, net) in minors.iter().zip(&taxed.lines_net) {
                let off = (i128::from(*line) * 100_000 - i128::from(net.minor) * i128::from(gross)).abs();
                prop_assert!(off <= i128::from(gross), "{} became {}", line, net.minor);
            }
        }

        let turned: Vec<Money> = lines.iter().map(|line| line.checked_neg().unwrap()).collect();
        let mirror = apply(&turned, &rules, inclusive, currency).unwrap();
        prop_assert_eq!(mirror.total.minor, -taxed.total.minor);
        prop_assert_eq!(mirror.subtotal.minor, -taxed.subtotal.minor);
        for (a, b) in mirror.lines_net.iter().zip(&taxed.lines_net) {
            prop_assert_eq!(a.minor, -b.minor);
        }
        for (a, b) in mirror.taxes.iter().zip(&taxed.taxes) {
            prop_assert_eq!((a.net.minor, a.tax.minor), (-b.net.minor, -b.tax.minor));
        }
    }
}

async fn database() -> (tempfile::TempDir, Database) {
    let dir = fixtures::in_memory_folder();
    crate::testing::migrated(dir.path()).await;
    let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
    (dir, database)
}

fn new<'a>(rate: &str, from: &str, to: Option<&str>) -> NewTaxRate<'a> {
    NewTaxRate {
        country: "DE",
        region: "",
        name: "VAT",
        rate_percent: rate.parse().unwrap(),
        valid_from_ms: ms(from),
        valid_to_ms: to.map(ms),
    }
}

#[tokio::test]
async fn a_tax_has_one_rate_at_a_time() {
    let (_dir, database) = database().await;
    let mut connection = database.begin_write().await.unwrap();
    let now_ms = ms("2020-06-05T00:00:00Z");
    let old = new("19.0", "2006-12-31T23:00:00Z", None);
    let old = add_rate(&mut connection, old, now_ms).await.unwrap();
    assert_eq!(old.rate.to_string(), "19 %");

    let lowered = new("16", "2020-06-30T22:00:00Z", Some("2020-12-31T23:00:00Z"));
    let refused = add_rate(&mut connection, lowered, now_ms).await.unwrap_err();
    assert!(refused.to_string().contains(&old.id.to_string()), "{refused}");
    end_rate(&mut connection, old.id, lowered.valid_from_ms, now_ms)
        .await
        .unwrap();
    let lowered = add_rate(&mut connection, lowered, now_ms).await.unwrap();
    let raised = new("19", "2020-12-31T23:00:00Z", None);
    add_rate(&mut connection, raised, now_ms).await.unwrap();
    // Another tax of the same place may hold beside it.
    let beside = NewTaxRate { name: "Levy", ..raised };
    add_rate(&mut connection, beside, now_ms).await.unwrap();
    let region = NewTaxRate { region: "BY", ..raised };
    add_rate(&mut connection, region, now_ms).await.unwrap();

    let stored = rates(&mut *connection).await.unwrap();
    assert_eq!(stored.len(), 5);
    for (at, expected) in [
        ("2020-06-30T21:59:59Z", "S VAT 19 %"),
        ("2020-06-30T22:00:00Z", "S VAT 16 %"),
        ("2021-01-01T00:00:00Z", "S VAT 19 %"),
    ] {
        let found = rules(
            &seller("DE"),
            &customer("DE", "", ""),
            VatNumberStatus::Accepted,
            &stored,
            ms(at),
        );
        assert!(told(&found).contains(&expected.to_owned()), "{at}: {found:?}");
    }

    // An end that has passed stays; one to come moves, but not into the next rate.
    let late_ms = ms("2020-09-01T00:00:00Z");
    let error = end_rate(&mut connection, old.id, late_ms, late_ms).await.unwrap_err();
    assert!(matches!(error, TaxError::AlreadyEnded { .. }), "{error}");
    let further_ms = ms("2021-06-01T00:00:00Z");
    let error = end_rate(&mut connection, lowered.id, further_ms, late_ms)
        .await
        .unwrap_err();
    assert!(matches!(error, TaxError::Overlap { .. }), "{error}");
    end_rate(&mut connection, lowered.id, ms("2020-10-01T00:00:00Z"), late_ms)
        .await
        .unwrap();
    let error = end_rate(&mut connection, TaxRateId(99), late_ms, late_ms)
        .await
        .unwrap_err();
    assert!(matches!(error, TaxError::NoRate(_)), "{error}");
}

#[tokio::test]
async fn a_rate_that_cannot_be_is_refused() {
    let (_dir, database) = database().await;
    let mut connection = database.begin_write().await.unwrap();
    let sound = new("19", "2020-01-01T00:00:00Z", None);
    for (bad, part) in [
        (NewTaxRate { country: "de", ..sound }, "two capital letters"),
        (NewTaxRate { country: "QX", ..sound }, "QX"),
        (NewTaxRate { name: " ", ..sound }, "tax name"),
        (
            NewTaxRate {
                region: "a\nb",
                ..sound
            },
            "region",
        ),
        (new("101", "2020-01-01T00:00:00Z", None), "out of range"),
        (
            new("19", "2020-01-01T00:00:00Z", Some("2020-01-01T00:00:00Z")),
            "before it starts",
        ),
    ] {
        let error = add_rate(&mut connection, bad, 0).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(rates(&mut *connection).await.unwrap().is_empty());
}
