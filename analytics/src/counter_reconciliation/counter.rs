//! What an interface's counter says of an hour: over which time it can be followed, and by how much it rose.
//!
//! Samples are compared as they came, in pairs of neighbours; nothing is interpolated. Between two samples the increase is an
//! exact integer, while a value at the hour's border would be a guess about traffic that is anything but even. So the first
//! and last polling interval are left out, and flows count as far as they overlap the time that is left.
//!
//! A pair is not used when
//! * the counter restarted in between: it fell, and not by wrapping at 32 or 64 bits. A wrap goes from the last quarter of
//!   the range to the first one;
//! * it rose by more than the interface can carry (where its speed is known): it restarted and passed its old value;
//! * the samples lie more than three usual intervals apart, or more than [`GAP_MAX_MS`]: datagrams are missing, and flows may
//!   be missing with them;
//! * both values are 0: the device does not keep this counter.

/// Samples closer together than this are one: nothing is gained, and a flood is bounded.
const SLOT_MS: i64 = 10_000;
/// Neighbours further apart are never compared.
pub(super) const GAP_MAX_MS: i64 = 15 * 60_000;
/// Neighbours may lie so many usual intervals apart: one or two lost datagrams.
const GAP_INTERVALS_MAX: i64 = 3;
/// Counters are read some time before they are sent, and line rate is not kept to the bit: added to the time in which the
/// interface could carry an increase.
const PLAUSIBLE_SLACK_MS: i64 = 10_000;
/// Samples of one series up to which nothing is thinned.
const SERIES_THIN_AT: usize = 2_048;

/// One counter sample of one interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Sample {
    pub(super) at_ms: i64,
    /// Received, sent.
    pub(super) bytes: [u64; 2],
}

/// The samples of one interface by one agent, in any order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Series {
    samples: Vec<Sample>,
    thin_at: usize,
    /// The largest that was reported; 0 = not known.
    pub(super) speed_bps: u64,
}

impl Series {
    pub(super) fn push(&mut self, sample: Sample, speed_bps: u64) {
        self.speed_bps = self.speed_bps.max(speed_bps);
        self.samples.push(sample);
        if self.samples.len() > self.thin_at.max(SERIES_THIN_AT) {
            self.thin();
            self.thin_at = 2 * self.samples.len();
        }
    }

    pub(super) fn merge(&mut self, other: Series) {
        self.speed_bps = self.speed_bps.max(other.speed_bps);
        self.samples.extend(other.samples);
        self.thin();
    }

    /// Keeps the last sample of each slot: whatever came in whatever order, the same are left.
    fn thin(&mut self) {
        self.samples.sort_unstable();
        let mut kept: Vec<Sample> = Vec::with_capacity(self.samples.len().min(SERIES_THIN_AT));
        for sample in self.samples.drain(..) {
            match kept.last_mut() {
                Some(last) if last.at_ms.div_euclid(SLOT_MS) == sample.at_ms.div_euclid(SLOT_MS) => *last = sample,
                _ => kept.push(sample),
            }
        }
        self.samples = kept;
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// What can be followed of one direction (0 received, 1 sent).
    pub(super) fn follow(&mut self, direction: usize) -> CounterCoverage {
        self.thin();
        let interval_ms = self.usual_interval_ms();
        let gap_ms = (GAP_INTERVALS_MAX * interval_ms + SLOT_MS).min(GAP_MAX_MS);
        let mut followed = CounterCoverage::default();
        for pair in self.samples.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let elapsed_ms = after.at_ms - before.at_ms;
            if elapsed_ms > gap_ms {
                continue;
            }
            let increase = increase(
                before.bytes[direction],
                after.bytes[direction],
                elapsed_ms,
                self.speed_bps,
            );
            if let Some(increase) = increase {
                followed.add(before.at_ms, after.at_ms, increase);
            }
        }
        followed
    }

    /// The median distance between neighbours.
    fn usual_interval_ms(&self) -> i64 {
        let mut intervals: Vec<i64> = self
            .samples
            .windows(2)
            .map(|pair| pair[1].at_ms - pair[0].at_ms)
            .collect();
        intervals.sort_unstable();
        intervals.get(intervals.len() / 2).copied().unwrap_or(0)
    }
}

/// Where a counter could be followed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct CounterCoverage {
    /// Disjoint, ascending; each without its first instant and with its last, as a counter sample has what came before it.
    pub(super) spans: Vec<(i64, i64)>,
    pub(super) bytes: u64,
}

impl CounterCoverage {
    fn add(&mut self, from_ms: i64, to_ms: i64, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.spans.last_mut() {
            Some(last) if last.1 == from_ms => last.1 = to_ms,
            _ => self.spans.push((from_ms, to_ms)),
        }
    }

    pub(super) fn covered_ms(&self) -> i64 {
        self.spans.iter().map(|(from_ms, to_ms)| to_ms - from_ms).sum()
    }

    /// The part of a flow's time that lies in the spans, as (overlap, whole); a flow without duration is in or out.
    pub(super) fn overlap_ms(&self, start_ms: i64, end_ms: i64) -> (u64, u64) {
        if end_ms <= start_ms {
            let after = self.spans.partition_point(|span| span.1 < start_ms);
            let inside = self.spans.get(after).is_some_and(|span| span.0 < start_ms);
            return (u64::from(inside), 1);
        }
        let first = self.spans.partition_point(|span| span.1 <= start_ms);
        let overlapping = self.spans[first..].iter().take_while(|span| span.0 < end_ms);
        let overlap_ms: i64 = overlapping.map(|span| span.1.min(end_ms) - span.0.max(start_ms)).sum();
        (overlap_ms as u64, (end_ms - start_ms) as u64)
    }
}

/// By how much a counter rose between two samples; `None` when that cannot be known.
fn increase(before: u64, after: u64, elapsed_ms: i64, speed_bps: u64) -> Option<u64> {
    if before == 0 && after == 0 {
        return None;
    }
    let increase = if after >= before {
        after - before
    } else {
        wrapped(before, after, u64::from(u32::MAX)).or_else(|| wrapped(before, after, u64::MAX))?
    };
    let possible_bits = u128::from(speed_bps) * (elapsed_ms + PLAUSIBLE_SLACK_MS) as u128 / 1000;
    let is_possible = speed_bps == 0 || u128::from(increase) * 8 <= possible_bits;
    is_possible.then_some(increase)
}

/// The increase of a counter that wrapped behind `max`.
fn wrapped(before: u64, after: u64, max: u64) -> Option<u64> {
    let quarter = max / 4;
    if before > max || before < max - quarter || after > quarter {
        return None;
    }
    Some((max - before) + after + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GBIT: u64 = 1_000_000_000;

    #[test]
    fn counters_rise_wrap_and_restart() {
        let (near_32, near_64) = (u64::from(u32::MAX) - 99, u64::MAX - 99);
        for (name, before, after, speed_bps, expected) in [
            ("rises", 1_000, 3_500, GBIT, Some(2_500)),
            ("stands still", 7, 7, GBIT, Some(0)),
            ("not kept by the device", 0, 0, GBIT, None),
            ("starts to count", 0, 40, GBIT, Some(40)),
            ("wraps at 32 bits", near_32, 400, GBIT, Some(500)),
            ("wraps at 64 bits", near_64, 400, GBIT, Some(500)),
            ("wraps, speed not known", near_32, 400, 0, Some(500)),
            ("restarts from a low value", 1 << 30, 400, GBIT, None),
            ("restarts from beyond 32 bits", 1 << 40, 400, GBIT, None),
            ("falls to a high value", near_32, near_32 - 5, GBIT, None),
            ("a wrap the line could not carry", near_32, 1 << 30, 1_000_000, None),
            ("a rise the line could not carry", 10, 10 + GBIT * 30, GBIT, None),
            (
                "as much as the line carries",
                10,
                10 + GBIT / 8 * 30,
                GBIT,
                Some(GBIT / 8 * 30),
            ),
            ("a rise, speed not known", 10, 10 + GBIT * 30, 0, Some(GBIT * 30)),
        ] {
            assert_eq!(increase(before, after, 30_000, speed_bps), expected, "{name}");
        }
    }

    fn followed(samples: &[(i64, u64)]) -> CounterCoverage {
        let mut series = Series::default();
        for (second, bytes) in samples {
            let sample = Sample {
                at_ms: second * 1000,
                bytes: [*bytes, 0],
            };
            series.push(sample, GBIT);
        }
        series.follow(0)
    }

    fn spans(followed: &CounterCoverage) -> Vec<(i64, i64)> {
        followed
            .spans
            .iter()
            .map(|span| (span.0 / 1000, span.1 / 1000))
            .collect()
    }

    #[test]
    fn neighbours_make_one_span() {
        let whole = followed(&[(60, 300), (0, 100), (30, 250), (90, 310)]);
        assert_eq!(
            (spans(&whole), whole.bytes),
            (vec![(0, 90)], 210),
            "whatever order they come in"
        );
        assert_eq!(followed(&[]), CounterCoverage::default());
        assert_eq!(
            followed(&[(5, 100)]),
            CounterCoverage::default(),
            "one sample says nothing"
        );
    }

    #[test]
    fn a_restart_is_left_out() {
        let restarted = followed(&[(0, 1 << 30), (30, (1 << 30) + 50), (60, 20), (90, 45)]);
        assert_eq!((spans(&restarted), restarted.bytes), (vec![(0, 30), (60, 90)], 75));
    }

    #[test]
    fn missing_samples_are_bridged_up_to_three_intervals() {
        let one_lost = followed(&[(0, 1), (30, 2), (60, 3), (120, 5), (150, 6)]);
        assert_eq!((spans(&one_lost), one_lost.bytes), (vec![(0, 150)], 5));
        let many_lost = followed(&[(0, 1), (30, 2), (60, 3), (90, 4), (210, 8), (240, 9)]);
        assert_eq!((spans(&many_lost), many_lost.bytes), (vec![(0, 90), (210, 240)], 4));
        assert_eq!(
            followed(&[(0, 1), (901, 5)]).spans,
            [],
            "too far apart for anything to be known"
        );
        assert_eq!(spans(&followed(&[(0, 1), (900, 5)])), [(0, 900)]);
    }

    #[test]
    fn flows_count_as_far_as_they_overlap() {
        let spans = CounterCoverage {
            spans: vec![(1_000, 2_000), (3_000, 4_000)],
            bytes: 1,
        };
        assert_eq!(spans.covered_ms(), 2_000);
        for (start_ms, end_ms, expected) in [
            (1_500, 1_500, (1, 1)),
            (1_000, 1_000, (0, 1)),
            (2_000, 2_000, (1, 1)),
            (2_500, 2_500, (0, 1)),
            (4_001, 4_001, (0, 1)),
            (0, 5_000, (2_000, 5_000)),
            (1_900, 3_100, (200, 1_200)),
            (2_000, 3_000, (0, 1_000)),
            (1_200, 1_300, (100, 100)),
        ] {
            assert_eq!(spans.overlap_ms(start_ms, end_ms), expected, "{start_ms} to {end_ms}");
        }
    }

    /// A flood of samples is thinned to what one every ten seconds would be, whatever the order.
    #[test]
    fn a_flood_of_samples_is_bounded_and_changes_nothing() {
        let sample = |at_ms: i64| Sample {
            at_ms,
            bytes: [1_000 + at_ms as u64, 0],
        };
        let (mut flood, mut backwards) = (Series::default(), Series::default());
        for at_ms in 0..100_000i64 {
            flood.push(sample(at_ms), GBIT);
            backwards.push(sample(99_999 - at_ms), GBIT);
            assert!(flood.len() <= SERIES_THIN_AT + 1);
        }
        let all = flood.follow(0);
        assert_eq!(all, backwards.follow(0));
        assert_eq!(flood.len(), 10);
        assert_eq!((all.spans, all.bytes), (vec![(9_999, 99_999)], 90_000));
    }
}
