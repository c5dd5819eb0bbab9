//! The flow record: the row that every exporter's report becomes.
//!
//! [`FLOWS`] defines the stored table; [`Flow`] is one row in memory; [`FlowColumns`] gathers rows into Arrow batches.
//! `bytes` and `packets` are as exported (unscaled) and mean layer 3; multiply by `sampling_rate` for the volume.

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::buffer::Buffer;
use std::sync::Arc;

use crate::address::Address;
use crate::column::{Column, ColumnType, Layout, TableDef};

/// `protocol_version` of a flow that came by sFlow version 5 (NetFlow keeps its own numbers 5, 7, 9 and 10 = IPFIX).
pub const PROTOCOL_SFLOW5: u8 = 105;

const fn column(
    name: &'static str,
    kind: ColumnType,
    unit: &'static str,
    layout: Layout,
    statistics: bool,
    doc: &'static str,
) -> Column {
    Column {
        name,
        kind,
        unit,
        layout,
        statistics,
        doc,
    }
}

/// The table of flows.
pub const FLOWS: TableDef = TableDef {
    name: "flows",
    doc: "One row per flow record (or sampled packet) that an exporter reported. `bytes` and `packets` are unscaled, layer 3.",
    time_column: "received_at",
    sort: &["dst_service", "src_service", "received_at"],
    columns: &[
        column(
            "received_at",
            ColumnType::Instant,
            "UTC ms",
            Layout::Delta,
            true,
            "when the datagram arrived",
        ),
        column(
            "start_at",
            ColumnType::Instant,
            "UTC ms",
            Layout::Delta,
            true,
            "first packet of the flow, normalised",
        ),
        column(
            "end_at",
            ColumnType::Instant,
            "UTC ms",
            Layout::Delta,
            true,
            "last packet of the flow, normalised",
        ),
        column(
            "exporter",
            ColumnType::Address,
            "",
            Layout::Dictionary,
            true,
            "address the datagram came from (sFlow: agent address)",
        ),
        column(
            "observation_domain",
            ColumnType::U32,
            "",
            Layout::Dictionary,
            true,
            "IPFIX observation domain, v9 source id, v5 engine, sFlow sub-agent",
        ),
        column(
            "protocol_version",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            true,
            "5, 7, 9, 10 = IPFIX, 105 = sFlow version 5",
        ),
        column(
            "sampling_rate",
            ColumnType::U32,
            "packets",
            Layout::Dictionary,
            true,
            "one packet in so many was sampled; 0 = not known, never billed",
        ),
        column(
            "in_if",
            ColumnType::U32,
            "",
            Layout::Dictionary,
            true,
            "SNMP index of the input interface, 0 = not reported",
        ),
        column(
            "out_if",
            ColumnType::U32,
            "",
            Layout::Dictionary,
            true,
            "SNMP index of the output interface, 0 = not reported",
        ),
        column(
            "in_boundary",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            true,
            "input side: 0 unknown, 1 external, 2 internal",
        ),
        column(
            "out_boundary",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            true,
            "output side: 0 unknown, 1 external, 2 internal",
        ),
        column(
            "direction",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            true,
            "observed at 0 ingress, 1 egress, 255 not reported",
        ),
        column(
            "metered",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            true,
            "0 not counted, 1 counted as received by a service, 2 counted as sent",
        ),
        column(
            "src_addr",
            ColumnType::Address,
            "",
            Layout::Plain,
            false,
            "source address",
        ),
        column(
            "dst_addr",
            ColumnType::Address,
            "",
            Layout::Plain,
            false,
            "destination address",
        ),
        column("src_port", ColumnType::U16, "", Layout::Plain, false, "source port"),
        column(
            "dst_port",
            ColumnType::U16,
            "",
            Layout::Plain,
            false,
            "destination port",
        ),
        column(
            "ip_protocol",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            true,
            "IP protocol number",
        ),
        column(
            "tcp_flags",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            false,
            "union of the TCP flags seen",
        ),
        column(
            "tos",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            false,
            "IP type of service or traffic class",
        ),
        column(
            "icmp_type_code",
            ColumnType::U16,
            "",
            Layout::Dictionary,
            false,
            "ICMP type × 256 + code",
        ),
        column(
            "vlan",
            ColumnType::U16,
            "",
            Layout::Dictionary,
            true,
            "outer VLAN id, 0 = none",
        ),
        column(
            "next_hop",
            ColumnType::Address,
            "",
            Layout::Dictionary,
            false,
            "next hop, :: = not reported",
        ),
        column(
            "src_as",
            ColumnType::U32,
            "",
            Layout::Dictionary,
            false,
            "source autonomous system",
        ),
        column(
            "dst_as",
            ColumnType::U32,
            "",
            Layout::Dictionary,
            false,
            "destination autonomous system",
        ),
        column(
            "src_mask",
            ColumnType::U8,
            "bits",
            Layout::Dictionary,
            false,
            "source prefix length",
        ),
        column(
            "dst_mask",
            ColumnType::U8,
            "bits",
            Layout::Dictionary,
            false,
            "destination prefix length",
        ),
        column(
            "forwarding_status",
            ColumnType::U8,
            "",
            Layout::Dictionary,
            false,
            "IE 89 (RFC 7270 §4.12), 0 = not reported",
        ),
        column(
            "bytes",
            ColumnType::U64,
            "bytes",
            Layout::Delta,
            false,
            "layer-3 bytes as exported, unscaled",
        ),
        column(
            "packets",
            ColumnType::U64,
            "packets",
            Layout::Delta,
            false,
            "packets as exported, unscaled",
        ),
        column(
            "src_service",
            ColumnType::U32,
            "",
            Layout::Dictionary,
            true,
            "service of the source, 0 = none",
        ),
        column(
            "dst_service",
            ColumnType::U32,
            "",
            Layout::Dictionary,
            true,
            "service of the destination, 0 = none",
        ),
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

/// `direction` of a flow whose exporter did not say where it was observed.
pub const DIRECTION_UNKNOWN: u8 = 255;

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
    pub vlan: u16,
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
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
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
            vlan: 0,
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
        }
    }
}

impl Flow {
    /// Volume after sampling: `bytes × sampling_rate`; 0 while the rate is not known.
    pub fn bytes_scaled(&self) -> u64 {
        self.bytes.saturating_mul(u64::from(self.sampling_rate))
    }
}

/// Rows gathered column by column, ready to become an Arrow batch of [`FLOWS`].
#[derive(Debug, Default)]
pub struct FlowColumns {
    rows: Vec<Flow>,
}

impl FlowColumns {
    /// Room for `rows` rows without growing.
    pub fn with_capacity(rows: usize) -> FlowColumns {
        FlowColumns {
            rows: Vec::with_capacity(rows),
        }
    }

    #[inline]
    pub fn push(&mut self, flow: Flow) {
        self.rows.push(flow);
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn rows(&self) -> &[Flow] {
        &self.rows
    }

    /// For setting the columns that are derived from the others.
    pub fn rows_mut(&mut self) -> &mut [Flow] {
        &mut self.rows
    }

    /// Takes the gathered rows as one batch, in the order they were pushed; nothing is left behind.
    pub fn take_batch(&mut self) -> RecordBatch {
        let batch = flows_to_batch(&self.rows);
        self.rows.clear();
        batch
    }
}

/// Builds a batch of [`FLOWS`] from rows, in their order.
pub fn flows_to_batch(rows: &[Flow]) -> RecordBatch {
    let instant = |value: fn(&Flow) -> i64| -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(value)).with_timezone("UTC"))
    };
    let u8s = |value: fn(&Flow) -> u8| -> ArrayRef { Arc::new(UInt8Array::from_iter_values(rows.iter().map(value))) };
    let u16s =
        |value: fn(&Flow) -> u16| -> ArrayRef { Arc::new(UInt16Array::from_iter_values(rows.iter().map(value))) };
    let u32s =
        |value: fn(&Flow) -> u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values(rows.iter().map(value))) };
    let u64s =
        |value: fn(&Flow) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(rows.iter().map(value))) };
    let address = |value: fn(&Flow) -> Address| -> ArrayRef { address_array(rows.iter().map(value)) };
    let columns = vec![
        instant(|f| f.received_at_ms),
        instant(|f| f.start_at_ms),
        instant(|f| f.end_at_ms),
        address(|f| f.exporter),
        u32s(|f| f.observation_domain),
        u8s(|f| f.protocol_version),
        u32s(|f| f.sampling_rate),
        u32s(|f| f.in_if),
        u32s(|f| f.out_if),
        u8s(|f| f.in_boundary as u8),
        u8s(|f| f.out_boundary as u8),
        u8s(|f| f.direction),
        u8s(|f| f.metered as u8),
        address(|f| f.src_addr),
        address(|f| f.dst_addr),
        u16s(|f| f.src_port),
        u16s(|f| f.dst_port),
        u8s(|f| f.ip_protocol),
        u8s(|f| f.tcp_flags),
        u8s(|f| f.tos),
        u16s(|f| f.icmp_type_code),
        u16s(|f| f.vlan),
        address(|f| f.next_hop),
        u32s(|f| f.src_as),
        u32s(|f| f.dst_as),
        u8s(|f| f.src_mask),
        u8s(|f| f.dst_mask),
        u8s(|f| f.forwarding_status),
        u64s(|f| f.bytes),
        u64s(|f| f.packets),
        u32s(|f| f.src_service),
        u32s(|f| f.dst_service),
    ];
    RecordBatch::try_new(FLOWS.arrow_schema(), columns).expect("columns are built from the schema's own definition")
}

/// A column of addresses as Arrow `FixedSizeBinary(16)`.
pub fn address_array(addresses: impl ExactSizeIterator<Item = Address>) -> ArrayRef {
    let rows = addresses.len();
    let mut bytes: Vec<u8> = Vec::with_capacity(rows * 16);
    for address in addresses {
        bytes.extend_from_slice(&address.0);
    }
    if rows == 0 {
        return Arc::new(FixedSizeBinaryBuilder::new(16).finish());
    }
    Arc::new(arrow::array::FixedSizeBinaryArray::new(
        16,
        Buffer::from_vec(bytes),
        None,
    ))
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
        let mut columns = FlowColumns::default();
        columns.push(flow);
        let batch = columns.take_batch();
        assert_eq!(batch.schema(), FLOWS.arrow_schema());
        assert_eq!(batch.num_rows(), 1);
        assert!(columns.is_empty());
        assert_eq!(flows_to_batch(&[]).num_rows(), 0);
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
