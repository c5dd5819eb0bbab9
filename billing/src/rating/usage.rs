//! What a service used, as a charge: what is included, what is over it, and how a line says so.

use rust_decimal::Decimal;
use schemas::money::Currency;
use schemas::usage::{PeriodUsage, UsageMode};

use super::{BPS_PER_MBPS, DraftLine, QUANTITY_PLACES, RatedUsage, out_of_range};
use crate::BillingError;
use crate::catalog::{QuotaUnit, Terms, grouped};
use crate::evidence::{Evidence, Measured, PartialMonth, UsageCharge};
use crate::line_kind::LineKind;
use crate::price::PricePart;
use crate::ratio::Ratio;
use crate::subscription::{ChargedPeriod, Contract, Phase, Proration};

/// Decimal places of a number in the description of a line, at most.
const SHOWN_PLACES: u32 = 3;

/// How a phase charges usage in a month; `None` for flat plans.
///
/// # Errors
/// When an amount does not fit.
pub fn usage_charge(phase: &Phase, charged: &ChargedPeriod) -> Result<Option<UsageCharge>, BillingError> {
    let Proration { days, nominal_days } = charged.proration();
    let price = phase.price.usage.clone();
    let quantity = Ratio::integer(phase.quantity.into());
    match phase.plan.terms {
        Terms::Flat => Ok(None),
        Terms::Transfer {
            included_units, unit, ..
        } => {
            let share = Ratio::integer(days.into()).over(nominal_days.into())?;
            let included = i128::from(included_units) * i128::from(unit.bytes());
            let included = Ratio::integer(included).times(quantity)?.times(share)?.floor();
            Ok(Some(UsageCharge::Transfer {
                unit,
                included_bytes: u64::try_from(included).map_err(|_| out_of_range("included transfer"))?,
                from_pool_bytes: 0,
                price,
            }))
        }
        Terms::Percentile { commit_mbps, .. } => {
            let mut commit = Ratio::decimal(commit_mbps)?
                .times(Ratio::integer(BPS_PER_MBPS.into()))?
                .times(quantity)?;
            let held = (!charged.is_whole_days).then(|| PartialMonth {
                ms: charged.period.duration_ms(),
                nominal_ms: charged.nominal.duration_ms(),
            });
            if let Some(held) = held {
                let paid = Ratio::integer(days.into()).over(nominal_days.into())?;
                let share = paid.divided_by(held_share(held)?)?.min(Ratio::integer(1))?;
                commit = commit.times(share)?;
            }
            Ok(Some(UsageCharge::Percentile {
                commit_bps: u64::try_from(commit.floor()).map_err(|_| out_of_range("commit"))?,
                from_pool_bps: 0,
                price,
                days,
                nominal_days,
                held,
            }))
        }
    }
}

/// Units over what is included or committed, and the share of the month that they are charged for; exact.
fn units_over(charge: &UsageCharge, measured: &Measured) -> Result<(Ratio, Ratio), BillingError> {
    Ok(match *charge {
        UsageCharge::Transfer {
            unit,
            included_bytes,
            from_pool_bytes,
            ..
        } => {
            let free_bytes = included_bytes.saturating_add(from_pool_bytes);
            let over_bytes = measured.billed_bytes.saturating_sub(free_bytes);
            (
                Ratio::integer(over_bytes.into()).over(unit.bytes().into())?,
                Ratio::integer(1),
            )
        }
        UsageCharge::Percentile {
            commit_bps,
            from_pool_bps,
            days,
            nominal_days,
            held,
            ..
        } => {
            let free_bps = commit_bps.saturating_add(from_pool_bps);
            let over_bps = measured.percentile_95_bps.unwrap_or(0).saturating_sub(free_bps);
            let share = match held {
                Some(held) => held_share(held)?,
                None => Ratio::integer(days.into()).over(nominal_days.into())?,
            };
            (Ratio::integer(over_bps.into()).over(BPS_PER_MBPS.into())?, share)
        }
    })
}

/// Rates measured usage.
///
/// # Errors
/// When the amount does not fit.
pub fn rate_usage(charge: &UsageCharge, measured: &Measured, currency: Currency) -> Result<RatedUsage, BillingError> {
    let (quantity, share) = units_over(charge, measured)?;
    let amount = charge.price().amount(quantity)?.times(share)?;
    Ok(RatedUsage {
        quantity: quantity.to_decimal(QUANTITY_PLACES)?,
        unit_price: charge.price().shown_rate(quantity)?,
        amount: amount.to_money(currency)?,
    })
}

/// What rated usage comes to before it is rounded, part by part: nothing is stored of it, it follows from the evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageParts {
    /// By the rates of the price, for a whole month.
    pub parts: Vec<PricePart>,
    /// Of the parts' sum, with the month's share taken; in major units.
    pub exact: Ratio,
}

/// Takes apart what [`rate_usage`] charges.
///
/// # Errors
/// When the amount does not fit.
pub fn usage_parts(charge: &UsageCharge, measured: &Measured) -> Result<UsageParts, BillingError> {
    let (quantity, share) = units_over(charge, measured)?;
    Ok(UsageParts {
        parts: charge.price().parts(quantity)?,
        exact: charge.price().amount(quantity)?.times(share)?,
    })
}

/// The line for usage; `None` for flat plans. It is there even when nothing is over what is included, so that every
/// period shows what was measured. `from_pool` is what other services leave of theirs; `None` where usage is not pooled.
///
/// # Errors
/// When the amount does not fit.
pub fn usage_line(
    contract: &Contract,
    phase: &Phase,
    charged: &ChargedPeriod,
    usage: &PeriodUsage,
    excluded: &[(i64, i64)],
    from_pool: Option<u64>,
) -> Result<Option<DraftLine>, BillingError> {
    let Some(charge) = usage_charge(phase, charged)? else {
        return Ok(None);
    };
    let charge = charge.with_pool(from_pool.unwrap_or(0));
    let mode = phase.plan.terms.mode().unwrap_or(UsageMode::Sum);
    let measured = Measured::new(usage, mode, excluded);
    let rated = rate_usage(&charge, &measured, phase.price.currency())?;
    let (kind, unit) = match &charge {
        UsageCharge::Transfer { unit, .. } => (LineKind::TransferOverage, unit.name()),
        UsageCharge::Percentile { .. } => (LineKind::PercentileOverage, "Mbit/s"),
    };
    Ok(Some(DraftLine {
        subscription: Some(contract.subscription.id),
        service: Some(contract.service.id),
        kind,
        description: format!("{}: {}", contract.service.name, describe(&charge, &measured)?),
        quantity: rated.quantity,
        unit: unit.to_owned(),
        unit_price: rated.unit_price,
        priced: rated.amount,
        amount: rated.amount,
        tax_group: 0,
        period_start_ms: charged.period.start_ms,
        period_end_ms: charged.period.end_ms,
        evidence: Evidence::Usage {
            charge,
            measured,
            is_pooled: Some(from_pool.is_some()),
        },
    }))
}

/// An amount in units, as people read it: `2,813.43`.
fn shown(amount: u64, unit: u64) -> Result<String, BillingError> {
    let units = Ratio::integer(amount.into()).over(unit.into())?;
    let units = units.to_decimal(SHOWN_PLACES)?.to_string();
    Ok(match units.split_once('.') {
        Some((whole, fraction)) => format!("{}.{fraction}", grouped(whole)),
        None => grouped(&units),
    })
}

/// `transfer 1,234.5 GiB (in + out), 1,000 GiB included; 12 of 8,640 windows not measured (2 gaps)`.
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
    let mut text = match charge {
        UsageCharge::Transfer {
            unit,
            included_bytes,
            from_pool_bytes,
            ..
        } => {
            let mut text = format!(
                "transfer {} {unit} ({directions}), {} {unit} included",
                shown(measured.billed_bytes, unit.bytes())?,
                shown(*included_bytes, unit.bytes())?,
            );
            if *from_pool_bytes > 0 {
                text.push_str(&format!(
                    ", {} {unit} from other services",
                    shown(*from_pool_bytes, unit.bytes())?
                ));
            }
            text
        }
        UsageCharge::Percentile {
            commit_bps,
            from_pool_bps,
            days,
            nominal_days,
            held,
            ..
        } => {
            let committed = shown(*commit_bps, BPS_PER_MBPS)?;
            let mut text = match measured.percentile_95_bps {
                Some(bps) => format!(
                    "95th percentile {} Mbit/s ({directions}), {committed} Mbit/s committed",
                    shown(bps, BPS_PER_MBPS)?
                ),
                None => format!("95th percentile not measured, {committed} Mbit/s committed"),
            };
            if *from_pool_bps > 0 {
                let pooled = shown(*from_pool_bps, BPS_PER_MBPS)?;
                text.push_str(&format!(", {pooled} Mbit/s from other services"));
            }
            if let Some(held) = held {
                text.push_str(&format!(", {} of {nominal_days} days", held_days(held, *nominal_days)?));
            } else if days != nominal_days {
                text.push_str(&format!(", {days} of {nominal_days} days"));
            }
            text
        }
    };
    if measured.windows_excluded > 0 {
        let bytes = measured.excluded_bytes_in.saturating_add(measured.excluded_bytes_out);
        let windows = measured.windows_excluded;
        let unit = match charge {
            UsageCharge::Transfer { unit, .. } => *unit,
            UsageCharge::Percentile { .. } => QuotaUnit::Gib,
        };
        text.push_str(&format!(
            "; {} {} of attack traffic not counted ({} {unit})",
            grouped(&windows.to_string()),
            if windows == 1 { "window" } else { "windows" },
            shown(bytes, unit.bytes())?
        ));
    }
    let counted = measured.windows_measured.saturating_add(measured.windows_excluded);
    let missing = measured.windows_expected.saturating_sub(counted);
    if missing > 0 {
        let gaps = match measured.gaps.len() {
            1 => "1 gap".to_owned(),
            gaps => format!("{gaps} gaps"),
        };
        text.push_str(&format!(
            "; {} of {} windows not measured ({gaps})",
            grouped(&missing.to_string()),
            grouped(&measured.windows_expected.to_string())
        ));
    }
    Ok(text)
}

fn held_share(held: PartialMonth) -> Result<Ratio, BillingError> {
    Ok(Ratio::integer(held.ms.into()).over(held.nominal_ms.into())?)
}

/// What a part of a month comes to in days, as people read it.
///
/// # Errors
/// When the number does not fit.
pub fn held_days(held: &PartialMonth, nominal_days: i64) -> Result<Decimal, BillingError> {
    let days = i128::from(held.ms) * i128::from(nominal_days);
    Ok(Ratio::integer(days)
        .over(held.nominal_ms.into())?
        .to_decimal(2)?
        .normalize())
}
