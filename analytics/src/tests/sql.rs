//! SQL over the tables.

use schemas::error_class::{Classified as _, ErrorClass};
use serde_json::json;
use tables::table::{Commit, Encoder, write_row_groups};

use super::*;

#[tokio::test]
async fn empty_tables_answer() {
    let fixture = Fixture::new();
    for table in ["flows", "usage_5m", "counters", "collection_5m", "truth_1h"] {
        let rows = fixture.json(&format!("SELECT count(*) AS n FROM {table}")).await;
        assert_eq!(rows, json!([{"n": 0}]), "{table}");
        let console = fixture.analytics.console();
        let answer = console.ask(&format!("SELECT * FROM {table}")).await.unwrap();
        assert!(answer.columns().len() > 5, "an empty result tells its columns");
        assert_eq!(answer.row_count(), 0);
    }
    assert_eq!(fixture.analytics.usage_windows(1, T0, T0 + DAY).await.unwrap(), []);
    assert!(fixture.analytics.verify_u2(T0, T0 + DAY).await.unwrap().holds());
}

#[tokio::test]
async fn a_query_sees_what_was_committed_before_it() {
    let fixture = Fixture::new();
    let count = "SELECT count(*) AS n, sum(bytes) AS bytes FROM flows";
    fixture.add_flows(&[received(1, T0, 100), received(1, T0, 200)]);
    assert_eq!(fixture.json(count).await, json!([{"n": 2, "bytes": 300}]));
    let unnamed = fixture.write_flows(&[received(1, T0, 1000)]);
    assert_eq!(fixture.json(count).await[0]["n"], 2, "not committed");
    fixture
        .flows()
        .commit(Commit {
            add: vec![unnamed],
            ..Commit::default()
        })
        .unwrap();
    assert_eq!(fixture.json(count).await, json!([{"n": 3, "bytes": 1300}]));
}

#[tokio::test]
async fn addresses_compare_with_text_and_prefixes() {
    let fixture = Fixture::new();
    let six = Flow {
        src_addr: address("2001:db8::7"),
        ..received(1, T0, 4)
    };
    let other = Flow {
        src_addr: address("203.0.113.2"),
        ..received(1, T0, 2)
    };
    fixture.add_flows(&[received(1, T0, 1), other, six]);
    for (condition, bytes) in [
        ("src_addr = '203.0.113.1'", 1),
        ("'203.0.113.1' = src_addr", 1),
        ("src_addr <> '203.0.113.1'", 6),
        ("src_addr > '203.0.113.1' AND src_addr < '204.0.0.0'", 2),
        ("src_addr = addr('2001:db8::7')", 4),
        ("src_addr IN (addr('203.0.113.1'), addr('2001:db8::7'))", 5),
        ("in_prefix(src_addr, '203.0.113.0/24')", 3),
        ("in_prefix(src_addr, '2001:db8::/32')", 4),
        ("NOT in_prefix(src_addr, '203.0.113.2')", 5),
        ("addr_text(src_addr) LIKE '203.%'", 3),
    ] {
        let query = format!("SELECT sum(bytes) AS bytes FROM flows WHERE {condition}");
        assert_eq!(fixture.json(&query).await, json!([{"bytes": bytes}]), "{condition}");
    }
    let text = "SELECT src_addr, addr_text(src_addr) AS text FROM flows ORDER BY bytes";
    assert_eq!(
        fixture.json(text).await[2],
        json!({"src_addr": "2001:db8::7", "text": "2001:db8::7"})
    );
    for bad in [
        "src_addr = 'somewhere'",
        "src_addr = addr('192.0.2')",
        "in_prefix(src_addr, '192.0.2.0/64')",
        "src_addr IN ('203.0.113.1')",
    ] {
        let query = format!("SELECT * FROM flows WHERE {bad}");
        assert!(
            fixture.analytics.console().ask(&query).await.is_err(),
            "{bad}: an error, never an empty answer"
        );
    }
}

/// A file that a time filter rules out is never opened: here it is gone altogether.
#[tokio::test]
async fn files_are_pruned_by_the_manifest() {
    let fixture = Fixture::new();
    let old = fixture.add_flows(&[received(1, T0, 1)]);
    fixture.add_flows(&[received(1, T0 + DAY, 2)]);
    std::fs::remove_file(fixture.flows().dir().join(&old.path)).unwrap();
    for condition in [
        "received_at >= '2026-10-02T00:00:00Z'",
        "start_at >= '2026-10-02T00:00:00Z' AND bytes > 0",
        "end_at > TIMESTAMP '2026-10-01 12:00:00'",
        "received_at BETWEEN '2026-10-02T00:00:00Z' AND '2026-10-03T00:00:00Z'",
        "date_trunc('day', received_at) IS NOT NULL AND end_at >= to_timestamp('2026-10-02T00:00:00Z')",
    ] {
        let rows = fixture
            .json(&format!("SELECT sum(bytes) AS bytes FROM flows WHERE {condition}"))
            .await;
        assert_eq!(rows, json!([{"bytes": 2}]), "{condition}");
    }
    let all = fixture.analytics.console().ask("SELECT sum(bytes) FROM flows").await;
    assert!(all.is_err(), "a missing file is an error where its rows are needed");
}

#[tokio::test]
async fn row_groups_are_pruned_by_their_statistics() {
    let fixture = Fixture::new();
    fixture.add_flows(&[received(1, T0, 1), received(3, T0, 2)]);
    let analyze = "EXPLAIN ANALYZE SELECT sum(bytes) FROM flows WHERE dst_service = 77";
    let plan = fixture.json(analyze).await.to_string();
    assert!(
        plan.contains("row_groups_pruned_statistics=1 total → 0 matched"),
        "{plan}"
    );
}

#[tokio::test]
async fn addresses_are_groups() {
    let fixture = Fixture::new();
    let from = |text: &str, bytes: u64| Flow {
        src_addr: address(text),
        ..received(1, T0, bytes)
    };
    fixture.add_flows(&[from("203.0.113.1", 1), from("2001:db8::7", 2), from("203.0.113.1", 4)]);
    let totals = json!([{"src_addr": "203.0.113.1", "bytes": 5}, {"src_addr": "2001:db8::7", "bytes": 2}]);
    for query in [
        "SELECT src_addr, sum(bytes) AS bytes FROM flows GROUP BY src_addr ORDER BY bytes DESC",
        "SELECT f.src_addr, sum(f.bytes) AS bytes FROM flows f GROUP BY 1 HAVING sum(f.bytes) > 1 ORDER BY 2 DESC",
        "SELECT src_addr, bytes FROM (SELECT src_addr, ip_protocol, sum(bytes) AS bytes FROM flows GROUP BY 1, 2) ORDER BY 2 DESC",
    ] {
        assert_eq!(fixture.json(query).await, totals, "{query}");
    }
    let plan = fixture
        .json("EXPLAIN SELECT src_addr, count(*) FROM flows GROUP BY src_addr")
        .await;
    assert!(plan.to_string().contains("number_of(flows.src_addr)"), "{plan}");
    for (query, expected) in [
        (
            "SELECT DISTINCT src_addr FROM flows ORDER BY 1",
            json!([{"src_addr": "203.0.113.1"}, {"src_addr": "2001:db8::7"}]),
        ),
        ("SELECT count(DISTINCT src_addr) AS n FROM flows", json!([{"n": 2}])),
        (
            "SELECT min(src_addr) AS least FROM flows",
            json!([{"least": "203.0.113.1"}]),
        ),
        (
            "SELECT src_addr, sum(bytes) AS bytes FROM flows GROUP BY GROUPING SETS ((src_addr), ()) ORDER BY 2 DESC LIMIT 1",
            json!([{"src_addr": null, "bytes": 7}]),
        ),
        (
            "SELECT DISTINCT f.src_addr FROM flows f JOIN flows g ON f.src_addr = g.src_addr WHERE g.bytes = 2",
            json!([{"src_addr": "2001:db8::7"}]),
        ),
    ] {
        assert_eq!(fixture.json(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn rankings_are_those_of_the_whole_list() {
    let fixture = Fixture::new();
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..3 {
        let flows: Vec<Flow> = (0..4_000)
            .map(|_| {
                let host = random(300) * random(300) / 300;
                Flow {
                    src_addr: if host % 7 == 0 {
                        address(&format!("2001:db8::{host}"))
                    } else {
                        Address::from_v4((0x0b00_0000 + host as u32).to_be_bytes())
                    },
                    src_as: host as u32 % 13,
                    dst_port: host as u16,
                    ..received(1, T0 + random(DAY as u64) as i64, random(5_000))
                }
            })
            .collect();
        fixture.add_flows(&flows);
    }
    for (columns, sums) in [
        ("src_addr", "sum(bytes) AS x, count(*) AS flows"),
        (
            "src_addr, dst_addr, dst_port, ip_protocol",
            "count(*) AS flows, sum(bytes * sampling_rate) AS x",
        ),
        ("src_as", "sum(packets) AS p, sum(bytes) AS x"),
        ("src_addr, received_at", "sum(bytes) AS x"),
    ] {
        for condition in ["true", "bytes > 100", "src_as IN (1, 2)", "bytes > 1000000"] {
            let list = format!(
                "SELECT {columns}, {sums} FROM flows WHERE {condition} GROUP BY {columns} ORDER BY x DESC, {columns}"
            );
            let all = fixture.json(&list).await;
            let all = all.as_array().unwrap();
            for places in [1, 10, 40] {
                let ranking = format!("{list} LIMIT {places}");
                let plan = fixture.json(&format!("EXPLAIN {ranking}")).await.to_string();
                assert!(plan.contains("RankingExec"), "{ranking}: {plan}");
                assert_eq!(
                    fixture.json(&ranking).await,
                    json!(all[..places.min(all.len())]),
                    "{ranking}"
                );
            }
        }
    }
    for other in [
        "SELECT src_addr, sum(bytes) AS x FROM flows GROUP BY 1 ORDER BY x LIMIT 5",
        "SELECT src_addr, sum(bytes) AS x FROM flows GROUP BY 1 HAVING sum(bytes) > 7 ORDER BY x DESC LIMIT 5",
        "SELECT src_addr, sum(bytes) AS x FROM flows GROUP BY 1 ORDER BY src_addr DESC LIMIT 5",
        "SELECT src_addr, avg(bytes) AS x FROM flows GROUP BY 1 ORDER BY x DESC LIMIT 5",
        "SELECT src_addr, count(DISTINCT bytes) AS x FROM flows GROUP BY 1 ORDER BY x DESC LIMIT 5",
        "SELECT src_addr, sum(bytes) FILTER (WHERE src_as = 1) AS x FROM flows GROUP BY 1 ORDER BY x DESC LIMIT 5",
        "SELECT src_addr, sum(bytes) AS x FROM flows GROUP BY 1 ORDER BY x DESC LIMIT 5000",
    ] {
        let plan = fixture.json(&format!("EXPLAIN {other}")).await.to_string();
        assert!(!plan.contains("RankingExec"), "{other}: {plan}");
        fixture.json(other).await;
    }
}

#[tokio::test]
async fn a_ranking_reads_no_more_than_it_must() {
    let host = |host: u32, bytes: u64| Flow {
        src_addr: Address::from_v4((0x0b00_0000 + host).to_be_bytes()),
        ..received(1, T0, bytes)
    };
    let light: Vec<Flow> = (0..40_000).map(|number| host(number + 100, 1)).collect();
    let heavy: Vec<Flow> = (0..1_000).map(|number| host(number % 10, 1_000)).collect();
    let [first, last] = [[heavy.clone(), light.clone()].concat(), [light.clone(), heavy].concat()];
    for (flows, passes) in [
        (first, ["second_passes=0", "aggregations=0"]),
        (last, ["second_passes=1", "aggregations=0"]),
        (light, ["second_passes=0", "aggregations=1"]),
    ] {
        let fixture = Fixture::new();
        fixture.add_flows(&flows);
        let ranking = "SELECT src_addr, sum(bytes) AS x FROM flows GROUP BY src_addr ORDER BY x DESC LIMIT 10";
        let plan = fixture.json(&format!("EXPLAIN ANALYZE {ranking}")).await.to_string();
        for pass in passes {
            assert!(plan.contains(pass), "{pass}: {plan}");
        }
    }
}

#[tokio::test]
async fn row_groups_without_the_address_are_left_out() {
    let fixture = Fixture::new();
    let of = |host: u32, bytes: u64| Flow {
        src_addr: Address::from_v4((0x0b00_0000 + host).to_be_bytes()),
        dst_addr: Address::from_v4((0x0c00_0000 + host).to_be_bytes()),
        ..received(1, T0, bytes)
    };
    // Every second host in each row group, so that smallest and largest tell nothing.
    let flows = fixture.flows();
    let mut encoder = Encoder::new(flows.def()).unwrap().lasting().unwrap();
    let groups = [0, 1].map(|first| {
        let rows: Vec<Flow> = (0..1_000).map(|row| of(2 * row + first, 1)).collect();
        encoder.encode_batch(&flows_to_batch(&rows))
    });
    let path = "2026-10-01/sorted.parquet";
    let size_bytes = write_row_groups(&flows, path, groups).unwrap();
    let file = FileEntry {
        path: path.to_owned(),
        rows: 2_000,
        size_bytes,
        min_time_ms: T0,
        max_time_ms: T0 + DAY,
        sequence: 0,
        encoding: FileEncoding::Open,
    };
    flows
        .commit(Commit {
            add: vec![file],
            ..Commit::default()
        })
        .unwrap();
    let nothing = "SELECT count(*) AS n FROM flows WHERE src_addr = '99.0.0.1'";
    assert_eq!(fixture.json(nothing).await, json!([{"n": 0}]), "in no file");
    // A segment, without filters.
    fixture.add_flows(&[of(3, 10), of(4, 100)]);

    for (condition, flows, groups) in [
        ("src_addr = '11.0.0.3' OR dst_addr = '11.0.0.3'", 2, 2),
        ("src_addr = '12.0.0.4' OR dst_addr = '12.0.0.4'", 2, 2),
        ("src_addr = '11.0.0.3' AND dst_addr = '12.0.0.3'", 2, 2),
        (
            "src_addr IN (addr('11.0.0.3'), addr('11.0.0.4'), addr('11.0.0.5'), addr('11.0.0.7'))",
            6,
            3,
        ),
        ("src_addr = '11.0.0.3' OR bytes = 100", 3, 3),
        ("src_addr = '99.0.0.1'", 0, 1),
    ] {
        let found = fixture
            .json(&format!("SELECT count(*) AS n FROM flows WHERE {condition}"))
            .await;
        assert_eq!(found, json!([{"n": flows}]), "{condition}");
        let plan = format!("EXPLAIN ANALYZE SELECT sum(bytes) FROM flows WHERE {condition}");
        let plan = fixture.json(&plan).await.to_string();
        let read = format!("row_groups_pruned_statistics={groups} total");
        assert!(plan.contains(&read), "{condition}: {plan}");
    }
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let fixture = Fixture::new();
    fixture.add_flows(&[received(1, T0, 1)]);
    let secret = fixture.path().join("secret.csv");
    std::fs::write(&secret, "a,b\n1,2\n").unwrap();
    let secret = secret.display();
    for statement in [
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}'"),
        "DROP TABLE flows".to_owned(),
        "INSERT INTO flows SELECT * FROM flows".to_owned(),
        "DELETE FROM flows".to_owned(),
        "UPDATE flows SET bytes = 0".to_owned(),
        format!("COPY flows TO '{secret}'"),
        format!("EXPLAIN ANALYZE COPY flows TO '{secret}'"),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "SELECT 1; SELECT 2".to_owned(),
        format!("SELECT * FROM '{secret}'"),
        format!("SELECT * FROM 'file://{secret}'"),
    ] {
        assert!(
            fixture.analytics.console().ask(&statement).await.is_err(),
            "{statement}"
        );
    }
    assert_eq!(std::fs::read_to_string(secret.to_string()).unwrap(), "a,b\n1,2\n");
    assert_eq!(fixture.json("SELECT count(*) AS n FROM flows").await, json!([{"n": 1}]));
    let tables = fixture.json("SHOW TABLES").await.to_string();
    assert!(tables.contains("usage_5m"), "{tables}");
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_and_which_tables_there_are() {
    let fixture = Fixture::new();
    let console = fixture.analytics.console();
    for (statement, words) in [
        (
            "SELECT * FROM flow",
            "the tables are flows, usage_5m, usage_1h, interface_5m, interface_1h, port_5m, port_1h, as_5m, as_1h, counters, \
             collection_5m, truth_1h",
        ),
        ("SELEC 1", "Expected"),
    ] {
        let refused = console.ask(statement).await.unwrap_err();
        assert_eq!(
            (refused.class(), refused.code()),
            (ErrorClass::Refused, "query.refused"),
            "{statement}: {refused:?}"
        );
        let text = refused.to_string();
        assert!(text.starts_with("run query: ") && text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn the_documented_queries_run() {
    let fixture = Fixture::new();
    let now = schemas::clock::machine_now_ms() - 10 * 60_000;
    let unknown = Flow {
        sampling_rate: 0,
        ..received(1, now, 9)
    };
    let of_address = Flow {
        dst_addr: address("192.0.2.10"),
        ..received(12, now, 8)
    };
    fixture.add_flows(&[received(12, now, 100), sent(12, now, 200), of_address, unknown]);
    fixture.hear("198.51.100.1", now, now + 1);
    fixture.refresh().await;

    let text = include_str!("../../../docs/query.md");
    let examples: Vec<&str> = text
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 6, "{} examples", examples.len());
    let mut rows = Vec::new();
    for example in examples {
        rows.push(fixture.json(example).await);
    }
    assert_eq!(rows[0][0]["service"], 12);
    assert_eq!(
        rows[1],
        json!([{"dst_addr": "203.0.113.1", "dst_as": 64500, "bytes": 200}])
    );
    assert_eq!(rows[2].as_array().unwrap().len(), 1);
    assert_eq!(rows[3][0]["bytes"], 108);
    assert_eq!(rows[4][0]["flows"], 1);
    assert_eq!(rows[7], json!([{"usage_bytes": 308, "flow_bytes": 308}]));
}
