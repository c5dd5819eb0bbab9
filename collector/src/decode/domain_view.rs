//! An observation domain as the decoders show it to people: part of the status file.

use schemas::address::Address;
use serde::{Deserialize, Serialize};

use super::netflow::TemplateStatus;

/// A clock that is off by so much is shown as off: headers tell whole seconds, and datagrams travel.
pub const CLOCK_OFF_MS: i64 = 10_000;

/// One observation domain of an exporter, or one sub-agent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DomainView {
    pub observation_domain: u32,
    pub protocol_version: u8,
    pub templates: u64,
    /// As the exporter described them; fewer than there are, or none, where thousands of exporters have too many to list.
    pub template_list: Vec<TemplateStatus>,
    /// Data sets that wait for their template.
    pub pending_sets: u64,
    pub sampling_rate: Option<u32>,
    /// What it is divided by; 0 stands for 1.
    pub sampling_divisor: u32,
    /// No exporter samples so, or it is orders of magnitude from what it was.
    pub sampling_implausible: bool,
    /// Where the rate came from, in words for people.
    pub sampling_source: String,
    /// Rates that its session announced and that have ended.
    pub rates_ended: u64,
    /// As [`crate::status::ExporterStatus::sequence_lost`].
    pub sequence_lost: u64,
    /// Missing, and not yet counted as lost: they may come late.
    pub sequence_waiting: u64,
    /// The UDP port of its transport session; 0 = all ports of the exporter, and in sFlow.
    pub port: u16,
    /// How far the exporter's clock is ahead of ours, as its headers tell it; negative: behind.
    pub clock_offset_ms: Option<i64>,
    /// The sFlow agent that it says it is, where another exporter has that address for its name.
    pub agent: Option<Address>,
    /// By which the spans of long flows are bounded; `None` where nobody said and nothing showed.
    pub active_timeout_s: Option<u64>,
    /// Where the timeout came from, in words for people.
    pub active_timeout_source: String,
    /// It was seen to observe packets on their way in and out.
    pub observes_twice: bool,
    /// Its templates have IE 23 beside IE 1.
    pub has_out_counters: bool,
}

impl DomainView {
    /// By how much its exporter's clock is off, where that is more than a header's resolution; ahead of ours when positive.
    pub fn clock_off_ms(&self) -> Option<i64> {
        self.clock_offset_ms
            .filter(|offset_ms| offset_ms.unsigned_abs() >= CLOCK_OFF_MS.unsigned_abs())
    }
}
