//! Deliveries: what is to be told of an event, over a channel, to a target; and how lists and metrics show them.

use schemas::bulk;
use schemas::db::{Database, next_ids};
use schemas::ids::{DeliveryId, EndpointId, EventId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::EventError;

const SEQUENCE: &str = "delivery";

/// A delivery to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewDelivery {
    pub(crate) event: EventId,
    /// As [`crate::channel::Channel::channel`] names it.
    pub(crate) channel: &'static str,
    /// A mailbox, or an endpoint's id.
    pub(crate) target: String,
    /// Somebody asked for it to be sent once more.
    pub(crate) is_replay: bool,
}

/// Writes deliveries to be made, with a few statements for all of them.
pub(crate) async fn enqueue(
    connection: &mut AnyConnection,
    deliveries: &[NewDelivery],
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let count = i64::try_from(deliveries.len()).unwrap_or(i64::MAX);
    let first = next_ids(&mut *connection, SEQUENCE, count).await?;
    let rows: Vec<_> = (first..).zip(deliveries).collect();
    let sql = "INSERT INTO deliveries (id, event_id, channel, target, status, attempts, next_at_ms, error, created_at_ms, \
               is_replay) VALUES {rows}";
    bulk::for_rows(connection, sql, 10, &rows, |query, (id, new)| {
        query
            .bind(id)
            .bind(new.event.0)
            .bind(new.channel)
            .bind(&new.target)
            .bind("pending")
            .bind(0i64)
            .bind(now_ms)
            .bind("")
            .bind(now_ms)
            .bind(i64::from(new.is_replay))
    })
    .await
}

/// Waits until nobody else is in a transaction that writes deliveries.
pub(crate) async fn take_turn(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    next_ids(connection, SEQUENCE, 0).await?;
    Ok(())
}

/// What waits and what failed, by channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct OutboxCounts {
    /// Events that some consumer has not handled.
    pub undispatched: i64,
    pub mails_pending: i64,
    pub mails_failed: i64,
    pub webhooks_pending: i64,
    pub webhooks_failed: i64,
    pub posts_pending: i64,
    pub posts_failed: i64,
}

/// Counts for metrics. What was delivered is not counted: there is much of it.
///
/// # Errors
/// As the database answers.
pub async fn outbox_counts(database: &Database) -> Result<OutboxCounts, EventError> {
    let undispatched = sqlx::query("SELECT count(*) FROM events WHERE dispatched_at_ms IS NULL")
        .fetch_one(database.pool())
        .await?
        .try_get(0)?;
    let mut counts = OutboxCounts {
        undispatched,
        ..OutboxCounts::default()
    };
    let rows = sqlx::query(
        "SELECT channel, status, count(*) AS deliveries FROM deliveries WHERE status IN ('pending', 'failed') \
         GROUP BY channel, status",
    )
    .fetch_all(database.pool())
    .await?;
    for row in &rows {
        let (channel, status): (String, String) = (row.try_get("channel")?, row.try_get("status")?);
        let count = match (channel.as_str(), status.as_str()) {
            ("email", "pending") => &mut counts.mails_pending,
            ("email", _) => &mut counts.mails_failed,
            ("discord", "pending") => &mut counts.posts_pending,
            ("discord", _) => &mut counts.posts_failed,
            (_, "pending") => &mut counts.webhooks_pending,
            _ => &mut counts.webhooks_failed,
        };
        *count = row.try_get("deliveries")?;
    }
    Ok(counts)
}

/// A delivery, as lists show it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Delivery {
    pub id: DeliveryId,
    pub event: EventId,
    /// `email`, `webhook` or `discord`.
    pub channel: String,
    /// A mailbox, or an endpoint's id.
    pub target: String,
    /// `pending`, `delivered` or `failed`.
    pub status: String,
    pub attempts: i64,
    pub next_at_ms: Option<i64>,
    pub error: String,
    pub created_at_ms: i64,
    pub delivered_at_ms: Option<i64>,
}

const SELECT_DELIVERY: &str = "SELECT id, event_id, channel, target, status, attempts, next_at_ms, error, created_at_ms, \
     delivered_at_ms FROM deliveries";

/// The deliveries of an event, by id.
///
/// # Errors
/// As the database answers.
pub async fn deliveries_of(db: impl AnyExecutor<'_>, event: EventId) -> Result<Vec<Delivery>, EventError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_DELIVERY} WHERE event_id = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(event.0).fetch_all(db).await?;
    rows.iter().map(read_delivery).collect()
}

/// The deliveries to an endpoint, latest first, `limit` at most. Whose it is the caller has asked before (S1).
///
/// # Errors
/// As the database answers.
pub async fn deliveries_to(
    db: impl AnyExecutor<'_>,
    endpoint: EndpointId,
    limit: i64,
) -> Result<Vec<Delivery>, EventError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_DELIVERY} WHERE target = $1 ORDER BY id DESC LIMIT $2"));
    let rows = sqlx::query(sql)
        .bind(endpoint.to_string())
        .bind(limit.clamp(1, super::MAX_PAGE))
        .fetch_all(db)
        .await?;
    rows.iter().map(read_delivery).collect()
}

/// Which deliveries to list; what is not set is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeliveryFilter<'a> {
    /// `email`, `webhook` or `discord`.
    pub channel: Option<&'a str>,
    pub target: Option<&'a str>,
    /// `pending`, `delivered` or `failed`.
    pub status: Option<&'a str>,
    /// Older than this one: the last of the page before.
    pub before: Option<DeliveryId>,
}

/// Deliveries, latest first, `limit` at most.
///
/// # Errors
/// As the database answers.
pub async fn deliveries(
    db: impl AnyExecutor<'_>,
    filter: DeliveryFilter<'_>,
    limit: i64,
) -> Result<Vec<Delivery>, EventError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT_DELIVERY} WHERE id < $1 AND ($2 = '' OR channel = $2) AND ($3 = '' OR target = $3) \
         AND ($4 = '' OR status = $4) ORDER BY id DESC LIMIT $5"
    ));
    let rows = sqlx::query(sql)
        .bind(filter.before.map_or(i64::MAX, |before| before.0))
        .bind(filter.channel.unwrap_or(""))
        .bind(filter.target.unwrap_or(""))
        .bind(filter.status.unwrap_or(""))
        .bind(limit.clamp(1, super::MAX_PAGE))
        .fetch_all(db)
        .await?;
    rows.iter().map(read_delivery).collect()
}

/// One delivery, where there is one of this id.
///
/// # Errors
/// As the database answers.
pub async fn delivery(db: impl AnyExecutor<'_>, id: DeliveryId) -> Result<Option<Delivery>, EventError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT_DELIVERY} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(read_delivery).transpose()
}

fn read_delivery(row: &AnyRow) -> Result<Delivery, EventError> {
    Ok(Delivery {
        id: DeliveryId(row.try_get("id")?),
        event: EventId(row.try_get("event_id")?),
        channel: row.try_get("channel")?,
        target: row.try_get("target")?,
        status: row.try_get("status")?,
        attempts: row.try_get("attempts")?,
        next_at_ms: row.try_get("next_at_ms")?,
        error: row.try_get("error")?,
        created_at_ms: row.try_get("created_at_ms")?,
        delivered_at_ms: row.try_get("delivered_at_ms")?,
    })
}
