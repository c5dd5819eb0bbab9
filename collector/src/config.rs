//! How the collector listens and writes: `[collector]` in the configuration file.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use schemas::metering::DecodingConfig;
use serde::{Deserialize, Serialize};

/// At most so many sockets: the journal names a socket in one byte, and each has its own thread.
pub const SOCKETS_MAX: usize = 64;

/// Settings of the collector. Every field has a default; see [`CollectorConfig::validate`] for what is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectorConfig {
    /// UDP addresses for NetFlow v5, v7, v9 and IPFIX. Port 0 takes a free port.
    pub netflow: Vec<SocketAddr>,
    /// UDP addresses for sFlow. Both kinds are understood on every socket; the names say what is expected there.
    pub sflow: Vec<SocketAddr>,
    /// A journal segment is closed at this age and becomes queryable shortly after.
    pub segment_seconds: u64,
    /// A journal segment is closed at this size whatever its age. It is decoded in memory: ten times as much is needed.
    pub segment_max_bytes: u64,
    /// Received datagrams become durable this often. At most so much is lost when the machine fails.
    pub fsync_interval_ms: u64,
    /// The journal may grow to this size while the tables cannot be written; then datagrams are dropped, and counted.
    pub journal_max_bytes: u64,
    /// Asked of the kernel for each socket (`SO_RCVBUF`); it grants at most `net.core.rmem_max`.
    pub receive_buffer_bytes: usize,
    /// Batches of up to 64 KiB that may wait for the journal; beyond, datagrams are dropped, and counted.
    pub queue_batches: usize,
    /// The small files of an hour are merged when nothing was added to that hour for so long.
    pub compact_after_seconds: u64,
    /// Only datagrams from these networks are read; empty = from everywhere. Others are counted, by source.
    pub allowed_exporters: Vec<IpNet>,
    /// Sampling rate of exporters that say none and have no `default_sampling_rate` of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_sampling_rate: Option<u32>,
    /// The upper two bits of the sampling word in a NetFlow v5 header are a mode; without it all 16 bits are the interval.
    pub v5_sampling_mode_bits: bool,
}

impl Default for CollectorConfig {
    fn default() -> CollectorConfig {
        let any = |port| vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
        CollectorConfig {
            netflow: any(2055),
            sflow: any(6343),
            segment_seconds: 10,
            segment_max_bytes: 32 << 20,
            fsync_interval_ms: 200,
            journal_max_bytes: 20 << 30,
            receive_buffer_bytes: 32 << 20,
            queue_batches: 512,
            compact_after_seconds: 3_600,
            allowed_exporters: Vec::new(),
            default_sampling_rate: None,
            v5_sampling_mode_bits: true,
        }
    }
}

/// Why a configuration is refused, and what to write instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error(
        "no address to listen on: set collector.netflow or collector.sflow, for example netflow = [\"0.0.0.0:2055\"]"
    )]
    NoSocket,
    #[error("{count} addresses to listen on are too many: use at most {SOCKETS_MAX}")]
    TooManySockets { count: usize },
    #[error(
        "{address} is listed twice under collector.netflow and collector.sflow: list it once, every socket takes both"
    )]
    Repeated { address: SocketAddr },
    #[error("collector.{field} = {value} is out of range: use {min} to {max}")]
    OutOfRange {
        field: &'static str,
        value: u64,
        min: u64,
        max: u64,
    },
    #[error(
        "collector.default_sampling_rate = 0 is not a rate: 1 means unsampled; leave the key out when nothing is known"
    )]
    RateZero,
    #[error(
        "collector.allowed_exporters: {written} names an address inside the network {network}: \
         write {network}, or {address} for that one exporter"
    )]
    HostBits {
        written: IpNet,
        network: IpNet,
        address: IpNet,
    },
}

impl CollectorConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is wrong, and the range it must be in.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let count = self.netflow.len() + self.sflow.len();
        if count == 0 {
            return Err(ConfigError::NoSocket);
        }
        if count > SOCKETS_MAX {
            return Err(ConfigError::TooManySockets { count });
        }
        let mut fixed: Vec<SocketAddr> = self.netflow.iter().chain(&self.sflow).copied().collect();
        fixed.retain(|address| address.port() != 0);
        fixed.sort_unstable();
        if let Some(pair) = fixed.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Repeated { address: pair[0] });
        }
        in_range("segment_seconds", self.segment_seconds, 1, 3_600)?;
        in_range("segment_max_bytes", self.segment_max_bytes, 1 << 20, 512 << 20)?;
        in_range("fsync_interval_ms", self.fsync_interval_ms, 1, 10_000)?;
        in_range("journal_max_bytes", self.journal_max_bytes, 64 << 20, 1 << 50)?;
        let receive_buffer_bytes = self.receive_buffer_bytes as u64;
        in_range("receive_buffer_bytes", receive_buffer_bytes, 64 << 10, 1 << 30)?;
        in_range("queue_batches", self.queue_batches as u64, 4, 65_536)?;
        in_range("compact_after_seconds", self.compact_after_seconds, 60, 30 * 86_400)?;
        if self.default_sampling_rate == Some(0) {
            return Err(ConfigError::RateZero);
        }
        for written in &self.allowed_exporters {
            if *written != written.trunc() {
                return Err(ConfigError::HostBits {
                    written: *written,
                    network: written.trunc(),
                    address: IpNet::from(written.addr()),
                });
            }
        }
        Ok(())
    }

    /// What of this a running collector takes over without a restart.
    pub fn decoding(&self) -> DecodingConfig {
        DecodingConfig {
            allowed_exporters: self.allowed_exporters.clone(),
            default_sampling_rate: self.default_sampling_rate,
            v5_sampling_mode_bits: self.v5_sampling_mode_bits,
        }
    }
}

fn in_range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { field, value, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_errors_say_what_to_write() {
        let good = CollectorConfig::default();
        good.validate().unwrap();
        let none = CollectorConfig {
            netflow: vec![],
            sflow: vec![],
            ..good.clone()
        };
        assert_eq!(none.validate(), Err(ConfigError::NoSocket));
        let twice = CollectorConfig {
            sflow: good.netflow.clone(),
            ..good.clone()
        };
        assert!(matches!(twice.validate(), Err(ConfigError::Repeated { .. })));
        let slow = CollectorConfig {
            segment_seconds: 0,
            ..good
        };
        assert_eq!(
            slow.validate().unwrap_err().to_string(),
            "collector.segment_seconds = 0 is out of range: use 1 to 3600"
        );
    }

    #[test]
    fn mistakes_in_what_is_read_are_named() {
        let with = |network: &str, default_sampling_rate| CollectorConfig {
            allowed_exporters: vec![network.parse().unwrap()],
            default_sampling_rate,
            ..CollectorConfig::default()
        };
        with("192.0.2.0/24", Some(1)).validate().unwrap();
        with("2001:db8::1/128", None).validate().unwrap();
        assert_eq!(with("192.0.2.0/24", Some(0)).validate(), Err(ConfigError::RateZero));
        assert_eq!(
            with("192.0.2.9/24", None).validate().unwrap_err().to_string(),
            "collector.allowed_exporters: 192.0.2.9/24 names an address inside the network 192.0.2.0/24: \
             write 192.0.2.0/24, or 192.0.2.9/32 for that one exporter"
        );
    }

    #[test]
    fn free_ports_may_repeat() {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = CollectorConfig {
            netflow: vec![address, address],
            ..CollectorConfig::default()
        };
        config.validate().unwrap();
    }
}
