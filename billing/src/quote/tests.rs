use activity::act::{Act, By};
use schemas::ids::CustomerId;
use schemas::money::{Currency, Money};

use super::*;
use crate::catalog::{BaseTiming, Terms};
use crate::testing::{DEAL, Deal, World, ms};

/// 31.00 a month in advance: a day of January is 1.00.
const MONTHLY: Deal = Deal {
    terms: Terms::Flat,
    base_minor: 3100,
    usage_price: "0",
    base_timing: BaseTiming::Advance,
    started_at: "2025-01-01T00:00:00Z",
    ..DEAL
};
const NOW: &str = "2025-01-11T00:00:00Z";
const BY: &str = "ada@example.net";

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

async fn count(world: &World, table: &'static str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(sql).fetch_one(world.database.pool()).await.unwrap()
}

async fn carried_out(world: &World, customer: CustomerId, request: Request<'_>) -> SubscriptionId {
    let mut act = Act::begin(&world.database, By::program(BY), ms(NOW)).await.unwrap();
    let (subscription, note) = carry_out(act.connection(), customer, request, BY, ms(NOW))
        .await
        .unwrap();
    act.commit(note).await.unwrap();
    subscription
}

#[tokio::test]
async fn a_quote_is_what_the_order_charges_and_leaves_nothing_behind() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let (_, price) = world.plan_and_price("USD", MONTHLY).await;
    let order = Request::Order {
        name: "web-1",
        service_type: "vps",
        price: price.id,
        quantity: 2,
        coupon: None,
    };
    let quoted = quote(&world.database, &world.usage, customer, order, ms(NOW))
        .await
        .unwrap();
    let totals: Vec<Money> = quoted.now.iter().map(|draft| draft.total).collect();
    assert_eq!(totals, [usd(6200)]);
    assert_eq!((quoted.is_ahead, quoted.credit), (false, usd(0)));
    let next = quoted.next_of_service.unwrap();
    assert_eq!(
        (next.at_ms, next.charge.total, next.charge.tax),
        (ms("2025-02-11T00:00:00Z"), usd(6200), usd(0))
    );
    for table in ["services", "subscriptions", "invoices", "audit_log"] {
        assert_eq!(count(&world, table).await, 0, "{table}");
    }

    let subscription = carried_out(&world, customer, order).await;
    let invoice = invoice_at_once(&world.database, &world.usage, customer, subscription, ms(NOW)).await;
    let invoice = invoice.unwrap().expect("the first month is charged at once");
    let made = invoice::get(&world.database, invoice).await.unwrap();
    assert_eq!(made.invoice.total, totals[0]);
    assert_eq!(count(&world, "audit_log").await, 1, "one entry for what was done");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_the_quote_too() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, MONTHLY).await;
    let same = Request::Change {
        subscription: contract.subscription.id,
        change: Change {
            price: contract.last_phase().price.id,
            quantity: 1,
        },
    };
    let refused = quote(&world.database, &world.usage, customer, same, ms(NOW)).await;
    assert!(matches!(refused, Err(BillingError::NothingChanges(_))), "{refused:?}");
    let mut act = Act::begin(&world.database, By::program(BY), ms(NOW)).await.unwrap();
    let refused = carry_out(act.connection(), customer, same, BY, ms(NOW)).await;
    assert!(matches!(refused, Err(BillingError::NothingChanges(_))), "{refused:?}");
    drop(act);
    assert_eq!(count(&world, "audit_log").await, 0);
}

#[tokio::test]
async fn a_quote_for_a_day_ahead_tells_the_invoice_of_that_day() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, MONTHLY).await;
    let more = Request::Change {
        subscription: contract.subscription.id,
        change: Change {
            price: contract.last_phase().price.id,
            quantity: 2,
        },
    };
    invoice::close(&world.database, &world.usage, customer, ms(NOW))
        .await
        .unwrap();
    let at_ms = ms("2025-02-01T00:00:00Z");
    let quoted = quote_at(&world.database, &world.usage, customer, more, at_ms, ms(NOW))
        .await
        .unwrap();
    assert!(quoted.is_ahead && quoted.now.is_empty());
    let after = quoted.next_of_service.map(|next| (next.at_ms, next.charge.total));
    assert_eq!(after, Some((ms("2025-03-01T00:00:00Z"), usd(6200))));
    let next = quoted.next.expect("February is charged");
    assert_eq!((next.due_ms, next.total), (at_ms, usd(6200)));
}

#[test]
fn a_quote_looks_as_far_as_the_next_amounts_that_are_near() {
    let now_ms = ms(NOW);
    let (near, far) = (now_ms + 30 * DAY_MS, now_ms + 200 * DAY_MS);
    for (base_ms, next_ms, until_ms) in [
        (None, None, None),
        (Some(near), Some(near), Some(near)),
        (Some(far), Some(near), Some(near)),
        (Some(near), Some(near - DAY_MS), Some(near)),
        (Some(far), Some(far), None),
    ] {
        assert_eq!(
            quoted_until_ms(base_ms, next_ms, now_ms),
            until_ms,
            "{base_ms:?} {next_ms:?}"
        );
    }
}
