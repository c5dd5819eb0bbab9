//! Rollups: metered volume by key and 5 minutes, and by key and hour, computed from flows alone.
//!
//! | rollup | key | 5 minutes | hours |
//! |---|---|---|---|
//! | usage | service | `usage_5m` | `usage_1h` |
//! | traffic | exporter, interface, what it faces | `interface_5m` | `interface_1h` |
//! | traffic | protocol, port | `port_5m` | `port_1h` |
//! | traffic | pair of autonomous systems | `as_5m` | `as_1h` |
//!
//! * **U1.** A window's rows are a function of the flows that overlap it: recomputing gives the same rows, whatever the order in which
//!   flow files arrived. The rows of an hour are a function of those of its windows.
//! * **U2.** A flow's scaled volume is spread over its windows so that the parts sum to the whole; every metered flow has one key in each
//!   rollup (service 0, interface 0 and AS 0 where nothing is known), so all rollups have the same sums. Flows that are not metered
//!   or whose sampling rate is not known contribute nothing.
//! * The table's property `flows_seq` says up to which commit of `flows` it is complete. A flow file with a later
//!   sequence makes the windows between its smallest and largest time dirty; dirty windows are recomputed wholly ([`group`]), and their
//!   hours after them ([`hours`]).
//! * A window that retention has taken flows of is never computed again, because the rest of its flows would say too
//!   little ([`tables::table::RETAINED_FROM`]).
//! * One commit replaces the files of all dirty hours ([`files`]) and sets `flows_seq`. Commits carry a token that two refreshers
//!   who started from the same state both claim: the second one's changes nothing and it starts again.
//! * Between refreshes of one process the volume of the windows that are still filling is kept, so that only new files are read
//!   ([`counted`]).
//! * Each row of `usage_5m` carries its sampling error (`error_bound_ppm`, [`crate::error_bound`]), a function of its other columns. Files
//!   of a version that did not have it are completed from their own rows ([`columns`]).

use datafusion::prelude::{col, lit};
use tables::flow::Metered;
use tables::table::Snapshot;

use crate::store::parquet::instant;

mod cell;
mod cells;
pub(crate) mod columns;
mod counted;
mod files;
mod flows;
pub(crate) mod group;
mod hours;
mod key;
mod ranges;
pub(crate) mod read;

pub(crate) use cell::Cell;
pub(crate) use cells::{Cells, TrafficCells};
pub(crate) use counted::Counted;
pub(crate) use files::{RowColumns, rows_of};
pub(crate) use flows::MeteredColumns;
pub(crate) use key::{ByAs, ByInterface, ByPort, ByService, Key};
pub(crate) use ranges::Ranges;

/// Property of a rollup: the sequence of `flows` that it is complete to.
const FLOWS_SEQUENCE: &str = "flows_seq";

/// How far a refresh has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefreshProgress {
    pub days_done: usize,
    pub days_total: usize,
}

/// What a refresh did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UsageRefresh {
    /// `usage_5m` is complete up to this commit of `flows`.
    pub flows_sequence: u64,
    pub windows_recomputed: u64,
    /// Windows that new flows touch but that retention has taken flows of: they stay as they are, and those flows are
    /// stored but not counted.
    pub windows_frozen: u64,
    /// Flows in the files that were read for it.
    pub flows_read: u64,
    pub files_written: u64,
    pub rows_written: u64,
}

/// One row of a rollup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row<K> {
    pub(crate) key: K,
    /// Of the window or the hour.
    pub(crate) start_ms: i64,
    pub(crate) cell: Cell,
}

impl<K: Copy> Row<K> {
    /// Files are sorted by this.
    pub(crate) fn order(&self) -> (K, i64) {
        (self.key, self.start_ms)
    }
}

/// Metered flows that may have a share in `[from_ms, to_ms)`.
pub(crate) fn overlapping(from_ms: i64, to_ms: i64) -> datafusion::prelude::Expr {
    col("metered")
        .not_eq(lit(Metered::No as u8))
        .and(col("sampling_rate").not_eq(lit(0u32)))
        .and(col("start_at").lt(instant(to_ms)))
        .and(col("end_at").gt_eq(instant(from_ms)))
}

pub(crate) fn sequence_of(usage: &Snapshot) -> u64 {
    usage
        .properties
        .get(FLOWS_SEQUENCE)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
