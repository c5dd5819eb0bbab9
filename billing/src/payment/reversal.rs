//! Bank transfers that are taken back: recorded by mistake, or returned by the bank.
//!
//! The payment is not changed. Its reversal is an entry of its own, in `payment_reversals` and in the ledger
//! (`reversal:pay_1`): what had become credit is taken from the credit, the rest is owed again, and the invoice is open. It
//! is made once, of the whole amount: the bank took all of it back, or it never came in. What was sent back to the
//! customer before
//! stays sent, so it is owed too. The bank's reference is free again, so that what was recorded wrongly can be
//! recorded rightly.
//!
//! What came by a gateway is never taken back here: the gateway says what became of its money.

use activity::event::EventType;
use schemas::db::Database;
use schemas::ids::PaymentId;
use schemas::money::Money;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::engine::locked;
use super::store::Payment;
use super::{GatewayName, PaymentError, checked_text};
use crate::settlement;

const MAX_REASON_CHARS: usize = 300;

/// A transfer that is to be taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewReversal<'a> {
    pub payment: PaymentId,
    /// Also told to the customer.
    pub reason: &'a str,
    /// Who asked: an id such as `usr_1`, or a name.
    pub created_by: &'a str,
}

/// A transfer that was taken back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reversal {
    pub amount: Money,
    pub reason: String,
    pub created_by: String,
    pub reversed_at_ms: i64,
}

/// Takes a bank transfer back, in a transaction of its own.
///
/// # Errors
/// As [`reverse_transfer_in`].
pub async fn reverse_transfer(
    database: &Database,
    new: &NewReversal<'_>,
    now_ms: i64,
) -> Result<Reversal, PaymentError> {
    let mut transaction = database.begin_write().await?;
    let reversal = reverse_transfer_in(&mut transaction, new, now_ms).await?;
    transaction.commit().await?;
    Ok(reversal)
}

/// Takes the whole of a bank transfer back: its invoice is open again, and what was refunded of it is owed.
///
/// # Errors
/// When it is no bank transfer, or was reversed before.
pub async fn reverse_transfer_in(
    connection: &mut AnyConnection,
    new: &NewReversal<'_>,
    now_ms: i64,
) -> Result<Reversal, PaymentError> {
    let reason = checked_text("reason", new.reason, MAX_REASON_CHARS)?;
    let payment = locked(&mut *connection, new.payment).await?;
    let refuse = |why| PaymentError::NotReversed {
        payment: payment.id,
        why,
    };
    if payment.gateway != GatewayName::Manual {
        return Err(refuse(
            "it came by a gateway, whose webhooks report disputes and returns: refund it instead",
        ));
    }
    if reversal_of(&mut *connection, &payment).await?.is_some() {
        return Err(refuse("it was reversed before"));
    }
    let amount = payment.amount;
    settlement::reverse(&mut *connection, payment.id, amount, now_ms).await?;
    sqlx::query(
        "INSERT INTO payment_reversals (payment_id, amount_minor, reason, created_by, reversed_at_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(payment.id.0)
    .bind(amount.minor)
    .bind(&reason)
    .bind(new.created_by)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let facts = serde_json::json!({
        "payment": payment.id,
        "invoice": payment.purpose.invoice(),
        "amount_minor": amount.minor,
        "currency": amount.currency.code(),
        "gateway": payment.gateway.name(),
        "reference": payment.reference,
        "reason": reason,
    });
    let subject = payment.id.to_string();
    let event_type = EventType::PaymentReversed;
    settlement::tell(connection, event_type, payment.customer, subject, facts, now_ms).await?;
    Ok(Reversal {
        amount,
        reason,
        created_by: new.created_by.to_owned(),
        reversed_at_ms: now_ms,
    })
}

/// The reversal of a payment, if it was reversed.
///
/// # Errors
/// As the database answers.
pub async fn reversal_of(db: impl AnyExecutor<'_>, payment: &Payment) -> Result<Option<Reversal>, PaymentError> {
    let row = sqlx::query(
        "SELECT amount_minor, reason, created_by, reversed_at_ms FROM payment_reversals WHERE payment_id = $1",
    )
    .bind(payment.id.0)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(Reversal {
        amount: Money::new(row.try_get(0)?, payment.amount.currency),
        reason: row.try_get(1)?,
        created_by: row.try_get(2)?,
        reversed_at_ms: row.try_get(3)?,
    }))
}

#[cfg(test)]
mod tests;
