//! NetFlow versions 5 and 7: fixed records, no templates.
//!
//! ```text
//! header, 24 bytes: version, count, uptime ms (4), seconds (4), nanoseconds (4), flow sequence (4),
//!                   v5: engine type (1), engine id (1), sampling word (2); v7: reserved (4)
//! record, 48 bytes (v7: 52): src, dst, next hop (4 each), in, out (2 each), packets, bytes, first, last (4 each),
//!                   src port, dst port (2 each), pad or flags (1), tcp flags, protocol, tos (1 each),
//!                   src as, dst as (2 each), src mask, dst mask (1 each), pad (2), v7: bypassed router (4)
//! ```
//!
//! A datagram that is shorter than its count says is refused whole; bytes after the last record are counted and
//! ignored.

use schemas::address::Address;
use tables::flow::Flow;

use super::wire::{be16, be32};
use crate::times::Clock;

const RECORD_BYTES_V5: usize = 48;
const RECORD_BYTES_V7: usize = 52;
pub(super) const HEADER_BYTES: usize = 24;

/// The header of a v5 or v7 datagram and its records.
#[derive(Debug)]
pub(super) struct FixedDatagram<'a> {
    pub(super) clock: Clock,
    pub(super) sequence: u32,
    /// Engine type × 256 + engine id; 0 in v7.
    pub(super) engine: u32,
    /// 0 in v7, which has none.
    pub(super) sampling_word: u16,
    /// What follows the last record.
    pub(super) behind: &'a [u8],
    records: &'a [u8],
    record_bytes: usize,
}

/// Why a datagram was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FixedError {
    Short,
    Length,
}

impl<'a> FixedDatagram<'a> {
    pub(super) fn parse(payload: &'a [u8], is_v7: bool) -> Result<FixedDatagram<'a>, FixedError> {
        let word16 = |offset| be16(payload, offset).ok_or(FixedError::Short);
        let word32 = |offset| be32(payload, offset).ok_or(FixedError::Short);
        if payload.len() < HEADER_BYTES {
            return Err(FixedError::Short);
        }
        let record_bytes = if is_v7 { RECORD_BYTES_V7 } else { RECORD_BYTES_V5 };
        let records_end = HEADER_BYTES + usize::from(word16(2)?) * record_bytes;
        let records = payload.get(HEADER_BYTES..records_end).ok_or(FixedError::Length)?;
        let behind = &payload[records_end..];
        let export_ms = i64::from(word32(8)?) * 1000 + i64::from(word32(12)? / 1_000_000);
        Ok(FixedDatagram {
            clock: Clock {
                export_ms,
                uptime_ms: Some(word32(4)?),
            },
            sequence: word32(16)?,
            engine: if is_v7 { 0 } else { u32::from(word16(20)?) },
            sampling_word: if is_v7 { 0 } else { word16(22)? },
            behind,
            records,
            record_bytes,
        })
    }

    /// How many records it holds.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.records.len() / self.record_bytes).unwrap_or(u32::MAX)
    }

    /// Each record as a copy of `base` with its columns set, and its uptimes at the first and last packet.
    pub(super) fn flows(&self, base: Flow) -> impl Iterator<Item = (Flow, u32, u32)> + '_ {
        self.records
            .chunks_exact(self.record_bytes)
            .map(move |record| read(record, base))
    }
}

#[inline]
fn read(record: &[u8], base: Flow) -> (Flow, u32, u32) {
    // The slices below are within every record: it is at least 48 bytes long.
    let word16 = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
    let word32 = |at: usize| u32::from_be_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let address = |at: usize| Address::from_v4([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let ip_protocol = record[38];
    let dst_port = word16(34);
    let flow = Flow {
        src_addr: address(0),
        dst_addr: address(4),
        next_hop: if word32(8) == 0 {
            Address::UNSPECIFIED
        } else {
            address(8)
        },
        in_if: u32::from(word16(12)),
        out_if: u32::from(word16(14)),
        packets: u64::from(word32(16)),
        bytes: u64::from(word32(20)),
        src_port: word16(32),
        dst_port,
        tcp_flags: record[37],
        ip_protocol,
        tos: record[39],
        src_as: u32::from(word16(40)),
        dst_as: u32::from(word16(42)),
        src_mask: record[44],
        dst_mask: record[45],
        icmp_type_code: super::icmp_from_port(ip_protocol, dst_port),
        ..base
    };
    (flow, word32(24), word32(28))
}
