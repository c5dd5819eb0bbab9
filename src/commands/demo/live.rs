//! The demo's present: the fleet's exporters send what they see every second, over UDP, from addresses of their own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use collector::simulate::encode::SimExporter;
use collector::simulate::fleet::Fleet;
use jiff::Timestamp;
use tracing::warn;

/// How often the exporters report.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often switches send their interface counters: hourly, so that weeks of history stay small.
const COUNTER_INTERVAL_MS: i64 = 3_600_000;

/// The fleet's exporters, up since `boot_at_ms`.
pub(crate) fn exporters(fleet: &Fleet, boot_at_ms: i64) -> Vec<SimExporter> {
    let exporters = fleet.exporters.iter().map(|exporter| {
        let mut config = exporter.sim_config(boot_at_ms);
        config.counter_interval_ms = COUNTER_INTERVAL_MS;
        SimExporter::new(config)
    });
    exporters.collect()
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
    for exporter in &exporters {
        let from = SocketAddr::new(exporter.config().address.to_ip(), 0);
        // macOS has only 127.0.0.1 on its loopback: there, all exporters but sFlow agents look like one.
        let socket = UdpSocket::bind(from).or_else(|_| UdpSocket::bind((IpAddr::from([127, 0, 0, 1]), 0)));
        sockets.push(socket.with_context(|| format!("bind {from} to send from"))?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let send = move || {
        let mut sent_to_ms = from_ms;
        let mut flows = Vec::new();
        let mut payloads = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let now_ms = Timestamp::now().as_millisecond();
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
