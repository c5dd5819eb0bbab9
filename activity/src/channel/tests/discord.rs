//! Posts to Discord channels: what is sent, how its limits are honoured, and what becomes of a channel that is gone.

use serde_json::Value;

use super::*;
use crate::channel::endpoint::{EndpointError, Owner};

const TOKEN: &str = "aB-secret_token";

impl World {
    /// Adds a Discord channel at a receiver that stands in for Discord.
    async fn discord(&self, customer: Option<CustomerId>, receiver: &Receiver) -> EndpointId {
        let base = receiver.url.trim_end_matches("/events");
        let address = format!("{base}/api/webhooks/77/{TOKEN}");
        let url = self.client.vet(EndpointKind::Discord, &address).await.unwrap();
        let mut transaction = self.database.begin_write().await.unwrap();
        let new = NewEndpoint {
            customer,
            url: &url,
            event_types: &[],
        };
        let (added, note) = endpoint::add(&mut transaction, self.database.vault(), new, NOW_MS)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert!(!format!("{note:?}").contains(TOKEN), "{note:?}");
        assert_eq!(added.secret, None, "there is nothing to show");
        added.endpoint.id
    }

    /// An event's first delivery to a Discord channel.
    async fn post_of(&self, event: EventId) -> Delivery {
        let mut posts = self
            .deliveries(event)
            .await
            .into_iter()
            .filter(|delivery| delivery.channel == "discord");
        posts.next().unwrap()
    }
}

#[tokio::test]
async fn a_channel_is_posted_to_and_its_address_is_nowhere_to_be_read() {
    let world = world().await;
    let receiver = Receiver::start(&["500 Broken"]).await;
    let id = world.discord(Some(ADA), &receiver).await;
    let event = world.publish(invoice(ADA, 7)).await;
    world.publish(invoice(BEN, 8)).await;
    world.run(NOW_MS).await;
    let refused = world.post_of(event).await;
    assert_eq!((refused.status.as_str(), refused.attempts), ("pending", 1));
    assert_eq!(refused.next_at_ms, Some(NOW_MS + RETRY_DELAYS_MS[0]));
    world.run(NOW_MS + RETRY_DELAYS_MS[0]).await;
    assert_eq!(world.post_of(event).await.status, "delivered");
    let received = receiver.received();
    assert_eq!(received.len(), 2, "S1: nothing of another customer");
    let last = &received[1];
    let address = format!("post /api/webhooks/77/{}?wait=true", TOKEN.to_lowercase());
    assert!(last.head.starts_with(&address), "{}", last.head);
    assert!(!last.head.contains("ezscale-signature"), "{}", last.head);
    let body: Value = serde_json::from_str(&last.body).unwrap();
    assert_eq!(body["allowed_mentions"]["parse"], json!([]));
    assert_eq!(body["embeds"][0]["title"], "Your invoice 2023-0007");
    assert_eq!(body["embeds"][0]["url"], "https://portal.ada.example/invoices/inv_7");

    let shown = endpoint::endpoint(world.database.pool(), id, Owner::Customer(ADA))
        .await
        .unwrap();
    assert_eq!(shown.kind, EndpointKind::Discord);
    assert!(shown.url.ends_with("/api/webhooks/77/…"), "{}", shown.url);
    let kept = format!("{shown:?} {:?}", world.deliveries(event).await);
    assert!(!kept.contains(TOKEN), "{kept}");
    let stored: String = sqlx::query_scalar("SELECT url || secret FROM webhook_endpoints WHERE id = $1")
        .bind(id.0)
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert!(!stored.contains(TOKEN), "{stored}");
    let mut transaction = world.database.begin_write().await.unwrap();
    let vault = world.database.vault();
    let refused = endpoint::rotate(&mut transaction, vault, id, Owner::Anybody, NOW_MS).await;
    assert!(matches!(refused, Err(EndpointError::NoSecret(_))), "{refused:?}");
}

#[tokio::test]
async fn patience_that_is_asked_for_is_given_and_counts_as_no_failure() {
    const LIMITED: &str = "429 Too Many Requests\r\nRetry-After: 1.5";
    let world = world().await;
    let receiver = Receiver::start(&[LIMITED; 12]).await;
    let id = world.discord(None, &receiver).await;
    let (first, second) = (
        world.publish(invoice(ADA, 7)).await,
        world.publish(invoice(BEN, 8)).await,
    );
    let mut now_ms = NOW_MS;
    for tries in 1..=12 {
        world.run(now_ms).await;
        // One asks, and the other waits with it.
        assert_eq!(receiver.received().len(), tries);
        let post = world.post_of(first).await;
        assert_eq!((post.status.as_str(), post.attempts), ("pending", tries as i64));
        assert_eq!(post.next_at_ms, Some(now_ms + 1_500));
        assert!(world.post_of(second).await.next_at_ms >= Some(now_ms + 1_500));
        now_ms += 1_500;
    }
    let known = endpoint::endpoint(world.database.pool(), id, Owner::Anybody)
        .await
        .unwrap();
    assert_eq!((known.failures, known.disabled_at_ms), (0, None));
    world.run(now_ms).await;
    for event in [first, second] {
        assert_eq!(world.post_of(event).await.status, "delivered");
    }
    assert_eq!(receiver.received().len(), 14);
}

#[tokio::test]
async fn a_channel_that_was_removed_in_discord_is_disabled_at_once_and_its_owner_told() {
    let world = world().await;
    let receiver = Receiver::start(&["404 Not Found"]).await;
    let id = world.discord(Some(ADA), &receiver).await;
    let (first, second) = (
        world.publish(invoice(ADA, 7)).await,
        world.publish(invoice(ADA, 8)).await,
    );
    world.run(NOW_MS).await;
    assert_eq!(receiver.received().len(), 1, "Discord bars who goes on asking");
    for event in [first, second] {
        assert_eq!(world.post_of(event).await.status, "failed");
    }
    let known = endpoint::endpoint(world.database.pool(), id, Owner::Anybody)
        .await
        .unwrap();
    assert_eq!(known.disabled_at_ms, Some(NOW_MS));
    let told = list(world.database.pool(), EventFilter::default(), 1).await.unwrap();
    assert_eq!(
        (told[0].event_type, told[0].customer),
        (EventType::WebhookDisabled, Some(ADA))
    );
    assert_eq!(told[0].payload["kind"], "discord");
    assert!(!told[0].payload.to_string().contains(TOKEN), "{}", told[0].payload);
}

#[tokio::test]
async fn a_channel_and_a_program_hear_of_the_same_events_each_once() {
    let world = world().await;
    let (channel, program) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    let discord = world.discord(Some(ADA), &channel).await;
    let (webhook, _) = world.endpoint(Some(ADA), &program.url, &[]).await;
    let id = world.publish(invoice(ADA, 7)).await;
    world.run(NOW_MS).await;
    let expected = [
        mail("ada@example.net"),
        hook(webhook),
        ("discord".to_owned(), discord.to_string()),
    ];
    assert_eq!(world.told(id).await, expected);
    assert_eq!((channel.received().len(), program.received().len()), (1, 1));
}
