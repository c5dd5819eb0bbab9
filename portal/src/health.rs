//! `/healthz` and `/readyz`: whether this process does its work.
//!
//! `/healthz` asks nobody but this process and reads one row: it is for a monitor that asks often and calls people. `/readyz`
//! tries what work needs: it writes a row into the database and a file into the data folder, reads the tables, and looks at
//! jobs, events, collector and the check of the database at the start. It answers JSON that names what is wrong, 503 while
//! something is.
//!
//! Nobody can make it work hard: one request at a time tries, and what it found is the answer for [`REUSE`]. A disk that does
//! not answer holds up one thread: until it is back nothing more is tried on it.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use activity::event::{self, Lag};
use activity::job::JobState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use billing::guard;
use schemas::db::CheckState;
use schemas::window::DAY_MS;
use tokio::time::timeout;

use crate::readiness::{Check, Readiness, Report};
use crate::state::AppState;

/// What was found is the answer for so long.
const REUSE: Duration = match cfg!(test) {
    true => Duration::ZERO,
    false => Duration::from_secs(1),
};
/// What takes longer does not answer.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// An event that waits longer to be handled is told too late.
const EVENT_LAG_MAX_MS: i64 = 300_000;
/// What is written into the data folder: more than a block that happens to be free.
const PROBE_BYTES: usize = 64 << 10;
/// Late jobs that are named in one sentence.
const JOBS_NAMED_MAX: usize = 8;

/// Healthy while the collector of this process does its work and billing is not stopped; otherwise 503 and what keeps it from
/// that, a line each. A collector that cannot write goes on by itself, and a restart helps nothing.
pub(crate) async fn healthy(State(state): State<AppState>) -> Response {
    let mut problems = state.collector_problems();
    // A database that does not answer is a matter of `/readyz`.
    if let Ok(Ok(Some(stopped))) = timeout(CHECK_LIMIT, guard::stopped(state.db().pool())).await {
        problems.push(stopped.to_string());
    }
    if problems.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}

/// Ready when everything that work needs was just tried and works. It says where billing is stopped, and is ready all the
/// same: an admin confirms the clock on a page.
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    let readiness = state.readiness();
    let mut last = readiness.last.lock().await;
    let report = match last.as_ref().filter(|(at, _)| at.elapsed() < REUSE) {
        Some((_, report)) => report.clone(),
        None => {
            let before = last.as_ref().map(|(_, report)| report.problems.clone());
            let report = look(&state, readiness).await;
            if before.unwrap_or_default() != report.problems {
                say(&report.problems);
            }
            *last = Some((Instant::now(), report.clone()));
            report
        }
    };
    let status = match report.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report)).into_response()
}

/// Logs a change.
fn say(problems: &[String]) {
    if problems.is_empty() {
        tracing::info!("ready");
    } else {
        tracing::warn!(problems = problems.join("; "), "not ready");
    }
}

async fn look(state: &AppState, readiness: &Readiness) -> Report {
    let (database, folder, tables, events, billing) = tokio::join!(
        database(state),
        data_folder(state.data_dir(), readiness),
        tables(state),
        events(state),
        billing(state)
    );
    Report::of(vec![
        database,
        integrity(state),
        folder,
        tables,
        events,
        jobs(&state.jobs().jobs()),
        collector(state),
        billing,
    ])
}

const DATABASE: &str = "database";

/// Writes a row, as any change is.
async fn database(state: &AppState) -> Check {
    match timeout(CHECK_LIMIT, state.db().probe_write(state.now_ms())).await {
        Ok(Ok(())) => Check::good(DATABASE),
        Ok(Err(error)) => Check::bad(DATABASE, format!("cannot be written: {error}")),
        Err(_) => Check::bad(DATABASE, format!("took no row within {} s", CHECK_LIMIT.as_secs())),
    }
}

/// What the check at the start found.
fn integrity(state: &AppState) -> Check {
    const NAME: &str = "database_check";
    match state.db().check_state() {
        CheckState::Sound | CheckState::NotChecked => Check::good(NAME),
        CheckState::Running => Check::noted(NAME, "is still being read through".to_owned()),
        CheckState::Damaged(findings) => Check::bad(
            NAME,
            format!("the database is damaged ({findings}): stop, keep a copy of it, restore a backup"),
        ),
        CheckState::Failed(error) => Check::bad(NAME, format!("the database could not be checked: {error}")),
    }
}

const DATA_FOLDER: &str = "data_folder";

/// Writes, syncs and removes a file.
async fn data_folder(folder: &Path, readiness: &Readiness) -> Check {
    if readiness.is_writing.swap(true, Ordering::AcqRel) {
        return Check::bad(DATA_FOLDER, "the disk has not answered the write before");
    }
    let is_writing = readiness.is_writing.clone();
    let path = folder.join(".readyz");
    let writing = tokio::task::spawn_blocking(move || {
        let written = write_probe(&path);
        is_writing.store(false, Ordering::Release);
        written
    });
    match timeout(CHECK_LIMIT, writing).await {
        Ok(Ok(Ok(()))) => Check::good(DATA_FOLDER),
        Ok(Ok(Err(error))) => Check::bad(DATA_FOLDER, format!("cannot be written: {error}")),
        Ok(Err(error)) => Check::bad(DATA_FOLDER, format!("could not be tried: {error}")),
        Err(_) => Check::bad(
            DATA_FOLDER,
            format!("the disk took no file within {} s", CHECK_LIMIT.as_secs()),
        ),
    }
}

fn write_probe(path: &Path) -> std::io::Result<()> {
    let written = std::fs::File::create(path).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        file.sync_all()
    });
    // Also after a failure: what it took of a full disk is given back.
    let removed = std::fs::remove_file(path);
    written.and(removed)
}

/// Reads the stored usage of the day before anything was last heard.
async fn tables(state: &AppState) -> Check {
    const NAME: &str = "tables";
    let store = state.flow_store();
    let read = async {
        match store.heard_until().await? {
            Some(until_ms) => store.network_usage(until_ms - DAY_MS, until_ms).await.map(drop),
            None => Ok(()),
        }
    };
    match timeout(CHECK_LIMIT, read).await {
        Ok(Ok(())) => Check::good(NAME),
        Ok(Err(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "not ready: the tables cannot be read"
            );
            Check::bad(NAME, format!("cannot be read: {error}"))
        }
        Err(_) => Check::bad(NAME, format!("were not read within {} s", CHECK_LIMIT.as_secs())),
    }
}

/// How long the oldest event has waited for each of those who react to events.
async fn events(state: &AppState) -> Check {
    const NAME: &str = "events";
    match timeout(CHECK_LIMIT, event::lags(state.db().pool(), &state.consumers())).await {
        Ok(Ok(lags)) => lagging(NAME, &lags, state.now_ms()),
        Ok(Err(error)) => Check::bad(NAME, format!("cannot be read: {error}")),
        Err(_) => Check::bad(NAME, format!("were not read within {} s", CHECK_LIMIT.as_secs())),
    }
}

/// Says who lags; bad where somebody does for too long.
fn lagging(name: &'static str, lags: &[Lag], now_ms: i64) -> Check {
    let mut behind = Vec::new();
    let mut is_late = false;
    for lag in lags {
        let Some((oldest, created_at_ms)) = lag.oldest else {
            continue;
        };
        let lag_ms = now_ms.saturating_sub(created_at_ms).max(0);
        is_late |= lag_ms > EVENT_LAG_MAX_MS;
        let (consumer, count, lag_s) = (lag.consumer, lag.waiting, lag_ms / 1_000);
        behind.push(format!(
            "{consumer}: {count} not handled, the oldest ({oldest}) for {lag_s} s"
        ));
    }
    match (behind.is_empty(), is_late) {
        (true, _) => Check::good(name),
        (false, false) => Check::noted(name, behind.join("; ")),
        (false, true) => Check::bad(name, format!("{}: the log says why", behind.join("; "))),
    }
}

/// Each job's last success against its period.
fn jobs(jobs: &[JobState]) -> Check {
    const NAME: &str = "jobs";
    let late: Vec<String> = jobs
        .iter()
        .filter(|job| job.is_late)
        .map(|job| {
            format!(
                "{} has not succeeded for {} s (runs every {} s, {} failures in a row)",
                job.name,
                job.since_success.as_secs(),
                job.period.as_secs(),
                job.failures_in_a_row
            )
        })
        .collect();
    if late.is_empty() {
        return Check::good(NAME);
    }
    let more = late.len().saturating_sub(JOBS_NAMED_MAX);
    let mut detail = late[..late.len() - more].join("; ");
    if more > 0 {
        detail = format!("{detail}; and {more} more");
    }
    Check::bad(NAME, detail)
}

fn collector(state: &AppState) -> Check {
    const NAME: &str = "collector";
    let problems = state.collector_problems();
    match problems.is_empty() {
        true => Check::good(NAME),
        false => Check::bad(NAME, problems.join("; ")),
    }
}

/// For information only.
async fn billing(state: &AppState) -> Check {
    const NAME: &str = "billing";
    match timeout(CHECK_LIMIT, guard::stopped(state.db().pool())).await {
        Ok(Ok(Some(stopped))) => Check::noted(NAME, stopped.to_string()),
        _ => Check::good(NAME),
    }
}

#[cfg(test)]
mod tests {
    use activity::event::{EventType, NewEvent};

    use super::*;
    use crate::testing::world::World;
    use crate::testing::{Answer, NOW_MS, TestPortal};

    fn problems(answer: &Answer) -> String {
        let json = answer.json();
        assert_eq!(json["ready"], answer.status == StatusCode::OK, "{json}");
        assert_eq!(answer.header("content-type"), "application/json");
        json["problems"].to_string()
    }

    #[tokio::test]
    async fn an_event_that_waits_too_long_is_named_until_it_is_dispatched() {
        let portal = TestPortal::new().await;
        let customer = portal.customer("ada").await;
        let mut browser = portal.browser();
        let answer = browser.get("/readyz").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let names: Vec<String> = answer.json()["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| check["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "database",
                "database_check",
                "data_folder",
                "tables",
                "events",
                "jobs",
                "collector",
                "billing"
            ]
        );

        let new = NewEvent {
            event_type: EventType::InvoiceFinalised,
            customer: Some(customer),
            subject: "inv_1".to_owned(),
            payload: serde_json::json!({"invoice": "inv_1", "number": "2025-0001", "amount_minor": 1, "currency": "USD"}),
        };
        let mut transaction = portal.state.db().begin_write().await.unwrap();
        event::publish(&mut transaction, new, NOW_MS).await.unwrap();
        transaction.commit().await.unwrap();
        let young = browser.get("/readyz").await;
        assert_eq!(young.status, StatusCode::OK, "{}", young.body);
        assert!(young.body.contains("dispatch_mail: 1 not handled"), "{}", young.body);
        portal.advance_ms(EVENT_LAG_MAX_MS + 1);
        let old = browser.get("/readyz").await;
        assert_eq!(old.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            problems(&old).contains("events: dispatch_mail: 1 not handled, the oldest (evt_1)"),
            "{}",
            old.body
        );
        activity::channel::dispatch(portal.state.db(), portal.state.now_ms())
            .await
            .unwrap();
        assert_eq!(problems(&browser.get("/readyz").await), "[]");
    }

    #[tokio::test]
    async fn what_keeps_the_collector_from_its_work_and_a_database_that_takes_nothing_are_named() {
        let portal = TestPortal::new().await;
        portal
            .state
            .set_collector_problems(|| vec!["journal: nothing was synced for 31 s".to_owned()]);
        let mut browser = portal.browser();
        let answer = browser.get("/readyz").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            problems(&answer).contains("collector: journal: nothing was synced"),
            "{}",
            answer.body
        );
        // Another process holds the write lock for longer than anybody waits.
        let lock = portal.state.db().begin_write().await.unwrap();
        let answer = browser.get("/readyz").await;
        assert!(
            problems(&answer).contains("database: took no row within 5 s"),
            "{}",
            answer.body
        );
        drop(lock);
        let answer = browser.get("/readyz").await;
        assert!(!problems(&answer).contains("database"), "{}", answer.body);
    }

    fn parquet_files(folder: &Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(parquet_files(&path));
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
        found
    }

    #[tokio::test]
    async fn stored_usage_that_cannot_be_read_is_named() {
        let portal = World::new().await.portal;
        let mut browser = portal.browser();
        let answer = browser.get("/readyz").await;
        assert!(!problems(&answer).contains("tables"), "{}", answer.body);
        let files = parquet_files(&portal.state.data_dir().join("tables/interface_5m"));
        for file in &files {
            std::fs::remove_file(file).unwrap();
        }
        assert!(!files.is_empty());
        let answer = browser.get("/readyz").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(problems(&answer).contains("tables: cannot be read"), "{}", answer.body);
    }

    #[test]
    fn late_jobs_are_named_with_their_period() {
        let state = |name, is_late| JobState {
            name,
            period: Duration::from_secs(600),
            since_success: Duration::from_secs(1_300),
            last_success_at_ms: None,
            running: None,
            last_duration: None,
            runs: 3,
            failures: 2,
            failures_in_a_row: 2,
            is_late,
        };
        assert!(jobs(&[]).ok && jobs(&[state("close", false)]).ok);
        let check = jobs(&[state("close", true), state("events", false)]);
        assert!(!check.ok);
        assert_eq!(
            check.detail,
            "close has not succeeded for 1300 s (runs every 600 s, 2 failures in a row)"
        );
        let many: Vec<JobState> = (0..10).map(|_| state("close", true)).collect();
        assert!(jobs(&many).detail.ends_with("; and 2 more"));
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_named_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let readiness = Readiness::default();
        assert!(data_folder(dir.path(), &readiness).await.ok);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let gone = data_folder(&dir.path().join("gone"), &readiness).await;
        assert!(!gone.ok && gone.detail.contains("cannot be written"), "{gone:?}");
        readiness.is_writing.store(true, Ordering::Release);
        let hung = data_folder(dir.path(), &readiness).await;
        assert!(!hung.ok && hung.detail.contains("has not answered"), "{hung:?}");
    }
}
