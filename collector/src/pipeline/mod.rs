//! The collector: sockets, journal, worker.
//!
//! ```text
//! receive threads ──batches──▶ journal thread ──closed segments──▶ worker thread ──▶ tables, checkpoint, status
//!   one per socket   bounded      appends, syncs       on disk        decodes, stores, deletes
//! ```
//!
//! Only closed segments are decoded. What a running collector does, what a restart does with the segments it finds, and
//! what a repeated attempt after an error does is the same code on the same bytes, so it gives the same flows (F1).
//!
//! Nothing here waits for something behind it except through the journal on disk: when the tables cannot be written the
//! journal grows to `journal_max_bytes`; when the journal cannot be written the queue fills; when the queue is full
//! datagrams are dropped, and counted.

mod checkpoint;
mod encode;
mod journal_thread;
mod maintenance;
pub(crate) mod stage;
mod worker;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schemas::assignment::Assignments;
use schemas::file_format::{FoundFormat, NewerFormat};
use schemas::metering::MeteringConfig;
use tables::table::Storage;

use crate::config::{CollectorConfig, ConfigError};
use crate::decode::netflow::AnnouncedInterface;
use crate::journal::{Journal, JournalError};
use crate::receive::{self, ListenKind, Listening, QueueLevel, ReceiveLoop, SocketOptions, SocketStats};
use crate::sink::{StoreError, Tables};
use crate::status::SocketStatus;

use journal_thread::JournalThread;
use maintenance::Maintenance;
pub use maintenance::VACUUM_GRACE;
use worker::Worker;

/// Why the collector could not start or stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("checkpoint {path}")]
    Checkpoint { path: PathBuf, source: std::io::Error },
    #[error("cannot listen on {address} for {kind}")]
    Listen {
        kind: ListenKind,
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("thread {name} cannot be started")]
    Thread { name: String, source: std::io::Error },
    #[error("thread {name} ended by a panic: restart; what reached the journal is kept")]
    Panicked { name: String },
    #[error(
        "the journal has stored {segments} segments, but table flows in {folder} knows none of them: mount or restore that folder; to begin with empty tables, move the journal folder away too"
    )]
    TablesGone { segments: u64, folder: PathBuf },
    #[error("{segments} journal segments are not stored yet: they are kept, and stored at the next start")]
    NotDrained { segments: u64 },
    #[error(transparent)]
    Newer(#[from] NewerFormat),
}

/// The formats of what waits in a data directory's journal, and of its checkpoint; nothing is made or changed.
///
/// # Errors
/// When the files cannot be read.
pub fn found_formats(data_dir: &Path) -> Result<Vec<FoundFormat>, CollectorError> {
    let mut found = crate::journal::found_formats(data_dir)?;
    let checkpoint = checkpoint::found_format(data_dir).map_err(|source| CollectorError::Checkpoint {
        path: data_dir.join("journal/CHECKPOINT"),
        source,
    })?;
    found.extend(checkpoint);
    Ok(found)
}

/// What is in flight, as of now.
#[derive(Clone, PartialEq, Debug)]
pub struct LiveCounts {
    /// Since the start.
    pub sockets: Vec<SocketStatus>,
    /// What waits for the journal, of at most `queue_max_bytes`.
    pub queue_bytes: usize,
    pub queue_max_bytes: usize,
    /// Closed segments that wait to be stored, and their size.
    pub segments_waiting: u64,
    pub journal_bytes: u64,
    /// The journal or the tables cannot be written at the moment: see the log.
    pub journal_stalled: bool,
    pub store_stalled: bool,
    /// Every thread is alive.
    pub running: bool,
    /// The threads that have ended, by name: `receive-0`, `journal`, `maintenance`, `worker`.
    pub ended_threads: Vec<String>,
    /// Since everything that was due was last written and synced.
    pub since_synced: Duration,
    /// Since every closed segment was stored, or the last one was.
    pub since_stored: Duration,
}

/// Without a sync for so long the journal's thread hangs: a disk that answers nothing, not even an error.
const SYNC_STUCK: Duration = Duration::from_secs(30);
/// Without a segment stored for so long, while some wait, the worker hangs or does not keep up.
const STORE_STUCK: Duration = Duration::from_secs(300);

impl LiveCounts {
    /// What keeps the collector from doing its work at the moment, in words for people; nothing when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.running {
            let threads = self.ended_threads.join(", ");
            problems.push(format!(
                "collector: a thread has ended ({threads}), restart ezscale; what reached the journal is kept"
            ));
        }
        if self.journal_stalled {
            problems.push(
                "journal: cannot be written or is full, datagrams are dropped and counted; the log says why".to_owned(),
            );
        } else if self.since_synced > SYNC_STUCK {
            let seconds = self.since_synced.as_secs();
            problems.push(format!(
                "journal: nothing was synced for {seconds} s: the disk does not answer"
            ));
        }
        if self.store_stalled {
            problems
                .push("tables: cannot be written, what is received waits in the journal; the log says why".to_owned());
        } else if self.segments_waiting > 0 && self.since_stored > STORE_STUCK {
            let (waiting, seconds) = (self.segments_waiting, self.since_stored.as_secs());
            problems.push(format!(
                "tables: no segment was stored for {seconds} s while {waiting} wait: the storage does not answer or is too slow"
            ));
        }
        problems
    }
}

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) data_dir: PathBuf,
    pub(crate) config: CollectorConfig,
    pub(crate) journal: Journal,
    pub(crate) tables: Tables,
    pub(crate) sockets: Vec<Arc<SocketStats>>,
    pub(crate) stopping: Arc<AtomicBool>,
    /// Segments up to here are closed.
    pub(crate) closed_upto: AtomicU64,
    /// Segments before this one are stored and deleted.
    pub(crate) next_segment: AtomicU64,
    /// Size of the closed segments on disk.
    pub(crate) backlog_bytes: AtomicU64,
    pub(crate) journal_stalled: AtomicBool,
    pub(crate) store_stalled: AtomicBool,
    pub(crate) synced: Heartbeat,
    pub(crate) stored: Heartbeat,
    /// A configuration that takes effect with the next segment.
    pub(crate) new_metering: Mutex<Option<(MeteringConfig, Arc<Assignments>)>>,
    /// What exporters said of their interfaces in options data, until it is asked for.
    pub(crate) interfaces: Mutex<Vec<AnnouncedInterface>>,
}

/// When something last went well, by a clock that never goes back.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    started: Instant,
    last_ms: AtomicU64,
}

impl Heartbeat {
    pub(crate) fn new() -> Heartbeat {
        Heartbeat {
            started: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn now(&self) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

impl Shared {
    pub(crate) fn segments_waiting(&self) -> u64 {
        let closed = self.closed_upto.load(Ordering::Acquire);
        (closed + 1).saturating_sub(self.next_segment.load(Ordering::Acquire))
    }

    /// One for each address: its sockets taken together, and the smallest of their buffers.
    pub(crate) fn socket_statuses(&self) -> Vec<SocketStatus> {
        let mut statuses: Vec<SocketStatus> = Vec::new();
        for stats in &self.sockets {
            let one = SocketStatus {
                kind: stats.listening.kind,
                address: stats.listening.address,
                datagrams: stats.datagrams.load(Ordering::Relaxed),
                bytes: stats.bytes.load(Ordering::Relaxed),
                kernel_dropped: stats.kernel_dropped.get(),
                queue_dropped: stats.queue_dropped.load(Ordering::Relaxed),
                receive_buffer_bytes: stats.receive_buffer_bytes,
            };
            match statuses.last_mut().filter(|last| last.address == one.address) {
                Some(last) => {
                    last.datagrams += one.datagrams;
                    last.bytes += one.bytes;
                    last.kernel_dropped += one.kernel_dropped;
                    last.queue_dropped += one.queue_dropped;
                    last.receive_buffer_bytes = last.receive_buffer_bytes.min(one.receive_buffer_bytes);
                }
                None => statuses.push(one),
            }
        }
        statuses
    }
}

/// A running collector. Dropping it stops it without waiting; [`Collector::stop`] waits until everything is stored.
#[derive(Debug)]
pub struct Collector {
    shared: Arc<Shared>,
    listening: Vec<Listening>,
    queue: QueueLevel,
    /// In the order they end: receivers, journal, housekeeping, worker.
    threads: Vec<(String, JoinHandle<()>)>,
}

impl Collector {
    /// Locks the data directory, opens the sockets and starts. Segments that an earlier process left are stored first,
    /// while new datagrams are received already.
    ///
    /// # Errors
    /// When the configuration is wrong, another process holds the data directory, a socket cannot be bound, or the
    /// journal or the tables cannot be read.
    pub fn start(
        storage: impl Into<Storage>,
        config: CollectorConfig,
        metering: MeteringConfig,
        assignments: Arc<Assignments>,
    ) -> Result<Collector, CollectorError> {
        config.validate()?;
        let storage = storage.into();
        let data_dir = storage.data_dir();
        let journal = Journal::open(data_dir)?;
        let tables = Tables::open(&storage)?;
        let recovered = worker::recover(&journal, &tables, metering, assignments, config.encode_threads())?;

        let mut sockets = Vec::new();
        let netflow = config.netflow.iter().map(|address| (ListenKind::Netflow, *address));
        let sflow = config.sflow.iter().map(|address| (ListenKind::Sflow, *address));
        for (kind, address) in netflow.chain(sflow) {
            let options = SocketOptions {
                sockets: config.receive_threads,
                receive_buffer_bytes: config.receive_buffer_bytes,
                only_v6: config.has_v4_of_its_port(address),
            };
            let opened = receive::open(kind, address, options).map_err(|source| CollectorError::Listen {
                kind,
                address,
                source,
            })?;
            sockets.extend(opened.into_iter().map(|(socket, stats)| (socket, Arc::new(stats))));
        }
        let mut listening: Vec<Listening> = sockets.iter().map(|(_, stats)| stats.listening).collect();
        listening.dedup();
        let stopping = Arc::new(AtomicBool::new(false));
        let (batches, queue) = receive::queue(config.queue_max_bytes);
        let (closed_sender, closed) = crossbeam_channel::bounded(1);
        let shared = Arc::new(Shared {
            data_dir: data_dir.to_owned(),
            config,
            journal,
            tables,
            sockets: sockets.iter().map(|(_, stats)| stats.clone()).collect(),
            stopping: stopping.clone(),
            closed_upto: AtomicU64::new(recovered.next_new_segment - 1),
            next_segment: AtomicU64::new(recovered.next_segment),
            backlog_bytes: AtomicU64::new(recovered.backlog_bytes),
            journal_stalled: AtomicBool::new(false),
            store_stalled: AtomicBool::new(false),
            synced: Heartbeat::new(),
            stored: Heartbeat::new(),
            new_metering: Mutex::new(None),
            interfaces: Mutex::new(Vec::new()),
        });
        let mut collector = Collector {
            shared: shared.clone(),
            listening,
            queue: queue.level(),
            threads: Vec::new(),
        };
        for (index, (socket, stats)) in sockets.into_iter().enumerate() {
            let receiver = ReceiveLoop {
                socket,
                index: index as u8,
                stats,
                batches: batches.clone(),
                stopping: stopping.clone(),
            };
            collector.spawn(format!("receive-{index}"), move || receiver.run())?;
        }
        drop(batches);
        let journal_thread = JournalThread::new(shared.clone(), queue, closed_sender, recovered.next_new_segment);
        collector.spawn("journal".to_owned(), move || journal_thread.run())?;
        let maintenance = Maintenance::new(shared.clone());
        collector.spawn("maintenance".to_owned(), move || maintenance.run())?;
        let worker = Worker::new(shared, recovered.stage);
        collector.spawn("worker".to_owned(), move || worker.run(&closed))?;
        Ok(collector)
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), CollectorError> {
        let thread = std::thread::Builder::new().name(name.clone()).spawn(body);
        match thread {
            Ok(thread) => {
                self.threads.push((name, thread));
                Ok(())
            }
            Err(source) => Err(CollectorError::Thread { name, source }),
        }
    }

    /// The actual addresses, each once however many sockets it has.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Sampling rates, metering points and attribution change from the next segment on. No datagram is lost.
    pub fn set_metering(&self, metering: MeteringConfig, assignments: Arc<Assignments>) {
        let mut new = self.shared.new_metering.lock().unwrap_or_else(PoisonError::into_inner);
        *new = Some((metering, assignments));
    }

    /// What exporters said of their interfaces in options data since this was last asked.
    pub fn take_interfaces(&self) -> Vec<AnnouncedInterface> {
        let mut waiting = self.shared.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting)
    }

    /// What is in flight now.
    pub fn live(&self) -> LiveCounts {
        let ended = self.threads.iter().filter(|(_, thread)| thread.is_finished());
        let ended_threads: Vec<String> = ended.map(|(name, _)| name.clone()).collect();
        LiveCounts {
            sockets: self.shared.socket_statuses(),
            queue_bytes: self.queue.bytes(),
            queue_max_bytes: self.queue.max_bytes(),
            segments_waiting: self.shared.segments_waiting(),
            journal_bytes: self.shared.backlog_bytes.load(Ordering::Relaxed),
            journal_stalled: self.shared.journal_stalled.load(Ordering::Relaxed),
            store_stalled: self.shared.store_stalled.load(Ordering::Relaxed),
            running: ended_threads.is_empty(),
            ended_threads,
            since_synced: self.shared.synced.age(),
            since_stored: self.shared.stored.age(),
        }
    }

    /// Drains: empties the sockets' buffers, closes the segment and stores every segment. When it returns, everything
    /// that was received can be queried.
    ///
    /// # Errors
    /// [`CollectorError::NotDrained`] when the tables cannot be written; nothing that reached the journal is lost.
    pub fn stop(mut self) -> Result<(), CollectorError> {
        self.shared.stopping.store(true, Ordering::Release);
        let mut result = Ok(());
        for (name, thread) in self.threads.drain(..) {
            if thread.join().is_err() && result.is_ok() {
                result = Err(CollectorError::Panicked { name });
            }
        }
        result?;
        match self.shared.journal.segments()?.len() as u64 {
            0 => Ok(()),
            segments => Err(CollectorError::NotDrained { segments }),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
    }
}
