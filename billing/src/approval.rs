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
pub use execute::{ExecuteError, ExecutionOutcome, carry_out, execute};
use schemas::ids::ApprovalId;
use sqlx::AnyConnection;

use crate::action::{Action, ActionError};

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

#[cfg(test)]
mod tests;
