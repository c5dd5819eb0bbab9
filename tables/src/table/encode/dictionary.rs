//! Values that are few: each becomes its number, in the order of first appearance.

use std::collections::HashMap;

/// Numbers fit into one byte.
pub(super) const DISTINCT_MAX: usize = 256;
/// Four times as many slots as entries keep probing short.
const SLOT_BITS: u32 = 10;
const SLOTS: usize = 1 << SLOT_BITS;
/// An odd number with well mixed bits: 2⁶⁴ divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Working memory of [`Slots::index`]: for each slot 0, or the number of an entry and 1.
#[derive(Debug)]
pub(super) struct Slots {
    entries: Vec<u16>,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots {
            entries: vec![0; SLOTS],
        }
    }
}

/// Values that are compared without a look whether one differs, so that the compiler compares many at once.
const COMPARED_VALUES: usize = 128;

/// Whether all values are the same; true for none. Many columns are so in most row groups.
pub(super) fn is_one<T: Copy + Eq>(values: &[T]) -> bool {
    let Some(first) = values.first().copied() else {
        return true;
    };
    let is_same = |chunk: &[T]| chunk.iter().fold(true, |same, value| same & (*value == first));
    values.chunks(COMPARED_VALUES).all(is_same)
}

impl Slots {
    /// Numbers the values: one byte each into `indices`, or none when there is only one distinct value. Answers the distinct
    /// values in the order of their numbers, or `None` when there are too many.
    pub(super) fn index<T: Copy + Eq>(
        &mut self,
        values: &[T],
        bits: impl Fn(T) -> u64,
        indices: &mut Vec<u8>,
    ) -> Option<Vec<T>> {
        indices.clear();
        if is_one(values) {
            return Some(values.first().copied().into_iter().collect());
        }
        self.entries.fill(0);
        let mut distinct: Vec<T> = Vec::with_capacity(DISTINCT_MAX);
        indices.resize(values.len(), 0);
        for (index, value) in indices.iter_mut().zip(values) {
            let mut slot = (bits(*value).wrapping_mul(MULTIPLIER) >> (u64::BITS - SLOT_BITS)) as usize;
            loop {
                let entry = self.entries[slot % SLOTS];
                if entry == 0 {
                    if distinct.len() == DISTINCT_MAX {
                        return None;
                    }
                    distinct.push(*value);
                    self.entries[slot % SLOTS] = distinct.len() as u16;
                    *index = (distinct.len() - 1) as u8;
                    break;
                }
                if distinct[usize::from(entry) - 1] == *value {
                    *index = (entry - 1) as u8;
                    break;
                }
                slot += 1;
            }
        }
        Some(distinct)
    }
}

/// [`Slots::index`] for bytes, which are never too many.
pub(super) fn bytes(values: &[u8], indices: &mut Vec<u8>) -> Vec<u8> {
    indices.clear();
    let Some(first) = values.first() else {
        return Vec::new();
    };
    if is_one(values) {
        return vec![*first];
    }
    // A byte is its own number when the dictionary holds every byte up to the largest.
    let largest = values.iter().copied().fold(0, u8::max);
    indices.extend_from_slice(values);
    (0..=largest).collect()
}

/// The bits of an address that tell most apart.
pub(super) fn fold(address: [u8; 16]) -> u64 {
    let bits = u128::from_be_bytes(address);
    (bits >> 64) as u64 ^ bits as u64
}

/// As [`Slots::index`] for names.
pub(super) fn names<'a>(values: &[&'a str], indices: &mut Vec<u8>) -> Option<Vec<&'a str>> {
    let mut numbers: HashMap<&str, u8> = HashMap::new();
    let mut distinct: Vec<&str> = Vec::new();
    indices.clear();
    for value in values {
        let number = match numbers.get(value) {
            Some(number) => *number,
            None => {
                let number = u8::try_from(distinct.len()).ok()?;
                numbers.insert(value, number);
                distinct.push(value);
                number
            }
        };
        indices.push(number);
    }
    if distinct.len() == 1 {
        indices.clear();
    }
    Some(distinct)
}
