//! Sending stored events to an endpoint once more.

use schemas::ids::{CustomerId, EndpointId, EventId};
use serde_json::json;
use sqlx::{AnyConnection, Row as _};

use super::endpoint::{self, EndpointError, Owner};
use crate::act::Note;
use crate::event::{EventError, EventType, NewDelivery, SELECT, enqueue, read, take_turn};

/// Events that are replayed at once at most.
pub const MAX_REPLAYED: i64 = 10_000;
/// Deliveries that may be pending to a customer's endpoint for more events to be replayed to it.
pub const MAX_PENDING: i64 = 1_000;
/// Events that are replayed to the endpoints of a customer in an hour at most.
pub const MAX_REPLAYED_PER_HOUR: i64 = 2_000;
const HOUR_MS: i64 = 3_600_000;

/// Why events were not sent once more.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read the events")]
    Event(#[from] EventError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
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
}

schemas::error_codes! {
    ReplayError: "replay";
    of [Database, Event, Endpoint]
    source []
    Conflict: Disabled = "disabled";
    Limit: TooMany = "too_many", TooManyPending = "too_many_pending", TooOften = "too_often";
}

/// Which events are sent once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replay {
    pub first: EventId,
    pub last: EventId,
    pub event_type: Option<EventType>,
}

/// Sends stored events to an endpoint again, as new deliveries, and returns how many, with what the entry says. Mail is not repeated.
///
/// # Errors
/// When there is no such endpoint, it is disabled, or the range holds more than [`MAX_REPLAYED`] events; of a customer's
/// endpoint also when more than [`MAX_PENDING`] would be pending, or [`MAX_REPLAYED_PER_HOUR`] were replayed.
pub async fn replay(
    connection: &mut AnyConnection,
    replay: Replay,
    endpoint: EndpointId,
    of: Owner,
    now_ms: i64,
) -> Result<(u64, Note), ReplayError> {
    let endpoint = endpoint::endpoint(&mut *connection, endpoint, of).await?;
    if endpoint.disabled_at_ms.is_some() {
        return Err(ReplayError::Disabled(endpoint.id));
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
        return Err(ReplayError::TooMany);
    }
    let mut deliveries = Vec::new();
    for row in &rows {
        let event = read(row)?;
        if endpoint.receives(&event) {
            deliveries.push(NewDelivery {
                event: event.id,
                channel: endpoint.kind.name(),
                target: endpoint.id.to_string(),
                is_replay: true,
            });
        }
    }
    if let Some(customer) = endpoint.customer {
        check_replay(&mut *connection, customer, endpoint.id, deliveries.len(), now_ms).await?;
    }
    enqueue(connection, &deliveries, now_ms).await?;
    let change = json!({"after": {"first": replay.first, "last": replay.last, "events": deliveries.len(),
        "type": replay.event_type}});
    let note = Note::new("event.replay", endpoint.id).change(change);
    Ok((deliveries.len() as u64, note))
}

/// Whether so many more may be replayed to a customer's endpoint.
async fn check_replay(
    connection: &mut AnyConnection,
    customer: CustomerId,
    endpoint: EndpointId,
    replayed: usize,
    now_ms: i64,
) -> Result<(), ReplayError> {
    let replayed = i64::try_from(replayed).unwrap_or(i64::MAX);
    // Two who replay at once take turns, so that the first is counted.
    take_turn(&mut *connection).await?;
    let pending: i64 = sqlx::query("SELECT count(*) FROM deliveries WHERE target = $1 AND status = 'pending'")
        .bind(endpoint.to_string())
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if pending.saturating_add(replayed) > MAX_PENDING {
        return Err(ReplayError::TooManyPending {
            endpoint,
            pending,
            replayed,
        });
    }
    let targets: Vec<String> = endpoint::endpoints(&mut *connection, Owner::Customer(customer))
        .await?
        .iter()
        .map(|endpoint| endpoint.id.to_string())
        .collect();
    let mut lately: i64 = 0;
    for target in &targets {
        let row =
            sqlx::query("SELECT count(*) FROM deliveries WHERE target = $1 AND is_replay = 1 AND created_at_ms > $2")
                .bind(target)
                .bind(now_ms - HOUR_MS)
                .fetch_one(&mut *connection)
                .await?;
        lately = lately.saturating_add(row.try_get(0)?);
    }
    if lately.saturating_add(replayed) > MAX_REPLAYED_PER_HOUR {
        return Err(ReplayError::TooOften);
    }
    Ok(())
}
