//! A month of metered usage, stored as the refresh stores it: every service has traffic in each of its 8,640 windows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use analytics::error_bound::of_samples_ppm;
use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array, UInt32Array,
    UInt64Array,
};
use schemas::address::Address;
use schemas::window::{DAY_MS, WINDOW_MS};
use tables::definitions::{COLLECTION_5M, USAGE_5M};
use tables::table::{Commit, FileEncoding, FileEntry, ROW_GROUP_ROWS, Storage, StorageConfig, Table, write_parquet};

pub(super) const TIME_ZONE: &str = "Europe/Berlin";
/// When the base price of the month is charged, and when its usage is.
pub(super) const BEGIN: &str = "2026-09-01T00:30:00+02:00[Europe/Berlin]";
pub(super) const END: &str = "2026-10-01T00:30:00+02:00[Europe/Berlin]";
const DAYS: i64 = 30;
/// Packets that a sampled one stands for.
const SAMPLING_RATE: u64 = 1000;
const PACKET_BYTES: u64 = 850;
/// Files written at once.
const WRITERS: usize = 2;

/// Local midnight of the month's first day.
pub(super) fn starts_at_ms() -> anyhow::Result<i64> {
    Ok(BEGIN
        .parse::<jiff::Zoned>()?
        .start_of_day()?
        .timestamp()
        .as_millisecond())
}

/// Stores the usage of services 1 to `services` under a data folder; answers its rows.
pub(super) fn store(data_dir: &Path, services: u32) -> anyhow::Result<u64> {
    let storage = Storage::open(data_dir, &StorageConfig::default())?;
    let from_ms = starts_at_ms()?;
    let to_ms = from_ms + DAYS * DAY_MS;
    store_heard(&Table::open(storage.clone(), &COLLECTION_5M)?, from_ms, to_ms)?;
    let table = Table::open(storage, &USAGE_5M)?;
    // Files are of UTC days, months of local ones: there is one more.
    let next = AtomicI64::new(from_ms.div_euclid(DAY_MS));
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<Vec<FileEntry>> {
                    let mut files = Vec::new();
                    loop {
                        let day = next.fetch_add(1, Ordering::Relaxed);
                        let windows = (day * DAY_MS).max(from_ms)..((day + 1) * DAY_MS).min(to_ms);
                        if windows.is_empty() {
                            return Ok(files);
                        }
                        files.push(write_day(&table, day, windows, services)?);
                    }
                })
            })
            .collect();
        let mut files = Vec::new();
        for writer in writers {
            match writer.join() {
                Ok(written) => files.extend(written?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(files)
    })?;
    let rows = written.iter().map(|file| file.rows).sum();
    table.commit(Commit {
        add: written,
        // Nothing is to be refreshed: there are no flows.
        set: analytics::usage::properties(0),
        ..Commit::default()
    })?;
    Ok(rows)
}

fn write_day(table: &Table, day: i64, windows: std::ops::Range<i64>, services: u32) -> anyhow::Result<FileEntry> {
    let per_service = ((windows.end - windows.start) / WINDOW_MS) as u64;
    let rows = per_service * u64::from(services);
    let groups = (0..rows).step_by(ROW_GROUP_ROWS).map(|first| {
        let some = first..(first + ROW_GROUP_ROWS as u64).min(rows);
        batch(some, per_service, windows.start)
    });
    let date = jiff::Timestamp::from_millisecond(day * DAY_MS)?
        .strftime("%Y-%m-%d")
        .to_string();
    let path = format!("{date}/usage-0-1-bench.parquet");
    let size_bytes = write_parquet(table, &path, groups)?;
    Ok(FileEntry {
        path,
        rows,
        size_bytes,
        min_time_ms: windows.start,
        max_time_ms: windows.end - WINDOW_MS,
        sequence: 0,
        encoding: FileEncoding::Open,
    })
}

/// Rows of a day by (service, window).
fn batch(rows: std::ops::Range<u64>, per_service: u64, from_ms: i64) -> RecordBatch {
    let keys = || {
        rows.clone()
            .map(|row| (row / per_service + 1, from_ms + (row % per_service) as i64 * WINDOW_MS))
    };
    let samples: Vec<(u64, u64)> = keys().map(|(service, at_ms)| samples(service, at_ms)).collect();
    let numbers = |value: fn(&(u64, u64)) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(samples.iter().map(value)))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(keys().map(|(_, at_ms)| at_ms)).with_timezone("UTC")),
        Arc::new(UInt32Array::from_iter_values(keys().map(|(service, _)| service as u32))),
        numbers(|(received, _)| received * SAMPLING_RATE * PACKET_BYTES),
        numbers(|(_, sent)| sent * SAMPLING_RATE * PACKET_BYTES),
        numbers(|(received, _)| received * SAMPLING_RATE),
        numbers(|(_, sent)| sent * SAMPLING_RATE),
        numbers(|(received, sent)| received + sent),
        numbers(|(received, sent)| received + sent),
        Arc::new(UInt32Array::from_iter_values(
            samples.iter().map(|(received, sent)| of_samples_ppm(received + sent)),
        )),
    ];
    // The columns are those of the table, all as long: there is nothing that could fail.
    RecordBatch::try_new(USAGE_5M.arrow_schema(), columns).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Sampled packets received and sent by a service in a window: services differ by a factor of 500, the hours of a day by
/// 3, windows by 2.
fn samples(service: u64, at_ms: i64) -> (u64, u64) {
    let level = 1 << (mix(service) % 10);
    let hour = at_ms.div_euclid(3_600_000).rem_euclid(24).abs_diff(3).min(12);
    let noise = mix((service << 32) ^ (at_ms / WINDOW_MS) as u64);
    let amount = level * (6 + hour) * (64 + noise % 64) / 512;
    (1 + amount / 4 + noise % 3, 1 + amount)
}

/// A number that looks like chance and is always the same.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One exporter was heard in every window: all of them were measured.
fn store_heard(table: &Table, from_ms: i64, to_ms: i64) -> anyhow::Result<()> {
    let windows = (from_ms..to_ms).step_by(WINDOW_MS as usize);
    let rows = windows.clone().count();
    let exporter = Address::from_v4([192, 0, 2, 1]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(windows).with_timezone("UTC")),
        Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::repeat_n(
            exporter.0, rows,
        ))?),
        Arc::new(UInt32Array::from_value(0, rows)),
        Arc::new(UInt8Array::from_value(10, rows)),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n("datagrams", rows))),
        Arc::new(UInt64Array::from_value(1000, rows)),
    ];
    let schema = COLLECTION_5M.arrow_schema();
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| arrow::compute::cast(&column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let path = "bench.parquet".to_owned();
    let size_bytes = write_parquet(table, &path, [&RecordBatch::try_new(schema, columns)?])?;
    table.commit(Commit {
        add: vec![FileEntry {
            path,
            rows: rows as u64,
            size_bytes,
            min_time_ms: from_ms,
            max_time_ms: to_ms - WINDOW_MS,
            sequence: 0,
            encoding: FileEncoding::Open,
        }],
        set: BTreeMap::new(),
        ..Commit::default()
    })?;
    Ok(())
}
