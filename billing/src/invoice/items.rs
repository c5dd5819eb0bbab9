//! What the next invoice charges or credits once: a set-up, a repair, a goodwill credit.

use std::collections::HashMap;

use rust_decimal::Decimal;
use schemas::db::next_id;
use schemas::ids::{ChargeItemId, CustomerId, InvoiceId, SubscriptionId};
use schemas::inventory;
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::BillingError;
use crate::catalog::MAX_BASE_MINOR;
use crate::evidence::Evidence;
use crate::field::{check_range, checked_text};
use crate::line_kind::LineKind;
use crate::rating::DraftLine;

/// Characters in the description of an item at most.
const MAX_DESCRIPTION_CHARS: usize = 300;

/// Something to be charged or credited once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargeItem {
    pub id: ChargeItemId,
    pub customer: CustomerId,
    pub subscription: Option<SubscriptionId>,
    pub description: String,
    /// As priced; negative for a credit.
    pub amount: Money,
    pub created_by: String,
    pub created_at_ms: i64,
}

/// Whether [`add_item`] takes it; answers the description as it is kept.
///
/// # Errors
/// As [`add_item`].
pub async fn check_item(
    connection: &mut AnyConnection,
    customer: CustomerId,
    description: &str,
    amount: Money,
) -> Result<String, BillingError> {
    let description = checked_text("description", description, MAX_DESCRIPTION_CHARS)?;
    let owner = inventory::active_customer(&mut *connection, customer).await?;
    if amount.currency != owner.currency {
        return Err(BillingError::CurrencyMismatch {
            customer,
            pays: owner.currency,
            price: amount.currency,
        });
    }
    check_range(
        "amount in minor units, without its sign,",
        amount.minor.saturating_abs(),
        1,
        MAX_BASE_MINOR,
    )?;
    Ok(description)
}

/// What items took off a customer's invoices, or will, of those that were added after an instant: not below zero.
///
/// # Errors
/// As the database answers.
pub(crate) async fn credited_since(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    currency: Currency,
    since_ms: i64,
) -> Result<Money, BillingError> {
    let sql = "SELECT CAST(COALESCE(sum(-amount_minor), 0) AS BIGINT) FROM charge_items \
               WHERE customer_id = $1 AND currency = $2 AND amount_minor < 0 AND created_at_ms > $3";
    let row = sqlx::query(sql)
        .bind(customer.0)
        .bind(currency.code())
        .bind(since_ms)
        .fetch_one(db)
        .await?;
    Ok(Money::new(row.try_get(0)?, currency))
}

/// Notes something for a customer's next invoice. What takes off an invoice is asked for first, as a grant of credit is
/// ([`crate::approval::wanted::credit_item`]).
///
/// # Errors
/// When there is no such customer, the amount is zero, out of range or in another currency, or the subscription is another
/// customer's.
pub async fn add_item(
    connection: &mut AnyConnection,
    customer: CustomerId,
    subscription: Option<SubscriptionId>,
    description: &str,
    amount: Money,
    actor: &str,
    now_ms: i64,
) -> Result<ChargeItem, BillingError> {
    let description = check_item(&mut *connection, customer, description, amount).await?;
    if let Some(id) = subscription {
        let subscription = crate::subscription::subscription(&mut *connection, id).await?;
        if subscription.customer != customer {
            return Err(BillingError::NoSubscription(id));
        }
    }
    let item = ChargeItem {
        id: ChargeItemId(next_id(connection, "charge_item").await?),
        customer,
        subscription,
        description,
        amount,
        created_by: actor.to_owned(),
        created_at_ms: now_ms,
    };
    sqlx::query(
        "INSERT INTO charge_items (id, customer_id, subscription_id, description, currency, amount_minor, created_by, \
         created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(item.id.0)
    .bind(customer.0)
    .bind(subscription.map(|subscription| subscription.0))
    .bind(&item.description)
    .bind(amount.currency.code())
    .bind(amount.minor)
    .bind(actor)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(item)
}

/// What waits for the next invoices of the customers with ids from `first` to `last`, by customer.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub(super) async fn open_items(
    db: impl AnyExecutor<'_>,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashMap<CustomerId, Vec<ChargeItem>>, BillingError> {
    let rows = sqlx::query(
        "SELECT id, customer_id, subscription_id, description, currency, amount_minor, created_by, created_at_ms \
         FROM charge_items WHERE customer_id BETWEEN $1 AND $2 AND invoice_id IS NULL ORDER BY id",
    )
    .bind(first.0)
    .bind(last.0)
    .fetch_all(db)
    .await?;
    let mut items: HashMap<CustomerId, Vec<ChargeItem>> = HashMap::new();
    for row in &rows {
        let item = read(row)?;
        items.entry(item.customer).or_default().push(item);
    }
    Ok(items)
}

/// What waits for a customer's next invoice.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn items_of(db: impl AnyExecutor<'_>, customer: CustomerId) -> Result<Vec<ChargeItem>, BillingError> {
    Ok(open_items(db, customer, customer)
        .await?
        .remove(&customer)
        .unwrap_or_default())
}

/// Marks an item as charged; false when another invoice charged it meanwhile.
///
/// # Errors
/// As the database answers.
pub(super) async fn take(
    connection: &mut AnyConnection,
    item: ChargeItemId,
    invoice: InvoiceId,
) -> Result<bool, BillingError> {
    let taken = sqlx::query("UPDATE charge_items SET invoice_id = $1 WHERE id = $2 AND invoice_id IS NULL")
        .bind(invoice.0)
        .bind(item.0)
        .execute(connection)
        .await?;
    Ok(taken.rows_affected() > 0)
}

impl ChargeItem {
    /// Its line on an invoice of what is due at `at_ms`.
    pub(super) fn line(&self, at_ms: i64) -> DraftLine {
        DraftLine {
            subscription: self.subscription,
            service: None,
            kind: LineKind::Item,
            description: self.description.clone(),
            quantity: Decimal::ONE,
            unit: "item".to_owned(),
            unit_price: self.amount.to_major(),
            priced: self.amount,
            amount: self.amount,
            tax_group: 0,
            period_start_ms: at_ms,
            period_end_ms: at_ms,
            evidence: Evidence::Item {
                item: self.id,
                created_by: self.created_by.clone(),
            },
        }
    }
}

fn read(row: &AnyRow) -> Result<ChargeItem, BillingError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    Ok(ChargeItem {
        id: ChargeItemId(row.try_get("id")?),
        customer: CustomerId(row.try_get("customer_id")?),
        subscription: row.try_get::<Option<i64>, _>("subscription_id")?.map(SubscriptionId),
        description: row.try_get("description")?,
        amount: Money::new(row.try_get("amount_minor")?, currency),
        created_by: row.try_get("created_by")?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}
