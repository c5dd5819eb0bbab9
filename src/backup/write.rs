//! Making a backup.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use schemas::db::{Backend, Database};
use schemas::fault;
use schemas::secret::{self, KeyFile};
use schemas::window::instant_text;
use tables::table::{FileEntry, RelativePath, Snapshot, Storage, Table, create_dir_synced, snapshot_text};

use super::copy::{self, check, store, sum};
use super::manifest::{Backup, DatabaseKind, FORMAT, Part, TableFile, TableName, list, manifest_name, read};
use super::{TABLE_ORDER, database};
use crate::config::Config;
use crate::output::Progress;

pub(super) const DATABASE: &str = "database";
pub(super) const INTERFACES: &str = "interfaces.json";
pub(super) const KEY: &str = "secrets.key";
const CONFIGURATION: &str = "configuration.toml";
/// How often the tables are looked at again because a file vanished while it was copied.
const ROUNDS: usize = 20;

/// What goes into a backup.
pub(crate) struct Options<'a> {
    /// The key file too: then who has the backup can read the secrets.
    pub(crate) key_file: Option<&'a KeyFile>,
    /// The tables' files.
    pub(crate) with_tables: bool,
}

/// What was done.
pub(crate) struct Written {
    pub(crate) backup: Backup,
    /// Files of tables that were not there from earlier backups.
    pub(crate) copied_files: u64,
    pub(crate) copied_bytes: u64,
}

/// Makes a backup beside whatever runs; it exists when this returns, and not before.
pub(crate) async fn write(
    config: &Config,
    database: &Database,
    place: &Storage,
    options: Options<'_>,
    now: Timestamp,
) -> anyhow::Result<Written> {
    let _lock = lock(place)?;
    let earlier = list(place)?;
    let name = free_name(&earlier, now);
    let written = gather(config, database, place, &options, &earlier, &name, now).await;
    if written.is_err() {
        // What is left of it only takes room: on a full disk, the room that is missing.
        remove_parts(place, &name);
    }
    written
}

/// One writer at a time in a folder; what earlier ones left behind is removed. Several may write to a bucket: they do not meet.
pub(super) fn lock(place: &Storage) -> anyhow::Result<Option<File>> {
    let Some(folder) = place.folder() else {
        return Ok(None);
    };
    create_dir_synced(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let path = folder.join("LOCK");
    let file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another process writes a backup to {}", folder.display());
    }
    remove_left(place, folder).context("remove what an earlier backup left")?;
    Ok(Some(file))
}

/// Removes half-written files, and backups that were never finished.
fn remove_left(place: &Storage, folder: &Path) -> anyhow::Result<()> {
    for name in place.list("files")?.keys().filter(|name| name.ends_with(".tmp")) {
        place.remove(name)?;
    }
    let complete = list(place)?;
    let backups = folder.join("backups");
    if is_vacant(&backups)? {
        return Ok(());
    }
    for entry in std::fs::read_dir(&backups)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_complete = complete.iter().any(|known| name.to_str() == Some(known));
        if !is_complete && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn free_name(earlier: &[String], now: Timestamp) -> String {
    let first = now.strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    let mut name = first.clone();
    for number in 2.. {
        if !earlier.contains(&name) {
            break;
        }
        name = format!("{first}-{number}");
    }
    name
}

fn remove_parts(place: &Storage, name: &str) {
    // The next backup removes what is left.
    if let Some(folder) = place.folder() {
        let _ = std::fs::remove_dir_all(folder.join(Backup::folder(name)));
        return;
    }
    for part in place.list(&Backup::folder(name)).unwrap_or_default().keys() {
        let _ = place.remove(part);
    }
}

async fn gather(
    config: &Config,
    database: &Database,
    place: &Storage,
    options: &Options<'_>,
    earlier: &[String],
    name: &str,
    now: Timestamp,
) -> anyhow::Result<Written> {
    let mut backup = Backup {
        format: FORMAT,
        name: name.to_owned(),
        created_at: instant_text(now.as_millisecond()),
        product_version: env!("CARGO_PKG_VERSION").to_owned(),
        schema_version: Database::known_version(),
        database: match database.backend() {
            Backend::Sqlite => DatabaseKind::Sqlite,
            Backend::Postgres => DatabaseKind::Postgres,
        },
        secret_keys: secret::recorded_keys(database.pool()).await?,
        without_tables: !options.with_tables,
        parts: BTreeMap::new(),
        tables: BTreeMap::new(),
    };
    // First of all: see the module.
    let part = store_database(config, database, place, &backup).await?;
    backup.parts.insert(RelativePath::try_from(DATABASE.to_owned())?, part);
    fault::at("backup.database");
    let (mut copied_files, mut copied_bytes) = (0, 0);
    if options.with_tables {
        let before = earlier.last().and_then(|last| match read(place, Some(last)) {
            Ok(before) => Some(before),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the backup before is not readable: everything is copied"
                );
                None
            }
        });
        let storage = config.open_storage()?;
        let target = place.clone();
        let tables = tokio::task::spawn_blocking(move || copy_tables(&storage, &target, before.as_ref())).await??;
        (copied_files, copied_bytes) = (tables.copied_files, tables.copied_bytes);
        for (table, text) in tables.manifests {
            put_part(
                place,
                &mut backup,
                &format!("tables/{}", table.as_str()),
                text.as_bytes(),
            )?;
        }
        backup.tables = tables.files;
    }
    let interfaces = config.data_dir.join("collector").join(INTERFACES);
    match std::fs::read(&interfaces) {
        Ok(content) => put_part(place, &mut backup, INTERFACES, &content)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", interfaces.display())),
    }
    put_part(place, &mut backup, CONFIGURATION, toml::to_string(config)?.as_bytes())?;
    if let Some(key_file) = options.key_file {
        let path = key_file.path();
        let content = std::fs::read(path).with_context(|| format!("read the key file {}", path.display()))?;
        put_part(place, &mut backup, KEY, &content)?;
    }
    fault::at("backup.complete");
    let manifest = manifest_name(name);
    place
        .put(&manifest, backup.text()?.as_bytes())
        .with_context(|| format!("write {}", place.location(&manifest).display()))?;
    if read(place, Some(name))? != backup {
        bail!("{} is not what was written", place.location(&manifest).display());
    }
    Ok(Written {
        backup,
        copied_files,
        copied_bytes,
    })
}

fn put_part(place: &Storage, backup: &mut Backup, part: &str, content: &[u8]) -> anyhow::Result<()> {
    let name = backup.part_name(part);
    let stored = store(content, place, &name)?;
    check(place, &name, &stored)?;
    backup.parts.insert(RelativePath::try_from(part.to_owned())?, stored);
    Ok(())
}

/// A file that is removed with its value.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is not there any more once it has its name.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the database into the backup: in a folder directly, for a bucket by way of a file in the data folder.
async fn store_database(
    config: &Config,
    database: &Database,
    place: &Storage,
    backup: &Backup,
) -> anyhow::Result<Part> {
    let name = backup.part_name(DATABASE);
    let url = config.database_url();
    let part = if let Some(folder) = place.folder() {
        let target = folder.join(&name);
        let parent = target.parent().unwrap_or(folder);
        create_dir_synced(parent).with_context(|| format!("make the folder {}", parent.display()))?;
        let new = Temporary(target.with_extension("tmp"));
        database::dump(database, &url, &new.0).await?;
        let finish = || {
            let file = File::open(&new.0)?;
            let part = sum(&file)?;
            file.sync_all()?;
            std::fs::rename(&new.0, &target)?;
            File::open(parent)?.sync_all()?;
            Ok::<Part, std::io::Error>(part)
        };
        finish().with_context(|| format!("write {}", target.display()))?
    } else {
        let new = Temporary(config.data_dir.join(format!("backup-{}.tmp", std::process::id())));
        // Of a process that was killed and had this number.
        let _ = std::fs::remove_file(&new.0);
        database::dump(database, &url, &new.0).await?;
        let file = File::open(&new.0).with_context(|| format!("read {}", new.0.display()))?;
        store(file, place, &name)?
    };
    check(place, &name, &part)?;
    Ok(part)
}

/// The tables as they were copied.
struct Tables {
    manifests: BTreeMap<TableName, String>,
    files: BTreeMap<TableName, BTreeMap<RelativePath, TableFile>>,
    copied_files: u64,
    copied_bytes: u64,
}

/// A file to be copied.
struct TableFileCopy<'a> {
    table: &'static str,
    entry: &'a FileEntry,
}

/// Copies what the tables hold now. Blocks meanwhile.
fn copy_tables(storage: &Storage, place: &Storage, before: Option<&Backup>) -> anyhow::Result<Tables> {
    let tables: Vec<Table> = TABLE_ORDER
        .into_iter()
        .map(|def| Table::open(storage, def))
        .collect::<Result<_, _>>()?;
    let stored = Mutex::new(place.list("files").context("list the files of earlier backups")?);
    let known: Mutex<BTreeMap<(&'static str, String), TableFile>> = Mutex::default();
    let (copied_files, copied_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    for _ in 0..ROUNDS {
        let mut snapshots: Vec<(&'static str, Arc<Snapshot>)> = Vec::new();
        for table in &tables {
            snapshots.push((table.def().name, table.snapshot()?));
        }
        let mut wanted = Vec::new();
        for (table, snapshot) in &snapshots {
            for entry in snapshot.files.values() {
                let is_known = same_file(&known, table, entry);
                let earlier = before.and_then(|before| before.file(table, &entry.path));
                let reused = earlier.filter(|file| is_same_file(file, entry) && has(&stored, &file.part));
                match (is_known, reused) {
                    (true, _) => {}
                    (false, Some(file)) => remember(&known, table, entry, file.part.clone()),
                    (false, None) => wanted.push(TableFileCopy { table, entry }),
                }
            }
        }
        let total = wanted.iter().map(|file| file.entry.size_bytes).sum();
        let progress = Progress::bytes("copying tables", total);
        let (has_vanished, done_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        copy::each(wanted, |TableFileCopy { table, entry }| {
            match copy_file(storage, place, &stored, table, entry)? {
                None => has_vanished.store(true, Ordering::Relaxed),
                Some((part, is_new)) => {
                    if is_new {
                        copied_files.fetch_add(1, Ordering::Relaxed);
                        copied_bytes.fetch_add(part.size_bytes, Ordering::Relaxed);
                    }
                    remember(&known, table, entry, part);
                }
            }
            progress.set(done_bytes.fetch_add(entry.size_bytes, Ordering::Relaxed) + entry.size_bytes);
            Ok(())
        })?;
        progress.clear();
        if has_vanished.into_inner() {
            continue;
        }
        let known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut done = Tables {
            manifests: BTreeMap::new(),
            files: BTreeMap::new(),
            copied_files: copied_files.into_inner(),
            copied_bytes: copied_bytes.into_inner(),
        };
        for (table, snapshot) in snapshots {
            let mut files = BTreeMap::new();
            for entry in snapshot.files.values() {
                if let Some(file) = known.get(&(table, entry.path.clone())) {
                    files.insert(RelativePath::try_from(entry.path.clone())?, file.clone());
                }
            }
            let table = TableName::try_from(table.to_owned())?;
            done.files.insert(table, files);
            done.manifests.insert(table, snapshot_text(&snapshot));
        }
        return Ok(done);
    }
    bail!("the tables change faster than they can be copied: {ROUNDS} times a file was gone before its turn")
}

type Known = Mutex<BTreeMap<(&'static str, String), TableFile>>;
type Stored = Mutex<BTreeMap<String, u64>>;

fn is_same_file(file: &TableFile, entry: &FileEntry) -> bool {
    file.rows == entry.rows
        && file.part.size_bytes == entry.size_bytes
        && (file.min_time_ms, file.max_time_ms) == (entry.min_time_ms, entry.max_time_ms)
        && file.sequence == entry.sequence
}

fn same_file(known: &Known, table: &'static str, entry: &FileEntry) -> bool {
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let file = known.get(&(table, entry.path.clone()));
    file.is_some_and(|file| is_same_file(file, entry))
}

fn has(stored: &Stored, part: &Part) -> bool {
    let stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
    stored.get(&part.file_name()) == Some(&part.size_bytes)
}

fn remember(known: &Known, table: &'static str, entry: &FileEntry, part: Part) {
    let file = TableFile {
        rows: entry.rows,
        min_time_ms: entry.min_time_ms,
        max_time_ms: entry.max_time_ms,
        sequence: entry.sequence,
        part,
    };
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert((table, entry.path.clone()), file);
}

/// Copies one file where it is not there yet; answers its sum and whether it is new, or `None` where it is gone.
fn copy_file(
    storage: &Storage,
    place: &Storage,
    stored: &Stored,
    table: &str,
    entry: &FileEntry,
) -> anyhow::Result<Option<(Part, bool)>> {
    let source = format!("{table}/{}", entry.path);
    let location = || format!("read {}", storage.location(&source).display());
    let file = match storage.open_file(&source) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(location),
    };
    let part = file.from_start().and_then(sum).with_context(location)?;
    if part.size_bytes != entry.size_bytes {
        bail!(
            "{} is damaged: it has {} bytes, and the table's manifest says {}",
            storage.location(&source).display(),
            part.size_bytes,
            entry.size_bytes
        );
    }
    let name = part.file_name();
    if has(stored, &part) {
        return Ok(Some((part, false)));
    }
    store(file.from_start().with_context(location)?, place, &name)?;
    check(place, &name, &part)?;
    let mut all = stored.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(name, part.size_bytes);
    drop(all);
    fault::at("backup.file");
    Ok(Some((part, true)))
}

/// Whether a path is an empty folder, or nothing at all.
pub(super) fn is_vacant(path: &Path) -> anyhow::Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
