//! Pages of admins: the catalog, coupons, approvals, moves of services, deals, taxes, entities, users, the audit log.

mod approvals;
mod audit;
mod clock;
mod coupons;
mod deals;
mod entities;
mod plan;
mod plan_page;
mod plans;
mod taxes;
mod transfers;
mod users;

use axum::Router;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};

use crate::state::AppState;

/// The navigation entry of all.
const PATH: &str = "/admin";

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route(PATH, get(|| async { Redirect::to("/admin/plans") }))
        .route("/admin/plans", get(plans::show).post(plans::add))
        .route("/admin/plans/free", post(plans::add_free))
        .route("/admin/plans/{plan}", get(plan::show))
        .route("/admin/plans/{plan}/edit", post(plan::edit))
        .route("/admin/plans/{plan}/price", post(plan::price))
        .route("/admin/plans/{plan}/stock", post(plan::stock))
        .route("/admin/plans/{plan}/archive", post(plan::archive))
        .route("/admin/coupons", get(coupons::show).post(coupons::add))
        .route("/admin/coupons/{coupon}/archive", post(coupons::archive))
        .route("/admin/approvals", get(approvals::show))
        .route("/admin/approvals/{approval}/approve", post(approvals::approve))
        .route("/admin/approvals/{approval}/reject", post(approvals::reject))
        .route("/admin/transfers", get(transfers::show).post(transfers::add))
        .route("/admin/transfers/{transfer}/{step}", post(transfers::step))
        .route("/admin/deals", get(deals::show).post(deals::add))
        .route("/admin/taxes", get(taxes::show).post(taxes::add))
        .route("/admin/taxes/{rate}/end", post(taxes::end))
        .route("/admin/entities", get(entities::show).post(entities::add))
        .route("/admin/entities/{entity}", post(entities::change))
        .route("/admin/clock", get(clock::show))
        .route("/admin/clock/confirm", post(clock::confirm))
        .route("/admin/users", get(users::list))
        .route("/admin/users/{user}", get(users::show))
        .route("/admin/users/{user}/{act}", post(users::act))
        .route("/admin/audit", get(audit::show))
}

/// The page after an action.
fn done(path: &str, what: &str) -> Response {
    Redirect::to(&format!("{path}?done={what}")).into_response()
}

/// Which action a page is shown after.
#[derive(Debug, Default, serde::Deserialize)]
struct Shown {
    #[serde(default)]
    done: String,
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod users_tests;
