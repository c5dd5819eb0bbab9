//! Who signed in, and who tried: when, from where, with which browser, and how it went.
//!
//! It is a log of its own, not part of the audit log, because it holds where people are, is filled by whoever guesses, and is
//! therefore forgotten after [`ATTEMPTS_KEPT_MS`] and bounded by [`MAX_KEPT`].

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::db::next_id;
use crate::ids::UserId;
use crate::window::DAY_MS;

/// How long an attempt is kept.
pub const ATTEMPTS_KEPT_MS: i64 = 90 * DAY_MS;
/// Attempts that are kept at most; the oldest go first.
const MAX_KEPT: i64 = 1_000_000;
/// Attempts between two looks at these limits.
const PRUNED_EVERY: i64 = 100;

macro_rules! outcomes {
    ($($variant:ident $name:literal $label:literal,)*) => {
        /// How an attempt went.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Outcome {
            $(#[doc = $label] $variant,)*
        }

        impl Outcome {
            /// As stored.
            pub fn name(self) -> &'static str {
                match self {
                    $(Outcome::$variant => $name,)*
                }
            }

            /// As shown.
            pub fn label(self) -> &'static str {
                match self {
                    $(Outcome::$variant => $label,)*
                }
            }

            fn named(text: &str) -> Option<Outcome> {
                match text {
                    $($name => Some(Outcome::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

outcomes! {
    SignedIn "signed_in" "Signed in",
    CodeAsked "code_asked" "Password correct, code requested",
    WrongPassword "wrong_password" "Wrong password",
    WrongCode "wrong_code" "Right password, wrong code",
    Disabled "disabled" "Disabled user",
}

/// An attempt.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Attempt {
    pub at_ms: i64,
    /// Of whom, where the address is somebody's.
    pub user: Option<UserId>,
    /// As typed.
    pub email: String,
    #[serde(serialize_with = "by_name")]
    pub outcome: Outcome,
    /// What signed in: `password`, `app`, `recovery_code`; empty where nothing did.
    pub method: String,
    pub ip: String,
    pub user_agent: String,
    /// The browser had signed the user in before.
    pub is_known_device: bool,
}

fn by_name<S: serde::Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.name())
}

/// An attempt that was made just now.
#[derive(Clone, Copy, Debug)]
pub struct NewAttempt<'a> {
    pub user: Option<UserId>,
    /// Empty where what was typed is no address.
    pub email: &'a str,
    pub outcome: Outcome,
    pub method: &'a str,
    pub ip: &'a str,
    pub user_agent: &'a str,
    pub is_known_device: bool,
}

/// Records an attempt; now and then those go that are over.
pub async fn note_attempt(
    connection: &mut AnyConnection,
    made: NewAttempt<'_>,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let id = next_id(&mut *connection, "sign_in_attempt").await?;
    sqlx::query(
        "INSERT INTO sign_in_attempts (id, at_ms, user_id, email, outcome, method, ip, user_agent, is_known_device) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id)
    .bind(now_ms)
    .bind(made.user.map(|user| user.0))
    .bind(made.email)
    .bind(made.outcome.name())
    .bind(made.method)
    .bind(made.ip)
    .bind(made.user_agent)
    .bind(i64::from(made.is_known_device))
    .execute(&mut *connection)
    .await?;
    if id % PRUNED_EVERY == 0 {
        sqlx::query("DELETE FROM sign_in_attempts WHERE at_ms < $1 OR id <= $2")
            .bind(now_ms - ATTEMPTS_KEPT_MS)
            .bind(id - MAX_KEPT)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Attempts, latest first: of a user, or of all.
pub async fn recent_attempts(
    db: impl AnyExecutor<'_>,
    user: Option<UserId>,
    now_ms: i64,
    limit: i64,
) -> Result<Vec<Attempt>, sqlx::Error> {
    // Each by its own index: there may be a million of others.
    let of_whom = match user {
        Some(_) => "user_id = $1",
        None => "$1 = 0",
    };
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT at_ms, user_id, email, outcome, method, ip, user_agent, is_known_device FROM sign_in_attempts \
         WHERE {of_whom} AND at_ms >= $2 ORDER BY id DESC LIMIT $3"
    ));
    let rows = sqlx::query(sql)
        .bind(user.map_or(0, |user| user.0))
        .bind(now_ms - ATTEMPTS_KEPT_MS)
        .bind(limit)
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Attempt, sqlx::Error> {
    let outcome: String = row.try_get("outcome")?;
    let outcome = Outcome::named(&outcome)
        .ok_or_else(|| sqlx::Error::Decode(format!("{outcome:?} is no outcome of a sign-in").into()))?;
    Ok(Attempt {
        at_ms: row.try_get("at_ms")?,
        user: row.try_get::<Option<i64>, _>("user_id")?.map(UserId),
        email: row.try_get("email")?,
        outcome,
        method: row.try_get("method")?,
        ip: row.try_get("ip")?,
        user_agent: row.try_get("user_agent")?,
        is_known_device: row.try_get::<i64, _>("is_known_device")? != 0,
    })
}
