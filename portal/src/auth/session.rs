//! Sessions: a random token in a cookie, its SHA-256 in the database.
//!
//! A session ends a while after it was last used, and a longer while after sign-in whatever happens; sooner for staff than for
//! customers ([`SessionLimits`]). Pages that refresh themselves do not use it ([`BACKGROUND`]). Signing in always makes a new
//! token and ends the session the browser had before, so a planted token is worth nothing.

use axum::http::HeaderName;
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use schemas::ids::{CustomerId, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::agent::Agent;
use super::extract::SignedIn;
use super::last_seen::LastSeen;
use super::users::{Role, User};
use crate::state::AppState;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The header of requests that a page makes by itself, by a timer: they do not show that somebody is there.
pub(crate) const BACKGROUND: HeaderName = HeaderName::from_static("ezscale-background");
/// The last use of a session is noted at most so often.
const TOUCH_INTERVAL_MS: i64 = 60_000;
/// Sessions one user may have; the oldest end first.
const MAX_SESSIONS_PER_USER: i64 = 20;
/// Characters of a session's name, which begins its token's hash.
const NAME_CHARS: usize = 16;

/// How long sessions last: the section `[sessions]` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionLimits {
    /// Of staff, from sign-in, whatever happens.
    pub staff_hours: u32,
    /// Of staff, after it was last used.
    pub staff_idle_minutes: u32,
    /// Of customers, from sign-in, whatever happens.
    pub customer_days: u32,
    /// Of customers, after it was last used.
    pub customer_idle_days: u32,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            staff_hours: 12,
            staff_idle_minutes: 30,
            customer_days: 30,
            customer_idle_days: 7,
        }
    }
}

/// A limit that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("sessions.{setting} = {value} is out of range: use 1 to {most}")]
pub struct SessionLimitsError {
    setting: &'static str,
    value: u32,
    most: u32,
}

impl SessionLimits {
    /// # Errors
    /// When a limit is out of range, with the range.
    pub fn validate(&self) -> Result<(), SessionLimitsError> {
        for (setting, value, most) in [
            ("staff_hours", self.staff_hours, 24 * 7),
            ("staff_idle_minutes", self.staff_idle_minutes, 24 * 60),
            ("customer_days", self.customer_days, 365),
            ("customer_idle_days", self.customer_idle_days, 365),
        ] {
            if !(1..=most).contains(&value) {
                return Err(SessionLimitsError { setting, value, most });
            }
        }
        Ok(())
    }

    fn whole_ms(&self, role: Role) -> i64 {
        match role {
            Role::Customer => i64::from(self.customer_days) * DAY_MS,
            Role::Ops | Role::Finance | Role::Network | Role::Admin => i64::from(self.staff_hours) * HOUR_MS,
        }
    }

    pub(super) fn idle_ms(&self, role: Role) -> i64 {
        match role {
            Role::Customer => i64::from(self.customer_idle_days) * DAY_MS,
            Role::Ops | Role::Finance | Role::Network | Role::Admin => i64::from(self.staff_idle_minutes) * MINUTE_MS,
        }
    }

    /// What is stored of a session, as far as it lasts by limits that were configured since.
    fn lasts(&self, role: Role, times: Times, now_ms: i64) -> bool {
        now_ms < times.expires_at_ms
            && now_ms < times.created_at_ms + self.whole_ms(role)
            && now_ms < times.last_seen_at_ms + self.idle_ms(role)
    }
}

#[derive(Clone, Copy)]
struct Times {
    created_at_ms: i64,
    last_seen_at_ms: i64,
    expires_at_ms: i64,
}

impl Times {
    fn read(row: &sqlx::any::AnyRow) -> Result<Times, sqlx::Error> {
        Ok(Times {
            created_at_ms: row.try_get("created_at_ms")?,
            last_seen_at_ms: row.try_get("last_seen_at_ms")?,
            expires_at_ms: row.try_get("expires_at_ms")?,
        })
    }
}

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
    if let Some(previous) = previous {
        sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
            .bind(token_hash(previous))
            .execute(&mut *connection)
            .await?;
    }
    let longest_idle_ms = limits.idle_ms(Role::Customer).max(limits.idle_ms(Role::Admin));
    sqlx::query("DELETE FROM sessions WHERE expires_at_ms <= $1 OR last_seen_at_ms <= $2")
        .bind(now_ms)
        .bind(now_ms - longest_idle_ms)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM sessions WHERE user_id = $1 AND token_hash NOT IN \
         (SELECT token_hash FROM sessions WHERE user_id = $1 ORDER BY last_seen_at_ms DESC, token_hash LIMIT $2)",
    )
    .bind(user.0)
    .bind(MAX_SESSIONS_PER_USER - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO sessions (token_hash, user_id, csrf_token, created_at_ms, last_seen_at_ms, expires_at_ms, \
         user_agent, ip) VALUES ($1, $2, $3, $4, $4, $5, $6, $7)",
    )
    .bind(token_hash(&token))
    .bind(user.0)
    .bind(super::random_token())
    .bind(now_ms)
    .bind(now_ms + limits.whole_ms(role))
    .bind(&agent.user_agent)
    .bind(agent.ip_text())
    .execute(&mut *connection)
    .await?;
    note_seen(&mut *connection, user, now_ms).await?;
    Ok(token)
}

/// Notes when somebody was last here; sessions end and are forgotten, and a free plan goes by this (F-26).
async fn note_seen(db: impl AnyExecutor<'_>, user: UserId, now_ms: i64) -> Result<(), sqlx::Error> {
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

fn name_of(hash: &str) -> String {
    hash.chars().take(NAME_CHARS).collect()
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
    let rows = sqlx::query(
        "SELECT s.token_hash, s.created_at_ms, s.last_seen_at_ms, s.expires_at_ms, s.ip, s.user_agent, u.role \
         FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.user_id = $1 AND u.disabled_at_ms IS NULL \
         ORDER BY s.last_seen_at_ms DESC, s.token_hash",
    )
    .bind(user.0)
    .fetch_all(db)
    .await?;
    let mut sessions = Vec::with_capacity(rows.len());
    for row in &rows {
        let times = Times::read(row)?;
        let Ok(role) = row.try_get::<String, _>("role")?.parse::<Role>() else {
            continue;
        };
        if !limits.lasts(role, times, now_ms) {
            continue;
        }
        sessions.push(Session {
            name: name_of(&row.try_get::<String, _>("token_hash")?),
            created_at_ms: times.created_at_ms,
            last_seen_at_ms: times.last_seen_at_ms,
            ends_at_ms: times.expires_at_ms.min(times.created_at_ms + limits.whole_ms(role)),
            ip: row.try_get("ip")?,
            user_agent: row.try_get("user_agent")?,
        });
    }
    Ok(sessions)
}

/// Which sessions of a user to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending<'a> {
    All,
    /// All but the one of this name.
    AllBut(&'a str),
    One(&'a str),
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
        let found = sqlx::query(
            "UPDATE users SET last_seen_at_ms = last_seen_at_ms WHERE id = $1 AND password_hash = $2 \
             AND disabled_at_ms IS NULL",
        )
        .bind(self.user.0)
        .bind(&self.password_hash)
        .execute(&mut *connection)
        .await?;
        let session = sqlx::query("SELECT 1 FROM sessions WHERE user_id = $1 AND substr(token_hash, 1, 16) = $2")
            .bind(self.user.0)
            .bind(&self.session)
            .fetch_optional(connection)
            .await?;
        Ok(found.rows_affected() == 1 && session.is_some())
    }
}

/// Ends sessions of a user, and with all of them the sign-ins that wait for a code; how many sessions.
pub(super) async fn end(connection: &mut AnyConnection, user: UserId, ending: Ending<'_>) -> Result<u64, sqlx::Error> {
    let (sql, name) = match ending {
        Ending::All => ("DELETE FROM sessions WHERE user_id = $1 AND $2 = ''", ""),
        Ending::AllBut(name) => (
            "DELETE FROM sessions WHERE user_id = $1 AND substr(token_hash, 1, 16) <> $2",
            name,
        ),
        Ending::One(name) => (
            "DELETE FROM sessions WHERE user_id = $1 AND substr(token_hash, 1, 16) = $2",
            name,
        ),
    };
    let ended = sqlx::query(sql)
        .bind(user.0)
        .bind(name)
        .execute(&mut *connection)
        .await?;
    if !matches!(ending, Ending::One(_)) {
        sqlx::query("DELETE FROM sign_ins WHERE user_id = $1")
            .bind(user.0)
            .execute(connection)
            .await?;
    }
    Ok(ended.rows_affected())
}

/// Who a token belongs to, while its session lasts and the user is not disabled. It goes on being used, unless the request
/// `is_background`.
pub(super) async fn find(state: &AppState, token: &str, is_background: bool) -> Result<Option<SignedIn>, sqlx::Error> {
    let now_ms = state.now_ms();
    let hash = token_hash(token);
    // Before the row: a note that is written meanwhile is forgotten, and is in the row then.
    let noted_ms = state.last_seen().noted(&hash).unwrap_or(0);
    let row = sqlx::query(
        "SELECT s.csrf_token, s.created_at_ms, s.last_seen_at_ms, s.expires_at_ms, u.id, u.email, u.name, u.role, u.customer_id, \
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
    let mut times = Times::read(&row)?;
    times.last_seen_at_ms = noted_ms.max(times.last_seen_at_ms);
    if !state.session_limits().lasts(role, times, now_ms) {
        return Ok(None);
    }
    if !is_background && now_ms - times.last_seen_at_ms >= TOUCH_INTERVAL_MS {
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
        session: name_of(&hash),
        unread: row.try_get("unread")?,
        billing_stopped: row.try_get::<i64, _>("stopped")? > 0,
    }))
}
