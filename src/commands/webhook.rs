//! `ezscale webhook`: the endpoints that hear of events.

use billing::event::EventType;
use billing::event::webhook::{self, NewEndpoint, Owner};
use clap::Subcommand;
use schemas::ids::{CustomerId, EndpointId};
use schemas::inventory;
use schemas::window::instant_text;

use super::audit::note;
use crate::options::{Data, now_ms};
use crate::outbox::Outbox;
use crate::output::Listing;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add an endpoint; prints its id and, this once, its secret
    Add {
        /// Where events are posted to: https, on the public Internet
        url: String,
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
        #[arg(long)]
        customer: Option<CustomerId>,
        #[command(flatten)]
        data: Data,
    },
    /// Remove an endpoint; what was on its way to it fails
    Remove {
        endpoint: EndpointId,
        #[command(flatten)]
        data: Data,
    },
    /// Print a new secret; the one before signs beside it for a day
    Rotate {
        endpoint: EndpointId,
        #[command(flatten)]
        data: Data,
    },
    /// Send to a disabled endpoint again
    Enable {
        endpoint: EndpointId,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add {
            url,
            customer,
            event_types,
            data,
        } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            // Before the transaction: names are resolved.
            let url = Outbox::new(&config, &database)?.client().vet(&url).await?;
            let mut transaction = database.begin_write().await?;
            if let Some(customer) = customer {
                inventory::customer(&mut *transaction, customer).await?;
            }
            let new = NewEndpoint {
                customer,
                url: &url,
                event_types: &event_types,
            };
            let (endpoint, secret) = webhook::add(&mut transaction, database.vault(), new, now_ms).await?;
            let change = serde_json::json!({ "after": endpoint });
            note(
                &mut transaction,
                "webhook.add",
                &endpoint.id.to_string(),
                change,
                now_ms,
            )
            .await?;
            transaction.commit().await?;
            println!("{} {secret}", endpoint.id);
        }
        Command::List { customer, data } => {
            let (_, database) = data.open_database().await?;
            let mut listing = Listing::new(&["endpoint", "customer", "url", "types", "failures", "disabled"]).right(4);
            let of = customer.map_or(Owner::Anybody, Owner::Customer);
            for endpoint in webhook::endpoints(database.pool(), of).await? {
                let types: Vec<&str> = endpoint.event_types.iter().map(|kind| kind.name()).collect();
                listing.row([
                    endpoint.id.to_string(),
                    endpoint
                        .customer
                        .map_or("all".to_owned(), |customer| customer.to_string()),
                    endpoint.url,
                    if types.is_empty() {
                        "all".to_owned()
                    } else {
                        types.join(" ")
                    },
                    endpoint.failures.to_string(),
                    endpoint.disabled_at_ms.map(instant_text).unwrap_or_default(),
                ]);
            }
            listing.print("no endpoints: add one with `ezscale webhook add`");
        }
        Command::Remove { endpoint, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            let before = webhook::endpoint(&mut *transaction, endpoint, Owner::Anybody).await?;
            webhook::remove(&mut transaction, endpoint, Owner::Anybody).await?;
            let change = serde_json::json!({ "before": before });
            note(
                &mut transaction,
                "webhook.remove",
                &endpoint.to_string(),
                change,
                now_ms,
            )
            .await?;
            transaction.commit().await?;
        }
        Command::Rotate { endpoint, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            let secret = webhook::rotate(&mut transaction, database.vault(), endpoint, Owner::Anybody, now_ms).await?;
            let change = serde_json::json!({ "changed": "secret" });
            note(
                &mut transaction,
                "webhook.rotate",
                &endpoint.to_string(),
                change,
                now_ms,
            )
            .await?;
            transaction.commit().await?;
            println!("{secret}");
        }
        Command::Enable { endpoint, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            webhook::enable(&mut transaction, endpoint, Owner::Anybody).await?;
            let change = serde_json::json!({ "after": { "disabled_at_ms": null } });
            note(
                &mut transaction,
                "webhook.enable",
                &endpoint.to_string(),
                change,
                now_ms,
            )
            .await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}
