//! The keys that a database says its values are sealed under, one of them current.

use sqlx::{AnyConnection, AnyExecutor, Row as _};

/// The ids of the keys that seal values of this database, the current one last.
///
/// # Errors
/// As the database answers.
pub async fn recorded_keys(db: impl AnyExecutor<'_>) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query("SELECT key_id FROM secret_keys ORDER BY is_current, created_at_ms, key_id")
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Makes a key the one that seals.
pub(crate) async fn make_current(connection: &mut AnyConnection, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE secret_keys SET is_current = 0 WHERE is_current = 1")
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO secret_keys (key_id, is_current, created_at_ms) VALUES ($1, 1, $2) \
         ON CONFLICT (key_id) DO UPDATE SET is_current = 1",
    )
    .bind(key)
    .bind(crate::clock::machine_now_ms())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets a key that is lost.
pub(crate) async fn forget(connection: &mut AnyConnection, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM secret_keys WHERE key_id = $1")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets every key but one.
pub(crate) async fn forget_others(connection: &mut AnyConnection, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM secret_keys WHERE key_id <> $1")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}
