//! Requests that change something must come from our own pages.
//!
//! * Any form whose `Origin` is another host, or that the browser marks as cross-site, is refused.
//! * Every form of a signed-in user carries the CSRF token of the session ([`CsrfForm`]).
//! * No field holds a control character or another one that cannot be seen but lines and tabs where there are several lines.
//! * The sign-in form, which has no session yet, carries a random token that a cookie repeats ([`PreSession`]).

use axum::body::{Body, Bytes};
use axum::extract::{Form, FromRequest, FromRequestParts as _, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use schemas::text::{is_plain, is_plain_text};
use serde::de::DeserializeOwned;

use super::extract::SignedIn;
use crate::error::{Failure, PageError};
use crate::query::wrong;
use crate::state::AppState;

const EXPIRED: &str = "This form is too old or did not come from this site. Load the page again and retry.";

/// Equal, in a time that says nothing about where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

/// A form of a signed-in user, its CSRF token checked.
#[derive(Debug)]
pub(crate) struct CsrfForm<T>(pub(crate) SignedIn, pub(crate) T);

#[derive(serde::Deserialize)]
struct Token {
    #[serde(default)]
    csrf_token: String,
}

impl<T: DeserializeOwned> FromRequest<AppState> for CsrfForm<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, state: &AppState) -> Result<CsrfForm<T>, PageError> {
        let (mut parts, body) = request.into_parts();
        let who = SignedIn::from_request_parts(&mut parts, state).await?;
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), state)
            .await
            .map_err(|error| Failure::BadRequest(error.to_string()))?;
        let token: Token = parse(&parts, &bytes).await?;
        if !same(&token.csrf_token, &who.csrf_token) {
            return Err(Failure::Forbidden(EXPIRED).into());
        }
        refuse_unseen_characters(&parts, &bytes).await?;
        Ok(CsrfForm(who, parse(&parts, &bytes).await?))
    }
}

/// A form of who is not signed in: its handler checks where it comes from ([`PreSession`]).
#[derive(Debug)]
pub(crate) struct OpenForm<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OpenForm<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, state: &S) -> Result<OpenForm<T>, PageError> {
        let (parts, body) = request.into_parts();
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), state)
            .await
            .map_err(|error| Failure::BadRequest(error.to_string()))?;
        refuse_unseen_characters(&parts, &bytes).await?;
        Ok(OpenForm(parse(&parts, &bytes).await?))
    }
}

/// Fields of several lines; every other text has one.
const LONG_FIELDS: [&str; 3] = ["agreement", "attributes", "payment_instructions"];
/// Only ever compared as hashes, so that they may be anything.
const PASSWORD_FIELDS: [&str; 4] = ["again", "current", "new", "password"];

/// No text of a form has a control character (a NUL ends it for some databases and is refused by others) or one that cannot be seen.
async fn refuse_unseen_characters(parts: &Parts, bytes: &Bytes) -> Result<(), Failure> {
    let fields: Vec<(String, String)> = parse(parts, bytes).await?;
    for (name, value) in &fields {
        let name = name.as_str();
        if PASSWORD_FIELDS.contains(&name) {
            continue;
        }
        let may_hold = |letter: char| LONG_FIELDS.contains(&name) && matches!(letter, '\r' | '\n' | '\t');
        if !is_plain_text(name) || value.chars().any(|letter| !is_plain(letter) && !may_hold(letter)) {
            let name = name.escape_debug().to_string();
            return Err(wrong(
                &name,
                value,
                "a text without control characters or invisible ones",
            ));
        }
    }
    Ok(())
}

async fn parse<T: DeserializeOwned>(parts: &Parts, bytes: &Bytes) -> Result<T, Failure> {
    let request = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    match Form::<T>::from_request(request, &()).await {
        Ok(Form(form)) => Ok(form),
        Err(error) => Err(Failure::BadRequest(format!("The form is not complete: {error}"))),
    }
}

/// The token of the sign-in form.
#[derive(Debug)]
pub(crate) struct PreSession;

impl PreSession {
    fn cookie_name(state: &AppState) -> &'static str {
        if state.secure_cookies() {
            "__Host-ezscale_signin"
        } else {
            "ezscale_signin"
        }
    }

    /// The token for the form, and the jar that repeats it.
    pub(crate) fn issue(state: &AppState, jar: CookieJar) -> (String, CookieJar) {
        let token = jar
            .get(PreSession::cookie_name(state))
            .map(|cookie| cookie.value().to_owned())
            .filter(|token| token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .unwrap_or_else(super::random_token);
        let cookie = Cookie::build((PreSession::cookie_name(state), token.clone()))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(state.secure_cookies())
            .build();
        (token, jar.add(cookie))
    }

    /// The form came from our page in this browser.
    pub(crate) fn check(state: &AppState, jar: &CookieJar, token: &str) -> Result<(), Failure> {
        let cookie = jar.get(PreSession::cookie_name(state)).map_or("", Cookie::value);
        if cookie.is_empty() || !same(cookie, token) {
            return Err(Failure::Forbidden(EXPIRED));
        }
        Ok(())
    }
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site == "cross-site") {
        return true;
    }
    match (headers.get(header::ORIGIN), text(header::HOST)) {
        (None, _) => false,
        (Some(origin), host) => {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin.map(|(_, authority)| authority) != host
        }
    }
}

/// Refuses what another site makes a browser send.
pub(crate) fn refuse_foreign_origin(headers: &HeaderMap) -> Result<(), Failure> {
    if is_foreign(headers) {
        return Err(Failure::Forbidden(EXPIRED));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_another_origin_is_foreign() {
        assert!(!is_foreign(&headers(&[("host", "a.example")])));
        assert!(!is_foreign(&headers(&[
            ("host", "a.example:8080"),
            ("origin", "http://a.example:8080")
        ])));
        for origin in ["http://b.example", "null", "http://a.example:81"] {
            assert!(
                is_foreign(&headers(&[("host", "a.example"), ("origin", origin)])),
                "{origin}"
            );
        }
        assert!(is_foreign(&headers(&[("host", "a"), ("sec-fetch-site", "cross-site")])));
        assert!(!is_foreign(&headers(&[
            ("host", "a"),
            ("sec-fetch-site", "same-origin")
        ])));
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "abcd"));
    }
}
