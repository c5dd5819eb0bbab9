//! Pages. Each file has its handlers, its templates' structs and the routes to them.

pub(crate) mod account;
mod admin;
mod exporters;
mod finance;
mod invoices;
mod overview;
mod peers;
pub(crate) mod signin;
#[cfg(test)]
mod tests;
mod usage;

use axum::Router;

use crate::state::AppState;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .merge(signin::routes())
        .merge(account::routes())
        .merge(invoices::routes())
        .merge(usage::routes())
        .merge(overview::routes())
        .merge(finance::routes())
        .merge(admin::routes())
        .merge(exporters::routes())
}

#[cfg(test)]
mod staff_tests;
