//! The tables' own Parquet encoder under test: columns that an input describes are encoded and read back by the parquet crate.
//!
//! Promises: every value comes back; the same columns give the same bytes, whatever was encoded before; statistics enclose
//! every value, because readers leave out row groups by them.
//!
//! ```text
//! rows of the first row group (2) · of the second (1) · for each column: kind (1) and what it takes
//! ```

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;
use schemas::address::Address;
use tables::column::ColumnValues;
use tables::flow::{Boundary, FLOWS, Flow, FlowColumns, Metered, SpanBound, batch_to_flows};
use tables::table::{Encoder, RowGroup};

/// Several blocks of deltas, and more distinct values than a dictionary has room for.
const ROWS_MAX: usize = 1_200;
const COLUMNS: usize = 38;
const BOUNDARIES: [Boundary; 3] = [Boundary::Unknown, Boundary::External, Boundary::Internal];
const METERED: [Metered; 3] = [Metered::No, Metered::In, Metered::Out];
const BOUNDS: [SpanBound; 4] = [
    SpanBound::None,
    SpanBound::Configured,
    SpanBound::Options,
    SpanBound::Learned,
];

struct Bytes8<'a>(&'a [u8]);

impl Bytes8<'_> {
    fn u8(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    fn u16(&mut self) -> usize {
        usize::from(self.u8()) << 8 | usize::from(self.u8())
    }

    fn u64(&mut self) -> u64 {
        (0..8).fold(0, |value, _| value << 8 | u64::from(self.u8()))
    }
}

fn mixed(row: u64, seed: u64) -> u64 {
    let mut bits = (row ^ seed << 32).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// The values of one column.
fn column(input: &mut Bytes8<'_>, rows: usize) -> Vec<u64> {
    let kind = input.u8() % 7;
    let row_numbers = 0..rows as u64;
    match kind {
        1 => vec![input.u64(); rows],
        // Few distinct values, near the room of a dictionary or far below.
        2 => {
            let (distinct, seed) = (1 + input.u16() as u64 % 300, input.u8().into());
            row_numbers.map(|row| mixed(row % distinct, seed)).collect()
        }
        // Steps, as times make them.
        3 => {
            let (start, step, noise) = (input.u64(), u64::from(input.u8()), u32::from(input.u8() % 64));
            let value = |row: u64| {
                start
                    .wrapping_add(row.wrapping_mul(step))
                    .wrapping_add(mixed(row, 1) & ((1 << noise) - 1))
            };
            row_numbers.map(value).collect()
        }
        // Values of the input's own, over and over.
        4 => {
            let count = 1 + usize::from(input.u8() % 16);
            let own: Vec<u64> = (0..count).map(|_| input.u64()).collect();
            (0..rows).map(|row| own[row % count]).collect()
        }
        // Any values of so many bits.
        5 => {
            let (bits, seed) = (u32::from(input.u8() % 65), input.u8().into());
            let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
            row_numbers.map(|row| mixed(row, seed) & mask).collect()
        }
        // All alike but one.
        6 => {
            let (at, value, other) = (input.u16(), input.u64(), input.u64());
            (0..rows).map(|row| if row == at { other } else { value }).collect()
        }
        _ => vec![0; rows],
    }
}

fn address(value: u64) -> Address {
    if value & 1 == 0 {
        Address::from_v4(((value >> 1) as u32).to_be_bytes())
    } else {
        Address((u128::from(value) << 64 | u128::from(value.rotate_left(32))).to_be_bytes())
    }
}

fn flows(input: &mut Bytes8<'_>, rows: usize) -> FlowColumns {
    let columns: Vec<Vec<u64>> = (0..COLUMNS).map(|_| column(input, rows)).collect();
    let flow = |row: usize| {
        let value = |index: usize| columns[index][row];
        Flow {
            received_at_ms: value(0) as i64,
            start_at_ms: value(1) as i64,
            end_at_ms: value(2) as i64,
            exporter: address(value(3)),
            observation_domain: value(4) as u32,
            protocol_version: value(5) as u8,
            sampling_rate: value(6) as u32,
            in_if: value(7) as u32,
            out_if: value(8) as u32,
            in_boundary: BOUNDARIES[(value(9) % 3) as usize],
            out_boundary: BOUNDARIES[(value(10) % 3) as usize],
            direction: value(11) as u8,
            metered: METERED[(value(12) % 3) as usize],
            src_addr: address(value(13)),
            dst_addr: address(value(14)),
            src_port: value(15) as u16,
            dst_port: value(16) as u16,
            ip_protocol: value(17) as u8,
            tcp_flags: value(18) as u8,
            tos: value(19) as u8,
            icmp_type_code: value(20) as u16,
            in_vlan: value(21) as u16,
            out_vlan: value(22) as u16,
            next_hop: address(value(23)),
            src_as: value(24) as u32,
            dst_as: value(25) as u32,
            src_mask: value(26) as u8,
            dst_mask: value(27) as u8,
            forwarding_status: value(28) as u8,
            bytes: value(29),
            packets: value(30),
            src_service: value(31) as u32,
            dst_service: value(32) as u32,
            sampling_divisor: value(33) as u32,
            reported_start_at_ms: value(34) as i64,
            span_bound: BOUNDS[(value(35) % 4) as usize],
            exporter_port: value(36) as u16,
            marks: value(37) as u16,
        }
    };
    (0..rows).map(flow).collect()
}

static SCHEMA: LazyLock<TypePtr> = LazyLock::new(|| {
    let schema = ArrowSchemaConverter::new().convert(&FLOWS.arrow_schema());
    schema.expect("the table has a Parquet schema").root_schema_ptr()
});

fn file(groups: &[RowGroup]) -> Bytes {
    let mut properties = WriterProperties::builder().build();
    add_encoded_arrow_schema_to_metadata(&FLOWS.arrow_schema(), &mut properties);
    let mut writer =
        SerializedFileWriter::new(Vec::new(), SCHEMA.clone(), Arc::new(properties)).expect("a file is begun");
    for group in groups {
        group.append_to(&mut writer).expect("a row group is appended");
    }
    writer.into_inner().expect("a file is ended").into()
}

/// Encodes, reads back and compares.
pub fn run(input: &[u8]) {
    let mut input = Bytes8(input);
    let rows = [1 + input.u16() % ROWS_MAX, usize::from(input.u8())];
    let groups: Vec<FlowColumns> = rows
        .into_iter()
        .filter(|rows| *rows > 0)
        .map(|rows| flows(&mut input, rows))
        .collect();
    let mut encoder = Encoder::new(&FLOWS).expect("an encoder is made");
    let mut encode = |group: &FlowColumns| encoder.encode(&group.values()).expect("flows are encoded");
    let encoded: Vec<RowGroup> = groups.iter().map(&mut encode).collect();
    let bytes = file(&encoded);
    let again: Vec<RowGroup> = groups.iter().map(&mut encode).collect();
    assert_eq!(file(&again), bytes, "the same columns give other bytes");

    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("the file is read");
    for (index, group) in groups.iter().enumerate() {
        check_statistics(reader.metadata().row_group(index), group);
    }
    let batches = reader.with_batch_size(1 << 16).build().expect("the file is read");
    let mut read: Vec<Flow> = Vec::new();
    for batch in batches {
        let batch = batch.expect("a batch is read");
        read.extend(batch_to_flows(&batch).expect("a batch of flows"));
    }
    let written: Vec<Flow> = groups.iter().flat_map(|group| group.rows()).collect();
    assert_eq!(read.len(), written.len(), "rows");
    for (row, (read, written)) in read.iter().zip(&written).enumerate() {
        assert_eq!(read, written, "row {row}");
    }
}

fn check_statistics(metadata: &parquet::file::metadata::RowGroupMetaData, group: &FlowColumns) {
    for (index, (column, values)) in FLOWS.columns.iter().zip(group.values()).enumerate() {
        let Some(statistics) = metadata.column(index).statistics() else {
            continue;
        };
        let (Some(least), Some(most)) = (statistics.min_bytes_opt(), statistics.max_bytes_opt()) else {
            panic!("statistics of {} hold nothing", column.name);
        };
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        let (low, high) = (number(least), number(most));
        let enclosed = match values {
            ColumnValues::I64(values) => values.iter().all(|value| (low as i64..=high as i64).contains(value)),
            ColumnValues::U64(values) => values.iter().all(|value| (low..=high).contains(value)),
            ColumnValues::U32(values) => values.iter().all(|value| (low..=high).contains(&u64::from(*value))),
            ColumnValues::U16(values) => values.iter().all(|value| (low..=high).contains(&u64::from(*value))),
            ColumnValues::U8(values) => values.iter().all(|value| (low..=high).contains(&u64::from(*value))),
            ColumnValues::Address(values) => values.iter().all(|value| (least..=most).contains(&value.as_slice())),
            ColumnValues::Name(_) => true,
        };
        assert!(enclosed, "statistics of {} leave out a value", column.name);
    }
}
