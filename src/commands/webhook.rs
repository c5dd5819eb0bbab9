//! `ezscale webhook`: the endpoints that hear of events: programs and Discord channels.

use std::io::BufRead as _;

use activity::channel::endpoint::{self, Endpoint, EndpointKind, NewEndpoint, Owner};
use activity::event::{self, EventType};
use anyhow::Context as _;
use clap::Subcommand;
use schemas::ids::{CustomerId, EndpointId};
use schemas::inventory;

use super::{audit, mail};
use crate::options::{Data, now_ms};
use crate::outbox::Outbox;
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add an endpoint; prints its id and, of a program, this once its secret
    Add {
        /// Where events are posted to: https, on the public Internet; `-` reads it from standard input
        url: String,
        /// It is the webhook of a Discord channel, which shows events as posts
        #[arg(long)]
        discord: bool,
        /// Whose events (cus_N) [default: everybody's, for programs of your own]
        #[arg(long)]
        customer: Option<CustomerId>,
        /// An event type to receive, such as invoice.paid; repeatable [default: all]
        #[arg(long = "type")]
        event_types: Vec<EventType>,
        #[command(flatten)]
        data: Data,
    },
    /// List endpoints
    List {
        /// Of this customer (cus_N) [default: all]
        #[arg(long)]
        customer: Option<CustomerId>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show an endpoint and what was sent to it last
    Show {
        /// The endpoint (whk_N)
        endpoint: EndpointId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Remove an endpoint; what was on its way to it fails
    Remove {
        /// The endpoint (whk_N)
        endpoint: EndpointId,
        #[command(flatten)]
        data: Data,
    },
    /// Print a new secret; the one before signs beside it for a day
    Rotate {
        /// The endpoint (whk_N)
        endpoint: EndpointId,
        #[command(flatten)]
        data: Data,
    },
    /// Send to a disabled endpoint again
    Enable {
        /// The endpoint (whk_N)
        endpoint: EndpointId,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add {
            url,
            discord,
            customer,
            event_types,
            data,
        } => {
            let (config, database) = data.open_or_create().await?;
            let now_ms = now_ms(&database).await?;
            let kind = match discord {
                true => EndpointKind::Discord,
                false => EndpointKind::Webhook,
            };
            let url = match url.as_str() {
                "-" => first_line()?,
                _ => url,
            };
            // Before the transaction: names are resolved.
            let url = Outbox::new(&config, &database)?.client().vet(kind, &url).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            if let Some(customer) = customer {
                inventory::customer(act.connection(), customer).await?;
            }
            let new = NewEndpoint {
                customer,
                url: &url,
                event_types: &event_types,
            };
            let (added, note) = endpoint::add(act.connection(), database.vault(), new, now_ms).await?;
            act.commit(note).await?;
            match added.secret {
                Some(secret) => say!("{} {secret}", added.endpoint.id),
                None => say!("{}", added.endpoint.id),
            }
        }
        Command::List { customer, format, data } => {
            let (_, database) = data.open_database().await?;
            let mut listing = Listing::new([
                text("id"),
                text("kind"),
                text("customer").or("all"),
                text("url"),
                text("types").or("all"),
                number("failures"),
                text("disabled_at"),
            ]);
            let of = customer.map_or(Owner::Anybody, Owner::Customer);
            for endpoint in endpoint::endpoints(database.pool(), of).await? {
                listing.row([
                    shown(endpoint.id),
                    endpoint.kind.name().into(),
                    endpoint.customer.map(shown).into(),
                    endpoint.url.as_str().into(),
                    types(&endpoint)?,
                    endpoint.failures.into(),
                    endpoint.disabled_at_ms.map(at).into(),
                ]);
            }
            listing.print(format, "no endpoints: add one with `ezscale webhook add`")?;
        }
        Command::Show { endpoint, format, data } => {
            let (_, database) = data.open_database().await?;
            let endpoint = endpoint::endpoint(database.pool(), endpoint, Owner::Anybody).await?;
            let mut deliveries = mail::listing();
            for delivery in event::deliveries_to(database.pool(), endpoint.id, DELIVERIES_SHOWN).await? {
                deliveries.row(mail::cells(&delivery));
            }
            Record::new()
                .field(text("id"), shown(endpoint.id))
                .field(text("kind"), endpoint.kind.name())
                .field(text("customer").or("all"), endpoint.customer.map(shown))
                .field(text("url"), endpoint.url.as_str())
                .field(text("types").or("all"), types(&endpoint)?)
                .field(number("failures"), endpoint.failures)
                .field(text("created_at"), at(endpoint.created_at_ms))
                .field(text("disabled_at"), endpoint.disabled_at_ms.map(at))
                .list("deliveries", deliveries)
                .print(format)?;
        }
        Command::Remove { endpoint, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let note = endpoint::remove(act.connection(), endpoint, Owner::Anybody).await?;
            act.commit(note).await?;
        }
        Command::Rotate { endpoint, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let vault = database.vault();
            let (secret, note) = endpoint::rotate(act.connection(), vault, endpoint, Owner::Anybody, now_ms).await?;
            act.commit(note).await?;
            say!("{secret}");
        }
        Command::Enable { endpoint, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let note = endpoint::enable(act.connection(), endpoint, Owner::Anybody).await?;
            act.commit(note).await?;
        }
    }
    Ok(())
}

/// What stands in the first line of standard input.
fn first_line() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("read the address from standard input")?;
    Ok(line.trim().to_owned())
}

/// Deliveries that are shown with an endpoint.
const DELIVERIES_SHOWN: i64 = 20;

/// The events it receives; absent: all.
fn types(endpoint: &Endpoint) -> anyhow::Result<Cell> {
    if endpoint.event_types.is_empty() {
        return Ok(Cell::Absent);
    }
    let names: Vec<&str> = endpoint.event_types.iter().map(|kind| kind.name()).collect();
    Cell::json(&names)
}
