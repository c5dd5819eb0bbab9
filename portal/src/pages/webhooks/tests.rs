//! Endpoints and notifications are their customer's alone (S1), and a secret is shown once.

use activity::event::{EventType, NewEvent};
use axum::http::StatusCode;
use schemas::ids::CustomerId;

use crate::auth::Role;
use crate::pages::plans::tests::hidden;
use crate::testing::{Browser, NOW_MS, TestPortal};

async fn tell(portal: &TestPortal, customer: CustomerId) {
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let new = NewEvent {
        event_type: EventType::InvoicePaid,
        customer: Some(customer),
        subject: "inv_1".to_owned(),
        payload: serde_json::json!({ "number": "INV-1", "total_minor": 100, "currency": "USD" }),
    };
    billing::event::publish(&mut transaction, new, NOW_MS).await.unwrap();
    transaction.commit().await.unwrap();
    activity::channel::dispatch(portal.state.db(), NOW_MS).await.unwrap();
}

async fn add(browser: &mut Browser, url: &str) -> crate::testing::Answer {
    let page = browser.get("/webhooks").await;
    let (token, form_token) = (page.csrf_token(), hidden(&page, "form_token"));
    let form = [
        ("csrf_token", token.as_str()),
        ("form_token", &form_token),
        ("url", url),
        ("type:invoice.paid", "on"),
    ];
    let answer = browser.post("/webhooks", &form).await;
    if answer.status == StatusCode::OK {
        let again = browser.post("/webhooks", &form).await;
        assert_eq!(again.header("location"), "/webhooks", "a double click adds one");
    }
    answer
}

#[tokio::test]
async fn a_replay_is_refused_in_words_while_too_much_is_pending() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    add(&mut browser, "http://127.0.0.1:9/hook").await;
    tell(&portal, ada).await;
    sqlx::query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
         INSERT INTO deliveries (id, event_id, channel, target, status, attempts, next_at_ms, error, created_at_ms) \
         SELECT 1000 + i, 1, 'webhook', 'whk_1', 'pending', 0, 0, '', 0 FROM n",
    )
    .execute(portal.state.db().pool())
    .await
    .unwrap();
    let page = browser.get("/webhooks/whk_1").await;
    let (token, form_token) = (page.csrf_token(), hidden(&page, "form_token"));
    let form = [
        ("csrf_token", token.as_str()),
        ("form_token", &form_token),
        ("event", "evt_1"),
    ];
    let refused = browser.post("/webhooks/whk_1/replay", &form).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        refused
            .body
            .contains("Not replayed: 1000 deliveries to whk_1 are pending"),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn an_endpoint_is_added_rotated_replayed_and_removed() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let refused = add(&mut browser, "not an address").await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("Not added"));
    let added = add(&mut browser, "http://127.0.0.1:9/hook").await;
    let secret = added
        .body
        .split("whsec_")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(added.header("cache-control"), "no-store");
    let list = browser.get("/webhooks").await.body;
    assert!(list.contains("127.0.0.1:9") && list.contains("invoice.paid") && !list.contains(&secret));
    assert_eq!(list.matches("href=\"/webhooks/").count(), 1, "{list}");

    tell(&portal, ada).await;
    let address = list
        .split("href=\"/webhooks/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let address = format!("/webhooks/{address}");
    let page = browser.get(&address).await;
    assert_eq!(page.body.matches(">Redeliver<").count(), 1, "{}", page.body);
    let (token, form_token) = (page.csrf_token(), hidden(&page, "form_token"));
    let event = hidden(&page, "event");
    let form = [
        ("csrf_token", token.as_str()),
        ("form_token", &form_token),
        ("event", &event),
    ];
    for _ in 0..2 {
        let answer = browser.post(&format!("{address}/replay"), &form).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    }
    let page = browser.get(&address).await;
    assert_eq!(page.body.matches(">Redeliver<").count(), 2, "sent once more, not twice");

    let form_token = hidden(&page, "form_token");
    let form = [("csrf_token", token.as_str()), ("form_token", &form_token)];
    let rotated = browser.post(&format!("{address}/rotate"), &form).await;
    assert!(rotated.body.contains("whsec_") && !rotated.body.contains(&secret));
    let removed = browser.post(&format!("{address}/remove"), &form).await;
    assert_eq!(removed.header("location"), "/webhooks");
    assert_eq!(browser.get(&address).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn s1_endpoints_and_notifications_of_another_are_not_found() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    portal.customer("bob").await;
    portal.user("fin", Role::Finance, None).await;
    let mut browser = portal.signed_in("ada").await;
    assert_eq!(
        add(&mut browser, "http://127.0.0.1:9/hook").await.status,
        StatusCode::OK
    );
    tell(&portal, ada).await;
    let list = browser.get("/webhooks").await.body;
    let id = list
        .split("href=\"/webhooks/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();

    let mut bob = portal.signed_in("bob").await;
    let mut staff = portal.signed_in("fin").await;
    let token = bob.get("/account").await.csrf_token();
    assert_eq!(bob.get(&format!("/webhooks/{id}")).await.status, StatusCode::NOT_FOUND);
    for action in ["rotate", "enable", "remove", "replay"] {
        let fresh = "a".repeat(64);
        let form = [
            ("csrf_token", token.as_str()),
            ("form_token", &fresh),
            ("event", "evt_1"),
        ];
        let answer = bob.post(&format!("/webhooks/{id}/{action}"), &form).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{action}");
    }
    for path in ["/webhooks", "/notifications", "/plans", "/subscriptions"] {
        assert_eq!(staff.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(portal.browser().get(path).await.status, StatusCode::SEE_OTHER, "{path}");
    }

    let page = browser.get("/notifications").await;
    assert!(
        page.body.contains("1 unread") && page.body.contains("INV-1"),
        "{}",
        page.body
    );
    let latest = hidden(&page, "up_to");
    assert!(!bob.get("/notifications").await.body.contains("INV-1"));
    let marked = bob
        .post("/notifications/read", &[("csrf_token", &token), ("up_to", &latest)])
        .await;
    assert_eq!(marked.status, StatusCode::SEE_OTHER);
    assert!(
        browser.get("/notifications").await.body.contains("1 unread"),
        "bob marks his own only"
    );
    let token = page.csrf_token();
    browser
        .post("/notifications/read", &[("csrf_token", &token), ("up_to", &latest)])
        .await;
    assert!(browser.get("/notifications").await.body.contains("All read"));
}

#[tokio::test]
async fn s1_a_discord_channel_is_added_and_its_address_never_shown() {
    const TOKEN: &str = "sEcret-tOken";
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    let mut send = async |url: &str| {
        let page = browser.get("/webhooks").await;
        let (token, form_token) = (page.csrf_token(), hidden(&page, "form_token"));
        let form = [
            ("csrf_token", token.as_str()),
            ("form_token", &form_token),
            ("kind", "discord"),
            ("url", url),
        ];
        browser.post("/webhooks", &form).await
    };
    let refused = send("http://127.0.0.1:9/hook").await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("/api/webhooks/"), "{}", refused.body);
    let added = send(&format!("http://127.0.0.1:9/api/webhooks/7/{TOKEN}")).await;
    assert_eq!(added.status, StatusCode::OK, "{}", added.body);
    assert!(added.body.contains("Discord channel added") && !added.body.contains("whsec_"));
    let list = browser.get("/webhooks").await.body;
    assert!(list.contains("http://127.0.0.1:9/api/webhooks/7/…"), "{list}");
    let page = browser.get("/webhooks/whk_1").await;
    assert!(page.body.contains("Discord channel") && !page.body.contains("Rotate secret"));
    // The page has no such form: one is made up.
    let form_token = hidden(&browser.get("/webhooks").await, "form_token");
    let token = page.csrf_token();
    let form = [("csrf_token", token.as_str()), ("form_token", &form_token)];
    let rotated = browser.post("/webhooks/whk_1/rotate", &form).await;
    assert_eq!(rotated.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(rotated.body.contains("Not rotated"), "{}", rotated.body);
    let log = activity::audit::list(portal.state.db().pool(), activity::audit::AuditFilter::default(), 9).await;
    let log = log.unwrap();
    assert_eq!(log[0].action, "webhook.add");
    assert_eq!(log[0].actor, "ada@example.net");
    for shown in [&added.body, &list, &page.body, &rotated.body, &format!("{log:?}")] {
        assert!(!shown.contains(TOKEN), "{shown}");
    }
}
