//! Where a payment is, and where it can go.

use super::PaymentError;
use super::gateway::ChargeState;

/// A payment's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Committed; the gateway is asked next, or the process died.
    Intent,
    /// The gateway was asked and nobody knows what it did.
    Unknown,
    /// The customer must confirm it with the bank.
    RequiresAction,
    /// The gateway works on it; it can take days.
    Processing,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    pub const ALL: [State; 7] = [
        State::Intent,
        State::Unknown,
        State::RequiresAction,
        State::Processing,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            State::Intent => "intent",
            State::Unknown => "unknown",
            State::RequiresAction => "requires_action",
            State::Processing => "processing",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Whether it is under way, so that its invoice must not be charged by another one.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            State::Intent | State::Unknown | State::RequiresAction | State::Processing
        )
    }

    /// The transition table. What a gateway tells may come late and in any order: nothing leads back, nothing leads away
    /// from money that is there, and money may turn up after everybody had given up.
    ///
    /// ```text
    /// from \ to         unknown  requires_action  processing  succeeded  failed  cancelled
    /// intent               x            x             x           x        x         x
    /// unknown              .            x             x           x        x         x
    /// requires_action                   .             x           x        x         x
    /// processing                                      .           x        x         x
    /// failed                                                      x        .
    /// cancelled                                                   x                  .
    /// succeeded                                                   .
    /// ```
    pub fn can_become(self, next: State) -> bool {
        match self {
            State::Intent => next != State::Intent,
            State::Unknown => !matches!(next, State::Intent | State::Unknown),
            State::RequiresAction => matches!(
                next,
                State::Processing | State::Succeeded | State::Failed | State::Cancelled
            ),
            State::Processing => matches!(next, State::Succeeded | State::Failed | State::Cancelled),
            State::Failed | State::Cancelled => next == State::Succeeded,
            State::Succeeded => false,
        }
    }

    /// The state that an answer stands for.
    pub fn of(charge: &ChargeState) -> State {
        match charge {
            ChargeState::Succeeded => State::Succeeded,
            ChargeState::Processing => State::Processing,
            ChargeState::RequiresAction { .. } => State::RequiresAction,
            ChargeState::Declined { .. } => State::Failed,
            ChargeState::Cancelled => State::Cancelled,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for State {
    type Err = PaymentError;

    fn from_str(text: &str) -> Result<State, PaymentError> {
        let found = State::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| PaymentError::Corrupt {
            what: "payment state",
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_table() {
        // Rows and columns as in `ALL`: intent, unknown, requires_action, processing, succeeded, failed, cancelled.
        let table = [
            ".xxxxxx", "..xxxxx", "...xxxx", "....xxx", ".......", "....x..", "....x..",
        ];
        for (from, row) in State::ALL.into_iter().zip(table) {
            for (to, cell) in State::ALL.into_iter().zip(row.chars()) {
                assert_eq!(from.can_become(to), cell == 'x', "{from} to {to}");
            }
            assert_eq!(from.name().parse::<State>().unwrap(), from);
        }
    }

    #[test]
    fn no_path_leads_back() {
        // A state that can be left for another is never reached from it again, but for money that turns up.
        for from in State::ALL {
            for to in State::ALL {
                assert!(!(from.can_become(to) && to.can_become(from)), "{from} and {to}");
            }
        }
        assert!(State::ALL.into_iter().all(|state| !State::Succeeded.can_become(state)));
    }
}
