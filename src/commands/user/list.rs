//! What there is: users, one user, sessions, attempts to sign in.

use clap::ValueEnum;
use portal::Role;
use portal::auth::{self, Filter};
use schemas::ids::UserId;
use schemas::window::instant_text;

use crate::options::{Data, now_ms};
use crate::output::Listing;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

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
    #[arg(long, value_enum)]
    state: Option<UserState>,
    /// Those after this one (usr_N)
    #[arg(long)]
    after: Option<UserId>,
    #[arg(long, default_value_t = auth::MAX_USERS, value_parser = clap::value_parser!(i64).range(1..=auth::MAX_USERS))]
    limit: i64,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    data: Data,
}

fn instant(at_ms: Option<i64>, otherwise: &str) -> String {
    at_ms.map_or_else(|| otherwise.to_owned(), instant_text)
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
        if self.format == Format::Json {
            println!("{}", serde_json::to_string_pretty(&users)?);
            return Ok(());
        }
        let mut listing = Listing::new(&[
            "id",
            "email",
            "name",
            "role",
            "customer",
            "state",
            "second factor",
            "last sign-in",
            "sessions",
        ])
        .right(8);
        for user in users {
            listing.row([
                user.id.to_string(),
                user.email,
                user.name,
                user.role.to_string(),
                user.customer.map_or_else(String::new, |customer| customer.to_string()),
                state(user.disabled_at_ms).to_owned(),
                if user.two_factor_at_ms.is_some() { "on" } else { "off" }.to_owned(),
                instant(user.signed_in_at_ms, "never"),
                user.sessions.to_string(),
            ]);
        }
        listing.print("no users: add one with `ezscale user add`");
        Ok(())
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
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    data: Data,
}

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (config, database) = self.data.open_database().await?;
        let id = auth::user_named(database.pool(), &self.user).await?;
        let user = auth::account(database.pool(), id, &config.sessions, now_ms(&database).await?).await?;
        if self.format == Format::Json {
            println!("{}", serde_json::to_string_pretty(&user)?);
            return Ok(());
        }
        let mut listing = Listing::new(&["user", &user.id.to_string()]);
        let customer = match (user.customer, &user.customer_name) {
            (Some(customer), Some(name)) => format!("{customer}, {name}"),
            _ => String::new(),
        };
        for (name, value) in [
            ("email", user.email),
            ("name", user.name),
            ("role", user.role.to_string()),
            ("customer", customer),
            ("state", state(user.disabled_at_ms).to_owned()),
            ("disabled at", instant(user.disabled_at_ms, "")),
            ("second factor since", instant(user.two_factor_at_ms, "off")),
            ("last sign-in", instant(user.signed_in_at_ms, "never")),
            (
                "password changed",
                instant(user.password_changed_at_ms, "not since it was added"),
            ),
            ("sessions", user.sessions.to_string()),
            ("added", instant_text(user.created_at_ms)),
        ] {
            if !value.is_empty() {
                listing.row([name.to_owned(), value]);
            }
        }
        listing.print("");
        Ok(())
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct Sessions {
    /// Email address or id (usr_N)
    pub(super) user: String,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    pub(super) data: Data,
}

impl Sessions {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (config, database) = self.data.open_database().await?;
        let id = auth::user_named(database.pool(), &self.user).await?;
        let sessions = auth::sessions_of(database.pool(), id, &config.sessions, now_ms(&database).await?).await?;
        if self.format == Format::Json {
            println!("{}", serde_json::to_string_pretty(&sessions)?);
            return Ok(());
        }
        let mut listing = Listing::new(&["session", "browser", "from", "since", "last used", "ends"]);
        for session in sessions {
            listing.row([
                session.name,
                auth::device_name(&session.user_agent),
                session.ip,
                instant_text(session.created_at_ms),
                instant_text(session.last_seen_at_ms),
                instant_text(session.ends_at_ms),
            ]);
        }
        listing.print("not signed in");
        Ok(())
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct SignIns {
    /// Email address or id (usr_N); everybody's where none is given
    user: Option<String>,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    limit: i64,
    #[arg(long, value_enum, default_value = "table")]
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
        if self.format == Format::Json {
            println!("{}", serde_json::to_string_pretty(&attempts)?);
            return Ok(());
        }
        let mut listing = Listing::new(&["at", "user", "email", "result", "with", "from", "browser"]);
        for attempt in attempts {
            listing.row([
                instant_text(attempt.at_ms),
                attempt.user.map_or_else(String::new, |user| user.to_string()),
                attempt.email,
                attempt.outcome.name().to_owned(),
                attempt.means,
                attempt.ip,
                auth::device_name(&attempt.user_agent),
            ]);
        }
        listing.print("nobody signed in or tried to in 90 days");
        Ok(())
    }
}
