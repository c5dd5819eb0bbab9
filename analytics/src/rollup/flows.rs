//! Metered flows as rollups count them.

use arrow::array::{
    FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use schemas::address::Address;
use schemas::sampling::scaled;
use schemas::window::WindowStart;
use tables::flow::Metered;

use super::Ranges;
use crate::AnalyticsError;
use crate::store::parquet::column;

/// What of a flow falls into one window.
pub(super) struct Part {
    pub(super) metered: u8,
    pub(super) bytes: u64,
    pub(super) packets: u64,
    /// Unscaled packets.
    pub(super) samples: u64,
}

/// A metered flow with a known rate, as far as usage is concerned.
pub(crate) struct MeteredFlow {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) metered: u8,
    pub(crate) service: u32,
    rate: u32,
    divisor: u32,
    bytes: u64,
    packets: u64,
}

impl MeteredFlow {
    pub(crate) fn bytes_scaled(&self) -> u64 {
        scaled(self.bytes, self.rate, self.divisor)
    }

    pub(crate) fn packets_scaled(&self) -> u64 {
        scaled(self.packets, self.rate, self.divisor)
    }

    fn is_received(&self) -> bool {
        self.metered == Metered::In as u8
    }

    /// Gives each window of `ranges` its share.
    #[inline]
    pub(super) fn spread(&self, ranges: &Ranges, mut add: impl FnMut(WindowStart, &Part)) {
        let first = WindowStart::containing(self.start_ms);
        let (bytes, packets) = (self.bytes_scaled(), self.packets_scaled());
        if self.end_ms <= first.end_ms() {
            if ranges.contain(first.start_ms()) {
                let part = Part {
                    metered: self.metered,
                    bytes,
                    packets,
                    samples: self.packets,
                };
                add(first, &part);
            }
            return;
        }
        for range in ranges.overlapping(first.start_ms(), self.end_ms) {
            let mut window = WindowStart::containing(range.0.max(first.start_ms()));
            while window.start_ms() < range.1.min(self.end_ms) {
                let share = |amount: u64| share(amount, self.start_ms, self.end_ms, window);
                let part = Part {
                    metered: self.metered,
                    bytes: share(bytes),
                    packets: share(packets),
                    samples: share(self.packets),
                };
                add(window, &part);
                window = window.next();
            }
        }
    }
}

/// The part of `amount` that [`schemas::window::spread`] gives to `window`, without visiting the windows before it: a flow
/// of a month costs no more in one day's computation than that day's windows.
fn share(amount: u64, start_ms: i64, end_ms: i64, window: WindowStart) -> u64 {
    let duration_ms = (end_ms - start_ms) as u128;
    let cumulative = |at_ms: i64| {
        let elapsed_ms = (at_ms.clamp(start_ms, end_ms) - start_ms) as u128;
        (u128::from(amount) * elapsed_ms / duration_ms) as u64
    };
    cumulative(window.end_ms()) - cumulative(window.start_ms())
}

/// The columns of flows that usage is computed from.
pub(crate) struct MeteredColumns<'a> {
    start_at: &'a [i64],
    end_at: &'a [i64],
    metered: &'a [u8],
    rate: &'a [u32],
    divisor: &'a [u32],
    bytes: &'a [u64],
    packets: &'a [u64],
    src_service: &'a [u32],
    dst_service: &'a [u32],
}

impl<'a> MeteredColumns<'a> {
    pub(crate) const NAMES: [&'static str; 9] = [
        "start_at",
        "end_at",
        "metered",
        "sampling_rate",
        "sampling_divisor",
        "bytes",
        "packets",
        "src_service",
        "dst_service",
    ];

    pub(crate) fn of(batch: &'a RecordBatch) -> Result<MeteredColumns<'a>, AnalyticsError> {
        Ok(MeteredColumns {
            start_at: column::<TimestampMillisecondArray>(batch, "start_at")?.values(),
            end_at: column::<TimestampMillisecondArray>(batch, "end_at")?.values(),
            metered: column::<UInt8Array>(batch, "metered")?.values(),
            rate: column::<UInt32Array>(batch, "sampling_rate")?.values(),
            divisor: column::<UInt32Array>(batch, "sampling_divisor")?.values(),
            bytes: column::<UInt64Array>(batch, "bytes")?.values(),
            packets: column::<UInt64Array>(batch, "packets")?.values(),
            src_service: column::<UInt32Array>(batch, "src_service")?.values(),
            dst_service: column::<UInt32Array>(batch, "dst_service")?.values(),
        })
    }

    /// The flow in `row`, or `None` when it does not count.
    #[inline]
    pub(crate) fn flow(&self, row: usize) -> Option<MeteredFlow> {
        let metered = self.metered[row];
        let rate = self.rate[row];
        if metered == Metered::No as u8 || rate == 0 {
            return None;
        }
        let service = if metered == Metered::In as u8 {
            self.dst_service[row]
        } else {
            self.src_service[row]
        };
        Some(MeteredFlow {
            start_ms: self.start_at[row],
            end_ms: self.end_at[row],
            metered,
            service,
            rate,
            divisor: self.divisor[row],
            bytes: self.bytes[row],
            packets: self.packets[row],
        })
    }
}

/// What flows of the network are told apart by, beside their service.
pub(super) struct TrafficColumns<'a> {
    exporter: &'a FixedSizeBinaryArray,
    in_if: &'a [u32],
    out_if: &'a [u32],
    in_boundary: &'a [u8],
    out_boundary: &'a [u8],
    ip_protocol: &'a [u8],
    src_port: &'a [u16],
    dst_port: &'a [u16],
    src_as: &'a [u32],
    dst_as: &'a [u32],
}

impl<'a> TrafficColumns<'a> {
    /// Beside [`MeteredColumns::NAMES`].
    pub(super) const NAMES: [&'static str; 10] = [
        "exporter",
        "in_if",
        "out_if",
        "in_boundary",
        "out_boundary",
        "ip_protocol",
        "src_port",
        "dst_port",
        "src_as",
        "dst_as",
    ];

    pub(super) fn of(batch: &'a RecordBatch) -> Result<TrafficColumns<'a>, AnalyticsError> {
        let bytes = |name| Ok::<&'a [u8], AnalyticsError>(column::<UInt8Array>(batch, name)?.values());
        let ports = |name| Ok::<&'a [u16], AnalyticsError>(column::<UInt16Array>(batch, name)?.values());
        let numbers = |name| Ok::<&'a [u32], AnalyticsError>(column::<UInt32Array>(batch, name)?.values());
        Ok(TrafficColumns {
            exporter: column(batch, "exporter")?,
            in_if: numbers("in_if")?,
            out_if: numbers("out_if")?,
            in_boundary: bytes("in_boundary")?,
            out_boundary: bytes("out_boundary")?,
            ip_protocol: bytes("ip_protocol")?,
            src_port: ports("src_port")?,
            dst_port: ports("dst_port")?,
            src_as: numbers("src_as")?,
            dst_as: numbers("dst_as")?,
        })
    }

    pub(super) fn exporter(&self, row: usize) -> Address {
        Address::from_slice(self.exporter.value(row)).unwrap_or_default()
    }

    /// Index and boundary of the interface that faces the other network.
    pub(super) fn facing(&self, row: usize, flow: &MeteredFlow) -> (u32, u8) {
        if flow.is_received() {
            (self.in_if[row], self.in_boundary[row])
        } else {
            (self.out_if[row], self.out_boundary[row])
        }
    }

    pub(super) fn ip_protocol(&self, row: usize) -> u8 {
        self.ip_protocol[row]
    }

    pub(super) fn ports(&self, row: usize) -> (u16, u16) {
        (self.src_port[row], self.dst_port[row])
    }

    pub(super) fn systems(&self, row: usize) -> (u32, u32) {
        (self.src_as[row], self.dst_as[row])
    }
}
