//! At which interfaces an exporter observes packets on their way in: what goes out elsewhere was seen there already.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An interface without an observation at ingress for so long is observed at egress only.
const SILENCE_MS: i64 = 600_000;
/// Times are kept to so much.
const STEP_MS: i64 = 60_000;
const INTERFACES_MAX: usize = 4_096;

/// Places are first looked for by the interface's index modulo this.
const HINTS: usize = 64;

/// Input interfaces by SNMP index, with the time of their last observation at ingress, roughly.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "BTreeMap<u32, i64>", into = "BTreeMap<u32, i64>")]
pub struct IngressInterfaces {
    /// Ascending.
    last_ms: Vec<(u32, i64)>,
    /// Where an interface was last found, which nearly every packet names again; no part of what is known.
    hints: [u16; HINTS],
}

impl Default for IngressInterfaces {
    fn default() -> IngressInterfaces {
        IngressInterfaces {
            last_ms: Vec::new(),
            hints: [0; HINTS],
        }
    }
}

impl PartialEq for IngressInterfaces {
    fn eq(&self, other: &IngressInterfaces) -> bool {
        self.last_ms == other.last_ms
    }
}

impl Eq for IngressInterfaces {}

impl From<BTreeMap<u32, i64>> for IngressInterfaces {
    fn from(last_ms: BTreeMap<u32, i64>) -> IngressInterfaces {
        IngressInterfaces {
            last_ms: last_ms.into_iter().collect(),
            ..IngressInterfaces::default()
        }
    }
}

impl From<IngressInterfaces> for BTreeMap<u32, i64> {
    fn from(interfaces: IngressInterfaces) -> BTreeMap<u32, i64> {
        interfaces.last_ms.into_iter().collect()
    }
}

impl IngressInterfaces {
    /// Where an interface is, or would be.
    #[inline]
    fn place(&self, if_index: u32) -> Result<usize, usize> {
        self.last_ms.binary_search_by_key(&if_index, |(known, _)| *known)
    }

    #[inline]
    pub(super) fn note(&mut self, if_index: u32, now_ms: i64) {
        let hint = usize::from(self.hints[if_index as usize % HINTS]);
        match self.last_ms.get(hint) {
            Some((known, last_ms)) if *known == if_index && now_ms - *last_ms < STEP_MS => {}
            _ => self.note_at_its_place(if_index, now_ms),
        }
    }

    fn note_at_its_place(&mut self, if_index: u32, now_ms: i64) {
        let Ok(at) = self.place(if_index) else {
            return self.add(if_index, now_ms);
        };
        let last_ms = &mut self.last_ms[at].1;
        if now_ms - *last_ms >= STEP_MS {
            *last_ms = now_ms;
        }
        self.hints[if_index as usize % HINTS] = u16::try_from(at).unwrap_or(0);
    }

    fn add(&mut self, if_index: u32, now_ms: i64) {
        if self.last_ms.len() >= INTERFACES_MAX {
            self.last_ms
                .retain(|(_, last_ms)| now_ms.saturating_sub(*last_ms) <= SILENCE_MS);
        }
        if let Err(at) = self.place(if_index)
            && self.last_ms.len() < INTERFACES_MAX
        {
            self.last_ms.insert(at, (if_index, now_ms));
        }
    }

    /// Whether packets that come in there are observed there.
    #[inline]
    pub(super) fn observes(&self, if_index: u32, now_ms: i64) -> bool {
        self.place(if_index)
            .is_ok_and(|at| now_ms.saturating_sub(self.last_ms[at].1) <= SILENCE_MS)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last_ms.is_empty()
    }

    /// Adds what was known elsewhere of the same exporter.
    pub(super) fn take_over(&mut self, other: &IngressInterfaces) {
        for (if_index, last_ms) in &other.last_ms {
            match self.place(*if_index) {
                Ok(at) => self.last_ms[at].1 = self.last_ms[at].1.max(*last_ms),
                Err(at) => self.last_ms.insert(at, (*if_index, *last_ms)),
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.last_ms.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_kept_in_order_and_as_a_map() {
        let mut interfaces = IngressInterfaces::default();
        for if_index in [7, 3, 9, 3] {
            interfaces.note(if_index, 1_000 * i64::from(if_index));
        }
        interfaces.note(7, 8_000);
        interfaces.note(9, 70_000);
        let json = serde_json::to_string(&interfaces).unwrap();
        assert_eq!(json, r#"{"3":3000,"7":7000,"9":70000}"#, "steps of a minute");
        assert_eq!(serde_json::from_str::<IngressInterfaces>(&json).unwrap(), interfaces);
        assert!(interfaces.observes(3, 603_000) && !interfaces.observes(3, 603_001) && !interfaces.observes(4, 0));
        let mut other = IngressInterfaces::from(BTreeMap::from([(3, 1), (5, 2)]));
        other.take_over(&interfaces);
        assert_eq!(other.last_ms, [(3, 3_000), (5, 2), (7, 7_000), (9, 70_000)]);
    }
}
