use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::percent::Percent;

use super::*;
use crate::tax::{TaxCategory, apply};

fn rules_of(rates: &[&str]) -> Vec<TaxRule> {
    let rule = |rate: &&str| TaxRule {
        name: format!("VAT {rate} %"),
        category: TaxCategory::Standard,
        rate: Percent::new(rate.parse().unwrap()).unwrap(),
        note: String::new(),
    };
    rates.iter().map(rule).collect()
}

fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

fn charged(lines: &[i64], rules: &[TaxRule], inclusive: bool) -> ChargedTax {
    let lines: Vec<Money> = lines.iter().map(|&minor| eur(minor)).collect();
    let mut charged = ChargedTax::new(Currency::EUR);
    for amount in apply(&lines, rules, inclusive, Currency::EUR).unwrap().taxes {
        charged.charge(amount);
    }
    charged
}

/// Corrects by each amount in turn; net and tax of every correction.
fn corrected(charged: &mut ChargedTax, amounts: &[i64], inclusive: bool) -> Vec<(i64, i64)> {
    let mut made = Vec::new();
    for &minor in amounts {
        let taxed = charged.correct(&[eur(minor)], inclusive, Currency::EUR).unwrap();
        charged.add(&taxed.taxes).unwrap();
        made.push((taxed.subtotal.minor, taxed.tax.minor));
    }
    made
}

fn left(charged: &ChargedTax) -> (i64, i64) {
    (charged.left_net().unwrap().minor, charged.left_gross().unwrap().minor)
}

#[test]
fn ten_tenths_give_exactly_the_whole() {
    let mut of_invoice = charged(&[10_030], &rules_of(&["19"]), false);
    let made = corrected(&mut of_invoice, &[-1003; 10], false);
    let taxes: Vec<i64> = made.iter().map(|(_, tax)| *tax).collect();
    assert_eq!(taxes, [-191, -190, -191, -190, -191, -191, -190, -191, -190, -191]);
    assert_eq!(left(&of_invoice), (0, 0));
}

#[test]
fn many_small_parts_never_run_away_from_the_rate() {
    let mut of_invoice = charged(&[3000], &rules_of(&["19"]), false);
    let mut given = 0;
    for (part, (_, tax)) in (1i64..).zip(corrected(&mut of_invoice, &[-3; 1000], false)) {
        given += tax;
        // In hundredths of a minor unit.
        assert!((given * 100 + part * 57).abs() <= 50, "after {part} parts: {given}");
    }
    assert_eq!(left(&of_invoice), (0, 0));
}

#[test]
fn what_is_given_back_bears_the_rate_and_the_proportion_that_it_was_charged_with() {
    for (lines, rates, inclusive, back, expected) in [
        // A year at 16 %, 153 days of it given back.
        (&[36_500][..], &["16"][..], false, -15_300, (-15_300, -2448)),
        // Nothing was charged, so nothing is given back.
        (&[36_500], &["0"], false, -15_300, (-15_300, 0)),
        // Two taxes on one line.
        (&[10_000], &["5", "9.975"], false, -5000, (-5000, -749)),
        // Prices with tax: 119.00 holds 19.00.
        (&[11_900], &["19"], true, -1190, (-1000, -190)),
        (&[11_900], &["19"], true, -11_900, (-10_000, -1900)),
        // More than was charged: by the rate.
        (&[1000], &["19"], false, 500, (500, 95)),
        (&[11_900], &["19"], true, 1190, (1000, 190)),
        // Beyond nothing, and what was a credit.
        (&[1000], &["19"], false, -2000, (-2000, -380)),
        (&[-1000], &["19"], false, 500, (500, 95)),
        (&[0], &["19"], false, -1000, (-1000, -190)),
    ] {
        let mut of_invoice = charged(lines, &rules_of(rates), inclusive);
        let made = corrected(&mut of_invoice, &[back], inclusive);
        assert_eq!(made, [expected], "{lines:?} {rates:?} {back}");
    }
}

#[test]
fn what_was_given_back_and_is_charged_again_bears_the_same_tax() {
    let mut of_invoice = charged(&[10_030], &rules_of(&["19"]), false);
    let made = corrected(&mut of_invoice, &[-1003, 1003, -37, -966, 1003, 500, -500], false);
    assert_eq!(made.iter().map(|(_, tax)| tax).sum::<i64>(), 0, "{made:?}");
    assert_eq!(made[0].1, -made[1].1);
    assert_eq!(left(&of_invoice), (10_030, 10_030 + 1906));
}

#[test]
fn of_what_was_charged_later_each_charge_gives_back_its_own_tax() {
    for (inclusive, first, credited, more) in [
        (false, (7700, 1463), (-1376, -261), (3850, 731)),
        (true, (6471, 1229), (-1376, -261), (3236, 614)),
    ] {
        let mut of_first = charged(&[7700], &rules_of(&["19"]), inclusive);
        assert_eq!((of_first.charged_net().minor, of_first.taxes[0].tax.minor), first);
        let back = if inclusive { -1637 } else { -1376 };
        assert_eq!(corrected(&mut of_first, &[back], inclusive), [credited]);
        let late = of_first.charge_more(&[eur(3850)], inclusive, Currency::EUR).unwrap();
        assert_eq!((late.subtotal.minor, late.tax.minor), more);
        of_first.add_beside(&late.taxes).unwrap();
        let mut of_late = ChargedTax::new(Currency::EUR);
        for amount in late.taxes {
            of_late.charge(amount);
        }
        let rest = corrected(&mut of_first, &[-7700 - back], inclusive)[0];
        assert_eq!(rest, (-first.0 - credited.0, -first.1 - credited.1));
        assert_eq!(corrected(&mut of_late, &[-3850], inclusive), [(-more.0, -more.1)]);
        assert_eq!((left(&of_first), left(&of_late)), ((0, 0), (0, 0)));
    }
}

proptest! {
    #[test]
    fn the_order_of_corrections_makes_no_difference_and_nothing_remains(
        lines in prop::collection::vec(1i64..5_000_000, 1..5),
        parts in prop::collection::vec(-3_000_000i64..3_000_000, 0..12),
        rates in prop::collection::vec(0i64..30_000, 1..3),
        inclusive in any::<bool>(),
    ) {
        let rules: Vec<TaxRule> = rates
            .iter()
            .map(|&thousandths| TaxRule {
                name: "VAT".to_owned(),
                category: TaxCategory::Standard,
                rate: Percent::new(Decimal::new(thousandths, 3)).unwrap(),
                note: String::new(),
            })
            .collect();
        let whole = charged(&lines, &rules, inclusive);
        let sum: i64 = lines.iter().sum();
        let mut forwards = whole.clone();
        corrected(&mut forwards, &parts, inclusive);
        let mut backwards = whole.clone();
        let turned: Vec<i64> = parts.iter().rev().copied().collect();
        corrected(&mut backwards, &turned, inclusive);
        prop_assert_eq!(left(&forwards), left(&backwards));

        // The rest, whatever it is, takes everything with it.
        let rest = -(sum + parts.iter().sum::<i64>());
        corrected(&mut forwards, &[rest], inclusive);
        prop_assert_eq!(left(&forwards), (0, 0));
        prop_assert!(forwards.taxes.iter().zip(&forwards.since_taxes).all(|(tax, since)| tax.tax.minor == -since.minor));
    }

    #[test]
    fn of_no_charge_a_tax_stays_whatever_was_charged_beside_it_and_in_whatever_order_they_go(
        first in 1i64..5_000_000,
        // A part of what is left of the first charge, in permille, then what is charged more.
        turns in prop::collection::vec((0i64..1000, 1i64..2_000_000), 1..6),
        rates in prop::collection::vec(0i64..30_000, 1..3),
        inclusive in any::<bool>(),
        first_goes_last in any::<bool>(),
    ) {
        let rules: Vec<TaxRule> = rates
            .iter()
            .map(|&thousandths| TaxRule {
                name: "VAT".to_owned(),
                category: TaxCategory::Standard,
                rate: Percent::new(Decimal::new(thousandths, 3)).unwrap(),
                note: String::new(),
            })
            .collect();
        let mut of_first = charged(&[first], &rules, inclusive);
        let mut first_left = first;
        let mut beside = Vec::new();
        for (permille, more) in turns {
            let back = first_left * permille / 1000;
            corrected(&mut of_first, &[-back], inclusive);
            first_left -= back;
            let late = of_first.charge_more(&[eur(more)], inclusive, Currency::EUR).unwrap();
            of_first.add_beside(&late.taxes).unwrap();
            let mut of_late = ChargedTax::new(Currency::EUR);
            for amount in late.taxes {
                of_late.charge(amount);
            }
            beside.push((of_late, more));
        }
        if !first_goes_last {
            corrected(&mut of_first, &[-first_left], inclusive);
        }
        for (of_late, more) in &mut beside {
            let half = *more / 2;
            for back in [half, *more - half] {
                let taxed = of_late.correct(&[eur(-back)], inclusive, Currency::EUR).unwrap();
                of_late.add(&taxed.taxes).unwrap();
                of_first.add_beside(&taxed.taxes).unwrap();
            }
            prop_assert_eq!(left(of_late), (0, 0));
        }
        if first_goes_last {
            corrected(&mut of_first, &[-first_left], inclusive);
        }
        prop_assert_eq!(left(&of_first), (0, 0));
        prop_assert!(of_first.since_taxes.iter().zip(&of_first.taxes).all(|(since, tax)| since.minor == -tax.tax.minor));
        prop_assert_eq!(of_first.beside_net.minor, 0);
        prop_assert!(of_first.beside_taxes.iter().all(|tax| tax.minor == 0));
    }
}
