//! Links that were mailed to set a new password, by the hash of their token.

use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::ids::UserId;

/// Keeps a link, and forgets those that are over; false where the user is disabled or has another address by now.
pub async fn add_password_link(
    connection: &mut AnyConnection,
    user: UserId,
    address: &str,
    token_hash: &str,
    (now_ms, expires_at_ms): (i64, i64),
) -> Result<bool, sqlx::Error> {
    sqlx::query("DELETE FROM password_resets WHERE expires_at_ms <= $1")
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    let issued = sqlx::query(
        "INSERT INTO password_resets (token_hash, user_id, expires_at_ms) \
         SELECT $1, id, $2 FROM users WHERE id = $3 AND email = $4 AND disabled_at_ms IS NULL",
    )
    .bind(token_hash)
    .bind(expires_at_ms)
    .bind(user.0)
    .bind(address)
    .execute(connection)
    .await?;
    Ok(issued.rows_affected() == 1)
}

/// Whose password a link sets; `None` where it is too old or was used, or the user is disabled. Nothing is changed by looking.
pub async fn password_link_user(
    db: impl AnyExecutor<'_>,
    token_hash: &str,
    now_ms: i64,
) -> Result<Option<UserId>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT u.id FROM password_resets r JOIN users u ON u.id = r.user_id \
         WHERE r.token_hash = $1 AND r.expires_at_ms > $2 AND u.disabled_at_ms IS NULL",
    )
    .bind(token_hash)
    .bind(now_ms)
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(UserId))
}

/// Uses a link up; false where somebody else was quicker.
pub async fn take_password_link(connection: &mut AnyConnection, token_hash: &str) -> Result<bool, sqlx::Error> {
    let used = sqlx::query("DELETE FROM password_resets WHERE token_hash = $1")
        .bind(token_hash)
        .execute(connection)
        .await?;
    Ok(used.rows_affected() > 0)
}

/// Voids all links of a user.
pub async fn void_password_links(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM password_resets WHERE user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}
