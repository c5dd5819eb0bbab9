//! Datagrams that somebody else keeps (a capture file, a simulation) through the same path as live ones: decode, enrich,
//! Parquet. There is no journal, because the source itself is the durable copy.
//!
//! * An import has a name. Importing the same datagrams again under the same name changes nothing, and an import that was
//!   cut off is completed by repeating it: files are cut at the same datagrams and committed under the same tokens (F1).
//! * Decoding runs on the caller's thread, encoding on one thread per processor, writing on another; at most
//!   [`QUEUE_ROW_GROUPS`] row groups wait to be written.
//! * An import may run beside a live collector: commits are serialised by each table's own lock.

mod pcap;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use schemas::assignment::Assignments;
use schemas::metering::MeteringConfig;
use schemas::window::DAY_MS;
use tables::table::{RowGroup, Storage, Token};

pub use pcap::{PortFilter, ReplayProgress, ReplaySummary, import_name, read_pcap_bytes, replay_pcap};

use crate::config::encode_threads_default;
use crate::counts::{Counter, Counts};
use crate::decode::Datagram;
use crate::pipeline::stage::Stage;
use crate::sink::{Prepared, StoreError, Tables, file_path};
use crate::status::{self, CollectorStatus};
use writer::{CommitTotals, FileWriter, Message};

/// Flows per file; a new UTC day starts a new file too.
pub const FILE_ROWS_MAX: u64 = 1_000_000;
/// Encoded row groups that may wait to be written.
pub const QUEUE_ROW_GROUPS: usize = 4;

/// Why an import failed. What was committed stays; repeating the import completes it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the writing thread cannot be started")]
    Thread { source: std::io::Error },
    #[error("the writing thread ended by a panic")]
    Panicked,
    #[error("status of the import not written")]
    Status { source: std::io::Error },
    #[error("capture {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("capture {path} is not a pcap or pcapng file, or is damaged after {packets} packets")]
    Capture {
        path: PathBuf,
        packets: u64,
        source: pcap_file::PcapError,
    },
}

/// What an import did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImportSummary {
    /// Everything counted.
    pub counts: Counts,
    /// Flow rows decoded.
    pub flows: u64,
    /// Files of flows, committed now or by an earlier run of the same import.
    pub files: u64,
    /// Of those, committed by an earlier run.
    pub files_known: u64,
}

impl ImportSummary {
    /// Sum of each counter that is not zero, in the order of [`Counter::ALL`].
    pub fn totals(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        let totals = Counter::ALL
            .iter()
            .map(|counter| (*counter, self.counts.total(*counter)));
        totals.filter(|(_, total)| *total > 0)
    }
}

/// An import that is being fed.
#[derive(Debug)]
pub struct Importer {
    data_dir: PathBuf,
    stage: Stage,
    writer_name: String,
    /// Number of the file being gathered.
    number: u64,
    day: i64,
    /// The file being gathered has datagrams.
    has_datagrams: bool,
    /// Its first batch was sent.
    is_open: bool,
    first_received_ms: i64,
    counts: Counts,
    flows: u64,
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<Result<CommitTotals, StoreError>>>,
}

impl Importer {
    /// Opens an import into the tables of a data directory. `name` tells repeats of one import from other imports.
    ///
    /// # Errors
    /// When the tables cannot be opened.
    pub fn open(
        storage: impl Into<Storage>,
        metering: MeteringConfig,
        assignments: Arc<Assignments>,
        name: &str,
    ) -> Result<Importer, ImportError> {
        let storage = storage.into();
        let tables = Tables::open(&storage)?;
        let (messages, queue) = crossbeam_channel::bounded(QUEUE_ROW_GROUPS);
        let thread = std::thread::Builder::new()
            .name("import-writer".to_owned())
            .spawn(move || FileWriter::new(tables, queue).run())
            .map_err(|source| ImportError::Thread { source })?;
        Ok(Importer {
            data_dir: storage.data_dir().to_owned(),
            stage: Stage::new(metering, assignments, encode_threads_default())
                .map_err(|source| ImportError::Thread { source })?,
            writer_name: format!("import:{name}"),
            number: 1,
            day: 0,
            has_datagrams: false,
            is_open: false,
            first_received_ms: 0,
            counts: Counts::default(),
            flows: 0,
            messages: Some(messages),
            thread: Some(thread),
        })
    }

    /// Takes one datagram. Times should rise, as a collector would see them.
    ///
    /// # Errors
    /// When a file could not be written: the import is over.
    pub fn push(&mut self, datagram: &Datagram<'_>) -> Result<(), ImportError> {
        let received_at_ms = datagram.received_at_ms;
        let day = received_at_ms.div_euclid(DAY_MS);
        // Only a later day: a datagram that is late around midnight must not cut a file each time.
        if self.has_datagrams && (day > self.day || self.stage.flow_rows() >= FILE_ROWS_MAX) {
            self.cut_file()?;
        }
        if !self.has_datagrams {
            self.has_datagrams = true;
            self.day = day;
            self.first_received_ms = received_at_ms;
        }
        self.stage.push(datagram);
        let groups = self.stage.take_row_groups();
        self.send_groups(groups)
    }

    fn token(&self) -> Token {
        Token {
            writer: self.writer_name.clone(),
            number: self.number,
        }
    }

    fn file_name(&self) -> String {
        format!(
            "import-{:08x}-{:06}",
            crc32fast::hash(self.writer_name.as_bytes()),
            self.number
        )
    }

    fn send_groups(&mut self, groups: Vec<RowGroup>) -> Result<(), ImportError> {
        for group in groups {
            let message = if self.is_open {
                Message::Group(group)
            } else {
                self.is_open = true;
                Message::File {
                    path: file_path(self.first_received_ms, &self.file_name()),
                    token: self.token(),
                    first: group,
                }
            };
            self.send(message)?;
        }
        Ok(())
    }

    fn cut_file(&mut self) -> Result<(), ImportError> {
        let mut gathered = self.stage.take();
        let groups = std::mem::take(&mut gathered.flows);
        self.send_groups(groups)?;
        for counts in gathered.windows.values() {
            self.counts.merge(counts);
        }
        self.flows += gathered.flow_rows;
        let prepared = Prepared::new(self.token(), &self.file_name(), gathered);
        self.send(Message::Finish(Box::new(prepared)))?;
        self.number += 1;
        self.is_open = false;
        self.has_datagrams = false;
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<(), ImportError> {
        let sent = self
            .messages
            .as_ref()
            .is_some_and(|messages| messages.send(message).is_ok());
        if sent {
            return Ok(());
        }
        // The writer hangs up only after an error: that error is the answer.
        self.join().and(Err(ImportError::Panicked))
    }

    fn join(&mut self) -> Result<CommitTotals, ImportError> {
        self.messages = None;
        let thread = self.thread.take().ok_or(ImportError::Panicked)?;
        Ok(thread.join().map_err(|_| ImportError::Panicked)??)
    }

    /// Writes and commits the rest. When it returns everything can be queried.
    ///
    /// # Errors
    /// When the rest could not be written.
    pub fn finish(mut self) -> Result<ImportSummary, ImportError> {
        if self.has_datagrams {
            self.stage.give_up_gaps();
            self.cut_file()?;
        }
        let done = self.join()?;
        // A repeat of a whole import is not shown twice; one that completes a cut-off import is shown whole, because
        // the status is written at the end only.
        if done.units > done.units_known {
            let status = CollectorStatus {
                exporters: self.stage.exporters(),
                totals: self.stage.totals().clone(),
                ..CollectorStatus::default()
            };
            status::add_import(&self.data_dir, &status).map_err(|source| ImportError::Status { source })?;
        }
        Ok(ImportSummary {
            counts: self.counts,
            flows: self.flows,
            files: done.files,
            files_known: done.files_known,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::test_support::{source, v5_datagram};
    use tables::flow::FLOWS;
    use tables::table::Table;

    /// An import of one datagram an hour, from 22:13 UTC on.
    fn fed(data_dir: &Path, datagrams: u32) -> Importer {
        let mut importer = Importer::open(data_dir, MeteringConfig::default(), Arc::default(), "test").unwrap();
        for i in 0..datagrams {
            let at_ms = 1_700_000_000_000 + i64::from(i) * 3_600_000;
            let payload = v5_datagram(i * 30, &[(100, 1); 30]);
            let datagram = Datagram {
                received_at_ms: at_ms,
                source: source(),
                source_port: 2055,
                payload: &payload,
            };
            importer.push(&datagram).unwrap();
        }
        importer
    }

    #[test]
    fn f1_a_repeated_import_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let first = fed(dir.path(), 30).finish().unwrap();
        assert_eq!((first.flows, first.files, first.files_known), (900, 3, 0));
        assert_eq!(first.counts.total(Counter::Datagrams), 30);
        assert!(first.totals().any(|total| total == (Counter::FlowRecords, 900)));
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        let snapshot = table.snapshot().unwrap();
        assert_eq!(snapshot.rows(), 900);
        let status = status::read(dir.path()).unwrap().unwrap();
        assert_eq!(status.totals["datagrams"], 30);
        assert_eq!(status.exporters[0].flows, 900);

        let again = fed(dir.path(), 30).finish().unwrap();
        assert_eq!((again.flows, again.files, again.files_known), (900, 3, 3));
        assert_eq!(table.snapshot().unwrap(), snapshot);
        assert_eq!(status::read(dir.path()).unwrap().unwrap(), status, "not shown twice");
    }

    #[test]
    fn f1_an_import_that_was_cut_off_is_completed_by_repeating_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut cut_off = fed(dir.path(), 20);
        cut_off.join().unwrap();
        drop(cut_off);
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        assert_eq!(table.snapshot().unwrap().rows(), 60, "the first day was complete");
        let summary = fed(dir.path(), 30).finish().unwrap();
        assert_eq!((summary.files, summary.files_known), (3, 1));
        assert_eq!(table.snapshot().unwrap().rows(), 900);
        assert_eq!(status::read(dir.path()).unwrap().unwrap().exporters[0].flows, 900);
    }
}
