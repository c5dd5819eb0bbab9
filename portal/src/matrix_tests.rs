//! Every route × every role × another tenant, over the table of endpoints, of which the router is made (S1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use activity::act::By;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use schemas::ids::{CustomerId, UserId};
use sqlx::Row as _;
use tower::ServiceExt as _;

use crate::admission::Cost;
use crate::auth::{self, Role, TokenTerms, issue_token, user_named};
use crate::endpoints::parameters::{names_in, parameter};
use crate::endpoints::{Access, ENDPOINTS, Endpoint, Proof, Tenants, unguarded};
use crate::testing::world::World;
use crate::testing::{Answer, Browser, NOW_MS, PASSWORD};

/// What a form says that did not come from our page.
const NOT_OURS: &str = "did not come from this site";
/// Methods that a route could take.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A world in which everything that a customer can have is there, of two customers.
struct Host {
    world: World,
    ada: Vec<(&'static str, String)>,
    bob: Vec<(&'static str, String)>,
}

impl Host {
    async fn new() -> Host {
        let world = World::new().await;
        for role in [Role::Ops, Role::Network, Role::Finance, Role::Admin] {
            world.portal.user(role.name(), role, None).await;
        }
        let bob_id = CustomerId(2);
        let ada = Host::things(&world, world.ada, 1).await;
        let bob = Host::things(&world, bob_id, 2).await;
        Host { world, ada, bob }
    }

    /// What stands between braces in addresses, of one customer.
    async fn things(world: &World, customer: CustomerId, number: i64) -> Vec<(&'static str, String)> {
        let portal = &world.portal;
        let pool = portal.state.db().pool();
        let method = portal.card(customer, &format!("pm_{number}")).await;
        for sql in [
            "INSERT INTO webhook_endpoints (id, customer_id, url, secret, event_types, created_at_ms, failures) \
             VALUES ($1, $2, 'http://127.0.0.1:9/', 'whsec_x', '[\"invoice.paid\"]', 0, 0)",
            "INSERT INTO payments (id, customer_id, purpose, gateway, currency, amount_minor, idempotency_key, state, \
             action_url, error, calls, note, created_at_ms, updated_at_ms) \
             VALUES ($1, $2, 'top_up', 'stripe', 'USD', 100, 'key-' || $1, 'failed', '', '', 0, '', 0, 0)",
        ] {
            sqlx::query(sql)
                .bind(number)
                .bind(customer.0)
                .execute(pool)
                .await
                .unwrap();
        }
        let mut transaction = portal.state.db().begin_write().await.unwrap();
        let vault = portal.state.db().vault();
        let sealed = vault
            .seal(&mut transaction, schemas::secret::WEBHOOK, number, "whsec_x")
            .await
            .unwrap();
        sqlx::query("UPDATE webhook_endpoints SET secret = $1 WHERE id = $2")
            .bind(sealed)
            .bind(number)
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let ids = "SELECT (SELECT min(id) FROM invoices WHERE customer_id = $1), \
                   (SELECT max(l.id) FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id WHERE i.customer_id = $1), \
                   (SELECT min(id) FROM subscriptions WHERE customer_id = $1), \
                   (SELECT min(id) FROM services WHERE customer_id = $1)";
        let row = sqlx::query(ids).bind(customer.0).fetch_one(pool).await.unwrap();
        let id = |column: usize| row.try_get::<i64, _>(column).unwrap();
        vec![
            ("invoice", format!("inv_{}", id(0))),
            ("line", format!("inl_{}", id(1))),
            ("subscription", format!("sub_{}", id(2))),
            ("service", format!("svc_{}", id(3))),
            ("customer", customer.to_string()),
            ("method", method.to_string()),
            ("payment", format!("pay_{number}")),
            ("endpoint", format!("whk_{number}")),
            ("api_token", "tok_1".to_owned()),
            ("plan", "pln_1".to_owned()),
            ("sheet", "invoices.csv".to_owned()),
            ("name", "app.css".to_owned()),
            ("gateway", "stripe".to_owned()),
            ("step", "approve".to_owned()),
        ]
    }

    async fn browser(&self, role: Role) -> Browser {
        let name = if role == Role::Customer { "ada" } else { role.name() };
        self.world.portal.signed_in(name).await
    }
}

/// The address with somebody's things in it. What nobody has is the first of its kind.
fn address(endpoint: &Endpoint, things: &[(&'static str, String)]) -> String {
    let mut address = String::new();
    for part in endpoint.path.split_inclusive(['{', '}']) {
        match part.strip_suffix('}') {
            Some(name) => {
                let thing = things.iter().find(|(of, _)| *of == name);
                address.push_str(thing.map_or("x_1", |(_, id)| id));
            }
            None => address.push_str(part.trim_end_matches('{')),
        }
    }
    address
}

/// Whether an address names something that belongs to one customer.
fn names_a_tenants(endpoint: &Endpoint) -> bool {
    names_in(endpoint.path).any(|name| parameter(name).unwrap().is_a_customers)
}

/// Refused for want of a session.
fn asks_to_sign_in(endpoint: &Endpoint, answer: &Answer) -> bool {
    match endpoint.is_api() {
        true => answer.status == StatusCode::UNAUTHORIZED,
        false => answer.status == StatusCode::SEE_OTHER && answer.header("location").starts_with("/signin"),
    }
}

async fn send(browser: &mut Browser, endpoint: &Endpoint, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(endpoint.method).uri(path);
    if endpoint.method == "POST" {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    browser.send(request, body.to_owned()).await
}

#[tokio::test]
async fn s1_every_route_is_open_to_its_roles_and_to_nobody_else() {
    let host = Host::new().await;
    let mut requests = 0;
    for role in [Role::Customer, Role::Ops, Role::Network, Role::Finance, Role::Admin] {
        let mut browser = host.browser(role).await;
        let csrf = browser.get("/account").await.csrf_token();
        for endpoint in ENDPOINTS.iter() {
            let Some(roles) = endpoint.access.roles() else { continue };
            let path = address(endpoint, &host.ada);
            let what = format!("{role} {} {path}", endpoint.method);
            let may = roles.contains(&role);
            match endpoint.proof {
                Proof::None => {
                    let answer = send(&mut browser, endpoint, &path, &[], "").await;
                    let refused = answer.status == StatusCode::FORBIDDEN || asks_to_sign_in(endpoint, &answer);
                    assert_eq!(refused, !may, "{what}: {} {}", answer.status, answer.body);
                    assert!(!answer.status.is_server_error(), "{what}: {}", answer.body);
                }
                Proof::Csrf => {
                    // Without the token nothing is done, not even by who may; with it, not by who may not.
                    for (headers, body, is_told) in [
                        (&[][..], String::new(), may),
                        (&[], format!("csrf_token={}", "0".repeat(64)), may),
                        (
                            &[("origin", "https://evil.example")],
                            format!("csrf_token={csrf}"),
                            true,
                        ),
                        (&[("sec-fetch-site", "cross-site")], format!("csrf_token={csrf}"), true),
                    ] {
                        let answer = send(&mut browser, endpoint, &path, headers, &body).await;
                        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what} {body}: {}", answer.body);
                        assert_eq!(
                            answer.body.contains(NOT_OURS),
                            is_told,
                            "{what} {body}: {}",
                            answer.body
                        );
                        requests += 1;
                    }
                    if !may {
                        let body = format!("csrf_token={csrf}");
                        let answer = send(&mut browser, endpoint, &path, &[], &body).await;
                        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}: {}", answer.body);
                    }
                }
                Proof::PreSession | Proof::Signature => unreachable!("{what}: for these there is no session"),
            }
            requests += 1;
        }
    }
    assert!(requests > 1_400, "only {requests} requests");
}

/// A token of a user, as `Authorization` carries it.
async fn bearer(host: &Host, role: Role) -> String {
    let name = if role == Role::Customer { "ada" } else { role.name() };
    let db = host.world.portal.state.db();
    let user = user_named(db.pool(), &format!("{name}@example.net")).await.unwrap();
    let proof = auth::Proof {
        password: PASSWORD,
        code: "",
    };
    let terms = TokenTerms {
        name: "a program",
        days: 1,
    };
    let made = issue_token(db, user, proof, terms, By::program("test"), NOW_MS).await;
    format!("Bearer {}", made.unwrap().1)
}

#[tokio::test]
async fn s1_a_token_opens_by_the_api_what_its_user_may_and_no_page() {
    let host = Host::new().await;
    let mut requests = 0;
    for role in [Role::Customer, Role::Ops, Role::Network, Role::Finance, Role::Admin] {
        let bearer = bearer(&host, role).await;
        let mut session = host.browser(role).await;
        let csrf = session.get("/account").await.csrf_token();
        for endpoint in ENDPOINTS.iter() {
            let Some(roles) = endpoint.access.roles() else { continue };
            let path = address(endpoint, &host.ada);
            let what = format!("{role} {} {path}", endpoint.method);
            let show = [("authorization", bearer.as_str())];
            let body = format!("csrf_token={csrf}");
            // By itself, and beside a session that may: the token is who asks.
            let mut program = host.world.portal.browser();
            for browser in [&mut program, &mut session] {
                let answer = send(browser, endpoint, &path, &show, &body).await;
                if !endpoint.is_api() || !roles.contains(&role) {
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}: {}", answer.body);
                } else {
                    let as_session = send(browser, endpoint, &path, &[], "").await;
                    assert!(
                        answer.status.is_success() || answer.status == as_session.status,
                        "{what}: {}",
                        answer.body
                    );
                }
                requests += 1;
            }
            if endpoint.is_api()
                && names_a_tenants(endpoint)
                && endpoint.access.tenants() == Tenants::Own
                && roles.contains(&role)
            {
                let others = address(endpoint, &host.bob);
                let answer = send(&mut program, endpoint, &others, &show, "").await;
                assert_eq!(
                    answer.status,
                    StatusCode::NOT_FOUND,
                    "{what} of another: {}",
                    answer.body
                );
            }
        }
    }
    assert!(requests > 500, "only {requests} requests");
}

#[tokio::test]
async fn s1_without_a_session_only_what_is_public_is_there() {
    let host = Host::new().await;
    let mut anonymous = host.world.portal.browser();
    for endpoint in ENDPOINTS.iter() {
        let path = address(endpoint, &host.ada);
        let what = format!("{} {path}", endpoint.method);
        let answer = send(&mut anonymous, endpoint, &path, &[], "").await;
        if endpoint.access.roles().is_some() {
            assert!(
                asks_to_sign_in(endpoint, &answer),
                "{what}: {} {}",
                answer.status,
                answer.body
            );
            continue;
        }
        match (endpoint.access, endpoint.proof) {
            (_, Proof::PreSession) => {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
                assert!(answer.body.contains(NOT_OURS), "{what}: {}", answer.body);
            }
            (Access::Metrics, _) => assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}"),
            // The gateway is not configured here, the link is nobody's; signatures: `pages/payment_methods/tests.rs`.
            (Access::Signature | Access::Link, _) => assert_eq!(answer.status, StatusCode::NOT_FOUND, "{what}"),
            // Health says what is wrong, and that is no refusal.
            _ => assert!(
                !matches!(answer.status.as_u16(), 401 | 403) && answer.status != StatusCode::INTERNAL_SERVER_ERROR,
                "{what}: {}",
                answer.status
            ),
        }
    }
}

#[tokio::test]
async fn s1_another_tenants_things_are_not_found_by_any_route() {
    let host = Host::new().await;
    let mut bob = host.world.portal.signed_in("bob").await;
    let csrf = bob.get("/account").await.csrf_token();
    let body = format!("csrf_token={csrf}&form_token={}", "c".repeat(64));
    let before = books(&host).await;
    for endpoint in ENDPOINTS.iter() {
        if endpoint.access.tenants() != Tenants::Own || !names_a_tenants(endpoint) {
            continue;
        }
        let path = address(endpoint, &host.ada);
        let what = format!("{} {path}", endpoint.method);
        let answer = send(&mut bob, endpoint, &path, &[], &body).await;
        // A form that misses a field is told so before anything is looked up.
        let is_incomplete = answer.status == StatusCode::BAD_REQUEST && endpoint.proof == Proof::Csrf;
        assert!(
            answer.status == StatusCode::NOT_FOUND || is_incomplete,
            "{what}: {} {}",
            answer.status,
            answer.body
        );
        for secret in ["db-primary", "edge-cache", "ada@example.net"] {
            assert!(!answer.body.contains(secret), "{what} tells {secret}");
        }
        // His own are there, or the test would prove nothing.
        if endpoint.proof == Proof::None {
            let own = address(endpoint, &host.bob);
            let answer = send(&mut bob, endpoint, &own, &[], "").await;
            assert!(
                answer.status.is_success() || endpoint.path.contains("{line}"),
                "{own}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
    assert_eq!(books(&host).await, before, "nothing of ada's changed");
}

/// What ada has, in numbers.
async fn books(host: &Host) -> Vec<i64> {
    let sql = "SELECT (SELECT count(*) FROM invoices WHERE customer_id = $1), \
               (SELECT count(*) FROM subscriptions WHERE customer_id = $1 AND cancel_at_ms IS NULL), \
               (SELECT count(*) FROM payment_methods WHERE customer_id = $1 AND removed_at_ms IS NULL), \
               (SELECT count(*) FROM payments WHERE customer_id = $1), \
               (SELECT count(*) FROM webhook_endpoints WHERE customer_id = $1 AND secret = 'whsec_x'), \
               (SELECT count(*) FROM scheduled_changes), (SELECT count(*) FROM services)";
    let pool = host.world.portal.state.db().pool();
    let row = sqlx::query(sql).bind(host.world.ada.0).fetch_one(pool).await.unwrap();
    (0..row.len()).map(|column| row.try_get(column).unwrap()).collect()
}

#[tokio::test]
async fn the_router_has_the_methods_of_the_table_and_no_others() {
    let host = Host::new().await;
    let state = &host.world.portal.state;
    let mut seen = BTreeSet::new();
    for row in ENDPOINTS.iter() {
        let (method, path) = (row.method, row.path);
        assert!(seen.insert((method, path)), "{method} {path} has two rows");
    }
    let paths: BTreeMap<&str, &Endpoint> = ENDPOINTS.iter().map(|endpoint| (endpoint.path, endpoint)).collect();
    assert!(paths.len() > 100, "{}", paths.len());
    for (path, endpoint) in paths {
        let router: Router = unguarded(endpoint.queue).with_state(state.clone());
        for method in METHODS {
            let request = Request::builder().method(method).uri(address(endpoint, &host.ada));
            let request = request.body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            let takes = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(takes, seen.contains(&(method, path)), "{method} {path}");
        }
    }
}

/// The page that a form is on: the one at its address, or the nearest above it.
fn page_of(form: &Endpoint) -> Option<&'static Endpoint> {
    let mut path = form.path;
    while !path.is_empty() {
        if let Some(page) = ENDPOINTS.iter().find(|row| row.method == "GET" && row.path == path) {
            return Some(page);
        }
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    None
}

#[test]
fn a_form_costs_as_much_as_the_page_that_it_answers_with_when_it_is_refused() {
    let mut compared = 0;
    for form in ENDPOINTS.iter().filter(|row| row.method == "POST") {
        let Some(page) = page_of(form) else { continue };
        compared += 1;
        assert!(
            form.cost >= page.cost,
            "POST {} may answer with {}, which costs {:?}: give it the same cost in endpoints/table.rs",
            form.path,
            page.path,
            page.cost
        );
    }
    assert!(compared > 70, "{compared}");
}

#[tokio::test]
async fn refused_forms_of_one_session_leave_the_pages_of_others_served() {
    let host = Host::new().await;
    let state = &host.world.portal.state;
    let mut ada = host.browser(Role::Customer).await;
    let mut bob = host.world.portal.signed_in("bob").await;
    let token = ada.get("/account").await.csrf_token();
    let form = [("csrf_token", token.as_str()), ("amount", "abc")];
    let refused = ada.post("/budget", &form).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    // As if she had as many under way and waiting as one session can have.
    let user: i64 = sqlx::query_scalar("SELECT id FROM users WHERE email = 'ada@example.net'")
        .fetch_one(state.db().pool())
        .await
        .unwrap();
    let storm: Vec<_> = (0..20)
        .map(|_| {
            let state = state.clone();
            tokio::spawn(async move {
                let _place = state.gates().read(Cost::Read, UserId(user)).await;
                std::future::pending::<()>().await;
            })
        })
        .collect();
    tokio::task::yield_now().await;
    for path in ["/budget", "/budget/services", "/credit/buy", "/credit/top-up"] {
        let answer = ada.post(path, &form).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(!answer.header("retry-after").is_empty(), "{path}");
    }
    assert_eq!(bob.get("/usage").await.status, StatusCode::OK);
    for one in storm {
        one.abort();
    }
}

#[tokio::test]
async fn a_method_without_a_rule_is_refused_with_those_there_are() {
    let host = Host::new().await;
    let mut ada = host.browser(Role::Customer).await;
    for (path, allowed) in [("/usage", "GET"), ("/budget", "GET, POST"), ("/budget/clear", "POST")] {
        let answer = ada.send(Request::delete(path), String::new()).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.header("allow"), allowed, "{path}");
    }
    // The address of a form leads to its page; one that is on none is refused.
    for (path, page) in [
        ("/budget/clear", "/budget"),
        ("/subscriptions/sub_1/resume", "/subscriptions/sub_1"),
        ("/subscriptions/sub_1/changes/7/cancel", "/subscriptions/sub_1"),
    ] {
        let answer = ada.get(path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (StatusCode::SEE_OTHER, page),
            "{path}"
        );
    }
    assert_eq!(ada.get("/signout").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let head = ada.send(Request::head("/usage"), String::new()).await;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn every_get_is_answered_while_somebody_else_holds_the_write_lock() {
    let host = Host::new().await;
    let mut browsers = Vec::new();
    for role in [Role::Customer, Role::Admin] {
        browsers.push((role, host.browser(role).await));
    }
    // A session that is due to be noted as used.
    host.world.portal.advance_ms(120_000);
    let writer = host.world.portal.state.db().begin_write().await.unwrap();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.method == "GET") {
        let path = address(endpoint, &host.ada);
        let path = match endpoint.path {
            "/plans/{plan}/checkout" => "/plans/pln_1/checkout?name=new&quantity=1&cycle=1".to_owned(),
            _ => path,
        };
        let may = |role: &Role| endpoint.access.roles().is_none_or(|roles| roles.contains(role));
        let (_, browser) = browsers.iter_mut().find(|(role, _)| may(role)).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(8), send(browser, endpoint, &path, &[], ""));
        let answer = answer
            .await
            .unwrap_or_else(|_| panic!("GET {path} waits for the write lock"));
        // Whether the database takes writes is what `/readyz` finds out.
        let is_health = matches!(endpoint.path, "/readyz" | "/healthz");
        assert!(
            is_health || !answer.status.is_server_error(),
            "GET {path}: {} {}",
            answer.status,
            answer.body
        );
    }
    writer.rollback().await.unwrap();
    // The note is written once the lock is free.
    let pool = host.world.portal.state.db().pool();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let seen: i64 = sqlx::query("SELECT max(last_seen_at_ms) FROM sessions")
            .fetch_one(pool)
            .await
            .unwrap()
            .get(0);
        if seen == NOW_MS + 120_000 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "last seen at {seen}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
