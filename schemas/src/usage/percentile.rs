//! The 95th percentile as carriers bill it: nearest rank over 5-minute windows.
//!
//! Of n windows in ascending order the one at the 1-based rank ⌈95·n / 100⌉ = `(95·n + 99) / 100` (whole numbers) is taken
//! as it is; nothing is interpolated. The windows above it, at most 5 %, are free. For [`UsageMode::Max`] both directions
//! are ranked separately and the larger result is taken. Bits per second of a window are `bytes × 8 / 300`, rounded
//! down: the percentile never claims a bit more than was sent.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::UsageMode;
use crate::window::WINDOW_MS;

/// 1-based nearest rank of the 95th percentile of `windows` values; 0 of none.
pub const fn rank_95(windows: u64) -> u64 {
    (95 * windows).div_ceil(100)
}

/// Bits per second of a window with so many bytes, rounded down.
pub const fn window_bps(bytes: u64) -> u64 {
    (bytes as u128 * 8_000 / WINDOW_MS as u128) as u64
}

/// The 95th percentile of windows that come one by one, in any order. It keeps only the largest 5 % of them: in a month 433
/// of 8,640.
#[derive(Clone, Debug)]
pub struct Percentile95 {
    mode: UsageMode,
    /// How many of the largest are kept: the least of them is the one at the rank. 0 of no windows.
    kept_max: usize,
    /// The largest by the mode's value; for [`UsageMode::Max`] of each direction.
    largest: [BinaryHeap<Reverse<u64>>; 2],
}

impl Percentile95 {
    /// Over so many measured windows. Those of them that are never added were measured and empty.
    pub fn new(windows: u64, mode: UsageMode) -> Percentile95 {
        let kept_max = match windows {
            0 => 0,
            _ => windows - rank_95(windows) + 1,
        };
        Percentile95 {
            mode,
            kept_max: usize::try_from(kept_max).unwrap_or(usize::MAX),
            largest: [BinaryHeap::new(), BinaryHeap::new()],
        }
    }

    /// Adds a measured window; each once.
    pub fn add(&mut self, bytes_in: u64, bytes_out: u64) {
        let [first, second] = &mut self.largest;
        match self.mode {
            UsageMode::Sum => keep(first, self.kept_max, bytes_in.saturating_add(bytes_out)),
            UsageMode::In => keep(first, self.kept_max, bytes_in),
            UsageMode::Out => keep(first, self.kept_max, bytes_out),
            UsageMode::Max => {
                keep(first, self.kept_max, bytes_in);
                keep(second, self.kept_max, bytes_out);
            }
        }
    }

    /// Bits per second; `None` of no windows.
    pub fn bps(&self) -> Option<u64> {
        if self.kept_max == 0 {
            return None;
        }
        let at_rank = |largest: &BinaryHeap<Reverse<u64>>| match largest.peek() {
            Some(Reverse(least)) if largest.len() == self.kept_max => *least,
            // Fewer windows than that had traffic: the one at the rank is an empty one.
            _ => 0,
        };
        let [first, second] = &self.largest;
        Some(window_bps(at_rank(first).max(at_rank(second))))
    }
}

/// Keeps `value` where it is one of the `kept_max` largest.
fn keep(largest: &mut BinaryHeap<Reverse<u64>>, kept_max: usize, value: u64) {
    if largest.len() < kept_max {
        largest.push(Reverse(value));
    } else if let Some(mut least) = largest.peek_mut()
        && least.0 < value
    {
        *least = Reverse(value);
    }
}

/// The 95th percentile over measured windows, given as (bytes in, bytes out) each, in bits per second; `None` of none.
/// A measured window without traffic is `(0, 0)` and must be among them.
pub fn percentile_95_bps(windows: &[(u64, u64)], mode: UsageMode) -> Option<u64> {
    let mut percentile = Percentile95::new(windows.len() as u64, mode);
    for (bytes_in, bytes_out) in windows {
        percentile.add(*bytes_in, *bytes_out);
    }
    percentile.bps()
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
            let windows: Vec<(u64, u64)> = values.iter().map(|value| (value * 75, 0)).collect();
            let result = percentile_95_bps(&windows, UsageMode::In).unwrap() / 2;
            let share = |limit: u64| values.iter().filter(|value| **value <= limit).count() * 100;
            prop_assert!(share(result) >= 95 * values.len());
            let below = values.iter().filter(|value| **value < result).count() * 100;
            prop_assert!(below < 95 * values.len());
        }

        /// Windows that are not added are those without traffic, and order does not matter.
        #[test]
        fn empty_windows_need_not_be_added(windows in proptest::collection::vec((0u64..1000, 0u64..1000), 1..300), seed: u64) {
            let windows: Vec<(u64, u64)> = windows.into_iter().map(|(a, b)| if (a + b) % 3 == 0 { (0, 0) } else { (a, b) }).collect();
            for mode in [UsageMode::Sum, UsageMode::In, UsageMode::Out, UsageMode::Max] {
                let mut percentile = Percentile95::new(windows.len() as u64, mode);
                let start = (seed % windows.len() as u64) as usize;
                for (bytes_in, bytes_out) in windows[start..].iter().chain(&windows[..start]).rev() {
                    if bytes_in + bytes_out > 0 {
                        percentile.add(*bytes_in, *bytes_out);
                    }
                }
                prop_assert_eq!(percentile.bps(), percentile_95_bps(&windows, mode));
            }
        }
    }
}
