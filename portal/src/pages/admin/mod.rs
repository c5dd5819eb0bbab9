//! Pages of admins: the catalog, coupons, approvals, moves of services, deals, taxes, entities, users, the audit log.

pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod clock;
pub(crate) mod coupons;
pub(crate) mod deals;
pub(crate) mod entities;
pub(crate) mod plan;
mod plan_page;
pub(crate) mod plans;
pub(crate) mod taxes;
pub(crate) mod transfers;
pub(crate) mod users;

use axum::response::{IntoResponse as _, Redirect, Response};

/// The navigation entry of all.
const PATH: &str = "/admin";

/// The first page of administration.
pub(crate) async fn to_plans() -> Redirect {
    Redirect::to("/admin/plans")
}

/// The page after an action.
fn done(path: &str, what: &str) -> Response {
    Redirect::to(&format!("{path}?done={what}")).into_response()
}

/// Which action a page is shown after.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct DoneQuery {
    #[serde(default)]
    done: String,
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod users_tests;
