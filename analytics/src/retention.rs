//! What age and size limits remove from the tables, and what the tables hold.
//!
//! Flows go only when nothing needs them any more:
//!
//! * rollups are computed from them: a flow file that one of these has not read yet, and everything after its first flow,
//!   stays;
//! * their windows are closed ([`closed_until_ms`]);
//! * they are older than [`tables::table::UNBILLED_DAYS`], unless the configuration says otherwise.

use std::sync::Arc;
use std::time::Duration;

use tables::flow::FLOWS;
use tables::table::{RetentionConfig, RetentionLimits, RetentionPlan, Snapshot, Table, retained_from_ms};

use crate::rollup::group::Group;
use crate::rollup::{ByService, Cells, TrafficCells};
use crate::usage::{closed_until_ms, sequence_of};
use crate::{Analytics, AnalyticsError};

/// Plans made anew when somebody else changes the table meanwhile.
const ATTEMPTS_MAX: u32 = 8;

/// What one table holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableStorage {
    pub table: &'static str,
    pub files: usize,
    pub rows: u64,
    pub size_bytes: u64,
    /// Smallest and largest time of its files.
    pub oldest_ms: Option<i64>,
    pub newest_ms: Option<i64>,
    pub limits: RetentionLimits,
}

/// What was removed from one table, or would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableRetention {
    pub table: &'static str,
    pub plan: RetentionPlan,
}

impl Analytics {
    /// Every stored table as it is now.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub fn storage(&self, config: &RetentionConfig) -> Result<Vec<TableStorage>, AnalyticsError> {
        let mut all = Vec::with_capacity(self.store.tables.len());
        for table in &self.store.tables {
            let snapshot = table.snapshot()?;
            let files = || snapshot.files.values();
            all.push(TableStorage {
                table: table.def().name,
                files: snapshot.files.len(),
                rows: snapshot.rows(),
                size_bytes: files().map(|file| file.size_bytes).sum(),
                oldest_ms: files().map(|file| file.min_time_ms).min(),
                newest_ms: files().map(|file| file.max_time_ms).max(),
                limits: config.limits(table.def().name),
            });
        }
        Ok(all)
    }

    /// What the limits would remove now: one entry for each table that has limits.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub fn plan_retention(&self, config: &RetentionConfig, now_ms: i64) -> Result<Vec<TableRetention>, AnalyticsError> {
        let limited = self.limited(config);
        limited.map(|table| self.plan(table, config, now_ms)).collect()
    }

    /// Removes what is beyond the limits. Blocks while commits are written; queries that run go on ([`Analytics::vacuum`]
    /// removes the files later).
    ///
    /// # Errors
    /// When a manifest cannot be read or written. What was removed before stays removed.
    pub fn retain(&self, config: &RetentionConfig, now_ms: i64) -> Result<Vec<TableRetention>, AnalyticsError> {
        self.limited(config)
            .map(|table| {
                for _ in 0..ATTEMPTS_MAX {
                    let retention = self.plan(table, config, now_ms)?;
                    if table.remove_planned(&retention.plan)? {
                        return Ok(retention);
                    }
                }
                Err(AnalyticsError::Contended { attempts: ATTEMPTS_MAX })
            })
            .collect()
    }

    /// Removes files of all tables that no commit names and that are older than `grace`; answers how many by table.
    /// Blocks meanwhile.
    ///
    /// # Errors
    /// When files cannot be listed or removed.
    pub fn vacuum(&self, grace: Duration) -> Result<Vec<(&'static str, usize)>, AnalyticsError> {
        let tables = self.store.tables.iter();
        tables
            .map(|table| Ok((table.def().name, table.vacuum(grace)?)))
            .collect()
    }

    /// The stored tables themselves, for work on their files.
    pub fn tables(&self) -> &[Table] {
        &self.store.tables
    }

    fn limited<'a>(&'a self, config: &'a RetentionConfig) -> impl Iterator<Item = &'a Table> {
        let tables = self.store.tables.iter();
        tables.filter(|table| !config.limits(table.def().name).is_unlimited())
    }

    /// The tables that are computed from flows.
    fn rollups_from_flows(&self) -> Result<Vec<Arc<Snapshot>>, AnalyticsError> {
        let defs = Cells::<ByService>::TABLES.iter().chain(TrafficCells::TABLES);
        defs.map(|def| Ok(self.store.table(def).snapshot()?)).collect()
    }

    fn plan(&self, table: &Table, config: &RetentionConfig, now_ms: i64) -> Result<TableRetention, AnalyticsError> {
        let name = table.def().name;
        // In this order: flows committed between the two count as not computed.
        let computed = self.rollups_from_flows()?;
        let snapshot = table.snapshot()?;
        let mut protected_ms = config.protected_from_ms(name, now_ms).min(closed_until_ms(now_ms));
        if name == FLOWS.name {
            for rollup in &computed {
                let frozen_ms = retained_from_ms(&snapshot).max(retained_from_ms(rollup));
                let waiting = snapshot
                    .files
                    .values()
                    .filter(|file| file.sequence > sequence_of(rollup) && file.max_time_ms >= frozen_ms);
                protected_ms = protected_ms.min(waiting.map(|file| file.min_time_ms).min().unwrap_or(i64::MAX));
            }
        }
        Ok(TableRetention {
            table: name,
            plan: config.limits(name).plan(&snapshot, now_ms, protected_ms),
        })
    }
}
