//! The lines of an invoice and what stands behind each (B5), the same for its customer and for finance. Who may see the
//! invoice is decided before anything here is called.

use askama::Template;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use billing::evidence::{BaseCharge, Evidence, Measured, UsageCharge};
use billing::invoice::{Explanation, Invoice, InvoiceLine};
use billing::rating::LineKind;
use billing::tax::TaxAmount;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use schemas::money::Money;

use super::zone_of;
use crate::auth::SignedIn;
use crate::error::{PageError, page};
use crate::format::{self, VolumeUnits};
use crate::pages::peers::{PeerRow, peer_rows};
use crate::pages::usage::mode_words;
use crate::pages::usage::traffic::exporter_name;
use crate::shell::Shell;
use crate::state::AppState;

/// Gaps named in an explanation.
const MAX_GAPS_SHOWN: usize = 20;

pub(crate) struct LineRow {
    pub(crate) id: String,
    pub(crate) position: i64,
    pub(crate) service: String,
    pub(crate) description: String,
    pub(crate) period: String,
    pub(crate) quantity: String,
    pub(crate) unit: String,
    pub(crate) unit_price: String,
    pub(crate) amount: Money,
    /// How the amount came about, for lines from usage.
    pub(crate) steps: Vec<Step>,
    pub(crate) is_usage: bool,
    pub(crate) is_adjustment: bool,
}

/// A line of a calculation: what, how much, and a remark.
pub(crate) struct Step {
    pub(crate) what: String,
    pub(crate) value: String,
    pub(crate) note: String,
}

fn step(what: impl Into<String>, value: impl Into<String>, note: impl Into<String>) -> Step {
    Step {
        what: what.into(),
        value: value.into(),
        note: note.into(),
    }
}

fn exact_bytes(value: u64) -> String {
    format!("{} bytes", format::grouped(value))
}

/// The calculation behind a usage line, from its evidence alone.
fn calculation(charge: &UsageCharge, measured: &Measured, line: &LineRowFacts<'_>) -> Vec<Step> {
    let mode = mode_words(measured.mode);
    let units = VolumeUnits::of_charge(charge);
    let mut steps = vec![
        step(
            "Received",
            units.bytes(measured.bytes_in),
            exact_bytes(measured.bytes_in),
        ),
        step("Sent", units.bytes(measured.bytes_out), exact_bytes(measured.bytes_out)),
    ];
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
            steps.push(step(
                format!("What counts: {mode}"),
                volume(measured.billed_bytes),
                exact_bytes(measured.billed_bytes),
            ));
            steps.push(step(
                "Included in the plan",
                volume(*included_bytes),
                exact_bytes(*included_bytes),
            ));
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
                format!(
                    "{} ÷ {} bytes per {unit}",
                    exact_bytes(over),
                    format::grouped(unit.bytes())
                ),
            ));
        }
        UsageCharge::Percentile {
            commit_bps,
            from_pool_bps,
            days,
            nominal_days,
            ..
        } => {
            let percentile = measured.percentile_95_bps.unwrap_or(0);
            let note = match measured.percentile_95_bps {
                Some(_) => format!(
                    "value {} of {} measured 5-minute windows, ascending",
                    format::grouped(measured.percentile_rank),
                    format::grouped(measured.windows_measured)
                ),
                None => "no window was measured".to_owned(),
            };
            steps.push(step(
                format!("95th percentile of {mode}"),
                format::bits_per_second(percentile),
                note,
            ));
            steps.push(step(
                "Commit",
                format::bits_per_second(*commit_bps),
                format!("{} bit/s", format::grouped(*commit_bps)),
            ));
            if *from_pool_bps > 0 {
                steps.push(step(
                    "Left by other services",
                    format::bits_per_second(*from_pool_bps),
                    format!("{} bit/s", format::grouped(*from_pool_bps)),
                ));
            }
            steps.push(step(
                "Over the commit",
                format::bits_per_second(percentile.saturating_sub(commit_bps.saturating_add(*from_pool_bps))),
                if days == nominal_days {
                    String::new()
                } else {
                    format!("for {days} of {nominal_days} days")
                },
            ));
        }
    }
    steps.push(step(
        "Charged",
        line.amount.to_string(),
        format!(
            "{} {} × {} {}",
            line.quantity, line.unit, line.unit_price, line.amount.currency
        ),
    ));
    steps
}

/// The calculation behind a base price.
fn base_steps(charge: &BaseCharge, line: &InvoiceLine) -> Vec<Step> {
    let money = |minor: i64| Money::new(minor, line.priced.currency).to_string();
    let mut steps = vec![step("Price", money(charge.base_minor), format!("per {}", line.unit))];
    if charge.quantity != 1 {
        steps.push(step("Quantity", charge.quantity.to_string(), ""));
    }
    if charge.days != charge.nominal_days {
        steps.push(step(
            "Days",
            format!("{} of {}", charge.days, charge.nominal_days),
            "calendar days of the cycle",
        ));
    }
    steps.push(step("Charged", line.priced.to_string(), ""));
    steps
}

/// The calculation behind a discount, a credit or a charge by hand.
fn other_steps(evidence: &Evidence, line: &InvoiceLine) -> Vec<Step> {
    let money = |minor: i64| Money::new(minor, line.priced.currency).to_string();
    match evidence {
        Evidence::Discount {
            code,
            off_minor,
            percent,
            amount_minor,
        } => {
            let rate = match (percent, amount_minor) {
                (Some(percent), _) => format!("{percent} %"),
                (None, Some(minor)) => money(*minor),
                (None, None) => String::new(),
            };
            vec![
                step("Coupon", code.as_str(), rate),
                step("Off", money(*off_minor), "the line above"),
                step("Discount", line.priced.to_string(), ""),
            ]
        }
        Evidence::Unused {
            corrects_number,
            charged,
            discount_minor,
            unused_days,
            ..
        } => {
            let mut steps = vec![
                step("Charged on", corrects_number.as_str(), "in advance"),
                step(
                    "Price",
                    money(charged.base_minor),
                    format!("for {} days, {} of them charged", charged.nominal_days, charged.days),
                ),
            ];
            if charged.quantity != 1 {
                steps.push(step("Quantity", charged.quantity.to_string(), ""));
            }
            if *discount_minor != 0 {
                steps.push(step("Discount then", money(*discount_minor), ""));
            }
            steps.push(step(
                "Not used",
                format!("{unused_days} days"),
                "counted from the day of the change",
            ));
            steps.push(step("Given back", line.priced.to_string(), ""));
            steps
        }
        Evidence::Item { item, created_by } => vec![step("Entered by", created_by.as_str(), item.to_string())],
        Evidence::Reversal { corrects_number, .. } => vec![step("Takes back", corrects_number.as_str(), "")],
        Evidence::Base(_) | Evidence::Usage { .. } | Evidence::Adjustment { .. } => Vec::new(),
    }
}

/// What a calculation ends with.
struct LineRowFacts<'a> {
    quantity: &'a str,
    unit: &'a str,
    unit_price: &'a str,
    amount: Money,
}

/// A decimal with its thousands apart and no needless zeros.
fn decimal(value: Decimal) -> String {
    value.normalize().to_string()
}

/// A price: at least the currency's digits, more where it has more.
fn price(value: Decimal, currency: schemas::money::Currency) -> String {
    let mut shown = value.normalize();
    if shown.scale() < currency.minor_digits() {
        shown.rescale(currency.minor_digits());
    }
    shown.to_string()
}

impl LineRow {
    pub(crate) fn new(line: &InvoiceLine, zone: &TimeZone) -> LineRow {
        let (quantity, unit_price) = (decimal(line.quantity), price(line.unit_price, line.amount.currency));
        let facts = LineRowFacts {
            quantity: &quantity,
            unit: &line.unit,
            unit_price: &unit_price,
            amount: line.amount,
        };
        let steps = match &line.evidence {
            Evidence::Usage { charge, measured } => calculation(charge, measured, &facts),
            Evidence::Base(charge) => base_steps(charge, line),
            Evidence::Discount { .. } | Evidence::Unused { .. } | Evidence::Item { .. } | Evidence::Reversal { .. } => {
                other_steps(&line.evidence, line)
            }
            Evidence::Adjustment {
                corrects_number,
                charged,
                charged_minor,
                due_minor,
                charge,
                measured,
                ..
            } => {
                let units = VolumeUnits::of_charge(charge);
                let money = |minor: i64| Money::new(minor, line.amount.currency).to_string();
                vec![
                    step(
                        "Corrects",
                        corrects_number.as_str(),
                        "flows of that period arrived later",
                    ),
                    step(
                        "Counted then",
                        units.bytes(charged.billed_bytes),
                        exact_bytes(charged.billed_bytes),
                    ),
                    step(
                        "Counted now",
                        units.bytes(measured.billed_bytes),
                        exact_bytes(measured.billed_bytes),
                    ),
                    step("The period costs", money(*due_minor), ""),
                    step("Charged already", money(*charged_minor), ""),
                    step("Difference", line.amount.to_string(), ""),
                ]
            }
        };
        LineRow {
            id: line.id.to_string(),
            position: line.position,
            service: line.service.map_or_else(String::new, |service| service.to_string()),
            description: line.description.clone(),
            period: format::dates(line.period_start_ms, line.period_end_ms - 1, zone),
            quantity,
            unit: line.unit.clone(),
            unit_price,
            amount: line.amount,
            steps,
            is_usage: line.kind.is_usage(),
            is_adjustment: line.kind == LineKind::Adjustment,
        }
    }
}

struct DayRow {
    day: String,
    received: String,
    sent: String,
    counted: String,
    counted_bytes: u64,
    /// Sampling error of both directions together; empty where every packet was counted.
    bound: String,
    note: String,
}

struct GapRow {
    from: String,
    to: String,
    exporter: String,
}

/// A tax of an invoice.
pub(crate) struct TaxRow {
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) amount: Money,
}

pub(crate) fn tax_rows(taxes: &[TaxAmount]) -> Vec<TaxRow> {
    let row = |tax: &TaxAmount| TaxRow {
        name: tax.rule.name.clone(),
        note: tax.rule.note.clone(),
        amount: tax.tax,
    };
    taxes.iter().map(row).collect()
}

/// The explanation of a line: in the page of the invoice (htmx asks for it alone) or on a page of its own.
struct ExplanationView {
    mode: &'static str,
    days: Vec<DayRow>,
    busiest_bytes: u64,
    total_counted: String,
    peers: Vec<PeerRow>,
    coverage: String,
    gaps: Vec<GapRow>,
    gaps_total: usize,
    time_zone: String,
}

/// Where the page of a line leads back to.
#[derive(Debug)]
pub(crate) struct LineAddresses {
    /// The list of invoices, which is the navigation entry too.
    pub(crate) list: &'static str,
    pub(crate) invoice: String,
}

#[derive(Template)]
#[template(path = "explanation.html")]
struct ExplanationFragment {
    view: ExplanationView,
}

#[derive(Template)]
#[template(path = "invoice_line.html")]
struct LinePage {
    shell: Shell,
    addresses: LineAddresses,
    number: String,
    line: LineRow,
    view: ExplanationView,
}

fn explanation_view(state: &AppState, explanation: &Explanation, zone: &TimeZone) -> ExplanationView {
    let measured = &explanation.measured;
    let units = VolumeUnits::of_charge(&explanation.charge);
    let days = explanation.days.iter().map(|day| DayRow {
        day: format::weekday(day.start_ms, zone),
        received: units.bytes(day.bytes_in),
        sent: units.bytes(day.bytes_out),
        counted: units.bytes(day.billed_bytes),
        counted_bytes: day.billed_bytes,
        bound: format::error_bound(day.error_bound_ppm),
        note: if day.windows_measured < day.windows {
            format!("{} of {} windows measured", day.windows_measured, day.windows)
        } else {
            String::new()
        },
    });
    let gaps = measured.gaps.iter().take(MAX_GAPS_SHOWN).map(|gap| GapRow {
        from: format::minute(gap.from_ms, zone),
        to: format::minute(gap.to_ms, zone),
        exporter: exporter_name(state, gap.exporter),
    });
    ExplanationView {
        mode: mode_words(measured.mode),
        busiest_bytes: explanation
            .days
            .iter()
            .map(|day| day.billed_bytes)
            .max()
            .unwrap_or(0)
            .max(1),
        days: days.collect(),
        total_counted: units.bytes(measured.billed_bytes),
        peers: peer_rows(&explanation.peers, measured.bytes_in, measured.bytes_out, units),
        coverage: format!(
            "{} of {} five-minute windows were measured",
            format::grouped(measured.windows_measured),
            format::grouped(measured.windows_expected)
        ),
        gaps: gaps.collect(),
        gaps_total: measured.gaps.len(),
        time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
    }
}

/// The explanation alone where htmx asks, else its own page.
pub(crate) fn show(
    state: &AppState,
    who: &SignedIn,
    invoice: &Invoice,
    explanation: &Explanation,
    addresses: LineAddresses,
    headers: &HeaderMap,
) -> Result<Response, PageError> {
    let zone = zone_of(&invoice.time_zone);
    let view = explanation_view(state, explanation, &zone);
    let mut response = if headers.contains_key("hx-request") {
        page(&ExplanationFragment { view })?
    } else {
        page(&LinePage {
            shell: Shell::new(who, explanation.service.name.clone(), addresses.list),
            addresses,
            number: invoice.number.clone(),
            line: LineRow::new(&explanation.line, &zone),
            view,
        })?
    };
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("HX-Request"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_keep_their_digits_and_never_lose_one() {
        let usd = schemas::money::Currency::USD;
        for (text, shown) in [("5", "5.00"), ("0.0125000", "0.0125"), ("0.5", "0.50")] {
            assert_eq!(price(text.parse().unwrap(), usd), shown);
        }
        assert_eq!(price("120.0".parse().unwrap(), "JPY".parse().unwrap()), "120");
        assert_eq!(decimal("12.340000".parse().unwrap()), "12.34");
    }
}
