//! What an error means for who asked: said once by each error type (`class()`), from which status, page and exit code follow.

/// What an error means for who asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorClass {
    /// What was asked for is not there.
    NotFound,
    /// A rule is against it, or the question has no answer: who asked must ask for something else.
    Refused,
    /// Somebody else changed it meanwhile: the same may succeed later.
    Conflict,
    /// Too much, too large or too often.
    Limit,
    /// Something is broken on our side: logged, and told to nobody in detail.
    Fault,
}
