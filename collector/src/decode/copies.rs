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
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct LastDatagrams {
    #[serde(with = "as_text")]
    prints: VecDeque<u64>,
}

impl LastDatagrams {
    /// Takes a datagram; answers whether it is a copy of one that is remembered.
    #[inline]
    pub(super) fn is_copy(&mut self, sequence: u32, payload: &[u8]) -> bool {
        let print = (u64::from(sequence) << 32) | u64::from(crc32fast::hash(payload));
        if self.prints.contains(&print) {
            return true;
        }
        if self.prints.len() >= REMEMBERED_MAX {
            self.prints.pop_front();
        }
        self.prints.push_back(print);
        false
    }
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
        assert_eq!(last.prints.len(), REMEMBERED_MAX);
        let json = serde_json::to_string(&last).unwrap();
        assert_eq!(serde_json::from_str::<LastDatagrams>(&json).unwrap(), last);
        assert!(serde_json::from_str::<LastDatagrams>("\"12\"").is_err());
    }
}
