//! What a stored column is, and everything that follows from it.
//!
//! A table is a [`TableDef`]: a list of [`Column`]s in storage order. Arrow schema, ClickHouse DDL and the documentation
//! table are derived here, so that a column is described once.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

/// Value type of a column. Nothing is nullable: a value that was not reported is 0, as in the protocols themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// UTC milliseconds since 1970-01-01.
    Instant,
    /// IPv4-mapped 16 bytes, network order; see [`schemas::address::Address`].
    Address,
    U8,
    U16,
    U32,
    U64,
    /// Text of few distinct values.
    Name,
}

/// What the values of a column are like, for a store that must be told; the Parquet encoder looks at the values themselves
/// ([`crate::table::Encoder`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Few distinct values in a file.
    Dictionary,
    /// Rising or clustered numbers.
    Delta,
    /// Everything else.
    Plain,
}

/// One column of one table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: ColumnType,
    /// Unit of the value, or `""` for names and codes.
    pub unit: &'static str,
    pub layout: Layout,
    /// Whether row groups keep minimum and maximum, so that queries can skip them. An instant with statistics lies within
    /// the times that the manifest knows of its file.
    pub statistics: bool,
    pub doc: &'static str,
    /// What files hold that were written before there was this column.
    pub in_older_files: ColumnFallback,
}

/// What stands for a column in files that lack it: they stay readable without being written anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnFallback {
    /// There is no such file: one that lacks the column is damaged.
    Never,
    /// Every row has this number; of an instant, this many UTC milliseconds.
    Number(u64),
    /// The column of this name, of the same type, took its place.
    Column(&'static str),
}

/// A stored table: its columns in storage order and the order its rows are sorted in for ClickHouse.
#[derive(Clone, Copy, Debug)]
pub struct TableDef {
    pub name: &'static str,
    pub doc: &'static str,
    pub columns: &'static [Column],
    /// Column whose day is the ClickHouse partition.
    pub time_column: &'static str,
    pub sort: &'static [&'static str],
    /// Rises by one with each change of the columns or their meaning: programs that know less refuse the files.
    pub format: u32,
    /// Whether it is computed from other tables: a job writes it, in sorted files, and can do so again.
    pub computed: bool,
}

impl Column {
    /// A column that files of earlier versions lack: they mean this number.
    #[must_use]
    pub(crate) const fn older_number(self, number: u64) -> Column {
        Column {
            in_older_files: ColumnFallback::Number(number),
            ..self
        }
    }

    /// A column that files of earlier versions lack: they have another one of the same type that means it.
    #[must_use]
    pub(crate) const fn older_column(self, name: &'static str) -> Column {
        Column {
            in_older_files: ColumnFallback::Column(name),
            ..self
        }
    }

    /// Whether sorted files tell which values a row group holds: for the addresses that people look up.
    pub fn is_looked_up(&self) -> bool {
        self.kind == ColumnType::Address && self.layout == Layout::Plain
    }
}

/// A column in one line, so that a table's definition reads as a table.
pub(crate) const fn column(
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
        in_older_files: ColumnFallback::Never,
    }
}

impl ColumnType {
    /// A column of `rows` times the same number; of a name none, which is the empty text.
    fn constant(self, number: u64, rows: usize) -> ArrayRef {
        match self {
            ColumnType::Instant => {
                let at_ms = i64::try_from(number).unwrap_or(i64::MAX);
                Arc::new(TimestampMillisecondArray::from_value(at_ms, rows).with_timezone("UTC"))
            }
            ColumnType::Address => {
                let bytes = u128::from(number).to_be_bytes().repeat(rows);
                Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), None))
            }
            ColumnType::U8 => Arc::new(UInt8Array::from_value(number as u8, rows)),
            ColumnType::U16 => Arc::new(UInt16Array::from_value(number as u16, rows)),
            ColumnType::U32 => Arc::new(UInt32Array::from_value(number as u32, rows)),
            ColumnType::U64 => Arc::new(UInt64Array::from_value(number, rows)),
            ColumnType::Name => Arc::new(StringArray::from(vec![""; rows])),
        }
    }

    /// The Arrow type of the column.
    pub fn arrow(self) -> DataType {
        match self {
            ColumnType::Instant => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            ColumnType::Address => DataType::FixedSizeBinary(16),
            ColumnType::U8 => DataType::UInt8,
            ColumnType::U16 => DataType::UInt16,
            ColumnType::U32 => DataType::UInt32,
            ColumnType::U64 => DataType::UInt64,
            ColumnType::Name => DataType::Utf8,
        }
    }

    fn clickhouse(self) -> &'static str {
        match self {
            ColumnType::Instant => "DateTime64(3, 'UTC')",
            ColumnType::Address => "IPv6",
            ColumnType::U8 => "UInt8",
            ColumnType::U16 => "UInt16",
            ColumnType::U32 => "UInt32",
            ColumnType::U64 => "UInt64",
            ColumnType::Name => "LowCardinality(String)",
        }
    }
}

impl Column {
    fn clickhouse_codec(&self) -> &'static str {
        match (self.kind, self.layout) {
            (ColumnType::Instant, _) => "DoubleDelta, ZSTD(1)",
            (_, Layout::Delta) => "T64, ZSTD(1)",
            _ => "ZSTD(1)",
        }
    }
}

impl TableDef {
    /// The Arrow schema of the table.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns
            .iter()
            .map(|c| Field::new(c.name, c.kind.arrow(), false))
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// Position of a column by name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The column of that name in `batch`, which a file of any version gave: where the file lacks it, what stands for it.
    ///
    /// # Errors
    /// When there is none and no file may lack it, or it is of another type.
    pub fn column_of(&self, batch: &RecordBatch, index: usize) -> Result<ArrayRef, ArrowError> {
        let column = &self.columns[index];
        let wrong = |what: &str| ArrowError::SchemaError(format!("column {} of {} is {what}", column.name, self.name));
        let array = match (batch.column_by_name(column.name), column.in_older_files) {
            (Some(array), _) => array.clone(),
            (None, ColumnFallback::Number(number)) => column.kind.constant(number, batch.num_rows()),
            (None, ColumnFallback::Column(name)) => batch.column_by_name(name).ok_or_else(|| wrong("missing"))?.clone(),
            (None, ColumnFallback::Never) => return Err(wrong("missing")),
        };
        if *array.data_type() != column.kind.arrow() {
            return Err(wrong(&array.data_type().to_string()));
        }
        Ok(array)
    }

    /// Which column of a file with the columns `held` is read for column `index`; `None` where the file lacks it and it is the
    /// same number in every row, or the file is damaged ([`TableDef::column_of`] tells).
    pub fn source_of(&self, index: usize, held: &Schema) -> Option<usize> {
        let column = &self.columns[index];
        held.index_of(column.name).ok().or(match column.in_older_files {
            ColumnFallback::Column(name) => held.index_of(name).ok(),
            ColumnFallback::Number(_) | ColumnFallback::Never => None,
        })
    }

    /// The rows of a batch that a file of any version gave, with the columns of this one.
    ///
    /// # Errors
    /// As [`TableDef::column_of`].
    pub fn complete(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let schema = self.arrow_schema();
        if batch.schema() == schema {
            return Ok(batch.clone());
        }
        let columns = (0..self.columns.len()).map(|index| self.column_of(batch, index));
        RecordBatch::try_new(schema, columns.collect::<Result<_, _>>()?)
    }

    /// `CREATE TABLE` for ClickHouse with deduplicating inserts (F1).
    pub fn clickhouse_ddl(&self) -> String {
        let mut ddl = format!("CREATE TABLE IF NOT EXISTS {} (\n", self.name);
        for (i, column) in self.columns.iter().enumerate() {
            let comma = if i + 1 == self.columns.len() { "" } else { "," };
            let _ = writeln!(
                ddl,
                "  {} {} CODEC({}) COMMENT '{}'{comma}",
                column.name,
                column.kind.clickhouse(),
                column.clickhouse_codec(),
                column.doc.replace('\'', "''"),
            );
        }
        let _ = write!(
            ddl,
            ") ENGINE = MergeTree PARTITION BY toDate({}) ORDER BY ({})\nSETTINGS non_replicated_deduplication_window = 1000",
            self.time_column,
            self.sort.join(", "),
        );
        ddl
    }

    /// The table as a Markdown section for the documentation.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "## `{}`\n\n{}\n\n| column | type | unit | meaning |\n|---|---|---|---|\n",
            self.name, self.doc
        );
        for column in self.columns {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                column.name,
                column.kind.clickhouse(),
                column.unit,
                column.doc
            );
        }
        text
    }
}

/// The values of one column of a row group.
#[derive(Clone, Debug)]
pub enum ColumnValues<'a> {
    /// UTC milliseconds.
    I64(&'a [i64]),
    U64(&'a [u64]),
    U32(&'a [u32]),
    U16(&'a [u16]),
    U8(&'a [u8]),
    Address(&'a [[u8; 16]]),
    Name(Vec<&'a str>),
}

impl ColumnValues<'_> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            ColumnValues::I64(values) => values.len(),
            ColumnValues::U64(values) => values.len(),
            ColumnValues::U32(values) => values.len(),
            ColumnValues::U16(values) => values.len(),
            ColumnValues::U8(values) => values.len(),
            ColumnValues::Address(values) => values.len(),
            ColumnValues::Name(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
