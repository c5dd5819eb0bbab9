//! Users: who they are, and whether they may sign in.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::{Role, end_tokens, role_in};
use crate::db::next_id;
use crate::ids::{CustomerId, UserId};

/// A user, as most questions need them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub role: Role,
    /// Set exactly for the role customer.
    pub customer: Option<CustomerId>,
    pub disabled_at_ms: Option<i64>,
}

const SELECT: &str = "SELECT id, email, name, role, customer_id, disabled_at_ms FROM users";

fn read(row: &AnyRow) -> Result<User, sqlx::Error> {
    Ok(User {
        id: UserId(row.try_get("id")?),
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        role: role_in(row)?,
        customer: row.try_get::<Option<i64>, _>("customer_id")?.map(CustomerId),
        disabled_at_ms: row.try_get("disabled_at_ms")?,
    })
}

/// Emails are compared without case and surrounding space.
pub fn normalised_email(email: &str) -> String {
    email.trim().to_lowercase()
}

/// One user; `None` where there is none of this id.
pub async fn user(db: impl AnyExecutor<'_>, id: UserId) -> Result<Option<User>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// Who is named by an id (`usr_7`) or an email address.
pub async fn user_named(db: impl AnyExecutor<'_>, text: &str) -> Result<Option<UserId>, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM users WHERE id = $1 OR email = $2")
        .bind(text.trim().parse::<UserId>().map_or(0, |id| id.0))
        .bind(normalised_email(text))
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(UserId))
}

/// Whether there is any user.
pub async fn has_users(db: impl AnyExecutor<'_>) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM users LIMIT 1").fetch_optional(db).await?;
    Ok(row.is_some())
}

/// Whether a user has this (normalised) email.
pub async fn email_is_taken(connection: &mut AnyConnection, email: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM users WHERE email = $1")
        .bind(email)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Whether there is such a customer, and their account was not deleted.
pub async fn customer_is_active(connection: &mut AnyConnection, customer: CustomerId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM customers WHERE id = $1 AND deleted_at_ms IS NULL")
        .bind(customer.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Whether there is such a customer.
pub async fn customer_exists(connection: &mut AnyConnection, customer: CustomerId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM customers WHERE id = $1")
        .bind(customer.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Whether there is another admin, disabled or not.
pub async fn has_other_admin(db: impl AnyExecutor<'_>, user: UserId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM users WHERE role = 'admin' AND id <> $1 LIMIT 1")
        .bind(user.0)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// Whether there is another admin who may sign in.
pub async fn has_other_enabled_admin(db: impl AnyExecutor<'_>, user: UserId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM users WHERE role = 'admin' AND disabled_at_ms IS NULL AND id <> $1 LIMIT 1")
        .bind(user.0)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// The admins who may sign in, by id.
pub async fn enabled_admins(db: impl AnyExecutor<'_>) -> Result<Vec<UserId>, sqlx::Error> {
    let rows = sqlx::query("SELECT id FROM users WHERE role = 'admin' AND disabled_at_ms IS NULL ORDER BY id")
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| row.try_get(0).map(UserId)).collect()
}

/// The addresses of everybody in one of these roles who may sign in, by address.
pub async fn emails_of(connection: &mut AnyConnection, roles: &[Role]) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT role, email FROM users WHERE disabled_at_ms IS NULL AND role <> 'customer' ORDER BY email";
    let mut emails = Vec::new();
    for row in sqlx::query(sql).fetch_all(connection).await? {
        let role: String = row.try_get(0)?;
        if roles.iter().any(|wanted| wanted.name() == role) {
            emails.push(row.try_get(1)?);
        }
    }
    Ok(emails)
}

/// A user to be stored, checked by who calls.
#[derive(Clone, Copy)]
pub struct NewUserRow<'a> {
    /// Normalised ([`normalised_email`]), and nobody's.
    pub email: &'a str,
    pub name: &'a str,
    pub role: Role,
    /// Set exactly for the role customer.
    pub customer: Option<CustomerId>,
    pub password_hash: &'a str,
}

impl std::fmt::Debug for NewUserRow<'_> {
    /// Without the hash of the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUserRow")
            .field("email", &self.email)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Stores a user.
pub async fn add_user(connection: &mut AnyConnection, new: NewUserRow<'_>, now_ms: i64) -> Result<UserId, sqlx::Error> {
    let id = next_id(&mut *connection, "user").await?;
    sqlx::query(
        "INSERT INTO users (id, email, name, role, customer_id, password_hash, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(new.email)
    .bind(new.name)
    .bind(new.role.name())
    .bind(new.customer.map(|customer| customer.0))
    .bind(new.password_hash)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(UserId(id))
}

/// Keeps a user from signing in since an instant, or lets them again. Their tokens end.
pub async fn set_disabled(
    connection: &mut AnyConnection,
    user: UserId,
    disabled_at_ms: Option<i64>,
) -> Result<(), sqlx::Error> {
    end_tokens(&mut *connection, user).await?;
    sqlx::query("UPDATE users SET disabled_at_ms = $1 WHERE id = $2")
        .bind(disabled_at_ms)
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives a user another role. `customer` is set exactly for the role customer. Their tokens end.
pub async fn set_role(
    connection: &mut AnyConnection,
    user: UserId,
    role: Role,
    customer: Option<CustomerId>,
) -> Result<(), sqlx::Error> {
    end_tokens(&mut *connection, user).await?;
    sqlx::query("UPDATE users SET role = $1, customer_id = $2 WHERE id = $3")
        .bind(role.name())
        .bind(customer.map(|customer| customer.0))
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// The stored hash of a user's password.
pub async fn password_hash(db: impl AnyExecutor<'_>, user: UserId) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT password_hash FROM users WHERE id = $1")
        .bind(user.0)
        .fetch_optional(db)
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Gives a user another password. Their tokens end.
pub async fn set_password_hash(
    connection: &mut AnyConnection,
    user: UserId,
    password_hash: &str,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    end_tokens(&mut *connection, user).await?;
    sqlx::query("UPDATE users SET password_hash = $1, password_changed_at_ms = $2 WHERE id = $3")
        .bind(password_hash)
        .bind(now_ms)
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether this is a user's password still, and they may sign in; both stay so until the transaction ends.
pub async fn hold_by_password(
    connection: &mut AnyConnection,
    user: UserId,
    password_hash: &str,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query(
        "UPDATE users SET last_seen_at_ms = last_seen_at_ms WHERE id = $1 AND password_hash = $2 \
         AND disabled_at_ms IS NULL",
    )
    .bind(user.0)
    .bind(password_hash)
    .execute(connection)
    .await?;
    Ok(found.rows_affected() == 1)
}

/// Keeps every user of a customer from signing in, and ends their sessions; how many could until now.
pub async fn disable_users_of(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<u64, sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE user_id IN (SELECT id FROM users WHERE customer_id = $1)")
        .bind(customer.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM user_tokens WHERE user_id IN (SELECT id FROM users WHERE customer_id = $1)")
        .bind(customer.0)
        .execute(&mut *connection)
        .await?;
    let users = sqlx::query("UPDATE users SET disabled_at_ms = $1 WHERE customer_id = $2 AND disabled_at_ms IS NULL")
        .bind(now_ms)
        .bind(customer.0)
        .execute(connection)
        .await?;
    Ok(users.rows_affected())
}

/// Keeps an admin from signing in, and ends their sessions and tokens; whether they were one who could.
pub async fn disable_admin(connection: &mut AnyConnection, user: UserId, now_ms: i64) -> Result<bool, sqlx::Error> {
    end_tokens(&mut *connection, user).await?;
    sqlx::query("DELETE FROM sessions WHERE user_id = $1")
        .bind(user.0)
        .execute(&mut *connection)
        .await?;
    let disabled =
        sqlx::query("UPDATE users SET disabled_at_ms = $1 WHERE id = $2 AND role = 'admin' AND disabled_at_ms IS NULL")
            .bind(now_ms)
            .bind(user.0)
            .execute(connection)
            .await?;
    Ok(disabled.rows_affected() > 0)
}

/// Somebody who wants to sign in.
#[derive(Clone)]
pub struct Candidate {
    pub user: UserId,
    pub role: Role,
    customer: Option<i64>,
    pub password_hash: String,
    /// No password signs them in.
    pub is_disabled: bool,
    two_factor_at_ms: Option<i64>,
}

impl Candidate {
    /// The password alone is not enough.
    pub fn has_second_factor(&self) -> bool {
        self.two_factor_at_ms.is_some()
    }

    /// Whether the user is still as the password was checked: it takes a while, and may wait before. The user stays so until
    /// the transaction ends.
    pub async fn still_holds(&self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
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
pub async fn find_candidate(db: impl AnyExecutor<'_>, email: &str) -> Result<Option<Candidate>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, role, customer_id, password_hash, two_factor_at_ms, disabled_at_ms FROM users WHERE email = $1",
    )
    .bind(normalised_email(email))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(Candidate {
        user: UserId(row.try_get("id")?),
        role: role_in(&row)?,
        password_hash: row.try_get("password_hash")?,
        is_disabled: row.try_get::<Option<i64>, _>("disabled_at_ms")?.is_some(),
        customer: row.try_get("customer_id")?,
        two_factor_at_ms: row.try_get("two_factor_at_ms")?,
    }))
}
