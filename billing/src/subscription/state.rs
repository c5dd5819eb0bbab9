//! The states of a subscription, and the only ways between them.
//!
//! | from \ what happens | trial over | payment late | paid up | hold placed | holds lifted | cancelled | resumed | end reached |
//! |---|---|---|---|---|---|---|---|---|
//! | trial | active | | | suspended | | cancelled | | ended |
//! | active | | past due | | suspended | | cancelled | | ended |
//! | past due | | | active | suspended | | cancelled | | ended |
//! | suspended | | | | | active, or cancelled | suspended | suspended | ended |
//! | cancelled | | | | suspended | | | active | ended |
//! | ended | | | | | | | | |
//!
//! A suspended subscription stays what it is when it is cancelled or resumed: its end is kept beside the state, and when
//! the last hold is lifted it is cancelled if it has one. A cancelled one runs until that end.

use crate::BillingError;
use crate::field::named;

/// Where a subscription stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = SubscriptionState)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Runs, and is charged from the end of the trial on.
    Trial,
    Active,
    /// Runs, and an invoice is overdue.
    PastDue,
    /// Its service does not run: a hold is placed. It is charged all the same.
    Suspended,
    /// Runs to an agreed end.
    Cancelled,
    Ended,
}

named!(SubscriptionState, "subscription status", Trial => "trial", Active => "active", PastDue => "past_due",
    Suspended => "suspended", Cancelled => "cancelled", Ended => "ended");

/// What happens to a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transition {
    TrialOver,
    PaymentLate,
    PaidUp,
    HoldPlaced,
    HoldsLifted,
    /// As above, of one that was cancelled.
    HoldsLiftedOfCancelled,
    Cancelled,
    Resumed,
    EndReached,
}

/// Every way from one state to another: what is not here does not happen.
pub const TRANSITIONS: [(SubscriptionState, Transition, SubscriptionState); 22] = {
    use SubscriptionState as S;
    use Transition as H;
    [
        (S::Trial, H::TrialOver, S::Active),
        (S::Trial, H::HoldPlaced, S::Suspended),
        (S::Trial, H::Cancelled, S::Cancelled),
        (S::Trial, H::EndReached, S::Ended),
        (S::Active, H::PaymentLate, S::PastDue),
        (S::Active, H::HoldPlaced, S::Suspended),
        (S::Active, H::Cancelled, S::Cancelled),
        (S::Active, H::EndReached, S::Ended),
        (S::PastDue, H::PaidUp, S::Active),
        (S::PastDue, H::HoldPlaced, S::Suspended),
        (S::PastDue, H::Cancelled, S::Cancelled),
        (S::PastDue, H::EndReached, S::Ended),
        (S::Suspended, H::HoldPlaced, S::Suspended),
        (S::Suspended, H::HoldsLifted, S::Active),
        (S::Suspended, H::HoldsLiftedOfCancelled, S::Cancelled),
        (S::Suspended, H::Cancelled, S::Suspended),
        (S::Suspended, H::Resumed, S::Suspended),
        (S::Suspended, H::EndReached, S::Ended),
        (S::Cancelled, H::HoldPlaced, S::Suspended),
        (S::Cancelled, H::Resumed, S::Active),
        (S::Cancelled, H::EndReached, S::Ended),
        // An invoice of a cancelled subscription may be paid late: nothing changes.
        (S::Cancelled, H::PaidUp, S::Cancelled),
    ]
};

impl SubscriptionState {
    pub const ALL: [SubscriptionState; 6] = [
        SubscriptionState::Trial,
        SubscriptionState::Active,
        SubscriptionState::PastDue,
        SubscriptionState::Suspended,
        SubscriptionState::Cancelled,
        SubscriptionState::Ended,
    ];

    /// The state after something happens; `None` where it cannot happen.
    pub fn after(self, happening: Transition) -> Option<SubscriptionState> {
        TRANSITIONS
            .into_iter()
            .find(|(from, what, _)| *from == self && *what == happening)
            .map(|(_, _, to)| to)
    }

    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            SubscriptionState::PastDue => "past due",
            other => other.name(),
        }
    }
}

/// Why a subscription's service does not run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldCause {
    Unpaid,
    Budget,
    Abuse,
    Admin,
}

named!(HoldCause, "cause of a hold", Unpaid => "unpaid", Budget => "budget", Abuse => "abuse", Admin => "admin");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_leads_to_one_state_and_nothing_leaves_the_end() {
        let mut seen = std::collections::HashSet::new();
        for (from, happening, _) in TRANSITIONS {
            assert!(seen.insert((from, happening)), "{from:?} {happening:?} twice");
            assert_ne!(from, SubscriptionState::Ended);
        }
        for state in SubscriptionState::ALL {
            assert_eq!(state.name().parse::<SubscriptionState>().unwrap(), state);
            assert_eq!(
                state.after(Transition::EndReached).is_some(),
                state != SubscriptionState::Ended
            );
        }
    }

    /// The table above, cell by cell: what it says is what the code does.
    #[test]
    fn the_table_in_the_documentation_is_the_code() {
        let source = include_str!("state.rs");
        let rows: Vec<Vec<&str>> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .map(|line| line.trim_end_matches('|').split('|').map(str::trim).collect())
            .collect();
        let columns = [
            vec![Transition::TrialOver],
            vec![Transition::PaymentLate],
            vec![Transition::PaidUp],
            vec![Transition::HoldPlaced],
            vec![Transition::HoldsLifted, Transition::HoldsLiftedOfCancelled],
            vec![Transition::Cancelled],
            vec![Transition::Resumed],
            vec![Transition::EndReached],
        ];
        for state in SubscriptionState::ALL {
            let row = rows
                .iter()
                .find(|row| row[0] == state.words())
                .expect("a row of the table");
            for (column, happenings) in columns.iter().enumerate() {
                let moves: Vec<&str> = happenings
                    .iter()
                    .filter_map(|happening| state.after(*happening))
                    // Staying is not worth a cell but for a suspended one.
                    .filter(|to| *to != state || (state == SubscriptionState::Suspended && column > 4))
                    .map(SubscriptionState::words)
                    .collect();
                assert_eq!(row[column + 1], moves.join(", or "), "{} {happenings:?}", state.words());
            }
        }
    }
}
