//! Datagrams from a socket, many with one call, each with what the kernel says of it: when it arrived, and how many the
//! socket had dropped by then.

use std::io::{Error, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::sockopt::{ReceiveTimestampns, RxqOvfl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt};
use nix::sys::time::TimeSpec;
use schemas::address::Address;

use crate::decode::Datagram;

/// Datagrams taken with one call.
pub(super) const DATAGRAMS_MAX: usize = 64;
/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// From one datagram's memory to the next. Few bytes at the front of each are touched; were they a power of two apart,
/// they would all fall into the same few cache lines.
const SLOT_BYTES: usize = DATAGRAM_BYTES_MAX + 1 + 33 * 64;
/// A datagram does not wait longer in a socket: an older time stamp is from before a step of the clock.
const WAIT_MAX_MS: i64 = 60_000;
/// Nor does it come from the future, but for the step of a clock that is being disciplined.
const AHEAD_MAX_MS: i64 = 1_000;

/// Asks for a time stamp and the drop count with every datagram.
///
/// # Errors
/// When the kernel does not know these options.
pub(super) fn prepare(socket: &UdpSocket) -> Result<(), Error> {
    setsockopt(socket, ReceiveTimestampns, &true)?;
    setsockopt(socket, RxqOvfl, &1)?;
    Ok(())
}

/// What one call took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ReceiveResult {
    pub(super) datagrams: usize,
    pub(super) bytes: u64,
    /// Longer than any UDP payload may be: the end is missing.
    pub(super) truncated: u64,
    /// Lower 32 bits of what the socket dropped so far; the kernel says nothing before the first drop.
    pub(super) kernel_dropped: Option<u32>,
}

/// Memory for one call's datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    headers: MultiHeaders<SockaddrStorage>,
    payloads: Vec<u8>,
    /// Control messages had no room in their headers, which are to be made anew.
    is_cut: bool,
}

impl Datagrams {
    pub(super) fn new() -> Datagrams {
        Datagrams {
            headers: headers(),
            payloads: vec![0; SLOT_BYTES * DATAGRAMS_MAX],
            is_cut: false,
        }
    }

    /// Waits for a datagram as long as the socket's timeout says, takes it and those that are there already, and shows
    /// each to `each`, in order of arrival.
    ///
    /// # Errors
    /// As recvmmsg(2): `WouldBlock` when nothing came in time.
    pub(super) fn take(
        &mut self,
        socket: &UdpSocket,
        mut each: impl FnMut(&Datagram<'_>),
    ) -> Result<ReceiveResult, Error> {
        if self.is_cut {
            // The kernel writes into a header how much room it used, and that is all the room it has the next time. So a
            // datagram that came without a drop count leaves none for the first that has one.
            self.headers = headers();
            self.is_cut = false;
        }
        let mut slots = self.payloads.chunks_exact_mut(SLOT_BYTES);
        let mut slices: [[IoSliceMut<'_>; 1]; DATAGRAMS_MAX] = std::array::from_fn(|_| {
            let slot = slots.next().unwrap_or_default();
            [IoSliceMut::new(slot)]
        });
        let messages = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        )?;
        let now_ms = schemas::clock::machine_now_ms();
        let mut taken = ReceiveResult::default();
        for message in messages {
            let payload = message.iovs().next().unwrap_or_default();
            let mut stamp_ms = None;
            match message.cmsgs() {
                Ok(control) => {
                    for control in control {
                        match control {
                            ControlMessageOwned::ScmTimestampns(time) => stamp_ms = Some(milliseconds(time)),
                            ControlMessageOwned::RxqOvfl(drops) => taken.kernel_dropped = Some(drops),
                            _ => {}
                        }
                    }
                }
                Err(_) => self.is_cut = true,
            }
            let (ip, source_port) = source_of(message.address);
            let datagram = Datagram {
                received_at_ms: received_at_ms(stamp_ms, now_ms),
                source: Address::from(ip.to_canonical()),
                source_port,
                payload,
            };
            taken.datagrams += 1;
            taken.bytes += payload.len() as u64;
            taken.truncated += u64::from(message.flags.contains(MsgFlags::MSG_TRUNC));
            each(&datagram);
        }
        Ok(taken)
    }
}

fn headers() -> MultiHeaders<SockaddrStorage> {
    MultiHeaders::preallocate(DATAGRAMS_MAX, Some(nix::cmsg_space!(TimeSpec, u32)))
}

fn source_of(address: Option<SockaddrStorage>) -> (IpAddr, u16) {
    let v4 = address.as_ref().and_then(SockaddrStorage::as_sockaddr_in);
    if let Some(v4) = v4 {
        return (v4.ip().into(), v4.port());
    }
    let v6 = address.as_ref().and_then(SockaddrStorage::as_sockaddr_in6);
    // A UDP socket has no peers of other families.
    v6.map_or((Ipv6Addr::UNSPECIFIED.into(), 0), |v6| (v6.ip().into(), v6.port()))
}

fn milliseconds(time: TimeSpec) -> i64 {
    time.tv_sec() * 1_000 + time.tv_nsec() / 1_000_000
}

/// The kernel's time stamp where there is one that can be true, else the clock.
fn received_at_ms(stamp_ms: Option<i64>, now_ms: i64) -> i64 {
    let plausible = now_ms - WAIT_MAX_MS..=now_ms + AHEAD_MAX_MS;
    stamp_ms
        .filter(|stamp_ms| plausible.contains(stamp_ms))
        .unwrap_or(now_ms)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_stamp_counts_when_it_can_be_true() {
        let now_ms = 1_700_000_000_000;
        assert_eq!(received_at_ms(Some(now_ms - 3), now_ms), now_ms - 3);
        assert_eq!(received_at_ms(Some(now_ms - WAIT_MAX_MS), now_ms), now_ms - WAIT_MAX_MS);
        assert_eq!(received_at_ms(None, now_ms), now_ms);
        for stepped_ms in [0, now_ms - WAIT_MAX_MS - 1, now_ms + AHEAD_MAX_MS + 1, i64::MAX] {
            assert_eq!(received_at_ms(Some(stepped_ms), now_ms), now_ms);
        }
    }

    fn receiver(buffer_bytes: usize) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket)
            .set_recv_buffer_size(buffer_bytes)
            .unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        prepare(&socket).unwrap();
        socket
    }

    #[test]
    fn one_call_takes_what_is_there_with_source_time_and_every_length() {
        let socket = receiver(1 << 20);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let lengths = [0, 1, 1_472, 65_507, 40];
        let from_ms = schemas::clock::machine_now_ms();
        for (i, length) in lengths.into_iter().enumerate() {
            sender.send_to(&vec![i as u8; length], to).unwrap();
        }
        let mut datagrams = Datagrams::new();
        let mut seen = Vec::new();
        // On loopback a datagram is in the receiver's buffer when the send returns.
        let taken = datagrams
            .take(&socket, |datagram| {
                assert_eq!(datagram.source_port, sender.local_addr().unwrap().port());
                assert_eq!(datagram.source, Address::from_v4([127, 0, 0, 1]));
                // Until it stamps what arrives, the kernel stamps what is read.
                assert!((from_ms..=schemas::clock::machine_now_ms()).contains(&datagram.received_at_ms));
                assert!(datagram.payload.iter().all(|byte| usize::from(*byte) == seen.len()));
                seen.push(datagram.payload.len());
            })
            .unwrap();
        assert_eq!(seen, lengths);
        let expected = ReceiveResult {
            datagrams: lengths.len(),
            bytes: lengths.iter().sum::<usize>() as u64,
            truncated: 0,
            kernel_dropped: None,
        };
        assert_eq!(taken, expected);
    }

    #[test]
    fn the_drop_count_comes_with_the_datagrams_that_follow() {
        let socket = receiver(4 << 10);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let mut datagrams = Datagrams::new();
        let mut received = 0;
        let mut kernel_dropped = None;
        let sent = 500;
        for _ in 0..sent {
            sender.send_to(&[7; 1_000], to).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        // Headers are used again and again, with and without a drop count in them.
        for round in 0..6 {
            while let Ok(taken) = datagrams.take(&socket, |_| {}) {
                received += taken.datagrams;
                kernel_dropped = taken.kernel_dropped.or(kernel_dropped);
            }
            sender.send_to(&[8; 1_000], to).unwrap();
            assert!(round < 2 || kernel_dropped.is_some(), "round {round}");
        }
        let received = received as u32;
        assert_eq!(kernel_dropped, Some(sent + 5 - received));
    }
}
