//! Results as people and programs read them: one JSON array, CSV, or a text table.
//!
//! Addresses are text, times RFC 3339 in UTC with the precision of their column, numbers numbers (64-bit integers too),
//! other binary values hexadecimal. Rows are written as they come: nothing is gathered but one text table.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use schemas::address::Address;
use schemas::spreadsheet::inert;

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("write the result")]
    Io(#[from] std::io::Error),
    #[error("show a value")]
    Arrow(#[from] arrow::error::ArrowError),
}

schemas::error_codes! {
    OutputError: "query_output";
    of []
    source []
    Fault: Io = "io", Arrow = "arrow";
}

/// One value, ready to be written in any form.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    Null,
    Bool(bool),
    /// Already spelled as a number that JSON takes.
    Number(String),
    Text(String),
}

impl Value {
    /// As [`Value::into_text`], for CSV: a text that a spreadsheet would compute is marked as text.
    fn into_csv(self) -> String {
        match self {
            Value::Text(text) => inert(text),
            other => other.into_text(),
        }
    }

    fn into_text(self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) | Value::Text(text) => text,
        }
    }
}

/// Writes the rows of all batches as one JSON array of objects.
///
/// # Errors
/// When `out` does not take them.
pub(crate) fn to_json_rows(batches: &[RecordBatch], out: &mut impl Write) -> Result<(), OutputError> {
    let mut first = true;
    out.write_all(b"[")?;
    for batch in batches {
        let names: Vec<String> = batch
            .schema()
            .fields()
            .iter()
            .map(|field| serde_json::Value::from(field.name().as_str()).to_string())
            .collect();
        for row in 0..batch.num_rows() {
            out.write_all(if first { b"\n{" } else { b",\n{" })?;
            first = false;
            for (position, (name, array)) in names.iter().zip(batch.columns()).enumerate() {
                let comma = if position == 0 { "" } else { "," };
                write!(out, "{comma}{name}:")?;
                match value(array, row)? {
                    Value::Null => out.write_all(b"null")?,
                    Value::Bool(value) => write!(out, "{value}")?,
                    Value::Number(text) => out.write_all(text.as_bytes())?,
                    Value::Text(text) => write!(out, "{}", serde_json::Value::from(text))?,
                }
            }
            out.write_all(b"}")?;
        }
    }
    out.write_all(if first { b"]\n" } else { b"\n]\n" })?;
    Ok(())
}

/// Writes the rows of all batches as CSV (RFC 4180) under one header line; without batches nothing.
///
/// # Errors
/// When `out` does not take them.
pub(crate) fn to_csv(batches: &[RecordBatch], out: &mut impl Write) -> Result<(), OutputError> {
    let Some(first) = batches.first() else {
        return Ok(());
    };
    let header: Vec<String> = first
        .schema()
        .fields()
        .iter()
        .map(|field| inert(field.name().clone()))
        .collect();
    csv_line(out, header)?;
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(batch.num_columns());
            for array in batch.columns() {
                cells.push(value(array, row)?.into_csv());
            }
            csv_line(out, cells)?;
        }
    }
    Ok(())
}

fn csv_line(out: &mut impl Write, cells: Vec<String>) -> std::io::Result<()> {
    for (position, cell) in cells.into_iter().enumerate() {
        if position > 0 {
            out.write_all(b",")?;
        }
        if cell.contains(['"', ',', '\n', '\r']) {
            write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\r\n")
}

/// Writes the rows of all batches as a text table, numbers to the right.
///
/// # Errors
/// When `out` does not take it.
pub(crate) fn to_table(batches: &[RecordBatch], out: &mut impl Write) -> Result<(), OutputError> {
    let Some(first) = batches.first() else {
        return Ok(());
    };
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    let schema = first.schema();
    table.set_header(schema.fields().iter().map(|field| field.name().as_str()));
    for (position, field) in schema.fields().iter().enumerate() {
        if let (true, Some(column)) = (field.data_type().is_numeric(), table.column_mut(position)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(batch.num_columns());
            for array in batch.columns() {
                cells.push(value(array, row)?.into_text());
            }
            table.add_row(cells);
        }
    }
    writeln!(out, "{table}")?;
    Ok(())
}

fn value(array: &ArrayRef, row: usize) -> Result<Value, OutputError> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let whole = |number: i128| Value::Number(number.to_string());
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => whole(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => whole(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => whole(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => whole(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt8 => whole(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => whole(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => whole(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => whole(array.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Value::Number(array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Value::Text(array.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Value::Text(array.as_string_view().value(row).to_owned()),
        DataType::FixedSizeBinary(_) => binary(array.as_fixed_size_binary().value(row)),
        DataType::Binary => binary(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => binary(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => binary(array.as_binary_view().value(row)),
        DataType::Date32 => day(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Date64 => day(array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000)),
        DataType::Timestamp(TimeUnit::Second, _) => {
            let at = array.as_primitive::<TimestampSecondType>().value(row);
            time(Timestamp::from_second(at), 0)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let at = array.as_primitive::<TimestampMillisecondType>().value(row);
            time(Timestamp::from_millisecond(at), 3)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let at = array.as_primitive::<TimestampMicrosecondType>().value(row);
            time(Timestamp::from_microsecond(at), 6)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let at = array.as_primitive::<TimestampNanosecondType>().value(row);
            time(Timestamp::from_nanosecond(at.into()), 9)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys()[row];
            value(dictionary.values(), key)?
        }
        _ => {
            let format = FormatOptions::default();
            Value::Text(ArrayFormatter::try_new(array.as_ref(), &format)?.value(row).to_string())
        }
    })
}

fn float(value: f64) -> Value {
    // JSON knows no infinity; such a value says nothing that null does not.
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number.to_string()),
        None => Value::Null,
    }
}

fn binary(bytes: &[u8]) -> Value {
    match Address::from_slice(bytes) {
        Some(address) => Value::Text(address.to_string()),
        None => Value::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

fn time(at: Result<Timestamp, jiff::Error>, decimals: u8) -> Value {
    let printer = DateTimePrinter::new().precision(Some(decimals));
    at.map_or(Value::Null, |at| Value::Text(printer.timestamp_to_string(&at)))
}

fn day(days: i64) -> Value {
    let at = days.checked_mul(86_400).map(Timestamp::from_second);
    match at {
        Some(Ok(at)) => Value::Text(at.strftime("%Y-%m-%d").to_string()),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray, UInt64Array};
    use std::sync::Arc;
    use tables::flow::address_array;

    fn batch() -> RecordBatch {
        let addresses: Vec<Address> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "at",
                Arc::new(TimestampMillisecondArray::from(vec![1_795_356_000_000, 1]).with_timezone("UTC")),
            ),
            ("address", address_array(addresses.into_iter())),
            ("bytes", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
            ("mean", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
            ("name", Arc::new(StringArray::from(vec![Some("a \"b\", c"), None]))),
            ("ok", Arc::new(BooleanArray::from(vec![true, false]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn text(write: fn(&[RecordBatch], &mut Vec<u8>) -> Result<(), OutputError>, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        write(batches, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_one_array_of_objects() {
        let rows: serde_json::Value = serde_json::from_str(&text(to_json_rows, &[batch(), batch()])).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 4);
        assert_eq!(
            rows[0],
            serde_json::json!({
                "at": "2026-11-22T14:00:00.000Z", "address": "192.0.2.1", "bytes": u64::MAX, "mean": 1.5,
                "name": "a \"b\", c", "ok": true
            })
        );
        assert_eq!(rows[1]["address"], "2001:db8::1");
        assert_eq!(rows[1]["at"], "1970-01-01T00:00:00.001Z");
        assert!(rows[1]["mean"].is_null() && rows[1]["name"].is_null());
        assert_eq!(text(to_json_rows, &[]).trim(), "[]");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let csv = text(to_csv, &[batch()]);
        let lines: Vec<&str> = csv.split("\r\n").collect();
        assert_eq!(lines[0], "at,address,bytes,mean,name,ok");
        assert_eq!(
            lines[1],
            "2026-11-22T14:00:00.000Z,192.0.2.1,18446744073709551615,1.5,\"a \"\"b\"\", c\",true"
        );
        assert_eq!(lines[2], "1970-01-01T00:00:00.001Z,2001:db8::1,0,,,false");
    }

    #[test]
    fn s1_csv_has_no_formulas() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![-1, -2, -3]))),
            (
                "name",
                Arc::new(StringArray::from(vec!["=cmd|'/C calc'!A0", "-1", "plain"])),
            ),
        ];
        let csv = text(to_csv, &[RecordBatch::try_from_iter(columns).unwrap()]);
        assert_eq!(csv, "n,name\r\n-1,'=cmd|'/C calc'!A0\r\n-2,'-1\r\n-3,plain\r\n");
    }

    #[test]
    fn numbers_of_the_table_stand_to_the_right() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![7, -12345]))),
            ("word", Arc::new(StringArray::from(vec!["a", "bb"]))),
        ];
        let table = text(to_table, &[RecordBatch::try_from_iter(columns).unwrap()]);
        assert!(table.contains("      7 ") && table.contains(" -12345 "), "{table}");
        assert!(table.contains(" a "), "{table}");
    }
}
