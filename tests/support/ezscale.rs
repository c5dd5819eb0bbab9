//! The built `ezscale` binary: a data directory, one-shot commands on it, and a process that listens.
//!
//! A process is killed when its value is dropped. When the test fails, what it said on standard error is shown.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::command::{output_of, show, signal, wait_for_exit};
use super::disk::Disk;
use super::net::Namespace;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ezscale");
/// Until every listener has said where it listens.
const START_LIMIT: Duration = Duration::from_secs(30);
/// To drain after SIGTERM: everything received becomes Parquet first.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Runs a command that needs no data, such as `simulate`, to its end and returns its standard output.
pub(crate) fn run(arguments: &[&str]) -> String {
    output_of(Command::new(BINARY).args(arguments))
}

/// An amount as listings have it in JSON, `"12.50"`, in minor units of a currency with cents.
pub(crate) fn cents(amount: &Value) -> i64 {
    let text = amount
        .as_str()
        .unwrap_or_else(|| panic!("{amount} is a decimal in text"));
    let (_, fraction) = text.split_once('.').unwrap_or_else(|| panic!("{text} has cents"));
    assert_eq!(fraction.len(), 2, "{text} has cents");
    text.replace('.', "")
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A data directory of the test's own, gone with its value, and the commands on it.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: TempDir,
    config: Option<PathBuf>,
    disk: Option<Disk>,
}

impl DataDir {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ezscale-")
            // Configurations with secrets lie in it: they are refused where others can read them.
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("a temporary directory can be made");
        Self {
            dir,
            config: None,
            disk: None,
        }
    }

    /// With the folder and the database in it, as `ezscale init` makes them.
    pub(crate) fn made() -> Self {
        let data = Self::new();
        data.run(&["init"]);
        data
    }

    /// Says who issues invoices: until then they are held.
    pub(crate) fn set_issuer(&self) {
        let (name, street, city) = ("Ada Hosting Inc", "1 Main Street", "New York");
        self.run(&["entity", "set", "--name", name, "--street", street, "--city", city]);
    }

    /// On a small disk of its own.
    pub(crate) fn on_disk_of(size_kib: u32) -> Self {
        let mut data = Self::new();
        std::fs::create_dir(data.path()).expect("the test's directory is writable");
        data.disk = Some(Disk::mount(&data.path(), size_kib));
        data
    }

    /// The disk of a directory made by [`DataDir::on_disk_of`].
    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the data has a disk of its own")
    }

    /// The binary, where it sees the data.
    fn program(&self) -> Command {
        match &self.disk {
            Some(disk) => disk.command(BINARY),
            None => Command::new(BINARY),
        }
    }

    /// Where `ezscale` keeps its data.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Beside the data: for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a configuration file, which every process started later gets.
    pub(crate) fn set_config(&mut self, toml: &str) {
        self.change_config(toml);
        self.config = Some(self.config_path());
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// Writes that file anew, under running processes.
    pub(crate) fn change_config(&self, toml: &str) {
        let path = self.config_path();
        // In one step: a running process must not read half of it.
        let new = path.with_extension("new");
        std::fs::write(&new, toml)
            .and_then(|()| std::fs::rename(&new, &path))
            .expect("the test's directory is writable");
    }

    /// Runs a command to its end and returns its standard output. Panics with all it said unless it exits with 0.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        output_of(&mut self.command(arguments))
    }

    /// Sends simulated exports and returns the sums that were sent.
    pub(crate) fn run_simulate(&self, arguments: &[&str]) -> Value {
        let output = run(&[&["simulate", "--format", "json"], arguments].concat());
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("`simulate` prints its sums ({error}):\n{output}"))
    }

    /// Bytes of the datagrams that wait in the journal.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let Ok(folder) = std::fs::read_dir(self.path().join("journal")) else {
            return 0;
        };
        let sizes = folder
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|metadata| metadata.len());
        sizes.sum()
    }

    /// The command, not yet run: for tests of what must fail.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program();
        command.args(arguments).arg("--data-dir").arg(self.path());
        command
    }

    /// Rows of a query, each an object of columns.
    pub(crate) fn query_json(&self, sql: &str) -> Vec<Value> {
        let output = self.run(&["query", sql, "--format", "json"]);
        serde_json::from_str(&output)
            .unwrap_or_else(|error| panic!("`query --format json` prints an array of objects ({error}):\n{output}"))
    }

    /// The one row of a query whose columns are whole numbers, in the order of `columns`. NULL, which a sum over nothing
    /// is, counts as 0.
    pub(crate) fn query_numbers<const N: usize>(&self, sql: &str, columns: [&str; N]) -> [u64; N] {
        let rows = self.query_json(sql);
        let [row] = rows.as_slice() else {
            panic!("one row from {sql}, not {rows:?}")
        };
        columns.map(|column| match row.get(column) {
            Some(Value::Null) => 0,
            value => value
                .and_then(Value::as_u64)
                .unwrap_or_else(|| panic!("{column} is a whole number in {row}")),
        })
    }

    /// Adds something and returns its id, which the command prints: `cus_1`, `svc_7`.
    pub(crate) fn add(&self, arguments: &[&str], id_prefix: &str) -> String {
        let output = self.run(arguments);
        let id = output.split_whitespace().find(|word| word.starts_with(id_prefix));
        id.unwrap_or_else(|| {
            panic!(
                "`{}` prints an id that begins with {id_prefix}:\n{output}",
                arguments.join(" ")
            )
        })
        .into()
    }
}

/// What to start: `Start::new("collect").netflow("127.0.0.1:0").on(&data)`.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    subcommand: &'a str,
    netflow: Vec<String>,
    sflow: Vec<String>,
    http: Option<String>,
    more: Vec<String>,
    environment: Vec<(String, String)>,
    namespace: Option<&'a Namespace>,
    open_files: Option<u32>,
    limit: Duration,
}

impl<'a> Start<'a> {
    /// `collect` or `serve`.
    pub(crate) fn new(subcommand: &'a str) -> Self {
        Self {
            subcommand,
            netflow: Vec::new(),
            sflow: Vec::new(),
            http: None,
            more: Vec::new(),
            environment: Vec::new(),
            namespace: None,
            open_files: None,
            limit: START_LIMIT,
        }
    }

    /// For what prepares data before it listens.
    pub(crate) fn starting_within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Listens for NetFlow and IPFIX there; port 0 takes a free one.
    pub(crate) fn netflow(mut self, address: &str) -> Self {
        self.netflow.push(address.to_owned());
        self
    }

    pub(crate) fn sflow(mut self, address: &str) -> Self {
        self.sflow.push(address.to_owned());
        self
    }

    pub(crate) fn http(mut self, address: &str) -> Self {
        self.http = Some(address.to_owned());
        self
    }

    /// Other arguments, as they are.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.more.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Sets an environment variable.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs inside a network namespace.
    pub(crate) fn inside(mut self, namespace: &'a Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// With so many open files at most, as by `ulimit -n`.
    pub(crate) fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Starts it on a data directory and waits until all its listeners are open.
    pub(crate) fn on(&self, data: &DataDir) -> Ezscale {
        let mut process = self.spawn_on(data);
        process
            .wait_until_listening(self.limit)
            .unwrap_or_else(|problem| panic!("{problem}"));
        process
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn_on(&self, data: &DataDir) -> Ezscale {
        let mut arguments = vec![self.subcommand];
        self.netflow
            .iter()
            .for_each(|address| arguments.extend(["--netflow", address]));
        self.sflow
            .iter()
            .for_each(|address| arguments.extend(["--sflow", address]));
        self.http
            .iter()
            .for_each(|address| arguments.extend(["--http", address]));
        arguments.extend(self.more.iter().map(String::as_str));

        let mut command = match (self.namespace, self.open_files) {
            (Some(namespace), _) => namespace.command(BINARY),
            (None, Some(limit)) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={limit}:{limit}")).arg(BINARY);
                command
            }
            (None, None) => data.program(),
        };
        command.args(&arguments).arg("--data-dir").arg(data.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(config) = &data.config {
            command.arg("--config").arg(config);
        }
        // The demo has a NetFlow listener of its own, for its live exporters.
        let own = usize::from(self.subcommand == "demo");
        let expected = self.netflow.len() + self.sflow.len() + self.http.iter().len() + own;
        Ezscale::spawn(&mut command, expected, data)
    }
}

/// A running collector or server.
#[derive(Debug)]
pub(crate) struct Ezscale {
    child: Child,
    stderr: PathBuf,
    stdout_lines: mpsc::Receiver<String>,
    expected_listeners: usize,
    /// In the order of the arguments.
    pub(crate) netflow: Vec<SocketAddr>,
    pub(crate) sflow: Vec<SocketAddr>,
    /// The portal's address, as `http://127.0.0.1:8080`.
    pub(crate) http: Option<String>,
}

impl Ezscale {
    fn spawn(command: &mut Command, expected_listeners: usize, data: &DataDir) -> Self {
        let started_at = super::clock::running().as_nanosecond();
        let stderr = data.scratch().join(format!("ezscale-{started_at}.stderr"));
        let stderr_file = File::create(&stderr).expect("the test's directory is writable");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr_file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", show(command)));

        // Read to the end, so that the process never waits for us; it ends when the process closes its output.
        let stdout = child.stdout.take().expect("standard output is piped");
        let (lines_in, stdout_lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may be listening any more; keep reading.
                let _ = lines_in.send(line);
            }
        });

        Self {
            child,
            stderr,
            stdout_lines,
            expected_listeners,
            netflow: Vec::new(),
            sflow: Vec::new(),
            http: None,
        }
    }

    /// Takes the lines `netflow listening on ADDRESS` and their like, as many as were asked for. When it ends before, or
    /// takes too long, the answer says so.
    pub(crate) fn wait_until_listening(&mut self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        let mut seen = Vec::new();
        let (mut found, expected) = (0, self.expected_listeners);
        while found < expected {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.stdout_lines.recv_timeout(left).map_err(|error| {
                format!("{found} of {expected} listeners after {limit:?} ({error}); it printed {seen:?}")
            })?;
            if let Some((listener, address)) = line.split_once(" listening on ") {
                let socket = || {
                    address
                        .parse()
                        .unwrap_or_else(|error| panic!("an address in {line:?}: {error}"))
                };
                match listener {
                    "netflow" => self.netflow.push(socket()),
                    "sflow" => self.sflow.push(socket()),
                    "http" => self.http = Some(address.to_owned()),
                    other => panic!("{other} is no listener that was asked for: {line:?}"),
                }
                found += 1;
            }
            seen.push(line);
        }
        Ok(())
    }

    /// Sends it a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end, which something else brings about.
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        wait_for_exit(&mut self.child, "ezscale", limit)
    }

    /// Asks it to drain and end, and requires that it does: with exit code 0, in time.
    pub(crate) fn terminate(mut self) {
        signal(&self.child, "TERM");
        let status = wait_for_exit(&mut self.child, "ezscale after SIGTERM", DRAIN_LIMIT);
        assert_eq!(
            status.code(),
            Some(0),
            "ezscale drains and ends with 0 after SIGTERM, not with {status}"
        );
    }

    /// Ends it with no chance to do anything about it.
    pub(crate) fn kill9(mut self) {
        self.child.kill().expect("a running child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// The most memory it has held so far, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .expect("the kernel tells the peak memory");
        line.split_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .expect("a number of KiB")
    }

    /// What it said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }
}

impl Drop for Ezscale {
    fn drop(&mut self) {
        // It has mostly ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- ezscale said on standard error:\n{}", self.stderr());
        }
    }
}
