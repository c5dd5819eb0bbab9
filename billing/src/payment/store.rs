//! Payments as rows.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, PaymentMethodId};
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{GatewayName, PaymentError, PaymentState};

/// Payments on a page at most.
pub const MAX_PAGE: i64 = 500;

/// What a payment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Invoice(InvoiceId),
    TopUp,
}

impl Purpose {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Purpose::Invoice(_) => "invoice",
            Purpose::TopUp => "top_up",
        }
    }

    pub fn invoice(self) -> Option<InvoiceId> {
        match self {
            Purpose::Invoice(invoice) => Some(invoice),
            Purpose::TopUp => None,
        }
    }
}

/// A payment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payment {
    pub id: PaymentId,
    pub customer: CustomerId,
    pub purpose: Purpose,
    pub gateway: GatewayName,
    pub method: Option<PaymentMethodId>,
    pub amount: Money,
    pub idempotency_key: String,
    pub state: PaymentState,
    /// It was recorded as a bank transfer, and never came in.
    pub is_reversed: bool,
    /// The gateway's id, once known.
    pub reference: Option<String>,
    /// Where the customer confirms it; empty where there is nothing to confirm.
    pub action_url: String,
    /// Why it failed, or what is known while nothing is.
    pub error: String,
    pub calls: i64,
    pub note: String,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    pub check_at_ms: Option<i64>,
    pub paid_at_ms: Option<i64>,
    /// When the bank or the gateway had it: of a transfer midnight UTC of its value date.
    pub value_at_ms: Option<i64>,
}

impl Payment {
    /// The day of the bank, as finance books it: days are those of UTC.
    pub fn value_date(&self) -> Option<Date> {
        let at = Timestamp::from_millisecond(self.value_at_ms?).ok()?;
        Some(at.to_zoned(TimeZone::UTC).date())
    }
}

pub(crate) const SELECT: &str = "SELECT id, customer_id, invoice_id, gateway, method_id, currency, amount_minor, idempotency_key, state, \
     reference, action_url, error, calls, note, created_at_ms, updated_at_ms, check_at_ms, paid_at_ms, value_at_ms, (SELECT count(*) FROM payment_reversals v WHERE v.payment_id = payments.id) AS reversals FROM payments";

/// Which payments to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PaymentFilter {
    /// Of this customer only (S1).
    pub customer: Option<CustomerId>,
    pub invoice: Option<InvoiceId>,
    pub state: Option<PaymentState>,
    /// Those for credit only.
    pub top_ups: bool,
    /// Older than this one: the last of the page before.
    pub before: Option<PaymentId>,
}

/// Payments, latest first, `limit` at most.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list(db: impl AnyExecutor<'_>, filter: PaymentFilter, limit: i64) -> Result<Vec<Payment>, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE id < $1 AND ($2 = 0 OR customer_id = $2) AND ($3 = 0 OR invoice_id = $3) \
         AND ($4 = '' OR state = $4) AND ($5 = 0 OR purpose = 'top_up') ORDER BY id DESC LIMIT $6"
    ));
    let rows = sqlx::query(sql)
        .bind(filter.before.map_or(i64::MAX, |before| before.0))
        .bind(filter.customer.map_or(0, |customer| customer.0))
        .bind(filter.invoice.map_or(0, |invoice| invoice.0))
        .bind(filter.state.map_or("", PaymentState::name))
        .bind(i64::from(filter.top_ups))
        .bind(limit.clamp(1, MAX_PAGE))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// One payment.
///
/// # Errors
/// [`PaymentError::NoPayment`] when there is none of this id.
pub async fn payment(db: impl AnyExecutor<'_>, id: PaymentId) -> Result<Payment, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(PaymentError::NoPayment(id))?)
}

pub(crate) async fn by_key(connection: &mut AnyConnection, key: &str) -> Result<Option<Payment>, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE idempotency_key = $1"));
    let row = sqlx::query(sql).bind(key).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

pub(crate) async fn by_reference(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    reference: &str,
) -> Result<Option<Payment>, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE gateway = $1 AND reference = $2 ORDER BY id LIMIT 1"
    ));
    let row = sqlx::query(sql)
        .bind(gateway.name())
        .bind(reference)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

pub(crate) fn read(row: &AnyRow) -> Result<Payment, PaymentError> {
    let invoice: Option<i64> = row.try_get("invoice_id")?;
    let method: Option<i64> = row.try_get("method_id")?;
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    Ok(Payment {
        id: PaymentId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        purpose: invoice.map_or(Purpose::TopUp, |id| Purpose::Invoice(InvoiceId(id))),
        gateway: row.try_get::<String, _>("gateway")?.parse()?,
        method: method.map(PaymentMethodId),
        amount: Money::new(row.try_get("amount_minor")?, currency),
        idempotency_key: row.try_get("idempotency_key")?,
        state: row.try_get::<String, _>("state")?.parse()?,
        is_reversed: row.try_get::<i64, _>("reversals")? > 0,
        reference: row.try_get("reference")?,
        action_url: row.try_get("action_url")?,
        error: row.try_get("error")?,
        calls: row.try_get("calls")?,
        note: row.try_get("note")?,
        created_at_ms: row.try_get("created_at_ms")?,
        updated_at_ms: row.try_get("updated_at_ms")?,
        check_at_ms: row.try_get("check_at_ms")?,
        paid_at_ms: row.try_get("paid_at_ms")?,
        value_at_ms: row.try_get("value_at_ms")?,
    })
}
