//! The traffic that the exporters report: by seed, and shaped like a hosting company's.
//!
//! * Hosts of ours and other networks' are busy in the manner of Zipf: the n-th busiest has a share of 1/n.
//! * A third of the remote hosts are the long tail, which is seen once or twice. Their addresses are marked
//!   ([`is_tail`]), because the sender changes them in every round, as it does ephemeral ports: traffic does not repeat.
//! * Packets of a flow and their sizes are log-normal and two-humped; a sampled packet of sFlow is one packet.
//! * Flows ended up to 16 seconds before they are reported, because routers wait for an inactivity timeout, and lasted
//!   at most 60 seconds, the active timeout.

use collector::simulate::encode::SimProtocol;
use collector::simulate::rng::{Rng, mix};
use schemas::address::Address;
use std::f64::consts::TAU;
use tables::flow::Flow;

use crate::addresses::{IPV4_BLOCK_HOSTS, IPV4_BLOCKS, IPV6_NETWORK_HOSTS, IPV6_NETWORKS, inside_ipv4, inside_ipv6};

/// Ephemeral ports begin here; servers' ports are below.
pub(crate) const EPHEMERAL_PORT_MIN: u16 = 32_768;
const EPHEMERAL_PORTS: u64 = 28_232;
/// Remote hosts that come again.
const REMOTE_HOSTS: u64 = 200_000;
const TAIL_PERCENT: u64 = 33;
/// First bytes of remote addresses: known hosts and the tail, in IPv4 and IPv6.
const KNOWN_IPV4: (u8, u8) = (11, 50);
const TAIL_IPV4: (u8, u8) = (61, 39);
const KNOWN_IPV6: u8 = 0x2a;
const TAIL_IPV6: u8 = 0x2b;
const AUTONOMOUS_SYSTEMS: u64 = 2_000;
const UPLINKS: [u32; 4] = [513, 514, 515, 516];
const INTERNAL_IF_FIRST: u32 = 520;
const INTERNAL_IFS: u64 = 48;
const INACTIVE_TIMEOUT_MS: u64 = 15_000;
const ACTIVE_TIMEOUT_MS: u64 = 60_000;
const PACKETS_MAX: f64 = 1_000_000.0;

/// (IP protocol, server's port, weight of 100)
const APPLICATIONS: [(u8, u16, u64); 12] = [
    (6, 443, 42),
    (17, 443, 15),
    (6, 80, 9),
    (17, 53, 9),
    (6, 22, 4),
    (6, 25, 3),
    (6, 993, 3),
    (17, 27_015, 5),
    (6, 3_306, 3),
    (6, 8_443, 3),
    (17, 123, 2),
    (1, 0, 2),
];

/// Whether an address, as the bytes of its family, is one of the long tail.
pub(crate) fn is_tail(bytes: &[u8]) -> bool {
    match bytes.len() {
        4 => (TAIL_IPV4.0..TAIL_IPV4.0 + TAIL_IPV4.1).contains(&bytes[0]),
        _ => bytes[0] == TAIL_IPV6,
    }
}

/// A source of flows.
#[derive(Debug)]
pub(crate) struct Flows {
    rng: Rng,
    protocol: SimProtocol,
}

impl Flows {
    pub(crate) fn new(seed: u64, protocol: SimProtocol) -> Flows {
        Flows {
            rng: Rng::new(seed),
            protocol,
        }
    }

    /// A flow that is reported at `now_ms`.
    pub(crate) fn next(&mut self, now_ms: i64, ipv6: bool) -> Flow {
        let rng = &mut self.rng;
        let (ip_protocol, server_port) = application(rng);
        let inwards = rng.below(100) < 45;
        let inside = inside(rng, ipv6);
        let outside = outside(rng, ipv6);
        let client_port = EPHEMERAL_PORT_MIN + rng.below(EPHEMERAL_PORTS) as u16;
        let (bytes, packets) = size(rng, self.protocol, inwards, ipv6);
        let (start_at_ms, end_at_ms) = times(rng, now_ms, packets);
        let uplink = *rng.pick(&UPLINKS);
        let internal_if = INTERNAL_IF_FIRST + zipf(rng, INTERNAL_IFS) as u32;
        let remote_as = as_of(outside);
        let (mask_inside, mask_outside) = if ipv6 {
            (48, 32)
        } else {
            (22, 16 + (remote_as % 9) as u8)
        };
        let next_hop_bytes = [203, 0, 113, 1 + (remote_as % 8) as u8];
        let vlan = if inwards { 0 } else { 100 + internal_if as u16 };
        let mut flow = Flow {
            received_at_ms: now_ms,
            start_at_ms,
            end_at_ms,
            protocol_version: self.protocol.protocol_version(),
            direction: 0,
            ip_protocol,
            tcp_flags: match ip_protocol {
                6 => *rng.pick(&[0x10, 0x18, 0x1b, 0x1b, 0x1f, 0x02, 0x12, 0x14]),
                _ => 0,
            },
            tos: *rng.pick(&[0, 0, 0, 0, 0, 0x28, 0x48, 0xb8]),
            in_vlan: vlan,
            out_vlan: vlan,
            next_hop: if ipv6 {
                inside_ipv6(u64::from(remote_as % 8), 0)
            } else {
                Address::from_v4(next_hop_bytes)
            },
            bytes,
            packets,
            ..Flow::default()
        };
        if server_port == 0 {
            flow.ip_protocol = if ipv6 { 58 } else { 1 };
            flow.icmp_type_code = *rng.pick(if ipv6 { &[128 << 8, 129 << 8] } else { &[8 << 8, 0] });
        }
        // Mostly our side is the server.
        let ours_serves = rng.below(100) < 85;
        let (port_inside, port_outside) = match (server_port, ours_serves) {
            (0, _) => (0, 0),
            (port, true) => (port, client_port),
            (port, false) => (client_port, port),
        };
        if inwards {
            (flow.src_addr, flow.dst_addr) = (outside, inside);
            (flow.src_port, flow.dst_port) = (port_outside, port_inside);
            (flow.in_if, flow.out_if) = (uplink, internal_if);
            (flow.src_mask, flow.dst_mask) = (mask_outside, mask_inside);
            flow.src_as = remote_as;
        } else {
            (flow.src_addr, flow.dst_addr) = (inside, outside);
            (flow.src_port, flow.dst_port) = (port_inside, port_outside);
            (flow.in_if, flow.out_if) = (internal_if, uplink);
            (flow.src_mask, flow.dst_mask) = (mask_inside, mask_outside);
            flow.dst_as = remote_as;
        }
        if self.protocol == SimProtocol::Sflow {
            // A switch of layer 2: no routes, and so neither next hop, masks nor AS numbers.
            flow.next_hop = Address::UNSPECIFIED;
            (flow.src_mask, flow.dst_mask, flow.src_as, flow.dst_as) = (0, 0, 0, 0);
        }
        flow
    }
}

/// The rank, from 0, of something whose n-th has a share of 1/n: the logarithm of its rank is uniform.
fn zipf(rng: &mut Rng, count: u64) -> u64 {
    let rank = (rng.unit() * (count as f64 + 1.0).ln()).exp() as u64;
    rank.clamp(1, count) - 1
}

fn application(rng: &mut Rng) -> (u8, u16) {
    let mut roll = rng.below(100);
    for (ip_protocol, port, weight) in APPLICATIONS {
        if roll < weight {
            return (ip_protocol, port);
        }
        roll -= weight;
    }
    (6, 443)
}

/// Busy customers are spread over the address space: their rank is scattered over the blocks.
fn inside(rng: &mut Rng, ipv6: bool) -> Address {
    // Both factors are odd primes that divide neither count, so that the products run through every block.
    if ipv6 {
        let network = zipf(rng, IPV6_NETWORKS) * 7_919 % IPV6_NETWORKS;
        inside_ipv6(network, zipf(rng, IPV6_NETWORK_HOSTS))
    } else {
        let block = zipf(rng, IPV4_BLOCKS) * 7_919 % IPV4_BLOCKS;
        inside_ipv4(block, rng.below(IPV4_BLOCK_HOSTS))
    }
}

fn outside(rng: &mut Rng, ipv6: bool) -> Address {
    let tail = rng.below(100) < TAIL_PERCENT;
    let word = if tail {
        rng.word()
    } else {
        mix(zipf(rng, REMOTE_HOSTS) + 1)
    };
    let bytes = word.to_be_bytes();
    if ipv6 {
        let mut address = [0; 16];
        address[0] = if tail { TAIL_IPV6 } else { KNOWN_IPV6 };
        address[1..4].copy_from_slice(&[bytes[1] % 16, bytes[2], 0]);
        address[8..16].copy_from_slice(&bytes);
        Address(address)
    } else {
        let (first, count) = if tail { TAIL_IPV4 } else { KNOWN_IPV4 };
        Address::from_v4([first + bytes[0] % count, bytes[1], bytes[2], bytes[3]])
    }
}

/// The AS a remote address is routed to: by its leading bits, some far larger than others.
fn as_of(address: Address) -> u32 {
    let leading = if address.is_v4() {
        &address.0[12..14]
    } else {
        &address.0[0..3]
    };
    let key = leading.iter().fold(0u64, |key, byte| key << 8 | u64::from(*byte));
    let rank = zipf(&mut Rng::keyed(0xa5, [key, 0, 0]), AUTONOMOUS_SYSTEMS);
    // Some of four bytes, as half of the Internet's are.
    64 + (mix(rank) % if rank.is_multiple_of(2) { 60_000 } else { 330_000 }) as u32
}

/// (bytes, packets) at layer 3.
fn size(rng: &mut Rng, protocol: SimProtocol, inwards: bool, ipv6: bool) -> (u64, u64) {
    let least: u64 = if ipv6 { 80 } else { 60 };
    // Acknowledgements and full segments; more of the former come in.
    let small = rng.below(100) < if inwards { 70 } else { 35 };
    let packet_bytes = if small {
        least + rng.below(120)
    } else {
        700 + rng.below(801)
    };
    if protocol == SimProtocol::Sflow {
        return (packet_bytes, 1);
    }
    // A normal number by Box and Muller; the median flow has 6 packets, one in a hundred more than 450.
    let normal = (-2.0 * (1.0 - rng.unit()).ln()).sqrt() * (TAU * rng.unit()).cos();
    let packets = (6f64.ln() + 1.85 * normal).exp().clamp(1.0, PACKETS_MAX) as u64;
    let bytes = packets * packet_bytes - rng.below(packets * 20 + 1).min(packets * (packet_bytes - least));
    (bytes, packets)
}

/// (first, last) packet.
fn times(rng: &mut Rng, now_ms: i64, packets: u64) -> (i64, i64) {
    let long = packets > 200 && rng.below(2) == 0;
    let (ended_before_ms, lasted_ms) = if long {
        (rng.below(1_000), ACTIVE_TIMEOUT_MS - rng.below(1_000))
    } else {
        let longest_ms = match packets {
            1 => 1,
            2..=20 => 4_000,
            _ => ACTIVE_TIMEOUT_MS,
        };
        (INACTIVE_TIMEOUT_MS + rng.below(1_000), rng.below(longest_ms))
    };
    let end_at_ms = now_ms - ended_before_ms as i64;
    (end_at_ms - lasted_ms as i64, end_at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    const NOW_MS: i64 = 1_700_000_000_000;

    fn flows(protocol: SimProtocol, seed: u64, count: usize) -> Vec<Flow> {
        let mut flows = Flows::new(seed, protocol);
        (0..count)
            .map(|n| flows.next(NOW_MS, protocol != SimProtocol::V5 && n % 10 == 0))
            .collect()
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(flows(SimProtocol::Ipfix, 1, 1_000), flows(SimProtocol::Ipfix, 1, 1_000));
        assert_ne!(flows(SimProtocol::Ipfix, 1, 1_000), flows(SimProtocol::Ipfix, 2, 1_000));
    }

    #[test]
    fn traffic_is_as_varied_as_it_says() {
        let flows = flows(SimProtocol::Ipfix, 7, 40_000);
        let mut by_host: HashMap<Address, u32> = HashMap::new();
        let mut autonomous_systems = HashSet::new();
        let mut tail = 0;
        for flow in &flows {
            let inwards = flow.in_if < INTERNAL_IF_FIRST;
            let (outside, inside) = if inwards {
                (flow.src_addr, flow.dst_addr)
            } else {
                (flow.dst_addr, flow.src_addr)
            };
            *by_host.entry(inside).or_default() += 1;
            autonomous_systems.insert(flow.src_as.max(flow.dst_as));
            let bytes = if outside.is_v4() {
                &outside.0[12..]
            } else {
                &outside.0[..]
            };
            tail += usize::from(is_tail(bytes));
            assert!(flow.start_at_ms <= flow.end_at_ms && flow.end_at_ms <= NOW_MS);
            assert!(flow.end_at_ms - flow.start_at_ms <= 60_000);
            assert!(flow.packets >= 1 && flow.bytes >= flow.packets * 60);
        }
        assert!((12_000..14_500).contains(&tail), "{tail} of 40000 at 33 %");
        assert!(by_host.len() > 10_000, "{} hosts of ours", by_host.len());
        assert!(*by_host.values().max().unwrap() > 200, "the busiest host is busy");
        assert!(autonomous_systems.len() > 500, "{} systems", autonomous_systems.len());
    }
}
