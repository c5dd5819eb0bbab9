//! Users, as those see them who manage users.

use sqlx::any::AnyRow;
use sqlx::{AnyExecutor, Row as _};

use super::{Role, role_in};
use crate::ids::{CustomerId, UserId};

/// Users of one answer at most; one more tells that there are others.
pub const MAX_ACCOUNTS: i64 = 200;

/// A user, as those see them who manage users.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Account {
    pub id: UserId,
    pub email: String,
    pub name: String,
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

/// Which users to list; what is not set is not asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountFilter<'a> {
    /// A part of the name or email address, or an id.
    pub search: &'a str,
    pub role: Option<Role>,
    pub is_disabled: Option<bool>,
    /// Those after this one: the last of the page before.
    pub after: Option<UserId>,
}

/// How long a session lasts after it was last used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdleLimits {
    pub customer_ms: i64,
    pub staff_ms: i64,
}

const SELECT: &str = "SELECT u.id, u.email, u.name, u.role, u.customer_id, c.name AS customer_name, u.created_at_ms, \
     u.disabled_at_ms, u.last_seen_at_ms, u.two_factor_at_ms, u.password_changed_at_ms, \
     (SELECT count(*) FROM sessions s WHERE s.user_id = u.id AND u.disabled_at_ms IS NULL AND s.expires_at_ms > $1 \
      AND s.last_seen_at_ms > $1 - CASE WHEN u.role = 'customer' THEN $2 ELSE $3 END) AS sessions \
     FROM users u LEFT JOIN customers c ON c.id = u.customer_id";

/// Users by id, at most `limit` and one more than [`MAX_ACCOUNTS`].
pub async fn accounts(
    db: impl AnyExecutor<'_>,
    filter: AccountFilter<'_>,
    idle: IdleLimits,
    now_ms: i64,
    limit: i64,
) -> Result<Vec<Account>, sqlx::Error> {
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
        .bind(idle.customer_ms)
        .bind(idle.staff_ms)
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
        .bind(limit.clamp(1, MAX_ACCOUNTS + 1))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

/// One user; `None` where there is none of this id.
pub async fn account(
    db: impl AnyExecutor<'_>,
    id: UserId,
    idle: IdleLimits,
    now_ms: i64,
) -> Result<Option<Account>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE u.id = $4"));
    let row = sqlx::query(sql)
        .bind(now_ms)
        .bind(idle.customer_ms)
        .bind(idle.staff_ms)
        .bind(id.0)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &AnyRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        id: UserId(row.try_get("id")?),
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        role: role_in(row)?,
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
