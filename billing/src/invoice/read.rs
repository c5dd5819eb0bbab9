//! Reading finalised invoices.

use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, ServiceId, SubscriptionId};
use schemas::money::{Currency, Money};
use schemas::percent::Percent;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Invoice, InvoiceFilter, InvoiceLine, InvoiceWithLines, MAX_PAGE};
use crate::BillingError;
use crate::catalog::read_decimal;

const SELECT: &str = "SELECT id, number, customer_id, customer_name, currency, period_start_ms, period_end_ms, time_zone, status, \
     subtotal_minor, tax_rate_percent, tax_minor, total_minor, finalised_at_ms, due_at_ms FROM invoices";
const SELECT_LINE: &str = "SELECT l.id, l.invoice_id, l.position, l.subscription_id, l.service_id, l.kind, l.description, l.quantity, l.unit, \
     l.unit_price, l.amount_minor, l.period_start_ms, l.period_end_ms, l.evidence, i.currency \
     FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id";

/// One invoice.
///
/// # Errors
/// [`BillingError::NoInvoice`] when there is none of this id.
pub async fn get(database: &Database, id: InvoiceId) -> Result<InvoiceWithLines, BillingError> {
    let mut connection = database.pool().acquire().await?;
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(&mut *connection).await?;
    let invoice = read(&row.ok_or(BillingError::NoInvoice(id))?)?;
    with_lines(&mut connection, invoice).await
}

/// One invoice of one customer (S1: another customer's invoice does not exist).
///
/// # Errors
/// [`BillingError::NoInvoice`] when the customer has none of this id.
pub async fn get_of(
    database: &Database,
    customer: CustomerId,
    id: InvoiceId,
) -> Result<InvoiceWithLines, BillingError> {
    let mut connection = database.pool().acquire().await?;
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1 AND customer_id = $2"));
    let row = sqlx::query(sql)
        .bind(id.0)
        .bind(customer.0)
        .fetch_optional(&mut *connection)
        .await?;
    let invoice = read(&row.ok_or(BillingError::NoInvoice(id))?)?;
    with_lines(&mut connection, invoice).await
}

/// The invoice with this number, if any.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn by_number(database: &Database, number: &str) -> Result<Option<InvoiceWithLines>, BillingError> {
    let mut connection = database.pool().acquire().await?;
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE number = $1"));
    let row = sqlx::query(sql).bind(number).fetch_optional(&mut *connection).await?;
    match row {
        Some(row) => Ok(Some(with_lines(&mut connection, read(&row)?).await?)),
        None => Ok(None),
    }
}

/// The invoices of one customer, newest first (S1: the customer is part of the question).
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list_of(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Vec<Invoice>, BillingError> {
    let filter = InvoiceFilter {
        customer: Some(customer),
        ..InvoiceFilter::default()
    };
    list_all(db, filter).await
}

/// Invoices, newest first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list_all(db: impl AnyExecutor<'_>, filter: InvoiceFilter) -> Result<Vec<Invoice>, BillingError> {
    // Absent filters are values that let everything through, so that there is one statement.
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE ($1 = 0 OR customer_id = $1) AND ($2 = '' OR status = $2) \
         AND finalised_at_ms >= $3 AND finalised_at_ms < $4 AND id < $5 ORDER BY id DESC LIMIT $6"
    ));
    let rows = sqlx::query(sql)
        .bind(filter.customer.map_or(0, |customer| customer.0))
        .bind(filter.status.map_or("", |status| status.name()))
        .bind(filter.from_ms.unwrap_or(i64::MIN))
        .bind(filter.to_ms.unwrap_or(i64::MAX))
        .bind(filter.before.map_or(i64::MAX, |invoice| invoice.0))
        .bind(filter.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// One line.
///
/// # Errors
/// [`BillingError::NoInvoiceLine`] when there is none of this id.
pub async fn line(db: impl AnyExecutor<'_>, id: InvoiceLineId) -> Result<InvoiceLine, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_LINE} WHERE l.id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read_line(&row.ok_or(BillingError::NoInvoiceLine(id))?)
}

/// One line of one customer's invoices (S1: another customer's line does not exist).
///
/// # Errors
/// [`BillingError::NoInvoiceLine`] when the customer has none of this id.
pub async fn line_of(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    id: InvoiceLineId,
) -> Result<InvoiceLine, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_LINE} WHERE l.id = $1 AND i.customer_id = $2"));
    let row = sqlx::query(sql).bind(id.0).bind(customer.0).fetch_optional(db).await?;
    read_line(&row.ok_or(BillingError::NoInvoiceLine(id))?)
}

/// The lines that charge one period of one subscription: its own and later adjustments, oldest first.
pub(super) async fn lines_of_period(
    db: impl AnyExecutor<'_>,
    subscription: SubscriptionId,
    period_start_ms: i64,
) -> Result<Vec<InvoiceLine>, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT_LINE} WHERE l.subscription_id = $1 AND l.period_start_ms = $2 ORDER BY l.id"
    ));
    let rows = sqlx::query(sql)
        .bind(subscription.0)
        .bind(period_start_ms)
        .fetch_all(db)
        .await?;
    rows.iter().map(read_line).collect()
}

async fn with_lines(connection: &mut AnyConnection, invoice: Invoice) -> Result<InvoiceWithLines, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_LINE} WHERE l.invoice_id = $1 ORDER BY l.position"));
    let rows = sqlx::query(sql).bind(invoice.id.0).fetch_all(connection).await?;
    let lines: Result<Vec<InvoiceLine>, BillingError> = rows.iter().map(read_line).collect();
    Ok(InvoiceWithLines { invoice, lines: lines? })
}

fn read(row: &AnyRow) -> Result<Invoice, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let tax_rate = read_decimal("tax rate", row, "tax_rate_percent")?;
    Ok(Invoice {
        id: InvoiceId(row.try_get("id")?),
        number: row.try_get("number")?,
        customer: CustomerId(row.try_get("customer_id")?),
        customer_name: row.try_get("customer_name")?,
        currency,
        period_start_ms: row.try_get("period_start_ms")?,
        period_end_ms: row.try_get("period_end_ms")?,
        time_zone: row.try_get("time_zone")?,
        status: row.try_get::<String, _>("status")?.parse()?,
        subtotal: Money::new(row.try_get("subtotal_minor")?, currency),
        tax_rate: Percent::new(tax_rate).map_err(|_| BillingError::corrupt("tax rate", tax_rate.to_string()))?,
        tax: Money::new(row.try_get("tax_minor")?, currency),
        total: Money::new(row.try_get("total_minor")?, currency),
        finalised_at_ms: row.try_get("finalised_at_ms")?,
        due_at_ms: row.try_get("due_at_ms")?,
    })
}

fn read_line(row: &AnyRow) -> Result<InvoiceLine, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let evidence: String = row.try_get("evidence")?;
    Ok(InvoiceLine {
        id: InvoiceLineId(row.try_get("id")?),
        invoice: InvoiceId(row.try_get("invoice_id")?),
        position: row.try_get("position")?,
        subscription: SubscriptionId(row.try_get("subscription_id")?),
        service: ServiceId(row.try_get("service_id")?),
        kind: row.try_get::<String, _>("kind")?.parse()?,
        description: row.try_get("description")?,
        quantity: read_decimal("quantity", row, "quantity")?,
        unit: row.try_get("unit")?,
        unit_price: read_decimal("unit price", row, "unit_price")?,
        amount: Money::new(row.try_get("amount_minor")?, currency),
        period_start_ms: row.try_get("period_start_ms")?,
        period_end_ms: row.try_get("period_end_ms")?,
        evidence: serde_json::from_str(&evidence).map_err(|_| BillingError::corrupt("evidence", evidence))?,
    })
}
