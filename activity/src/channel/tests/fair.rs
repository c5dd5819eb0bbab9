//! Who has much to be sent, or endpoints that do not answer, holds up nobody else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::links::mail_server;
use super::*;
use crate::channel::endpoint::Owner;

const HANGING: usize = 9;
const PENDING_EACH: i64 = 60;
/// Until what must be sent was.
const DEADLINE: Duration = Duration::from_secs(60);

/// An endpoint that takes connections and never answers. It counts them.
async fn hanging(open: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
    });
    url
}

async fn until(condition: impl Fn() -> bool) -> bool {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.is_ok()
}

#[tokio::test]
async fn endpoints_that_do_not_answer_delay_neither_mail_nor_the_webhooks_of_others() {
    let mut world = world().await;
    // Nobody gives up waiting while the test lasts: what is sent is sent beside those who do not answer.
    world.client = WebhookClient::waiting(true, Duration::from_secs(3_600)).unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    for _ in 0..HANGING {
        let url = hanging(Arc::clone(&open)).await;
        world
            .endpoint(Some(ADA), &url, &[EventType::InvoiceFinalised, EventType::InvoicePaid])
            .await;
    }
    let paid = |number| NewEvent {
        event_type: EventType::InvoicePaid,
        ..invoice(ADA, number)
    };
    for number in 0..PENDING_EACH {
        world.publish(paid(number)).await;
    }
    dispatch(&world.database, NOW_MS).await.unwrap();
    let bens = Receiver::start(&[]).await;
    world.endpoint(Some(BEN), &bens.url, &[]).await;
    world.publish(invoice(BEN, 1)).await;
    let (mailer, mails) = mail_server().await;
    let (database, client) = (world.database.clone(), world.client.clone());
    let sending = tokio::spawn(async move {
        let transports = Transports {
            mailer: Some(&mailer),
            ..without_mail(&client)
        };
        run_once(&database, transports, NOW_MS).await
    });

    assert!(
        until(|| mails.lock().unwrap().len() == 1).await,
        "the mail was not sent"
    );
    assert!(
        until(|| bens.received().len() == 1).await,
        "the other's webhook was not sent"
    );
    assert!(until(|| open.load(Ordering::Relaxed) > 0).await);
    // What becomes due while endpoints do not answer is sent too.
    world.publish(invoice(BEN, 2)).await;
    dispatch(&world.database, NOW_MS).await.unwrap();
    assert!(
        until(|| bens.received().len() == 2).await,
        "what came later was not sent"
    );
    assert!(!sending.is_finished());
    assert!(open.load(Ordering::Relaxed) <= ENDPOINTS_PER_OWNER);
    sending.abort();
}

#[tokio::test]
async fn a_customer_replays_so_much_to_an_endpoint_and_so_much_an_hour() {
    const EVENTS: i64 = 600;
    let world = world().await;
    let (adas, _) = world.endpoint(Some(ADA), "http://127.0.0.1:1/ada", &[]).await;
    let (ours, _) = world.endpoint(None, "http://127.0.0.1:1/ours", &[]).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    for number in 1..=EVENTS {
        publish(&mut transaction, invoice(ADA, number), NOW_MS).await.unwrap();
    }
    transaction.commit().await.unwrap();
    dispatch(&world.database, NOW_MS).await.unwrap();
    let settle = async || {
        sqlx::query("UPDATE deliveries SET status = 'delivered', next_at_ms = NULL")
            .execute(world.database.pool())
            .await
            .unwrap();
    };
    let replay_to = async |endpoint, count, now_ms| {
        let range = Replay {
            first: EventId(1),
            last: EventId(count),
            event_type: None,
        };
        let mut transaction = world.database.begin_write().await.unwrap();
        let replayed = replay(&mut transaction, range, endpoint, Owner::Anybody, now_ms).await;
        transaction.commit().await.unwrap();
        replayed.map(|(events, _)| events)
    };
    let now_ms = NOW_MS + 1;
    let refused = replay_to(adas, EVENTS, now_ms).await.unwrap_err();
    assert!(
        matches!(
            refused,
            ReplayError::TooManyPending {
                pending: EVENTS,
                replayed: EVENTS,
                ..
            }
        ),
        "{refused}"
    );
    assert!(refused.to_string().contains("limit of 1000"), "{refused}");
    assert_eq!(replay_to(adas, MAX_PENDING - EVENTS, now_ms).await.unwrap(), 400);
    for _ in 0..2 {
        settle().await;
        assert_eq!(replay_to(adas, EVENTS, now_ms).await.unwrap(), 600);
    }
    settle().await;
    let refused = replay_to(adas, EVENTS, now_ms).await.unwrap_err();
    assert!(matches!(refused, ReplayError::TooOften), "{refused}");
    assert_eq!(
        replay_to(adas, 400, now_ms).await.unwrap(),
        400,
        "what is left of the hour"
    );
    settle().await;
    assert_eq!(replay_to(adas, EVENTS, now_ms + 3_600_000).await.unwrap(), 600);
    // The operator's own endpoints have no limit but that of one call.
    for _ in 0..4 {
        assert_eq!(replay_to(ours, EVENTS, now_ms).await.unwrap(), 600);
    }
}
