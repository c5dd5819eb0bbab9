//! `ezscale audit`: who did what.

use billing::audit::{self, Actor, AuditFilter, Entry, Risk};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use schemas::ids::AuditId;
use schemas::window::instant_text;

use crate::options::Data;
use crate::output::Listing;

/// Who acts where nobody has signed in.
pub(crate) const COMMAND_LINE: Actor<'_> = Actor {
    name: "command line",
    user: None,
    ip: "",
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List what was done, latest first
    List(List),
}

#[derive(clap::Args, Debug)]
struct List {
    /// By this one: an email address, or `command line`
    #[arg(long)]
    actor: Option<String>,
    /// Such as webhook.add
    #[arg(long)]
    action: Option<String>,
    /// The id of what it was done to
    #[arg(long)]
    subject: Option<String>,
    /// Only what is of high risk
    #[arg(long)]
    high_risk: bool,
    /// From this instant on (RFC 3339)
    #[arg(long)]
    from: Option<Timestamp>,
    /// Before this instant
    #[arg(long)]
    to: Option<Timestamp>,
    /// Older than this entry (aud_N)
    #[arg(long)]
    before: Option<AuditId>,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=audit::MAX_PAGE))]
    limit: i64,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    data: Data,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Command::List(list) = args.command;
    let (_, database) = list.data.open_database().await?;
    let filter = AuditFilter {
        actor: list.actor.as_deref(),
        action: list.action.as_deref(),
        subject: list.subject.as_deref(),
        risk: list.high_risk.then_some(Risk::High),
        from_ms: list.from.map(Timestamp::as_millisecond),
        to_ms: list.to.map(Timestamp::as_millisecond),
        before: list.before,
    };
    let entries = audit::list(database.pool(), filter, list.limit).await?;
    if list.format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(());
    }
    let mut listing = Listing::new(&["entry", "at", "actor", "from", "action", "subject", "risk", "change"]);
    for entry in entries {
        listing.row([
            entry.id.to_string(),
            instant_text(entry.at_ms),
            entry.actor,
            entry.ip,
            entry.action,
            entry.subject,
            entry.risk.name().to_owned(),
            entry.change.to_string(),
        ]);
    }
    listing.print("nothing was recorded");
    Ok(())
}

/// Records what a command did.
pub(super) async fn note(
    connection: &mut sqlx::AnyConnection,
    action: &str,
    subject: &str,
    change: serde_json::Value,
    now_ms: i64,
) -> anyhow::Result<()> {
    note_risk(connection, action, subject, change, Risk::Normal, now_ms).await
}

/// Records what a command did, and how far the owner should know.
pub(super) async fn note_risk(
    connection: &mut sqlx::AnyConnection,
    action: &str,
    subject: &str,
    change: serde_json::Value,
    risk: Risk,
    now_ms: i64,
) -> anyhow::Result<()> {
    let entry = Entry {
        actor: COMMAND_LINE,
        action,
        subject,
        change,
        risk,
    };
    audit::record(connection, entry, now_ms).await?;
    Ok(())
}
