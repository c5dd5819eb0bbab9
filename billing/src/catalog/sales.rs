//! What of a plan is sold: services, revenue of a month by currency, who is on which version of its prices, and what runs
//! beside it.
//!
//! Counted are subscriptions that have not ended, each by the terms that it has last. Revenue of a month is base prices alone:
//! before discounts, usage and tax, rounded once for each version of a price.

use std::collections::BTreeMap;

use schemas::ids::{PlanId, PriceId};
use schemas::money::{Currency, Money};
use sqlx::{AnyConnection, Row as _};

use crate::BillingError;
use crate::ratio::Ratio;

/// What is sold at one version of a price.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct VersionSales {
    pub price: PriceId,
    pub customers: i64,
    pub subscriptions: i64,
    /// Units: a subscription of three counts three.
    pub quantity: i64,
    /// Base prices of a month.
    pub monthly: Money,
}

/// What is sold of an add-on beside subscriptions to the plan.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct AddonSales {
    pub plan: PlanId,
    pub name: String,
    pub subscriptions: i64,
    pub quantity: i64,
}

/// What is sold of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct PlanSales {
    pub customers: i64,
    pub services: i64,
    pub subscriptions: i64,
    /// Base prices of a month, by currency.
    pub monthly: Vec<Money>,
    /// Versions that somebody is on.
    pub versions: Vec<VersionSales>,
    /// Add-ons for services of this kind, those that nobody has too.
    pub addons: Vec<AddonSales>,
}

impl PlanSales {
    /// What is sold at one version; `None` where nobody is on it.
    pub fn version(&self, price: PriceId) -> Option<&VersionSales> {
        self.versions.iter().find(|version| version.price == price)
    }
}

/// The last terms of subscriptions that have not ended.
const RUNNING: &str = "FROM subscriptions s JOIN phases p ON p.subscription_id = s.id \
     AND p.id = (SELECT max(q.id) FROM phases q WHERE q.subscription_id = s.id) WHERE s.status <> 'ended'";

/// What is sold of a plan now.
///
/// # Errors
/// As the database answers, or when a sum does not fit.
pub async fn sold(connection: &mut AnyConnection, plan: PlanId) -> Result<PlanSales, BillingError> {
    let sql = format!(
        "SELECT count(DISTINCT s.customer_id), count(DISTINCT s.service_id), count(*) {RUNNING} AND p.plan_id = $1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(plan.0)
        .fetch_one(&mut *connection)
        .await?;
    let mut sold = PlanSales {
        customers: row.try_get(0)?,
        services: row.try_get(1)?,
        subscriptions: row.try_get(2)?,
        ..PlanSales::default()
    };
    let sql = format!(
        "SELECT r.id, r.currency, r.base_minor, r.cycle_months, x.customers, x.subscriptions, x.quantity FROM prices r \
         JOIN (SELECT p.price_id, count(DISTINCT s.customer_id) AS customers, count(*) AS subscriptions, \
         CAST(sum(p.quantity) AS BIGINT) AS quantity {RUNNING} AND p.plan_id = $1 GROUP BY p.price_id) x ON x.price_id = r.id \
         ORDER BY r.id"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(plan.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut monthly: BTreeMap<String, Money> = BTreeMap::new();
    for row in &rows {
        let currency: Currency = row.try_get::<String, _>(1)?.parse()?;
        let base = Money::new(row.try_get(2)?, currency);
        let (months, quantity): (i64, i64) = (row.try_get(3)?, row.try_get(6)?);
        let of_month = Ratio::money(base)?
            .times(Ratio::integer(quantity.into()))?
            .over(months.into())?
            .to_money(currency)?;
        let sum = monthly.entry(currency.to_string()).or_insert(Money::zero(currency));
        *sum = sum.checked_add(of_month)?;
        sold.versions.push(VersionSales {
            price: PriceId(row.try_get(0)?),
            customers: row.try_get(4)?,
            subscriptions: row.try_get(5)?,
            quantity,
            monthly: of_month,
        });
    }
    sold.monthly = monthly.into_values().collect();
    sold.addons = addons(connection, plan).await?;
    Ok(sold)
}

async fn addons(connection: &mut AnyConnection, plan: PlanId) -> Result<Vec<AddonSales>, BillingError> {
    let sql = format!(
        "SELECT a.id, a.name, count(x.plan_id), CAST(coalesce(sum(x.quantity), 0) AS BIGINT) FROM plans a \
         LEFT JOIN (SELECT p.plan_id, p.quantity {RUNNING} AND s.parent_id IN (SELECT s.id {RUNNING} AND p.plan_id = $1)) x \
         ON x.plan_id = a.id WHERE a.kind = 'addon' AND a.service_type = (SELECT service_type FROM plans WHERE id = $1) \
         GROUP BY a.id, a.name, a.archived_at_ms HAVING a.archived_at_ms IS NULL OR count(x.plan_id) > 0 ORDER BY a.id"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(plan.0)
        .fetch_all(connection)
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push(AddonSales {
            plan: PlanId(row.try_get(0)?),
            name: row.try_get(1)?,
            subscriptions: row.try_get(2)?,
            quantity: row.try_get(3)?,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{NewPlan, NewPrice, PlanKind, Terms, add_price, create_plan};
    use crate::price::UsagePrice;
    use crate::subscription::{NewSubscription, subscribe};
    use crate::testing::{World, ms};

    #[tokio::test]
    async fn what_is_sold_counts_units_versions_and_what_runs_beside() {
        let world = World::new().await;
        let start = ms("2026-01-01T00:00:00Z");
        let (dollars, euros) = (
            world.customer("USD", "UTC", "0").await,
            world.customer("EUR", "UTC", "0").await,
        );
        let services = [
            world.service(dollars, "a").await,
            world.service(dollars, "b").await,
            world.service(euros, "c").await,
        ];
        let mut connection = world.database.begin_write().await.unwrap();
        let plan = create_plan(&mut connection, NewPlan::new("VPS", "vps", Terms::Flat), 0)
            .await
            .unwrap();
        let extra = NewPlan {
            kind: PlanKind::Addon,
            ..NewPlan::new("Address", "vps", Terms::Flat)
        };
        let extra = create_plan(&mut connection, extra, 0).await.unwrap();
        let mut priced = async |plan: PlanId, cycle_months: i64, minor: i64, currency: &str, valid_from_ms: i64| {
            let new = NewPrice {
                plan,
                cycle_months,
                base: Money::new(minor, currency.parse().unwrap()),
                usage: UsagePrice::FREE,
                valid_from_ms,
            };
            add_price(&mut connection, new).await.unwrap().id
        };
        let month = priced(plan.id, 1, 1000, "USD", 0).await;
        let year = priced(plan.id, 12, 10_000, "USD", 0).await;
        let euro = priced(plan.id, 1, 900, "EUR", 0).await;
        let unsold = priced(plan.id, 1, 1100, "USD", start + 1).await;
        let addon = priced(extra.id, 1, 100, "USD", 0).await;
        let mut parent = None;
        for (service, price, quantity) in [(0, month, 3), (1, year, 1), (2, euro, 1)] {
            let new = NewSubscription {
                quantity,
                ..NewSubscription::new(services[service].id, price, start)
            };
            let made = subscribe(&mut connection, new, "test", start).await.unwrap();
            parent = parent.or(Some(made.id));
        }
        let beside = NewSubscription {
            quantity: 2,
            parent,
            ..NewSubscription::new(services[0].id, addon, start)
        };
        subscribe(&mut connection, beside, "test", start).await.unwrap();

        let found = sold(&mut connection, plan.id).await.unwrap();
        assert_eq!((found.customers, found.services, found.subscriptions), (2, 3, 3));
        // 3 × 10.00 and a twelfth of 100.00; 9.00 in the other currency.
        let monthly: Vec<String> = found.monthly.iter().map(Money::to_string).collect();
        assert_eq!(monthly, ["EUR 9.00", "USD 38.33"]);
        let versions: Vec<(PriceId, i64, i64)> = found
            .versions
            .iter()
            .map(|version| (version.price, version.subscriptions, version.quantity))
            .collect();
        assert_eq!(versions, [(month, 1, 3), (year, 1, 1), (euro, 1, 1)]);
        assert_eq!(found.version(unsold), None);
        let addons: Vec<(i64, i64)> = found
            .addons
            .iter()
            .map(|one| (one.subscriptions, one.quantity))
            .collect();
        assert_eq!(addons, [(1, 2)]);
        let of_addon = sold(&mut connection, extra.id).await.unwrap();
        assert_eq!(of_addon.subscriptions, 1);
    }
}
