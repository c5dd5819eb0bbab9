//! Background jobs: what runs by itself.
//!
//! ```text
//! a list of jobs ──▶ Driver ─┬─ a task for each job:  due? ─▶ lease? ─▶ held? ─▶ others first? ─▶ run ─▶ history, alert
//!                            └─ one that keeps watch: test clock, leases, what people asked for, progress
//! ```
//!
//! What holds:
//! * **A slow job holds up no other**, except those that say that they come after it ([`Job::after`]).
//! * **Of all processes on a database, one at a time runs a leased job** (`lease.rs`). Jobs that belong to their process, such as those
//!   of its data folder, have no lease ([`Scope::Local`]). Jobs whose order matters share a lease ([`Scope::Group`]), so that one
//!   process keeps their order.
//! * **What was missed is caught up with** as the schedule says ([`schedule`]).
//! * **A test clock** ([`schemas::clock`]) makes every job of the books due whenever it was set; they run in the order that
//!   [`Job::after`] gives them, all at the same instant.
//! * **Every run is recorded** ([`history`]): of a job that looks for work more often than every [`QUIET_PERIOD`], the runs that
//!   found some, failed, or were asked for by a person.
//! * **Who must know of failures hears once** that a job fails, and once that it works again ([`Alerts`]).
//! * **A job that its configuration switches off** ([`Job::switched_off`]) is listed as that by the process that has its lease, is not
//!   run, and cannot be asked for ([`request()`]).
//!
//! Times of runs and leases are the machine's, as [`schemas::clock`] tells them; what a job decides by is the time of its
//! [`Timing`].

mod alert;
mod board;
mod driver;
pub mod history;
mod lease;
mod record;
mod request;
mod run_here;
pub mod schedule;
mod shared;
mod slot;
mod store;
mod watch;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use alert::{Alerts, NoAlerts, Notice, NoticeKind};
pub use board::{JobBoard, JobState, RETRY_INTERVAL, RUN_LIMIT};
pub use driver::Driver;
pub use history::{Run, RunFilter, runs};
pub use lease::{LEASE_MS, Lease, Owner, leases};
pub use request::{Request, RequestState, request, withdraw};
pub use run_here::{LocalRun, run_here};
pub use schedule::{CatchUp, Schedule, ScheduleError, Timetable};
pub use shared::Settings;
pub use store::{JobRecord, JobStatus, list};

/// Jobs that look for work more often have a row in the history only for runs that found some: the others would say nothing,
/// thousands of times a day.
pub const QUIET_PERIOD: Duration = Duration::from_secs(60);
/// Bytes of a run's text at most.
pub(crate) const TEXT_MAX: usize = 2_000;
/// A job fails so many times in a row before anybody is told, and for at least so long.
const FAILURES_BEFORE_ALERT: u64 = 3;
const FAILING_BEFORE_ALERT: Duration = Duration::from_secs(120);

/// Why a run failed. Its causes are shown.
pub type RunError = Box<dyn std::error::Error + Send + Sync>;

/// Why jobs could not be read or driven.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
    #[error("no job is called {0:?}: `ezscale job list` lists them")]
    Unknown(String),
    #[error("{job} is switched off: {why}")]
    SwitchedOff { job: String, why: String },
    #[error("no process runs {0:?}: start `ezscale serve`")]
    NoProcess(String),
    #[error("{job} is run by {owner}")]
    Held { job: &'static str, owner: String },
}

schemas::error_codes! {
    JobError: "job";
    of [Database]
    source []
    NotFound: Unknown = "unknown";
    Conflict: Held = "held", SwitchedOff = "switched_off", NoProcess = "no_process";
    Fault: Corrupt = "corrupt";
}

/// By which clock a job is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Timing {
    /// The machine's.
    #[default]
    Machine,
    /// The one that the books go by: a test clock, where the database has one. Whenever that is set, the job runs.
    Books,
}

/// Which process runs a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One of all that share the database.
    Leased,
    /// One of all, the same for every job of this group.
    Group(&'static str),
    /// Every process its own.
    Local,
}

/// What happens with a run when the process stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnStop {
    /// It is waited for.
    #[default]
    Finish,
    /// It is given up: what it did not commit is done by the next run.
    GiveUp,
}

/// Another job that goes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobDependency {
    pub job: &'static str,
    /// For how long at most it is waited for, by this job's clock: one that stands still makes it wait for as long as it takes.
    pub at_most: Option<Duration>,
}

impl JobDependency {
    /// The result depends on it: each time this job is due, the other runs first, however long that takes, and this one then goes
    /// by the instant for which it did. Both are due by the same clock.
    pub const fn always(job: &'static str) -> JobDependency {
        JobDependency { job, at_most: None }
    }

    /// The result is only sooner complete: when the other is due too or runs, it is waited for, for so long at most.
    pub const fn at_most(job: &'static str, at_most: Duration) -> JobDependency {
        JobDependency {
            job,
            at_most: Some(at_most),
        }
    }
}

/// Whether a job that is due may run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hold {
    No,
    /// By order, such as while billing is stopped: it is not late meanwhile. The text says why.
    ByOrder(String),
    /// It could not be found out: it does not run, and becomes late.
    Unknown(String),
}

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunReport {
    /// There was nothing to do.
    Nothing,
    /// What was done, in a few words: `3 invoices finalised`.
    Summary(String),
}

impl RunReport {
    /// `did` where it counted something.
    pub fn counted(count: u64, did: impl FnOnce() -> String) -> RunReport {
        match count {
            0 => RunReport::Nothing,
            _ => RunReport::Summary(did()),
        }
    }
}

/// Something that runs by itself.
#[async_trait]
pub trait Job: Send + Sync + 'static {
    /// As lists, metrics and the command line name it: lower case, with underscores. It does not change.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence.
    fn description(&self) -> &'static str;

    fn schedule(&self) -> Schedule;

    fn scope(&self) -> Scope {
        Scope::Leased
    }

    fn timing(&self) -> Timing {
        Timing::Machine
    }

    /// What goes first. Jobs that a leased one comes after are of its group.
    fn after(&self) -> &'static [JobDependency] {
        &[]
    }

    fn on_stop(&self) -> OnStop {
        OnStop::Finish
    }

    /// Failures in a row until somebody is told; by default three, or as many as there are in two minutes.
    fn failures_before_alert(&self) -> u64 {
        let period = self.schedule().period(0).min(RETRY_INTERVAL);
        let in_time = FAILING_BEFORE_ALERT.as_millis() / period.as_millis().max(1);
        FAILURES_BEFORE_ALERT.max(u64::try_from(in_time).unwrap_or(u64::MAX))
    }

    /// Why the configuration switches it off, and what does its work instead; `None` where it runs. It is listed as switched off,
    /// and never run. It stays the same as long as the process lives.
    fn switched_off(&self) -> Option<&'static str> {
        None
    }

    /// Whether it may run now that it is due; asked before every run, and every second while it may not.
    async fn hold(&self, _now_ms: i64) -> Hold {
        Hold::No
    }

    /// Resolves when it is to run at once, besides its schedule. Dropped and called again between runs: what happened meanwhile
    /// must not be lost.
    async fn woken(&self) {
        std::future::pending::<()>().await;
    }

    /// Runs once.
    ///
    /// # Errors
    /// Whatever kept it from its work. It is tried again after [`RETRY_INTERVAL`], or its period where that is shorter.
    async fn run(&self, run: &Context) -> Result<RunReport, RunError>;
}

/// Why a run began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    Schedule,
    /// The test clock was set.
    Clock,
    /// Something happened: see [`Job::woken`].
    Signal,
    /// A person asked for it.
    Request,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Cause::Schedule => "schedule",
            Cause::Clock => "test clock",
            Cause::Signal => "signal",
            Cause::Request => "request",
        }
    }
}

impl std::str::FromStr for Cause {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Cause, JobError> {
        [Cause::Schedule, Cause::Clock, Cause::Signal, Cause::Request]
            .into_iter()
            .find(|cause| cause.name() == text)
            .ok_or_else(|| JobError::Corrupt {
                what: "cause of a run",
                text: text.to_owned(),
            })
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Running,
    Succeeded,
    Failed,
    /// Given up when its process stopped, or lost its lease; the next run does it.
    GivenUp,
    /// Its process ended before it did.
    Abandoned,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Running => "running",
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::GivenUp => "given up",
            Outcome::Abandoned => "abandoned",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Outcome, JobError> {
        [
            Outcome::Running,
            Outcome::Succeeded,
            Outcome::Failed,
            Outcome::GivenUp,
            Outcome::Abandoned,
        ]
        .into_iter()
        .find(|outcome| outcome.name() == text)
        .ok_or_else(|| JobError::Corrupt {
            what: "outcome of a run",
            text: text.to_owned(),
        })
    }
}

/// How far a run has come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    pub done: u64,
    /// 0 where it is not known.
    pub total: u64,
    pub text: String,
}

/// What a run goes by.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time of the job's clock when the run began, UTC milliseconds. A run decides by it and takes no other.
    pub now_ms: i64,
    /// The scheduled time that the run is for, by the same clock.
    pub scheduled_ms: i64,
    pub cause: Cause,
    progress: Arc<std::sync::Mutex<Progress>>,
    stop: CancellationToken,
}

impl Context {
    /// Tells how far the run has come, for lists and pages.
    pub fn progress(&self, done: u64, total: u64, text: impl Into<String>) {
        let mut progress = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *progress = Progress {
            done,
            total,
            text: text.into(),
        };
    }

    /// The process stops: a run that may end early does.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// An error with its causes in one line; a cause that was said is not said again.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// A text that is not longer than it may be, cut between characters.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}
