//! What was not measured waits for a person's word.

use super::*;
use crate::invoice::{confirm_unmeasured, unmeasured};
use activity::event::{self, EventFilter, EventType};
use schemas::usage::MeasureGuards;

const GUARDS: MeasureGuards = MeasureGuards::DEFAULT;
const FINANCE: &str = "finance@example.net";

async fn reasons(world: &World, customer: CustomerId, at: &str) -> Vec<OpenReason> {
    let closing = close(&world.database, &world.usage, customer, ms(at)).await.unwrap();
    closing.refused.iter().map(|open| open.reason).collect()
}

async fn told(world: &World) -> usize {
    let events = event::list(world.database.pool(), EventFilter::default(), 100)
        .await
        .unwrap();
    let held = events
        .iter()
        .filter(|event| event.event_type == EventType::UsageUnmeasured);
    held.count()
}

#[tokio::test]
async fn nothing_is_closed_beyond_the_newest_measured_data() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, DEAL).await;
    world.usage.add(contract.service.id, "2026-01-10T00:00:00Z", 0, 1 << 30);
    // The collector stopped on the 20th; the clock went on.
    world.usage.guard(GUARDS, "2026-01-20T00:00:00Z");
    let at = "2026-02-10T00:00:00Z";
    assert_eq!(reasons(&world, customer, at).await, [OpenReason::BeyondMeasured]);
    assert_eq!(reasons(&world, customer, at).await, [OpenReason::BeyondMeasured]);
    assert_eq!(told(&world).await, 1, "told once");
    let waiting = unmeasured(world.database.pool()).await.unwrap();
    assert_eq!((waiting.len(), waiting[0].customer), (1, customer));

    // The data comes: it is closed without anybody's word, and waits no more.
    world.usage.guard(GUARDS, "2026-02-10T00:00:00Z");
    assert_eq!(reasons(&world, customer, at).await, []);
    assert_eq!(closed(&world, customer, at).await.invoices.len(), 0, "closed before");
    assert_eq!(unmeasured(world.database.pool()).await.unwrap(), []);
}

#[tokio::test]
async fn usage_of_which_too_little_was_measured_is_closed_by_a_persons_word() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    world.subscribe(customer, DEAL).await;
    world.usage.guard(GUARDS, "2026-03-10T00:00:00Z");
    // Four of 31 days were not measured: 87 %.
    world.usage.silence("2026-01-10T00:00:00Z", "2026-01-14T00:00:00Z");
    let at = "2026-02-10T00:00:00Z";
    assert_eq!(reasons(&world, customer, at).await, [OpenReason::LowCoverage]);
    assert_eq!(unmeasured(world.database.pool()).await.unwrap()[0].coverage_percent, 87);
    let mut connection = world.database.pool().acquire().await.unwrap();
    let reason = "the outage of 10 January, agreed with the customer";
    let (confirmed, note) = confirm_unmeasured(&mut connection, customer, reason, FINANCE, ms(at))
        .await
        .unwrap();
    assert_eq!((confirmed, note.action.as_str()), (1, "invoice.confirm_coverage"));
    let again = confirm_unmeasured(&mut connection, customer, reason, FINANCE, ms(at)).await;
    assert!(matches!(again, Err(BillingError::NothingUnmeasured(_))), "{again:?}");
    drop(connection);
    assert_eq!(reasons(&world, customer, at).await, []);
    assert_eq!(unmeasured(world.database.pool()).await.unwrap(), []);
    // One day of 28 is within what is allowed: February needs nobody.
    world.usage.silence("2026-02-10T00:00:00Z", "2026-02-11T00:00:00Z");
    assert_eq!(reasons(&world, customer, "2026-03-10T00:00:00Z").await, []);
}

#[tokio::test]
async fn what_costs_nothing_by_usage_is_closed_by_the_calendar() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    for terms in [Terms::Flat, crate::testing::TRANSFER] {
        let deal = Deal {
            terms,
            usage_price: "0",
            ..DEAL
        };
        world.subscribe(customer, deal).await;
    }
    world.usage.guard(GUARDS, "2026-01-05T00:00:00Z");
    assert_eq!(reasons(&world, customer, "2026-02-10T00:00:00Z").await, []);
}
