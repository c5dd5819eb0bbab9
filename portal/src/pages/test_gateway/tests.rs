//! A customer pays with test cards by hand, from the portal's pages alone; nobody else sees what is asked of them (S1).

use axum::http::{StatusCode, header};
use billing::catalog::{NewPlan, Terms};
use billing::payment::trial::Card;
use billing::payment::{self, GatewayName, NewPayment, Payment, PaymentState, method};
use schemas::ids::CustomerId;
use schemas::money::{Currency, Money};

use crate::pages::plans::tests::{order, plan};
use crate::testing::{Answer, Browser, TestPortal};

/// Where an answer leads to, as a path.
fn leads_to(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let location = answer.headers[header::LOCATION].to_str().unwrap();
    location.trim_start_matches("http://portal.example").to_owned()
}

async fn save(browser: &mut Browser, card: Card) {
    let shown = browser.get("/payment-methods").await;
    assert!(shown.body.contains("no money moves"), "{}", shown.body);
    let token = shown.csrf_token();
    let form = [("csrf_token", token.as_str()), ("gateway", "test")];
    let page = leads_to(&browser.post("/payment-methods/add", &form).await);
    let choices = browser.get(&page).await;
    assert_eq!(choices.status, StatusCode::OK);
    assert!(choices.body.contains("Test gateway") && choices.body.contains(card.label()));
    let token = choices.csrf_token();
    let chosen = browser
        .post(&page, &[("csrf_token", &token), ("card", card.name())])
        .await;
    let back = leads_to(&chosen);
    let returned = browser.get(&back).await;
    let reference = back.split("reference=").nth(1).unwrap();
    let token = returned.csrf_token();
    let form = [
        ("csrf_token", token.as_str()),
        ("gateway", "test"),
        ("reference", reference),
    ];
    let saved = browser.post("/payment-methods/return", &form).await;
    assert_eq!(leads_to(&saved), "/payment-methods?done=added");
    let saved = browser.get("/payment-methods").await;
    assert!(saved.body.contains(card.label()), "{}", saved.body);
}

async fn top_up(portal: &TestPortal, customer: CustomerId) -> Payment {
    let methods = method::methods(portal.state.db().pool(), customer).await.unwrap();
    let new = NewPayment {
        customer,
        invoice: None,
        amount: Some(Money::new(2_500, Currency::USD)),
        method: methods.iter().max_by_key(|method| method.id).unwrap().id,
        note: "",
        return_url: Some("http://portal.example/credit"),
    };
    let gateway = portal.state.gateways().get(GatewayName::Test).unwrap();
    payment::start(portal.state.db(), gateway, &new, portal.state.now_ms())
        .await
        .unwrap()
}

async fn state_of(portal: &TestPortal, id: schemas::ids::PaymentId) -> PaymentState {
    payment::payment(portal.state.db().pool(), id).await.unwrap().state
}

#[tokio::test]
async fn a_payment_is_confirmed_or_refused_at_the_test_bank() {
    let portal = TestPortal::with_test_gateway().await;
    let ada = portal.customer("ada").await;
    portal.customer("bob").await;
    let mut browser = portal.signed_in("ada").await;
    let mut bob = portal.signed_in("bob").await;
    save(&mut browser, Card::Confirms).await;
    for (answer, expected) in [("refuse", PaymentState::Failed), ("confirm", PaymentState::Succeeded)] {
        let waits = top_up(&portal, ada).await;
        assert_eq!(waits.state, PaymentState::RequiresAction);
        let credit = browser.get("/credit").await;
        assert!(credit.body.contains("Confirm with your bank"), "{}", credit.body);
        let page = waits.action_url.trim_start_matches("http://portal.example").to_owned();
        // S1: what is asked of her is not found by anybody else, nor answered.
        assert_eq!(bob.get(&page).await.status, StatusCode::NOT_FOUND);
        let token = bob.get("/credit").await.csrf_token();
        let theirs = bob.post(&page, &[("csrf_token", &token), ("answer", "confirm")]).await;
        assert_eq!(theirs.status, StatusCode::NOT_FOUND);
        assert_eq!(state_of(&portal, waits.id).await, PaymentState::RequiresAction);

        let bank = browser.get(&page).await;
        assert!(
            bank.body.contains("Test bank") && bank.body.contains("25.00"),
            "{}",
            bank.body
        );
        let token = bank.csrf_token();
        let back = leads_to(&browser.post(&page, &[("csrf_token", &token), ("answer", answer)]).await);
        assert!(back.starts_with("/credit?payment_intent="), "{back}");
        browser.get(&back).await;
        assert_eq!(state_of(&portal, waits.id).await, expected, "{answer}");
        let decided = browser.get(&page).await;
        assert!(decided.body.contains("This payment is decided"), "{}", decided.body);
    }
}

#[tokio::test]
async fn a_payment_made_while_its_customer_was_away_is_confirmed_by_one_button() {
    let portal = TestPortal::with_test_gateway().await;
    let ada = portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    save(&mut browser, Card::Confirms).await;
    let plan = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
    let (ordered, _) = order(&mut browser, &plan, "1", "").await;
    let page = ordered.header("location").split('?').next().unwrap().to_owned();
    let methods = method::methods(portal.state.db().pool(), ada).await.unwrap();
    let new = NewPayment {
        customer: ada,
        invoice: Some(page.rsplit('/').next().unwrap().parse().unwrap()),
        amount: None,
        method: methods[0].id,
        note: "",
        return_url: None,
    };
    let gateway = portal.state.gateways().get(GatewayName::Test).unwrap();
    let waits = payment::start(portal.state.db(), gateway, &new, portal.state.now_ms())
        .await
        .unwrap();
    assert_eq!(waits.state, PaymentState::RequiresAction);
    let bank = browser
        .send_form(&page, &format!("/payments/{}/confirm", waits.id), &[])
        .await;
    assert!(leads_to(&bank).starts_with("/test-gateway/charges/"), "{}", bank.body);
}

#[tokio::test]
async fn whoever_saves_a_card_to_pay_an_invoice_finds_the_way_back_to_it() {
    let portal = TestPortal::with_test_gateway().await;
    portal.customer("ada").await;
    portal.customer("bob").await;
    let mut browser = portal.signed_in("ada").await;
    let plan = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
    let (ordered, _) = order(&mut browser, &plan, "1", "").await;
    let page = ordered.header("location").split('?').next().unwrap().to_owned();
    let invoice = page.rsplit('/').next().unwrap().to_owned();
    let methods = format!("/payment-methods?invoice={invoice}");
    assert!(browser.get(&page).await.body.contains(&format!("href=\"{methods}\"")));
    let shown = browser.get(&methods).await;
    assert!(shown.body.contains("Back to invoice INV-"), "{}", shown.body);
    let token = shown.csrf_token();
    let form = [
        ("csrf_token", token.as_str()),
        ("gateway", "test"),
        ("invoice", &invoice),
    ];
    let choices = leads_to(&browser.post("/payment-methods/add", &form).await);
    let token = browser.get(&choices).await.csrf_token();
    let chosen = [("csrf_token", token.as_str()), ("card", Card::Accepted.name())];
    let back = leads_to(&browser.post(&choices, &chosen).await);
    let returned = browser.get(&back).await;
    assert_eq!(returned.hidden("invoice"), invoice);
    let hidden = ["csrf_token", "gateway", "reference", "invoice"].map(|name| (name, returned.hidden(name)));
    let form = hidden.each_ref().map(|(name, value)| (*name, value.as_str()));
    let saved = leads_to(&browser.post("/payment-methods/return", &form).await);
    assert_eq!(saved, format!("/payment-methods?done=added&invoice={invoice}"));
    let saved = browser.get(&saved).await.body;
    assert!(saved.contains("Pay invoice INV-") && saved.contains(&page), "{saved}");
    // S1: of an invoice of somebody else nothing is said.
    let mut bob = portal.signed_in("bob").await;
    assert!(!bob.get(&methods).await.body.contains("INV-"));
}

#[tokio::test]
async fn test_cards_are_accepted_or_declined() {
    let portal = TestPortal::with_test_gateway().await;
    let ada = portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    for (card, expected) in [
        (Card::Accepted, PaymentState::Succeeded),
        (Card::Declined, PaymentState::Failed),
        (Card::NoFunds, PaymentState::Failed),
    ] {
        save(&mut browser, card).await;
        assert_eq!(top_up(&portal, ada).await.state, expected, "{card:?}");
    }
    let credit = browser.get("/credit").await;
    assert!(credit.body.contains("25.00"), "{}", credit.body);
}

#[tokio::test]
async fn without_the_test_gateway_its_pages_are_not_there() {
    let portal = TestPortal::new().await;
    portal.customer("ada").await;
    let mut browser = portal.signed_in("ada").await;
    for path in ["/test-gateway/setups/test_setup_1", "/test-gateway/charges/test_ch_1"] {
        assert_eq!(browser.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let mut anonymous = portal.browser();
    let answer = anonymous.get("/test-gateway/setups/test_setup_1").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}
