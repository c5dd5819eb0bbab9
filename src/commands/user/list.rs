//! What there is: users, one user, sessions, attempts to sign in.

use clap::ValueEnum;
use portal::Role;
use portal::auth::{self, Filter};
use schemas::ids::UserId;

use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, at, number, shown, text};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum UserState {
    Enabled,
    Disabled,
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// A part of the name or email address
    #[arg(long, default_value = "")]
    search: String,
    /// customer, ops, finance, network or admin
    #[arg(long)]
    role: Option<Role>,
    /// Only users in this state
    #[arg(long, value_enum)]
    state: Option<UserState>,
    /// Those after this one (usr_N)
    #[arg(long)]
    after: Option<UserId>,
    /// How many to list at most
    #[arg(long, default_value_t = auth::MAX_USERS, value_parser = clap::value_parser!(i64).range(1..=auth::MAX_USERS))]
    limit: i64,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    data: Data,
}

impl List {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (config, database) = self.data.open_database().await?;
        let filter = Filter {
            search: &self.search,
            role: self.role,
            is_disabled: self.state.map(|state| state == UserState::Disabled),
            after: self.after,
        };
        let now_ms = now_ms(&database).await?;
        let users = auth::accounts(database.pool(), filter, &config.sessions, now_ms, self.limit).await?;
        let mut listing = Listing::new([
            text("id"),
            text("email"),
            text("name"),
            text("role"),
            text("customer"),
            text("state"),
            text("second_factor_at").or("off").titled("second factor"),
            text("signed_in_at").or("never"),
            number("sessions"),
        ]);
        for user in users {
            listing.row([
                shown(user.id),
                user.email.into(),
                user.name.into(),
                shown(user.role),
                user.customer.map(shown).into(),
                state(user.disabled_at_ms).into(),
                user.two_factor_at_ms.map(at).into(),
                user.signed_in_at_ms.map(at).into(),
                user.sessions.into(),
            ]);
        }
        listing.print(self.format, "no users: add one with `ezscale user add`")
    }
}

fn state(disabled_at_ms: Option<i64>) -> &'static str {
    if disabled_at_ms.is_some() {
        "disabled"
    } else {
        "enabled"
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct Show {
    /// Email address or id (usr_N)
    user: String,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: ShowFormat,
    #[command(flatten)]
    data: Data,
}

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (config, database) = self.data.open_database().await?;
        let id = auth::user_named(database.pool(), &self.user).await?;
        let user = auth::account(database.pool(), id, &config.sessions, now_ms(&database).await?).await?;
        Record::new()
            .field(text("id"), shown(user.id))
            .field(text("email"), user.email)
            .field(text("name"), user.name)
            .field(text("role"), shown(user.role))
            .field(text("customer"), user.customer.map(shown))
            .field(text("customer_name"), user.customer_name)
            .field(text("state"), state(user.disabled_at_ms))
            .field(text("disabled_at"), user.disabled_at_ms.map(at))
            .field(
                text("second_factor_at").or("off").titled("second factor"),
                user.two_factor_at_ms.map(at),
            )
            .field(text("signed_in_at").or("never"), user.signed_in_at_ms.map(at))
            .field(
                text("password_changed_at").or("not since it was added"),
                user.password_changed_at_ms.map(at),
            )
            .field(number("sessions"), user.sessions)
            .field(text("created_at"), at(user.created_at_ms))
            .print(self.format)
    }
}

#[derive(clap::Args, Debug)]
// The command's own group has this name.
#[group(skip)]
pub(super) struct Sessions {
    /// Email address or id (usr_N)
    pub(super) user: String,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    pub(super) data: Data,
}

impl Sessions {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (config, database) = self.data.open_database().await?;
        let id = auth::user_named(database.pool(), &self.user).await?;
        let sessions = auth::sessions_of(database.pool(), id, &config.sessions, now_ms(&database).await?).await?;
        let columns = ["session", "browser", "ip", "created_at", "last_seen_at", "ends_at"];
        let mut listing = Listing::new(columns.map(text));
        for session in sessions {
            listing.row([
                session.name.into(),
                auth::device_name(&session.user_agent).into(),
                session.ip.into(),
                at(session.created_at_ms),
                at(session.last_seen_at_ms),
                at(session.ends_at_ms),
            ]);
        }
        listing.print(self.format, "not signed in")
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct SignIns {
    /// Email address or id (usr_N); everybody's where none is given
    user: Option<String>,
    /// How many to list at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    limit: i64,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    data: Data,
}

impl SignIns {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (_, database) = self.data.open_database().await?;
        let user = match &self.user {
            Some(user) => Some(auth::user_named(database.pool(), user).await?),
            None => None,
        };
        let attempts = auth::recent_attempts(database.pool(), user, now_ms(&database).await?, self.limit).await?;
        let columns = ["at", "user", "email", "result", "method", "ip", "browser"];
        let mut listing = Listing::new(columns.map(text));
        for attempt in attempts {
            listing.row([
                at(attempt.at_ms),
                attempt.user.map(shown).into(),
                attempt.email.into(),
                attempt.outcome.name().into(),
                attempt.method.into(),
                attempt.ip.into(),
                auth::device_name(&attempt.user_agent).into(),
            ]);
        }
        listing.print(self.format, "nobody signed in or tried to in 90 days")
    }
}
