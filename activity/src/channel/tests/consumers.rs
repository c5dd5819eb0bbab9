//! Each consumer has a cursor of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::event::{HandleError, Handled, consume, lags};

/// Writes down what it handles, as a setting each; refuses while it is told to.
#[derive(Debug)]
struct Scribe {
    name: &'static str,
    wants: &'static [EventType],
    is_broken: AtomicBool,
}

impl Scribe {
    fn new(name: &'static str, wants: &'static [EventType]) -> Scribe {
        Scribe {
            name,
            wants,
            is_broken: AtomicBool::new(false),
        }
    }

    async fn written(&self, world: &World) -> Vec<String> {
        let sql = "SELECT name FROM settings WHERE value = $1 ORDER BY name";
        let rows = sqlx::query(sql).bind(self.name).fetch_all(world.database.pool()).await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

impl Consumer for Scribe {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        "Writes down what it is given"
    }

    fn noun(&self) -> &'static str {
        "record"
    }

    fn wants(&self, event_type: EventType) -> bool {
        self.wants.contains(&event_type)
    }

    fn handle<'a>(
        &'a self,
        connection: &'a mut AnyConnection,
        events: &'a [Event],
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<u64, HandleError>> {
        Box::pin(async move {
            for event in events {
                sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2)")
                    .bind(format!("{}-{}", self.name, event.id))
                    .bind(self.name)
                    .execute(&mut *connection)
                    .await?;
            }
            if self.is_broken.load(Ordering::Relaxed) {
                return Err("it is broken".into());
            }
            Ok(events.len() as u64)
        })
    }
}

const FINALISED: &[EventType] = &[EventType::InvoiceFinalised];

#[tokio::test]
async fn one_that_fails_holds_up_none_of_the_others_and_misses_nothing() {
    let world = world().await;
    let (broken, sound) = (Scribe::new("broken", FINALISED), Scribe::new("sound", FINALISED));
    let both: [&dyn Consumer; 2] = [&broken, &sound];
    // From here on.
    event::dispatch(&world.database, &both, NOW_MS).await.unwrap();
    broken.is_broken.store(true, Ordering::Relaxed);
    for number in 1..=3 {
        world.publish(invoice(ADA, number)).await;
    }
    let error = event::dispatch(&world.database, &both, NOW_MS).await.unwrap_err();
    assert!(
        matches!(
            error,
            EventError::PassedOver {
                consumer: "broken",
                count: 3,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        sound.written(&world).await,
        ["sound-evt_1", "sound-evt_2", "sound-evt_3"]
    );
    assert!(
        broken.written(&world).await.is_empty(),
        "what it did was undone with its failure"
    );
    let found = lags(world.database.pool(), &["broken", "sound"]).await.unwrap();
    assert_eq!(
        (found[0].waiting, found[0].set_aside, found[0].oldest),
        (3, 3, Some((EventId(1), NOW_MS)))
    );
    assert_eq!((found[1].waiting, found[1].oldest), (0, None));
    let stored = event(world.database.pool(), EventId(1)).await.unwrap();
    assert_eq!(stored.dispatched_at_ms, None, "not all have handled it");

    broken.is_broken.store(false, Ordering::Relaxed);
    world.publish(invoice(ADA, 4)).await;
    let done = event::dispatch(&world.database, &both, NOW_MS + 1).await.unwrap();
    assert_eq!(
        (done.events, done.written_by("broken"), done.written_by("sound")),
        (4, 4, 1)
    );
    assert_eq!(broken.written(&world).await.len(), 4);
    let stored = event(world.database.pool(), EventId(1)).await.unwrap();
    assert_eq!(stored.dispatched_at_ms, Some(NOW_MS + 1));
}

#[tokio::test]
async fn a_new_one_begins_with_what_happens_from_then_on_and_reads_only_what_it_wants() {
    let world = world().await;
    world.publish(invoice(ADA, 1)).await;
    let scribe = Scribe::new("new", FINALISED);
    assert_eq!(
        consume(&world.database, &scribe, NOW_MS).await.unwrap(),
        Handled::default()
    );
    let unwanted = NewEvent {
        event_type: EventType::InvoicePaid,
        ..invoice(ADA, 2)
    };
    let unwanted = world.publish(unwanted).await;
    sqlx::query("UPDATE events SET payload = '{' WHERE id = $1")
        .bind(unwanted.0)
        .execute(world.database.pool())
        .await
        .unwrap();
    world.publish(invoice(ADA, 3)).await;
    let handled = consume(&world.database, &scribe, NOW_MS).await.unwrap();
    assert_eq!((handled.events, handled.written), (1, 1));
    assert_eq!(scribe.written(&world).await, ["new-evt_3"]);
    assert_eq!(
        consume(&world.database, &scribe, NOW_MS).await.unwrap(),
        Handled::default()
    );
}

#[tokio::test]
async fn many_workers_handle_each_event_once_and_by_batches() {
    const EVENTS: i64 = 1_100;
    let world = world().await;
    let first = Scribe::new("once", FINALISED);
    consume(&world.database, &first, NOW_MS).await.unwrap();
    let mut transaction = world.database.begin_write().await.unwrap();
    let events = (1..=EVENTS).map(|number| invoice(ADA, number)).collect();
    event::publish_all(&mut transaction, events, NOW_MS).await.unwrap();
    transaction.commit().await.unwrap();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let database = world.database.clone();
            tokio::spawn(async move {
                let scribe = Scribe::new("once", FINALISED);
                consume(&database, &scribe, NOW_MS).await.unwrap().events
            })
        })
        .collect();
    let mut handled = 0;
    for worker in workers {
        handled += worker.await.unwrap();
    }
    assert_eq!(handled, EVENTS as u64);
    assert_eq!(first.written(&world).await.len() as i64, EVENTS);
}
