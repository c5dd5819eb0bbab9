//! Listings and records in the form that was asked for.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use schemas::money::Currency;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::cell::{Cell, Column, Kind};
use super::print::stream;

/// Form of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people
    #[default]
    Table,
    /// One array of objects, an object a line; amounts are decimals in text beside their currency, times RFC 3339
    Json,
    /// Comma-separated values with a header line (RFC 4180)
    Csv,
}

/// Form of one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum ShowFormat {
    /// A line for each field, then what belongs to it
    #[default]
    #[value(alias = "text")]
    Table,
    /// One object; amounts are decimals in text beside their currency, times RFC 3339
    Json,
}

/// The column that is added where amounts are: they are of one currency in each row.
const CURRENCY: &str = "currency";

/// Columns and rows.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A listing with as many cells in each row as it has columns.
#[derive(Debug)]
pub(crate) struct Listing<const N: usize>(Rows);

impl<const N: usize> Listing<N> {
    pub(crate) fn new(columns: [Column; N]) -> Listing<N> {
        Listing(Rows {
            columns: columns.to_vec(),
            rows: Vec::new(),
        })
    }

    pub(crate) fn row(&mut self, cells: [Cell; N]) {
        self.0.rows.push(cells.into());
    }

    /// Prints it; a table without rows is `empty`, on standard error.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn print(&self, format: Format, empty: &str) -> anyhow::Result<()> {
        self.0.print(format, empty)
    }
}

impl Rows {
    fn print(&self, format: Format, empty: &str) -> anyhow::Result<()> {
        match format {
            Format::Table if self.rows.is_empty() => {
                if !empty.is_empty() {
                    tell!("{empty}");
                }
                Ok(())
            }
            Format::Table => {
                say!("{}", self.table());
                Ok(())
            }
            Format::Json => stream(|out| self.write_json(out)),
            Format::Csv => stream(|out| self.write_csv(out)),
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        let columns: Vec<Column> = self.columns.iter().copied().filter(is_in_tables).collect();
        table.set_header(columns.iter().map(|column| column.heading()));
        for row in &self.rows {
            let cells = row.iter().zip(&self.columns).filter(|(_, column)| is_in_tables(column));
            // A row is one line.
            table.add_row(cells.map(|(cell, &column)| cell.shown(column).replace('\n', ", ")));
        }
        for (index, column) in columns.iter().enumerate() {
            if let Some(of_table) = table.column_mut(index).filter(|_| column.is_right()) {
                of_table.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt()
    }

    /// Whether a column with the currency is added.
    fn adds_currency(&self) -> bool {
        let has = |wanted: fn(&Column) -> bool| self.columns.iter().any(wanted);
        has(|column| column.kind == Kind::Money) && !has(|column| column.name == CURRENCY)
    }

    fn write_json(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        out.write_all(b"[")?;
        for (index, row) in self.rows.iter().enumerate() {
            out.write_all(if index == 0 { "\n" } else { ",\n" }.as_bytes())?;
            let object = Object {
                rows: self,
                row,
                lists: &[],
            };
            serde_json::to_writer(&mut *out, &object)?;
        }
        out.write_all(if self.rows.is_empty() { "]\n" } else { "\n]\n" }.as_bytes())?;
        Ok(())
    }

    fn write_csv(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let adds_currency = self.adds_currency();
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(out);
        let added = adds_currency.then_some(CURRENCY);
        writer.write_record(self.columns.iter().map(|column| column.name).chain(added))?;
        for row in &self.rows {
            let added = adds_currency.then(|| currency_of(row).map_or(String::new(), |currency| currency.to_string()));
            writer.write_record(row.iter().map(Cell::csv).chain(added))?;
        }
        writer.flush()?;
        Ok(())
    }
}

fn is_in_tables(column: &Column) -> bool {
    !column.is_only_data
}

fn currency_of(row: &[Cell]) -> Option<Currency> {
    row.iter().find_map(|cell| match cell {
        Cell::Money(money) => Some(money.currency),
        _ => None,
    })
}

/// One thing: its fields, and listings of what belongs to it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    fields: Vec<(Column, Cell)>,
    lists: Vec<(&'static str, Rows)>,
}

impl Record {
    pub(crate) fn new() -> Record {
        Record::default()
    }

    pub(crate) fn field(mut self, column: Column, cell: impl Into<Cell>) -> Record {
        self.fields.push((column, cell.into()));
        self
    }

    /// A listing of what belongs to it; its name is the field in JSON.
    pub(crate) fn list<const N: usize>(mut self, name: &'static str, listing: Listing<N>) -> Record {
        self.lists.push((name, listing.0));
        self
    }

    /// Prints it.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn print(&self, format: ShowFormat) -> anyhow::Result<()> {
        match format {
            ShowFormat::Table => self.print_table(),
            ShowFormat::Json => say!("{}", self.to_json()?),
        }
        Ok(())
    }

    /// Prints several as one JSON array.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn print_all_json(records: &[Record]) -> anyhow::Result<()> {
        let objects: Result<Vec<String>, _> = records.iter().map(Record::to_json).collect();
        say!("[{}]", objects?.join(",\n"));
        Ok(())
    }

    /// A field without a value and without a word for that has no line; what has several lines stands indented below its
    /// label.
    fn field_lines(&self) -> Vec<String> {
        let width = self
            .fields
            .iter()
            .map(|(column, _)| column.label().len())
            .max()
            .unwrap_or(0);
        let mut lines = Vec::new();
        for (column, cell) in &self.fields {
            let (label, shown) = (column.label(), cell.shown(*column));
            let shown = shown.trim_end_matches(['\n', '\r']);
            if shown.is_empty() {
                continue;
            }
            if !shown.contains('\n') {
                lines.push(format!("{label:width$}  {shown}"));
                continue;
            }
            lines.push(label);
            lines.extend(shown.lines().map(|line| format!("  {line}").trim_end().to_owned()));
        }
        lines
    }

    fn print_table(&self) {
        for line in self.field_lines() {
            say!("{line}");
        }
        for (name, rows) in &self.lists {
            if rows.rows.is_empty() {
                continue;
            }
            say_part!("\n{}\n", name.replace('_', " "));
            say!("{}", rows.table());
        }
    }

    fn to_json(&self) -> serde_json::Result<String> {
        let (columns, row): (Vec<Column>, Vec<Cell>) = self.fields.iter().cloned().unzip();
        let rows = Rows {
            columns,
            rows: Vec::new(),
        };
        let object = Object {
            rows: &rows,
            row: &row,
            lists: &self.lists,
        };
        serde_json::to_string_pretty(&object)
    }
}

/// A row as an object, its fields in the order of the columns, then the lists.
struct Object<'a> {
    rows: &'a Rows,
    row: &'a [Cell],
    lists: &'a [(&'static str, Rows)],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, cell) in self.rows.columns.iter().zip(self.row) {
            map.serialize_entry(column.name, &cell.as_json())?;
        }
        if self.rows.adds_currency() {
            map.serialize_entry(CURRENCY, &currency_of(self.row).map(|currency| currency.to_string()))?;
        }
        for (name, rows) in self.lists {
            let objects = rows.rows.iter().map(|row| Object { rows, row, lists: &[] });
            map.serialize_entry(name, &objects.collect::<Vec<_>>())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::{at, bytes, money, number, text};
    use super::*;
    use schemas::money::Money;
    use serde_json::Value;

    fn invoices() -> Listing<5> {
        let euro: Currency = "EUR".parse().unwrap();
        let mut listing = Listing::new([
            text("id"),
            text("name"),
            bytes("used_bytes"),
            number("lines").or("-"),
            money("total"),
        ]);
        listing.row([
            "inv_1".into(),
            "Acme, \"Inc\"\nNew York".into(),
            1536u64.into(),
            2u64.into(),
            Money::new(123_450, euro).into(),
        ]);
        listing.row([
            "inv_2".into(),
            Cell::Absent,
            0u64.into(),
            Cell::Absent,
            Cell::from(None::<Money>),
        ]);
        listing
    }

    #[test]
    fn numbers_stand_to_the_right_and_read_well() {
        let table = invoices().0.table();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].contains("USED") && !lines[0].contains("BYTES"), "{table}");
        assert!(table.contains("1.5 KiB"), "{table}");
        assert!(table.contains("EUR 1,234.50"), "{table}");
        let last = lines.last().unwrap();
        assert!(last.contains('-'), "{table}");
        // The figures of a column end at the same place.
        let end = |line: &str, figure: &str| line.find(figure).map(|at| at + figure.len());
        let first = lines.iter().find(|line| line.contains("1.5 KiB")).unwrap();
        assert_eq!(end(first, "1.5 KiB"), end(last, "0 B"), "{table}");
    }

    #[test]
    fn a_row_is_one_line_and_a_record_keeps_its_lines() {
        let table = invoices().0.table();
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.contains("Acme, \"Inc\", New York"), "{table}");
        let record = Record::new()
            .field(text("id"), "dlv_1")
            .field(bytes("size_bytes"), 1536u64)
            .field(text("text"), "Hello,\n\nyour invoice is here.\n");
        assert_eq!(
            record.field_lines(),
            [
                "id    dlv_1",
                "size  1.5 KiB",
                "text",
                "  Hello,",
                "",
                "  your invoice is here."
            ]
        );
    }

    #[test]
    fn instants_are_as_long_as_each_other() {
        let mut listing = Listing::new([text("at")]);
        for at_ms in [1_764_590_118_000, 1_764_590_118_800, 1_764_590_118_812] {
            listing.row([at(at_ms)]);
        }
        let table = listing.0.table();
        assert_eq!(table.matches("2025-12-01T11:55:18Z").count(), 3, "{table}");
        let mut out = Vec::new();
        listing.0.write_csv(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "at\r\n2025-12-01T11:55:18Z\r\n2025-12-01T11:55:18.800Z\r\n2025-12-01T11:55:18.812Z\r\n"
        );
    }

    #[test]
    fn what_is_only_data_is_in_no_table() {
        let mut listing = Listing::new([
            text("id"),
            number("samples").only_data(),
            text("second_factor_at").or("off").titled("second factor"),
        ]);
        listing.row(["usr_1".into(), 7u64.into(), Cell::Absent]);
        let table = listing.0.table();
        assert!(
            table.contains("SECOND FACTOR") && !table.contains("SECOND FACTOR AT"),
            "{table}"
        );
        assert!(!table.contains("SAMPLES") && !table.contains('7'), "{table}");
        let mut out = Vec::new();
        listing.0.write_csv(&mut out).unwrap();
        assert_eq!(out, b"id,samples,second_factor_at\r\nusr_1,7,\r\n");
    }

    #[test]
    fn json_has_decimals_in_text_beside_their_currency() {
        let mut out = Vec::new();
        invoices().0.write_json(&mut out).unwrap();
        let printed = String::from_utf8(out).unwrap();
        let rows: Vec<Value> = serde_json::from_str(&printed).unwrap();
        assert_eq!(
            rows[0],
            serde_json::json!({"id": "inv_1", "name": "Acme, \"Inc\"\nNew York", "used_bytes": 1536, "lines": 2,
                "total": "1234.50", "currency": "EUR"})
        );
        assert_eq!(rows[1]["total"], Value::Null);
        assert_eq!(rows[1]["currency"], Value::Null);
        // An object a line, for programs that read lines.
        assert_eq!(printed.lines().count(), 4);
        let mut out = Vec::new();
        Listing::new([text("id")]).0.write_json(&mut out).unwrap();
        assert_eq!(out, b"[]\n");
    }

    #[test]
    fn csv_is_that_of_rfc_4180() {
        let mut out = Vec::new();
        invoices().0.write_csv(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id,name,used_bytes,lines,total,currency\r\n\
             inv_1,\"Acme, \"\"Inc\"\"\nNew York\",1536,2,1234.50,EUR\r\n\
             inv_2,,0,,,\r\n"
        );
        // Without rows there is still a header.
        let mut out = Vec::new();
        Listing::new([text("id"), money("total")])
            .0
            .write_csv(&mut out)
            .unwrap();
        assert_eq!(out, b"id,total,currency\r\n");
    }

    #[test]
    fn s1_csv_has_no_formulas() {
        let mut listing = Listing::new([text("name"), number("delta"), money("total")]);
        let euro: Currency = "EUR".parse().unwrap();
        for name in ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "plain"] {
            listing.row([name.into(), (-5i64).into(), Money::new(-100, euro).into()]);
        }
        listing.row([Cell::Json(Value::from("=1")), Cell::Absent, Cell::Absent]);
        let mut out = Vec::new();
        listing.0.write_csv(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "name,delta,total,currency\r\n'=HYPERLINK(1),-5,-1.00,EUR\r\n'+1,-5,-1.00,EUR\r\n'-1,-5,-1.00,EUR\r\n\
             '@SUM(A1),-5,-1.00,EUR\r\n'\t=1,-5,-1.00,EUR\r\nplain,-5,-1.00,EUR\r\n'=1,,,\r\n"
        );
    }

    #[test]
    fn a_record_has_its_lists_in_json() {
        let record = Record::new()
            .field(text("id"), "inv_1")
            .field(text("note"), None::<String>)
            .field(text("reason"), "")
            .field(money("total"), Money::new(100, "JPY".parse().unwrap()))
            .list("lines", invoices());
        let object: Value = serde_json::from_str(&record.to_json().unwrap()).unwrap();
        assert_eq!(object["total"], "100");
        assert_eq!(object["currency"], "JPY");
        assert_eq!(object["note"], Value::Null);
        assert_eq!(object["reason"], Value::Null, "there is none");
        assert_eq!(object["lines"][0]["id"], "inv_1");
    }
}
