//! Payments of all customers, and one with what became of it: attempts, refunds, disputes, postings.

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::BillingError;
use billing::ledger::{self, PostedTransaction, TransactionFilter};
use billing::payment::{self, GatewayName, NewReversal, Payment, PaymentFilter, PaymentState, Refund, Reversal};
use billing::refund::RefundBalance;
use jiff::tz::TimeZone;
use schemas::ids::{ApprovalId, CustomerId, InvoiceId, PaymentId};
use schemas::money::Money;
use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::refund::refund_balance;
use super::transactions::{TransactionRow, transaction_rows};
use super::{Choice, PATH, choices_of};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Finance};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

/// Payments on one page.
const PAGE_PAYMENTS: i64 = 100;
/// Postings of one payment that are shown.
const TRANSACTIONS_SHOWN: i64 = 100;

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct PaymentsQuery {
    #[serde(default)]
    state: String,
    #[serde(default)]
    customer: String,
    #[serde(default)]
    before: String,
}

struct Row {
    id: PaymentId,
    customer: CustomerId,
    customer_name: String,
    /// The invoice that it is for; credit where there is none.
    invoice: Option<DocumentLink>,
    gateway: &'static str,
    state: &'static str,
    badge: &'static str,
    made: String,
    amount: Money,
    /// What of it went back; absent where nothing did.
    refunded: Option<Money>,
}

#[derive(Template)]
#[template(path = "finance_payments.html")]
struct PaymentsPage {
    shell: Shell,
    states: Vec<Choice>,
    customer: String,
    rows: Vec<Row>,
    older_href: Option<String>,
}

fn words(state: PaymentState) -> (&'static str, &'static str) {
    match state {
        PaymentState::Intent => ("started", "info"),
        PaymentState::Unknown => ("no response", "warn"),
        PaymentState::RequiresAction => ("awaiting customer", "info"),
        PaymentState::Processing => ("processing", "info"),
        PaymentState::Succeeded => ("succeeded", "ok"),
        PaymentState::Failed => ("failed", "warn"),
        PaymentState::Cancelled => ("cancelled", ""),
    }
}

/// As [`words`]; a transfer that was reversed had succeeded before.
fn words_of(payment: &Payment) -> (&'static str, &'static str) {
    match payment.is_reversed {
        true => ("reversed", "warn"),
        false => words(payment.state),
    }
}

pub(super) async fn name_of(state: &AppState, customer: CustomerId) -> Result<String, Failure> {
    let row = sqlx::query("SELECT name FROM customers WHERE id = $1")
        .bind(customer.0)
        .fetch_one(state.db().pool())
        .await?;
    Ok(row.try_get(0)?)
}

/// A document of an invoice, as pages link it.
struct DocumentLink {
    id: InvoiceId,
    number: String,
}

fn link(row: &AnyRow) -> Result<DocumentLink, Failure> {
    Ok(DocumentLink {
        id: InvoiceId(row.try_get(0)?),
        number: row.try_get(1)?,
    })
}

/// The invoice that a payment is for; `None` of one for credit.
async fn purpose(state: &AppState, payment: &Payment) -> Result<Option<DocumentLink>, Failure> {
    let Some(invoice) = payment.purpose.invoice() else {
        return Ok(None);
    };
    let row = sqlx::query("SELECT id, number FROM invoices WHERE id = $1")
        .bind(invoice.0)
        .fetch_one(state.db().pool())
        .await?;
    link(&row).map(Some)
}

/// The credit notes over the invoice that a payment is for, those of its refunds among them.
async fn credit_notes(state: &AppState, payment: &Payment) -> Result<Vec<DocumentLink>, Failure> {
    let Some(invoice) = payment.purpose.invoice() else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(
        "SELECT id, number FROM invoices WHERE corrects_invoice_id = $1 AND kind = 'credit_note' ORDER BY id",
    )
    .bind(invoice.0)
    .fetch_all(state.db().pool())
    .await?;
    rows.iter().map(link).collect()
}

pub(crate) async fn list(
    State(state): State<AppState>,
    Finance(who): Finance,
    PageQuery(query): PageQuery<PaymentsQuery>,
) -> Result<Response, PageError> {
    let wanted = PaymentFilter {
        customer: filter("customer", &query.customer, "an id such as cus_7")?,
        state: filter("state", &query.state, "a state of a payment")?,
        before: filter("before", &query.before, "the id of a payment")?,
        ..PaymentFilter::default()
    };
    let mut payments = payment::list(state.db().pool(), wanted, PAGE_PAYMENTS + 1).await?;
    let most = usize::try_from(PAGE_PAYMENTS).unwrap_or(usize::MAX);
    let has_older = payments.len() > most;
    payments.truncate(most);
    let older_href = payments.last().filter(|_| has_older).map(|last| {
        let (state, customer) = (query.state.trim(), query.customer.trim());
        format!("{PATH}/payments?state={state}&customer={customer}&before={}", last.id)
    });
    let mut rows = Vec::with_capacity(payments.len());
    for payment in payments {
        let refunded = refunded_of(&state, &payment).await?;
        let (words, badge) = words_of(&payment);
        rows.push(Row {
            id: payment.id,
            customer: payment.customer,
            customer_name: name_of(&state, payment.customer).await?,
            invoice: purpose(&state, &payment).await?,
            gateway: payment.gateway.words(),
            state: words,
            badge,
            made: format::minute(payment.created_at_ms, &TimeZone::UTC),
            amount: payment.amount,
            refunded,
        });
    }
    let states = PaymentState::ALL.map(|state| (state.name(), words(state).0));
    page(&PaymentsPage {
        shell: Shell::new(&who, "Payments", PATH),
        states: choices_of("Any state", &states, query.state.trim()),
        customer: query.customer.trim().to_owned(),
        rows,
        older_href,
    })
}

/// What of a payment went back by refunds.
async fn refunded_of(state: &AppState, payment: &Payment) -> Result<Option<Money>, Failure> {
    let row = sqlx::query(
        "SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM refunds WHERE payment_id = $1 AND state = 'succeeded'",
    )
    .bind(payment.id.0)
    .fetch_one(state.db().pool())
    .await?;
    let refunded = Money::new(row.try_get(0)?, payment.amount.currency);
    Ok((refunded.minor > 0).then_some(refunded))
}

struct RefundRow {
    id: String,
    state: &'static str,
    by: String,
    at: String,
    reason: String,
    error: String,
    amount: Money,
}

/// A refund that waits for a second admin.
struct PendingRow {
    approval: ApprovalId,
    at: String,
    reason: String,
    amount: Money,
}

struct DisputeRow {
    reference: String,
    status: String,
    reason: String,
    at: String,
    amount: Money,
}

struct ReversalView {
    made: Reversal,
    at: String,
}

#[derive(Template)]
#[template(path = "finance_payment.html")]
struct PaymentPage {
    shell: Shell,
    draft: Draft,
    notice: Option<&'static str>,
    payment: Payment,
    customer_name: String,
    /// The invoice that it is for; credit where there is none.
    invoice: Option<DocumentLink>,
    state: &'static str,
    badge: &'static str,
    made: String,
    paid: String,
    standing: RefundBalance,
    reversal: Option<ReversalView>,
    /// It can be reversed: what is left of it.
    reversible: Money,
    credit_notes: Vec<DocumentLink>,
    refunds: Vec<RefundRow>,
    pending: Vec<PendingRow>,
    disputes: Vec<DisputeRow>,
    transactions: Vec<TransactionRow>,
}

#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct PaymentPageQuery {
    #[serde(default)]
    done: String,
}

pub(super) async fn find(state: &AppState, id: &str) -> Result<Payment, Failure> {
    let id: PaymentId = id.parse().map_err(|_| Failure::NotFound)?;
    Ok(payment::payment(state.db().pool(), id).await?)
}

pub(crate) async fn show(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    PageQuery(shown): PageQuery<PaymentPageQuery>,
) -> Result<Response, PageError> {
    let payment = find(&state, &id).await?;
    let notice = match shown.done.as_str() {
        "refund" => Some("Refund made. Its state is below."),
        "asked" => Some("The refund waits for a second admin, under Approvals."),
        "reverse" => Some("Transfer reversed: the amount it settled is open again."),
        _ => None,
    };
    render(&state, &finance, payment, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    finance: &Finance,
    payment: Payment,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let minute = |at_ms: i64| format::minute(at_ms, &TimeZone::UTC);
    let refunds = payment::refunds_of(pool, payment.id).await?;
    let refunds = refunds.into_iter().map(|refund: Refund| RefundRow {
        id: refund.id.to_string(),
        state: refund.state.name(),
        by: refund.created_by,
        at: minute(refund.created_at_ms),
        reason: refund.reason,
        error: refund.error,
        amount: refund.amount,
    });
    let rows = sqlx::query(
        "SELECT reference, status, reason, opened_at_ms, currency, amount_minor FROM disputes WHERE payment_id = $1 ORDER BY id",
    )
    .bind(payment.id.0)
    .fetch_all(pool)
    .await?;
    let mut disputes = Vec::with_capacity(rows.len());
    for row in &rows {
        disputes.push(DisputeRow {
            reference: row.try_get(0)?,
            status: row.try_get(1)?,
            reason: row.try_get(2)?,
            at: minute(row.try_get(3)?),
            amount: Money::new(row.try_get(5)?, super::currency(row.try_get(4)?)?),
        });
    }
    let standing = refund_balance(state, &payment).await?;
    let mut connection = pool.acquire().await?;
    let pending = billing::refund::pending(&mut connection).await.map_err(Failure::from)?;
    drop(connection);
    let pending = pending.into_iter().filter(|one| one.payment == payment.id);
    let pending = pending.map(|one| PendingRow {
        approval: one.approval,
        at: minute(one.requested_at_ms),
        reason: one.reason,
        amount: one.amount,
    });
    // The whole of it: what was refunded is owed once it is reversed.
    let reversible = match payment.gateway {
        GatewayName::Manual => payment.amount,
        _ => Money::zero(payment.amount.currency),
    };
    let filter = TransactionFilter {
        payment: Some(payment.id),
        ..TransactionFilter::default()
    };
    let transactions: Vec<PostedTransaction> = ledger::transactions(pool, filter, TRANSACTIONS_SHOWN)
        .await
        .map_err(BillingError::from)?;
    let reversal = payment::reversal_of(pool, &payment).await?;
    let (words, badge) = words_of(&payment);
    let body = page(&PaymentPage {
        shell: Shell::new(&finance.0, payment.id.to_string(), PATH),
        notice,
        customer_name: name_of(state, payment.customer).await?,
        invoice: purpose(state, &payment).await?,
        credit_notes: credit_notes(state, &payment).await?,
        state: words,
        badge,
        made: minute(payment.created_at_ms),
        paid: payment.paid_at_ms.map(minute).unwrap_or_default(),
        standing,
        reversal: reversal.map(|made| ReversalView {
            at: minute(made.reversed_at_ms),
            made,
        }),
        reversible,
        refunds: refunds.collect(),
        pending: pending.collect(),
        disputes,
        transactions: transaction_rows(&transactions)?,
        payment,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

/// Takes a bank transfer back that never came in.
pub(crate) async fn reverse(
    State(state): State<AppState>,
    finance: Finance,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let payment = find(&state, &id).await?;
    let done: Result<(), ActionFailure> = async {
        let reason = fields.text("reason");
        if reason.is_empty() {
            return Err(said("Enter a reason: the customer sees it."));
        }
        let Some(mut action) = Action::begin(&state, &finance.0, ip, &fields).await? else {
            return Ok(());
        };
        let (actor, now_ms) = (action.actor.clone(), action.now_ms);
        let new = NewReversal {
            payment: payment.id,
            reason,
            created_by: &actor,
        };
        let reversal = payment::reverse_transfer_in(action.connection(), &new, now_ms).await?;
        let change = json!({"after": {"reversed": reversal.amount.to_string(), "reason": reversal.reason}});
        action
            .commit(Note::new("payment.reverse", payment.id).change(change))
            .await
    }
    .await;
    match done {
        Ok(()) => Ok(Redirect::to(&format!("{PATH}/payments/{}?done=reverse", payment.id)).into_response()),
        Err(refused) => {
            let draft = Draft::refused("reverse", refused, fields)?;
            render(&state, &finance, payment, draft, None).await
        }
    }
}
