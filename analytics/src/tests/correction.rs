//! Backdated changes of assignments.

use std::sync::Arc;

use schemas::assignment::{Assignment, Assignments, Target};
use schemas::metering::correction::{Correction, CorrectionSettings};
use schemas::metering::{ExporterConfig, MeterMode, MeteringConfig};
use tables::metering::Enricher;

use super::*;

fn enricher(assignments: &[(u32, &str, i64, Option<i64>)]) -> Arc<Enricher> {
    let config = MeteringConfig {
        own_networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..MeteringConfig::default()
    };
    let assignments = assignments.iter().map(|(service, net, from_ms, to_ms)| Assignment {
        service: *service,
        target: Target::Prefix(net.parse().unwrap()),
        valid_from_ms: *from_ms,
        valid_to_ms: *to_ms,
    });
    Arc::new(Enricher::new(&config, Arc::new(Assignments::new(assignments).unwrap())))
}

async fn by_service(fixture: &Fixture) -> serde_json::Value {
    let query = "SELECT service, sum(bytes_in) AS bytes FROM usage_5m GROUP BY service ORDER BY service";
    fixture.json(query).await
}

#[tokio::test]
async fn a_backdated_assignment_moves_the_usage() {
    let fixture = Fixture::new();
    let unassigned = enricher(&[]);
    let flows: Vec<Flow> = (0..4)
        .map(|hour| {
            let mut flow = received(0, T0 + hour * HOUR, 1 << hour);
            unassigned.enrich(&mut flow);
            flow
        })
        .collect();
    assert!(
        flows
            .iter()
            .all(|flow| flow.metered == Metered::In && flow.dst_service == 0)
    );
    for pair in flows.chunks(2) {
        fixture.add_flows(pair);
    }
    fixture.refresh().await;
    assert_eq!(
        by_service(&fixture).await,
        serde_json::json!([{"service": 0, "bytes": 15}])
    );

    // The address belonged to service 7 from the second hour on; the last hour is not part of the correction.
    let backdated = enricher(&[(7, "192.0.2.1/32", T0 + HOUR, None)]);
    let summary = fixture
        .analytics
        .reattribute(&backdated, T0, T0 + 3 * HOUR)
        .await
        .unwrap();
    assert_eq!(
        (summary.flows_judged, summary.flows_changed, summary.files_rewritten),
        (3, 2, 2)
    );
    let refresh = fixture.refresh().await;
    assert!(refresh.windows_recomputed > 0);
    assert_eq!(
        by_service(&fixture).await,
        serde_json::json!([{"service": 0, "bytes": 9}, {"service": 7, "bytes": 6}])
    );
    assert!(fixture.analytics.verify_u2(T0 - DAY, T0 + DAY).await.unwrap().holds());
    assert_eq!(
        fixture.json("SELECT count(*) AS n FROM flows").await[0]["n"],
        4,
        "no row is lost or doubled"
    );

    let again = fixture
        .analytics
        .reattribute(&backdated, T0, T0 + 3 * HOUR)
        .await
        .unwrap();
    assert_eq!(
        (again.flows_judged, again.flows_changed, again.files_rewritten),
        (3, 0, 0)
    );
    assert_eq!(fixture.refresh().await.windows_recomputed, 0);
}

/// U1: a router that is not metered any more was metered then, and a backdated assignment says whose its flows were, no more.
#[tokio::test]
async fn a_backdated_assignment_takes_no_later_configuration_for_that_of_the_flows() {
    let fixture = Fixture::new();
    let mut flow = received(0, T0, 15);
    enricher(&[]).enrich(&mut flow);
    assert_eq!(flow.metered, Metered::In);
    fixture.add_flows(&[flow]);
    fixture.refresh().await;
    let config = MeteringConfig {
        exporters: vec![ExporterConfig {
            meter: MeterMode::Off,
            ..ExporterConfig::unlisted(flow.exporter)
        }],
        ..MeteringConfig::default()
    };
    let held = Assignment {
        service: 7,
        target: Target::Prefix("192.0.2.1/32".parse().unwrap()),
        valid_from_ms: 0,
        valid_to_ms: None,
    };
    let now = Arc::new(Enricher::new(&config, Arc::new(Assignments::new([held]).unwrap())));
    let summary = fixture.analytics.reattribute(&now, T0 - DAY, T0 + DAY).await.unwrap();
    assert_eq!((summary.flows_judged, summary.flows_changed), (1, 1));
    fixture.refresh().await;
    assert_eq!(
        by_service(&fixture).await,
        serde_json::json!([{"service": 7, "bytes": 15}])
    );
    // A name that some interface got means nothing to flows whose sides were known, nor to other exporters' flows.
    for exporters in [[flow.exporter].into(), std::collections::HashSet::new()] {
        let named = fixture
            .analytics
            .judge_unknown_sides(&now, exporters, T0 - DAY)
            .await
            .unwrap();
        assert_eq!(named.flows_changed, 0);
    }
    assert!(fixture.analytics.verify_u2(T0 - DAY, T0 + DAY).await.unwrap().holds());
}

/// U1: what a correction says of the boundary holds whenever a flow is judged, and a backdated assignment keeps it.
#[tokio::test]
async fn a_corrected_boundary_outlives_a_backdated_assignment() {
    let fixture = Fixture::new();
    let exporter = received(0, T0, 1).exporter;
    let config = |corrections: Vec<Correction>| MeteringConfig {
        exporters: vec![ExporterConfig {
            meter: MeterMode::Boundary,
            external_interfaces: vec![9],
            ..ExporterConfig::unlisted(exporter)
        }],
        corrections,
        ..MeteringConfig::default()
    };
    let holds = |service: u32| {
        let held = Assignment {
            service,
            target: Target::Prefix("192.0.2.1/32".parse().unwrap()),
            valid_from_ms: 0,
            valid_to_ms: None,
        };
        Arc::new(Assignments::new([held]).unwrap())
    };
    let flows: Vec<Flow> = (0..3)
        .map(|hour| {
            let mut flow = Flow {
                in_if: 1,
                out_if: 2,
                ..received(0, T0 + hour * HOUR, 1 << hour)
            };
            Enricher::new(&config(Vec::new()), holds(7)).enrich(&mut flow);
            flow
        })
        .collect();
    assert!(
        flows.iter().all(|flow| flow.metered == Metered::No),
        "interface 1 is internal"
    );
    fixture.add_flows(&flows);
    fixture.refresh().await;
    assert_eq!(by_service(&fixture).await, serde_json::json!([]));

    // Interface 1 was external in the first two hours.
    let correction = Correction {
        exporter,
        from_ms: T0,
        to_ms: T0 + 2 * HOUR,
        settings: CorrectionSettings {
            external_interfaces: Some([1].into()),
            ..CorrectionSettings::default()
        },
    };
    let corrected = Arc::new(Enricher::new(&config(vec![correction.clone()]), holds(7)));
    let rehearsed = fixture
        .analytics
        .rehearse_correction(&correction, &corrected, |_| {})
        .await
        .unwrap();
    assert_eq!(
        (rehearsed.summary.flows_judged, rehearsed.summary.flows_changed),
        (2, 2)
    );
    assert_eq!(rehearsed.services[&7].1.bytes_in, 3);
    assert_eq!(
        fixture.refresh().await.windows_recomputed,
        0,
        "a rehearsal writes nothing"
    );
    fixture
        .analytics
        .apply_correction(&correction, &corrected, |_| {})
        .await
        .unwrap();
    fixture.refresh().await;
    assert_eq!(
        by_service(&fixture).await,
        serde_json::json!([{"service": 7, "bytes": 3}])
    );

    let backdated = Arc::new(Enricher::new(&config(vec![correction]), holds(8)));
    fixture
        .analytics
        .reattribute(&backdated, T0 - DAY, T0 + DAY)
        .await
        .unwrap();
    fixture.refresh().await;
    assert_eq!(
        by_service(&fixture).await,
        serde_json::json!([{"service": 8, "bytes": 3}])
    );
    assert!(fixture.analytics.verify_u2(T0 - DAY, T0 + DAY).await.unwrap().holds());
}

/// A span that becomes shorter leaves the windows it had a share in, and one that becomes longer reaches new ones.
#[tokio::test]
async fn a_corrected_active_timeout_moves_usage_between_windows_and_loses_none() {
    let fixture = Fixture::new();
    let holder = enricher(&[(7, "192.0.2.1/32", 0, None)]);
    let mut flow = Flow {
        start_at_ms: T0,
        ..received(0, T0 + 2 * HOUR, 2_400)
    };
    holder.enrich(&mut flow);
    fixture.add_flows(&[flow]);
    fixture.refresh().await;
    let windows = "SELECT count(*) AS n, CAST(sum(bytes_in) AS BIGINT) AS bytes FROM usage_5m";
    let spread = fixture.json(windows).await;
    assert_eq!(spread[0]["bytes"], 2_400);
    assert!(spread[0]["n"].as_u64().unwrap() >= 24, "{spread}");
    let correction = |seconds| Correction {
        exporter: flow.exporter,
        from_ms: T0,
        to_ms: T0 + DAY,
        settings: CorrectionSettings {
            active_timeout_s: Some(seconds),
            ..CorrectionSettings::default()
        },
    };
    for (seconds, windows_max) in [(60, 2), (0, 25)] {
        fixture
            .analytics
            .apply_correction(&correction(seconds), &holder, |_| {})
            .await
            .unwrap();
        fixture.refresh().await;
        let now = fixture.json(windows).await;
        assert_eq!(now[0]["bytes"], 2_400, "{seconds} s: nothing appears, nothing vanishes");
        assert!(now[0]["n"].as_u64().unwrap() <= windows_max, "{seconds} s: {now}");
        assert!(fixture.analytics.verify_u2(T0 - DAY, T0 + DAY).await.unwrap().holds());
    }
    assert_eq!(fixture.json(windows).await, spread, "as it was");
}
