//! sFlow version 5 (sflow.org/sflow_version_5.txt): sampled packets and interface counters.
//!
//! Promises:
//! * Every datagram is counted once, decoded or rejected, under its agent; under its UDP source when its head cannot be
//!   read; under `::` when a limit is reached, so that forged addresses do not grow the counts. Every sample that is
//!   reached is counted once: flow record, not IP, counter sample, ignored, or rejected (F2).
//! * One bad sample loses that sample only. A sample that reaches beyond the datagram is counted rejected and ends it,
//!   because nothing behind it can be found.
//! * Nothing is allocated from a length field; state is bounded by [`SflowLimits`].
//! * The exporter is the agent address, the observation domain the sub-agent id. Agents that say no address are known by
//!   their UDP source. Where two sources claim one agent and sub-agent, each has numbers of its own, and only one has the agent's
//!   address for a name (`SflowDecoder::name_of`): the other is known by its UDP source.
//! * A flow is one sampled packet: `packets` = 1, `bytes` = layer 3 of that packet, `sampling_rate` its sample's own unless
//!   the configuration overrides it.
//!
//! ```text
//! version 5 | agent address | sub-agent | sequence | uptime ms | n × (format, length, sample)
//! ```
//!
//! The crate sflow-parser is not used here, only compared with in the tests: it allocates up to 100 MB for a length that a
//! datagram claims, copies every record, and one damaged record makes it refuse the whole datagram.

mod sample;
mod xdr;

#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas::address::Address;
use schemas::metering::{ExporterTable, MeteringConfig, TunnelMode};
use serde::{Deserialize, Serialize};
use tables::flow::{Flow, PROTOCOL_SFLOW5, marks};

use self::sample::DataSource;
use self::xdr::{Xdr, XdrError};
use super::copies::LastDatagrams;
use super::ingress::IngressInterfaces;
use super::recent::Recent;
use super::{Datagram, Decoded, InterfaceCounters};
use crate::counts::{CountKey, Counter, Counts};
use crate::sequence::SequenceTracker;

const SFLOW_VERSION: u32 = 5;
const FORMAT_FLOW_SAMPLE: u32 = 1;
const FORMAT_COUNTER_SAMPLE: u32 = 2;
const FORMAT_FLOW_SAMPLE_EXPANDED: u32 = 3;
const FORMAT_COUNTER_SAMPLE_EXPANDED: u32 = 4;

/// An agent is known by its address: the port it sends from plays no part.
const PORT_OF_NO_PART: u16 = 0;

/// A sequence number farther ahead than this is a restart, not a loss: it counts datagrams.
const SEQUENCE_LOSS_MAX: u32 = 1_000_000;

/// Bounds of the state that agents can make the decoder keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SflowLimits {
    /// Pairs of agent and sub-agent; datagrams of further ones are rejected and counted. Agents that the configuration
    /// lists always have a place.
    pub agents_max: usize,
    /// Sub-agents of one agent.
    pub sub_agents_max: usize,
    /// Pairs of agent and sub-agent that one UDP source may speak for: the agent's address is only what a datagram claims,
    /// so that one sender could otherwise use up all places.
    pub agents_per_source_max: usize,
    /// Where there are `agents_max`, those that are not listed and were not heard for so long are forgotten.
    pub silence_max_ms: i64,
    /// A source that was silent for so long gives its agent's name to another one that claims it.
    pub name_silence_max_ms: i64,
    /// Data sources remembered per agent; further ones are decoded but not listed.
    pub sources_per_agent_max: usize,
    /// Interfaces remembered per agent; further ones are decoded but not listed.
    pub interfaces_per_agent_max: usize,
    /// UDP sources of unreadable datagrams that are counted by name; further ones are counted under `::`.
    pub strangers_max: usize,
}

impl Default for SflowLimits {
    fn default() -> SflowLimits {
        SflowLimits {
            agents_max: 4_096,
            sub_agents_max: 256,
            agents_per_source_max: 1_024,
            silence_max_ms: 24 * 60 * 60 * 1000,
            name_silence_max_ms: 10 * 60 * 1000,
            sources_per_agent_max: 1_024,
            interfaces_per_agent_max: 4_096,
            strangers_max: 1_024,
        }
    }
}

/// What is known of one agent and sub-agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    pub exporter: Address,
    /// The address that it claims, where that is another's name; `::` otherwise.
    #[serde(default)]
    pub agent: Address,
    pub sub_agent: u32,
    /// UTC ms of its latest datagram.
    pub last_heard_ms: i64,
    /// Sequence number of its latest datagram.
    pub sequence: u32,
    pub uptime_ms: u32,
    /// The UDP source that it was heard from.
    #[serde(default)]
    pub source: Address,
    /// Which of its datagrams are missing.
    #[serde(default)]
    pub numbers: SequenceTracker,
    #[serde(default)]
    last_datagrams: LastDatagrams,
    /// Datagrams that are known to be lost.
    #[serde(default)]
    pub lost: u64,
    /// In order of kind and index.
    pub sources: Vec<SourceStatus>,
    /// Interfaces that samples named, ascending.
    pub interfaces: Vec<u32>,
    /// Of checkpoints before it was known of all sub-agents together.
    #[serde(default, skip_serializing)]
    ingress: IngressInterfaces,
}

/// A data source and the rate its latest flow sample named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// 0 = an interface by ifIndex, 1 = a VLAN, 2 = a physical entity.
    pub kind: u32,
    pub index: u32,
    pub sampling_rate: u32,
}

/// The decoder's whole state but its configuration: restoring it and decoding the same datagrams gives the same flows
/// and counts (F1).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SflowCheckpoint {
    /// In order of exporter and sub-agent.
    pub agents: Vec<AgentStatus>,
    /// Where each exporter samples packets on their way in, whatever its sub-agents.
    #[serde(default)]
    ingress: BTreeMap<Address, IngressInterfaces>,
    /// UDP sources of unreadable datagrams, ascending.
    pub strangers: Vec<Address>,
}

/// Who speaks: an agent's address is only what a datagram claims.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct AgentKey {
    agent: Address,
    sub_agent: u32,
    source: Address,
}

#[derive(Debug)]
struct Agent {
    /// Its name.
    exporter: Address,
    last_heard_ms: i64,
    sequence: u32,
    uptime_ms: u32,
    numbers: SequenceTracker,
    last_datagrams: LastDatagrams,
    lost: u64,
    sources: BTreeMap<DataSource, u32>,
    interfaces: BTreeSet<u32>,
    /// Of these two what samples named last.
    recent_sources: Recent<(DataSource, u32)>,
    recent_interfaces: Recent<u32>,
}

/// What the configuration says of one agent.
#[derive(Clone, Copy, Debug, Default)]
struct Configured {
    fixed: Option<u32>,
    default: Option<u32>,
    tunnels: TunnelMode,
}

/// Decodes sFlow datagrams.
#[derive(Debug)]
pub struct SflowDecoder {
    limits: SflowLimits,
    configured: ExporterTable<Configured>,
    /// Of agents that neither say a rate nor have a default of their own.
    default_rate: Option<u32>,
    agents: BTreeMap<AgentKey, Agent>,
    /// By exporter: a packet that came in at one line card goes out at another, which is another sub-agent.
    ingress: BTreeMap<Address, IngressInterfaces>,
    /// How many of them each UDP source was first heard with.
    agents_by_source: HashMap<Address, usize>,
    strangers: BTreeSet<Address>,
}

/// The fixed head of a datagram.
struct Head {
    agent: Address,
    sub_agent: u32,
    sequence: u32,
    uptime_ms: u32,
    sample_count: u32,
}

/// Counts of one datagram, gathered before they go to the shared map.
#[derive(Default)]
struct Tally {
    flow_records: u64,
    without_rate: u64,
    discarded: u64,
    second_observations: u64,
    not_ip: u64,
    tunnels_cut: u64,
    counter_samples: u64,
    counter_records_ignored: u64,
    ignored: u64,
    rejected: u64,
}

impl SflowDecoder {
    /// Takes the sampling rates of `sampling`'s exporters; its boundaries are not the decoder's business.
    pub fn new(limits: SflowLimits, sampling: &MeteringConfig) -> SflowDecoder {
        let mut decoder = SflowDecoder {
            limits,
            configured: ExporterTable::default(),
            default_rate: None,
            agents: BTreeMap::new(),
            ingress: BTreeMap::new(),
            agents_by_source: HashMap::new(),
            strangers: BTreeSet::new(),
        };
        decoder.set_sampling(sampling);
        decoder
    }

    /// Replaces the configured sampling rates, for the datagrams decoded from here on.
    pub fn set_sampling(&mut self, sampling: &MeteringConfig) {
        self.configured = ExporterTable::of(sampling, |exporter| Configured {
            fixed: exporter.sampling_rate.filter(|rate| *rate > 0),
            default: exporter.default_sampling_rate.filter(|rate| *rate > 0),
            tunnels: exporter.tunnels,
        });
        self.name_listed();
        self.default_rate = sampling.decoding.default_sampling_rate.filter(|rate| *rate > 0);
    }

    /// Calls agents by their UDP source where the configuration lists that and not their address: how a collision is put right.
    fn name_listed(&mut self) {
        for (key, agent) in &mut self.agents {
            if self.configured.lists(key.source) && !self.configured.lists(key.agent) {
                agent.exporter = key.source;
            }
        }
        self.forget_unused_ingress();
    }

    /// Forgets where exporters sample of which no agent is left.
    fn forget_unused_ingress(&mut self) {
        let named: BTreeSet<Address> = self.agents.values().map(|agent| agent.exporter).collect();
        self.ingress.retain(|exporter, _| named.contains(exporter));
    }

    /// Forgets agents that are not listed and were silent for long, where there are as many as there may be. What was missing
    /// of their datagrams is counted as lost.
    pub fn forget_silent(&mut self, out: &mut Decoded) {
        if self.agents.len() < self.limits.agents_max {
            return;
        }
        let Some(now_ms) = self.agents.values().map(|agent| agent.last_heard_ms).max() else {
            return;
        };
        let oldest_ms = now_ms.saturating_sub(self.limits.silence_max_ms);
        let configured = &self.configured;
        self.agents.retain(|key, agent| {
            let stays = configured.lists(agent.exporter) || agent.last_heard_ms >= oldest_ms;
            if !stays {
                let missing = agent.numbers.waiting();
                out.counts
                    .add(count_key(agent.exporter, key.sub_agent), Counter::SequenceLost, missing);
            }
            stays
        });
        self.forget_unused_ingress();
        self.agents_by_source = count_by_source(&self.agents);
    }

    /// Counts every datagram that is still waited for as lost.
    pub fn give_up_gaps(&mut self, out: &mut Decoded) {
        for (key, agent) in &mut self.agents {
            let lost = agent.numbers.give_up();
            agent.lost += lost;
            out.counts
                .add(count_key(agent.exporter, key.sub_agent), Counter::SequenceLost, lost);
        }
    }

    /// Whether an agent that was never heard may be remembered.
    fn has_room_for(&self, exporter: Address, source: Address) -> bool {
        let of_source = self.agents_by_source.get(&source).copied().unwrap_or(0);
        let is_full = self.agents.len() >= self.limits.agents_max || of_source >= self.limits.agents_per_source_max;
        if is_full && !self.configured.lists(exporter) {
            return false;
        }
        let of_exporter = self.agents.values().filter(|agent| agent.exporter == exporter);
        of_exporter.count() < self.limits.sub_agents_max
    }

    /// What an agent that was never heard is called, and who must give up that name for it.
    ///
    /// * A source that the configuration lists is called by its own address, unless it lists the agent's.
    /// * Otherwise the agent's address is the name of the first source that claims it, as long as it is heard. A source that
    ///   claims it after that was silent for [`SflowLimits::name_silence_max_ms`], or goes on with its numbers and its uptime, is the
    ///   same agent with another source.
    /// * Whoever claims an address that another speaks under is called by its source: a forged datagram cannot take a name away.
    fn name_of(&self, key: AgentKey, head: &Head, now_ms: i64) -> (Address, Option<AgentKey>) {
        if key.agent == key.source {
            return (key.agent, None);
        }
        if self.configured.lists(key.source) && !self.configured.lists(key.agent) {
            return (key.source, None);
        }
        let from = AgentKey {
            source: Address([0; 16]),
            ..key
        };
        let to = AgentKey {
            source: Address([0xff; 16]),
            ..key
        };
        let holder = self
            .agents
            .range(from..=to)
            .find(|(_, agent)| agent.exporter == key.agent);
        match holder {
            None => (key.agent, None),
            Some((holder, agent))
                if holder.source != holder.agent
                    && (now_ms.saturating_sub(agent.last_heard_ms) > self.limits.name_silence_max_ms
                        || agent.goes_on_with(head, now_ms)) =>
            {
                (key.agent, Some(*holder))
            }
            Some(_) => (key.source, None),
        }
    }

    /// Appends the flows, interface counters and counts of one datagram to `out`; answers which exporter spoke.
    pub fn decode(&mut self, datagram: &Datagram<'_>, out: &mut Decoded) -> Address {
        let mut xdr = Xdr::new(datagram.payload);
        let head = match read_head(&mut xdr) {
            Ok(head) => head,
            Err(cause) => {
                let key = self.stranger_key(datagram.source);
                count_datagram(datagram, key, cause, &mut out.counts);
                return datagram.source;
            }
        };
        let claimed = match head.agent {
            Address::UNSPECIFIED => datagram.source,
            agent => agent,
        };
        let name = AgentKey {
            agent: claimed,
            sub_agent: head.sub_agent,
            source: datagram.source,
        };
        if !self.agents.contains_key(&name) {
            let (exporter, former) = self.name_of(name, &head, datagram.received_at_ms);
            if let Some(former) = former
                && let Some(agents) = self.agents_by_source.get_mut(&former.source)
            {
                *agents = agents.saturating_sub(1);
            }
            let agent = match former.and_then(|former| self.agents.remove(&former)) {
                Some(agent) => agent,
                None if self.has_room_for(exporter, datagram.source) => Agent::new(exporter, &head),
                None => {
                    let nobody = count_key(Address::UNSPECIFIED, 0);
                    count_datagram(datagram, nobody, Counter::DatagramsRejectedLimit, &mut out.counts);
                    return claimed;
                }
            };
            self.agents.insert(name, agent);
            *self.agents_by_source.entry(datagram.source).or_default() += 1;
        }
        let Some(agent) = self.agents.get_mut(&name) else {
            return claimed;
        };
        let exporter = agent.exporter;
        let key = count_key(exporter, head.sub_agent);
        if agent.last_datagrams.is_copy(head.sequence, datagram.payload) {
            count_datagram(datagram, key, Counter::DatagramsRejectedDuplicate, &mut out.counts);
            return exporter;
        }
        count_datagram(datagram, key, Counter::DatagramsDecoded, &mut out.counts);
        let observed = agent
            .numbers
            .observe_within(head.sequence, Some(1), Some(head.uptime_ms), SEQUENCE_LOSS_MAX);
        agent.lost += observed.lost;
        let of_sequence = [
            (Counter::SequenceLost, observed.lost),
            (Counter::SequenceReset, u64::from(observed.reset)),
            (Counter::SequenceReordered, u64::from(observed.reordered)),
        ];
        out.counts.add_several(key, &of_sequence);
        if !observed.reordered {
            agent.sequence = head.sequence;
            agent.uptime_ms = head.uptime_ms;
        }
        agent.last_heard_ms = agent.last_heard_ms.max(datagram.received_at_ms);

        let configured = self
            .configured
            .get(exporter, PORT_OF_NO_PART)
            .copied()
            .unwrap_or_default();
        let ingress = self.ingress.entry(exporter).or_default();
        let mut tally = Tally::default();
        for _ in 0..head.sample_count {
            let (Ok(format), Ok(body)) = (xdr.u32(), xdr.opaque()) else {
                tally.rejected += 1;
                break;
            };
            match format {
                FORMAT_FLOW_SAMPLE | FORMAT_FLOW_SAMPLE_EXPANDED => {
                    let Ok(sample) =
                        sample::flow_sample(body, format == FORMAT_FLOW_SAMPLE_EXPANDED, configured.tunnels)
                    else {
                        tally.rejected += 1;
                        continue;
                    };
                    agent.saw_source(sample.source, sample.sampling_rate, self.limits);
                    let Some(mut flow) = sample.flow else {
                        tally.not_ip += 1;
                        continue;
                    };
                    agent.saw_interface(flow.in_if, self.limits);
                    agent.saw_interface(flow.out_if, self.limits);
                    flow.received_at_ms = datagram.received_at_ms;
                    flow.start_at_ms = datagram.received_at_ms;
                    flow.end_at_ms = datagram.received_at_ms;
                    flow.exporter = exporter;
                    flow.observation_domain = head.sub_agent;
                    flow.sampling_rate = chosen_rate(configured, self.default_rate, sample.sampling_rate);
                    if is_second_observation(ingress, &flow) {
                        flow.marks |= marks::SECOND_OBSERVATION;
                        tally.second_observations += 1;
                    }
                    tally.flow_records += 1;
                    tally.tunnels_cut += u64::from(sample.tunnel_is_cut);
                    tally.discarded += u64::from(flow.was_discarded());
                    tally.without_rate += u64::from(flow.sampling_rate == 0);
                    out.flows.push(flow);
                }
                FORMAT_COUNTER_SAMPLE | FORMAT_COUNTER_SAMPLE_EXPANDED => {
                    let template = InterfaceCounters {
                        received_at_ms: datagram.received_at_ms,
                        exporter,
                        observation_domain: head.sub_agent,
                        ..InterfaceCounters::default()
                    };
                    let expanded = format == FORMAT_COUNTER_SAMPLE_EXPANDED;
                    let before = out.counters.len();
                    let Ok(sample) = sample::counter_sample(body, expanded, template, &mut out.counters) else {
                        tally.rejected += 1;
                        continue;
                    };
                    tally.counter_samples += 1;
                    tally.counter_records_ignored += sample.records_ignored;
                    for counters in &out.counters[before..] {
                        agent.saw_interface(counters.if_index, self.limits);
                    }
                }
                _ => tally.ignored += 1,
            }
        }
        tally.add_to(key, &mut out.counts);
        exporter
    }

    /// The state as of the last datagram.
    pub fn checkpoint(&self) -> SflowCheckpoint {
        SflowCheckpoint {
            agents: self.agents(),
            ingress: self.ingress.clone(),
            strangers: self.strangers.iter().copied().collect(),
        }
    }

    fn stranger_key(&mut self, source: Address) -> CountKey {
        if self.strangers.len() < self.limits.strangers_max {
            self.strangers.insert(source);
        }
        match self.strangers.contains(&source) {
            true => count_key(source, 0),
            false => count_key(Address::UNSPECIFIED, 0),
        }
    }

    /// A decoder that goes on from `checkpoint`.
    pub fn restore(limits: SflowLimits, sampling: &MeteringConfig, checkpoint: SflowCheckpoint) -> SflowDecoder {
        let mut decoder = SflowDecoder::new(limits, sampling);
        decoder.ingress = checkpoint.ingress;
        for agent in checkpoint.agents.iter().filter(|agent| !agent.ingress.is_empty()) {
            let ingress = decoder.ingress.entry(agent.exporter).or_default();
            ingress.take_over(&agent.ingress);
        }
        let agents = checkpoint.agents.into_iter().map(|status| {
            let sources = status.sources.into_iter().map(|source| {
                let key = DataSource {
                    kind: source.kind,
                    index: source.index,
                };
                (key, source.sampling_rate)
            });
            let agent = Agent {
                exporter: status.exporter,
                last_heard_ms: status.last_heard_ms,
                sequence: status.sequence,
                uptime_ms: status.uptime_ms,
                numbers: status.numbers,
                last_datagrams: status.last_datagrams,
                lost: status.lost,
                sources: sources.collect(),
                interfaces: status.interfaces.into_iter().collect(),
                recent_sources: Recent::default(),
                recent_interfaces: Recent::default(),
            };
            let agent_key = AgentKey {
                agent: match status.agent {
                    Address::UNSPECIFIED => status.exporter,
                    claimed => claimed,
                },
                sub_agent: status.sub_agent,
                source: status.source,
            };
            (agent_key, agent)
        });
        decoder.agents = agents.collect();
        decoder.name_listed();
        decoder.agents_by_source = count_by_source(&decoder.agents);
        decoder.strangers = checkpoint.strangers.into_iter().take(limits.strangers_max).collect();
        decoder
    }

    /// What is known of each agent, in order of exporter and sub-agent.
    pub fn agents(&self) -> Vec<AgentStatus> {
        let statuses = self.agents.iter().map(|(key, agent)| {
            let sources = agent.sources.iter().map(|(source, rate)| SourceStatus {
                kind: source.kind,
                index: source.index,
                sampling_rate: *rate,
            });
            AgentStatus {
                exporter: agent.exporter,
                agent: if key.agent == agent.exporter {
                    Address::UNSPECIFIED
                } else {
                    key.agent
                },
                sub_agent: key.sub_agent,
                last_heard_ms: agent.last_heard_ms,
                sequence: agent.sequence,
                uptime_ms: agent.uptime_ms,
                source: key.source,
                numbers: agent.numbers.clone(),
                last_datagrams: agent.last_datagrams.clone(),
                lost: agent.lost,
                sources: sources.collect(),
                interfaces: agent.interfaces.iter().copied().collect(),
                ingress: IngressInterfaces::default(),
            }
        });
        let mut statuses: Vec<AgentStatus> = statuses.collect();
        statuses.sort_by_key(|status| (status.exporter, status.sub_agent, status.agent, status.source));
        statuses
    }
}

impl Agent {
    fn new(exporter: Address, head: &Head) -> Agent {
        Agent {
            exporter,
            last_heard_ms: i64::MIN,
            sequence: head.sequence,
            uptime_ms: head.uptime_ms,
            numbers: SequenceTracker::default(),
            last_datagrams: LastDatagrams::default(),
            lost: 0,
            sources: BTreeMap::new(),
            interfaces: BTreeSet::new(),
            recent_sources: Recent::default(),
            recent_interfaces: Recent::default(),
        }
    }

    /// Whether a datagram is the next one of this agent, whatever its source: by number and by uptime.
    fn goes_on_with(&self, head: &Head, received_at_ms: i64) -> bool {
        const MISSING_MAX: u32 = 64;
        const START_TOLERANCE_MS: u64 = 5_000;
        let passed_ms = i64::from(head.uptime_ms.wrapping_sub(self.uptime_ms) as i32);
        let elapsed_ms = received_at_ms.saturating_sub(self.last_heard_ms);
        passed_ms.abs_diff(elapsed_ms) <= START_TOLERANCE_MS
            && self
                .numbers
                .step_to(head.sequence)
                .is_some_and(|step| step <= MISSING_MAX)
    }

    #[inline]
    fn saw_source(&mut self, source: DataSource, sampling_rate: u32, limits: SflowLimits) {
        if self.recent_sources.holds(source.index, (source, sampling_rate)) {
            return;
        }
        let has_room = self.sources.len() < limits.sources_per_agent_max;
        match self.sources.entry(source) {
            Entry::Occupied(mut entry) => {
                entry.insert(sampling_rate);
            }
            Entry::Vacant(entry) if has_room => {
                entry.insert(sampling_rate);
            }
            Entry::Vacant(_) => return,
        }
        self.recent_sources.note(source.index, (source, sampling_rate));
    }

    #[inline]
    fn saw_interface(&mut self, if_index: u32, limits: SflowLimits) {
        if if_index == 0 || self.recent_interfaces.holds(if_index, if_index) {
            return;
        }
        if self.interfaces.len() < limits.interfaces_per_agent_max {
            self.interfaces.insert(if_index);
            self.recent_interfaces.note(if_index, if_index);
        }
    }
}

impl Tally {
    fn add_to(&self, key: CountKey, counts: &mut Counts) {
        let amounts = [
            (Counter::FlowRecords, self.flow_records),
            (Counter::FlowsWithoutRate, self.without_rate),
            (Counter::FlowsDiscarded, self.discarded),
            (Counter::FlowsSecondObservation, self.second_observations),
            (Counter::SamplesNotIp, self.not_ip),
            (Counter::TunnelsCut, self.tunnels_cut),
            (Counter::CounterSamples, self.counter_samples),
            (Counter::CounterRecordsIgnored, self.counter_records_ignored),
            (Counter::SamplesIgnored, self.ignored),
            (Counter::SamplesRejected, self.rejected),
        ];
        counts.add_several(key, &amounts);
    }
}

/// A packet is sampled where its data source is: one sampled on its way out, whose input interface is sampled too, had its chance
/// there, and both samples together would count it twice. `ingress` is of its exporter, whichever sub-agents sample.
fn is_second_observation(ingress: &mut IngressInterfaces, flow: &Flow) -> bool {
    const INGRESS: u8 = 0;
    const EGRESS: u8 = 1;
    match flow.direction {
        INGRESS => ingress.note(flow.in_if, flow.received_at_ms),
        EGRESS => return flow.in_if != 0 && ingress.observes(flow.in_if, flow.received_at_ms),
        _ => {}
    }
    false
}

fn count_by_source(agents: &BTreeMap<AgentKey, Agent>) -> HashMap<Address, usize> {
    let mut counted = HashMap::new();
    for key in agents.keys() {
        *counted.entry(key.source).or_default() += 1;
    }
    counted
}

/// Most specific first: configured override, the sample's own, configured default of the agent, then of the collector;
/// 0 = not known.
fn chosen_rate(configured: Configured, default_rate: Option<u32>, of_sample: u32) -> u32 {
    let default = configured.default.or(default_rate);
    match (configured.fixed, of_sample) {
        (Some(rate), _) => rate,
        (None, 0) => default.unwrap_or(0),
        (None, rate) => rate,
    }
}

fn count_key(exporter: Address, observation_domain: u32) -> CountKey {
    CountKey {
        exporter,
        observation_domain,
        protocol_version: PROTOCOL_SFLOW5,
    }
}

fn count_datagram(datagram: &Datagram<'_>, key: CountKey, outcome: Counter, counts: &mut Counts) {
    let amounts = [
        (Counter::Datagrams, 1),
        (Counter::DatagramBytes, datagram.payload.len() as u64),
        (outcome, 1),
    ];
    counts.add_several(key, &amounts);
}

/// Reads the head, or says which counter its failure belongs to.
fn read_head(xdr: &mut Xdr<'_>) -> Result<Head, Counter> {
    let short = |_: XdrError| Counter::DatagramsRejectedShort;
    if xdr.u32().map_err(short)? != SFLOW_VERSION {
        return Err(Counter::DatagramsRejectedVersion);
    }
    let agent = xdr.address().map_err(|error| match error {
        XdrError::Truncated => Counter::DatagramsRejectedShort,
        XdrError::AddressType => Counter::DatagramsRejectedVersion,
    })?;
    Ok(Head {
        agent: agent.or_unspecified(),
        sub_agent: xdr.u32().map_err(short)?,
        sequence: xdr.u32().map_err(short)?,
        uptime_ms: xdr.u32().map_err(short)?,
        sample_count: xdr.u32().map_err(short)?,
    })
}
