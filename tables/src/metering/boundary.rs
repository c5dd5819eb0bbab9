//! Which interfaces face other networks: by index, or by an expression that their name or description must match.
//!
//! An interface of which nothing is known yet cannot be judged by name. It is neither external nor internal
//! ([`Boundary::Unknown`]): what crosses it is kept and not metered, and the exporters page says so, because traffic that
//! is taken for internal would be given away without a word.

use std::collections::{HashMap, HashSet};

use schemas::address::Address;
use schemas::metering::{ExporterTable, MeteringConfig};

use crate::flow::Boundary;

/// What a section says of interfaces.
#[derive(Debug)]
struct Section {
    external: HashSet<u32>,
    /// Interfaces are judged by name, too.
    by_name: bool,
}

/// What the names of one exporter's interfaces say.
#[derive(Debug, Default)]
struct Named {
    external: HashSet<u32>,
    known: HashSet<u32>,
}

/// The boundary of every interface of every exporter.
#[derive(Debug, Default)]
pub struct Boundaries {
    sections: ExporterTable<Section>,
    named: HashMap<(Address, u16), Named>,
}

/// The boundaries of one exporter's interfaces.
#[derive(Clone, Copy, Debug)]
pub struct BoundaryOf<'a> {
    section: Option<&'a Section>,
    named: Option<&'a Named>,
}

impl Boundaries {
    pub fn new(config: &MeteringConfig) -> Boundaries {
        let sections = ExporterTable::of(config, |exporter| Section {
            external: exporter.external_interfaces.iter().copied().collect(),
            by_name: exporter.external_interfaces_matching.is_some(),
        });
        let mut named = HashMap::new();
        for (exporter, port, interfaces) in config.interfaces.iter() {
            let Some(pattern) = config
                .exporter(exporter, port)
                .and_then(|section| section.external_interfaces_matching.as_ref())
            else {
                continue;
            };
            let matching = interfaces.iter().filter(|(_, interface)| pattern.matches(interface));
            named.insert(
                (exporter, port),
                Named {
                    external: matching.map(|(index, _)| *index).collect(),
                    known: interfaces.keys().copied().collect(),
                },
            );
        }
        Boundaries { sections, named }
    }

    /// `port` 0 means that the port is not known.
    pub fn of(&self, exporter: Address, port: u16) -> BoundaryOf<'_> {
        let section = self.sections.get(exporter, port);
        let named = section.filter(|section| section.by_name).and_then(|_| {
            let of_port = self.named.get(&(exporter, port));
            of_port.or_else(|| self.named.get(&(exporter, 0)))
        });
        BoundaryOf { section, named }
    }
}

impl BoundaryOf<'_> {
    /// On which side this interface lies. Index 0 is none.
    #[inline]
    pub fn interface(&self, if_index: u32) -> Boundary {
        let Some(section) = self.section.filter(|_| if_index != 0) else {
            return Boundary::Unknown;
        };
        if section.external.contains(&if_index) {
            return Boundary::External;
        }
        if !section.by_name {
            return Boundary::Internal;
        }
        match self.named {
            Some(named) if named.external.contains(&if_index) => Boundary::External,
            Some(named) if named.known.contains(&if_index) => Boundary::Internal,
            _ => Boundary::Unknown,
        }
    }

    pub fn is_external(&self, if_index: u32) -> bool {
        self.interface(if_index) == Boundary::External
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schemas::interfaces::{KnownInterface, KnownInterfaces};
    use schemas::metering::ExporterConfig;

    use super::*;

    fn named(name: &str, description: &str) -> KnownInterface {
        KnownInterface {
            name: name.to_owned(),
            description: description.to_owned(),
            ..KnownInterface::default()
        }
    }

    fn boundaries(pattern: &str, known: &[(u32, KnownInterface)]) -> Boundaries {
        let exporter: Address = "192.0.2.1".parse().unwrap();
        let mut interfaces = KnownInterfaces::default();
        for (index, interface) in known {
            interfaces.set(exporter, 0, *index, interface.clone());
        }
        Boundaries::new(&MeteringConfig {
            exporters: vec![ExporterConfig {
                external_interfaces: vec![9],
                external_interfaces_matching: Some(pattern.parse().unwrap()),
                ..ExporterConfig::unlisted(exporter)
            }],
            interfaces: Arc::new(interfaces),
            ..MeteringConfig::default()
        })
    }

    #[test]
    fn an_interface_is_external_by_its_name_or_its_description() {
        let known = [
            (1, named("xe-0/0/0", "Transit: Example Carrier")),
            (2, named("ix-ams", "")),
            (3, named("ae5", "customer of a transit network")),
            (4, named("irb.100", "customers")),
        ];
        let boundaries = boundaries("^transit|^ix", &known);
        let of = boundaries.of("192.0.2.1".parse().unwrap(), 4711);
        let sides: Vec<Boundary> = [1, 2, 3, 4, 5, 9, 0].map(|index| of.interface(index)).to_vec();
        assert_eq!(
            sides,
            [
                Boundary::External,
                Boundary::External,
                Boundary::Internal,
                Boundary::Internal,
                Boundary::Unknown,
                Boundary::External,
                Boundary::Unknown
            ],
            "of interface 5 nothing is known; 9 is listed by index"
        );
    }

    #[test]
    fn without_any_name_nothing_is_taken_for_internal() {
        let boundaries = boundaries("^transit", &[]);
        let of = boundaries.of("192.0.2.1".parse().unwrap(), 0);
        assert_eq!(
            (of.interface(1), of.interface(9)),
            (Boundary::Unknown, Boundary::External)
        );
        let stranger = boundaries.of("192.0.2.2".parse().unwrap(), 0);
        assert_eq!(stranger.interface(9), Boundary::Unknown);
    }
}
