//! Notifications: what a customer sees of events in the portal.

use schemas::ids::{CustomerId, EventId, NotificationId};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{EventError, MAX_PAGE};

/// One line of a customer's list.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
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
