//! What stands behind a usage line (B5): its destinations, and the same windows from the flows alone.

use std::collections::HashMap;

use arrow::array::{
    FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use datafusion::prelude::{Expr, col, lit};
use schemas::address::Address;
use schemas::sampling::scaled;
use schemas::window::{WINDOW_MS, WindowStart, spread_within};
use tables::flow::Metered;

use crate::rollup::{ByService, Cells, MeteredColumns, Ranges};
use crate::store::parquet::{column, fold};
use crate::usage::overlapping;
use crate::{Analytics, AnalyticsError, Peer, WindowUsage};

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
    pub(crate) async fn top_peers(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, AnalyticsError> {
        if to_ms <= from_ms {
            return Ok(Vec::new());
        }
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

    /// The windows of a service recomputed from its flows alone, without `usage_5m`: what [`Analytics::usage_windows`]
    /// answers once usage is refreshed (U1, B5).
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn windows_from_flows(
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
            move |cells: &mut Cells<ByService>, batch| cells.add_flows(batch, &ranges),
            Cells::merge,
        )
        .await?;
        Ok(cells.into_rows().iter().map(WindowUsage::from).collect())
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
