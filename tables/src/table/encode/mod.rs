//! Columns to Parquet row groups, made for many rows of few kinds.
//!
//! The general writer of the parquet crate hashes every value and costs two thirds of a collector's time; this one knows
//! that columns are flat, never null and few-typed, and takes for each column of a row group the cheapest form that the
//! values allow (measured in docs/decisions/006-encoding.md):
//!
//! | values | pages |
//! |---|---|
//! | times | DELTA_BINARY_PACKED |
//! | one distinct value | a dictionary of one and a single run |
//! | up to 256 distinct values | a dictionary, and indices of one byte each, which Zstandard packs better than bits |
//! | up to 16,384, each of which returns often | a dictionary, and indices of two bytes |
//! | all others | PLAIN, which Zstandard packs, and every reader reads |
//!
//! Files that are written to stay are compressed more, and also say which addresses a row group holds at all
//! ([`Encoder::lasting`]), so that a question about one host reads little of them.
//!
//! Everything is Parquet that other programs read too (tests/open_files.rs): encodings that are better in size, such as
//! BYTE_STREAM_SPLIT, are not. Ours is read by the parquet crate. The same columns give the same bytes.

mod delta;
mod dictionary;
mod pages;
mod plain;

use std::sync::Arc;

use arrow::array::{
    Array, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array,
};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescPtr;

use crate::column::{Column, ColumnType, ColumnValues, TableDef};
use dictionary::Numbered;
use pages::{Chunk, ChunkBuilder, Compressor, Values};

/// Rows of a row group: enough for dictionaries to pay, few enough to be encoded in the cache of a core.
pub const ROW_GROUP_ROWS: usize = 128 << 10;

const ADDRESS_BYTES: usize = 16;
/// Of a hundred addresses that are not in a row group one looks as if it were: at about 10 bits per distinct address.
const ADDRESS_FILTER_FALSE_POSITIVES: f64 = 0.01;

/// The values of one column of a row group, encoded.
#[derive(Clone, Debug)]
pub struct EncodedColumn {
    bytes: bytes::Bytes,
    close: ColumnCloseResult,
}

/// A row group, encoded: made on any thread, appended to a file in order.
#[derive(Clone, Debug, Default)]
pub struct RowGroup {
    rows: usize,
    columns: Vec<EncodedColumn>,
}

impl RowGroup {
    /// Adds the next column of the table.
    pub fn push(&mut self, column: EncodedColumn) {
        self.rows = column.close.rows_written as usize;
        self.columns.push(column);
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of each column, in the order of the table, headers included.
    pub fn column_bytes(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().map(|column| column.bytes.len())
    }

    /// Appends the row group to a file of the same table.
    ///
    /// # Errors
    /// When the file cannot be written, or columns are missing.
    pub fn append_to<W: std::io::Write + Send>(&self, file: &mut SerializedFileWriter<W>) -> Result<(), ParquetError> {
        let mut group = file.next_row_group()?;
        for EncodedColumn { bytes, close } in &self.columns {
            group.append_column(bytes, close.clone())?;
        }
        group.close()?;
        Ok(())
    }
}

/// Encodes row groups of one table. Keeps its working memory; one per thread.
pub struct Encoder {
    table: &'static TableDef,
    schema: SchemaDescPtr,
    compressor: Compressor,
    scratch: Vec<u8>,
    slots: dictionary::Slots,
    address_filters: bool,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("table", &self.table.name)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// # Errors
    /// When Zstandard has no memory for its tables.
    pub fn new(table: &'static TableDef) -> Result<Encoder, ParquetError> {
        Ok(Encoder {
            table,
            schema: parquet_schema(table)?,
            compressor: Compressor::new()?,
            scratch: Vec::new(),
            slots: dictionary::Slots::default(),
            address_filters: false,
        })
    }

    /// For files that stay, not only until the hour is compacted: more time is taken to make them small, and columns of addresses
    /// that people look up ([`Column::is_looked_up`]) get a Bloom filter. It takes about a byte for each address of a row group,
    /// and pays where rows lie together by what is asked for: in sorted files.
    ///
    /// # Errors
    /// As for [`Encoder::new`].
    pub fn lasting(self) -> Result<Encoder, ParquetError> {
        Ok(Encoder {
            compressor: self.compressor.lasting()?,
            address_filters: true,
            ..self
        })
    }

    /// Encodes one row group from the values of every column, in the table's order.
    ///
    /// # Errors
    /// When columns are missing, of other types than the table's, or of different lengths.
    pub fn encode(&mut self, columns: &[ColumnValues<'_>]) -> Result<RowGroup, ParquetError> {
        let rows = columns.first().map_or(0, ColumnValues::len);
        if columns.len() != self.table.columns.len() || columns.iter().any(|column| column.len() != rows) {
            let table = self.table.name;
            return Err(ParquetError::General(format!(
                "columns of {table} are missing or of different lengths"
            )));
        }
        let mut group = RowGroup::default();
        let mut last: Option<Chunk> = None;
        for (index, values) in columns.iter().enumerate() {
            let (chunk, filter) = match last.filter(|_| self.is_as_before(index, columns)) {
                Some(chunk) => (chunk, None),
                None => self.encode_chunk(index, values)?,
            };
            group.push(self.column_of(index, &chunk, filter)?);
            last = Some(chunk);
        }
        Ok(group)
    }

    /// Whether a column holds what the one before it holds, as the VLANs of both sides do where an exporter says one: its pages are
    /// the same.
    fn is_as_before(&self, index: usize, columns: &[ColumnValues<'_>]) -> bool {
        let Some(before) = index.checked_sub(1) else {
            return false;
        };
        let is_same_value = match (&columns[before], &columns[index]) {
            (ColumnValues::U16(before), ColumnValues::U16(now)) => before == now,
            (ColumnValues::U32(before), ColumnValues::U32(now)) => before == now,
            _ => false,
        };
        is_same_value && self.table.columns[before].statistics == self.table.columns[index].statistics
    }

    /// Encodes one row group from a batch of the table's schema.
    ///
    /// # Errors
    /// When the batch is of another schema.
    pub fn encode_batch(&mut self, batch: &RecordBatch) -> Result<RowGroup, ParquetError> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (column, array) in self.table.columns.iter().zip(batch.columns()) {
            columns.push(values_of(column, array)?);
        }
        self.encode(&columns)
    }

    /// Encodes one column of the table.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_column(&mut self, index: usize, values: &ColumnValues<'_>) -> Result<EncodedColumn, ParquetError> {
        let (chunk, filter) = self.encode_chunk(index, values)?;
        self.column_of(index, &chunk, filter)
    }

    fn column_of(&self, index: usize, chunk: &Chunk, filter: Option<Sbbf>) -> Result<EncodedColumn, ParquetError> {
        let mut close = chunk.close(self.schema.column(index))?;
        close.bloom_filter = filter;
        Ok(EncodedColumn {
            bytes: chunk.bytes.clone(),
            close,
        })
    }

    fn encode_chunk(&mut self, index: usize, values: &ColumnValues<'_>) -> Result<(Chunk, Option<Sbbf>), ParquetError> {
        let column = &self.table.columns[index];
        let rows = values.len();
        let mut chunk = ChunkBuilder::new(rows, &mut self.compressor);
        if column.statistics {
            chunk.statistics(values);
        }
        if let ColumnValues::Address(addresses) = values
            && self.address_filters
            && column.is_looked_up()
        {
            chunk.filter(address_filter(addresses)?);
        }
        let scratch = &mut self.scratch;
        scratch.clear();
        match values {
            ColumnValues::I64(values) => chunk.delta(values, scratch)?,
            ColumnValues::U64(values) => match self.slots.index(values, |v| v, scratch) {
                Some(Numbered { distinct, index_bits }) => {
                    let plain: Vec<u8> = distinct.iter().flat_map(|v| v.to_le_bytes()).collect();
                    chunk.dictionary(&plain, distinct.len(), index_bits, scratch)?;
                }
                None => {
                    plain::u64s(values, scratch);
                    chunk.plain(scratch, Values::Numbers)?;
                }
            },
            ColumnValues::U32(values) => narrow(&mut chunk, &mut self.slots, values, scratch)?,
            ColumnValues::U16(values) => narrow(&mut chunk, &mut self.slots, values, scratch)?,
            ColumnValues::U8(values) => {
                let distinct = dictionary::bytes(values, scratch);
                let plain: Vec<u8> = distinct.iter().flat_map(|v| u32::from(*v).to_le_bytes()).collect();
                chunk.dictionary(&plain, distinct.len(), u8::BITS as u8, scratch)?;
            }
            ColumnValues::Address(values) => match self.slots.index(values, dictionary::fold, scratch) {
                Some(Numbered { distinct, index_bits }) => {
                    chunk.dictionary(distinct.as_flattened(), distinct.len(), index_bits, scratch)?;
                }
                None => chunk.plain(values.as_flattened(), Values::Texts)?,
            },
            ColumnValues::Name(values) => {
                let prefixed = |plain: &mut Vec<u8>, text: &str| {
                    plain.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    plain.extend_from_slice(text.as_bytes());
                };
                let mut plain = Vec::new();
                match dictionary::names(values, scratch) {
                    Some(distinct) => {
                        distinct.iter().for_each(|text| prefixed(&mut plain, text));
                        chunk.dictionary(&plain, distinct.len(), u8::BITS as u8, scratch)?;
                    }
                    None => {
                        values.iter().for_each(|text| prefixed(&mut plain, text));
                        chunk.plain(&plain, Values::Texts)?;
                    }
                }
            }
        }
        chunk.finish()
    }

    /// The same for an array of the column's type.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn encode_array(&mut self, index: usize, array: &dyn Array) -> Result<EncodedColumn, ParquetError> {
        self.encode_column(index, &values_of(&self.table.columns[index], array)?)
    }
}

/// What tells whether an address may be among these: never no when it is.
fn address_filter(addresses: &[[u8; ADDRESS_BYTES]]) -> Result<Sbbf, ParquetError> {
    let mut filter = Sbbf::new_with_ndv_fpp(addresses.len() as u64, ADDRESS_FILTER_FALSE_POSITIVES)?;
    let mut last = None;
    for address in addresses {
        // Sorted rows repeat.
        if last != Some(address) {
            filter.insert(address.as_slice());
            last = Some(address);
        }
    }
    // Made for as many as there are rows; of fewer addresses a smaller one tells as much.
    filter.fold_to_target_fpp(ADDRESS_FILTER_FALSE_POSITIVES);
    Ok(filter)
}

/// Columns of up to 32 bits, all of them INT32 in Parquet.
fn narrow<T: Copy + Eq + Into<u32>>(
    chunk: &mut ChunkBuilder<'_>,
    slots: &mut dictionary::Slots,
    values: &[T],
    scratch: &mut Vec<u8>,
) -> Result<(), ParquetError> {
    match slots.index(values, |v| u64::from(v.into()), scratch) {
        Some(Numbered { distinct, index_bits }) => {
            let plain: Vec<u8> = distinct.iter().flat_map(|v| (*v).into().to_le_bytes()).collect();
            chunk.dictionary(&plain, distinct.len(), index_bits, scratch)
        }
        None => {
            plain::u32s(values, scratch);
            chunk.plain(scratch, Values::Numbers)
        }
    }
}

fn values_of<'a>(column: &Column, array: &'a dyn Array) -> Result<ColumnValues<'a>, ParquetError> {
    fn typed<'a, T: 'static>(column: &Column, array: &'a dyn Array) -> Result<&'a T, ParquetError> {
        let wrong = || ParquetError::General(format!("column {} is {}", column.name, array.data_type()));
        array.as_any().downcast_ref().ok_or_else(wrong)
    }
    Ok(match column.kind {
        ColumnType::Instant => ColumnValues::I64(typed::<TimestampMillisecondArray>(column, array)?.values()),
        ColumnType::U64 => ColumnValues::U64(typed::<UInt64Array>(column, array)?.values()),
        ColumnType::U32 => ColumnValues::U32(typed::<UInt32Array>(column, array)?.values()),
        ColumnType::U16 => ColumnValues::U16(typed::<UInt16Array>(column, array)?.values()),
        ColumnType::U8 => ColumnValues::U8(typed::<UInt8Array>(column, array)?.values()),
        ColumnType::Address => {
            let array: &FixedSizeBinaryArray = typed(column, array)?;
            if array.value_size() != ADDRESS_BYTES {
                return Err(ParquetError::General(format!(
                    "column {} is {}",
                    column.name,
                    array.data_type()
                )));
            }
            ColumnValues::Address(array.value_data().as_chunks().0)
        }
        ColumnType::Name => {
            let array: &StringArray = typed(column, array)?;
            ColumnValues::Name((0..array.len()).map(|row| array.value(row)).collect())
        }
    })
}

fn parquet_schema(table: &TableDef) -> Result<SchemaDescPtr, ParquetError> {
    let schema = ArrowSchemaConverter::new().convert(&table.arrow_schema())?;
    Ok(Arc::new(schema))
}

/// A Parquet file of a table, to append row groups to.
///
/// # Errors
/// When the start of the file cannot be written.
pub(super) fn file_writer<W: std::io::Write + Send>(
    table: &TableDef,
    sink: W,
) -> Result<SerializedFileWriter<W>, ParquetError> {
    let mut properties = WriterProperties::builder().set_created_by("ezscale".to_owned()).build();
    add_encoded_arrow_schema_to_metadata(&table.arrow_schema(), &mut properties);
    SerializedFileWriter::new(sink, parquet_schema(table)?.root_schema_ptr(), Arc::new(properties))
}

/// A whole file in memory.
///
/// # Errors
/// When a row group is not whole.
pub fn file_of(table: &TableDef, groups: &[RowGroup]) -> Result<Vec<u8>, ParquetError> {
    let mut writer = file_writer(table, Vec::new())?;
    for group in groups {
        group.append_to(&mut writer)?;
    }
    writer.into_inner()
}

#[cfg(test)]
mod tests;
