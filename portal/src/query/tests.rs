use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use axum::extract::MatchedPath;
use axum::http::StatusCode;

use super::*;
use crate::auth::Role;
use crate::endpoints::ENDPOINTS;
use crate::testing::Browser;
use crate::testing::world::World;

thread_local! {
    /// Routes that were asked for on this thread, and the parameters that they take.
    static TAKEN: RefCell<BTreeMap<String, BTreeSet<&'static str>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Notes what a route takes.
pub(super) fn note(parts: &Parts, names: &'static [&'static str]) {
    if let Some(path) = parts.extensions.get::<MatchedPath>() {
        let path = path.as_str().to_owned();
        TAKEN.with_borrow_mut(|taken| taken.entry(path).or_default().extend(names));
    }
}

/// Parameters that select nothing (notices, texts that are searched for, what a form carries along), or that are refused
/// beside the form once something is chosen: any text is one of theirs.
const FREE: [&str; 22] = [
    "account",
    "action",
    "actor",
    "approval_token_id",
    "asked",
    "at",
    "changed",
    "comment",
    "coupon",
    "done",
    "error",
    "form_token",
    "name",
    "next",
    "notice",
    "payment_intent",
    "q",
    "quantity",
    "reference",
    "search",
    "shown",
    "subject",
];
const BROKEN: &str = "~nonsense~";

/// Every route that answers GET.
fn routes() -> BTreeSet<&'static str> {
    let get = ENDPOINTS.iter().filter(|endpoint| endpoint.method == "GET");
    get.map(|endpoint| endpoint.path).collect()
}

/// An address of a route, with things of the world in it.
fn address(route: &str, world: &World) -> String {
    let mut address = route.to_owned();
    for (name, value) in [
        ("{service}", world.transfer.to_string()),
        ("{subscription}", "sub_1".to_owned()),
        ("{invoice}", world.invoice_of_ada.to_string()),
        ("{line}", world.usage_line.to_string()),
        ("{plan}", "pln_1".to_owned()),
        ("{customer}", world.ada.to_string()),
        ("{payment}", "pay_1".to_owned()),
        ("{sheet}", "documents.csv".to_owned()),
        ("{name}", "app.css".to_owned()),
        ("{job}", "close".to_owned()),
    ] {
        address = address.replace(name, &value);
    }
    address
}

/// A finance page's sheet is of a month that somebody must name.
fn needed(route: &str) -> &'static str {
    match route {
        "/finance/export/month.xlsx" | "/finance/export/{sheet}" => "month=2025-05",
        "/payment-methods/return" => "gateway=stripe",
        _ => "",
    }
}

#[tokio::test]
async fn a_parameter_that_cannot_be_parsed_is_refused_by_name_on_every_route() {
    let world = World::new().await;
    // As a process makes a job known that it has.
    let job = "INSERT INTO jobs (name, instance, lease, description, schedule, waits_for, owner, progress_done, progress_total, \
               progress_text, hold, last_outcome, last_text, failures_in_a_row, requested, served, seen_at_ms) \
               VALUES ('close', '', 'billing', 'Charges what is due', 'every 10 min', '', '', 0, 0, '', '', '', '', 0, 0, 0, 0)";
    sqlx::query(job).execute(world.portal.state.db().pool()).await.unwrap();
    let mut browsers: Vec<Browser> = vec![world.portal.signed_in("ada").await];
    for (name, role) in [
        ("adm", Role::Admin),
        ("fin", Role::Finance),
        ("ops", Role::Ops),
        ("net", Role::Network),
    ] {
        world.portal.user(name, role, None).await;
        browsers.push(world.portal.signed_in(name).await);
    }
    let routes = routes();
    assert!(
        routes.len() > 60 && routes.contains("/api/v1/ops/overview"),
        "{routes:?}"
    );
    let mut checked = 0;
    let mut unknown_refused = 0;
    let mut controlled = 0;
    for route in routes {
        let address = address(route, &world);
        // Whoever may see it.
        let mut reader = None;
        for (index, browser) in browsers.iter_mut().enumerate() {
            let answer = browser.get(&format!("{address}?{}", needed(route))).await;
            if answer.status == StatusCode::OK {
                reader = Some(index);
                break;
            }
        }
        let takes = TAKEN.with_borrow(|taken| taken.get(route).cloned().unwrap_or_default());
        let mut strict: Vec<&str> = takes.iter().copied().filter(|name| !FREE.contains(name)).collect();
        if route == "/payment-methods/return" {
            // It leads elsewhere whoever opens it.
            reader = Some(0);
        }
        if route.starts_with("/assets/") {
            strict.clear();
        }
        assert!(
            reader.is_some() || strict.is_empty(),
            "{route} takes {strict:?} and nobody of this test may see it"
        );
        let Some(reader) = reader else { continue };
        if !route.starts_with("/assets/") {
            for name in &takes {
                for value in ["%00", "a%00b", "%0A", "%7F"] {
                    let asked = format!("{address}?{name}={value}");
                    let answer = browsers[reader].get(&asked).await;
                    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{asked}");
                    assert!(answer.body.contains(name), "{asked}: {}", answer.body);
                    assert!(answer.body.contains("control characters"), "{asked}: {}", answer.body);
                    controlled += 1;
                }
            }
        }
        for name in strict {
            let answer = browsers[reader].get(&format!("{address}?{name}={BROKEN}")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{route}?{name}={BROKEN}");
            assert!(answer.body.contains(name), "{route}?{name}: {}", answer.body);
            checked += 1;
        }
        if route.starts_with("/api/") {
            let answer = browsers[reader].get(&format!("{address}?custmer=cus_1")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{route}?custmer=cus_1");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(answer.body.contains("custmer"), "{}", answer.body);
            unknown_refused += 1;
        }
    }
    assert!(controlled > 160, "{controlled} parameters held a control character");
    assert!(checked > 40, "{checked} parameters were broken");
    assert!(unknown_refused > 15, "{unknown_refused} routes of the API were asked");
}

#[tokio::test]
async fn a_number_that_is_none_is_refused_in_the_words_of_the_others() {
    let world = World::new().await;
    world.portal.user("ops", Role::Ops, None).await;
    let mut ops = world.portal.signed_in("ops").await;
    for (query, value) in [("skip=-1", "-1"), ("limit=many", "many")] {
        let answer = ops.get(&format!("/ops?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        let (name, _) = query.split_once('=').unwrap();
        assert!(
            answer.body.contains(&format!("“{name}” is a whole number")) && answer.body.contains(value),
            "{query}: {}",
            answer.body
        );
    }
}

/// SQLite's LIKE ends at a NUL: such a search found everybody.
#[tokio::test]
async fn s1_a_form_with_a_control_character_is_refused_by_the_name_of_its_field() {
    let world = World::new().await;
    world.portal.user("adm", Role::Admin, None).await;
    let mut admin = world.portal.signed_in("adm").await;
    let entity = "/admin/entities/ent_1";
    for (field, value, is_refused) in [
        ("name", "a\0b", true),
        ("name", "a\nb", true),
        ("payment_instructions", "a\0b", true),
        ("payment_instructions", "Bank\r\nIBAN", false),
    ] {
        let answer = admin.send_form("/admin/entities", entity, &[(field, value)]).await;
        let names_it = answer.body.contains("a text without control characters") && answer.body.contains(field);
        assert_eq!(names_it, is_refused, "{field} {value:?}: {}", answer.body);
        assert!(
            !is_refused || answer.status == StatusCode::BAD_REQUEST,
            "{field} {value:?}"
        );
    }
    let mut stranger = world.portal.browser();
    let token = stranger.get("/forgot-password").await.csrf_token();
    let form = [("csrf_token", token.as_str()), ("email", "a\0@example.net")];
    let answer = stranger.post("/forgot-password", &form).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body.contains("“email”"), "{}", answer.body);
}

#[tokio::test]
async fn a_quantity_or_a_time_that_cannot_be_understood_is_refused_beside_the_form() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let form = "/subscriptions/sub_1/change";
    for (query, words) in [
        ("price=prc_1&quantity=many", "A quantity is a number"),
        ("price=prc_1&quantity=1&when=at&at=soon", "Choose a date and a time"),
        ("price=prc_99&quantity=1", "Choose one of the plans"),
    ] {
        let answer = ada.get(&format!("{form}?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.body.contains(words), "{query}: {}", answer.body);
    }
    assert_eq!(
        ada.get(&format!("{form}?price=prc_1&quantity=2")).await.status,
        StatusCode::OK
    );
}

#[test]
fn a_type_tells_the_names_of_its_fields() {
    #[derive(serde::Deserialize)]
    struct Asked {
        #[serde(rename = "type")]
        _kind: Option<String>,
        _limit: Option<i64>,
    }
    assert_eq!(field_names::<Asked>(), ["type", "_limit"]);
    assert_eq!(field_names::<String>(), [""; 0]);
}
