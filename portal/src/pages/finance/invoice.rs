//! One invoice as finance sees it: what the customer was charged, and how it was posted.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use billing::BillingError;
use billing::invoice::{self, InvoiceLine};
use jiff::tz::TimeZone;
use schemas::ids::{InvoiceId, ServiceId};
use schemas::money::{Currency, Money};
use sqlx::Row as _;

use super::{InvoiceRow, PATH};
use crate::auth::Finance;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::shell::Shell;
use crate::state::AppState;

struct LineRow {
    position: i64,
    service: ServiceId,
    description: String,
    period: String,
    quantity: String,
    unit: String,
    unit_price: String,
    amount: Money,
}

impl LineRow {
    fn new(line: InvoiceLine, zone: &TimeZone) -> LineRow {
        LineRow {
            position: line.position,
            service: line.service,
            period: format!(
                "{} – {}",
                format::date(line.period_start_ms, zone),
                format::date(line.period_end_ms - 1, zone)
            ),
            quantity: line.quantity.normalize().to_string(),
            unit: line.unit,
            unit_price: line.unit_price.normalize().to_string(),
            amount: line.amount,
            description: line.description,
        }
    }
}

struct PostingRow {
    account: String,
    posted: String,
    description: String,
    debit: Option<Money>,
    credit: Option<Money>,
}

#[derive(Template)]
#[template(path = "finance_invoice.html")]
struct InvoicePage {
    shell: Shell,
    invoice: InvoiceRow,
    tax_rate: String,
    time_zone: String,
    lines: Vec<LineRow>,
    postings: Vec<PostingRow>,
}

pub(super) async fn show(
    State(state): State<AppState>,
    Finance(who): Finance,
    Path(invoice): Path<String>,
) -> Result<Response, PageError> {
    let id: InvoiceId = invoice.parse().map_err(|_| Failure::NotFound)?;
    let found = match invoice::get(state.db(), id).await {
        Err(BillingError::NoInvoice(_)) => return Err(Failure::NotFound.into()),
        found => found?,
    };
    let postings = postings(&state, id).await?;
    let zone = TimeZone::get(&found.invoice.time_zone).unwrap_or(TimeZone::UTC);
    page(&InvoicePage {
        shell: Shell::new(&who, found.invoice.number.clone(), PATH),
        tax_rate: found.invoice.tax_rate.to_string(),
        time_zone: found.invoice.time_zone.clone(),
        lines: found.lines.into_iter().map(|line| LineRow::new(line, &zone)).collect(),
        invoice: InvoiceRow::new(found.invoice),
        postings,
    })
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
            (Some(amount), None)
        } else {
            (None, Some(amount.checked_neg().map_err(money)?))
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
