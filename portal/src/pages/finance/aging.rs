//! Open invoices by how long they have been due.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::aging::{AgedCurrency, BUCKETS, aging};
use jiff::tz::TimeZone;
use schemas::money::Money;

use super::PATH;
use super::transactions::midnight;
use crate::auth::Finance;
use crate::error::{PageError, page};
use crate::format;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "finance_aging.html")]
struct AgingPage {
    shell: Shell,
    at: String,
    /// What was asked for.
    day: String,
    buckets: [&'static str; 5],
    currencies: Vec<AgedCurrency>,
}

#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct AgingPageQuery {
    /// The end of this day, in UTC; empty for now.
    #[serde(default)]
    day: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Finance(who): Finance,
    PageQuery(shown): PageQuery<AgingPageQuery>,
) -> Result<Response, PageError> {
    // The whole day: its last millisecond.
    let at_ms = match midnight("day", &shown.day, 1)? {
        Some(next_ms) => next_ms - 1,
        None => state.now_ms(),
    };
    page(&AgingPage {
        shell: Shell::new(&who, "Aging", PATH),
        at: format::minute(at_ms, &TimeZone::UTC),
        day: shown.day.trim().to_owned(),
        buckets: BUCKETS,
        currencies: aging(state.db().pool(), at_ms).await?,
    })
}

/// Without the currency, which heads the table.
fn shown(amount: &Money) -> String {
    format::amount(*amount)
}
