//! The demo's present: the fleet's exporters send what they see every second, over UDP, from addresses of their own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use collector::simulate::encode::{SimExporter, SimExporterConfig, SimProtocol};
use collector::simulate::fleet::Fleet;
use schemas::address::Address;
use schemas::metering::{ExporterConfig, MeterMode};
use schemas::window::{DAY_MS, HOUR_MS};
use tables::flow::Flow;
use tracing::warn;

/// How often the exporters report.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often switches sent their interface counters in the past: hourly, so that weeks of history stay small.
const PAST_COUNTER_INTERVAL_MS: i64 = HOUR_MS;
/// And how often they do since [`COUNTED_MS`] before the demo was made: often enough for flows to be compared with them.
const COUNTER_INTERVAL_MS: i64 = 5 * 60_000;
/// For so long before the demo was made.
const COUNTED_MS: i64 = 2 * DAY_MS;

/// The fleet's exporters, up since `boot_at_ms`.
pub(crate) fn exporters(fleet: &Fleet, boot_at_ms: i64) -> Vec<SimExporter> {
    let exporters = fleet.exporters.iter().map(|exporter| {
        let mut config = exporter.sim_config(boot_at_ms);
        config.counter_interval_ms = PAST_COUNTER_INTERVAL_MS;
        SimExporter::new(config)
    });
    exporters.collect()
}

/// How often they send counters in a window that ends so long before the demo is made.
pub(crate) fn counter_interval_ms(ago_ms: i64) -> i64 {
    if ago_ms > COUNTED_MS {
        PAST_COUNTER_INTERVAL_MS
    } else {
        COUNTER_INTERVAL_MS
    }
}

/// A switch that is configured and was never heard: somebody has to look at it.
pub(crate) fn never_heard() -> ExporterConfig {
    ExporterConfig {
        name: Some("ex2.sin1".to_owned()),
        site: Some("SIN1".to_owned()),
        meter: MeterMode::Off,
        ..ExporterConfig::unlisted(Address::from_v4([127, 0, 0, 15]))
    }
}

/// A router that nobody has configured yet and that says no sampling rate: its flows are of no service, kept and not billed.
struct Unlisted {
    exporter: SimExporter,
    socket: UdpSocket,
}

impl Unlisted {
    fn start(boot_at_ms: i64) -> Option<Unlisted> {
        let address = Address::from_v4([127, 0, 0, 16]);
        let config = SimExporterConfig::new(address, 0, SimProtocol::V5, 0, boot_at_ms);
        // Where the machine has no such address, there is no such router.
        let socket = UdpSocket::bind(SocketAddr::new(address.to_ip(), 0)).ok()?;
        let exporter = SimExporter::new(config);
        Some(Unlisted { exporter, socket })
    }

    /// One flow between two of its neighbours (RFC 5737).
    fn send(&mut self, now_ms: i64, to: SocketAddr, payloads: &mut Vec<Vec<u8>>) {
        let flow = Flow {
            start_at_ms: now_ms - 1_000,
            end_at_ms: now_ms - 1,
            in_if: 1,
            out_if: 2,
            src_addr: Address::from_v4([192, 0, 2, 10]),
            dst_addr: Address::from_v4([192, 0, 2, 20]),
            src_port: 51_515,
            dst_port: 443,
            ip_protocol: 6,
            bytes: 1_500,
            packets: 3,
            ..Flow::default()
        };
        payloads.clear();
        if let Err(error) = self.exporter.encode(now_ms, &[flow], payloads) {
            warn!(%error, "the unlisted exporter could not encode its flow");
        }
        for payload in payloads.iter() {
            if let Err(error) = self.socket.send_to(payload, to) {
                warn!(%error, %to, "the unlisted exporter could not send");
            }
        }
    }
}

/// A running thread of exporters.
pub(crate) struct Senders {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Starts sending what happened since `from_ms` and goes on.
pub(crate) fn start(
    fleet: Fleet,
    mut exporters: Vec<SimExporter>,
    to: SocketAddr,
    from_ms: i64,
    density: u32,
) -> anyhow::Result<Senders> {
    let mut sockets = Vec::with_capacity(exporters.len());
    for exporter in &mut exporters {
        exporter.set_counter_interval_ms(COUNTER_INTERVAL_MS);
        let from = SocketAddr::new(exporter.config().address.to_ip(), 0);
        // macOS has only 127.0.0.1 on its loopback: there, all exporters but sFlow agents look like one.
        let socket = UdpSocket::bind(from).or_else(|_| UdpSocket::bind((IpAddr::from([127, 0, 0, 1]), 0)));
        sockets.push(socket.with_context(|| format!("bind {from} to send from"))?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let send = move || {
        let mut sent_to_ms = from_ms;
        let mut unlisted = Unlisted::start(from_ms - 60_000);
        let mut flows = Vec::new();
        let mut payloads = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let now_ms = schemas::clock::machine_now_ms();
            for (index, (exporter, socket)) in exporters.iter_mut().zip(&sockets).enumerate() {
                flows.clear();
                payloads.clear();
                fleet.flows_of(index, sent_to_ms, now_ms, density, &mut flows);
                if let Err(error) = exporter.encode(now_ms, &flows, &mut payloads) {
                    warn!(%error, "a live exporter could not encode its flows");
                }
                for payload in &payloads {
                    if let Err(error) = socket.send_to(payload, to) {
                        warn!(%error, %to, "a live exporter could not send");
                    }
                }
            }
            if let Some(unlisted) = &mut unlisted {
                unlisted.send(now_ms, to, &mut payloads);
            }
            sent_to_ms = now_ms.max(sent_to_ms);
            std::thread::park_timeout(INTERVAL);
        }
    };
    let thread = std::thread::Builder::new()
        .name("demo-exporters".to_owned())
        .spawn(send)
        .context("start the live exporters")?;
    Ok(Senders { stop, thread })
}

impl Senders {
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            warn!("the live exporters ended by a panic");
        }
    }
}
