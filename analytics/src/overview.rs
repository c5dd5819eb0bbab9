//! Traffic of the whole network over time, stacked by a dimension, for operations.
//!
//! By service it comes from `usage_5m`; by protocol, interface and autonomous system from metered flows, which count as
//! a whole for the step in which they ended (exact spreading matters for money, not here). The autonomous system is that
//! of the remote side; the interface is the one that faces the other network: the input of what was received, the output
//! of what was sent. Steps are aligned in UTC: 5 minutes up to a day, hours up to 32 days (any month), else days.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{
    FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use datafusion::prelude::{col, lit};
use schemas::address::Address;
use schemas::ids::ServiceId;
use schemas::sampling::scaled;
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};
use tables::flow::Metered;

use crate::store::parquet::{column, fold, instant};
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
    /// Metered traffic over time stacked by a dimension, largest first. The keys of these `ranks` are named, the first being
    /// rank 0; those before are summed as `larger`, those after as `other`: whatever the ranks, the series add up to the same.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) async fn overview(
        &self,
        from_ms: i64,
        to_ms: i64,
        by: Dimension,
        ranks: Range<usize>,
    ) -> Result<Overview, AnalyticsError> {
        let step_ms = step_of(to_ms - from_ms);
        let first_ms = from_ms.div_euclid(step_ms) * step_ms;
        let to_ms = to_ms.min(first_ms + STEPS_MAX * step_ms).max(from_ms);
        let starts_ms: Vec<i64> = (first_ms..to_ms).step_by(step_ms as usize).collect();
        let volumes = match by {
            Dimension::Service => self.volume_by_service(from_ms, to_ms, first_ms, step_ms).await?,
            _ => self.volume_by_flows(from_ms, to_ms, first_ms, step_ms, by).await?,
        };
        let (keys_total, series) = stack(volumes, starts_ms.len(), by, ranks);
        Ok(Overview {
            from_ms,
            to_ms,
            step_ms,
            starts_ms,
            keys_total,
            series,
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

/// The keys of these ranks by total, ties by key, between the sums of those before and after; and how many keys there are.
fn stack(volumes: Volumes, steps: usize, by: Dimension, ranks: Range<usize>) -> (usize, Vec<OverviewSeries>) {
    let mut totals: HashMap<Key, u64> = HashMap::new();
    for ((key, _), bytes) in &volumes {
        let total = totals.entry(*key).or_default();
        *total = total.saturating_add(*bytes);
    }
    let mut ranking: Vec<(Key, u64)> = totals.into_iter().filter(|(_, total)| *total > 0).collect();
    ranking.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));

    let first = ranks.start.min(ranking.len());
    let last = ranks.end.clamp(first, ranking.len());
    let summed = |key: &str, keys: &[(Key, u64)]| OverviewSeries {
        key: key.to_owned(),
        total_bytes: keys.iter().fold(0, |sum: u64, (_, total)| sum.saturating_add(*total)),
        bytes: vec![0; steps],
    };
    let mut series = Vec::with_capacity(last - first + 2);
    if first > 0 {
        series.push(summed("larger", &ranking[..first]));
    }
    let named = ranking[first..last].iter();
    series.extend(named.map(|(key, total)| OverviewSeries {
        key: key.text(by),
        total_bytes: *total,
        bytes: vec![0; steps],
    }));
    if last < ranking.len() {
        series.push(summed("other", &ranking[last..]));
    }

    // The series of each key; all that lie before or after share one.
    let before = usize::from(first > 0);
    let position: HashMap<Key, usize> = ranking
        .iter()
        .enumerate()
        .map(|(rank, (key, _))| match rank {
            rank if rank < first => (*key, 0),
            rank => (*key, before + rank.min(last) - first),
        })
        .collect();
    for ((key, step), bytes) in volumes {
        let target = position.get(&key).and_then(|position| series.get_mut(*position));
        let sum = target.and_then(|series| series.bytes.get_mut(step as usize));
        if let Some(sum) = sum {
            *sum = sum.saturating_add(bytes);
        }
    }
    (ranking.len(), series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_keys_are_summed_as_other() {
        let volumes: Volumes = (0..5u32)
            .flat_map(|key| (0..2u32).map(move |step| ((Key::Number(key), step), u64::from(key) * 10)))
            .collect();
        let (keys, series) = stack(volumes.clone(), 2, Dimension::Service, 0..2);
        assert_eq!(keys, 4, "without volume there is no key");
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
        let (_, all) = stack(volumes, 2, Dimension::Service, 0..10);
        assert_eq!(all.len(), 4, "without volume there is no series");
        assert!(all.iter().all(|series| series.key != "other"));
    }

    #[test]
    fn whatever_the_ranks_the_series_add_up_to_the_same() {
        let volumes: Volumes = (1..24u32)
            .flat_map(|key| (0..3u32).map(move |step| ((Key::Number(key), step), u64::from(key + step))))
            .collect();
        let sums = |series: &[OverviewSeries]| {
            let total: u64 = series.iter().map(|series| series.total_bytes).sum();
            let steps: Vec<u64> = (0..3)
                .map(|step| series.iter().map(|one| one.bytes[step]).sum())
                .collect();
            (total, steps)
        };
        let (_, all) = stack(volumes.clone(), 3, Dimension::As, 0..100);
        let mut named = Vec::new();
        for first in (0..30).step_by(5) {
            let (keys, series) = stack(volumes.clone(), 3, Dimension::As, first..first + 5);
            assert_eq!((keys, sums(&series)), (23, sums(&all)), "from rank {first}");
            for one in &series {
                assert_eq!(
                    one.total_bytes,
                    one.bytes.iter().sum::<u64>(),
                    "{} from rank {first}",
                    one.key
                );
            }
            named.extend(
                series
                    .into_iter()
                    .filter(|one| one.key != "larger" && one.key != "other"),
            );
        }
        assert_eq!(named, all, "page by page every key once, in the same order");
    }

    #[test]
    fn the_step_follows_the_range() {
        assert_eq!(step_of(DAY_MS), WINDOW_MS);
        assert_eq!(step_of(DAY_MS + 1), HOUR_MS);
        assert_eq!(step_of(32 * DAY_MS), HOUR_MS);
        assert_eq!(step_of(32 * DAY_MS + 1), DAY_MS);
    }
}
