//! Which of the sockets that share an address gets a datagram: always the same one for one sender.
//!
//! Left alone, the kernel spreads senders by address and port. An exporter that sends from several ports would then be
//! taken by several threads, and its datagrams, already out of order in the journal, would look lost and found again. A
//! small filter program (socket(7), `SO_ATTACH_REUSEPORT_CBPF`) chooses by the source address alone.

use std::net::UdpSocket;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};

/// Offsets from here are into the network header (`SKF_NET_OFF`).
const NETWORK_HEADER: u32 = libc::SKF_NET_OFF as u32;
const V4_SOURCE: u32 = 12;
/// The last four bytes of the source: the first ones are alike within a network.
const V6_SOURCE_END: u32 = 20;
const VERSION_6: u32 = 6;

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const COPY_TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;

/// Makes the kernel choose among `sockets` sockets, of which `socket` is one, by the sender's address.
///
/// # Errors
/// As the kernel answers; the sockets then work, and senders are spread by address and port.
pub(super) fn by_source(socket: &UdpSocket, sockets: usize) -> nix::Result<()> {
    let step = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = [
        step(LOAD_BYTE, NETWORK_HEADER),
        step(SHIFT_RIGHT, 4),
        libc::sock_filter {
            jf: 2,
            ..step(JUMP_IF_EQUAL, VERSION_6)
        },
        step(LOAD_WORD, NETWORK_HEADER.wrapping_add(V6_SOURCE_END)),
        step(JUMP, 1),
        step(LOAD_WORD, NETWORK_HEADER.wrapping_add(V4_SOURCE)),
        // Addresses of routers differ in few bits: mix them before the remainder is taken.
        step(COPY_TO_X, 0),
        step(SHIFT_RIGHT, 16),
        step(XOR_X, 0),
        step(COPY_TO_X, 0),
        step(SHIFT_RIGHT, 5),
        step(XOR_X, 0),
        step(MODULO, sockets.max(1) as u32),
        step(RETURN_A, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    setsockopt(socket, AttachReusePortCbpf, &filter)
}

#[cfg(test)]
mod tests {
    use super::super::{ListenKind, SocketOptions, open};
    use std::collections::HashSet;
    use std::net::{SocketAddr, UdpSocket};

    /// Which socket got each of the datagrams, sent one at a time.
    fn takers(listen: &str, senders: impl Iterator<Item = SocketAddr>) -> Vec<usize> {
        let options = SocketOptions {
            sockets: 4,
            receive_buffer_bytes: 1 << 16,
            only_v6: false,
        };
        let sockets = open(ListenKind::Netflow, listen.parse().unwrap(), options).unwrap();
        let to = sockets[0].1.listening.address;
        let mut takers = Vec::new();
        for sender in senders {
            UdpSocket::bind(sender).unwrap().send_to(b"x", to).unwrap();
            // Loopback has delivered when the call returns.
            let taker = sockets.iter().position(|(socket, _)| {
                socket.set_nonblocking(true).unwrap();
                socket.recv(&mut [0; 8]).is_ok()
            });
            takers.push(taker.expect("one of the sockets has it"));
        }
        takers
    }

    #[test]
    fn all_ports_of_a_sender_go_to_one_socket_and_senders_are_spread() {
        let ports = |address: &str| -> HashSet<usize> {
            let senders = (0..16).map(|_| format!("{address}:0").parse().unwrap());
            takers("127.0.0.1:0", senders).into_iter().collect()
        };
        assert_eq!(ports("127.0.0.7").len(), 1);
        let many = (1..=64).map(|host| format!("127.0.0.{host}:0").parse().unwrap());
        assert_eq!(takers("127.0.0.1:0", many).into_iter().collect::<HashSet<_>>().len(), 4);
    }

    #[test]
    fn ipv6_senders_are_told_by_address_too() {
        let senders = (0..16).map(|_| "[::1]:0".parse().unwrap());
        assert_eq!(takers("[::1]:0", senders).into_iter().collect::<HashSet<_>>().len(), 1);
    }
}
