//! Limits on what exporters may make the decoder keep.

use crate::times::TimeLimits;

/// Every bound of the decoder's state, per exporter, so that none can push out another's. A datagram, template or set
/// that would pass one is refused and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    pub max_exporters: usize,
    pub max_domains_per_exporter: usize,
    pub max_templates_per_domain: usize,
    pub max_template_fields: usize,
    /// Sets of one datagram; a real one has a few dozen.
    pub max_sets_per_datagram: usize,
    /// Sets that wait for their template.
    pub max_pending_bytes_per_domain: usize,
    pub max_pending_bytes_per_exporter: usize,
    pub max_pending_bytes: usize,
    pub pending_max_age_ms: i64,
    pub max_samplers_per_domain: usize,
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
            max_domains_per_exporter: 256,
            max_templates_per_domain: 512,
            max_template_fields: 256,
            max_sets_per_datagram: 1024,
            max_pending_bytes_per_domain: 1 << 20,
            max_pending_bytes_per_exporter: 4 << 20,
            max_pending_bytes: 128 << 20,
            // Cisco sends v9 templates every 30 minutes unless told otherwise.
            pending_max_age_ms: 35 * 60 * 1000,
            max_samplers_per_domain: 1024,
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
