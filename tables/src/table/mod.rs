//! How a stored table lies on disk: Parquet files that a manifest names.
//!
//! ```text
//! <data_dir>/tables/<table>/MANIFEST           the log of commits; what it does not name does not exist
//!                          /LOCK               held while a commit is appended, by any process
//!                          /2026-11-21/<name>.parquet
//! ```
//!
//! A file is made whole or not at all ([`storage`]), in the folder or wherever `[storage]` says; then one commit names it
//! ([`manifest`]). A reader takes a [`Snapshot`] and sees each row once or, before the commit, not at all (F1). Files that
//! are no longer named stay for a grace time, so that running queries finish, and are then removed by
//! [`Table::vacuum`].

mod copy;
mod encode;
mod folder;
mod format;
mod manifest;
mod retain;
pub mod storage;
mod write;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

pub use copy::{snapshot_of_text, snapshot_text};
pub use encode::{EncodedColumn, Encoder, ROW_GROUP_ROWS, RowGroup, file_of};
pub use folder::create_dir_synced;
pub use format::found_formats;
pub use manifest::{Commit, FileEncoding, FileEntry, ManifestError, Snapshot, Token};
pub use retain::{
    RETAINED_FROM, RetentionConfig, RetentionError, RetentionLimits, RetentionPlan, UNBILLED_DAYS, retained_from_ms,
};
pub use storage::{FileReader, FileWriter, PathError, RelativePath, Storage, StorageConfig, StorageError};
pub use write::{WriteError, write_parquet, write_row_groups};

use crate::column::TableDef;

/// A stored table of a data directory. Clones share one cached snapshot.
#[derive(Clone, Debug)]
pub struct Table {
    def: &'static TableDef,
    /// Of the manifest; the files' too, unless the storage says otherwise.
    dir: PathBuf,
    storage: Storage,
    /// The name under which this data directory owns the manifests' copies; none where files and manifests lie together.
    owner: Option<String>,
    /// The copy is as of this commit at least.
    copied: Arc<AtomicU64>,
    cache: Arc<Mutex<manifest::Cache>>,
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> ManifestError + '_ {
    |source| ManifestError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Table {
    /// Opens (and creates where missing) the table of a storage, or of a data directory with its own files. A table whose
    /// files lie elsewhere and that has no manifest here is restored from the manifest's copy there.
    ///
    /// # Errors
    /// When the folder cannot be made, the files lie elsewhere than the storage says, or there is no manifest and the
    /// storage cannot say whether there is a copy.
    pub fn open(storage: impl Into<Storage>, def: &'static TableDef) -> Result<Table, ManifestError> {
        let storage = storage.into();
        let dir = storage.tables_dir().join(def.name);
        create_dir_synced(&dir).map_err(io_error(&dir))?;
        let owner = copy::check_place(&storage)?;
        let files = storage.location(def.name);
        storage.create_folder(def.name).map_err(io_error(&files))?;
        let table = Table {
            def,
            dir,
            storage,
            owner,
            copied: Arc::default(),
            cache: Arc::default(),
        };
        table.restore()?;
        Ok(table)
    }

    pub fn def(&self) -> &'static TableDef {
        self.def
    }

    /// The folder of the manifest, and of the files unless they lie elsewhere: read them with [`Table::read`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The storage's name of a file of this table.
    fn name_of(&self, path: &str) -> String {
        format!("{}/{path}", self.def.name)
    }

    /// The files as of now. Reads only what was appended since the last call.
    ///
    /// # Errors
    /// When the manifest cannot be read or is damaged before its end, or a newer program wrote it or the files.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, ManifestError> {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let snapshot = cache.refresh(&self.dir)?;
        self.refuse_newer_files(&snapshot)?;
        Ok(snapshot)
    }

    /// Appends one commit under the table's lock. A commit whose [`Token`] was applied before changes nothing and answers
    /// `false`: a retry is safe. Where files and manifest lie apart, the manifest's copy is written before this returns;
    /// a failure of that is logged, and the commit stands.
    ///
    /// # Errors
    /// [`ManifestError::Conflict`] when a file to remove is not there any more (somebody else replaced it): take a new
    /// snapshot and decide again.
    pub fn commit(&self, mut commit: Commit) -> Result<bool, ManifestError> {
        let is_new = {
            let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let before = cache.refresh(&self.dir)?;
            self.refuse_newer_files(&before)?;
            self.say_format(&before, &mut commit);
            cache.commit(&self.dir, commit)?
        };
        if is_new && let Err(error) = self.copy_manifest() {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(table = self.def.name, %error, cause, "manifest not copied beside the files, it is tried again");
        }
        Ok(is_new)
    }

    /// Removes files that no commit names and that are older than `grace`; answers how many.
    ///
    /// # Errors
    /// When the files cannot be listed, or belong to another data directory; a file that is already gone is no error.
    pub fn vacuum(&self, grace: std::time::Duration) -> Result<usize, ManifestError> {
        self.remove_unnamed(grace)
    }
}
