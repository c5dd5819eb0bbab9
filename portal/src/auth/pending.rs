//! Between the password and the second factor: a random token in a cookie, its SHA-256 in the database. It is no session and
//! opens no page but the one that asks for the code.

use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use schemas::identity::{self, PendingSignIn};
use schemas::ids::UserId;
use sqlx::AnyConnection;

use super::session::token_hash;
use crate::state::AppState;

/// How long the code may be waited for.
const LIFETIME_MS: i64 = 10 * 60_000;
/// Codes that are tried; then the password is asked for again.
const MAX_ATTEMPTS: i64 = 5;
/// Of one user at one time; the oldest end first.
const MAX_PER_USER: i64 = 10;

fn cookie(state: &AppState, token: String) -> Cookie<'static> {
    let name = if state.secure_cookies() {
        "__Host-ezscale_code"
    } else {
        "ezscale_code"
    };
    Cookie::build((name, token))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(state.secure_cookies())
        .build()
}

fn token_of(state: &AppState, jar: &CookieJar) -> Option<String> {
    let name = cookie(state, String::new()).name().to_owned();
    jar.get(&name).map(|cookie| cookie.value().to_owned())
}

/// Notes that a user owes the second factor; the jar says so too.
pub(crate) async fn open(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: CookieJar,
    user: UserId,
) -> Result<CookieJar, sqlx::Error> {
    let (token, now_ms) = (super::random_token(), state.now_ms());
    let times = (now_ms, now_ms + LIFETIME_MS);
    identity::open_sign_in(connection, user, &token_hash(&token), times, MAX_PER_USER).await?;
    Ok(jar.add(cookie(state, token)))
}

/// Who owes the second factor in this browser, while there are time and tries left.
pub(crate) async fn find(state: &AppState, jar: &CookieJar) -> Result<Option<PendingSignIn>, sqlx::Error> {
    let Some(token) = token_of(state, jar) else {
        return Ok(None);
    };
    identity::pending_sign_in(state.db().pool(), &token_hash(&token), state.now_ms(), MAX_ATTEMPTS).await
}

/// Who owes it, as [`find`], in the transaction that signs them in: they stay as they are until it ends.
pub(crate) async fn hold(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: &CookieJar,
) -> Result<Option<PendingSignIn>, sqlx::Error> {
    let Some(token) = token_of(state, jar) else {
        return Ok(None);
    };
    identity::hold_sign_in(connection, &token_hash(&token), state.now_ms()).await
}

/// Takes one try before it is made, so that parallel guesses count too; false where none is left.
pub(crate) async fn take_attempt(state: &AppState, jar: &CookieJar) -> Result<bool, sqlx::Error> {
    let Some(token) = token_of(state, jar) else {
        return Ok(false);
    };
    identity::take_code_attempt(state.db().pool(), &token_hash(&token), state.now_ms(), MAX_ATTEMPTS).await
}

/// It is over: the token is dead, and the browser forgets it. False where it was over already.
pub(crate) async fn close(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: CookieJar,
) -> Result<(CookieJar, bool), sqlx::Error> {
    let mut is_closed = false;
    if let Some(token) = token_of(state, &jar) {
        is_closed = identity::close_sign_in(connection, &token_hash(&token)).await?;
    }
    Ok((jar.remove(cookie(state, String::new())), is_closed))
}
