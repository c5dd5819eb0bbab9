//! `ezscale approval`: what one admin asked for and another decides. Deciding needs a second person, so it is done in the
//! portal.

use activity::approval::{self, Status};
use clap::{Subcommand, ValueEnum};
use schemas::ids::ApprovalId;

use crate::options::Data;
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List requests, latest first
    List {
        /// Only requests in this state
        #[arg(long, value_enum)]
        status: Option<RequestStatus>,
        /// Older than this one (apr_N)
        #[arg(long)]
        before: Option<ApprovalId>,
        /// How many to list at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=approval::MAX_PAGE))]
        limit: i64,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a request with what is to be done
    Show {
        /// The request (apr_N)
        approval: ApprovalId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RequestStatus {
    Pending,
    Approved,
    Rejected,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List {
            status,
            before,
            limit,
            format,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let status = status.map(|status| match status {
                RequestStatus::Pending => Status::Pending,
                RequestStatus::Approved => Status::Approved,
                RequestStatus::Rejected => Status::Rejected,
            });
            let mut listing = Listing::new([
                text("id"),
                text("kind"),
                text("subject"),
                text("summary"),
                text("status"),
                text("requested_by"),
                text("requested_at"),
                text("decided_by"),
                text("decided_at").only_data(),
                text("reason").only_data(),
            ]);
            for found in approval::list(database.pool(), status, before, limit).await? {
                listing.row([
                    shown(found.id),
                    found.kind.into(),
                    found.subject.into(),
                    found.summary.into(),
                    found.status.name().into(),
                    shown(found.requested_by),
                    at(found.requested_at_ms),
                    found.decided_by.map(shown).into(),
                    found.decided_at_ms.map(at).into(),
                    found.reason.into(),
                ]);
            }
            listing.print(format, "nothing was asked for")
        }
        Command::Show { approval, format, data } => {
            let (_, database) = data.open_database().await?;
            let found = approval::approval(database.pool(), approval).await?;
            Record::new()
                .field(text("id"), shown(found.id))
                .field(text("kind"), found.kind)
                .field(text("subject"), found.subject)
                .field(text("summary"), found.summary)
                .field(text("status"), found.status.name())
                .field(text("requested_by"), shown(found.requested_by))
                .field(text("requested_at"), at(found.requested_at_ms))
                .field(text("decided_by"), found.decided_by.map(shown))
                .field(text("decided_at"), found.decided_at_ms.map(at))
                .field(text("reason"), found.reason)
                .field(text("action"), Cell::json(&found.action)?)
                .print(format)
        }
    }
}
