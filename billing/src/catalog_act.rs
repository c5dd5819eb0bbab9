//! What people do to the catalog, each with what its entry in the audit log says: the portal and the command line call the same
//! and commit their act with it.

use activity::act::Note;
use activity::audit::Risk;
use schemas::ids::{CouponId, PlanId};
use schemas::window::{DAY_MS, instant_text};
use serde_json::json;
use sqlx::AnyConnection;

use crate::catalog::{self, Coupon, Discount, NewCoupon, NewPlan, NewPrice, Plan, Price};
use crate::subscription::reprice::{Repriced, paying, reprice};
use crate::{BillingError, reseller};

/// Makes a plan.
///
/// # Errors
/// As [`catalog::create_plan`].
pub async fn add_plan(
    connection: &mut AnyConnection,
    new: NewPlan<'_>,
    now_ms: i64,
) -> Result<(Plan, Note), BillingError> {
    let plan = catalog::create_plan(connection, new, now_ms).await?;
    let change = json!({"after": {"name": plan.name, "kind": plan.kind, "service_type": plan.service_type,
        "model": plan.terms.name(), "is_free": plan.is_free, "attributes": plan.attributes}});
    let note = Note::new("plan.create", plan.id).change(change);
    Ok((plan, note))
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
    let before = catalog::prices_of(&mut *connection, new.plan).await?;
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
/// When it is a new version that would hold from a day that has passed on; as [`catalog::add_price`].
pub async fn add_price(
    connection: &mut AnyConnection,
    new: NewPrice,
    now_ms: i64,
) -> Result<(Price, Note), BillingError> {
    let (price, note) = insert_price(connection, new, now_ms).await?;
    Ok((price, note))
}

/// Adds a new version of a price, which subscriptions to the one before change to at their renewal. `by` stands in their history.
///
/// # Errors
/// As [`add_price`].
pub async fn add_price_moving(
    connection: &mut AnyConnection,
    new: NewPrice,
    by: &str,
    now_ms: i64,
) -> Result<(Price, Repriced, Note), BillingError> {
    let (price, mut note) = insert_price(&mut *connection, new, now_ms).await?;
    let repriced = reprice(connection, price.id, by, now_ms).await?;
    note.change["after"]["at_renewal"] = json!(repriced);
    Ok((price, repriced, note))
}

/// Adds a price, and says what that changes.
async fn insert_price(
    connection: &mut AnyConnection,
    new: NewPrice,
    now_ms: i64,
) -> Result<(Price, Note), BillingError> {
    check_price_start(&mut *connection, &new, now_ms).await?;
    let (plan, currency, months) = (new.plan, new.base.currency, new.cycle_months);
    let before = catalog::price_at(&mut *connection, plan, currency, months, now_ms).await?;
    let price = catalog::add_price(&mut *connection, new).await?;
    let change = json!({
        "before": before.map(|price| json!({"price": price.id, "base": price.base.to_string(), "usage": price.usage})),
        "after": {"price": price.id, "cycle_months": months, "base": price.base.to_string(), "usage": price.usage,
            "valid_from": instant_text(price.valid_from_ms)},
    });
    let paying = paying(&mut *connection, plan, currency, months).await?;
    let risk = reseller::risk_of(connection, &paying).await?;
    let note = Note::new("price.add", price.plan).change(change).risk(risk);
    Ok((price, note))
}

/// Sets how many more of a plan can be sold; `None`: any number.
///
/// # Errors
/// As [`catalog::set_stock`].
pub async fn change_stock(
    connection: &mut AnyConnection,
    id: PlanId,
    stock: Option<i64>,
) -> Result<Note, BillingError> {
    let before = catalog::plan(&mut *connection, id).await?;
    catalog::set_stock(connection, id, stock).await?;
    let change = json!({"before": {"stock": before.stock}, "after": {"stock": stock}});
    Ok(Note::new("plan.stock", id).change(change))
}

/// Closes a plan to new subscriptions.
///
/// # Errors
/// As [`catalog::archive_plan`].
pub async fn archive_plan(connection: &mut AnyConnection, id: PlanId, now_ms: i64) -> Result<Note, BillingError> {
    let before = catalog::plan(&mut *connection, id).await?;
    catalog::archive_plan(connection, id, now_ms).await?;
    let change = json!({"before": {"archived": before.archived_at_ms.is_some()}, "after": {"archived": true}});
    Ok(Note::new("plan.archive", id).change(change))
}

/// Makes a coupon.
///
/// # Errors
/// As [`catalog::create_coupon`].
pub async fn add_coupon(
    connection: &mut AnyConnection,
    new: NewCoupon<'_>,
    now_ms: i64,
) -> Result<(Coupon, Note), BillingError> {
    let coupon = catalog::create_coupon(connection, new, now_ms).await?;
    let off = match coupon.discount {
        Discount::Percent(percent) => percent.to_string(),
        Discount::Amount(amount) => amount.to_string(),
    };
    let change = json!({"after": {"code": coupon.code, "off": off, "months": coupon.months, "plan": coupon.plan,
        "max_redemptions": coupon.max_redemptions, "per_customer": coupon.per_customer}});
    let note = Note::new("coupon.create", coupon.id).change(change);
    Ok((coupon, note))
}

/// Ends a coupon.
///
/// # Errors
/// As [`catalog::archive_coupon`].
pub async fn archive_coupon(connection: &mut AnyConnection, id: CouponId, now_ms: i64) -> Result<Note, BillingError> {
    let before = catalog::coupon(&mut *connection, id).await?;
    catalog::archive_coupon(connection, id, now_ms).await?;
    let change = json!({"before": {"archived": before.archived_at_ms.is_some()}, "after": {"archived": true}});
    Ok(Note::new("coupon.archive", id).change(change))
}

/// One entry for a new plan and its prices.
pub fn plan_note(plan: Note, prices: Vec<Note>) -> Note {
    let mut change = plan.change.clone();
    change["prices"] = prices.into_iter().map(|price| price.change).collect();
    plan.change(change)
}

/// One entry for several prices of a plan, each with its values before and after.
pub fn prices_note(plan: PlanId, prices: Vec<Note>) -> Note {
    let is_high = prices.iter().any(|price| price.risk == Risk::High);
    let mut changes: Vec<serde_json::Value> = prices.into_iter().map(|price| price.change).collect();
    let note = Note::new("price.add", plan).risk(if is_high { Risk::High } else { Risk::Normal });
    match changes.len() {
        1 => note.change(changes.remove(0)),
        _ => note.change(json!({ "prices": changes })),
    }
}

#[cfg(test)]
mod tests {
    use schemas::db::Database;
    use schemas::money::{Currency, Money};
    use schemas::usage::UsageMode;

    use super::*;
    use crate::catalog::{QuotaUnit, Terms};
    use crate::price::UsagePrice;

    /// 2026-03-29T13:00:00Z.
    const NOW_MS: i64 = 1_774_789_200_000;
    const MIDNIGHT_MS: i64 = 1_774_742_400_000;

    #[tokio::test]
    async fn a_new_version_of_a_price_holds_from_today_on_and_everything_says_what_it_did() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        let mut transaction = database.begin_write().await.unwrap();
        let terms = Terms::Transfer {
            included_units: 1,
            unit: QuotaUnit::Gib,
            mode: UsageMode::Sum,
        };
        let (plan, made) = add_plan(&mut transaction, NewPlan::new("VPS", "vps", terms), NOW_MS)
            .await
            .unwrap();
        let version = |cycle_months: i64, valid_from_ms: i64| NewPrice {
            plan: plan.id,
            cycle_months,
            base: Money::new(1_000, Currency::USD),
            usage: UsagePrice::FREE,
            valid_from_ms,
        };
        let mut notes = vec![made];
        // The first of a cycle may be an old one.
        for first in [version(1, 0), version(3, MIDNIGHT_MS - 1)] {
            notes.push(add_price(&mut transaction, first, NOW_MS).await.unwrap().1);
        }
        let refused = add_price(&mut transaction, version(1, MIDNIGHT_MS - 1), NOW_MS).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "a new version of a price holds from today (UTC) or a later day on, not from 2026-03-28T23:59:59.999Z"
        );
        for from_ms in [MIDNIGHT_MS, NOW_MS + DAY_MS] {
            notes.push(
                add_price(&mut transaction, version(1, from_ms), NOW_MS)
                    .await
                    .unwrap()
                    .1,
            );
        }
        let both = prices_note(plan.id, notes[1..3].to_vec());
        assert_eq!(both.change["prices"][1]["after"]["cycle_months"], 3);
        assert_eq!(prices_note(plan.id, notes[1..2].to_vec()), notes[1]);
        notes.push(change_stock(&mut transaction, plan.id, Some(7)).await.unwrap());
        let off = NewCoupon::new("TEN", Discount::Amount(Money::new(1_000, Currency::USD)));
        let (coupon, made) = add_coupon(&mut transaction, off, NOW_MS).await.unwrap();
        notes.push(made);
        notes.push(archive_coupon(&mut transaction, coupon.id, NOW_MS).await.unwrap());
        notes.push(archive_plan(&mut transaction, plan.id, NOW_MS).await.unwrap());
        let actions: Vec<&str> = notes.iter().map(|note| note.action.as_str()).collect();
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
        assert_eq!(notes[5].change["after"]["stock"], 7);
    }
}
