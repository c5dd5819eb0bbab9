//! One measurement: one collector, one sender, a rate, and what came of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use collector::simulate::encode::SimProtocol;
use serde::Serialize;

use crate::process::{Measured, UdpSocket, udp_socket};
use crate::send::{READY, Sent};
use crate::side::{self, Ezscale, Side, remove};

const START_LIMIT: Duration = Duration::from_secs(60);
/// To store what was received, after the sender's last datagram.
const DRAIN_LIMIT: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) side: Side,
    pub(crate) protocol: SimProtocol,
    pub(crate) exporters: u32,
    /// Flows a second.
    pub(crate) rate: u64,
    pub(crate) flows: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) side: String,
    pub(crate) protocol: &'static str,
    pub(crate) exporters: u32,
    pub(crate) rate_asked: u64,
    /// What the sender managed.
    pub(crate) rate_sent: f64,
    pub(crate) sent: Sent,
    pub(crate) flows_stored: u64,
    pub(crate) bytes_stored: Option<u64>,
    /// Datagrams the kernel dropped because the socket's buffer was full.
    pub(crate) kernel_dropped: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) flows_per_cpu_second: f64,
    pub(crate) rss_peak_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) disk_bytes_per_flow: f64,
    /// From the sender's last datagram until everything was stored and the process had ended.
    pub(crate) drain_seconds: f64,
}

impl Outcome {
    pub(crate) fn lost(&self) -> u64 {
        self.sent.flows.saturating_sub(self.flows_stored)
    }

    pub(crate) fn lost_percent(&self) -> f64 {
        100.0 * self.lost() as f64 / self.sent.flows.max(1) as f64
    }
}

/// The sender's process, ended when dropped.
#[derive(Debug)]
pub(crate) struct SenderProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl SenderProcess {
    /// Starts it and waits until its datagrams are made.
    pub(crate) fn start(load: &Load, to: SocketAddr) -> anyhow::Result<SenderProcess> {
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.args(["send", "--to", &to.to_string(), "--protocol", load.protocol.name()]);
        command.args([
            "--exporters",
            &load.exporters.to_string(),
            "--rate",
            &load.rate.to_string(),
        ]);
        command.args(["--flows", &load.flows.to_string()]);
        // sFlow's datagrams hold half as many flows; short runs need no more than they send.
        let pool = if load.protocol == SimProtocol::Sflow {
            400_000
        } else {
            1_000_000
        };
        command.args(["--pool", &load.flows.min(pool).to_string()]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.context("start the sender")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the sender has no output")?;
        let mut sender = SenderProcess {
            child,
            input,
            output: BufReader::new(output),
        };
        let mut line = String::new();
        sender.output.read_line(&mut line)?;
        if line.trim() != READY {
            bail!("the sender did not start: {line}");
        }
        Ok(sender)
    }

    pub(crate) fn go(&mut self) -> anyhow::Result<()> {
        let mut input = self.input.take().context("the sender was started before")?;
        input.write_all(b"go\n").context("tell the sender to start")
    }

    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    pub(crate) fn sent(mut self) -> anyhow::Result<Sent> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the sender ended with {status}");
        }
        serde_json::from_str(&line).with_context(|| format!("read what the sender said: {line}"))
    }
}

impl Drop for SenderProcess {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may have ended meanwhile, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A folder that is removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(base: &Path, name: &str) -> anyhow::Result<Scratch> {
        let path = base.join(name);
        remove(&path)?;
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Scratch(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("{} is left over: {error:#}", self.0.display());
        }
    }
}

/// Runs a load against a collector that stores into `folder`, and leaves what was stored there.
pub(crate) fn run(load: &Load, ezscale: &Ezscale, folder: &Path) -> anyhow::Result<Outcome> {
    let title = load.side.title(load.protocol);
    let port = free_port()?;
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let command = side::start(load.side, load.protocol, ezscale, folder, port)?;
    // Its datagrams are made before the collector starts, so that nothing else runs while that does.
    let mut sender = SenderProcess::start(load, to)?;
    let log = folder.join("log.txt");
    let mut collector = Measured::start(title, command, &log)?;
    collector.wait_for_port(port, START_LIMIT)?;
    if let Some(text) = load.side.ready_text() {
        collector.wait_for_text(text, START_LIMIT)?;
    }
    collector.wait_until_idle(Duration::from_secs(1), START_LIMIT)?;

    collector.begin();
    sender.go()?;
    while !sender.has_ended()? {
        collector.sample()?;
        std::thread::park_timeout(POLL_INTERVAL);
    }
    let sent_at = Instant::now();
    let sent = sender.sent()?;
    let socket = wait_for_empty_socket(port, &mut collector)?;
    collector.wait_until_idle(load.side.idle_time(), DRAIN_LIMIT)?;
    let stopped_at = Instant::now();
    let idle_seconds = stopped_at.duration_since(sent_at).as_secs_f64();
    let used = collector.stop(load.side.stop_signal(), DRAIN_LIMIT)?;
    let stored = side::stored(load.side, ezscale, folder)?;
    Ok(Outcome {
        side: title.to_owned(),
        protocol: load.protocol.name(),
        exporters: load.exporters,
        rate_asked: load.rate,
        rate_sent: sent.flows as f64 / sent.seconds,
        sent,
        flows_stored: stored.flows,
        bytes_stored: stored.bytes,
        kernel_dropped: socket.dropped,
        cpu_seconds: used.cpu_seconds,
        flows_per_cpu_second: stored.flows as f64 / used.cpu_seconds.max(0.01),
        rss_peak_bytes: used.rss_peak_bytes,
        disk_bytes: stored.disk_bytes,
        disk_bytes_per_flow: stored.disk_bytes as f64 / stored.flows.max(1) as f64,
        drain_seconds: idle_seconds + stopped_at.elapsed().as_secs_f64(),
    })
}

/// The same into a folder of its own, of which nothing is left.
pub(crate) fn run_once(load: &Load, ezscale: &Ezscale, base: &Path) -> anyhow::Result<Outcome> {
    let scratch = Scratch::new(base, "run")?;
    run(load, ezscale, scratch.path()).with_context(|| {
        let (title, protocol) = (load.side.title(load.protocol), load.protocol);
        format!(
            "{title}, {protocol}, {} exporters, {} flows/s",
            load.exporters, load.rate
        )
    })
}

fn wait_for_empty_socket(port: u16, collector: &mut Measured) -> anyhow::Result<UdpSocket> {
    let deadline = Instant::now() + DRAIN_LIMIT;
    loop {
        let socket = udp_socket(port)?.context("the collector has closed its socket")?;
        if socket.queued_bytes == 0 {
            return Ok(socket);
        }
        if Instant::now() >= deadline {
            bail!("the collector leaves {} bytes in its socket", socket.queued_bytes);
        }
        collector.sample()?;
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").context("find a free port")?;
    Ok(socket.local_addr()?.port())
}
