//! Which columns hold sealed values.

use std::collections::BTreeMap;

use sqlx::{AnyExecutor, Row as _};

/// A column of secrets; its table's key is `id`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    pub table: &'static str,
    pub column: &'static str,
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.table, self.column)
    }
}

const fn column(table: &'static str, column: &'static str) -> Column {
    Column { table, column }
}

/// What an authenticator app and we share.
pub const TWO_FACTOR: Column = column("users", "two_factor_secret");
/// What signs requests to an endpoint; of a Discord channel, its address.
pub const WEBHOOK: Column = column("webhook_endpoints", "secret");
/// What signed before the last rotation, and signs beside it for a while.
pub const WEBHOOK_PREVIOUS: Column = column("webhook_endpoints", "previous_secret");

/// Every column of secrets. One that is added here is sealed in existing databases at the next start.
pub const COLUMNS: [Column; 3] = [TWO_FACTOR, WEBHOOK, WEBHOOK_PREVIOUS];

/// What a column holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnStatus {
    pub column: Column,
    /// Sealed values by the key that sealed them.
    pub sealed: BTreeMap<String, i64>,
    /// Values that are not sealed.
    pub plain: i64,
}

/// Counts a column's values by the key that sealed them.
///
/// # Errors
/// As the database answers.
pub async fn column_status(db: impl AnyExecutor<'_>, column: Column) -> Result<ColumnStatus, sqlx::Error> {
    let Column { table, column: name } = column;
    let sql = format!(
        "SELECT CASE WHEN {name} LIKE 'sealed:1:%' THEN substr({name}, 10, 16) ELSE '' END AS key_id, count(*) AS n \
         FROM {table} WHERE {name} IS NOT NULL GROUP BY 1"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(db).await?;
    let mut status = ColumnStatus {
        column,
        sealed: BTreeMap::new(),
        plain: 0,
    };
    for row in rows {
        let (key, count): (String, i64) = (row.try_get("key_id")?, row.try_get("n")?);
        match key.is_empty() {
            true => status.plain = count,
            false => drop(status.sealed.insert(key, count)),
        }
    }
    Ok(status)
}
