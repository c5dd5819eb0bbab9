//! `ezscale attack`: windows of a service that are told on invoices and not charged.

use activity::act::Note;
use anyhow::Context as _;
use billing::approval::wanted;
use billing::exclusion::{self, Exclusion};
use clap::Subcommand;
use jiff::Timestamp;
use schemas::db::Database;
use schemas::ids::{ExclusionId, ServiceId};
use schemas::inventory;
use serde_json::json;

use super::audit;
use crate::options::{self, Data, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, at, shown, text};

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
        /// From when on (RFC 3339, or a day)
        #[arg(long, value_parser = crate::options::instant)]
        from: Timestamp,
        /// Until when, not counted (RFC 3339, or a day); at most 31 days later
        #[arg(long, value_parser = crate::options::instant)]
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
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a flag
    Show {
        /// The flag (exc_N)
        exclusion: ExclusionId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Remove a flag (exc_N, as `attack list` shows it): its windows are charged
    Revoke {
        /// The flag (exc_N)
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
            options::check_order(time.0, time.1)?;
            exclusion::check_time(time)?;
            let mut act = audit::begin(&database, now_ms).await?;
            let wanted = wanted::usage_exclusion(act.connection(), service, time, &reason, now_ms).await?;
            let Some(mut act) = audit::gate(act, &wanted).await? else {
                return Ok(());
            };
            let (connection, by) = act.parts();
            let made = exclusion::exclude(connection, service, time, &reason, by.name, now_ms).await?;
            let change = json!({"after": {"service": service, "from": from.to_string(), "to": to.to_string(),
                "reason": made.reason}});
            act.commit(Note::new("usage.exclude", made.id).change(change)).await?;
            say!("{}", made.id);
        }
        Command::List { service, format, data } => {
            let (_, database) = data.open_database().await?;
            let columns = ["id", "service", "from", "to", "reason", "created_by", "revoked_at"];
            let mut listing = Listing::new(columns.map(text));
            for exclusion in all(&database, service).await? {
                listing.row([
                    shown(exclusion.id),
                    shown(exclusion.service),
                    at(exclusion.from_ms),
                    at(exclusion.to_ms),
                    exclusion.reason.into(),
                    exclusion.created_by.into(),
                    exclusion.revoked_at_ms.map(at).into(),
                ]);
            }
            listing.print(format, "nothing is flagged")?;
        }
        Command::Show {
            exclusion,
            format,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let found = all(&database, None).await?.into_iter().find(|one| one.id == exclusion);
            let found = found.with_context(|| format!("no flag {exclusion}: `ezscale attack list` lists them"))?;
            Record::new()
                .field(text("id"), shown(found.id))
                .field(text("service"), shown(found.service))
                .field(text("from"), at(found.from_ms))
                .field(text("to"), at(found.to_ms))
                .field(text("reason"), found.reason)
                .field(text("created_by"), found.created_by)
                .field(text("revoked_at"), found.revoked_at_ms.map(at))
                .print(format)?;
        }
        Command::Revoke { exclusion, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            exclusion::revoke(act.connection(), exclusion, now_ms).await?;
            act.commit(Note::new("usage.include", exclusion)).await?;
        }
    }
    Ok(())
}

/// What was flagged of one service or of all, the latest time first.
async fn all(database: &Database, service: Option<ServiceId>) -> anyhow::Result<Vec<Exclusion>> {
    let services = match service {
        Some(service) => vec![inventory::service(database.pool(), service).await?],
        None => inventory::services(database.pool()).await?,
    };
    let mut all: Vec<Exclusion> = Vec::new();
    for service in services {
        all.extend(exclusion::exclusions_of(database.pool(), service.id).await?);
    }
    all.sort_by_key(|exclusion| std::cmp::Reverse(exclusion.from_ms));
    Ok(all)
}
