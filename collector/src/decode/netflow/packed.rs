//! Observations as a checkpoint holds them: one text for all of a session's.
//!
//! A session remembers up to a thousand, and a checkpoint is written with every segment: as JSON objects those of a hundred
//! exporters are megabytes with every segment. The text is shorter, and kept as long as it is right.
//!
//! ```text
//! text          for each observation, ascending by key:
//!                 key − key before · received − received before · received − end · end − start · interface · direction
//! number        base 64, least significant digit first: five bits each, and one that says that another digit follows
//! difference    times may go back: twice the difference, or of a negative one twice the amount less one
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A record that was observed at one side of an exporter.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
pub(super) struct Observation {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) in_if: u32,
    pub(super) direction: u8,
    pub(super) received_at_ms: i64,
}

/// Observations by the hash of their flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Observations {
    by_key: HashMap<u64, Observation, BuildHasherDefault<KeyHasher>>,
    /// Made when it is first asked for, and again after a change: of exporters that always name one direction there is none.
    text: OnceLock<String>,
}

impl Observations {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: u64) -> Option<&Observation> {
        self.by_key.get(&key)
    }

    pub(super) fn contains_key(&self, key: u64) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn insert(&mut self, key: u64, observation: Observation) {
        self.text.take();
        self.by_key.insert(key, observation);
    }

    pub(super) fn retain(&mut self, keep: impl Fn(u64, &Observation) -> bool) {
        self.text.take();
        self.by_key.retain(|key, observation| keep(*key, observation));
    }

    pub(super) fn clear(&mut self) {
        self.text.take();
        self.by_key.clear();
    }
}

impl PartialEq for Observations {
    fn eq(&self, other: &Observations) -> bool {
        self.by_key == other.by_key
    }
}

impl Serialize for Observations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text.get_or_init(|| text_of(&self.by_key)))
    }
}

impl<'de> Deserialize<'de> for Observations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Observations, D::Error> {
        deserializer.deserialize_any(Packed)
    }
}

/// Keys are hashes of flows already, but begin with zeros: one multiplication fills their upper bits again.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = (self.0 ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BITS: u32 = 5;
/// Another digit follows.
const MORE: u64 = 1 << BITS;
/// Of most observations.
const TEXT_BYTES: usize = 28;

fn text_of(by_key: &HashMap<u64, Observation, BuildHasherDefault<KeyHasher>>) -> String {
    let ascending: BTreeMap<u64, Observation> = by_key.iter().map(|(key, observation)| (*key, *observation)).collect();
    let mut text = String::with_capacity(ascending.len() * TEXT_BYTES);
    let (mut key_before, mut received_before_ms) = (0_u64, 0_i64);
    for (key, observation) in ascending {
        let Observation {
            start_ms,
            end_ms,
            in_if,
            direction,
            received_at_ms,
        } = observation;
        put(key.wrapping_sub(key_before), &mut text);
        put_difference(received_at_ms, received_before_ms, &mut text);
        put_difference(received_at_ms, end_ms, &mut text);
        put_difference(end_ms, start_ms, &mut text);
        put(in_if.into(), &mut text);
        put(direction.into(), &mut text);
        (key_before, received_before_ms) = (key, received_at_ms);
    }
    text
}

struct Packed;

impl<'de> Visitor<'de> for Packed {
    type Value = Observations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("packed observations")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let mut digits = text.as_bytes();
        let mut observations = Observations::default();
        let (mut key, mut received_at_ms) = (0_u64, 0_i64);
        while !digits.is_empty() {
            let observation = take_observation(&mut digits, &mut key, &mut received_at_ms);
            observations.insert(
                key,
                observation.ok_or_else(|| E::custom("packed observations are damaged"))?,
            );
        }
        Ok(observations)
    }

    /// As earlier versions wrote them: an object each.
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut observations = Observations::default();
        while let Some((key, observation)) = entries.next_entry()? {
            observations.insert(key, observation);
        }
        Ok(observations)
    }
}

fn take_observation(digits: &mut &[u8], key: &mut u64, received_at_ms: &mut i64) -> Option<Observation> {
    *key = key.wrapping_add(take(digits)?);
    *received_at_ms = received_at_ms.wrapping_add(take_difference(digits)?);
    let end_ms = received_at_ms.wrapping_sub(take_difference(digits)?);
    let start_ms = end_ms.wrapping_sub(take_difference(digits)?);
    Some(Observation {
        start_ms,
        end_ms,
        in_if: u32::try_from(take(digits)?).ok()?,
        direction: u8::try_from(take(digits)?).ok()?,
        received_at_ms: *received_at_ms,
    })
}

fn put(mut number: u64, text: &mut String) {
    loop {
        let low = number & (MORE - 1);
        number >>= BITS;
        let more = if number == 0 { 0 } else { MORE };
        text.push(char::from(DIGITS[(low | more) as usize]));
        if number == 0 {
            return;
        }
    }
}

fn take(digits: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0_u32);
    loop {
        let (digit, rest) = digits.split_first()?;
        *digits = rest;
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        let low = u64::from(value) & (MORE - 1);
        // Of the last digit of 64 bits four are left.
        if low.leading_zeros() < shift {
            return None;
        }
        number |= low.checked_shl(shift)?;
        if u64::from(value) & MORE == 0 {
            return Some(number);
        }
        shift += BITS;
    }
}

fn put_difference(of: i64, from: i64, text: &mut String) {
    let difference = of.wrapping_sub(from);
    put(((difference << 1) ^ (difference >> 63)) as u64, text);
}

fn take_difference(digits: &mut &[u8]) -> Option<i64> {
    let folded = take(digits)?;
    Some((folded >> 1) as i64 ^ -((folded & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn observation() -> impl Strategy<Value = Observation> {
        (any::<i64>(), any::<i64>(), any::<u32>(), any::<u8>(), any::<i64>()).prop_map(
            |(start_ms, end_ms, in_if, direction, received_at_ms)| Observation {
                start_ms,
                end_ms,
                in_if,
                direction,
                received_at_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(observations in prop::collection::btree_map(any::<u64>(), observation(), 0..20)) {
            let mut kept = Observations::default();
            for (key, observation) in observations {
                kept.insert(key, observation);
                let json = serde_json::to_string(&kept).unwrap();
                prop_assert_eq!(serde_json::from_str::<Observations>(&json).unwrap(), kept.clone());
            }
        }
    }

    #[test]
    fn observations_of_an_earlier_version_are_read_and_damaged_ones_are_not() {
        let known = Observation {
            start_ms: 1_790_812_740_000,
            end_ms: 1_790_812_799_000,
            in_if: 513,
            direction: 0,
            received_at_ms: 1_790_812_800_000,
        };
        let older = r#"{"18446744073709551615":{"start_ms":1790812740000,"end_ms":1790812799000,"in_if":513,"direction":0,
            "received_at_ms":1790812800000}}"#;
        let kept: Observations = serde_json::from_str(older).unwrap();
        assert_eq!((kept.len(), kept.get(u64::MAX)), (1, Some(&known)));
        let json = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Observations>(&json).unwrap(), kept);
        for damaged in [
            "A",
            "AAAAA",
            "AAAAAB!",
            "________________",
            "AAAAAAAAAAAA_____________B",
        ] {
            let json = format!("\"{damaged}\"");
            assert!(serde_json::from_str::<Observations>(&json).is_err(), "{damaged}");
        }
    }
}
