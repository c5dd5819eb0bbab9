//! The JSON API beneath the pages, under `/api/v1`. Errors are `application/problem+json` (RFC 9457).

pub(crate) mod exporters;
pub(crate) mod overview;
pub(crate) mod usage;

use axum::Router;

use crate::state::AppState;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .merge(usage::routes())
        .merge(overview::routes())
        .merge(exporters::routes())
}
