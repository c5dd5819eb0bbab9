//! What a store answers, beside the answers of billing ([`schemas::usage`]) and the truth check
//! ([`crate::counter_reconciliation`]).

use schemas::address::Address;

/// Traffic over time, stacked by a dimension; the smaller keys are summed as `other`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Overview {
    pub from_ms: i64,
    pub to_ms: i64,
    pub step_ms: i64,
    /// Start of each step.
    pub starts_ms: Vec<i64>,
    /// Keys with traffic in the range, named here or not.
    pub keys_total: usize,
    pub series: Vec<OverviewSeries>,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OverviewSeries {
    /// `svc_12`, `6`, `192.0.2.1 513`, `64500`, `unattributed`; `larger` and `other` for the sums of those before and after
    /// the ranks that were asked for.
    pub key: String,
    pub total_bytes: u64,
    /// Scaled bytes per step.
    pub bytes: Vec<u64>,
}

/// Scaled volume of one 5-minute window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowVolume {
    pub window_start_ms: i64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A count of one 5-minute window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowCount {
    pub window_start_ms: i64,
    pub count: u64,
}

/// A count of one exporter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExporterCount {
    pub exporter: Address,
    pub count: u64,
}

/// Metered traffic, and what of it belongs to no service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attribution {
    /// Scaled bytes of both directions, unattributed ones among them.
    pub total_bytes: u64,
    pub unattributed_bytes: u64,
}
