//! Who may send: the exporters whose datagrams are read.
//!
//! An empty list allows everybody. A datagram from elsewhere is not decoded; it is counted under its source, so that a new
//! router that was forgotten here can be seen (F2). The source address is the UDP packet's, not the agent address that an
//! sFlow datagram claims. UDP sources can be forged: the list keeps mistakes and strangers out, a firewall keeps attackers out.

use ipnet::IpNet;
use schemas::address::Address;

/// Networks, as ranges of mapped addresses that are sorted, apart from each other and searched by halving.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowList {
    /// First and last address.
    ranges: Vec<(u128, u128)>,
}

impl AllowList {
    /// Networks may overlap and come in any order; none allows everybody.
    pub fn new(networks: &[IpNet]) -> AllowList {
        let mut sorted: Vec<(u128, u128)> = networks
            .iter()
            .map(|net| {
                let mapped = |ip| Address::from(ip).to_u128();
                (mapped(net.network()), mapped(net.broadcast()))
            })
            .collect();
        sorted.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match ranges.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        AllowList { ranges }
    }

    /// Whether datagrams of this source are read.
    #[inline]
    pub fn allows(&self, source: Address) -> bool {
        if self.ranges.is_empty() {
            return true;
        }
        let address = source.to_u128();
        let behind = self.ranges.partition_point(|(first, _)| *first <= address);
        behind > 0 && address <= self.ranges[behind - 1].1
    }

    /// Whether everybody may send.
    pub fn allows_everybody(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(networks: &[&str]) -> AllowList {
        AllowList::new(&networks.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
    }

    fn allows(list: &AllowList, source: &str) -> bool {
        list.allows(source.parse().unwrap())
    }

    #[test]
    fn an_empty_list_allows_everybody() {
        let everybody = list(&[]);
        assert!(everybody.allows_everybody());
        assert!(allows(&everybody, "192.0.2.1") && allows(&everybody, "2001:db8::1"));
    }

    #[test]
    fn prefixes_of_both_families_and_single_addresses() {
        let some = list(&["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32", "192.0.2.128/25"]);
        for inside in ["192.0.2.0", "192.0.2.255", "198.51.100.7", "2001:db8:ffff::1"] {
            assert!(allows(&some, inside), "{inside}");
        }
        for outside in [
            "192.0.1.255",
            "192.0.3.0",
            "198.51.100.6",
            "198.51.100.8",
            "2001:db9::",
            "::",
        ] {
            assert!(!allows(&some, outside), "{outside}");
        }
    }

    #[test]
    fn all_of_ipv4_is_not_all_of_ipv6() {
        let v4 = list(&["0.0.0.0/0"]);
        assert!(allows(&v4, "203.0.113.9") && !allows(&v4, "2001:db8::1"));
        assert!(!v4.allows_everybody());
        let both = list(&["0.0.0.0/0", "::/0"]);
        assert!(allows(&both, "203.0.113.9") && allows(&both, "2001:db8::1"));
    }

    proptest! {
        #[test]
        fn it_answers_as_the_networks_do(
            networks in prop::collection::vec((any::<u32>(), 0..=32u8), 1..8),
            sources in prop::collection::vec(any::<u32>(), 16),
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .map(|(address, length)| ipnet::Ipv4Net::new(address.into(), length).unwrap().into())
                .collect();
            let list = AllowList::new(&networks);
            let edges = networks.iter().flat_map(|net| [net.network(), net.broadcast()]);
            let drawn = sources.into_iter().map(|source| std::net::IpAddr::V4(source.into()));
            for source in edges.chain(drawn) {
                let expected = networks.iter().any(|net| net.contains(&source));
                prop_assert_eq!(list.allows(source.into()), expected, "{}", source);
            }
        }
    }
}
