//! How those who sign in are made, and why they are not.

use activity::act::{Act, By, Note};
use activity::audit::{AuditError, Risk};
use activity::event::EventError;
use activity::password_reset::PasswordResetError;
use billing::action::{self, ActionError};
use billing::approval::{Gate, wanted};
use schemas::clock::{self, ClockError};
use schemas::db::Database;
use schemas::identity::{self, NewUserRow, Role, RoleError, TOKEN_DAYS_MAX, TOKENS_PER_USER_MAX, normalised_email};
use schemas::ids::{CustomerId, TokenId, UserId};
use schemas::secret::SecretError;
use schemas::text::{is_plain, is_plain_text};
use sqlx::AnyConnection;

use super::manage::ManagedChange;
use super::password::{NewHash, PasswordError};
use crate::error::Failure;

/// Longest name or email, in characters.
const MAX_NAME_CHARS: usize = 200;

/// Why a user was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("{0:?} is not an email address")]
    Email(String),
    #[error("a name has between 1 and {MAX_NAME_CHARS} characters and no control characters or invisible ones")]
    Name,
    #[error("a user with the role customer belongs to a customer, any other role to none")]
    Customer,
    #[error("there is no customer {0}")]
    UnknownCustomer(CustomerId),
    #[error("the account of {0} was deleted: nobody signs in for it")]
    DeletedCustomer(CustomerId),
    #[error("there is no user {0}: name one by email address or id (usr_7)")]
    Unknown(String),
    #[error("there is no user {0}")]
    NoUser(UserId),
    #[error("you cannot do this to yourself: ask another admin")]
    Oneself,
    #[error("the last admin who is not disabled is {0}: make another one first")]
    LastAdmin(String),
    #[error("the user {0} is disabled")]
    IsDisabled(String),
    #[error("the user {0} is not disabled")]
    IsEnabled(String),
    #[error("the user {email} has the role {role} already")]
    SameRole { email: String, role: Role },
    #[error("there is no session {0} of this user")]
    NoSession(String),
    #[error("enough links were mailed to this user for now: the next can be after {until}")]
    EnoughMailed { until: String },
    #[error("{0} has no second factor")]
    NoSecondFactor(String),
    #[error("there is already a user with the email {0}")]
    Taken(String),
    #[error("the password or the code of {0} is not right")]
    NotProved(String),
    #[error("a user has {TOKENS_PER_USER_MAX} tokens at most: revoke one that is not used any more")]
    TooManyTokens,
    #[error(
        "the token is not valid: it is over, was revoked, or ended with another password or role; make another one with `ezscale user token add`"
    )]
    BadToken,
    #[error("there is no token {0}")]
    NoToken(TokenId),
    #[error("the name of a token has between 1 and 100 characters and no control characters")]
    TokenName,
    #[error("a token is valid for 1 to {TOKEN_DAYS_MAX} days, not {0}")]
    TokenDays(i64),
    #[error(transparent)]
    Approval(#[from] ActionError),
    #[error("open the second factor")]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("store the user")]
    Database(#[from] sqlx::Error),
    #[error("ask what time it is")]
    Clock(#[from] ClockError),
    #[error("record it in the audit log")]
    Audit(#[from] AuditError),
    #[error("notify the user")]
    Event(#[from] EventError),
    #[error("ask for a link")]
    PasswordReset(#[from] PasswordResetError),
}

schemas::error_codes! {
    UserError: "user";
    of [Role, Password, Database, Clock, Audit, Event, PasswordReset, Approval, Secret]
    source []
    NotFound:
        UnknownCustomer = "unknown_customer", Unknown = "unknown", NoUser = "no_user", NoSession = "no_session",
        NoToken = "no_token";
    Refused: Email = "email", Name = "name", Customer = "customer", Oneself = "oneself",
        NotProved = "not_proved", BadToken = "bad_token", TokenName = "token_name",
        TokenDays = "token_days";
    Conflict:
        LastAdmin = "last_admin", IsDisabled = "is_disabled", IsEnabled = "is_enabled", SameRole = "same_role",
        NoSecondFactor = "no_second_factor", Taken = "taken",
        DeletedCustomer = "deleted_customer";
    Limit: EnoughMailed = "enough_mailed", TooManyTokens = "too_many_tokens";
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Failure {
        Failure::of(error, "look after users")
    }
}

/// A user to be made.
#[derive(Clone)]
pub struct NewUser<'a> {
    pub email: &'a str,
    pub name: &'a str,
    pub role: Role,
    pub customer: Option<CustomerId>,
    pub password: &'a str,
}

impl std::fmt::Debug for NewUser<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser")
            .field("email", &self.email)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Whether there is such a customer.
pub(super) async fn check_customer(connection: &mut AnyConnection, customer: CustomerId) -> Result<(), UserError> {
    if !identity::customer_exists(&mut *connection, customer).await? {
        return Err(UserError::UnknownCustomer(customer));
    }
    match identity::customer_is_active(connection, customer).await? {
        true => Ok(()),
        false => Err(UserError::DeletedCustomer(customer)),
    }
}

/// A user who can be added: what was typed is acceptable, and the password is hashed, which takes a while.
#[derive(Debug)]
pub struct CheckedUser {
    email: String,
    name: String,
    role: Role,
    customer: Option<CustomerId>,
    password_hash: NewHash,
}

/// Makes a user. An admin who waits for a second admin is there and cannot sign in yet.
///
/// # Errors
/// When the email, name, role or password is not acceptable, or the email is taken.
pub async fn create_user(db: &Database, new: &NewUser<'_>, by: By) -> Result<UserId, UserError> {
    let checked = check_user(new).await?;
    let now_ms = clock::of(db.pool()).await?.now_ms();
    let mut act = Act::begin(db, by, now_ms).await?;
    let (connection, by) = act.asking();
    let (id, managed) = add_user(connection, &checked, by, now_ms).await?;
    managed.commit(act).await?;
    Ok(id)
}

/// Checks what was typed, before the transaction in which it is added.
///
/// # Errors
/// When the email, name, role or password is not acceptable.
pub async fn check_user(new: &NewUser<'_>) -> Result<CheckedUser, UserError> {
    let email = normalised_email(new.email);
    let plausible = email
        .split_once('@')
        .is_some_and(|(local, host)| !local.is_empty() && host.contains('.') && !host.contains('@'));
    let may_hold = |letter: char| is_plain(letter) && !letter.is_whitespace();
    if !plausible || email.chars().count() > MAX_NAME_CHARS || !email.chars().all(may_hold) {
        return Err(UserError::Email(new.email.to_owned()));
    }
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || !is_plain_text(name) {
        return Err(UserError::Name);
    }
    if (new.role == Role::Customer) != new.customer.is_some() {
        return Err(UserError::Customer);
    }
    let password_hash = NewHash::of(new.password, &email, name).await?;
    Ok(CheckedUser {
        name: name.to_owned(),
        email,
        role: new.role,
        customer: new.customer,
        password_hash,
    })
}

/// Adds a user. Where a second admin decides on another one, they are there and cannot sign in until it is approved.
///
/// # Errors
/// When the email is taken, or there is no such customer.
pub async fn add_user(
    connection: &mut AnyConnection,
    new: &CheckedUser,
    by: &By,
    now_ms: i64,
) -> Result<(UserId, ManagedChange), UserError> {
    if let Some(customer) = new.customer {
        check_customer(&mut *connection, customer).await?;
    }
    if identity::email_is_taken(&mut *connection, &new.email).await? {
        return Err(UserError::Taken(new.email.clone()));
    }
    let row = NewUserRow {
        email: &new.email,
        name: &new.name,
        role: new.role,
        customer: new.customer,
        password_hash: new.password_hash.as_str(),
    };
    let id = identity::add_user(&mut *connection, row, now_ms).await?;
    let mut risk = Risk::Normal;
    if new.role == Role::Admin {
        // Whoever asks must not count as the second one.
        identity::set_disabled(&mut *connection, id, Some(now_ms)).await?;
        let wanted = wanted::admin_created(id, "Add the admin", &new.email);
        match action::gate(&mut *connection, &wanted, by, now_ms).await? {
            Gate::Waits(requested) => return Ok((id, ManagedChange::Waits(requested))),
            Gate::Passes(of) => risk = of,
        }
        identity::set_disabled(&mut *connection, id, None).await?;
        // The first admin is no news.
        if !identity::has_other_admin(connection, id).await? {
            risk = Risk::Normal;
        }
    }
    let note = Note::new("user.add", id)
        .change(serde_json::json!({ "after": { "role": new.role.name(), "customer": new.customer } }))
        .personal(serde_json::json!({ "after": { "email": new.email, "name": new.name } }))
        .risk(risk);
    Ok((id, ManagedChange::Done(note)))
}
