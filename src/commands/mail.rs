//! `ezscale mail`: what was mailed, and what was not.

use activity::channel;
use activity::event::{self, Delivery, DeliveryFilter};
use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use schemas::ids::DeliveryId;

use crate::options::Data;
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List mails, latest first
    List {
        /// To this address only
        #[arg(long)]
        to: Option<String>,
        /// Only mails in this state
        #[arg(long, value_enum)]
        status: Option<MailStatus>,
        /// Older than this one (dlv_N)
        #[arg(long)]
        before: Option<DeliveryId>,
        /// How many to list at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=event::MAX_PAGE))]
        limit: i64,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a mail with its subject and text
    Show {
        /// The mail (dlv_N)
        mail: DeliveryId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MailStatus {
    Pending,
    Delivered,
    Failed,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List {
            to,
            status,
            before,
            limit,
            format,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let filter = DeliveryFilter {
                channel: Some("email"),
                target: to.as_deref(),
                status: status.map(|status| match status {
                    MailStatus::Pending => "pending",
                    MailStatus::Delivered => "delivered",
                    MailStatus::Failed => "failed",
                }),
                before,
            };
            let mut listing = listing();
            for delivery in event::deliveries(database.pool(), filter, limit).await? {
                listing.row(cells(&delivery));
            }
            listing.print(format, "no mails")
        }
        Command::Show { mail, format, data } => {
            let (config, database) = data.open_database().await?;
            let found = event::delivery(database.pool(), mail).await?;
            let found = found
                .filter(|delivery| delivery.channel == "email")
                .with_context(|| format!("no mail {mail}: `ezscale mail list` lists them"))?;
            let event = event::event(database.pool(), found.event).await?;
            let text_of = channel::preview(&database, &event, &config.portal_url()).await?;
            Record::new()
                .field(text("id"), shown(found.id))
                .field(text("event"), shown(found.event))
                .field(text("type"), shown(event.event_type))
                .field(text("to"), found.target)
                .field(text("status"), found.status)
                .field(number("attempts"), found.attempts)
                .field(text("error"), found.error)
                .field(text("created_at"), at(found.created_at_ms))
                .field(text("next_at"), found.next_at_ms.map(at))
                .field(text("delivered_at"), found.delivered_at_ms.map(at))
                .field(text("subject"), text_of.subject)
                .field(text("text"), text_of.text)
                .print(format)
        }
    }
}

/// Deliveries: mails, and requests to endpoints.
pub(super) fn listing() -> Listing<10> {
    Listing::new([
        text("id"),
        text("event").only_data(),
        text("channel"),
        text("target"),
        text("status"),
        number("attempts"),
        text("created_at"),
        text("next_at"),
        text("delivered_at").only_data(),
        text("error"),
    ])
}

pub(super) fn cells(delivery: &Delivery) -> [Cell; 10] {
    [
        shown(delivery.id),
        shown(delivery.event),
        delivery.channel.as_str().into(),
        delivery.target.as_str().into(),
        delivery.status.as_str().into(),
        delivery.attempts.into(),
        at(delivery.created_at_ms),
        delivery.next_at_ms.map(at).into(),
        delivery.delivered_at_ms.map(at).into(),
        delivery.error.as_str().into(),
    ]
}
