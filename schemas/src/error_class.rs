//! What kind of thing went wrong. An error type that can reach a person says its class; what becomes of a class (status, page, exit
//! code) is decided in one place, at the edge.
//!
//! A [`ErrorClass::Fault`] is ours: it is logged, and a person is told nothing else of it.

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
