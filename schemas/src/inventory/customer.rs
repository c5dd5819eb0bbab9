//! Customers: who pays, in which currency, in which time zone.

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{InventoryError, MAX_EMAIL_CHARS, MAX_NAME_CHARS, checked_text};
use crate::db::next_id;
use crate::ids::CustomerId;
use crate::money::Currency;
use crate::percent::Percent;

/// Somebody who pays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Customer {
    pub id: CustomerId,
    pub name: String,
    pub email: String,
    /// Everything this customer is charged is in this currency.
    pub currency: Currency,
    /// Billing periods and days are those of this zone.
    pub time_zone: TimeZone,
    /// ISO 3166-1, two letters.
    pub country: String,
    pub tax_rate: Percent,
    pub created_at_ms: i64,
}

impl Customer {
    /// The IANA name of the time zone.
    pub fn time_zone_name(&self) -> &str {
        self.time_zone.iana_name().unwrap_or("UTC")
    }
}

/// A customer as somebody typed it: every field is checked by [`create_customer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewCustomer<'a> {
    pub name: &'a str,
    pub email: &'a str,
    /// ISO 4217: `USD`.
    pub currency: &'a str,
    /// IANA: `Europe/Berlin`, `UTC`.
    pub time_zone: &'a str,
    /// ISO 3166-1: `DE`.
    pub country: &'a str,
    /// Exact decimal from 0 to 100: `19`, `8.875`.
    pub tax_rate_percent: &'a str,
}

const SELECT: &str =
    "SELECT id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms FROM customers";

/// Checks and stores a customer.
///
/// # Errors
/// When a field is not valid or the email address is taken.
pub async fn create_customer(
    connection: &mut AnyConnection,
    new: NewCustomer<'_>,
    now_ms: i64,
) -> Result<Customer, InventoryError> {
    let name = checked_text("customer name", new.name, MAX_NAME_CHARS)?;
    let email = checked_email(new.email)?;
    let currency: Currency = new.currency.trim().parse()?;
    let time_zone = zone_named(new.time_zone)?;
    let country = new.country.trim();
    if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(InventoryError::Country(new.country.to_owned()));
    }
    let tax_rate: Decimal = new
        .tax_rate_percent
        .trim()
        .parse()
        .map_err(|_| InventoryError::TaxRate(new.tax_rate_percent.to_owned()))?;
    let tax_rate = Percent::new(tax_rate)?;

    // The sequence's row lock makes concurrent creators take turns, so that the look-up below sees them.
    let id = CustomerId(next_id(connection, "customer").await?);
    if let Some(holder) = customer_by_email(&mut *connection, &email).await? {
        return Err(InventoryError::EmailTaken {
            email,
            holder: holder.id,
        });
    }
    let customer = Customer {
        id,
        name,
        email,
        currency,
        time_zone,
        country: country.to_owned(),
        tax_rate,
        created_at_ms: now_ms,
    };
    sqlx::query(
        "INSERT INTO customers (id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.0)
    .bind(&customer.name)
    .bind(&customer.email)
    .bind(customer.currency.code())
    .bind(customer.time_zone_name())
    .bind(&customer.country)
    .bind(tax_rate.value().normalize().to_string())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(customer)
}

/// Every customer, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn customers(db: impl AnyExecutor<'_>) -> Result<Vec<Customer>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// One customer.
///
/// # Errors
/// [`InventoryError::NoCustomer`] when there is none of this id.
pub async fn customer(db: impl AnyExecutor<'_>, id: CustomerId) -> Result<Customer, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(InventoryError::NoCustomer(id))?)
}

/// The customer with this email address, if any.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn customer_by_email(db: impl AnyExecutor<'_>, email: &str) -> Result<Option<Customer>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE email = $1"));
    let row = sqlx::query(sql)
        .bind(email.trim().to_lowercase())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(read).transpose()
}

/// A time zone by its IANA name.
///
/// # Errors
/// When jiff does not know it.
pub fn zone_named(name: &str) -> Result<TimeZone, InventoryError> {
    let zone = TimeZone::get(name.trim()).map_err(|_| InventoryError::TimeZone(name.to_owned()))?;
    match zone.iana_name() {
        Some(_) => Ok(zone),
        None => Err(InventoryError::TimeZone(name.to_owned())),
    }
}

/// The shape of an address, in lower case: one `@`, a name before it, a dotted host after it, no white space.
fn checked_email(text: &str) -> Result<String, InventoryError> {
    let email = text.trim().to_lowercase();
    let refuse = || InventoryError::Email(text.to_owned());
    let (name, host) = email.split_once('@').ok_or_else(refuse)?;
    let labels_are_sound = host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    });
    let name_is_sound =
        !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || "<>,;:\"".contains(c));
    if !name_is_sound || !labels_are_sound || !host.contains('.') || email.chars().count() > MAX_EMAIL_CHARS {
        return Err(refuse());
    }
    Ok(email)
}

fn read(row: &AnyRow) -> Result<Customer, InventoryError> {
    let tax_rate: String = row.try_get("tax_rate_percent")?;
    let tax_rate: Decimal = tax_rate.parse().map_err(|_| InventoryError::TaxRate(tax_rate))?;
    Ok(Customer {
        id: CustomerId(row.try_get("id")?),
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        currency: row.try_get::<String, _>("currency")?.parse()?,
        time_zone: zone_named(&row.try_get::<String, _>("time_zone")?)?,
        country: row.try_get("country")?,
        tax_rate: Percent::new(tax_rate)?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}
