//! Bank transfers: finance records what has come in, with the reference of the bank.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, InvoiceId, PaymentId};
use schemas::money::Money;
use schemas::window::{DAY_MS, HOUR_MS};
use sqlx::AnyConnection;

use super::engine::{announce, same_currency, settle};
use super::reversal::reversal_of;
use super::store::{self, Payment, Purpose};
use super::{GatewayName, PaymentError, PaymentState, checked_text};
use crate::settlement;

const MAX_REFERENCE_CHARS: usize = 200;
const MAX_NOTE_CHARS: usize = 500;
/// Days that a value date lies back at most.
pub const MAX_VALUE_AGE_DAYS: i64 = 366;
/// A day begins so long before it does in UTC, where it begins first.
const FIRST_ZONE_MS: i64 = 14 * HOUR_MS;

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
    /// The day on which the bank had it; `None`: the day of recording.
    pub value_date: Option<Date>,
}

/// Midnight UTC of the value date of a transfer that is recorded now. It may be a day that has begun anywhere, and lies
/// [`MAX_VALUE_AGE_DAYS`] back at most: what is older is a slip of the pen.
fn value_at_ms(date: Option<Date>, now_ms: i64) -> Result<i64, PaymentError> {
    let day = |at_ms: i64| {
        let at = Timestamp::from_millisecond(at_ms).map_err(|_| PaymentError::Corrupt {
            what: "instant",
            text: at_ms.to_string(),
        })?;
        Ok::<_, PaymentError>(at.to_zoned(TimeZone::UTC).date())
    };
    let (latest, earliest) = (day(now_ms + FIRST_ZONE_MS)?, day(now_ms - MAX_VALUE_AGE_DAYS * DAY_MS)?);
    let date = match date {
        Some(date) => date,
        None => day(now_ms)?,
    };
    if date < earliest || date > latest {
        return Err(PaymentError::ValueDate { date, earliest, latest });
    }
    let midnight = date
        .to_zoned(TimeZone::UTC)
        .map_err(|_| PaymentError::ValueDate { date, earliest, latest })?;
    Ok(midnight.timestamp().as_millisecond())
}

/// Records a bank transfer: succeeded at once.
///
/// # Errors
/// When this reference was recorded for the customer before, the currency is not the customer's, the invoice another's, or the
/// value date a day to come.
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
    let value_at_ms = value_at_ms(transfer.value_date, now_ms)?;
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
    let first = format!("manual:{customer}:{reference}");
    let mut key = first.clone();
    // One that was reversed does not count: what was recorded wrongly is recorded again. No reference has a line break.
    let mut times = 1;
    while let Some(before) = store::by_key(&mut *transaction, &key).await? {
        if reversal_of(&mut *transaction, &before).await?.is_none() {
            return Err(PaymentError::RecordedBefore {
                reference,
                payment: before.id,
            });
        }
        times += 1;
        key = format!("{first}\n{times}");
    }
    let id = PaymentId(next_id(&mut *transaction, "payment").await?);
    let purpose = invoice.map_or(Purpose::TopUp, Purpose::Invoice);
    sqlx::query(
        "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, currency, amount_minor, idempotency_key, state, \
         reference, action_url, error, calls, note, created_at_ms, updated_at_ms, paid_at_ms, \
         value_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'succeeded', $9, '', '', 0, $10, $11, $11, $11, $12)",
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
    .bind(super::engine::cut_plain(transfer.note, MAX_NOTE_CHARS))
    .bind(now_ms)
    .bind(value_at_ms)
    .execute(&mut *transaction)
    .await?;
    let payment = store::payment(&mut *transaction, id).await?;
    settle(&mut *transaction, &payment, now_ms).await?;
    announce(&mut *transaction, &payment, PaymentState::Succeeded, "", "", now_ms).await?;
    Ok(payment)
}

#[cfg(test)]
mod tests {
    use schemas::money::Currency;

    use super::*;
    use crate::aging::aging;
    use crate::export::{self, Cell, SheetKind};
    use crate::ledger;
    use crate::settlement::tests::{Books, usd};
    use crate::testing::ms;

    const RECORDED: &str = "2026-02-03T09:00:00Z";

    fn transfer(books: &Books, invoice: Option<InvoiceId>, reference: &'static str) -> Transfer<'static> {
        Transfer {
            customer: books.customer,
            invoice,
            amount: usd(10_000),
            reference,
            note: "",
            value_date: Some("2026-01-10".parse().unwrap()),
        }
    }

    async fn open_at(books: &Books, at: &str) -> i64 {
        let aged = aging(books.database.pool(), ms(at)).await.unwrap();
        aged.first().map_or(0, |sums| sums.total.minor)
    }

    #[tokio::test]
    async fn a_transfer_counts_from_its_value_date_whenever_it_was_recorded() {
        let books = Books::new().await;
        let invoice = books.document(10_000, None).await;
        let paid = record_transfer(
            &books.database,
            &transfer(&books, Some(invoice), "bank 1"),
            ms(RECORDED),
        )
        .await
        .unwrap();
        assert_eq!(paid.value_date(), Some("2026-01-10".parse().unwrap()));
        assert_eq!(
            (paid.created_at_ms, paid.paid_at_ms),
            (ms(RECORDED), Some(ms(RECORDED)))
        );
        assert_eq!(open_at(&books, "2026-01-09T23:59:59Z").await, 10_000);
        assert_eq!(open_at(&books, "2026-01-10T00:00:00Z").await, 0);
        assert_eq!(open_at(&books, RECORDED).await, 0);

        // The books are posted when it was recorded, and say the value date.
        let lines = ledger::statement(books.database.pool(), books.customer, None, 10)
            .await
            .unwrap();
        assert_eq!(
            (lines[0].posted_at_ms, lines[0].value_at_ms),
            (ms(RECORDED), Some(ms("2026-01-10T00:00:00Z")))
        );
        assert_eq!(lines[1].value_at_ms, None);
        let posted = ledger::transactions(books.database.pool(), ledger::TransactionFilter::default(), 10)
            .await
            .unwrap();
        assert_eq!(posted[0].value_at_ms, Some(ms("2026-01-10T00:00:00Z")));
        let mut connection = books.database.pool().acquire().await.unwrap();
        for kind in [SheetKind::Payments, SheetKind::Postings] {
            let (from_ms, to_ms) = (ms("2026-02-01T00:00:00Z"), ms("2026-03-01T00:00:00Z"));
            let sheet = export::sheet(&mut connection, kind, from_ms, to_ms).await.unwrap();
            assert!(!sheet.rows.is_empty());
            for row in sheet.rows {
                assert!(row.contains(&Cell::Plain("2026-01-10".to_owned())), "{row:?}");
            }
        }
        books.assert_clean().await;
    }

    #[tokio::test]
    async fn a_late_payment_of_what_was_written_off_counts_from_its_value_date_too() {
        let books = Books::new().await;
        let invoice = books.document(10_000, None).await;
        let mut transaction = books.database.begin_write().await.unwrap();
        settlement::write_off(&mut transaction, invoice, "moved away", ms("2026-01-05T00:00:00Z"))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        record_transfer(
            &books.database,
            &transfer(&books, Some(invoice), "bank 1"),
            ms(RECORDED),
        )
        .await
        .unwrap();
        for (at, open) in [
            ("2026-01-04T00:00:00Z", 10_000),
            ("2026-01-06T00:00:00Z", 0),
            ("2026-01-11T00:00:00Z", 0),
            (RECORDED, 0),
        ] {
            assert_eq!(open_at(&books, at).await, open, "{at}");
        }
        books.assert_clean().await;
    }

    #[tokio::test]
    async fn a_value_date_is_a_day_that_has_begun_and_no_slip_of_the_pen() {
        let books = Books::new().await;
        let on = |date: &str| Transfer {
            value_date: Some(date.parse().unwrap()),
            reference: "bank 2",
            ..transfer(&books, None, "")
        };
        for (date, words) in [
            ("2026-02-04", Some("not on 2026-02-04")),
            (
                "2025-02-01",
                Some("lies between 2025-02-02 and 2026-02-03, not on 2025-02-01"),
            ),
            ("2026-02-03", None),
        ] {
            let done = record_transfer(&books.database, &on(date), ms(RECORDED)).await;
            match (done, words) {
                (Ok(payment), None) => assert_eq!(payment.value_date().unwrap().to_string(), date),
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                other => panic!("{other:?}"),
            }
        }
        // Where none is said it is the day of recording.
        let none = Transfer {
            value_date: None,
            reference: "bank 3",
            ..transfer(&books, None, "")
        };
        let payment = record_transfer(&books.database, &none, ms(RECORDED)).await.unwrap();
        assert_eq!(payment.value_date(), Some("2026-02-03".parse().unwrap()));
        let credit = settlement::credit_balance(books.database.pool(), books.customer, Currency::USD).await;
        assert_eq!(credit.unwrap(), usd(20_000));
    }
}
