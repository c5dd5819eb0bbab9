//! The figures above the chart: what is happening now, and what needs somebody.
//!
//! "Now" is the last window that is over and had time to fill; while there is none yet (the first minutes of a new
//! installation) it is the open window, rated over what has passed of it.

use analytics::{Analytics, AnalyticsError};
use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use serde::Serialize;

use super::query::{OPEN_STEP_MIN_MS, OverviewRequest, WINDOW_MS};
use super::view::{rate, share_percent};

/// How long after its end a window may still miss flows that are on their way to the store.
const WINDOW_GRACE_MS: i64 = 60_000;
/// Older windows do not tell what is happening now.
const CURRENT_MAX_AGE_MS: i64 = 30 * 60_000;

/// Figures of the whole network. What was not measured is absent, never zero.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Tiles {
    /// Start of the window the current figures are of.
    pub(crate) current_window_start_ms: Option<i64>,
    pub(crate) in_bits_per_second: Option<u64>,
    pub(crate) out_bits_per_second: Option<u64>,
    pub(crate) flows_per_second: Option<f64>,
    /// Share of metered bytes in the range that belongs to no service.
    pub(crate) unattributed_percent: Option<f64>,
    pub(crate) unattributed_bytes: u64,
    /// Flows in the range whose sampling rate nobody knows: kept, never billed.
    pub(crate) flows_without_rate: u64,
}

/// What was counted in one window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct WindowSum {
    start_ms: i64,
    first: u64,
    second: u64,
}

/// Asks the stored tables.
///
/// # Errors
/// When they cannot be read.
pub(crate) async fn tiles(
    analytics: &Analytics,
    request: &OverviewRequest,
    now_ms: i64,
) -> Result<Tiles, AnalyticsError> {
    let since_ms = now_ms - CURRENT_MAX_AGE_MS;
    let usage = analytics
        .sql(&format!(
            "SELECT CAST(arrow_cast(window_start, 'Int64') AS BIGINT), CAST(sum(bytes_in) AS BIGINT), \
             CAST(sum(bytes_out) AS BIGINT) FROM usage_5m \
             WHERE window_start >= to_timestamp_millis({since_ms}) AND window_start <= to_timestamp_millis({now_ms}) \
             GROUP BY window_start"
        ))
        .await?;
    let received = analytics
        .sql(&format!(
            "SELECT CAST(arrow_cast(window_start, 'Int64') AS BIGINT), CAST(sum(value) AS BIGINT) \
             FROM collection_5m WHERE counter = 'flow_records' \
             AND window_start >= to_timestamp_millis({since_ms}) AND window_start <= to_timestamp_millis({now_ms}) \
             GROUP BY window_start"
        ))
        .await?;
    let (from_ms, to_ms) = (request.from_ms, request.to_ms);
    let attributed = analytics
        .sql(&format!(
            "SELECT CAST(coalesce(sum(CASE WHEN service = 0 THEN bytes_in + bytes_out END), 0) AS BIGINT), \
             CAST(coalesce(sum(bytes_in + bytes_out), 0) AS BIGINT) FROM usage_5m \
             WHERE window_start >= to_timestamp_millis({from_ms}) AND window_start < to_timestamp_millis({to_ms})"
        ))
        .await?;
    let without_rate = analytics
        .sql(&format!(
            "SELECT CAST(coalesce(sum(value), 0) AS BIGINT) FROM collection_5m \
             WHERE counter = 'flows_without_sampling_rate' \
             AND window_start >= to_timestamp_millis({from_ms}) AND window_start < to_timestamp_millis({to_ms})"
        ))
        .await?;

    let (unattributed_bytes, all_bytes) = rows(&attributed)
        .first()
        .map_or((0, 0), |row| (unsigned(row[0]), unsigned(row[1])));
    let mut tiles = Tiles {
        unattributed_percent: (all_bytes > 0).then(|| share_percent(unattributed_bytes, all_bytes)),
        unattributed_bytes,
        flows_without_rate: rows(&without_rate).first().map_or(0, |row| unsigned(row[0])),
        ..Tiles::default()
    };
    if let Some((window, width_ms)) = current(&window_sums(&usage), now_ms) {
        tiles.current_window_start_ms = Some(window.start_ms);
        tiles.in_bits_per_second = Some(rate(window.first, width_ms));
        tiles.out_bits_per_second = Some(rate(window.second, width_ms));
    }
    if let Some((window, width_ms)) = current(&window_sums(&received), now_ms) {
        tiles.flows_per_second = Some(per_second(window.first, width_ms));
    }
    Ok(tiles)
}

/// The window that stands for now, and the width its volume is to be divided by.
fn current(windows: &[WindowSum], now_ms: i64) -> Option<(WindowSum, i64)> {
    let settled = |window: &&WindowSum| window.start_ms + WINDOW_MS + WINDOW_GRACE_MS <= now_ms;
    if let Some(window) = windows.iter().filter(settled).max_by_key(|window| window.start_ms) {
        return Some((*window, WINDOW_MS));
    }
    let open = windows.iter().max_by_key(|window| window.start_ms)?;
    let width_ms = (now_ms - open.start_ms).min(WINDOW_MS);
    (width_ms >= OPEN_STEP_MIN_MS).then_some((*open, width_ms))
}

/// With one decimal.
fn per_second(count: u64, width_ms: i64) -> f64 {
    let width_ms = u64::try_from(width_ms).unwrap_or(0).max(1);
    let tenths = count.saturating_mul(10_000) / width_ms;
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

fn window_sums(batches: &[RecordBatch]) -> Vec<WindowSum> {
    let sum = |row: Vec<i64>| WindowSum {
        start_ms: row[0],
        first: unsigned(row[1]),
        second: row.get(2).copied().map_or(0, unsigned),
    };
    rows(batches)
        .into_iter()
        .filter(|row| row.len() >= 2)
        .map(sum)
        .collect()
}

/// Rows of BIGINT columns. A batch with another column in it has none.
fn rows(batches: &[RecordBatch]) -> Vec<Vec<i64>> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .filter_map(|c| c.as_primitive_opt::<Int64Type>())
            .collect();
        if columns.len() != batch.num_columns() {
            continue;
        }
        for row in 0..batch.num_rows() {
            // NULL is the sum of nothing.
            let value = |column: &&arrow::array::Int64Array| if column.is_valid(row) { column.value(row) } else { 0 };
            rows.push(columns.iter().map(value).collect());
        }
    }
    rows
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start_ms: i64) -> WindowSum {
        WindowSum {
            start_ms,
            first: 1,
            second: 2,
        }
    }

    #[test]
    fn now_is_the_last_window_that_had_time_to_fill() {
        let windows = [window(0), window(WINDOW_MS), window(2 * WINDOW_MS)];
        let at = |now_ms| current(&windows, now_ms).map(|(window, width_ms)| (window.start_ms, width_ms));
        assert_eq!(at(2 * WINDOW_MS + 59_999), Some((0, WINDOW_MS)));
        assert_eq!(at(2 * WINDOW_MS + 60_000), Some((WINDOW_MS, WINDOW_MS)));
    }

    #[test]
    fn a_new_installation_is_rated_over_what_has_passed() {
        let at = |now_ms| current(&[window(0)], now_ms).map(|(window, width_ms)| (window.start_ms, width_ms));
        assert_eq!(at(59_999), None);
        assert_eq!(at(90_000), Some((0, 90_000)));
        assert_eq!(at(310_000), Some((0, WINDOW_MS)));
        assert_eq!(current(&[], 90_000), None);
    }

    #[test]
    fn counts_become_rates_with_one_decimal() {
        assert!((per_second(100, 300_000) - 0.3).abs() < 1e-9);
        assert!((per_second(90_000, 300_000) - 300.0).abs() < 1e-9);
        assert!((per_second(1, 0) - 1_000.0).abs() < 1e-9);
    }
}
