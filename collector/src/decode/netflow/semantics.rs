//! What records mean beyond their fields: learned from the exporter's own records, kept with the rest of the decoder's state.
//!
//! The rows of a set are read first, column by column or record by record, and finished here ([`DomainSemantics::finish`]):
//! whether they were forwarded, whether their bytes have layer-2 octets in them, from which time they are ([`super::span`]), and
//! whether they were observed twice ([`super::double_counting`], which is known of the whole session). What needs the record
//! itself, running totals and answers ([`super::totals`], [`super::biflow`]), is done while it is read.

use schemas::address::Address;
use serde::{Deserialize, Serialize};
use tables::flow::{FlowColumns, SpanBound, marks, was_discarded};

use super::double_counting::{DoubleCounting, OBSERVATIONS_MAX};
use super::limits::FlowCapacity;
use super::span::{ActiveTimeout, SpanContext, Spans};
use super::tally::Tally;
use super::totals::Totals;
use crate::counts::Counter;
use crate::decode::discard;
use crate::reading::DecodeSettings;

/// Of one observation domain.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DomainSemantics {
    pub(super) spans: Spans,
    pub(super) totals: Totals,
    /// Its templates carry IE 23 beside IE 1, and it is not configured what that counts.
    pub(super) has_out_counters: bool,
}

/// What the rows of a set have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowFacts {
    pub(super) reading: DecodeSettings,
    pub(super) received_at_ms: i64,
    pub(super) export_ms: i64,
    pub(super) tells_path: bool,
    pub(super) tells_direction: bool,
    pub(super) is_junos: bool,
    /// The active timeout that another domain of the session announced.
    pub(super) of_session_s: Option<u32>,
    pub(super) room: FlowCapacity,
}

/// A row that lasted longer than any flow is believed to, with its start as it was told.
pub(super) type LongRow = (usize, i64);

impl DomainSemantics {
    /// How many flows are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.spans.remembered() + self.totals.remembered()
    }

    /// The active timeout in force.
    pub(super) fn active_timeout(&self, reading: DecodeSettings, of_session_s: Option<u32>) -> Option<ActiveTimeout> {
        self.spans.timeout(reading.active_timeout_ms, of_session_s)
    }

    /// Completes the rows from `first` on, whose fields and times are set; `long_rows` are those among them that were shortened.
    pub(super) fn finish(
        &mut self,
        flows: &mut FlowColumns,
        first: usize,
        facts: RowFacts,
        twice: &mut DoubleCounting,
        long_rows: &mut Vec<LongRow>,
        tally: &mut Tally,
    ) {
        judge_forwarding(flows, first, facts, tally);
        if facts.reading.layer2_octets > 0 {
            take_off_layer2(flows, first, u64::from(facts.reading.layer2_octets), tally);
        }
        for (row, start_ms) in long_rows.iter() {
            flows.set_reported_start(*row, *start_ms);
        }
        let context = SpanContext {
            export_ms: facts.export_ms,
            configured_ms: facts.reading.active_timeout_ms,
            of_session_s: facts.of_session_s,
            is_junos: facts.is_junos,
            reports_max: facts.room.max(self.spans.remembered()),
        };
        self.spans.bound(flows, first, context, tally);
        let unbounded = |(row, _): &LongRow| flows.span_bound_of(*row) == SpanBound::None;
        let too_old = long_rows.drain(..).filter(unbounded).count();
        tally.add(Counter::TimesTooOld, too_old as u64);
        if facts.tells_direction {
            let observations_max = facts.room.max(twice.remembered()).min(OBSERVATIONS_MAX);
            twice.mark(flows, first, facts.received_at_ms, observations_max, tally);
        }
    }
}

/// Marks flows that have no route, and counts those that were not forwarded.
fn judge_forwarding(flows: &mut FlowColumns, first: usize, facts: RowFacts, tally: &mut Tally) {
    let statuses = &mut flows.forwarding_status[first..];
    let mut without_route = 0;
    if facts.tells_path {
        let interfaces = flows.in_if[first..].iter().zip(&flows.out_if[first..]);
        let paths = interfaces.zip(&flows.next_hop[first..]);
        let rows = paths.zip(flows.marks[first..].iter_mut().zip(statuses.iter_mut()));
        for (((in_if, out_if), next_hop), (row_marks, status)) in rows {
            let is_nowhere =
                *out_if == 0 && *in_if != 0 && *next_hop == Address::UNSPECIFIED.0 && *row_marks & marks::ANSWER == 0;
            if is_nowhere {
                *row_marks |= marks::NO_ROUTE;
                if discard::by_rule(*status, facts.reading.zero_route_is_discard) {
                    *status = tables::flow::FORWARDING_DROPPED;
                    *row_marks |= marks::DROPPED_BY_RULE;
                }
                without_route += u64::from(!was_discarded(*status));
            }
        }
    }
    let discarded = statuses.iter().filter(|status| was_discarded(**status)).count();
    tally.add(Counter::FlowsDiscarded, discarded as u64);
    tally.add(Counter::FlowsWithoutRoute, without_route);
}

/// Takes so many octets of each packet off the bytes.
fn take_off_layer2(flows: &mut FlowColumns, first: usize, octets: u64, tally: &mut Tally) {
    let rows = first..flows.len();
    let mut taken_off = 0;
    for row in rows {
        // Off bytes that are of layer 2 by their element they are taken already.
        if flows.marks[row] & marks::LAYER2_TAKEN_OFF != 0 {
            continue;
        }
        let overhead = flows.packets[row].saturating_mul(octets);
        flows.bytes[row] = flows.bytes[row].saturating_sub(overhead);
        flows.marks[row] |= marks::LAYER2_TAKEN_OFF;
        taken_off += 1;
    }
    tally.add(Counter::FlowsLayer2TakenOff, taken_off);
}
