//! What cannot be told holds up nothing else.

use super::*;

impl World {
    async fn set(&self, sql: &'static str, id: i64) {
        let changed = sqlx::query(sql).bind(id).execute(self.database.pool()).await.unwrap();
        assert_eq!(changed.rows_affected(), 1, "{sql}");
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_dispatched_is_passed_over_and_comes_with_the_next_call() {
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
        matches!(&error, EventError::PassedOver { count: 2, event, .. } if *event == events[2]),
        "{error:?}"
    );
    for (position, event) in events.iter().enumerate() {
        let is_broken = position == 2 || position == 4;
        assert_eq!(world.told(*event).await.is_empty(), is_broken, "event {position}");
    }
    let oldest = oldest_waiting(world.database.pool()).await.unwrap().unwrap();
    assert_eq!((oldest.id, oldest.waiting), (events[2], 2));
    // New ones are dispatched all the same, and what was repaired with them.
    let new = world.publish(invoice(ADA, 7)).await;
    world
        .set("UPDATE customers SET time_zone = 'UTC' WHERE id = $1", BEN.0)
        .await;
    let error = dispatch(&world.database, NOW_MS).await.unwrap_err();
    assert!(matches!(error, EventError::PassedOver { count: 1, .. }), "{error:?}");
    assert!(!world.told(new).await.is_empty() && !world.told(events[2]).await.is_empty());
    world
        .set(
            "UPDATE events SET payload = (SELECT payload FROM events WHERE id <> $1 ORDER BY id LIMIT 1) WHERE id = $1",
            events[4].0,
        )
        .await;
    assert_eq!(dispatch(&world.database, NOW_MS).await.unwrap().events, 1);
    assert_eq!(oldest_waiting(world.database.pool()).await.unwrap(), None);
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
