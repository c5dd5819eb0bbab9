//! What runs by itself, and whether it does: each job's last success against its period.
//!
//! Times are monotonic, since the process started: a clock that jumps, or a test clock that stands still, makes no job
//! late. A job that fails counts as late once it has not succeeded for longer than [`JobState::limit`]; one that waits
//! behind another of the same task is excused while that one runs, up to [`RUN_LIMIT`].

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
    task: &'static str,
    period: Duration,
    /// When it last succeeded, or was made known.
    good_at: Instant,
    started_at: Option<Instant>,
    runs: u64,
    failures: u64,
    /// Since the last success.
    failures_in_a_row: u64,
}

/// A job as the board shows it.
#[derive(Clone, Debug)]
pub struct JobState {
    pub name: &'static str,
    pub period: Duration,
    /// Since its last success; where there was none, since it was made known.
    pub since_success: Duration,
    /// For how long it has been running, where it is.
    pub running: Option<Duration>,
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

    /// Makes a job known. Jobs of one task run one after the other.
    pub fn add(&self, task: &'static str, name: &'static str, period: Duration) {
        let entry = Entry {
            task,
            period,
            good_at: Instant::now(),
            started_at: None,
            runs: 0,
            failures: 0,
            failures_in_a_row: 0,
        };
        self.entries().insert(name, entry);
    }

    /// Runs a job and notes how it ended; the answer says whether it succeeded.
    pub async fn run(&self, name: &'static str, work: impl Future<Output = bool>) -> bool {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.started_at = Some(Instant::now());
        }
        let succeeded = work.await;
        if let Some(entry) = self.entries().get_mut(name) {
            entry.started_at = None;
            entry.runs += 1;
            if succeeded {
                entry.good_at = Instant::now();
                entry.failures_in_a_row = 0;
            } else {
                entry.failures += 1;
                entry.failures_in_a_row += 1;
            }
        }
        succeeded
    }

    /// Notes that a job has nothing to do for now by order, such as while billing is stopped.
    pub fn rest(&self, name: &'static str) {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.good_at = Instant::now();
        }
    }

    /// All jobs, by name.
    pub fn jobs(&self) -> Vec<JobState> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Vec<JobState> {
        let entries = self.entries();
        let running_for = |entry: &Entry| entry.started_at.map(|at| now.saturating_duration_since(at));
        let states = entries.iter().map(|(name, entry)| {
            let since_success = now.saturating_duration_since(entry.good_at);
            let is_excused = entries.values().any(|other| {
                other.task == entry.task && running_for(other).is_some_and(|running| running <= RUN_LIMIT)
            });
            JobState {
                name,
                period: entry.period,
                since_success,
                running: running_for(entry),
                runs: entry.runs,
                failures: entry.failures,
                failures_in_a_row: entry.failures_in_a_row,
                is_late: since_success > limit(entry.period) && !is_excused,
            }
        });
        states.collect()
    }
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

    #[tokio::test]
    async fn a_job_is_late_after_two_periods_without_a_success() {
        let board = JobBoard::default();
        board.add("billing", "events", Duration::from_secs(5));
        board.add("billing", "close", 10 * MINUTE);
        board.add("billing", "idle", 1_440 * MINUTE);
        assert!(late(&board, MINUTE).is_empty());
        assert_eq!(late(&board, 2 * MINUTE), ["events"]);
        assert_eq!(late(&board, 21 * MINUTE), ["close", "events"]);
        assert_eq!(late(&board, 1_501 * MINUTE), ["close", "events", "idle"]);
        assert!(!board.run("events", async { false }).await);
        assert_eq!(late(&board, 2 * MINUTE), ["events"]);
        assert_eq!(board.jobs()[1].failures_in_a_row, 1);
        board.rest("close");
        assert!(board.run("events", async { true }).await);
        let state = &board.jobs()[1];
        assert_eq!((state.runs, state.failures, state.failures_in_a_row), (2, 1, 0));
    }

    #[tokio::test]
    async fn what_waits_behind_another_job_is_excused_until_that_one_is_stuck() {
        let board = JobBoard::default();
        board.add("billing", "events", Duration::from_secs(5));
        board.add("billing", "close", 10 * MINUTE);
        board.add("collector", "usage", Duration::from_secs(5));
        let looked = board.run("close", async {
            assert_eq!(late(&board, 20 * MINUTE), ["usage"]);
            assert_eq!(late(&board, 40 * MINUTE), ["close", "events", "usage"]);
            true
        });
        assert!(looked.await);
    }
}
