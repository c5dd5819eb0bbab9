//! Browsers that have signed a user in: a random token in a cookie, its SHA-256 in the database beside the user.
//!
//! It opens nothing. It says that guesses made here are not a stranger's, so that who tries to have the owner wait by guessing
//! does not ([`crate::sign_in::Throttle`]). One browser may know several users. Each sign-in gives it a new token, so that one
//! which somebody planted there is never known for the user who signs in.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::AppendHeaders;
use axum_extra::extract::CookieJar;
use schemas::identity::{self, DEVICE_KNOWN_MS};
use schemas::ids::UserId;
use sqlx::AnyConnection;

use super::session::token_hash;
use crate::state::AppState;

/// Of one user; the one that signed them in longest ago is forgotten first.
const MAX_PER_USER: i64 = 20;

fn cookie_name(state: &AppState) -> &'static str {
    if state.secure_cookies() {
        "__Host-ezscale_device"
    } else {
        "ezscale_device"
    }
}

/// Sets the cookie. It is no part of a jar, whose cookies come in any order: that of the session is the first.
pub(crate) type SetCookie = AppendHeaders<Option<(HeaderName, HeaderValue)>>;

fn set_cookie(state: &AppState, token: &str) -> SetCookie {
    let name = cookie_name(state);
    let secure = if state.secure_cookies() { "; Secure" } else { "" };
    let age_s = DEVICE_KNOWN_MS / 1_000;
    let text = format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age_s}{secure}");
    AppendHeaders(
        HeaderValue::from_str(&text)
            .ok()
            .map(|value| (header::SET_COOKIE, value)),
    )
}

fn hash_of(state: &AppState, jar: &CookieJar) -> Option<String> {
    jar.get(cookie_name(state)).map(|cookie| token_hash(cookie.value()))
}

/// What names this browser, where it has signed in the user with this email.
pub(crate) async fn known(state: &AppState, jar: &CookieJar, email: &str) -> Result<Option<String>, sqlx::Error> {
    let Some(hash) = hash_of(state, jar) else {
        return Ok(None);
    };
    let is_known = identity::is_known_device(state.db().pool(), &hash, email, state.now_ms()).await?;
    Ok(is_known.then_some(hash))
}

/// Notes that this browser has shown to be the user's; the answer gives it its new token.
pub(crate) async fn remember(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: &CookieJar,
    user: UserId,
) -> Result<SetCookie, sqlx::Error> {
    let token = super::random_token();
    let before = hash_of(state, jar);
    let (hash, now_ms) = (token_hash(&token), state.now_ms());
    identity::remember_device(connection, user, &hash, before.as_deref(), now_ms, MAX_PER_USER).await?;
    Ok(set_cookie(state, &token))
}
