//! Which service an address, interface or VLAN belongs to, and when.
//!
//! An assignment is valid over `[valid_from, valid_to)`. [`Assignments`] is an immutable snapshot that answers in the
//! order DESIGN.md §3 sets: longest-prefix match of the address at the time the flow ended, else (exporter, interface,
//! VLAN), (exporter, interface), (exporter, VLAN). Overlapping validity of equal targets is refused when it is built, so
//! an answer never depends on order.

mod prefixes;

use std::collections::HashMap;

use ipnet::{IpNet, Ipv4Net};

use crate::address::Address;
use crate::window::instant_text;
pub use prefixes::Found;
use prefixes::PrefixTable;

/// What is assigned to a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// Addresses of a prefix.
    Prefix(IpNet),
    /// An interface of an exporter (SNMP index), optionally one VLAN on it.
    Interface {
        exporter: Address,
        if_index: u32,
        vlan: Option<u16>,
    },
    /// A VLAN on any interface of an exporter.
    Vlan { exporter: Address, vlan: u16 },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Prefix(net) => write!(f, "{net}"),
            Target::Interface {
                exporter,
                if_index,
                vlan: None,
            } => write!(f, "{exporter} interface {if_index}"),
            Target::Interface {
                exporter,
                if_index,
                vlan: Some(vlan),
            } => write!(f, "{exporter} interface {if_index} vlan {vlan}"),
            Target::Vlan { exporter, vlan } => write!(f, "{exporter} vlan {vlan}"),
        }
    }
}

/// A target given to a service for a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Number of the service (`svc_N`); never 0.
    pub service: u32,
    pub target: Target,
    /// First instant, UTC milliseconds.
    pub valid_from_ms: i64,
    /// First instant after the end, UTC milliseconds; `None` while it lasts.
    pub valid_to_ms: Option<i64>,
}

/// Two assignments give one target to two owners at one time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{target} is assigned to both svc_{first} and svc_{second} from {} on", instant_text(*from_ms))]
pub struct OverlapError {
    pub target: Target,
    pub first: u32,
    pub second: u32,
    pub from_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tenure {
    from_ms: i64,
    to_ms: i64,
    service: u32,
}

/// Immutable snapshot of all assignments; cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Assignments {
    prefixes: PrefixTable,
    interfaces: HashMap<Target, Vec<Tenure>>,
    count: usize,
}

/// One spelling for each prefix: host bits zero, IPv4 as IPv4 also where it is written as a mapped IPv6 prefix (RFC 4291
/// §2.5.5.2).
pub(crate) fn canonical(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - MAPPED_BITS).map_or(net, IpNet::V4),
            None => net,
        },
        _ => net,
    }
    .trunc()
}

fn insert(tenures: &mut Vec<Tenure>, target: Target, new: Tenure) -> Result<(), OverlapError> {
    if let Some(other) = tenures.iter().find(|t| t.from_ms < new.to_ms && new.from_ms < t.to_ms) {
        let from_ms = other.from_ms.max(new.from_ms);
        return Err(OverlapError {
            target,
            first: other.service,
            second: new.service,
            from_ms,
        });
    }
    tenures.push(new);
    tenures.sort_unstable_by_key(|t| t.from_ms);
    Ok(())
}

impl Tenure {
    #[inline]
    fn holds(&self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms < self.to_ms
    }
}

fn holder(tenures: &[Tenure], at_ms: i64) -> Option<u32> {
    tenures.iter().find(|t| t.holds(at_ms)).map(|t| t.service)
}

impl Assignments {
    /// Builds the snapshot.
    ///
    /// # Errors
    /// [`OverlapError`] when one target has two services at one time.
    pub fn new(assignments: impl IntoIterator<Item = Assignment>) -> Result<Assignments, OverlapError> {
        let mut snapshot = Assignments::default();
        let mut prefixes: HashMap<IpNet, Vec<Tenure>> = HashMap::new();
        for assignment in assignments {
            let tenure = Tenure {
                from_ms: assignment.valid_from_ms,
                to_ms: assignment.valid_to_ms.unwrap_or(i64::MAX),
                service: assignment.service,
            };
            let target = assignment.target;
            match target {
                Target::Prefix(net) => insert(prefixes.entry(canonical(net)).or_default(), target, tenure)?,
                _ => insert(snapshot.interfaces.entry(target).or_default(), target, tenure)?,
            }
            snapshot.count += 1;
        }
        snapshot.prefixes = PrefixTable::new(prefixes);
        Ok(snapshot)
    }

    /// How many assignments the snapshot holds.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The service that held the address at `at_ms`, by the longest prefix with a holder at that time.
    #[inline]
    pub fn service_of_address(&self, address: Address, at_ms: i64) -> Option<u32> {
        if self.prefixes.is_empty() {
            return None;
        }
        self.prefixes.holder(address, at_ms)
    }

    /// The longest prefix of an address, to be asked for its holder: many of these in a row wait for memory together.
    #[inline]
    pub fn find(&self, address: Address) -> Found {
        self.prefixes.find(address)
    }

    /// The service that held what was found at `at_ms`.
    #[inline]
    pub fn service_of(&self, found: Found, at_ms: i64) -> Option<u32> {
        self.prefixes.holder_of(found, at_ms)
    }

    /// The service behind an interface of an exporter at `at_ms`; `vlan` 0 means untagged.
    #[inline]
    pub fn service_of_interface(&self, exporter: Address, if_index: u32, vlan: u16, at_ms: i64) -> Option<u32> {
        if self.interfaces.is_empty() {
            return None;
        }
        self.service_behind(exporter, if_index, vlan, at_ms)
    }

    fn service_behind(&self, exporter: Address, if_index: u32, vlan: u16, at_ms: i64) -> Option<u32> {
        let find = |target: Target| self.interfaces.get(&target).and_then(|tenures| holder(tenures, at_ms));
        if vlan != 0 {
            let tagged = find(Target::Interface {
                exporter,
                if_index,
                vlan: Some(vlan),
            });
            if tagged.is_some() {
                return tagged;
            }
        }
        find(Target::Interface {
            exporter,
            if_index,
            vlan: None,
        })
        .or_else(|| {
            if vlan == 0 {
                None
            } else {
                find(Target::Vlan { exporter, vlan })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(service: u32, net: &str, from_ms: i64, to_ms: Option<i64>) -> Assignment {
        Assignment {
            service,
            target: Target::Prefix(net.parse().unwrap()),
            valid_from_ms: from_ms,
            valid_to_ms: to_ms,
        }
    }

    fn at(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_with_a_holder_wins() {
        let table = Assignments::new([
            prefix(1, "10.0.0.0/8", 0, None),
            prefix(2, "10.1.0.0/16", 100, Some(200)),
            prefix(3, "2001:db8::/32", 0, None),
        ])
        .unwrap();
        assert_eq!(table.service_of_address(at("10.1.2.3"), 150), Some(2));
        assert_eq!(
            table.service_of_address(at("10.1.2.3"), 200),
            Some(1),
            "validity is half-open"
        );
        assert_eq!(table.service_of_address(at("10.2.2.3"), 150), Some(1));
        assert_eq!(table.service_of_address(at("11.0.0.1"), 150), None);
        assert_eq!(table.service_of_address(at("2001:db8::9"), 0), Some(3));
        assert_eq!(table.service_of_address(at("::"), 0), None);
    }

    #[test]
    fn a_prefix_changes_hands_without_overlap() {
        let table = Assignments::new([
            prefix(1, "192.0.2.0/24", 0, Some(50)),
            prefix(2, "192.0.2.0/24", 50, None),
        ])
        .unwrap();
        assert_eq!(table.service_of_address(at("192.0.2.7"), 49), Some(1));
        assert_eq!(table.service_of_address(at("192.0.2.7"), 50), Some(2));
        let clash = Assignments::new([
            prefix(1, "192.0.2.0/24", 0, Some(51)),
            prefix(2, "192.0.2.9/24", 50, None),
        ]);
        assert_eq!(clash.unwrap_err().from_ms, 50);
    }

    #[test]
    fn interfaces_and_vlans_go_from_specific_to_general() {
        let exporter = at("198.51.100.1");
        let give = |service, target| Assignment {
            service,
            target,
            valid_from_ms: 0,
            valid_to_ms: None,
        };
        let table = Assignments::new([
            give(
                1,
                Target::Interface {
                    exporter,
                    if_index: 7,
                    vlan: None,
                },
            ),
            give(
                2,
                Target::Interface {
                    exporter,
                    if_index: 7,
                    vlan: Some(30),
                },
            ),
            give(3, Target::Vlan { exporter, vlan: 40 }),
        ])
        .unwrap();
        assert_eq!(table.service_of_interface(exporter, 7, 30, 0), Some(2));
        assert_eq!(table.service_of_interface(exporter, 7, 40, 0), Some(1));
        assert_eq!(table.service_of_interface(exporter, 8, 40, 0), Some(3));
        assert_eq!(table.service_of_interface(exporter, 8, 0, 0), None);
    }
}
