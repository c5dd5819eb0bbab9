//! What every request needs. Cheap to clone; everything mutable is behind it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use activity::channel::WebhookClient;
use activity::job::JobBoard;
use analytics::FlowStore;
use billing::payment::Gateways;
use ipnet::IpNet;
use jiff::Timestamp;
use schemas::db::Database;
use schemas::metering::MeteringConfig;
use schemas::usage::MeasureGuards;
use tokio::sync::watch;

use crate::admission::Gates;
use crate::client::Proxies;
use crate::http_metrics::HttpMetrics;
use crate::listen::{ClientTimeouts, Connections, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_CLIENT};
use crate::readiness::Readiness;
use crate::sign_in::{Counts, LastSeen, LinkQueue, PasswordLanes, SessionLimits, Throttle};

/// How to make an [`AppState`].
#[derive(Debug)]
pub struct Options {
    pub db: Database,
    /// Answers questions about flows and usage.
    pub flow_store: Arc<dyn FlowStore>,
    pub data_dir: PathBuf,
    /// The current metering configuration; the sender replaces it when the configuration is reloaded.
    pub metering: watch::Receiver<Arc<MeteringConfig>>,
    /// The portal is reached over HTTPS: cookies are `Secure` and HSTS is sent.
    pub secure_cookies: bool,
    /// Says which addresses customers' endpoints may have.
    pub webhooks: WebhookClient,
    /// How customers can pay.
    pub gateways: Gateways,
    /// What closing at an order holds for a person.
    pub guards: MeasureGuards,
    /// Where people reach the portal, without a slash at its end.
    pub portal_url: String,
    /// Connections, proxies, metrics.
    pub http: HttpSettings,
    /// How long sessions last.
    pub sessions: SessionLimits,
    /// A mail server is configured.
    pub sends_mail: bool,
}

/// How the portal is reached.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Connections at one time.
    pub max_connections: usize,
    /// Of one address, of a /64 of IPv6; trusted proxies have no limit of their own.
    pub max_connections_per_client: usize,
    /// Who is believed about whom it speaks for.
    pub proxies: Proxies,
    /// Who may read `/metrics` without signing in.
    pub metrics: MetricsAccess,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_client: MAX_CONNECTIONS_PER_CLIENT,
            proxies: Proxies::default(),
            metrics: MetricsAccess::default(),
        }
    }
}

/// Who may read `/metrics` without signing in.
#[derive(Clone, Default)]
pub struct MetricsAccess {
    /// Scrapers that come from here.
    pub allow: Vec<IpNet>,
    /// Scrapers on this machine, unless a proxy speaks for somebody: only where no proxy is known that would not say so.
    pub allow_local: bool,
    /// Scrapers that send it as a bearer token; empty for none.
    pub token: String,
}

impl std::fmt::Debug for MetricsAccess {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsAccess")
            .field("allow", &self.allow)
            .field("allow_local", &self.allow_local)
            .finish_non_exhaustive()
    }
}

/// Shared state of the portal.
#[derive(Clone)]
pub struct AppState {
    inner: Arc<Inner>,
}

struct Inner {
    db: Database,
    flow_store: Arc<dyn FlowStore>,
    data_dir: PathBuf,
    metering: watch::Receiver<Arc<MeteringConfig>>,
    secure_cookies: bool,
    webhooks: WebhookClient,
    gateways: Gateways,
    guards: MeasureGuards,
    portal_url: String,
    http: HttpSettings,
    connections: Arc<Connections>,
    gates: Gates,
    sessions: SessionLimits,
    sends_mail: bool,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    password_lanes: PasswordLanes,
    sign_in_throttle: Throttle,
    code_throttle: Throttle,
    last_seen: Arc<LastSeen>,
    link_throttle: Throttle,
    links: LinkQueue,
    sign_in_counts: Counts,
    http_metrics: Arc<HttpMetrics>,
    collector_metrics: OnceLock<Box<dyn Fn() -> String + Send + Sync>>,
    collector_problems: OnceLock<Box<dyn Fn() -> Vec<String> + Send + Sync>>,
    jobs: OnceLock<JobBoard>,
    consumers: OnceLock<Vec<&'static str>>,
    readiness: Readiness,
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState")
            .field("data_dir", &self.inner.data_dir)
            .finish_non_exhaustive()
    }
}

impl AppState {
    pub fn new(options: Options) -> AppState {
        AppState::with_clock(options, schemas::clock::machine_now)
    }

    /// With another clock than the system's; sessions, periods and projections follow it.
    pub fn with_clock(options: Options, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> AppState {
        AppState {
            inner: Arc::new(Inner {
                db: options.db,
                flow_store: options.flow_store,
                data_dir: options.data_dir,
                metering: options.metering,
                secure_cookies: options.secure_cookies,
                webhooks: options.webhooks,
                gateways: options.gateways,
                guards: options.guards,
                portal_url: options.portal_url,
                connections: Connections::new(
                    options.http.max_connections,
                    options.http.max_connections_per_client,
                    ClientTimeouts::DEFAULT,
                ),
                http: options.http,
                gates: Gates::default(),
                sessions: options.sessions,
                sends_mail: options.sends_mail,
                clock: Box::new(clock),
                password_lanes: PasswordLanes::default(),
                sign_in_throttle: Throttle::of_passwords(),
                code_throttle: Throttle::of_codes(),
                last_seen: Arc::default(),
                link_throttle: Throttle::of_links(),
                links: LinkQueue::default(),
                sign_in_counts: Counts::default(),
                http_metrics: Arc::default(),
                collector_metrics: OnceLock::new(),
                collector_problems: OnceLock::new(),
                jobs: OnceLock::new(),
                consumers: OnceLock::new(),
                readiness: Readiness::default(),
            }),
        }
    }

    pub fn db(&self) -> &Database {
        &self.inner.db
    }

    pub(crate) fn flow_store(&self) -> &Arc<dyn FlowStore> {
        &self.inner.flow_store
    }

    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    /// The metering configuration as of now.
    pub fn metering(&self) -> Arc<MeteringConfig> {
        Arc::clone(&self.inner.metering.borrow())
    }

    pub fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// UTC milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now().as_millisecond()
    }

    pub fn secure_cookies(&self) -> bool {
        self.inner.secure_cookies
    }

    pub(crate) fn webhooks(&self) -> &WebhookClient {
        &self.inner.webhooks
    }

    pub(crate) fn guards(&self) -> MeasureGuards {
        self.inner.guards
    }

    pub(crate) fn portal_url(&self) -> &str {
        &self.inner.portal_url
    }

    pub fn gateways(&self) -> &Gateways {
        &self.inner.gateways
    }

    /// Says where the metrics of a collector in this process come from, in the Prometheus text format. The first call
    /// holds; without one, `/metrics` tells the totals of the collector's status file.
    pub fn set_collector_metrics(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        // A second source is ignored, as documented.
        let _ = self.inner.collector_metrics.set(Box::new(source));
    }

    pub(crate) fn collector_metrics(&self) -> Option<String> {
        self.inner.collector_metrics.get().map(|source| source())
    }

    /// Says what keeps a collector in this process from its work, for `/healthz` and `/readyz`. The first call holds.
    pub fn set_collector_problems(&self, source: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        // A second source is ignored, as documented.
        let _ = self.inner.collector_problems.set(Box::new(source));
    }

    pub(crate) fn collector_problems(&self) -> Vec<String> {
        self.inner
            .collector_problems
            .get()
            .map(|source| source())
            .unwrap_or_default()
    }

    /// Says what runs by itself in this process, for `/readyz` and `/metrics`. The first call holds.
    pub fn set_jobs(&self, jobs: JobBoard) {
        // A second board is ignored, as documented.
        let _ = self.inner.jobs.set(jobs);
    }

    pub(crate) fn jobs(&self) -> JobBoard {
        self.inner.jobs.get().cloned().unwrap_or_default()
    }

    /// Says by name who reacts to events, for `/readyz` and `/metrics`. The first call holds; without one it is the channels.
    pub fn set_consumers(&self, names: Vec<&'static str>) {
        // A second list is ignored, as documented.
        let _ = self.inner.consumers.set(names);
    }

    pub(crate) fn consumers(&self) -> Vec<&'static str> {
        let named = self.inner.consumers.get().cloned();
        named.unwrap_or_else(activity::channel::consumer_names)
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.inner.readiness
    }

    pub(crate) fn http_metrics(&self) -> &Arc<HttpMetrics> {
        &self.inner.http_metrics
    }

    pub(crate) fn password_lanes(&self) -> &PasswordLanes {
        &self.inner.password_lanes
    }

    pub(crate) fn http(&self) -> &HttpSettings {
        &self.inner.http
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.inner.connections
    }

    pub(crate) fn gates(&self) -> &Gates {
        &self.inner.gates
    }

    pub(crate) fn sign_in_throttle(&self) -> &Throttle {
        &self.inner.sign_in_throttle
    }

    pub(crate) fn code_throttle(&self) -> &Throttle {
        &self.inner.code_throttle
    }

    pub(crate) fn last_seen(&self) -> &Arc<LastSeen> {
        &self.inner.last_seen
    }

    pub(crate) fn link_throttle(&self) -> &Throttle {
        &self.inner.link_throttle
    }

    pub(crate) fn links(&self) -> &LinkQueue {
        &self.inner.links
    }

    pub(crate) fn sign_in_counts(&self) -> &Counts {
        &self.inner.sign_in_counts
    }

    pub(crate) fn session_limits(&self) -> &SessionLimits {
        &self.inner.sessions
    }

    pub(crate) fn sends_mail(&self) -> bool {
        self.inner.sends_mail
    }
}
