//! A process that is measured: processor time, memory, and its UDP socket, all from `/proc`.
//!
//! * Processor time is user and system time of the process, its children and theirs, from [`Measured::begin`] to the
//!   end. The last reading is of the ended process before it is waited for, so that nothing of it is missed.
//! * Memory is the largest resident set of the process (`VmHWM`). Of a process with children, which share pages with it,
//!   it is the largest sum of their proportional set sizes (`Pss`), looked at every [`SAMPLE_INTERVAL`].

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Linux tells times in `/proc` in hundredths of a second on every architecture (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// A process is idle when it used less than this share of a processor for a while.
const IDLE_SHARE: f64 = 0.15;
/// What a process used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_peak_bytes: u64,
}

/// Ended when dropped.
#[derive(Debug)]
pub(crate) struct Measured {
    name: String,
    child: Child,
    log: PathBuf,
    cpu_before_seconds: f64,
    cpu_seconds: f64,
    rss_peak_bytes: u64,
    sampled_at: Instant,
    shares_seen_at: Instant,
}

impl Measured {
    /// Starts a program whose output goes to a file.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Measured> {
        let out = File::create(log).with_context(|| format!("write {}", log.display()))?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child = command.spawn().with_context(|| format!("start {name} ({command:?})"))?;
        Ok(Measured {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            cpu_before_seconds: 0.0,
            cpu_seconds: 0.0,
            rss_peak_bytes: 0,
            sampled_at: Instant::now(),
            shares_seen_at: Instant::now(),
        })
    }

    /// Waits until somebody listens on a UDP port.
    pub(crate) fn wait_for_port(&mut self, port: u16, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while udp_socket(port)?.is_none() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before it listened:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            if Instant::now() >= deadline {
                bail!("{} does not listen on port {port}:\n{}", self.name, self.log_tail());
            }
            std::thread::park_timeout(POLL_INTERVAL);
        }
        Ok(())
    }

    /// From here on processor time is counted.
    pub(crate) fn begin(&mut self) {
        self.cpu_before_seconds = self.read_cpu();
        self.cpu_seconds = self.cpu_before_seconds;
    }

    /// Looks at memory and processor time, when it is time to.
    pub(crate) fn sample(&mut self) -> anyhow::Result<()> {
        if self.sampled_at.elapsed() < SAMPLE_INTERVAL {
            return Ok(());
        }
        self.sampled_at = Instant::now();
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended with {status} while it was measured:\n{}",
                self.name,
                self.log_tail()
            );
        }
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        let family = family(self.child.id());
        let used_seconds = family.iter().filter_map(|pid| cpu_seconds(*pid)).sum();
        self.cpu_seconds = self.cpu_seconds.max(used_seconds);
        let rss_bytes = match family.as_slice() {
            [only] => status_kib(*only, "status", "VmHWM:"),
            // Walks the page tables of all: not for every look.
            all if self.shares_seen_at.elapsed() >= SAMPLE_INTERVAL => {
                self.shares_seen_at = Instant::now();
                all.iter().map(|pid| status_kib(*pid, "smaps_rollup", "Pss:")).sum()
            }
            _ => 0,
        } << 10;
        self.rss_peak_bytes = self.rss_peak_bytes.max(rss_bytes);
    }

    /// Processor time since the start.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.read_cpu()
    }

    fn read_cpu(&self) -> f64 {
        family(self.child.id()).iter().filter_map(|pid| cpu_seconds(*pid)).sum()
    }

    /// Waits until the process has said something.
    pub(crate) fn wait_for_text(&mut self, text: &str, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !std::fs::read_to_string(&self.log)?.contains(text) {
            if Instant::now() >= deadline {
                bail!("{} does not say {text:?}:\n{}", self.name, self.log_tail());
            }
            self.sample()?;
            std::thread::park_timeout(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Waits until the process has had nothing to do for `idle_time`.
    pub(crate) fn wait_until_idle(&mut self, idle_time: Duration, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut since = Instant::now();
        let mut used_before = self.read_cpu();
        loop {
            std::thread::park_timeout(POLL_INTERVAL);
            self.sample()?;
            let used = self.read_cpu();
            if used - used_before > since.elapsed().as_secs_f64().max(0.1) * IDLE_SHARE {
                since = Instant::now();
                used_before = used;
            } else if since.elapsed() >= idle_time {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} is still busy after {limit:?}", self.name);
            }
        }
    }

    /// Asks the process to end with a signal, waits for that, and tells what it used since [`Measured::begin`].
    pub(crate) fn stop(mut self, signal: &str, limit: Duration) -> anyhow::Result<Used> {
        let pid = self.child.id();
        self.look();
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string())
            .status();
        if !sent.context("run kill")?.success() {
            bail!("{} could not be signalled:\n{}", self.name, self.log_tail());
        }
        self.ended(limit, &format!("within {limit:?} of {signal}"))
    }

    /// Waits until the process has ended by itself, and tells what it used since [`Measured::begin`], or at all.
    pub(crate) fn finish(self, limit: Duration) -> anyhow::Result<Used> {
        self.ended(limit, &format!("within {limit:?}"))
    }

    fn ended(mut self, limit: Duration, within: &str) -> anyhow::Result<Used> {
        let pid = self.child.id();
        let deadline = Instant::now() + limit;
        // An ended process keeps its times until it is waited for.
        while !is_zombie(pid) {
            self.look();
            if Instant::now() >= deadline {
                bail!("{} does not end {within}:\n{}", self.name, self.log_tail());
            }
            std::thread::park_timeout(POLL_INTERVAL);
        }
        self.cpu_seconds = self.cpu_seconds.max(self.read_cpu());
        let status = self.child.wait()?;
        // Programs differ in what they answer to a signal: by 0, or by the signal itself.
        if status.code().is_some_and(|code| code != 0) {
            bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
        }
        Ok(Used {
            cpu_seconds: self.cpu_seconds - self.cpu_before_seconds,
            rss_peak_bytes: self.rss_peak_bytes,
        })
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            for pid in family(self.child.id()).into_iter().skip(1) {
                // Nothing is left to be done when it is gone already.
                let _ = Command::new("kill")
                    .arg("-KILL")
                    .arg(pid.to_string())
                    .stderr(Stdio::null())
                    .status();
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What the kernel tells of a UDP socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UdpSocket {
    pub(crate) queued_bytes: u64,
    pub(crate) dropped: u64,
}

/// The sockets bound to a port, together; `None` when there are none.
pub(crate) fn udp_socket(port: u16) -> anyhow::Result<Option<UdpSocket>> {
    let mut found: Option<UdpSocket> = None;
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = fields.get(1).and_then(|local| local.rsplit_once(':'));
            if local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok()) != Some(port) {
                continue;
            }
            let queued = fields.get(4).and_then(|queues| queues.rsplit_once(':'));
            let queued = queued.and_then(|(_, bytes)| u64::from_str_radix(bytes, 16).ok());
            let dropped = fields.get(12).and_then(|drops| drops.parse::<u64>().ok());
            let socket = found.get_or_insert_default();
            socket.queued_bytes += queued.context("a line of /proc/net/udp is not understood")?;
            socket.dropped += dropped.context("a line of /proc/net/udp is not understood")?;
        }
    }
    Ok(found)
}

/// A process and its descendants, itself first.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut position = 0;
    while position < family.len() {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", family[position]));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        position += 1;
    }
    family
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything: the state is the first.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

fn is_zombie(pid: u32) -> bool {
    stat_fields(pid).is_none_or(|fields| fields.first().is_some_and(|state| state == "Z"))
}

/// User and system time of a process and the children it has waited for.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    let ticks: u64 = fields
        .get(11..15)?
        .iter()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}

fn status_kib(pid: u32, file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_and_its_children_use_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        // A child that computes once the measurement has begun, then the shell waits to be ended.
        shell.current_dir(folder.path()).args([
            "-c",
            "(until [ -e go ]; do :; done; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); echo done; read never < /dev/zero",
        ]);
        let mut measured = Measured::start("sh", shell, &folder.path().join("log")).unwrap();
        measured.begin();
        std::fs::write(folder.path().join("go"), b"").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !std::fs::read_to_string(folder.path().join("log"))
            .unwrap()
            .contains("done")
        {
            assert!(Instant::now() < deadline);
            std::thread::park_timeout(POLL_INTERVAL);
        }
        let used = measured.stop("TERM", Duration::from_secs(10)).unwrap();
        assert!(used.cpu_seconds > 0.0, "{used:?}");
        assert!(used.rss_peak_bytes > 100_000, "{used:?}");
    }

    #[test]
    fn a_socket_is_found_by_its_port() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&[0; 100], ("127.0.0.1", port)).unwrap();
        let found = udp_socket(port).unwrap().unwrap();
        assert!(found.queued_bytes >= 100);
        drop(socket);
        assert!(udp_socket(port).unwrap().is_none());
    }
}
