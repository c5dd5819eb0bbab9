//! `ezscale db`: the schema of the database, and the formats of the files in the data folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use schemas::db::{Database, MigrationState, SchemaStatus};
use schemas::file_format::{FoundFormat, refuse_newer};
use tables::definitions::TABLES;
use tables::table::found_formats;

use crate::config::Config;
use crate::options::Data;
use crate::output::{Cell, Format, Listing, at, count, number, text};
use crate::{private, upgrade};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the schema version of the database and of this program, what would be applied, whether what was applied is what this
    /// program has, and the formats of the files in the data folder
    ///
    /// Nothing is changed. Tables show only those migrations that were not applied as they are; JSON and CSV show all. Exits with
    /// 1 when something was written by a newer program, or by one that was never released. See docs/upgrades.md.
    Status {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Apply the migrations that the database lacks; every command that opens it does so automatically
    Migrate {
        /// Only say what would be applied
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Status { format, data } => status(&data, format).await,
        Command::Migrate { dry_run, data } => migrate(&data, dry_run).await,
    }
}

const COLUMNS: usize = 8;

async fn status(data: &Data, format: Format) -> anyhow::Result<()> {
    let config = data.config_to_look_at()?;
    let schema = Database::schema_status(&config.database_url()).await?;
    let mut listing = Listing::new([
        text("kind"),
        text("name"),
        number("version").or("-"),
        number("known").or("-"),
        text("state"),
        text("program").or("-"),
        text("applied_at").only_data(),
        text("checksum").only_data(),
    ]);
    list_schema(&mut listing, &schema, format == Format::Table);
    let files = Files::find(data, &config);
    for (found, number) in &files.formats {
        let state = match found.found.cmp(&found.known) {
            std::cmp::Ordering::Less => "older, read",
            std::cmp::Ordering::Equal => "current",
            std::cmp::Ordering::Greater => "NEWER",
        };
        listing.row([
            found.kind.into(),
            name_of(&config.data_dir, &found.path, *number).into(),
            found.found.into(),
            found.known.into(),
            state.into(),
            Cell::Absent,
            Cell::Absent,
            Cell::Absent,
        ]);
    }
    listing.print(format, "")?;
    // In the words that whoever opens them hears.
    schema.check()?;
    for (found, _) in &files.formats {
        refuse_newer(found.kind, &found.path, found.found, found.known)?;
    }
    match files.unreadable.as_slice() {
        [] => Ok(()),
        unreadable => bail!("{}", unreadable.join("; ")),
    }
}

fn list_schema(listing: &mut Listing<COLUMNS>, schema: &SchemaStatus, is_short: bool) {
    let pending = schema.pending().count();
    let known = Database::known_version();
    let mut applied = schema.migrations.iter().filter(|one| one.applied_at_ms.is_some());
    // Before sums were recorded there is nothing to agree.
    let is_recorded = schema.version > 0 && applied.all(|one| one.checksum.is_some());
    let agrees = if is_recorded { ", every checksum agrees" } else { "" };
    let state = match (schema.exists, schema.check(), pending) {
        (false, ..) => "is made at the next start".to_owned(),
        (true, Err(_), _) if schema.version > known => "NEWER".to_owned(),
        (true, Err(_), _) => "FOREIGN".to_owned(),
        (true, Ok(()), 0) => format!("current{agrees}"),
        (true, Ok(()), pending) => format!("{} to apply{agrees}", count(pending, "migration")),
    };
    let last = schema.migrations.iter().rev().find(|one| one.applied_at_ms.is_some());
    listing.row([
        "database".into(),
        schema.url.as_str().into(),
        schema.version.into(),
        known.into(),
        state.into(),
        last.and_then(|last| last.program.clone()).into(),
        last.and_then(|last| last.applied_at_ms).map(at).into(),
        Cell::Absent,
    ]);
    for migration in &schema.migrations {
        if is_short && migration.state == MigrationState::Applied {
            continue;
        }
        listing.row([
            "migration".into(),
            migration.name.as_str().into(),
            migration.version.into(),
            Cell::Absent,
            migration.state.name().into(),
            migration.program.clone().into(),
            migration.applied_at_ms.map(at).into(),
            migration.checksum.clone().into(),
        ]);
    }
}

/// What a file of the data folder is called, and how many there are of it.
fn name_of(data_dir: &Path, path: &Path, number: usize) -> String {
    let name = path.strip_prefix(data_dir).unwrap_or(path).display();
    match number {
        1 => name.to_string(),
        _ => format!("{name} and {} more", number - 1),
    }
}

/// The files of a data folder that have a format.
#[derive(Default)]
struct Files {
    /// The first of its kind, folder and format, and how many there are.
    formats: Vec<(FoundFormat, usize)>,
    /// What could not be asked, with the reason.
    unreadable: Vec<String>,
}

impl Files {
    fn find(data: &Data, config: &Config) -> Files {
        let mut files = Files::default();
        files.add(private::found_format(&config.data_dir));
        for def in TABLES {
            files.add(found_formats(&config.data_dir, def).map_err(anyhow::Error::from));
        }
        files.add(collector::found_formats(&config.data_dir).map_err(anyhow::Error::from));
        files.add(data.key_file(config).found_format().map_err(anyhow::Error::from));
        files
    }

    /// Adds what was found; of the many segments of a journal those of one format once.
    fn add(&mut self, found: anyhow::Result<impl IntoIterator<Item = FoundFormat>>) {
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.unreadable.push(format!("{error:#}")),
        };
        let mut alike: BTreeMap<(&str, Option<PathBuf>, u32), usize> = BTreeMap::new();
        for one in found {
            let key = (one.kind, one.path.parent().map(Path::to_owned), one.found);
            match alike.get(&key) {
                Some(&at) => self.formats[at].1 += 1,
                None => {
                    alike.insert(key, self.formats.len());
                    self.formats.push((one, 1));
                }
            }
        }
    }
}

async fn migrate(data: &Data, dry_run: bool) -> anyhow::Result<()> {
    let config = match dry_run {
        true => data.config_to_look_at()?,
        false => data.config()?,
    };
    let before = Database::schema_status(&config.database_url()).await?;
    before.check()?;
    let pending: Vec<String> = before
        .pending()
        .map(|migration| format!("{:03} {}", migration.version, migration.name))
        .collect();
    if pending.is_empty() {
        say!("nothing to apply: the schema is current at version {}", before.version);
        return Ok(());
    }
    if dry_run {
        say!(
            "would be applied to {}, which is at version {}:",
            before.url,
            before.version
        );
        for title in &pending {
            say!("  {title}");
        }
        if before.version > 0 {
            say!("make a backup first, with the program that is installed now (docs/upgrades.md)");
            if let Some(because) = upgrade::hindrance(&config.data_dir) {
                say!("now it would be refused: {because}");
            }
        }
        return Ok(());
    }
    let database = upgrade::open(&config).await?;
    let Some(done) = database.upgrade() else {
        say!("nothing to apply: another process was faster");
        return Ok(());
    };
    if done.from == 0 {
        upgrade::audit(&database, done).await?;
    }
    for migration in &done.applied {
        say!("applied {}", upgrade::title(migration));
    }
    say!("the schema is at version {}, before at {}", done.to(), done.from);
    Ok(())
}
