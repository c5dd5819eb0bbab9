//! Ways to pay that customers have saved with a gateway. Card numbers never come here.

use activity::event::EventType;
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, PaymentMethodId};
use schemas::inventory;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::gateway::{SavedMethod, SetupOutcome, SetupRequest, SetupStarted};
use super::{GatewayName, PaymentError, PaymentGateway};
use crate::settlement;

/// A saved way to pay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentMethod {
    pub id: PaymentMethodId,
    pub customer: CustomerId,
    pub gateway: GatewayName,
    pub gateway_customer: String,
    pub reference: String,
    pub kind: String,
    pub label: String,
    pub expires: String,
    pub is_default: bool,
    pub removed_at_ms: Option<i64>,
}

const SELECT: &str = "SELECT id, customer_id, gateway, gateway_customer, reference, kind, label, expires, is_default, removed_at_ms \
     FROM payment_methods";

/// What a customer can pay with, the default first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn methods(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Vec<PaymentMethod>, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE customer_id = $1 AND removed_at_ms IS NULL ORDER BY is_default DESC, id DESC"
    ));
    let rows = sqlx::query(sql).bind(customer.0).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// A customer begins to save a payment method; what is entered goes to the gateway, not to us.
///
/// # Errors
/// When the gateway saves none, or does not answer.
pub async fn start_setup(
    database: &Database,
    gateway: &dyn PaymentGateway,
    customer: CustomerId,
    return_url: &str,
    cancel_url: &str,
) -> Result<SetupStarted, PaymentError> {
    if !gateway.capabilities().saves_methods {
        return Err(PaymentError::NotCapable {
            gateway: gateway.name(),
            what: "save payment methods",
        });
    }
    let mut connection = database.pool().acquire().await?;
    let owner = inventory::customer(&mut *connection, customer)
        .await
        .map_err(|error| PaymentError::Corrupt {
            what: "customer",
            text: error.to_string(),
        })?;
    let row = sqlx::query(
        "SELECT gateway_customer FROM payment_methods WHERE customer_id = $1 AND gateway = $2 ORDER BY id DESC LIMIT 1",
    )
    .bind(customer.0)
    .bind(gateway.name().name())
    .fetch_optional(&mut *connection)
    .await?;
    let gateway_customer: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
    drop(connection);
    let request = SetupRequest {
        customer,
        name: &owner.name,
        email: &owner.email,
        gateway_customer: gateway_customer.as_deref(),
        currency: owner.currency,
        return_url,
        cancel_url,
    };
    gateway
        .start_setup(&request)
        .await
        .map_err(|source| PaymentError::Gateway {
            gateway: gateway.name(),
            source,
        })
}

/// Saves what the gateway has saved; the first is the default. The same again changes nothing.
///
/// # Errors
/// [`PaymentError::SetupUnfinished`] when the customer has not finished.
pub async fn finish_setup(
    database: &Database,
    gateway: &dyn PaymentGateway,
    customer: CustomerId,
    reference: &str,
    now_ms: i64,
) -> Result<PaymentMethod, PaymentError> {
    let outcome = gateway
        .finish_setup(customer, reference)
        .await
        .map_err(|source| PaymentError::Gateway {
            gateway: gateway.name(),
            source,
        })?;
    let saved = match outcome {
        SetupOutcome::Saved(saved) => saved,
        SetupOutcome::Unfinished { why } => {
            return Err(PaymentError::SetupUnfinished {
                gateway: gateway.name(),
                reference: reference.to_owned(),
                why,
            });
        }
    };
    let mut transaction = database.begin_write().await?;
    let method = save(&mut transaction, gateway.name(), customer, &saved, now_ms).await?;
    transaction.commit().await?;
    Ok(method)
}

/// Saves a method that a gateway has saved, once. One that was removed since stays so: word of it may come late.
///
/// # Errors
/// [`PaymentError::NoMethod`] when it is another customer's (S1).
pub async fn save(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    customer: CustomerId,
    saved: &SavedMethod,
    now_ms: i64,
) -> Result<PaymentMethod, PaymentError> {
    settlement::lock_customer(connection, customer).await?;
    if let Some(before) = by_reference(connection, gateway, &saved.reference).await? {
        return match before.customer == customer {
            true => Ok(before),
            false => Err(PaymentError::NoMethod {
                customer,
                method: before.id,
            }),
        };
    }
    let known = methods(&mut *connection, customer).await?;
    let id = PaymentMethodId(next_id(connection, "payment_method").await?);
    sqlx::query(
        "INSERT INTO payment_methods (id, customer_id, gateway, gateway_customer, reference, kind, label, expires, is_default, \
         created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id.0)
    .bind(customer.0)
    .bind(gateway.name())
    .bind(&saved.gateway_customer)
    .bind(&saved.reference)
    .bind(&saved.kind)
    .bind(&saved.label)
    .bind(&saved.expires)
    .bind(i64::from(known.is_empty()))
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let facts = serde_json::json!({ "method": id, "gateway": gateway.name(), "label": saved.label });
    let subject = id.to_string();
    settlement::tell(
        connection,
        EventType::PaymentMethodAdded,
        customer,
        subject,
        facts,
        now_ms,
    )
    .await?;
    of_customer(connection, customer, id).await
}

/// Makes a method the one that is charged.
///
/// # Errors
/// [`PaymentError::NoMethod`] when the customer has none of this id.
pub async fn set_default(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: PaymentMethodId,
) -> Result<(), PaymentError> {
    settlement::lock_customer(connection, customer).await?;
    of_customer(connection, customer, id).await?;
    sqlx::query("UPDATE payment_methods SET is_default = CASE WHEN id = $2 THEN 1 ELSE 0 END WHERE customer_id = $1")
        .bind(customer.0)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes a method here and at the gateway; the latest of the others becomes the default.
///
/// # Errors
/// When the customer has none of this id, or the gateway does not answer: then it stays.
pub async fn remove(
    database: &Database,
    gateway: &dyn PaymentGateway,
    customer: CustomerId,
    id: PaymentMethodId,
    now_ms: i64,
) -> Result<(), PaymentError> {
    let mut connection = database.pool().acquire().await?;
    let method = of_customer(&mut connection, customer, id).await?;
    drop(connection);
    gateway
        .detach(&method.reference)
        .await
        .map_err(|source| PaymentError::Gateway {
            gateway: gateway.name(),
            source,
        })?;
    let mut transaction = database.begin_write().await?;
    settlement::lock_customer(&mut transaction, customer).await?;
    sqlx::query(
        "UPDATE payment_methods SET removed_at_ms = $2, is_default = 0 WHERE id = $1 AND removed_at_ms IS NULL",
    )
    .bind(id.0)
    .bind(now_ms)
    .execute(&mut *transaction)
    .await?;
    if method.is_default
        && let Some(next) = methods(&mut *transaction, customer).await?.first()
    {
        set_default(&mut transaction, customer, next.id).await?;
    }
    let facts = serde_json::json!({ "method": id, "gateway": gateway.name().name(), "label": method.label });
    let (kind, subject) = (EventType::PaymentMethodRemoved, id.to_string());
    settlement::tell(&mut transaction, kind, customer, subject, facts, now_ms).await?;
    transaction.commit().await?;
    Ok(())
}

/// A method that can be charged, of this customer (S1).
pub(crate) async fn of_customer(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: PaymentMethodId,
) -> Result<PaymentMethod, PaymentError> {
    let found = find(connection, customer, id).await?;
    found
        .filter(|method| method.removed_at_ms.is_none())
        .ok_or(PaymentError::NoMethod { customer, method: id })
}

/// A method, removed or not: payments that are under way may have charged it.
pub(crate) async fn any_of_customer(
    database: &Database,
    customer: CustomerId,
    id: PaymentMethodId,
) -> Result<Option<PaymentMethod>, PaymentError> {
    let mut connection = database.pool().acquire().await?;
    find(&mut connection, customer, id).await
}

/// A method as its gateway names it, removed or not, whoever's it is.
async fn by_reference(
    connection: &mut AnyConnection,
    gateway: GatewayName,
    reference: &str,
) -> Result<Option<PaymentMethod>, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE gateway = $1 AND reference = $2"));
    let row = sqlx::query(sql)
        .bind(gateway.name())
        .bind(reference)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

async fn find(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: PaymentMethodId,
) -> Result<Option<PaymentMethod>, PaymentError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE customer_id = $1 AND id = $2"));
    let row = sqlx::query(sql)
        .bind(customer.0)
        .bind(id.0)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &AnyRow) -> Result<PaymentMethod, PaymentError> {
    Ok(PaymentMethod {
        id: PaymentMethodId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        gateway: row.try_get::<String, _>("gateway")?.parse()?,
        gateway_customer: row.try_get("gateway_customer")?,
        reference: row.try_get("reference")?,
        kind: row.try_get("kind")?,
        label: row.try_get("label")?,
        expires: row.try_get("expires")?,
        is_default: row.try_get::<i64, _>("is_default")? == 1,
        removed_at_ms: row.try_get("removed_at_ms")?,
    })
}
