//! U1 and U2 over whole tables.

use proptest::prelude::*;
use schemas::window::spread;
use tables::definitions::{TABLES, TRUTH_1H, USAGE_1H, USAGE_5M};
use tables::table::Token;

use super::*;
use crate::usage::Conservation;

const ALL: (i64, i64) = (T0 - 100 * DAY, T0 + 100 * DAY);

/// The rows of every rollup in their order: what U1 is about.
async fn rollups(fixture: &Fixture) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for def in TABLES
        .into_iter()
        .filter(|def| def.computed && *def.name != *TRUTH_1H.name)
    {
        let order = def.sort.join(", ");
        let rows = fixture
            .json(&format!("SELECT * FROM {} ORDER BY {order}", def.name))
            .await;
        all.push((def.name, rows.to_string()));
    }
    all
}

/// Sums of both directions: bytes and packets.
async fn sums(fixture: &Fixture, table: &str) -> (u64, u64) {
    let rows = fixture
        .json(&format!(
            "SELECT CAST(coalesce(sum(bytes_in + bytes_out), 0) AS BIGINT) AS bytes, \
             CAST(coalesce(sum(packets_in + packets_out), 0) AS BIGINT) AS packets FROM {table}"
        ))
        .await;
    let number = |name: &str| rows[0][name].as_u64().unwrap();
    (number("bytes"), number("packets"))
}

/// The hours of a table are the sums of its windows, without the one that is still filling.
async fn hours_are_sums_of_windows(fixture: &Fixture, stem: &str, keys: &str) {
    let sums = "CAST(sum(bytes_in) AS BIGINT) AS i, CAST(sum(bytes_out) AS BIGINT) AS o, CAST(sum(packets_in) AS BIGINT) AS p, \
                CAST(sum(packets_out) AS BIGINT) AS q, CAST(sum(flows) AS BIGINT) AS f, CAST(sum(samples) AS BIGINT) AS s";
    let hours = fixture
        .json(&format!(
            "SELECT CAST(hour_start AS BIGINT) AS at, {keys}, {sums} FROM {stem}_1h GROUP BY at, {keys} ORDER BY at, {keys}"
        ))
        .await;
    let windows = fixture
        .json(&format!(
            "SELECT CAST(date_trunc('hour', window_start) AS BIGINT) AS at, {keys}, {sums} FROM {stem}_5m \
             WHERE window_start < (SELECT date_trunc('hour', max(window_start)) FROM {stem}_5m) \
             GROUP BY at, {keys} ORDER BY at, {keys}"
        ))
        .await;
    assert_eq!(hours, windows, "{stem}");
}

const KEYS: [(&str, &str); 4] = [
    ("usage", "service"),
    ("interface", "exporter, if_index, boundary"),
    ("port", "ip_protocol, port"),
    ("as", "src_as, dst_as"),
];

/// Any flow of three days; many short, some long, some not counted.
fn flows() -> impl Strategy<Value = Vec<Flow>> {
    let duration = prop_oneof![4 => 0..400_000i64, 2 => 0..3 * HOUR, 1 => 0..40 * HOUR];
    let flow = (
        (T0..T0 + 3 * DAY, duration),
        (0u8..3, prop_oneof![Just(0u32), Just(1), Just(1000)]),
        (prop_oneof![0u64..3000, any::<u32>().prop_map(u64::from)], 0u64..100),
        (0u32..4, 0u32..4),
        (
            0u32..3,
            0u32..3,
            prop_oneof![Just(6u8), Just(17)],
            0u16..4,
            40_000u16..40_002,
        ),
    );
    let flow = flow.prop_map(
        |((start, duration), (metered, rate), (bytes, packets), (src, dst), (one, other, protocol, port, high))| Flow {
            in_if: one,
            out_if: other,
            src_as: 64_500 + one,
            dst_as: 64_500 + other,
            ip_protocol: protocol,
            src_port: if port == 3 { high } else { port },
            dst_port: high,
            start_at_ms: start,
            end_at_ms: start + duration,
            received_at_ms: start + duration + 1000,
            sampling_rate: rate,
            metered: match metered {
                0 => Metered::No,
                1 => Metered::In,
                _ => Metered::Out,
            },
            bytes,
            packets,
            src_service: src,
            dst_service: dst,
            ..Flow::default()
        },
    );
    proptest::collection::vec(flow, 1..40)
}

/// What U2 compares, straight from the definition.
fn scaled(flows: &[Flow]) -> (u64, u64) {
    let counted = flows.iter().filter(|flow| flow.metered != Metered::No);
    counted.fold((0, 0), |(bytes, packets), flow| {
        (
            bytes + flow.bytes_scaled(),
            packets + flow.packets * u64::from(flow.sampling_rate),
        )
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn u1_any_order_of_arrival_gives_the_same_bytes(
        flows in flows(),
        files in 1usize..5,
        seed in any::<u64>(),
        refresh_between in any::<bool>(),
    ) {
        let scratch = Fixture::new();
        scratch.add_flows(&flows);
        block_on(scratch.refresh());

        let pieces = Fixture::new();
        let mut parts: Vec<Vec<Flow>> = vec![Vec::new(); files];
        for (position, flow) in flows.iter().enumerate() {
            let part = (seed.rotate_left(position as u32 * 7) % files as u64) as usize;
            // Within the file in another order, too.
            parts[part].insert(0, *flow);
        }
        parts.rotate_left(seed as usize % files);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            pieces.add_flows(part);
            if refresh_between {
                block_on(pieces.refresh());
            }
        }
        block_on(pieces.refresh());

        prop_assert_eq!(block_on(rollups(&scratch)), block_on(rollups(&pieces)));
        for (stem, keys) in KEYS {
            prop_assert_eq!(block_on(sums(&pieces, &format!("{stem}_5m"))), scaled(&flows), "U2 of {}", stem);
            block_on(hours_are_sums_of_windows(&pieces, stem, keys));
        }
        let sums = block_on(pieces.analytics.verify_u2(ALL.0, ALL.1)).unwrap();
        let (bytes, packets) = scaled(&flows);
        prop_assert_eq!(sums, Conservation {
            usage_bytes: bytes, usage_packets: packets, flow_bytes: bytes, flow_packets: packets,
        });
        // And over any part of the time, where flows are cut at the edges.
        let part = block_on(pieces.analytics.verify_u2(T0 + 7 * HOUR, T0 + 30 * HOUR)).unwrap();
        prop_assert!(part.holds(), "{part:?}");
    }
}

/// What happens to the table of flows between two refreshes.
#[derive(Clone, Debug)]
enum Step {
    /// A segment with these flows: minute of the start, duration in seconds, service, bytes.
    Add(Vec<(i64, i64, u32, u64)>),
    /// Two files become one, as compaction does.
    Merge(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flow = (0i64..70, 0i64..900, 0u32..3, 0u64..5_000);
    let step = prop_oneof![
        5 => proptest::collection::vec(flow, 1..6).prop_map(Step::Add),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Step::Merge(one, other)),
    ];
    proptest::collection::vec(step, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn what_is_kept_between_refreshes_changes_no_byte(steps in steps()) {
        let kept = Fixture::new();
        let mut all = Vec::new();
        let mut files: Vec<(FileEntry, Vec<Flow>)> = Vec::new();
        for step in steps {
            match step {
                Step::Add(flows) => {
                    let flows: Vec<Flow> = flows.into_iter().map(|(minute, seconds, service, bytes)| Flow {
                        end_at_ms: T0 + minute * 60_000 + seconds * 1_000,
                        ..received(service, T0 + minute * 60_000, bytes)
                    }).collect();
                    all.extend_from_slice(&flows);
                    files.push((kept.add_flows(&flows), flows));
                }
                Step::Merge(one, other) if files.len() > 1 => {
                    let (one, mut flows) = files.swap_remove(one % files.len());
                    let (other, more) = files.swap_remove(other % files.len());
                    flows.extend(more);
                    let merged = kept.write_flows(&flows);
                    kept.flows().commit(Commit {
                        add: vec![merged.clone()],
                        remove: vec![one.path, other.path],
                        ..Commit::default()
                    }).unwrap();
                    files.push((merged, flows));
                }
                Step::Merge(..) => {}
            }
            block_on(kept.refresh());
        }
        let scratch = Fixture::new();
        if !all.is_empty() {
            scratch.add_flows(&all);
        }
        block_on(scratch.refresh());
        prop_assert_eq!(block_on(rollups(&scratch)), block_on(rollups(&kept)));
    }
}

#[tokio::test]
async fn a_refresh_reads_only_what_is_new() {
    let fixture = Fixture::new();
    let minute = |minute: i64| received(1, T0 + minute * 60_000, 100);
    fixture.add_flows(&[minute(1), minute(2)]);
    assert_eq!(fixture.refresh().await.flows_read, 2);
    fixture.add_flows(&[minute(3)]);
    let second = fixture.refresh().await;
    assert_eq!((second.windows_recomputed, second.flows_read), (1, 1));
    fixture.add_flows(&[minute(12), minute(13)]);
    fixture.add_flows(&[minute(4)]);
    assert_eq!(
        fixture.refresh().await.flows_read,
        3,
        "the windows before are kept a while"
    );
    fixture.add_flows(&[minute(100)]);
    assert_eq!(fixture.refresh().await.flows_read, 1);
    fixture.add_flows(&[minute(5)]);
    assert_eq!(
        fixture.refresh().await.flows_read,
        5,
        "too late for what is kept: all of that window's files"
    );
    let windows = fixture.analytics.usage_windows(1, T0, T0 + DAY).await.unwrap();
    let bytes: Vec<u64> = windows.iter().map(|window| window.bytes_in).collect();
    assert_eq!(bytes, [400, 100, 200, 100]);
}

#[tokio::test]
async fn windows_have_the_shares_that_spread_gives() {
    let fixture = Fixture::new();
    let mut flow = received(5, T0 - 100_000, 10_007);
    flow.end_at_ms = T0 + 2 * HOUR + 1;
    flow.sampling_rate = 10;
    fixture.add_flows(&[flow]);
    let refresh = fixture.refresh().await;
    assert_eq!(
        refresh.files_written, 4,
        "hours: 23, 0, 1 and 2, of which one millisecond"
    );
    let mut expected = Vec::new();
    spread(100_070, flow.start_at_ms, flow.end_at_ms, |window, bytes| {
        expected.push((window.start_ms(), bytes));
    });
    let windows = fixture.analytics.usage_windows(5, ALL.0, ALL.1).await.unwrap();
    let actual: Vec<_> = windows.iter().map(|w| (w.window_start_ms, w.bytes_in)).collect();
    assert_eq!(actual, expected);
    assert!(windows.iter().all(|window| window.flows == 1 && window.bytes_out == 0));
    let samples = fixture.json("SELECT sum(samples) AS samples FROM usage_5m").await;
    assert_eq!(samples[0]["samples"], flow.packets, "unscaled");
}

#[tokio::test]
async fn services_are_those_of_the_metered_side() {
    let fixture = Fixture::new();
    let unmetered = Flow {
        metered: Metered::No,
        ..received(1, T0, 1)
    };
    let unknown_rate = Flow {
        sampling_rate: 0,
        ..received(1, T0, 2)
    };
    let both_known = Flow {
        src_service: 8,
        ..received(9, T0, 4)
    };
    let flows = [unmetered, unknown_rate, both_known, sent(9, T0, 8), received(0, T0, 16)];
    fixture.add_flows(&flows);
    fixture.refresh().await;
    let rows = fixture
        .json("SELECT service, bytes_in, bytes_out, flows FROM usage_5m ORDER BY service")
        .await;
    assert_eq!(
        rows,
        serde_json::json!([
            {"service": 0, "bytes_in": 16, "bytes_out": 0, "flows": 1},
            {"service": 9, "bytes_in": 4, "bytes_out": 8, "flows": 2},
        ])
    );
}

#[tokio::test]
async fn late_data_recomputes_the_windows_it_touches() {
    let fixture = Fixture::new();
    fixture.add_flows(&[received(1, T0, 100), received(1, T0 + HOUR, 200)]);
    let first = fixture.refresh().await;
    assert_eq!(first.windows_recomputed, 13);
    let nothing = fixture.refresh().await;
    assert_eq!(
        (nothing.windows_recomputed, nothing.files_written),
        (0, 0),
        "up to date"
    );

    fixture.add_flows(&[received(1, T0, 11)]);
    let late = fixture.refresh().await;
    assert_eq!((late.windows_recomputed, late.rows_written), (1, 1), "its hour alone");
    let windows = fixture.analytics.usage_windows(1, T0, T0 + DAY).await.unwrap();
    let bytes: Vec<u64> = windows.iter().map(|window| window.bytes_in).collect();
    assert_eq!(bytes, [111, 200]);
}

#[tokio::test]
async fn a_compaction_changes_nothing() {
    let fixture = Fixture::new();
    let (a, b) = (received(1, T0, 100), received(2, T0 + HOUR, 200));
    let old = [fixture.add_flows(&[a]), fixture.add_flows(&[b])];
    fixture.refresh().await;
    let before = rollups(&fixture).await;
    let mut compacted = fixture.write_flows(&[a, b]);
    compacted.sequence = 2;
    fixture
        .flows()
        .commit(Commit {
            add: vec![compacted],
            remove: old.iter().map(|file| file.path.clone()).collect(),
            ..Commit::default()
        })
        .unwrap();
    assert_eq!(fixture.refresh().await.windows_recomputed, 0);
    assert_eq!(before, rollups(&fixture).await);
}

#[tokio::test]
async fn lost_usage_is_recomputed_as_it_was() {
    let fixture = Fixture::new();
    fixture.add_flows(&[received(1, T0, 100), sent(2, T0 + 30 * HOUR, 200)]);
    fixture.refresh().await;
    let before = rollups(&fixture).await;
    let again = fixture
        .analytics
        .recompute_usage(T0, T0 + 2 * DAY, |_| ())
        .await
        .unwrap();
    assert_eq!(again.windows_recomputed, 2 * 288);
    assert_eq!(before, rollups(&fixture).await);
}

/// A refresh costs what the hours hold that new flows touch; a day that is over is put together, once.
#[tokio::test]
async fn a_refresh_writes_the_hours_it_touches() {
    let fixture = Fixture::new();
    let files = || {
        let snapshot = Table::open(fixture.path(), &USAGE_5M).unwrap().snapshot().unwrap();
        let mut files: Vec<(i64, u64)> = snapshot
            .files
            .values()
            .map(|file| ((file.min_time_ms - T0).div_euclid(HOUR), file.rows))
            .collect();
        files.sort_unstable();
        files
    };
    for hour in 0..24 {
        let flows: Vec<Flow> = (0..10)
            .map(|service| received(service, T0 + hour * HOUR, 100))
            .collect();
        fixture.add_flows(&flows);
        let refresh = fixture.refresh().await;
        assert_eq!((refresh.files_written, refresh.rows_written), (1, 10), "hour {hour}");
    }
    assert_eq!(files().len(), 24);
    fixture.add_flows(&[received(1, T0 + DAY + HOUR + 30 * 60_000, 100)]);
    fixture.refresh().await;
    assert_eq!(files().len(), 25, "flows of the evening may still come");
    let before = rollups(&fixture).await;
    fixture.add_flows(&[received(1, T0 + DAY + 2 * HOUR, 100)]);
    fixture.refresh().await;
    assert_eq!(files(), [(0, 240), (25, 1), (26, 1)], "one file of the day before");
    let rows_of_day = |all: &[(&'static str, String)]| all[0].1[..2_000].to_owned();
    assert_eq!(rows_of_day(&rollups(&fixture).await), rows_of_day(&before));
    // Late all the same: the day's file is written anew, and stays one.
    fixture.add_flows(&[received(1, T0 + 5 * HOUR, 11)]);
    let late = fixture.refresh().await;
    assert_eq!((late.files_written, late.rows_written), (1, 240));
    assert_eq!(files().len(), 3);
    assert!(fixture.analytics.verify_u2(ALL.0, ALL.1).await.unwrap().holds());
}

/// History, as after an upgrade: days that are over get one file each, whatever their hours.
#[tokio::test]
async fn days_that_are_over_are_written_whole() {
    let fixture = Fixture::new();
    for hour in 0..72 {
        fixture.add_flows(&[received(1, T0 + hour * HOUR, 100), sent(2, T0 + hour * HOUR, 50)]);
    }
    let refresh = fixture.refresh().await;
    assert_eq!(refresh.rows_written, 144);
    let snapshot = Table::open(fixture.path(), &USAGE_5M).unwrap().snapshot().unwrap();
    assert_eq!(snapshot.files.len(), 2 + 24, "two days, and the hours of the last");
    let hours = Table::open(fixture.path(), &USAGE_1H).unwrap().snapshot().unwrap();
    assert_eq!(hours.files.len(), 2 + 23, "the last hour is not over");
    for (stem, keys) in KEYS {
        hours_are_sums_of_windows(&fixture, stem, keys).await;
    }
}

/// What is too small to be named is counted all the same, under the rest of its protocol or of all systems.
#[tokio::test]
async fn the_smaller_keys_of_a_window_are_put_together() {
    const KEYS_MAX: u64 = 4_096;
    let fixture = Fixture::new();
    let flow = |number: u64| Flow {
        src_port: number as u16,
        dst_port: 60_000,
        ip_protocol: if number.is_multiple_of(2) { 6 } else { 17 },
        src_as: number as u32,
        bytes: 10_000 + number,
        packets: 10,
        ..received(1, T0, 1)
    };
    // One more, ten more, and the last ones of an hour of several windows.
    let flows: Vec<Flow> = (1..=KEYS_MAX + 11).map(flow).collect();
    fixture.add_flows(&flows[..4_000]);
    fixture.refresh().await;
    fixture.add_flows(&flows[4_000..]);
    let other_window: Vec<Flow> = (20_000..20_000 + KEYS_MAX + 3)
        .map(|number| Flow {
            start_at_ms: T0 + WINDOW_MS,
            end_at_ms: T0 + WINDOW_MS + 1,
            ..flow(number)
        })
        .collect();
    fixture.add_flows(&other_window);
    fixture.add_flows(&[received(1, T0 + HOUR, 5)]);
    fixture.refresh().await;

    let all: u64 = flows.iter().chain(&other_window).map(|flow| flow.bytes).sum::<u64>() + 5;
    for (stem, _) in KEYS {
        assert_eq!(sums(&fixture, &format!("{stem}_5m")).await.0, all, "{stem}");
        assert_eq!(sums(&fixture, &format!("{stem}_1h")).await.0, all - 5, "{stem}");
    }
    let rest = fixture
        .json(&format!(
            "SELECT ip_protocol, CAST(bytes_in AS BIGINT) AS bytes, flows FROM port_5m \
             WHERE port = 65536 AND window_start = to_timestamp_millis({T0}) ORDER BY ip_protocol"
        ))
        .await;
    let smallest = |protocol: u64| {
        (1..=11u64)
            .filter(move |number| number % 2 == protocol)
            .map(|number| 10_000 + number)
    };
    assert_eq!(
        rest,
        serde_json::json!([
            {"ip_protocol": 6, "bytes": smallest(0).sum::<u64>(), "flows": 5},
            {"ip_protocol": 17, "bytes": smallest(1).sum::<u64>(), "flows": 6},
        ])
    );
    let keys = fixture
        .json("SELECT count(*) AS keys FROM as_1h WHERE src_as <> 4294967295")
        .await;
    assert_eq!(keys[0]["keys"], KEYS_MAX);

    let query = crate::OverviewQuery {
        from_ms: T0,
        to_ms: T0 + 2 * DAY,
        by: crate::Dimension::As,
        ranks: 0..1,
        sites: std::sync::Arc::default(),
    };
    let overview = fixture.analytics.overview(&query).await.unwrap();
    assert_eq!(
        overview.keys_total as u64,
        KEYS_MAX + 1,
        "and the one of the hour that is filling"
    );
    assert_eq!(
        overview.series.iter().map(|series| series.total_bytes).sum::<u64>(),
        all
    );
    let whole = crate::OverviewQuery {
        ranks: 0..10_000,
        ..query
    };
    let overview = fixture.analytics.overview(&whole).await.unwrap();
    let last = overview.series.last().unwrap();
    assert_eq!(last.key, "other", "what has no name is not lost");
    assert_eq!(
        overview.series.iter().map(|series| series.total_bytes).sum::<u64>(),
        all
    );
}

/// Somebody else commits between our reading and our commit: ours must not count the same flows a second time.
#[tokio::test]
async fn a_refresh_that_lost_the_race_starts_again() {
    let fixture = Fixture::new();
    fixture.add_flows(&[received(1, T0, 100)]);
    let attempts = AtomicU32::new(0);
    let race = |_| {
        if attempts.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        let token = Token {
            writer: "usage".to_owned(),
            number: 1,
        };
        let commit = Commit {
            token: Some(token),
            ..Commit::default()
        };
        let table = Table::open(fixture.path(), &USAGE_5M).unwrap();
        assert!(table.commit(commit).unwrap());
    };
    let refresh = fixture.analytics.refresh_usage(race).await.unwrap();
    assert_eq!(refresh.rows_written, 1);
    assert_eq!(
        attempts.load(Ordering::SeqCst),
        2,
        "the first attempt was not committed"
    );
    assert!(fixture.analytics.verify_u2(ALL.0, ALL.1).await.unwrap().holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshers_of_several_processes_do_not_count_twice() {
    let fixture = Fixture::new();
    let other = Analytics::open(fixture.path()).unwrap();
    for round in 0..4i64 {
        fixture.add_flows(&[received(1, T0 + round * 20 * HOUR, 100)]);
        let (ours, theirs) = tokio::join!(fixture.analytics.refresh_usage(|_| ()), other.refresh_usage(|_| ()));
        assert_eq!(ours.unwrap().flows_sequence, theirs.unwrap().flows_sequence);
    }
    let sums = fixture.analytics.verify_u2(ALL.0, ALL.1).await.unwrap();
    assert_eq!((sums.usage_bytes, sums.flow_bytes), (400, 400));
}

#[test]
fn a_window_is_closed_after_its_lateness() {
    use crate::usage::{LATENESS_MS, closed_until_ms};
    let end = T0 + WINDOW_MS;
    assert_eq!(closed_until_ms(end + LATENESS_MS - 1), T0);
    assert_eq!(closed_until_ms(end + LATENESS_MS), end);
}
