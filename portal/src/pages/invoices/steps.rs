//! How each amount on an invoice came about, in the order in which it was computed, from what is kept with it (B5): nothing is
//! measured or looked up anew, so an explanation says the same in ten years.
//!
//! Every kind of line and every tax has one. The last step is the amount as it was charged; the note beside it is the whole
//! calculation, with what it came to before it was rounded.

use billing::catalog::QuotaUnit;
use billing::evidence::{BaseCharge, Evidence, Measured, UsageCharge};
use billing::invoice::{Invoice, InvoiceLine};
use billing::price::{PricePart, UsagePrice};
use billing::rating::{base_amount, usage_parts};
use billing::ratio::Ratio;
use billing::tax::{TaxAmount, TaxCategory};
use rust_decimal::Decimal;
use schemas::ids::InvoiceId;
use schemas::money::{Currency, Money, MoneyError};

use crate::format::{self, VolumeUnits};
use crate::pages::usage::mode_words;

/// Decimal places of an amount before it is rounded.
const EXACT_PLACES: u32 = 6;

/// A step of a calculation: what, how much, and a remark.
pub(crate) struct Step {
    pub(crate) what: String,
    pub(crate) value: String,
    pub(crate) note: String,
    /// Of the document that the value names.
    pub(crate) href: Option<String>,
}

fn step(what: impl Into<String>, value: impl Into<String>, note: impl Into<String>) -> Step {
    Step {
        what: what.into(),
        value: value.into(),
        note: note.into(),
        href: None,
    }
}

/// A decimal with its thousands apart and no needless zeros.
pub(super) fn decimal(value: Decimal) -> String {
    value.normalize().to_string()
}

/// A price: at least the currency's digits, more where it has more.
pub(super) fn price(value: Decimal, currency: Currency) -> String {
    let mut shown = value.normalize();
    if shown.scale() < currency.minor_digits() {
        shown.rescale(currency.minor_digits());
    }
    shown.to_string()
}

fn exact_bytes(value: u64) -> String {
    format!("{} bytes", format::grouped(value))
}

fn rate(bps: u64) -> String {
    format!("{} bit/s", format::grouped(bps))
}

/// `100.00 × 16 ÷ 31 = 51.612903 USD, rounded once`; without the end where nothing was rounded.
fn rounded(formula: &str, exact: Result<Ratio, MoneyError>, charged: Money) -> String {
    let Ok(exact) = exact.and_then(|exact| exact.to_decimal(EXACT_PLACES)) else {
        return formula.to_owned();
    };
    let is_exact = exact == charged.to_major().normalize();
    match (formula, is_exact) {
        (formula, true) => formula.to_owned(),
        ("", false) => format!("{exact} {}, rounded once", charged.currency),
        (formula, false) => format!("{formula} = {exact} {}, rounded once", charged.currency),
    }
}

/// The steps of one line; `documents` is where invoices lie, such as `/finance/invoices`.
pub(super) fn of_line(line: &InvoiceLine, documents: &str) -> Vec<Step> {
    let link = |id: &InvoiceId| Some(format!("{documents}/{id}"));
    let mut steps = match &line.evidence {
        Evidence::Base(charge) => base(charge, line),
        Evidence::Usage { charge, measured } => usage(charge, measured, line),
        Evidence::Discount {
            code,
            off_minor,
            percent,
            amount_minor,
        } => discount(line, code, *off_minor, percent.as_deref(), *amount_minor),
        Evidence::Unused {
            corrects_invoice,
            corrects_number,
            charged,
            discount_minor,
            unused_days,
            ..
        } => {
            let mut steps = vec![Step {
                href: link(corrects_invoice),
                ..step(
                    "Charged on",
                    corrects_number.as_str(),
                    "in advance, for the whole period",
                )
            }];
            steps.extend(unused(charged, *discount_minor, *unused_days, line));
            steps
        }
        Evidence::Adjustment {
            corrects_invoice,
            corrects_number,
            charged,
            charged_minor,
            due_minor,
            charge,
            measured,
            ..
        } => {
            let why = match charged.excluded == measured.excluded {
                true => "its traffic was stored or assigned after that invoice was issued",
                false => "attack traffic of its period was left out after that invoice was issued",
            };
            let mut steps = vec![Step {
                href: link(corrects_invoice),
                ..step("Corrects", corrects_number.as_str(), why)
            }];
            steps.extend(adjustment(
                charge,
                (charged, *charged_minor),
                (measured, *due_minor),
                line,
            ));
            steps
        }
        Evidence::Item { item, created_by } => vec![
            step(
                "Entered by",
                created_by.as_str(),
                format!("{item}, by hand: the audit log says when"),
            ),
            step("Amount", line.priced.to_string(), "as entered"),
        ],
        Evidence::Reversal {
            corrects_invoice,
            corrects_number,
            corrects_line,
        } => {
            let (what, line_href) = match corrects_line {
                Some(line) => (
                    "this line of it, as a whole",
                    Some(format!("{documents}/{corrects_invoice}/lines/{line}")),
                ),
                None => ("an amount of it", link(corrects_invoice)),
            };
            vec![
                Step {
                    href: line_href,
                    ..step("Takes back", corrects_number.as_str(), what)
                },
                step("Given back", line.priced.to_string(), "by the taxes of that invoice"),
            ]
        }
    };
    if line.priced != line.amount {
        let what = "the price includes tax; this is what counts for the subtotal";
        steps.push(step("Without tax", line.amount.to_string(), what));
    }
    steps
}

fn money(minor: i64, line: &InvoiceLine) -> String {
    Money::new(minor, line.priced.currency).to_string()
}

/// Quantity and days, where they are not one and all; and as a formula.
fn base_share(charge: &BaseCharge, currency: Currency) -> (Vec<Step>, String) {
    let mut steps = Vec::new();
    let mut formula = format::amount(Money::new(charge.base_minor, currency));
    if charge.quantity != 1 {
        steps.push(step("Quantity", charge.quantity.to_string(), ""));
        formula.push_str(&format!(" × {}", charge.quantity));
    }
    if charge.days != charge.nominal_days {
        steps.push(step(
            "Days",
            format!("{} of {}", charge.days, charge.nominal_days),
            "the calendar days it ran, of those of the whole period",
        ));
        formula.push_str(&format!(" × {} ÷ {}", charge.days, charge.nominal_days));
    }
    (steps, formula)
}

fn base(charge: &BaseCharge, line: &InvoiceLine) -> Vec<Step> {
    let currency = line.priced.currency;
    let (share, formula) = base_share(charge, currency);
    let mut steps = vec![step(
        "Price",
        money(charge.base_minor, line),
        format!("per {}, as agreed when these terms began", line.unit),
    )];
    let is_plain = share.is_empty();
    steps.extend(share);
    let exact = base_amount(charge, currency).map_err(|_| MoneyError::Overflow);
    let formula = if is_plain { "the whole price" } else { formula.as_str() };
    steps.push(step(
        "Charged",
        line.priced.to_string(),
        rounded(formula, exact, line.priced),
    ));
    steps
}

fn discount(
    line: &InvoiceLine,
    code: &str,
    off_minor: i64,
    percent: Option<&str>,
    amount_minor: Option<i64>,
) -> Vec<Step> {
    let off = format::amount(Money::new(off_minor, line.priced.currency));
    let (worth, note) = match (percent, amount_minor) {
        (Some(percent), _) => {
            let exact = percent
                .parse::<Decimal>()
                .map_err(|_| MoneyError::Overflow)
                .and_then(Ratio::decimal)
                .and_then(|percent| {
                    Ratio::money(Money::new(-off_minor, line.priced.currency))?
                        .times(percent)?
                        .over(100)
                });
            let formula = format!("−{off} × {percent} ÷ 100");
            (format!("{percent} %"), rounded(&formula, exact, line.priced))
        }
        (None, Some(minor)) => (
            money(minor, line),
            "of a whole period; of a part of one its days' share, and never more than the price".to_owned(),
        ),
        (None, None) => (String::new(), String::new()),
    };
    vec![
        step("Coupon", code, "redeemed with the subscription"),
        step("Worth", worth, ""),
        step("Taken off", money(off_minor, line), "the base price above"),
        step("Discount", line.priced.to_string(), note),
    ]
}

fn unused(charged: &BaseCharge, discount_minor: i64, unused_days: i64, line: &InvoiceLine) -> Vec<Step> {
    let currency = line.priced.currency;
    let (share, mut formula) = base_share(charged, currency);
    let mut steps = vec![step("Price then", money(charged.base_minor, line), "")];
    steps.extend(share);
    if discount_minor != 0 {
        steps.push(step(
            "Discount then",
            money(discount_minor, line),
            "so only what was paid is given back",
        ));
        let off = format::amount(Money::new(-discount_minor, currency));
        formula = format!("({formula} − {off})");
    }
    steps.push(step(
        "Not used",
        format!("{unused_days} of {} days", charged.days),
        "from the day of the change or the end",
    ));
    let exact = base_amount(charged, currency)
        .map_err(|_| MoneyError::Overflow)
        .and_then(|base| base.plus(Ratio::money(Money::new(discount_minor, currency))?))
        .and_then(|paid| {
            paid.times(Ratio::integer(unused_days.into()).over(charged.days.into())?)?
                .negated()
        });
    let formula = format!("−{formula} × {unused_days} ÷ {}", charged.days);
    steps.push(step(
        "Given back",
        line.priced.to_string(),
        rounded(&formula, exact, line.priced),
    ));
    steps
}

fn usage(charge: &UsageCharge, measured: &Measured, line: &InvoiceLine) -> Vec<Step> {
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
fn coverage(measured: &Measured, units: VolumeUnits) -> Vec<Step> {
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
fn counted(charge: &UsageCharge, measured: &Measured) -> Vec<Step> {
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
        UsageCharge::Percentile { .. } => "Mbps",
    }
}

/// The price, tier by tier or by packages begun, and the share of the month that it is charged for.
fn priced(charge: &UsageCharge, measured: &Measured, currency: Currency) -> Vec<Step> {
    let unit = unit_name(charge);
    let Ok(found) = usage_parts(charge, measured) else {
        return Vec::new();
    };
    let worth = |part: &PricePart| {
        let exact = part.amount.to_decimal(EXACT_PLACES).unwrap_or_default();
        format!("{} {currency}", price(exact, currency))
    };
    let times = |part: &PricePart| format!("{} {unit} × {}", decimal(part.quantity), price(part.rate, currency));
    let mut steps = Vec::new();
    match charge.price() {
        UsagePrice::PerUnit { rate } => {
            steps.push(step(
                "Price",
                format!("{} {currency}", price(*rate, currency)),
                format!("per {unit} over it"),
            ));
        }
        UsagePrice::Package { units, rate } => {
            let what = format!("Packages of {units} {unit}");
            let each = format!("begun ones count; {} {currency} each", price(*rate, currency));
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
    if let UsageCharge::Percentile { days, nominal_days, .. } = charge
        && days != nominal_days
    {
        steps.push(step(
            "Days",
            format!("{days} of {nominal_days}"),
            "the price is for a whole month",
        ));
    }
    steps
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

fn charged_note(charge: &UsageCharge, measured: &Measured, charged: Money) -> String {
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
    if let UsageCharge::Percentile { days, nominal_days, .. } = charge
        && days != nominal_days
    {
        formula.push_str(&format!(" × {days} ÷ {nominal_days}"));
    }
    rounded(&formula, Ok(found.exact), charged)
}

/// What was charged then, what is known now, and the difference.
fn adjustment(
    charge: &UsageCharge,
    (then, charged_minor): (&Measured, i64),
    (now, due_minor): (&Measured, i64),
    line: &InvoiceLine,
) -> Vec<Step> {
    let units = VolumeUnits::of_charge(charge);
    let mut steps = match charge {
        UsageCharge::Transfer { .. } => vec![
            step(
                "Counted then",
                units.bytes(then.billed_bytes),
                exact_bytes(then.billed_bytes),
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
                step("95th percentile then", value_then, note_then),
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
        "by that invoice and earlier corrections of it",
    ));
    steps.push(step(
        "Difference",
        line.priced.to_string(),
        "what it costs, less what was charged",
    ));
    steps
}

/// Why a tax is charged or not, and how its amount came about.
pub(super) fn of_tax(tax: &TaxAmount, all: &[TaxAmount], invoice: &Invoice) -> Vec<Step> {
    let place = |country: &str, region: &str, vat_id: &str| {
        let place = [country, region].into_iter().filter(|part| !part.is_empty());
        let place = place.collect::<Vec<&str>>().join(", ");
        let note = match vat_id {
            "" => "no VAT id".to_owned(),
            id => format!("VAT id {id}"),
        };
        (place, note)
    };
    let (seller, seller_id) = place(&invoice.seller.country, &invoice.seller.region, &invoice.seller.vat_id);
    let (buyer, buyer_id) = place(&invoice.buyer.country, &invoice.buyer.region, &invoice.buyer.vat_id);
    let why = match tax.rule.category {
        TaxCategory::Standard => "the rate of the customer’s place on that day, or agreed with the customer",
        TaxCategory::ZeroRated => "no rate is entered for the customer’s place",
        TaxCategory::Exempt => "the customer is exempt",
        TaxCategory::ReverseCharge => "the customer owes it: a business of another member state",
        TaxCategory::Export => "exported",
        TaxCategory::OutOfScope => "not subject to the seller’s tax",
    };
    let (seller, buyer) = (
        step("Seller in", seller, seller_id),
        step("Customer in", buyer, buyer_id),
    );
    let percent = decimal(tax.rule.rate.value());
    let subtotal = format::amount(tax.net);
    let (formula, exact) = if invoice.prices_include_tax {
        let sum: Decimal = all.iter().map(|tax| tax.rule.rate.value()).sum();
        let gross = Decimal::ONE_HUNDRED + sum;
        let exact = Ratio::money(invoice.total).and_then(|total| {
            total
                .times(Ratio::decimal(tax.rule.rate.value())?)?
                .divided_by(Ratio::decimal(gross)?)
        });
        let total = format::amount(invoice.total);
        (
            format!("contained in the total: {total} × {percent} ÷ {}", decimal(gross)),
            exact,
        )
    } else {
        let exact = Ratio::money(tax.net).and_then(|net| net.times(Ratio::decimal(tax.rule.rate.value())?)?.over(100));
        (format!("{subtotal} × {percent} ÷ 100"), exact)
    };
    let note = match tax.rule.rate.value().is_zero() {
        true => tax.rule.note.clone(),
        false => rounded(&formula, exact, tax.tax),
    };
    vec![
        seller,
        buyer,
        step("Rate", format!("{percent} %"), why),
        step(
            "Charged on",
            tax.net.to_string(),
            "the subtotal: all lines, once for the whole document",
        ),
        step("Tax", tax.tax.to_string(), note),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "Tier up to 10 GB: 15.00 USD (10 GB × 1.50)",
                "Tier over 10 up to 110 GB: 100.00 USD (100 GB × 1.00)",
                "Tier over 110 GB: 0.75 USD (1.5 GB × 0.50)",
            ]
        );
        assert_eq!(
            said(&priced(&transfer(&format!("volume:{tiers}")), &used, usd)),
            ["All at the rate over 110 GB: 55.75 USD (111.5 GB × 0.50: the last one falls into this tier)"]
        );
        assert_eq!(
            said(&priced(&transfer("package:10=100"), &used, usd)),
            ["Packages of 10 GB: 12 (begun ones count; 100.00 USD each)"]
        );
        let percentile = UsageCharge::Percentile {
            commit_bps: 5_000_000,
            from_pool_bps: 0,
            price: "1.20".parse().unwrap(),
            days: 16,
            nominal_days: 31,
        };
        let used = measured(0, Some(12_345_678));
        assert_eq!(
            said(&priced(&percentile, &used, usd)),
            [
                "Price: 1.20 USD (per Mbps over it)",
                "Days: 16 of 31 (the price is for a whole month)"
            ]
        );
        // 7.345678 × 1.2 × 16 ÷ 31.
        assert_eq!(
            charged_note(&percentile, &used, Money::new(455, usd)),
            "7.345678 Mbps × 1.20 × 16 ÷ 31 = 4.549581 USD, rounded once"
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
}
