//! What the status needs to know of many flows, summed up beside their encoding so that nobody walks over them twice.

use super::layer2::HeaderSizes;
use schemas::address::Address;
use schemas::sampling::scaled;
use std::collections::HashMap;
use tables::flow::{Boundary, FlowColumns, Metered};

/// Interfaces are first looked for at their index modulo this.
const NEAR_SLOTS: usize = 64;

/// Flows of one minute of arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct MinuteSums {
    pub(super) at_ms: i64,
    pub(super) flows: u64,
    pub(super) bytes_scaled: u64,
}

/// Flows that crossed one interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct InterfaceSums {
    pub(super) if_index: u32,
    pub(super) in_flows: u64,
    pub(super) out_flows: u64,
    pub(super) in_bytes_scaled: u64,
    pub(super) out_bytes_scaled: u64,
    pub(super) last_seen_ms: i64,
    /// As of the last flow.
    pub(super) boundary: Boundary,
}

/// Neighbouring flows of one exporter.
#[derive(Debug)]
pub(super) struct ExporterSums {
    pub(super) exporter: Address,
    /// Of the first flow.
    pub(super) protocol_version: u8,
    pub(super) flows: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) bytes_scaled: u64,
    pub(super) flows_without_rate: u64,
    /// Whether one of them counts for somebody's usage.
    pub(super) is_metered: bool,
    /// The last one that was known.
    pub(super) sampling_rate: Option<u32>,
    pub(super) header_sizes: HeaderSizes,
    pub(super) minutes: Vec<MinuteSums>,
    /// In the order of first appearance.
    pub(super) interfaces: Vec<InterfaceSums>,
    near: [u32; NEAR_SLOTS],
    far: HashMap<u32, u32>,
}

/// Sums of enriched flows, by exporter.
#[derive(Debug, Default)]
pub(crate) struct FlowSummary {
    pub(super) exporters: Vec<ExporterSums>,
}

impl FlowSummary {
    pub(crate) fn of(flows: &FlowColumns) -> FlowSummary {
        let mut summary = FlowSummary::default();
        let mut index: HashMap<[u8; 16], usize> = HashMap::new();
        let mut row = 0;
        for run in flows.exporter.chunk_by(|a, b| a == b) {
            let at = *index.entry(run[0]).or_insert_with(|| {
                let sums = ExporterSums::new(Address(run[0]), flows.protocol_version[row]);
                summary.exporters.push(sums);
                summary.exporters.len() - 1
            });
            summary.exporters[at].add(flows, row..row + run.len());
            row += run.len();
        }
        summary
    }
}

impl ExporterSums {
    fn new(exporter: Address, protocol_version: u8) -> ExporterSums {
        ExporterSums {
            exporter,
            protocol_version,
            flows: 0,
            packets: 0,
            bytes: 0,
            bytes_scaled: 0,
            flows_without_rate: 0,
            is_metered: false,
            sampling_rate: None,
            header_sizes: HeaderSizes::default(),
            minutes: Vec::new(),
            interfaces: Vec::new(),
            near: [u32::MAX; NEAR_SLOTS],
            far: HashMap::new(),
        }
    }

    fn add(&mut self, flows: &FlowColumns, rows: std::ops::Range<usize>) {
        self.flows += rows.len() as u64;
        for row in rows {
            let (bytes, rate) = (flows.bytes[row], flows.sampling_rate[row]);
            let bytes_scaled = scaled(bytes, rate, flows.sampling_divisor[row]);
            self.packets = self.packets.saturating_add(flows.packets[row]);
            self.header_sizes
                .look_at(flows.ip_protocol[row], flows.tcp_flags[row], bytes, flows.packets[row]);
            self.bytes = self.bytes.saturating_add(bytes);
            self.bytes_scaled = self.bytes_scaled.saturating_add(bytes_scaled);
            if rate == 0 {
                self.flows_without_rate += 1;
            } else {
                self.sampling_rate = Some(rate);
            }
            self.is_metered |= flows.metered[row] != Metered::No as u8;
            let at_ms = flows.received_at_ms[row];
            self.minute(at_ms, bytes_scaled);
            let (in_if, out_if) = (flows.in_if[row], flows.out_if[row]);
            // Index 0 means not reported.
            if in_if != 0 {
                let interface = self.interface(in_if, at_ms, flows.in_boundary[row]);
                interface.in_flows += 1;
                interface.in_bytes_scaled = interface.in_bytes_scaled.saturating_add(bytes_scaled);
            }
            if out_if != 0 {
                let interface = self.interface(out_if, at_ms, flows.out_boundary[row]);
                interface.out_flows += 1;
                interface.out_bytes_scaled = interface.out_bytes_scaled.saturating_add(bytes_scaled);
            }
        }
    }

    #[inline]
    fn minute(&mut self, at_ms: i64, bytes_scaled: u64) {
        const MINUTE_MS: i64 = 60_000;
        let is_same = |minute: &&mut MinuteSums| at_ms >= minute.at_ms && at_ms - minute.at_ms < MINUTE_MS;
        match self.minutes.last_mut().filter(is_same) {
            Some(minute) => {
                minute.flows += 1;
                minute.bytes_scaled = minute.bytes_scaled.saturating_add(bytes_scaled);
            }
            None => self.minutes.push(MinuteSums {
                at_ms: at_ms.div_euclid(MINUTE_MS) * MINUTE_MS,
                flows: 1,
                bytes_scaled,
            }),
        }
    }

    #[inline]
    fn interface(&mut self, if_index: u32, at_ms: i64, boundary: u8) -> &mut InterfaceSums {
        let slot = if_index as usize % NEAR_SLOTS;
        let near = self.near[slot] as usize;
        let at = match self.interfaces.get(near) {
            Some(interface) if interface.if_index == if_index => near,
            _ => {
                let at = self.find(if_index, at_ms);
                self.near[slot] = at as u32;
                at
            }
        };
        let interface = &mut self.interfaces[at];
        interface.last_seen_ms = interface.last_seen_ms.max(at_ms);
        interface.boundary = match boundary {
            1 => Boundary::External,
            2 => Boundary::Internal,
            _ => Boundary::Unknown,
        };
        interface
    }

    fn find(&mut self, if_index: u32, at_ms: i64) -> usize {
        let next = self.interfaces.len() as u32;
        let at = *self.far.entry(if_index).or_insert(next);
        if at == next {
            self.interfaces.push(InterfaceSums {
                if_index,
                in_flows: 0,
                out_flows: 0,
                in_bytes_scaled: 0,
                out_bytes_scaled: 0,
                last_seen_ms: at_ms,
                boundary: Boundary::Unknown,
            });
        }
        at as usize
    }
}
