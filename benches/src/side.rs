//! The collectors that are compared: how each is started, stopped and asked what it stored.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use collector::simulate::encode::SimProtocol;

use crate::addresses;
use crate::report::progress;

/// Of the kernel for every side's socket (`SO_RCVBUF`): what an unchanged Debian grants at most is less, 208 KiB.
pub(crate) const RECEIVE_BUFFER_BYTES: u64 = 4 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// `ezscale collect`
    Ezscale,
    /// `nfcapd`, `sfcapd` writing LZO-compressed files
    Nfdump,
    /// The same without compression
    NfdumpPlain,
    /// `nfacctd`, `sfacctd` writing CSV
    Pmacct,
}

impl Side {
    pub(crate) const ALL: [Side; 4] = [Side::Ezscale, Side::Nfdump, Side::NfdumpPlain, Side::Pmacct];

    /// On the command line.
    fn key(self) -> &'static str {
        match self {
            Side::Ezscale => "ezscale",
            Side::Nfdump => "nfdump",
            Side::NfdumpPlain => "nfdump-plain",
            Side::Pmacct => "pmacct",
        }
    }

    /// In tables.
    pub(crate) fn title(self, protocol: SimProtocol) -> &'static str {
        match (self, protocol) {
            (Side::Ezscale, _) => "ezscale collect",
            (Side::Nfdump, SimProtocol::Sflow) => "sfcapd -z (LZO)",
            (Side::Nfdump, _) => "nfcapd -z (LZO)",
            (Side::NfdumpPlain, SimProtocol::Sflow) => "sfcapd",
            (Side::NfdumpPlain, _) => "nfcapd",
            (Side::Pmacct, SimProtocol::Sflow) => "sfacctd (CSV)",
            (Side::Pmacct, _) => "nfacctd (CSV)",
        }
    }

    /// What it says when it can take flows, where that is not when its socket is open.
    pub(crate) fn ready_text(self) -> Option<&'static str> {
        (self == Side::Pmacct).then_some("cache entries=")
    }

    /// Being idle for so long means that everything is stored, or is when it is told to end.
    pub(crate) fn idle_time(self) -> Duration {
        match self {
            // Its rows are written every two seconds by processes of their own.
            Side::Pmacct => Duration::from_secs(5),
            _ => Duration::from_secs(1),
        }
    }

    /// By which it ends after storing what it has.
    pub(crate) fn stop_signal(self) -> &'static str {
        match self {
            Side::Pmacct => "INT",
            _ => "TERM",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

impl FromStr for Side {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Side> {
        let found = Side::ALL.into_iter().find(|side| side.key() == text);
        found.with_context(|| format!("unknown side {text:?}, expected ezscale, nfdump, nfdump-plain or pmacct"))
    }
}

/// What a side stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) flows: u64,
    /// The files with the flows.
    pub(crate) disk_bytes: u64,
    /// Scaled by the sampling rate or not, as the side does it.
    pub(crate) bytes: Option<u64>,
}

/// The `ezscale` binary and the settings of its collector.
#[derive(Clone, Debug)]
pub(crate) struct Ezscale {
    pub(crate) binary: PathBuf,
    /// A data folder with the assigned prefixes, which every run gets a copy of.
    pub(crate) template: PathBuf,
    /// `collector.encode_threads`, where the binary knows it and it is asked for.
    pub(crate) encode_threads: Option<u32>,
}

impl Ezscale {
    /// The binary beside this one.
    pub(crate) fn find() -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe().context("find this program")?;
        let folder = own.parent().context("find this program's folder")?;
        let binary = folder.join("ezscale");
        if !binary.is_file() {
            bail!(
                "{} is not there: build it with `cargo build --release --workspace`",
                binary.display()
            );
        }
        Ok(binary)
    }

    pub(crate) fn run(&self, data_dir: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--log", "warn"]);
        output_of(command)
    }

    /// Makes the data folder with `prefixes` assigned prefixes that runs get copies of.
    pub(crate) fn prepare(binary: &Path, folder: &Path, prefixes: u64) -> anyhow::Result<Ezscale> {
        let template = folder.join(format!("prefixes-{prefixes}"));
        let ezscale = Ezscale {
            binary: binary.to_owned(),
            template: template.clone(),
            encode_threads: None,
        };
        if template.is_dir() {
            return Ok(ezscale);
        }
        progress(format_args!("assigning {prefixes} prefixes"));
        let unfinished = folder.join("prefixes-unfinished");
        remove(&unfinished)?;
        std::fs::create_dir_all(&unfinished)?;
        let services = folder.join("services.csv");
        let assignments = folder.join("assignments.csv");
        addresses::write_lists(prefixes, &services, &assignments)?;
        let customer = ["customer", "add", "--name", "Bench", "--email", "bench@example.net"];
        ezscale.run(&unfinished, &customer)?;
        ezscale.run(&unfinished, &["service", "add", "--file", &services.to_string_lossy()])?;
        ezscale.run(
            &unfinished,
            &["service", "assign", "--file", &assignments.to_string_lossy()],
        )?;
        std::fs::rename(&unfinished, &template)?;
        Ok(ezscale)
    }

    /// Whether the collector has a setting of how many threads encode.
    pub(crate) fn knows_encode_threads(&self, folder: &Path) -> anyhow::Result<bool> {
        let file = folder.join("encode-threads.toml");
        std::fs::write(&file, "[collector]\nencode_threads = 1\n")?;
        let checked = Command::new(&self.binary)
            .args(["config", "check"])
            .arg(&file)
            .output()?;
        Ok(checked.status.success())
    }
}

/// Makes the command that collects into `folder`, which is empty.
pub(crate) fn start(
    side: Side,
    protocol: SimProtocol,
    ezscale: &Ezscale,
    folder: &Path,
    port: u16,
) -> anyhow::Result<Command> {
    let port_text = port.to_string();
    let sflow = protocol == SimProtocol::Sflow;
    match side {
        Side::Ezscale => {
            let data_dir = folder.join("data");
            std::fs::create_dir_all(&data_dir)?;
            // What is not its owner's alone is refused.
            std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o700))?;
            for entry in std::fs::read_dir(&ezscale.template)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    std::fs::copy(entry.path(), data_dir.join(entry.file_name()))?;
                }
            }
            let mut config = format!("[collector]\nreceive_buffer_bytes = {RECEIVE_BUFFER_BYTES}\n");
            if let Some(threads) = ezscale.encode_threads {
                config.push_str(&format!("encode_threads = {threads}\n"));
            }
            let config_file = data_dir.join("ezscale.toml");
            std::fs::write(&config_file, config)?;
            std::fs::set_permissions(&config_file, std::fs::Permissions::from_mode(0o600))?;
            let mut command = Command::new(&ezscale.binary);
            command.arg("collect").arg("--data-dir").arg(&data_dir);
            let listener = if sflow { "--sflow" } else { "--netflow" };
            command.args([listener, &format!("127.0.0.1:{port}")]);
            Ok(command)
        }
        Side::Nfdump | Side::NfdumpPlain => {
            let mut command = Command::new(if sflow { "sfcapd" } else { "nfcapd" });
            command.args(["-b", "127.0.0.1", "-p", &port_text, "-t", "300", "-I", "bench"]);
            command.args(["-B", &RECEIVE_BUFFER_BYTES.to_string()]);
            let flows = folder.join("flows");
            std::fs::create_dir_all(&flows)?;
            command.arg("-w").arg(flows);
            if side == Side::Nfdump {
                command.arg("-z");
            }
            Ok(command)
        }
        Side::Pmacct => {
            let config = folder.join("pmacct.conf");
            std::fs::write(&config, pmacct_config(sflow, folder, port))?;
            let mut command = Command::new(if sflow { "sfacctd" } else { "nfacctd" });
            command.arg("-f").arg(&config);
            Ok(command)
        }
    }
}

/// Every field of a flow that pmacct has a name for. What its processes hand each other is large, so that they lose
/// nothing there. Its cache takes 4 KB a row and ten rows an entry before it is written out early: 2.6 GB.
fn pmacct_config(sflow: bool, folder: &Path, port: u16) -> String {
    let daemon = if sflow { "sfacctd" } else { "nfacctd" };
    let times = if sflow {
        "timestamp_arrival"
    } else {
        "timestamp_start, timestamp_end"
    };
    format!(
        "daemonize: false\n\
         {daemon}_ip: 127.0.0.1\n\
         {daemon}_port: {port}\n\
         {daemon}_pipe_size: {RECEIVE_BUFFER_BYTES}\n\
         {daemon}_as: longest\n\
         {daemon}_net: longest\n\
         plugins: print[out]\n\
         aggregate[out]: peer_src_ip, src_host, dst_host, src_port, dst_port, proto, tos, tcpflags, in_iface, \
         out_iface, src_as, dst_as, src_mask, dst_mask, vlan, sampling_rate, flows, {times}\n\
         plugin_pipe_size[out]: 209715200\n\
         plugin_buffer_size[out]: 409600\n\
         print_cache_entries[out]: 65537\n\
         print_refresh_time[out]: 2\n\
         print_output[out]: csv\n\
         print_output_file[out]: {}/flows-%Y%m%d-%H%M%S.csv\n\
         print_output_file_append[out]: true\n",
        folder.display()
    )
}

/// Asks a side that has ended what it stored in `folder`.
pub(crate) fn stored(side: Side, ezscale: &Ezscale, folder: &Path) -> anyhow::Result<Stored> {
    match side {
        Side::Ezscale => {
            let data_dir = folder.join("data");
            let sql = "SELECT count(*) AS flows, coalesce(sum(bytes), 0) AS bytes FROM flows";
            let answer = ezscale.run(&data_dir, &["query", sql, "--format", "json"])?;
            let rows: Vec<serde_json::Value> = serde_json::from_str(&answer).context("read the answer of a query")?;
            let number = |name: &str| rows.first().and_then(|row| row.get(name)?.as_u64());
            Ok(Stored {
                flows: number("flows").context("a query does not answer a count")?,
                disk_bytes: bytes_under(&data_dir.join("tables/flows"))?,
                bytes: number("bytes"),
            })
        }
        Side::Nfdump | Side::NfdumpPlain => {
            let mut stored = Stored::default();
            for file in files_under(folder)? {
                let is_flows = file
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("nfcapd."));
                if !is_flows {
                    continue;
                }
                let mut command = Command::new("nfdump");
                command.arg("-r").arg(&file).arg("-I");
                let text = output_of(command)?;
                stored.flows += summary_number(&text, "Flows:")?;
                stored.bytes = Some(stored.bytes.unwrap_or(0) + summary_number(&text, "Bytes:")?);
                stored.disk_bytes += std::fs::metadata(&file)?.len();
            }
            Ok(stored)
        }
        Side::Pmacct => {
            let mut stored = Stored::default();
            for file in files_under(folder)? {
                if file.extension().is_some_and(|extension| extension == "csv") {
                    stored.flows += pmacct_flows(&file)?;
                    stored.disk_bytes += std::fs::metadata(&file)?.len();
                }
            }
            Ok(stored)
        }
    }
}

/// A number of what `nfdump -I` prints.
fn summary_number(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| value.trim().parse().ok());
    value.with_context(|| format!("`nfdump -I` tells no number of {name} in\n{text}"))
}

/// Sum of the column FLOWS. One row may hold several flows that differ in nothing.
fn pmacct_flows(file: &Path) -> anyhow::Result<u64> {
    use std::io::BufRead as _;
    let mut reader = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(file)?);
    let mut line = String::new();
    let mut column = None;
    let mut flows = 0;
    while reader.read_line(&mut line)? > 0 {
        let mut fields = line.trim_end().split(',');
        // A file that is appended to may hold its header again.
        if line.contains("FLOWS") {
            column = fields.position(|name| name == "FLOWS");
        } else if let Some(column) = column
            && let Some(value) = fields.nth(column)
        {
            let value: u64 = value
                .parse()
                .with_context(|| format!("a row of {} is not understood: {line}", file.display()))?;
            flows += value;
        } else {
            bail!("a row of {} is not understood: {line}", file.display());
        }
        line.clear();
    }
    Ok(flows)
}

pub(crate) fn bytes_under(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for file in files_under(folder)? {
        bytes += std::fs::metadata(file)?.len();
    }
    Ok(bytes)
}

fn files_under(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Removes a folder, if it is there.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output_of(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
