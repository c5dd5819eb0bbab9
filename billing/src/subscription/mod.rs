//! Which service pays for which plan, at which price, and the periods that follow from it.
//!
//! * A subscription is a sequence of [`Phase`]s: what was agreed for the local days `[from, to)`. A change of plan, price,
//!   cycle or quantity ends one phase and begins the next, so that what was charged is never read anew in other terms.
//! * Periods are half-open, local midnight to local midnight in the time zone that the customer had at signup, and start
//!   on the anchor day agreed then. The base price is for a cycle of months, usage is counted by the month. What a phase
//!   has of a period is charged for its calendar days out of the whole period's ([`Proration`]).
//! * Of the base price a change takes the whole local day on which it happens: remaining days are counted from that day.
//! * Usage is by the terms that held at the time of day: until the 5-minute window in which they changed or ended, by the old
//!   ones. What is included, in bytes or as a commit, is what was paid for: the days of the base price.
//! * States and the ways between them: [`state`].
//!
//! [`change`] holds what can be done to a subscription now, [`schedule`] what is to be done at a time (F-25), [`transfer`]
//! the move to another customer (F-27).

mod addon;
mod begin;
pub mod change;
mod hold;
mod load;
mod pause;
pub mod reprice;
pub mod schedule;
pub mod state;
pub mod transfer;
mod trial;
mod write;

use std::sync::Arc;

pub use begin::{FreePlanEligibility, NewSubscription, free_plan_eligibility, had_trial, subscribe};
pub use hold::holds;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
pub(crate) use load::contracts_between;
pub(crate) use load::ended_since;
pub(crate) use load::reached;
pub use load::{
    Catalog, StateChange, contract, contracts_of, state_history, subscription, subscription_of, subscriptions,
    subscriptions_of,
};
pub use pause::paused_from;
use schemas::ids::{CouponId, CustomerId, PhaseId, ServiceId, SubscriptionId};
use schemas::inventory::{Customer, Service};
use schemas::period::{AnchorDay, Period, local_date, midnight_ms};
pub use state::SubscriptionState;
pub use trial::begin_trial;

use crate::BillingError;
use crate::catalog::{Plan, Price, Redemption};

/// Who acts in histories where nobody does: what comes by the calendar, by payments, or by their absence.
pub(crate) const ITSELF: &str = "billing";
/// Periods of one phase that are looked at, at most: more than 40 years of months.
pub const MAX_PERIODS: usize = 500;
/// Units that a subscription can have at most.
pub const MAX_QUANTITY: i64 = 10_000;

/// A service's subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub customer: CustomerId,
    pub service: ServiceId,
    /// Of an add-on: what it is beside, and ends with.
    pub parent: Option<SubscriptionId>,
    pub state: SubscriptionState,
    /// The customer's at signup; periods never move.
    pub time_zone: TimeZone,
    pub started_at_ms: i64,
    pub trial_ends_at_ms: Option<i64>,
    /// Of a cancelled one: when it ends.
    pub cancel_at_ms: Option<i64>,
    pub ended_at_ms: Option<i64>,
    pub coupon: Option<CouponId>,
}

impl Subscription {
    /// The IANA name of the time zone.
    pub fn time_zone_name(&self) -> &str {
        self.time_zone.iana_name().unwrap_or("UTC")
    }
}

/// What was agreed for some days.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Phase {
    pub id: PhaseId,
    pub plan: Arc<Plan>,
    pub price: Arc<Price>,
    pub quantity: i64,
    pub anchor: AnchorDay,
    /// Start of the cycle that the phase begins in.
    pub cycle_from: Date,
    /// First local day.
    pub from: Date,
    /// First local day after it; `None` while it lasts.
    pub to: Option<Date>,
    /// The base price was charged up to this day.
    pub base_to: Option<Date>,
    /// Usage counts by these terms from here on, the start of a 5-minute window.
    pub usage_from_ms: i64,
    /// And until here; `None` while it lasts.
    pub usage_to_ms: Option<i64>,
    /// Usage was charged up to here.
    pub usage_charged_to_ms: Option<i64>,
    /// The plan's price for one month, where its cycle is longer and a coupon covers a part of it.
    pub month: Option<Arc<Price>>,
}

/// A subscription with everything it refers to: what rating needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contract {
    pub subscription: Subscription,
    pub customer: Arc<Customer>,
    pub service: Arc<Service>,
    /// Oldest first, at least one.
    pub phases: Vec<Phase>,
    pub coupon: Option<Redemption>,
}

/// A period to be charged, and the whole period that the price is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChargedPeriod {
    /// Of usage it may begin and end within a day.
    pub period: Period,
    pub nominal: Period,
    /// The days that the base price is for: those of the period, but for a day on which the terms of usage change.
    pub paid_from: Date,
    pub paid_to: Date,
    /// Whether the period begins and ends at local midnights.
    pub is_whole_days: bool,
}

/// The share of a nominal period that is charged, in calendar days: never more than 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proration {
    pub days: i64,
    pub nominal_days: i64,
}

impl Proration {
    pub fn is_full(self) -> bool {
        self.days == self.nominal_days
    }
}

impl ChargedPeriod {
    /// A part of a nominal period in whole days, all of them paid for.
    pub fn of_days(period: Period, nominal: Period) -> ChargedPeriod {
        ChargedPeriod {
            period,
            nominal,
            paid_from: period.start_date,
            paid_to: period.end_date,
            is_whole_days: true,
        }
    }

    /// In the days that are paid for.
    pub fn proration(&self) -> Proration {
        let paid = Period {
            start_date: self.paid_from,
            end_date: self.paid_to,
            ..self.period
        };
        Proration {
            days: paid.days().max(0),
            nominal_days: self.nominal.days(),
        }
    }

    /// What is left of it from an instant within it on, which is a local midnight.
    ///
    /// # Errors
    /// When the instant is at the edge of the calendar.
    pub(crate) fn since(self, from_ms: i64, zone: &TimeZone) -> Result<ChargedPeriod, BillingError> {
        let start_date = local_date(from_ms, zone)?;
        Ok(ChargedPeriod {
            period: Period {
                start_ms: from_ms,
                start_date,
                ..self.period
            },
            paid_from: self.paid_from.max(start_date),
            ..self
        })
    }
}

impl Phase {
    /// The periods of the base price, from the first.
    pub fn base_periods(&self, zone: &TimeZone) -> Periods {
        self.periods(self.cycle_from, self.price.cycle_months, zone)
    }

    /// The months by which usage is counted, from the first. The first and the last may be a part of a day.
    ///
    /// # Errors
    /// At the edge of the calendar.
    pub fn usage_periods(&self, zone: &TimeZone) -> Result<Periods, BillingError> {
        let first_ms = self.usage_from_ms.min(midnight_ms(self.from, zone)?);
        let first = Timestamp::from_millisecond(first_ms).map_err(|error| BillingError::Period(error.into()))?;
        let month = Period::containing(first, self.anchor, zone)?;
        Ok(Periods {
            usage: Some((self.usage_from_ms, self.usage_to_ms)),
            ..self.periods(month.start_date, 1, zone)
        })
    }

    fn periods(&self, nominal_start: Date, months: i64, zone: &TimeZone) -> Periods {
        Periods {
            phase: self.id,
            from: self.from,
            to: self.to,
            usage: None,
            nominal_start,
            anchor: self.anchor,
            months,
            zone: zone.clone(),
            left: MAX_PERIODS,
        }
    }

    /// Whether usage at an instant counts by these terms.
    fn meters(&self, at_ms: i64) -> bool {
        self.usage_from_ms <= at_ms && self.usage_to_ms.is_none_or(|to_ms| at_ms < to_ms)
    }

    fn holds(&self, date: Date) -> bool {
        self.from <= date && self.to.is_none_or(|to| date < to)
    }
}

impl Contract {
    /// The phase that a local day lies in; the first one before it began, the last one after it ended.
    pub fn phase_on(&self, date: Date) -> &Phase {
        let holding = self.phases.iter().find(|phase| phase.holds(date));
        let nearest = match self.phases.first() {
            Some(first) if date < first.from => Some(first),
            _ => self.phases.last(),
        };
        holding
            .or(nearest)
            .unwrap_or_else(|| unreachable!("a contract is loaded with at least one phase"))
    }

    /// The phase of the local day that an instant lies in.
    ///
    /// # Errors
    /// When the instant is at the edge of the calendar.
    pub fn phase_at(&self, at_ms: i64) -> Result<&Phase, BillingError> {
        Ok(self.phase_on(local_date(at_ms, &self.subscription.time_zone)?))
    }

    /// The last phase: what holds now, or will once changes that are dated ahead have come.
    pub fn last_phase(&self) -> &Phase {
        self.phase_on(Date::MAX)
    }

    /// The month of usage that holds the instant `at_ms`, with its phase.
    ///
    /// # Errors
    /// [`BillingError::NoPeriod`] before the first phase and after the last; at the edge of the calendar.
    pub fn usage_period_at(&self, at_ms: i64) -> Result<(&Phase, ChargedPeriod), BillingError> {
        let metering = self.phases.iter().find(|phase| phase.meters(at_ms));
        let phase = match metering {
            Some(phase) => phase,
            None => self.phase_at(at_ms)?,
        };
        let mut periods = phase.usage_periods(&self.subscription.time_zone)?;
        self.holding(phase, &mut periods, at_ms)
    }

    /// The cycle that holds the instant `at_ms`, with its phase.
    ///
    /// # Errors
    /// As [`Contract::usage_period_at`].
    pub fn base_period_at(&self, at_ms: i64) -> Result<(&Phase, ChargedPeriod), BillingError> {
        let phase = self.phase_at(at_ms)?;
        let mut periods = phase.base_periods(&self.subscription.time_zone);
        self.holding(phase, &mut periods, at_ms)
    }

    fn holding<'a>(
        &self,
        phase: &'a Phase,
        periods: &mut Periods,
        at_ms: i64,
    ) -> Result<(&'a Phase, ChargedPeriod), BillingError> {
        while let Some(charged) = periods.next_period()? {
            if at_ms < charged.period.start_ms {
                break;
            }
            if at_ms < charged.period.end_ms {
                return Ok((phase, charged));
            }
        }
        Err(BillingError::NoPeriod {
            subscription: self.subscription.id,
            at_ms,
        })
    }
}

/// Walks the periods of a phase from the first.
#[derive(Debug)]
pub struct Periods {
    phase: PhaseId,
    from: Date,
    to: Option<Date>,
    /// Of usage: since when and until when it counts.
    usage: Option<(i64, Option<i64>)>,
    nominal_start: Date,
    anchor: AnchorDay,
    months: i64,
    zone: TimeZone,
    left: usize,
}

impl Periods {
    /// The next period that the phase has a part of; `None` after its last.
    ///
    /// # Errors
    /// At the edge of the calendar, or beyond [`MAX_PERIODS`].
    pub fn next_period(&mut self) -> Result<Option<ChargedPeriod>, BillingError> {
        loop {
            let is_over = match self.usage {
                Some((from_ms, to_ms)) => {
                    let start_ms = midnight_ms(self.nominal_start, &self.zone)?;
                    to_ms.is_some_and(|to_ms| to_ms <= start_ms.max(from_ms))
                }
                None => self.to.is_some_and(|to| to <= self.nominal_start.max(self.from)),
            };
            if is_over {
                return Ok(None);
            }
            self.left = self.left.checked_sub(1).ok_or(BillingError::TooManyPeriods {
                phase: self.phase,
                limit: MAX_PERIODS,
            })?;
            let nominal = Period::starting(self.nominal_start, self.anchor, self.months, &self.zone)?;
            self.nominal_start = nominal.end_date;
            let charged = match self.usage {
                Some((from_ms, to_ms)) => self.usage_within(nominal, from_ms, to_ms)?,
                None => {
                    let period = nominal.within(self.from, self.to, &self.zone)?;
                    period.map(|period| ChargedPeriod::of_days(period, nominal))
                }
            };
            if charged.is_some() {
                return Ok(charged);
            }
        }
    }

    /// The part of a month in which usage counts.
    fn usage_within(
        &self,
        nominal: Period,
        from_ms: i64,
        to_ms: Option<i64>,
    ) -> Result<Option<ChargedPeriod>, BillingError> {
        let start_ms = nominal.start_ms.max(from_ms);
        let end_ms = to_ms.map_or(nominal.end_ms, |to_ms| nominal.end_ms.min(to_ms));
        if start_ms >= end_ms {
            return Ok(None);
        }
        let start_date = local_date(start_ms, &self.zone)?;
        let last_day = local_date(end_ms - 1, &self.zone)?;
        let end_date = last_day
            .tomorrow()
            .map_err(|error| BillingError::Period(error.into()))?;
        let is_midnight = |date, at_ms| Ok::<_, BillingError>(midnight_ms(date, &self.zone)? == at_ms);
        Ok(Some(ChargedPeriod {
            period: Period {
                start_ms,
                end_ms,
                start_date,
                end_date,
            },
            nominal,
            paid_from: nominal.start_date.max(self.from),
            paid_to: self.to.map_or(nominal.end_date, |to| nominal.end_date.min(to)),
            is_whole_days: is_midnight(start_date, start_ms)? && is_midnight(end_date, end_ms)?,
        }))
    }

    /// As [`Periods::next_period`], from the first one that ends after `date`.
    ///
    /// # Errors
    /// As [`Periods::next_period`].
    pub fn next_after(&mut self, date: Option<Date>) -> Result<Option<ChargedPeriod>, BillingError> {
        loop {
            match self.next_period()? {
                Some(charged) if date.is_some_and(|date| charged.period.end_date <= date) => {}
                other => return Ok(other),
            }
        }
    }
}

#[cfg(test)]
mod tests;
