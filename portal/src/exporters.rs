//! What each exporter sends, how it is scaled and metered, and what is still to be configured.
//!
//! Everything comes from the status the collector writes after each segment, the configuration as of now, and the last
//! hour of `collection_5m`. An exporter that is configured and was never heard is listed too: its silence is the finding.
//!
//! * [`view`]: what is known of one exporter, judged.
//! * [`snippet`]: the configuration that is missing.
//! * [`interfaces`]: what they say of their interfaces, and how asking them goes.
//! * [`counter_reconciliation`]: what the counters of its interfaces say of it.

pub(crate) mod counter_reconciliation;
pub(crate) mod interfaces;
mod records;
pub(crate) mod snippet;
pub(crate) mod view;

use std::collections::HashMap;

use collector::snmp::SnmpStatus;
use collector::status::CollectorStatus;
use schemas::address::Address;
use schemas::metering::{ExporterNet, ExporterTable};
use serde::Serialize;

use crate::error::Failure;
use crate::state::AppState;
use snippet::Snippet;
use view::{ExporterView, Hearing, SocketView};

/// How far back an unknown sampling rate is still a finding of today.
const RECENT_MS: i64 = 60 * 60_000;
/// The collector writes its status after every segment; an older one means that it does not run.
const STATUS_MAX_AGE_MS: i64 = 2 * 60_000;

/// Everything the exporters page shows.
#[derive(Clone, PartialEq, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Exporters {
    pub(crate) now_ms: i64,
    /// When the collector last told; `None` before it ever did.
    pub(crate) status_at_ms: Option<i64>,
    /// The collector has not told for a while: it does not run, or cannot write.
    pub(crate) collector_silent: bool,
    pub(crate) segments_waiting: u64,
    pub(crate) sockets: Vec<SocketView>,
    pub(crate) presence: ExporterPresence,
    /// Those that need somebody first, then by name.
    pub(crate) exporters: Vec<ExporterView>,
    pub(crate) missing_configuration: Option<Snippet>,
}

/// How many exporters are heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = ExporterPresence)]
pub(crate) struct ExporterPresence {
    pub(crate) heard: usize,
    pub(crate) late: usize,
    /// Configured ones that were never heard included.
    pub(crate) silent: usize,
}

/// Gathers and judges everything.
pub(crate) async fn exporters(state: &AppState) -> Result<Exporters, Failure> {
    let now_ms = state.now_ms();
    let status = status(state).await?;
    let recent = flows_without_rate(state, now_ms - RECENT_MS).await?;
    let asked = snmp_statuses(state).await?;
    let checked = state.flow_store().latest_counter_reconciliation(now_ms).await?;
    let metering = state.metering();
    let mut exporters = judge(status, &metering, &recent, now_ms);
    counter_reconciliation::attach(&mut exporters.exporters, &checked, &metering);
    interfaces::attach(&mut exporters.exporters, &asked, &metering);
    sort(&mut exporters.exporters);
    Ok(exporters)
}

/// Those that need somebody first, then by name.
fn sort(exporters: &mut [ExporterView]) {
    exporters.sort_by(|a, b| {
        let urgency = |exporter: &ExporterView| std::cmp::Reverse(exporter.problems.len());
        urgency(a).cmp(&urgency(b)).then_with(|| a.name.cmp(&b.name))
    });
}

/// How many exporters are heard, without the rest.
pub(crate) async fn presence(state: &AppState, now_ms: i64) -> Result<ExporterPresence, Failure> {
    let status = status(state).await?;
    Ok(judge(status, &state.metering(), &HashMap::new(), now_ms).presence)
}

/// An exporter as a search finds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExporterHit {
    /// Absent for a configured network.
    pub(crate) address: Option<Address>,
    pub(crate) network: String,
    pub(crate) name: String,
    pub(crate) site: Option<String>,
    pub(crate) hearing: &'static str,
    net: Option<ExporterNet>,
}

impl ExporterHit {
    /// Whether its configured network holds all of this one.
    pub(crate) fn covers(&self, net: ipnet::IpNet) -> bool {
        let asked = net.to_string().parse::<ExporterNet>();
        self.net.is_some_and(|own| asked.is_ok_and(|asked| own.covers(asked)))
    }

    /// Whether a text in lower case is in its name or site.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        let has = |field: &str| field.to_lowercase().contains(text);
        has(&self.name) || self.site.as_deref().is_some_and(has)
    }
}

/// Every exporter that was heard or is configured, by name.
pub(crate) async fn known(state: &AppState) -> Result<Vec<ExporterHit>, Failure> {
    let status = status(state).await?;
    let metering = state.metering();
    let judged = judge(status, &metering, &HashMap::new(), state.now_ms());
    let mut known: Vec<ExporterHit> = judged
        .exporters
        .into_iter()
        .map(|exporter| ExporterHit {
            address: Some(exporter.address),
            network: exporter.address.to_string(),
            name: exporter.name,
            site: exporter.site,
            hearing: match exporter.hearing {
                Hearing::Heard => "heard",
                Hearing::Late => "late",
                Hearing::Silent => "silent",
            },
            net: None,
        })
        .collect();
    let networks = metering
        .exporters
        .iter()
        .filter(|config| config.address.host().is_none());
    known.extend(networks.map(|config| ExporterHit {
        address: None,
        network: config.address.to_string(),
        name: config.name.clone().unwrap_or_else(|| config.address.to_string()),
        site: config.site.clone(),
        hearing: "a network of exporters",
        net: Some(config.address),
    }));
    known.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(known)
}

/// Whether somebody was heard, and where flows are to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReceptionStatus {
    pub(crate) heard: bool,
    pub(crate) netflow_port: Option<u16>,
    pub(crate) sflow_port: Option<u16>,
}

/// What the collector's status says of it.
pub(crate) async fn listening(state: &AppState) -> Result<ReceptionStatus, Failure> {
    let status = status(state).await?.unwrap_or_default();
    let sockets: Vec<SocketView> = status.sockets.iter().map(view::socket).collect();
    let port = |kind: &str| {
        sockets
            .iter()
            .find(|socket| socket.kind == kind)
            .map(|socket| socket.port)
    };
    Ok(ReceptionStatus {
        heard: !status.exporters.is_empty(),
        netflow_port: port("netflow"),
        // Any socket takes any protocol.
        sflow_port: port("sflow").or(port("netflow")),
    })
}

fn judge(
    status: Option<CollectorStatus>,
    metering: &schemas::metering::MeteringConfig,
    recent_without_rate: &HashMap<Address, u64>,
    now_ms: i64,
) -> Exporters {
    let status_at_ms = status
        .as_ref()
        .map(|status| status.written_at_ms)
        .filter(|at_ms| *at_ms > 0);
    let status = status.unwrap_or_default();
    let configs = ExporterTable::of(metering, |config| config);
    let mut exporters: Vec<ExporterView> = status
        .exporters
        .iter()
        .map(|exporter| {
            let recent = recent_without_rate.get(&exporter.address).copied().unwrap_or(0);
            view::exporter(exporter, configs.get(exporter.address, 0).copied(), recent, now_ms)
        })
        .collect();
    let heard: std::collections::HashSet<Address> = status.exporters.iter().map(|exporter| exporter.address).collect();
    let never_heard = metering
        .exporters
        .iter()
        .filter_map(|config| Some((config.address.host()?, config)))
        .filter(|(address, _)| !heard.contains(address));
    exporters.extend(never_heard.map(|(address, config)| view::never_heard(address, config)));
    sort(&mut exporters);

    let seen: Vec<snippet::ObservedExporter> = exporters
        .iter()
        .filter(|exporter| exporter.last_heard_ms.is_some())
        .map(|exporter| snippet::ObservedExporter {
            address: exporter.address,
            config: configs.get(exporter.address, 0).map(|config| (*config).clone()),
            rate_unknown: exporter.sampling.unknown,
            interfaces: view::busiest(&exporter.interfaces),
        })
        .collect();
    let count = |hearing| exporters.iter().filter(|exporter| exporter.hearing == hearing).count();
    Exporters {
        now_ms,
        status_at_ms,
        collector_silent: status_at_ms.is_some_and(|at_ms| now_ms - at_ms > STATUS_MAX_AGE_MS),
        segments_waiting: status.segments_waiting,
        sockets: status.sockets.iter().map(view::socket).collect(),
        presence: ExporterPresence {
            heard: count(Hearing::Heard),
            late: count(Hearing::Late),
            silent: count(Hearing::Silent),
        },
        missing_configuration: snippet::snippet(&seen),
        exporters,
    }
}

/// The collector's status file. It is small, but a disk may be slow: it is read where waiting harms nobody.
async fn status(state: &AppState) -> Result<Option<CollectorStatus>, Failure> {
    let data_dir = state.data_dir().to_owned();
    let read = tokio::task::spawn_blocking(move || collector::status::read(&data_dir)).await;
    let failed = Failure::internal("read the collector's status");
    read.map_err(|error| failed(error.into()))?
        .map_err(|error| failed(error.into()))
}

/// How asking exporters by SNMP goes, as the collector writes it.
async fn snmp_statuses(state: &AppState) -> Result<Vec<SnmpStatus>, Failure> {
    let data_dir = state.data_dir().to_owned();
    let read = tokio::task::spawn_blocking(move || collector::snmp::read(&data_dir)).await;
    let failed = Failure::internal("read the status of snmp");
    read.map_err(|error| failed(error.into()))?
        .map_err(|error| failed(error.into()))
}

/// Flows without a known sampling rate since then, by exporter.
async fn flows_without_rate(state: &AppState, since_ms: i64) -> Result<HashMap<Address, u64>, Failure> {
    // Without an end: a portal on a test clock may be behind the collector's.
    let counts = state.flow_store().flows_without_rate(since_ms, i64::MAX).await?;
    Ok(counts.into_iter().map(|one| (one.exporter, one.count)).collect())
}

#[cfg(test)]
mod tests;
