//! A customer's invoices, and each usage line explained: what was measured, day by day, and with whom (B5).

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use billing::evidence::{Evidence, Measured, UsageCharge};
use billing::invoice::{self, Explanation, Invoice, InvoiceLine};
use billing::rating::LineKind;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use schemas::money::Money;

use super::usage::{exporter_name, mode_words};
use crate::auth::Customer;
use crate::customer::{explanation_of, invoice_of, metered_usage};
use crate::error::{PageError, page};
use crate::format;
use crate::shell::Shell;
use crate::state::AppState;

/// Gaps named in an explanation.
const MAX_GAPS_SHOWN: usize = 20;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/invoices", get(list))
        .route("/invoices/invoices.csv", get(download))
        .route("/invoices/{invoice}", get(one))
        .route("/invoices/{invoice}/lines/{line}", get(line))
}

struct InvoiceRow {
    id: String,
    number: String,
    from: String,
    until: String,
    finalised: String,
    due: String,
    is_due: bool,
    total: Money,
}

/// What a current period comes to so far.
struct DraftRow {
    from: String,
    until: String,
    lines: usize,
    measured_to: String,
    total: Money,
}

#[derive(Template)]
#[template(path = "invoices.html")]
struct InvoiceList {
    shell: Shell,
    invoices: Vec<InvoiceRow>,
    drafts: Vec<DraftRow>,
}

/// The zone an invoice is printed in.
fn zone_of(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn invoice_row(invoice: &Invoice, now_ms: i64) -> InvoiceRow {
    let zone = zone_of(&invoice.time_zone);
    InvoiceRow {
        id: invoice.id.to_string(),
        number: invoice.number.clone(),
        from: format::date(invoice.period_start_ms, &zone),
        until: format::date(invoice.period_end_ms - 1, &zone),
        finalised: format::date(invoice.finalised_at_ms, &zone),
        due: format::date(invoice.due_at_ms, &zone),
        is_due: invoice.due_at_ms <= now_ms,
        total: invoice.total,
    }
}

async fn list(State(state): State<AppState>, customer: Customer) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let invoices = invoice::list_of(state.db().pool(), customer.id).await?;
    let drafts = invoice::preview(state.db(), &metered_usage(&state), customer.id, now_ms).await?;
    let drafts = drafts.iter().map(|draft| {
        let zone = zone_of(&draft.time_zone);
        DraftRow {
            from: format::date(draft.period_start_ms, &zone),
            until: format::date(draft.period_end_ms - 1, &zone),
            lines: draft.lines.len(),
            measured_to: format::minute(draft.measured_to_ms, &zone),
            total: draft.total,
        }
    });
    page(&InvoiceList {
        shell: Shell::new(&customer.who, "Invoices", "/invoices"),
        invoices: invoices.iter().map(|invoice| invoice_row(invoice, now_ms)).collect(),
        drafts: drafts.collect(),
    })
}

async fn download(State(state): State<AppState>, customer: Customer) -> Result<Response, PageError> {
    let invoices = invoice::list_of(state.db().pool(), customer.id).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"invoices.csv\""),
    ];
    Ok((headers, invoice::export_csv(&invoices)?).into_response())
}

struct LineRow {
    id: String,
    position: i64,
    description: String,
    period: String,
    quantity: String,
    unit: String,
    unit_price: String,
    amount: Money,
    /// How the amount came about, for lines from usage.
    steps: Vec<Step>,
    is_usage: bool,
    is_adjustment: bool,
}

/// A line of a calculation: what, how much, and a remark.
struct Step {
    what: String,
    value: String,
    note: String,
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
    let mut steps = vec![
        step(
            "Received",
            format::bytes(measured.bytes_in),
            exact_bytes(measured.bytes_in),
        ),
        step(
            "Sent",
            format::bytes(measured.bytes_out),
            exact_bytes(measured.bytes_out),
        ),
    ];
    match charge {
        UsageCharge::Transfer {
            unit, included_bytes, ..
        } => {
            let over = measured.billed_bytes.saturating_sub(*included_bytes);
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
            steps.push(step(
                "Over the commit",
                format::bits_per_second(percentile.saturating_sub(*commit_bps)),
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

fn line_row(line: &InvoiceLine, zone: &TimeZone) -> LineRow {
    let (quantity, unit_price) = (decimal(line.quantity), price(line.unit_price, line.amount.currency));
    let facts = LineRowFacts {
        quantity: &quantity,
        unit: &line.unit,
        unit_price: &unit_price,
        amount: line.amount,
    };
    let steps = match &line.evidence {
        Evidence::Base { .. } => Vec::new(),
        Evidence::Usage { charge, measured } => calculation(charge, measured, &facts),
        Evidence::Adjustment {
            corrects_number,
            charged,
            charged_minor,
            due_minor,
            measured,
            ..
        } => {
            let money = |minor: i64| Money::new(minor, line.amount.currency).to_string();
            vec![
                step(
                    "Corrects",
                    corrects_number.as_str(),
                    "flows of that period arrived later",
                ),
                step(
                    "Counted then",
                    format::bytes(charged.billed_bytes),
                    exact_bytes(charged.billed_bytes),
                ),
                step(
                    "Counted now",
                    format::bytes(measured.billed_bytes),
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
        description: line.description.clone(),
        period: format!(
            "{} – {}",
            format::date(line.period_start_ms, zone),
            format::date(line.period_end_ms - 1, zone)
        ),
        quantity,
        unit: line.unit.clone(),
        unit_price,
        amount: line.amount,
        steps,
        is_usage: line.kind.is_usage(),
        is_adjustment: line.kind == LineKind::Adjustment,
    }
}

#[derive(Template)]
#[template(path = "invoice.html")]
struct InvoicePage {
    shell: Shell,
    invoice: InvoiceRow,
    customer_name: String,
    time_zone: String,
    subtotal: Money,
    tax: Money,
    tax_rate: String,
    lines: Vec<LineRow>,
}

async fn one(State(state): State<AppState>, customer: Customer, Path(id): Path<String>) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    let zone = zone_of(&found.invoice.time_zone);
    page(&InvoicePage {
        shell: Shell::new(&customer.who, found.invoice.number.clone(), "/invoices"),
        invoice: invoice_row(&found.invoice, state.now_ms()),
        customer_name: found.invoice.customer_name.clone(),
        time_zone: found.invoice.time_zone.clone(),
        subtotal: found.invoice.subtotal,
        tax: found.invoice.tax,
        tax_rate: found.invoice.tax_rate.to_string(),
        lines: found.lines.iter().map(|line| line_row(line, &zone)).collect(),
    })
}

struct DayRow {
    day: String,
    received: String,
    sent: String,
    counted: String,
    counted_bytes: u64,
    note: String,
}

struct PeerRow {
    address: String,
    autonomous_system: String,
    received: String,
    sent: String,
    total: String,
    percent: String,
}

struct GapRow {
    from: String,
    to: String,
    exporter: String,
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

#[derive(Template)]
#[template(path = "explanation.html")]
struct ExplanationFragment {
    view: ExplanationView,
}

#[derive(Template)]
#[template(path = "invoice_line.html")]
struct LinePage {
    shell: Shell,
    invoice_id: String,
    number: String,
    line: LineRow,
    view: ExplanationView,
}

fn explanation_view(state: &AppState, explanation: &Explanation, zone: &TimeZone) -> ExplanationView {
    let measured = &explanation.measured;
    let days = explanation.days.iter().map(|day| DayRow {
        day: format::weekday(day.start_ms, zone),
        received: format::bytes(day.bytes_in),
        sent: format::bytes(day.bytes_out),
        counted: format::bytes(day.billed_bytes),
        counted_bytes: day.billed_bytes,
        note: if day.windows_measured < day.windows {
            format!("{} of {} windows measured", day.windows_measured, day.windows)
        } else {
            String::new()
        },
    });
    let everything = u128::from(measured.bytes_in) + u128::from(measured.bytes_out);
    let peers = explanation.peers.iter().map(|peer| {
        let total = peer.bytes_in.saturating_add(peer.bytes_out);
        let permille = (u128::from(total) * 1000).checked_div(everything).unwrap_or(0);
        PeerRow {
            address: peer.address.to_string(),
            autonomous_system: match peer.autonomous_system {
                0 => String::new(),
                number => format!("AS{number}"),
            },
            received: format::bytes(peer.bytes_in),
            sent: format::bytes(peer.bytes_out),
            total: format::bytes(total),
            percent: format!("{}.{} %", permille / 10, permille % 10),
        }
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
        total_counted: format::bytes(measured.billed_bytes),
        peers: peers.collect(),
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

async fn line(
    State(state): State<AppState>,
    customer: Customer,
    Path((invoice, line)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let (invoice, explanation) = explanation_of(&state, customer.id, &invoice, &line).await?;
    let zone = zone_of(&invoice.time_zone);
    let view = explanation_view(&state, &explanation, &zone);
    let mut response = if headers.contains_key("hx-request") {
        page(&ExplanationFragment { view })?
    } else {
        page(&LinePage {
            shell: Shell::new(&customer.who, explanation.service.name.clone(), "/invoices"),
            invoice_id: invoice.id.to_string(),
            number: invoice.number.clone(),
            line: line_row(&explanation.line, &zone),
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
