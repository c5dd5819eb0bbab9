//! Every form is read back by the parquet crate to the values that were written.

use arrow::array::AsArray;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::bloom_filter::Sbbf;
use proptest::prelude::*;

use super::*;
use crate::definitions::COLLECTION_5M;
use crate::flow::{FLOWS, Flow, FlowColumns, batch_to_flows};

fn read(file: Vec<u8>, table: &TableDef) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
    assert_eq!(*reader.schema(), table.arrow_schema());
    reader
        .with_batch_size(1 << 20)
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn flows_back(groups: &[FlowColumns]) -> Vec<Flow> {
    let mut encoder = Encoder::new(&FLOWS).unwrap();
    let encoded: Vec<RowGroup> = groups
        .iter()
        .map(|group| encoder.encode(&group.values()).unwrap())
        .collect();
    let file = file_of(&FLOWS, &encoded).unwrap();
    read(file, &FLOWS)
        .iter()
        .flat_map(|batch| batch_to_flows(batch).unwrap())
        .collect()
}

/// Values whose columns have one, few or many distinct values.
fn flow(row: u64, seed: u64) -> Flow {
    let mix = |salt: u64| (row ^ seed.rotate_left(salt as u32)).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt);
    Flow {
        received_at_ms: 1_767_225_600_000 + (row / 7) as i64,
        start_at_ms: mix(1) as i64,
        end_at_ms: 1_767_225_600_000 - (mix(2) >> 50) as i64,
        sampling_rate: 1000,
        in_if: (mix(3) % 5) as u32,
        out_if: (mix(4) % 300) as u32,
        src_addr: schemas::address::Address::from_v4((mix(5) as u32).to_be_bytes()),
        dst_addr: schemas::address::Address(u128::from(mix(6)).to_be_bytes()),
        src_port: mix(7) as u16,
        ip_protocol: mix(8) as u8,
        bytes: mix(9),
        packets: mix(10) >> 54,
        dst_service: mix(11) as u32,
        ..Flow::default()
    }
}

#[test]
fn flows_survive_in_several_row_groups() {
    for rows in [1, 7, 8, 9, 255, 256, 257, 1_000, 70_000] {
        let group: FlowColumns = (0..rows).map(|row| flow(row, 1)).collect();
        let second: FlowColumns = (0..3).map(|row| flow(row, 2)).collect();
        let read = flows_back(&[group.clone(), second.clone()]);
        let written: Vec<Flow> = group.iter().chain(second.iter()).collect();
        assert!(read == written, "{rows} rows");
    }
}

#[test]
fn dictionaries_are_taken_while_values_return() {
    const ROWS: u64 = 131_072;
    let column = FLOWS.index_of("packets").unwrap();
    let is_dictionary = |rows: u64, encoder: &mut Encoder, packets: &dyn Fn(u64) -> u64| {
        let flow = |row| Flow {
            packets: packets(row) << 40,
            ..Flow::default()
        };
        let group: FlowColumns = (0..rows).map(flow).collect();
        let encoded = encoder.encode(&group.values()).unwrap();
        let file = Bytes::from(file_of(&FLOWS, &[encoded]).unwrap());
        let back: Vec<Flow> = read(file.to_vec(), &FLOWS)
            .iter()
            .flat_map(|batch| batch_to_flows(batch).unwrap())
            .collect();
        assert!(back == group.rows(), "{rows} rows");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let mut encodings = reader.metadata().row_group(0).column(column).encodings();
        encodings.any(|encoding| encoding == parquet::basic::Encoding::RLE_DICTIONARY)
    };
    for mut encoder in [
        Encoder::new(&FLOWS).unwrap(),
        Encoder::new(&FLOWS).unwrap().lasting().unwrap(),
    ] {
        // So many values in turn: of a small row group less is granted.
        for (rows, distinct, expected) in [
            (ROWS, 256, true),
            (ROWS, 257, true),
            (ROWS, 1_170, true),
            (ROWS, 1_171, false),
            (1_000, 256, true),
            (1_000, 257, false),
        ] {
            let found = is_dictionary(rows, &mut encoder, &|row| row % distinct);
            assert_eq!(found, expected, "{distinct} values in {rows} rows");
        }
        // So many rows of each value, as sorted files have them.
        for (each, expected) in [(8, true), (7, false), (4, false)] {
            let found = is_dictionary(ROWS, &mut encoder, &|row| row / each);
            assert_eq!(found, expected, "{each} rows of each value");
        }
    }
}

#[test]
fn the_same_columns_give_the_same_bytes() {
    let group: FlowColumns = (0..5_000).map(|row| flow(row, 3)).collect();
    let file = || {
        let mut encoder = Encoder::new(&FLOWS).unwrap();
        // What was encoded before leaves no trace.
        encoder.encode(&group.values()).unwrap();
        let second = encoder.encode(&group.values()).unwrap();
        file_of(&FLOWS, &[second]).unwrap()
    };
    let first = Encoder::new(&FLOWS).unwrap().encode(&group.values()).unwrap();
    assert_eq!(file_of(&FLOWS, &[first]).unwrap(), file());
}

#[test]
fn statistics_hold_the_smallest_and_the_largest() {
    let group: FlowColumns = (0..1_000).map(|row| flow(row, 4)).collect();
    let encoded = Encoder::new(&FLOWS).unwrap().encode(&group.values()).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file_of(&FLOWS, &[encoded]).unwrap())).unwrap();
    let row_group = reader.metadata().row_group(0);
    let of = |name: &str| row_group.column(FLOWS.index_of(name).unwrap()).statistics();
    let services = group.dst_service.iter().copied();
    let (least, most) = (services.clone().min().unwrap(), services.max().unwrap());
    assert_eq!(of("dst_service").unwrap().min_bytes_opt().unwrap(), least.to_le_bytes());
    assert_eq!(of("dst_service").unwrap().max_bytes_opt().unwrap(), most.to_le_bytes());
    assert!(of("src_port").is_none(), "nobody prunes by it");
}

#[test]
fn address_filters_know_every_address_and_few_others() {
    let flow = |last: u32| Flow {
        src_addr: schemas::address::Address::from_v4(last.to_be_bytes()),
        ..Flow::default()
    };
    let group: FlowColumns = (0..20_000).map(|row| flow(row / 2)).collect();
    let plain = Encoder::new(&FLOWS).unwrap().encode(&group.values()).unwrap();
    let mut encoder = Encoder::new(&FLOWS).unwrap().lasting().unwrap();
    let filtered = encoder.encode(&group.values()).unwrap();
    let file = Bytes::from(file_of(&FLOWS, &[plain, filtered]).unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
    let column = |group: usize, name: &str| reader.metadata().row_group(group).column(FLOWS.index_of(name).unwrap());
    let filter = |group, name| Sbbf::read_from_column_chunk(column(group, name), &file).unwrap();
    assert!(filter(0, "src_addr").is_none());
    assert!(filter(1, "next_hop").is_none(), "nobody asks for it");
    let sources = filter(1, "src_addr").unwrap();
    let holds = |last: u32| sources.check(flow(last).src_addr.0.as_slice());
    assert!((0..10_000).all(holds));
    let wrong = (10_000..20_000).filter(|last| holds(*last)).count();
    assert!(wrong < 200, "{wrong} of 10,000 others");
    assert!(
        sources.num_blocks() * 32 <= 32 << 10,
        "{} blocks for 10,000",
        sources.num_blocks()
    );
    assert_eq!(filter(1, "dst_addr").unwrap().num_blocks(), 1, "one address");
}

#[test]
fn names_survive_few_or_many() {
    for distinct in [1, 3, 256, 257, 1_000] {
        let names: Vec<String> = (0..2_000).map(|row| format!("counter {}", row % distinct)).collect();
        let values = |name: &str| match name {
            "counter" => ColumnValues::Name(names.iter().map(String::as_str).collect()),
            "window_start" => ColumnValues::I64(&[300_000; 2_000]),
            "exporter" => ColumnValues::Address(&[[7; 16]; 2_000]),
            "observation_domain" => ColumnValues::U32(&[1; 2_000]),
            "protocol_version" => ColumnValues::U8(&[9; 2_000]),
            _ => ColumnValues::U64(&[u64::MAX; 2_000]),
        };
        let columns: Vec<ColumnValues<'_>> = COLLECTION_5M.columns.iter().map(|column| values(column.name)).collect();
        let encoded = Encoder::new(&COLLECTION_5M).unwrap().encode(&columns).unwrap();
        let batches = read(file_of(&COLLECTION_5M, &[encoded]).unwrap(), &COLLECTION_5M);
        let read = batches[0].column_by_name("counter").unwrap().as_string::<i32>();
        assert!(read.iter().flatten().eq(names.iter().map(String::as_str)));
    }
}

#[test]
fn wrong_columns_are_refused() {
    let mut encoder = Encoder::new(&FLOWS).unwrap();
    assert!(encoder.encode(&[ColumnValues::U8(&[1])]).is_err());
    let batch = crate::flow::flows_to_batch(&[Flow::default()]);
    assert!(encoder.encode_batch(&batch.project(&[1, 0]).unwrap()).is_err());
    assert!(Encoder::new(&COLLECTION_5M).unwrap().encode_batch(&batch).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_times_and_numbers_survive(values in proptest::collection::vec((any::<i64>(), any::<u64>(), any::<u32>(), any::<[u8; 16]>()), 1..600)) {
        let group: FlowColumns = values.iter().map(|(time, number, narrow, address)| Flow {
            start_at_ms: *time,
            bytes: *number,
            in_if: *narrow,
            src_addr: schemas::address::Address(*address),
            ..Flow::default()
        }).collect();
        prop_assert_eq!(flows_back(std::slice::from_ref(&group)), group.rows());
    }
}
