//! `ezscale audit`: who did what.

use activity::audit::{self, Actor, AuditFilter, Entry, Risk};
use anyhow::Context as _;
use clap::Subcommand;
use jiff::Timestamp;
use schemas::db::Database;
use schemas::ids::AuditId;

use crate::options::Data;
use crate::output::{Format, Listing, Record, ShowFormat, at, shown, text};

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
    /// Show an entry
    Show {
        /// The entry (aud_N)
        entry: AuditId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
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
    /// From this instant on (RFC 3339, or a day)
    #[arg(long, value_parser = crate::options::instant)]
    from: Option<Timestamp>,
    /// Before this instant
    #[arg(long, value_parser = crate::options::instant)]
    to: Option<Timestamp>,
    /// Older than this entry (aud_N)
    #[arg(long)]
    before: Option<AuditId>,
    /// How many to list at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=audit::MAX_PAGE))]
    limit: i64,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    data: Data,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let list = match args.command {
        Command::List(list) => list,
        Command::Show { entry, format, data } => return show(entry, format, &data).await,
    };
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
    let columns = ["id", "at", "actor", "user", "ip", "action", "subject", "risk", "change"];
    let mut listing = Listing::new(columns.map(text));
    for entry in entries {
        listing.row([
            shown(entry.id),
            at(entry.at_ms),
            entry.actor.into(),
            entry.user.map(shown).into(),
            entry.ip.into(),
            entry.action.into(),
            entry.subject.into(),
            entry.risk.name().into(),
            entry.change.into(),
        ]);
    }
    listing.print(list.format, "nothing was recorded")
}

async fn show(entry: AuditId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    // Entries have consecutive ids: the one before the next.
    let filter = AuditFilter {
        before: Some(AuditId(entry.0.saturating_add(1))),
        ..AuditFilter::default()
    };
    let found = audit::list(database.pool(), filter, 1).await?.pop();
    let found = found
        .filter(|found| found.id == entry)
        .with_context(|| format!("no audit entry {entry}: `ezscale audit list` lists them"))?;
    Record::new()
        .field(text("id"), shown(found.id))
        .field(text("at"), at(found.at_ms))
        .field(text("actor"), found.actor)
        .field(text("user"), found.user.map(shown))
        .field(text("ip"), found.ip)
        .field(text("action"), found.action)
        .field(text("subject"), found.subject)
        .field(text("risk"), found.risk.name())
        .field(text("change"), found.change)
        .print(format)
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

/// As [`note`], of what was done in transactions of its own.
pub(super) async fn note_done(
    database: &Database,
    action: &str,
    subject: &str,
    change: serde_json::Value,
    now_ms: i64,
) -> anyhow::Result<()> {
    let mut transaction = database.begin_write().await?;
    note(&mut transaction, action, subject, change, now_ms).await?;
    transaction.commit().await?;
    Ok(())
}

/// Records what a command did, and how far the owner should know.
pub(crate) async fn note_risk(
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
