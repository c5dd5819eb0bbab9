//! `ezscale attack`: windows of a service that are told on invoices and not charged.

use billing::exclusion::{self, Exclusion};
use clap::Subcommand;
use jiff::Timestamp;
use schemas::ids::{ExclusionId, ServiceId};
use schemas::inventory;
use schemas::window::instant_text;
use serde_json::json;

use super::audit::{COMMAND_LINE, note};
use crate::options::{Data, now_ms};
use crate::output::Listing;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Flag the 5-minute windows that start in a time; of a period that was charged already the next invoice gives back
    Flag {
        /// Which service (svc_N)
        service: ServiceId,
        /// From when on (RFC 3339)
        #[arg(long)]
        from: Timestamp,
        /// Until when, not counted (RFC 3339); at most 31 days later
        #[arg(long)]
        to: Timestamp,
        /// What it was, for the log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
    /// List what was flagged
    List {
        /// Of one service (svc_N) [default: all]
        service: Option<ServiceId>,
        #[command(flatten)]
        data: Data,
    },
    /// Take a flag back (exc_N, as `attack list` shows it): its windows are charged
    Revoke {
        exclusion: ExclusionId,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Flag {
            service,
            from,
            to,
            reason,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let time = (from.as_millisecond(), to.as_millisecond());
            let mut transaction = database.begin_write().await?;
            let made = exclusion::exclude(&mut transaction, service, time, &reason, COMMAND_LINE.name, now_ms).await?;
            let change = json!({"after": {"service": service, "from": from.to_string(), "to": to.to_string(),
                "reason": made.reason}});
            note(&mut transaction, "usage.exclude", &made.id.to_string(), change, now_ms).await?;
            transaction.commit().await?;
            println!("{}", made.id);
        }
        Command::List { service, data } => {
            let (_, database) = data.open_database().await?;
            let mut all: Vec<Exclusion> = Vec::new();
            let services = match service {
                Some(service) => vec![inventory::service(database.pool(), service).await?],
                None => inventory::services(database.pool()).await?,
            };
            for service in services {
                all.extend(exclusion::exclusions_of(database.pool(), service.id).await?);
            }
            all.sort_by_key(|exclusion| std::cmp::Reverse(exclusion.from_ms));
            let mut listing = Listing::new(&["id", "service", "from", "to", "reason", "by", "reversed"]);
            for exclusion in all {
                listing.row([
                    exclusion.id.to_string(),
                    exclusion.service.to_string(),
                    instant_text(exclusion.from_ms),
                    instant_text(exclusion.to_ms),
                    exclusion.reason,
                    exclusion.created_by,
                    exclusion.revoked_at_ms.map(instant_text).unwrap_or_default(),
                ]);
            }
            listing.print("nothing is flagged");
        }
        Command::Revoke { exclusion, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            exclusion::revoke(&mut transaction, exclusion, now_ms).await?;
            let subject = exclusion.to_string();
            note(&mut transaction, "usage.include", &subject, json!({}), now_ms).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}
