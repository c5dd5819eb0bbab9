//! Reactions to events, each with a cursor of its own.
//!
//! ```text
//! events   1  2  3  4  5  6  7  8     ids ascend in the order in which their transactions were committed
//!                   ▲        ▲
//!    dispatch_discord        dispatch_mail      a row of `event_consumers` each: all up to here is handled, or set aside
//! ```
//!
//! Promises:
//! * What a consumer writes and its cursor are one transaction, made by one worker at a time: it handles each event once, with
//!   any number of workers and wherever one of them dies.
//! * A consumer that fails or lags holds up none of the others.
//! * An event that a consumer cannot handle holds up nothing that came after it: a batch that fails is tried event by event,
//!   and what fails alone is set aside (`event_retries`) and tried with each call. [`lags`] tells how long the oldest has waited.
//! * An event is marked as dispatched once all consumers have handled it.
//!
//! Ids ascend in the order of commits because [`super::publish`] takes them from a sequence whose row stays locked until the
//! transaction ends: that is why it needs one.

use std::error::Error;
use std::fmt::Debug;

use futures::future::BoxFuture;
use schemas::bulk;
use schemas::db::{Database, next_ids};
use schemas::fault;
use schemas::ids::EventId;
use sqlx::{AnyConnection, AnyExecutor, AnyPool, Row as _};

use super::{Event, EventError, EventType, SELECT, is_of_database, read};

/// Events in one transaction at most.
const BATCH: i64 = 500;
/// Events that were set aside and are tried again in one call at most.
const RETRIES: i64 = 500;
/// Characters of an error that are kept.
const MAX_ERROR_CHARS: usize = 500;

/// Why a consumer could not handle events.
pub type HandleError = Box<dyn Error + Send + Sync>;

/// Something that reacts to events. One that is new to a database begins with what happens from then on.
pub trait Consumer: Send + Sync + Debug {
    /// As its cursor, its job and metrics name it: for good, since a renamed one is a new one.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence without a full stop: its job's description.
    fn description(&self) -> &'static str;

    /// One thing that it writes, as results of its job count them: "mail".
    fn noun(&self) -> &'static str;

    /// Whether it reacts to events of this type; others are passed without being read.
    fn wants(&self, event_type: EventType) -> bool;

    /// Reacts to events, in the order of their ids, in the transaction that moves its cursor, and answers how much it wrote.
    /// What it does outside of the database may be repeated when the transaction is not committed.
    fn handle<'a>(
        &'a self,
        connection: &'a mut AnyConnection,
        events: &'a [Event],
        now_ms: i64,
    ) -> BoxFuture<'a, Result<u64, HandleError>>;
}

/// What a consumer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Handled {
    /// Events that it wants and has handled.
    pub events: u64,
    /// What it wrote for them, such as deliveries.
    pub written: u64,
}

/// Has a consumer handle every event that it has not handled yet.
///
/// # Errors
/// As the database answers, and [`EventError::PassedOver`] when some events could not be handled and all others were; what was
/// handled before stays so.
pub async fn consume(database: &Database, consumer: &dyn Consumer, now_ms: i64) -> Result<Handled, EventError> {
    let mut done = Handled::default();
    let mut skipped = SkippedEvents::default();
    retry(database, consumer, now_ms, &mut done, &mut skipped).await?;
    loop {
        // Asked first without a lock: most of the time there is nothing to do.
        let position = position(database, consumer, now_ms).await?;
        let ids = ids_after(database.pool(), position, BATCH).await?;
        let Some(&last) = ids.last() else {
            return skipped.into_result(consumer, done);
        };
        match handle_up_to(database, consumer, last, now_ms, &mut done).await {
            Ok(()) => continue,
            Err(error) => of_database(error)?,
        };
        // One of them cannot be handled; which, is seen when each is tried alone.
        for id in ids {
            if let Err(error) = handle_up_to(database, consumer, id, now_ms, &mut done).await {
                let error = of_database(error)?;
                set_aside(database, consumer, id, &error, now_ms).await?;
                skipped.add(id, error);
            }
        }
    }
}

/// What was dispatched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dispatched {
    /// Events that all consumers have handled now.
    pub events: u64,
    /// What each consumer wrote, such as deliveries, by its name; nothing of one that wrote nothing.
    pub written: Vec<(&'static str, u64)>,
}

impl Dispatched {
    /// How much a consumer wrote.
    pub fn written_by(&self, consumer: &str) -> u64 {
        let of = self.written.iter().filter(|(name, _)| *name == consumer);
        of.map(|(_, written)| written).sum()
    }
}

/// Has each of some consumers handle what it has not, one after the other, and marks what all of them have handled. One that
/// fails keeps none of the others from theirs.
///
/// # Errors
/// As [`consume`], of the first that failed.
pub async fn dispatch(database: &Database, consumers: &[&dyn Consumer], now_ms: i64) -> Result<Dispatched, EventError> {
    let mut done = Dispatched::default();
    let mut failed = None;
    for consumer in consumers {
        match consume(database, *consumer, now_ms).await {
            Ok(handled) if handled.written > 0 => done.written.push((consumer.name(), handled.written)),
            Ok(_) => {}
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    let names: Vec<&'static str> = consumers.iter().map(|consumer| consumer.name()).collect();
    done.events = mark_dispatched(database, &names, now_ms).await?;
    failed.map_or(Ok(done), Err)
}

/// Events that could not be handled, and why the first one could not.
#[derive(Default)]
struct SkippedEvents {
    count: u64,
    first: Option<(EventId, HandleError)>,
}

impl SkippedEvents {
    fn add(&mut self, id: EventId, error: HandleError) {
        self.count += 1;
        self.first.get_or_insert((id, error));
    }

    fn into_result(self, consumer: &dyn Consumer, done: Handled) -> Result<Handled, EventError> {
        match self.first {
            None => Ok(done),
            Some((event, source)) => Err(EventError::PassedOver {
                consumer: consumer.name(),
                count: self.count,
                event,
                source,
            }),
        }
    }
}

/// What the database could not do ends a call; any other error is the event's, and is handed back.
fn of_database(error: HandleError) -> Result<HandleError, EventError> {
    match is_of_database(error.as_ref()) {
        true => Err(EventError::Consumer(error)),
        false => Ok(error),
    }
}

/// How far a consumer is. One without a cursor gets one, at the latest event.
async fn position(database: &Database, consumer: &dyn Consumer, now_ms: i64) -> Result<EventId, EventError> {
    let sql = "SELECT position FROM event_consumers WHERE name = $1";
    let row = sqlx::query(sql)
        .bind(consumer.name())
        .fetch_optional(database.pool())
        .await?;
    if let Some(row) = row {
        return Ok(EventId(row.try_get(0)?));
    }
    let mut transaction = database.begin_write().await?;
    sqlx::query(
        "INSERT INTO event_consumers (name, position, updated_at_ms) \
         SELECT $1, coalesce(max(id), 0), $2 FROM events WHERE id > 0 ON CONFLICT (name) DO NOTHING",
    )
    .bind(consumer.name())
    .bind(now_ms)
    .execute(&mut *transaction)
    .await?;
    let row = sqlx::query(sql)
        .bind(consumer.name())
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(EventId(row.try_get(0)?))
}

/// The oldest events after one.
async fn ids_after(db: impl AnyExecutor<'_>, after: EventId, limit: i64) -> Result<Vec<EventId>, EventError> {
    let sql = "SELECT id FROM events WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = sqlx::query(sql).bind(after.0).bind(limit).fetch_all(db).await?;
    rows.iter().map(|row| Ok(EventId(row.try_get(0)?))).collect()
}

/// Waits until no other worker moves the cursor, and answers where it is.
async fn take_turn(
    connection: &mut AnyConnection,
    consumer: &dyn Consumer,
    now_ms: i64,
) -> Result<EventId, sqlx::Error> {
    let sql = "UPDATE event_consumers SET updated_at_ms = $1 WHERE name = $2 RETURNING position";
    let row = sqlx::query(sql)
        .bind(now_ms)
        .bind(consumer.name())
        .fetch_one(connection)
        .await?;
    Ok(EventId(row.try_get(0)?))
}

async fn move_to(
    connection: &mut AnyConnection,
    consumer: &dyn Consumer,
    position: EventId,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE event_consumers SET position = $1 WHERE name = $2")
        .bind(position.0)
        .bind(consumer.name())
        .execute(connection)
        .await?;
    Ok(())
}

/// Handles the events up to one, from where the cursor is, and moves it, in one transaction.
async fn handle_up_to(
    database: &Database,
    consumer: &dyn Consumer,
    last: EventId,
    now_ms: i64,
    done: &mut Handled,
) -> Result<(), HandleError> {
    let mut transaction = database.begin_write().await?;
    let position = take_turn(&mut transaction, consumer, now_ms).await?;
    // Another worker was quicker.
    if position.0 >= last.0 {
        return Ok(());
    }
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id > $1 AND id <= $2 ORDER BY id"));
    let rows = sqlx::query(sql)
        .bind(position.0)
        .bind(last.0)
        .fetch_all(&mut *transaction)
        .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let event_type: EventType = row.try_get::<String, _>("event_type")?.parse()?;
        if consumer.wants(event_type) {
            events.push(read(row)?);
        }
    }
    let written = match events.is_empty() {
        true => 0,
        false => consumer.handle(&mut transaction, &events, now_ms).await?,
    };
    move_to(&mut transaction, consumer, last).await?;
    fault::at("event.dispatched");
    transaction.commit().await?;
    done.events += events.len() as u64;
    done.written += written;
    Ok(())
}

/// Moves the cursor past an event that could not be handled, and keeps it to be tried again.
async fn set_aside(
    database: &Database,
    consumer: &dyn Consumer,
    id: EventId,
    error: &HandleError,
    now_ms: i64,
) -> Result<(), EventError> {
    let mut transaction = database.begin_write().await?;
    // Another worker was quicker: it has handled the event, or set it aside.
    if take_turn(&mut transaction, consumer, now_ms).await?.0 >= id.0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO event_retries (consumer, event_id, attempts, error, failed_at_ms) VALUES ($1, $2, 1, $3, $4)",
    )
    .bind(consumer.name())
    .bind(id.0)
    .bind(kept(error))
    .bind(now_ms)
    .execute(&mut *transaction)
    .await?;
    move_to(&mut transaction, consumer, id).await?;
    transaction.commit().await?;
    Ok(())
}

/// An error and its sources in one line, as it is kept.
fn kept(error: &HandleError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.chars().take(MAX_ERROR_CHARS).collect()
}

/// Tries again what was set aside.
async fn retry(
    database: &Database,
    consumer: &dyn Consumer,
    now_ms: i64,
    done: &mut Handled,
    skipped: &mut SkippedEvents,
) -> Result<(), EventError> {
    let sql = "SELECT event_id FROM event_retries WHERE consumer = $1 ORDER BY event_id LIMIT $2";
    let rows = sqlx::query(sql)
        .bind(consumer.name())
        .bind(RETRIES)
        .fetch_all(database.pool())
        .await?;
    for row in &rows {
        let id = EventId(row.try_get(0)?);
        if let Err(error) = retry_one(database, consumer, id, now_ms, done).await {
            let error = of_database(error)?;
            sqlx::query(
                "UPDATE event_retries SET attempts = attempts + 1, error = $1, failed_at_ms = $2 \
                 WHERE consumer = $3 AND event_id = $4",
            )
            .bind(kept(&error))
            .bind(now_ms)
            .bind(consumer.name())
            .bind(id.0)
            .execute(database.pool())
            .await?;
            skipped.add(id, error);
        }
    }
    Ok(())
}

async fn retry_one(
    database: &Database,
    consumer: &dyn Consumer,
    id: EventId,
    now_ms: i64,
    done: &mut Handled,
) -> Result<(), HandleError> {
    let mut transaction = database.begin_write().await?;
    take_turn(&mut transaction, consumer, now_ms).await?;
    let removed = sqlx::query("DELETE FROM event_retries WHERE consumer = $1 AND event_id = $2")
        .bind(consumer.name())
        .bind(id.0)
        .execute(&mut *transaction)
        .await?;
    // Another worker was quicker.
    if removed.rows_affected() == 0 {
        return Ok(());
    }
    let event = super::event(&mut *transaction, id).await?;
    if consumer.wants(event.event_type) {
        let events = [event];
        done.written += consumer.handle(&mut transaction, &events, now_ms).await?;
        done.events += 1;
    }
    transaction.commit().await?;
    Ok(())
}

/// Marks as dispatched what all of these consumers have handled, and answers how many events that were.
///
/// # Errors
/// As the database answers.
pub async fn mark_dispatched(database: &Database, consumers: &[&'static str], now_ms: i64) -> Result<u64, EventError> {
    let mut connection = database.pool().acquire().await?;
    let sql = "SELECT position FROM event_consumers WHERE name IN ({values})";
    let rows = bulk::rows_of_values(&mut connection, sql, consumers, |query, name| query.bind(*name)).await?;
    drop(connection);
    // One that has no cursor yet has handled nothing.
    if rows.len() < consumers.len() {
        return Ok(0);
    }
    let mut all_up_to = i64::MAX;
    for row in &rows {
        all_up_to = all_up_to.min(row.try_get(0)?);
    }
    let waiting = sqlx::query("SELECT id FROM events WHERE dispatched_at_ms IS NULL AND id <= $1 LIMIT 1")
        .bind(all_up_to)
        .fetch_optional(database.pool())
        .await?;
    if waiting.is_none() {
        return Ok(0);
    }
    let names: Vec<String> = (3..consumers.len() + 3).map(|number| format!("${number}")).collect();
    let sql = sqlx::AssertSqlSafe(format!(
        "UPDATE events SET dispatched_at_ms = $1 WHERE dispatched_at_ms IS NULL AND id <= $2 \
         AND NOT EXISTS (SELECT 1 FROM event_retries r WHERE r.event_id = events.id AND r.consumer IN ({}))",
        names.join(", ")
    ));
    let mut transaction = database.begin_write().await?;
    // One at a time: two who mark the same rows in another order would wait for each other.
    next_ids(&mut transaction, "event_mark", 0).await?;
    let mut query = sqlx::query(sql).bind(now_ms).bind(all_up_to);
    for name in consumers {
        query = query.bind(*name);
    }
    let marked = query.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(marked.rows_affected())
}

/// What a consumer has not handled yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lag {
    pub consumer: &'static str,
    /// Events after its cursor, and set aside.
    pub waiting: i64,
    /// How many of these it could not handle when it tried.
    pub set_aside: i64,
    /// The oldest of them, and when it was published.
    pub oldest: Option<(EventId, i64)>,
}

/// How far each of some consumers lags. One without a cursor waits for nothing.
///
/// # Errors
/// As the database answers.
pub async fn lags(pool: &AnyPool, consumers: &[&'static str]) -> Result<Vec<Lag>, EventError> {
    let mut lags = Vec::with_capacity(consumers.len());
    for &consumer in consumers {
        let after = "SELECT count(*), CAST(coalesce(min(id), 0) AS BIGINT) FROM events \
                     WHERE id > (SELECT position FROM event_consumers WHERE name = $1)";
        let aside =
            "SELECT count(*), CAST(coalesce(min(event_id), 0) AS BIGINT) FROM event_retries WHERE consumer = $1";
        let row = sqlx::query(after).bind(consumer).fetch_one(pool).await?;
        let (after, first_after): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let row = sqlx::query(aside).bind(consumer).fetch_one(pool).await?;
        let (set_aside, first_aside): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let first = [first_after, first_aside].into_iter().filter(|id| *id > 0).min();
        let oldest = match first {
            None => None,
            Some(id) => {
                let row = sqlx::query("SELECT created_at_ms FROM events WHERE id = $1")
                    .bind(id)
                    .fetch_optional(pool)
                    .await?;
                let created_at_ms = row.map(|row| row.try_get(0)).transpose()?;
                created_at_ms.map(|at_ms| (EventId(id), at_ms))
            }
        };
        lags.push(Lag {
            consumer,
            waiting: after + set_aside,
            set_aside,
            oldest,
        });
    }
    Ok(lags)
}
