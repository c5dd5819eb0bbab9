//! Payments that did not go through, and what collection does next, as finance sees them beside a customer or an invoice.

use billing::dunning;
use billing::payment::{self, PaymentFilter, PaymentState};
use jiff::tz::TimeZone;
use schemas::ids::{InvoiceId, PaymentId};
use schemas::money::Money;

use crate::error::Failure;
use crate::format;
use crate::pages::paying::error_words;
use crate::state::AppState;

/// Failed payments that are shown; the list of payments has the rest.
const FAILED_SHOWN: i64 = 6;

/// A payment that failed.
pub(super) struct FailedRow {
    pub(super) id: PaymentId,
    pub(super) at: String,
    pub(super) gateway: &'static str,
    pub(super) error: String,
    pub(super) amount: Money,
}

/// The latest payments that failed, of a customer or for an invoice.
pub(super) async fn failed(state: &AppState, of: PaymentFilter) -> Result<Vec<FailedRow>, Failure> {
    let filter = PaymentFilter {
        state: Some(PaymentState::Failed),
        ..of
    };
    let failed = payment::list(state.db().pool(), filter, FAILED_SHOWN).await?;
    let row = |payment: payment::Payment| FailedRow {
        id: payment.id,
        at: format::minute(payment.created_at_ms, &TimeZone::UTC),
        gateway: payment.gateway.words(),
        error: error_words(&payment.error),
        amount: payment.amount,
    };
    Ok(failed.into_iter().map(row).collect())
}

/// What collection does next with an invoice, in sentences; none where it does nothing any more.
pub(super) async fn next_steps(state: &AppState, invoice: InvoiceId, zone: &TimeZone) -> Result<Vec<String>, Failure> {
    let ask = |error: dunning::DunningError| Failure::internal("ask how an invoice is collected")(error.into());
    let mut connection = state.db().pool().acquire().await?;
    let mut steps = Vec::new();
    if dunning::is_charged_next(&mut connection, invoice).await.map_err(ask)? {
        steps.push("Credit and the default payment method are charged within a few minutes.".to_owned());
    }
    let Some(outlook) = dunning::outlook(&mut connection, invoice).await.map_err(ask)? else {
        return Ok(steps);
    };
    let day = |at_ms: &i64| format::date(*at_ms, zone);
    if !outlook.charges_at_ms.is_empty() {
        let days: Vec<String> = outlook.charges_at_ms.iter().map(day).collect();
        steps.push(format!("The default payment method is charged on {}.", days.join(", ")));
    }
    if let Some(at_ms) = &outlook.suspends_at_ms {
        steps.push(format!("Its services are suspended on {}.", day(at_ms)));
    }
    if let Some(at_ms) = &outlook.terminates_at_ms {
        steps.push(format!("Subscriptions suspended for it end on {}.", day(at_ms)));
    }
    Ok(steps)
}
