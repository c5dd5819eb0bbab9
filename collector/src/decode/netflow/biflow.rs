//! Both directions of a conversation in one record.
//!
//! | elements | whose |
//! |---|---|
//! | 231, 298 beside 232, 299 | initiator and responder (Cisco ASA) |
//! | the reverse of an element: the same number under enterprise 29305 | RFC 5103 |
//! | 23, 24 beside 1, 2 | only where `out_bytes_are_answer` is configured: FortiOS repeats IE 1 there (beats #21648) |
//!
//! What the answer carried belongs to the other direction: it becomes a flow of its own, with source and destination exchanged and
//! the mark [`marks::ANSWER`]. Nobody said where it was observed, and both halves count.

use schemas::address::Address;
use tables::flow::{DIRECTION_UNKNOWN, Flow, marks};

use super::totals::Counted;

/// Enterprise number of reverse elements (RFC 5103 §6.1).
pub(super) const REVERSE_ENTERPRISE: u32 = 29305;

/// The answer to `flow` as a flow of its own; `None` when there was none.
pub(super) fn answer_of(flow: &Flow, counted: Counted, tcp_flags: u8, tos: Option<u8>) -> Option<Flow> {
    if counted.answer_bytes == 0 && counted.answer_packets == 0 {
        return None;
    }
    Some(Flow {
        src_addr: flow.dst_addr,
        dst_addr: flow.src_addr,
        src_port: flow.dst_port,
        dst_port: flow.src_port,
        src_as: flow.dst_as,
        dst_as: flow.src_as,
        src_mask: flow.dst_mask,
        dst_mask: flow.src_mask,
        in_if: flow.out_if,
        out_if: flow.in_if,
        in_vlan: flow.out_vlan,
        out_vlan: flow.in_vlan,
        // That of the other direction.
        next_hop: Address::UNSPECIFIED,
        direction: DIRECTION_UNKNOWN,
        tcp_flags,
        tos: tos.unwrap_or(flow.tos),
        bytes: counted.answer_bytes,
        packets: counted.answer_packets,
        marks: (flow.marks & !marks::NO_ROUTE) | marks::ANSWER,
        ..*flow
    })
}
