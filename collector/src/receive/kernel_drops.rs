//! What the kernel dropped because a socket's buffer was full.
//!
//! It says so in two places: with each datagram (`SO_RXQ_OVFL`, socket(7)), which is free but silent while nothing gets
//! through, and in the `drops` column of `/proc/net/udp` and `/proc/net/udp6`, found by the socket's inode (proc(5)). Both
//! show the same counter of 32 bits, which starts again at zero when it is full: whichever is ahead is right.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one socket dropped since it was opened, beyond 32 bits.
#[derive(Debug, Default)]
pub(crate) struct DropCount(AtomicU64);

impl DropCount {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes over what the kernel said, in any order.
    pub(crate) fn saw(&self, count: u32) {
        let total = self.get();
        // Two that saw the same counter come to the same answer, or the later one to a greater.
        self.0.fetch_max(widen(total, count), Ordering::Relaxed);
    }
}

/// The total that `count` is the lower half of, when `total` was known before. A count that is behind tells nothing new.
fn widen(total: u64, count: u32) -> u64 {
    let ahead = count.wrapping_sub(total as u32);
    if ahead <= u32::MAX / 2 {
        total + u64::from(ahead)
    } else {
        total
    }
}

/// Drops of every UDP socket of the network namespace, by inode.
#[derive(Debug, Default)]
pub(crate) struct KernelDrops {
    by_inode: HashMap<u64, u32>,
}

impl KernelDrops {
    /// As of now. Where `/proc` cannot be read nothing is known, and nothing is counted.
    pub(crate) fn read() -> KernelDrops {
        let mut drops = KernelDrops::default();
        for path in ["/proc/net/udp", "/proc/net/udp6"] {
            if let Ok(text) = std::fs::read_to_string(path) {
                drops.parse(&text);
            }
        }
        drops
    }

    fn parse(&mut self, text: &str) {
        for line in text.lines().skip(1) {
            // sl local remote st queues tr:tm retrnsmt uid timeout inode ref pointer drops
            let mut fields = line.split_ascii_whitespace().skip(9);
            let inode = fields.next().and_then(|field| field.parse().ok());
            let drops: Option<u64> = fields.nth(2).and_then(|field| field.parse().ok());
            if let (Some(inode), Some(drops)) = (inode, drops) {
                self.by_inode.insert(inode, drops as u32);
            }
        }
    }

    /// Lower 32 bits of the drops since the socket was opened.
    pub(crate) fn of(&self, inode: u64) -> Option<u32> {
        self.by_inode.get(&inode).copied()
    }
}

/// The inode of an open socket of this process.
pub(crate) fn inode_of(fd: RawFd) -> Option<u64> {
    let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_found_by_inode() {
        let text = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
                    1204: 00000000:0807 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41873 2 0000000000000000 77\n";
        let mut drops = KernelDrops::default();
        drops.parse(text);
        assert_eq!(drops.of(41_873), Some(77));
        assert_eq!(drops.of(1), None);
    }

    #[test]
    fn the_counter_goes_on_when_the_kernel_s_starts_again() {
        let drops = DropCount::default();
        for count in [0, 5, 3, 5, 2_000_000_000, 4_000_000_000, u32::MAX] {
            drops.saw(count);
        }
        assert_eq!(drops.get(), u64::from(u32::MAX));
        drops.saw(2);
        assert_eq!(drops.get(), (1 << 32) + 2);
        // Read before the other source was, and told later.
        drops.saw(u32::MAX - 7);
        drops.saw(1);
        assert_eq!(drops.get(), (1 << 32) + 2);
        drops.saw(2_000_000_000);
        drops.saw(4_000_000_000);
        drops.saw(9);
        assert_eq!(drops.get(), (2 << 32) + 9);
    }

    #[test]
    fn our_own_socket_is_listed() {
        use std::os::fd::AsRawFd;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(socket.as_raw_fd()).unwrap();
        assert_eq!(KernelDrops::read().of(inode), Some(0));
    }
}
