//! What a customer's services use.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use crate::auth::Customer;
use crate::error::{PageError, page};
use crate::shell::Shell;
use crate::state::AppState;

pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/usage", get(list))
}

#[derive(Template)]
#[template(path = "usage_list.html")]
struct UsageList {
    shell: Shell,
}

async fn list(customer: Customer) -> Result<Response, PageError> {
    page(&UsageList {
        shell: Shell::new(&customer.who, "Usage", "/usage"),
    })
}
