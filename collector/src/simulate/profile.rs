//! The shape of one service's traffic, and its flows of one five-minute window as an exporter reports them.

use ipnet::IpNet;
use schemas::address::Address;
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};
use std::f64::consts::TAU;
use tables::flow::Flow;

use super::encode::SimProtocol;
use super::names::{PEERS_AMERICA, PEERS_ASIA, PEERS_EUROPE, PEERS_EVERYWHERE, Peer};
use super::parts::{FleetBilling, FleetExporter, ROUTER_EXTERNAL_IFS, SWITCH_UPLINK_IFS, ServiceKind};
use super::rng::Rng;

/// A flow lasts at most this long.
const DURATION_MS_MAX: i64 = 60_000;
/// Samples that a switch reports per service, direction and window at most: a bound for attacks.
const SAMPLES_MAX: u64 = 400;
const WINDOW_SECONDS: f64 = (WINDOW_MS / 1_000) as f64;
const BITS_PER_BYTE: f64 = 8.0;
const SECONDS_PER_MONTH: f64 = 30.0 * 86_400.0;
const BYTES_PER_GIB: f64 = (1u64 << 30) as f64;
/// The slow drift: so many days from one peak to the next, and how far it goes.
const DRIFT_DAYS: f64 = 170.0;
const DRIFT_AMPLITUDE: f64 = 0.3;
/// The 95th percentile of the day's curve with its noise is about this much above the mean.
const P95_OVER_MEAN: f64 = 1.6;
/// Networks of our own numbers are announced by no AS in the flow: 0 is our own.
const OWN_AS: u32 = 0;
const ROUTER_INTERNAL_IF_FIRST: u32 = 520;
const ROUTER_INTERNAL_IFS: u32 = 4;
const SWITCH_PORT_FIRST: u32 = 530;

/// Everything that decides a service's traffic.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Profile {
    kind: ServiceKind,
    /// Mean over a week, both directions together.
    mean_bps: f64,
    /// Share of it that leaves.
    out_share: f64,
    /// Swing of the day's curve, 0 to 1, and the local hour of its peak.
    day_amplitude: f64,
    peak_hour: f64,
    weekend_factor: f64,
    drift_phase: f64,
    noise: f64,
    /// One day in so many has an attack or a rush; 0 = never.
    spike_every_days: u64,
    utc_offset_ms: i64,
    v4: Address,
    v6: Option<Address>,
    /// Addresses of the service's IPv4 prefix.
    v4_addresses: u64,
    port_number: u32,
    vlan: u16,
    peers: &'static [Peer],
    packet_bytes_out: f64,
    packet_bytes_in: f64,
}

impl Profile {
    pub(super) fn new(
        rng: &mut Rng,
        kind: ServiceKind,
        billing: &FleetBilling,
        utc_offset_hours: i64,
        prefixes: &[IpNet],
        block: u16,
        site_index: usize,
    ) -> Profile {
        let (typical_bps, out_share, day_amplitude, peak_hour, weekend_factor) = match kind {
            ServiceKind::Vps => (3.0e6, 0.72, 0.45, 15.0, 0.85),
            ServiceKind::Dedicated => (22.0e6, 0.80, 0.50, 20.0, 1.0),
            ServiceKind::Web => (1.6e6, 0.90, 0.65, 13.5, 0.6),
            ServiceKind::Game => (7.0e6, 0.62, 0.75, 21.0, 1.35),
            ServiceKind::Mysql => (0.8e6, 0.66, 0.55, 11.0, 0.5),
            ServiceKind::Workspace => (1.8e6, 0.78, 0.85, 11.0, 0.2),
        };
        // What the plan is made for, from half of it to a bit more, so that some exceed.
        let plan_bps = match *billing {
            FleetBilling::Flat => typical_bps,
            FleetBilling::Transfer { included_gib } => {
                included_gib as f64 * BYTES_PER_GIB * BITS_PER_BYTE / SECONDS_PER_MONTH
            }
            FleetBilling::Percentile95 { commit_mbps } => commit_mbps as f64 * 1.0e6 / P95_OVER_MEAN,
        };
        let nearly_idle = rng.below(16) == 0;
        let mean_bps = if nearly_idle {
            rng.between(400.0, 6_000.0)
        } else {
            plan_bps * rng.between(0.3, 1.3)
        };
        let v4 = prefixes.iter().find(|net| net.addr().is_ipv4());
        let v6 = prefixes.iter().find(|net| net.addr().is_ipv6());
        Profile {
            kind,
            mean_bps,
            out_share: (out_share + rng.between(-0.08, 0.08)).clamp(0.1, 0.95),
            day_amplitude: (day_amplitude + rng.between(-0.1, 0.1)).clamp(0.1, 0.9),
            peak_hour: peak_hour + rng.between(-1.5, 1.5),
            weekend_factor,
            drift_phase: rng.unit() * TAU,
            noise: rng.between(0.05, 0.25),
            spike_every_days: match rng.below(9) {
                0 => 11,
                1 => 23,
                _ => 0,
            },
            utc_offset_ms: utc_offset_hours * HOUR_MS,
            v4: v4.map_or(Address::UNSPECIFIED, |net| Address::from(net.addr())),
            v6: v6.map(|net| Address::from(net.addr())),
            v4_addresses: match v4 {
                Some(net) if net.prefix_len() < 32 => 6,
                _ => 1,
            },
            port_number: u32::from(block),
            vlan: 100 + block,
            peers: match site_index {
                0 => &PEERS_AMERICA,
                1 => &PEERS_EUROPE,
                _ => &PEERS_ASIA,
            },
            packet_bytes_out: if kind == ServiceKind::Game { 420.0 } else { 1_180.0 },
            packet_bytes_in: if kind == ServiceKind::Game { 180.0 } else { 390.0 },
        }
    }

    /// (in, out) bytes of the window and whether an attack runs.
    fn volumes(&self, seed: u64, window_ms: i64, rng: &mut Rng) -> (f64, f64, bool) {
        let local_ms = window_ms + self.utc_offset_ms;
        let hour = local_ms.rem_euclid(DAY_MS) as f64 / HOUR_MS as f64;
        let day = local_ms.div_euclid(DAY_MS);
        // 1970-01-01 was a Thursday.
        let weekday = (day + 3).rem_euclid(7);
        let day_curve = 1.0 + self.day_amplitude * ((hour - self.peak_hour) / 24.0 * TAU).cos();
        let week_factor = if weekday >= 5 { self.weekend_factor } else { 1.0 };
        let drift = 1.0 + DRIFT_AMPLITUDE * (day as f64 / DRIFT_DAYS * TAU + self.drift_phase).sin();
        // The mean of three uniform numbers is near enough to a bell.
        let bell = (rng.unit() + rng.unit() + rng.unit()) * 2.0 - 3.0;
        let noise = (1.0 + self.noise * bell).max(0.1);
        let bytes = self.mean_bps * WINDOW_SECONDS / BITS_PER_BYTE * day_curve * week_factor * drift * noise;
        let spike = self.spike_factor(seed, day, hour);
        let (bytes_in, bytes_out) = (bytes * (1.0 - self.out_share), bytes * self.out_share);
        (bytes_in * spike, bytes_out * (1.0 + (spike - 1.0) * 0.05), spike > 1.0)
    }

    /// How many times more comes in: 1 but for the hours of an attack.
    fn spike_factor(&self, seed: u64, day: i64, hour: f64) -> f64 {
        if self.spike_every_days == 0 {
            return 1.0;
        }
        let mut rng = Rng::keyed(seed, [2, day as u64, 0]);
        if rng.below(self.spike_every_days) != 0 {
            return 1.0;
        }
        let from_hour = rng.between(0.0, 22.0);
        let hours = rng.between(0.4, 2.5);
        let factor = rng.between(6.0, 22.0);
        if hour >= from_hour && hour < from_hour + hours {
            factor
        } else {
            1.0
        }
    }

    /// (IP protocol, port at the service)
    fn application(&self, rng: &mut Rng) -> (u8, u16) {
        let roll = rng.below(100);
        match (self.kind, roll) {
            (ServiceKind::Web, 0..75) | (ServiceKind::Vps | ServiceKind::Dedicated, 0..50) => (6, 443),
            (ServiceKind::Web, 75..90) => (17, 443),
            (ServiceKind::Web, _) | (ServiceKind::Vps, 50..65) => (6, 80),
            (ServiceKind::Vps, 65..80) => (6, 22),
            (ServiceKind::Vps, _) => (17, 51_820),
            (ServiceKind::Dedicated, 50..75) => (6, 8_443),
            (ServiceKind::Dedicated, 75..90) => (17, 1_194),
            (ServiceKind::Dedicated, _) => (6, 22),
            (ServiceKind::Game, 0..70) => (17, 27_015),
            (ServiceKind::Game, _) => (6, 25_565),
            (ServiceKind::Mysql, 0..95) => (6, 3_306),
            (ServiceKind::Mysql, _) => (6, 33_060),
            (ServiceKind::Workspace, 0..80) => (6, 8_443),
            (ServiceKind::Workspace, _) => (17, 3_478),
        }
    }
}

/// Gives `emit` the flows of a service that end in the window beginning at `window_ms`.
pub(super) fn window_flows(
    exporter: &FleetExporter,
    profile: &Profile,
    seed: u64,
    window_ms: i64,
    density: u32,
    mut emit: impl FnMut(Flow),
) {
    // Volumes are the service's; what a certain exporter samples of them is its own.
    let mut volume_rng = Rng::keyed(seed, [3, window_ms as u64, 0]);
    let (bytes_in, bytes_out, attack) = profile.volumes(seed, window_ms, &mut volume_rng);
    let mut rng = Rng::keyed(
        seed,
        [4, window_ms as u64, exporter.config.address.first().to_u128() as u64],
    );
    let density = u64::from(density.max(2));
    let flows_out = ((density as f64 * profile.out_share).round() as u64).clamp(1, density - 1);
    for (inwards, bytes, flow_count) in [(true, bytes_in, density - flows_out), (false, bytes_out, flows_out)] {
        let packet_bytes = match (inwards, attack) {
            (true, true) => 900.0,
            (true, false) => profile.packet_bytes_in,
            (false, _) => profile.packet_bytes_out,
        };
        let sampled_bytes = bytes / f64::from(exporter.sampling_rate);
        let direction = Direction {
            exporter,
            profile,
            window_ms,
            inwards,
            attack,
        };
        if exporter.protocol == SimProtocol::Sflow {
            let expected = sampled_bytes / packet_bytes;
            let samples = whole(expected, &mut rng).min(SAMPLES_MAX);
            for position in 0..samples {
                // Sizes spread around the mean and keep it.
                let size = (packet_bytes * rng.between(0.75, 1.25)).clamp(90.0, 1_500.0);
                emit(direction.flow(&mut rng, position, samples, size as u64, 1));
            }
        } else {
            direction.report(&mut rng, sampled_bytes, packet_bytes, flow_count, &mut emit);
        }
    }
}

/// A whole number whose mean over many calls is `expected`.
fn whole(expected: f64, rng: &mut Rng) -> u64 {
    (expected + rng.unit()) as u64
}

struct Direction<'a> {
    exporter: &'a FleetExporter,
    profile: &'a Profile,
    window_ms: i64,
    inwards: bool,
    attack: bool,
}

impl Direction<'_> {
    /// Flows of many packets each, with the volume shared unevenly.
    fn report(
        &self,
        rng: &mut Rng,
        sampled_bytes: f64,
        packet_bytes: f64,
        flow_count: u64,
        emit: &mut impl FnMut(Flow),
    ) {
        let per_flow = sampled_bytes / flow_count as f64;
        for position in 0..flow_count {
            // Weights in pairs of w and 2 − w keep the sum.
            let weight = match position % 2 {
                _ if flow_count % 2 == 1 && position + 1 == flow_count => 1.0,
                0 => 0.6,
                _ => 1.4,
            };
            let packets = whole(per_flow * weight / packet_bytes, rng);
            if packets > 0 {
                let bytes = (packets as f64 * packet_bytes * rng.between(0.97, 1.03)) as u64;
                emit(self.flow(rng, position, flow_count, bytes.max(packets * 40), packets));
            }
        }
    }

    fn flow(&self, rng: &mut Rng, position: u64, count: u64, bytes: u64, packets: u64) -> Flow {
        let profile = self.profile;
        let attack = self.attack && self.inwards;
        let slot_ms = WINDOW_MS as f64 / count as f64;
        let end_offset_ms = ((position as f64 + rng.unit()) * slot_ms) as i64;
        let end_at_ms = self.window_ms + end_offset_ms.min(WINDOW_MS - 1);
        let duration_ms = match packets {
            1 => 0,
            _ => rng.below(DURATION_MS_MAX as u64) as i64,
        };
        let everywhere = rng.below(4) == 0;
        let peer = rng.pick(if everywhere { &PEERS_EVERYWHERE } else { profile.peers });
        let ipv6 = profile.v6.filter(|_| !attack && rng.below(10) < 4);
        let host = rng.word();
        let outside = peer_address(peer, host, ipv6.is_some());
        let inside = match ipv6 {
            Some(Address(prefix)) => {
                let mut bytes = prefix;
                bytes[15] = 10;
                Address(bytes)
            }
            None => nth_address(profile.v4, 1 + rng.below(profile.v4_addresses), profile.v4_addresses),
        };
        let (ip_protocol, service_port) = match attack {
            true => (17, 80),
            false => profile.application(rng),
        };
        // Amplification comes from DNS and NTP servers.
        let peer_port = match attack {
            true => *rng.pick(&[53, 123, 389]),
            false => 32_768 + (host % 28_000) as u16,
        };
        let external = (peer.asn % 2) as usize;
        let (external_if, internal_if) = if self.exporter.protocol == SimProtocol::Sflow {
            (SWITCH_UPLINK_IFS[external], SWITCH_PORT_FIRST + profile.port_number)
        } else {
            (
                ROUTER_EXTERNAL_IFS[external],
                ROUTER_INTERNAL_IF_FIRST + profile.port_number % ROUTER_INTERNAL_IFS,
            )
        };
        let next_hop = match ipv6 {
            Some(_) => Address::UNSPECIFIED,
            None if self.inwards => Address::from_v4([192, 0, 2, 2 + (profile.port_number % 4) as u8]),
            None => Address::from_v4([192, 0, 2, 101 + external as u8]),
        };
        let (inside_mask, outside_mask) = if ipv6.is_some() { (64, 32) } else { (24, 16) };
        let mut flow = Flow {
            received_at_ms: end_at_ms,
            start_at_ms: (end_at_ms - duration_ms).max(self.window_ms),
            end_at_ms,
            exporter: self.exporter.config.address.first(),
            observation_domain: self.exporter.observation_domain,
            protocol_version: self.exporter.protocol.protocol_version(),
            sampling_rate: self.exporter.sampling_rate,
            direction: 0,
            ip_protocol,
            tcp_flags: if ip_protocol == 6 { 0x18 } else { 0 },
            in_vlan: profile.vlan,
            out_vlan: profile.vlan,
            next_hop,
            bytes,
            packets,
            ..Flow::default()
        };
        if self.inwards {
            (flow.in_if, flow.out_if) = (external_if, internal_if);
            (flow.src_addr, flow.dst_addr) = (outside, inside);
            (flow.src_port, flow.dst_port) = (peer_port, service_port);
            (flow.src_as, flow.dst_as) = (peer.asn, OWN_AS);
            (flow.src_mask, flow.dst_mask) = (outside_mask, inside_mask);
        } else {
            (flow.in_if, flow.out_if) = (internal_if, external_if);
            (flow.src_addr, flow.dst_addr) = (inside, outside);
            (flow.src_port, flow.dst_port) = (service_port, peer_port);
            (flow.src_as, flow.dst_as) = (OWN_AS, peer.asn);
            (flow.src_mask, flow.dst_mask) = (inside_mask, outside_mask);
        }
        flow
    }
}

/// The service's address: of a single one itself, of a prefix a host of it.
fn nth_address(first: Address, nth: u64, addresses: u64) -> Address {
    if addresses == 1 {
        return first;
    }
    let mut bytes = first.0;
    bytes[15] += nth as u8;
    Address(bytes)
}

/// A host of the peer. Few hosts make most of the traffic, so top lists have a top.
fn peer_address(peer: &Peer, host: u64, ipv6: bool) -> Address {
    let host = match host % 5 {
        0..=2 => host % 12,
        _ => host % 50_000,
    };
    let [high, low] = (host as u16).to_be_bytes();
    if ipv6 {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&peer.v6);
        (bytes[7], bytes[14], bytes[15]) = (1, high, low);
        Address(bytes)
    } else {
        let [a, b] = peer.v4;
        Address::from_v4([a, b, high, low | 1])
    }
}
