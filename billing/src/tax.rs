//! Taxes: which ones a customer pays, and how much they are.
//!
//! [`rules()`] decides which taxes hold for a customer of a seller at an instant; [`apply()`] computes them, and [`ChargedTax`] those of
//! what corrects an earlier charge. All are pure; the
//! rates they go by are kept in the table `tax_rates`, by place and time.
//!
//! What holds:
//! * An amount of tax is computed once for each rule from the sum of the lines, and rounded once, half away from zero: never
//!   line by line (B2).
//! * subtotal + tax = total, and the net lines sum to the subtotal.
//! * Amounts turned around give everything turned around, so that a credit note mirrors its invoice to the cent.
//!
//! What is sold are services (hosting, traffic), to which Directive 2006/112/EC says: to a business they are supplied where
//! it is established (article 44), electronically supplied ones to anybody else where they live (article 58). So a customer
//! outside the Union is outside the scope of its VAT: category O. Category G is for exported goods (article 146), which are
//! within the scope and exempt, and is never chosen here; it can be read and printed for documents that have it.

mod apply;
mod correct;
mod rates;
mod rules;

pub use apply::{TaxAmount, TaxGroup, Taxed, apply, merged};
pub use correct::ChargedTax;
pub use rates::{MAX_TAX_NAME_CHARS, NewTaxRate, TaxError, TaxRate, add_rate, end_rate, rates};
pub(crate) use rules::vat_territory;
pub use rules::{HoldReason, MissingRate, TaxRule, VatNumberStatus, rules};

/// What kind of tax holds, by the codes of UNTDID 5305 that EN 16931 takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TaxCategory {
    Standard,
    ZeroRated,
    Exempt,
    ReverseCharge,
    Export,
    OutOfScope,
}

/// The text is not a tax category.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a tax category is S, Z, E, AE, G or O, not {0:?}")]
pub struct TaxCategoryError(pub String);

schemas::error_codes! {
    struct TaxCategoryError: Refused "tax.category";
}

impl TaxCategory {
    pub const ALL: [TaxCategory; 6] = [
        TaxCategory::Standard,
        TaxCategory::ZeroRated,
        TaxCategory::Exempt,
        TaxCategory::ReverseCharge,
        TaxCategory::Export,
        TaxCategory::OutOfScope,
    ];

    pub fn code(self) -> &'static str {
        match self {
            TaxCategory::Standard => "S",
            TaxCategory::ZeroRated => "Z",
            TaxCategory::Exempt => "E",
            TaxCategory::ReverseCharge => "AE",
            TaxCategory::Export => "G",
            TaxCategory::OutOfScope => "O",
        }
    }
}

impl std::str::FromStr for TaxCategory {
    type Err = TaxCategoryError;

    fn from_str(text: &str) -> Result<TaxCategory, TaxCategoryError> {
        let category = TaxCategory::ALL.into_iter().find(|category| category.code() == text);
        category.ok_or_else(|| TaxCategoryError(text.to_owned()))
    }
}

impl std::fmt::Display for TaxCategory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl serde::Serialize for TaxCategory {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests;
