//! The second factor, through the whole server.

use activity::audit::{self, AuditFilter};
use axum::http::StatusCode;
use schemas::ids::UserId;

use crate::auth::Role;
use crate::auth::manage::{ChangeContext, reset_second_factor};
use crate::auth::second_factor::{RECOVERY_CODES, SecondFactor, begin, second_factor_of};
use crate::testing::{Answer, Browser, PASSWORD, TestPortal};

const STEP_MS: i64 = 30_000;

/// An authenticator app.
pub(crate) struct App {
    user: UserId,
    secret: crate::auth::second_factor::Secret,
    pub(crate) recovery_codes: Vec<String>,
}

impl App {
    /// Sets the second factor up in a browser, as its pages say.
    pub(crate) async fn set_up(portal: &TestPortal, browser: &mut Browser) -> App {
        let token = browser.get("/account/two-factor").await.csrf_token();
        let form = [("csrf_token", token.as_str()), ("password", PASSWORD)];
        let begun = browser.post("/account/two-factor/begin", &form).await;
        assert_eq!(begun.header("location"), "/account/two-factor", "{}", begun.body);
        let user: i64 =
            sqlx::query_scalar("SELECT id FROM users WHERE two_factor_secret IS NOT NULL AND two_factor_at_ms IS NULL")
                .fetch_one(portal.state.db().pool())
                .await
                .unwrap();
        let user = UserId(user);
        let SecondFactor::Pending(secret) = second_factor_of(portal.state.db(), user).await.unwrap() else {
            panic!("it waits to be confirmed")
        };
        let page = browser.get("/account/two-factor").await;
        let shown = page.body.replace(' ', "");
        assert!(shown.contains(&secret.text()), "{}", page.body);
        assert!(page.body.contains("class=\"ez-qr\""));
        let code = secret.code_at(portal.state.now_ms());
        let form = [("csrf_token", token.as_str()), ("code", code.as_str())];
        let on = browser.post("/account/two-factor/confirm", &form).await;
        assert_eq!(on.status, StatusCode::OK, "{}", on.body);
        App {
            user,
            secret,
            recovery_codes: recovery_codes_on(&on),
        }
    }

    /// The code of a moment that has not been used: the clock moves on.
    pub(crate) fn next_code(&self, portal: &TestPortal) -> String {
        portal.advance_ms(STEP_MS);
        self.secret.code_at(portal.state.now_ms())
    }

    /// Six digits that are no code of this time.
    fn wrong_code(&self, portal: &TestPortal) -> String {
        let near: Vec<String> = (-3..=3)
            .map(|steps| self.secret.code_at(portal.state.now_ms() + steps * STEP_MS))
            .collect();
        let wrong = (0..10).map(|digit| digit.to_string().repeat(6));
        wrong.into_iter().find(|code| !near.contains(code)).unwrap()
    }
}

fn recovery_codes_on(page: &Answer) -> Vec<String> {
    let start = page.body.find("id=\"codes\">").unwrap() + "id=\"codes\">".len();
    let codes = page.body[start..].split('<').next().unwrap();
    let codes: Vec<String> = codes
        .lines()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(codes.len(), RECOVERY_CODES);
    codes
}

/// The password is given; the page that asks for the code is open.
async fn half_signed_in(portal: &TestPortal, name: &str) -> (Browser, String) {
    let mut browser = portal.browser();
    let answer = browser.sign_in(&format!("{name}@example.net"), PASSWORD).await;
    assert_eq!(answer.header("location"), "/signin/code");
    let page = browser.get("/signin/code").await;
    assert_eq!(page.status, StatusCode::OK);
    let token = page.csrf_token();
    (browser, token)
}

async fn give(browser: &mut Browser, token: &str, field: &str, code: &str) -> Answer {
    browser
        .post("/signin/code", &[("csrf_token", token), (field, code)])
        .await
}

#[tokio::test]
async fn signing_in_takes_password_and_code_and_no_session_before() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut first = portal.signed_in("ada").await;
    let mut elsewhere = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut first).await;
    assert_eq!(first.get("/account").await.status, StatusCode::OK);
    let gone = elsewhere.get("/account").await;
    assert_eq!(
        gone.status,
        StatusCode::SEE_OTHER,
        "it was opened with the password alone"
    );

    let mut browser = portal.browser();
    let asked = browser.get("/usage?page=2").await;
    let form_token = browser.get(asked.header("location")).await.csrf_token();
    let form = [
        ("csrf_token", form_token.as_str()),
        ("email", "ada@example.net"),
        ("password", PASSWORD),
        ("next", "/usage?page=2"),
    ];
    let half = browser.post("/signin", &form).await;
    assert_eq!(half.header("location"), "/signin/code?next=/usage%3Fpage%3D2");
    assert!(!browser.cookies.contains_key("ezscale_session"));
    let cookie = half.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
    assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/api/v1/invoices").await.status, StatusCode::UNAUTHORIZED);
    // The cookie of the second page is no session.
    let mut forged = browser.clone();
    forged
        .cookies
        .insert("ezscale_session".to_owned(), browser.cookies["ezscale_code"].clone());
    assert_eq!(forged.get("/account").await.status, StatusCode::SEE_OTHER);

    let page = browser.get(half.header("location")).await;
    let token = page.csrf_token();
    let wrong = give(&mut browser, &token, "code", &app.wrong_code(&portal)).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.body.contains("not right"), "{}", wrong.body);
    assert!(!browser.cookies.contains_key("ezscale_session"));
    let forged = browser.post("/signin/code", &[("code", &app.next_code(&portal))]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let code = app.next_code(&portal);
    let spaced = format!(" {} {}", &code[..3], &code[3..]);
    let form = [
        ("csrf_token", token.as_str()),
        ("code", spaced.as_str()),
        ("next", "/usage?page=2"),
    ];
    let whole = browser.post("/signin/code", &form).await;
    assert_eq!(
        (whole.status, whole.header("location")),
        (StatusCode::SEE_OTHER, "/usage?page=2")
    );
    assert!(!browser.cookies.contains_key("ezscale_code"));
    assert_eq!(browser.get("/account").await.status, StatusCode::OK);
    let stored: Vec<String> = sqlx::query_scalar("SELECT token_hash FROM sign_ins")
        .fetch_all(portal.state.db().pool())
        .await
        .unwrap();
    assert!(stored.is_empty(), "{stored:?}");
}

#[tokio::test]
async fn a_code_is_accepted_once_and_not_for_long() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut browser).await;
    // That which confirmed it is used up.
    let (mut thief, token) = half_signed_in(&portal, "ada").await;
    let seen = app.secret.code_at(portal.state.now_ms());
    assert_eq!(
        give(&mut thief, &token, "code", &seen).await.status,
        StatusCode::UNAUTHORIZED
    );

    let code = app.next_code(&portal);
    let (mut owner, token) = half_signed_in(&portal, "ada").await;
    assert_eq!(
        give(&mut owner, &token, "code", &code).await.status,
        StatusCode::SEE_OTHER
    );
    let (mut thief, token) = half_signed_in(&portal, "ada").await;
    assert_eq!(
        give(&mut thief, &token, "code", &code).await.status,
        StatusCode::UNAUTHORIZED
    );

    let late = app.next_code(&portal);
    portal.advance_ms(2 * STEP_MS);
    assert_eq!(
        give(&mut thief, &token, "code", &late).await.status,
        StatusCode::UNAUTHORIZED
    );
    let early = app.secret.code_at(portal.state.now_ms() + STEP_MS);
    assert_eq!(
        give(&mut thief, &token, "code", &early).await.status,
        StatusCode::SEE_OTHER
    );
    let (mut again, token) = half_signed_in(&portal, "ada").await;
    let present = app.secret.code_at(portal.state.now_ms());
    let answer = give(&mut again, &token, "code", &present).await;
    assert_eq!(
        answer.status,
        StatusCode::UNAUTHORIZED,
        "it is older than one that was accepted"
    );
}

#[tokio::test]
async fn guessing_codes_is_slowed_down_and_takes_the_password_again() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.customer("bob").await;
    let mut browser = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut browser).await;
    let wrong = app.wrong_code(&portal);
    let (mut guesser, token) = half_signed_in(&portal, "ada").await;
    for _ in 0..4 {
        let answer = give(&mut guesser, &token, "code", &wrong).await;
        assert!(answer.body.contains("not right"), "{}", answer.body);
    }
    let last = give(&mut guesser, &token, "code", &wrong).await;
    assert_eq!(last.status, StatusCode::UNAUTHORIZED);
    assert!(last.body.contains("Sign in again"), "{}", last.body);
    assert_eq!(guesser.get("/signin/code").await.status, StatusCode::SEE_OTHER);

    // The right password does not start the count of codes anew.
    let (mut guesser, token) = half_signed_in(&portal, "ada").await;
    let held = give(&mut guesser, &token, "code", &wrong).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(held.header("retry-after"), "10");
    portal.signed_in("bob").await;
    portal.advance_ms(16 * 60_000);
    let late = give(&mut guesser, &token, "code", &app.next_code(&portal)).await;
    assert!(
        late.body.contains("Sign in again"),
        "ten minutes are over: {}",
        late.body
    );
    let (mut owner, token) = half_signed_in(&portal, "ada").await;
    let code = app.next_code(&portal);
    assert_eq!(
        give(&mut owner, &token, "code", &code).await.status,
        StatusCode::SEE_OTHER
    );
}

#[tokio::test]
async fn a_recovery_code_signs_in_once() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    portal.customer("bob").await;
    let mut browser = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut browser).await;
    let mut of_bob = portal.signed_in("bob").await;
    let bob = App::set_up(&portal, &mut of_bob).await;
    let stored: Vec<String> = sqlx::query_scalar("SELECT code_hash FROM recovery_codes")
        .fetch_all(portal.state.db().pool())
        .await
        .unwrap();
    assert_eq!(stored.len(), 2 * RECOVERY_CODES);
    assert!(stored.iter().all(|hash| hash.len() == 64));
    assert!(
        !browser
            .get("/account/two-factor")
            .await
            .body
            .contains(&app.recovery_codes[0])
    );

    let (mut owner, token) = half_signed_in(&portal, "ada").await;
    let typed = app.recovery_codes[0].to_lowercase();
    let answer = give(&mut owner, &token, "recovery_code", &typed).await;
    assert_eq!(answer.header("location"), "/account/two-factor");
    let page = owner.get("/account/two-factor").await;
    assert!(page.body.contains("<dd>9</dd>"), "{}", page.body);
    let (mut thief, token) = half_signed_in(&portal, "ada").await;
    for code in [&app.recovery_codes[0], &bob.recovery_codes[1]] {
        let answer = give(&mut thief, &token, "recovery_code", code).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.body.contains("none of your recovery codes"), "{}", answer.body);
    }
}

#[tokio::test]
async fn turning_it_off_and_new_codes_take_password_and_code() {
    let portal = TestPortal::new().await;
    portal.user("root", Role::Admin, None).await;
    let mut browser = portal.signed_in("root").await;
    let app = App::set_up(&portal, &mut browser).await;
    let token = browser.get("/account/two-factor").await.csrf_token();
    for path in ["/account/two-factor/off", "/account/two-factor/recovery-codes"] {
        let code = app.next_code(&portal);
        for (password, code, words) in [
            ("not the password", code.as_str(), "password is not right"),
            (PASSWORD, app.wrong_code(&portal).as_str(), "code is not right"),
            (PASSWORD, "", "code is not right"),
        ] {
            let form = [("csrf_token", token.as_str()), ("password", password), ("code", code)];
            let answer = browser.post(path, &form).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
            assert!(answer.body.contains(words), "{words} in {}", answer.body);
        }
        let form = [("csrf_token", ""), ("password", PASSWORD), ("code", code.as_str())];
        assert_eq!(browser.post(path, &form).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let code = app.next_code(&portal);
    let form = [
        ("csrf_token", token.as_str()),
        ("password", PASSWORD),
        ("code", code.as_str()),
    ];
    let renewed = browser.post("/account/two-factor/recovery-codes", &form).await;
    let new = recovery_codes_on(&renewed);
    assert!(new.iter().all(|code| !app.recovery_codes.contains(code)));
    let form = |code| [("csrf_token", token.as_str()), ("password", PASSWORD), ("code", code)];
    let old = browser
        .post("/account/two-factor/off", &form(app.recovery_codes[0].as_str()))
        .await;
    assert_eq!(old.status, StatusCode::UNPROCESSABLE_ENTITY);
    let off = browser.post("/account/two-factor/off", &form(new[0].as_str())).await;
    assert_eq!(off.header("location"), "/account?changed=two-factor-off");
    assert_eq!(
        second_factor_of(portal.state.db(), app.user).await.unwrap(),
        SecondFactor::Off
    );
    portal.signed_in("root").await;
    let of_root = AuditFilter {
        actor: Some("root@example.net"),
        ..AuditFilter::default()
    };
    let recorded = audit::list(portal.state.db().pool(), of_root, 10).await.unwrap();
    let actions: Vec<&str> = recorded.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "two_factor.off",
            "two_factor.recovery_codes",
            "two_factor.on",
            "two_factor.begin"
        ]
    );
}

#[tokio::test]
async fn setting_up_takes_the_password_and_a_code_of_the_new_secret() {
    let portal = TestPortal::new().await;
    portal.user("fin", Role::Finance, None).await;
    let mut browser = portal.signed_in("fin").await;
    let token = browser.get("/account/two-factor").await.csrf_token();
    let form = [("csrf_token", token.as_str()), ("password", "not the password")];
    let refused = browser.post("/account/two-factor/begin", &form).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let form = [("csrf_token", token.as_str()), ("password", PASSWORD)];
    browser.post("/account/two-factor/begin", &form).await;
    let SecondFactor::Pending(old) = second_factor_of(portal.state.db(), UserId(1)).await.unwrap() else {
        panic!("it waits to be confirmed")
    };
    // Begun again, the secret before is worth nothing.
    browser.post("/account/two-factor/begin", &form).await;
    let old_code = old.code_at(portal.state.now_ms());
    let form = [("csrf_token", token.as_str()), ("code", old_code.as_str())];
    let refused = browser.post("/account/two-factor/confirm", &form).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    portal.signed_in("fin").await;
    browser
        .post("/account/two-factor/cancel", &[("csrf_token", &token)])
        .await;
    assert_eq!(
        second_factor_of(portal.state.db(), UserId(1)).await.unwrap(),
        SecondFactor::Off
    );

    let app = App::set_up(&portal, &mut browser).await;
    let SecondFactor::On { since_ms, .. } = second_factor_of(portal.state.db(), app.user).await.unwrap() else {
        panic!("it is on")
    };
    // Nothing of that changes what is on.
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    begin(&mut transaction, portal.state.db().vault(), app.user)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    browser
        .post("/account/two-factor/cancel", &[("csrf_token", &token)])
        .await;
    portal.advance_ms(STEP_MS);
    let (mut again, form_token) = half_signed_in(&portal, "fin").await;
    let code = app.next_code(&portal);
    assert_eq!(
        give(&mut again, &form_token, "code", &code).await.header("location"),
        "/finance"
    );
    assert!(since_ms < portal.state.now_ms());
}

#[tokio::test]
async fn who_lost_the_app_is_let_in_by_a_reset() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut browser).await;
    let (mut half, token) = half_signed_in(&portal, "ada").await;
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let by = ChangeContext {
        actor: audit::Actor {
            name: "test",
            user: None,
            ip: "",
        },
        now_ms: portal.state.now_ms(),
    };
    let note = reset_second_factor(&mut transaction, app.user, by).await.unwrap();
    assert_eq!(note.action, "user.two_factor_reset");
    let none = reset_second_factor(&mut transaction, app.user, by).await.unwrap_err();
    assert_eq!(none.to_string(), "ada@example.net has no second factor");
    assert!(reset_second_factor(&mut transaction, UserId(99), by).await.is_err());
    transaction.commit().await.unwrap();
    assert_eq!(
        browser.get("/account").await.status,
        StatusCode::SEE_OTHER,
        "sessions ended"
    );
    let answer = give(&mut half, &token, "recovery_code", &app.recovery_codes[0]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let mut browser = portal.signed_in("ada").await;
    App::set_up(&portal, &mut browser).await;
}

#[tokio::test]
async fn a_disabled_user_and_a_changed_password_end_what_waits_for_a_code() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let app = App::set_up(&portal, &mut browser).await;
    let (mut half, token) = half_signed_in(&portal, "ada").await;
    let csrf = browser.get("/account").await.csrf_token();
    let form = [
        ("csrf_token", csrf.as_str()),
        ("current", PASSWORD),
        ("new", "another long one"),
        ("again", "another long one"),
    ];
    browser.post("/account/password", &form).await;
    let code = app.next_code(&portal);
    assert_eq!(
        give(&mut half, &token, "code", &code).await.status,
        StatusCode::UNAUTHORIZED
    );

    let mut half = portal.browser();
    half.sign_in("ada@example.net", "another long one").await;
    let token = half.get("/signin/code").await.csrf_token();
    sqlx::query("UPDATE users SET disabled_at_ms = 1")
        .execute(portal.state.db().pool())
        .await
        .unwrap();
    let code = app.next_code(&portal);
    assert_eq!(
        give(&mut half, &token, "code", &code).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert!(!half.cookies.contains_key("ezscale_session"));
}
