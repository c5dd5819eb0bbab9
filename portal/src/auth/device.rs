//! Browsers that have signed a user in: a random token in a cookie, its SHA-256 in the database beside the user.
//!
//! It opens nothing. It says that guesses made here are not a stranger's, so that who tries to have the owner wait by guessing
//! does not ([`super::Throttle`]). One browser may know several users. Each sign-in gives it a new token, so that one which
//! somebody planted there is never known for the user who signs in.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::AppendHeaders;
use axum_extra::extract::CookieJar;
use schemas::ids::UserId;
use sqlx::{AnyConnection, Row as _};

use super::session::token_hash;
use super::users::normalised;
use crate::state::AppState;

/// How long a browser is known after it last signed the user in.
pub(crate) const KNOWN_MS: i64 = KNOWN_DAYS * 24 * 3_600_000;
const KNOWN_DAYS: i64 = 180;
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
    let age_s = KNOWN_MS / 1_000;
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
    let row = sqlx::query(
        "SELECT 1 FROM known_devices d JOIN users u ON u.id = d.user_id \
         WHERE d.token_hash = $1 AND u.email = $2 AND d.used_at_ms > $3",
    )
    .bind(&hash)
    .bind(normalised(email))
    .bind(state.now_ms() - KNOWN_MS)
    .fetch_optional(state.db().pool())
    .await?;
    Ok(row.map(|_| hash))
}

/// Notes that this browser has shown to be the user's; the answer gives it its new token.
pub(crate) async fn remember(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: &CookieJar,
    user: UserId,
) -> Result<SetCookie, sqlx::Error> {
    let now_ms = state.now_ms();
    let token = super::random_token();
    let hash = token_hash(&token);
    if let Some(before) = hash_of(state, jar) {
        // Two users may share a browser.
        sqlx::query("UPDATE known_devices SET token_hash = $1 WHERE token_hash = $2")
            .bind(&hash)
            .bind(before)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "INSERT INTO known_devices (token_hash, user_id, used_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (token_hash, user_id) DO UPDATE SET used_at_ms = $3",
    )
    .bind(&hash)
    .bind(user.0)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query(
        "SELECT token_hash FROM known_devices WHERE user_id = $1 ORDER BY used_at_ms DESC, token_hash LIMIT 1 OFFSET $2",
    )
    .bind(user.0)
    .bind(MAX_PER_USER)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(row) = rows {
        sqlx::query("DELETE FROM known_devices WHERE user_id = $1 AND token_hash = $2")
            .bind(user.0)
            .bind(row.try_get::<String, _>(0)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(set_cookie(state, &token))
}

/// Forgets all browsers of a user: what they guess is a stranger's.
pub(super) async fn forget(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM known_devices WHERE user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}
