//! One invoice as finance sees it: what the customer was charged and why, and how it was posted.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::tz::TimeZone;
use schemas::ids::InvoiceId;
use schemas::money::{Currency, Money};
use sqlx::Row as _;

use super::{InvoiceRow, PATH};
use crate::auth::Finance;
use crate::customer;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::pages::invoices::lines::{self, LineAddresses, LineRow, TaxRow, tax_rows};
use crate::pages::invoices::zone_of;
use crate::shell::Shell;
use crate::state::AppState;

struct PostingRow {
    account: String,
    posted: String,
    description: String,
    /// Without the currency: it is the invoice's.
    debit: Option<String>,
    credit: Option<String>,
}

#[derive(Template)]
#[template(path = "finance_invoice.html")]
struct InvoicePage {
    shell: Shell,
    invoice: InvoiceRow,
    taxes: Vec<TaxRow>,
    time_zone: String,
    lines: Vec<LineRow>,
    lines_href: String,
    subtotal: Money,
    total: Money,
    shows_services: bool,
    postings: Vec<PostingRow>,
}

pub(super) async fn show(
    State(state): State<AppState>,
    finance: Finance,
    Path(invoice): Path<String>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &invoice).await?;
    let postings = postings(&state, found.invoice.id).await?;
    let zone = zone_of(&found.invoice.time_zone);
    page(&InvoicePage {
        shell: Shell::new(&finance.0, found.invoice.number.clone(), PATH),
        taxes: tax_rows(&found.taxes),
        time_zone: found.invoice.time_zone.clone(),
        lines: found.lines.iter().map(|line| LineRow::new(line, &zone)).collect(),
        lines_href: format!("{}/lines", href(found.invoice.id)),
        subtotal: found.invoice.subtotal,
        total: found.invoice.total,
        shows_services: true,
        invoice: InvoiceRow::new(found.invoice),
        postings,
    })
}

/// A usage line taken apart, as its customer sees it (B5).
pub(super) async fn line(
    State(state): State<AppState>,
    finance: Finance,
    Path((invoice, line)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &invoice).await?;
    let explanation = customer::explanation(&state, &found, &line).await?;
    let addresses = LineAddresses {
        list: PATH,
        invoice: href(found.invoice.id),
    };
    lines::show(&state, &finance.0, &found.invoice, &explanation, addresses, &headers)
}

fn href(invoice: InvoiceId) -> String {
    format!("{PATH}/invoices/{invoice}")
}

async fn postings(state: &AppState, invoice: InvoiceId) -> Result<Vec<PostingRow>, Failure> {
    let rows = sqlx::query(
        "SELECT a.name, t.description, t.posted_at_ms, p.currency, p.amount_minor FROM ledger_transactions t \
         JOIN ledger_postings p ON p.transaction_id = t.id JOIN ledger_accounts a ON a.id = p.account_id \
         WHERE t.invoice_id = $1 ORDER BY t.id, p.position",
    )
    .bind(invoice.0)
    .fetch_all(state.db().pool())
    .await?;
    let mut postings = Vec::with_capacity(rows.len());
    for row in &rows {
        let money = |error: schemas::money::MoneyError| Failure::internal("read a posting")(error.into());
        let currency: Currency = row.try_get::<String, _>(3)?.parse().map_err(money)?;
        let amount = Money::new(row.try_get(4)?, currency);
        let (debit, credit) = if amount.minor >= 0 {
            (Some(format::amount(amount)), None)
        } else {
            (None, Some(format::amount(amount.checked_neg().map_err(money)?)))
        };
        postings.push(PostingRow {
            account: row.try_get(0)?,
            description: row.try_get(1)?,
            posted: format::minute(row.try_get(2)?, &TimeZone::UTC),
            debit,
            credit,
        });
    }
    Ok(postings)
}
