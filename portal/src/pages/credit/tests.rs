//! Credit is bought once, confirmed or given up, topped up as it is set; and all of it is its customer's alone (S1).

use axum::http::StatusCode;
use billing::catalog::{NewPlan, Terms};
use billing::ledger;
use billing::settlement;
use schemas::ids::{CustomerId, PaymentMethodId};
use schemas::money::{Currency, Money};

use crate::auth::Role;
use crate::pages::plans::tests::{hidden, order, plan};
use crate::testing::stripe::{Ends, SharedDesk};
use crate::testing::{Answer, Browser, NOW_MS, TestPortal};

struct Buyer {
    portal: TestPortal,
    desk: SharedDesk,
    ada: CustomerId,
    card: PaymentMethodId,
    browser: Browser,
}

impl Buyer {
    async fn new() -> Buyer {
        let (portal, desk) = TestPortal::with_stripe().await;
        let ada = portal.customer("ada").await;
        Buyer {
            card: portal.card(ada, "pm_ada").await,
            browser: portal.signed_in("ada").await,
            portal,
            desk,
            ada,
        }
    }

    /// The form as it is sent from a page that was loaded.
    async fn form(&mut self, fields: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let page = self.browser.get("/credit").await;
        let mut form = vec![("csrf_token", page.csrf_token())];
        if page.body.contains("form_token") {
            form.push(("form_token", hidden(&page, "form_token")));
        }
        form.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
        form
    }

    async fn post(&mut self, path: &str, form: &[(&'static str, String)]) -> Answer {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.browser.post(path, &form).await
    }

    async fn buy(&mut self, amount: &str) -> Answer {
        let card = self.card.to_string();
        let form = self.form(&[("amount", amount), ("method", &card)]).await;
        self.post("/credit/buy", &form).await
    }

    async fn balance(&self) -> i64 {
        let report = ledger::check(self.portal.state.db()).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let pool = self.portal.state.db().pool();
        let balance = settlement::credit_balance(pool, self.ada, Currency::USD).await;
        balance.unwrap().minor
    }

    fn charges(&self) -> usize {
        self.desk.lock().unwrap().of("payment_intent").len()
    }
}

#[tokio::test]
async fn credit_is_bought_once_for_each_form() {
    let mut buyer = Buyer::new().await;
    let empty = buyer.browser.get("/credit").await.body;
    assert!(empty.contains("No credit yet") && empty.contains("USD 0.00"), "{empty}");
    let card = buyer.card.to_string();
    let form = buyer.form(&[("amount", "100.00"), ("method", &card)]).await;
    for _ in 0..3 {
        let answer = buyer.post("/credit/buy", &form).await;
        assert_eq!(answer.header("location"), "/credit?done=paid", "{}", answer.body);
    }
    assert_eq!((buyer.charges(), buyer.balance().await), (1, 10_000));
    let form = buyer
        .form(&[("amount", "own"), ("amount_own", "12.34"), ("method", &card)])
        .await;
    assert_eq!(
        buyer.post("/credit/buy", &form).await.header("location"),
        "/credit?done=paid"
    );
    assert_eq!(buyer.balance().await, 11_234);
    let page = buyer.browser.get("/credit?done=paid").await.body;
    for told in [
        "+USD 12.34",
        "USD 112.34",
        "Credit added",
        "Added by you",
        "your credit is there",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let json = buyer.browser.get("/api/v1/credit").await.json();
    assert_eq!(json["balance"]["minor"], 11_234);
    assert_eq!(json["attempts"][0]["state"], "succeeded");
    let first = buyer.browser.get("/api/v1/credit/movements?limit=1").await.json();
    assert_eq!(first["movements"][0]["balance"]["minor"], 11_234);
    let next = first["next"].as_str().unwrap();
    let rest = buyer
        .browser
        .get(&format!("/api/v1/credit/movements?before={next}"))
        .await
        .json();
    assert_eq!(rest["movements"][0]["cause"], "bought");
    assert_eq!(rest["next"], serde_json::Value::Null);
    for query in ["limit=0", "limit=101", "before=x"] {
        let answer = buyer.browser.get(&format!("/api/v1/credit/movements?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn amounts_that_cannot_be_bought_are_refused_beside_the_form() {
    let mut buyer = Buyer::new().await;
    let card = buyer.card.to_string();
    for (amount, own, said) in [
        ("own", "1", "lies between USD 5.00 and USD 5,000.00"),
        ("own", "6000", "lies between"),
        ("own", "", "An amount is like"),
        ("own", "5.001", "2 digits"),
        ("50.00", "75", "You chose an amount and typed another"),
    ] {
        let form = buyer
            .form(&[("amount", amount), ("amount_own", own), ("method", &card)])
            .await;
        let answer = buyer.post("/credit/buy", &form).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{amount} {own}");
        assert!(answer.body.contains(said), "{said}: {}", answer.body);
    }
    assert_eq!(buyer.charges(), 0);
    // Declined: told, with the reason among the attempts.
    buyer.desk.lock().unwrap().script.push_back(Ends::Declined);
    assert_eq!(buyer.buy("50.00").await.header("location"), "/credit?done=declined");
    let page = buyer.browser.get("/credit?done=declined").await.body;
    assert!(
        page.contains("Your card has insufficient funds.") && page.contains("nothing was charged"),
        "{page}"
    );
    assert_eq!(buyer.balance().await, 0);
}

#[tokio::test]
async fn a_payment_is_confirmed_with_the_bank_and_seen_on_the_way_back() {
    let mut buyer = Buyer::new().await;
    buyer.desk.lock().unwrap().script.push_back(Ends::Asked);
    assert_eq!(buyer.buy("50.00").await.header("location"), "/credit?done=confirm");
    let page = buyer.browser.get("/credit").await.body;
    assert!(
        page.contains("https://bank.example/pi_1") && page.contains("/payments/pay_1/give-up"),
        "{page}"
    );
    assert!(!page.contains("action=\"/credit/buy\""), "one at a time: {page}");
    // A form of before finds it under way.
    let form = [
        ("csrf_token", buyer.browser.get("/account").await.csrf_token()),
        ("form_token", "c".repeat(64)),
        ("amount", "50.00".to_owned()),
        ("method", buyer.card.to_string()),
    ];
    let second = buyer.post("/credit/buy", &form).await;
    assert_eq!(second.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(second.body.contains("under way already"), "{}", second.body);
    // Coming back without having confirmed changes nothing; a foreign name neither.
    for reference in ["pi_1", "pi_99"] {
        buyer.browser.get(&format!("/credit?payment_intent={reference}")).await;
        assert_eq!(buyer.balance().await, 0, "{reference}");
    }
    let reference = buyer.desk.lock().unwrap().confirm();
    let back = buyer
        .browser
        .get(&format!("/credit?payment_intent={reference}&redirect_status=succeeded"))
        .await;
    assert_eq!(back.header("location"), "/credit?done=paid", "{}", back.body);
    assert_eq!((buyer.charges(), buyer.balance().await), (1, 5_000));
}

#[tokio::test]
async fn a_payment_is_given_up_and_what_the_gateway_says_counts() {
    let mut buyer = Buyer::new().await;
    let token = buyer.browser.get("/account").await.csrf_token();
    let give_up = [("csrf_token", token.clone())];
    buyer.desk.lock().unwrap().script.extend([Ends::Asked, Ends::Asked]);
    buyer.buy("50.00").await;
    // The gateway is silent: nothing is assumed.
    buyer.desk.lock().unwrap().is_down = true;
    let answer = buyer.post("/payments/pay_1/give-up", &give_up).await;
    assert_eq!(answer.header("location"), "/credit?done=silent");
    assert!(
        buyer
            .browser
            .get("/credit")
            .await
            .body
            .contains("/payments/pay_1/give-up")
    );
    buyer.desk.lock().unwrap().is_down = false;
    let answer = buyer.post("/payments/pay_1/give-up", &give_up).await;
    assert_eq!(answer.header("location"), "/credit?done=given-up");
    // Another can be made; it is confirmed at the same moment in which it is given up: paid.
    buyer.buy("50.00").await;
    buyer.desk.lock().unwrap().confirm();
    // S1: somebody else cannot, and is not told that it is there.
    buyer.portal.customer("bob").await;
    let mut bob = buyer.portal.signed_in("bob").await;
    let token = bob.get("/account").await.csrf_token();
    for payment in ["pay_2", "pay_99", "x"] {
        let answer = bob
            .post(&format!("/payments/{payment}/give-up"), &[("csrf_token", &token)])
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{payment}");
    }
    assert_eq!(buyer.balance().await, 0);
    let answer = buyer.post("/payments/pay_2/give-up", &give_up).await;
    assert_eq!(answer.header("location"), "/credit?done=paid");
    assert_eq!(buyer.balance().await, 5_000);
}

#[tokio::test]
async fn top_up_is_set_told_and_switched_off() {
    let mut buyer = Buyer::new().await;
    let form = buyer
        .form(&[("threshold", "25.00"), ("amount", "own"), ("amount_own", "75")])
        .await;
    let answer = buyer.post("/credit/top-up", &form).await;
    assert_eq!(answer.header("location"), "/credit?done=set", "{}", answer.body);
    let page = buyer.browser.get("/credit").await.body;
    assert!(
        page.contains("USD 75.00 below USD 25.00") && page.contains("value=\"75.00\""),
        "{page}"
    );
    let form = buyer
        .form(&[("threshold", "50.00"), ("amount", "own"), ("amount_own", "20")])
        .await;
    let refused = buyer.post("/credit/top-up", &form).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused.body.contains("would not bring the credit over"),
        "{}",
        refused.body
    );
    // Declines, peace, and the end of it.
    for (declines, is_enabled, told) in [
        (
            1,
            1,
            "The charge was declined once. The next attempt is made not before 15 Jun 2025 13:00.",
        ),
        (3, 1, "declined 3 times in a row"),
        (4, 0, "Switch it on again once the payment method works"),
    ] {
        sqlx::query("UPDATE top_ups SET declines = $1, is_enabled = $2, not_before_ms = $3")
            .bind(declines)
            .bind(is_enabled)
            .bind(NOW_MS + 3_600_000)
            .execute(buyer.portal.state.db().pool())
            .await
            .unwrap();
        let page = buyer.browser.get("/credit").await.body;
        assert!(page.contains(told), "{told}: {page}");
    }
    let form = buyer.form(&[("threshold", "10.00"), ("amount", "50.00")]).await;
    buyer.post("/credit/top-up", &form).await;
    let json = buyer.browser.get("/api/v1/credit").await.json();
    assert_eq!(
        (&json["top_up"]["is_enabled"], &json["top_up"]["declines"]),
        (&true.into(), &0.into())
    );
    for _ in 0..2 {
        let form = buyer.form(&[]).await;
        let answer = buyer.post("/credit/top-up/off", &form).await;
        assert_eq!(answer.header("location"), "/credit?done=off");
    }
    let json = buyer.browser.get("/api/v1/credit").await.json();
    assert_eq!(json["top_up"]["is_enabled"], false);
}

#[tokio::test]
async fn an_open_invoice_is_paid_from_credit_once() {
    let mut buyer = Buyer::new().await;
    let new = NewPlan::new("VPS 1", "vps", Terms::Flat);
    let plan = plan(&buyer.portal, new).await;
    let (ordered, _) = order(&mut buyer.browser, &plan, "1", "").await;
    let address = ordered.header("location").split('?').next().unwrap().to_owned();
    assert!(
        !buyer.browser.get(&address).await.body.contains("pay-from-credit"),
        "there is none"
    );
    // 20.00 of 30.00, and 40.00 more than is left of it.
    for (amount, offered, left) in [
        ("20", "Pay USD 20.00 from your credit", 0),
        ("50", "Pay USD 10.00 from", 4_000),
    ] {
        let card = buyer.card.to_string();
        let form = buyer
            .form(&[("amount", "own"), ("amount_own", amount), ("method", &card)])
            .await;
        buyer.post("/credit/buy", &form).await;
        let page = buyer.browser.get(&address).await;
        assert!(page.body.contains(offered), "{offered}: {}", page.body);
        let form = [
            ("csrf_token", page.csrf_token()),
            ("form_token", hidden(&page, "form_token")),
        ];
        // S1: nobody else's invoice is paid by it, and nobody is told that it is there.
        let mut bob = match amount {
            "20" => {
                buyer.portal.customer("bob").await;
                buyer.portal.signed_in("bob").await
            }
            _ => buyer.portal.signed_in("bob").await,
        };
        let token = bob.get("/account").await.csrf_token();
        let theirs = [("csrf_token", token.as_str()), ("form_token", form[1].1.as_str())];
        let foreign = bob.post(&format!("{address}/pay-from-credit"), &theirs).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND);
        for _ in 0..2 {
            let answer = buyer.post(&format!("{address}/pay-from-credit"), &form).await;
            assert_eq!(
                answer.header("location"),
                format!("{address}?done=credit"),
                "{}",
                answer.body
            );
        }
        assert_eq!(buyer.balance().await, left);
    }
    let page = buyer.browser.get(&address).await.body;
    assert!(
        page.contains("Paid from your credit") && !page.contains("action=\"/invoices"),
        "{page}"
    );
    assert_eq!(buyer.charges(), 2, "the two that bought the credit");
}

#[tokio::test]
async fn movements_are_paged_with_the_right_balances() {
    let mut buyer = Buyer::new().await;
    let mut transaction = buyer.portal.state.db().begin_write().await.unwrap();
    for number in 1..=30 {
        let (amount, cause) = (Money::new(100, Currency::USD), format!("ticket:{number}"));
        settlement::grant_credit(&mut transaction, buyer.ada, amount, &cause, "sorry <b>", NOW_MS)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let page = buyer.browser.get("/credit").await.body;
    assert!(
        page.contains("USD 30.00") && page.contains("USD 6.00") && !page.contains("<b>USD 5.00"),
        "{page}"
    );
    assert!(!page.contains("sorry <b>"), "escaped");
    let older = page
        .split("href=\"/credit?before=")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let page = buyer.browser.get(&format!("/credit?before={older}")).await.body;
    assert!(
        page.contains("<b>USD 5.00</b>") && page.contains("<b>USD 1.00</b>"),
        "{page}"
    );
    assert!(!page.contains("rel=\"next\"") && page.contains("Latest"), "{page}");
    assert_eq!(
        buyer.browser.get("/credit?before=x").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn s1_credit_is_its_customer_s_alone() {
    let mut buyer = Buyer::new().await;
    buyer.buy("50.00").await;
    buyer.portal.customer("bob").await;
    let mut bob = buyer.portal.signed_in("bob").await;
    let page = bob.get("/credit").await;
    assert!(
        page.body.contains("No credit yet") && !page.body.contains("4242"),
        "{}",
        page.body
    );
    let json = bob.get("/api/v1/credit").await.json();
    assert_eq!(
        (
            json["balance"]["minor"].as_i64(),
            json["attempts"].as_array().map(Vec::len)
        ),
        (Some(0), Some(0))
    );
    let movements = bob.get("/api/v1/credit/movements").await.json();
    assert_eq!(movements["movements"].as_array().map(Vec::len), Some(0));
    // With ada's card: not found, as one that is not there.
    let token = bob.get("/account").await.csrf_token();
    for method in [buyer.card.to_string(), "pmt_99".to_owned(), "x".to_owned()] {
        let fresh = "d".repeat(64);
        let form = [
            ("csrf_token", token.as_str()),
            ("form_token", &fresh),
            ("amount", "50.00"),
            ("method", &method),
        ];
        assert_eq!(
            bob.post("/credit/buy", &form).await.status,
            StatusCode::NOT_FOUND,
            "{method}"
        );
    }
    // Her payment's name on his page leads nowhere.
    let back = bob.get("/credit?payment_intent=pi_1").await;
    assert_eq!(back.status, StatusCode::OK);
    assert_eq!(buyer.charges(), 1);
}

#[tokio::test]
async fn staff_and_strangers_have_no_credit() {
    let buyer = Buyer::new().await;
    for (name, role) in [("fin", Role::Finance), ("ops", Role::Ops), ("boss", Role::Admin)] {
        buyer.portal.user(name, role, None).await;
        let mut staff = buyer.portal.signed_in(name).await;
        let token = staff.get("/account").await.csrf_token();
        for path in [
            "/credit",
            "/budget",
            "/api/v1/credit",
            "/api/v1/credit/movements",
            "/api/v1/budget",
        ] {
            assert_eq!(staff.get(path).await.status, StatusCode::FORBIDDEN, "{name} {path}");
        }
        for path in [
            "/credit/buy",
            "/credit/top-up",
            "/credit/top-up/off",
            "/payments/pay_1/give-up",
            "/budget",
            "/budget/clear",
            "/budget/services",
            "/budget/unlock",
        ] {
            let answer = staff.post(path, &[("csrf_token", &token)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name} {path}");
        }
    }
    for path in ["/credit", "/budget"] {
        assert_eq!(
            buyer.portal.browser().get(path).await.status,
            StatusCode::SEE_OTHER,
            "{path}"
        );
    }
    let api = buyer.portal.browser().get("/api/v1/credit").await;
    assert_eq!(api.status, StatusCode::UNAUTHORIZED);
}
