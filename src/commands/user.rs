//! `ezscale user`: who signs in.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use portal::{NewUser, Role};
use schemas::ids::CustomerId;

use crate::options::Data;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add somebody who signs in; the password is read from standard input
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
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Command::Add {
        email,
        name,
        role,
        customer,
        data,
    } = args.command;
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
    Ok(())
}

/// One line of standard input. A password on the command line would be seen by everybody on the machine.
fn read_password() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let mut stderr = std::io::stderr();
        write!(stderr, "password (shown as you type): ")?;
        stderr.flush()?;
    }
    let mut line = String::new();
    stdin
        .lock()
        .read_line(&mut line)
        .context("read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("no password on standard input: type one, or pipe it in");
    }
    Ok(password.to_owned())
}
