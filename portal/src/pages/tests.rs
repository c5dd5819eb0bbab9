//! A customer's pages and API over real stored flows, and S1 for every one of their routes.

use axum::http::{Request, StatusCode};

use crate::auth::Role;
use crate::testing::world::{GAP_MS, START_MS, World};
use crate::testing::{NOW_MS, TestPortal};

/// Every route of a customer that names something of theirs, as addresses of the given ids.
fn owned(service: &str, invoice: &str, line: &str) -> Vec<String> {
    vec![
        format!("/usage/{service}"),
        format!("/usage/{service}/usage.csv"),
        format!("/invoices/{invoice}"),
        format!("/invoices/{invoice}/pdf"),
        format!("/invoices/{invoice}/xml"),
        format!("/invoices/{invoice}/lines/{line}"),
        format!("/api/v1/services/{service}/usage"),
        format!("/api/v1/services/{service}/period"),
        format!("/api/v1/invoices/{invoice}"),
        format!("/api/v1/invoices/{invoice}/pdf"),
        format!("/api/v1/invoices/{invoice}/xml"),
        format!("/api/v1/invoices/{invoice}/lines/{line}/explain"),
    ]
}

#[tokio::test]
async fn s1_what_belongs_to_another_is_not_found_by_any_route() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let mut bob = world.portal.signed_in("bob").await;
    let service = world.transfer.to_string();
    let invoice = world.invoice_of_ada.to_string();
    let line = world.usage_line.to_string();
    let missing = owned("svc_99", "inv_99", "inl_99");
    for (path, missing) in owned(&service, &invoice, &line).iter().zip(missing) {
        let own = ada.get(path).await;
        assert_eq!(own.status, StatusCode::OK, "{path}: {}", own.body);
        let foreign = bob.get(path).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{path}");
        let absent = bob.get(&missing).await;
        assert_eq!(foreign.body, absent.body, "{path} must not tell that it exists");
        assert!(!world.portal.browser().get(path).await.status.is_success(), "{path}");
    }
    // A line of ada's under an invoice of bob's own.
    let mixed = format!("/invoices/{}/lines/{line}", world.invoice_of_bob);
    assert_eq!(bob.get(&mixed).await.status, StatusCode::NOT_FOUND);
    let mixed = format!("/api/v1/invoices/{}/lines/{line}/explain", world.invoice_of_bob);
    assert_eq!(bob.get(&mixed).await.status, StatusCode::NOT_FOUND);
    // Naming another customer in the address changes nothing.
    let path = format!("/usage/{service}?customer={}&customer_id={}", world.ada, world.ada.0);
    assert_eq!(bob.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn s1_lists_hold_only_what_is_ones_own() {
    let world = World::new().await;
    let mut bob = world.portal.signed_in("bob").await;
    for path in [
        "/usage",
        "/usage?q=db",
        "/invoices",
        "/invoices/invoices.csv",
        "/api/v1/services",
        "/api/v1/invoices",
    ] {
        let answer = bob.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        for foreign in ["db-primary", "edge-cache", "svc_1\"", "ada@"] {
            assert!(!answer.body.contains(foreign), "{path} shows {foreign}");
        }
    }
    let listed = bob.get("/api/v1/invoices").await.json();
    let ids: Vec<&str> = listed["invoices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [world.invoice_of_bob.to_string()]);
    assert!(bob.get("/usage").await.body.contains("bobs-blog"));
    assert!(
        bob.get(&format!("/usage/{}", world.flat))
            .await
            .body
            .contains("flat rate")
    );
}

#[tokio::test]
async fn staff_cannot_use_a_customer_s_routes() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut staff = world.portal.signed_in("fin").await;
    let paths = owned(
        &world.transfer.to_string(),
        &world.invoice_of_ada.to_string(),
        &world.usage_line.to_string(),
    );
    for path in paths {
        assert_eq!(staff.get(&path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn the_series_names_gaps_and_never_counts_them_as_zero() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let (from, to) = (GAP_MS - 3_600_000, GAP_MS + 7_200_000);
    let path = format!(
        "/api/v1/services/{}/usage?from={from}&to={to}&step=hour",
        world.transfer
    );
    let series = ada.get(&path).await.json();
    let measured: Vec<u64> = series["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["windows_measured"].as_u64().unwrap())
        .collect();
    assert_eq!(measured, [12, 0, 12]);
    assert_eq!(series["gaps"][0]["from_ms"], GAP_MS);
    assert_eq!(series["gaps"][0]["to_ms"], GAP_MS + 3_600_000);
    assert_eq!(series["percentile_95_bps"], serde_json::Value::Null, "not billed by it");
    // 02:00 UTC: 45 % of 600 MB received, to the byte of the sampled flows.
    let bytes: u64 = [46u64, 31, 17, 6]
        .iter()
        .map(|percent| 270_000_000 * percent / 100 / 1000 * 1000)
        .sum();
    assert_eq!(series["points"][0]["bytes_in"], bytes);
    assert_eq!(series["points"][0]["bytes_out"], 2 * bytes);

    let page = ada
        .get(&format!("/usage/{}?from={from}&to={to}&step=hour", world.transfer))
        .await;
    assert!(page.body.contains("not measured") && page.body.contains("any exporter"));
    let csv = ada
        .get(&format!(
            "/usage/{}/usage.csv?from={from}&to={to}&step=hour",
            world.transfer
        ))
        .await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let rows: Vec<&str> = csv.body.lines().collect();
    assert_eq!(
        rows[0],
        "start,end,bytes_in,bytes_out,windows_measured,windows,error_bound_ppm"
    );
    assert_eq!(
        rows[1],
        // Not quite 600 sampled packets: 196 % / √600 is 8.00 %.
        format!(
            "2025-06-10T02:00:00Z,2025-06-10T03:00:00Z,{bytes},{},12,12,80178",
            2 * bytes
        )
    );
    assert_eq!(rows[2], "2025-06-10T03:00:00Z,2025-06-10T04:00:00Z,0,0,0,12,0");
}

#[tokio::test]
async fn a_period_to_date_is_projected_and_priced() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let period = ada
        .get(&format!("/api/v1/services/{}/period", world.transfer))
        .await
        .json();
    assert_eq!(period["service"], world.transfer.to_string());
    let billed = period["billed_bytes"].as_u64().unwrap();
    let measured = period["windows_measured"].as_u64().unwrap();
    assert_eq!(
        period["windows_expected"].as_u64().unwrap() - measured,
        12,
        "the hour's gap"
    );
    assert_eq!(
        billed,
        period["bytes_in"].as_u64().unwrap() + period["bytes_out"].as_u64().unwrap()
    );
    let projected = period["projected_bytes"].as_u64().unwrap();
    assert_eq!(projected, billed * (30 * 288) / measured);
    // USD 0.05 per GB over 1000 GB, rounded half away from zero to the cent.
    let over = projected.saturating_sub(1_000_000_000_000);
    assert!(over > 0 && billed < 1_000_000_000_000, "{billed} {projected}");
    let cents = (u128::from(over) * 5 * 2 / 1_000_000_000).div_ceil(2);
    assert_eq!(
        period["cost_projected"]["minor"].as_u64().unwrap(),
        u64::try_from(cents).unwrap()
    );
    assert_eq!(period["cost_so_far"]["minor"], 0);

    let by_percentile = ada
        .get(&format!("/api/v1/services/{}/usage", world.percentile))
        .await
        .json();
    assert_eq!(by_percentile["commit_bps"], 5_000_000);
    assert!(by_percentile["percentile_95_bps"].as_u64().unwrap() > 5_000_000);
    let page = ada.get("/usage").await;
    assert!(
        page.body.contains("forecast ") && page.body.contains("5.00 Mbit/s"),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn an_invoice_line_is_explained_down_to_days_and_peers() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let base = format!("/api/v1/invoices/{}", world.invoice_of_ada);
    let invoice = ada.get(&base).await.json();
    let lines = invoice["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 4);
    let sum: i64 = lines.iter().map(|line| line["amount"]["minor"].as_i64().unwrap()).sum();
    assert_eq!(sum, invoice["subtotal"]["minor"].as_i64().unwrap(), "B2");

    let explained = ada
        .get(&format!("{base}/lines/{}/explain", world.usage_line))
        .await
        .json();
    let days = explained["days"].as_array().unwrap();
    assert_eq!(days.len(), 31);
    let by_day: u64 = days.iter().map(|day| day["billed_bytes"].as_u64().unwrap()).sum();
    assert_eq!(
        by_day,
        explained["measured"]["billed_bytes"].as_u64().unwrap(),
        "B5: the days add up"
    );
    let peers = explained["peers"].as_array().unwrap();
    assert_eq!(peers[0]["address"], "198.51.100.7");
    assert_eq!(peers[0]["autonomous_system"], 64_500);

    let path = format!("/invoices/{}/lines/{}", world.invoice_of_ada, world.usage_line);
    let whole = ada.get(&path).await;
    assert!(whole.body.contains("<html") && whole.body.contains("198.51.100.7"));
    let fragment = ada
        .send(Request::get(&path).header("hx-request", "true"), String::new())
        .await;
    assert!(!fragment.body.contains("<html") && fragment.body.contains("AS64500"));
    assert_eq!(fragment.header("vary"), "HX-Request");
    // The base line has nothing to explain.
    let base_line = lines.iter().find(|line| line["kind"] == "base").unwrap()["id"]
        .as_str()
        .unwrap();
    let answer = ada.get(&format!("{base}/lines/{base_line}/explain")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn volumes_of_a_service_are_told_in_the_units_of_its_plan() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let usage = format!("/api/v1/services/{}/usage", world.transfer);
    assert_eq!(ada.get(&usage).await.json()["volume_units"], "decimal");
    sqlx::query("UPDATE plans SET quota_unit = 'GiB' WHERE billing_model = 'transfer'")
        .execute(world.portal.state.db().pool())
        .await
        .unwrap();
    assert_eq!(ada.get(&usage).await.json()["volume_units"], "binary");
    let page = ada.get(&format!("/usage/{}", world.transfer)).await.body;
    assert!(page.contains(" GiB") && !page.contains(" GB"), "{page}");
    // One family of units on the list, that of the plans that sell transfer; what was invoiced keeps the plan's as it was.
    let list = ada.get("/usage").await.body;
    assert!(list.contains(" GiB") && !list.contains(" GB"), "{list}");
    let line = format!("/invoices/{}/lines/{}", world.invoice_of_ada, world.usage_line);
    let line = ada.get(&line).await.body;
    assert!(line.contains(" GB") && !line.contains("GiB"), "{line}");
}

#[tokio::test]
async fn limits_of_the_api_are_told_as_problems_and_on_the_page() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let usage = format!("/api/v1/services/{}/usage", world.transfer);
    for query in [
        format!("from={START_MS}&to={}", START_MS + 500 * 86_400_000),
        format!("from={START_MS}&to={NOW_MS}&step=five_minutes"),
        "from=soon".to_owned(),
        "range=forever".to_owned(),
        format!("from={NOW_MS}&to={NOW_MS}"),
    ] {
        let answer = ada.get(&format!("{usage}?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let page = ada.get(&format!("/usage/{}?{query}", world.transfer)).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(page.body.contains("alert-warning"), "{query}");
    }
    for query in ["limit=0", "limit=101", "limit=many", "before=inv_x"] {
        let answer = ada.get(&format!("/api/v1/invoices?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn names_are_escaped_and_empty_accounts_are_helped() {
    let portal = TestPortal::new().await;
    let eve = portal.customer("eve").await;
    let mut browser = portal.signed_in("eve").await;
    assert!(browser.get("/usage").await.body.contains("No services yet"));
    assert!(browser.get("/invoices").await.body.contains("No invoices yet"));
    sqlx::query(
        "INSERT INTO services (id, customer_id, name, service_type, status, created_at_ms) \
         VALUES (7, $1, '<script>alert(1)</script>', 'vps', 'active', 0)",
    )
    .bind(eve.0)
    .execute(portal.state.db().pool())
    .await
    .unwrap();
    for path in ["/usage", "/usage/svc_7"] {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(!page.body.contains("<script>alert"), "{path}");
        assert!(page.body.contains("alert(1)"), "{path}");
    }
}

#[tokio::test]
async fn pages_have_nothing_inline() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let mut paths = vec!["/usage".to_owned(), "/invoices".to_owned(), "/account".to_owned()];
    paths.push(format!("/usage/{}", world.transfer));
    paths.push(format!("/invoices/{}", world.invoice_of_ada));
    for path in paths {
        let body = ada.get(&path).await.body;
        assert!(
            !body.contains(" style=") && !body.contains("<style") && !body.contains(" onclick="),
            "{path}"
        );
        for script in body.split("<script").skip(1) {
            let (attributes, rest) = script.split_once('>').unwrap();
            assert!(
                attributes.contains("src=\"/assets/") && rest.starts_with("</script>"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn an_invoice_comes_as_pdf_and_xml_and_says_what_is_open() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let address = format!("/invoices/{}", world.invoice_of_ada);
    let number = billing::invoice::get(world.portal.state.db(), world.invoice_of_ada)
        .await
        .unwrap()
        .invoice
        .number;
    let pdf = ada.get(&format!("{address}/pdf")).await;
    assert_eq!(pdf.header("content-type"), "application/pdf");
    assert_eq!(
        pdf.header("content-disposition"),
        format!("attachment; filename=\"{number}.pdf\"")
    );
    assert!(pdf.body.starts_with("%PDF-"));
    let xml = ada.get(&format!("{address}/xml")).await;
    assert_eq!(xml.header("content-type"), "application/xml");
    assert!(xml.body.contains(&number) && xml.body.contains("Invoice"));
    for (form, page) in [("pdf", &pdf), ("xml", &xml)] {
        let by_api = ada.get(&format!("/api/v1{address}/{form}")).await;
        assert_eq!(by_api.body, page.body, "{form}");
        for name in ["content-type", "content-disposition"] {
            assert_eq!(by_api.header(name), page.header(name), "{form} {name}");
        }
    }
    let page = ada.get(&address).await.body;
    assert!(
        page.contains(">open</span>") && page.contains("Contact us to pay this invoice"),
        "{page}"
    );
    // A month later it is overdue, in the list too.
    world.portal.advance_ms(31 * 24 * 3_600_000);
    let mut ada = world.portal.signed_in("ada").await;
    assert!(ada.get("/invoices").await.body.contains(">overdue</span>"));
    // Paying with nobody's method, or without one of one's own, is not found (S1).
    let token = ada.get("/account").await.csrf_token();
    let fresh = "b".repeat(64);
    let form = [
        ("csrf_token", token.as_str()),
        ("form_token", &fresh),
        ("method", "pm_1"),
    ];
    assert_eq!(
        ada.post(&format!("{address}/pay"), &form).await.status,
        StatusCode::NOT_FOUND
    );
    let mut bob = world.portal.signed_in("bob").await;
    let token = bob.get("/account").await.csrf_token();
    let form = [
        ("csrf_token", token.as_str()),
        ("form_token", &fresh),
        ("method", "pm_1"),
    ];
    assert_eq!(
        bob.post(&format!("{address}/pay"), &form).await.status,
        StatusCode::NOT_FOUND
    );
    assert!(
        bob.get("/payment-methods")
            .await
            .body
            .contains("No payment methods yet")
    );
    for path in ["/payment-methods/pm_1/default", "/payment-methods/pm_1/remove"] {
        assert_eq!(
            bob.post(path, &[("csrf_token", &token)]).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_payment_without_a_page_to_confirm_it_on_offers_to_begin_it_anew() {
    let world = World::new().await;
    let method = world.portal.card(world.ada, "pm_1").await;
    sqlx::query(
        "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, method_id, currency, amount_minor, idempotency_key, \
         state, action_url, error, calls, note, created_at_ms, updated_at_ms) \
         VALUES (1, $1, $2, 'invoice', 'stripe', $3, 'USD', 100, 'key-1', 'requires_action', '', '', 1, '', $4, $4)",
    )
    .bind(world.ada.0)
    .bind(world.invoice_of_ada.0)
    .bind(method.0)
    .bind(NOW_MS)
    .execute(world.portal.state.db().pool())
    .await
    .unwrap();
    let mut ada = world.portal.signed_in("ada").await;
    let page = format!("/invoices/{}", world.invoice_of_ada);
    let shown = ada.get(&page).await;
    assert!(
        shown.body.contains("/payments/pay_1/confirm") && shown.body.contains("Confirm payment"),
        "{}",
        shown.body
    );
    // S1: it is not another customer's to begin.
    let mut bob = world.portal.signed_in("bob").await;
    let token = bob.get("/account").await.csrf_token();
    let form_token = "c".repeat(64);
    let form = [("csrf_token", token.as_str()), ("form_token", form_token.as_str())];
    assert_eq!(
        bob.post("/payments/pay_1/confirm", &form).await.status,
        StatusCode::NOT_FOUND
    );
}
