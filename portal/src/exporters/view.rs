//! What is known of one exporter, in the words of the page, with what is wrong about it.

use collector::counts::Counter;
use collector::decode::netflow::{TemplateKind, TemplateStatus};
use collector::sampling::SamplingSource;
use collector::status::{ExporterStatus, InterfaceStatus, SocketStatus};
use schemas::address::Address;
use schemas::metering::{ExporterConfig, MeterDirection, MeterMode};
use serde::Serialize;
use tables::flow::Boundary;

use super::counter_reconciliation::CounterReconciliationView;
use super::interfaces::SnmpView;
use super::records::{self, RecordFact};

/// An exporter is late after this, and silent after that. Template refresh and active timeouts are about a minute.
const LATE_AFTER_MS: i64 = 2 * 60_000;
const SILENT_AFTER_MS: i64 = 15 * 60_000;
/// Losing more than this is a finding, not noise.
const LOSS_TOLERATED_PERCENT: f64 = 0.1;

const IPFIX: u8 = 10;
const SFLOW: u8 = 105;

/// When an exporter was last heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hearing {
    Heard,
    Late,
    Silent,
}

/// Something a network engineer should do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ExporterProblem)]
pub(crate) struct Problem {
    /// Short, for a badge.
    pub(crate) what: &'static str,
    /// What to do about it.
    pub(crate) advice: String,
}

/// How flows are scaled.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = ExporterSampling)]
pub(crate) struct Sampling {
    /// One packet in so many; `None` where nobody said.
    pub(crate) rate: Option<u32>,
    /// Who said it, in words.
    pub(crate) source: String,
    /// Flows arrived in the last hour whose rate nobody knows.
    pub(crate) unknown: bool,
    pub(crate) flows_without_rate_last_hour: u64,
    pub(crate) flows_without_rate: u64,
}

/// A count with its name in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Counter)]
pub(crate) struct Count {
    pub(crate) counter: String,
    pub(crate) value: u64,
}

/// An observation domain, or an sFlow sub-agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ObservationDomain)]
pub(crate) struct Domain {
    pub(crate) observation_domain: u32,
    pub(crate) protocol: String,
    /// As many as the collector lists.
    pub(crate) templates: Vec<Template>,
    /// All of them.
    pub(crate) templates_known: u64,
    pub(crate) pending_sets: u64,
    /// Records or datagrams that its sequence numbers miss.
    pub(crate) sequence_lost: u64,
    /// The UDP port of its transport session; 0 where all ports are one.
    pub(crate) port: u16,
    /// How far its exporter's clock is ahead of the collector's, where it is off; negative: behind.
    pub(crate) clock_off_ms: Option<i64>,
    /// The sFlow agent address that it claims, where that is another exporter's name.
    pub(crate) agent: Option<Address>,
    pub(crate) sampling_rate: Option<u32>,
    /// What it is divided by: 1 unless the exporter says a fraction.
    pub(crate) sampling_divisor: u32,
    pub(crate) sampling_implausible: bool,
    pub(crate) sampling_source: String,
    /// Rates that its session announced and that have ended.
    pub(crate) rates_ended: u64,
}

/// A template, with its fields in the order of the record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ExporterTemplate)]
pub(crate) struct Template {
    pub(crate) id: u16,
    /// `data` or `options`.
    pub(crate) kind: &'static str,
    pub(crate) last_seen_ms: i64,
    /// Names with their length in bytes: `octetDeltaCount (8)`.
    pub(crate) fields: Vec<String>,
}

/// An interface that flows crossed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ExporterInterface)]
pub(crate) struct Interface {
    pub(crate) if_index: u32,
    /// As configured, else as the exporter says.
    pub(crate) name: Option<String>,
    /// What its operators wrote about it; empty where nobody said.
    pub(crate) description: String,
    /// 0 = not known.
    pub(crate) speed_bps: u64,
    pub(crate) boundary: &'static str,
    pub(crate) in_flows: u64,
    pub(crate) out_flows: u64,
    pub(crate) in_bytes_scaled: u64,
    pub(crate) out_bytes_scaled: u64,
    pub(crate) last_seen_ms: i64,
}

/// A socket the collector listens on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = CollectorSocket)]
pub(crate) struct SocketView {
    pub(crate) kind: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    pub(crate) kernel_dropped: u64,
    pub(crate) queue_dropped: u64,
    pub(crate) receive_buffer_bytes: usize,
}

/// One exporter.
#[derive(Clone, PartialEq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Exporter)]
pub(crate) struct ExporterView {
    pub(crate) address: Address,
    /// As configured, else the address.
    pub(crate) name: String,
    pub(crate) site: Option<String>,
    pub(crate) configured: bool,
    pub(crate) meter: MeterMode,
    pub(crate) direction: MeterDirection,
    pub(crate) hearing: Hearing,
    /// `None` where it was never heard.
    pub(crate) first_heard_ms: Option<i64>,
    pub(crate) last_heard_ms: Option<i64>,
    pub(crate) protocols: Vec<String>,
    pub(crate) datagrams: u64,
    pub(crate) datagram_bytes: u64,
    pub(crate) flows: u64,
    /// Flows of packets that it did not forward: kept, never metered.
    pub(crate) flows_discarded: u64,
    pub(crate) bytes_scaled: u64,
    pub(crate) datagrams_per_second: f64,
    pub(crate) flows_per_second: f64,
    pub(crate) bits_per_second: f64,
    pub(crate) sampling: Sampling,
    /// Since when none of its flows counts, where it meters and that is an hour and more.
    pub(crate) unmetered_since_ms: Option<i64>,
    pub(crate) templates: u64,
    pub(crate) pending_sets: u64,
    /// Records (v5, v7, IPFIX) or datagrams (v9, sFlow) that its sequence numbers miss.
    pub(crate) sequence_lost: u64,
    /// Of what its sequence numbers say it sent; `None` where the numbers count different things.
    pub(crate) lost_percent: Option<f64>,
    pub(crate) rejected: Vec<Count>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) interfaces: Vec<Interface>,
    /// Flows against counters in the last whole hour; empty where no counters are reported.
    pub(crate) truth: Vec<CounterReconciliationView>,
    /// What its records mean.
    pub(crate) records: Vec<RecordFact>,
    /// How asking it for names and counters goes; `None` where it is not asked.
    pub(crate) snmp: Option<SnmpView>,
    pub(crate) problems: Vec<Problem>,
}

/// Judges an exporter that was heard.
pub(crate) fn exporter(
    status: &ExporterStatus,
    config: Option<&ExporterConfig>,
    without_rate_last_hour: u64,
    now_ms: i64,
) -> ExporterView {
    let silent_ms = now_ms - status.last_heard_ms;
    let hearing = match silent_ms {
        ..LATE_AFTER_MS => Hearing::Heard,
        LATE_AFTER_MS..SILENT_AFTER_MS => Hearing::Late,
        _ => Hearing::Silent,
    };
    let rates = status.rates(now_ms);
    let known = from_config(status.address, config);
    let mut view = ExporterView {
        hearing,
        first_heard_ms: Some(status.first_heard_ms),
        last_heard_ms: Some(status.last_heard_ms),
        protocols: status.protocol_versions.iter().copied().map(protocol_name).collect(),
        datagrams: status.datagrams,
        datagram_bytes: status.datagram_bytes,
        flows: status.flows,
        flows_discarded: status
            .counters
            .get(Counter::FlowsDiscarded.name())
            .copied()
            .unwrap_or(0),
        bytes_scaled: status.bytes_scaled,
        datagrams_per_second: rates.datagrams_per_second,
        flows_per_second: rates.flows_per_second,
        bits_per_second: rates.bits_per_second,
        sampling: sampling(status, config, without_rate_last_hour),
        unmetered_since_ms: status.nothing_metered_since_ms(known.meter),
        templates: status.domains.iter().map(|domain| domain.templates).sum(),
        pending_sets: status.domains.iter().map(|domain| domain.pending_sets).sum(),
        sequence_lost: status.sequence_lost,
        lost_percent: lost_percent(status),
        rejected: rejected(status),
        domains: status
            .domains
            .iter()
            .map(|domain| Domain {
                observation_domain: domain.observation_domain,
                protocol: protocol_name(domain.protocol_version),
                templates: domain.template_list.iter().map(template).collect(),
                templates_known: domain.templates,
                pending_sets: domain.pending_sets,
                sequence_lost: domain.sequence_lost,
                port: domain.port,
                clock_off_ms: domain.clock_off_ms(),
                agent: domain.agent,
                sampling_rate: domain.sampling_rate,
                sampling_divisor: domain.sampling_divisor.max(1),
                sampling_implausible: domain.sampling_implausible,
                sampling_source: domain.sampling_source.clone(),
                rates_ended: domain.rates_ended,
            })
            .collect(),
        interfaces: status.interfaces.iter().map(interface).collect(),
        records: records::facts(status),
        ..known
    };
    view.problems = if status.is_refused() {
        vec![refused(status.address)]
    } else {
        let mut problems = problems(&view, config);
        problems.extend(records::problems(status, config));
        problems
    };
    view
}

/// It is heard and not read: everything else follows from that.
fn refused(address: Address) -> Problem {
    Problem {
        what: "refused",
        advice: format!(
            "Its datagrams arrive and are not read, because collector.allowed_exporters does not hold {address}. If it is \
             one of ours, add it to the list: that takes effect within seconds."
        ),
    }
}

/// An exporter that is configured and was never heard.
pub(crate) fn never_heard(address: Address, config: &ExporterConfig) -> ExporterView {
    let mut view = from_config(address, Some(config));
    view.problems = problems(&view, Some(config));
    view
}

fn from_config(address: Address, config: Option<&ExporterConfig>) -> ExporterView {
    let unlisted = ExporterConfig::unlisted(address);
    let effective = config.unwrap_or(&unlisted);
    ExporterView {
        address,
        name: effective.name_of(address),
        site: effective.site.clone(),
        configured: config.is_some(),
        meter: effective.meter,
        direction: effective.metered_direction(),
        hearing: Hearing::Silent,
        first_heard_ms: None,
        last_heard_ms: None,
        protocols: Vec::new(),
        datagrams: 0,
        datagram_bytes: 0,
        flows: 0,
        flows_discarded: 0,
        bytes_scaled: 0,
        datagrams_per_second: 0.0,
        flows_per_second: 0.0,
        bits_per_second: 0.0,
        sampling: Sampling::default(),
        unmetered_since_ms: None,
        templates: 0,
        pending_sets: 0,
        sequence_lost: 0,
        lost_percent: None,
        rejected: Vec::new(),
        domains: Vec::new(),
        interfaces: Vec::new(),
        truth: Vec::new(),
        records: Vec::new(),
        snmp: None,
        problems: Vec::new(),
    }
}

/// A rate, for people: `1,000` or `3/2`.
pub(crate) fn rate_words(rate: u32, divisor: u32) -> String {
    match divisor {
        0 | 1 => crate::format::grouped(u64::from(rate)),
        divisor => format!("{rate}/{divisor}"),
    }
}

/// How far a clock is off, for people: `45 min behind`.
pub(crate) fn clock_words(off_ms: i64) -> String {
    let seconds = off_ms.unsigned_abs() / 1000;
    let amount = match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    format!("{amount} {}", if off_ms < 0 { "behind" } else { "ahead of" })
}

/// Why none of its flows may count, and what to do.
fn unmetered_words(meter: MeterMode, since_ms: i64) -> String {
    let since = crate::format::minute_and_zone(since_ms, &jiff::tz::TimeZone::UTC);
    match meter {
        MeterMode::Boundary => format!(
            "None of its flows has counted since {since}. It meters by boundary, and none of them went from an external interface \
             to an internal one or back: compare external_interfaces with the interfaces below. One that names the same interface \
             for both ways, such as a host on the uplink, is metered with meter = \"addresses\"."
        ),
        MeterMode::Addresses | MeterMode::Off => format!(
            "None of its flows has counted since {since}. It meters by addresses, and none of them went between an address of a \
             service or of own_networks and another: assign prefixes to services or list own_networks. If another exporter meters \
             this traffic, set meter = \"off\"."
        ),
    }
}

fn problems(view: &ExporterView, config: Option<&ExporterConfig>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |what, advice: String| problems.push(Problem { what, advice });
    if view.last_heard_ms.is_none() {
        add(
            "never heard",
            "It is configured, but no datagram came from this address. Check the flow server, the source address and the \
             firewall on the way."
                .to_owned(),
        );
        return problems;
    }
    match view.hearing {
        Hearing::Heard => {}
        Hearing::Late => add("late", "Nothing came for more than 2 minutes.".to_owned()),
        Hearing::Silent => add(
            "silent",
            "Nothing came for more than 15 minutes: its windows are gaps, not zeros, and services metered here are \
             not measured."
                .to_owned(),
        ),
    }
    if view.sampling.unknown {
        let flows = crate::format::grouped(view.sampling.flows_without_rate_last_hour);
        let undecided = [SamplingSource::Ambiguous, SamplingSource::SamplerNotAnnounced].map(SamplingSource::words);
        let domains = || view.domains.iter();
        let advice = match domains().find(|domain| undecided.contains(&domain.sampling_source.as_str())) {
            Some(domain) => format!(
                "{flows} flows of the last hour have no rate: {}. They are kept and not billed, whatever default is \
                 configured. Set sampling_rate to what the router samples at.",
                domain.sampling_source
            ),
            None => format!(
                "{flows} flows of the last hour have no known rate. They are kept and not billed. Export sampling options \
                 from the router, or set default_sampling_rate as in the snippet."
            ),
        };
        add("unknown sampling rate", advice);
    }
    if config.is_none() {
        add(
            "not configured",
            "It is metered by addresses under default settings. Add it with the snippet to give it a name and a site."
                .to_owned(),
        );
    }
    if view.meter == MeterMode::Boundary && config.is_some_and(ExporterConfig::names_no_external_interface) {
        add(
            "nothing metered",
            "It meters by boundary, and no interface is external. List the interfaces that face other networks."
                .to_owned(),
        );
    } else if let Some(since_ms) = view.unmetered_since_ms {
        add("nothing metered", unmetered_words(view.meter, since_ms));
    }
    if view.pending_sets > 0 && view.flows == 0 {
        add(
            "no templates",
            "Its data waits for templates. Lower the template refresh rate on the router.".to_owned(),
        );
    }
    let waits = |domain: &&Domain| domain.pending_sets > 0 && domain.templates_known == 0;
    if let Some(waiting) = view.domains.iter().find(waits)
        && view
            .domains
            .iter()
            .any(|domain| domain.templates_known > 0 && domain.port != waiting.port)
    {
        add(
            "templates from another port",
            format!(
                "Data from UDP port {} waits for templates, which came from another port only. If one router sends both, set \
                 sessions = \"address\" for it; if there are two behind this address, wait for the other's templates.",
                waiting.port
            ),
        );
    }
    if let Some(domain) = view.domains.iter().find(|domain| domain.sampling_implausible) {
        add(
            "implausible sampling rate",
            format!(
                "It says that it samples one packet in {}, which no exporter does or which is orders of magnitude from what it said \
                 before. Compare with its configuration, and set sampling_rate to what is right.",
                rate_words(domain.sampling_rate.unwrap_or(0), domain.sampling_divisor)
            ),
        );
    }
    let clock_off_ms = view.domains.iter().filter_map(|domain| domain.clock_off_ms);
    if let Some(off_ms) = clock_off_ms.max_by_key(|off_ms| off_ms.unsigned_abs()) {
        add(
            "clock is off",
            format!(
                "Its headers give a time that is {} the collector's, so its flows are counted in other windows than they crossed. \
                 Set its clock by NTP.",
                clock_words(off_ms)
            ),
        );
    }
    if let Some(agent) = view.domains.iter().find_map(|domain| domain.agent) {
        add(
            "agent address in use",
            format!(
                "It says that it is sFlow agent {agent}, and another source does, too. It is called by its UDP source. Give each \
                 agent an address of its own, or list both sources as exporters."
            ),
        );
    }
    if view
        .lost_percent
        .is_some_and(|percent| percent > LOSS_TOLERATED_PERCENT)
    {
        add(
            "losses",
            "Its sequence numbers have gaps: datagrams are lost on the way or dropped here. Compare with the drops of the \
             sockets below."
                .to_owned(),
        );
    }
    problems
}

/// What is scaled by, of the newest information.
fn sampling(status: &ExporterStatus, config: Option<&ExporterConfig>, without_rate_last_hour: u64) -> Sampling {
    let mut sampling = Sampling {
        unknown: without_rate_last_hour > 0,
        flows_without_rate_last_hour: without_rate_last_hour,
        flows_without_rate: status.flows_without_rate,
        ..Sampling::default()
    };
    let told = status
        .domains
        .iter()
        .filter_map(|domain| Some((domain.sampling_rate?, domain.sampling_source.as_str())));
    let mut told: Vec<(u32, &str)> = told.filter(|(rate, _)| *rate > 0).collect();
    told.sort_unstable();
    told.dedup();
    (sampling.rate, sampling.source) = match (config.and_then(|config| config.sampling_rate), told.as_slice()) {
        (Some(rate), _) => (Some(rate), "configured override".to_owned()),
        (None, [(rate, source)]) => (Some(*rate), (*source).to_owned()),
        (None, [_, _, ..]) => (
            (status.sampling_rate > 0).then_some(status.sampling_rate),
            "differs by observation domain, see below".to_owned(),
        ),
        (None, []) if status.sampling_rate > 0 => (Some(status.sampling_rate), "as of its last flows".to_owned()),
        (None, []) => (None, "not reported".to_owned()),
    };
    sampling
}

/// NetFlow v5, v7 and IPFIX number records; v9 and sFlow number datagrams (RFC 7011 §3.1, RFC 3954 §5.1).
fn lost_percent(status: &ExporterStatus) -> Option<f64> {
    let by_datagram = |version: &u8| !matches!(*version, 5 | 7 | IPFIX);
    let numbered_by_datagram = status
        .protocol_versions
        .iter()
        .filter(|version| by_datagram(version))
        .count();
    let received = if numbered_by_datagram == 0 {
        status.flows
    } else if numbered_by_datagram == status.protocol_versions.len() {
        status.datagrams
    } else {
        return None;
    };
    let sent = received.saturating_add(status.sequence_lost);
    if sent == 0 {
        return None;
    }
    Some(status.sequence_lost as f64 * 100.0 / sent as f64)
}

fn rejected(status: &ExporterStatus) -> Vec<Count> {
    status
        .counters
        .iter()
        .filter(|(name, value)| **value > 0 && (name.contains("rejected") || name.contains("dropped")))
        .map(|(name, value)| Count {
            counter: name.clone(),
            value: *value,
        })
        .collect()
}

fn template(template: &TemplateStatus) -> Template {
    /// A length of this means that each record says its own (RFC 7011 §7).
    const VARIABLE: u16 = u16::MAX;
    let fields = template.fields.iter().map(|field| match field.length_bytes {
        VARIABLE => format!("{} (variable)", field.name),
        length_bytes => format!("{} ({length_bytes})", field.name),
    });
    Template {
        id: template.id,
        kind: match template.kind {
            TemplateKind::Data => "data",
            TemplateKind::Options => "options",
        },
        last_seen_ms: template.last_seen_ms,
        fields: fields.collect(),
    }
}

fn interface(interface: &InterfaceStatus) -> Interface {
    Interface {
        if_index: interface.if_index,
        name: None,
        description: String::new(),
        speed_bps: 0,
        boundary: match interface.boundary {
            Boundary::External => "external",
            Boundary::Internal => "internal",
            Boundary::Unknown => "unknown",
        },
        in_flows: interface.in_flows,
        out_flows: interface.out_flows,
        in_bytes_scaled: interface.in_bytes_scaled,
        out_bytes_scaled: interface.out_bytes_scaled,
        last_seen_ms: interface.last_seen_ms,
    }
}

/// What makes an interface busy: its volume, then its flows.
pub(crate) fn weight(interface: &Interface) -> (u64, u64) {
    (
        interface.in_bytes_scaled.saturating_add(interface.out_bytes_scaled),
        interface.in_flows.saturating_add(interface.out_flows),
    )
}

/// Indexes of interfaces, the busiest first.
pub(crate) fn busiest(interfaces: &[Interface]) -> Vec<u32> {
    let mut sorted: Vec<&Interface> = interfaces.iter().collect();
    sorted.sort_by_key(|interface| (std::cmp::Reverse(weight(interface)), interface.if_index));
    sorted.iter().map(|interface| interface.if_index).collect()
}

pub(crate) fn socket(socket: &SocketStatus) -> SocketView {
    SocketView {
        kind: serde_json::to_value(socket.kind)
            .ok()
            .and_then(|kind| kind.as_str().map(str::to_owned))
            .unwrap_or_default(),
        address: socket.address.to_string(),
        port: socket.address.port(),
        datagrams: socket.datagrams,
        bytes: socket.bytes,
        kernel_dropped: socket.kernel_dropped,
        queue_dropped: socket.queue_dropped,
        receive_buffer_bytes: socket.receive_buffer_bytes,
    }
}

/// `NetFlow v5`, `IPFIX`, `sFlow v5`.
pub(crate) fn protocol_name(version: u8) -> String {
    match version {
        IPFIX => "IPFIX".to_owned(),
        SFLOW => "sFlow v5".to_owned(),
        version => format!("NetFlow v{version}"),
    }
}
