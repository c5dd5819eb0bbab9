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
//!
//! Mail and webhooks are two lanes with slots of their own: an endpoint that is slow delays no mail. Of the slots for webhooks
//! one customer holds [`WEBHOOKS_PER_OWNER`] at most, and one endpoint one ([`queue`]). A slot that becomes free is used at
//! once, by what became due meanwhile too.

mod queue;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::tz::TimeZone;
use schemas::db::Database;
use schemas::fault;
use schemas::ids::{CustomerId, DeliveryId, EndpointId, EventId};
use schemas::inventory;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tokio::time::Instant;

use self::queue::{OwnerKey, Queue};
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
/// Mails under way at most.
const MAILS_AT_ONCE: usize = 8;
/// Requests to endpoints under way at most.
const WEBHOOKS_AT_ONCE: usize = 32;
/// Requests to endpoints of one owner under way at most.
pub const WEBHOOKS_PER_OWNER: usize = 2;
/// Mails looked up at once.
const MAIL_BATCH: i64 = 200;
/// Requests looked up at once: the oldest of each endpoint before the second ones.
const WEBHOOK_BATCH: i64 = 1_000;
/// Of one endpoint looked up at once.
const WEBHOOK_BATCH_EACH: i64 = 50;
/// How often a lane with free slots looks for what became due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
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

impl Delivered {
    fn add(&mut self, part: Delivered) {
        self.sent += part.sent;
        self.postponed += part.postponed;
        self.failed += part.failed;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// What it waits in: to an endpoint one goes after the other, mails go each by itself.
    queue: String,
}

fn read_due(row: &AnyRow, channel: Channel) -> Result<Due, EventError> {
    let id = DeliveryId(row.try_get("id")?);
    let target: String = row.try_get("target")?;
    Ok(Due {
        id,
        event: EventId(row.try_get("event_id")?),
        channel,
        queue: match channel {
            Channel::Email => id.to_string(),
            Channel::Webhook => target.clone(),
        },
        target,
        attempts: row.try_get("attempts")?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
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

/// What a run goes by.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// What time it is, in UTC milliseconds.
    pub now_ms: &'a (dyn Fn() -> i64 + Send + Sync),
    /// Nothing more is begun; what is under way ends.
    pub is_stopping: &'a (dyn Fn() -> bool + Send + Sync),
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}

/// Sends the mail that is due, and returns when none is, or some time after [`WORK_LIMIT`].
///
/// # Errors
/// As the database answers. What a server says is no error: it is kept with its delivery.
pub async fn deliver_mail(database: &Database, mailer: Option<&Mailer>, run: Run<'_>) -> Result<Delivered, EventError> {
    let Some(mailer) = mailer else {
        return expire_mail(database, (run.now_ms)()).await;
    };
    Worker::new(database, Lane::Mail(mailer), run).work().await
}

/// Sends the requests to endpoints that are due, and returns when none is, or some time after [`WORK_LIMIT`].
///
/// # Errors
/// As [`deliver_mail`].
pub async fn deliver_webhooks(
    database: &Database,
    client: &WebhookClient,
    run: Run<'_>,
) -> Result<Delivered, EventError> {
    Worker::new(database, Lane::Webhooks(client), run).work().await
}

/// Sends what is due over both, side by side.
///
/// # Errors
/// As [`deliver_mail`].
pub async fn deliver(
    database: &Database,
    mailer: Option<&Mailer>,
    client: &WebhookClient,
    now_ms: i64,
) -> Result<Delivered, EventError> {
    let now = || now_ms;
    let run = Run {
        now_ms: &now,
        is_stopping: &|| false,
    };
    let (mails, webhooks) = futures::join!(
        deliver_mail(database, mailer, run),
        deliver_webhooks(database, client, run)
    );
    let mut done = mails?;
    done.add(webhooks?);
    Ok(done)
}

/// Without a server nothing is mailed, and nothing waits for ever.
async fn expire_mail(database: &Database, now_ms: i64) -> Result<Delivered, EventError> {
    let expired = sqlx::query(
        "UPDATE deliveries SET status = 'failed', next_at_ms = NULL, \
         error = 'no mail server is configured: set mail.smtp_url' \
         WHERE status = 'pending' AND channel = 'email' AND created_at_ms < $1",
    )
    .bind(now_ms - MAIL_MAX_AGE_MS)
    .execute(database.pool())
    .await?;
    Ok(Delivered {
        failed: expired.rows_affected(),
        ..Delivered::default()
    })
}

/// What is sent, and by what.
#[derive(Clone, Copy)]
enum Lane<'a> {
    Mail(&'a Mailer),
    Webhooks(&'a WebhookClient),
}

struct Worker<'a> {
    database: &'a Database,
    lane: Lane<'a>,
    run: Run<'a>,
    give_up: Instant,
}

/// A try that is over.
struct Tried {
    owner: OwnerKey,
    due: Due,
    /// Nobody answered.
    is_silent: bool,
    result: Result<Delivered, EventError>,
}

impl<'a> Worker<'a> {
    fn new(database: &'a Database, lane: Lane<'a>, run: Run<'a>) -> Worker<'a> {
        Worker {
            database,
            lane,
            run,
            give_up: Instant::now() + WORK_LIMIT,
        }
    }

    fn now_ms(&self) -> i64 {
        (self.run.now_ms)()
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.give_up || (self.run.is_stopping)()
    }

    /// Uses its slots until nothing is due. After an error of the database what is under way ends, and nothing more begins.
    async fn work(&self) -> Result<Delivered, EventError> {
        let (slots, per_owner) = match self.lane {
            Lane::Mail(_) => (MAILS_AT_ONCE, MAILS_AT_ONCE),
            Lane::Webhooks(_) => (WEBHOOKS_AT_ONCE, WEBHOOKS_PER_OWNER),
        };
        let mut queue = Queue::new(per_owner);
        let mut running = FuturesUnordered::new();
        let mut done = Delivered::default();
        let mut failed = None;
        let mut look_at = Instant::now();
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
                    match self.due().await {
                        Ok(due) => queue.fill(due),
                        Err(error) => failed = Some(error),
                    }
                }
            }
            if running.is_empty() {
                return failed.map_or(Ok(done), Err);
            }
            let has_room = running.len() < slots && failed.is_none() && !self.is_over();
            let tried = tokio::select! {
                tried = running.next() => tried,
                () = tokio::time::sleep(LOOK_INTERVAL), if has_room => None,
            };
            let Some(tried) = tried else { continue };
            queue.finish(tried.owner, &tried.due);
            if tried.is_silent {
                match tried.due.channel {
                    // All mail goes to one server.
                    Channel::Email => queue.clear(),
                    Channel::Webhook => queue.forget(&tried.due.queue),
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

    /// What is due, and whose it is.
    async fn due(&self) -> Result<Vec<(OwnerKey, Due)>, EventError> {
        match self.lane {
            Lane::Mail(_) => self.due_mail().await,
            Lane::Webhooks(_) => self.due_webhooks().await,
        }
    }

    /// The oldest mails.
    async fn due_mail(&self) -> Result<Vec<(OwnerKey, Due)>, EventError> {
        let rows = sqlx::query(
            "SELECT id, event_id, target, attempts, created_at_ms FROM deliveries \
             WHERE status = 'pending' AND channel = 'email' AND next_at_ms <= $1 ORDER BY id LIMIT $2",
        )
        .bind(self.now_ms())
        .bind(MAIL_BATCH)
        .fetch_all(self.database.pool())
        .await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            due.push((0, read_due(row, Channel::Email)?));
        }
        Ok(due)
    }

    /// The oldest requests of each endpoint.
    async fn due_webhooks(&self) -> Result<Vec<(OwnerKey, Due)>, EventError> {
        let rows = sqlx::query(
            "SELECT id, event_id, target, attempts, created_at_ms FROM \
             (SELECT id, event_id, target, attempts, created_at_ms, \
              row_number() OVER (PARTITION BY target ORDER BY id) AS place \
              FROM deliveries WHERE status = 'pending' AND channel = 'webhook' AND next_at_ms <= $1) AS placed \
             WHERE place <= $2 ORDER BY place, id LIMIT $3",
        )
        .bind(self.now_ms())
        .bind(WEBHOOK_BATCH_EACH)
        .bind(WEBHOOK_BATCH)
        .fetch_all(self.database.pool())
        .await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            due.push(read_due(row, Channel::Webhook)?);
        }
        let endpoints: BTreeSet<EndpointId> = due.iter().filter_map(|due| due.target.parse().ok()).collect();
        let endpoints: Vec<EndpointId> = endpoints.into_iter().collect();
        let owners = webhook::owners(self.database, &endpoints).await?;
        let owner_of = |due: &Due| {
            let endpoint: Option<EndpointId> = due.target.parse().ok();
            let owner = endpoint.and_then(|endpoint| owners.get(&endpoint).copied());
            owner.flatten().map_or(0, |customer| customer.0)
        };
        Ok(due.into_iter().map(|due| (owner_of(&due), due)).collect())
    }

    async fn attempt(&self, owner: OwnerKey, due: Due) -> Tried {
        let mut is_silent = false;
        let result = self.try_once(&due, &mut is_silent).await;
        Tried {
            owner,
            due,
            is_silent,
            result,
        }
    }

    async fn try_once(&self, due: &Due, is_silent: &mut bool) -> Result<Delivered, EventError> {
        let mut done = Delivered::default();
        if !self.claim(due).await? {
            return Ok(done);
        }
        fault::at("event.claimed");
        let sending = tokio::time::timeout(SEND_LIMIT, self.send(due)).await;
        let outcome = match sending {
            Ok(Err(error @ EventError::Database(_))) => return Err(error),
            // Its event cannot be told: it is retried by the schedule as any other, and holds up none.
            Ok(Err(error)) => Outcome::Later(causes(&error)),
            Ok(Ok(outcome)) => outcome,
            Err(_) => Outcome::Silent(format!("not done within {} s", SEND_LIMIT.as_secs())),
        };
        fault::at("event.sent");
        *is_silent = matches!(outcome, Outcome::Silent(_));
        self.note(due, outcome, &mut done).await?;
        Ok(done)
    }

    /// Makes a delivery this worker's, unless another was quicker or it is no longer due.
    async fn claim(&self, due: &Due) -> Result<bool, EventError> {
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

    async fn send(&self, due: &Due) -> Result<Outcome, EventError> {
        let event = event(self.database.pool(), due.event).await?;
        match self.lane {
            Lane::Mail(mailer) => self.mail(mailer, due, &event).await,
            Lane::Webhooks(client) => self.post(client, due, &event).await,
        }
    }

    async fn mail(&self, mailer: &Mailer, due: &Due, event: &Event) -> Result<Outcome, EventError> {
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
        Ok(match mailer.send(&event, due.id, to, self.now_ms()).await {
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
                verification::issue(self.database, customer, &due.target, self.now_ms()).await?
            }
            (EventType::EmailVerificationRequested, None) => None,
            (EventType::PasswordResetRequested, _) => {
                password_reset::issue(self.database, &event, &due.target, self.now_ms()).await?
            }
            _ => return Ok(Some(event)),
        };
        let Some(token) = token else { return Ok(None) };
        if let serde_json::Value::Object(facts) = &mut event.payload {
            facts.insert("token".to_owned(), token.into());
        }
        Ok(Some(event))
    }

    async fn post(&self, client: &WebhookClient, due: &Due, event: &Event) -> Result<Outcome, EventError> {
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
        let now_ms = self.now_ms();
        let secrets = match webhook::secrets(self.database, id, now_ms).await {
            Ok(secrets) => secrets,
            // Of this endpoint alone: the others must not wait for it.
            Err(webhook::WebhookError::Secret(error)) => return Ok(Outcome::Later(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let body = webhook::body(event);
        let headers = webhook::headers(event, due.id, &secrets, &body, now_ms);
        Ok(match client.post(&endpoint.url, headers, body).await {
            Answer::Taken => Outcome::Delivered,
            Answer::Refused(why) => Outcome::Later(why),
            Answer::Silent(why) => Outcome::Silent(why),
        })
    }

    /// Keeps what became of a try, unless somebody else has the delivery by now.
    async fn note(&self, due: &Due, outcome: Outcome, done: &mut Delivered) -> Result<(), EventError> {
        let attempts = due.attempts + 1;
        let now_ms = self.now_ms();
        let retry_at_ms = usize::try_from(due.attempts)
            .ok()
            .and_then(|failed_before| RETRY_DELAYS_MS.get(failed_before))
            .map(|delay_ms| now_ms + delay_ms);
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
        .bind((status == "delivered").then_some(now_ms))
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
        let now_ms = self.now_ms();
        // All mail goes to one server.
        let any_target = i64::from(due.channel == Channel::Email);
        sqlx::query(
            "UPDATE deliveries SET next_at_ms = $1 \
             WHERE status = 'pending' AND next_at_ms <= $2 AND channel = $3 AND ($4 = 1 OR target = $5)",
        )
        .bind(now_ms + SILENCE_MS)
        .bind(now_ms)
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
        .bind(self.now_ms())
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
        publish(connection, new, self.now_ms()).await?;
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
