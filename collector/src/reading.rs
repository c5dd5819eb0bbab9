//! What the records of one exporter mean, where its configuration says so.
//!
//! Most of it the records say themselves, or they show it ([`crate::decode::netflow`]); what is configured comes first.

use schemas::metering::ExporterConfig;

/// The settings of `[[exporter]]` that change how its records are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DecodeSettings {
    /// After so long an exporter reports a flow that goes on: no record holds older bytes.
    pub active_timeout_ms: Option<i64>,
    /// Next hop and output interface zero mean a discarded packet.
    pub zero_route_is_discard: bool,
    /// IE 23 and 24 beside IE 1 and 2 count the answering direction.
    pub out_bytes_are_answer: bool,
    /// Of each packet, in the reported bytes.
    pub layer2_octets: u16,
}

impl From<&ExporterConfig> for DecodeSettings {
    fn from(exporter: &ExporterConfig) -> DecodeSettings {
        DecodeSettings {
            active_timeout_ms: exporter
                .active_timeout_s
                .filter(|seconds| *seconds > 0)
                .map(|seconds| i64::from(seconds) * 1000),
            zero_route_is_discard: exporter.zero_route_is_discard,
            out_bytes_are_answer: exporter.out_bytes_are_answer.unwrap_or(false),
            layer2_octets: exporter.layer2_octets,
        }
    }
}
