//! Those who sign in, and their roles.

use billing::BillingError;
use billing::act::{Act, By, Note};
use billing::audit::{AuditError, Risk};
use billing::event::EventError;
use schemas::clock::{self, ClockError};
use schemas::db::{Database, next_id};
use schemas::ids::{CustomerId, UserId};
use sqlx::{AnyConnection, Row as _};

use super::password::{NewHash, PasswordError};

/// Longest name or email, in characters.
const MAX_NAME_CHARS: usize = 200;

/// What a user may see and do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Their own services and invoices.
    Customer,
    /// Traffic and exporters.
    Ops,
    /// Invoices and revenue of everybody.
    Finance,
    /// Exporters and traffic.
    Network,
    /// All that staff may.
    Admin,
}

impl Role {
    /// As stored.
    pub fn name(self) -> &'static str {
        match self {
            Role::Customer => "customer",
            Role::Ops => "ops",
            Role::Finance => "finance",
            Role::Network => "network",
            Role::Admin => "admin",
        }
    }

    /// As shown.
    pub fn label(self) -> &'static str {
        match self {
            Role::Customer => "Customer",
            Role::Ops => "Operations",
            Role::Finance => "Finance",
            Role::Network => "Network engineer",
            Role::Admin => "Administrator",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Role, UserError> {
        match text {
            "customer" => Ok(Role::Customer),
            "ops" => Ok(Role::Ops),
            "finance" => Ok(Role::Finance),
            "network" => Ok(Role::Network),
            "admin" => Ok(Role::Admin),
            other => Err(UserError::Role(other.to_owned())),
        }
    }
}

/// Why a user was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("a role is one of customer, ops, finance, network, admin, not {0:?}")]
    Role(String),
    #[error("{0:?} is not an email address")]
    Email(String),
    #[error("a name has between 1 and {MAX_NAME_CHARS} characters")]
    Name,
    #[error("a user with the role customer belongs to a customer, any other role to none")]
    Customer,
    #[error("there is no customer {0}")]
    UnknownCustomer(CustomerId),
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
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("store the user")]
    Database(#[from] sqlx::Error),
    #[error("ask what time it is")]
    Clock(#[from] ClockError),
    #[error("record it in the audit log")]
    Audit(#[from] AuditError),
    #[error("tell the user")]
    Event(#[from] EventError),
    #[error("ask for a link")]
    Billing(#[from] BillingError),
}

/// A user that is signed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub role: Role,
    /// Set exactly for the role customer.
    pub customer: Option<CustomerId>,
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

/// Emails are compared without case and surrounding space.
pub(super) fn normalised(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Whether there is such a customer.
pub(super) async fn check_customer(connection: &mut AnyConnection, customer: CustomerId) -> Result<(), UserError> {
    let found = sqlx::query("SELECT id FROM customers WHERE id = $1")
        .bind(customer.0)
        .fetch_optional(connection)
        .await?;
    match found {
        Some(_) => Ok(()),
        None => Err(UserError::UnknownCustomer(customer)),
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

/// Makes a user.
///
/// # Errors
/// When the email, name, role or password is not acceptable, or the email is taken.
pub async fn create_user(db: &Database, new: &NewUser<'_>, by: By) -> Result<UserId, UserError> {
    let checked = check_user(new).await?;
    let now_ms = clock::of(db).await?.now_ms();
    let mut act = Act::begin(db, by, now_ms).await?;
    let (id, note) = add_user(act.connection(), &checked, now_ms).await?;
    act.commit(note).await?;
    Ok(id)
}

/// Checks what was typed, before the transaction in which it is added.
///
/// # Errors
/// When the email, name, role or password is not acceptable.
pub async fn check_user(new: &NewUser<'_>) -> Result<CheckedUser, UserError> {
    let email = normalised(new.email);
    let plausible = email
        .split_once('@')
        .is_some_and(|(local, host)| !local.is_empty() && host.contains('.') && !host.contains('@'));
    if !plausible || email.chars().count() > MAX_NAME_CHARS || email.chars().any(char::is_whitespace) {
        return Err(UserError::Email(new.email.to_owned()));
    }
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
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

/// Adds a user.
///
/// # Errors
/// When the email is taken, or there is no such customer.
pub async fn add_user(
    connection: &mut AnyConnection,
    new: &CheckedUser,
    now_ms: i64,
) -> Result<(UserId, Note), UserError> {
    if let Some(customer) = new.customer {
        check_customer(&mut *connection, customer).await?;
    }
    let taken = sqlx::query("SELECT id FROM users WHERE email = $1")
        .bind(&new.email)
        .fetch_optional(&mut *connection)
        .await?;
    if taken.is_some() {
        return Err(UserError::Taken(new.email.clone()));
    }
    let id = next_id(&mut *connection, "user").await?;
    sqlx::query(
        "INSERT INTO users (id, email, name, role, customer_id, password_hash, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(&new.email)
    .bind(&new.name)
    .bind(new.role.name())
    .bind(new.customer.map(|customer| customer.0))
    .bind(new.password_hash.as_str())
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let admins = sqlx::query("SELECT id FROM users WHERE role = 'admin' AND id <> $1 LIMIT 1")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    // The first admin is no news.
    let risk = match (new.role, admins) {
        (Role::Admin, Some(_)) => Risk::High,
        _ => Risk::Normal,
    };
    let note = Note::new("user.add", UserId(id))
        .change(serde_json::json!({ "after": { "role": new.role.name(), "customer": new.customer } }))
        .personal(serde_json::json!({ "after": { "email": new.email, "name": new.name } }))
        .risk(risk);
    Ok((UserId(id), note))
}

/// Somebody who wants to sign in.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) user: UserId,
    pub(crate) role: Role,
    customer: Option<i64>,
    pub(crate) password_hash: String,
    /// No password signs them in.
    pub(crate) is_disabled: bool,
    two_factor_at_ms: Option<i64>,
}

impl Candidate {
    /// The password alone is not enough.
    pub(crate) fn has_second_factor(&self) -> bool {
        self.two_factor_at_ms.is_some()
    }

    /// Whether the user is still as the password was checked: it takes a while, and may wait before. The user stays so until
    /// the transaction ends.
    pub(crate) async fn still_holds(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        let found = sqlx::query(
            "UPDATE users SET last_seen_at_ms = last_seen_at_ms WHERE id = $1 AND password_hash = $2 AND role = $3 \
             AND COALESCE(customer_id, 0) = $4 AND COALESCE(two_factor_at_ms, -1) = $5 AND disabled_at_ms IS NULL",
        )
        .bind(self.user.0)
        .bind(&self.password_hash)
        .bind(self.role.name())
        .bind(self.customer.unwrap_or(0))
        .bind(self.two_factor_at_ms.unwrap_or(-1))
        .execute(connection)
        .await?;
        Ok(found.rows_affected() == 1 && !self.is_disabled)
    }
}

impl std::fmt::Debug for Candidate {
    /// Without the hash of the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate")
            .field("user", &self.user)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Who has this email.
pub(crate) async fn find_for_sign_in(db: &Database, email: &str) -> Result<Option<Candidate>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, role, customer_id, password_hash, two_factor_at_ms, disabled_at_ms FROM users WHERE email = $1",
    )
    .bind(normalised(email))
    .fetch_optional(db.pool())
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let role: String = row.try_get("role")?;
    let Ok(role) = role.parse() else {
        return Ok(None);
    };
    Ok(Some(Candidate {
        user: UserId(row.try_get("id")?),
        role,
        password_hash: row.try_get("password_hash")?,
        is_disabled: row.try_get::<Option<i64>, _>("disabled_at_ms")?.is_some(),
        customer: row.try_get("customer_id")?,
        two_factor_at_ms: row.try_get("two_factor_at_ms")?,
    }))
}

/// The stored password hash of a user.
pub(crate) async fn password_hash_of(db: &Database, user: UserId) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT password_hash FROM users WHERE id = $1")
        .bind(user.0)
        .fetch_optional(db.pool())
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}
