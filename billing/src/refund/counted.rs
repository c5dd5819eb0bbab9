//! What counts towards the threshold of a refund (F-60): parts of one refund are one refund.
//!
//! ```text
//! refunds of the payment, failed ones not          ┐
//!   + requested of it and pending                  ┘ the larger of both
//! refunds of the customer within 24 hours          ┐ counts with the new amount
//!   + requested of the customer and pending        ┘
//! ```

use activity::approval::{self, Status};
use activity::risk::HighRisk;
use schemas::ids::{ApprovalId, PaymentId};
use schemas::money::{Currency, Money};
use schemas::window::HOUR_MS;
use sqlx::{AnyConnection, Row as _};

use super::RefundError;
use crate::action::{Action, ActionError};
use crate::payment::{self, Payment};

/// Refunds of a customer that are no longer apart than this count together.
const TOGETHER_MS: i64 = 24 * HOUR_MS;

/// A refund that was requested, and that a second admin has not decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingRefund {
    pub approval: ApprovalId,
    pub payment: PaymentId,
    pub amount: Money,
    pub reason: String,
    pub requested_at_ms: i64,
}

/// The refunds that wait for a second admin, oldest first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn pending(connection: &mut AnyConnection) -> Result<Vec<PendingRefund>, RefundError> {
    let mut found = Vec::new();
    let requested = approval::pending_of(connection, HighRisk::Refund).await;
    for approval in requested.map_err(ActionError::from)? {
        let Action::Refund {
            payment,
            currency,
            amount_minor,
            reason,
            ..
        } = Action::of(&approval)?
        else {
            continue;
        };
        debug_assert_eq!(approval.status, Status::Pending);
        found.push(PendingRefund {
            approval: approval.id,
            payment,
            amount: Money::new(amount_minor, currency.parse::<Currency>()?),
            reason,
            requested_at_ms: approval.requested_at_ms,
        });
    }
    Ok(found)
}

/// What was refunded before, or is about to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RefundTotals {
    /// Requested of the payment.
    pub(super) pending: Money,
    of_payment: Money,
    of_customer: Money,
}

impl RefundTotals {
    /// What a refund of so much comes to with them.
    pub(super) fn with(&self, amount: Money) -> Result<Money, RefundError> {
        let before = match self.of_payment.minor > self.of_customer.minor {
            true => self.of_payment,
            false => self.of_customer,
        };
        Ok(amount.checked_add(before)?)
    }
}

/// What counts beside a new refund of a payment.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub(super) async fn before(
    connection: &mut AnyConnection,
    payment: &Payment,
    now_ms: i64,
) -> Result<RefundTotals, RefundError> {
    let currency = payment.amount.currency;
    let mut counted = RefundTotals {
        pending: Money::zero(currency),
        of_payment: Money::zero(currency),
        of_customer: Money::zero(currency),
    };
    let rows = sqlx::query(
        "SELECT r.payment_id, r.amount_minor, r.created_at_ms FROM refunds r JOIN payments p ON p.id = r.payment_id \
         WHERE p.customer_id = $1 AND r.currency = $2 AND r.state <> 'failed' AND (r.payment_id = $3 OR \
         r.created_at_ms > $4)",
    )
    .bind(payment.customer.0)
    .bind(currency.code())
    .bind(payment.id.0)
    .bind(now_ms - TOGETHER_MS)
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let amount = Money::new(row.try_get(1)?, currency);
        if PaymentId(row.try_get(0)?) == payment.id {
            counted.of_payment = counted.of_payment.checked_add(amount)?;
        }
        if row.try_get::<i64, _>(2)? > now_ms - TOGETHER_MS {
            counted.of_customer = counted.of_customer.checked_add(amount)?;
        }
    }
    for refund in pending(&mut *connection).await? {
        let of = payment::payment(&mut *connection, refund.payment).await?;
        if of.customer != payment.customer || refund.amount.currency != currency {
            continue;
        }
        counted.of_customer = counted.of_customer.checked_add(refund.amount)?;
        if of.id == payment.id {
            counted.of_payment = counted.of_payment.checked_add(refund.amount)?;
            counted.pending = counted.pending.checked_add(refund.amount)?;
        }
    }
    Ok(counted)
}
