//! Who may see the pages of staff (S1), and what the overview shows of stored flows.

use axum::http::StatusCode;

use crate::auth::Role;
use crate::testing::world::World;

const OPS: &[Role] = &[Role::Ops, Role::Network, Role::Admin];
const FINANCE: &[Role] = &[Role::Finance, Role::Admin];

/// Every route of staff with the roles that may see it.
const ROUTES: [(&str, &[Role]); 9] = [
    ("/ops", OPS),
    ("/api/v1/ops/overview", OPS),
    ("/exporters", OPS),
    ("/exporters/list", OPS),
    ("/api/v1/exporters", OPS),
    ("/finance", FINANCE),
    ("/finance/invoices.csv", FINANCE),
    ("/finance/invoices/inv_1", FINANCE),
    ("/finance/ledger", FINANCE),
];

#[tokio::test]
async fn s1_each_route_of_staff_is_open_to_its_roles_only() {
    let world = World::new().await;
    let staff = [Role::Ops, Role::Network, Role::Finance, Role::Admin];
    for role in staff {
        world.portal.user(role.name(), role, None).await;
    }
    for role in staff {
        let mut browser = world.portal.signed_in(role.name()).await;
        for (path, roles) in ROUTES {
            let expected = if roles.contains(&role) {
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(browser.get(path).await.status, expected, "{role} {path}");
        }
    }
    let mut customer = world.portal.signed_in("ada").await;
    let mut anonymous = world.portal.browser();
    for (path, _) in ROUTES {
        let answer = customer.get(path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "customer {path}");
        assert!(!answer.body.contains("bobs-blog"), "{path}");
        let expected = if path.starts_with("/api/") {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::SEE_OTHER
        };
        assert_eq!(anonymous.get(path).await.status, expected, "anonymous {path}");
    }
}

#[tokio::test]
async fn the_overview_stacks_stored_flows_by_every_dimension() {
    let world = World::new().await;
    world.portal.user("ops", Role::Ops, None).await;
    let mut browser = world.portal.signed_in("ops").await;
    let mut totals = Vec::new();
    for (by, name) in [
        ("service", "edge-cache"),
        ("protocol", "not reported"),
        ("as", "AS64500"),
    ] {
        let json = browser
            .get(&format!("/api/v1/ops/overview?range=7d&by={by}"))
            .await
            .json();
        let series = json["series"].as_array().unwrap();
        assert!(!series.is_empty(), "{by}");
        let total: u64 = series
            .iter()
            .map(|series| series["total_bytes"].as_u64().unwrap())
            .sum();
        assert_eq!(json["total_bytes"].as_u64().unwrap(), total, "{by}");
        assert_eq!(
            series[0]["bits_per_second"].as_array().unwrap().len(),
            json["starts_ms"].as_array().unwrap().len()
        );
        totals.push(total);
        let page = browser.get(&format!("/ops?range=7d&by={by}")).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains(name) || by == "protocol", "{by}: {name}");
        assert!(page.body.contains("id=\"overview-data\""));
    }
    assert_eq!(totals[1], totals[2], "the same flows, whatever they are stacked by");
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_is_told() {
    let world = World::new().await;
    world.portal.user("ops", Role::Ops, None).await;
    let mut browser = world.portal.signed_in("ops").await;
    let page = browser.get("/ops?range=2h").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("Showing the last 24 hours: range is one of"));
    let api = browser.get("/api/v1/ops/overview?range=2h").await;
    assert_eq!(api.status, StatusCode::BAD_REQUEST);
    assert_eq!(api.header("content-type"), "application/problem+json");
    let limit = browser.get("/api/v1/ops/overview?limit=1000").await;
    assert_eq!(limit.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn without_traffic_the_pages_say_so() {
    let portal = crate::testing::TestPortal::new().await;
    portal.user("adm", Role::Admin, None).await;
    let mut browser = portal.signed_in("adm").await;
    assert!(
        browser
            .get("/ops")
            .await
            .body
            .contains("Nothing was metered in this range")
    );
    assert!(browser.get("/finance").await.body.contains("No invoices yet"));
    assert!(
        browser
            .get("/finance/ledger")
            .await
            .body
            .contains("Nothing was posted yet")
    );
}
