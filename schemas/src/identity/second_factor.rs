//! Second factors: the sealed secret of an authenticator app and hashes of recovery codes.
//!
//! `two_factor_at_ms` says since when a second factor is asked for; a secret without it waits to be confirmed by a code.

use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::db::next_ids;
use crate::ids::{CustomerId, UserId};

/// How far a user is with a second factor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSecondFactor {
    /// Since when it is asked for.
    pub since_ms: Option<i64>,
    /// Sealed.
    pub secret: Option<String>,
    /// Recovery codes that are left.
    pub recovery_codes: i64,
}

/// How far a user is.
///
/// # Errors
/// [`sqlx::Error::RowNotFound`] where there is no such user.
pub async fn second_factor(db: impl AnyExecutor<'_>, user: UserId) -> Result<StoredSecondFactor, sqlx::Error> {
    let row = sqlx::query(
        "SELECT two_factor_at_ms, two_factor_secret, \
         (SELECT count(*) FROM recovery_codes r WHERE r.user_id = u.id) AS recovery_codes FROM users u WHERE id = $1",
    )
    .bind(user.0)
    .fetch_one(db)
    .await?;
    Ok(StoredSecondFactor {
        since_ms: row.try_get("two_factor_at_ms")?,
        secret: row.try_get("two_factor_secret")?,
        recovery_codes: row.try_get("recovery_codes")?,
    })
}

/// Keeps a new sealed secret, to be confirmed; nothing where the second factor is on.
pub async fn put_pending_secret(connection: &mut AnyConnection, user: UserId, sealed: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE users SET two_factor_secret = $1, two_factor_step = 0 WHERE id = $2 AND two_factor_at_ms IS NULL",
    )
    .bind(sealed)
    .bind(user.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets a secret that was not confirmed; whether there was one.
pub async fn cancel_second_factor(connection: &mut AnyConnection, user: UserId) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE users SET two_factor_secret = NULL WHERE id = $1 AND two_factor_at_ms IS NULL \
               AND two_factor_secret IS NOT NULL";
    let forgotten = sqlx::query(sql).bind(user.0).execute(connection).await?;
    Ok(forgotten.rows_affected() > 0)
}

/// The sealed secret that waits to be confirmed.
pub async fn pending_secret(connection: &mut AnyConnection, user: UserId) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT two_factor_secret FROM users WHERE id = $1 AND two_factor_at_ms IS NULL")
        .bind(user.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
}

/// The sealed secret that codes are checked by.
pub async fn confirmed_secret(connection: &mut AnyConnection, user: UserId) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT two_factor_secret FROM users WHERE id = $1 AND two_factor_at_ms IS NOT NULL")
        .bind(user.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
}

/// Turns it on by a code of the time step `step`; false where it is on, or the secret is another by now.
pub async fn turn_on_second_factor(
    connection: &mut AnyConnection,
    user: UserId,
    sealed: &str,
    step: i64,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let turned_on = sqlx::query(
        "UPDATE users SET two_factor_at_ms = $1, two_factor_step = $2 \
         WHERE id = $3 AND two_factor_at_ms IS NULL AND two_factor_secret = $4",
    )
    .bind(now_ms)
    .bind(step)
    .bind(user.0)
    .bind(sealed)
    .execute(connection)
    .await?;
    Ok(turned_on.rows_affected() > 0)
}

/// Accepts a code by its time step, once: later than the last one accepted. False where it is not, or the secret is another.
pub async fn accept_code_step(
    connection: &mut AnyConnection,
    user: UserId,
    sealed: &str,
    step: i64,
) -> Result<bool, sqlx::Error> {
    let accepted = sqlx::query(
        "UPDATE users SET two_factor_step = $1 \
         WHERE id = $2 AND two_factor_step < $1 AND two_factor_secret = $3 AND two_factor_at_ms IS NOT NULL",
    )
    .bind(step)
    .bind(user.0)
    .bind(sealed)
    .execute(connection)
    .await?;
    Ok(accepted.rows_affected() == 1)
}

/// Uses a recovery code up; false where it is none of the user's, or the second factor is off.
pub async fn use_recovery_code(
    connection: &mut AnyConnection,
    user: UserId,
    code_hash: &str,
) -> Result<bool, sqlx::Error> {
    let used = sqlx::query(
        "DELETE FROM recovery_codes WHERE code_hash = $1 AND user_id = $2 \
         AND EXISTS (SELECT 1 FROM users WHERE id = $2 AND two_factor_at_ms IS NOT NULL)",
    )
    .bind(code_hash)
    .bind(user.0)
    .execute(connection)
    .await?;
    Ok(used.rows_affected() == 1)
}

/// Recovery codes in place of all there were.
pub async fn replace_recovery_codes(
    connection: &mut AnyConnection,
    user: UserId,
    code_hashes: &[String],
) -> Result<(), sqlx::Error> {
    // Two who ask at once take turns, so that nobody ends with more than there should be.
    next_ids(&mut *connection, "recovery_codes", 0).await?;
    forget_recovery_codes(&mut *connection, user).await?;
    for code_hash in code_hashes {
        sqlx::query("INSERT INTO recovery_codes (code_hash, user_id) VALUES ($1, $2)")
            .bind(code_hash)
            .bind(user.0)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn forget_recovery_codes(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Turns it off and forgets secret and recovery codes.
pub async fn turn_off_second_factor(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET two_factor_at_ms = NULL, two_factor_secret = NULL WHERE id = $1")
        .bind(user.0)
        .execute(&mut *connection)
        .await?;
    forget_recovery_codes(connection, user).await
}

/// How many users of a customer who may sign in have a second factor.
pub async fn users_with_second_factor(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> Result<i64, sqlx::Error> {
    let row = sqlx::query(
        "SELECT count(*) FROM users WHERE customer_id = $1 AND disabled_at_ms IS NULL AND two_factor_at_ms IS NOT NULL",
    )
    .bind(customer.0)
    .fetch_one(connection)
    .await?;
    row.try_get(0)
}
