//! What a credit note, a void or a write-off does to an invoice, shown on a page of its own before it is done.

use askama::Template;
use axum::response::Response;
use billing::invoice::{CreditPreview, Invoice, Rebill};
use billing::settlement;
use schemas::ids::{CustomerId, InvoiceId};
use schemas::money::Money;

use super::PATH;
use crate::action::{ActionFailure, Draft, Fields, said};
use crate::auth::Finance;
use crate::error::{PageError, page};
use crate::shell::Shell;

/// The invoice that a preview is of.
struct PreviewedInvoice {
    id: InvoiceId,
    number: String,
    customer: CustomerId,
    customer_name: String,
}

impl PreviewedInvoice {
    fn new(invoice: &Invoice) -> PreviewedInvoice {
        PreviewedInvoice {
            id: invoice.id,
            number: invoice.number.clone(),
            customer: invoice.customer,
            customer_name: invoice.customer_name.clone(),
        }
    }
}

#[derive(Template)]
#[template(path = "finance_credit_note.html")]
struct CreditNotePage {
    shell: Shell,
    draft: Draft,
    of: PreviewedInvoice,
    preview: CreditPreview,
    /// The amount that was asked for, where no credit note has exactly that.
    unreachable: Option<Money>,
    amount: String,
    reason: String,
}

/// The page of a credit note that is to be confirmed.
pub(super) fn credit_note(
    finance: &Finance,
    invoice: &Invoice,
    preview: CreditPreview,
    asked: Option<Money>,
    fields: &Fields,
) -> Result<Response, PageError> {
    page(&CreditNotePage {
        shell: Shell::new(&finance.0, format!("Credit note for {}", invoice.number), PATH),
        draft: Draft::default(),
        of: PreviewedInvoice::new(invoice),
        unreachable: asked.filter(|asked| *asked != preview.gross),
        preview,
        amount: fields.text("amount").to_owned(),
        reason: fields.text("reason").to_owned(),
    })
}

/// What a write-off gives up.
pub(super) struct WriteOff {
    pub(super) open: Money,
    /// The customer's credit pays so much of it first.
    pub(super) from_credit: Money,
    pub(super) amount: Money,
}

impl WriteOff {
    /// What a confirmation sends back.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.open.minor, self.amount.minor)
    }
}

/// What a write-off of an invoice would give up now.
pub(super) async fn write_off_of(
    connection: &mut sqlx::AnyConnection,
    invoice: InvoiceId,
    customer: CustomerId,
) -> Result<WriteOff, ActionFailure> {
    let open = settlement::outstanding(&mut *connection, invoice).await?;
    if open.minor <= 0 {
        return Err(said("Nothing of it is open."));
    }
    let credit = settlement::available_credit(&mut *connection, customer, open.currency).await?;
    let from_credit = credit.minor.clamp(0, open.minor);
    Ok(WriteOff {
        open,
        from_credit: Money::new(from_credit, open.currency),
        amount: Money::new(open.minor - from_credit, open.currency),
    })
}

#[derive(Template)]
#[template(path = "finance_write_off.html")]
struct WriteOffPage {
    shell: Shell,
    of: PreviewedInvoice,
    total: Money,
    tax: Money,
    write_off: WriteOff,
    reason: String,
}

/// The page of a write-off that is to be confirmed.
pub(super) fn write_off(
    finance: &Finance,
    invoice: &Invoice,
    write_off: WriteOff,
    reason: &str,
) -> Result<Response, PageError> {
    page(&WriteOffPage {
        shell: Shell::new(&finance.0, format!("Write off {}", invoice.number), PATH),
        of: PreviewedInvoice::new(invoice),
        total: invoice.total,
        tax: invoice.tax,
        write_off,
        reason: reason.to_owned(),
    })
}

#[derive(Template)]
#[template(path = "finance_void.html")]
struct VoidPage {
    shell: Shell,
    of: PreviewedInvoice,
    net: Money,
    tax: Money,
    total: Money,
    charges_again: bool,
    reason: String,
}

/// The page of an invoice that is to be made void.
pub(super) fn void(finance: &Finance, invoice: &Invoice, rebill: Rebill, reason: &str) -> Result<Response, PageError> {
    page(&VoidPage {
        shell: Shell::new(&finance.0, format!("Void {}", invoice.number), PATH),
        of: PreviewedInvoice::new(invoice),
        net: invoice.subtotal,
        tax: invoice.tax,
        total: invoice.total,
        charges_again: rebill == Rebill::Yes,
        reason: reason.to_owned(),
    })
}
