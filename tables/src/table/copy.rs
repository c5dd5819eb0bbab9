//! The manifest's copy beside files that lie elsewhere, so that a lost machine's tables can be found again.
//!
//! * After every commit the whole manifest is written as `<url>/<table>/MANIFEST`. The local one is the truth: when the
//!   copy cannot be written the commit stands, and the copy follows with the next commit or the next round of
//!   housekeeping.
//! * A table whose local manifest is missing starts from the copy, and its data directory becomes the copy's owner.
//! * A copy is never replaced by anybody but its owner, nor by an older one: two data directories that share a URL, or
//!   one that came back from an old backup, are told apart by the copy's first line.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::manifest::{self, ManifestError, Snapshot};
use super::storage::Storage;
use super::{Table, io_error};

/// Enough for the first line of a copy.
const COPY_MARK_BYTES: u64 = 512;

/// `tables/STORAGE`: where the files lie, and the name under which this data directory owns the copies there.
#[derive(Serialize, Deserialize)]
struct Marker {
    url: String,
    owner: String,
}

/// Checks that the files still lie where they did; answers the owner's name where they lie apart.
pub(super) fn check_place(storage: &Storage) -> Result<Option<String>, ManifestError> {
    let folder = storage.tables_dir();
    let path = folder.join("STORAGE");
    let moved = |recorded: String| ManifestError::Moved {
        recorded,
        wanted: storage.url(),
        marker: path.clone(),
    };
    let read = || match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Marker>(&bytes)
            .map(Some)
            .map_err(|error| io_error(&path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(&path)(source)),
    };
    let mut marker = read()?;
    if marker.is_none() && storage.is_apart() {
        let _lock = manifest::lock(&folder.join("STORAGE.lock"))?;
        marker = read()?;
        if marker.is_none() {
            if has_manifests(&folder) {
                return Err(moved(folder.display().to_string()));
            }
            let new = Marker {
                url: storage.url(),
                owner: random_name(),
            };
            let text = serde_json::to_vec(&new).map_err(|error| io_error(&path)(error.into()))?;
            let temporary = folder.join("STORAGE.new");
            std::fs::write(&temporary, text)
                .and_then(|()| std::fs::File::open(&temporary)?.sync_all())
                .and_then(|()| std::fs::rename(&temporary, &path))
                .and_then(|()| std::fs::File::open(&folder)?.sync_all())
                .map_err(io_error(&path))?;
            marker = Some(new);
        }
    }
    match marker {
        Some(marker) if marker.url != storage.url() => Err(moved(marker.url)),
        marker => Ok(marker.map(|marker| marker.owner)),
    }
}

fn has_manifests(folder: &Path) -> bool {
    crate::definitions::TABLES
        .iter()
        .any(|table| folder.join(table.name).join("MANIFEST").exists())
}

/// The standard library's source of random numbers, which seeds its hash maps.
fn random_name() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!("{:016x}", RandomState::new().hash_one("owner"))
}

impl Table {
    fn copy_name(&self) -> String {
        self.name_of("MANIFEST")
    }

    /// Starts the local manifest where there is none, from the copy if there is one.
    pub(super) fn restore(&self) -> Result<(), ManifestError> {
        if self.owner.is_none() || self.dir.join("MANIFEST").exists() {
            return Ok(());
        }
        let name = self.copy_name();
        let location = self.storage.location(&name);
        {
            let _lock = manifest::lock(&self.dir.join("LOCK"))?;
            if self.dir.join("MANIFEST").exists() {
                return Ok(());
            }
            // "Not there" must be said by the storage itself: to start anew because it cannot be asked would hide
            // everything that is stored.
            let copy = match self.storage.get(&name) {
                Ok(content) => Some(snapshot_of_text(&location, &content)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(io_error(&location)(source)),
            };
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(snapshot) = copy else {
                return cache.start(&self.dir, None);
            };
            tracing::warn!(
                table = self.def.name,
                files = snapshot.files.len(),
                rows = snapshot.rows(),
                commit = snapshot.sequence,
                from = %location.display(),
                "no manifest in this data folder: restored from the copy beside the files"
            );
            cache.start(&self.dir, Some(snapshot))?;
        }
        self.write_copy(|_, _| Ok(()))
    }

    /// Brings the copy of the manifest up to date; answers whether there was something to do.
    ///
    /// # Errors
    /// When the storage cannot be reached; [`ManifestError::Foreign`] or [`ManifestError::Outdated`] when the copy must
    /// not be replaced by ours.
    pub fn copy_manifest(&self) -> Result<bool, ManifestError> {
        if self.owner.is_none() || self.copied.load(Ordering::Acquire) >= self.snapshot()?.sequence {
            return Ok(false);
        }
        self.write_copy(Table::check_copy)?;
        Ok(true)
    }

    /// The copy is ours and not newer than `snapshot`, or there is none.
    pub(super) fn check_copy(&self, snapshot: &Snapshot) -> Result<(), ManifestError> {
        let Some(owner) = &self.owner else { return Ok(()) };
        let name = self.copy_name();
        let path = self.storage.location(&name);
        let content = match self.storage.get_start(&name, COPY_MARK_BYTES) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(io_error(&path)(source)),
        };
        manifest::refuse_newer_copy(&path, &content)?;
        let Some(mark) = manifest::decode_copy_mark(&content) else {
            return Err(ManifestError::CopyDamaged { path });
        };
        if mark.owner != *owner {
            return Err(ManifestError::Foreign {
                path,
                owner: mark.owner,
            });
        }
        if mark.sequence > snapshot.sequence {
            return Err(ManifestError::Outdated {
                path,
                theirs: mark.sequence,
                ours: snapshot.sequence,
            });
        }
        Ok(())
    }

    fn write_copy(
        &self,
        check: impl FnOnce(&Table, &Snapshot) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        let Some(owner) = &self.owner else { return Ok(()) };
        // One at a time, in this process and others, so that an older copy never follows a newer one.
        let _lock = manifest::lock(&self.dir.join("COPY.lock"))?;
        let snapshot = self.snapshot()?;
        check(self, &snapshot)?;
        let name = self.copy_name();
        let text = manifest::encode_copy(&snapshot, owner);
        self.storage
            .put(&name, text.as_bytes())
            .map_err(io_error(&self.storage.location(&name)))?;
        self.copied.fetch_max(snapshot.sequence, Ordering::AcqRel);
        Ok(())
    }
}

/// A snapshot as a text for a backup: what a manifest would say that had come to it by one commit.
pub fn snapshot_text(snapshot: &Snapshot) -> String {
    manifest::encode_copy(snapshot, "backup")
}

/// What [`snapshot_text`] wrote to `path`.
///
/// # Errors
/// [`ManifestError::Newer`] when a newer program wrote it, [`ManifestError::CopyDamaged`] when it is damaged.
pub fn snapshot_of_text(path: &Path, text: &[u8]) -> Result<Snapshot, ManifestError> {
    manifest::refuse_newer_copy(path, text)?;
    manifest::decode_copy(text).ok_or_else(|| ManifestError::CopyDamaged { path: path.to_owned() })
}

impl Table {
    /// Begins a table that has no commit yet with a snapshot, whose files lie where they belong already.
    ///
    /// # Errors
    /// When the table has commits; when the manifest cannot be written; when a newer program wrote the files.
    pub fn begin_with(&self, snapshot: Snapshot) -> Result<(), ManifestError> {
        self.refuse_newer_files(&snapshot)?;
        {
            let _lock = manifest::lock(&self.dir.join("LOCK"))?;
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(path) = cache.refresh(&self.dir)?.files.keys().next() {
                return Err(ManifestError::Exists { path: path.clone() });
            }
            cache.start(&self.dir, Some(snapshot))?;
        }
        self.write_copy(|_, _| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Commit, FileEncoding, FileEntry, StorageConfig, Token};
    use super::*;
    use crate::flow::FLOWS;

    fn open(data_dir: &Path, files: &Path) -> Result<Table, ManifestError> {
        let config = StorageConfig {
            url: Some(format!("file://{}", files.display())),
            ..StorageConfig::default()
        };
        Table::open(Storage::open(data_dir, &config).unwrap(), &FLOWS)
    }

    fn commit(table: &Table, number: u64) {
        let file = FileEntry {
            path: format!("1970-01-01/{number}.parquet"),
            rows: number,
            size_bytes: 1,
            min_time_ms: 0,
            max_time_ms: 0,
            sequence: 0,
            encoding: FileEncoding::Open,
        };
        let token = Token {
            writer: "journal".to_owned(),
            number,
        };
        let is_new = table
            .commit(Commit {
                token: Some(token),
                add: vec![file],
                ..Commit::default()
            })
            .unwrap();
        assert!(is_new);
    }

    #[test]
    fn f1_a_lost_machine_is_restored_from_the_copy() {
        let (old, new, files) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let table = open(old.path(), files.path()).unwrap();
        commit(&table, 1);
        commit(&table, 2);
        let restored = open(new.path(), files.path()).unwrap();
        assert_eq!(restored.snapshot().unwrap(), table.snapshot().unwrap());
        let token = Token {
            writer: "journal".to_owned(),
            number: 2,
        };
        let again = Commit {
            token: Some(token),
            ..Commit::default()
        };
        assert!(!restored.commit(again).unwrap(), "what was applied stays applied");
        commit(&restored, 3);
        assert_eq!(restored.snapshot().unwrap().rows(), 6);

        // The old machine was not lost after all: its own commits stand, but it neither takes the copy back nor removes
        // anything.
        commit(&table, 3);
        assert!(matches!(table.copy_manifest(), Err(ManifestError::Foreign { .. })));
        table.put("1970-01-01/unnamed.parquet", b"of the new machine").unwrap();
        assert!(matches!(
            table.vacuum(std::time::Duration::ZERO),
            Err(ManifestError::Foreign { .. })
        ));
        let third = tempfile::tempdir().unwrap();
        let copy = open(third.path(), files.path()).unwrap();
        assert_eq!(copy.snapshot().unwrap(), restored.snapshot().unwrap());
    }

    #[test]
    fn an_old_backup_does_not_replace_a_newer_copy() {
        let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let table = open(data.path(), files.path()).unwrap();
        commit(&table, 1);
        let manifest = table.dir().join("MANIFEST");
        let backup = std::fs::read(&manifest).unwrap();
        commit(&table, 2);
        commit(&table, 3);
        std::fs::write(&manifest, backup).unwrap();
        let reopened = open(data.path(), files.path()).unwrap();
        assert_eq!(reopened.snapshot().unwrap().sequence, 1);
        assert!(matches!(
            reopened.copy_manifest(),
            Err(ManifestError::Outdated { theirs: 3, ours: 1, .. })
        ));
    }

    #[test]
    fn files_do_not_move_by_a_changed_setting() {
        let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        commit(&open(data.path(), files.path()).unwrap(), 1);
        assert!(matches!(
            Table::open(data.path(), &FLOWS),
            Err(ManifestError::Moved { .. })
        ));
        let local = tempfile::tempdir().unwrap();
        commit(&Table::open(local.path(), &FLOWS).unwrap(), 1);
        assert!(matches!(
            open(local.path(), files.path()),
            Err(ManifestError::Moved { .. })
        ));
    }

    #[test]
    fn a_newer_copy_is_refused_and_left_as_it_is() {
        let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let table = open(data.path(), files.path()).unwrap();
        commit(&table, 1);
        let copy = files.path().join("flows/MANIFEST");
        let text = std::fs::read_to_string(&copy).unwrap();
        let (header, rest) = text.split_once('\n').unwrap();
        let json = header[9..].replace("\"format\":2", "\"format\":9");
        let newer = format!("{:08x} {json}\n{rest}", crc32fast::hash(json.as_bytes()));
        std::fs::write(&copy, &newer).unwrap();
        let fresh = tempfile::tempdir().unwrap();
        let refused = open(fresh.path(), files.path()).unwrap_err();
        assert!(refused.to_string().contains("manifest of format 9"), "{refused}");
        table.put("1970-01-01/unnamed.parquet", b"of the newer one").unwrap();
        assert!(matches!(
            table.vacuum(std::time::Duration::ZERO),
            Err(ManifestError::Newer(_))
        ));
        commit(&table, 2);
        assert!(matches!(table.copy_manifest(), Err(ManifestError::Newer(_))));
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), newer);
    }

    #[test]
    fn a_damaged_copy_is_told_and_not_taken_for_an_empty_table() {
        let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        commit(&open(data.path(), files.path()).unwrap(), 1);
        let copy = files.path().join("flows/MANIFEST");
        let whole = std::fs::read(&copy).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&copy, &whole[..cut]).unwrap();
            let fresh = tempfile::tempdir().unwrap();
            assert!(
                matches!(open(fresh.path(), files.path()), Err(ManifestError::CopyDamaged { .. })),
                "cut at {cut}"
            );
        }
    }
}
