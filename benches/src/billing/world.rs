//! Customers, services and subscriptions.

use analytics::UsageMode;
use anyhow::Context as _;
use billing::catalog::{self, NewPlan, NewPrice, QuotaUnit, Terms};
use billing::subscription::{self, NewSubscription};
use billing::tax::{self, NewTaxRate};
use schemas::clock;
use schemas::db::Database;
use schemas::ids::PriceId;
use schemas::inventory::{self, EntityProfile, FIRST_ENTITY, NewCustomer, NewService};
use schemas::money::Money;
use sqlx::AnyConnection;

use super::month;

/// What is made in one transaction: a commit waits for the disk.
const PER_TRANSACTION: u32 = 500;
pub(super) const CURRENCY: &str = "EUR";
const ACTOR: &str = "benchmark";

/// Makes so many customers with a service and a subscription each: half pay by transfer, a third by the 95th percentile,
/// the rest for the base price alone. German tax of 19 % is on all of it.
pub(super) async fn make(database: &Database, subscriptions: u32) -> anyhow::Result<()> {
    let begin = month::BEGIN.parse::<jiff::Zoned>()?.timestamp();
    clock::begin(&mut *database.pool().acquire().await?, begin).await?;
    let now_ms = month::starts_at_ms()?;
    let mut transaction = database.begin_write().await?;
    let prices = prices(&mut transaction, now_ms).await?;
    let vat = NewTaxRate {
        country: "DE",
        region: "",
        name: "VAT",
        rate_percent: "19".parse()?,
        valid_from_ms: 0,
        valid_to_ms: None,
    };
    tax::add_rate(&mut transaction, vat, now_ms).await?;
    let issuer = EntityProfile {
        name: "Example Hosting Inc".to_owned(),
        street: "1 Main Street".to_owned(),
        city: "New York".to_owned(),
        country: "US".to_owned(),
        ..EntityProfile::default()
    };
    inventory::change_entity(&mut transaction, FIRST_ENTITY, issuer).await?;
    transaction.commit().await?;
    for first in (1..=subscriptions).step_by(PER_TRANSACTION as usize) {
        let mut transaction = database.begin_write().await?;
        for number in first..(first + PER_TRANSACTION).min(subscriptions + 1) {
            let price = prices[match number % 6 {
                0..=2 => 0,
                3 | 4 => 1,
                _ => 2,
            }];
            subscribe(&mut transaction, number, price, now_ms)
                .await
                .with_context(|| format!("make subscription {number}"))?;
        }
        transaction.commit().await?;
    }
    Ok(())
}

async fn prices(connection: &mut AnyConnection, now_ms: i64) -> anyhow::Result<[PriceId; 3]> {
    let transfer = Terms::Transfer {
        included_units: 100,
        unit: QuotaUnit::Gib,
        mode: UsageMode::Sum,
    };
    let percentile = Terms::Percentile {
        commit_mbps: "20".parse()?,
        mode: UsageMode::Max,
    };
    let plans = [
        ("VPS Pro", transfer, 1_999, "0.05"),
        ("Dedicated L", percentile, 9_900, "0.90"),
        ("Web", Terms::Flat, 499, "0"),
    ];
    let mut prices = [PriceId(0); 3];
    for (price, (name, terms, base_minor, usage)) in prices.iter_mut().zip(plans) {
        let plan = catalog::create_plan(connection, NewPlan::new(name, "vps", terms), now_ms).await?;
        let new = NewPrice {
            plan: plan.id,
            cycle_months: 1,
            base: Money::new(base_minor, CURRENCY.parse()?),
            usage: usage.parse()?,
            valid_from_ms: 0,
        };
        *price = catalog::add_price(connection, new).await?.id;
    }
    Ok(prices)
}

async fn subscribe(connection: &mut AnyConnection, number: u32, price: PriceId, now_ms: i64) -> anyhow::Result<()> {
    let new = NewCustomer {
        name: &format!("Customer {number}"),
        email: &format!("customer-{number}@example.net"),
        currency: CURRENCY,
        time_zone: month::TIME_ZONE,
        country: "DE",
        tax_rate_percent: "0",
    };
    let customer = inventory::create_customer(connection, new, now_ms).await?;
    let new = NewService {
        customer: customer.id,
        name: &format!("server-{number}"),
        service_type: "vps",
        site: None,
    };
    let service = inventory::create_service(connection, new, now_ms).await?;
    let new = NewSubscription::new(service.id, price, now_ms);
    subscription::subscribe(connection, new, ACTOR, now_ms).await?;
    Ok(())
}
