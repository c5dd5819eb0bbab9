//! What happens next to an open invoice, for the pages that tell it.

use schemas::ids::InvoiceId;
use sqlx::{AnyConnection, Row as _};

use super::{DunningError, IS_LEFT_ALONE, Progress, WAS_REOPENED, read_unpaid};
use crate::charger;
use crate::collection_terms::{TermsError, terms};

/// What is still to come by itself while an invoice is not paid.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Outlook {
    /// When the default payment method is charged; empty where there is none, or where money was taken back.
    pub charges_at_ms: Vec<i64>,
    pub suspends_at_ms: Option<i64>,
    pub terminates_at_ms: Option<i64>,
    /// Whether days on which the service is suspended for it are charged.
    pub bills_suspended: bool,
}

/// The outlook of an invoice; `None` where it is not collected, as when it is paid or disputed.
///
/// # Errors
/// As the database answers.
pub async fn outlook(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<Option<Outlook>, DunningError> {
    let terms = terms(&mut *connection).await?;
    let Some(unpaid) = read_unpaid(&mut *connection, invoice)
        .await?
        .filter(|unpaid| unpaid.is_open)
    else {
        return Ok(None);
    };
    let schedule = terms.schedule().map_err(TermsError::from)?;
    let method = charger::default_method(&mut *connection, unpaid.customer).await?;
    let charges = schedule.retry_days().iter().copied();
    let is_to_come = |day: &i64| Progress::day(*day) > unpaid.progress;
    let at_ms = |day: i64| unpaid.dates.due_at_ms + day * schemas::window::DAY_MS;
    Ok(Some(Outlook {
        charges_at_ms: match method.is_some() && !unpaid.is_reopened {
            true => charges.filter(is_to_come).map(at_ms).collect(),
            false => Vec::new(),
        },
        suspends_at_ms: Some(schedule.suspend_day()).filter(is_to_come).map(at_ms),
        terminates_at_ms: schedule.terminate_day().filter(is_to_come).map(at_ms),
        bills_suspended: terms.bill_suspended,
    }))
}

/// Whether the next pass of collection, a minute or two after an invoice was finalised, settles it by the customer's credit and
/// default payment method; also while collection has not begun with it.
///
/// # Errors
/// As the database answers.
pub async fn is_charged_next(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<bool, DunningError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT count(*) FROM invoices i LEFT JOIN dunning d ON d.invoice_id = i.id WHERE i.id = $1 AND NOT {IS_LEFT_ALONE} \
         AND coalesce(d.step, {none}) = {none} AND NOT (d.step IS NULL AND {WAS_REOPENED})",
        none = Progress::NONE.0,
    ));
    let row = sqlx::query(sql).bind(invoice.0).fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)? > 0)
}
