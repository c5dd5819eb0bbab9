//! Browsers that have signed a user in: the hash of a random token beside the user. One browser may know several users.

use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::normalised_email;
use crate::ids::UserId;
use crate::window::DAY_MS;

/// How long a browser is known after it last signed the user in.
pub const DEVICE_KNOWN_MS: i64 = 180 * DAY_MS;

/// Whether the browser with this hash of its token has signed in the user with this email.
pub async fn is_known_device(
    db: impl AnyExecutor<'_>,
    token_hash: &str,
    email: &str,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(
        "SELECT 1 FROM known_devices d JOIN users u ON u.id = d.user_id \
         WHERE d.token_hash = $1 AND u.email = $2 AND d.used_at_ms > $3",
    )
    .bind(token_hash)
    .bind(normalised_email(email))
    .bind(now_ms - DEVICE_KNOWN_MS)
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// Notes that a browser has shown to be the user's, under a new token in place of the one it had before. Beyond `most` of one
/// user, the one that signed them in longest ago is forgotten.
pub async fn remember_device(
    connection: &mut AnyConnection,
    user: UserId,
    token_hash: &str,
    before: Option<&str>,
    now_ms: i64,
    most: i64,
) -> Result<(), sqlx::Error> {
    if let Some(before) = before {
        // Two users may share a browser.
        sqlx::query("UPDATE known_devices SET token_hash = $1 WHERE token_hash = $2")
            .bind(token_hash)
            .bind(before)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "INSERT INTO known_devices (token_hash, user_id, used_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (token_hash, user_id) DO UPDATE SET used_at_ms = $3",
    )
    .bind(token_hash)
    .bind(user.0)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let oldest = sqlx::query(
        "SELECT token_hash FROM known_devices WHERE user_id = $1 ORDER BY used_at_ms DESC, token_hash LIMIT 1 OFFSET $2",
    )
    .bind(user.0)
    .bind(most)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(oldest) = oldest {
        sqlx::query("DELETE FROM known_devices WHERE user_id = $1 AND token_hash = $2")
            .bind(user.0)
            .bind(oldest.try_get::<String, _>(0)?)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Forgets all browsers of a user.
pub async fn forget_devices(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM known_devices WHERE user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}
