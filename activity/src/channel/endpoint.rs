//! Endpoints: where programs hear of events, or a Discord channel shows them.
//!
//! An endpoint of no customer is the operator's own: it hears of every event. What a program receives: [`super::webhook`]; what a
//! channel shows: [`super::discord`].

use std::collections::HashMap;

use schemas::bulk;
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, EndpointId};
use schemas::secret::{Secret, SecretError, Vault, WEBHOOK, WEBHOOK_PREVIOUS};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::guard::VettedUrl;
use crate::act::Note;
use crate::event::{Event, EventError, EventType};
use crate::hex::hex;

/// What a customer reads of an endpoint whose name leads inside, or nowhere: which of them it is would tell the names of our network.
pub(super) const NOT_PUBLIC: &str = "the endpoint’s name does not lead to a public address";

/// Endpoints of one customer at most.
pub const MAX_ENDPOINTS: i64 = 10;
/// How long the secret before goes on signing.
pub const ROTATION_MS: i64 = 24 * 60 * 60 * 1000;
/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;

/// Why an endpoint was not added, found or spoken to.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("seal or open its secret")]
    Secret(#[from] SecretError),
    #[error("read its event types")]
    Event(#[from] EventError),
    #[error("{url:?} cannot be an endpoint: {why}")]
    Url { url: String, why: &'static str },
    /// Without what the name led to, if anything: the network is not the customer's to know (S1). That is logged.
    #[error("{NOT_PUBLIC}; an operator can allow that with webhooks.allow_private")]
    NotPublic { host: String },
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("no endpoint {0}")]
    NoEndpoint(EndpointId),
    #[error("there are {MAX_ENDPOINTS} endpoints already: remove one first")]
    TooMany,
    #[error("{0} is not sent to customers")]
    NotForCustomers(EventType),
    #[error(
        "{0} is a Discord channel, which has no secret beside its address: add the new address, then remove this one"
    )]
    NoSecret(EndpointId),
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    EndpointError: "webhook";
    of [Database, Secret, Event]
    source []
    NotFound: NoEndpoint = "no_endpoint";
    Refused:
        Url = "url", NotPublic = "not_public", NotForCustomers = "not_for_customers",
        NoSecret = "no_secret";
    Limit: TooMany = "too_many";
    Fault: Client = "client", Corrupt = "corrupt";
}

/// What stands at an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// A program: signed requests ([`super::webhook`]).
    Webhook,
    /// A Discord channel: posts ([`super::discord`]).
    Discord,
}

impl EndpointKind {
    pub const ALL: [EndpointKind; 2] = [EndpointKind::Webhook, EndpointKind::Discord];

    /// As it is stored, and as its channel is named in deliveries.
    pub fn name(self) -> &'static str {
        match self {
            EndpointKind::Webhook => "webhook",
            EndpointKind::Discord => "discord",
        }
    }
}

impl std::str::FromStr for EndpointKind {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<EndpointKind, EndpointError> {
        let found = EndpointKind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| EndpointError::Corrupt {
            what: "kind of endpoint",
            text: text.to_owned(),
        })
    }
}

/// An address that events are sent to.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Endpoint {
    pub id: EndpointId,
    pub kind: EndpointKind,
    /// Whose; the operator's own where there is none.
    pub customer: Option<CustomerId>,
    /// Where requests go; of a Discord channel what may be shown of its address, which lets anybody post.
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
    pub(super) fn receives(&self, event: &Event) -> bool {
        let is_theirs = match self.customer {
            None => true,
            Some(_) => self.customer == event.customer && event.event_type.is_for_customers(),
        };
        let is_asked = self.event_types.is_empty() || self.event_types.contains(&event.event_type);
        is_theirs && is_asked && self.disabled_at_ms.is_none()
    }
}

/// The secrets of an endpoint at a time, the present one first: what signs requests to a program, or the address of a Discord
/// channel. Never shown.
#[derive(Clone, Debug)]
pub(super) struct Secrets(pub(super) Vec<Secret>);

/// An endpoint to be added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEndpoint<'a> {
    pub customer: Option<CustomerId>,
    pub url: &'a VettedUrl,
    pub event_types: &'a [EventType],
}

/// An endpoint that was added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    pub endpoint: Endpoint,
    /// What signs requests to it, shown this once; a Discord channel has none.
    pub secret: Option<String>,
}

/// Adds an endpoint; answers it and what its entry in the audit log says.
///
/// # Errors
/// When the customer has too many, or asks for events that are not told to customers.
pub async fn add(
    connection: &mut AnyConnection,
    vault: &Vault,
    new: NewEndpoint<'_>,
    now_ms: i64,
) -> Result<(Added, Note), EndpointError> {
    if new.customer.is_some()
        && let Some(hidden) = new.event_types.iter().find(|kind| !kind.is_for_customers())
    {
        return Err(EndpointError::NotForCustomers(*hidden));
    }
    // Before the count: concurrent additions take turns from here on.
    let id = EndpointId(next_id(&mut *connection, "webhook_endpoint").await?);
    let have: i64 = sqlx::query("SELECT count(*) FROM webhook_endpoints WHERE coalesce(customer_id, 0) = $1")
        .bind(new.customer.map_or(0, |customer| customer.0))
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if have >= MAX_ENDPOINTS {
        return Err(EndpointError::TooMany);
    }
    let kind = new.url.kind();
    let secret = (kind == EndpointKind::Webhook).then(new_secret);
    let kept = secret.as_deref().unwrap_or(new.url.as_str());
    let sealed = vault.seal(&mut *connection, WEBHOOK, id.0, kept).await?;
    let endpoint = Endpoint {
        id,
        kind,
        customer: new.customer,
        url: new.url.shown(),
        event_types: new.event_types.to_vec(),
        created_at_ms: now_ms,
        disabled_at_ms: None,
        failures: 0,
    };
    sqlx::query(
        "INSERT INTO webhook_endpoints (id, kind, customer_id, url, secret, event_types, created_at_ms, failures) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0)",
    )
    .bind(id.0)
    .bind(kind.name())
    .bind(endpoint.customer.map(|customer| customer.0))
    .bind(&endpoint.url)
    .bind(sealed)
    .bind(json!(endpoint.event_types).to_string())
    .bind(now_ms)
    .execute(connection)
    .await?;
    let note = Note::new("webhook.add", id).change(json!({ "after": endpoint }));
    Ok((Added { endpoint, secret }, note))
}

/// Gives a program's endpoint a new secret and returns it. The one before signs beside it for [`ROTATION_MS`].
///
/// # Errors
/// [`EndpointError::NoEndpoint`] when `of` has none of this id, [`EndpointError::NoSecret`] of a Discord channel.
pub async fn rotate(
    connection: &mut AnyConnection,
    vault: &Vault,
    id: EndpointId,
    of: Owner,
    now_ms: i64,
) -> Result<(String, Note), EndpointError> {
    if endpoint(&mut *connection, id, of).await?.kind == EndpointKind::Discord {
        return Err(EndpointError::NoSecret(id));
    }
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
    let note = Note::new("webhook.rotate", id).change(json!({ "changed": "secret" }));
    Ok((secret, note))
}

/// Removes an endpoint. What was on its way to it fails.
///
/// # Errors
/// [`EndpointError::NoEndpoint`] when `of` has none of this id.
pub async fn remove(connection: &mut AnyConnection, id: EndpointId, of: Owner) -> Result<Note, EndpointError> {
    let before = endpoint(&mut *connection, id, of).await?;
    // The endpoint before its deliveries, as everywhere.
    sqlx::query("DELETE FROM webhook_endpoints WHERE id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    fail_pending(connection, id, "the endpoint was removed").await?;
    Ok(Note::new("webhook.remove", id).change(json!({ "before": before })))
}

/// What was on its way to an endpoint is not sent any more.
pub(super) async fn fail_pending(connection: &mut AnyConnection, id: EndpointId, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE deliveries SET status = 'failed', next_at_ms = NULL, error = $1 WHERE target = $2 AND status = 'pending'",
    )
    .bind(why)
    .bind(id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Sends to a disabled endpoint again, from the next event on; what it missed can be replayed.
///
/// # Errors
/// [`EndpointError::NoEndpoint`] when `of` has none of this id.
pub async fn enable(connection: &mut AnyConnection, id: EndpointId, of: Owner) -> Result<Note, EndpointError> {
    endpoint(&mut *connection, id, of).await?;
    sqlx::query("UPDATE webhook_endpoints SET disabled_at_ms = NULL, failures = 0 WHERE id = $1")
        .bind(id.0)
        .execute(connection)
        .await?;
    let change = json!({ "after": { "disabled_at_ms": null } });
    Ok(Note::new("webhook.enable", id).change(change))
}

/// Sends nothing more to any endpoint of a customer, whose account ends: whoever ends it records that.
///
/// # Errors
/// As the database answers.
pub async fn disable_all(connection: &mut AnyConnection, customer: CustomerId, now_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE webhook_endpoints SET disabled_at_ms = $1 WHERE customer_id = $2 AND disabled_at_ms IS NULL")
        .bind(now_ms)
        .bind(customer.0)
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
    "SELECT id, kind, customer_id, url, event_types, created_at_ms, disabled_at_ms, failures FROM webhook_endpoints";

/// Endpoints, by id.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn endpoints(db: impl AnyExecutor<'_>, of: Owner) -> Result<Vec<Endpoint>, EndpointError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE $1 = 0 OR customer_id = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(of.number()).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// One endpoint.
///
/// # Errors
/// [`EndpointError::NoEndpoint`] when `of` has none of this id.
pub async fn endpoint(db: impl AnyExecutor<'_>, id: EndpointId, of: Owner) -> Result<Endpoint, EndpointError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1 AND ($2 = 0 OR customer_id = $2)"));
    let row = sqlx::query(sql).bind(id.0).bind(of.number()).fetch_optional(db).await?;
    read(&row.ok_or(EndpointError::NoEndpoint(id))?)
}

/// The endpoints of one kind that may hear of some customers' events: theirs and the operator's, by id.
pub(super) async fn listeners(
    connection: &mut AnyConnection,
    kind: EndpointKind,
    customers: &[CustomerId],
) -> Result<Vec<Endpoint>, EndpointError> {
    let of_operator = sqlx::AssertSqlSafe(format!("{SELECT} WHERE disabled_at_ms IS NULL AND customer_id IS NULL"));
    let mut rows = sqlx::query(of_operator).fetch_all(&mut *connection).await?;
    let of_customers = format!("{SELECT} WHERE disabled_at_ms IS NULL AND customer_id IN ({{values}})");
    rows.extend(bulk::rows_of_values(connection, &of_customers, customers, |query, id| query.bind(id.0)).await?);
    let mut endpoints: Vec<Endpoint> = rows.iter().map(read).collect::<Result<_, _>>()?;
    endpoints.retain(|endpoint| endpoint.kind == kind);
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

/// The secrets of an endpoint now.
pub(super) async fn secrets(database: &Database, id: EndpointId, now_ms: i64) -> Result<Secrets, EndpointError> {
    let vault = database.vault();
    let row = sqlx::query("SELECT secret, previous_secret, previous_until_ms FROM webhook_endpoints WHERE id = $1")
        .bind(id.0)
        .fetch_optional(database.pool())
        .await?
        .ok_or(EndpointError::NoEndpoint(id))?;
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

fn read(row: &AnyRow) -> Result<Endpoint, EndpointError> {
    let stored: String = row.try_get("event_types")?;
    let names: Vec<String> = serde_json::from_str(&stored).map_err(|_| EndpointError::Corrupt {
        what: "event types",
        text: stored,
    })?;
    let mut event_types = Vec::with_capacity(names.len());
    for name in names {
        event_types.push(name.parse()?);
    }
    Ok(Endpoint {
        id: EndpointId(row.try_get("id")?),
        kind: row.try_get::<String, _>("kind")?.parse()?,
        customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
        url: row.try_get("url")?,
        event_types,
        created_at_ms: row.try_get("created_at_ms")?,
        disabled_at_ms: row.try_get("disabled_at_ms")?,
        failures: row.try_get("failures")?,
    })
}

fn new_secret() -> String {
    format!("whsec_{}", hex(&rand::random::<[u8; SECRET_BYTES]>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, other) = (new_secret(), new_secret());
        assert_ne!(one, other);
        assert_eq!(one.len(), "whsec_".len() + 64);
    }
}
