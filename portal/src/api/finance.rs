//! `/api/v1/finance…`: what finance reads, for programs. Amounts are integer minor units beside their currency.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use billing::BillingError;
use billing::aging::{AgedCurrency, aging};
use billing::dunning::{self, Collection, CollectionFilter, Terms};
use billing::invoice::{self, HeldInvoice};
use billing::ledger::{self, Owed, PostedTransaction, StatementLine, TransactionFilter};
use schemas::ids::{CustomerId, TransactionId};
use schemas::inventory::{self, InventoryError};
use serde::Serialize;

use super::ApiQuery;
use crate::auth::Finance;
use crate::error::{ApiError, Failure};
use crate::query::optional;
use crate::state::AppState;

/// Lines or transactions in one answer.
const PAGE: i64 = 100;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/finance/aging", get(open_invoices))
        .route("/finance/balances", get(balances))
        .route("/finance/collection", get(collection))
        .route("/finance/held", get(held))
        .route("/finance/transactions", get(transactions))
        .route("/finance/customers/{customer}/statement", get(statement))
}

#[derive(Serialize)]
struct AgingAnswer {
    at_ms: i64,
    currencies: Vec<AgedCurrency>,
}

#[derive(serde::Deserialize)]
struct AgingAsked {
    /// An instant, UTC milliseconds; now where it is absent.
    #[serde(default)]
    at_ms: Option<i64>,
}

async fn open_invoices(
    State(state): State<AppState>,
    _: Finance,
    ApiQuery(asked): ApiQuery<AgingAsked>,
) -> Result<Json<AgingAnswer>, ApiError> {
    let at_ms = asked.at_ms.unwrap_or_else(|| state.now_ms());
    let currencies = aging(state.db().pool(), at_ms).await?;
    Ok(Json(AgingAnswer { at_ms, currencies }))
}

#[derive(Serialize)]
struct CollectionAnswer {
    terms: Terms,
    invoices: Vec<Collection>,
}

async fn collection(State(state): State<AppState>, _: Finance) -> Result<Json<CollectionAnswer>, ApiError> {
    let invoices = dunning::list(state.db().pool(), CollectionFilter::default())
        .await
        .map_err(|error| Failure::internal("ask what is collected")(error.into()))?;
    let terms = dunning::terms(state.db().pool()).await?;
    Ok(Json(CollectionAnswer { terms, invoices }))
}

#[derive(Serialize)]
struct HeldAnswer {
    invoices: Vec<HeldInvoice>,
}

/// Invoices that are due and wait for a person.
async fn held(State(state): State<AppState>, _: Finance) -> Result<Json<HeldAnswer>, ApiError> {
    let invoices = invoice::held(state.db().pool(), None).await?;
    Ok(Json(HeldAnswer { invoices }))
}

#[derive(Serialize)]
struct BalancesAnswer {
    balances: Vec<Owed>,
}

async fn balances(State(state): State<AppState>, _: Finance) -> Result<Json<BalancesAnswer>, ApiError> {
    let balances = ledger::owed(state.db().pool(), None)
        .await
        .map_err(BillingError::from)?;
    Ok(Json(BalancesAnswer { balances }))
}

#[derive(serde::Deserialize)]
struct Asked {
    /// The last transaction of the page before.
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    account: Option<String>,
}

impl Asked {
    fn before(&self) -> Result<Option<TransactionId>, Failure> {
        optional("before", self.before.as_deref(), "the id of a transaction")
    }
}

#[derive(Serialize)]
struct TransactionsAnswer {
    transactions: Vec<PostedTransaction>,
}

async fn transactions(
    State(state): State<AppState>,
    _: Finance,
    ApiQuery(asked): ApiQuery<Asked>,
) -> Result<Json<TransactionsAnswer>, ApiError> {
    let filter = TransactionFilter {
        account: asked.account.as_deref().filter(|account| !account.is_empty()),
        before: asked.before()?,
        ..TransactionFilter::default()
    };
    let transactions = ledger::transactions(state.db().pool(), filter, PAGE)
        .await
        .map_err(BillingError::from)?;
    Ok(Json(TransactionsAnswer { transactions }))
}

#[derive(serde::Deserialize)]
struct StatementAsked {
    /// The last transaction of the page before.
    #[serde(default)]
    before: Option<String>,
}

#[derive(Serialize)]
struct StatementAnswer {
    customer: CustomerId,
    lines: Vec<StatementLine>,
}

async fn statement(
    State(state): State<AppState>,
    _: Finance,
    Path(customer): Path<String>,
    ApiQuery(asked): ApiQuery<StatementAsked>,
) -> Result<Json<StatementAnswer>, ApiError> {
    let customer: CustomerId = customer.parse().map_err(|_| Failure::NotFound)?;
    match inventory::customer(state.db().pool(), customer).await {
        Err(InventoryError::NoCustomer(_)) => return Err(Failure::NotFound.into()),
        found => found?,
    };
    let before = optional("before", asked.before.as_deref(), "the id of a transaction")?;
    let lines = ledger::statement(state.db().pool(), customer, before, PAGE)
        .await
        .map_err(BillingError::from)?;
    Ok(Json(StatementAnswer { customer, lines }))
}
