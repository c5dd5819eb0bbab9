//! Sign-ins that wait for a second factor: the password was right, and a code is asked for.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Role, role_in};
use crate::ids::UserId;

/// Who gave the right password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingSignIn {
    pub user: UserId,
    pub email: String,
    pub role: Role,
}

fn read(row: &AnyRow) -> Result<PendingSignIn, sqlx::Error> {
    Ok(PendingSignIn {
        user: UserId(row.try_get("id")?),
        email: row.try_get("email")?,
        role: role_in(row)?,
    })
}

/// Notes that a user owes the second factor until `expires_at_ms`. All that are over go, and of the user's the oldest, so that with
/// it they have at most `most`.
pub async fn open_sign_in(
    connection: &mut AnyConnection,
    user: UserId,
    token_hash: &str,
    (now_ms, expires_at_ms): (i64, i64),
    most: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sign_ins WHERE expires_at_ms <= $1")
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM sign_ins WHERE user_id = $1 AND token_hash NOT IN \
         (SELECT token_hash FROM sign_ins WHERE user_id = $1 ORDER BY expires_at_ms DESC, token_hash LIMIT $2)",
    )
    .bind(user.0)
    .bind(most - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO sign_ins (token_hash, user_id, attempts, expires_at_ms) VALUES ($1, $2, 0, $3)")
        .bind(token_hash)
        .bind(user.0)
        .bind(expires_at_ms)
        .execute(connection)
        .await?;
    Ok(())
}

/// Who owes the second factor, while there is time and one of `max_attempts` codes left.
pub async fn pending_sign_in(
    db: impl AnyExecutor<'_>,
    token_hash: &str,
    now_ms: i64,
    max_attempts: i64,
) -> Result<Option<PendingSignIn>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT u.id, u.email, u.role FROM sign_ins s JOIN users u ON u.id = s.user_id \
         WHERE s.token_hash = $1 AND s.expires_at_ms > $2 AND s.attempts < $3 \
         AND u.disabled_at_ms IS NULL AND u.two_factor_at_ms IS NOT NULL",
    )
    .bind(token_hash)
    .bind(now_ms)
    .bind(max_attempts)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Who owes it, in the transaction that signs them in: they stay as they are until it ends.
pub async fn hold_sign_in(
    connection: &mut AnyConnection,
    token_hash: &str,
    now_ms: i64,
) -> Result<Option<PendingSignIn>, sqlx::Error> {
    let row = sqlx::query(
        "UPDATE users SET last_seen_at_ms = last_seen_at_ms \
         WHERE id = (SELECT user_id FROM sign_ins WHERE token_hash = $1 AND expires_at_ms > $2) \
         AND disabled_at_ms IS NULL AND two_factor_at_ms IS NOT NULL RETURNING id, email, role",
    )
    .bind(token_hash)
    .bind(now_ms)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Takes one try before it is made, so that parallel guesses count too; false where none is left.
pub async fn take_code_attempt(
    db: impl AnyExecutor<'_>,
    token_hash: &str,
    now_ms: i64,
    max_attempts: i64,
) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query(
        "UPDATE sign_ins SET attempts = attempts + 1 WHERE token_hash = $1 AND expires_at_ms > $2 AND attempts < $3",
    )
    .bind(token_hash)
    .bind(now_ms)
    .bind(max_attempts)
    .execute(db)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// It is over; false where it was over already.
pub async fn close_sign_in(connection: &mut AnyConnection, token_hash: &str) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query("DELETE FROM sign_ins WHERE token_hash = $1")
        .bind(token_hash)
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected() == 1)
}
