//! Random flows of plausible shape, by seed: the input of `simulate`.
//!
//! Inside are [`INSIDE_IPV4`] and [`INSIDE_IPV6`], outside everything else; half of the flows go each way through the
//! interfaces [`EXTERNAL_IF`] and [`INTERNAL_IF_FIRST`] and following. Sizes are long-tailed, as real ones.

use schemas::address::Address;
use tables::flow::Flow;

use super::encode::SimProtocol;
use super::rng::Rng;

/// TEST-NET-2 (RFC 5737): the simulated network's IPv4 prefix, a /24.
pub const INSIDE_IPV4: [u8; 4] = [198, 51, 100, 0];
/// The simulated network's IPv6 prefix, 2001:db8:51::/48.
pub const INSIDE_IPV6: [u8; 6] = [0x20, 0x01, 0x0d, 0xb8, 0x00, 0x51];
/// The interface that faces other networks.
pub const EXTERNAL_IF: u32 = 513;
/// The first of the interfaces that face our own.
pub const INTERNAL_IF_FIRST: u32 = 520;
const INTERNAL_IFS: u64 = 8;
const DURATION_MS_MAX: u64 = 60_000;
const PACKETS_MAX: f64 = 2_000.0;

/// What the flows are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrafficConfig {
    pub seed: u64,
    /// Flows are such as this protocol can express: IPv4 in v5, single packets in sFlow.
    pub protocol: SimProtocol,
    /// Share of IPv6 flows in percent, 0 to 100; none in v5.
    pub ipv6_percent: u8,
}

/// A source of random flows.
#[derive(Clone, Debug)]
pub struct Traffic {
    config: TrafficConfig,
    rng: Rng,
}

/// (IP protocol, server port, weight of 100)
const APPLICATIONS: [(u8, u16, u64); 8] = [
    (6, 443, 48),
    (17, 443, 14),
    (6, 80, 10),
    (17, 53, 10),
    (6, 22, 4),
    (17, 27_015, 6),
    (6, 3_306, 4),
    (1, 0, 4),
];
const APPLICATIONS_WEIGHT: u64 = 100;
/// Autonomous systems of the other side.
const PEER_AS: [u32; 8] = [15_169, 7_922, 3_320, 16_509, 13_335, 4_766, 9_498, 28_573];

impl Traffic {
    pub fn new(config: TrafficConfig) -> Traffic {
        let rng = Rng::new(config.seed);
        Traffic { config, rng }
    }

    /// Appends `count` flows that ended within the second before `now_ms`.
    pub fn fill(&mut self, now_ms: i64, count: usize, out: &mut Vec<Flow>) {
        out.reserve(count);
        for _ in 0..count {
            let flow = self.flow(now_ms);
            out.push(flow);
        }
    }

    fn flow(&mut self, now_ms: i64) -> Flow {
        let rng = &mut self.rng;
        let ipv6 = self.config.protocol != SimProtocol::V5 && rng.below(100) < u64::from(self.config.ipv6_percent);
        let (application, server_port) = application(rng);
        let inwards = rng.below(2) == 0;
        let inside = inside_address(rng, ipv6);
        let outside = outside_address(rng, ipv6);
        let client_port = 32_768 + rng.below(28_232) as u16;
        let peer_as = *rng.pick(&PEER_AS);
        let internal_if = INTERNAL_IF_FIRST + rng.below(INTERNAL_IFS) as u32;
        let (bytes, packets) = size(rng, self.config.protocol, application, ipv6);
        let end_at_ms = now_ms - rng.below(1_000) as i64;
        let duration_ms = if packets == 1 {
            0
        } else {
            rng.below(DURATION_MS_MAX) as i64
        };
        let tos = *rng.pick(&[0, 0, 0, 0x28, 0xb8]);
        let vlan = 100 + rng.below(64) as u16;
        let mut flow = Flow {
            received_at_ms: now_ms,
            start_at_ms: end_at_ms - duration_ms,
            end_at_ms,
            protocol_version: self.config.protocol.protocol_version(),
            direction: 0,
            ip_protocol: application,
            tcp_flags: if application == 6 {
                *rng.pick(&[0x10, 0x18, 0x1b, 0x02])
            } else {
                0
            },
            tos,
            in_vlan: vlan,
            out_vlan: vlan,
            bytes,
            packets,
            ..Flow::default()
        };
        // Our side is the server.
        let (outside_port, inside_port) = if server_port == 0 {
            (0, 0)
        } else {
            (client_port, server_port)
        };
        let inside_mask = if ipv6 { 48 } else { 24 };
        let outside_mask = if ipv6 { 32 } else { 16 };
        if application == 1 {
            flow.ip_protocol = if ipv6 { 58 } else { 1 };
            flow.icmp_type_code = match (ipv6, inwards) {
                (false, true) => 8 << 8,
                (false, false) => 0,
                (true, true) => 128 << 8,
                (true, false) => 129 << 8,
            };
        }
        if inwards {
            (flow.src_addr, flow.dst_addr) = (outside, inside);
            (flow.src_port, flow.dst_port) = (outside_port, inside_port);
            (flow.in_if, flow.out_if) = (EXTERNAL_IF, internal_if);
            (flow.src_as, flow.dst_as) = (peer_as, 0);
            (flow.src_mask, flow.dst_mask) = (outside_mask, inside_mask);
        } else {
            (flow.src_addr, flow.dst_addr) = (inside, outside);
            (flow.src_port, flow.dst_port) = (inside_port, outside_port);
            (flow.in_if, flow.out_if) = (internal_if, EXTERNAL_IF);
            (flow.src_as, flow.dst_as) = (0, peer_as);
            (flow.src_mask, flow.dst_mask) = (inside_mask, outside_mask);
        }
        flow
    }
}

fn application(rng: &mut Rng) -> (u8, u16) {
    let mut roll = rng.below(APPLICATIONS_WEIGHT);
    for (ip_protocol, port, weight) in APPLICATIONS {
        if roll < weight {
            return (ip_protocol, port);
        }
        roll -= weight;
    }
    (6, 443)
}

fn inside_address(rng: &mut Rng, ipv6: bool) -> Address {
    if ipv6 {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&INSIDE_IPV6);
        bytes[7] = rng.below(200) as u8;
        bytes[15] = 1 + rng.below(250) as u8;
        Address(bytes)
    } else {
        let [a, b, c, _] = INSIDE_IPV4;
        Address::from_v4([a, b, c, 1 + rng.below(254) as u8])
    }
}

fn outside_address(rng: &mut Rng, ipv6: bool) -> Address {
    let word = rng.word().to_be_bytes();
    if ipv6 {
        let mut bytes = [0; 16];
        bytes[0] = 0x2a;
        bytes[1..8].copy_from_slice(&word[..7]);
        bytes[15] = word[7];
        Address(bytes)
    } else {
        // Between 11.0.0.0 and 99.255.255.255: neither private nor ours.
        Address::from_v4([11 + word[0] % 89, word[1], word[2], word[3]])
    }
}

/// (bytes, packets) at layer 3.
fn size(rng: &mut Rng, protocol: SimProtocol, application: u8, ipv6: bool) -> (u64, u64) {
    let packet_bytes_min: u64 = if ipv6 { 80 } else { 60 };
    let packet_bytes = match application {
        1 => packet_bytes_min + 24,
        _ if rng.below(3) == 0 => packet_bytes_min + rng.below(200),
        _ => 600 + rng.below(901),
    };
    if protocol == SimProtocol::Sflow {
        return (packet_bytes, 1);
    }
    // Half of all flows are a single packet, as sampled ones are; one in a hundred holds a hundred or more.
    let packets = (1.0 / (1.0 - rng.unit())).min(PACKETS_MAX) as u64;
    (
        packets * packet_bytes - rng.below(packets) * u64::from(packets > 1),
        packets,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(protocol: SimProtocol, seed: u64) -> Vec<Flow> {
        let mut traffic = Traffic::new(TrafficConfig {
            seed,
            protocol,
            ipv6_percent: 20,
        });
        let mut flows = Vec::new();
        traffic.fill(1_700_000_000_000, 2_000, &mut flows);
        flows
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(flows(SimProtocol::Ipfix, 1), flows(SimProtocol::Ipfix, 1));
        assert_ne!(flows(SimProtocol::Ipfix, 1), flows(SimProtocol::Ipfix, 2));
    }

    #[test]
    fn flows_suit_the_protocol() {
        assert!(flows(SimProtocol::V5, 3).iter().all(|flow| flow.src_addr.is_v4()));
        let sflow = flows(SimProtocol::Sflow, 3);
        assert!(sflow.iter().all(|flow| flow.packets == 1 && flow.bytes <= 1_500));
        let ipv6 = sflow.iter().filter(|flow| !flow.src_addr.is_v4()).count();
        assert!((300..500).contains(&ipv6), "{ipv6} of 2000 at 20 %");
        for flow in flows(SimProtocol::Ipfix, 3) {
            assert!(flow.packets > 0 && flow.bytes >= flow.packets * 59);
            assert!(flow.start_at_ms <= flow.end_at_ms);
        }
    }
}
