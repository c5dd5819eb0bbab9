//! What is due, and what it costs.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::agreement::{CreditedDays, PaidCycle, PaidMonth, Phase, Rating};
use super::calendar::{DAY_MS, anchored, day_of, days, in_months, midnight, month_of};
use super::document::{Kind, NewLine};
use super::fraction::Fraction;
use super::sharing::share_out;
use super::terms::{CouponDiscount, UsageTerms};
use super::{Model, REACH_MS};

/// Something that is due.
#[derive(Clone, Debug)]
struct DueCharge {
    at_ms: i64,
    subscription: usize,
    phase: usize,
    what: ChargeKind,
}

#[derive(Clone, Debug)]
enum ChargeKind {
    /// Days that were charged ahead and are not had: of the cycle with this position.
    Unused {
        cycle: usize,
        from: Date,
        to: Date,
    },
    Base {
        from: Date,
        to: Date,
        nominal_days: i64,
    },
    Usage {
        from_ms: i64,
        to_ms: i64,
        rating: Rating,
    },
}

/// A corrected month: subscription, phase, position.
type MonthAt = (usize, usize, usize);

impl Model {
    /// Everything that is due by an instant is charged, by what was measured up to `measured_ms`.
    pub(crate) fn close(&mut self, at_ms: i64, measured_ms: i64) {
        self.end_subscriptions(at_ms);
        for customer in 0..self.customers.len() {
            self.close_customer(customer, at_ms, measured_ms);
        }
    }

    fn close_customer(&mut self, customer: usize, at_ms: i64, measured_ms: i64) {
        let of_customer = |at: &usize| self.subscriptions[*at].customer == customer;
        let own: Vec<usize> = (0..self.subscriptions.len()).filter(of_customer).collect();
        let mut groups: BTreeMap<i64, Vec<DueCharge>> = BTreeMap::new();
        for &subscription in &own {
            for due in self.due(subscription, at_ms) {
                groups.entry(due.at_ms).or_default().push(due);
            }
        }
        let all = self.items.iter().enumerate();
        let waiting = all.filter(|(_, item)| item.customer == customer && item.on.is_none());
        let mut items: Vec<usize> = waiting.map(|(at, _)| at).collect();

        // Months are corrected on the next document; where none with usage will come, at once, but once a day.
        let has_document = !groups.is_empty() || !items.is_empty();
        let mut months: Vec<MonthAt> = Vec::new();
        for &subscription in &own {
            if has_document || !self.awaits_usage(subscription) {
                months.extend(self.changed_months(subscription, at_ms));
            }
        }
        let adjusted = months.iter().filter_map(|&at| self.month(at).adjusted_ms).max();
        if !has_document && adjusted.is_some_and(|adjusted_ms| at_ms < adjusted_ms + DAY_MS) {
            return;
        }
        let mut corrections = Vec::new();
        for &at in &months {
            corrections.extend(self.correction(at));
        }
        if groups.is_empty() && (!items.is_empty() || !corrections.is_empty()) {
            groups.insert(at_ms, Vec::new());
        }
        let mut written_first = false;
        for (due_ms, group) in groups {
            let mut lines = Vec::new();
            // For each line that charges something: which of the group.
            let mut charging = Vec::new();
            let mut corrects = Vec::new();
            let pools = self.pools(customer, &group);
            let from_pools = self.granted_by(&pools, &group);
            for (due, &from_pool) in group.iter().zip(&from_pools) {
                let first = lines.len();
                lines.extend(self.lines_of(due, from_pool));
                charging.push(first);
            }
            for (at, line) in std::mem::take(&mut corrections) {
                corrects.push((at, lines.len()));
                lines.push(line);
            }
            let is_said_before = |line: &NewLine| line.kind == Kind::Unused && line.priced == 0;
            if items.is_empty() && !lines.is_empty() && lines.iter().all(is_said_before) {
                continue;
            }
            let has_usage = group.iter().any(|due| matches!(due.what, ChargeKind::Usage { .. }));
            if has_usage && measured_ms < due_ms {
                // Windows are open: this and what comes after it waits.
                if !written_first {
                    return;
                }
                break;
            }
            let items = std::mem::take(&mut items);
            for &item in &items {
                lines.push(NewLine {
                    kind: Kind::Item,
                    priced: self.items[item].cents,
                    from_ms: due_ms,
                    to_ms: due_ms,
                    taxed_ms: Some(self.items[item].said_ms),
                    of: None,
                });
            }
            let first_item = lines.len() - items.len();
            let ids = self.write_due(customer, &lines, due_ms, at_ms);
            written_first = true;
            for (position, (due, &first)) in group.iter().zip(&charging).enumerate() {
                let discount = lines.get(first + 1).filter(|next| next.kind == Kind::Discount);
                let pool = pools.iter().find(|pool| pool.contains(&position));
                let pool = pool.map(|pool| ids[charging[pool[0]]]);
                self.note_charged(due, ids[first], discount.map(|_| ids[first + 1]), pool);
            }
            for (at, line) in corrects {
                let month = self.month_mut(at);
                month.adjustments.push(ids[line]);
                month.adjusted_ms = Some(at_ms);
            }
            for (position, item) in items.into_iter().enumerate() {
                self.items[item].on = Some(self.lines[ids[first_item + position]].document);
            }
        }
        for at in months {
            self.month_mut(at).has_changed = false;
        }
    }

    fn month(&self, (subscription, phase, month): MonthAt) -> &PaidMonth {
        &self.subscriptions[subscription].phases[phase].months[month]
    }

    fn month_mut(&mut self, (subscription, phase, month): MonthAt) -> &mut PaidMonth {
        &mut self.subscriptions[subscription].phases[phase].months[month]
    }

    fn changed_months(&self, at: usize, at_ms: i64) -> Vec<MonthAt> {
        let mut found = Vec::new();
        for (phase, terms) in self.subscriptions[at].phases.iter().enumerate() {
            for (month, paid) in terms.months.iter().enumerate() {
                // What is void was not charged.
                let is_void = self.documents[self.lines[paid.line].document].is_void;
                if paid.has_changed && paid.to_ms > at_ms - REACH_MS && !is_void {
                    found.push((at, phase, month));
                }
            }
        }
        found.sort_by_key(|&at| self.month(at).from_ms);
        found
    }

    /// What is due of a subscription by an instant.
    fn due(&self, at: usize, at_ms: i64) -> Vec<DueCharge> {
        let mut found = Vec::new();
        let mut push = |phase, due_ms, what| {
            found.push(DueCharge {
                at_ms: due_ms,
                subscription: at,
                phase,
                what,
            });
        };
        for (phase, terms) in self.subscriptions[at].phases.iter().enumerate() {
            for (due_ms, what) in self.due_unused(at, terms, at_ms) {
                push(phase, due_ms, what);
            }
            for (due_ms, what) in self.due_base(at, terms, at_ms) {
                push(phase, due_ms, what);
            }
            for (due_ms, what) in self.due_usage(at, terms, at_ms) {
                push(phase, due_ms, what);
            }
        }
        found
    }

    fn due_base(&self, at: usize, phase: &Phase, at_ms: i64) -> Vec<(i64, ChargeKind)> {
        let zone = &self.subscriptions[at].zone;
        let offer = self.offers[phase.offer];
        let mut found = Vec::new();
        let mut start = phase.cycle_from;
        while phase.to.is_none_or(|to| start.max(phase.from) < to) {
            let end = anchored(start, offer.months, phase.anchor);
            let from = start.max(phase.from).max(phase.base_to.unwrap_or(start));
            let to = phase.to.map_or(end, |to| to.min(end));
            if from < to {
                let due_ms = midnight(if offer.in_advance { from } else { to }, zone);
                if due_ms > at_ms {
                    break;
                }
                let nominal_days = days(start, end);
                found.push((due_ms, ChargeKind::Base { from, to, nominal_days }));
            }
            start = end;
        }
        found
    }

    fn due_unused(&self, at: usize, phase: &Phase, at_ms: i64) -> Vec<(i64, ChargeKind)> {
        let mut found = Vec::new();
        let Some(to) = phase.to else {
            return found;
        };
        let due_ms = midnight(to, &self.subscriptions[at].zone);
        if due_ms > at_ms {
            return found;
        }
        for (cycle, paid) in phase.cycles.iter().enumerate() {
            // Of a cycle that was charged in parts, the last part.
            let (from, end) = (paid.from.max(to), paid.to);
            // What a void document gave back was not given back.
            let mut given_back = phase.given_back.iter();
            let is_given_back = given_back.any(|given| {
                let is_void = self.documents[self.lines[given.line].document].is_void;
                given.from < end && from < given.to && !is_void
            });
            if from < end && !is_given_back {
                found.push((due_ms, ChargeKind::Unused { cycle, from, to: end }));
            }
        }
        found
    }

    fn due_usage(&self, at: usize, phase: &Phase, at_ms: i64) -> Vec<(i64, ChargeKind)> {
        let zone = &self.subscriptions[at].zone;
        let mut found = Vec::new();
        if self.offers[phase.offer].metered == UsageTerms::Not {
            return found;
        }
        let first_ms = phase.used_from_ms.min(midnight(phase.from, zone));
        let mut start = month_of(day_of(first_ms, zone), phase.anchor);
        loop {
            let end = anchored(start, 1, phase.anchor);
            let (start_ms, end_ms) = (midnight(start, zone), midnight(end, zone));
            let from_ms = start_ms.max(phase.used_from_ms);
            let to_ms = phase.used_to_ms.map_or(end_ms, |to_ms| to_ms.min(end_ms));
            if phase.used_to_ms.is_some_and(|used_to_ms| used_to_ms <= from_ms) || (from_ms < to_ms && to_ms > at_ms) {
                return found;
            }
            if from_ms < to_ms && phase.usage_to_ms.is_none_or(|charged_ms| charged_ms < to_ms) {
                assert!(
                    phase.usage_to_ms.is_none_or(|charged_ms| charged_ms <= from_ms),
                    "usage is charged whole"
                );
                let rating = self.rating(at, phase, (start, end), (from_ms, to_ms));
                found.push((to_ms, ChargeKind::Usage { from_ms, to_ms, rating }));
            }
            start = end;
        }
    }

    /// What is included is what the base price of these days paid for.
    fn rating(&self, at: usize, phase: &Phase, (start, end): (Date, Date), (from_ms, to_ms): (i64, i64)) -> Rating {
        let zone = &self.subscriptions[at].zone;
        let nominal_days = days(start, end);
        let paid_days = days(start.max(phase.from), phase.to.map_or(end, |to| to.min(end))).max(0);
        let paid = Fraction::new(paid_days.into(), nominal_days.into());
        let quantity = Fraction::whole(phase.quantity);
        match self.offers[phase.offer].metered {
            UsageTerms::Not => unreachable!("charges no usage"),
            UsageTerms::Transfer { included_gib, way } => Rating {
                way,
                included: (Fraction::new(i128::from(included_gib) << 30, 1) * quantity * paid).floor(),
                is_percentile: false,
                offer: phase.offer,
                share: Fraction::whole(1),
            },
            UsageTerms::Percentile { commit_mbps, way } => {
                let commit = Fraction::whole(commit_mbps * 1_000_000) * quantity;
                let is_midnight = |at_ms: i64| midnight(day_of(at_ms, zone), zone) == at_ms;
                let (commit, share) = if is_midnight(from_ms) && is_midnight(to_ms) {
                    (commit, paid)
                } else {
                    let nominal_ms = midnight(end, zone) - midnight(start, zone);
                    let held = Fraction::new((to_ms - from_ms).into(), nominal_ms.into());
                    (commit * (paid / held).min(Fraction::whole(1)), held)
                };
                Rating {
                    way,
                    included: commit.floor(),
                    is_percentile: true,
                    offer: phase.offer,
                    share,
                }
            }
        }
    }

    /// The usage of what is due at one instant that is shared, by position.
    fn pools(&self, customer: usize, group: &[DueCharge]) -> Vec<Vec<usize>> {
        let mut found: Vec<Vec<usize>> = Vec::new();
        if !self.customers[customer].pools_usage {
            return found;
        }
        let common = |at: usize| match &group[at].what {
            ChargeKind::Usage { from_ms, to_ms, rating } => Some(self.common(rating, *from_ms, *to_ms)),
            _ => None,
        };
        for at in 0..group.len() {
            if common(at).is_none() {
                continue;
            }
            match found.iter_mut().find(|pool| common(pool[0]) == common(at)) {
                Some(pool) => pool.push(at),
                None => found.push(vec![at]),
            }
        }
        found
    }

    /// What each of a group gets of what others leave.
    fn granted_by(&self, pools: &[Vec<usize>], group: &[DueCharge]) -> Vec<i128> {
        let mut got = vec![0; group.len()];
        for pool in pools {
            let mut sharers = Vec::new();
            for &at in pool {
                if let ChargeKind::Usage { from_ms, to_ms, rating } = &group[at].what {
                    let service = self.subscriptions[group[at].subscription].service;
                    sharers.push(self.sharer(service, rating, (*from_ms, *to_ms)));
                }
            }
            for (&at, of_one) in pool.iter().zip(share_out(&sharers)) {
                got[at] = of_one;
            }
        }
        got
    }

    /// What counts of usage by what is known of it; nothing where it was not measured.
    pub(super) fn used(&self, service: u32, rating: &Rating, (from_ms, to_ms): (i64, i64)) -> Option<i128> {
        let counted = self.traffic.count(service, from_ms, to_ms, rating.way);
        if rating.is_percentile {
            counted.is_measured.then_some(i128::from(counted.percentile_bps))
        } else {
            Some(i128::from(counted.bytes))
        }
    }

    /// What usage costs by what is known of it, with what others leave.
    fn usage_cents(&self, service: u32, rating: &Rating, time: (i64, i64), from_pool: i128) -> i64 {
        let used = self.used(service, rating, time).unwrap_or(0);
        let unit = if rating.is_percentile { 1_000_000 } else { 1 << 30 };
        let over = (used - rating.included - from_pool).max(0);
        let units = Fraction::new(over, unit);
        (self.offers[rating.offer].unit_price.cents(units) * rating.share).round()
    }

    fn lines_of(&self, due: &DueCharge, from_pool: i128) -> Vec<NewLine> {
        let subscription = &self.subscriptions[due.subscription];
        let phase = &subscription.phases[due.phase];
        let offer = &self.offers[phase.offer];
        let zone = &subscription.zone;
        let line = |kind, priced, from_ms, to_ms, of| NewLine {
            kind,
            priced,
            from_ms,
            to_ms,
            taxed_ms: None,
            of,
        };
        match due.what {
            ChargeKind::Base { from, to, nominal_days } => {
                let share = Fraction::new(days(from, to).into(), nominal_days.into());
                let exact = Fraction::whole(offer.cents) * Fraction::whole(phase.quantity) * share;
                let base = exact.round();
                let (from_ms, to_ms) = (midnight(from, zone), midnight(to, zone));
                let kind = if offer.is_addon { Kind::Addon } else { Kind::Base };
                let mut lines = vec![line(kind, base, from_ms, to_ms, None)];
                let off = self.discount(due, (from, to, nominal_days), (exact, base));
                if off != 0 {
                    lines.push(line(Kind::Discount, -off, from_ms, to_ms, None));
                }
                lines
            }
            ChargeKind::Unused { cycle, from, to } => {
                let paid = &phase.cycles[cycle];
                let (from_ms, to_ms) = (midnight(from, zone), midnight(to, zone));
                let per_day =
                    Fraction::whole(offer.cents) * Fraction::whole(phase.quantity) / Fraction::whole(paid.nominal_days);
                let share = -(per_day * Fraction::whole(days(from, to))).round();
                // The discount of these days is not had.
                let discount_back = paid.discount.map_or(0, |(discount, until)| {
                    let share = match until {
                        // Nothing of it was for these days.
                        Some(until) if until <= from => return 0,
                        // It was taken off by months.
                        Some(until) if until < to => {
                            in_months(from, until, phase.anchor) / in_months(paid.from, until, phase.anchor)
                        }
                        _ => Fraction::new(days(from, to).into(), days(paid.from, to).into()),
                    };
                    (Fraction::whole(-self.lines[discount].priced) * share).round()
                });
                // No more than what is left of what was charged.
                let left = self.lines[paid.line].left;
                let given = (share + discount_back).min(0).max((-left).min(0));
                let discount_back = if given == 0 { 0 } else { discount_back };
                let of = Some(paid.line);
                let mut lines = vec![line(Kind::Unused, given - discount_back, from_ms, to_ms, of)];
                if discount_back != 0 {
                    let of = paid.discount.map(|(discount, _)| discount);
                    lines.push(line(Kind::DiscountBack, discount_back, from_ms, to_ms, of));
                }
                lines
            }
            ChargeKind::Usage {
                from_ms,
                to_ms,
                ref rating,
            } => {
                let cents = self.usage_cents(subscription.service, rating, (from_ms, to_ms), from_pool);
                let kind = if rating.is_percentile {
                    Kind::Percentile
                } else {
                    Kind::Transfer
                };
                vec![line(kind, cents, from_ms, to_ms, None)]
            }
        }
    }

    /// What a coupon takes off what days of a cycle cost.
    fn discount(
        &self,
        due: &DueCharge,
        (from, to, nominal_days): (Date, Date, i64),
        (exact, base): (Fraction, i64),
    ) -> i64 {
        let subscription = &self.subscriptions[due.subscription];
        let phase = &subscription.phases[due.phase];
        let offer = &self.offers[phase.offer];
        let Some(redeemed) = subscription.coupon else { return 0 };
        let coupon = self.coupons[redeemed.coupon];
        if coupon.plan.is_some_and(|only| only != offer.plan) {
            return 0;
        }
        let until = self.coupon_until(due.subscription);
        if until.is_some_and(|until| until <= from) {
            return 0;
        }
        // In months, where it covers a part of these days.
        let part = until
            .filter(|until| *until < to)
            .map(|until| in_months(from, until, phase.anchor));
        let most = Fraction::whole(base);
        let off = match (coupon.off, part) {
            (CouponDiscount::Percent(percent), None) => exact * Fraction::new(percent.into(), 100_000),
            (CouponDiscount::Percent(percent), Some(months)) => {
                let monthly = self
                    .offers
                    .iter()
                    .find(|other| other.plan == offer.plan && other.months == 1);
                let month = match monthly {
                    Some(monthly) => Fraction::whole(monthly.cents),
                    None => Fraction::new(offer.cents.into(), offer.months.into()),
                };
                let worth = month * Fraction::whole(phase.quantity) * months;
                worth.min(most) * Fraction::new(percent.into(), 100_000)
            }
            (CouponDiscount::Cents(cents), part) => {
                let share = Fraction::new(days(from, to).into(), nominal_days.into());
                let months = part.unwrap_or(Fraction::whole(offer.months) * share);
                (Fraction::whole(cents) * months / Fraction::whole(redeemed.per_months)).min(most)
            }
        };
        off.round()
    }

    /// The first day that a subscription's coupon does not cover.
    fn coupon_until(&self, at: usize) -> Option<Date> {
        let redeemed = self.subscriptions[at].coupon?;
        let months = self.coupons[redeemed.coupon].months?;
        let first = self.subscriptions[at].phases[0].from;
        Some(anchored(first, months, first.day()))
    }

    /// The lines that correct a charged month: more is a charge, less is given back as far as something is left of what was
    /// charged.
    fn correction(&self, at: MonthAt) -> Vec<(MonthAt, NewLine)> {
        let month = self.month(at);
        let service = self.subscriptions[at.0].service;
        let time = (month.from_ms, month.to_ms);
        let cents = self.usage_cents(service, &month.rating, time, self.granted_now(month));
        let mut charged = self.lines[month.line].priced;
        let mut charges = vec![month.line];
        for &adjustment in &month.adjustments {
            let line = &self.lines[adjustment];
            if line.priced > 0 {
                charged += line.priced;
                charges.push(adjustment);
            } else {
                // One that was taken back itself does not count.
                charged += line.left;
            }
        }
        let line = |priced, of| NewLine {
            kind: Kind::Adjustment,
            priced,
            from_ms: month.from_ms,
            to_ms: month.to_ms,
            taxed_ms: None,
            of: Some(of),
        };
        let mut lines = Vec::new();
        if cents > charged {
            lines.push((at, line(cents - charged, month.line)));
        }
        let mut back = charged - cents;
        for of in charges {
            let taken = self.lines[of].left.min(back);
            if taken > 0 {
                lines.push((at, line(-taken, of)));
                back -= taken;
            }
        }
        lines
    }

    fn note_charged(&mut self, due: &DueCharge, line: usize, discount: Option<usize>, pool: Option<usize>) {
        let until = self.coupon_until(due.subscription);
        let phase = &mut self.subscriptions[due.subscription].phases[due.phase];
        match due.what {
            ChargeKind::Base { from, to, nominal_days } => {
                phase.base_to = Some(to);
                let until = until.filter(|until| *until < to);
                phase.cycles.push(PaidCycle {
                    from,
                    to,
                    nominal_days,
                    line,
                    discount: discount.map(|discount| (discount, until)),
                });
            }
            ChargeKind::Unused { from, to, .. } => {
                phase.given_back.push(CreditedDays { from, to, line });
                if phase.base_to.is_some_and(|base_to| from < base_to) {
                    phase.base_to = Some(from);
                }
            }
            ChargeKind::Usage { from_ms, to_ms, rating } => {
                phase.usage_to_ms = Some(to_ms);
                phase.months.push(PaidMonth {
                    from_ms,
                    to_ms,
                    rating,
                    line,
                    pool,
                    adjustments: Vec::new(),
                    adjusted_ms: None,
                    has_changed: false,
                });
            }
        }
    }
}
