//! What is stored as one unit of work.

use std::collections::BTreeMap;

use schemas::window::WindowStart;
use tables::table::RowGroup;

use crate::counts::Counts;
use crate::decode::InterfaceCounters;

/// Rows of the three tables, in the order their datagrams arrived.
#[derive(Debug, Default)]
pub(crate) struct GatheredRows {
    pub(crate) flows: Vec<RowGroup>,
    pub(crate) flow_rows: u64,
    /// Earliest `start_at` or `received_at`, latest `end_at` or `received_at`; meaningless without rows.
    pub(crate) flow_times: Option<TimeSpan>,
    pub(crate) counters: Vec<InterfaceCounters>,
    /// Counts by 5-minute window of arrival.
    pub(crate) windows: BTreeMap<WindowStart, Counts>,
    /// When the first datagram arrived, UTC milliseconds.
    pub(crate) first_received_ms: Option<i64>,
}

/// Smallest and largest time, both inclusive, UTC milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimeSpan {
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
}

impl TimeSpan {
    pub(crate) fn including(span: Option<TimeSpan>, min_ms: i64, max_ms: i64) -> TimeSpan {
        TimeSpan {
            min_ms: span.map_or(min_ms, |s| s.min_ms.min(min_ms)),
            max_ms: span.map_or(max_ms, |s| s.max_ms.max(max_ms)),
        }
    }
}
