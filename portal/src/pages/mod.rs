//! Pages. Each file has its handlers and its templates' structs; their addresses are rows of the table of endpoints.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod budget;
pub(crate) mod credit;
pub(crate) mod exporters;
pub(crate) mod finance;
pub(crate) mod invoices;
pub(crate) mod jobs;
pub(crate) mod notifications;
pub(crate) mod overview;
pub(crate) mod paying;
pub(crate) mod payment_methods;
mod peers;
pub(crate) mod plans;
mod quotes;
pub(crate) mod search;
pub(crate) mod signin;
pub(crate) mod subscriptions;
pub(crate) mod test_gateway;
#[cfg(test)]
mod tests;
pub(crate) mod usage;
pub(crate) mod webhooks;

#[cfg(test)]
mod staff_tests;
#[cfg(test)]
mod transfer_tests;

use axum::response::Redirect;

use crate::auth::SignedIn;
use crate::shell;

/// The first page of whoever signs in.
pub(crate) async fn home(who: SignedIn) -> Redirect {
    Redirect::to(shell::home(who.user.role))
}
