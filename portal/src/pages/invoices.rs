//! A customer's invoices and credit notes, on the page, as PDF and as XML, with what settled them, and each line
//! explained (`steps.rs`); of usage what was measured, day by day, and with whom (B5).

pub(crate) mod lines;
pub(crate) mod pay;
mod steps;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use billing::invoice::{self, Invoice, InvoiceFilter, InvoiceKind, InvoiceStatus, InvoiceWithLines};
use billing::payment::RefundState;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId};
use schemas::money::Money;
use sqlx::Row as _;

use crate::auth::Customer;
use crate::customer::{self, invoice_of, metered_usage};
use crate::documents::{self, Reader};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::pages::paying;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;
use lines::{LineAddresses, LineRow, RateSources, TaxRow, explained_taxes};
use pay::PayView;

/// Address of the list, and the navigation entry of all pages here.
const PATH: &str = "/invoices";

pub(crate) struct InvoiceRow {
    id: String,
    number: String,
    dates: String,
    finalised: String,
    due: String,
    is_credit_note: bool,
    /// As people say it.
    status: &'static str,
    class: &'static str,
    total: Money,
    /// What is still to be paid; absent where nothing is.
    open: Option<Money>,
    is_overdue: bool,
}

/// Where an invoice stands, as its customer says it, and how that is coloured.
fn status_words(invoice: &Invoice, now_ms: i64) -> (&'static str, &'static str) {
    if invoice.kind == InvoiceKind::CreditNote {
        return ("credit note", "info");
    }
    let is_late = invoice.due_at_ms <= now_ms;
    match invoice.status {
        InvoiceStatus::Finalised | InvoiceStatus::PartiallyPaid if is_late => ("overdue", "warn"),
        InvoiceStatus::Finalised | InvoiceStatus::PartiallyPaid => ("open", "info"),
        InvoiceStatus::Paid => ("paid", "ok"),
        InvoiceStatus::Void => ("void", ""),
        InvoiceStatus::Uncollectible => ("written off", "warn"),
    }
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
    /// What is open on all of them together, and what of it is overdue; absent where nothing is.
    open: Option<Money>,
    overdue: Option<Money>,
}

/// The zone an invoice is printed in.
pub(crate) fn zone_of(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn invoice_row(invoice: &Invoice, now_ms: i64) -> InvoiceRow {
    let zone = zone_of(&invoice.time_zone);
    let (status, class) = status_words(invoice, now_ms);
    let open = Some(invoice.outstanding()).filter(|_| invoice.kind == InvoiceKind::Invoice && invoice.status.is_open());
    InvoiceRow {
        id: invoice.id.to_string(),
        number: invoice.number.clone(),
        dates: format::dates(
            invoice.period_start_ms,
            invoice.period_start_ms.max(invoice.period_end_ms - 1),
            &zone,
        ),
        finalised: format::date(invoice.finalised_at_ms, &zone),
        due: format::date(invoice.due_at_ms, &zone),
        is_credit_note: invoice.kind == InvoiceKind::CreditNote,
        status,
        class,
        total: invoice.total,
        is_overdue: open.is_some() && invoice.due_at_ms <= now_ms,
        open,
    }
}

pub(crate) async fn list(State(state): State<AppState>, customer: Customer) -> Result<Response, PageError> {
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
    let rows: Vec<InvoiceRow> = invoices.iter().map(|invoice| invoice_row(invoice, now_ms)).collect();
    page(&InvoiceList {
        shell: Shell::new(&customer.who, "Invoices", PATH),
        open: sum(rows.iter().filter_map(|row| row.open)),
        overdue: sum(rows.iter().filter(|row| row.is_overdue).filter_map(|row| row.open)),
        invoices: rows,
        drafts: drafts.collect(),
    })
}

/// The sum of amounts; nothing where there are none, or where they are in several currencies.
fn sum(amounts: impl Iterator<Item = Money>) -> Option<Money> {
    let mut sum: Option<Money> = None;
    for amount in amounts {
        sum = Some(match sum {
            Some(so_far) => so_far.checked_add(amount).ok()?,
            None => amount,
        });
    }
    sum
}

pub(crate) async fn download(State(state): State<AppState>, customer: Customer) -> Result<Response, PageError> {
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
    /// What paid it, or where what is given back went.
    settled: Vec<SettledRow>,
    /// Of a credit note: the invoice it takes back.
    /// Of a credit note: the documents that it gives back of.
    corrects: Vec<(InvoiceId, String)>,
    reason: String,
    /// Of an invoice: the credit notes that take something of it back.
    credit_notes: Vec<InvoiceRow>,
    /// What went back of what was paid for it.
    refunds: Vec<RefundRow>,
    /// What was paid for it and not refunded; absent where nothing was refunded.
    kept: Option<Money>,
    /// How it can be paid; absent where nothing is open.
    pay: Option<PayView>,
    notice: Option<&'static str>,
    problem: Option<&'static str>,
}

struct RefundRow {
    on: String,
    state: &'static str,
    class: &'static str,
    reason: String,
    amount: Money,
}

/// Refunds of the payments of an invoice of the customer, and what of those payments stays paid.
async fn refund_rows(
    state: &AppState,
    customer: CustomerId,
    invoice: &Invoice,
) -> Result<(Vec<RefundRow>, Option<Money>), Failure> {
    let zone = zone_of(&invoice.time_zone);
    let mut connection = state.db().pool().acquire().await?;
    let standings = billing::refund::refund_balances(&mut connection, invoice.id).await?;
    let (mut refunds, mut kept_minor) = (Vec::new(), 0);
    for standing in standings {
        let payment = billing::payment::payment(&mut *connection, standing.payment).await?;
        if payment.customer != customer {
            continue;
        }
        kept_minor += standing.paid.minor - standing.refunded.minor - standing.taken.minor;
        for refund in billing::payment::refunds_of(&mut *connection, payment.id).await? {
            let (words, class) = match refund.state {
                RefundState::Succeeded => ("refunded", "ok"),
                RefundState::Failed => ("failed: it is your credit", "warn"),
                RefundState::Intent | RefundState::Unknown | RefundState::Processing => ("under way", "info"),
            };
            refunds.push(RefundRow {
                on: format::date(refund.created_at_ms, &zone),
                state: words,
                class,
                reason: refund.reason,
                amount: refund.amount,
            });
        }
    }
    let kept = (!refunds.is_empty()).then(|| Money::new(kept_minor, invoice.currency));
    Ok((refunds, kept))
}

struct SettledRow {
    on: String,
    what: String,
    /// The credit note it came from.
    href: Option<String>,
    amount: Money,
}

#[derive(serde::Deserialize)]
pub(crate) struct InvoicePageQuery {
    #[serde(default)]
    done: String,
    /// The payment that the customer comes back from confirming, as its gateway adds it to the address.
    #[serde(default)]
    payment_intent: String,
}

/// What the page says beside what it shows.
#[derive(Default)]
struct PageMessages {
    notice: Option<&'static str>,
    problem: Option<&'static str>,
}

impl PageMessages {
    fn problem(text: &'static str) -> PageMessages {
        PageMessages {
            problem: Some(text),
            ..PageMessages::default()
        }
    }
}

/// What has settled an invoice of the customer, in its order.
async fn settled_rows(state: &AppState, customer: CustomerId, invoice: &Invoice) -> Result<Vec<SettledRow>, Failure> {
    let rows = sqlx::query(
        "SELECT a.source, a.credit_note_id, n.number, a.amount_minor, a.created_at_ms, c.corrects_invoice_id \
         FROM allocations a JOIN invoices c ON c.id = a.invoice_id LEFT JOIN invoices n ON n.id = a.credit_note_id \
         WHERE a.invoice_id = $1 AND c.customer_id = $2 ORDER BY a.id",
    )
    .bind(invoice.id.0)
    .bind(customer.0)
    .fetch_all(state.db().pool())
    .await?;
    let zone = zone_of(&invoice.time_zone);
    let mut settled = Vec::with_capacity(rows.len());
    for row in &rows {
        let source: String = row.try_get(0)?;
        let minor: i64 = row.try_get(3)?;
        let note = row.try_get::<Option<i64>, _>(1)?.map(InvoiceId);
        let is_back = minor < 0;
        let what = match (source.as_str(), invoice.kind) {
            ("payment", _) if is_back => "Payment reversed".to_owned(),
            ("payment", _) => "Payment".to_owned(),
            ("credit_note", InvoiceKind::CreditNote) => "Taken off the invoice".to_owned(),
            ("credit_note", InvoiceKind::Invoice) => {
                let number: Option<String> = row.try_get(2)?;
                format!("Credit note {}", number.unwrap_or_default())
            }
            ("credit", InvoiceKind::CreditNote) => "Added to your credit".to_owned(),
            ("credit", InvoiceKind::Invoice) if is_back => "Credit reversed".to_owned(),
            ("credit", InvoiceKind::Invoice) => "Paid from your credit".to_owned(),
            _ if is_back => "Write-off reversed".to_owned(),
            _ => "Written off".to_owned(),
        };
        settled.push(SettledRow {
            on: format::date(row.try_get(4)?, &zone),
            what,
            href: note
                .filter(|note| *note != invoice.id)
                .map(|note| format!("{PATH}/{note}")),
            amount: Money::new(minor, invoice.currency),
        });
    }
    Ok(settled)
}

pub(crate) async fn one(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    PageQuery(shown): PageQuery<InvoicePageQuery>,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    if let Some(payment) = paying::returned(&state, customer.id, Some(found.invoice.id), &shown.payment_intent).await? {
        let page = format!("{PATH}/{}?done={}", found.invoice.id, paying::outcome_name(&payment));
        return Ok(Redirect::to(&page).into_response());
    }
    let (notice, problem) = match shown.done.as_str() {
        "ordered" => (
            Some("Your order is in. This is its invoice; the service is being set up."),
            None,
        ),
        "changed" => (Some("The change is made. This is what was charged or credited."), None),
        "credit" => (Some("Your credit was used. Its payments are listed below."), None),
        done => paying::outcome_words(done),
    };
    invoice_page(&state, &customer, found, PageMessages { notice, problem }).await
}

/// The customer's documents that a credit note gives back of, by its lines or as a whole.
async fn corrected_by(
    state: &AppState,
    customer: CustomerId,
    note: InvoiceId,
) -> Result<Vec<(InvoiceId, String)>, Failure> {
    let rows = sqlx::query(
        "SELECT id, number FROM invoices WHERE customer_id = $2 AND (id = (SELECT corrects_invoice_id FROM invoices \
         WHERE id = $1) \
         OR id IN (SELECT o.invoice_id FROM invoice_lines n JOIN line_credits g ON g.line_id = n.id \
         JOIN invoice_lines o ON o.id = g.credited_line_id WHERE n.invoice_id = $1)) ORDER BY id",
    )
    .bind(note.0)
    .bind(customer.0)
    .fetch_all(state.db().pool())
    .await?;
    let mut corrected = Vec::with_capacity(rows.len());
    for row in &rows {
        corrected.push((InvoiceId(row.try_get(0)?), row.try_get(1)?));
    }
    Ok(corrected)
}

async fn invoice_page(
    state: &AppState,
    customer: &Customer,
    found: InvoiceWithLines,
    told: PageMessages,
) -> Result<Response, PageError> {
    let zone = zone_of(&found.invoice.time_zone);
    let now_ms = state.now_ms();
    let pay = if found.invoice.kind == InvoiceKind::Invoice && found.invoice.status.is_open() {
        Some(pay::pay_view(state, customer.id, &found.invoice).await?)
    } else {
        None
    };
    let corrects = match found.invoice.kind {
        InvoiceKind::CreditNote => corrected_by(state, customer.id, found.invoice.id).await?,
        InvoiceKind::Invoice => Vec::new(),
    };
    let filter = InvoiceFilter {
        customer: Some(customer.id),
        kind: Some(InvoiceKind::CreditNote),
        ..InvoiceFilter::default()
    };
    let notes = invoice::list_all(state.db().pool(), filter).await?;
    let notes = notes.iter().filter(|note| note.corrects == Some(found.invoice.id));
    let sources = RateSources::of(state, &found.invoice).await?;
    let (refunds, kept) = refund_rows(state, customer.id, &found.invoice).await?;
    page(&InvoicePage {
        shell: Shell::new(&customer.who, found.invoice.number.clone(), PATH),
        lines_href: format!("{PATH}/{}/lines", found.invoice.id),
        total: found.invoice.total,
        shows_services: false,
        settled: settled_rows(state, customer.id, &found.invoice).await?,
        corrects,
        reason: found.invoice.reason.clone(),
        credit_notes: notes.map(|note| invoice_row(note, now_ms)).collect(),
        refunds,
        kept,
        pay,
        notice: told.notice,
        problem: told.problem,
        invoice: invoice_row(&found.invoice, now_ms),
        customer_name: found.invoice.customer_name.clone(),
        time_zone: found.invoice.time_zone.clone(),
        subtotal: found.invoice.subtotal,
        taxes: explained_taxes(&found.taxes, &found.invoice, &sources, None),
        lines: found.lines.iter().map(|line| LineRow::new(line, &zone, PATH)).collect(),
    })
}

pub(crate) async fn pdf(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    Ok(documents::pdf(&state, found.invoice.id).await?)
}

pub(crate) async fn xml(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    Ok(documents::xml(&state, found.invoice.id, Reader::Customer).await?)
}

pub(crate) async fn line(
    State(state): State<AppState>,
    customer: Customer,
    Path((invoice, line)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let found = invoice_of(&state, customer.id, &invoice).await?;
    let explained = customer::explained(&state, &found, &line).await?;
    let addresses = LineAddresses {
        list: PATH,
        documents: PATH,
    };
    lines::show(&state, &customer.who, &found.invoice, &explained, &addresses, &headers)
}
