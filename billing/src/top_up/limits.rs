//! What a top-up can be, by currency.

use schemas::money::{Currency, Money};

use super::TopUpError;

/// Thresholds that are offered, in dollars or what comes near them; any other within the limits can be set.
const THRESHOLDS: [i64; 3] = [10, 25, 50];
const AMOUNTS: [i64; 3] = [50, 100, 200];
const THRESHOLD_MIN: i64 = 1;
const THRESHOLD_MAX: i64 = 1_000;
const AMOUNT_MIN: i64 = 5;
const AMOUNT_MAX: i64 = 5_000;

/// What is offered and allowed in one currency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub thresholds: [Money; 3],
    pub amounts: [Money; 3],
    pub threshold_min: Money,
    pub threshold_max: Money,
    pub amount_min: Money,
    pub amount_max: Money,
}

/// How many units of a currency stand for a dollar here: a round number of the right magnitude, not a rate.
fn units_per_dollar(currency: Currency) -> i64 {
    match currency.code() {
        "CNY" | "CZK" | "DKK" | "HKD" | "MXN" | "NOK" | "SEK" | "TRY" | "TWD" | "ZAR" => 10,
        "HUF" | "INR" | "ISK" | "JPY" | "KES" | "PHP" | "RUB" | "THB" | "DJF" | "VUV" | "XPF" | "DZD" | "LKR" => 100,
        "CLP" | "IQD" | "KMF" | "KRW" | "NGN" | "RWF" | "XAF" | "XOF" | "COP" | "ARS" => 1_000,
        "BIF" | "GNF" | "IDR" | "PYG" | "UGX" | "VND" => 10_000,
        _ => 1,
    }
}

/// The limits of a currency.
pub fn limits(currency: Currency) -> Limits {
    let unit = units_per_dollar(currency) * 10i64.pow(currency.minor_digits());
    let money = |dollars: i64| Money::new(dollars * unit, currency);
    Limits {
        thresholds: THRESHOLDS.map(money),
        amounts: AMOUNTS.map(money),
        threshold_min: money(THRESHOLD_MIN),
        threshold_max: money(THRESHOLD_MAX),
        amount_min: money(AMOUNT_MIN),
        amount_max: money(AMOUNT_MAX),
    }
}

impl Limits {
    pub(super) fn check(&self, what: &'static str, value: Money, min: Money, max: Money) -> Result<(), TopUpError> {
        if (min.minor..=max.minor).contains(&value.minor) {
            return Ok(());
        }
        Err(TopUpError::OutOfRange { what, value, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_allowed_in_every_currency() {
        for (code, first, least) in [
            ("USD", "USD 10.00", "USD 5.00"),
            ("EUR", "EUR 10.00", "EUR 5.00"),
            ("JPY", "JPY 1,000", "JPY 500"),
            ("KWD", "KWD 10.000", "KWD 5.000"),
            ("SEK", "SEK 100.00", "SEK 50.00"),
            ("VND", "VND 100,000", "VND 50,000"),
        ] {
            let limits = limits(code.parse().unwrap());
            assert_eq!(limits.thresholds[0].to_string(), first);
            assert_eq!(limits.amount_min.to_string(), least);
            for threshold in limits.thresholds {
                limits
                    .check("threshold", threshold, limits.threshold_min, limits.threshold_max)
                    .unwrap();
            }
            for amount in limits.amounts {
                limits
                    .check("top-up", amount, limits.amount_min, limits.amount_max)
                    .unwrap();
            }
            let below = Money::new(limits.amount_min.minor - 1, limits.amount_min.currency);
            let refused = limits.check("top-up", below, limits.amount_min, limits.amount_max);
            assert!(matches!(refused, Err(TopUpError::OutOfRange { .. })));
        }
    }
}
