//! One packet, observed on its way in and on its way out by the same exporter.
//!
//! Open vSwitch observes at both sides unless told otherwise, as Junos does with sampling on input and output: two records of the
//! same packets, IE 61 = 0 and 1. One counts: that at ingress. The other one is stored with the mark
//! [`marks::SECOND_OBSERVATION`] and not metered, unless `direction` is configured.
//!
//! IE 61 alone says little: softflowd and pmacct call the answering half of a conversation egress, and there both count. What shows it
//! is one flow key in both directions over the same time. From then on the exporter *observes twice*, and an egress record
//! whose input interface is observed at ingress is a second observation. Where a record at egress came first and was
//! metered, that at ingress is the second one.
//!
//! Exporters that always name one direction are not followed beyond their first records.

use schemas::flow::{FlowColumns, marks};
use serde::{Deserialize, Serialize};

use super::memory::{Memory, flow_key};
use super::tally::Tally;
use crate::counts::Counter;
use crate::decode::ingress::IngressInterfaces;

const INGRESS: u8 = 0;
const EGRESS: u8 = 1;
/// Records of one direction alone, after which they are no longer followed.
const ALONE_MAX: u32 = 4_096;
pub(super) const OBSERVATIONS_MAX: usize = 1_024;

/// What is known of the directions that an observation domain reports.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Twice {
    /// Records in a row of [`Twice::alone_direction`] alone.
    alone: u32,
    alone_direction: u8,
    /// Since when it was seen, UTC ms.
    observes_twice_since_ms: Option<i64>,
    /// Observations that were metered.
    counted: Memory<Observation>,
    /// Input interfaces with records at ingress.
    ingress: IngressInterfaces,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
struct Observation {
    start_ms: i64,
    end_ms: i64,
    in_if: u32,
    direction: u8,
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

impl Twice {
    pub(super) fn remembered(&self) -> usize {
        self.counted.len()
    }

    /// When the exporter was first seen to observe packets twice.
    pub(super) fn since_ms(&self) -> Option<i64> {
        self.observes_twice_since_ms
    }

    /// Marks the second observations among the rows from `first` on.
    pub(super) fn mark(
        &mut self,
        flows: &mut FlowColumns,
        first: usize,
        received_at_ms: i64,
        observations_max: usize,
        tally: &mut Tally,
    ) {
        let directions = &flows.direction[first..];
        if self.alone >= ALONE_MAX && directions.iter().all(|direction| *direction == self.alone_direction) {
            return;
        }
        let mut second = 0;
        for row in first..flows.len() {
            let direction = flows.direction[row];
            if direction > EGRESS {
                continue;
            }
            self.count_alone(direction);
            let flow = flows.row(row);
            let observed = Observation {
                start_ms: flow.start_at_ms,
                end_ms: flow.end_at_ms,
                in_if: flow.in_if,
                direction,
            };
            let key = flow_key(&flow);
            let counted = self
                .counted
                .get(key)
                .is_some_and(|known| known.has_packets_of(&observed));
            if counted && self.observes_twice_since_ms.is_none() {
                self.observes_twice_since_ms = Some(received_at_ms);
            }
            if counted || (direction == EGRESS && self.is_observed_at_ingress(flow.in_if, received_at_ms)) {
                flows.marks[row] |= marks::SECOND_OBSERVATION;
                second += 1;
            } else if self.alone < ALONE_MAX && observations_max > 0 {
                self.counted.put(key, observed, observations_max);
            }
            if direction == INGRESS {
                self.ingress.note(flow.in_if, received_at_ms);
            }
        }
        if self.alone >= ALONE_MAX {
            self.counted.clear();
            self.ingress.clear();
        }
        tally.add(Counter::FlowsSecondObservation, second);
    }

    fn count_alone(&mut self, direction: u8) {
        if self.alone > 0 && self.alone_direction == direction {
            self.alone = self.alone.saturating_add(1).min(ALONE_MAX);
        } else {
            self.alone = 1;
            self.alone_direction = direction;
        }
    }

    fn is_observed_at_ingress(&self, in_if: u32, now_ms: i64) -> bool {
        self.observes_twice_since_ms.is_some() && self.ingress.observes(in_if, now_ms)
    }
}
