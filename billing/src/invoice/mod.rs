//! Invoices: drafted from usage, finalised once, explained for ever.
//!
//! * A **draft** is what is due at one instant for all of a customer's subscriptions. It is complete when that instant has
//!   passed, every window of usage on it is closed, and every change of assignments has reached its flows.
//! * **Closing** finalises complete drafts: id, gapless number, lines, ledger postings and the mark that the periods are
//!   charged are written in one transaction, so that they all exist or none does. Closing again finds nothing to do; of
//!   concurrent closers one wins (B3).
//! * A finalised invoice never changes. When late data changes the usage of a charged period, the next invoice of that
//!   subscription carries an adjustment line with the difference (B3).
//! * What is given back for a line, by whatever cause, never exceeds that line (B6; `line_credits.rs`).
//! * Amounts are rounded once per line; tax is computed once for the lines of an invoice that bear the same taxes, and rounded
//!   once (B2, [`taxes`]). An invoice whose rate of tax is not known is not finalised.

mod close;
mod corrections;
mod credit;
mod document;
mod draft;
mod due;
mod explain;
mod export;
mod forecast;
mod held;
mod history;
mod items;
mod line_credits;
mod new_document;
mod number;
mod pool;
mod read;
mod taxes;
mod unmeasured;
mod write;

pub use close::{Closing, OpenPeriod, close, close_all, close_all_with_progress, preview};
pub(crate) use close::{Previews, preview_between};
pub(crate) use credit::{Correctable, credited_together};
pub use credit::{CreditPreview, Credited, Rebill, credit, credit_gross, preview_credit, preview_void, void};
pub use document::document;
pub use explain::{DayUsage, Explanation, LineCheck, TOP_PEERS, explain, recompute};
pub use export::export_csv;
pub use forecast::{Charge, Horizon, InvoiceForecast, base_charge, next_base_ms, next_charge_ms, prospect};
pub use held::{HeldInvoice, MAX_HELD, held, held_invoice};
pub(crate) use items::credited_since;
pub use items::{ChargeItem, add_item, check_item, items_of};
pub use pool::{Share, grants as pool_grants};
pub use read::{by_number, get, get_of, line, line_of, list_all, list_of};
pub use unmeasured::{UnmeasuredPeriod, confirm as confirm_unmeasured, unmeasured};

use rust_decimal::Decimal;
use schemas::ids::{CustomerId, EntityId, InvoiceId, InvoiceLineId, ServiceId, SubscriptionId};
use schemas::inventory::{Customer, EntityProfile};
use schemas::money::{Currency, Money};
use serde::{Deserialize, Serialize};

use crate::BillingError;
use crate::evidence::Evidence;
use crate::field::named;
use crate::line_kind::LineKind;
use crate::rating::DraftLine;
use crate::tax::{HoldReason, TaxAmount};

/// Invoices that one page of [`list_all`] holds at most.
pub const MAX_PAGE: i64 = 1000;

/// What a document is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceKind {
    Invoice,
    /// Gives back; its amounts are negative.
    CreditNote,
}

named!(InvoiceKind, "kind of document", Invoice => "invoice", CreditNote => "credit_note");

/// Where an invoice stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    Finalised,
    PartiallyPaid,
    Paid,
    /// Taken back as a whole by a credit note.
    Void,
    /// Written off.
    Uncollectible,
}

named!(InvoiceStatus, "invoice status", Finalised => "finalised", PartiallyPaid => "partially_paid", Paid => "paid",
    Void => "void", Uncollectible => "uncollectible");

impl InvoiceStatus {
    pub const ALL: [InvoiceStatus; 5] = [
        InvoiceStatus::Finalised,
        InvoiceStatus::PartiallyPaid,
        InvoiceStatus::Paid,
        InvoiceStatus::Void,
        InvoiceStatus::Uncollectible,
    ];

    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            InvoiceStatus::Finalised => "open",
            InvoiceStatus::PartiallyPaid => "partially paid",
            InvoiceStatus::Paid => "paid",
            InvoiceStatus::Void => "void",
            InvoiceStatus::Uncollectible => "written off",
        }
    }

    /// Its name in lists, on pages as on the command line: a credit note is not paid but applied.
    pub fn name_of(self, kind: InvoiceKind) -> &'static str {
        match (kind, self) {
            (InvoiceKind::CreditNote, InvoiceStatus::Paid) => "applied",
            (_, status) => status.name(),
        }
    }

    /// Whether something is still to be paid.
    pub fn is_open(self) -> bool {
        matches!(self, InvoiceStatus::Finalised | InvoiceStatus::PartiallyPaid)
    }
}

/// Whom a document is for, as printed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buyer {
    pub name: String,
    pub email: String,
    pub street: String,
    pub postal_code: String,
    pub city: String,
    pub region: String,
    pub country: String,
    pub vat_id: String,
    pub purchase_order: String,
}

impl Buyer {
    pub fn of(customer: &Customer) -> Buyer {
        let profile = &customer.billing;
        Buyer {
            name: customer.name.clone(),
            email: customer.email.clone(),
            street: profile.street.clone(),
            postal_code: profile.postal_code.clone(),
            city: profile.city.clone(),
            region: profile.region.clone(),
            country: customer.country.clone(),
            vat_id: profile.vat_id.clone(),
            purchase_order: profile.purchase_order.clone(),
        }
    }
}

/// A finalised invoice or credit note, without its lines. Amounts of a credit note are negative.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invoice {
    pub id: InvoiceId,
    pub kind: InvoiceKind,
    /// `INV-2026-000001` or `CN-2026-000001`, gapless per entity and year (UTC) of finalisation.
    pub number: String,
    pub entity: EntityId,
    pub customer: CustomerId,
    /// As printed.
    pub customer_name: String,
    pub seller: EntityProfile,
    pub buyer: Buyer,
    pub currency: Currency,
    /// Start of the earliest and end of all periods on it.
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    /// IANA name of the zone whose midnights bound the periods.
    pub time_zone: String,
    pub status: InvoiceStatus,
    /// Of a credit note: what it takes back.
    pub corrects: Option<InvoiceId>,
    /// Of a credit note: why.
    pub reason: String,
    pub prices_include_tax: bool,
    pub subtotal: Money,
    pub tax: Money,
    pub total: Money,
    /// What payments, credit, credit notes and write-offs have settled.
    pub settled: Money,
    pub finalised_at_ms: i64,
    pub due_at_ms: i64,
    pub settled_at_ms: Option<i64>,
}

impl Invoice {
    /// What is still to be paid; of a credit note, what is still to be given, negative.
    pub fn outstanding(&self) -> Money {
        Money::new(self.total.minor.saturating_sub(self.settled.minor), self.currency)
    }
}

/// A line of a finalised invoice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvoiceLine {
    pub id: InvoiceLineId,
    pub invoice: InvoiceId,
    /// From 1.
    pub position: i64,
    /// `None` for what is not for a subscription.
    pub subscription: Option<SubscriptionId>,
    pub service: Option<ServiceId>,
    pub kind: LineKind,
    pub description: String,
    pub quantity: Decimal,
    pub unit: String,
    /// Major units per unit.
    pub unit_price: Decimal,
    /// What the price came to: with tax where the customer's prices include it.
    pub priced: Money,
    /// Net.
    pub amount: Money,
    /// Which of the document's groups of taxes it bears, from 0.
    pub tax_group: i64,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    pub evidence: Evidence,
}

/// A finalised invoice with its lines and taxes in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvoiceWithLines {
    pub invoice: Invoice,
    pub lines: Vec<InvoiceLine>,
    pub taxes: Vec<TaxAmount>,
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
    /// It ends after the newest data: a person must say that it is to be finalised all the same.
    BeyondMeasured,
    /// Too little of its usage was measured: a person must say that it is to be finalised all the same.
    LowCoverage,
    /// No rate of tax is known for the customer's place: a person must enter it.
    TaxRateMissing,
    /// The customer's VAT number would make it reverse charged, and is not confirmed yet.
    VatNumberUnconfirmed,
    /// Who issues it has no name and address yet.
    IssuerIncomplete,
}

named!(OpenReason, "reason that a period waits", NotOver => "not_over", WindowsOpen => "windows_open",
    AttributionPending => "attribution_pending", BeyondMeasured => "beyond_measured", LowCoverage => "low_coverage",
    TaxRateMissing => "tax_rate_missing", VatNumberUnconfirmed => "vat_number_unconfirmed",
    IssuerIncomplete => "issuer_incomplete");

impl OpenReason {
    /// Whether a person's word lets it be finalised.
    pub fn waits_for_a_person(self) -> bool {
        matches!(self, OpenReason::BeyondMeasured | OpenReason::LowCoverage)
    }
}

impl std::fmt::Display for OpenReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OpenReason::NotOver => "it is not over",
            OpenReason::WindowsOpen => "late flows may still change its last windows",
            OpenReason::BeyondMeasured => "it ends after the newest measured data",
            OpenReason::LowCoverage => "too little of its usage was measured",
            OpenReason::AttributionPending => "stored flows are not yet attributed by changed assignments",
            OpenReason::TaxRateMissing => "no tax rate is known for the customer's place",
            OpenReason::VatNumberUnconfirmed => "the customer's VAT number is not confirmed yet",
            OpenReason::IssuerIncomplete => "the company that issues invoices has no name and address yet",
        })
    }
}

/// What an invoice would say if it were closed on what is known now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    pub kind: InvoiceKind,
    pub customer: CustomerId,
    pub customer_name: String,
    pub currency: Currency,
    pub time_zone: String,
    pub period_start_ms: i64,
    pub period_end_ms: i64,
    /// When everything on it is due to be charged.
    pub due_ms: i64,
    /// Up to here usage was counted.
    pub measured_to_ms: i64,
    /// Percent of the windows of its least measured usage that were measured, rounded down; `None` without usage that costs
    /// anything.
    pub coverage_percent: Option<u32>,
    /// Why it cannot be finalised yet; `None` when it can.
    pub open: Option<OpenReason>,
    pub prices_include_tax: bool,
    /// Whom it is for, where that is not the customer as of now: what was charged before is given back to who it was charged to.
    pub buyer: Option<Buyer>,
    /// What a person must settle, where that holds it.
    pub unsettled: Option<HoldReason>,
    pub lines: Vec<DraftLine>,
    pub subtotal: Money,
    pub taxes: Vec<TaxAmount>,
    pub tax: Money,
    pub total: Money,
}

impl Draft {
    /// The periods are over and nothing can change their usage but late data, which becomes an adjustment.
    pub fn is_complete(&self) -> bool {
        self.open.is_none()
    }
}

/// Open documents by whether they are overdue; a credit note never is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenAt {
    pub is_overdue: bool,
    pub now_ms: i64,
}

impl OpenAt {
    /// As [`open_at_sql`] compares it.
    pub fn name(self) -> &'static str {
        match self.is_overdue {
            true => "overdue",
            false => "open",
        }
    }
}

/// The condition on `invoices` for [`OpenAt`], by the numbers of two parameters: its name, empty for all documents, and its
/// instant.
pub fn open_at_sql(name: u32, now_ms: u32) -> String {
    format!(
        "(${name} = '' OR (status IN ('finalised', 'partially_paid') AND \
         CASE WHEN kind = 'invoice' AND due_at_ms <= ${now_ms} THEN 'overdue' ELSE 'open' END = ${name}))"
    )
}

/// Which invoices to list; the default is all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InvoiceFilter {
    pub customer: Option<CustomerId>,
    pub kind: Option<InvoiceKind>,
    pub status: Option<InvoiceStatus>,
    /// Only open documents: those that are overdue at an instant, or those that are not.
    pub open: Option<OpenAt>,
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
