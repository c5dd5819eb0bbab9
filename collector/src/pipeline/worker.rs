//! Closed segments to rows, in order.
//!
//! Storing a segment is a fixed list of steps: the tables' steps ([`crate::sink::Step`]), then the checkpoint for the next segment,
//! then the segment is deleted. A failed step is tried again with the rows at hand; a crash between any two steps is
//! repaired by doing all of them again from the checkpoint of that segment (F1).

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use schemas::address::Address;
use schemas::assignment::Assignments;
use schemas::fault;
use schemas::metering::MeteringConfig;
use tables::table::Token;

use super::checkpoint::Checkpoint;
use super::stage::Stage;
use super::{CollectorError, Shared};
use crate::counts::{CountKey, Counter};
use crate::journal::{Blocks, Journal, Record, read_file_into};
use crate::sink::{self, Prepared, Tables};
use crate::status::{self, CollectorStatus, Tracker};

/// Pause after a failed attempt.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The status is written after a segment, but not more often: with thousands of exporters it is long.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// And at least this often, also while nothing is received: who reads it tells by its age whether the collector runs.
const STATUS_HEARTBEAT: Duration = Duration::from_secs(10);
/// Nor does writing it take more than one part in so many of the worker's time.
const STATUS_SHARE: u32 = 20;
/// A failure that lasts is logged this often.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Attempts per segment when stopping.
const STOP_ATTEMPTS: u32 = 5;

/// What exporters said of interfaces and nobody has asked for yet.
const INTERFACES_WAITING_MAX: usize = 100_000;

/// Counts that belong to no exporter.
const NOBODY: CountKey = CountKey {
    exporter: Address::UNSPECIFIED,
    observation_domain: 0,
    protocol_version: 0,
};

/// Where a process goes on.
#[derive(Debug)]
pub(super) struct RecoveryPoint {
    pub(super) stage: Stage,
    /// The oldest segment that is not stored.
    pub(super) next_segment: u64,
    /// The number of the first segment that this process writes.
    pub(super) next_new_segment: u64,
    pub(super) backlog_bytes: u64,
}

/// Finds out what an earlier process left.
pub(super) fn recover(
    journal: &Journal,
    tables: &Tables,
    metering: MeteringConfig,
    assignments: Arc<Assignments>,
    encode_threads: usize,
) -> Result<RecoveryPoint, CollectorError> {
    let checkpoint = Checkpoint::load(journal.dir())?;
    let checkpoint_next = checkpoint.as_ref().map(|checkpoint| checkpoint.next_segment);
    for segment in journal.segments()? {
        // The checkpoint comes after the last commit, so such a segment only missed its deletion.
        if checkpoint_next.is_some_and(|next| segment.number < next) {
            journal.delete(segment.number)?;
        }
    }
    let segments = journal.segments()?;
    // A number that a table has seen is used up, whatever became of the journal's folder: rows under it would be taken
    // for a repeat.
    let used_up = tables.applied(journal.id())?;
    let newest = segments.last().map_or(0, |segment| segment.number);
    let next_new_segment = (newest.max(used_up) + 1).max(checkpoint_next.unwrap_or(1));
    let next_segment = segments.first().map_or(next_new_segment, |segment| segment.number);
    let stored = checkpoint_next.map_or(0, |next| next - 1);
    let known_to_flows = sink::applied(&tables.flows, journal.id())?;
    if stored > 0 && known_to_flows == 0 {
        return Err(CollectorError::TablesGone {
            segments: stored,
            folder: tables.flows.dir().to_owned(),
        });
    }
    if known_to_flows < stored {
        tracing::error!(
            stored,
            known_to_flows,
            "table flows is older than the journal (restored from a backup?): the segments between are not in it"
        );
    }
    if let Some(expected) = checkpoint_next
        && expected < next_segment
        && !segments.is_empty()
    {
        tracing::error!(expected, found = next_segment, "journal segments are missing");
    }
    let stage = match checkpoint {
        Some(checkpoint) => {
            let tracker = Tracker::restore(checkpoint.exporters, checkpoint.totals);
            Stage::restore(metering, assignments, encode_threads, checkpoint.decoders, tracker)
        }
        None => Stage::new(metering, assignments, encode_threads),
    };
    let stage = stage.map_err(|source| CollectorError::Thread {
        name: "encode".to_owned(),
        source,
    })?;
    if !segments.is_empty() {
        tracing::info!(
            segments = segments.len(),
            "storing what an earlier process left in the journal"
        );
    }
    Ok(RecoveryPoint {
        stage,
        next_segment,
        next_new_segment,
        backlog_bytes: segments.iter().map(|segment| segment.size_bytes).sum(),
    })
}

/// Decodes one segment on top of the state in `stage`; reads it into `room`, which is kept for the next one. `None` when there is no such segment.
pub(super) fn prepare(
    journal: &Journal,
    stage: &mut Stage,
    number: u64,
    room: &mut Vec<u8>,
) -> Result<Option<Prepared>, CollectorError> {
    let path = journal.segment_path(number);
    if !path.exists() {
        return Ok(None);
    }
    read_file_into(room, &path, number)?;
    let mut blocks = Blocks::new(room, journal.id(), number);
    let mut last_ms = None;
    for record in blocks.by_ref().flatten() {
        match record {
            Record::Datagram { datagram, .. } => {
                stage.push(&datagram);
                last_ms = Some(datagram.received_at_ms);
            }
            Record::Drops { drops, .. } => {
                stage.count(drops.at_ms, NOBODY, Counter::DroppedKernel, drops.kernel_dropped);
                stage.count(drops.at_ms, NOBODY, Counter::DroppedQueue, drops.queue_dropped);
                last_ms = Some(drops.at_ms);
            }
        }
    }
    if blocks.blocks_damaged > 0 {
        let at_ms = last_ms.unwrap_or_else(schemas::clock::machine_now_ms);
        stage.count(at_ms, NOBODY, Counter::JournalBlocksDamaged, blocks.blocks_damaged);
        tracing::error!(segment = %path.display(), blocks = blocks.blocks_damaged, "journal is damaged: datagrams are lost, check the disk");
    }
    if blocks.torn_bytes > 0 {
        let at_ms = last_ms.unwrap_or_else(schemas::clock::machine_now_ms);
        stage.count(at_ms, NOBODY, Counter::JournalBytesTorn, blocks.torn_bytes);
        tracing::warn!(segment = %path.display(), bytes = blocks.torn_bytes, "end of the segment was never acknowledged, ignored");
    }
    let token = Token {
        writer: journal.id().to_owned(),
        number,
    };
    let name = format!("{}-{number:010}", &journal.id()[..8]);
    Ok(Some(Prepared::new(token, &name, stage.take())))
}

/// Saves the state after `number`; from here on that segment is never decoded again.
pub(super) fn save_checkpoint(journal: &Journal, stage: &Stage, number: u64) -> Result<(), CollectorError> {
    let checkpoint = Checkpoint::new(
        number + 1,
        stage.decoder_checkpoint(),
        stage.exporters_without_domains(),
        stage.totals().clone(),
    );
    checkpoint.save(journal.dir())
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    stage: Stage,
    /// Where segments are read into.
    room: Vec<u8>,
    started_at_ms: i64,
    logged_at: Option<Instant>,
    /// The status as last written told of a stalled journal.
    told_stalled: bool,
    status_at: Cell<Instant>,
    /// How long the last one took.
    status_took: Cell<Duration>,
    /// Segments were stored since.
    status_is_stale: bool,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, stage: Stage) -> Worker {
        Worker {
            shared,
            stage,
            room: Vec::new(),
            started_at_ms: schemas::clock::machine_now_ms(),
            logged_at: None,
            told_stalled: false,
            status_at: Cell::new(Instant::now()),
            status_took: Cell::new(Duration::ZERO),
            status_is_stale: false,
        }
    }

    /// Stores segments until the journal hangs up and nothing is left.
    pub(super) fn run(mut self, closed: &Receiver<()>) {
        self.write_status();
        loop {
            if !self.store_closed_segments() {
                return;
            }
            match closed.recv_timeout(RETRY_INTERVAL) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    if std::mem::take(&mut self.status_is_stale) || self.heartbeat_is_due() {
                        self.write_status();
                    }
                    self.report_stall();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.store_closed_segments();
                    self.write_status();
                    return;
                }
            }
        }
    }

    /// Answers false when it gave up because the collector stops.
    fn store_closed_segments(&mut self) -> bool {
        loop {
            // Here everything is stored, or everything up to this segment.
            self.shared.stored.now();
            let number = self.shared.next_segment.load(Ordering::Acquire);
            if number > self.shared.closed_upto.load(Ordering::Acquire) {
                return true;
            }
            if !self.store_segment(number) {
                return false;
            }
            self.shared.next_segment.store(number + 1, Ordering::Release);
            self.status_is_stale = true;
            let interval = STATUS_INTERVAL.max(self.status_took.get() * STATUS_SHARE);
            if self.status_at.get().elapsed() >= interval {
                self.write_status();
                self.status_is_stale = false;
            }
        }
    }

    fn heartbeat_is_due(&self) -> bool {
        let interval = STATUS_HEARTBEAT.max(self.status_took.get() * STATUS_SHARE);
        self.status_at.get().elapsed() >= interval
    }

    fn store_segment(&mut self, number: u64) -> bool {
        self.take_new_metering();
        let shared = self.shared.clone();
        let path = shared.journal.segment_path(number);
        let size_bytes = path.metadata().map_or(0, |metadata| metadata.len());
        let Some(prepared) = self.retry(|worker| prepare(&shared.journal, &mut worker.stage, number, &mut worker.room))
        else {
            return false;
        };
        if let Some(prepared) = &prepared {
            let stored = self.retry(|_| Ok(shared.tables.store(prepared)?));
            if stored.is_none() {
                return false;
            }
            self.publish_interfaces();
            tracing::debug!(segment = number, flows = prepared.flow_rows(), "segment stored");
        } else {
            tracing::error!(segment = %path.display(), "journal segment is missing");
        }
        let finished = self.retry(|worker| {
            save_checkpoint(&shared.journal, &worker.stage, number)?;
            fault::at("checkpoint.saved");
            Ok(shared.journal.delete(number)?)
        });
        shared.backlog_bytes.fetch_sub(size_bytes, Ordering::Relaxed);
        finished.is_some()
    }

    /// Tries until it succeeds; `None` when it did not and the collector stops.
    fn retry<T>(&mut self, mut attempt: impl FnMut(&mut Worker) -> Result<T, CollectorError>) -> Option<T> {
        let mut attempts_when_stopping = 0;
        loop {
            match attempt(self) {
                Ok(value) => {
                    if self.shared.store_stalled.swap(false, Ordering::Relaxed) {
                        tracing::info!("storing resumed");
                        self.logged_at = None;
                    }
                    return Some(value);
                }
                Err(error) => {
                    self.shared.store_stalled.store(true, Ordering::Relaxed);
                    if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        tracing::error!(
                            folder = %self.shared.data_dir.display(),
                            source = crate::error_chain(&error),
                            advice = crate::durable::advice(&error),
                            "segment cannot be stored, it stays in the journal and is tried again"
                        );
                        self.logged_at = Some(Instant::now());
                        self.write_status();
                    }
                }
            }
            if self.shared.stopping.load(Ordering::Acquire) {
                attempts_when_stopping += 1;
                if attempts_when_stopping >= STOP_ATTEMPTS {
                    return None;
                }
            }
            std::thread::park_timeout(RETRY_INTERVAL);
        }
    }

    /// While the journal is stalled no segment comes whose end would write the status.
    fn report_stall(&mut self) {
        let stalled = self.shared.journal_stalled.load(Ordering::Relaxed);
        if stalled != self.told_stalled || (stalled && self.status_at.get().elapsed() >= LOG_INTERVAL) {
            self.told_stalled = stalled;
            self.write_status();
        }
    }

    /// Passes on what exporters said of their interfaces, as far as there is room: they say it again.
    fn publish_interfaces(&mut self) {
        let told = self.stage.take_interfaces();
        let mut waiting = self.shared.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        let room = INTERFACES_WAITING_MAX.saturating_sub(waiting.len());
        waiting.extend(told.into_iter().take(room));
    }

    fn take_new_metering(&mut self) {
        let new = self
            .shared
            .new_metering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((metering, assignments)) = new {
            self.stage.set_metering(metering, assignments);
        }
    }

    fn write_status(&self) {
        self.status_at.set(Instant::now());
        let status = CollectorStatus {
            written_at_ms: schemas::clock::machine_now_ms(),
            started_at_ms: self.started_at_ms,
            journal_id: self.shared.journal.id().to_owned(),
            next_segment: self.shared.next_segment.load(Ordering::Acquire),
            segments_waiting: self.shared.segments_waiting(),
            journal_stalled: self.shared.journal_stalled.load(Ordering::Relaxed),
            store_stalled: self.shared.store_stalled.load(Ordering::Relaxed),
            sockets: self.shared.socket_statuses(),
            exporters: self.stage.exporters(),
            totals: self.stage.totals().clone(),
        };
        // For people only: what it says is in the checkpoint too, and the next one is seconds away.
        if let Err(error) = status::write(&self.shared.data_dir, &status) {
            tracing::warn!(%error, "status not written");
        }
        self.status_took.set(self.status_at.get().elapsed());
    }
}
