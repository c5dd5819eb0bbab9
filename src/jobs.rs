//! What runs in the background beside the collector: assignments reloaded, usage made current, limits of tables kept.
//!
//! ```text
//! every 5 s   assignments and configuration changed?  → the collector attributes new flows by them
//!             backdated changes or corrections?       → stored flows judged anew, windows marked dirty
//!             new flow files?                         → dirty windows of usage_5m recomputed
//! every hour  an hour closed?                        → flows compared with interface counters (truth_1h)
//! every 10 m  tables beyond their limits             → files removed; files that nobody names removed
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use analytics::Analytics;
use analytics::rewrite::{RewriteProgress, RewriteSummary};
use analytics::truth::{self, TruthSettings};
use collector::Collector;
use collector::decode::netflow::ToldInterface;
use jiff::Timestamp;
use schemas::db::Database;
use schemas::interfaces::KnownInterfaces;
use schemas::inventory::{self, CorrectionRow};
use schemas::job::{JobBoard, RETRY_INTERVAL};
use schemas::metering::{ExporterConfig, MeteringConfig};
use schemas::window::{DAY_MS, HOUR_MS};
use tables::metering::Enricher;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::options::{load_assignments, load_metering, now_ms};
use crate::storage::{self, Removed};

/// How often the jobs look for work.
const TICK: Duration = Duration::from_secs(5);
/// How often limits of the tables are applied.
const HOUSE_INTERVAL: Duration = Duration::from_secs(600);

/// How far back flows are judged again when the interfaces they crossed get their first names.
const UNNAMED_LOOKBACK_MS: i64 = 7 * DAY_MS;

/// The task of these jobs, and their names on the board. The truth check runs beside the others.
const TASK: &str = "collector";
const TRUTH_TASK: &str = "truth";
const ASSIGNMENTS: &str = "assignments";
const USAGE: &str = "usage";
const HOUSE: &str = "house";
const TRUTH: &str = "truth";

/// Everything the jobs work on.
pub(crate) struct Jobs {
    pub(crate) board: JobBoard,
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) config: Config,
    /// The file as it was at the start, without what the command line says.
    pub(crate) started_with: Option<Config>,
    pub(crate) database: Database,
    pub(crate) analytics: Analytics,
    pub(crate) collector: Arc<Collector>,
    /// The revision of the assignments that the collector started with.
    pub(crate) assignments_revision: i64,
    /// Shared with the portal, which shows the configuration in force.
    pub(crate) metering: watch::Sender<Arc<MeteringConfig>>,
    /// SIGHUP, where it can be watched.
    pub(crate) hangup: Option<tokio::signal::unix::Signal>,
    /// Shared with the metrics.
    pub(crate) removed: Removed,
    /// What the exporters say of their interfaces.
    pub(crate) interfaces: watch::Receiver<Arc<KnownInterfaces>>,
    /// To whoever keeps that: what comes in options data.
    pub(crate) told: mpsc::Sender<Vec<ToldInterface>>,
}

impl Jobs {
    /// Runs until cancelled. An error is logged and tried again at the next tick: a job that cannot run now must not take
    /// the collector down with it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut assignments = Some(self.assignments_revision);
        let mut config_modified = self.config_modified();
        let mut house_due = tokio::time::Instant::now() + HOUSE_INTERVAL;
        let mut config_seen = config_modified;
        let mut truth = TruthJob::default();
        self.board.add(TASK, ASSIGNMENTS, TICK);
        self.board.add(TASK, USAGE, TICK);
        self.board.add(TASK, HOUSE, HOUSE_INTERVAL);
        self.board
            .add(TRUTH_TASK, TRUTH, Duration::from_millis(HOUR_MS.unsigned_abs()));
        let board = self.board.clone();
        loop {
            let mut reload = false;
            tokio::select! {
                () = stop.cancelled() => return truth.stop(),
                _ = ticks.tick() => {}
                () = hung_up(&mut self.hangup) => reload = true,
            }
            // A file that changed since the last look may be half written, and half a file can be a valid one.
            let modified = self.config_modified();
            let is_settled = std::mem::replace(&mut config_seen, modified) == modified;
            if reload || (is_settled && modified != config_modified) {
                config_modified = modified;
                self.reload_config();
                assignments = None;
            }
            let told = self.collector.take_interfaces();
            if !told.is_empty() && self.told.try_send(told).is_err() {
                warn!("names of interfaces in options data are not kept now: exporters will repeat them");
            }
            if self.interfaces.has_changed().unwrap_or(false)
                && let Err(error) = self.follow_interfaces(&mut assignments).await
            {
                error!(
                    error = format!("{error:#}"),
                    "stored flows could not be judged by the names of their interfaces"
                );
            }
            let followed = async {
                let followed = self.follow_assignments(&mut assignments).await;
                succeeded(followed, "assignments could not be applied")
            };
            board.run(ASSIGNMENTS, followed).await;
            board.run(USAGE, self.refresh_usage()).await;
            if tokio::time::Instant::now() >= house_due {
                let kept = async { succeeded(self.keep_house().await, "limits of the tables could not be applied") };
                let wait = match board.run(HOUSE, kept).await {
                    true => HOUSE_INTERVAL,
                    false => RETRY_INTERVAL,
                };
                house_due = tokio::time::Instant::now() + wait;
            }
            let now_ms = schemas::clock::machine_now_ms();
            truth.follow(&self.board, &self.analytics, self.config.truth(), now_ms);
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
                self.say_what_needs_a_restart(&config);
                self.config.own_networks = config.own_networks;
                self.config.metering = config.metering;
                self.config.exporters = config.exporters;
                self.config.retention = config.retention;
                self.config.billing.correction_reach_days = config.billing.correction_reach_days;
                self.config.collector.allowed_exporters = config.collector.allowed_exporters;
                self.config.collector.default_sampling_rate = config.collector.default_sampling_rate;
                self.config.collector.v5_sampling_mode_bits = config.collector.v5_sampling_mode_bits;
                self.metering.send_replace(Arc::new(self.config.metering()));
                info!(path = %path.display(), exporters = self.config.exporters.len(), "configuration reloaded");
            }
            Err(error) => error!(error = format!("{error:#}"), "the changed configuration is not used"),
        }
    }

    /// A changed setting that a running process cannot take over is named: otherwise it looks as if it were in force.
    fn say_what_needs_a_restart(&self, new: &Config) {
        let Some(started_with) = &self.started_with else { return };
        for change in started_with.changes_that_need_a_restart(new) {
            warn!("{change}");
        }
    }

    /// Takes over what the exporters now say of their interfaces. Flows that came before an exporter's interfaces had names were
    /// on neither side of its boundary and not metered: where the boundary is told by name they are judged again.
    async fn follow_interfaces(&mut self, assignments: &mut Option<i64>) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.config.interfaces, self.interfaces.borrow_and_update().clone());
        let metering = load_metering(&self.config, &self.database).await?;
        self.metering.send_replace(Arc::new(metering.clone()));
        *assignments = None;
        let became_known = metering.interfaces.iter().any(|(exporter, port, interfaces)| {
            let by_name = metering
                .exporter(exporter, port)
                .is_some_and(ExporterConfig::judges_by_name);
            let old = before.of(exporter, port);
            by_name
                && interfaces
                    .keys()
                    .any(|if_index| !old.is_some_and(|old| old.contains_key(if_index)))
        });
        if became_known {
            let now_ms = schemas::clock::machine_now_ms();
            let enricher = Arc::new(Enricher::new(&metering, load_assignments(&self.database).await?));
            let summary = self
                .analytics
                .reattribute(&enricher, now_ms - UNNAMED_LOOKBACK_MS, i64::MAX)
                .await?;
            info!(
                flows = summary.flows_changed,
                "interfaces have names now: flows that waited for them were judged again"
            );
        }
        Ok(())
    }

    /// Hands changed assignments to the collector and applies backdated ones to stored flows.
    async fn follow_assignments(&self, known: &mut Option<i64>) -> anyhow::Result<()> {
        // Asked before the rows: what changes between the two is read again at the next tick.
        let revision = inventory::assignments_revision(self.database.pool()).await?;
        let metering = load_metering(&self.config, &self.database).await?;
        if *known != Some(revision) {
            let assignments = load_assignments(&self.database).await?;
            self.collector.set_metering(metering.clone(), assignments);
            *known = Some(revision);
        }
        apply_backdated(&self.database, &self.analytics, &metering).await
    }

    async fn refresh_usage(&self) -> bool {
        match self.analytics.refresh_usage(|_| {}).await {
            Ok(refresh) => {
                if refresh.windows_frozen > 0 {
                    warn!(
                        windows = refresh.windows_frozen,
                        "flows arrived for windows whose other flows retention has removed: stored, but not counted as usage"
                    );
                }
                true
            }
            Err(error) => succeeded(Err(error.into()), "usage could not be refreshed"),
        }
    }

    async fn keep_house(&self) -> anyhow::Result<()> {
        let (analytics, removed) = (self.analytics.clone(), self.removed.clone());
        let retention = self.config.retention.clone();
        tokio::task::spawn_blocking(move || storage::keep_house(&analytics, &retention, &removed)).await?
    }
}

/// Whether something succeeded; what did not is logged.
fn succeeded(result: anyhow::Result<()>, failure: &'static str) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            error!(error = format!("{error:#}"), "{failure}");
            false
        }
    }
}

/// Brings stored flows up to what was said about the past: corrections of exporters that were not finished, and every
/// assignment that was changed in the past. `metering` holds all corrections.
pub(crate) async fn apply_backdated(
    database: &Database,
    analytics: &Analytics,
    metering: &MeteringConfig,
) -> anyhow::Result<()> {
    for row in inventory::pending_corrections(database.pool()).await? {
        let summary = apply_correction(database, analytics, metering, &row, |_| {}).await?;
        info!(
            correction = %row.id,
            exporter = %row.correction.exporter,
            files = summary.files_rewritten,
            flows = summary.flows_changed,
            "stored flows corrected"
        );
    }
    let pending = inventory::pending_attribution_changes(database.pool()).await?;
    if pending.is_empty() {
        return Ok(());
    }
    // Asked before the rows.
    let revision = inventory::assignments_revision(database.pool()).await?;
    let enricher = Arc::new(Enricher::new(metering, load_assignments(database).await?));
    for change in pending {
        let to_ms = change.to_ms.unwrap_or(i64::MAX);
        let summary = analytics.reattribute(&enricher, change.from_ms, to_ms).await?;
        // Another process may have applied what was said meanwhile, and this one has now written over it by what held before:
        // the change stays pending, and the next look applies it by everything that was said.
        if !is_all_that_was_said(database, revision, metering).await? {
            info!("assignments were changed while stored flows were attributed anew: they are attributed once more");
            return Ok(());
        }
        let now_ms = now_ms(database).await?;
        inventory::mark_attribution_change_applied(database.pool(), change.id, now_ms).await?;
        info!(
            from_ms = change.from_ms,
            files = summary.files_rewritten,
            "stored flows attributed anew"
        );
    }
    Ok(())
}

/// Whether assignments and corrections are what they were when the flows were judged by them.
async fn is_all_that_was_said(database: &Database, revision: i64, metering: &MeteringConfig) -> anyhow::Result<bool> {
    let corrections = inventory::corrections(database.pool()).await?;
    let found = inventory::assignments_revision(database.pool()).await?;
    Ok(found == revision && corrections.len() == metering.corrections.len())
}

/// Writes a correction into the stored flows and notes that they show it.
pub(crate) async fn apply_correction(
    database: &Database,
    analytics: &Analytics,
    metering: &MeteringConfig,
    row: &CorrectionRow,
    progress: impl Fn(RewriteProgress) + Send + Sync,
) -> anyhow::Result<RewriteSummary> {
    let enricher = Arc::new(Enricher::new(metering, load_assignments(database).await?));
    let effect = analytics.apply_correction(&row.correction, &enricher, progress).await?;
    let written = (effect.summary.files_rewritten, effect.summary.flows_changed);
    inventory::mark_correction_applied(database.pool(), row.id, written, schemas::clock::machine_now_ms()).await?;
    Ok(effect.summary)
}

/// The truth check, once for every hour that closes. It reads an hour of flows, so it runs beside the other jobs.
#[derive(Default)]
struct TruthJob {
    /// Hours before this one were asked for.
    until_ms: i64,
    running: Option<tokio::task::JoinHandle<()>>,
    /// The last pass failed.
    has_failed: Arc<AtomicBool>,
    started_at: Option<tokio::time::Instant>,
}

impl TruthJob {
    /// Starts a pass when an hour has closed since the last one and none is under way. One that failed is repeated: what was
    /// not judged stays due.
    fn follow(&mut self, board: &JobBoard, analytics: &Analytics, settings: TruthSettings, now_ms: i64) {
        let until_ms = truth::closed_until_ms(now_ms);
        let is_running = self.running.as_ref().is_some_and(|task| !task.is_finished());
        let is_due = until_ms > self.until_ms
            || (self.has_failed.load(Ordering::Relaxed)
                && self.started_at.is_none_or(|at| at.elapsed() >= RETRY_INTERVAL));
        if !is_due || is_running {
            return;
        }
        self.until_ms = until_ms;
        self.started_at = Some(tokio::time::Instant::now());
        let (analytics, board, has_failed) = (analytics.clone(), board.clone(), self.has_failed.clone());
        let pass = async move {
            match analytics.refresh_truth(&settings, now_ms).await {
                Ok(pass) => {
                    if pass.interfaces_skipped > 0 {
                        warn!(
                            skipped = pass.interfaces_skipped,
                            limit = truth::INTERFACES_MAX,
                            "not all interfaces were compared with their counters"
                        );
                    } else if pass.findings > 0 {
                        warn!(
                            findings = pass.findings,
                            hours = pass.hours,
                            "flows disagree with interface counters: see `ezscale check truth`"
                        );
                    }
                    true
                }
                Err(error) => succeeded(Err(error.into()), "flows could not be compared with interface counters"),
            }
        };
        self.running = Some(tokio::spawn(async move {
            let succeeded = board.run(TRUTH, pass).await;
            has_failed.store(!succeeded, Ordering::Relaxed);
        }));
    }

    /// Gives up what is under way: nothing was committed, the next start judges it.
    fn stop(self) {
        if let Some(task) = self.running {
            task.abort();
        }
    }
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
