//! `ezscale serve`: collector, jobs, billing and portal in one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use activity::act::{Act, By, Note};
use activity::channel::WebhookClient;
use activity::risk::{self, fingerprint};
use analytics::store::SharedAnswers;
use anyhow::Context as _;
use billing::collection_terms;
use billing::guard;
use billing::payment::Gateways;
use jiff::Timestamp;
use schemas::clock::{self, Clock};
use schemas::db::Database;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::collect::{Running, StopSignal};
use crate::config::Config;
use crate::descriptors;
use crate::jobs::{self, Books, RunningJobs};
use crate::options::{Data, Listen};
use crate::outbox::Outbox;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    listen: Listen,
    /// Address of the portal [default: 127.0.0.1:8080]
    #[arg(long, env = "EZSCALE_HTTP", value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Go by a test clock that starts here (RFC 3339, or a day) and stands still until `ezscale clock set`: for rehearsals, on a
    /// database without books
    #[arg(long, value_name = "INSTANT", value_parser = crate::options::instant)]
    clock: Option<Timestamp>,
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
    // Port 0 was any that is free: links name the one it became.
    config.portal.http = address;
    let clock = match args.clock {
        Some(at) => begin_clock(&database, at).await?,
        None => clock::of(database.pool()).await?,
    };
    // Before anybody can order anything by it.
    if let Some(stopped) = guard::look(&database, config.billing.clock_limits(), clock.now_ms()).await? {
        tracing::error!("{stopped}");
    }
    store_terms(&config, &database, clock.now_ms()).await?;
    check_gateway_settings(&config, &database, clock.now_ms()).await?;
    let mut running = Running::start(&config, database.clone(), args.data.config_path()).await?;
    let gateways = config.gateways(&database).await?;
    let config_path = args.data.config_path();
    let jobs = start_jobs(&config, config_path, &database, &mut running, &clock, &gateways)?;
    let portal = Portal::start(listener, &config, database, &running, clock, gateways)?;
    say!("http listening on http://{address}");
    portal.run_until(signal.received()).await?;
    jobs.stop().await?;
    running.stop().await
}

/// Takes the terms of collection and the thresholds of risk over from the configuration: from here on every process on the
/// database goes by them.
pub(crate) async fn store_terms(config: &Config, database: &Database, now_ms: i64) -> anyhow::Result<()> {
    store_collection(config, database, now_ms).await?;
    store_thresholds(config, database, now_ms).await
}

async fn store_collection(config: &Config, database: &Database, now_ms: i64) -> anyhow::Result<()> {
    let mut act = Act::begin(database, By::program("configuration"), now_ms).await?;
    if let Some(note) = collection_terms::set_terms(act.connection(), &config.collection).await? {
        act.commit(note).await?;
        tracing::info!("the terms of collection were taken over from the configuration");
    }
    Ok(())
}

async fn store_thresholds(config: &Config, database: &Database, now_ms: i64) -> anyhow::Result<()> {
    let mut act = Act::begin(database, By::program("configuration"), now_ms).await?;
    if let Some(note) = risk::set_thresholds(act.connection(), &config.approvals).await? {
        act.commit(note).await?;
        tracing::info!("the thresholds of approvals were taken over from the configuration");
    }
    Ok(())
}

/// Compares the settings of the payment gateways with those of the last start; where they differ, owner and admins are notified.
async fn check_gateway_settings(config: &Config, database: &Database, now_ms: i64) -> anyhow::Result<()> {
    let mut act = Act::begin(database, By::program("configuration"), now_ms).await?;
    let about = ("gateway.settings", "gateways");
    let Some(found) = fingerprint::look(act.connection(), about, &config.payments.settings()).await? else {
        return Ok(());
    };
    let names = found.names.join(", ");
    fingerprint::commit_gateways(act, found).await?;
    tracing::warn!(
        settings = names,
        "the settings of the payment gateways are not those of the last start"
    );
    Ok(())
}

/// Begins a test clock, or goes on with the one that the database has.
async fn begin_clock(database: &Database, at: Timestamp) -> anyhow::Result<Clock> {
    let mut act = super::audit::begin(database, at.as_millisecond()).await?;
    let (clock, is_changed) = clock::begin(act.connection(), at).await?;
    if is_changed {
        let change = serde_json::json!({"after": clock.now().to_string()});
        act.commit(Note::new("clock.begin", "clock").change(change)).await?;
    }
    Ok(clock)
}

/// Starts what runs in the background: the jobs of the data folder and those of the books.
pub(crate) fn start_jobs(
    config: &Config,
    config_path: Option<PathBuf>,
    database: &Database,
    running: &mut Running,
    clock: &Clock,
    gateways: &Gateways,
) -> anyhow::Result<RunningJobs> {
    let books = Books {
        database: database.clone(),
        analytics: running.analytics.clone(),
        metering: running.metering.clone(),
        clock: clock.clone(),
        gateways: gateways.clone(),
        closes: config.billing.close_automatically,
        clock_limits: config.billing.clock_limits(),
        guards: config.billing.guards(clock.is_test()),
        config_path,
        keep: Mutex::new(config.retention.records),
        pruned: running.pruned.clone(),
        outbox: Outbox::new(config, database)?,
        register: config.vies.register()?,
    };
    let of_books = jobs::of_books(&Arc::new(books))?;
    Ok(running.start_jobs(clock, of_books))
}

pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen for http on {address}"))
}

/// The portal, on threads of its own: however much it has to do, the jobs of the collector and of billing have theirs.
pub(crate) struct Portal {
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Portal {
    /// Starts after the collector, which has opened its sockets and files by then.
    pub(crate) fn start(
        listener: TcpListener,
        config: &Config,
        database: Database,
        running: &Running,
        clock: Clock,
        gateways: Gateways,
    ) -> anyhow::Result<Portal> {
        let stop = CancellationToken::new();
        let options = portal::Options {
            db: database,
            flow_store: Arc::new(SharedAnswers::of(running.analytics.clone())),
            data_dir: config.data_dir.clone(),
            metering: running.metering.clone(),
            secure_cookies: config.portal.secures_cookies(),
            webhooks: WebhookClient::new(config.webhooks.allow_private)?,
            gateways,
            guards: config.billing.guards(clock.is_test()),
            portal_url: config.portal_url().trim_end_matches('/').to_owned(),
            http: config
                .portal
                .http_settings(descriptors::connections(config.portal.max_connections)),
            sessions: config.sessions,
            sends_mail: config.mail.smtp_url.is_some(),
        };
        let state = portal::AppState::with_clock(options, move || clock.now());
        state.set_collector_metrics(running.metrics());
        state.set_collector_problems(running.problems());
        state.set_jobs(running.board.clone());
        state.set_consumers(crate::outbox::consumer_names());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("http")
            .enable_all()
            .build()
            .context("start the threads of the portal")?;
        let listener = listener.into_std().context("hand the listener over to the portal")?;
        let stopped = stop.clone().cancelled_owned();
        let task = runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            portal::serve(listener, state, stopped).await;
            Ok(())
        });
        // Its threads last as long as the process: connections to the database that were opened on them are used by the
        // jobs until the end.
        std::mem::forget(runtime);
        Ok(Portal { task, stop })
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
