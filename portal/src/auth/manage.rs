//! What is done about users, the same from the portal and from the command line: each has its checks here, and answers to what
//! its entry in the audit log says, with which the caller commits the act.
//!
//! * Nobody disables themself, takes their own role away, or leaves the installation without an admin.
//! * Who is disabled, or has another role or password, is out at once: sessions, sign-ins that wait for a code, and links that
//!   were mailed end in the same transaction.

use billing::act::{Act, By as Who, Note};
use billing::audit::{Actor, Risk};
use billing::password_reset::{self, By, Request};
use schemas::db::{Database, next_ids};
use schemas::ids::{CustomerId, UserId};
use schemas::window::instant_text;
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::notice::{self, How};
use super::password::NewHash;
use super::session::{self, Ending, SessionLimits};
use super::users::{Role, UserError, normalised};
use super::{device, second_factor};

/// Users on one page at most.
pub const MAX_PAGE: i64 = 200;

/// Who changes something, and when.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub actor: Actor<'a>,
    pub now_ms: i64,
}

/// A user, as those see them who manage users.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Account {
    pub id: UserId,
    pub email: String,
    pub name: String,
    #[serde(serialize_with = "by_name")]
    pub role: Role,
    /// Set exactly for the role customer.
    pub customer: Option<CustomerId>,
    pub customer_name: Option<String>,
    pub created_at_ms: i64,
    pub disabled_at_ms: Option<i64>,
    /// When they last signed in.
    pub signed_in_at_ms: Option<i64>,
    /// Since when a second factor is asked for.
    pub two_factor_at_ms: Option<i64>,
    pub password_changed_at_ms: Option<i64>,
    /// Sessions that last.
    pub sessions: i64,
}

fn by_name<S: serde::Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

/// Which users to list; what is not set is not asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// A part of the name or email address, or an id.
    pub search: &'a str,
    pub role: Option<Role>,
    pub is_disabled: Option<bool>,
    /// Those after this one: the last of the page before.
    pub after: Option<UserId>,
}

const SELECT: &str = "SELECT u.id, u.email, u.name, u.role, u.customer_id, c.name AS customer_name, u.created_at_ms, \
     u.disabled_at_ms, u.last_seen_at_ms, u.two_factor_at_ms, u.password_changed_at_ms, \
     (SELECT count(*) FROM sessions s WHERE s.user_id = u.id AND u.disabled_at_ms IS NULL AND s.expires_at_ms > $1 \
      AND s.last_seen_at_ms > $1 - CASE WHEN u.role = 'customer' THEN $2 ELSE $3 END) AS sessions \
     FROM users u LEFT JOIN customers c ON c.id = u.customer_id";

/// Users by id.
///
/// # Errors
/// As the database answers.
pub async fn accounts(
    db: impl AnyExecutor<'_>,
    filter: Filter<'_>,
    limits: &SessionLimits,
    now_ms: i64,
    limit: i64,
) -> Result<Vec<Account>, UserError> {
    // Wildcards that were typed are letters; an id finds its user alone.
    let search = filter.search.trim();
    let escaped = search
        .to_lowercase()
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE u.id > $4 AND ($5 = '' OR u.id = $6 OR lower(u.name) LIKE $7 ESCAPE '\\' \
         OR u.email LIKE $7 ESCAPE '\\') AND ($8 = '' OR u.role = $8) \
         AND ($9 = 0 OR ($9 = 1) = (u.disabled_at_ms IS NOT NULL)) ORDER BY u.id LIMIT $10"
    ));
    let rows = sqlx::query(sql)
        .bind(now_ms)
        .bind(limits.idle_ms(Role::Customer))
        .bind(limits.idle_ms(Role::Admin))
        .bind(filter.after.map_or(0, |after| after.0))
        .bind(search)
        .bind(search.parse::<UserId>().map_or(0, |id| id.0))
        .bind(format!("%{escaped}%"))
        .bind(filter.role.map_or("", Role::name))
        .bind(
            filter
                .is_disabled
                .map_or(0, |is_disabled| if is_disabled { 1 } else { 2 }),
        )
        .bind(limit.clamp(1, MAX_PAGE + 1))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// One user.
///
/// # Errors
/// [`UserError::NoUser`] when there is none of this id.
pub async fn account(
    db: impl AnyExecutor<'_>,
    id: UserId,
    limits: &SessionLimits,
    now_ms: i64,
) -> Result<Account, UserError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE u.id = $4"));
    let row = sqlx::query(sql)
        .bind(now_ms)
        .bind(limits.idle_ms(Role::Customer))
        .bind(limits.idle_ms(Role::Admin))
        .bind(id.0)
        .fetch_optional(db)
        .await?;
    read(&row.ok_or(UserError::NoUser(id))?)
}

/// Who is named by an id (`usr_7`) or an email address.
///
/// # Errors
/// When there is no such user.
pub async fn user_named(db: impl AnyExecutor<'_>, text: &str) -> Result<UserId, UserError> {
    let row = sqlx::query("SELECT id FROM users WHERE id = $1 OR email = $2")
        .bind(text.trim().parse::<UserId>().map_or(0, |id| id.0))
        .bind(normalised(text))
        .fetch_optional(db)
        .await?;
    let row = row.ok_or_else(|| UserError::Unknown(text.trim().to_owned()))?;
    Ok(UserId(row.try_get(0)?))
}

fn read(row: &AnyRow) -> Result<Account, UserError> {
    Ok(Account {
        id: UserId(row.try_get("id")?),
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        role: row.try_get::<String, _>("role")?.parse()?,
        customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
        customer_name: row.try_get("customer_name")?,
        created_at_ms: row.try_get("created_at_ms")?,
        disabled_at_ms: row.try_get("disabled_at_ms")?,
        signed_in_at_ms: row.try_get("last_seen_at_ms")?,
        two_factor_at_ms: row.try_get("two_factor_at_ms")?,
        password_changed_at_ms: row.try_get("password_changed_at_ms")?,
        sessions: row.try_get("sessions")?,
    })
}

/// What a change goes by.
#[derive(Debug)]
struct Stored {
    id: UserId,
    email: String,
    role: Role,
    customer: Option<CustomerId>,
    disabled_at_ms: Option<i64>,
}

impl Stored {
    /// The owner is told of what is done about staff, who see what is everybody's.
    fn risk(&self) -> Risk {
        risk_of(self.role)
    }
}

fn risk_of(role: Role) -> Risk {
    match role {
        Role::Customer => Risk::Normal,
        Role::Ops | Role::Finance | Role::Network | Role::Admin => Risk::High,
    }
}

/// The user, while nobody else changes users: two admins that disable each other take turns.
async fn locked(connection: &mut AnyConnection, id: UserId) -> Result<Stored, UserError> {
    next_ids(&mut *connection, "user_changes", 0).await?;
    let row = sqlx::query("SELECT email, role, customer_id, disabled_at_ms FROM users WHERE id = $1")
        .bind(id.0)
        .fetch_optional(connection)
        .await?;
    let row = row.ok_or(UserError::NoUser(id))?;
    Ok(Stored {
        id,
        email: row.try_get("email")?,
        role: row.try_get::<String, _>("role")?.parse()?,
        customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
        disabled_at_ms: row.try_get("disabled_at_ms")?,
    })
}

/// What must not be taken from this user: by accident from oneself, and from the last admin.
async fn check_can_lose(connection: &mut AnyConnection, user: &Stored, by: Change<'_>) -> Result<(), UserError> {
    if by.actor.user == Some(user.id) {
        return Err(UserError::Oneself);
    }
    if user.role != Role::Admin || user.disabled_at_ms.is_some() {
        return Ok(());
    }
    let others =
        sqlx::query("SELECT id FROM users WHERE role = 'admin' AND disabled_at_ms IS NULL AND id <> $1 LIMIT 1")
            .bind(user.id.0)
            .fetch_optional(connection)
            .await?;
    match others {
        Some(_) => Ok(()),
        None => Err(UserError::LastAdmin(user.email.clone())),
    }
}

/// What was done to a user. The address is the person's, and erased with them.
fn note(action: &str, user: UserId, email: &str, change: serde_json::Value, risk: Risk) -> Note {
    Note::new(action, user)
        .change(change)
        .personal(json!({ "email": email }))
        .risk(risk)
}

/// Ends whatever lets a user in without the password.
async fn put_out(connection: &mut AnyConnection, user: UserId) -> Result<u64, UserError> {
    let ended = session::end(&mut *connection, user, Ending::All).await?;
    password_reset::void(connection, user).await?;
    Ok(ended)
}

/// Keeps a user from signing in, and ends every session.
///
/// # Errors
/// When they are disabled, are who asks, or are the last admin.
pub async fn disable(connection: &mut AnyConnection, id: UserId, by: Change<'_>) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    check_can_lose(&mut *connection, &user, by).await?;
    if user.disabled_at_ms.is_some() {
        return Err(UserError::IsDisabled(user.email));
    }
    sqlx::query("UPDATE users SET disabled_at_ms = $1 WHERE id = $2")
        .bind(by.now_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let sessions = put_out(&mut *connection, id).await?;
    device::forget(&mut *connection, id).await?;
    let change = json!({ "sessions_ended": sessions });
    Ok(note("user.disable", id, &user.email, change, user.risk()))
}

/// Lets a user sign in again.
///
/// # Errors
/// When they are not disabled.
pub async fn enable(connection: &mut AnyConnection, id: UserId) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    let Some(disabled_at_ms) = user.disabled_at_ms else {
        return Err(UserError::IsEnabled(user.email));
    };
    sqlx::query("UPDATE users SET disabled_at_ms = NULL WHERE id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let change = json!({ "disabled_at_ms": disabled_at_ms });
    Ok(note("user.enable", id, &user.email, change, user.risk()))
}

/// Gives a user another role, and ends every session. `customer` is set exactly for the role customer.
///
/// # Errors
/// When it is the role they have, they are who asks or the last admin, or the customer does not fit the role.
pub async fn set_role(
    connection: &mut AnyConnection,
    id: UserId,
    role: Role,
    customer: Option<CustomerId>,
    by: Change<'_>,
) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    if (role == Role::Customer) != customer.is_some() {
        return Err(UserError::Customer);
    }
    if (role, customer) == (user.role, user.customer) {
        return Err(UserError::SameRole {
            email: user.email,
            role,
        });
    }
    check_can_lose(&mut *connection, &user, by).await?;
    if let Some(customer) = customer {
        super::users::check_customer(&mut *connection, customer).await?;
    }
    sqlx::query("UPDATE users SET role = $1, customer_id = $2 WHERE id = $3")
        .bind(role.name())
        .bind(customer.map(|customer| customer.0))
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let sessions = put_out(&mut *connection, id).await?;
    let change = json!({
        "before": { "role": user.role.name(), "customer": user.customer },
        "after": { "role": role.name(), "customer": customer },
        "sessions_ended": sessions,
    });
    Ok(note("user.set_role", id, &user.email, change, Risk::High))
}

/// Ends sessions of a user; how many.
///
/// # Errors
/// [`UserError::NoSession`] when the one that is named is not theirs.
pub async fn end_sessions(
    connection: &mut AnyConnection,
    id: UserId,
    ending: Ending<'_>,
) -> Result<(u64, Note), UserError> {
    let user = locked(&mut *connection, id).await?;
    let ended = session::end(&mut *connection, id, ending).await?;
    if let (Ending::One(name), 0) = (ending, ended) {
        return Err(UserError::NoSession(name.to_owned()));
    }
    let change = json!({ "sessions_ended": ended });
    let note = note("user.end_sessions", id, &user.email, change, Risk::Normal);
    Ok((ended, note))
}

/// Mails a user a link to set a new password.
///
/// # Errors
/// When they are disabled, or so many were mailed that none can be for now.
pub async fn send_reset(connection: &mut AnyConnection, id: UserId, by: Change<'_>) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    match password_reset::request(&mut *connection, id, By::Staff, by.actor.ip, by.now_ms).await? {
        Request::Mailed => {}
        Request::Nobody => return Err(UserError::IsDisabled(user.email)),
        Request::TooMany { until_ms } => {
            let until = instant_text(until_ms);
            return Err(UserError::EnoughMailed { until });
        }
    }
    let action = "user.password_reset_request";
    Ok(note(action, id, &user.email, json!({}), Risk::Normal))
}

/// Turns off the second factor of who lost it, and ends every session.
///
/// # Errors
/// When no second factor is on.
pub async fn reset_second_factor(
    connection: &mut AnyConnection,
    id: UserId,
    by: Change<'_>,
) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    let Some(since_ms) = second_factor::reset(&mut *connection, id).await? else {
        return Err(UserError::NoSecondFactor(user.email));
    };
    notice::second_factor_changed(connection, id, "reset", by.actor.ip, by.now_ms).await?;
    let change = json!({ "was_on_since_ms": since_ms });
    Ok(note("user.two_factor_reset", id, &user.email, change, user.risk()))
}

/// Sets the password of a user, ends every session, and tells the user.
///
/// # Errors
/// When there is no such user.
pub(crate) async fn put_password(
    connection: &mut AnyConnection,
    id: UserId,
    hash: &NewHash,
    how: How,
    by: Change<'_>,
) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    sqlx::query("UPDATE users SET password_hash = $1, password_changed_at_ms = $2 WHERE id = $3")
        .bind(hash.as_str())
        .bind(by.now_ms)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let sessions = put_out(&mut *connection, id).await?;
    let risk = match how {
        How::Changed | How::Reset => Risk::Normal,
        How::Staff => user.risk(),
    };
    notice::password_changed(connection, id, how, by.actor.ip, by.now_ms).await?;
    let change = json!({ "sessions_ended": sessions });
    Ok(note(how.action(), id, &user.email, change, risk))
}

/// Sets the password of a user by an operator, ends every session, and tells the user.
///
/// # Errors
/// When there is no such user, or the password is not acceptable.
pub async fn set_password(db: &Database, id: UserId, password: &str, by: Who, now_ms: i64) -> Result<(), UserError> {
    let row = sqlx::query("SELECT email, name FROM users WHERE id = $1")
        .bind(id.0)
        .fetch_optional(db.pool())
        .await?;
    let row = row.ok_or(UserError::NoUser(id))?;
    let (email, name): (String, String) = (row.try_get("email")?, row.try_get("name")?);
    // Before the transaction: it takes a while.
    let hash = NewHash::of(password, &email, &name).await?;
    let mut act = Act::begin(db, by, now_ms).await?;
    let (connection, actor) = act.parts();
    let note = put_password(connection, id, &hash, How::Staff, Change { actor, now_ms }).await?;
    act.commit(note).await?;
    Ok(())
}
