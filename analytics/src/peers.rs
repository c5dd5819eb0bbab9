//! What stands behind a usage line (B5): its days, its destinations, and the same sums from the flows alone.

use std::collections::HashMap;

use arrow::array::{
    FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use datafusion::prelude::{Expr, col, lit};
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::sampling::scaled;
use schemas::window::{WINDOW_MS, WindowStart, spread_within};
use tables::flow::Metered;

use crate::series::steps;
use crate::store::{column, fold};
use crate::usage::{Cells, MeteredColumns, Ranges, overlapping};
use crate::{Analytics, AnalyticsError, Peer, Step, WindowUsage};

/// Usage of one service on one local day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct DayUsage {
    /// Local date; the first and last day may be cut by the range.
    #[serde(serialize_with = "as_text")]
    pub date: jiff::civil::Date,
    pub start_ms: i64,
    pub end_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

fn as_text<S: serde::Serializer>(date: &jiff::civil::Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(date)
}

/// Scaled sums of one service, recomputed from flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct FlowTotals {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    /// 5-minute windows with traffic.
    pub windows: u64,
}

#[derive(Clone, Copy, Default)]
struct PeerSums {
    autonomous_system: u32,
    bytes_in: u64,
    bytes_out: u64,
}

type Peers = HashMap<Address, PeerSums>;

impl PeerSums {
    fn add(&mut self, other: &PeerSums) {
        // An address may be reported with several systems (routes move); the choice must not depend on the order of rows.
        self.autonomous_system = self.autonomous_system.max(other.autonomous_system);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
    }
}

/// Flows that count for `service`.
fn of_service(service: u32) -> Expr {
    let received = col("metered")
        .eq(lit(Metered::In as u8))
        .and(col("dst_service").eq(lit(service)));
    let sent = col("metered")
        .eq(lit(Metered::Out as u8))
        .and(col("src_service").eq(lit(service)));
    received.or(sent)
}

impl Analytics {
    /// The remote addresses a service exchanged most with, from stored flows; ties by address. A flow counts with what of it
    /// [`spread`](schemas::window::spread) puts into the windows of `[from_ms, to_ms)`, as usage does: of one that went on when
    /// the service changed hands, each owner sees its part (S1).
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn top_peers(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, AnalyticsError> {
        let from_ms = WindowStart::containing(from_ms).start_ms();
        let to_ms = WindowStart::containing(to_ms.saturating_add(WINDOW_MS - 1)).start_ms();
        let filter = of_service(service).and(overlapping(from_ms, to_ms));
        let names = [
            "start_at",
            "end_at",
            "metered",
            "sampling_rate",
            "sampling_divisor",
            "bytes",
            "src_addr",
            "dst_addr",
            "src_as",
            "dst_as",
        ];
        let frame = self
            .store
            .read(&self.store.flows)?
            .filter(filter)?
            .select_columns(&names)?;
        let merge = |all: &mut Peers, more: Peers| {
            for (address, sums) in more {
                all.entry(address).or_default().add(&sums);
            }
        };
        let add = move |peers: &mut Peers, batch: &RecordBatch| add_peers(peers, batch, (from_ms, to_ms));
        let mut peers: Vec<Peer> = fold(frame, add, merge)
            .await?
            .into_iter()
            .map(|(address, sums)| Peer {
                address,
                autonomous_system: sums.autonomous_system,
                bytes_in: sums.bytes_in,
                bytes_out: sums.bytes_out,
            })
            .filter(|peer| peer.bytes_in > 0 || peer.bytes_out > 0)
            .collect();
        let volume = |peer: &Peer| peer.bytes_in.saturating_add(peer.bytes_out);
        peers.sort_unstable_by(|a, b| volume(b).cmp(&volume(a)).then(a.address.cmp(&b.address)));
        peers.truncate(limit);
        Ok(peers)
    }

    /// Usage of a service by local day, a row for every day that `[from_ms, to_ms)` touches. The rows sum to the totals
    /// of the range.
    ///
    /// # Errors
    /// When the table cannot be read or the range is beyond the calendar.
    pub async fn daily_breakdown(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> Result<Vec<DayUsage>, AnalyticsError> {
        let mut days = Vec::new();
        for (start_ms, end_ms) in steps(from_ms, to_ms, Step::Day, zone)? {
            days.push(DayUsage {
                date: jiff::Timestamp::from_millisecond(start_ms)?
                    .to_zoned(zone.clone())
                    .date(),
                start_ms,
                end_ms,
                bytes_in: 0,
                bytes_out: 0,
            });
        }
        for row in self.usage_rows(Some(&[service]), from_ms, to_ms).await? {
            let position = days.partition_point(|day| day.end_ms <= row.window_start_ms);
            if let Some(day) = days.get_mut(position) {
                day.bytes_in = day.bytes_in.saturating_add(row.cell.bytes_in);
                day.bytes_out = day.bytes_out.saturating_add(row.cell.bytes_out);
            }
        }
        Ok(days)
    }

    /// The windows of a service recomputed from its flows alone, without `usage_5m`: what [`Analytics::usage_windows`]
    /// answers once usage is refreshed (U1, B5).
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn explain_windows(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, AnalyticsError> {
        let ranges = Ranges::of_period(from_ms, to_ms);
        let Some((first_ms, end_ms)) = ranges.hull() else {
            return Ok(Vec::new());
        };
        let frame = self
            .store
            .read(&self.store.flows)?
            .filter(of_service(service).and(overlapping(first_ms, end_ms)))?
            .select_columns(&MeteredColumns::NAMES)?;
        let cells = fold(
            frame,
            move |cells: &mut Cells, batch| cells.add_flows(batch, &ranges),
            Cells::merge,
        )
        .await?;
        Ok(cells.into_rows().iter().map(WindowUsage::from).collect())
    }

    /// The totals of a service over the windows of `[from_ms, to_ms)`, recomputed from its flows alone (B5).
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn explain_flows(&self, service: u32, from_ms: i64, to_ms: i64) -> Result<FlowTotals, AnalyticsError> {
        let mut totals = FlowTotals::default();
        for window in self.explain_windows(service, from_ms, to_ms).await? {
            totals.bytes_in = totals.bytes_in.saturating_add(window.bytes_in);
            totals.bytes_out = totals.bytes_out.saturating_add(window.bytes_out);
            totals.packets_in = totals.packets_in.saturating_add(window.packets_in);
            totals.packets_out = totals.packets_out.saturating_add(window.packets_out);
            totals.windows += 1;
        }
        Ok(totals)
    }
}

fn add_peers(peers: &mut Peers, batch: &RecordBatch, range: (i64, i64)) -> Result<(), AnalyticsError> {
    let start_at = column::<TimestampMillisecondArray>(batch, "start_at")?.values();
    let end_at = column::<TimestampMillisecondArray>(batch, "end_at")?.values();
    let metered = column::<UInt8Array>(batch, "metered")?.values();
    let rate = column::<UInt32Array>(batch, "sampling_rate")?.values();
    let divisor = column::<UInt32Array>(batch, "sampling_divisor")?.values();
    let bytes = column::<UInt64Array>(batch, "bytes")?.values();
    let src_addr = column::<FixedSizeBinaryArray>(batch, "src_addr")?;
    let dst_addr = column::<FixedSizeBinaryArray>(batch, "dst_addr")?;
    let src_as = column::<UInt32Array>(batch, "src_as")?.values();
    let dst_as = column::<UInt32Array>(batch, "dst_as")?.values();
    for row in 0..batch.num_rows() {
        let whole = scaled(bytes[row], rate[row], divisor[row]);
        let volume = spread_within(whole, (start_at[row], end_at[row]), range);
        let (remote, sums) = if metered[row] == Metered::In as u8 {
            let sums = PeerSums {
                autonomous_system: src_as[row],
                bytes_in: volume,
                bytes_out: 0,
            };
            (src_addr.value(row), sums)
        } else {
            let sums = PeerSums {
                autonomous_system: dst_as[row],
                bytes_in: 0,
                bytes_out: volume,
            };
            (dst_addr.value(row), sums)
        };
        if let Some(remote) = Address::from_slice(remote) {
            peers.entry(remote).or_default().add(&sums);
        }
    }
    Ok(())
}
