//! Rollups by hour, from those by 5 minutes.
//!
//! * An hour is over once a later one has a window with traffic. Hours that are over are in the table, complete up to its property
//!   `hours_until_ms`; the one that is still filling is asked by its windows ([`super::read`]).
//! * `flows_seq` is that of the windows they were computed from. What flows of later commits touch is computed again, as soon as its
//!   windows are.
//! * Hours whose windows retention has removed stay as they are.

use std::collections::BTreeMap;

use tables::table::{Commit, ManifestError, Snapshot, Table, Token, retained_from_ms};

use super::cells::Cells;
use super::files::{Files, read_rows};
use super::group::touched;
use super::key::Key;
use super::ranges::hour_of;
use super::{FLOWS_SEQUENCE, Ranges, Row, sequence_of};
use crate::{Analytics, AnalyticsError};

/// Property of a table of hours: every hour before this is in it.
const HOURS_UNTIL: &str = "hours_until_ms";
/// Name of the refreshers' common token.
const WRITER: &str = "hours";
const ATTEMPTS_MAX: u32 = 8;

/// End of the hours that a table holds; `None` where it was never written.
pub(super) fn hours_until_ms(hours: &Snapshot) -> Option<i64> {
    hours.properties.get(HOURS_UNTIL)?.parse().ok()
}

impl Analytics {
    /// Brings a table of hours up to date with that of its windows; answers how many rows it wrote.
    pub(crate) async fn refresh_hours<K: Key>(&self) -> Result<u64, AnalyticsError> {
        let windows = self.store.table(K::FIVE_MINUTES).clone();
        let hours = self.store.table(K::HOUR).clone();
        let flows = self.store.flows.clone();
        let work = move || {
            for _ in 0..ATTEMPTS_MAX {
                if let Some(rows) = try_refresh::<K>(&flows, &windows, &hours)? {
                    return Ok(rows);
                }
            }
            Err(AnalyticsError::Contended { attempts: ATTEMPTS_MAX })
        };
        tokio::task::spawn_blocking(work).await?
    }
}

/// `None` when somebody else committed first.
fn try_refresh<K: Key>(flows: &Table, windows: &Table, hours: &Table) -> Result<Option<u64>, AnalyticsError> {
    let held = hours.snapshot()?;
    let source = windows.snapshot()?;
    // Afterwards, so that it names every file that the windows were computed from.
    let flows = flows.snapshot()?;
    let Some(newest_ms) = source.files.values().map(|file| file.max_time_ms).max() else {
        return Ok(Some(0));
    };
    let until_ms = hour_of(newest_ms).max(hours_until_ms(&held).unwrap_or(i64::MIN));
    let dirty = dirty_hours(&flows, &source, &held, until_ms);
    if dirty.hull().is_none() {
        return Ok(Some(0));
    }

    let mut files = Files::of(hours, &held, source.sequence, &dirty);
    for (_, ranges) in dirty.by_day() {
        let cells = cells_of::<K>(windows, &source, &ranges)?;
        files.replace(&ranges, cells.rows(&ranges))?;
    }
    let rows = files.rows_written;
    let replaced = files.replaced();
    let commit = Commit {
        token: Some(Token {
            writer: WRITER.to_owned(),
            number: held.applied.get(WRITER).copied().unwrap_or(0) + 1,
        }),
        set: BTreeMap::from([
            (FLOWS_SEQUENCE.to_owned(), sequence_of(&source).to_string()),
            (HOURS_UNTIL.to_owned(), until_ms.to_string()),
        ]),
        add: replaced.add,
        remove: replaced.remove,
    };
    match hours.commit(commit) {
        Ok(true) => Ok(Some(rows)),
        Ok(false) | Err(ManifestError::Conflict { .. } | ManifestError::Exists { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The hours that are over and that are new or may have changed.
fn dirty_hours(flows: &Snapshot, source: &Snapshot, held: &Snapshot, until_ms: i64) -> Ranges {
    let changed = match hours_until_ms(held) {
        Some(held_until_ms) => touched(flows, sequence_of(held), Some((held_until_ms, until_ms))),
        // Its windows may be kept longer than flows are.
        None => Ranges::of_windows(source.files.values().map(|file| (file.min_time_ms, file.max_time_ms))),
    };
    let complete_from_ms = retained_from_ms(source).max(retained_from_ms(held));
    changed.hours().until(until_ms).since(complete_from_ms)
}

/// Volume by hour of the hours of one day.
fn cells_of<K: Key>(windows: &Table, source: &Snapshot, hours: &Ranges) -> Result<Cells<K>, AnalyticsError> {
    let mut cells = Cells::default();
    let Some((from_ms, to_ms)) = hours.hull() else {
        return Ok(cells);
    };
    let mut rows: Vec<Row<K>> = Vec::new();
    for file in source.files_between(from_ms, to_ms) {
        rows.clear();
        read_rows(windows, &file.path, &mut rows)?;
        for row in rows.iter().filter(|row| hours.contain(row.start_ms)) {
            cells.cell(row.key, hour_of(row.start_ms)).add(&row.cell);
        }
    }
    Ok(cells)
}
