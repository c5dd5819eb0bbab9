//! Who must know that a job fails hears of it once, and once that it works again.
//!
//! Whether it was told is in the job's row, and the alert is written in the transaction that notes it: with any number of
//! processes, and wherever one of them dies, it is told exactly once.

use async_trait::async_trait;
use sqlx::AnyConnection;

use super::RunError;
use super::store::JobRow;

/// What is told of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    pub kind: NoticeKind,
    pub job: &'static str,
    pub description: &'static str,
    /// Which process's; empty for a job that one process runs for all.
    pub instance: String,
    pub failures_in_a_row: u64,
    /// Its last success, UTC milliseconds; `None` where there was none.
    pub last_success_at_ms: Option<i64>,
    /// Why its last run failed; empty when it works again.
    pub error: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoticeKind {
    Failing,
    Recovered,
}

/// Tells of jobs that fail.
#[async_trait]
pub trait Alerts: Send + Sync + std::fmt::Debug {
    /// Writes the alert into the transaction that notes it. `now_ms`: the time of the books.
    ///
    /// # Errors
    /// When it cannot be written: then it is tried again with the next run.
    async fn tell(&self, connection: &mut AnyConnection, notice: &Notice, now_ms: i64) -> Result<(), RunError>;
}

/// Tells nobody: for tests, and where the caller sees the outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAlerts;

#[async_trait]
impl Alerts for NoAlerts {
    async fn tell(&self, _connection: &mut AnyConnection, _notice: &Notice, _now_ms: i64) -> Result<(), RunError> {
        Ok(())
    }
}

/// What is to be told after a run, if anything; it is noted as told.
pub(super) async fn due(
    connection: &mut AnyConnection,
    stored: &JobRow,
    failures_before_alert: u64,
    now_ms: i64,
) -> Result<Option<NoticeKind>, sqlx::Error> {
    let (noted, kind) = match stored.failures_in_a_row {
        0 => {
            let sql =
                "UPDATE jobs SET alerted_at_ms = NULL WHERE name = $1 AND instance = $2 AND alerted_at_ms IS NOT NULL";
            let query = sqlx::query(sql).bind(stored.name).bind(&stored.instance);
            (query.execute(connection).await?, NoticeKind::Recovered)
        }
        failures if failures >= failures_before_alert => {
            let sql = "UPDATE jobs SET alerted_at_ms = $3 WHERE name = $1 AND instance = $2 AND alerted_at_ms IS NULL";
            let query = sqlx::query(sql).bind(stored.name).bind(&stored.instance).bind(now_ms);
            (query.execute(connection).await?, NoticeKind::Failing)
        }
        _ => return Ok(None),
    };
    Ok((noted.rows_affected() == 1).then_some(kind))
}
