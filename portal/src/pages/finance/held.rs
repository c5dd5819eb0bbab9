//! Invoices that are due and wait for a person.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::invoice::{HeldInvoice, held};
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, InvoiceId};

use super::PATH;
use crate::auth::{Finance, Role};
use crate::error::{PageError, page};
use crate::format;
use crate::shell::Shell;
use crate::state::AppState;

struct HeldRow {
    id: InvoiceId,
    customer: CustomerId,
    customer_name: String,
    due: String,
    since: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "finance_held.html")]
struct HeldPage {
    shell: Shell,
    rows: Vec<HeldRow>,
    /// Tax rates are an admin's.
    enters_rates: bool,
}

pub(super) async fn show(State(state): State<AppState>, Finance(who): Finance) -> Result<Response, PageError> {
    let row = |held: HeldInvoice| HeldRow {
        id: held.id,
        customer: held.customer,
        due: format::minute(held.due_ms, &TimeZone::UTC),
        since: format::minute(held.held_at_ms, &TimeZone::UTC),
        reason: held.reason.to_string(),
        customer_name: held.customer_name,
    };
    let rows = held(state.db().pool(), None).await?.into_iter().map(row).collect();
    page(&HeldPage {
        enters_rates: who.user.role == Role::Admin,
        shell: Shell::new(&who, "Held invoices", PATH),
        rows,
    })
}
