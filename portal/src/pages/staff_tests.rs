//! Who may see the pages of staff (S1), and what the overview shows of stored flows.

use axum::http::{Request, StatusCode};
use schemas::assignment::Target;
use schemas::inventory::assign;

use crate::auth::Role;
use crate::testing::NOW_MS;
use crate::testing::world::{START_MS, World};

const OPS: &[Role] = &[Role::Ops, Role::Network, Role::Admin];
const FINANCE: &[Role] = &[Role::Finance, Role::Admin];

/// Every route of staff with the roles that may see it.
const ROUTES: [(&str, &[Role]); 13] = [
    (
        "/search?q=edge",
        &[Role::Ops, Role::Network, Role::Finance, Role::Admin],
    ),
    ("/ops", OPS),
    ("/ops/services/svc_3", OPS),
    ("/ops/services/svc_3/usage.csv", OPS),
    ("/api/v1/ops/overview", OPS),
    ("/api/v1/ops/services/svc_3/usage", OPS),
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
    // The one route whose last id is known only here.
    let line = format!("/finance/invoices/{}/lines/{}", world.invoice_of_ada, world.usage_line);
    let mut routes = ROUTES.to_vec();
    routes.push((&line, FINANCE));
    for role in staff {
        let mut browser = world.portal.signed_in(role.name()).await;
        for (path, roles) in &routes {
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
    for (path, _) in &routes {
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
async fn staff_see_one_service_as_its_customer_does_and_who_meters_it() {
    let world = World::new().await;
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    for (prefix, to_ms) in [("10.0.0.1/32", None), ("10.9.0.0/24", Some(NOW_MS - 1))] {
        let target = Target::Prefix(prefix.parse().unwrap());
        assign(&mut transaction, world.transfer, target, START_MS, to_ms, NOW_MS)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    world.portal.user("ops", Role::Ops, None).await;
    let mut ops = world.portal.signed_in("ops").await;
    let mut ada = world.portal.signed_in("ada").await;

    let overview = ops.get("/ops?range=7d").await;
    let link = format!("/ops/services/{}?range=7d", world.transfer);
    assert!(overview.body.contains(&format!("href=\"{link}\"")), "{}", overview.body);
    let page = ops.get(&link).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    for text in [
        "db-primary",
        "cus_1",
        "10.0.0.1/32",
        "any exporter",
        "198.51.100.7",
        "AS64500",
        "99.4 %",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    assert!(
        !page.body.contains("10.9.0.0/24"),
        "what it held before is not held now"
    );
    assert!(!page.body.contains("USD"), "what it costs is not for ops");

    let query = "range=7d&step=day";
    let seen = ops
        .get(&format!("/api/v1/ops/services/{}/usage?{query}", world.transfer))
        .await;
    let own = ada
        .get(&format!("/api/v1/services/{}/usage?{query}", world.transfer))
        .await;
    assert_eq!(seen.json(), own.json());
    let csv = ops
        .get(&format!("/ops/services/{}/usage.csv?{query}", world.transfer))
        .await;
    let own = ada.get(&format!("/usage/{}/usage.csv?{query}", world.transfer)).await;
    assert!(csv.body.lines().count() > 7);
    assert_eq!(csv.body, own.body);

    for missing in [
        "/ops/services/svc_99",
        "/ops/services/7",
        "/api/v1/ops/services/svc_99/usage",
    ] {
        assert_eq!(ops.get(missing).await.status, StatusCode::NOT_FOUND, "{missing}");
    }
    let refused = ops.get(&format!("/ops/services/{}?range=soon", world.transfer)).await;
    assert!(refused.body.contains("ez-alert"), "the default is shown, and why");
}

#[tokio::test]
async fn finance_opens_the_explanation_that_the_customer_sees() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let mut ada = world.portal.signed_in("ada").await;
    let (invoice, line) = (world.invoice_of_ada, world.usage_line);

    let path = format!("/finance/invoices/{invoice}/lines/{line}");
    let shown = finance.get(&format!("/finance/invoices/{invoice}")).await;
    assert!(shown.body.contains(&format!("hx-get=\"{path}\"")), "{}", shown.body);
    let whole = finance.get(&path).await;
    assert!(whole.body.contains("<html") && whole.body.contains(&format!("href=\"/finance/invoices/{invoice}\"")));

    let asked = |path: String| Request::get(path).header("hx-request", "true");
    let fragment = finance.send(asked(path), String::new()).await;
    let own = ada
        .send(asked(format!("/invoices/{invoice}/lines/{line}")), String::new())
        .await;
    assert!(fragment.body.contains("198.51.100.7"));
    assert_eq!(fragment.body, own.body);

    let mixed = format!("/finance/invoices/{}/lines/{line}", world.invoice_of_bob);
    assert_eq!(
        finance.get(&mixed).await.status,
        StatusCode::NOT_FOUND,
        "a line belongs to its invoice"
    );
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_is_told() {
    let world = World::new().await;
    world.portal.user("ops", Role::Ops, None).await;
    let mut browser = world.portal.signed_in("ops").await;
    let page = browser.get("/ops?range=2h").await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.body.contains("Showing the last 24 hours: range is one of"));
    // What was typed need not be typed again.
    let service = format!("/ops/services/{}", world.transfer);
    for path in ["/ops", service.as_str()] {
        let address = format!("{path}?from=2025-06-10T10:00&to=2025-06-10T09:00");
        let page = browser.get(&address).await.body;
        for typed in ["value=\"2025-06-10T10:00\"", "value=\"2025-06-10T09:00\""] {
            assert!(page.contains(typed), "{path} {typed}: {page}");
        }
    }
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
