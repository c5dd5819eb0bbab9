//! Tokens by which a user proves who they are where no browser is, by the hash of the token. They end with whatever ends a user's
//! sessions: another password, another role, being disabled.

use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::User;
use super::user::user;
use crate::db::next_id;
use crate::ids::{TokenId, UserId};

/// Days that a token is valid at most.
pub const TOKEN_DAYS_MAX: i64 = 366;
/// Tokens that one user has at most.
pub const TOKENS_PER_USER_MAX: i64 = 50;

/// A token to be stored.
#[derive(Clone, Copy)]
pub struct NewToken<'a> {
    pub user: UserId,
    /// What it is for, as its user names it.
    pub name: &'a str,
    /// SHA-256, hex.
    pub token_hash: &'a str,
    pub expires_at_ms: i64,
}

impl std::fmt::Debug for NewToken<'_> {
    /// Without the hash.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken")
            .field("user", &self.user)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A token as it is listed; what opens with it is not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredToken {
    pub id: TokenId,
    pub name: String,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    pub last_used_at_ms: Option<i64>,
}

/// A token that was shown, with whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenHolder {
    pub token: TokenId,
    pub user: User,
    pub last_used_at_ms: Option<i64>,
}

/// Keeps a token, and forgets those that are over; `None` where its user has as many as one may have.
pub async fn add_token(
    connection: &mut AnyConnection,
    new: NewToken<'_>,
    now_ms: i64,
) -> Result<Option<TokenId>, sqlx::Error> {
    sqlx::query("DELETE FROM user_tokens WHERE expires_at_ms <= $1")
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    let tokens: i64 = sqlx::query_scalar("SELECT count(*) FROM user_tokens WHERE user_id = $1")
        .bind(new.user.0)
        .fetch_one(&mut *connection)
        .await?;
    if tokens >= TOKENS_PER_USER_MAX {
        return Ok(None);
    }
    let id = TokenId(next_id(&mut *connection, "user_token").await?);
    sqlx::query(
        "INSERT INTO user_tokens (id, user_id, name, token_hash, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id.0)
    .bind(new.user.0)
    .bind(new.name)
    .bind(new.token_hash)
    .bind(now_ms)
    .bind(new.expires_at_ms)
    .execute(connection)
    .await?;
    Ok(Some(id))
}

/// Whose token this is; `None` where it is too old or was revoked, or its user is disabled.
pub async fn token_holder(
    connection: &mut AnyConnection,
    token_hash: &str,
    now_ms: i64,
) -> Result<Option<TokenHolder>, sqlx::Error> {
    let sql = "SELECT id, user_id, last_used_at_ms FROM user_tokens WHERE token_hash = $1 AND expires_at_ms > $2";
    let row = sqlx::query(sql)
        .bind(token_hash)
        .bind(now_ms)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (token, last_used_at_ms) = (TokenId(row.try_get(0)?), row.try_get(2)?);
    let found = user(connection, UserId(row.try_get(1)?)).await?;
    Ok(found
        .filter(|user| user.disabled_at_ms.is_none())
        .map(|user| TokenHolder {
            token,
            user,
            last_used_at_ms,
        }))
}

/// Notes that a token was used.
pub async fn note_token_used(connection: &mut AnyConnection, token: TokenId, now_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE user_tokens SET last_used_at_ms = $1 WHERE id = $2 AND coalesce(last_used_at_ms, 0) < $1")
        .bind(now_ms)
        .bind(token.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// The tokens of a user, oldest first.
pub async fn tokens_of(db: impl AnyExecutor<'_>, user: UserId) -> Result<Vec<StoredToken>, sqlx::Error> {
    let sql = "SELECT id, name, created_at_ms, expires_at_ms, last_used_at_ms FROM user_tokens WHERE user_id = $1 ORDER BY id";
    let rows = sqlx::query(sql).bind(user.0).fetch_all(db).await?;
    let read = |row: &sqlx::any::AnyRow| {
        Ok(StoredToken {
            id: TokenId(row.try_get(0)?),
            name: row.try_get(1)?,
            created_at_ms: row.try_get(2)?,
            expires_at_ms: row.try_get(3)?,
            last_used_at_ms: row.try_get(4)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Revokes a token; whose it was and what it was named, `None` where there is none.
pub async fn remove_token(
    connection: &mut AnyConnection,
    token: TokenId,
) -> Result<Option<(UserId, String)>, sqlx::Error> {
    let row = sqlx::query("DELETE FROM user_tokens WHERE id = $1 RETURNING user_id, name")
        .bind(token.0)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((UserId(row.try_get(0)?), row.try_get(1)?)))
        .transpose()
}

/// Revokes every token of a user; how many there were.
pub async fn end_tokens(connection: &mut AnyConnection, user: UserId) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query("DELETE FROM user_tokens WHERE user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(ended.rows_affected())
}
