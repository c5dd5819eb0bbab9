//! Resellers: customers who sell on what they buy. What they are charged moves what all of theirs pay, so that other prices of theirs are
//! of high risk (F-60): the owner is told of the mark, of each deal with them, and of each version of a price that one of them pays.

use std::collections::BTreeSet;

use activity::act::Note;
use activity::audit::Risk;
use schemas::ids::CustomerId;
use schemas::inventory;
use serde_json::json;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;

/// Who is marked as a reseller.
///
/// # Errors
/// As the database answers.
pub async fn resellers(db: impl AnyExecutor<'_>) -> Result<BTreeSet<CustomerId>, BillingError> {
    let rows = sqlx::query("SELECT customer_id FROM resellers").fetch_all(db).await?;
    rows.iter().map(|row| Ok(CustomerId(row.try_get(0)?))).collect()
}

/// Marks a customer as a reseller, or as none; `None` where they are so already.
///
/// # Errors
/// When there is no such customer.
pub async fn mark(
    connection: &mut AnyConnection,
    customer: CustomerId,
    is_reseller: bool,
    now_ms: i64,
) -> Result<Option<Note>, BillingError> {
    inventory::customer(&mut *connection, customer).await?;
    let query = match is_reseller {
        true => "INSERT INTO resellers (customer_id, since_ms) VALUES ($1, $2) ON CONFLICT (customer_id) DO NOTHING",
        false => "DELETE FROM resellers WHERE customer_id = $1 AND since_ms <= $2",
    };
    let changed = sqlx::query(query)
        .bind(customer.0)
        .bind(now_ms)
        .execute(connection)
        .await?;
    if changed.rows_affected() == 0 {
        return Ok(None);
    }
    let change = json!({"before": {"reseller": !is_reseller}, "after": {"reseller": is_reseller}});
    Ok(Some(
        Note::new("customer.reseller", customer).change(change).risk(Risk::High),
    ))
}

/// Of which risk other prices for these customers are.
///
/// # Errors
/// As the database answers.
pub async fn risk_of(db: impl AnyExecutor<'_>, customers: &[CustomerId]) -> Result<Risk, BillingError> {
    let resellers = resellers(db).await?;
    Ok(match customers.iter().any(|customer| resellers.contains(customer)) {
        true => Risk::High,
        false => Risk::Normal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::NewPrice;
    use crate::catalog_act::{add_price, prices_note};
    use crate::testing::{DEAL, World, ms};

    #[tokio::test]
    async fn f60_the_owner_is_told_of_another_price_that_a_reseller_pays() {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let contract = world.subscribe(customer, DEAL).await;
        let price = &contract.phases[0].price;
        let now_ms = ms("2026-01-20T12:00:00Z");
        let mut transaction = world.database.begin_write().await.unwrap();
        let version = |minor, from_ms| NewPrice {
            plan: price.plan,
            cycle_months: price.cycle_months,
            base: schemas::money::Money::new(minor, price.base.currency),
            usage: price.usage.clone(),
            valid_from_ms: from_ms,
        };
        let (_, plain) = add_price(&mut transaction, version(4_200, now_ms), now_ms)
            .await
            .unwrap();
        assert_eq!(plain.risk, Risk::Normal);
        let marked = mark(&mut transaction, customer, true, now_ms).await.unwrap().unwrap();
        assert_eq!(marked.risk, Risk::High);
        assert_eq!(mark(&mut transaction, customer, true, now_ms).await.unwrap(), None);
        let (_, told) = add_price(&mut transaction, version(4_300, now_ms + 1), now_ms)
            .await
            .unwrap();
        assert_eq!(told.risk, Risk::High);
        // One of several is enough.
        assert_eq!(prices_note(price.plan, vec![plain, told]).risk, Risk::High);
        let unmarked = mark(&mut transaction, customer, false, now_ms).await.unwrap();
        assert!(unmarked.is_some());
        assert_eq!(risk_of(&mut *transaction, &[customer]).await.unwrap(), Risk::Normal);
    }
}
