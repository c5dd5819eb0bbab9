//! What happens to a sign-in that is under way: the user changes, or many others sign in too.

use std::time::Duration;

use activity::event::EventType;
use activity::event::{self, EventFilter};
use axum::http::StatusCode;
use axum_extra::extract::CookieJar;

use crate::auth::{AttemptSource, pending};
use crate::pages::account::two_factor_tests::App;
use crate::testing::{Answer, Browser, PASSWORD, TestPortal};

const WRONG: &str = "That email and password do not belong together.";

fn count(portal: &TestPortal, name: &str) -> u64 {
    let text = portal.state.sign_in_counts().text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Sends a form that takes a password, and changes the user by a statement once the hash was read.
async fn overtaken(
    portal: &TestPortal,
    mut browser: Browser,
    path: &'static str,
    form: Vec<(&'static str, String)>,
    change: &[&'static str],
) -> (Browser, Answer) {
    let checks = count(portal, "ezscale_sign_in_password_checks_total");
    // What is asked waits for this transaction to end, but reads what was before it.
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    for statement in change {
        sqlx::query(*statement).execute(&mut *transaction).await.unwrap();
    }
    let asking = tokio::spawn(async move {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = browser.post(path, &form).await;
        (browser, answer)
    });
    while count(portal, "ezscale_sign_in_password_checks_total") == checks {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    transaction.commit().await.unwrap();
    asking.await.unwrap()
}

async fn sessions(portal: &TestPortal) -> i64 {
    sqlx::query_scalar("SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM sign_ins)")
        .fetch_one(portal.state.db().pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_sign_in_under_way_is_refused_when_the_user_changes_meanwhile() {
    for (change, back) in [
        ("UPDATE users SET password_hash = 'x'", ""),
        ("UPDATE users SET disabled_at_ms = 1", ""),
        ("UPDATE users SET two_factor_at_ms = 1, two_factor_secret = 'x'", ""),
        ("UPDATE users SET role = 'ops', customer_id = NULL", ""),
        (
            "UPDATE users SET two_factor_at_ms = NULL",
            "UPDATE users SET two_factor_at_ms = 7",
        ),
    ] {
        let portal = TestPortal::new().await;
        portal.customer("ada").await;
        if !back.is_empty() {
            sqlx::query(back).execute(portal.state.db().pool()).await.unwrap();
        }
        let mut browser = portal.browser();
        let token = browser.get("/signin").await.csrf_token();
        let form = vec![
            ("csrf_token", token),
            ("email", "ada@example.net".to_owned()),
            ("password", PASSWORD.to_owned()),
        ];
        let (browser, answer) = overtaken(&portal, browser, "/signin", form, &[change]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{change}");
        assert!(answer.body.contains(WRONG), "{change}");
        assert!(!browser.cookies.contains_key("ezscale_session"), "{change}");
        assert_eq!(sessions(&portal).await, 0, "{change}");
        let attempt: String = sqlx::query_scalar("SELECT outcome FROM sign_in_attempts")
            .fetch_one(portal.state.db().pool())
            .await
            .unwrap();
        assert_eq!(attempt, "wrong_password", "{change}");
    }
}

#[tokio::test]
async fn a_password_that_was_changed_meanwhile_changes_nothing_in_a_session_that_ended() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let token = browser.get("/account").await.csrf_token();
    let new = "a lantern by the other shore";
    let form = vec![
        ("csrf_token", token),
        ("current", PASSWORD.to_owned()),
        ("new", new.to_owned()),
        ("again", new.to_owned()),
    ];
    let change = [
        "UPDATE users SET password_hash = 'set by somebody else'",
        "DELETE FROM sessions",
    ];
    let (_, answer) = overtaken(&portal, browser, "/account/password", form, &change).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.body);
    assert!(answer.body.contains("The current password is not right."));
    let stored: String = sqlx::query_scalar("SELECT password_hash FROM users")
        .fetch_one(portal.state.db().pool())
        .await
        .unwrap();
    assert_eq!(stored, "set by somebody else");
    assert_eq!(sessions(&portal).await, 0);
}

#[tokio::test]
async fn what_waits_for_a_code_signs_in_once_and_only_while_it_lasts() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    App::set_up(&portal, &mut browser).await;
    let half = async || {
        let mut browser = portal.browser();
        let answer = browser.sign_in("ada@example.net", PASSWORD).await;
        assert_eq!(answer.header("location"), "/signin/code");
        let mut headers = axum::http::HeaderMap::new();
        let cookie = format!("ezscale_code={}", browser.cookies["ezscale_code"]);
        headers.insert(axum::http::header::COOKIE, cookie.parse().unwrap());
        CookieJar::from_headers(&headers)
    };
    let jar = half().await;
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let held = pending::hold(&portal.state, &mut transaction, &jar).await.unwrap();
    assert_eq!(held.unwrap().email, "ada@example.net");
    let closed = async |transaction: &mut sqlx::AnyConnection| {
        let closed = pending::close(&portal.state, transaction, jar.clone()).await;
        closed.unwrap().1
    };
    assert!(closed(&mut transaction).await);
    assert!(!closed(&mut transaction).await, "it is over already");
    assert!(
        pending::hold(&portal.state, &mut transaction, &jar)
            .await
            .unwrap()
            .is_none()
    );
    transaction.commit().await.unwrap();
    for change in [
        "UPDATE users SET disabled_at_ms = 1",
        "UPDATE users SET two_factor_at_ms = NULL",
        "DELETE FROM sign_ins",
    ] {
        let jar = half().await;
        let mut transaction = portal.state.db().begin_write().await.unwrap();
        sqlx::query(change).execute(&mut *transaction).await.unwrap();
        let held = pending::hold(&portal.state, &mut transaction, &jar).await.unwrap();
        assert!(held.is_none(), "{change}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn strangers_who_sign_in_all_at_once_hold_up_no_known_browser_and_are_not_left_waiting() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut known = portal.signed_in("ada").await;
    known.cookies.remove("ezscale_session");
    let lanes = portal.state.password_lanes();
    let stranger = |ip: &str| AttemptSource::Stranger(ip.parse().unwrap());
    let _held = [
        lanes.enter(stranger("192.0.2.1"), "a@example.net").await.unwrap(),
        lanes.enter(stranger("192.0.2.2"), "b@example.net").await.unwrap(),
    ];
    let answer = known.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    // The same for one that exists and one that does not.
    for email in ["ada@example.net", "nobody@example.net"] {
        let mut browser = portal.browser_at("192.0.2.3");
        let busy = tokio::time::timeout(Duration::from_secs(25), browser.sign_in(email, PASSWORD));
        let busy = busy.await.expect("it is answered soon");
        assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE, "{email}");
        assert!(!busy.header("retry-after").is_empty());
    }
    let held_back = count(&portal, "ezscale_sign_in_held_back_total");
    assert_eq!(held_back, 0);
}

#[tokio::test]
async fn asking_for_a_link_is_answered_alike_however_much_waits() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let paused = portal.state.links().pause().await;
    let mut browser = portal.browser();
    let token = browser.get("/forgot-password").await.csrf_token();
    for n in 0..300u16 {
        browser.from = Some(std::net::SocketAddr::from((
            [10, 0, (n / 200) as u8, (n % 200) as u8],
            1,
        )));
        let email = if n % 2 == 0 {
            "ada@example.net"
        } else {
            "nobody@example.net"
        };
        let form = [("csrf_token", token.as_str()), ("email", email)];
        let answer = browser.post("/forgot-password", &form).await;
        assert_eq!(answer.header("location"), "/forgot-password?asked=yes", "{n}");
    }
    assert_eq!(portal.state.links().dropped(), 300 - 256);
    drop(paused);
    portal.state.links().drained().await;
    let asked = EventFilter {
        event_type: Some(EventType::PasswordResetRequested),
        ..EventFilter::default()
    };
    assert_eq!(event::list(portal.state.db().pool(), asked, 9).await.unwrap().len(), 3);
}
