//! Exact fractions, and the one place where a cent is rounded (B2).
//!
//! An amount is computed as a fraction of 128-bit integers: no intermediate result is rounded, whatever the order of the
//! operations. [`Ratio::to_money`] turns it into minor units, half away from zero, once per line.

use rust_decimal::{Decimal, RoundingStrategy};
use schemas::money::{Currency, Money, MoneyError};

/// An exact fraction. The denominator is positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    pub const fn integer(value: i128) -> Ratio {
        Ratio {
            numerator: value,
            denominator: 1,
        }
    }

    /// A decimal as the fraction it is.
    ///
    /// # Errors
    /// When it has too many places; no stored decimal has.
    pub fn decimal(value: Decimal) -> Result<Ratio, MoneyError> {
        let value = value.normalize();
        let denominator = 10i128.checked_pow(value.scale()).ok_or(MoneyError::Overflow)?;
        Ok(Ratio {
            numerator: value.mantissa(),
            denominator,
        })
    }

    /// # Errors
    /// When the product does not fit.
    pub fn times(self, other: Ratio) -> Result<Ratio, MoneyError> {
        // Crosswise reduction first keeps the factors small.
        let left = common_divisor(self.numerator, other.denominator);
        let right = common_divisor(other.numerator, self.denominator);
        let numerator = (self.numerator / left).checked_mul(other.numerator / right);
        let denominator = (self.denominator / right).checked_mul(other.denominator / left);
        match (numerator, denominator) {
            (Some(numerator), Some(denominator)) => Ok(Ratio { numerator, denominator }),
            _ => Err(MoneyError::Overflow),
        }
    }

    /// # Errors
    /// When the sum does not fit.
    pub fn plus(self, other: Ratio) -> Result<Ratio, MoneyError> {
        let shared = common_divisor(self.denominator, other.denominator);
        let (own_factor, other_factor) = (other.denominator / shared, self.denominator / shared);
        let left = self.numerator.checked_mul(own_factor);
        let right = other.numerator.checked_mul(other_factor);
        let numerator = left.zip(right).and_then(|(left, right)| left.checked_add(right));
        let denominator = self.denominator.checked_mul(own_factor);
        let (Some(numerator), Some(denominator)) = (numerator, denominator) else {
            return Err(MoneyError::Overflow);
        };
        let reduce = common_divisor(numerator, denominator);
        Ok(Ratio {
            numerator: numerator / reduce,
            denominator: denominator / reduce,
        })
    }

    /// # Errors
    /// When the difference does not fit.
    pub fn minus(self, other: Ratio) -> Result<Ratio, MoneyError> {
        self.plus(other.negated()?)
    }

    /// # Errors
    /// When it does not fit.
    pub fn negated(self) -> Result<Ratio, MoneyError> {
        Ok(Ratio {
            numerator: self.numerator.checked_neg().ok_or(MoneyError::Overflow)?,
            ..self
        })
    }

    pub fn is_positive(self) -> bool {
        self.numerator > 0
    }

    pub fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// The smaller of two.
    ///
    /// # Errors
    /// When they cannot be compared within 128 bits.
    pub fn min(self, other: Ratio) -> Result<Ratio, MoneyError> {
        Ok(if self.minus(other)?.is_positive() { other } else { self })
    }

    /// An amount of money in major units.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn money(amount: Money) -> Result<Ratio, MoneyError> {
        Ratio::decimal(amount.to_major())
    }

    /// # Errors
    /// When the quotient does not fit or the divisor is not positive.
    pub fn over(self, divisor: i128) -> Result<Ratio, MoneyError> {
        if divisor <= 0 {
            return Err(MoneyError::Overflow);
        }
        self.times(Ratio {
            numerator: 1,
            denominator: divisor,
        })
    }

    /// # Errors
    /// When the quotient does not fit or the divisor is not positive.
    pub fn divided_by(self, divisor: Ratio) -> Result<Ratio, MoneyError> {
        if divisor.numerator <= 0 {
            return Err(MoneyError::Overflow);
        }
        self.times(Ratio {
            numerator: divisor.denominator,
            denominator: divisor.numerator,
        })
    }

    /// The largest integer that is not above it.
    pub fn floor(self) -> i128 {
        self.numerator.div_euclid(self.denominator)
    }

    /// The smallest integer that is not below it.
    pub fn ceil(self) -> i128 {
        self.floor() + i128::from(self.numerator.rem_euclid(self.denominator) != 0)
    }

    /// An amount of major units, rounded to minor units half away from zero.
    ///
    /// The fraction is cut (toward zero) one place behind the minor unit, and that place alone decides: 5 and up rounds
    /// away, whatever was cut off behind it. So cutting first and rounding then is exact.
    ///
    /// # Errors
    /// When the amount does not fit.
    pub fn to_money(self, currency: Currency) -> Result<Money, MoneyError> {
        Money::round_from_major(self.cut(currency.minor_digits() + 1)?, currency)
    }

    /// For people to read: rounded to `places` decimal places, half away from zero.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn to_decimal(self, places: u32) -> Result<Decimal, MoneyError> {
        let cut = self.cut(places + 1)?;
        Ok(cut
            .round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero)
            .normalize())
    }

    /// Cut toward zero behind `places` decimal places.
    fn cut(self, places: u32) -> Result<Decimal, MoneyError> {
        let scale = 10i128.checked_pow(places).ok_or(MoneyError::Overflow)?;
        let whole = self.numerator / self.denominator;
        let rest = self.numerator % self.denominator;
        let fraction = rest.checked_mul(scale).ok_or(MoneyError::Overflow)? / self.denominator;
        let scaled = whole.checked_mul(scale).and_then(|whole| whole.checked_add(fraction));
        let scaled = scaled.ok_or(MoneyError::Overflow)?;
        Decimal::try_from_i128_with_scale(scaled, places).map_err(|_| MoneyError::Overflow)
    }
}

/// Euclid; 1 where a number is 0, so that it can always divide.
fn common_divisor(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i128::try_from(a).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cents(numerator: i128, denominator: i128) -> i64 {
        let ratio = Ratio::integer(numerator).over(denominator).unwrap();
        ratio.to_money(Currency::USD).unwrap().minor
    }

    #[test]
    fn b2_a_fraction_is_rounded_once_half_away_from_zero() {
        for (numerator, denominator, minor) in [
            (1, 3, 33),
            (2, 3, 67),
            (1, 200, 1),
            (-1, 200, -1),
            (1, 201, 0),
            (999_999, 200_000_000, 0),
            (1_000_000, 200_000_000, 1),
            (-2, 3, -67),
            (23, 31, 74),
        ] {
            assert_eq!(cents(numerator, denominator), minor, "{numerator}/{denominator}");
        }
    }

    #[test]
    fn a_fraction_reads_as_a_decimal() {
        let share = Ratio::integer(23).over(31).unwrap();
        assert_eq!(share.to_decimal(9).unwrap().to_string(), "0.741935484");
        assert_eq!(Ratio::integer(5).to_decimal(6).unwrap().to_string(), "5");
        assert_eq!(Ratio::integer(-7).over(2).unwrap().floor(), -4);
        assert_eq!(Ratio::integer(-7).over(2).unwrap().ceil(), -3);
        assert_eq!(Ratio::integer(121).over(10).unwrap().ceil(), 13);
        assert_eq!(Ratio::integer(120).over(10).unwrap().ceil(), 12);
        let third = Ratio::integer(1).over(3).unwrap();
        let half = Ratio::integer(1).over(2).unwrap();
        assert_eq!(third.plus(half).unwrap(), Ratio::integer(5).over(6).unwrap());
        assert_eq!(third.minus(half).unwrap(), Ratio::integer(-1).over(6).unwrap());
        assert_eq!(third.min(half).unwrap(), third);
        assert!(Ratio::integer(1).over(0).is_err());
        assert!(Ratio::integer(i128::MAX).times(Ratio::integer(2)).is_err());
    }

    proptest! {
        #[test]
        fn b2_rounding_is_the_nearest_minor_unit(numerator in -1_000_000_000_000i128..1_000_000_000_000, denominator in 1i128..1_000_000) {
            let minor = i128::from(cents(numerator, denominator));
            let distance = (numerator * 100 - minor * denominator).abs() * 2;
            prop_assert!(distance <= denominator, "{} half units away", distance);
            // A tie goes away from zero: the rounded amount is never the smaller one.
            prop_assert!(distance < denominator || (minor * denominator).abs() > (numerator * 100).abs());
        }
    }
}
