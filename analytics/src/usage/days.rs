//! The files of `usage_5m`: one for each UTC day, written anew with the rows that changed.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array, UInt64Array};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::window::DAY_MS;
use tables::definitions::USAGE_5M;
use tables::table::{FileEncoding, FileEntry, Table, write_parquet};

use super::{Cell, Ranges, UsageRow};
use crate::AnalyticsError;
use crate::store::parquet::{column, unique_suffix};

/// One day's new file.
pub(super) struct DayRewrite {
    pub(super) day: i64,
    pub(super) dirty: Ranges,
    /// New rows of the dirty windows.
    pub(super) rows: Vec<UsageRow>,
    /// The day's files until now.
    pub(super) old: Vec<String>,
}

impl DayRewrite {
    /// Writes the day's file; answers the paths it replaces and, unless the day is now empty, the new file. A day whose rows
    /// are as they were keeps its file, so that whoever follows the files (billing's corrections) sees what changed only.
    pub(super) fn write(
        self,
        table: &Table,
        flows_sequence: u64,
        number: u64,
    ) -> Result<(Vec<String>, Option<FileEntry>), AnalyticsError> {
        let DayRewrite {
            day,
            dirty,
            mut rows,
            old,
        } = self;
        let mut before = Vec::new();
        for path in &old {
            read_rows(table, path, &mut before)?;
        }
        rows.extend(before.iter().filter(|row| !dirty.contain(row.window_start_ms)));
        rows.sort_unstable_by_key(|row| (row.service, row.window_start_ms));
        if old.len() <= 1 && rows == before {
            return Ok((Vec::new(), None));
        }
        let times = || rows.iter().map(|row| row.window_start_ms);
        let (Some(min_time_ms), Some(max_time_ms)) = (times().min(), times().max()) else {
            return Ok((old, None));
        };
        let date = jiff::Timestamp::from_millisecond(day * DAY_MS)?
            .strftime("%Y-%m-%d")
            .to_string();
        let path = format!("{date}/usage-{flows_sequence}-{number}-{}.parquet", unique_suffix());
        let size_bytes = write_parquet(table, &path, [&batch_of(&rows)?])?;
        let file = FileEntry {
            path,
            rows: rows.len() as u64,
            size_bytes,
            min_time_ms,
            max_time_ms,
            sequence: 0,
            encoding: FileEncoding::Open,
        };
        Ok((old, Some(file)))
    }
}

pub(super) fn read_rows(table: &Table, path: &str, rows: &mut Vec<UsageRow>) -> Result<(), AnalyticsError> {
    let file = table.read(path).map_err(|source| AnalyticsError::Open {
        path: table.location(path),
        source,
    })?;
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        rows_of(rows, &batch?)?;
    }
    Ok(())
}

/// What a row is read from.
pub(crate) const ROW_COLUMNS: [&str; 8] = [
    "window_start",
    "service",
    "bytes_in",
    "bytes_out",
    "packets_in",
    "packets_out",
    "flows",
    "samples",
];

/// A batch of `usage_5m` with [`ROW_COLUMNS`].
pub(crate) struct UsageColumns<'a> {
    window_start: &'a [i64],
    service: &'a [u32],
    bytes_in: &'a [u64],
    bytes_out: &'a [u64],
    packets_in: &'a [u64],
    packets_out: &'a [u64],
    flows: &'a [u64],
    samples: &'a [u64],
}

impl<'a> UsageColumns<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<UsageColumns<'a>, AnalyticsError> {
        let numbers = |name| Ok::<&'a [u64], AnalyticsError>(column::<UInt64Array>(batch, name)?.values());
        Ok(UsageColumns {
            window_start: column::<TimestampMillisecondArray>(batch, "window_start")?.values(),
            service: column::<UInt32Array>(batch, "service")?.values(),
            bytes_in: numbers("bytes_in")?,
            bytes_out: numbers("bytes_out")?,
            packets_in: numbers("packets_in")?,
            packets_out: numbers("packets_out")?,
            flows: numbers("flows")?,
            samples: numbers("samples")?,
        })
    }

    pub(crate) fn services(&self) -> &'a [u32] {
        self.service
    }

    #[inline]
    pub(crate) fn row(&self, row: usize) -> UsageRow {
        UsageRow {
            service: self.service[row],
            window_start_ms: self.window_start[row],
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

/// Appends the rows of a batch of `usage_5m`.
pub(super) fn rows_of(rows: &mut Vec<UsageRow>, batch: &RecordBatch) -> Result<(), AnalyticsError> {
    let columns = UsageColumns::of(batch)?;
    rows.extend((0..batch.num_rows()).map(|row| columns.row(row)));
    Ok(())
}

pub(super) fn batch_of(rows: &[UsageRow]) -> Result<RecordBatch, AnalyticsError> {
    let numbers = |value: fn(&Cell) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| value(&row.cell))))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.window_start_ms))
                .with_timezone("UTC"),
        ),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.service))),
        numbers(|cell| cell.bytes_in),
        numbers(|cell| cell.bytes_out),
        numbers(|cell| cell.packets_in),
        numbers(|cell| cell.packets_out),
        numbers(|cell| cell.flows),
        numbers(|cell| cell.samples),
        Arc::new(UInt32Array::from_iter_values(
            rows.iter().map(|row| row.cell.error_bound_ppm()),
        )),
    ];
    Ok(RecordBatch::try_new(USAGE_5M.arrow_schema(), columns)?)
}
