//! The stored files are open: what other programs read from them is what was written, whatever the values.
//!
//! For each table files are made of every shape that the encoder knows (one value, few, many, all bits), older and current, and
//! read by pyarrow, DuckDB, Polars, fastparquet and ClickHouse ([`read_tables.py`](read_tables.py)): the programs that
//! docs/storage.md shows.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array,
};
use serde_json::{Map, Value, json};
use tables::column::{Column, ColumnType, TableDef};
use tables::definitions::TABLES;
use tables::table::{Commit, FileEncoding, FileEntry, Table, write_parquet};

use crate::support::ezscale::DataDir;

/// Rows of a file: so many that shapes are what they are called.
const ROWS: u64 = 5_000;
/// Of the first file of flows: more than a row group has, so that it has two.
const ROWS_OF_TWO_GROUPS: u64 = 140_000;
/// 2026-11-21T00:00:00Z.
const DAY_MS: u64 = 1_795_219_200_000;
const PROGRAMS: [&str; 5] = ["pyarrow", "duckdb", "polars", "fastparquet", "clickhouse"];

/// What the values of a column are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    One,
    Few,
    Hundreds,
    Many,
    AllBits,
}

const SHAPES: [Shape; 5] = [Shape::One, Shape::Few, Shape::Hundreds, Shape::Many, Shape::AllBits];

/// A column of one shape; no two columns are copies of each other.
#[derive(Clone, Copy, Debug)]
struct Values {
    column: u64,
    shape: Shape,
}

impl Values {
    /// Spread over 64 bits (the finalizer of MurmurHash3), and the same each time.
    fn mixed(self, row: u64) -> u64 {
        let bits = self.column << 32 | row;
        let bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        bits ^ (bits >> 33)
    }

    fn number(self, row: u64) -> u64 {
        // The ends too, which readers may take for signs.
        const ENDS: [u64; 4] = [0, u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1];
        match self.shape {
            Shape::One => 7,
            Shape::Few => self.mixed(row) % 200,
            Shape::Hundreds => self.mixed(row) % 600,
            Shape::Many => self.mixed(row) % 70_000,
            Shape::AllBits => ENDS.get(row as usize).copied().unwrap_or(self.mixed(row)),
        }
    }

    fn address(self, row: u64) -> u128 {
        match self.shape {
            Shape::AllBits => u128::from(self.mixed(row)) << 64 | u128::from(self.number(row)),
            _ => 0xffff_0a00_0000 + u128::from(self.number(row)),
        }
    }

    fn instant(self, row: u64) -> i64 {
        let after_ms = match self.shape {
            Shape::One => 0,
            Shape::Few => self.number(row) * 300_000,
            Shape::Hundreds | Shape::Many | Shape::AllBits => self.mixed(row) % 86_400_000,
        };
        (DAY_MS + after_ms).cast_signed()
    }

    fn name(self, row: u64) -> String {
        format!("näme {}", self.number(row) % 1_000)
    }
}

/// What readers must find in a column: sums of numbers, rows of each value of the others.
#[derive(Default)]
struct Expected {
    numbers: Option<(u64, u128, u64, u64)>,
    values: BTreeMap<String, u64>,
}

impl Expected {
    fn number(&mut self, value: u64) {
        let (rows, sum, least, most) = self.numbers.unwrap_or((0, 0, value, value));
        self.numbers = Some((rows + 1, sum + u128::from(value), least.min(value), most.max(value)));
    }

    fn into_json(self) -> Value {
        match self.numbers {
            // As Python writes whole numbers, beyond 64 bits too.
            Some((rows, sum, least, most)) => {
                json!([rows.to_string(), sum.to_string(), least.to_string(), most.to_string()])
            }
            None => json!(
                self.values
                    .into_iter()
                    .map(|(value, rows)| json!([value, rows]))
                    .collect::<Vec<_>>()
            ),
        }
    }
}

fn rows_of(table: &TableDef, turn: usize) -> u64 {
    if turn == 0 && table.name == "flows" {
        ROWS_OF_TWO_GROUPS
    } else {
        ROWS
    }
}

/// A file's rows, and what is in them.
fn batch_of(table: &TableDef, turn: usize, expected: &mut BTreeMap<&'static str, Expected>) -> RecordBatch {
    let array_of = |(index, column): (usize, &Column)| -> ArrayRef {
        let values = Values {
            column: index as u64,
            shape: SHAPES[(index + turn) % SHAPES.len()],
        };
        let of_column = expected.entry(column.name).or_default();
        let mut number = |row: u64, mask: u64| {
            let value = values.number(row) & mask;
            of_column.number(value);
            value
        };
        let rows = 0..rows_of(table, turn);
        match column.kind {
            ColumnType::U8 => Arc::new(UInt8Array::from_iter_values(rows.map(|row| number(row, 0xff) as u8))),
            ColumnType::U16 => Arc::new(UInt16Array::from_iter_values(
                rows.map(|row| number(row, 0xffff) as u16),
            )),
            ColumnType::U32 => {
                let values = rows.map(|row| number(row, 0xffff_ffff) as u32);
                Arc::new(UInt32Array::from_iter_values(values))
            }
            ColumnType::U64 => Arc::new(UInt64Array::from_iter_values(rows.map(|row| number(row, u64::MAX)))),
            ColumnType::Instant => {
                let instant = |row| {
                    let value = values.instant(row);
                    of_column.number(value.cast_unsigned());
                    value
                };
                let values = TimestampMillisecondArray::from_iter_values(rows.map(instant));
                Arc::new(values.with_timezone("UTC"))
            }
            ColumnType::Address => {
                let address = |row| {
                    let value = values.address(row);
                    *of_column.values.entry(format!("{value:032x}")).or_default() += 1;
                    value.to_be_bytes()
                };
                let bytes: Vec<u8> = rows.flat_map(address).collect();
                Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), None))
            }
            ColumnType::Name => {
                let name = |row| {
                    let value = values.name(row);
                    *of_column.values.entry(value.clone()).or_default() += 1;
                    value
                };
                Arc::new(StringArray::from_iter_values(rows.map(name)))
            }
        }
    };
    let arrays = table.columns.iter().enumerate().map(array_of).collect();
    RecordBatch::try_new(table.arrow_schema(), arrays).expect("the table's columns")
}

/// Files of a table with columns of every shape, and what is in them.
fn fill(data: &Path, def: &'static TableDef) -> Map<String, Value> {
    let table = Table::open(data, def).expect("the table can be opened");
    let mut expected = BTreeMap::new();
    let mut add = Vec::new();
    for turn in 0..SHAPES.len() {
        let batch = batch_of(def, turn, &mut expected);
        let path = format!("2026-11-21/shape-{turn}.parquet");
        let size_bytes = write_parquet(&table, &path, [&batch]).expect("the file can be written");
        add.push(FileEntry {
            path,
            rows: rows_of(def, turn),
            size_bytes,
            min_time_ms: DAY_MS.cast_signed(),
            max_time_ms: DAY_MS.cast_signed() + 86_399_999,
            sequence: 0,
            encoding: FileEncoding::Open,
        });
    }
    let commit = Commit {
        add,
        ..Commit::default()
    };
    assert!(table.commit(commit).expect("the files can be committed"));
    expected
        .into_iter()
        .map(|(name, expected)| (name.to_owned(), expected.into_json()))
        .collect()
}

fn kind_of(column: ColumnType) -> &'static str {
    match column {
        ColumnType::Instant => "instant",
        ColumnType::Address => "address",
        ColumnType::U8 | ColumnType::U16 | ColumnType::U32 | ColumnType::U64 => "number",
        ColumnType::Name => "name",
    }
}

/// Where `tests/run` put what reads the files.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/readers/bin/python3");
    assert!(
        python.exists(),
        "{} is missing: `tests/run` installs it",
        python.display()
    );
    python
}

fn read_by(program: &str, files: &[&str], def: &TableDef) -> Map<String, Value> {
    let columns: Map<String, Value> = def
        .columns
        .iter()
        .map(|column| (column.name.to_owned(), json!(kind_of(column.kind))))
        .collect();
    let asked = json!({"files": files, "columns": columns}).to_string();
    let mut child = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_tables.py"))
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(asked.as_bytes()).expect("Python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "{program} reads the files of {}", def.name);
    serde_json::from_slice(&output.stdout).expect("an object of columns")
}

#[test]
fn other_programs_read_from_every_table_what_was_written() {
    let data = DataDir::new();
    std::fs::create_dir_all(data.path()).expect("the data directory can be made");
    // All before the first command, which makes the folder private.
    let filled = TABLES.map(|def| (def, fill(&data.path(), def)));
    for (def, expected) in filled {
        let listed = data.run(&[
            "storage",
            "files",
            "--table",
            def.name,
            "--from",
            "2026-11-21",
            "--to",
            "2026-11-22",
            "--paths",
        ]);
        let files: Vec<&str> = listed.lines().collect();
        assert_eq!(files.len(), SHAPES.len(), "{listed}");
        for program in PROGRAMS {
            let found = read_by(program, &files, def);
            for column in def.columns {
                assert!(
                    found.get(column.name) == expected.get(column.name),
                    "{program} reads {} of {} as it was written",
                    column.name,
                    def.name
                );
            }
        }
    }
}
