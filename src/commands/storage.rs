//! `ezscale storage`: what the tables hold, and housekeeping by hand.

use std::collections::BTreeMap;

use analytics::Analytics;
use anyhow::Context as _;
use billing::prune;
use clap::Subcommand;
use collector::CompactLimits;
use jiff::Timestamp;
use schemas::db::Database;
use schemas::retention::RecordRetention;
use schemas::table::RetentionLimits;
use schemas::tables::USAGE_5M;
use schemas::window::{HOUR_MS, instant_text};

use crate::config::Config;
use crate::options::{Data, now_ms};
use crate::output::Listing;

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    data: Data,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Merge the small files of past hours into sorted ones; `serve` and `collect` do so by themselves
    Compact {
        /// Also of hours that are not over or not quiet yet; what still arrives of them is merged later
        #[arg(long)]
        unfinished: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Remove files that no commit names
    Vacuum {
        /// Leave files that are younger: somebody may be writing or reading them
        #[arg(long, default_value_t = 3_600, value_name = "SECONDS")]
        grace_seconds: u64,
        #[command(flatten)]
        data: Data,
    },
    /// Remove what is beyond the limits of the [retention] section, from the tables and from the database's records; `serve`
    /// does so by itself, `collect` with the tables
    Retain {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let data = match &args.command {
        None => &args.data,
        Some(Command::Compact { data, .. } | Command::Vacuum { data, .. } | Command::Retain { data, .. }) => data,
    };
    let data = data.clone();
    let config = data.config()?;
    let analytics = Analytics::open(&config.open_storage()?)?;
    match args.command {
        None => list(&config, &analytics)?,
        Some(Command::Compact { unfinished, .. }) => {
            let tables = analytics.tables().to_vec();
            tokio::task::spawn_blocking(move || compact(&config, &tables, unfinished)).await??;
        }
        Some(Command::Vacuum { grace_seconds, .. }) => {
            let grace = std::time::Duration::from_secs(grace_seconds);
            let removed = tokio::task::spawn_blocking(move || analytics.vacuum(grace)).await??;
            let mut listing = Listing::new(&["table", "files removed"]).right(1);
            for (table, files) in removed {
                listing.row([table.to_owned(), files.to_string()]);
            }
            listing.print("no tables");
        }
        Some(Command::Retain { dry_run, .. }) => {
            // What is not counted yet must be counted before it may go.
            analytics.refresh_usage(|_| {}).await?;
            let records = config.retention.records;
            let (_, database) = data.open_database().await?;
            tokio::task::spawn_blocking(move || retain(&config, &analytics, dry_run)).await??;
            retain_records(&database, &records, dry_run).await?;
        }
    }
    Ok(())
}

fn list(config: &Config, analytics: &Analytics) -> anyhow::Result<()> {
    let columns = [
        "table",
        "files",
        "rows",
        "bytes",
        "bytes/row",
        "oldest",
        "newest",
        "kept",
    ];
    let mut listing = Listing::new(&columns).right(1).right(2).right(3).right(4);
    for table in analytics.storage(&config.retention)? {
        let per_row = table.size_bytes as f64 / table.rows.max(1) as f64;
        let at = |at_ms: Option<i64>| at_ms.map(instant_text).unwrap_or_default();
        listing.row([
            table.table.to_owned(),
            table.files.to_string(),
            table.rows.to_string(),
            table.size_bytes.to_string(),
            format!("{per_row:.1}"),
            at(table.oldest_ms),
            at(table.newest_ms),
            limits_text(table.limits),
        ]);
    }
    listing.print("no tables");
    Ok(())
}

fn limits_text(limits: RetentionLimits) -> String {
    match (limits.max_age_days, limits.max_bytes) {
        (None, None) => "all".to_owned(),
        (Some(days), None) => format!("{days} days"),
        (None, Some(bytes)) => format!("{bytes} bytes"),
        (Some(days), Some(bytes)) => format!("{days} days, {bytes} bytes"),
    }
}

fn compact(config: &Config, tables: &[schemas::table::Table], unfinished: bool) -> anyhow::Result<()> {
    let quiet_ms = i64::try_from(config.collector.compact_after_seconds * 1_000).unwrap_or(HOUR_MS);
    let limits = CompactLimits {
        // The hour that has just begun is over in less than this.
        quiet_ms: if unfinished { -HOUR_MS } else { quiet_ms },
        ..CompactLimits::default()
    };
    let columns = [
        "table",
        "files merged",
        "files written",
        "rows",
        "bytes before",
        "bytes after",
    ];
    let mut listing = Listing::new(&columns).right(1).right(2).right(3).right(4).right(5);
    // Usage is one file a day and sorted as it is written.
    for table in tables.iter().filter(|table| table.def().name != USAGE_5M.name) {
        let name = table.def().name;
        let (mut merged, mut written, mut rows, mut before, mut after) = (0, 0, 0, 0, 0);
        loop {
            let now_ms = Timestamp::now().as_millisecond();
            let done = collector::compact(table, now_ms, &limits).with_context(|| format!("compact {name}"))?;
            if done.files_removed == 0 {
                break;
            }
            merged += done.files_removed;
            written += 1;
            rows += done.rows;
            before += done.bytes_before;
            after += done.bytes_after;
        }
        listing.row([
            name.to_owned(),
            merged.to_string(),
            written.to_string(),
            rows.to_string(),
            before.to_string(),
            after.to_string(),
        ]);
    }
    listing.print("no tables");
    Ok(())
}

/// The same of the database's records.
async fn retain_records(database: &Database, keep: &RecordRetention, dry_run: bool) -> anyhow::Result<()> {
    let now_ms = now_ms(database).await?;
    let rows: Vec<(&str, String)> = if dry_run {
        let over = prune::preview(database, keep, now_ms).await?;
        over.into_iter().map(|(kind, rows)| (kind, rows.to_string())).collect()
    } else {
        let mut removed: BTreeMap<&str, u64> = prune::KINDS.iter().map(|kind| (*kind, 0)).collect();
        loop {
            let pruned = prune::prune(database, keep, now_ms).await?;
            for (kind, rows) in pruned.rows {
                *removed.entry(kind).or_default() += rows;
            }
            if !pruned.is_unfinished {
                break;
            }
        }
        removed
            .into_iter()
            .map(|(kind, rows)| (kind, rows.to_string()))
            .collect()
    };
    let mut listing = Listing::new(&["records", if dry_run { "to remove" } else { "removed" }]).right(1);
    for (kind, rows) in rows {
        listing.row([kind.to_owned(), rows]);
    }
    println!();
    listing.print("no records");
    Ok(())
}

fn retain(config: &Config, analytics: &Analytics, dry_run: bool) -> anyhow::Result<()> {
    let now_ms = Timestamp::now().as_millisecond();
    let done = if dry_run {
        analytics.plan_retention(&config.retention, now_ms)?
    } else {
        analytics.retain(&config.retention, now_ms)?
    };
    let said = if dry_run { "files to remove" } else { "files removed" };
    let columns = ["table", said, "rows", "bytes", "kept from", "bytes too many"];
    let mut listing = Listing::new(&columns).right(1).right(2).right(3).right(5);
    for retention in done {
        let plan = retention.plan;
        let kept_from = if plan.files.is_empty() {
            String::new()
        } else {
            instant_text(plan.cut_ms)
        };
        listing.row([
            retention.table.to_owned(),
            plan.files.len().to_string(),
            plan.rows.to_string(),
            plan.size_bytes.to_string(),
            kept_from,
            plan.excess_bytes.to_string(),
        ]);
    }
    listing.print("everything is kept: the configuration has no [retention] limits");
    Ok(())
}
