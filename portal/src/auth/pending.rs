//! Between the password and the second factor: a random token in a cookie, its SHA-256 in the database. It is no session and
//! opens no page but the one that asks for the code.

use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use schemas::ids::UserId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::session::token_hash;
use super::users::Role;
use crate::state::AppState;

/// How long the code may be waited for.
const LIFETIME_MS: i64 = 10 * 60_000;
/// Codes that are tried; then the password is asked for again.
const MAX_ATTEMPTS: i64 = 5;
/// Of one user at one time; the oldest end first.
const MAX_PER_USER: i64 = 10;

/// Who gave the right password.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) user: UserId,
    pub(crate) email: String,
    pub(crate) role: Role,
}

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
    let now_ms = state.now_ms();
    let token = super::random_token();
    sqlx::query("DELETE FROM sign_ins WHERE expires_at_ms <= $1")
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM sign_ins WHERE user_id = $1 AND token_hash NOT IN \
         (SELECT token_hash FROM sign_ins WHERE user_id = $1 ORDER BY expires_at_ms DESC, token_hash LIMIT $2)",
    )
    .bind(user.0)
    .bind(MAX_PER_USER - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO sign_ins (token_hash, user_id, attempts, expires_at_ms) VALUES ($1, $2, 0, $3)")
        .bind(token_hash(&token))
        .bind(user.0)
        .bind(now_ms + LIFETIME_MS)
        .execute(&mut *connection)
        .await?;
    Ok(jar.add(cookie(state, token)))
}

/// Who owes the second factor in this browser, while there are time and tries left.
pub(crate) async fn find(state: &AppState, jar: &CookieJar) -> Result<Option<Pending>, sqlx::Error> {
    let Some(token) = token_of(state, jar) else {
        return Ok(None);
    };
    let row = sqlx::query(
        "SELECT u.id, u.email, u.role FROM sign_ins s JOIN users u ON u.id = s.user_id \
         WHERE s.token_hash = $1 AND s.expires_at_ms > $2 AND s.attempts < $3 \
         AND u.disabled_at_ms IS NULL AND u.two_factor_at_ms IS NOT NULL",
    )
    .bind(token_hash(&token))
    .bind(state.now_ms())
    .bind(MAX_ATTEMPTS)
    .fetch_optional(state.db().pool())
    .await?;
    row.as_ref().map(read).transpose().map(Option::flatten)
}

/// Who owes it, as [`find`], in the transaction that signs them in: they stay as they are until it ends.
pub(crate) async fn hold(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: &CookieJar,
) -> Result<Option<Pending>, sqlx::Error> {
    let Some(token) = token_of(state, jar) else {
        return Ok(None);
    };
    let row = sqlx::query(
        "UPDATE users SET last_seen_at_ms = last_seen_at_ms \
         WHERE id = (SELECT user_id FROM sign_ins WHERE token_hash = $1 AND expires_at_ms > $2) \
         AND disabled_at_ms IS NULL AND two_factor_at_ms IS NOT NULL RETURNING id, email, role",
    )
    .bind(token_hash(&token))
    .bind(state.now_ms())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read).transpose().map(Option::flatten)
}

fn read(row: &AnyRow) -> Result<Option<Pending>, sqlx::Error> {
    let role: String = row.try_get("role")?;
    let Ok(role) = role.parse() else { return Ok(None) };
    Ok(Some(Pending {
        user: UserId(row.try_get("id")?),
        email: row.try_get("email")?,
        role,
    }))
}

/// Takes one try before it is made, so that parallel guesses count too; false where none is left.
pub(crate) async fn take_attempt(state: &AppState, jar: &CookieJar) -> Result<bool, sqlx::Error> {
    let Some(token) = token_of(state, jar) else {
        return Ok(false);
    };
    let taken = sqlx::query(
        "UPDATE sign_ins SET attempts = attempts + 1 WHERE token_hash = $1 AND expires_at_ms > $2 AND attempts < $3",
    )
    .bind(token_hash(&token))
    .bind(state.now_ms())
    .bind(MAX_ATTEMPTS)
    .execute(state.db().pool())
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// It is over: the token is dead, and the browser forgets it. False where it was over already.
pub(crate) async fn close(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: CookieJar,
) -> Result<(CookieJar, bool), sqlx::Error> {
    let mut is_closed = false;
    if let Some(token) = token_of(state, &jar) {
        let deleted = sqlx::query("DELETE FROM sign_ins WHERE token_hash = $1")
            .bind(token_hash(&token))
            .execute(connection)
            .await?;
        is_closed = deleted.rows_affected() == 1;
    }
    Ok((jar.remove(cookie(state, String::new())), is_closed))
}
