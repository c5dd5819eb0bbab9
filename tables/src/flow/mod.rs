//! The flow record: the row that every exporter's report becomes.
//!
//! [`FLOWS`] defines the stored table; [`Flow`] is one row in memory; [`FlowColumns`] holds many of them by column.
//! `bytes` and `packets` are as exported (unscaled) and mean layer 3; [`scaled`] makes volume of them.

mod columns;
pub mod marks;
pub mod older;

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, FixedSizeBinaryBuilder, RecordBatch, TimestampMillisecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use std::sync::Arc;

pub use columns::FlowColumns;

use schemas::address::Address;
use schemas::sampling::{SamplingRate, scaled};

use crate::column::{ColumnType, Layout, TableDef, column};

/// `protocol_version` of a flow that came by sFlow version 5 (NetFlow keeps its own numbers 5, 7, 9 and 10 = IPFIX).
pub const PROTOCOL_SFLOW5: u8 = 105;

/// The table of flows.
#[rustfmt::skip] // a row of the table is a line
pub const FLOWS: TableDef = TableDef {
    name: "flows",
    doc: "One row per flow record (or sampled packet) that an exporter reported. `bytes` and `packets` are unscaled, layer 3.",
    time_column: "received_at",
    sort: &["dst_service", "src_service", "received_at"],
    format: 1,
    computed: false,
    columns: &[
        column("received_at", ColumnType::Instant, "UTC ms", Layout::Delta, true, "when the datagram arrived"),
        column("start_at", ColumnType::Instant, "UTC ms", Layout::Delta, true, "first packet of the flow, normalised; no earlier than the bytes can be (`span_bound`)"),
        column("end_at", ColumnType::Instant, "UTC ms", Layout::Delta, true, "last packet of the flow, normalised"),
        column("exporter", ColumnType::Address, "", Layout::Dictionary, true, "address the datagram came from (sFlow: agent address)"),
        column("observation_domain", ColumnType::U32, "", Layout::Dictionary, true, "IPFIX observation domain, v9 source id, v5 engine, sFlow sub-agent"),
        column("protocol_version", ColumnType::U8, "", Layout::Dictionary, true, "5, 7, 9, 10 = IPFIX, 105 = sFlow version 5"),
        column("sampling_rate", ColumnType::U32, "packets", Layout::Dictionary, true, "one packet in `sampling_rate / sampling_divisor` was sampled; 0 = not known, never billed"),
        column("in_if", ColumnType::U32, "", Layout::Dictionary, true, "SNMP index of the input interface, 0 = not reported"),
        column("out_if", ColumnType::U32, "", Layout::Dictionary, true, "SNMP index of the output interface, 0 = not reported"),
        column("in_boundary", ColumnType::U8, "", Layout::Dictionary, true, "input side: 0 unknown, 1 external, 2 internal"),
        column("out_boundary", ColumnType::U8, "", Layout::Dictionary, true, "output side: 0 unknown, 1 external, 2 internal"),
        column("direction", ColumnType::U8, "", Layout::Dictionary, true, "observed at 0 ingress, 1 egress, 255 not reported"),
        column("metered", ColumnType::U8, "", Layout::Dictionary, true, "0 not counted, 1 counted as received by a service, 2 counted as sent"),
        column("src_addr", ColumnType::Address, "", Layout::Plain, false, "source address"),
        column("dst_addr", ColumnType::Address, "", Layout::Plain, false, "destination address"),
        column("src_port", ColumnType::U16, "", Layout::Plain, false, "source port"),
        column("dst_port", ColumnType::U16, "", Layout::Plain, false, "destination port"),
        column("ip_protocol", ColumnType::U8, "", Layout::Dictionary, true, "IP protocol number"),
        column("tcp_flags", ColumnType::U8, "", Layout::Dictionary, false, "union of the TCP flags seen"),
        column("tos", ColumnType::U8, "", Layout::Dictionary, false, "IP type of service or traffic class"),
        column("icmp_type_code", ColumnType::U16, "", Layout::Dictionary, false, "ICMP type × 256 + code"),
        column("in_vlan", ColumnType::U16, "", Layout::Dictionary, true, "outer VLAN id on the input side, 0 = none").older_column("vlan"),
        column("out_vlan", ColumnType::U16, "", Layout::Dictionary, true, "outer VLAN id on the output side, 0 = none").older_column("vlan"),
        column("next_hop", ColumnType::Address, "", Layout::Dictionary, false, "next hop, :: = not reported"),
        column("src_as", ColumnType::U32, "", Layout::Dictionary, false, "source autonomous system"),
        column("dst_as", ColumnType::U32, "", Layout::Dictionary, false, "destination autonomous system"),
        column("src_mask", ColumnType::U8, "bits", Layout::Dictionary, false, "source prefix length"),
        column("dst_mask", ColumnType::U8, "bits", Layout::Dictionary, false, "destination prefix length"),
        column("forwarding_status", ColumnType::U8, "", Layout::Dictionary, false, "IE 89 (RFC 7270 §4.12), 0 = not reported"),
        column("bytes", ColumnType::U64, "bytes", Layout::Delta, false, "layer-3 bytes as exported, unscaled"),
        column("packets", ColumnType::U64, "packets", Layout::Delta, false, "packets as exported, unscaled"),
        column("src_service", ColumnType::U32, "", Layout::Dictionary, true, "service of the source, 0 = none"),
        column("dst_service", ColumnType::U32, "", Layout::Dictionary, true, "service of the destination, 0 = none"),
        column("sampling_divisor", ColumnType::U32, "packets", Layout::Dictionary, true, "what `sampling_rate` is divided by: 1 unless the rate is a fraction; the volume is `scaled(bytes, sampling_rate, sampling_divisor)`").older_number(1),
        column("reported_start_at", ColumnType::Instant, "UTC ms", Layout::Delta, false, "the start that the exporter reported, where `start_at` is a later one (`span_bound`); otherwise 1970-01-01 00:00").older_number(0),
        column("span_bound", ColumnType::U8, "", Layout::Dictionary, true, "what bounded the span: 0 nothing, 1 the configured active timeout, 2 the exporter's options data, 3 its own records").older_number(0),
        column("exporter_port", ColumnType::U16, "", Layout::Dictionary, true, "UDP source port of the transport session, 0 = not known").older_number(0),
        column("marks", ColumnType::U16, "", Layout::Dictionary, true, "what else is known of the record, as bits (docs/metering.md, Marks)").older_number(0),
    ],
};

/// Which side of our network an interface faces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Boundary {
    #[default]
    Unknown = 0,
    External = 1,
    Internal = 2,
}

/// Whether and how a flow counts (see [`crate::metering`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Metered {
    /// Not counted: internal, transit, observed elsewhere too, or at an exporter that does not meter.
    #[default]
    No = 0,
    /// Crossed the boundary inwards: received by `dst_service`.
    In = 1,
    /// Crossed the boundary outwards: sent by `src_service`.
    Out = 2,
}

/// Where the bound of a flow's span came from: its bytes cannot be older than the exporter's last report of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum SpanBound {
    /// The flow spans what its exporter said.
    #[default]
    None = 0,
    /// The configured active timeout.
    Configured = 1,
    /// The active timeout that the exporter announced in options data.
    Options = 2,
    /// The active timeout that the exporter's own records show.
    Learned = 3,
}

/// `direction` of a flow whose exporter did not say where it was observed.
pub const DIRECTION_UNKNOWN: u8 = 255;

/// `forwarding_status` of packets that the exporter dropped without telling why (RFC 7270 §4.12).
pub const FORWARDING_DROPPED: u8 = 128;

/// One flow in memory; fields are those of [`FLOWS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    pub received_at_ms: i64,
    pub start_at_ms: i64,
    pub end_at_ms: i64,
    pub exporter: Address,
    pub observation_domain: u32,
    pub protocol_version: u8,
    pub sampling_rate: u32,
    pub in_if: u32,
    pub out_if: u32,
    pub in_boundary: Boundary,
    pub out_boundary: Boundary,
    pub direction: u8,
    pub metered: Metered,
    pub src_addr: Address,
    pub dst_addr: Address,
    pub src_port: u16,
    pub dst_port: u16,
    pub ip_protocol: u8,
    pub tcp_flags: u8,
    pub tos: u8,
    pub icmp_type_code: u16,
    pub in_vlan: u16,
    pub out_vlan: u16,
    pub next_hop: Address,
    pub src_as: u32,
    pub dst_as: u32,
    pub src_mask: u8,
    pub dst_mask: u8,
    pub forwarding_status: u8,
    pub bytes: u64,
    pub packets: u64,
    pub src_service: u32,
    pub dst_service: u32,
    pub sampling_divisor: u32,
    /// 0 where the exporter's start is `start_at_ms`; [`Flow::reported_start`] answers it always.
    pub reported_start_at_ms: i64,
    pub span_bound: SpanBound,
    pub exporter_port: u16,
    /// [`marks`].
    pub marks: u16,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow::USUAL
    }
}

impl Flow {
    /// Of which nothing is known: what [`Flow::default`] gives.
    const USUAL: Flow = Flow {
        received_at_ms: 0,
        start_at_ms: 0,
        end_at_ms: 0,
        exporter: Address::UNSPECIFIED,
        observation_domain: 0,
        protocol_version: 0,
        sampling_rate: 0,
        in_if: 0,
        out_if: 0,
        in_boundary: Boundary::Unknown,
        out_boundary: Boundary::Unknown,
        direction: DIRECTION_UNKNOWN,
        metered: Metered::No,
        src_addr: Address::UNSPECIFIED,
        dst_addr: Address::UNSPECIFIED,
        src_port: 0,
        dst_port: 0,
        ip_protocol: 0,
        tcp_flags: 0,
        tos: 0,
        icmp_type_code: 0,
        in_vlan: 0,
        out_vlan: 0,
        next_hop: Address::UNSPECIFIED,
        src_as: 0,
        dst_as: 0,
        src_mask: 0,
        dst_mask: 0,
        forwarding_status: 0,
        bytes: 0,
        packets: 0,
        src_service: 0,
        dst_service: 0,
        sampling_divisor: 1,
        reported_start_at_ms: 0,
        span_bound: SpanBound::None,
        exporter_port: 0,
        marks: 0,
    };

    /// Volume after sampling, rounded down; 0 while the rate is not known.
    #[inline]
    pub fn bytes_scaled(&self) -> u64 {
        scaled(self.bytes, self.sampling_rate, self.sampling_divisor)
    }

    /// Packets after sampling, rounded down; 0 while the rate is not known.
    #[inline]
    pub fn packets_scaled(&self) -> u64 {
        scaled(self.packets, self.sampling_rate, self.sampling_divisor)
    }

    /// One packet in so many was sampled.
    pub fn sampling(&self) -> SamplingRate {
        SamplingRate::of(self.sampling_rate.into(), self.sampling_divisor.max(1).into())
    }

    /// When the exporter said that the flow began (UTC ms), whatever bounded its span.
    #[inline]
    pub fn reported_start(&self) -> i64 {
        match self.reported_start_at_ms {
            0 => self.start_at_ms,
            at_ms => at_ms,
        }
    }

    /// Whether all bits of `marks` are set.
    pub fn is_marked(&self, marks: u16) -> bool {
        self.marks & marks == marks
    }

    /// The exporter says that it dropped these packets.
    #[inline]
    pub fn was_discarded(&self) -> bool {
        was_discarded(self.forwarding_status)
    }
}

/// Whether a forwarding status says dropped: its upper two bits are 10 (RFC 7270 §4.12).
#[inline]
pub fn was_discarded(forwarding_status: u8) -> bool {
    forwarding_status >> 6 == FORWARDING_DROPPED >> 6
}

/// Builds a batch of [`FLOWS`] from rows, in their order.
pub fn flows_to_batch(rows: &[Flow]) -> RecordBatch {
    rows.iter().copied().collect::<FlowColumns>().into_batch()
}

/// Reads the rows of a batch of [`FLOWS`]: what [`flows_to_batch`] made of them, in this version or an earlier one.
///
/// # Errors
/// When a column is missing that no version lacked, or one is of another type, or a code is not one of its column's.
pub fn batch_to_flows(batch: &RecordBatch) -> Result<Vec<Flow>, ArrowError> {
    let batch = &FLOWS.complete(batch)?;
    let instant = |name| Ok::<_, ArrowError>(typed::<TimestampMillisecondArray>(batch, name)?.values());
    let u8s = |name| Ok::<_, ArrowError>(typed::<UInt8Array>(batch, name)?.values());
    let u16s = |name| Ok::<_, ArrowError>(typed::<UInt16Array>(batch, name)?.values());
    let u32s = |name| Ok::<_, ArrowError>(typed::<UInt32Array>(batch, name)?.values());
    let u64s = |name| Ok::<_, ArrowError>(typed::<UInt64Array>(batch, name)?.values());
    let (received_at, start_at, end_at) = (instant("received_at")?, instant("start_at")?, instant("end_at")?);
    let exporter = typed::<FixedSizeBinaryArray>(batch, "exporter")?;
    let observation_domain = u32s("observation_domain")?;
    let protocol_version = u8s("protocol_version")?;
    let sampling_rate = u32s("sampling_rate")?;
    let (in_if, out_if) = (u32s("in_if")?, u32s("out_if")?);
    let (in_boundary, out_boundary) = (u8s("in_boundary")?, u8s("out_boundary")?);
    let (direction, metered) = (u8s("direction")?, u8s("metered")?);
    let src_addr = typed::<FixedSizeBinaryArray>(batch, "src_addr")?;
    let dst_addr = typed::<FixedSizeBinaryArray>(batch, "dst_addr")?;
    let (src_port, dst_port) = (u16s("src_port")?, u16s("dst_port")?);
    let (ip_protocol, tcp_flags, tos) = (u8s("ip_protocol")?, u8s("tcp_flags")?, u8s("tos")?);
    let icmp_type_code = u16s("icmp_type_code")?;
    let (in_vlan, out_vlan) = (u16s("in_vlan")?, u16s("out_vlan")?);
    let next_hop = typed::<FixedSizeBinaryArray>(batch, "next_hop")?;
    let (src_as, dst_as) = (u32s("src_as")?, u32s("dst_as")?);
    let (src_mask, dst_mask) = (u8s("src_mask")?, u8s("dst_mask")?);
    let forwarding_status = u8s("forwarding_status")?;
    let (bytes, packets) = (u64s("bytes")?, u64s("packets")?);
    let (src_service, dst_service) = (u32s("src_service")?, u32s("dst_service")?);
    let (sampling_divisor, reported_start_at) = (u32s("sampling_divisor")?, instant("reported_start_at")?);
    let span_bound = u8s("span_bound")?;
    let (exporter_port, marks) = (u16s("exporter_port")?, u16s("marks")?);

    let mut flows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        flows.push(Flow {
            received_at_ms: received_at[row],
            start_at_ms: start_at[row],
            end_at_ms: end_at[row],
            exporter: address_at(exporter, row)?,
            observation_domain: observation_domain[row],
            protocol_version: protocol_version[row],
            sampling_rate: sampling_rate[row],
            in_if: in_if[row],
            out_if: out_if[row],
            in_boundary: Boundary::from_code(in_boundary[row])?,
            out_boundary: Boundary::from_code(out_boundary[row])?,
            direction: direction[row],
            metered: Metered::from_code(metered[row])?,
            src_addr: address_at(src_addr, row)?,
            dst_addr: address_at(dst_addr, row)?,
            src_port: src_port[row],
            dst_port: dst_port[row],
            ip_protocol: ip_protocol[row],
            tcp_flags: tcp_flags[row],
            tos: tos[row],
            icmp_type_code: icmp_type_code[row],
            in_vlan: in_vlan[row],
            out_vlan: out_vlan[row],
            next_hop: address_at(next_hop, row)?,
            src_as: src_as[row],
            dst_as: dst_as[row],
            src_mask: src_mask[row],
            dst_mask: dst_mask[row],
            forwarding_status: forwarding_status[row],
            bytes: bytes[row],
            packets: packets[row],
            src_service: src_service[row],
            dst_service: dst_service[row],
            sampling_divisor: sampling_divisor[row],
            reported_start_at_ms: reported_start_at[row],
            span_bound: SpanBound::from_code(span_bound[row])?,
            exporter_port: exporter_port[row],
            marks: marks[row],
        });
    }
    Ok(flows)
}

fn typed<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, ArrowError> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or_else(|| ArrowError::SchemaError(format!("column {name} is missing or of another type")))
}

fn address_at(column: &FixedSizeBinaryArray, row: usize) -> Result<Address, ArrowError> {
    Address::from_slice(column.value(row))
        .ok_or_else(|| ArrowError::SchemaError(format!("an address has 16 bytes, not {}", column.value_length())))
}

impl Boundary {
    fn from_code(code: u8) -> Result<Boundary, ArrowError> {
        match code {
            0 => Ok(Boundary::Unknown),
            1 => Ok(Boundary::External),
            2 => Ok(Boundary::Internal),
            _ => Err(ArrowError::CastError(format!("{code} is not a boundary"))),
        }
    }
}

impl Metered {
    fn from_code(code: u8) -> Result<Metered, ArrowError> {
        match code {
            0 => Ok(Metered::No),
            1 => Ok(Metered::In),
            2 => Ok(Metered::Out),
            _ => Err(ArrowError::CastError(format!("{code} is not a way of metering"))),
        }
    }
}

impl SpanBound {
    fn from_code(code: u8) -> Result<SpanBound, ArrowError> {
        match code {
            0 => Ok(SpanBound::None),
            1 => Ok(SpanBound::Configured),
            2 => Ok(SpanBound::Options),
            3 => Ok(SpanBound::Learned),
            _ => Err(ArrowError::CastError(format!("{code} is not a bound of a span"))),
        }
    }
}

/// A column of addresses as Arrow `FixedSizeBinary(16)`.
pub fn address_array(addresses: impl ExactSizeIterator<Item = Address>) -> ArrayRef {
    let mut bytes: Vec<u8> = Vec::with_capacity(addresses.len() * 16);
    for address in addresses {
        bytes.extend_from_slice(&address.0);
    }
    address_bytes_array(bytes)
}

fn address_bytes_array(bytes: Vec<u8>) -> ArrayRef {
    if bytes.is_empty() {
        return Arc::new(FixedSizeBinaryBuilder::new(16).finish());
    }
    Arc::new(FixedSizeBinaryArray::new(16, Buffer::from_vec(bytes), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_the_columns_of_the_definition() {
        let flow = Flow {
            src_addr: "192.0.2.1".parse().unwrap(),
            bytes: 1500,
            packets: 1,
            ..Flow::default()
        };
        let batch = flows_to_batch(&[flow]);
        assert_eq!(batch.schema(), FLOWS.arrow_schema());
        assert_eq!(batch.num_rows(), 1);
        assert_eq!(flows_to_batch(&[]).num_rows(), 0);
    }

    #[test]
    fn rows_survive_the_round_trip() {
        let flow = Flow {
            received_at_ms: 1,
            start_at_ms: 2,
            end_at_ms: 3,
            exporter: "192.0.2.9".parse().unwrap(),
            observation_domain: 4,
            protocol_version: 9,
            sampling_rate: 5,
            in_if: 6,
            out_if: 7,
            in_boundary: Boundary::External,
            out_boundary: Boundary::Internal,
            direction: 1,
            metered: Metered::In,
            src_addr: "192.0.2.1".parse().unwrap(),
            dst_addr: "2001:db8::1".parse().unwrap(),
            src_port: 8,
            dst_port: 9,
            ip_protocol: 10,
            tcp_flags: 11,
            tos: 12,
            icmp_type_code: 13,
            in_vlan: 14,
            out_vlan: 15,
            next_hop: "192.0.2.2".parse().unwrap(),
            src_as: 15,
            dst_as: 16,
            src_mask: 17,
            dst_mask: 18,
            forwarding_status: 19,
            bytes: u64::MAX,
            packets: 20,
            src_service: 21,
            dst_service: 22,
            sampling_divisor: 23,
            reported_start_at_ms: 1,
            span_bound: SpanBound::Learned,
            exporter_port: 24,
            marks: marks::ANSWER | marks::OF_TOTALS,
        };
        assert!(flow.is_marked(marks::ANSWER) && !flow.is_marked(marks::ANSWER | marks::NO_ROUTE));
        let rows = [flow, Flow::default()];
        let batch = flows_to_batch(&rows);
        assert_eq!(batch_to_flows(&batch).unwrap(), rows);
        let without_bytes = batch.project(&[0, 1, 2]).unwrap();
        assert!(batch_to_flows(&without_bytes).is_err());
    }

    #[test]
    fn an_unknown_rate_has_no_volume() {
        assert_eq!(
            Flow {
                bytes: 1500,
                sampling_rate: 0,
                ..Flow::default()
            }
            .bytes_scaled(),
            0
        );
        assert_eq!(
            Flow {
                bytes: 1500,
                sampling_rate: 1000,
                ..Flow::default()
            }
            .bytes_scaled(),
            1_500_000
        );
    }
}
