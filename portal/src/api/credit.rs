//! `/api/v1/credit…`, `/api/v1/budget`: a customer's credit with its movements and top-ups, and where the budget stands. Amounts
//! are integer minor units beside their currency.

use axum::Json;
use axum::extract::State;
use billing::budget::{self, Alert, Status};
use billing::payment::{GatewayName, Payment};
use billing::settlement;
use billing::top_up::{self, AUTOMATIC_NOTE, Movement, TopUp};
use schemas::ids::{PaymentId, PaymentMethodId, ServiceId, TransactionId};
use schemas::inventory;
use schemas::money::Money;
use serde::Serialize;

use super::ApiQuery;
use crate::auth::{Customer, Principal};
use crate::customer::{metered_usage, top_ups};
use crate::error::{ApiError, Failure};
use crate::query::optional;
use crate::state::AppState;

/// Movements in one answer, unless fewer are asked for.
const PAGE_MOVEMENTS: i64 = 100;
/// Alerts in one answer.
const MAX_ALERTS: i64 = 100;

/// A payment for credit.
#[derive(Serialize, utoipa::ToSchema)]
struct TopUpAttempt {
    id: PaymentId,
    amount: Money,
    state: &'static str,
    gateway: &'static str,
    method: Option<PaymentMethodId>,
    is_automatic: bool,
    error: String,
    created_at_ms: i64,
    paid_at_ms: Option<i64>,
}

impl From<Payment> for TopUpAttempt {
    fn from(payment: Payment) -> TopUpAttempt {
        TopUpAttempt {
            id: payment.id,
            amount: payment.amount,
            state: payment.state.name(),
            gateway: GatewayName::name(payment.gateway),
            method: payment.method,
            is_automatic: payment.note == AUTOMATIC_NOTE,
            error: payment.error,
            created_at_ms: payment.created_at_ms,
            paid_at_ms: payment.paid_at_ms,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreditAnswer {
    balance: Money,
    /// What can be spent: not what refunds under way will take.
    available: Money,
    /// By when a balance below zero is to be paid.
    owed_by_ms: Option<i64>,
    /// `null` where it was never set.
    top_up: Option<TopUp>,
    /// The latest first.
    attempts: Vec<TopUpAttempt>,
}

pub(crate) async fn credit(
    State(state): State<AppState>,
    customer: Customer<Principal>,
) -> Result<Json<CreditAnswer>, ApiError> {
    let mut connection = state.db().pool().acquire().await?;
    let currency = inventory::customer(&mut *connection, customer.id).await?.currency;
    let balance = settlement::credit_balance(&mut *connection, customer.id, currency).await?;
    let available = settlement::available_credit(&mut connection, customer.id, currency).await?;
    let owed_by_ms = settlement::credit_claim_due(&mut *connection, customer.id, currency).await?;
    let top_up = top_up::settings(&mut *connection, customer.id).await?;
    drop(connection);
    let attempts = top_ups(&state, customer.id).await?;
    Ok(Json(CreditAnswer {
        balance,
        available,
        owed_by_ms,
        top_up,
        attempts: attempts.into_iter().map(TopUpAttempt::from).collect(),
    }))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
pub(crate) struct MovementsQuery {
    /// The last transaction of the page before.
    #[serde(default)]
    before: Option<String>,
    /// Movements in one answer, 1 to 100.
    #[serde(default)]
    limit: Option<i64>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct MovementsAnswer {
    movements: Vec<Movement>,
    /// `before` of the next page; absent on the last.
    next: Option<TransactionId>,
}

pub(crate) async fn movements(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    ApiQuery(asked): ApiQuery<MovementsQuery>,
) -> Result<Json<MovementsAnswer>, ApiError> {
    let limit = asked.limit.unwrap_or(PAGE_MOVEMENTS);
    if !(1..=PAGE_MOVEMENTS).contains(&limit) {
        return Err(Failure::BadRequest(format!("“limit” is a number from 1 to {PAGE_MOVEMENTS}.")).into());
    }
    let before: Option<TransactionId> = optional("before", asked.before.as_deref(), "the id of a transaction")?;
    let mut connection = state.db().pool().acquire().await?;
    let mut movements = top_up::movements(&mut connection, customer.id, before, limit + 1).await?;
    let has_more = movements.len() as i64 > limit;
    movements.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(MovementsAnswer {
        next: movements.last().filter(|_| has_more).map(|last| last.transaction),
        movements,
    }))
}

#[derive(Serialize, utoipa::ToSchema)]
struct BudgetStatus {
    amount: Money,
    thresholds_percent: Vec<i64>,
    suspends: bool,
    reset_day: i64,
    cycle_start_ms: i64,
    cycle_end_ms: i64,
    spent: Money,
    forecast: Money,
    is_exceeded: bool,
    /// Services that are not excluded are suspended.
    is_suspended: bool,
    is_unlocked: bool,
    /// Credit of so much, bought, unlocks; `null` while the budget is not exceeded.
    unlock: Option<Money>,
    excluded: Vec<ServiceId>,
}

impl From<Status> for BudgetStatus {
    fn from(status: Status) -> BudgetStatus {
        BudgetStatus {
            amount: status.budget.amount,
            thresholds_percent: status.budget.thresholds.percentages().to_vec(),
            suspends: status.budget.suspends,
            reset_day: status.budget.reset_day.get(),
            cycle_start_ms: status.cycle.start_ms,
            cycle_end_ms: status.cycle.end_ms,
            spent: status.spent,
            forecast: status.forecast,
            is_exceeded: status.is_exceeded(),
            is_suspended: status.holds(),
            is_unlocked: status.is_unlocked,
            unlock: status.is_exceeded().then(|| status.unlock_amount()),
            excluded: status.excluded,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct BudgetAnswer {
    /// `null` where none is set.
    budget: Option<BudgetStatus>,
    /// What was said, the latest first.
    alerts: Vec<Alert>,
}

pub(crate) async fn budget(
    State(state): State<AppState>,
    customer: Customer<Principal>,
) -> Result<Json<BudgetAnswer>, ApiError> {
    let status = budget::status(state.db(), &metered_usage(&state), customer.id, state.now_ms()).await?;
    let alerts = budget::alerts(state.db().pool(), customer.id, MAX_ALERTS).await?;
    Ok(Json(BudgetAnswer {
        budget: status.map(BudgetStatus::from),
        alerts,
    }))
}
