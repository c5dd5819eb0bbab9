//! Opening a database's secrets at the start of a process: the key file is read, or made; what an earlier version stored as
//! it is gets sealed.

use sqlx::Row as _;

use crate::db::{Backend, Database};
use crate::secret::{
    COLUMNS, Column, ColumnStatus, KeyFile, SecretError, Vault, column_status, is_sealed, make_current, recorded_keys,
};

/// The setting that says how many of [`COLUMNS`] are sealed: a database is looked through once, and again when the list grows.
const SEALED_COLUMNS: &str = "sealed_columns";
/// Values sealed in one transaction.
const BATCH: i64 = 100;

/// What opening did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unlocked {
    /// The key file was made.
    pub is_new: bool,
    /// Values of an earlier version that were sealed.
    pub sealed: u64,
    /// Copies of those values may still be in free pages of the database's files.
    pub remains: bool,
}

/// Opens a database's secrets with the keys of a file. The file is made where there is none and nothing is sealed yet. May be
/// killed at any moment and begun again.
///
/// # Errors
/// When the file is missing, damaged, can be read by others, or is not this database's.
pub async fn unlock(database: Database, file: &KeyFile) -> Result<(Database, Unlocked), SecretError> {
    let mut done = Unlocked::default();
    let recorded = recorded_keys(database.pool()).await?;
    let ring = match (file.read()?, recorded.last()) {
        (Some(ring), _) => ring,
        (None, Some(key)) => {
            return Err(SecretError::Missing {
                path: file.path().to_owned(),
                key: key.clone(),
            });
        }
        (None, None) => {
            done.is_new = true;
            file.create()?
        }
    };
    if let Some(key) = recorded.iter().find(|key| ring.find(key).is_none()) {
        return Err(SecretError::UnknownKey {
            path: file.path().to_owned(),
            key: key.clone(),
        });
    }
    let vault = Vault::new(file.clone(), ring);
    if recorded.is_empty() {
        let newest = vault.newest()?;
        let mut transaction = database.begin_write().await?;
        // Another process may have been faster, with another file.
        let meanwhile = recorded_keys(&mut *transaction).await?;
        match meanwhile.last() {
            Some(key) if *key != newest => {
                return Err(SecretError::UnknownKey {
                    path: file.path().to_owned(),
                    key: key.clone(),
                });
            }
            Some(_) => {}
            None => {
                make_current(&mut transaction, &newest).await?;
                transaction.commit().await?;
            }
        }
    }
    let database = database.with_vault(vault);
    if !is_sealed_up(&database).await? {
        for column in COLUMNS {
            done.sealed += seal_plain(&database, column).await?;
        }
        // Also where a process was killed that had sealed them.
        let status = database.secret_status().await?;
        let has_secrets = status.iter().any(|column| !column.sealed.is_empty());
        done.remains = has_secrets && !forget_plain(&database).await;
        note_sealed_up(&database).await?;
    }
    Ok((database, done))
}

async fn is_sealed_up(database: &Database) -> Result<bool, sqlx::Error> {
    let noted: Option<String> = sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
        .bind(SEALED_COLUMNS)
        .fetch_optional(database.pool())
        .await?;
    Ok(noted.is_some_and(|count| count == COLUMNS.len().to_string()))
}

async fn note_sealed_up(database: &Database) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
        .bind(SEALED_COLUMNS)
        .bind(COLUMNS.len().to_string())
        .execute(database.pool())
        .await?;
    Ok(())
}

/// Seals what a column holds as it is; answers how many values.
async fn seal_plain(database: &Database, column: Column) -> Result<u64, SecretError> {
    let Column { table, column: name } = column;
    let select = format!(
        "SELECT id, {name} AS value FROM {table} WHERE {name} IS NOT NULL AND {name} NOT LIKE 'sealed:1:%' ORDER BY id LIMIT $1"
    );
    let update = format!("UPDATE {table} SET {name} = $1 WHERE id = $2 AND {name} = $3");
    let mut sealed = 0;
    loop {
        let mut transaction = database.begin_write().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select.clone()))
            .bind(BATCH)
            .fetch_all(&mut *transaction)
            .await?;
        if rows.is_empty() {
            return Ok(sealed);
        }
        for row in &rows {
            let (id, plain): (i64, String) = (row.try_get("id")?, row.try_get("value")?);
            debug_assert!(!is_sealed(&plain), "the statement leaves those out");
            let value = database.vault().seal(&mut transaction, column, id, &plain).await?;
            let changed = sqlx::query(sqlx::AssertSqlSafe(update.clone()))
                .bind(value)
                .bind(id)
                .bind(plain)
                .execute(&mut *transaction)
                .await?;
            sealed += changed.rows_affected();
        }
        transaction.commit().await?;
        crate::fault::at("secrets.sealed");
    }
}

/// Writes the database's files anew without what they keep of rows that were replaced; `false` where that did not work.
async fn forget_plain(database: &Database) -> bool {
    let statements: &[&'static str] = match database.backend() {
        Backend::Sqlite => &["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"],
        Backend::Postgres => &["VACUUM FULL users", "VACUUM FULL webhook_endpoints"],
    };
    for statement in statements {
        if let Err(error) = sqlx::raw_sql(*statement).execute(database.pool()).await {
            tracing::warn!(%error, statement, "the database's files still hold secrets as they were stored before");
            return false;
        }
    }
    true
}

impl Database {
    /// Counts the values of every column of secrets.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn secret_status(&self) -> Result<Vec<ColumnStatus>, sqlx::Error> {
        let mut all = Vec::with_capacity(COLUMNS.len());
        for column in COLUMNS {
            all.push(column_status(self.pool(), column).await?);
        }
        Ok(all)
    }
}
