//! Invoices: drafted from usage, finalised once, explained for ever.
//!
//! * A **draft** is what a customer's subscriptions cost for the periods that end together. It is complete when those
//!   periods are over, every window of them is closed, and every change of assignments has reached their flows.
//! * **Closing** finalises complete drafts: id, gapless number, lines, ledger postings and the mark that the periods are
//!   charged are written in one transaction, so that they all exist or none does. Closing again finds nothing to do; of
//!   concurrent closers one wins (B3).
//! * A finalised invoice never changes. When late data changes the usage of a charged period, the next invoice of that
//!   subscription carries an adjustment line with the difference (B3).
//! * Amounts are rounded once per line; tax is computed once per invoice, on the subtotal, and rounded once (B2).

mod close;
mod draft;
mod explain;
mod export;
mod read;

pub use close::{Closing, OpenPeriod, close, close_all, preview};
pub use explain::{DayUsage, Explanation, LineCheck, TOP_PEERS, explain, recompute};
pub use export::export_csv;
pub use read::{by_number, get, get_of, line, line_of, list_all, list_of};

use rust_decimal::Decimal;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, ServiceId, SubscriptionId};
use schemas::money::{Currency, Money};
use schemas::percent::Percent;

use crate::BillingError;
use crate::evidence::Evidence;
use crate::rating::{DraftLine, LineKind};

/// Days that a customer has to pay, from finalisation.
pub const PAYMENT_TERM_DAYS: i64 = 14;
/// Invoices that one page of [`list_all`] holds at most.
pub const MAX_PAGE: i64 = 1000;

/// Where an invoice stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InvoiceStatus {
    Finalised,
}

impl InvoiceStatus {
    pub fn name(self) -> &'static str {
        match self {
            InvoiceStatus::Finalised => "finalised",
        }
    }
}

impl std::str::FromStr for InvoiceStatus {
    type Err = BillingError;

    fn from_str(text: &str) -> Result<InvoiceStatus, BillingError> {
        match text {
            "finalised" => Ok(InvoiceStatus::Finalised),
            _ => Err(BillingError::corrupt("invoice status", text)),
        }
    }
}

/// A finalised invoice, without its lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invoice {
    pub id: InvoiceId,
    /// `INV-2026-000001`, gapless per year (UTC) of finalisation.
    pub number: String,
    pub customer: CustomerId,
    /// As printed.
    pub customer_name: String,
    pub currency: Currency,
    /// Start of the earliest and end of all periods on it.
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    /// IANA name of the zone whose midnights bound the periods.
    pub time_zone: String,
    pub status: InvoiceStatus,
    pub subtotal: Money,
    pub tax_rate: Percent,
    pub tax: Money,
    pub total: Money,
    pub finalised_at_ms: i64,
    pub due_at_ms: i64,
}

/// A line of a finalised invoice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvoiceLine {
    pub id: InvoiceLineId,
    pub invoice: InvoiceId,
    /// From 1.
    pub position: i64,
    pub subscription: SubscriptionId,
    pub service: ServiceId,
    pub kind: LineKind,
    pub description: String,
    pub quantity: Decimal,
    pub unit: String,
    /// Major units per unit.
    pub unit_price: Decimal,
    pub amount: Money,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    pub evidence: Evidence,
}

/// A finalised invoice with its lines in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvoiceWithLines {
    pub invoice: Invoice,
    pub lines: Vec<InvoiceLine>,
}

/// Why a period cannot be charged yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenReason {
    /// It has not ended.
    NotOver,
    /// It has ended, and late flows may still change its last windows.
    WindowsOpen,
    /// Assignments were changed in its time, and stored flows are not attributed anew yet.
    AttributionPending,
}

impl std::fmt::Display for OpenReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OpenReason::NotOver => "it is not over",
            OpenReason::WindowsOpen => "late flows may still change its last windows",
            OpenReason::AttributionPending => "stored flows are not yet attributed by changed assignments",
        })
    }
}

/// What an invoice would say if it were closed on what is known now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    pub customer: CustomerId,
    pub customer_name: String,
    pub currency: Currency,
    pub time_zone: String,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    /// Up to here usage was counted.
    pub measured_to_ms: i64,
    /// Why it cannot be finalised yet; `None` when it can.
    pub open: Option<OpenReason>,
    pub lines: Vec<DraftLine>,
    pub subtotal: Money,
    pub tax_rate: Percent,
    pub tax: Money,
    pub total: Money,
}

impl Draft {
    /// The periods are over and nothing can change their usage but late data, which becomes an adjustment.
    pub fn is_complete(&self) -> bool {
        self.open.is_none()
    }
}

/// Which invoices to list; the default is all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InvoiceFilter {
    pub customer: Option<CustomerId>,
    pub status: Option<InvoiceStatus>,
    /// Finalised at or after.
    pub from_ms: Option<i64>,
    /// Finalised before.
    pub to_ms: Option<i64>,
    /// Only invoices before this one: the last of the page before.
    pub before: Option<InvoiceId>,
    /// At most so many; [`MAX_PAGE`] where absent.
    pub limit: Option<i64>,
}

#[cfg(test)]
mod tests;
