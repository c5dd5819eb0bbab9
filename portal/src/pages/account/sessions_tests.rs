//! Sessions, recent sign-ins and a forgotten password, through the whole server.

use activity::audit::{self, AuditFilter};
use activity::channel::{Transports, WebhookClient, run_once};
use activity::event::{self, Event, EventFilter, EventType};
use activity::password_reset;
use axum::http::{Request, StatusCode, header};
use schemas::ids::CustomerId;

use super::two_factor_tests::App;
use crate::auth::Role;
use crate::testing::{Answer, Browser, PASSWORD, TestPortal};

const NEW: &str = "fjord lantern pickle";
const HOUR_MS: i64 = 3_600_000;

async fn events(portal: &TestPortal, event_type: EventType) -> Vec<Event> {
    let filter = EventFilter {
        event_type: Some(event_type),
        ..EventFilter::default()
    };
    event::list(portal.state.db().pool(), filter, 100).await.unwrap()
}

/// Asks for a link, and waits until it was looked after.
async fn ask(portal: &TestPortal, browser: &mut Browser, email: &str) -> Answer {
    let token = browser.get("/forgot-password").await.csrf_token();
    let answer = browser
        .post("/forgot-password", &[("csrf_token", &token), ("email", email)])
        .await;
    portal.state.links().drained().await;
    answer
}

/// The link in the mail of the latest request, as the outbox would make it.
async fn mailed(portal: &TestPortal) -> String {
    let asked = events(portal, EventType::PasswordResetRequested).await.remove(0);
    let to = asked.payload["to"].as_str().unwrap().to_owned();
    let token = password_reset::issue(portal.state.db(), &asked, &to, portal.state.now_ms())
        .await
        .unwrap()
        .unwrap();
    format!("/reset-password/{token}")
}

async fn set(browser: &mut Browser, link: &str, new: &str) -> Answer {
    let page = browser.get(link).await;
    let token = if page.status == StatusCode::OK {
        page.csrf_token()
    } else {
        browser.get("/signin").await.csrf_token()
    };
    let form = [("csrf_token", token.as_str()), ("new", new), ("again", new)];
    browser.post(link, &form).await
}

async fn actions(portal: &TestPortal) -> Vec<(String, String, String)> {
    let all = audit::list(portal.state.db().pool(), AuditFilter::default(), 50)
        .await
        .unwrap();
    all.into_iter()
        .map(|entry| (entry.action, entry.actor, entry.ip))
        .collect()
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_user_alone() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.customer("eve").await;
    let mut laptop = portal.browser_at("192.0.2.1");
    laptop.sign_in("ada@example.net", PASSWORD).await;
    let mut phone = portal.browser_at("::ffff:192.0.2.2");
    let form = phone.get("/signin").await.csrf_token();
    let request = Request::post("/signin")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::USER_AGENT, "Mozilla/5.0 (iPhone) <b>CriOS/1</b>");
    let body = format!("csrf_token={form}&email=ada@example.net&password={PASSWORD}");
    assert_eq!(phone.send(request, body).await.status, StatusCode::SEE_OTHER);
    let mut other = portal.signed_in("ada").await;
    let mut eve = portal.signed_in("eve").await;

    let page = laptop.get("/account/sessions").await;
    assert_eq!(page.body.matches("this one").count(), 1);
    for words in [
        "Chrome on iPhone",
        "192.0.2.2",
        "Sign out everywhere else",
        "Recent sign-ins",
    ] {
        assert!(page.body.contains(words), "{words} in {}", page.body);
    }
    assert!(!page.body.contains("<b>CriOS"), "what a browser says is text");
    assert!(!page.body.contains("::ffff"), "an IPv4 address is shown as one");
    let (csrf, name) = (page.csrf_token(), {
        let at = page.body.find("Chrome on iPhone").unwrap();
        let rest = &page.body[at..];
        let start = rest.find("/account/sessions/").unwrap() + "/account/sessions/".len();
        rest[start..].split('/').next().unwrap().to_owned()
    });
    assert_eq!(name.len(), 16);
    // Nobody else ends it, by whatever name.
    let path = format!("/account/sessions/{name}/end");
    let foreign = eve.get("/account/sessions").await.csrf_token();
    eve.post(&path, &[("csrf_token", &foreign)]).await;
    assert_eq!(phone.get("/account").await.status, StatusCode::OK);
    assert_eq!(eve.post(&path, &[]).await.status, StatusCode::FORBIDDEN);
    laptop.post(&path, &[("csrf_token", &csrf)]).await;
    assert_eq!(phone.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(other.get("/account").await.status, StatusCode::OK);
    let answer = laptop.post("/account/sessions/others", &[("csrf_token", &csrf)]).await;
    assert_eq!(answer.header("location"), "/account/sessions?done=others");
    assert_eq!(other.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(laptop.get("/account").await.status, StatusCode::OK);
    assert_eq!(eve.get("/account").await.status, StatusCode::OK);
    let ended: Vec<_> = actions(&portal)
        .await
        .into_iter()
        .filter(|(action, ..)| action == "user.end_sessions")
        .collect();
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert_eq!(
        (ended[0].1.as_str(), ended[0].2.as_str()),
        ("ada@example.net", "192.0.2.1")
    );
}

#[tokio::test]
async fn sign_ins_good_and_bad_are_shown_to_their_user() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.customer("bob").await;
    let mut stranger = portal.browser_at("198.51.100.66");
    stranger.sign_in("ada@example.net", "not the password").await;
    stranger.sign_in("a password typed as name", "x").await;
    stranger.sign_in("nobody@example.net", "x").await;
    let mut ada = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut ada).await;
    let mut half = portal.browser_at("198.51.100.67");
    half.sign_in("ada@example.net", PASSWORD).await;
    let token = half.get("/signin/code").await.csrf_token();
    half.post("/signin/code", &[("csrf_token", &token), ("code", "x")])
        .await;
    let form = [
        ("csrf_token", token.as_str()),
        ("recovery_code", app.recovery_codes[0].as_str()),
    ];
    half.post("/signin/code", &form).await;

    let page = ada.get("/account/sessions").await.body;
    for words in [
        "Wrong password",
        "198.51.100.66",
        "Password correct, code requested",
        "Right password, wrong code",
        "with a recovery code",
        "198.51.100.67",
        "not known before",
    ] {
        assert!(page.contains(words), "{words} in {page}");
    }
    let of_bob = portal.signed_in("bob").await.get("/account/sessions").await.body;
    assert!(!of_bob.contains("198.51.100.66"), "those of others are not shown");
    let kept: Vec<String> = sqlx::query_scalar("SELECT email FROM sign_in_attempts ORDER BY id LIMIT 3")
        .fetch_all(portal.state.db().pool())
        .await
        .unwrap();
    assert_eq!(kept, ["ada@example.net", "", "nobody@example.net"]);
    let changes: Vec<String> = events(&portal, EventType::SecondFactorChanged)
        .await
        .iter()
        .map(|event| event.payload["change"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(changes, ["recovery_code_used", "on"]);
    portal.advance_ms(schemas::identity::ATTEMPTS_KEPT_MS + HOUR_MS);
    let page = portal.signed_in("bob").await.get("/account/sessions").await.body;
    assert_eq!(
        page.matches("Signed in</span>").count(),
        1,
        "forgotten with time: {page}"
    );
}

#[tokio::test]
async fn a_forgotten_password_is_set_by_a_link_once() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut elsewhere = portal.signed_in("ada").await;
    let mut browser = portal.browser_at("192.0.2.9");
    let asked = ask(&portal, &mut browser, " Ada@Example.net").await;
    let link = mailed(&portal).await;
    let unused = mailed(&portal).await;
    let page = browser.get(&link).await;
    assert!(page.status == StatusCode::OK && page.body.contains("ada@example.net"));
    assert_eq!(
        elsewhere.get("/account").await.status,
        StatusCode::OK,
        "looking changes nothing"
    );
    for (new, words) in [
        ("short", "at least 15 characters"),
        ("ada-password1234", "easy to guess"),
    ] {
        let refused = set(&mut browser, &link, new).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.body.contains(words), "{}", refused.body);
    }
    let token = browser.cookies["ezscale_signin"].clone();
    let unlike = [("csrf_token", token.as_str()), ("new", NEW), ("again", PASSWORD)];
    assert_eq!(
        browser.post(&link, &unlike).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let forged = [("csrf_token", ""), ("new", NEW), ("again", NEW)];
    assert_eq!(browser.post(&link, &forged).await.status, StatusCode::FORBIDDEN);

    let done = set(&mut browser, &link, NEW).await;
    assert_eq!(done.header("location"), "/signin?done=password");
    assert!(!browser.cookies.contains_key("ezscale_session"), "it signs nobody in");
    assert_eq!(
        elsewhere.get("/account").await.status,
        StatusCode::SEE_OTHER,
        "sessions ended"
    );
    for used in [&link, &unused] {
        assert_eq!(browser.get(used).await.status, StatusCode::NOT_FOUND);
        let again = set(&mut browser, used, "another long one").await;
        assert_eq!(again.status, StatusCode::NOT_FOUND);
    }
    let mut after = portal.browser();
    let old = after.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(old.status, StatusCode::UNAUTHORIZED);
    let new = after.sign_in("ada@example.net", NEW).await;
    assert_eq!(new.status, StatusCode::SEE_OTHER);

    let told = events(&portal, EventType::PasswordChanged).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].payload["to"], "ada@example.net");
    assert_eq!(told[0].payload["how"], "reset");
    assert_eq!(told[0].payload["ip"], "192.0.2.9");
    let done: Vec<_> = actions(&portal).await.into_iter().take(2).collect();
    assert_eq!(done[0].0, "user.password_reset");
    assert_eq!(
        (done[1].0.as_str(), done[1].2.as_str()),
        ("user.password_reset_request", "192.0.2.9")
    );

    // Nobody learns who signs in here.
    let unknown = ask(&portal, &mut portal.browser_at("192.0.2.9"), "nobody@example.net").await;
    assert_eq!(
        (unknown.status, unknown.header("location")),
        (asked.status, asked.header("location"))
    );
    assert_eq!(events(&portal, EventType::PasswordResetRequested).await.len(), 1);
}

#[tokio::test]
async fn a_link_is_void_after_an_hour_and_leaves_the_second_factor_on() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut owner = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut owner).await;
    ask(&portal, &mut portal.browser(), "ada@example.net").await;
    let late = mailed(&portal).await;
    portal.advance_ms(HOUR_MS);
    assert_eq!(portal.browser().get(&late).await.status, StatusCode::NOT_FOUND);

    ask(&portal, &mut portal.browser(), "ada@example.net").await;
    let mut thief = portal.browser();
    set(&mut thief, &mailed(&portal).await, NEW).await;
    let half = thief.sign_in("ada@example.net", NEW).await;
    assert_eq!(half.header("location"), "/signin/code");
    assert_eq!(thief.get("/account").await.status, StatusCode::SEE_OTHER);
    let token = thief.get("/signin/code").await.csrf_token();
    let code = app.next_code(&portal);
    let form = [("csrf_token", token.as_str()), ("code", code.as_str())];
    assert_eq!(thief.post("/signin/code", &form).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn asking_for_links_is_limited_by_address_and_by_user_without_telling() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    for n in 1..=5 {
        let mut browser = portal.browser_at(&format!("192.0.2.{n}"));
        let answer = ask(&portal, &mut browser, "ada@example.net").await;
        assert_eq!(answer.header("location"), "/forgot-password?asked=yes");
    }
    let sent = events(&portal, EventType::PasswordResetRequested).await.len();
    assert_eq!(sent, 3, "an hour's");
    let mut browser = portal.browser_at("192.0.2.99");
    for n in 0..10 {
        ask(&portal, &mut browser, &format!("{n}@example.net")).await;
    }
    let held = ask(&portal, &mut browser, "ada@example.net").await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    let mut browser = portal.browser_at("192.0.2.98");
    for guess in 0..10 {
        let answer = browser.get(&format!("/reset-password/{guess:064x}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    let held = browser.get(&format!("/reset-password/{:064x}", 11)).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_disabled_user_gets_no_link_and_a_link_of_before_is_void() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    ask(&portal, &mut portal.browser(), "ada@example.net").await;
    let link = mailed(&portal).await;
    sqlx::query("UPDATE users SET disabled_at_ms = 1")
        .execute(portal.state.db().pool())
        .await
        .unwrap();
    assert_eq!(portal.browser().get(&link).await.status, StatusCode::NOT_FOUND);
    ask(&portal, &mut portal.browser(), "ada@example.net").await;
    assert_eq!(events(&portal, EventType::PasswordResetRequested).await.len(), 1);
}

#[tokio::test]
async fn whatever_changes_is_told_to_the_address_of_before() {
    let portal = TestPortal::new().await;
    let customer: CustomerId = portal.customer("ada").await;
    portal.user("fin", Role::Finance, None).await;
    let mut ada = portal.signed_in("ada").await;
    let form = [("email", "billing@ada.example"), ("password", PASSWORD)];
    let changed = ada.send_form("/account", "/account/address", &form).await;
    assert_eq!(changed.header("location"), "/account?changed=address");
    let told = events(&portal, EventType::EmailChanged).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].payload["to"], "ada@example.net");
    assert_eq!(told[0].payload["email"], "billing@ada.example");
    assert_eq!(told[0].customer, Some(customer));

    let mut fin = portal.signed_in("fin").await;
    let token = fin.get("/account").await.csrf_token();
    let form = [
        ("csrf_token", token.as_str()),
        ("current", PASSWORD),
        ("new", NEW),
        ("again", NEW),
    ];
    fin.post("/account/password", &form).await;
    let told = events(&portal, EventType::PasswordChanged).await;
    assert_eq!(told[0].payload["to"], "fin@example.net");
    assert_eq!(told[0].payload["how"], "changed");
    // As mail: to that address and to nobody else.
    let transports = Transports {
        mailer: None,
        client: &WebhookClient::new(true).unwrap(),
        portal_url: "https://portal.example.net",
    };
    run_once(portal.state.db(), transports, portal.state.now_ms())
        .await
        .unwrap();
    let to: Vec<String> = sqlx::query_scalar(
        "SELECT d.target FROM deliveries d JOIN events e ON e.id = d.event_id \
         WHERE e.event_type IN ('email.changed', 'user.password_changed') ORDER BY e.id",
    )
    .fetch_all(portal.state.db().pool())
    .await
    .unwrap();
    assert_eq!(to, ["ada@example.net", "fin@example.net"]);
}
