//! What people do to the catalog, each with its audit entry: the portal and the command line call the same.

use activity::audit::{self, Actor, Entry, Risk};
use schemas::ids::{CouponId, PlanId};
use schemas::window::{DAY_MS, instant_text};
use serde_json::json;
use sqlx::AnyConnection;

use super::{Coupon, Discount, NewCoupon, NewPlan, NewPrice, Plan, Price};
use crate::BillingError;
use crate::subscription::reprice::{Repriced, reprice};

async fn note(
    connection: &mut AnyConnection,
    by: Actor<'_>,
    (action, subject): (&str, &str),
    change: serde_json::Value,
    now_ms: i64,
) -> Result<(), BillingError> {
    let entry = Entry {
        actor: by,
        action,
        subject,
        change,
        risk: Risk::Normal,
    };
    audit::record(connection, entry, now_ms).await?;
    Ok(())
}

/// Makes a plan.
///
/// # Errors
/// As [`super::create_plan`]; when the audit log cannot be written.
pub async fn add_plan(
    connection: &mut AnyConnection,
    new: NewPlan<'_>,
    by: Actor<'_>,
    now_ms: i64,
) -> Result<Plan, BillingError> {
    let plan = super::create_plan(&mut *connection, new, now_ms).await?;
    let change = json!({"after": {"name": plan.name, "kind": plan.kind, "service_type": plan.service_type,
        "model": plan.terms.name(), "is_free": plan.is_free, "attributes": plan.attributes}});
    note(connection, by, ("plan.create", &plan.id.to_string()), change, now_ms).await?;
    Ok(plan)
}

/// Refuses a new version of a price that would hold from a day before today (UTC) on: what was ordered since was ordered
/// by the version before. The first price of a currency and cycle may hold from any day on, so that subscriptions that run
/// already can be brought in.
///
/// # Errors
/// [`BillingError::PriceInThePast`]; as the database answers.
pub async fn check_price_start(
    connection: &mut AnyConnection,
    new: &NewPrice,
    now_ms: i64,
) -> Result<(), BillingError> {
    if new.valid_from_ms >= today_ms(now_ms) {
        return Ok(());
    }
    let (currency, months) = (new.base.currency, new.cycle_months);
    let before = super::prices_of(&mut *connection, new.plan).await?;
    match before
        .iter()
        .any(|price| price.currency() == currency && price.cycle_months == months)
    {
        true => Err(BillingError::PriceInThePast {
            valid_from_ms: new.valid_from_ms,
        }),
        false => Ok(()),
    }
}

fn today_ms(now_ms: i64) -> i64 {
    now_ms - now_ms.rem_euclid(DAY_MS)
}

/// Adds a price, or a new version of one. Who pays the one before keeps it.
///
/// # Errors
/// When it is a new version that would hold from a day that has passed on; as [`super::add_price`]; when the audit log cannot be written.
pub async fn add_price(
    connection: &mut AnyConnection,
    new: NewPrice,
    by: Actor<'_>,
    now_ms: i64,
) -> Result<Price, BillingError> {
    let (price, change) = insert_price(&mut *connection, new, now_ms).await?;
    note(connection, by, ("price.add", &price.plan.to_string()), change, now_ms).await?;
    Ok(price)
}

/// Adds a new version of a price, which subscriptions to the one before change to at their renewal.
///
/// # Errors
/// As [`add_price`].
pub async fn add_price_moving(
    connection: &mut AnyConnection,
    new: NewPrice,
    by: Actor<'_>,
    now_ms: i64,
) -> Result<(Price, Repriced), BillingError> {
    let (price, mut change) = insert_price(&mut *connection, new, now_ms).await?;
    let repriced = reprice(&mut *connection, price.id, by.name, now_ms).await?;
    change["after"]["at_renewal"] = json!(repriced);
    note(connection, by, ("price.add", &price.plan.to_string()), change, now_ms).await?;
    Ok((price, repriced))
}

/// Adds a price, and says what that changes.
async fn insert_price(
    connection: &mut AnyConnection,
    new: NewPrice,
    now_ms: i64,
) -> Result<(Price, serde_json::Value), BillingError> {
    check_price_start(&mut *connection, &new, now_ms).await?;
    let (plan, currency, months) = (new.plan, new.base.currency, new.cycle_months);
    let before = super::price_at(&mut *connection, plan, currency, months, now_ms).await?;
    let price = super::add_price(&mut *connection, new).await?;
    let change = json!({
        "before": before.map(|price| json!({"price": price.id, "base": price.base.to_string(), "usage": price.usage})),
        "after": {"price": price.id, "cycle_months": months, "base": price.base.to_string(), "usage": price.usage,
            "valid_from": instant_text(price.valid_from_ms)},
    });
    Ok((price, change))
}

/// Sets how many more of a plan can be sold; `None`: any number.
///
/// # Errors
/// As [`super::set_stock`]; when the audit log cannot be written.
pub async fn change_stock(
    connection: &mut AnyConnection,
    id: PlanId,
    stock: Option<i64>,
    by: Actor<'_>,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = super::plan(&mut *connection, id).await?;
    super::set_stock(&mut *connection, id, stock).await?;
    let change = json!({"before": {"stock": before.stock}, "after": {"stock": stock}});
    note(connection, by, ("plan.stock", &id.to_string()), change, now_ms).await
}

/// Closes a plan to new subscriptions.
///
/// # Errors
/// As [`super::archive_plan`]; when the audit log cannot be written.
pub async fn archive_plan(
    connection: &mut AnyConnection,
    id: PlanId,
    by: Actor<'_>,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = super::plan(&mut *connection, id).await?;
    super::archive_plan(&mut *connection, id, now_ms).await?;
    let change = json!({"before": {"archived": before.archived_at_ms.is_some()}, "after": {"archived": true}});
    note(connection, by, ("plan.archive", &id.to_string()), change, now_ms).await
}

/// Makes a coupon.
///
/// # Errors
/// As [`super::create_coupon`]; when the audit log cannot be written.
pub async fn add_coupon(
    connection: &mut AnyConnection,
    new: NewCoupon<'_>,
    by: Actor<'_>,
    now_ms: i64,
) -> Result<Coupon, BillingError> {
    let coupon = super::create_coupon(&mut *connection, new, now_ms).await?;
    let off = match coupon.discount {
        Discount::Percent(percent) => percent.to_string(),
        Discount::Amount(amount) => amount.to_string(),
    };
    let change = json!({"after": {"code": coupon.code, "off": off, "months": coupon.months, "plan": coupon.plan,
        "max_redemptions": coupon.max_redemptions, "per_customer": coupon.per_customer}});
    note(
        connection,
        by,
        ("coupon.create", &coupon.id.to_string()),
        change,
        now_ms,
    )
    .await?;
    Ok(coupon)
}

/// Ends a coupon.
///
/// # Errors
/// As [`super::archive_coupon`]; when the audit log cannot be written.
pub async fn archive_coupon(
    connection: &mut AnyConnection,
    id: CouponId,
    by: Actor<'_>,
    now_ms: i64,
) -> Result<(), BillingError> {
    let before = super::coupon(&mut *connection, id).await?;
    super::archive_coupon(&mut *connection, id, now_ms).await?;
    let change = json!({"before": {"archived": before.archived_at_ms.is_some()}, "after": {"archived": true}});
    note(connection, by, ("coupon.archive", &id.to_string()), change, now_ms).await
}

#[cfg(test)]
mod tests {
    use schemas::db::Database;
    use schemas::money::{Currency, Money};
    use schemas::usage::UsageMode;

    use super::*;
    use crate::catalog::{QuotaUnit, Terms};
    use crate::price::UsagePrice;
    use activity::audit::AuditFilter;

    const BY: Actor<'_> = Actor {
        name: "command line",
        user: None,
        ip: "",
    };
    /// 2026-03-29T13:00:00Z.
    const NOW_MS: i64 = 1_774_789_200_000;
    const MIDNIGHT_MS: i64 = 1_774_742_400_000;

    #[tokio::test]
    async fn a_new_version_of_a_price_holds_from_today_on_and_everything_is_audited() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        let mut transaction = database.begin_write().await.unwrap();
        let terms = Terms::Transfer {
            included_units: 1,
            unit: QuotaUnit::Gib,
            mode: UsageMode::Sum,
        };
        let plan = add_plan(&mut transaction, NewPlan::new("VPS", "vps", terms), BY, NOW_MS)
            .await
            .unwrap();
        let version = |cycle_months: i64, valid_from_ms: i64| NewPrice {
            plan: plan.id,
            cycle_months,
            base: Money::new(1_000, Currency::USD),
            usage: UsagePrice::FREE,
            valid_from_ms,
        };
        // The first of a cycle may be an old one.
        for first in [version(1, 0), version(3, MIDNIGHT_MS - 1)] {
            add_price(&mut transaction, first, BY, NOW_MS).await.unwrap();
        }
        let refused = add_price(&mut transaction, version(1, MIDNIGHT_MS - 1), BY, NOW_MS).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "a new version of a price holds from today (UTC) or a later day on, not from 2026-03-28T23:59:59.999Z"
        );
        for from_ms in [MIDNIGHT_MS, NOW_MS + DAY_MS] {
            add_price(&mut transaction, version(1, from_ms), BY, NOW_MS)
                .await
                .unwrap();
        }
        change_stock(&mut transaction, plan.id, Some(7), BY, NOW_MS)
            .await
            .unwrap();
        let off = NewCoupon::new("TEN", Discount::Amount(Money::new(1_000, Currency::USD)));
        let coupon = add_coupon(&mut transaction, off, BY, NOW_MS).await.unwrap();
        archive_coupon(&mut transaction, coupon.id, BY, NOW_MS).await.unwrap();
        archive_plan(&mut transaction, plan.id, BY, NOW_MS).await.unwrap();
        transaction.commit().await.unwrap();

        let entries = audit::list(database.pool(), AuditFilter::default(), 50).await.unwrap();
        let actions: Vec<&str> = entries.iter().rev().map(|entry| entry.action.as_str()).collect();
        assert_eq!(
            actions,
            [
                "plan.create",
                "price.add",
                "price.add",
                "price.add",
                "price.add",
                "plan.stock",
                "coupon.create",
                "coupon.archive",
                "plan.archive"
            ]
        );
        assert!(entries.iter().all(|entry| entry.actor == "command line"));
        assert_eq!(entries[3].change["after"]["stock"], 7);
    }
}
