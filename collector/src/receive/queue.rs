//! From the receive threads to the journal thread: batches, bounded by the bytes they hold.
//!
//! Bytes and not batches are what the machine has to spare, and what arrives while a sync lasts. Emptied buffers go the
//! other way and are filled again: fresh memory costs more than filling it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::journal::RecordBuffer;

/// A batch is handed over before it would be longer. A datagram never is: there is always room for one.
pub(crate) const BATCH_BYTES: usize = 256 << 10;
/// A batch up to this length is queued as a copy of its own length, so that a quiet time does not hold large buffers.
const SMALL_BATCH_BYTES: usize = 32 << 10;
/// Emptied buffers kept; together as much as a journal at line rate holds between two syncs.
const SPARE_MAX: usize = 96;

/// The queue had no room: so many datagrams were dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueFull {
    pub(crate) datagrams: u32,
}

/// How full the queue is, for whoever asks.
#[derive(Clone, Debug)]
pub(crate) struct QueueLevel {
    bytes: Arc<AtomicUsize>,
    max_bytes: usize,
}

impl QueueLevel {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

/// Where a receive thread puts its batches.
#[derive(Clone, Debug)]
pub(crate) struct BatchSender {
    batches: Sender<RecordBuffer>,
    spare: Receiver<RecordBuffer>,
    level: QueueLevel,
}

/// Where the journal thread takes them.
#[derive(Debug)]
pub(crate) struct BatchReceiver {
    batches: Receiver<RecordBuffer>,
    spare: Sender<RecordBuffer>,
    level: QueueLevel,
}

/// A queue that holds at most `max_bytes` of batches.
pub(crate) fn queue(max_bytes: usize) -> (BatchSender, BatchReceiver) {
    // Every batch holds bytes, so the bound on these is one on their number.
    let (batch_sender, batches) = crossbeam_channel::unbounded();
    let (spare_sender, spare) = crossbeam_channel::bounded(SPARE_MAX);
    let level = QueueLevel {
        bytes: Arc::default(),
        max_bytes,
    };
    let sender = BatchSender {
        batches: batch_sender,
        spare,
        level: level.clone(),
    };
    let receiver = BatchReceiver {
        batches,
        spare: spare_sender,
        level,
    };
    (sender, receiver)
}

impl BatchSender {
    /// An empty buffer with room for a whole batch.
    pub(crate) fn buffer(&self) -> RecordBuffer {
        self.spare
            .try_recv()
            .unwrap_or_else(|_| RecordBuffer::with_capacity(BATCH_BYTES))
    }

    /// Queues what is in `batch` and leaves it empty. Never waits.
    ///
    /// # Errors
    /// When the queue is full: the batch is dropped.
    pub(crate) fn hand_over(&self, batch: &mut RecordBuffer) -> Result<(), QueueFull> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, datagrams) = (batch.block_bytes(), batch.records());
        let before = self.level.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > self.level.max_bytes {
            self.level.bytes.fetch_sub(bytes, Ordering::AcqRel);
            batch.clear();
            return Err(QueueFull { datagrams });
        }
        let queued = if bytes <= SMALL_BATCH_BYTES {
            let copy = batch.clone();
            batch.clear();
            copy
        } else {
            std::mem::replace(batch, self.buffer())
        };
        if self.batches.send(queued).is_err() {
            // Nobody takes them any more.
            self.level.bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(QueueFull { datagrams });
        }
        Ok(())
    }
}

impl BatchReceiver {
    pub(crate) fn level(&self) -> QueueLevel {
        self.level.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Waits for the next batch.
    ///
    /// # Errors
    /// When the time is over, or every sender is gone and the queue is empty.
    pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<RecordBuffer, RecvTimeoutError> {
        let batch = self.batches.recv_timeout(timeout)?;
        self.level.bytes.fetch_sub(batch.block_bytes(), Ordering::AcqRel);
        Ok(batch)
    }

    /// The next batch, if one is there.
    pub(crate) fn try_recv(&self) -> Option<RecordBuffer> {
        let batch = self.batches.try_recv().ok()?;
        self.level.bytes.fetch_sub(batch.block_bytes(), Ordering::AcqRel);
        Some(batch)
    }

    /// Gives an emptied buffer back. One that is too small, or one too many, is freed.
    pub(crate) fn give_back(&self, buffer: RecordBuffer) {
        if buffer.capacity() >= BATCH_BYTES {
            let _ = self.spare.try_send(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::address::Address;

    use super::*;
    use crate::decode::Datagram;

    fn fill(batch: &mut RecordBuffer, datagrams: usize, payload: &[u8]) {
        for _ in 0..datagrams {
            let datagram = Datagram {
                received_at_ms: 1,
                source: Address::UNSPECIFIED,
                source_port: 1,
                payload,
            };
            batch.push_datagram(0, &datagram);
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_by_bytes() {
        let (sender, receiver) = queue(2_500);
        let mut batch = sender.buffer();
        fill(&mut batch, 2, &[0; 500]);
        let bytes = batch.block_bytes();
        assert_eq!(bytes, 16 + 2 * (32 + 500));
        sender.hand_over(&mut batch).unwrap();
        assert!(batch.is_empty());
        assert_eq!(receiver.level().bytes(), bytes);
        fill(&mut batch, 2, &[1; 500]);
        sender.hand_over(&mut batch).unwrap();
        fill(&mut batch, 3, &[2; 500]);
        assert_eq!(sender.hand_over(&mut batch), Err(QueueFull { datagrams: 3 }));
        assert!(batch.is_empty());
        assert_eq!(receiver.level().bytes(), 2 * bytes);
        assert_eq!(receiver.try_recv().unwrap().records(), 2);
        fill(&mut batch, 1, &[3; 500]);
        sender.hand_over(&mut batch).unwrap();
        assert_eq!(receiver.try_recv().unwrap().records(), 2);
        assert_eq!(receiver.try_recv().unwrap().records(), 1);
        assert_eq!(receiver.level().bytes(), 0);
        drop(receiver);
        fill(&mut batch, 1, &[4; 500]);
        assert_eq!(sender.hand_over(&mut batch), Err(QueueFull { datagrams: 1 }));
    }

    #[test]
    fn large_buffers_come_back_and_small_batches_hold_no_more_than_they_need() {
        let (sender, receiver) = queue(1 << 20);
        let mut batch = sender.buffer();
        fill(&mut batch, 1, &[0; 10]);
        sender.hand_over(&mut batch).unwrap();
        assert!(batch.capacity() >= BATCH_BYTES, "the thread keeps its buffer");
        let small = receiver.try_recv().unwrap();
        assert!(small.capacity() < 1_000);
        receiver.give_back(small);
        fill(&mut batch, 30, &[0; 2_000]);
        sender.hand_over(&mut batch).unwrap();
        let mut large = receiver.try_recv().unwrap();
        assert!(large.capacity() >= BATCH_BYTES);
        large.clear();
        receiver.give_back(large);
        assert_eq!(sender.spare.len(), 1);
        assert!(sender.buffer().is_empty());
        assert_eq!(sender.spare.len(), 0);
    }
}
