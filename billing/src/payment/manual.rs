//! Bank transfers: finance records what has come in, with the reference of the bank.

use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, InvoiceId, PaymentId};
use schemas::money::Money;
use sqlx::AnyConnection;

use super::engine::{announce, same_currency, settle};
use super::store::{self, Payment, Purpose};
use super::{GatewayName, PaymentError, State, checked_text};
use crate::settlement;

const MAX_REFERENCE_CHARS: usize = 200;
const MAX_NOTE_CHARS: usize = 500;

/// Money that has come in by bank transfer. More than an invoice leaves open becomes credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer<'a> {
    pub customer: CustomerId,
    /// `None`: all of it becomes credit.
    pub invoice: Option<InvoiceId>,
    pub amount: Money,
    /// The bank's: a transfer is recorded once.
    pub reference: &'a str,
    pub note: &'a str,
}

/// Records a bank transfer: succeeded at once.
///
/// # Errors
/// When this reference was recorded for the customer before, the currency is not the customer's, or the invoice another's.
pub async fn record_transfer(
    database: &Database,
    transfer: &Transfer<'_>,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let mut transaction = database.begin_write().await?;
    let payment = record_transfer_in(&mut transaction, transfer, now_ms).await?;
    transaction.commit().await?;
    Ok(payment)
}

/// As [`record_transfer`], in the caller's transaction.
///
/// # Errors
/// As [`record_transfer`].
pub async fn record_transfer_in(
    transaction: &mut AnyConnection,
    transfer: &Transfer<'_>,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let reference = checked_text("reference", transfer.reference, MAX_REFERENCE_CHARS)?;
    let Transfer {
        customer,
        invoice,
        amount,
        ..
    } = *transfer;
    if amount.minor <= 0 {
        return Err(PaymentError::NotPositive(amount));
    }
    settlement::lock_customer(&mut *transaction, customer).await?;
    match invoice {
        Some(invoice) => {
            let open = settlement::outstanding(&mut *transaction, invoice).await?;
            if open.currency != amount.currency {
                return Err(PaymentError::NotOpen {
                    invoice,
                    open,
                    asked: amount,
                });
            }
        }
        None => same_currency(&mut *transaction, customer, amount).await?,
    }
    let key = format!("manual:{customer}:{reference}");
    if let Some(before) = store::by_key(&mut *transaction, &key).await? {
        return Err(PaymentError::RecordedBefore {
            reference,
            payment: before.id,
        });
    }
    let id = PaymentId(next_id(&mut *transaction, "payment").await?);
    let purpose = invoice.map_or(Purpose::TopUp, Purpose::Invoice);
    sqlx::query(
        "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, currency, amount_minor, idempotency_key, state, \
         reference, action_url, error, calls, note, created_at_ms, updated_at_ms, paid_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'succeeded', $9, '', '', 0, $10, $11, $11, $11)",
    )
    .bind(id.0)
    .bind(customer.0)
    .bind(invoice.map(|invoice| invoice.0))
    .bind(purpose.name())
    .bind(GatewayName::Manual.name())
    .bind(amount.currency.code())
    .bind(amount.minor)
    .bind(key)
    .bind(&reference)
    .bind(super::engine::cut(transfer.note, MAX_NOTE_CHARS))
    .bind(now_ms)
    .execute(&mut *transaction)
    .await?;
    let payment = store::payment(&mut *transaction, id).await?;
    settle(&mut *transaction, &payment, now_ms).await?;
    announce(&mut *transaction, &payment, State::Succeeded, "", "", now_ms).await?;
    Ok(payment)
}
