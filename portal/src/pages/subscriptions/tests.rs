//! Changes cost what was shown, are made once, and reach nobody else's subscriptions (S1).

use axum::http::StatusCode;
use billing::catalog::{NewPlan, Plan, PlanKind, Terms};
use billing::invoice::{self, InvoiceKind};
use billing::subscription::{SubscriptionState, subscription, subscriptions_of};
use schemas::ids::{CustomerId, PriceId, SubscriptionId};
use schemas::money::{Currency, Money};
use schemas::window::DAY_MS;

use crate::auth::Role;
use crate::pages::plans::tests::{hidden, order, plan, priced_plan, send};
use crate::testing::{Answer, Browser, TestPortal};

struct Shop {
    portal: TestPortal,
    ada: CustomerId,
    small: Plan,
    browser: Browser,
    subscription: SubscriptionId,
}

/// Ada has a plan at 30.00 a month, begun on 15 June 2025 and charged in advance.
async fn shop() -> Shop {
    let portal = TestPortal::new().await;
    let ada = portal.customer("ada").await;
    let small = plan(&portal, NewPlan::new("VPS 1", "vps", Terms::Flat)).await;
    let mut browser = portal.signed_in("ada").await;
    let (answer, _) = order(&mut browser, &small, "1", "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let subscription = subscriptions_of(portal.state.db().pool(), ada).await.unwrap()[0].id;
    Shop {
        portal,
        ada,
        small,
        browser,
        subscription,
    }
}

impl Shop {
    async fn price(&self, plan: &Plan, cycle: i64) -> PriceId {
        let prices = billing::catalog::prices_of(self.portal.state.db().pool(), plan.id)
            .await
            .unwrap();
        prices.iter().find(|price| price.cycle_months == cycle).unwrap().id
    }

    async fn totals(&self) -> Vec<(InvoiceKind, Money)> {
        let invoices = invoice::list_of(self.portal.state.db().pool(), self.ada).await.unwrap();
        invoices
            .iter()
            .rev()
            .map(|invoice| (invoice.kind, invoice.total))
            .collect()
    }

    async fn state(&self) -> SubscriptionState {
        subscription(self.portal.state.db().pool(), self.subscription)
            .await
            .unwrap()
            .state
    }
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

fn form(page: &Answer, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut form = vec![
        ("csrf_token".to_owned(), page.csrf_token()),
        ("form_token".to_owned(), hidden(page, "form_token")),
    ];
    form.extend(
        fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    form
}

#[tokio::test]
async fn a_change_now_charges_the_difference_to_the_cent_and_once() {
    let mut shop = shop().await;
    let large = priced_plan(&shop.portal, NewPlan::new("VPS 2", "vps", Terms::Flat), &[(1, 60_00)]).await;
    // 25 June: 20 of 30 days are left.
    shop.portal.advance_ms(10 * DAY_MS);
    shop.browser = shop.portal.signed_in("ada").await;
    let address = format!("/subscriptions/{}/change", shop.subscription);
    let price = shop.price(&large, 1).await.to_string();
    let page = shop
        .browser
        .get(&format!("{address}?price={price}&quantity=1&when=now"))
        .await;
    assert!(
        page.body.contains("-USD 20.00") && page.body.contains("USD 40.00"),
        "{}",
        page.body
    );
    let shown = hidden(&page, "shown");
    assert_eq!(shown, "USD 20.00");
    assert_eq!(shop.totals().await.len(), 1, "looking charges nothing");

    let form = form(
        &page,
        &[("price", &price), ("quantity", "1"), ("when", "now"), ("shown", &shown)],
    );
    let answer = send(&mut shop.browser, &address, &form).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert!(answer.header("location").starts_with("/invoices/"));
    let again = send(&mut shop.browser, &address, &form).await;
    assert!(again.header("location").ends_with("?done=again"), "{}", again.body);
    let totals = [(InvoiceKind::Invoice, usd(30_00)), (InvoiceKind::Invoice, usd(20_00))];
    assert_eq!(shop.totals().await, totals);
    // Who changed it is in the audit log, once, and in the subscription's history.
    let pool = shop.portal.state.db().pool();
    let entries = activity::audit::list(pool, activity::audit::AuditFilter::default(), 10)
        .await
        .unwrap();
    let changes: Vec<_> = entries
        .iter()
        .filter(|entry| entry.action == "subscription.change")
        .collect();
    assert_eq!(changes.len(), 1, "{entries:?}");
    assert_eq!(changes[0].change["after"]["price"], price.as_str());
    assert!(changes[0].user.is_some() && !changes[0].ip.is_empty());
    let history = billing::subscription::state_history(pool, shop.subscription)
        .await
        .unwrap();
    assert!(
        history.iter().any(|event| event.reason.contains("to 1 × VPS 2")),
        "{history:?}"
    );

    let page = shop
        .browser
        .get(&format!("/subscriptions/{}", shop.subscription))
        .await
        .body;
    for told in ["VPS 2", "USD 60.00 / month", "15 Jul 2025", "15 Jun 2025 – 24 Jun 2025"] {
        assert!(page.contains(told), "{told} in {page}");
    }
}

#[tokio::test]
async fn plan_and_cycle_are_two_choices_each_with_its_amounts() {
    let mut shop = shop().await;
    let prices = [(1, 6_000), (12, 61_200)];
    let large = priced_plan(&shop.portal, NewPlan::new("VPS 2", "vps", Terms::Flat), &prices).await;
    // 25 June: 20 of 30 days are left.
    shop.portal.advance_ms(10 * DAY_MS);
    shop.browser = shop.portal.signed_in("ada").await;
    let address = format!("/subscriptions/{}/change", shop.subscription);
    let first = shop.browser.get(&address).await.body;
    for text in [
        "1. Plan",
        "2. Billing cycle of VPS 1",
        "present",
        "USD 20.00 today; next charge for this service: USD 60.00 on 15 Jul 2025",
    ] {
        assert!(first.contains(text), "{text}: {first}");
    }
    assert!(!first.contains("Change plan now"), "nothing is chosen yet");
    let month = shop.price(&large, 1).await;
    let second = shop
        .browser
        .get(&format!("{address}?price={month}&quantity=1&when=now"))
        .await
        .body;
    assert!(second.contains("2. Billing cycle of VPS 2"), "{second}");
    assert!(second.contains("Save 15 %") && second.contains("Annual"), "{second}");
    assert!(second.contains("Change plan now"), "{second}");
    // A cycle that is charged next in a year says so, too.
    assert!(
        second.contains("next charge for this service: USD 612.00 on 25 Jun 2026"),
        "{second}"
    );
    // What the option says is what the quote says, which is what is charged.
    let year = shop.price(&large, 12).await;
    let third = shop
        .browser
        .get(&format!("{address}?price={year}&quantity=1&when=now"))
        .await;
    let shown = hidden(&third, "shown");
    assert!(
        third.body.contains(&format!("{shown} today")),
        "{shown}: {}",
        third.body
    );
    assert_eq!(shop.totals().await.len(), 1, "looking charges nothing");
}

#[tokio::test]
async fn a_change_at_a_time_is_listed_and_taken_back() {
    let mut shop = shop().await;
    let large = priced_plan(&shop.portal, NewPlan::new("VPS 2", "vps", Terms::Flat), &[(1, 60_00)]).await;
    let address = format!("/subscriptions/{}/change", shop.subscription);
    let price = shop.price(&large, 1).await.to_string();
    let page = shop
        .browser
        .get(&format!(
            "{address}?price={price}&quantity=2&when=at&at=2025-12-25T00:00"
        ))
        .await;
    assert!(page.body.contains("25 Dec 2025 00:00"), "{}", page.body);
    // 21 of 31 days of two, less those of the present plan: what it costs on that day is shown.
    assert!(
        page.body.contains("25 Dec 2025") && page.body.contains("USD"),
        "{}",
        page.body
    );
    assert!(
        page.body
            .contains("Next charge by the new terms: <b>USD 120.00</b> on 15 Jan 2026"),
        "{}",
        page.body
    );
    let fields = [
        ("price", price.as_str()),
        ("quantity", "2"),
        ("when", "at"),
        ("at", "2025-12-25T00:00"),
    ];
    let set = form(&page, &fields);
    let answer = send(&mut shop.browser, &address, &set).await;
    let own = format!("/subscriptions/{}", shop.subscription);
    assert_eq!(
        answer.header("location"),
        format!("{own}?done=scheduled"),
        "{}",
        answer.body
    );
    assert!(
        send(&mut shop.browser, &address, &set)
            .await
            .header("location")
            .ends_with("again")
    );
    let page = shop.browser.get(&own).await;
    assert_eq!(page.body.matches("Change to 2 × VPS 2, USD 60.00 / month").count(), 1);

    let past = form(
        &shop
            .browser
            .get(&format!(
                "{address}?price={price}&quantity=2&when=at&at=2025-12-25T00:00"
            ))
            .await,
        &[
            ("price", price.as_str()),
            ("quantity", "2"),
            ("when", "at"),
            ("at", "2024-12-25T00:00"),
        ],
    );
    let refused = send(&mut shop.browser, &address, &past).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("lies ahead"));

    let back = format!("{own}/changes/chg_1/cancel");
    let token = page.csrf_token();
    let answer = shop.browser.post(&back, &[("csrf_token", &token)]).await;
    let pool = shop.portal.state.db().pool();
    let entries = activity::audit::list(pool, activity::audit::AuditFilter::default(), 10)
        .await
        .unwrap();
    let acts: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert!(
        acts.contains(&"subscription.schedule") && acts.contains(&"subscription.unschedule"),
        "{acts:?}"
    );
    assert_eq!(
        answer.header("location"),
        format!("{own}?done=taken-back"),
        "{}",
        answer.body
    );
    assert!(shop.browser.get(&own).await.body.contains("cancelled by"));
    let again = shop.browser.post(&back, &[("csrf_token", &token)]).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(shop.totals().await, [(InvoiceKind::Invoice, usd(30_00))]);
}

#[tokio::test]
async fn cancelling_runs_out_and_is_resumed_or_ends_at_once_with_money_back() {
    let mut shop = shop().await;
    let own = format!("/subscriptions/{}", shop.subscription);
    let address = format!("{own}/cancel");
    let page = shop.browser.get(&format!("{address}?end=cycle")).await;
    assert!(page.body.contains("14 Jul 2025"), "{}", page.body);
    let silent = form(&page, &[("end", "cycle"), ("shown", "")]);
    assert_eq!(
        send(&mut shop.browser, &address, &silent).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let cancel = form(
        &page,
        &[
            ("end", "cycle"),
            ("shown", ""),
            ("reason", "no-need"),
            ("comment", "moving on"),
        ],
    );
    let answer = send(&mut shop.browser, &address, &cancel).await;
    assert_eq!(
        answer.header("location"),
        format!("{own}?done=cancelled"),
        "{}",
        answer.body
    );
    assert_eq!(shop.state().await, SubscriptionState::Cancelled);
    let page = shop.browser.get(&own).await;
    assert!(
        page.body.contains("ends 15 Jul 2025") && page.body.contains("moving on"),
        "{}",
        page.body
    );

    let token = page.csrf_token();
    let answer = shop
        .browser
        .post(&format!("{own}/resume"), &[("csrf_token", &token)])
        .await;
    assert_eq!(
        answer.header("location"),
        format!("{own}?done=resumed"),
        "{}",
        answer.body
    );
    assert_eq!(shop.state().await, SubscriptionState::Active);
    let again = shop
        .browser
        .post(&format!("{own}/resume"), &[("csrf_token", &token)])
        .await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);

    // 30 June: 15 of 30 days are left.
    shop.portal.advance_ms(15 * DAY_MS);
    shop.browser = shop.portal.signed_in("ada").await;
    let page = shop.browser.get(&format!("{address}?end=now")).await;
    let shown = hidden(&page, "shown");
    assert_eq!(shown, "-USD 15.00");
    let now = form(&page, &[("end", "now"), ("shown", &shown), ("reason", "other")]);
    let answer = send(&mut shop.browser, &address, &now).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(shop.state().await, SubscriptionState::Ended);
    assert_eq!(
        shop.totals().await,
        [
            (InvoiceKind::Invoice, usd(30_00)),
            (InvoiceKind::CreditNote, usd(-15_00))
        ]
    );
    assert!(
        send(&mut shop.browser, &address, &now)
            .await
            .header("location")
            .ends_with("again")
    );
    let invoices = shop.browser.get("/invoices").await.body;
    assert!(
        invoices.contains("credit note") && invoices.contains(">open<") || invoices.contains("overdue"),
        "{invoices}"
    );
}

#[tokio::test]
async fn an_add_on_goes_with_its_subscription() {
    let mut shop = shop().await;
    let backup = NewPlan {
        kind: PlanKind::Addon,
        ..NewPlan::new("Backup", "vps", Terms::Flat)
    };
    let backup = priced_plan(&shop.portal, backup, &[(1, 5_00)]).await;
    let address = format!("/subscriptions/{}/addon", shop.subscription);
    let price = shop.price(&backup, 1).await.to_string();
    let page = shop
        .browser
        .get(&format!("{address}?price={price}&quantity=1&when=now"))
        .await;
    let shown = hidden(&page, "shown");
    let add = form(
        &page,
        &[("price", &price), ("quantity", "1"), ("when", "now"), ("shown", &shown)],
    );
    let answer = send(&mut shop.browser, &address, &add).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(shop.totals().await.last(), Some(&(InvoiceKind::Invoice, usd(5_00))));
    let page = shop
        .browser
        .get(&format!("/subscriptions/{}", shop.subscription))
        .await
        .body;
    assert!(page.contains("Backup") && page.contains("USD 5.00 / month"), "{page}");
    // A plan is no add-on, whatever the form says.
    let plan_price = shop.price(&shop.small, 1).await.to_string();
    let page = shop
        .browser
        .get(&format!("{address}?price={price}&quantity=1&when=now"))
        .await;
    let wrong = form(
        &page,
        &[
            ("price", &plan_price),
            ("quantity", "1"),
            ("when", "now"),
            ("shown", &shown),
        ],
    );
    assert_eq!(
        send(&mut shop.browser, &address, &wrong).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
}

#[tokio::test]
async fn s1_another_customer_s_subscription_and_private_prices_are_out_of_reach() {
    let shop = shop().await;
    shop.portal.customer("bob").await;
    shop.portal.user("fin", Role::Finance, None).await;
    let private = NewPlan {
        kind: PlanKind::Private,
        ..NewPlan::new("Secret deal", "vps", Terms::Flat)
    };
    let private = priced_plan(&shop.portal, private, &[(1, 1_00)]).await;
    let mut bob = shop.portal.signed_in("bob").await;
    let mut staff = shop.portal.signed_in("fin").await;
    let mut ada = shop.browser.clone();
    let own = format!("/subscriptions/{}", shop.subscription);
    let token = bob.get("/account").await.csrf_token();
    for page in ["", "/change", "/addon", "/cancel"] {
        let path = format!("{own}{page}");
        assert_eq!(ada.get(&path).await.status, StatusCode::OK, "{path}");
        assert_eq!(bob.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(staff.get(&path).await.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(
            shop.portal.browser().get(&path).await.status,
            StatusCode::SEE_OTHER,
            "{path}"
        );
    }
    for action in ["/change", "/addon", "/cancel", "/resume", "/changes/chg_1/cancel"] {
        let path = format!("{own}{action}");
        let answer = bob
            .post(&path, &[("csrf_token", &token), ("end", "now"), ("reason", "other")])
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let api = format!("/api/v1{own}");
    assert_eq!(ada.get(&api).await.json()["next_invoice"]["total"]["minor"], 30_00);
    assert_eq!(bob.get(&api).await.status, StatusCode::NOT_FOUND);
    assert_eq!(staff.get(&api).await.status, StatusCode::FORBIDDEN);
    for path in ["/api/v1/subscriptions", "/api/v1/plans", "/api/v1/notifications"] {
        let answer = bob.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(
            !answer.body.contains("web-1") && !answer.body.contains("Secret deal"),
            "{path}"
        );
        assert_eq!(staff.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(
            shop.portal.browser().get(path).await.status,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    assert_eq!(shop.state().await, SubscriptionState::Active);
    assert!(!bob.get("/subscriptions").await.body.contains("web-1"));
    // A deal of somebody else's is not to be had by its number.
    let price = shop.price(&private, 1).await;
    let answer = ada
        .get(&format!("{own}/change?price={price}&quantity=1&when=now"))
        .await;
    assert!(answer.body.contains("Choose one of the plans") && !answer.body.contains("Secret deal"));
}
