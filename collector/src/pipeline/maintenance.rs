//! Housekeeping beside the worker: hours compacted, unnamed files removed, manifests' copies brought up to date.
//!
//! On a thread of its own, so that storing segments never waits for it. What it changes it changes by commits that refuse
//! to undo anybody else's ([`compact`]), so it may also run in other processes at the same time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tables::table::Table;

use super::Shared;
use crate::sink::{CompactLimits, compact};

/// How often it looks for hours to compact and for copies to write.
const COMPACT_INTERVAL: Duration = Duration::from_secs(60);
/// How often files that nobody names any more are removed.
const VACUUM_INTERVAL: Duration = Duration::from_secs(600);
/// Such files stay so long, for queries that still read them.
pub const VACUUM_GRACE: Duration = Duration::from_secs(3_600);
/// How soon it notices that the collector stops.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

pub(super) struct Maintenance {
    shared: Arc<Shared>,
}

impl Maintenance {
    pub(super) fn new(shared: Arc<Shared>) -> Maintenance {
        Maintenance { shared }
    }

    /// Until the collector stops.
    pub(super) fn run(self) {
        let mut compacted_at = Instant::now();
        let mut vacuumed_at = Instant::now();
        while !self.is_stopping() {
            if compacted_at.elapsed() >= COMPACT_INTERVAL {
                self.compact();
                self.copy_manifests();
                compacted_at = Instant::now();
            }
            if vacuumed_at.elapsed() >= VACUUM_INTERVAL {
                self.vacuum();
                vacuumed_at = Instant::now();
            }
            std::thread::park_timeout(STOP_INTERVAL);
        }
    }

    fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    /// While there is something to do, one output at a time.
    fn compact(&self) {
        let limits = CompactLimits {
            quiet_ms: (self.shared.config.compact_after_seconds * 1_000) as i64,
            ..CompactLimits::default()
        };
        let older = CompactLimits { older: true, ..limits };
        for table in self.shared.tables.all() {
            while !self.is_stopping() && compacted(table, &limits) {}
            // Of what an older version wrote one output a round: what it replaces stays for the grace time, and a whole history at
            // once could fill the disk.
            if !self.is_stopping() {
                compacted(table, &older);
            }
        }
    }

    fn copy_manifests(&self) {
        for table in self.shared.tables.all() {
            if let Err(error) = table.copy_manifest() {
                let source = crate::error_chain(&error);
                tracing::error!(table = table.def().name, source, "manifest not copied beside the files");
            }
        }
    }

    fn vacuum(&self) {
        for table in self.shared.tables.all() {
            if let Err(error) = table.vacuum(VACUUM_GRACE) {
                let source = crate::error_chain(&error);
                tracing::warn!(table = table.def().name, source, "not vacuumed");
            }
        }
    }
}

/// Whether there was something to do.
fn compacted(table: &Table, limits: &CompactLimits) -> bool {
    let name = table.def().name;
    match compact(table, schemas::clock::machine_now_ms(), limits) {
        Ok(done) if done.files_removed == 0 => false,
        Ok(done) => {
            tracing::info!(
                table = name,
                files = done.files_removed,
                rows = done.rows,
                bytes_before = done.bytes_before,
                bytes_after = done.bytes_after,
                "compacted"
            );
            true
        }
        Err(error) => {
            let source = crate::error_chain(&error);
            tracing::warn!(table = name, source, "not compacted");
            false
        }
    }
}
