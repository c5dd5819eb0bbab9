//! What billing and the portal ask.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::*;
use crate::usage::LATENESS_MS;
use crate::{Dimension, Gap, Meters, OverviewQuery, SeriesPoint, SeriesQuery, Step};

const EXPORTER: &str = "198.51.100.1";

fn service(number: u32) -> MeteredService {
    MeteredService {
        service: number,
        meters: Meters::Named(vec![address(EXPORTER)]),
    }
}

/// Ten measured hours of service 1 with one missing: a flow of 3000 bytes per second in, and a peak of one window out.
async fn ten_hours() -> Fixture {
    let fixture = Fixture::new();
    fixture.hear(EXPORTER, T0, T0 + 4 * HOUR);
    fixture.hear(EXPORTER, T0 + 5 * HOUR, T0 + 10 * HOUR);
    let mut flows: Vec<Flow> = (0..120).map(|n| received(1, T0 + n * WINDOW_MS, 900_000)).collect();
    flows.push(sent(1, T0 + HOUR, 5_000_000));
    flows.push(received(2, T0 + HOUR, 77));
    fixture.add_flows(&flows);
    fixture.refresh().await;
    fixture
}

#[tokio::test]
async fn a_period_has_totals_percentile_and_gaps() {
    let fixture = ten_hours().await;
    let now_ms = T0 + 10 * HOUR + LATENESS_MS;
    let usage = |mode, to_ms| {
        let fixture = &fixture;
        async move { fixture.period_usage(&service(1), T0, to_ms, mode, now_ms).await }
    };
    let period = usage(UsageMode::Sum, T0 + DAY).await;
    assert_eq!((period.bytes_in, period.bytes_out), (120 * 900_000, 5_000_000));
    assert_eq!(period.billed_bytes, 120 * 900_000 + 5_000_000);
    assert_eq!(period.measured_to_ms, T0 + 10 * HOUR, "later windows are not closed");
    assert_eq!((period.windows_expected, period.windows_measured), (120, 108));
    assert_eq!(period.percentile_rank, 103);
    assert_eq!(
        period.percentile_95_bps,
        Some(900_000 * 8 / 300),
        "the peak is within the free 5 %"
    );
    let gap = Gap {
        from_ms: T0 + 4 * HOUR,
        to_ms: T0 + 5 * HOUR,
        exporter: address(EXPORTER),
    };
    assert_eq!(period.gaps, [gap]);

    let whole = usage(UsageMode::In, T0 + 9 * HOUR).await;
    assert_eq!(
        (whole.billed_bytes, whole.measured_to_ms),
        (108 * 900_000, T0 + 9 * HOUR)
    );
    assert_eq!(
        usage(UsageMode::Out, T0 + DAY).await.percentile_95_bps,
        Some(0),
        "measured zeros count"
    );
    let max = usage(UsageMode::Max, T0 + DAY).await;
    assert_eq!((max.billed_bytes, max.percentile_95_bps), (120 * 900_000, Some(24_000)));

    let early = fixture
        .period_usage(&service(1), T0, T0 + DAY, UsageMode::Sum, T0)
        .await;
    assert_eq!(
        (early.bytes_in, early.windows_expected, early.percentile_95_bps),
        (0, 0, None)
    );
}

#[tokio::test]
async fn many_services_are_measured_as_each_alone() {
    let fixture = ten_hours().await;
    let now_ms = T0 + 30 * DAY;
    let queries: Vec<PeriodQuery> = (1..40)
        .map(|number| PeriodQuery {
            service: service(number % 5),
            from_ms: T0 + i64::from(number % 3) * HOUR,
            to_ms: T0 + DAY,
            mode: if number % 2 == 0 {
                UsageMode::Sum
            } else {
                UsageMode::Max
            },
            excluded: Vec::new(),
        })
        .collect();
    let together = fixture.analytics.period_usage(&queries, now_ms).await.unwrap();
    for (query, batch) in queries.iter().zip(together) {
        let (from_ms, to_ms) = (query.from_ms, query.to_ms);
        let alone = fixture
            .period_usage(&query.service, from_ms, to_ms, query.mode, now_ms)
            .await;
        assert_eq!(alone, batch);
    }
    assert_eq!(fixture.analytics.period_usage(&[], now_ms).await.unwrap(), []);
}

#[tokio::test]
async fn coverage_follows_what_is_heard_later() {
    let fixture = ten_hours().await;
    let measured = async || {
        fixture
            .period_usage(&service(1), T0, T0 + DAY, UsageMode::Sum, T0 + DAY + HOUR)
            .await
            .windows_measured
    };
    assert_eq!(measured().await, 108);
    fixture.hear(EXPORTER, T0 + 4 * HOUR, T0 + 5 * HOUR);
    assert_eq!(measured().await, 120);
}

#[tokio::test]
async fn a_series_has_every_step_and_sums_to_the_totals() {
    let fixture = ten_hours().await;
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    for step in [Step::FiveMinutes, Step::Hour, Step::Day] {
        let services = [service(1), service(2)];
        let points = series(&fixture, &services, step, &zone).await;
        assert_eq!(points[0].start_ms, T0);
        assert_eq!(points.last().unwrap().end_ms, T0 + 2 * DAY);
        let bytes_in: u64 = points.iter().map(|point| point.bytes_in).sum();
        let bytes_out: u64 = points.iter().map(|point| point.bytes_out).sum();
        assert_eq!((bytes_in, bytes_out), (120 * 900_000 + 77, 5_000_000), "{step:?}");
        let measured: u32 = points.iter().map(|point| point.windows_measured).sum();
        assert_eq!(measured, expected_measured(), "{step:?}");
    }
    let days = series(&fixture, &[service(1)], Step::Day, &zone).await;
    let hours: Vec<i64> = days.iter().map(|day| (day.end_ms - day.start_ms) / HOUR).collect();
    assert_eq!(hours, [22, 24, 2], "midnight in Berlin is 22:00 UTC");
}

/// Two days of services.
async fn series(fixture: &Fixture, services: &[MeteredService], step: Step, zone: &TimeZone) -> Vec<SeriesPoint> {
    let query = SeriesQuery {
        services,
        from_ms: T0,
        to_ms: T0 + 2 * DAY,
        step,
        zone,
        now_ms: NOW_MS,
    };
    fixture.analytics.usage_series(&query).await.unwrap()
}

/// In the middle of what the fixture holds: some of its windows are over, some are not.
const NOW_MS: i64 = T0 + 7 * HOUR;

/// Windows of the fixture that are over.
fn expected_measured() -> u32 {
    let past_ms = crate::usage::closed_until_ms(NOW_MS);
    let heard = windows(T0, T0 + 10 * HOUR).filter(|window| {
        window.end_ms() <= past_ms && (window.start_ms() < T0 + 4 * HOUR || window.start_ms() >= T0 + 5 * HOUR)
    });
    heard.count() as u32
}

#[tokio::test]
async fn a_usage_line_is_explained_by_its_flows() {
    let fixture = ten_hours().await;
    let range = (T0, T0 + 2 * DAY);
    let stored = fixture.analytics.usage_windows(1, range.0, range.1).await.unwrap();
    let recomputed = fixture.analytics.windows_from_flows(1, range.0, range.1).await.unwrap();
    assert_eq!(stored, recomputed, "B5");
    let bytes_in: u64 = recomputed.iter().map(|window| window.bytes_in).sum();
    let bytes_out: u64 = recomputed.iter().map(|window| window.bytes_out).sum();
    assert_eq!((bytes_in, bytes_out, recomputed.len()), (120 * 900_000, 5_000_000, 120));
}

#[tokio::test]
async fn peers_are_the_remote_addresses() {
    let fixture = Fixture::new();
    let other = Flow {
        src_addr: address("203.0.113.9"),
        src_as: 64999,
        sampling_rate: 10,
        ..received(1, T0, 50)
    };
    fixture.add_flows(&[received(1, T0, 100), sent(1, T0, 300), other, received(2, T0, 9999)]);
    let peers = fixture.analytics.top_peers(1, T0, T0 + DAY, 10).await.unwrap();
    let shown: Vec<_> = peers
        .iter()
        .map(|peer| {
            (
                peer.address.to_string(),
                peer.autonomous_system,
                peer.bytes_in,
                peer.bytes_out,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("203.0.113.9".to_owned(), 64999, 500, 0),
            ("203.0.113.1".to_owned(), 64500, 100, 300)
        ]
    );
    assert_eq!(fixture.analytics.top_peers(1, T0, T0 + DAY, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn s1_of_a_flow_that_goes_on_over_a_change_of_owners_each_sees_its_part() {
    let fixture = Fixture::new();
    let turn_ms = T0 + 600_000;
    let long = Flow {
        start_at_ms: T0 + 300_000,
        end_at_ms: T0 + 1_500_000,
        ..received(1, T0, 1_000)
    };
    fixture.add_flows(&[long, received(1, turn_ms, 7)]);
    let bytes = async |from_ms, to_ms| {
        let peers = fixture.analytics.top_peers(1, from_ms, to_ms, 10).await.unwrap();
        peers.iter().map(|peer| peer.bytes_in).sum::<u64>()
    };
    assert_eq!(bytes(T0, turn_ms).await, 250);
    assert_eq!(bytes(turn_ms, T0 + DAY).await, 757);
    assert_eq!(bytes(T0 + 1_500_000, T0 + DAY).await, 0);
}

#[tokio::test]
async fn the_overview_stacks_the_same_traffic_by_every_dimension() {
    let fixture = Fixture::new();
    let udp = Flow {
        ip_protocol: 17,
        src_as: 64501,
        in_if: 3,
        ..received(2, T0 + 2 * HOUR, 1000)
    };
    let internal = Flow {
        metered: Metered::No,
        ..received(2, T0, 1_000_000)
    };
    fixture.add_flows(&[
        received(1, T0, 100),
        sent(1, T0 + HOUR, 300),
        udp,
        received(0, T0, 7),
        internal,
    ]);
    fixture.refresh().await;
    let overview = |by, limit| {
        let analytics = fixture.analytics.clone();
        async move {
            let query = OverviewQuery {
                from_ms: T0,
                to_ms: T0 + DAY,
                by,
                ranks: 0..limit,
                sites: Arc::default(),
            };
            let overview = analytics.overview(&query).await.unwrap();
            assert_eq!((overview.starts_ms.len(), overview.step_ms), (288, WINDOW_MS));
            for series in &overview.series {
                assert_eq!(series.bytes.len(), 288);
                assert_eq!(series.bytes.iter().sum::<u64>(), series.total_bytes);
            }
            let shown = overview
                .series
                .into_iter()
                .map(|series| (series.key, series.total_bytes));
            shown.collect::<Vec<_>>()
        }
    };
    let is = |shown: Vec<(String, u64)>, expected: &[(&str, u64)]| {
        let shown: Vec<(&str, u64)> = shown.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect();
        assert_eq!(shown, expected);
    };
    is(
        overview(Dimension::Service, 9).await,
        &[("svc_2", 1000), ("svc_1", 400), ("unattributed", 7)],
    );
    is(
        overview(Dimension::Service, 1).await,
        &[("svc_2", 1000), ("other", 407)],
    );
    is(overview(Dimension::Protocol, 9).await, &[("17", 1000), ("6", 407)]);
    is(overview(Dimension::As, 9).await, &[("64501", 1000), ("64500", 407)]);
    is(
        overview(Dimension::Interface, 9).await,
        &[("198.51.100.1 3", 1000), ("198.51.100.1 1", 407)],
    );
}
