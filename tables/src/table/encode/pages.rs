//! Encoded values to the pages of a column chunk, and what the file's footer says of it.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::zstd_safe::CParameter;

use super::ColumnValues;
use super::delta::{self, varint};
use super::dictionary::is_one;

/// Level 1: higher ones cost twice the time for a twentieth of the bytes.
const ZSTD_LEVEL: i32 = 1;
/// Entries of the compressor's table of earlier bytes (a power of two) and the shortest repetition it looks for, in what repeats in
/// runs or not at all: a small table finds those as well, and fewer that cost more than they save.
const ZSTD_HASH_LOG: u32 = 10;
const ZSTD_NUMBERS_MIN_MATCH: u32 = 7;
/// Addresses and names begin alike. Shorter repetitions are looked for, or the twelve bytes before an IPv4 address cost time.
const ZSTD_TEXTS_MIN_MATCH: u32 = 5;
/// Names in statistics are cut by nobody, so long ones are left out.
const STATISTICS_NAME_BYTES_MAX: usize = 64;

/// What a page holds, which is how it is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Values {
    /// Deltas and indices.
    Packed,
    Numbers,
    /// Addresses and names.
    Texts,
}

/// Zstandard with its tables kept.
pub(super) struct Compressor {
    numbers: zstd::bulk::Compressor<'static>,
    texts: zstd::bulk::Compressor<'static>,
    /// Files that stay: numbers and texts with level 1 as it comes, which takes more time and fewer bytes.
    lasts: bool,
    compressed: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> Result<Compressor, ParquetError> {
        Ok(Compressor {
            numbers: zstd_with(&[
                CParameter::HashLog(ZSTD_HASH_LOG),
                CParameter::MinMatch(ZSTD_NUMBERS_MIN_MATCH),
            ])?,
            texts: zstd_with(&[
                CParameter::HashLog(ZSTD_HASH_LOG),
                CParameter::MinMatch(ZSTD_TEXTS_MIN_MATCH),
            ])?,
            lasts: false,
            compressed: Vec::new(),
        })
    }

    pub(super) fn lasting(self) -> Result<Compressor, ParquetError> {
        Ok(Compressor {
            texts: zstd_with(&[])?,
            lasts: true,
            ..self
        })
    }

    fn compress(&mut self, bytes: &[u8], values: Values) -> Result<&[u8], ParquetError> {
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        let zstd = match values {
            Values::Packed => &mut self.numbers,
            Values::Numbers if !self.lasts => &mut self.numbers,
            Values::Numbers | Values::Texts => &mut self.texts,
        };
        zstd.compress_to_buffer(bytes, &mut self.compressed).map_err(external)?;
        Ok(&self.compressed)
    }
}

fn zstd_with(parameters: &[CParameter]) -> Result<zstd::bulk::Compressor<'static>, ParquetError> {
    let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(external)?;
    for parameter in parameters {
        zstd.set_parameter(*parameter).map_err(external)?;
    }
    Ok(zstd)
}

fn external(error: std::io::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// One column chunk in the making: at most a dictionary page, then one data page.
pub(super) struct ChunkBuilder<'a> {
    rows: usize,
    compressor: &'a mut Compressor,
    sink: TrackedWrite<Vec<u8>>,
    uncompressed_bytes: usize,
    dictionary_at: Option<u64>,
    data_at: u64,
    encodings: Vec<Encoding>,
    statistics: Option<Statistics>,
    filter: Option<Sbbf>,
}

/// The pages of a column chunk, and all that the footer says of them but whose they are.
#[derive(Clone)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    rows: usize,
    uncompressed_bytes: usize,
    dictionary_at: Option<u64>,
    data_at: u64,
    encodings: Vec<Encoding>,
    statistics: Option<Statistics>,
}

impl Chunk {
    /// As a chunk of this column, with offsets from its start.
    pub(super) fn close(&self, column: ColumnDescPtr) -> Result<ColumnCloseResult, ParquetError> {
        let mut metadata = ColumnChunkMetaData::builder(column)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_encodings(self.encodings.clone())
            .set_num_values(self.rows as i64)
            .set_total_compressed_size(self.bytes.len() as i64)
            .set_total_uncompressed_size(self.uncompressed_bytes as i64)
            .set_dictionary_page_offset(self.dictionary_at.map(u64::cast_signed))
            .set_data_page_offset(self.data_at.cast_signed());
        if let Some(statistics) = &self.statistics {
            metadata = metadata.set_statistics(statistics.clone());
        }
        Ok(ColumnCloseResult {
            bytes_written: self.bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        })
    }
}

impl<'a> ChunkBuilder<'a> {
    pub(super) fn new(rows: usize, compressor: &'a mut Compressor) -> ChunkBuilder<'a> {
        ChunkBuilder {
            rows,
            compressor,
            sink: TrackedWrite::new(Vec::new()),
            uncompressed_bytes: 0,
            dictionary_at: None,
            data_at: 0,
            encodings: Vec::new(),
            statistics: None,
            filter: None,
        }
    }

    /// Notes the smallest and the largest value.
    pub(super) fn statistics(&mut self, values: &ColumnValues<'_>) {
        fn ends<T: Copy + Ord>(values: &[T]) -> Option<(T, T)> {
            let first = *values.first()?;
            if is_one(values) {
                return Some((first, first));
            }
            Some(values.iter().fold((first, first), |(least, most), value| {
                (least.min(*value), most.max(*value))
            }))
        }
        fn int32<T: Copy + Ord + Into<u32>>(values: &[T]) -> Option<Statistics> {
            let (least, most) = ends(values)?;
            let bits = |value: T| Some(value.into().cast_signed());
            Some(Statistics::Int32(ValueStatistics::new(
                bits(least),
                bits(most),
                None,
                Some(0),
                false,
            )))
        }
        let int64 =
            |least, most| Statistics::Int64(ValueStatistics::new(Some(least), Some(most), None, Some(0), false));
        self.statistics = match values {
            ColumnValues::I64(values) => ends(values).map(|(least, most)| int64(least, most)),
            ColumnValues::U64(values) => {
                ends(values).map(|(least, most)| int64(least.cast_signed(), most.cast_signed()))
            }
            ColumnValues::U32(values) => int32(values),
            ColumnValues::U16(values) => int32(values),
            ColumnValues::U8(values) => int32(values),
            ColumnValues::Address(values) => values.first().map(|first| {
                // As numbers they compare as their bytes do, and faster.
                let first = u128::from_be_bytes(*first);
                let others: &[[u8; 16]] = if is_one(values) { &[] } else { values };
                let (least, most) = others.iter().fold((first, first), |(least, most), value| {
                    let value = u128::from_be_bytes(*value);
                    (least.min(value), most.max(value))
                });
                let bytes = |address: u128| Some(FixedLenByteArray::from(address.to_be_bytes().to_vec()));
                Statistics::FixedLenByteArray(ValueStatistics::new(bytes(least), bytes(most), None, Some(0), false))
            }),
            ColumnValues::Name(values) => ends(values)
                .filter(|(least, most)| least.len().max(most.len()) <= STATISTICS_NAME_BYTES_MAX)
                .map(|(least, most)| {
                    let bytes = |text: &str| Some(ByteArray::from(text));
                    Statistics::ByteArray(ValueStatistics::new(bytes(least), bytes(most), None, Some(0), false))
                }),
        };
    }

    /// Notes what tells which values there are.
    pub(super) fn filter(&mut self, filter: Sbbf) {
        self.filter = Some(filter);
    }

    /// A dictionary of `distinct` values in plain encoding, and an index of `index_bits` (8 or 16) for each row; no indices: all
    /// rows have the only value.
    pub(super) fn dictionary(
        &mut self,
        plain: &[u8],
        distinct: usize,
        index_bits: u8,
        indices: &[u8],
    ) -> Result<(), ParquetError> {
        let buf = Bytes::copy_from_slice(self.compressor.compress(plain, Values::Texts)?);
        let page = Page::DictionaryPage {
            buf,
            num_values: distinct as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.dictionary_at = Some(self.write(page, plain.len())?);
        self.encodings.push(Encoding::PLAIN);
        let mut body = Vec::with_capacity(indices.len() + 32);
        if indices.is_empty() {
            // Width 1, then one run of zeros.
            body.push(1);
            varint((self.rows as u64) << 1, &mut body);
            body.push(0);
        } else {
            // The width, then one run of bit-packed groups of eight, which take as many bytes as a number has bits.
            body.push(index_bits);
            let groups = self.rows.div_ceil(8);
            varint((groups as u64) << 1 | 1, &mut body);
            let at = body.len();
            body.extend_from_slice(indices);
            body.resize(at + groups * usize::from(index_bits), 0);
        }
        self.data(&body, Encoding::RLE_DICTIONARY, Values::Packed)
    }

    pub(super) fn delta(&mut self, values: &[i64], scratch: &mut Vec<u8>) -> Result<(), ParquetError> {
        delta::encode(values, scratch);
        self.data(scratch, Encoding::DELTA_BINARY_PACKED, Values::Packed)
    }

    pub(super) fn plain(&mut self, plain: &[u8], values: Values) -> Result<(), ParquetError> {
        self.data(plain, Encoding::PLAIN, values)
    }

    fn data(&mut self, body: &[u8], encoding: Encoding, values: Values) -> Result<(), ParquetError> {
        let buf = Bytes::copy_from_slice(self.compressor.compress(body, values)?);
        let page = Page::DataPage {
            buf,
            num_values: self.rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.encodings.push(encoding);
        self.data_at = self.write(page, body.len())?;
        Ok(())
    }

    /// Answers where the page lies in the chunk.
    fn write(&mut self, page: Page, uncompressed_bytes: usize) -> Result<u64, ParquetError> {
        let mut writer = SerializedPageWriter::new(&mut self.sink);
        let written = writer.write_page(CompressedPage::new(page, uncompressed_bytes))?;
        self.uncompressed_bytes += written.uncompressed_size;
        Ok(written.offset)
    }

    /// The chunk, and what tells which values there are.
    pub(super) fn finish(self) -> Result<(Chunk, Option<Sbbf>), ParquetError> {
        let chunk = Chunk {
            bytes: Bytes::from(self.sink.into_inner()?),
            rows: self.rows,
            uncompressed_bytes: self.uncompressed_bytes,
            dictionary_at: self.dictionary_at,
            data_at: self.data_at,
            encodings: self.encodings,
            statistics: self.statistics,
        };
        Ok((chunk, self.filter))
    }
}
