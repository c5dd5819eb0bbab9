//! `ezscale backup`: database and tables, to a folder or a bucket.

use activity::act::Note;
use activity::audit::Risk;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use tables::table::Storage;

use super::audit;
use crate::backup;
use crate::options::{Data, now_ms};
use crate::output::{Cell, Format, Listing, byte_count, bytes, count, number, text};

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    to: Place,
    /// Put the key file in too: then who has the backup can read the secrets
    #[arg(long)]
    with_key: bool,
    /// Leave the tables' files out, because what keeps them is backed up otherwise
    #[arg(long)]
    without_tables: bool,
    #[command(flatten)]
    data: Data,
}

/// Where backups are.
#[derive(clap::Args, Debug)]
pub(crate) struct Place {
    /// Where the backups are: s3://bucket/prefix or a folder [default: that of the configuration]
    #[arg(long, alias = "from", value_name = "PLACE")]
    to: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the backups
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        to: Place,
        #[command(flatten)]
        data: Data,
    },
    /// Read every byte of the backups and compare it with its checksum; fails when one is damaged
    Verify {
        /// Only this one
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        to: Place,
        #[command(flatten)]
        data: Data,
    },
    /// Remove old backups, and the files of tables that no other backup needs
    Prune {
        /// How many of the newest stay
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        #[command(flatten)]
        to: Place,
        #[command(flatten)]
        data: Data,
    },
}

impl Place {
    fn open(&self, data: &Data) -> anyhow::Result<Storage> {
        let config = data.read_config()?.backup;
        let to = self.to.as_ref().or(config.url.as_ref());
        let to = to.context(
            "no backup location: name it with --to PLACE, or set url in the [backup] section of the configuration",
        )?;
        backup::open_place(to, &config)
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        None => write(&args).await,
        Some(Command::List { format, to, data }) => list(&to.open(&data)?, format),
        Some(Command::Verify { name, to, data }) => {
            let place = to.open(&data)?;
            tokio::task::spawn_blocking(move || verify(&place, name.as_deref())).await?
        }
        Some(Command::Prune { keep, to, data }) => {
            let place = to.open(&data)?;
            let (_, database) = data.open_database().await?;
            let change = serde_json::json!({"after": {"keep": keep}});
            let begins = Note::new("backup.prune", place.url()).change(change);
            let keep = usize::try_from(keep)?;
            let (backups, files) = audit::in_steps(&database, now_ms(&database).await?, begins, async {
                let at_ms = schemas::clock::machine_now_ms();
                let removed = tokio::task::spawn_blocking(move || backup::prune(&place, keep, at_ms)).await??;
                let result = serde_json::json!({"backups_removed": removed.0, "files_removed": removed.1});
                Ok((removed, result))
            })
            .await?;
            say!(
                "{} removed, with {} of tables",
                count(backups, "backup"),
                count(files, "file")
            );
            Ok(())
        }
    }
}

async fn write(args: &Args) -> anyhow::Result<()> {
    let place = args.to.open(&args.data)?;
    let (config, database) = args.data.open_database().await?;
    let key_file = args.data.key_file(&config);
    let options = backup::Options {
        key_file: args.with_key.then_some(&key_file),
        with_tables: !args.without_tables,
    };
    let change = serde_json::json!({"after": {"with_key": args.with_key, "without_tables": args.without_tables}});
    // Whoever has the key can read every secret: the owner hears of it before it is written anywhere.
    let risk = if args.with_key { Risk::High } else { Risk::Normal };
    let begins = Note::new("backup.create", place.url()).change(change).risk(risk);
    let done = audit::in_steps(&database, now_ms(&database).await?, begins, async {
        let done = backup::write(&config, &database, &place, options, schemas::clock::machine_now())
            .await
            .with_context(|| format!("back up to {}", place.url()))?;
        let result = serde_json::json!({
            "name": done.backup.name,
            "files": done.backup.table_files().count(),
            "bytes": database_bytes_of(&done.backup) + done.backup.table_bytes(),
        });
        Ok((done, result))
    })
    .await?;
    let made = &done.backup;
    let database_bytes = database_bytes_of(made);
    say!("backup {} in {}, read back and compared", made.name, place.url());
    say!("  database  {}", byte_count(database_bytes));
    if args.without_tables {
        say!("  tables    left out");
    } else {
        say!(
            "  tables    {}, {}; {} of them new, {}",
            count(made.table_files().count(), "file"),
            byte_count(made.table_bytes()),
            done.copied_files,
            byte_count(done.copied_bytes)
        );
    }
    if made.has_key() {
        say!(
            "  key       {} is in it: who has this backup can read the secrets",
            key_file.path().display()
        );
    } else {
        say!(
            "  key       not in it: keep a copy of {} elsewhere (key {})",
            key_file.path().display(),
            made.secret_keys.join(", ")
        );
    }
    Ok(())
}

fn database_bytes_of(backup: &backup::Backup) -> u64 {
    backup.parts.get("database").map_or(0, |part| part.size_bytes)
}

fn list(place: &Storage, format: Format) -> anyhow::Result<()> {
    let mut listing = Listing::new([
        text("name"),
        text("version"),
        bytes("database_bytes").titled("database size"),
        number("table_files"),
        bytes("table_bytes").titled("table size"),
        text("has_key"),
    ]);
    for name in backup::list(place)? {
        match backup::read(place, Some(&name)) {
            Ok(made) => listing.row([
                name.into(),
                made.product_version.as_str().into(),
                database_bytes_of(&made).into(),
                made.table_files().count().into(),
                made.table_bytes().into(),
                made.has_key().into(),
            ]),
            Err(error) => listing.row([
                name.into(),
                format!("UNREADABLE: {error:#}").into(),
                Cell::Absent,
                Cell::Absent,
                Cell::Absent,
                Cell::Absent,
            ]),
        }
    }
    listing.print(format, &format!("no backups in {}", place.url()))
}

fn verify(place: &Storage, name: Option<&str>) -> anyhow::Result<()> {
    let found = backup::verify(place, name)?;
    for problem in &found.problems {
        say!("{problem}");
    }
    if found.backups == 0 {
        bail!("there is no backup in {}", place.url());
    }
    say!(
        "{}, {}, {}: {}",
        count(found.backups, "backup"),
        count(found.files, "file"),
        byte_count(found.bytes),
        count(found.problems.len(), "problem")
    );
    match found.problems.len() {
        0 => Ok(()),
        problems => bail!("{}: what is named above cannot be restored", count(problems, "problem")),
    }
}
