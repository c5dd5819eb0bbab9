//! `ezscale restore`: a backup into a new data folder.

use std::path::PathBuf;

use schemas::db::without_password;

use crate::backup::{self, Restore};
use crate::config::DatabaseUrl;
use crate::options::Data;
use crate::output::{byte_count, count};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// s3://bucket/prefix or the folder where the backups are
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// Which backup [default: the newest]
    #[arg(long)]
    name: Option<String>,
    /// Copy of the key file, to be put into the data folder
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Restore the database alone: the tables' files lie where `[storage]` in the configuration says
    #[arg(long)]
    without_tables: bool,
    #[command(flatten)]
    data: Data,
}

/// The options by which a command finds the configuration and database of this one, and whether the database's URL has a
/// password, which is not printed.
fn naming(data: &Data) -> (String, bool) {
    let mut options = String::new();
    if let Some(path) = &data.config {
        options = format!(" --config {}", path.display());
    }
    let url = data.database.as_ref().map(DatabaseUrl::reveal);
    let with_password = url.is_some_and(|url| without_password(url) != url);
    if let Some(url) = url.filter(|_| !with_password) {
        options = format!("{options} --database '{url}'");
    }
    (options, with_password)
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.data.read_config()?;
    let kept_key = args.data.key_file(&config);
    let place = backup::open_place(&args.from, &config.backup)?;
    let asked = Restore {
        place: &place,
        name: args.name.as_deref(),
        config: &config,
        kept_key: &kept_key,
        key_file: args.key_file.as_deref(),
        without_tables: args.without_tables,
        now_ms: schemas::clock::machine_now_ms(),
    };
    let done = backup::restore(&asked).await?;
    let folder = config.data_dir.display();
    say!(
        "restored backup {} into {folder}: the database and {} of tables, {}",
        done.backup.name,
        count(done.files, "file"),
        byte_count(done.bytes)
    );
    if let Some(account) = &done.given_to {
        say!(
            "the folder is {account}'s, as the empty one was: run commands on it as {account}, `sudo -u {account} ezscale …`"
        );
    }
    say!("what to check next:");
    if let Some(key) = done.missing_keys.first() {
        say!("  put the key file with the key {key} at {folder}/secrets.key, or name it in [secrets] key_file");
    }
    say!("  the configuration: the backup holds it without secrets, as configuration.toml");
    let (named, with_password) = naming(&args.data);
    if with_password {
        say!("  set EZSCALE_DATABASE to the database's URL with its password: what follows goes by it");
    }
    say!("  ezscale ledger check{named} --data-dir {folder}");
    say!("  ezscale invoice check --all{named} --data-dir {folder}");
    say!(
        "  payments since {}: what gateways were asked for after that is unknown here; under way then: {}",
        done.backup.created_at,
        count(done.open_payments, "payment")
    );
    match done.last_invoices.as_slice() {
        [] => say!("  the backup holds no invoices"),
        numbers => say!(
            "  invoices: the last are {}; numbers that were issued after them are issued again",
            numbers.join(", ")
        ),
    }
    say!(
        "  sign-in: passwords, sessions and API tokens are those of {}; what was changed or revoked since is to be again",
        done.backup.created_at
    );
    say!(
        "  to send: {} by mail or webhook, some of which may have been sent after the backup",
        count(done.waiting_deliveries, "message")
    );
    say!(
        "  exporters: templates, sampling rates and sequence numbers are learned again; what was sent since is missing"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_check_is_told_for_the_database_that_was_restored() {
        let data = |config: Option<&str>, database: Option<&str>| Data {
            config: config.map(PathBuf::from),
            data_dir: None,
            database: database.map(|url| url.parse().unwrap()),
        };
        for (of, expected, with_password) in [
            (data(None, None), "", false),
            (data(Some("/etc/ez.toml"), None), " --config /etc/ez.toml", false),
            (
                data(None, Some("postgres://ez@db/new")),
                " --database 'postgres://ez@db/new'",
                false,
            ),
            (data(None, Some("postgres://ez:hush@db/new")), "", true),
        ] {
            assert_eq!(naming(&of), (expected.to_owned(), with_password), "{of:?}");
        }
    }
}
