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
//! Repeated elements of one rank: the first that is not 0.
//!
//! v9 field types (RFC 3954 §8) and IPFIX elements (IANA) share their numbers where both exist. Enterprise elements,
//! also reverse ones (RFC 5103), are skipped by their length.

use crate::times::TimeKind;

/// What an element fills.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Target {
    Bytes,
    Packets,
    Protocol,
    Tos,
    TcpFlags,
    SrcPort,
    DstPort,
    SrcAddr,
    DstAddr,
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
    // From here on: about sampling and the exporter, also read from options data.
    SamplingInterval,
    RandomInterval,
    PacketInterval,
    PacketSpace,
    SamplingSize,
    SamplingPopulation,
    SamplingProbability,
    Sampler,
    /// The interface that options data is scoped to.
    ScopeInterface,
    BootMs,
}

impl Target {
    /// Whether options data is read for it.
    pub(super) fn speaks_of_exporter(self) -> bool {
        self >= Target::SamplingInterval
    }

    pub(super) fn choice(self) -> Choice {
        match self {
            Target::SrcAddr
            | Target::DstAddr
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
pub(super) fn target_of(element: u16) -> Option<(Target, u8)> {
    Some(match element {
        // octetDeltaCount, octetTotalCount (SRX), then what left after a middlebox, then a biflow's initiator
        1 => (Target::Bytes, 0),
        85 => (Target::Bytes, 1),
        23 => (Target::Bytes, 2),
        171 => (Target::Bytes, 3),
        231 => (Target::Bytes, 4),
        2 => (Target::Packets, 0),
        86 => (Target::Packets, 1),
        24 => (Target::Packets, 2),
        172 => (Target::Packets, 3),
        298 => (Target::Packets, 4),
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
        _ => return None,
    })
}

/// The target of a field that is a scope of options data. Scope types of v9 (RFC 3954 §6.1) are no elements.
pub(super) fn scope_target_of(element: u16, is_v9: bool) -> Option<(Target, u8)> {
    const V9_SCOPE_INTERFACE: u16 = 2;
    match (is_v9, element) {
        (true, V9_SCOPE_INTERFACE) | (false, 10 | 14) => Some((Target::ScopeInterface, 0)),
        (true, _) => None,
        (false, _) => target_of(element),
    }
}

/// How the times of an element that fills [`Target::Start`] or [`Target::End`] count.
pub(super) fn time_kind_of(element: u16) -> TimeKind {
    match element {
        150 | 151 => TimeKind::Seconds,
        152 | 153 => TimeKind::Milliseconds,
        154..=157 => TimeKind::Ntp,
        158 | 159 => TimeKind::DeltaMicroseconds,
        _ => TimeKind::SysUptime,
    }
}
