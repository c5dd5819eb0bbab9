//! Flows to volume by service and window.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{RecordBatch, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array};
use schemas::sampling::scaled;
use schemas::window::{WINDOW_MS, WindowStart};
use tables::flow::Metered;

use super::Ranges;
use crate::AnalyticsError;
use crate::error_bound::{Estimate, of_samples_ppm};
use crate::store::parquet::column;

/// Volume of one service in one window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) flows: u64,
    pub(crate) samples: u64,
}

impl Cell {
    /// Whether all of the volume was counted packet by packet. A rate of 2 or more makes more packets than samples.
    fn is_exact(&self) -> bool {
        self.packets_in.saturating_add(self.packets_out) <= self.samples
    }

    /// The window's sampling error, as stored.
    pub(crate) fn error_bound_ppm(&self) -> u32 {
        if self.is_exact() {
            0
        } else {
            of_samples_ppm(self.samples)
        }
    }

    /// Adds the window to a sum over windows.
    pub(crate) fn add_to(&self, sum: &mut Estimate) {
        let bytes = self.bytes_in.saturating_add(self.bytes_out);
        if self.is_exact() {
            sum.add_counted(bytes);
        } else {
            sum.add_sampled(bytes, self.samples);
        }
    }

    fn add(&mut self, other: &Cell) {
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.packets_in = self.packets_in.saturating_add(other.packets_in);
        self.packets_out = self.packets_out.saturating_add(other.packets_out);
        self.flows = self.flows.saturating_add(other.flows);
        self.samples = self.samples.saturating_add(other.samples);
    }

    fn add_part(&mut self, metered: u8, bytes: u64, packets: u64, samples: u64) {
        let (to_bytes, to_packets) = if metered == Metered::In as u8 {
            (&mut self.bytes_in, &mut self.packets_in)
        } else {
            (&mut self.bytes_out, &mut self.packets_out)
        };
        *to_bytes = to_bytes.saturating_add(bytes);
        *to_packets = to_packets.saturating_add(packets);
        self.flows += 1;
        self.samples = self.samples.saturating_add(samples);
    }
}

/// One row of `usage_5m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UsageRow {
    pub(crate) service: u32,
    pub(crate) window_start_ms: i64,
    pub(crate) cell: Cell,
}

/// Keys are small numbers, so one multiplication mixes them well enough; they are not chosen by others, who could only
/// slow down the counting of their own traffic.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Volume by service and window: the service in the upper, the window's number in the lower 32 bits of the key.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    map: HashMap<u64, Cell, BuildHasherDefault<KeyHasher>>,
}

impl Cells {
    #[inline]
    fn cell(&mut self, service: u32, window: WindowStart) -> &mut Cell {
        // Windows are numbered from 1970; 32 bits reach 20,000 years to both sides.
        let number = (window.start_ms() / WINDOW_MS) as i32 as u32;
        let key = (u64::from(service) << 32) | u64::from(number);
        self.map.entry(key).or_default()
    }

    pub(crate) fn merge(&mut self, other: Cells) {
        if self.map.is_empty() {
            *self = other;
            return;
        }
        for (key, cell) in other.map {
            self.map.entry(key).or_default().add(&cell);
        }
    }

    /// All rows, in no particular order.
    pub(super) fn rows(&self) -> impl Iterator<Item = UsageRow> + '_ {
        self.map.iter().map(|(key, cell)| UsageRow {
            service: (key >> 32) as u32,
            window_start_ms: window_start_ms(*key),
            cell: *cell,
        })
    }

    /// Drops the windows before `from_ms`.
    pub(super) fn retain_since(&mut self, from_ms: i64) {
        self.map.retain(|key, _| window_start_ms(*key) >= from_ms);
        self.map.shrink_to_fit();
    }

    /// All rows by (service, window).
    pub(crate) fn into_rows(self) -> Vec<UsageRow> {
        let mut rows: Vec<UsageRow> = self.rows().collect();
        rows.sort_unstable_by_key(|row| (row.service, row.window_start_ms));
        rows
    }

    /// Adds the share of each metered flow in the windows of `ranges`.
    pub(crate) fn add_flows(&mut self, batch: &RecordBatch, ranges: &Ranges) -> Result<(), AnalyticsError> {
        let columns = MeteredColumns::of(batch)?;
        for row in 0..batch.num_rows() {
            let Some(flow) = columns.flow(row) else {
                continue;
            };
            let first = WindowStart::containing(flow.start_ms);
            if flow.end_ms <= first.end_ms() {
                if ranges.contain(first.start_ms()) {
                    self.cell(flow.service, first).add_part(
                        flow.metered,
                        flow.bytes_scaled(),
                        flow.packets_scaled(),
                        flow.packets,
                    );
                }
                continue;
            }
            for range in ranges.overlapping(first.start_ms(), flow.end_ms) {
                let mut window = WindowStart::containing(range.0.max(first.start_ms()));
                while window.start_ms() < range.1.min(flow.end_ms) {
                    let bytes = share(flow.bytes_scaled(), flow.start_ms, flow.end_ms, window);
                    let packets = share(flow.packets_scaled(), flow.start_ms, flow.end_ms, window);
                    let samples = share(flow.packets, flow.start_ms, flow.end_ms, window);
                    self.cell(flow.service, window)
                        .add_part(flow.metered, bytes, packets, samples);
                    window = window.next();
                }
            }
        }
        Ok(())
    }
}

/// The window of a key of [`Cells`].
fn window_start_ms(key: u64) -> i64 {
    i64::from(key as u32 as i32) * WINDOW_MS
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
