//! Counts of one datagram: gathered in an array, poured into the shared [`Counts`] once.

use tables::flow::marks;

use crate::counts::{CountKey, Counter, Counts};
use crate::sampling::ChosenRate;

const COUNTERS: usize = Counter::ALL.len();

#[derive(Debug)]
pub(super) struct Tally([u64; COUNTERS]);

impl Tally {
    pub(super) fn new() -> Tally {
        Tally([0; COUNTERS])
    }

    #[inline]
    pub(super) fn add(&mut self, counter: Counter, amount: u64) {
        self.0[counter as usize] += amount;
    }

    /// Counts what is to be said of the rate of so many flows.
    #[inline]
    pub(super) fn count_rate(&mut self, chosen: ChosenRate, flows: u64) {
        self.add(Counter::FlowsWithoutRate, u64::from(chosen.rate == 0) * flows);
        if chosen.marks() != 0 {
            let marked = |mark| u64::from(chosen.marks() & mark != 0) * flows;
            self.add(Counter::FlowsRateAmbiguous, marked(marks::RATE_AMBIGUOUS));
            self.add(Counter::FlowsSamplerNotAnnounced, marked(marks::SAMPLER_NOT_ANNOUNCED));
            self.add(Counter::FlowsRateImplausible, marked(marks::RATE_IMPLAUSIBLE));
        }
    }

    pub(super) fn pour(&self, key: CountKey, counts: &mut Counts) {
        counts.add_all(key, &self.0);
    }
}
