//! Writing a Parquet file so that it is whole or absent, and removing the ones nobody names.

use std::borrow::Borrow;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use parquet::errors::ParquetError;

use super::encode::{Encoder, ROW_GROUP_ROWS, RowGroup, file_writer};
use super::storage::{FileReader, FileWriter};
use super::{ManifestError, Table, io_error};

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("write {path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("encode {path}")]
    Parquet { path: PathBuf, source: ParquetError },
}

impl WriteError {
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> WriteError + '_ {
        |source| WriteError::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub fn parquet(path: &Path) -> impl Fn(ParquetError) -> WriteError + '_ {
        |source| WriteError::Parquet {
            path: path.to_owned(),
            source,
        }
    }
}

/// Writes batches of the table's schema to `path` (relative to the table's folder) and answers the size in bytes. Each
/// batch of up to [`ROW_GROUP_ROWS`] rows becomes a row group, a longer one several; batches may be made while they are written: one
/// at a time is held.
///
/// # Errors
/// As [`write_row_groups`].
pub fn write_parquet(
    table: &Table,
    path: &str,
    batches: impl IntoIterator<Item = impl Borrow<RecordBatch>>,
) -> Result<u64, WriteError> {
    let mut encoder: Option<Encoder> = None;
    let mut batches = batches.into_iter();
    let mut rest: Option<RecordBatch> = None;
    let groups = std::iter::from_fn(|| {
        let batch = match rest.take() {
            Some(batch) => batch,
            None => batches.find(|batch| batch.borrow().num_rows() > 0)?.borrow().clone(),
        };
        let rows = batch.num_rows().min(ROW_GROUP_ROWS);
        if rows < batch.num_rows() {
            rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        let encoder = match &mut encoder {
            Some(encoder) => encoder,
            None => match Encoder::new(table.def()) {
                Ok(made) => encoder.insert(made),
                Err(error) => return Some(Err(error)),
            },
        };
        Some(encoder.encode_batch(&batch.slice(0, rows)))
    });
    write_row_groups(table, path, groups)
}

/// Writes encoded row groups to `path` (relative to the table's folder) so that the file is whole or absent. Answers the size
/// in bytes. A file of that name is replaced, which is safe while no commit names it.
///
/// # Errors
/// On any failure, also of a row group, the file does not exist under its name, and what was written of it is removed: on a
/// full disk the journal needs that room.
pub fn write_row_groups(
    table: &Table,
    path: &str,
    groups: impl IntoIterator<Item = Result<RowGroup, ParquetError>>,
) -> Result<u64, WriteError> {
    let location = table.location(path);
    let parquet = WriteError::parquet(&location);
    let mut writer = file_writer(table.def(), table.create(path)?).map_err(&parquet)?;
    for group in groups {
        group.and_then(|group| group.append_to(&mut writer)).map_err(&parquet)?;
    }
    let file = writer.into_inner().map_err(&parquet)?;
    file.finish().map_err(WriteError::io(&location))
}

impl Table {
    /// Starts a file of the table; it exists under its name once [`FileWriter::finish`] has returned.
    ///
    /// # Errors
    /// When the folder or the file cannot be made.
    pub fn create(&self, path: &str) -> Result<FileWriter, WriteError> {
        self.storage
            .create(&self.name_of(path))
            .map_err(WriteError::io(&self.location(path)))
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// On any failure the file does not exist under its name.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<u64, WriteError> {
        let location = self.location(path);
        let mut file = self.create(path)?;
        file.write_all(content).map_err(WriteError::io(&location))?;
        file.finish().map_err(WriteError::io(&location))
    }

    /// A file of the table, for the Parquet reader.
    ///
    /// # Errors
    /// When it is not there ([`std::io::ErrorKind::NotFound`]) or cannot be read.
    pub fn read(&self, path: &str) -> std::io::Result<FileReader> {
        self.storage.open_file(&self.name_of(path))
    }

    /// Where a file is, for messages: a path or a URL.
    pub fn location(&self, path: &str) -> PathBuf {
        self.storage.location(&self.name_of(path))
    }

    /// See [`Table::vacuum`].
    pub(super) fn remove_unnamed(&self, grace: Duration) -> Result<usize, ManifestError> {
        let folder = self.def.name;
        let now_ms = schemas::clock::machine_now_ms();
        let before_ms = now_ms.saturating_sub(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        let old = self
            .storage
            .list_before(folder, before_ms)
            .map_err(io_error(&self.storage.location(folder)))?;
        if old.is_empty() {
            return Ok(0);
        }
        // Taken after the list: what was written before it and named meanwhile is named now.
        let snapshot = self.snapshot()?;
        let mut removed = 0;
        // Without a manifest nobody can say what is not named: one that was lost must not take the data with it.
        if snapshot.sequence == 0 {
            return Ok(removed);
        }
        self.check_copy(&snapshot)?;
        for name in old {
            let path = name.strip_prefix(folder).and_then(|path| path.strip_prefix('/'));
            if path.is_none_or(|path| snapshot.files.contains_key(path)) {
                continue;
            }
            match self.storage.remove(&name) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(io_error(&self.storage.location(&name))(source)),
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FLOWS, Flow, flows_to_batch};
    use crate::table::{Commit, FileEncoding, FileEntry};

    #[test]
    fn unnamed_files_are_removed_and_named_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        let batch = flows_to_batch(&[Flow::default()]);
        for path in ["1970-01-01/a.parquet", "1970-01-01/b.parquet"] {
            assert!(write_parquet(&table, path, [&batch]).unwrap() > 0);
        }
        let entry = FileEntry {
            path: "1970-01-01/a.parquet".to_owned(),
            rows: 1,
            size_bytes: 1,
            min_time_ms: 0,
            max_time_ms: 0,
            sequence: 0,
            encoding: FileEncoding::Open,
        };
        table
            .commit(Commit {
                add: vec![entry],
                ..Commit::default()
            })
            .unwrap();
        assert_eq!(table.vacuum(Duration::from_secs(3600)).unwrap(), 0, "young files stay");
        assert_eq!(table.vacuum(Duration::ZERO).unwrap(), 1);
        assert!(table.dir().join("1970-01-01/a.parquet").exists());
        assert!(!table.dir().join("1970-01-01/b.parquet").exists());

        std::fs::remove_file(table.dir().join("MANIFEST")).unwrap();
        let without_manifest = Table::open(dir.path(), &FLOWS).unwrap();
        assert_eq!(without_manifest.vacuum(Duration::ZERO).unwrap(), 0);
        assert!(
            table.dir().join("1970-01-01/a.parquet").exists(),
            "a lost manifest can be restored"
        );
    }

    #[test]
    fn a_file_that_could_not_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        // A folder where the file must go: everything succeeds but the rename.
        std::fs::create_dir_all(table.dir().join("1970-01-01/a.parquet/x")).unwrap();
        let batch = flows_to_batch(&[Flow::default()]);
        let error = write_parquet(&table, "1970-01-01/a.parquet", [&batch]).unwrap_err();
        assert!(matches!(error, WriteError::Io { .. }), "{error}");
        let left: Vec<_> = std::fs::read_dir(table.dir().join("1970-01-01")).unwrap().collect();
        assert_eq!(left.len(), 1, "only the folder: {left:?}");
    }

    #[test]
    fn a_put_file_can_be_read() {
        use parquet::file::reader::ChunkReader as _;
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        assert_eq!(table.put("1970-01-01/a.parquet", b"content").unwrap(), 7);
        let file = table.read("1970-01-01/a.parquet").unwrap();
        assert_eq!(file.get_bytes(3, 4).unwrap(), "tent");
        assert_eq!(
            table.read("1970-01-01/b.parquet").unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
