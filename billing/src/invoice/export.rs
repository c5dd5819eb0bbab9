//! Invoices as CSV, for people who keep books in spreadsheets.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use schemas::spreadsheet::inert;

use super::Invoice;
use crate::BillingError;

/// Invoices as CSV (RFC 4180) with a header line. Amounts are in major units with all their digits, dates are local to
/// the invoice (ISO 8601); `period_end` is the first day after the period.
///
/// # Errors
/// When a date is beyond the calendar.
pub fn export_csv(invoices: &[Invoice]) -> Result<String, BillingError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "kind",
        "number",
        "customer",
        "customer_name",
        "currency",
        "period_start",
        "period_end",
        "issued_on",
        "finalised_at",
        "due_on",
        "status",
        "subtotal",
        "tax",
        "total",
        "settled",
        "outstanding",
    ])?;
    for invoice in invoices {
        let zone = TimeZone::get(&invoice.time_zone).map_err(|error| BillingError::Period(error.into()))?;
        let instant = |ms: i64| Timestamp::from_millisecond(ms).map_err(|error| BillingError::Period(error.into()));
        let date = |ms: i64| Ok::<_, BillingError>(instant(ms)?.to_zoned(zone.clone()).date().to_string());
        writer.write_record([
            invoice.kind.name().to_owned(),
            inert(invoice.number.clone()),
            invoice.customer.to_string(),
            inert(invoice.customer_name.clone()),
            invoice.currency.to_string(),
            date(invoice.period_start_ms)?,
            date(invoice.period_end_ms)?,
            date(invoice.finalised_at_ms)?,
            instant(invoice.finalised_at_ms)?.to_string(),
            date(invoice.due_at_ms)?,
            invoice.status.name().to_owned(),
            invoice.subtotal.to_major().to_string(),
            invoice.tax.to_major().to_string(),
            invoice.total.to_major().to_string(),
            invoice.settled.to_major().to_string(),
            invoice.outstanding().to_major().to_string(),
        ])?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| csv::Error::from(error.into_error()))?;
    String::from_utf8(bytes).map_err(|_| BillingError::corrupt("invoice", "not UTF-8"))
}
