//! The JSON API beneath the pages, under `/api/v1`. Errors are `application/problem+json` (RFC 9457).

mod credit;
pub(crate) mod exporters;
mod finance;
mod invoices;
pub(crate) mod overview;
mod subscriptions;
pub(crate) mod usage;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::{Extension, Router};
use serde::de::DeserializeOwned;

use crate::auth::IsApi;
use crate::error::{ApiError, Failure};
use crate::state::AppState;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .merge(invoices::routes())
        .merge(subscriptions::routes())
        .merge(credit::routes())
        .merge(finance::routes())
        .merge(usage::routes())
        .merge(overview::routes())
        .merge(exporters::routes())
        .layer(Extension(IsApi))
}

/// The query of an address; what cannot be read is told as a problem.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<ApiQuery<T>, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(ApiQuery(query)),
            Err(error) => Err(Failure::BadRequest(error.to_string()).into()),
        }
    }
}
