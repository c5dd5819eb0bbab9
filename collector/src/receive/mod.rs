//! From the socket to the journal's queue: one OS thread per socket, as many sockets per address as asked for.
//!
//! A receive thread never waits for anybody behind it: it takes up to 64 datagrams with one call ([`datagrams`]), encodes
//! them as journal records into a batch and hands the batch over when it is full or [`BATCH_AGE`] old ([`mod@queue`]). When
//! the queue is full the batch is dropped and its datagrams are counted, per socket; what the kernel dropped before that
//! is counted by the kernel ([`kernel_drops`]).
//!
//! While datagrams come densely a thread pauses for [`GATHER_PAUSE`] when it has taken all there were: waking up for each
//! one costs more than taking it. They wait in the socket's buffer, their time of arrival is the kernel's, and nothing is
//! paused where that buffer is small.
//!
//! Several sockets of one address share its datagrams (`SO_REUSEPORT`, socket(7)), all datagrams of one source address going
//! to the same socket ([`steer`]), so that an exporter's stay in order whatever port they come from. They meet in one
//! journal and one decoder state.

mod datagrams;
mod kernel_drops;
mod queue;
mod steer;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use schemas::fault;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::journal::RecordBuffer;

use datagrams::{DATAGRAMS_MAX, Datagrams, ReceiveResult};
pub(crate) use kernel_drops::{DropCount, KernelDrops, inode_of};
pub(crate) use queue::{BATCH_BYTES, BatchReceiver, BatchSender, QueueLevel, queue};

/// A batch is handed over at this age even when it is small.
const BATCH_AGE: Duration = Duration::from_millis(20);
/// How long a receive waits before it looks whether to stop.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(50);
/// Pause between two calls that take few datagrams each.
const GATHER_PAUSE: Duration = Duration::from_millis(1);
/// No pause with a smaller receive buffer: this one holds what 10 Gbit/s bring meanwhile, three times.
const GATHER_BUFFER_BYTES_MIN: usize = 4 << 20;
/// When stopping, the socket's buffer is emptied, for at most this long.
const DRAIN_MAX: Duration = Duration::from_secs(5);
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
    pub(crate) kernel_dropped: DropCount,
}

/// How one address is listened on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SocketOptions {
    /// So many share the address.
    pub(crate) sockets: usize,
    /// Asked for; what the kernel grants is in [`SocketStats`].
    pub(crate) receive_buffer_bytes: usize,
    /// An IPv6 address leaves IPv4 to another socket of the same port.
    pub(crate) only_v6: bool,
}

/// Opens the sockets of one address, and says so when the kernel granted a smaller receive buffer.
///
/// # Errors
/// When the address cannot be bound, or somebody else has it.
pub(crate) fn open(
    kind: ListenKind,
    address: SocketAddr,
    options: SocketOptions,
) -> std::io::Result<Vec<(UdpSocket, SocketStats)>> {
    let shares_port = options.sockets > 1;
    if shares_port && address.port() != 0 {
        // Sockets that share a port share it with another process that does the same, which would take a part of the
        // datagrams unseen: nobody may have it before us.
        create(address, false, options.only_v6)?.bind(&SockAddr::from(address))?;
    }
    let mut address = address;
    let mut opened = Vec::with_capacity(options.sockets);
    for _ in 0..options.sockets {
        let socket = create(address, shares_port, options.only_v6)?;
        let granted_bytes = grant_receive_buffer(&socket, address, options.receive_buffer_bytes)?;
        socket.bind(&SockAddr::from(address))?;
        let socket = UdpSocket::from(socket);
        // Port 0: the others share the port that the first one got.
        address = socket.local_addr()?;
        socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
        if let Err(error) = datagrams::prepare(&socket) {
            tracing::warn!(%address, %error, "the kernel reports neither time stamps nor drops: clock and /proc are used");
        }
        let stats = SocketStats {
            listening: Listening { kind, address },
            inode: inode_of(socket.as_raw_fd()),
            receive_buffer_bytes: granted_bytes,
            datagrams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            queue_dropped: AtomicU64::new(0),
            kernel_dropped: DropCount::default(),
        };
        opened.push((socket, stats));
    }
    if let Some((socket, _)) = opened.first()
        && shares_port
        && let Err(error) = steer::by_source(socket, options.sockets)
    {
        tracing::warn!(%address, %error, "the kernel spreads senders by address and port: an exporter that uses several ports shows sequence losses that are none");
    }
    Ok(opened)
}

fn create(address: SocketAddr, shares_port: bool, only_v6: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shares_port)?;
    Ok(socket)
}

/// Answers what the kernel granted.
fn grant_receive_buffer(socket: &Socket, address: SocketAddr, requested_bytes: usize) -> std::io::Result<usize> {
    // With CAP_NET_ADMIN the sysctl does not limit us.
    if setsockopt(socket, RcvBufForce, &requested_bytes).is_err()
        && let Err(error) = socket.set_recv_buffer_size(requested_bytes)
    {
        tracing::warn!(%address, %error, "receive buffer could not be set");
    }
    // Linux answers twice what it granted (socket(7)).
    let granted_bytes = socket.recv_buffer_size()? / 2;
    if granted_bytes < requested_bytes {
        tracing::warn!(
            %address,
            requested_bytes,
            granted_bytes,
            "receive buffer is smaller than asked for: raise the sysctl net.core.rmem_max to at least the requested bytes"
        );
    }
    Ok(granted_bytes)
}

/// One receive thread's belongings.
#[derive(Debug)]
pub(crate) struct ReceiveLoop {
    pub(crate) socket: UdpSocket,
    pub(crate) index: u8,
    pub(crate) stats: Arc<SocketStats>,
    pub(crate) batches: BatchSender,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl ReceiveLoop {
    /// Receives until told to stop and the socket's buffer is empty.
    pub(crate) fn run(self) {
        self.receive();
        // The socket, and with it the kernel's account of it, ends with this thread.
        if let Some(count) = self.stats.inode.and_then(|inode| KernelDrops::read().of(inode)) {
            self.stats.kernel_dropped.saw(count);
        }
    }

    fn receive(&self) {
        let gathers = self.stats.receive_buffer_bytes >= GATHER_BUFFER_BYTES_MIN;
        let mut datagrams = Datagrams::new();
        let mut batch = self.batches.buffer();
        let mut batch_started = Instant::now();
        let mut drain_until: Option<Instant> = None;
        let mut logged_at: Option<Instant> = None;
        let mut called_at = Instant::now();
        loop {
            let was_empty = batch.is_empty();
            let taken = datagrams.take(&self.socket, |datagram| {
                if batch.block_bytes_with(datagram.payload.len()) > BATCH_BYTES {
                    self.hand_over(&mut batch);
                }
                batch.push_datagram(self.index, datagram);
            });
            let now = Instant::now();
            let waited = now - called_at;
            called_at = now;
            let is_stopping = self.stopping.load(Ordering::Relaxed);
            match taken {
                Ok(taken) => {
                    self.count(taken, &mut logged_at);
                    if was_empty {
                        batch_started = now;
                    }
                    if now - batch_started >= BATCH_AGE {
                        self.hand_over(&mut batch);
                        batch_started = now;
                    }
                    if gathers && !is_stopping && taken.datagrams < DATAGRAMS_MAX && waited < GATHER_PAUSE {
                        std::thread::park_timeout(GATHER_PAUSE);
                        called_at = Instant::now();
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.hand_over(&mut batch);
                    if is_stopping {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if is_due(&mut logged_at) {
                        tracing::error!(address = %self.stats.listening.address, %error, "receive failed");
                    }
                    self.hand_over(&mut batch);
                    if is_stopping {
                        return;
                    }
                    // Nothing to wait on: the error would come again at once.
                    std::thread::park_timeout(RECEIVE_TIMEOUT);
                }
            }
            if is_stopping && now >= *drain_until.get_or_insert_with(|| now + DRAIN_MAX) {
                self.hand_over(&mut batch);
                return;
            }
        }
    }

    fn count(&self, taken: ReceiveResult, logged_at: &mut Option<Instant>) {
        self.stats
            .datagrams
            .fetch_add(taken.datagrams as u64, Ordering::Relaxed);
        self.stats.bytes.fetch_add(taken.bytes, Ordering::Relaxed);
        if let Some(count) = taken.kernel_dropped {
            self.stats.kernel_dropped.saw(count);
        }
        // They are in the journal as far as they go, and the decoder counts what it makes of them.
        if taken.truncated > 0 && is_due(logged_at) {
            let datagrams = taken.truncated;
            tracing::error!(address = %self.stats.listening.address, datagrams, "datagrams longer than UDP allows were cut");
        }
    }

    /// Queues the batch and leaves an empty one; drops and counts it when the queue is full.
    fn hand_over(&self, batch: &mut RecordBuffer) {
        fault::at("receive.batch");
        if let Err(full) = self.batches.hand_over(batch) {
            self.stats
                .queue_dropped
                .fetch_add(u64::from(full.datagrams), Ordering::Relaxed);
        }
    }
}

/// Whether [`LOG_INTERVAL`] is over; then it starts again.
fn is_due(logged_at: &mut Option<Instant>) -> bool {
    let is_due = logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
    if is_due {
        *logged_at = Some(Instant::now());
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Datagram;
    use schemas::address::Address;

    const LOOPBACK: &str = "127.0.0.1:0";

    fn options(sockets: usize) -> SocketOptions {
        SocketOptions {
            sockets,
            receive_buffer_bytes: 1 << 16,
            only_v6: false,
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let mut opened = open(ListenKind::Netflow, LOOPBACK.parse().unwrap(), options(1)).unwrap();
        let (socket, stats) = opened.pop().unwrap();
        assert!(stats.inode.is_some());
        let (batches, receiver) = queue(100);
        let receive_loop = ReceiveLoop {
            socket,
            index: 0,
            stats: Arc::new(stats),
            batches,
            stopping: Arc::default(),
        };
        let datagram = Datagram {
            received_at_ms: 1,
            source: Address::UNSPECIFIED,
            source_port: 1,
            payload: b"x",
        };
        let mut batch = RecordBuffer::default();
        for _ in 0..2 {
            batch.push_datagram(0, &datagram);
            batch.push_datagram(0, &datagram);
            receive_loop.hand_over(&mut batch);
            assert!(batch.is_empty());
        }
        assert_eq!(receive_loop.stats.queue_dropped.load(Ordering::Relaxed), 2);
        assert_eq!(receiver.try_recv().unwrap().records(), 2);
        assert!(receiver.is_empty());
    }

    #[test]
    fn several_sockets_share_an_address_and_nobody_else_gets_in() {
        let sockets = open(ListenKind::Sflow, LOOPBACK.parse().unwrap(), options(3)).unwrap();
        let addresses: Vec<SocketAddr> = sockets.iter().map(|(_, stats)| stats.listening.address).collect();
        assert_ne!(addresses[0].port(), 0);
        assert_eq!(addresses, [addresses[0]; 3]);
        for others in [1, 2] {
            let error = open(ListenKind::Sflow, addresses[0], options(others)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        }
    }
}
