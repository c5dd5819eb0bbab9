//! From an event to its deliveries: who is written to, which endpoints hear of it, what the portal shows.
//!
//! Events are marked and their deliveries are written in one transaction, by one dispatcher at a time, who looks again which
//! are not marked yet: two workers, or one that died, cannot dispatch one twice.
//!
//! An event that cannot be dispatched holds up no other: a batch that fails is tried event by event, and one that fails alone
//! is passed over and stays for the next call. `/readyz` tells how long the oldest has waited.

use std::collections::{BTreeSet, HashMap};

use jiff::tz::TimeZone;
use schemas::db::{Database, next_ids};
use schemas::fault;
use schemas::ids::{CustomerId, EndpointId, EventId};
use schemas::inventory::{self, InventoryError};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::message::{Message, compose};
use super::webhook::Endpoint;
use super::{Audience, Event, EventError, EventFilter, EventType, SELECT, read, webhook};
use crate::bulk;

/// Events in one transaction at most.
const BATCH: i64 = 500;
/// Events that are replayed at once at most.
pub const MAX_REPLAYED: i64 = 10_000;
/// Deliveries that may be pending to a customer's endpoint for more events to be replayed to it.
pub const MAX_PENDING: i64 = 1_000;
/// Events that are replayed to the endpoints of a customer in an hour at most.
pub const MAX_REPLAYED_PER_HOUR: i64 = 2_000;
const HOUR_MS: i64 = 3_600_000;
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
/// As the database answers, and [`EventError::PassedOver`] when some events could not be dispatched and all others were;
/// what was dispatched before stays so.
pub async fn dispatch(database: &Database, now_ms: i64) -> Result<Dispatched, EventError> {
    let mut done = Dispatched::default();
    let mut passed_over = PassedOver::default();
    // What was passed over in this call is not asked for again.
    let mut after = EventId(0);
    loop {
        // Asked first without a lock: most of the time there is nothing to do.
        let Some(&last) = waiting(database.pool(), after, BATCH).await?.last() else {
            return passed_over.into_result(done);
        };
        let error = match dispatch_up_to(database, after, last, now_ms, &mut done).await {
            Ok(()) => {
                after = last;
                continue;
            }
            Err(error) => error,
        };
        if matches!(error, EventError::Database(_)) {
            return Err(error);
        }
        // One of them cannot be dispatched; which, is seen when each is tried alone.
        for id in waiting(database.pool(), after, BATCH).await? {
            if id.0 > last.0 {
                break;
            }
            match dispatch_up_to(database, after, id, now_ms, &mut done).await {
                Ok(()) => {}
                Err(error @ EventError::Database(_)) => return Err(error),
                Err(error) => passed_over.add(id, error),
            }
            after = id;
        }
    }
}

/// Events that could not be dispatched, and why the first one could not.
#[derive(Default)]
struct PassedOver {
    count: u64,
    first: Option<(EventId, EventError)>,
}

impl PassedOver {
    fn add(&mut self, id: EventId, error: EventError) {
        self.count += 1;
        self.first.get_or_insert((id, error));
    }

    fn into_result(self, done: Dispatched) -> Result<Dispatched, EventError> {
        match self.first {
            None => Ok(done),
            Some((event, source)) => Err(EventError::PassedOver {
                count: self.count,
                event,
                source: Box::new(source),
            }),
        }
    }
}

/// Dispatches the events after one and up to another in one transaction.
async fn dispatch_up_to(
    database: &Database,
    after: EventId,
    last: EventId,
    now_ms: i64,
    done: &mut Dispatched,
) -> Result<(), EventError> {
    let mut transaction = database.begin_write().await?;
    take_turn(&mut transaction).await?;
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE dispatched_at_ms IS NULL AND id > $1 AND id <= $2 ORDER BY id LIMIT $3"
    ));
    let rows = sqlx::query(sql)
        .bind(after.0)
        .bind(last.0)
        .bind(BATCH)
        .fetch_all(&mut *transaction)
        .await?;
    let events: Vec<Event> = rows.iter().map(read).collect::<Result<_, _>>()?;
    let mut dispatched = *done;
    dispatch_all(&mut transaction, &events, now_ms, &mut dispatched).await?;
    fault::at("event.dispatched");
    transaction.commit().await?;
    *done = dispatched;
    Ok(())
}

/// The oldest events after one that have no deliveries yet.
async fn waiting(db: impl AnyExecutor<'_>, after: EventId, limit: i64) -> Result<Vec<EventId>, EventError> {
    let sql = "SELECT id FROM events WHERE dispatched_at_ms IS NULL AND id > $1 ORDER BY id LIMIT $2";
    let rows = sqlx::query(sql).bind(after.0).bind(limit).fetch_all(db).await?;
    rows.iter().map(|row| Ok(EventId(row.try_get(0)?))).collect()
}

/// The event that has waited longest to be dispatched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OldestWaiting {
    pub id: EventId,
    pub created_at_ms: i64,
    /// How many wait.
    pub waiting: i64,
}

/// What waits to be dispatched; `None` where nothing does.
///
/// # Errors
/// As the database answers.
pub async fn oldest_waiting(db: &sqlx::AnyPool) -> Result<Option<OldestWaiting>, EventError> {
    let oldest = "SELECT id, created_at_ms FROM events WHERE dispatched_at_ms IS NULL ORDER BY id LIMIT 1";
    let Some(row) = sqlx::query(oldest).fetch_optional(db).await? else {
        return Ok(None);
    };
    let count = sqlx::query("SELECT count(*) FROM events WHERE dispatched_at_ms IS NULL");
    Ok(Some(OldestWaiting {
        id: EventId(row.try_get(0)?),
        created_at_ms: row.try_get(1)?,
        waiting: count.fetch_one(db).await?.try_get(0)?,
    }))
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

/// Makes out the deliveries of events that nobody else is dispatching, with a few statements for all of them.
async fn dispatch_all(
    connection: &mut AnyConnection,
    events: &[Event],
    now_ms: i64,
    done: &mut Dispatched,
) -> Result<(), EventError> {
    let sql = "UPDATE events SET dispatched_at_ms = v.column2 FROM (VALUES {rows}) AS v WHERE events.id = v.column1";
    bulk::for_rows(connection, sql, 2, events, |query, event| {
        query.bind(event.id.0).bind(now_ms)
    })
    .await?;
    let hearers = Hearers::of(connection, events).await?;
    let mut deliveries = Vec::new();
    let mut notifications = Vec::new();
    for event in events {
        done.events += 1;
        for address in hearers.mailboxes(event) {
            deliveries.push((event.id, "email", address.to_owned()));
            done.mails += 1;
        }
        for endpoint in hearers.endpoints.iter().filter(|endpoint| endpoint.hears(event)) {
            deliveries.push((event.id, "webhook", endpoint.id.to_string()));
            done.webhooks += 1;
        }
        if let Some(customer) = event.customer
            && event.event_type.is_shown_in_portal()
        {
            let zone = &hearers.customer(customer)?.time_zone;
            notifications.push((event.id, customer, compose(event, zone)));
            done.notifications += 1;
        }
    }
    enqueue(connection, &deliveries, now_ms).await?;
    notify(connection, &notifications, now_ms).await
}

/// Who hears of some events.
struct Hearers {
    customers: HashMap<CustomerId, Addressee>,
    endpoints: Vec<Endpoint>,
    owner: Option<String>,
    admins: Vec<String>,
    operations: Vec<String>,
}

/// A customer as events are told.
struct Addressee {
    email: String,
    time_zone: TimeZone,
}

impl Hearers {
    async fn of(connection: &mut AnyConnection, events: &[Event]) -> Result<Hearers, EventError> {
        let ids: BTreeSet<CustomerId> = events.iter().filter_map(|event| event.customer).collect();
        let ids: Vec<CustomerId> = ids.into_iter().collect();
        let sql = "SELECT id, email, time_zone FROM customers WHERE id IN ({values})";
        let rows = bulk::rows_of_values(connection, sql, &ids, |query, id| query.bind(id.0)).await?;
        let mut customers = HashMap::new();
        for row in &rows {
            let zone: String = row.try_get(2)?;
            let addressee = Addressee {
                email: row.try_get(1)?,
                time_zone: inventory::zone_named(&zone).map_err(EventError::Customer)?,
            };
            customers.insert(CustomerId(row.try_get(0)?), addressee);
        }
        Ok(Hearers {
            customers,
            endpoints: webhook::listeners(connection, &ids).await?,
            owner: owner_email(&mut *connection).await?,
            admins: users_of(connection, &["admin"]).await?,
            operations: users_of(connection, &["ops", "admin"]).await?,
        })
    }

    fn customer(&self, id: CustomerId) -> Result<&Addressee, EventError> {
        let found = self.customers.get(&id);
        found.ok_or(EventError::Customer(InventoryError::NoCustomer(id)))
    }

    /// The mailboxes that hear of an event.
    fn mailboxes<'a>(&'a self, event: &'a Event) -> Vec<&'a str> {
        let admins = self.admins.iter().map(String::as_str);
        match (event.event_type.audience(), event.customer) {
            (Audience::Customer, Some(customer)) => {
                let addressee = self.customers.get(&customer);
                addressee.iter().map(|addressee| addressee.email.as_str()).collect()
            }
            // What concerns no customer, such as an endpoint of our own, is the owner's.
            (Audience::Owner, _) | (Audience::Customer, None) => match &self.owner {
                Some(owner) => vec![owner],
                // Nobody was named: then those who can do something about it.
                None => admins.collect(),
            },
            (Audience::Admins, _) => {
                let all: BTreeSet<&str> = admins.chain(self.owner.as_deref()).collect();
                all.into_iter().collect()
            }
            (Audience::Operations, _) => self.operations.iter().map(String::as_str).collect(),
            (Audience::User, _) => {
                let to = event.payload.get("to").and_then(serde_json::Value::as_str);
                to.into_iter().collect()
            }
            (Audience::Portal | Audience::Nobody, _) => Vec::new(),
        }
    }
}

/// The mailboxes of everybody with one of some roles.
async fn users_of(connection: &mut AnyConnection, roles: &[&str]) -> Result<Vec<String>, EventError> {
    let sql = "SELECT role, email FROM users WHERE role IN ('ops', 'admin') AND disabled_at_ms IS NULL ORDER BY email";
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    let mut emails = Vec::new();
    for row in &rows {
        if roles.contains(&row.try_get::<String, _>(0)?.as_str()) {
            emails.push(row.try_get(1)?);
        }
    }
    Ok(emails)
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

/// Writes deliveries to be made: of an event, over a channel, to a target.
async fn enqueue(
    connection: &mut AnyConnection,
    deliveries: &[(EventId, &'static str, String)],
    now_ms: i64,
) -> Result<(), EventError> {
    let count = i64::try_from(deliveries.len()).unwrap_or(i64::MAX);
    let first = next_ids(&mut *connection, DELIVERY_SEQUENCE, count).await?;
    let rows: Vec<_> = (first..).zip(deliveries).collect();
    let sql = "INSERT INTO deliveries (id, event_id, channel, target, status, attempts, next_at_ms, error, created_at_ms) \
               VALUES {rows}";
    bulk::for_rows(connection, sql, 9, &rows, |query, (id, (event, channel, target))| {
        query
            .bind(id)
            .bind(event.0)
            .bind(channel)
            .bind(target)
            .bind("pending")
            .bind(0i64)
            .bind(now_ms)
            .bind("")
            .bind(now_ms)
    })
    .await?;
    Ok(())
}

/// Writes what the portal shows.
async fn notify(
    connection: &mut AnyConnection,
    notifications: &[(EventId, CustomerId, Message)],
    now_ms: i64,
) -> Result<(), EventError> {
    let count = i64::try_from(notifications.len()).unwrap_or(i64::MAX);
    let first = next_ids(&mut *connection, "notification", count).await?;
    let rows: Vec<_> = (first..).zip(notifications).collect();
    let sql = "INSERT INTO notifications (id, customer_id, event_id, title, body, link, created_at_ms) VALUES {rows}";
    bulk::for_rows(connection, sql, 7, &rows, |query, (id, (event, customer, message))| {
        query
            .bind(id)
            .bind(customer.0)
            .bind(event.0)
            .bind(&message.heading)
            .bind(message.summary())
            .bind(message.link())
            .bind(now_ms)
    })
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
/// When there is no such endpoint, it is disabled, or the range holds more than [`MAX_REPLAYED`] events; of a customer's
/// endpoint also when more than [`MAX_PENDING`] would be pending, or [`MAX_REPLAYED_PER_HOUR`] were replayed.
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
    let mut deliveries = Vec::new();
    for row in &rows {
        let event = read(row)?;
        if endpoint.hears(&event) {
            deliveries.push((event.id, "webhook", endpoint.id.to_string()));
        }
    }
    if let Some(customer) = endpoint.customer {
        check_replay(&mut *connection, customer, endpoint.id, deliveries.len(), now_ms).await?;
    }
    enqueue(connection, &deliveries, now_ms).await?;
    Ok(deliveries.len() as u64)
}

/// Whether so many more may be replayed to a customer's endpoint. A delivery is a replay if it was made after its event was
/// dispatched.
async fn check_replay(
    connection: &mut AnyConnection,
    customer: CustomerId,
    endpoint: EndpointId,
    replayed: usize,
    now_ms: i64,
) -> Result<(), EventError> {
    let replayed = i64::try_from(replayed).unwrap_or(i64::MAX);
    // Two who replay at once take turns, so that the first is counted.
    take_turn(&mut *connection).await?;
    let pending: i64 =
        sqlx::query("SELECT count(*) FROM deliveries WHERE target = $1 AND channel = 'webhook' AND status = 'pending'")
            .bind(endpoint.to_string())
            .fetch_one(&mut *connection)
            .await?
            .try_get(0)?;
    if pending.saturating_add(replayed) > MAX_PENDING {
        return Err(EventError::TooManyPending {
            endpoint,
            pending,
            replayed,
        });
    }
    let targets: Vec<String> = webhook::endpoints(&mut *connection, webhook::Owner::Customer(customer))
        .await?
        .iter()
        .map(|endpoint| endpoint.id.to_string())
        .collect();
    let mut lately: i64 = 0;
    for target in &targets {
        let row = sqlx::query(
            "SELECT count(*) FROM deliveries d JOIN events e ON e.id = d.event_id WHERE d.target = $1 \
             AND d.channel = 'webhook' AND d.created_at_ms > $2 AND e.dispatched_at_ms < d.created_at_ms",
        )
        .bind(target)
        .bind(now_ms - HOUR_MS)
        .fetch_one(&mut *connection)
        .await?;
        lately = lately.saturating_add(row.try_get(0)?);
    }
    if lately.saturating_add(replayed) > MAX_REPLAYED_PER_HOUR {
        return Err(EventError::TooOften);
    }
    Ok(())
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
