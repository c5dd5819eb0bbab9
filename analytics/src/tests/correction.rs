//! Backdated changes of assignments.

use schemas::assignment::{Assignment, Assignments, Target};
use schemas::metering::{Enricher, MeteringConfig};

use super::*;

fn enricher(assignments: &[(u32, &str, i64, Option<i64>)]) -> Enricher {
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
    Enricher::new(&config, Arc::new(Assignments::new(assignments).unwrap()))
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
