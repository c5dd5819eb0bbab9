//! A document that is to be written, and as it was written.

use schemas::ids::{EntityId, InvoiceId, InvoiceLineId};
use schemas::inventory::{Customer, EntityProfile};

use super::Draft;

/// A document as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Written {
    pub(super) id: InvoiceId,
    pub(super) number: String,
    /// Of the first line; the others follow.
    pub(super) first_line: InvoiceLineId,
}

/// Who a document is from and for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parties<'a> {
    pub(super) entity: EntityId,
    pub(super) seller: &'a EntityProfile,
    pub(super) customer: &'a Customer,
}

/// What a credit note takes back, and why.
#[derive(Clone, Debug)]
pub(super) struct Corrects {
    pub(super) invoice: Option<InvoiceId>,
    pub(super) reason: String,
    /// Why its lines take back what they take back.
    pub(super) cause: CreditCause,
}

impl Default for Corrects {
    fn default() -> Corrects {
        Corrects {
            invoice: None,
            reason: String::new(),
            cause: CreditCause::CreditNote,
        }
    }
}

/// A document to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewDocument<'a> {
    pub(super) parties: Parties<'a>,
    pub(super) draft: &'a Draft,
    pub(super) corrects: &'a Corrects,
    /// The id that was taken for it while it was held.
    pub(super) id: Option<InvoiceId>,
}

/// Why a line gives back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum CreditCause {
    Discount,
    Unused,
    Adjustment,
    CreditNote,
    Void,
    /// Void, and its charges are made again.
    Rebill,
}

impl CreditCause {
    pub(super) fn name(self) -> &'static str {
        match self {
            CreditCause::Discount => "discount",
            CreditCause::Unused => "unused",
            CreditCause::Adjustment => "adjustment",
            CreditCause::CreditNote => "credit_note",
            CreditCause::Void => "void",
            CreditCause::Rebill => "rebill",
        }
    }
}
