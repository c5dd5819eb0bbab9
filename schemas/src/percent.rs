//! Percentages as exact decimals.

use rust_decimal::Decimal;

/// A percentage from 0 to 100, exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Percent(Decimal);

/// The value is not between 0 and 100.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a percentage lies between 0 and 100, not {0}")]
pub struct PercentError(pub Decimal);

impl Percent {
    pub const ZERO: Percent = Percent(Decimal::ZERO);

    /// # Errors
    /// When the value is below 0 or above 100.
    pub fn new(value: Decimal) -> Result<Percent, PercentError> {
        if value < Decimal::ZERO || value > Decimal::ONE_HUNDRED {
            return Err(PercentError(value));
        }
        Ok(Percent(value))
    }

    /// The value as people write it: 19 for 19 %.
    pub fn value(self) -> Decimal {
        self.0
    }

    /// The value as a factor: 0.19 for 19 %.
    pub fn fraction(self) -> Decimal {
        self.0 / Decimal::ONE_HUNDRED
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", self.0.normalize())
    }
}
