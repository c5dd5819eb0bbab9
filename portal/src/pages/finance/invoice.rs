//! One invoice as finance sees it: what the customer was charged and why, and how it was posted.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use billing::invoice::{InvoiceKind, InvoiceStatus, InvoiceWithLines};
use billing::payment::PaymentFilter;
use billing::refund::{self, RefundBalance};
use jiff::tz::TimeZone;
use schemas::ids::{InvoiceId, PaymentId};
use schemas::money::Money;
use sqlx::Row as _;

use super::attempts::{self, FailedRow};
use super::{InvoiceRow, PATH, invoice_actions};
use crate::action::Draft;
use crate::auth::Finance;
use crate::customer;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::pages::invoices::lines::{self, LineAddresses, LineRow, RateSources, TaxRow, explained_taxes};
use crate::pages::invoices::zone_of;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// Where invoices lie.
const DOCUMENTS: &str = "/finance/invoices";

struct PostingRow {
    account: String,
    posted: String,
    description: String,
    /// Without the currency: it is the invoice's.
    debit: Option<String>,
    credit: Option<String>,
}

struct AllocationRow {
    at: String,
    what: String,
    /// Of the payment or the credit note.
    href: Option<String>,
    amount: Money,
}

struct NoteRow {
    id: InvoiceId,
    number: String,
    reason: String,
    total: Money,
}

#[derive(Template)]
#[template(path = "finance_invoice.html")]
struct InvoicePage {
    shell: Shell,
    draft: Draft,
    notice: Option<&'static str>,
    invoice: InvoiceRow,
    taxes: Vec<TaxRow>,
    time_zone: String,
    lines: Vec<LineRow>,
    lines_href: String,
    subtotal: Money,
    total: Money,
    shows_services: bool,
    reason: String,
    /// Of a credit note: the documents that it gives back of.
    corrects: Vec<NoteRow>,
    notes: Vec<NoteRow>,
    /// Its payments: what went back, and what can.
    standings: Vec<RefundBalance>,
    failed: Vec<FailedRow>,
    /// What collection does next, in sentences.
    next_steps: Vec<String>,
    allocations: Vec<AllocationRow>,
    postings: Vec<PostingRow>,
    /// What is open, as the form of a transfer proposes it.
    proposed: String,
    can_credit: bool,
    can_void: bool,
    is_open: bool,
    /// Money for it can be recorded: it is open, or was written off.
    can_record: bool,
}

#[derive(serde::Deserialize)]
pub(crate) struct InvoicePageQuery {
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    finance: Finance,
    Path(invoice): Path<String>,
    PageQuery(shown): PageQuery<InvoicePageQuery>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &invoice).await?;
    render(
        &state,
        &finance,
        found,
        Draft::default(),
        invoice_actions::notice(&shown.done),
    )
    .await
}

/// The page after an action was refused.
pub(super) async fn show_with(
    state: &AppState,
    finance: &Finance,
    found: InvoiceWithLines,
    draft: Draft,
) -> Result<Response, PageError> {
    render(state, finance, found, draft, None).await
}

async fn render(
    state: &AppState,
    finance: &Finance,
    found: InvoiceWithLines,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let InvoiceWithLines { invoice, lines, taxes } = found;
    let zone = zone_of(&invoice.time_zone);
    let is_invoice = invoice.kind == InvoiceKind::Invoice;
    let proposed = invoice.outstanding().to_major().to_string();
    let corrects = match invoice.kind {
        InvoiceKind::CreditNote => notes(state, CORRECTED_BY, invoice.id).await?,
        InvoiceKind::Invoice => Vec::new(),
    };
    let sources = RateSources::of(state, &invoice).await?;
    let body = page(&InvoicePage {
        shell: Shell::new(&finance.0, invoice.number.clone(), PATH),
        taxes: explained_taxes(&taxes, &invoice, &sources, Some(finance.0.user.role)),
        time_zone: invoice.time_zone.clone(),
        lines: lines.iter().map(|line| LineRow::new(line, &zone, DOCUMENTS)).collect(),
        lines_href: format!("{}/lines", href(invoice.id)),
        subtotal: invoice.subtotal,
        total: invoice.total,
        shows_services: true,
        reason: invoice.reason.clone(),
        corrects,
        notes: notes(state, "WHERE corrects_invoice_id = $1", invoice.id).await?,
        standings: {
            let mut connection = state.db().pool().acquire().await?;
            refund::refund_balances(&mut connection, invoice.id).await?
        },
        failed: attempts::failed(
            state,
            PaymentFilter {
                invoice: Some(invoice.id),
                ..PaymentFilter::default()
            },
        )
        .await?,
        next_steps: attempts::next_steps(state, invoice.id, &zone).await?,
        allocations: allocations(state, invoice.id).await?,
        postings: postings(state, invoice.id).await?,
        proposed,
        can_record: is_invoice && (invoice.status.is_open() || invoice.status == InvoiceStatus::Uncollectible),
        can_credit: is_invoice && invoice.status != InvoiceStatus::Void && invoice.total.minor > 0,
        can_void: is_invoice && invoice.status == InvoiceStatus::Finalised && invoice.settled.minor == 0,
        is_open: is_invoice && invoice.status.is_open(),
        invoice: InvoiceRow::new(invoice, state.now_ms()),
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

/// Why a line says what it says, as its customer sees it (B5).
pub(crate) async fn line(
    State(state): State<AppState>,
    finance: Finance,
    Path((invoice, line)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &invoice).await?;
    let explained = customer::explained(&state, &found, &line).await?;
    let addresses = LineAddresses {
        list: PATH,
        documents: DOCUMENTS,
    };
    lines::show(&state, &finance.0, &found.invoice, &explained, &addresses, &headers)
}

pub(super) fn href(invoice: InvoiceId) -> String {
    format!("{DOCUMENTS}/{invoice}")
}

/// The documents that a credit note gives back of, by its lines or as a whole.
const CORRECTED_BY: &str = "WHERE id = (SELECT corrects_invoice_id FROM invoices WHERE id = $1) OR id IN \
     (SELECT o.invoice_id FROM invoice_lines n JOIN line_credits g ON g.line_id = n.id \
     JOIN invoice_lines o ON o.id = g.credited_line_id WHERE n.invoice_id = $1)";

/// Documents by a condition on one id.
async fn notes(state: &AppState, condition: &'static str, id: InvoiceId) -> Result<Vec<NoteRow>, Failure> {
    let sql = format!("SELECT id, number, reason, currency, total_minor FROM invoices {condition} ORDER BY id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.0)
        .fetch_all(state.db().pool())
        .await?;
    let mut notes = Vec::with_capacity(rows.len());
    for row in &rows {
        notes.push(NoteRow {
            id: InvoiceId(row.try_get(0)?),
            number: row.try_get(1)?,
            reason: row.try_get(2)?,
            total: Money::new(row.try_get(4)?, super::currency(row.try_get(3)?)?),
        });
    }
    Ok(notes)
}

/// What has settled parts of a document, or what a credit note has settled.
async fn allocations(state: &AppState, invoice: InvoiceId) -> Result<Vec<AllocationRow>, Failure> {
    let rows = sqlx::query(
        "SELECT l.source, l.payment_id, l.credit_note_id, n.number, i.currency, l.amount_minor, l.created_at_ms \
         FROM allocations l JOIN invoices i ON i.id = l.invoice_id LEFT JOIN invoices n ON n.id = l.credit_note_id \
         WHERE l.invoice_id = $1 ORDER BY l.id",
    )
    .bind(invoice.0)
    .fetch_all(state.db().pool())
    .await?;
    let mut allocations = Vec::with_capacity(rows.len());
    for row in &rows {
        let source: String = row.try_get(0)?;
        let payment = row.try_get::<Option<i64>, _>(1)?.map(PaymentId);
        let note = row.try_get::<Option<i64>, _>(2)?.map(InvoiceId);
        let amount = Money::new(row.try_get(5)?, super::currency(row.try_get(4)?)?);
        let number: Option<String> = row.try_get(3)?;
        let (what, href) = match (source.as_str(), payment, note) {
            ("payment", Some(payment), _) if amount.minor < 0 => (
                format!("{payment}, reversed"),
                Some(format!("/finance/payments/{payment}")),
            ),
            ("payment", Some(payment), _) => (payment.to_string(), Some(format!("/finance/payments/{payment}"))),
            ("credit_note", _, Some(note)) if note != invoice => (number.unwrap_or_default(), Some(href(note))),
            ("credit_note", ..) => ("Applied to the invoice".to_owned(), None),
            ("credit", ..) => ("Account credit".to_owned(), None),
            _ => ("Written off".to_owned(), None),
        };
        allocations.push(AllocationRow {
            at: format::minute(row.try_get(6)?, &TimeZone::UTC),
            what,
            href,
            amount,
        });
    }
    Ok(allocations)
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
        let currency = super::currency(row.try_get(3)?)?;
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
