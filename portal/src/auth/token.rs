//! API tokens: by them a program, or a person on the command line, proves who they are. A request of the API carries one as
//! `Authorization: Bearer ezs_…`; on the command line it shows who decides on an approval. It reads what its user can read, by
//! the API alone: pages are for sessions.
//!
//! A token is had by who knows the password, and the second factor where one is on. It is shown once, when it is made; its SHA-256
//! is stored. It ends with another password or role, a second factor that is turned on or reset, and when its user is disabled.

use activity::act::{Act, By, Note};
use axum::http::{HeaderMap, HeaderValue, header};
use schemas::db::Database;
use schemas::identity::{self, NewToken, StoredToken, TOKEN_DAYS_MAX, TokenHolder, User};
use schemas::ids::{TokenId, UserId};
use schemas::text::is_plain_text;
use schemas::window::DAY_MS;
use serde_json::json;
use sqlx::{AnyConnection, AnyExecutor};

use super::session::token_hash;
use super::users::UserError;
use super::{AttemptSource, PasswordLanes, notice, second_factor, verify_password};
use crate::sign_in::Used;
use crate::state::AppState;

/// What a token begins with, so that one that was left somewhere is found.
const PREFIX: &str = "ezs_";
/// Hexadecimal digits after it.
const TOKEN_DIGITS: usize = 64;
/// The scheme of `Authorization`.
const BEARER: &[u8] = b"bearer";
/// Characters of a token's name at most.
const MAX_NAME_CHARS: usize = 100;
/// The last use of a token is noted at most so often.
const TOUCH_INTERVAL_MS: i64 = 60_000;

/// By what a user proves who they are.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    pub password: &'a str,
    /// Of the authenticator app, or a recovery code; empty where no second factor is on.
    pub code: &'a str,
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(…)")
    }
}

/// What a token is to be.
#[derive(Clone, Copy, Debug)]
pub struct TokenTerms<'a> {
    /// What it is for.
    pub name: &'a str,
    /// How long it is valid.
    pub days: i64,
}

impl TokenTerms<'_> {
    fn check(&self) -> Result<(), UserError> {
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || !is_plain_text(name) {
            return Err(UserError::TokenName);
        }
        if !(1..=TOKEN_DAYS_MAX).contains(&self.days) {
            return Err(UserError::TokenDays(self.days));
        }
        Ok(())
    }
}

/// A token that was made. It is nowhere else.
pub(crate) struct MadeToken {
    pub(crate) id: TokenId,
    pub(crate) token: String,
    /// What its entry says.
    pub(crate) note: Note,
}

/// Makes a token for a user who proved who they are, and mails them that there is one. `ip`: from where, empty on the command
/// line.
///
/// # Errors
/// When the name or the days are out of range, or the user has as many as one may have.
pub(crate) async fn make_token(
    connection: &mut AnyConnection,
    user: &User,
    terms: TokenTerms<'_>,
    ip: &str,
    now_ms: i64,
) -> Result<MadeToken, UserError> {
    terms.check()?;
    let TokenTerms { name, days } = terms;
    let name = name.trim();
    let token = format!("{PREFIX}{}", super::random_token());
    let new = NewToken {
        user: user.id,
        name,
        token_hash: &token_hash(&token),
        expires_at_ms: now_ms + days * DAY_MS,
    };
    let id = identity::add_token(&mut *connection, new, now_ms).await?;
    let id = id.ok_or(UserError::TooManyTokens)?;
    notice::token_added(connection, user.id, name, ip, now_ms).await?;
    let note = Note::new("user.token_add", user.id)
        .change(json!({"after": {"token": id, "days": days}}))
        .personal(json!({"email": user.email, "name": name}));
    Ok(MadeToken { id, token, note })
}

/// Makes a token on the command line, and returns it: it is nowhere else.
///
/// # Errors
/// When password or code are not right, the user is disabled, the name or the days are out of range, or the user has as many as one
/// may have.
pub async fn issue_token(
    db: &Database,
    user: UserId,
    proof: Proof<'_>,
    terms: TokenTerms<'_>,
    by: By,
    now_ms: i64,
) -> Result<(TokenId, String), UserError> {
    terms.check()?;
    let found = identity::user(db.pool(), user).await?.ok_or(UserError::NoUser(user))?;
    if found.disabled_at_ms.is_some() {
        return Err(UserError::IsDisabled(found.email));
    }
    // Before the transaction: it takes a while.
    let stored = identity::password_hash(db.pool(), user).await?;
    let lanes = PasswordLanes::default();
    let place = lanes.enter(AttemptSource::Known("command line"), &found.email).await;
    let place = place.map_err(|_| UserError::NotProved(found.email.clone()))?;
    let hash = stored.clone().unwrap_or_default();
    let is_right = verify_password(place, proof.password.to_owned(), stored).await;
    let mut act = Act::begin(db, by, now_ms).await?;
    if !is_right || !identity::hold_by_password(act.connection(), user, &hash).await? {
        return Err(UserError::NotProved(found.email));
    }
    let factor = identity::second_factor(act.connection(), user).await?;
    if factor.since_ms.is_some() {
        let accepted = second_factor::accept(act.connection(), db.vault(), user, proof.code, now_ms).await?;
        if accepted.is_none() {
            return Err(UserError::NotProved(found.email));
        }
    }
    let made = make_token(act.connection(), &found, terms, "", now_ms).await?;
    act.commit(made.note).await?;
    Ok((made.id, made.token))
}

/// Whose token this is, and notes that it was used.
///
/// # Errors
/// [`UserError::BadToken`] when it is none, is over or was revoked, or its user is disabled.
pub async fn token_user(connection: &mut AnyConnection, token: &str, now_ms: i64) -> Result<User, UserError> {
    let found = identity::token_holder(&mut *connection, &token_hash(token.trim()), now_ms).await?;
    let holder = found.ok_or(UserError::BadToken)?;
    identity::note_token_used(connection, holder.token, now_ms).await?;
    Ok(holder.user)
}

/// The token that a request carries (RFC 6750 §2.1), as it is written: empty where it cannot be one. `None` where the request carries
/// none; credentials of another scheme are for whatever stands before the portal.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let is_bearer = |value: &&HeaderValue| {
        let scheme = value.as_bytes().get(..BEARER.len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(BEARER))
    };
    let found = values.find(is_bearer)?;
    // Two of them name nobody.
    if values.any(|value| is_bearer(&value)) {
        return Some("");
    }
    let text = found.to_str().unwrap_or_default();
    Some(text.get(BEARER.len()..).unwrap_or_default().trim_start_matches(' '))
}

/// Whether a text can be a token, so that nothing else is looked for in the database.
fn is_token(text: &str) -> bool {
    let digits = text.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == TOKEN_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whose token a request carries; that it was used is noted behind its back.
pub(super) async fn holder(state: &AppState, token: &str) -> Result<Option<TokenHolder>, sqlx::Error> {
    if !is_token(token) {
        return Ok(None);
    }
    let now_ms = state.now_ms();
    let mut connection = state.db().pool().acquire().await?;
    let found = identity::token_holder(&mut connection, &token_hash(token), now_ms).await?;
    let Some(holder) = found else { return Ok(None) };
    let used = Used::Token(holder.token);
    let last_ms = state.last_seen().noted(&used).max(holder.last_used_at_ms).unwrap_or(0);
    if now_ms - last_ms >= TOUCH_INTERVAL_MS {
        state.last_seen().note(state.db(), used, now_ms);
    }
    Ok(Some(holder))
}

/// The tokens of a user, oldest first.
///
/// # Errors
/// As the database answers.
pub async fn tokens_of(db: impl AnyExecutor<'_>, user: UserId) -> Result<Vec<StoredToken>, UserError> {
    Ok(identity::tokens_of(db, user).await?)
}

/// Revokes a token, of `owner` alone where one is named; what its entry says. What is refused must not be committed.
///
/// # Errors
/// [`UserError::NoToken`] when there is none of this id, or it is another user's.
pub async fn revoke_token(
    connection: &mut AnyConnection,
    token: TokenId,
    owner: Option<UserId>,
) -> Result<Note, UserError> {
    let removed = identity::remove_token(connection, token).await?;
    let (user, name) = removed
        .filter(|(user, _)| owner.is_none_or(|owner| owner == *user))
        .ok_or(UserError::NoToken(token))?;
    let change = json!({"before": {"token": token}});
    Ok(Note::new("user.token_revoke", user)
        .change(change)
        .personal(json!({"name": name})))
}

#[cfg(test)]
mod tests {
    use schemas::identity::Role;

    use super::*;
    use crate::auth::{NewUser, create_user, set_password};
    use crate::testing::{PASSWORD, TestPortal};

    fn proof(password: &str) -> Proof<'_> {
        Proof { password, code: "" }
    }

    #[tokio::test]
    async fn s1_a_token_is_had_by_who_knows_the_password_and_ends_with_it() {
        let portal = TestPortal::new().await;
        let (db, now_ms) = (portal.state.db(), portal.state.now_ms());
        let new = NewUser {
            email: "ada@example.net",
            name: "Ada",
            role: Role::Admin,
            customer: None,
            password: PASSWORD,
        };
        let ada = create_user(db, &new, By::program("test")).await.unwrap();
        let issue = async |password: &str, name: &str, days: i64| {
            issue_token(
                db,
                ada,
                proof(password),
                TokenTerms { name, days },
                By::operator("ada", None),
                now_ms,
            )
            .await
        };
        let wrong = issue("orchid kettle summer", "laptop", 90).await;
        assert!(matches!(wrong, Err(UserError::NotProved(_))), "{wrong:?}");
        assert!(matches!(issue(PASSWORD, " ", 90).await, Err(UserError::TokenName)));
        assert!(matches!(
            issue(PASSWORD, "laptop", 0).await,
            Err(UserError::TokenDays(0))
        ));
        let (id, token) = issue(PASSWORD, "laptop", 90).await.unwrap();
        let (other, revoked) = issue(PASSWORD, "desk", 90).await.unwrap();

        let mut connection = db.pool().acquire().await.unwrap();
        assert_eq!(token_user(&mut connection, &token, now_ms).await.unwrap().id, ada);
        let stored = tokens_of(&mut *connection, ada).await.unwrap();
        assert_eq!((stored[0].id, stored[0].last_used_at_ms), (id, Some(now_ms)));
        let text: Vec<String> = sqlx::query_scalar("SELECT token_hash FROM user_tokens")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        assert!(text.iter().all(|hash| !token.contains(hash)));
        let over = token_user(&mut connection, &token, now_ms + 90 * DAY_MS).await;
        assert!(matches!(over, Err(UserError::BadToken)), "{over:?}");
        let _ = revoke_token(&mut connection, other, None).await.unwrap();
        for bad in [revoked.as_str(), "", "ezs_0"] {
            let refused = token_user(&mut connection, bad, now_ms).await;
            assert!(matches!(refused, Err(UserError::BadToken)), "{bad}: {refused:?}");
        }
        drop(connection);
        set_password(db, ada, "orchid kettle autumn", By::program("test"), now_ms)
            .await
            .unwrap();
        let mut connection = db.pool().acquire().await.unwrap();
        let ended = token_user(&mut connection, &token, now_ms).await;
        assert!(matches!(ended, Err(UserError::BadToken)), "{ended:?}");
    }
}
