//! What cannot be told holds up nothing else.

use super::*;
use crate::event::Lag;

impl World {
    async fn set(&self, sql: &'static str, id: i64) {
        let changed = sqlx::query(sql).bind(id).execute(self.database.pool()).await.unwrap();
        assert_eq!(changed.rows_affected(), 1, "{sql}");
    }
}

/// Which events wait for a consumer, and how many it could not handle.
async fn lag_of(world: &World, consumer: &'static str) -> Lag {
    event::lags(world.database.pool(), &[consumer]).await.unwrap().remove(0)
}

#[tokio::test]
async fn an_event_that_cannot_be_handled_is_set_aside_and_tried_with_each_call() {
    let world = world().await;
    let mut events = Vec::new();
    for number in 0..6 {
        let customer = if number == 2 { BEN } else { ADA };
        events.push(world.publish(invoice(customer, number)).await);
    }
    world
        .set(
            "UPDATE customers SET time_zone = 'Atlantis/Centre' WHERE id = $1",
            BEN.0,
        )
        .await;
    world
        .set("UPDATE events SET payload = '{' WHERE id = $1", events[4].0)
        .await;
    let error = dispatch(&world.database, NOW_MS).await.unwrap_err();
    assert!(
        matches!(&error, EventError::PassedOver { consumer: "dispatch_mail", count: 1, event, .. } if *event == events[4]),
        "{error:?}"
    );
    // What cannot be read is nobody's; that a customer's zone is unknown keeps only what needs it from them.
    for (position, event) in events.iter().enumerate() {
        assert_eq!(world.told(*event).await.is_empty(), position == 4, "event {position}");
    }
    let mail = lag_of(&world, "dispatch_mail").await;
    assert_eq!((mail.waiting, mail.set_aside), (1, 1));
    assert_eq!(mail.oldest, Some((events[4], NOW_MS)));
    let shown = lag_of(&world, "dispatch_notifications").await;
    assert_eq!((shown.waiting, shown.oldest), (2, Some((events[2], NOW_MS))));
    assert_eq!(outbox_counts(&world.database).await.unwrap().undispatched, 2);
    let why: String = sqlx::query_scalar(
        "SELECT error FROM event_retries WHERE consumer = 'dispatch_notifications' AND event_id = $1",
    )
    .bind(events[2].0)
    .fetch_one(world.database.pool())
    .await
    .unwrap();
    assert!(why.contains("Atlantis/Centre"), "{why}");
    // New ones are dispatched all the same, and what was repaired with them.
    let new = world.publish(invoice(ADA, 7)).await;
    world
        .set("UPDATE customers SET time_zone = 'UTC' WHERE id = $1", BEN.0)
        .await;
    let error = dispatch(&world.database, NOW_MS).await.unwrap_err();
    assert!(matches!(error, EventError::PassedOver { count: 1, .. }), "{error:?}");
    assert!(!world.told(new).await.is_empty());
    assert_eq!(world.told(events[2]).await.len(), 1, "its mail is not written again");
    assert_eq!(
        lag_of(&world, "dispatch_notifications").await.oldest,
        Some((events[4], NOW_MS))
    );
    world
        .set(
            "UPDATE events SET payload = (SELECT payload FROM events WHERE id <> $1 ORDER BY id LIMIT 1) WHERE id = $1",
            events[4].0,
        )
        .await;
    assert_eq!(dispatch(&world.database, NOW_MS).await.unwrap().events, 1);
    let lags = event::lags(world.database.pool(), &consumer_names()).await.unwrap();
    assert!(
        lags.iter().all(|lag| lag.waiting == 0 && lag.oldest.is_none()),
        "{lags:?}"
    );
}

#[tokio::test]
async fn a_delivery_whose_event_cannot_be_read_is_retried_and_given_up_and_holds_up_none() {
    let world = world().await;
    let receiver = Receiver::start(&["200 OK"]).await;
    world.endpoint(Some(ADA), &receiver.url, &[]).await;
    let (broken, sound) = (
        world.publish(invoice(ADA, 1)).await,
        world.publish(invoice(ADA, 2)).await,
    );
    dispatch(&world.database, NOW_MS).await.unwrap();
    world
        .set("UPDATE events SET payload = '{' WHERE id = $1", broken.0)
        .await;
    world.run(NOW_MS).await;
    assert_eq!(world.hook_of(sound).await.status, "delivered");
    let waiting = world.hook_of(broken).await;
    assert_eq!((waiting.status.as_str(), waiting.attempts), ("pending", 1));
    assert!(waiting.error.contains("payload"), "{}", waiting.error);
    let mut now_ms = NOW_MS;
    for _ in 0..RETRY_DELAYS_MS.len() {
        now_ms = world.hook_of(broken).await.next_at_ms.unwrap();
        world.run(now_ms).await;
    }
    assert_eq!(world.hook_of(broken).await.status, "failed");
    assert!(now_ms > NOW_MS);
}
