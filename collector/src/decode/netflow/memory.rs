//! What is remembered of single flows: bounded, and the same for the same records.
//!
//! Entries lie in two generations. New ones go into the young one; when that is full it becomes the old one, and what was old
//! is forgotten. An entry that is used stays young, so that what is forgotten was not met for at least half the bound.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tables::flow::Flow;

/// Values by the key of a flow, at most so many.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory<V> {
    young: BTreeMap<u64, V>,
    old: BTreeMap<u64, V>,
}

impl<V> Default for Memory<V> {
    fn default() -> Memory<V> {
        Memory {
            young: BTreeMap::new(),
            old: BTreeMap::new(),
        }
    }
}

impl<V> Memory<V> {
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(super) fn get(&self, key: u64) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    /// Keeps a value; answers what had to be forgotten for it so that no more than `max` stay.
    pub(super) fn put(&mut self, key: u64, value: V, max: usize) -> BTreeMap<u64, V> {
        let mut forgotten = BTreeMap::new();
        self.old.remove(&key);
        if !self.young.contains_key(&key) && self.young.len() >= (max / 2).max(1) {
            forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        }
        self.young.insert(key, value);
        forgotten
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<V> {
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }
}

/// A flow by its addresses, ports, protocol and traffic class, in one observation domain: 64 bits, the same on every machine
/// and in every version.
pub(super) fn flow_key(flow: &Flow) -> u64 {
    let mut mixed = 0;
    for address in [flow.src_addr, flow.dst_addr] {
        let bits = address.to_u128();
        mixed = mix(mix(mixed, (bits >> 64) as u64), bits as u64);
    }
    let ports = (u64::from(flow.src_port) << 16) | u64::from(flow.dst_port);
    mix(
        mixed,
        (ports << 16) | (u64::from(flow.ip_protocol) << 8) | u64::from(flow.tos),
    )
}

/// The same for one point of observation: interfaces, VLAN and direction too.
pub(super) fn observed_key(flow: &Flow) -> u64 {
    let interfaces = (u64::from(flow.in_if) << 32) | u64::from(flow.out_if);
    let vlan = (u64::from(flow.in_vlan) << 8) | u64::from(flow.direction);
    mix(mix(flow_key(flow), interfaces), vlan)
}

/// Takes another number into a key.
pub(super) fn mix(so_far: u64, value: u64) -> u64 {
    // An odd number with well mixed bits: 2⁶⁴ divided by the golden ratio.
    let mixed = (so_far ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_stay_than_may_and_what_is_used_stays_longest() {
        let mut memory = Memory::default();
        let mut forgotten = 0;
        for key in 0..1_000 {
            memory.put(0, 0, 64);
            forgotten += memory.put(key, key, 64).len();
            assert!(memory.len() <= 64);
        }
        assert_eq!(memory.get(0), Some(&0), "used each time");
        assert_eq!(memory.get(999), Some(&999));
        assert_eq!(memory.get(500), None);
        assert!(forgotten > 900);
    }

    #[test]
    fn flows_have_keys_of_their_own() {
        let flow = Flow {
            src_addr: "192.0.2.1".parse().unwrap(),
            dst_addr: "198.51.100.7".parse().unwrap(),
            src_port: 1,
            dst_port: 2,
            ..Flow::default()
        };
        let answer = Flow {
            src_addr: flow.dst_addr,
            dst_addr: flow.src_addr,
            src_port: 2,
            dst_port: 1,
            ..flow
        };
        assert_ne!(flow_key(&flow), flow_key(&answer));
        let egress = Flow { direction: 1, ..flow };
        assert_eq!(flow_key(&flow), flow_key(&egress));
        assert_ne!(observed_key(&flow), observed_key(&egress));
        assert_eq!(
            flow_key(&flow),
            0x820b4d4ad78fbd58,
            "checkpoints of other machines hold it"
        );
    }
}
