//! The network engineer's page: who sends flows, how they are scaled and metered, and what to do next.
//!
//! The list is a fragment that htmx asks for again every [`REFRESH_S`] seconds; without JavaScript the page is a snapshot.

mod guide;

use analytics::counter_reconciliation::{Verdict, percent_text};
use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::metering::{MeterDirection, MeterMode};

use crate::auth::Network;
use crate::error::{Failure, PageError, page};
use crate::exporters::counter_reconciliation::{self, CounterReconciliationView};
use crate::exporters::interfaces::SnmpView;
use crate::exporters::view::{Domain, ExporterView, Hearing, SocketView, clock_words, rate_words, weight};
use crate::exporters::{self, ExporterPresence, Exporters};
use crate::first_steps::FirstSteps;
use crate::format;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;
use guide::Guide;

/// Address of the page.
pub(crate) const PATH: &str = "/exporters";
/// How often the list is asked for again.
const REFRESH_S: u32 = 10;
/// Exporters shown; those that need somebody come first.
const MAX_SHOWN: usize = 200;
/// Interfaces shown per exporter, the busiest.
const MAX_INTERFACES: usize = 200;

/// One interface as it is printed.
struct InterfaceRow {
    if_index: u32,
    name: String,
    description: String,
    speed: String,
    boundary: &'static str,
    in_flows: String,
    out_flows: String,
    in_volume: String,
    out_volume: String,
    last_seen: String,
}

struct TemplateRow {
    id: u16,
    kind: &'static str,
    last_seen: String,
    fields: Vec<String>,
}

struct DomainRow {
    domain: u32,
    protocol: String,
    port: u16,
    /// Who it is apart from others of the same address.
    session: String,
    clock: String,
    clock_is_off: bool,
    templates: Vec<TemplateRow>,
    templates_known: u64,
    templates_more: u64,
    pending_sets: u64,
    lost: String,
    lossy: bool,
    sampling: String,
}

/// One exporter as it is printed.
struct Card {
    /// For the ids of what can be opened; the address without punctuation.
    id: String,
    view: ExporterView,
    hearing_class: &'static str,
    hearing: String,
    first_heard: String,
    last_heard_title: String,
    rate: String,
    flow_rate: String,
    datagram_rate: String,
    flows: String,
    datagrams: String,
    datagram_bytes: String,
    volume: String,
    sampling: String,
    flows_without_rate: String,
    flows_discarded: String,
    lost: String,
    metering: &'static str,
    metering_note: &'static str,
    rejected_total: String,
    rejected: Vec<(String, String)>,
    domains: Vec<DomainRow>,
    interfaces: Vec<InterfaceRow>,
    interfaces_more: usize,
    /// Flows against counters in a few words.
    check: String,
    check_note: String,
    findings: usize,
    truth: Vec<CounterReconciliationTableRow>,
    truth_more: usize,
    /// How asking it by SNMP goes: a fact and its explanation.
    snmp: Option<(String, String)>,
}

/// One direction of one interface beside its counter.
struct CounterReconciliationTableRow {
    interface: String,
    direction: &'static str,
    counter: String,
    metered: String,
    ratio: String,
    bound: String,
    verdict: &'static str,
    is_finding: bool,
}

struct SocketRow {
    kind: &'static str,
    address: String,
    datagrams: String,
    volume: String,
    kernel_dropped: String,
    queue_dropped: String,
    drops: bool,
}

struct List {
    /// The one exporter that was asked for.
    only: Option<Address>,
    presence: ExporterPresence,
    sockets: Vec<SocketRow>,
    cards: Vec<Card>,
    more: usize,
    snippet: Option<exporters::snippet::Snippet>,
    collector_silent: bool,
    status: String,
    segments_waiting: u64,
    refresh_s: u32,
    guide: Guide,
}

#[derive(Template)]
#[template(path = "exporters.html")]
struct ExportersPage {
    shell: Shell,
    first_steps: Option<FirstSteps>,
    list: List,
}

#[derive(Template)]
#[template(path = "exporters_list.html")]
struct ExportersList {
    list: List,
}

/// What the address may say.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct ExportersQuery {
    /// The one exporter that is shown; all where empty.
    #[serde(default)]
    only: String,
}

impl ExportersQuery {
    fn address(&self) -> Result<Option<Address>, Failure> {
        match self.only.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Failure::BadRequest(format!("“only” is an exporter’s address like 192.0.2.1, not {text:?}."))
            }),
        }
    }
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Network(who): Network,
    PageQuery(chosen): PageQuery<ExportersQuery>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let only = chosen.address()?;
    let found = exporters::exporters(&state).await?;
    page(&ExportersPage {
        shell: Shell::new(&who, "Exporters", PATH),
        first_steps: FirstSteps::of_traffic(&state).await?,
        list: listed(found, only, host(&headers)),
    })
}

pub(crate) async fn list(
    State(state): State<AppState>,
    _: Network,
    PageQuery(chosen): PageQuery<ExportersQuery>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let only = chosen.address()?;
    let found = exporters::exporters(&state).await?;
    page(&ExportersList {
        list: listed(found, only, host(&headers)),
    })
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

fn listed(mut found: Exporters, only: Option<Address>, host: Option<&str>) -> List {
    let now_ms = found.now_ms;
    if let Some(only) = only {
        found.exporters.retain(|exporter| exporter.address == only);
    }
    let more = found.exporters.len().saturating_sub(MAX_SHOWN);
    List {
        only,
        presence: found.presence,
        status: match found.status_at_ms {
            Some(at_ms) => format::ago(at_ms, now_ms),
            None => "never".to_owned(),
        },
        collector_silent: found.collector_silent,
        segments_waiting: found.segments_waiting,
        refresh_s: REFRESH_S,
        guide: Guide::new(&found.sockets, host),
        sockets: {
            let has_sflow = found.sockets.iter().any(|socket| socket.kind == "sflow");
            let rows = found.sockets.iter().map(|socket| socket_row(socket, has_sflow));
            rows.collect()
        },
        cards: found
            .exporters
            .into_iter()
            .take(MAX_SHOWN)
            .map(|exporter| card(exporter, now_ms))
            .collect(),
        more,
        snippet: found.missing_configuration,
    }
}

/// Every socket takes every protocol; where none is meant for sFlow, it comes in by the others.
fn socket_row(socket: &SocketView, has_sflow: bool) -> SocketRow {
    SocketRow {
        kind: match socket.kind.as_str() {
            "sflow" => "sFlow",
            _ if !has_sflow => "NetFlow, IPFIX, sFlow",
            _ => "NetFlow, IPFIX",
        },
        address: socket.address.clone(),
        datagrams: format::grouped(socket.datagrams),
        volume: format::bytes(socket.bytes),
        kernel_dropped: format::grouped(socket.kernel_dropped),
        queue_dropped: format::grouped(socket.queue_dropped),
        drops: socket.kernel_dropped + socket.queue_dropped > 0,
    }
}

fn card(view: ExporterView, now_ms: i64) -> Card {
    let mut interfaces: Vec<_> = view.interfaces.iter().collect();
    interfaces.sort_by_key(|interface| std::cmp::Reverse(weight(interface)));
    let rejected_total: u64 = view.rejected.iter().map(|count| count.value).sum();
    let (metering, metering_note) = metering(&view);
    let findings = view.truth.iter().filter(|truth| truth.finding.is_some()).count();
    let (check, check_note) = check(&view, findings);
    Card {
        id: view.address.to_string().replace(['.', ':'], "-"),
        hearing_class: match view.hearing {
            Hearing::Heard => "ok",
            Hearing::Late => "late",
            Hearing::Silent => "warn",
        },
        hearing: match view.last_heard_ms {
            None => "never heard".to_owned(),
            Some(at_ms) => format!("heard {}", format::ago(at_ms, now_ms)),
        },
        first_heard: view
            .first_heard_ms
            .map_or_else(|| "–".to_owned(), |at_ms| format::date(at_ms, &TimeZone::UTC)),
        last_heard_title: view.last_heard_ms.map_or_else(String::new, |at_ms| {
            format!("{} UTC", format::minute(at_ms, &TimeZone::UTC))
        }),
        rate: format::bits_per_second(view.bits_per_second as u64),
        flow_rate: per_second(view.flows_per_second),
        datagram_rate: per_second(view.datagrams_per_second),
        flows: format::grouped(view.flows),
        datagrams: format::grouped(view.datagrams),
        datagram_bytes: format::bytes(view.datagram_bytes),
        volume: format::bytes(view.bytes_scaled),
        sampling: match view.sampling.rate {
            Some(1) => "every packet".to_owned(),
            Some(rate) => format!("1 in {}", format::grouped(u64::from(rate))),
            None => "unknown".to_owned(),
        },
        flows_without_rate: format::grouped(view.sampling.flows_without_rate),
        flows_discarded: format::grouped(view.flows_discarded),
        lost: match (view.sequence_lost, view.lost_percent) {
            (0, _) => "none".to_owned(),
            (lost, Some(percent)) => format!("{} ({percent:.2} %)", format::grouped(lost)),
            (lost, None) => format::grouped(lost),
        },
        metering,
        metering_note,
        rejected_total: format::grouped(rejected_total),
        rejected: view
            .rejected
            .iter()
            .map(|count| (counter_words(&count.counter), format::grouped(count.value)))
            .collect(),
        domains: view
            .domains
            .iter()
            .map(|domain| DomainRow {
                domain: domain.observation_domain,
                protocol: domain.protocol.clone(),
                port: domain.port,
                session: match (domain.port, domain.agent) {
                    (_, Some(agent)) => format!("agent {agent}"),
                    (0, None) => "all ports".to_owned(),
                    (port, None) => format!("port {port}"),
                },
                clock: domain.clock_off_ms.map_or_else(|| "–".to_owned(), clock_words),
                clock_is_off: domain.clock_off_ms.is_some(),
                templates: domain
                    .templates
                    .iter()
                    .map(|template| TemplateRow {
                        id: template.id,
                        kind: template.kind,
                        last_seen: format::ago(template.last_seen_ms, now_ms),
                        fields: template.fields.clone(),
                    })
                    .collect(),
                templates_known: domain.templates_known,
                templates_more: domain.templates_known.saturating_sub(domain.templates.len() as u64),
                pending_sets: domain.pending_sets,
                lost: format::grouped(domain.sequence_lost),
                lossy: domain.sequence_lost > 0,
                sampling: sampling_words(domain),
            })
            .collect(),
        check,
        check_note,
        findings,
        truth: view
            .truth
            .iter()
            .take(MAX_INTERFACES)
            .map(counter_reconciliation_row)
            .collect(),
        snmp: view.snmp.as_ref().map(|snmp| asked(snmp, now_ms)),
        truth_more: view.truth.len().saturating_sub(MAX_INTERFACES),
        interfaces_more: interfaces.len().saturating_sub(MAX_INTERFACES),
        interfaces: interfaces
            .into_iter()
            .take(MAX_INTERFACES)
            .map(|interface| InterfaceRow {
                if_index: interface.if_index,
                name: interface.name.clone().unwrap_or_else(|| "–".to_owned()),
                description: interface.description.clone(),
                speed: match interface.speed_bps {
                    0 => String::new(),
                    speed_bps => format::bits_per_second(speed_bps),
                },
                boundary: interface.boundary,
                in_flows: format::grouped(interface.in_flows),
                out_flows: format::grouped(interface.out_flows),
                in_volume: format::bytes(interface.in_bytes_scaled),
                out_volume: format::bytes(interface.out_bytes_scaled),
                last_seen: format::ago(interface.last_seen_ms, now_ms),
            })
            .collect(),
        view,
    }
}

/// The rate of a domain, where it comes from, and how many announced ones have ended.
fn sampling_words(domain: &Domain) -> String {
    let words = match domain.sampling_rate {
        Some(rate) => {
            let rate = rate_words(rate, domain.sampling_divisor);
            format!("1 in {rate}, {}", domain.sampling_source)
        }
        None if domain.sampling_source.is_empty() => "not announced".to_owned(),
        None => domain.sampling_source.clone(),
    };
    match domain.rates_ended {
        0 => words,
        1 => format!("{words}; 1 announced rate ended"),
        ended => format!("{words}; {ended} announced rates ended"),
    }
}

/// How asking an exporter goes.
fn asked(snmp: &SnmpView, now_ms: i64) -> (String, String) {
    let answered = match snmp.answered_at_ms {
        Some(at_ms) => format!("answered {}", format::ago(at_ms, now_ms)),
        None => "no answer yet".to_owned(),
    };
    let note = match &snmp.error {
        Some(error) => format!("{}: {error}", snmp.asked),
        None => format!(
            "{}, every {} s, {} interfaces in {} ms",
            snmp.asked, snmp.interval_seconds, snmp.interfaces, snmp.took_ms
        ),
    };
    (answered, note)
}

/// The truth check as a fact with its explanation.
fn check(view: &ExporterView, findings: usize) -> (String, String) {
    let judged = |truth: &&CounterReconciliationView| matches!(truth.verdict, Verdict::Agrees | Verdict::Mismatch);
    let compared = view.truth.iter().filter(judged).count();
    let Some(first) = view.truth.first() else {
        return (
            "not compared".to_owned(),
            "no counters in the last whole hour".to_owned(),
        );
    };
    let fact = match (findings, compared) {
        (0, 0) => "not compared".to_owned(),
        (0, 1) => "agrees".to_owned(),
        (0, compared) => format!("{compared} agree"),
        (findings, compared) => format!("{findings} of {compared} disagree"),
    };
    (fact, counter_reconciliation::hour_words(first.hour_start_ms))
}

fn counter_reconciliation_row(truth: &CounterReconciliationView) -> CounterReconciliationTableRow {
    let percent = |ppm: u32| format!("{} %", percent_text(ppm));
    CounterReconciliationTableRow {
        interface: truth.interface.clone(),
        direction: counter_reconciliation::direction_words(truth.direction),
        counter: format::bytes(truth.counter_bytes),
        // Nothing observed is not the same as nothing metered.
        metered: match truth.verdict {
            Verdict::NotSampled => "–".to_owned(),
            _ => format::bytes(truth.metered_bytes),
        },
        ratio: truth.ratio_ppm.map_or_else(|| "–".to_owned(), percent),
        bound: truth
            .ratio_ppm
            .map_or_else(|| "–".to_owned(), |_| format!("± {}", percent(truth.bound_ppm))),
        verdict: match truth.verdict {
            Verdict::Agrees => "agrees",
            Verdict::Mismatch => "disagrees",
            Verdict::NotSampled => "not sampled here",
            Verdict::PartlySampled => "sampled in part?",
            Verdict::RateUnknown => "sampling rate unknown",
            Verdict::TooFewSamples => "too few samples",
            Verdict::TooShort => "too short to tell",
            Verdict::NoCounter => "no counter",
        },
        is_finding: truth.finding.is_some(),
    }
}

fn metering(view: &ExporterView) -> (&'static str, &'static str) {
    match (view.meter, view.direction) {
        (MeterMode::Off, _) => ("off", "kept and shown, never counted"),
        (MeterMode::Boundary, MeterDirection::Both) => ("by boundary", "every observation"),
        (MeterMode::Addresses, MeterDirection::Both) => ("by addresses", "every observation"),
        (MeterMode::Boundary, MeterDirection::Ingress) => ("by boundary", "ingress observations"),
        (MeterMode::Boundary, MeterDirection::Egress) => ("by boundary", "egress observations"),
        (MeterMode::Addresses, MeterDirection::Ingress) => ("by addresses", "ingress observations"),
        (MeterMode::Addresses, MeterDirection::Egress) => ("by addresses", "egress observations"),
    }
}

fn per_second(rate: f64) -> String {
    if rate >= 100.0 {
        format::grouped(rate.round() as u64)
    } else {
        format!("{rate:.1}")
    }
}

/// `datagrams_rejected.short` → `datagrams rejected: short`.
fn counter_words(counter: &str) -> String {
    counter.replacen('.', ": ", 1).replace('_', " ")
}

#[cfg(test)]
mod tests;
