//! `ezscale user`: who signs in. What changes a user has its checks and its entry in the audit log in `portal::auth`, as it has
//! from the portal.

mod list;
mod token;

use std::io::{BufRead as _, IsTerminal as _};

use activity::act::{Act, Note};
use activity::verification;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use portal::auth::{self, ChangeContext, ManagedChange, SessionsToEnd};
use portal::{NewUser, Role};
use schemas::ids::{CustomerId, UserId};
use sqlx::AnyConnection;
pub(crate) use token::Credential;

use super::audit;

use crate::operator;
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
    /// verified is mailed a link. Once there are two admins, another one waits until a second admin approves it
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
    /// Set a user's password, which is asked for or read from standard input; every session ends, and the user is notified by mail
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
    /// Tokens by which a user proves who they are, such as to `ezscale approval approve`
    Token(token::Args),
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
            let mut doing = UserChange::begin(&user.data, &user.user).await?;
            let (connection, id, by) = doing.parts();
            let managed = auth::disable(connection, id, by).await?;
            doing.conclude(managed, "disabled; every session was ended").await
        }
        Command::Enable(user) => {
            let mut doing = UserChange::begin(&user.data, &user.user).await?;
            let (connection, id, by) = doing.parts();
            let managed = auth::enable(connection, id, by).await?;
            doing.conclude(managed, "enabled").await
        }
        Command::SetPassword(user) => set_password(&user).await,
        Command::ResetPassword(user) => {
            let (config, _) = user.data.open_database().await?;
            let mut doing = UserChange::begin(&user.data, &user.user).await?;
            let (connection, id, by) = doing.parts();
            let note = auth::send_reset(connection, id, by).await?;
            if config.mail.smtp_url.is_none() {
                bail!("no mail is sent: set mail.smtp_url, or set a password with `ezscale user set-password`");
            }
            doing.commit(note, "a link to set a new password is on its way").await
        }
        Command::SetRole {
            user,
            role,
            customer,
            data,
        } => {
            let mut doing = UserChange::begin(&data, &user).await?;
            let (connection, id, by) = doing.parts();
            let managed = auth::set_role(connection, id, role, customer, by).await?;
            doing
                .conclude(managed, &format!("the role is {role}; every session was ended"))
                .await
        }
        Command::Sessions {
            sessions,
            revoke,
            revoke_all,
        } => {
            let ending = match &revoke {
                Some(name) => SessionsToEnd::One(name),
                None if revoke_all => SessionsToEnd::All,
                None => return sessions.run().await,
            };
            let mut doing = UserChange::begin(&sessions.data, &sessions.user).await?;
            let (ended, note) = auth::end_sessions(doing.act.connection(), doing.id, ending).await?;
            if ended == 0 {
                say!("{}: there are no sessions", doing.name);
                return Ok(());
            }
            doing.commit(note, &format!("sessions ended: {ended}")).await
        }
        Command::SignIns(sign_ins) => sign_ins.run().await,
        Command::Token(args) => token::run(args).await,
        Command::ResetTwoFactor(user) => {
            let mut doing = UserChange::begin(&user.data, &user.user).await?;
            let (connection, id, by) = doing.parts();
            let note = auth::reset_second_factor(connection, id, by).await?;
            doing
                .commit(note, "the password alone signs in; every session was ended")
                .await
        }
    }
}

/// An act on a user.
struct UserChange {
    act: Act,
    id: UserId,
    name: String,
}

impl UserChange {
    async fn begin(data: &Data, user: &str) -> anyhow::Result<UserChange> {
        let (_, database) = data.open_database().await?;
        Ok(UserChange {
            id: auth::user_named(database.pool(), user).await?,
            act: audit::begin(&database, now_ms(&database).await?).await?,
            name: user.to_owned(),
        })
    }

    fn parts(&mut self) -> (&mut AnyConnection, UserId, ChangeContext<'_>) {
        let now_ms = self.act.now_ms();
        let (connection, actor) = self.act.parts();
        (connection, self.id, ChangeContext { actor, now_ms })
    }

    /// Commits what was done, or that a second admin was asked.
    async fn conclude(self, managed: ManagedChange, what: &str) -> anyhow::Result<()> {
        match managed.commit(self.act).await? {
            None => say!("{}: {what}", self.name),
            Some(requested) => audit::print_approval_requested(requested),
        }
        Ok(())
    }

    async fn commit(self, note: Note, what: &str) -> anyhow::Result<()> {
        self.act.commit(note).await?;
        say!("{}: {what}", self.name);
        Ok(())
    }
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
    let checked = auth::check_user(&new).await?;
    let now_ms = now_ms(&database).await?;
    let mut act = audit::begin(&database, now_ms).await?;
    let (connection, by) = act.asking();
    let (id, managed) = auth::add_user(connection, &checked, by, now_ms).await?;
    if let Some(customer) = customer {
        // A mail for the first user; later ones find the address verified, or ask on their account page.
        verification::request(act.connection(), customer, now_ms).await?;
    }
    let waits = managed.commit(act).await?;
    say!("{id}");
    if let Some(requested) = waits {
        audit::print_approval_requested(requested);
    }
    Ok(())
}

async fn set_password(user: &User) -> anyhow::Result<()> {
    let (_, database) = user.data.open_database().await?;
    let id = auth::user_named(database.pool(), &user.user).await?;
    let password = read_password()?;
    let now_ms = now_ms(&database).await?;
    auth::set_password(&database, id, &password, operator::by(), now_ms).await?;
    say!("{}: the password is set; every session was ended", user.user);
    Ok(())
}

/// From the terminal twice without showing it, else one line of standard input. A password on the command line would be seen by
/// everybody on the machine.
fn read_password() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() {
        let ask = |prompt: &str| rpassword::prompt_password(prompt).context("read the password from the terminal");
        agreed(ask("password: ")?, &ask("the same again: ")?)?
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

/// What was typed twice without being seen.
fn agreed(first: String, second: &str) -> anyhow::Result<String> {
    if first != second {
        bail!("the two passwords differ: nothing was changed; try again");
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_typed_in_two_ways_is_refused() {
        assert_eq!(agreed("kettle".to_owned(), "kettle").unwrap(), "kettle");
        let refused = agreed("kettle".to_owned(), "kettel").unwrap_err().to_string();
        assert!(refused.contains("differ") && !refused.contains("kett"), "{refused}");
    }
}
