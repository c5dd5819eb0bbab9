//! Forms that charge or create something are sent once, however often somebody clicks.
//!
//! Such a form carries a random token that is taken in the transaction of what it does: of two equal requests the second
//! finds the token used and does nothing.

use sqlx::{AnyConnection, AnyExecutor};

use crate::auth::random_token;
use crate::error::Failure;

/// How long a token is remembered. A form that is older is not of this session any more.
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// Characters of a token.
const TOKEN_CHARS: usize = 64;

/// A token for a form.
pub(crate) fn form_token() -> String {
    random_token()
}

/// Whether a text is the shape of a token.
pub(crate) fn is_token(text: &str) -> bool {
    text.len() == TOKEN_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Takes a token: false where it was taken before.
pub(crate) async fn take(connection: &mut AnyConnection, token: &str, now_ms: i64) -> Result<bool, Failure> {
    if !is_token(token) {
        return Err(Failure::BadRequest(
            "The form is not complete. Load the page again and retry.".to_owned(),
        ));
    }
    sqlx::query("DELETE FROM form_tokens WHERE used_at_ms < $1")
        .bind(now_ms - KEPT_MS)
        .execute(&mut *connection)
        .await?;
    let taken =
        sqlx::query("INSERT INTO form_tokens (token, used_at_ms) VALUES ($1, $2) ON CONFLICT (token) DO NOTHING")
            .bind(token)
            .bind(now_ms)
            .execute(connection)
            .await?;
    Ok(taken.rows_affected() == 1)
}

/// Whether a token was taken: asked first, so that a form that is sent again is not refused for what it did itself.
pub(crate) async fn was_taken(db: impl AnyExecutor<'_>, token: &str) -> Result<bool, Failure> {
    let row = sqlx::query("SELECT 1 FROM form_tokens WHERE token = $1").bind(token);
    Ok(row.fetch_optional(db).await?.is_some())
}
