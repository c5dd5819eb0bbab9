//! A document as it is sent, for staff.

use axum::extract::State;
use axum::response::Response;

use crate::auth::Finance;
use crate::customer;
use crate::documents::{self, Reader};
use crate::error::PageError;
use crate::path::Path;
use crate::state::AppState;

pub(crate) async fn pdf(
    State(state): State<AppState>,
    finance: Finance,
    Path(invoice): Path<String>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &invoice).await?;
    Ok(documents::pdf(&state, found.invoice.id).await?)
}

pub(crate) async fn xml(
    State(state): State<AppState>,
    finance: Finance,
    Path(invoice): Path<String>,
) -> Result<Response, PageError> {
    let found = customer::invoice_for_staff(&state, &finance, &invoice).await?;
    Ok(documents::xml(&state, found.invoice.id, Reader::Staff).await?)
}
