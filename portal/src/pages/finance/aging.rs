//! Open invoices by how long they have been due.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::aging::{AgedCurrency, BUCKETS, aging};
use jiff::tz::TimeZone;
use schemas::money::Money;

use super::PATH;
use crate::auth::Finance;
use crate::error::{PageError, page};
use crate::format;
use crate::shell::Shell;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "finance_aging.html")]
struct AgingPage {
    shell: Shell,
    at: String,
    buckets: [&'static str; 5],
    currencies: Vec<AgedCurrency>,
}

pub(super) async fn show(State(state): State<AppState>, Finance(who): Finance) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    page(&AgingPage {
        shell: Shell::new(&who, "Aging", PATH),
        at: format::minute(now_ms, &TimeZone::UTC),
        buckets: BUCKETS,
        currencies: aging(state.db().pool(), now_ms).await?,
    })
}

/// Without the currency, which heads the table.
fn shown(amount: &Money) -> String {
    format::amount(*amount)
}
