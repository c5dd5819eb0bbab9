//! What the kernel dropped because a socket's buffer was full: the `drops` column of `/proc/net/udp` and `/proc/net/udp6`,
//! found by the socket's inode (proc(5)).

use std::collections::HashMap;
use std::os::fd::RawFd;

/// Drops of every UDP socket of the network namespace, by inode.
#[derive(Debug, Default)]
pub(crate) struct KernelDrops {
    by_inode: HashMap<u64, u64>,
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
            let drops = fields.nth(2).and_then(|field| field.parse().ok());
            if let (Some(inode), Some(drops)) = (inode, drops) {
                self.by_inode.insert(inode, drops);
            }
        }
    }

    /// Drops since the socket was opened.
    pub(crate) fn of(&self, inode: u64) -> Option<u64> {
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
    fn our_own_socket_is_listed() {
        use std::os::fd::AsRawFd;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(socket.as_raw_fd()).unwrap();
        assert_eq!(KernelDrops::read().of(inode), Some(0));
    }
}
