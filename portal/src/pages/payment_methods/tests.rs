//! A card is saved on Stripe's page: from the way back and from the webhook, once, and for nobody else (S1).

use axum::http::{Request, StatusCode, header};
use billing::payment::method;
use billing::payment::stripe::sign;
use schemas::ids::CustomerId;

use crate::testing::stripe::SharedDesk;
use crate::testing::{Answer, Browser, TestPortal};

struct Saver {
    portal: TestPortal,
    desk: SharedDesk,
    ada: CustomerId,
    browser: Browser,
}

impl Saver {
    async fn new() -> Saver {
        let (portal, desk) = TestPortal::with_stripe().await;
        let ada = portal.customer("ada").await;
        Saver {
            browser: portal.signed_in("ada").await,
            portal,
            desk,
            ada,
        }
    }

    async fn add(&mut self) -> Answer {
        let token = self.browser.get("/payment-methods").await.csrf_token();
        let form = [("csrf_token", token.as_str()), ("gateway", "stripe")];
        self.browser.post("/payment-methods/add", &form).await
    }

    /// The session that was begun last: its id and where it leads back to.
    fn session(&self) -> (String, String) {
        let sessions = self.desk.lock().unwrap().of("checkout.session");
        let last = sessions.last().unwrap();
        let text = |name: &str| last[name].as_str().unwrap().to_owned();
        let back = text("success_url");
        let path = back.strip_prefix("http://portal.example").unwrap().to_owned();
        assert_eq!(text("cancel_url"), "http://portal.example/payment-methods");
        (text("id"), path)
    }

    /// What Stripe posts when the card was entered.
    async fn webhook(&self, event: &str, session: &str) -> Answer {
        let object = self.desk.lock().unwrap().of("checkout.session");
        let object = object.into_iter().find(|one| one["id"] == session).unwrap();
        let body = serde_json::json!({
            "id": event, "type": "checkout.session.completed", "data": { "object": object },
        })
        .to_string();
        let now_s = schemas::clock::machine_now().as_second();
        let request = Request::post("/hooks/stripe")
            .header(header::CONTENT_TYPE, "application/json")
            .header("stripe-signature", sign("whsec_test", now_s, body.as_bytes()));
        self.portal.browser().send(request, body).await
    }

    async fn cards(&self, customer: CustomerId) -> usize {
        let pool = self.portal.state.db().pool();
        method::methods(pool, customer).await.unwrap().len()
    }
}

#[tokio::test]
async fn a_card_is_saved_on_the_way_back_once() {
    let mut saver = Saver::new().await;
    let page = saver.browser.get("/payment-methods").await;
    let origin = saver
        .portal
        .state
        .gateways()
        .iter()
        .next()
        .unwrap()
        .page_origins()
        .remove(0);
    assert!(
        page.header("content-security-policy")
            .ends_with(&format!("form-action 'self' {origin}")),
        "{:?}",
        page.headers
    );
    // Other pages' forms lead nowhere else.
    let other = saver.browser.get("/account").await;
    assert!(other.header("content-security-policy").ends_with("form-action 'self'"));
    // The desk's page is not where Stripe's are: a link leads there, as no form may.
    let waiting = saver.add().await;
    assert!(
        waiting.body.contains("href=\"https://pay.example/cs_test_2\""),
        "{}",
        waiting.body
    );
    let (session, back) = saver.session();
    let early = saver.browser.come_back(&back).await;
    assert_eq!(early.header("location"), "/payment-methods?done=unfinished");
    assert!(
        saver
            .browser
            .get(early.header("location"))
            .await
            .body
            .contains("nothing was saved")
    );
    saver.desk.lock().unwrap().enter_card(&session);
    for _ in 0..2 {
        let answer = saver.browser.come_back(&back).await;
        assert_eq!(
            answer.header("location"),
            "/payment-methods?done=added",
            "{}",
            answer.body
        );
    }
    // The webhook, twice and under two names: it is saved already.
    for event in ["evt_1", "evt_1", "evt_2"] {
        assert_eq!(saver.webhook(event, &session).await.status, StatusCode::OK);
    }
    assert_eq!(saver.cards(saver.ada).await, 1);
    let page = saver.browser.get("/payment-methods?done=added").await.body;
    assert!(page.contains("visa •••• 4242") && page.contains("default"), "{page}");
}

#[tokio::test]
async fn a_card_is_saved_by_the_webhook_alone_and_after_an_outage() {
    let mut saver = Saver::new().await;
    saver.add().await;
    let (session, back) = saver.session();
    saver.desk.lock().unwrap().enter_card(&session);
    // Stripe tells of it, and then does not answer what it was: it is asked again later.
    let kept = {
        let body = saver.desk.lock().unwrap().of("checkout.session");
        assert_eq!(body.len(), 1);
        saver.desk.lock().unwrap().is_down = true;
        saver.webhook("evt_1", &session).await
    };
    assert_eq!((kept.status, kept.body.as_str()), (StatusCode::OK, "kept\n"));
    let silent = saver.browser.come_back(&back).await;
    assert_eq!(silent.header("location"), "/payment-methods?done=silent");
    assert_eq!(saver.cards(saver.ada).await, 0);
    saver.desk.lock().unwrap().is_down = false;
    let state = &saver.portal.state;
    billing::payment::reconcile(state.db(), state.gateways(), state.now_ms())
        .await
        .unwrap();
    assert_eq!(saver.cards(saver.ada).await, 1);
    assert_eq!(
        saver.browser.come_back(&back).await.header("location"),
        "/payment-methods?done=added"
    );
    assert_eq!(saver.cards(saver.ada).await, 1);
}

#[tokio::test]
async fn s1_a_setup_of_another_saves_nothing() {
    let mut saver = Saver::new().await;
    let bob = saver.portal.customer("bob").await;
    saver.add().await;
    let (session, back) = saver.session();
    saver.desk.lock().unwrap().enter_card(&session);
    let mut thief = saver.portal.signed_in("bob").await;
    let setup = saver.desk.lock().unwrap().of("setup_intent")[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for path in [
        back.clone(),
        format!("/payment-methods/return?gateway=stripe&reference={setup}"),
        "/payment-methods/return?gateway=stripe&reference=cs_99".to_owned(),
        "/payment-methods/return?gateway=stripe&reference=..%2Fcustomers".to_owned(),
        "/payment-methods/return?gateway=stripe".to_owned(),
    ] {
        let answer = thief.come_back(&path).await;
        assert_eq!(answer.header("location"), "/payment-methods?done=unfinished", "{path}");
    }
    assert_eq!((saver.cards(bob).await, saver.cards(saver.ada).await), (0, 0));
    for (path, status) in [
        (
            "/payment-methods/return?gateway=paypal&reference=x",
            StatusCode::NOT_FOUND,
        ),
        ("/payment-methods/return?gateway=bank", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(thief.get(path).await.status, status, "{path}");
    }
    // Whose session is over signs in and is back there.
    let signin = saver.portal.browser().get(&back).await;
    assert!(
        signin.header("location").starts_with("/signin?next="),
        "{}",
        signin.header("location")
    );
    assert_eq!(
        saver.browser.come_back(&back).await.header("location"),
        "/payment-methods?done=added"
    );
}

#[tokio::test]
async fn a_paypal_account_is_approved_there_and_saved_on_the_way_back() {
    let (portal, approved) = TestPortal::with_paypal().await;
    let ada = portal.customer("ada").await;
    let bob = portal.customer("bob").await;
    let mut browser = portal.signed_in("ada").await;
    let mut thief = portal.signed_in("bob").await;
    let token = browser.get("/payment-methods").await.csrf_token();
    let form = [("csrf_token", token.as_str()), ("gateway", "paypal")];
    let there = browser.post("/payment-methods/add", &form).await;
    assert_eq!(there.status, StatusCode::SEE_OTHER, "{}", there.body);
    let origin = portal.state.gateways().iter().next().unwrap().page_origins().remove(0);
    assert_eq!(
        there.header("location"),
        format!("{origin}/agreements/approve?token=SETUP-0"),
        "where its forms may lead"
    );
    let back = "/payment-methods/return?gateway=paypal&approval_token_id=SETUP-0&approval_session_id=S";
    assert_eq!(
        browser.come_back(back).await.header("location"),
        "/payment-methods?done=unfinished"
    );
    approved.lock().unwrap().insert("SETUP-0".to_owned());
    let missing = "/payment-methods/return?gateway=paypal&approval_token_id=SETUP-9";
    for path in [back, missing] {
        assert_eq!(
            thief.come_back(path).await.header("location"),
            "/payment-methods?done=unfinished",
            "{path}"
        );
    }
    for _ in 0..2 {
        assert_eq!(
            browser.come_back(back).await.header("location"),
            "/payment-methods?done=added"
        );
    }
    let pool = portal.state.db().pool();
    assert_eq!(method::methods(pool, ada).await.unwrap().len(), 1);
    assert!(method::methods(pool, bob).await.unwrap().is_empty());
    assert!(
        browser
            .get("/payment-methods")
            .await
            .body
            .contains("PayPal ada@example.net")
    );
}
