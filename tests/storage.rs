//! Where files lie makes no difference: S3 answers as the local disk does, a storage that goes away loses nothing, a lost
//! machine is found again, and what retention removes is what it said.
//!
//! Each flow carries its number as its source address, so that what is missing or doubled has a name.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use analytics::Analytics;
use collector::{CompactLimits, compact};
use jiff::{Timestamp, ToSpan as _};
use schemas::window::HOUR_MS;
use tables::flow::{FLOWS, Flow, flows_to_batch};
use tables::table::{Commit, FileEncoding, FileEntry, RetentionConfig, Table, write_parquet};

use crate::support::clock;
use crate::support::ezscale::{DataDir, Start};
use crate::support::net::UdpSocketState;
use crate::support::pcap::PcapWriter;
use crate::support::s3::{self, S3Server};
use crate::support::wait::wait_until;

const EXPORTER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 40_000);
const COLLECTOR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 2055);
const FLOWS_PER_DATAGRAM: u32 = 30;
const METERED: &str = "own_networks = ['198.51.100.0/24']\n";

fn data_with_config(config: &str) -> DataDir {
    let data = DataDir::new();
    std::fs::create_dir_all(data.path()).expect("the data directory can be made");
    // In the data directory, where every command finds it.
    std::fs::write(data.path().join("ezscale.toml"), config).expect("it is writable");
    data
}

/// A datagram of 30 flows from 10.0.0.0 + number to 198.51.100.x (Cisco's NetFlow export datagram format, version 5).
fn netflow_v5(first: u32, at: Timestamp) -> Vec<u8> {
    const UPTIME_MS: u32 = 3_600_000;
    let mut datagram = Vec::new();
    let put16 = |datagram: &mut Vec<u8>, value: u16| datagram.extend(value.to_be_bytes());
    let put32 = |datagram: &mut Vec<u8>, value: u32| datagram.extend(value.to_be_bytes());
    put16(&mut datagram, 5);
    put16(&mut datagram, FLOWS_PER_DATAGRAM as u16);
    put32(&mut datagram, UPTIME_MS);
    put32(
        &mut datagram,
        u32::try_from(at.as_second()).expect("a time of this century"),
    );
    put32(&mut datagram, 0);
    put32(&mut datagram, first);
    put16(&mut datagram, 0);
    put16(&mut datagram, 1); // one packet in one
    for flow in first..first + FLOWS_PER_DATAGRAM {
        put32(&mut datagram, Ipv4Addr::new(10, 0, 0, 0).to_bits() + flow);
        put32(&mut datagram, Ipv4Addr::new(198, 51, 100, 0).to_bits() + flow % 256);
        put32(&mut datagram, 0);
        put16(&mut datagram, 1);
        put16(&mut datagram, 2);
        put32(&mut datagram, 1 + flow % 7);
        put32(&mut datagram, 1_000 + flow % 9_973);
        put32(&mut datagram, UPTIME_MS - 400_000);
        put32(&mut datagram, UPTIME_MS);
        put16(&mut datagram, 443);
        put16(&mut datagram, 50_000);
        datagram.extend([0, 0, 6, 0]);
        datagram.extend([0; 8]);
    }
    datagram
}

/// A capture of `datagrams` datagrams, spread over 50 minutes from `from` on.
fn capture(data: &DataDir, name: &str, first: u32, datagrams: u32, from: Timestamp) -> PathBuf {
    let path = data.scratch().join(name);
    let mut writer = PcapWriter::create(&path);
    for index in 0..datagrams {
        let at = from + (i64::from(index) * 3_000 / i64::from(datagrams)).seconds();
        let payload = netflow_v5(first + index * FLOWS_PER_DATAGRAM, at);
        writer.udp(at, EXPORTER, COLLECTOR, &payload);
    }
    writer.finish();
    path
}

/// The start of an hour so many days ago.
fn days_ago(days: i64) -> Timestamp {
    let hour = (clock::began() - (24 * days).hours())
        .as_millisecond()
        .div_euclid(HOUR_MS);
    Timestamp::from_millisecond(hour * HOUR_MS).expect("a time of this century")
}

/// Everything that the tables hold, in an order that does not depend on files.
fn answers(data: &DataDir) -> Vec<String> {
    let from = days_ago(100).to_string();
    let of_flows = "SELECT * FROM flows ORDER BY src_addr, received_at";
    let of_usage = "SELECT * FROM usage_5m ORDER BY window_start, service";
    let of_counts =
        "SELECT exporter, window_start, counter, sum(value) AS n FROM collection_5m GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
    vec![
        data.run(&["query", of_flows, "--format", "csv"]),
        data.run(&["query", of_usage, "--format", "csv"]),
        data.run(&["query", of_counts, "--format", "csv"]),
        data.run(&[
            "usage",
            "--format",
            "json",
            "--from",
            &from,
            "--to",
            &days_ago(1).to_string(),
        ]),
    ]
}

/// Copies SQLite's database as a backup does while no process has it open: what is committed may still be in its
/// write-ahead log, and half of it copied back into the main file, so that neither file is anything without the other.
fn restore_database(from: &DataDir, to: &DataDir) {
    for name in ["ezscale.db", "ezscale.db-wal", "secrets.key"] {
        let file = from.path().join(name);
        if file.exists() {
            std::fs::copy(file, to.path().join(name)).expect("the database can be copied");
        }
    }
}

fn assert_same(one: &[String], other: &[String], what: &str) {
    for (one, other) in one.iter().zip(other) {
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert!(one == other, "{what}: first difference {differs:?}");
    }
}

fn add_service(data: &DataDir) {
    let customer = data.add(
        &["customer", "add", "--name", "Example", "--email", "billing@example.net"],
        "cus_",
    );
    let service = data.add(&["service", "add", "--name", "server", "--customer", &customer], "svc_");
    let assign = [
        "service",
        "assign",
        &service,
        "--prefix",
        "198.51.100.0/25",
        "--from",
        "2020-01-01T00:00:00Z",
    ];
    data.run(&assign);
}

#[test]
fn s3_answers_as_the_local_disk_does() {
    let server = S3Server::start();
    let local = data_with_config(METERED);
    let remote = data_with_config(&format!("{METERED}{}", server.config()));
    let captures = [
        capture(&local, "a.pcap", 0, 400, days_ago(2)),
        capture(&local, "b.pcap", 12_000, 400, days_ago(2)),
    ];
    for data in [&local, &remote] {
        add_service(data);
        for capture in &captures {
            data.run(&["replay", &capture.display().to_string()]);
        }
    }
    let expected = answers(&local);
    assert_eq!(expected[0].lines().count(), 24_000 + 1, "every flow is stored");
    assert!(expected[3].contains("\"billed_bytes\":") && !expected[3].contains("\"billed_bytes\":0,"));
    assert_same(&answers(&remote), &expected, "S3 and local disk");

    // The same capture again changes nothing; merged and sorted files say the same.
    remote.run(&["replay", &captures[0].display().to_string()]);
    for data in [&local, &remote] {
        let said = data.run(&["storage", "compact"]);
        let flows = said
            .lines()
            .find(|line| line.trim_start().starts_with("flows"))
            .expect("a line for flows");
        let cells: Vec<&str> = flows.split_whitespace().collect();
        assert_eq!(cells[1..4], ["2", "1", "24000"], "{said}");
        assert_same(&answers(data), &expected, "after compaction");
    }
    let count = |said: &str| {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with("flows"))
            .expect("a line for flows");
        line.split_whitespace().nth(1).map(str::to_owned)
    };
    assert_eq!(
        server.objects("flows").len(),
        3 + 1,
        "two inputs, one output, the manifest's copy"
    );
    let vacuumed = remote.run(&["storage", "vacuum", "--grace-seconds", "0"]);
    assert_eq!(count(&vacuumed).as_deref(), Some("2"), "{vacuumed}");
    assert_eq!(server.objects("flows").len(), 1 + 1);
    assert_same(&answers(&remote), &expected, "after the vacuum");

    // Files are there and not here, and the key is nowhere.
    let here = remote.path().join("tables/flows");
    let names: BTreeSet<String> = std::fs::read_dir(&here)
        .expect("the manifest is here")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["COPY.lock", "LOCK", "MANIFEST"]);
    let shown = remote.run(&["config", "show"]);
    assert!(
        shown.contains("s3://flows/site/nyc1") && !shown.contains(s3::SECRET_KEY),
        "{shown}"
    );

    // The machine is lost: another one finds the tables by their URL alone. Its database has its own backup.
    let found = data_with_config(&format!("{METERED}{}", server.config()));
    restore_database(&remote, &found);
    assert_same(&answers(&found), &expected, "restored from the manifests' copies");
    found.run(&["replay", &captures[1].display().to_string()]);
    assert_same(&answers(&found), &expected, "what was stored before is known to be");

    // The old one was not lost: it must not remove what the new one has written.
    let refused = remote
        .command(&["storage", "vacuum", "--grace-seconds", "0"])
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("belongs to another data folder"),
        "{said}"
    );

    // And a data directory does not look for its files elsewhere because a setting is missing.
    std::fs::write(remote.path().join("ezscale.toml"), METERED).expect("it is writable");
    let lost = remote
        .command(&["query", "SELECT 1"])
        .output()
        .expect("the binary runs");
    assert!(!lost.status.success());
    let said = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert!(said.contains("set storage.url back"), "{said}");
}

#[test]
fn f1_a_storage_that_goes_away_loses_nothing() {
    let mut server = S3Server::start();
    let config = format!("{}\n[collector]\nsegment_seconds = 1\n", server.config());
    let data = data_with_config(&config);
    let collector = Start::new("collect").netflow("127.0.0.1:0").on(&data);
    let address = collector.netflow[0];
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port on the loopback");
    let mut next = 0;
    let mut send = |datagrams: u32| {
        for _ in 0..datagrams {
            let datagram = netflow_v5(next, clock::running());
            socket
                .send_to(&datagram, address)
                .expect("the loopback takes a datagram");
            next += FLOWS_PER_DATAGRAM;
            std::thread::park_timeout(Duration::from_millis(2));
        }
        next
    };
    let stored = || {
        let rows = data.query_numbers(
            "SELECT count(*) AS n, count(DISTINCT src_addr) AS flows FROM flows",
            ["n", "flows"],
        );
        assert_eq!(rows[0], rows[1], "no flow is stored twice");
        rows[0]
    };
    let limit = Duration::from_secs(60);
    let sent = send(200);
    wait_until("the first flows to be stored", limit, || stored() == u64::from(sent));

    for _ in 0..2 {
        server.stop();
        let sent = send(300);
        wait_until("the collector to say that it cannot store", limit, || {
            collector
                .stderr()
                .contains("it stays in the journal and is tried again")
        });
        wait_until("the socket to be empty", limit, || {
            UdpSocketState::here(address.port()).queued_bytes == 0
        });
        wait_until("the datagrams to be in the journal", limit, || {
            data.journal_bytes() > 300 * 1_464
        });
        server.resume();
        wait_until("everything to be stored", limit, || stored() == u64::from(sent));
    }
    let sent = send(100);
    wait_until("the socket to be empty", limit, || {
        UdpSocketState::here(address.port()).queued_bytes == 0
    });
    collector.terminate();
    assert_eq!(stored(), u64::from(sent));
}

#[test]
fn retention_removes_what_it_says_and_usage_stays() {
    let data = data_with_config(&format!("{METERED}[retention]\nflows = {{ max_age_days = 50 }}\n"));
    add_service(&data);
    let captures = [
        capture(&data, "old.pcap", 0, 100, days_ago(60)),
        capture(&data, "new.pcap", 3_000, 100, days_ago(3)),
        capture(&data, "late.pcap", 6_000, 100, days_ago(60)),
    ];
    for capture in &captures[..2] {
        data.run(&["replay", &capture.display().to_string()]);
    }
    let usage = || answers(&data).split_off(1);
    let before = usage();
    let rows = || data.query_numbers("SELECT count(*) AS n FROM flows", ["n"])[0];
    let cells = |said: &str| -> Vec<String> {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with("flows"))
            .expect("a line for flows");
        line.split_whitespace().map(str::to_owned).collect()
    };
    let said = data.run(&["storage", "retain", "--dry-run"]);
    assert_eq!(cells(&said)[1..3], ["1", "3000"], "{said}");
    assert_eq!(rows(), 6_000, "a dry run removes nothing");
    let said = data.run(&["storage", "retain"]);
    assert_eq!(cells(&said)[1..3], ["1", "3000"], "{said}");
    assert_eq!(rows(), 3_000);
    assert_same(&usage(), &before, "usage after its flows are gone");

    // A late flow of a window whose other flows are gone: computing the window from it alone would lose them.
    data.run(&["replay", &captures[2].display().to_string()]);
    assert_eq!(rows(), 6_000);
    assert_same(&usage()[..1], &before[..1], "usage of windows whose flows are gone");

    let listed = cells(&data.run(&["storage"]));
    assert_eq!(listed[1..3], ["2", "6000"], "{listed:?}");
    let wrong = data.scratch().join("wrong.toml");
    std::fs::write(&wrong, "[retention]\nflows = { max_age_days = 30 }\n").expect("writable");
    let refused = data
        .command(&["query", "SELECT 1", "--config", &wrong.display().to_string()])
        .output()
        .expect("the binary runs");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("allow_unbilled_deletion"));
}

/// Readers count each flow once while hours are merged and limits take old ones away: a snapshot is before or after.
#[test]
fn f1_readers_see_each_flow_once_while_files_are_merged_and_removed() {
    const HOURS: i64 = 12;
    const FILES: i64 = 8;
    const ROWS: i64 = 200;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let table = Table::open(dir.path(), &FLOWS).expect("the table can be made");
    let old_ms = days_ago(90).as_millisecond();
    for hour in 0..HOURS {
        for file in 0..FILES {
            let at_ms = old_ms + hour * HOUR_MS;
            let flow = |row| Flow {
                received_at_ms: at_ms + row,
                start_at_ms: at_ms + row,
                end_at_ms: at_ms + row,
                // A number for each flow; the hour is what tells which may be gone.
                bytes: ((hour * FILES + file) * ROWS + row) as u64,
                in_if: hour as u32,
                dst_service: (row % 7) as u32,
                ..Flow::default()
            };
            let rows: Vec<Flow> = (0..ROWS).map(flow).collect();
            let path = format!("2026-01-01/{hour}-{file}.parquet");
            let size_bytes = write_parquet(&table, &path, [flows_to_batch(&rows)]).expect("written");
            let entry = FileEntry {
                path,
                rows: ROWS as u64,
                size_bytes,
                min_time_ms: at_ms,
                max_time_ms: at_ms + ROWS - 1,
                sequence: 0,
                encoding: FileEncoding::Open,
            };
            let commit = Commit {
                add: vec![entry],
                ..Commit::default()
            };
            assert!(table.commit(commit).expect("committed"));
        }
    }

    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let analytics = Analytics::open(dir.path()).expect("the tables can be opened");
    runtime
        .block_on(analytics.refresh_rollups(|_| {}))
        .expect("usage can be computed");
    let is_over = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    let per_hour = (FILES * ROWS) as u64;
    let read = || {
        let sql =
            "SELECT in_if, count(*) AS n, count(DISTINCT bytes) AS flows FROM flows GROUP BY in_if ORDER BY in_if";
        let answer = runtime.block_on(analytics.console().ask(sql)).expect("the query runs");
        let mut json = Vec::new();
        answer.write_json(&mut json).expect("rows as JSON");
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("JSON");
        for row in &rows {
            assert_eq!(
                (row["n"].as_u64(), row["flows"].as_u64()),
                (Some(per_hour), Some(per_hour)),
                "{row}"
            );
        }
        let hours: Vec<u64> = rows.iter().filter_map(|row| row["in_if"].as_u64()).collect();
        let first = HOURS as u64 - hours.len() as u64;
        assert_eq!(hours, (first..HOURS as u64).collect::<Vec<_>>(), "the oldest go first");
        reads.fetch_add(1, Ordering::Relaxed);
        hours.len()
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Acquire) {
                        read();
                    }
                })
            })
            .collect();
        let limits = CompactLimits {
            // Several rounds and several outputs for each hour.
            output_rows_max: 3 * ROWS as u64,
            files_max: 3,
            ..CompactLimits::default()
        };
        let total: u64 = table
            .snapshot()
            .expect("readable")
            .files
            .values()
            .map(|file| file.size_bytes)
            .sum();
        let mut outputs = 0;
        let now_ms = clock::began_ms();
        for share in (1..=8).rev() {
            for _ in 0..4 {
                outputs += usize::from(compact(&table, now_ms, &limits).expect("compacted").files_removed > 0);
            }
            let text = format!(r#"{{"flows":{{"max_bytes":{}}}}}"#, total * share / 8);
            let config: RetentionConfig = serde_json::from_str(&text).expect("limits");
            analytics.retain(&config, now_ms).expect("limits applied");
            let seen = reads.load(Ordering::Relaxed);
            // Each step is met by readers.
            wait_until("a reader", Duration::from_secs(60), || {
                reads.load(Ordering::Relaxed) > seen + 1 || readers.iter().any(|reader| reader.is_finished())
            });
        }
        is_over.store(true, Ordering::Release);
        assert!(outputs > 10, "{outputs} merged files");
    });
    let left = read();
    assert!(left < HOURS as usize, "{left} hours are left");
    assert!(reads.load(Ordering::Relaxed) > 10);
}
