//! The files of a rollup: how rows are laid out in them, and how windows are replaced.
//!
//! ```text
//! tables/usage_5m/2026-11-21/usage_5m-….parquet    a day that is over: sorted by (key, window), cut where it has more than FILE_ROWS_MAX rows
//! tables/usage_5m/2026-11-22/usage_5m-….parquet    today: one file for each hour
//! ```
//!
//! * A file holds whole UTC hours, and no hour lies in two files. Windows are replaced by writing the files of their hours anew, so a
//!   refresh costs what its hours hold, however far the day has come.
//! * Files of a day are put together once it is [`OVER_AFTER_MS`] past, as far as each stays below [`FILE_ROWS_MAX`]: late flows of
//!   an evening arrive before that, and what comes later writes one such file anew.
//! * A file whose rows are as they were stays, so that whoever follows the files (billing's corrections) sees what changed only.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array, UInt64Array};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::window::{DAY_MS, HOUR_MS};
use tables::column::TableDef;
use tables::table::{FileEncoding, FileEntry, Snapshot, Table, write_parquet};

use super::cell::Cell;
use super::key::{ByService, Key};
use super::ranges::hour_of;
use super::{Ranges, Row};
use crate::AnalyticsError;
use crate::store::parquet::{column, unique_suffix};

/// How long after its end a day's files are put together, by the newest window.
const OVER_AFTER_MS: i64 = 2 * HOUR_MS;
/// Rows of a file of several hours at most: a late flow writes it anew.
const FILE_ROWS_MAX: usize = 2_000_000;

/// The files of a table while it is refreshed: as the snapshot has them, then as the next commit will.
#[derive(Debug)]
pub(crate) struct Files {
    table: Table,
    /// Part of new names, with the commit that the rows are computed from.
    sequence: u64,
    files: Vec<FileEntry>,
    /// Days that end before this are over.
    over_ms: i64,
    /// Of the snapshot, to be removed.
    removed: Vec<String>,
    /// New ones among `files`.
    added: Vec<String>,
    pub(super) rows_written: u64,
}

/// What a commit is told.
pub(super) struct Replaced {
    pub(super) remove: Vec<String>,
    pub(super) add: Vec<FileEntry>,
}

/// Hours that are written together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unit {
    from_ms: i64,
    to_ms: i64,
}

impl Unit {
    fn of(file: &FileEntry) -> Unit {
        Unit {
            from_ms: hour_of(file.min_time_ms),
            to_ms: hour_of(file.max_time_ms) + HOUR_MS,
        }
    }

    fn overlaps(&self, other: &Unit) -> bool {
        self.from_ms < other.to_ms && other.from_ms < self.to_ms
    }

    fn hours(&self) -> i64 {
        (self.to_ms - self.from_ms) / HOUR_MS
    }
}

impl Files {
    /// `dirty`: what will be replaced in all.
    pub(super) fn of(table: &Table, snapshot: &Snapshot, sequence: u64, dirty: &Ranges) -> Files {
        let mut files: Vec<FileEntry> = snapshot.files.values().cloned().collect();
        files.sort_unstable_by(|a, b| (a.min_time_ms, &a.path).cmp(&(b.min_time_ms, &b.path)));
        let newest_ms = files.iter().map(|file| file.max_time_ms);
        let newest_ms = newest_ms.chain(dirty.hull().map(|(_, to)| to - 1)).max();
        Files {
            table: table.clone(),
            sequence,
            files,
            over_ms: newest_ms.map_or(i64::MIN, |newest_ms| newest_ms - OVER_AFTER_MS),
            removed: Vec::new(),
            added: Vec::new(),
            rows_written: 0,
        }
    }

    pub(super) fn def(&self) -> &'static TableDef {
        self.table.def()
    }

    pub(super) fn replaced(self) -> Replaced {
        let added = self.added;
        Replaced {
            remove: self.removed,
            add: self
                .files
                .into_iter()
                .filter(|file| added.contains(&file.path))
                .collect(),
        }
    }

    /// Puts `rows`, which are sorted, in the place of all rows of the windows of `dirty`.
    pub(super) fn replace<K: Key>(&mut self, dirty: &Ranges, rows: Vec<Row<K>>) -> Result<(), AnalyticsError> {
        let units = self.units(dirty);
        let mut rows_of: Vec<Vec<Row<K>>> = vec![Vec::new(); units.len()];
        for row in rows {
            let after = units.partition_point(|unit| unit.from_ms <= row.start_ms);
            if let Some(of) = after.checked_sub(1).and_then(|unit| rows_of.get_mut(unit)) {
                of.push(row);
            }
        }
        for (unit, rows) in units.into_iter().zip(rows_of) {
            self.rewrite(unit, dirty, rows)?;
        }
        self.put_together::<K>()
    }

    /// The hours of `dirty` with those of all files that have one of them: of days that are over together, otherwise one by one.
    fn units(&self, dirty: &Ranges) -> Vec<Unit> {
        let mut units = Vec::new();
        for (from_ms, to_ms) in dirty.hours().by_day().into_values().flat_map(|ranges| ranges.0) {
            let day_end_ms = (from_ms.div_euclid(DAY_MS) + 1) * DAY_MS;
            if day_end_ms <= self.over_ms {
                units.push(Unit { from_ms, to_ms });
            } else {
                let hours = (from_ms..to_ms).step_by(HOUR_MS as usize);
                units.extend(hours.map(|from_ms| Unit {
                    from_ms,
                    to_ms: from_ms + HOUR_MS,
                }));
            }
        }
        for file in &self.files {
            let mut whole = Unit::of(file);
            let (touched, others): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| unit.overlaps(&whole));
            units = others;
            if !touched.is_empty() {
                for unit in touched {
                    whole.from_ms = whole.from_ms.min(unit.from_ms);
                    whole.to_ms = whole.to_ms.max(unit.to_ms);
                }
                units.push(whole);
            }
        }
        units.sort_unstable_by_key(|unit| unit.from_ms);
        units
    }

    fn rewrite<K: Key>(&mut self, unit: Unit, dirty: &Ranges, mut rows: Vec<Row<K>>) -> Result<(), AnalyticsError> {
        let old: Vec<FileEntry> = self
            .files
            .iter()
            .filter(|file| unit.overlaps(&Unit::of(file)))
            .cloned()
            .collect();
        let mut before = Vec::new();
        for file in &old {
            read_rows(&self.table, &file.path, &mut before)?;
        }
        rows.extend(before.iter().filter(|row| !dirty.contain(row.start_ms)));
        rows.sort_unstable_by_key(Row::order);
        before.sort_unstable_by_key(Row::order);
        if rows == before {
            return Ok(());
        }
        self.swap(&old, unit, &rows, 0)
    }

    /// Puts the files of the first day that has some to put together into one.
    fn put_together<K: Key>(&mut self) -> Result<(), AnalyticsError> {
        let Some(files) = self.to_put_together() else {
            return Ok(());
        };
        let mut rows: Vec<Row<K>> = Vec::new();
        for file in &files {
            read_rows(&self.table, &file.path, &mut rows)?;
        }
        rows.sort_unstable_by_key(Row::order);
        let units = files.iter().map(Unit::of);
        let from_ms = units.clone().map(|unit| unit.from_ms).min().unwrap_or_default();
        let to_ms = units.map(|unit| unit.to_ms).max().unwrap_or_default();
        // The rows are those that were there: who follows the files sees nothing new.
        let sequence = files.iter().map(|file| file.sequence).max().unwrap_or(0);
        self.swap(&files, Unit { from_ms, to_ms }, &rows, sequence)
    }

    /// The longest run of neighbours in one day that is over, of the first such day, that together make a file.
    fn to_put_together(&self) -> Option<Vec<FileEntry>> {
        let day_of = |file: &FileEntry| file.min_time_ms.div_euclid(DAY_MS);
        let is_over =
            |file: &&FileEntry| (day_of(file) + 1) * DAY_MS <= self.over_ms && !self.added.contains(&file.path);
        let mut files: Vec<&FileEntry> = self.files.iter().filter(is_over).collect();
        files.sort_unstable_by_key(|file| file.min_time_ms);
        let mut run: Vec<&FileEntry> = Vec::new();
        for file in files {
            let rows = run.iter().map(|file| file.rows).sum::<u64>() + file.rows;
            let fits = run.first().is_none_or(|first| day_of(first) == day_of(file)) && rows <= FILE_ROWS_MAX as u64;
            if !fits {
                if run.len() > 1 {
                    break;
                }
                run.clear();
            }
            run.push(file);
        }
        (run.len() > 1).then(|| run.into_iter().cloned().collect())
    }

    /// Writes `rows` in place of the files `old`, all of whose hours are those of `unit`.
    fn swap<K: Key>(
        &mut self,
        old: &[FileEntry],
        unit: Unit,
        rows: &[Row<K>],
        sequence: u64,
    ) -> Result<(), AnalyticsError> {
        let mut new = Vec::new();
        if rows.len() <= FILE_ROWS_MAX || unit.hours() == 1 {
            new.extend(self.write(rows, sequence)?);
        } else {
            for (from_ms, to_ms) in cuts(rows) {
                let part: Vec<Row<K>> = rows
                    .iter()
                    .filter(|row| (from_ms..to_ms).contains(&row.start_ms))
                    .copied()
                    .collect();
                new.extend(self.write(&part, sequence)?);
            }
        }
        for file in old {
            match self.added.iter().position(|path| *path == file.path) {
                // Written a moment ago and never named: cleaning up finds it.
                Some(position) => drop(self.added.swap_remove(position)),
                None => self.removed.push(file.path.clone()),
            }
            self.files.retain(|other| other.path != file.path);
        }
        for file in new {
            self.rows_written += file.rows;
            self.added.push(file.path.clone());
            self.files.push(file);
        }
        Ok(())
    }

    fn write<K: Key>(&self, rows: &[Row<K>], sequence: u64) -> Result<Option<FileEntry>, AnalyticsError> {
        let times = || rows.iter().map(|row| row.start_ms);
        let (Some(min_time_ms), Some(max_time_ms)) = (times().min(), times().max()) else {
            return Ok(None);
        };
        let date = jiff::Timestamp::from_millisecond(min_time_ms)?.strftime("%Y-%m-%d");
        let name = self.def().name;
        let path = format!("{date}/{name}-{}-{}.parquet", self.sequence, unique_suffix());
        let size_bytes = write_parquet(&self.table, &path, [&batch_of(self.def(), rows)?])?;
        Ok(Some(FileEntry {
            path,
            rows: rows.len() as u64,
            size_bytes,
            min_time_ms,
            max_time_ms,
            sequence,
            encoding: FileEncoding::Open,
        }))
    }
}

/// Runs of hours with at most [`FILE_ROWS_MAX`] rows each, or of one hour.
fn cuts<K: Key>(rows: &[Row<K>]) -> Vec<(i64, i64)> {
    let mut rows_by_hour: std::collections::BTreeMap<i64, usize> = std::collections::BTreeMap::new();
    for row in rows {
        *rows_by_hour.entry(hour_of(row.start_ms)).or_default() += 1;
    }
    let mut cuts: Vec<(i64, i64)> = Vec::new();
    let mut rows_of_last = 0;
    for (hour_ms, rows) in rows_by_hour {
        rows_of_last += rows;
        match cuts.last_mut() {
            Some(last) if rows_of_last <= FILE_ROWS_MAX => last.1 = hour_ms + HOUR_MS,
            _ => {
                cuts.push((hour_ms, hour_ms + HOUR_MS));
                rows_of_last = rows;
            }
        }
    }
    cuts
}

/// Appends the rows of a file.
pub(super) fn read_rows<K: Key>(table: &Table, path: &str, rows: &mut Vec<Row<K>>) -> Result<(), AnalyticsError> {
    let file = table.read(path).map_err(|source| AnalyticsError::Open {
        path: table.location(path),
        source,
    })?;
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        rows_of(table.def(), rows, &batch?)?;
    }
    Ok(())
}

/// A batch of a rollup with its time, key and sums.
pub(crate) struct RowColumns<'a, K: Key> {
    start: &'a [i64],
    key: K::Stored<'a>,
    bytes_in: &'a [u64],
    bytes_out: &'a [u64],
    packets_in: &'a [u64],
    packets_out: &'a [u64],
    flows: &'a [u64],
    samples: &'a [u64],
}

impl<'a, K: Key> RowColumns<'a, K> {
    /// What a row is read from. Without the bound, which follows from these: files of an older version do not have it.
    pub(crate) fn names(def: &'static TableDef) -> Vec<&'static str> {
        let sums = ["bytes_in", "bytes_out", "packets_in", "packets_out", "flows", "samples"];
        [&[def.time_column][..], K::COLUMNS, &sums].concat()
    }

    pub(crate) fn of(def: &'static TableDef, batch: &'a RecordBatch) -> Result<RowColumns<'a, K>, AnalyticsError> {
        let numbers = |name| Ok::<&'a [u64], AnalyticsError>(column::<UInt64Array>(batch, name)?.values());
        Ok(RowColumns {
            start: column::<TimestampMillisecondArray>(batch, def.time_column)?.values(),
            key: K::stored(batch)?,
            bytes_in: numbers("bytes_in")?,
            bytes_out: numbers("bytes_out")?,
            packets_in: numbers("packets_in")?,
            packets_out: numbers("packets_out")?,
            flows: numbers("flows")?,
            samples: numbers("samples")?,
        })
    }

    #[inline]
    pub(crate) fn key(&self, row: usize) -> K {
        K::at(&self.key, row)
    }

    #[inline]
    pub(crate) fn row(&self, row: usize) -> Row<K> {
        Row {
            key: self.key(row),
            start_ms: self.start[row],
            cell: Cell {
                bytes_in: self.bytes_in[row],
                bytes_out: self.bytes_out[row],
                packets_in: self.packets_in[row],
                packets_out: self.packets_out[row],
                flows: self.flows[row],
                samples: self.samples[row],
            },
        }
    }
}

impl<'a> RowColumns<'a, ByService> {
    pub(crate) fn services(&self) -> &'a [u32] {
        self.key
    }
}

/// Appends the rows of a batch.
pub(crate) fn rows_of<K: Key>(
    def: &'static TableDef,
    rows: &mut Vec<Row<K>>,
    batch: &RecordBatch,
) -> Result<(), AnalyticsError> {
    let columns = RowColumns::<K>::of(def, batch)?;
    rows.extend((0..batch.num_rows()).map(|row| columns.row(row)));
    Ok(())
}

pub(super) fn batch_of<K: Key>(def: &'static TableDef, rows: &[Row<K>]) -> Result<RecordBatch, AnalyticsError> {
    let numbers = |value: fn(&Cell) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| value(&row.cell))))
    };
    let starts = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.start_ms));
    let starts: ArrayRef = Arc::new(starts.with_timezone("UTC"));
    let mut columns = vec![starts];
    columns.extend(K::arrays(rows)?);
    columns.extend([
        numbers(|cell| cell.bytes_in),
        numbers(|cell| cell.bytes_out),
        numbers(|cell| cell.packets_in),
        numbers(|cell| cell.packets_out),
        numbers(|cell| cell.flows),
        numbers(|cell| cell.samples),
    ]);
    if def.index_of("error_bound_ppm").is_some() {
        let bounds = rows.iter().map(|row| row.cell.error_bound_ppm());
        columns.push(Arc::new(UInt32Array::from_iter_values(bounds)));
    }
    Ok(RecordBatch::try_new(def.arrow_schema(), columns)?)
}
