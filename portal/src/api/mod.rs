//! The JSON API beneath the pages, under `/api/v1`. Errors are `application/problem+json` (RFC 9457).

pub(crate) mod exporters;
pub(crate) mod overview;

use axum::Router;

use crate::state::AppState;

pub(crate) fn routes() -> Router<AppState> {
    Router::new().merge(overview::routes()).merge(exporters::routes())
}
