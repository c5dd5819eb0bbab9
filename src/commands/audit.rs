//! `ezscale audit`: who did what, and whether the log is whole.

use activity::act::{Act, Note};
use activity::audit::chain::{self, Break};
use activity::audit::{self, AuditFilter, Risk};
use anyhow::{Context as _, bail};
use billing::action::NewRequest;
use billing::approval::{Gate, Requested};
use clap::Subcommand;
use jiff::Timestamp;
use schemas::db::Database;
use schemas::ids::AuditId;

use crate::operator;
use crate::options::Data;
use crate::output::{Format, Listing, Record, ShowFormat, at, causes, number, shown, text};

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
    /// Check that nobody changed, removed, added or moved an entry: each entry's hash covers the one before. Fails when one did
    Verify {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct List {
    /// By this one: an email address, an account of this machine (os:alice) that ran a command itself or by sudo, or a part of the
    /// program (configuration)
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
        Command::Verify { format, data } => return verify(format, &data).await,
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
    let mut listing = Listing::new([
        text("id"),
        text("at"),
        text("actor"),
        text("claimed_by").only_data(),
        text("user").only_data(),
        text("ip").only_data(),
        text("action"),
        text("subject"),
        text("risk"),
        text("change").only_data(),
    ]);
    for entry in entries {
        listing.row([
            shown(entry.id),
            at(entry.at_ms),
            entry.actor.into(),
            entry.claimed_by.into(),
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
        .field(text("claimed_by"), found.claimed_by)
        .field(text("user"), found.user.map(shown))
        .field(text("ip"), found.ip)
        .field(text("action"), found.action)
        .field(text("subject"), found.subject)
        .field(text("risk"), found.risk.name())
        .field(text("change"), found.change)
        .field(text("hash"), Some(found.hash).filter(|hash| !hash.is_empty()))
        .print(format)
}

/// Walks the chain, and fails at the first break.
async fn verify(format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let found = chain::verify(&database).await?;
    let broken = found.broken.as_ref();
    let (last, hash) = found.head.unzip();
    Record::new()
        .field(number("entries"), found.entries)
        .field(number("erased_texts"), found.erased)
        .field(text("sealed_to").or("none"), found.sealed.map(shown))
        .field(text("last_entry").or("none"), last.map(shown))
        .field(text("hash").or("none"), hash)
        .field(
            text("broken_at").or("nowhere"),
            broken.map(|broken| shown(broken.entry)),
        )
        .field(text("differs").or("nothing"), broken.map(|broken| broken.kind.name()))
        .field(text("problem").or("none"), broken.map(|broken| broken.what.as_str()))
        .print(format)?;
    match broken {
        None => Ok(()),
        Some(Break { entry, kind, what }) => bail!("the audit log is broken at {entry} ({}): {what}", kind.name()),
    }
}

/// Begins what a command changes, in the name of who runs it.
pub(super) async fn begin(database: &Database, now_ms: i64) -> anyhow::Result<Act> {
    Ok(Act::begin(database, operator::by(), now_ms).await?)
}

/// Asks the rules of risk whether something may be done; `None` where a second admin decides: then the request is what was committed.
pub(super) async fn gate(mut act: Act, wanted: &NewRequest) -> anyhow::Result<Option<Act>> {
    let now_ms = act.now_ms();
    let (connection, by) = act.asking();
    match billing::action::gate(connection, wanted, by, now_ms).await? {
        Gate::Passes(_) => Ok(Some(act)),
        Gate::Waits(requested) => {
            act.commit_entered(requested.entered).await?;
            print_approval_requested(requested);
            Ok(None)
        }
    }
}

/// Says that a second admin was asked.
pub(super) fn print_approval_requested(requested: Requested) {
    let id = requested.id;
    say!("{id} waits for a second admin: `ezscale approval approve {id}`, or Approvals in the portal");
}

/// Does what takes several transactions: `begins` is recorded before, and what came of it after. `work` answers to what the
/// command goes on with, and to the result for the audit log.
pub(super) async fn in_steps<T>(
    database: &Database,
    now_ms: i64,
    begins: Note,
    work: impl Future<Output = anyhow::Result<(T, serde_json::Value)>>,
) -> anyhow::Result<T> {
    let steps = Act::steps(database, operator::by(), now_ms, begins).await?;
    let done = work.await;
    let outcome = match &done {
        Ok((_, result)) => Ok(result.clone()),
        Err(error) => Err(causes(error)),
    };
    let recorded = steps.end(outcome).await;
    // Why it failed says more than why that could not be recorded.
    let (value, _) = done?;
    recorded?;
    Ok(value)
}
