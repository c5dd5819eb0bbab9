//! `ezscale secrets`: the key under which secrets are stored.

use activity::act::Note;
use activity::audit::Risk;
use anyhow::Context as _;
use clap::Subcommand;
use schemas::ids::EndpointId;
use schemas::{secret, secret_keys};

use super::audit;
use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, count, number, shown, text};
use crate::upgrade;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show where the key file is, its keys, and how many secrets each of them seals
    Status {
        #[command(flatten)]
        data: Data,
    },
    /// Replace the key: seal every secret under a new one, then remove the old. Everything may keep running; one that was
    /// interrupted is finished
    Rotate {
        #[command(flatten)]
        data: Data,
    },
    /// Give up the secrets whose key is lost: their users sign in with the password alone, their endpoints need a new secret
    Discard {
        /// Do it; without, only show what it would cost
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Status { data } => status(&data).await,
        Command::Rotate { data } => rotate(&data).await,
        Command::Discard { yes, data } => discard(&data, yes).await,
    }
}

/// Needs no key: this is where one looks when it is missing.
async fn status(data: &Data) -> anyhow::Result<()> {
    let config = data.config()?;
    let file = data.key_file(&config);
    let database = upgrade::open(&config).await?;
    let recorded = secret::recorded_keys(database.pool()).await?;
    let in_file = file.key_ids()?;
    say!("key file: {}", file.path().display());
    let mut keys = in_file.clone().unwrap_or_default();
    keys.extend(
        recorded
            .iter()
            .filter(|key| !keys.contains(key))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let mut listing = Listing::new(["key", "in_key_file", "state"].map(text));
    for key in &keys {
        let is_in_file = in_file.as_ref().is_some_and(|ids| ids.contains(key));
        let state = match (recorded.last() == Some(key), recorded.contains(key)) {
            (true, _) => "seals",
            (false, true) => "to be replaced",
            (false, false) => "unused",
        };
        listing.row([
            key.as_str().into(),
            if is_in_file { "yes" } else { "NO" }.into(),
            state.into(),
        ]);
    }
    listing.print(Format::Table, "no key: one is made at the next start")?;
    let mut listing = Listing::new([text("column"), text("key"), number("values")]);
    for column in database.secret_status().await? {
        for (key, values) in &column.sealed {
            listing.row([shown(column.column), key.as_str().into(), (*values).into()]);
        }
        if column.plain > 0 {
            listing.row([shown(column.column), "NOT SEALED".into(), column.plain.into()]);
        }
    }
    listing.print(Format::Table, "no secrets are stored")?;
    let missing = recorded
        .iter()
        .find(|key| !in_file.as_ref().is_some_and(|ids| ids.contains(key)));
    if let Some(key) = missing {
        anyhow::bail!(
            "the key {key} is not in {}: put the key file back from its copy; `ezscale secrets discard` says what its loss \
             would cost",
            file.path().display()
        );
    }
    if in_file.is_some_and(|ids| ids.len() > 1) {
        say!("a rotation was interrupted: run `ezscale secrets rotate` to finish it");
    }
    Ok(())
}

async fn rotate(data: &Data) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let file = data.key_file(&config);
    let now_ms = now_ms(&database).await?;
    let begins = Note::new("secrets.rotate", "secrets").risk(Risk::High);
    let done = audit::in_steps(&database, now_ms, begins, async {
        let done = secret_keys::rotate(&database, &file).await.context("rotate the key")?;
        let result = serde_json::json!({ "key": done.key, "removed": done.removed, "values": done.values,
            "resumed": done.is_resumed });
        Ok((done, result))
    })
    .await?;
    if done.is_resumed {
        say!("a rotation that was interrupted is finished; run it again for another key");
    }
    say!(
        "sealed under the new key {}: {}; removed: {}",
        done.key,
        count(done.values, "secret"),
        done.removed.join(", ")
    );
    say!(
        "copy {} to where its copy is kept; backups from before need the copy that was kept with them",
        file.path().display()
    );
    Ok(())
}

async fn discard(data: &Data, yes: bool) -> anyhow::Result<()> {
    let config = data.config()?;
    let file = data.key_file(&config);
    let database = upgrade::open(&config).await?;
    let now_ms = now_ms(&database).await?;
    let mut act = audit::begin(&database, now_ms).await?;
    let recorded = secret::recorded_keys(act.connection()).await?;
    let in_file = file.key_ids()?.unwrap_or_default();
    let is_intact = !in_file.is_empty() && recorded.iter().all(|key| in_file.contains(key));
    let lost = secret_keys::discard(act.connection(), &file, now_ms, true).await?;
    if is_intact && lost.users.is_empty() && lost.endpoints.is_empty() {
        say!(
            "the key in {} opens every secret: nothing would be lost, there is nothing to discard",
            file.path().display()
        );
        return Ok(());
    }
    let done = match yes {
        true => secret_keys::discard(act.connection(), &file, now_ms, false).await?,
        false => lost,
    };
    for email in &done.users {
        say!("{email}: the second factor is turned off, and sessions end");
    }
    for endpoint in &done.endpoints {
        say!(
            "{}: disabled until `ezscale webhook rotate` gives it a new secret and `webhook enable` follows",
            EndpointId(*endpoint)
        );
    }
    if !yes {
        say!("nothing was changed: add --yes to do it, if the key file is lost for good");
        return Ok(());
    }
    let note = Note::new("secrets.discard", &done.key)
        .change(serde_json::json!({ "endpoints": done.endpoints }))
        .personal(serde_json::json!({ "users": done.users }));
    act.commit(note.risk(Risk::High)).await?;
    say!(
        "the key {} seals from now on: keep a copy of {}",
        done.key,
        file.path().display()
    );
    Ok(())
}
