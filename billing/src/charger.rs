//! Where collection meets payments: who charges a saved payment method.
//!
//! Collection decides *that* something is charged, and when; [`Charger`] does it, exactly once (B4), and keeps the row in
//! `payments` that says what became of it. Tests have one that answers by a script.

#[cfg(test)]
pub(crate) mod script;

use async_trait::async_trait;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, PaymentMethodId};
use schemas::money::Money;
use sqlx::{AnyExecutor, Row as _};

/// What a charge is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// All that this invoice leaves open.
    Invoice(InvoiceId),
    /// Credit.
    TopUp(Money),
}

/// A charge to be made of a saved payment method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChargeOrder<'a> {
    pub customer: CustomerId,
    pub method: PaymentMethodId,
    pub purpose: Purpose,
    /// Kept with the payment, as `note`.
    pub note: &'a str,
}

/// What became of a charge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChargeResult {
    /// The money is there, and settled in the ledger.
    Succeeded(PaymentId),
    /// The gateway works on it, the customer must confirm it, or nobody knows yet. So it is too where another payment of
    /// the same purpose is under way: then nothing was charged.
    UnderWay(PaymentId),
    Declined {
        payment: PaymentId,
        reason: String,
    },
    /// Nothing was asked for, because nothing is open any more.
    NothingOpen,
}

/// The charge could not be made at all; no money has moved, or the payment's row says that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("charge {customer}")]
pub struct ChargerError {
    pub customer: CustomerId,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

schemas::error_codes! {
    struct ChargerError: Fault "charger.failed";
}

/// Charges saved payment methods.
#[async_trait]
pub trait Charger: Send + Sync {
    /// Charges once. Whoever asks again asks for another charge; at most one of an invoice, and one top-up of a customer, is
    /// under way.
    async fn charge(&self, order: ChargeOrder<'_>, now_ms: i64) -> Result<ChargeResult, ChargerError>;
}

/// The payment method that a customer is charged by.
///
/// # Errors
/// As the database answers.
pub async fn default_method(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
) -> Result<Option<PaymentMethodId>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id FROM payment_methods WHERE customer_id = $1 AND is_default = 1 AND removed_at_ms IS NULL \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(customer.0)
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(PaymentMethodId))
}
