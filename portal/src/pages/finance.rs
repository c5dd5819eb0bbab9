//! Pages of finance: the invoices of all customers, one invoice with its postings, and the trial balance.
//!
//! Amounts of different currencies are never added: every sum is one per currency. Months are those of finalisation, in
//! UTC, as the numbers of the invoices are.

mod invoice;
mod ledger;

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use billing::invoice::{Invoice, InvoiceFilter, MAX_PAGE, export_csv, list_all};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use schemas::ids::{CustomerId, InvoiceId};
use schemas::money::{Currency, Money};
use sqlx::Row as _;

use crate::auth::Finance;
use crate::error::{Failure, PageError, page};
use crate::format;
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

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route(PATH, get(show))
        .route("/finance/invoices.csv", get(csv))
        .route("/finance/invoices/{invoice}", get(invoice::show))
        .route("/finance/invoices/{invoice}/lines/{line}", get(invoice::line))
        .route("/finance/ledger", get(ledger::show))
}

/// What the URL may say; empty fields are as good as none.
#[derive(Clone, Debug, Default, serde::Deserialize)]
struct FinanceQuery {
    /// `2026-11`, or `all`; the newest month with invoices where absent.
    #[serde(default)]
    month: String,
    /// `cus_7`.
    #[serde(default)]
    customer: String,
    /// Only invoices before this one: the last of the page before.
    #[serde(default)]
    before: String,
}

/// A month of the calendar, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Month(Date);

impl Month {
    fn parse(text: &str) -> Option<Month> {
        let (year, month) = text.split_once('-')?;
        if year.len() != 4 || month.len() != 2 {
            return None;
        }
        Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok().map(Month)
    }

    fn of(at_ms: i64) -> Option<Month> {
        let at = Timestamp::from_millisecond(at_ms).ok()?;
        Some(Month(at.to_zoned(TimeZone::UTC).date().first_of_month()))
    }

    fn previous(self) -> Option<Month> {
        self.0.checked_sub(1.month()).ok().map(Month)
    }

    /// Half-open, UTC milliseconds.
    fn bounds_ms(self) -> Option<(i64, i64)> {
        let start = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond());
        Some((start(self.0)?, start(self.0.checked_add(1.month()).ok()?)?))
    }

    fn key(self) -> String {
        self.0.strftime("%Y-%m").to_string()
    }

    fn label(self) -> String {
        self.0.strftime("%B %Y").to_string()
    }
}

/// A checked query.
#[derive(Clone, Copy, Debug, Default)]
struct Selection {
    month: Option<Month>,
    customer: Option<CustomerId>,
    before: Option<InvoiceId>,
}

impl Selection {
    fn filter(self) -> InvoiceFilter {
        let bounds = self.month.and_then(Month::bounds_ms);
        InvoiceFilter {
            customer: self.customer,
            from_ms: bounds.map(|(from_ms, _)| from_ms),
            to_ms: bounds.map(|(_, to_ms)| to_ms),
            before: self.before,
            ..InvoiceFilter::default()
        }
    }

    /// The part of the address that says what is selected, without the page.
    fn query(self) -> String {
        let month = self.month.map_or_else(|| "all".to_owned(), Month::key);
        match self.customer {
            Some(customer) => format!("month={month}&customer={customer}"),
            None => format!("month={month}"),
        }
    }
}

fn select(query: &FinanceQuery, newest: Option<Month>) -> Result<Selection, Failure> {
    let month = match query.month.trim() {
        "" => newest,
        "all" => None,
        text => Some(
            Month::parse(text)
                .ok_or_else(|| Failure::BadRequest(format!("month is like 2026-11 or all, not {text:?}")))?,
        ),
    };
    let customer = match query.customer.trim() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error: schemas::ids::IdError| Failure::BadRequest(error.to_string()))?,
        ),
    };
    let before = match query.before.trim() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error: schemas::ids::IdError| Failure::BadRequest(error.to_string()))?,
        ),
    };
    Ok(Selection {
        month,
        customer,
        before,
    })
}

/// An entry of a filter.
struct Choice {
    value: String,
    label: String,
    selected: bool,
}

struct InvoiceRow {
    id: InvoiceId,
    number: String,
    customer: CustomerId,
    customer_name: String,
    period: String,
    finalised: String,
    due: String,
    status: &'static str,
    /// Without the currency, which stands beside the total.
    subtotal: String,
    tax: String,
    total: Money,
}

impl InvoiceRow {
    fn new(invoice: Invoice) -> InvoiceRow {
        let zone = TimeZone::get(&invoice.time_zone).unwrap_or(TimeZone::UTC);
        InvoiceRow {
            id: invoice.id,
            customer: invoice.customer,
            period: format::dates(invoice.period_start_ms, invoice.period_end_ms - 1, &zone),
            finalised: format::day(invoice.finalised_at_ms, &TimeZone::UTC),
            due: format::day(invoice.due_at_ms, &zone),
            status: invoice.status.name(),
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
    months: Vec<Choice>,
    customers: Vec<Choice>,
    selected: String,
    rows: Vec<InvoiceRow>,
    totals: Vec<Totals>,
    csv_href: String,
    older_href: Option<String>,
    newest_href: Option<String>,
    any: bool,
}

async fn show(
    State(state): State<AppState>,
    Finance(who): Finance,
    Query(query): Query<FinanceQuery>,
) -> Result<Response, PageError> {
    let months = months(&state).await?;
    let selection = select(&query, months.first().copied())?;
    let filter = InvoiceFilter {
        limit: Some(PAGE_INVOICES + 1),
        ..selection.filter()
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
    page(&FinancePage {
        shell: Shell::new(&who, "Invoices", PATH),
        any: !months.is_empty(),
        months: choices,
        customers: customers(&state, selection.customer).await?,
        selected: selection.month.map_or_else(|| "all months".to_owned(), Month::label),
        totals: totals(&state, selection).await?,
        csv_href: format!("/finance/invoices.csv?{}", selection.query()),
        older_href,
        newest_href: selection.before.map(|_| base),
        rows: invoices.into_iter().map(InvoiceRow::new).collect(),
    })
}

/// Everything that is selected as a file, whatever page is shown.
async fn csv(
    State(state): State<AppState>,
    _: Finance,
    Query(query): Query<FinanceQuery>,
) -> Result<Response, PageError> {
    let months = months(&state).await?;
    let mut selection = select(&query, months.first().copied())?;
    selection.before = None;
    let name = selection.query().replace(['=', '&'], "-");
    let mut invoices: Vec<Invoice> = Vec::new();
    loop {
        let filter = InvoiceFilter {
            limit: Some(MAX_PAGE),
            ..selection.filter()
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
    let filter = selection.filter();
    let rows = sqlx::query(
        "SELECT currency, count(*), CAST(sum(subtotal_minor) AS BIGINT), CAST(sum(tax_minor) AS BIGINT), \
         CAST(sum(total_minor) AS BIGINT) FROM invoices \
         WHERE ($1 = 0 OR customer_id = $1) AND finalised_at_ms >= $2 AND finalised_at_ms < $3 GROUP BY currency",
    )
    .bind(filter.customer.map_or(0, |customer| customer.0))
    .bind(filter.from_ms.unwrap_or(i64::MIN))
    .bind(filter.to_ms.unwrap_or(i64::MAX))
    .fetch_all(state.db().pool())
    .await?;
    let mut by_currency = BTreeMap::new();
    for row in &rows {
        let code: String = row.try_get(0)?;
        let currency: Currency = code
            .parse()
            .map_err(|error: schemas::money::MoneyError| Failure::internal("read a currency")(error.into()))?;
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

#[cfg(test)]
mod tests;
