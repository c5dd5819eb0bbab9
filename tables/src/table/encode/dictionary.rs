//! Values that are few: each becomes its number, in the order of first appearance.

use std::collections::HashMap;

/// Numbers of one byte.
const NARROW: Size = Size {
    distinct_max: 256,
    slot_bits: 10,
};
/// Numbers of two bytes, of so few values that looking them up stays in the cache of a core.
const WIDE: Size = Size {
    distinct_max: 16 << 10,
    slot_bits: 15,
};
/// Numbers of two bytes pay when a value returns this often. What begins with more different ones is given up early: so many of
/// them, or of a small row group its share, are granted before the first returns.
const WIDE_ROWS_PER_VALUE: usize = 8;
const WIDE_GRANTED: usize = 1_024;
/// An odd number with well mixed bits: 2⁶⁴ divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// How many values are told apart. At least twice as many slots as entries keep probing short.
struct Size {
    distinct_max: usize,
    slot_bits: u32,
}

/// Working memory of [`Slots::index`]: for each slot 0, or the number of an entry and 1.
#[derive(Debug)]
pub(super) struct Slots {
    narrow: Vec<u16>,
    wide: Vec<u16>,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots {
            narrow: vec![0; 1 << NARROW.slot_bits],
            wide: vec![0; 1 << WIDE.slot_bits],
        }
    }
}

/// The distinct values in the order of their numbers, and the bits of a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numbered<T> {
    pub(super) distinct: Vec<T>,
    pub(super) index_bits: u8,
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
    /// Numbers the values: one or two bytes each, little-endian, into `indices`, or none when there is only one distinct value.
    /// `None` when there are too many for a dictionary to pay.
    pub(super) fn index<T: Copy + Eq>(
        &mut self,
        values: &[T],
        bits: impl Fn(T) -> u64,
        indices: &mut Vec<u8>,
    ) -> Option<Numbered<T>> {
        indices.clear();
        if is_one(values) {
            return Some(Numbered {
                distinct: values.first().copied().into_iter().collect(),
                index_bits: u8::BITS as u8,
            });
        }
        indices.resize(values.len(), 0);
        let any = |_: usize| NARROW.distinct_max;
        if let Some(distinct) = number(
            values,
            &bits,
            &NARROW,
            &mut self.narrow,
            indices,
            |number| number as u8,
            any,
        ) {
            return Some(Numbered {
                distinct,
                index_bits: u8::BITS as u8,
            });
        }
        indices.resize(values.len() * size_of::<u16>(), 0);
        let granted = (values.len() / WIDE_ROWS_PER_VALUE).min(WIDE_GRANTED);
        let worth = |row: usize| granted + row / WIDE_ROWS_PER_VALUE;
        let pairs = indices.as_chunks_mut().0;
        let distinct = number(values, &bits, &WIDE, &mut self.wide, pairs, u16::to_le_bytes, worth)?;
        Some(Numbered {
            distinct,
            index_bits: u16::BITS as u8,
        })
    }
}

/// Writes the number of each value to `indices`, and answers the values by number; `None` when there are more than `size` tells
/// apart, or at some row more than `allowed` there.
fn number<T: Copy + Eq, I>(
    values: &[T],
    bits: &impl Fn(T) -> u64,
    size: &Size,
    slots: &mut [u16],
    indices: &mut [I],
    index_of: impl Fn(u16) -> I,
    allowed: impl Fn(usize) -> usize,
) -> Option<Vec<T>> {
    slots.fill(0);
    let mask = slots.len() - 1;
    let mut distinct: Vec<T> = Vec::with_capacity(NARROW.distinct_max);
    for (row, (index, value)) in indices.iter_mut().zip(values).enumerate() {
        let mut slot = (bits(*value).wrapping_mul(MULTIPLIER) >> (u64::BITS - size.slot_bits)) as usize;
        loop {
            let entry = slots[slot & mask];
            if entry == 0 {
                if distinct.len() >= size.distinct_max.min(allowed(row)) {
                    return None;
                }
                *index = index_of(distinct.len() as u16);
                distinct.push(*value);
                slots[slot & mask] = distinct.len() as u16;
                break;
            }
            if distinct[usize::from(entry) - 1] == *value {
                *index = index_of(entry - 1);
                break;
            }
            slot += 1;
        }
    }
    Some(distinct)
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
