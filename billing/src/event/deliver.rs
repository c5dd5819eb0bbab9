//! Sending what is due: mail to mailboxes, signed requests to endpoints.
//!
//! ```text
//! pending ──claim──▶ pending, not due for LEASE_MS ──sent──▶ delivered
//!    ▲                    │                │
//!    └── later: schedule ─┘                └─ never, or schedule used up ──▶ failed
//! ```
//!
//! A claim is a compare-and-set on the count of attempts, and so is noting the outcome: of two workers one sends, and one
//! that comes back late notes nothing. A worker that dies leaves its delivery to the next one when the lease ends; if it had
//! sent already, it is sent again (at least once).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::tz::TimeZone;
use schemas::db::Database;
use schemas::fault;
use schemas::ids::{CustomerId, DeliveryId, EndpointId, EventId};
use schemas::inventory;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};
use tokio::time::Instant;

use super::guard::Answer;
use super::mail::{Mailer, Recipient, Rendered, Sent, render};
use super::{Audience, Event, EventError, EventType, NewEvent, WebhookClient, event, publish, webhook};
use crate::{password_reset, verification};

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
/// Mail that could not be handed to any server for so long is no longer news.
pub const MAIL_MAX_AGE_MS: i64 = 72 * HOUR_MS;
/// How long a claimed delivery is its worker's. Longer than [`WORK_LIMIT`] and [`SEND_LIMIT`] together.
const LEASE_MS: i64 = 15 * MINUTE_MS;
/// After this no more is claimed in one call.
const WORK_LIMIT: Duration = Duration::from_secs(300);
/// Until one delivery is given up for now.
const SEND_LIMIT: Duration = Duration::from_secs(180);
/// How long the rest of what goes to a silent server waits, so that each try does not wait for its time-out.
const SILENCE_MS: i64 = MINUTE_MS;
/// Deliveries under way at most.
const CONCURRENCY: usize = 8;
/// Deliveries looked up at once.
const BATCH: i64 = 200;
/// Characters of an error that are kept.
const MAX_ERROR_CHARS: usize = 500;

/// Why one is written to, at the foot of a mail.
const WHY_CUSTOMER: &str = "You get this mail because it is about your account. Answers go to our billing team.";
const WHY_USER: &str = "You get this mail because it is about how you sign in. Answers go to our billing team.";
const WHY_STAFF: &str = "You get this mail because you run this installation of EZSCALE.";
/// Over mails that no company of ours sends.
const STAFF_BRAND: &str = "EZSCALE";

/// What a call did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    pub sent: u64,
    /// To be tried again.
    pub postponed: u64,
    pub failed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Channel {
    Email,
    Webhook,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Channel::Email => "email",
            Channel::Webhook => "webhook",
        }
    }
}

/// A delivery that is due.
#[derive(Clone, Debug)]
struct Due {
    id: DeliveryId,
    event: EventId,
    channel: Channel,
    target: String,
    attempts: i64,
    created_at_ms: i64,
}

/// What became of a try.
#[derive(Debug)]
enum Outcome {
    Delivered,
    Later(String),
    Never(String),
    /// Nobody answered: the rest that goes there waits too.
    Silent(String),
}

/// Sends what is due, and returns when nothing is, or after [`WORK_LIMIT`].
///
/// # Errors
/// As the database answers. What a server says is no error: it is kept with its delivery.
pub async fn deliver(
    database: &Database,
    mailer: Option<&Mailer>,
    client: &WebhookClient,
    now_ms: i64,
) -> Result<Delivered, EventError> {
    let worker = Worker {
        database,
        mailer,
        client,
        now_ms,
        give_up: Instant::now() + WORK_LIMIT,
    };
    let mut done = Delivered::default();
    if mailer.is_none() {
        done.failed += worker.expire_mail().await?;
    }
    loop {
        let due = worker.due().await?;
        if due.is_empty() || worker.is_late() {
            return Ok(done);
        }
        // One after the other to an endpoint, in the order of events; mails all at once.
        let mut queues: BTreeMap<(Channel, String), Vec<Due>> = BTreeMap::new();
        for delivery in due {
            let queue = match delivery.channel {
                Channel::Email => delivery.id.to_string(),
                Channel::Webhook => delivery.target.clone(),
            };
            queues.entry((delivery.channel, queue)).or_default().push(delivery);
        }
        let mut results = futures::stream::iter(queues.into_values().map(|queue| worker.work_off(queue)))
            .buffer_unordered(CONCURRENCY);
        while let Some(result) = results.next().await {
            let part = result?;
            done.sent += part.sent;
            done.postponed += part.postponed;
            done.failed += part.failed;
        }
    }
}

struct Worker<'a> {
    database: &'a Database,
    mailer: Option<&'a Mailer>,
    client: &'a WebhookClient,
    now_ms: i64,
    give_up: Instant,
}

impl Worker<'_> {
    fn is_late(&self) -> bool {
        Instant::now() >= self.give_up
    }

    /// Without a server nothing is mailed, and nothing waits for ever.
    async fn expire_mail(&self) -> Result<u64, EventError> {
        let expired = sqlx::query(
            "UPDATE deliveries SET status = 'failed', next_at_ms = NULL, \
             error = 'no mail server is configured: set mail.smtp_url' \
             WHERE status = 'pending' AND channel = 'email' AND created_at_ms < $1",
        )
        .bind(self.now_ms - MAIL_MAX_AGE_MS)
        .execute(self.database.pool())
        .await?;
        Ok(expired.rows_affected())
    }

    async fn due(&self) -> Result<Vec<Due>, EventError> {
        let rows = sqlx::query(
            "SELECT id, event_id, channel, target, attempts, created_at_ms FROM deliveries \
             WHERE status = 'pending' AND next_at_ms <= $1 AND (channel = 'webhook' OR $2 = 1) ORDER BY id LIMIT $3",
        )
        .bind(self.now_ms)
        .bind(i64::from(self.mailer.is_some()))
        .bind(BATCH)
        .fetch_all(self.database.pool())
        .await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            let channel: String = row.try_get("channel")?;
            due.push(Due {
                id: DeliveryId(row.try_get("id")?),
                event: EventId(row.try_get("event_id")?),
                channel: match channel.as_str() {
                    "email" => Channel::Email,
                    _ => Channel::Webhook,
                },
                target: row.try_get("target")?,
                attempts: row.try_get("attempts")?,
                created_at_ms: row.try_get("created_at_ms")?,
            });
        }
        Ok(due)
    }

    async fn work_off(&self, queue: Vec<Due>) -> Result<Delivered, EventError> {
        let mut done = Delivered::default();
        for delivery in queue {
            if self.is_late() || !self.claim(&delivery).await? {
                continue;
            }
            fault::at("event.claimed");
            let sending = tokio::time::timeout(SEND_LIMIT, self.send(&delivery)).await;
            let outcome = match sending {
                Ok(Err(error @ EventError::Database(_))) => return Err(error),
                // Its event cannot be told: it is retried by the schedule as any other, and holds up none.
                Ok(Err(error)) => Outcome::Later(causes(&error)),
                Ok(Ok(outcome)) => outcome,
                Err(_) => Outcome::Silent(format!("not done within {} s", SEND_LIMIT.as_secs())),
            };
            fault::at("event.sent");
            self.note(&delivery, outcome, &mut done).await?;
        }
        Ok(done)
    }

    /// Makes a delivery this worker's, unless another was quicker or it is no longer due.
    async fn claim(&self, due: &Due) -> Result<bool, EventError> {
        let claimed = sqlx::query(
            "UPDATE deliveries SET attempts = attempts + 1, next_at_ms = $1 \
             WHERE id = $2 AND status = 'pending' AND attempts = $3 AND next_at_ms <= $4",
        )
        .bind(self.now_ms + LEASE_MS)
        .bind(due.id.0)
        .bind(due.attempts)
        .bind(self.now_ms)
        .execute(self.database.pool())
        .await?;
        Ok(claimed.rows_affected() == 1)
    }

    async fn send(&self, due: &Due) -> Result<Outcome, EventError> {
        let event = event(self.database.pool(), due.event).await?;
        match due.channel {
            Channel::Email => self.mail(due, &event).await,
            Channel::Webhook => self.post(due, &event).await,
        }
    }

    async fn mail(&self, due: &Due, event: &Event) -> Result<Outcome, EventError> {
        let Some(mailer) = self.mailer else {
            return Ok(Outcome::Later(
                "no mail server is configured: set mail.smtp_url".to_owned(),
            ));
        };
        let Some(event) = self.with_link(due, event).await? else {
            return Ok(Outcome::Never(
                match event.event_type {
                    EventType::PasswordResetRequested => "it was asked for too long ago, or the user is disabled",
                    _ => "the address was verified or changed meanwhile",
                }
                .to_owned(),
            ));
        };
        let about = About::of(self.database, &event).await?;
        let to = Recipient {
            address: &due.target,
            brand: &about.brand,
            why: about.why,
            zone: &about.zone,
        };
        Ok(match mailer.send(&event, due.id, to, self.now_ms).await {
            Sent::Taken => Outcome::Delivered,
            Sent::Later(why) => Outcome::Later(why),
            Sent::Never(why) => Outcome::Never(why),
            Sent::Silent(why) => Outcome::Silent(why),
        })
    }

    /// The event as its mail needs it: a link that only its reader may have is made for this mail and kept nowhere else.
    /// `None` where there is nothing left to verify, or the time is over.
    async fn with_link(&self, due: &Due, event: &Event) -> Result<Option<Event>, EventError> {
        let mut event = event.clone();
        let token = match (event.event_type, event.customer) {
            (EventType::EmailVerificationRequested, Some(customer)) => {
                verification::issue(self.database, customer, &due.target, self.now_ms).await?
            }
            (EventType::EmailVerificationRequested, None) => None,
            (EventType::PasswordResetRequested, _) => {
                password_reset::issue(self.database, &event, &due.target, self.now_ms).await?
            }
            _ => return Ok(Some(event)),
        };
        let Some(token) = token else { return Ok(None) };
        if let serde_json::Value::Object(facts) = &mut event.payload {
            facts.insert("token".to_owned(), token.into());
        }
        Ok(Some(event))
    }

    async fn post(&self, due: &Due, event: &Event) -> Result<Outcome, EventError> {
        let gone = || Outcome::Never("there is no such endpoint any more".to_owned());
        let Ok(id) = due.target.parse::<EndpointId>() else {
            return Ok(gone());
        };
        let endpoint = match webhook::endpoint(self.database.pool(), id, webhook::Owner::Anybody).await {
            Ok(endpoint) => endpoint,
            Err(webhook::WebhookError::NoEndpoint(_)) => return Ok(gone()),
            Err(error) => return Err(error.into()),
        };
        if endpoint.disabled_at_ms.is_some() {
            return Ok(Outcome::Never("the endpoint is disabled".to_owned()));
        }
        let secrets = match webhook::secrets(self.database, id, self.now_ms).await {
            Ok(secrets) => secrets,
            // Of this endpoint alone: the others must not wait for it.
            Err(webhook::WebhookError::Secret(error)) => return Ok(Outcome::Later(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let body = webhook::body(event);
        let headers = webhook::headers(event, due.id, &secrets, &body, self.now_ms);
        Ok(match self.client.post(&endpoint.url, headers, body).await {
            Answer::Taken => Outcome::Delivered,
            Answer::Refused(why) => Outcome::Later(why),
            Answer::Silent(why) => Outcome::Silent(why),
        })
    }

    /// Keeps what became of a try, unless somebody else has the delivery by now.
    async fn note(&self, due: &Due, outcome: Outcome, done: &mut Delivered) -> Result<(), EventError> {
        let attempts = due.attempts + 1;
        let retry_at_ms = usize::try_from(due.attempts)
            .ok()
            .and_then(|failed_before| RETRY_DELAYS_MS.get(failed_before))
            .map(|delay_ms| self.now_ms + delay_ms);
        let is_silent = matches!(outcome, Outcome::Silent(_));
        let (status, next_at_ms, error) = match outcome {
            Outcome::Delivered => ("delivered", None, String::new()),
            Outcome::Never(why) => ("failed", None, why),
            Outcome::Later(why) | Outcome::Silent(why) => match retry_at_ms {
                Some(at_ms) => ("pending", Some(at_ms), why),
                None => ("failed", None, why),
            },
        };
        let error: String = error.chars().take(MAX_ERROR_CHARS).collect();
        let endpoint = match due.channel {
            Channel::Webhook => due.target.parse::<EndpointId>().ok(),
            Channel::Email => None,
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
            "UPDATE deliveries SET status = $1, next_at_ms = $2, error = $3, delivered_at_ms = $4 \
             WHERE id = $5 AND status = 'pending' AND attempts = $6",
        )
        .bind(status)
        .bind(next_at_ms)
        .bind(&error)
        .bind((status == "delivered").then_some(self.now_ms))
        .bind(due.id.0)
        .bind(attempts)
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
        if let Some(endpoint) = endpoint {
            let gave_up = status == "failed" && retry_at_ms.is_none();
            self.note_endpoint(
                &mut transaction,
                endpoint,
                status == "delivered",
                gave_up.then_some((due, &error)),
            )
            .await?;
        }
        transaction.commit().await?;
        if is_silent {
            self.postpone_rest(due).await?;
        }
        Ok(())
    }

    async fn postpone_rest(&self, due: &Due) -> Result<(), EventError> {
        // All mail goes to one server.
        let any_target = i64::from(due.channel == Channel::Email);
        sqlx::query(
            "UPDATE deliveries SET next_at_ms = $1 \
             WHERE status = 'pending' AND next_at_ms <= $2 AND channel = $3 AND ($4 = 1 OR target = $5)",
        )
        .bind(self.now_ms + SILENCE_MS)
        .bind(self.now_ms)
        .bind(due.channel.name())
        .bind(any_target)
        .bind(&due.target)
        .execute(self.database.pool())
        .await?;
        Ok(())
    }

    /// Counts an endpoint's failures. When a delivery used up its schedule and in all that time nothing else was taken, the
    /// endpoint is disabled and its owner told.
    async fn note_endpoint(
        &self,
        connection: &mut AnyConnection,
        endpoint: EndpointId,
        is_taken: bool,
        gave_up: Option<(&Due, &String)>,
    ) -> Result<(), EventError> {
        let sql = match is_taken {
            true => "UPDATE webhook_endpoints SET failures = 0 WHERE id = $1 AND failures > 0",
            false => "UPDATE webhook_endpoints SET failures = failures + 1 WHERE id = $1",
        };
        sqlx::query(sql).bind(endpoint.0).execute(&mut *connection).await?;
        let Some((due, error)) = gave_up else {
            return Ok(());
        };
        let taken = sqlx::query(
            "SELECT id FROM deliveries WHERE target = $1 AND channel = 'webhook' AND delivered_at_ms >= $2 LIMIT 1",
        )
        .bind(&due.target)
        .bind(due.created_at_ms)
        .fetch_optional(&mut *connection)
        .await?;
        if taken.is_some() {
            return Ok(());
        }
        let disabled = sqlx::query(
            "UPDATE webhook_endpoints SET disabled_at_ms = $1 WHERE id = $2 AND disabled_at_ms IS NULL \
             RETURNING customer_id, url",
        )
        .bind(self.now_ms)
        .bind(endpoint.0)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = disabled else { return Ok(()) };
        sqlx::query(
            "UPDATE deliveries SET status = 'failed', next_at_ms = NULL, error = 'the endpoint was disabled' \
             WHERE channel = 'webhook' AND target = $1 AND status = 'pending'",
        )
        .bind(&due.target)
        .execute(&mut *connection)
        .await?;
        let new = NewEvent {
            event_type: EventType::WebhookDisabled,
            customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
            subject: endpoint.to_string(),
            payload: serde_json::json!({
                "endpoint": endpoint,
                "url": row.try_get::<String, _>("url")?,
                "error": error,
            }),
        };
        publish(connection, new, self.now_ms).await?;
        Ok(())
    }
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

/// What a mail says of its sender and reader.
struct About {
    /// The company that invoices the customer.
    brand: String,
    why: &'static str,
    zone: TimeZone,
}

impl About {
    /// Gives its connection back before anything is sent: a server may take its time, and others need connections.
    async fn of(database: &Database, event: &Event) -> Result<About, EventError> {
        let is_of_user = event.event_type.audience() == Audience::User;
        let is_theirs = is_of_user || event.event_type.is_shown_in_portal();
        let Some(customer) = event.customer.filter(|_| is_theirs) else {
            return Ok(About {
                brand: STAFF_BRAND.to_owned(),
                why: if is_of_user { WHY_USER } else { WHY_STAFF },
                zone: TimeZone::UTC,
            });
        };
        let customer = inventory::customer(database.pool(), customer)
            .await
            .map_err(EventError::Customer)?;
        let entity = inventory::entity(database.pool(), customer.billing.entity)
            .await
            .map_err(EventError::Customer)?;
        Ok(About {
            brand: entity.profile.name,
            why: if is_of_user { WHY_USER } else { WHY_CUSTOMER },
            zone: customer.time_zone,
        })
    }
}

/// What a mail of an event looks like, as it is or would be sent.
///
/// # Errors
/// As the database answers, or when the template cannot be filled in.
pub async fn preview(database: &Database, event: &Event, portal_url: &str) -> Result<Rendered, EventError> {
    let about = About::of(database, event).await?;
    let portal_url = portal_url.trim_end_matches('/');
    render(event, &about.zone, &about.brand, about.why, portal_url).map_err(|error| EventError::Mail(Box::new(error)))
}

/// What waits and what failed, by channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct OutboxCounts {
    /// Events without deliveries yet.
    pub undispatched: i64,
    pub mails_pending: i64,
    pub mails_failed: i64,
    pub webhooks_pending: i64,
    pub webhooks_failed: i64,
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
    /// `email` or `webhook`.
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
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT_DELIVERY} WHERE target = $1 AND channel = 'webhook' ORDER BY id DESC LIMIT $2"
    ));
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
    /// `email` or `webhook`.
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
