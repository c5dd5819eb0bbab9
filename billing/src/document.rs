//! What an invoice or credit note says, whole, and what it looks like: [`pdf`] on paper, [`ubl`] as XML by EN 16931.
//!
//! A [`Document`] is plain values, read from nowhere while it is written: the same document gives the same bytes, today and in
//! ten years (B3). Amounts have the sign they are stored with, so those of a credit note are negative; both writers turn them
//! around, since a credit note says what is given back.

mod party;
pub mod pdf;
pub mod ubl;

use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::money::{Currency, Money};

pub use party::Party;

use crate::tax::TaxAmount;

/// What a document is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DocumentKind {
    Invoice,
    CreditNote,
}

impl DocumentKind {
    pub fn title(self) -> &'static str {
        match self {
            DocumentKind::Invoice => "Invoice",
            DocumentKind::CreditNote => "Credit note",
        }
    }
}

/// Days from `first` to `last`, both included, in the customer's time zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Days {
    pub first: Date,
    pub last: Date,
}

/// The invoice that a credit note corrects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Corrected {
    pub number: String,
    pub issued_on: Date,
}

/// A line of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DocumentLine {
    /// From 1.
    pub position: u32,
    pub description: String,
    /// More about it, in as many lines of text as it takes; may be empty.
    pub detail: String,
    pub quantity: Decimal,
    /// `GiB`, `Mbit/s`, `month`; may be empty.
    pub unit: String,
    /// Major units for one unit; with tax where the document's prices include it.
    pub unit_price: Decimal,
    pub net: Money,
    /// Which of the document's groups of taxes it bears.
    pub tax_group: i64,
    pub period: Option<Days>,
}

/// A line's unit as it stands behind its quantity: `GB`, but `× 12 months`, so that two figures do not meet.
pub fn unit_words(unit: &str) -> String {
    if unit.starts_with(|first: char| first.is_ascii_digit()) {
        format!("× {unit}")
    } else {
        unit.to_owned()
    }
}

/// An invoice or credit note, complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    pub kind: DocumentKind,
    pub number: String,
    pub issued_on: Date,
    pub due_on: Option<Date>,
    pub currency: Currency,
    pub period: Option<Days>,
    pub seller: Party,
    pub buyer: Party,
    pub lines: Vec<DocumentLine>,
    /// The lines' unit prices hold the tax; their amounts never do.
    pub prices_include_tax: bool,
    pub taxes: Vec<TaxAmount>,
    pub subtotal: Money,
    pub tax: Money,
    pub total: Money,
    pub paid: Money,
    /// What is left to pay: total less paid.
    pub open: Money,
    pub corrects: Option<Corrected>,
    /// The buyer's own reference; may be empty.
    pub purchase_order: String,
    /// Whatever else is to be said, such as why it was corrected. Why no tax is charged stands in `taxes` and is printed
    /// from there.
    pub notes: Vec<String>,
    pub payment_instructions: String,
}

impl Document {
    /// An amount as the document says it: a credit note says what is given back as a positive amount.
    fn said(&self, amount: Money) -> Money {
        match self.kind {
            DocumentKind::Invoice => amount,
            // The negation of the smallest number does not fit, and no sum of a ledger is that small.
            DocumentKind::CreditNote => amount.checked_neg().unwrap_or(amount),
        }
    }
}

#[cfg(test)]
pub(crate) mod examples;

#[cfg(test)]
mod tests {
    use super::unit_words;

    #[test]
    fn a_unit_of_several_months_does_not_run_into_its_quantity() {
        for (unit, words) in [("GB", "GB"), ("month", "month"), ("12 months", "× 12 months"), ("", "")] {
            assert_eq!(unit_words(unit), words);
        }
    }
}
