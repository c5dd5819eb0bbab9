//! Transfers with their value dates, and what customers are told of collection.

use schemas::money::Money;
use schemas::window::DAY_MS;

use crate::auth::Role;
use crate::testing::NOW_MS;
use crate::testing::world::World;

async fn collect(world: &World) {
    let charger = billing::payment::GatewayCharger {
        database: world.portal.state.db(),
        gateways: world.portal.state.gateways(),
    };
    let now_ms = world.portal.state.now_ms();
    let collected = billing::dunning::run(world.portal.state.db(), &charger, now_ms)
        .await
        .unwrap();
    assert!(
        collected.failed.is_empty() && collected.stuck.is_empty(),
        "{collected:?}"
    );
}

#[tokio::test]
async fn a_transfer_has_a_value_date_and_aging_goes_by_it() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    // Recorded five days after it was issued.
    world.portal.advance_ms(5 * DAY_MS);
    let mut browser = world.portal.signed_in("fin").await;
    let found = billing::invoice::get(world.portal.state.db(), world.invoice_of_ada)
        .await
        .unwrap();
    let total = found.invoice.total;
    let half = Money::new(total.minor / 2, total.currency);
    let rest = Money::new(total.minor - half.minor, total.currency);
    let page = format!("/finance/invoices/{}", world.invoice_of_ada);
    let amount = half.to_major().to_string();
    let paid = |value_date: &'static str| {
        [
            ("amount", amount.clone()),
            ("reference", "bank 7".to_owned()),
            ("value_date", value_date.to_owned()),
        ]
    };
    for wrong in ["2025-06-30", "1999-06-30", "soon"] {
        let fields = paid(wrong);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let refused = browser.send_form(&page, &format!("{page}/transfer"), &fields).await;
        assert_eq!(refused.status, 422, "{wrong}: {}", refused.body);
    }
    let fields = paid("2025-06-17");
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let done = browser.send_form(&page, &format!("{page}/transfer"), &fields).await;
    assert_eq!(done.status, 303, "{}", done.body);
    for (day, open) in [("2025-06-16", total), ("2025-06-17", rest), ("", rest)] {
        let aging = browser.get(&format!("/finance/aging?day={day}")).await.body;
        let shown = crate::format::amount(open);
        assert!(aging.contains(&format!("<strong>{shown}</strong>")), "{day}: {aging}");
    }
    assert_eq!(browser.get("/finance/aging?day=soon").await.status, 400);
    let json = browser.get(&format!("/api/v1/finance/aging?at_ms={NOW_MS}")).await.body;
    assert!(json.contains(&total.minor.to_string()), "{json}");
    let customer = browser.get(&format!("/finance/customers/{}", world.ada)).await.body;
    assert!(customer.contains("value date 17 Jun 2025"), "{customer}");
    let csv = browser.get("/finance/export/payments.csv?month=2025-06").await.body;
    assert!(csv.contains(",2025-06-17,"), "{csv}");
}

#[tokio::test]
async fn a_transfer_for_a_customer_pays_what_is_open() {
    let world = World::new().await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut browser = world.portal.signed_in("fin").await;
    collect(&world).await;
    let found = billing::invoice::get(world.portal.state.db(), world.invoice_of_ada)
        .await
        .unwrap();
    let page = format!("/finance/customers/{}", world.ada);
    let amount = found.invoice.total.to_major().to_string();
    let fields = [
        ("amount", amount.as_str()),
        ("reference", "bank 8"),
        ("value_date", "2025-06-14"),
    ];
    let done = browser.send_form(&page, &format!("{page}/transfer"), &fields).await;
    assert_eq!(
        done.header("location"),
        format!("{page}?done=transfer"),
        "{}",
        done.body
    );
    let again = browser.send_form(&page, &format!("{page}/transfer"), &fields).await;
    assert_eq!(again.status, 422, "{}", again.body);
    assert!(again.body.contains("was recorded before"), "{}", again.body);
    collect(&world).await;
    let paid = billing::invoice::get(world.portal.state.db(), world.invoice_of_ada)
        .await
        .unwrap();
    assert_eq!(paid.invoice.outstanding().minor, 0);
    let audited: i64 = sqlx::Row::get(
        &sqlx::query("SELECT count(*) FROM audit_log WHERE action = 'payment.record_transfer'")
            .fetch_one(world.portal.state.db().pool())
            .await
            .unwrap(),
        0,
    );
    assert_eq!(audited, 1);
}

#[tokio::test]
async fn finance_sees_what_failed_and_what_comes_next() {
    let world = World::new().await;
    let method = world.portal.card(world.ada, "pm_1").await;
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let invoice = format!("/finance/invoices/{}", world.invoice_of_ada);
    let body = finance.get(&invoice).await.body;
    assert!(
        body.contains("Credit and the default payment method are charged within a few minutes."),
        "{body}"
    );
    sqlx::query(
        "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, method_id, currency, amount_minor, idempotency_key, \
         state, action_url, error, calls, note, created_at_ms, updated_at_ms) \
         VALUES (1, $1, $2, 'invoice', 'stripe', $3, 'USD', 100, 'key-1', 'failed', '', 'card_declined: No funds.', 1, '', $4, $4)",
    )
    .bind(world.ada.0)
    .bind(world.invoice_of_ada.0)
    .bind(method.0)
    .bind(NOW_MS)
    .execute(world.portal.state.db().pool())
    .await
    .unwrap();
    for path in [invoice, format!("/finance/customers/{}", world.ada)] {
        let body = finance.get(&path).await.body;
        assert!(
            body.contains("Failed payments") && body.contains("No funds.") && body.contains("/finance/payments/pay_1"),
            "{path}: {body}"
        );
    }
}

#[tokio::test]
async fn an_open_invoice_says_what_happens_next_by_the_terms_in_force() {
    let world = World::new().await;
    let mut ada = world.portal.signed_in("ada").await;
    let page = format!("/invoices/{}", world.invoice_of_ada);
    collect(&world).await;
    let body = ada.get(&page).await.body;
    // Issued on 15 June, due on the 29th, suspended 14 days later.
    assert!(
        body.contains("If it is still open on 13 Jul 2025, the services on it are suspended."),
        "{body}"
    );
    assert!(!body.contains("subscriptions that are suspended for it end"), "{body}");
    let json = ada.get(&format!("/api/v1{page}")).await.json();
    // Nothing is saved to be charged; suspended on 13 July at noon.
    assert_eq!(json["outlook"]["suspends_at_ms"], NOW_MS + 28 * DAY_MS);
    assert_eq!(json["outlook"]["charges_at_ms"], serde_json::json!([]));
    let terms = billing::collection_terms::Terms {
        suspend_day: 20,
        terminate_day: Some(40),
        ..billing::collection_terms::Terms::default()
    };
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    let _ = billing::collection_terms::set_terms(&mut transaction, &terms)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let body = ada.get(&page).await.body;
    assert!(body.contains("If it is still open on 19 Jul 2025"), "{body}");
    assert!(
        body.contains("Subscriptions that are suspended for it end on 8 Aug 2025"),
        "{body}"
    );
    world.portal.user("fin", Role::Finance, None).await;
    let mut finance = world.portal.signed_in("fin").await;
    let json = finance.get("/api/v1/finance/collection").await.json();
    assert_eq!(json["terms"]["terminate_day"], 40);
    assert_eq!(json["invoices"].as_array().unwrap().len(), 2);
    assert_eq!(ada.get("/api/v1/finance/collection").await.status, 403);
}
