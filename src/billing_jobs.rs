//! What billing does in the background, in `serve` and `demo`: one task beside the collector's jobs.
//!
//! ```text
//! every second  a test clock was set?            → this process follows it
//! every 15 s    payments without an answer    → the gateway is asked what became of them
//! every minute  trials, scheduled changes, ends  → made, as of their own time
//! every minute  unpaid invoices, low credit      → charged, overdue, suspended, recovered; topped up
//! every minute  the configuration changed?       → its terms of collection hold
//! every 10 m    what is due                      → invoices
//! every day     free plans that nobody uses       → ended
//! every 10 m    budgets                          → alerts, hard stops, resets
//! every hour    records that are over            → removed ([`billing::prune`])
//! ```
//!
//! What fails is tried again after its interval, or after half a minute where that is shorter.
//!
//! A clock that moved further than it can have stops all of it; events go on and tell of that ([`crate::outbox_jobs`],
//! [`billing::guard`]).
//!
//! With a test clock all of it is done whenever the clock was set. What fails is logged and tried again: billing that cannot
//! run now must not take the collector down with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use analytics::Analytics;
use analytics::MeteredUsage;
use billing::dunning;
use billing::guard::{self, ClockLimits};
use billing::payment::{self, GatewayCharger, Gateways};
use billing::{budget, invoice, lifecycle, prune, top_up};
use jiff::Timestamp;
use schemas::clock::{self, Clock};
use schemas::db::Database;
use schemas::job::{JobBoard, RETRY_INTERVAL};
use schemas::metering::MeteringConfig;
use schemas::retention::RecordRetention;
use schemas::usage::MeasureGuards;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::commands::serve::store_terms;
use crate::config::Config;

/// How often the task looks for work.
const TICK: Duration = Duration::from_secs(1);
/// How often payments without an answer are looked at.
const RECONCILE_INTERVAL_MS: i64 = 15_000;
/// How often unpaid invoices and low credit are looked at.
const COLLECT_INTERVAL_MS: i64 = 60_000;
/// How often budgets are looked at.
const BUDGETS_INTERVAL_MS: i64 = 600_000;
/// How often the calendar is looked at.
const LIFECYCLE_INTERVAL_MS: i64 = 60_000;
/// How often free plans that nobody uses are looked for.
const IDLE_INTERVAL_MS: i64 = 86_400_000;
/// How often what is due is charged.
const CLOSE_INTERVAL_MS: i64 = 600_000;
/// How often records that are over are removed.
const PRUNE_INTERVAL_MS: i64 = 3_600_000;
/// After the start, before the first of each: what the collector journalled before is stored by then.
const START_DELAY_MS: i64 = 5_000;

/// The task, as the board names it.
const TASK: &str = "billing";

/// Everything the task works on.
pub(crate) struct BillingJobs {
    pub(crate) board: JobBoard,
    /// How long records are kept, and how many were removed since the start.
    pub(crate) keep: RecordRetention,
    pub(crate) pruned: PrunedTotals,
    pub(crate) database: Database,
    pub(crate) analytics: Analytics,
    pub(crate) metering: watch::Receiver<Arc<MeteringConfig>>,
    pub(crate) clock: Clock,
    pub(crate) gateways: Gateways,
    /// Charges what is due by itself.
    pub(crate) closes: bool,
    pub(crate) clock_limits: ClockLimits,
    pub(crate) guards: MeasureGuards,
    pub(crate) terms: TermsFile,
}

/// The configuration file, whose terms of collection hold from when it is seen to have changed. One that changed since the
/// last look may be half written, and half a file can be a valid one.
#[derive(Debug)]
pub(crate) struct TermsFile {
    path: Option<PathBuf>,
    taken: Option<Timestamp>,
    seen: Option<Timestamp>,
}

impl TermsFile {
    /// What it says now is in force.
    pub(crate) fn new(path: Option<PathBuf>) -> TermsFile {
        let mut file = TermsFile {
            path,
            taken: None,
            seen: None,
        };
        file.taken = file.modified();
        file.seen = file.taken;
        file
    }

    fn modified(&self) -> Option<Timestamp> {
        let modified = std::fs::metadata(self.path.as_ref()?)
            .and_then(|metadata| metadata.modified())
            .ok()?;
        Timestamp::try_from(modified).ok()
    }

    /// The configuration, when it has changed and is as it was at the last look.
    fn changed(&mut self) -> Option<anyhow::Result<Config>> {
        let modified = self.modified();
        let is_settled = std::mem::replace(&mut self.seen, modified) == modified;
        if modified == self.taken || !is_settled {
            return None;
        }
        self.taken = modified;
        self.path.as_ref().map(|path| Config::read(path))
    }
}

/// Records that were removed since the process started, by kind. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrunedTotals(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl PrunedTotals {
    fn add(&self, rows: &[(&'static str, u64)]) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in rows {
            *totals.entry(kind).or_default() += count;
        }
    }

    /// In the Prometheus text format.
    pub(crate) fn metrics(&self) -> String {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "ezscale_records_pruned_total";
        let mut text = format!("# HELP {name} old records removed from the database\n# TYPE {name} counter\n");
        for kind in prune::KINDS {
            let count = totals.get(kind).copied().unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{records=\"{kind}\"}} {count}");
        }
        text
    }
}

/// What the task does, in the order it does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    Lifecycle,
    Idle,
    Close,
    Collect,
    Budgets,
    Reconcile,
    Prune,
}

impl Job {
    const ALL: [Job; 7] = [
        Job::Lifecycle,
        Job::Idle,
        Job::Close,
        Job::Collect,
        Job::Budgets,
        Job::Reconcile,
        Job::Prune,
    ];

    /// As the board and metrics name it.
    fn name(self) -> &'static str {
        match self {
            Job::Lifecycle => "lifecycle",
            Job::Idle => "idle_plans",
            Job::Close => "close",
            Job::Collect => "collect",
            Job::Budgets => "budgets",
            Job::Reconcile => "reconcile",
            Job::Prune => "prune",
        }
    }

    fn interval_ms(self) -> i64 {
        match self {
            Job::Lifecycle => LIFECYCLE_INTERVAL_MS,
            Job::Idle => IDLE_INTERVAL_MS,
            Job::Close => CLOSE_INTERVAL_MS,
            Job::Collect => COLLECT_INTERVAL_MS,
            Job::Budgets => BUDGETS_INTERVAL_MS,
            Job::Reconcile => RECONCILE_INTERVAL_MS,
            Job::Prune => PRUNE_INTERVAL_MS,
        }
    }
}

/// What is thought of the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClockState {
    Believed,
    /// An admin decides.
    Stopped,
    /// It could not be looked at: nothing is billed, and that is nobody's order.
    Unknown,
}

/// When each thing is next to be done, by the clock.
struct Due([Next; Job::ALL.len()]);

struct Next {
    job: Job,
    at_ms: i64,
    has_failed: bool,
}

impl Due {
    fn all_at(first_ms: i64) -> Due {
        Due(Job::ALL.map(|job| Next {
            job,
            at_ms: first_ms,
            has_failed: false,
        }))
    }

    /// Nothing waits longer than its interval: after a clock went back it would wait until the clock is there again.
    fn not_after(&mut self, now_ms: i64) {
        for next in &mut self.0 {
            next.at_ms = next.at_ms.min(now_ms + next.job.interval_ms());
        }
    }
}

impl Next {
    /// Whether it is due; then it is due again after its interval.
    fn take(&mut self, is_forced: bool, now_ms: i64) -> bool {
        if !is_forced && now_ms < self.at_ms {
            return false;
        }
        self.at_ms = now_ms + self.job.interval_ms();
        true
    }

    /// What failed is due again soon.
    fn note(&mut self, succeeded: bool, now_ms: i64) {
        self.has_failed = !succeeded;
        if self.has_failed {
            let soon_ms = now_ms + i64::try_from(RETRY_INTERVAL.as_millis()).unwrap_or(i64::MAX);
            self.at_ms = self.at_ms.min(soon_ms);
        }
    }
}

impl BillingJobs {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let first_ms = self.clock.now_ms() + if self.clock.is_test() { 0 } else { START_DELAY_MS };
        let mut due = Due::all_at(first_ms);
        for job in Job::ALL {
            if job != Job::Close || self.closes {
                let period = Duration::from_millis(job.interval_ms().unsigned_abs());
                self.board.add(TASK, job.name(), period);
            }
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let was_set = self.follow_clock().await;
            let now_ms = self.clock.now_ms();
            // What was set for a time that the clock has left is due now.
            due.not_after(now_ms);
            let clock_state = self.clock_state(now_ms).await;
            for next in &mut due.0 {
                let job = next.job;
                if clock_state != ClockState::Believed {
                    if clock_state == ClockState::Stopped {
                        self.board.rest(job.name());
                    }
                    continue;
                }
                if next.take(was_set, now_ms) {
                    let succeeded = self.run_one(job, now_ms).await;
                    next.note(succeeded, now_ms);
                } else if self.clock.is_test() && !next.has_failed {
                    // Nothing becomes due while it stands still.
                    self.board.rest(job.name());
                }
            }
        }
    }

    /// Does one thing, and says on the board how it went.
    async fn run_one(&mut self, job: Job, now_ms: i64) -> bool {
        if job == Job::Close && !self.closes {
            return true;
        }
        if job == Job::Collect {
            self.follow_terms(now_ms).await;
        }
        let board = self.board.clone();
        let work = async {
            match job {
                Job::Lifecycle => self.advance(now_ms).await,
                // It reads the flows of ninety days for each plan that nobody signed in for.
                Job::Idle => self.end_idle_free_plans(now_ms).await,
                Job::Close => self.close(now_ms).await,
                Job::Collect => self.collect(now_ms).await,
                Job::Budgets => self.look_at_budgets(now_ms).await,
                Job::Reconcile => self.reconcile(now_ms).await,
                Job::Prune => self.prune(now_ms).await,
            }
        };
        board.run(job.name(), work).await
    }

    /// Takes over what a test clock was set to; true when it moved.
    async fn follow_clock(&self) -> bool {
        if !self.clock.is_test() {
            return false;
        }
        let before = self.clock.now();
        match clock::stored(self.database.pool()).await {
            // Behind is another process's old reading: the next look sees the same or later.
            Ok(Some(at)) if at > before => self.clock.set(at).is_ok(),
            Ok(_) => false,
            Err(error) => {
                warn!(%error, "the test clock cannot be read");
                false
            }
        }
    }

    /// Whether billing is stopped. A clock that cannot be looked at is not believed either.
    async fn clock_state(&self, now_ms: i64) -> ClockState {
        match guard::look(&self.database, self.clock_limits, now_ms).await {
            Ok(None) => ClockState::Believed,
            Ok(Some(stopped)) => {
                tracing::debug!(%stopped, "nothing is billed");
                ClockState::Stopped
            }
            Err(error) => {
                error!(
                    error = causes(error),
                    "the clock could not be looked at: nothing is billed"
                );
                ClockState::Unknown
            }
        }
    }

    async fn advance(&self, now_ms: i64) -> bool {
        let done = match lifecycle::advance(&self.database, now_ms).await {
            Ok(done) => done,
            Err(error) => return failed(error, "subscriptions could not be brought up to date"),
        };
        for (subscription, error) in done.failed {
            error!(%subscription, error = causes(error), "a subscription could not be brought up to date");
        }
        if done.changes_executed + done.changes_failed + done.subscriptions_ended + done.trials_ended > 0 {
            info!(
                trials_ended = done.trials_ended,
                changes_executed = done.changes_executed,
                changes_failed = done.changes_failed,
                subscriptions_ended = done.subscriptions_ended,
                "subscriptions brought up to date"
            );
        }
        true
    }

    async fn end_idle_free_plans(&self, now_ms: i64) -> bool {
        match lifecycle::end_idle_free_plans(&self.database, &self.usage(), now_ms).await {
            Ok(_) => true,
            Err(error) => failed(error, "idle free plans could not be ended"),
        }
    }

    async fn close(&self, now_ms: i64) -> bool {
        let closing = match invoice::close_all(&self.database, &self.usage(), now_ms).await {
            Ok(closing) => closing,
            Err(error) => return failed(error, "what was due could not be charged"),
        };
        if !closing.invoices.is_empty() {
            info!(invoices = closing.invoices.len(), "what was due is charged");
        }
        for (customer, error) in closing.failed {
            error!(%customer, error = causes(error), "what was due could not be charged");
        }
        true
    }

    async fn reconcile(&self, now_ms: i64) -> bool {
        match payment::reconcile(&self.database, &self.gateways, now_ms).await {
            Ok(_) => true,
            Err(error) => failed(error, "payments could not be reconciled"),
        }
    }

    /// Takes over the terms of collection, and how long records are kept, of a configuration that has changed.
    async fn follow_terms(&mut self, now_ms: i64) {
        let taken = match self.terms.changed() {
            None => return,
            Some(Ok(config)) => {
                self.keep = config.retention.records;
                store_terms(&config, &self.database, now_ms).await
            }
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = taken {
            error!(
                error = format!("{error:#}"),
                "the terms of collection of the changed configuration are not used"
            );
        }
    }

    /// Collects what is owed, and tops credit up.
    async fn collect(&self, now_ms: i64) -> bool {
        let charger = GatewayCharger {
            database: &self.database,
            gateways: &self.gateways,
        };
        let is_collected = match dunning::run(&self.database, &charger, now_ms).await {
            Ok(collected) => {
                for (invoice, error) in collected.failed {
                    error!(%invoice, error = causes(error), "an invoice could not be collected");
                }
                for (customer, error) in collected.claims_failed {
                    error!(%customer, error = causes(error), "negative credit could not be collected");
                }
                for (subscription, error) in collected.stuck {
                    error!(%subscription, error = causes(error), "a subscription does not follow its invoices");
                }
                true
            }
            Err(error) => failed(error, "unpaid invoices could not be collected"),
        };
        let is_topped_up = match top_up::check_all(&self.database, &charger, now_ms).await {
            Ok(checked) => {
                for (customer, error) in checked.failed {
                    error!(%customer, error = causes(error), "credit could not be topped up");
                }
                true
            }
            Err(error) => failed(error, "credit could not be topped up"),
        };
        is_collected && is_topped_up
    }

    async fn look_at_budgets(&self, now_ms: i64) -> bool {
        match budget::check_all(&self.database, &self.usage(), now_ms).await {
            Ok(looked) => {
                for (customer, error) in looked.failed {
                    error!(%customer, error = causes(error), "a budget could not be looked at");
                }
                true
            }
            Err(error) => failed(error, "budgets could not be looked at"),
        }
    }

    async fn prune(&self, now_ms: i64) -> bool {
        match prune::prune(&self.database, &self.keep, now_ms).await {
            Ok(pruned) => {
                self.pruned.add(&pruned.rows);
                true
            }
            Err(error) => failed(error, "old records could not be removed"),
        }
    }

    fn usage(&self) -> MeteredUsage {
        MeteredUsage::new(self.analytics.clone(), &self.metering.borrow()).guarded(self.guards)
    }
}

/// Logs what failed; it did not succeed.
fn failed(error: impl Into<anyhow::Error>, what: &'static str) -> bool {
    error!(error = causes(error), "{what}");
    false
}

fn causes(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_a_changed_configuration_are_taken_once_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ezscale.toml");
        let write = |text: &str, second: i64| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(Timestamp::from_second(second).unwrap().into())
                .unwrap();
        };
        write("[collection]\nsuspend_day = 20\n", 1);
        let mut file = TermsFile::new(Some(path.clone()));
        // What it said at the start is in force.
        assert!(file.changed().is_none());
        write("[collection]\nsuspend_day = 30\n", 2);
        assert!(file.changed().is_none());
        let config = file.changed().unwrap().unwrap();
        assert_eq!(config.collection.suspend_day, 30);
        assert!(file.changed().is_none());
        // One with mistakes is told once and changes nothing.
        write("[collection]\nsuspend_day = 3\n", 3);
        assert!(file.changed().is_none());
        let error = format!("{:#}", file.changed().unwrap().unwrap_err());
        assert!(error.contains("nothing is charged by itself on day 7"), "{error}");
        assert!(file.changed().is_none());
        assert!(TermsFile::new(None).changed().is_none());
    }
}
