//! The files that go with mails: an invoice or credit note as PDF.

use activity::channel::{Attachment, Attachments};
use activity::event::{Event, EventType};
use billing::BillingError;
use billing::document::pdf::pdf;
use billing::invoice;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use schemas::db::Database;
use schemas::ids::InvoiceId;

/// Makes them from what is stored.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    pub(crate) database: Database,
}

impl Attachments for Documents {
    fn of<'a>(
        &'a self,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<Option<Attachment>, Box<dyn std::error::Error + Send + Sync>>> {
        async move {
            if !matches!(
                event.event_type,
                EventType::InvoiceFinalised | EventType::CreditNoteIssued
            ) {
                return Ok(None);
            }
            let id: InvoiceId = event.subject.parse()?;
            let document = match invoice::document(&self.database, id).await {
                // An event that was made without its invoice is told without it: trying again would find none either.
                Err(BillingError::NoInvoice(_)) => return Ok(None),
                found => found?,
            };
            let name = format!("{}.pdf", document.number);
            // Fonts and pages are worked on for a tenth of a second: not where others wait.
            let bytes = tokio::task::spawn_blocking(move || pdf(&document)).await??;
            Ok(Some(Attachment {
                name,
                mime: "application/pdf".to_owned(),
                bytes,
            }))
        }
        .boxed()
    }
}
