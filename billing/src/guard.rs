//! Guards on what cannot be undone.
//!
//! * **The clock.** A machine's clock that jumps 40 days ahead would charge, suspend and terminate what is due by then. Billing
//!   keeps the last time that it believed. A clock that moved further ahead since than [`ClockLimits`] allow, or back, stops
//!   billing: nothing is closed, collected, ended or ordered until the clock is back, or an admin confirms that the time is
//!   right (a machine that was off for weeks). A test clock is set by its operator and never jumps.
//! * **Usage.** What was not measured is not closed without a person's word: nothing beyond the newest data, and nothing of
//!   which too little was measured ([`schemas::usage::MeasureGuards`], kept by [`crate::invoice`]).
//!
//! ```text
//! running ── moved too far ──▶ stopped: event, health, pages, every way to charge refuses
//!    ▲                            │
//!    └── clock back, or confirmed ┘
//! ```

use activity::act::Note;
use activity::audit::Risk;
use activity::event::{EventError, EventType, NewEvent};
use schemas::clock::{self, ClockError};
use schemas::db::Database;
use schemas::window::{HOUR_MS, instant_text};
use serde_json::json;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;
use crate::event;

/// How far a clock may go back: time servers correct seconds.
pub const BACK_MS: i64 = HOUR_MS;
/// How often the time that billing believes is written down.
const KEPT_MS: i64 = 60_000;

/// What the clock may do without anybody being asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockLimits {
    /// How far it may go ahead between two looks of billing, a restart between them included.
    pub ahead_ms: i64,
}

impl Default for ClockLimits {
    fn default() -> ClockLimits {
        ClockLimits { ahead_ms: 48 * HOUR_MS }
    }
}

/// Why the clock could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("ask what time it is")]
    Clock(#[from] ClockError),
    #[error("publish that billing stopped")]
    Event(#[from] EventError),
    #[error("billing runs: there is nothing to confirm")]
    Running,
}

schemas::error_codes! {
    GuardError: "guard";
    of [Database, Clock, Event]
    source []
    Conflict: Running = "running";
}

/// Billing is stopped, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct BillingStop {
    /// The last time that was believed.
    pub good_ms: i64,
    /// What the clock showed when billing stopped.
    pub stopped_at_ms: i64,
}

impl std::fmt::Display for BillingStop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "billing is stopped: the clock moved from {} to {}. Set it right, or confirm it with `ezscale clock confirm`",
            instant_text(self.good_ms),
            instant_text(self.stopped_at_ms)
        )
    }
}

/// Whether billing is stopped.
///
/// # Errors
/// As the database answers.
pub async fn stopped(db: impl AnyExecutor<'_>) -> Result<Option<BillingStop>, sqlx::Error> {
    let row =
        sqlx::query("SELECT good_ms, stopped_at_ms FROM billing_clock WHERE id = 1 AND stopped_at_ms IS NOT NULL")
            .fetch_optional(db)
            .await?;
    let read = |row: sqlx::any::AnyRow| {
        Ok(BillingStop {
            good_ms: row.try_get(0)?,
            stopped_at_ms: row.try_get(1)?,
        })
    };
    row.map(read).transpose()
}

/// Refuses while billing is stopped.
///
/// # Errors
/// [`BillingError::Stopped`].
pub async fn check(db: impl AnyExecutor<'_>) -> Result<(), BillingError> {
    match stopped(db).await? {
        Some(stopped) => Err(BillingError::Stopped(stopped)),
        None => Ok(()),
    }
}

/// Looks at the clock: keeps the time where it is believed, stops billing where it is not, and lets it go on when the clock is
/// back. Whoever is about to bill looks first.
///
/// # Errors
/// As the database answers.
pub async fn look(database: &Database, limits: ClockLimits, now_ms: i64) -> Result<Option<BillingStop>, GuardError> {
    if clock::stored(database.pool()).await?.is_some() {
        return Ok(None);
    }
    let row = sqlx::query("SELECT good_ms, stopped_at_ms FROM billing_clock WHERE id = 1")
        .fetch_optional(database.pool())
        .await?;
    let Some(row) = row else {
        keep(database, now_ms).await?;
        return Ok(None);
    };
    let (good_ms, was_stopped): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let is_believed = (-BACK_MS..=limits.ahead_ms).contains(&(now_ms - good_ms));
    match (is_believed, was_stopped) {
        (true, None) => {
            if now_ms >= good_ms + KEPT_MS {
                keep(database, now_ms).await?;
            }
            Ok(None)
        }
        (true, Some(_)) => {
            go_on(database, good_ms, now_ms).await?;
            Ok(None)
        }
        (false, Some(stopped_at_ms)) => Ok(Some(BillingStop { good_ms, stopped_at_ms })),
        (false, None) => Ok(Some(stop(database, good_ms, now_ms).await?)),
    }
}

async fn keep(database: &Database, now_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO billing_clock (id, good_ms) VALUES (1, $1) \
         ON CONFLICT (id) DO UPDATE SET good_ms = $1 WHERE billing_clock.stopped_at_ms IS NULL",
    )
    .bind(now_ms)
    .execute(database.pool())
    .await?;
    Ok(())
}

async fn stop(database: &Database, good_ms: i64, now_ms: i64) -> Result<BillingStop, GuardError> {
    let stopped = BillingStop {
        good_ms,
        stopped_at_ms: now_ms,
    };
    let mut transaction = database.begin_write().await?;
    let done = sqlx::query("UPDATE billing_clock SET stopped_at_ms = $1 WHERE id = 1 AND stopped_at_ms IS NULL")
        .bind(now_ms)
        .execute(&mut *transaction)
        .await?;
    // Another process may have been first.
    if done.rows_affected() > 0 {
        tell(
            &mut transaction,
            EventType::BillingStopped,
            good_ms,
            now_ms,
            "the clock moved",
        )
        .await?;
    }
    transaction.commit().await?;
    Ok(stopped)
}

async fn go_on(database: &Database, good_ms: i64, now_ms: i64) -> Result<(), GuardError> {
    let mut transaction = database.begin_write().await?;
    let done = sqlx::query("UPDATE billing_clock SET stopped_at_ms = NULL WHERE id = 1 AND stopped_at_ms IS NOT NULL")
        .execute(&mut *transaction)
        .await?;
    if done.rows_affected() > 0 {
        let why = "the clock is back";
        tell(&mut transaction, EventType::BillingResumed, good_ms, now_ms, why).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// An admin's word that the clock is right: billing goes on from its time. `by` is told to the owner.
///
/// # Errors
/// [`GuardError::Running`] where billing is not stopped.
pub async fn confirm(connection: &mut AnyConnection, by: &str, now_ms: i64) -> Result<Note, GuardError> {
    let Some(before) = stopped(&mut *connection).await? else {
        return Err(GuardError::Running);
    };
    sqlx::query("UPDATE billing_clock SET good_ms = $1, stopped_at_ms = NULL WHERE id = 1")
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    let why = format!("{by} confirmed the time");
    tell(connection, EventType::BillingResumed, before.good_ms, now_ms, &why).await?;
    let change = json!({
        "before": {"believed": instant_text(before.good_ms), "stopped_at": instant_text(before.stopped_at_ms)},
        "after": {"believed": instant_text(now_ms)},
    });
    Ok(Note::new("billing.confirm_clock", "clock")
        .change(change)
        .risk(Risk::High))
}

async fn tell(
    connection: &mut AnyConnection,
    event_type: EventType,
    good_ms: i64,
    now_ms: i64,
    reason: &str,
) -> Result<(), GuardError> {
    let new = NewEvent {
        event_type,
        customer: None,
        subject: "billing".to_owned(),
        payload: json!({ "good_ms": good_ms, "clock_ms": now_ms, "reason": reason }),
    };
    event::publish(connection, new, now_ms).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
