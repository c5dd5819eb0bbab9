//! Users as admins manage them, through the whole server.

use activity::audit::{self, AuditFilter, AuditRecord};
use activity::event::{self, EventFilter, EventType};
use axum::http::StatusCode;
use schemas::ids::UserId;

use crate::auth::manage::{self, ChangeContext};
use crate::auth::{Role, UserError};
use crate::pages::account::two_factor_tests::App;
use crate::testing::{Answer, Browser, PASSWORD, TestPortal};

async fn act(admin: &mut Browser, user: &str, act: &str, fields: &[(&str, &str)]) -> Answer {
    let page = format!("/admin/users/{user}");
    admin.send_form(&page, &format!("{page}/{act}"), fields).await
}

async fn recorded(portal: &TestPortal, action: &str) -> Vec<AuditRecord> {
    let filter = AuditFilter {
        action: Some(action),
        ..AuditFilter::default()
    };
    audit::list(portal.state.db().pool(), filter, 50).await.unwrap()
}

/// An admin (usr_1), a customer's user (usr_2) and an operator (usr_3).
async fn with_three() -> (TestPortal, Browser) {
    let portal = TestPortal::new().await;
    portal.user("root", Role::Admin, None).await;
    portal.customer("ada").await;
    portal.user("ops", Role::Ops, None).await;
    let admin = portal.signed_in("root").await;
    (portal, admin)
}

#[tokio::test]
async fn users_are_listed_and_searched() {
    let (portal, mut admin) = with_three().await;
    let mut ops = portal.signed_in("ops").await;
    App::set_up(&portal, &mut ops).await;
    let page = admin.get("/admin/users").await;
    for words in [
        "ada@example.net",
        "Network engineer",
        "never",
        "/admin/users/usr_2",
        "/finance/customers/cus_1",
    ] {
        assert!(page.body.contains(words), "{words} in {}", page.body);
    }
    for (query, shown, hidden) in [
        ("search=ADA", "ada@", "ops@"),
        ("search=usr_3", "ops@", "ada@"),
        ("search=%25", "No users found", "ada@"),
        ("role=ops", "ops@", "ada@"),
        ("state=disabled", "No users found", "ada@"),
        ("state=enabled", "ada@", "No users found"),
        ("after=usr_2", "ops@", "ada@"),
    ] {
        let body = admin.get(&format!("/admin/users?{query}")).await.body;
        assert!(body.contains(shown) && !body.contains(hidden), "{query}: {body}");
    }
    for query in ["role=king", "state=x", "after=7"] {
        let answer = admin.get(&format!("/admin/users?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(admin.get("/admin/users/usr_9").await.status, StatusCode::NOT_FOUND);
    for path in ["/admin/users", "/admin/users/usr_1"] {
        assert_eq!(ops.get(path).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn who_is_disabled_is_out_at_once_and_comes_back_when_enabled() {
    let (portal, mut admin) = with_three().await;
    let mut ada = portal.signed_in("ada").await;
    let answer = act(&mut admin, "usr_2", "disable", &[]).await;
    assert_eq!(
        answer.header("location"),
        "/admin/users/usr_2?done=disable",
        "{}",
        answer.body
    );
    assert_eq!(ada.get("/account").await.status, StatusCode::SEE_OTHER);
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM sessions WHERE user_id = 2) + (SELECT count(*) FROM known_devices WHERE user_id = 2)",
    )
    .fetch_one(portal.state.db().pool())
    .await
    .unwrap();
    assert_eq!(left, 0);
    let refused = portal.browser().sign_in("ada@example.net", PASSWORD).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let entries = recorded(&portal, "user.disable").await;
    assert_eq!(
        (
            entries[0].actor.as_str(),
            entries[0].subject.as_str(),
            entries[0].change["sessions_ended"].as_i64()
        ),
        ("root@example.net", "usr_2", Some(1))
    );
    // A form that is sent again, and one from before, do nothing twice.
    let token = admin.get("/admin/users/usr_2").await;
    let (csrf, form) = (token.csrf_token(), token.form_token());
    let fields = [("csrf_token", csrf.as_str()), ("form_token", form.as_str())];
    let again = admin.post("/admin/users/usr_2/disable", &fields).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(again.body.contains("is disabled"), "{}", again.body);
    let page = admin.get("/admin/users/usr_2").await.body;
    assert!(page.contains("Disabled user"), "the attempt is shown: {page}");
    act(&mut admin, "usr_2", "enable", &[]).await;
    portal.signed_in("ada").await;
    assert_eq!(recorded(&portal, "user.enable").await.len(), 1);
    assert_eq!(
        ada.get("/account").await.status,
        StatusCode::SEE_OTHER,
        "the old session stays dead"
    );
}

#[tokio::test]
async fn nobody_takes_the_last_admin_or_themself() {
    let (portal, mut admin) = with_three().await;
    for (what, fields) in [("disable", &[][..]), ("role", &[("role", "ops")])] {
        let refused = act(&mut admin, "usr_1", what, fields).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{what}");
        assert_eq!(admin.get("/admin/users").await.status, StatusCode::OK);
    }
    let page = admin.get("/admin/users/usr_1").await.body;
    assert!(page.contains("This is you") && !page.contains("Disable user"), "{page}");
    // From the command line nobody is oneself, and the last admin stays all the same.
    let by = ChangeContext {
        actor: audit::Actor {
            name: "os:root",
            user: None,
            ip: "",
        },
        now_ms: portal.state.now_ms(),
    };
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let last = manage::disable(&mut transaction, UserId(1), by).await.unwrap_err();
    assert!(matches!(last, UserError::LastAdmin(_)), "{last}");
    let last = manage::set_role(&mut transaction, UserId(1), Role::Finance, None, by).await;
    assert!(matches!(last, Err(UserError::LastAdmin(_))));
    transaction.rollback().await.unwrap();
    // With a second one it goes, both ways, and one that is disabled is none.
    act(&mut admin, "usr_3", "role", &[("role", "admin")]).await;
    let mut second = portal.signed_in("ops").await;
    let answer = act(&mut second, "usr_1", "disable", &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(admin.get("/admin/users").await.status, StatusCode::SEE_OTHER);
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let last = manage::disable(&mut transaction, UserId(3), by).await.unwrap_err();
    assert!(matches!(last, UserError::LastAdmin(_)), "{last}");
}

#[tokio::test]
async fn another_role_ends_every_session_and_fits_its_customer() {
    let (portal, mut admin) = with_three().await;
    let mut ops = portal.signed_in("ops").await;
    for (fields, words) in [
        (&[("role", "customer")][..], "Name the customer"),
        (&[("role", "customer"), ("customer", "cus_9")], "no customer cus_9"),
        (&[("role", "ops")], "has the role ops already"),
        (&[("role", "king")], "not &#34;king&#34;"),
    ] {
        let refused = act(&mut admin, "usr_3", "role", fields).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        let body = refused.body.replace("&quot;", "&#34;");
        assert!(body.contains(words), "{words} in {body}");
    }
    assert_eq!(ops.get("/account").await.status, StatusCode::OK);
    act(
        &mut admin,
        "usr_3",
        "role",
        &[("role", "customer"), ("customer", "cus_1")],
    )
    .await;
    assert_eq!(ops.get("/account").await.status, StatusCode::SEE_OTHER);
    let mut ops = portal.signed_in("ops").await;
    assert_eq!(ops.get("/usage").await.status, StatusCode::OK);
    assert_eq!(ops.get("/ops").await.status, StatusCode::FORBIDDEN);
    let entry = &recorded(&portal, "user.set_role").await[0];
    assert_eq!(
        (&entry.change["before"]["role"], &entry.change["after"]["customer"]),
        (&"ops".into(), &"cus_1".into())
    );
    assert_eq!(entry.risk, audit::Risk::High, "the owner is told");
}

#[tokio::test]
async fn an_admin_revokes_the_tokens_of_others() {
    let (portal, mut admin) = with_three().await;
    let mut ops = portal.signed_in("ops").await;
    let page = ops.get("/account/tokens").await;
    let form = [
        ("csrf_token", page.csrf_token()),
        ("form_token", page.form_token()),
        ("name", "nightly export".to_owned()),
        ("days", "30".to_owned()),
        ("password", PASSWORD.to_owned()),
    ];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(ops.post("/account/tokens", &form).await.status, StatusCode::OK);
    assert!(admin.get("/admin/users/usr_3").await.body.contains("nightly export"));
    // Of the user whose page it is alone.
    let answer = act(&mut admin, "usr_2", "revoke-token", &[("token", "tok_1")]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.body);
    assert!(answer.body.contains("no token tok_1"), "{}", answer.body);
    let answer = act(&mut admin, "usr_3", "revoke-token", &[("token", "tok_1")]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert!(!admin.get("/admin/users/usr_3").await.body.contains("nightly export"));
    assert_eq!(
        recorded(&portal, "user.token_revoke").await[0].actor,
        "root@example.net"
    );
}

#[tokio::test]
async fn a_reset_mail_sessions_and_the_second_factor() {
    let (portal, mut admin) = with_three().await;
    for n in 1..=4 {
        let answer = act(&mut admin, "usr_2", "reset-password", &[]).await;
        let expected = if n <= 3 {
            StatusCode::SEE_OTHER
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        assert_eq!(answer.status, expected, "{}", answer.body);
    }
    assert_eq!(recorded(&portal, "user.password_reset_request").await.len(), 3);
    let filter = EventFilter {
        event_type: Some(EventType::PasswordResetRequested),
        ..EventFilter::default()
    };
    let asked = event::list(portal.state.db().pool(), filter, 10).await.unwrap();
    assert_eq!((asked.len(), asked[0].payload["by"].as_str()), (3, Some("staff")));

    let mut ada = portal.signed_in("ada").await;
    let mut elsewhere = portal.signed_in("ada").await;
    let page = admin.get("/admin/users/usr_2").await.body;
    let name = page
        .split("name=\"session\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    act(&mut admin, "usr_2", "sessions", &[("session", name)]).await;
    let alive = [ada.get("/account").await.status, elsewhere.get("/account").await.status];
    assert_eq!(alive.iter().filter(|status| **status == StatusCode::OK).count(), 1);
    act(&mut admin, "usr_2", "sessions", &[]).await;
    for browser in [&mut ada, &mut elsewhere] {
        assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);
    }
    // One's own go but for the one that asks.
    let mut other = portal.signed_in("root").await;
    act(&mut admin, "usr_1", "sessions", &[]).await;
    assert_eq!(other.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(admin.get("/account").await.status, StatusCode::OK);

    let mut ops = portal.signed_in("ops").await;
    App::set_up(&portal, &mut ops).await;
    let answer = act(&mut admin, "usr_3", "reset-two-factor", &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(ops.get("/account").await.status, StatusCode::SEE_OTHER);
    portal.signed_in("ops").await;
    assert_eq!(
        recorded(&portal, "user.two_factor_reset").await[0].risk,
        audit::Risk::High
    );
}
