//! Pages of finance: the invoices of all customers, one invoice with its postings, and the trial balance.
//!
//! Amounts of different currencies are never added: every sum is one per currency. What is selected by month or day is selected
//! by finalisation in UTC, as the years in the numbers are; the dates of a document are those printed on it, in its own zone.

pub(crate) mod aging;
mod attempts;
pub(crate) mod customer;
pub(crate) mod customer_end;
pub(crate) mod customer_transfer;
pub(crate) mod customers;
pub(crate) mod document;
pub(crate) mod export;
pub(crate) mod held;
pub(crate) mod invoice;
pub(crate) mod invoice_actions;
mod invoice_preview;
pub(crate) mod ledger;
pub(crate) mod payments;
pub(crate) mod refund;
mod select;
pub(crate) mod transactions;
pub(crate) mod unmeasured;

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use billing::invoice::{
    Invoice, InvoiceFilter, InvoiceKind, InvoiceStatus, MAX_PAGE, OpenAt, export_csv, list_all, open_at_sql,
};
pub(crate) use customers::url_encoded;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId};
use schemas::money::{Currency, Money};
use select::{FinanceQuery, Month, Selection, StatusFilter, select};
use sqlx::Row as _;

use crate::auth::Finance;
use crate::error::{Failure, PageError, page};
use crate::first_steps::FirstSteps;
use crate::format;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// Address of the first page, and the navigation entry of all.
pub(crate) const PATH: &str = "/finance";
/// Invoices on one page.
const PAGE_INVOICES: i64 = 100;
/// Invoices in one CSV file.
const CSV_MAX_INVOICES: usize = 200_000;
/// Months and customers that the filters offer.
const MAX_MONTHS: usize = 120;
const MAX_CUSTOMERS: i64 = 2_000;

/// An entry of a filter.
struct Choice {
    value: String,
    label: String,
    selected: bool,
}

/// Choices of a filter whose first one lets everything through.
fn choices_of(all: &str, values: &[(&str, &str)], selected: &str) -> Vec<Choice> {
    let mut choices = vec![Choice {
        value: String::new(),
        label: all.to_owned(),
        selected: selected.is_empty(),
    }];
    choices.extend(values.iter().map(|(value, label)| Choice {
        value: (*value).to_owned(),
        label: (*label).to_owned(),
        selected: *value == selected,
    }));
    choices
}

struct InvoiceRow {
    id: InvoiceId,
    number: String,
    customer: CustomerId,
    customer_name: String,
    period: String,
    finalised: String,
    /// The day of finalisation in UTC, by which months and days are selected, where it is not the day that is printed.
    finalised_utc: Option<String>,
    due: String,
    status: &'static str,
    /// Class of the badge that says the status.
    badge: &'static str,
    is_credit_note: bool,
    /// Without the currency, which stands beside the total.
    subtotal: String,
    tax: String,
    total: Money,
    open: Money,
}

/// How the status of a document is said, and the class of its badge.
pub(crate) fn status_words(
    kind: InvoiceKind,
    status: InvoiceStatus,
    due_at_ms: i64,
    now_ms: i64,
) -> (&'static str, &'static str) {
    match status {
        InvoiceStatus::Paid if kind == InvoiceKind::CreditNote => (status.name_of(kind), "ok"),
        status if status.is_open() && kind == InvoiceKind::Invoice && due_at_ms <= now_ms => ("overdue", "warn"),
        InvoiceStatus::Finalised | InvoiceStatus::PartiallyPaid => ("open", "info"),
        InvoiceStatus::Paid => ("paid", "ok"),
        InvoiceStatus::Uncollectible => ("written off", "warn"),
        InvoiceStatus::Void => ("void", ""),
    }
}

impl InvoiceRow {
    fn new(invoice: Invoice, now_ms: i64) -> InvoiceRow {
        let (status, badge) = status_words(invoice.kind, invoice.status, invoice.due_at_ms, now_ms);
        let zone = TimeZone::get(&invoice.time_zone).unwrap_or(TimeZone::UTC);
        InvoiceRow {
            id: invoice.id,
            customer: invoice.customer,
            period: format::dates(invoice.period_start_ms, invoice.period_end_ms - 1, &zone),
            finalised_utc: Some(format::date(invoice.finalised_at_ms, &TimeZone::UTC))
                .filter(|utc| *utc != format::date(invoice.finalised_at_ms, &zone)),
            finalised: format::date(invoice.finalised_at_ms, &zone),
            due: format::date(invoice.due_at_ms, &zone),
            status,
            badge,
            is_credit_note: invoice.kind == InvoiceKind::CreditNote,
            open: invoice.outstanding(),
            subtotal: format::amount(invoice.subtotal),
            tax: format::amount(invoice.tax),
            total: invoice.total,
            number: invoice.number,
            customer_name: invoice.customer_name,
        }
    }
}

/// Sums of one currency over everything that is selected.
struct Totals {
    invoices: i64,
    /// Without the currency, which stands beside the total.
    subtotal: String,
    tax: String,
    total: Money,
}

#[derive(Template)]
#[template(path = "finance.html")]
struct FinancePage {
    shell: Shell,
    first_steps: Option<FirstSteps>,
    months: Vec<Choice>,
    customers: Vec<Choice>,
    statuses: Vec<Choice>,
    kinds: Vec<Choice>,
    from: String,
    to: String,
    selected: String,
    rows: Vec<InvoiceRow>,
    totals: Vec<Totals>,
    csv_href: String,
    older_href: Option<String>,
    newest_href: Option<String>,
    any: bool,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Finance(who): Finance,
    PageQuery(query): PageQuery<FinanceQuery>,
) -> Result<Response, PageError> {
    let months = months(&state).await?;
    let selection = select(&query, months.first().copied())?;
    let filter = InvoiceFilter {
        limit: Some(PAGE_INVOICES + 1),
        ..selection.filter(state.now_ms())
    };
    let mut invoices = list_all(state.db().pool(), filter).await?;
    let has_older = invoices.len() > usize::try_from(PAGE_INVOICES).unwrap_or(usize::MAX);
    if has_older {
        invoices.pop();
    }
    let base = format!("{PATH}?{}", selection.query());
    let older_href = invoices
        .last()
        .filter(|_| has_older)
        .map(|last| format!("{base}&before={}", last.id));
    let mut choices = vec![Choice {
        value: "all".to_owned(),
        label: "All months".to_owned(),
        selected: selection.month.is_none(),
    }];
    choices.extend(months.iter().map(|month| Choice {
        value: month.key(),
        label: month.label(),
        selected: selection.month == Some(*month),
    }));
    let now_ms = state.now_ms();
    let title = match selection.kind {
        Some(InvoiceKind::CreditNote) => "Credit notes",
        _ => "Invoices",
    };
    page(&FinancePage {
        shell: Shell::new(&who, title, PATH),
        statuses: choices_of(
            "Any status",
            &StatusFilter::ALL.map(|status| (status.name(), status.words())),
            query.status.trim(),
        ),
        kinds: choices_of(
            "All documents",
            &[("invoice", "Invoices"), ("credit_note", "Credit notes")],
            query.kind.trim(),
        ),
        from: query.from.trim().to_owned(),
        to: query.to.trim().to_owned(),
        first_steps: match months.is_empty() {
            true => FirstSteps::of_billing(&state, who.user.role).await?,
            false => None,
        },
        any: !months.is_empty(),
        months: choices,
        customers: customers(&state, selection.customer).await?,
        selected: selection.label(),
        totals: totals(&state, selection).await?,
        csv_href: format!("/finance/invoices.csv?{}", selection.query()),
        older_href,
        newest_href: selection.before.map(|_| base),
        rows: invoices
            .into_iter()
            .map(|invoice| InvoiceRow::new(invoice, now_ms))
            .collect(),
    })
}

/// Everything that is selected as a file, whatever page is shown.
pub(crate) async fn csv(
    State(state): State<AppState>,
    _: Finance,
    PageQuery(query): PageQuery<FinanceQuery>,
) -> Result<Response, PageError> {
    let months = months(&state).await?;
    let mut selection = select(&query, months.first().copied())?;
    selection.before = None;
    let name = selection.query().replace(['=', '&'], "-");
    let mut invoices: Vec<Invoice> = Vec::new();
    loop {
        let filter = InvoiceFilter {
            limit: Some(MAX_PAGE),
            ..selection.filter(state.now_ms())
        };
        let found = list_all(state.db().pool(), filter).await?;
        let is_last = i64::try_from(found.len()).unwrap_or(MAX_PAGE) < MAX_PAGE;
        selection.before = found.last().map(|invoice| invoice.id);
        invoices.extend(found);
        if is_last {
            break;
        }
        if invoices.len() >= CSV_MAX_INVOICES {
            return Err(Failure::BadRequest(format!(
                "These are more than {CSV_MAX_INVOICES} invoices: choose a month or a customer."
            ))
            .into());
        }
    }
    let body = export_csv(&invoices)?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"invoices-{name}.csv\""),
        ),
    ];
    Ok((headers, body).into_response())
}

/// Months from the newest invoice back to the oldest.
async fn months(state: &AppState) -> Result<Vec<Month>, Failure> {
    let row = sqlx::query("SELECT min(finalised_at_ms), max(finalised_at_ms) FROM invoices")
        .fetch_one(state.db().pool())
        .await?;
    let (oldest, newest): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let oldest = oldest.and_then(Month::of);
    let mut months = Vec::new();
    let mut next = newest.and_then(Month::of);
    while let Some(month) = next
        && months.len() < MAX_MONTHS
    {
        months.push(month);
        next = month.previous().filter(|_| Some(month) != oldest);
    }
    Ok(months)
}

/// Customers that have invoices, by name.
async fn customers(state: &AppState, selected: Option<CustomerId>) -> Result<Vec<Choice>, Failure> {
    let rows = sqlx::query(
        "SELECT id, name FROM customers c WHERE EXISTS (SELECT 1 FROM invoices i WHERE i.customer_id = c.id) \
         ORDER BY name, id LIMIT $1",
    )
    .bind(MAX_CUSTOMERS)
    .fetch_all(state.db().pool())
    .await?;
    let mut choices = vec![Choice {
        value: String::new(),
        label: "All customers".to_owned(),
        selected: selected.is_none(),
    }];
    for row in &rows {
        let id = CustomerId(row.try_get(0)?);
        choices.push(Choice {
            value: id.to_string(),
            label: row.try_get(1)?,
            selected: selected == Some(id),
        });
    }
    Ok(choices)
}

async fn totals(state: &AppState, selection: Selection) -> Result<Vec<Totals>, Failure> {
    let filter = selection.filter(state.now_ms());
    let open_at = open_at_sql(6, 7);
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT currency, count(*), CAST(sum(subtotal_minor) AS BIGINT), CAST(sum(tax_minor) AS BIGINT), \
         CAST(sum(total_minor) AS BIGINT) FROM invoices \
         WHERE ($1 = 0 OR customer_id = $1) AND finalised_at_ms >= $2 AND finalised_at_ms < $3 \
         AND ($4 = '' OR status = $4) AND ($5 = '' OR kind = $5) AND {open_at} GROUP BY currency"
    ));
    let rows = sqlx::query(sql)
        .bind(filter.customer.map_or(0, |customer| customer.0))
        .bind(filter.from_ms.unwrap_or(i64::MIN))
        .bind(filter.to_ms.unwrap_or(i64::MAX))
        .bind(filter.status.map_or("", InvoiceStatus::name))
        .bind(filter.kind.map_or("", InvoiceKind::name))
        .bind(filter.open.map_or("", OpenAt::name))
        .bind(filter.open.map_or(0, |open| open.now_ms))
        .fetch_all(state.db().pool())
        .await?;
    let mut by_currency = BTreeMap::new();
    for row in &rows {
        let currency = currency(row.try_get(0)?)?;
        let money = |column: usize| Ok::<_, sqlx::Error>(Money::new(row.try_get(column)?, currency));
        by_currency.insert(
            currency,
            Totals {
                invoices: row.try_get(1)?,
                subtotal: format::amount(money(2)?),
                tax: format::amount(money(3)?),
                total: money(4)?,
            },
        );
    }
    Ok(by_currency.into_values().collect())
}

/// A stored currency.
#[expect(clippy::needless_pass_by_value, reason = "rows give their texts away")]
fn currency(code: String) -> Result<Currency, Failure> {
    code.parse()
        .map_err(|error: schemas::money::MoneyError| Failure::internal("read a currency")(error.into()))
}

#[cfg(test)]
mod collection_tests;
#[cfg(test)]
mod tests;
