//! The JSON API beneath the pages, under `/api/v1`. Errors are `application/problem+json` (RFC 9457).

mod credit;
pub(crate) mod exporters;
mod finance;
mod invoices;
pub(crate) mod overview;
mod subscriptions;
pub(crate) mod usage;

use axum::{Extension, Router, middleware};

use crate::auth::IsApi;
pub(crate) use crate::query::ApiQuery;
use crate::query::refuse_unread_query;
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
        .layer(middleware::from_fn(refuse_unread_query))
        .layer(Extension(IsApi))
}
