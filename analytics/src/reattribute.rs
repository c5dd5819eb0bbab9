//! Stored flows after a backdated change of assignments, own networks or metering points.
//!
//! The flows that ended in the range are judged again ([`Enricher::enrich`] is a function of the flow, the configuration
//! and the assignments). A file with changed rows is replaced by one that holds all its rows in their order; its commit
//! has a new sequence, which makes its windows dirty for the next [`crate::Analytics::refresh_usage`]. A file without
//! changed rows is left alone, so doing it again changes nothing.
//!
//! Each file is one commit. When a compaction replaces a file meanwhile, the range is looked at again: rows already judged
//! do not change a second time.

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::flow::{Flow, batch_to_flows, flows_to_batch};
use schemas::metering::Enricher;
use schemas::table::{Commit, FileEntry, ManifestError, Table, write_parquet};

use crate::store::unique_suffix;
use crate::{Analytics, AnalyticsError};

/// Rounds over the range when others replace files meanwhile.
const ATTEMPTS_MAX: u32 = 8;

/// What a re-attribution did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReattributeSummary {
    pub files_read: u64,
    pub files_rewritten: u64,
    /// Flows of the range that were judged.
    pub flows_judged: u64,
    /// Flows whose boundary, metering or service changed.
    pub flows_changed: u64,
}

impl Analytics {
    /// Judges the stored flows that ended in `[from_ms, to_ms)` again and rewrites the files whose rows change. Call
    /// [`Analytics::refresh_usage`] afterwards.
    ///
    /// # Errors
    /// When a file cannot be read or written. Files rewritten before that stay so; call it again.
    pub async fn reattribute(
        &self,
        enricher: &Enricher,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<ReattributeSummary, AnalyticsError> {
        let mut summary = ReattributeSummary::default();
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.store.flows.snapshot()?;
            let mut conflict = false;
            for file in snapshot.files_between(from_ms, to_ms) {
                match self
                    .reattribute_file(enricher, file, from_ms, to_ms, &mut summary)
                    .await
                {
                    Ok(()) => {}
                    Err(AnalyticsError::Manifest(ManifestError::Conflict { .. })) => conflict = true,
                    // A compaction replaced the file and its grace time is over.
                    Err(AnalyticsError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                        conflict = true;
                    }
                    Err(error) => return Err(error),
                }
            }
            if !conflict {
                return Ok(summary);
            }
        }
        Err(AnalyticsError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn reattribute_file(
        &self,
        enricher: &Enricher,
        file: &FileEntry,
        from_ms: i64,
        to_ms: i64,
        summary: &mut ReattributeSummary,
    ) -> Result<(), AnalyticsError> {
        let (table, path) = (self.store.flows.clone(), file.path.clone());
        let mut flows = tokio::task::spawn_blocking(move || read_flows(&table, &path)).await??;
        summary.files_read += 1;

        let mut changed = 0;
        let judged = |flow: &&mut Flow| flow.end_at_ms >= from_ms && flow.end_at_ms < to_ms;
        for flow in flows.iter_mut().filter(judged) {
            let before = *flow;
            enricher.enrich(flow);
            summary.flows_judged += 1;
            changed += u64::from(*flow != before);
        }
        if changed == 0 {
            return Ok(());
        }

        let (table, old) = (self.store.flows.clone(), file.clone());
        tokio::task::spawn_blocking(move || replace(&table, &old, &flows)).await??;
        summary.files_rewritten += 1;
        summary.flows_changed += changed;
        Ok(())
    }
}

fn read_flows(table: &Table, path: &str) -> Result<Vec<Flow>, AnalyticsError> {
    let file = table.read(path).map_err(|source| AnalyticsError::Open {
        path: table.location(path),
        source,
    })?;
    let mut flows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        flows.extend(batch_to_flows(&batch?)?);
    }
    Ok(flows)
}

/// Writes `flows` in place of the file `old` and commits that.
fn replace(table: &Table, old: &FileEntry, flows: &[Flow]) -> Result<(), AnalyticsError> {
    let path = next_name(&old.path, old.sequence);
    let batches: Vec<RecordBatch> = flows.chunks(1 << 16).map(flows_to_batch).collect();
    let size_bytes = write_parquet(table, &path, &batches)?;
    table.commit(Commit {
        add: vec![FileEntry {
            path,
            size_bytes,
            sequence: 0,
            ..old.clone()
        }],
        remove: vec![old.path.clone()],
        ..Commit::default()
    })?;
    Ok(())
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
