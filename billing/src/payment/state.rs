//! Where a payment is, and where it can go.

use super::PaymentError;
use super::gateway::ChargeState;

/// A payment's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PaymentState {
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

impl PaymentState {
    pub const ALL: [PaymentState; 7] = [
        PaymentState::Intent,
        PaymentState::Unknown,
        PaymentState::RequiresAction,
        PaymentState::Processing,
        PaymentState::Succeeded,
        PaymentState::Failed,
        PaymentState::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            PaymentState::Intent => "intent",
            PaymentState::Unknown => "unknown",
            PaymentState::RequiresAction => "requires_action",
            PaymentState::Processing => "processing",
            PaymentState::Succeeded => "succeeded",
            PaymentState::Failed => "failed",
            PaymentState::Cancelled => "cancelled",
        }
    }

    /// Whether it is under way, so that its invoice must not be charged by another one.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            PaymentState::Intent | PaymentState::Unknown | PaymentState::RequiresAction | PaymentState::Processing
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
    pub fn can_become(self, next: PaymentState) -> bool {
        match self {
            PaymentState::Intent => next != PaymentState::Intent,
            PaymentState::Unknown => !matches!(next, PaymentState::Intent | PaymentState::Unknown),
            PaymentState::RequiresAction => matches!(
                next,
                PaymentState::Processing | PaymentState::Succeeded | PaymentState::Failed | PaymentState::Cancelled
            ),
            PaymentState::Processing => matches!(
                next,
                PaymentState::Succeeded | PaymentState::Failed | PaymentState::Cancelled
            ),
            PaymentState::Failed | PaymentState::Cancelled => next == PaymentState::Succeeded,
            PaymentState::Succeeded => false,
        }
    }

    /// The state that an answer stands for.
    pub fn of(charge: &ChargeState) -> PaymentState {
        match charge {
            ChargeState::Succeeded => PaymentState::Succeeded,
            ChargeState::Processing => PaymentState::Processing,
            ChargeState::RequiresAction { .. } => PaymentState::RequiresAction,
            ChargeState::Declined { .. } => PaymentState::Failed,
            ChargeState::Cancelled => PaymentState::Cancelled,
        }
    }
}

impl std::fmt::Display for PaymentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for PaymentState {
    type Err = PaymentError;

    fn from_str(text: &str) -> Result<PaymentState, PaymentError> {
        let found = PaymentState::ALL.into_iter().find(|state| state.name() == text);
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
        for (from, row) in PaymentState::ALL.into_iter().zip(table) {
            for (to, cell) in PaymentState::ALL.into_iter().zip(row.chars()) {
                assert_eq!(from.can_become(to), cell == 'x', "{from} to {to}");
            }
            assert_eq!(from.name().parse::<PaymentState>().unwrap(), from);
        }
    }

    #[test]
    fn no_path_leads_back() {
        // A state that can be left for another is never reached from it again, but for money that turns up.
        for from in PaymentState::ALL {
            for to in PaymentState::ALL {
                assert!(!(from.can_become(to) && to.can_become(from)), "{from} and {to}");
            }
        }
        assert!(
            PaymentState::ALL
                .into_iter()
                .all(|state| !PaymentState::Succeeded.can_become(state))
        );
    }
}
