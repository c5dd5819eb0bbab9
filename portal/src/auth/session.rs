//! Sessions: a random token in a cookie, its SHA-256 in the database.
//!
//! A session ends 12 hours after it was last used, and 7 days after sign-in whatever happens. Signing in always makes a new
//! token and ends the session the browser had before, so a planted token is worth nothing.

use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use schemas::ids::{CustomerId, UserId};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::extract::SignedIn;
use super::last_seen::LastSeen;
use super::users::{Role, User};
use crate::state::AppState;

/// A session that was not used for so long is over.
const IDLE_TIMEOUT_MS: i64 = 12 * 3_600_000;
/// A session is over so long after sign-in.
const ABSOLUTE_TIMEOUT_MS: i64 = 7 * 24 * 3_600_000;
/// The last use of a session is noted at most so often.
const TOUCH_INTERVAL_MS: i64 = 60_000;
/// Sessions one user may have; the oldest end first.
const MAX_SESSIONS_PER_USER: i64 = 20;
/// Longest user agent kept, in characters.
const MAX_USER_AGENT_CHARS: usize = 200;

/// The `__Host-` prefix makes browsers refuse the cookie from anybody but this host over HTTPS.
fn cookie_name(state: &AppState) -> &'static str {
    if state.secure_cookies() {
        "__Host-ezscale_session"
    } else {
        "ezscale_session"
    }
}

pub(super) fn token_hash(token: &str) -> String {
    super::hex(&Sha256::digest(token.as_bytes()))
}

/// The session token the browser sent.
pub(crate) fn token_of(state: &AppState, jar: &CookieJar) -> Option<String> {
    jar.get(cookie_name(state)).map(|cookie| cookie.value().to_owned())
}

/// The cookie that carries a token.
pub(crate) fn session_cookie(state: &AppState, token: String) -> Cookie<'static> {
    Cookie::build((cookie_name(state), token))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(state.secure_cookies())
        .build()
}

/// A jar that makes the browser forget its session.
pub(crate) fn clear_cookies(state: &AppState, jar: CookieJar) -> CookieJar {
    jar.remove(session_cookie(state, String::new()))
}

/// Opens a session for a user and answers its token. `previous` is the token the browser had: its session ends.
pub(crate) async fn open(
    state: &AppState,
    user: UserId,
    previous: Option<&str>,
    user_agent: &str,
    ip: &str,
) -> Result<String, sqlx::Error> {
    let now_ms = state.now_ms();
    let token = super::random_token();
    let user_agent: String = user_agent.chars().take(MAX_USER_AGENT_CHARS).collect();
    let mut transaction = state.db().begin_write().await?;
    if let Some(previous) = previous {
        sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
            .bind(token_hash(previous))
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query("DELETE FROM sessions WHERE expires_at_ms <= $1 OR last_seen_at_ms <= $2")
        .bind(now_ms)
        .bind(now_ms - IDLE_TIMEOUT_MS)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "DELETE FROM sessions WHERE user_id = $1 AND token_hash NOT IN \
         (SELECT token_hash FROM sessions WHERE user_id = $1 ORDER BY last_seen_at_ms DESC, token_hash LIMIT $2)",
    )
    .bind(user.0)
    .bind(MAX_SESSIONS_PER_USER - 1)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO sessions (token_hash, user_id, csrf_token, created_at_ms, last_seen_at_ms, expires_at_ms, \
         user_agent, ip) VALUES ($1, $2, $3, $4, $4, $5, $6, $7)",
    )
    .bind(token_hash(&token))
    .bind(user.0)
    .bind(super::random_token())
    .bind(now_ms)
    .bind(now_ms + ABSOLUTE_TIMEOUT_MS)
    .bind(user_agent)
    .bind(ip)
    .execute(&mut *transaction)
    .await?;
    note_seen(&mut *transaction, user, now_ms).await?;
    transaction.commit().await?;
    Ok(token)
}

/// Notes when somebody was last here; sessions end and are forgotten, and a free plan goes by this (F-26).
async fn note_seen(db: impl sqlx::AnyExecutor<'_>, user: UserId, now_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET last_seen_at_ms = $1 WHERE id = $2")
        .bind(now_ms)
        .bind(user.0)
        .execute(db)
        .await?;
    Ok(())
}

/// Ends the session of a token.
pub(crate) async fn close(state: &AppState, token: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
        .bind(token_hash(token))
        .execute(state.db().pool())
        .await?;
    Ok(())
}

/// Who a token belongs to, while its session lasts and the user is not disabled.
pub(super) async fn find(state: &AppState, token: &str) -> Result<Option<SignedIn>, sqlx::Error> {
    let now_ms = state.now_ms();
    let hash = token_hash(token);
    let row = sqlx::query(
        "SELECT s.csrf_token, s.last_seen_at_ms, u.id, u.email, u.name, u.role, u.customer_id, \
         (SELECT count(*) FROM notifications n WHERE n.customer_id = u.customer_id AND n.read_at_ms IS NULL) AS unread, \
         (SELECT count(*) FROM billing_clock b WHERE b.stopped_at_ms IS NOT NULL) AS stopped \
         FROM sessions s JOIN users u ON u.id = s.user_id \
         WHERE s.token_hash = $1 AND s.expires_at_ms > $2 AND u.disabled_at_ms IS NULL",
    )
    .bind(&hash)
    .bind(now_ms)
    .fetch_optional(state.db().pool())
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let role: String = row.try_get("role")?;
    let Ok(role) = role.parse::<Role>() else {
        return Ok(None);
    };
    let written_ms: i64 = row.try_get("last_seen_at_ms")?;
    let last_seen_at_ms = state.last_seen().noted(&hash).unwrap_or(0).max(written_ms);
    if last_seen_at_ms <= now_ms - IDLE_TIMEOUT_MS {
        return Ok(None);
    }
    if now_ms - last_seen_at_ms >= TOUCH_INTERVAL_MS {
        LastSeen::note(state, &hash, now_ms);
    }
    let customer: Option<i64> = row.try_get("customer_id")?;
    Ok(Some(SignedIn {
        user: User {
            id: UserId(row.try_get("id")?),
            email: row.try_get("email")?,
            name: row.try_get("name")?,
            role,
            customer: customer.map(CustomerId),
        },
        csrf_token: row.try_get("csrf_token")?,
        unread: row.try_get("unread")?,
        billing_stopped: row.try_get::<i64, _>("stopped")? > 0,
    }))
}
