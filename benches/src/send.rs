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
use jiff::Timestamp;
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
        let boot_at_ms = Timestamp::now().as_millisecond() - UPTIME_MS;
        let started = Instant::now();
        let mut sums = Sums::default();
        let mut turn = 0;
        let mut now_ms = 0;
        loop {
            let allowed = self.allowed(started, sums.flows);
            while sums.flows < allowed {
                if sums.datagrams % CLOCK_DATAGRAMS == 0 {
                    now_ms = Timestamp::now().as_millisecond();
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
