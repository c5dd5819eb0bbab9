//! Sessions: which browser is whose. A session is found by the hash of its token, and named by how that begins.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Role, User, role_in};
use crate::ids::{CustomerId, UserId};

/// Characters of a session's name, which begins its token's hash.
pub const SESSION_NAME_CHARS: usize = 16;

/// The name of the session with this hash of its token.
pub fn session_name(token_hash: &str) -> String {
    token_hash.chars().take(SESSION_NAME_CHARS).collect()
}

/// A session to be opened.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    pub user: UserId,
    pub token_hash: &'a str,
    pub csrf_token: &'a str,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    pub user_agent: &'a str,
    pub ip: &'a str,
}

/// Opens a session, and ends those that make room for it: the one with the hash `previous`, all that are over or were last used at
/// `unused_since_ms` or before, and of the user's the ones used longest ago, so that with it they have at most `most`.
pub async fn open_session(
    connection: &mut AnyConnection,
    new: NewSession<'_>,
    previous: Option<&str>,
    unused_since_ms: i64,
    most: i64,
) -> Result<(), sqlx::Error> {
    if let Some(previous) = previous {
        close_session(&mut *connection, previous).await?;
    }
    sqlx::query("DELETE FROM sessions WHERE expires_at_ms <= $1 OR last_seen_at_ms <= $2")
        .bind(new.created_at_ms)
        .bind(unused_since_ms)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM sessions WHERE user_id = $1 AND token_hash NOT IN \
         (SELECT token_hash FROM sessions WHERE user_id = $1 ORDER BY last_seen_at_ms DESC, token_hash LIMIT $2)",
    )
    .bind(new.user.0)
    .bind(most - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO sessions (token_hash, user_id, csrf_token, created_at_ms, last_seen_at_ms, expires_at_ms, \
         user_agent, ip) VALUES ($1, $2, $3, $4, $4, $5, $6, $7)",
    )
    .bind(new.token_hash)
    .bind(new.user.0)
    .bind(new.csrf_token)
    .bind(new.created_at_ms)
    .bind(new.expires_at_ms)
    .bind(new.user_agent)
    .bind(new.ip)
    .execute(&mut *connection)
    .await?;
    // Sessions end and are forgotten, and a free plan goes by this (F-26).
    sqlx::query("UPDATE users SET last_seen_at_ms = $1 WHERE id = $2")
        .bind(new.created_at_ms)
        .bind(new.user.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends the session of a token.
pub async fn close_session(db: impl AnyExecutor<'_>, token_hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
        .bind(token_hash)
        .execute(db)
        .await?;
    Ok(())
}

/// When a session began, was last used, and ends at the latest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionTimes {
    pub created_at_ms: i64,
    pub last_seen_at_ms: i64,
    pub expires_at_ms: i64,
}

fn times_in(row: &AnyRow) -> Result<SessionTimes, sqlx::Error> {
    Ok(SessionTimes {
        created_at_ms: row.try_get("created_at_ms")?,
        last_seen_at_ms: row.try_get("last_seen_at_ms")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
    })
}

/// A session of a user who may sign in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSession {
    pub name: String,
    pub times: SessionTimes,
    pub role: Role,
    pub ip: String,
    pub user_agent: String,
}

/// The stored sessions of a user, the one used last first; none of one who is disabled.
pub async fn sessions_of(db: impl AnyExecutor<'_>, user: UserId) -> Result<Vec<StoredSession>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT s.token_hash, s.created_at_ms, s.last_seen_at_ms, s.expires_at_ms, s.ip, s.user_agent, u.role \
         FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.user_id = $1 AND u.disabled_at_ms IS NULL \
         ORDER BY s.last_seen_at_ms DESC, s.token_hash",
    )
    .bind(user.0)
    .fetch_all(db)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<StoredSession, sqlx::Error> {
    Ok(StoredSession {
        name: session_name(&row.try_get::<String, _>("token_hash")?),
        times: times_in(row)?,
        role: role_in(row)?,
        ip: row.try_get("ip")?,
        user_agent: row.try_get("user_agent")?,
    })
}

/// Whose a session is, with what every page of theirs shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionUser {
    pub user: User,
    pub csrf_token: String,
    pub times: SessionTimes,
    /// Notifications of the user's customer that nobody has read.
    pub unread: i64,
    /// Billing is stopped, because the clock moved further than it can have.
    pub billing_stopped: bool,
}

/// Whose the session with this hash of its token is, while it is not over and the user is not disabled. One statement, because
/// every request asks it.
pub async fn session_user(
    db: impl AnyExecutor<'_>,
    token_hash: &str,
    now_ms: i64,
) -> Result<Option<SessionUser>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT s.csrf_token, s.created_at_ms, s.last_seen_at_ms, s.expires_at_ms, u.id, u.email, u.name, u.role, u.customer_id, \
         (SELECT count(*) FROM notifications n WHERE n.customer_id = u.customer_id AND n.read_at_ms IS NULL) AS unread, \
         (SELECT count(*) FROM billing_clock b WHERE b.stopped_at_ms IS NOT NULL) AS stopped \
         FROM sessions s JOIN users u ON u.id = s.user_id \
         WHERE s.token_hash = $1 AND s.expires_at_ms > $2 AND u.disabled_at_ms IS NULL",
    )
    .bind(token_hash)
    .bind(now_ms)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(SessionUser {
        user: User {
            id: UserId(row.try_get("id")?),
            email: row.try_get("email")?,
            name: row.try_get("name")?,
            role: role_in(&row)?,
            customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
            disabled_at_ms: None,
        },
        csrf_token: row.try_get("csrf_token")?,
        times: times_in(&row)?,
        unread: row.try_get("unread")?,
        billing_stopped: row.try_get::<i64, _>("stopped")? > 0,
    }))
}

/// Notes when a session was last used; never an earlier instant than is known.
pub async fn note_session_used(
    connection: &mut AnyConnection,
    token_hash: &str,
    seen_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sessions SET last_seen_at_ms = $1 WHERE token_hash = $2 AND last_seen_at_ms < $1")
        .bind(seen_ms)
        .bind(token_hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether a user has the session of this name.
pub async fn has_session(connection: &mut AnyConnection, user: UserId, name: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM sessions WHERE user_id = $1 AND substr(token_hash, 1, 16) = $2")
        .bind(user.0)
        .bind(name)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Which sessions of a user to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionsToEnd<'a> {
    All,
    /// All but the one of this name.
    AllBut(&'a str),
    One(&'a str),
}

/// Ends sessions of a user, and with more than one of them the sign-ins that wait for a code; how many sessions.
pub async fn end_sessions(
    connection: &mut AnyConnection,
    user: UserId,
    ending: SessionsToEnd<'_>,
) -> Result<u64, sqlx::Error> {
    let (sql, name) = match ending {
        SessionsToEnd::All => ("DELETE FROM sessions WHERE user_id = $1 AND $2 = ''", ""),
        SessionsToEnd::AllBut(name) => (
            "DELETE FROM sessions WHERE user_id = $1 AND substr(token_hash, 1, 16) <> $2",
            name,
        ),
        SessionsToEnd::One(name) => (
            "DELETE FROM sessions WHERE user_id = $1 AND substr(token_hash, 1, 16) = $2",
            name,
        ),
    };
    let ended = sqlx::query(sql)
        .bind(user.0)
        .bind(name)
        .execute(&mut *connection)
        .await?;
    if !matches!(ending, SessionsToEnd::One(_)) {
        sqlx::query("DELETE FROM sign_ins WHERE user_id = $1")
            .bind(user.0)
            .execute(connection)
            .await?;
    }
    Ok(ended.rows_affected())
}

/// Ends the sessions of a user but the one with this hash of its token.
pub async fn end_sessions_without(
    connection: &mut AnyConnection,
    user: UserId,
    token_hash: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND token_hash <> $2")
        .bind(user.0)
        .bind(token_hash)
        .execute(connection)
        .await?;
    Ok(())
}
