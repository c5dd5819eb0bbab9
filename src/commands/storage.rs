//! `ezscale storage`: what the tables hold, and housekeeping by hand.

use std::collections::BTreeMap;

use activity::act::Note;
use activity::job::history;
use analytics::Analytics;
use analytics::retention::TableStorage;
use anyhow::Context as _;
use billing::prune;
use clap::Subcommand;
use collector::CompactLimits;
use jiff::Timestamp;
use rust_decimal::Decimal;
use schemas::clock;
use schemas::db::Database;
use schemas::retention::RecordRetention;
use schemas::window::HOUR_MS;
use serde_json::json;
use tables::table::{FileEncoding, FileEntry, Table};

use super::audit;
use crate::config::Config;
use crate::jobs::JOB_RUNS;
use crate::options::{Data, check_order, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, at, bytes, number, text};
use crate::storage;

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    data: Data,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the stored tables with what they hold; so does `ezscale storage` alone
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a table
    Show {
        /// Its name, such as flows
        table: String,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// List the Parquet files that hold a table now, for other programs to read (docs/storage.md)
    Files {
        /// Name of the table, such as flows
        #[arg(long)]
        table: String,
        /// Only files with rows of this time or later (RFC 3339, or a day)
        #[arg(long, value_parser = crate::options::instant)]
        from: Option<Timestamp>,
        /// Only files with rows before this time (RFC 3339, or a day)
        #[arg(long, value_parser = crate::options::instant)]
        to: Option<Timestamp>,
        /// Only where each file lies, one on a line
        #[arg(long, conflicts_with = "format")]
        paths: bool,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
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
    /// Remove what is beyond the limits of `[retention]` in the configuration, from the tables and from the database's records;
    /// `serve` does so automatically, `collect` with the tables
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
        Some(
            Command::List { data, .. }
            | Command::Show { data, .. }
            | Command::Files { data, .. }
            | Command::Compact { data, .. }
            | Command::Vacuum { data, .. }
            | Command::Retain { data, .. },
        ) => data,
    };
    let data = data.clone();
    let config = data.config_with_tables()?;
    let analytics = Analytics::open(&config.open_storage()?)?;
    match args.command {
        None => list(&config, &analytics, args.format)?,
        Some(Command::List { format, .. }) => list(&config, &analytics, format)?,
        Some(Command::Show { table, format, .. }) => show(&config, &analytics, &table, format)?,
        Some(Command::Files {
            table,
            from,
            to,
            paths,
            format,
            ..
        }) => files(&analytics, &table, (from, to), (!paths).then_some(format))?,
        Some(Command::Compact { unfinished, .. }) => {
            let (_, database) = data.open_database().await?;
            let tables = analytics.tables().to_vec();
            let begins = Note::new("storage.compact", "storage").change(json!({"after": {"unfinished": unfinished}}));
            audit::in_steps(&database, now_ms(&database).await?, begins, async {
                let (merged, written) =
                    tokio::task::spawn_blocking(move || compact(&config, &tables, unfinished)).await??;
                Ok(((), json!({"files_merged": merged, "files_written": written})))
            })
            .await?;
        }
        Some(Command::Vacuum { grace_seconds, .. }) => {
            let grace = std::time::Duration::from_secs(grace_seconds);
            let (_, database) = data.open_database().await?;
            let change = json!({"after": {"grace_seconds": grace_seconds}});
            let begins = Note::new("storage.vacuum", "storage").change(change);
            let removed = audit::in_steps(&database, now_ms(&database).await?, begins, async {
                let removed = tokio::task::spawn_blocking(move || analytics.vacuum(grace)).await??;
                let files: usize = removed.iter().map(|(_, files)| files).sum();
                Ok((removed, json!({"files_removed": files})))
            })
            .await?;
            let mut listing = Listing::new([text("table"), number("files_removed")]);
            for (table, files) in removed {
                listing.row([table.into(), files.into()]);
            }
            listing.print(Format::Table, "no tables")?;
        }
        Some(Command::Retain { dry_run, .. }) => {
            // What is not counted yet must be counted before it may go.
            analytics.refresh_rollups(|_| {}).await?;
            let records = config.retention.records;
            let (_, database) = data.open_database().await?;
            let work = async {
                let files = tokio::task::spawn_blocking(move || retain(&config, &analytics, dry_run)).await??;
                let removed = retain_records(&database, &records, dry_run).await?;
                Ok::<_, anyhow::Error>(((), json!({"files_removed": files, "records_removed": removed})))
            };
            if dry_run {
                work.await.map(drop)?;
            } else {
                let begins = Note::new("storage.retain", "storage");
                audit::in_steps(&database, now_ms(&database).await?, begins, work).await?;
            }
        }
    }
    Ok(())
}

fn list(config: &Config, analytics: &Analytics, format: Format) -> anyhow::Result<()> {
    let mut listing = Listing::new([
        text("table"),
        number("files"),
        number("rows"),
        bytes("size_bytes"),
        number("row_bytes"),
        text("oldest_at"),
        text("newest_at"),
        number("max_age_days").or("all"),
        bytes("max_bytes").or("all").titled("max size"),
    ]);
    for table in analytics.storage(&config.retention)? {
        listing.row([
            table.table.into(),
            table.files.into(),
            table.rows.into(),
            table.size_bytes.into(),
            row_bytes(&table).into(),
            table.oldest_ms.map(at).into(),
            table.newest_ms.map(at).into(),
            table.limits.max_age_days.into(),
            table.limits.max_bytes.into(),
        ]);
    }
    listing.print(format, "no tables")
}

/// Bytes of a row, to a tenth.
fn row_bytes(table: &TableStorage) -> Decimal {
    let tenths = table.size_bytes.saturating_mul(10) / table.rows.max(1);
    Decimal::new(i64::try_from(tenths).unwrap_or(i64::MAX), 1)
}

fn show(config: &Config, analytics: &Analytics, name: &str, format: ShowFormat) -> anyhow::Result<()> {
    let tables = analytics.storage(&config.retention)?;
    let names: Vec<&str> = tables.iter().map(|table| table.table).collect();
    let found = tables.iter().find(|table| table.table == name);
    let table = found.with_context(|| format!("no table {name}: there are {}", names.join(", ")))?;
    Record::new()
        .field(text("table"), table.table)
        .field(number("files"), table.files)
        .field(number("rows"), table.rows)
        .field(bytes("size_bytes"), table.size_bytes)
        .field(number("row_bytes"), row_bytes(table))
        .field(text("oldest_at"), table.oldest_ms.map(at))
        .field(text("newest_at"), table.newest_ms.map(at))
        .field(number("max_age_days").or("all"), table.limits.max_age_days)
        .field(bytes("max_bytes").or("all").titled("max size"), table.limits.max_bytes)
        .print(format)
}

/// Lists the files of a table whose rows may be of a time.
fn files(
    analytics: &Analytics,
    name: &str,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    format: Option<Format>,
) -> anyhow::Result<()> {
    let from_ms = from.map_or(i64::MIN, Timestamp::as_millisecond);
    let to_ms = to.map_or(i64::MAX, Timestamp::as_millisecond);
    check_order(from_ms, to_ms)?;
    let tables = analytics.tables();
    let found = tables.iter().find(|table| table.def().name == name);
    let table = found.with_context(|| {
        let names: Vec<&str> = tables.iter().map(|table| table.def().name).collect();
        format!("no table {name}: there are {}", names.join(", "))
    })?;
    let snapshot = table.snapshot()?;
    let mut files: Vec<_> = snapshot.files_between(from_ms, to_ms).collect();
    files.sort_unstable_by_key(|file| (file.min_time_ms, &file.path));
    let Some(format) = format else {
        for file in files {
            say!("{}", place_of(table, file));
        }
        return Ok(());
    };
    let mut listing = Listing::new([
        text("file"),
        number("rows"),
        bytes("size_bytes"),
        text("oldest_at"),
        text("newest_at"),
        text("encoding"),
    ]);
    for file in files {
        listing.row([
            place_of(table, file).into(),
            file.rows.into(),
            file.size_bytes.into(),
            at(file.min_time_ms),
            at(file.max_time_ms),
            match file.encoding {
                FileEncoding::Open => "open",
                FileEncoding::Split => "split",
            }
            .into(),
        ]);
    }
    listing.print(format, "no files of that time")
}

/// The URL of a file, or its path from the root on, so that it means the same to whoever reads it.
fn place_of(table: &Table, file: &FileEntry) -> String {
    let location = table.location(&file.path);
    let whole = if table.storage().is_apart() {
        // As the configuration has it: an URL, or a path that begins at the root.
        None
    } else {
        std::path::absolute(&location).ok()
    };
    whole.unwrap_or(location).display().to_string()
}

/// Answers to how many files were merged, and into how many.
fn compact(config: &Config, tables: &[Table], unfinished: bool) -> anyhow::Result<(usize, u64)> {
    let quiet_ms = i64::try_from(config.collector.compact_after_seconds * 1_000).unwrap_or(HOUR_MS);
    let limits = CompactLimits {
        // The hour that has just begun is over in less than this.
        quiet_ms: if unfinished { -HOUR_MS } else { quiet_ms },
        older: true,
        ..CompactLimits::default()
    };
    let mut listing = Listing::new([
        text("table"),
        number("files_merged"),
        number("files_written"),
        number("rows"),
        bytes("bytes_before").titled("before"),
        bytes("bytes_after").titled("after"),
    ]);
    let (mut all_merged, mut all_written) = (0, 0);
    // Once, so that every table is judged by the same hours.
    let now_ms = clock::machine_now_ms();
    for table in tables {
        let name = table.def().name;
        let limits = if table.def().computed {
            storage::only_older(limits)
        } else {
            limits
        };
        let (mut merged, mut written, mut rows, mut before, mut after) = (0, 0u64, 0, 0, 0);
        loop {
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
        all_merged += merged;
        all_written += written;
        listing.row([
            name.into(),
            merged.into(),
            written.into(),
            rows.into(),
            before.into(),
            after.into(),
        ]);
    }
    listing.print(Format::Table, "no tables")?;
    Ok((all_merged, all_written))
}

/// The same of the database's records; answers to how many rows went, or would.
async fn retain_records(database: &Database, keep: &RecordRetention, dry_run: bool) -> anyhow::Result<u64> {
    let now_ms = now_ms(database).await?;
    // Runs of jobs have the machine's time.
    let (days, machine_ms) = (keep.job_runs_days, clock::machine_now_ms());
    let rows: Vec<(&str, u64)> = if dry_run {
        let mut over = prune::preview(database, keep, now_ms).await?;
        over.push((JOB_RUNS, history::count_over(database, days, machine_ms).await?));
        over.into_iter()
            .map(|(kind, rows)| (kind, u64::try_from(rows).unwrap_or(0)))
            .collect()
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
        loop {
            let runs = history::prune(database, days, machine_ms).await?;
            *removed.entry(JOB_RUNS).or_default() += runs;
            if runs == 0 {
                break;
            }
        }
        removed.into_iter().collect()
    };
    let mut listing = Listing::new([text("records"), number(if dry_run { "to_remove" } else { "removed" })]);
    let mut total = 0u64;
    for (kind, rows) in rows {
        total += rows;
        listing.row([kind.into(), rows.into()]);
    }
    say!();
    listing.print(Format::Table, "no records")?;
    Ok(total)
}

/// Removes the files beyond the limits, or says which those are; answers to how many they are.
fn retain(config: &Config, analytics: &Analytics, dry_run: bool) -> anyhow::Result<usize> {
    let now_ms = clock::machine_now_ms();
    let done = if dry_run {
        analytics.plan_retention(&config.retention, now_ms)?
    } else {
        analytics.retain(&config.retention, now_ms)?
    };
    let said = if dry_run { "files_to_remove" } else { "files_removed" };
    let mut listing = Listing::new([
        text("table"),
        number(said),
        number("rows"),
        bytes("size_bytes"),
        text("kept_from"),
        bytes("excess_bytes"),
    ]);
    let mut files = 0;
    for retention in done {
        let plan = retention.plan;
        files += plan.files.len();
        listing.row([
            retention.table.into(),
            plan.files.len().into(),
            plan.rows.into(),
            plan.size_bytes.into(),
            Some(plan.cut_ms).filter(|_| !plan.files.is_empty()).map(at).into(),
            plan.excess_bytes.into(),
        ]);
    }
    listing.print(
        Format::Table,
        "everything is kept: the configuration has no [retention] limits",
    )?;
    Ok(files)
}
