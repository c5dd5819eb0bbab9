//! How asking goes, for people: `<data_dir>/collector/snmp.json`.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemas::address::Address;
use serde::{Deserialize, Serialize};

use super::client::SnmpError;
use super::targets::Target;

const FILE: &str = "snmp.json";

/// How asking one exporter goes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnmpStatus {
    pub exporter: Address,
    /// Of its section; 0 = whatever port.
    pub port: u16,
    /// `192.0.2.1:161`.
    pub asked: String,
    pub interval_seconds: u64,
    /// UTC milliseconds, as the next one; 0 = never.
    pub asked_at_ms: i64,
    pub answered_at_ms: i64,
    /// In a row; 0 = the last answer was good.
    pub failures: u32,
    /// Why the last attempt failed; empty when it did not.
    pub error: String,
    pub interfaces: usize,
    pub took_ms: u64,
}

impl SnmpStatus {
    pub(super) fn new(target: &Target) -> SnmpStatus {
        SnmpStatus {
            exporter: target.exporter,
            port: target.port,
            asked: target.socket().to_string(),
            interval_seconds: target.snmp.interval_seconds,
            ..SnmpStatus::default()
        }
    }

    pub(super) fn failed(&mut self, error: &SnmpError) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.error = crate::error_chain(error);
        self.failures
    }

    pub(super) fn answered(&mut self, now_ms: i64, took: Duration, interfaces: usize) {
        self.failures = 0;
        self.error.clear();
        self.answered_at_ms = now_ms;
        self.interfaces = interfaces;
        self.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("collector").join(FILE)
}

pub(super) fn write(data_dir: &Path, statuses: &[&SnmpStatus]) -> std::io::Result<()> {
    super::write_file(&path(data_dir), &serde_json::to_vec(statuses)?)
}

/// The status of a data directory, in order of exporter; empty where nothing is asked.
///
/// # Errors
/// When the file exists and cannot be read or understood.
pub fn read(data_dir: &Path) -> std::io::Result<Vec<SnmpStatus>> {
    match std::fs::read(path(data_dir)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// In the Prometheus text format.
pub fn metrics(statuses: &[SnmpStatus]) -> String {
    let mut text = String::new();
    if statuses.is_empty() {
        return text;
    }
    text.push_str(
        "# HELP ezscale_snmp_answered_timestamp_seconds when an exporter last answered by snmp, 0 = never\n\
         # TYPE ezscale_snmp_answered_timestamp_seconds gauge\n",
    );
    for status in statuses {
        // Addresses need no escaping. Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "ezscale_snmp_answered_timestamp_seconds{{exporter=\"{}\",port=\"{}\"}} {}",
            status.exporter,
            status.port,
            status.answered_at_ms / 1000
        );
    }
    let failing = statuses.iter().filter(|status| status.failures > 0).count();
    let _ = writeln!(
        text,
        "# HELP ezscale_snmp_exporters_failing exporters whose last answer by snmp is missing or wrong\n\
         # TYPE ezscale_snmp_exporters_failing gauge\nezscale_snmp_exporters_failing {failing}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_kept_and_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        let mut status = SnmpStatus {
            exporter: "192.0.2.1".parse().unwrap(),
            ..SnmpStatus::default()
        };
        status.answered(1_700_000_000_000, Duration::from_millis(7), 48);
        status.failed(&SnmpError::Deadline { seconds: 60 });
        write(dir.path(), &[&status]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [status.clone()]);
        let text = metrics(&[status]);
        assert!(text.contains(r#"{exporter="192.0.2.1",port="0"} 1700000000"#), "{text}");
        assert!(text.ends_with("ezscale_snmp_exporters_failing 1\n"));
        assert_eq!(metrics(&[]), "");
    }
}
