//! What is due: found by walking the phases of a customer's subscriptions.
//!
//! | what | due | key (B3) |
//! |---|---|---|
//! | base price in advance | at the start of the cycle | `base:phs_1:2026-01-31` |
//! | base price in arrears | at its end | `base:phs_1:2026-01-31` |
//! | days charged in advance that a phase does not have any more | when the phase ended | `unused:phs_1:2026-01-31:2026-02-10` |
//! | usage of a month | at its end, or when its terms changed or ended | `usage:phs_1:2026-01-31` |
//!
//! Keys are local dates, so nothing that happens to clocks or zones can make one charge two.

use jiff::civil::Date;
use schemas::ids::{PhaseId, SubscriptionId};
use schemas::period::{Period, midnight_ms};

use crate::BillingError;
use crate::catalog::{BaseTiming, Terms};
use crate::subscription::{ChargedPeriod, Contract, Phase};

/// Whether periods that are not over take part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenPeriods {
    Included,
    Excluded,
    /// As excluded, for a look ahead that finalises nothing.
    Ahead,
}

/// What kind of charge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChargeKind {
    Unused,
    Base,
    Usage,
}

impl ChargeKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            ChargeKind::Unused => "unused",
            ChargeKind::Base => "base",
            ChargeKind::Usage => "usage",
        }
    }
}

/// A charge that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DueCharge {
    pub(super) what: ChargeKind,
    pub(super) key: String,
    pub(super) phase_id: PhaseId,
    pub(super) subscription: SubscriptionId,
    /// Position among the customer's contracts, and of the phase in it.
    pub(super) contract: usize,
    pub(super) phase: usize,
    pub(super) charged: ChargedPeriod,
    pub(super) due_ms: i64,
}

/// What is due by `now_ms`, and with [`OpenPeriods::Included`] what is running.
///
/// # Errors
/// At the edge of the calendar.
pub(super) fn find(contracts: &[Contract], now_ms: i64, current: OpenPeriods) -> Result<Vec<DueCharge>, BillingError> {
    let mut found = Vec::new();
    for (position, contract) in contracts.iter().enumerate() {
        let mut walk = Walk {
            contract,
            position,
            now_ms,
            current,
            found: &mut found,
        };
        for index in 0..contract.phases.len() {
            walk.unused(index)?;
            walk.base(index)?;
            walk.usage(index)?;
        }
    }
    Ok(found)
}

struct Walk<'a> {
    contract: &'a Contract,
    position: usize,
    now_ms: i64,
    current: OpenPeriods,
    found: &'a mut Vec<DueCharge>,
}

impl Walk<'_> {
    fn base(&mut self, index: usize) -> Result<(), BillingError> {
        let contract = self.contract;
        let phase = &contract.phases[index];
        let in_advance = phase.plan.base_timing == BaseTiming::Advance;
        let mut periods = phase.base_periods(&contract.subscription.time_zone);
        while let Some(charged) = periods.next_period()? {
            // A part of it may be charged: up to an end that was taken back.
            let Some(charged) = self.left_of(charged, phase.base_to)? else {
                continue;
            };
            let due_ms = if in_advance {
                charged.period.start_ms
            } else {
                charged.period.end_ms
            };
            if !self.takes(due_ms, &charged) {
                break;
            }
            let key = format!("base:{}:{}", phase.id, charged.period.start_date);
            self.push(index, ChargeKind::Base, key, charged, due_ms);
        }
        Ok(())
    }

    fn usage(&mut self, index: usize) -> Result<(), BillingError> {
        let contract = self.contract;
        let phase = &contract.phases[index];
        if phase.plan.terms == Terms::Flat {
            return Ok(());
        }
        let mut periods = phase.usage_periods(&contract.subscription.time_zone)?;
        let zone = &contract.subscription.time_zone;
        while let Some(mut charged) = periods.next_period()? {
            let due_ms = charged.period.end_ms;
            if let Some(done_ms) = phase.usage_charged_to_ms {
                if charged.period.end_ms <= done_ms {
                    continue;
                }
                // A part of it may be charged: up to an end that was taken back.
                if charged.period.start_ms < done_ms {
                    charged = charged.since(done_ms, zone)?;
                }
            }
            if !self.takes(due_ms, &charged) {
                break;
            }
            let key = format!("usage:{}:{}", phase.id, charged.period.start_date);
            self.push(index, ChargeKind::Usage, key, charged, due_ms);
        }
        Ok(())
    }

    /// Cycles that were charged beyond the end of the phase.
    fn unused(&mut self, index: usize) -> Result<(), BillingError> {
        let contract = self.contract;
        let phase = &contract.phases[index];
        let zone = &contract.subscription.time_zone;
        let (Some(to), Some(base_to)) = (phase.to, phase.base_to) else {
            return Ok(());
        };
        let due_ms = midnight_ms(to, zone)?;
        if base_to <= to || due_ms > self.now_ms {
            return Ok(());
        }
        // As it was when it was charged: up to there.
        let whole = Phase {
            to: Some(base_to),
            ..phase.clone()
        };
        let mut periods = whole.base_periods(zone);
        while let Some(charged) = periods.next_after(Some(to))? {
            if charged.period.start_date >= base_to {
                break;
            }
            let start_date = charged.period.start_date.max(to);
            let unused = Period {
                start_ms: midnight_ms(start_date, zone)?,
                start_date,
                ..charged.period
            };
            let key = format!("unused:{}:{}:{to}", phase.id, charged.period.start_date);
            let charged = ChargedPeriod::of_days(unused, charged.nominal);
            self.push(index, ChargeKind::Unused, key, charged, due_ms);
        }
        Ok(())
    }

    /// What of a period is not charged yet, where it was charged up to `to`.
    fn left_of(&self, charged: ChargedPeriod, to: Option<Date>) -> Result<Option<ChargedPeriod>, BillingError> {
        let Some(to) = to.filter(|&to| to > charged.period.start_date) else {
            return Ok(Some(charged));
        };
        let left = charged.period.within(to, None, &self.contract.subscription.time_zone)?;
        Ok(left.map(|period| ChargedPeriod::of_days(period, charged.nominal)))
    }

    /// Whether what is due at `due_ms` takes part.
    fn takes(&self, due_ms: i64, charged: &ChargedPeriod) -> bool {
        let runs = self.current == OpenPeriods::Included && charged.period.start_ms <= self.now_ms;
        due_ms <= self.now_ms || runs
    }

    fn push(&mut self, phase: usize, what: ChargeKind, key: String, charged: ChargedPeriod, due_ms: i64) {
        self.found.push(DueCharge {
            what,
            key,
            phase_id: self.contract.phases[phase].id,
            subscription: self.contract.subscription.id,
            contract: self.position,
            phase,
            charged,
            due_ms,
        });
    }
}
