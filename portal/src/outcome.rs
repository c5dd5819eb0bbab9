//! What becomes of an error at the edge: one table from its class to a status, a title and an exit code, and its words for a
//! person. The codes of all errors, which need to know every type, are in [`crate::error_table`].

use std::error::Error;

use axum::http::StatusCode;
use schemas::error_class::{ErrorClass, ErrorCode};

/// What has no code: something broke where nobody expected it.
pub const UNKNOWN: ErrorCode = ErrorCode {
    code: "internal",
    class: ErrorClass::Fault,
};

/// What becomes of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// For pages and the API.
    pub status: StatusCode,
    /// For people, over what went wrong.
    pub title: &'static str,
    /// Of a command. 2 is a usage that the command line does not know.
    pub exit_code: u8,
}

/// The table.
pub fn outcome(class: ErrorClass) -> Outcome {
    let (status, title, exit_code) = match class {
        ErrorClass::NotFound => (StatusCode::NOT_FOUND, "Not found", 4),
        ErrorClass::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "That did not work", 3),
        ErrorClass::Conflict => (StatusCode::CONFLICT, "That cannot be done now", 3),
        ErrorClass::Limit => (StatusCode::TOO_MANY_REQUESTS, "A limit is reached", 3),
        ErrorClass::Fault => (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side", 1),
    };
    Outcome {
        status,
        title,
        exit_code,
    }
}

/// An error in words for a person: its innermost cause, which says what is wrong, as a sentence.
pub(crate) fn words(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    sentence(&innermost.to_string())
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let stop = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    // An id that it begins with, such as `inv_8`, stays as it is.
    if text.split([' ', ':']).next().is_some_and(|word| word.contains('_')) {
        return format!("{text}{stop}");
    }
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}{stop}", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_sentence_and_an_id_keeps_its_letters() {
        assert_eq!(sentence("no invoice inv_8"), "No invoice inv_8.");
        assert_eq!(sentence("inv_8 is void"), "inv_8 is void.");
        assert_eq!(sentence("cus_7: no VAT number"), "cus_7: no VAT number.");
    }
}
