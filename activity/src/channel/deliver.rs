//! Sending what is due, over one channel.
//!
//! ```text
//! pending ──claim──▶ pending, not due for LEASE_MS ──sent──▶ delivered
//!    ▲                    │                │
//!    ├── later: schedule ─┤                └─ never, or schedule used up ──▶ failed
//!    └── when the receiver has asked for patience: what it said
//! ```
//!
//! A claim is a compare-and-set on the count of attempts, and so is noting the outcome: of two workers one sends, and one
//! that comes back late notes nothing. A worker that dies leaves its delivery to the next one when the lease ends; if it had
//! sent already, it is sent again (at least once).
//!
//! Each channel has slots of its own: an endpoint that is slow delays no mail. Of the slots for endpoints one customer holds
//! [`ENDPOINTS_PER_OWNER`] at most, and one endpoint one ([`queue`]). A slot that becomes free is used at once, by what became
//! due meanwhile too.

mod queue;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use schemas::db::Database;
use schemas::fault;
use schemas::ids::{CustomerId, DeliveryId, EndpointId, EventId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tokio::time::Instant;

use self::queue::{OwnerKey, Queue};
use super::mail::MAIL_MAX_AGE_MS;
use super::{Channel, ChannelError, DeliveryOutcome, DueDelivery, Sending, Targets, Transports, endpoint};
use crate::event::{EventType, NewEvent, event, is_of_database, publish};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// How long after each failed try the next one follows; after the last, three days on, the delivery has failed.
pub const RETRY_DELAYS_MS: [i64; 9] = [
    MINUTE_MS,
    5 * MINUTE_MS,
    30 * MINUTE_MS,
    2 * HOUR_MS,
    6 * HOUR_MS,
    10 * HOUR_MS,
    14 * HOUR_MS,
    18 * HOUR_MS,
    24 * HOUR_MS,
];
/// A receiver that asks for patience is given it for so long; then its answers count as any others.
const PATIENCE_MAX_AGE_MS: i64 = 72 * HOUR_MS;
/// How long a claimed delivery is its worker's. Longer than [`WORK_LIMIT`] and [`SEND_LIMIT`] together.
const LEASE_MS: i64 = 15 * MINUTE_MS;
/// After this no more is claimed in one call.
const WORK_LIMIT: Duration = Duration::from_secs(300);
/// Until one delivery is given up for now.
const SEND_LIMIT: Duration = Duration::from_secs(180);
/// How long the rest of what goes to a silent server waits, so that each try does not wait for its time-out.
const SILENCE_MS: i64 = MINUTE_MS;
/// Requests to endpoints of one kind under way at most.
pub(super) const ENDPOINTS_AT_ONCE: usize = 32;
/// Requests to endpoints of one kind and one owner under way at most.
pub const ENDPOINTS_PER_OWNER: usize = 2;
/// Mails looked up at once.
const MAILBOX_BATCH: i64 = 200;
/// Requests looked up at once: the oldest of each endpoint before the second ones.
const ENDPOINT_BATCH: i64 = 1_000;
/// Of one endpoint looked up at once.
const ENDPOINT_BATCH_EACH: i64 = 50;
/// How often a lane with free slots looks for what became due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Characters of an error that are kept.
const MAX_ERROR_CHARS: usize = 500;

/// What a call did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    pub sent: u64,
    /// To be tried again.
    pub postponed: u64,
    pub failed: u64,
}

impl Delivered {
    pub(super) fn add(&mut self, part: Delivered) {
        self.sent += part.sent;
        self.postponed += part.postponed;
        self.failed += part.failed;
    }
}

/// What a run goes by.
#[derive(Clone, Copy)]
pub struct DeliveryRun<'a> {
    /// What time it is, in UTC milliseconds.
    pub now_ms: &'a (dyn Fn() -> i64 + Send + Sync),
    /// Nothing more is begun; what is under way ends.
    pub is_stopping: &'a (dyn Fn() -> bool + Send + Sync),
}

impl std::fmt::Debug for DeliveryRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}

fn read_due(row: &AnyRow, targets: Targets) -> Result<DueDelivery, sqlx::Error> {
    let id = DeliveryId(row.try_get("id")?);
    let target: String = row.try_get("target")?;
    Ok(DueDelivery {
        id,
        event: EventId(row.try_get("event_id")?),
        queue: match targets {
            Targets::Mailboxes => id.to_string(),
            Targets::Endpoints => target.clone(),
        },
        target,
        attempts: row.try_get("attempts")?,
        deferred: row.try_get("deferred")?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}

/// Sends what is due over a channel, and returns when nothing is, or some time after [`WORK_LIMIT`].
///
/// # Errors
/// As the database answers. What a server says is no error: it is kept with its delivery.
pub async fn deliver(
    database: &Database,
    channel: &dyn Channel,
    transports: Transports<'_>,
    run: DeliveryRun<'_>,
) -> Result<Delivered, ChannelError> {
    let Some(sending) = channel.sending() else {
        return Ok(Delivered::default());
    };
    if let Some(lack) = channel.lacks(&transports) {
        return expire(database, channel, lack, (run.now_ms)()).await;
    }
    let worker = Worker {
        database,
        channel,
        sending,
        transports,
        run,
        give_up: Instant::now() + WORK_LIMIT,
    };
    worker.work().await
}

/// Without what it needs a channel sends nothing, and nothing waits for ever.
async fn expire(
    database: &Database,
    channel: &dyn Channel,
    lack: &str,
    now_ms: i64,
) -> Result<Delivered, ChannelError> {
    let expired = sqlx::query(
        "UPDATE deliveries SET status = 'failed', next_at_ms = NULL, error = $1 \
         WHERE status = 'pending' AND channel = $2 AND created_at_ms < $3",
    )
    .bind(lack)
    .bind(channel.channel())
    .bind(now_ms - MAIL_MAX_AGE_MS)
    .execute(database.pool())
    .await?;
    Ok(Delivered {
        failed: expired.rows_affected(),
        ..Delivered::default()
    })
}

struct Worker<'a> {
    database: &'a Database,
    channel: &'a dyn Channel,
    sending: Sending,
    transports: Transports<'a>,
    run: DeliveryRun<'a>,
    give_up: Instant,
}

/// A try that is over.
struct DeliveryAttempt {
    owner: OwnerKey,
    due: DueDelivery,
    /// Nobody answered, or who did asked for patience: the rest that goes there waits.
    is_put_off: bool,
    result: Result<Delivered, ChannelError>,
}

impl Worker<'_> {
    fn now_ms(&self) -> i64 {
        (self.run.now_ms)()
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.give_up || (self.run.is_stopping)()
    }

    /// Uses its slots until nothing is due. After an error of the database what is under way ends, and nothing more begins.
    async fn work(&self) -> Result<Delivered, ChannelError> {
        let slots = self.sending.at_once;
        let mut queue = Queue::new(self.sending.per_owner);
        let mut running = FuturesUnordered::new();
        let mut done = Delivered::default();
        let mut failed = None;
        let mut look_at = Instant::now();
        // Tried while it was looked for more.
        let mut finished = Vec::new();
        loop {
            let mut has_looked = false;
            while running.len() < slots && failed.is_none() && !self.is_over() {
                if let Some((owner, due)) = queue.take() {
                    running.push(self.attempt(owner, due));
                } else if has_looked || !(queue.is_empty() || Instant::now() >= look_at) {
                    break;
                } else {
                    has_looked = true;
                    look_at = Instant::now() + LOOK_INTERVAL;
                    match self.look(&mut running, &mut finished).await {
                        Ok(due) => queue.fill(due),
                        Err(error) => failed = Some(error),
                    }
                }
            }
            if running.is_empty() && finished.is_empty() {
                return failed.map_or(Ok(done), Err);
            }
            let has_room = running.len() < slots && failed.is_none() && !self.is_over();
            let tried = match finished.pop() {
                Some(tried) => Some(tried),
                None => tokio::select! {
                    tried = running.next() => tried,
                    () = tokio::time::sleep(LOOK_INTERVAL), if has_room => None,
                },
            };
            let Some(tried) = tried else { continue };
            queue.finish(tried.owner, &tried.due);
            if tried.is_put_off {
                match self.sending.targets {
                    // All mail goes to one server.
                    Targets::Mailboxes => queue.clear(),
                    Targets::Endpoints => queue.forget(&tried.due.queue),
                }
            }
            match tried.result {
                Ok(part) => done.add(part),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
    }

    /// As [`Worker::due`], while what is under way goes on: one of them may hold the lock for writing that all connections wait for.
    async fn look<F: Future<Output = DeliveryAttempt>>(
        &self,
        running: &mut FuturesUnordered<F>,
        finished: &mut Vec<DeliveryAttempt>,
    ) -> Result<Vec<(OwnerKey, DueDelivery)>, ChannelError> {
        let mut looking = std::pin::pin!(self.due());
        loop {
            tokio::select! {
                due = &mut looking => return due,
                Some(tried) = running.next() => finished.push(tried),
            }
        }
    }

    /// What is due, and whose it is.
    async fn due(&self) -> Result<Vec<(OwnerKey, DueDelivery)>, ChannelError> {
        match self.sending.targets {
            Targets::Mailboxes => self.due_to_mailboxes().await,
            Targets::Endpoints => self.due_to_endpoints().await,
        }
    }

    /// The oldest mails.
    async fn due_to_mailboxes(&self) -> Result<Vec<(OwnerKey, DueDelivery)>, ChannelError> {
        let rows = sqlx::query(
            "SELECT id, event_id, target, attempts, deferred, created_at_ms FROM deliveries \
             WHERE status = 'pending' AND channel = $1 AND next_at_ms <= $2 ORDER BY id LIMIT $3",
        )
        .bind(self.channel.channel())
        .bind(self.now_ms())
        .bind(MAILBOX_BATCH)
        .fetch_all(self.database.pool())
        .await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            due.push((0, read_due(row, self.sending.targets)?));
        }
        Ok(due)
    }

    /// The oldest requests of each endpoint.
    async fn due_to_endpoints(&self) -> Result<Vec<(OwnerKey, DueDelivery)>, ChannelError> {
        let rows = sqlx::query(
            "SELECT id, event_id, target, attempts, deferred, created_at_ms FROM \
             (SELECT id, event_id, target, attempts, deferred, created_at_ms, \
              row_number() OVER (PARTITION BY target ORDER BY id) AS place \
              FROM deliveries WHERE status = 'pending' AND channel = $1 AND next_at_ms <= $2) AS placed \
             WHERE place <= $3 ORDER BY place, id LIMIT $4",
        )
        .bind(self.channel.channel())
        .bind(self.now_ms())
        .bind(ENDPOINT_BATCH_EACH)
        .bind(ENDPOINT_BATCH)
        .fetch_all(self.database.pool())
        .await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            due.push(read_due(row, self.sending.targets)?);
        }
        let endpoints: BTreeSet<EndpointId> = due.iter().filter_map(|due| due.target.parse().ok()).collect();
        let endpoints: Vec<EndpointId> = endpoints.into_iter().collect();
        let owners = endpoint::owners(self.database, &endpoints).await?;
        let owner_of = |due: &DueDelivery| {
            let endpoint: Option<EndpointId> = due.target.parse().ok();
            let owner = endpoint.and_then(|endpoint| owners.get(&endpoint).copied());
            owner.flatten().map_or(0, |customer| customer.0)
        };
        Ok(due.into_iter().map(|due| (owner_of(&due), due)).collect())
    }

    async fn attempt(&self, owner: OwnerKey, due: DueDelivery) -> DeliveryAttempt {
        let mut is_put_off = false;
        let result = self.try_once(&due, &mut is_put_off).await;
        DeliveryAttempt {
            owner,
            due,
            is_put_off,
            result,
        }
    }

    async fn try_once(&self, due: &DueDelivery, is_put_off: &mut bool) -> Result<Delivered, ChannelError> {
        let mut done = Delivered::default();
        if !self.claim(due).await? {
            return Ok(done);
        }
        fault::at("event.claimed");
        let sending = tokio::time::timeout(SEND_LIMIT, self.send(due)).await;
        let outcome = match sending {
            Ok(Err(error)) if is_of_database(&error) => return Err(error),
            // Its event cannot be told: it is retried by the schedule as any other, and holds up none.
            Ok(Err(error)) => DeliveryOutcome::Retry(causes(&error)),
            Ok(Ok(outcome)) => outcome,
            Err(_) => DeliveryOutcome::Unreachable(format!("not done within {} s", SEND_LIMIT.as_secs())),
        };
        fault::at("event.sent");
        *is_put_off = matches!(
            outcome,
            DeliveryOutcome::Unreachable(_) | DeliveryOutcome::Deferred { .. }
        );
        self.note(due, outcome, &mut done).await?;
        Ok(done)
    }

    /// Makes a delivery this worker's, unless another was quicker or it is no longer due.
    async fn claim(&self, due: &DueDelivery) -> Result<bool, ChannelError> {
        let now_ms = self.now_ms();
        // Most of what several workers see was claimed by another: SQLite's one write lock is not asked for to find that out.
        let is_due = sqlx::query(
            "SELECT id FROM deliveries WHERE id = $1 AND status = 'pending' AND attempts = $2 AND next_at_ms <= $3",
        )
        .bind(due.id.0)
        .bind(due.attempts)
        .bind(now_ms)
        .fetch_optional(self.database.pool())
        .await?
        .is_some();
        if !is_due {
            return Ok(false);
        }
        let claimed = sqlx::query(
            "UPDATE deliveries SET attempts = attempts + 1, next_at_ms = $1 \
             WHERE id = $2 AND status = 'pending' AND attempts = $3 AND next_at_ms <= $4",
        )
        .bind(now_ms + LEASE_MS)
        .bind(due.id.0)
        .bind(due.attempts)
        .bind(now_ms)
        .execute(self.database.pool())
        .await?;
        Ok(claimed.rows_affected() == 1)
    }

    async fn send(&self, due: &DueDelivery) -> Result<DeliveryOutcome, ChannelError> {
        let event = event(self.database.pool(), due.event).await?;
        let (database, transports) = (self.database, self.transports);
        self.channel
            .send(database, transports, due, &event, self.now_ms())
            .await
    }

    /// Keeps what became of a try, unless somebody else has the delivery by now.
    async fn note(
        &self,
        due: &DueDelivery,
        outcome: DeliveryOutcome,
        done: &mut Delivered,
    ) -> Result<(), ChannelError> {
        let now_ms = self.now_ms();
        let is_patient = now_ms - due.created_at_ms < PATIENCE_MAX_AGE_MS;
        let is_deferred = matches!(outcome, DeliveryOutcome::Deferred { .. }) && is_patient;
        // The rest that goes there waits until then.
        let rest_at_ms = match &outcome {
            DeliveryOutcome::Unreachable(_) => Some(now_ms + SILENCE_MS),
            DeliveryOutcome::Deferred { after_ms, .. } => Some(now_ms + after_ms),
            _ => None,
        };
        let is_gone = matches!(outcome, DeliveryOutcome::Gone(_));
        let retry_at_ms = usize::try_from(due.attempts - due.deferred)
            .ok()
            .and_then(|failed_before| RETRY_DELAYS_MS.get(failed_before))
            .map(|delay_ms| now_ms + delay_ms);
        let (status, next_at_ms, error) = match outcome {
            DeliveryOutcome::Delivered => ("delivered", None, String::new()),
            DeliveryOutcome::Rejected(why) | DeliveryOutcome::Gone(why) => ("failed", None, why),
            DeliveryOutcome::Deferred { why, .. } if is_deferred => ("pending", rest_at_ms, why),
            DeliveryOutcome::Retry(why) | DeliveryOutcome::Unreachable(why) | DeliveryOutcome::Deferred { why, .. } => {
                match retry_at_ms {
                    Some(at_ms) => ("pending", Some(at_ms), why),
                    None => ("failed", None, why),
                }
            }
        };
        let error: String = error.chars().take(MAX_ERROR_CHARS).collect();
        let endpoint = match self.sending.targets {
            Targets::Endpoints => due.target.parse::<EndpointId>().ok(),
            Targets::Mailboxes => None,
        };
        let mut transaction = self.database.begin_write().await?;
        if let Some(endpoint) = endpoint {
            // The endpoint before its deliveries, always: whoever disables it changes both.
            sqlx::query("UPDATE webhook_endpoints SET failures = failures WHERE id = $1")
                .bind(endpoint.0)
                .execute(&mut *transaction)
                .await?;
        }
        let noted = sqlx::query(
            "UPDATE deliveries SET status = $1, next_at_ms = $2, error = $3, delivered_at_ms = $4, deferred = deferred + $5 \
             WHERE id = $6 AND status = 'pending' AND attempts = $7",
        )
        .bind(status)
        .bind(next_at_ms)
        .bind(&error)
        .bind((status == "delivered").then_some(now_ms))
        .bind(i64::from(is_deferred))
        .bind(due.id.0)
        .bind(due.attempts + 1)
        .execute(&mut *transaction)
        .await?;
        if noted.rows_affected() == 0 {
            return Ok(());
        }
        match status {
            "delivered" => done.sent += 1,
            "pending" => done.postponed += 1,
            _ => done.failed += 1,
        }
        // Who asks for patience has not failed.
        if let Some(endpoint) = endpoint.filter(|_| !is_deferred) {
            let verdict = match status {
                "delivered" => AttemptOutcome::Accepted,
                _ if is_gone => AttemptOutcome::Gone,
                "failed" if retry_at_ms.is_none() => AttemptOutcome::GivenUp,
                _ => AttemptOutcome::Failed,
            };
            self.note_endpoint(&mut transaction, endpoint, verdict, due, &error)
                .await?;
        }
        transaction.commit().await?;
        if let Some(at_ms) = rest_at_ms {
            self.postpone_rest(due, at_ms).await?;
        }
        Ok(())
    }

    /// What is due and goes where this one went waits until then.
    async fn postpone_rest(&self, due: &DueDelivery, until_ms: i64) -> Result<(), ChannelError> {
        // All mail goes to one server.
        let any_target = i64::from(self.sending.targets == Targets::Mailboxes);
        sqlx::query(
            "UPDATE deliveries SET next_at_ms = $1 \
             WHERE status = 'pending' AND next_at_ms <= $2 AND channel = $3 AND ($4 = 1 OR target = $5)",
        )
        .bind(until_ms)
        .bind(self.now_ms())
        .bind(self.channel.channel())
        .bind(any_target)
        .bind(&due.target)
        .execute(self.database.pool())
        .await?;
        Ok(())
    }

    /// Counts an endpoint's failures. When a delivery used up its schedule and in all that time nothing else was taken, or there
    /// is no such target any more, the endpoint is disabled and its owner told.
    async fn note_endpoint(
        &self,
        connection: &mut AnyConnection,
        id: EndpointId,
        verdict: AttemptOutcome,
        due: &DueDelivery,
        error: &str,
    ) -> Result<(), ChannelError> {
        let sql = match verdict {
            AttemptOutcome::Accepted => "UPDATE webhook_endpoints SET failures = 0 WHERE id = $1 AND failures > 0",
            _ => "UPDATE webhook_endpoints SET failures = failures + 1 WHERE id = $1",
        };
        sqlx::query(sql).bind(id.0).execute(&mut *connection).await?;
        let is_over = match verdict {
            AttemptOutcome::Accepted | AttemptOutcome::Failed => false,
            AttemptOutcome::Gone => true,
            AttemptOutcome::GivenUp => {
                let taken = "SELECT id FROM deliveries WHERE target = $1 AND delivered_at_ms >= $2 LIMIT 1";
                let taken = sqlx::query(taken).bind(&due.target).bind(due.created_at_ms);
                taken.fetch_optional(&mut *connection).await?.is_none()
            }
        };
        if !is_over {
            return Ok(());
        }
        let disabled = sqlx::query(
            "UPDATE webhook_endpoints SET disabled_at_ms = $1 WHERE id = $2 AND disabled_at_ms IS NULL \
             RETURNING customer_id, url, kind",
        )
        .bind(self.now_ms())
        .bind(id.0)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = disabled else { return Ok(()) };
        endpoint::fail_pending(&mut *connection, id, "the endpoint was disabled").await?;
        let new = NewEvent {
            event_type: EventType::WebhookDisabled,
            customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
            subject: id.to_string(),
            payload: json!({
                "endpoint": id,
                "kind": row.try_get::<String, _>("kind")?,
                "url": row.try_get::<String, _>("url")?,
                "error": error,
            }),
        };
        publish(connection, new, self.now_ms()).await?;
        Ok(())
    }
}

/// What a try says of its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AttemptOutcome {
    Accepted,
    Failed,
    /// The schedule of this delivery is used up.
    GivenUp,
    /// There is no such target any more.
    Gone,
}

/// An error and its sources in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
