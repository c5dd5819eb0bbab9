//! A customer's invoices, and each usage line explained: what was measured, day by day, and with whom (B5).

pub(crate) mod lines;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use billing::invoice::{self, Invoice};
use jiff::tz::TimeZone;
use schemas::money::Money;

use crate::auth::Customer;
use crate::customer::{self, invoice_of, metered_usage};
use crate::error::{PageError, page};
use crate::format;
use crate::shell::Shell;
use crate::state::AppState;
use lines::{LineAddresses, LineRow, TaxRow, tax_rows};

/// Address of the list, and the navigation entry of all pages here.
const PATH: &str = "/invoices";

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route(PATH, get(list))
        .route("/invoices/invoices.csv", get(download))
        .route("/invoices/{invoice}", get(one))
        .route("/invoices/{invoice}/lines/{line}", get(line))
}

struct InvoiceRow {
    id: String,
    number: String,
    dates: String,
    finalised: String,
    due: String,
    is_due: bool,
    total: Money,
}

/// What a current period comes to so far.
struct DraftRow {
    dates: String,
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
pub(crate) fn zone_of(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn invoice_row(invoice: &Invoice, now_ms: i64) -> InvoiceRow {
    let zone = zone_of(&invoice.time_zone);
    InvoiceRow {
        id: invoice.id.to_string(),
        number: invoice.number.clone(),
        dates: format::dates(invoice.period_start_ms, invoice.period_end_ms - 1, &zone),
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
            dates: format::dates(draft.period_start_ms, draft.period_end_ms - 1, &zone),
            lines: draft.lines.len(),
            measured_to: format::minute(draft.measured_to_ms, &zone),
            total: draft.total,
        }
    });
    page(&InvoiceList {
        shell: Shell::new(&customer.who, "Invoices", PATH),
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

#[derive(Template)]
#[template(path = "invoice.html")]
struct InvoicePage {
    shell: Shell,
    invoice: InvoiceRow,
    customer_name: String,
    time_zone: String,
    subtotal: Money,
    taxes: Vec<TaxRow>,
    lines: Vec<LineRow>,
    lines_href: String,
    total: Money,
    /// The description names the service; staff see its id too.
    shows_services: bool,
}

async fn one(State(state): State<AppState>, customer: Customer, Path(id): Path<String>) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    let zone = zone_of(&found.invoice.time_zone);
    page(&InvoicePage {
        shell: Shell::new(&customer.who, found.invoice.number.clone(), PATH),
        lines_href: format!("{PATH}/{}/lines", found.invoice.id),
        total: found.invoice.total,
        shows_services: false,
        invoice: invoice_row(&found.invoice, state.now_ms()),
        customer_name: found.invoice.customer_name.clone(),
        time_zone: found.invoice.time_zone.clone(),
        subtotal: found.invoice.subtotal,
        taxes: tax_rows(&found.taxes),
        lines: found.lines.iter().map(|line| LineRow::new(line, &zone)).collect(),
    })
}

async fn line(
    State(state): State<AppState>,
    customer: Customer,
    Path((invoice, line)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &invoice).await?;
    let explanation = customer::explanation(&state, &found, &line).await?;
    let addresses = LineAddresses {
        list: PATH,
        invoice: format!("{PATH}/{}", found.invoice.id),
    };
    lines::show(&state, &customer.who, &found.invoice, &explanation, addresses, &headers)
}
