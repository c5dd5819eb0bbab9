//! Every address of the portal: who may use it, what answers it, what it costs, and what the API's description says of it.
//!
//! ```text
//! table (a row for each method and path) ─┬─▶ routes: the router has these handlers and no others
//!                                         ├─▶ guard: who may, before any handler runs
//!                                         ├─▶ openapi, api_page: the API described to programs and to people
//!                                         └─▶ the tests of S1: each row as each role and as another tenant
//! ```
//!
//! A route that is not in the table does not exist. For the others [`guard`] looks whether who asks may ([`Access`]), and has
//! expensive reads wait for their turn ([`Cost`]). Handlers ask once more, by the extractor that they take; whose a thing is,
//! only they can know ([`crate::auth`], S1).

mod api_page;
mod description;
mod openapi;
mod operation;
pub(crate) mod parameters;
mod row;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::MethodRouter;

use crate::admission::Cost;
use crate::auth::{PAGES_ARE_FOR_SESSIONS, Principal, Rejection, Role, refuse_foreign_origin};
use crate::error::{Failure, PageError};
use crate::links;
use crate::query::refuse_unread_query;
use crate::state::AppState;

pub(crate) use operation::{Area, Operation};

/// Who may use an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Anybody: sign-in, files of pages, health.
    Public,
    /// Who holds the link of a mail.
    Link,
    /// A payment gateway, by the signature of what it posts.
    Signature,
    /// A scraper that the configuration lets in, or network staff ([`crate::metrics`]).
    Metrics,
    /// Anybody who signed in.
    SignedIn,
    /// Customers, each their own (S1).
    Customer,
    /// Anybody of staff.
    Staff,
    /// Traffic of the whole network.
    Ops,
    /// Exporters and their configuration.
    Network,
    /// What runs by itself.
    Operations,
    /// Money of all customers.
    Finance,
    /// The catalog, taxes, approvals, the audit log.
    Admin,
}

impl Access {
    /// The roles that may; `None` where no session is asked for.
    pub(crate) fn roles(self) -> Option<&'static [Role]> {
        match self {
            Access::Public | Access::Link | Access::Signature | Access::Metrics => None,
            Access::SignedIn => Some(&Role::ALL),
            Access::Customer => Some(&[Role::Customer]),
            Access::Staff => Some(&[Role::Ops, Role::Network, Role::Finance, Role::Admin]),
            Access::Ops | Access::Network => Some(&[Role::Ops, Role::Network, Role::Admin]),
            Access::Operations => Some(&[Role::Ops, Role::Admin]),
            Access::Finance => Some(&[Role::Finance, Role::Admin]),
            Access::Admin => Some(&[Role::Admin]),
        }
    }
}

/// Whose things an address can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tenants {
    /// Those of the customer who asks; anything else is not found (S1).
    Own,
    /// Those of every customer.
    All,
    /// It names things of no customer, or of the user who asks alone.
    Nobodys,
}

impl Access {
    /// Whose things an address of this access can name.
    pub(crate) fn tenants(self) -> Tenants {
        match self {
            Access::Customer => Tenants::Own,
            Access::Staff | Access::Ops | Access::Network | Access::Finance | Access::Admin => Tenants::All,
            Access::Public
            | Access::Link
            | Access::Signature
            | Access::Metrics
            | Access::SignedIn
            | Access::Operations => Tenants::Nobodys,
        }
    }
}

/// What a request that changes something must carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proof {
    /// Nothing: it changes nothing.
    None,
    /// The CSRF token of the session.
    Csrf,
    /// The token that a cookie repeats: there is no session yet.
    PreSession,
    /// A signature over the body.
    Signature,
}

/// Which limit on simultaneous requests an address is under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    /// That of all requests of people and programs.
    Requests,
    /// That of what gateways post.
    Hooks,
    /// None: it must answer when everything else is at its limit.
    None,
}

/// One method of one address.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) method: &'static str,
    /// As the router has it.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) proof: Proof,
    pub(crate) cost: Cost,
    pub(crate) queue: Queue,
    /// What the API's description says of it; every address of the API has one, and no page.
    pub(crate) operation: Option<Operation>,
    route: MethodRouter<AppState>,
}

impl Endpoint {
    /// Read by programs, who are told of failures as `application/problem+json`.
    pub(crate) fn is_api(&self) -> bool {
        links::is_api(self.path)
    }
}

/// All endpoints, by who uses them.
pub(crate) static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(table::rows);

static BY_ADDRESS: LazyLock<HashMap<(&'static str, &'static str), &'static Endpoint>> = LazyLock::new(|| {
    let rows = ENDPOINTS
        .iter()
        .map(|endpoint| ((endpoint.method, endpoint.path), endpoint));
    rows.collect()
});

/// The routes of a queue, behind [`guard`].
pub(crate) fn routes(queue: Queue, state: &AppState) -> Router<AppState> {
    unguarded(queue).layer(middleware::from_fn_with_state(state.clone(), guard))
}

/// The routes of a queue, without what stands before all of them.
pub(crate) fn unguarded(queue: Queue) -> Router<AppState> {
    let mut pages = Router::new();
    let mut api = Router::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.queue == queue) {
        let routes = if endpoint.is_api() { &mut api } else { &mut pages };
        *routes = std::mem::take(routes).route(endpoint.path, endpoint.route.clone());
    }
    pages.merge(api.layer(middleware::from_fn(refuse_unread_query)))
}

/// The rule of a method and of an address as the router has it. HEAD is a GET without its body.
pub(crate) fn endpoint(method: &Method, path: &str) -> Option<&'static Endpoint> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    BY_ADDRESS.get(&(method, path)).copied()
}

/// Lets a request through to its handler, if its rule does.
pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        // No route: the fallback answers.
        return next.run(request).await;
    };
    let Some(endpoint) = endpoint(request.method(), path.as_str()) else {
        return without_rule(request, path.as_str());
    };
    if matches!(endpoint.proof, Proof::Csrf | Proof::PreSession)
        && let Err(foreign) = refuse_foreign_origin(request.headers())
    {
        return PageError(foreign).into_response();
    }
    let Some(roles) = endpoint.access.roles() else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    let who = match Principal::from_request_parts(&mut parts, &state).await {
        Ok(who) => who,
        Err(rejection) => return rejection.into_response(),
    };
    if matches!(who, Principal::Token(_)) && !endpoint.is_api() {
        return Rejection::new(&parts, Failure::Forbidden(PAGES_ARE_FOR_SESSIONS)).into_response();
    }
    if !roles.contains(&who.user().role) {
        let why = match endpoint.access {
            Access::Customer => "This is for customers, and you are staff.",
            _ => "Your role does not allow this.",
        };
        return Rejection::new(&parts, Failure::Forbidden(why)).into_response();
    }
    let place = match state.gates().read(endpoint.cost, who.user().id).await {
        Ok(place) => place,
        Err(busy) => return Rejection::new(&parts, busy.into()).into_response(),
    };
    // The handler's extractors find who asks there.
    parts.extensions.insert(who);
    let answer = next.run(Request::from_parts(parts, body)).await;
    drop(place);
    answer
}

/// The page that a form at a path is on, at the address of a request for that path: the nearest above it, with the same
/// things in place of what stands in braces.
fn page_above(path: &str, uri_path: &str) -> Option<String> {
    let mut path = path;
    let mut address = uri_path;
    loop {
        (path, address) = (path.rsplit_once('/')?.0, address.rsplit_once('/')?.0);
        if path.is_empty() {
            return None;
        }
        if BY_ADDRESS.contains_key(&("GET", path)) {
            return Some(address.to_owned());
        }
    }
}

/// A method that the address does not have is refused with those that it has.
/// Whoever asks for a form's address, by reloading it or from the history, gets the page that the form is on.
fn without_rule(request: Request, path: &str) -> Response {
    let methods: Vec<&str> = ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.path == path)
        .map(|endpoint| endpoint.method)
        .collect();
    let (parts, _) = request.into_parts();
    let is_form = endpoint(&Method::POST, path).is_some_and(|form| form.proof == Proof::Csrf);
    if is_form
        && matches!(parts.method, Method::GET | Method::HEAD)
        && let Some(page) = page_above(path, parts.uri.path())
    {
        return Redirect::to(&page).into_response();
    }
    let mut answer = Rejection::new(&parts, Failure::MethodNotAllowed).into_response();
    if let Ok(allowed) = HeaderValue::from_str(&methods.join(", ")) {
        answer.headers_mut().insert(header::ALLOW, allowed);
    }
    answer
}
