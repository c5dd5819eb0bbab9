//! Every question of [`FlowStore`], asked of a small world and compared with plain loops over what it was made of ([`model`]).

mod model;

use std::sync::Arc;

use jiff::tz::TimeZone;
use schemas::error_class::{Classified as _, ErrorClass};
use schemas::metering::{ExporterConfig, MeteringConfig};
use tables::flow::Boundary;

use self::model::Model;
use super::*;
use crate::{Attribution, Dimension, FlowStore, Meters, OverviewQuery, SeriesQuery, Sites, Step, StoreError};

const A: &str = "198.51.100.1";
const B: &str = "2001:db8::b";
/// Never heard.
const C: &str = "198.51.100.3";
/// When some windows are not over yet.
const NOW_MS: i64 = T0 + 26 * HOUR + 7;
const SERVICES: u32 = 6;

/// Aligned, in the middle of windows, within one, empty, reversed, beyond everything; and all of it.
const RANGES: [(i64, i64); 8] = [
    (T0 - 3 * HOUR, T0 + 40 * HOUR),
    (T0, T0 + DAY),
    (T0 + HOUR + 1, T0 + 3 * HOUR - 1),
    (T0 + 5 * HOUR + 60_000, T0 + 5 * HOUR + 120_000),
    (T0 + 7, T0 + 7),
    (T0 + HOUR, T0 + HOUR),
    (T0 + 2 * HOUR, T0 + HOUR),
    (T0 + 60 * DAY, T0 + 61 * DAY),
];

struct World {
    model: Model,
    store: Arc<dyn FlowStore>,
    fixture: Fixture,
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A flow of a day and a half: both directions and neither, short and over many windows, sampled, counted, and of unknown rate.
    fn flow(&mut self) -> Flow {
        let mut start_at_ms = T0 - 2 * HOUR + self.below(36 * HOUR as u64) as i64;
        if self.below(4) == 0 {
            start_at_ms -= start_at_ms.rem_euclid(WINDOW_MS);
        }
        let duration_ms = self.of(&[0, 1, 60_000, 299_999, 300_000, 300_001, 900_001, 3 * HOUR]);
        let metered = self.of(&[Metered::In, Metered::In, Metered::Out, Metered::Out, Metered::No]);
        let (sampling_rate, sampling_divisor) = self.of(&[(0, 1), (1, 1), (100, 1), (1_000, 3), (4_096, 1)]);
        let peers = [
            "203.0.113.1",
            "203.0.113.2",
            "203.0.113.3",
            "2001:db8::7",
            "2001:db8::8",
            "192.0.2.200",
        ];
        let (inside, outside) = (address("192.0.2.1"), address(self.of(&peers)));
        let (service, autonomous_system) = (self.below(u64::from(SERVICES)) as u32, 64_500 + self.below(5) as u32);
        let is_out = metered == Metered::Out;
        Flow {
            received_at_ms: start_at_ms + duration_ms + 1_000,
            start_at_ms,
            end_at_ms: start_at_ms + duration_ms,
            exporter: address(self.of(&[A, B])),
            protocol_version: 10,
            sampling_rate,
            sampling_divisor,
            in_if: self.below(3) as u32,
            out_if: self.below(3) as u32,
            metered,
            src_addr: if is_out { inside } else { outside },
            dst_addr: if is_out { outside } else { inside },
            ip_protocol: self.of(&[1, 6, 6, 17, 58]),
            src_as: if is_out { 0 } else { autonomous_system },
            dst_as: if is_out { autonomous_system } else { 0 },
            bytes: self.below(100_000),
            packets: self.below(80) + 1,
            src_service: if is_out { service } else { 0 },
            dst_service: if is_out { 0 } else { service },
            src_port: self.of(&[0, 22, 443, 32_767, 32_768, 50_000]),
            dst_port: self.of(&[0, 53, 443, 40_000, 65_535]),
            in_boundary: self.of(&[Boundary::Unknown, Boundary::External, Boundary::Internal]),
            out_boundary: self.of(&[Boundary::Unknown, Boundary::External, Boundary::Internal]),
            ..Flow::default()
        }
    }
}

fn count(exporter: &str, window_start_ms: i64, counter: &'static str, value: u64) -> CollectionRow<'static> {
    CollectionRow {
        window_start_ms,
        exporter: address(exporter),
        observation_domain: 0,
        protocol_version: 10,
        counter,
        value,
    }
}

/// What the collector counted: A and B are heard at different times, in one hour neither; several rows of one key, and zeros.
fn collected() -> Vec<CollectionRow<'static>> {
    let mut rows = Vec::new();
    for (number, window) in (0u64..).zip(windows(T0, T0 + 26 * HOUR)) {
        let at_ms = window.start_ms();
        let hour = (at_ms - T0) / HOUR;
        if hour != 5 && hour < 20 {
            rows.push(count(A, at_ms, "datagrams", 9));
            rows.push(count(A, at_ms, "flow_records", number));
            rows.push(count(A, at_ms, "flow_records", 1_000));
        }
        if hour >= 2 && hour != 5 && hour != 10 {
            rows.push(count(B, at_ms, "datagrams", 1));
            rows.push(count(B, at_ms, "flow_records", 3 * number));
            rows.push(count(B, at_ms, "flows_without_sampling_rate", number % 4));
        }
        rows.push(count(C, at_ms, "datagrams", 0));
        rows.push(count(C, at_ms, "flows_without_sampling_rate", 0));
        rows.push(count(A, at_ms, "flows_without_sampling_rate", u64::from(hour == 7)));
    }
    rows
}

impl World {
    /// Flows in three files, of which the last comes when usage of the others is computed.
    async fn new() -> World {
        let fixture = Fixture::new();
        let mut random = Random(7);
        let flows: Vec<Flow> = (0..900).map(|_| random.flow()).collect();
        let collected = collected();
        let store: Arc<dyn FlowStore> = fixture.analytics.clone().into();
        fixture.add_flows(&flows[..350]);
        fixture.add_flows(&flows[350..700]);
        let (first, second) = collected.split_at(collected.len() / 3);
        fixture.collect(first);
        fixture.refresh().await;
        fixture.add_flows(&flows[700..]);
        fixture.collect(second);
        fixture.refresh().await;
        World {
            model: Model::of(flows, collected),
            store,
            fixture,
        }
    }
}

/// A is at a site, the network of B at another, C is nowhere.
fn overview_query(from_ms: i64, to_ms: i64, by: Dimension, ranks: std::ops::Range<usize>) -> OverviewQuery {
    let at = |net: &str, site: &str| ExporterConfig {
        address: net.parse().unwrap(),
        site: Some(site.to_owned()),
        ..ExporterConfig::unlisted(address(C))
    };
    let metering = MeteringConfig {
        exporters: vec![at("2001:db8::/32", "FRA1"), at(A, "NYC1")],
        ..MeteringConfig::default()
    };
    OverviewQuery {
        from_ms,
        to_ms,
        by,
        ranks,
        sites: Arc::new(Sites::of(&metering)),
    }
}

fn meters() -> [Meters; 5] {
    [
        Meters::Named(vec![address(A)]),
        Meters::Named(vec![address(A), address(B), address(C)]),
        Meters::Named(vec![address(C)]),
        Meters::AllBut(vec![]),
        Meters::AllBut(vec![address(A)]),
    ]
}

#[tokio::test]
async fn windows_of_a_service() {
    let World { model, store, .. } = &World::new().await;
    for service in 0..=SERVICES {
        for (from_ms, to_ms) in RANGES {
            let expected = model.usage_windows(service, from_ms, to_ms);
            let stored = store.usage_windows(service, from_ms, to_ms).await.unwrap();
            assert_eq!(stored, expected, "service {service} {from_ms}..{to_ms}");
            let recomputed = store.windows_from_flows(service, from_ms, to_ms).await.unwrap();
            assert_eq!(recomputed, expected, "from flows: service {service} {from_ms}..{to_ms}");
        }
    }
    let (from_ms, to_ms) = RANGES[0];
    assert!(
        model.usage_windows(0, from_ms, to_ms).len() > 100,
        "the world is not empty"
    );
    assert_eq!(model.usage_windows(SERVICES, from_ms, to_ms), [], "nobody's");
}

#[tokio::test]
async fn the_network_in_figures() {
    let World { model, store, .. } = &World::new().await;
    for (from_ms, to_ms) in RANGES {
        let range = format!("{from_ms}..{to_ms}");
        assert_eq!(
            store.network_usage(from_ms, to_ms).await.unwrap(),
            model.network_usage(from_ms, to_ms),
            "{range}"
        );
        assert_eq!(
            store.attribution(from_ms, to_ms).await.unwrap(),
            model.attribution(from_ms, to_ms),
            "{range}"
        );
        assert_eq!(
            store.flow_records(from_ms, to_ms).await.unwrap(),
            model.flow_records(from_ms, to_ms),
            "{range}"
        );
        assert_eq!(
            store.flows_without_rate(from_ms, to_ms).await.unwrap(),
            model.flows_without_rate(from_ms, to_ms),
            "{range}"
        );
    }
    let open_end = store.flows_without_rate(T0, i64::MAX).await.unwrap();
    assert_eq!(open_end, model.flows_without_rate(T0, i64::MAX));
    let exporters: Vec<String> = open_end.iter().map(|one| one.exporter.to_string()).collect();
    assert_eq!(exporters.len(), 2, "C has none: {exporters:?}");
    let all = model.attribution(T0, T0 + DAY);
    assert!(0 < all.unattributed_bytes && all.unattributed_bytes < all.total_bytes);
}

#[tokio::test]
async fn the_overview_by_every_dimension() {
    let World { model, store, .. } = &World::new().await;
    let longer = [(T0 - DAY, T0 + 3 * DAY + 1), (T0 - DAY + 1, T0 + 40 * DAY)];
    for (from_ms, to_ms) in RANGES.into_iter().chain(longer) {
        for by in Dimension::ALL {
            for ranks in [0..100, 0..2, 1..3, 2..2, 0..0, 90..100] {
                let query = overview_query(from_ms, to_ms, by, ranks);
                let answered = store.overview(&query).await.unwrap();
                assert_eq!(answered, model.overview(&query), "{query:?}");
            }
        }
    }
    let by_interface = model.overview(&overview_query(T0, T0 + DAY, Dimension::Interface, 0..2));
    let keys: Vec<&str> = by_interface.series.iter().map(|series| series.key.as_str()).collect();
    assert_eq!((keys.len(), keys[2]), (3, "other"));
}

#[tokio::test]
async fn peers_of_a_service() {
    let World { model, store, .. } = &World::new().await;
    for service in 0..=SERVICES {
        for (from_ms, to_ms) in RANGES {
            for limit in [0, 1, 3, 100] {
                let expected = model.top_peers(service, from_ms, to_ms, limit);
                let answered = store.top_peers(service, from_ms, to_ms, limit).await.unwrap();
                assert_eq!(answered, expected, "service {service} {from_ms}..{to_ms} limit {limit}");
            }
        }
    }
    assert_eq!(model.top_peers(1, T0, T0 + DAY, 100).len(), 6, "all of them");
}

#[tokio::test]
async fn what_was_measured() {
    let World { model, store, .. } = &World::new().await;
    assert_eq!(store.heard_until().await.unwrap(), model.heard_until());
    assert_eq!(model.heard_until(), Some(T0 + 26 * HOUR));
    for meters in meters() {
        for (from_ms, to_ms) in RANGES {
            let expected = model.gaps(&meters, from_ms, to_ms);
            let answered = store.gaps(&meters, from_ms, to_ms).await.unwrap();
            assert_eq!(answered, expected, "{meters:?} {from_ms}..{to_ms}");
        }
    }
}

#[tokio::test]
async fn periods_of_services() {
    let World { model, store, .. } = &World::new().await;
    let mut queries = Vec::new();
    for (number, meters) in (0u32..).zip(meters()) {
        for (from_ms, to_ms) in RANGES {
            for mode in [UsageMode::Sum, UsageMode::In, UsageMode::Out, UsageMode::Max] {
                queries.push(PeriodQuery {
                    service: MeteredService {
                        service: number,
                        meters: meters.clone(),
                    },
                    from_ms,
                    to_ms,
                    mode,
                    excluded: match number % 2 {
                        0 => Vec::new(),
                        _ => vec![(T0 + 3 * HOUR, T0 + 4 * HOUR + 1), (T0 + 4 * HOUR, T0 + 5 * HOUR)],
                    },
                });
            }
        }
    }
    for now_ms in [
        T0 - DAY,
        T0 + 7 * HOUR + 119_999,
        T0 + 7 * HOUR + 120_000,
        NOW_MS,
        T0 + 90 * DAY,
    ] {
        let together = store.period_usage(&queries, now_ms).await.unwrap();
        assert_eq!(together.len(), queries.len());
        for (query, answered) in queries.iter().zip(together) {
            assert_eq!(answered, model.period_usage(query, now_ms), "{query:?} at {now_ms}");
        }
    }
    let one = store.period_usage(&queries[..1], NOW_MS).await.unwrap();
    assert_eq!(one, [model.period_usage(&queries[0], NOW_MS)], "alone as together");
    assert_eq!(store.period_usage(&[], NOW_MS).await.unwrap(), []);
}

#[tokio::test]
async fn series_of_services() {
    let World { model, store, .. } = &World::new().await;
    let of = |service: u32, meters: Meters| MeteredService { service, meters };
    let [of_a, of_any, ..] = meters();
    let asked = [
        vec![],
        vec![of(1, of_a.clone())],
        vec![of(2, of_any.clone()), of(1, of_a.clone()), of(2, of_any)],
    ];
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let kolkata = TimeZone::get("Asia/Kolkata").unwrap();
    let every = |from_ms: i64, to_ms: i64, step_ms: i64| -> Vec<i64> {
        let inner = (from_ms + step_ms..to_ms).step_by(step_ms as usize);
        std::iter::once(from_ms).chain(inner).chain([to_ms]).collect()
    };
    let half = HOUR / 2;
    let cases: [(Step, &TimeZone, Vec<i64>); 5] = [
        (Step::FiveMinutes, &TimeZone::UTC, every(T0, T0 + 2 * HOUR, WINDOW_MS)),
        (
            Step::FiveMinutes,
            &TimeZone::UTC,
            vec![T0 + 7, T0 + WINDOW_MS, T0 + 2 * WINDOW_MS, T0 + 2 * WINDOW_MS + 9],
        ),
        (
            Step::Hour,
            &kolkata,
            vec![T0, T0 + half, T0 + half + HOUR, T0 + half + 2 * HOUR, T0 + 3 * HOUR],
        ),
        (
            Step::Day,
            &berlin,
            vec![T0 - 2 * HOUR, T0 + 22 * HOUR, T0 + 46 * HOUR, T0 + 47 * HOUR],
        ),
        (Step::Hour, &TimeZone::UTC, vec![T0 + 90 * DAY, T0 + 90 * DAY + half]),
    ];
    for services in &asked {
        for (step, zone, cuts) in &cases {
            for now_ms in [T0 - DAY, NOW_MS, i64::MAX] {
                let query = SeriesQuery {
                    services,
                    from_ms: cuts[0],
                    to_ms: cuts[cuts.len() - 1],
                    step: *step,
                    zone,
                    now_ms,
                };
                let answered = store.usage_series(&query).await.unwrap();
                assert_eq!(answered, model.usage_series(&query, cuts), "{query:?}");
            }
        }
    }
    let nothing = SeriesQuery {
        services: &asked[1],
        from_ms: T0 + HOUR,
        to_ms: T0 + HOUR,
        step: Step::Hour,
        zone: &TimeZone::UTC,
        now_ms: NOW_MS,
    };
    assert_eq!(store.usage_series(&nothing).await.unwrap(), []);
}

#[tokio::test]
async fn a_mark_changes_when_what_is_measured_does() {
    let World { store, fixture, .. } = &World::new().await;
    let periods = [(T0, T0 + DAY), (T0 + 10 * DAY, T0 + 11 * DAY)];
    let before = store.usage_marks(&periods).await.unwrap();
    assert!(before.iter().all(Option::is_some));
    assert_eq!(store.usage_marks(&periods).await.unwrap(), before);
    assert!(store.usage_marks(&[]).await.unwrap().is_empty());
    fixture.add_flows(&[received(1, T0 + HOUR, 1)]);
    assert_eq!(store.usage_marks(&periods).await.unwrap(), before, "not settled yet");
    store.settle().await.unwrap();
    let after = store.usage_marks(&periods).await.unwrap();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1], "of another time");
}

#[tokio::test]
async fn what_is_settled_is_in_the_answers() {
    let World { store, fixture, .. } = &World::new().await;
    let bytes = async || {
        let windows = store.usage_windows(1, T0, T0 + DAY).await.unwrap();
        windows.iter().map(|window| window.bytes_in).sum::<u64>()
    };
    let before = bytes().await;
    fixture.add_flows(&[received(1, T0 + HOUR, 77)]);
    assert_eq!(bytes().await, before);
    store.settle().await.unwrap();
    assert_eq!(bytes().await, before + 77);
    store.settle().await.unwrap();
    assert_eq!(bytes().await, before + 77, "once");
}

#[tokio::test]
async fn an_empty_store_answers_every_question() {
    let fixture = Fixture::new();
    let store: Arc<dyn FlowStore> = fixture.analytics.clone().into();
    let model = Model::of(Vec::new(), Vec::new());
    let (from_ms, to_ms) = (T0, T0 + DAY);
    store.settle().await.unwrap();
    assert_eq!(store.usage_windows(1, from_ms, to_ms).await.unwrap(), []);
    assert_eq!(store.windows_from_flows(1, from_ms, to_ms).await.unwrap(), []);
    assert_eq!(store.network_usage(from_ms, to_ms).await.unwrap(), []);
    assert_eq!(store.attribution(from_ms, to_ms).await.unwrap(), Attribution::default());
    assert_eq!(store.flow_records(from_ms, to_ms).await.unwrap(), []);
    assert_eq!(store.flows_without_rate(from_ms, to_ms).await.unwrap(), []);
    assert_eq!(store.top_peers(1, from_ms, to_ms, 5).await.unwrap(), []);
    assert_eq!(store.heard_until().await.unwrap(), None);
    assert_eq!(store.counter_reconciliation(from_ms, to_ms).await.unwrap(), []);
    assert_eq!(store.latest_counter_reconciliation(to_ms).await.unwrap(), []);
    for by in Dimension::ALL {
        let query = overview_query(from_ms, to_ms, by, 0..9);
        assert_eq!(store.overview(&query).await.unwrap(), model.overview(&query));
    }
    for meters in meters() {
        assert_eq!(
            store.gaps(&meters, from_ms, to_ms).await.unwrap(),
            model.gaps(&meters, from_ms, to_ms)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_told_from_what_is_broken() {
    let World { store, fixture, .. } = &World::new().await;
    let beyond = SeriesQuery {
        services: &[],
        from_ms: i64::MAX - DAY,
        to_ms: i64::MAX - HOUR,
        step: Step::Day,
        zone: &TimeZone::UTC,
        now_ms: NOW_MS,
    };
    let refused = store.usage_series(&beyond).await.unwrap_err();
    assert!(matches!(refused, StoreError::BeyondCalendar(_)), "{refused:?}");
    assert_eq!(refused.class(), ErrorClass::Refused);

    for file in fixture.flows().snapshot().unwrap().files.values() {
        std::fs::remove_file(fixture.flows().dir().join(&file.path)).unwrap();
    }
    let broken = store.windows_from_flows(1, T0, T0 + DAY).await.unwrap_err();
    assert_eq!((broken.class(), broken.code()), (ErrorClass::Fault, "flows.failed"));
}
