//! What the decoder remembers of one observation domain between datagrams; it is a part of the checkpoint ([`super::exporter`]).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::semantics::DomainSemantics;
use super::spec::TemplateKind;
use super::template::Template;
use crate::decode::copies::LastDatagrams;
use crate::sampling::ChosenRate;
use crate::sequence::SequenceTracker;
use crate::times::Clock;

/// What one observation domain of a session is remembered by.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Domain {
    pub(super) last_heard_ms: i64,
    /// Flows or options data came that a template of it could read; of a checkpoint of earlier versions that is not known until the
    /// next comes.
    #[serde(default)]
    pub(super) had_records: bool,
    pub(super) templates: BTreeMap<u16, Template>,
    /// Of all its templates.
    #[serde(default)]
    pub(super) template_fields: usize,
    /// Where it has as many templates as it may: no template can make room before this.
    #[serde(default)]
    pub(super) no_template_expires_before_ms: i64,
    pub(super) sequence: SequenceTracker,
    #[serde(default)]
    pub(super) last_datagrams: LastDatagrams,
    /// Known to be lost.
    #[serde(default)]
    pub(super) sequence_lost: u64,
    /// By the header that told the uptime in `sequence`.
    #[serde(default)]
    uptime_told_at_ms: Option<i64>,
    pub(super) pending: PendingSets,
    /// IE 160 systemInitTimeMilliseconds.
    pub(super) boot_ms: Option<i64>,
    /// The rate that the last flow got.
    pub(super) sampling: ChosenRate,
    /// How far its exporter's clock is ahead of ours (negative: behind), smoothed over its datagrams.
    #[serde(default)]
    pub(super) clock_offset_ms: Option<i64>,
    /// When the rate that records say changed by so much that it is not believed yet; 0 otherwise.
    #[serde(default)]
    pub(super) rate_jumped_at_ms: i64,
    #[serde(default)]
    pub(super) meaning: DomainSemantics,
}

/// What is said for so long is meant.
const JUMP_BELIEVED_AFTER_MS: i64 = 24 * 60 * 60 * 1000;

/// How exactly two datagrams agree on their exporter's start: headers tell whole seconds.
const SAME_START_MS: u64 = 5_000;
/// No datagram is on its way for longer.
const LATE_MAX_MS: u64 = 600_000;

/// A clock that is suddenly off by so much more or less was set; smaller steps are smoothed.
const CLOCK_SET_MS: i64 = 60_000;

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

    /// Forgets what a restart of the exporter makes void: its templates, and what still waits for one of them. Answers how
    /// many templates and how many waiting sets that were.
    pub(super) fn forget_templates(&mut self) -> (u64, u64) {
        let templates = self.templates.len() as u64;
        self.templates.clear();
        self.template_fields = 0;
        (templates, self.pending.expire(i64::MAX))
    }

    /// As [`Domain::forget_templates`] for what came before `restarted_at_ms` and was not repeated since.
    pub(super) fn forget_templates_before(&mut self, restarted_at_ms: i64) -> (u64, u64) {
        let templates = self.templates.len();
        self.templates
            .retain(|_, template| template.last_seen_ms >= restarted_at_ms);
        self.count_template_fields();
        let forgotten = (templates - self.templates.len()) as u64;
        (forgotten, self.pending.expire(restarted_at_ms))
    }

    /// Whether a rate is orders of magnitude from what was said before, and was not said for a day.
    pub(super) fn rate_jumped(&mut self, now: ChosenRate, now_ms: i64) -> bool {
        let before = self.sampling;
        let is_same = (before.rate, before.divisor) == (now.rate, now.divisor);
        if is_same {
            if now_ms.saturating_sub(self.rate_jumped_at_ms) >= JUMP_BELIEVED_AFTER_MS {
                self.rate_jumped_at_ms = 0;
            }
        } else {
            let jumped = self.rate_jumped_at_ms == 0 && now.jumps_from(before);
            self.rate_jumped_at_ms = if jumped { now_ms.max(1) } else { 0 };
        }
        self.rate_jumped_at_ms != 0
    }

    /// Takes the difference of a header's clock to the time of arrival.
    pub(super) fn saw_clock(&mut self, offset_ms: i64) {
        let step_ms = |known_ms: i64| offset_ms.saturating_sub(known_ms);
        self.clock_offset_ms = match self.clock_offset_ms {
            Some(known_ms) if step_ms(known_ms).unsigned_abs() < CLOCK_SET_MS.unsigned_abs() => {
                Some(known_ms + step_ms(known_ms) / 8)
            }
            _ => Some(offset_ms),
        };
    }

    /// The uptime in a header, to be compared with the last one; `None` where it has none, or where the datagram was on its way for
    /// minutes: its uptime lies behind, and its clock by as much. That shows a late datagram only where the clock is right:
    /// one that begins anew with each start goes back with the uptime.
    pub(super) fn note_uptime(&mut self, clock: Clock, received_at_ms: i64) -> Option<u32> {
        let uptime_ms = clock.uptime_ms?;
        if let (Some(before_ms), Some(told_at_ms)) = (self.sequence.uptime_ms(), self.uptime_told_at_ms) {
            let passed_ms = i64::from(uptime_ms.wrapping_sub(before_ms) as i32);
            let by_clock_ms = clock.export_ms.saturating_sub(told_at_ms);
            let same_start = passed_ms.abs_diff(by_clock_ms) <= SAME_START_MS;
            let clock_is_right = clock.export_ms.abs_diff(received_at_ms) <= LATE_MAX_MS;
            if passed_ms < 0 && same_start && clock_is_right {
                return None;
            }
        }
        self.uptime_told_at_ms = Some(clock.export_ms);
        Some(uptime_ms)
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
