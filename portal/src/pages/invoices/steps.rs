//! How each amount on an invoice came about, in the order in which it was computed, from what is kept with it (B5): nothing is
//! measured or looked up anew, so an explanation says the same in ten years.
//!
//! Every kind of line and every tax has one. The last step is the amount as it was charged; the note beside it is the whole
//! calculation, with what it came to before it was rounded.

mod usage;

use billing::evidence::{BaseCharge, Covered, Evidence, Measured, MonthCount, UnusedMonths};
use billing::invoice::{Invoice, InvoiceLine};
use billing::rating::{base_amount, unused_share};
use billing::ratio::Ratio;
use billing::tax::{TaxAmount, TaxCategory};
use rust_decimal::Decimal;
use schemas::ids::InvoiceId;
use schemas::money::{Currency, Money, MoneyError};

use crate::format;

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
    format::grouped_decimal(&value.normalize().to_string())
}

/// A price: at least the currency's digits, more where it has more.
pub(super) fn price(value: Decimal, currency: Currency) -> String {
    let mut shown = value.normalize();
    if shown.scale() < currency.minor_digits() {
        shown.rescale(currency.minor_digits());
    }
    format::grouped_decimal(&shown.to_string())
}

/// `100.00 × 16 ÷ 31 = USD 51.612903, rounded once`; without the end where nothing was rounded.
fn rounded(formula: &str, exact: Result<Ratio, MoneyError>, charged: Money) -> String {
    let Ok(exact) = exact.and_then(|exact| exact.to_decimal(EXACT_PLACES)) else {
        return formula.to_owned();
    };
    let is_exact = exact == charged.to_major().normalize();
    match (formula, is_exact) {
        (formula, true) => formula.to_owned(),
        ("", false) => format!(
            "{}, rounded once",
            format::with_currency(&exact.to_string(), charged.currency)
        ),
        (formula, false) => format!(
            "{formula} = {}, rounded once",
            format::with_currency(&exact.to_string(), charged.currency)
        ),
    }
}

/// The steps of one line; `documents` is where invoices lie, such as `/finance/invoices`.
pub(super) fn of_line(line: &InvoiceLine, documents: &str) -> Vec<Step> {
    let link = |id: &InvoiceId| Some(format!("{documents}/{id}"));
    let mut steps = match &line.evidence {
        Evidence::Base(charge) => base(charge, line),
        Evidence::Usage { charge, measured, .. } => usage::usage(charge, measured, line),
        Evidence::Discount {
            code,
            off_minor,
            percent,
            amount_minor,
            amount_months,
            covered,
        } => {
            let worth = CouponValue {
                percent: percent.as_deref(),
                amount_minor: *amount_minor,
                amount_months: *amount_months,
                covered: covered.as_ref(),
            };
            discount(line, code, *off_minor, &worth)
        }
        Evidence::DiscountUnused {
            corrects_invoice,
            corrects_number,
            code,
            discount_minor,
            covered_days,
            unused_days,
            months,
            ..
        } => {
            let mut steps = vec![Step {
                href: link(corrects_invoice),
                ..step("Given on", corrects_number.as_str(), "with the price of the period")
            }];
            steps.extend(discount_unused(
                line,
                code,
                *discount_minor,
                (*unused_days, *covered_days),
                months.as_ref(),
            ));
            steps
        }
        Evidence::Unused {
            corrects_invoice,
            corrects_number,
            charged,
            discount_minor,
            unused_days,
            given_before_minor,
            free_by,
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
            steps.extend(unused(
                charged,
                *discount_minor,
                *unused_days,
                (*given_before_minor, free_by.as_deref()),
                line,
            ));
            steps
        }
        Evidence::Adjustment {
            corrects_invoice,
            corrects_number,
            charged,
            charged_on,
            charged_minor,
            due_minor,
            given_elsewhere_minor,
            charge,
            measured,
            ..
        } => {
            let stored = |measured: &Measured| {
                (
                    measured.bytes_in.saturating_add(measured.excluded_bytes_in),
                    measured.bytes_out.saturating_add(measured.excluded_bytes_out),
                )
            };
            let why = if charged == measured {
                "what it used is what it was then; what other services leave it, or an earlier correction of it, has changed"
            } else {
                match (
                    charged.excluded == measured.excluded,
                    stored(charged) == stored(measured),
                ) {
                    (true, _) => "its traffic was stored, corrected or assigned after its month was charged",
                    (false, true) => "which attack traffic of its month is left out was changed after it was charged",
                    (false, false) => {
                        "its traffic was stored, corrected or assigned, and attack traffic was left out or counted again, after its \
                         month was charged"
                    }
                }
            };
            let mut steps = vec![Step {
                href: link(corrects_invoice),
                ..step("Corrects", corrects_number.as_str(), why)
            }];
            steps.extend(usage::adjustment(
                charge,
                (
                    charged,
                    *charged_minor,
                    charged_on.as_deref().unwrap_or(corrects_number),
                ),
                (measured, *due_minor),
                *given_elsewhere_minor,
                line,
            ));
            steps
        }
        Evidence::Item { item, created_by } => vec![
            step(
                "Entered by",
                created_by.as_str(),
                format!("{item}, entered manually: see the audit log"),
            ),
            step("Amount", line.priced.to_string(), "as entered"),
        ],
        Evidence::Reversal {
            corrects_invoice,
            corrects_number,
            corrects_line,
            ..
        } => {
            let (what, line_href) = match corrects_line {
                Some(line) => (
                    "the part of this line that was not credited before",
                    Some(format!("{documents}/{corrects_invoice}/lines/{line}")),
                ),
                None => ("an amount of it", link(corrects_invoice)),
            };
            vec![
                Step {
                    href: line_href,
                    ..step("Reverses", corrects_number.as_str(), what)
                },
                step("Credited", line.priced.to_string(), "by the taxes of that invoice"),
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

/// What a coupon takes off.
struct CouponValue<'a> {
    percent: Option<&'a str>,
    amount_minor: Option<i64>,
    /// The months that the amount is for; 0: the cycle.
    amount_months: i64,
    covered: Option<&'a Covered>,
}

fn discount(line: &InvoiceLine, code: &str, off_minor: i64, coupon: &CouponValue<'_>) -> Vec<Step> {
    let off = format::amount(Money::new(off_minor, line.priced.currency));
    let (worth, note) = match (coupon.percent, coupon.amount_minor) {
        (Some(percent), _) if coupon.covered.is_some() => (
            format!("{percent} %"),
            "of the months that it covers, at the price of a month, and never more than of the whole price".to_owned(),
        ),
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
            match coupon.amount_months {
                0 | 1 => money(minor, line),
                months => format!("{} for {months} months", money(minor, line)),
            },
            "of a whole period; of a part of one its days' share, and never more than the price".to_owned(),
        ),
        (None, None) => (String::new(), String::new()),
    };
    let mut steps = vec![
        step("Coupon", code, "redeemed with the subscription"),
        step("Worth", worth, ""),
        step("Taken off", money(off_minor, line), "the base price above"),
    ];
    if let Some(covered) = coupon.covered {
        steps.push(step(
            "Covers",
            time_words(&covered.time),
            format!("it is over on {}", covered.until),
        ));
        let price = match covered.price_months {
            1 => "a month".to_owned(),
            months => format!("{months} months"),
        };
        steps.push(step(
            "Price then",
            money(covered.price_minor, line),
            format!("for {price}, each"),
        ));
    }
    steps.push(step("Discount", line.priced.to_string(), note));
    steps
}

/// `14 of 28 days and 2 months`.
fn time_words(time: &MonthCount) -> String {
    let part = |days: i64, month_days: i64| format!("{days} of {month_days} days");
    let mut words: Vec<String> = time
        .first
        .iter()
        .map(|first| part(first.days, first.month_days))
        .collect();
    match time.months {
        0 => {}
        1 => words.push("1 month".to_owned()),
        months => words.push(format!("{months} months")),
    }
    if time.days > 0 {
        words.push(part(time.days, time.month_days));
    }
    words.join(" and ")
}

fn discount_unused(
    line: &InvoiceLine,
    code: &str,
    discount_minor: i64,
    (unused_days, covered_days): (i64, i64),
    months: Option<&UnusedMonths>,
) -> Vec<Step> {
    let currency = line.priced.currency;
    let share = unused_share(unused_days, covered_days, months).map_err(|_| MoneyError::Overflow);
    let exact = share.and_then(|share| Ratio::money(Money::new(-discount_minor, currency))?.times(share));
    let off = format::amount(Money::new(-discount_minor, currency));
    let (not_used, formula) = match months {
        Some(months) => (
            format!("{} of {}", time_words(&months.unused), time_words(&months.covered)),
            format!("{off} × months not used ÷ months covered"),
        ),
        None => (
            format!("{unused_days} of {covered_days} days"),
            format!("{off} × {unused_days} ÷ {covered_days}"),
        ),
    };
    vec![
        step("Coupon", code, "redeemed with the subscription"),
        step("Discount then", money(discount_minor, line), ""),
        step(
            "Not used",
            not_used,
            "the time that it covered, from the day of the change or the end",
        ),
        step(
            "Not had",
            line.priced.to_string(),
            rounded(&formula, exact, line.priced),
        ),
    ]
}

fn unused(
    charged: &BaseCharge,
    discount_minor: i64,
    unused_days: i64,
    (given_before_minor, free_by): (i64, Option<&str>),
    line: &InvoiceLine,
) -> Vec<Step> {
    let currency = line.priced.currency;
    let (share, mut formula) = base_share(charged, currency);
    let mut steps = vec![step("Price then", money(charged.base_minor, line), "")];
    steps.extend(share);
    if discount_minor != 0 {
        steps.push(step(
            "Discount then",
            money(discount_minor, line),
            "so only what was paid is credited",
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
    if given_before_minor == 0 {
        steps.push(step(
            "Credited",
            line.priced.to_string(),
            rounded(&formula, exact, line.priced),
        ));
        return steps;
    }
    let share = Money::new(line.priced.minor - given_before_minor, currency);
    steps.push(step(
        "Share of these days",
        share.to_string(),
        rounded(&formula, exact, share),
    ));
    match free_by {
        Some(code) => {
            let note = format!("the coupon {code} had taken it off: nothing was paid for these days");
            steps.push(step("Free", money(given_before_minor, line), note));
        }
        None => steps.push(step(
            "Credited before",
            money(given_before_minor, line),
            "nothing is credited twice",
        )),
    }
    steps.push(step("Credited", line.priced.to_string(), "what was left of that line"));
    steps
}

/// Of the steps of a tax, the first that say who sells to whom.
pub(super) const PARTIES: usize = 2;

/// Why a tax is charged or not, and how its amount came about; its first [`PARTIES`] steps are the same for all of a document.
///
/// `source`: whose rate it is, and where that is kept for who may see it.
pub(super) fn of_tax(
    tax: &TaxAmount,
    all: &[TaxAmount],
    invoice: &Invoice,
    source: Option<(String, Option<String>)>,
) -> Vec<Step> {
    let place = |country: &str, region: &str, vat_id: &str| {
        let place = [country, region].into_iter().filter(|part| !part.is_empty());
        let place = place.collect::<Vec<&str>>().join(", ");
        let note = match vat_id {
            "" => "no VAT number".to_owned(),
            id => format!("VAT number {id}"),
        };
        (place, note)
    };
    let (seller, seller_id) = place(&invoice.seller.country, &invoice.seller.region, &invoice.seller.vat_id);
    let (buyer, buyer_id) = place(&invoice.buyer.country, &invoice.buyer.region, &invoice.buyer.vat_id);
    let why = match tax.rule.category {
        _ if tax.corrects.is_some() => "as it was charged with on the invoice that it corrects",
        TaxCategory::Standard => "the rate of the customer’s place on that day, or agreed with the customer",
        TaxCategory::ZeroRated => "the rate of the customer’s place on that day",
        TaxCategory::Exempt => "the customer is exempt",
        TaxCategory::ReverseCharge => "the customer owes it: a business of another member state",
        TaxCategory::Export => "exported",
        TaxCategory::OutOfScope => "not subject to the seller’s tax",
    };
    let (why, href) = source.unwrap_or_else(|| (why.to_owned(), None));
    let (seller, buyer) = (
        step("Seller in", seller, seller_id),
        step("Customer in", buyer, buyer_id),
    );
    let percent = decimal(tax.rule.rate.value());
    let subtotal = format::amount(tax.net);
    let (formula, exact) = if invoice.prices_include_tax {
        let of_group = || all.iter().filter(|other| other.group == tax.group);
        let sum: Decimal = of_group().map(|tax| tax.rule.rate.value()).sum();
        let gross = Decimal::ONE_HUNDRED + sum;
        let total = of_group()
            .try_fold(tax.net, |total, other| total.checked_add(other.tax))
            .unwrap_or(invoice.total);
        let exact = Ratio::money(total).and_then(|total| {
            total
                .times(Ratio::decimal(tax.rule.rate.value())?)?
                .divided_by(Ratio::decimal(gross)?)
        });
        let total = format::amount(total);
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
        false if tax.corrects.is_some() => {
            format!("{formula}, so that what stays charged bears its proportion of the tax that was charged")
        }
        false => rounded(&formula, exact, tax.tax),
    };
    vec![
        seller,
        buyer,
        Step {
            href,
            ..step("Rate", format!("{percent} %"), why)
        },
        step(
            "Charged on",
            tax.net.to_string(),
            "the lines that bear this tax, once for all of them",
        ),
        step("Tax", tax.tax.to_string(), note),
    ]
}

#[cfg(test)]
mod tests;
