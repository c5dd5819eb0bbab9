//! What flows say of the interfaces whose counters are followed.
//!
//! A flow is observed where a packet comes in (`direction` 0) or goes out (1), so it tells of the input or of the output
//! interface, never of both: the other one may not be sampled at all. Where the exporter does not say, its configured
//! `direction` does, else packets are taken to be observed where they come in, which is then not certain.
//!
//! An interface counts what is on the wire (RFC 2863, RFC 3635: from the destination address to the frame check sequence),
//! a flow counts IP packets. To each packet belong 14 bytes of Ethernet header, 4 of a VLAN tag where the flow has a VLAN, and
//! 4 of the check sequence; a frame has at least 64 bytes.

use std::collections::HashMap;

use arrow::array::{
    FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use schemas::address::Address;
use schemas::metering::{ExporterTable, MeterDirection, MeterMode, MeteringConfig};
use schemas::sampling::scaled;
use tables::metering::Boundaries;

use super::counter::CounterCoverage;
use crate::AnalyticsError;
use crate::error_bound::Estimate;
use crate::store::parquet::column;

/// Ethernet header and frame check sequence.
const FRAME_BYTES: u64 = 14 + 4;
const VLAN_TAG_BYTES: u64 = 4;
/// Shorter frames are filled up (IEEE 802.3).
const FRAME_BYTES_MIN: u64 = 64;

/// One interface whose counters are followed.
#[derive(Debug)]
pub(super) struct WatchedInterface {
    pub(super) exporter: Address,
    pub(super) if_index: u32,
    /// Received, sent.
    pub(super) counters: [CounterCoverage; 2],
}

/// All of them, and how their exporters' flows are read.
#[derive(Debug, Default)]
pub(super) struct WatchedInterfaces {
    pub(super) interfaces: Vec<WatchedInterface>,
    index: HashMap<(Address, u32), usize>,
    /// How each exporter meters, and in which direction.
    meters: ExporterTable<(MeterMode, MeterDirection)>,
    /// External interfaces of exporters that meter by boundary: every packet that comes in must be observed there for it to
    /// be metered.
    boundaries: Boundaries,
}

impl WatchedInterfaces {
    pub(super) fn new(interfaces: Vec<WatchedInterface>, config: &MeteringConfig) -> WatchedInterfaces {
        let key = |watched: &WatchedInterface| (watched.exporter, watched.if_index);
        WatchedInterfaces {
            index: interfaces.iter().map(key).zip(0..).collect(),
            interfaces,
            meters: ExporterTable::of(config, |exporter| (exporter.meter, exporter.metered_direction())),
            boundaries: Boundaries::new(config),
        }
    }

    /// Whether observations of unknown direction are those of the output.
    fn observes_output(&self, exporter: Address) -> bool {
        let meter = self.meters.get(exporter, 0);
        meter.is_some_and(|(_, direction)| *direction == MeterDirection::Egress)
    }

    /// Whether metering rests on this direction (0 received, 1 sent) of the interface being observed.
    pub(super) fn is_metered(&self, exporter: Address, if_index: u32, direction: usize) -> bool {
        let Some((MeterMode::Boundary, metered)) = self.meters.get(exporter, 0) else {
            return false;
        };
        if !self.boundaries.of(exporter, 0).is_external(if_index) {
            return false;
        }
        match metered {
            MeterDirection::Ingress => direction == 0,
            MeterDirection::Egress => direction == 1,
            MeterDirection::Both => false,
        }
    }
}

/// The flows of one direction of one interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Observed {
    /// On the wire, with its sampling error.
    pub(super) wire: Estimate,
    /// Layer 3.
    pub(super) bytes_scaled: u64,
    /// Unscaled packets.
    pub(super) samples: u64,
    pub(super) flows: u64,
    /// Flows whose sampling rate nobody knows.
    pub(super) flows_without_rate: u64,
    /// Flows that do not say where they were observed.
    pub(super) flows_without_direction: u64,
    /// The largest.
    pub(super) sampling_rate: u32,
}

impl Observed {
    fn add(&mut self, other: &Observed) {
        self.wire.add(&other.wire);
        self.bytes_scaled = self.bytes_scaled.saturating_add(other.bytes_scaled);
        self.samples = self.samples.saturating_add(other.samples);
        self.flows += other.flows;
        self.flows_without_rate += other.flows_without_rate;
        self.flows_without_direction += other.flows_without_direction;
        self.sampling_rate = self.sampling_rate.max(other.sampling_rate);
    }
}

/// Sums by position of the interface, received and sent.
#[derive(Debug, Default)]
pub(super) struct Sums(pub(super) Vec<[Observed; 2]>);

impl Sums {
    pub(super) fn merge(&mut self, other: Sums) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                mine.add(theirs);
            }
        }
    }
}

/// The columns that are read.
pub(super) const COLUMNS: [&str; 12] = [
    "start_at",
    "end_at",
    "exporter",
    "sampling_rate",
    "sampling_divisor",
    "in_if",
    "out_if",
    "direction",
    "in_vlan",
    "out_vlan",
    "bytes",
    "packets",
];

/// Adds the flows of a batch.
pub(super) fn add(sums: &mut Sums, batch: &RecordBatch, watch: &WatchedInterfaces) -> Result<(), AnalyticsError> {
    let start_at = column::<TimestampMillisecondArray>(batch, "start_at")?.values();
    let end_at = column::<TimestampMillisecondArray>(batch, "end_at")?.values();
    let exporters = column::<FixedSizeBinaryArray>(batch, "exporter")?;
    let rate = column::<UInt32Array>(batch, "sampling_rate")?.values();
    let divisor = column::<UInt32Array>(batch, "sampling_divisor")?.values();
    let in_if = column::<UInt32Array>(batch, "in_if")?.values();
    let out_if = column::<UInt32Array>(batch, "out_if")?.values();
    let direction = column::<UInt8Array>(batch, "direction")?.values();
    let in_vlan = column::<UInt16Array>(batch, "in_vlan")?.values();
    let out_vlan = column::<UInt16Array>(batch, "out_vlan")?.values();
    let bytes = column::<UInt64Array>(batch, "bytes")?.values();
    let packets = column::<UInt64Array>(batch, "packets")?.values();
    sums.0.resize(watch.interfaces.len(), [Observed::default(); 2]);
    for row in 0..batch.num_rows() {
        let Some(exporter) = Address::from_slice(exporters.value(row)) else {
            continue;
        };
        let side = match direction[row] {
            0 => 0,
            1 => 1,
            _ => usize::from(watch.observes_output(exporter)),
        };
        let (if_index, vlan) = if side == 0 {
            (in_if[row], in_vlan[row])
        } else {
            (out_if[row], out_vlan[row])
        };
        let Some(position) = watch.index.get(&(exporter, if_index)) else {
            continue;
        };
        let (overlap_ms, duration_ms) =
            watch.interfaces[*position].counters[side].overlap_ms(start_at[row], end_at[row]);
        if overlap_ms == 0 {
            continue;
        }
        let flow = FlowVolume {
            bytes: bytes[row],
            packets: packets[row],
            rate: rate[row],
            divisor: divisor[row],
            has_vlan: vlan != 0,
        };
        let mut observed = flow.observed(overlap_ms, duration_ms);
        observed.flows_without_direction = u64::from(direction[row] > 1);
        sums.0[*position][side].add(&observed);
    }
    Ok(())
}

struct FlowVolume {
    bytes: u64,
    packets: u64,
    rate: u32,
    divisor: u32,
    has_vlan: bool,
}

impl FlowVolume {
    /// On the wire, unscaled.
    fn wire_bytes(&self) -> u64 {
        let overhead = FRAME_BYTES + if self.has_vlan { VLAN_TAG_BYTES } else { 0 };
        let framed = self.bytes.saturating_add(self.packets.saturating_mul(overhead));
        framed.max(self.packets.saturating_mul(FRAME_BYTES_MIN))
    }

    /// The flow's share in an overlap, rounded down.
    fn observed(&self, overlap_ms: u64, duration_ms: u64) -> Observed {
        let share = |amount: u64| (u128::from(amount) * u128::from(overlap_ms) / u128::from(duration_ms)) as u64;
        if self.rate == 0 {
            return Observed {
                flows: 1,
                flows_without_rate: 1,
                ..Observed::default()
            };
        }
        let volume = |amount: u64| scaled(amount, self.rate, self.divisor);
        let wire = volume(self.wire_bytes());
        let mut estimate = Estimate::default();
        if self.rate <= self.divisor.max(1) {
            estimate.add_counted(share(wire));
        } else {
            // The whole flow's variance belongs to it in the same share.
            estimate.add_sampled(wire, self.packets);
            let variance = estimate.variance / u128::from(duration_ms) * u128::from(overlap_ms);
            estimate = Estimate {
                bytes: share(wire),
                variance,
            };
        }
        Observed {
            wire: estimate,
            bytes_scaled: share(volume(self.bytes)),
            samples: share(self.packets),
            flows: 1,
            flows_without_rate: 0,
            flows_without_direction: 0,
            sampling_rate: self.rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_longer_on_the_wire() {
        let wire = |bytes, packets, has_vlan| {
            let flow = FlowVolume {
                bytes,
                packets,
                rate: 1,
                divisor: 1,
                has_vlan,
            };
            flow.wire_bytes()
        };
        assert_eq!(wire(1_500, 1, false), 1_518);
        assert_eq!(wire(1_500, 1, true), 1_522);
        assert_eq!(wire(40, 1, false), 64, "filled up to the smallest frame");
        assert_eq!(wire(15_000, 10, true), 15_220);
    }

    #[test]
    fn a_share_of_a_flow_has_a_share_of_everything() {
        let flow = FlowVolume {
            bytes: 14_820,
            packets: 10,
            rate: 100,
            divisor: 1,
            has_vlan: false,
        };
        let whole = flow.observed(60_000, 60_000);
        assert_eq!(
            (whole.wire.bytes, whole.bytes_scaled, whole.samples),
            (1_500_000, 1_482_000, 10)
        );
        assert_eq!(whole.wire.effective_samples(), Some(10));
        let half = flow.observed(30_000, 60_000);
        assert_eq!(
            (half.wire.bytes, half.bytes_scaled, half.samples),
            (750_000, 741_000, 5)
        );
        assert_eq!(half.wire.effective_samples(), Some(5));
        let exact = FlowVolume { rate: 1, ..flow }.observed(1, 1);
        assert_eq!((exact.wire.bytes, exact.wire.variance), (15_000, 0));
    }
}
