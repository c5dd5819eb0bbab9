//! The hosting company of the measurements: which prefixes its services hold, and which hosts are in them.
//!
//! The hosts are the same however many prefixes are assigned, so that a table of 1 and one of 1,000,000 prefixes are
//! asked about the same traffic:
//!
//! ```text
//! IPv4   90,000 customers' blocks of 8 addresses from 10.0.0.0 on: 720,000 hosts
//! IPv6   10,000 customers' /64 networks from 2001:db8:: on, 250 hosts in each
//! ```
//!
//! One prefix is 10.0.0.0/8; 1,000 are 900 of /22 and 100 of /56; 100,000 are 90,000 of /29 and 10,000 of /64; 1,000,000
//! are 900,000 single addresses and 100,000 of /64. From 1,000 on every host is in one of them.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, bail};
use schemas::address::Address;

/// Blocks of customers in IPv4.
pub(crate) const IPV4_BLOCKS: u64 = 90_000;
/// Addresses in each.
pub(crate) const IPV4_BLOCK_HOSTS: u64 = 8;
/// Networks of customers in IPv6.
pub(crate) const IPV6_NETWORKS: u64 = 10_000;
/// Hosts in each.
pub(crate) const IPV6_NETWORK_HOSTS: u64 = 250;
/// Services that the prefixes are spread over.
pub(crate) const SERVICES: u64 = 1_000;
const IPV4_BASE: u32 = 0x0a00_0000;
const IPV6_BASE: u64 = 0x2001_0db8_0000_0000;

/// A host of a customer's IPv4 block.
pub(crate) fn inside_ipv4(block: u64, host: u64) -> Address {
    Address::from_v4((IPV4_BASE + (block * IPV4_BLOCK_HOSTS + host) as u32).to_be_bytes())
}

/// A host of a customer's IPv6 network.
pub(crate) fn inside_ipv6(network: u64, host: u64) -> Address {
    let bits = (u128::from(IPV6_BASE + network) << 64) | u128::from(host + 1);
    Address(bits.to_be_bytes())
}

/// What the prefixes of a table are: how many of which length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    ipv4: u64,
    ipv4_bits: u8,
    ipv6: u64,
    ipv6_bits: u8,
}

fn shape(prefixes: u64) -> anyhow::Result<Shape> {
    let (ipv4, ipv4_bits, ipv6, ipv6_bits) = match prefixes {
        1 => (1, 8, 0, 64),
        1_000 => (900, 22, 100, 56),
        100_000 => (90_000, 29, 10_000, 64),
        1_000_000 => (900_000, 32, 100_000, 64),
        _ => bail!("there are tables of 1, 1000, 100000 and 1000000 prefixes, not of {prefixes}"),
    };
    Ok(Shape {
        ipv4,
        ipv4_bits,
        ipv6,
        ipv6_bits,
    })
}

/// The prefixes of a table of so many.
pub(crate) fn prefixes(count: u64) -> anyhow::Result<impl Iterator<Item = String>> {
    let shape = shape(count)?;
    let ipv4 = (0..shape.ipv4).map(move |index| {
        let network = IPV4_BASE + ((index as u32) << (32 - shape.ipv4_bits));
        format!("{}/{}", Ipv4Addr::from_bits(network), shape.ipv4_bits)
    });
    let ipv6 = (0..shape.ipv6).map(move |index| {
        let network = IPV6_BASE + (index << (64 - shape.ipv6_bits));
        format!("{}/{}", Ipv6Addr::from_bits(u128::from(network) << 64), shape.ipv6_bits)
    });
    Ok(ipv4.chain(ipv6))
}

/// Writes the lists that `ezscale service add --file` and `ezscale service assign --file` take.
pub(crate) fn write_lists(count: u64, services: &Path, assignments: &Path) -> anyhow::Result<()> {
    let mut out = create(services)?;
    writeln!(out, "name,customer,type,site")?;
    for service in 1..=SERVICES {
        writeln!(out, "service-{service},cus_1,vps,")?;
    }
    out.flush()?;
    let mut out = create(assignments)?;
    writeln!(out, "service,prefix")?;
    for (prefix, index) in prefixes(count)?.zip(0u64..) {
        writeln!(out, "svc_{},{prefix}", index % SERVICES + 1)?;
    }
    out.flush()?;
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<std::io::BufWriter<std::fs::File>> {
    let file = std::fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
    Ok(std::io::BufWriter::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::assignment::{Assignment, Assignments, Target};

    #[test]
    fn every_host_is_in_a_prefix_of_each_larger_table() {
        for count in [1_000, 100_000] {
            let list: Vec<String> = prefixes(count).unwrap().collect();
            assert_eq!(list.len() as u64, count);
            let assignments = list.iter().map(|prefix| Assignment {
                service: 1,
                target: Target::Prefix(prefix.parse().unwrap()),
                valid_from_ms: 0,
                valid_to_ms: None,
            });
            let assignments = Assignments::new(assignments).unwrap();
            for host in [
                inside_ipv4(0, 0),
                inside_ipv4(IPV4_BLOCKS - 1, IPV4_BLOCK_HOSTS - 1),
                inside_ipv6(0, 0),
                inside_ipv6(IPV6_NETWORKS - 1, IPV6_NETWORK_HOSTS - 1),
            ] {
                assert_eq!(assignments.service_of_address(host, 1), Some(1), "{host} of {count}");
            }
        }
        assert_eq!(prefixes(1).unwrap().collect::<Vec<_>>(), ["10.0.0.0/8"]);
        assert!(prefixes(7).is_err());
        // The single addresses of the largest table end beyond the last host.
        assert_eq!(
            prefixes(1_000_000).unwrap().nth(719_999).unwrap(),
            format!("{}/32", inside_ipv4(89_999, 7))
        );
    }
}
