//! What would be charged: after something that is only tried, or at an instant that lies ahead.
//!
//! Whoever wants to know what a change costs makes it in a transaction, asks for the prospect there, and rolls back. The
//! amounts are exact, since the change and its drafts are made by what makes them in earnest:
//!
//! ```text
//! begin ─▶ change ─▶ prospect (reads what is due) ─▶ roll back ─▶ drafts (asks for usage, holds no lock)
//! ```

use schemas::ids::CustomerId;
use schemas::inventory;
use sqlx::AnyConnection;

use super::Draft;
use super::draft::{Current, Loaded, draft_all, load_all};
use crate::BillingError;
use crate::catalog::{BaseTiming, Terms};
use crate::subscription::{Contract, Periods};
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
pub struct Prospect(Loaded);

impl std::fmt::Debug for Prospect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prospect").finish_non_exhaustive()
    }
}

/// Reads what is due for a customer, in the caller's transaction; of `usage` only what it is measured from.
///
/// # Errors
/// When there is no such customer, or as the database answers.
pub async fn prospect<U: UsageSource>(
    connection: &mut AnyConnection,
    usage: &U,
    customer: CustomerId,
    horizon: Horizon,
) -> Result<Prospect, BillingError> {
    inventory::customer(&mut *connection, customer).await?;
    let (until_ms, current) = match horizon {
        Horizon::Current { now_ms } => (now_ms, Current::Included),
        // Nothing is finalised, so nothing need be settled either: what is measured is what is told.
        Horizon::DueBy { at_ms } => (at_ms, Current::Ahead),
    };
    let loaded = load_all(connection, usage, (customer, customer), until_ms, current).await?;
    Ok(Prospect(loaded))
}

impl Prospect {
    /// What the invoices would say: one for each instant at which something is due, oldest first.
    ///
    /// # Errors
    /// When usage cannot be measured.
    pub async fn drafts<U: UsageSource>(self, usage: &U, now_ms: i64) -> Result<Vec<Draft>, BillingError> {
        let mut preparation = draft_all(self.0, usage, now_ms).await?;
        if let Some((_, error)) = preparation.failed.pop() {
            return Err(error);
        }
        let drafts = preparation.drafts.into_iter().flat_map(|drafts| drafts.drafts);
        Ok(drafts.map(|prepared| prepared.draft).collect())
    }
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

fn first_after(mut periods: Periods, in_advance: bool, now_ms: i64) -> Result<Option<i64>, BillingError> {
    while let Some(charged) = periods.next_period()? {
        let due_ms = if in_advance {
            charged.period.start_ms
        } else {
            charged.period.end_ms
        };
        if due_ms > now_ms {
            return Ok(Some(due_ms));
        }
    }
    Ok(None)
}
