//! Attempts to sign in, as they are made here: shown to the user, to admins and on the command line. Nothing that was typed as a
//! password is among them.

use schemas::identity::{self, NewAttempt, Outcome, normalised_email};
use schemas::ids::UserId;
use schemas::text::is_plain;
use sqlx::AnyConnection;

use super::agent::Agent;

/// Longest address that is kept, in characters.
const MAX_EMAIL_CHARS: usize = 254;

/// An attempt that was made just now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignInAttempt<'a> {
    pub(crate) user: Option<UserId>,
    pub(crate) email: &'a str,
    pub(crate) outcome: Outcome,
    pub(crate) method: &'a str,
    pub(crate) is_known_device: bool,
}

/// Records an attempt.
pub(crate) async fn note(
    connection: &mut AnyConnection,
    made: SignInAttempt<'_>,
    agent: &Agent,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    // What has no @ may be a password that was typed into the wrong field.
    let email: String = normalised_email(made.email)
        .chars()
        .filter(|c| is_plain(*c))
        .take(MAX_EMAIL_CHARS)
        .collect();
    let new = NewAttempt {
        user: made.user,
        email: if email.contains('@') { email.as_str() } else { "" },
        outcome: made.outcome,
        method: made.method,
        ip: &agent.ip_text(),
        user_agent: &agent.user_agent,
        is_known_device: made.is_known_device,
    };
    identity::note_attempt(connection, new, now_ms).await
}
