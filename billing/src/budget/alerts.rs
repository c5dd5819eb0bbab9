//! What is said of a budget, each once per cycle: the row in `budget_alerts` and the event are one transaction.

use activity::event::EventType;
use schemas::ids::CustomerId;
use schemas::money::{Currency, Money};
use serde_json::json;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{BudgetError, EXCEEDED_PERCENT, Status, reaches};
use crate::settlement;

/// Notes that something is said in this cycle; false when it was before.
async fn alert_once(
    connection: &mut AnyConnection,
    status: &Status,
    threshold: i64,
    basis: &str,
    now_ms: i64,
) -> Result<bool, BudgetError> {
    let said = sqlx::query(
        "INSERT INTO budget_alerts (customer_id, cycle_start_ms, threshold, basis, spent_minor, alerted_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (customer_id, cycle_start_ms, threshold, basis) DO NOTHING",
    )
    .bind(status.budget.customer.0)
    .bind(status.cycle.start_ms)
    .bind(threshold)
    .bind(basis)
    .bind(status.spent.minor)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(said.rows_affected() == 1)
}

/// What was spent: every threshold that is reached, and that the budget is.
pub(super) async fn alert_spent(
    connection: &mut AnyConnection,
    status: &Status,
    now_ms: i64,
) -> Result<Vec<i64>, BudgetError> {
    let mut percentages = status.budget.thresholds.percentages().to_vec();
    percentages.push(EXCEEDED_PERCENT);
    percentages.sort_unstable();
    percentages.dedup();
    let mut said = Vec::new();
    for percent in percentages {
        let is_reached = reaches(status.spent.minor, percent, status.budget.amount);
        if !is_reached || !alert_once(connection, status, percent, "spent", now_ms).await? {
            continue;
        }
        said.push(percent);
        let event_type = match percent {
            EXCEEDED_PERCENT => EventType::BudgetExceeded,
            _ => EventType::BudgetThresholdReached,
        };
        tell(
            connection,
            status,
            event_type,
            json!({ "threshold_percent": percent, "basis": "spent" }),
            now_ms,
        )
        .await?;
    }
    Ok(said)
}

/// That the cycle will end over the budget. When it is there already, that was said.
pub(super) async fn alert_forecast(
    connection: &mut AnyConnection,
    status: &Status,
    now_ms: i64,
) -> Result<bool, BudgetError> {
    let passes = status.forecast.minor > status.budget.amount.minor;
    if !passes || status.is_exceeded() {
        return Ok(false);
    }
    if !alert_once(connection, status, EXCEEDED_PERCENT, "forecast", now_ms).await? {
        return Ok(false);
    }
    let facts = json!({ "threshold_percent": EXCEEDED_PERCENT, "basis": "forecast" });
    tell(connection, status, EventType::BudgetThresholdReached, facts, now_ms).await?;
    Ok(true)
}

/// That a cycle has begun, where something was said in one before.
pub(super) async fn alert_reset(
    connection: &mut AnyConnection,
    status: &Status,
    now_ms: i64,
) -> Result<(), BudgetError> {
    let row = sqlx::query(
        "SELECT count(*) FROM budget_alerts a WHERE a.customer_id = $1 AND a.basis <> 'reset' AND a.cycle_start_ms < $2 \
         AND a.cycle_start_ms >= (SELECT CAST(coalesce(max(r.cycle_start_ms), 0) AS BIGINT) FROM budget_alerts r \
         WHERE r.customer_id = $1 AND r.basis = 'reset')",
    )
    .bind(status.budget.customer.0)
    .bind(status.cycle.start_ms)
    .fetch_one(&mut *connection)
    .await?;
    if row.try_get::<i64, _>(0)? == 0 || !alert_once(connection, status, 0, "reset", now_ms).await? {
        return Ok(());
    }
    tell(connection, status, EventType::BudgetReset, json!({}), now_ms).await
}

/// Something that was said of a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = BudgetAlert)]
pub struct Alert {
    pub at_ms: i64,
    pub threshold_percent: i64,
    /// That the forecast reaches it, not what is spent.
    pub is_forecast: bool,
    /// What was spent then.
    pub spent: Money,
    /// Of the cycle that it was said in.
    pub cycle_start_ms: i64,
}

/// What was said of a customer's budgets, the latest first, `limit` at most.
///
/// # Errors
/// As the database answers.
pub async fn alerts(db: impl AnyExecutor<'_>, customer: CustomerId, limit: i64) -> Result<Vec<Alert>, BudgetError> {
    let rows = sqlx::query(
        "SELECT a.alerted_at_ms, a.threshold, a.basis, a.spent_minor, a.cycle_start_ms, c.currency FROM budget_alerts a \
         JOIN customers c ON c.id = a.customer_id WHERE a.customer_id = $1 AND a.basis <> 'reset' \
         ORDER BY a.alerted_at_ms DESC, a.cycle_start_ms DESC, a.threshold DESC, a.basis LIMIT $2",
    )
    .bind(customer.0)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let mut alerts = Vec::with_capacity(rows.len());
    for row in &rows {
        let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
        alerts.push(Alert {
            at_ms: row.try_get("alerted_at_ms")?,
            threshold_percent: row.try_get("threshold")?,
            is_forecast: row.try_get::<String, _>("basis")? == "forecast",
            spent: Money::new(row.try_get("spent_minor")?, currency),
            cycle_start_ms: row.try_get("cycle_start_ms")?,
        });
    }
    Ok(alerts)
}

async fn tell(
    connection: &mut AnyConnection,
    status: &Status,
    event_type: EventType,
    mut facts: serde_json::Value,
    now_ms: i64,
) -> Result<(), BudgetError> {
    facts["spent_minor"] = json!(status.spent.minor);
    facts["forecast_minor"] = json!(status.forecast.minor);
    facts["budget_minor"] = json!(status.budget.amount.minor);
    facts["currency"] = json!(status.spent.currency);
    facts["resets_at_ms"] = json!(status.cycle.end_ms);
    facts["suspends"] = json!(status.budget.suspends);
    let customer = status.budget.customer;
    settlement::tell(connection, event_type, customer, customer.to_string(), facts, now_ms).await?;
    Ok(())
}
