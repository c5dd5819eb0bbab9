//! `ezscale serve`: collector, jobs, billing and portal in one process.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::collect::{Running, StopSignal};
use crate::config::Config;
use crate::options::{Data, Listen};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    listen: Listen,
    /// Address of the portal [default: 127.0.0.1:8080]
    #[arg(long, env = "EZSCALE_HTTP", value_name = "ADDR")]
    http: Option<SocketAddr>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (mut config, database) = args.data.open_to_write().await?;
    args.listen.apply(&mut config);
    if let Some(http) = args.http {
        config.portal.http = http;
    }
    let signal = StopSignal::watch()?;
    let listener = bind(config.portal.http).await?;
    let address = listener.local_addr()?;
    let running = Running::start(
        &config,
        database.clone(),
        args.data.config_path(),
        config.billing.close_automatically,
    )
    .await?;
    let portal = Portal::start(listener, &config, database, &running);
    println!("http listening on http://{address}");
    portal.run_until(signal.received()).await?;
    running.stop().await
}

pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen for http on {address}"))
}

/// The portal as a task.
pub(crate) struct Portal {
    task: tokio::task::JoinHandle<Result<(), portal::PortalError>>,
    stop: CancellationToken,
}

impl Portal {
    pub(crate) fn start(
        listener: TcpListener,
        config: &Config,
        database: schemas::db::Database,
        running: &Running,
    ) -> Portal {
        let stop = CancellationToken::new();
        let state = portal::AppState::new(portal::Options {
            db: database,
            analytics: running.analytics.clone(),
            data_dir: config.data_dir.clone(),
            metering: running.metering.clone(),
            secure_cookies: config.portal.secure_cookies,
        });
        state.set_collector_metrics(running.metrics());
        state.set_collector_problems(running.problems());
        let task = tokio::spawn(portal::serve(listener, state, stop.clone().cancelled_owned()));
        Portal { task, stop }
    }

    /// Serves until the signal comes, or until serving fails.
    pub(crate) async fn run_until(mut self, signal: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            ended = &mut self.task => return ended?.context("serve the portal"),
            () = signal => {}
        }
        self.stop.cancel();
        self.task.await?.context("serve the portal")
    }
}
