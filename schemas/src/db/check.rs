//! Whether a database is sound, and whether it takes a row right now.
//!
//! SQLite reads its own file through at the start (`PRAGMA quick_check`): structure, not indexes. What is read within
//! the caller's limit holds up the start and refuses a damaged file; a larger database is checked to the end while the
//! program runs, and [`Database::check_state`] says what became of it. PostgreSQL checks itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row as _;

use super::{Backend, Database, DatabaseError};

/// Findings of one check at most: the first ones say enough.
const FINDINGS_MAX: u32 = 5;

/// What is known of a database's soundness.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum CheckState {
    /// Nobody asked, or the database checks itself.
    #[default]
    NotChecked,
    Running,
    Sound,
    /// What was found, in the database's words.
    Damaged(String),
    /// The check could not be made.
    Failed(String),
}

/// The state of the check at the start, shared by the handles of a database.
#[derive(Debug, Default)]
pub(super) struct CheckResult(Mutex<CheckState>);

impl CheckResult {
    fn set(&self, state: CheckState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Whether SQLite said that the file is damaged, or is no database.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    /// SQLITE_CORRUPT and SQLITE_NOTADB; further bits of the extended code say which kind.
    const DAMAGE: [i64; 2] = [11, 26];
    let Some(error) = error.as_database_error() else {
        return false;
    };
    let code = error.code().and_then(|code| code.parse::<i64>().ok());
    // PostgreSQL's codes have five characters, and a number among them is no SQLite code of these.
    code.is_some_and(|code| DAMAGE.contains(&(code & 0xff)) && code < 10_000)
}

impl Database {
    /// Checks a SQLite file, for `limit` at most; what takes longer goes on in the background.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] when damage was found within the limit.
    pub async fn check_at_start(&self, limit: Duration) -> Result<CheckState, DatabaseError> {
        if self.backend == Backend::Postgres {
            return Ok(CheckState::NotChecked);
        }
        self.checked.set(CheckState::Running);
        let database = self.clone();
        let mut check = tokio::spawn(async move {
            let state = database.quick_check().await;
            match &state {
                CheckState::Damaged(findings) => {
                    tracing::error!(
                        findings,
                        "the database is damaged: stop, keep a copy of it, restore a backup"
                    );
                }
                CheckState::Failed(error) => tracing::error!(error, "the database could not be checked"),
                _ => {}
            }
            database.checked.set(state);
        });
        if tokio::time::timeout(limit, &mut check).await.is_err() {
            tracing::info!(
                limit_s = limit.as_secs(),
                "the database is large: it is checked to the end while ezscale runs, see /readyz"
            );
        }
        match self.check_state() {
            CheckState::Damaged(findings) => Err(DatabaseError::Damaged {
                url: self.url.to_string(),
                findings,
            }),
            state => Ok(state),
        }
    }

    /// What became of [`Database::check_at_start`].
    pub fn check_state(&self) -> CheckState {
        let state = self.checked.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    async fn quick_check(&self) -> CheckState {
        let sql = format!("PRAGMA quick_check({FINDINGS_MAX})");
        let rows = match sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&self.pool).await {
            Ok(rows) => rows,
            Err(error) if is_damage(&error) => return CheckState::Damaged(error.to_string()),
            Err(error) => return CheckState::Failed(error.to_string()),
        };
        let findings: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        match findings.as_slice() {
            [one] if one == "ok" => CheckState::Sound,
            [] => CheckState::Failed("quick_check answered nothing".to_owned()),
            // SQLite puts several findings on the lines of one row.
            _ => CheckState::Damaged(findings.join("; ").replace('\n', "; ")),
        }
    }

    /// Writes a row and commits it, as any change is: what an answer of a reader does not tell.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn probe_write(&self, now_ms: i64) -> Result<(), sqlx::Error> {
        let mut transaction = self.begin_write().await?;
        sqlx::query(
            "INSERT INTO probes (name, at_ms) VALUES ('readyz', $1) ON CONFLICT (name) DO UPDATE SET at_ms = $1",
        )
        .bind(now_ms)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_sound_database_is_sound_and_takes_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        assert_eq!(database.check_state(), CheckState::NotChecked);
        assert_eq!(database.check_at_start(LIMIT).await.unwrap(), CheckState::Sound);
        database.probe_write(1).await.unwrap();
        database.probe_write(2).await.unwrap();
    }

    #[tokio::test]
    async fn damage_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        let database = Database::open(&url).await.unwrap();
        for number in 0..2_000 {
            sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2)")
                .bind(format!("setting {number}"))
                .bind("x".repeat(200))
                .execute(database.pool())
                .await
                .unwrap();
        }
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(database.pool())
            .await
            .unwrap();
        database.pool().close().await;
        let path = dir.path().join("ezscale.db");
        let bytes = std::fs::metadata(&path).unwrap().len();
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(bytes - 200_000)).unwrap();
        file.write_all(&vec![0xff; 150_000]).unwrap();
        drop(file);
        // It opens: the schema is at the beginning.
        let database = Database::open(&url).await.unwrap();
        let error = database.check_at_start(LIMIT).await.unwrap_err().to_string();
        assert!(
            error.contains("restore a backup") && error.contains("ezscale.db"),
            "{error}"
        );
        assert!(matches!(database.check_state(), CheckState::Damaged(_)));
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ezscale.db"), vec![0x55; 8_192]).unwrap();
        let url = Database::default_url(dir.path());
        let error = Database::open(&url).await.unwrap_err().to_string();
        assert!(
            error.contains("is damaged") && error.contains("restore a backup"),
            "{error}"
        );
    }
}
