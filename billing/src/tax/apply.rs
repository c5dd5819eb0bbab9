//! How much the taxes are.

use schemas::ids::InvoiceId;
use schemas::money::{Currency, Money, MoneyError};

use super::TaxRule;
use crate::ratio::Ratio;

/// The lines of a document that bear the same taxes, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaxGroup {
    pub invoice: InvoiceId,
    pub group: i64,
}

/// What one rule comes to on a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaxAmount {
    pub rule: TaxRule,
    /// What it is computed from: the net amounts of its group of lines.
    pub net: Money,
    pub tax: Money,
    /// Of the document's lines, those that are of this group bear it; from 0.
    pub group: i64,
    /// What the group corrects, where it gives back or adds to what another document charged.
    pub corrects: Option<TaxGroup>,
}

/// Taxes as one reads them: each rule once, with what it comes to over all groups of a document's lines.
pub fn merged(taxes: &[TaxAmount]) -> Vec<TaxAmount> {
    let mut merged: Vec<TaxAmount> = Vec::new();
    for amount in taxes {
        let same = merged.iter_mut().find(|other| other.rule == amount.rule);
        // Sums of a document fit, or it would not be one; where they do not, both are shown.
        let sums = same.as_ref().and_then(|other| {
            let net = other.net.checked_add(amount.net).ok()?;
            Some((net, other.tax.checked_add(amount.tax).ok()?))
        });
        match (same, sums) {
            (Some(other), Some((net, tax))) => (other.net, other.tax) = (net, tax),
            _ => merged.push(amount.clone()),
        }
    }
    merged
}

/// Lines with their taxes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taxed {
    /// The net amount of each line, in the lines' order.
    pub lines_net: Vec<Money>,
    pub taxes: Vec<TaxAmount>,
    /// Sum of the net amounts.
    pub subtotal: Money,
    /// Sum of the taxes.
    pub tax: Money,
    pub total: Money,
}

/// Computes taxes on lines of amounts that are net or, with `prices_include_tax`, what is paid in the end.
///
/// Net: the tax of a rule is the subtotal times its rate. Taxes included: the total is the sum of the lines; a rule of r % among
/// rules of Σr % is total × r / (100 + Σr), and the net lines are rounded so that they sum to what is left (largest
/// remainder), each within a minor unit of its exact value while there are at most two rules.
///
/// # Errors
/// When a line is in another currency or a sum does not fit.
pub fn apply(
    lines: &[Money],
    rules: &[TaxRule],
    prices_include_tax: bool,
    currency: Currency,
) -> Result<Taxed, MoneyError> {
    let sum = added(lines, currency)?;
    if !prices_include_tax {
        let mut taxes = Vec::with_capacity(rules.len());
        for rule in rules {
            let rate = Ratio::decimal(rule.rate.value())?;
            let exact = Ratio::decimal(sum.to_major())?.times(rate)?.over(100)?;
            taxes.push(exact.to_money(currency)?);
        }
        return taxed(lines.to_vec(), rules, &taxes, sum);
    }

    // Remainders fall on one side of zero, so what is below zero is computed above it and turned around.
    if is_below_zero(lines, sum) {
        let turned: Result<Vec<Money>, MoneyError> = lines.iter().map(|line| line.checked_neg()).collect();
        return turned_around(apply(&turned?, rules, true, currency)?);
    }

    let shares = Shares::of(rules)?;
    let mut taxes = Vec::with_capacity(rules.len());
    for rule in rules {
        let rate = Ratio::decimal(rule.rate.value())?.times(Ratio::integer(shares.scale))?;
        let exact = Ratio::decimal(sum.to_major())?.times(rate.over(shares.gross)?)?;
        taxes.push(exact.to_money(currency)?);
    }
    let mut subtotal = sum;
    for tax in &taxes {
        subtotal = subtotal.checked_add(tax.checked_neg()?)?;
    }
    taxed(net_lines(lines, &shares, subtotal)?, rules, &taxes, subtotal)
}

/// Whether amounts are more below zero than above it; where they come to nothing the first decides.
pub(super) fn is_below_zero(lines: &[Money], sum: Money) -> bool {
    let leads = if sum.minor == 0 {
        lines.iter().map(|line| line.minor).find(|&minor| minor != 0)
    } else {
        Some(sum.minor)
    };
    leads.is_some_and(|minor| minor < 0)
}

/// `net` parts of every `gross` parts are net: 100 and 100 + Σr, as integers.
pub(super) struct Shares {
    net: i128,
    pub(super) gross: i128,
    /// Ten to the power of the rates' decimal places: what both were multiplied by.
    pub(super) scale: i128,
}

impl Shares {
    pub(super) fn of(rules: &[TaxRule]) -> Result<Shares, MoneyError> {
        let mut gross = rust_decimal::Decimal::ONE_HUNDRED;
        for rule in rules {
            gross = gross.checked_add(rule.rate.value()).ok_or(MoneyError::Overflow)?;
        }
        let gross = gross.normalize();
        let scale = 10i128.checked_pow(gross.scale()).ok_or(MoneyError::Overflow)?;
        Ok(Shares {
            net: scale.checked_mul(100).ok_or(MoneyError::Overflow)?,
            gross: gross.mantissa(),
            scale,
        })
    }
}

/// Rounds each line's net amount down, then gives the minor units that are missing to the lines that lost most.
pub(super) fn net_lines(lines: &[Money], shares: &Shares, subtotal: Money) -> Result<Vec<Money>, MoneyError> {
    let mut nets = Vec::with_capacity(lines.len());
    let mut remainders = Vec::with_capacity(lines.len());
    let mut missing = i128::from(subtotal.minor);
    for line in lines {
        let scaled = i128::from(line.minor)
            .checked_mul(shares.net)
            .ok_or(MoneyError::Overflow)?;
        let net = scaled.div_euclid(shares.gross);
        missing -= net;
        nets.push(net);
        remainders.push(scaled.rem_euclid(shares.gross));
    }
    // Of equal losers the larger line bears the unit better; a line of nothing comes last.
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|&at| {
        let size = lines[at].minor.unsigned_abs();
        (std::cmp::Reverse(remainders[at]), std::cmp::Reverse(size), at)
    });
    if missing < 0 {
        // Two taxes that were both rounded up took a unit more than the lines lost: those that lost least give it.
        order.sort_by_key(|&at| {
            let size = lines[at].minor.unsigned_abs();
            (remainders[at], std::cmp::Reverse(size), at)
        });
    }
    // Rounding moves at most half a unit a rule, so this goes round once, or not at all.
    let step = missing.signum();
    for &at in order.iter().cycle() {
        if missing == 0 {
            break;
        }
        nets[at] += step;
        missing -= step;
    }
    let money = |minor: i128| {
        let minor = i64::try_from(minor).map_err(|_| MoneyError::Overflow)?;
        Ok(Money::new(minor, subtotal.currency))
    };
    nets.into_iter().map(money).collect()
}

pub(super) fn taxed(
    lines_net: Vec<Money>,
    rules: &[TaxRule],
    taxes: &[Money],
    subtotal: Money,
) -> Result<Taxed, MoneyError> {
    let tax = added(taxes, subtotal.currency)?;
    let amounts = rules.iter().zip(taxes).map(|(rule, &tax)| TaxAmount {
        rule: rule.clone(),
        net: subtotal,
        tax,
        group: 0,
        corrects: None,
    });
    Ok(Taxed {
        lines_net,
        taxes: amounts.collect(),
        subtotal,
        tax,
        total: subtotal.checked_add(tax)?,
    })
}

fn turned_around(taxed: Taxed) -> Result<Taxed, MoneyError> {
    let mut lines_net = taxed.lines_net;
    for line in &mut lines_net {
        *line = line.checked_neg()?;
    }
    let mut taxes = taxed.taxes;
    for amount in &mut taxes {
        amount.net = amount.net.checked_neg()?;
        amount.tax = amount.tax.checked_neg()?;
    }
    Ok(Taxed {
        lines_net,
        taxes,
        subtotal: taxed.subtotal.checked_neg()?,
        tax: taxed.tax.checked_neg()?,
        total: taxed.total.checked_neg()?,
    })
}

pub(super) fn added(amounts: &[Money], currency: Currency) -> Result<Money, MoneyError> {
    let mut sum = Money::zero(currency);
    for &amount in amounts {
        sum = sum.checked_add(amount)?;
    }
    Ok(sum)
}
