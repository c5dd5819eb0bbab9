//! Writing a Parquet file so that it is whole or absent, and removing the ones nobody names.

use std::borrow::Borrow;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use parquet::errors::ParquetError;

use super::encode::{Encoder, ROW_GROUP_ROWS, RowGroup, file_writer};
use super::{ManifestError, Snapshot, Table};
use crate::fault;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("write {path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("encode {path}")]
    Parquet { path: PathBuf, source: ParquetError },
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

/// Writes encoded row groups to `path` (relative to the table's folder): temporary file, sync, rename, sync of the folder.
/// Answers the size in bytes. A file of that name is replaced, which is safe while no commit names it.
///
/// # Errors
/// On any failure, also of a row group, the file does not exist under its name, and what was written of it is removed: on a
/// full disk the journal needs that room.
pub fn write_row_groups(
    table: &Table,
    path: &str,
    groups: impl IntoIterator<Item = Result<RowGroup, ParquetError>>,
) -> Result<u64, WriteError> {
    let written = write_and_rename(table, path, groups);
    if written.is_err() {
        // Where even this fails, the next attempt writes over it or vacuum removes it.
        let _ = std::fs::remove_file(temporary_path(&table.dir().join(path)));
    }
    written
}

fn temporary_path(target: &Path) -> PathBuf {
    target.with_extension("parquet.tmp")
}

fn write_and_rename(
    table: &Table,
    path: &str,
    groups: impl IntoIterator<Item = Result<RowGroup, ParquetError>>,
) -> Result<u64, WriteError> {
    let target = table.dir().join(path);
    let parent = target.parent().unwrap_or(table.dir()).to_owned();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::Io { path, source }
    };
    create_dir_synced(&parent).map_err(io(&parent))?;
    let temporary = temporary_path(&target);
    let parquet = |source| WriteError::Parquet {
        path: temporary.clone(),
        source,
    };
    let file = File::create(&temporary).map_err(io(&temporary))?;
    let mut writer = file_writer(table.def(), file).map_err(parquet)?;
    for group in groups {
        group.and_then(|group| group.append_to(&mut writer)).map_err(parquet)?;
    }
    let file = writer.into_inner().map_err(parquet)?;
    let size_bytes = file.metadata().map_err(io(&temporary))?.len();
    fault::at("parquet.written");
    file.sync_all().map_err(io(&temporary))?;
    fault::at("parquet.synced");
    std::fs::rename(&temporary, &target).map_err(io(&target))?;
    fault::at("parquet.renamed");
    File::open(&parent)
        .and_then(|dir| dir.sync_all())
        .map_err(io(&parent))?;
    Ok(size_bytes)
}

/// Makes a folder, and those above it, where they are missing; their names are synced, so that what is synced in them is
/// found after a power cut.
///
/// # Errors
/// When one cannot be made, or is a file.
pub fn create_dir_synced(dir: &Path) -> std::io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    create_dir_synced(parent)?;
    match std::fs::create_dir(dir) {
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    File::open(parent)?.sync_all()
}

/// See [`Table::vacuum`].
pub(super) fn vacuum(dir: &Path, snapshot: &Snapshot, grace: Duration) -> Result<usize, ManifestError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ManifestError::Io { path, source }
    };
    let mut removed = 0;
    // Without a manifest nobody can say what is not named: one that was lost must not take the data with it.
    if snapshot.sequence == 0 {
        return Ok(removed);
    }
    for folder in std::fs::read_dir(dir).map_err(io(dir))? {
        let folder = folder.map_err(io(dir))?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder).map_err(io(&folder))? {
            let path = file.map_err(io(&folder))?.path();
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            let old = path
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= grace));
            if !old || snapshot.files.contains_key(&name) {
                continue;
            }
            match std::fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(ManifestError::Io { path, source }),
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FLOWS, Flow, flows_to_batch};
    use crate::table::{Commit, FileEntry};

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
    fn folders_are_made_once_and_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir_synced(&deep).unwrap();
        create_dir_synced(&deep).unwrap();
        assert!(deep.is_dir());
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for path in [file.clone(), file.join("below")] {
            assert!(create_dir_synced(&path).is_err(), "{}", path.display());
        }
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
}
