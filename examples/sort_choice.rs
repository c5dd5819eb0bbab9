//! Which order and which row groups compaction should write: size, time to compact, time of typical queries.
//!
//! ```text
//! cargo run --release --example sort_choice -- [flows]        default 6,000,000; needs 1 GB of temporary disk
//! ```
//!
//! One hour of the demo's fleet (150 services at 3 sites, their routers and switches), in segments of 100,000 flows as
//! they would arrive; each choice compacts the same segments. docs/decisions/005-storage.md holds the result.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use analytics::Analytics;
use collector::simulate::fleet::Fleet;
use collector::{CompactLimits, compact};
use schemas::assignment::Assignments;
use schemas::metering::MeteringConfig;
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};
use tables::column::TableDef;
use tables::flow::{FLOWS, Flow, flows_to_batch};
use tables::metering::Enricher;
use tables::table::{Commit, FileEncoding, FileEntry, Table, write_parquet};

const START_MS: i64 = 1_790_000_000_000 / HOUR_MS * HOUR_MS;
const SEGMENT_FLOWS: usize = 100_000;
/// About so many flows of the fleet in an hour, at this density.
const FLOWS_PER_HOUR: usize = 650_000;
const DENSITY: u32 = 2_700;
const QUERY_RUNS: usize = 3;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let flows = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 6_000_000,
    };
    let source = tempfile_dir("source")?;
    let segments = generate(&source, flows)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (count, bytes) = sums(&segments);
    println!(
        "| order | row group | files | bytes/flow | compact s | Mflows/s | one service ms | its top peers ms | all services ms |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let per_flow = |bytes: u64, rows: u64| bytes as f64 / rows as f64;
    let times = query(&runtime, &source)?;
    println!(
        "| segments as they arrive | | {} | {:.2} | | | {} |",
        segments.len(),
        per_flow(bytes, count),
        times
    );
    let orders: [(&str, &'static [&'static str]); 3] = [
        (
            "dst_service, src_service, received_at",
            &["dst_service", "src_service", "received_at"],
        ),
        ("received_at", &["received_at"]),
        ("exporter, received_at", &["exporter", "received_at"]),
    ];
    for (name, sort) in orders {
        for row_group_rows in [1 << 20, 1 << 17] {
            let def: &'static TableDef = Box::leak(Box::new(TableDef { sort, ..FLOWS }));
            let dir = tempfile_dir("choice")?;
            copy(&source.join("tables/flows"), &dir.join("tables/flows"))?;
            let table = Table::open(&dir, def)?;
            let limits = CompactLimits {
                row_group_rows,
                ..CompactLimits::default()
            };
            let started = Instant::now();
            while compact(&table, START_MS + 3 * HOUR_MS, &limits)?.files_removed > 0 {}
            let seconds = started.elapsed().as_secs_f64();
            let snapshot = table.snapshot()?;
            let files: Vec<FileEntry> = snapshot.files.values().cloned().collect();
            let (rows, bytes) = sums(&files);
            assert_eq!(rows, count);
            println!(
                "| {name} | {row_group_rows} | {} | {:.2} | {seconds:.1} | {:.2} | {} |",
                files.len(),
                per_flow(bytes, rows),
                rows as f64 / seconds / 1e6,
                query(&runtime, &dir)?
            );
            std::fs::remove_dir_all(&dir)?;
        }
    }
    println!("peak memory {} kB", peak_kib());
    std::fs::remove_dir_all(&source)?;
    Ok(())
}

fn tempfile_dir(name: &str) -> Result<std::path::PathBuf, Error> {
    let dir = std::env::temp_dir().join(format!("ezscale-sort-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn sums(files: &[FileEntry]) -> (u64, u64) {
    let rows = files.iter().map(|file| file.rows).sum();
    (rows, files.iter().map(|file| file.size_bytes).sum())
}

/// Stores an hour of flows in segments, in the order of their ends.
fn generate(dir: &Path, flows: usize) -> Result<Vec<FileEntry>, Error> {
    let fleet = Fleet::new(7);
    let mut rows = Vec::new();
    let assignments = fleet.services.iter().enumerate().flat_map(|(index, service)| {
        let service_number = index as u32 + 1;
        service
            .prefixes
            .iter()
            .map(move |prefix| schemas::assignment::Assignment {
                target: schemas::assignment::Target::Prefix(*prefix),
                service: service_number,
                valid_from_ms: 0,
                valid_to_ms: None,
            })
    });
    let metering = MeteringConfig {
        own_networks: Vec::new(),
        exporters: fleet.exporters.iter().map(|exporter| exporter.config.clone()).collect(),
        ..MeteringConfig::default()
    };
    let enricher = Enricher::new(&metering, Arc::new(Assignments::new(assignments)?));
    // The fleet has no more than this to say in an hour: more flows are those of other days in the same hour.
    let days = flows.div_ceil(FLOWS_PER_HOUR) as i64;
    for day in 0..days {
        let first = rows.len();
        for window in 0..12 {
            let from_ms = START_MS + day * DAY_MS + window * WINDOW_MS;
            fleet.flows(from_ms, from_ms + WINDOW_MS, DENSITY, &mut rows);
        }
        for row in &mut rows[first..] {
            row.start_at_ms -= day * DAY_MS;
            row.end_at_ms -= day * DAY_MS;
        }
    }
    for row in &mut rows {
        // The exporter's cache holds them back for a while.
        row.received_at_ms = row.end_at_ms + (row.bytes % 15_000) as i64;
        enricher.enrich(row);
    }
    rows.sort_by_key(|row: &Flow| row.received_at_ms);
    let table = Table::open(dir, &FLOWS)?;
    let mut files = Vec::new();
    for (number, segment) in rows.chunks(SEGMENT_FLOWS).enumerate() {
        let path = format!("2026-09-21/{number:06}.parquet");
        let batches: Vec<_> = segment.chunks(1 << 15).map(flows_to_batch).collect();
        let file = FileEntry {
            size_bytes: write_parquet(&table, &path, &batches)?,
            path,
            rows: segment.len() as u64,
            min_time_ms: START_MS,
            max_time_ms: START_MS + HOUR_MS - 1,
            sequence: 0,
            encoding: FileEncoding::Open,
        };
        files.push(file.clone());
        table.commit(Commit {
            add: vec![file],
            ..Commit::default()
        })?;
    }
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The shortest times in milliseconds: one service's traffic by minute, its peers, every service's volume.
fn query(runtime: &tokio::runtime::Runtime, dir: &Path) -> Result<String, Error> {
    let analytics = Analytics::open(dir)?;
    let queries = [
        "SELECT date_trunc('minute', end_at) AS minute, sum(bytes * sampling_rate) FROM flows
         WHERE src_service = 40 OR dst_service = 40 GROUP BY 1",
        "SELECT src_addr, sum(bytes * sampling_rate) FROM flows WHERE dst_service = 40 GROUP BY 1 ORDER BY 2 DESC LIMIT 10",
        "SELECT dst_service, sum(bytes * sampling_rate) FROM flows GROUP BY 1",
    ];
    let mut times = Vec::new();
    for query in queries {
        let mut best = f64::INFINITY;
        for _ in 0..QUERY_RUNS {
            let started = Instant::now();
            runtime.block_on(analytics.console().ask(query))?;
            best = best.min(started.elapsed().as_secs_f64() * 1e3);
        }
        times.push(format!("{best:.0}"));
    }
    Ok(times.join(" | "))
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
