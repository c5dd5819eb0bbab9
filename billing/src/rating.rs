//! Plan + price + usage + period → invoice lines. Pure functions: the same input gives the same lines.
//!
//! * Base: the price of the cycle, for its calendar days out of the nominal period's.
//! * Transfer: billed bytes over the included bytes, at the rate of a quota unit, to the byte. In a first period that is
//!   shorter than the nominal one the included transfer is prorated by days and floored to the byte.
//! * Percentile: 95th percentile over the commit, in Mbps of 10⁶ bit/s, at the rate of an Mbps; the rate is for a nominal
//!   period, so a shorter one is prorated by days.
//!
//! Every amount is an exact fraction, rounded once ([`Ratio::to_money`], B2). Quantities on lines are for people to read,
//! rounded to [`QUANTITY_PLACES`]; the exact bytes are in the evidence. Gaps are named in the description and not counted.

use analytics::{PeriodUsage, UsageMode};
use rust_decimal::Decimal;
use schemas::ids::{ServiceId, SubscriptionId};
use schemas::money::{Currency, Money};

use crate::BillingError;
use crate::catalog::Terms;
use crate::evidence::{Evidence, Measured, UsageCharge};
use crate::ratio::Ratio;
use crate::subscription::{ChargedPeriod, Contract, Proration};

/// Decimal places of a quantity on a line.
pub const QUANTITY_PLACES: u32 = 6;
/// Bits per second in an Mbps.
pub const BPS_PER_MBPS: u64 = 1_000_000;

/// What a line charges for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    Base,
    TransferOverage,
    PercentileOverage,
    Adjustment,
}

impl LineKind {
    pub const ALL: [LineKind; 4] = [
        LineKind::Base,
        LineKind::TransferOverage,
        LineKind::PercentileOverage,
        LineKind::Adjustment,
    ];

    pub fn name(self) -> &'static str {
        match self {
            LineKind::Base => "base",
            LineKind::TransferOverage => "transfer_overage",
            LineKind::PercentileOverage => "percentile_overage",
            LineKind::Adjustment => "adjustment",
        }
    }

    /// True for lines that come from measured usage.
    pub fn is_usage(self) -> bool {
        self != LineKind::Base
    }
}

impl std::str::FromStr for LineKind {
    type Err = BillingError;

    fn from_str(text: &str) -> Result<LineKind, BillingError> {
        let kind = LineKind::ALL.into_iter().find(|kind| kind.name() == text);
        kind.ok_or_else(|| BillingError::corrupt("line kind", text))
    }
}

/// A line before it is on an invoice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DraftLine {
    pub subscription: SubscriptionId,
    pub service: ServiceId,
    pub kind: LineKind,
    pub description: String,
    pub quantity: Decimal,
    pub unit: String,
    /// Major units per unit.
    pub unit_price: Decimal,
    pub amount: Money,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    pub evidence: Evidence,
}

/// What usage costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RatedUsage {
    /// Units over what is included.
    pub quantity: Decimal,
    pub amount: Money,
}

/// The line for the base price.
///
/// # Errors
/// When the amount does not fit.
pub fn base_line(contract: &Contract, charged: &ChargedPeriod) -> Result<DraftLine, BillingError> {
    let price = &contract.price;
    let Proration { days, nominal_days } = charged.proration();
    let share = Ratio::integer(days.into()).over(nominal_days.into())?;
    let amount = Ratio::decimal(price.base.to_major())?.times(share)?;
    let cycle = match price.cycle_months {
        1 => "month".to_owned(),
        months => format!("{months} months"),
    };
    let for_days = if charged.proration().is_full() {
        String::new()
    } else {
        format!(", {days} of {nominal_days} days")
    };
    Ok(DraftLine {
        subscription: contract.subscription.id,
        service: contract.service.id,
        kind: LineKind::Base,
        description: format!("{}: {}{for_days}", contract.service.name, contract.plan.name),
        quantity: share.to_decimal(QUANTITY_PLACES)?,
        unit: cycle,
        unit_price: price.base.to_major(),
        amount: amount.to_money(price.currency())?,
        period_start_ms: charged.period.start_ms,
        period_end_ms: charged.period.end_ms,
        evidence: Evidence::Base {
            base_minor: price.base.minor,
            days,
            nominal_days,
        },
    })
}

/// How the contract charges usage in a period; `None` for flat plans.
///
/// # Errors
/// When an amount does not fit.
pub fn usage_charge(contract: &Contract, charged: &ChargedPeriod) -> Result<Option<UsageCharge>, BillingError> {
    let Proration { days, nominal_days } = charged.proration();
    let rate = contract.price.usage_rate;
    match contract.plan.terms {
        Terms::Flat => Ok(None),
        Terms::Transfer {
            included_units, unit, ..
        } => {
            let share = Ratio::integer(days.into()).over(nominal_days.into())?;
            let included = i128::from(included_units) * i128::from(unit.bytes());
            let included = Ratio::integer(included).times(share)?.floor();
            Ok(Some(UsageCharge::Transfer {
                unit,
                included_bytes: u64::try_from(included).map_err(|_| out_of_range("included transfer"))?,
                rate,
            }))
        }
        Terms::Percentile { commit_mbps, .. } => {
            let commit = Ratio::decimal(commit_mbps)?.times(Ratio::integer(BPS_PER_MBPS.into()))?;
            Ok(Some(UsageCharge::Percentile {
                commit_bps: u64::try_from(commit.floor()).map_err(|_| out_of_range("commit"))?,
                rate,
                days,
                nominal_days,
            }))
        }
    }
}

fn out_of_range(field: &'static str) -> BillingError {
    BillingError::corrupt(field, "out of range")
}

/// Rates measured usage.
///
/// # Errors
/// When the amount does not fit.
pub fn rate_usage(charge: &UsageCharge, measured: &Measured, currency: Currency) -> Result<RatedUsage, BillingError> {
    let (quantity, share) = match *charge {
        UsageCharge::Transfer {
            unit, included_bytes, ..
        } => {
            let over_bytes = measured.billed_bytes.saturating_sub(included_bytes);
            (
                Ratio::integer(over_bytes.into()).over(unit.bytes().into())?,
                Ratio::integer(1),
            )
        }
        UsageCharge::Percentile {
            commit_bps,
            days,
            nominal_days,
            ..
        } => {
            let over_bps = measured.percentile_95_bps.unwrap_or(0).saturating_sub(commit_bps);
            (
                Ratio::integer(over_bps.into()).over(BPS_PER_MBPS.into())?,
                Ratio::integer(days.into()).over(nominal_days.into())?,
            )
        }
    };
    let amount = quantity.times(Ratio::decimal(charge.rate())?)?.times(share)?;
    Ok(RatedUsage {
        quantity: quantity.to_decimal(QUANTITY_PLACES)?,
        amount: amount.to_money(currency)?,
    })
}

/// The line for usage; `None` for flat plans. It is there even when nothing is over what is included, so that every
/// period shows what was measured.
///
/// # Errors
/// When the amount does not fit.
pub fn usage_line(
    contract: &Contract,
    charged: &ChargedPeriod,
    usage: &PeriodUsage,
) -> Result<Option<DraftLine>, BillingError> {
    let Some(charge) = usage_charge(contract, charged)? else {
        return Ok(None);
    };
    let mode = contract.plan.terms.mode().unwrap_or(UsageMode::Sum);
    let measured = Measured::new(usage, mode);
    let rated = rate_usage(&charge, &measured, contract.price.currency())?;
    let (kind, unit) = match &charge {
        UsageCharge::Transfer { unit, .. } => (LineKind::TransferOverage, unit.name()),
        UsageCharge::Percentile { .. } => (LineKind::PercentileOverage, "Mbps"),
    };
    Ok(Some(DraftLine {
        subscription: contract.subscription.id,
        service: contract.service.id,
        kind,
        description: format!("{}: {}", contract.service.name, describe(&charge, &measured)?),
        quantity: rated.quantity,
        unit: unit.to_owned(),
        unit_price: charge.rate(),
        amount: rated.amount,
        period_start_ms: charged.period.start_ms,
        period_end_ms: charged.period.end_ms,
        evidence: Evidence::Usage { charge, measured },
    }))
}

/// `transfer 1234.5 GiB in + out, 1000 GiB included; 12 of 8640 windows not measured (2 gaps)`.
///
/// # Errors
/// When a number does not fit.
pub fn describe(charge: &UsageCharge, measured: &Measured) -> Result<String, BillingError> {
    let directions = match measured.mode {
        UsageMode::Sum => "in + out",
        UsageMode::In => "in",
        UsageMode::Out => "out",
        UsageMode::Max => "larger of in and out",
    };
    let of = |amount: u64, unit: u64| -> Result<Decimal, BillingError> {
        Ok(Ratio::integer(amount.into())
            .over(unit.into())?
            .to_decimal(QUANTITY_PLACES)?)
    };
    let mut text = match charge {
        UsageCharge::Transfer {
            unit, included_bytes, ..
        } => format!(
            "transfer {} {unit} ({directions}), {} {unit} included",
            of(measured.billed_bytes, unit.bytes())?,
            of(*included_bytes, unit.bytes())?,
        ),
        UsageCharge::Percentile {
            commit_bps,
            days,
            nominal_days,
            ..
        } => {
            let committed = of(*commit_bps, BPS_PER_MBPS)?;
            let mut text = match measured.percentile_95_bps {
                Some(bps) => format!(
                    "95th percentile {} Mbps ({directions}), {committed} Mbps committed",
                    of(bps, BPS_PER_MBPS)?
                ),
                None => format!("95th percentile not measured, {committed} Mbps committed"),
            };
            if days != nominal_days {
                text.push_str(&format!(", {days} of {nominal_days} days"));
            }
            text
        }
    };
    let missing = measured.windows_expected.saturating_sub(measured.windows_measured);
    if missing > 0 {
        let gaps = match measured.gaps.len() {
            1 => "1 gap".to_owned(),
            gaps => format!("{gaps} gaps"),
        };
        text.push_str(&format!(
            "; {missing} of {} windows not measured ({gaps})",
            measured.windows_expected
        ));
    }
    Ok(text)
}

/// All lines of one contract for one period.
///
/// # Errors
/// When an amount does not fit.
pub fn lines(
    contract: &Contract,
    charged: &ChargedPeriod,
    usage: Option<&PeriodUsage>,
) -> Result<Vec<DraftLine>, BillingError> {
    let mut lines = vec![base_line(contract, charged)?];
    if let Some(usage) = usage {
        lines.extend(usage_line(contract, charged, usage)?);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
