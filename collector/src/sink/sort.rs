//! Several files of a table as one, sorted by the table's sort key.
//!
//! Column by column, so that the rows are never in memory as a whole:
//!
//! ```text
//! sort columns of all inputs ──▶ keys, 40 bytes a row ──sort──▶ order, 4 bytes a row
//! each column: read from all inputs ──▶ take in order ──▶ encoded chunk of each row group
//! chunks of row group 1, 2, … ──▶ file
//! ```
//!
//! Memory for 4 M rows of flows: at most 160 MB of keys, then at most two copies of the widest column (64 MB each) beside
//! the encoded file (100 MB).
//!
//! Rows of equal keys stay in the order of the inputs, so the same inputs give the same bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use tables::column::{ColumnType, TableDef};
use tables::table::{Encoder, FileEntry, FileReader, RowGroup, Table, WriteError, write_row_groups};

use super::StoreError;

/// Rows of a row group of a sorted file: small ones let a query skip what is not its service's, large ones are smaller in
/// sum (docs/decisions/005-storage.md has the measurement).
pub(super) const ROW_GROUP_ROWS: usize = 1 << 17;
const READ_BATCH_ROWS: usize = 1 << 16;
/// Of a key; the rest is the number of the row.
const KEY_BYTES: usize = 36;

/// The sort columns' values so that their bytes compare as they do, then the number of the row.
type Key = [u8; KEY_BYTES + 4];

/// An input and its footer.
struct Input<'a> {
    table: &'a Table,
    entry: &'a FileEntry,
    metadata: ArrowReaderMetadata,
    /// The content, where a file cannot be read in pieces.
    memory: Option<FileReader>,
}

impl<'a> Input<'a> {
    fn open(table: &'a Table, entry: &'a FileEntry) -> Result<Input<'a>, StoreError> {
        let open = || -> Result<_, ParquetError> {
            let file = table
                .read(&entry.path)
                .map_err(|error| ParquetError::External(Box::new(error)))?;
            let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
            let rows = u64::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or_default();
            if rows != entry.rows {
                let text = format!("{rows} rows where the manifest says {}", entry.rows);
                return Err(ParquetError::General(text));
            }
            Ok((metadata, file.in_memory()))
        };
        let (metadata, memory) = open().map_err(|source| read_error(table, entry, source))?;
        Ok(Input {
            table,
            entry,
            metadata,
            memory,
        })
    }

    /// Appends one column of the table, batch by batch; of a file that lacks it what stands for it ([`TableDef::column_of`]).
    fn read(&self, column: usize, batches: &mut Vec<ArrayRef>) -> Result<(), StoreError> {
        let mut read = || -> Result<(), ParquetError> {
            let file = match self.memory.as_ref().and_then(FileReader::in_memory) {
                Some(file) => file,
                None => self
                    .table
                    .read(&self.entry.path)
                    .map_err(|error| ParquetError::External(Box::new(error)))?,
            };
            let def = self.table.def();
            let schema = self.metadata.metadata().file_metadata().schema_descr();
            let mask = ProjectionMask::roots(schema, def.source_of(column, self.metadata.schema()));
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(mask)
                .with_batch_size(READ_BATCH_ROWS)
                .build()?;
            for batch in reader {
                batches.push(def.column_of(&batch?, column)?);
            }
            Ok(())
        };
        read().map_err(|source| read_error(self.table, self.entry, source))
    }
}

fn read_error(table: &Table, entry: &FileEntry, source: ParquetError) -> StoreError {
    StoreError::Read {
        table: table.def().name,
        path: entry.path.clone(),
        source,
    }
}

/// Writes the rows of `inputs` as one sorted file; answers its size in bytes.
pub(super) fn write_sorted(
    table: &Table,
    path: &str,
    inputs: &[&FileEntry],
    row_group_rows: usize,
) -> Result<u64, StoreError> {
    let inputs = inputs
        .iter()
        .map(|entry| Input::open(table, entry))
        .collect::<Result<Vec<_>, _>>()?;
    let order = order(table.def(), &inputs)?;
    let rows_of_groups: Vec<UInt32Array> = order
        .chunks(row_group_rows.max(1))
        .map(|rows| UInt32Array::from(rows.to_vec()))
        .collect();
    drop(order);
    let encode_error = |source| StoreError::Write {
        table: table.def().name,
        source: WriteError::parquet(&table.location(path))(source),
    };
    let mut encoder = Encoder::new(table.def())
        .and_then(Encoder::lasting)
        .map_err(encode_error)?;
    let mut groups = vec![RowGroup::default(); rows_of_groups.len()];
    for (index, field) in table.def().arrow_schema().fields().iter().enumerate() {
        let column = read_column(&inputs, index, field)?;
        for (rows, group) in rows_of_groups.iter().zip(&mut groups) {
            let sorted = take(&column, rows, None).map_err(|error| encode_error(error.into()))?;
            group.push(encoder.encode_array(index, &sorted).map_err(encode_error)?);
        }
    }
    write_row_groups(table, path, groups.into_iter().map(Ok)).map_err(|source| StoreError::Write {
        table: table.def().name,
        source,
    })
}

/// One column of all inputs.
fn read_column(inputs: &[Input<'_>], index: usize, field: &Arc<Field>) -> Result<ArrayRef, StoreError> {
    let mut batches = Vec::new();
    for input in inputs {
        let before = batches.len();
        input.read(index, &mut batches)?;
        if let Some(wrong) = batches[before..]
            .iter()
            .find(|batch| batch.data_type() != field.data_type())
        {
            let text = format!("column {} is {} in the file", field.name(), wrong.data_type());
            return Err(read_error(input.table, input.entry, ParquetError::General(text)));
        }
    }
    let parts: Vec<&dyn Array> = batches.iter().map(AsRef::as_ref).collect();
    if parts.is_empty() {
        return Ok(arrow::array::new_empty_array(field.data_type()));
    }
    let error = |source: arrow::error::ArrowError| match inputs.first() {
        Some(input) => read_error(input.table, input.entry, source.into()),
        None => unreachable!("batches come from inputs"),
    };
    concat(&parts).map_err(error)
}

/// The numbers of the inputs' rows in the order of the sort key.
fn order(def: &TableDef, inputs: &[Input<'_>]) -> Result<Vec<u32>, StoreError> {
    let rows: u64 = inputs.iter().map(|input| input.entry.rows).sum();
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let mut keys: Vec<Key> = vec![[0; KEY_BYTES + 4]; rows];
    let mut at = 0;
    for (column, width) in key_columns(def) {
        let mut row = 0;
        let mut batches = Vec::new();
        for input in inputs {
            input.read(column, &mut batches)?;
            for batch in batches.drain(..) {
                let keys_of_batch = &mut keys[row..row + batch.len()];
                put_keys(&batch, keys_of_batch, at..at + width);
                row += batch.len();
            }
        }
        at += width;
    }
    for (row, key) in keys.iter_mut().enumerate() {
        key[KEY_BYTES..].copy_from_slice(&(row as u32).to_be_bytes());
    }
    keys.sort_unstable_by_key(words);
    Ok(keys
        .iter()
        .map(|key| {
            u32::from_be_bytes([
                key[KEY_BYTES],
                key[KEY_BYTES + 1],
                key[KEY_BYTES + 2],
                key[KEY_BYTES + 3],
            ])
        })
        .collect())
}

/// The sort columns with the width of their values, as many of them as a key has room for.
fn key_columns(def: &TableDef) -> Vec<(usize, usize)> {
    let mut left = KEY_BYTES;
    let mut columns = Vec::new();
    for name in def.sort {
        let Some(index) = def.index_of(name) else { break };
        let width = match def.columns[index].kind {
            ColumnType::U8 => 1,
            ColumnType::U16 => 2,
            ColumnType::U32 => 4,
            ColumnType::U64 | ColumnType::Instant => 8,
            ColumnType::Address => 16,
            ColumnType::Name => break,
        };
        if width > left {
            break;
        }
        left -= width;
        columns.push((index, width));
    }
    columns
}

/// A key as numbers that compare as its bytes do.
fn words(key: &Key) -> [u64; 5] {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&key[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    [word(0), word(8), word(16), word(24), word(32)]
}

/// Puts the values of a column at `place` into the keys; a column of another type than its definition leaves them equal,
/// and is refused when the column itself is read.
fn put_keys(column: &ArrayRef, keys: &mut [Key], place: std::ops::Range<usize>) {
    macro_rules! numbers {
        ($type:ty, $bytes:expr) => {
            for (key, value) in keys.iter_mut().zip(column.as_primitive::<$type>().values()) {
                key[place.clone()].copy_from_slice(&$bytes(*value));
            }
        };
    }
    match column.data_type() {
        DataType::UInt8 => numbers!(UInt8Type, u8::to_be_bytes),
        DataType::UInt16 => numbers!(UInt16Type, u16::to_be_bytes),
        DataType::UInt32 => numbers!(UInt32Type, u32::to_be_bytes),
        DataType::UInt64 => numbers!(UInt64Type, u64::to_be_bytes),
        // With the sign turned, negative times come first.
        DataType::Timestamp(..) => numbers!(TimestampMillisecondType, |value: i64| (value ^ i64::MIN).to_be_bytes()),
        DataType::FixedSizeBinary(_) => {
            let values = column.as_fixed_size_binary();
            for (row, key) in keys.iter_mut().enumerate() {
                key[place.clone()].copy_from_slice(values.value(row));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::address::Address;
    use tables::definitions::TABLES;
    use tables::flow::older::{FLOWS_7BEF553, as_of_7bef553};
    use tables::flow::{FLOWS, Flow, batch_to_flows, flows_to_batch, marks};
    use tables::table::FileEncoding;
    use tables::table::write_parquet;

    #[test]
    fn every_tables_sort_key_fits() {
        for table in TABLES {
            assert_eq!(key_columns(table).len(), table.sort.len(), "{}", table.name);
        }
    }

    fn write(table: &Table, path: &str, flows: &[Flow]) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            rows: flows.len() as u64,
            size_bytes: write_parquet(table, path, [flows_to_batch(flows)]).unwrap(),
            min_time_ms: 0,
            max_time_ms: 0,
            sequence: 0,
            encoding: FileEncoding::Open,
        }
    }

    fn read(table: &Table, path: &str) -> Vec<Flow> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(table.read(path).unwrap()).unwrap();
        let batches = reader.build().unwrap();
        batches
            .flat_map(|batch| batch_to_flows(&batch.unwrap()).unwrap())
            .collect()
    }

    fn flow() -> impl Strategy<Value = Flow> {
        (0u32..4, 0u32..4, -3i64..4, any::<u64>(), any::<u128>(), any::<u16>()).prop_map(
            |(dst_service, src_service, received_at_ms, bytes, address, src_port)| Flow {
                dst_service,
                src_service,
                received_at_ms,
                bytes,
                src_addr: Address::from_slice(&address.to_be_bytes()).unwrap(),
                src_port,
                ..Flow::default()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// As the standard library sorts, every field of every row with it, and the same bytes each time.
        #[test]
        fn f1_rows_are_sorted_whole_and_once(files in prop::collection::vec(prop::collection::vec(flow(), 0..40), 1..5)) {
            let dir = tempfile::tempdir().unwrap();
            let table = Table::open(dir.path(), &FLOWS).unwrap();
            let entries: Vec<FileEntry> = files
                .iter()
                .enumerate()
                .map(|(index, flows)| write(&table, &format!("d/{index}.parquet"), flows))
                .collect();
            let inputs: Vec<&FileEntry> = entries.iter().collect();
            let size = write_sorted(&table, "d/sorted.parquet", &inputs, ROW_GROUP_ROWS).unwrap();
            let mut expected = files.concat();
            expected.sort_by_key(|flow| (flow.dst_service, flow.src_service, flow.received_at_ms));
            prop_assert_eq!(read(&table, "d/sorted.parquet"), expected);
            prop_assert_eq!(write_sorted(&table, "d/again.parquet", &inputs, ROW_GROUP_ROWS).unwrap(), size);
            let bytes = |path: &str| std::fs::read(table.dir().join(path)).unwrap();
            prop_assert_eq!(bytes("d/sorted.parquet"), bytes("d/again.parquet"));
        }
    }

    #[test]
    fn files_of_an_earlier_version_are_sorted_in_among_those_of_today() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        let flow = |dst_service, in_vlan, out_vlan, marks| Flow {
            dst_service,
            in_vlan,
            out_vlan,
            marks,
            bytes: u64::from(dst_service),
            ..Flow::default()
        };
        let (old, new) = (flow(3, 7, 7, 0), flow(2, 8, 9, marks::ANSWER));
        let older = Table::open(dir.path(), &FLOWS_7BEF553).unwrap();
        let batch = as_of_7bef553(&flows_to_batch(&[old])).unwrap();
        let first = FileEntry {
            path: "d/0.parquet".to_owned(),
            rows: 1,
            size_bytes: write_parquet(&older, "d/0.parquet", [batch]).unwrap(),
            min_time_ms: 0,
            max_time_ms: 0,
            sequence: 0,
            encoding: FileEncoding::Open,
        };
        let second = write(&table, "d/1.parquet", &[new]);
        write_sorted(&table, "d/sorted.parquet", &[&first, &second], ROW_GROUP_ROWS).unwrap();
        assert_eq!(read(&table, "d/sorted.parquet"), [new, old]);
        write_sorted(&table, "d/alone.parquet", &[&first], ROW_GROUP_ROWS).unwrap();
        assert_eq!(read(&table, "d/alone.parquet"), [old]);
    }

    #[test]
    fn row_groups_hold_ranges_of_services() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        let flows = |rest: u32| -> Vec<Flow> {
            let one = |number: u32| Flow {
                dst_service: number * 2 + rest,
                ..Flow::default()
            };
            (0..ROW_GROUP_ROWS as u32).map(one).collect()
        };
        let entries = [
            write(&table, "d/0.parquet", &flows(0)),
            write(&table, "d/1.parquet", &flows(1)),
        ];
        write_sorted(
            &table,
            "d/sorted.parquet",
            &entries.iter().collect::<Vec<_>>(),
            ROW_GROUP_ROWS,
        )
        .unwrap();
        let file = table.read("d/sorted.parquet").unwrap();
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).unwrap();
        let column = FLOWS.index_of("dst_service").unwrap();
        let bounds: Vec<_> = metadata
            .metadata()
            .row_groups()
            .iter()
            .map(|group| {
                let statistics = group.column(column).statistics().unwrap();
                let number = |bytes: Option<&[u8]>| u32::from_le_bytes(bytes.unwrap().try_into().unwrap()) as usize;
                (number(statistics.min_bytes_opt()), number(statistics.max_bytes_opt()))
            })
            .collect();
        assert_eq!(
            bounds,
            [(0, ROW_GROUP_ROWS - 1), (ROW_GROUP_ROWS, 2 * ROW_GROUP_ROWS - 1)]
        );
    }

    #[test]
    fn a_file_with_other_rows_than_its_commit_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        let mut entry = write(&table, "d/0.parquet", &[Flow::default(); 3]);
        entry.rows = 4;
        let error = write_sorted(&table, "d/sorted.parquet", &[&entry], ROW_GROUP_ROWS).unwrap_err();
        assert!(matches!(error, StoreError::Read { .. }));
        assert!(!table.dir().join("d/sorted.parquet").exists());
    }
}
