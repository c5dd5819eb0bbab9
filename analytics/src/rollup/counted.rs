//! What the last refreshes counted of the windows that are still filling.
//!
//! New segments touch the same few windows until those are over. Counting each of these windows anew from all of its flows
//! would cost the more the busier the network is, until nothing else gets done; a window's volume is a sum over flow
//! files (U1), so what was counted of a file is kept and only new files are read:
//!
//! ```text
//! windows        │ 20:40 │ 20:45 │ 20:50 │ …         from_ms = 20:45
//! counted files      └──── a, b, c ────┘             cells   = what a, b, c hold from 20:45 on
//! ```
//!
//! A file that is no longer part of the table (compacted, attributed anew) makes all of it void, and so does a change
//! before `from_ms`: then the windows are counted from all their flows, as after a start.

use std::collections::HashSet;

use schemas::window::WINDOW_MS;
use tables::table::{FileEntry, Snapshot};

use super::Ranges;
use super::group::Group;

/// Windows that are kept: flows that come later than this start the counting anew.
const WINDOWS_KEPT: i64 = 6;

/// Windows up to the newest that are worth to be kept at all; more are history, which does not change every few seconds.
const WINDOWS_MAX: i64 = 24;

/// The volume of every window from `from_ms` on that the flows of `files` hold.
#[derive(Debug, Default)]
pub(crate) struct Counted<G> {
    from_ms: i64,
    files: HashSet<String>,
    cells: G,
}

impl<G: Group> Counted<G> {
    /// What `counted` holds that is still true and is of use to count `ranges` in `snapshot`: nothing at first. `None` when
    /// these windows are history.
    pub(super) fn resume(counted: Option<Counted<G>>, snapshot: &Snapshot, ranges: &Ranges) -> Option<Counted<G>> {
        let (from_ms, _) = ranges.hull()?;
        let newest_ms = snapshot.files.values().map(|file| file.max_time_ms).max()?;
        if newest_ms - from_ms > WINDOWS_MAX * WINDOW_MS {
            return None;
        }
        let still_true = |counted: &Counted<G>| {
            counted.from_ms <= from_ms && counted.files.iter().all(|path| snapshot.files.contains_key(path))
        };
        Some(counted.filter(still_true).unwrap_or_else(|| Counted {
            from_ms,
            ..Counted::default()
        }))
    }

    /// Where the windows that are kept begin.
    pub(super) fn start_ms(&self) -> i64 {
        self.from_ms
    }

    /// The files that are still to be counted.
    pub(super) fn missing<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a FileEntry> {
        let files = snapshot.files.values();
        files
            .filter(|file| file.max_time_ms >= self.from_ms && !self.files.contains(&file.path))
            .collect()
    }

    /// Notes files whose flows from [`Counted::start_ms`] on are about to be added.
    pub(super) fn count<'a>(&mut self, files: impl IntoIterator<Item = &'a FileEntry>) {
        self.files.extend(files.into_iter().map(|file| file.path.clone()));
    }

    pub(super) fn cells_mut(&mut self) -> &mut G {
        &mut self.cells
    }

    /// What is counted so far.
    pub(super) fn cells(&self) -> &G {
        &self.cells
    }

    /// Lets go of windows that have passed.
    pub(super) fn forget(&mut self, snapshot: &Snapshot, ranges: &Ranges) {
        let newest_ms = snapshot.files.values().map(|file| file.max_time_ms).max();
        let (Some(newest_ms), Some((from_ms, _))) = (newest_ms, ranges.hull()) else {
            return;
        };
        let kept_ms = (newest_ms.div_euclid(WINDOW_MS) - WINDOWS_KEPT) * WINDOW_MS;
        let from_ms = from_ms.min(kept_ms).max(self.from_ms);
        if from_ms == self.from_ms {
            return;
        }
        self.from_ms = from_ms;
        self.cells.forget_before(from_ms);
        self.files
            .retain(|path| snapshot.files.get(path).is_some_and(|file| file.max_time_ms >= from_ms));
    }
}
