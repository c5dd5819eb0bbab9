//! Datagrams made before the measurement, and what is changed in them each time they are sent.
//!
//! The datagrams are those of the collector's simulated exporters; where their changing parts are is found by reading
//! them as a collector would, by their templates. Sending a datagram writes into it:
//!
//! ```text
//! header     export time, sequence number, observation domain (sFlow: agent address, uptime, samples' sequence and pool)
//! record     first and last packet, so that flows ended as long before the export as when the datagram was made
//!            ephemeral port and the last two bytes of long-tail addresses, which move on with every round
//! ```
//!
//! Bytes and packets stay as they are: the sums of what was sent are known exactly.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use collector::simulate::encode::{SimExporter, SimExporterConfig, SimProtocol, Sums};
use collector::simulate::rng::mix;
use schemas::address::Address;

use crate::flows::{EPHEMERAL_PORT_MIN, Flows, is_tail};

/// One packet in so many is sampled, as the exporters say.
pub(crate) const SAMPLING_RATE: u32 = 1_000;
/// Datagrams that carry templates and options before their records.
const TEMPLATE_DATAGRAMS: usize = 32;
/// Flows encoded at a time; sFlow counter samples follow each batch.
const BATCH_FLOWS: usize = 600;
/// Batches are so far apart that sFlow counters are due.
const BATCH_INTERVAL_MS: i64 = 30_000;
/// One datagram in so many carries IPv6 flows.
const IPV6_DATAGRAM_EVERY: usize = 10;
/// Any instant: times are told relative to the sending.
const MADE_AT_MS: i64 = 1_750_000_000_000;
/// Exporters started so long before the sending.
const UPTIME_MS: i64 = 3_600_000;
const V5_HEADER_BYTES: usize = 24;
const V5_RECORD_BYTES: usize = 48;
/// What a v5 datagram holds at most.
pub(crate) const V5_RECORDS: usize = 30;

/// Where the changing parts of one record are, from the start of the datagram; 0 = there is none.
#[derive(Clone, Copy, Debug, Default)]
struct RecordPatch {
    start_at: u16,
    end_at: u16,
    /// The last two bytes of a long-tail address.
    address_at: u16,
    port_at: u16,
    start_before_ms: u32,
    end_before_ms: u32,
}

#[derive(Clone, Debug)]
struct Datagram {
    /// Range of [`Pool::bytes`].
    start: usize,
    length: usize,
    /// Range of [`Pool::patches`].
    patches: std::ops::Range<usize>,
    /// What the sequence number counts of it.
    sequence_units: u32,
    sums: Sums,
}

/// State of an exporter while sending.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExporterState {
    sequence: u32,
    sample_sequence: u32,
    datagrams: u32,
}

/// The datagrams of a protocol.
#[derive(Debug)]
pub(crate) struct Pool {
    protocol: SimProtocol,
    bytes: Vec<u8>,
    patches: Vec<RecordPatch>,
    datagrams: Vec<Datagram>,
    /// The first so many carry templates.
    templates: usize,
    next: usize,
    next_template: usize,
    round: u64,
}

/// Templates are sent again after so many datagrams of an exporter.
const REFRESH_DATAGRAMS: u32 = 500;

impl Pool {
    /// Makes datagrams of at least `flows` flows.
    pub(crate) fn new(seed: u64, protocol: SimProtocol, flows: usize) -> anyhow::Result<Pool> {
        let mut pool = Pool {
            protocol,
            bytes: Vec::new(),
            patches: Vec::new(),
            datagrams: Vec::new(),
            templates: 0,
            next: 0,
            next_template: 0,
            round: 0,
        };
        let mut source = Flows::new(seed, protocol);
        let mut layouts = Layouts::default();
        let exporter = || SimExporter::new(exporter_config(protocol));
        let mut encoded = Vec::new();
        if matches!(protocol, SimProtocol::V9 | SimProtocol::Ipfix) {
            for _ in 0..TEMPLATE_DATAGRAMS {
                // As many records as fit behind the templates.
                let batch: Vec<_> = (0..4).map(|_| source.next(MADE_AT_MS, false)).collect();
                let sums = exporter().encode(MADE_AT_MS, &batch, &mut encoded)?;
                let [datagram] = encoded.as_slice() else {
                    bail!("templates and four records take {} datagrams", encoded.len());
                };
                pool.add(datagram, &batch, sums, &mut layouts)?;
                encoded.clear();
            }
            pool.templates = pool.datagrams.len();
        }
        let mut exporter = exporter();
        if pool.templates > 0 {
            // Its first datagram, with the templates, is not one of those sent in the long run.
            exporter.encode(MADE_AT_MS, &[source.next(MADE_AT_MS, false)], &mut encoded)?;
            encoded.clear();
        }
        let mut made = 0;
        let mut batches = 0;
        while made < flows {
            let ipv6 = protocol != SimProtocol::V5 && batches % IPV6_DATAGRAM_EVERY == IPV6_DATAGRAM_EVERY - 1;
            // Only sFlow is told another time, because its records carry none.
            let now_ms = match protocol {
                SimProtocol::Sflow => MADE_AT_MS + batches as i64 * BATCH_INTERVAL_MS,
                _ => MADE_AT_MS,
            };
            let batch: Vec<_> = (0..BATCH_FLOWS).map(|_| source.next(now_ms, ipv6)).collect();
            if protocol == SimProtocol::V5 {
                for chunk in batch.chunks(V5_RECORDS) {
                    let sums = exporter.encode(now_ms, chunk, &mut encoded)?;
                    pool.add(&v5_joined(&encoded), chunk, Sums { datagrams: 1, ..sums }, &mut layouts)?;
                    encoded.clear();
                }
            } else {
                exporter.encode(now_ms, &batch, &mut encoded)?;
                let mut rest = batch.as_slice();
                for datagram in encoded.drain(..) {
                    let (taken, left) = rest.split_at(records_in(protocol, &datagram, &mut layouts)?);
                    let sums = Sums {
                        datagrams: 1,
                        flows: taken.len() as u64,
                        bytes: taken.iter().map(|flow| flow.bytes).sum(),
                        packets: taken.iter().map(|flow| flow.packets).sum(),
                        bytes_scaled: 0,
                    };
                    pool.add(&datagram, taken, sums, &mut layouts)?;
                    rest = left;
                }
                if !rest.is_empty() {
                    bail!("{} flows are in no datagram", rest.len());
                }
            }
            made += batch.len();
            batches += 1;
        }
        Ok(pool)
    }

    fn add(
        &mut self,
        datagram: &[u8],
        flows: &[tables::flow::Flow],
        sums: Sums,
        layouts: &mut Layouts,
    ) -> anyhow::Result<()> {
        let first_patch = self.patches.len();
        let mut units = sums.flows as u32;
        match self.protocol {
            SimProtocol::V5 => {
                for (index, flow) in flows.iter().enumerate() {
                    let at = V5_HEADER_BYTES + index * V5_RECORD_BYTES;
                    let record = &datagram[at..at + V5_RECORD_BYTES];
                    self.patches.push(patch(record, at, flow, &V5_LAYOUT));
                }
            }
            SimProtocol::V9 | SimProtocol::Ipfix => {
                let mut rest = flows.iter();
                let mut options = 0;
                layouts.walk(self.protocol, datagram, |set| match set {
                    Set::Record { at, layout } => {
                        let flow = rest.next().context("a datagram has more records than flows")?;
                        let record = &datagram[at..at + layout.bytes];
                        self.patches.push(patch(record, at, flow, layout));
                        Ok(())
                    }
                    Set::Options => {
                        options += 1;
                        Ok(())
                    }
                })?;
                if rest.next().is_some() {
                    bail!("a datagram has fewer records than flows");
                }
                units = if self.protocol == SimProtocol::V9 {
                    1
                } else {
                    units + options
                };
            }
            SimProtocol::Sflow => {
                for at in sflow_flow_samples(datagram) {
                    let start_at = at as u16;
                    self.patches.push(RecordPatch {
                        start_at,
                        ..RecordPatch::default()
                    });
                }
                units = 1;
            }
        }
        self.datagrams.push(Datagram {
            start: self.bytes.len(),
            length: datagram.len(),
            patches: first_patch..self.patches.len(),
            sequence_units: units,
            sums,
        });
        self.bytes.extend_from_slice(datagram);
        Ok(())
    }

    /// The next datagram, as the exporter of `state` sends it at `now_ms`, and what is in it.
    pub(crate) fn next(
        &mut self,
        now_ms: i64,
        boot_at_ms: i64,
        address: Address,
        domain: u32,
        state: &mut ExporterState,
    ) -> (&[u8], Sums) {
        let index = if self.templates > 0 && state.datagrams.is_multiple_of(REFRESH_DATAGRAMS) {
            self.next_template = (self.next_template + 1) % self.templates;
            self.next_template
        } else {
            self.next += 1;
            if self.next >= self.datagrams.len() - self.templates {
                self.next = 0;
                self.round += 1;
            }
            self.templates + self.next
        };
        state.datagrams += 1;
        let datagram = &self.datagrams[index];
        let payload = &mut self.bytes[datagram.start..datagram.start + datagram.length];
        let patches = &self.patches[datagram.patches.clone()];
        let uptime_ms = |at_ms: i64| (at_ms - boot_at_ms) as u32;
        match self.protocol {
            SimProtocol::Ipfix => {
                put_u32(payload, 4, (now_ms / 1_000) as u32);
                put_u32(payload, 8, state.sequence);
                put_u32(payload, 12, domain);
                for patch in patches {
                    let start_ms = (now_ms - i64::from(patch.start_before_ms)) as u64;
                    let end_ms = (now_ms - i64::from(patch.end_before_ms)) as u64;
                    put(payload, patch.start_at, start_ms.to_be_bytes());
                    put(payload, patch.end_at, end_ms.to_be_bytes());
                }
            }
            SimProtocol::V9 | SimProtocol::V5 => {
                if self.protocol == SimProtocol::V9 {
                    // The header's clock has whole seconds: told at the next, uptime and clock agree.
                    let told_at_ms = now_ms + (-now_ms).rem_euclid(1_000);
                    put_u32(payload, 4, uptime_ms(told_at_ms));
                    put_u32(payload, 8, (told_at_ms / 1_000) as u32);
                    put_u32(payload, 12, state.sequence);
                    put_u32(payload, 16, domain);
                } else {
                    put_u32(payload, 4, uptime_ms(now_ms));
                    put_u32(payload, 8, (now_ms / 1_000) as u32);
                    put_u32(payload, 12, (now_ms % 1_000) as u32 * 1_000_000);
                    put_u32(payload, 16, state.sequence);
                    put(payload, 20, (domain as u16).to_be_bytes());
                }
                for patch in patches {
                    let start_ms = uptime_ms(now_ms - i64::from(patch.start_before_ms));
                    let end_ms = uptime_ms(now_ms - i64::from(patch.end_before_ms));
                    put(payload, patch.start_at, start_ms.to_be_bytes());
                    put(payload, patch.end_at, end_ms.to_be_bytes());
                }
            }
            SimProtocol::Sflow => {
                let [.., a, b, c, d] = address.0;
                put(payload, 8, [a, b, c, d]);
                put_u32(payload, 12, domain);
                put_u32(payload, 16, state.sequence);
                put_u32(payload, 20, uptime_ms(now_ms));
                for patch in patches {
                    state.sample_sequence = state.sample_sequence.wrapping_add(1);
                    let pool = state.sample_sequence.wrapping_mul(SAMPLING_RATE);
                    put(payload, patch.start_at + 8, state.sample_sequence.to_be_bytes());
                    put(payload, patch.start_at + 20, pool.to_be_bytes());
                }
            }
        }
        if self.protocol != SimProtocol::Sflow {
            move_on(payload, patches, mix(self.round) as u16);
        }
        state.sequence = state.sequence.wrapping_add(datagram.sequence_units);
        (payload, datagram.sums)
    }
}

/// Ports and long-tail addresses of the next round.
fn move_on(payload: &mut [u8], patches: &[RecordPatch], key: u16) {
    let changed =
        |payload: &[u8], at: u16| u16::from_be_bytes([payload[usize::from(at)], payload[usize::from(at) + 1]]) ^ key;
    for patch in patches {
        if patch.port_at > 0 {
            let port = EPHEMERAL_PORT_MIN | (changed(payload, patch.port_at) & (EPHEMERAL_PORT_MIN - 1));
            put(payload, patch.port_at, port.to_be_bytes());
        }
        if patch.address_at > 0 {
            let low = changed(payload, patch.address_at);
            put(payload, patch.address_at, low.to_be_bytes());
        }
    }
}

fn put<const N: usize>(payload: &mut [u8], at: u16, bytes: [u8; N]) {
    payload[usize::from(at)..usize::from(at) + N].copy_from_slice(&bytes);
}

fn put_u32(payload: &mut [u8], at: u16, value: u32) {
    put(payload, at, value.to_be_bytes());
}

fn exporter_config(protocol: SimProtocol) -> SimExporterConfig {
    let address = Address::from_v4([127, 0, 0, 1]);
    SimExporterConfig {
        refresh_datagrams: u32::MAX,
        refresh_ms: i64::MAX,
        counter_interval_ms: BATCH_INTERVAL_MS,
        ..SimExporterConfig::new(address, 1, protocol, SAMPLING_RATE, MADE_AT_MS - UPTIME_MS)
    }
}

/// The simulated exporter keeps below 1,400 bytes; routers fill version 5 up to 30 records.
fn v5_joined(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut joined = datagrams[0].clone();
    for more in &datagrams[1..] {
        joined.extend_from_slice(&more[V5_HEADER_BYTES..]);
    }
    let records = ((joined.len() - V5_HEADER_BYTES) / V5_RECORD_BYTES) as u16;
    joined[2..4].copy_from_slice(&records.to_be_bytes());
    joined
}

/// Offsets in a record.
#[derive(Clone, Debug, Default)]
struct Layout {
    bytes: usize,
    source: (usize, usize),
    destination: (usize, usize),
    source_port: usize,
    destination_port: usize,
    start: usize,
    end: usize,
    options: bool,
}

static V5_LAYOUT: Layout = Layout {
    bytes: V5_RECORD_BYTES,
    source: (0, 4),
    destination: (4, 4),
    source_port: 32,
    destination_port: 34,
    start: 24,
    end: 28,
    options: false,
};

fn patch(record: &[u8], at: usize, flow: &tables::flow::Flow, layout: &Layout) -> RecordPatch {
    let in_datagram = |offset: usize| (at + offset) as u16;
    let ephemeral = |offset: usize| u16::from_be_bytes([record[offset], record[offset + 1]]) >= EPHEMERAL_PORT_MIN;
    let tail = |(offset, length): (usize, usize)| is_tail(&record[offset..offset + length]);
    let last_two = |(offset, length): (usize, usize)| in_datagram(offset + length - 2);
    RecordPatch {
        start_at: in_datagram(layout.start),
        end_at: in_datagram(layout.end),
        address_at: match (tail(layout.source), tail(layout.destination)) {
            (true, _) => last_two(layout.source),
            (false, true) => last_two(layout.destination),
            (false, false) => 0,
        },
        port_at: match (ephemeral(layout.source_port), ephemeral(layout.destination_port)) {
            (true, _) => in_datagram(layout.source_port),
            (false, true) => in_datagram(layout.destination_port),
            (false, false) => 0,
        },
        start_before_ms: (MADE_AT_MS - flow.start_at_ms) as u32,
        end_before_ms: (MADE_AT_MS - flow.end_at_ms) as u32,
    }
}

/// Templates seen, by id: the simulated exporters use the same in every datagram.
#[derive(Debug, Default)]
struct Layouts(HashMap<u16, Layout>);

enum Set<'a> {
    Record { at: usize, layout: &'a Layout },
    Options,
}

impl Layouts {
    /// Reads the sets of a v9 or IPFIX datagram.
    fn walk(
        &mut self,
        protocol: SimProtocol,
        datagram: &[u8],
        mut visit: impl FnMut(Set<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut at = header_bytes(protocol);
        while at + 4 <= datagram.len() {
            let id = u16_at(datagram, at)?;
            let length = usize::from(u16_at(datagram, at + 2)?);
            let body = datagram
                .get(at + 4..at + length)
                .context("a set passes the end of its datagram")?;
            match id {
                0 | 2 => self.learn(body)?,
                1 | 3 => self.learn_options(protocol, body)?,
                _ => {
                    let layout = self.0.get(&id).with_context(|| format!("no template {id}"))?;
                    if layout.bytes == 0 {
                        bail!("template {id} has no fields");
                    }
                    for index in 0..body.len() / layout.bytes {
                        let at = at + 4 + index * layout.bytes;
                        visit(if layout.options {
                            Set::Options
                        } else {
                            Set::Record { at, layout }
                        })?;
                    }
                }
            }
            at += length.max(4);
        }
        Ok(())
    }

    fn learn(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let mut at = 0;
        while at + 4 <= body.len() {
            let id = u16_at(body, at)?;
            let fields = usize::from(u16_at(body, at + 2)?);
            at += 4;
            let mut layout = Layout::default();
            for _ in 0..fields {
                let (element, length) = (u16_at(body, at)?, usize::from(u16_at(body, at + 2)?));
                let offset = layout.bytes;
                match element {
                    8 | 27 => layout.source = (offset, length),
                    12 | 28 => layout.destination = (offset, length),
                    7 => layout.source_port = offset,
                    11 => layout.destination_port = offset,
                    22 | 152 => layout.start = offset,
                    21 | 153 => layout.end = offset,
                    _ => {}
                }
                layout.bytes += length;
                at += 4;
            }
            self.0.insert(id, layout);
        }
        Ok(())
    }

    fn learn_options(&mut self, protocol: SimProtocol, body: &[u8]) -> anyhow::Result<()> {
        let id = u16_at(body, 0)?;
        // v9 gives the bytes of scope and options, IPFIX the number of all fields.
        let fields = match protocol {
            SimProtocol::V9 => usize::from(u16_at(body, 2)? + u16_at(body, 4)?) / 4,
            _ => usize::from(u16_at(body, 2)?),
        };
        let mut bytes = 0;
        for field in 0..fields {
            bytes += usize::from(u16_at(body, 6 + field * 4 + 2)?);
        }
        let layout = Layout {
            bytes,
            options: true,
            ..Layout::default()
        };
        self.0.insert(id, layout);
        Ok(())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> anyhow::Result<u16> {
    let pair = bytes.get(at..at + 2).context("a datagram ends within a field")?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

fn header_bytes(protocol: SimProtocol) -> usize {
    match protocol {
        SimProtocol::Ipfix => 16,
        SimProtocol::V9 => 20,
        SimProtocol::V5 => V5_HEADER_BYTES,
        SimProtocol::Sflow => 28,
    }
}

/// Flow records (or samples) of a datagram without templates.
fn records_in(protocol: SimProtocol, datagram: &[u8], layouts: &mut Layouts) -> anyhow::Result<usize> {
    if protocol == SimProtocol::Sflow {
        return Ok(sflow_flow_samples(datagram).count());
    }
    let mut records = 0;
    layouts.walk(protocol, datagram, |set| {
        records += usize::from(matches!(set, Set::Record { .. }));
        Ok(())
    })?;
    Ok(records)
}

/// Where the flow samples of an sFlow datagram of an IPv4 agent begin.
fn sflow_flow_samples(datagram: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let word = |at: usize| {
        let bytes = datagram.get(at..at + 4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let mut at = header_bytes(SimProtocol::Sflow);
    std::iter::from_fn(move || {
        loop {
            let (format, length) = (word(at)?, word(at + 4)?);
            let start = at;
            at += 8 + length as usize;
            if format == 1 {
                return Some(start);
            }
        }
    })
}
