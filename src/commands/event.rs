//! `ezscale event`: what happened, who was told, and telling it again.

use activity::act::Note;
use activity::channel::endpoint::Owner;
use activity::channel::{self, Replay};
use activity::event::{self, EventFilter, EventType};
use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use schemas::ids::{CustomerId, EndpointId, EventId};

use super::{audit, mail};
use crate::options::{Data, now_ms};
use crate::outbox::Outbox;
use crate::output::{Format, Listing, Record, ShowFormat, at, count, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List events, latest first
    List {
        /// Of this customer (cus_N)
        #[arg(long)]
        customer: Option<CustomerId>,
        /// Of this type, such as invoice.paid
        #[arg(long = "type")]
        event_type: Option<EventType>,
        /// Older than this event (evt_N)
        #[arg(long)]
        before: Option<EventId>,
        /// How many to list at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=event::MAX_PAGE))]
        limit: i64,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show an event with its deliveries
    Show {
        /// The event (evt_N)
        event: EventId,
        /// Print its mail instead
        #[arg(long, value_enum, conflicts_with = "format")]
        mail: Option<Form>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Send an event, or a range of them, to an endpoint again
    Replay {
        /// The event, or the first of them (evt_N)
        first: EventId,
        /// The last one [default: the first]
        #[arg(long)]
        to: Option<EventId>,
        /// The endpoint (whk_N)
        #[arg(long)]
        endpoint: EndpointId,
        /// Only events of this type
        #[arg(long = "type")]
        event_type: Option<EventType>,
        #[command(flatten)]
        data: Data,
    },
    /// Dispatch and send due events now; `serve` does so every few seconds
    Deliver {
        #[command(flatten)]
        data: Data,
    },
    /// Show or set the address that the owner is alerted at
    Owner {
        /// The new address [default: show the one in force]
        email: Option<String>,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    Text,
    Html,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List {
            customer,
            event_type,
            before,
            limit,
            format,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let filter = EventFilter {
                customer,
                event_type,
                before,
            };
            let columns = ["id", "created_at", "type", "customer", "subject", "deliveries"];
            let mut listing = Listing::new(columns.map(text));
            for event in event::list(database.pool(), filter, limit).await? {
                listing.row([
                    shown(event.id),
                    at(event.created_at_ms),
                    shown(event.event_type),
                    event.customer.map(shown).into(),
                    event.subject.into(),
                    counted(&event::deliveries_of(database.pool(), event.id).await?).into(),
                ]);
            }
            listing.print(format, "no events")?;
        }
        Command::Show {
            event,
            mail,
            format,
            data,
        } => {
            let (config, database) = data.open_database().await?;
            let event = event::event(database.pool(), event).await?;
            if let Some(form) = mail {
                let mail = channel::preview(&database, &event, &config.portal_url()).await?;
                match form {
                    Form::Text => say_part!("Subject: {}\n\n{}", mail.subject, mail.text),
                    Form::Html => say!("{}", mail.html),
                }
                return Ok(());
            }
            let mut deliveries = mail::listing();
            for delivery in event::deliveries_of(database.pool(), event.id).await? {
                deliveries.row(mail::cells(&delivery));
            }
            Record::new()
                .field(text("id"), shown(event.id))
                .field(text("type"), shown(event.event_type))
                .field(text("customer"), event.customer.map(shown))
                .field(text("subject"), event.subject)
                .field(text("created_at"), at(event.created_at_ms))
                .field(text("dispatched_at").or("not yet"), event.dispatched_at_ms.map(at))
                .field(text("payload"), event.payload)
                .list("deliveries", deliveries)
                .print(format)?;
        }
        Command::Replay {
            first,
            to,
            endpoint,
            event_type,
            data,
        } => {
            let last = to.unwrap_or(first);
            if last < first {
                bail!("{last} is before {first}: name the earlier event first");
            }
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let replay = Replay {
                first,
                last,
                event_type,
            };
            let mut act = audit::begin(&database, now_ms).await?;
            let (replayed, note) = channel::replay(act.connection(), replay, endpoint, Owner::Anybody, now_ms).await?;
            act.commit(note).await?;
            say!("on the way to {endpoint}: {}", count(replayed, "event"));
        }
        Command::Deliver { data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let outbox = Outbox::new(&config, &database)?;
            let (dispatched, delivered) =
                audit::in_steps(&database, now_ms, Note::new("event.deliver", "outbox"), async {
                    let (dispatched, delivered) = outbox.run_once(&database, now_ms).await?;
                    let result = serde_json::json!({"dispatched": dispatched.events, "delivered": delivered.sent,
                        "failed": delivered.failed});
                    Ok(((dispatched, delivered), result))
                })
                .await?;
            say!(
                "{} dispatched; {} delivered, {} to retry, {} failed",
                count(dispatched.events, "event"),
                delivered.sent,
                delivered.postponed,
                delivered.failed
            );
            if config.mail.smtp_url.is_none() {
                let waiting = event::outbox_counts(&database).await?.mails_pending;
                if waiting > 0 {
                    let (mails, verb) = (count(waiting, "mail"), if waiting == 1 { "waits" } else { "wait" });
                    say!("{mails} {verb} for a mail server: set mail.smtp_url; after three days mail has failed");
                }
            }
        }
        Command::Owner { email, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            if let Some(email) = &email {
                let mut act = audit::begin(&database, now_ms).await?;
                channel::set_owner_email(act.connection(), email).await?;
                let note = Note::new("owner.email", "owner").personal(serde_json::json!({ "after": email }));
                act.commit(note).await?;
            }
            match channel::owner_email(database.pool()).await? {
                Some(email) => say!("{email}"),
                None => say!("every admin is alerted: name one address with `ezscale event owner EMAIL`"),
            }
        }
    }
    Ok(())
}

/// How many were told, and how many not yet or not at all.
fn counted(deliveries: &[event::Delivery]) -> String {
    let parts = ["delivered", "pending", "failed"].map(|status| {
        let count = deliveries.iter().filter(|delivery| delivery.status == status).count();
        (count > 0).then(|| format!("{count} {status}"))
    });
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
