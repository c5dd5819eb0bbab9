//! From an event to its deliveries: who is written to, which endpoints hear of it, what the portal shows.
//!
//! An event is marked and its deliveries are written in one transaction, and the mark is set only where it was not: two
//! workers, or one that died, cannot dispatch it twice.

use schemas::db::{Database, next_id};
use schemas::fault;
use schemas::ids::{CustomerId, EndpointId, EventId};
use schemas::inventory;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::message::compose;
use super::{Audience, Event, EventError, EventFilter, EventType, SELECT, read, webhook};

/// Events in one transaction at most.
const BATCH: i64 = 100;
/// Events that are replayed at once at most.
pub const MAX_REPLAYED: i64 = 10_000;
/// Where the owner's address is kept.
const OWNER_SETTING: &str = "owner_email";

const DELIVERY_SEQUENCE: &str = "delivery";

/// What was dispatched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dispatched {
    pub events: u64,
    pub mails: u64,
    pub webhooks: u64,
    pub notifications: u64,
}

/// Makes out the deliveries of every event that has none yet.
///
/// # Errors
/// As the database answers; what was dispatched before stays so.
pub async fn dispatch(database: &Database, now_ms: i64) -> Result<Dispatched, EventError> {
    let mut done = Dispatched::default();
    loop {
        let sql = "SELECT id FROM events WHERE dispatched_at_ms IS NULL ORDER BY id LIMIT $1";
        // Asked first without a lock: most of the time there is nothing to do.
        let waiting = sqlx::query(sql).bind(BATCH).fetch_all(database.pool()).await?;
        if waiting.is_empty() {
            return Ok(done);
        }
        let mut transaction = database.begin_write().await?;
        take_turn(&mut transaction).await?;
        for row in &waiting {
            dispatch_one(&mut transaction, EventId(row.try_get(0)?), now_ms, &mut done).await?;
        }
        fault::at("event.dispatched");
        transaction.commit().await?;
    }
}

/// Waits until no other dispatcher is in its transaction. Each needs the sequence of deliveries beside the events it marks: two
/// that took these in another order would wait for each other for ever.
async fn take_turn(connection: &mut AnyConnection) -> Result<(), EventError> {
    sqlx::query(
        "INSERT INTO sequences (name, next_value) VALUES ($1, 1) \
         ON CONFLICT (name) DO UPDATE SET next_value = sequences.next_value",
    )
    .bind(DELIVERY_SEQUENCE)
    .execute(connection)
    .await?;
    Ok(())
}

async fn dispatch_one(
    connection: &mut AnyConnection,
    id: EventId,
    now_ms: i64,
    done: &mut Dispatched,
) -> Result<(), EventError> {
    let marked = sqlx::query("UPDATE events SET dispatched_at_ms = $1 WHERE id = $2 AND dispatched_at_ms IS NULL")
        .bind(now_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    if marked.rows_affected() == 0 {
        return Ok(());
    }
    done.events += 1;
    let event = super::event(&mut *connection, id).await?;
    for address in recipients(connection, &event).await? {
        enqueue(connection, &event, "email", &address, now_ms).await?;
        done.mails += 1;
    }
    for endpoint in webhook::listeners(&mut *connection, event.customer).await? {
        if endpoint.hears(&event) {
            enqueue(connection, &event, "webhook", &endpoint.id.to_string(), now_ms).await?;
            done.webhooks += 1;
        }
    }
    if let Some(customer) = event.customer
        && event.event_type.is_shown_in_portal()
    {
        notify(connection, &event, customer, now_ms).await?;
        done.notifications += 1;
    }
    Ok(())
}

/// The mailboxes that hear of an event.
async fn recipients(connection: &mut AnyConnection, event: &Event) -> Result<Vec<String>, EventError> {
    match (event.event_type.audience(), event.customer) {
        (Audience::Customer, Some(customer)) => {
            let row = sqlx::query("SELECT email FROM customers WHERE id = $1")
                .bind(customer.0)
                .fetch_optional(connection)
                .await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?.into_iter().collect())
        }
        // What concerns no customer, such as an endpoint of our own, is the owner's.
        (Audience::Owner, _) | (Audience::Customer, None) => match owner_email(&mut *connection).await? {
            Some(owner) => Ok(vec![owner]),
            // Nobody was named: then those who can do something about it.
            None => admins(connection).await,
        },
        (Audience::Admins, _) => {
            let mut all = admins(&mut *connection).await?;
            all.extend(owner_email(connection).await?);
            all.sort();
            all.dedup();
            Ok(all)
        }
        (Audience::Portal | Audience::Nobody, _) => Ok(Vec::new()),
    }
}

async fn admins(connection: &mut AnyConnection) -> Result<Vec<String>, EventError> {
    let sql = "SELECT email FROM users WHERE role = 'admin' AND disabled_at_ms IS NULL ORDER BY email";
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Where the owner of the business is written to; `None`: not set, then every admin is.
///
/// # Errors
/// As the database answers.
pub async fn owner_email(db: impl AnyExecutor<'_>) -> Result<Option<String>, EventError> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(OWNER_SETTING)
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Sets where the owner is written to.
///
/// # Errors
/// When `email` is no address.
pub async fn set_owner_email(connection: &mut AnyConnection, email: &str) -> Result<(), EventError> {
    let email = email.trim();
    if email.parse::<lettre::Address>().is_err() {
        return Err(EventError::Address(email.to_owned()));
    }
    sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
        .bind(OWNER_SETTING)
        .bind(email)
        .execute(connection)
        .await?;
    Ok(())
}

async fn enqueue(
    connection: &mut AnyConnection,
    event: &Event,
    channel: &'static str,
    target: &str,
    now_ms: i64,
) -> Result<(), EventError> {
    let id = next_id(&mut *connection, DELIVERY_SEQUENCE).await?;
    sqlx::query(
        "INSERT INTO deliveries (id, event_id, channel, target, status, attempts, next_at_ms, error, created_at_ms) \
         VALUES ($1, $2, $3, $4, 'pending', 0, $5, '', $5)",
    )
    .bind(id)
    .bind(event.id.0)
    .bind(channel)
    .bind(target)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

async fn notify(
    connection: &mut AnyConnection,
    event: &Event,
    customer: CustomerId,
    now_ms: i64,
) -> Result<(), EventError> {
    let zone = inventory::customer(&mut *connection, customer)
        .await
        .map_err(EventError::Customer)?
        .time_zone;
    let message = compose(event, &zone);
    let id = next_id(&mut *connection, "notification").await?;
    sqlx::query(
        "INSERT INTO notifications (id, customer_id, event_id, title, body, link, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(customer.0)
    .bind(event.id.0)
    .bind(&message.heading)
    .bind(message.summary())
    .bind(message.link())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Which events are sent once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replay {
    pub first: EventId,
    pub last: EventId,
    pub event_type: Option<EventType>,
}

/// Sends stored events to an endpoint again, as new deliveries, and returns how many. Mail is not repeated.
///
/// # Errors
/// When there is no such endpoint, it is disabled, or the range holds more than [`MAX_REPLAYED`] events.
pub async fn replay(
    connection: &mut AnyConnection,
    replay: Replay,
    endpoint: EndpointId,
    of: webhook::Owner,
    now_ms: i64,
) -> Result<u64, EventError> {
    let endpoint = webhook::endpoint(&mut *connection, endpoint, of).await?;
    if endpoint.disabled_at_ms.is_some() {
        return Err(EventError::Disabled(endpoint.id));
    }
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE id BETWEEN $1 AND $2 AND ($3 = '' OR event_type = $3) AND ($4 = 0 OR customer_id = $4) \
         ORDER BY id LIMIT $5"
    ));
    let rows = sqlx::query(sql)
        .bind(replay.first.0)
        .bind(replay.last.0)
        .bind(replay.event_type.map_or("", EventType::name))
        .bind(endpoint.customer.map_or(0, |customer| customer.0))
        .bind(MAX_REPLAYED + 1)
        .fetch_all(&mut *connection)
        .await?;
    if rows.len() as u64 > MAX_REPLAYED as u64 {
        return Err(EventError::TooMany);
    }
    let mut sent = 0;
    for row in &rows {
        let event = read(row)?;
        if endpoint.hears(&event) {
            enqueue(connection, &event, "webhook", &endpoint.id.to_string(), now_ms).await?;
            sent += 1;
        }
    }
    Ok(sent)
}

/// The latest event's id, of a customer or of all.
///
/// # Errors
/// As the database answers.
pub async fn latest(db: impl AnyExecutor<'_>, customer: Option<CustomerId>) -> Result<Option<EventId>, EventError> {
    let filter = EventFilter {
        customer,
        ..EventFilter::default()
    };
    Ok(super::list(db, filter, 1).await?.first().map(|event| event.id))
}
