//! Which `[[exporter]]` section an exporter is treated by.
//!
//! A section names one address or a network, and may name the UDP port that datagrams come from, for devices that share an
//! address. The most specific section wins: the longest prefix, and of equal prefixes the one that names the port. Where a
//! port is not known (sFlow, flows stored by older versions) only sections without a port answer.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ExporterConfig, MeteringConfig};
use crate::address::Address;

/// Bits before an IPv4 address in its mapped form.
const MAPPED_BITS: u8 = 96;
const HOST_BITS: u8 = 128;

/// Whose datagrams a section is about: one address, or every address of a network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExporterNet {
    first: Address,
    /// Of the 16 bytes.
    prefix_bits: u8,
}

/// Why a text is neither an address nor a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExporterNetError {
    #[error("{text:?} is neither an address nor a network: write one like 192.0.2.1, 192.0.2.0/24 or 2001:db8::/48")]
    Unreadable { text: String },
    #[error(
        "{written} names an address inside the network {network}: write {network}, or {address} for that one exporter"
    )]
    HostBits {
        written: IpNet,
        network: IpNet,
        address: IpAddr,
    },
}

impl ExporterNet {
    /// The one address it holds; `None` for a network.
    pub fn host(self) -> Option<Address> {
        (self.prefix_bits == HOST_BITS).then_some(self.first)
    }

    /// Its only address, or the first one of the network.
    pub fn first(self) -> Address {
        self.first
    }

    /// Whether every address of `other` is in it.
    pub fn covers(self, other: ExporterNet) -> bool {
        self.prefix_bits <= other.prefix_bits && self.contains(other.first)
    }

    pub fn contains(self, address: Address) -> bool {
        let different = self.first.to_u128() ^ address.to_u128();
        different
            .checked_shr(u32::from(HOST_BITS - self.prefix_bits))
            .unwrap_or(0)
            == 0
    }
}

impl From<Address> for ExporterNet {
    fn from(address: Address) -> ExporterNet {
        ExporterNet {
            first: address,
            prefix_bits: HOST_BITS,
        }
    }
}

impl PartialEq<Address> for ExporterNet {
    fn eq(&self, other: &Address) -> bool {
        self.host() == Some(*other)
    }
}

impl std::str::FromStr for ExporterNet {
    type Err = ExporterNetError;

    fn from_str(text: &str) -> Result<ExporterNet, ExporterNetError> {
        if let Ok(address) = text.parse::<Address>() {
            return Ok(address.into());
        }
        let unreadable = |_| ExporterNetError::Unreadable { text: text.to_owned() };
        let written: IpNet = text.parse().map_err(unreadable)?;
        if written != written.trunc() {
            return Err(ExporterNetError::HostBits {
                written,
                network: written.trunc(),
                address: written.addr(),
            });
        }
        let outside_bits = if written.addr().is_ipv4() { MAPPED_BITS } else { 0 };
        Ok(ExporterNet {
            first: written.addr().into(),
            prefix_bits: outside_bits + written.prefix_len(),
        })
    }
}

impl std::fmt::Display for ExporterNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host() {
            Some(address) => address.fmt(f),
            None if self.first.is_v4() && self.prefix_bits >= MAPPED_BITS => {
                write!(f, "{}/{}", self.first, self.prefix_bits - MAPPED_BITS)
            }
            None => write!(f, "{}/{}", self.first, self.prefix_bits),
        }
    }
}

impl std::fmt::Debug for ExporterNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for ExporterNet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExporterNet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<ExporterNet, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What is known by section, found by exporter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExporterTable<V> {
    /// By address and port, 0 = whatever port.
    hosts: HashMap<(Address, u16), V>,
    /// The most specific first.
    networks: Vec<(ExporterNet, u16, V)>,
    /// Addresses that have a section of their own.
    listed: HashSet<Address>,
}

impl<V> Default for ExporterTable<V> {
    fn default() -> ExporterTable<V> {
        ExporterTable {
            hosts: HashMap::new(),
            networks: Vec::new(),
            listed: HashSet::new(),
        }
    }
}

impl<V, const N: usize> From<[(Address, V); N]> for ExporterTable<V> {
    fn from(of_addresses: [(Address, V); N]) -> ExporterTable<V> {
        let mut table = ExporterTable::default();
        for (address, value) in of_addresses {
            table.insert(address, None, value);
        }
        table
    }
}

impl<V> ExporterTable<V> {
    /// Of each section what `value` makes of it.
    pub fn of<'a>(config: &'a MeteringConfig, value: impl Fn(&'a ExporterConfig) -> V) -> ExporterTable<V> {
        let mut table = ExporterTable::default();
        for exporter in &config.exporters {
            table.insert(exporter.address, exporter.port, value(exporter));
        }
        table
    }

    /// Adds a section, or replaces the one of the same address and port.
    pub fn insert(&mut self, exporters: impl Into<ExporterNet>, port: Option<u16>, value: V) {
        let (exporters, port) = (exporters.into(), port.unwrap_or(0));
        if let Some(address) = exporters.host() {
            self.hosts.insert((address, port), value);
            self.listed.insert(address);
            return;
        }
        let rank = |net: ExporterNet, port: u16| (std::cmp::Reverse(net.prefix_bits), port == 0, net, port);
        let new = rank(exporters, port);
        match self
            .networks
            .binary_search_by_key(&new, |(net, port, _)| rank(*net, *port))
        {
            Ok(at) => self.networks[at].2 = value,
            Err(at) => self.networks.insert(at, (exporters, port, value)),
        }
    }

    /// The most specific section's value. `port` 0 means that the port is not known.
    pub fn get(&self, exporter: Address, port: u16) -> Option<&V> {
        if port != 0
            && let Some(value) = self.hosts.get(&(exporter, port))
        {
            return Some(value);
        }
        if let Some(value) = self.hosts.get(&(exporter, 0)) {
            return Some(value);
        }
        let matching = |net: ExporterNet, of_port: u16| net.contains(exporter) && (of_port == 0 || of_port == port);
        let found = self
            .networks
            .iter()
            .find(|(net, of_port, _)| matching(*net, *of_port))?;
        Some(&found.2)
    }

    /// Whether a section names just this address. Only such exporters always have a place: a network may hold more addresses
    /// than anybody could keep.
    pub fn lists(&self, exporter: Address) -> bool {
        self.listed.contains(&exporter)
    }

    /// Addresses that have a section of their own.
    pub fn listed(&self) -> &HashSet<Address> {
        &self.listed
    }
}

impl MeteringConfig {
    /// The section that an exporter is treated by. For many look-ups make an [`ExporterTable`].
    pub fn exporter(&self, address: Address, port: u16) -> Option<&ExporterConfig> {
        let fits = |config: &&ExporterConfig| {
            config.address.contains(address) && config.port.is_none_or(|of_port| port != 0 && of_port == port)
        };
        let rank = |config: &&ExporterConfig| (config.address.prefix_bits, config.port.is_some());
        self.exporters.iter().filter(fits).max_by_key(rank)
    }
}

impl ExporterConfig {
    /// What people call this exporter. A section for a network names many: each keeps its address beside the name.
    pub fn name_of(&self, exporter: Address) -> String {
        match (&self.name, self.address.host()) {
            (Some(name), Some(_)) => name.clone(),
            (Some(name), None) => format!("{name} {exporter}"),
            (None, _) => exporter.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn config(sections: &[(&str, Option<u16>)]) -> MeteringConfig {
        let section = |(n, (net, port)): (usize, &(&str, Option<u16>))| ExporterConfig {
            address: net.parse().unwrap(),
            port: *port,
            name: Some(n.to_string()),
            ..ExporterConfig::unlisted(Address::UNSPECIFIED)
        };
        MeteringConfig {
            exporters: sections.iter().enumerate().map(section).collect(),
            ..MeteringConfig::default()
        }
    }

    #[test]
    fn the_most_specific_section_wins_whatever_the_order() {
        let sections = [
            ("0.0.0.0/0", None),
            ("192.0.2.0/24", None),
            ("192.0.2.0/25", Some(40_001)),
            ("192.0.2.0/25", None),
            ("192.0.2.1", None),
            ("192.0.2.1", Some(40_001)),
            ("192.0.2.9", Some(40_002)),
            ("2001:db8::/32", None),
            ("2001:db8:1::/48", None),
        ];
        for reversed in [false, true] {
            let mut config = config(&sections);
            if reversed {
                config.exporters.reverse();
            }
            let table = ExporterTable::of(&config, |exporter| exporter.name.clone().unwrap());
            for (exporter, port, expected) in [
                ("192.0.2.1", 0, Some("4")),
                ("192.0.2.1", 40_001, Some("5")),
                ("192.0.2.1", 40_002, Some("4")),
                ("192.0.2.2", 40_001, Some("2")),
                ("192.0.2.2", 0, Some("3")),
                ("192.0.2.9", 40_002, Some("6")),
                ("192.0.2.9", 40_001, Some("2")),
                ("192.0.2.200", 40_001, Some("1")),
                ("198.51.100.1", 0, Some("0")),
                ("2001:db8:1::7", 0, Some("8")),
                ("2001:db8:2::7", 0, Some("7")),
                ("2001:dead::1", 0, None),
            ] {
                let exporter = address(exporter);
                assert_eq!(
                    table.get(exporter, port).map(String::as_str),
                    expected,
                    "{exporter} {port}"
                );
                let found = config.exporter(exporter, port).and_then(|found| found.name.as_deref());
                assert_eq!(found, expected, "{exporter} {port}, looked up alone");
            }
        }
    }

    #[test]
    fn a_port_that_is_not_known_fits_no_section_of_a_port() {
        let config = config(&[("192.0.2.1", Some(40_001)), ("192.0.2.1", Some(40_002))]);
        let table = ExporterTable::of(&config, |exporter| exporter.port);
        assert_eq!(table.get(address("192.0.2.1"), 0), None);
        assert_eq!(table.get(address("192.0.2.1"), 40_002), Some(&Some(40_002)));
        assert!(table.lists(address("192.0.2.1")) && !table.lists(address("192.0.2.2")));
    }

    #[test]
    fn everything_of_a_network_is_in_it_and_nothing_else() {
        let all: ExporterNet = "::/0".parse().unwrap();
        assert!(all.contains(address("2001:db8::1")) && all.contains(address("192.0.2.1")));
        let v4: ExporterNet = "0.0.0.0/0".parse().unwrap();
        assert!(v4.contains(address("192.0.2.1")) && !v4.contains(address("2001:db8::1")));
        let one: ExporterNet = "192.0.2.1/32".parse().unwrap();
        assert_eq!(one.host(), Some(address("192.0.2.1")));
        assert_eq!(one, ExporterNet::from(address("192.0.2.1")));
        assert!(!one.contains(address("192.0.2.2")));
        for text in [
            "192.0.2.1",
            "192.0.2.0/24",
            "2001:db8::/48",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::1",
        ] {
            assert_eq!(text.parse::<ExporterNet>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_network_is_named_with_what_to_write() {
        let error = |text: &str| text.parse::<ExporterNet>().unwrap_err().to_string();
        assert!(error("192.0.2.9/24").contains("write 192.0.2.0/24, or 192.0.2.9 for"));
        assert!(error("192.0.2.0/33").contains("\"192.0.2.0/33\" is neither"));
        assert!(error("mx1").contains("192.0.2.0/24"));
    }

    #[test]
    fn of_a_network_each_exporter_keeps_its_address_in_its_name() {
        let config = config(&[("192.0.2.0/24", None), ("192.0.2.1", None)]);
        let name = |text| config.exporter(address(text), 0).unwrap().name_of(address(text));
        assert_eq!(
            (name("192.0.2.1"), name("192.0.2.2")),
            ("1".into(), "0 192.0.2.2".into())
        );
    }
}
