//! S1 after a service went to another customer: neither sees what was measured while it was the other's, on any route, and
//! what each was charged stays explained to them.

use axum::http::StatusCode;
use billing::subscription::transfer;
use jiff::Timestamp;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId};
use schemas::window::{DAY_MS, HOUR_MS};

use crate::auth::Role;
use crate::testing::world::{START_MS, World};
use crate::testing::{Browser, NOW_MS};

/// When the service moves: 2025-06-15T07:00:00Z.
const OWNED_FROM_MS: i64 = NOW_MS - 5 * HOUR_MS;

/// A world in which ada's `db-primary` is bob's since this morning; with bob's id.
async fn moved() -> (World, CustomerId) {
    let world = World::new().await;
    let bob = billing::invoice::get(world.portal.state.db(), world.invoice_of_bob)
        .await
        .unwrap()
        .invoice
        .customer;
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    let id = transfer::request(&mut transaction, world.transfer, bob, "T-1", OWNED_FROM_MS)
        .await
        .unwrap();
    transfer::approve(&mut transaction, id, "admin", OWNED_FROM_MS)
        .await
        .unwrap();
    transfer::complete(&mut transaction, id, "admin", OWNED_FROM_MS)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    (world, bob)
}

fn bytes(series: &serde_json::Value) -> u64 {
    let points = series["points"].as_array().unwrap().iter();
    points.map(|point| point["bytes_in"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn s1_the_new_owner_sees_nothing_from_before_the_service_was_theirs() {
    let (world, _) = moved().await;
    world.portal.user("ops", Role::Ops, None).await;
    let mut ops = world.portal.signed_in("ops").await;
    let mut bob = world.portal.signed_in("bob").await;
    let service = world.transfer;
    let api = format!("/api/v1/services/{service}/usage");
    let of_ops = format!("/api/v1/ops/services/{service}/usage");
    let today = bytes(
        &ops.get(&format!("{of_ops}?from={OWNED_FROM_MS}&to={NOW_MS}"))
            .await
            .json(),
    );
    assert!(today > 0);
    let yesterday = format!("{of_ops}?from={}&to={NOW_MS}", OWNED_FROM_MS - DAY_MS);
    assert!(bytes(&ops.get(&yesterday).await.json()) > today, "staff see all of it");

    // Whatever is asked for begins with the moment in which it became theirs, also where the step would begin before.
    for query in [
        format!("from={START_MS}&to={NOW_MS}&step=day"),
        format!("from={}&to={NOW_MS}&step=hour", OWNED_FROM_MS - 1),
        format!("from={}&to={NOW_MS}&step=five_minutes", OWNED_FROM_MS - HOUR_MS),
        "range=30d&step=day".to_owned(),
        "range=7d".to_owned(),
        "range=24h".to_owned(),
        "range=period".to_owned(),
    ] {
        let series = bob.get(&format!("{api}?{query}")).await.json();
        assert_eq!(series["from_ms"], OWNED_FROM_MS, "{query}");
        assert_eq!(bytes(&series), today, "{query}");
        let gaps = series["gaps"].as_array().unwrap();
        assert!(
            gaps.iter().all(|gap| gap["to_ms"].as_i64().unwrap() > OWNED_FROM_MS),
            "{query}"
        );
        let csv = bob.get(&format!("/usage/{service}/usage.csv?{query}")).await;
        let first = csv.body.lines().nth(1).unwrap();
        assert!(first.starts_with("2025-06-15T07:00:00Z,"), "{query}: {first}");
    }
    for query in [
        "range=previous".to_owned(),
        // In steps of a day the range would end with the day on which it became theirs.
        format!("from={}&to={OWNED_FROM_MS}&step=five_minutes", OWNED_FROM_MS - DAY_MS),
        format!("from={START_MS}&to={}", OWNED_FROM_MS - DAY_MS),
    ] {
        let refused = bob.get(&format!("{api}?{query}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(refused.body.contains("yours since 15 Jun 2025"), "{}", refused.body);
        let csv = bob.get(&format!("/usage/{service}/usage.csv?{query}")).await;
        assert_eq!(csv.status, StatusCode::BAD_REQUEST, "{query}");
        let page = bob.get(&format!("/usage/{service}?{query}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(
            page.body.contains("yours since 15 Jun 2025"),
            "the page says why: {query}"
        );
    }

    let period = bob.get(&format!("/api/v1/services/{service}/period")).await.json();
    assert!(period["from_ms"].as_i64().unwrap() >= OWNED_FROM_MS, "{period}");
    // As far as its windows are closed.
    let measured_to_ms = &period["measured_to_ms"];
    let measured = format!("{of_ops}?from={OWNED_FROM_MS}&to={measured_to_ms}");
    let measured = bytes(&ops.get(&measured).await.json());
    assert!(measured > 0);
    assert_eq!(period["bytes_in"].as_u64().unwrap(), measured);
    // The list has the same figure, and bob's invoices nothing of ada's.
    let shown = crate::format::bytes(measured);
    assert!(bob.get("/usage").await.body.contains(&shown), "{shown}");
    assert!(
        bob.get(&format!("/usage/{service}")).await.body.contains(&shown),
        "{shown}"
    );
    let lists = bob.get("/invoices").await.body + &bob.get("/api/v1/invoices").await.body;
    assert!(!lists.contains(&world.invoice_of_ada.to_string()));
}

/// It becomes theirs with the next window, which may be minutes ahead.
#[tokio::test]
async fn a_service_that_becomes_theirs_in_a_moment_says_when_its_usage_begins() {
    let (world, _) = moved().await;
    let next_ms = NOW_MS + 2 * 60_000;
    sqlx::query("UPDATE services SET owned_from_ms = $1 WHERE id = 1")
        .bind(next_ms)
        .execute(world.portal.state.db().pool())
        .await
        .unwrap();
    let mut bob = world.portal.signed_in("bob").await;
    let service = world.transfer;
    for query in ["", "?range=7d"] {
        let page = bob.get(&format!("/usage/{service}{query}")).await;
        assert_eq!(page.status, StatusCode::OK, "{query}: {}", page.body);
        assert!(page.body.contains("The usage of this service begins on"), "{query}");
        let csv = bob.get(&format!("/usage/{service}/usage.csv{query}")).await;
        assert_eq!(csv.status, StatusCode::OK, "{query}: {}", csv.body);
        let series = bob.get(&format!("/api/v1/services/{service}/usage{query}")).await;
        assert_eq!(series.status, StatusCode::OK, "{query}: {}", series.body);
        assert_eq!(bytes(&series.json()), 0, "{query}");
        assert!(series.json()["from_ms"].as_i64().unwrap() >= next_ms, "{query}");
    }
    // Of what lies before nothing is shown.
    let asked = format!("/usage/{service}?from={START_MS}&to={NOW_MS}");
    let page = bob.get(&asked).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.body.contains("The usage of this service begins on"),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn s1_a_service_without_a_subscription_is_seen_since_it_was_handed_over() {
    let (world, bob) = moved().await;
    for sql in [
        "UPDATE subscriptions SET status = 'ended', ended_at_ms = 1 WHERE service_id = 1",
        "DELETE FROM phases WHERE subscription_id IN (SELECT id FROM subscriptions WHERE service_id = 1 AND customer_id = 2)",
        "DELETE FROM subscription_events WHERE subscription_id IN (SELECT id FROM subscriptions WHERE service_id = 1 AND customer_id = 2)",
        "DELETE FROM subscriptions WHERE service_id = 1 AND customer_id = 2",
    ] {
        sqlx::query(sql).execute(world.portal.state.db().pool()).await.unwrap();
    }
    assert_eq!(bob, CustomerId(2));
    let mut browser = world.portal.signed_in("bob").await;
    let period = browser
        .get(&format!("/api/v1/services/{}/period", world.transfer))
        .await
        .json();
    assert_eq!(period["from_ms"], OWNED_FROM_MS, "not since the month began");
}

/// The last invoice of a customer with usage of the service, and its line.
async fn last_usage(world: &World, customer: CustomerId) -> (InvoiceId, InvoiceLineId) {
    let db = world.portal.state.db();
    for invoice in billing::invoice::list_of(db.pool(), customer).await.unwrap() {
        let found = billing::invoice::get(db, invoice.id).await.unwrap();
        if let Some(line) = found
            .lines
            .iter()
            .find(|line| line.kind.is_usage() && line.service == Some(world.transfer))
        {
            return (invoice.id, line.id);
        }
    }
    panic!("{customer} was charged usage")
}

async fn explained(
    browser: &mut Browser,
    invoice: InvoiceId,
    line: InvoiceLineId,
) -> (StatusCode, StatusCode, serde_json::Value) {
    let page = browser.get(&format!("/invoices/{invoice}/lines/{line}")).await.status;
    let answer = browser
        .get(&format!("/api/v1/invoices/{invoice}/lines/{line}/explain"))
        .await;
    let json = serde_json::from_str(&answer.body).unwrap_or_default();
    (page, answer.status, json)
}

#[tokio::test]
async fn s1_the_old_owner_keeps_what_it_was_charged_for_and_sees_nothing_from_then_on() {
    let (world, bob) = moved().await;
    let mut ada = world.portal.signed_in("ada").await;
    let service = world.transfer;
    for path in [
        format!("/usage/{service}"),
        format!("/usage/{service}/usage.csv"),
        format!("/usage/{service}?range=previous"),
        format!("/api/v1/services/{service}/usage"),
        format!("/api/v1/services/{service}/usage?from={START_MS}&to={OWNED_FROM_MS}"),
        format!("/api/v1/services/{service}/period"),
    ] {
        assert_eq!(ada.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/usage", "/api/v1/services"] {
        assert!(!ada.get(path).await.body.contains("db-primary"), "{path}");
    }

    // What is still to be charged ends there; both are charged their time of June.
    let usage = crate::customer::metered_usage(&world.portal.state);
    let later_ms = NOW_MS + 40 * DAY_MS;
    for customer in [world.ada, bob] {
        billing::invoice::close(world.portal.state.db(), &usage, customer, later_ms)
            .await
            .unwrap();
    }
    let before = (world.invoice_of_ada, world.usage_line);
    let last = last_usage(&world, world.ada).await;
    let of_bob = last_usage(&world, bob).await;
    let mut bobs = world.portal.signed_in("bob").await;
    for (invoice, line) in [before, last] {
        assert_eq!(ada.get(&format!("/invoices/{invoice}")).await.status, StatusCode::OK);
        let (page, api, answer) = explained(&mut ada, invoice, line).await;
        assert_eq!((page, api), (StatusCode::OK, StatusCode::OK), "{invoice}");
        let days = answer["days"].as_array().unwrap();
        assert!(!days.is_empty() && !answer["peers"].as_array().unwrap().is_empty());
        for day in days {
            let end_ms = day["end_ms"].as_i64().unwrap();
            let end = Timestamp::from_millisecond(end_ms).unwrap();
            assert!(end_ms <= OWNED_FROM_MS, "ada is shown a day that ends at {end}");
        }
        let (page, api, _) = explained(&mut bobs, invoice, line).await;
        assert_eq!((page, api), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND), "{invoice}");
    }
    let (_, _, answer) = explained(&mut bobs, of_bob.0, of_bob.1).await;
    // Whom it talked to is told of bob's time alone: ada's morning would make it more than was measured.
    let volume = |value: &serde_json::Value| value["bytes_in"].as_u64().unwrap() + value["bytes_out"].as_u64().unwrap();
    let peers: u64 = answer["peers"].as_array().unwrap().iter().map(volume).sum();
    assert!(peers > 0 && peers <= volume(&answer["measured"]), "{answer}");
    for day in answer["days"].as_array().unwrap() {
        assert!(day["start_ms"].as_i64().unwrap() >= OWNED_FROM_MS);
    }
    let (page, api, _) = explained(&mut ada, of_bob.0, of_bob.1).await;
    assert_eq!((page, api), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    assert_eq!(
        ada.get(&format!("/invoices/{}", of_bob.0)).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn usage_that_is_pooled_is_told_as_the_invoice_will_charge_it() {
    let world = World::new().await;
    let pool = world.portal.state.db().pool();
    // A second service on the terms of the first, which uses next to nothing of what is included.
    let mut transaction = world.portal.state.db().begin_write().await.unwrap();
    let new = schemas::inventory::NewService {
        customer: world.ada,
        name: "db-spare",
        service_type: "vps",
        site: None,
    };
    let spare = schemas::inventory::create_service(&mut transaction, new, START_MS)
        .await
        .unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let contracts = billing::subscription::contracts_of(&mut connection, world.ada)
        .await
        .unwrap();
    drop(connection);
    let own = contracts.iter().find(|one| one.service.id == world.transfer).unwrap();
    let subscription = billing::subscription::NewSubscription {
        anchor_day: Some(1),
        ..billing::subscription::NewSubscription::new(spare.id, own.last_phase().price.id, START_MS)
    };
    billing::subscription::subscribe(&mut transaction, subscription, "test", START_MS)
        .await
        .unwrap();
    transaction.commit().await.unwrap();

    let mut ada = world.portal.signed_in("ada").await;
    let path = format!("/api/v1/services/{}/period", world.transfer);
    let alone = ada.get(&path).await.json();
    assert!(alone["cost_projected"]["minor"].as_i64().unwrap() > 0, "{alone}");
    assert_eq!(alone["charge"]["from_pool_bytes"], 0);
    assert!(!ada.get("/usage").await.body.contains("others with the same terms"));

    sqlx::query("UPDATE customers SET pools_usage = 1 WHERE id = $1")
        .bind(world.ada.0)
        .execute(pool)
        .await
        .unwrap();
    let pooled = ada.get(&path).await.json();
    assert_eq!(pooled["cost_projected"]["minor"], 0, "{pooled}");
    assert_eq!(pooled["projected_bytes"], alone["projected_bytes"]);
    let page = ada.get(&format!("/usage/{}", world.transfer)).await.body;
    assert!(page.contains("these figures include it"), "{page}");
    assert!(ada.get("/usage").await.body.contains("others with the same terms"));

    // What is over so far is granted so far, to the byte that the draft of the invoice grants.
    sqlx::query("UPDATE plans SET included_transfer_units = 500 WHERE billing_model = 'transfer'")
        .execute(pool)
        .await
        .unwrap();
    let so_far = ada.get(&path).await.json();
    let granted = so_far["charge"]["from_pool_bytes"].as_u64().unwrap();
    let usage = crate::customer::metered_usage(&world.portal.state);
    let drafts = billing::invoice::preview(world.portal.state.db(), &usage, world.ada, NOW_MS)
        .await
        .unwrap();
    let lines = drafts.iter().flat_map(|draft| &draft.lines);
    let grants: Vec<u64> = lines
        .filter_map(|line| match &line.evidence {
            billing::evidence::Evidence::Usage {
                charge: billing::evidence::UsageCharge::Transfer { from_pool_bytes, .. },
                ..
            } if line.service == Some(world.transfer) && line.period_end_ms > NOW_MS => Some(*from_pool_bytes),
            _ => None,
        })
        .collect();
    assert!(granted > 0, "{so_far}");
    assert_eq!(grants, [granted]);
}
