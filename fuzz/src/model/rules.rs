//! What the model and the decoder must agree on, rule by rule.

use collector::decode::netflow::DecodeLimits;
use collector::times::{Clock, TimeKind};
use schemas::address::Address;
use tables::flow::{Flow, SpanBound, marks};

pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reduced-size numbers; longer than eight bytes is none.
pub(super) fn number(bytes: &[u8]) -> u64 {
    if bytes.len() > 8 {
        return 0;
    }
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// An IP packet has at least its header, and at most 16 MiB.
pub(super) fn cannot_be(flow: &Flow) -> bool {
    let is_too_small = flow.bytes > 0 && u128::from(flow.packets) * 20 > u128::from(flow.bytes);
    is_too_small || is_too_large(flow.bytes, flow.packets)
}

/// More than 16 MiB a packet, where there is one.
pub(super) fn is_too_large(bytes: u64, packets: u64) -> bool {
    packets > 0 && u128::from(bytes) > u128::from(packets) << 24
}

/// Whether another message of a datagram begins at `rest`: of its version, and whole.
pub(super) fn follows(datagram: &[u8], rest: &[u8]) -> bool {
    let (Some(version), Some(second)) = (be16(rest, 0), be16(rest, 2)) else {
        return false;
    };
    let length = usize::from(second);
    be16(datagram, 0) == Some(version)
        && match version {
            5 => length > 0 && rest.len() >= 24 + 48 * length,
            7 => length > 0 && rest.len() >= 24 + 52 * length,
            9 => rest.len() >= 20,
            10 => (16..=rest.len()).contains(&length),
            _ => false,
        }
}

/// Whether a datagram is one of a version that is read, and whole as far as its header says.
pub(super) fn is_understood(payload: &[u8]) -> bool {
    let (Some(version), Some(second)) = (be16(payload, 0), be16(payload, 2)) else {
        return false;
    };
    let length = usize::from(second);
    match version {
        5 => payload.len() >= 24 + 48 * length,
        7 => payload.len() >= 24 + 52 * length,
        9 => payload.len() >= 20,
        10 => payload.len() >= 16 && (16..=payload.len()).contains(&length),
        _ => false,
    }
}

/// In the place of a set: the header of another v9 message, of the same minute.
pub(super) fn is_v9_message(rest: &[u8], clock: Clock) -> bool {
    let (Some(uptime_ms), Some(seconds), Some(_)) = (be32(rest, 4), be32(rest, 8), be32(rest, 16)) else {
        return false;
    };
    let same_uptime = clock.uptime_ms.is_some_and(|first| first.abs_diff(uptime_ms) <= 60_000);
    same_uptime && (i64::from(seconds) * 1000).abs_diff(clock.export_ms) <= 60_000
}

pub(super) const START_ELEMENTS: [(u16, TimeKind); 6] = [
    (152, TimeKind::Milliseconds),
    (154, TimeKind::Ntp),
    (156, TimeKind::Ntp),
    (22, TimeKind::SysUptime),
    (150, TimeKind::Seconds),
    (158, TimeKind::DeltaMicroseconds),
];
pub(super) const END_ELEMENTS: [(u16, TimeKind); 10] = [
    (153, TimeKind::Milliseconds),
    (155, TimeKind::Ntp),
    (157, TimeKind::Ntp),
    (21, TimeKind::SysUptime),
    (151, TimeKind::Seconds),
    (159, TimeKind::DeltaMicroseconds),
    (323, TimeKind::Milliseconds),
    (322, TimeKind::Seconds),
    (324, TimeKind::Ntp),
    (325, TimeKind::Ntp),
];

/// A flow of the decoder as its record told it: without what the decoder knows of other records.
pub fn as_told(flow: &Flow, limits: &DecodeLimits) -> Flow {
    Flow {
        start_at_ms: flow.reported_start().max(flow.end_at_ms - limits.max_flow_duration_ms),
        reported_start_at_ms: 0,
        span_bound: SpanBound::None,
        marks: flow.marks & !marks::SECOND_OBSERVATION,
        ..*flow
    }
}

/// Neither next hop nor output interface, though it came in somewhere: marked, and dropped only where that is configured.
pub(super) fn mark_without_route(flow: &mut Flow) {
    let goes_nowhere = flow.out_if == 0 && flow.next_hop == Address::UNSPECIFIED;
    if goes_nowhere && flow.in_if != 0 {
        flow.marks |= marks::NO_ROUTE;
    }
}
