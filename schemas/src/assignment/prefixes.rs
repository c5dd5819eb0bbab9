//! Longest-prefix match over many prefixes, with a history each.
//!
//! A trie walks one node per bit; here every point where the answer changes is a boundary in a sorted list, so that a
//! lookup is one search: for IPv4 within the few boundaries that share the address's first 16 bits. A boundary names the
//! longest prefix that covers what follows; each prefix knows the next shorter one around it, for the times at which it
//! had no holder.

use std::collections::HashMap;

use ipnet::IpNet;

use super::Tenure;
use crate::address::Address;

/// No prefix covers this.
const NOBODY: u32 = u32::MAX;
/// IPv4 lookups start with this many bits, and go on with so many more where boundaries are dense.
const BUCKET_BITS: u32 = 16;
const DENSE_BITS: u32 = 8;
/// Fewer boundaries than these lie in a core's cache and are searched as a whole.
const BUCKETS_WORTH: usize = 2_048;
/// A bucket with more boundaries is dense.
const DENSE_WORTH: usize = 64;

/// The first tenure of a prefix, and mostly the only one, in eight bytes: all of them stay near the core.
#[derive(Clone, Copy, Debug)]
struct FirstTenure {
    service: u32,
    /// Which of the validities.
    validity: u32,
}

/// Where to look when that one does not hold.
#[derive(Debug)]
struct FurtherTenures {
    /// Where the other tenures lie.
    others: std::ops::Range<u32>,
    /// The next shorter prefix around it, or [`NOBODY`].
    around: u32,
}

/// The IPv4 addresses that share their first bits, in four bytes: the table of them stays in a core's cache.
///
/// | upper bits | rest |
/// |---|---|
/// | 0 | no boundary inside: the longest prefix of all of them, [`INSIDE_NOBODY`] for none |
/// | 10 | where their part of the table of sparse buckets starts: two numbers |
/// | 11 | where their part of the table of dense buckets starts |
#[derive(Clone, Copy, Debug)]
struct Bucket(u32);

const SPARSE: u32 = 0b10 << 30;
const DENSE: u32 = 0b11 << 30;
const INSIDE_NOBODY: u32 = u32::MAX >> 1;

/// What [`super::Assignments::find`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found(u32);

/// From `start` on, up to the next boundary, `prefix` is the longest one.
#[derive(Clone, Copy, Debug)]
struct Boundary<K> {
    start: K,
    prefix: u32,
}

fn set<K: PartialEq>(boundaries: &mut Vec<Boundary<K>>, start: K, prefix: u32) {
    match boundaries.last_mut() {
        Some(last) if last.start == start => last.prefix = prefix,
        _ => boundaries.push(Boundary { start, prefix }),
    }
}

/// An immutable table of prefixes.
#[derive(Debug)]
pub(super) struct PrefixTable {
    /// By the number of the prefix.
    firsts: Vec<FirstTenure>,
    rests: Vec<FurtherTenures>,
    /// Distinct times of first tenures, half-open: many assignments are made together.
    validities: Vec<(i64, i64)>,
    /// Tenures but the first ones.
    tenures: Vec<Tenure>,
    v4: Vec<Boundary<u32>>,
    /// One for each value of the first bits; empty where that is not worth it.
    v4_buckets: Vec<Bucket>,
    /// For each value of the next bits in each dense bucket, how many boundaries lie before, and for the last one after; the
    /// same for the whole of each sparse bucket.
    v4_parts: Vec<u32>,
    v6: Vec<Boundary<u128>>,
    /// The longest IPv6 prefix around all mapped IPv4 addresses.
    v6_around_v4: u32,
}

impl Default for PrefixTable {
    fn default() -> PrefixTable {
        PrefixTable {
            firsts: Vec::new(),
            rests: Vec::new(),
            validities: Vec::new(),
            tenures: Vec::new(),
            v4: Vec::new(),
            v4_buckets: Vec::new(),
            v4_parts: Vec::new(),
            v6: Vec::new(),
            v6_around_v4: NOBODY,
        }
    }
}

impl PrefixTable {
    /// Builds the table from prefixes (host bits zero, each once) and their tenures.
    pub(super) fn new(nets: impl IntoIterator<Item = (IpNet, Vec<Tenure>)>) -> PrefixTable {
        let mut table = PrefixTable::default();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, tenures) in nets {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), tenures)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), tenures)),
            }
        }
        table.v4 = table.lay_out(v4, |last| last.checked_add(1));
        let v4_prefixes = table.rests.len();
        table.v6 = table.lay_out(v6, |last| last.checked_add(1));
        // Prefixes inside the mapped addresses are IPv4 prefixes here, so that those around are around all of them.
        let first_mapped = Address::from_v4([0; 4]).to_u128();
        table.v6_around_v4 = longest(&table.v6, first_mapped, 0..table.v6.len());
        for prefix in &mut table.rests[..v4_prefixes] {
            if prefix.around == NOBODY {
                prefix.around = table.v6_around_v4;
            }
        }
        if table.v4.len() >= BUCKETS_WORTH {
            table.fill_buckets();
        }
        table
    }

    fn fill_buckets(&mut self) {
        let v4 = &self.v4;
        // How many boundaries lie before an address, which may be just beyond the last one.
        let before = |address: u64| v4.partition_point(|boundary| u64::from(boundary.start) < address) as u32;
        let bucket_shift = u32::BITS - BUCKET_BITS;
        let dense_shift = bucket_shift - DENSE_BITS;
        for first in (0..1_u64 << BUCKET_BITS).map(|bucket| bucket << bucket_shift) {
            let (from, to) = (before(first), before(first + (1 << bucket_shift)));
            let at = self.v4_parts.len() as u32;
            self.v4_buckets.push(match (to - from) as usize {
                0 => match from.checked_sub(1).map_or(NOBODY, |last| v4[last as usize].prefix) {
                    NOBODY => Bucket(INSIDE_NOBODY),
                    prefix => Bucket(prefix),
                },
                1..=DENSE_WORTH => {
                    self.v4_parts.extend([from, to]);
                    Bucket(SPARSE | at)
                }
                _ => {
                    let parts = (0..=1_u64 << DENSE_BITS).map(|part| before(first + (part << dense_shift)));
                    self.v4_parts.extend(parts);
                    Bucket(DENSE | at)
                }
            });
        }
    }

    /// Numbers the prefixes and lists where the longest one changes.
    fn lay_out<K: Copy + Ord>(
        &mut self,
        mut nets: Vec<(K, K, Vec<Tenure>)>,
        after: impl Fn(K) -> Option<K>,
    ) -> Vec<Boundary<K>> {
        // Longer prefixes of one start come after the shorter ones around them.
        nets.sort_unstable_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
        let mut boundaries = Vec::new();
        let mut numbers: HashMap<(i64, i64), u32> = self.validities.iter().copied().zip(0..).collect();
        // The prefixes that cover the current point, the longest last.
        let mut open: Vec<(K, u32)> = Vec::new();
        let close = |open: &mut Vec<(K, u32)>, boundaries: &mut Vec<Boundary<K>>| {
            if let Some((last, _)) = open.pop()
                && let Some(next) = after(last)
            {
                set(boundaries, next, open.last().map_or(NOBODY, |(_, prefix)| *prefix));
            }
        };
        for (first, last, tenures) in nets {
            while open.last().is_some_and(|(end, _)| *end < first) {
                close(&mut open, &mut boundaries);
            }
            let Some((first_tenure, others)) = tenures.split_first() else {
                continue;
            };
            let from = self.tenures.len() as u32;
            self.tenures.extend_from_slice(others);
            let validity = (first_tenure.from_ms, first_tenure.to_ms);
            let next = self.validities.len() as u32;
            let validity_number = *numbers.entry(validity).or_insert(next);
            if validity_number == next {
                self.validities.push(validity);
            }
            self.firsts.push(FirstTenure {
                service: first_tenure.service,
                validity: validity_number,
            });
            self.rests.push(FurtherTenures {
                others: from..self.tenures.len() as u32,
                around: open.last().map_or(NOBODY, |(_, prefix)| *prefix),
            });
            let prefix = self.rests.len() as u32 - 1;
            set(&mut boundaries, first, prefix);
            open.push((last, prefix));
        }
        while !open.is_empty() {
            close(&mut open, &mut boundaries);
        }
        boundaries
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// Who held the address at `at_ms`, by the longest prefix with a holder at that time.
    #[inline]
    pub(super) fn holder(&self, address: Address, at_ms: i64) -> Option<u32> {
        self.holder_of(self.find(address), at_ms)
    }

    /// The longest prefix of an address, whoever holds it. Apart from [`PrefixTable::holder_of`], so that many lookups in
    /// a row wait for memory together.
    #[inline]
    pub(super) fn find(&self, address: Address) -> Found {
        if !address.is_v4() {
            return Found(longest(&self.v6, address.to_u128(), 0..self.v6.len()));
        }
        let [.., a, b, c, d] = address.0;
        Found(match self.longest_v4(u32::from_be_bytes([a, b, c, d])) {
            NOBODY => self.v6_around_v4,
            prefix => prefix,
        })
    }

    /// Who held what was found at `at_ms`: the longest prefix with a holder at that time.
    #[inline]
    pub(super) fn holder_of(&self, found: Found, at_ms: i64) -> Option<u32> {
        self.holder_around(found.0, at_ms)
    }

    #[inline]
    fn longest_v4(&self, bits: u32) -> u32 {
        let bucket_shift = u32::BITS - BUCKET_BITS;
        let Some(Bucket(bucket)) = self.v4_buckets.get((bits >> bucket_shift) as usize).copied() else {
            return longest(&self.v4, bits, 0..self.v4.len());
        };
        if bucket < SPARSE {
            return if bucket == INSIDE_NOBODY { NOBODY } else { bucket };
        }
        let part = match bucket & DENSE {
            DENSE => (bits >> (bucket_shift - DENSE_BITS)) & ((1 << DENSE_BITS) - 1),
            _ => 0,
        };
        let at = ((bucket & !DENSE) + part) as usize;
        longest(
            &self.v4,
            bits,
            self.v4_parts[at] as usize..self.v4_parts[at + 1] as usize,
        )
    }

    #[inline]
    fn holder_around(&self, mut prefix: u32, at_ms: i64) -> Option<u32> {
        while let Some(first) = self.firsts.get(prefix as usize) {
            let (from_ms, to_ms) = self.validities[first.validity as usize];
            if from_ms <= at_ms && at_ms < to_ms {
                return Some(first.service);
            }
            let rest = &self.rests[prefix as usize];
            let others = &self.tenures[rest.others.start as usize..rest.others.end as usize];
            if let Some(tenure) = others.iter().find(|tenure| tenure.holds(at_ms)) {
                return Some(tenure.service);
            }
            prefix = rest.around;
        }
        None
    }
}

/// The prefix of the last boundary at or before `bits`, which lies in `range` or just before it.
#[inline]
fn longest<K: Copy + Ord>(boundaries: &[Boundary<K>], bits: K, range: std::ops::Range<usize>) -> u32 {
    let after = range.start + boundaries[range].partition_point(|boundary| boundary.start <= bits);
    after.checked_sub(1).map_or(NOBODY, |index| boundaries[index].prefix)
}

#[cfg(test)]
mod tests {
    use super::super::holder;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The definition: the longest prefix that contains the address and had a holder then.
    fn naive(nets: &BTreeMap<IpNet, Vec<Tenure>>, address: Address, at_ms: i64) -> Option<u32> {
        let contains = |net: &IpNet| match (net, address.to_ip()) {
            (IpNet::V6(net), _) => net.contains(&std::net::Ipv6Addr::from(address.0)),
            (IpNet::V4(net), std::net::IpAddr::V4(ip)) => net.contains(&ip),
            (IpNet::V4(_), _) => false,
        };
        let length = |net: &IpNet| match net {
            IpNet::V4(net) => net.prefix_len() + 96,
            IpNet::V6(net) => net.prefix_len(),
        };
        nets.iter()
            .filter(|(net, _)| contains(net))
            .filter_map(|(net, tenures)| Some((length(net), holder(tenures, at_ms)?)))
            .max()
            .map(|(_, service)| service)
    }

    #[test]
    fn dense_and_sparse_buckets_answer_alike() {
        let holds = |service| Tenure {
            from_ms: 0,
            to_ms: i64::MAX,
            service,
        };
        // Every other /29 of 10.0.0.0/14, and one prefix in each of many other buckets, up to the very last address.
        let dense = (0..16_384_u32).map(|block| (0x0a00_0000 + block * 16, 29));
        let sparse = (0..1_024_u32).map(|block| (0x8000_0000 + (block << 21), 20));
        let nets: BTreeMap<IpNet, Vec<Tenure>> = dense
            .chain(sparse)
            .chain([(u32::MAX, 32)])
            .zip(1..)
            .map(|((bits, length), service)| {
                let net = IpNet::new(std::net::Ipv4Addr::from(bits).into(), length).unwrap();
                (net.trunc(), vec![holds(service)])
            })
            .collect();
        let table = PrefixTable::new(nets.clone());
        let dense = table.v4_buckets.iter().filter(|bucket| bucket.0 & DENSE == DENSE);
        assert_eq!(dense.count(), 4);
        let find = |bits: u32| table.holder(Address::from_v4(bits.to_be_bytes()), 5);
        for (net, tenures) in &nets {
            let ends = [net.network(), net.broadcast()].map(|ip| Address::from(ip).to_u128() as u32);
            assert_eq!(ends.map(find), [Some(tenures[0].service); 2], "{net}");
            let outside = [ends[0].wrapping_sub(1), ends[1].wrapping_add(1)];
            assert_eq!(outside.map(find), [None; 2], "{net}");
        }
    }

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0..=32_u8, any::<bool>()).prop_map(|(bits, length, near)| {
            let bits = if near { 0x0a00_0000 | (bits & 0x0003_00ff) } else { bits };
            IpNet::new(std::net::Ipv4Addr::from(bits).into(), length)
                .unwrap()
                .trunc()
        });
        let v6 = (any::<u128>(), 0..=128_u8, any::<bool>()).prop_map(|(bits, length, near)| {
            let bits = if near { bits & 0xffff } else { bits };
            IpNet::new(std::net::Ipv6Addr::from(bits).into(), length)
                .unwrap()
                .trunc()
        });
        prop_oneof![3 => v4, 1 => v6]
    }

    proptest! {
        #[test]
        fn every_lookup_is_the_longest_prefix_with_a_holder(
            nets in proptest::collection::vec((net(), 1..1_000_u32, 0..10_i64, 0..10_i64), 0..60),
            addresses in proptest::collection::vec((any::<u128>(), 0..3_u8), 30),
        ) {
            let nets: BTreeMap<IpNet, Vec<Tenure>> = nets
                .into_iter()
                .map(|(net, service, from_ms, length)| (net, vec![Tenure { from_ms, to_ms: from_ms + length, service }]))
                .collect();
            let table = PrefixTable::new(nets.clone());
            // Besides random addresses: the borders of every prefix and their neighbours.
            let mut probes: Vec<Address> = Vec::new();
            for (bits, kind) in addresses {
                probes.push(match kind {
                    0 => Address(bits.to_be_bytes()),
                    1 => Address::from_v4((bits as u32).to_be_bytes()),
                    _ => Address::from_v4((0x0a00_0000 | bits as u32 & 0x0003_00ff).to_be_bytes()),
                });
            }
            for net in nets.keys() {
                for ip in [net.network(), net.broadcast()] {
                    let bits = Address::from(ip).to_u128();
                    probes.extend([bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(|bits| Address(bits.to_be_bytes())));
                }
            }
            for address in probes {
                for at_ms in [0, 5, 12] {
                    prop_assert_eq!(table.holder(address, at_ms), naive(&nets, address, at_ms), "{} at {}", address, at_ms);
                }
            }
        }
    }
}
