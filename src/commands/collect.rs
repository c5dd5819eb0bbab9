//! `ezscale collect`: the collector and the usage job, without the portal.

use std::net::SocketAddr;
use std::sync::Arc;

use analytics::Analytics;
use anyhow::Context as _;
use collector::{Collector, ListenKind};
use schemas::db::Database;
use schemas::metering::MeteringConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::jobs::{Jobs, apply_backdated};
use crate::options::{Data, Listen, load_assignments};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) listen: Listen,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (mut config, database) = args.data.open_database().await?;
    args.listen.apply(&mut config);
    let running = Running::start(&config, database, args.data.config_path(), false).await?;
    stop_signal().await?;
    running.stop().await
}

/// A collector with its jobs.
pub(crate) struct Running {
    pub(crate) analytics: Analytics,
    pub(crate) metering: watch::Receiver<Arc<MeteringConfig>>,
    collector: Arc<Collector>,
    jobs: tokio::task::JoinHandle<()>,
    cancel: CancellationToken,
    config: Config,
    database: Database,
}

impl Running {
    /// Starts listening and prints one line per listener.
    pub(crate) async fn start(
        config: &Config,
        database: Database,
        config_path: Option<std::path::PathBuf>,
        close_periods: bool,
    ) -> anyhow::Result<Running> {
        let assignments = load_assignments(&database).await?;
        let collector = Collector::start(
            &config.data_dir,
            config.collector.clone(),
            config.metering(),
            assignments,
        )
        .context("start the collector")?;
        for listening in collector.listening() {
            println!("{} listening on {}", listening.kind, listening.address);
        }
        let collector = Arc::new(collector);
        let analytics = Analytics::open(&config.data_dir)?;
        let (metering_sender, metering) = watch::channel(Arc::new(config.metering()));
        let cancel = CancellationToken::new();
        let jobs = Jobs {
            config_path,
            config: config.clone(),
            database: database.clone(),
            analytics: analytics.clone(),
            collector: collector.clone(),
            metering: metering_sender,
            close_periods,
        };
        let jobs = tokio::spawn(jobs.run(cancel.clone()));
        Ok(Running {
            analytics,
            metering,
            collector,
            jobs,
            cancel,
            config: config.clone(),
            database,
        })
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
        move || {
            let Some(collector) = collector.upgrade() else {
                return String::new();
            };
            let status = collector::status::read(&data_dir).unwrap_or_else(|error| {
                warn!(%error, "the collector's status cannot be read");
                None
            });
            collector::metrics::prometheus(&status.unwrap_or_default(), &collector.live())
        }
    }

    /// Drains: everything received is queryable, and counted in usage, when this returns.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        info!("stopping: storing what was received");
        self.cancel.cancel();
        self.jobs.await.context("background jobs")?;
        let collector = Arc::into_inner(self.collector).context("the collector is still in use")?;
        tokio::task::spawn_blocking(move || collector.stop())
            .await?
            .context("stop the collector")?;
        // Loading a large table of assignments takes longer than all the rest: only where it is needed.
        let pool = self.database.pool();
        if !schemas::inventory::pending_attribution_changes(pool).await?.is_empty() {
            let assignments = schemas::inventory::load_assignments(pool).await?;
            apply_backdated(&self.database, &self.analytics, &self.config.metering(), &assignments).await?;
        }
        self.analytics.refresh_usage(|_| {}).await?;
        info!("stopped");
        Ok(())
    }
}

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
