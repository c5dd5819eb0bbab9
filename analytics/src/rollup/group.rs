//! Rollups that are computed together, with one look at each flow, and how they are refreshed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::prelude::DataFrame;
use schemas::window::{DAY_MS, HOUR_MS};
use tables::column::TableDef;
use tables::definitions::{AS_5M, INTERFACE_5M, PORT_5M, USAGE_5M};
use tables::table::{Commit, ManifestError, Snapshot, Table, Token, retained_from_ms};

use super::cells::{Cells, TrafficCells};
use super::files::Files;
use super::flows::{MeteredColumns, TrafficColumns};
use super::key::ByService;
use super::{Counted, FLOWS_SEQUENCE, Ranges, RefreshProgress, UsageRefresh, columns, overlapping, sequence_of};
use crate::store::parquet::{add_each, fold};
use crate::{Analytics, AnalyticsError};

/// Tries against other refreshers and compactions before giving up.
const ATTEMPTS_MAX: u32 = 8;
/// Flows and UTC days counted in one scan at most, unless an hour has more: bounds the windows held in memory.
const FLOWS_PER_SCAN: u64 = 8_000_000;
const DAYS_PER_SCAN: usize = 4;

/// Volume by the keys of some rollups.
pub(crate) trait Group: Default + Debug + Send + 'static {
    /// Name of the refreshers' common token.
    const WRITER: &'static str;
    const TABLES: &'static [&'static TableDef];

    /// The columns of flows that it looks at.
    fn columns() -> Vec<&'static str>;

    /// Adds the share of each metered flow in the windows of `ranges`.
    fn add(&mut self, batch: &RecordBatch, ranges: &Ranges) -> Result<(), AnalyticsError>;

    fn add_all(&mut self, other: Self);

    /// Drops the windows before `from_ms`.
    fn forget_before(&mut self, from_ms: i64);

    /// The properties of a table that is complete up to a commit of `flows`.
    fn properties(flows_sequence: u64) -> BTreeMap<String, String> {
        BTreeMap::from([(FLOWS_SEQUENCE.to_owned(), flows_sequence.to_string())])
    }

    /// Puts what it holds of the windows of `dirty` in the place of theirs, in one of its tables.
    fn write(&self, dirty: &Ranges, files: &mut Files) -> Result<(), AnalyticsError>;
}

impl Group for Cells<ByService> {
    const WRITER: &'static str = "usage";
    const TABLES: &'static [&'static TableDef] = &[&USAGE_5M];

    fn columns() -> Vec<&'static str> {
        MeteredColumns::NAMES.to_vec()
    }

    fn add(&mut self, batch: &RecordBatch, ranges: &Ranges) -> Result<(), AnalyticsError> {
        self.add_flows(batch, ranges)
    }

    fn add_all(&mut self, other: Cells<ByService>) {
        self.merge(other);
    }

    fn forget_before(&mut self, from_ms: i64) {
        self.retain_since(from_ms);
    }

    fn properties(flows_sequence: u64) -> BTreeMap<String, String> {
        columns::properties(flows_sequence)
    }

    fn write(&self, dirty: &Ranges, files: &mut Files) -> Result<(), AnalyticsError> {
        files.replace(dirty, self.rows(dirty))
    }
}

impl Group for TrafficCells {
    const WRITER: &'static str = "traffic";
    const TABLES: &'static [&'static TableDef] = &[&INTERFACE_5M, &PORT_5M, &AS_5M];

    fn columns() -> Vec<&'static str> {
        [&MeteredColumns::NAMES[..], &TrafficColumns::NAMES].concat()
    }

    fn add(&mut self, batch: &RecordBatch, ranges: &Ranges) -> Result<(), AnalyticsError> {
        self.add_flows(batch, ranges)
    }

    fn add_all(&mut self, other: TrafficCells) {
        self.merge(other);
    }

    fn forget_before(&mut self, from_ms: i64) {
        self.retain_since(from_ms);
    }

    fn write(&self, dirty: &Ranges, files: &mut Files) -> Result<(), AnalyticsError> {
        match files.def().name {
            "interface_5m" => files.replace(dirty, self.interfaces.rows(dirty)),
            "port_5m" => files.replace(dirty, self.ports.rows(dirty)),
            _ => files.replace(dirty, self.systems.rows(dirty)),
        }
    }
}

enum Attempt {
    Done(UsageRefresh),
    /// Somebody else committed first: look again.
    Lost,
}

/// A table of the group before the refresh.
struct Target {
    table: Table,
    snapshot: Arc<Snapshot>,
    dirty: Ranges,
}

impl Target {
    fn token(&self, writer: &str) -> Token {
        Token {
            writer: writer.to_owned(),
            number: self.snapshot.applied.get(writer).copied().unwrap_or(0) + 1,
        }
    }
}

impl Analytics {
    /// Recomputes the windows of a group's tables that flow files committed since the last refresh touch, and those of `also`.
    pub(crate) async fn refresh_group<G: Group + Sync>(
        &self,
        also: Option<(i64, i64)>,
        counted: &mut Option<Counted<G>>,
        progress: &(impl Fn(RefreshProgress) + Send + Sync),
    ) -> Result<UsageRefresh, AnalyticsError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Attempt::Done(refresh) = self.try_refresh_group(also, counted, progress).await? {
                return Ok(refresh);
            }
        }
        Err(AnalyticsError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn try_refresh_group<G: Group + Sync>(
        &self,
        also: Option<(i64, i64)>,
        counted: &mut Option<Counted<G>>,
        progress: &(impl Fn(RefreshProgress) + Send + Sync),
    ) -> Result<Attempt, AnalyticsError> {
        let mut targets = Vec::with_capacity(G::TABLES.len());
        for def in G::TABLES {
            let table = self.store.table(def).clone();
            let snapshot = table.snapshot()?;
            targets.push(Target {
                table,
                snapshot,
                dirty: Ranges::default(),
            });
        }
        let flows = self.store.flows.snapshot()?;
        let known_sequence = targets
            .iter()
            .map(|target| sequence_of(&target.snapshot))
            .min()
            .unwrap_or(0);
        if known_sequence == flows.sequence && also.is_none() {
            return Ok(Attempt::Done(UsageRefresh {
                flows_sequence: flows.sequence,
                ..UsageRefresh::default()
            }));
        }

        let touched = touched(&flows, known_sequence, also);
        // Flows before this are removed: their windows stay as they were computed from all of them.
        let complete = touched.since(retained_from_ms(&flows));
        for target in &mut targets {
            target.dirty = complete.since(retained_from_ms(&target.snapshot));
        }
        let first = targets.first().map(|target| target.dirty.windows()).unwrap_or(0);
        let mut refresh = UsageRefresh {
            flows_sequence: flows.sequence,
            windows_recomputed: first,
            windows_frozen: touched.windows() - first,
            ..UsageRefresh::default()
        };

        let mut writers: Vec<Files> = targets
            .iter()
            .map(|target| Files::of(&target.table, &target.snapshot, flows.sequence, &target.dirty))
            .collect();
        let scans = scans(&complete, &flows);
        let days_total = complete.by_day().len();
        let mut days_done = 0;
        for ranges in scans {
            days_done = (days_done + ranges.by_day().len()).min(days_total);
            let kept = match also {
                // Asked to look again: from the flows, whatever was counted of them.
                Some(_) => None,
                None => Counted::resume(counted.take(), &flows, &ranges),
            };
            let volume = match kept {
                Some(kept) => Volume::Kept(self.count_new(&flows, kept, &mut refresh).await?),
                None => Volume::Counted(self.count_all(flows.clone(), &ranges, &mut refresh).await?),
            };
            let dirty: Vec<Ranges> = targets.iter().map(|target| ranges.within(&target.dirty)).collect();
            let (volume, written) = tokio::task::spawn_blocking(move || {
                let mut writers = writers;
                for (files, dirty) in writers.iter_mut().zip(&dirty) {
                    volume.cells().write(dirty, files)?;
                }
                Ok::<_, AnalyticsError>((volume, writers))
            })
            .await??;
            writers = written;
            if let Volume::Kept(mut kept) = volume {
                kept.forget(&flows, &ranges);
                *counted = Some(kept);
            }
            progress(RefreshProgress { days_done, days_total });
        }

        for (target, files) in targets.into_iter().zip(writers) {
            refresh.rows_written += files.rows_written;
            let token = target.token(G::WRITER);
            let replaced = files.replaced();
            refresh.files_written += replaced.add.len() as u64;
            let commit = Commit {
                token: Some(token),
                set: G::properties(flows.sequence),
                add: replaced.add,
                remove: replaced.remove,
            };
            match tokio::task::spawn_blocking(move || target.table.commit(commit)).await? {
                Ok(true) => {}
                Ok(false) | Err(ManifestError::Conflict { .. } | ManifestError::Exists { .. }) => {
                    return Ok(Attempt::Lost);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Attempt::Done(refresh))
    }
}

/// Where the volume of a scan's windows is.
enum Volume<G> {
    /// In what is kept of the windows that are still filling.
    Kept(Counted<G>),
    Counted(G),
}

impl<G: Group> Volume<G> {
    fn cells(&self) -> &G {
        match self {
            Volume::Kept(kept) => kept.cells(),
            Volume::Counted(cells) => cells,
        }
    }
}

impl Analytics {
    /// What is kept, with the files that were not counted before.
    async fn count_new<G: Group + Sync>(
        &self,
        flows: &Snapshot,
        mut kept: Counted<G>,
        refresh: &mut UsageRefresh,
    ) -> Result<Counted<G>, AnalyticsError> {
        let missing = kept.missing(flows);
        if !missing.is_empty() {
            refresh.flows_read += missing.iter().map(|file| file.rows).sum::<u64>();
            let files = missing.iter().map(|file| (file.path.clone(), (*file).clone()));
            let new = Arc::new(Snapshot {
                files: files.collect(),
                ..Snapshot::default()
            });
            // Straight to what is kept: a network has millions of pairs of systems, which cost most when sums of them are put together.
            let ranges = Ranges(vec![(kept.start_ms(), i64::MAX)]);
            let frame = self.metered_flows::<G>(new, &ranges)?;
            kept.count(missing);
            add_each(frame, kept.cells_mut(), |cells, batch| cells.add(batch, &ranges)).await?;
        }
        Ok(kept)
    }

    /// The windows of `ranges` from their flows alone.
    async fn count_all<G: Group + Sync>(
        &self,
        flows: Arc<Snapshot>,
        ranges: &Ranges,
        refresh: &mut UsageRefresh,
    ) -> Result<G, AnalyticsError> {
        let Some((from_ms, to_ms)) = ranges.hull() else {
            return Ok(G::default());
        };
        refresh.flows_read += flows.files_between(from_ms, to_ms).map(|file| file.rows).sum::<u64>();
        self.cells_of(flows, ranges.clone()).await
    }

    /// Volume in the windows of `ranges` that the flows of `snapshot` hold.
    async fn cells_of<G: Group + Sync>(&self, snapshot: Arc<Snapshot>, ranges: Ranges) -> Result<G, AnalyticsError> {
        let frame = self.metered_flows::<G>(snapshot, &ranges)?;
        fold(frame, move |cells: &mut G, batch| cells.add(batch, &ranges), G::add_all).await
    }

    /// Flows of `snapshot` that may have a share in the windows of `ranges`.
    fn metered_flows<G: Group>(&self, snapshot: Arc<Snapshot>, ranges: &Ranges) -> Result<DataFrame, AnalyticsError> {
        let (from_ms, to_ms) = ranges.hull().unwrap_or_default();
        Ok(self
            .store
            .read_at(&self.store.flows, snapshot)?
            .filter(overlapping(from_ms, to_ms))?
            .select_columns(&G::columns())?)
    }
}

/// The windows that flow files after a commit touch, and those of `also`.
pub(super) fn touched(flows: &Snapshot, known_sequence: u64, also: Option<(i64, i64)>) -> Ranges {
    let changed = flows
        .files
        .values()
        .filter(|file| file.sequence > known_sequence)
        .map(|file| (file.min_time_ms, file.max_time_ms));
    let asked = also.filter(|(from, to)| from < to).map(|(from, to)| (from, to - 1));
    Ranges::of_windows(changed.chain(asked))
}

/// The ranges in pieces that are counted in one scan each: days together while they have few flows, a day in parts where it has many.
fn scans(ranges: &Ranges, flows: &Snapshot) -> Vec<Ranges> {
    let mut scans: Vec<Ranges> = Vec::new();
    let (mut days_of_last, mut flows_of_last) = (0, 0);
    for (day, ranges) in ranges.by_day() {
        let files = flows.files_between(day * DAY_MS, (day + 1) * DAY_MS);
        let flows_of_day: u64 = files.map(|file| file.rows).sum();
        let parts = flows_of_day.div_ceil(FLOWS_PER_SCAN).clamp(1, 24);
        if parts > 1 {
            let part_ms = (24u64.div_ceil(parts) as i64) * HOUR_MS;
            let starts_ms = (day * DAY_MS..(day + 1) * DAY_MS).step_by(part_ms as usize);
            scans.extend(starts_ms.map(|from_ms| ranges.since(from_ms).until(from_ms + part_ms)));
            days_of_last = DAYS_PER_SCAN;
            continue;
        }
        let fits = days_of_last < DAYS_PER_SCAN && flows_of_last + flows_of_day <= FLOWS_PER_SCAN;
        match scans.last_mut().filter(|_| fits) {
            Some(last) => last.0.extend(ranges.0),
            None => {
                scans.push(ranges);
                (days_of_last, flows_of_last) = (0, 0);
            }
        }
        days_of_last += 1;
        flows_of_last += flows_of_day;
    }
    scans.retain(|ranges| ranges.hull().is_some());
    scans
}
