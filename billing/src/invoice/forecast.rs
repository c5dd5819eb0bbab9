//! What would be charged: after something that is only tried, or at an instant that lies ahead.
//!
//! Whoever wants to know what a change costs makes it in a transaction, asks for the prospect there, and rolls back. The
//! amounts are exact, since the change and its drafts are made by what makes them in earnest:
//!
//! ```text
//! begin ─▶ change ─▶ prospect (reads what is due) ─▶ roll back ─▶ drafts (asks for usage, holds no lock)
//! ```

use std::collections::BTreeMap;

use schemas::ids::CustomerId;
use schemas::inventory;
use schemas::money::Money;
use sqlx::AnyConnection;

use super::Draft;
use super::draft::{Loaded, draft_all, load_all};
use super::due::OpenPeriods;
use super::taxes::{ChargedDocuments, Taxation, tax_point_ms};
use crate::BillingError;
use crate::catalog::{BaseTiming, Terms};
use crate::rating::{self, DraftLine};
use crate::subscription::{ChargedPeriod, Contract, Periods};
use crate::tax::{self, TaxRule};
use crate::vat;
use schemas::usage::UsageSource;

/// How far a prospect looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Horizon {
    /// What is due now, and what the current periods come to so far.
    Current { now_ms: i64 },
    /// What is due by an instant, which may lie ahead. Usage that is not measured yet counts as none.
    DueBy { at_ms: i64 },
}

/// What is due, as it was read; usage is still to be asked for.
pub struct InvoiceForecast(Loaded);

impl std::fmt::Debug for InvoiceForecast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prospect").finish_non_exhaustive()
    }
}

/// Reads what is due for a customer, in the caller's transaction; of `usage` only what it is measured from.
///
/// # Errors
/// When there is no such customer, or as the database answers.
pub async fn prospect(
    connection: &mut AnyConnection,
    usage: &dyn UsageSource,
    customer: CustomerId,
    horizon: Horizon,
) -> Result<InvoiceForecast, BillingError> {
    inventory::customer(&mut *connection, customer).await?;
    let (until_ms, current) = match horizon {
        Horizon::Current { now_ms } => (now_ms, OpenPeriods::Included),
        // Nothing is finalised, so nothing need be settled either: what is measured is what is told.
        Horizon::DueBy { at_ms } => (at_ms, OpenPeriods::Ahead),
    };
    let loaded = load_all(connection, usage, (customer, customer), until_ms, current).await?;
    Ok(InvoiceForecast(loaded))
}

impl InvoiceForecast {
    /// What the invoices would say: one for each instant at which something is due, oldest first.
    ///
    /// # Errors
    /// When usage cannot be measured.
    pub async fn drafts(self, usage: &dyn UsageSource, now_ms: i64) -> Result<Vec<Draft>, BillingError> {
        let mut preparation = draft_all(self.0, usage, now_ms).await?;
        if let Some((_, error)) = preparation.failed.pop() {
            return Err(error);
        }
        let drafts = preparation.drafts.into_iter().flat_map(|drafts| drafts.drafts);
        Ok(drafts.map(|prepared| prepared.draft).collect())
    }
}

/// What some lines of an invoice come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Charge {
    /// With tax.
    pub total: Money,
    pub tax: Money,
}

impl Draft {
    /// What some of the lines, as those of a service, come to with the taxes that they bear: the whole total where nothing else
    /// is charged, and otherwise what they came to if they stood alone.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub fn charge_of(&self, is_of: impl Fn(&DraftLine) -> bool) -> Result<Charge, BillingError> {
        if self.lines.iter().all(|line| is_of(line) || line.amount.minor == 0) {
            return Ok(Charge {
                total: self.total,
                tax: self.tax,
            });
        }
        let mut by_group: BTreeMap<i64, Vec<Money>> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| is_of(line)) {
            by_group.entry(line.tax_group).or_default().push(line.priced);
        }
        let zero = Money::zero(self.currency);
        let mut charge = Charge { total: zero, tax: zero };
        for (group, priced) in by_group {
            let of_group = self.taxes.iter().filter(|amount| amount.group == group);
            let rules: Vec<TaxRule> = of_group.map(|amount| amount.rule.clone()).collect();
            let taxed = tax::apply(&priced, &rules, self.prices_include_tax, self.currency)?;
            charge.total = charge.total.checked_add(taxed.total)?;
            charge.tax = charge.tax.checked_add(taxed.tax)?;
        }
        Ok(charge)
    }
}

/// What the base price of a subscription that is due at an instant comes to, with its coupon and the taxes that hold then as far
/// as they are known, whatever else is due on the account until then; `None` where none is due at that instant.
///
/// # Errors
/// As the database answers, or when a period or a sum does not fit.
pub async fn base_charge(
    connection: &mut AnyConnection,
    contract: &Contract,
    due_ms: i64,
) -> Result<Option<Charge>, BillingError> {
    let zone = &contract.subscription.time_zone;
    let mut lines = Vec::new();
    for phase in contract.phases.iter().filter(|phase| phase.price.base.minor > 0) {
        let in_advance = phase.plan.base_timing == BaseTiming::Advance;
        if let Some(charged) = next_after(phase.base_periods(zone), in_advance, due_ms - 1)?
            && due_at_ms(&charged, in_advance) == due_ms
        {
            lines.extend(rating::base_lines(contract, phase, &charged)?);
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let customer = &contract.customer;
    let entity = inventory::entity(&mut *connection, customer.billing.entity).await?;
    let rates = tax::rates(&mut *connection).await?;
    let standings = vat::vat_number_statuses(&mut *connection, customer.id, customer.id).await?;
    let taxation = Taxation {
        seller: &entity.profile,
        customer,
        vat: standings.get(&customer.id).copied().unwrap_or_default(),
        rates: &rates,
        charged: &ChargedDocuments::default(),
    };
    let points: Vec<(&DraftLine, i64)> = lines.iter().map(|line| (line, tax_point_ms(line, due_ms))).collect();
    let sheets = taxation.sheets(&points, due_ms)?;
    let zero = Money::zero(customer.currency);
    let mut charge = Charge { total: zero, tax: zero };
    for sheet in &sheets {
        let totals = taxation.totals(sheet, &mut lines, customer.currency)?;
        charge.total = charge.total.checked_add(totals.total)?;
        charge.tax = charge.tax.checked_add(totals.tax)?;
    }
    Ok(Some(charge))
}

/// When a subscription is charged next, for its base price or for usage.
///
/// # Errors
/// When a period does not fit the calendar.
pub fn next_charge_ms(contract: &Contract, now_ms: i64) -> Result<Option<i64>, BillingError> {
    let zone = &contract.subscription.time_zone;
    let mut next = None;
    for phase in &contract.phases {
        let in_advance = phase.plan.base_timing == BaseTiming::Advance;
        let base = first_after(phase.base_periods(zone), in_advance, now_ms)?;
        let usage = if phase.plan.terms == Terms::Flat {
            None
        } else {
            first_after(phase.usage_periods(zone)?, false, now_ms)?
        };
        next = [next, base, usage].into_iter().flatten().min();
    }
    Ok(next)
}

/// When a base price of a subscription is charged next.
///
/// # Errors
/// When a period does not fit the calendar.
pub fn next_base_ms(contract: &Contract, now_ms: i64) -> Result<Option<i64>, BillingError> {
    let zone = &contract.subscription.time_zone;
    let mut next = None;
    for phase in contract.phases.iter().filter(|phase| phase.price.base.minor > 0) {
        let in_advance = phase.plan.base_timing == BaseTiming::Advance;
        let first = first_after(phase.base_periods(zone), in_advance, now_ms)?;
        next = [next, first].into_iter().flatten().min();
    }
    Ok(next)
}

fn first_after(periods: Periods, in_advance: bool, now_ms: i64) -> Result<Option<i64>, BillingError> {
    let next = next_after(periods, in_advance, now_ms)?;
    Ok(next.map(|charged| due_at_ms(&charged, in_advance)))
}

/// The first of some periods that is due after an instant.
fn next_after(mut periods: Periods, in_advance: bool, now_ms: i64) -> Result<Option<ChargedPeriod>, BillingError> {
    while let Some(charged) = periods.next_period()? {
        if due_at_ms(&charged, in_advance) > now_ms {
            return Ok(Some(charged));
        }
    }
    Ok(None)
}

fn due_at_ms(charged: &ChargedPeriod, in_advance: bool) -> i64 {
    if in_advance {
        charged.period.start_ms
    } else {
        charged.period.end_ms
    }
}
