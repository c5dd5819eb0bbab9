//! Sessions: a random token in a cookie, its SHA-256 in the database.
//!
//! A session ends a while after it was last used, and a longer while after sign-in whatever happens; sooner for staff than for
//! customers ([`SessionLimits`]). Pages that refresh themselves do not use it ([`BACKGROUND`]). Signing in always makes a new
//! token and ends the session the browser had before, so a planted token is worth nothing.

use axum::http::HeaderName;
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use schemas::identity::{self, NewSession, Role, SessionTimes, StoredSession, session_name};
use schemas::ids::UserId;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, AnyExecutor};

use super::agent::Agent;
use super::extract::SignedIn;
use crate::sign_in::{SessionLimits, Used};
use crate::state::AppState;

/// The header of requests that a page makes by itself, by a timer: they do not show that somebody is there.
pub(crate) const BACKGROUND: HeaderName = HeaderName::from_static("ezscale-background");
/// The last use of a session is noted at most so often.
const TOUCH_INTERVAL_MS: i64 = 60_000;
/// Sessions one user may have; the oldest end first.
const MAX_SESSIONS_PER_USER: i64 = 20;

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
    connection: &mut AnyConnection,
    (user, role): (UserId, Role),
    previous: Option<&str>,
    agent: &Agent,
) -> Result<String, sqlx::Error> {
    let now_ms = state.now_ms();
    let limits = state.session_limits();
    let token = super::random_token();
    let longest_idle_ms = limits.idle_ms(Role::Customer).max(limits.idle_ms(Role::Admin));
    let new = NewSession {
        user,
        token_hash: &token_hash(&token),
        csrf_token: &super::random_token(),
        created_at_ms: now_ms,
        expires_at_ms: now_ms + limits.whole_ms(role),
        user_agent: &agent.user_agent,
        ip: &agent.ip_text(),
    };
    let previous = previous.map(token_hash);
    identity::open_session(
        connection,
        new,
        previous.as_deref(),
        now_ms - longest_idle_ms,
        MAX_SESSIONS_PER_USER,
    )
    .await?;
    Ok(token)
}

/// Ends the session of a token.
pub(crate) async fn close(state: &AppState, token: &str) -> Result<(), sqlx::Error> {
    identity::close_session(state.db().pool(), &token_hash(token)).await
}

/// A session, as its user and admins see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Session {
    /// What it is revoked by.
    pub name: String,
    pub created_at_ms: i64,
    pub last_seen_at_ms: i64,
    /// When it ends if it is used until then.
    pub ends_at_ms: i64,
    pub ip: String,
    pub user_agent: String,
}

/// When a session ends if it is used until then.
fn lasts_until_ms(limits: &SessionLimits, session: &StoredSession) -> i64 {
    let whole_ms = session.times.created_at_ms + limits.whole_ms(session.role);
    session.times.expires_at_ms.min(whole_ms)
}

/// The sessions of a user that last, the one used last first.
///
/// # Errors
/// As the database answers.
pub async fn sessions_of(
    db: impl AnyExecutor<'_>,
    user: UserId,
    limits: &SessionLimits,
    now_ms: i64,
) -> Result<Vec<Session>, sqlx::Error> {
    let stored = identity::sessions_of(db, user).await?.into_iter();
    let lasting = stored.filter(|session| limits.lasts(session.role, session.times, now_ms));
    let sessions = lasting.map(|session| Session {
        ends_at_ms: lasts_until_ms(limits, &session),
        name: session.name,
        created_at_ms: session.times.created_at_ms,
        last_seen_at_ms: session.times.last_seen_at_ms,
        ip: session.ip,
        user_agent: session.user_agent,
    });
    Ok(sessions.collect())
}

/// A password that was given again in a session, for what takes it.
#[derive(Clone)]
pub(crate) struct StepUp {
    pub(crate) user: UserId,
    /// The session's name.
    pub(crate) session: String,
    /// What the password was compared with.
    pub(crate) password_hash: String,
}

impl std::fmt::Debug for StepUp {
    /// Without the hash of the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepUp")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl StepUp {
    /// Whether it is still the password, and the session goes on: comparing takes a while. Both stay so until the transaction
    /// ends.
    pub(crate) async fn still_holds(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        let holds = identity::hold_by_password(&mut *connection, self.user, &self.password_hash).await?;
        let goes_on = identity::has_session(connection, self.user, &self.session).await?;
        Ok(holds && goes_on)
    }
}

/// Who a token belongs to, while its session lasts and the user is not disabled. It goes on being used, unless the request
/// `is_background`.
pub(super) async fn find(state: &AppState, token: &str, is_background: bool) -> Result<Option<SignedIn>, sqlx::Error> {
    let now_ms = state.now_ms();
    let hash = token_hash(token);
    // Before the row: a note that is written meanwhile is forgotten, and is in the row then.
    let used = Used::Session(hash.clone());
    let noted_ms = state.last_seen().noted(&used).unwrap_or(0);
    let Some(found) = identity::session_user(state.db().pool(), &hash, now_ms).await? else {
        return Ok(None);
    };
    let times = SessionTimes {
        last_seen_at_ms: noted_ms.max(found.times.last_seen_at_ms),
        ..found.times
    };
    if !state.session_limits().lasts(found.user.role, times, now_ms) {
        return Ok(None);
    }
    if !is_background && now_ms - times.last_seen_at_ms >= TOUCH_INTERVAL_MS {
        state.last_seen().note(state.db(), used, now_ms);
    }
    Ok(Some(SignedIn {
        user: found.user,
        csrf_token: found.csrf_token,
        session: session_name(&hash),
        unread: found.unread,
        billing_stopped: found.billing_stopped,
    }))
}
