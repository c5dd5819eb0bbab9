//! What finance takes into other books: documents, taxes by rate, lines, payments, refunds and postings of a time, as
//! CSV and as one
//! XLSX workbook. Months and instants are those of UTC, as document numbers are; the days on which a document was issued and is
//! due are those printed on it.
//!
//! Amounts are exact: decimals in major units with all digits of their currency. A workbook stores numbers as text that
//! spreadsheets read as floating point, so an amount with more digits than those keep is stored as text. Nothing that a
//! user typed is ever a formula: text cells of a workbook are typed as text, and in CSV such text is marked.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use rust_xlsxwriter::{Format, FormatAlign, Workbook, Worksheet, XlsxError};
use schemas::db::Database;
use schemas::ids::{CustomerId, PaymentId, RefundId, ServiceId, SubscriptionId, TransactionId};
use schemas::inventory::zone_named;
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::BillingError;

/// Rows of one sheet at most: a workbook holds 1,048,576, and this is built in memory.
pub const MAX_ROWS: i64 = 200_000;
/// Significant digits that a spreadsheet keeps of a number.
const SPREADSHEET_DIGITS: usize = 15;

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read what is stored")]
    Billing(#[from] BillingError),
    #[error("write CSV")]
    Csv(#[from] csv::Error),
    #[error("write a workbook")]
    Xlsx(#[from] XlsxError),
    #[error("the sheet of {sheet} would have more than {MAX_ROWS} rows: choose a shorter time")]
    TooMany { sheet: &'static str },
}

schemas::error_codes! {
    ExportError: "export";
    of [Database, Billing]
    source []
    Refused: TooMany = "too_many";
    Fault: Csv = "csv", Xlsx = "xlsx";
}

/// What is exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SheetKind {
    /// Invoices and credit notes.
    Documents,
    /// Each tax of each document, by rate.
    Taxes,
    Lines,
    Payments,
    Refunds,
    Postings,
}

impl SheetKind {
    pub const ALL: [SheetKind; 6] = [
        SheetKind::Documents,
        SheetKind::Taxes,
        SheetKind::Lines,
        SheetKind::Payments,
        SheetKind::Refunds,
        SheetKind::Postings,
    ];

    pub fn name(self) -> &'static str {
        match self {
            SheetKind::Documents => "documents",
            SheetKind::Taxes => "taxes",
            SheetKind::Lines => "lines",
            SheetKind::Payments => "payments",
            SheetKind::Refunds => "refunds",
            SheetKind::Postings => "postings",
        }
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<SheetKind> {
        SheetKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            SheetKind::Documents => &[
                "number",
                "kind",
                "status",
                "customer",
                "customer_name",
                "country",
                "vat_id",
                "currency",
                "issued_on",
                "due_on",
                "finalised_at",
                "subtotal",
                "tax",
                "total",
                "corrects",
                "reason",
            ],
            SheetKind::Taxes => &[
                "number",
                "kind",
                "finalised_at",
                "customer",
                "customer_name",
                "currency",
                "tax_name",
                "category",
                "rate_percent",
                "net",
                "tax",
                "note",
            ],
            SheetKind::Lines => &[
                "number",
                "position",
                "finalised_at",
                "customer",
                "subscription",
                "service",
                "kind",
                "description",
                "period_start",
                "period_end",
                "quantity",
                "unit",
                "unit_price",
                "currency",
                "net",
            ],
            SheetKind::Payments => &[
                "payment",
                "customer",
                "customer_name",
                "invoice",
                "gateway",
                "reference",
                "state",
                "currency",
                "amount",
                "created_at",
                "paid_at",
                "value_date",
                "refunded",
            ],
            SheetKind::Refunds => &[
                "refund",
                "payment",
                "customer",
                "customer_name",
                "invoice",
                "credit_note",
                "gateway",
                "reference",
                "status",
                "currency",
                "amount",
                "requested_at",
                "reason",
                "requested_by",
            ],
            SheetKind::Postings => &[
                "transaction",
                "posted_at",
                "value_date",
                "description",
                "account",
                "account_kind",
                "customer",
                "invoice",
                "payment",
                "currency",
                "debit",
                "credit",
            ],
        }
    }

    fn sql(self) -> &'static str {
        match self {
            SheetKind::Documents => {
                "SELECT i.number, i.kind, i.status, i.customer_id, i.customer_name, i.buyer, i.currency, i.finalised_at_ms, \
                 i.due_at_ms, i.time_zone, i.subtotal_minor, i.tax_minor, i.total_minor, c.number AS corrects, i.reason FROM invoices i \
                 LEFT JOIN invoices c ON c.id = i.corrects_invoice_id \
                 WHERE i.finalised_at_ms >= $1 AND i.finalised_at_ms < $2 ORDER BY i.id LIMIT $3"
            }
            SheetKind::Taxes => {
                "SELECT i.number, i.kind, i.finalised_at_ms, i.customer_id, i.customer_name, i.currency, t.name, t.category, \
                 t.rate_percent, t.net_minor, t.tax_minor, t.note FROM invoices i JOIN invoice_taxes t ON t.invoice_id = i.id \
                 WHERE i.finalised_at_ms >= $1 AND i.finalised_at_ms < $2 ORDER BY i.id, t.position LIMIT $3"
            }
            SheetKind::Lines => {
                "SELECT i.number, l.position, i.finalised_at_ms, i.customer_id, l.subscription_id, l.service_id, l.kind, \
                 l.description, l.period_start_ms, l.period_end_ms, l.quantity, l.unit, l.unit_price, i.currency, \
                 l.amount_minor FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id \
                 WHERE i.finalised_at_ms >= $1 AND i.finalised_at_ms < $2 ORDER BY i.id, l.position LIMIT $3"
            }
            SheetKind::Payments => {
                "SELECT p.id, p.customer_id, c.name, i.number, p.gateway, p.reference, CASE WHEN EXISTS \
                 (SELECT 1 FROM payment_reversals v WHERE v.payment_id = p.id) THEN 'reversed' ELSE p.state END AS state, \
                 p.currency, p.amount_minor, \
                 p.created_at_ms, p.paid_at_ms, p.value_at_ms, coalesce((SELECT CAST(sum(r.amount_minor) AS BIGINT) FROM refunds r \
                   WHERE r.payment_id = p.id AND r.state = 'succeeded'), 0) AS refunded_minor FROM payments p \
                 JOIN customers c ON c.id = p.customer_id LEFT JOIN invoices i ON i.id = p.invoice_id \
                 WHERE coalesce(p.paid_at_ms, p.created_at_ms) >= $1 AND coalesce(p.paid_at_ms, p.created_at_ms) < $2 \
                 ORDER BY p.id LIMIT $3"
            }
            // A refund and its credit note are made in one transaction, of one instant and one reason.
            SheetKind::Refunds => {
                "SELECT r.id, r.payment_id, p.customer_id, c.name, i.number, (SELECT max(n.number) FROM invoices n \
                 WHERE n.corrects_invoice_id = p.invoice_id AND n.finalised_at_ms = r.created_at_ms AND n.reason = \
                 r.reason) \
                 AS credit_note, p.gateway, r.reference, r.state, r.currency, r.amount_minor, r.created_at_ms, \
                 r.reason, \
                 r.created_by FROM refunds r JOIN payments p ON p.id = r.payment_id JOIN customers c ON c.id = \
                 p.customer_id \
                 LEFT JOIN invoices i ON i.id = p.invoice_id \
                 WHERE r.created_at_ms >= $1 AND r.created_at_ms < $2 ORDER BY r.id LIMIT $3"
            }
            SheetKind::Postings => {
                "SELECT t.id, t.posted_at_ms, coalesce((SELECT y.value_at_ms FROM payments y WHERE y.id = t.payment_id \
                   AND t.idempotency_key = 'payment:pay_' || CAST(y.id AS TEXT)), t.posted_at_ms) AS value_at_ms, t.description, a.name, a.kind, t.customer_id, i.number, t.payment_id, \
                 p.currency, p.amount_minor FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id \
                 JOIN ledger_accounts a ON a.id = p.account_id LEFT JOIN invoices i ON i.id = t.invoice_id \
                 WHERE t.posted_at_ms >= $1 AND t.posted_at_ms < $2 ORDER BY t.id, p.position LIMIT $3"
            }
        }
    }
}

/// A value of a sheet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    Empty,
    /// What we wrote: ids, instants, names of kinds.
    Plain(String),
    /// What somebody else may have typed.
    Typed(String),
    Number(Decimal),
}

/// A table to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sheet {
    pub kind: SheetKind,
    pub rows: Vec<Vec<Cell>>,
}

/// What was in `[from_ms, to_ms)`: documents by their finalisation, payments by when they were paid, or made where they were
/// not, refunds by when they were made, postings by when they were posted: a month that was exported stays what it
/// was, and the value date is a column.
///
/// # Errors
/// [`ExportError::TooMany`] beyond [`MAX_ROWS`].
pub async fn sheet(
    connection: &mut AnyConnection,
    kind: SheetKind,
    from_ms: i64,
    to_ms: i64,
) -> Result<Sheet, ExportError> {
    let rows = sqlx::query(kind.sql())
        .bind(from_ms)
        .bind(to_ms)
        .bind(MAX_ROWS + 1)
        .fetch_all(connection)
        .await?;
    if i64::try_from(rows.len()).unwrap_or(i64::MAX) > MAX_ROWS {
        return Err(ExportError::TooMany { sheet: kind.name() });
    }
    let rows = rows.iter().map(|row| read(kind, row)).collect::<Result<_, _>>()?;
    Ok(Sheet { kind, rows })
}

/// All sheets of a time, seen at one moment.
///
/// # Errors
/// [`ExportError::TooMany`] beyond [`MAX_ROWS`] in one of them.
pub async fn sheets(database: &Database, from_ms: i64, to_ms: i64) -> Result<Vec<Sheet>, ExportError> {
    let mut transaction = database.pool().begin().await?;
    let mut found = Vec::with_capacity(SheetKind::ALL.len());
    for kind in SheetKind::ALL {
        found.push(sheet(&mut transaction, kind, from_ms, to_ms).await?);
    }
    transaction.rollback().await?;
    Ok(found)
}

fn read(kind: SheetKind, row: &AnyRow) -> Result<Vec<Cell>, BillingError> {
    let plain = |column: &str| Ok::<_, BillingError>(Cell::Plain(row.try_get::<String, _>(column)?));
    let typed = |column: &str| {
        let text: Option<String> = row.try_get(column)?;
        Ok::<_, BillingError>(text.filter(|text| !text.is_empty()).map_or(Cell::Empty, Cell::Typed))
    };
    let at = |column: &str| Ok::<_, BillingError>(instant(row.try_get(column)?));
    let number = |column: &str| {
        let text: String = row.try_get(column)?;
        let value = text.parse().map_err(|_| BillingError::corrupt("number", text))?;
        Ok::<_, BillingError>(Cell::Number(value))
    };
    let id = |column: &str| row.try_get::<Option<i64>, _>(column);
    let named = |id: Option<String>| id.map_or(Cell::Empty, Cell::Plain);
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let money = |minor: i64| Cell::Number(Money::new(minor, currency).to_major());
    let amount = |column: &str| Ok::<_, BillingError>(money(row.try_get(column)?));
    let customer = || Ok::<_, BillingError>(named(id("customer_id")?.map(|id| CustomerId(id).to_string())));
    Ok(match kind {
        SheetKind::Documents => {
            let zone = zone_named(&row.try_get::<String, _>("time_zone")?)?;
            let buyer: crate::invoice::Buyer = serde_json::from_str(&row.try_get::<String, _>("buyer")?)?;
            vec![
                plain("number")?,
                plain("kind")?,
                plain("status")?,
                customer()?,
                typed("customer_name")?,
                Cell::Typed(buyer.country),
                Cell::Typed(buyer.vat_id),
                Cell::Plain(currency.to_string()),
                printed(row.try_get("finalised_at_ms")?, &zone),
                // A credit note is not due.
                match row.try_get::<String, _>("kind")?.as_str() {
                    "invoice" => printed(row.try_get("due_at_ms")?, &zone),
                    _ => Cell::Empty,
                },
                at("finalised_at_ms")?,
                amount("subtotal_minor")?,
                amount("tax_minor")?,
                amount("total_minor")?,
                typed("corrects")?,
                typed("reason")?,
            ]
        }
        SheetKind::Taxes => vec![
            plain("number")?,
            plain("kind")?,
            at("finalised_at_ms")?,
            customer()?,
            typed("customer_name")?,
            Cell::Plain(currency.to_string()),
            typed("name")?,
            plain("category")?,
            number("rate_percent")?,
            amount("net_minor")?,
            amount("tax_minor")?,
            typed("note")?,
        ],
        SheetKind::Lines => vec![
            plain("number")?,
            Cell::Number(Decimal::from(row.try_get::<i64, _>("position")?)),
            at("finalised_at_ms")?,
            customer()?,
            named(id("subscription_id")?.map(|id| SubscriptionId(id).to_string())),
            named(id("service_id")?.map(|id| ServiceId(id).to_string())),
            plain("kind")?,
            typed("description")?,
            at("period_start_ms")?,
            at("period_end_ms")?,
            number("quantity")?,
            typed("unit")?,
            number("unit_price")?,
            Cell::Plain(currency.to_string()),
            amount("amount_minor")?,
        ],
        SheetKind::Payments => vec![
            Cell::Plain(PaymentId(row.try_get("id")?).to_string()),
            customer()?,
            typed("name")?,
            typed("number")?,
            plain("gateway")?,
            typed("reference")?,
            plain("state")?,
            Cell::Plain(currency.to_string()),
            amount("amount_minor")?,
            at("created_at_ms")?,
            id("paid_at_ms")?.map_or(Cell::Empty, instant),
            id("value_at_ms")?.map_or(Cell::Empty, |at_ms| printed(at_ms, &TimeZone::UTC)),
            amount("refunded_minor")?,
        ],
        SheetKind::Refunds => vec![
            Cell::Plain(RefundId(row.try_get("id")?).to_string()),
            Cell::Plain(PaymentId(row.try_get("payment_id")?).to_string()),
            customer()?,
            typed("name")?,
            typed("number")?,
            typed("credit_note")?,
            plain("gateway")?,
            typed("reference")?,
            plain("state")?,
            Cell::Plain(currency.to_string()),
            amount("amount_minor")?,
            at("created_at_ms")?,
            typed("reason")?,
            typed("created_by")?,
        ],
        SheetKind::Postings => {
            let minor: i64 = row.try_get("amount_minor")?;
            let (debit, credit) = if minor >= 0 {
                (money(minor), Cell::Empty)
            } else {
                (Cell::Empty, money(minor.saturating_neg()))
            };
            vec![
                Cell::Plain(TransactionId(row.try_get("id")?).to_string()),
                at("posted_at_ms")?,
                printed(row.try_get("value_at_ms")?, &TimeZone::UTC),
                typed("description")?,
                plain("name")?,
                plain("kind")?,
                customer()?,
                typed("number")?,
                named(id("payment_id")?.map(|id| PaymentId(id).to_string())),
                Cell::Plain(currency.to_string()),
                debit,
                credit,
            ]
        }
    })
}

/// The day of an instant as a document prints it, in the document's own time zone.
fn printed(at_ms: i64, zone: &TimeZone) -> Cell {
    let date = schemas::period::local_date(at_ms, zone);
    date.map_or(Cell::Empty, |date| Cell::Plain(date.to_string()))
}

fn instant(at_ms: i64) -> Cell {
    Timestamp::from_millisecond(at_ms).map_or(Cell::Empty, |at| Cell::Plain(at.to_string()))
}

/// A sheet as CSV (RFC 4180) with a header line.
///
/// # Errors
/// When it cannot be written.
pub fn csv(sheet: &Sheet) -> Result<String, ExportError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(sheet.kind.columns())?;
    for row in &sheet.rows {
        writer.write_record(row.iter().map(|cell| match cell {
            Cell::Empty => String::new(),
            Cell::Plain(text) => text.clone(),
            Cell::Typed(text) => schemas::spreadsheet::inert(text.clone()),
            Cell::Number(value) => value.to_string(),
        }))?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| csv::Error::from(error.into_error()))?;
    String::from_utf8(bytes).map_err(|_| BillingError::corrupt("export", "not UTF-8").into())
}

/// Sheets as one workbook.
///
/// # Errors
/// When it cannot be written.
pub fn xlsx(sheets: &[Sheet]) -> Result<Vec<u8>, ExportError> {
    let mut workbook = Workbook::new();
    let head = Format::new().set_bold();
    let right = Format::new().set_align(FormatAlign::Right);
    for sheet in sheets {
        let worksheet = workbook.add_worksheet();
        worksheet.set_name(sheet.kind.name())?;
        worksheet.set_freeze_panes(1, 0)?;
        for (column, name) in (0u16..).zip(sheet.kind.columns()) {
            worksheet.write_string_with_format(0, column, *name, &head)?;
            worksheet.set_column_width(column, width(sheet, usize::from(column), name))?;
        }
        for (row, cells) in (1u32..).zip(&sheet.rows) {
            for (column, cell) in (0u16..).zip(cells) {
                write_cell(worksheet, row, column, cell, &right)?;
            }
        }
    }
    Ok(workbook.save_to_buffer()?)
}

fn write_cell(sheet: &mut Worksheet, row: u32, column: u16, cell: &Cell, right: &Format) -> Result<(), ExportError> {
    match cell {
        Cell::Empty => {}
        Cell::Plain(text) | Cell::Typed(text) => {
            sheet.write_string(row, column, text)?;
        }
        Cell::Number(value) => {
            let text = value.to_string();
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            match text.parse::<f64>() {
                // Its shortest decimal form, which is what is written, is the amount itself.
                Ok(number) if digits <= SPREADSHEET_DIGITS => {
                    let places = usize::try_from(value.scale()).unwrap_or(0);
                    let mask = match places {
                        0 => "0".to_owned(),
                        places => format!("0.{}", "0".repeat(places)),
                    };
                    sheet.write_number_with_format(row, column, number, &Format::new().set_num_format(mask))?;
                }
                _ => {
                    sheet.write_string_with_format(row, column, &text, right)?;
                }
            }
        }
    }
    Ok(())
}

/// In characters: enough for the header and the first rows, within reason.
fn width(sheet: &Sheet, column: usize, name: &str) -> f64 {
    let longest = sheet.rows.iter().take(100).filter_map(|row| row.get(column));
    let longest = longest.map(|cell| match cell {
        Cell::Empty => 0,
        Cell::Plain(text) | Cell::Typed(text) => text.chars().count(),
        Cell::Number(value) => value.to_string().len(),
    });
    let chars = longest.max().unwrap_or(0).max(name.len()).clamp(8, 40) + 2;
    f64::from(u32::try_from(chars).unwrap_or(42))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_row() -> Sheet {
        let kind = SheetKind::Taxes;
        let mut row = vec![
            Cell::Plain("INV-2026-000001".to_owned()),
            Cell::Typed("=HYPERLINK(\"http://evil\")".to_owned()),
            Cell::Number("0.10".parse().unwrap()),
            Cell::Number("90071992547409.93".parse().unwrap()),
            Cell::Number("-12345.67".parse().unwrap()),
        ];
        row.resize(kind.columns().len(), Cell::Empty);
        Sheet { kind, rows: vec![row] }
    }

    #[test]
    fn csv_keeps_every_digit_and_no_formula() {
        let text = csv(&one_row()).unwrap();
        let row = text.lines().nth(1).unwrap();
        assert_eq!(
            row,
            "INV-2026-000001,\"'=HYPERLINK(\"\"http://evil\"\")\",0.10,90071992547409.93,-12345.67,,,,,,,"
        );
    }

    #[test]
    fn a_workbook_is_written_and_names_its_sheets() {
        let bytes = xlsx(&[one_row()]).unwrap();
        assert_eq!(&bytes[..2], b"PK");
    }

    #[test]
    fn every_sheet_has_a_name_of_its_own() {
        for kind in SheetKind::ALL {
            assert_eq!(SheetKind::named(kind.name()), Some(kind));
        }
        assert_eq!(SheetKind::named("users"), None);
    }
}
