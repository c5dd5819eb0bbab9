//! A budget is set, counted, held to and unlocked by paying, and is its customer's alone (S1).

use axum::http::StatusCode;
use billing::catalog::{NewPlan, Terms};
use billing::ledger;
use billing::subscription::{SubscriptionState, subscriptions_of};
use schemas::ids::CustomerId;

use crate::pages::plans::tests::{hidden, order, plan};
use crate::testing::stripe::{Ends, SharedDesk};
use crate::testing::{Answer, Browser, TestPortal};

struct Spender {
    portal: TestPortal,
    desk: SharedDesk,
    ada: CustomerId,
    browser: Browser,
}

impl Spender {
    /// Has ordered a service of 30.00 a month.
    async fn new() -> Spender {
        let (portal, desk) = TestPortal::with_stripe().await;
        let ada = portal.customer("ada").await;
        let mut browser = portal.signed_in("ada").await;
        let plan = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
        let (answer, _) = order(&mut browser, &plan, "1", "").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        Spender {
            portal,
            desk,
            ada,
            browser,
        }
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.browser.get("/account").await.csrf_token();
        let mut form = vec![("csrf_token", token.as_str())];
        form.extend(fields);
        self.browser.post(path, &form).await
    }

    async fn set(&mut self, amount: &str, suspends: bool) -> Answer {
        let mut fields = vec![("amount", amount), ("thresholds", "50, 75,90 %"), ("reset_day", "")];
        if suspends {
            fields.push(("suspends", "on"));
        }
        self.post("/budget", &fields).await
    }

    async fn state(&self) -> SubscriptionState {
        let found = subscriptions_of(self.portal.state.db().pool(), self.ada).await.unwrap();
        found[0].state
    }

    async fn json(&mut self) -> serde_json::Value {
        self.browser.get("/api/v1/budget").await.json()
    }
}

#[tokio::test]
async fn a_budget_is_set_counted_changed_and_removed() {
    let mut spender = Spender::new().await;
    let empty = spender.browser.get("/budget").await.body;
    assert!(
        empty.contains("No budget yet") && empty.contains("50, 75, 90"),
        "{empty}"
    );
    assert_eq!(spender.json().await["budget"], serde_json::Value::Null);
    let answer = spender.set("40", false).await;
    assert_eq!(answer.header("location"), "/budget?done=set", "{}", answer.body);
    let page = spender.browser.get("/budget?done=set").await.body;
    // 30.00 of 40.00, and what was said of it at once.
    for told in [
        "75 % of USD 40.00",
        "50 % spent",
        "75 % spent",
        "15 Jul 2025",
        "on day 15 of the month",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(!page.contains(" style="), "nothing inline");
    let json = spender.json().await;
    assert_eq!(json["budget"]["spent"]["minor"], 3_000);
    assert_eq!(json["budget"]["unlock"], serde_json::Value::Null, "nothing is exceeded");
    assert_eq!(json["budget"]["thresholds_percent"], serde_json::json!([50, 75, 90]));
    assert_eq!(json["alerts"].as_array().map(Vec::len), Some(2));
    for (field, value, said) in [
        ("amount", "", "An amount is like"),
        ("amount", "-5", "A budget lies between"),
        ("thresholds", "0", "different percentages"),
        ("thresholds", "50,50", "different percentages"),
        ("thresholds", "half", "different percentages"),
        ("reset_day", "40", "."),
    ] {
        let mut fields = vec![("amount", "40"), ("thresholds", "80"), ("reset_day", "3")];
        for one in &mut fields {
            if one.0 == field {
                one.1 = value;
            }
        }
        let refused = spender.post("/budget", &fields).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{field} {value}");
        assert!(
            refused.body.contains(said) && refused.body.contains("role=\"alert\""),
            "{}",
            refused.body
        );
    }
    assert_eq!(spender.json().await["budget"]["amount"]["minor"], 4_000);
    for _ in 0..2 {
        let answer = spender.post("/budget/clear", &[]).await;
        assert_eq!(answer.header("location"), "/budget?done=cleared");
    }
    assert!(spender.browser.get("/budget").await.body.contains("No budget yet"));
}

#[tokio::test]
async fn what_is_spent_suspends_and_paying_unlocks_at_once() {
    let mut spender = Spender::new().await;
    spender.set("22", true).await;
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    assert_eq!(spender.json().await["budget"]["unlock"]["minor"], 800);
    let page = spender.browser.get("/budget").await.body;
    assert!(
        page.contains("Your services are suspended") && page.contains("Save a payment method"),
        "{page}"
    );
    let card = spender.portal.card(spender.ada, "pm_ada").await.to_string();
    // What counts is what was paid after it was said that the budget is spent.
    spender.portal.advance_ms(60_000);
    let page = spender.browser.get("/budget").await;
    // 8.00 over.
    assert!(
        page.body.contains("Pay USD 8.00 and unlock") && page.body.contains("the open invoice"),
        "{}",
        page.body
    );
    let token = hidden(&page, "form_token");
    let fields = [
        ("form_token", token.as_str()),
        ("amount", "8.00"),
        ("method", card.as_str()),
    ];
    spender.desk.lock().unwrap().script.push_back(Ends::Declined);
    let declined = spender.post("/budget/unlock", &fields).await;
    assert_eq!(
        declined.header("location"),
        "/budget?done=declined",
        "{}",
        declined.body
    );
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    // Too little by hand: credit, and no more than that.
    let fresh = "1".repeat(64);
    let little = [
        ("form_token", fresh.as_str()),
        ("amount", "5.00"),
        ("method", card.as_str()),
    ];
    let answer = spender.post("/budget/unlock", &little).await;
    assert_eq!(answer.header("location"), "/budget?done=paid", "{}", answer.body);
    assert!(
        spender
            .browser
            .get("/budget?done=paid")
            .await
            .body
            .contains("less than what is spent over")
    );
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    let fresh = "2".repeat(64);
    let rest = [
        ("form_token", fresh.as_str()),
        ("amount", "8.00"),
        ("method", card.as_str()),
    ];
    for _ in 0..2 {
        let answer = spender.post("/budget/unlock", &rest).await;
        assert_eq!(answer.header("location"), "/budget?done=unlocked", "{}", answer.body);
    }
    assert_eq!(spender.state().await, SubscriptionState::Active);
    let page = spender.browser.get("/budget?done=unlocked").await.body;
    assert!(page.contains("Unlocked: your services keep running"), "{page}");
    assert_eq!(spender.json().await["budget"]["is_unlocked"], true);
    // Declined, 5.00 and 8.00, each once.
    assert_eq!(spender.desk.lock().unwrap().of("payment_intent").len(), 3);
    let report = ledger::check(spender.portal.state.db()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn paying_the_open_invoice_unlocks_and_so_does_a_confirmed_payment() {
    let mut spender = Spender::new().await;
    let card = spender.portal.card(spender.ada, "pm_ada").await.to_string();
    spender.set("22", true).await;
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    spender.portal.advance_ms(60_000);
    let invoices = billing::invoice::list_of(spender.portal.state.db().pool(), spender.ada)
        .await
        .unwrap();
    let address = format!("/invoices/{}", invoices[0].id);
    let page = spender.browser.get(&address).await;
    let token = hidden(&page, "form_token");
    spender.desk.lock().unwrap().script.push_back(Ends::Asked);
    let fields = [("form_token", token.as_str()), ("method", card.as_str())];
    for _ in 0..2 {
        let answer = spender.post(&format!("{address}/pay"), &fields).await;
        assert_eq!(answer.header("location"), address);
    }
    let page = spender.browser.get(&address).await.body;
    assert!(
        page.contains("Confirm with your bank") && page.contains("Cancel payment"),
        "{page}"
    );
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    let reference = spender.desk.lock().unwrap().confirm();
    let back = spender
        .browser
        .get(&format!("{address}?payment_intent={reference}"))
        .await;
    assert_eq!(back.header("location"), format!("{address}?done=paid"));
    assert_eq!(spender.state().await, SubscriptionState::Active);
    assert_eq!(spender.desk.lock().unwrap().of("payment_intent").len(), 1);
}

#[tokio::test]
async fn a_service_that_is_left_out_does_not_count_and_goes_on() {
    let mut spender = Spender::new().await;
    spender.set("22", true).await;
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
    let answer = spender
        .post("/budget/services", &[("service", "svc_1"), ("counts", "no")])
        .await;
    assert_eq!(answer.header("location"), "/budget?done=services", "{}", answer.body);
    assert_eq!(spender.state().await, SubscriptionState::Active);
    let json = spender.json().await;
    assert_eq!(json["budget"]["excluded"], serde_json::json!(["svc_1"]));
    assert_eq!(json["budget"]["spent"]["minor"], 0);
    assert!(spender.browser.get("/budget").await.body.contains("excluded"));
    spender
        .post("/budget/services", &[("service", "svc_1"), ("counts", "yes")])
        .await;
    assert_eq!(spender.state().await, SubscriptionState::Suspended);
}

#[tokio::test]
async fn s1_a_budget_is_its_customer_s_alone() {
    let mut spender = Spender::new().await;
    spender.set("40", false).await;
    spender.portal.customer("bob").await;
    let mut bob = spender.portal.signed_in("bob").await;
    let page = bob.get("/budget").await.body;
    assert!(page.contains("No budget yet") && !page.contains("web-1"), "{page}");
    assert_eq!(bob.get("/api/v1/budget").await.json()["alerts"], serde_json::json!([]));
    let token = bob.get("/account").await.csrf_token();
    for service in ["svc_1", "svc_99", "x"] {
        let form = [("csrf_token", token.as_str()), ("service", service), ("counts", "no")];
        assert_eq!(
            bob.post("/budget/services", &form).await.status,
            StatusCode::NOT_FOUND,
            "{service}"
        );
    }
    let card = spender.portal.card(spender.ada, "pm_ada").await.to_string();
    let fresh = "3".repeat(64);
    let form = [
        ("csrf_token", token.as_str()),
        ("form_token", &fresh),
        ("amount", "8.00"),
        ("method", &card),
    ];
    assert_eq!(bob.post("/budget/unlock", &form).await.status, StatusCode::NOT_FOUND);
    bob.post("/budget/clear", &[("csrf_token", &token)]).await;
    assert_eq!(
        spender.json().await["budget"]["amount"]["minor"],
        4_000,
        "hers is there still"
    );
}
