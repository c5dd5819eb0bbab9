//! Rows to datagrams: what an exporter sends for the flows it saw.
//!
//! Promises:
//! * A payload is at most [`DATAGRAM_BYTES_MAX`] long and stands as a router's would: header, sequence number, templates
//!   and sampling options before the first data and again at the configured refresh.
//! * Decoded again, a flow has the same addresses, ports, protocol, flags, interfaces, VLAN, next hop, AS numbers, masks,
//!   direction, bytes and packets. Times keep their milliseconds except with sFlow, which has none.
//! * A flow that the protocol cannot express is an error before anything is encoded, never a changed number.
//! * One allocation per datagram, none per flow.

mod sflow;
mod template;
mod v5;

use std::fmt;
use std::str::FromStr;

use schemas::address::Address;
use tables::flow::{Flow, PROTOCOL_SFLOW5};

use self::sflow::SflowEncoder;
use self::template::TemplateEncoder;
use self::v5::V5Encoder;

/// Fits an Ethernet frame with room for tunnels on the way.
pub const DATAGRAM_BYTES_MAX: usize = 1_400;

/// What a simulated exporter speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SimProtocol {
    V5,
    V9,
    Ipfix,
    Sflow,
}

impl SimProtocol {
    /// Every protocol.
    pub const ALL: [SimProtocol; 4] = [SimProtocol::V5, SimProtocol::V9, SimProtocol::Ipfix, SimProtocol::Sflow];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            SimProtocol::V5 => "v5",
            SimProtocol::V9 => "v9",
            SimProtocol::Ipfix => "ipfix",
            SimProtocol::Sflow => "sflow",
        }
    }

    /// As in the `protocol_version` column of flows.
    pub fn protocol_version(self) -> u8 {
        match self {
            SimProtocol::V5 => 5,
            SimProtocol::V9 => 9,
            SimProtocol::Ipfix => 10,
            SimProtocol::Sflow => PROTOCOL_SFLOW5,
        }
    }
}

impl fmt::Display for SimProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of a protocol.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown protocol {name:?}, expected v5, v9, ipfix or sflow")]
pub struct UnknownProtocol {
    pub name: String,
}

impl FromStr for SimProtocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<SimProtocol, UnknownProtocol> {
        let found = SimProtocol::ALL.into_iter().find(|protocol| protocol.name() == name);
        found.ok_or_else(|| UnknownProtocol { name: name.to_owned() })
    }
}

/// Who a simulated exporter is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimExporterConfig {
    /// sFlow: the agent address; otherwise the IPFIX options name it.
    pub address: Address,
    /// IPFIX observation domain, v9 source id, v5 engine (type × 256 + id), sFlow sub-agent.
    pub observation_domain: u32,
    pub protocol: SimProtocol,
    /// One packet in so many; 0 = the exporter does not say.
    pub sampling_rate: u32,
    /// UTC ms; times of v5 and v9 count from here. Their 32 bits of milliseconds wrap after 49.7 days.
    pub boot_at_ms: i64,
    /// Templates and options are sent again after so many datagrams …
    pub refresh_datagrams: u32,
    /// … or so much time.
    pub refresh_ms: i64,
    /// sFlow sends the counters of its interfaces so often.
    pub counter_interval_ms: i64,
}

impl SimExporterConfig {
    /// An exporter with a refresh every 500 datagrams or 60 seconds, and counters every 30 seconds.
    pub fn new(
        address: Address,
        observation_domain: u32,
        protocol: SimProtocol,
        sampling_rate: u32,
        boot_at_ms: i64,
    ) -> SimExporterConfig {
        SimExporterConfig {
            address,
            observation_domain,
            protocol,
            sampling_rate,
            boot_at_ms,
            refresh_datagrams: 500,
            refresh_ms: 60_000,
            counter_interval_ms: 30_000,
        }
    }
}

/// Exact sums of what was encoded or sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    pub datagrams: u64,
    pub flows: u64,
    /// As exported, unscaled.
    pub bytes: u64,
    /// As exported, unscaled.
    pub packets: u64,
    /// Σ bytes × sampling rate.
    pub bytes_scaled: u64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.datagrams += other.datagrams;
        self.flows += other.flows;
        self.bytes += other.bytes;
        self.packets += other.packets;
        self.bytes_scaled += other.bytes_scaled;
    }
}

/// A flow or a setting that the protocol cannot express.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("{protocol} cannot carry {field} {value}")]
    OutOfRange {
        protocol: SimProtocol,
        field: &'static str,
        value: u64,
    },
    #[error("{protocol} cannot carry the address {address}")]
    AddressFamily { protocol: SimProtocol, address: Address },
}

#[derive(Debug)]
enum Encoder {
    V5(V5Encoder),
    Template(TemplateEncoder),
    Sflow(SflowEncoder),
}

/// A simulated exporter: its identity, sequence numbers and when it last sent its templates.
#[derive(Debug)]
pub struct SimExporter {
    config: SimExporterConfig,
    encoder: Encoder,
}

impl SimExporter {
    pub fn new(config: SimExporterConfig) -> SimExporter {
        let encoder = match config.protocol {
            SimProtocol::V5 => Encoder::V5(V5Encoder::default()),
            SimProtocol::V9 | SimProtocol::Ipfix => Encoder::Template(TemplateEncoder::default()),
            SimProtocol::Sflow => Encoder::Sflow(SflowEncoder::default()),
        };
        SimExporter { config, encoder }
    }

    pub fn config(&self) -> &SimExporterConfig {
        &self.config
    }

    /// From now on an sFlow agent sends the counters of its interfaces so often.
    pub fn set_counter_interval_ms(&mut self, interval_ms: i64) {
        self.config.counter_interval_ms = interval_ms;
    }

    /// Appends the datagrams that report `flows` at `now_ms` to `out` and returns their sums. The rate of the flows is
    /// taken to be the exporter's.
    ///
    /// # Errors
    /// When a flow cannot be expressed; `out` and the exporter are then unchanged.
    pub fn encode(&mut self, now_ms: i64, flows: &[Flow], out: &mut Vec<Vec<u8>>) -> Result<Sums, EncodeError> {
        let before = out.len();
        match &mut self.encoder {
            Encoder::V5(encoder) => encoder.encode(&self.config, now_ms, flows, out)?,
            Encoder::Template(encoder) => encoder.encode(&self.config, now_ms, flows, out),
            Encoder::Sflow(encoder) => encoder.encode(&self.config, now_ms, flows, out)?,
        }
        let mut sums = Sums {
            datagrams: (out.len() - before) as u64,
            flows: flows.len() as u64,
            ..Sums::default()
        };
        for flow in flows {
            sums.bytes += flow.bytes;
            sums.packets += flow.packets;
        }
        sums.bytes_scaled = sums.bytes.saturating_mul(u64::from(self.config.sampling_rate));
        Ok(sums)
    }
}

/// Last four bytes of a mapped IPv4 address.
fn v4_octets(address: Address) -> [u8; 4] {
    let [.., a, b, c, d] = address.0;
    [a, b, c, d]
}

fn put_u16(buffer: &mut Vec<u8>, value: u16) {
    buffer.extend_from_slice(&value.to_be_bytes());
}

fn put_u32(buffer: &mut Vec<u8>, value: u32) {
    buffer.extend_from_slice(&value.to_be_bytes());
}

fn put_u64(buffer: &mut Vec<u8>, value: u64) {
    buffer.extend_from_slice(&value.to_be_bytes());
}

/// Writes `value` at `offset`, which was reserved before.
fn patch_u16(buffer: &mut [u8], offset: usize, value: u16) {
    buffer[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes `value` at `offset`, which was reserved before.
fn patch_u32(buffer: &mut [u8], offset: usize, value: u32) {
    buffer[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
}
