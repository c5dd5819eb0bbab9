//! What people call exporters and their interfaces.
//!
//! Configured names win; else an interface is called what the exporter itself calls it ([`crate::interfaces`]), else by its
//! index.

use crate::address::Address;
use crate::interfaces::{KnownInterface, KnownInterfaces};
use crate::metering::{ExporterConfig, ExporterTable, MeteringConfig};

/// Names of exporters and interfaces. Made once for a page or a table.
#[derive(Debug)]
pub struct Names<'a> {
    exporters: ExporterTable<&'a ExporterConfig>,
    known: &'a KnownInterfaces,
}

impl<'a> Names<'a> {
    pub fn new(config: &'a MeteringConfig) -> Names<'a> {
        Names {
            exporters: ExporterTable::of(config, |exporter| exporter),
            known: &config.interfaces,
        }
    }

    /// `mx1.nyc1`, else `192.0.2.1`.
    pub fn exporter(&self, address: Address) -> String {
        let configured = self.exporters.get(address, 0);
        configured.map_or_else(|| address.to_string(), |exporter| exporter.name_of(address))
    }

    /// `ae0.0`, else `interface 17`.
    pub fn interface(&self, exporter: Address, if_index: u32) -> String {
        let named = self.interface_name(exporter, if_index);
        named.map_or_else(|| format!("interface {if_index}"), str::to_owned)
    }

    /// As configured, else as the exporter says.
    pub fn interface_name(&self, exporter: Address, if_index: u32) -> Option<&str> {
        let configured = self
            .exporters
            .get(exporter, 0)
            .and_then(|exporter| exporter.interface_names.get(&if_index));
        configured
            .map(String::as_str)
            .or_else(|| self.known(exporter, if_index)?.best_name())
    }

    /// What the exporter says of this interface.
    pub fn known(&self, exporter: Address, if_index: u32) -> Option<&KnownInterface> {
        self.known.interface(exporter, 0, if_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_is_told_by_its_number() {
        let text = r#"{"exporter": [{"address": "192.0.2.1", "name": "mx1", "interface_names": {"17": "ae0.0"}}]}"#;
        let config: MeteringConfig = serde_json::from_str(text).unwrap();
        let names = Names::new(&config);
        let (known, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(
            (names.exporter(known), names.exporter(other)),
            ("mx1".into(), "192.0.2.2".into())
        );
        assert_eq!(names.interface(known, 17), "ae0.0");
        assert_eq!(names.interface(known, 18), "interface 18");
        assert_eq!(names.interface(other, 17), "interface 17");
        let again: MeteringConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        let wrong = serde_json::from_str::<MeteringConfig>(&text.replace("\"17\"", "\"ae\"")).unwrap_err();
        assert!(wrong.to_string().contains("\"ae\" is no SNMP index"), "{wrong}");
    }

    #[test]
    fn what_an_exporter_says_names_an_interface_unless_it_is_configured() {
        let exporter: Address = "192.0.2.1".parse().unwrap();
        let mut known = KnownInterfaces::default();
        for (if_index, name, long_name) in [
            (17, "xe-0/0/1", ""),
            (18, "xe-0/0/2", ""),
            (19, "", "Ethernet 19"),
            (20, "", ""),
        ] {
            let interface = KnownInterface {
                name: name.to_owned(),
                long_name: long_name.to_owned(),
                ..KnownInterface::default()
            };
            known.set(exporter, 0, if_index, interface);
        }
        let config = MeteringConfig {
            exporters: vec![ExporterConfig {
                interface_names: [(17, "uplink".to_owned())].into(),
                ..ExporterConfig::unlisted(exporter)
            }],
            interfaces: known.into(),
            ..MeteringConfig::default()
        };
        let names = Names::new(&config);
        let called = [17, 18, 19, 20, 21].map(|if_index| names.interface(exporter, if_index));
        assert_eq!(
            called,
            ["uplink", "xe-0/0/2", "Ethernet 19", "interface 20", "interface 21"]
        );
    }
}
