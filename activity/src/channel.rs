//! The ways on which people and programs are told of events: mail, signed requests to programs, posts to Discord channels, and
//! what the portal shows.
//!
//! ```text
//! event ──consumer──▶ row in `deliveries`, pending ──send──▶ delivered      mail, webhooks, Discord
//!       ──consumer──▶ row in `notifications`                                the portal: nothing leaves
//! ```
//!
//! A channel is a [`Consumer`] that writes what is to be told, with a cursor of its own, and says how that is sent. Adding one is
//! a file here and a line in [`CHANNELS`].
//!
//! Promises:
//! * A delivery is made *at least* once: a worker that dies between sending and noting it leaves a message that is sent
//!   again. Mails carry the delivery in their Message-ID and webhooks the event's id, so that a receiver can tell.
//! * Two living workers never send the same delivery: it is claimed by compare-and-set on its count of attempts.
//! * Each channel has slots of its own: one that is slow delays no other.

mod deliver;
pub mod discord;
mod discord_address;
pub mod endpoint;
pub mod guard;
pub mod in_app;
pub mod mail;
pub mod mailer;
pub mod message;
mod replay;
pub mod webhook;

pub use deliver::{Delivered, DeliveryRun, ENDPOINTS_PER_OWNER, RETRY_DELAYS_MS, deliver};
pub use guard::WebhookClient;
pub use mail::{MAIL_MAX_AGE_MS, owner_email, preview, set_owner_email};
pub use mailer::{Attachment, Attachments, MailConfig, Mailer};
pub use replay::{MAX_PENDING, MAX_REPLAYED, MAX_REPLAYED_PER_HOUR, Replay, ReplayError, replay};

use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use schemas::db::Database;
use schemas::ids::{CustomerId, DeliveryId, EventId};
use schemas::inventory::{self, InventoryError};
use sqlx::AnyConnection;

use self::endpoint::EndpointError;
use self::mailer::MailError;
use crate::event::{self, Consumer, Dispatched, Event, EventError};

/// Every channel, in the order in which an event is dispatched to them.
pub static CHANNELS: [&dyn Channel; 4] = [&mail::Mail, &webhook::Webhooks, &discord::Discord, &in_app::InApp];

/// Why something was not told, or not looked up.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read the event")]
    Event(#[from] EventError),
    #[error("look up the customer")]
    Customer(#[source] InventoryError),
    #[error("look up the endpoint")]
    Endpoint(#[from] EndpointError),
    #[error("make the mail")]
    Mail(#[from] MailError),
    #[error("{0:?} is no email address")]
    Address(String),
}

schemas::error_codes! {
    ChannelError: "channel";
    of [Database, Event, Customer, Endpoint, Mail]
    source []
    Refused: Address = "address";
}

/// What sends. Clones of what is in it share connections.
#[derive(Clone, Copy, Debug)]
pub struct Transports<'a> {
    /// The mail server, where one is configured.
    pub mailer: Option<&'a Mailer>,
    /// What speaks to endpoints.
    pub client: &'a WebhookClient,
    /// Where people reach the portal, without a slash at its end.
    pub portal_url: &'a str,
}

/// What the deliveries of a channel go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Targets {
    /// Mailboxes, all by one server.
    Mailboxes,
    /// Endpoints, one after the other to each.
    Endpoints,
}

/// How the deliveries of a channel are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sending {
    /// As the job that sends them is named.
    pub job: &'static str,
    pub targets: Targets,
    /// Under way at one time, at most.
    pub at_once: usize,
    /// Of these to one owner's targets.
    pub per_owner: usize,
}

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    pub id: DeliveryId,
    pub event: EventId,
    /// A mailbox, or an endpoint's id.
    pub target: String,
    /// Tries before this one.
    pub attempts: i64,
    /// Of these the receiver put off by its rate limit.
    pub deferred: i64,
    pub created_at_ms: i64,
    /// What it waits in: to an endpoint one goes after the other, mails go each by itself.
    queue: String,
}

/// What became of a try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeliveryOutcome {
    Delivered,
    /// Tried again by the schedule, and why.
    Retry(String),
    /// Not this delivery, ever, and why.
    Rejected(String),
    /// Nobody answered: the rest that goes there waits too.
    Unreachable(String),
    /// The receiver asks for patience: this one and the rest that goes there wait so long, and the schedule does not count it.
    Deferred {
        after_ms: i64,
        why: String,
    },
    /// There is no such target any more: its endpoint is disabled at once.
    Gone(String),
}

/// One way on which people or programs are told. As a [`Consumer`] it writes what is to be told of events.
pub trait Channel: Consumer {
    /// As its deliveries and lists name it.
    fn channel(&self) -> &'static str;

    /// How what it wrote is sent; `None` where nothing leaves: it is read in the portal.
    fn sending(&self) -> Option<Sending>;

    /// What must be configured for anything to be sent; `None` where it is. Until it is, what is due waits [`MAIL_MAX_AGE_MS`].
    fn lacks(&self, _transports: &Transports<'_>) -> Option<&'static str> {
        None
    }

    /// Tries one delivery. An error is of the database, or of this delivery alone: it is retried by the schedule then.
    fn send<'a>(
        &'a self,
        database: &'a Database,
        transports: Transports<'a>,
        due: &'a DueDelivery,
        event: &'a Event,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<DeliveryOutcome, ChannelError>>;
}

/// The channels as consumers of events.
pub fn consumers() -> Vec<&'static dyn Consumer> {
    CHANNELS.into_iter().map(|channel| channel as &dyn Consumer).collect()
}

/// The names of [`consumers`].
pub fn consumer_names() -> Vec<&'static str> {
    CHANNELS.into_iter().map(|channel| channel.name()).collect()
}

/// Makes out the deliveries and notifications of every event that has none yet, over all channels.
///
/// # Errors
/// As [`event::dispatch`].
pub async fn dispatch(database: &Database, now_ms: i64) -> Result<Dispatched, EventError> {
    event::dispatch(database, &consumers(), now_ms).await
}

/// Sends what is due over all channels, side by side.
///
/// # Errors
/// As [`deliver()`].
pub async fn deliver_all(
    database: &Database,
    transports: Transports<'_>,
    now_ms: i64,
) -> Result<Delivered, ChannelError> {
    let now = || now_ms;
    let run = DeliveryRun {
        now_ms: &now,
        is_stopping: &|| false,
    };
    let lanes = CHANNELS
        .into_iter()
        .map(|channel| deliver(database, channel, transports, run));
    let mut done = Delivered::default();
    for delivered in futures::future::join_all(lanes).await {
        done.add(delivered?);
    }
    Ok(done)
}

/// Dispatches what is new and sends what is due, once. The program does each by itself every few seconds, so that none waits for
/// another; any number of processes may on one database.
///
/// # Errors
/// As the database answers.
pub async fn run_once(
    database: &Database,
    transports: Transports<'_>,
    now_ms: i64,
) -> Result<(Dispatched, Delivered), ChannelError> {
    // What was dispatched is sent, whatever became of the rest.
    let dispatched = dispatch(database, now_ms).await;
    let delivered = deliver_all(database, transports, now_ms).await?;
    Ok((dispatched?, delivered))
}

/// The time zone in which a customer reads times; UTC where an event is about none.
async fn zone_of(database: &Database, customer: Option<CustomerId>) -> Result<TimeZone, ChannelError> {
    let Some(customer) = customer else {
        return Ok(TimeZone::UTC);
    };
    let customer = inventory::customer(database.pool(), customer).await;
    Ok(customer.map_err(ChannelError::Customer)?.time_zone)
}

/// Writes deliveries of events to those endpoints of a kind that hear of them.
async fn dispatch_to_endpoints(
    connection: &mut AnyConnection,
    kind: endpoint::EndpointKind,
    events: &[Event],
    now_ms: i64,
) -> Result<u64, ChannelError> {
    let mut customers: Vec<CustomerId> = events.iter().filter_map(|event| event.customer).collect();
    customers.sort_unstable();
    customers.dedup();
    let endpoints = endpoint::listeners(&mut *connection, kind, &customers).await?;
    let mut deliveries = Vec::new();
    for event in events {
        let hearing = endpoints.iter().filter(|endpoint| endpoint.receives(event));
        deliveries.extend(hearing.map(|endpoint| event::NewDelivery {
            event: event.id,
            channel: kind.name(),
            target: endpoint.id.to_string(),
            is_replay: false,
        }));
    }
    event::enqueue(connection, &deliveries, now_ms).await?;
    Ok(deliveries.len() as u64)
}

#[cfg(test)]
mod tests;
