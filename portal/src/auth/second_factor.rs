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

use schemas::db::Database;
use schemas::identity::{self, SessionsToEnd};
use schemas::ids::UserId;
use schemas::secret::{SecretError, TWO_FACTOR, Vault};
use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;

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
pub(crate) enum SecondFactorMethod {
    App,
    RecoveryCode,
}

/// How far a user is.
pub(crate) async fn second_factor_of(db: &Database, user: UserId) -> Result<SecondFactor, SecretError> {
    let stored = identity::second_factor(db.pool(), user).await?;
    Ok(match (stored.since_ms, stored.secret) {
        (Some(since_ms), _) => SecondFactor::On {
            since_ms,
            recovery_codes: stored.recovery_codes,
        },
        (None, Some(sealed)) => match opened(db.vault(), user, &sealed)? {
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
    identity::put_pending_secret(connection, user, &sealed).await?;
    Ok(())
}

/// Forgets a secret that was not confirmed; whether there was one.
pub(crate) async fn cancel(connection: &mut AnyConnection, user: UserId) -> Result<bool, sqlx::Error> {
    identity::cancel_second_factor(connection, user).await
}

/// Turns it on by a code of the pending secret, and answers the recovery codes; `None` where the code is not right. Sessions
/// that were opened without a second factor end, but for the one with this token, and so do API tokens.
pub(crate) async fn confirm(
    connection: &mut AnyConnection,
    vault: &Vault,
    user: UserId,
    typed: &str,
    session_token: &str,
    now_ms: i64,
) -> Result<Option<Vec<String>>, SecretError> {
    let Some(stored) = identity::pending_secret(&mut *connection, user).await? else {
        return Ok(None);
    };
    let secret = opened(vault, user, &stored)?;
    let step = secret.and_then(|secret| secret.step_of(&compact(typed), now_ms));
    let Some(step) = step else { return Ok(None) };
    if !identity::turn_on_second_factor(&mut *connection, user, &stored, step, now_ms).await? {
        return Ok(None);
    }
    let token_hash = super::session::token_hash(session_token);
    identity::end_sessions_without(&mut *connection, user, &token_hash).await?;
    identity::end_tokens(&mut *connection, user).await?;
    Ok(Some(new_recovery_codes(connection, user).await?))
}

/// Accepts a code of the app or a recovery code, once; `None` where it is neither, or was used.
pub(crate) async fn accept(
    connection: &mut AnyConnection,
    vault: &Vault,
    user: UserId,
    typed: &str,
    now_ms: i64,
) -> Result<Option<SecondFactorMethod>, SecretError> {
    let code = compact(typed);
    if code.len() == RECOVERY_CHARS {
        let is_used = identity::use_recovery_code(connection, user, &recovery_hash(user, &code)).await?;
        return Ok(is_used.then_some(SecondFactorMethod::RecoveryCode));
    }
    let Some(stored) = identity::confirmed_secret(&mut *connection, user).await? else {
        return Ok(None);
    };
    let secret = opened(vault, user, &stored)?;
    let Some(step) = secret.and_then(|secret| secret.step_of(&code, now_ms)) else {
        return Ok(None);
    };
    let is_accepted = identity::accept_code_step(connection, user, &stored, step).await?;
    Ok(is_accepted.then_some(SecondFactorMethod::App))
}

/// Recovery codes in place of all there were; shown once.
pub(crate) async fn new_recovery_codes(
    connection: &mut AnyConnection,
    user: UserId,
) -> Result<Vec<String>, sqlx::Error> {
    let codes: Vec<String> = (0..RECOVERY_CODES)
        .map(|_| base32(&rand::random::<[u8; RECOVERY_BYTES]>()))
        .collect();
    let hashes: Vec<String> = codes.iter().map(|code| recovery_hash(user, code)).collect();
    identity::replace_recovery_codes(connection, user, &hashes).await?;
    Ok(codes.iter().map(|code| grouped(code)).collect())
}

/// Turns off the second factor of who lost it, and ends every session and token of theirs; since when it was on, where it was.
pub(super) async fn reset(connection: &mut AnyConnection, user: UserId) -> Result<Option<i64>, sqlx::Error> {
    let since_ms = identity::second_factor(&mut *connection, user).await?.since_ms;
    if since_ms.is_some() {
        identity::turn_off_second_factor(&mut *connection, user).await?;
        identity::end_tokens(&mut *connection, user).await?;
        identity::end_sessions(connection, user, SessionsToEnd::All).await?;
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
