//! Why a store does not answer.

use schemas::usage::UsageError;

use crate::AnalyticsError;

/// Why a question about flows or usage was not answered. What the engine says is in the sources.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The question names days that no calendar has.
    #[error("the time that was asked for is beyond the calendar")]
    BeyondCalendar(#[source] jiff::Error),
    /// Others changed what is stored, again and again, while it was brought up to date.
    #[error(transparent)]
    Contended(Box<dyn std::error::Error + Send + Sync>),
    /// What is stored cannot be read or written.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

schemas::error_codes! {
    StoreError: "flows";
    of []
    source []
    Refused: BeyondCalendar = "beyond_calendar";
    Conflict: Contended = "contended";
    Fault: Failed = "failed";
}

impl From<AnalyticsError> for StoreError {
    fn from(error: AnalyticsError) -> StoreError {
        match error {
            AnalyticsError::Calendar(source) => StoreError::BeyondCalendar(source),
            error @ AnalyticsError::Contended { .. } => StoreError::Contended(error.into()),
            error => StoreError::Failed(error.into()),
        }
    }
}

impl From<StoreError> for UsageError {
    fn from(error: StoreError) -> UsageError {
        UsageError::new(error)
    }
}

#[cfg(test)]
mod tests {
    use schemas::error_class::{Classified as _, ErrorClass};

    use super::*;

    #[test]
    fn a_question_that_cannot_be_answered_is_no_fault() {
        let beyond = jiff::Timestamp::from_millisecond(i64::MAX).unwrap_err();
        for (error, class, code) in [
            (
                AnalyticsError::Calendar(beyond),
                ErrorClass::Refused,
                "flows.beyond_calendar",
            ),
            (
                AnalyticsError::Contended { attempts: 8 },
                ErrorClass::Conflict,
                "flows.contended",
            ),
            (
                AnalyticsError::Column { name: "bytes" },
                ErrorClass::Fault,
                "flows.failed",
            ),
        ] {
            let text = error.to_string();
            let error = StoreError::from(error);
            assert_eq!((error.class(), error.code()), (class, code), "{text}");
        }
        let failed = StoreError::from(AnalyticsError::Column { name: "bytes" });
        assert_eq!(failed.to_string(), "column bytes is missing or of another type");
    }
}
