//! A new password for who forgot theirs: asked for by anybody, mailed to the address that signs in.
//!
//! ```text
//! request ──▶ event `user.password_reset_requested` ──outbox──▶ deliver ── issue: a token for this very mail
//!                                                                            │ row in `password_resets`: its SHA-256
//!                                                                            ▼
//!                             a new password is set ◀── take ◀── the form that the mail's link opens
//! ```
//!
//! * A token is made when its mail is sent and is nowhere but in that mail: neither the event nor the database has it.
//! * A token is good until [`VALID_MS`] after it was asked for, and once: the first that is used voids all others of the user.
//! * Looking at a link changes nothing.
//! * At most [`MAX_PER_HOUR`] and [`MAX_PER_DAY`] mails are asked for of one user. All that were sent can be used, so that
//!   nobody who asks too often keeps the user from a new password.
//! * A token sets a password and nothing else: the second factor is asked for as before.

use schemas::db::{Database, next_ids};
use schemas::identity;
use schemas::ids::UserId;
use serde_json::json;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::event::{Event, EventError, EventType, NewEvent, publish};
use crate::link_token;

const HOUR_MS: i64 = 3_600_000;
/// How long a link can be used, from when it was asked for.
pub const VALID_MS: i64 = HOUR_MS;
/// Mails of one user that can be asked for in an hour.
pub const MAX_PER_HOUR: i64 = 3;
/// Mails of one user that can be asked for in a day.
pub const MAX_PER_DAY: i64 = 8;

/// Why no link could be asked for or used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordResetError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("ask for the mail")]
    Event(#[from] EventError),
}

schemas::error_codes! {
    PasswordResetError: "password_reset";
    of [Database, Event]
    source []
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetRequester {
    /// Whoever filled in the form.
    Anybody,
    /// An admin.
    Staff,
}

/// What became of asking for a mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetMailOutcome {
    /// It is on its way.
    Mailed,
    /// There is no such user, or they are disabled.
    Nobody,
    /// So many were asked for that the next one waits until then.
    TooMany { until_ms: i64 },
}

/// Asks for a mail with a link to the address that a user signs in with. `ip`: where it was asked for, empty where that is
/// nowhere.
///
/// # Errors
/// As the database answers.
pub async fn request(
    connection: &mut AnyConnection,
    user: UserId,
    by: ResetRequester,
    ip: &str,
    now_ms: i64,
) -> Result<ResetMailOutcome, PasswordResetError> {
    // Two who ask at once take turns, so that the second one is counted.
    next_ids(&mut *connection, "password_resets", 0).await?;
    let found = identity::user(&mut *connection, user).await?;
    let Some(found) = found.filter(|user| user.disabled_at_ms.is_none()) else {
        return Ok(ResetMailOutcome::Nobody);
    };
    for (limit, span_ms) in [(MAX_PER_HOUR, HOUR_MS), (MAX_PER_DAY, 24 * HOUR_MS)] {
        // The one that must have left the span before another fits in.
        let asked = sqlx::query(
            "SELECT created_at_ms FROM events WHERE event_type = 'user.password_reset_requested' AND subject = $1 \
             AND created_at_ms > $2 ORDER BY created_at_ms DESC LIMIT 1 OFFSET $3",
        )
        .bind(user.to_string())
        .bind(now_ms - span_ms)
        .bind(limit - 1)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(asked) = asked {
            let requested_at_ms: i64 = asked.try_get(0)?;
            return Ok(ResetMailOutcome::TooMany {
                until_ms: requested_at_ms + span_ms,
            });
        }
    }
    let by = match by {
        ResetRequester::Anybody => "anybody",
        ResetRequester::Staff => "staff",
    };
    let new = NewEvent {
        event_type: EventType::PasswordResetRequested,
        customer: found.customer,
        subject: user.to_string(),
        payload: json!({
            "user": user, "to": found.email, "by": by, "ip": ip, "at_ms": now_ms,
        }),
    };
    publish(connection, new, now_ms).await?;
    Ok(ResetMailOutcome::Mailed)
}

/// A token for the mail of a request; `None` where the user is disabled or has another address, or it was asked for too long
/// ago.
///
/// # Errors
/// As the database answers.
pub async fn issue(
    database: &Database,
    request: &Event,
    address: &str,
    now_ms: i64,
) -> Result<Option<String>, EventError> {
    let expires_at_ms = request.created_at_ms + VALID_MS;
    let Ok(user) = request.subject.parse::<UserId>() else {
        return Ok(None);
    };
    if expires_at_ms <= now_ms {
        return Ok(None);
    }
    let token = link_token::new();
    let mut transaction = database.begin_write().await?;
    let times = (now_ms, expires_at_ms);
    let is_issued =
        identity::add_password_link(&mut transaction, user, address, &link_token::hash(&token), times).await?;
    transaction.commit().await?;
    Ok(is_issued.then_some(token))
}

/// Whose password a link sets; `None` where it is too old or was used, or the user is disabled. Nothing is changed by looking.
///
/// # Errors
/// As the database answers.
pub async fn pending(db: impl AnyExecutor<'_>, token: &str, now_ms: i64) -> Result<Option<UserId>, PasswordResetError> {
    Ok(identity::password_link_user(db, &link_token::hash(token), now_ms).await?)
}

/// Uses a link up, and voids all others of its user, in the transaction that sets the password. `None` as for [`pending`].
///
/// # Errors
/// As the database answers.
pub async fn take(
    connection: &mut AnyConnection,
    token: &str,
    now_ms: i64,
) -> Result<Option<UserId>, PasswordResetError> {
    let Some(user) = pending(&mut *connection, token, now_ms).await? else {
        return Ok(None);
    };
    // Of two who use it at once, one finds it gone.
    if !identity::take_password_link(&mut *connection, &link_token::hash(token)).await? {
        return Ok(None);
    }
    void(connection, user).await?;
    Ok(Some(user))
}

/// Voids all links of a user.
///
/// # Errors
/// As the database answers.
pub async fn void(connection: &mut AnyConnection, user: UserId) -> Result<(), PasswordResetError> {
    Ok(identity::void_password_links(connection, user).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;
    use crate::testing::World;

    const NOW_MS: i64 = 1_700_000_000_000;

    async fn user(world: &World, id: i64) -> UserId {
        sqlx::query(
            "INSERT INTO users (id, email, name, role, password_hash, created_at_ms) VALUES ($1, $2, 'x', 'ops', 'x', 0)",
        )
        .bind(id)
        .bind(format!("u{id}@example.net"))
        .execute(world.database.pool())
        .await
        .unwrap();
        UserId(id)
    }

    async fn asked(world: &World, user: UserId, now_ms: i64) -> ResetMailOutcome {
        let mut transaction = world.database.begin_write().await.unwrap();
        let asked = request(&mut transaction, user, ResetRequester::Anybody, "192.0.2.7", now_ms)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        asked
    }

    async fn taken(world: &World, token: &str, now_ms: i64) -> Option<UserId> {
        let mut transaction = world.database.begin_write().await.unwrap();
        let taken = take(&mut transaction, token, now_ms).await.unwrap();
        transaction.commit().await.unwrap();
        taken
    }

    async fn latest(world: &World) -> Event {
        let listed = event::list(world.database.pool(), event::EventFilter::default(), 1).await;
        listed.unwrap().remove(0)
    }

    async fn a_link_is_used_once_within_the_hour(world: World) {
        let (ada, ben) = (user(&world, 1).await, user(&world, 2).await);
        assert_eq!(asked(&world, ada, NOW_MS).await, ResetMailOutcome::Mailed);
        let of_ada = latest(&world).await;
        assert_eq!(asked(&world, ben, NOW_MS).await, ResetMailOutcome::Mailed);
        let of_ben = latest(&world).await;
        let send = async |event: &Event, to: &str, at_ms: i64| issue(&world.database, event, to, at_ms).await.unwrap();
        let first = send(&of_ada, "u1@example.net", NOW_MS).await.unwrap();
        let second = send(&of_ada, "u1@example.net", NOW_MS + 60_000).await.unwrap();
        let bens = send(&of_ben, "u2@example.net", NOW_MS).await.unwrap();
        assert_eq!(send(&of_ada, "u2@example.net", NOW_MS).await, None, "not their address");
        assert_eq!(
            send(&of_ada, "u1@example.net", NOW_MS + VALID_MS).await,
            None,
            "too late"
        );
        let stored: Vec<String> = sqlx::query_scalar("SELECT token_hash FROM password_resets")
            .fetch_all(world.database.pool())
            .await
            .unwrap();
        assert!(stored.len() == 3 && !stored.contains(&first) && stored.contains(&link_token::hash(&first)));
        assert!(!of_ada.payload.to_string().contains(&first), "only the mail has it");

        let looked = pending(world.database.pool(), &first, NOW_MS).await.unwrap();
        assert_eq!(looked, Some(ada));
        assert_eq!(taken(&world, &first, NOW_MS + VALID_MS).await, None, "the hour is over");
        assert_eq!(taken(&world, &"0".repeat(64), NOW_MS).await, None);
        assert_eq!(taken(&world, &first, NOW_MS + VALID_MS - 1).await, Some(ada));
        for used in [&first, &second] {
            assert_eq!(taken(&world, used, NOW_MS).await, None, "all of the user are void");
        }
        sqlx::query("UPDATE users SET disabled_at_ms = 1 WHERE id = 2")
            .execute(world.database.pool())
            .await
            .unwrap();
        assert_eq!(taken(&world, &bens, NOW_MS).await, None, "who is disabled stays out");
        assert_eq!(asked(&world, ben, NOW_MS).await, ResetMailOutcome::Nobody);
        assert_eq!(asked(&world, UserId(9), NOW_MS).await, ResetMailOutcome::Nobody);
    }

    #[tokio::test]
    async fn a_link_is_used_once_within_the_hour_on_sqlite() {
        a_link_is_used_once_within_the_hour(World::new().await).await;
    }

    #[tokio::test]
    async fn a_link_is_used_once_within_the_hour_on_postgres() {
        a_link_is_used_once_within_the_hour(World::on_postgres().await).await;
    }

    #[tokio::test]
    async fn only_so_many_are_asked_for() {
        let world = World::new().await;
        let (ada, ben) = (user(&world, 1).await, user(&world, 2).await);
        let mut mailed = 0;
        for hour in 0..24 {
            let at_ms = NOW_MS + hour * HOUR_MS;
            while asked(&world, ada, at_ms).await == ResetMailOutcome::Mailed {
                mailed += 1;
                assert!(mailed <= MAX_PER_HOUR * (hour + 1));
            }
        }
        assert_eq!(mailed, MAX_PER_DAY);
        let until_ms = NOW_MS + 24 * HOUR_MS;
        assert_eq!(
            asked(&world, ada, until_ms - 1).await,
            ResetMailOutcome::TooMany { until_ms }
        );
        assert_eq!(asked(&world, ada, until_ms).await, ResetMailOutcome::Mailed);
        assert_eq!(
            asked(&world, ben, NOW_MS).await,
            ResetMailOutcome::Mailed,
            "each has their own"
        );
    }
}
