//! What people ask for: a run of a job now.
//!
//! ```text
//! requested  1 ── 2 ── 3      counts what was asked for, in each process's row of the job
//! served     1 ─────── 3      moves to it when a run begins, which serves all that was asked for before
//! ```
//!
//! Who asked waits until `served` has reached the own number, and then for the end of the run that did.

use schemas::db::Database;
use schemas::ids::JobRunId;
use sqlx::{AnyConnection, Row as _};

use super::history::{Run, RunFilter, runs};
use super::store::{JobRecord, list_in};
use super::{Cause, JobError, Outcome};

/// What was asked of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    job: String,
    instance: String,
    number: i64,
    /// The newest run that had its row when it was asked for.
    after: Option<JobRunId>,
}

/// What has become of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestState {
    /// It waits for its turn.
    Waiting,
    /// Its run is under way.
    Begun,
    /// The job may not run now, and why.
    Held(String),
    /// Somebody took it back, or switched the job off.
    Withdrawn,
    /// The process that was asked does not answer any more.
    Gone,
    /// What its run did, or why it failed.
    Ended { outcome: Outcome, text: String },
}

impl Request {
    /// What has become of it, by the jobs as they are listed, and then all `runs` of the job, latest first: read in this order, a run
    /// that the list says is over is among them. `now_ms`: by the machine's clock.
    pub fn answer(&self, listed: &[JobRecord], runs: &[Run], now_ms: i64) -> RequestState {
        let is_ours = |row: &&JobRecord| row.name == self.job && row.instance == self.instance;
        let Some(row) = listed.iter().find(is_ours) else {
            return RequestState::Withdrawn;
        };
        let has_process = row.has_process(now_ms);
        if row.served < self.number {
            return match row.hold.as_str() {
                _ if row.requested < self.number => RequestState::Withdrawn,
                _ if !has_process => RequestState::Gone,
                "" => RequestState::Waiting,
                why => RequestState::Held(why.to_owned()),
            };
        }
        if row.running_since_ms.is_some() && has_process {
            return RequestState::Begun;
        }
        // Of several that were asked for, the last: those before it served what was asked for before.
        let served = runs.iter().find(|run| {
            run.job == self.job
                && run.instance == self.instance
                && run.cause == Cause::Request
                && self.after.is_none_or(|after| run.id > after)
        });
        match served {
            Some(run) if run.outcome != Outcome::Running => RequestState::Ended {
                outcome: run.outcome,
                text: run.text.clone(),
            },
            // Its process ended before it said what became of it.
            _ => RequestState::Gone,
        }
    }
}

/// Asks for a run of a job, by every process that has it; in the caller's transaction, beside its entry in the audit log.
/// `now_ms`: by the machine's clock. The answer is what was asked of each.
///
/// # Errors
/// [`JobError::Unknown`] when no process ever had a job of this name, [`JobError::SwitchedOff`] where it is, and
/// [`JobError::NoProcess`] where nobody has it: then nothing is asked, and nothing runs later.
pub async fn request(connection: &mut AnyConnection, job: &str, now_ms: i64) -> Result<Vec<Request>, JobError> {
    let mut listed = list_in(&mut *connection).await?;
    listed.retain(|row| row.name == job);
    if listed.is_empty() {
        return Err(JobError::Unknown(job.to_owned()));
    }
    let newest = RunFilter {
        job: Some(job),
        ..RunFilter::default()
    };
    let after = runs(&mut *connection, newest, 1).await?.first().map(|run| run.id);
    let mut asked = Vec::new();
    for row in listed.iter().filter(|row| row.has_process(now_ms)) {
        // What was withdrawn while it was begun is served and not asked for any more.
        let number = sqlx::query(
            "UPDATE jobs SET requested = CASE WHEN requested < served THEN served ELSE requested END + 1 \
             WHERE name = $1 AND instance = $2 RETURNING requested",
        )
        .bind(job)
        .bind(&row.instance)
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
        asked.push(Request {
            job: job.to_owned(),
            instance: row.instance.clone(),
            number,
            after,
        });
    }
    if !asked.is_empty() {
        return Ok(asked);
    }
    let job = job.to_owned();
    match listed.iter().find(|row| !row.switched_off.is_empty()) {
        Some(row) => Err(JobError::SwitchedOff {
            job,
            why: row.switched_off.clone(),
        }),
        None => Err(JobError::NoProcess(job)),
    }
}

/// Takes back what was asked for and nobody has begun.
///
/// # Errors
/// As the database answers.
pub async fn withdraw(database: &Database, job: &str) -> Result<(), JobError> {
    sqlx::query("UPDATE jobs SET requested = served WHERE name = $1 AND requested > served")
        .bind(job)
        .execute(database.pool())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
