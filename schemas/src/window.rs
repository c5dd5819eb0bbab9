//! Five-minute usage windows. A window is named by its start and is half-open: `[start, start + 5 min)`.

use jiff::Timestamp;

/// Length of a usage window in milliseconds.
pub const WINDOW_MS: i64 = 300_000;
/// Windows in a UTC day.
pub const WINDOWS_PER_DAY: i64 = 288;
/// Milliseconds in a UTC day.
pub const DAY_MS: i64 = 86_400_000;
/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// Start of a usage window: UTC milliseconds, always a multiple of [`WINDOW_MS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WindowStart(i64);

impl WindowStart {
    /// The window that holds the instant `at_ms` (UTC milliseconds).
    #[inline]
    pub const fn containing(at_ms: i64) -> WindowStart {
        WindowStart(at_ms.div_euclid(WINDOW_MS) * WINDOW_MS)
    }

    /// Start in UTC milliseconds.
    #[inline]
    pub const fn start_ms(self) -> i64 {
        self.0
    }

    /// End (exclusive) in UTC milliseconds.
    #[inline]
    pub const fn end_ms(self) -> i64 {
        self.0 + WINDOW_MS
    }

    /// The window after this one.
    #[inline]
    pub const fn next(self) -> WindowStart {
        WindowStart(self.0 + WINDOW_MS)
    }

    /// Days since 1970-01-01 UTC of the day that holds the window: usage files are kept per such day.
    pub const fn utc_day(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }
}

impl std::fmt::Display for WindowStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&instant_text(self.0))
    }
}

/// An instant (UTC milliseconds) for people and programs: RFC 3339, UTC, with three digits of milliseconds or none. One beyond
/// the calendar stays a number.
pub fn instant_text(at_ms: i64) -> String {
    match Timestamp::from_millisecond(at_ms) {
        Ok(at) if at_ms % 1000 == 0 => at.to_string(),
        Ok(at) => format!("{at:.3}"),
        Err(_) => format!("{at_ms} ms"),
    }
}

/// Windows that overlap the half-open range `[from_ms, to_ms)`; none when it is empty.
pub fn windows(from_ms: i64, to_ms: i64) -> impl Iterator<Item = WindowStart> {
    let first = WindowStart::containing(from_ms).start_ms();
    let end_ms = if to_ms > from_ms { to_ms } else { first };
    (first..end_ms).step_by(WINDOW_MS as usize).map(WindowStart)
}

/// Splits `amount` over the windows that `[start_ms, end_ms)` overlaps, in proportion to the overlap, so that the parts
/// sum to `amount` exactly: part k is the difference of two floored cumulative shares (U2). An empty range puts all of it
/// into the window that holds `start_ms`.
pub fn spread(amount: u64, start_ms: i64, end_ms: i64, mut part: impl FnMut(WindowStart, u64)) {
    let first = WindowStart::containing(start_ms);
    if end_ms <= first.end_ms() {
        part(first, amount);
        return;
    }
    let duration_ms = (end_ms - start_ms) as u128;
    let mut given: u64 = 0;
    let mut window = first;
    while window.start_ms() < end_ms {
        let until_ms = window.end_ms().min(end_ms);
        let elapsed_ms = (until_ms - start_ms) as u128;
        let cumulative = (u128::from(amount) * elapsed_ms / duration_ms) as u64;
        part(window, cumulative - given);
        given = cumulative;
        window = window.next();
    }
}

/// What [`spread`] puts into the windows that start in `[from_ms, to_ms)`, both starts of windows.
pub fn spread_within(amount: u64, (start_ms, end_ms): (i64, i64), (from_ms, to_ms): (i64, i64)) -> u64 {
    let first = WindowStart::containing(start_ms);
    if end_ms <= first.end_ms() {
        let is_within = (from_ms..to_ms).contains(&first.start_ms());
        return if is_within { amount } else { 0 };
    }
    let duration_ms = (end_ms - start_ms) as u128;
    let until = |at_ms: i64| {
        let elapsed_ms = (at_ms.clamp(start_ms, end_ms) - start_ms) as u128;
        (u128::from(amount) * elapsed_ms / duration_ms) as u64
    };
    until(to_ms).saturating_sub(until(from_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(amount: u64, start_ms: i64, end_ms: i64) -> Vec<(i64, u64)> {
        let mut out = Vec::new();
        spread(amount, start_ms, end_ms, |window, share| {
            out.push((window.start_ms(), share));
        });
        out
    }

    #[test]
    fn a_flow_inside_one_window_is_not_split() {
        assert_eq!(parts(1000, 300_000, 599_999), vec![(300_000, 1000)]);
        assert_eq!(parts(1000, 300_000, 600_000), vec![(300_000, 1000)]);
        assert_eq!(parts(1000, 300_000, 300_000), vec![(300_000, 1000)]);
    }

    #[test]
    fn a_long_flow_is_split_by_overlap() {
        assert_eq!(parts(1000, 450_000, 750_000), vec![(300_000, 500), (600_000, 500)]);
        assert_eq!(parts(10, 0, 900_000), vec![(0, 3), (300_000, 3), (600_000, 4)]);
    }

    #[test]
    fn windows_cover_a_half_open_range() {
        let starts = |from, to| windows(from, to).map(WindowStart::start_ms).collect::<Vec<_>>();
        assert_eq!(starts(0, 600_000), vec![0, 300_000]);
        assert_eq!(starts(1, 600_001), vec![0, 300_000, 600_000]);
        assert_eq!(starts(300_000, 300_000), Vec::<i64>::new());
        assert_eq!(WindowStart::containing(-1).start_ms(), -300_000);
    }

    proptest! {
        #[test]
        fn what_lies_within_is_the_sum_of_the_parts(
            amount: u64,
            start_ms in 0i64..10_000_000,
            length_ms in 0i64..10_000_000,
            from in 0i64..40,
            length in 0i64..40,
        ) {
            let (from_ms, to_ms) = (from * WINDOW_MS, (from + length) * WINDOW_MS);
            let parts = parts(amount, start_ms, start_ms + length_ms);
            let sum: u128 = parts
                .iter()
                .filter(|(at_ms, _)| (from_ms..to_ms).contains(at_ms))
                .map(|(_, share)| u128::from(*share))
                .sum();
            let within = spread_within(amount, (start_ms, start_ms + length_ms), (from_ms, to_ms));
            prop_assert_eq!(u128::from(within), sum);
        }

        #[test]
        fn u2_parts_sum_to_the_whole(amount: u64, start_ms in 0i64..1_000_000_000, length_ms in 0i64..100_000_000) {
            let total: u128 = parts(amount, start_ms, start_ms + length_ms).iter().map(|p| u128::from(p.1)).sum();
            prop_assert_eq!(total, u128::from(amount));
        }
    }
}
