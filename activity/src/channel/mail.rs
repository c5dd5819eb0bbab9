//! Mail as a channel: who is written to, and what each mail is sent with. How a mail is made and handed over: [`super::mailer`].

use std::collections::{BTreeSet, HashMap};

use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use schemas::bulk;
use schemas::db::Database;
use schemas::identity::{self, Role};
use schemas::ids::CustomerId;
use schemas::inventory;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::mailer::{Recipient, Rendered, SmtpOutcome, render};
use super::{Channel, ChannelError, DeliveryOutcome, DueDelivery, Sending, Targets, Transports};
use crate::event::{Audience, Consumer, Event, EventError, EventType, HandleError, NewDelivery, enqueue};
use crate::{password_reset, verification};

const HOUR_MS: i64 = 3_600_000;
/// Mail that could not be handed to any server for so long is no longer news.
pub const MAIL_MAX_AGE_MS: i64 = 72 * HOUR_MS;
/// Mails under way at most.
const MAILS_AT_ONCE: usize = 8;
/// As deliveries name the channel.
const CHANNEL: &str = "email";
/// Why nothing is mailed without a server.
const NO_SERVER: &str = "no mail server is configured: set mail.smtp_url";
/// Where the owner's address is kept.
const OWNER_SETTING: &str = "owner_email";

/// Why one is written to, at the foot of a mail.
const WHY_CUSTOMER: &str = "You get this mail because it is about your account. Answers go to our billing team.";
const WHY_USER: &str = "You get this mail because it is about how you sign in. Answers go to our billing team.";
const WHY_STAFF: &str = "You get this mail because you run this installation of EZSCALE.";
/// Over mails that no company of ours sends.
const STAFF_BRAND: &str = "EZSCALE";

/// Mail to customers, users, the owner and admins.
#[derive(Clone, Copy, Debug)]
pub struct Mail;

impl Consumer for Mail {
    fn name(&self) -> &'static str {
        "dispatch_mail"
    }

    fn description(&self) -> &'static str {
        "Queues the mails of new events"
    }

    fn noun(&self) -> &'static str {
        "mail"
    }

    fn wants(&self, event_type: EventType) -> bool {
        !matches!(event_type.audience(), Audience::Portal | Audience::Nobody)
    }

    fn handle<'a>(
        &'a self,
        connection: &'a mut AnyConnection,
        events: &'a [Event],
        now_ms: i64,
    ) -> BoxFuture<'a, Result<u64, HandleError>> {
        Box::pin(async move {
            let mailboxes = Mailboxes::of(&mut *connection, events).await?;
            let mut deliveries = Vec::new();
            for event in events {
                let addresses = mailboxes.of_event(event).into_iter();
                deliveries.extend(addresses.map(|address| NewDelivery {
                    event: event.id,
                    channel: CHANNEL,
                    target: address.to_owned(),
                    is_replay: false,
                }));
            }
            enqueue(connection, &deliveries, now_ms).await?;
            Ok(deliveries.len() as u64)
        })
    }
}

impl Channel for Mail {
    fn channel(&self) -> &'static str {
        CHANNEL
    }

    fn sending(&self) -> Option<Sending> {
        Some(Sending {
            job: "mail",
            targets: Targets::Mailboxes,
            at_once: MAILS_AT_ONCE,
            per_owner: MAILS_AT_ONCE,
        })
    }

    fn lacks(&self, transports: &Transports<'_>) -> Option<&'static str> {
        match transports.mailer {
            Some(_) => None,
            None => Some(NO_SERVER),
        }
    }

    fn send<'a>(
        &'a self,
        database: &'a Database,
        transports: Transports<'a>,
        due: &'a DueDelivery,
        event: &'a Event,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<DeliveryOutcome, ChannelError>> {
        Box::pin(async move {
            let Some(mailer) = transports.mailer else {
                return Ok(DeliveryOutcome::Retry(NO_SERVER.to_owned()));
            };
            let Some(event) = with_link(database, due, event, now_ms).await? else {
                let why = match event.event_type {
                    EventType::PasswordResetRequested => "it was asked for too long ago, or the user is disabled",
                    _ => "the address was verified or changed meanwhile",
                };
                return Ok(DeliveryOutcome::Rejected(why.to_owned()));
            };
            let about = MailContext::of(database, &event).await?;
            let to = Recipient {
                address: &due.target,
                brand: &about.brand,
                why: about.why,
                zone: &about.zone,
            };
            Ok(match mailer.send(&event, due.id, to, now_ms).await {
                SmtpOutcome::Accepted => DeliveryOutcome::Delivered,
                SmtpOutcome::Deferred(why) => DeliveryOutcome::Retry(why),
                SmtpOutcome::Rejected(why) => DeliveryOutcome::Rejected(why),
                SmtpOutcome::Unreachable(why) => DeliveryOutcome::Unreachable(why),
            })
        })
    }
}

/// The event as its mail needs it: a link that only its reader may have is made for this mail and kept nowhere else.
/// `None` where there is nothing left to verify, or the time is over.
async fn with_link(
    database: &Database,
    due: &DueDelivery,
    event: &Event,
    now_ms: i64,
) -> Result<Option<Event>, EventError> {
    let mut event = event.clone();
    let token = match (event.event_type, event.customer) {
        (EventType::EmailVerificationRequested, Some(customer)) => {
            verification::issue(database, customer, &due.target, now_ms).await?
        }
        (EventType::EmailVerificationRequested, None) => None,
        (EventType::PasswordResetRequested, _) => password_reset::issue(database, &event, &due.target, now_ms).await?,
        _ => return Ok(Some(event)),
    };
    let Some(token) = token else { return Ok(None) };
    if let serde_json::Value::Object(facts) = &mut event.payload {
        facts.insert("token".to_owned(), token.into());
    }
    Ok(Some(event))
}

/// The mailboxes of those whom some events concern.
struct Mailboxes {
    customers: HashMap<CustomerId, String>,
    owner: Option<String>,
    admins: Vec<String>,
    operations: Vec<String>,
}

impl Mailboxes {
    async fn of(connection: &mut AnyConnection, events: &[Event]) -> Result<Mailboxes, sqlx::Error> {
        let ids: BTreeSet<CustomerId> = events.iter().filter_map(|event| event.customer).collect();
        let ids: Vec<CustomerId> = ids.into_iter().collect();
        let sql = "SELECT id, email FROM customers WHERE id IN ({values})";
        let rows = bulk::rows_of_values(connection, sql, &ids, |query, id| query.bind(id.0)).await?;
        let mut customers = HashMap::with_capacity(rows.len());
        for row in &rows {
            customers.insert(CustomerId(row.try_get(0)?), row.try_get(1)?);
        }
        Ok(Mailboxes {
            customers,
            owner: owner_email(&mut *connection).await?,
            admins: identity::emails_of(&mut *connection, &[Role::Admin]).await?,
            operations: identity::emails_of(connection, &[Role::Ops, Role::Admin]).await?,
        })
    }

    /// Those to which an event is told.
    fn of_event<'a>(&'a self, event: &'a Event) -> Vec<&'a str> {
        let admins = self.admins.iter().map(String::as_str);
        match (event.event_type.audience(), event.customer) {
            (Audience::Customer, Some(customer)) => {
                let address = self.customers.get(&customer);
                address.map(String::as_str).into_iter().collect()
            }
            // What concerns no customer, such as an endpoint of our own, is the owner's.
            (Audience::Owner, _) | (Audience::Customer, None) => match &self.owner {
                Some(owner) => vec![owner],
                // Nobody was named: then those who can do something about it.
                None => admins.collect(),
            },
            (Audience::Admins, _) => {
                let all: BTreeSet<&str> = admins.chain(self.owner.as_deref()).collect();
                all.into_iter().collect()
            }
            (Audience::Operations, _) => self.operations.iter().map(String::as_str).collect(),
            (Audience::User, _) => {
                let to = event.payload.get("to").and_then(serde_json::Value::as_str);
                to.into_iter().collect()
            }
            (Audience::Portal | Audience::Nobody, _) => Vec::new(),
        }
    }
}

/// Where the owner of the business is written to; `None`: not set, then every admin is.
///
/// # Errors
/// As the database answers.
pub async fn owner_email(db: impl AnyExecutor<'_>) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(OWNER_SETTING)
        .fetch_optional(db)
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Sets where the owner is written to.
///
/// # Errors
/// When `email` is no address.
pub async fn set_owner_email(connection: &mut AnyConnection, email: &str) -> Result<(), ChannelError> {
    let email = email.trim();
    if email.parse::<lettre::Address>().is_err() {
        return Err(ChannelError::Address(email.to_owned()));
    }
    sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
        .bind(OWNER_SETTING)
        .bind(email)
        .execute(connection)
        .await?;
    Ok(())
}

/// What a mail says of its sender and reader.
struct MailContext {
    /// The company that invoices the customer.
    brand: String,
    why: &'static str,
    zone: TimeZone,
}

impl MailContext {
    /// Gives its connection back before anything is sent: a server may take its time, and others need connections.
    async fn of(database: &Database, event: &Event) -> Result<MailContext, ChannelError> {
        let is_of_user = event.event_type.audience() == Audience::User;
        let is_theirs = is_of_user || event.event_type.is_shown_in_portal();
        let Some(customer) = event.customer.filter(|_| is_theirs) else {
            return Ok(MailContext {
                brand: STAFF_BRAND.to_owned(),
                why: if is_of_user { WHY_USER } else { WHY_STAFF },
                zone: TimeZone::UTC,
            });
        };
        let customer = inventory::customer(database.pool(), customer)
            .await
            .map_err(ChannelError::Customer)?;
        let entity = inventory::entity(database.pool(), customer.billing.entity)
            .await
            .map_err(ChannelError::Customer)?;
        Ok(MailContext {
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
pub async fn preview(database: &Database, event: &Event, portal_url: &str) -> Result<Rendered, ChannelError> {
    let about = MailContext::of(database, event).await?;
    let portal_url = portal_url.trim_end_matches('/');
    Ok(render(event, &about.zone, &about.brand, about.why, portal_url)?)
}
