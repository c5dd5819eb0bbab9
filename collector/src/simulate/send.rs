//! Sends simulated exporters' datagrams over UDP at a paced rate and says exactly what was sent.
//!
//! To a loopback IPv4 target each exporter sends from its own address (127.0.0.1, 127.0.0.2, …), so a collector tells
//! them apart; to any other target they share one socket and differ by observation domain (sFlow: also by agent address).
//!
//! The pace is kept per datagram against the start of the run, so it does not drift: a late datagram is followed by as
//! many as are due. UDP tells nothing about loss; the sums are what was handed to the kernel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use schemas::address::Address;

use super::encode::{EncodeError, SimExporter, SimExporterConfig, SimProtocol, Sums};
use super::traffic::{Traffic, TrafficConfig};

/// Exporters beyond this would leave 127.0.0.0/16.
pub const EXPORTERS_MAX: u32 = 50_000;
/// Flows encoded at a time for one exporter: some twenty datagrams.
const BATCH_FLOWS: u64 = 300;
/// Waits shorter than this are left to the next datagram.
const WAIT_MIN: Duration = Duration::from_micros(200);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long the exporters have been up when the run starts.
const UPTIME_MS: i64 = 3_600_000;

/// A run of [`run`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimulateConfig {
    pub to: SocketAddr,
    pub protocol: SimProtocol,
    /// Flows in total, over all exporters.
    pub flows: u64,
    /// Flows per second over all exporters; 0 = as fast as the kernel takes them.
    pub rate: u64,
    pub exporters: u32,
    pub seed: u64,
    pub sampling_rate: u32,
    /// Share of IPv6 flows in percent; v5 has none.
    pub ipv6_percent: u8,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error("{exporters} exporters asked for, 1 to {EXPORTERS_MAX} are possible")]
    Exporters { exporters: u32 },
    #[error("cannot bind {from} to send from")]
    Bind { from: SocketAddr, source: io::Error },
    #[error("cannot send to {to}")]
    Send { to: SocketAddr, source: io::Error },
    #[error("cannot encode the flows")]
    Encode(#[from] EncodeError),
}

/// Sends `config.flows` flows and returns their exact sums; `progress` hears of the sums so far several times a second
/// and once at the end.
///
/// # Errors
/// When a socket cannot be had, the kernel refuses a datagram, or the settings do not fit the protocol.
pub fn run(config: &SimulateConfig, mut progress: impl FnMut(&Sums)) -> Result<Sums, SimulateError> {
    if config.exporters == 0 || config.exporters > EXPORTERS_MAX {
        return Err(SimulateError::Exporters {
            exporters: config.exporters,
        });
    }
    let sockets = bind_sockets(config)?;
    let boot_at_ms = schemas::clock::machine_now_ms() - UPTIME_MS;
    let mut exporters: Vec<SimExporter> = (0..config.exporters)
        .map(|index| {
            SimExporter::new(SimExporterConfig::new(
                exporter_address(config.to, index),
                index,
                config.protocol,
                config.sampling_rate,
                boot_at_ms,
            ))
        })
        .collect();
    let mut traffic = Traffic::new(TrafficConfig {
        seed: config.seed,
        protocol: config.protocol,
        ipv6_percent: config.ipv6_percent,
    });

    let started = Instant::now();
    let mut progress_at = started + PROGRESS_INTERVAL;
    let mut sums = Sums::default();
    let mut flows = Vec::new();
    let mut datagrams = Vec::new();
    let mut turn = 0;
    while sums.flows < config.flows {
        // Every exporter gets a turn even in a short run.
        let fair_share = config.flows.div_ceil(u64::from(config.exporters));
        let count = BATCH_FLOWS.min(fair_share).min(config.flows - sums.flows);
        let now_ms = schemas::clock::machine_now_ms();
        flows.clear();
        traffic.fill(now_ms, count as usize, &mut flows);
        let exporter_count = exporters.len();
        let batch = exporters[turn].encode(now_ms, &flows, &mut datagrams)?;
        let socket = &sockets[turn % sockets.len()];
        turn = (turn + 1) % exporter_count;

        let datagram_count = datagrams.len() as u64;
        for (position, datagram) in datagrams.drain(..).enumerate() {
            let flows_before = sums.flows + batch.flows * position as u64 / datagram_count;
            wait_until_due(started, flows_before, config.rate);
            socket
                .send_to(&datagram, config.to)
                .map_err(|source| SimulateError::Send { to: config.to, source })?;
        }
        sums += batch;
        if Instant::now() >= progress_at {
            progress(&sums);
            progress_at = Instant::now() + PROGRESS_INTERVAL;
        }
    }
    progress(&sums);
    Ok(sums)
}

/// Waits until `flows_before` flows may have been sent since `started`.
fn wait_until_due(started: Instant, flows_before: u64, rate: u64) {
    if rate == 0 {
        return;
    }
    let due = started + Duration::from_secs_f64(flows_before as f64 / rate as f64);
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        if wait < WAIT_MIN {
            return;
        }
        std::thread::park_timeout(wait);
    }
}

fn is_loopback_v4(to: SocketAddr) -> bool {
    matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

/// 127.0.0.1 onwards for a loopback target, else 192.0.2.1 onwards (TEST-NET-1, as sFlow agent addresses), skipping
/// network and broadcast endings.
fn exporter_address(to: SocketAddr, index: u32) -> Address {
    let (third, fourth) = ((index / 254) as u8, (index % 254 + 1) as u8);
    if is_loopback_v4(to) {
        Address::from_v4([127, 0, third, fourth])
    } else {
        Address::from_v4([192, 0, 2u8.wrapping_add(third), fourth])
    }
}

fn bind_sockets(config: &SimulateConfig) -> Result<Vec<UdpSocket>, SimulateError> {
    let bind = |ip: IpAddr| {
        let from = SocketAddr::new(ip, 0);
        UdpSocket::bind(from).map_err(|source| SimulateError::Bind { from, source })
    };
    if is_loopback_v4(config.to) {
        let addresses = (0..config.exporters).map(|index| exporter_address(config.to, index).to_ip());
        return addresses.map(bind).collect();
    }
    let any = match config.to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    Ok(vec![bind(any)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::sflow::{SflowDecoder, SflowLimits};
    use crate::decode::{Datagram, Decoded};
    use tables::flow::Flow;

    #[test]
    fn what_was_said_to_be_sent_arrives_from_each_exporter() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let config = SimulateConfig {
            to: receiver.local_addr().unwrap(),
            protocol: SimProtocol::Sflow,
            flows: 200,
            rate: 20_000,
            exporters: 3,
            seed: 7,
            sampling_rate: 512,
            ipv6_percent: 30,
        };
        let mut last_progress = Sums::default();
        let started = Instant::now();
        let sums = run(&config, |sums| last_progress = *sums).unwrap();
        assert!(
            started.elapsed() >= Duration::from_millis(8),
            "200 flows at 20 k/s are paced"
        );
        assert_eq!(last_progress, sums);
        assert_eq!(sums.flows, 200);

        let mut decoder = SflowDecoder::new(SflowLimits::default(), &schemas::metering::MeteringConfig::default());
        let mut decoded = Decoded::default();
        let mut buffer = [0; 2_048];
        let mut sources = std::collections::BTreeSet::new();
        for _ in 0..sums.datagrams {
            let (length, from) = receiver.recv_from(&mut buffer).unwrap();
            sources.insert(from.ip());
            let datagram = Datagram {
                received_at_ms: 0,
                source: from.ip().into(),
                source_port: 0,
                payload: &buffer[..length],
            };
            decoder.decode(&datagram, &mut decoded);
        }
        assert_eq!(sources.len(), 3);
        assert_eq!(decoder.agents().len(), 3);
        let flows = decoded.flows.rows();
        assert_eq!(flows.len() as u64, sums.flows);
        assert_eq!(flows.iter().map(|flow| flow.bytes).sum::<u64>(), sums.bytes);
        assert_eq!(flows.iter().map(|flow| flow.packets).sum::<u64>(), sums.packets);
        assert_eq!(flows.iter().map(Flow::bytes_scaled).sum::<u64>(), sums.bytes_scaled);
    }

    #[test]
    fn no_exporters_is_an_error() {
        let config = SimulateConfig {
            to: "127.0.0.1:9".parse().unwrap(),
            protocol: SimProtocol::V5,
            flows: 1,
            rate: 0,
            exporters: 0,
            seed: 0,
            sampling_rate: 1,
            ipv6_percent: 0,
        };
        assert!(matches!(
            run(&config, |_| {}),
            Err(SimulateError::Exporters { exporters: 0 })
        ));
    }
}
