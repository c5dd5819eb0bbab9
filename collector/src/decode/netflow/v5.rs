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
//!
//! The records are those of a template that everybody knows ([`FixedPlans`]): they are read column by column, as those of v9 are.

use schemas::address::Address;
use tables::flow::{Flow, FlowColumns};

use super::columnar::append_set;
use super::row_times::finish_times;
use super::scratch::Scratch;
use super::spec::{FieldSpec, TemplateKind, TemplateSpec};
use super::tally::Tally;
use super::template::Plan;
use super::wire::{be16, be32};
use crate::times::{Clock, TimeKind, TimeLimits, resolve};

const RECORD_BYTES_V5: usize = 48;
const RECORD_BYTES_V7: usize = 52;
pub(super) const HEADER_BYTES: usize = 24;

/// Elements (those of v9) and lengths of a record's fields, in both versions; v7 has one more behind them.
const FIELDS: [(u16, u16); 20] = [
    (8, 4),
    (12, 4),
    (15, 4),
    (10, 2),
    (14, 2),
    (2, 4),
    (1, 4),
    (22, 4),
    (21, 4),
    (7, 2),
    (11, 2),
    (PADDING, 1),
    (6, 1),
    (4, 1),
    (5, 1),
    (16, 2),
    (17, 2),
    (9, 1),
    (13, 1),
    (PADDING, 2),
];
/// paddingOctets.
const PADDING: u16 = 210;
/// The router that was bypassed, which no column keeps.
const V7_BYPASSED: (u16, u16) = (PADDING, 4);

/// What the templates of v5 and v7 would be compiled to.
#[derive(Debug)]
pub(super) struct FixedPlans {
    v5: Plan,
    v7: Plan,
}

impl FixedPlans {
    pub(super) fn new() -> FixedPlans {
        let plan = |more: Option<(u16, u16)>| {
            let fields = FIELDS.into_iter().chain(more).map(|(element, length)| FieldSpec {
                element,
                length,
                enterprise: 0,
            });
            let spec = TemplateSpec {
                kind: TemplateKind::Data,
                scope_fields: 0,
                is_v9: true,
                fields: fields.collect(),
            };
            Plan::compile(&spec).expect("the fields of a fixed record have bytes, and fit in a set")
        };
        FixedPlans {
            v5: plan(None),
            v7: plan(Some(V7_BYPASSED)),
        }
    }
}

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

    /// Appends a flow for each record, a copy of `base` with its columns and times set; answers how many records cannot be, of which
    /// there is none.
    pub(super) fn append(
        &self,
        plans: &FixedPlans,
        base: &Flow,
        limits: &TimeLimits,
        scratch: &mut Scratch,
        flows: &mut FlowColumns,
        tally: &mut Tally,
    ) -> u64 {
        let plan = if self.record_bytes == RECORD_BYTES_V7 {
            &plans.v7
        } else {
            &plans.v5
        };
        let count = self.records.len() / self.record_bytes;
        let (times, long_rows) = (&mut scratch.times, &mut scratch.long_rows);
        if append_set(
            plan,
            self.records,
            count,
            base,
            self.clock,
            limits,
            times,
            long_rows,
            flows,
            tally,
        ) {
            return 0;
        }
        let mut impossible = 0;
        for (mut flow, first, last) in self.flows(*base) {
            if super::cannot_be(flow.bytes, flow.packets) {
                impossible += 1;
                continue;
            }
            let at = |uptime_ms| resolve(TimeKind::SysUptime, u64::from(uptime_ms), self.clock);
            let (row, received_at_ms) = (flows.len(), base.received_at_ms);
            (flow.start_at_ms, flow.end_at_ms) =
                finish_times(at(first), at(last), received_at_ms, limits, row, long_rows, tally);
            flows.push(flow);
        }
        impossible
    }

    /// Each record as a copy of `base` with its columns set, and its uptimes at the first and last packet.
    fn flows(&self, base: Flow) -> impl Iterator<Item = (Flow, u32, u32)> + '_ {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Column by column gives what record by record gives, for both versions.
        #[test]
        fn both_ways_of_reading_agree(
            is_v7: bool,
            records in prop::collection::vec(any::<u8>(), 0..20 * RECORD_BYTES_V7),
            is_small in prop::collection::vec(any::<bool>(), 20),
        ) {
            let record_bytes = if is_v7 { RECORD_BYTES_V7 } else { RECORD_BYTES_V5 };
            let count = records.len() / record_bytes;
            let mut payload = vec![0, if is_v7 { 7 } else { 5 }, 0, count as u8];
            payload.extend([0, 54, 238, 128, 101, 154, 16, 0]);
            payload.resize(HEADER_BYTES, 0);
            payload.extend(&records[..count * record_bytes]);
            for (record, is_small) in payload[HEADER_BYTES..].chunks_exact_mut(record_bytes).zip(is_small) {
                // Few packets, so that most records can be; some without next hop, and of ICMP.
                record[16..20].copy_from_slice(&[0, 0, 0, 9]);
                if record[0] < 4 {
                    record[20..24].copy_from_slice(&[0, 0, 0, 179]);
                } else if record[0] >= 4 && record[0] < 252 {
                    // Below 9 MiB; of the rest most are above.
                    record[20..22].copy_from_slice(&[0, 9]);
                }
                if is_small {
                    record[8..12].fill(0);
                    record[38] = 1;
                }
            }
            let datagram = FixedDatagram::parse(&payload, is_v7).unwrap();
            let base = Flow { received_at_ms: datagram.clock.export_ms, sampling_rate: 7, exporter_port: 9, ..Flow::default() };
            let limits = crate::decode::netflow::DecodeLimits::default().times();
            let (mut scratch, mut tally) = (Scratch::default(), Tally::new());
            let mut flows = FlowColumns::from_iter([base]);
            let impossible =
                datagram.append(&FixedPlans::new(), &base, &limits, &mut scratch, &mut flows, &mut tally);
            let mut expected = vec![base];
            for (mut flow, first, last) in datagram.flows(base) {
                let at = |uptime_ms| resolve(TimeKind::SysUptime, u64::from(uptime_ms), datagram.clock);
                let times = crate::times::normalise(at(first), at(last), base.received_at_ms, &limits);
                (flow.start_at_ms, flow.end_at_ms) = (times.start_ms, times.end_ms);
                if !crate::decode::netflow::cannot_be(flow.bytes, flow.packets) {
                    expected.push(flow);
                }
            }
            prop_assert_eq!(impossible as usize, count + 1 - expected.len());
            prop_assert_eq!(flows.rows(), expected);
        }
    }
}
