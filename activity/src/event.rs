//! Events: what happened, told to whom it concerns.
//!
//! ```text
//! a change of state ─┐ one transaction
//! publish ───────────┘  row in `events`          it happened if, and only if, the event is there
//!      │
//!      ▼
//! consumers            one transaction per batch   what each reacts with, such as rows in `deliveries`; a cursor each
//!      │
//!      ▼
//! channels             one at a time               mail, signed requests, posts: [`crate::channel`]; retried by a schedule
//! ```
//!
//! Promises:
//! * An event is written in the transaction of the change that it tells of, so neither can be without the other.
//! * Each consumer handles each event exactly once, with any number of workers and wherever one of them dies; one that fails
//!   or lags holds up none of the others ([`consumer`]).
//! * Payloads hold text, whole numbers, booleans, lists and objects: money as `…_minor` beside `currency`, instants as
//!   `…_at_ms`; a float is refused, and a fact without a value, null or an empty text, is left out.

pub mod consumer;
mod deliveries;
mod job;
mod kind;

pub use consumer::{Consumer, Dispatched, HandleError, Handled, Lag, consume, dispatch, lags, mark_dispatched};
pub use deliveries::{
    Delivery, DeliveryFilter, OutboxCounts, deliveries, deliveries_of, deliveries_to, delivery, outbox_counts,
};
pub(crate) use deliveries::{NewDelivery, enqueue, take_turn};
pub use job::JobAlerts;
pub use kind::{Audience, EventType};

use std::error::Error;

use jiff::Timestamp;
use schemas::bulk;
use schemas::db::next_ids;
use schemas::ids::{CustomerId, EventId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

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
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
    #[error("react to events")]
    Consumer(#[source] HandleError),
    #[error("{count} events could not be handled by {consumer} and wait, the first is {event}; all others were")]
    PassedOver {
        consumer: &'static str,
        count: u64,
        event: EventId,
        source: HandleError,
    },
}

schemas::error_codes! {
    EventError: "event";
    of [Database]
    source []
    NotFound: NoEvent = "no_event";
    Refused: UnknownType = "unknown_type";
    Fault:
        Subject = "subject", NotAnObject = "not_an_object", Float = "float", TooLarge = "too_large",
        Corrupt = "corrupt", Consumer = "consumer", PassedOver = "passed_over";
}

/// Whether it is the database that could not do something, however deep it says so.
pub(crate) fn is_of_database(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<sqlx::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
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
    /// When all consumers had handled it.
    pub dispatched_at_ms: Option<i64>,
}

/// Writes an event into the caller's transaction: it is told if that commits, and never was if it does not. Without one a
/// consumer could pass it by ([`consumer`]).
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
        let facts = checked_facts(&event)?;
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

/// The facts of an event as they are stored.
fn checked_facts(new: &NewEvent) -> Result<String, EventError> {
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
    for (name, value) in facts {
        if let Some(value) = float_in(value) {
            return Err(EventError::Float {
                event_type,
                name: name.clone(),
                value,
            });
        }
    }
    // What is not known is left out, as docs/events.md says of every event.
    let is_known = |value: &serde_json::Value| !value.is_null() && value.as_str() != Some("");
    let known: serde_json::Map<_, _> = facts
        .iter()
        .filter(|(_, value)| is_known(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let text = serde_json::Value::Object(known).to_string();
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

pub(crate) const SELECT: &str =
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

pub(crate) fn read(row: &AnyRow) -> Result<Event, EventError> {
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
