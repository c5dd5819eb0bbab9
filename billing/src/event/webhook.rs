//! Customers' own endpoints: where their programs hear of events.
//!
//! A request is `POST` with the JSON `{id, type, created_at, customer, subject, data}` and three headers:
//!
//! ```text
//! EZSCALE-Event:     evt_7            the same however often it is sent: remember it to do things once
//! EZSCALE-Delivery:  dlv_9            the same for each try of one delivery
//! EZSCALE-Signature: t=1732320000,v1=5257a8…[,v1=…]
//! ```
//!
//! `v1` is HMAC-SHA256, in hex, of `t`, a dot and the body, with the endpoint's secret as the key, as it was given out. After
//! a rotation the secret before signs too, for [`ROTATION_MS`], so that the receiver can change over at leisure: it accepts
//! a request when one `v1` fits. A receiver refuses what is older than some minutes, so that nobody repeats it.
//!
//! An endpoint of no customer is the operator's own: it hears of every event.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, DeliveryId, EndpointId};
use schemas::secret::Secret;
use schemas::secret::{SecretError, Vault, WEBHOOK, WEBHOOK_PREVIOUS};
use sha2::Sha256;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::guard::VettedUrl;
use super::{Event, EventError, EventType};
use crate::bulk;

/// What a customer reads of an endpoint whose name leads inside.
pub(super) const NOT_PUBLIC: &str = "the endpoint’s name does not lead to a public address";

/// Endpoints of one customer at most.
pub const MAX_ENDPOINTS: i64 = 10;
/// How long the secret before goes on signing.
pub const ROTATION_MS: i64 = 24 * 60 * 60 * 1000;
/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;

/// Why an endpoint was not added, found or spoken to.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("seal or open its secret")]
    Secret(#[from] SecretError),
    #[error("read its event types")]
    Event(#[from] EventError),
    #[error("{url:?} cannot be an endpoint: {why}")]
    Url { url: String, why: &'static str },
    #[error("the name {host:?} cannot be resolved")]
    Resolve { host: String, source: std::io::Error },
    /// Without the address, which is of a network that is not the customer's to know (S1): that is logged.
    #[error("{NOT_PUBLIC}; an operator can allow that with webhooks.allow_private")]
    Private { host: String, address: IpAddr },
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("no endpoint {0}")]
    NoEndpoint(EndpointId),
    #[error("there are {MAX_ENDPOINTS} endpoints already: remove one first")]
    TooMany,
    #[error("{0} is not told to customers")]
    NotForCustomers(EventType),
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

/// An address that events are sent to.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Endpoint {
    pub id: EndpointId,
    /// Whose; the operator's own where there is none.
    pub customer: Option<CustomerId>,
    pub url: String,
    /// What it hears of; everything where empty.
    pub event_types: Vec<EventType>,
    pub created_at_ms: i64,
    /// Since when nothing is sent to it any more.
    pub disabled_at_ms: Option<i64>,
    /// Failed tries since the last that was taken.
    pub failures: i64,
}

impl Endpoint {
    /// Whether it hears of an event (S1: of its own customer's alone).
    pub(super) fn hears(&self, event: &Event) -> bool {
        let is_theirs = match self.customer {
            None => true,
            Some(_) => self.customer == event.customer && event.event_type.is_for_customers(),
        };
        let is_asked = self.event_types.is_empty() || self.event_types.contains(&event.event_type);
        is_theirs && is_asked && self.disabled_at_ms.is_none()
    }
}

/// The secrets that sign at a time. Never shown.
#[derive(Clone, Debug)]
pub struct Secrets(Vec<Secret>);

/// An endpoint to be added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEndpoint<'a> {
    pub customer: Option<CustomerId>,
    pub url: &'a VettedUrl,
    pub event_types: &'a [EventType],
}

/// Adds an endpoint and returns its secret, which is shown this once.
///
/// # Errors
/// When the customer has too many, or asks for events that are not told to customers.
pub async fn add(
    connection: &mut AnyConnection,
    vault: &Vault,
    new: NewEndpoint<'_>,
    now_ms: i64,
) -> Result<(Endpoint, String), WebhookError> {
    if new.customer.is_some()
        && let Some(hidden) = new.event_types.iter().find(|kind| !kind.is_for_customers())
    {
        return Err(WebhookError::NotForCustomers(*hidden));
    }
    // Before the count: concurrent additions take turns from here on.
    let id = EndpointId(next_id(&mut *connection, "webhook_endpoint").await?);
    let have: i64 = sqlx::query("SELECT count(*) FROM webhook_endpoints WHERE coalesce(customer_id, 0) = $1")
        .bind(new.customer.map_or(0, |customer| customer.0))
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if have >= MAX_ENDPOINTS {
        return Err(WebhookError::TooMany);
    }
    let secret = new_secret();
    let sealed = vault.seal(&mut *connection, WEBHOOK, id.0, &secret).await?;
    sqlx::query(
        "INSERT INTO webhook_endpoints (id, customer_id, url, secret, event_types, created_at_ms, failures) \
         VALUES ($1, $2, $3, $4, $5, $6, 0)",
    )
    .bind(id.0)
    .bind(new.customer.map(|customer| customer.0))
    .bind(new.url.as_str())
    .bind(sealed)
    .bind(serde_json::json!(new.event_types).to_string())
    .bind(now_ms)
    .execute(connection)
    .await?;
    let endpoint = Endpoint {
        id,
        customer: new.customer,
        url: new.url.as_str().to_owned(),
        event_types: new.event_types.to_vec(),
        created_at_ms: now_ms,
        disabled_at_ms: None,
        failures: 0,
    };
    Ok((endpoint, secret))
}

/// Gives an endpoint a new secret and returns it. The one before signs beside it for [`ROTATION_MS`].
///
/// # Errors
/// [`WebhookError::NoEndpoint`] when `of` has none of this id.
pub async fn rotate(
    connection: &mut AnyConnection,
    vault: &Vault,
    id: EndpointId,
    of: Owner,
    now_ms: i64,
) -> Result<String, WebhookError> {
    endpoint(&mut *connection, id, of).await?;
    // The first to change it: another rotation waits for this one.
    let stored: String =
        sqlx::query_scalar("UPDATE webhook_endpoints SET secret = secret WHERE id = $1 RETURNING secret")
            .bind(id.0)
            .fetch_one(&mut *connection)
            .await?;
    let previous = match vault.open(WEBHOOK, id.0, &stored) {
        Ok(before) => {
            let sealed = vault.seal(&mut *connection, WEBHOOK_PREVIOUS, id.0, before.reveal());
            Some(sealed.await?)
        }
        // What does not open signs nothing: this is how an endpoint gets out of that.
        Err(SecretError::NotOpened { .. } | SecretError::NotSealed { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let secret = new_secret();
    let sealed = vault.seal(&mut *connection, WEBHOOK, id.0, &secret).await?;
    sqlx::query("UPDATE webhook_endpoints SET previous_secret = $1, previous_until_ms = $2, secret = $3 WHERE id = $4")
        .bind(previous)
        .bind(now_ms + ROTATION_MS)
        .bind(sealed)
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(secret)
}

/// Removes an endpoint. What was on its way to it fails.
///
/// # Errors
/// [`WebhookError::NoEndpoint`] when `of` has none of this id.
pub async fn remove(connection: &mut AnyConnection, id: EndpointId, of: Owner) -> Result<(), WebhookError> {
    endpoint(&mut *connection, id, of).await?;
    // The endpoint before its deliveries, as everywhere.
    sqlx::query("DELETE FROM webhook_endpoints WHERE id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE deliveries SET status = 'failed', next_at_ms = NULL, error = 'the endpoint was removed' \
         WHERE channel = 'webhook' AND target = $1 AND status = 'pending'",
    )
    .bind(id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Sends to a disabled endpoint again, from the next event on; what it missed can be replayed.
///
/// # Errors
/// [`WebhookError::NoEndpoint`] when `of` has none of this id.
pub async fn enable(connection: &mut AnyConnection, id: EndpointId, of: Owner) -> Result<(), WebhookError> {
    endpoint(&mut *connection, id, of).await?;
    sqlx::query("UPDATE webhook_endpoints SET disabled_at_ms = NULL, failures = 0 WHERE id = $1")
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whose endpoints are meant (S1: a customer says which is theirs with every question).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// All, for staff.
    Anybody,
    Customer(CustomerId),
}

impl Owner {
    /// The number in a statement; 0 for all.
    pub(super) fn number(self) -> i64 {
        match self {
            Owner::Anybody => 0,
            Owner::Customer(customer) => customer.0,
        }
    }
}

const SELECT: &str =
    "SELECT id, customer_id, url, event_types, created_at_ms, disabled_at_ms, failures FROM webhook_endpoints";

/// Endpoints, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn endpoints(db: impl AnyExecutor<'_>, of: Owner) -> Result<Vec<Endpoint>, WebhookError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE $1 = 0 OR customer_id = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(of.number()).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// One endpoint.
///
/// # Errors
/// [`WebhookError::NoEndpoint`] when `of` has none of this id.
pub async fn endpoint(db: impl AnyExecutor<'_>, id: EndpointId, of: Owner) -> Result<Endpoint, WebhookError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1 AND ($2 = 0 OR customer_id = $2)"));
    let row = sqlx::query(sql).bind(id.0).bind(of.number()).fetch_optional(db).await?;
    read(&row.ok_or(WebhookError::NoEndpoint(id))?)
}

/// The endpoints that may hear of some customers' events: theirs and the operator's, by id.
pub(super) async fn listeners(
    connection: &mut AnyConnection,
    customers: &[CustomerId],
) -> Result<Vec<Endpoint>, WebhookError> {
    let of_operator = sqlx::AssertSqlSafe(format!("{SELECT} WHERE disabled_at_ms IS NULL AND customer_id IS NULL"));
    let mut rows = sqlx::query(of_operator).fetch_all(&mut *connection).await?;
    let of_customers = format!("{SELECT} WHERE disabled_at_ms IS NULL AND customer_id IN ({{values}})");
    rows.extend(bulk::rows_of_values(connection, &of_customers, customers, |query, id| query.bind(id.0)).await?);
    let mut endpoints: Vec<Endpoint> = rows.iter().map(read).collect::<Result<_, _>>()?;
    endpoints.sort_by_key(|endpoint| endpoint.id);
    Ok(endpoints)
}

/// Whose some endpoints are; what is the operator's own is nobody's.
pub(super) async fn owners(
    database: &Database,
    endpoints: &[EndpointId],
) -> Result<HashMap<EndpointId, Option<CustomerId>>, sqlx::Error> {
    let mut connection = database.pool().acquire().await?;
    let sql = "SELECT id, customer_id FROM webhook_endpoints WHERE id IN ({values})";
    let rows = bulk::rows_of_values(&mut connection, sql, endpoints, |query, id| query.bind(id.0)).await?;
    let mut owners = HashMap::with_capacity(rows.len());
    for row in &rows {
        let owner = row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId);
        owners.insert(EndpointId(row.try_get("id")?), owner);
    }
    Ok(owners)
}

/// What signs for an endpoint now.
pub(super) async fn secrets(database: &Database, id: EndpointId, now_ms: i64) -> Result<Secrets, WebhookError> {
    let vault = database.vault();
    let row = sqlx::query("SELECT secret, previous_secret, previous_until_ms FROM webhook_endpoints WHERE id = $1")
        .bind(id.0)
        .fetch_optional(database.pool())
        .await?
        .ok_or(WebhookError::NoEndpoint(id))?;
    let stored: String = row.try_get("secret")?;
    let mut secrets = vec![vault.open(WEBHOOK, id.0, &stored)?];
    let until_ms: Option<i64> = row.try_get("previous_until_ms")?;
    if until_ms.is_some_and(|until_ms| now_ms < until_ms)
        && let Some(previous) = row.try_get::<Option<String>, _>("previous_secret")?
    {
        secrets.push(vault.open(WEBHOOK_PREVIOUS, id.0, &previous)?);
    }
    Ok(Secrets(secrets))
}

fn read(row: &AnyRow) -> Result<Endpoint, WebhookError> {
    let stored: String = row.try_get("event_types")?;
    let names: Vec<String> = serde_json::from_str(&stored).map_err(|_| WebhookError::Corrupt {
        what: "event types",
        text: stored,
    })?;
    let mut event_types = Vec::with_capacity(names.len());
    for name in names {
        event_types.push(name.parse()?);
    }
    Ok(Endpoint {
        id: EndpointId(row.try_get("id")?),
        customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
        url: row.try_get("url")?,
        event_types,
        created_at_ms: row.try_get("created_at_ms")?,
        disabled_at_ms: row.try_get("disabled_at_ms")?,
        failures: row.try_get("failures")?,
    })
}

/// What is sent of an event.
pub fn body(event: &Event) -> String {
    serde_json::json!({
        "id": event.id,
        "type": event.event_type,
        "created_at": event.created_at().to_string(),
        "customer": event.customer,
        "subject": event.subject,
        "data": event.payload,
    })
    .to_string()
}

/// The headers of a request beside its content type.
pub(super) fn headers(
    event: &Event,
    delivery: DeliveryId,
    secrets: &Secrets,
    body: &str,
    now_ms: i64,
) -> [(&'static str, String); 3] {
    [
        ("EZSCALE-Event", event.id.to_string()),
        ("EZSCALE-Delivery", delivery.to_string()),
        ("EZSCALE-Signature", signature(secrets, body, now_ms.div_euclid(1000))),
    ]
}

fn signature(secrets: &Secrets, body: &str, at_s: i64) -> String {
    let mut header = format!("t={at_s}");
    for secret in &secrets.0 {
        let _ = write!(
            header,
            ",v1={}",
            hmac_hex(secret.reveal().as_bytes(), &format!("{at_s}.{body}"))
        );
    }
    header
}

/// HMAC-SHA256 in hex.
fn hmac_hex(key: &[u8], message: &str) -> String {
    // A key of any length is taken (RFC 2104 §2).
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn new_secret() -> String {
    format!("whsec_{}", hex(&rand::random::<[u8; SECRET_BYTES]>()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_as_published() {
        // RFC 4231, test case 2.
        assert_eq!(
            hmac_hex(b"Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let both = Secrets(vec![Secret::new("whsec_new"), Secret::new("whsec_old")]);
        let header = signature(&both, "{}", 1_732_320_000);
        let parts: Vec<&str> = header.split(',').collect();
        assert_eq!(parts[0], "t=1732320000");
        assert_eq!(parts[1], format!("v1={}", hmac_hex(b"whsec_new", "1732320000.{}")));
        assert_eq!(parts[2], format!("v1={}", hmac_hex(b"whsec_old", "1732320000.{}")));
        assert_eq!(parts.len(), 3);
        assert!(!format!("{both:?}").contains("whsec"));
    }

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, other) = (new_secret(), new_secret());
        assert_ne!(one, other);
        assert_eq!(one.len(), "whsec_".len() + 64);
    }
}
