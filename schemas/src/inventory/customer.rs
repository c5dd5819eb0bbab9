//! Customers: who pays, in which currency, in which time zone.

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::entity::{FIRST_ENTITY, entity};
use super::{
    InventoryError, MAX_EMAIL_CHARS, MAX_NAME_CHARS, MAX_PROFILE_CHARS, checked_optional, checked_text, country_named,
};
use crate::db::{next_id, next_ids};
use crate::ids::{CustomerId, EntityId};
use crate::money::Currency;
use crate::percent::Percent;
use crate::search;
use crate::text::is_plain;
use crate::vat_number;

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
    /// Agreed with this customer; 0: by the tax rules.
    pub tax_rate: Percent,
    pub billing: BillingProfile,
    pub email_verified_at_ms: Option<i64>,
    pub created_at_ms: i64,
    /// When the account was deleted: nothing more is sold to it, charged to it or granted to it.
    pub deleted_at_ms: Option<i64>,
}

/// What invoices to a customer say and follow; what is not known is empty.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct BillingProfile {
    /// Who invoices this customer.
    pub entity: EntityId,
    pub street: String,
    pub postal_code: String,
    pub city: String,
    /// State or province, as tax rates name it: `CA`, `QC`.
    pub region: String,
    /// With its country's prefix: `DE136695976`; see [`vat_number`].
    pub vat_id: String,
    /// The customer's own reference, printed on invoices.
    pub purchase_order: String,
    /// Why no tax is charged; empty where it is.
    pub tax_exempt_reason: String,
    /// Prices are what the customer pays, tax included.
    pub prices_include_tax: bool,
    /// Included transfer is counted over all of the customer's services.
    pub pools_usage: bool,
}

impl Default for BillingProfile {
    fn default() -> BillingProfile {
        BillingProfile {
            entity: FIRST_ENTITY,
            street: String::new(),
            postal_code: String::new(),
            city: String::new(),
            region: String::new(),
            vat_id: String::new(),
            purchase_order: String::new(),
            tax_exempt_reason: String::new(),
            prices_include_tax: false,
            pools_usage: false,
        }
    }
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

const SELECT: &str = "SELECT id, entity_id, name, email, currency, time_zone, country, region, street, postal_code, city, vat_id, \
     purchase_order, tax_rate_percent, tax_exempt_reason, prices_include_tax, pools_usage, email_verified_at_ms, created_at_ms, \
     deleted_at_ms FROM customers";

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
    let currency = Currency::in_use(new.currency.trim())?;
    let time_zone = zone_named(new.time_zone)?;
    let country = country_named(new.country)?;
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
        country,
        tax_rate,
        billing: BillingProfile::default(),
        email_verified_at_ms: None,
        created_at_ms: now_ms,
        deleted_at_ms: None,
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
    .execute(&mut *connection)
    .await?;
    search::index_customer(connection, id, &customer.name, &customer.email).await?;
    Ok(customer)
}

/// Changes where a customer is written to. Nobody has shown that they read the new address; what was mailed to verify the
/// old one is void. False where it is the address that is stored.
///
/// # Errors
/// When it is no address or another customer's, or there is no such customer.
pub async fn change_email(connection: &mut AnyConnection, id: CustomerId, email: &str) -> Result<bool, InventoryError> {
    let email = checked_email(email)?;
    // Creators of customers take turns at this sequence: nobody takes the address between the look-up and the change.
    next_ids(&mut *connection, "customer", 0).await?;
    if let Some(holder) = customer_by_email(&mut *connection, &email).await? {
        if holder.id == id {
            return Ok(false);
        }
        return Err(InventoryError::EmailTaken {
            email,
            holder: holder.id,
        });
    }
    let changed = sqlx::query("UPDATE customers SET email = $1, email_verified_at_ms = NULL WHERE id = $2")
        .bind(&email)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    if changed.rows_affected() == 0 {
        return Err(InventoryError::NoCustomer(id));
    }
    sqlx::query("DELETE FROM email_verifications WHERE customer_id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let name = customer(&mut *connection, id).await?.name;
    search::index_customer(connection, id, &name, &email).await?;
    Ok(true)
}

/// Changes what invoices to a customer say and follow, from the next one on.
///
/// # Errors
/// When a field is not valid, or there is no such customer or entity.
pub async fn change_billing_profile(
    connection: &mut AnyConnection,
    id: CustomerId,
    profile: &BillingProfile,
) -> Result<(), InventoryError> {
    customer(&mut *connection, id).await?;
    entity(&mut *connection, profile.entity).await?;
    let optional = |field, text: &str| checked_optional(field, text, MAX_PROFILE_CHARS);
    sqlx::query(
        "UPDATE customers SET entity_id = $1, street = $2, postal_code = $3, city = $4, region = $5, vat_id = $6, \
         purchase_order = $7, tax_exempt_reason = $8, prices_include_tax = $9, pools_usage = $10 WHERE id = $11",
    )
    .bind(profile.entity.0)
    .bind(optional("street", &profile.street)?)
    .bind(optional("postal code", &profile.postal_code)?)
    .bind(optional("city", &profile.city)?)
    .bind(optional("region", &profile.region)?)
    .bind(vat_number::checked(&profile.vat_id)?)
    .bind(optional("purchase order", &profile.purchase_order)?)
    .bind(optional("reason of the tax exemption", &profile.tax_exempt_reason)?)
    .bind(i64::from(profile.prices_include_tax))
    .bind(i64::from(profile.pools_usage))
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// The customers with ids from `first` to `last`, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn customers_between(
    db: impl AnyExecutor<'_>,
    first: CustomerId,
    last: CustomerId,
) -> Result<Vec<Customer>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id BETWEEN $1 AND $2 ORDER BY id"));
    let rows = sqlx::query(sql).bind(first.0).bind(last.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
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

/// One customer whose account was not deleted.
///
/// # Errors
/// [`InventoryError::Deleted`] when it was, and as [`customer`].
pub async fn active_customer(db: impl AnyExecutor<'_>, id: CustomerId) -> Result<Customer, InventoryError> {
    let found = customer(db, id).await?;
    match found.deleted_at_ms {
        Some(at_ms) => Err(InventoryError::Deleted { customer: id, at_ms }),
        None => Ok(found),
    }
}

/// When a customer's account was deleted; `None` where it was not.
///
/// # Errors
/// As the database answers.
pub async fn customer_deleted_at_ms(db: impl AnyExecutor<'_>, id: CustomerId) -> Result<Option<i64>, sqlx::Error> {
    let row = sqlx::query("SELECT deleted_at_ms FROM customers WHERE id = $1")
        .bind(id.0)
        .fetch_optional(db)
        .await?;
    row.map_or(Ok(None), |row| row.try_get(0))
}

/// Marks a customer's account as deleted. One that was deleted before keeps its time.
///
/// # Errors
/// As the database answers.
pub async fn mark_customer_deleted(
    connection: &mut AnyConnection,
    id: CustomerId,
    now_ms: i64,
) -> Result<(), InventoryError> {
    sqlx::query("UPDATE customers SET deleted_at_ms = $1 WHERE id = $2 AND deleted_at_ms IS NULL")
        .bind(now_ms)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
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
        !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || !is_plain(c) || "<>,;:\"".contains(c));
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
        billing: BillingProfile {
            entity: EntityId(row.try_get("entity_id")?),
            street: row.try_get("street")?,
            postal_code: row.try_get("postal_code")?,
            city: row.try_get("city")?,
            region: row.try_get("region")?,
            vat_id: row.try_get("vat_id")?,
            purchase_order: row.try_get("purchase_order")?,
            tax_exempt_reason: row.try_get("tax_exempt_reason")?,
            prices_include_tax: row.try_get::<i64, _>("prices_include_tax")? != 0,
            pools_usage: row.try_get::<i64, _>("pools_usage")? != 0,
        },
        email_verified_at_ms: row.try_get("email_verified_at_ms")?,
        created_at_ms: row.try_get("created_at_ms")?,
        deleted_at_ms: row.try_get("deleted_at_ms")?,
    })
}
