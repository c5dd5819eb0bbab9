//! Network namespaces, links between them, and the kernel's own counters.
//!
//! A namespace is gone when its value is dropped, and with it its links. Names carry the process id, so that test
//! processes do not meet, and a later run removes what a killed one left. Needs root, as namespaces do.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::command::output_of;

/// Bytes of an Ethernet header, which the kernel counts for each frame on a link and flow records leave out.
pub(crate) const ETHERNET_HEADER_BYTES: u64 = 14;

const NAME_PREFIX: &str = "ezscale-test-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace of our own, with its loopback up and without the chatter of address configuration.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one. `role` is a word for messages, such as `router`.
    pub(crate) fn new(role: &str) -> Self {
        require_net_admin();
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME_PREFIX}{}-{number}-{role}", std::process::id());
        output_of(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        // Neighbour discovery and router solicitations are frames that no service's flow counts. Multicast listener
        // reports cannot be turned off, so they are all sent at once, before anything is measured.
        namespace.run(&[
            "sysctl",
            "-q",
            "-w",
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.all.addr_gen_mode=1",
            "net.ipv6.conf.default.addr_gen_mode=1",
            "net.ipv6.conf.default.accept_ra=0",
            "net.ipv6.conf.default.router_solicitations=0",
            "net.ipv6.conf.default.mldv2_unsolicited_report_interval=1",
        ]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// A command that runs inside. The process that results is the program itself, so signals reach it.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program inside to its end and returns its standard output.
    pub(crate) fn run(&self, argv: &[&str]) -> String {
        let (program, arguments) = argv.split_first().expect("a command line has a program");
        output_of(self.command(program).args(arguments))
    }

    /// `ip ARGUMENTS` on this namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        output_of(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Gives an interface an address, as `192.0.2.1/24`.
    pub(crate) fn add_address(&self, interface: &str, address: &str) {
        let mut arguments = vec!["address", "add", address, "dev", interface];
        if address.contains(':') {
            arguments.push("nodad");
        }
        self.ip(&arguments);
    }

    /// Fixes a neighbour's hardware address, so that none is asked for.
    pub(crate) fn set_neighbour(&self, interface: &str, address: IpAddr, mac: &str) {
        self.ip(&[
            "neigh",
            "replace",
            &address.to_string(),
            "lladdr",
            mac,
            "dev",
            interface,
            "nud",
            "permanent",
        ]);
    }

    /// Sends everything that is not local through `gateway`.
    pub(crate) fn set_default_route(&self, gateway: IpAddr) {
        let family = if gateway.is_ipv6() { "-6" } else { "-4" };
        self.ip(&[family, "route", "add", "default", "via", &gateway.to_string()]);
    }

    /// Forwards packets between its interfaces.
    pub(crate) fn enable_forwarding(&self) {
        self.run(&[
            "sysctl",
            "-q",
            "-w",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
        ]);
    }

    /// The kernel's counters of an interface.
    pub(crate) fn counters(&self, interface: &str) -> InterfaceCounters {
        let file = |name: &str| format!("/sys/class/net/{interface}/statistics/{name}");
        let (rx_bytes, rx_packets) = (file("rx_bytes"), file("rx_packets"));
        let (tx_bytes, tx_packets) = (file("tx_bytes"), file("tx_packets"));
        let text = self.run(&["cat", &rx_bytes, &rx_packets, &tx_bytes, &tx_packets]);
        let mut numbers = text
            .lines()
            .map(|line| line.parse().expect("a kernel counter is a number"));
        let mut next = || numbers.next().expect("four counters were asked for");
        InterfaceCounters {
            rx_bytes: next(),
            rx_packets: next(),
            tx_bytes: next(),
            tx_packets: next(),
        }
    }

    /// The sockets of a local UDP port: bytes waiting in their queues, and datagrams dropped because those were full.
    pub(crate) fn udp_socket(&self, port: u16) -> UdpSocketState {
        UdpSocketState::parse(&self.run(&["cat", "/proc/net/udp", "/proc/net/udp6"]), port)
    }

    /// Whether anybody listens on a local port (`tcp` or `udp`).
    pub(crate) fn is_listening(&self, protocol: &str, port: u16) -> bool {
        let family = if protocol == "udp" { "-Hunl" } else { "-Htnl" };
        !self.run(&["ss", family, &format!("sport = :{port}")]).trim().is_empty()
    }

    /// Packet sockets (`AF_PACKET`) open inside: a sniffer that captures has one.
    pub(crate) fn packet_socket_count(&self) -> usize {
        self.run(&["cat", "/proc/net/packet"]).lines().skip(1).count()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Failing here would hide why the test failed; a later run removes what stays.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// What the kernel counted on an interface: link-layer frames and their bytes, without checksum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InterfaceCounters {
    pub(crate) rx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_packets: u64,
}

impl InterfaceCounters {
    /// What was counted since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes - before.rx_bytes,
            rx_packets: self.rx_packets - before.rx_packets,
            tx_bytes: self.tx_bytes - before.tx_bytes,
            tx_packets: self.tx_packets - before.tx_packets,
        }
    }

    /// Layer 3 bytes received: what flow records count.
    pub(crate) fn rx_layer3_bytes(self) -> u64 {
        self.rx_bytes - ETHERNET_HEADER_BYTES * self.rx_packets
    }

    /// Layer 3 bytes sent.
    pub(crate) fn tx_layer3_bytes(self) -> u64 {
        self.tx_bytes - ETHERNET_HEADER_BYTES * self.tx_packets
    }
}

/// What waits in the sockets of a UDP port, and what they lost; see [`Namespace::udp_socket`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UdpSocketState {
    pub(crate) queued_bytes: u64,
    pub(crate) dropped: u64,
}

impl UdpSocketState {
    /// Of a port outside all namespaces.
    pub(crate) fn here(port: u16) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&(read("/proc/net/udp") + &read("/proc/net/udp6")), port)
    }

    /// Reads the kernel's table of UDP sockets. Several may share the port.
    fn parse(table: &str, port: u16) -> Self {
        let mut state = Self {
            queued_bytes: 0,
            dropped: 0,
        };
        for line in table.lines() {
            // sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode ref pointer drops
            let fields: Vec<&str> = line.split_whitespace().collect();
            let Some((_, hex_port)) = fields.get(1).and_then(|local| local.rsplit_once(':')) else {
                continue;
            };
            if u16::from_str_radix(hex_port, 16) != Ok(port) {
                continue;
            }
            let queue = fields[4].split_once(':').expect("queues are tx:rx").1;
            state.queued_bytes += u64::from_str_radix(queue, 16).expect("a queue length is hexadecimal");
            state.dropped += fields
                .last()
                .and_then(|drops| drops.parse::<u64>().ok())
                .expect("drops come last");
        }
        state
    }
}

/// One end of a link: in which namespace, under which name, with which hardware address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) interface: &'a str,
    pub(crate) mac: &'a str,
}

/// Joins two namespaces by a veth pair, up, with every offload off: a frame that is counted is one that a wire
/// would carry, no larger than the MTU, and what is sniffed is what is counted.
pub(crate) fn connect(a: End<'_>, b: End<'_>) {
    let End {
        namespace: to,
        interface: peer,
        mac: peer_mac,
    } = b;
    output_of(
        Command::new("ip")
            .args(["link", "add", a.interface, "netns", &a.namespace.name, "address", a.mac])
            .args([
                "type", "veth", "peer", "name", peer, "netns", &to.name, "address", peer_mac,
            ]),
    );
    for end in [a, b] {
        let mut offloads = vec!["ethtool", "-K", end.interface];
        for offload in ["tx", "rx", "sg", "tso", "gso", "gro"] {
            offloads.extend([offload, "off"]);
        }
        end.namespace.run(&offloads);
        end.namespace.ip(&["link", "set", end.interface, "up"]);
    }
}

/// Fails with what to do when namespaces cannot be made.
fn require_net_admin() {
    /// Bit of `CAP_NET_ADMIN` and of `CAP_SYS_ADMIN` in a capability set (capability.h).
    const NEEDED: u64 = 1 << 12 | 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .expect("the kernel shows our capabilities");
    assert!(
        effective & NEEDED == NEEDED,
        "this test makes network namespaces and needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): run tests/run, as root or with sudo"
    );
}

/// Removes namespaces of test processes that are no more.
fn remove_leftovers() {
    let list = output_of(Command::new("ip").args(["netns", "list"]));
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(owner) = name.strip_prefix(NAME_PREFIX).and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(owner).exists() {
            // Another process may be removing it at the same moment; either of us is enough.
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}
