//! What jobs did: a row for each run, kept for `[retention.records] job_runs_days`.

use schemas::db::{Database, next_id};
use schemas::ids::JobRunId;
use schemas::window::DAY_MS;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Cause, JobError, Outcome};

/// Runs on a page at most.
pub const MAX_PAGE: i64 = 500;
/// Rows removed in one transaction at most.
const BATCH: i64 = 500;
/// Transactions of one call at most; the next call does the rest.
const BATCHES_MAX: u32 = 100;

/// A run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub id: JobRunId,
    pub job: String,
    /// Which process's; empty for a job that one process runs for all.
    pub instance: String,
    /// The process that ran it: `host:pid:random`.
    pub owner: String,
    pub cause: Cause,
    /// The scheduled time that it was for, by the job's clock, UTC milliseconds.
    pub scheduled_ms: i64,
    /// By the machine's clock, UTC milliseconds.
    pub started_at_ms: i64,
    pub ended_at_ms: Option<i64>,
    pub outcome: Outcome,
    /// What it did, or why it failed; empty where there was nothing to do.
    pub text: String,
}

/// Which runs to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunFilter<'a> {
    pub job: Option<&'a str>,
    pub outcome: Option<Outcome>,
    /// Older than this one: the last of the page before.
    pub before: Option<JobRunId>,
}

/// Runs, latest first, `limit` at most.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn runs(db: impl AnyExecutor<'_>, filter: RunFilter<'_>, limit: i64) -> Result<Vec<Run>, JobError> {
    let rows = sqlx::query(
        "SELECT id, name, instance, owner, cause, scheduled_ms, started_at_ms, ended_at_ms, outcome, text FROM job_runs \
         WHERE id < $1 AND ($2 = '' OR name = $2) AND ($3 = '' OR outcome = $3) ORDER BY id DESC LIMIT $4",
    )
    .bind(filter.before.map_or(i64::MAX, |before| before.0))
    .bind(filter.job.unwrap_or(""))
    .bind(filter.outcome.map_or("", Outcome::name))
    .bind(limit.clamp(1, MAX_PAGE))
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

/// One run; `None` where there is none of this id.
///
/// # Errors
/// As [`runs`].
pub async fn run(db: impl AnyExecutor<'_>, id: JobRunId) -> Result<Option<Run>, JobError> {
    let row = sqlx::query(
        "SELECT id, name, instance, owner, cause, scheduled_ms, started_at_ms, ended_at_ms, outcome, text FROM job_runs \
         WHERE id = $1",
    )
    .bind(id.0)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &AnyRow) -> Result<Run, JobError> {
    Ok(Run {
        id: JobRunId(row.try_get("id")?),
        job: row.try_get("name")?,
        instance: row.try_get("instance")?,
        owner: row.try_get("owner")?,
        cause: row.try_get::<String, _>("cause")?.parse()?,
        scheduled_ms: row.try_get("scheduled_ms")?,
        started_at_ms: row.try_get("started_at_ms")?,
        ended_at_ms: row.try_get("ended_at_ms")?,
        outcome: row.try_get::<String, _>("outcome")?.parse()?,
        text: row.try_get("text")?,
    })
}

/// A run that is to be recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRun<'a> {
    pub(super) job: &'a str,
    pub(super) instance: &'a str,
    pub(super) owner: &'a str,
    pub(super) cause: Cause,
    pub(super) scheduled_ms: i64,
    pub(super) started_at_ms: i64,
}

/// Records that a run has begun.
pub(super) async fn begin(connection: &mut AnyConnection, new: NewRun<'_>) -> Result<JobRunId, sqlx::Error> {
    let id = next_id(&mut *connection, "job_run").await?;
    sqlx::query(
        "INSERT INTO job_runs (id, name, instance, owner, cause, scheduled_ms, started_at_ms, ended_at_ms, outcome, text) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, $8, '')",
    )
    .bind(id)
    .bind(new.job)
    .bind(new.instance)
    .bind(new.owner)
    .bind(new.cause.name())
    .bind(new.scheduled_ms)
    .bind(new.started_at_ms)
    .bind(Outcome::Running.name())
    .execute(connection)
    .await?;
    Ok(JobRunId(id))
}

/// Records how a run ended. One that was found abandoned meanwhile stays so.
pub(super) async fn end(
    connection: &mut AnyConnection,
    id: JobRunId,
    outcome: Outcome,
    text: &str,
    ended_at_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE job_runs SET ended_at_ms = $1, outcome = $2, text = $3 WHERE id = $4 AND outcome = 'running'")
        .bind(ended_at_ms)
        .bind(outcome.name())
        .bind(text)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Records that the runs of former owners of a job will not end any more.
pub(super) async fn abandon(
    connection: &mut AnyConnection,
    job: &str,
    instance: &str,
    owner: &str,
    now_ms: i64,
) -> Result<u64, sqlx::Error> {
    let abandoned = sqlx::query(
        "UPDATE job_runs SET ended_at_ms = $1, outcome = 'abandoned', text = 'the process ended before the run did' \
         WHERE name = $2 AND instance = $3 AND outcome = 'running' AND owner <> $4",
    )
    .bind(now_ms)
    .bind(job)
    .bind(instance)
    .bind(owner)
    .execute(connection)
    .await?;
    Ok(abandoned.rows_affected())
}

/// Removes runs that began more than `keep_days` ago, and what processes that are gone for as long said of their jobs; the answer
/// is how many runs. Each batch is a transaction of its own.
///
/// # Errors
/// As the database answers; what was removed before stays removed.
pub async fn prune(database: &Database, keep_days: u32, now_ms: i64) -> Result<u64, JobError> {
    let before_ms = now_ms.saturating_sub(i64::from(keep_days) * DAY_MS);
    let mut rows = 0;
    for _ in 0..BATCHES_MAX {
        let removed = sqlx::query(
            "DELETE FROM job_runs WHERE outcome <> 'running' AND id IN \
             (SELECT id FROM job_runs WHERE outcome <> 'running' AND started_at_ms < $1 ORDER BY started_at_ms LIMIT $2)",
        )
        .bind(before_ms)
        .bind(BATCH)
        .execute(database.pool())
        .await?
        .rows_affected();
        rows += removed;
        if removed == 0 {
            break;
        }
    }
    sqlx::query(
        "DELETE FROM jobs WHERE seen_at_ms < $1 \
         AND NOT EXISTS (SELECT 1 FROM job_leases l WHERE l.name = jobs.lease AND l.until_ms >= $1)",
    )
    .bind(before_ms)
    .execute(database.pool())
    .await?;
    sqlx::query("DELETE FROM job_leases WHERE until_ms < $1 AND name NOT IN (SELECT lease FROM jobs)")
        .bind(before_ms)
        .execute(database.pool())
        .await?;
    Ok(rows)
}

/// How many runs [`prune`] would remove.
///
/// # Errors
/// As the database answers.
pub async fn count_over(database: &Database, keep_days: u32, now_ms: i64) -> Result<i64, JobError> {
    let before_ms = now_ms.saturating_sub(i64::from(keep_days) * DAY_MS);
    let row = sqlx::query("SELECT count(*) FROM job_runs WHERE outcome <> 'running' AND started_at_ms < $1")
        .bind(before_ms)
        .fetch_one(database.pool())
        .await?;
    Ok(row.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ran(database: &Database, owner: &str, started_at_ms: i64) -> JobRunId {
        let new = NewRun {
            job: "close",
            instance: "",
            owner,
            cause: Cause::Schedule,
            scheduled_ms: started_at_ms,
            started_at_ms,
        };
        let mut transaction = database.begin_write().await.unwrap();
        let id = begin(&mut transaction, new).await.unwrap();
        transaction.commit().await.unwrap();
        id
    }

    async fn ended(database: &Database, id: JobRunId, outcome: Outcome, text: &str) {
        let mut transaction = database.begin_write().await.unwrap();
        end(&mut transaction, id, outcome, text, 5_000).await.unwrap();
        transaction.commit().await.unwrap();
    }

    #[tokio::test]
    async fn runs_are_listed_latest_first_and_go_when_they_are_old_and_over() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        let old = ran(&database, "ada", 1_000).await;
        ended(&database, old, Outcome::Succeeded, "3 invoices finalised").await;
        let dead = ran(&database, "ada", 2_000).await;
        let young = ran(&database, "bob", 40 * DAY_MS).await;
        ended(&database, young, Outcome::Failed, "ask the database").await;
        let all = async |filter: RunFilter<'static>| {
            let listed = runs(database.pool(), filter, 10).await.unwrap();
            listed.iter().map(|run| run.id).collect::<Vec<_>>()
        };
        assert_eq!(all(RunFilter::default()).await, [young, dead, old]);
        let before = RunFilter {
            job: Some("close"),
            before: Some(dead),
            ..RunFilter::default()
        };
        assert_eq!(all(before).await, [old]);
        let failed = RunFilter {
            outcome: Some(Outcome::Failed),
            ..RunFilter::default()
        };
        assert_eq!(all(failed).await, [young]);
        let found = run(database.pool(), old).await.unwrap().unwrap();
        assert_eq!(
            (found.text.as_str(), found.ended_at_ms),
            ("3 invoices finalised", Some(5_000))
        );

        // One that runs is never removed; of a process that died, its successor says so.
        let now_ms = 50 * DAY_MS;
        assert_eq!(count_over(&database, 30, now_ms).await.unwrap(), 1);
        assert_eq!(prune(&database, 30, now_ms).await.unwrap(), 1);
        assert_eq!(all(RunFilter::default()).await, [young, dead]);
        let mut transaction = database.begin_write().await.unwrap();
        assert_eq!(abandon(&mut transaction, "close", "", "bob", 9_000).await.unwrap(), 1);
        transaction.commit().await.unwrap();
        // What its process says later changes nothing.
        ended(&database, dead, Outcome::Succeeded, "late").await;
        let found = run(database.pool(), dead).await.unwrap().unwrap();
        assert_eq!((found.outcome, found.ended_at_ms), (Outcome::Abandoned, Some(9_000)));
        assert_eq!(prune(&database, 30, now_ms).await.unwrap(), 1);
        assert_eq!(all(RunFilter::default()).await, [young]);
    }
}
