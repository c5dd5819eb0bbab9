//! `ezscale approval`: what somebody asked for and another admin decides. Who decides proves by a token who they are: the account
//! of the operating system is whoever has the machine.

use activity::act::{Act, By, Note};
use activity::approval::{self, Admin, Status};
use activity::risk::{self, HighRisk};
use billing::approval::{ExecutionOutcome, carry_out};
use billing::refund;
use clap::{Subcommand, ValueEnum};
use portal::auth::{self, User};
use schemas::db::Database;
use schemas::ids::ApprovalId;
use serde_json::json;

use super::user::Credential;
use crate::operator;
use crate::options::{Data, now_ms};
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, number, shown, text};

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
    /// Approve a request as an admin other than who asked, and do at once what it asks for
    Approve {
        /// The request (apr_N)
        approval: ApprovalId,
        #[command(flatten)]
        credential: Credential,
        #[command(flatten)]
        data: Data,
    },
    /// Reject a request, as an admin other than who asked
    Reject {
        /// The request (apr_N)
        approval: ApprovalId,
        /// Why, for who asked
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        credential: Credential,
        #[command(flatten)]
        data: Data,
    },
    /// List the rules: which actions are of high risk, from which size on, and who decides
    Rules {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RequestStatus {
    Pending,
    Approved,
    Rejected,
    Expired,
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
                RequestStatus::Expired => Status::Expired,
            });
            let mut listing = Listing::new([
                text("id"),
                text("kind"),
                text("subject"),
                text("summary"),
                text("status"),
                text("requested_by"),
                text("requested_at"),
                text("expires_at"),
                text("decided_by"),
                text("decided_at").only_data(),
                text("reason").only_data(),
            ]);
            let mut connection = database.pool().acquire().await?;
            for found in approval::list(&mut *connection, status, before, limit).await? {
                let requester = approval::requester(&mut connection, &found).await?;
                listing.row([
                    shown(found.id),
                    found.kind.into(),
                    found.subject.into(),
                    found.summary.into(),
                    found.status.name().into(),
                    requester.into(),
                    at(found.requested_at_ms),
                    at(found.expires_at_ms),
                    found.decided_by.map(shown).into(),
                    found.decided_at_ms.map(at).into(),
                    found.reason.into(),
                ]);
            }
            listing.print(format, "no approval was requested")
        }
        Command::Show { approval, format, data } => {
            let (_, database) = data.open_database().await?;
            let mut connection = database.pool().acquire().await?;
            let found = approval::approval(&mut *connection, approval).await?;
            let requester = approval::requester(&mut connection, &found).await?;
            Record::new()
                .field(text("id"), shown(found.id))
                .field(text("kind"), found.kind)
                .field(text("subject"), found.subject)
                .field(text("summary"), found.summary)
                .field(text("status"), found.status.name())
                .field(text("requested_by"), requester)
                .field(text("requested_at"), at(found.requested_at_ms))
                .field(text("expires_at"), at(found.expires_at_ms))
                .field(text("decided_by"), found.decided_by.map(shown))
                .field(text("decided_at"), found.decided_at_ms.map(at))
                .field(text("reason"), found.reason)
                .field(text("request_entry"), found.request_entry.map(shown))
                .field(text("decision_entry"), found.decision_entry.map(shown))
                .field(text("action"), Cell::json(&found.action)?)
                .print(format)
        }
        Command::Approve {
            approval,
            credential,
            data,
        } => approve(approval, &credential, &data).await,
        Command::Reject {
            approval,
            reason,
            credential,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let user = proved(&database, &credential, now_ms).await?;
            let mut act = begin(&database, &user, now_ms).await?;
            let note = approval::reject(act.connection(), approval, admin(&user), &reason, now_ms).await?;
            approval::commit_decision(act, approval, by_account(note)).await?;
            say!("{approval} rejected by {}", user.email);
            Ok(())
        }
        Command::Rules { format, data } => rules(format, &data).await,
    }
}

/// Who runs the command, by their token.
async fn proved(database: &Database, credential: &Credential, now_ms: i64) -> anyhow::Result<User> {
    let token = credential.read()?;
    let mut connection = database.pool().acquire().await?;
    Ok(auth::token_user(&mut connection, &token, now_ms).await?)
}

fn admin(user: &User) -> Admin<'static> {
    Admin { user: user.id, ip: "" }
}

async fn begin(database: &Database, user: &User, now_ms: i64) -> anyhow::Result<Act> {
    Ok(Act::begin(database, By::user(&user.email, user.id, ""), now_ms).await?)
}

/// With the account of the operating system that the decision was made from.
fn by_account(note: Note) -> Note {
    let account = operator::by().actor().name.to_owned();
    let mut personal = note.personal.clone();
    personal["account"] = json!(account);
    note.personal(personal)
}

async fn approve(id: ApprovalId, credential: &Credential, data: &Data) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let gateways = config.gateways(&database).await?;
    let user = proved(&database, credential, now_ms).await?;
    let mut act = begin(&database, &user, now_ms).await?;
    // What a refund would do is not shown here: where that has changed since it was asked for, it is refused.
    let by = (admin(&user), user.email.as_str());
    let (done, note) = carry_out(act.connection(), id, by, "", now_ms).await?;
    approval::commit_decision(act, id, by_account(note)).await?;
    let what = match done {
        ExecutionOutcome::Executed(what) => what,
        ExecutionOutcome::Refunding { refund, what } => {
            let asked = refund::ask(&database, &gateways, refund, now_ms).await?;
            format!("{what}: {}", asked.state)
        }
    };
    say!("{id} approved by {}: {what}", user.email);
    Ok(())
}

async fn rules(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let thresholds = risk::thresholds(database.pool()).await?;
    let columns = [
        text("action"),
        number("over").or("always"),
        text("measured_in"),
        text("decides"),
        text("may_ask"),
    ];
    let mut listing = Listing::new(columns);
    for kind in HighRisk::ALL {
        let rule = kind.rule();
        listing.row([
            kind.name().into(),
            thresholds.over(kind).into(),
            rule.measure.name().into(),
            rule.decision.name().into(),
            rule.requester.name().into(),
        ]);
    }
    listing.print(format, "no rules")
}
