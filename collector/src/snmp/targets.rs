//! Whom to ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use schemas::address::Address;
use schemas::metering::{MeteringConfig, SnmpConfig};
use tracing::warn;

use super::NETWORK_TARGETS_MAX;
use crate::status;

/// One exporter to ask.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) exporter: Address,
    /// Of its section; 0 = whatever port.
    pub(super) port: u16,
    pub(super) snmp: SnmpConfig,
}

impl Target {
    pub(super) fn key(&self) -> (Address, u16) {
        (self.exporter, self.port)
    }

    /// Where it is asked.
    pub(super) fn socket(&self) -> SocketAddr {
        let address = self.snmp.address.unwrap_or_else(|| self.exporter.to_ip());
        SocketAddr::new(address, self.snmp.port)
    }
}

/// Exporters that sections name, then those of networks that were heard in a protocol of ours.
pub(super) async fn of(metering: &MeteringConfig, data_dir: &Path) -> Vec<Target> {
    let heard = if metering.exporters.iter().any(is_of_a_network) {
        heard(data_dir).await
    } else {
        Vec::new()
    };
    chosen(metering, &heard)
}

fn is_of_a_network(section: &schemas::metering::ExporterConfig) -> bool {
    section.snmp.is_some() && section.address.host().is_none()
}

fn chosen(metering: &MeteringConfig, heard: &[Address]) -> Vec<Target> {
    let mut targets: BTreeMap<(Address, u16), Target> = BTreeMap::new();
    for section in &metering.exporters {
        if let (Some(exporter), Some(snmp)) = (section.address.host(), &section.snmp) {
            let target = Target {
                exporter,
                port: section.port.unwrap_or(0),
                snmp: snmp.clone(),
            };
            targets.insert(target.key(), target);
        }
    }
    let mut of_networks = 0;
    for exporter in heard {
        let section = metering
            .exporter(*exporter, 0)
            .filter(|section| is_of_a_network(section));
        let Some(snmp) = section.and_then(|section| section.snmp.as_ref()) else {
            continue;
        };
        if of_networks >= NETWORK_TARGETS_MAX {
            warn!(
                limit = NETWORK_TARGETS_MAX,
                "not all exporters of networks are asked by snmp"
            );
            break;
        }
        of_networks += 1;
        let target = Target {
            exporter: *exporter,
            port: 0,
            // One address for all of a network would give all of them its names.
            snmp: SnmpConfig {
                address: None,
                ..snmp.clone()
            },
        };
        targets.insert(target.key(), target);
    }
    targets.into_values().collect()
}

/// Exporters that spoke a protocol of ours, from the collector's status.
async fn heard(data_dir: &Path) -> Vec<Address> {
    let data_dir = data_dir.to_owned();
    let read = tokio::task::spawn_blocking(move || status::read(&data_dir)).await;
    let Ok(Ok(Some(status))) = read else {
        return Vec::new();
    };
    let exporters = status.exporters.iter();
    exporters
        .filter(|exporter| !exporter.protocol_versions.is_empty() && !exporter.is_refused())
        .map(|exporter| exporter.address)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::metering::ExporterConfig;

    fn section(net: &str, port: Option<u16>, snmp: Option<SnmpConfig>) -> ExporterConfig {
        ExporterConfig {
            address: net.parse().unwrap(),
            port,
            snmp,
            ..ExporterConfig::unlisted(Address::UNSPECIFIED)
        }
    }

    #[test]
    fn named_exporters_are_asked_and_of_networks_those_that_were_heard() {
        let own = SnmpConfig {
            address: Some("203.0.113.9".parse().unwrap()),
            port: 1161,
            ..SnmpConfig::v2c("own")
        };
        let metering = MeteringConfig {
            exporters: vec![
                section("192.0.2.0/24", None, Some(SnmpConfig::v2c("all"))),
                section("192.0.2.1", None, Some(own)),
                section("192.0.2.2", None, None),
                section("198.51.100.1", Some(40_001), Some(SnmpConfig::v2c("nat"))),
            ],
            ..MeteringConfig::default()
        };
        let heard: Vec<Address> = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "203.0.113.1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let asked: Vec<(String, u16, String)> = chosen(&metering, &heard)
            .iter()
            .map(|target| {
                let community = target.snmp.community.as_ref().unwrap().reveal().to_owned();
                (target.socket().to_string(), target.port, community)
            })
            .collect();
        let expected = [
            ("203.0.113.9:1161", 0, "own"),
            ("192.0.2.3:161", 0, "all"),
            ("198.51.100.1:161", 40_001, "nat"),
        ];
        assert_eq!(
            asked,
            expected.map(|(socket, port, community)| (socket.to_owned(), port, community.to_owned())),
            "a section of its own without snmp is not asked"
        );
    }

    #[test]
    fn forged_exporters_of_a_network_are_bounded() {
        let metering = MeteringConfig {
            exporters: vec![section("10.0.0.0/8", None, Some(SnmpConfig::v2c("all")))],
            ..MeteringConfig::default()
        };
        let heard: Vec<Address> = (0..5_000u32)
            .map(|n| Address::from_v4([10, 0, (n >> 8) as u8, n as u8]))
            .collect();
        assert_eq!(chosen(&metering, &heard).len(), NETWORK_TARGETS_MAX);
    }
}
