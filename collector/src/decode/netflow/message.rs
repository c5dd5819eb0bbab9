//! Headers of NetFlow and IPFIX, and where a message ends.
//!
//! A datagram should hold one message, and its header should say how long it is. Some relays put several into one datagram, and
//! some exporters say a length that cuts their last set short; both are read.

use super::v5::{FixedDatagram, FixedError};
use super::wire::{be16, be32};
use crate::counts::Counter;
use crate::sampling::DomainKey;
use crate::times::Clock;

const V9_HEADER_BYTES: usize = 20;
const IPFIX_HEADER_BYTES: usize = 16;
const SET_HEADER_BYTES: usize = 4;
/// Two v9 messages of one exporter in one datagram were made within this.
const SAME_DATAGRAM_MS: u64 = 60_000;

/// A datagram's header, whatever its version.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) key: DomainKey,
    pub(super) sequence: u32,
    pub(super) clock: Clock,
    /// What follows it in its datagram.
    pub(super) behind: &'a [u8],
    pub(super) content: Content<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    Records(FixedDatagram<'a>),
    Sets(&'a [u8]),
}

/// Why a datagram was refused, and the version it gave.
pub(super) struct Refused(pub(super) u8, pub(super) Counter);

impl<'a> Header<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Header<'a>, Refused> {
        let version = be16(payload, 0).ok_or(Refused(0, Counter::DatagramsRejectedShort))?;
        match version {
            5 => Header::fixed(payload, 5),
            7 => Header::fixed(payload, 7),
            9 => Header::v9(payload).ok_or(Refused(9, Counter::DatagramsRejectedShort)),
            10 => Header::ipfix(payload),
            _ => Err(Refused(0, Counter::DatagramsRejectedVersion)),
        }
    }

    fn fixed(payload: &'a [u8], version: u8) -> Result<Header<'a>, Refused> {
        let records = FixedDatagram::parse(payload, version == 7).map_err(|error| match error {
            FixedError::Short => Refused(version, Counter::DatagramsRejectedShort),
            FixedError::Length => Refused(version, Counter::DatagramsRejectedLength),
        })?;
        Ok(Header {
            key: DomainKey {
                protocol_version: version,
                observation_domain: records.engine,
            },
            sequence: records.sequence,
            clock: records.clock,
            behind: records.behind,
            content: Content::Records(records),
        })
    }

    /// RFC 3954 §5.1: version, count, uptime ms, seconds, sequence, source id.
    fn v9(payload: &'a [u8]) -> Option<Header<'a>> {
        Some(Header {
            key: DomainKey {
                protocol_version: 9,
                observation_domain: be32(payload, 16)?,
            },
            sequence: be32(payload, 12)?,
            clock: Clock {
                export_ms: i64::from(be32(payload, 8)?) * 1000,
                uptime_ms: Some(be32(payload, 4)?),
            },
            behind: &[],
            content: Content::Sets(payload.get(V9_HEADER_BYTES..)?),
        })
    }

    /// RFC 7011 §3.1: version, length, export seconds, sequence, observation domain.
    fn ipfix(payload: &'a [u8]) -> Result<Header<'a>, Refused> {
        let short = || Refused(10, Counter::DatagramsRejectedShort);
        let word = |offset| be32(payload, offset).ok_or_else(short);
        let observation_domain = word(12)?;
        let length = usize::from(be16(payload, 2).ok_or_else(short)?);
        if length < IPFIX_HEADER_BYTES || length > payload.len() {
            return Err(Refused(10, Counter::DatagramsRejectedLength));
        }
        let end = if length < payload.len() {
            ipfix_end(payload, length)
        } else {
            length
        };
        let (message, behind) = payload.split_at(end);
        Ok(Header {
            key: DomainKey {
                protocol_version: 10,
                observation_domain,
            },
            sequence: word(8)?,
            clock: Clock {
                export_ms: i64::from(word(4)?) * 1000,
                uptime_ms: None,
            },
            behind,
            content: Content::Sets(&message[IPFIX_HEADER_BYTES..]),
        })
    }
}

/// Where a message ends whose header gives a length short of the datagram: there, unless its last set reaches farther and is whole.
fn ipfix_end(payload: &[u8], length: usize) -> usize {
    let mut at = IPFIX_HEADER_BYTES;
    while at + SET_HEADER_BYTES <= length {
        let set_bytes = be16(payload, at + 2).map_or(0, usize::from);
        if set_bytes < SET_HEADER_BYTES {
            break;
        }
        at += set_bytes;
        if at > length {
            return if at <= payload.len() { at } else { length };
        }
    }
    length
}

/// Whether another message follows the first one of a datagram: of the same version, and whole.
pub(super) fn starts_with_message(rest: &[u8], datagram: &[u8]) -> bool {
    if rest.is_empty() || be16(rest, 0) != be16(datagram, 0) {
        return false;
    }
    match be16(rest, 0) {
        Some(version @ (5 | 7)) => FixedDatagram::parse(rest, version == 7).is_ok_and(|records| records.count() > 0),
        // Found in the place of a set, see below.
        Some(9) => rest.len() >= V9_HEADER_BYTES,
        Some(10) => {
            be16(rest, 2).is_some_and(|length| (IPFIX_HEADER_BYTES..=rest.len()).contains(&usize::from(length)))
        }
        _ => false,
    }
}

/// Whether a v9 message follows in the place of a set (v9 headers tell no length): what would be the reserved set id 9, and the
/// time of the header before.
pub(super) fn starts_with_v9(rest: &[u8], clock: Clock) -> bool {
    let (Some(uptime_ms), Some(seconds)) = (be32(rest, 4), be32(rest, 8)) else {
        return false;
    };
    let near_uptime = clock
        .uptime_ms
        .is_some_and(|first| uptime_ms.abs_diff(first) <= SAME_DATAGRAM_MS as u32);
    let near_time = (i64::from(seconds) * 1000).abs_diff(clock.export_ms) <= SAME_DATAGRAM_MS;
    rest.len() >= V9_HEADER_BYTES && rest.starts_with(&[0, 9]) && near_uptime && near_time
}
