//! How those who sign in are made, and why they are not.

use activity::audit::{Actor, AuditError, Risk};
use activity::event::EventError;
use activity::password_reset::PasswordResetError;
use schemas::clock::{self, ClockError};
use schemas::db::Database;
use schemas::identity::{self, NewUserRow, Role, RoleError, normalised_email};
use schemas::ids::{CustomerId, UserId};
use sqlx::AnyConnection;

use super::manage::{self, Change};
use super::password::{NewHash, PasswordError};

/// Longest name or email, in characters.
const MAX_NAME_CHARS: usize = 200;

/// Why a user was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error(transparent)]
    Role(#[from] RoleError),
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
    PasswordReset(#[from] PasswordResetError),
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
    match identity::customer_exists(connection, customer).await? {
        true => Ok(()),
        false => Err(UserError::UnknownCustomer(customer)),
    }
}

/// Makes a user.
///
/// # Errors
/// When the email, name, role or password is not acceptable, or the email is taken.
pub async fn create_user(db: &Database, new: &NewUser<'_>, actor: Actor<'_>) -> Result<UserId, UserError> {
    let email = normalised_email(new.email);
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
    let now_ms = clock::of(db).await?.now_ms();
    let mut transaction = db.begin_write().await?;
    if let Some(customer) = new.customer {
        check_customer(&mut transaction, customer).await?;
    }
    if identity::email_is_taken(&mut transaction, &email).await? {
        return Err(UserError::Taken(email));
    }
    let row = NewUserRow {
        email: &email,
        name,
        role: new.role,
        customer: new.customer,
        password_hash: password_hash.as_str(),
    };
    let id = identity::add_user(&mut transaction, row, now_ms).await?;
    let change = serde_json::json!({
        "after": { "email": email, "name": name, "role": new.role.name(), "customer": new.customer },
    });
    // The first admin is no news.
    let risk = match new.role {
        Role::Admin if identity::has_other_admin(&mut *transaction, id).await? => Risk::High,
        _ => Risk::Normal,
    };
    let by = Change { actor, now_ms };
    manage::record(&mut transaction, by, "user.add", id, change, risk).await?;
    transaction.commit().await?;
    Ok(id)
}
