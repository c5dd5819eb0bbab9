//! How a stored table lies on disk: Parquet files that a manifest names.
//!
//! ```text
//! <data_dir>/tables/<table>/MANIFEST           the log of commits; what it does not name does not exist
//!                          /LOCK               held while a commit is appended, by any process
//!                          /2026-11-21/<name>.parquet
//! ```
//!
//! A file is written beside its place, synced, renamed and its directory synced ([`write`]); then one commit names it
//! ([`manifest`]). A reader takes a [`Snapshot`] and sees each row once or, before the commit, not at all (F1). Files that
//! are no longer named stay for a grace time, so that running queries finish, and are then removed by
//! [`Table::vacuum`].

mod encode;
mod manifest;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use encode::{ColumnValues, Encoder, ROW_GROUP_ROWS, RowGroup};
pub use manifest::{Commit, FileEntry, ManifestError, Snapshot, Token};
pub use write::{WriteError, create_dir_synced, write_parquet, write_row_groups};

use crate::column::TableDef;

/// A stored table of a data directory. Clones share one cached snapshot.
#[derive(Clone, Debug)]
pub struct Table {
    def: &'static TableDef,
    dir: PathBuf,
    cache: Arc<Mutex<manifest::Cache>>,
}

impl Table {
    /// Opens (and creates where missing) the table's folder under `data_dir`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(data_dir: &Path, def: &'static TableDef) -> Result<Table, ManifestError> {
        let dir = data_dir.join("tables").join(def.name);
        create_dir_synced(&dir).map_err(|source| ManifestError::Io {
            path: dir.clone(),
            source,
        })?;
        Ok(Table {
            def,
            dir,
            cache: Arc::default(),
        })
    }

    pub fn def(&self) -> &'static TableDef {
        self.def
    }

    /// The folder that [`FileEntry::path`] is relative to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files as of now. Reads only what was appended since the last call.
    ///
    /// # Errors
    /// When the manifest cannot be read or is damaged before its end.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, ManifestError> {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.refresh(&self.dir)
    }

    /// Appends one commit under the table's lock. A commit whose [`Token`] was applied before changes nothing and answers
    /// `false`: a retry is safe.
    ///
    /// # Errors
    /// [`ManifestError::Conflict`] when a file to remove is not there any more (somebody else replaced it): take a new
    /// snapshot and decide again.
    pub fn commit(&self, commit: Commit) -> Result<bool, ManifestError> {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.commit(&self.dir, commit)
    }

    /// Removes files that no commit names and that are older than `grace`; answers how many.
    ///
    /// # Errors
    /// When the folder cannot be listed; a file that is already gone is no error.
    pub fn vacuum(&self, grace: std::time::Duration) -> Result<usize, ManifestError> {
        let snapshot = self.snapshot()?;
        write::vacuum(&self.dir, &snapshot, grace)
    }
}
