//! At which interfaces an exporter observes packets on their way in: what goes out elsewhere was seen there already.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An interface without an observation at ingress for so long is observed at egress only.
const SILENCE_MS: i64 = 600_000;
/// Times are kept to so much.
const STEP_MS: i64 = 60_000;
const INTERFACES_MAX: usize = 4_096;

/// Input interfaces by SNMP index, with the time of their last observation at ingress, roughly.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IngressInterfaces {
    last_ms: BTreeMap<u32, i64>,
}

impl IngressInterfaces {
    pub(super) fn note(&mut self, if_index: u32, now_ms: i64) {
        match self.last_ms.get_mut(&if_index) {
            Some(last_ms) if now_ms - *last_ms < STEP_MS => {}
            Some(last_ms) => *last_ms = now_ms,
            None => {
                if self.last_ms.len() >= INTERFACES_MAX {
                    self.last_ms
                        .retain(|_, last_ms| now_ms.saturating_sub(*last_ms) <= SILENCE_MS);
                }
                if self.last_ms.len() < INTERFACES_MAX {
                    self.last_ms.insert(if_index, now_ms);
                }
            }
        }
    }

    /// Whether packets that come in there are observed there.
    pub(super) fn observes(&self, if_index: u32, now_ms: i64) -> bool {
        let last_ms = self.last_ms.get(&if_index);
        last_ms.is_some_and(|last_ms| now_ms.saturating_sub(*last_ms) <= SILENCE_MS)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last_ms.is_empty()
    }

    /// Adds what was known elsewhere of the same exporter.
    pub(super) fn take_over(&mut self, other: &IngressInterfaces) {
        for (if_index, last_ms) in &other.last_ms {
            let known = self.last_ms.entry(*if_index).or_insert(*last_ms);
            *known = (*known).max(*last_ms);
        }
    }

    pub(super) fn clear(&mut self) {
        self.last_ms.clear();
    }
}
