use activity::event::{self, EventFilter};
use schemas::ids::{ChangeId, InvoiceId};
use schemas::window::DAY_MS;

use super::*;
use crate::catalog::BaseTiming;
use crate::subscription::change;
use crate::subscription::schedule::{self, ScheduledAction};
use crate::testing::{DEAL, Deal, World, ms};
use crate::{invoice, lifecycle};

const LIMITS: ClockLimits = ClockLimits { ahead_ms: 2 * DAY_MS };

async fn events(world: &World) -> Vec<String> {
    let events = event::list(world.database.pool(), EventFilter::default(), 100)
        .await
        .unwrap();
    let of_billing = events.iter().filter(|event| event.subject == "billing");
    of_billing.map(|event| event.event_type.to_string()).collect()
}

#[tokio::test]
async fn a_clock_that_jumps_stops_billing_until_it_is_back() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let deal = Deal {
        base_timing: BaseTiming::Advance,
        terms: crate::catalog::Terms::Flat,
        usage_price: "0",
        ..DEAL
    };
    let contract = world.subscribe(customer, deal).await;
    let now_ms = ms("2026-01-01T00:00:00Z");
    assert_eq!(look(&world.database, LIMITS, now_ms).await.unwrap(), None);
    assert_eq!(look(&world.database, LIMITS, now_ms + DAY_MS).await.unwrap(), None);
    invoice::close(&world.database, &world.usage, customer, now_ms + DAY_MS)
        .await
        .unwrap();

    let jumped_ms = now_ms + 41 * DAY_MS;
    let stopped = look(&world.database, LIMITS, jumped_ms).await.unwrap().unwrap();
    assert_eq!((stopped.good_ms, stopped.stopped_at_ms), (now_ms + DAY_MS, jumped_ms));
    // It says so once, and nothing is charged or ended by that time.
    look(&world.database, LIMITS, jumped_ms + 1000).await.unwrap().unwrap();
    assert_eq!(events(&world).await, ["billing.stopped"]);
    let refused = invoice::close_all(&world.database, &world.usage, jumped_ms).await;
    assert!(matches!(refused, Err(BillingError::Stopped(_))), "{refused:?}");
    let refused = lifecycle::advance(&world.database, jumped_ms).await;
    assert!(matches!(refused, Err(BillingError::Stopped(_))), "{refused:?}");

    // Nor does a person change what is charged, whatever the way in.
    let mut connection = world.database.pool().acquire().await.unwrap();
    let subscription = contract.subscription.id;
    let resumed = change::resume(&mut connection, subscription, "ada", jumped_ms).await;
    let at_ms = jumped_ms + DAY_MS;
    let planned = schedule::schedule(
        &mut connection,
        subscription,
        ScheduledAction::Cancel,
        at_ms,
        "x",
        "ada",
        jumped_ms,
    )
    .await;
    let unplanned = schedule::cancel(&mut connection, ChangeId(1), "x", jumped_ms).await;
    let credited = invoice::credit_gross(&mut connection, InvoiceId(1), None, "x", None, jumped_ms).await;
    let refused = [resumed.err(), planned.err(), unplanned.err(), credited.err()];
    for (at, refused) in refused.iter().enumerate() {
        assert!(matches!(refused, Some(BillingError::Stopped(_))), "{at}: {refused:?}");
    }
    drop(connection);

    // The clock is set right: billing goes on by itself.
    let later_ms = now_ms + DAY_MS + HOUR_MS;
    assert_eq!(look(&world.database, LIMITS, later_ms).await.unwrap(), None);
    assert_eq!(events(&world).await, ["billing.resumed", "billing.stopped"]);
    invoice::close_all(&world.database, &world.usage, later_ms)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_machine_that_was_off_is_confirmed_by_a_person() {
    let world = World::new().await;
    let now_ms = ms("2026-01-01T00:00:00Z");
    look(&world.database, LIMITS, now_ms).await.unwrap();
    let mut connection = world.database.pool().acquire().await.unwrap();
    let idle = confirm(&mut connection, "ada@example.net", now_ms).await;
    assert!(matches!(idle, Err(GuardError::Running)), "{idle:?}");
    let on_again_ms = now_ms + 30 * DAY_MS;
    assert!(look(&world.database, LIMITS, on_again_ms).await.unwrap().is_some());
    let note = confirm(&mut connection, "ada@example.net", on_again_ms).await.unwrap();
    assert_eq!((note.action.as_str(), note.risk), ("billing.confirm_clock", Risk::High));
    drop(connection);
    assert_eq!(look(&world.database, LIMITS, on_again_ms + 1000).await.unwrap(), None);
    check(world.database.pool()).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_goes_back_stops_billing_too_and_a_correction_of_seconds_does_not() {
    let world = World::new().await;
    let now_ms = ms("2026-03-01T00:00:00Z");
    look(&world.database, LIMITS, now_ms).await.unwrap();
    assert_eq!(look(&world.database, LIMITS, now_ms - 30_000).await.unwrap(), None);
    let stopped = look(&world.database, LIMITS, now_ms - 40 * DAY_MS).await.unwrap();
    assert!(stopped.is_some());
    assert_eq!(look(&world.database, LIMITS, now_ms + 1000).await.unwrap(), None);
}

#[tokio::test]
async fn a_test_clock_never_jumps() {
    let world = World::new().await;
    let mut connection = world.database.pool().acquire().await.unwrap();
    clock::begin(&mut connection, "2026-01-01T00:00:00Z".parse().unwrap())
        .await
        .unwrap();
    let now_ms = ms("2026-01-01T00:00:00Z");
    for days in [0, 40, 400] {
        let looked = look(&world.database, LIMITS, now_ms + days * DAY_MS).await.unwrap();
        assert_eq!(looked, None, "{days} days");
    }
    assert_eq!(events(&world).await, [""; 0]);
}
