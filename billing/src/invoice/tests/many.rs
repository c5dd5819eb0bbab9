//! A thousand finalisations at once, on both databases.

use super::*;
use crate::catalog::BaseTiming;
use crate::subscription::{NewSubscription, subscribe};

const CUSTOMERS: usize = 1_000;

async fn a_thousand_at_once(world: World) {
    let deal = Deal {
        terms: Terms::Flat,
        usage_price: "0",
        base_timing: BaseTiming::Advance,
        ..started_in_february()
    };
    let (_, price) = world.plan_and_price("USD", deal).await;
    let mut customers = Vec::with_capacity(CUSTOMERS);
    let mut transaction = world.database.begin_write().await.unwrap();
    for number in 0..CUSTOMERS {
        let new = inventory::NewCustomer {
            name: "Ada",
            email: &format!("ada-{number}@example.net"),
            currency: "USD",
            time_zone: "UTC",
            country: "US",
            tax_rate_percent: "8.875",
        };
        let customer = inventory::create_customer(&mut transaction, new, 0).await.unwrap().id;
        let new = inventory::NewService {
            customer,
            name: "web",
            service_type: "vps",
            site: None,
        };
        let service = inventory::create_service(&mut transaction, new, 0).await.unwrap();
        let new = NewSubscription::new(service.id, price.id, ms("2026-02-01T00:00:00Z"));
        subscribe(&mut transaction, new, "test", ms("2026-02-01T00:00:00Z"))
            .await
            .unwrap();
        customers.push(customer);
    }
    transaction.commit().await.unwrap();

    let world = Arc::new(world);
    let mut closers = Vec::with_capacity(CUSTOMERS);
    for customer in customers {
        let world = Arc::clone(&world);
        closers.push(tokio::spawn(async move {
            let closing = close(&world.database, &world.usage, customer, ms("2026-02-01T00:00:00Z")).await;
            closing.unwrap().invoices.len()
        }));
    }
    // And one that wants all of them, at the same time.
    let everything = close_all(&world.database, &world.usage, ms("2026-02-01T00:00:00Z"))
        .await
        .unwrap();
    let mut made = everything.invoices.len();
    assert!(everything.failed.is_empty(), "{:?}", everything.failed);
    for closer in closers {
        made += closer.await.unwrap();
    }
    assert_eq!(made, CUSTOMERS, "each customer is charged once");

    let invoices = list_all(world.database.pool(), InvoiceFilter::default()).await.unwrap();
    let mut numbers: Vec<String> = invoices.iter().map(|invoice| invoice.number.clone()).collect();
    numbers.sort();
    let expected: Vec<String> = (1..=CUSTOMERS).map(|number| format!("INV-2026-{number:06}")).collect();
    assert_eq!(numbers, expected, "numbers have no gaps");
    // 20.00 and 8.875 % of it are 21.78.
    let owed = ledger::balances(world.database.pool()).await.unwrap();
    let receivable: i64 = owed
        .iter()
        .filter(|balance| balance.account.name.starts_with("receivable:"))
        .map(|balance| balance.balance.minor)
        .sum();
    assert_eq!(receivable, 2178 * CUSTOMERS as i64);
    assert_books_are_right(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn b3_a_thousand_finalisations_at_once_on_sqlite() {
    a_thousand_at_once(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn b3_a_thousand_finalisations_at_once_on_postgresql() {
    a_thousand_at_once(World::on_postgres().await).await;
}
