//! Who pays for what from which day to which: subscriptions, and the terms that held one after the other.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Model;
use super::calendar::{anchored, day_of, days, later, midnight, month_of, next_window, window};
use super::terms::{CountedDirection, UsageTerms};

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) customer: usize,
    pub(super) service: u32,
    /// Of an add-on: what it is beside.
    pub(super) parent: Option<usize>,
    pub(super) zone: TimeZone,
    had_trial: bool,
    pub(super) coupon: Option<Redeemed>,
    cancel_at_ms: Option<i64>,
    /// Of an add-on that was cancelled with its plan: its own end before, if it had one.
    with_parent: Option<Option<i64>>,
    pub(super) has_ended: bool,
    pub(super) phases: Vec<Phase>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Redeemed {
    pub(super) coupon: usize,
    /// An amount is off for so many months.
    pub(super) per_months: i64,
}

/// Terms that held from one day to another.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) offer: usize,
    pub(super) quantity: i64,
    pub(super) anchor: i8,
    /// The begin of the cycle that it begins in.
    pub(super) cycle_from: Date,
    pub(super) from: Date,
    pub(super) to: Option<Date>,
    /// Traffic counts by these terms from here.
    pub(super) used_from_ms: i64,
    pub(super) used_to_ms: Option<i64>,
    /// Charged up to here.
    pub(super) base_to: Option<Date>,
    pub(super) usage_to_ms: Option<i64>,
    pub(super) cycles: Vec<PaidCycle>,
    pub(super) given_back: Vec<CreditedDays>,
    pub(super) months: Vec<PaidMonth>,
}

/// Days of a cycle that were charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaidCycle {
    pub(super) from: Date,
    pub(super) to: Date,
    pub(super) nominal_days: i64,
    pub(super) line: usize,
    /// The line of the discount, and the first day that it did not cover.
    pub(super) discount: Option<(usize, Option<Date>)>,
}

/// Days that were charged ahead and given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct CreditedDays {
    pub(super) from: Date,
    pub(super) to: Date,
    pub(super) line: usize,
}

/// Usage that was charged.
#[derive(Clone, Debug)]
pub(super) struct PaidMonth {
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) rating: Rating,
    pub(super) line: usize,
    /// The first line of those that it shares with, perhaps its own; nothing where it was charged alone.
    pub(super) pool: Option<usize>,
    /// Lines that corrected it since, and the instant of the last.
    pub(super) adjustments: Vec<usize>,
    pub(super) adjusted_ms: Option<i64>,
    pub(super) has_changed: bool,
}

/// How the usage of a month is charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rating {
    pub(super) way: CountedDirection,
    /// Bytes, or bits per second.
    pub(super) included: i128,
    pub(super) is_percentile: bool,
    pub(super) offer: usize,
    /// Of a percentile: the part of a month that is charged.
    pub(super) share: super::fraction::Fraction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CancellationTime {
    Now,
    Cycle,
    On(Date),
}

impl Model {
    /// A service is subscribed to.
    pub(crate) fn subscribe(
        &mut self,
        (customer, service): (usize, u32),
        (offer, quantity): (usize, i64),
        coupon: Option<usize>,
        parent: Option<usize>,
        at_ms: i64,
    ) {
        let trial_days = self.offers[offer].trial_days;
        let redeemed = coupon.map(|coupon| {
            let ordered = self.offers[offer].months;
            let per_months = self.coupons[coupon]
                .months
                .map_or(ordered, |months| months.min(ordered));
            Redeemed { coupon, per_months }
        });
        let begun = SubscriptionStart {
            customer,
            service,
            parent,
            offer,
            quantity,
            trial_days,
            used_from_ms: window(at_ms),
            anchor: None,
        };
        self.begin(begun, redeemed, at_ms);
    }

    /// Another service is subscribed to, with months that begin on the day of those of another subscription.
    pub(crate) fn subscribe_alike(
        &mut self,
        other: usize,
        (customer, service): (usize, u32),
        (offer, quantity): (usize, i64),
        at_ms: i64,
    ) {
        let begun = SubscriptionStart {
            customer,
            service,
            parent: None,
            offer,
            quantity,
            trial_days: self.offers[offer].trial_days,
            used_from_ms: window(at_ms),
            anchor: Some(self.subscriptions[other].phases.last().unwrap().anchor),
        };
        self.begin(begun, None, at_ms);
    }

    fn begin(&mut self, begun: SubscriptionStart, coupon: Option<Redeemed>, at_ms: i64) {
        let SubscriptionStart { customer, parent, .. } = begun;
        let zone = match parent {
            Some(parent) => self.subscriptions[parent].zone.clone(),
            None => self.customers[customer].zone.clone(),
        };
        let plan = self.offers[begun.offer].plan;
        let mut before = self.subscriptions.iter();
        // A trial is had once for each plan.
        let had_one = before.any(|other| {
            other.customer == customer && other.had_trial && self.offers[other.phases[0].offer].plan == plan
        });
        let trial_days = if had_one { 0 } else { begun.trial_days };
        let from = later(day_of(at_ms, &zone), trial_days);
        let anchor = match (begun.anchor, parent) {
            (Some(anchor), _) => anchor,
            (None, Some(parent)) => self.subscriptions[parent].phases.last().unwrap().anchor,
            (None, None) => from.day(),
        };
        let used_from_ms = match trial_days {
            0 => begun.used_from_ms,
            _ => midnight(from, &zone),
        };
        let phase = Phase::new(
            begun.offer,
            begun.quantity,
            anchor,
            month_of(from, anchor),
            from,
            used_from_ms,
        );
        self.subscriptions.push(Subscription {
            customer,
            service: begun.service,
            parent,
            zone,
            had_trial: trial_days > 0,
            coupon,
            cancel_at_ms: None,
            with_parent: None,
            has_ended: false,
            phases: vec![phase],
        });
    }

    /// Other terms from today on.
    pub(crate) fn change(&mut self, subscription: usize, offer: usize, quantity: i64, at_ms: i64) {
        let months = self.offers[offer].months;
        let subscription = &mut self.subscriptions[subscription];
        let today = day_of(at_ms, &subscription.zone);
        let date = today.max(subscription.phases[0].from);
        let turn_ms = if date == today {
            next_window(at_ms)
        } else {
            midnight(date, &subscription.zone)
        };
        let old = subscription.phases.last_mut().unwrap();
        let turn_ms = turn_ms.max(old.used_from_ms);
        let (mut anchor, mut cycle_from) = (date.day(), date);
        if months == self.offers[old.offer].months {
            (anchor, cycle_from) = (old.anchor, old.cycle_from);
            // The cycle goes on.
            while anchored(cycle_from, months, anchor) <= date {
                cycle_from = anchored(cycle_from, months, anchor);
            }
        }
        old.to = Some(date);
        old.used_to_ms = Some(turn_ms);
        subscription
            .phases
            .push(Phase::new(offer, quantity, anchor, cycle_from, date, turn_ms));
    }

    pub(crate) fn cancel(&mut self, subscription: usize, end: CancellationTime, at_ms: i64) {
        self.cancel_and(subscription, end, false, at_ms);
    }

    fn cancel_and(&mut self, at: usize, end: CancellationTime, with_parent: bool, at_ms: i64) {
        let zone = self.subscriptions[at].zone.clone();
        let today = day_of(at_ms, &zone);
        let first = self.subscriptions[at].phases[0].from;
        let last_day = match end {
            CancellationTime::Now => today,
            CancellationTime::Cycle if today < first => first,
            CancellationTime::Cycle => self.cycle_end(at, today),
            CancellationTime::On(date) => date,
        };
        let cancel_at_ms = if end == CancellationTime::Now {
            at_ms
        } else {
            midnight(last_day, &zone)
        };
        let is_over = cancel_at_ms <= at_ms;
        let used_to_ms = if is_over { next_window(at_ms) } else { cancel_at_ms };
        let date = last_day.max(first);
        let cancelled = &mut self.subscriptions[at];
        for phase in &mut cancelled.phases {
            if phase.to.is_none_or(|to| to > date) {
                phase.to = Some(date.max(phase.from));
                phase.used_to_ms = Some(used_to_ms.max(phase.used_from_ms));
            }
        }
        if with_parent && cancelled.with_parent.is_none() {
            cancelled.with_parent = Some(cancelled.cancel_at_ms);
        }
        cancelled.cancel_at_ms = Some(cancel_at_ms);
        cancelled.has_ended |= is_over;
        for addon in self.addons(at) {
            let its_end_ms = self.subscriptions[addon].cancel_at_ms;
            if end == CancellationTime::Now || its_end_ms.is_none_or(|its_end_ms| its_end_ms > cancel_at_ms) {
                let end = if end == CancellationTime::Now {
                    CancellationTime::Now
                } else {
                    CancellationTime::On(last_day)
                };
                self.cancel_and(addon, end, true, at_ms);
            }
        }
    }

    /// The add-ons beside a plan that have not ended.
    fn addons(&self, parent: usize) -> Vec<usize> {
        let all = self.subscriptions.iter().enumerate();
        all.filter(|(_, addon)| addon.parent == Some(parent) && !addon.has_ended)
            .map(|(at, _)| at)
            .collect()
    }

    /// The first day that the cycle of a day does not hold any more.
    fn cycle_end(&self, at: usize, day: Date) -> Date {
        let phases = &self.subscriptions[at].phases;
        let holds = |phase: &&Phase| phase.from <= day && phase.to.is_none_or(|to| day < to);
        let phase = phases.iter().find(holds).unwrap_or(phases.last().unwrap());
        let months = self.offers[phase.offer].months;
        let mut end = anchored(phase.cycle_from, months, phase.anchor);
        while end <= day {
            end = anchored(end, months, phase.anchor);
        }
        end
    }

    /// A cancellation is taken back.
    pub(crate) fn resume(&mut self, at: usize) {
        let resumed = &mut self.subscriptions[at];
        resumed.cancel_at_ms = None;
        let last = resumed.phases.last_mut().unwrap();
        last.to = None;
        last.used_to_ms = None;
        for addon in self.addons(at) {
            match self.subscriptions[addon].with_parent.take() {
                Some(None) => self.resume(addon),
                Some(Some(own_ms)) => {
                    let addon = &mut self.subscriptions[addon];
                    let to = day_of(own_ms, &addon.zone);
                    addon.cancel_at_ms = Some(own_ms);
                    let last = addon.phases.last_mut().unwrap();
                    last.to = Some(to.max(last.from));
                    last.used_to_ms = Some(own_ms.max(last.used_from_ms));
                }
                None => {}
            }
        }
    }

    /// A service moves to another customer.
    pub(crate) fn transfer(&mut self, service: u32, to: usize, at_ms: i64) {
        let mut all = self.subscriptions.iter();
        let old = all.position(|old| old.service == service && old.parent.is_none() && !old.has_ended);
        let Some(old) = old else { return };
        let was_cancelled = self.subscriptions[old].cancel_at_ms.is_some();
        let mut moving = vec![old];
        let addons = self.addons(old).into_iter();
        moving.extend(addons.filter(|&addon| was_cancelled || self.subscriptions[addon].cancel_at_ms.is_none()));
        let wanted: Vec<(usize, i64, i64)> = moving
            .into_iter()
            .map(|moved| {
                let moved = &self.subscriptions[moved];
                let last = moved.phases.last().unwrap();
                let left = days(day_of(at_ms, &moved.zone), moved.phases[0].from);
                (last.offer, last.quantity, if moved.had_trial { left.max(0) } else { 0 })
            })
            .collect();
        let old_zone = self.subscriptions[old].zone.clone();
        self.cancel(old, CancellationTime::Now, at_ms);
        // An hour of the base price is one customer's at most.
        let zone = self.customers[to].zone.clone();
        let today = day_of(at_ms, &zone);
        let given_back_ms = midnight(day_of(at_ms, &old_zone), &old_zone);
        let start_ms = if midnight(today, &zone) < given_back_ms {
            midnight(later(today, 1), &zone)
        } else {
            at_ms
        };
        let mut parent = None;
        for (offer, quantity, trial_days) in wanted {
            let begun = SubscriptionStart {
                customer: to,
                service,
                parent,
                offer,
                quantity,
                trial_days,
                used_from_ms: next_window(at_ms),
                anchor: None,
            };
            self.begin(begun, None, start_ms);
            parent = parent.or(Some(self.subscriptions.len() - 1));
        }
    }

    /// Time goes on: what was cancelled to an end that has come is over.
    pub(super) fn end_subscriptions(&mut self, at_ms: i64) {
        for at in 0..self.subscriptions.len() {
            if self.subscriptions[at]
                .cancel_at_ms
                .is_some_and(|end_ms| end_ms <= at_ms)
            {
                self.subscriptions[at].has_ended = true;
            }
        }
    }

    /// Whether usage is still to be charged.
    pub(super) fn awaits_usage(&self, at: usize) -> bool {
        self.subscriptions[at].phases.iter().any(|phase| {
            let charged_ms = phase.usage_to_ms.unwrap_or(phase.used_from_ms);
            self.offers[phase.offer].metered != UsageTerms::Not
                && phase.used_to_ms.is_none_or(|to_ms| charged_ms < to_ms)
        })
    }
}

/// What a subscription begins as.
#[derive(Clone, Copy)]
struct SubscriptionStart {
    customer: usize,
    service: u32,
    parent: Option<usize>,
    offer: usize,
    quantity: i64,
    trial_days: i64,
    used_from_ms: i64,
    /// The day on which its months begin, where that was said.
    anchor: Option<i8>,
}

impl Phase {
    fn new(offer: usize, quantity: i64, anchor: i8, cycle_from: Date, from: Date, used_from_ms: i64) -> Phase {
        Phase {
            offer,
            quantity,
            anchor,
            cycle_from,
            from,
            to: None,
            used_from_ms,
            used_to_ms: None,
            base_to: None,
            usage_to_ms: None,
            cycles: Vec::new(),
            given_back: Vec::new(),
            months: Vec::new(),
        }
    }
}
