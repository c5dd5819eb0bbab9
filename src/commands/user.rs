//! `ezscale user`: who signs in.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, bail};
use billing::audit::Risk;
use billing::verification;
use clap::Subcommand;
use portal::{NewUser, Role};
use schemas::ids::CustomerId;

use crate::options::{Data, now_ms};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add somebody who signs in; the password is asked for, or read from standard input. A customer whose address is not
    /// verified is mailed a link
    Add {
        #[arg(long)]
        email: String,
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
    /// Turn off the second factor of somebody who lost it, and end their sessions; make sure first who asks
    ResetTwoFactor {
        email: String,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (email, name, role, customer, data) = match args.command {
        Command::ResetTwoFactor { email, data } => return reset_two_factor(&email, &data).await,
        Command::Add {
            email,
            name,
            role,
            customer,
            data,
        } => (email, name, role, customer, data),
    };
    let (_, database) = data.open_database().await?;
    let password = read_password()?;
    let new = NewUser {
        email: &email,
        name: &name,
        role,
        customer,
        password: &password,
    };
    let id = portal::create_user(&database, &new).await?;
    println!("{id}");
    if let Some(customer) = customer {
        // A mail for the first user; later ones find the address verified, or ask on their account page.
        let now_ms = now_ms(&database).await?;
        let mut transaction = database.begin_write().await?;
        verification::request(&mut transaction, customer, now_ms).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn reset_two_factor(email: &str, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let mut transaction = database.begin_write().await?;
    let reset = portal::reset_two_factor(&mut transaction, email).await?;
    // Staff may see what is everybody's: the owner is told.
    let risk = match reset.role {
        Role::Customer => Risk::Normal,
        Role::Ops | Role::Finance | Role::Network | Role::Admin => Risk::High,
    };
    super::audit::note_risk(
        &mut transaction,
        "user.two_factor_reset",
        &reset.user.to_string(),
        serde_json::json!({ "email": email, "was_on_since_ms": reset.since_ms }),
        risk,
        now_ms,
    )
    .await?;
    transaction.commit().await?;
    println!("{email} signs in with the password alone; their sessions were ended");
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
