//! Money: an integer count of minor units and a currency. Never a float (B2).

use rust_decimal::{Decimal, RoundingStrategy};

/// An ISO 4217 currency code with its number of minor digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Currency([u8; 3]);

/// Currencies without minor units (ISO 4217, list one).
const ZERO_DIGITS: [&str; 16] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF",
];
/// Currencies with three minor digits.
const THREE_DIGITS: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// Why an amount could not be made or changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MoneyError {
    #[error("a currency is three capital letters (ISO 4217), not {0:?}")]
    Currency(String),
    #[error("no currency has the code {0} (ISO 4217), such as EUR or USD")]
    NotInUse(Currency),
    #[error("amounts in {0} and {1} cannot be added")]
    Mixed(Currency, Currency),
    #[error("the amount is too large")]
    Overflow,
    #[error("{amount} is finer than the smallest unit of {currency}")]
    TooFine { amount: Decimal, currency: Currency },
}

crate::error_codes! {
    MoneyError: "money";
    of []
    source []
    Refused:
        Currency = "currency", NotInUse = "not_in_use", Mixed = "mixed", Overflow = "overflow", TooFine = "too_fine";
}

impl Currency {
    pub const USD: Currency = Currency(*b"USD");
    pub const EUR: Currency = Currency(*b"EUR");

    /// A currency as somebody typed it: one that is in use.
    ///
    /// # Errors
    /// When the text has not the form of a code, or no currency has it.
    pub fn in_use(text: &str) -> Result<Currency, MoneyError> {
        let currency: Currency = text.parse()?;
        if currency.is_in_use() {
            Ok(currency)
        } else {
            Err(MoneyError::NotInUse(currency))
        }
    }

    /// Whether people pay with it today. What is stored may be of a currency that has been withdrawn since.
    pub fn is_in_use(&self) -> bool {
        crate::iso::is_currency(self.code())
    }

    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Digits after the decimal point: 2, 0 (JPY) or 3 (KWD).
    pub fn minor_digits(&self) -> u32 {
        match self.code() {
            code if ZERO_DIGITS.contains(&code) => 0,
            code if THREE_DIGITS.contains(&code) => 3,
            _ => 2,
        }
    }
}

/// By its form alone, as what is stored is read; what somebody types goes through [`Currency::in_use`].
impl std::str::FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Currency, MoneyError> {
        match text.as_bytes() {
            [a, b, c] if text.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(Currency([*a, *b, *c])),
            _ => Err(MoneyError::Currency(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl serde::Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl utoipa::PartialSchema for Currency {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        crate::api_text::schema("A currency, by its code of ISO 4217.", "^[A-Z]{3}$", "EUR")
    }
}

impl utoipa::ToSchema for Currency {}

/// An amount of one currency in minor units (cents).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl Money {
    pub const fn new(minor: i64, currency: Currency) -> Money {
        Money { minor, currency }
    }

    pub const fn zero(currency: Currency) -> Money {
        Money { minor: 0, currency }
    }

    /// Rounds an exact amount of major units to minor units, half away from zero: the one place a cent is rounded (B2).
    ///
    /// # Errors
    /// When it does not fit.
    pub fn round_from_major(major: Decimal, currency: Currency) -> Result<Money, MoneyError> {
        let scale = Decimal::from(10i64.pow(currency.minor_digits()));
        let minor = major.checked_mul(scale).ok_or(MoneyError::Overflow)?;
        let minor = minor.round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
        Ok(Money {
            minor: i64::try_from(minor).map_err(|_| MoneyError::Overflow)?,
            currency,
        })
    }

    /// An amount of major units as somebody wrote it: to the minor unit, never rounded.
    ///
    /// # Errors
    /// When it has more decimal places than the currency, or does not fit.
    pub fn exact_from_major(major: Decimal, currency: Currency) -> Result<Money, MoneyError> {
        let money = Money::round_from_major(major, currency)?;
        if money.to_major() != major {
            return Err(MoneyError::TooFine {
                amount: major,
                currency,
            });
        }
        Ok(money)
    }

    /// The amount in major units, exact.
    pub fn to_major(self) -> Decimal {
        Decimal::new(self.minor, self.currency.minor_digits())
    }

    /// # Errors
    /// When the currencies differ or the sum does not fit.
    pub fn checked_add(self, other: Money) -> Result<Money, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed(self.currency, other.currency));
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, ..self })
    }

    /// # Errors
    /// When the negated amount does not fit.
    pub fn checked_neg(self) -> Result<Money, MoneyError> {
        Ok(Money {
            minor: self.minor.checked_neg().ok_or(MoneyError::Overflow)?,
            ..self
        })
    }
}

impl Money {
    /// The size of the amount with its separators and no currency: `1,234.50` of -1,234.50 as well.
    pub fn digits(self) -> String {
        let digits = self.currency.minor_digits() as usize;
        let text = format!("{:0width$}", self.minor.unsigned_abs(), width = digits + 1);
        let (whole, fraction) = text.split_at(text.len() - digits);
        let mut grouped = String::new();
        for (i, digit) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i) % 3 == 0 {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        let point = if digits > 0 { "." } else { "" };
        format!("{grouped}{point}{fraction}")
    }
}

impl std::fmt::Display for Money {
    /// `USD 1,234.50`, `-EUR 0.05`, `JPY 1,200`: as `Intl.NumberFormat` writes amounts with a currency's code in English.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        write!(f, "{sign}{} {}", self.currency, self.digits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(major: &str, currency: &str) -> i64 {
        Money::round_from_major(major.parse().unwrap(), currency.parse().unwrap())
            .unwrap()
            .minor
    }

    #[test]
    fn b2_rounds_half_away_from_zero_in_the_currency_s_own_units() {
        assert_eq!(rounded("1.005", "USD"), 101);
        assert_eq!(rounded("-1.005", "USD"), -101);
        assert_eq!(rounded("1.0049999", "USD"), 100);
        assert_eq!(rounded("0.5", "JPY"), 1);
        assert_eq!(rounded("1.0005", "KWD"), 1001);
        assert_eq!(
            Money::round_from_major(Decimal::MAX, Currency::USD),
            Err(MoneyError::Overflow)
        );
    }

    #[test]
    fn what_people_write_is_taken_to_the_minor_unit_or_refused() {
        let exact = |major: &str, currency: &str| {
            Money::exact_from_major(major.parse().unwrap(), currency.parse().unwrap()).map(|money| money.minor)
        };
        assert_eq!(exact("12.30", "USD"), Ok(1230));
        assert_eq!(exact("12.300", "USD"), Ok(1230));
        assert_eq!(exact("1.005", "KWD"), Ok(1005));
        assert_eq!(exact("-3", "JPY"), Ok(-3));
        for (major, currency) in [("19.995", "USD"), ("0.005", "EUR"), ("10.5", "JPY"), ("1.0005", "KWD")] {
            let refused = exact(major, currency).unwrap_err().to_string();
            assert_eq!(
                refused,
                format!("{major} is finer than the smallest unit of {currency}")
            );
        }
    }

    #[test]
    fn currencies_do_not_mix() {
        let sum = Money::new(1, Currency::USD).checked_add(Money::new(1, Currency::EUR));
        assert_eq!(sum, Err(MoneyError::Mixed(Currency::USD, Currency::EUR)));
        assert!("usd".parse::<Currency>().is_err());
    }

    #[test]
    fn only_a_currency_that_exists_is_taken_from_people() {
        assert_eq!(Currency::in_use("EUR"), Ok(Currency::EUR));
        let refused = Currency::in_use("XXQ").unwrap_err().to_string();
        assert_eq!(refused, "no currency has the code XXQ (ISO 4217), such as EUR or USD");
        assert!(Currency::in_use("eur").is_err());
        // A document of a time before it was withdrawn is still read.
        assert_eq!("HRK".parse::<Currency>().unwrap().minor_digits(), 2);
        for code in ZERO_DIGITS.iter().chain(&THREE_DIGITS) {
            assert!(Currency::in_use(code).is_ok(), "{code}");
        }
    }

    #[test]
    fn amounts_read_well() {
        for (minor, currency, text) in [
            (123_450, "USD", "USD 1,234.50"),
            (-5, "EUR", "-EUR 0.05"),
            (1200, "JPY", "JPY 1,200"),
            (7, "KWD", "KWD 0.007"),
        ] {
            assert_eq!(Money::new(minor, currency.parse().unwrap()).to_string(), text);
        }
    }
}
