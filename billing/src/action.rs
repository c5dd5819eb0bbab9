//! The actions that a second admin may have to decide on (F-60), as they are written down and asked for. What each is measured by,
//! and doing them: [`crate::approval`]. How a request is kept and decided: [`activity::approval`].

use activity::act::By;
use activity::approval::{self, Approval, ApprovalError, Gate, Requested};
use activity::risk::{HighRisk, RiskAssessment, Thresholds};
use schemas::ids::{
    ApprovalId, CustomerId, InvoiceId, PaymentId, PlanId, ServiceId, SubscriptionId, TransferId, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::AnyConnection;

/// Subscriptions in one termination at most.
pub const MAX_TERMINATED: usize = 10_000;

/// Why an action was not asked for or handed out.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    #[error("{0} needs no approval: execute it directly")]
    NotNeeded(&'static str),
    #[error("between 1 and {MAX_TERMINATED} subscriptions are ended at once, not {0}")]
    Terminated(usize),
    #[error("write down the action")]
    Json(#[from] serde_json::Error),
    #[error("the stored action of {0} is not understood")]
    Corrupt(ApprovalId),
}

schemas::error_codes! {
    ActionError: "approval";
    of [Approval]
    source []
    Refused: NotNeeded = "not_needed", Terminated = "terminated";
    Fault: Json = "json", Corrupt = "corrupt_action";
}

/// A version of a price, of a change that may have several.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PriceVersion {
    pub cycle_months: i64,
    pub base_minor: i64,
    /// As in the column `prices.usage_price`.
    pub usage_price: serde_json::Value,
    /// 0: from the approval on.
    pub valid_from_ms: i64,
}

/// What is to be done, complete: whoever does it asks for nothing more. `counted_…` is the size that the rules look at: with what
/// was done within 24 hours, or is asked for, and counts together with it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    BulkTermination {
        subscriptions: Vec<SubscriptionId>,
        #[serde(default)]
        counted_subscriptions: i64,
        reason: String,
    },
    AccountDeletion {
        customer: CustomerId,
    },
    /// Prices that subscriptions change to at their renewal.
    PriceChange {
        plan: PlanId,
        currency: String,
        prices: Vec<PriceVersion>,
        /// How many pay by any of the prices before.
        customers: u64,
    },
    /// Money that leaves, with its credit note.
    Refund {
        payment: PaymentId,
        currency: String,
        amount_minor: i64,
        /// [`crate::refund::Preview::counted`].
        #[serde(default)]
        counted_minor: i64,
        reason: String,
        /// Of a bank transfer: the bank's reference.
        reference: Option<String>,
        /// What was shown to who asked ([`crate::refund::Preview::shown`]).
        shown: String,
    },
    CreditGrant {
        customer: CustomerId,
        currency: String,
        amount_minor: i64,
        counted_minor: i64,
        /// What it is granted once for.
        cause: String,
        reason: String,
    },
    /// What takes off the next invoice: a grant in all but name.
    CreditItem {
        customer: CustomerId,
        currency: String,
        /// What is taken off: more than zero.
        amount_minor: i64,
        counted_minor: i64,
        description: String,
    },
    WriteOff {
        invoice: InvoiceId,
        currency: String,
        /// What was open: more than it is not written off.
        amount_minor: i64,
        counted_minor: i64,
        reason: String,
    },
    UsageExclusion {
        service: ServiceId,
        from_ms: i64,
        to_ms: i64,
        counted_hours: i64,
        reason: String,
    },
    ServiceTransfer {
        transfer: TransferId,
        counted_services: i64,
    },
    /// A disabled admin may sign in: one who was added, or disabled before.
    AdminCreated {
        user: UserId,
    },
    AdminDeleted {
        user: UserId,
    },
    AdminRole {
        user: UserId,
        role: String,
        customer: Option<CustomerId>,
    },
}

/// A price change of when each was one price has its fields beside the plan.
fn with_prices(mut action: serde_json::Value) -> serde_json::Value {
    if action["action"] == "price_change" && action.get("prices").is_none() {
        action["prices"] = json!([{
            "cycle_months": action["cycle_months"], "base_minor": action["base_minor"],
            "usage_price": action["usage_price"], "valid_from_ms": action["valid_from_ms"],
        }]);
    }
    action
}

impl Action {
    /// The action of a request.
    ///
    /// # Errors
    /// [`ActionError::Corrupt`] when what is stored is none of these.
    pub fn of(approval: &Approval) -> Result<Action, ActionError> {
        let action = with_prices(approval.action.clone());
        serde_json::from_value(action).map_err(|_| ActionError::Corrupt(approval.id))
    }

    pub fn kind(&self) -> HighRisk {
        match self {
            Action::BulkTermination { .. } => HighRisk::BulkTermination,
            Action::AccountDeletion { .. } => HighRisk::AccountDeletion,
            Action::PriceChange { .. } => HighRisk::PriceChange,
            Action::Refund { .. } => HighRisk::Refund,
            Action::CreditGrant { .. } | Action::CreditItem { .. } => HighRisk::CreditGrant,
            Action::WriteOff { .. } => HighRisk::WriteOff,
            Action::UsageExclusion { .. } => HighRisk::UsageExclusion,
            Action::ServiceTransfer { .. } => HighRisk::ServiceTransfer,
            Action::AdminCreated { .. } => HighRisk::AdminCreated,
            Action::AdminDeleted { .. } => HighRisk::AdminDeleted,
            Action::AdminRole { .. } => HighRisk::AdminRole,
        }
    }

    /// How large it is, in the unit of its rule ([`activity::risk::Measure`]).
    pub fn size(&self) -> i64 {
        match self {
            Action::BulkTermination {
                subscriptions,
                counted_subscriptions,
                ..
            } => i64::try_from(subscriptions.len())
                .unwrap_or(i64::MAX)
                .max(*counted_subscriptions),
            Action::PriceChange { customers, .. } => i64::try_from(*customers).unwrap_or(i64::MAX),
            Action::Refund {
                amount_minor,
                counted_minor,
                ..
            } => *amount_minor.max(counted_minor),
            Action::CreditGrant { counted_minor, .. }
            | Action::CreditItem { counted_minor, .. }
            | Action::WriteOff { counted_minor, .. } => *counted_minor,
            Action::UsageExclusion { counted_hours, .. } => *counted_hours,
            Action::ServiceTransfer { counted_services, .. } => *counted_services,
            Action::AccountDeletion { .. }
            | Action::AdminCreated { .. }
            | Action::AdminDeleted { .. }
            | Action::AdminRole { .. } => 1,
        }
    }

    /// As it was shown to who decides, where that is not what was shown to who asked.
    #[must_use]
    pub fn confirmed(mut self, decider_shown: &str) -> Action {
        if let Action::Refund { shown, .. } = &mut self
            && !decider_shown.is_empty()
        {
            *shown = decider_shown.to_owned();
        }
        self
    }

    /// Whether it would wait for a second admin by these thresholds.
    pub fn waits(&self, thresholds: &Thresholds) -> bool {
        matches!(thresholds.judge(self.kind(), self.size()), RiskAssessment::Waits(_))
    }
}

/// What somebody asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct NewRequest {
    pub action: Action,
    /// The id of what it is about, such as `pln_3`.
    pub subject: String,
    /// What it does, for the one who decides, in a sentence.
    pub summary: String,
}

impl NewRequest {
    fn approval(&self) -> Result<approval::NewApproval<'_>, ActionError> {
        if let Action::BulkTermination { subscriptions, .. } = &self.action
            && !(1..=MAX_TERMINATED).contains(&subscriptions.len())
        {
            return Err(ActionError::Terminated(subscriptions.len()));
        }
        // Names and reasons are longer than a summary may be; the action has them in full.
        let end = self.summary.char_indices().nth(approval::MAX_REASON_CHARS);
        Ok(approval::NewApproval {
            kind: self.action.kind(),
            size: self.action.size(),
            action: serde_json::to_value(&self.action)?,
            subject: &self.subject,
            summary: &self.summary[..end.map_or(self.summary.len(), |(end, _)| end)],
        })
    }
}

/// Asks the rules whether an action may be done, and asks a second admin where it may not. Every way in asks here, in the
/// transaction of the action.
///
/// # Errors
/// As [`request`], where it waits.
pub async fn gate(connection: &mut AnyConnection, new: &NewRequest, by: &By, now_ms: i64) -> Result<Gate, ActionError> {
    Ok(approval::gate(connection, new.approval()?, by, now_ms).await?)
}

/// Asks for an action that a second admin decides on.
///
/// # Errors
/// When the action needs no approval, who asks may not, the same waits already, or there is no other admin who could decide.
pub async fn request(
    connection: &mut AnyConnection,
    new: &NewRequest,
    by: &By,
    now_ms: i64,
) -> Result<Requested, ActionError> {
    match gate(connection, new, by, now_ms).await? {
        Gate::Waits(requested) => Ok(requested),
        Gate::Passes(_) => Err(ActionError::NotNeeded(new.action.kind().name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f60_thresholds_are_those_of_the_rules() {
        let price_change = |customers| Action::PriceChange {
            plan: PlanId(1),
            currency: "USD".to_owned(),
            prices: Vec::new(),
            customers,
        };
        let termination = |count: i64| Action::BulkTermination {
            subscriptions: (1..=count).map(SubscriptionId).collect(),
            counted_subscriptions: 0,
            reason: "abuse".to_owned(),
        };
        let waits = |action: &Action| action.waits(&Thresholds::DEFAULT);
        assert!(!waits(&termination(5)) && waits(&termination(6)));
        assert!(!waits(&price_change(100)) && waits(&price_change(101)));
        assert!(waits(&Action::AccountDeletion {
            customer: CustomerId(1)
        }));
    }

    #[test]
    fn a_price_change_of_before_is_read_as_one_of_one_price() {
        let before = json!({"action": "price_change", "plan": "pln_1", "currency": "USD", "cycle_months": 12, "base_minor": 1_000,
            "usage_price": {"tiers": []}, "valid_from_ms": 7, "customers": 101});
        let action: Action = serde_json::from_value(with_prices(before)).unwrap();
        let Action::PriceChange { prices, customers, .. } = action else {
            panic!("a price change");
        };
        assert_eq!((prices.len(), customers), (1, 101));
        assert_eq!((prices[0].cycle_months, prices[0].valid_from_ms), (12, 7));
    }
}
