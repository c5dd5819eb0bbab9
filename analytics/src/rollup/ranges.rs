//! Ranges of windows.

use std::collections::BTreeMap;

use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS, WindowStart};

/// Start of the UTC hour that holds an instant.
pub(super) const fn hour_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(HOUR_MS) * HOUR_MS
}

/// Disjoint, ascending, window-aligned half-open ranges of time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ranges(pub(super) Vec<(i64, i64)>);

impl Ranges {
    /// The windows that hold any instant of the closed ranges given.
    pub(super) fn of_windows(closed: impl IntoIterator<Item = (i64, i64)>) -> Ranges {
        let mut all: Vec<(i64, i64)> = closed
            .into_iter()
            .map(|(from, to)| {
                (
                    WindowStart::containing(from).start_ms(),
                    WindowStart::containing(to).end_ms(),
                )
            })
            .collect();
        all.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Ranges(merged)
    }

    /// The full UTC hours that hold any of it.
    pub(super) fn hours(&self) -> Ranges {
        let mut hours: Vec<(i64, i64)> = Vec::with_capacity(self.0.len());
        for (from, to) in &self.0 {
            let (from, to) = (hour_of(*from), hour_of(*to + HOUR_MS - 1));
            match hours.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => hours.push((from, to)),
            }
        }
        Ranges(hours)
    }

    /// The part of it before `to_ms`, which is the end of a window.
    pub(super) fn until(&self, to_ms: i64) -> Ranges {
        let earlier = self.0.iter().filter(|(from, _)| *from < to_ms);
        Ranges(earlier.map(|(from, to)| (*from, (*to).min(to_ms))).collect())
    }

    /// The part of it from `from_ms` on, which is the start of a window.
    pub(super) fn since(&self, from_ms: i64) -> Ranges {
        let later = self.0.iter().filter(|(_, to)| *to > from_ms);
        Ranges(later.map(|(from, to)| ((*from).max(from_ms), *to)).collect())
    }

    /// The part of it that `other` has, too.
    pub(super) fn within(&self, other: &Ranges) -> Ranges {
        let parts = other.0.iter().flat_map(|(from, to)| self.since(*from).until(*to).0);
        Ranges(parts.collect())
    }

    /// The windows that start in `[from_ms, to_ms)`.
    pub(crate) fn of_period(from_ms: i64, to_ms: i64) -> Ranges {
        let first = WindowStart::containing(from_ms + WINDOW_MS - 1).start_ms();
        let end = WindowStart::containing(to_ms + WINDOW_MS - 1).start_ms();
        Ranges(if end > first { vec![(first, end)] } else { Vec::new() })
    }

    pub(super) fn windows(&self) -> u64 {
        self.0.iter().map(|(from, to)| ((to - from) / WINDOW_MS) as u64).sum()
    }

    #[inline]
    pub(crate) fn contain(&self, at_ms: i64) -> bool {
        let after = self.0.partition_point(|range| range.0 <= at_ms);
        after > 0 && at_ms < self.0[after - 1].1
    }

    pub(super) fn overlapping(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = &(i64, i64)> {
        let first = self.0.partition_point(|range| range.1 <= from_ms);
        self.0[first..].iter().take_while(move |range| range.0 < to_ms)
    }

    /// Smallest range that holds all.
    pub(crate) fn hull(&self) -> Option<(i64, i64)> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }

    /// The ranges cut at UTC midnights, by day (days since 1970).
    pub(super) fn by_day(&self) -> BTreeMap<i64, Ranges> {
        let mut days: BTreeMap<i64, Ranges> = BTreeMap::new();
        for (from, to) in &self.0 {
            let mut from = *from;
            while from < *to {
                let day = from.div_euclid(DAY_MS);
                let until = ((day + 1) * DAY_MS).min(*to);
                days.entry(day).or_default().0.push((from, until));
                from = until;
            }
        }
        days
    }
}
