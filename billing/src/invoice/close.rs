//! Drafting and finalising.
//!
//! Usage is read before the write transaction starts, so that no lock is held while flows are scanned. Inside it, the
//! first statement takes the invoice sequence's row lock: closers take turns from there on, and each looks again whether
//! the periods of its draft are still uncharged.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, SubscriptionId};
use schemas::inventory::{self, Customer};
use schemas::money::Money;
use schemas::window::DAY_MS;
use sqlx::{AnyConnection, Row as _};

use super::read::lines_of_period;
use super::{Draft, Invoice, InvoiceStatus, InvoiceWithLines, PAYMENT_TERM_DAYS};
use crate::evidence::{Evidence, Measured};
use crate::ledger::{self, Account, NewTransaction, Posting};
use crate::rating::{self, DraftLine, LineKind};
use crate::ratio::Ratio;
use crate::subscription::{self, ChargedPeriod, Contract};
use crate::{BillingError, UsageSource};

/// How often a closer that lost a race looks again for what is left.
const MAX_CLOSE_ATTEMPTS: usize = 5;

/// A period that cannot be charged yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OpenPeriod {
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    /// Windows are closed up to here.
    pub measured_to_ms: i64,
}

/// What closing did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Closing {
    /// Finalised by this call, oldest period first.
    pub invoices: Vec<InvoiceWithLines>,
    /// Over, but with windows that late flows may still change: refused until they are closed.
    pub refused: Vec<OpenPeriod>,
}

/// A draft with what finalising needs beside it.
struct Prepared {
    draft: Draft,
    charged: Vec<(SubscriptionId, ChargedPeriod)>,
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
    let prepared = prepare(database, usage, customer, now_ms, Current::Included).await?;
    Ok(prepared.into_iter().map(|prepared| prepared.draft).collect())
}

/// Finalises what is due: one invoice per customer and end of period. Closing again finds nothing to do (B3).
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
    let mut closing = Closing::default();
    for _ in 0..MAX_CLOSE_ATTEMPTS {
        closing.refused.clear();
        let mut lost_a_race = false;
        for prepared in prepare(database, usage, customer, now_ms, Current::Excluded).await? {
            if !prepared.draft.complete {
                closing.refused.push(OpenPeriod {
                    period_start_ms: prepared.draft.period_start_ms,
                    period_end_ms: prepared.draft.period_end_ms,
                    measured_to_ms: prepared.draft.measured_to_ms,
                });
                continue;
            }
            match finalise(database, &prepared, now_ms).await? {
                Some(invoice) => closing.invoices.push(super::get(database, invoice).await?),
                None => lost_a_race = true,
            }
        }
        if !lost_a_race {
            break;
        }
    }
    Ok(closing)
}

/// Whether periods that are not over take part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Current {
    Included,
    Excluded,
}

async fn prepare<U: UsageSource>(
    database: &Database,
    usage: &U,
    customer: CustomerId,
    now_ms: i64,
    current: Current,
) -> Result<Vec<Prepared>, BillingError> {
    let mut connection = database.pool().acquire().await?;
    let customer = inventory::customer(&mut *connection, customer).await?;
    let contracts = subscription::contracts_of(&mut connection, customer.id).await?;
    let billed = billed_periods(&mut connection, customer.id).await?;
    drop(connection);

    let mut by_end: BTreeMap<i64, Vec<(&Contract, ChargedPeriod)>> = BTreeMap::new();
    for contract in &contracts {
        let mut due = contract.ended_periods(now_ms)?;
        if current == Current::Included && now_ms >= contract.subscription.started_at_ms {
            due.push(contract.period_at(now_ms)?);
        }
        for charged in due {
            if !billed.contains(&(contract.subscription.id, charged.period.start_ms)) {
                by_end
                    .entry(charged.period.end_ms)
                    .or_default()
                    .push((contract, charged));
            }
        }
    }

    let mut prepared = Vec::with_capacity(by_end.len());
    // Late data is looked for once per subscription: on the first invoice after the charged period.
    let mut adjusted = HashSet::new();
    for group in by_end.into_values() {
        let mut lines = Vec::new();
        let mut measured_to_ms = i64::MAX;
        for (contract, charged) in &group {
            let (rated, measured) = rate(usage, contract, charged, now_ms).await?;
            measured_to_ms = measured_to_ms.min(measured);
            lines.extend(rated);
            if adjusted.insert(contract.subscription.id) {
                lines.extend(adjustment(database, usage, contract, now_ms).await?);
            }
        }
        let charged = group
            .iter()
            .map(|(contract, charged)| (contract.subscription.id, *charged));
        let charged: Vec<_> = charged.collect();
        let draft = total_up(&customer, &charged, lines, measured_to_ms, now_ms)?;
        prepared.push(Prepared { draft, charged });
    }
    Ok(prepared)
}

/// The lines of one period, and up to when its usage is known.
async fn rate<U: UsageSource>(
    usage: &U,
    contract: &Contract,
    charged: &ChargedPeriod,
    now_ms: i64,
) -> Result<(Vec<DraftLine>, i64), BillingError> {
    let period = &charged.period;
    let Some(mode) = contract.plan.terms.mode() else {
        // Nothing to measure: the period is known as soon as it is over.
        return Ok((rating::lines(contract, charged, None)?, now_ms.min(period.end_ms)));
    };
    let used = usage
        .period_usage(&contract.service, period.start_ms, period.end_ms, mode, now_ms)
        .await?;
    let lines = rating::lines(contract, charged, Some(&used))?;
    Ok((lines, used.measured_to_ms.min(period.end_ms)))
}

/// The line that corrects the last charged period of a subscription, when its usage is not what was charged.
async fn adjustment<U: UsageSource>(
    database: &Database,
    usage: &U,
    contract: &Contract,
    now_ms: i64,
) -> Result<Option<DraftLine>, BillingError> {
    let Some(mode) = contract.plan.terms.mode() else {
        return Ok(None);
    };
    let mut connection = database.pool().acquire().await?;
    let last = sqlx::query(
        "SELECT period_start_ms, period_end_ms FROM billed_periods WHERE subscription_id = $1 \
         ORDER BY period_start_ms DESC LIMIT 1",
    )
    .bind(contract.subscription.id.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(last) = last else { return Ok(None) };
    let (from_ms, to_ms): (i64, i64) = (last.try_get(0)?, last.try_get(1)?);
    let lines = lines_of_period(&mut *connection, contract.subscription.id, from_ms).await?;
    drop(connection);

    let original = lines.iter().find_map(|line| match &line.evidence {
        Evidence::Usage { charge, measured } => Some((line, charge, measured)),
        _ => None,
    });
    let Some((line, charge, charged)) = original else {
        return Ok(None);
    };
    let used = usage
        .period_usage(&contract.service, from_ms, to_ms, mode, now_ms)
        .await?;
    let measured = Measured::new(&used, charged.mode);
    let due = rating::rate_usage(charge, &measured, line.amount.currency)?;
    let mut charged_so_far = Money::zero(line.amount.currency);
    for line in lines.iter().filter(|line| line.kind.is_usage()) {
        charged_so_far = charged_so_far.checked_add(line.amount)?;
    }
    let difference = due.amount.checked_add(charged_so_far.checked_neg()?)?;
    if difference.minor == 0 {
        return Ok(None);
    }
    let number = sqlx::query("SELECT number FROM invoices WHERE id = $1")
        .bind(line.invoice.0)
        .fetch_one(database.pool())
        .await?
        .try_get::<String, _>(0)?;
    Ok(Some(DraftLine {
        subscription: contract.subscription.id,
        service: contract.service.id,
        kind: LineKind::Adjustment,
        description: format!(
            "{}: correction of {number} after late data: {}",
            contract.service.name,
            rating::describe(charge, &measured)?
        ),
        quantity: Decimal::ONE,
        unit: "correction".to_owned(),
        unit_price: difference.to_major(),
        amount: difference,
        period_start_ms: from_ms,
        period_end_ms: to_ms,
        evidence: Evidence::Adjustment {
            corrects_invoice: line.invoice,
            corrects_number: number,
            corrects_line: line.id,
            charged: charged.clone(),
            charged_minor: charged_so_far.minor,
            due_minor: due.amount.minor,
            charge: charge.clone(),
            measured,
        },
    }))
}

fn total_up(
    customer: &Customer,
    charged: &[(SubscriptionId, ChargedPeriod)],
    lines: Vec<DraftLine>,
    measured_to_ms: i64,
    now_ms: i64,
) -> Result<Draft, BillingError> {
    let mut subtotal = Money::zero(customer.currency);
    for line in &lines {
        subtotal = subtotal.checked_add(line.amount)?;
    }
    let tax = Ratio::decimal(subtotal.to_major())?
        .times(Ratio::decimal(customer.tax_rate.value())?)?
        .over(100)?
        .to_money(customer.currency)?;
    let starts = charged.iter().map(|(_, charged)| charged.period.start_ms);
    let ends = charged.iter().map(|(_, charged)| charged.period.end_ms);
    let period_end_ms = ends.max().unwrap_or(now_ms);
    Ok(Draft {
        customer: customer.id,
        customer_name: customer.name.clone(),
        currency: customer.currency,
        time_zone: customer.time_zone_name().to_owned(),
        period_start_ms: starts.min().unwrap_or(now_ms),
        period_end_ms,
        measured_to_ms,
        complete: period_end_ms <= now_ms && measured_to_ms >= period_end_ms,
        lines,
        subtotal,
        tax_rate: customer.tax_rate,
        tax,
        total: subtotal.checked_add(tax)?,
    })
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

async fn billed_periods(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> Result<HashSet<(SubscriptionId, i64)>, BillingError> {
    let rows = sqlx::query(
        "SELECT b.subscription_id, b.period_start_ms FROM billed_periods b \
         JOIN subscriptions s ON s.id = b.subscription_id WHERE s.customer_id = $1",
    )
    .bind(customer.0)
    .fetch_all(connection)
    .await?;
    let mut billed = HashSet::with_capacity(rows.len());
    for row in &rows {
        billed.insert((SubscriptionId(row.try_get(0)?), row.try_get(1)?));
    }
    Ok(billed)
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
        invoice: Some(invoice.id),
        description: format!("invoice {}", invoice.number),
        posted_at_ms: invoice.finalised_at_ms,
        postings,
    })
}
