//! `/api/v1/invoices…`: a customer's finalised invoices, and each usage line taken apart (B5). Decimals are text; amounts are
//! integer minor units beside their currency.

use analytics::Peer;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use billing::dunning::{self, Outlook};
use billing::evidence::{Evidence, Measured, UsageCharge};
use billing::invoice::{self, DayUsage, Explanation, Invoice, InvoiceFilter, InvoiceKind, InvoiceLine, InvoiceStatus};
use billing::line_kind::LineKind;
use schemas::ids::{InvoiceId, InvoiceLineId, ServiceId, SubscriptionId};
use schemas::money::{Currency, Money};
use serde::Serialize;

use super::ApiQuery;
use crate::auth::{Customer, Principal};
use crate::customer::{explanation, invoice_of};
use crate::documents::{self, Reader};
use crate::error::{ApiError, Failure};
use crate::path::Path;
use crate::query::optional;
use crate::state::AppState;

/// Invoices in one answer, unless fewer are asked for.
const PAGE_INVOICES: i64 = 100;

#[derive(Serialize, utoipa::ToSchema)]
struct InvoiceAnswer {
    id: InvoiceId,
    kind: InvoiceKind,
    number: String,
    currency: Currency,
    period_start_ms: i64,
    period_end_ms: i64,
    time_zone: String,
    status: InvoiceStatus,
    subtotal: Money,
    tax: Money,
    total: Money,
    outstanding: Money,
    finalised_at_ms: i64,
    due_at_ms: i64,
}

impl From<Invoice> for InvoiceAnswer {
    fn from(invoice: Invoice) -> InvoiceAnswer {
        InvoiceAnswer {
            outstanding: invoice.outstanding(),
            id: invoice.id,
            kind: invoice.kind,
            number: invoice.number,
            currency: invoice.currency,
            period_start_ms: invoice.period_start_ms,
            period_end_ms: invoice.period_end_ms,
            time_zone: invoice.time_zone,
            status: invoice.status,
            subtotal: invoice.subtotal,
            tax: invoice.tax,
            total: invoice.total,
            finalised_at_ms: invoice.finalised_at_ms,
            due_at_ms: invoice.due_at_ms,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
struct LineAnswer {
    id: InvoiceLineId,
    position: i64,
    subscription: Option<SubscriptionId>,
    service: Option<ServiceId>,
    kind: LineKind,
    description: String,
    quantity: String,
    unit: String,
    unit_price: String,
    amount: Money,
    period_start_ms: i64,
    period_end_ms: i64,
    evidence: Evidence,
}

impl From<InvoiceLine> for LineAnswer {
    fn from(line: InvoiceLine) -> LineAnswer {
        LineAnswer {
            id: line.id,
            position: line.position,
            subscription: line.subscription,
            service: line.service,
            kind: line.kind,
            description: line.description,
            quantity: line.quantity.to_string(),
            unit: line.unit,
            unit_price: line.unit_price.to_string(),
            amount: line.amount,
            period_start_ms: line.period_start_ms,
            period_end_ms: line.period_end_ms,
            evidence: line.evidence,
        }
    }
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
pub(crate) struct InvoicesQuery {
    /// The last invoice of the page before.
    #[serde(default)]
    before: Option<String>,
    /// Invoices in one answer, 1 to 100.
    #[serde(default)]
    limit: Option<i64>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct InvoicesAnswer {
    invoices: Vec<InvoiceAnswer>,
    /// To be given as `before` for the next page; absent on the last.
    next: Option<InvoiceId>,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    ApiQuery(asked): ApiQuery<InvoicesQuery>,
) -> Result<Json<InvoicesAnswer>, ApiError> {
    let limit = asked.limit.unwrap_or(PAGE_INVOICES);
    if !(1..=PAGE_INVOICES).contains(&limit) {
        return Err(Failure::BadRequest(format!("“limit” lies between 1 and {PAGE_INVOICES}.")).into());
    }
    let before: Option<InvoiceId> = optional("before", asked.before.as_deref(), "an id such as inv_7")?;
    let filter = InvoiceFilter {
        customer: Some(customer.id),
        before,
        limit: Some(limit + 1),
        ..InvoiceFilter::default()
    };
    let mut invoices = invoice::list_all(state.db().pool(), filter).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = invoices.len() > limit;
    invoices.truncate(limit);
    let next = invoices.last().filter(|_| has_more).map(|invoice| invoice.id);
    Ok(Json(InvoicesAnswer {
        invoices: invoices.into_iter().map(InvoiceAnswer::from).collect(),
        next,
    }))
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct InvoiceWithLinesAnswer {
    #[serde(flatten)]
    invoice: InvoiceAnswer,
    lines: Vec<LineAnswer>,
    /// Of one that is collected: what is still to come.
    outlook: Option<Outlook>,
}

pub(crate) async fn one(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    Path(id): Path<String>,
) -> Result<Json<InvoiceWithLinesAnswer>, ApiError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    let mut connection = state.db().pool().acquire().await?;
    let outlook = dunning::outlook(&mut connection, found.invoice.id).await?;
    Ok(Json(InvoiceWithLinesAnswer {
        outlook,
        invoice: found.invoice.into(),
        lines: found.lines.into_iter().map(LineAnswer::from).collect(),
    }))
}

pub(crate) async fn pdf(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    Ok(documents::pdf(&state, found.invoice.id).await?)
}

pub(crate) async fn xml(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let found = invoice_of(&state, customer.id, &id).await?;
    Ok(documents::xml(&state, found.invoice.id, Reader::Customer).await?)
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ExplainAnswer {
    line: LineAnswer,
    service_name: String,
    charge: UsageCharge,
    measured: Measured,
    days: Vec<DayUsage>,
    peers: Vec<Peer>,
}

pub(crate) async fn explain(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    Path((invoice, line)): Path<(String, String)>,
) -> Result<Json<ExplainAnswer>, ApiError> {
    let found = invoice_of(&state, customer.id, &invoice).await?;
    let explanation = explanation(&state, &found, &line).await?;
    let Explanation {
        line,
        service,
        charge,
        measured,
        days,
        peers,
    } = explanation;
    Ok(Json(ExplainAnswer {
        line: line.into(),
        service_name: service.name,
        charge,
        measured,
        days,
        peers,
    }))
}
