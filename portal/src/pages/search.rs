//! One search for all staff: `/search?q=`, from the box beside the menu.
//!
//! What was named exactly (an id, an invoice number, an address) comes first; then what its words find. Everything is found
//! through an index ([`schemas::search`]) or among what the configuration and the collector's status name. A role finds what
//! its pages show: those who watch the network no invoices, finance no exporters.

mod find;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::auth::{Role, Staff};
use crate::error::{PageError, page};
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// Address of the page.
pub(crate) const PATH: &str = "/search";
/// Characters that are searched for at most.
const MAX_SEARCH_CHARS: usize = 100;

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct SearchQuery {
    #[serde(default)]
    q: String,
}

/// Something that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hit {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Where it is shown; a role that has no page for it reads what is known here.
    pub(super) href: Option<String>,
    pub(super) detail: String,
    /// What it is found by, where its name does not say so: an address, a prefix.
    pub(super) by: String,
}

/// What a role's pages show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SearchScope {
    /// Services and exporters.
    pub(super) network: bool,
    /// Customers' invoices and payments.
    pub(super) money: bool,
}

impl SearchScope {
    fn of(role: Role) -> SearchScope {
        SearchScope {
            network: matches!(role, Role::Ops | Role::Network | Role::Admin),
            money: matches!(role, Role::Finance | Role::Admin),
        }
    }
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    shell: Shell,
    asked: String,
    hits: Vec<Hit>,
    /// Kinds of which more was found than is listed.
    cut: Vec<&'static str>,
    /// An address or a network was asked for.
    is_network: bool,
    /// Why nothing was found, where that can be said.
    nothing: String,
    sight: SearchScope,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Staff(who): Staff,
    PageQuery(query): PageQuery<SearchQuery>,
) -> Result<Response, PageError> {
    let asked: String = query.q.trim().chars().take(MAX_SEARCH_CHARS).collect();
    let sight = SearchScope::of(who.user.role);
    let found = find::find(&state, sight, &asked).await?;
    let mut shell = Shell::new(&who, "Search", PATH);
    shell.asked.clone_from(&asked);
    page(&SearchPage {
        shell,
        asked,
        hits: found.hits,
        cut: found.cut,
        is_network: found.is_network,
        nothing: found.nothing,
        sight,
    })
}

#[cfg(test)]
mod tests;
