//! The table `jobs`: what each process last said of its jobs, and what people asked for.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyPool, Row as _};

use super::lease::{Lease, leases};
use super::{JobError, Outcome, Progress};

/// What a process says of a job, as it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct JobRow {
    pub(super) name: &'static str,
    pub(super) instance: String,
    pub(super) handled_ms: Option<i64>,
    pub(super) next_at_ms: Option<i64>,
    pub(super) running_since_ms: Option<i64>,
    pub(super) progress: Progress,
    /// Why it does not run though it is due.
    pub(super) hold: String,
    pub(super) last_started_at_ms: Option<i64>,
    pub(super) last_ended_at_ms: Option<i64>,
    pub(super) last_success_at_ms: Option<i64>,
    pub(super) last_outcome: Option<Outcome>,
    pub(super) last_text: String,
    pub(super) failures_in_a_row: u64,
    /// How much of what people asked for was run.
    pub(super) served: i64,
}

/// A job as a process makes it known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration<'a> {
    pub(super) name: &'a str,
    pub(super) instance: &'a str,
    pub(super) lease: &'a str,
    pub(super) description: &'a str,
    pub(super) schedule: &'a str,
    pub(super) waits_for: &'a str,
}

/// A job as the database has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRecord {
    pub name: String,
    /// Which process's; empty for a job that one process runs for all.
    pub instance: String,
    pub description: String,
    pub schedule: String,
    /// The jobs that go first.
    pub waits_for: String,
    pub handled_ms: Option<i64>,
    /// By the job's clock; `None` where nothing is planned.
    pub next_at_ms: Option<i64>,
    pub running_since_ms: Option<i64>,
    pub progress: Progress,
    pub hold: String,
    pub last_started_at_ms: Option<i64>,
    pub last_ended_at_ms: Option<i64>,
    pub last_success_at_ms: Option<i64>,
    pub last_outcome: Option<Outcome>,
    pub last_text: String,
    pub failures_in_a_row: u64,
    pub alerted_at_ms: Option<i64>,
    /// Why its process does not run it, as the configuration says; empty where it does.
    pub switched_off: String,
    /// The process that made it known last, or wrote of it.
    pub owner: String,
    /// How often people asked for a run, and how much of that was run.
    pub requested: i64,
    pub served: i64,
    /// Who runs it, or would.
    pub lease: Option<Lease>,
}

/// What a job is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobStatus {
    Running,
    /// Its last run failed.
    Failing,
    /// It is due and may not run.
    Held,
    /// Its last run succeeded.
    Good,
    /// It never ran.
    New,
    /// No process runs it.
    NoProcess,
    /// The configuration of its process switches it off.
    SwitchedOff,
}

impl JobStatus {
    pub fn name(self) -> &'static str {
        match self {
            JobStatus::Running => "running",
            JobStatus::Failing => "failing",
            JobStatus::Held => "on hold",
            JobStatus::Good => "ok",
            JobStatus::New => "not run yet",
            JobStatus::NoProcess => "no process",
            JobStatus::SwitchedOff => "switched off",
        }
    }
}

impl JobRecord {
    /// Whether a process has its lease, by the machine's clock, and so decides whether it runs.
    pub fn is_leased(&self, now_ms: i64) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_held(now_ms))
    }

    /// Whether a process runs it, by the machine's clock: who has the lease of several jobs need not have all of them.
    pub fn has_process(&self, now_ms: i64) -> bool {
        let is_owned = self.lease.as_ref().is_some_and(|lease| lease.owner == self.owner);
        self.switched_off.is_empty() && is_owned && self.is_leased(now_ms)
    }

    /// What it is doing, by the machine's clock.
    pub fn condition(&self, now_ms: i64) -> JobStatus {
        if !self.switched_off.is_empty() {
            return JobStatus::SwitchedOff;
        }
        if !self.has_process(now_ms) {
            return JobStatus::NoProcess;
        }
        match self.last_outcome {
            _ if self.running_since_ms.is_some() => JobStatus::Running,
            _ if !self.hold.is_empty() => JobStatus::Held,
            _ if self.failures_in_a_row > 0 => JobStatus::Failing,
            None => JobStatus::New,
            Some(_) => JobStatus::Good,
        }
    }

    /// What a person asked for and nobody has run yet.
    pub fn is_requested(&self) -> bool {
        self.requested > self.served
    }
}

/// All jobs, by name and instance.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list(pool: &AnyPool) -> Result<Vec<JobRecord>, JobError> {
    let mut connection = pool.acquire().await?;
    list_in(&mut connection).await
}

/// As [`list`], in the caller's transaction.
pub(super) async fn list_in(connection: &mut AnyConnection) -> Result<Vec<JobRecord>, JobError> {
    let leases = leases(&mut *connection).await?;
    let rows = sqlx::query(
        "SELECT name, instance, lease, description, schedule, waits_for, handled_ms, next_at_ms, running_since_ms, \
         progress_done, progress_total, progress_text, hold, last_started_at_ms, last_ended_at_ms, last_success_at_ms, \
         last_outcome, last_text, failures_in_a_row, alerted_at_ms, switched_off, owner, requested, served FROM jobs \
         ORDER BY name, instance",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| read(row, &leases)).collect()
}

fn read(row: &AnyRow, leases: &[Lease]) -> Result<JobRecord, JobError> {
    let count = |column: &str| -> Result<u64, sqlx::Error> {
        let value: i64 = row.try_get(column)?;
        Ok(u64::try_from(value).unwrap_or(0))
    };
    let lease: String = row.try_get("lease")?;
    let outcome: String = row.try_get("last_outcome")?;
    Ok(JobRecord {
        name: row.try_get("name")?,
        instance: row.try_get("instance")?,
        description: row.try_get("description")?,
        schedule: row.try_get("schedule")?,
        waits_for: row.try_get("waits_for")?,
        handled_ms: row.try_get("handled_ms")?,
        next_at_ms: row.try_get("next_at_ms")?,
        running_since_ms: row.try_get("running_since_ms")?,
        progress: Progress {
            done: count("progress_done")?,
            total: count("progress_total")?,
            text: row.try_get("progress_text")?,
        },
        hold: row.try_get("hold")?,
        last_started_at_ms: row.try_get("last_started_at_ms")?,
        last_ended_at_ms: row.try_get("last_ended_at_ms")?,
        last_success_at_ms: row.try_get("last_success_at_ms")?,
        last_outcome: match outcome.as_str() {
            "" => None,
            text => Some(text.parse()?),
        },
        last_text: row.try_get("last_text")?,
        failures_in_a_row: count("failures_in_a_row")?,
        alerted_at_ms: row.try_get("alerted_at_ms")?,
        switched_off: row.try_get("switched_off")?,
        owner: row.try_get("owner")?,
        requested: row.try_get("requested")?,
        served: row.try_get("served")?,
        lease: leases.iter().find(|found| found.name == lease).cloned(),
    })
}

/// Makes a job known; what is known of it stays.
pub(super) async fn register(
    connection: &mut AnyConnection,
    job: Registration<'_>,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO jobs (name, instance, lease, description, schedule, waits_for, owner, progress_done, progress_total, \
         progress_text, hold, last_outcome, last_text, failures_in_a_row, requested, served, seen_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, '', 0, 0, '', '', '', '', 0, 0, 0, $7) \
         ON CONFLICT (name, instance) DO UPDATE SET lease = $3, description = $4, schedule = $5, waits_for = $6, seen_at_ms = $7",
    )
    .bind(job.name)
    .bind(job.instance)
    .bind(job.lease)
    .bind(job.description)
    .bind(job.schedule)
    .bind(job.waits_for)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Says that a process has a job, once it has taken its lease.
pub(super) async fn announce(
    connection: &mut AnyConnection,
    name: &str,
    instance: &str,
    owner: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE jobs SET owner = $1, switched_off = '' WHERE name = $2 AND instance = $3")
        .bind(owner)
        .bind(name)
        .bind(instance)
        .execute(connection)
        .await?;
    Ok(())
}

/// Says why a job is switched off. What people asked for is withdrawn: it must not run whenever somebody switches it on.
pub(super) async fn switch_off(connection: &mut AnyConnection, name: &str, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE jobs SET switched_off = $1, requested = served, hold = '', next_at_ms = NULL, running_since_ms = NULL \
         WHERE name = $2 AND instance = ''",
    )
    .bind(why)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what the owner of its lease says of a job; false when that is somebody else by now.
pub(super) async fn save(
    connection: &mut AnyConnection,
    stored: &JobRow,
    owner: &str,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let saved = sqlx::query(
        "UPDATE jobs SET owner = $1, handled_ms = $2, next_at_ms = $3, running_since_ms = $4, progress_done = $5, \
         progress_total = $6, progress_text = $7, hold = $8, last_started_at_ms = $9, last_ended_at_ms = $10, \
         last_success_at_ms = $11, last_outcome = $12, last_text = $13, failures_in_a_row = $14, served = $15, seen_at_ms = $16 \
         WHERE name = $17 AND instance = $18 \
         AND EXISTS (SELECT 1 FROM job_leases l WHERE l.name = jobs.lease AND l.owner = $1)",
    )
    .bind(owner)
    .bind(stored.handled_ms)
    .bind(stored.next_at_ms)
    .bind(stored.running_since_ms)
    .bind(whole(stored.progress.done))
    .bind(whole(stored.progress.total))
    .bind(&stored.progress.text)
    .bind(&stored.hold)
    .bind(stored.last_started_at_ms)
    .bind(stored.last_ended_at_ms)
    .bind(stored.last_success_at_ms)
    .bind(stored.last_outcome.map_or("", Outcome::name))
    .bind(&stored.last_text)
    .bind(whole(stored.failures_in_a_row))
    .bind(stored.served)
    .bind(now_ms)
    .bind(stored.name)
    .bind(&stored.instance)
    .execute(connection)
    .await?;
    Ok(saved.rows_affected() == 1)
}
