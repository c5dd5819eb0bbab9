//! NetFlow v5, v7, v9 and IPFIX to flows.
//!
//! Promises:
//!
//! * A pure function of its state and the datagrams in order: no clock, no randomness. [`NetflowDecoder::checkpoint`] holds
//!   the whole state; a decoder restored from it goes on to the same flows (F1).
//! * Each datagram is counted once as decoded or refused, by cause, and each record too (F2).
//! * Nothing that a datagram holds makes it panic, and [`DecodeLimits`] bound what it keeps, exporter by exporter.
//!
//! Templates belong to (exporter address, UDP port, protocol, observation domain, id); [`sessions`] says what a port is worth. Each
//! is compiled to a plan ([`template`]); [`message`] reads headers, [`elements`] says which information element fills which column, [`crate::sampling`] which rate a flow gets,
//! [`crate::times`] when it was, [`session`] how a datagram is walked through, [`exporter`] and [`state`] what is remembered.

mod biflow;
mod columnar;
mod double_counting;
mod elements;
mod exception;
mod exporter;
mod limits;
mod memory;
mod message;
mod names;
mod packed;
mod row_times;
mod scratch;
mod section;
mod semantics;
mod session;
mod sessions;
mod span;
mod spec;
mod state;
mod status;
mod tally;
mod template;
mod totals;
mod v5;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemas::address::Address;
use serde::Serialize;
use tables::flow::Flow;

pub use exporter::NetflowCheckpoint;
pub use limits::DecodeLimits;
pub use names::AnnouncedInterface;
pub use span::ActiveTimeout;
pub use spec::TemplateKind;
pub use status::{DomainStatus, FieldStatus, LISTED_FIELDS_MAX, LISTED_FIELDS_PER_EXPORTER_MAX, TemplateStatus};

use self::exporter::{Exporter, WrittenCheckpoint};
use self::limits::FlowCapacity;
use self::message::{Content, Header, Refused};
use self::scratch::Scratch;
use self::semantics::RowFacts;
use self::session::{Moment, Session, scale};
use self::sessions::{PORT_NOT_KNOWN, SessionMatch, TransportSession};
use self::state::Domain;
use self::tally::Tally;
use self::v5::FixedPlans;
use crate::counts::{CountKey, Counter};
use crate::decode::packet_header::PACKET_BYTES_MAX;
use crate::decode::{Datagram, Decoded};
use crate::sampling::{ChosenRate, DomainKey, FlowScope, SamplingConfig, SamplingSource, choose, v5_rate};

/// Decodes the datagrams of every NetFlow and IPFIX exporter.
#[derive(Debug)]
pub struct NetflowDecoder {
    limits: DecodeLimits,
    sampling: SamplingConfig,
    exporters: BTreeMap<Address, Exporter>,
    /// What waits for templates, of all exporters.
    pending_bytes: usize,
    /// Of the templates of all exporters.
    template_fields: usize,
    /// Flows of all exporters.
    remembered_flows: usize,
    /// Of all exporters that are not listed, as are the next.
    domains_unlisted: usize,
    samplers_unlisted: usize,
    fixed_plans: FixedPlans,
    scratch: Scratch,
}

impl NetflowDecoder {
    pub fn new(limits: DecodeLimits, sampling: SamplingConfig) -> NetflowDecoder {
        NetflowDecoder::restore(limits, sampling, NetflowCheckpoint::default())
    }

    /// A decoder that goes on where the one that gave `checkpoint` stopped.
    pub fn restore(limits: DecodeLimits, sampling: SamplingConfig, checkpoint: NetflowCheckpoint) -> NetflowDecoder {
        let mut exporters = checkpoint.exporters;
        for exporter in exporters.values_mut() {
            // Checkpoints of earlier versions do not have the counts.
            for (_, session) in exporter.sessions.iter_mut() {
                session.domains.values_mut().for_each(Domain::count_template_fields);
            }
            exporter.count();
        }
        let mut decoder = NetflowDecoder {
            limits,
            sampling,
            exporters,
            pending_bytes: 0,
            template_fields: 0,
            remembered_flows: 0,
            domains_unlisted: 0,
            samplers_unlisted: 0,
            fixed_plans: FixedPlans::new(),
            scratch: Scratch::default(),
        };
        decoder.sum_up();
        decoder
    }

    /// Makes the sums over all exporters right whatever they were.
    fn sum_up(&mut self) {
        (self.pending_bytes, self.template_fields, self.remembered_flows) = (0, 0, 0);
        (self.domains_unlisted, self.samplers_unlisted) = (0, 0);
        for (source, exporter) in &self.exporters {
            self.pending_bytes += exporter.pending_bytes;
            self.template_fields += exporter.template_fields;
            self.remembered_flows += exporter.remembered_flows();
            if !self.sampling.lists(*source) {
                self.domains_unlisted += exporter.domains().count();
                self.samplers_unlisted += exporter.samplers();
            }
        }
    }

    /// Everything remembered: templates, announced rates, sequence numbers, waiting data.
    pub fn checkpoint(&self) -> NetflowCheckpoint {
        NetflowCheckpoint {
            exporters: self.exporters.clone(),
        }
    }

    /// The same without a copy, to be written.
    pub(crate) fn written(&self) -> impl Serialize + '_ {
        WrittenCheckpoint {
            exporters: &self.exporters,
        }
    }

    /// Takes a changed configuration; it holds for the flows of later datagrams.
    pub fn set_sampling(&mut self, sampling: SamplingConfig) {
        self.sampling = sampling;
        self.sum_up();
    }

    /// Forgets sessions of exporters that speak in others, and, where there are as many exporters, domains or announced rates as there
    /// may be, exporters that are not listed and their domains, when they were silent for long. What still waited for their
    /// templates is counted as given up, what was missing of their numbers as lost.
    pub fn forget_silent(&mut self, out: &mut Decoded) {
        let is_full = self.domains_unlisted >= self.limits.max_domains_unlisted
            || self.samplers_unlisted >= self.limits.max_samplers_unlisted;
        for (source, exporter) in &mut self.exporters {
            if exporter.sessions.len() < 2 {
                continue;
            }
            let Some(heard_ms) = exporter.last_heard_ms() else {
                continue;
            };
            let oldest_ms = heard_ms.saturating_sub(self.limits.max_session_silence_ms);
            let is_listed = self.sampling.lists(*source);
            for session in exporter.sessions.take_silent(oldest_ms) {
                count_given_up(*source, is_listed, &session, out);
            }
            exporter.count();
        }
        if is_full || self.exporters.len() >= self.limits.max_exporters {
            let heard_ms = self.exporters.values().filter_map(Exporter::last_heard_ms).max();
            if let Some(now_ms) = heard_ms {
                let oldest_ms = now_ms.saturating_sub(self.limits.max_exporter_silence_ms);
                if is_full {
                    self.forget_silent_domains(oldest_ms, out);
                }
                self.forget_silent_exporters(oldest_ms, out);
            }
        }
        self.sum_up();
    }

    /// Forgets domains of exporters that are not listed; with all of its domains a session goes, and what it announced.
    fn forget_silent_domains(&mut self, oldest_ms: i64, out: &mut Decoded) {
        for (source, exporter) in &mut self.exporters {
            if self.sampling.lists(*source) {
                continue;
            }
            for (_, session) in exporter.sessions.iter_mut() {
                session.domains.retain(|key, domain| {
                    let stays = domain.last_heard_ms >= oldest_ms;
                    if !stays {
                        count_waiting(counted_key(*source, false, *key, domain), domain, out);
                    }
                    stays
                });
            }
            exporter.sessions.remove_empty();
            exporter.count();
        }
    }

    fn forget_silent_exporters(&mut self, oldest_ms: i64, out: &mut Decoded) {
        let sampling = &self.sampling;
        self.exporters.retain(|source, exporter| {
            let stays =
                sampling.lists(*source) || exporter.last_heard_ms().is_some_and(|heard_ms| heard_ms >= oldest_ms);
            if !stays {
                for (_, key, domain) in exporter.domains() {
                    count_waiting(counted_key(*source, false, key, domain), domain, out);
                }
            }
            stays
        });
    }

    /// Counts every sequence number that is still waited for as lost.
    pub fn give_up_gaps(&mut self, out: &mut Decoded) {
        for (source, exporter) in &mut self.exporters {
            let is_listed = self.sampling.lists(*source);
            for (_, session) in exporter.sessions.iter_mut() {
                for (key, domain) in &mut session.domains {
                    let lost = domain.sequence.give_up();
                    domain.sequence_lost += lost;
                    let key = counted_key(*source, is_listed, *key, domain);
                    out.counts.add(key, Counter::SequenceLost, lost);
                }
            }
        }
    }

    /// What is known of every exporter and domain, in their order.
    pub fn domains(&self) -> Vec<DomainStatus> {
        status::domains(&self.exporters, &self.sampling)
    }

    /// Decodes one datagram; appends its flows and counts to `out`.
    pub fn decode(&mut self, datagram: &Datagram<'_>, out: &mut Decoded) {
        let mut tally = Tally::new();
        let message = self.decode_message(datagram, datagram.payload, out, &mut tally);
        tally.add(Counter::Datagrams, 1);
        tally.add(Counter::DatagramBytes, datagram.payload.len() as u64);
        tally.add(message.verdict, 1);
        let trailing_bytes = self.decode_further(datagram, message.behind, out);
        tally.add(Counter::DatagramBytesTrailing, trailing_bytes as u64);
        tally.pour(message.key, &mut out.counts);
    }

    /// Decodes the messages behind the first one of a datagram; answers how many bytes are none.
    fn decode_further(&mut self, datagram: &Datagram<'_>, mut rest: &[u8], out: &mut Decoded) -> usize {
        while message::starts_with_message(rest, datagram.payload) {
            let mut tally = Tally::new();
            let message = self.decode_message(datagram, rest, out, &mut tally);
            if message.verdict != Counter::DatagramsDecoded {
                break;
            }
            tally.add(Counter::MessagesFurther, 1);
            tally.pour(message.key, &mut out.counts);
            rest = message.behind;
        }
        rest.len()
    }

    /// Decodes the message at the front of `payload`.
    fn decode_message<'a>(
        &mut self,
        datagram: &Datagram<'_>,
        payload: &'a [u8],
        out: &mut Decoded,
        tally: &mut Tally,
    ) -> Message<'a> {
        let source = datagram.source;
        let refused = |exporter, observation_domain, protocol_version, verdict| Message {
            key: CountKey {
                exporter,
                observation_domain,
                protocol_version,
            },
            verdict,
            behind: &[],
        };
        let is_listed = self.sampling.lists(source);
        if self.exporters.len() >= self.limits.max_exporters && !self.exporters.contains_key(&source) && !is_listed {
            // Counted under no address: otherwise forged sources would grow the counts without bound.
            return refused(Address::UNSPECIFIED, 0, 0, Counter::DatagramsRejectedLimit);
        }
        let exporter = self.exporters.entry(source).or_default();
        let header = match Header::parse(payload) {
            Ok(header) => header,
            Err(Refused(protocol_version, cause)) => return refused(source, 0, protocol_version, cause),
        };
        let key = header.key;
        let config = self.sampling.of_session(source, datagram.source_port);
        let port = if config.joins_ports {
            PORT_NOT_KNOWN
        } else {
            datagram.source_port
        };
        let changed_places =
            exporter
                .sessions
                .change_places(port, key, header.sequence, header.clock, datagram.received_at_ms);
        tally.add(Counter::SessionsMoved, u64::from(changed_places));
        let is_known = exporter
            .sessions
            .get_mut(port)
            .is_some_and(|session| session.domains.contains_key(&key));
        let mut is_new = false;
        if !is_known {
            let received_at_ms = datagram.received_at_ms;
            let max = self.limits.max_sessions_per_exporter;
            let (admitted, evicted) =
                exporter
                    .sessions
                    .admit(port, key, header.sequence, header.clock, received_at_ms, max);
            tally.add(Counter::SessionsMoved, u64::from(admitted == SessionMatch::Moved));
            if let Some(evicted) = evicted {
                count_given_up(source, is_listed, &evicted, out);
                let (pending_bytes, template_fields) = (exporter.pending_bytes, exporter.template_fields);
                exporter.count();
                self.remembered_flows -= evicted.remembered_flows();
                self.pending_bytes -= pending_bytes - exporter.pending_bytes;
                self.template_fields -= template_fields - exporter.template_fields;
                if !is_listed {
                    self.domains_unlisted -= evicted.domains.len();
                    self.samplers_unlisted -= evicted.rates.samplers();
                }
            }
            let session = exporter.sessions.get_mut(port);
            is_new = session.is_none_or(|session| !session.domains.contains_key(&key));
            let is_full = || {
                let is_full_of_unlisted = !is_listed && self.domains_unlisted >= self.limits.max_domains_unlisted;
                is_full_of_unlisted || exporter.domains().count() >= self.limits.max_domains_per_exporter
            };
            if is_new && is_full() {
                exporter.sessions.remove_empty();
                return refused(source, 0, key.protocol_version, Counter::DatagramsRejectedLimit);
            }
        }
        let samplers_elsewhere = match exporter.sessions.len() {
            0 | 1 => 0,
            _ => exporter
                .sessions
                .iter()
                .filter(|(other, _)| *other != port)
                .map(|(_, s)| s.rates.samplers())
                .sum(),
        };
        let Some(session) = exporter.sessions.get_mut(port) else {
            return refused(source, 0, key.protocol_version, Counter::DatagramsRejectedLimit);
        };
        let domain = session.domains.entry(key).or_default();
        self.domains_unlisted += usize::from(is_new && !is_listed);
        let is_first = payload.len() == datagram.payload.len();
        if is_first && domain.last_datagrams.is_copy(header.sequence, payload) {
            return Message {
                key: counted_key(source, is_listed, key, domain),
                verdict: Counter::DatagramsRejectedDuplicate,
                behind: &[],
            };
        }
        domain.last_heard_ms = datagram.received_at_ms;
        let clock_offset_ms = header.clock.export_ms.saturating_sub(datagram.received_at_ms);
        domain.saw_clock(clock_offset_ms);
        let uptime_ms = domain.note_uptime(header.clock, datagram.received_at_ms);
        let restarted = domain.sequence.restarted(header.sequence, uptime_ms);
        if domain.sequence.step_to(header.sequence).is_some_and(|step| step > 0) {
            domain.meaning.spans.saw_gap(header.clock.export_ms);
        }
        let is_off = clock_offset_ms.unsigned_abs() > self.limits.max_clock_skew_ms.unsigned_abs();
        tally.add(Counter::DatagramsClockOff, u64::from(is_off));
        let flows_before = out.flows.len();
        let flows = &mut out.flows;
        let mut behind = header.behind;
        let remembered_before = domain.meaning.remembered() + session.twice.remembered();
        let room = FlowCapacity {
            left: self.limits.max_remembered_flows.saturating_sub(self.remembered_flows),
            max_of_kind: self.limits.max_remembered_flows_per_domain,
        };
        let units = match header.content {
            Content::Records(records) => {
                let mut base = Flow {
                    received_at_ms: datagram.received_at_ms,
                    exporter: source,
                    observation_domain: key.observation_domain,
                    protocol_version: key.protocol_version,
                    exporter_port: datagram.source_port,
                    ..Flow::default()
                };
                let told = v5_rate(records.sampling_word, config.v5_mode_bits.unwrap_or(true));
                let chosen = choose(config, told, &session.rates, key, FlowScope::template(0));
                // The word of a header is its exporter's only announcement.
                let jumped =
                    chosen.source == SamplingSource::PerRecord && domain.rate_jumped(chosen, datagram.received_at_ms);
                domain.sampling = ChosenRate {
                    implausible: chosen.implausible || jumped,
                    ..chosen
                };
                let (first_row, received_at_ms) = (flows.len(), datagram.received_at_ms);
                scale(&mut base, domain.sampling);
                let times = self.limits.times();
                let impossible = records.append(&self.fixed_plans, &base, &times, &mut self.scratch, flows, tally);
                let facts = RowFacts {
                    reading: config.reading,
                    received_at_ms,
                    export_ms: records.clock.export_ms,
                    tells_path: true,
                    tells_direction: false,
                    is_junos: false,
                    of_session_s: session.active_timeout_s,
                    room,
                };
                let (twice, long_rows) = (&mut session.twice, &mut self.scratch.long_rows);
                domain.meaning.finish(flows, first_row, facts, twice, long_rows, tally);
                let count = records.count();
                let kept = u64::from(count) - impossible;
                tally.add(Counter::FlowRecords, kept);
                tally.add(Counter::RecordsRejectedSize, impossible);
                tally.count_rate(domain.sampling, kept);
                Some(count)
            }
            Content::Sets(body) => {
                let before_bytes = domain.pending.bytes();
                let exporter_room_bytes = self
                    .limits
                    .max_pending_bytes_per_exporter
                    .saturating_sub(exporter.pending_bytes);
                let (pending_max_bytes, fields_of_all_max) = if is_listed {
                    (self.limits.max_pending_bytes, usize::MAX)
                } else {
                    (
                        self.limits.max_pending_bytes_unlisted,
                        self.limits.max_template_fields_unlisted,
                    )
                };
                let room_bytes = pending_max_bytes.saturating_sub(self.pending_bytes);
                let fields_before = domain.template_fields;
                let exporter_fields_free = self
                    .limits
                    .max_template_fields_per_exporter
                    .saturating_sub(exporter.template_fields);
                let fields_free = exporter_fields_free.min(fields_of_all_max.saturating_sub(self.template_fields));
                let samplers_before = session.rates.samplers();
                let samplers_free = if is_listed {
                    usize::MAX
                } else {
                    self.limits.max_samplers_unlisted.saturating_sub(self.samplers_unlisted)
                };
                let mut walk = Session {
                    limits: &self.limits,
                    source,
                    source_port: datagram.source_port,
                    key,
                    config,
                    rates: &mut session.rates,
                    samplers_elsewhere,
                    samplers_max: samplers_before.saturating_add(samplers_free),
                    session_boot_ms: &mut session.boot_ms,
                    session_active_timeout_s: &mut session.active_timeout_s,
                    twice: &mut session.twice,
                    domain,
                    restarted,
                    pending_room_bytes: exporter_room_bytes.min(room_bytes),
                    template_fields_max: fields_before.saturating_add(fields_free),
                    room,
                    scratch: &mut self.scratch,
                    tally,
                    flows,
                    interfaces: &mut out.interfaces,
                };
                let moment = Moment {
                    received_at_ms: datagram.received_at_ms,
                    clock: header.clock,
                    sequence: Some(header.sequence),
                };
                let (records, read_bytes) = walk.decode(body, moment);
                behind = if read_bytes < body.len() {
                    &body[read_bytes..]
                } else {
                    behind
                };
                let after_bytes = domain.pending.bytes();
                exporter.pending_bytes = exporter.pending_bytes + after_bytes - before_bytes;
                self.pending_bytes = self.pending_bytes + after_bytes - before_bytes;
                let fields_after = domain.template_fields;
                exporter.template_fields = exporter.template_fields + fields_after - fields_before;
                self.template_fields = self.template_fields + fields_after - fields_before;
                if !is_listed {
                    self.samplers_unlisted = self.samplers_unlisted + session.rates.samplers() - samplers_before;
                }
                domain.had_records |= records.is_some_and(|records| records > 0);
                if key.protocol_version == 9 { Some(1) } else { records }
            }
        };
        let remembered = domain.meaning.remembered() + session.twice.remembered();
        self.remembered_flows = self.remembered_flows + remembered - remembered_before;
        count_sequence(domain, header.sequence, units, uptime_ms, tally);
        domain.had_records |= out.flows.len() > flows_before;
        Message {
            key: counted_key(source, is_listed, key, domain),
            verdict: Counter::DatagramsDecoded,
            behind,
        }
    }
}

/// What became of one message.
struct Message<'a> {
    /// Who its counts belong to.
    key: CountKey,
    /// The one counter that says what became of it.
    verdict: Counter,
    /// What follows it in its datagram.
    behind: &'a [u8],
}

/// Counts what is lost with a session.
fn count_given_up(exporter: Address, is_listed: bool, session: &TransportSession, out: &mut Decoded) {
    for (at, (key, domain)) in session.domains.iter().enumerate() {
        let key = counted_key(exporter, is_listed, *key, domain);
        count_waiting(key, domain, out);
        out.counts.add(key, Counter::SessionsExpired, u64::from(at == 0));
    }
}

/// Counts what a domain still waited for.
fn count_waiting(key: CountKey, domain: &Domain, out: &mut Decoded) {
    out.counts
        .add(key, Counter::SetsDroppedPending, domain.pending.len() as u64);
    out.counts.add(key, Counter::SequenceLost, domain.sequence.waiting());
}

/// Whether a record cannot be what it says: an IP packet has at least its header, and at most [`PACKET_BYTES_MAX`].
#[inline]
fn cannot_be(bytes: u64, packets: u64) -> bool {
    const IP_HEADER_BYTES: u64 = 20;
    // Of whole packets: `bytes < packets × 20`, where that has no 64 bits too.
    ((bytes != 0) & (packets > bytes / IP_HEADER_BYTES)) | is_too_large(bytes, packets)
}

/// Whether that many packets cannot have so many bytes. Without packets nothing is known of one.
#[inline]
fn is_too_large(bytes: u64, packets: u64) -> bool {
    // `bytes > packets × PACKET_BYTES_MAX`, where that has no 64 bits too.
    (packets != 0) & (bytes.div_ceil(PACKET_BYTES_MAX) > packets)
}

/// Who the counts of a domain belong to: its exporter alone where that is not listed and the domain had no records so far. Forged
/// sources that name many domains would fill the counts with them.
fn counted_key(exporter: Address, is_listed: bool, key: DomainKey, domain: &Domain) -> CountKey {
    let is_named = is_listed || domain.had_records;
    CountKey {
        exporter,
        observation_domain: if is_named { key.observation_domain } else { 0 },
        protocol_version: key.protocol_version,
    }
}

fn count_sequence(domain: &mut Domain, sequence: u32, units: Option<u32>, uptime_ms: Option<u32>, tally: &mut Tally) {
    let observed = domain.sequence.observe(sequence, units, uptime_ms);
    domain.sequence_lost += observed.lost;
    tally.add(Counter::SequenceLost, observed.lost);
    tally.add(Counter::SequenceReset, u64::from(observed.reset));
    tally.add(Counter::SequenceReordered, u64::from(observed.reordered));
}

/// Exporters without an ICMP element put type and code into the destination port (Cisco, since v5).
#[inline]
fn icmp_from_port(ip_protocol: u8, dst_port: u16) -> u16 {
    const ICMP: u8 = 1;
    const ICMP_V6: u8 = 58;
    if ip_protocol == ICMP || ip_protocol == ICMP_V6 {
        dst_port
    } else {
        0
    }
}
