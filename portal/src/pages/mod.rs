//! Pages. Each file has its handlers, its templates' structs and the routes to them.

pub(crate) mod account;
mod admin;
mod budget;
pub(crate) mod credit;
mod exporters;
mod finance;
pub(crate) mod invoices;
mod jobs;
mod notifications;
mod overview;
pub(crate) mod paying;
mod payment_methods;
mod peers;
mod plans;
mod search;
pub(crate) mod signin;
pub(crate) mod subscriptions;
mod test_gateway;
#[cfg(test)]
mod tests;
mod usage;
mod webhooks;

use axum::Router;

use crate::state::AppState;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .merge(signin::routes())
        .merge(account::routes())
        .merge(invoices::routes())
        .merge(subscriptions::routes())
        .merge(plans::routes())
        .merge(notifications::routes())
        .merge(webhooks::routes())
        .merge(payment_methods::routes())
        .merge(paying::routes())
        .merge(credit::routes())
        .merge(budget::routes())
        .merge(usage::routes())
        .merge(overview::routes())
        .merge(finance::routes())
        .merge(admin::routes())
        .merge(exporters::routes())
        .merge(jobs::routes())
        .merge(search::routes())
        .merge(test_gateway::routes())
}

#[cfg(test)]
mod staff_tests;
#[cfg(test)]
mod transfer_tests;
