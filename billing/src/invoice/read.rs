//! Reading finalised invoices.

use schemas::db::Database;
use schemas::ids::{CustomerId, EntityId, InvoiceId, InvoiceLineId, ServiceId, SubscriptionId};
use schemas::money::{Currency, Money};
use schemas::percent::Percent;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Invoice, InvoiceFilter, InvoiceLine, InvoiceWithLines, MAX_PAGE, OpenAt, open_at_sql};
use crate::BillingError;
use crate::field::read_decimal;
use crate::tax::{TaxAmount, TaxGroup, TaxRule};

const SELECT: &str = "SELECT id, kind, number, entity_id, customer_id, customer_name, seller, buyer, currency, period_start_ms, \
     period_end_ms, time_zone, status, corrects_invoice_id, reason, prices_include_tax, subtotal_minor, tax_minor, total_minor, \
     finalised_at_ms, due_at_ms, settled_at_ms, (SELECT CAST(coalesce(sum(a.amount_minor), 0) AS BIGINT) FROM allocations a \
     WHERE a.invoice_id = invoices.id) AS settled_minor FROM invoices";
pub(super) const LINE_COLUMNS: &str = "l.id, l.invoice_id, l.position, l.subscription_id, l.service_id, l.kind, l.description, l.quantity, l.unit, \
     l.unit_price, l.amount_minor, l.priced_minor, l.tax_group, l.period_start_ms, l.period_end_ms, l.evidence, i.currency, \
     i.number";
pub(super) const TAX_COLUMNS: &str = "t.invoice_id, t.name, t.category, t.rate_percent, t.net_minor, t.tax_minor, t.note, t.tax_group, \
     t.corrects_invoice_id, t.corrects_group, i.currency";
const FROM_LINES: &str = "FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id";

/// One invoice.
///
/// # Errors
/// [`BillingError::NoInvoice`] when there is none of this id.
pub async fn get(database: &Database, id: InvoiceId) -> Result<InvoiceWithLines, BillingError> {
    let mut connection = database.pool().acquire().await?;
    get_in(&mut connection, id).await
}

/// As [`get`], in the caller's transaction.
pub(super) async fn get_in(connection: &mut AnyConnection, id: InvoiceId) -> Result<InvoiceWithLines, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(&mut *connection).await?;
    let invoice = read(&row.ok_or(BillingError::NoInvoice(id))?)?;
    with_lines(connection, invoice).await
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
    let open_at = open_at_sql(8, 9);
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE ($1 = 0 OR customer_id = $1) AND ($2 = '' OR status = $2) \
         AND finalised_at_ms >= $3 AND finalised_at_ms < $4 AND id < $5 AND ($7 = '' OR kind = $7) AND {open_at} \
         ORDER BY id DESC LIMIT $6"
    ));
    let rows = sqlx::query(sql)
        .bind(filter.customer.map_or(0, |customer| customer.0))
        .bind(filter.status.map_or("", |status| status.name()))
        .bind(filter.from_ms.unwrap_or(i64::MIN))
        .bind(filter.to_ms.unwrap_or(i64::MAX))
        .bind(filter.before.map_or(i64::MAX, |invoice| invoice.0))
        .bind(filter.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE))
        .bind(filter.kind.map_or("", |kind| kind.name()))
        .bind(filter.open.map_or("", OpenAt::name))
        .bind(filter.open.map_or(0, |open| open.now_ms))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// One line.
///
/// # Errors
/// [`BillingError::NoInvoiceLine`] when there is none of this id.
pub async fn line(db: impl AnyExecutor<'_>, id: InvoiceLineId) -> Result<InvoiceLine, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {LINE_COLUMNS} {FROM_LINES} WHERE l.id = $1"));
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
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {LINE_COLUMNS} {FROM_LINES} WHERE l.id = $1 AND i.customer_id = $2"
    ));
    let row = sqlx::query(sql).bind(id.0).bind(customer.0).fetch_optional(db).await?;
    read_line(&row.ok_or(BillingError::NoInvoiceLine(id))?)
}

/// The IANA name of the zone of one invoice.
///
/// # Errors
/// [`BillingError::NoInvoice`] when there is none of this id.
pub(super) async fn time_zone_of(db: impl AnyExecutor<'_>, id: InvoiceId) -> Result<String, BillingError> {
    let row = sqlx::query("SELECT time_zone FROM invoices WHERE id = $1")
        .bind(id.0)
        .fetch_optional(db)
        .await?;
    Ok(row.ok_or(BillingError::NoInvoice(id))?.try_get(0)?)
}

async fn with_lines(connection: &mut AnyConnection, invoice: Invoice) -> Result<InvoiceWithLines, BillingError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {LINE_COLUMNS} {FROM_LINES} WHERE l.invoice_id = $1 ORDER BY l.position"
    ));
    let rows = sqlx::query(sql).bind(invoice.id.0).fetch_all(&mut *connection).await?;
    let lines: Result<Vec<InvoiceLine>, BillingError> = rows.iter().map(read_line).collect();
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {TAX_COLUMNS} FROM invoice_taxes t JOIN invoices i ON i.id = t.invoice_id WHERE i.id = $1 ORDER BY t.position"
    ));
    let rows = sqlx::query(sql).bind(invoice.id.0).fetch_all(connection).await?;
    let taxes: Result<Vec<TaxAmount>, BillingError> = rows.iter().map(read_tax).collect();
    Ok(InvoiceWithLines {
        invoice,
        lines: lines?,
        taxes: taxes?,
    })
}

pub(super) fn read_tax(row: &AnyRow) -> Result<TaxAmount, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let corrects: Option<i64> = row.try_get("corrects_invoice_id")?;
    let corrects_group: Option<i64> = row.try_get("corrects_group")?;
    let category: String = row.try_get("category")?;
    let rate = read_decimal("tax rate", row, "rate_percent")?;
    Ok(TaxAmount {
        rule: TaxRule {
            name: row.try_get("name")?,
            category: category
                .parse()
                .map_err(|_| BillingError::corrupt("tax category", category))?,
            rate: Percent::new(rate).map_err(|_| BillingError::corrupt("tax rate", rate.to_string()))?,
            note: row.try_get("note")?,
        },
        net: Money::new(row.try_get("net_minor")?, currency),
        tax: Money::new(row.try_get("tax_minor")?, currency),
        group: row.try_get("tax_group")?,
        corrects: corrects.zip(corrects_group).map(|(invoice, group)| TaxGroup {
            invoice: InvoiceId(invoice),
            group,
        }),
    })
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    row: &AnyRow,
    column: &str,
) -> Result<T, BillingError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| BillingError::corrupt(what, text))
}

fn read(row: &AnyRow) -> Result<Invoice, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    Ok(Invoice {
        id: InvoiceId(row.try_get("id")?),
        kind: row.try_get::<String, _>("kind")?.parse()?,
        number: row.try_get("number")?,
        entity: EntityId(row.try_get("entity_id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        customer_name: row.try_get("customer_name")?,
        seller: read_json("seller", row, "seller")?,
        buyer: read_json("buyer", row, "buyer")?,
        currency,
        period_start_ms: row.try_get("period_start_ms")?,
        period_end_ms: row.try_get("period_end_ms")?,
        time_zone: row.try_get("time_zone")?,
        status: row.try_get::<String, _>("status")?.parse()?,
        corrects: row.try_get::<Option<i64>, _>("corrects_invoice_id")?.map(InvoiceId),
        reason: row.try_get("reason")?,
        prices_include_tax: row.try_get::<i64, _>("prices_include_tax")? != 0,
        subtotal: Money::new(row.try_get("subtotal_minor")?, currency),
        tax: Money::new(row.try_get("tax_minor")?, currency),
        total: Money::new(row.try_get("total_minor")?, currency),
        settled: Money::new(row.try_get("settled_minor")?, currency),
        finalised_at_ms: row.try_get("finalised_at_ms")?,
        due_at_ms: row.try_get("due_at_ms")?,
        settled_at_ms: row.try_get("settled_at_ms")?,
    })
}

pub(super) fn read_line(row: &AnyRow) -> Result<InvoiceLine, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    Ok(InvoiceLine {
        id: InvoiceLineId(row.try_get("id")?),
        invoice: InvoiceId(row.try_get("invoice_id")?),
        position: row.try_get("position")?,
        subscription: row.try_get::<Option<i64>, _>("subscription_id")?.map(SubscriptionId),
        service: row.try_get::<Option<i64>, _>("service_id")?.map(ServiceId),
        kind: row.try_get::<String, _>("kind")?.parse()?,
        description: row.try_get("description")?,
        quantity: read_decimal("quantity", row, "quantity")?,
        unit: row.try_get("unit")?,
        unit_price: read_decimal("unit price", row, "unit_price")?,
        priced: Money::new(row.try_get("priced_minor")?, currency),
        amount: Money::new(row.try_get("amount_minor")?, currency),
        tax_group: row.try_get("tax_group")?,
        period_start_ms: row.try_get("period_start_ms")?,
        period_end_ms: row.try_get("period_end_ms")?,
        evidence: read_json("evidence", row, "evidence")?,
    })
}
