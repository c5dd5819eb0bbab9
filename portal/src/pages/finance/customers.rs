//! Every customer with what they owe and have, searched by name, email address or id.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::ledger::{self, Owed};
use schemas::ids::CustomerId;
use schemas::money::Money;
use sqlx::Row as _;

use super::PATH;
use crate::auth::Finance;
use crate::error::{PageError, page};
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

/// Customers on one page.
const PAGE_CUSTOMERS: i64 = 100;
/// Characters that are searched for at most.
const MAX_SEARCH_CHARS: usize = 100;

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct CustomersQuery {
    #[serde(default)]
    search: String,
    /// The last customer of the page before.
    #[serde(default)]
    after: String,
}

struct Row {
    id: CustomerId,
    name: String,
    email: String,
    country: String,
    receivables: Vec<Money>,
    credits: Vec<Money>,
    is_deleted: bool,
}

#[derive(Template)]
#[template(path = "finance_customers.html")]
struct CustomersPage {
    shell: Shell,
    search: String,
    rows: Vec<Row>,
    next_href: Option<String>,
    is_first: bool,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Finance(who): Finance,
    PageQuery(query): PageQuery<CustomersQuery>,
) -> Result<Response, PageError> {
    let search: String = query.search.trim().chars().take(MAX_SEARCH_CHARS).collect();
    let after = filter::<CustomerId>("after", &query.after, "an id such as cus_7")?.map_or(0, |after| after.0);
    // Wildcards that were typed are letters; an id finds its customer alone.
    let escaped = search
        .to_lowercase()
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    let rows = sqlx::query(
        "SELECT id, name, email, country, currency, deleted_at_ms FROM customers WHERE id > $1 AND ($2 = '' OR id = $3 \
         OR lower(name) LIKE $4 ESCAPE '\\' OR lower(email) LIKE $4 ESCAPE '\\') ORDER BY id LIMIT $5",
    )
    .bind(after)
    .bind(&search)
    .bind(search.parse::<CustomerId>().map_or(0, |id| id.0))
    .bind(format!("%{escaped}%"))
    .bind(PAGE_CUSTOMERS + 1)
    .fetch_all(state.db().pool())
    .await?;
    let mut owed: BTreeMap<CustomerId, Vec<Owed>> = BTreeMap::new();
    for one in ledger::owed(state.db().pool(), None)
        .await
        .map_err(BillingError::from)?
    {
        owed.entry(one.customer).or_default().push(one);
    }
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = CustomerId(row.try_get(0)?);
        let zero = Money::zero(super::currency(row.try_get(4)?)?);
        let own = owed.remove(&id).unwrap_or_default();
        let shown = |amounts: Vec<Money>| {
            let nonzero: Vec<Money> = amounts.into_iter().filter(|amount| amount.minor != 0).collect();
            if nonzero.is_empty() { vec![zero] } else { nonzero }
        };
        found.push(Row {
            id,
            name: row.try_get(1)?,
            email: row.try_get(2)?,
            country: row.try_get(3)?,
            receivables: shown(own.iter().map(|owed| owed.receivable).collect()),
            is_deleted: row.try_get::<Option<i64>, _>(5)?.is_some(),
            credits: shown(own.iter().map(|owed| owed.credit).collect()),
        });
    }
    let most = usize::try_from(PAGE_CUSTOMERS).unwrap_or(usize::MAX);
    let has_more = found.len() > most;
    found.truncate(most);
    let text: String = url_encoded(&search);
    let next_href = found
        .last()
        .filter(|_| has_more)
        .map(|last| format!("{PATH}/customers?search={text}&after={}", last.id));
    page(&CustomersPage {
        shell: Shell::new(&who, "Customers", PATH),
        is_first: after == 0,
        search,
        rows: found,
        next_href,
    })
}

/// A text as a value of an address.
pub(crate) fn url_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
