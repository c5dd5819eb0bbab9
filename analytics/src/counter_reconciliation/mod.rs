//! The truth check: what flows say of an interface beside what the interface's own counters say.
//!
//! A sampling rate that is wrong by half changes every bill by half and looks like traffic. The counters of `counters`
//! know better: per hour, interface and direction their increase is compared with the scaled bytes of the flows observed
//! there, as they were on the wire.
//!
//! * **What is compared.** Only a direction in which the interface is observed ([`flows`]), over the time for which its
//!   counter can be followed ([`counter`]). Flows have a part in it as they have in usage: in proportion to their overlap.
//!   Whatever wrote `counters`, it is compared; an interface without counter samples has no row.
//! * **What is a finding** ([`judge`]). A difference beyond the sampling error (`258 · √(1/n)` %, 99 of 100 cases, `n` the
//!   effective samples of [`crate::error_bound`]) and the tolerance together.
//! * **Known limits.** A counter of 32 bits that wraps twice between two samples reads low. Flows that name an aggregate
//!   and counters that name its members never meet: neither is compared. Traffic below the counter that is not IP counts
//!   there alone; [`judge::CHATTER_BYTES_MAX`] leaves room for it.
//!
//! ```text
//! tables/truth_1h/2026-11-21/truth-14-<commit>-<writer>.parquet    one file per hour, by (exporter, interface, direction)
//! ```
//!
//! * An hour is judged once it is over for [`CHECK_DELAY_MS`], and again when files of flows or counters that touch it were
//!   committed since. The properties `flows_seq`, `counters_seq` and `until_ms` say how far that is done. A row is a
//!   function of flows, counters, the exporters' configuration and the tolerance: judging again replaces the hour's file
//!   by an equal one.
//! * One pass reads at most [`HOURS_MAX`] hours, back to [`LOOKBACK_MS`]; each hour reads the files that the manifests say
//!   overlap it and keeps sums of at most [`INTERFACES_MAX`] interfaces. More are left out and told.

mod counter;
mod flows;
mod judge;
mod stored;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray, UInt32Array, UInt64Array};
use datafusion::prelude::col;
use schemas::address::Address;
use schemas::metering::MeteringConfig;
use schemas::window::{DAY_MS, HOUR_MS};
use tables::table::{Commit, ManifestError, Snapshot, Token};

use self::counter::{Sample, Series};
use self::flows::{Observed, Sums, WatchedInterface, WatchedInterfaces};
pub use self::judge::{finding_text, percent_text};
use crate::error_bound::Z99_PPM;
use crate::store::parquet::{column, fold, instant};
pub use crate::store::{CounterReconciliationRow, Direction, MismatchCause, Verdict};
use crate::{Analytics, AnalyticsError};

/// How long after its end an hour is judged: flows of long conversations come when the active timeout has passed.
pub const CHECK_DELAY_MS: i64 = 15 * 60_000;
/// How far back hours are judged that nobody has judged, and judged again when late data touches them.
pub const LOOKBACK_MS: i64 = DAY_MS;
/// Hours of one pass, and of one question.
pub const HOURS_MAX: usize = 31 * 24;
/// Interfaces compared in an hour; the rest, by address and index, is left out and told.
pub const INTERFACES_MAX: usize = 20_000;
/// Series that one scan keeps before interfaces are chosen: several agents of a device may tell of the same one.
const SERIES_MAX: usize = 4 * INTERFACES_MAX;
/// Difference in percent of the counter that is allowed beside the sampling error unless the configuration says otherwise:
/// headers that are not Ethernet, tags that flows do not show, frames that are not IP.
pub const TOLERANCE_PERCENT: u32 = 5;
/// Results older than this do not tell how things are now.
const CURRENT_MAX_AGE_MS: i64 = DAY_MS;

const FLOWS_SEQUENCE: &str = "flows_seq";
const COUNTERS_SEQUENCE: &str = "counters_seq";
const UNTIL: &str = "until_ms";
const WRITER: &str = "truth";
/// Tries against others who judge the same hours.
const ATTEMPTS_MAX: u32 = 8;

/// What the check depends on beside the stored tables.
#[derive(Clone, Debug)]
pub struct CounterReconciliationSettings {
    pub metering: Arc<MeteringConfig>,
    /// In percent of the counter.
    pub tolerance_percent: u32,
}

/// What a pass did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CounterReconciliationRefresh {
    pub hours: u64,
    pub rows: u64,
    pub findings: u64,
    /// Interfaces left out by [`INTERFACES_MAX`], summed over the hours.
    pub interfaces_skipped: u64,
}

/// End of the last hour that is due to be judged.
pub const fn closed_until_ms(now_ms: i64) -> i64 {
    hour_of(now_ms - CHECK_DELAY_MS)
}

const fn hour_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(HOUR_MS) * HOUR_MS
}

enum Attempt {
    Done(CounterReconciliationRefresh),
    /// Somebody else committed first.
    Lost,
}

impl Analytics {
    /// Judges the hours that are due: those that closed since the last pass, and those of the last day that new files
    /// touch. Doing it again changes nothing; several may run at once.
    ///
    /// # Errors
    /// When a table cannot be read or written; the table is then as it was.
    pub async fn refresh_counter_reconciliation(
        &self,
        settings: &CounterReconciliationSettings,
        now_ms: i64,
    ) -> Result<CounterReconciliationRefresh, AnalyticsError> {
        self.judge_hours(settings, Pass::Due { now_ms }).await
    }

    /// Judges every hour that lies in `[from_ms, to_ms)` and is over, at most the newest [`HOURS_MAX`], whether or not it
    /// is due.
    ///
    /// # Errors
    /// As for [`Analytics::refresh_counter_reconciliation`].
    pub async fn reconcile_counters(
        &self,
        settings: &CounterReconciliationSettings,
        from_ms: i64,
        to_ms: i64,
        now_ms: i64,
    ) -> Result<CounterReconciliationRefresh, AnalyticsError> {
        let to_ms = to_ms.min(now_ms);
        self.judge_hours(settings, Pass::Range { from_ms, to_ms }).await
    }

    async fn judge_hours(
        &self,
        settings: &CounterReconciliationSettings,
        pass: Pass,
    ) -> Result<CounterReconciliationRefresh, AnalyticsError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Attempt::Done(refresh) = self.try_judge(settings, pass).await? {
                return Ok(refresh);
            }
        }
        Err(AnalyticsError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn try_judge(&self, settings: &CounterReconciliationSettings, pass: Pass) -> Result<Attempt, AnalyticsError> {
        let truth = self.store.truth.snapshot()?;
        let flows = self.store.flows.snapshot()?;
        let counters = self.store.counters.snapshot()?;
        let known = Completeness::of(&truth);
        let current = Completeness {
            flows_sequence: flows.sequence,
            counters_sequence: counters.sequence,
            until_ms: match pass {
                Pass::Due { now_ms } => closed_until_ms(now_ms),
                Pass::Range { .. } => known.until_ms,
            },
        };
        let hours = match pass {
            Pass::Due { .. } if known == current => return Ok(Attempt::Done(CounterReconciliationRefresh::default())),
            Pass::Due { .. } => hours_due(&known, current.until_ms, &flows, &counters),
            Pass::Range { from_ms, to_ms } => hours_within(from_ms, to_ms),
        };
        let number = truth.applied.get(WRITER).copied().unwrap_or(0) + 1;
        let mut commit = Commit {
            token: Some(Token {
                writer: WRITER.to_owned(),
                number,
            }),
            ..Commit::default()
        };
        if matches!(pass, Pass::Due { .. }) {
            commit.set = current.properties();
        }
        let mut refresh = CounterReconciliationRefresh::default();
        for hour_ms in hours {
            // Counters that are gone by retention do not take back what was judged with them.
            if counters.files_between(hour_ms, hour_ms + HOUR_MS).next().is_none() {
                continue;
            }
            let judged = self.judge_hour(settings, hour_ms, &flows, &counters).await?;
            refresh.hours += 1;
            refresh.rows += judged.rows.len() as u64;
            refresh.findings += judged.rows.iter().filter(|row| row.is_finding()).count() as u64;
            refresh.interfaces_skipped += judged.interfaces_skipped;
            let old = truth.files_between(hour_ms, hour_ms + HOUR_MS);
            commit.remove.extend(old.map(|file| file.path.clone()));
            let table = self.store.truth.clone();
            let file =
                tokio::task::spawn_blocking(move || stored::write(&table, hour_ms, number, &judged.rows)).await??;
            commit.add.extend(file);
        }
        match self.store.truth.commit(commit) {
            Ok(true) => Ok(Attempt::Done(refresh)),
            Ok(false) | Err(ManifestError::Conflict { .. } | ManifestError::Exists { .. }) => Ok(Attempt::Lost),
            Err(error) => Err(error.into()),
        }
    }

    async fn judge_hour(
        &self,
        settings: &CounterReconciliationSettings,
        hour_ms: i64,
        flows: &Arc<Snapshot>,
        counters: &Arc<Snapshot>,
    ) -> Result<ReconciledRows, AnalyticsError> {
        let end_ms = hour_ms + HOUR_MS;
        let frame = self
            .store
            .read_at(&self.store.counters, counters.clone())?
            .filter(
                col("received_at")
                    .gt_eq(instant(hour_ms))
                    .and(col("received_at").lt(instant(end_ms))),
            )?
            .select_columns(&COUNTER_COLUMNS)?;
        let series = fold(frame, CounterSeries::add, CounterSeries::merge).await?;
        let (watched, interfaces_skipped) = series.interfaces();
        let watch = Arc::new(WatchedInterfaces::new(watched, &settings.metering));

        let frame = self
            .store
            .read_at(&self.store.flows, flows.clone())?
            .filter(
                col("start_at")
                    .lt(instant(end_ms))
                    .and(col("end_at").gt_eq(instant(hour_ms))),
            )?
            .select_columns(&flows::COLUMNS)?;
        let watching = watch.clone();
        let sums = fold(
            frame,
            move |sums: &mut Sums, batch| flows::add(sums, batch, &watching),
            Sums::merge,
        )
        .await?;
        Ok(ReconciledRows {
            rows: rows_of_hour(hour_ms, &watch, &sums, settings),
            interfaces_skipped,
        })
    }

    /// Judged hours that start in `[from_ms, to_ms)`, by hour, exporter, interface and direction.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn counter_reconciliation(
        &self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<CounterReconciliationRow>, AnalyticsError> {
        let frame = self.store.read(&self.store.truth)?.filter(
            col("hour_start")
                .gt_eq(instant(from_ms))
                .and(col("hour_start").lt(instant(to_ms))),
        )?;
        let mut rows = fold(
            frame,
            stored::rows_of,
            |all: &mut Vec<CounterReconciliationRow>, more| all.extend(more),
        )
        .await?;
        rows.sort_unstable_by_key(|row| (row.hour_start_ms, row.exporter, row.if_index, row.direction));
        Ok(rows)
    }

    /// The last whole hour that was judged, unless it is more than a day ago.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn latest_counter_reconciliation(
        &self,
        now_ms: i64,
    ) -> Result<Vec<CounterReconciliationRow>, AnalyticsError> {
        let newest = self.store.truth.snapshot()?;
        let newest = newest.files.values().map(|file| file.max_time_ms).max();
        match newest.filter(|hour_ms| *hour_ms >= now_ms - CURRENT_MAX_AGE_MS) {
            Some(hour_ms) => self.counter_reconciliation(hour_ms, hour_ms + HOUR_MS).await,
            None => Ok(Vec::new()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Pass {
    Due { now_ms: i64 },
    Range { from_ms: i64, to_ms: i64 },
}

struct ReconciledRows {
    rows: Vec<CounterReconciliationRow>,
    interfaces_skipped: u64,
}

/// How far the table is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Completeness {
    flows_sequence: u64,
    counters_sequence: u64,
    until_ms: i64,
}

impl Completeness {
    fn of(truth: &Snapshot) -> Completeness {
        let property = |name: &str| truth.properties.get(name);
        let sequence = |name| property(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Completeness {
            flows_sequence: sequence(FLOWS_SEQUENCE),
            counters_sequence: sequence(COUNTERS_SEQUENCE),
            until_ms: property(UNTIL).and_then(|text| text.parse().ok()).unwrap_or(i64::MIN),
        }
    }

    fn properties(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (FLOWS_SEQUENCE.to_owned(), self.flows_sequence.to_string()),
            (COUNTERS_SEQUENCE.to_owned(), self.counters_sequence.to_string()),
            (UNTIL.to_owned(), self.until_ms.to_string()),
        ])
    }
}

/// The hours to judge, ascending: never judged ones up to `until_ms`, and judged ones that newer files touch.
fn hours_due(known: &Completeness, until_ms: i64, flows: &Snapshot, counters: &Snapshot) -> Vec<i64> {
    let floor_ms = until_ms - LOOKBACK_MS;
    let touched = |snapshot: &Snapshot, sequence: u64, hour_ms: i64| {
        let mut files = snapshot.files_between(hour_ms, hour_ms + HOUR_MS);
        files.any(|file| file.sequence > sequence)
    };
    (floor_ms..until_ms)
        .step_by(HOUR_MS as usize)
        .filter(|hour_ms| {
            *hour_ms >= known.until_ms
                || touched(flows, known.flows_sequence, *hour_ms)
                || touched(counters, known.counters_sequence, *hour_ms)
        })
        .collect()
}

/// Whole hours in `[from_ms, to_ms)`, ascending; the newest of too many.
fn hours_within(from_ms: i64, to_ms: i64) -> Vec<i64> {
    let end_ms = hour_of(to_ms);
    let earliest_ms = end_ms.saturating_sub(HOURS_MAX as i64 * HOUR_MS);
    let first_ms = hour_of(from_ms.saturating_add(HOUR_MS - 1)).max(earliest_ms);
    if first_ms >= end_ms {
        return Vec::new();
    }
    (first_ms..end_ms).step_by(HOUR_MS as usize).collect()
}

const COUNTER_COLUMNS: [&str; 7] = [
    "received_at",
    "exporter",
    "observation_domain",
    "if_index",
    "speed_bps",
    "in_bytes",
    "out_bytes",
];

/// Samples by exporter, interface and agent.
#[derive(Debug, Default)]
struct CounterSeries {
    series: HashMap<(Address, u32, u32), Series>,
    /// Samples of series that there was no room for.
    crowded_out: u64,
}

impl CounterSeries {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), AnalyticsError> {
        let received_at = column::<TimestampMillisecondArray>(batch, "received_at")?.values();
        let exporters = column::<FixedSizeBinaryArray>(batch, "exporter")?;
        let domain = column::<UInt32Array>(batch, "observation_domain")?.values();
        let if_index = column::<UInt32Array>(batch, "if_index")?.values();
        let speed_bps = column::<UInt64Array>(batch, "speed_bps")?.values();
        let in_bytes = column::<UInt64Array>(batch, "in_bytes")?.values();
        let out_bytes = column::<UInt64Array>(batch, "out_bytes")?.values();
        for row in 0..batch.num_rows() {
            let Some(exporter) = Address::from_slice(exporters.value(row)) else {
                continue;
            };
            let key = (exporter, if_index[row], domain[row]);
            if self.series.len() >= SERIES_MAX && !self.series.contains_key(&key) {
                self.crowded_out += 1;
                continue;
            }
            let sample = Sample {
                at_ms: received_at[row],
                bytes: [in_bytes[row], out_bytes[row]],
            };
            self.series.entry(key).or_default().push(sample, speed_bps[row]);
        }
        Ok(())
    }

    fn merge(&mut self, other: CounterSeries) {
        for (key, series) in other.series {
            self.series.entry(key).or_default().merge(series);
        }
        self.crowded_out += other.crowded_out;
    }

    /// The interfaces to compare, in order, and how many were left out. Where several agents of a device tell of one
    /// interface, the one with most samples is believed, the lowest of equals.
    fn interfaces(self) -> (Vec<WatchedInterface>, u64) {
        let mut chosen: BTreeMap<(Address, u32), (usize, std::cmp::Reverse<u32>, Series)> = BTreeMap::new();
        for ((exporter, if_index, domain), series) in self.series {
            let candidate = (series.len(), std::cmp::Reverse(domain), series);
            match chosen.entry((exporter, if_index)) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(candidate);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    if (candidate.0, candidate.1) > (entry.get().0, entry.get().1) {
                        entry.insert(candidate);
                    }
                }
            }
        }
        let skipped = chosen.len().saturating_sub(INTERFACES_MAX) as u64 + self.crowded_out;
        let watched = chosen.into_iter().take(INTERFACES_MAX);
        let watched = watched.map(|((exporter, if_index), (_, _, mut series))| WatchedInterface {
            exporter,
            if_index,
            counters: [series.follow(0), series.follow(1)],
        });
        (watched.collect(), skipped)
    }
}

fn rows_of_hour(
    hour_ms: i64,
    watch: &WatchedInterfaces,
    sums: &Sums,
    settings: &CounterReconciliationSettings,
) -> Vec<CounterReconciliationRow> {
    let nothing = [Observed::default(); 2];
    let observed_at = |position: usize| sums.0.get(position).unwrap_or(&nothing);
    let mut rates: HashMap<Address, u32> = HashMap::new();
    for (position, watched) in watch.interfaces.iter().enumerate() {
        let rate = rates.entry(watched.exporter).or_default();
        for observed in observed_at(position) {
            *rate = observed.sampling_rate.max(*rate);
        }
    }
    let mut rows = Vec::with_capacity(2 * watch.interfaces.len());
    for (position, watched) in watch.interfaces.iter().enumerate() {
        let (exporter, if_index) = (watched.exporter, watched.if_index);
        for (side, direction) in [Direction::In, Direction::Out].into_iter().enumerate() {
            let observed = &observed_at(position)[side];
            let followed = &watched.counters[side];
            let (verdict, guess) = judge::judge(&judge::Comparison {
                covered_ms: followed.covered_ms(),
                counter_bytes: followed.bytes,
                observed,
                is_metered: watch.is_metered(exporter, if_index, side),
                exporter_rate: rates.get(&exporter).copied().unwrap_or(0),
                tolerance_ppm: settings.tolerance_percent.saturating_mul(10_000),
            });
            rows.push(CounterReconciliationRow {
                hour_start_ms: hour_ms,
                exporter,
                if_index,
                direction,
                covered_ms: u32::try_from(followed.covered_ms()).unwrap_or(u32::MAX),
                counter_bytes: followed.bytes,
                metered_bytes: observed.wire.bytes,
                bytes_scaled: observed.bytes_scaled,
                samples: observed.samples,
                sampling_rate: observed.sampling_rate,
                ratio_ppm: ratio_ppm(observed.wire.bytes, followed.bytes),
                bound_ppm: observed.wire.bound_ppm(Z99_PPM),
                verdict,
                guess,
            });
        }
    }
    rows
}

fn ratio_ppm(metered: u64, counter: u64) -> u32 {
    let Some(ratio) = (u128::from(metered) * 1_000_000).checked_div(u128::from(counter)) else {
        return if metered == 0 { 0 } else { u32::MAX };
    };
    u32::try_from(ratio).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_whole_and_over() {
        let h = HOUR_MS;
        assert_eq!(hours_within(0, 3 * h), [0, h, 2 * h]);
        assert_eq!(hours_within(1, 3 * h - 1), [h]);
        assert!(hours_within(3 * h, 2 * h).is_empty());
        let many = hours_within(0, 1_000 * h);
        assert_eq!(
            (many.len(), many[0]),
            (HOURS_MAX, (1_000 - HOURS_MAX as i64) * h),
            "the newest"
        );
        assert_eq!(closed_until_ms(5 * h + CHECK_DELAY_MS - 1), 4 * h);
        assert_eq!(closed_until_ms(5 * h + CHECK_DELAY_MS), 5 * h);
    }

    #[test]
    fn ratios_saturate() {
        assert_eq!(ratio_ppm(61, 100), 610_000);
        assert_eq!((ratio_ppm(0, 0), ratio_ppm(1, 0)), (0, u32::MAX));
        assert_eq!(ratio_ppm(u64::MAX, 1), u32::MAX);
    }

    #[test]
    fn of_several_agents_the_one_with_most_samples_is_believed() {
        let exporter: Address = "192.0.2.1".parse().unwrap();
        let mut series = CounterSeries::default();
        for (domain, samples, bytes) in [(7, 3, 10), (2, 4, 1_000), (1, 4, 100_000)] {
            for n in 0..samples {
                let sample = Sample {
                    at_ms: n * 30_000,
                    bytes: [bytes * (n + 1) as u64, 0],
                };
                series.series.entry((exporter, 5, domain)).or_default().push(sample, 0);
            }
        }
        let (watched, skipped) = series.interfaces();
        assert_eq!((watched.len(), skipped), (1, 0));
        assert_eq!(watched[0].counters[0].bytes, 300_000, "the lowest of equals");
    }
}
