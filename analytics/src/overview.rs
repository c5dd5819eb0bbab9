//! Traffic of the whole network over time, stacked by a dimension, for operations.
//!
//! By service it comes from `usage_5m`; by protocol, interface and autonomous system from metered flows, which count as
//! a whole for the step in which they ended (exact spreading matters for money, not here). The autonomous system is that
//! of the remote side; the interface is the one that faces the other network: the input of what was received, the output
//! of what was sent. Steps are aligned in UTC: 5 minutes up to a day, hours up to 32 days (any month), else days.

use std::collections::HashMap;

use arrow::array::{
    FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use datafusion::prelude::{col, lit};
use schemas::address::Address;
use schemas::flow::Metered;
use schemas::ids::ServiceId;
use schemas::sampling::scaled;
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};

use crate::store::{column, fold, instant};
use crate::{Analytics, AnalyticsError, Dimension, Overview, OverviewSeries};

/// Steps of one overview at most; a longer range ends there.
const STEPS_MAX: i64 = 4_000;

/// Longest range in steps of an hour: any month with a day to spare, at most 769 steps.
const HOURLY_MAX_MS: i64 = 32 * DAY_MS;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Key {
    Number(u32),
    Interface(Address, u32),
}

impl Key {
    fn text(self, by: Dimension) -> String {
        match self {
            Key::Number(0) if by == Dimension::Service => "unattributed".to_owned(),
            Key::Number(number) if by == Dimension::Service => ServiceId::from(number).to_string(),
            Key::Number(number) => number.to_string(),
            Key::Interface(exporter, index) => format!("{exporter} {index}"),
        }
    }
}

type Volumes = HashMap<(Key, u32), u64>;

fn merge(all: &mut Volumes, more: Volumes) {
    for (key, bytes) in more {
        let sum = all.entry(key).or_default();
        *sum = sum.saturating_add(bytes);
    }
}

/// Width of a step for a range.
fn step_of(range_ms: i64) -> i64 {
    if range_ms <= DAY_MS {
        WINDOW_MS
    } else if range_ms <= HOURLY_MAX_MS {
        HOUR_MS
    } else {
        DAY_MS
    }
}

impl Analytics {
    /// Metered traffic over time stacked by a dimension, largest first; at most `limit` keys beside `other`.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn overview(
        &self,
        from_ms: i64,
        to_ms: i64,
        by: Dimension,
        limit: usize,
    ) -> Result<Overview, AnalyticsError> {
        let step_ms = step_of(to_ms - from_ms);
        let first_ms = from_ms.div_euclid(step_ms) * step_ms;
        let to_ms = to_ms.min(first_ms + STEPS_MAX * step_ms).max(from_ms);
        let starts_ms: Vec<i64> = (first_ms..to_ms).step_by(step_ms as usize).collect();
        let volumes = match by {
            Dimension::Service => self.volume_by_service(from_ms, to_ms, first_ms, step_ms).await?,
            _ => self.volume_by_flows(from_ms, to_ms, first_ms, step_ms, by).await?,
        };
        Ok(Overview {
            from_ms,
            to_ms,
            step_ms,
            series: stack(volumes, starts_ms.len(), by, limit),
            starts_ms,
        })
    }

    async fn volume_by_service(
        &self,
        from_ms: i64,
        to_ms: i64,
        first_ms: i64,
        step_ms: i64,
    ) -> Result<Volumes, AnalyticsError> {
        let mut volumes = Volumes::new();
        for row in self.usage_rows(None, from_ms, to_ms).await? {
            let step = ((row.window_start_ms - first_ms) / step_ms) as u32;
            let sum = volumes.entry((Key::Number(row.service), step)).or_default();
            *sum = sum.saturating_add(row.cell.bytes_in.saturating_add(row.cell.bytes_out));
        }
        Ok(volumes)
    }

    async fn volume_by_flows(
        &self,
        from_ms: i64,
        to_ms: i64,
        first_ms: i64,
        step_ms: i64,
        by: Dimension,
    ) -> Result<Volumes, AnalyticsError> {
        let filter = col("metered")
            .not_eq(lit(Metered::No as u8))
            .and(col("end_at").gt_eq(instant(from_ms)))
            .and(col("end_at").lt(instant(to_ms)));
        let mut names = vec!["end_at", "metered", "sampling_rate", "sampling_divisor", "bytes"];
        names.extend(match by {
            Dimension::Interface => &["exporter", "in_if", "out_if"][..],
            Dimension::As => &["src_as", "dst_as"][..],
            Dimension::Protocol | Dimension::Service => &["ip_protocol"][..],
        });
        let frame = self
            .store
            .read(&self.store.flows)?
            .filter(filter)?
            .select_columns(&names)?;
        let add = move |volumes: &mut Volumes, batch: &RecordBatch| add_flows(volumes, batch, first_ms, step_ms, by);
        fold(frame, add, merge).await
    }
}

fn add_flows(
    volumes: &mut Volumes,
    batch: &RecordBatch,
    first_ms: i64,
    step_ms: i64,
    by: Dimension,
) -> Result<(), AnalyticsError> {
    let end_at = column::<TimestampMillisecondArray>(batch, "end_at")?.values();
    let metered = column::<UInt8Array>(batch, "metered")?.values();
    let rate = column::<UInt32Array>(batch, "sampling_rate")?.values();
    let divisor = column::<UInt32Array>(batch, "sampling_divisor")?.values();
    let bytes = column::<UInt64Array>(batch, "bytes")?.values();
    let mut add = |row: usize, key: Key| {
        let step = ((end_at[row] - first_ms) / step_ms) as u32;
        let sum = volumes.entry((key, step)).or_default();
        *sum = sum.saturating_add(scaled(bytes[row], rate[row], divisor[row]));
    };
    // What was received came from the source's side, what was sent went to the destination's.
    let received = |row: usize| metered[row] == Metered::In as u8;
    match by {
        Dimension::Interface => {
            let exporter = column::<FixedSizeBinaryArray>(batch, "exporter")?;
            let in_if = column::<UInt32Array>(batch, "in_if")?.values();
            let out_if = column::<UInt32Array>(batch, "out_if")?.values();
            for row in 0..batch.num_rows() {
                let index = if received(row) { in_if[row] } else { out_if[row] };
                let exporter = Address::from_slice(exporter.value(row)).unwrap_or_default();
                add(row, Key::Interface(exporter, index));
            }
        }
        Dimension::As => {
            let src_as = column::<UInt32Array>(batch, "src_as")?.values();
            let dst_as = column::<UInt32Array>(batch, "dst_as")?.values();
            for row in 0..batch.num_rows() {
                add(row, Key::Number(if received(row) { src_as[row] } else { dst_as[row] }));
            }
        }
        Dimension::Protocol | Dimension::Service => {
            let protocol = column::<UInt8Array>(batch, "ip_protocol")?.values();
            for (row, protocol) in protocol.iter().enumerate() {
                add(row, Key::Number(u32::from(*protocol)));
            }
        }
    }
    Ok(())
}

/// The largest keys by total, ties by key, and the sum of the rest as `other`.
fn stack(volumes: Volumes, steps: usize, by: Dimension, limit: usize) -> Vec<OverviewSeries> {
    let mut totals: HashMap<Key, u64> = HashMap::new();
    for ((key, _), bytes) in &volumes {
        let total = totals.entry(*key).or_default();
        *total = total.saturating_add(*bytes);
    }
    let mut ranking: Vec<(Key, u64)> = totals.into_iter().filter(|(_, total)| *total > 0).collect();
    ranking.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));

    let shown = ranking.len().min(limit);
    let position: HashMap<Key, usize> = ranking[..shown]
        .iter()
        .enumerate()
        .map(|(position, (key, _))| (*key, position))
        .collect();
    let mut series: Vec<OverviewSeries> = ranking[..shown]
        .iter()
        .map(|(key, total)| OverviewSeries {
            key: key.text(by),
            total_bytes: *total,
            bytes: vec![0; steps],
        })
        .collect();
    if shown < ranking.len() {
        series.push(OverviewSeries {
            key: "other".to_owned(),
            total_bytes: ranking[shown..]
                .iter()
                .fold(0, |sum: u64, (_, total)| sum.saturating_add(*total)),
            bytes: vec![0; steps],
        });
    }
    for ((key, step), bytes) in volumes {
        let target = position.get(&key).copied().unwrap_or(shown);
        let sum = series
            .get_mut(target)
            .and_then(|series| series.bytes.get_mut(step as usize));
        if let Some(sum) = sum {
            *sum = sum.saturating_add(bytes);
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_keys_are_summed_as_other() {
        let volumes: Volumes = (0..5u32)
            .flat_map(|key| (0..2u32).map(move |step| ((Key::Number(key), step), u64::from(key) * 10)))
            .collect();
        let series = stack(volumes.clone(), 2, Dimension::Service, 2);
        let shown: Vec<_> = series
            .iter()
            .map(|s| (s.key.as_str(), s.total_bytes, s.bytes.clone()))
            .collect();
        assert_eq!(
            shown,
            [
                ("svc_4", 80, vec![40, 40]),
                ("svc_3", 60, vec![30, 30]),
                ("other", 60, vec![30, 30])
            ]
        );
        let all = stack(volumes, 2, Dimension::Service, 10);
        assert_eq!(all.len(), 4, "without volume there is no series");
        assert!(all.iter().all(|series| series.key != "other"));
    }

    #[test]
    fn the_step_follows_the_range() {
        assert_eq!(step_of(DAY_MS), WINDOW_MS);
        assert_eq!(step_of(DAY_MS + 1), HOUR_MS);
        assert_eq!(step_of(32 * DAY_MS), HOUR_MS);
        assert_eq!(step_of(32 * DAY_MS + 1), DAY_MS);
    }
}
