//! A new key in place of the old.
//!
//! ```text
//! key file   old          old new            old new              old new            new
//! database   old          old                old, NEW current     NEW                NEW
//! values     old          old                old → new …          new                new
//!                 add key      make it current     seal anew           forget old key    remove it from the file
//! ```
//!
//! Every step is durable before the next begins, and each may be done again: who is killed in between begins where that one
//! stopped. A file with more than one key is a rotation that was not finished.

use sqlx::{AnyConnection, Row as _};

use crate::db::Database;
use crate::fault;
use crate::secret::{
    self, COLUMNS, Column, Key, KeyFile, Keyring, SecretError, TWO_FACTOR, Vault, WEBHOOK, WEBHOOK_PREVIOUS,
    column_status, make_current, prefix_of, recorded_keys,
};

/// Values sealed anew in one transaction.
const BATCH: i64 = 100;

/// What a rotation did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotated {
    /// The key that seals from now on.
    pub key: String,
    /// Keys that are gone.
    pub removed: Vec<String>,
    /// Values that were sealed anew.
    pub values: u64,
    /// It ended a rotation that an earlier process began.
    pub is_resumed: bool,
}

/// Replaces the key by a new one, or finishes the rotation that was begun. Other processes may run meanwhile.
///
/// # Errors
/// When the key file cannot be written, or another process rotates.
pub async fn rotate(database: &Database, file: &KeyFile) -> Result<Rotated, SecretError> {
    let _lock = file.lock()?;
    let mut ring = file.read()?.ok_or_else(|| SecretError::Empty {
        path: file.path().to_owned(),
    })?;
    let is_resumed = ring.0.len() > 1;
    if !is_resumed {
        ring.0.push(Key::random()?);
        file.replace(&ring)?;
        fault::at("secrets.key_added");
    }
    let vault = Vault::new(file.clone(), ring.clone());
    let key = vault.newest()?;
    let mut transaction = database.begin_write().await?;
    make_current(&mut transaction, &key).await?;
    transaction.commit().await?;
    fault::at("secrets.key_current");
    let mut values = 0;
    for column in COLUMNS {
        values += reseal(database, &vault, column, &key).await?;
    }
    forget_others(database, file, &key).await?;
    fault::at("secrets.key_forgotten");
    let removed = ring
        .0
        .iter()
        .map(|old| old.id.clone())
        .filter(|id| *id != key)
        .collect();
    ring.0.retain(|kept| kept.id == key);
    file.replace(&ring)?;
    Ok(Rotated {
        key,
        removed,
        values,
        is_resumed,
    })
}

/// Seals every value of a column under `key`; answers how many were not.
async fn reseal(database: &Database, vault: &Vault, column: Column, key: &str) -> Result<u64, SecretError> {
    let Column { table, column: name } = column;
    let select = format!(
        "SELECT id, {name} AS value FROM {table} WHERE {name} IS NOT NULL AND {name} NOT LIKE $1 ORDER BY id LIMIT $2"
    );
    let update = format!("UPDATE {table} SET {name} = $1 WHERE id = $2 AND {name} = $3");
    let mut values = 0;
    loop {
        let mut transaction = database.begin_write().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select.clone()))
            .bind(format!("{}%", prefix_of(key)))
            .bind(BATCH)
            .fetch_all(&mut *transaction)
            .await?;
        if rows.is_empty() {
            return Ok(values);
        }
        for row in rows {
            let (id, stored): (i64, String) = (row.try_get("id")?, row.try_get("value")?);
            let plain = vault.open(column, id, &stored)?;
            let changed = sqlx::query(sqlx::AssertSqlSafe(update.clone()))
                .bind(vault.seal_under(key, column, id, plain.reveal())?)
                .bind(id)
                .bind(stored)
                .execute(&mut *transaction)
                .await?;
            values += changed.rows_affected();
        }
        transaction.commit().await?;
        fault::at("secrets.sealed");
    }
}

/// Forgets every key but one, once nothing is sealed under them.
async fn forget_others(database: &Database, file: &KeyFile, key: &str) -> Result<(), SecretError> {
    let mut transaction = database.begin_write().await?;
    for column in COLUMNS {
        let status = column_status(&mut *transaction, column).await?;
        if let Some(other) = status.sealed.keys().find(|other| *other != key) {
            return Err(SecretError::UnknownKey {
                path: file.path().to_owned(),
                key: other.clone(),
            });
        }
    }
    secret::forget_others(&mut transaction, key).await?;
    transaction.commit().await?;
    Ok(())
}

/// What was given up with a lost key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Discarded {
    /// The key that seals from now on.
    pub key: String,
    /// Email addresses of those whose second factor is off.
    pub users: Vec<String>,
    /// Endpoints that are disabled until they have a new secret.
    pub endpoints: Vec<i64>,
}

/// Gives up what no key of the file opens, because the key is lost: second factors are turned off, with the sessions of their
/// users, and endpoints disabled. With `is_dry` it only says what that would be. Makes the key file where there is none.
///
/// # Errors
/// When the key file is damaged or cannot be made.
pub async fn discard(
    connection: &mut AnyConnection,
    file: &KeyFile,
    now_ms: i64,
    is_dry: bool,
) -> Result<Discarded, SecretError> {
    let ring = match file.read()? {
        Some(ring) => ring,
        None if is_dry => Keyring::default(),
        None => file.create()?,
    };
    let key = ring.0.last().map(|key| key.id.clone()).unwrap_or_default();
    let vault = Vault::new(file.clone(), ring.clone());
    let mut done = Discarded {
        key: key.clone(),
        ..Discarded::default()
    };
    for column in [TWO_FACTOR, WEBHOOK, WEBHOOK_PREVIOUS] {
        let Column { table, column: name } = column;
        let select = format!("SELECT id, {name} AS value FROM {table} WHERE {name} IS NOT NULL ORDER BY id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            let (id, stored): (i64, String) = (row.try_get("id")?, row.try_get("value")?);
            if vault.open(column, id, &stored).is_ok() {
                continue;
            }
            if column == TWO_FACTOR {
                let email = sqlx::query_scalar("SELECT email FROM users WHERE id = $1").bind(id);
                done.users.push(email.fetch_one(&mut *connection).await?);
            } else if !done.endpoints.contains(&id) {
                done.endpoints.push(id);
            }
            if is_dry {
                continue;
            }
            if column == WEBHOOK {
                // Nobody has seen it: `webhook rotate` gives out another. Unsigned requests are never sent.
                let unknown = format!("whsec_{}", Key::random()?.id);
                let sealed = vault.seal_under(&key, column, id, &unknown)?;
                disable_endpoint(connection, id, &sealed, now_ms).await?;
            } else {
                give_up(connection, column, id).await?;
            }
        }
    }
    if !is_dry {
        make_current(connection, &key).await?;
        for other in recorded_keys(&mut *connection).await? {
            if ring.find(&other).is_none() {
                secret::forget(&mut *connection, &other).await?;
            }
        }
    }
    Ok(done)
}

async fn disable_endpoint(
    connection: &mut AnyConnection,
    id: i64,
    sealed: &str,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE webhook_endpoints SET secret = $1, disabled_at_ms = coalesce(disabled_at_ms, $2) WHERE id = $3",
    )
    .bind(sealed)
    .bind(now_ms)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

async fn give_up(connection: &mut AnyConnection, column: Column, row: i64) -> Result<(), sqlx::Error> {
    let statements: &[&'static str] = if column == TWO_FACTOR {
        &[
            "UPDATE users SET two_factor_secret = NULL, two_factor_at_ms = NULL WHERE id = $1",
            "DELETE FROM recovery_codes WHERE user_id = $1",
            "DELETE FROM sessions WHERE user_id = $1",
            "DELETE FROM sign_ins WHERE user_id = $1",
        ]
    } else {
        &["UPDATE webhook_endpoints SET previous_secret = NULL, previous_until_ms = NULL WHERE id = $1"]
    };
    for statement in statements {
        sqlx::query(*statement).bind(row).execute(&mut *connection).await?;
    }
    Ok(())
}
