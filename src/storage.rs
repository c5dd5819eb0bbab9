//! Limits of the stored tables at work, and what is told about them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use analytics::Analytics;
use anyhow::Context as _;
use collector::CompactLimits;
use schemas::window::instant_text;
use tables::table::RetentionConfig;
use tracing::{info, warn};

/// What retention has removed since the process started, by table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed(Arc<Mutex<BTreeMap<&'static str, Amount>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    files: u64,
    rows: u64,
    bytes: u64,
}

/// Of tables whose jobs write sorted files themselves only what an older version wrote is written anew.
pub(crate) fn only_older(limits: CompactLimits) -> CompactLimits {
    CompactLimits {
        files_min: usize::MAX,
        older: true,
        ..limits
    }
}

/// Writes one output of what an older version wrote to each of the tables that the collector does not keep house of.
pub(crate) fn rewrite_older(analytics: &Analytics) -> anyhow::Result<()> {
    let now_ms = schemas::clock::machine_now_ms();
    for table in analytics.tables() {
        let name = table.def().name;
        if table.def().computed {
            let done = collector::compact(table, now_ms, &only_older(CompactLimits::default()));
            let done = done.with_context(|| format!("write older files of {name} anew"))?;
            if done.files_removed > 0 {
                info!(table = name, rows = done.rows, "an older file was written anew");
            }
        }
    }
    Ok(())
}

/// Removes what is beyond the limits and files that nobody names any more; says what it did, and answers how many files that
/// were. Blocks meanwhile.
pub(crate) fn apply_limits(analytics: &Analytics, config: &RetentionConfig, removed: &Removed) -> anyhow::Result<u64> {
    let mut total = 0;
    let now_ms = schemas::clock::machine_now_ms();
    for retention in analytics.retain(config, now_ms).context("apply retention")? {
        let (table, plan) = (retention.table, retention.plan);
        if plan.excess_bytes > 0 {
            warn!(
                table,
                excess_bytes = plan.excess_bytes,
                "table is larger than retention allows, but what it holds may still be billed: see retention.allow_unbilled_deletion"
            );
        }
        if plan.files.is_empty() {
            continue;
        }
        let files = plan.files.len() as u64;
        total += files;
        let kept_from = instant_text(plan.cut_ms);
        info!(
            table,
            files,
            rows = plan.rows,
            bytes = plan.size_bytes,
            kept_from,
            "removed by retention"
        );
        let mut all = removed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let amount = all.entry(table).or_default();
        amount.files += files;
        amount.rows += plan.rows;
        amount.bytes += plan.size_bytes;
    }
    let unnamed = analytics
        .vacuum(collector::pipeline::VACUUM_GRACE)
        .context("remove files that nobody names")?;
    Ok(total + unnamed.iter().map(|(_, files)| *files as u64).sum::<u64>())
}

/// The tables in the Prometheus text format.
pub(crate) fn metrics(analytics: &Analytics, removed: &Removed) -> String {
    let tables = match analytics.storage(&RetentionConfig::default()) {
        Ok(tables) => tables,
        Err(error) => {
            warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "the tables cannot be measured"
            );
            return String::new();
        }
    };
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, values: Vec<(&str, String)>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (table, value) in values {
            let _ = writeln!(text, "{name}{{table=\"{table}\"}} {value}");
        }
    };
    let now = |value: fn(&analytics::retention::TableStorage) -> Option<String>| {
        let values = tables.iter().filter_map(|table| Some((table.table, value(table)?)));
        values.collect::<Vec<_>>()
    };
    family(
        "ezscale_table_files",
        "gauge",
        "Files of the table.",
        now(|table| Some(table.files.to_string())),
    );
    family(
        "ezscale_table_rows",
        "gauge",
        "Rows of the table.",
        now(|table| Some(table.rows.to_string())),
    );
    family(
        "ezscale_table_bytes",
        "gauge",
        "Size of the table's files.",
        now(|table| Some(table.size_bytes.to_string())),
    );
    family(
        "ezscale_table_oldest_timestamp_seconds",
        "gauge",
        "Smallest time in the table.",
        now(|table| table.oldest_ms.map(|at_ms| (at_ms / 1_000).to_string())),
    );
    let removed = removed.0.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = |value: fn(&Amount) -> u64| {
        let amount = |table: &'static str| removed.get(table).copied().unwrap_or_default();
        let values = tables
            .iter()
            .map(|table| (table.table, value(&amount(table.table)).to_string()));
        values.collect::<Vec<_>>()
    };
    family(
        "ezscale_retention_removed_files_total",
        "counter",
        "Files removed by retention.",
        gone(|amount| amount.files),
    );
    family(
        "ezscale_retention_removed_rows_total",
        "counter",
        "Rows removed by retention.",
        gone(|amount| amount.rows),
    );
    family(
        "ezscale_retention_removed_bytes_total",
        "counter",
        "Bytes removed by retention.",
        gone(|amount| amount.bytes),
    );
    text
}
