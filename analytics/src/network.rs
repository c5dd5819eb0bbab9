//! The whole network in figures: what its services used together, what belongs to none of them, what arrived and what of it cannot
//! be scaled.

use std::collections::BTreeMap;

use arrow::array::{FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt64Array};
use datafusion::prelude::{DataFrame, Expr, col, lit};
use schemas::address::Address;
use schemas::window::{HOUR_MS, WINDOW_MS};

use crate::rollup::read::{VolumeColumns, of_services};
use crate::rollup::{ByInterface, ByService, Key};
use crate::store::parquet::{column, fold};
use crate::store::{Attribution, ExporterCount, WindowCount, WindowVolume};
use crate::usage::windows_between;
use crate::{Analytics, AnalyticsError};

/// Counters of `collection_5m`.
const FLOW_RECORDS: &str = "flow_records";
const FLOWS_WITHOUT_RATE: &str = "flows_without_sampling_rate";
/// The service of traffic that belongs to none.
const UNATTRIBUTED: u32 = 0;

/// Bytes received and sent, by the start of their window.
type Volumes = BTreeMap<i64, (u64, u64)>;

impl Analytics {
    /// By interfaces, which are fewer than services, and have the same sums (U2).
    pub(crate) async fn network_usage(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowVolume>, AnalyticsError> {
        let add = |volumes: &mut Volumes, columns: &VolumeColumns<'_, ByInterface>| {
            for (row, start_ms) in columns.start.iter().enumerate() {
                add_volume(volumes, *start_ms, (columns.bytes_in[row], columns.bytes_out[row]));
            }
        };
        let merge = |all: &mut Volumes, more: Volumes| {
            for (window_start_ms, volume) in more {
                add_volume(all, window_start_ms, volume);
            }
        };
        let pieces = self.pieces::<ByInterface>(from_ms, to_ms, WINDOW_MS)?;
        let volumes: Volumes = self.fold_volume(&pieces, None, add, merge).await?;
        let windows = volumes
            .into_iter()
            .map(|(window_start_ms, (bytes_in, bytes_out))| WindowVolume {
                window_start_ms,
                bytes_in,
                bytes_out,
            });
        Ok(windows.collect())
    }

    pub(crate) async fn attribution(&self, from_ms: i64, to_ms: i64) -> Result<Attribution, AnalyticsError> {
        let total = self.bytes_of::<ByInterface>(from_ms, to_ms, None).await?;
        let unattributed = of_services(&[UNATTRIBUTED]);
        Ok(Attribution {
            total_bytes: total,
            unattributed_bytes: self.bytes_of::<ByService>(from_ms, to_ms, Some(unattributed)).await?,
        })
    }

    /// Bytes of both directions of the rows that pass the filter.
    async fn bytes_of<K: Key>(&self, from_ms: i64, to_ms: i64, filter: Option<Expr>) -> Result<u64, AnalyticsError> {
        let add = |sum: &mut u64, columns: &VolumeColumns<'_, K>| {
            for bytes in columns.bytes_in.iter().chain(columns.bytes_out) {
                *sum = sum.saturating_add(*bytes);
            }
        };
        let pieces = self.pieces::<K>(from_ms, to_ms, HOUR_MS)?;
        self.fold_volume(&pieces, filter, add, |all, more| *all = all.saturating_add(more))
            .await
    }

    pub(crate) async fn flow_records(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowCount>, AnalyticsError> {
        let frame = self.counted(FLOW_RECORDS, from_ms, to_ms, "window_start")?;
        let counts = fold(frame, add_windows, merge_counts).await?;
        let windows = counts
            .into_iter()
            .map(|(window_start_ms, count)| WindowCount { window_start_ms, count });
        Ok(windows.collect())
    }

    pub(crate) async fn flows_without_rate(
        &self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<ExporterCount>, AnalyticsError> {
        let frame = self.counted(FLOWS_WITHOUT_RATE, from_ms, to_ms, "exporter")?;
        let counts = fold(frame, add_exporters, merge_counts).await?;
        let exporters = counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(exporter, count)| ExporterCount { exporter, count });
        Ok(exporters.collect())
    }

    /// What a counter counted in windows that start in the range, with what it is summed by.
    fn counted(&self, counter: &str, from_ms: i64, to_ms: i64, by: &str) -> Result<DataFrame, AnalyticsError> {
        let is_counter = col("counter").eq(lit(counter));
        Ok(self
            .store
            .read(&self.store.collection)?
            .filter(is_counter.and(windows_between(from_ms, to_ms)))?
            .select_columns(&[by, "value"])?)
    }
}

fn add_volume(volumes: &mut Volumes, window_start_ms: i64, (bytes_in, bytes_out): (u64, u64)) {
    let sums = volumes.entry(window_start_ms).or_default();
    *sums = (sums.0.saturating_add(bytes_in), sums.1.saturating_add(bytes_out));
}

fn add_windows(counts: &mut BTreeMap<i64, u64>, batch: &RecordBatch) -> Result<(), AnalyticsError> {
    let window_start = column::<TimestampMillisecondArray>(batch, "window_start")?.values();
    let value = column::<UInt64Array>(batch, "value")?.values();
    for (window_start_ms, value) in window_start.iter().zip(value) {
        add_count(counts, *window_start_ms, *value);
    }
    Ok(())
}

fn add_exporters(counts: &mut BTreeMap<Address, u64>, batch: &RecordBatch) -> Result<(), AnalyticsError> {
    let exporters = column::<FixedSizeBinaryArray>(batch, "exporter")?;
    let value = column::<UInt64Array>(batch, "value")?.values();
    for (row, value) in value.iter().enumerate() {
        if let Some(exporter) = Address::from_slice(exporters.value(row)) {
            add_count(counts, exporter, *value);
        }
    }
    Ok(())
}

fn add_count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, count: u64) {
    let sum = counts.entry(key).or_default();
    *sum = sum.saturating_add(count);
}

fn merge_counts<K: Ord>(all: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (key, count) in more {
        add_count(all, key, count);
    }
}
