//! Which information element fills which column.
//!
//! Several elements can speak of one column. [`target_of`] ranks them; [`Choice`] says what happens when a template has
//! more than one:
//!
//! * by presence: the best rank that the *template* has is used, even where its value is 0. A delta count of 0 beside a
//!   total is a count of 0, and a next hop of 0 with a BGP next hop beside it is a discarded packet (Juniper), not a guess;
//! * by value: the first value that is not 0, in the order of rank, then of the template. Cisco's MPLS templates carry IPv4
//!   and IPv6 addresses side by side with one of them zero.
//!
//! Repeated elements of one rank: the first that is not 0. But of several addresses that are not 0 the last one counts: a record
//! of a packet in a tunnel has the outer header's fields first (RFC 7011 §8), and the flow is the inner packet, as pmacct reads it.
//!
//! v9 field types (RFC 3954 §8) and IPFIX elements (IANA) share their numbers where both exist. Of enterprise elements the reverse
//! ones (RFC 5103) tell what the answer carried, Junos' common properties what was not forwarded ([`super::exception`]), and the few
//! that are named here fill columns; all others are skipped by their length.

use super::spec::FieldSpec;
use crate::times::TimeKind;

/// What an element fills.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Target {
    Bytes,
    /// Added to the bytes.
    MoreBytes,
    Packets,
    Protocol,
    Tos,
    TcpFlags,
    SrcPort,
    DstPort,
    SrcAddr,
    DstAddr,
    /// Of a wireless client: the source or the destination, by the direction.
    StationAddr,
    SrcMask,
    DstMask,
    InIf,
    OutIf,
    NextHop,
    SrcAs,
    DstAs,
    Start,
    End,
    DurationMs,
    DurationUs,
    IcmpTypeCode,
    IcmpType,
    IcmpCode,
    InVlan,
    OutVlan,
    Direction,
    ForwardingStatus,
    // What the answering direction carried ([`super::biflow`]).
    AnswerBytes,
    AnswerPackets,
    AnswerTcpFlags,
    AnswerTos,
    /// IE 23 and 24 beside IE 1 or 85.
    OutBytes,
    OutPackets,
    FirewallEvent,
    // What makes cache entries distinct, where their counters run on ([`super::totals`]).
    FlowId,
    ObservationPoint,
    // From here on: about sampling and the exporter, also read from options data.
    SamplingInterval,
    RandomInterval,
    PacketInterval,
    PacketSpace,
    SamplingSize,
    SamplingPopulation,
    SamplingProbability,
    Sampler,
    /// What options data holds for: an interface,
    ScopeInterface,
    /// a direction,
    ScopeDirection,
    /// a template,
    ScopeTemplate,
    /// an observation domain,
    ScopeDomain,
    /// or something that is not understood.
    ScopeOther,
    /// The name of an interface that options data speaks of.
    ScopeName,
    BootMs,
    /// IE 36, read from options data only.
    ActiveTimeout,
}

impl Target {
    /// Whether options data is read for it.
    pub(super) fn speaks_of_exporter(self) -> bool {
        self >= Target::SamplingInterval
    }

    /// Headers in headers repeat it, the outermost first.
    pub(super) fn is_layered(self) -> bool {
        matches!(self, Target::SrcAddr | Target::DstAddr)
    }

    /// Read record by record, because it needs another field, adds to one or says something of other records.
    pub(super) fn is_read_by_record(self) -> bool {
        matches!(
            self,
            Target::IcmpType
                | Target::IcmpCode
                | Target::StationAddr
                | Target::MoreBytes
                | Target::AnswerBytes
                | Target::AnswerPackets
                | Target::AnswerTcpFlags
                | Target::AnswerTos
                | Target::FirewallEvent
        )
    }

    pub(super) fn choice(self) -> Choice {
        match self {
            Target::SrcAddr
            | Target::DstAddr
            | Target::StationAddr
            | Target::InVlan
            | Target::OutVlan
            | Target::Sampler
            | Target::IcmpType
            | Target::IcmpCode => Choice::ByValue,
            _ => Choice::ByPresence,
        }
    }
}

/// What happens when a template has several elements for one column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    ByPresence,
    ByValue,
}

/// The column that an element fills and its rank there (0 is best); `None` for elements that are not kept.
pub(super) fn target_of(field: FieldSpec) -> Option<(Target, u8)> {
    match (field.enterprise, field.element) {
        (0, element) => iana_target_of(element),
        // Procera counts octets of both directions of a record in elements of its own.
        (PROCERA, 3) => Some((Target::Bytes, VENDOR_BYTES)),
        (PROCERA, 4) => Some((Target::MoreBytes, VENDOR_BYTES)),
        _ => None,
    }
}

/// The private enterprise number of Procera Networks (now Sandvine).
const PROCERA: u32 = 15_397;
/// The rank of bytes that count layer 2, for want of others.
pub(super) const LAYER2_BYTES: u8 = 5;
/// The rank of bytes in elements of a vendor, for want of others.
pub(super) const VENDOR_BYTES: u8 = 6;

fn iana_target_of(element: u16) -> Option<(Target, u8)> {
    Some(match element {
        // octetDeltaCount, octetTotalCount (SRX), then what left after a middlebox, then a biflow's initiator
        1 => (Target::Bytes, 0),
        85 => (Target::Bytes, 1),
        23 => (Target::Bytes, 2),
        171 => (Target::Bytes, 3),
        231 => (Target::Bytes, 4),
        // layer2OctetDeltaCount, and the same behind a middlebox
        352 | 417 => (Target::Bytes, LAYER2_BYTES),
        2 => (Target::Packets, 0),
        86 => (Target::Packets, 1),
        24 => (Target::Packets, 2),
        172 => (Target::Packets, 3),
        298 => (Target::Packets, 4),
        232 => (Target::AnswerBytes, 1),
        299 => (Target::AnswerPackets, 1),
        233 => (Target::FirewallEvent, 0),
        // flowId, a connection's number with an ASA
        148 => (Target::FlowId, 0),
        138 => (Target::ObservationPoint, 0),
        4 => (Target::Protocol, 0),
        5 => (Target::Tos, 0),
        6 => (Target::TcpFlags, 0),
        // sourceTransportPort, then the UDP and TCP ones
        7 => (Target::SrcPort, 0),
        180 | 182 => (Target::SrcPort, 1),
        11 => (Target::DstPort, 0),
        181 | 183 => (Target::DstPort, 1),
        8 | 27 => (Target::SrcAddr, 0),
        12 | 28 => (Target::DstAddr, 0),
        366 => (Target::StationAddr, 0),
        9 | 29 => (Target::SrcMask, 0),
        13 | 30 => (Target::DstMask, 0),
        10 => (Target::InIf, 0),
        252 => (Target::InIf, 1),
        14 => (Target::OutIf, 0),
        253 => (Target::OutIf, 1),
        15 | 62 => (Target::NextHop, 0),
        18 | 63 => (Target::NextHop, 1),
        16 => (Target::SrcAs, 0),
        17 => (Target::DstAs, 0),
        152 => (Target::Start, 0),
        154 => (Target::Start, 1),
        156 => (Target::Start, 2),
        22 => (Target::Start, 3),
        150 => (Target::Start, 4),
        158 => (Target::Start, 5),
        153 => (Target::End, 0),
        155 => (Target::End, 1),
        157 => (Target::End, 2),
        21 => (Target::End, 3),
        151 => (Target::End, 4),
        159 => (Target::End, 5),
        // The event's own time (NSEL) ends what has no other end.
        323 => (Target::End, 6),
        322 => (Target::End, 7),
        324 => (Target::End, 8),
        325 => (Target::End, 9),
        161 => (Target::DurationMs, 0),
        162 => (Target::DurationUs, 0),
        32 | 139 => (Target::IcmpTypeCode, 0),
        176 | 178 => (Target::IcmpType, 0),
        177 | 179 => (Target::IcmpCode, 0),
        // vlanId, dot1qVlanId, then the same after the exporter
        58 => (Target::InVlan, 0),
        243 => (Target::InVlan, 1),
        59 => (Target::OutVlan, 0),
        254 => (Target::OutVlan, 1),
        61 => (Target::Direction, 0),
        89 => (Target::ForwardingStatus, 0),
        34 => (Target::SamplingInterval, 0),
        50 => (Target::RandomInterval, 0),
        305 => (Target::PacketInterval, 0),
        306 => (Target::PacketSpace, 0),
        309 => (Target::SamplingSize, 0),
        310 => (Target::SamplingPopulation, 0),
        311 => (Target::SamplingProbability, 0),
        302 => (Target::Sampler, 0),
        48 => (Target::Sampler, 1),
        160 => (Target::BootMs, 0),
        36 => (Target::ActiveTimeout, 0),
        _ => return None,
    })
}

/// What the reverse of an element fills (RFC 5103): the same of the answering direction.
pub(super) fn reverse_target_of(element: u16) -> Option<(Target, u8)> {
    Some(match element {
        1 => (Target::AnswerBytes, 0),
        85 => (Target::AnswerBytes, 2),
        2 => (Target::AnswerPackets, 0),
        86 => (Target::AnswerPackets, 2),
        6 => (Target::AnswerTcpFlags, 0),
        5 => (Target::AnswerTos, 0),
        _ => return None,
    })
}

/// The second meaning of an element that stands beside a better one for its column.
pub(super) fn beside_target_of(element: u16) -> Option<Target> {
    match element {
        23 => Some(Target::OutBytes),
        24 => Some(Target::OutPackets),
        _ => None,
    }
}

/// The target of a field that is a scope of options data: what is not understood narrows it, too. Scope types of v9
/// (RFC 3954 §6.1) are no elements.
pub(super) fn scope_target_of(field: FieldSpec, is_v9: bool) -> Option<(Target, u8)> {
    const V9_SCOPE_SYSTEM: u16 = 1;
    const V9_SCOPE_INTERFACE: u16 = 2;
    const V9_SCOPE_TEMPLATE: u16 = 5;
    match (is_v9, field.enterprise, field.element) {
        (true, _, V9_SCOPE_SYSTEM) => None,
        (true, _, V9_SCOPE_INTERFACE) => Some((Target::ScopeInterface, 0)),
        (true, _, V9_SCOPE_TEMPLATE) => Some((Target::ScopeTemplate, 0)),
        // Addresses of exporter and collector, metering and exporting process, and the same of an original exporter: all of the
        // domain.
        (false, 0, 130 | 131 | 211 | 212 | 143 | 144 | 403..=405) => None,
        (false, 0, element) => options_target_of(element).or(Some((Target::ScopeOther, 0))),
        _ => Some((Target::ScopeOther, 0)),
    }
}

/// The target of a field of options data that is no scope: what a record names beside its scope narrows it as well (interfaces beside a
/// rate in v9), also where it is not understood: an observation point, a line card, a port, a selection sequence, a VRF, a VLAN, a
/// name of an interface.
pub(super) fn options_target_of(element: u16) -> Option<(Target, u8)> {
    match element {
        10 | 14 | 252 | 253 => Some((Target::ScopeInterface, 0)),
        61 => Some((Target::ScopeDirection, 0)),
        145 => Some((Target::ScopeTemplate, 0)),
        149 => Some((Target::ScopeDomain, 0)),
        82 | 83 => Some((Target::ScopeName, 0)),
        58 | 59 | 138 | 141 | 142 | 234..=236 | 243 | 254 | 301 => Some((Target::ScopeOther, 0)),
        element => iana_target_of(element).filter(|(target, _)| target.speaks_of_exporter()),
    }
}

/// How the times of an element that fills [`Target::Start`] or [`Target::End`] count.
pub(super) fn time_kind_of(element: u16) -> TimeKind {
    match element {
        150 | 151 | 322 => TimeKind::Seconds,
        152 | 153 | 323 => TimeKind::Milliseconds,
        154..=157 | 324 | 325 => TimeKind::Ntp,
        158 | 159 => TimeKind::DeltaMicroseconds,
        _ => TimeKind::SysUptime,
    }
}
