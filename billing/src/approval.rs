//! What a second admin decides (F-60): what each action that may wait is measured by ([`wanted`]), and doing those that were approved
//! ([`execute()`]). Which actions there are: [`crate::action`]. How a request is kept and decided: [`activity::approval`].
//!
//! ```text
//! wanted::credit_grant(…) ──▶ gate ──▶ Passes(risk): the caller does it as ever
//!                                  └─▶ Waits(request) ── carry_out: approved and done, in one transaction
//! ```

mod execute;
pub mod wanted;

use activity::act::Note;
use activity::approval;
pub use activity::approval::{Admin, Gate, Requested};
use activity::audit::Risk;
use activity::risk::{self, HighRisk, RiskAssessment};
pub use execute::{ExecuteError, ExecutionOutcome, carry_out, execute};
use schemas::ids::{ApprovalId, InvoiceId};
use sqlx::AnyConnection;

use crate::BillingError;
use crate::action::{Action, ActionError};
use crate::invoice::credited_together;

/// Approves: returns what is to be done now, in the caller's transaction, and what the decision's entry says. It is handed out once.
///
/// # Errors
/// When it was decided before or has expired, or `by` is no admin, the one who asked or the one whom it is about.
pub async fn approve(
    connection: &mut AnyConnection,
    id: ApprovalId,
    by: Admin<'_>,
    now_ms: i64,
) -> Result<(Action, Note), ActionError> {
    let (approval, note) = approval::approve(connection, id, by, now_ms).await?;
    Ok((Action::of(&approval)?, note))
}

/// Of what risk the credit note is that was just issued: those of a customer within a day count together, by hand, for a void invoice
/// or for a refund.
///
/// # Errors
/// As the database answers.
pub async fn credit_note_risk(
    connection: &mut AnyConnection,
    note: InvoiceId,
    now_ms: i64,
) -> Result<Risk, BillingError> {
    let credited = credited_together(&mut *connection, note, now_ms - wanted::TOGETHER_MS).await?;
    let thresholds = risk::thresholds(connection).await?;
    Ok(match thresholds.judge(HighRisk::CreditNote, credited.minor) {
        RiskAssessment::Passes => Risk::Normal,
        RiskAssessment::NotifyOwner | RiskAssessment::Waits(_) => Risk::High,
    })
}

#[cfg(test)]
mod tests;
