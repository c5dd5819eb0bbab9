//! One packet, observed on its way in and on its way out by the same exporter.
//!
//! Open vSwitch observes at both sides unless told otherwise, as Junos does with sampling on input and output: two records of the
//! same packets, IE 61 = 0 and 1. One counts: that at ingress. The other one is stored with the mark
//! [`marks::SECOND_OBSERVATION`] and not metered, unless `direction` is configured; so is the answer that a biflow's record carries.
//!
//! IE 61 alone says little: softflowd and pmacct call the answering half of a conversation egress, and there both count. What shows it
//! is one flow key in both directions over the same time. Where a good share of the flows repeat so, the exporter *observes twice*,
//! and from then on an egress record whose input interface is observed at ingress is a second observation. Where a record at
//! egress came first and was metered, that at ingress is the second one.
//!
//! * All observation domains of a transport session are one device: packets come in at one line card and go out at another.
//! * Address families are judged apart: a family that is sampled on its way out only is metered there.
//! * Exporters send what they observed in any order, pair by pair or cache by cache, thousands of flows each. Only observations
//!   whose hash begins with so many zero bits are remembered, one more bit whenever there are too many of them: whatever the number
//!   of flows, those that are remembered are a fair sample, and both records of a flow are in it or neither.
//! * Exporters that always name one direction are not followed beyond their first records.

use schemas::address::Address;
use serde::{Deserialize, Serialize};
use tables::flow::{Flow, FlowColumns, marks};

use super::memory::flow_key;
use super::packed::{Observation, Observations};
use super::tally::Tally;
use crate::counts::Counter;
use crate::decode::ingress::IngressInterfaces;

const INGRESS: u8 = 0;
const EGRESS: u8 = 1;
/// Records of one direction alone, after which they are no longer followed.
const ALONE_MAX: u32 = 4_096;
/// What one session may have remembered.
pub(super) const OBSERVATIONS_MAX: usize = 1_024;
/// Both records of a packet come within this.
const OBSERVATION_AGE_MS: i64 = 1_800_000;
/// How often old observations are looked for.
const EXPIRY_INTERVAL_MS: i64 = 300_000;
/// Of the flows of the direction that has fewer, one in so many must be observed at the other side, too.
const FLOWS_PER_REPEAT: u32 = 4;
/// Then counts are halved, so that a changed exporter is noticed.
const COUNTED_MAX: u32 = 8_192;

/// What is known of the directions that a transport session reports.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DoubleCounting {
    /// Records in a row of [`DoubleCounting::alone_direction`] alone.
    alone: u32,
    alone_direction: u8,
    /// When records were last followed.
    followed_at_ms: i64,
    /// Observations that were metered.
    counted: Sample,
    families: Families,
}

/// Address families are sampled apart.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Families {
    v4: Family,
    v6: Family,
    /// Frames of other protocols, without addresses.
    other: Family,
}

/// What is known of one address family.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Family {
    /// Since when it was seen to be observed twice, UTC ms.
    observes_twice_since_ms: Option<i64>,
    /// Sampled observations, and how many of them were of packets known from the other side.
    at_ingress: u32,
    at_egress: u32,
    repeats: u32,
    /// Input interfaces with records at ingress.
    ingress: IngressInterfaces,
}

impl Observation {
    /// Whether `later`, another record of the flow, is of packets that this one has: over the same time, and not at different
    /// input interfaces.
    fn has_packets_of(&self, later: &Observation) -> bool {
        let is_same_time = (self.start_ms, self.end_ms) == (later.start_ms, later.end_ms);
        let overlaps = self.start_ms.max(later.start_ms) < self.end_ms.min(later.end_ms);
        // A switch that does not know yet where a host is floods the first packet of a flow: at each of its outputs there is a
        // record of that packet alone.
        let is_one_of_them =
            later.start_ms == later.end_ms && self.start_ms <= later.start_ms && later.end_ms < self.end_ms;
        let same_interface = self.in_if == later.in_if || self.in_if == 0 || later.in_if == 0;
        self.direction != later.direction && (is_same_time || overlaps || is_one_of_them) && same_interface
    }
}

/// Observations by the hash of their flow: those whose hash begins with [`Sample::zero_bits`] zeros.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Sample {
    zero_bits: u32,
    observations: Observations,
    expired_at_ms: i64,
}

impl Sample {
    fn holds(&self, key: u64) -> bool {
        key.leading_zeros() >= self.zero_bits
    }

    fn put(&mut self, key: u64, observation: Observation, max: usize) {
        if max == 0 {
            return;
        }
        if self.observations.len() >= max && !self.observations.contains_key(key) {
            self.expire(observation.received_at_ms);
            while self.observations.len() >= max && self.zero_bits < u64::BITS {
                self.zero_bits += 1;
                let zero_bits = self.zero_bits;
                self.observations.retain(|key, _| key.leading_zeros() >= zero_bits);
            }
        }
        if self.holds(key) {
            self.observations.insert(key, observation);
        }
    }

    /// Forgets what is too old, now and then, and takes more flows into the sample where there are few.
    fn keep_young(&mut self, now_ms: i64) {
        if now_ms.saturating_sub(self.expired_at_ms) < EXPIRY_INTERVAL_MS {
            return;
        }
        self.expire(now_ms);
        if self.observations.len() < OBSERVATIONS_MAX / 4 {
            self.zero_bits = self.zero_bits.saturating_sub(1);
        }
    }

    fn expire(&mut self, now_ms: i64) {
        self.expired_at_ms = now_ms;
        self.observations
            .retain(|_, known| now_ms.saturating_sub(known.received_at_ms) <= OBSERVATION_AGE_MS);
    }

    fn clear(&mut self) {
        self.zero_bits = 0;
        self.observations.clear();
    }
}

impl Family {
    /// Counts a sampled observation.
    fn count(&mut self, direction: u8, is_repeat: bool) {
        if self.at_ingress.saturating_add(self.at_egress) >= COUNTED_MAX {
            self.at_ingress /= 2;
            self.at_egress /= 2;
            self.repeats /= 2;
        }
        if direction == INGRESS {
            self.at_ingress += 1;
        } else {
            self.at_egress += 1;
        }
        self.repeats += u32::from(is_repeat);
    }

    fn repeats_often(&self) -> bool {
        self.repeats > 0 && self.repeats.saturating_mul(FLOWS_PER_REPEAT) >= self.at_ingress.min(self.at_egress)
    }

    fn is_observed_at_ingress(&self, in_if: u32, now_ms: i64) -> bool {
        self.observes_twice_since_ms.is_some() && self.ingress.observes(in_if, now_ms)
    }
}

impl Families {
    /// The family of a row's flow.
    fn of(&mut self, flows: &FlowColumns, row: usize) -> &mut Family {
        let (src_addr, dst_addr) = (Address(flows.src_addr[row]), Address(flows.dst_addr[row]));
        if src_addr.is_v4() || dst_addr.is_v4() {
            &mut self.v4
        } else if (src_addr, dst_addr) == (Address::UNSPECIFIED, Address::UNSPECIFIED) {
            &mut self.other
        } else {
            &mut self.v6
        }
    }

    fn all_mut(&mut self) -> [&mut Family; 3] {
        [&mut self.v4, &mut self.v6, &mut self.other]
    }
}

impl DoubleCounting {
    pub(super) fn remembered(&self) -> usize {
        self.counted.observations.len()
    }

    /// Whether the exporter was seen to observe packets twice.
    pub(super) fn was_seen(&self) -> bool {
        let Families { v4, v6, other } = &self.families;
        [v4, v6, other]
            .iter()
            .any(|family| family.observes_twice_since_ms.is_some())
    }

    /// Marks the second observations among the rows from `first` on; `observations_max` may be remembered.
    pub(super) fn mark(
        &mut self,
        flows: &mut FlowColumns,
        first: usize,
        received_at_ms: i64,
        observations_max: usize,
        tally: &mut Tally,
    ) {
        // Records of one direction alone say nothing new. What is remembered of those before stays for a while: the other direction
        // of a large cache may follow.
        let of_one_direction = |direction: &u8| *direction == self.alone_direction || *direction > EGRESS;
        if self.alone >= ALONE_MAX && !self.was_seen() && flows.direction[first..].iter().all(of_one_direction) {
            if received_at_ms.saturating_sub(self.followed_at_ms) > OBSERVATION_AGE_MS {
                self.counted.clear();
                for family in self.families.all_mut() {
                    family.ingress.clear();
                }
            }
            return;
        }
        self.followed_at_ms = received_at_ms;
        self.counted.keep_young(received_at_ms);
        let mut second = 0;
        for row in first..flows.len() {
            let direction = flows.direction[row];
            if direction > EGRESS {
                continue;
            }
            self.count_alone(direction);
            let observed = Observation {
                start_ms: flows.start_at_ms[row],
                end_ms: flows.end_at_ms[row],
                in_if: flows.in_if[row],
                direction,
                received_at_ms,
            };
            let key = key_of(flows, row);
            let is_sampled = self.counted.holds(key);
            let known = if is_sampled {
                self.counted.observations.get(key)
            } else {
                None
            };
            let is_repeat = known.is_some_and(|known| known.has_packets_of(&observed));
            let family = self.families.of(flows, row);
            if is_sampled {
                family.count(direction, is_repeat);
            }
            if is_repeat && family.observes_twice_since_ms.is_none() && family.repeats_often() {
                family.observes_twice_since_ms = Some(received_at_ms);
                second += self.mark_before(flows, first..row, received_at_ms);
            }
            let family = self.families.of(flows, row);
            if is_repeat || (direction == EGRESS && family.is_observed_at_ingress(observed.in_if, received_at_ms)) {
                second += mark_with_answer(flows, row);
            } else if is_sampled {
                self.counted.put(key, observed, observations_max);
            }
            if direction == INGRESS {
                family.ingress.note(observed.in_if, received_at_ms);
            }
        }
        tally.add(Counter::FlowsSecondObservation, second);
    }

    /// Marks the egress records of a set that came before the one which showed that packets are observed twice. Of those that are
    /// remembered the record at ingress is marked when it comes. Answers how many flows are marked.
    fn mark_before(&mut self, flows: &mut FlowColumns, rows: std::ops::Range<usize>, now_ms: i64) -> u64 {
        let mut second = 0;
        for row in rows {
            let is_open = flows.direction[row] == EGRESS && flows.marks[row] & marks::SECOND_OBSERVATION == 0;
            let family = self.families.of(flows, row);
            if is_open
                && family.is_observed_at_ingress(flows.in_if[row], now_ms)
                && !self.counted.observations.contains_key(key_of(flows, row))
            {
                second += mark_with_answer(flows, row);
            }
        }
        second
    }

    fn count_alone(&mut self, direction: u8) {
        if self.alone > 0 && self.alone_direction == direction {
            self.alone = self.alone.saturating_add(1).min(ALONE_MAX);
        } else {
            self.alone = 1;
            self.alone_direction = direction;
        }
    }
}

/// Marks a flow, and the answer that was made of the same record. Answers how many flows that are.
fn mark_with_answer(flows: &mut FlowColumns, row: usize) -> u64 {
    flows.marks[row] |= marks::SECOND_OBSERVATION;
    match flows.marks.get_mut(row + 1) {
        Some(next) if *next & marks::ANSWER != 0 => {
            *next |= marks::SECOND_OBSERVATION;
            2
        }
        _ => 1,
    }
}

/// The key of a row's flow.
fn key_of(flows: &FlowColumns, row: usize) -> u64 {
    flow_key(&Flow {
        src_addr: Address(flows.src_addr[row]),
        dst_addr: Address(flows.dst_addr[row]),
        src_port: flows.src_port[row],
        dst_port: flows.dst_port[row],
        ip_protocol: flows.ip_protocol[row],
        tos: flows.tos[row],
        ..Flow::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_number_of_flows_both_records_of_one_are_in_the_sample_or_neither() {
        let mut sample = Sample::default();
        let observation = Observation {
            start_ms: 0,
            end_ms: 1,
            in_if: 1,
            direction: INGRESS,
            received_at_ms: 0,
        };
        let key = |number: u32| {
            flow_key(&Flow {
                src_addr: Address::from_v4(number.to_be_bytes()),
                ..Flow::default()
            })
        };
        for number in 0..100_000 {
            sample.put(key(number), observation, OBSERVATIONS_MAX);
            assert!(sample.observations.len() <= OBSERVATIONS_MAX);
        }
        let held = (0..100_000).filter(|number| sample.holds(key(*number))).count();
        assert_eq!(held, sample.observations.len(), "each that belongs to it");
        assert!(held > OBSERVATIONS_MAX / 3, "{held}");
        // Nothing comes for an hour: what is old goes, and the sample becomes finer again.
        let before = sample.zero_bits;
        sample.keep_young(2 * OBSERVATION_AGE_MS);
        assert_eq!((sample.observations.len(), sample.zero_bits), (0, before - 1));
    }

    #[test]
    fn a_few_repeats_among_many_flows_show_nothing() {
        let mut family = Family::default();
        for number in 0..400 {
            family.count(u8::from(number % 2 == 0), number % 100 == 99);
        }
        assert!(!family.repeats_often());
        for number in 0..400 {
            family.count(u8::from(number % 2 == 0), number % 2 == 0);
        }
        assert!(family.repeats_often());
    }
}
