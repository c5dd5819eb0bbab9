//! Events: what happened, told to whom it concerns.
//!
//! ```text
//! a change of state ─┐ one transaction
//! publish ───────────┘  row in `events`          it happened if, and only if, the event is there
//!      │
//!      ▼
//! dispatch             one transaction per batch   rows in `deliveries` and `notifications`, once per event and channel
//!      │
//!      ▼
//! deliver              one at a time               email by SMTP, signed POST to endpoints; retried by a schedule
//! ```
//!
//! Promises:
//! * An event is written in the transaction of the change that it tells of, so neither can be without the other.
//! * Each event is dispatched exactly once, with any number of workers and wherever one of them dies.
//! * A delivery is made *at least* once: a worker that dies between sending and noting it leaves a message that is sent
//!   again. Mails carry the delivery in their Message-ID and webhooks the event's id, so that a receiver can tell.
//! * Two living workers never send the same delivery: it is claimed by compare-and-set on its count of attempts.
//! * Payloads hold text, whole numbers, booleans, lists and objects: money as `…_minor` beside `currency`, instants as
//!   `…_at_ms`; a float is refused.

mod deliver;
mod deliveries;
mod dispatch;
mod facts;
pub mod guard;
mod job;
mod kind;
pub mod mail;
pub mod message;
pub mod notification;
pub mod webhook;

pub use deliver::{
    Delivered, MAIL_MAX_AGE_MS, RETRY_DELAYS_MS, Run, WEBHOOKS_PER_OWNER, deliver, deliver_mail, deliver_webhooks,
    preview,
};
pub use deliveries::{
    Delivery, DeliveryFilter, OutboxCounts, deliveries, deliveries_of, deliveries_to, delivery, outbox_counts,
};
pub use dispatch::{
    Dispatched, MAX_PENDING, MAX_REPLAYED, MAX_REPLAYED_PER_HOUR, OldestWaiting, Replay, dispatch, latest,
    oldest_waiting, owner_email, replay, set_owner_email,
};
pub use guard::WebhookClient;
pub use job::JobAlerts;
pub use kind::{Audience, EventType};
pub use mail::{Attachment, Attachments, MailConfig, Mailer};

use jiff::Timestamp;
use schemas::db::{Database, next_ids};
use schemas::ids::{CustomerId, EndpointId, EventId};
use schemas::inventory::InventoryError;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use self::webhook::WebhookError;
use crate::bulk;

/// Bytes of a payload's JSON at most.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;
/// Characters of a subject at most.
pub const MAX_SUBJECT_CHARS: usize = 80;
/// Events on a page at most.
pub const MAX_PAGE: i64 = 500;

/// Why an event could not be published, read or told.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("{0:?} is not an event type: docs/events.md lists them")]
    UnknownType(String),
    #[error("no event {0}")]
    NoEvent(EventId),
    #[error("the subject of {event_type} is an id such as inv_7, not {subject:?}")]
    Subject { event_type: EventType, subject: String },
    #[error("the payload of {event_type} is no JSON object")]
    NotAnObject { event_type: EventType },
    #[error("the payload of {event_type} holds the float {value} in {name:?}: amounts are whole minor units")]
    Float {
        event_type: EventType,
        name: String,
        value: String,
    },
    #[error("the payload of {event_type} has {size} bytes, more than {MAX_PAYLOAD_BYTES}")]
    TooLarge { event_type: EventType, size: usize },
    #[error("{0:?} is no email address")]
    Address(String),
    #[error("look up the customer")]
    Customer(#[source] InventoryError),
    #[error("make the mail")]
    Mail(#[source] Box<mail::MailError>),
    #[error("look up the endpoint")]
    Endpoint(#[source] Box<WebhookError>),
    #[error("{0} is disabled: enable it first")]
    Disabled(EndpointId),
    #[error("more than {MAX_REPLAYED} events are not replayed at once: name a shorter range")]
    TooMany,
    #[error(
        "{pending} deliveries to {endpoint} are pending, and {replayed} more would exceed the limit of {MAX_PENDING}: \
         replay them once it has answered those"
    )]
    TooManyPending {
        endpoint: EndpointId,
        pending: i64,
        replayed: i64,
    },
    #[error(
        "to a customer's endpoints {MAX_REPLAYED_PER_HOUR} events are replayed in an hour at most: try again later"
    )]
    TooOften,
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
    #[error("{count} events could not be dispatched and wait, the first is {event}; all others were")]
    PassedOver {
        count: u64,
        event: EventId,
        source: Box<EventError>,
    },
}

impl From<WebhookError> for EventError {
    fn from(error: WebhookError) -> EventError {
        match error {
            WebhookError::Database(error) => EventError::Database(error),
            WebhookError::Event(error) => error,
            other => EventError::Endpoint(Box::new(other)),
        }
    }
}

/// Something that happened, to be told.
#[derive(Clone, PartialEq, Debug)]
pub struct NewEvent {
    pub event_type: EventType,
    /// Whom it is about.
    pub customer: Option<CustomerId>,
    /// The id of what it is about: `inv_7`.
    pub subject: String,
    /// The facts, by name: an object.
    pub payload: serde_json::Value,
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Event {
    pub id: EventId,
    #[serde(rename = "type")]
    pub event_type: EventType,
    pub customer: Option<CustomerId>,
    pub subject: String,
    pub payload: serde_json::Value,
    pub created_at_ms: i64,
    /// When its deliveries were made out.
    pub dispatched_at_ms: Option<i64>,
}

/// Writes an event into the caller's transaction: it is told if that commits, and never was if it does not.
///
/// # Errors
/// When the payload is no object, holds a float or is too large, or the subject is no id.
pub async fn publish(connection: &mut AnyConnection, new: NewEvent, now_ms: i64) -> Result<EventId, EventError> {
    publish_all(connection, vec![new], now_ms).await
}

/// [`publish`] of many, in their order, with few statements; the id of the first, which the others' follow.
///
/// # Errors
/// As [`publish`].
pub async fn publish_all(
    connection: &mut AnyConnection,
    new: Vec<NewEvent>,
    now_ms: i64,
) -> Result<EventId, EventError> {
    let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
    let mut events = Vec::with_capacity(new.len());
    for event in new {
        let facts = facts_of(connection, &event).await?;
        events.push((event, facts));
    }
    let first = next_ids(connection, "event", count).await?;
    let rows: Vec<_> = (first..).zip(events).collect();
    let sql = "INSERT INTO events (id, event_type, customer_id, subject, payload, created_at_ms) VALUES {rows}";
    bulk::for_rows(connection, sql, 6, &rows, |query, (id, (event, facts))| {
        query
            .bind(id)
            .bind(event.event_type.name())
            .bind(event.customer.map(|customer| customer.0))
            .bind(&event.subject)
            .bind(facts)
            .bind(now_ms)
    })
    .await?;
    Ok(EventId(first))
}

/// The facts of an event, checked and completed, as they are stored.
async fn facts_of(connection: &mut AnyConnection, new: &NewEvent) -> Result<String, EventError> {
    let (event_type, subject) = (new.event_type, &new.subject);
    let is_id = (1..=MAX_SUBJECT_CHARS).contains(&subject.len())
        && subject
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte));
    if !is_id {
        return Err(EventError::Subject {
            event_type,
            subject: subject.clone(),
        });
    }
    let serde_json::Value::Object(facts) = &new.payload else {
        return Err(EventError::NotAnObject { event_type });
    };
    let mut facts = facts.clone();
    facts::complete(connection, event_type, subject, &mut facts).await?;
    for (name, value) in &facts {
        if let Some(value) = float_in(value) {
            return Err(EventError::Float {
                event_type,
                name: name.clone(),
                value,
            });
        }
    }
    let text = serde_json::Value::Object(facts).to_string();
    if text.len() > MAX_PAYLOAD_BYTES {
        return Err(EventError::TooLarge {
            event_type,
            size: text.len(),
        });
    }
    Ok(text)
}

/// The first float anywhere in a value.
fn float_in(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Number(number) if !number.is_i64() && !number.is_u64() => Some(number.to_string()),
        serde_json::Value::Array(values) => values.iter().find_map(float_in),
        serde_json::Value::Object(facts) => facts.values().find_map(float_in),
        _ => None,
    }
}

const SELECT: &str =
    "SELECT id, event_type, customer_id, subject, payload, created_at_ms, dispatched_at_ms FROM events";

/// Which events to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventFilter {
    /// Of this customer only (S1).
    pub customer: Option<CustomerId>,
    pub event_type: Option<EventType>,
    /// Older than this one: the last of the page before.
    pub before: Option<EventId>,
}

/// Events, latest first, `limit` at most.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list(db: impl AnyExecutor<'_>, filter: EventFilter, limit: i64) -> Result<Vec<Event>, EventError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE id < $1 AND ($2 = 0 OR customer_id = $2) AND ($3 = '' OR event_type = $3) \
         ORDER BY id DESC LIMIT $4"
    ));
    let rows = sqlx::query(sql)
        .bind(filter.before.map_or(i64::MAX, |before| before.0))
        .bind(filter.customer.map_or(0, |customer| customer.0))
        .bind(filter.event_type.map_or("", EventType::name))
        .bind(limit.clamp(1, MAX_PAGE))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// One event.
///
/// # Errors
/// [`EventError::NoEvent`] when there is none of this id.
pub async fn event(db: impl AnyExecutor<'_>, id: EventId) -> Result<Event, EventError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(EventError::NoEvent(id))?)
}

fn read(row: &AnyRow) -> Result<Event, EventError> {
    let payload: String = row.try_get("payload")?;
    Ok(Event {
        id: EventId(row.try_get("id")?),
        event_type: row.try_get::<String, _>("event_type")?.parse()?,
        customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
        subject: row.try_get("subject")?,
        payload: serde_json::from_str(&payload).map_err(|_| EventError::Corrupt {
            what: "payload",
            text: payload,
        })?,
        created_at_ms: row.try_get("created_at_ms")?,
        dispatched_at_ms: row.try_get("dispatched_at_ms")?,
    })
}

impl Event {
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.created_at_ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Dispatches what is new and sends what is due, once. The program does each of the three by itself every few seconds, so
/// that none waits for another; any number of processes may on one database.
///
/// # Errors
/// As the database answers.
pub async fn run_once(
    database: &Database,
    mailer: Option<&Mailer>,
    client: &WebhookClient,
    now_ms: i64,
) -> Result<(Dispatched, Delivered), EventError> {
    // What was dispatched is sent, whatever became of the rest.
    let dispatched = dispatch(database, now_ms).await;
    let delivered = deliver(database, mailer, client, now_ms).await?;
    Ok((dispatched?, delivered))
}

#[cfg(test)]
mod tests;
