//! The schema of a database: what was applied to it, what is missing, and when it is left alone.
//!
//! * `schema_migrations` has a row for each migration that was applied: its number, its name, when, the SHA-256 of its SQL and
//!   the version of the program that applied it (of migrations before [`ORIGIN`]: the sum that the program had that applied
//!   that one, and no program).
//! * What is missing is applied in one transaction: a schema is never between two versions.
//! * A database that this program does not know is left as it is: a newer one, one that lacks a migration in the middle, one
//!   whose migrations are not those of this program.

use sqlx::any::AnyRow;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AnyConnection, Connection as _, Executor as _, Row as _};

use super::migrations::{AUDIT_SEAL, MIGRATIONS, ORIGIN, SEARCH};
use super::reach::reach;
use super::{ACQUIRE_TIMEOUT, Backend, Database, DatabaseError, Migration, opening_failed, without_password};
use crate::audit_chain;
use crate::file_format::PROGRAM_VERSION;
use crate::search;

/// Why a database must not be upgraded now; `None` where nothing speaks against it.
pub type UpgradeBlocker<'a> = &'a (dyn Fn() -> Option<String> + Sync);

/// What opening a database applied to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// The schema version before; 0 for a new database.
    pub from: i64,
    pub applied: Vec<Migration>,
}

impl Upgrade {
    /// The schema version after.
    pub fn to(&self) -> i64 {
        self.applied.last().map_or(self.from, |last| last.version)
    }
}

/// What became of a migration in a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrationState {
    Applied,
    Pending,
    /// It is missing although a later one was applied.
    Missing,
    /// What was applied under this number is not what this program has.
    Differs,
    /// This program does not know it.
    Unknown,
}

impl MigrationState {
    pub fn name(self) -> &'static str {
        match self {
            MigrationState::Applied => "applied",
            MigrationState::Pending => "pending",
            MigrationState::Missing => "missing",
            MigrationState::Differs => "differs",
            MigrationState::Unknown => "unknown",
        }
    }
}

/// A migration as a database and this program know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MigrationStatus {
    pub version: i64,
    pub name: String,
    pub state: MigrationState,
    pub applied_at_ms: Option<i64>,
    /// Who applied it, where that was recorded.
    pub program: Option<String>,
    /// SHA-256 of what was applied, where that was recorded.
    pub checksum: Option<String>,
}

/// The schema of a database beside that of this program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemaStatus {
    /// Without its password.
    pub url: String,
    /// Whether there is a database at all.
    pub exists: bool,
    /// Of the last migration that was applied; 0 where none was.
    pub version: i64,
    /// In order.
    pub migrations: Vec<MigrationStatus>,
}

impl SchemaStatus {
    /// What this program would apply.
    pub fn pending(&self) -> impl Iterator<Item = &MigrationStatus> {
        let is_pending = |migration: &&MigrationStatus| migration.state == MigrationState::Pending;
        self.migrations.iter().filter(is_pending)
    }

    /// Why this program does not open the database.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn check(&self) -> Result<(), DatabaseError> {
        let known = Database::known_version();
        if let Some(first) = self.migrations.first()
            && first.state == MigrationState::Differs
            && first.name != MIGRATIONS[0].name
        {
            let found = first.name.clone();
            return Err(DatabaseError::Unreleased { found });
        }
        let url = || self.url.clone();
        if let Some(last) = self.migrations.last().filter(|last| last.version > known) {
            return Err(DatabaseError::TooNew {
                url: url(),
                found: last.version,
                name: last.name.clone(),
                known,
                program: written_by(last.program.as_deref()),
            });
        }
        for migration in &self.migrations {
            let (url, version, name) = (url(), migration.version, migration.name.clone());
            match migration.state {
                MigrationState::Applied | MigrationState::Pending => {}
                MigrationState::Missing => return Err(DatabaseError::MissingMigration { url, version, name }),
                MigrationState::Differs | MigrationState::Unknown => {
                    return Err(DatabaseError::OtherMigration { url, version, name });
                }
            }
        }
        Ok(())
    }
}

/// Who wrote a schema, in words.
fn written_by(program: Option<&str>) -> String {
    match program {
        Some(program) => format!("ezscale {program}"),
        None => "a newer ezscale".to_owned(),
    }
}

/// A row of `schema_migrations`.
struct Applied {
    version: i64,
    name: String,
    at_ms: i64,
    checksum: Option<String>,
    program: Option<String>,
}

impl Applied {
    fn read(row: &AnyRow) -> Result<Applied, sqlx::Error> {
        // The columns that came with `ORIGIN` are empty or not there in what is older.
        let recorded = |column: &str| row.try_get::<String, _>(column).ok().filter(|text| !text.is_empty());
        Ok(Applied {
            version: row.try_get("version")?,
            name: row.try_get("name")?,
            at_ms: row.try_get("applied_at_ms")?,
            checksum: recorded("checksum"),
            program: recorded("program"),
        })
    }

    /// Whether this is the program's migration of that number.
    fn is(&self, known: &Migration) -> bool {
        match &self.checksum {
            Some(checksum) => checksum == known.checksum(),
            None => self.name == known.name,
        }
    }

    fn status(self, state: MigrationState) -> MigrationStatus {
        MigrationStatus {
            version: self.version,
            name: self.name,
            state,
            applied_at_ms: Some(self.at_ms),
            program: self.program,
            checksum: self.checksum,
        }
    }
}

/// What was applied, in order.
async fn applied(connection: &mut AnyConnection, url: &str) -> Result<Vec<Applied>, DatabaseError> {
    // Columns by name, and those of `ORIGIN` only once it was applied: a statement for all columns would fail, and sqlx with it,
    // when another process adds some in between. Not prepared: nobody asks twice.
    let first = "SELECT version, name, applied_at_ms FROM schema_migrations ORDER BY version";
    let all = "SELECT version, name, applied_at_ms, checksum, program FROM schema_migrations ORDER BY version";
    let failed = |source| DatabaseError::ReadSchema {
        url: without_password(url),
        source,
    };
    let read = |rows: Vec<AnyRow>| rows.iter().map(Applied::read).collect::<Result<Vec<_>, _>>();
    let rows = sqlx::raw_sql(first).fetch_all(&mut *connection).await;
    let found = rows.and_then(read).map_err(failed)?;
    if !found.iter().any(|applied| applied.version >= ORIGIN) {
        return Ok(found);
    }
    let rows = sqlx::raw_sql(all).fetch_all(connection).await;
    rows.and_then(read).map_err(failed)
}

/// What was applied beside what this program has.
fn compare(url: &str, exists: bool, applied: Vec<Applied>) -> SchemaStatus {
    let version = applied.last().map_or(0, |last| last.version);
    let mut migrations = Vec::new();
    let mut known = MIGRATIONS.iter().peekable();
    let not_applied = |known: &Migration| MigrationStatus {
        version: known.version,
        name: known.name.to_owned(),
        state: match known.version < version {
            true => MigrationState::Missing,
            false => MigrationState::Pending,
        },
        applied_at_ms: None,
        program: None,
        checksum: None,
    };
    for row in applied {
        while let Some(earlier) = known.next_if(|known| known.version < row.version) {
            migrations.push(not_applied(earlier));
        }
        let state = match known.next_if(|known| known.version == row.version) {
            Some(same) if row.is(same) => MigrationState::Applied,
            Some(_) => MigrationState::Differs,
            None => MigrationState::Unknown,
        };
        migrations.push(row.status(state));
    }
    migrations.extend(known.map(not_applied));
    SchemaStatus {
        url: without_password(url),
        exists,
        version,
        migrations,
    }
}

/// The known migrations that a database lacks, up to a version.
fn pending(status: &SchemaStatus, up_to: i64) -> Result<Vec<Migration>, DatabaseError> {
    status.check()?;
    let missing = |known: &&Migration| known.version > status.version && known.version <= up_to;
    Ok(MIGRATIONS.iter().filter(missing).copied().collect())
}

impl Database {
    /// Looks at the schema of a database, and changes nothing, nor makes a file.
    ///
    /// # Errors
    /// When the URL is not understood or the database cannot be read.
    pub async fn schema_status(url: &str) -> Result<SchemaStatus, DatabaseError> {
        sqlx::any::install_default_drivers();
        let backend = Backend::of(url)?;
        let opening = |source| opening_failed(url, source);
        let (open_url, has_table) = match backend {
            Backend::Sqlite => {
                let options: SqliteConnectOptions = url.parse().map_err(opening)?;
                if !options.get_filename().exists() {
                    return Ok(compare(url, false, Vec::new()));
                }
                let file = url.split('?').next().unwrap_or(url);
                let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'";
                (format!("{file}?mode=ro"), sql)
            }
            Backend::Postgres => {
                let sql = "SELECT count(*) FROM pg_tables WHERE tablename = 'schema_migrations' \
                           AND schemaname = ANY (current_schemas(false))";
                (url.to_owned(), sql)
            }
        };
        let mut connection = match backend {
            Backend::Sqlite => AnyConnection::connect(&open_url).await.map_err(opening)?,
            Backend::Postgres => reach(url, ACQUIRE_TIMEOUT).await?,
        };
        let row = sqlx::query(has_table).fetch_one(&mut connection).await;
        let tables: i64 = row.and_then(|row| row.try_get(0)).map_err(opening)?;
        let applied = match tables {
            0 => Vec::new(),
            _ => applied(&mut connection, url).await?,
        };
        connection.close().await.map_err(opening)?;
        Ok(compare(url, true, applied))
    }

    async fn applied(&self) -> Result<Vec<Applied>, DatabaseError> {
        let connection = self.pool().acquire().await;
        let mut connection = connection.map_err(|source| DatabaseError::ReadSchema {
            url: without_password(&self.url),
            source,
        })?;
        applied(&mut connection, &self.url).await
    }

    /// Applies what is missing, up to a version; answers what that was.
    pub(super) async fn migrate(
        &self,
        up_to: i64,
        hindrance: UpgradeBlocker<'_>,
    ) -> Result<Option<Upgrade>, DatabaseError> {
        let table = "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at_ms BIGINT NOT NULL)";
        let fail = |version, name| move |source| DatabaseError::Migrate { version, name, source };
        let begin = fail(0, "schema_migrations");
        sqlx::query(table).execute(self.pool()).await.map_err(begin)?;
        // What is current is not locked. Who finds something to do looks again under the lock: another may be at it.
        let status = compare(&self.url, true, self.applied().await?);
        if pending(&status, up_to)?.is_empty() {
            return Ok(None);
        }
        if status.version > 0
            && let Some(because) = hindrance()
        {
            // What hinders may be who has just upgraded it.
            let status = compare(&self.url, true, self.applied().await?);
            if pending(&status, up_to)?.is_empty() {
                return Ok(None);
            }
            return Err(DatabaseError::UpgradeRefused {
                url: self.url.to_string(),
                found: status.version,
                known: up_to,
                because,
            });
        }
        let mut transaction = self.begin_write().await.map_err(begin)?;
        if self.backend() == Backend::Postgres {
            // SQLite's transaction is alone already.
            let lock = transaction
                .execute("LOCK TABLE schema_migrations IN EXCLUSIVE MODE")
                .await;
            lock.map_err(begin)?;
        }
        let status = compare(&self.url, true, applied(&mut transaction, &self.url).await?);
        let missing = pending(&status, up_to)?;
        // All of them or none: a schema is never between two versions.
        for migration in &missing {
            let fail = || fail(migration.version, migration.name);
            transaction
                .execute(sqlx::raw_sql(migration.sql))
                .await
                .map_err(fail())?;
            match migration.version {
                SEARCH => search::index_all(&mut transaction).await.map_err(fail())?,
                AUDIT_SEAL => audit_chain::seal(&mut transaction).await.map_err(fail())?,
                _ => {}
            }
            sqlx::query("INSERT INTO schema_migrations (version, name, applied_at_ms) VALUES ($1, $2, $3)")
                .bind(migration.version)
                .bind(migration.name)
                .bind(crate::clock::machine_now_ms())
                .execute(&mut *transaction)
                .await
                .map_err(fail())?;
        }
        if up_to >= ORIGIN && !missing.is_empty() {
            record_origin(&mut transaction, status.version).await.map_err(begin)?;
        }
        transaction.commit().await.map_err(begin)?;
        let upgrade = Upgrade {
            from: status.version,
            applied: missing,
        };
        if upgrade.from > 0 && !upgrade.applied.is_empty() {
            tracing::info!(
                from = upgrade.from,
                to = upgrade.to(),
                "the schema of the database was upgraded"
            );
        }
        Ok(Some(upgrade).filter(|upgrade| !upgrade.applied.is_empty()))
    }
}

/// Says of what was applied with which sum, and of what was applied after version `from` who did.
async fn record_origin(connection: &mut AnyConnection, from: i64) -> Result<(), sqlx::Error> {
    for migration in MIGRATIONS {
        sqlx::query("UPDATE schema_migrations SET checksum = $1 WHERE version = $2 AND checksum = ''")
            .bind(migration.checksum())
            .bind(migration.version)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("UPDATE schema_migrations SET program = $1 WHERE version > $2")
        .bind(PROGRAM_VERSION)
        .bind(from)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn execute(url: &str, sql: &'static str) {
        let mut connection = AnyConnection::connect(&format!("{url}?mode=rw")).await.unwrap();
        connection.execute(sqlx::raw_sql(sql)).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn refusal(url: &str) -> String {
        let status = Database::schema_status(url).await.unwrap();
        let refused = Database::open(url).await.unwrap_err().to_string();
        assert_eq!(status.check().unwrap_err().to_string(), refused);
        refused
    }

    /// As of a version, closed again.
    async fn made_at(url: &str, version: i64) {
        let database = Database::open_at_version(url, version).await.unwrap();
        database.pool().close().await;
    }

    #[tokio::test]
    async fn a_new_database_says_who_made_it_and_of_what() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        let before = Database::schema_status(&url).await.unwrap();
        assert_eq!((before.exists, before.version), (false, 0));
        assert_eq!(before.pending().count(), MIGRATIONS.len());
        assert!(!dir.path().join("ezscale.db").exists(), "looking makes nothing");

        let database = Database::open(&url).await.unwrap();
        let upgrade = database.upgrade().unwrap();
        assert_eq!((upgrade.from, upgrade.to()), (0, Database::known_version()));
        assert_eq!(Database::open(&url).await.unwrap().upgrade(), None);

        let status = Database::schema_status(&url).await.unwrap();
        status.check().unwrap();
        assert_eq!(status.version, Database::known_version());
        for (found, known) in status.migrations.iter().zip(MIGRATIONS) {
            assert_eq!(found.state, MigrationState::Applied, "{found:?}");
            assert_eq!((found.version, found.name.as_str()), (known.version, known.name));
            assert_eq!(found.checksum.as_deref(), Some(known.checksum()));
            assert_eq!(found.program.as_deref(), Some(PROGRAM_VERSION));
        }
    }

    #[tokio::test]
    async fn what_was_applied_before_it_was_recorded_has_a_sum_and_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        made_at(&url, 5).await;
        let status = Database::schema_status(&url).await.unwrap();
        status.check().unwrap();
        let next = status.pending().next().unwrap();
        assert_eq!((status.version, next.version), (5, 6));
        assert!(status.migrations[..5].iter().all(|applied| applied.checksum.is_none()));

        let database = Database::open(&url).await.unwrap();
        assert_eq!(database.upgrade().unwrap().from, 5);
        let status = Database::schema_status(&url).await.unwrap();
        status.check().unwrap();
        assert!(status.migrations.iter().all(|applied| applied.checksum.is_some()));
        let recorded = status.migrations.iter().map(|applied| applied.program.is_some());
        assert_eq!(
            recorded.take(6).collect::<Vec<_>>(),
            [false, false, false, false, false, true]
        );
    }

    #[tokio::test]
    async fn a_newer_database_is_refused_with_who_wrote_it_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        made_at(&url, Database::known_version()).await;
        execute(
            &url,
            "INSERT INTO schema_migrations (version, name, applied_at_ms, checksum, program) \
             VALUES (9001, 'next century', 0, 'ff', '9.9.9')",
        )
        .await;
        let refused = refusal(&url).await;
        for part in [
            "ezscale.db has the schema version 9001 (next century)",
            "written by ezscale 9.9.9",
            &format!("knows {} at most", Database::known_version()),
            "restore a backup",
        ] {
            assert!(refused.contains(part), "{part:?} in {refused}");
        }
        execute(&url, "UPDATE schema_migrations SET program = '' WHERE version = 9001").await;
        assert!(refusal(&url).await.contains("written by a newer ezscale"));
    }

    #[tokio::test]
    async fn a_database_that_was_never_released_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        made_at(&url, Database::known_version()).await;
        for (change, undo, words) in [
            (
                "UPDATE schema_migrations SET checksum = 'ff' WHERE version = 4",
                "UPDATE schema_migrations SET checksum = '' WHERE version = 4",
                "migration 4 (payment reversals)",
            ),
            (
                "UPDATE schema_migrations SET version = -4 WHERE version = 4",
                "UPDATE schema_migrations SET version = 4 WHERE version = -4",
                "migration -4 (payment reversals)",
            ),
            (
                "DELETE FROM schema_migrations WHERE version = 4",
                "INSERT INTO schema_migrations (version, name, applied_at_ms) VALUES (4, 'payment reversals', 0)",
                "lacks migration 4 (payment reversals)",
            ),
            (
                "UPDATE schema_migrations SET name = 'first try', checksum = '' WHERE version = 1",
                "UPDATE schema_migrations SET name = 'schema' WHERE version = 1",
                "before the first release, whose schema (first try)",
            ),
        ] {
            execute(&url, change).await;
            let refused = refusal(&url).await;
            assert!(refused.contains(words), "{words:?} in {refused}");
            execute(&url, undo).await;
            Database::open(&url).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_upgrade_that_something_hinders_is_refused_and_a_current_database_opens() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        let hindrance = || Some("another process (pid 7) is at it".to_owned());
        // A new one is nobody's.
        let database = Database::open_unless(&url, &hindrance).await.unwrap();
        database.pool().close().await;
        Database::open_unless(&url, &hindrance).await.unwrap();

        let older = tempfile::tempdir().unwrap();
        let url = Database::default_url(older.path());
        made_at(&url, 3).await;
        let refused = Database::open_unless(&url, &hindrance).await.unwrap_err().to_string();
        assert!(refused.contains("has the schema version 3"), "{refused}");
        assert!(refused.ends_with("another process (pid 7) is at it"), "{refused}");
        assert_eq!(Database::schema_status(&url).await.unwrap().version, 3);
        Database::open(&url).await.unwrap();
    }
}
