//! Stored flows changed in place: what re-attribution ([`crate::reattribute`]) and corrections ([`crate::correct`]) share.
//!
//! * A file is read twice, batch by batch: to learn whether a row of it changes, and, where one does, to write a file that
//!   holds all its rows in their order. What is held in memory is a row group, whatever the size of the file.
//! * Each file is one commit, which replaces the old file and has a new sequence: its windows are dirty for the next
//!   [`crate::Analytics::refresh_usage`]. The new file's times cover the old one's too, so that windows out of which a
//!   flow has moved are computed anew as well.
//! * When a compaction replaces a file meanwhile, the range is looked at again. An edit that was made does not change a row
//!   a second time, so doing it again, after a crash too, changes nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use schemas::fault;
use tables::flow::{Flow, batch_to_flows, flows_to_batch};
use tables::table::{Commit, Encoder, FileEncoding, FileEntry, ManifestError, Table, write_row_groups};

use crate::store::parquet::unique_suffix;
use crate::{Analytics, AnalyticsError};

/// Rounds over the range when others replace files meanwhile.
const ATTEMPTS_MAX: u32 = 8;
/// Rows read, changed and written at once.
const BATCH_ROWS: usize = 1 << 16;

/// What is done to stored flows.
pub(crate) trait Edit: Send + Sync + 'static {
    /// Changes a flow, or leaves it as it is; answers whether it was one to look at.
    fn edit(&self, flow: &mut Flow) -> bool;

    /// Told of each flow that was looked at, before and after, where nothing is written.
    fn saw(&self, _before: &Flow, _after: &Flow) {}
}

/// What a rewrite did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct RewriteSummary {
    pub files_read: u64,
    pub files_rewritten: u64,
    /// Flows that were looked at.
    pub flows_judged: u64,
    pub flows_changed: u64,
}

/// Whether files are replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rewrite {
    /// Nothing is written.
    Rehearse,
    Apply,
}

/// How far a rewrite has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RewriteProgress {
    pub files_done: usize,
    pub files_total: usize,
}

/// What changes in one file.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    judged: u64,
    changed: u64,
    min_time_ms: i64,
    max_time_ms: i64,
}

impl Analytics {
    /// Edits the stored flows of the files that may hold times of `[from_ms, to_ms)`.
    ///
    /// # Errors
    /// When a file cannot be read or written. Files rewritten before that stay so; call it again.
    pub(crate) async fn rewrite_flows(
        &self,
        edit: Arc<dyn Edit>,
        (from_ms, to_ms): (i64, i64),
        mode: Rewrite,
        progress: &(impl Fn(RewriteProgress) + Send + Sync),
    ) -> Result<RewriteSummary, AnalyticsError> {
        let mut summary = RewriteSummary::default();
        // Files that were looked at: in a further round only those that others made meanwhile are.
        let mut done: std::collections::HashSet<String> = std::collections::HashSet::new();
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.store.flows.snapshot()?;
            let files: Vec<FileEntry> = snapshot
                .files_between(from_ms, to_ms)
                .filter(|file| !done.contains(&file.path))
                .cloned()
                .collect();
            let mut conflict = false;
            let files_total = files.len();
            for (files_done, file) in files.into_iter().enumerate() {
                let (table, edit, path) = (self.store.flows.clone(), edit.clone(), file.path.clone());
                let rewritten = tokio::task::spawn_blocking(move || rewrite_file(&table, &file, &*edit, mode)).await?;
                match rewritten {
                    Ok((changes, new_path)) => {
                        summary.files_read += 1;
                        summary.flows_judged += changes.judged;
                        summary.flows_changed += changes.changed;
                        summary.files_rewritten += u64::from(changes.changed > 0);
                        done.insert(new_path.unwrap_or(path));
                    }
                    Err(AnalyticsError::Manifest(ManifestError::Conflict { .. })) => conflict = true,
                    // A compaction replaced the file and its grace time is over.
                    Err(AnalyticsError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                        conflict = true;
                    }
                    Err(error) => return Err(error),
                }
                progress(RewriteProgress {
                    files_done: files_done + 1,
                    files_total,
                });
            }
            if !conflict {
                return Ok(summary);
            }
        }
        Err(AnalyticsError::Contended { attempts: ATTEMPTS_MAX })
    }
}

/// Edits the flows of one file; answers what changed and, where it was replaced, the new file's path.
fn rewrite_file(
    table: &Table,
    file: &FileEntry,
    edit: &dyn Edit,
    mode: Rewrite,
) -> Result<(Changes, Option<String>), AnalyticsError> {
    let mut changes = Changes {
        min_time_ms: file.min_time_ms,
        max_time_ms: file.max_time_ms,
        ..Changes::default()
    };
    for batch in batches(table, &file.path)? {
        for flow in batch_to_flows(&batch?)? {
            let mut edited = flow;
            if !edit.edit(&mut edited) {
                continue;
            }
            changes.judged += 1;
            changes.changed += u64::from(edited != flow);
            changes.min_time_ms = changes.min_time_ms.min(edited.start_at_ms);
            changes.max_time_ms = changes.max_time_ms.max(edited.end_at_ms);
            if mode == Rewrite::Rehearse {
                edit.saw(&flow, &edited);
            }
        }
    }
    if changes.changed == 0 || mode == Rewrite::Rehearse {
        return Ok((changes, None));
    }

    let path = next_name(&file.path, file.sequence);
    let mut encoder = Encoder::new(table.def())?.lasting()?;
    let groups = batches(table, &file.path)?.map(|batch| {
        let mut flows = batch_to_flows(&batch.map_err(ParquetError::from)?)?;
        for flow in &mut flows {
            edit.edit(flow);
        }
        encoder.encode_batch(&flows_to_batch(&flows))
    });
    let size_bytes = write_row_groups(table, &path, groups)?;
    fault::at("rewrite.written");
    table.commit(Commit {
        add: vec![FileEntry {
            path: path.clone(),
            size_bytes,
            sequence: 0,
            min_time_ms: changes.min_time_ms,
            max_time_ms: changes.max_time_ms,
            encoding: FileEncoding::Open,
            ..file.clone()
        }],
        remove: vec![file.path.clone()],
        ..Commit::default()
    })?;
    fault::at("rewrite.committed");
    Ok((changes, Some(path)))
}

fn batches(
    table: &Table,
    path: &str,
) -> Result<impl Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>, AnalyticsError> {
    let file = table.read(path).map_err(|source| AnalyticsError::Open {
        path: table.location(path),
        source,
    })?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?
        .with_batch_size(BATCH_ROWS)
        .build()?)
}

/// `2026-11-21/name.parquet` of commit 7 becomes `2026-11-21/name-r7<writer>.parquet`, and that of commit 12 in turn
/// `2026-11-21/name-r12<writer>.parquet`.
fn next_name(path: &str, sequence: u64) -> String {
    let stem = path.strip_suffix(".parquet").unwrap_or(path);
    let original = stem
        .rsplit_once("-r")
        .filter(|(_, tail)| {
            tail.bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'p' || byte == b'x')
        })
        .map_or(stem, |(original, _)| original);
    format!("{original}-r{sequence}{}.parquet", unique_suffix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_grow() {
        let first = next_name("2026-11-21/a-round.parquet", 7);
        assert!(first.starts_with("2026-11-21/a-round-r7p"), "{first}");
        let second = next_name(&first, 12);
        assert!(second.starts_with("2026-11-21/a-round-r12p"), "{second}");
        assert!(!second.contains("-r7"), "{second}");
        assert_ne!(next_name(&first, 12), second);
    }
}
