//! What customers are told ahead of time, where the terms say so: that an invoice is due soon, that a card expires.
//!
//! Of several notices that were missed the last is given. Which was given is kept with the invoice and the payment method, so
//! that each is given once, whoever looks and how often, and a notice that the terms get anew is given where it is due.

use activity::event::EventType;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, PaymentMethodId};
use schemas::money::{Currency, Money};
use schemas::window::DAY_MS;
use sqlx::Row as _;

use super::{AT_ONCE, DunningError, IS_LEFT_ALONE};
use crate::collection_terms::Terms;
use crate::settlement;

/// Gives the notices that are due, and returns how many.
///
/// # Errors
/// As the database answers.
pub(super) async fn run(database: &Database, terms: &Terms, now_ms: i64) -> Result<u64, DunningError> {
    Ok(remind_of_invoices(database, terms, now_ms).await? + notify_expiring_cards(database, terms, now_ms).await?)
}

/// The notice that is due before an instant: the fewest days whose day has come.
fn due_notice(days: &[i64], at_ms: i64, now_ms: i64) -> Option<i64> {
    let come = days.iter().copied().filter(|day| at_ms - day * DAY_MS <= now_ms);
    come.min().filter(|_| now_ms < at_ms)
}

async fn remind_of_invoices(database: &Database, terms: &Terms, now_ms: i64) -> Result<u64, DunningError> {
    let Some(most) = terms.remind_days_before.iter().max() else {
        return Ok(0);
    };
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT i.id, i.customer_id, i.number, i.currency, i.due_at_ms, d.reminded_days FROM dunning d \
         JOIN invoices i ON i.id = d.invoice_id WHERE i.due_at_ms > $1 AND i.due_at_ms <= $2 AND NOT {IS_LEFT_ALONE} \
         AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.invoice_id = i.id AND p.state IN ('intent', 'unknown', 'processing')) \
         ORDER BY i.due_at_ms, i.id LIMIT $3"
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(now_ms + most * DAY_MS)
        .bind(AT_ONCE)
        .fetch_all(database.pool())
        .await?;
    let mut given = 0;
    for row in &rows {
        let (invoice, customer) = (InvoiceId(row.try_get(0)?), CustomerId(row.try_get(1)?));
        let (due_at_ms, before): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
        let Some(days) = due_notice(&terms.remind_days_before, due_at_ms, now_ms).filter(|days| *days < before) else {
            continue;
        };
        let mut transaction = database.begin_write().await?;
        let noted = sqlx::query(
            "UPDATE dunning SET reminded_days = $2, updated_at_ms = $3 WHERE invoice_id = $1 AND reminded_days > $2",
        )
        .bind(invoice.0)
        .bind(days)
        .bind(now_ms)
        .execute(&mut *transaction)
        .await?;
        let open = settlement::outstanding(&mut *transaction, invoice).await?;
        if noted.rows_affected() == 0 || open.minor <= 0 {
            continue;
        }
        let currency: Currency = row.try_get::<String, _>(3)?.parse()?;
        let facts = serde_json::json!({
            "number": row.try_get::<String, _>(2)?, "amount_minor": open.minor,
            "open_minor": Money::new(open.minor, currency).minor, "currency": currency.code(), "due_at_ms": due_at_ms,
            "days": days,
        });
        let subject = invoice.to_string();
        settlement::tell(
            &mut transaction,
            EventType::InvoiceDueSoon,
            customer,
            subject,
            facts,
            now_ms,
        )
        .await?;
        transaction.commit().await?;
        given += 1;
    }
    Ok(given)
}

/// Default methods of customers who have something running. A card is good to the end of its month.
async fn notify_expiring_cards(database: &Database, terms: &Terms, now_ms: i64) -> Result<u64, DunningError> {
    let Some(most) = terms.card_expiry_notice_days.iter().max() else {
        return Ok(0);
    };
    // Months are text that sorts: those that end within the longest notice are found without reading the others.
    let (from, to) = (month_of(now_ms), month_of(now_ms + most * DAY_MS));
    let rows = sqlx::query(
        "SELECT m.id, m.customer_id, m.gateway, m.label, m.expires, m.expiry_notice_days FROM payment_methods m \
         WHERE m.is_default = 1 AND m.removed_at_ms IS NULL AND m.expires >= $1 AND m.expires <= $2 \
         AND EXISTS (SELECT 1 FROM subscriptions s WHERE s.customer_id = m.customer_id AND s.status <> 'ended') \
         ORDER BY m.id LIMIT $3",
    )
    .bind(from)
    .bind(to)
    .bind(AT_ONCE)
    .fetch_all(database.pool())
    .await?;
    let mut given = 0;
    for row in &rows {
        let (method, customer) = (PaymentMethodId(row.try_get(0)?), CustomerId(row.try_get(1)?));
        let (expires, before): (String, i64) = (row.try_get(4)?, row.try_get(5)?);
        // What a gateway writes that is no month is nothing to be told.
        let Some(at_ms) = end_of_month_ms(&expires) else {
            continue;
        };
        let notice = due_notice(&terms.card_expiry_notice_days, at_ms, now_ms).filter(|days| *days < before);
        let Some(days) = notice else { continue };
        let mut transaction = database.begin_write().await?;
        let noted = sqlx::query(
            "UPDATE payment_methods SET expiry_notice_days = $2 WHERE id = $1 AND expiry_notice_days > $2 AND removed_at_ms IS NULL",
        )
        .bind(method.0)
        .bind(days)
        .execute(&mut *transaction)
        .await?;
        if noted.rows_affected() == 0 {
            continue;
        }
        let facts = serde_json::json!({
            "method": method, "gateway": row.try_get::<String, _>(2)?, "label": row.try_get::<String, _>(3)?,
            "expires": expires, "days": days,
        });
        let (kind, subject) = (EventType::PaymentMethodExpiring, method.to_string());
        settlement::tell(&mut transaction, kind, customer, subject, facts, now_ms).await?;
        transaction.commit().await?;
        given += 1;
    }
    Ok(given)
}

/// `2026-11` of an instant.
fn month_of(at_ms: i64) -> String {
    let zoned = jiff::Timestamp::from_millisecond(at_ms).map(|at| at.to_zoned(TimeZone::UTC));
    zoned.map_or(String::new(), |zoned| zoned.strftime("%Y-%m").to_string())
}

/// The instant at which a card's month, `2026-11`, is over.
fn end_of_month_ms(month: &str) -> Option<i64> {
    let first: Date = format!("{month}-01").parse().ok()?;
    let next = first.last_of_month().tomorrow().ok()?;
    Some(next.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ms;

    #[test]
    fn a_card_is_good_to_the_end_of_its_month() {
        assert_eq!(end_of_month_ms("2026-12"), Some(ms("2027-01-01T00:00:00Z")));
        assert_eq!(end_of_month_ms("2028-02"), Some(ms("2028-03-01T00:00:00Z")));
        for no_month in ["", "2026", "2026-13", "12/26"] {
            assert_eq!(end_of_month_ms(no_month), None, "{no_month}");
        }
        assert_eq!(month_of(ms("2026-12-31T23:59:59Z")), "2026-12");
    }

    #[test]
    fn of_missed_notices_the_last_is_given() {
        let at_ms = ms("2026-03-15T00:00:00Z");
        for (now, expected) in [
            ("2026-03-01T00:00:00Z", None),
            ("2026-03-08T00:00:00Z", Some(7)),
            ("2026-03-13T00:00:00Z", Some(2)),
            ("2026-03-15T00:00:00Z", None),
        ] {
            assert_eq!(due_notice(&[7, 2], at_ms, ms(now)), expected, "{now}");
        }
    }
}
