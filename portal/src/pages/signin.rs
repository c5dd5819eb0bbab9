//! Signing in and out.

mod code;

use std::net::IpAddr;

use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum_extra::extract::CookieJar;
use schemas::ids::UserId;

use crate::auth::{
    ClientIp, CsrfForm, PreSession, Role, SignedIn, clear_cookies, close_session, find_for_sign_in, open_session,
    pending, session_cookie, token_of, verify_password,
};
use crate::error::{Failure, PageError, page};
use crate::shell;
use crate::state::AppState;

/// Longest address to go back to after sign-in.
const MAX_NEXT_BYTES: usize = 512;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/signin", get(show).post(sign_in))
        .route("/signin/code", get(code::show).post(code::check))
        .route("/signout", post(sign_out))
}

/// The address of the sign-in page that leads back to `next`.
pub(crate) fn address(next: &str) -> String {
    match next {
        "/" => "/signin".to_owned(),
        next => format!("/signin?next={}", percent_encoded(next)),
    }
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Only a path of our own: never another site, however written.
fn local_path(next: &str) -> Option<&str> {
    let local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && next.len() <= MAX_NEXT_BYTES
        && !next.chars().any(char::is_control)
        && !next.starts_with("/signin")
        && !next.starts_with("/api/");
    local.then_some(next)
}

#[derive(Template)]
#[template(path = "signin.html")]
struct SignInPage {
    form_token: String,
    email: String,
    next: String,
    problem: Option<String>,
}

#[derive(serde::Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

async fn show(
    State(state): State<AppState>,
    who: Result<SignedIn, crate::auth::Rejection>,
    Query(asked): Query<Asked>,
    jar: CookieJar,
) -> Result<Response, PageError> {
    if let Ok(who) = who {
        let target = local_path(&asked.next).unwrap_or(shell::home(who.user.role));
        return Ok(Redirect::to(target).into_response());
    }
    let (form_token, jar) = PreSession::issue(&state, jar);
    let body = page(&SignInPage {
        form_token,
        email: String::new(),
        next: local_path(&asked.next).unwrap_or("").to_owned(),
        problem: None,
    })?;
    Ok((jar, body).into_response())
}

#[derive(serde::Deserialize)]
struct Credentials {
    #[serde(default)]
    csrf_token: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

async fn sign_in(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    jar: CookieJar,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Result<Response, PageError> {
    PreSession::check(&state, &jar, &form.csrf_token)?;
    if let Err(retry_after_s) = state.sign_in_throttle().take(ip, &form.email, state.now_ms()) {
        tracing::warn!(%ip, "sign-in held back after too many failures");
        return Err(Failure::TooManyRequests { retry_after_s }.into());
    }
    let found = find_for_sign_in(state.db(), &form.email).await?;
    let stored = found.as_ref().map(|candidate| candidate.password_hash.clone());
    let right = verify_password(state.password_checks(), form.password, stored).await;
    let (true, Some(candidate)) = (right, found) else {
        tracing::info!(%ip, "sign-in failed");
        let body = page(&SignInPage {
            form_token: form.csrf_token,
            email: form.email,
            next: local_path(&form.next).unwrap_or("").to_owned(),
            problem: Some("That email and password do not belong together.".to_owned()),
        })?;
        return Ok((StatusCode::UNAUTHORIZED, body).into_response());
    };
    state.sign_in_throttle().succeeded(ip, &form.email);
    if candidate.has_second_factor {
        let jar = pending::open(&state, jar, candidate.user).await?;
        let next = local_path(&form.next).unwrap_or("");
        return Ok((jar, Redirect::to(&code::address(next))).into_response());
    }
    finish(&state, jar, &headers, ip, candidate.user, candidate.role, &form.next).await
}

/// Opens the session of who has proved who they are, and leads on.
async fn finish(
    state: &AppState,
    jar: CookieJar,
    headers: &HeaderMap,
    ip: IpAddr,
    user: UserId,
    role: Role,
    next: &str,
) -> Result<Response, PageError> {
    let user_agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let previous = token_of(state, &jar);
    let token = open_session(state, user, previous.as_deref(), user_agent, &ip.to_string()).await?;
    tracing::info!(%ip, %user, %role, "signed in");
    let target = local_path(next).unwrap_or(shell::home(role)).to_owned();
    Ok((jar.add(session_cookie(state, token)), Redirect::to(&target)).into_response())
}

#[derive(serde::Deserialize)]
struct Nothing {}

async fn sign_out(
    State(state): State<AppState>,
    jar: CookieJar,
    CsrfForm(who, Nothing {}): CsrfForm<Nothing>,
) -> Result<Response, PageError> {
    if let Some(token) = token_of(&state, &jar) {
        close_session(&state, &token).await?;
    }
    tracing::info!(user = %who.user.id, "signed out");
    Ok((clear_cookies(&state, jar), Redirect::to("/signin")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_leads_back_only_to_our_own_pages() {
        assert_eq!(local_path("/usage/svc_1?range=day"), Some("/usage/svc_1?range=day"));
        for bad in [
            "",
            "usage",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nb",
            "/signin",
        ] {
            assert_eq!(local_path(bad), None, "{bad:?}");
        }
        assert_eq!(address("/usage?a=b&c"), "/signin?next=/usage%3Fa%3Db%26c");
        assert_eq!(address("/"), "/signin");
    }
}
