//! API tokens, through the whole server.

use activity::event::{self, EventFilter, EventType};
use axum::http::{Request, StatusCode};

use super::two_factor_tests::App;
use crate::auth::Role;
use crate::testing::{Answer, Browser, PASSWORD, TestPortal};

const DAY_MS: i64 = 86_400_000;

async fn world() -> (TestPortal, Browser) {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.user("bob", Role::Ops, None).await;
    let browser = portal.signed_in("ada").await;
    (portal, browser)
}

async fn add(browser: &mut Browser, fields: &[(&str, &str)]) -> Answer {
    let page = browser.get("/account/tokens").await;
    let (csrf, form) = (page.csrf_token(), page.form_token());
    let mut all = vec![("csrf_token", csrf.as_str()), ("form_token", form.as_str())];
    all.extend_from_slice(fields);
    browser.post("/account/tokens", &all).await
}

/// The token that a page shows.
fn shown(answer: &Answer) -> String {
    let start = answer.body.find("ezs_").expect("a token is shown");
    answer.body[start..]
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect()
}

async fn ask(portal: &TestPortal, authorization: &str, path: &str) -> Answer {
    let request = Request::get(path).header("authorization", authorization);
    portal.browser().send(request, String::new()).await
}

#[tokio::test]
async fn s1_a_token_is_made_by_who_knows_the_password_and_opens_the_api_until_it_is_revoked() {
    let (portal, mut ada) = world().await;
    let name = ("name", "billing export");
    for (fields, said) in [
        (
            [name, ("days", "30"), ("password", "orchid kettle summer")],
            "not right",
        ),
        ([name, ("days", "0"), ("password", PASSWORD)], "1 to 366 days"),
        ([name, ("days", "many"), ("password", PASSWORD)], "1 to 366"),
        (
            [("name", " "), ("days", "30"), ("password", PASSWORD)],
            "name of a token",
        ),
    ] {
        let refused = add(&mut ada, &fields).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
        assert!(refused.body.contains(said), "{said}: {}", refused.body);
        assert!(!refused.body.contains("ezs_"));
    }
    let made = add(&mut ada, &[name, ("days", "30"), ("password", PASSWORD)]).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.body);
    assert_eq!(made.header("cache-control"), "no-store");
    let token = shown(&made);
    let listed = ada.get("/account/tokens").await;
    assert!(
        listed.body.contains("billing export") && !listed.body.contains("ezs_"),
        "{}",
        listed.body
    );

    for scheme in ["Bearer", "bearer", "BEARER  "] {
        let answer = ask(&portal, &format!("{scheme} {token}"), "/api/v1/services").await;
        assert_eq!(answer.status, StatusCode::OK, "{scheme}: {}", answer.body);
    }
    let page = ask(&portal, &format!("Bearer {token}"), "/usage").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.body.contains("no page"), "{}", page.body);
    let staffs = ask(&portal, &format!("Bearer {token}"), "/api/v1/exporters").await;
    assert_eq!(
        (staffs.status, staffs.json()["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("forbidden"))
    );
    // What another program before the portal takes is not for it; one that holds for nobody is refused, even beside a session.
    let basic = ask(&portal, "Basic YWRhOng=", "/api/v1/services").await;
    assert_eq!(basic.json()["code"], "sign_in");
    assert_eq!(basic.header("www-authenticate"), "Bearer");
    let unknown = format!("Bearer ezs_{}", "0".repeat(64));
    for bad in [
        "Bearer ezs_0",
        "Bearer",
        "Bearer ",
        "Bearer\tezs_0",
        "bearerezs_0",
        "Bearer ezs_\u{fc}",
        &unknown,
    ] {
        let request = Request::get("/api/v1/services").header("authorization", bad);
        let wrong = ada.send(request, String::new()).await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED, "{bad}: {}", wrong.body);
        assert_eq!(wrong.json()["code"], "bad_token", "{bad}");
        assert!(wrong.header("www-authenticate").contains("invalid_token"), "{bad}");
    }
    let both = Request::get("/api/v1/services").header("authorization", "Basic YWRhOng=");
    let both = both.header("authorization", format!("Bearer {token}"));
    assert_eq!(portal.browser().send(both, String::new()).await.status, StatusCode::OK);
    let two = Request::get("/api/v1/services").header("authorization", format!("Bearer {token}"));
    let two = two.header("authorization", &unknown);
    assert_eq!(ada.send(two, String::new()).await.json()["code"], "bad_token");

    // Its owner was mailed; nobody else may revoke it, and it says when it was used.
    let filter = EventFilter {
        event_type: Some(EventType::TokenAdded),
        ..EventFilter::default()
    };
    let events = event::list(portal.state.db().pool(), filter, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].payload["name"], "billing export");
    assert!(!events[0].payload.to_string().contains("ezs_"));
    let mut bob = portal.signed_in("bob").await;
    let csrf = bob.get("/account").await.csrf_token();
    bob.post("/account/tokens/tok_1/revoke", &[("csrf_token", &csrf)]).await;
    let answer = ask(&portal, &format!("Bearer {token}"), "/api/v1/services").await;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "another user revoked it: {}",
        answer.body
    );
    assert!(!ada.get("/account/tokens").await.body.contains("never"));

    let csrf = ada.get("/account").await.csrf_token();
    let revoked = ada.post("/account/tokens/tok_1/revoke", &[("csrf_token", &csrf)]).await;
    assert_eq!(revoked.header("location"), "/account/tokens?done=revoked");
    let answer = ask(&portal, &format!("Bearer {token}"), "/api/v1/services").await;
    assert_eq!(answer.json()["code"], "bad_token");
}

#[tokio::test]
async fn s1_a_token_ends_in_time_and_with_the_password_and_a_form_makes_one() {
    let (portal, mut ada) = world().await;
    let fields = [("name", "export"), ("days", "2"), ("password", PASSWORD)];
    let token = shown(&add(&mut ada, &fields).await);
    portal.advance_ms(2 * DAY_MS - 1);
    assert_eq!(
        ask(&portal, &format!("Bearer {token}"), "/api/v1/credit").await.status,
        StatusCode::OK
    );
    portal.advance_ms(1);
    let over = ask(&portal, &format!("Bearer {token}"), "/api/v1/credit").await;
    assert_eq!(over.json()["code"], "bad_token");

    // Sent twice, a form makes one token; the second answer says so.
    let page = ada.get("/account/tokens").await;
    let (csrf, form) = (page.csrf_token(), page.form_token());
    let mut twice = vec![("csrf_token", csrf.as_str()), ("form_token", form.as_str())];
    twice.extend_from_slice(&fields);
    let first = ada.post("/account/tokens", &twice).await;
    let second = ada.post("/account/tokens", &twice).await;
    assert_eq!(
        (first.status, second.status),
        (StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY)
    );
    let token = shown(&first);
    let csrf = ada.get("/account").await.csrf_token();
    let new = "fjord lantern pickle";
    let form = [
        ("csrf_token", csrf.as_str()),
        ("current", PASSWORD),
        ("new", new),
        ("again", new),
    ];
    assert_eq!(ada.post("/account/password", &form).await.status, StatusCode::SEE_OTHER);
    let ended = ask(&portal, &format!("Bearer {token}"), "/api/v1/credit").await;
    assert_eq!(ended.json()["code"], "bad_token");
}

#[tokio::test]
async fn s1_with_a_second_factor_a_token_takes_its_code() {
    let (portal, mut ada) = world().await;
    let fields = [("name", "export"), ("days", "2"), ("password", PASSWORD)];
    // One that was made by the password alone ends with it, as sessions do.
    let before = shown(&add(&mut ada, &fields).await);
    let app = App::set_up(&portal, &mut ada).await;
    let ended = ask(&portal, &format!("Bearer {before}"), "/api/v1/credit").await;
    assert_eq!(ended.json()["code"], "bad_token");
    let without = add(&mut ada, &fields).await;
    assert_eq!(without.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", without.body);
    assert!(without.body.contains("That code is not right"), "{}", without.body);
    let code = app.next_code(&portal);
    let with = add(&mut ada, &[fields[0], fields[1], fields[2], ("code", &code)]).await;
    assert_eq!(with.status, StatusCode::OK, "{}", with.body);
    let token = shown(&with);
    assert_eq!(
        ask(&portal, &format!("Bearer {token}"), "/api/v1/credit").await.status,
        StatusCode::OK
    );
}
