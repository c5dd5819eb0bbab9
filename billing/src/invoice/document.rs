//! A stored invoice as the document that people get.

use schemas::db::Database;
use schemas::ids::InvoiceId;
use schemas::inventory::zone_named;
use schemas::money::Money;
use schemas::period::local_date;

use super::{Buyer, Invoice, InvoiceKind, InvoiceWithLines, get};
use crate::BillingError;
use crate::document::{Corrected, Days, Document, DocumentKind, DocumentLine, Party};

/// The document of an invoice or credit note.
///
/// # Errors
/// When there is no such invoice.
pub async fn document(database: &Database, id: InvoiceId) -> Result<Document, BillingError> {
    let found = get(database, id).await?;
    let corrected = match found.invoice.corrects {
        Some(corrects) => Some(get(database, corrects).await?.invoice),
        None => None,
    };
    of(&found, corrected.as_ref())
}

fn of(found: &InvoiceWithLines, corrected: Option<&Invoice>) -> Result<Document, BillingError> {
    let InvoiceWithLines { invoice, lines, taxes } = found;
    let zone = zone_named(&invoice.time_zone)?;
    let days = |from_ms: i64, to_ms: i64| -> Result<Option<Days>, BillingError> {
        if to_ms <= from_ms {
            return Ok(None);
        }
        Ok(Some(Days {
            first: local_date(from_ms, &zone)?,
            last: local_date(to_ms - 1, &zone)?,
        }))
    };
    let mut shown = Vec::with_capacity(lines.len());
    for (position, line) in (1u32..).zip(lines) {
        shown.push(DocumentLine {
            position,
            description: line.description.clone(),
            detail: String::new(),
            quantity: line.quantity,
            unit: line.unit.clone(),
            unit_price: line.unit_price,
            net: line.amount,
            tax_group: line.tax_group,
            period: days(line.period_start_ms, line.period_end_ms)?,
        });
    }
    let corrects = match corrected {
        Some(corrected) => Some(Corrected {
            number: corrected.number.clone(),
            issued_on: local_date(corrected.finalised_at_ms, &zone)?,
        }),
        None => None,
    };
    let is_invoice = invoice.kind == InvoiceKind::Invoice;
    let notes = [invoice.reason.clone()].into_iter().filter(|note| !note.is_empty());
    Ok(Document {
        kind: if is_invoice {
            DocumentKind::Invoice
        } else {
            DocumentKind::CreditNote
        },
        number: invoice.number.clone(),
        issued_on: local_date(invoice.finalised_at_ms, &zone)?,
        due_on: is_invoice.then(|| local_date(invoice.due_at_ms, &zone)).transpose()?,
        currency: invoice.currency,
        prices_include_tax: invoice.prices_include_tax,
        period: days(invoice.period_start_ms, invoice.period_end_ms)?,
        seller: Party::from(&invoice.seller),
        buyer: Party::from(&invoice.buyer),
        lines: shown,
        taxes: taxes.clone(),
        subtotal: invoice.subtotal,
        tax: invoice.tax,
        total: invoice.total,
        // What was paid when it was issued is nothing: a document does not change when it is paid.
        paid: Money::zero(invoice.currency),
        open: invoice.total,
        corrects,
        purchase_order: invoice.buyer.purchase_order.clone(),
        notes: notes.collect(),
        payment_instructions: invoice.seller.payment_instructions.clone(),
    })
}

impl From<&Buyer> for Party {
    fn from(buyer: &Buyer) -> Party {
        Party {
            name: buyer.name.clone(),
            street: buyer.street.clone(),
            postal_code: buyer.postal_code.clone(),
            city: buyer.city.clone(),
            region: buyer.region.clone(),
            country: buyer.country.clone(),
            vat_id: buyer.vat_id.clone(),
            registration: String::new(),
            email: buyer.email.clone(),
        }
    }
}
