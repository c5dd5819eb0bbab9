//! The steps of lines from usage: what was measured, what of it counts, what that costs.

use billing::catalog::QuotaUnit;
use billing::evidence::{Measured, UsageCharge};
use billing::invoice::InvoiceLine;
use billing::price::{PricePart, UsagePrice};
use billing::rating::{held_days, usage_parts};
use rust_decimal::Decimal;
use schemas::money::{Currency, Money};

use super::{EXACT_PLACES, Step, decimal, money, price, rounded, step};
use crate::format::{self, VolumeUnits};
use crate::pages::usage::mode_words;

fn exact_bytes(value: u64) -> String {
    format!("{} bytes", format::grouped(value))
}

fn rate(bps: u64) -> String {
    format!("{} bit/s", format::grouped(bps))
}

pub(super) fn usage(charge: &UsageCharge, measured: &Measured, line: &InvoiceLine) -> Vec<Step> {
    let units = VolumeUnits::of_charge(charge);
    let mut steps = vec![
        step(
            "Received",
            units.bytes(measured.bytes_in),
            exact_bytes(measured.bytes_in),
        ),
        step("Sent", units.bytes(measured.bytes_out), exact_bytes(measured.bytes_out)),
    ];
    steps.extend(coverage(measured, units));
    steps.extend(counted(charge, measured));
    steps.extend(priced(charge, measured, line.priced.currency));
    steps.push(step(
        "Charged",
        line.priced.to_string(),
        charged_note(charge, measured, line.priced),
    ));
    steps
}

/// What of the period was measured, and what of it was left out.
pub(super) fn coverage(measured: &Measured, units: VolumeUnits) -> Vec<Step> {
    let known = measured.windows_measured.saturating_add(measured.windows_excluded);
    let missing = measured.windows_expected.saturating_sub(known);
    let note = match (missing, measured.gaps.len()) {
        (0, _) => "all there are: no gaps".to_owned(),
        (missing, gaps) => format!(
            "{} not measured, in {gaps} {}: never estimated, never charged",
            format::grouped(missing),
            if gaps == 1 { "gap" } else { "gaps" }
        ),
    };
    let mut steps = vec![step(
        "5-minute windows",
        format!(
            "{} of {}",
            format::grouped(measured.windows_measured),
            format::grouped(measured.windows_expected)
        ),
        note,
    )];
    if measured.windows_excluded > 0 {
        let bytes = measured.excluded_bytes_in.saturating_add(measured.excluded_bytes_out);
        steps.push(step(
            "Attack traffic left out",
            units.bytes(bytes),
            format!(
                "{} windows that operations excluded; in no other number here",
                format::grouped(measured.windows_excluded)
            ),
        ));
    }
    steps
}

/// From what was measured to the units that cost.
pub(super) fn counted(charge: &UsageCharge, measured: &Measured) -> Vec<Step> {
    let mode = mode_words(measured.mode);
    match charge {
        UsageCharge::Transfer {
            unit,
            included_bytes,
            from_pool_bytes,
            ..
        } => {
            let free = included_bytes.saturating_add(*from_pool_bytes);
            let over = measured.billed_bytes.saturating_sub(free);
            let volume = |bytes: u64| format::in_unit(bytes, unit.bytes(), unit.name());
            let mut steps = vec![
                step(
                    format!("What counts: {mode}"),
                    volume(measured.billed_bytes),
                    exact_bytes(measured.billed_bytes),
                ),
                step(
                    "Included in the plan",
                    volume(*included_bytes),
                    exact_bytes(*included_bytes),
                ),
            ];
            if *from_pool_bytes > 0 {
                steps.push(step(
                    "Left by other services",
                    volume(*from_pool_bytes),
                    exact_bytes(*from_pool_bytes),
                ));
            }
            steps.push(step(
                "Over what is included",
                volume(over),
                format!("{} ÷ {} per {unit}", exact_bytes(over), format::grouped(unit.bytes())),
            ));
            steps
        }
        UsageCharge::Percentile {
            commit_bps,
            from_pool_bps,
            ..
        } => {
            let percentile = measured.percentile_95_bps.unwrap_or(0);
            let note = match measured.percentile_95_bps {
                Some(_) => rank_words(measured),
                None => "no window was measured".to_owned(),
            };
            let mut steps = vec![
                step(
                    format!("95th percentile of {mode}"),
                    format::bits_per_second(percentile),
                    note,
                ),
                step("Commit", format::bits_per_second(*commit_bps), rate(*commit_bps)),
            ];
            if *from_pool_bps > 0 {
                steps.push(step(
                    "Left by other services",
                    format::bits_per_second(*from_pool_bps),
                    rate(*from_pool_bps),
                ));
            }
            let over = percentile.saturating_sub(commit_bps.saturating_add(*from_pool_bps));
            steps.push(step("Over the commit", format::bits_per_second(over), rate(over)));
            steps
        }
    }
}

/// `value 8,208 of 8,640 measured windows, smallest first: the 432 busiest are not charged`.
fn rank_words(measured: &Measured) -> String {
    let busier = measured.windows_measured.saturating_sub(measured.percentile_rank);
    format!(
        "value {} of {} measured windows, smallest first: the {} busiest are not charged",
        format::grouped(measured.percentile_rank),
        format::grouped(measured.windows_measured),
        format::grouped(busier)
    )
}

fn unit_name(charge: &UsageCharge) -> &'static str {
    match charge {
        UsageCharge::Transfer {
            unit: QuotaUnit::Gb, ..
        } => "GB",
        UsageCharge::Transfer {
            unit: QuotaUnit::Gib, ..
        } => "GiB",
        UsageCharge::Percentile { .. } => "Mbit/s",
    }
}

/// The price, tier by tier or by packages begun, and the share of the month that it is charged for.
pub(super) fn priced(charge: &UsageCharge, measured: &Measured, currency: Currency) -> Vec<Step> {
    let unit = unit_name(charge);
    let Ok(found) = usage_parts(charge, measured) else {
        return Vec::new();
    };
    let worth = |part: &PricePart| {
        let exact = part.amount.to_decimal(EXACT_PLACES).unwrap_or_default();
        format::with_currency(&price(exact, currency), currency)
    };
    let times = |part: &PricePart| format!("{} {unit} × {}", decimal(part.quantity), price(part.rate, currency));
    let mut steps = Vec::new();
    match charge.price() {
        UsagePrice::PerUnit { rate } => {
            steps.push(step(
                "Price",
                format::with_currency(&price(*rate, currency), currency),
                format!("per {unit} over it"),
            ));
        }
        UsagePrice::Package { units, rate } => {
            let what = format!("Packages of {units} {unit}");
            let each = format!("begun ones count; {currency} {} each", price(*rate, currency));
            let begun = found.parts.first().map_or(Decimal::ZERO, |part| part.quantity);
            steps.push(step(what, decimal(begun), each));
        }
        UsagePrice::Graduated { .. } => {
            for part in &found.parts {
                steps.push(step(
                    format!("Tier {}", tier_words(part, unit)),
                    worth(part),
                    times(part),
                ));
            }
        }
        UsagePrice::Volume { .. } => {
            for part in &found.parts {
                let note = format!("{}: the last one falls into this tier", times(part));
                steps.push(step(
                    format!("All at the rate {}", tier_words(part, unit)),
                    worth(part),
                    note,
                ));
            }
        }
    }
    if let Some((days, nominal_days, is_held)) = share_of_month(charge) {
        steps.push(step(
            "Days",
            format!("{days} of {nominal_days}"),
            if is_held {
                "the time that these terms held; the price is for a whole month"
            } else {
                "the price is for a whole month"
            },
        ));
    }
    steps
}

/// The days of a part of a month, of how many, and whether they are the time that the terms held to the minute; nothing of a
/// whole month, and of transfer.
fn share_of_month(charge: &UsageCharge) -> Option<(String, i64, bool)> {
    match charge {
        UsageCharge::Percentile {
            held: Some(held),
            nominal_days,
            ..
        } => Some((held_days(held, *nominal_days).ok()?.to_string(), *nominal_days, true)),
        UsageCharge::Percentile { days, nominal_days, .. } if days != nominal_days => {
            Some((days.to_string(), *nominal_days, false))
        }
        _ => None,
    }
}

/// `up to 10 GB`, `over 10 up to 110 GB`, `over 110 GB`.
fn tier_words(part: &PricePart, unit: &str) -> String {
    match (part.over_units, part.up_to_units) {
        (0, Some(up_to)) => format!("up to {up_to} {unit}"),
        (0, None) => "for any volume".to_owned(),
        (over, Some(up_to)) => format!("over {over} up to {up_to} {unit}"),
        (over, None) => format!("over {over} {unit}"),
    }
}

pub(super) fn charged_note(charge: &UsageCharge, measured: &Measured, charged: Money) -> String {
    let Ok(found) = usage_parts(charge, measured) else {
        return String::new();
    };
    let Some(part) = found.parts.first() else {
        return match charge {
            UsageCharge::Transfer { .. } => "nothing is over what is included".to_owned(),
            UsageCharge::Percentile { .. } => "nothing is over the commit".to_owned(),
        };
    };
    let mut formula = match charge.price() {
        UsagePrice::PerUnit { .. } | UsagePrice::Volume { .. } => {
            let unit = unit_name(charge);
            format!(
                "{} {unit} × {}",
                decimal(part.quantity),
                price(part.rate, charged.currency)
            )
        }
        UsagePrice::Package { .. } => format!("{} × {}", decimal(part.quantity), price(part.rate, charged.currency)),
        UsagePrice::Graduated { .. } => "the sum of the tiers".to_owned(),
    };
    if let Some((days, nominal_days, _)) = share_of_month(charge) {
        formula.push_str(&format!(" × {days} ÷ {nominal_days}"));
    }
    rounded(&formula, Ok(found.exact), charged)
}

/// What was charged then, what is known now, and the difference.
pub(super) fn adjustment(
    charge: &UsageCharge,
    (then, charged_minor, charged_on): (&Measured, i64, &str),
    (now, due_minor): (&Measured, i64),
    given_elsewhere_minor: i64,
    line: &InvoiceLine,
) -> Vec<Step> {
    let units = VolumeUnits::of_charge(charge);
    let mut steps = match charge {
        UsageCharge::Transfer { .. } => vec![
            step(
                "Counted then",
                units.bytes(then.billed_bytes),
                format!("{}, charged on {charged_on}", exact_bytes(then.billed_bytes)),
            ),
            step(
                "Counted now",
                units.bytes(now.billed_bytes),
                exact_bytes(now.billed_bytes),
            ),
        ],
        UsageCharge::Percentile { .. } => {
            let percentile = |measured: &Measured| {
                let words = |bps| (format::bits_per_second(bps), rank_words(measured));
                measured
                    .percentile_95_bps
                    .map_or_else(|| ("–".to_owned(), "no window was measured".to_owned()), words)
            };
            let ((value_then, note_then), (value_now, note_now)) = (percentile(then), percentile(now));
            vec![
                step(
                    "95th percentile then",
                    value_then,
                    format!("{note_then}; charged on {charged_on}"),
                ),
                step("95th percentile now", value_now, note_now),
            ]
        }
    };
    steps.extend(coverage(now, units));
    steps.extend(counted(charge, now));
    steps.extend(priced(charge, now, line.priced.currency));
    let due = Money::new(due_minor, line.priced.currency);
    steps.push(step(
        "The period costs",
        due.to_string(),
        charged_note(charge, now, due),
    ));
    steps.push(step(
        "Charged already",
        money(charged_minor, line),
        format!("by {charged_on} and later corrections of that month"),
    ));
    let difference = money(line.priced.minor - given_elsewhere_minor, line);
    steps.push(step("Difference", difference, "what it costs, less what was charged"));
    if given_elsewhere_minor != 0 {
        steps.push(step(
            "Credited elsewhere",
            money(given_elsewhere_minor, line),
            "before, or by another line: nothing is credited twice",
        ));
        steps.push(step("Credited", line.priced.to_string(), "what was left of that line"));
    }
    steps
}
