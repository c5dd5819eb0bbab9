//! Where a credit note goes: to what is open of its invoice, to what was written off of it, and the rest becomes credit.

use schemas::ids::InvoiceId;
use schemas::money::{Money, MoneyError};
use sqlx::{AnyConnection, AnyExecutor};

use super::{
    Document, SettlementError, Source, Split, allocate, floor_at_zero, lock_document, minus, nonzero, post,
    recompute_status, smaller,
};
use crate::ledger::{self, Account, NewTransaction};

/// Where a credit note goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct NoteSplit {
    /// Settles what is open of its invoice.
    pub to_open: Money,
    /// Takes back what was written off of it.
    pub to_written_off: Money,
    /// Becomes the customer's credit.
    pub to_credit: Money,
}

impl NoteSplit {
    /// Where `gross` of a credit note goes that corrects this invoice.
    fn of(invoice: &Document, gross: Money) -> Result<NoteSplit, MoneyError> {
        let to_open = smaller(gross, floor_at_zero(invoice.open()?));
        let left = minus(gross, to_open)?;
        let to_written_off = smaller(left, floor_at_zero(invoice.written_off));
        Ok(NoteSplit {
            to_open,
            to_written_off,
            to_credit: minus(left, to_written_off)?,
        })
    }
}

/// What a credit note over `gross` of an invoice would settle of it, open amounts and written-off ones, and what would become
/// credit: as [`apply_credit_note`] does it.
///
/// # Errors
/// [`SettlementError::NoInvoice`] when there is none of this id.
pub(crate) async fn credit_note_split(
    db: impl AnyExecutor<'_>,
    invoice: InvoiceId,
    gross: Money,
) -> Result<NoteSplit, SettlementError> {
    Ok(NoteSplit::of(&super::document(db, invoice).await?, gross)?)
}

/// Settles the invoice that a finalised credit note corrects, as far as that is open or was written off; the rest becomes
/// credit. What nobody ever paid makes none.
///
/// # Errors
/// When it is no credit note, or was not posted yet.
pub async fn apply_credit_note(
    connection: &mut AnyConnection,
    note: InvoiceId,
    now_ms: i64,
) -> Result<Split, SettlementError> {
    let document = lock_document(connection, note).await?;
    if !document.is_credit_note {
        return Err(SettlementError::NotACreditNote(note));
    }
    let (customer, currency) = (document.customer, document.total.currency);
    // What is left of the note, as a positive amount: nothing when it was applied before.
    let left = floor_at_zero(document.open()?.checked_neg()?);
    let mut to_invoice = Money::zero(currency);
    if let Some(corrected) = document.corrects
        && left.minor > 0
    {
        let invoice = super::document(&mut *connection, corrected).await?;
        let split = NoteSplit::of(&invoice, left)?;
        let given_up = split.to_written_off;
        to_invoice = split.to_open.checked_add(given_up)?;
        if given_up.minor > 0 {
            // It is not owed, so it was no debt to give up.
            let transaction = post(
                connection,
                NewTransaction {
                    idempotency_key: format!("not_owed:{note}"),
                    customer: Some(customer),
                    invoice: Some(corrected),
                    payment: None,
                    refund: None,
                    description: format!("credit note {} for what was written off", document.number),
                    posted_at_ms: now_ms,
                    postings: nonzero([
                        (Account::receivable(customer, currency), given_up),
                        (Account::bad_debt(currency), given_up.checked_neg()?),
                    ]),
                },
            )
            .await?;
            let undone = given_up.checked_neg()?;
            allocate(connection, corrected, Source::WriteOff, undone, transaction, now_ms).await?;
        }
        let key = format!("invoice:{note}");
        let own = ledger::posted(&mut *connection, &key).await?;
        let own = own.ok_or(SettlementError::Corrupt {
            what: "credit note, which has no transaction",
            text: key,
        })?;
        let source = Source::CreditNote(note);
        allocate(connection, corrected, source, to_invoice, own, now_ms).await?;
        allocate(connection, note, source, to_invoice.checked_neg()?, own, now_ms).await?;
        recompute_status(connection, corrected, now_ms).await?;
    }
    let to_credit = minus(left, to_invoice)?;
    if to_credit.minor > 0 {
        let transaction = post(
            connection,
            NewTransaction {
                idempotency_key: format!("credit_note:{note}"),
                customer: Some(customer),
                invoice: Some(note),
                payment: None,
                refund: None,
                description: format!("credit note {} becomes credit", document.number),
                posted_at_ms: now_ms,
                postings: nonzero([
                    (Account::receivable(customer, currency), to_credit),
                    (Account::credit(customer, currency), to_credit.checked_neg()?),
                ]),
            },
        )
        .await?;
        allocate(
            connection,
            note,
            Source::Credit,
            to_credit.checked_neg()?,
            transaction,
            now_ms,
        )
        .await?;
    }
    recompute_status(connection, note, now_ms).await?;
    Ok(Split { to_invoice, to_credit })
}
