//! Limits on what exporters may make the decoder keep.

use crate::times::TimeLimits;

/// Every bound of the decoder's state, per exporter, so that none can push out another's. A datagram, template or set
/// that would pass one is refused and counted.
///
/// Bounds on all exporters together hold for those that the configuration does not list. A listed exporter always has a
/// place: forged sources that came first cannot keep it out. Exporters and templates that nobody repeats for long make room
/// where a bound is reached, so that a flood is over when it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    pub max_exporters: usize,
    /// Where there are that many, those that are not listed and were not heard for so long are forgotten.
    pub max_exporter_silence_ms: i64,
    /// In all its sessions.
    pub max_domains_per_exporter: usize,
    /// Exporters that are not listed get new domains while those of all of them are fewer than this; a domain costs some 6 KB. Where
    /// there are that many, those of them that were not heard for [`DecodeLimits::max_exporter_silence_ms`] are forgotten.
    pub max_domains_unlisted: usize,
    /// Transport sessions (UDP ports) of one address; a further one takes the place of another.
    pub max_sessions_per_exporter: usize,
    /// Where an address has several, those not heard for so long are forgotten.
    pub max_session_silence_ms: i64,
    pub max_templates_per_domain: usize,
    pub max_template_fields: usize,
    /// Of all templates of an exporter; a field costs some 20 bytes.
    pub max_template_fields_per_exporter: usize,
    /// Exporters that are not listed get new templates while those of all together have fewer fields than this.
    pub max_template_fields_unlisted: usize,
    /// A template that was not sent again for so long makes room for another where its domain is full. RFC 7011 §8.4 has
    /// exporters repeat templates over UDP; data is read by an old template as long as nothing replaces it.
    pub template_lifetime_ms: i64,
    /// Sets of one datagram; a real one has a few dozen.
    pub max_sets_per_datagram: usize,
    /// Sets that wait for their template.
    pub max_pending_bytes_per_domain: usize,
    pub max_pending_bytes_per_exporter: usize,
    pub max_pending_bytes: usize,
    /// Data of exporters that are not listed waits while that of all together is less than this: the rest is for listed ones.
    pub max_pending_bytes_unlisted: usize,
    pub pending_max_age_ms: i64,
    pub max_samplers_per_domain: usize,
    /// Exporters that are not listed may announce new rates while those of all of them are fewer than this; a rate costs some
    /// 250 bytes. Where there are that many, silent domains are forgotten as above.
    pub max_samplers_unlisted: usize,
    /// Flows that are remembered because of what their next record will mean, of one kind in a domain.
    pub max_remembered_flows_per_domain: usize,
    /// Of all exporters.
    pub max_remembered_flows: usize,
    /// A flow that ended longer before it was received is moved to that moment.
    pub max_flow_age_ms: i64,
    /// A flow that lasted longer is shortened.
    pub max_flow_duration_ms: i64,
    /// A flow that ended later after it was received is moved to that moment.
    pub max_clock_skew_ms: i64,
}

impl Default for DecodeLimits {
    fn default() -> DecodeLimits {
        DecodeLimits {
            max_exporters: 16_384,
            max_exporter_silence_ms: 24 * 60 * 60 * 1000,
            max_domains_per_exporter: 256,
            max_domains_unlisted: 16_384,
            max_sessions_per_exporter: 64,
            max_session_silence_ms: 24 * 60 * 60 * 1000,
            max_templates_per_domain: 512,
            max_template_fields: 256,
            max_template_fields_per_exporter: 1 << 16,
            max_template_fields_unlisted: 1 << 22,
            template_lifetime_ms: 3 * 24 * 60 * 60 * 1000,
            max_sets_per_datagram: 1024,
            max_pending_bytes_per_domain: 1 << 20,
            max_pending_bytes_per_exporter: 4 << 20,
            max_pending_bytes: 128 << 20,
            max_pending_bytes_unlisted: 64 << 20,
            // Cisco sends v9 templates every 30 minutes unless told otherwise.
            pending_max_age_ms: 35 * 60 * 1000,
            max_samplers_per_domain: 1024,
            max_samplers_unlisted: 1 << 18,
            max_remembered_flows_per_domain: 1 << 13,
            max_remembered_flows: 1 << 20,
            max_flow_age_ms: 60 * 60 * 1000,
            max_flow_duration_ms: 24 * 60 * 60 * 1000,
            max_clock_skew_ms: 60 * 1000,
        }
    }
}

impl DecodeLimits {
    /// The limits on times.
    pub fn times(&self) -> TimeLimits {
        TimeLimits {
            max_flow_age_ms: self.max_flow_age_ms,
            max_flow_duration_ms: self.max_flow_duration_ms,
            max_clock_skew_ms: self.max_clock_skew_ms,
        }
    }
}

/// How many flows may be remembered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowCapacity {
    /// More than now, of all kinds and exporters.
    pub(super) left: usize,
    /// Of one kind in one domain.
    pub(super) max_of_kind: usize,
}

impl FlowCapacity {
    /// The bound of a kind of which `now` are remembered.
    pub(super) fn max(self, now: usize) -> usize {
        now.saturating_add(self.left).min(self.max_of_kind)
    }
}
