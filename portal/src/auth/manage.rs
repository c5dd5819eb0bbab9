//! What is done about users, the same from the portal and from the command line: each has its checks here, and answers to what
//! its entry in the audit log says, with which the caller commits the act.
//!
//! * Nobody disables themself, takes their own role away, or leaves the installation without an admin. Who becomes an admin, or is
//!   one no more, is decided by a second admin once there are two ([`activity::risk`]).
//! * Who is disabled, or has another role or password, is out at once: sessions, sign-ins that wait for a code, and links that
//!   were mailed end in the same transaction.

use activity::act::{Act, By as Who, Note};
use activity::audit::{Actor, AuditError, Risk};
use activity::password_reset::{self, ResetMailOutcome, ResetRequester};
use billing::action::{self, NewRequest};
use billing::approval::{Gate, Requested, wanted};
use schemas::db::{Database, next_ids};
use schemas::identity::{self, Account, AccountFilter, IdleLimits, Role, SessionsToEnd, User};
use schemas::ids::{CustomerId, UserId};
use schemas::window::instant_text;
use serde_json::json;
use sqlx::{AnyConnection, AnyExecutor};

use super::notice::{self, PasswordChange};
use super::password::NewHash;
use super::second_factor;
use super::users::UserError;
use crate::sign_in::SessionLimits;

/// Who changes something, and when.
#[derive(Clone, Copy, Debug)]
pub struct ChangeContext<'a> {
    pub actor: Actor<'a>,
    pub now_ms: i64,
}

/// What became of a change that the rules of risk look at.
#[derive(Clone, PartialEq, Debug)]
#[must_use = "commit it"]
pub enum ManagedChange {
    /// It is done; what its entry says.
    Done(Note),
    /// A second admin decides.
    Waits(Requested),
}

impl ManagedChange {
    /// Commits what was done, or the request; which of both, `Some` where a second admin was asked.
    ///
    /// # Errors
    /// As [`Act::commit`].
    pub async fn commit(self, act: Act) -> Result<Option<Requested>, AuditError> {
        match self {
            ManagedChange::Done(note) => act.commit(note).await.map(|_| None),
            ManagedChange::Waits(requested) => act.commit_entered(requested.entered).await.map(|_| Some(requested)),
        }
    }
}

/// The request where a second admin decides; the risk of what may be done.
async fn gate(connection: &mut AnyConnection, wanted: &NewRequest, by: ChangeContext<'_>) -> Result<Gate, UserError> {
    Ok(action::gate(connection, wanted, &Who::from(by.actor), by.now_ms).await?)
}

fn idle_limits(limits: &SessionLimits) -> IdleLimits {
    IdleLimits {
        customer_ms: limits.idle_ms(Role::Customer),
        staff_ms: limits.idle_ms(Role::Admin),
    }
}

/// Users by id.
///
/// # Errors
/// As the database answers.
pub async fn accounts(
    db: impl AnyExecutor<'_>,
    filter: AccountFilter<'_>,
    limits: &SessionLimits,
    now_ms: i64,
    limit: i64,
) -> Result<Vec<Account>, UserError> {
    Ok(identity::accounts(db, filter, idle_limits(limits), now_ms, limit).await?)
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
    let found = identity::account(db, id, idle_limits(limits), now_ms).await?;
    found.ok_or(UserError::NoUser(id))
}

/// Who is named by an id (`usr_7`) or an email address.
///
/// # Errors
/// When there is no such user.
pub async fn user_named(db: impl AnyExecutor<'_>, text: &str) -> Result<UserId, UserError> {
    let found = identity::user_named(db, text).await?;
    found.ok_or_else(|| UserError::Unknown(text.trim().to_owned()))
}

/// The owner is told of what is done about staff, who see what is everybody's.
fn risk_of(role: Role) -> Risk {
    match role {
        Role::Customer => Risk::Normal,
        Role::Ops | Role::Finance | Role::Network | Role::Admin => Risk::High,
    }
}

/// The user, while nobody else changes users: two admins that disable each other take turns.
async fn locked(connection: &mut AnyConnection, id: UserId) -> Result<User, UserError> {
    next_ids(&mut *connection, "user_changes", 0).await?;
    let user = identity::user(connection, id).await?;
    user.ok_or(UserError::NoUser(id))
}

/// What must not be taken from this user: by accident from oneself, and from the last admin.
async fn check_can_lose(connection: &mut AnyConnection, user: &User, by: ChangeContext<'_>) -> Result<(), UserError> {
    if by.actor.user == Some(user.id) {
        return Err(UserError::Oneself);
    }
    if user.role != Role::Admin || user.disabled_at_ms.is_some() {
        return Ok(());
    }
    match identity::has_other_enabled_admin(connection, user.id).await? {
        true => Ok(()),
        false => Err(UserError::LastAdmin(user.email.clone())),
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
    let ended = identity::end_sessions(&mut *connection, user, SessionsToEnd::All).await?;
    password_reset::void(connection, user).await?;
    Ok(ended)
}

/// Keeps a user from signing in, and ends every session.
///
/// # Errors
/// When they are disabled, are who asks, or are the last admin.
pub async fn disable(
    connection: &mut AnyConnection,
    id: UserId,
    by: ChangeContext<'_>,
) -> Result<ManagedChange, UserError> {
    let user = locked(&mut *connection, id).await?;
    check_can_lose(&mut *connection, &user, by).await?;
    if user.disabled_at_ms.is_some() {
        return Err(UserError::IsDisabled(user.email));
    }
    if user.role == Role::Admin {
        let wanted = wanted::admin_deleted(id, &user.email);
        if let Gate::Waits(requested) = gate(&mut *connection, &wanted, by).await? {
            return Ok(ManagedChange::Waits(requested));
        }
    }
    identity::set_disabled(&mut *connection, id, Some(by.now_ms)).await?;
    let sessions = put_out(&mut *connection, id).await?;
    identity::forget_devices(&mut *connection, id).await?;
    let change = json!({ "sessions_ended": sessions });
    let note = note("user.disable", id, &user.email, change, risk_of(user.role));
    Ok(ManagedChange::Done(note))
}

/// Lets a user sign in again.
///
/// # Errors
/// When they are not disabled, or the account of their customer was deleted.
pub async fn enable(
    connection: &mut AnyConnection,
    id: UserId,
    by: ChangeContext<'_>,
) -> Result<ManagedChange, UserError> {
    let user = locked(&mut *connection, id).await?;
    let Some(disabled_at_ms) = user.disabled_at_ms else {
        return Err(UserError::IsEnabled(user.email));
    };
    if let Some(customer) = user.customer {
        super::users::check_customer(&mut *connection, customer).await?;
    }
    if user.role == Role::Admin {
        let wanted = wanted::admin_created(id, "Let the admin sign in again:", &user.email);
        if let Gate::Waits(requested) = gate(&mut *connection, &wanted, by).await? {
            return Ok(ManagedChange::Waits(requested));
        }
    }
    identity::set_disabled(&mut *connection, id, None).await?;
    let change = json!({ "disabled_at_ms": disabled_at_ms });
    let note = note("user.enable", id, &user.email, change, risk_of(user.role));
    Ok(ManagedChange::Done(note))
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
    by: ChangeContext<'_>,
) -> Result<ManagedChange, UserError> {
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
    if [user.role, role].contains(&Role::Admin) {
        let wanted = wanted::admin_role(id, role.name(), customer, &user.email);
        if let Gate::Waits(requested) = gate(&mut *connection, &wanted, by).await? {
            return Ok(ManagedChange::Waits(requested));
        }
    }
    identity::set_role(&mut *connection, id, role, customer).await?;
    let sessions = put_out(&mut *connection, id).await?;
    let change = json!({
        "before": { "role": user.role.name(), "customer": user.customer },
        "after": { "role": role.name(), "customer": customer },
        "sessions_ended": sessions,
    });
    Ok(ManagedChange::Done(note(
        "user.set_role",
        id,
        &user.email,
        change,
        Risk::High,
    )))
}

/// Ends sessions of a user; how many.
///
/// # Errors
/// [`UserError::NoSession`] when the one that is named is not theirs.
pub async fn end_sessions(
    connection: &mut AnyConnection,
    id: UserId,
    ending: SessionsToEnd<'_>,
) -> Result<(u64, Note), UserError> {
    let user = locked(&mut *connection, id).await?;
    let ended = identity::end_sessions(&mut *connection, id, ending).await?;
    if let (SessionsToEnd::One(name), 0) = (ending, ended) {
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
pub async fn send_reset(connection: &mut AnyConnection, id: UserId, by: ChangeContext<'_>) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    match password_reset::request(&mut *connection, id, ResetRequester::Staff, by.actor.ip, by.now_ms).await? {
        ResetMailOutcome::Mailed => {}
        ResetMailOutcome::Nobody => return Err(UserError::IsDisabled(user.email)),
        ResetMailOutcome::TooMany { until_ms } => {
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
    by: ChangeContext<'_>,
) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    let Some(since_ms) = second_factor::reset(&mut *connection, id).await? else {
        return Err(UserError::NoSecondFactor(user.email));
    };
    notice::second_factor_changed(connection, id, "reset", by.actor.ip, by.now_ms).await?;
    let change = json!({ "was_on_since_ms": since_ms });
    Ok(note(
        "user.two_factor_reset",
        id,
        &user.email,
        change,
        risk_of(user.role),
    ))
}

/// Sets the password of a user, ends every session, and tells the user.
///
/// # Errors
/// When there is no such user.
pub(crate) async fn put_password(
    connection: &mut AnyConnection,
    id: UserId,
    hash: &NewHash,
    how: PasswordChange,
    by: ChangeContext<'_>,
) -> Result<Note, UserError> {
    let user = locked(&mut *connection, id).await?;
    identity::set_password_hash(&mut *connection, id, hash.as_str(), by.now_ms).await?;
    let sessions = put_out(&mut *connection, id).await?;
    let risk = match how {
        PasswordChange::Changed | PasswordChange::Reset => Risk::Normal,
        PasswordChange::Staff => risk_of(user.role),
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
    let user = identity::user(db.pool(), id).await?.ok_or(UserError::NoUser(id))?;
    // Before the transaction: it takes a while.
    let hash = NewHash::of(password, &user.email, &user.name).await?;
    let mut act = Act::begin(db, by, now_ms).await?;
    let (connection, actor) = act.parts();
    let note = put_password(
        connection,
        id,
        &hash,
        PasswordChange::Staff,
        ChangeContext { actor, now_ms },
    )
    .await?;
    act.commit(note).await?;
    Ok(())
}
