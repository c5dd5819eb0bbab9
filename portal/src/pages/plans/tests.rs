//! What is sold, to whom, and what an order charges.

use axum::http::StatusCode;
use billing::catalog::{self, Badge, Discount, NewCoupon, NewPlan, NewPrice, Plan, PlanKind, Terms};
use billing::invoice;
use billing::payment::gateway::SavedMethod;
use billing::payment::{GatewayName, method};
use billing::price::UsagePrice;
use billing::subscription::subscriptions_of;
use schemas::ids::CustomerId;
use schemas::money::{Currency, Money};
use schemas::percent::Percent;

use crate::pages::account::two_factor_tests::App;
use crate::testing::{Answer, Browser, NOW_MS, TestPortal};

/// A plan at USD 30.00 a month and 306.00 a year.
pub(crate) async fn plan(portal: &TestPortal, new: NewPlan<'_>) -> Plan {
    priced_plan(portal, new, &[(1, 30_00), (12, 30600)]).await
}

pub(crate) async fn priced_plan(portal: &TestPortal, new: NewPlan<'_>, prices: &[(i64, i64)]) -> Plan {
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let plan = catalog::create_plan(&mut transaction, new, 0).await.unwrap();
    for (cycle_months, minor) in prices {
        let price = NewPrice {
            plan: plan.id,
            cycle_months: *cycle_months,
            base: Money::new(*minor, Currency::USD),
            usage: UsagePrice::FREE,
            valid_from_ms: 0,
        };
        catalog::add_price(&mut transaction, price).await.unwrap();
    }
    transaction.commit().await.unwrap();
    plan
}

/// The value of a hidden field of a page.
pub(crate) fn hidden(answer: &Answer, name: &str) -> String {
    let marker = format!("name=\"{name}\" value=\"");
    let start = answer
        .body
        .find(&marker)
        .unwrap_or_else(|| panic!("a field {name} in:\n{}", answer.body))
        + marker.len();
    answer.body[start..].split('"').next().unwrap().replace("&#43;", "+")
}

pub(crate) async fn order(
    browser: &mut Browser,
    plan: &Plan,
    cycle: &str,
    coupon: &str,
) -> (Answer, Vec<(String, String)>) {
    let address = format!("/plans/{}/checkout", plan.id);
    let page = browser.get(&format!("{address}?cycle={cycle}")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    let token = page.csrf_token();
    let mut form = vec![
        ("csrf_token".to_owned(), token),
        ("form_token".to_owned(), hidden(&page, "form_token")),
        ("name".to_owned(), "web-1".to_owned()),
        ("cycle".to_owned(), cycle.to_owned()),
        ("quantity".to_owned(), "1".to_owned()),
        ("coupon".to_owned(), coupon.to_owned()),
        ("do".to_owned(), "look".to_owned()),
    ];
    let looked = send(browser, &address, &form).await;
    assert_eq!(looked.status, StatusCode::OK, "{}", looked.body);
    form.retain(|(name, _)| name != "do" && name != "form_token");
    form.push(("do".to_owned(), "order".to_owned()));
    form.push(("form_token".to_owned(), hidden(&looked, "form_token")));
    form.push(("shown".to_owned(), hidden(&looked, "shown")));
    (send(browser, &address, &form).await, form)
}

pub(crate) async fn send(browser: &mut Browser, address: &str, form: &[(String, String)]) -> Answer {
    let form: Vec<(&str, &str)> = form
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    browser.post(address, &form).await
}

async fn subscribed(portal: &TestPortal, customer: CustomerId) -> usize {
    subscriptions_of(portal.state.db().pool(), customer)
        .await
        .unwrap()
        .len()
}

#[tokio::test]
async fn an_order_charges_what_was_shown_once_and_leads_to_its_invoice() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    sqlx::query("UPDATE customers SET tax_rate_percent = '20' WHERE id = $1")
        .bind(ada.0)
        .execute(portal.state.db().pool())
        .await
        .unwrap();
    let plan = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let coupon = NewCoupon {
        code: "HALF",
        discount: Discount::Percent(Percent::new(50.into()).unwrap()),
        months: Some(1),
        per_customer: Some(1),
        plan: None,
        max_redemptions: Some(1),
        expires_at_ms: None,
    };
    catalog::create_coupon(&mut transaction, coupon, NOW_MS).await.unwrap();
    transaction.commit().await.unwrap();
    let mut browser = portal.signed_in("ada").await;

    let (answer, form) = order(&mut browser, &plan, "1", "half").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let invoices = invoice::list_of(portal.state.db().pool(), ada).await.unwrap();
    assert_eq!(invoices.len(), 1);
    // 30.00 less 50 %, with 20 % tax.
    assert_eq!(invoices[0].total, Money::new(18_00, Currency::USD));
    assert_eq!(form.last().unwrap().1, "USD 18.00", "what was shown is what is charged");
    assert_eq!(
        answer.header("location"),
        format!("/invoices/{}?done=ordered", invoices[0].id)
    );
    let page = browser.get(answer.header("location")).await;
    // Nothing is saved, so nothing is charged automatically.
    assert!(!page.body.contains("harged automatically"), "{}", page.body);
    assert!(
        page.body.contains("VPS 1") && page.body.contains("open"),
        "{}",
        page.body
    );

    // The same form again does nothing; looking alone has redeemed nothing and made nothing either.
    let again = send(&mut browser, &format!("/plans/{}/checkout", plan.id), &form).await;
    assert_eq!(again.header("location"), "/subscriptions?done=again");
    assert_eq!(subscribed(&portal, ada).await, 1);
    assert_eq!(invoice::list_of(portal.state.db().pool(), ada).await.unwrap().len(), 1);
    let coupons = catalog::coupons(portal.state.db().pool()).await.unwrap();
    assert_eq!(coupons[0].redeemed, 1);
}

#[tokio::test]
async fn amounts_that_were_not_shown_are_not_charged() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let plan = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
    let mut browser = portal.signed_in("ada").await;
    let address = format!("/plans/{}/checkout", plan.id);
    let page = browser.get(&address).await;
    let token = page.csrf_token();
    let form_token = hidden(&page, "form_token");
    let shown = hidden(&page, "shown");
    let mut form = vec![
        ("csrf_token", token.as_str()),
        ("form_token", &form_token),
        ("shown", &shown),
        ("name", "web-1"),
        ("quantity", "1"),
        ("do", "order"),
        // Shown was a month.
        ("cycle", "12"),
    ];
    let answer = browser.post(&address, &form).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("USD 306.00"), "{}", answer.body);
    form[6] = ("cycle", "1");
    for (field, value, told) in [
        ("name", " ", "Give the service a name"),
        ("quantity", "0", "A quantity is a number"),
        ("coupon", "nope", "NOPE cannot be used"),
    ] {
        let mut wrong: Vec<(&str, &str)> = form.iter().copied().filter(|(name, _)| *name != field).collect();
        wrong.push((field, value));
        let answer = browser.post(&address, &wrong).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{field}");
        assert!(answer.body.contains(told), "{field}: {}", answer.body);
    }
    form[0] = ("csrf_token", "x");
    assert_eq!(browser.post(&address, &form).await.status, StatusCode::FORBIDDEN);
    assert_eq!(subscribed(&portal, ada).await, 0);
}

#[tokio::test]
async fn a_default_payment_method_is_named_before_it_is_charged() {
    let portal = TestPortal::with_test_gateway().await;
    let ada = portal.customer("ada").await;
    let plan = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
    let mut browser = portal.signed_in("ada").await;
    let address = format!("/plans/{}/checkout?cycle=1", plan.id);
    assert!(browser.get(&address).await.body.contains("you pay on its page"));
    let saved = SavedMethod {
        gateway_customer: "cus_x".to_owned(),
        reference: "card_x".to_owned(),
        kind: "card".to_owned(),
        label: "visa •••• 4242".to_owned(),
        expires: "2030-12".to_owned(),
    };
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    method::save(&mut transaction, GatewayName::Test, ada, &saved, 0)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let checkout = browser.get(&address).await.body;
    assert!(
        checkout.contains("is charged automatically to visa •••• 4242"),
        "{checkout}"
    );
    let (ordered, _) = order(&mut browser, &plan, "1", "").await;
    let invoice = ordered.header("location").split('?').next().unwrap().to_owned();
    let page = browser.get(&invoice).await.body;
    assert!(
        page.contains("Charged automatically to visa •••• 4242 within a few minutes."),
        "{page}"
    );
}

#[tokio::test]
async fn the_next_charge_bears_tax_whatever_its_cycle() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    sqlx::query("UPDATE customers SET tax_rate_percent = '20' WHERE id = $1")
        .bind(ada.0)
        .execute(portal.state.db().pool())
        .await
        .unwrap();
    let plan = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
    let mut browser = portal.signed_in("ada").await;
    // 30.00 and 306.00 before tax; the year lies further ahead than everything of the account is drafted.
    for (cycle, next) in [("1", "USD 36.00"), ("12", "USD 367.20")] {
        let page = browser
            .get(&format!("/plans/{}/checkout?cycle={cycle}", plan.id))
            .await
            .body;
        let told = format!("Next charge for this service: <b>{next}</b> with tax on");
        assert!(page.contains(&told), "{told}: {page}");
    }
}

#[tokio::test]
async fn only_what_is_sold_to_everybody_is_shown_and_ordered() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let open = NewPlan {
        badge: Badge::Popular,
        stock: Some(3),
        trial_days: 14,
        ..NewPlan::new("VPS open", "vps", Terms::Flat)
    };
    plan(&portal, open).await;
    let sold_out = plan(
        &portal,
        NewPlan {
            stock: Some(0),
            ..NewPlan::new("VPS gone", "vps", Terms::Flat)
        },
    )
    .await;
    let private = plan(
        &portal,
        NewPlan {
            kind: PlanKind::Private,
            ..NewPlan::new("Secret deal", "vps", Terms::Flat)
        },
    )
    .await;
    let addon = plan(
        &portal,
        NewPlan {
            kind: PlanKind::Addon,
            ..NewPlan::new("Backup", "vps", Terms::Flat)
        },
    )
    .await;
    let archived = plan(&portal, NewPlan::new("Old VPS", "vps", Terms::Flat)).await;
    let free = NewPlan {
        is_free: true,
        ..NewPlan::new("Free VPS", "vps", Terms::Flat)
    };
    let free = priced_plan(&portal, free, &[(1, 0)]).await;
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    catalog::archive_plan(&mut transaction, archived.id, NOW_MS - 1)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    plan(&portal, NewPlan::new("Rack", "dedicated", Terms::Flat)).await;

    let mut browser = portal.signed_in("ada").await;
    let page = browser.get("/plans?type=vps&cycle=12").await.body;
    for told in [
        "VPS open",
        "Popular",
        "3 left",
        "14 days free",
        "Save 15 %",
        "save 15 %, USD 54.00",
        "USD 25.50",
        "USD 306.00 every year",
        "Sold out",
    ] {
        assert!(page.contains(told), "{told} in {page}");
    }
    for hidden in ["Secret deal", "Backup", "Old VPS", "Rack"] {
        assert!(!page.contains(hidden), "{hidden} is not for this page");
    }
    assert!(
        browser
            .get("/plans?type=vps&cycle=1")
            .await
            .body
            .contains("Development")
    );
    for plan in [&private, &addon, &archived] {
        let answer = browser.get(&format!("/plans/{}/checkout", plan.id)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", plan.name);
    }
    let refused = browser.get(&format!("/plans/{}/checkout", sold_out.id)).await;
    assert!(refused.body.contains("sold out") && !refused.body.contains("value=\"order\""));
    let refused = browser.get(&format!("/plans/{}/checkout", free.id)).await;
    assert!(refused.body.contains("verified email address"), "{}", refused.body);
    assert_eq!(subscribed(&portal, ada).await, 0);
}

#[tokio::test]
async fn the_free_plan_is_ordered_once_address_and_second_factor_are_there() {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let free = NewPlan {
        is_free: true,
        ..NewPlan::new("Development", "vps", Terms::Flat)
    };
    let free = priced_plan(&portal, free, &[(1, 0)]).await;
    let mut browser = portal.signed_in("ada").await;
    assert!(
        browser
            .get("/plans")
            .await
            .body
            .contains("with a verified email address")
    );
    let address = format!("/plans/{}/checkout", free.id);
    let page = browser.get(&address).await;
    assert_eq!(page.status, StatusCode::OK);
    for words in ["href=\"/account#address\"", "href=\"/account/two-factor\""] {
        assert!(page.body.contains(words), "{words} in {}", page.body);
    }
    assert!(!page.body.contains("value=\"order\""), "nothing to order with yet");
    let form = [
        ("csrf_token", page.csrf_token()),
        ("form_token", hidden(&page, "form_token")),
        ("name", "dev".to_owned()),
        ("cycle", "1".to_owned()),
        ("quantity", "1".to_owned()),
        ("do", "order".to_owned()),
    ];
    let form: Vec<(String, String)> = form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let refused = send(&mut browser, &address, &form).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);

    let token = activity::verification::issue(portal.state.db(), ada, "ada@example.net", NOW_MS)
        .await
        .unwrap()
        .unwrap();
    let link = format!("/verify-email/{token}");
    let form_token = browser.get(&link).await.csrf_token();
    browser.post(&link, &[("csrf_token", &form_token)]).await;
    let page = browser.get(&address).await;
    assert!(!page.body.contains("href=\"/account#address\""), "{}", page.body);
    assert!(page.body.contains("href=\"/account/two-factor\""), "{}", page.body);
    assert_eq!(subscribed(&portal, ada).await, 0);

    App::set_up(&portal, &mut browser).await;
    let (answer, _) = order(&mut browser, &free, "1", "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(subscribed(&portal, ada).await, 1);
    let page = browser.get(answer.header("location")).await;
    assert!(page.body.contains("Development"), "{}", page.body);
    let second = browser.get(&address).await;
    assert!(second.body.contains("it has one already"), "{}", second.body);
}
