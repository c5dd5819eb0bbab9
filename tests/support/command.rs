//! Running other programs: their output when they succeed, all they said when they do not.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait::{wait_for, wait_until};

/// Runs `command` to its end and returns its standard output.
///
/// Panics with both outputs when it cannot be started or does not exit with 0.
pub(crate) fn output_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!(
            "cannot run {}: {error}; is it installed? tests/run installs it",
            show(command)
        )
    });
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{} ended with {}\n--- stdout\n{stdout}\n--- stderr\n{}",
        show(command),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// The command line, for messages.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Sends a signal (`TERM`, `INT`, `USR1` …) to a process we started.
pub(crate) fn signal(child: &Child, name: &str) {
    output_of(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()));
}

/// Waits for a process to end by itself.
pub(crate) fn wait_for_exit(child: &mut Child, what: &str, limit: Duration) -> ExitStatus {
    wait_for(&format!("{what} to exit"), limit, || {
        child.try_wait().expect("a child can be waited for")
    })
}

/// A program that runs beside the test, such as a server or an exporter. It is killed when dropped.
///
/// Both its outputs go to one log file, which is shown when the test fails.
#[derive(Debug)]
pub(crate) struct Background {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command`; `log_dir` gets the file `NAME.log`.
    pub(crate) fn start(name: &str, command: &mut Command, log_dir: &Path) -> Self {
        let log = log_dir.join(format!("{name}.log"));
        let file = File::create(&log).unwrap_or_else(|error| panic!("cannot create {}: {error}", log.display()));
        let same_file = file.try_clone().expect("a file handle can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(same_file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}; is it installed?", show(command)));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a condition that only holds while this program runs; fails at once when it has ended.
    pub(crate) fn wait_until(&mut self, what: &str, limit: Duration, mut condition: impl FnMut(&Self) -> bool) {
        let name = self.name.clone();
        wait_until(&format!("{what} ({name})"), limit, || {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "{name} ended early with {ended:?}:\n{}", self.log());
            condition(self)
        });
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop_with(&mut self, signal_name: &str, limit: Duration) -> ExitStatus {
        signal(&self.child, signal_name);
        self.wait_for_exit(limit)
    }

    /// Waits for the end, which something else brought about.
    pub(crate) fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        wait_for_exit(&mut self.child, &self.name, limit)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.log());
        }
    }
}
