//! What runs in the background beside the collector: assignments reloaded, usage made current, ended periods closed.
//!
//! ```text
//! every 5 s   assignments and configuration changed?  → the collector attributes new flows by them
//!             backdated changes?                      → stored flows attributed anew, windows marked dirty
//!             new flow files?                         → dirty windows of usage_5m recomputed
//! every 10 m  periods that ended (serve only)         → invoices
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use analytics::Analytics;
use anyhow::Context as _;
use billing::usage::MeteredUsage;
use collector::Collector;
use jiff::Timestamp;
use schemas::assignment::{Assignment, Assignments};
use schemas::db::Database;
use schemas::inventory;
use schemas::metering::{Enricher, MeteringConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;

/// How often the jobs look for work.
const TICK: Duration = Duration::from_secs(5);
/// How often ended periods are looked for.
const BILLING_INTERVAL: Duration = Duration::from_secs(600);

/// Everything the jobs work on.
pub(crate) struct Jobs {
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) config: Config,
    pub(crate) database: Database,
    pub(crate) analytics: Analytics,
    pub(crate) collector: Arc<Collector>,
    /// Shared with the portal, which shows the configuration in force.
    pub(crate) metering: watch::Sender<Arc<MeteringConfig>>,
    pub(crate) close_periods: bool,
}

impl Jobs {
    /// Runs until cancelled. An error is logged and tried again at the next tick: a job that cannot run now must not take
    /// the collector down with it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP is not watched, the configuration file is"))
            .ok();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut assignments = None;
        let mut config_modified = self.config_modified();
        let mut billing_due = tokio::time::Instant::now() + TICK;
        loop {
            let mut reload = false;
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = hung_up(&mut hangup) => reload = true,
            }
            let modified = self.config_modified();
            if reload || modified != config_modified {
                config_modified = modified;
                self.reload_config();
                assignments = None;
            }
            if let Err(error) = self.follow_assignments(&mut assignments).await {
                error!(error = format!("{error:#}"), "assignments could not be applied");
            }
            if let Err(error) = self.analytics.refresh_usage(|_| {}).await {
                error!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "usage could not be refreshed"
                );
            }
            if self.close_periods && tokio::time::Instant::now() >= billing_due {
                billing_due = tokio::time::Instant::now() + BILLING_INTERVAL;
                if let Err(error) = self.close_ended_periods().await {
                    error!(error = format!("{error:#}"), "ended periods could not be closed");
                }
            }
        }
    }

    fn config_modified(&self) -> Option<Timestamp> {
        let modified = std::fs::metadata(self.config_path.as_ref()?)
            .and_then(|metadata| metadata.modified())
            .ok()?;
        Timestamp::try_from(modified).ok()
    }

    /// Takes the metering part of a changed file; a file with mistakes changes nothing.
    fn reload_config(&mut self) {
        let Some(path) = &self.config_path else { return };
        match Config::read(path) {
            Ok(config) => {
                self.config.own_networks = config.own_networks;
                self.config.exporters = config.exporters;
                self.metering.send_replace(Arc::new(self.config.metering()));
                info!(path = %path.display(), exporters = self.config.exporters.len(), "configuration reloaded");
            }
            Err(error) => error!(error = format!("{error:#}"), "the changed configuration is not used"),
        }
    }

    /// Hands changed assignments to the collector and applies backdated ones to stored flows. `known` is the revision the
    /// collector has.
    async fn follow_assignments(&self, known: &mut Option<i64>) -> anyhow::Result<()> {
        // Read before the rows: a change between the two is seen again at the next tick, never missed.
        let revision = inventory::assignments_revision(self.database.pool())
            .await
            .context("read the revision of assignments")?;
        if *known == Some(revision) {
            return Ok(());
        }
        let rows = inventory::load_assignments(self.database.pool())
            .await
            .context("read assignments")?;
        let metering = self.config.metering();
        let snapshot = Arc::new(Assignments::new(rows.iter().copied())?);
        self.collector.set_metering(metering.clone(), snapshot);
        apply_backdated(&self.database, &self.analytics, &metering, &rows).await?;
        *known = Some(revision);
        Ok(())
    }

    async fn close_ended_periods(&self) -> anyhow::Result<()> {
        let usage = MeteredUsage::new(self.analytics.clone(), &self.config.metering());
        let closing = billing::invoice::close_all(&self.database, &usage, Timestamp::now().as_millisecond()).await?;
        if !closing.invoices.is_empty() {
            info!(invoices = closing.invoices.len(), "ended periods closed");
        }
        for (customer, error) in closing.failed {
            error!(%customer, error = format!("{:#}", anyhow::Error::from(error)), "a period could not be closed");
        }
        Ok(())
    }
}

/// Attributes stored flows anew for every assignment that was changed in the past.
pub(crate) async fn apply_backdated(
    database: &Database,
    analytics: &Analytics,
    metering: &MeteringConfig,
    assignments: &[Assignment],
) -> anyhow::Result<()> {
    let pending = inventory::pending_attribution_changes(database.pool()).await?;
    if pending.is_empty() {
        return Ok(());
    }
    let enricher = Enricher::new(metering, Arc::new(Assignments::new(assignments.iter().copied())?));
    for change in pending {
        let to_ms = change.to_ms.unwrap_or(i64::MAX);
        let summary = analytics.reattribute(&enricher, change.from_ms, to_ms).await?;
        inventory::mark_attribution_change_applied(database.pool(), change.id, Timestamp::now().as_millisecond())
            .await?;
        info!(
            from_ms = change.from_ms,
            files = summary.files_rewritten,
            "stored flows attributed anew"
        );
    }
    Ok(())
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
