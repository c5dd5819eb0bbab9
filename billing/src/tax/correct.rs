//! The tax of what is taken back, or charged more, of what was charged before.
//!
//! A correction bears the taxes that its lines were charged with: the same rules, whatever holds now. What stays charged
//! bears its proportion of the tax that was charged; the tax of a correction is the difference between what stayed before it
//! and what stays after it. So the order and the number of corrections make no difference, each tax is within a minor
//! unit of its rate, and when nothing stays no tax stays either:
//!
//! ```text
//! charged 100.30 + 19.06   given back in ten parts of 10.03: tax 1.91, 1.90, 1.91, 1.90 … 1.91 = 19.06, left 0.00 + 0.00
//! ```
//!
//! What is charged more later is a charge of its own on another document, beside the first one. Its tax is the difference,
//! too, by the rate beyond what was charged at first; but each charge gives back its own net and its own tax, so that of
//! neither a tax stays when its net is gone, in whatever order they go:
//!
//! ```text
//! charged      77.00 + 14.63   credited −13.76 − 2.61   left 63.24 + 12.02
//! more later   38.50 +  7.31   as 101.74 bear 19.33
//! all is given back: −63.24 − 12.02 of the first, −38.50 − 7.31 of the second, together −101.74 − 19.33
//! ```

use schemas::money::{Currency, Money, MoneyError};

use super::apply::{Shares, Taxed, added, is_below_zero, net_lines, taxed};
use super::{TaxAmount, TaxRule};
use crate::ratio::Ratio;

/// A group of an invoice as it was charged, and what corrections have made of it since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargedTax {
    /// Of each rule, as charged; all of them on the same net.
    pub taxes: Vec<TaxAmount>,
    /// What corrections of these lines have added since, negative where they gave back.
    pub since_net: Money,
    /// The same for the tax of each rule.
    pub since_taxes: Vec<Money>,
    /// What later documents charge more for the same, as far as it stays: charges beside these lines.
    pub beside_net: Money,
    /// The same for the tax of each rule.
    pub beside_taxes: Vec<Money>,
}

impl ChargedTax {
    pub fn new(currency: Currency) -> ChargedTax {
        ChargedTax {
            taxes: Vec::new(),
            since_net: Money::zero(currency),
            since_taxes: Vec::new(),
            beside_net: Money::zero(currency),
            beside_taxes: Vec::new(),
        }
    }

    /// Takes note of a tax of the group, as it was charged.
    pub fn charge(&mut self, amount: TaxAmount) {
        self.since_taxes.push(Money::zero(amount.tax.currency));
        self.beside_taxes.push(Money::zero(amount.tax.currency));
        self.taxes.push(amount);
    }

    /// Takes note of a correction of these lines.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub fn add(&mut self, correction: &[TaxAmount]) -> Result<(), MoneyError> {
        add_to(&mut self.since_net, &mut self.since_taxes, correction)
    }

    /// Takes note of what was charged more for the same, or of a correction of that.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub fn add_beside(&mut self, charged: &[TaxAmount]) -> Result<(), MoneyError> {
        add_to(&mut self.beside_net, &mut self.beside_taxes, charged)
    }

    /// What stays of the net amount.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn left_net(&self) -> Result<Money, MoneyError> {
        self.charged_net().checked_add(self.since_net)
    }

    /// What stays, with tax.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn left_gross(&self) -> Result<Money, MoneyError> {
        gross(self.left_net()?, &self.left_taxes()?)
    }

    /// The taxes of lines that give back of this group, which are priced as the group's own were.
    ///
    /// # Errors
    /// When a line is in another currency or a sum does not fit.
    pub fn correct(&self, lines: &[Money], prices_include_tax: bool, currency: Currency) -> Result<Taxed, MoneyError> {
        let taxes = self.left_taxes()?;
        self.difference(
            lines,
            (self.left_net()?, taxes.as_slice()),
            prices_include_tax,
            currency,
        )
    }

    /// The taxes of lines that charge more for what this group charges, which are priced as the group's own were.
    ///
    /// # Errors
    /// As [`ChargedTax::correct`].
    pub fn charge_more(
        &self,
        lines: &[Money],
        prices_include_tax: bool,
        currency: Currency,
    ) -> Result<Taxed, MoneyError> {
        let net = self.left_net()?.checked_add(self.beside_net)?;
        let mut taxes = self.left_taxes()?;
        for (tax, beside) in taxes.iter_mut().zip(&self.beside_taxes) {
            *tax = tax.checked_add(*beside)?;
        }
        self.difference(lines, (net, taxes.as_slice()), prices_include_tax, currency)
    }

    /// The taxes of lines by what they make of a net amount and its taxes that were there before.
    fn difference(
        &self,
        lines: &[Money],
        (before_net, before_taxes): (Money, &[Money]),
        prices_include_tax: bool,
        currency: Currency,
    ) -> Result<Taxed, MoneyError> {
        let rules: Vec<TaxRule> = self.taxes.iter().map(|amount| amount.rule.clone()).collect();
        let shares = Shares::of(&rules)?;
        let sum = added(lines, currency)?;
        let (charged, before) = if prices_include_tax {
            (self.charged_gross()?, gross(before_net, before_taxes)?)
        } else {
            (self.charged_net(), before_net)
        };
        let stays = before.checked_add(sum)?;
        let mut taxes = Vec::with_capacity(rules.len());
        for (amount, before_tax) in self.taxes.iter().zip(before_taxes) {
            let stays_tax = tax_that_stays(amount, charged, stays, &shares, prices_include_tax)?;
            taxes.push(stays_tax.checked_add(before_tax.checked_neg()?)?);
        }
        if !prices_include_tax {
            return taxed(lines.to_vec(), &rules, &taxes, sum);
        }
        let mut subtotal = sum;
        for tax in &taxes {
            subtotal = subtotal.checked_add(tax.checked_neg()?)?;
        }
        // Remainders fall on one side of zero, so what is below zero is computed above it and turned around.
        let nets = if is_below_zero(lines, sum) {
            let turned: Result<Vec<Money>, MoneyError> = lines.iter().map(|line| line.checked_neg()).collect();
            let nets = net_lines(&turned?, &shares, subtotal.checked_neg()?)?;
            nets.iter().map(|net| net.checked_neg()).collect::<Result<_, _>>()?
        } else {
            net_lines(lines, &shares, subtotal)?
        };
        taxed(nets, &rules, &taxes, subtotal)
    }

    /// What stays of the tax of each rule.
    fn left_taxes(&self) -> Result<Vec<Money>, MoneyError> {
        let taxes = self.taxes.iter().zip(&self.since_taxes);
        taxes.map(|(amount, since)| amount.tax.checked_add(*since)).collect()
    }

    fn charged_net(&self) -> Money {
        // A document says which tax holds, be it none, so there is a first.
        self.taxes
            .first()
            .map_or(Money::zero(self.since_net.currency), |amount| amount.net)
    }

    fn charged_gross(&self) -> Result<Money, MoneyError> {
        let taxes: Vec<Money> = self.taxes.iter().map(|amount| amount.tax).collect();
        gross(self.charged_net(), &taxes)
    }
}

fn gross(net: Money, taxes: &[Money]) -> Result<Money, MoneyError> {
    let mut gross = net;
    for tax in taxes {
        gross = gross.checked_add(*tax)?;
    }
    Ok(gross)
}

/// Adds the net and the tax of each rule to sums of the same rules.
fn add_to(net: &mut Money, taxes: &mut [Money], amounts: &[TaxAmount]) -> Result<(), MoneyError> {
    if let Some(first) = amounts.first() {
        *net = net.checked_add(first.net)?;
    }
    for (sum, amount) in taxes.iter_mut().zip(amounts) {
        *sum = sum.checked_add(amount.tax)?;
    }
    Ok(())
}

/// The tax of a rule on what stays of what was charged: its proportion, and by the rate what goes beyond.
fn tax_that_stays(
    amount: &TaxAmount,
    charged: Money,
    stays: Money,
    shares: &Shares,
    prices_include_tax: bool,
) -> Result<Money, MoneyError> {
    let by_rate = |of: Money| -> Result<Money, MoneyError> {
        let rate = Ratio::decimal(amount.rule.rate.value())?;
        let of = Ratio::decimal(of.to_major())?;
        let exact = if prices_include_tax {
            of.times(rate.times(Ratio::integer(shares.scale))?.over(shares.gross)?)?
        } else {
            of.times(rate)?.over(100)?
        };
        exact.to_money(charged.currency)
    };
    if charged.minor == 0 || charged.minor.signum() * stays.minor.signum() < 0 {
        return by_rate(stays);
    }
    if stays.minor.unsigned_abs() > charged.minor.unsigned_abs() {
        let beyond = stays.checked_add(charged.checked_neg()?)?;
        return amount.tax.checked_add(by_rate(beyond)?);
    }
    Ratio::money(amount.tax)?
        .times(Ratio::integer(i128::from(stays.minor.unsigned_abs())))?
        .over(i128::from(charged.minor.unsigned_abs()))?
        .to_money(charged.currency)
}

#[cfg(test)]
mod tests;
