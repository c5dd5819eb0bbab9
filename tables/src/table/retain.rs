//! What age and size limits remove: whole files, oldest first, by commits alone.
//!
//! One instant decides, a full hour: files that end before it go, all others stay. From that commit on the table's
//! property [`RETAINED_FROM`] says so, because whatever is computed from the rows before it would be incomplete: usage
//! windows before it are never computed again. The files themselves are removed by [`Table::vacuum`] after its grace time,
//! so a query that is running ends in peace.

use std::collections::BTreeMap;

use schemas::retention::{RecordRetention, RecordRetentionError};
use schemas::window::{DAY_MS, HOUR_MS};
use serde::{Deserialize, Serialize};

use super::{Commit, FileEntry, ManifestError, Snapshot, Table};
use crate::definitions::TABLES;

/// Property of a table: rows from here on (UTC milliseconds) are complete, what was before is removed in part or whole.
pub const RETAINED_FROM: &str = "retained_from_ms";

/// How long and how much of a table is kept. Without limits everything is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_days: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// `[retention]` in the configuration file: limits by the name of the table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetentionConfig {
    /// Tables that invoices are computed from may be cut within the last [`UNBILLED_DAYS`].
    pub allow_unbilled_deletion: bool,
    /// Of the relational database.
    pub records: RecordRetention,
    #[serde(flatten)]
    pub tables: BTreeMap<String, RetentionLimits>,
}

/// Invoices and their corrections may need what is younger: a month of 31 days, and nine to close it and to put right what
/// was assigned late.
pub const UNBILLED_DAYS: u64 = 40;

/// The tables that invoices are computed from.
const BILLED_TABLES: [&str; 3] = ["flows", "usage_5m", "collection_5m"];

/// A hundred years are enough for everybody, and safe to compute with.
const MAX_AGE_DAYS: u64 = 36_500;

/// Why limits are refused, and what to write instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RetentionError {
    #[error("retention.{name}: there is no such table; the tables are {known}")]
    UnknownTable { name: String, known: String },
    #[error("retention.{table}.max_age_days = {days} is out of range: use 1 to 36500")]
    AgeOutOfRange { table: String, days: u64 },
    #[error("retention.{table}.max_bytes = 0 would keep nothing: use at least 1")]
    NoBytes { table: String },
    #[error(transparent)]
    Records(#[from] RecordRetentionError),
    #[error(
        "retention.{table}.max_age_days = {days}: invoices may still need what is younger than 40 days; use at least 40, \
         or set retention.allow_unbilled_deletion = true"
    )]
    Unbilled { table: String, days: u64 },
}

impl RetentionConfig {
    /// Checks every limit.
    ///
    /// # Errors
    /// The first one that is wrong.
    pub fn validate(&self) -> Result<(), RetentionError> {
        self.records.validate()?;
        for (name, limits) in &self.tables {
            let table = name.clone();
            if !TABLES.iter().any(|known| known.name == name) {
                let known: Vec<&str> = TABLES.iter().map(|known| known.name).collect();
                return Err(RetentionError::UnknownTable {
                    name: table,
                    known: known.join(", "),
                });
            }
            if limits.max_bytes == Some(0) {
                return Err(RetentionError::NoBytes { table });
            }
            let Some(days) = limits.max_age_days else { continue };
            if !(1..=MAX_AGE_DAYS).contains(&days) {
                return Err(RetentionError::AgeOutOfRange { table, days });
            }
            if days < UNBILLED_DAYS && self.is_protected(name) {
                return Err(RetentionError::Unbilled { table, days });
            }
        }
        Ok(())
    }

    fn is_protected(&self, table: &str) -> bool {
        !self.allow_unbilled_deletion && BILLED_TABLES.contains(&table)
    }

    pub fn limits(&self, table: &str) -> RetentionLimits {
        self.tables.get(table).copied().unwrap_or_default()
    }

    /// From when on a table's rows stay whatever the limits say.
    pub fn protected_from_ms(&self, table: &str, now_ms: i64) -> i64 {
        if self.is_protected(table) {
            now_ms.saturating_sub(UNBILLED_DAYS as i64 * DAY_MS)
        } else {
            i64::MAX
        }
    }
}

/// What is to be removed from one table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetentionPlan {
    /// In the order of their ends.
    pub files: Vec<FileEntry>,
    pub rows: u64,
    pub size_bytes: u64,
    /// Everything that ends before this goes.
    pub cut_ms: i64,
    /// Bytes above `max_bytes` that stay, because what holds them is protected.
    pub excess_bytes: u64,
}

/// Since when the table's rows are complete; the beginning of time where nothing was removed.
pub fn retained_from_ms(snapshot: &Snapshot) -> i64 {
    let text = snapshot.properties.get(RETAINED_FROM);
    text.and_then(|text| text.parse().ok()).unwrap_or(i64::MIN)
}

impl RetentionLimits {
    pub fn is_unlimited(&self) -> bool {
        *self == RetentionLimits::default()
    }

    /// What these limits remove from `snapshot`, nothing that ends at or after `protected_from_ms`.
    pub fn plan(&self, snapshot: &Snapshot, now_ms: i64, protected_from_ms: i64) -> RetentionPlan {
        let mut files: Vec<&FileEntry> = snapshot.files.values().collect();
        files.sort_unstable_by(|a, b| (a.max_time_ms, &a.path).cmp(&(b.max_time_ms, &b.path)));

        let by_age_ms = self.max_age_days.map_or(i64::MIN, |days| {
            let age_ms = i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(DAY_MS);
            hour_of(now_ms.saturating_sub(age_ms))
        });
        let total_bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
        let mut excess_bytes = total_bytes.saturating_sub(self.max_bytes.unwrap_or(u64::MAX));
        let mut by_size_ms = i64::MIN;
        for file in &files {
            if excess_bytes == 0 {
                break;
            }
            by_size_ms = hour_of(file.max_time_ms).saturating_add(HOUR_MS);
            excess_bytes = excess_bytes.saturating_sub(file.size_bytes);
        }
        let cut_ms = by_age_ms.max(by_size_ms).min(hour_of(protected_from_ms));

        files.retain(|file| file.max_time_ms < cut_ms);
        let size_bytes = files.iter().map(|file| file.size_bytes).sum();
        let kept_bytes = total_bytes.saturating_sub(size_bytes);
        RetentionPlan {
            rows: files.iter().map(|file| file.rows).sum(),
            size_bytes,
            cut_ms,
            excess_bytes: kept_bytes.saturating_sub(self.max_bytes.unwrap_or(u64::MAX)),
            files: files.into_iter().cloned().collect(),
        }
    }
}

fn hour_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(HOUR_MS).saturating_mul(HOUR_MS)
}

impl Table {
    /// Takes the plan's files out of the table in one commit; answers false when somebody replaced one meanwhile, and
    /// nothing was done: plan again.
    ///
    /// # Errors
    /// When the commit cannot be written.
    pub fn remove_planned(&self, plan: &RetentionPlan) -> Result<bool, ManifestError> {
        if plan.files.is_empty() {
            return Ok(true);
        }
        let snapshot = self.snapshot()?;
        let cut_ms = plan.cut_ms.max(retained_from_ms(&snapshot));
        let commit = Commit {
            remove: plan.files.iter().map(|file| file.path.clone()).collect(),
            set: BTreeMap::from([(RETAINED_FROM.to_owned(), cut_ms.to_string())]),
            ..Commit::default()
        };
        match self.commit(commit) {
            Ok(_) => Ok(true),
            Err(ManifestError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FLOWS;
    use proptest::prelude::*;

    fn snapshot(files: &[(i64, i64, u64)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (index, (min_time_ms, max_time_ms, size_bytes)) in files.iter().enumerate() {
            let path = format!("d/{index}");
            let file = FileEntry {
                path: path.clone(),
                rows: 1,
                size_bytes: *size_bytes,
                min_time_ms: *min_time_ms,
                max_time_ms: *max_time_ms,
                sequence: 1,
                encoding: crate::table::FileEncoding::Open,
            };
            snapshot.files.insert(path, file);
        }
        snapshot
    }

    fn paths(plan: &RetentionPlan) -> Vec<&str> {
        plan.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn age_cuts_at_a_full_hour_and_takes_whole_files() {
        let table = snapshot(&[(0, HOUR_MS - 1, 1), (0, 2 * HOUR_MS, 1), (HOUR_MS, HOUR_MS + 5, 1)]);
        let limits = RetentionLimits {
            max_age_days: Some(1),
            max_bytes: None,
        };
        let plan = limits.plan(&table, DAY_MS + HOUR_MS + 59, i64::MAX);
        assert_eq!((paths(&plan), plan.cut_ms), (vec!["d/0"], HOUR_MS));
        let plan = limits.plan(&table, DAY_MS + 2 * HOUR_MS, i64::MAX);
        assert_eq!(paths(&plan), ["d/0", "d/2"]);
        assert_eq!((plan.rows, plan.size_bytes), (2, 2));
        assert_eq!(limits.plan(&table, DAY_MS * 9, 0).files, [], "what is protected stays");
    }

    #[test]
    fn size_takes_the_oldest_hours_until_it_fits() {
        let table = snapshot(&[(0, 1, 40), (0, HOUR_MS, 30), (0, 2 * HOUR_MS, 20), (0, 3 * HOUR_MS, 10)]);
        let plan = |max_bytes, protected| {
            let limits = RetentionLimits {
                max_age_days: None,
                max_bytes: Some(max_bytes),
            };
            limits.plan(&table, 100 * DAY_MS, protected)
        };
        assert_eq!(paths(&plan(100, i64::MAX)), Vec::<&str>::new());
        assert_eq!(paths(&plan(99, i64::MAX)), ["d/0"]);
        assert_eq!(paths(&plan(30, i64::MAX)), ["d/0", "d/1"]);
        let bounded = plan(0, HOUR_MS);
        assert_eq!((paths(&bounded), bounded.excess_bytes), (vec!["d/0"], 60));
        assert_eq!(plan(0, i64::MAX).files.len(), 4);
    }

    #[test]
    fn limits_that_could_cost_money_need_a_word() {
        let config = |text: &str| serde_json::from_str::<RetentionConfig>(text).unwrap();
        let short = r#"{"flows":{"max_age_days":39},"counters":{"max_age_days":1}}"#;
        assert_eq!(
            config(short).validate(),
            Err(RetentionError::Unbilled {
                table: "flows".to_owned(),
                days: 39
            })
        );
        let mut allowed = config(short);
        allowed.allow_unbilled_deletion = true;
        allowed.validate().unwrap();
        assert_eq!(allowed.protected_from_ms("flows", 0), i64::MAX);
        assert_eq!(RetentionConfig::default().protected_from_ms("flows", 0), -40 * DAY_MS);
        assert_eq!(RetentionConfig::default().protected_from_ms("counters", 0), i64::MAX);
        config(r#"{"flows":{"max_age_days":40,"max_bytes":1}}"#)
            .validate()
            .unwrap();
        for wrong in [
            r#"{"flow":{"max_age_days":50}}"#,
            r#"{"flows":{"max_age_days":0}}"#,
            r#"{"flows":{"max_age_days":18446744073709551615}}"#,
            r#"{"flows":{"max_bytes":0}}"#,
        ] {
            assert!(config(wrong).validate().is_err(), "{wrong}");
        }
    }

    #[test]
    fn removal_is_one_commit_that_says_since_when_rows_are_complete() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        let files = snapshot(&[(0, 1, 1), (0, HOUR_MS, 1)]).files.into_values().collect();
        table
            .commit(Commit {
                add: files,
                ..Commit::default()
            })
            .unwrap();
        assert_eq!(retained_from_ms(&table.snapshot().unwrap()), i64::MIN);
        let limits = RetentionLimits {
            max_age_days: None,
            max_bytes: Some(1),
        };
        let plan = limits.plan(&table.snapshot().unwrap(), 0, i64::MAX);
        assert!(table.remove_planned(&plan).unwrap());
        let after = table.snapshot().unwrap();
        assert_eq!((after.files.len(), retained_from_ms(&after)), (1, HOUR_MS));
        assert!(
            !table.remove_planned(&plan).unwrap(),
            "the same plan again meets a conflict"
        );
        assert_eq!(after, table.snapshot().unwrap());
    }

    proptest! {
        #[test]
        fn nothing_younger_goes_before_something_older(
            files in prop::collection::vec((0i64..100 * HOUR_MS, 1u64..100), 0..20),
            max_bytes in 0u64..1000,
            protected in 0i64..100 * HOUR_MS,
        ) {
            let files: Vec<_> = files.into_iter().map(|(end, size)| (0, end, size)).collect();
            let table = snapshot(&files);
            let limits = RetentionLimits { max_age_days: None, max_bytes: Some(max_bytes) };
            let plan = limits.plan(&table, 0, protected);
            let gone: std::collections::HashSet<_> = paths(&plan).into_iter().collect();
            let newest_gone = plan.files.iter().map(|file| file.max_time_ms).max();
            for file in table.files.values().filter(|file| !gone.contains(file.path.as_str())) {
                prop_assert!(newest_gone.is_none_or(|newest| newest < file.max_time_ms));
            }
            prop_assert!(newest_gone.is_none_or(|newest| newest < protected));
            let kept: u64 = table.rows() - plan.rows;
            prop_assert_eq!(kept as usize, table.files.len() - plan.files.len());
        }
    }
}
