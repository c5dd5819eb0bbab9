//! Drafting: which periods are due, what they used, what they cost.
//!
//! Everything that usage is needed for, charged periods that late data may have changed too, is asked in one batch, for
//! any number of customers: a month of all customers costs one scan.

use std::collections::{BTreeMap, HashMap, HashSet};

use analytics::{PeriodUsage, UsageMode};
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, SubscriptionId};
use schemas::inventory::{self, AttributionChange, Customer};
use schemas::money::Money;
use sqlx::{AnyConnection, Row as _};

use super::read::lines_of_period;
use super::{Draft, InvoiceLine, OpenReason};
use crate::BillingError;
use crate::evidence::{Evidence, Measured, UsageCharge};
use crate::rating::{self, DraftLine, LineKind};
use crate::ratio::Ratio;
use crate::subscription::{self, ChargedPeriod, Contract};
use crate::usage::{UsageQuery, UsageSource};

/// A draft with what finalising needs beside it.
pub(super) struct Prepared {
    pub(super) draft: Draft,
    pub(super) charged: Vec<(SubscriptionId, ChargedPeriod)>,
}

/// Drafts, and the customers who could not be drafted: one who cannot does not keep the others from their invoices.
pub(super) struct Preparation {
    pub(super) drafts: Vec<Prepared>,
    pub(super) failed: Vec<(CustomerId, BillingError)>,
}

/// Whether periods that are not over take part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Current {
    Included,
    Excluded,
}

/// A customer with what is due.
struct Account {
    customer: Customer,
    contracts: Vec<Contract>,
    /// Periods that are not charged yet, by position of the contract.
    due: Vec<(usize, ChargedPeriod)>,
    /// The last charged period of each contract that has something due.
    charged: Vec<(usize, ChargedBefore)>,
}

/// A period that was charged by measured usage, with everything that was charged for it.
struct ChargedBefore {
    from_ms: i64,
    to_ms: i64,
    original: InvoiceLine,
    charge: UsageCharge,
    measured: Measured,
    charged_so_far: Money,
    number: String,
}

/// Names a measured period: subscription and start.
type PeriodKey = (SubscriptionId, i64);

/// Drafts what is due for each of the customers, in their order, oldest end first.
///
/// # Errors
/// When usage cannot be measured at all.
pub(super) async fn prepare<U: UsageSource>(
    database: &Database,
    usage: &U,
    customers: &[CustomerId],
    now_ms: i64,
    current: Current,
) -> Result<Preparation, BillingError> {
    let mut failed = Vec::new();
    let mut accounts = Vec::with_capacity(customers.len());
    let mut connection = database.pool().acquire().await?;
    for &id in customers {
        match load(&mut connection, id, now_ms, current).await {
            Ok(account) => accounts.push(account),
            Err(error) => failed.push((id, error)),
        }
    }
    let pending = inventory::pending_attribution_changes(&mut *connection).await?;
    drop(connection);

    let mut keys: Vec<PeriodKey> = Vec::new();
    let mut queries = Vec::new();
    for account in &accounts {
        let mut ask = |contract: &usize, from_ms, to_ms, mode: UsageMode| {
            let contract = &account.contracts[*contract];
            keys.push((contract.subscription.id, from_ms));
            queries.push(UsageQuery {
                service: contract.service.clone(),
                from_ms,
                to_ms,
                mode,
            });
        };
        for (contract, charged) in &account.due {
            if let Some(mode) = account.contracts[*contract].plan.terms.mode() {
                ask(contract, charged.period.start_ms, charged.period.end_ms, mode);
            }
        }
        for (contract, before) in &account.charged {
            ask(contract, before.from_ms, before.to_ms, before.measured.mode);
        }
    }
    if current == Current::Excluded && !queries.is_empty() {
        usage.settle().await?;
    }
    let answers = usage.period_usage(&queries, now_ms).await?;
    let used: HashMap<PeriodKey, PeriodUsage> = keys.into_iter().zip(answers).collect();

    let mut drafts = Vec::new();
    for account in &accounts {
        match draft(account, &used, &pending, now_ms) {
            Ok(prepared) => drafts.extend(prepared),
            Err(error) => failed.push((account.customer.id, error)),
        }
    }
    Ok(Preparation { drafts, failed })
}

async fn load(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
    current: Current,
) -> Result<Account, BillingError> {
    let customer = inventory::customer(&mut *connection, customer).await?;
    let contracts = subscription::contracts_of(&mut *connection, customer.id).await?;
    let billed = billed_periods(&mut *connection, customer.id).await?;
    let mut due = Vec::new();
    let mut charged = Vec::new();
    for (position, contract) in contracts.iter().enumerate() {
        let mut periods = contract.ended_periods(now_ms)?;
        if current == Current::Included && now_ms >= contract.subscription.started_at_ms {
            periods.push(contract.period_at(now_ms)?);
        }
        periods.retain(|charged| !billed.contains(&(contract.subscription.id, charged.period.start_ms)));
        if !periods.is_empty()
            && let Some(before) = charged_before(&mut *connection, contract.subscription.id).await?
        {
            charged.push((position, before));
        }
        due.extend(periods.into_iter().map(|charged| (position, charged)));
    }
    Ok(Account {
        customer,
        contracts,
        due,
        charged,
    })
}

/// The last charged period of a subscription, unless no usage was charged in it.
async fn charged_before(
    connection: &mut AnyConnection,
    subscription: SubscriptionId,
) -> Result<Option<ChargedBefore>, BillingError> {
    let last = sqlx::query(
        "SELECT b.period_start_ms, b.period_end_ms, i.number FROM billed_periods b JOIN invoices i ON i.id = b.invoice_id \
         WHERE b.subscription_id = $1 ORDER BY b.period_start_ms DESC LIMIT 1",
    )
    .bind(subscription.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(last) = last else { return Ok(None) };
    let from_ms = last.try_get(0)?;
    let lines = lines_of_period(connection, subscription, from_ms).await?;
    let mut original = None;
    let mut charged_so_far = None;
    for line in lines.into_iter().filter(|line| line.kind.is_usage()) {
        let before = charged_so_far.unwrap_or(Money::zero(line.amount.currency));
        charged_so_far = Some(line.amount.checked_add(before)?);
        if let Evidence::Usage { charge, measured } = &line.evidence {
            original = Some((charge.clone(), measured.clone(), line));
        }
    }
    let (Some((charge, measured, original)), Some(charged_so_far)) = (original, charged_so_far) else {
        return Ok(None);
    };
    Ok(Some(ChargedBefore {
        from_ms,
        to_ms: last.try_get(1)?,
        number: last.try_get(2)?,
        original,
        charge,
        measured,
        charged_so_far,
    }))
}

/// The drafts of one customer: one for each end of a period.
fn draft(
    account: &Account,
    used: &HashMap<PeriodKey, PeriodUsage>,
    pending: &[AttributionChange],
    now_ms: i64,
) -> Result<Vec<Prepared>, BillingError> {
    let mut by_end: BTreeMap<i64, Vec<(usize, ChargedPeriod)>> = BTreeMap::new();
    for (position, charged) in &account.due {
        by_end
            .entry(charged.period.end_ms)
            .or_default()
            .push((*position, *charged));
    }
    let mut prepared = Vec::with_capacity(by_end.len());
    // A correction goes on the first invoice after the charged period.
    let mut corrected = HashSet::new();
    for (end_ms, group) in by_end {
        let mut lines = Vec::new();
        let mut charged = Vec::with_capacity(group.len());
        let mut measured_to_ms = now_ms.min(end_ms);
        // Start of the earliest usage that this invoice depends on, corrected periods included.
        let mut usage_from_ms = None;
        for (position, period) in group {
            let contract = &account.contracts[position];
            let subscription = contract.subscription.id;
            let usage = used.get(&(subscription, period.period.start_ms));
            if let Some(usage) = usage {
                measured_to_ms = measured_to_ms.min(usage.measured_to_ms);
                usage_from_ms = earlier(usage_from_ms, usage.from_ms);
            }
            lines.extend(rating::lines(contract, &period, usage)?);
            if corrected.insert(subscription) {
                for (_, before) in account.charged.iter().filter(|(of, _)| *of == position) {
                    if let Some(usage) = used.get(&(subscription, before.from_ms)) {
                        usage_from_ms = earlier(usage_from_ms, usage.from_ms);
                        lines.extend(correction(contract, before, usage)?);
                    }
                }
            }
            charged.push((subscription, period));
        }
        let mut draft = total_up(&account.customer, &charged, lines, measured_to_ms)?;
        draft.open = open_reason(&draft, usage_from_ms, pending, now_ms);
        prepared.push(Prepared { draft, charged });
    }
    Ok(prepared)
}

/// The line that corrects a charged period whose usage is not what was charged any more (B3). Usage that changed without
/// changing the amount needs no line.
fn correction(
    contract: &Contract,
    before: &ChargedBefore,
    usage: &PeriodUsage,
) -> Result<Option<DraftLine>, BillingError> {
    let currency = before.charged_so_far.currency;
    let measured = Measured::new(usage, before.measured.mode);
    let due = rating::rate_usage(&before.charge, &measured, currency)?.amount;
    let difference = due.checked_add(before.charged_so_far.checked_neg()?)?;
    if difference.minor == 0 {
        return Ok(None);
    }
    Ok(Some(DraftLine {
        subscription: contract.subscription.id,
        service: contract.service.id,
        kind: LineKind::Adjustment,
        description: format!(
            "{}: correction of {} after late data: {}",
            contract.service.name,
            before.number,
            rating::describe(&before.charge, &measured)?
        ),
        quantity: Decimal::ONE,
        unit: "correction".to_owned(),
        unit_price: difference.to_major(),
        amount: difference,
        period_start_ms: before.from_ms,
        period_end_ms: before.to_ms,
        evidence: Evidence::Adjustment {
            corrects_invoice: before.original.invoice,
            corrects_number: before.number.clone(),
            corrects_line: before.original.id,
            charged: before.measured.clone(),
            charged_minor: before.charged_so_far.minor,
            due_minor: due.minor,
            charge: before.charge.clone(),
            measured,
        },
    }))
}

fn total_up(
    customer: &Customer,
    charged: &[(SubscriptionId, ChargedPeriod)],
    lines: Vec<DraftLine>,
    measured_to_ms: i64,
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
    Ok(Draft {
        customer: customer.id,
        customer_name: customer.name.clone(),
        currency: customer.currency,
        time_zone: customer.time_zone_name().to_owned(),
        period_start_ms: starts.min().unwrap_or(measured_to_ms),
        period_end_ms: ends.max().unwrap_or(measured_to_ms),
        measured_to_ms,
        open: None,
        lines,
        subtotal,
        tax_rate: customer.tax_rate,
        tax,
        total: subtotal.checked_add(tax)?,
    })
}

fn earlier(known_ms: Option<i64>, at_ms: i64) -> Option<i64> {
    Some(known_ms.map_or(at_ms, |known_ms| known_ms.min(at_ms)))
}

/// Why a draft cannot be finalised yet. A change of assignments holds it when it touches usage from `usage_from_ms` on;
/// without usage nothing does.
fn open_reason(
    draft: &Draft,
    usage_from_ms: Option<i64>,
    pending: &[AttributionChange],
    now_ms: i64,
) -> Option<OpenReason> {
    if now_ms < draft.period_end_ms {
        return Some(OpenReason::NotOver);
    }
    if draft.measured_to_ms < draft.period_end_ms {
        return Some(OpenReason::WindowsOpen);
    }
    let usage_from_ms = usage_from_ms?;
    let touches = |change: &AttributionChange| {
        change.from_ms < draft.period_end_ms && change.to_ms.is_none_or(|to_ms| to_ms > usage_from_ms)
    };
    pending.iter().any(touches).then_some(OpenReason::AttributionPending)
}

/// The periods of a customer's subscriptions that are on an invoice.
pub(super) async fn billed_periods(
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
