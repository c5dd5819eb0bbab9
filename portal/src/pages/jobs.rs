//! What runs by itself: each job with its state, next and last run; "Run now"; its history.

use activity::act::Note;
use activity::job::{self, JobRecord, JobStatus, Outcome, Run, RunFilter};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::tz::TimeZone;
use schemas::clock;
use schemas::ids::JobRunId;

use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Operations, SignedIn};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

/// Address of the page.
const PATH: &str = "/ops/jobs";
/// Runs of all jobs beneath their list.
const RECENT_RUNS: i64 = 15;
/// Runs on the page of a job.
const PAGE_RUNS: i64 = 50;
/// The form of a job's page.
const RUN_FORM: &str = "run";

/// A job as it is printed.
struct JobRow {
    name: String,
    description: String,
    /// Which process's, where each has its own.
    instance: String,
    state: &'static str,
    badge: &'static str,
    /// Why it is on hold, what it has asked for, or what its last failure was.
    note: String,
    /// Done and total, where it runs and says so.
    progress: Option<(u64, u64)>,
    progress_text: String,
    schedule: String,
    waits_for: String,
    next: String,
    last: String,
    last_title: String,
    did: String,
    can_run: bool,
    /// The configuration says that it is not run.
    is_switched_off: bool,
}

/// A run as it is printed.
struct RunRow {
    job: String,
    started: String,
    took: String,
    cause: &'static str,
    outcome: &'static str,
    badge: &'static str,
    text: String,
    owner: String,
}

#[derive(Template)]
#[template(path = "ops_jobs.html")]
struct JobsPage {
    shell: Shell,
    jobs: Vec<JobRow>,
    runs: Vec<RunRow>,
}

#[derive(Template)]
#[template(path = "ops_job.html")]
struct JobPage {
    shell: Shell,
    draft: Draft,
    notice: Option<&'static str>,
    jobs: Vec<JobRow>,
    runs: Vec<RunRow>,
    older_href: Option<String>,
}

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct JobQuery {
    #[serde(default)]
    done: String,
    #[serde(default)]
    before: String,
}

fn utc(at_ms: i64) -> String {
    format::minute(at_ms, &TimeZone::UTC)
}

/// How long something took: `0.4 s`, `12 min`.
fn took(from_ms: i64, to_ms: i64) -> String {
    let took_ms = to_ms.saturating_sub(from_ms).max(0);
    match took_ms / 1_000 {
        ..10 => format!("{}.{} s", took_ms / 1_000, took_ms % 1_000 / 100),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

impl JobRow {
    fn new(job: JobRecord, now_ms: i64) -> JobRow {
        let condition = job.condition(now_ms);
        let badge = match condition {
            JobStatus::Good => "ok",
            JobStatus::Running => "info",
            JobStatus::Held | JobStatus::NoProcess => "warn",
            JobStatus::Failing => "late",
            JobStatus::New | JobStatus::SwitchedOff => "",
        };
        let is_running = condition == JobStatus::Running;
        let note = match condition {
            JobStatus::Held => job.hold.clone(),
            JobStatus::Failing => format!("{} in a row: {}", job.failures_in_a_row, job.last_text),
            JobStatus::NoProcess => "no process that runs it has answered lately".to_owned(),
            JobStatus::SwitchedOff => job.switched_off.clone(),
            _ if job.is_requested() => "a run is requested".to_owned(),
            _ => String::new(),
        };
        JobRow {
            state: condition.name(),
            badge,
            note,
            progress: (is_running && job.progress.total > 0).then_some((job.progress.done, job.progress.total)),
            progress_text: if is_running { job.progress.text } else { String::new() },
            next: job.next_at_ms.map_or_else(|| "–".to_owned(), utc),
            last: job
                .last_ended_at_ms
                .map_or_else(|| "never".to_owned(), |at_ms| format::ago(at_ms, now_ms)),
            last_title: job
                .last_ended_at_ms
                .map(|at_ms| format!("{} UTC", utc(at_ms)))
                .unwrap_or_default(),
            did: match job.last_outcome {
                Some(Outcome::Succeeded) if job.last_text.is_empty() => "nothing to do".to_owned(),
                Some(Outcome::Succeeded) => job.last_text,
                Some(outcome) => outcome.name().to_owned(),
                None => String::new(),
            },
            can_run: !matches!(condition, JobStatus::NoProcess | JobStatus::SwitchedOff),
            is_switched_off: condition == JobStatus::SwitchedOff,
            name: job.name,
            description: job.description,
            instance: job.instance,
            schedule: job.schedule,
            waits_for: job.waits_for,
        }
    }
}

impl RunRow {
    fn new(run: Run) -> RunRow {
        let badge = match run.outcome {
            Outcome::Succeeded => "ok",
            Outcome::Running => "info",
            Outcome::Failed => "late",
            Outcome::GivenUp | Outcome::Abandoned => "warn",
        };
        let text = match (run.outcome, run.text.as_str()) {
            (Outcome::Succeeded, "") => "nothing to do".to_owned(),
            _ => run.text,
        };
        RunRow {
            job: run.job,
            started: format::second(run.started_at_ms, &TimeZone::UTC),
            took: run
                .ended_at_ms
                .map_or_else(|| "–".to_owned(), |ended| took(run.started_at_ms, ended)),
            cause: run.cause.name(),
            outcome: run.outcome.name(),
            badge,
            text,
            owner: run.owner,
        }
    }
}

pub(crate) async fn show(State(state): State<AppState>, Operations(who): Operations) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let now_ms = clock::machine_now_ms();
    let jobs = job::list(pool).await?;
    let runs = job::runs(pool, RunFilter::default(), RECENT_RUNS).await?;
    page(&JobsPage {
        shell: Shell::new(&who, "Background jobs", PATH),
        jobs: jobs.into_iter().map(|job| JobRow::new(job, now_ms)).collect(),
        runs: runs.into_iter().map(RunRow::new).collect(),
    })
}

pub(crate) async fn show_one(
    State(state): State<AppState>,
    Operations(who): Operations,
    Path(name): Path<String>,
    PageQuery(query): PageQuery<JobQuery>,
) -> Result<Response, PageError> {
    let before = filter("before", &query.before, "the id of a run")?;
    let notice = (query.done == RUN_FORM).then_some(
        "The run is requested: it begins as soon as the jobs that this one waits for are done, and is listed below.",
    );
    render(&state, &who, &name, before, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    who: &SignedIn,
    name: &str,
    before: Option<JobRunId>,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let now_ms = clock::machine_now_ms();
    let mut jobs = job::list(pool).await?;
    jobs.retain(|job| job.name == name);
    if jobs.is_empty() {
        return Err(Failure::NotFound.into());
    }
    let wanted = RunFilter {
        job: Some(name),
        outcome: None,
        before,
    };
    let mut runs = job::runs(pool, wanted, PAGE_RUNS + 1).await?;
    let most = usize::try_from(PAGE_RUNS).unwrap_or(usize::MAX);
    let has_older = runs.len() > most;
    runs.truncate(most);
    let last = runs.last().filter(|_| has_older);
    let older_href = last.map(|last| format!("{PATH}/{name}?before={}", last.id));
    let body = page(&JobPage {
        shell: Shell::new(who, format!("Job {name}"), PATH),
        notice,
        jobs: jobs.into_iter().map(|job| JobRow::new(job, now_ms)).collect(),
        runs: runs.into_iter().map(RunRow::new).collect(),
        older_href,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

pub(crate) async fn run(
    State(state): State<AppState>,
    Operations(who): Operations,
    Path(name): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let mut jobs = job::list(state.db().pool()).await?;
    jobs.retain(|job| job.name == name);
    if jobs.is_empty() {
        return Err(Failure::NotFound.into());
    }
    let now_ms = clock::machine_now_ms();
    let done: Result<(), ActionFailure> = async {
        if !jobs.iter().any(|job| job.has_process(now_ms)) {
            let off = jobs.iter().find(|job| !job.switched_off.is_empty());
            return Err(said(match off {
                Some(off) => format!("The job is switched off: {}.", off.switched_off),
                None => "No process runs this job: start `ezscale serve`, or run it with `ezscale job run`.".to_owned(),
            }));
        }
        let Some(mut action) = Action::begin(&state, &who, ip, &fields).await? else {
            return Ok(());
        };
        // The job's row before the log's: as who records a run takes them.
        job::request(action.connection(), &name, now_ms).await?;
        action.commit(Note::new("job.run", &name)).await
    }
    .await;
    match done {
        Ok(()) => Ok(Redirect::to(&format!("{PATH}/{name}?done={RUN_FORM}")).into_response()),
        Err(refused) => {
            let draft = Draft::refused(RUN_FORM, refused, fields)?;
            render(&state, &who, &name, None, draft, None).await
        }
    }
}

#[cfg(test)]
mod tests;
