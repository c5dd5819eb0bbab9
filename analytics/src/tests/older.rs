//! Files of earlier versions beside those of today: read as they are, never written anew for it.

use serde_json::json;
use tables::flow::older::{FLOWS_7BEF553, as_of_7bef553};
use tables::flow::{SpanBound, marks};
use tables::table::{Commit, Encoder, write_row_groups};

use super::*;

/// A sorted file with address filters, as version 7bef553 wrote it.
fn add_older(fixture: &Fixture, flows: &[Flow]) {
    let table = Table::open(fixture.path(), &FLOWS_7BEF553).unwrap();
    let batch = as_of_7bef553(&flows_to_batch(flows)).unwrap();
    let mut encoder = Encoder::new(&FLOWS_7BEF553).unwrap().lasting().unwrap();
    let group = encoder.encode_batch(&batch).unwrap();
    let path = format!(
        "2026-10-01/older-{}.parquet",
        fixture.files.fetch_add(1, Ordering::Relaxed)
    );
    let times = || {
        flows
            .iter()
            .flat_map(|f| [f.received_at_ms, f.start_at_ms, f.end_at_ms])
    };
    let entry = FileEntry {
        size_bytes: write_row_groups(&table, &path, [Ok(group)]).unwrap(),
        path,
        rows: flows.len() as u64,
        min_time_ms: times().min().unwrap(),
        max_time_ms: times().max().unwrap(),
        sequence: 0,
        encoding: FileEncoding::Open,
    };
    let commit = Commit {
        add: vec![entry],
        ..Commit::default()
    };
    fixture.flows().commit(commit).unwrap();
}

fn old_flow() -> Flow {
    Flow {
        sampling_rate: 10,
        in_vlan: 7,
        out_vlan: 7,
        ..received(1, T0, 100)
    }
}

fn new_flow() -> Flow {
    Flow {
        sampling_rate: 3,
        sampling_divisor: 2,
        in_vlan: 8,
        out_vlan: 9,
        exporter_port: 2055,
        span_bound: SpanBound::Learned,
        reported_start_at_ms: T0 - DAY,
        marks: marks::ANSWER,
        src_addr: address("203.0.113.9"),
        ..received(1, T0 + 1_000, 101)
    }
}

#[tokio::test]
async fn queries_read_both() {
    let fixture = Fixture::new();
    add_older(&fixture, &[old_flow()]);
    fixture.add_flows(&[new_flow()]);
    let columns = "SELECT in_vlan, out_vlan, sampling_divisor, exporter_port, span_bound, marks, \
                   scaled(bytes, sampling_rate, sampling_divisor) AS volume FROM flows ORDER BY start_at";
    assert_eq!(
        fixture.json(columns).await,
        json!([
            {"in_vlan": 7, "out_vlan": 7, "sampling_divisor": 1, "exporter_port": 0, "span_bound": 0, "marks": 0, "volume": 1000},
            {"in_vlan": 8, "out_vlan": 9, "sampling_divisor": 2, "exporter_port": 2055, "span_bound": 3, "marks": 2, "volume": 151},
        ])
    );
    for (condition, bytes) in [
        ("out_vlan = 7", 100),
        ("out_vlan > 7", 101),
        ("in_vlan = 7 AND sampling_divisor = 1", 100),
        ("marks & 2 = 2", 101),
        ("span_bound = 0", 100),
        ("reported_start_at = to_timestamp(0)", 100),
        ("reported_start_at < start_at", 201),
        ("src_addr = '203.0.113.1' AND out_vlan = 7", 100),
        ("src_addr = '203.0.113.9' OR dst_addr = '203.0.113.9'", 101),
    ] {
        let query = format!("SELECT sum(bytes) AS bytes FROM flows WHERE {condition}");
        assert_eq!(fixture.json(&query).await, json!([{"bytes": bytes}]), "{condition}");
    }
    let unknown = fixture.analytics.console().ask("SELECT sum(vlan) FROM flows").await;
    assert!(
        unknown.is_err(),
        "the column that two took the place of is no column any more"
    );
}

#[tokio::test]
async fn u2_usage_of_both_is_their_exact_volume() {
    let fixture = Fixture::new();
    add_older(&fixture, &[old_flow()]);
    fixture.add_flows(&[new_flow()]);
    fixture.analytics.refresh_usage(|_| {}).await.unwrap();
    let used = fixture.analytics.usage_windows(1, T0, T0 + DAY).await.unwrap();
    assert_eq!(used.iter().map(|window| window.bytes_in).sum::<u64>(), 1000 + 151);
    assert!(fixture.analytics.verify_u2(T0, T0 + DAY).await.unwrap().holds());
    let peers = fixture.analytics.top_peers(1, T0, T0 + DAY, 5).await.unwrap();
    assert_eq!(peers.iter().map(|peer| peer.bytes_in).collect::<Vec<_>>(), [1000, 151]);
}

#[tokio::test]
async fn rankings_by_exact_volume_are_rankings() {
    let fixture = Fixture::new();
    add_older(&fixture, &[old_flow()]);
    fixture.add_flows(&[new_flow()]);
    let ranking = "SELECT src_addr, sum(scaled(bytes, sampling_rate, sampling_divisor)) AS volume FROM flows \
                   GROUP BY src_addr ORDER BY volume DESC LIMIT 1";
    let plan = fixture.json(&format!("EXPLAIN {ranking}")).await.to_string();
    assert!(plan.contains("RankingExec"), "{plan}");
    assert_eq!(
        fixture.json(ranking).await,
        json!([{"src_addr": "203.0.113.1", "volume": 1000}])
    );
}
