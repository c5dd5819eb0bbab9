//! A job in its driver: its timetable, what is written of it, and whether it is due.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::clock::{self, Clock};
use schemas::ids::JobRunId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::store::{JobRecord, JobRow};
use super::{Cause, Context, Job, Outcome, Progress, QUIET_PERIOD, Scope, Timetable, Timing};

/// A run that takes longer has its row in the history while it runs.
const SHORT_RUN: Duration = Duration::from_secs(2);

/// A job of this process.
pub(super) struct Slot {
    pub(super) job: Arc<dyn Job>,
    pub(super) name: &'static str,
    pub(super) is_local: bool,
    pub(super) timing: Timing,
    /// Its lease; of a local job the one that says that its process lives.
    pub(super) lease: String,
    /// How far apart its runs are at most.
    pub(super) period: Duration,
    /// Wakes its task.
    pub(super) wake: Notify,
    /// Held by who writes of it.
    pub(super) writing: tokio::sync::Mutex<()>,
    state: Mutex<SlotState>,
}

/// What changes.
pub(super) struct SlotState {
    pub(super) timetable: Timetable,
    pub(super) stored: JobRow,
    /// How often the test clock had been set when it last began.
    pub(super) epoch_done: u64,
    /// How often people asked for it, as last seen.
    pub(super) requested: i64,
    /// Something woke it.
    pub(super) is_signalled: bool,
    /// Another job that always comes after it is due.
    pub(super) is_wanted: bool,
    /// The instant that its last run went by, by its clock.
    pub(super) ran_for_ms: Option<i64>,
    pub(super) is_running: bool,
    /// It is due and may not run: nobody waits for it.
    pub(super) is_held_back: bool,
    /// Since when it has waited for others, by its clock.
    pub(super) waiting_since_ms: Option<i64>,
    /// What is written is not what is known, and somebody may wait to read it.
    pub(super) is_dirty: bool,
    /// The same, and nobody does: a look for work that found none.
    pub(super) is_stale: bool,
    pub(super) run: Option<RunningRun>,
    /// Runs that have ended and are not written yet, oldest first.
    pub(super) ended: Vec<EndedRun>,
}

/// A run that is over.
#[derive(Clone)]
pub(super) struct EndedRun {
    pub(super) cause: Cause,
    pub(super) scheduled_ms: i64,
    pub(super) started_at_ms: i64,
    pub(super) ended_at_ms: i64,
    pub(super) outcome: Outcome,
    pub(super) text: String,
    pub(super) id: Option<JobRunId>,
}

/// A run under way.
pub(super) struct RunningRun {
    pub(super) cause: Cause,
    pub(super) scheduled_ms: i64,
    pub(super) started_at_ms: i64,
    pub(super) started: Instant,
    pub(super) progress: Arc<Mutex<Progress>>,
    /// Its row, where it has one by now.
    pub(super) id: Option<JobRunId>,
}

impl RunningRun {
    /// It has its row while it runs.
    pub(super) fn is_long(&self) -> bool {
        self.id.is_some() || self.started.elapsed() >= SHORT_RUN
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether a job belongs to its process, its lease, and what its row says whose it is.
pub(super) fn place(job: &dyn Job, instance: &str) -> (bool, String, String) {
    match job.scope() {
        Scope::Local => (true, instance.to_owned(), instance.to_owned()),
        Scope::Leased => (false, job.name().to_owned(), String::new()),
        Scope::Group(group) => (false, group.to_owned(), String::new()),
    }
}

impl Slot {
    /// `instance` names this process and its folder.
    pub(super) fn new(job: Arc<dyn Job>, instance: &str, clock: &Clock) -> Slot {
        let (is_local, lease, instance) = place(job.as_ref(), instance);
        let timing = job.timing();
        let now_ms = now_ms(timing, clock);
        let schedule = job.schedule();
        let stored = JobRow {
            name: job.name(),
            instance,
            ..JobRow::default()
        };
        Slot {
            name: job.name(),
            is_local,
            timing,
            lease,
            period: schedule.period(now_ms),
            wake: Notify::new(),
            state: Mutex::new(SlotState {
                timetable: Timetable::begin(schedule, None, now_ms),
                stored,
                epoch_done: 0,
                requested: 0,
                is_signalled: false,
                is_wanted: false,
                ran_for_ms: None,
                is_running: false,
                is_held_back: false,
                waiting_since_ms: None,
                is_dirty: true,
                is_stale: false,
                run: None,
                ended: Vec::new(),
            }),
            writing: tokio::sync::Mutex::new(()),
            job,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that it is due by.
    pub(super) fn now_ms(&self, clock: &Clock) -> i64 {
        now_ms(self.timing, clock)
    }

    /// The jobs that go first, for lists.
    pub(super) fn waits_for(&self) -> String {
        waits_for(self.job.as_ref())
    }

    /// Takes over what was written of it, when this process becomes its owner.
    pub(super) fn take_over(&self, row: &JobRecord, clock: &Clock) {
        let now_ms = self.now_ms(clock);
        let mut state = self.state();
        state.timetable.resume(row.handled_ms, now_ms);
        state.requested = row.requested;
        let (handled_ms, next_at_ms) = (state.timetable.handled_ms(), state.timetable.next_ms());
        let stored = &mut state.stored;
        stored.handled_ms = handled_ms;
        stored.next_at_ms = next_at_ms;
        stored.last_started_at_ms = row.last_started_at_ms;
        stored.last_ended_at_ms = row.last_ended_at_ms;
        stored.last_success_at_ms = row.last_success_at_ms;
        stored.last_outcome = row.last_outcome;
        stored.last_text.clone_from(&row.last_text);
        stored.failures_in_a_row = row.failures_in_a_row;
        stored.served = row.served;
        state.is_dirty = true;
    }
}

/// The jobs that go before one, for lists.
pub(super) fn waits_for(job: &dyn Job) -> String {
    let names: Vec<&str> = job.after().iter().map(|after| after.job).collect();
    names.join(", ")
}

fn now_ms(timing: Timing, clock: &Clock) -> i64 {
    match timing {
        Timing::Machine => clock::machine_now_ms(),
        Timing::Books => clock.now_ms(),
    }
}

impl SlotState {
    /// Why it is due now, if it is. `epoch`: how often the test clock was set, of a job that goes by it.
    pub(super) fn due(&self, now_ms: i64, epoch: u64) -> Option<Cause> {
        if self.requested > self.stored.served {
            return Some(Cause::Request);
        }
        if self.is_signalled {
            return Some(Cause::Signal);
        }
        if self.epoch_done < epoch {
            return Some(Cause::Clock);
        }
        (self.is_wanted || self.timetable.is_due(now_ms)).then_some(Cause::Schedule)
    }

    /// A run begins: what its job is given. It is one that people asked for when it serves what they asked for, also where it was due
    /// for another `cause` when that was seen: who asked looks for it.
    pub(super) fn begin(&mut self, cause: Cause, now_ms: i64, epoch: u64, stop: CancellationToken) -> Context {
        let cause = match self.requested > self.stored.served {
            true => Cause::Request,
            false => cause,
        };
        let started_at_ms = clock::machine_now_ms();
        let scheduled_ms = self.timetable.take(now_ms);
        let progress = Arc::new(Mutex::new(Progress::default()));
        self.epoch_done = epoch;
        self.is_signalled = false;
        self.is_wanted = false;
        self.is_running = true;
        self.is_held_back = false;
        self.waiting_since_ms = None;
        self.stored.hold.clear();
        self.stored.served = self.requested;
        self.stored.handled_ms = self.timetable.handled_ms();
        self.stored.next_at_ms = self.timetable.next_ms();
        self.stored.running_since_ms = Some(started_at_ms);
        self.run = Some(RunningRun {
            cause,
            scheduled_ms,
            started_at_ms,
            started: Instant::now(),
            progress: Arc::clone(&progress),
            id: None,
        });
        Context {
            now_ms,
            scheduled_ms,
            cause,
            progress,
            stop,
        }
    }

    /// Since when it has waited for others; a clock that went back begins anew.
    pub(super) fn wait_since(&mut self, now_ms: i64) -> i64 {
        let since_ms = self.waiting_since_ms.unwrap_or(now_ms).min(now_ms);
        self.waiting_since_ms = Some(since_ms);
        since_ms
    }

    /// Notes why it does not run though it is due.
    pub(super) fn hold(&mut self, why: &str) {
        self.is_held_back = true;
        self.waiting_since_ms = None;
        if self.stored.hold != why {
            self.stored.hold = why.to_owned();
            self.is_dirty = true;
        }
    }

    /// A run has ended; true when that is to be written at once.
    pub(super) fn end(
        &mut self,
        period: Duration,
        now_ms: i64,
        ended_at_ms: i64,
        outcome: Outcome,
        text: String,
    ) -> bool {
        self.is_running = false;
        self.ran_for_ms = Some(now_ms);
        let Some(run) = self.run.take() else { return false };
        let failed_before = self.stored.failures_in_a_row > 0;
        // Who reads when it last ran waits no longer for the first time than for any other.
        let quiet_ms = i64::try_from(QUIET_PERIOD.as_millis()).unwrap_or(i64::MAX);
        let is_news = self
            .stored
            .last_ended_at_ms
            .is_none_or(|before| ended_at_ms - before > quiet_ms);
        match outcome {
            Outcome::Succeeded => {
                self.stored.failures_in_a_row = 0;
                self.stored.last_success_at_ms = Some(ended_at_ms);
            }
            Outcome::Failed => {
                self.stored.failures_in_a_row += 1;
                self.timetable.retry(now_ms);
            }
            // What was not finished is due again.
            _ => self.timetable.retry(now_ms),
        }
        self.stored.handled_ms = self.timetable.handled_ms();
        self.stored.next_at_ms = self.timetable.next_ms();
        self.stored.running_since_ms = None;
        self.stored.progress = Progress::default();
        self.stored.last_started_at_ms = Some(run.started_at_ms);
        self.stored.last_ended_at_ms = Some(ended_at_ms);
        self.stored.last_outcome = Some(outcome);
        self.stored.last_text.clone_from(&text);
        let is_quiet = period < QUIET_PERIOD && outcome == Outcome::Succeeded && text.is_empty();
        let is_noted = !is_quiet || failed_before || run.is_long() || run.cause == Cause::Request;
        if !is_noted {
            self.is_dirty |= is_news;
            self.is_stale = true;
            return false;
        }
        self.is_dirty = true;
        self.ended.push(EndedRun {
            cause: run.cause,
            scheduled_ms: run.scheduled_ms,
            started_at_ms: run.started_at_ms,
            ended_at_ms,
            outcome,
            text,
            id: run.id,
        });
        true
    }

    /// Whether there is something to write: what nobody waits for is, where `writes_stale`.
    pub(super) fn is_to_be_written(&self, writes_stale: bool) -> bool {
        let has_come_on = self
            .run
            .as_ref()
            .is_some_and(|run| run.is_long() && (run.id.is_none() || run.progress() != self.stored.progress));
        has_come_on || self.is_dirty || (writes_stale && self.is_stale)
    }
}
