//! Passwords: argon2id with the library's defaults (19 MiB, 2 passes), never more than a few at one time ([`PasswordPlace`]).
//!
//! * Checking takes the same work whether or not the user exists: an unknown email is checked against a hash that nobody's
//!   password gives.
//! * What is taken as a password follows NIST SP 800-63B-4 §3.1.1.2: 15 characters at least, as it may be all that signs
//!   somebody in, any characters, no rules of what it is made of, and none that is guessed first.

use std::sync::LazyLock;

use argon2::{Argon2, PasswordHash, PasswordHasher as _, PasswordVerifier as _};

use super::guessable::is_guessable;
use crate::sign_in::PasswordPlace;

/// Shortest password that is taken.
pub const MIN_PASSWORD_CHARS: usize = 15;
/// Longest password that is hashed, in bytes.
const MAX_PASSWORD_BYTES: usize = 1024;

/// Why a password was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("a password has at least {MIN_PASSWORD_CHARS} characters")]
    TooShort,
    #[error("a password has at most {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    #[error(
        "this one is easy to guess: it is made of common passwords, names, rows of keys or repetitions; choose three or more \
         unrelated words"
    )]
    Guessable,
    #[error("hash the password: {0}")]
    Hash(String),
}

schemas::error_codes! {
    PasswordError: "password";
    of []
    source []
    Refused: TooShort = "too_short", TooLong = "too_long", Guessable = "guessable";
    Fault: Hash = "hash";
}

/// Checks the policy for the user with this email and name.
fn check_policy(password: &str, email: &str, name: &str) -> Result<(), PasswordError> {
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Err(PasswordError::TooShort);
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::TooLong);
    }
    if is_guessable(password, email, name) {
        return Err(PasswordError::Guessable);
    }
    Ok(())
}

/// The hash of a password that the policy takes.
#[derive(Clone)]
pub(crate) struct NewHash(String);

impl std::fmt::Debug for NewHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewHash(…)")
    }
}

impl NewHash {
    /// Checks and hashes the password of the user with this email and name. Whose request it is holds a place meanwhile; the
    /// command line needs none.
    pub(crate) async fn of(password: &str, email: &str, name: &str) -> Result<NewHash, PasswordError> {
        check_policy(password, email, name)?;
        Ok(NewHash(hash(password).await?))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Hashes on a thread of its own; the result is a PHC string (`$argon2id$…`).
async fn hash(password: &str) -> Result<String, PasswordError> {
    let password = password.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        Argon2::default()
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
    });
    match hashed.await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(PasswordError::Hash(error.to_string())),
        Err(error) => Err(PasswordError::Hash(error.to_string())),
    }
}

/// A hash for users that do not exist, of a random password.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| {
    Argon2::default()
        .hash_password(super::random_token().as_bytes())
        .map(|hash| hash.to_string())
        .ok()
});

/// Makes the hash that stands for users that do not exist: the first of them is not to take longer than the others.
pub(crate) fn prepare() {
    LazyLock::force(&NOBODY);
}

/// True when `password` belongs to `stored`. Without a stored hash it takes as long and is false.
/// The place is free again when the work is done, also where nobody waits for the answer any more.
pub(crate) async fn verify(place: PasswordPlace, password: String, stored: Option<String>) -> bool {
    if password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    let checked = tokio::task::spawn_blocking(move || {
        let _place = place;
        let known = stored.is_some();
        let Some(hash) = stored.or_else(|| NOBODY.clone()) else {
            return false;
        };
        let Ok(hash) = PasswordHash::new(&hash) else {
            return false;
        };
        let matches = Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
        known && matches
    });
    checked.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign_in::{AttemptSource, PasswordLanes};

    #[test]
    fn the_policy_refuses_what_is_short_or_guessed_first() {
        let check = |password: &str| check_policy(password, "someone@example.net", "Someone");
        assert!(check("correct horse battery").is_ok());
        assert!(check("ünïcödé wörds ß").is_ok());
        assert!(matches!(check("fourteen-chars"), Err(PasswordError::TooShort)));
        assert!(matches!(check("aaaaaaaaaaaaaaaa"), Err(PasswordError::Guessable)));
        assert!(matches!(check("Someone@example.net"), Err(PasswordError::Guessable)));
        assert!(matches!(check(&"ab".repeat(600)), Err(PasswordError::TooLong)));
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_right() {
        let lanes = PasswordLanes::default();
        let stored = hash("correct horse").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let check = async |password: &str, stored: Option<String>| {
            let place = lanes
                .enter(AttemptSource::Known("device"), "ada@example.net")
                .await
                .unwrap();
            verify(place, password.to_owned(), stored).await
        };
        assert!(check("correct horse", Some(stored.clone())).await);
        assert!(!check("correct house", Some(stored)).await);
        assert!(!check("correct horse", None).await);
        assert!(!check("correct horse", Some("not a hash".to_owned())).await);
    }
}
