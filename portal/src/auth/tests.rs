//! Sign-in, sessions, roles and CSRF, through the whole server.

use axum::http::{Request, StatusCode, header};
use sqlx::Row as _;

use crate::auth::{NewUser, Role, UserError, create_user};
use crate::testing::{PASSWORD, TestPortal};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn signing_in_leads_home_and_out_again() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.browser();
    let asked = browser.get("/usage?page=2").await;
    assert_eq!(asked.status, StatusCode::SEE_OTHER);
    assert_eq!(asked.header("location"), "/signin?next=/usage%3Fpage%3D2");

    let answer = browser.sign_in(" ADA@example.net", PASSWORD).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (StatusCode::SEE_OTHER, "/usage")
    );
    let cookie = answer.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );

    let seen: i64 = sqlx::query("SELECT last_seen_at_ms FROM users")
        .fetch_one(portal.state.db().pool())
        .await
        .unwrap()
        .get(0);
    assert_eq!(seen, portal.state.now_ms(), "a free plan goes by this");

    let page = browser.get("/account").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("ada@example.net"));
    let stolen = browser.clone();
    let out = browser.post("/signout", &[("csrf_token", &page.csrf_token())]).await;
    assert_eq!(out.header("location"), "/signin");
    assert!(!browser.cookies.contains_key("ezscale_session"));
    let mut stolen = stolen;
    assert_eq!(
        stolen.get("/account").await.status,
        StatusCode::SEE_OTHER,
        "the token is dead, not only forgotten"
    );
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.browser();
    let wrong = browser.sign_in("ada@example.net", "not the password").await;
    let unknown = browser.sign_in("bob@example.net", "not the password").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.body.replace("ada@", "bob@"), unknown.body);
    assert!(!browser.cookies.contains_key("ezscale_session"));
}

#[tokio::test]
async fn guessing_is_slowed_down_for_who_guesses_and_nobody_else() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut known = portal.browser_at("203.0.113.5");
    known.sign_in("ada@example.net", PASSWORD).await;
    let mut stranger = portal.browser_at("192.0.2.1");
    for _ in 0..5 {
        let answer = stranger.sign_in("ada@example.net", "not the password").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let held = stranger.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(held.header("retry-after"), "2");
    assert!(held.body.contains("Wait 2 s") && held.body.contains("/forgot-password"));
    portal.advance_ms(2_000);
    let again = stranger.sign_in("ada@example.net", "not the password").await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    let held = stranger.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(held.header("retry-after"), "4", "each failure doubles the wait");

    // Strangers from many addresses make the account itself wait, at browsers that it does not know.
    for n in 2..=20 {
        let mut stranger = portal.browser_at(&format!("192.0.2.{n}"));
        stranger.sign_in("ada@example.net", "not the password").await;
    }
    let mut elsewhere = portal.browser_at("198.51.100.1");
    let held = elsewhere.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    let unknown = elsewhere.sign_in("bob@example.net", PASSWORD).await;
    assert_eq!(
        unknown.status,
        StatusCode::UNAUTHORIZED,
        "another account is not held up"
    );
    // The browser that signed her in before is not, though it was signed out and stands beside a stranger.
    let token = known.get("/account").await.csrf_token();
    known.post("/signout", &[("csrf_token", &token)]).await;
    known.from = Some("192.0.2.1:5".parse().unwrap());
    let wrong = known.sign_in("ada@example.net", "not the password").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let answer = known.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    // It is known for ada alone.
    known.cookies.remove("ezscale_session");
    for n in 1..=20 {
        let mut stranger = portal.browser_at(&format!("192.0.2.{n}"));
        stranger.sign_in("eve@example.net", "not the password").await;
    }
    let held = known.sign_in("eve@example.net", PASSWORD).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    portal.advance_ms(24 * HOUR_MS);
    let mut elsewhere = portal.browser_at("198.51.100.1");
    let answer = elsewhere.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "forgotten with time");
}

#[tokio::test]
async fn a_device_token_that_was_planted_is_known_for_who_planted_it_alone() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.customer("eve").await;
    let eve = portal.signed_in("eve").await;
    let planted = eve.cookies["ezscale_device"].clone();
    let mut ada = portal.browser();
    ada.cookies.insert("ezscale_device".to_owned(), planted.clone());
    ada.sign_in("ada@example.net", PASSWORD).await;
    assert_ne!(ada.cookies["ezscale_device"], planted);
    let stored: Vec<(String, i64)> = sqlx::query("SELECT token_hash, user_id FROM known_devices ORDER BY user_id")
        .fetch_all(portal.state.db().pool())
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[0].0, stored[1].0, "the browser of both has the new token");
    assert!(stored[0].0.len() == 64 && stored[0].0 != ada.cookies["ezscale_device"]);
    let jar = |token: &str| {
        let mut headers = axum::http::HeaderMap::new();
        headers.insert(header::COOKIE, format!("ezscale_device={token}").parse().unwrap());
        axum_extra::extract::CookieJar::from_headers(&headers)
    };
    let known = crate::auth::device::known(&portal.state, &jar(&planted), "ada@example.net").await;
    assert_eq!(known.unwrap(), None);
}

#[tokio::test]
async fn the_same_is_done_for_a_user_that_does_not_exist() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.customer("dan").await;
    sqlx::query("UPDATE users SET disabled_at_ms = 1 WHERE email = 'dan@example.net'")
        .execute(portal.state.db().pool())
        .await
        .unwrap();
    let checks = || {
        let text = portal.state.sign_in_counts().text();
        let line = text
            .lines()
            .find(|line| line.starts_with("ezscale_sign_in_password_checks_total"))
            .unwrap()
            .to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let rows = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM sign_in_attempts")
            .fetch_one(portal.state.db().pool())
            .await
            .unwrap()
    };
    let mut bodies = Vec::new();
    for (n, name) in ["ada", "dan", "bob"].into_iter().enumerate() {
        let mut browser = portal.browser_at(&format!("192.0.2.{n}"));
        let (checks_before, rows_before) = (checks(), rows().await);
        let answer = browser
            .sign_in(&format!("{name}@example.net"), "not the password")
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!((checks() - checks_before, rows().await - rows_before), (1, 1), "{name}");
        let token = browser.cookies["ezscale_signin"].clone();
        bodies.push(answer.body.replace(&format!("{name}@"), "").replace(&token, ""));
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn a_session_ends_when_idle_and_after_its_time_sooner_for_staff() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.user("ops", Role::Ops, None).await;
    for (name, minutes, steps) in [("ada", 7 * 24 * 60 - 1, 4), ("ops", 29, 24)] {
        let mut browser = portal.signed_in(name).await;
        for _ in 0..steps {
            portal.advance_ms(minutes * 60_000);
            assert_eq!(browser.get("/account").await.status, StatusCode::OK, "{name}");
        }
        let whole_minutes = if name == "ada" { 30 * 24 * 60 } else { 12 * 60 };
        portal.advance_ms((whole_minutes - minutes * steps) * 60_000);
        let over = browser.get("/account").await;
        assert_eq!(over.status, StatusCode::SEE_OTHER, "{name}: its time is over");

        let mut browser = portal.signed_in(name).await;
        portal.advance_ms((minutes + 1) * 60_000);
        let idle = browser.get("/account").await;
        assert_eq!(idle.status, StatusCode::SEE_OTHER, "{name}: idle");
    }
}

#[tokio::test]
async fn a_page_that_refreshes_itself_does_not_keep_a_session_alive() {
    let portal = TestPortal::new().await;
    portal.user("ops", Role::Ops, None).await;
    let mut browser = portal.signed_in("ops").await;
    let poll = async |browser: &mut crate::testing::Browser, path: &str| {
        let request = Request::get(path).header("EZSCALE-Background", "1");
        browser.send(request, String::new()).await.status
    };
    for minute in 1..30 {
        portal.advance_ms(60_000);
        assert_eq!(poll(&mut browser, "/account").await, StatusCode::OK, "{minute}");
    }
    portal.advance_ms(60_000);
    assert_eq!(poll(&mut browser, "/account").await, StatusCode::SEE_OTHER);
    // A part of a page has the whole page loaded again.
    let part = Request::get("/exporters/list").header("HX-Request", "true");
    let answer = browser.send(part, String::new()).await;
    assert_eq!(
        (answer.status, answer.header("hx-refresh")),
        (StatusCode::UNAUTHORIZED, "true")
    );
    // What refreshes by a timer says so.
    for (file, mark) in [
        ("charts.js", "headers[\"EZSCALE-Background\"]"),
        ("overview.js", "\"EZSCALE-Background\": \"1\""),
    ] {
        let script = browser.get(&format!("/assets/{file}")).await.body;
        assert!(script.contains(mark), "{file}");
        assert!(script.contains("setInterval"), "{file} has a timer");
    }
    let mut browser = portal.signed_in("ops").await;
    let list = browser.get("/exporters/list").await.body;
    assert!(list.contains("hx-trigger=\"every"), "{list}");
    assert!(list.contains("EZSCALE-Background"), "{list}");
}

#[tokio::test]
async fn signing_in_again_makes_a_new_token_and_ends_the_old_session() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let mut before = browser.clone();
    let token = before.cookies["ezscale_session"].clone();
    // A planted or old token is sent along with the sign-in.
    let form_token = before.cookies["ezscale_signin"].clone();
    let form = [
        ("csrf_token", form_token.as_str()),
        ("email", "ada@example.net"),
        ("password", PASSWORD),
    ];
    assert_eq!(browser.post("/signin", &form).await.status, StatusCode::SEE_OTHER);
    assert_ne!(browser.cookies["ezscale_session"], token);
    assert_eq!(before.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/account").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_token_itself_is_not_stored() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let browser = portal.signed_in("ada").await;
    let stored: String = sqlx::query_scalar("SELECT token_hash FROM sessions")
        .fetch_one(portal.state.db().pool())
        .await
        .unwrap();
    assert_eq!(stored.len(), 64);
    assert_ne!(stored, browser.cookies["ezscale_session"]);
}

#[tokio::test]
async fn forms_without_the_right_token_are_refused() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.customer("eve").await;
    let mut ada = portal.signed_in("ada").await;
    let mut eve = portal.signed_in("eve").await;
    let token = ada.get("/account").await.csrf_token();
    let foreign = eve.get("/account").await.csrf_token();
    assert_ne!(token, foreign);
    for form in [&[][..], &[("csrf_token", "")], &[("csrf_token", foreign.as_str())]] {
        assert_eq!(ada.post("/signout", form).await.status, StatusCode::FORBIDDEN);
    }
    let mut browser = portal.browser();
    let form = [("email", "ada@example.net"), ("password", PASSWORD)];
    assert_eq!(
        browser.post("/signin", &form).await.status,
        StatusCode::FORBIDDEN,
        "sign-in needs its own token"
    );
    assert_eq!(ada.get("/account").await.status, StatusCode::OK, "still signed in");

    let request = Request::post("/signout")
        .header(header::ORIGIN, "https://evil.example")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let answer = ada.send(request, format!("csrf_token={token}")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_role_sees_only_its_pages() {
    let portal = TestPortal::new().await;
    for role in [Role::Ops, Role::Network, Role::Finance, Role::Admin] {
        portal.user(role.name(), role, None).await;
        let mut browser = portal.signed_in(role.name()).await;
        for path in ["/usage", "/usage/svc_1", "/invoices", "/invoices/inv_1"] {
            assert_eq!(browser.get(path).await.status, StatusCode::FORBIDDEN, "{role} {path}");
        }
        let api = browser.get("/api/v1/invoices").await;
        assert_eq!(api.status, StatusCode::FORBIDDEN);
        assert_eq!(api.header("content-type"), "application/problem+json");
        let home = browser.get("/").await;
        assert_eq!(home.header("location"), crate::shell::home(role));
    }
}

#[tokio::test]
async fn an_anonymous_program_gets_a_problem_not_a_page() {
    let portal = TestPortal::new().await;
    let answer = portal.browser().get("/api/v1/invoices").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.json()["status"], 401);
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    sqlx::query("UPDATE users SET disabled_at_ms = 1")
        .execute(portal.state.db().pool())
        .await
        .unwrap();
    assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);
    let answer = browser.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_new_password_replaces_the_old_and_ends_other_sessions() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut here = portal.signed_in("ada").await;
    let mut elsewhere = portal.signed_in("ada").await;
    let token = here.get("/account").await.csrf_token();
    let attempt = |current: &'static str, new: &'static str| {
        let token = token.clone();
        move || {
            vec![
                ("csrf_token", token),
                ("current", current.to_owned()),
                ("new", new.to_owned()),
                ("again", new.to_owned()),
            ]
        }
    };
    for (current, new, words) in [
        ("not the password", "another long one", "current password is not right"),
        (PASSWORD, "short", "at least 15 characters"),
        (PASSWORD, "passwordpassword", "easy to guess"),
    ] {
        let form = attempt(current, new)();
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = here.post("/account/password", &form).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.body.contains(words), "{}", answer.body);
    }
    let form = attempt(PASSWORD, "another long one")();
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = here.post("/account/password", &form).await;
    assert_eq!(answer.header("location"), "/account?changed=password");
    assert_eq!(here.get("/account").await.status, StatusCode::OK);
    assert_eq!(elsewhere.get("/account").await.status, StatusCode::SEE_OTHER);
    let mut browser = portal.browser();
    let old = browser.sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(old.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn users_are_checked_before_they_are_made() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let good = NewUser {
        email: "new@example.net",
        name: "New",
        role: Role::Ops,
        customer: None,
        password: PASSWORD,
    };
    let db = portal.state.db();
    let by = activity::act::By::program("test");
    let refused = async |user: NewUser<'_>| create_user(db, &user, by.clone()).await.unwrap_err();
    assert!(matches!(
        refused(NewUser {
            email: "new",
            ..good.clone()
        })
        .await,
        UserError::Email(_)
    ));
    assert!(matches!(
        refused(NewUser {
            name: " ",
            ..good.clone()
        })
        .await,
        UserError::Name
    ));
    assert!(matches!(
        refused(NewUser {
            password: "short",
            ..good.clone()
        })
        .await,
        UserError::Password(_)
    ));
    assert!(matches!(
        refused(NewUser {
            role: Role::Customer,
            ..good.clone()
        })
        .await,
        UserError::Customer
    ));
    assert!(matches!(
        refused(NewUser {
            email: "Ada@Example.net",
            ..good.clone()
        })
        .await,
        UserError::Taken(_)
    ));
    create_user(db, &good, by.clone()).await.unwrap();
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let portal = TestPortal::over_https().await;
    portal.customer("ada").await;
    let mut browser = portal.browser();
    for path in [
        "/signin",
        "/assets/app.css",
        "/healthz",
        "/readyz",
        "/nothing",
        "/api/v1/nothing",
    ] {
        let answer = browser.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert!(answer.header("strict-transport-security").starts_with("max-age="));
    }
    let answer = browser.sign_in("ada@example.net", PASSWORD).await;
    let cookie = answer.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-ezscale_session=") && cookie.contains("Secure"),
        "{cookie}"
    );
    assert_eq!(browser.get("/account").await.header("cache-control"), "no-store");
}

#[tokio::test]
async fn embedded_files_are_kept_for_long_only_under_their_hash() {
    let portal = TestPortal::new().await;
    let mut browser = portal.browser();
    let address = crate::assets::url("app.css");
    let answer = browser.get(&address).await;
    assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
    assert!(answer.header("cache-control").contains("immutable"));
    let etag = answer.header("etag").to_owned();
    assert_eq!(
        browser.get("/assets/app.css?v=old").await.header("cache-control"),
        "no-cache"
    );
    let again = browser
        .send(
            Request::get(&address).header(header::IF_NONE_MATCH, etag),
            String::new(),
        )
        .await;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(browser.get("/assets/..%2Fapp.css").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let large = "x".repeat(70_000);
    let answer = browser.post("/signin", &[("email", &large)]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn metrics_are_for_staff_and_count_requests_by_route() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.user("net", Role::Network, None).await;
    let mut anonymous = portal.browser();
    assert_eq!(anonymous.get("/metrics").await.status, StatusCode::FORBIDDEN);
    let mut ada = portal.signed_in("ada").await;
    assert_eq!(ada.get("/metrics").await.status, StatusCode::FORBIDDEN);
    assert_eq!(ada.get("/usage/svc_9").await.status, StatusCode::NOT_FOUND);
    let mut net = portal.signed_in("net").await;
    let metrics = net.get("/metrics").await;
    assert_eq!(metrics.status, StatusCode::OK);
    let counted = "ezscale_http_requests_total{method=\"GET\",route=\"/usage/{service}\",status=\"404\"} 1\n";
    assert!(metrics.body.contains(counted), "{}", metrics.body);

    let local: std::net::SocketAddr = "127.0.0.1:40000".parse().unwrap();
    let proxied = Request::get("/metrics")
        .extension(axum::extract::ConnectInfo(local))
        .header("x-forwarded-for", "203.0.113.9");
    assert_eq!(
        anonymous.send(proxied, String::new()).await.status,
        StatusCode::FORBIDDEN
    );

    portal
        .state
        .set_collector_metrics(|| "ezscale_collector_running 1\n".to_owned());
    let metrics = net.get("/metrics").await;
    assert!(metrics.body.ends_with("ezscale_collector_running 1\n"));
}
