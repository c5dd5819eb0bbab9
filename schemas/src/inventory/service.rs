//! Services: what sends and receives, and is paid for.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{InventoryError, MAX_LABEL_CHARS, MAX_NAME_CHARS, active_customer, checked_text};
use crate::db::next_id;
use crate::ids::{CustomerId, ServiceId};
use crate::search;

/// Whether a service runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceStatus {
    Active,
}

impl ServiceStatus {
    pub fn name(self) -> &'static str {
        match self {
            ServiceStatus::Active => "active",
        }
    }
}

/// What sends and receives; its number is the `service` column of flows and usage.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Service {
    pub id: ServiceId,
    pub customer: CustomerId,
    pub name: String,
    /// Such as `vps`, `dedicated`, `web`, `game`.
    pub service_type: String,
    /// Where it stands: the metering exporters of this site measure it; all of them where it has none.
    pub site: Option<String>,
    pub status: ServiceStatus,
    pub created_at_ms: i64,
    pub archived_at_ms: Option<i64>,
    /// Since when it is this customer's; what was measured before is not theirs to see (S1).
    pub owned_from_ms: i64,
}

/// A service as somebody typed it: every field is checked by [`create_service`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewService<'a> {
    pub customer: CustomerId,
    pub name: &'a str,
    pub service_type: &'a str,
    pub site: Option<&'a str>,
}

const SELECT: &str = "SELECT id, customer_id, name, service_type, site, status, created_at_ms, archived_at_ms, owned_from_ms \
                      FROM services";

/// Checks and stores a service.
///
/// # Errors
/// When a field is not valid or the customer does not exist.
pub async fn create_service(
    connection: &mut AnyConnection,
    new: NewService<'_>,
    now_ms: i64,
) -> Result<Service, InventoryError> {
    let name = checked_text("service name", new.name, MAX_NAME_CHARS)?;
    let service_type = checked_text("service type", new.service_type, MAX_LABEL_CHARS)?;
    let site = match new.site {
        Some(site) => Some(checked_text("site", site, MAX_LABEL_CHARS)?),
        None => None,
    };
    active_customer(&mut *connection, new.customer).await?;
    let service = Service {
        id: ServiceId(next_id(connection, "service").await?),
        customer: new.customer,
        name,
        service_type,
        site,
        status: ServiceStatus::Active,
        created_at_ms: now_ms,
        archived_at_ms: None,
        owned_from_ms: 0,
    };
    sqlx::query(
        "INSERT INTO services (id, customer_id, name, service_type, site, status, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(service.id.0)
    .bind(service.customer.0)
    .bind(&service.name)
    .bind(&service.service_type)
    .bind(service.site.as_deref())
    .bind(service.status.name())
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    search::index_service(connection, service.id, &service.name, service.site.as_deref()).await?;
    Ok(service)
}

/// Makes a service another customer's, from an instant on.
///
/// # Errors
/// When there is no such service or customer, or the service is archived.
pub async fn hand_over(
    connection: &mut AnyConnection,
    id: ServiceId,
    to: CustomerId,
    from_ms: i64,
) -> Result<(), InventoryError> {
    active_customer(&mut *connection, to).await?;
    if service(&mut *connection, id).await?.archived_at_ms.is_some() {
        return Err(InventoryError::Archived(id));
    }
    sqlx::query("UPDATE services SET customer_id = $1, owned_from_ms = $2 WHERE id = $3")
        .bind(to.0)
        .bind(from_ms)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// The services that customers with ids from `first` to `last` have or had a subscription for, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn services_subscribed_by(
    db: impl AnyExecutor<'_>,
    first: CustomerId,
    last: CustomerId,
) -> Result<Vec<Service>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE id IN (SELECT service_id FROM subscriptions WHERE customer_id BETWEEN $1 AND $2) ORDER BY id"
    ));
    let rows = sqlx::query(sql).bind(first.0).bind(last.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// Every service, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn services(db: impl AnyExecutor<'_>) -> Result<Vec<Service>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// The services of one customer, by id (S1: the customer is part of the question).
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn services_of(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Vec<Service>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE customer_id = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(customer.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// One service.
///
/// # Errors
/// [`InventoryError::NoService`] when there is none of this id.
pub async fn service(db: impl AnyExecutor<'_>, id: ServiceId) -> Result<Service, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(InventoryError::NoService(id))?)
}

fn read(row: &AnyRow) -> Result<Service, InventoryError> {
    let status: String = row.try_get("status")?;
    let status = match status.as_str() {
        "active" => ServiceStatus::Active,
        _ => {
            return Err(InventoryError::Corrupt {
                what: "service status",
                text: status,
            });
        }
    };
    Ok(Service {
        id: ServiceId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        name: row.try_get("name")?,
        service_type: row.try_get("service_type")?,
        site: row.try_get("site")?,
        status,
        created_at_ms: row.try_get("created_at_ms")?,
        archived_at_ms: row.try_get("archived_at_ms")?,
        owned_from_ms: row.try_get("owned_from_ms")?,
    })
}
