//! A document as it is sent, a PDF for people and UBL (EN 16931) for programs: the same on every page and by the API. Who may see it is
//! decided before.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use billing::document;
use billing::document::ubl::UblError;
use billing::invoice;
use schemas::ids::InvoiceId;

use crate::error::Failure;
use crate::state::AppState;

/// Who asks for it, who is told otherwise why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reader {
    Customer,
    Staff,
}

/// The PDF of an invoice or credit note.
pub(crate) async fn pdf(state: &AppState, invoice: InvoiceId) -> Result<Response, Failure> {
    let document = invoice::document(state.db(), invoice).await?;
    let number = document.number.clone();
    // Laying out a long invoice takes a core for a while.
    let bytes = tokio::task::spawn_blocking(move || document::pdf::pdf(&document))
        .await
        .map_err(|error| Failure::internal("write a PDF")(error.into()))?
        .map_err(|error| Failure::internal("write a PDF")(error.into()))?;
    Ok(attachment("application/pdf", &number, "pdf", bytes))
}

/// The XML of an invoice or credit note.
pub(crate) async fn xml(state: &AppState, invoice: InvoiceId, reader: Reader) -> Result<Response, Failure> {
    let document = invoice::document(state.db(), invoice).await?;
    let number = &document.number;
    let text = match document::ubl::xml(&document) {
        Ok(text) => text,
        Err(error @ (UblError::Write(_) | UblError::Utf8(_) | UblError::Money(_))) => {
            return Err(Failure::internal("write XML")(error.into()));
        }
        // The standard asks for facts that are not entered, which staff can, or does not know such amounts.
        Err(error) if reader == Reader::Staff => {
            return Err(Failure::BadRequest(format!("There is no XML of it: {error}.")));
        }
        Err(error) => {
            tracing::warn!(%error, number, "an invoice has no electronic form");
            return Err(Failure::BadRequest(format!(
                "{number} has no electronic form: the standard asks for facts that it does not hold. The PDF is the same \
                 invoice; write to us if you need the XML."
            )));
        }
    };
    Ok(attachment("application/xml", number, "xml", text.into_bytes()))
}

/// A file to be saved. Numbers of documents are letters, digits and hyphens.
fn attachment(kind: &'static str, name: &str, extension: &str, bytes: Vec<u8>) -> Response {
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .collect();
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}.{extension}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}
