//! Putting a backup back into an empty place.
//!
//! Everything is written beside the data folder and checked there; the last step gives it its name. Killed at any moment, there
//! is the whole folder or none, and the next restore begins anew.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use activity::act::{Act, Note};
use activity::audit::Risk;
use anyhow::{Context as _, bail};
use schemas::db::Database;
use schemas::fault;
use schemas::file_format::PROGRAM_VERSION;
use schemas::secret::KeyFile;
use tables::table::{Storage, StorageConfig, Table, create_dir_synced, snapshot_of_text};

use super::manifest::{Backup, DatabaseKind, read};
use super::verify::disagreements;
use super::write::{DATABASE, INTERFACES, KEY, is_vacant};
use super::{TABLE_ORDER, copy, database};
use crate::config::{Config, DatabaseUrl};
use crate::database_note;
use crate::operator;
use crate::output::Progress;
use crate::private;

/// Held while a restore writes.
const RESTORING: &str = "RESTORING";
/// Numbers that others know, or that stored flows bear: those that were given out after the backup are not given out again.
const KNOWN_NUMBERS: [&str; 12] = [
    "customer",
    "service",
    "user",
    "subscription",
    "invoice",
    "payment",
    "payment_method",
    "refund",
    "webhook_endpoint",
    "event",
    "delivery",
    "approval",
];
/// How many are left out.
const NUMBERS_LEFT_OUT: i64 = 10_000;

/// What to restore, and where.
pub(crate) struct Restore<'a> {
    pub(crate) place: &'a Storage,
    /// The newest where absent.
    pub(crate) name: Option<&'a str>,
    pub(crate) config: &'a Config,
    /// Where the key file is, or will be: it may be kept apart from the data folder.
    pub(crate) kept_key: &'a KeyFile,
    /// A copy of the key file, to be put into the data folder.
    pub(crate) key_file: Option<&'a Path>,
    /// Leave the tables out: their files lie elsewhere still.
    pub(crate) without_tables: bool,
    pub(crate) now_ms: i64,
}

/// What was done.
pub(crate) struct Restored {
    pub(crate) backup: Backup,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Keys of its secrets that no key file was given for.
    pub(crate) missing_keys: Vec<String>,
    /// What waits to be sent, some of which may have been sent after the backup.
    pub(crate) waiting_deliveries: i64,
    /// Payments that were under way.
    pub(crate) open_payments: i64,
    /// The newest invoice numbers of each company that issues invoices.
    pub(crate) last_invoices: Vec<String>,
    /// The account that the folder was given to, where root restored into the empty folder of another.
    pub(crate) given_to: Option<String>,
}

/// The folder beside the data folder in which everything is made ready.
struct Staging {
    folder: PathBuf,
    /// Held until its end.
    _lock: File,
}

impl Staging {
    fn begin(data_dir: &Path) -> anyhow::Result<Staging> {
        let full = std::path::absolute(data_dir).with_context(|| format!("find {}", data_dir.display()))?;
        let (parent, name) = full
            .parent()
            .zip(full.file_name())
            .with_context(|| format!("{} cannot be a data folder", data_dir.display()))?;
        create_dir_synced(parent).with_context(|| format!("make {}", parent.display()))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".restoring");
        let folder = parent.join(hidden);
        let make = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(RESTORING))
        };
        let lock = make()
            // On a full disk there may be the folder alone.
            .inspect_err(|_| drop(std::fs::remove_dir(&folder)))
            .with_context(|| format!("make {}", folder.display()))?;
        if lock.try_lock().is_err() {
            bail!("another process restores into {}", data_dir.display());
        }
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.ends_with(RESTORING) {
                continue;
            }
            // Of a restore that was killed.
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(Staging { folder, _lock: lock })
    }

    /// Gives the folder its name.
    fn finish(self, data_dir: &Path) -> anyhow::Result<()> {
        let move_it = || {
            std::fs::remove_file(self.folder.join(RESTORING))?;
            File::open(&self.folder)?.sync_all()?;
            // Over an empty folder, or nothing: never over anything else.
            std::fs::rename(&self.folder, data_dir)?;
            let parent = self.folder.parent().unwrap_or(Path::new("."));
            File::open(parent)?.sync_all()
        };
        move_it().with_context(|| {
            format!(
                "give {} its name {}: where that is a mount point, restore into a folder below it",
                self.folder.display(),
                data_dir.display()
            )
        })
    }
}

/// Restores a backup; the data folder is whole when this returns, and not there before.
pub(crate) async fn restore(asked: &Restore<'_>) -> anyhow::Result<Restored> {
    let data_dir = asked.config.data_dir.as_path();
    if !is_vacant(data_dir)? {
        bail!(
            "{} is not empty: restore into a new folder, or move this one away",
            data_dir.display()
        );
    }
    let backup = read(asked.place, asked.name)?;
    if backup.schema_version > Database::known_version() {
        bail!(
            "backup {} has the schema version {}, and this ezscale {PROGRAM_VERSION} knows {} at most: use ezscale {} or newer",
            backup.name,
            backup.schema_version,
            Database::known_version(),
            backup.product_version
        );
    }
    check_targets(asked, &backup).await?;
    let staging = Staging::begin(data_dir)?;
    let filled = fill(asked, backup, &staging.folder).await;
    let done = filled.and_then(|mut done| {
        done.given_to = private::give_to_owner_of(data_dir, &staging.folder)?;
        Ok(done)
    });
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            // Nothing is left of what was not finished; on a full disk that is what gives the room back.
            let _ = std::fs::remove_dir_all(&staging.folder);
            return Err(error);
        }
    };
    fault::at("restore.checked");
    staging.finish(data_dir)?;
    Ok(done)
}

/// Refuses what could not be finished, or would overwrite something.
async fn check_targets(asked: &Restore<'_>, backup: &Backup) -> anyhow::Result<()> {
    let is_postgres = |url: &DatabaseUrl| url.reveal().starts_with("postgres");
    let url = asked.config.database.as_ref();
    match (backup.database, url.filter(|url| is_postgres(url))) {
        (DatabaseKind::Postgres, Some(url)) => database::refuse_full(url.reveal()).await?,
        (DatabaseKind::Postgres, None) => {
            bail!("the backup holds a PostgreSQL database: make an empty one (createdb) and name it with --database")
        }
        (DatabaseKind::Sqlite, Some(_)) => {
            bail!("the backup holds an SQLite database, and the configuration names PostgreSQL: leave that out")
        }
        (DatabaseKind::Sqlite, None) => {
            if let Some(url) = url {
                bail!(
                    "the backup holds an SQLite database, which is restored into the data folder: leave out database = \
                     \"{}\", restore, and move the file",
                    schemas::db::without_password(url.reveal())
                );
            }
        }
    }
    if backup.without_tables && !asked.without_tables {
        bail!("the backup holds no tables: restore it with --without-tables, the tables' files are elsewhere");
    }
    if !asked.without_tables && asked.config.storage.url.is_some() {
        let storage = Storage::open(&asked.config.data_dir, &asked.config.storage)?;
        for def in TABLE_ORDER {
            let files = storage
                .list(def.name)
                .with_context(|| format!("list {}", storage.url()))?;
            if files.keys().any(|name| name.ends_with("/MANIFEST")) {
                bail!(
                    "{} holds tables already: restore with --without-tables to continue with those, or name another storage.url",
                    storage.url()
                );
            }
        }
    }
    Ok(())
}

async fn fill(asked: &Restore<'_>, backup: Backup, staging: &Path) -> anyhow::Result<Restored> {
    let local = super::open_place(&staging.display().to_string(), &StorageConfig::default())?;
    private::mark(staging)?;
    let fetch = |part: &str, target: &str| -> anyhow::Result<bool> {
        let Some(sum) = backup.parts.get(part) else {
            return Ok(false);
        };
        copy::fetch(asked.place, &backup.part_name(part), sum, &local, target)?;
        Ok(true)
    };
    let is_sqlite = backup.database == DatabaseKind::Sqlite;
    let database_file = if is_sqlite { "ezscale.db" } else { "database.dump" };
    if !fetch(DATABASE, database_file)? {
        bail!("backup {} holds no database", backup.name);
    }
    let database_path = staging.join(database_file);
    match is_sqlite {
        true => database::check_sqlite(&database_path).await?,
        false => database::check_dump(database_path.clone()).await?,
    }
    fetch(INTERFACES, &format!("collector/{INTERFACES}"))?;
    let missing_keys = restore_key(asked, &backup, staging, &fetch)?;
    let (mut files, mut bytes) = (0, 0);
    if !asked.without_tables {
        if let Some(problem) = disagreements(asked.place, &backup).pop() {
            bail!("{problem}");
        }
        restore_tables(asked, &backup, staging)?;
        (files, bytes) = (backup.table_files().count(), backup.table_bytes());
    }
    let url = match is_sqlite {
        true => Database::default_url(staging),
        false => {
            let url = asked.config.database_url();
            database::load(&url, database_path.clone()).await?;
            std::fs::remove_file(&database_path)?;
            database_note::write(staging, &url)?;
            url
        }
    };
    let database = Database::open(&url).await.context("open the restored database")?;
    let mut restored = Restored {
        backup,
        files,
        bytes,
        missing_keys,
        waiting_deliveries: 0,
        open_payments: 0,
        last_invoices: Vec::new(),
        given_to: None,
    };
    note(asked, &database, &mut restored).await?;
    database.pool().close().await;
    if is_sqlite {
        database::check_sqlite(&database_path).await?;
    }
    Ok(restored)
}

/// Puts the key file into the folder, where there is one; answers the keys that are still missing.
fn restore_key(
    asked: &Restore<'_>,
    backup: &Backup,
    staging: &Path,
    fetch: &impl Fn(&str, &str) -> anyhow::Result<bool>,
) -> anyhow::Result<Vec<String>> {
    let target = staging.join(KEY);
    let file = match asked.key_file {
        Some(path) => {
            std::fs::copy(path, &target).with_context(|| format!("copy the key file {}", path.display()))?;
            std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            KeyFile::new(&target)
        }
        None if fetch(KEY, KEY)? => KeyFile::new(&target),
        None => asked.kept_key.clone(),
    };
    let held = file.key_ids()?.unwrap_or_default();
    let missing: Vec<String> = backup
        .secret_keys
        .iter()
        .filter(|key| !held.contains(key))
        .cloned()
        .collect();
    if let (Some(key), Some(path)) = (missing.first(), asked.key_file) {
        bail!(
            "{} does not hold the key {key}, under which the backup's secrets are sealed: give the key file of its time",
            path.display()
        );
    }
    Ok(missing)
}

fn restore_tables(asked: &Restore<'_>, backup: &Backup, staging: &Path) -> anyhow::Result<()> {
    let storage = Storage::open(staging, &asked.config.storage)?;
    let files: Vec<_> = backup.table_files().collect();
    let progress = Progress::bytes("restoring tables", backup.table_bytes());
    let done = std::sync::atomic::AtomicU64::new(0);
    copy::each(files, |(table, path, file)| {
        let target = format!("{table}/{path}");
        copy::fetch(asked.place, &file.part.file_name(), &file.part, &storage, &target)?;
        fault::at("restore.file");
        let size = file.part.size_bytes;
        progress.set(done.fetch_add(size, std::sync::atomic::Ordering::Relaxed) + size);
        Ok(())
    })?;
    progress.clear();
    for def in TABLE_ORDER {
        let part = format!("tables/{}", def.name);
        let Some(sum) = backup.parts.get(part.as_str()) else {
            continue;
        };
        let name = backup.part_name(&part);
        copy::check(asked.place, &name, sum)?;
        let text = asked.place.get(&name)?;
        let snapshot = snapshot_of_text(&asked.place.location(&name), &text)?;
        Table::open(&storage, def)?.begin_with(snapshot)?;
    }
    Ok(())
}

/// Records the restore, and leaves out numbers that were given out after the backup.
async fn note(asked: &Restore<'_>, database: &Database, restored: &mut Restored) -> anyhow::Result<()> {
    let mut act = Act::begin(database, operator::by(), asked.now_ms).await?;
    for name in KNOWN_NUMBERS {
        sqlx::query("UPDATE sequences SET next_value = next_value + $1 WHERE name = $2")
            .bind(NUMBERS_LEFT_OUT)
            .bind(name)
            .execute(act.connection())
            .await?;
    }
    let count = |sql: &'static str| sqlx::query_scalar::<_, i64>(sql);
    restored.waiting_deliveries = count("SELECT count(*) FROM deliveries WHERE status = 'pending'")
        .fetch_one(act.connection())
        .await?;
    restored.open_payments =
        count("SELECT count(*) FROM payments WHERE state IN ('intent', 'unknown', 'requires_action', 'processing')")
            .fetch_one(act.connection())
            .await?;
    restored.last_invoices = sqlx::query_scalar(
        "SELECT i.number FROM invoices i WHERE i.id IN (SELECT max(id) FROM invoices WHERE number <> '' \
         GROUP BY entity_id, kind) ORDER BY i.number",
    )
    .fetch_all(act.connection())
    .await?;
    let backup = &restored.backup;
    let change = serde_json::json!({
        "from": asked.place.url(),
        "created_at": backup.created_at,
        "files": restored.files,
        "without_tables": asked.without_tables,
    });
    let note = Note::new("backup.restore", &backup.name).change(change);
    act.commit(note.risk(Risk::High)).await?;
    Ok(())
}
