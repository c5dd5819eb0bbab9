//! Invoices that are due and wait for a person.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::invoice::{HeldInvoice, held};
use billing::tax::HoldReason;
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

/// The reason with its date as pages write it.
fn reason_words(reason: &HoldReason) -> String {
    match reason {
        HoldReason::Rate(missing) => {
            let region = match missing.region.as_str() {
                "" => String::new(),
                region => format!(" ({region})"),
            };
            let at = format::minute(missing.at_ms, &TimeZone::UTC);
            format!("no tax rate is known for {}{region} at {at} UTC", missing.country)
        }
        HoldReason::VatNumber { .. } | HoldReason::Issuer => reason.to_string(),
    }
}

pub(crate) async fn show(State(state): State<AppState>, Finance(who): Finance) -> Result<Response, PageError> {
    let row = |held: HeldInvoice| HeldRow {
        id: held.id,
        customer: held.customer,
        due: format::minute(held.due_ms, &TimeZone::UTC),
        since: format::minute(held.held_at_ms, &TimeZone::UTC),
        reason: reason_words(&held.reason),
        customer_name: held.customer_name,
    };
    let rows = held(state.db().pool(), None).await?.into_iter().map(row).collect();
    page(&HeldPage {
        enters_rates: who.user.role == Role::Admin,
        shell: Shell::new(&who, "Held invoices", PATH),
        rows,
    })
}
