//! What the decoder remembers between datagrams, and its checkpoint.
//!
//! The state is the checkpoint: plain, ordered data, so that two decoders that saw the same datagrams have equal checkpoints
//! and a restored one goes on to the same flows (F1). Compiled plans are made again from their templates.

use std::collections::{BTreeMap, VecDeque};

use schemas::address::Address;
use serde::{Deserialize, Serialize};

use super::template::{Template, TemplateKind};
use crate::sampling::{AnnouncedRates, ChosenRate, DomainKey};
use crate::sequence::SequenceTracker;

/// Everything a [`super::NetflowDecoder`] remembers, to be kept at the start of a journal segment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NetflowCheckpoint {
    pub(super) exporters: BTreeMap<Address, Exporter>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Exporter {
    pub(super) domains: BTreeMap<DomainKey, Domain>,
    pub(super) rates: AnnouncedRates,
    /// IE 160 of the last options record that had it, for domains that were told none.
    pub(super) boot_ms: Option<i64>,
    /// What waits for templates in all domains.
    pub(super) pending_bytes: usize,
    /// Of the templates of all domains.
    #[serde(default)]
    pub(super) template_fields: usize,
}

impl Exporter {
    /// When its last datagram was understood; `None` where none ever was.
    pub(super) fn last_heard_ms(&self) -> Option<i64> {
        self.domains.values().map(|domain| domain.last_heard_ms).max()
    }
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Domain {
    pub(super) last_heard_ms: i64,
    pub(super) templates: BTreeMap<u16, Template>,
    /// Of all its templates.
    #[serde(default)]
    pub(super) template_fields: usize,
    /// Where it has as many templates as it may: no template can make room before this.
    #[serde(default)]
    pub(super) no_template_expires_before_ms: i64,
    pub(super) sequence: SequenceTracker,
    pub(super) pending: PendingSets,
    /// IE 160 systemInitTimeMilliseconds.
    pub(super) boot_ms: Option<i64>,
    /// The rate that the last flow got.
    pub(super) sampling: ChosenRate,
}

impl Domain {
    /// Keeps a template in place of one with the same id.
    pub(super) fn put_template(&mut self, id: u16, template: Template) {
        self.template_fields += template.spec.fields.len();
        if let Some(replaced) = self.templates.insert(id, template) {
            self.template_fields -= replaced.spec.fields.len();
        }
    }

    pub(super) fn remove_template(&mut self, id: u16) {
        if let Some(removed) = self.templates.remove(&id) {
            self.template_fields -= removed.spec.fields.len();
        }
    }

    pub(super) fn remove_templates_of(&mut self, kind: TemplateKind) {
        self.templates.retain(|_, template| template.spec.kind != kind);
        self.count_template_fields();
    }

    /// Makes the count of fields right whatever it was.
    pub(super) fn count_template_fields(&mut self) {
        self.template_fields = self.templates.values().map(|template| template.spec.fields.len()).sum();
    }

    /// Gives up the template that its exporter repeated longest ago, where that is longer than `lifetime_ms`; answers
    /// whether there was one. The look through all templates is spared while none can be that old.
    pub(super) fn expire_template(&mut self, now_ms: i64, lifetime_ms: i64) -> bool {
        if now_ms < self.no_template_expires_before_ms {
            return false;
        }
        let oldest = self
            .templates
            .iter()
            .map(|(id, template)| (template.last_seen_ms, *id))
            .min();
        let Some((last_seen_ms, id)) = oldest else {
            return false;
        };
        let expires_ms = last_seen_ms.saturating_add(lifetime_ms);
        if now_ms < expires_ms {
            self.no_template_expires_before_ms = expires_ms;
            return false;
        }
        self.remove_template(id);
        true
    }
}

/// A data set that waits for its template, with what its header said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct PendingSet {
    pub(super) template_id: u16,
    pub(super) received_at_ms: i64,
    pub(super) export_ms: i64,
    pub(super) uptime_ms: Option<u32>,
    #[serde(with = "hex")]
    pub(super) body: Vec<u8>,
}

impl PendingSet {
    /// What the set costs against the limits.
    pub(super) fn cost_bytes(body: &[u8]) -> usize {
        body.len() + size_of::<PendingSet>()
    }
}

/// The waiting sets of a domain, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct PendingSets {
    sets: VecDeque<PendingSet>,
    bytes: usize,
}

impl PendingSets {
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, set: PendingSet) {
        self.bytes += PendingSet::cost_bytes(&set.body);
        self.sets.push_back(set);
    }

    /// Gives up what was received before `oldest_ms`; answers how many sets that were.
    pub(super) fn expire(&mut self, oldest_ms: i64) -> u64 {
        let mut expired = 0;
        while self.sets.front().is_some_and(|set| set.received_at_ms < oldest_ms) {
            if let Some(set) = self.sets.pop_front() {
                self.bytes -= PendingSet::cost_bytes(&set.body);
                expired += 1;
            }
        }
        expired
    }

    /// Takes the sets that wait for one template, in their order.
    pub(super) fn take(&mut self, template_id: u16) -> Vec<PendingSet> {
        if !self.sets.iter().any(|set| set.template_id == template_id) {
            return Vec::new();
        }
        let (taken, kept): (Vec<PendingSet>, Vec<PendingSet>) =
            self.sets.drain(..).partition(|set| set.template_id == template_id);
        self.sets = kept.into();
        self.bytes -= taken.iter().map(|set| PendingSet::cost_bytes(&set.body)).sum::<usize>();
        taken
    }
}

/// Bytes as hexadecimal text: a checkpoint is JSON.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        let text: String = bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
            .collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        text.as_bytes()
            .chunks(2)
            .map(|pair| match *pair {
                [high, low] => Some((nibble(high)? << 4) | nibble(low)?),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| D::Error::custom("waiting set is not hexadecimal"))
    }
}
