//! From the socket to the journal's queue: one OS thread per socket.
//!
//! A receive thread never waits for anybody behind it: it encodes datagrams as journal records into a batch and hands the
//! batch over when it is full or [`BATCH_AGE`] old. When the queue is full the batch is dropped and its datagrams are
//! counted, per socket; what the kernel dropped before that is read from `/proc` ([`kernel_drops`]).

mod kernel_drops;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use schemas::address::Address;
use schemas::fault;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::decode::Datagram;
use crate::journal::RecordBuffer;

pub(crate) use kernel_drops::{KernelDrops, inode_of};

/// A batch is handed over when its records take this much.
pub(crate) const BATCH_BYTES: usize = 64 << 10;
/// A batch is handed over at this age even when it is small.
const BATCH_AGE: Duration = Duration::from_millis(20);
/// How long a receive waits before it looks whether to stop.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(50);
/// When stopping, the socket's buffer is emptied, for at most this long.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// A socket error is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What a socket is meant for. Dispatch is by content, so that a wrong port loses nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenKind {
    Netflow,
    Sflow,
}

impl std::fmt::Display for ListenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ListenKind::Netflow => "netflow",
            ListenKind::Sflow => "sflow",
        })
    }
}

/// One socket that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    pub kind: ListenKind,
    /// The actual address: port 0 is resolved.
    pub address: SocketAddr,
}

/// Numbers of one socket since the start, shared with whoever asks.
#[derive(Debug)]
pub(crate) struct SocketStats {
    pub(crate) listening: Listening,
    pub(crate) inode: Option<u64>,
    pub(crate) receive_buffer_bytes: usize,
    /// Taken from the kernel.
    pub(crate) datagrams: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Of those, dropped because the queue was full.
    pub(crate) queue_dropped: AtomicU64,
    /// Dropped by the kernel, as last read.
    pub(crate) kernel_dropped: AtomicU64,
}

/// Opens one socket with the receive buffer asked for, and says so when the kernel granted less.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn open(
    kind: ListenKind,
    address: SocketAddr,
    receive_buffer_bytes: usize,
) -> std::io::Result<(UdpSocket, SocketStats)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    if let Err(error) = socket.set_recv_buffer_size(receive_buffer_bytes) {
        tracing::warn!(%address, %error, "receive buffer could not be set");
    }
    // Linux answers twice what it granted (socket(7)).
    let granted_bytes = socket.recv_buffer_size()? / 2;
    if granted_bytes < receive_buffer_bytes {
        tracing::warn!(
            %address,
            requested_bytes = receive_buffer_bytes,
            granted_bytes,
            "receive buffer is smaller than asked for: raise the sysctl net.core.rmem_max to at least the requested bytes"
        );
    }
    socket.bind(&SockAddr::from(address))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    let stats = SocketStats {
        listening: Listening {
            kind,
            address: socket.local_addr()?,
        },
        inode: inode_of(socket.as_raw_fd()),
        receive_buffer_bytes: granted_bytes,
        datagrams: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        queue_dropped: AtomicU64::new(0),
        kernel_dropped: AtomicU64::new(0),
    };
    Ok((socket, stats))
}

/// One receive thread's belongings.
#[derive(Debug)]
pub(crate) struct ReceiveLoop {
    pub(crate) socket: UdpSocket,
    pub(crate) index: u8,
    pub(crate) stats: Arc<SocketStats>,
    pub(crate) batches: Sender<RecordBuffer>,
    /// Emptied batches come back to be filled again.
    pub(crate) spare: Receiver<RecordBuffer>,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl ReceiveLoop {
    /// Receives until told to stop and the socket's buffer is empty.
    pub(crate) fn run(self) {
        let mut payload = vec![0u8; DATAGRAM_BYTES_MAX];
        let mut batch = RecordBuffer::with_capacity(BATCH_BYTES);
        let mut batch_started = Instant::now();
        let mut drain_until: Option<Instant> = None;
        let mut logged_at: Option<Instant> = None;
        loop {
            match self.socket.recv_from(&mut payload) {
                Ok((length, from)) => {
                    if batch.is_empty() {
                        batch_started = Instant::now();
                    }
                    let datagram = Datagram {
                        received_at_ms: jiff::Timestamp::now().as_millisecond(),
                        source: Address::from(from.ip().to_canonical()),
                        payload: &payload[..length],
                    };
                    batch.push_datagram(self.index, from.port(), &datagram);
                    self.stats.datagrams.fetch_add(1, Ordering::Relaxed);
                    self.stats.bytes.fetch_add(length as u64, Ordering::Relaxed);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    batch = self.hand_over(batch);
                    if self.stopping.load(Ordering::Acquire) {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        tracing::error!(address = %self.stats.listening.address, %error, "receive failed");
                        logged_at = Some(Instant::now());
                    }
                    if self.stopping.load(Ordering::Acquire) {
                        self.hand_over(batch);
                        return;
                    }
                    // Nothing to wait on: the error would come again at once.
                    std::thread::park_timeout(RECEIVE_TIMEOUT);
                }
            }
            if batch.bytes().len() >= BATCH_BYTES || batch_started.elapsed() >= BATCH_AGE {
                batch = self.hand_over(batch);
            }
            if self.stopping.load(Ordering::Relaxed) {
                let until = *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_MAX);
                if Instant::now() >= until {
                    self.hand_over(batch);
                    return;
                }
            }
        }
    }

    /// Queues the batch and answers an empty one; drops and counts it when the queue is full.
    fn hand_over(&self, batch: RecordBuffer) -> RecordBuffer {
        if batch.is_empty() {
            return batch;
        }
        fault::at("receive.batch");
        match self.batches.try_send(batch) {
            Ok(()) => self
                .spare
                .try_recv()
                .unwrap_or_else(|_| RecordBuffer::with_capacity(BATCH_BYTES)),
            Err(TrySendError::Full(mut batch) | TrySendError::Disconnected(mut batch)) => {
                self.stats
                    .queue_dropped
                    .fetch_add(u64::from(batch.records()), Ordering::Relaxed);
                batch.clear();
                batch
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (socket, stats) = open(ListenKind::Netflow, "127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
        assert!(stats.inode.is_some());
        let (batches, queue) = crossbeam_channel::bounded(1);
        let (_give_back, spare) = crossbeam_channel::bounded(1);
        let receiver = ReceiveLoop {
            socket,
            index: 0,
            stats: Arc::new(stats),
            batches,
            spare,
            stopping: Arc::default(),
        };
        let mut batch = RecordBuffer::default();
        let datagram = Datagram {
            received_at_ms: 1,
            source: Address::UNSPECIFIED,
            payload: b"x",
        };
        batch.push_datagram(0, 1, &datagram);
        batch.push_datagram(0, 1, &datagram);
        assert!(receiver.hand_over(batch.clone()).is_empty());
        assert!(receiver.hand_over(batch).is_empty());
        assert_eq!(receiver.stats.queue_dropped.load(Ordering::Relaxed), 2);
        assert_eq!(queue.len(), 1);
    }
}
