//! The sender: a process of its own, so that its processor time is nobody else's.
//!
//! It makes its datagrams, says `ready`, waits for a line on standard input, sends at an even pace and prints what it
//! sent as JSON. Datagrams are due one by one; the sender wakes every millisecond and sends those that are. When it was
//! kept from running it catches up at twice the pace, because a router would not send a burst either.

use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use collector::simulate::encode::{SimProtocol, Sums};
use schemas::address::Address;
use serde::{Deserialize, Serialize};

use crate::pool::{ExporterState, Pool};

const TICK: Duration = Duration::from_millis(1);
/// Of what is due in a tick, at most so many times is sent in one.
const CATCH_UP: f64 = 2.0;
/// The clock that flows are told by is read once for so many datagrams.
const CLOCK_DATAGRAMS: u64 = 16;
/// Exporters began so long ago.
const UPTIME_MS: i64 = 3_600_000;
pub(crate) const READY: &str = "ready";

/// What is sent.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SendArgs {
    /// The collector
    #[arg(long)]
    pub(crate) to: SocketAddr,
    #[arg(long)]
    pub(crate) protocol: SimProtocol,
    /// Source addresses, from 127.0.0.1 on
    #[arg(long, default_value_t = 100)]
    pub(crate) exporters: u32,
    /// Flows a second; 0 = as fast as it goes
    #[arg(long)]
    pub(crate) rate: u64,
    /// Flows in all, to the next whole datagram
    #[arg(long)]
    pub(crate) flows: u64,
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Flows that are made before
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) pool: usize,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) datagrams: u64,
    pub(crate) flows: u64,
    /// As exported, unscaled.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) seconds: f64,
}

/// The process: waits for its start on standard input, answers on standard output.
pub(crate) fn run(args: &SendArgs) -> anyhow::Result<()> {
    let mut sender = Sender::new(args)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("nobody said when to start");
    }
    let sent = sender.send_all()?;
    writeln!(out, "{}", serde_json::to_string(&sent)?)?;
    Ok(())
}

struct Exporter {
    socket: UdpSocket,
    address: Address,
    domain: u32,
    state: ExporterState,
}

pub(crate) struct Sender {
    pool: Pool,
    exporters: Vec<Exporter>,
    rate: u64,
    flows: u64,
}

/// The source address of an exporter: 127.0.0.1 to 127.x.y.254.
pub(crate) fn exporter_ip(index: u32) -> Ipv4Addr {
    let high = (index / 254).to_be_bytes();
    Ipv4Addr::new(127, high[2], high[3], (index % 254 + 1) as u8)
}

impl Sender {
    pub(crate) fn new(args: &SendArgs) -> anyhow::Result<Sender> {
        if args.exporters == 0 {
            bail!("there must be an exporter");
        }
        let mut exporters = Vec::with_capacity(args.exporters as usize);
        for index in 0..args.exporters {
            let ip = exporter_ip(index);
            let socket = UdpSocket::bind((ip, 0)).with_context(|| {
                format!(
                    "open a socket for exporter {} of {}; each needs one, so `ulimit -n` must be larger",
                    index + 1,
                    args.exporters
                )
            })?;
            socket
                .connect(args.to)
                .with_context(|| format!("connect {ip} to {}", args.to))?;
            exporters.push(Exporter {
                socket,
                address: Address::from_v4(ip.octets()),
                domain: index + 1,
                state: ExporterState::default(),
            });
        }
        Ok(Sender {
            pool: Pool::new(args.seed, args.protocol, args.pool)?,
            exporters,
            rate: args.rate,
            flows: args.flows,
        })
    }

    pub(crate) fn send_all(&mut self) -> anyhow::Result<Sent> {
        let boot_at_ms = schemas::clock::machine_now_ms() - UPTIME_MS;
        let started = Instant::now();
        let mut sums = Sums::default();
        let mut turn = 0;
        let mut now_ms = 0;
        loop {
            let allowed = self.allowed(started, sums.flows);
            while sums.flows < allowed {
                if sums.datagrams % CLOCK_DATAGRAMS == 0 {
                    now_ms = schemas::clock::machine_now_ms();
                }
                let exporter = &mut self.exporters[turn];
                let (payload, contents) = self.pool.next(
                    now_ms,
                    boot_at_ms,
                    exporter.address,
                    exporter.domain,
                    &mut exporter.state,
                );
                exporter.socket.send(payload).context("send a datagram")?;
                sums += contents;
                turn = (turn + 1) % self.exporters.len();
            }
            if sums.flows >= self.flows {
                break;
            }
            let into_tick = started.elapsed().as_nanos() % TICK.as_nanos();
            std::thread::park_timeout(TICK - Duration::from_nanos(into_tick as u64));
        }
        Ok(Sent {
            datagrams: sums.datagrams,
            flows: sums.flows,
            bytes: sums.bytes,
            packets: sums.packets,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// How many flows may have been sent by now, of which `sent` were.
    fn allowed(&self, started: Instant, sent: u64) -> u64 {
        if self.rate == 0 {
            return self.flows;
        }
        let due = (started.elapsed().as_secs_f64() * self.rate as f64) as u64;
        let at_once = (TICK.as_secs_f64() * self.rate as f64 * CATCH_UP) as u64 + 1;
        due.min(sent + at_once).min(self.flows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    use collector::counts::Counter;
    use collector::decode::dispatch::Dispatcher;
    use collector::decode::{Datagram, Decoded};
    use schemas::metering::MeteringConfig;
    use tables::flow::Flow;

    use crate::pool::{SAMPLING_RATE, V5_RECORDS};

    /// What a collector says when everything arrives and is understood.
    const GOOD: [Counter; 8] = [
        Counter::Datagrams,
        Counter::DatagramBytes,
        Counter::DatagramsDecoded,
        Counter::FlowRecords,
        Counter::OptionsRecords,
        Counter::Templates,
        Counter::CounterSamples,
        Counter::SamplesIgnored,
    ];

    fn arrived(socket: &UdpSocket) -> Vec<(Address, Vec<u8>)> {
        socket.set_nonblocking(true).unwrap();
        let mut payload = [0; 2_048];
        let mut datagrams = Vec::new();
        while let Ok((length, from)) = socket.recv_from(&mut payload) {
            datagrams.push((from.ip().into(), payload[..length].to_vec()));
        }
        datagrams
    }

    fn decode(datagrams: &[(Address, Vec<u8>)], now_ms: i64) -> Decoded {
        let mut dispatcher = Dispatcher::new(&MeteringConfig::default());
        let mut decoded = Decoded::default();
        for (source, payload) in datagrams {
            let datagram = Datagram {
                received_at_ms: now_ms,
                source: *source,
                source_port: 0,
                payload,
            };
            dispatcher.decode(&datagram, &mut decoded);
        }
        for (key, counter, value) in decoded.counts.iter() {
            assert!(GOOD.contains(&counter), "{key:?}: {} = {value}", counter.name());
        }
        decoded
    }

    #[test]
    fn what_is_sent_arrives_from_each_exporter_and_is_understood() {
        for protocol in SimProtocol::ALL {
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            let args = SendArgs {
                to: receiver.local_addr().unwrap(),
                protocol,
                exporters: 3,
                rate: 10_000,
                // Few enough that an unread socket holds them all.
                flows: 150,
                seed: 5,
                pool: 2_000,
            };
            let before_ms = schemas::clock::machine_now_ms();
            let sent = Sender::new(&args).unwrap().send_all().unwrap();
            let after_ms = schemas::clock::machine_now_ms();
            assert!(
                sent.flows >= 150 && sent.flows < 150 + V5_RECORDS as u64,
                "{protocol}: {sent:?}"
            );
            // The last datagram is sent when its first flow is due.
            let least_seconds = (150 - V5_RECORDS) as f64 / 10_000.0;
            assert!(sent.seconds >= least_seconds, "{protocol} took {} s", sent.seconds);

            let datagrams = arrived(&receiver);
            assert_eq!(datagrams.len() as u64, sent.datagrams);
            let sources: HashSet<Address> = datagrams.iter().map(|(source, _)| *source).collect();
            assert_eq!(sources.len(), 3.min(datagrams.len()));
            let decoded = decode(&datagrams, after_ms);
            assert_eq!(decoded.counts.total(Counter::FlowRecords), sent.flows);
            let flows = decoded.flows.rows();
            assert_eq!(flows.iter().map(|flow| flow.bytes).sum::<u64>(), sent.bytes);
            assert_eq!(flows.iter().map(|flow| flow.packets).sum::<u64>(), sent.packets);
            for flow in flows {
                assert_eq!(flow.sampling_rate, SAMPLING_RATE, "{protocol}");
                assert_eq!(
                    flow.observation_domain,
                    flow.exporter.to_u128() as u32 & 0xff,
                    "{protocol}"
                );
                if protocol != SimProtocol::Sflow {
                    let ago_ms = 16_000 + 1_000;
                    assert!(
                        (before_ms - ago_ms..=after_ms).contains(&flow.end_at_ms),
                        "{protocol}: {flow:?}"
                    );
                    assert!(
                        (0..=60_000).contains(&(flow.end_at_ms - flow.start_at_ms)),
                        "{protocol}: {flow:?}"
                    );
                }
            }
        }
    }

    /// Sequence numbers have no gap over rounds, templates come again, and no two rounds are alike.
    #[test]
    fn rounds_go_on() {
        const NOW_MS: i64 = 1_700_000_000_000;
        let identity = |flow: &Flow| (flow.src_addr, flow.dst_addr, flow.src_port, flow.dst_port);
        for protocol in SimProtocol::ALL {
            let mut pool = Pool::new(9, protocol, 1_800).unwrap();
            let mut states = [ExporterState::default(); 2];
            let mut datagrams = Vec::new();
            let mut sums = Sums::default();
            for turn in 0..1_200 {
                let exporter = turn % 2;
                let address = Address::from_v4([127, 0, 0, 1 + exporter as u8]);
                let domain = 1 + exporter as u32;
                let (payload, contents) = pool.next(NOW_MS, NOW_MS - 1_000_000, address, domain, &mut states[exporter]);
                assert!(payload.len() <= 1_472, "{protocol}: {} bytes", payload.len());
                datagrams.push((address, payload.to_vec()));
                sums += contents;
            }
            let decoded = decode(&datagrams, NOW_MS);
            assert_eq!(decoded.counts.total(Counter::FlowRecords), sums.flows, "{protocol}");
            let flows = decoded.flows.rows();
            assert_eq!(
                flows.iter().map(|flow| flow.bytes).sum::<u64>(),
                sums.bytes,
                "{protocol}"
            );
            let per_datagram = sums.flows as f64 / sums.datagrams as f64;
            let (expected, distinct_share) = match protocol {
                SimProtocol::Ipfix => (11.0..16.0, 0.5),
                SimProtocol::V9 => (15.0..20.5, 0.5),
                SimProtocol::V5 => (30.0..30.1, 0.5),
                SimProtocol::Sflow => {
                    assert!(decoded.counts.total(Counter::CounterSamples) > 0);
                    (5.5..7.5, 0.0)
                }
            };
            assert!(
                expected.contains(&per_datagram),
                "{protocol}: {per_datagram} flows per datagram"
            );
            if matches!(protocol, SimProtocol::V9 | SimProtocol::Ipfix) {
                assert_eq!(decoded.counts.total(Counter::OptionsRecords), 4, "two exporters, twice");
            }
            let distinct: HashSet<_> = flows.iter().map(identity).collect();
            assert!(
                distinct.len() as f64 >= flows.len() as f64 * distinct_share,
                "{protocol}: {} of {} flows are distinct",
                distinct.len(),
                flows.len()
            );
        }
    }

    #[test]
    fn exporters_have_an_address_each() {
        let all: HashSet<Ipv4Addr> = (0..10_000).map(exporter_ip).collect();
        assert_eq!(all.len(), 10_000);
        assert!(
            all.iter()
                .all(|ip| ip.is_loopback() && !matches!(ip.octets()[3], 0 | 255))
        );
    }
}
