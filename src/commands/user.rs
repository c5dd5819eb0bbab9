//! `ezscale user`: who signs in. What changes a user has its checks and its entry in the audit log in `portal::auth`, as it has
//! from the portal.

mod list;

use std::io::{BufRead as _, IsTerminal as _};

use activity::verification;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use portal::auth::{self, Change, Ending};
use portal::{NewUser, Role};
use schemas::db::Database;
use schemas::ids::{CustomerId, UserId};
use sqlx::{Any, Transaction};

use super::audit::COMMAND_LINE;
use crate::options::{Data, now_ms};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// A user, by what they are known by.
#[derive(clap::Args, Debug)]
struct User {
    /// Email address or id (usr_N)
    user: String,
    #[command(flatten)]
    data: Data,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add somebody who signs in; the password is asked for, or read from standard input. A customer whose address is not
    /// verified is mailed a link
    Add {
        /// Address that the user signs in with
        #[arg(long)]
        email: String,
        /// Name of the user
        #[arg(long)]
        name: String,
        /// customer, ops, finance, network or admin
        #[arg(long)]
        role: Role,
        /// The customer (cus_N), for the role customer
        #[arg(long, required_if_eq("role", "customer"))]
        customer: Option<CustomerId>,
        #[command(flatten)]
        data: Data,
    },
    /// List users
    List(list::List),
    /// Show a user
    Show(list::Show),
    /// Keep a user from signing in, and end every session at once
    Disable(User),
    /// Let a user who was disabled sign in again
    Enable(User),
    /// Set a user's password, which is asked for or read from standard input; every session ends, and the user is told by mail
    SetPassword(User),
    /// Mail a user a link to set a new password
    ResetPassword(User),
    /// Change a user's role; every session ends
    SetRole {
        /// Email address or id (usr_N)
        user: String,
        /// customer, ops, finance, network or admin
        role: Role,
        /// The customer (cus_N), for the role customer
        #[arg(long)]
        customer: Option<CustomerId>,
        #[command(flatten)]
        data: Data,
    },
    /// List a user's sessions, or end them
    Sessions {
        #[command(flatten)]
        sessions: list::Sessions,
        /// End the session of this name
        #[arg(long, value_name = "SESSION", conflicts_with = "revoke_all")]
        revoke: Option<String>,
        /// End every session
        #[arg(long)]
        revoke_all: bool,
    },
    /// List who signed in and who tried, latest first
    SignIns(list::SignIns),
    /// Turn off the second factor of somebody who lost it, and end their sessions; make sure first who asks
    ResetTwoFactor(User),
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add {
            email,
            name,
            role,
            customer,
            data,
        } => add(&email, &name, role, customer, &data).await,
        Command::List(list) => list.run().await,
        Command::Show(show) => show.run().await,
        Command::Disable(user) => {
            let mut act = Act::begin(&user.data, &user.user).await?;
            auth::disable(&mut act.transaction, act.id, act.by).await?;
            act.commit("disabled; every session was ended").await
        }
        Command::Enable(user) => {
            let mut act = Act::begin(&user.data, &user.user).await?;
            auth::enable(&mut act.transaction, act.id, act.by).await?;
            act.commit("enabled").await
        }
        Command::SetPassword(user) => set_password(&user).await,
        Command::ResetPassword(user) => {
            let (config, _) = user.data.open_database().await?;
            let mut act = Act::begin(&user.data, &user.user).await?;
            auth::send_reset(&mut act.transaction, act.id, act.by).await?;
            if config.mail.smtp_url.is_none() {
                bail!("no mail is sent: set mail.smtp_url, or set a password with `ezscale user set-password`");
            }
            act.commit("a link to set a new password is on its way").await
        }
        Command::SetRole {
            user,
            role,
            customer,
            data,
        } => {
            let mut act = Act::begin(&data, &user).await?;
            auth::set_role(&mut act.transaction, act.id, role, customer, act.by).await?;
            act.commit(&format!("the role is {role}; every session was ended"))
                .await
        }
        Command::Sessions {
            sessions,
            revoke,
            revoke_all,
        } => {
            let ending = match &revoke {
                Some(name) => Ending::One(name),
                None if revoke_all => Ending::All,
                None => return sessions.run().await,
            };
            let mut act = Act::begin(&sessions.data, &sessions.user).await?;
            let ended = auth::end_sessions(&mut act.transaction, act.id, ending, act.by).await?;
            act.commit(&format!("sessions ended: {ended}")).await
        }
        Command::SignIns(sign_ins) => sign_ins.run().await,
        Command::ResetTwoFactor(user) => {
            let mut act = Act::begin(&user.data, &user.user).await?;
            auth::reset_second_factor(&mut act.transaction, act.id, act.by).await?;
            act.commit("the password alone signs in; every session was ended").await
        }
    }
}

/// A change of a user, in its transaction.
struct Act {
    transaction: Transaction<'static, Any>,
    id: UserId,
    name: String,
    by: Change<'static>,
}

impl Act {
    async fn begin(data: &Data, user: &str) -> anyhow::Result<Act> {
        let (_, database) = data.open_database().await?;
        let (id, by) = named(&database, user).await?;
        Ok(Act {
            transaction: database.begin_write().await?,
            id,
            name: user.to_owned(),
            by,
        })
    }

    async fn commit(self, what: &str) -> anyhow::Result<()> {
        self.transaction.commit().await?;
        say!("{}: {what}", self.name);
        Ok(())
    }
}

async fn named(database: &Database, user: &str) -> anyhow::Result<(UserId, Change<'static>)> {
    let by = Change {
        actor: COMMAND_LINE,
        now_ms: now_ms(database).await?,
    };
    Ok((auth::user_named(database.pool(), user).await?, by))
}

async fn add(email: &str, name: &str, role: Role, customer: Option<CustomerId>, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_or_create().await?;
    let password = read_password()?;
    let new = NewUser {
        email,
        name,
        role,
        customer,
        password: &password,
    };
    let id = portal::create_user(&database, &new, COMMAND_LINE).await?;
    say!("{id}");
    if let Some(customer) = customer {
        // A mail for the first user; later ones find the address verified, or ask on their account page.
        let now_ms = now_ms(&database).await?;
        let mut transaction = database.begin_write().await?;
        verification::request(&mut transaction, customer, now_ms).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn set_password(user: &User) -> anyhow::Result<()> {
    let (_, database) = user.data.open_database().await?;
    let (id, by) = named(&database, &user.user).await?;
    let password = read_password()?;
    auth::set_password(&database, id, &password, by).await?;
    say!("{}: the password is set; every session was ended", user.user);
    Ok(())
}

/// From the terminal without showing it, else one line of standard input. A password on the command line would be seen by
/// everybody on the machine.
fn read_password() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() {
        rpassword::prompt_password("password: ").context("read the password from the terminal")?
    } else {
        let mut line = String::new();
        stdin
            .lock()
            .read_line(&mut line)
            .context("read the password from standard input")?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.is_empty() {
        bail!("no password: type one, or pipe it in");
    }
    Ok(password)
}
