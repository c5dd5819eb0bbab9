//! What was measured.

use std::collections::{BTreeMap, BTreeSet};

use super::calendar::{WINDOW_MS, window};
use super::terms::CountedDirection;

#[derive(Default, Debug)]
pub(super) struct Traffic {
    /// Bytes in and out, by service and window.
    bytes: BTreeMap<(u32, i64), (u64, u64)>,
    /// Windows in which nobody was heard.
    silent: BTreeSet<i64>,
    /// Attack traffic, by service, which is not charged.
    flags: Vec<(u32, i64, i64)>,
}

/// What counts of a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counted {
    /// Some window of it was.
    pub(super) is_measured: bool,
    pub(super) bytes: u64,
    /// Bits per second at the 95th percentile; nothing where nothing was measured.
    pub(super) percentile_bps: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, service: u32, at_ms: i64, bytes: (u64, u64)) {
        let sums = self.bytes.entry((service, window(at_ms))).or_default();
        sums.0 += bytes.0;
        sums.1 += bytes.1;
    }

    pub(super) fn silence(&mut self, from_ms: i64, to_ms: i64) {
        self.silent.extend(windows(from_ms, to_ms));
    }

    pub(super) fn flag(&mut self, service: u32, from_ms: i64, to_ms: i64) {
        self.flags.push((service, from_ms, to_ms));
    }

    pub(super) fn unflag(&mut self, service: u32, from_ms: i64, to_ms: i64) {
        let at = self
            .flags
            .iter()
            .position(|flag| *flag == (service, from_ms, to_ms))
            .unwrap();
        self.flags.remove(at);
    }

    pub(super) fn count(&self, service: u32, from_ms: i64, to_ms: i64, way: CountedDirection) -> Counted {
        let is_flagged = |at: i64| {
            let mut flags = self.flags.iter();
            flags.any(|&(of, from, to)| of == service && from <= at && at < to)
        };
        let mut measured = 0;
        // Where nothing is flagged or silent, all windows were measured.
        if self.flags.iter().any(|flag| flag.0 == service) || !self.silent.is_empty() {
            for at in windows(from_ms, to_ms) {
                measured += u64::from(!is_flagged(at) && !self.silent.contains(&at));
            }
        } else {
            measured = ((to_ms - from_ms) / WINDOW_MS).unsigned_abs();
        }
        let (mut sum_in, mut sum_out) = (0, 0);
        let mut ranked: [Vec<u64>; 3] = Default::default();
        for (&(_, at), &(bytes_in, bytes_out)) in self.bytes.range((service, from_ms)..(service, to_ms)) {
            if is_flagged(at) {
                continue;
            }
            sum_in += bytes_in;
            sum_out += bytes_out;
            if !self.silent.contains(&at) {
                ranked[0].push(bytes_in);
                ranked[1].push(bytes_out);
                ranked[2].push(bytes_in + bytes_out);
            }
        }
        let mut at_rank = |of: usize| {
            // The smallest that at least 95 of 100 windows are not above; windows without traffic are the smallest.
            let rank = (measured * 95).div_ceil(100);
            let empty = measured - ranked[of].len() as u64;
            if rank <= empty {
                return 0;
            }
            ranked[of].sort_unstable();
            ranked[of][usize::try_from(rank - empty - 1).unwrap()] * 8 / 300
        };
        let (bytes, percentile_bps) = match way {
            CountedDirection::Sum => (sum_in + sum_out, at_rank(2)),
            CountedDirection::Out => (sum_out, at_rank(1)),
            CountedDirection::Max => (sum_in.max(sum_out), at_rank(0).max(at_rank(1))),
        };
        Counted {
            is_measured: measured > 0,
            bytes,
            percentile_bps,
        }
    }
}

fn windows(from_ms: i64, to_ms: i64) -> impl Iterator<Item = i64> {
    let first = super::calendar::next_window(from_ms);
    (0..)
        .map(move |n| first + n * WINDOW_MS)
        .take_while(move |at| *at < to_ms)
}
