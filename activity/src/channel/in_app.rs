//! Notifications: what a customer sees of events in the portal. As a channel it writes them, and nothing leaves.

use std::collections::{BTreeSet, HashMap};

use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use schemas::bulk;
use schemas::db::{Database, next_ids};
use schemas::ids::{CustomerId, EventId, NotificationId};
use schemas::inventory::{self, InventoryError};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::message::{Message, compose};
use super::{Channel, ChannelError, DeliveryOutcome, DueDelivery, Sending, Transports};
use crate::event::{Consumer, Event, EventError, EventType, HandleError, MAX_PAGE};

/// What the portal shows to customers.
#[derive(Clone, Copy, Debug)]
pub struct InApp;

impl Consumer for InApp {
    fn name(&self) -> &'static str {
        "dispatch_notifications"
    }

    fn description(&self) -> &'static str {
        "Writes the notifications of new events for the portal"
    }

    fn noun(&self) -> &'static str {
        "notification"
    }

    fn wants(&self, event_type: EventType) -> bool {
        event_type.is_shown_in_portal()
    }

    fn handle<'a>(
        &'a self,
        connection: &'a mut AnyConnection,
        events: &'a [Event],
        now_ms: i64,
    ) -> BoxFuture<'a, Result<u64, HandleError>> {
        Box::pin(async move {
            let zones = zones(&mut *connection, events).await?;
            let mut notifications = Vec::new();
            for event in events {
                let Some(customer) = event.customer else { continue };
                let zone = zones.get(&customer).ok_or(InventoryError::NoCustomer(customer))?;
                notifications.push((event.id, customer, compose(event, zone)));
            }
            notify(connection, &notifications, now_ms).await?;
            Ok(notifications.len() as u64)
        })
    }
}

impl Channel for InApp {
    fn channel(&self) -> &'static str {
        "portal"
    }

    fn sending(&self) -> Option<Sending> {
        None
    }

    fn send<'a>(
        &'a self,
        _database: &'a Database,
        _transports: Transports<'a>,
        _due: &'a DueDelivery,
        _event: &'a Event,
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<DeliveryOutcome, ChannelError>> {
        // It has no deliveries.
        Box::pin(async {
            Ok(DeliveryOutcome::Rejected(
                "the portal shows notifications, and sends none".to_owned(),
            ))
        })
    }
}

/// In which zones the customers of some events read times.
async fn zones(
    connection: &mut AnyConnection,
    events: &[Event],
) -> Result<HashMap<CustomerId, TimeZone>, ChannelError> {
    let ids: BTreeSet<CustomerId> = events.iter().filter_map(|event| event.customer).collect();
    let ids: Vec<CustomerId> = ids.into_iter().collect();
    let sql = "SELECT id, time_zone FROM customers WHERE id IN ({values})";
    let rows = bulk::rows_of_values(connection, sql, &ids, |query, id| query.bind(id.0)).await?;
    let mut zones = HashMap::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get(1)?;
        let zone = inventory::zone_named(&name).map_err(ChannelError::Customer)?;
        zones.insert(CustomerId(row.try_get(0)?), zone);
    }
    Ok(zones)
}

/// Writes what the portal shows.
async fn notify(
    connection: &mut AnyConnection,
    notifications: &[(EventId, CustomerId, Message)],
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    if notifications.is_empty() {
        return Ok(());
    }
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
    .await
}

/// One line of a customer's list.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Notification {
    pub id: NotificationId,
    pub event: EventId,
    pub title: String,
    pub body: String,
    /// A page of the portal, or empty.
    pub link: String,
    pub created_at_ms: i64,
    pub read_at_ms: Option<i64>,
}

/// A customer's notifications, latest first, `limit` at most.
///
/// # Errors
/// As the database answers.
pub async fn list(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    before: Option<NotificationId>,
    limit: i64,
) -> Result<Vec<Notification>, EventError> {
    let rows = sqlx::query(
        "SELECT id, event_id, title, body, link, created_at_ms, read_at_ms FROM notifications \
         WHERE customer_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
    )
    .bind(customer.0)
    .bind(before.map_or(i64::MAX, |before| before.0))
    .bind(limit.clamp(1, MAX_PAGE))
    .fetch_all(db)
    .await?;
    let mut notifications = Vec::with_capacity(rows.len());
    for row in &rows {
        notifications.push(Notification {
            id: NotificationId(row.try_get("id")?),
            event: EventId(row.try_get("event_id")?),
            title: row.try_get("title")?,
            body: row.try_get("body")?,
            link: row.try_get("link")?,
            created_at_ms: row.try_get("created_at_ms")?,
            read_at_ms: row.try_get("read_at_ms")?,
        });
    }
    Ok(notifications)
}

/// How many a customer has not read.
///
/// # Errors
/// As the database answers.
pub async fn unread(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<i64, EventError> {
    let sql = "SELECT count(*) FROM notifications WHERE customer_id = $1 AND read_at_ms IS NULL";
    Ok(sqlx::query(sql).bind(customer.0).fetch_one(db).await?.try_get(0)?)
}

/// Marks a customer's notifications as read, up to the latest they were shown.
///
/// # Errors
/// As the database answers.
pub async fn mark_read(
    connection: &mut AnyConnection,
    customer: CustomerId,
    up_to: NotificationId,
    now_ms: i64,
) -> Result<(), EventError> {
    sqlx::query("UPDATE notifications SET read_at_ms = $1 WHERE customer_id = $2 AND id <= $3 AND read_at_ms IS NULL")
        .bind(now_ms)
        .bind(customer.0)
        .bind(up_to.0)
        .execute(connection)
        .await?;
    Ok(())
}
