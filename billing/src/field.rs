//! What a field may hold: texts, numbers within a range, decimals, and closed types by the names they have in the database.

use rust_decimal::Decimal;
use schemas::text::is_plain_text;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::BillingError;

/// A closed type whose values have one name each in the database.
macro_rules! named {
    ($type:ident, $what:literal, $($value:ident => $name:literal),+) => {
        impl $type {
            pub fn name(self) -> &'static str {
                match self { $($type::$value => $name),+ }
            }
        }

        impl std::str::FromStr for $type {
            type Err = BillingError;

            fn from_str(text: &str) -> Result<$type, BillingError> {
                match text {
                    $($name => Ok($type::$value),)+
                    _ => Err(BillingError::corrupt($what, text)),
                }
            }
        }
    };
}
pub(crate) use named;

/// A text of one line, trimmed, with 1 to `max` characters.
pub(crate) fn checked_text(field: &'static str, text: &str, max: usize) -> Result<String, BillingError> {
    let trimmed = text.trim();
    let chars = trimmed.chars().count();
    if chars == 0 || chars > max || !is_plain_text(trimmed) {
        return Err(BillingError::Text {
            field,
            max,
            text: text.to_owned(),
        });
    }
    Ok(trimmed.to_owned())
}

/// From `min` to `max`, both included.
pub(crate) fn check_range(field: &'static str, value: i64, min: i64, max: i64) -> Result<(), BillingError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(BillingError::OutOfRange {
        field,
        value: value.to_string(),
        min: min.to_string(),
        max: max.to_string(),
    })
}

/// From 0 to `max`, with at most `places` decimal places.
pub(crate) fn check_decimal(field: &'static str, value: Decimal, max: i64, places: u32) -> Result<(), BillingError> {
    if value < Decimal::ZERO || value > Decimal::from(max) {
        return Err(BillingError::OutOfRange {
            field,
            value: value.to_string(),
            min: "0".to_owned(),
            max: max.to_string(),
        });
    }
    if value.normalize().scale() > places {
        return Err(BillingError::TooFine {
            field,
            max: places,
            value: value.to_string(),
        });
    }
    Ok(())
}

/// A decimal, which the database keeps as text.
pub(crate) fn read_decimal(what: &'static str, row: &AnyRow, column: &str) -> Result<Decimal, BillingError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| BillingError::Corrupt { what, text })
}
