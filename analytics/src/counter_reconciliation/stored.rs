//! Rows of `truth_1h` as files.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array, UInt32Array,
    UInt64Array,
};
use schemas::address::Address;
use tables::definitions::TRUTH_1H;
use tables::flow::address_array;
use tables::table::{FileEncoding, FileEntry, Table, write_parquet};

use super::{CounterReconciliationRow, Direction, MismatchCause, Verdict};
use crate::AnalyticsError;
use crate::store::parquet::unique_suffix;

/// Writes the file of one hour; `None` without rows.
pub(super) fn write(
    table: &Table,
    hour_ms: i64,
    number: u64,
    rows: &[CounterReconciliationRow],
) -> Result<Option<FileEntry>, AnalyticsError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let hour = jiff::Timestamp::from_millisecond(hour_ms)?;
    let path = format!(
        "{}-{number}-{}.parquet",
        hour.strftime("%Y-%m-%d/truth-%H"),
        unique_suffix()
    );
    let size_bytes = write_parquet(table, &path, [&batch_of(rows)?])?;
    Ok(Some(FileEntry {
        path,
        rows: rows.len() as u64,
        size_bytes,
        min_time_ms: hour_ms,
        max_time_ms: hour_ms,
        sequence: 0,
        encoding: FileEncoding::Open,
    }))
}

fn batch_of(rows: &[CounterReconciliationRow]) -> Result<RecordBatch, AnalyticsError> {
    let u32s = |value: fn(&CounterReconciliationRow) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(value)))
    };
    let u64s = |value: fn(&CounterReconciliationRow) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(value)))
    };
    let names = |value: fn(&CounterReconciliationRow) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
    };
    let hours = rows.iter().map(|row| row.hour_start_ms);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(hours).with_timezone("UTC")),
        address_array(rows.iter().map(|row| row.exporter)),
        u32s(|row| row.if_index),
        Arc::new(UInt8Array::from_iter_values(
            rows.iter().map(|row| u8::from(row.direction == Direction::Out)),
        )),
        u32s(|row| row.covered_ms),
        u64s(|row| row.counter_bytes),
        u64s(|row| row.metered_bytes),
        u64s(|row| row.bytes_scaled),
        u64s(|row| row.samples),
        u32s(|row| row.sampling_rate),
        u32s(|row| row.ratio_ppm),
        u32s(|row| row.bound_ppm),
        names(|row| row.verdict.name()),
        names(|row| row.guess.map_or("", MismatchCause::question)),
    ];
    Ok(RecordBatch::try_new(TRUTH_1H.arrow_schema(), columns)?)
}

/// Appends the rows of a batch.
pub(super) fn rows_of(rows: &mut Vec<CounterReconciliationRow>, batch: &RecordBatch) -> Result<(), AnalyticsError> {
    let hour_start = crate::store::parquet::column::<TimestampMillisecondArray>(batch, "hour_start")?.values();
    let exporter = crate::store::parquet::column::<FixedSizeBinaryArray>(batch, "exporter")?;
    let direction = crate::store::parquet::column::<UInt8Array>(batch, "direction")?.values();
    let u32s = |name| Ok::<_, AnalyticsError>(crate::store::parquet::column::<UInt32Array>(batch, name)?.values());
    let u64s = |name| Ok::<_, AnalyticsError>(crate::store::parquet::column::<UInt64Array>(batch, name)?.values());
    let (if_index, covered_ms) = (u32s("if_index")?, u32s("covered_ms")?);
    let (counter_bytes, metered_bytes) = (u64s("counter_bytes")?, u64s("metered_bytes")?);
    let (bytes_scaled, samples) = (u64s("bytes_scaled")?, u64s("samples")?);
    let (sampling_rate, ratio_ppm) = (u32s("sampling_rate")?, u32s("ratio_ppm")?);
    let bound_ppm = u32s("bound_ppm")?;
    let verdict = text(batch, "verdict")?;
    let guess = text(batch, "guess")?;
    for row in 0..batch.num_rows() {
        let unknown = |name| AnalyticsError::Column { name };
        rows.push(CounterReconciliationRow {
            hour_start_ms: hour_start[row],
            exporter: Address::from_slice(exporter.value(row)).ok_or(unknown("exporter"))?,
            if_index: if_index[row],
            direction: match direction[row] {
                0 => Direction::In,
                _ => Direction::Out,
            },
            covered_ms: covered_ms[row],
            counter_bytes: counter_bytes[row],
            metered_bytes: metered_bytes[row],
            bytes_scaled: bytes_scaled[row],
            samples: samples[row],
            sampling_rate: sampling_rate[row],
            ratio_ppm: ratio_ppm[row],
            bound_ppm: bound_ppm[row],
            verdict: Verdict::parse(verdict.value(row)).ok_or(unknown("verdict"))?,
            guess: MismatchCause::parse(guess.value(row)),
        });
    }
    Ok(())
}

/// A column of names, however the reader keeps it.
fn text(batch: &RecordBatch, name: &'static str) -> Result<StringArray, AnalyticsError> {
    let column = batch.column_by_name(name).ok_or(AnalyticsError::Column { name })?;
    let plain = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8)?;
    let text = plain.as_any().downcast_ref::<StringArray>();
    text.cloned().ok_or(AnalyticsError::Column { name })
}
