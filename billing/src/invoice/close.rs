//! Finalising.
//!
//! Usage is read before the write transaction starts, so that no lock is held while flows are scanned. Inside it, the
//! first statement takes the invoice sequence's row lock: closers take turns from there on, and each looks again whether
//! the periods of its draft are still uncharged.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, SubscriptionId};
use schemas::inventory;
use schemas::money::Money;
use schemas::window::DAY_MS;
use sqlx::AnyConnection;

use super::draft::{Current, Prepared, billed_periods, prepare};
use super::{Draft, Invoice, InvoiceStatus, InvoiceWithLines, OpenReason, PAYMENT_TERM_DAYS};
use crate::ledger::{self, Account, NewTransaction, Posting};
use crate::rating::DraftLine;
use crate::subscription::ChargedPeriod;
use crate::{BillingError, UsageSource};

/// How often a closer that lost a race looks again for what is left.
const MAX_CLOSE_ATTEMPTS: usize = 5;

/// A period that cannot be charged yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OpenPeriod {
    pub reason: OpenReason,
    pub customer: CustomerId,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    /// Windows are closed up to here.
    pub measured_to_ms: i64,
}

/// What closing did.
#[derive(Debug, Default)]
pub struct Closing {
    /// Finalised by this call, by customer, oldest period first.
    pub invoices: Vec<InvoiceWithLines>,
    /// Over, but with usage that may still change: refused until it cannot.
    pub refused: Vec<OpenPeriod>,
    /// Customers whose periods could not be closed, and why.
    pub failed: Vec<(CustomerId, BillingError)>,
}

/// What a customer's invoices would say now: one draft for periods that are over and not charged yet, for each end, and
/// one for each current period, oldest first.
///
/// # Errors
/// When the customer does not exist or usage cannot be measured.
pub async fn preview<U: UsageSource>(
    database: &Database,
    usage: &U,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Vec<Draft>, BillingError> {
    let mut preparation = prepare(database, usage, &[customer], now_ms, Current::Included).await?;
    match preparation.failed.pop() {
        Some((_, error)) => Err(error),
        None => Ok(preparation.drafts.into_iter().map(|prepared| prepared.draft).collect()),
    }
}

/// Finalises what is due for one customer: one invoice per end of period. Closing again finds nothing to do (B3).
///
/// # Errors
/// When the customer does not exist, usage cannot be measured, or an invariant does not hold; then nothing of the invoice
/// in question is written.
pub async fn close<U: UsageSource>(
    database: &Database,
    usage: &U,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Closing, BillingError> {
    let mut closing = close_each(database, usage, &[customer], now_ms).await?;
    match closing.failed.pop() {
        Some((_, error)) => Err(error),
        None => Ok(closing),
    }
}

/// Finalises what is due for every customer. One who fails is named and does not keep the others from their invoices.
///
/// # Errors
/// When the database or usage cannot be read at all.
pub async fn close_all<U: UsageSource>(database: &Database, usage: &U, now_ms: i64) -> Result<Closing, BillingError> {
    let customers = inventory::customers(database.pool()).await?;
    let ids: Vec<CustomerId> = customers.iter().map(|customer| customer.id).collect();
    close_each(database, usage, &ids, now_ms).await
}

async fn close_each<U: UsageSource>(
    database: &Database,
    usage: &U,
    customers: &[CustomerId],
    now_ms: i64,
) -> Result<Closing, BillingError> {
    let mut closing = Closing::default();
    let mut left = customers.to_vec();
    for _ in 0..MAX_CLOSE_ATTEMPTS {
        let preparation = prepare(database, usage, &left, now_ms, Current::Excluded).await?;
        closing.failed.extend(preparation.failed);
        left.clear();
        // Periods are charged in their order: behind one that waits or failed, the customer's later ones wait too.
        let mut held: HashSet<CustomerId> = HashSet::new();
        for prepared in preparation.drafts {
            let draft = &prepared.draft;
            if held.contains(&draft.customer) {
                continue;
            }
            if let Some(reason) = draft.open {
                closing.refused.push(OpenPeriod {
                    reason,
                    customer: draft.customer,
                    period_start_ms: draft.period_start_ms,
                    period_end_ms: draft.period_end_ms,
                    measured_to_ms: draft.measured_to_ms,
                });
                held.insert(draft.customer);
                continue;
            }
            match finalise(database, &prepared, now_ms).await {
                Ok(Some(invoice)) => closing.invoices.push(super::get(database, invoice).await?),
                // Another closer was first; something of this customer may be left.
                Ok(None) => {
                    left.push(draft.customer);
                    held.insert(draft.customer);
                }
                Err(error) => {
                    closing.failed.push((draft.customer, error));
                    held.insert(draft.customer);
                }
            }
        }
        if left.is_empty() {
            break;
        }
        closing.refused.retain(|open| !left.contains(&open.customer));
    }
    Ok(closing)
}

/// Writes a complete draft as an invoice; `None` when one of its periods has been charged meanwhile.
async fn finalise(database: &Database, prepared: &Prepared, now_ms: i64) -> Result<Option<InvoiceId>, BillingError> {
    let draft = &prepared.draft;
    let mut transaction = database.begin_write().await?;
    let id = InvoiceId(next_id(&mut transaction, "invoice").await?);
    let billed = billed_periods(&mut transaction, draft.customer).await?;
    let is_billed = |(subscription, charged): &(SubscriptionId, ChargedPeriod)| {
        billed.contains(&(*subscription, charged.period.start_ms))
    };
    if prepared.charged.iter().any(is_billed) {
        transaction.rollback().await?;
        return Ok(None);
    }
    let invoice = Invoice {
        id,
        number: next_number(&mut transaction, now_ms).await?,
        customer: draft.customer,
        customer_name: draft.customer_name.clone(),
        currency: draft.currency,
        period_start_ms: draft.period_start_ms,
        period_end_ms: draft.period_end_ms,
        time_zone: draft.time_zone.clone(),
        status: InvoiceStatus::Finalised,
        subtotal: draft.subtotal,
        tax_rate: draft.tax_rate,
        tax: draft.tax,
        total: draft.total,
        finalised_at_ms: now_ms,
        due_at_ms: now_ms + PAYMENT_TERM_DAYS * DAY_MS,
    };
    insert_invoice(&mut transaction, &invoice).await?;
    for (position, line) in (1i64..).zip(&draft.lines) {
        insert_line(&mut transaction, id, position, line).await?;
    }
    for (subscription, charged) in &prepared.charged {
        sqlx::query(
            "INSERT INTO billed_periods (subscription_id, period_start_ms, period_end_ms, invoice_id) VALUES ($1, $2, $3, $4)",
        )
        .bind(subscription.0)
        .bind(charged.period.start_ms)
        .bind(charged.period.end_ms)
        .bind(id.0)
        .execute(&mut *transaction)
        .await?;
    }
    ledger::post(&mut transaction, &postings(&invoice, &draft.lines)?).await?;
    transaction.commit().await?;
    tracing::info!(invoice = %invoice.number, customer = %invoice.customer, total = %invoice.total, "invoice finalised");
    Ok(Some(id))
}

/// The next number of the year (UTC): gapless, because it is taken in the transaction that writes the invoice.
async fn next_number(connection: &mut AnyConnection, now_ms: i64) -> Result<String, BillingError> {
    let now = Timestamp::from_millisecond(now_ms)
        .map_err(|error| BillingError::Period(error.into()))?
        .to_zoned(TimeZone::UTC);
    let year = now.year();
    let number = next_id(connection, &format!("invoice_number:{year}")).await?;
    Ok(format!("INV-{year}-{number:06}"))
}

async fn insert_invoice(connection: &mut AnyConnection, invoice: &Invoice) -> Result<(), BillingError> {
    sqlx::query(
        "INSERT INTO invoices (id, number, customer_id, customer_name, currency, period_start_ms, period_end_ms, time_zone, \
         status, subtotal_minor, tax_rate_percent, tax_minor, total_minor, finalised_at_ms, due_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(invoice.id.0)
    .bind(&invoice.number)
    .bind(invoice.customer.0)
    .bind(&invoice.customer_name)
    .bind(invoice.currency.code())
    .bind(invoice.period_start_ms)
    .bind(invoice.period_end_ms)
    .bind(&invoice.time_zone)
    .bind(invoice.status.name())
    .bind(invoice.subtotal.minor)
    .bind(invoice.tax_rate.value().to_string())
    .bind(invoice.tax.minor)
    .bind(invoice.total.minor)
    .bind(invoice.finalised_at_ms)
    .bind(invoice.due_at_ms)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_line(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    position: i64,
    line: &DraftLine,
) -> Result<(), BillingError> {
    let id = InvoiceLineId(next_id(connection, "invoice_line").await?);
    sqlx::query(
        "INSERT INTO invoice_lines (id, invoice_id, position, subscription_id, service_id, kind, description, quantity, unit, \
         unit_price, amount_minor, period_start_ms, period_end_ms, evidence) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(id.0)
    .bind(invoice.0)
    .bind(position)
    .bind(line.subscription.0)
    .bind(line.service.0)
    .bind(line.kind.name())
    .bind(&line.description)
    .bind(line.quantity.to_string())
    .bind(&line.unit)
    .bind(line.unit_price.to_string())
    .bind(line.amount.minor)
    .bind(line.period_start_ms)
    .bind(line.period_end_ms)
    .bind(serde_json::to_string(&line.evidence)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// The customer owes the total; base prices, overage and tax are where it comes from.
fn postings(invoice: &Invoice, lines: &[DraftLine]) -> Result<NewTransaction, BillingError> {
    let currency = invoice.currency;
    let mut base = Money::zero(currency);
    let mut overage = Money::zero(currency);
    for line in lines {
        let revenue = if line.kind.is_usage() { &mut overage } else { &mut base };
        *revenue = revenue.checked_add(line.amount)?;
    }
    let mut postings = vec![Posting {
        account: Account::receivable(invoice.customer, currency),
        amount: invoice.total,
    }];
    for (account, amount) in [
        (Account::revenue_base(currency), base),
        (Account::revenue_overage(currency), overage),
        (Account::tax(currency), invoice.tax),
    ] {
        if amount.minor != 0 {
            postings.push(Posting {
                account,
                amount: amount.checked_neg()?,
            });
        }
    }
    Ok(NewTransaction {
        idempotency_key: format!("invoice:{}", invoice.id),
        customer: Some(invoice.customer),
        invoice: Some(invoice.id),
        payment: None,
        refund: None,
        description: format!("invoice {}", invoice.number),
        posted_at_ms: invoice.finalised_at_ms,
        postings,
    })
}
