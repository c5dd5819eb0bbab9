//! The driver: a task for each job, and one that keeps watch ([`super::watch`]).

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use schemas::clock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::lease::Owner;
use super::shared::{DisabledJob, Settings, Shared, TICK};
use super::slot::{Slot, place};
use super::watch::{WatchState, keep_watch};
use super::{Cause, Hold, Job, OnStop, Outcome, RunError, RunReport, Scope, Timing, causes, cut};

/// The first look waits no longer for a database before jobs begin.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Drives a list of jobs.
#[derive(Debug)]
pub struct Driver(Arc<Shared>);

impl Driver {
    /// A driver of these jobs. Their names are made known on the board at once, but those of jobs that are switched off.
    pub fn new(settings: Settings, jobs: Vec<Arc<dyn Job>>) -> Driver {
        let owner = Owner::of_this_process();
        let host = owner.name.split(':').next().unwrap_or_default().to_owned();
        let instance = format!("{host}:{}", settings.folder);
        let (mut slots, mut off) = (Vec::new(), Vec::new());
        for job in jobs {
            match job.switched_off() {
                None => slots.push(Arc::new(Slot::new(job, &instance, &settings.clock))),
                // A local one is no matter of other processes.
                Some(_) if job.scope() == Scope::Local => {}
                Some(why) => {
                    let (_, lease, _) = place(job.as_ref(), &instance);
                    off.push(DisabledJob { job, lease, why });
                }
            }
        }
        for slot in &slots {
            settings.board.add(slot.name, slot.period);
        }
        Driver(Arc::new(Shared {
            settings,
            owner,
            slots,
            off,
            epoch: AtomicU64::new(0),
            held: Mutex::default(),
            elsewhere: Mutex::default(),
        }))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Runs until `stop` is cancelled; then what is under way ends, unless its job says that it is given up, and the leases are
    /// given back.
    pub async fn run(self, stop: CancellationToken) {
        let shared = self.0;
        let mut looks = WatchState::default();
        let first_look = tokio::time::timeout(FIRST_LOOK_LIMIT, shared.look(&mut looks));
        if first_look.await.is_err() {
            warn!("the database does not answer: jobs start without their stored state");
        }
        let mut tasks = JoinSet::new();
        for slot in &shared.slots {
            tasks.spawn(drive(Arc::clone(&shared), Arc::clone(slot), stop.clone()));
        }
        // Leases are renewed until the last job has ended.
        let all_ended = CancellationToken::new();
        let mut watch = JoinSet::new();
        watch.spawn(keep_watch(Arc::clone(&shared), looks, all_ended.clone()));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "the task of a background job ended");
            }
        }
        all_ended.cancel();
        if let Some(Err(error)) = watch.join_next().await {
            error!(%error, "the task that watches over background jobs ended");
        }
        shared.leave().await;
    }
}

/// The task of a job.
async fn drive(shared: Arc<Shared>, slot: Arc<Slot>, stop: CancellationToken) {
    loop {
        if stop.is_cancelled() {
            return;
        }
        if let Some((cause, now_ms)) = shared.may_start(&slot).await {
            shared.run(&slot, cause, now_ms, &stop).await;
            continue;
        }
        let sleep = shared.sleep_of(&slot);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
            () = slot.wake.notified() => {}
            () = slot.job.woken() => slot.state().is_signalled = true,
        }
    }
}

impl Shared {
    fn epoch_of(&self, slot: &Slot) -> u64 {
        match slot.timing {
            Timing::Machine => 0,
            Timing::Books => self.epoch.load(Ordering::SeqCst),
        }
    }

    /// Whether this process may run a job.
    pub(super) fn is_ours(&self, slot: &Slot) -> bool {
        let now = Instant::now();
        slot.is_local || self.held().get(&slot.lease).is_some_and(|until| now < *until)
    }

    /// How long a task sleeps: until its job is due, where that is soon.
    fn sleep_of(&self, slot: &Slot) -> Duration {
        let clock = &self.settings.clock;
        if slot.timing == Timing::Books && clock.is_test() {
            return TICK;
        }
        let left_ms = match slot.state().timetable.next_ms() {
            Some(next_ms) => next_ms.saturating_sub(slot.now_ms(clock)),
            None => return TICK,
        };
        match u64::try_from(left_ms) {
            Ok(left_ms) if left_ms > 0 => TICK.min(Duration::from_millis(left_ms)),
            // It is due and waits for something.
            _ => TICK,
        }
    }

    /// Whether a job begins now, and why.
    pub(super) async fn may_start(&self, slot: &Slot) -> Option<(Cause, i64)> {
        let now_ms = slot.now_ms(&self.settings.clock);
        let epoch = self.epoch_of(slot);
        let cause = {
            let mut state = slot.state();
            state.timetable.follow(now_ms);
            let cause = state.due(now_ms, epoch);
            if cause.is_none() {
                if !state.stored.hold.is_empty() {
                    state.hold("");
                }
                state.is_held_back = false;
                state.waiting_since_ms = None;
            }
            let stands_still = slot.timing == Timing::Books && self.settings.clock.is_test();
            if cause.is_none() && stands_still && state.stored.failures_in_a_row == 0 {
                // Nothing becomes due while its clock stands still.
                self.settings.board.rest(slot.name);
            }
            cause
        };
        if !self.is_ours(slot) {
            if self.elsewhere().contains(&slot.lease) {
                // Another process does it, and says whether it is late.
                self.settings.board.rest(slot.name);
            }
            slot.state().is_held_back = true;
            return None;
        }
        let cause = cause?;
        match slot.job.hold(now_ms).await {
            Hold::No => slot.state().is_held_back = false,
            Hold::ByOrder(why) => {
                self.settings.board.rest(slot.name);
                slot.state().hold(&why);
                return None;
            }
            Hold::Unknown(why) => {
                debug!(job = slot.name, why, "it could not be found out whether a job may run");
                slot.state().hold(&why);
                return None;
            }
        }
        let since_ms = slot.state().wait_since(now_ms);
        if let Some(first) = self.goes_first(slot, since_ms, now_ms) {
            self.settings.board.wait(slot.name, first);
            return None;
        }
        // It goes by the instant for which the others went first: what became due meanwhile is for the next run.
        let has_order = slot.job.after().iter().any(|after| after.at_most.is_none());
        Some((cause, if has_order { since_ms } else { now_ms }))
    }

    /// The job that one waits for that has been due since an instant, if any.
    fn goes_first(&self, slot: &Slot, since_ms: i64, now_ms: i64) -> Option<&'static str> {
        let waited = Duration::from_millis(u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0));
        let after = slot.job.after().iter().find(|after| {
            let Some(first) = self.slots.iter().find(|other| other.name == after.job) else {
                return false;
            };
            match after.at_most {
                Some(at_most) => waited < at_most && self.is_busy(first),
                None => self.must_run_for(first, since_ms),
            }
        });
        after.map(|after| after.job)
    }

    /// Whether a job has yet to run for an instant; it is then made to.
    fn must_run_for(&self, slot: &Slot, since_ms: i64) -> bool {
        let mut state = slot.state();
        if state.is_held_back || state.ran_for_ms.is_some_and(|ran_for_ms| ran_for_ms >= since_ms) {
            return false;
        }
        if !state.is_running && !state.is_wanted {
            state.is_wanted = true;
            slot.wake.notify_one();
        }
        true
    }

    /// Whether a job runs, or is about to.
    fn is_busy(&self, slot: &Slot) -> bool {
        let now_ms = slot.now_ms(&self.settings.clock);
        let epoch = self.epoch_of(slot);
        let state = slot.state();
        state.is_running || (!state.is_held_back && state.due(now_ms, epoch).is_some())
    }

    /// Runs a job once.
    pub(super) async fn run(&self, slot: &Slot, cause: Cause, now_ms: i64, stop: &CancellationToken) -> Outcome {
        let epoch = self.epoch_of(slot);
        let context = slot.state().begin(cause, now_ms, epoch, stop.clone());
        self.settings.board.start(slot.name);
        let given_up = async {
            match slot.job.on_stop() {
                OnStop::GiveUp => stop.cancelled().await,
                OnStop::Finish => std::future::pending().await,
            }
        };
        let work = AssertUnwindSafe(slot.job.run(&context)).catch_unwind();
        let ended = tokio::select! {
            result = work => Some(result.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))),
            () = given_up => None,
            () = self.lost(slot) => {
                error!(job = slot.name, "a run was stopped: its lease could not be renewed");
                None
            }
        };
        self.end(slot, now_ms, ended).await
    }

    /// Resolves when a lease is lost while its job runs.
    async fn lost(&self, slot: &Slot) {
        while self.is_ours(slot) {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Notes how a run ended, and lets others begin.
    async fn end(&self, slot: &Slot, now_ms: i64, ended: Option<Result<RunReport, RunError>>) -> Outcome {
        let (outcome, text) = match ended {
            Some(Ok(RunReport::Nothing)) => (Outcome::Succeeded, String::new()),
            Some(Ok(RunReport::Summary(what))) => (Outcome::Succeeded, what),
            Some(Err(error)) => {
                let text = causes(error.as_ref());
                error!(job = slot.name, error = text, "a background job failed");
                (Outcome::Failed, text)
            }
            None => (Outcome::GivenUp, String::new()),
        };
        let text = cut(&text).to_owned();
        let ended_at_ms = clock::machine_now_ms();
        match outcome {
            Outcome::GivenUp => self.settings.board.give_up(slot.name),
            _ => self
                .settings
                .board
                .finish(slot.name, outcome == Outcome::Succeeded, ended_at_ms),
        }
        let is_noted = slot.state().end(slot.period, now_ms, ended_at_ms, outcome, text);
        // Who waited for it may begin.
        for other in &self.slots {
            other.wake.notify_one();
        }
        if is_noted && let Err(error) = self.write(slot).await {
            warn!(
                job = slot.name,
                error = causes(error.as_ref()),
                "a run could not be recorded: it is tried again"
            );
        }
        outcome
    }
}

fn panicked(panic: &(dyn Any + Send)) -> RunError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_default()).into()
}

#[cfg(test)]
mod tests;
