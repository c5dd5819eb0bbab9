//! What of billing a second admin decides (F-60): which actions there are, from which amounts and counts on they wait, and
//! doing them ([`execute()`]). How a request is kept and decided: [`activity::approval`].

mod execute;

use activity::act::Note;
use activity::approval::{self, Approval, ApprovalError};
pub use activity::approval::{Admin, Requested};
pub use execute::{Done, ExecuteError, execute};
use schemas::identity::Role;
use schemas::ids::{ApprovalId, CustomerId, PaymentId, PlanId, SubscriptionId, UserId};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use crate::refund::REFUND_OVER_MINOR;

/// More subscriptions than this ended at once are of high risk.
pub const BULK_TERMINATION_OVER: usize = 5;
/// A price change that touches more customers than this is of high risk.
pub const PRICE_CHANGE_CUSTOMERS_OVER: u64 = 100;
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

/// Kinds of action that the owner is told of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HighRisk {
    BulkTermination,
    AccountDeletion,
    PriceChange,
    GatewaySettings,
    AdminCreated,
    AdminDeleted,
    ResellerBilling,
    DatabaseChange,
    Refund,
}

impl HighRisk {
    pub const ALL: [HighRisk; 9] = [
        HighRisk::BulkTermination,
        HighRisk::AccountDeletion,
        HighRisk::PriceChange,
        HighRisk::GatewaySettings,
        HighRisk::AdminCreated,
        HighRisk::AdminDeleted,
        HighRisk::ResellerBilling,
        HighRisk::DatabaseChange,
        HighRisk::Refund,
    ];

    pub fn name(self) -> &'static str {
        match self {
            HighRisk::BulkTermination => "bulk_termination",
            HighRisk::AccountDeletion => "account_deletion",
            HighRisk::PriceChange => "price_change",
            HighRisk::GatewaySettings => "gateway_settings",
            HighRisk::AdminCreated => "admin_created",
            HighRisk::AdminDeleted => "admin_deleted",
            HighRisk::ResellerBilling => "reseller_billing",
            HighRisk::DatabaseChange => "database_change",
            HighRisk::Refund => "refund",
        }
    }

    /// Whether a second admin decides. What a reseller is billed can be put right with the next invoice; of the rest, what
    /// was done is gone, seen by many customers, or lets somebody do anything.
    pub fn needs_second_admin(self) -> bool {
        self != HighRisk::ResellerBilling
    }
}

/// What is to be done, complete: whoever does it asks for nothing more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    BulkTermination {
        subscriptions: Vec<SubscriptionId>,
        reason: String,
    },
    AccountDeletion {
        customer: CustomerId,
    },
    PriceChange {
        plan: PlanId,
        currency: String,
        cycle_months: i64,
        base_minor: i64,
        /// As in the column `prices.usage_price`.
        usage_price: serde_json::Value,
        valid_from_ms: i64,
        /// How many pay by the price before.
        customers: u64,
    },
    GatewaySettings {
        gateway: String,
        settings: serde_json::Value,
    },
    AdminCreated {
        email: String,
        name: String,
    },
    AdminDeleted {
        user: UserId,
    },
    ResellerBilling {
        customer: CustomerId,
        change: serde_json::Value,
    },
    DatabaseChange {
        description: String,
    },
    /// Money that leaves, with its credit note.
    Refund {
        payment: PaymentId,
        currency: String,
        amount_minor: i64,
        /// With what was refunded before and counts towards the threshold ([`crate::refund::Preview::counted`]).
        #[serde(default)]
        counted_minor: i64,
        reason: String,
        /// Of a bank transfer: the bank's reference.
        reference: Option<String>,
        /// What was shown to who asked ([`crate::refund::Preview::shown`]).
        shown: String,
    },
}

impl Action {
    /// The action of a request.
    ///
    /// # Errors
    /// [`ActionError::Corrupt`] when what is stored is none of these.
    pub fn of(approval: &Approval) -> Result<Action, ActionError> {
        serde_json::from_value(approval.action.clone()).map_err(|_| ActionError::Corrupt(approval.id))
    }

    fn kind(&self) -> HighRisk {
        match self {
            Action::BulkTermination { .. } => HighRisk::BulkTermination,
            Action::AccountDeletion { .. } => HighRisk::AccountDeletion,
            Action::PriceChange { .. } => HighRisk::PriceChange,
            Action::GatewaySettings { .. } => HighRisk::GatewaySettings,
            Action::AdminCreated { .. } => HighRisk::AdminCreated,
            Action::AdminDeleted { .. } => HighRisk::AdminDeleted,
            Action::ResellerBilling { .. } => HighRisk::ResellerBilling,
            Action::DatabaseChange { .. } => HighRisk::DatabaseChange,
            Action::Refund { .. } => HighRisk::Refund,
        }
    }

    /// Of which risk it is; `None` below the thresholds of F-60.
    pub fn high_risk(&self) -> Option<HighRisk> {
        match self {
            Action::BulkTermination { subscriptions, .. } if subscriptions.len() <= BULK_TERMINATION_OVER => None,
            Action::PriceChange { customers, .. } if *customers <= PRICE_CHANGE_CUSTOMERS_OVER => None,
            Action::Refund {
                amount_minor,
                counted_minor,
                ..
            } if *amount_minor.max(counted_minor) <= REFUND_OVER_MINOR => None,
            _ => Some(self.kind()),
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

    /// Whether it waits for a second admin.
    pub fn needs_second_admin(&self) -> bool {
        self.high_risk().is_some_and(HighRisk::needs_second_admin)
    }
}

/// What an admin asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct NewRequest<'a> {
    pub action: Action,
    /// The id of what it is about, such as `pln_3`.
    pub subject: &'a str,
    /// What it does, for the one who decides, in a sentence.
    pub summary: &'a str,
}

/// Asks for an action that a second admin decides on.
///
/// # Errors
/// When the action needs no approval, who asks may not, or there is no other admin who could decide.
pub async fn request(
    connection: &mut AnyConnection,
    new: NewRequest<'_>,
    by: Admin<'_>,
    now_ms: i64,
) -> Result<Requested, ActionError> {
    let kind = new.action.kind();
    if let Action::BulkTermination { subscriptions, .. } = &new.action
        && !(1..=MAX_TERMINATED).contains(&subscriptions.len())
    {
        return Err(ActionError::Terminated(subscriptions.len()));
    }
    if !new.action.needs_second_admin() {
        return Err(ActionError::NotNeeded(kind.name()));
    }
    let asked = approval::NewApproval {
        kind: kind.name(),
        action: serde_json::to_value(&new.action)?,
        // Refunds are finance's; an admin decides all the same.
        requester_role: match kind {
            HighRisk::Refund => Role::Finance,
            _ => Role::Admin,
        },
        subject: new.subject,
        summary: new.summary,
    };
    Ok(approval::request(connection, asked, by, now_ms).await?)
}

/// Approves: returns what is to be done now, in the caller's transaction, and what the decision's entry says. It is handed out once.
///
/// # Errors
/// When it was decided before, or `by` is no admin or the one who asked.
pub async fn approve(
    connection: &mut AnyConnection,
    id: ApprovalId,
    by: Admin<'_>,
    now_ms: i64,
) -> Result<(Action, Note), ActionError> {
    let (approval, note) = approval::approve(connection, id, by, now_ms).await?;
    Ok((Action::of(&approval)?, note))
}

#[cfg(test)]
mod tests;
