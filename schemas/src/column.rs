//! What a stored column is, and everything that follows from it.
//!
//! A table is a [`TableDef`]: a list of [`Column`]s in storage order. Arrow schema, ClickHouse DDL and the documentation
//! table are derived here, so that a column is described once.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Value type of a column. Nothing is nullable: a value that was not reported is 0, as in the protocols themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// UTC milliseconds since 1970-01-01.
    Instant,
    /// IPv4-mapped 16 bytes, network order; see [`crate::address::Address`].
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
    /// Whether row groups keep minimum and maximum, so that queries can skip them.
    pub statistics: bool,
    pub doc: &'static str,
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
}

impl Column {
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
    }
}

impl ColumnType {
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
