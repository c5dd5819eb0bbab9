//! The jobs of this process, and whether they do their work: each one's last success against its period.
//!
//! Times are monotonic, since the process started: a clock that jumps, or a test clock that stands still, makes no job
//! late. A job that fails counts as late once it has not succeeded for longer than [`JobState::limit`]. One that runs is excused
//! up to [`RUN_LIMIT`], and so is one that waits for another that runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A job is late after two periods, but not before this long after the first, and not later than [`GRACE_MAX`] after it.
const GRACE_MIN: Duration = Duration::from_secs(60);
const GRACE_MAX: Duration = Duration::from_secs(3_600);
/// A job that runs longer is stuck, and what waits behind it is late.
pub const RUN_LIMIT: Duration = Duration::from_secs(1_800);
/// A job that failed is tried again after this long, or after its period where that is shorter.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The jobs of this process. Clones share the board.
#[derive(Clone, Debug, Default)]
pub struct JobBoard(Arc<Mutex<BTreeMap<&'static str, Entry>>>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    period: Duration,
    /// When it last succeeded, was excused, or was made known.
    good_at: Instant,
    started_at: Option<Instant>,
    /// The job that goes first.
    waits_for: Option<&'static str>,
    runs: u64,
    failures: u64,
    /// Since the last success.
    failures_in_a_row: u64,
    last_duration: Option<Duration>,
    last_success_at_ms: Option<i64>,
}

/// A job as the board shows it.
#[derive(Clone, Debug)]
pub struct JobState {
    pub name: &'static str,
    pub period: Duration,
    /// Since its last success; where there was none, since it was made known.
    pub since_success: Duration,
    /// When that was, UTC milliseconds; `None` where this process has seen none.
    pub last_success_at_ms: Option<i64>,
    /// For how long it has been running, where it is.
    pub running: Option<Duration>,
    /// How long its last run took.
    pub last_duration: Option<Duration>,
    pub runs: u64,
    pub failures: u64,
    pub failures_in_a_row: u64,
    pub is_late: bool,
}

impl JobState {
    /// Without a success for longer than this it is late.
    pub fn limit(&self) -> Duration {
        limit(self.period)
    }
}

fn limit(period: Duration) -> Duration {
    period + period.clamp(GRACE_MIN, GRACE_MAX)
}

impl JobBoard {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<&'static str, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: &'static str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries().get_mut(name) {
            change(entry);
        }
    }

    /// Makes a job known.
    pub fn add(&self, name: &'static str, period: Duration) {
        let entry = Entry {
            period,
            good_at: Instant::now(),
            started_at: None,
            waits_for: None,
            runs: 0,
            failures: 0,
            failures_in_a_row: 0,
            last_duration: None,
            last_success_at_ms: None,
        };
        self.entries().insert(name, entry);
    }

    /// A run begins.
    pub fn start(&self, name: &'static str) {
        self.change(name, |entry| {
            entry.started_at = Some(Instant::now());
            entry.waits_for = None;
        });
    }

    /// A run has ended, at a time of the machine's clock.
    pub fn finish(&self, name: &'static str, succeeded: bool, ended_at_ms: i64) {
        self.change(name, |entry| {
            entry.last_duration = entry.started_at.take().map(|at| at.elapsed());
            entry.runs += 1;
            if succeeded {
                entry.good_at = Instant::now();
                entry.last_success_at_ms = Some(ended_at_ms);
                entry.failures_in_a_row = 0;
            } else {
                entry.failures += 1;
                entry.failures_in_a_row += 1;
            }
        });
    }

    /// A run was given up because the process stops or lost its lease: neither a success nor a failure.
    pub fn give_up(&self, name: &'static str) {
        self.change(name, |entry| entry.started_at = None);
    }

    /// Notes that a job has nothing to do for now by order, such as while billing is stopped.
    pub fn rest(&self, name: &'static str) {
        self.change(name, |entry| entry.good_at = Instant::now());
    }

    /// Notes that a job that is due waits for another.
    pub fn wait(&self, name: &'static str, other: &'static str) {
        self.change(name, |entry| entry.waits_for = Some(other));
    }

    /// All jobs, by name.
    pub fn jobs(&self) -> Vec<JobState> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Vec<JobState> {
        let entries = self.entries();
        let running_for = |entry: &Entry| entry.started_at.map(|at| now.saturating_duration_since(at));
        let is_busy = |entry: &Entry| running_for(entry).is_some_and(|running| running <= RUN_LIMIT);
        let states = entries.iter().map(|(name, entry)| {
            let since_success = now.saturating_duration_since(entry.good_at);
            JobState {
                name,
                period: entry.period,
                since_success,
                last_success_at_ms: entry.last_success_at_ms,
                running: running_for(entry),
                last_duration: entry.last_duration,
                runs: entry.runs,
                failures: entry.failures,
                failures_in_a_row: entry.failures_in_a_row,
                is_late: since_success > limit(entry.period)
                    && !is_busy(entry)
                    && !first_of(&entries, entry).is_some_and(is_busy),
            }
        });
        states.collect()
    }
}

/// The job at the front of those that a job waits behind.
fn first_of<'a>(entries: &'a BTreeMap<&'static str, Entry>, entry: &Entry) -> Option<&'a Entry> {
    let mut first = entries.get(entry.waits_for?)?;
    // No longer than the list, whatever waits for what.
    for _ in 0..entries.len() {
        if first.started_at.is_some() {
            break;
        }
        let Some(before) = first.waits_for.and_then(|name| entries.get(name)) else {
            break;
        };
        first = before;
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn late(board: &JobBoard, after: Duration) -> Vec<&'static str> {
        let states = board.at(Instant::now() + after);
        states
            .iter()
            .filter(|state| state.is_late)
            .map(|state| state.name)
            .collect()
    }

    #[test]
    fn a_job_is_late_after_two_periods_without_a_success() {
        let board = JobBoard::default();
        board.add("events", Duration::from_secs(5));
        board.add("close", 10 * MINUTE);
        board.add("idle", 1_440 * MINUTE);
        assert!(late(&board, MINUTE).is_empty());
        assert_eq!(late(&board, 2 * MINUTE), ["events"]);
        assert_eq!(late(&board, 21 * MINUTE), ["close", "events"]);
        assert_eq!(late(&board, 1_501 * MINUTE), ["close", "events", "idle"]);
        board.start("events");
        board.finish("events", false, 1_000);
        assert_eq!(late(&board, 2 * MINUTE), ["events"]);
        let state = &board.jobs()[1];
        assert_eq!((state.failures_in_a_row, state.last_success_at_ms), (1, None));
        board.rest("close");
        board.start("events");
        board.finish("events", true, 2_000);
        let state = &board.jobs()[1];
        assert_eq!((state.runs, state.failures, state.failures_in_a_row), (2, 1, 0));
        assert_eq!(state.last_success_at_ms, Some(2_000));
        assert!(state.running.is_none() && state.last_duration.is_some());
        board.start("events");
        board.give_up("events");
        assert_eq!(board.jobs()[1].runs, 2);
    }

    #[test]
    fn what_runs_and_what_waits_behind_it_is_excused_until_that_is_stuck() {
        let board = JobBoard::default();
        for name in ["close", "collect", "budgets"] {
            board.add(name, 10 * MINUTE);
        }
        board.add("events", Duration::from_secs(5));
        board.start("close");
        board.wait("collect", "close");
        board.wait("budgets", "collect");
        assert_eq!(late(&board, 25 * MINUTE), ["events"]);
        assert_eq!(late(&board, 40 * MINUTE), ["budgets", "close", "collect", "events"]);
        board.finish("close", true, 0);
        // It waits for nothing that runs.
        assert_eq!(late(&board, 25 * MINUTE), ["budgets", "close", "collect", "events"]);
    }
}
