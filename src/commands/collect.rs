//! `ezscale collect`: the collector and the usage job, without the portal.

use std::net::SocketAddr;
use std::sync::Arc;

use activity::job::{Job, JobBoard};
use analytics::Analytics;
use anyhow::Context as _;
use collector::snmp::{self, SnmpPoller};
use collector::{Collector, ListenKind};
use schemas::clock::{self, Clock};
use schemas::db::Database;
use schemas::inventory;
use schemas::metering::MeteringConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::jobs::{self, Metered, PrunedTotals, RunningJobs, Site, StartState, apply_backdated};
use crate::options::{Data, Listen, load_assignments, load_metering};
use crate::storage::{self, Removed};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) listen: Listen,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (mut config, database) = args.data.open_to_write().await?;
    args.listen.apply(&mut config);
    let signal = StopSignal::watch()?;
    let clock = clock::of(database.pool()).await?;
    let mut running = Running::start(&config, database, args.data.config_path()).await?;
    let jobs = running.start_jobs(&clock, Vec::new());
    signal.received().await;
    jobs.stop().await?;
    running.stop().await
}

/// Lists of interfaces that wait to be kept; further ones are dropped, as exporters repeat them.
const TOLD_WAITING: usize = 16;

/// A collector with its jobs.
pub(crate) struct Running {
    pub(crate) analytics: Analytics,
    pub(crate) metering: watch::Receiver<Arc<MeteringConfig>>,
    /// What runs automatically, and whether it does.
    pub(crate) board: JobBoard,
    /// What billing's jobs remove from the database.
    pub(crate) pruned: PrunedTotals,
    collector: Arc<Collector>,
    /// Those of the data folder, until they are started.
    jobs: Vec<Arc<dyn Job>>,
    polling: tokio::task::JoinHandle<()>,
    cancel: CancellationToken,
    config: Config,
    database: Database,
    removed: Removed,
}

impl Running {
    /// Starts listening and prints one line per listener.
    pub(crate) async fn start(
        config: &Config,
        database: Database,
        config_path: Option<std::path::PathBuf>,
    ) -> anyhow::Result<Running> {
        // Before anybody can know that this process runs: a signal must not end it undrained.
        let hangup = signal(SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP is not watched, the configuration file is"))
            .ok();
        // Asked before the rows: what changes between the two is read again by the jobs.
        let assignments_revision = inventory::assignments_revision(database.pool()).await?;
        let assignments = load_assignments(&database).await?;
        let storage = config.open_storage()?;
        let judged_by = load_metering(config, &database).await?;
        let collector = Collector::start(&storage, config.collector.clone(), judged_by, assignments)
            .context("start the collector")?;
        for listening in collector.listening() {
            say!("{} listening on {}", listening.kind, listening.address);
        }
        let collector = Arc::new(collector);
        let analytics = Analytics::open(&storage)?;
        let removed = Removed::default();
        let (metering_sender, metering) = watch::channel(Arc::new(config.metering()));
        let cancel = CancellationToken::new();
        let (told, told_interfaces) = mpsc::channel(TOLD_WAITING);
        let (poller, interfaces) = SnmpPoller::open(&storage, metering.clone(), told_interfaces)?;
        let polling = tokio::spawn(poller.run(cancel.clone().cancelled_owned()));
        let started_with = config_path.as_deref().and_then(|path| Config::read(path).ok());
        let board = JobBoard::default();
        let started = StartState {
            config_path,
            config: started_with,
            assignments_revision,
            interfaces,
            told,
            metering: metering_sender,
        };
        let tables = Metered::new(config, analytics.clone(), removed.clone());
        let site = Arc::new(Site::new(tables, database.clone(), collector.clone(), started));
        let jobs = jobs::of_site(&site, hangup)?;
        Ok(Running {
            analytics,
            metering,
            board,
            pruned: PrunedTotals::default(),
            collector,
            jobs,
            polling,
            cancel,
            config: config.clone(),
            database,
            removed,
        })
    }

    /// Starts the jobs of the data folder, and more beside them. They are stopped before this is.
    pub(crate) fn start_jobs(&mut self, clock: &Clock, more: Vec<Arc<dyn Job>>) -> RunningJobs {
        let mut all = std::mem::take(&mut self.jobs);
        all.extend(more);
        let settings = jobs::settings(&self.config, &self.database, clock, &self.board);
        RunningJobs::start(settings, all)
    }

    /// Where the first NetFlow listener is.
    pub(crate) fn netflow_address(&self) -> anyhow::Result<SocketAddr> {
        let first = self
            .collector
            .listening()
            .iter()
            .find(|listening| listening.kind == ListenKind::Netflow);
        Ok(first.context("the collector has no NetFlow listener")?.address)
    }

    /// The collector's metrics in the Prometheus text format, for as long as it runs.
    pub(crate) fn metrics(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let collector = Arc::downgrade(&self.collector);
        let data_dir = self.config.data_dir.clone();
        let (analytics, removed) = (self.analytics.clone(), self.removed.clone());
        let pruned = self.pruned.clone();
        move || {
            let Some(collector) = collector.upgrade() else {
                return String::new();
            };
            let status = collector::status::read(&data_dir).unwrap_or_else(|error| {
                warn!(%error, "the collector's status cannot be read");
                None
            });
            let mut text = collector::metrics::prometheus(&status.unwrap_or_default(), &collector.live());
            text.push_str(&storage::metrics(&analytics, &removed));
            text.push_str(&pruned.metrics());
            match snmp::read(&data_dir) {
                Ok(statuses) => text.push_str(&snmp::metrics(&statuses)),
                Err(error) => warn!(%error, "the status of snmp cannot be read"),
            }
            text
        }
    }

    /// What keeps the collector from its work, for as long as it runs.
    pub(crate) fn problems(&self) -> impl Fn() -> Vec<String> + Send + Sync + 'static {
        let collector = Arc::downgrade(&self.collector);
        move || {
            let live = collector.upgrade().map(|collector| collector.live());
            live.map(|live| live.problems()).unwrap_or_default()
        }
    }

    /// Drains: everything received is queryable, and counted in usage, when this returns.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        info!("stopping: storing what was received");
        self.cancel.cancel();
        drop(self.jobs);
        self.polling.await.context("asking exporters by snmp")?;
        let collector = Arc::into_inner(self.collector).context("the collector is still in use")?;
        tokio::task::spawn_blocking(move || collector.stop())
            .await?
            .context("stop the collector")?;
        let metering = load_metering(&self.config, &self.database).await?;
        apply_backdated(&self.database, &self.analytics, &metering).await?;
        self.analytics.refresh_rollups(|_| {}).await?;
        info!("stopped");
        Ok(())
    }
}

/// SIGTERM or SIGINT, watched from its making on: one that comes while the collector starts is not lost, and does not end
/// the process undrained.
pub(crate) struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    pub(crate) fn watch() -> anyhow::Result<StopSignal> {
        Ok(StopSignal {
            terminate: signal(SignalKind::terminate()).context("watch SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("watch SIGINT")?,
        })
    }

    pub(crate) async fn received(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
