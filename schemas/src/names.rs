//! What people call exporters and their interfaces.

use std::collections::HashMap;

use crate::address::Address;
use crate::metering::{ExporterConfig, MeteringConfig};

/// Names as configured; an address or an index where there is none. Made once for a page or a table.
#[derive(Debug)]
pub struct Names<'a> {
    exporters: HashMap<Address, &'a ExporterConfig>,
}

impl<'a> Names<'a> {
    pub fn new(config: &'a MeteringConfig) -> Names<'a> {
        Names {
            exporters: config.exporters.iter().map(|e| (e.address, e)).collect(),
        }
    }

    /// `mx1.nyc1`, else `192.0.2.1`.
    pub fn exporter(&self, address: Address) -> String {
        let configured = self.exporters.get(&address).and_then(|exporter| exporter.name.clone());
        configured.unwrap_or_else(|| address.to_string())
    }

    /// `ae0.0`, else `interface 17`.
    pub fn interface(&self, exporter: Address, if_index: u32) -> String {
        let configured = self
            .exporters
            .get(&exporter)
            .and_then(|exporter| exporter.interface_names.get(&if_index));
        configured.cloned().unwrap_or_else(|| format!("interface {if_index}"))
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
}
