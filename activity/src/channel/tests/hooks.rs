//! What webhooks promise: signed, retried by the schedule, limited.

use schemas::ids::DeliveryId;
use serde_json::Value;

use super::*;
use crate::channel::endpoint::{EndpointError, Owner};

#[tokio::test]
async fn a_webhook_is_signed_retried_by_the_schedule_and_taken_once() {
    let world = world().await;
    let receiver = Receiver::start(&["500 Broken", "302 Found", "404 Not Found"]).await;
    let (endpoint, secret) = world.endpoint(Some(ADA), &receiver.url, &[]).await;
    let id = world.publish(invoice(ADA, 7)).await;
    let mut now_ms = NOW_MS;
    for (try_number, words) in [
        (1, "answered 500"),
        (2, "redirects are not followed"),
        (3, "answered 404"),
    ] {
        world.run(now_ms).await;
        let delivery = world.hook_of(id).await;
        assert_eq!((delivery.status.as_str(), delivery.attempts), ("pending", try_number));
        assert!(delivery.error.contains(words), "{}", delivery.error);
        let next_ms = now_ms + RETRY_DELAYS_MS[usize::try_from(try_number).unwrap() - 1];
        assert_eq!(delivery.next_at_ms, Some(next_ms));
        world.run(next_ms - 1).await;
        assert_eq!(
            receiver.received().len() as i64,
            try_number,
            "nothing is sent before its time"
        );
        now_ms = next_ms;
    }
    let known = endpoint::endpoint(world.database.pool(), endpoint, Owner::Customer(ADA))
        .await
        .unwrap();
    assert_eq!(known.failures, 3);
    world.run(now_ms).await;
    let delivery = world.hook_of(id).await;
    assert_eq!((delivery.status.as_str(), delivery.attempts), ("delivered", 4));
    assert_eq!(delivery.delivered_at_ms, Some(now_ms));
    world.run(now_ms + 1_000_000_000).await;
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    let known = endpoint::endpoint(world.database.pool(), endpoint, Owner::Customer(ADA))
        .await
        .unwrap();
    assert_eq!(known.failures, 0);

    let last = &received[3];
    assert_eq!(last.header("ezscale-event"), "evt_1");
    assert_eq!(last.header("ezscale-delivery"), received[0].header("ezscale-delivery"));
    assert_eq!(last.header("content-type"), "application/json");
    let body: Value = serde_json::from_str(&last.body).unwrap();
    assert_eq!(
        (&body["id"], &body["type"]),
        (&json!("evt_1"), &json!("invoice.finalised"))
    );
    assert_eq!(
        (&body["customer"], &body["subject"]),
        (&json!("cus_1"), &json!("inv_7"))
    );
    assert_eq!(body["created_at"], "2023-11-14T22:13:20Z");
    assert_eq!(body["data"]["amount_minor"], 1999);
    let at_s = now_ms / 1000;
    let expected = hmac_by_definition(secret.as_bytes(), format!("{at_s}.{}", last.body).as_bytes());
    assert_eq!(last.header("ezscale-signature"), format!("t={at_s},v1={expected}"));
}

/// HMAC-SHA256 as RFC 2104 writes it down, for a key of more than one block or less.
fn hmac_by_definition(key: &[u8], message: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut block = [0u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let with = |pad: u8, rest: &[u8]| {
        let mut hash = Sha256::new();
        hash.update(block.map(|byte| byte ^ pad));
        hash.update(rest);
        hash.finalize().to_vec()
    };
    let outer = with(0x5c, &with(0x36, message));
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_for_a_day() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    let (endpoint, old) = world.endpoint(Some(ADA), &receiver.url, &[]).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let foreign = endpoint::rotate(
        &mut transaction,
        world.database.vault(),
        endpoint,
        Owner::Customer(BEN),
        NOW_MS,
    )
    .await;
    assert!(foreign.is_err(), "S1");
    let (new, _) = endpoint::rotate(
        &mut transaction,
        world.database.vault(),
        endpoint,
        Owner::Customer(ADA),
        NOW_MS,
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    for (at_ms, secrets) in [
        (NOW_MS + endpoint::ROTATION_MS - 1, vec![&new, &old]),
        (NOW_MS + endpoint::ROTATION_MS, vec![&new]),
    ] {
        world.publish(invoice(ADA, 7)).await;
        world.run(at_ms).await;
        let last = receiver.received().pop().unwrap();
        let at_s = at_ms / 1000;
        let message = format!("{at_s}.{}", last.body);
        let signed = secrets
            .iter()
            .map(|secret| format!(",v1={}", hmac_by_definition(secret.as_bytes(), message.as_bytes())));
        let expected: String = std::iter::once(format!("t={at_s}")).chain(signed).collect();
        assert_eq!(last.header("ezscale-signature"), expected);
    }
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_for_three_days_is_disabled_and_its_owner_told() {
    let world = world().await;
    let receiver = Receiver::start(&["500 Broken"; 40]).await;
    let (endpoint, _) = world
        .endpoint(Some(ADA), &receiver.url, &[EventType::InvoiceFinalised])
        .await;
    let first = world.publish(invoice(ADA, 7)).await;
    let mut now_ms = NOW_MS;
    world.run(now_ms).await;
    let second = world.publish(invoice(ADA, 8)).await;
    for delay_ms in RETRY_DELAYS_MS {
        let known = endpoint::endpoint(world.database.pool(), endpoint, Owner::Anybody)
            .await
            .unwrap();
        assert_eq!(known.disabled_at_ms, None);
        now_ms += delay_ms;
        world.run(now_ms).await;
    }
    assert!(now_ms - NOW_MS >= 3 * 24 * 3_600_000, "the schedule lasts three days");
    let known = endpoint::endpoint(world.database.pool(), endpoint, Owner::Anybody)
        .await
        .unwrap();
    assert_eq!(known.disabled_at_ms, Some(now_ms));
    for id in [first, second] {
        let hooks = world
            .deliveries(id)
            .await
            .into_iter()
            .filter(|d| d.channel == "webhook");
        for delivery in hooks {
            assert_eq!(delivery.status, "failed", "{delivery:?}");
        }
    }
    let events = list(world.database.pool(), EventFilter::default(), 1).await.unwrap();
    assert_eq!(
        (events[0].event_type, events[0].customer),
        (EventType::WebhookDisabled, Some(ADA))
    );
    assert_eq!(events[0].payload["url"], receiver.url);

    // Nothing goes there any more, until it is enabled; then what it missed is replayed.
    let third = world.publish(invoice(ADA, 9)).await;
    world.run(now_ms).await;
    assert_eq!(world.told(third).await, [mail("ada@example.net")]);
    let range = Replay {
        first,
        last: third,
        event_type: None,
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    let refused = replay(&mut transaction, range, endpoint, Owner::Anybody, now_ms).await;
    assert!(matches!(refused, Err(ReplayError::Disabled(_))), "{refused:?}");
    let _ = endpoint::enable(&mut transaction, endpoint, Owner::Customer(ADA))
        .await
        .unwrap();
    receiver.answers.lock().unwrap().clear();
    assert_eq!(
        replay(&mut transaction, range, endpoint, Owner::Anybody, now_ms)
            .await
            .unwrap()
            .0,
        3
    );
    transaction.commit().await.unwrap();
    let before = receiver.received().len();
    let (_, delivered) = world.run(now_ms).await;
    assert_eq!(delivered.sent, 3);
    let replayed = receiver.received().split_off(before);
    let ids: Vec<_> = replayed
        .iter()
        .map(|received| received.header("ezscale-event").to_owned())
        .collect();
    assert_eq!(
        ids,
        [first, second, third].map(|id| id.to_string()),
        "in the order of events"
    );
}

#[tokio::test]
async fn an_endpoint_that_takes_some_events_stays() {
    let world = world().await;
    let receiver = Receiver::start(&["400 Bad Request"]).await;
    let (endpoint, _) = world.endpoint(Some(ADA), &receiver.url, &[]).await;
    world.publish(invoice(ADA, 7)).await;
    let mut now_ms = NOW_MS;
    world.run(now_ms).await;
    for delay_ms in RETRY_DELAYS_MS {
        now_ms += delay_ms;
        // The poisoned one is refused each time; another is taken on the way.
        receiver.answers.lock().unwrap().extend(["200 OK", "400 Bad Request"]);
        world.publish(invoice(ADA, 8)).await;
        world.run(now_ms).await;
    }
    let failed = outbox_counts(&world.database).await.unwrap();
    assert_eq!((failed.webhooks_failed, failed.webhooks_pending), (1, 0));
    let known = endpoint::endpoint(world.database.pool(), endpoint, Owner::Anybody)
        .await
        .unwrap();
    assert_eq!(known.disabled_at_ms, None);
}

#[tokio::test]
async fn s1_events_of_others_are_not_replayed() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    let (bens, _) = world.endpoint(Some(BEN), &receiver.url, &[]).await;
    let first = world.publish(invoice(ADA, 7)).await;
    let last = world.publish(invoice(BEN, 8)).await;
    let range = Replay {
        first,
        last,
        event_type: None,
    };
    let mut transaction = world.database.begin_write().await.unwrap();
    assert!(
        replay(&mut transaction, range, bens, Owner::Customer(ADA), NOW_MS)
            .await
            .is_err()
    );
    assert_eq!(
        replay(&mut transaction, range, bens, Owner::Customer(BEN), NOW_MS)
            .await
            .unwrap()
            .0,
        1
    );
    let other_type = Replay {
        event_type: Some(EventType::InvoicePaid),
        ..range
    };
    assert_eq!(
        replay(&mut transaction, other_type, bens, Owner::Anybody, NOW_MS)
            .await
            .unwrap()
            .0,
        0
    );
}

#[tokio::test]
async fn many_workers_send_each_delivery_once() {
    const EVENTS: i64 = 60;
    let world = world().await;
    let receivers = [Receiver::start(&[]).await, Receiver::start(&[]).await];
    for receiver in &receivers {
        world.endpoint(Some(ADA), &receiver.url, &[]).await;
    }
    for number in 1..=EVENTS {
        world.publish(invoice(ADA, number)).await;
    }
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (database, client) = (world.database.clone(), world.client.clone());
            tokio::spawn(async move { run_once(&database, without_mail(&client), NOW_MS).await.unwrap().1.sent })
        })
        .collect();
    let mut sent = 0;
    for worker in workers {
        sent += worker.await.unwrap();
    }
    assert_eq!(sent, 2 * EVENTS as u64);
    for receiver in &receivers {
        let mut events: Vec<_> = receiver
            .received()
            .iter()
            .map(|r| r.header("ezscale-event").to_owned())
            .collect();
        assert_eq!(events.len() as i64, EVENTS, "none twice");
        events.sort();
        events.dedup();
        assert_eq!(events.len() as i64, EVENTS, "none missing");
    }
}

#[tokio::test]
async fn what_a_dead_worker_held_is_sent_by_the_next_when_the_lease_ends() {
    let world = world().await;
    let receiver = Receiver::start(&[]).await;
    world.endpoint(Some(ADA), &receiver.url, &[]).await;
    let id = world.publish(invoice(ADA, 7)).await;
    dispatch(&world.database, NOW_MS).await.unwrap();
    // As a worker leaves it that claimed and died.
    sqlx::query("UPDATE deliveries SET attempts = 1, next_at_ms = $1 WHERE channel = 'webhook'")
        .bind(NOW_MS + 900_000)
        .execute(world.database.pool())
        .await
        .unwrap();
    world.run(NOW_MS + 899_999).await;
    assert_eq!(receiver.received().len(), 0);
    world.run(NOW_MS + 900_000).await;
    assert_eq!(receiver.received().len(), 1);
    let hook = world.deliveries(id).await.pop().unwrap();
    assert_eq!(
        (hook.status.as_str(), hook.attempts, hook.id),
        ("delivered", 2, DeliveryId(2))
    );
}

#[tokio::test]
async fn a_silent_endpoint_is_asked_once_a_minute_not_once_an_event() {
    let world = world().await;
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.endpoint(Some(ADA), &format!("http://{gone}/"), &[]).await;
    for number in 1..=20 {
        world.publish(invoice(ADA, number)).await;
    }
    let (_, delivered) = world.run(NOW_MS).await;
    assert_eq!((delivered.sent, delivered.postponed), (0, 1));
    let tried = "SELECT CAST(sum(attempts) AS BIGINT) FROM deliveries WHERE channel = 'webhook'";
    let row = sqlx::query(tried).fetch_one(world.database.pool()).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 1);
    assert_eq!(outbox_counts(&world.database).await.unwrap().webhooks_pending, 20);
}

#[tokio::test]
async fn endpoints_are_limited_and_told_only_what_customers_may_hear() {
    let world = world().await;
    let url = world
        .client
        .vet(EndpointKind::Webhook, "http://127.0.0.1:1/")
        .await
        .unwrap();
    let mut connection = world.database.pool().acquire().await.unwrap();
    let new = |event_types| NewEndpoint {
        customer: Some(ADA),
        url: &url,
        event_types,
    };
    let hidden = endpoint::add(
        &mut connection,
        world.database.vault(),
        new(&[EventType::HighRiskAction]),
        NOW_MS,
    )
    .await;
    assert!(hidden.unwrap_err().to_string().contains("admin.high_risk_action"));
    for _ in 0..endpoint::MAX_ENDPOINTS {
        let _ = endpoint::add(&mut connection, world.database.vault(), new(&[]), NOW_MS)
            .await
            .unwrap();
    }
    let one_more = endpoint::add(&mut connection, world.database.vault(), new(&[]), NOW_MS).await;
    assert!(matches!(one_more, Err(EndpointError::TooMany)), "{one_more:?}");
    let _ = endpoint::remove(&mut connection, EndpointId(3), Owner::Customer(ADA))
        .await
        .unwrap();
    assert!(
        endpoint::remove(&mut connection, EndpointId(4), Owner::Customer(BEN))
            .await
            .is_err()
    );
    let left = endpoint::endpoints(&mut *connection, Owner::Customer(ADA))
        .await
        .unwrap();
    assert_eq!(left.len() as i64, endpoint::MAX_ENDPOINTS - 1);
    assert_eq!(
        endpoint::endpoints(&mut *connection, Owner::Customer(BEN))
            .await
            .unwrap(),
        []
    );
}
