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

use super::{session, token, token_of};
use crate::client::Client;
use crate::error::{ApiError, Failure, PageError};
use crate::links;
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

/// Who asks, by what showed it. Another way to show it is a variant here and a question in [`Principal::find`].
#[derive(Clone, Debug)]
pub(crate) enum Principal {
    /// The cookie of a session.
    Session(SignedIn),
    /// An API token, of this user.
    Token(User),
}

/// Whose things somebody may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Those of one customer (S1).
    Own(CustomerId),
    /// Those of every customer, as far as the role goes.
    All,
}

impl Principal {
    /// Asks what the request shows. One that shows nothing that holds has no principal; a token that does not hold is refused, whatever
    /// the request shows beside it.
    async fn find(parts: &Parts, state: &AppState) -> Result<Option<Principal>, Failure> {
        if let Some(token) = token::bearer(&parts.headers) {
            let holder = token::holder(state, token).await?.ok_or(Failure::BadToken)?;
            return Ok(Some(Principal::Token(holder.user)));
        }
        let jar = CookieJar::from_headers(&parts.headers);
        let Some(token) = token_of(state, &jar) else {
            return Ok(None);
        };
        let is_background = parts.headers.contains_key(session::BACKGROUND);
        let found = session::find(state, &token, is_background).await?;
        Ok(found.map(Principal::Session))
    }

    /// The user who asks, or for whom a program does.
    pub(crate) fn user(&self) -> &User {
        match self {
            Principal::Session(who) => &who.user,
            Principal::Token(user) => user,
        }
    }

    /// Whose things they may name; `None` for a user whose role and customer contradict each other, who may name nothing.
    pub(crate) fn scope(&self) -> Option<Scope> {
        let user = self.user();
        match (user.role, user.customer) {
            (Role::Customer, Some(customer)) => Some(Scope::Own(customer)),
            (Role::Customer, None) | (_, Some(_)) => None,
            (_, None) => Some(Scope::All),
        }
    }
}

/// What a program is told that asks for a page.
pub(crate) const PAGES_ARE_FOR_SESSIONS: &str = "A token opens the API, under /api/v1, and no page: sign in for those.";

/// Who an extractor below lets in: pages are for sessions alone ([`SignedIn`], whose forms repeat its token), the API is for any
/// [`Principal`].
pub(crate) trait PrincipalExtractor: FromRequestParts<AppState, Rejection = Rejection> + Send {
    fn principal(&self) -> Principal;
}

impl PrincipalExtractor for Principal {
    fn principal(&self) -> Principal {
        self.clone()
    }
}

impl PrincipalExtractor for SignedIn {
    fn principal(&self) -> Principal {
        Principal::Session(self.clone())
    }
}

/// A customer: every query takes its id from here (S1).
#[derive(Clone, Debug)]
pub(crate) struct Customer<A = SignedIn> {
    pub(crate) who: A,
    pub(crate) id: CustomerId,
}

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
            is_api: links::is_api(parts.uri.path()),
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

impl FromRequestParts<AppState> for Principal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Principal, Rejection> {
        // Whoever stands before the handler has asked already.
        if let Some(who) = parts.extensions.get::<Principal>() {
            return Ok(who.clone());
        }
        let found = Principal::find(parts, state)
            .await
            .map_err(|failure| Rejection::new(parts, failure))?;
        found.ok_or_else(|| {
            let next = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            Rejection::new(parts, Failure::Unauthenticated { next })
        })
    }
}

impl FromRequestParts<AppState> for SignedIn {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<SignedIn, Rejection> {
        match Principal::from_request_parts(parts, state).await? {
            Principal::Session(who) => Ok(who),
            Principal::Token(_) => Err(Rejection::new(parts, Failure::Forbidden(PAGES_ARE_FOR_SESSIONS))),
        }
    }
}

impl<A: PrincipalExtractor> FromRequestParts<AppState> for Customer<A> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Customer<A>, Rejection> {
        let who = A::from_request_parts(parts, state).await?;
        match who.principal().scope() {
            Some(Scope::Own(id)) => Ok(Customer { who, id }),
            Some(Scope::All) | None => Err(Rejection::new(
                parts,
                Failure::Forbidden("This is for customers, and you are staff."),
            )),
        }
    }
}

macro_rules! staff_extractors {
    ($($(#[$doc:meta])* $name:ident: $($role:ident)|+;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name<A = SignedIn>(pub(crate) A);

        impl<A: PrincipalExtractor> FromRequestParts<AppState> for $name<A> {
            type Rejection = Rejection;

            async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<$name<A>, Rejection> {
                let who = A::from_request_parts(parts, state).await?;
                let principal = who.principal();
                let is_staff = principal.scope() == Some(Scope::All);
                if is_staff && matches!(principal.user().role, $(Role::$role)|+) {
                    return Ok($name(who));
                }
                Err(Rejection::new(parts, Failure::Forbidden("Your role does not allow this.")))
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

#[cfg(test)]
mod tests {
    use schemas::ids::UserId;

    use super::*;

    fn session_of(role: Role, customer: Option<CustomerId>) -> Principal {
        Principal::Session(SignedIn {
            user: User {
                id: UserId(1),
                email: "ada@example.net".to_owned(),
                name: "Ada".to_owned(),
                role,
                customer,
                disabled_at_ms: None,
            },
            csrf_token: String::new(),
            session: String::new(),
            unread: 0,
            billing_stopped: false,
        })
    }

    #[test]
    fn s1_a_customer_names_their_own_staff_everything_and_a_contradiction_nothing() {
        let ada = CustomerId(7);
        for (role, customer, scope) in [
            (Role::Customer, Some(ada), Some(Scope::Own(ada))),
            (Role::Finance, None, Some(Scope::All)),
            (Role::Customer, None, None),
            (Role::Admin, Some(ada), None),
        ] {
            assert_eq!(session_of(role, customer).scope(), scope, "{role} {customer:?}");
        }
    }
}
