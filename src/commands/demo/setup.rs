//! The demo's fleet: its customers, services, plans and subscriptions.

use std::collections::HashMap;

use activity::act::Note;
use analytics::UsageMode;
use anyhow::Context as _;
use billing::catalog::{
    self, Attributes, Badge, BaseTiming, CYCLES_MONTHS, NewPlan, NewPrice, PlanKind, QuotaUnit, Terms,
};
use billing::price::UsagePrice;
use billing::subscription::{self, NewSubscription};
use collector::simulate::fleet::{Fleet, FleetBilling, FleetPlan};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rust_decimal::Decimal;
use schemas::assignment::Target;
use schemas::db::Database;
use schemas::ids::{CustomerId, PriceId, ServiceId};
use schemas::inventory::{self, NewCustomer, NewService};
use schemas::money::{Currency, Money};
use schemas::window::DAY_MS;
use serde_json::json;

use super::story;
use crate::commands::audit;

/// Tax of the demo's customers by country, in percent; others pay none.
const TAX_RATES: [(&str, &str); 6] = [
    ("DE", "19"),
    ("FR", "20"),
    ("NL", "21"),
    ("ES", "21"),
    ("GB", "20"),
    ("SG", "9"),
];
/// Days before today on which billing periods of the demo end: the month before them lies inside the history, and its
/// windows are closed.
const ANCHOR_DAYS_AGO: [i64; 3] = [1, 2, 3];

/// Price of the add-on, a month, in minor units.
const BACKUPS_MINOR: i64 = 300;

/// What was stored of the fleet.
#[derive(Debug)]
pub(crate) struct DemoFleet {
    pub(crate) customers: Vec<CustomerId>,
    /// Whose pages show the most, and a service of theirs.
    pub(crate) showcase: (CustomerId, ServiceId),
}

/// Fills an empty database, in one transaction.
pub(crate) async fn fill(
    database: &Database,
    fleet: &Fleet,
    history_start_ms: i64,
    now: Timestamp,
) -> anyhow::Result<DemoFleet> {
    let mut act = audit::begin(database, history_start_ms).await?;
    // Everything is as if it had been entered before the history began.
    let mut customers: Vec<(CustomerId, Currency, i64)> = Vec::new();
    for (index, customer) in fleet.customers.iter().enumerate() {
        let tax = TAX_RATES.iter().find(|(country, _)| *country == customer.country);
        let new = NewCustomer {
            name: customer.name,
            email: &customer.email,
            currency: customer.currency,
            time_zone: customer.time_zone,
            country: customer.country,
            tax_rate_percent: tax.map_or("0", |(_, percent)| percent),
        };
        let made = inventory::create_customer(act.connection(), new, history_start_ms).await?;
        story::address(act.connection(), made.id, index).await?;
        let days_ago = ANCHOR_DAYS_AGO[index % ANCHOR_DAYS_AGO.len()];
        customers.push((made.id, made.currency, days_ago));
    }

    // West of Greenwich, by night, a month of 31 days that ended three days ago began some hours before the history.
    let sold_from_ms = history_start_ms - DAY_MS;
    let mut prices: HashMap<(usize, Currency), PriceId> = HashMap::new();
    for (index, plan) in fleet.plans.iter().enumerate() {
        let new = NewPlan {
            base_timing: BaseTiming::Arrears,
            attributes: specifications(plan.name),
            badge: match plan.name {
                "VPS Medium" | "Web Business" => Badge::Popular,
                "VPS Pro" | "Dedicated Dual 20T" => Badge::BestValue,
                _ => Badge::None,
            },
            ..NewPlan::new(plan.name, plan.kind.name(), terms(plan))
        };
        let made = catalog::create_plan(act.connection(), new, history_start_ms).await?;
        for currency in currencies(&customers) {
            let month = Money::new(plan.price_minor, currency);
            for cycle_months in CYCLES_MONTHS {
                let new = NewPrice {
                    plan: made.id,
                    cycle_months,
                    base: made.derived_base(month, cycle_months)?,
                    usage: UsagePrice::PerUnit { rate: usage_rate(plan) },
                    valid_from_ms: sold_from_ms,
                };
                let price = catalog::add_price(act.connection(), new).await?;
                if cycle_months == 1 {
                    prices.insert((index, currency), price.id);
                }
            }
        }
    }

    add_backups(
        act.connection(),
        &currencies(&customers),
        history_start_ms,
        sold_from_ms,
    )
    .await?;

    let shown = showcase(fleet);
    let mut service_shown = None;
    for service in &fleet.services {
        let (customer, currency, days_ago) = customers[service.customer];
        let new = NewService {
            customer,
            name: &service.name,
            service_type: service.kind.name(),
            site: Some(service.site),
        };
        let made = inventory::create_service(act.connection(), new, history_start_ms).await?;
        for prefix in &service.prefixes {
            let target = Target::Prefix(*prefix);
            inventory::assign(
                act.connection(),
                made.id,
                target,
                history_start_ms,
                None,
                history_start_ms,
            )
            .await?;
        }
        if service.customer == shown {
            service_shown.get_or_insert(made.id);
        }
        let zone = inventory::zone_named(fleet.customers[service.customer].time_zone)?;
        subscribe(
            act.connection(),
            made.id,
            prices[&(service.plan, currency)],
            days_ago,
            &zone,
            now,
        )
        .await?;
    }
    let change = json!({"after": {"customers": customers.len(), "services": fleet.services.len()}});
    act.commit(Note::new("demo.fill", "demo").change(change)).await?;

    Ok(DemoFleet {
        showcase: (
            customers[shown].0,
            service_shown.context("the customer that is shown has a service")?,
        ),
        customers: customers.into_iter().map(|(id, ..)| id).collect(),
    })
}

/// An add-on for virtual servers, which nobody has yet.
async fn add_backups(
    connection: &mut sqlx::AnyConnection,
    currencies: &[Currency],
    at_ms: i64,
    sold_from_ms: i64,
) -> anyhow::Result<()> {
    let new = NewPlan {
        kind: PlanKind::Addon,
        description: "A copy of the disk each night, kept for a week.",
        ..NewPlan::new("Daily backups", "vps", Terms::Flat)
    };
    let made = catalog::create_plan(&mut *connection, new, at_ms).await?;
    for currency in currencies {
        for cycle_months in CYCLES_MONTHS {
            let new = NewPrice {
                plan: made.id,
                cycle_months,
                base: made.derived_base(Money::new(BACKUPS_MINOR, *currency), cycle_months)?,
                usage: UsagePrice::FREE,
                valid_from_ms: sold_from_ms,
            };
            catalog::add_price(&mut *connection, new).await?;
        }
    }
    Ok(())
}

/// What a service has by a plan of the fleet: vCPU, RAM in GiB, disk in GB and its kind, port in Mbit/s; nothing where pages
/// have nothing to say.
fn specifications(plan: &str) -> Attributes {
    let known = match plan {
        "VPS Small" => ["2", "2", "40", "NVMe", "1000"],
        "VPS Medium" => ["4", "8", "80", "NVMe", "1000"],
        "VPS Large" | "VPS Unmetered" => ["8", "16", "160", "NVMe", "1000"],
        "VPS Pro" => ["16", "32", "320", "NVMe", "2000"],
        "Dedicated E3" => ["8", "32", "1000", "SSD", "1000"],
        "Dedicated Dual" | "Dedicated Dual 20T" => ["24", "128", "4000", "NVMe", "10000"],
        "Dedicated Unmetered 1G" | "Dedicated Burst 20" => ["16", "64", "2000", "NVMe", "1000"],
        "Dedicated Burst 50" | "Dedicated Burst 100" => ["32", "128", "4000", "NVMe", "10000"],
        "MySQL Standard" => ["2", "8", "100", "NVMe", "1000"],
        "MySQL Replicated" => ["4", "16", "250", "NVMe", "1000"],
        _ => return Attributes::new(),
    };
    let names = ["vcpu", "ram_gib", "disk_gb", "disk_type", "port_mbps"];
    let pairs = names.into_iter().zip(known);
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The subscription starts with the billing month that ended `days_ago` days ago, so that one whole month can be charged.
async fn subscribe(
    connection: &mut sqlx::AnyConnection,
    service: ServiceId,
    price: PriceId,
    days_ago: i64,
    zone: &TimeZone,
    now: Timestamp,
) -> anyhow::Result<()> {
    let (ended_on, started_at_ms) = billing_month(now, zone, days_ago)?;
    let new = NewSubscription {
        anchor_day: Some(i64::from(ended_on.day())),
        ..NewSubscription::new(service, price, started_at_ms)
    };
    subscription::subscribe(connection, new, "demo", started_at_ms).await?;
    Ok(())
}

/// The day after the billing month that ended `days_ago` days ago, and the month's first instant.
fn billing_month(now: Timestamp, zone: &TimeZone, days_ago: i64) -> anyhow::Result<(Date, i64)> {
    let ended_on = now.to_zoned(zone.clone()).date().checked_sub(days_ago.days())?;
    let started_on = ended_on.checked_sub(1.month())?;
    let started_at_ms = started_on.to_zoned(zone.clone())?.timestamp().as_millisecond();
    Ok((ended_on, started_at_ms))
}

fn terms(plan: &FleetPlan) -> Terms {
    match plan.billing {
        FleetBilling::Flat => Terms::Flat,
        FleetBilling::Transfer { included_gib } => Terms::Transfer {
            included_units: included_gib as i64,
            unit: QuotaUnit::Gib,
            mode: UsageMode::Sum,
        },
        FleetBilling::Percentile95 { commit_mbps } => Terms::Percentile {
            commit_mbps: Decimal::from(commit_mbps),
            mode: UsageMode::Max,
        },
    }
}

/// One cent per GiB, or 80 cents per Mbit/s.
fn usage_rate(plan: &FleetPlan) -> Decimal {
    match plan.billing {
        FleetBilling::Flat => Decimal::ZERO,
        FleetBilling::Transfer { .. } => Decimal::new(1, 2),
        FleetBilling::Percentile95 { .. } => Decimal::new(80, 2),
    }
}

fn currencies(customers: &[(CustomerId, Currency, i64)]) -> Vec<Currency> {
    let mut currencies: Vec<Currency> = customers.iter().map(|(_, currency, _)| *currency).collect();
    currencies.sort_unstable();
    currencies.dedup();
    currencies
}

/// The customer with the most billing models, then the most services: their pages show the most.
fn showcase(fleet: &Fleet) -> usize {
    let score = |customer: usize| {
        let services = fleet.services.iter().filter(|service| service.customer == customer);
        let mut models = [false; 3];
        let mut count = 0;
        for service in services {
            count += 1;
            match fleet.plan_of(service).billing {
                FleetBilling::Flat => models[0] = true,
                FleetBilling::Transfer { .. } => models[1] = true,
                FleetBilling::Percentile95 { .. } => models[2] = true,
            }
        }
        (models.iter().filter(|has| **has).count(), count)
    };
    (0..fleet.customers.len())
        .max_by_key(|customer| score(*customer))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use schemas::window::{DAY_MS, HOUR_MS, WindowStart};

    use super::super::MIN_DAYS;
    use super::*;

    #[test]
    fn a_billing_month_lies_inside_the_history_at_every_hour_of_the_year() {
        let days_ago = ANCHOR_DAYS_AGO.into_iter().max().unwrap();
        // 2026-01-01T00:55:00Z, and every hour from then on: the last minutes of local days where clocks changed are the worst.
        let first_ms = 1_767_228_900_000;
        for name in [
            "America/New_York",
            "America/Los_Angeles",
            "Europe/Madrid",
            "Asia/Kolkata",
            "Australia/Sydney",
        ] {
            let zone = TimeZone::get(name).unwrap();
            for hour in 0..366 * 24 {
                let now_ms = first_ms + hour * HOUR_MS;
                let history_ms = WindowStart::containing(now_ms).start_ms() - MIN_DAYS * DAY_MS;
                let now = Timestamp::from_millisecond(now_ms).unwrap();
                let (_, started_at_ms) = billing_month(now, &zone, days_ago).unwrap();
                assert!(started_at_ms >= history_ms, "{name} at {now}");
            }
        }
    }
}
