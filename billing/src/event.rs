//! Events of billing, with the facts that docs/events.md promises of them.
//!
//! [`activity::event`] stores and delivers any event. What billing publishes goes through here, so that whoever publishes gives
//! what it has at hand and every event carries the same facts by the same names ([`facts`]).

mod facts;

use activity::event::{EventError, NewEvent};
use schemas::ids::EventId;
use sqlx::AnyConnection;

/// Completes an event's facts and writes it into the caller's transaction, as [`activity::event::publish`] does.
///
/// # Errors
/// As [`activity::event::publish`].
pub async fn publish(connection: &mut AnyConnection, new: NewEvent, now_ms: i64) -> Result<EventId, EventError> {
    publish_all(connection, vec![new], now_ms).await
}

/// [`publish`] of many, in their order, with few statements; the id of the first, which the others' follow.
///
/// # Errors
/// As [`publish`].
pub async fn publish_all(
    connection: &mut AnyConnection,
    mut new: Vec<NewEvent>,
    now_ms: i64,
) -> Result<EventId, EventError> {
    for event in &mut new {
        facts::complete(connection, event).await?;
    }
    activity::event::publish_all(connection, new, now_ms).await
}

#[cfg(test)]
mod tests;
