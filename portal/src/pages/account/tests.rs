//! A customer's address, verified by a mail's link, through the whole server.

use activity::event::{self, EventFilter, EventType};
use activity::verification::MAX_PER_HOUR;
use axum::http::StatusCode;
use schemas::ids::CustomerId;
use schemas::inventory;

use crate::auth::Role;
use crate::pages::plans::tests::hidden;
use crate::testing::{Answer, Browser, PASSWORD, TestPortal};

async fn events(portal: &TestPortal, customer: CustomerId) -> usize {
    let filter = EventFilter {
        customer: Some(customer),
        event_type: Some(EventType::EmailVerificationRequested),
        before: None,
    };
    event::list(portal.state.db().pool(), filter, 100).await.unwrap().len()
}

async fn address_of(portal: &TestPortal, customer: CustomerId) -> (String, Option<i64>) {
    let customer = inventory::customer(portal.state.db().pool(), customer).await.unwrap();
    (customer.email, customer.email_verified_at_ms)
}

/// Presses the button that asks for a mail.
async fn ask(browser: &mut Browser) -> Answer {
    let page = browser.get("/account").await;
    let form = [
        ("csrf_token", page.csrf_token()),
        ("form_token", hidden(&page, "form_token")),
    ];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = browser.post("/account/address/verify", &form).await;
    if answer.status == StatusCode::SEE_OTHER {
        let again = browser.post("/account/address/verify", &form).await;
        assert_eq!(again.header("location"), answer.header("location"));
    }
    answer
}

async fn change(browser: &mut Browser, email: &str, password: &str) -> Answer {
    let page = browser.get("/account").await;
    let form = [
        ("csrf_token", page.csrf_token()),
        ("form_token", hidden(&page, "form_token")),
        ("email", email.to_owned()),
        ("password", password.to_owned()),
    ];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    browser.post("/account/address", &form).await
}

/// The path of the link in the mail that is waiting for this customer, as the outbox would make it.
async fn mailed_link(portal: &TestPortal, customer: CustomerId) -> String {
    let (address, _) = address_of(portal, customer).await;
    let token = activity::verification::issue(portal.state.db(), customer, &address, portal.state.now_ms())
        .await
        .unwrap()
        .unwrap();
    format!("/verify-email/{token}")
}

#[tokio::test]
async fn a_customer_verifies_the_address_by_the_link_and_its_button() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let page = browser.get("/account").await;
    assert!(page.body.contains("not verified") && page.body.contains("ada@example.net"));
    assert_eq!(ask(&mut browser).await.header("location"), "/account?changed=asked");
    assert_eq!(events(&portal, ada).await, 1, "one form, one mail");

    let link = mailed_link(&portal, ada).await;
    let mut reader = portal.browser();
    for _ in 0..2 {
        let page = reader.get(&link).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains("ada@example.net"), "{}", page.body);
    }
    assert_eq!(
        address_of(&portal, ada).await.1,
        None,
        "a program that opens links verifies nothing"
    );
    let forged = reader.post(&link, &[]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let token = reader.get(&link).await.csrf_token();
    let pressed = reader.post(&link, &[("csrf_token", &token)]).await;
    assert_eq!(pressed.header("location"), "/verify-email");
    assert!(reader.get("/verify-email").await.body.contains("is confirmed"));
    assert_eq!(address_of(&portal, ada).await.1, Some(portal.state.now_ms()));

    let again = reader.post(&link, &[("csrf_token", &token)]).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert!(again.body.contains("used already"), "{}", again.body);
    let page = browser.get("/account").await;
    assert!(page.body.contains("verified 15 Jun 2025"), "{}", page.body);
    assert!(!page.body.contains("Send the mail"));
}

#[tokio::test]
async fn an_old_or_made_up_link_is_void() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let link = mailed_link(&portal, ada).await;
    let mut reader = portal.browser();
    let token = reader.get(&link).await.csrf_token();
    portal.advance_ms(activity::verification::VALID_MS);
    for path in [link.as_str(), "/verify-email/0123456789abcdef", "/verify-email/%27--"] {
        assert_eq!(reader.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        let pressed = reader.post(path, &[("csrf_token", &token)]).await;
        assert_eq!(pressed.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(address_of(&portal, ada).await.1, None);
}

#[tokio::test]
async fn only_so_many_mails_are_sent() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    for _ in 0..MAX_PER_HOUR {
        assert_eq!(ask(&mut browser).await.status, StatusCode::SEE_OTHER);
    }
    let held = ask(&mut browser).await;
    assert_eq!(held.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(held.body.contains("can be sent after"), "{}", held.body);
    let changed = change(&mut browser, "new@example.net", PASSWORD).await;
    assert_eq!(changed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        address_of(&portal, ada).await.0,
        "ada@example.net",
        "nor by changing the address"
    );
    assert_eq!(events(&portal, ada).await, usize::try_from(MAX_PER_HOUR).unwrap());
    portal.advance_ms(3_600_000);
    assert_eq!(ask(&mut browser).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_new_address_takes_the_password_and_is_not_verified() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    portal.customer("bob").await;
    let mut browser = portal.signed_in("ada").await;
    let old = mailed_link(&portal, ada).await;
    let token = browser.get(&old).await.csrf_token();
    browser.post(&old, &[("csrf_token", &token)]).await;
    assert!(address_of(&portal, ada).await.1.is_some());

    for (email, password, words) in [
        ("new@example.net", "not the password", "password is not right"),
        ("nowhere", PASSWORD, "is like billing@example.net"),
        ("Bob@example.net", PASSWORD, "cannot be used"),
    ] {
        let answer = change(&mut browser, email, password).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.body.contains(words), "{words} in {}", answer.body);
        assert!(
            answer.body.contains(&format!("value=\"{email}\"")),
            "what was typed is kept"
        );
    }
    let same = change(&mut browser, "ada@example.net", PASSWORD).await;
    assert_eq!(same.header("location"), "/account");
    assert!(address_of(&portal, ada).await.1.is_some(), "nothing has changed");

    let answer = change(&mut browser, "new@example.net", PASSWORD).await;
    assert_eq!(answer.header("location"), "/account?changed=address");
    assert_eq!(address_of(&portal, ada).await, ("new@example.net".to_owned(), None));
    assert_eq!(events(&portal, ada).await, 1);
    let filter = activity::audit::AuditFilter {
        action: Some("customer.email"),
        ..activity::audit::AuditFilter::default()
    };
    let recorded = activity::audit::list(portal.state.db().pool(), filter, 10)
        .await
        .unwrap();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].subject, ada.to_string());
    assert_eq!(recorded[0].change["after"], "new@example.net");
}

#[tokio::test]
async fn s1_an_address_is_changed_by_its_own_customer_alone() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let bob = portal.customer("bob").await;
    portal.user("net", Role::Network, None).await;
    let mut net = portal.signed_in("net").await;
    let page = net.get("/account").await;
    assert!(!page.body.contains("Email address of the account"), "staff has none");
    let token = page.csrf_token();
    for path in ["/account/address", "/account/address/verify"] {
        let answer = net.post(path, &[("csrf_token", &token)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(
            portal.browser().post(path, &[]).await.status,
            StatusCode::SEE_OTHER,
            "{path}"
        );
    }
    let mut browser = portal.signed_in("bob").await;
    let page = browser.get("/account").await;
    let form = [
        ("csrf_token", page.csrf_token()),
        ("form_token", hidden(&page, "form_token")),
        ("customer", ada.to_string()),
        ("email", "bobs@example.net".to_owned()),
        ("password", PASSWORD.to_owned()),
    ];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    browser.post("/account/address", &form).await;
    assert_eq!(address_of(&portal, bob).await.0, "bobs@example.net");
    assert_eq!(address_of(&portal, ada).await.0, "ada@example.net");
}
