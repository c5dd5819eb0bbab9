//! Plan + price + usage + period → invoice lines. Pure functions: the same input gives the same lines.
//!
//! * Base: the price of the cycle, for its calendar days out of the nominal period's, less what a coupon takes off.
//! * Discount: a coupon's share of the base price, for the time that the coupon lasts. Of a cycle that it covers in part it
//!   takes its percentage off so many months at the plan's price for a month, never more than off the whole cycle. Months
//!   are those of the period that is charged, from its anchor on, whatever day its terms began ([`MonthCount`]): what a
//!   change gives back of a discount and what it takes off anew are of the same months.
//! * Unused: days charged in advance that the subscription will not have in these terms, given back; the discount of those
//!   days is a line of its own.
//! * Transfer: billed bytes over the included bytes, at the price of a quota unit, to the byte. In a month that is shorter
//!   than the nominal one the included transfer is prorated by days and floored to the byte.
//! * Percentile: 95th percentile over the commit, in Mbit/s of 10⁶ bit/s, at the price of an Mbit/s; the price is for a nominal
//!   month, so a shorter one is prorated by days, and where terms began or ended within a day by the time that they held.
//! * What is included or committed is what the base price paid for: of a day on which the terms of usage ended but which was
//!   not charged (or charged by the next terms) nothing is included, and a commit shrinks in proportion. So nothing is free by
//!   changing shortly before midnight.
//!
//! Every amount is an exact fraction, rounded once ([`Ratio::to_money`], B2). Quantities on lines are for people to read,
//! rounded to [`QUANTITY_PLACES`]; the exact bytes are in the evidence. Gaps are named in the description and not counted.

mod usage;

use jiff::ToSpan as _;
use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::ids::{InvoiceId, InvoiceLineId, ServiceId, SubscriptionId};
use schemas::money::{Currency, Money};
use schemas::period::{Period, cycle_words};

pub use usage::{UsageParts, describe, held_days, rate_usage, usage_charge, usage_line, usage_parts};

use crate::BillingError;
use crate::catalog::{Discount, PlanKind};
use crate::evidence::{BaseCharge, Covered, Evidence, MonthCount, PartOfMonth, UnusedMonths};
use crate::line_kind::LineKind;
use crate::ratio::Ratio;
use crate::subscription::{ChargedPeriod, Contract, Phase, Proration};

/// Decimal places of a quantity on a line.
pub const QUANTITY_PLACES: u32 = 6;
/// Bits per second in an Mbit/s.
pub const BPS_PER_MBPS: u64 = 1_000_000;

/// A line before it is on an invoice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DraftLine {
    /// `None` for what is not for a subscription.
    pub subscription: Option<SubscriptionId>,
    pub service: Option<ServiceId>,
    pub kind: LineKind,
    pub description: String,
    pub quantity: Decimal,
    pub unit: String,
    /// Major units per unit.
    pub unit_price: Decimal,
    /// What the price comes to: with tax where the customer's prices include it.
    pub priced: Money,
    /// Net. As long as no tax was taken out, what it is priced at.
    pub amount: Money,
    /// Which of the document's groups of taxes it bears, as it is totalled up.
    pub tax_group: i64,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    pub evidence: Evidence,
}

/// What usage costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RatedUsage {
    /// Units over what is included.
    pub quantity: Decimal,
    /// Major units per unit: of tiers, what a unit comes to on average.
    pub unit_price: Decimal,
    pub amount: Money,
}

/// A base price for its days, exact, in major units.
///
/// # Errors
/// When it does not fit.
pub fn base_amount(charge: &BaseCharge, currency: Currency) -> Result<Ratio, BillingError> {
    let base = Ratio::money(Money::new(charge.base_minor, currency))?;
    let share = Ratio::integer(charge.days.into()).over(charge.nominal_days.into())?;
    Ok(base.times(Ratio::integer(charge.quantity.into()))?.times(share)?)
}

/// The lines for the base price of a period: the price, and what the coupon takes off it.
///
/// # Errors
/// When an amount does not fit.
pub fn base_lines(contract: &Contract, phase: &Phase, charged: &ChargedPeriod) -> Result<Vec<DraftLine>, BillingError> {
    let price = &phase.price;
    let currency = price.currency();
    let Proration { days, nominal_days } = charged.proration();
    let charge = BaseCharge {
        base_minor: price.base.minor,
        quantity: phase.quantity,
        days,
        nominal_days,
    };
    let amount = base_amount(&charge, currency)?.to_money(currency)?;
    let for_days = if charged.proration().is_full() {
        String::new()
    } else {
        format!(", {days} of {nominal_days} days")
    };
    let units = Ratio::integer(phase.quantity.into()).times(Ratio::integer(days.into()).over(nominal_days.into())?)?;
    let base = DraftLine {
        subscription: Some(contract.subscription.id),
        service: Some(contract.service.id),
        kind: match phase.plan.kind {
            PlanKind::Addon => LineKind::Addon,
            PlanKind::Plan | PlanKind::Private => LineKind::Base,
        },
        description: format!("{}: {}{for_days}", contract.service.name, phase.plan.name),
        quantity: units.to_decimal(QUANTITY_PLACES)?,
        unit: cycle_words(price.cycle_months),
        unit_price: price.base.to_major(),
        priced: amount,
        amount,
        tax_group: 0,
        period_start_ms: charged.period.start_ms,
        period_end_ms: charged.period.end_ms,
        evidence: Evidence::Base(charge),
    };
    let mut lines = vec![base];
    lines.extend(discount_line(contract, phase, &lines[0], charged)?);
    Ok(lines)
}

fn discount_line(
    contract: &Contract,
    phase: &Phase,
    base: &DraftLine,
    charged: &ChargedPeriod,
) -> Result<Option<DraftLine>, BillingError> {
    let currency = base.priced.currency;
    let Some(redemption) = contract.coupon.as_ref().filter(|coupon| coupon.is_for(phase.plan.id)) else {
        return Ok(None);
    };
    let coupon = &redemption.coupon;
    let until = redemption.until(contract.phases[0].from)?;
    if until.is_some_and(|until| until <= charged.period.start_date) {
        return Ok(None);
    }
    // Of a longer cycle it may cover a part.
    let covered = match until.filter(|until| *until < charged.period.end_date) {
        Some(until) => Some(covered(contract, phase, charged, until)?),
        None => None,
    };
    let (off, percent, amount_minor, words) = match coupon.discount {
        Discount::Percent(percent) => {
            let of = match &covered {
                Some(covered) => {
                    let worth = Ratio::money(Money::new(covered.price_minor, currency))?
                        .over(covered.price_months.into())?
                        .times(Ratio::integer(phase.quantity.into()))?
                        .times(exact_months(&covered.time)?)?;
                    worth.min(Ratio::money(base.priced)?)?
                }
                // Of what the days cost exactly: the line's own amount is rounded.
                None => match &base.evidence {
                    Evidence::Base(charge) => base_amount(charge, currency)?,
                    _ => Ratio::money(base.priced)?,
                },
            };
            let off = of.times(Ratio::decimal(percent.value())?)?.over(100)?;
            (
                off,
                Some(percent.value().normalize().to_string()),
                None,
                percent.to_string(),
            )
        }
        Discount::Amount(amount) => {
            let months = match &covered {
                Some(covered) => exact_months(&covered.time)?,
                None => {
                    let Proration { days, nominal_days } = charged.proration();
                    let share = Ratio::integer(days.into()).over(nominal_days.into())?;
                    Ratio::integer(phase.price.cycle_months.into()).times(share)?
                }
            };
            let off = Ratio::money(amount)?
                .times(months)?
                .over(redemption.cycle_months.into())?
                .min(Ratio::money(base.priced)?)?;
            (off, None, Some(amount.minor), amount.to_string())
        }
    };
    let off = off.to_money(currency)?.checked_neg()?;
    if off.minor == 0 {
        return Ok(None);
    }
    let until_words = match &covered {
        Some(covered) => format!(", until {}", covered.until),
        None => String::new(),
    };
    Ok(Some(DraftLine {
        kind: LineKind::Discount,
        description: format!("{}: {words} off ({}){until_words}", contract.service.name, coupon.code),
        quantity: Decimal::ONE,
        unit: "discount".to_owned(),
        unit_price: off.to_major(),
        priced: off,
        amount: off,
        evidence: Evidence::Discount {
            code: coupon.code.clone(),
            off_minor: base.priced.minor,
            percent,
            amount_minor,
            amount_months: redemption.cycle_months,
            covered,
        },
        ..base.clone()
    }))
}

/// What a coupon that is over on `until` covers of a charged period. A month of it is a month at the plan's price for one,
/// where the plan has that, else a month's share of the cycle: three months are worth the same whatever the cycle.
fn covered(contract: &Contract, phase: &Phase, charged: &ChargedPeriod, until: Date) -> Result<Covered, BillingError> {
    let (price_minor, price_months) = match &phase.month {
        Some(month) => (month.base.minor, 1),
        None => (phase.price.base.minor, phase.price.cycle_months),
    };
    Ok(Covered {
        until: until.to_string(),
        time: months_within(contract, phase, &charged.nominal, (charged.period.start_date, until))?,
        price_minor,
        price_months,
    })
}

/// The local days `[from, until)` of a nominal period, counted in that period's own months.
fn months_within(
    contract: &Contract,
    phase: &Phase,
    nominal: &Period,
    (from, until): (Date, Date),
) -> Result<MonthCount, BillingError> {
    let zone = &contract.subscription.time_zone;
    let mut parts = Vec::new();
    let mut month_start = nominal.start_date;
    while month_start < until {
        let month = Period::starting(month_start, phase.anchor, 1, zone)?;
        if let Some(part) = month.within(from, Some(until), zone)? {
            parts.push(PartOfMonth {
                days: part.days(),
                month_days: month.days(),
            });
        }
        month_start = month.end_date;
    }
    let is_whole = |part: &PartOfMonth| part.days == part.month_days;
    let whole = parts.iter().filter(|part| is_whole(part)).count();
    // Only the first and the last month can be in part.
    let last = parts.pop().ok_or_else(|| out_of_range("time of a coupon"))?;
    Ok(MonthCount {
        first: parts.first().copied().filter(|first| !is_whole(first)),
        months: i64::try_from(whole).map_err(|_| out_of_range("months of a coupon"))?,
        days: if is_whole(&last) { 0 } else { last.days },
        month_days: last.month_days,
    })
}

/// Counted months as an exact number.
///
/// # Errors
/// When the number does not fit.
pub fn exact_months(time: &MonthCount) -> Result<Ratio, BillingError> {
    let mut months = Ratio::integer(time.months.into());
    if let Some(first) = time.first {
        months = months.plus(Ratio::integer(first.days.into()).over(first.month_days.into())?)?;
    }
    Ok(months.plus(Ratio::integer(time.days.into()).over(time.month_days.into())?)?)
}

fn days_between(from: Date, to: Date) -> i64 {
    from.duration_until(to).as_hours() / 24
}

/// A base charge that was made in advance, and the line that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargedBase {
    pub invoice: InvoiceId,
    pub number: String,
    pub line: InvoiceLineId,
    pub charge: BaseCharge,
    /// What a coupon took off it.
    pub discount: Option<ChargedDiscount>,
    /// What of it was not given back yet, as priced: what the coupon took off is not left of it (B6).
    pub left_minor: i64,
}

/// The discount of a base charge, and the line that gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargedDiscount {
    pub line: InvoiceLineId,
    pub code: String,
    /// Negative.
    pub minor: i64,
    /// The first local day that it did not cover; `None`: it covered all.
    pub until: Option<Date>,
}

/// The lines that give unused days back: of what was charged for the period the share of its days that are left, and of the
/// discount, which is not had for them, the share of the time that it covered; together no more than what was not given back
/// yet of that line. `unused` has these days, the last of the period.
///
/// # Errors
/// When an amount does not fit.
pub fn unused_lines(
    contract: &Contract,
    phase: &Phase,
    before: &ChargedBase,
    unused: &ChargedPeriod,
) -> Result<Vec<DraftLine>, BillingError> {
    let currency = phase.price.currency();
    let unused_days = unused.period.days();
    let share = base_amount(&before.charge, currency)?
        .times(Ratio::integer(unused_days.into()).over(before.charge.days.into())?)?
        .negated()?
        .to_money(currency)?;
    let discount = discount_unused(contract, phase, before, unused)?;
    let discount_minor = discount.as_ref().map_or(0, |line| line.priced.minor);
    let net_minor = share.minor + discount_minor;
    // What a coupon took off for these days by months may be more than they cost by days: then they were free, and nothing
    // is charged for them now.
    let free_by = before
        .discount
        .as_ref()
        .filter(|_| discount_minor != 0 && net_minor >= 0);
    let least_minor = before.left_minor.saturating_neg().min(0);
    let given_minor = net_minor.min(0).max(least_minor);
    // Where nothing is left, nothing is said of the discount either.
    let discount = discount.filter(|_| given_minor != 0);
    let discount_minor = discount.as_ref().map_or(0, |line| line.priced.minor);
    let amount = Money::new(given_minor - discount_minor, currency);
    let given_before_minor = amount.minor - share.minor;
    let already = match (given_before_minor, given_minor, free_by) {
        (0, ..) => String::new(),
        (_, 0, Some(coupon)) => format!("; free by the coupon {}", coupon.code),
        (_, 0, None) => "; credited before".to_owned(),
        _ => "; part of it was credited before".to_owned(),
    };
    let base = DraftLine {
        subscription: Some(contract.subscription.id),
        service: Some(contract.service.id),
        kind: LineKind::Unused,
        description: format!(
            "{}: {}, {unused_days} of {} days not used (charged on {}{already})",
            contract.service.name, phase.plan.name, before.charge.nominal_days, before.number
        ),
        quantity: Decimal::ONE,
        unit: "credit".to_owned(),
        unit_price: amount.to_major(),
        priced: amount,
        amount,
        tax_group: 0,
        period_start_ms: unused.period.start_ms,
        period_end_ms: unused.period.end_ms,
        evidence: Evidence::Unused {
            corrects_invoice: before.invoice,
            corrects_number: before.number.clone(),
            corrects_line: before.line,
            charged: before.charge,
            discount_minor: 0,
            unused_days,
            given_before_minor,
            free_by: free_by.map(|coupon| coupon.code.clone()),
        },
    };
    Ok(std::iter::once(base).chain(discount).collect())
}

fn discount_unused(
    contract: &Contract,
    phase: &Phase,
    before: &ChargedBase,
    unused: &ChargedPeriod,
) -> Result<Option<DraftLine>, BillingError> {
    let Some(discount) = &before.discount else {
        return Ok(None);
    };
    let currency = phase.price.currency();
    let Period {
        start_date, end_date, ..
    } = unused.period;
    let until = discount.until.map_or(end_date, |until| until.min(end_date));
    let covered_days = before.charge.days - days_between(until, end_date);
    let unused_days = days_between(start_date, until).max(0);
    if covered_days <= 0 || unused_days == 0 {
        return Ok(None);
    }
    // What a coupon takes off a part of a period it takes off by months, so they are what is given back.
    let months = if until < end_date {
        let charged_from = end_date
            .checked_sub(before.charge.days.days())
            .map_err(|error| BillingError::Period(error.into()))?;
        Some(UnusedMonths {
            covered: months_within(contract, phase, &unused.nominal, (charged_from, until))?,
            unused: months_within(contract, phase, &unused.nominal, (start_date, until))?,
        })
    } else {
        None
    };
    let amount = Ratio::money(Money::new(discount.minor, currency))?
        .times(unused_share(unused_days, covered_days, months.as_ref())?)?
        .negated()?
        .to_money(currency)?;
    if amount.minor == 0 {
        return Ok(None);
    }
    Ok(Some(DraftLine {
        subscription: Some(contract.subscription.id),
        service: Some(contract.service.id),
        kind: LineKind::Discount,
        description: format!(
            "{}: discount ({}) of {unused_days} days not used (given on {})",
            contract.service.name, discount.code, before.number
        ),
        quantity: Decimal::ONE,
        unit: "discount".to_owned(),
        unit_price: amount.to_major(),
        priced: amount,
        amount,
        tax_group: 0,
        period_start_ms: unused.period.start_ms,
        period_end_ms: unused.period.end_ms,
        evidence: Evidence::DiscountUnused {
            corrects_invoice: before.invoice,
            corrects_number: before.number.clone(),
            corrects_line: discount.line,
            code: discount.code.clone(),
            discount_minor: discount.minor,
            covered_days,
            unused_days,
            months,
        },
    }))
}

/// The share of a discount that is not had: of the months that it covered, where it was taken off by months, else of its days.
///
/// # Errors
/// When a number does not fit.
pub fn unused_share(unused_days: i64, covered_days: i64, months: Option<&UnusedMonths>) -> Result<Ratio, BillingError> {
    Ok(match months {
        Some(months) => exact_months(&months.unused)?.divided_by(exact_months(&months.covered)?)?,
        None => Ratio::integer(unused_days.into()).over(covered_days.into())?,
    })
}

fn out_of_range(field: &'static str) -> BillingError {
    BillingError::corrupt(field, "out of range")
}

#[cfg(test)]
mod tests;
