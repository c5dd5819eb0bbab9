//! What waits for a person's word: it is due, but too little of its usage was measured to finalise it, and a finalised invoice
//! never changes (B3).
//!
//! A period is held by closing, told once, and finalised by the next closing after somebody confirmed it, or after what was
//! missing was measured. Which usage holds it: [`schemas::usage::MeasureGuards`].

use std::collections::HashSet;

use activity::act::Note;
use activity::event::{EventType, NewEvent};
use schemas::ids::CustomerId;
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Draft, OpenReason};
use crate::BillingError;
use crate::event;
use crate::field::checked_text;
use crate::guard;

/// Characters in the note of who confirms at most.
pub(crate) const MAX_NOTE_CHARS: usize = 500;
/// Held periods on a list at most.
pub(crate) const MAX_LISTED: i64 = 1_000;

/// A period that is due and held.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct UnmeasuredPeriod {
    pub customer: CustomerId,
    pub customer_name: String,
    /// When everything on it was due to be charged.
    pub due_ms: i64,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    pub reason: OpenReason,
    /// Percent of the windows of its least measured usage that were measured, rounded down.
    pub coverage_percent: i64,
    pub held_at_ms: i64,
    /// Who said that it is to be finalised as it is.
    pub confirmed_by: Option<String>,
}

/// Which periods of the customers with ids from `first` to `last` somebody confirmed.
///
/// # Errors
/// As the database answers.
pub(super) async fn confirmed(
    connection: &mut AnyConnection,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashSet<(CustomerId, i64)>, BillingError> {
    let rows = sqlx::query(
        "SELECT customer_id, due_ms FROM unmeasured_periods WHERE customer_id BETWEEN $1 AND $2 AND confirmed_by IS NOT NULL",
    )
    .bind(first.0)
    .bind(last.0)
    .fetch_all(connection)
    .await?;
    let read = |row: &AnyRow| Ok((CustomerId(row.try_get(0)?), row.try_get(1)?));
    rows.iter().map(read).collect()
}

/// Keeps that a draft is held, and tells of it the first time.
///
/// # Errors
/// As the database answers.
pub(super) async fn hold(
    connection: &mut AnyConnection,
    draft: &Draft,
    reason: OpenReason,
    now_ms: i64,
) -> Result<(), BillingError> {
    let coverage_percent = i64::from(draft.coverage_percent.unwrap_or(0));
    let known = sqlx::query("SELECT due_ms FROM unmeasured_periods WHERE customer_id = $1 AND due_ms = $2")
        .bind(draft.customer.0)
        .bind(draft.due_ms)
        .fetch_optional(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO unmeasured_periods (customer_id, due_ms, period_start_ms, period_end_ms, reason, coverage_percent, held_at_ms, \
         note) VALUES ($1, $2, $3, $4, $5, $6, $7, '') \
         ON CONFLICT (customer_id, due_ms) DO UPDATE SET reason = $5, coverage_percent = $6",
    )
    .bind(draft.customer.0)
    .bind(draft.due_ms)
    .bind(draft.period_start_ms)
    .bind(draft.period_end_ms)
    .bind(reason.name())
    .bind(coverage_percent)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    if known.is_some() {
        return Ok(());
    }
    let new = NewEvent {
        event_type: EventType::UsageUnmeasured,
        customer: Some(draft.customer),
        subject: draft.customer.to_string(),
        payload: json!({
            "customer_name": draft.customer_name, "reason": reason.to_string(), "coverage_percent": coverage_percent,
            "period_start_ms": draft.period_start_ms, "period_end_ms": draft.period_end_ms, "due_ms": draft.due_ms,
            "amount_minor": draft.total.minor, "currency": draft.currency,
        }),
    };
    event::publish(connection, new, now_ms).await?;
    Ok(())
}

/// Forgets what was held and is finalised now.
///
/// # Errors
/// As the database answers.
pub(super) async fn finalised(
    connection: &mut AnyConnection,
    customer: CustomerId,
    due_ms: i64,
) -> Result<(), BillingError> {
    sqlx::query("DELETE FROM unmeasured_periods WHERE customer_id = $1 AND due_ms = $2")
        .bind(customer.0)
        .bind(due_ms)
        .execute(connection)
        .await?;
    Ok(())
}

/// A person's word that what is held for a customer is to be finalised as it was measured; returns how many periods. The next
/// closing finalises them. `by` is kept with them.
///
/// # Errors
/// [`BillingError::NothingUnmeasured`] where nothing of this customer waits; while billing is stopped.
pub async fn confirm(
    connection: &mut AnyConnection,
    customer: CustomerId,
    note: &str,
    by: &str,
    now_ms: i64,
) -> Result<(u64, Note), BillingError> {
    let note = checked_text("reason", note, MAX_NOTE_CHARS)?;
    guard::check(&mut *connection).await?;
    let waiting = of_customer(&mut *connection, customer).await?;
    let waiting: Vec<&UnmeasuredPeriod> = waiting.iter().filter(|held| held.confirmed_by.is_none()).collect();
    if waiting.is_empty() {
        return Err(BillingError::NothingUnmeasured(customer));
    }
    let done = sqlx::query(
        "UPDATE unmeasured_periods SET confirmed_by = $1, confirmed_at_ms = $2, note = $3 \
         WHERE customer_id = $4 AND confirmed_by IS NULL",
    )
    .bind(by)
    .bind(now_ms)
    .bind(&note)
    .bind(customer.0)
    .execute(connection)
    .await?;
    let change = json!({ "after": { "confirmed": waiting, "reason": note } });
    let note = Note::new("invoice.confirm_coverage", customer).change(change);
    Ok((done.rows_affected(), note))
}

const SELECT: &str = "SELECT h.customer_id, c.name, h.due_ms, h.period_start_ms, h.period_end_ms, h.reason, h.coverage_percent, \
     h.held_at_ms, h.confirmed_by FROM unmeasured_periods h JOIN customers c ON c.id = h.customer_id";

/// Everything that is held, longest waiting first, [`MAX_LISTED`] at most.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn unmeasured(db: impl AnyExecutor<'_>) -> Result<Vec<UnmeasuredPeriod>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY h.due_ms, h.customer_id LIMIT $1"));
    let rows = sqlx::query(sql).bind(MAX_LISTED).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

async fn of_customer(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Vec<UnmeasuredPeriod>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE h.customer_id = $1 ORDER BY h.due_ms"));
    let rows = sqlx::query(sql).bind(customer.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<UnmeasuredPeriod, BillingError> {
    Ok(UnmeasuredPeriod {
        customer: CustomerId(row.try_get(0)?),
        customer_name: row.try_get(1)?,
        due_ms: row.try_get(2)?,
        period_start_ms: row.try_get(3)?,
        period_end_ms: row.try_get(4)?,
        reason: row.try_get::<String, _>(5)?.parse()?,
        coverage_percent: row.try_get(6)?,
        held_at_ms: row.try_get(7)?,
        confirmed_by: row.try_get(8)?,
    })
}
