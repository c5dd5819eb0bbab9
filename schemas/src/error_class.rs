//! What kind of thing went wrong, and by which stable code programs know it.
//!
//! Each error type that can reach a person says both, by [`error_codes!`](crate::error_codes) below its definition. What becomes
//! of a class (status, page, exit code) is decided in one place, at the edge (`portal::error_table`).
//!
//! * A code is `area.what`, in lower case. It never changes its meaning and is never taken away: programs compare it.
//! * A variant that only carries another error (`Database(#[from] sqlx::Error)`) has no code of its own: it says what that one
//!   says.
//! * A [`ErrorClass::Fault`] is ours: it is logged under an id, and a person is told that id and nothing else.

/// What kind of thing went wrong: who has to do something about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ErrorClass {
    /// What was named does not exist, or not for whoever asks.
    NotFound,
    /// What was asked for breaks a rule: whoever asks has to ask for something else.
    Refused,
    /// It does not go with how things stand now: somebody was quicker, or something must be done first.
    Conflict,
    /// There is a limit, and it is reached.
    Limit,
    /// Something is broken on our side.
    Fault,
}

impl ErrorClass {
    /// In order of weight.
    pub const ALL: [ErrorClass; 5] = [
        ErrorClass::NotFound,
        ErrorClass::Refused,
        ErrorClass::Conflict,
        ErrorClass::Limit,
        ErrorClass::Fault,
    ];

    /// As documents and logs say it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::NotFound => "not found",
            ErrorClass::Refused => "refused",
            ErrorClass::Conflict => "conflict",
            ErrorClass::Limit => "limit",
            ErrorClass::Fault => "fault",
        }
    }
}

/// A code with its class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ErrorCode {
    /// `billing.plan_archived`
    pub code: &'static str,
    pub class: ErrorClass,
}

/// An error that says what kind of thing went wrong.
pub trait Classified: std::error::Error {
    /// The code with its class.
    fn error_code(&self) -> ErrorCode;

    fn class(&self) -> ErrorClass {
        self.error_code().class
    }

    fn code(&self) -> &'static str {
        self.error_code().code
    }
}

/// All codes that a type has itself, without those of the errors that it carries.
pub trait ErrorCodes: Classified {
    const CODES: &'static [ErrorCode];
}

impl<T: Classified> Classified for Box<T> {
    fn error_code(&self) -> ErrorCode {
        T::error_code(self)
    }
}

/// The same as `error_codes! { struct … }`, for types of others.
macro_rules! one_code {
    ($($type:ty: $class:ident $code:literal;)+) => {$(
        impl Classified for $type {
            fn error_code(&self) -> ErrorCode {
                <$type as ErrorCodes>::CODES[0]
            }
        }

        impl ErrorCodes for $type {
            const CODES: &'static [ErrorCode] = &[ErrorCode { code: $code, class: ErrorClass::$class }];
        }
    )+};
}

one_code! {
    sqlx::Error: Fault "database.failed";
    crate::usage::UsageError: Fault "usage.not_measured";
    crate::ids::IdError: Refused "id.malformed";
    crate::percent::PercentError: Refused "percent.out_of_range";
    crate::assignment::OverlapError: Fault "assignment.overlap";
    // What people type and the libraries read for us.
    jiff::Error: Refused "value.time";
    rust_decimal::Error: Refused "value.decimal";
    ipnet::AddrParseError: Refused "value.network";
    std::net::AddrParseError: Refused "value.address";
    std::num::ParseIntError: Refused "value.integer";
}

/// Gives an error type its codes, and says which of its variants only carry another error.
///
/// ```text
/// schemas::error_codes! {
///     BillingError: "billing";
///     of [Database, Money]           // tuple variants that carry another classified error
///     source [Gateway]               // the same for variants with a field `source`
///     NotFound: NoPlan = "no_plan", NoPrice = "no_price";
///     Fault: Corrupt = "corrupt";
/// }
/// ```
///
/// A variant that is in no list does not compile. A type whose every value is one thing says so in one line:
/// `error_codes! { struct ChargerError: Fault "charger.failed"; }`.
#[macro_export]
macro_rules! error_codes {
    (struct $type:ident: $class:ident $code:literal;) => {
        impl $crate::error_class::Classified for $type {
            fn error_code(&self) -> $crate::error_class::ErrorCode {
                <$type as $crate::error_class::ErrorCodes>::CODES[0]
            }
        }

        impl $crate::error_class::ErrorCodes for $type {
            const CODES: &'static [$crate::error_class::ErrorCode] = &[$crate::error_class::ErrorCode {
                code: $code,
                class: $crate::error_class::ErrorClass::$class,
            }];
        }
    };
    (
        $type:ident: $area:literal;
        of [$($inner:ident),* $(,)?]
        source [$($carrier:ident),* $(,)?]
        $($class:ident: $($variant:ident = $code:literal),+;)*
    ) => {
        impl $crate::error_class::Classified for $type {
            fn error_code(&self) -> $crate::error_class::ErrorCode {
                match self {
                    $(Self::$inner(inner) => $crate::error_class::Classified::error_code(inner),)*
                    $(Self::$carrier { source, .. } => $crate::error_class::Classified::error_code(source),)*
                    $($(Self::$variant { .. } => $crate::error_class::ErrorCode {
                        code: concat!($area, ".", $code),
                        class: $crate::error_class::ErrorClass::$class,
                    },)+)*
                }
            }
        }

        impl $crate::error_class::ErrorCodes for $type {
            const CODES: &'static [$crate::error_class::ErrorCode] = &[
                $($($crate::error_class::ErrorCode {
                    code: concat!($area, ".", $code),
                    class: $crate::error_class::ErrorClass::$class,
                },)+)*
            ];
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CustomerId;
    use crate::inventory::InventoryError;

    #[test]
    fn what_carries_an_error_says_what_that_one_says() {
        let gone = InventoryError::NoCustomer(CustomerId(7));
        assert_eq!(
            (gone.class(), gone.code()),
            (ErrorClass::NotFound, "inventory.no_customer")
        );
        let broken = InventoryError::Database(sqlx::Error::PoolClosed);
        assert_eq!((broken.class(), broken.code()), (ErrorClass::Fault, "database.failed"));
    }
}
