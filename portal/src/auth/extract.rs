//! Extractors that guard handlers: a handler that takes one is never run for anybody else.

use std::convert::Infallible;
use std::net::IpAddr;

use activity::audit::Actor;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum_extra::extract::CookieJar;
use schemas::identity::{Role, User};
use schemas::ids::CustomerId;

use super::{session, token_of};
use crate::client::Client;
use crate::error::{ApiError, Failure, PageError};
use crate::state::AppState;

/// Anybody with a session.
#[derive(Clone)]
pub struct SignedIn {
    pub user: User,
    /// To be repeated by every form.
    pub csrf_token: String,
    /// The name of the session.
    pub session: String,
    /// Notifications of the user's customer that nobody has read.
    pub unread: i64,
    /// Billing is stopped, because the clock moved: staff is told on every page.
    pub billing_stopped: bool,
}

impl std::fmt::Debug for SignedIn {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedIn")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl SignedIn {
    /// As the audit log names them.
    pub(crate) fn actor<'a>(&'a self, ip: &'a str) -> Actor<'a> {
        Actor {
            name: &self.user.email,
            user: Some(self.user.id),
            ip,
        }
    }
}

/// A customer: every query takes its id from here (S1).
#[derive(Clone, Debug)]
pub(crate) struct Customer {
    pub(crate) who: SignedIn,
    pub(crate) id: CustomerId,
}

/// Marks requests to the API, whose readers are programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsApi;

/// Why a request was not let in, told as the path's readers expect.
#[derive(Debug)]
pub struct Rejection {
    failure: Failure,
    is_api: bool,
    /// A part of a page that is open asks.
    is_part: bool,
}

impl Rejection {
    pub(crate) fn new(parts: &Parts, failure: Failure) -> Rejection {
        Rejection {
            failure,
            // The router of the API takes the beginning of its addresses off.
            is_api: parts.extensions.get::<IsApi>().is_some() || parts.uri.path().starts_with("/api/"),
            is_part: parts.headers.contains_key("hx-request"),
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        if self.is_api {
            ApiError(self.failure).into_response()
        } else if self.is_part && matches!(self.failure, Failure::Unauthenticated { .. }) {
            // The whole page is loaded again, which leads to the sign-in page: that is no part to be shown inside of one.
            (StatusCode::UNAUTHORIZED, [("hx-refresh", "true")]).into_response()
        } else {
            PageError(self.failure).into_response()
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Failure {
        rejection.failure
    }
}

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<SignedIn, Rejection> {
        // Whoever stands before the handler has asked already.
        if let Some(who) = parts.extensions.get::<SignedIn>() {
            return Ok(who.clone());
        }
        let jar = CookieJar::from_headers(&parts.headers);
        let found = match token_of(state, &jar) {
            Some(token) => session::find(state, &token, parts.headers.contains_key(session::BACKGROUND))
                .await
                .map_err(|error| Rejection::new(parts, error.into()))?,
            None => None,
        };
        found.ok_or_else(|| {
            let next = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            Rejection::new(parts, Failure::Unauthenticated { next })
        })
    }
}

impl FromRequestParts<AppState> for Customer {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Customer, Rejection> {
        let who = SignedIn::from_request_parts(parts, state).await?;
        match (who.user.role, who.user.customer) {
            (Role::Customer, Some(id)) => Ok(Customer { who, id }),
            _ => Err(Rejection::new(
                parts,
                Failure::Forbidden("This page belongs to customers; you are signed in as staff."),
            )),
        }
    }
}

macro_rules! staff_extractors {
    ($($(#[$doc:meta])* $name:ident: $($role:ident)|+;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(crate) SignedIn);

        impl FromRequestParts<AppState> for $name {
            type Rejection = Rejection;

            async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<$name, Rejection> {
                let who = SignedIn::from_request_parts(parts, state).await?;
                if matches!(who.user.role, $(Role::$role)|+) {
                    return Ok($name(who));
                }
                Err(Rejection::new(parts, Failure::Forbidden("Your role does not include this page.")))
            }
        }
    )*};
}

staff_extractors! {
    /// Anybody of staff.
    Staff: Ops | Network | Finance | Admin;
    /// Traffic of the whole network.
    Ops: Ops | Network | Admin;
    /// Exporters and their configuration.
    Network: Network | Ops | Admin;
    /// What runs by itself.
    Operations: Ops | Admin;
    /// Money of all customers.
    Finance: Finance | Admin;
    /// The catalog, taxes, approvals, the audit log.
    Admin: Admin;
}

/// Address of the client, as [`crate::client`] finds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientIp(pub(crate) IpAddr);

impl FromRequestParts<AppState> for ClientIp {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<ClientIp, Infallible> {
        Ok(ClientIp(Client::of(&parts.extensions).ip))
    }
}
