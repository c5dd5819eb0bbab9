//! A second factor: the code of an app, or one of ten recovery codes for who lost the app.
//!
//! ```text
//!        begin              confirm (a code)
//! off ──────────▶ pending ──────────────────▶ on ──turn off, reset──▶ off
//!     ◀──cancel──
//! ```
//!
//! * The secret is stored sealed, under the key file's key ([`schemas::secret`]): whoever checks a code needs it, whoever has
//!   the database alone does not get it. Recovery codes are stored as hashes and shown once.
//! * A code is accepted once: the step it belongs to must be later than the last one accepted, by compare-and-set. A recovery
//!   code is deleted as it is used.

use schemas::db::{Database, next_ids};
use schemas::ids::UserId;
use schemas::secret::{SecretError, TWO_FACTOR, Vault};
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, Row as _};

use super::hex;
pub(crate) use super::totp::Secret;
use super::totp::base32;

/// Recovery codes that a user gets.
pub(crate) const RECOVERY_CODES: usize = 10;
/// Bytes of one: 80 random bits, so that a hash without salt gives nothing away.
const RECOVERY_BYTES: usize = 10;
/// Characters of one, without its hyphens.
const RECOVERY_CHARS: usize = 16;

/// How far a user is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SecondFactor {
    Off,
    /// To be confirmed by a code.
    Pending(Secret),
    On {
        since_ms: i64,
        recovery_codes: i64,
    },
}

/// What was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    App,
    RecoveryCode,
}

/// How far a user is.
pub(crate) async fn second_factor_of(db: &Database, user: UserId) -> Result<SecondFactor, SecretError> {
    let row = sqlx::query(
        "SELECT two_factor_at_ms, two_factor_secret, \
         (SELECT count(*) FROM recovery_codes r WHERE r.user_id = u.id) AS recovery_codes FROM users u WHERE id = $1",
    )
    .bind(user.0)
    .fetch_one(db.pool())
    .await?;
    let since_ms: Option<i64> = row.try_get("two_factor_at_ms")?;
    let stored: Option<String> = row.try_get("two_factor_secret")?;
    Ok(match (since_ms, stored) {
        (Some(since_ms), _) => SecondFactor::On {
            since_ms,
            recovery_codes: row.try_get("recovery_codes")?,
        },
        (None, Some(stored)) => match opened(db.vault(), user, &stored)? {
            Some(secret) => SecondFactor::Pending(secret),
            None => SecondFactor::Off,
        },
        (None, None) => SecondFactor::Off,
    })
}

/// The secret of a user, as stored.
fn opened(vault: &Vault, user: UserId, stored: &str) -> Result<Option<Secret>, SecretError> {
    let plain = vault.open(TWO_FACTOR, user.0, stored)?;
    Ok(Secret::stored(plain.reveal()))
}

/// Makes a new secret, to be confirmed; nothing where the second factor is on.
pub(crate) async fn begin(connection: &mut AnyConnection, vault: &Vault, user: UserId) -> Result<(), SecretError> {
    let secret = Secret::random();
    let sealed = vault.seal(&mut *connection, TWO_FACTOR, user.0, &secret.text()).await?;
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
pub(crate) async fn cancel(connection: &mut AnyConnection, user: UserId) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE users SET two_factor_secret = NULL WHERE id = $1 AND two_factor_at_ms IS NULL \
               AND two_factor_secret IS NOT NULL";
    let forgotten = sqlx::query(sql).bind(user.0).execute(connection).await?;
    Ok(forgotten.rows_affected() > 0)
}

/// Turns it on by a code of the pending secret, and answers the recovery codes; `None` where the code is not right. Sessions
/// that were opened without a second factor end, but for the one with this token.
pub(crate) async fn confirm(
    connection: &mut AnyConnection,
    vault: &Vault,
    user: UserId,
    typed: &str,
    session_token: &str,
    now_ms: i64,
) -> Result<Option<Vec<String>>, SecretError> {
    let row = sqlx::query("SELECT two_factor_secret FROM users WHERE id = $1 AND two_factor_at_ms IS NULL")
        .bind(user.0)
        .fetch_optional(&mut *connection)
        .await?;
    let stored: Option<String> = row.map(|row| row.try_get(0)).transpose()?.flatten();
    let Some(stored) = stored else { return Ok(None) };
    let secret = opened(vault, user, &stored)?;
    let step = secret.and_then(|secret| secret.step_of(&compact(typed), now_ms));
    let Some(step) = step else { return Ok(None) };
    let turned_on = sqlx::query(
        "UPDATE users SET two_factor_at_ms = $1, two_factor_step = $2 \
         WHERE id = $3 AND two_factor_at_ms IS NULL AND two_factor_secret = $4",
    )
    .bind(now_ms)
    .bind(step)
    .bind(user.0)
    .bind(&stored)
    .execute(&mut *connection)
    .await?;
    if turned_on.rows_affected() == 0 {
        return Ok(None);
    }
    sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND token_hash <> $2")
        .bind(user.0)
        .bind(super::session::token_hash(session_token))
        .execute(&mut *connection)
        .await?;
    Ok(Some(new_recovery_codes(connection, user).await?))
}

/// Accepts a code of the app or a recovery code, once; `None` where it is neither, or was used.
pub(crate) async fn accept(
    connection: &mut AnyConnection,
    vault: &Vault,
    user: UserId,
    typed: &str,
    now_ms: i64,
) -> Result<Option<Means>, SecretError> {
    let code = compact(typed);
    if code.len() == RECOVERY_CHARS {
        let used = sqlx::query(
            "DELETE FROM recovery_codes WHERE code_hash = $1 AND user_id = $2 \
             AND EXISTS (SELECT 1 FROM users WHERE id = $2 AND two_factor_at_ms IS NOT NULL)",
        )
        .bind(recovery_hash(user, &code))
        .bind(user.0)
        .execute(connection)
        .await?;
        return Ok((used.rows_affected() == 1).then_some(Means::RecoveryCode));
    }
    let row = sqlx::query("SELECT two_factor_secret FROM users WHERE id = $1 AND two_factor_at_ms IS NOT NULL")
        .bind(user.0)
        .fetch_optional(&mut *connection)
        .await?;
    let stored: Option<String> = row.map(|row| row.try_get(0)).transpose()?.flatten();
    let Some(stored) = stored else { return Ok(None) };
    let secret = opened(vault, user, &stored)?;
    let Some(step) = secret.and_then(|secret| secret.step_of(&code, now_ms)) else {
        return Ok(None);
    };
    let accepted = sqlx::query(
        "UPDATE users SET two_factor_step = $1 \
         WHERE id = $2 AND two_factor_step < $1 AND two_factor_secret = $3 AND two_factor_at_ms IS NOT NULL",
    )
    .bind(step)
    .bind(user.0)
    .bind(stored)
    .execute(connection)
    .await?;
    Ok((accepted.rows_affected() == 1).then_some(Means::App))
}

/// Recovery codes in place of all there were; shown once.
pub(crate) async fn new_recovery_codes(
    connection: &mut AnyConnection,
    user: UserId,
) -> Result<Vec<String>, sqlx::Error> {
    // Two who ask at once take turns, so that nobody ends with more than there should be.
    next_ids(&mut *connection, "recovery_codes", 0).await?;
    forget_recovery_codes(connection, user).await?;
    let mut codes = Vec::with_capacity(RECOVERY_CODES);
    for _ in 0..RECOVERY_CODES {
        let code = base32(&rand::random::<[u8; RECOVERY_BYTES]>());
        sqlx::query("INSERT INTO recovery_codes (code_hash, user_id) VALUES ($1, $2)")
            .bind(recovery_hash(user, &code))
            .bind(user.0)
            .execute(&mut *connection)
            .await?;
        codes.push(grouped(&code));
    }
    Ok(codes)
}

async fn forget_recovery_codes(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Turns it off and forgets secret and recovery codes.
pub(crate) async fn turn_off(connection: &mut AnyConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET two_factor_at_ms = NULL, two_factor_secret = NULL WHERE id = $1")
        .bind(user.0)
        .execute(&mut *connection)
        .await?;
    forget_recovery_codes(connection, user).await
}

/// Turns off the second factor of who lost it, and ends every session of theirs; since when it was on, where it was.
pub(super) async fn reset(connection: &mut AnyConnection, user: UserId) -> Result<Option<i64>, sqlx::Error> {
    let row = sqlx::query("SELECT two_factor_at_ms FROM users WHERE id = $1")
        .bind(user.0)
        .fetch_one(&mut *connection)
        .await?;
    let since_ms: Option<i64> = row.try_get("two_factor_at_ms")?;
    if since_ms.is_some() {
        turn_off(&mut *connection, user).await?;
        super::session::end(connection, user, super::session::Ending::All).await?;
    }
    Ok(since_ms)
}

/// As typed, without what people put between the parts.
fn compact(typed: &str) -> String {
    typed
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| c.to_ascii_uppercase())
        .collect()
}

/// In parts of four: `ABCD-EFGH-IJKL-MNOP`.
fn grouped(code: &str) -> String {
    let parts: Vec<&str> = (0..code.len())
        .step_by(4)
        .filter_map(|at| code.get(at..at + 4))
        .collect();
    parts.join("-")
}

fn recovery_hash(user: UserId, code: &str) -> String {
    hex(&Sha256::digest(format!("{user}:{code}").as_bytes()))
}
