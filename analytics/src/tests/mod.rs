//! Whole tables: written as the collector writes them, asked as billing and the portal ask.

mod billing;
mod correction;
mod marks;
mod older;
mod questions;
mod sql;
mod truth;
mod usage;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::RecordBatch;
use schemas::address::Address;
use schemas::window::{WINDOW_MS, windows};
use tables::collection::{CollectionRow, collection_to_batch};
use tables::definitions::COLLECTION_5M;
use tables::flow::{FLOWS, Flow, Metered, flows_to_batch};
use tables::table::{Commit, FileEncoding, FileEntry, Table, write_parquet};

use crate::{Analytics, MeteredService, PeriodQuery, PeriodUsage, UsageMode};

/// 2026-10-01T00:00:00Z, a UTC midnight.
const T0: i64 = 1_790_812_800_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// A flow that service `service` received: unsampled, one window long, ending after a minute.
fn received(service: u32, start_at_ms: i64, bytes: u64) -> Flow {
    Flow {
        received_at_ms: start_at_ms + 61_000,
        start_at_ms,
        end_at_ms: start_at_ms + 60_000,
        exporter: address("198.51.100.1"),
        protocol_version: 10,
        sampling_rate: 1,
        in_if: 1,
        out_if: 2,
        metered: Metered::In,
        src_addr: address("203.0.113.1"),
        dst_addr: address("192.0.2.1"),
        ip_protocol: 6,
        src_as: 64500,
        bytes,
        packets: bytes.div_ceil(1500),
        dst_service: service,
        ..Flow::default()
    }
}

/// A flow that service `service` sent.
fn sent(service: u32, start_at_ms: i64, bytes: u64) -> Flow {
    let flow = received(service, start_at_ms, bytes);
    Flow {
        metered: Metered::Out,
        src_addr: flow.dst_addr,
        dst_addr: flow.src_addr,
        in_if: flow.out_if,
        out_if: flow.in_if,
        src_as: 0,
        dst_as: 64500,
        src_service: service,
        dst_service: 0,
        ..flow
    }
}

/// A data directory with tables to fill.
struct Fixture {
    dir: tempfile::TempDir,
    analytics: Analytics,
    files: AtomicU32,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let analytics = Analytics::open(dir.path()).unwrap();
        Fixture {
            dir,
            analytics,
            files: AtomicU32::new(0),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn flows(&self) -> Table {
        Table::open(self.path(), &FLOWS).unwrap()
    }

    /// One more file of flows.
    fn add_flows(&self, flows: &[Flow]) -> FileEntry {
        let entry = self.write_flows(flows);
        let commit = Commit {
            add: vec![entry.clone()],
            ..Commit::default()
        };
        self.flows().commit(commit).unwrap();
        entry
    }

    /// A file of flows that no commit names yet.
    fn write_flows(&self, flows: &[Flow]) -> FileEntry {
        let times = || {
            flows
                .iter()
                .flat_map(|f| [f.received_at_ms, f.start_at_ms, f.end_at_ms])
        };
        let (min_time_ms, max_time_ms) = (times().min().unwrap(), times().max().unwrap());
        self.write(&self.flows(), &flows_to_batch(flows), min_time_ms, max_time_ms)
    }

    fn write(&self, table: &Table, batch: &RecordBatch, min_time_ms: i64, max_time_ms: i64) -> FileEntry {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = format!("2026-10-01/{number}.parquet");
        FileEntry {
            size_bytes: write_parquet(table, &path, [batch]).unwrap(),
            path,
            rows: batch.num_rows() as u64,
            min_time_ms,
            max_time_ms,
            sequence: 0,
            encoding: FileEncoding::Open,
        }
    }

    /// The exporter sent datagrams in every window of `[from_ms, to_ms)`.
    fn hear(&self, exporter: &str, from_ms: i64, to_ms: i64) {
        let count = |window_start_ms, counter, value| CollectionRow {
            window_start_ms,
            exporter: address(exporter),
            observation_domain: 0,
            protocol_version: 10,
            counter,
            value,
        };
        let mut rows: Vec<CollectionRow<'_>> = windows(from_ms, to_ms)
            .map(|window| count(window.start_ms(), "datagrams", 7))
            .collect();
        // Beside datagrams there are other counters, and counts of zero, which say nothing about being heard.
        rows.push(count(from_ms - WINDOW_MS, "templates", 1));
        rows.push(count(from_ms - 2 * WINDOW_MS, "datagrams", 0));
        self.collect(&rows);
    }

    /// One more file of what the collector counted.
    fn collect(&self, rows: &[CollectionRow<'_>]) {
        let starts = || rows.iter().map(|row| row.window_start_ms);
        let (min_ms, max_ms) = (starts().min().unwrap(), starts().max().unwrap());
        let table = Table::open(self.path(), &COLLECTION_5M).unwrap();
        let entry = self.write(&table, &collection_to_batch(rows), min_ms, max_ms);
        let commit = Commit {
            add: vec![entry],
            ..Commit::default()
        };
        table.commit(commit).unwrap();
    }

    /// What one service used in a period.
    async fn period_usage(
        &self,
        service: &MeteredService,
        from_ms: i64,
        to_ms: i64,
        mode: UsageMode,
        now_ms: i64,
    ) -> PeriodUsage {
        let query = PeriodQuery {
            service: service.clone(),
            from_ms,
            to_ms,
            mode,
            excluded: Vec::new(),
        };
        let mut used = self.analytics.period_usage(&[query], now_ms).await.unwrap();
        used.pop().unwrap()
    }

    async fn refresh(&self) -> crate::usage::UsageRefresh {
        self.analytics.refresh_rollups(|_| ()).await.unwrap()
    }

    /// The result of a query as JSON.
    async fn json(&self, query: &str) -> serde_json::Value {
        let console = self.analytics.console();
        let answer = console
            .ask(query)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let mut text = Vec::new();
        answer.write_json(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}
