//! Every address of the portal, who may use it, and what it costs.
//!
//! A route that is not in this table does not exist: [`guard`] stands before every handler and answers 404 for it. For the
//! others it looks whether who asks may ([`Access`]), and has expensive reads wait for their turn ([`Cost`]). Handlers ask once
//! more, by the extractor that they take; whose a thing is, only they can know ([`crate::auth`], S1).
//!
//! `matrix_tests.rs` makes requests to each as each role and as another tenant, and compares the table with the router.

mod table;

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::admission::Cost;
use crate::auth::{Rejection, Role, SignedIn, refuse_foreign_origin};
use crate::error::{Failure, PageError};
use crate::state::AppState;

pub(crate) use table::ENDPOINTS;

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
    /// Anybody with a session.
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
            Access::SignedIn => Some(&[Role::Customer, Role::Ops, Role::Network, Role::Finance, Role::Admin]),
            Access::Customer => Some(&[Role::Customer]),
            Access::Staff => Some(&[Role::Ops, Role::Network, Role::Finance, Role::Admin]),
            Access::Ops | Access::Network => Some(&[Role::Ops, Role::Network, Role::Admin]),
            Access::Operations => Some(&[Role::Ops, Role::Admin]),
            Access::Finance => Some(&[Role::Finance, Role::Admin]),
            Access::Admin => Some(&[Role::Admin]),
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

/// One method of one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub(crate) method: &'static str,
    /// As the router has it.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) proof: Proof,
    pub(crate) cost: Cost,
}

static BY_ADDRESS: LazyLock<HashMap<(&'static str, &'static str), &'static Endpoint>> = LazyLock::new(|| {
    let rows = ENDPOINTS
        .iter()
        .map(|endpoint| ((endpoint.method, endpoint.path), endpoint));
    rows.collect()
});

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
    let who = match SignedIn::from_request_parts(&mut parts, &state).await {
        Ok(who) => who,
        Err(rejection) => return rejection.into_response(),
    };
    if !roles.contains(&who.user.role) {
        let why = match endpoint.access {
            Access::Customer => "This page belongs to customers; you are signed in as staff.",
            _ => "Your role does not include this page.",
        };
        return Rejection::new(&parts, Failure::Forbidden(why)).into_response();
    }
    let place = match state.gates().read(endpoint.cost, who.user.id).await {
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

/// A method that the address does not have is refused, whatever its route would do; an address without a rule is not there.
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
    if methods.is_empty() {
        // Whoever adds a route meets this in the first test of it.
        debug_assert!(
            false,
            "{path} has no rule in portal/src/endpoints/table.rs: add its line there"
        );
        tracing::error!(path, "this route has no rule in endpoints/table.rs: it is not served");
        return Rejection::new(&parts, Failure::NotFound).into_response();
    }
    let mut answer = Rejection::new(&parts, Failure::MethodNotAllowed).into_response();
    if let Ok(allowed) = HeaderValue::from_str(&methods.join(", ")) {
        answer.headers_mut().insert(header::ALLOW, allowed);
    }
    answer
}
