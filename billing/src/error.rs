//! Why billing could not answer or act.

use analytics::AnalyticsError;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, PlanId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory::InventoryError;
use schemas::money::{Currency, MoneyError};
use schemas::period::PeriodError;
use schemas::window::instant_text;

use crate::ledger::LedgerError;

/// Why billing could not answer or act.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("read the inventory")]
    Inventory(#[from] InventoryError),
    #[error("measure usage")]
    Usage(#[from] AnalyticsError),
    #[error("compute an amount")]
    Money(#[from] MoneyError),
    #[error("compute a period")]
    Period(#[from] PeriodError),
    #[error("post to the ledger")]
    Ledger(#[from] LedgerError),
    #[error("no plan {0}")]
    NoPlan(PlanId),
    #[error("no price {0}")]
    NoPrice(PriceId),
    #[error("no subscription {0}")]
    NoSubscription(SubscriptionId),
    #[error("no invoice {0}")]
    NoInvoice(InvoiceId),
    #[error("no invoice line {0}")]
    NoInvoiceLine(InvoiceLineId),
    #[error("{0} is archived")]
    PlanArchived(PlanId),
    #[error("{field} {value} is not between {min} and {max}")]
    OutOfRange {
        field: &'static str,
        value: String,
        min: String,
        max: String,
    },
    #[error("a {field} has between 1 and {max} characters and no control characters, not {text:?}")]
    Text {
        field: &'static str,
        max: usize,
        text: String,
    },
    #[error("a {field} has at most {max} decimal places, not {value}")]
    TooFine {
        field: &'static str,
        max: u32,
        value: String,
    },
    #[error("{plan} already has a price in {currency} for {cycle_months} months from that instant on")]
    PriceExists {
        plan: PlanId,
        currency: Currency,
        cycle_months: i64,
    },
    #[error("a plan that bills usage is priced per month, not per {0} months")]
    UsageNeedsMonths(i64),
    #[error("{customer} pays in {pays} and the price is in {price}")]
    CurrencyMismatch {
        customer: CustomerId,
        pays: Currency,
        price: Currency,
    },
    #[error("{service} already has the subscription {subscription}")]
    AlreadySubscribed {
        service: ServiceId,
        subscription: SubscriptionId,
    },
    #[error("{subscription} has no period at {}: it starts at {}", instant_text(*at_ms), instant_text(*started_at_ms))]
    BeforeStart {
        subscription: SubscriptionId,
        at_ms: i64,
        started_at_ms: i64,
    },
    #[error("{subscription} would have more than {limit} periods to close")]
    TooManyPeriods { subscription: SubscriptionId, limit: usize },
    #[error("{0} bills no usage, so there is nothing to explain")]
    NoUsage(InvoiceLineId),
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
    #[error("write the evidence of a line")]
    Evidence(#[from] serde_json::Error),
    #[error("write CSV")]
    Csv(#[from] csv::Error),
}

impl BillingError {
    pub(crate) fn corrupt(what: &'static str, text: impl Into<String>) -> BillingError {
        BillingError::Corrupt {
            what,
            text: text.into(),
        }
    }
}
