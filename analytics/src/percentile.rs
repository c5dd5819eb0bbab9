//! The 95th percentile as carriers bill it: nearest rank over 5-minute windows.
//!
//! Of n windows in ascending order the one at the 1-based rank ⌈95·n / 100⌉ = `(95·n + 99) / 100` (whole numbers) is taken
//! as it is; nothing is interpolated. The windows above it, at most 5 %, are free. For [`UsageMode::Max`] both directions
//! are ranked separately and the larger result is taken. Bits per second of a window are `bytes × 8 / 300`, rounded
//! down: the percentile never claims a bit more than was sent.

use schemas::window::WINDOW_MS;

use crate::UsageMode;

/// 1-based nearest rank of the 95th percentile of `windows` values; 0 of none.
pub const fn rank_95(windows: u64) -> u64 {
    (95 * windows).div_ceil(100)
}

/// Bits per second of a window with so many bytes, rounded down.
pub const fn window_bps(bytes: u64) -> u64 {
    (bytes as u128 * 8_000 / WINDOW_MS as u128) as u64
}

/// The 95th percentile over measured windows, given as (bytes in, bytes out) each, in bits per second; `None` of none.
/// A measured window without traffic is `(0, 0)` and must be among them.
pub fn percentile_95_bps(windows: &[(u64, u64)], mode: UsageMode) -> Option<u64> {
    let ranked = |value: fn(&(u64, u64)) -> u64| nearest_rank(windows.iter().map(value).collect());
    let bytes = match mode {
        UsageMode::Sum => ranked(|(bytes_in, bytes_out)| bytes_in.saturating_add(*bytes_out)),
        UsageMode::In => ranked(|(bytes_in, _)| *bytes_in),
        UsageMode::Out => ranked(|(_, bytes_out)| *bytes_out),
        UsageMode::Max => ranked(|(bytes_in, _)| *bytes_in).max(ranked(|(_, bytes_out)| *bytes_out)),
    };
    bytes.map(window_bps)
}

fn nearest_rank(mut values: Vec<u64>) -> Option<u64> {
    let rank = rank_95(values.len() as u64) as usize;
    if rank == 0 {
        return None;
    }
    let (_, value, _) = values.select_nth_unstable(rank - 1);
    Some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranks_of_whole_months() {
        // 30 and 31 days, and 29 days of a leap February.
        for (windows, rank) in [
            (8640, 8208),
            (8928, 8482),
            (8352, 7935),
            (1, 1),
            (20, 19),
            (21, 20),
            (0, 0),
        ] {
            assert_eq!(rank_95(windows), rank, "{windows} windows");
        }
    }

    #[test]
    fn the_value_at_the_rank_is_taken_as_it_is() {
        let windows: Vec<(u64, u64)> = (1..=8640).rev().map(|n| (n * 300, 0)).collect();
        assert_eq!(percentile_95_bps(&windows, UsageMode::In), Some(8208 * 8));
        assert_eq!(percentile_95_bps(&windows, UsageMode::Out), Some(0));
        assert_eq!(percentile_95_bps(&[], UsageMode::Sum), None);
    }

    #[test]
    fn max_ranks_the_directions_separately() {
        // In peaks in one half of the windows and out in the other: ranking the larger of both per window, or the sum,
        // would give another result than ranking each.
        let windows: Vec<(u64, u64)> = (0..100)
            .map(|n| if n < 6 { (9_000, 600) } else { (300, 4_500) })
            .collect();
        assert_eq!(percentile_95_bps(&windows, UsageMode::In), Some(window_bps(9_000)));
        assert_eq!(percentile_95_bps(&windows, UsageMode::Out), Some(window_bps(4_500)));
        assert_eq!(percentile_95_bps(&windows, UsageMode::Max), Some(window_bps(9_000)));
        assert_eq!(percentile_95_bps(&windows, UsageMode::Sum), Some(window_bps(9_600)));
        let alternating: Vec<(u64, u64)> = (0..100)
            .map(|n| if n % 25 == 0 { (9_000, 0) } else { (0, 300) })
            .collect();
        assert_eq!(
            percentile_95_bps(&alternating, UsageMode::Max),
            Some(window_bps(300)),
            "4 % of peaks are free"
        );
    }

    #[test]
    fn bits_per_second_are_rounded_down() {
        assert_eq!(window_bps(300), 8);
        assert_eq!(window_bps(37), 0);
        assert_eq!(window_bps(38), 1);
        assert_eq!(window_bps(u64::MAX), (u128::from(u64::MAX) * 8 / 300) as u64);
    }

    proptest! {
        /// By the definition: the smallest value such that at least 95 % of all are at or below it.
        #[test]
        fn nearest_rank_by_definition(values in proptest::collection::vec(0u64..1000, 1..300)) {
            let result = nearest_rank(values.clone()).unwrap();
            let share = |limit: u64| values.iter().filter(|value| **value <= limit).count() * 100;
            prop_assert!(share(result) >= 95 * values.len());
            let below = values.iter().filter(|value| **value < result).count() * 100;
            prop_assert!(below < 95 * values.len());
        }
    }
}
