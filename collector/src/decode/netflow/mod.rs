//! NetFlow v5, v7, v9 and IPFIX to flows.
//!
//! Promises:
//!
//! * A pure function of its state and the datagrams in order: no clock, no randomness. [`NetflowDecoder::checkpoint`] holds
//!   the whole state; a decoder restored from it goes on to the same flows (F1).
//! * Each datagram is counted once as decoded or refused, by cause, and each record too (F2).
//! * Nothing that a datagram holds makes it panic, and [`DecodeLimits`] bound what it keeps, exporter by exporter.
//!
//! Templates belong to (exporter address, protocol, observation domain, id). Each is compiled to a plan ([`template`]);
//! [`elements`] says which information element fills which column, [`crate::sampling`] which rate a flow gets,
//! [`crate::times`] when it was, [`session`] how a datagram is walked through, [`state`] what is remembered.

mod columnar;
mod elements;
mod limits;
mod section;
mod session;
mod state;
mod status;
mod tally;
mod template;
mod v5;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemas::address::Address;
use schemas::flow::{Flow, FlowColumns};

pub use limits::DecodeLimits;
pub use state::NetflowCheckpoint;
pub use status::{DomainStatus, FieldStatus, LISTED_FIELDS_MAX, LISTED_FIELDS_PER_EXPORTER_MAX, TemplateStatus};
pub use template::TemplateKind;

use self::session::{Moment, Scratch, Session, finish_times};
use self::state::{Domain, Exporter};
use self::tally::Tally;
use self::v5::{FixedDatagram, FixedError};
use self::wire::{be16, be32};
use crate::counts::{CountKey, Counter};
use crate::decode::{Datagram, Decoded, discard};
use crate::sampling::{DomainKey, SamplingConfig, choose, v5_rate};
use crate::sequence::SequenceTracker;
use crate::times::{Clock, TimeKind, resolve};

const V9_HEADER_BYTES: usize = 20;
const IPFIX_HEADER_BYTES: usize = 16;

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
    scratch: Scratch,
}

/// A datagram's header, whatever its version.
#[derive(Debug)]
struct Header<'a> {
    key: DomainKey,
    sequence: u32,
    clock: Clock,
    /// Bytes behind the end that the header gives.
    trailing_bytes: usize,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Records(FixedDatagram<'a>),
    Sets(&'a [u8]),
}

/// Why a datagram was refused, and the version it gave.
struct Refused(u8, Counter);

impl NetflowDecoder {
    pub fn new(limits: DecodeLimits, sampling: SamplingConfig) -> NetflowDecoder {
        NetflowDecoder::restore(limits, sampling, NetflowCheckpoint::default())
    }

    /// A decoder that goes on where the one that gave `checkpoint` stopped.
    pub fn restore(limits: DecodeLimits, sampling: SamplingConfig, checkpoint: NetflowCheckpoint) -> NetflowDecoder {
        let mut exporters = checkpoint.exporters;
        for exporter in exporters.values_mut() {
            // Checkpoints of earlier versions do not have the counts.
            exporter.domains.values_mut().for_each(Domain::count_template_fields);
            exporter.template_fields = exporter.domains.values().map(|domain| domain.template_fields).sum();
        }
        let pending_bytes = exporters.values().map(|exporter| exporter.pending_bytes).sum();
        let template_fields = exporters.values().map(|exporter| exporter.template_fields).sum();
        NetflowDecoder {
            limits,
            sampling,
            exporters,
            pending_bytes,
            template_fields,
            scratch: Scratch::default(),
        }
    }

    /// Everything remembered: templates, announced rates, sequence numbers, waiting data.
    pub fn checkpoint(&self) -> NetflowCheckpoint {
        NetflowCheckpoint {
            exporters: self.exporters.clone(),
        }
    }

    /// Takes a changed configuration; it holds for the flows of later datagrams.
    pub fn set_sampling(&mut self, sampling: SamplingConfig) {
        self.sampling = sampling;
    }

    /// Forgets exporters that are not listed and were silent for long, where there are as many as there may be. What still
    /// waited for their templates is counted as given up, what was missing of their numbers as lost.
    pub fn forget_silent(&mut self, out: &mut Decoded) {
        if self.exporters.len() < self.limits.max_exporters {
            return;
        }
        let Some(now_ms) = self.exporters.values().filter_map(Exporter::last_heard_ms).max() else {
            return;
        };
        let oldest_ms = now_ms.saturating_sub(self.limits.max_exporter_silence_ms);
        let sampling = &self.sampling;
        self.exporters.retain(|source, exporter| {
            let stays =
                sampling.lists(*source) || exporter.last_heard_ms().is_some_and(|heard_ms| heard_ms >= oldest_ms);
            if !stays {
                for (key, domain) in &exporter.domains {
                    let key = count_key(*source, *key);
                    let waiting = domain.pending.len() as u64;
                    out.counts.add(key, Counter::SetsDroppedPending, waiting);
                    out.counts.add(key, Counter::SequenceLost, domain.sequence.waiting());
                }
            }
            stays
        });
        self.pending_bytes = self.exporters.values().map(|exporter| exporter.pending_bytes).sum();
        self.template_fields = self.exporters.values().map(|exporter| exporter.template_fields).sum();
    }

    /// Counts every sequence number that is still waited for as lost.
    pub fn give_up_gaps(&mut self, out: &mut Decoded) {
        for (source, exporter) in &mut self.exporters {
            for (key, domain) in &mut exporter.domains {
                let lost = domain.sequence.give_up();
                out.counts.add(count_key(*source, *key), Counter::SequenceLost, lost);
            }
        }
    }

    /// What is known of every exporter and domain, in their order.
    pub fn domains(&self) -> Vec<DomainStatus> {
        status::domains(&self.exporters)
    }

    /// Decodes one datagram; appends its flows and counts to `out`.
    pub fn decode(&mut self, datagram: &Datagram<'_>, out: &mut Decoded) {
        let mut tally = Tally::new();
        let (key, verdict) = self.decode_counted(datagram, &mut out.flows, &mut tally);
        tally.add(Counter::Datagrams, 1);
        tally.add(Counter::DatagramBytes, datagram.payload.len() as u64);
        tally.add(verdict, 1);
        tally.pour(key, &mut out.counts);
    }

    /// Answers who the datagram's counts belong to, and the one counter that says what became of it.
    fn decode_counted(
        &mut self,
        datagram: &Datagram<'_>,
        flows: &mut FlowColumns,
        tally: &mut Tally,
    ) -> (CountKey, Counter) {
        let source = datagram.source;
        let count_key = |observation_domain, protocol_version| CountKey {
            exporter: source,
            observation_domain,
            protocol_version,
        };
        if self.exporters.len() >= self.limits.max_exporters
            && !self.exporters.contains_key(&source)
            && !self.sampling.lists(source)
        {
            // Counted under no address: otherwise forged sources would grow the counts without bound.
            let nobody = CountKey {
                exporter: Address::UNSPECIFIED,
                ..count_key(0, 0)
            };
            return (nobody, Counter::DatagramsRejectedLimit);
        }
        let exporter = self.exporters.entry(source).or_default();
        let header = match Header::parse(datagram.payload) {
            Ok(header) => header,
            Err(Refused(protocol_version, cause)) => return (count_key(0, protocol_version), cause),
        };
        let key = header.key;
        if exporter.domains.len() >= self.limits.max_domains_per_exporter && !exporter.domains.contains_key(&key) {
            return (count_key(0, key.protocol_version), Counter::DatagramsRejectedLimit);
        }
        exporter.domains.entry(key).or_default();
        let Some(domain) = exporter.domains.get_mut(&key) else {
            return (count_key(0, key.protocol_version), Counter::DatagramsRejectedLimit);
        };
        domain.last_heard_ms = datagram.received_at_ms;
        tally.add(Counter::DatagramBytesTrailing, header.trailing_bytes as u64);
        let config = self.sampling.of(source);
        let units = match header.content {
            Content::Records(records) => {
                let base = Flow {
                    received_at_ms: datagram.received_at_ms,
                    exporter: source,
                    observation_domain: key.observation_domain,
                    protocol_version: key.protocol_version,
                    ..Flow::default()
                };
                let told = v5_rate(records.sampling_word, config.v5_mode_bits.unwrap_or(true));
                domain.sampling = choose(config, told, &exporter.rates, key, 0);
                let without_rate = domain.sampling.rate == 0;
                let times = self.limits.times();
                let mut discarded = 0;
                for (mut flow, first, last) in records.flows(base) {
                    flow.sampling_rate = domain.sampling.rate;
                    discard::mark(&mut flow);
                    discarded += u64::from(flow.was_discarded());
                    let at = |uptime_ms| resolve(TimeKind::SysUptime, u64::from(uptime_ms), records.clock);
                    (flow.start_at_ms, flow.end_at_ms) =
                        finish_times(at(first), at(last), datagram.received_at_ms, &times, tally);
                    flows.push(flow);
                }
                let count = records.count();
                tally.add(Counter::FlowRecords, u64::from(count));
                tally.add(Counter::FlowsDiscarded, discarded);
                tally.add(Counter::FlowsWithoutRate, u64::from(without_rate) * u64::from(count));
                Some(count)
            }
            Content::Sets(body) => {
                let before_bytes = domain.pending.bytes();
                let exporter_room_bytes = self
                    .limits
                    .max_pending_bytes_per_exporter
                    .saturating_sub(exporter.pending_bytes);
                let is_listed = self.sampling.lists(source);
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
                let mut session = Session {
                    limits: &self.limits,
                    source,
                    key,
                    config,
                    rates: &mut exporter.rates,
                    exporter_boot_ms: &mut exporter.boot_ms,
                    domain,
                    pending_room_bytes: exporter_room_bytes.min(room_bytes),
                    template_fields_max: fields_before.saturating_add(fields_free),
                    scratch: &mut self.scratch,
                    tally,
                    flows,
                };
                let moment = Moment {
                    received_at_ms: datagram.received_at_ms,
                    clock: header.clock,
                };
                let records = session.decode(body, moment);
                let after_bytes = domain.pending.bytes();
                exporter.pending_bytes = exporter.pending_bytes + after_bytes - before_bytes;
                self.pending_bytes = self.pending_bytes + after_bytes - before_bytes;
                let fields_after = domain.template_fields;
                exporter.template_fields = exporter.template_fields + fields_after - fields_before;
                self.template_fields = self.template_fields + fields_after - fields_before;
                if key.protocol_version == 9 { Some(1) } else { records }
            }
        };
        count_sequence(
            &mut domain.sequence,
            header.sequence,
            units,
            header.clock.uptime_ms,
            tally,
        );
        (
            count_key(key.observation_domain, key.protocol_version),
            Counter::DatagramsDecoded,
        )
    }
}

/// Who the counts of a domain belong to.
fn count_key(exporter: Address, domain: DomainKey) -> CountKey {
    CountKey {
        exporter,
        observation_domain: domain.observation_domain,
        protocol_version: domain.protocol_version,
    }
}

impl<'a> Header<'a> {
    fn parse(payload: &'a [u8]) -> Result<Header<'a>, Refused> {
        let version = be16(payload, 0).ok_or(Refused(0, Counter::DatagramsRejectedShort))?;
        match version {
            5 => Header::fixed(payload, 5),
            7 => Header::fixed(payload, 7),
            9 => Header::v9(payload).ok_or(Refused(9, Counter::DatagramsRejectedShort)),
            10 => Header::ipfix(payload),
            _ => Err(Refused(0, Counter::DatagramsRejectedVersion)),
        }
    }

    fn fixed(payload: &'a [u8], version: u8) -> Result<Header<'a>, Refused> {
        let records = FixedDatagram::parse(payload, version == 7).map_err(|error| match error {
            FixedError::Short => Refused(version, Counter::DatagramsRejectedShort),
            FixedError::Length => Refused(version, Counter::DatagramsRejectedLength),
        })?;
        Ok(Header {
            key: DomainKey {
                protocol_version: version,
                observation_domain: records.engine,
            },
            sequence: records.sequence,
            clock: records.clock,
            trailing_bytes: records.trailing_bytes,
            content: Content::Records(records),
        })
    }

    /// RFC 3954 §5.1: version, count, uptime ms, seconds, sequence, source id.
    fn v9(payload: &'a [u8]) -> Option<Header<'a>> {
        Some(Header {
            key: DomainKey {
                protocol_version: 9,
                observation_domain: be32(payload, 16)?,
            },
            sequence: be32(payload, 12)?,
            clock: Clock {
                export_ms: i64::from(be32(payload, 8)?) * 1000,
                uptime_ms: Some(be32(payload, 4)?),
            },
            trailing_bytes: 0,
            content: Content::Sets(payload.get(V9_HEADER_BYTES..)?),
        })
    }

    /// RFC 7011 §3.1: version, length, export seconds, sequence, observation domain.
    fn ipfix(payload: &'a [u8]) -> Result<Header<'a>, Refused> {
        let short = || Refused(10, Counter::DatagramsRejectedShort);
        let word = |offset| be32(payload, offset).ok_or_else(short);
        let observation_domain = word(12)?;
        let length = usize::from(be16(payload, 2).ok_or_else(short)?);
        let body = payload
            .get(IPFIX_HEADER_BYTES..length)
            .ok_or(Refused(10, Counter::DatagramsRejectedLength))?;
        Ok(Header {
            key: DomainKey {
                protocol_version: 10,
                observation_domain,
            },
            sequence: word(8)?,
            clock: Clock {
                export_ms: i64::from(word(4)?) * 1000,
                uptime_ms: None,
            },
            trailing_bytes: payload.len() - length,
            content: Content::Sets(body),
        })
    }
}

fn count_sequence(
    tracker: &mut SequenceTracker,
    sequence: u32,
    units: Option<u32>,
    uptime_ms: Option<u32>,
    tally: &mut Tally,
) {
    let observed = tracker.observe(sequence, units, uptime_ms);
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
