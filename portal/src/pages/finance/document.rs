//! A document as it is sent: PDF for people, UBL (EN 16931) for programs.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use billing::document::pdf as paper;
use billing::document::ubl::{self, UblError};
use schemas::ids::InvoiceId;

use crate::auth::Finance;
use crate::customer;
use crate::error::{Failure, PageError};
use crate::path::Path;
use crate::state::AppState;

pub(crate) async fn pdf(
    State(state): State<AppState>,
    finance: Finance,
    Path(invoice): Path<String>,
) -> Result<Response, PageError> {
    let invoice = customer::invoice_for_staff(&state, &finance, &invoice)
        .await?
        .invoice
        .id;
    pdf_of(&state, invoice).await
}

pub(crate) async fn xml(
    State(state): State<AppState>,
    finance: Finance,
    Path(invoice): Path<String>,
) -> Result<Response, PageError> {
    let invoice = customer::invoice_for_staff(&state, &finance, &invoice)
        .await?
        .invoice
        .id;
    xml_of(&state, invoice).await
}

/// Who may see the invoice was decided before.
async fn pdf_of(state: &AppState, invoice: InvoiceId) -> Result<Response, PageError> {
    let document = billing::invoice::document(state.db(), invoice).await?;
    let bytes = paper::pdf(&document).map_err(|error| Failure::internal("print a document")(error.into()))?;
    Ok(attachment("application/pdf", &document.number, "pdf", bytes))
}

async fn xml_of(state: &AppState, invoice: InvoiceId) -> Result<Response, PageError> {
    let document = billing::invoice::document(state.db(), invoice).await?;
    let text = ubl::xml(&document).map_err(|error| match error {
        // What is missing can be filled in by who asks.
        UblError::Seller { .. } | UblError::Buyer { .. } => {
            Failure::BadRequest(format!("There is no XML of it: {error}."))
        }
        error => Failure::internal("write a document as UBL")(error.into()),
    })?;
    Ok(attachment(
        "application/xml",
        &document.number,
        "xml",
        text.into_bytes(),
    ))
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
