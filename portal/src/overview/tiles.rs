//! The figures above the chart: what is happening now, and what needs somebody.
//!
//! "Now" is the last window that is over and had time to fill; while there is none yet (the first minutes of a new
//! installation) it is the open window, rated over what has passed of it.

use analytics::{FlowStore, StoreError, WindowCount, WindowVolume};
use serde::Serialize;

use super::query::{OPEN_STEP_MIN_MS, OverviewRequest, WINDOW_MS};
use super::view::{rate, share_percent};

/// How long after its end a window may still miss flows that are on their way to the store.
const WINDOW_GRACE_MS: i64 = 60_000;
/// Older windows do not tell what is happening now.
const CURRENT_MAX_AGE_MS: i64 = 30 * 60_000;

/// Figures of the whole network. What was not measured is absent, never zero.
#[derive(Clone, PartialEq, Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = OverviewTiles)]
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

/// What has a window.
trait Windowed: Copy {
    fn start_ms(&self) -> i64;
}

impl Windowed for WindowVolume {
    fn start_ms(&self) -> i64 {
        self.window_start_ms
    }
}

impl Windowed for WindowCount {
    fn start_ms(&self) -> i64 {
        self.window_start_ms
    }
}

/// Asks the store.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn tiles(store: &dyn FlowStore, request: &OverviewRequest, now_ms: i64) -> Result<Tiles, StoreError> {
    let (since_ms, until_ms) = (now_ms - CURRENT_MAX_AGE_MS, now_ms + 1);
    let usage = store.network_usage(since_ms, until_ms).await?;
    let received = store.flow_records(since_ms, until_ms).await?;
    let (from_ms, to_ms) = (request.from_ms, request.to_ms);
    let attribution = store.attribution(from_ms, to_ms).await?;
    let without_rate = store.flows_without_rate(from_ms, to_ms).await?;

    let (unattributed_bytes, all_bytes) = (attribution.unattributed_bytes, attribution.total_bytes);
    let mut tiles = Tiles {
        unattributed_percent: (all_bytes > 0).then(|| share_percent(unattributed_bytes, all_bytes)),
        unattributed_bytes,
        flows_without_rate: without_rate.iter().map(|one| one.count).sum(),
        ..Tiles::default()
    };
    if let Some((window, width_ms)) = current(&usage, now_ms) {
        tiles.current_window_start_ms = Some(window.window_start_ms);
        tiles.in_bits_per_second = Some(rate(window.bytes_in, width_ms));
        tiles.out_bits_per_second = Some(rate(window.bytes_out, width_ms));
    }
    if let Some((window, width_ms)) = current(&received, now_ms) {
        tiles.flows_per_second = Some(per_second(window.count, width_ms));
    }
    Ok(tiles)
}

/// The window that stands for now, and the width its volume is to be divided by.
fn current<W: Windowed>(windows: &[W], now_ms: i64) -> Option<(W, i64)> {
    let settled = |window: &&W| window.start_ms() + WINDOW_MS + WINDOW_GRACE_MS <= now_ms;
    if let Some(window) = windows.iter().filter(settled).max_by_key(|window| window.start_ms()) {
        return Some((*window, WINDOW_MS));
    }
    let open = windows.iter().max_by_key(|window| window.start_ms())?;
    let width_ms = (now_ms - open.start_ms()).min(WINDOW_MS);
    (width_ms >= OPEN_STEP_MIN_MS).then_some((*open, width_ms))
}

/// With one decimal.
fn per_second(count: u64, width_ms: i64) -> f64 {
    let width_ms = u64::try_from(width_ms).unwrap_or(0).max(1);
    let tenths = count.saturating_mul(10_000) / width_ms;
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(window_start_ms: i64) -> WindowVolume {
        WindowVolume {
            window_start_ms,
            bytes_in: 1,
            bytes_out: 2,
        }
    }

    #[test]
    fn now_is_the_last_window_that_had_time_to_fill() {
        let windows = [window(0), window(WINDOW_MS), window(2 * WINDOW_MS)];
        let at = |now_ms| current(&windows, now_ms).map(|(window, width_ms)| (window.window_start_ms, width_ms));
        assert_eq!(at(2 * WINDOW_MS + 59_999), Some((0, WINDOW_MS)));
        assert_eq!(at(2 * WINDOW_MS + 60_000), Some((WINDOW_MS, WINDOW_MS)));
    }

    #[test]
    fn a_new_installation_is_rated_over_what_has_passed() {
        let at = |now_ms| current(&[window(0)], now_ms).map(|(window, width_ms)| (window.window_start_ms, width_ms));
        assert_eq!(at(59_999), None);
        assert_eq!(at(90_000), Some((0, 90_000)));
        assert_eq!(at(310_000), Some((0, WINDOW_MS)));
        assert_eq!(current::<WindowVolume>(&[], 90_000), None);
    }

    #[test]
    fn counts_become_rates_with_one_decimal() {
        assert!((per_second(100, 300_000) - 0.3).abs() < 1e-9);
        assert!((per_second(90_000, 300_000) - 300.0).abs() < 1e-9);
        assert!((per_second(1, 0) - 1_000.0).abs() < 1e-9);
    }
}
