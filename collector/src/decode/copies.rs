//! Datagrams that arrive twice: of two paths to the collector, of a mirrored port, of a relay that sends each one twice.
//!
//! A datagram with the sequence number *and* the bytes of one of the last [`REMEMBERED_MAX`] of its session is a copy. What it holds was
//! counted, so that it is rejected whole and counted (`datagrams_rejected.duplicate`). An exporter that started again and begins to
//! count anew tells other times in its headers: no copy.
//!
//! Kept with the rest of the decoder's state: a segment of the journal begins with what was remembered before it (F1).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Of one observation domain of a session, or of one sFlow agent and sub-agent.
pub(super) const REMEMBERED_MAX: usize = 64;

/// The last datagrams, oldest first: their sequence numbers and check sums.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct LastDatagrams {
    #[serde(with = "as_text")]
    prints: VecDeque<u64>,
    /// How many of the last ones came in the order of their numbers, one after the other: a number beyond all of them is that of no
    /// copy, whatever the bytes. Not remembered over a restart.
    #[serde(skip)]
    in_order: usize,
}

impl PartialEq for LastDatagrams {
    fn eq(&self, other: &LastDatagrams) -> bool {
        self.prints == other.prints
    }
}

impl Eq for LastDatagrams {}

/// Numbers of datagrams in order differ by less, so that those of all that are remembered do not come round to the first one.
const STEP_MAX: u32 = 1 << 24;

impl LastDatagrams {
    /// Takes a datagram; answers whether it is a copy of one that is remembered.
    #[inline]
    pub(super) fn is_copy(&mut self, sequence: u32, payload: &[u8]) -> bool {
        let print = (u64::from(sequence) << 32) | u64::from(check_sum(payload));
        let is_next = self.prints.back().is_some_and(|last| {
            let step = sequence.wrapping_sub((last >> 32) as u32);
            (1..STEP_MAX).contains(&step)
        });
        let is_beyond_all = is_next && self.in_order >= self.prints.len();
        if !is_beyond_all && self.prints.contains(&print) {
            return true;
        }
        self.in_order = if is_next { self.in_order + 1 } else { 1 };
        if self.prints.len() >= REMEMBERED_MAX {
            self.prints.pop_front();
        }
        self.prints.push_back(print);
        false
    }
}

/// Bytes of a datagram that are mixed into one of four sums at once, so that none waits for another.
const LANES: usize = 4;
const BLOCK_BYTES: usize = LANES * 16;
/// Odd numbers with well mixed bits: the golden ratio and the roots of 2, 3 and 5, in 64 bits.
const SEEDS: [u64; LANES] = [
    0x9e37_79b9_7f4a_7c15,
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
];

/// A check sum of a datagram, the same on every machine. It is made of every datagram of every exporter.
fn check_sum(payload: &[u8]) -> u32 {
    let (blocks, rest) = payload.as_chunks::<BLOCK_BYTES>();
    let mut sums = SEEDS;
    let mut mix = |block: &[u8; BLOCK_BYTES]| {
        let (words, _) = block.as_chunks::<8>();
        for (lane, sum) in sums.iter_mut().enumerate() {
            let (low, high) = (
                u64::from_le_bytes(words[lane * 2]),
                u64::from_le_bytes(words[lane * 2 + 1]),
            );
            *sum = folded(*sum ^ low, SEEDS[lane] ^ high);
        }
    };
    blocks.iter().for_each(&mut mix);
    let mut last = [0; BLOCK_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    mix(&last);
    let [first, second, third, fourth] = sums;
    let sum = folded(
        first ^ third.rotate_left(32),
        second ^ fourth.rotate_left(32) ^ payload.len() as u64,
    );
    (sum ^ (sum >> 32)) as u32
}

/// The product of two numbers, its upper half folded onto the lower one.
#[inline]
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

/// Sixteen hexadecimal digits each: a checkpoint is JSON.
mod as_text {
    use std::collections::VecDeque;
    use std::fmt::Write;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const DIGITS: usize = 16;

    pub(super) fn serialize<S: Serializer>(prints: &VecDeque<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(prints.len() * DIGITS);
        for print in prints {
            // A string takes whatever is written.
            let _ = write!(text, "{print:016x}");
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VecDeque<u64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let print = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits)
                .ok()
                .filter(|digits| digits.len() == DIGITS)?;
            u64::from_str_radix(digits, 16).ok()
        };
        let prints: Option<VecDeque<u64>> = text
            .as_bytes()
            .chunks(DIGITS)
            .take(super::REMEMBERED_MAX)
            .map(print)
            .collect();
        prints.ok_or_else(|| D::Error::custom("remembered datagrams are not hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_that_differ_in_a_bit_have_other_sums() {
        let datagram: Vec<u8> = (0..200_u32).map(|n| (n * n) as u8).collect();
        let mut sums = std::collections::BTreeSet::from([check_sum(&datagram), check_sum(&[])]);
        let mut others = 0;
        for length in 1..=datagram.len() {
            sums.insert(check_sum(&datagram[..length - 1]));
            others += 1;
            let mut changed = datagram.clone();
            for bit in 0..8 {
                changed[length - 1] = datagram[length - 1] ^ (1 << bit);
                sums.insert(check_sum(&changed));
                others += 1;
            }
        }
        // Of the two at the beginning the empty one came again.
        assert_eq!(sums.len(), others + 1);
        assert_eq!(
            check_sum(b"EZSCALE"),
            0x64fd_08f8,
            "checkpoints of other machines hold them"
        );
        let zeros = [0; 1_500];
        assert_ne!(check_sum(&zeros[..1_400]), check_sum(&zeros[..1_401]));
    }

    #[test]
    fn the_last_datagrams_are_known_again_by_number_and_bytes() {
        let mut last = LastDatagrams::default();
        assert!(!last.is_copy(1, b"one"));
        assert!(last.is_copy(1, b"one"));
        assert!(!last.is_copy(2, b"one"), "another number");
        assert!(!last.is_copy(1, b"two"), "other bytes");
        for number in 10..10 + REMEMBERED_MAX as u32 {
            assert!(!last.is_copy(number, b"one"));
        }
        assert!(!last.is_copy(1, b"one"), "too long ago");
        for number in [2, 3, 5] {
            assert!(!last.is_copy(number, b"one"));
            assert!(
                last.is_copy(number, b"one") && last.is_copy(1, b"one"),
                "whatever came in order since"
            );
        }
        assert_eq!(last.prints.len(), REMEMBERED_MAX);
        let json = serde_json::to_string(&last).unwrap();
        assert_eq!(serde_json::from_str::<LastDatagrams>(&json).unwrap(), last);
        assert!(serde_json::from_str::<LastDatagrams>("\"12\"").is_err());
    }
}
