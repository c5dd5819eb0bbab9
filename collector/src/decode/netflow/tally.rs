//! Counts of one datagram: gathered in an array, poured into the shared [`Counts`] once.

use crate::counts::{CountKey, Counter, Counts};

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

    pub(super) fn pour(&self, key: CountKey, counts: &mut Counts) {
        counts.add_all(key, &self.0);
    }
}
