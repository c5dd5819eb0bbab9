//! How the collector listens and writes: `[collector]` in the configuration file.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use schemas::metering::DecodingConfig;
use serde::{Deserialize, Serialize};

/// At most so many sockets: the journal names a socket in one byte, and each has its own thread.
pub const SOCKETS_MAX: usize = 64;
/// At most so many sockets and threads for one address.
pub const RECEIVE_THREADS_MAX: usize = 16;

/// More threads than one decoder can feed.
const ENCODE_THREADS_MAX: u64 = 64;

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
    /// Asked of the kernel for each socket (`SO_RCVBUF`); it grants at most `net.core.rmem_max` unless the process has
    /// the capability `CAP_NET_ADMIN`.
    pub receive_buffer_bytes: usize,
    /// Sockets for each address, each with its own thread; the kernel gives all datagrams of one sender to the same one.
    /// One takes several hundred thousand datagrams per second.
    pub receive_threads: usize,
    /// What may wait in memory for the journal, for example while a sync lasts; beyond, datagrams are dropped, and
    /// counted.
    pub queue_max_bytes: usize,
    /// Threads that attribute and encode flows; 0 = one per processor.
    pub encode_threads: usize,
    /// The small files of an hour are merged when nothing was added to that hour for so long.
    pub compact_after_seconds: u64,
    /// Only datagrams from these networks are read; empty = from everywhere. Others are counted, by source.
    #[serde(deserialize_with = "schemas::prefix::list")]
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
            segment_max_bytes: 64 << 20,
            fsync_interval_ms: 200,
            journal_max_bytes: 20 << 30,
            receive_buffer_bytes: 32 << 20,
            receive_threads: 1,
            queue_max_bytes: 64 << 20,
            encode_threads: 0,
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
    #[error(
        "{addresses} addresses with {threads} sockets each are too many: use at most {SOCKETS_MAX} sockets, fewer addresses or a smaller collector.receive_threads"
    )]
    TooManySockets { addresses: usize, threads: usize },
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
    /// How many threads encode.
    pub(crate) fn encode_threads(&self) -> usize {
        match self.encode_threads {
            0 => encode_threads_default(),
            threads => threads,
        }
    }

    /// An IPv6 address beside an IPv4 address of the same port: without it, `[::]` takes IPv4 too.
    pub(crate) fn has_v4_of_its_port(&self, address: SocketAddr) -> bool {
        let is_v4_of_its_port = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
        address.is_ipv6() && address.port() != 0 && self.netflow.iter().chain(&self.sflow).any(is_v4_of_its_port)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is wrong, and the range it must be in.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let addresses = self.netflow.len() + self.sflow.len();
        if addresses == 0 {
            return Err(ConfigError::NoSocket);
        }
        let threads = self.receive_threads;
        in_range("receive_threads", threads as u64, 1, RECEIVE_THREADS_MAX as u64)?;
        if addresses * threads > SOCKETS_MAX {
            return Err(ConfigError::TooManySockets { addresses, threads });
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
        in_range("queue_max_bytes", self.queue_max_bytes as u64, 4 << 20, 4 << 30)?;
        in_range("encode_threads", self.encode_threads as u64, 0, ENCODE_THREADS_MAX)?;
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

/// One per processor.
pub(crate) fn encode_threads_default() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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
    fn every_socket_has_its_number() {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = |addresses: usize, receive_threads| CollectorConfig {
            netflow: vec![address; addresses],
            sflow: vec![],
            receive_threads,
            ..CollectorConfig::default()
        };
        config(4, 16).validate().unwrap();
        config(64, 1).validate().unwrap();
        let many = config(5, 16).validate().unwrap_err();
        assert_eq!(
            many.to_string(),
            "5 addresses with 16 sockets each are too many: use at most 64 sockets, fewer addresses or a smaller collector.receive_threads"
        );
        let none = config(1, 0).validate().unwrap_err();
        assert_eq!(
            none.to_string(),
            "collector.receive_threads = 0 is out of range: use 1 to 16"
        );
        assert!(config(1, 17).validate().is_err());
    }

    #[test]
    fn both_families_fit_on_one_port() {
        let config = |netflow: &[&str]| CollectorConfig {
            netflow: netflow.iter().map(|address| address.parse().unwrap()).collect(),
            ..CollectorConfig::default()
        };
        let v6 = "[::]:2055".parse().unwrap();
        assert!(config(&["[::]:2055", "0.0.0.0:2055"]).has_v4_of_its_port(v6));
        assert!(!config(&["[::]:2055", "0.0.0.0:9995"]).has_v4_of_its_port(v6));
        let both = config(&["[::]:0", "0.0.0.0:0"]);
        assert!(!both.has_v4_of_its_port(both.netflow[0]) && !both.has_v4_of_its_port(both.netflow[1]));
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
