//! Mails to a user about how they sign in, sent when it changed: whoever did it, the user hears of it.

use activity::event::{self, EventError, EventType, NewEvent};
use schemas::identity;
use schemas::ids::UserId;
use serde_json::json;
use sqlx::AnyConnection;

/// How a password came to be another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PasswordChange {
    /// By the user, who knew the one before.
    Changed,
    /// By a link that was mailed.
    Reset,
    /// By an operator.
    Staff,
}

impl PasswordChange {
    fn name(self) -> &'static str {
        match self {
            PasswordChange::Changed => "changed",
            PasswordChange::Reset => "reset",
            PasswordChange::Staff => "staff",
        }
    }

    /// As the audit log names it.
    pub(super) fn action(self) -> &'static str {
        match self {
            PasswordChange::Changed => "user.password_change",
            PasswordChange::Reset => "user.password_reset",
            PasswordChange::Staff => "user.set_password",
        }
    }
}

/// The password is another.
pub(super) async fn password_changed(
    connection: &mut AnyConnection,
    user: UserId,
    how: PasswordChange,
    ip: &str,
    now_ms: i64,
) -> Result<(), EventError> {
    let facts = json!({ "how": how.name(), "ip": ip });
    publish(connection, EventType::PasswordChanged, user, facts, now_ms).await
}

/// The second factor is `on`, `off`, off by a `reset`, has new `recovery_codes`, or had one of them used
/// (`recovery_code_used`).
pub(crate) async fn second_factor_changed(
    connection: &mut AnyConnection,
    user: UserId,
    change: &str,
    ip: &str,
    now_ms: i64,
) -> Result<(), EventError> {
    let facts = json!({ "change": change, "ip": ip });
    publish(connection, EventType::SecondFactorChanged, user, facts, now_ms).await
}

/// There is a token more, which reads through the API what its user can read.
pub(super) async fn token_added(
    connection: &mut AnyConnection,
    user: UserId,
    name: &str,
    ip: &str,
    now_ms: i64,
) -> Result<(), EventError> {
    let facts = json!({ "name": name, "ip": ip });
    publish(connection, EventType::TokenAdded, user, facts, now_ms).await
}

async fn publish(
    connection: &mut AnyConnection,
    event_type: EventType,
    user: UserId,
    mut facts: serde_json::Value,
    now_ms: i64,
) -> Result<(), EventError> {
    let found = identity::user(&mut *connection, user)
        .await?
        .ok_or(sqlx::Error::RowNotFound)?;
    facts["user"] = json!(user);
    facts["to"] = json!(found.email);
    facts["at_ms"] = json!(now_ms);
    let new = NewEvent {
        event_type,
        customer: found.customer,
        subject: user.to_string(),
        payload: facts,
    };
    event::publish(connection, new, now_ms).await?;
    Ok(())
}
