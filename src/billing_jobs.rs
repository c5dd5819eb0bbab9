//! What billing does in the background, in `serve` and `demo`: one task beside the collector's jobs.
//!
//! ```text
//! every second  a test clock was set?            → this process follows it
//! every 5 s     events                           → notifications, mail, customers' endpoints
//! every 15 s    payments without an answer    → the gateway is asked what became of them
//! every minute  trials, scheduled changes, ends  → made, as of their own time
//! every minute  unpaid invoices, low credit      → charged, overdue, suspended, recovered; topped up
//! every minute  the configuration changed?       → its terms of collection hold
//! every 10 m    what is due                      → invoices
//! every day     free plans that nobody uses       → ended
//! every 10 m    budgets                          → alerts, hard stops, resets
//! ```
//!
//! A clock that moved further than it can have stops all of it but events, which tell of that ([`billing::guard`]).
//!
//! With a test clock all of it is done whenever the clock was set. What fails is logged and tried again: billing that cannot
//! run now must not take the collector down with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use analytics::Analytics;
use billing::dunning;
use billing::guard::{self, ClockLimits, MeasureGuards};
use billing::payment::{self, GatewayCharger, Gateways};
use billing::usage::MeteredUsage;
use billing::{budget, invoice, lifecycle, top_up};
use jiff::Timestamp;
use schemas::clock::{self, Clock};
use schemas::db::Database;
use schemas::metering::MeteringConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::commands::serve::store_terms;
use crate::config::Config;
use crate::outbox::Outbox;

/// How often the task looks for work.
const TICK: Duration = Duration::from_secs(1);
/// How often events are told.
const EVENTS_INTERVAL_MS: i64 = 5_000;
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
/// After the start, before the first of each: what the collector journalled before is stored by then.
const START_DELAY_MS: i64 = 5_000;

/// Everything the task works on.
pub(crate) struct BillingJobs {
    pub(crate) database: Database,
    pub(crate) analytics: Analytics,
    pub(crate) metering: watch::Receiver<Arc<MeteringConfig>>,
    pub(crate) clock: Clock,
    pub(crate) gateways: Gateways,
    /// Charges what is due by itself.
    pub(crate) closes: bool,
    pub(crate) outbox: Outbox,
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

/// When each thing is next to be done, by the clock.
struct Due {
    events_ms: i64,
    reconcile_ms: i64,
    collect_ms: i64,
    budgets_ms: i64,
    lifecycle_ms: i64,
    idle_ms: i64,
    close_ms: i64,
}

impl Due {
    /// Nothing waits longer than its interval: after a clock went back it would wait until the clock is there again.
    fn not_after(&mut self, now_ms: i64) {
        for (at_ms, interval_ms) in [
            (&mut self.events_ms, EVENTS_INTERVAL_MS),
            (&mut self.reconcile_ms, RECONCILE_INTERVAL_MS),
            (&mut self.collect_ms, COLLECT_INTERVAL_MS),
            (&mut self.budgets_ms, BUDGETS_INTERVAL_MS),
            (&mut self.lifecycle_ms, LIFECYCLE_INTERVAL_MS),
            (&mut self.idle_ms, IDLE_INTERVAL_MS),
            (&mut self.close_ms, CLOSE_INTERVAL_MS),
        ] {
            *at_ms = (*at_ms).min(now_ms + interval_ms);
        }
    }
}

impl BillingJobs {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let first_ms = self.clock.now_ms() + if self.clock.is_test() { 0 } else { START_DELAY_MS };
        let mut due = Due {
            events_ms: first_ms,
            reconcile_ms: first_ms,
            collect_ms: first_ms,
            budgets_ms: first_ms,
            lifecycle_ms: first_ms,
            idle_ms: first_ms,
            close_ms: first_ms,
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let was_set = self.follow_clock().await;
            let now_ms = self.clock.now_ms();
            // What was set for a time that the clock has left is due now.
            due.not_after(now_ms);
            if self.is_stopped(now_ms).await {
                if now_ms >= due.events_ms {
                    due.events_ms = now_ms + EVENTS_INTERVAL_MS;
                    self.tell(now_ms).await;
                }
                continue;
            }
            if was_set || now_ms >= due.lifecycle_ms {
                due.lifecycle_ms = now_ms + LIFECYCLE_INTERVAL_MS;
                self.advance(now_ms).await;
            }
            // It reads the flows of ninety days for each plan that nobody signed in for.
            if was_set || now_ms >= due.idle_ms {
                due.idle_ms = now_ms + IDLE_INTERVAL_MS;
                self.end_idle_free_plans(now_ms).await;
            }
            if self.closes && (was_set || now_ms >= due.close_ms) {
                due.close_ms = now_ms + CLOSE_INTERVAL_MS;
                self.close(now_ms).await;
            }
            if was_set || now_ms >= due.collect_ms {
                due.collect_ms = now_ms + COLLECT_INTERVAL_MS;
                self.follow_terms(now_ms).await;
                self.collect(now_ms).await;
            }
            if was_set || now_ms >= due.budgets_ms {
                due.budgets_ms = now_ms + BUDGETS_INTERVAL_MS;
                self.look_at_budgets(now_ms).await;
            }
            if was_set || now_ms >= due.reconcile_ms {
                due.reconcile_ms = now_ms + RECONCILE_INTERVAL_MS;
                self.reconcile(now_ms).await;
            }
            // A clock that stands still has deliveries to make all the same.
            if self.clock.is_test() || now_ms >= due.events_ms {
                due.events_ms = now_ms + EVENTS_INTERVAL_MS;
                self.tell(now_ms).await;
            }
        }
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
    async fn is_stopped(&self, now_ms: i64) -> bool {
        match guard::look(&self.database, self.clock_limits, now_ms).await {
            Ok(None) => false,
            Ok(Some(stopped)) => {
                tracing::debug!(%stopped, "nothing is billed");
                true
            }
            Err(error) => {
                error!(
                    error = causes(error),
                    "the clock could not be looked at: nothing is billed"
                );
                true
            }
        }
    }

    async fn advance(&self, now_ms: i64) {
        match lifecycle::advance(&self.database, now_ms).await {
            Ok(done) => {
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
            }
            Err(error) => error!(error = causes(error), "subscriptions could not be brought up to date"),
        }
    }

    async fn end_idle_free_plans(&self, now_ms: i64) {
        if let Err(error) = lifecycle::end_idle_free_plans(&self.database, &self.usage(), now_ms).await {
            error!(error = causes(error), "idle free plans could not be ended");
        }
    }

    async fn close(&self, now_ms: i64) {
        match invoice::close_all(&self.database, &self.usage(), now_ms).await {
            Ok(closing) => {
                if !closing.invoices.is_empty() {
                    info!(invoices = closing.invoices.len(), "what was due is charged");
                }
                for (customer, error) in closing.failed {
                    error!(%customer, error = causes(error), "what was due could not be charged");
                }
            }
            Err(error) => error!(error = causes(error), "what was due could not be charged"),
        }
    }

    async fn reconcile(&self, now_ms: i64) {
        if let Err(error) = payment::reconcile(&self.database, &self.gateways, now_ms).await {
            error!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "payments could not be reconciled"
            );
        }
    }

    /// Takes over the terms of collection of a configuration that has changed.
    async fn follow_terms(&mut self, now_ms: i64) {
        let taken = match self.terms.changed() {
            None => return,
            Some(Ok(config)) => store_terms(&config, &self.database, now_ms).await,
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
    async fn collect(&self, now_ms: i64) {
        let charger = GatewayCharger {
            database: &self.database,
            gateways: &self.gateways,
        };
        match dunning::run(&self.database, &charger, now_ms).await {
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
            }
            Err(error) => error!(error = causes(error), "unpaid invoices could not be collected"),
        }
        match top_up::check_all(&self.database, &charger, now_ms).await {
            Ok(checked) => {
                for (customer, error) in checked.failed {
                    error!(%customer, error = causes(error), "credit could not be topped up");
                }
            }
            Err(error) => error!(error = causes(error), "credit could not be topped up"),
        }
    }

    async fn look_at_budgets(&self, now_ms: i64) {
        match budget::check_all(&self.database, &self.usage(), now_ms).await {
            Ok(looked) => {
                for (customer, error) in looked.failed {
                    error!(%customer, error = causes(error), "a budget could not be looked at");
                }
            }
            Err(error) => error!(error = causes(error), "budgets could not be looked at"),
        }
    }

    async fn tell(&self, now_ms: i64) {
        if let Err(error) = self.outbox.run_once(&self.database, now_ms).await {
            error!(error = format!("{error:#}"), "events could not be told");
        }
    }

    fn usage(&self) -> MeteredUsage {
        MeteredUsage::new(self.analytics.clone(), &self.metering.borrow()).guarded(self.guards)
    }
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
