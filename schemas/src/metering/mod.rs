//! Metering points as configured: which exporter's flows count, in which observation, across which interfaces.
//!
//! What this makes of a flow: `tables::metering::Enricher`.

pub mod correction;
mod exporters;
mod pattern;
mod snmp;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::interfaces::KnownInterfaces;

use correction::Correction;
pub use exporters::{ExporterNet, ExporterNetError, ExporterTable};
pub use pattern::{InterfacePattern, InterfacePatternError};
pub use snmp::{SnmpAuth, SnmpConfig, SnmpPrivacy};

/// How an exporter's flows are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MeterMode {
    /// By the configured boundary of the interfaces it crossed.
    Boundary,
    /// By addresses: an assigned address or an own network is inside, everything else outside.
    #[default]
    Addresses,
    /// Kept and shown, never counted: another exporter meters this traffic.
    Off,
}

impl MeterMode {
    /// The observation that counts where none is configured.
    #[inline]
    pub fn default_direction(self) -> MeterDirection {
        match self {
            MeterMode::Addresses => MeterDirection::Both,
            MeterMode::Boundary | MeterMode::Off => MeterDirection::Ingress,
        }
    }
}

/// Which observation of a packet counts at an exporter that reports both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MeterDirection {
    Ingress,
    Egress,
    /// For an exporter that reports each packet once but names both directions, such as a software probe that calls the
    /// answering half of a conversation egress.
    Both,
}

/// What the templates, options and sequence numbers of a NetFlow or IPFIX exporter hold for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionScope {
    /// The UDP port that they came from (RFC 7011): two routers behind one address stay apart.
    #[default]
    Port,
    /// All ports of the address: one exporter that sends templates from one port and data from another.
    Address,
}

/// Which packet of a sampled tunnel is the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelMode {
    /// The packet that crossed the interface: its addresses are the tunnel's ends.
    #[default]
    Outer,
    /// The packet inside, as deep as the sampled header shows one: its addresses are the customers'.
    Inner,
}

impl TunnelMode {
    fn is_outer(&self) -> bool {
        *self == TunnelMode::Outer
    }
}

/// Configuration of one exporter: `[[exporter]]` in the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExporterConfig {
    /// Source address of its datagrams (sFlow: the agent address), or a network of such.
    pub address: ExporterNet,
    /// UDP source port of its datagrams, for devices that share an address; where absent, whatever port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Name for people; the address where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Site (datacenter); services of a site are measured by the metering exporters of that site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    #[serde(default)]
    pub meter: MeterMode,
    /// Where absent: ingress by boundary, both by addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<MeterDirection>,
    /// SNMP indexes of the interfaces that face other networks; every other interface is internal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_interfaces: Vec<u32>,
    /// Interfaces whose name or description this expression finds are external, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_interfaces_matching: Option<InterfacePattern>,
    /// What people call its interfaces, by SNMP index; `interface 17` where absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "by_index")]
    pub interface_names: BTreeMap<u32, String>,
    /// Overrides whatever the exporter says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<u32>,
    /// Used when the exporter says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_sampling_rate: Option<u32>,
    /// Whether the upper two bits of the sampling word in its v5 headers are a mode; as for all exporters where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v5_sampling_mode_bits: Option<bool>,
    /// What its templates, options and sequence numbers hold for.
    #[serde(default)]
    pub sessions: SessionScope,
    /// Seconds after which it reports a flow that goes on: no record holds older bytes. Where absent, what the exporter announces or
    /// its records show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_timeout_s: Option<u32>,
    /// Next hop and output interface both zero mean a discarded packet, as Junos says with `report-zero-oif-gw-on-discard`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub zero_route_is_discard: bool,
    /// Whether IE 23 and 24 beside IE 1 and 2 count the answering direction; where absent they do not, and are pointed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_bytes_are_answer: Option<bool>,
    /// Octets of layer 2 in the bytes that it reports, per packet; they are taken off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub layer2_octets: u16,
    /// Which packet counts where it samples tunnels: VXLAN, GRE, IP in IP, SRv6, Ethernet over MPLS.
    #[serde(default, skip_serializing_if = "TunnelMode::is_outer")]
    pub tunnels: TunnelMode,
    /// How its interfaces are asked for names, speeds and counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snmp: Option<SnmpConfig>,
}

fn is_zero(octets: &u16) -> bool {
    *octets == 0
}

/// More than a frame has: an Ethernet header, two VLAN tags and a check sequence, or a label stack.
pub const LAYER2_OCTETS_MAX: u16 = 64;
/// Cisco's largest, a week: what is longer is no timeout.
pub const ACTIVE_TIMEOUT_S_MAX: u32 = 604_800;

impl ExporterConfig {
    /// Which observation counts. A router that samples packets where they come in and where they go out reports each
    /// twice, so that by boundary one of the two must be chosen; what meters by addresses is mostly a probe that sees each
    /// packet once.
    pub fn metered_direction(&self) -> MeterDirection {
        self.direction.unwrap_or(self.meter.default_direction())
    }

    /// An exporter as it is treated while the configuration does not list it.
    pub fn unlisted(address: Address) -> ExporterConfig {
        ExporterConfig {
            address: address.into(),
            port: None,
            name: None,
            site: None,
            meter: MeterMode::Addresses,
            direction: None,
            external_interfaces: Vec::new(),
            external_interfaces_matching: None,
            interface_names: BTreeMap::new(),
            sampling_rate: None,
            default_sampling_rate: None,
            v5_sampling_mode_bits: None,
            sessions: SessionScope::Port,
            active_timeout_s: None,
            zero_route_is_discard: false,
            out_bytes_are_answer: None,
            layer2_octets: 0,
            tunnels: TunnelMode::Outer,
            snmp: None,
        }
    }

    /// Whether no interface of it can be external, which makes metering by boundary count nothing.
    pub fn names_no_external_interface(&self) -> bool {
        self.external_interfaces.is_empty() && self.external_interfaces_matching.is_none()
    }
}

/// How the datagrams of all exporters are read, as configured under `[collector]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DecodingConfig {
    /// Only datagrams from these networks are read; empty = from everywhere.
    pub allowed_exporters: Vec<IpNet>,
    /// For exporters that say no rate and have no default of their own.
    pub default_sampling_rate: Option<u32>,
    /// The upper two bits of the sampling word in a v5 header are a mode; without it all 16 bits are the interval.
    pub v5_sampling_mode_bits: bool,
}

impl Default for DecodingConfig {
    fn default() -> DecodingConfig {
        DecodingConfig {
            allowed_exporters: Vec::new(),
            default_sampling_rate: None,
            v5_sampling_mode_bits: true,
        }
    }
}

/// Everything that decides whether a flow counts, as configured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MeteringConfig {
    /// Networks of ours that no service holds yet; assigned prefixes need not be repeated.
    pub own_networks: Vec<IpNet>,
    #[serde(rename = "exporter")]
    pub exporters: Vec<ExporterConfig>,
    pub decoding: DecodingConfig,
    /// How far back usage that was charged is corrected (`billing.correction_reach_days`); billing's default where absent.
    pub correction_reach_days: Option<u32>,
    /// What is known of the exporters' interfaces, as far as they say it themselves.
    #[serde(skip)]
    pub interfaces: Arc<KnownInterfaces>,
    /// What was said about exporters' past, in the order in which it was said.
    pub corrections: Vec<Correction>,
}

mod by_index {
    //! SNMP indexes as the keys of a table: TOML knows text there only.

    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(names: &BTreeMap<u32, String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(names.iter().map(|(index, name)| (index.to_string(), name)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u32, String>, D::Error> {
        let mut names = BTreeMap::new();
        for (key, name) in BTreeMap::<String, String>::deserialize(deserializer)? {
            let index = key
                .parse()
                .map_err(|_| D::Error::custom(format!("interface_names: {key:?} is no SNMP index")))?;
            names.insert(index, name);
        }
        Ok(names)
    }
}
