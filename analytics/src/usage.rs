//! `usage_5m`: metered volume per service and window, computed from flows alone.
//!
//! * **U1.** A window's rows are a function of the flows that overlap it: recomputing gives the same rows in the same
//!   order, whatever the order in which flow files arrived.
//! * **U2.** A flow's scaled volume is spread over its windows so that the parts sum to the whole; a flow without a
//!   service counts for service 0. Flows that are not metered or whose sampling rate is not known contribute nothing.
//! * The table's property `flows_seq` says up to which commit of `flows` it is complete. A flow file with a later
//!   sequence makes the windows between its smallest and largest time dirty; dirty windows are recomputed wholly, the
//!   other rows of the day's file are kept.
//!
//! ```text
//! tables/usage_5m/2026-11-21/usage-<flows_seq>-<commit>-<writer>.parquet    one file per UTC day, by (service, window_start)
//! ```
//!
//! * A window that retention has taken flows of is never computed again, because the rest of its flows would say too
//!   little ([`tables::table::RETAINED_FROM`]).
//! * One commit replaces the files of all dirty days and sets `flows_seq`. Commits carry a token that two refreshers
//!   who started from the same state both claim: the second one's changes nothing and it starts again.
//! * Between refreshes of one process the volume of the windows that are still filling is kept, so that only new files are read
//!   ([`counted`]).
//! * Each row carries its sampling error (`error_bound_ppm`, [`crate::error_bound`]), a function of its other columns. Files
//!   of a version that did not have it are completed from their own rows ([`columns`]).

mod cells;
mod columns;
mod counted;
mod days;
mod ranges;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::prelude::{col, lit};
use schemas::window::{DAY_MS, WindowStart};
use tables::flow::Metered;
use tables::table::{Commit, ManifestError, Snapshot, Token, retained_from_ms};

pub(crate) use cells::{Cell, Cells, MeteredColumns, UsageRow};
pub(crate) use counted::Counted;
use days::{DayRewrite, rows_of};
pub(crate) use days::{ROW_COLUMNS, UsageColumns};
pub(crate) use ranges::Ranges;

use crate::store::parquet::{fold, instant};
use crate::{Analytics, AnalyticsError, WindowUsage};

/// How long after its end a window is closed: the time given to datagrams on their way, to the collector's segments and
/// to the refresh. What comes later still counts (the window becomes dirty), as a correction.
pub const LATENESS_MS: i64 = 120_000;

/// Property of `usage_5m`: the sequence of `flows` that it is complete to.
const FLOWS_SEQUENCE: &str = "flows_seq";
/// Name of the refreshers' common token.
const WRITER: &str = "usage";
/// Tries against other refreshers and compactions before giving up.
const ATTEMPTS_MAX: u32 = 8;
/// UTC days computed in one scan: bounds the windows held in memory.
const DAYS_PER_SCAN: usize = 4;

/// End of the last closed window: every window that ends at or before it is closed. A window is closed once
/// [`LATENESS_MS`] have passed since its end; periods are measured up to here.
pub const fn closed_until_ms(now_ms: i64) -> i64 {
    WindowStart::containing(now_ms - LATENESS_MS).start_ms()
}

/// The table's properties when it is complete up to a commit of `flows` and its files have all columns.
pub fn properties(flows_sequence: u64) -> BTreeMap<String, String> {
    BTreeMap::from([
        (FLOWS_SEQUENCE.to_owned(), flows_sequence.to_string()),
        (columns::COLUMNS.to_owned(), columns::COLUMNS_VERSION.to_owned()),
    ])
}

/// How far a refresh has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefreshProgress {
    pub days_done: usize,
    pub days_total: usize,
}

/// What a refresh did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UsageRefresh {
    /// `usage_5m` is complete up to this commit of `flows`.
    pub flows_sequence: u64,
    pub windows_recomputed: u64,
    /// Windows that new flows touch but that retention has taken flows of: they stay as they are, and those flows are
    /// stored but not counted.
    pub windows_frozen: u64,
    /// Flows in the files that were read for it.
    pub flows_read: u64,
    pub days_written: u64,
    pub rows_written: u64,
}

/// Both sides of U2 over a range of windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Conservation {
    /// Σ over services, 0 included.
    pub usage_bytes: u64,
    pub usage_packets: u64,
    /// Σ of the flows' scaled volume with known sampling rate that falls into the range.
    pub flow_bytes: u64,
    pub flow_packets: u64,
}

impl Conservation {
    pub fn holds(&self) -> bool {
        self.usage_bytes == self.flow_bytes && self.usage_packets == self.flow_packets
    }
}

enum Attempt {
    Done(UsageRefresh),
    /// Somebody else committed first, or files of an older version had to be completed: look again.
    Lost,
}

impl Analytics {
    /// Brings `usage_5m` up to date with `flows`: recomputes the windows that flow files committed since the last refresh
    /// touch. Doing it again changes nothing; several may run at once, in one process or many.
    ///
    /// # Errors
    /// When flows cannot be read or usage cannot be written; the table is then as it was.
    pub async fn refresh_usage(
        &self,
        progress: impl Fn(RefreshProgress) + Send + Sync,
    ) -> Result<UsageRefresh, AnalyticsError> {
        self.refresh(None, &progress).await
    }

    /// Recomputes the windows of `[from_ms, to_ms)` whether or not their flows changed, beside what is dirty anyway. By
    /// U1 it changes no row; it repairs usage files that were lost.
    ///
    /// # Errors
    /// As for [`Analytics::refresh_usage`].
    pub async fn recompute_usage(
        &self,
        from_ms: i64,
        to_ms: i64,
        progress: impl Fn(RefreshProgress) + Send + Sync,
    ) -> Result<UsageRefresh, AnalyticsError> {
        self.refresh(Some((from_ms, to_ms)), &progress).await
    }

    async fn refresh(
        &self,
        also: Option<(i64, i64)>,
        progress: &(impl Fn(RefreshProgress) + Send + Sync),
    ) -> Result<UsageRefresh, AnalyticsError> {
        // Within one process refreshers queue up here, so that they do not compute the same windows for nothing.
        let mut counted = self.refreshing.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            if let Attempt::Done(refresh) = self.try_refresh(also, &mut counted, progress).await? {
                return Ok(refresh);
            }
        }
        Err(AnalyticsError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn try_refresh(
        &self,
        also: Option<(i64, i64)>,
        counted: &mut Option<Counted>,
        progress: &(impl Fn(RefreshProgress) + Send + Sync),
    ) -> Result<Attempt, AnalyticsError> {
        let usage = self.store.usage.snapshot()?;
        let flows = self.store.flows.snapshot()?;
        let number = usage.applied.get(WRITER).copied().unwrap_or(0) + 1;
        if !columns::are_current(&usage) {
            let table = self.store.usage.clone();
            let commit = tokio::task::spawn_blocking(move || columns::rewrite(&table, &usage, number)).await??;
            return match self.store.usage.commit(commit) {
                Ok(_) | Err(ManifestError::Conflict { .. } | ManifestError::Exists { .. }) => Ok(Attempt::Lost),
                Err(error) => Err(error.into()),
            };
        }
        let known_sequence = sequence_of(&usage);
        if known_sequence == flows.sequence && also.is_none() {
            return Ok(Attempt::Done(UsageRefresh {
                flows_sequence: flows.sequence,
                ..UsageRefresh::default()
            }));
        }

        let changed = flows
            .files
            .values()
            .filter(|file| file.sequence > known_sequence)
            .map(|file| (file.min_time_ms, file.max_time_ms));
        let asked = also.filter(|(from, to)| from < to).map(|(from, to)| (from, to - 1));
        let touched = Ranges::of_windows(changed.chain(asked));
        // Flows before this are removed: their windows stay as they were computed from all of them.
        let dirty = touched.since(retained_from_ms(&flows).max(retained_from_ms(&usage)));
        let number = usage.applied.get(WRITER).copied().unwrap_or(0) + 1;
        let mut refresh = UsageRefresh {
            flows_sequence: flows.sequence,
            windows_recomputed: dirty.windows(),
            windows_frozen: touched.windows() - dirty.windows(),
            ..UsageRefresh::default()
        };
        let mut commit = Commit {
            token: Some(Token {
                writer: WRITER.to_owned(),
                number,
            }),
            set: properties(flows.sequence),
            ..Commit::default()
        };

        let days: Vec<(i64, Ranges)> = dirty.by_day().into_iter().collect();
        for (chunk, days_of_scan) in days.chunks(DAYS_PER_SCAN).enumerate() {
            let ranges = Ranges(days_of_scan.iter().flat_map(|(_, ranges)| ranges.0.clone()).collect());
            let mut rows_by_day: BTreeMap<i64, Vec<UsageRow>> = BTreeMap::new();
            let (rows, flows_read) = match also {
                // Asked to look again: from the flows, whatever was counted of them.
                Some(_) => self.usage_of_flows(flows.clone(), ranges).await?,
                None => self.usage_of_new_flows(flows.clone(), ranges, counted).await?,
            };
            refresh.flows_read += flows_read;
            for row in rows {
                let day = row.window_start_ms.div_euclid(DAY_MS);
                rows_by_day.entry(day).or_default().push(row);
            }
            let mut work = Vec::with_capacity(days_of_scan.len());
            for (day, ranges) in days_of_scan {
                work.push(DayRewrite {
                    day: *day,
                    dirty: ranges.clone(),
                    rows: rows_by_day.remove(day).unwrap_or_default(),
                    old: files_of_day(&usage, *day),
                });
            }
            let table = self.store.usage.clone();
            let sequence = flows.sequence;
            let written = tokio::task::spawn_blocking(move || {
                work.into_iter()
                    .map(|day| day.write(&table, sequence, number))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await??;
            for (old, new) in written {
                commit.remove.extend(old);
                if let Some(file) = new {
                    refresh.days_written += 1;
                    refresh.rows_written += file.rows;
                    commit.add.push(file);
                }
            }
            progress(RefreshProgress {
                days_done: chunk * DAYS_PER_SCAN + days_of_scan.len(),
                days_total: days.len(),
            });
        }

        let table = self.store.usage.clone();
        match tokio::task::spawn_blocking(move || table.commit(commit)).await? {
            Ok(true) => Ok(Attempt::Done(refresh)),
            Ok(false) | Err(ManifestError::Conflict { .. } | ManifestError::Exists { .. }) => Ok(Attempt::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Usage of all services in the windows of `ranges`, and how many flows were read for it: those of files that were not
    /// counted before.
    async fn usage_of_new_flows(
        &self,
        snapshot: Arc<Snapshot>,
        ranges: Ranges,
        counted: &mut Option<Counted>,
    ) -> Result<(Vec<UsageRow>, u64), AnalyticsError> {
        // Taken out: what an error or a stop leaves half counted is gone.
        let Some(mut windows) = Counted::resume(counted.take(), &snapshot, &ranges) else {
            return self.usage_of_flows(snapshot, ranges).await;
        };
        let missing = windows.missing(&snapshot);
        let flows = missing.iter().map(|file| file.rows).sum();
        if !missing.is_empty() {
            let files = missing.iter().map(|file| (file.path.clone(), (*file).clone()));
            let new = Arc::new(Snapshot {
                files: files.collect(),
                ..Snapshot::default()
            });
            let cells = self.cells_of(new, Ranges(vec![(windows.start_ms(), i64::MAX)])).await?;
            windows.add(missing, cells);
        }
        let rows = windows.rows(&ranges);
        windows.forget(&snapshot, &ranges);
        *counted = Some(windows);
        Ok((rows, flows))
    }

    /// Usage of all services in the windows of `ranges`, from the flows of `snapshot` alone, and how many flows were read.
    async fn usage_of_flows(
        &self,
        snapshot: Arc<Snapshot>,
        ranges: Ranges,
    ) -> Result<(Vec<UsageRow>, u64), AnalyticsError> {
        let Some((from_ms, to_ms)) = ranges.hull() else {
            return Ok((Vec::new(), 0));
        };
        let flows = snapshot.files_between(from_ms, to_ms).map(|file| file.rows).sum();
        Ok((self.cells_of(snapshot, ranges).await?.into_rows(), flows))
    }

    /// Volume by service and window of `ranges` that the flows of `snapshot` hold.
    async fn cells_of(&self, snapshot: Arc<Snapshot>, ranges: Ranges) -> Result<Cells, AnalyticsError> {
        let Some((from_ms, to_ms)) = ranges.hull() else {
            return Ok(Cells::default());
        };
        let frame = self
            .store
            .read_at(&self.store.flows, snapshot)?
            .filter(overlapping(from_ms, to_ms))?
            .select_columns(&MeteredColumns::NAMES)?;
        fold(
            frame,
            move |cells: &mut Cells, batch| cells.add_flows(batch, &ranges),
            Cells::merge,
        )
        .await
    }

    /// For each `[from_ms, to_ms)` a mark of what its usage is measured from: the newest commits that touched its days in
    /// `usage_5m` and `collection_5m`. As long as the mark is the same, `Analytics::period_usage` answers the same for every
    /// service. `None` where retention has removed some of it: it cannot be measured any more.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub(crate) fn usage_marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, AnalyticsError> {
        let usage = self.store.usage.snapshot()?;
        let collection = self.store.collection.snapshot()?;
        let complete_from_ms = retained_from_ms(&usage).max(retained_from_ms(&collection));
        let mark = |(from_ms, to_ms): &(i64, i64)| {
            if *from_ms < complete_from_ms {
                return None;
            }
            let newest = |snapshot: &Snapshot| {
                let files = snapshot.files_between(*from_ms, *to_ms);
                files.map(|file| file.sequence).max().unwrap_or(0)
            };
            // A day that lost its last row has no file any more, which only the number of files tells.
            let days = usage.files_between(*from_ms, *to_ms).count();
            Some(format!("{}.{days}.{}", newest(&usage), newest(&collection)))
        };
        Ok(periods.iter().map(mark).collect())
    }

    /// Rows of `usage_5m` of one service in `[from_ms, to_ms)`, ascending.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn usage_windows(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, AnalyticsError> {
        let mut rows = self.usage_rows(Some(&[service]), from_ms, to_ms).await?;
        rows.sort_unstable_by_key(|row| row.window_start_ms);
        Ok(rows.iter().map(WindowUsage::from).collect())
    }

    /// Rows of `usage_5m` of the given services, or of all, in no particular order.
    pub(crate) async fn usage_rows(
        &self,
        services: Option<&[u32]>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<UsageRow>, AnalyticsError> {
        let mut filter = windows_between(from_ms, to_ms);
        if let Some(services) = services {
            let list = services.iter().map(|service| lit(*service)).collect();
            filter = filter.and(col("service").in_list(list, false));
        }
        // Without the bound, which follows from these: files of an older version do not have it.
        let frame = self
            .store
            .read(&self.store.usage)?
            .filter(filter)?
            .select_columns(&ROW_COLUMNS)?;
        fold(frame, rows_of, |all: &mut Vec<UsageRow>, more| all.extend(more)).await
    }

    /// Both sides of U2 over the windows that start in `[from_ms, to_ms)`: equal once usage is refreshed.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn verify_u2(&self, from_ms: i64, to_ms: i64) -> Result<Conservation, AnalyticsError> {
        let Some((from_ms, to_ms)) = Ranges::of_period(from_ms, to_ms).hull() else {
            return Ok(Conservation::default());
        };
        let mut sums = Conservation::default();
        for row in self.usage_rows(None, from_ms, to_ms).await? {
            sums.usage_bytes = sums
                .usage_bytes
                .saturating_add(row.cell.bytes_in.saturating_add(row.cell.bytes_out));
            sums.usage_packets = sums
                .usage_packets
                .saturating_add(row.cell.packets_in.saturating_add(row.cell.packets_out));
        }
        let frame = self
            .store
            .read(&self.store.flows)?
            .filter(overlapping(from_ms, to_ms))?
            .select_columns(&MeteredColumns::NAMES)?;
        // Deliberately not the way usage is computed: flows inside the range count whole, only those at its edges are split.
        let (bytes, packets) = fold(
            frame,
            move |sums: &mut (u64, u64), batch| {
                let columns = MeteredColumns::of(batch)?;
                for flow in (0..batch.num_rows()).filter_map(|row| columns.flow(row)) {
                    let part = |amount: u64| part_between(amount, flow.start_ms, flow.end_ms, from_ms, to_ms);
                    sums.0 = sums.0.saturating_add(part(flow.bytes_scaled()));
                    sums.1 = sums.1.saturating_add(part(flow.packets_scaled()));
                }
                Ok(())
            },
            |all, more| *all = (all.0.saturating_add(more.0), all.1.saturating_add(more.1)),
        )
        .await?;
        (sums.flow_bytes, sums.flow_packets) = (bytes, packets);
        Ok(sums)
    }
}

/// The part of `amount` that falls into the windows of `[from_ms, to_ms)`, which is window-aligned.
fn part_between(amount: u64, start_ms: i64, end_ms: i64, from_ms: i64, to_ms: i64) -> u64 {
    if start_ms >= from_ms && end_ms <= to_ms && start_ms < to_ms {
        return amount;
    }
    let mut sum = 0u64;
    schemas::window::spread(amount, start_ms, end_ms, |window, part| {
        if window.start_ms() >= from_ms && window.start_ms() < to_ms {
            sum += part;
        }
    });
    sum
}

/// Rows of `usage_5m` in `[from_ms, to_ms)`.
pub(crate) fn windows_between(from_ms: i64, to_ms: i64) -> datafusion::prelude::Expr {
    col("window_start")
        .gt_eq(instant(from_ms))
        .and(col("window_start").lt(instant(to_ms)))
}

/// Metered flows that may have a share in `[from_ms, to_ms)`.
pub(crate) fn overlapping(from_ms: i64, to_ms: i64) -> datafusion::prelude::Expr {
    col("metered")
        .not_eq(lit(Metered::No as u8))
        .and(col("sampling_rate").not_eq(lit(0u32)))
        .and(col("start_at").lt(instant(to_ms)))
        .and(col("end_at").gt_eq(instant(from_ms)))
}

pub(crate) fn sequence_of(usage: &Snapshot) -> u64 {
    usage
        .properties
        .get(FLOWS_SEQUENCE)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn files_of_day(usage: &Snapshot, day: i64) -> Vec<String> {
    usage
        .files_between(day * DAY_MS, (day + 1) * DAY_MS)
        .map(|file| file.path.clone())
        .collect()
}

impl From<&UsageRow> for WindowUsage {
    fn from(row: &UsageRow) -> WindowUsage {
        WindowUsage {
            window_start_ms: row.window_start_ms,
            bytes_in: row.cell.bytes_in,
            bytes_out: row.cell.bytes_out,
            packets_in: row.cell.packets_in,
            packets_out: row.cell.packets_out,
            flows: row.cell.flows,
            samples: row.cell.samples,
            error_bound_ppm: row.cell.error_bound_ppm(),
        }
    }
}
