//! Appends batches to the current segment, syncs, closes.
//!
//! On an error (a full disk) it stops taking batches and tries again: what it holds is kept, the queue fills, the receive
//! threads drop and count. It never gives up while the collector runs. It also stops at `journal_max_bytes`, and before it
//! takes the room on its disk that the tables need to empty it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use nix::sys::statvfs::statvfs;
use schemas::fault;

use super::Shared;
use crate::journal::{Drops, JournalError, RecordBuffer, SegmentWriter};
use crate::receive::{BATCH_BYTES, BatchReceiver, KernelDrops};

/// Room that is left to the tables, in segments: what a journal that has filled its disk by itself needs to be emptied.
const RESERVE_SEGMENTS: u64 = 2;
/// Of a small disk one part in so many is enough.
const RESERVE_PART: u64 = 10;
/// The disk is asked for its room this often.
const ROOM_INTERVAL: Duration = Duration::from_millis(250);
/// Appended bytes are handed to the operating system at the latest when they are this many: four whole batches.
const WRITE_BYTES: usize = 4 * BATCH_BYTES;
/// Appended bytes are synced at the latest when they are this many, because they are in memory until then.
const UNSYNCED_BYTES_MAX: usize = 32 << 20;
/// Dropped datagrams are recorded this often.
const DROPS_INTERVAL: Duration = Duration::from_secs(1);
/// Asking the kernel takes no more than one part in so many of the time: it lists every UDP socket of the machine.
const DROPS_SHARE: u32 = 100;
/// Pause after a failed write.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// A failure that lasts is logged this often.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// When stopping, a failing journal is tried for so long.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

struct Current {
    segment: SegmentWriter,
    opened: Instant,
}

pub(super) struct JournalThread {
    shared: Arc<Shared>,
    queue: BatchReceiver,
    /// Tells the worker that a segment was closed; hung up when there will be no more.
    closed: Sender<()>,
    next_number: u64,
    current: Option<Current>,
    synced_at: Instant,
    drops_at: Instant,
    /// How long it took to ask.
    drops_took: Duration,
    room_at: Instant,
    /// What was free on the disk then is the tables'.
    is_room_reserved: bool,
    logged_at: Option<Instant>,
    /// Per socket: what was recorded so far of (kernel, queue) drops.
    recorded: Vec<(u64, u64)>,
}

impl JournalThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: BatchReceiver,
        closed: Sender<()>,
        next_number: u64,
    ) -> JournalThread {
        let now = Instant::now();
        let recorded = vec![(0, 0); shared.sockets.len()];
        JournalThread {
            shared,
            queue,
            closed,
            next_number,
            current: None,
            synced_at: now,
            drops_at: now,
            drops_took: Duration::ZERO,
            room_at: now,
            is_room_reserved: false,
            logged_at: None,
            recorded,
        }
    }

    pub(super) fn run(mut self) {
        let sync_interval = Duration::from_millis(self.shared.config.fsync_interval_ms);
        loop {
            if let Some(full) = self.full() {
                match self.write_due_blocks(sync_interval) {
                    Ok(()) => self.pause(full, None),
                    Err(error) => self.pause("journal cannot be written, datagrams are dropped", Some(&error)),
                }
                if self.shared.stopping.load(Ordering::Acquire) {
                    break;
                }
                continue;
            }
            match self.queue.recv_timeout(sync_interval) {
                Ok(batch) => self.segment().append(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.drops_at.elapsed() >= DROPS_INTERVAL.max(self.drops_took * DROPS_SHARE) {
                self.record_drops();
            }
            self.write_until_done(sync_interval);
        }
        // The receivers are gone; whatever they queued is in.
        while let Some(batch) = self.queue.try_recv() {
            self.segment().append(batch);
        }
        self.record_drops();
        self.finish();
    }

    /// Why the journal takes no more, if so.
    fn full(&mut self) -> Option<&'static str> {
        let current = self.current.as_ref().map_or(0, |current| current.segment.size_bytes());
        let backlog = self.shared.backlog_bytes.load(Ordering::Relaxed);
        if backlog + current >= self.shared.config.journal_max_bytes {
            return Some("journal_max_bytes is reached, datagrams are dropped");
        }
        if backlog == 0 {
            return None;
        }
        if self.room_at.elapsed() >= ROOM_INTERVAL {
            self.room_at = Instant::now();
            // A disk that cannot be asked will say so when it is written.
            self.is_room_reserved = statvfs(self.shared.journal.dir()).is_ok_and(|disk| {
                let block = disk.fragment_size();
                let (free, size) = (disk.blocks_available() * block, disk.blocks() * block);
                is_reserved(free, size, self.shared.config.segment_max_bytes)
            });
        }
        self.is_room_reserved
            .then_some("the rest of the disk is left to the tables, datagrams are dropped")
    }

    fn segment(&mut self) -> &mut SegmentWriter {
        let (shared, next_number) = (&self.shared, &mut self.next_number);
        let current = self.current.get_or_insert_with(|| {
            let number = *next_number;
            *next_number += 1;
            let created_at_ms = schemas::clock::machine_now_ms();
            let path = shared.journal.segment_path(number);
            Current {
                segment: SegmentWriter::new(path, shared.journal.id(), number, created_at_ms),
                opened: Instant::now(),
            }
        });
        &mut current.segment
    }

    /// Brings the current segment as far as it is due: written, synced, closed. Tries until that succeeds, or the
    /// collector stops.
    fn write_until_done(&mut self, sync_interval: Duration) {
        while let Err(error) = self.write_due_blocks(sync_interval) {
            self.pause("journal cannot be written, datagrams will be dropped", Some(&error));
            if self.shared.stopping.load(Ordering::Acquire) {
                return;
            }
        }
        self.shared.synced.now();
        if self.shared.journal_stalled.swap(false, Ordering::Relaxed) {
            tracing::info!("journal is written again");
            self.logged_at = None;
        }
    }

    fn write_due_blocks(&mut self, sync_interval: Duration) -> Result<(), JournalError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let config = &self.shared.config;
        let is_old = current.opened.elapsed() >= Duration::from_secs(config.segment_seconds);
        if is_old || current.segment.size_bytes() >= config.segment_max_bytes {
            return self.close();
        }
        if self.synced_at.elapsed() >= sync_interval || current.segment.unsynced_bytes() >= UNSYNCED_BYTES_MAX {
            current.segment.sync()?;
            current
                .segment
                .emptied()
                .for_each(|buffer| self.queue.give_back(buffer));
            self.synced_at = Instant::now();
        } else if current.segment.unwritten_bytes() >= WRITE_BYTES || self.queue.is_empty() {
            current.segment.write()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), JournalError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.segment.close()?;
        fault::at("segment.closed");
        current
            .segment
            .emptied()
            .for_each(|buffer| self.queue.give_back(buffer));
        self.synced_at = Instant::now();
        self.shared
            .backlog_bytes
            .fetch_add(current.segment.size_bytes(), Ordering::Relaxed);
        self.shared
            .closed_upto
            .store(current.segment.number(), Ordering::Release);
        self.current = None;
        // Full when the worker has not looked yet: it will see this segment too.
        let _ = self.closed.try_send(());
        Ok(())
    }

    /// Appends what was dropped since the last time.
    fn record_drops(&mut self) {
        self.drops_at = Instant::now();
        let kernel = KernelDrops::read();
        self.drops_took = self.drops_at.elapsed();
        let mut records = RecordBuffer::default();
        let at_ms = schemas::clock::machine_now_ms();
        for (index, stats) in self.shared.sockets.iter().enumerate() {
            if let Some(count) = stats.inode.and_then(|inode| kernel.of(inode)) {
                stats.kernel_dropped.saw(count);
            }
            let now = (stats.kernel_dropped.get(), stats.queue_dropped.load(Ordering::Relaxed));
            let before = std::mem::replace(&mut self.recorded[index], now);
            let drops = Drops {
                at_ms,
                kernel_dropped: now.0.saturating_sub(before.0),
                queue_dropped: now.1.saturating_sub(before.1),
            };
            if drops.kernel_dropped > 0 || drops.queue_dropped > 0 {
                tracing::warn!(
                    address = %stats.listening.address,
                    kernel = drops.kernel_dropped,
                    queue = drops.queue_dropped,
                    "datagrams dropped"
                );
                records.push_drops(index as u8, &drops);
            }
        }
        if !records.is_empty() {
            self.segment().append(records);
        }
    }

    fn finish(&mut self) {
        let give_up_at = Instant::now() + STOP_PATIENCE;
        while let Err(error) = self.close() {
            self.pause("journal cannot be written", Some(&error));
            if Instant::now() >= give_up_at {
                tracing::error!("journal given up: what was not synced is lost");
                return;
            }
        }
    }

    fn pause(&mut self, message: &'static str, error: Option<&JournalError>) {
        self.shared.journal_stalled.store(true, Ordering::Relaxed);
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            let source = error.map(|error| crate::error_chain(error));
            let advice = error.map(|error| crate::durable::advice(error));
            tracing::error!(folder = %self.shared.journal.dir().display(), source, advice, "{message}");
            self.logged_at = Some(Instant::now());
        }
        std::thread::park_timeout(RETRY_INTERVAL);
    }
}

/// Whether what is free on a disk is left to the tables. Where nothing is, the journal may as well try: it is then told
/// what is wrong.
fn is_reserved(free_bytes: u64, disk_bytes: u64, segment_max_bytes: u64) -> bool {
    let reserve = (RESERVE_SEGMENTS * segment_max_bytes).min(disk_bytes / RESERVE_PART);
    free_bytes > 0 && free_bytes < reserve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_segments_are_left_to_the_tables_or_a_tenth_of_a_small_disk() {
        const MIB: u64 = 1 << 20;
        assert!(is_reserved(127 * MIB, 1 << 40, 64 * MIB));
        assert!(!is_reserved(128 * MIB, 1 << 40, 64 * MIB));
        assert!(is_reserved(6 * MIB, 64 * MIB, 64 * MIB));
        assert!(!is_reserved(7 * MIB, 64 * MIB, 64 * MIB));
        assert!(!is_reserved(0, 1 << 40, 64 * MIB));
    }
}
