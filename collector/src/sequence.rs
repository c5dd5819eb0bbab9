//! Datagrams that never arrived, read from the sequence numbers of those that did.
//!
//! v5 and v7 count flows, v9 counts datagrams, IPFIX counts data records; each per observation domain, modulo 2³². UDP may
//! deliver out of order, so a gap is not a loss at once: it waits for [`REORDER_DATAGRAMS`] further datagrams, and whatever of
//! it has not come by then is lost. An exporter that starts again is a reset, not a loss.
//!
//! A gap that is still open when the collector stops is neither lost nor forgotten: it is part of the checkpoint, the status
//! shows it as waiting, and it is judged by the datagrams that come after the restart, which may still fill it. Those that
//! were sent while the collector was down open a gap of their own. Only a capture ends for good: there
//! [`SequenceTracker::give_up`] counts what is open.

use serde::{Deserialize, Serialize};

/// A datagram may be overtaken by so many others before it counts as lost.
pub const REORDER_DATAGRAMS: u32 = 64;
/// Gaps that are watched at once; the oldest is given up for lost when there are more.
pub const MAX_GAPS: usize = 16;
/// A step forward beyond this is a reset: no outage of a collector spans it.
pub const MAX_STEP_FORWARD: u32 = 1 << 28;
/// A step back within this is a late datagram (of at most 64 units, 64 datagrams ago).
pub const MAX_STEP_BACK: u32 = 4096;
/// An uptime that went back further than reordering explains means that the exporter started again.
pub const UPTIME_TOLERANCE_MS: u32 = 60_000;

/// What one datagram's sequence number told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Units that are now known to be lost.
    pub lost: u64,
    /// The exporter started counting again.
    pub reset: bool,
    /// The datagram was late, or came twice.
    pub reordered: bool,
}

/// Sequence state of one domain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SequenceTracker {
    /// The next number, unless the last datagram held an unknown number of units.
    next: Option<u32>,
    gaps: Vec<Gap>,
    /// Where a series of late datagrams would go on: one that does so started again.
    behind: Option<u32>,
    uptime_ms: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Gap {
    start: u32,
    length: u32,
    /// Datagrams since.
    age: u32,
}

impl SequenceTracker {
    /// Units that are missing and may still come.
    pub fn waiting(&self) -> u64 {
        self.gaps.iter().map(|gap| u64::from(gap.length)).sum()
    }

    /// Counts everything that is missing as lost, because nothing follows; answers how many units that are.
    pub fn give_up(&mut self) -> u64 {
        self.gaps.drain(..).map(|gap| u64::from(gap.length)).sum()
    }

    /// How many units are missing before `sequence`; `None` where the next number is not known, or where it lies behind.
    pub fn step_to(&self, sequence: u32) -> Option<u32> {
        let step = sequence.wrapping_sub(self.next?);
        (step <= MAX_STEP_FORWARD).then_some(step)
    }

    /// Whether `sequence` is neither at most `ahead_max` after the next number nor shortly before it; false where the next number is
    /// not known.
    pub fn jumps_to(&self, sequence: u32, ahead_max: u32) -> bool {
        self.next.is_some_and(|next| {
            let step = sequence.wrapping_sub(next);
            step > ahead_max && step.wrapping_neg() > MAX_STEP_BACK
        })
    }

    /// The uptime in the last datagram that told one.
    pub fn uptime_ms(&self) -> Option<u32> {
        self.uptime_ms
    }

    /// Takes the sequence number of a datagram that holds `units` (`None`: not known, its template has not come), and
    /// the uptime in its header where it has one.
    pub fn observe(&mut self, sequence: u32, units: Option<u32>, uptime_ms: Option<u32>) -> Observed {
        self.observe_within(sequence, units, uptime_ms, MAX_STEP_FORWARD)
    }

    /// The same where a step forward beyond `max_step_forward` is a reset.
    pub fn observe_within(
        &mut self,
        sequence: u32,
        units: Option<u32>,
        uptime_ms: Option<u32>,
        max_step_forward: u32,
    ) -> Observed {
        let mut observed = Observed::default();
        if self.restarted(sequence, uptime_ms) {
            self.reset(&mut observed);
        }
        if uptime_ms.is_some() {
            self.uptime_ms = uptime_ms;
        }
        let after = units.map(|units| sequence.wrapping_add(units));
        let Some(next) = self.next else {
            self.next = after;
            self.grow_old(&mut observed);
            return observed;
        };
        let step = sequence.wrapping_sub(next);
        if step == 0 {
            self.next = after;
            self.behind = None;
        } else if step <= max_step_forward {
            self.gaps.push(Gap {
                start: next,
                length: step,
                age: 0,
            });
            self.next = after;
            self.behind = None;
        } else if step.wrapping_neg() <= MAX_STEP_BACK && self.behind != Some(sequence) {
            observed.reordered = true;
            let filled_a_gap = self.fill(sequence, units);
            self.behind = if filled_a_gap { None } else { after };
        } else {
            self.reset(&mut observed);
            self.next = after;
        }
        self.grow_old(&mut observed);
        observed
    }

    /// Whether the exporter started again since its last datagram: its uptime went back. Where its numbers go on without a gap it
    /// did not, whatever its uptime says.
    pub fn restarted(&self, sequence: u32, uptime_ms: Option<u32>) -> bool {
        match (self.uptime_ms, uptime_ms) {
            // A wrap of the 32-bit counter looks like a step forward here.
            (Some(before), Some(now)) => {
                let went_back = (now.wrapping_sub(before) as i32) < -(UPTIME_TOLERANCE_MS as i32);
                went_back && self.next != Some(sequence)
            }
            _ => false,
        }
    }

    fn reset(&mut self, observed: &mut Observed) {
        observed.reset = true;
        observed.lost += self.give_up();
        self.next = None;
        self.behind = None;
    }

    /// Takes a late datagram's units out of the gap that they were missed in.
    fn fill(&mut self, sequence: u32, units: Option<u32>) -> bool {
        let Some(index) = self
            .gaps
            .iter()
            .position(|gap| sequence.wrapping_sub(gap.start) < gap.length)
        else {
            return false;
        };
        let gap = self.gaps.swap_remove(index);
        let before = sequence.wrapping_sub(gap.start);
        let filled = units.unwrap_or(gap.length).min(gap.length - before);
        let behind = gap.length - before - filled;
        for (start, length) in [(gap.start, before), (sequence.wrapping_add(filled), behind)] {
            if length > 0 {
                self.gaps.push(Gap { start, length, ..gap });
            }
        }
        true
    }

    fn grow_old(&mut self, observed: &mut Observed) {
        if self.gaps.is_empty() {
            return;
        }
        self.gaps.retain_mut(|gap| {
            gap.age += 1;
            let waiting = gap.age <= REORDER_DATAGRAMS;
            if !waiting {
                observed.lost += u64::from(gap.length);
            }
            waiting
        });
        while self.gaps.len() > MAX_GAPS {
            let Some(oldest) = (0..self.gaps.len()).max_by_key(|index| self.gaps[*index].age) else {
                return;
            };
            observed.lost += u64::from(self.gaps.swap_remove(oldest).length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds (sequence, units) pairs and then enough datagrams in order to let every gap be judged.
    fn run(datagrams: &[(u32, u32)]) -> (u64, u64, u64) {
        let mut tracker = SequenceTracker::default();
        let mut totals = (0, 0, 0);
        let mut feed = |tracker: &mut SequenceTracker, sequence, units| {
            let observed = tracker.observe(sequence, Some(units), None);
            totals.0 += observed.lost;
            totals.1 += u64::from(observed.reset);
            totals.2 += u64::from(observed.reordered);
        };
        for &(sequence, units) in datagrams {
            feed(&mut tracker, sequence, units);
        }
        for _ in 0..=REORDER_DATAGRAMS {
            let next = tracker.next.unwrap();
            feed(&mut tracker, next, 1);
        }
        assert!(tracker.gaps.is_empty());
        totals
    }

    #[test]
    fn loss_order_and_wrap() {
        assert_eq!(run(&[(10, 3), (13, 2), (15, 1)]), (0, 0, 0));
        assert_eq!(run(&[(10, 3), (20, 2)]), (7, 0, 0), "13 to 19 never came");
        assert_eq!(
            run(&[(10, 3), (15, 2), (13, 2), (17, 1)]),
            (0, 0, 1),
            "late is not lost"
        );
        assert_eq!(
            run(&[(10, 3), (20, 2), (15, 2), (22, 1)]),
            (5, 0, 1),
            "a late part of a gap"
        );
        assert_eq!(run(&[(10, 1), (11, 1), (10, 1), (12, 1)]), (0, 0, 1), "a duplicate");
        assert_eq!(run(&[(u32::MAX, 1), (0, 1)]), (0, 0, 0), "the counter wraps");
        assert_eq!(run(&[(u32::MAX - 2, 1), (3, 1)]), (5, 0, 0), "loss across the wrap");
    }

    #[test]
    fn a_restart_is_not_a_loss() {
        assert_eq!(run(&[(1_000_000, 1), (0, 1), (1, 1)]), (0, 1, 0));
        assert_eq!(
            run(&[(500, 1), (0, 1), (1, 1), (2, 1)]),
            (0, 1, 1),
            "two late ones in a row started again"
        );
        let mut tracker = SequenceTracker::default();
        tracker.observe(1000, Some(1), Some(500_000));
        assert!(tracker.observe(900, Some(1), Some(10_000)).reset, "uptime went back");
        assert!(
            !tracker.observe(901, Some(1), Some(u32::MAX - 10)).reset,
            "the numbers go on: an uptime that went back alone is no restart"
        );
        assert!(!tracker.observe(902, Some(1), Some(5)).reset, "uptime wrapped");
    }

    #[test]
    fn unknown_units_are_not_judged() {
        let mut tracker = SequenceTracker::default();
        tracker.observe(10, None, None);
        assert_eq!(tracker.observe(900, Some(5), None), Observed::default());
        assert_eq!(tracker.observe(905, Some(5), None), Observed::default());
    }

    #[test]
    fn a_gap_that_is_open_at_a_stop_is_judged_after_the_restart() {
        let mut before = SequenceTracker::default();
        before.observe(10, Some(1), None);
        before.observe(15, Some(1), None);
        assert_eq!(before.waiting(), 4);
        let text = serde_json::to_string(&before).unwrap();
        let mut after: SequenceTracker = serde_json::from_str(&text).unwrap();
        let late = after.observe(12, Some(1), None);
        assert!(late.reordered && late.lost == 0, "a late one still fills its gap");
        let lost: u64 = (16..=16 + REORDER_DATAGRAMS)
            .map(|sequence| after.observe(sequence, Some(1), None).lost)
            .sum();
        assert_eq!((lost, after.waiting()), (3, 0));
        assert_eq!(
            (before.give_up(), before.waiting()),
            (4, 0),
            "or at the end of a capture"
        );
    }

    #[test]
    fn the_state_is_bounded() {
        let mut tracker = SequenceTracker::default();
        let mut lost = 0;
        for i in 0..1000_u32 {
            lost += tracker.observe(i * 10, Some(1), None).lost;
            assert!(tracker.gaps.len() <= MAX_GAPS);
        }
        let waiting: u64 = tracker.gaps.iter().map(|gap| u64::from(gap.length)).sum();
        assert_eq!(lost + waiting, 999 * 9, "nothing is forgotten");
    }
}
