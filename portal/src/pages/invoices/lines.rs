//! The lines of an invoice and what stands behind each (B5), the same for its customer and for finance. Who may see the
//! invoice is decided before anything here is called.

use askama::Template;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use billing::BillingError;
use billing::evidence::Evidence;
use billing::invoice::{Explanation, Invoice, InvoiceLine};
use billing::line_kind::LineKind;
use billing::tax::{self, TaxAmount, TaxCategory, TaxRate};
use jiff::tz::TimeZone;
use schemas::inventory;
use schemas::money::Money;
use schemas::percent::Percent;

use super::steps::{self, Step};
use super::zone_of;
use crate::auth::{Role, SignedIn};
use crate::customer::LineExplanation;
use crate::error::{Failure, PageError, page};
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
    /// How the amount came about.
    pub(crate) steps: Vec<Step>,
    pub(crate) is_usage: bool,
    pub(crate) is_adjustment: bool,
}

impl LineRow {
    /// `documents` is where invoices lie, such as `/invoices`.
    pub(crate) fn new(line: &InvoiceLine, zone: &TimeZone, documents: &str) -> LineRow {
        LineRow {
            id: line.id.to_string(),
            position: line.position,
            service: line.service.map_or_else(String::new, |service| service.to_string()),
            description: line.description.clone(),
            period: format::dates(
                line.period_start_ms,
                line.period_start_ms.max(line.period_end_ms - 1),
                zone,
            ),
            quantity: steps::decimal(line.quantity),
            unit: billing::document::unit_words(&line.unit),
            unit_price: steps::price(line.unit_price, line.amount.currency),
            amount: line.amount,
            steps: steps::of_line(line, documents),
            is_usage: line.kind.is_usage() && !matches!(line.evidence, Evidence::Reversal { .. }),
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
    /// None is charged: out of scope, exempt or reverse charged.
    pub(crate) is_untaxed: bool,
    /// Why it is charged, and how its amount came about; empty on what is no invoice yet.
    pub(crate) steps: Vec<Step>,
}

/// Whether it has a rate, be it 0 %.
fn is_rated(tax: &TaxAmount) -> bool {
    matches!(tax.rule.category, TaxCategory::Standard | TaxCategory::ZeroRated)
}

/// The taxes of a quote.
pub(crate) fn tax_rows(taxes: &[TaxAmount]) -> Vec<TaxRow> {
    let row = |tax: &TaxAmount| TaxRow {
        name: tax.rule.name.clone(),
        note: tax.rule.note.clone(),
        amount: tax.tax,
        is_untaxed: !is_rated(tax),
        steps: Vec::new(),
    };
    taxes.iter().map(row).collect()
}

/// Whose the rates of an invoice's taxes are: of places, or of the customer alone.
pub(crate) struct RateSources {
    /// Agreed with the customer, as it is now; 0 for none.
    own: Percent,
    /// Of all places and times.
    rates: Vec<TaxRate>,
}

impl RateSources {
    pub(crate) async fn of(state: &AppState, invoice: &Invoice) -> Result<RateSources, Failure> {
        let pool = state.db().pool();
        Ok(RateSources {
            own: inventory::customer(pool, invoice.customer).await?.tax_rate,
            rates: tax::rates(pool).await.map_err(BillingError::from)?,
        })
    }

    /// In words, and where it is kept, for a role of staff that may see that. `None` for taxes that have no rate of either.
    fn source(&self, tax: &TaxAmount, invoice: &Invoice, staff: Option<Role>) -> Option<(String, Option<String>)> {
        if !is_rated(tax) || tax.corrects.is_some() {
            return None;
        }
        let own = || {
            let href = staff.map(|_| format!("/finance/customers/{}", invoice.customer));
            Some(("the customer’s own rate".to_owned(), href))
        };
        if !self.own.value().is_zero() && self.own == tax.rule.rate {
            return own();
        }
        let buyer = &invoice.buyer;
        // Monaco's rates are France's.
        let places = match buyer.country.as_str() {
            "MC" => ["MC", "FR"],
            country => [country, country],
        };
        let listed = self.rates.iter().find(|rate| {
            let is_there = places.iter().any(|place| rate.holds_in(place, &buyer.region));
            is_there && rate.rate == tax.rule.rate && tax.rule.name.starts_with(rate.name.as_str())
        });
        match listed {
            Some(rate) => {
                let href = (staff == Some(Role::Admin)).then(|| "/admin/taxes".to_owned());
                Some((format!("the rate of {} on that day", rate.country), href))
            }
            None if tax.rule.category == TaxCategory::Standard => own(),
            None => None,
        }
    }
}

/// The taxes of an invoice, each rule once, explained to its customer, or to a role of staff. One that is of several groups of
/// lines, as of a correction and of a new charge, is explained group by group.
pub(crate) fn explained_taxes(
    taxes: &[TaxAmount],
    invoice: &Invoice,
    sources: &RateSources,
    staff: Option<Role>,
) -> Vec<TaxRow> {
    let merged = tax::merged(taxes);
    let mut rows = tax_rows(&merged);
    for (row, rule) in rows.iter_mut().zip(merged.iter().map(|tax| &tax.rule)) {
        for part in taxes.iter().filter(|tax| tax.rule == *rule) {
            let steps = steps::of_tax(part, taxes, invoice, sources.source(part, invoice, staff));
            // Seller and customer are the same for all.
            let said = if row.steps.is_empty() { 0 } else { steps::PARTIES };
            row.steps.extend(steps.into_iter().skip(said));
        }
    }
    rows
}

/// The explanation of a line: in the page of the invoice (htmx asks for it alone) or on a page of its own.
struct ExplanationView {
    mode: &'static str,
    days: Vec<DayRow>,
    busiest_bytes: u64,
    total_counted: String,
    peers: Vec<PeerRow>,
    /// They and their shares are of all traffic, attack traffic that is not counted included.
    has_attack_traffic: bool,
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
    /// Where invoices lie.
    pub(crate) documents: &'static str,
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
    list: &'static str,
    invoice_href: String,
    number: String,
    line: LineRow,
    /// What was measured, of a line from usage.
    view: Option<ExplanationView>,
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
        // By all that was exchanged: whom attack traffic came from is among them.
        peers: peer_rows(
            &explanation.peers,
            measured.bytes_in.saturating_add(measured.excluded_bytes_in),
            measured.bytes_out.saturating_add(measured.excluded_bytes_out),
            units,
        ),
        has_attack_traffic: measured.windows_excluded > 0,
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

/// Why a line says what it says: on a page of its own or, of a usage line, what was measured alone where htmx asks.
pub(crate) fn show(
    state: &AppState,
    who: &SignedIn,
    invoice: &Invoice,
    explained: &LineExplanation,
    addresses: &LineAddresses,
    headers: &HeaderMap,
) -> Result<Response, PageError> {
    let zone = zone_of(&invoice.time_zone);
    let (line, view) = match explained {
        LineExplanation::Usage(explanation) => (&explanation.line, Some(explanation_view(state, explanation, &zone))),
        LineExplanation::Line(line) => (line.as_ref(), None),
    };
    let mut response = match view {
        Some(view) if headers.contains_key("hx-request") => page(&ExplanationFragment { view })?,
        view => page(&LinePage {
            shell: Shell::new(who, format!("Line {}", line.position), addresses.list),
            list: addresses.list,
            invoice_href: format!("{}/{}", addresses.documents, invoice.id),
            number: invoice.number.clone(),
            line: LineRow::new(line, &zone, addresses.documents),
            view,
        })?,
    };
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("HX-Request"));
    Ok(response)
}
