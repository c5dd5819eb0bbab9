//! `/api/v1/finance…`: what finance reads, for programs. Amounts are integer minor units beside their currency.

use axum::Json;
use axum::extract::State;
use billing::aging::{AgedCurrency, aging};
use billing::collection_terms::{self, Terms};
use billing::dunning::{self, Collection, CollectionFilter};
use billing::invoice::{self, HeldInvoice};
use billing::ledger::{self, Owed, PostedTransaction, StatementLine, TransactionFilter};
use schemas::ids::{CustomerId, TransactionId};
use schemas::inventory;
use serde::Serialize;

use super::ApiQuery;
use crate::auth::{Finance, Principal};
use crate::error::{ApiError, Failure};
use crate::path::Path;
use crate::query::optional;
use crate::state::AppState;

/// Lines or transactions in one answer.
const PAGE: i64 = 100;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AgingAnswer {
    at_ms: i64,
    currencies: Vec<AgedCurrency>,
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
pub(crate) struct AgingQuery {
    /// An instant, UTC milliseconds; now where it is absent.
    #[serde(default)]
    at_ms: Option<i64>,
}

pub(crate) async fn open_invoices(
    State(state): State<AppState>,
    _: Finance<Principal>,
    ApiQuery(asked): ApiQuery<AgingQuery>,
) -> Result<Json<AgingAnswer>, ApiError> {
    let at_ms = asked.at_ms.unwrap_or_else(|| state.now_ms());
    let currencies = aging(state.db().pool(), at_ms).await?;
    Ok(Json(AgingAnswer { at_ms, currencies }))
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CollectionAnswer {
    terms: Terms,
    invoices: Vec<Collection>,
}

pub(crate) async fn collection(
    State(state): State<AppState>,
    _: Finance<Principal>,
) -> Result<Json<CollectionAnswer>, ApiError> {
    let invoices = dunning::list(state.db().pool(), CollectionFilter::default()).await?;
    let terms = collection_terms::terms(state.db().pool()).await?;
    Ok(Json(CollectionAnswer { terms, invoices }))
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct HeldAnswer {
    invoices: Vec<HeldInvoice>,
}

/// Invoices that are due and wait for a person.
pub(crate) async fn held(State(state): State<AppState>, _: Finance<Principal>) -> Result<Json<HeldAnswer>, ApiError> {
    let invoices = invoice::held(state.db().pool(), None).await?;
    Ok(Json(HeldAnswer { invoices }))
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct BalancesAnswer {
    balances: Vec<Owed>,
}

pub(crate) async fn balances(
    State(state): State<AppState>,
    _: Finance<Principal>,
) -> Result<Json<BalancesAnswer>, ApiError> {
    let balances = ledger::owed(state.db().pool(), None).await?;
    Ok(Json(BalancesAnswer { balances }))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
pub(crate) struct TransactionsQuery {
    /// The last transaction of the page before.
    #[serde(default)]
    before: Option<String>,
    /// Name of an account that it posts to, such as `receivable:cus_1:USD`.
    #[serde(default)]
    account: Option<String>,
}

impl TransactionsQuery {
    fn before(&self) -> Result<Option<TransactionId>, Failure> {
        optional("before", self.before.as_deref(), "the id of a transaction")
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TransactionsAnswer {
    transactions: Vec<PostedTransaction>,
}

pub(crate) async fn transactions(
    State(state): State<AppState>,
    _: Finance<Principal>,
    ApiQuery(asked): ApiQuery<TransactionsQuery>,
) -> Result<Json<TransactionsAnswer>, ApiError> {
    let filter = TransactionFilter {
        account: asked.account.as_deref().filter(|account| !account.is_empty()),
        before: asked.before()?,
        ..TransactionFilter::default()
    };
    let transactions = ledger::transactions(state.db().pool(), filter, PAGE).await?;
    Ok(Json(TransactionsAnswer { transactions }))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
pub(crate) struct StatementQuery {
    /// The last transaction of the page before.
    #[serde(default)]
    before: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct StatementAnswer {
    customer: CustomerId,
    lines: Vec<StatementLine>,
}

pub(crate) async fn statement(
    State(state): State<AppState>,
    _: Finance<Principal>,
    Path(customer): Path<String>,
    ApiQuery(asked): ApiQuery<StatementQuery>,
) -> Result<Json<StatementAnswer>, ApiError> {
    let customer: CustomerId = customer.parse().map_err(|_| Failure::NotFound)?;
    inventory::customer(state.db().pool(), customer).await?;
    let before = optional("before", asked.before.as_deref(), "the id of a transaction")?;
    let lines = ledger::statement(state.db().pool(), customer, before, PAGE).await?;
    Ok(Json(StatementAnswer { customer, lines }))
}
