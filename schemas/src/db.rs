//! The relational database behind one handle: SQLite by default, PostgreSQL by URL.
//!
//! Statements are written once, with `$1` parameters, in SQL that both take, through `sqlx::Any`, which carries BIGINT,
//! TEXT, DOUBLE PRECISION and bytes: booleans are 0/1, instants UTC milliseconds, exact decimals text.

mod check;
mod migrations;
mod reach;
mod schema;

use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, Row as _};

use check::CheckResult;
pub use check::CheckState;
use migrations::MIGRATIONS;
pub use migrations::Migration;
pub use schema::{MigrationState, MigrationStatus, SchemaStatus, Upgrade, UpgradeBlocker};

use crate::file_format::PROGRAM_VERSION;
use crate::secret::Vault;

/// Connections kept open at most.
const MAX_CONNECTIONS: u32 = 8;
/// How long a statement waits for another process's write lock on SQLite.
const SQLITE_BUSY_TIMEOUT_MS: u32 = 10_000;
/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database URL must start with sqlite:// or postgres://, not {url:?}")]
    UnknownScheme { url: String },
    #[error("the database URL {url} is not understood")]
    Url { url: String, source: sqlx::Error },
    #[error("open database {url}")]
    Open { url: String, source: sqlx::Error },
    /// PostgreSQL said no.
    #[error("open database {url}: {said}")]
    Refused { url: String, said: String },
    #[error("the database {url} does not answer within {seconds} s")]
    Silent { url: String, seconds: u64 },
    #[error(
        "the database {url} is damaged ({findings}): stop whatever uses it, keep a copy of the file and of its -wal and -shm, \
         look for disk errors in the kernel's log, then restore a backup (docs/durability.md says how)"
    )]
    Damaged { url: String, findings: String },
    #[error("apply migration {version} ({name})")]
    Migrate {
        version: i64,
        name: &'static str,
        source: sqlx::Error,
    },
    #[error(
        "the database was made by a version before the first release, whose schema ({found}) is not migrated: start with an empty one"
    )]
    Unreleased { found: String },
    #[error("read the schema version of the database {url}")]
    ReadSchema { url: String, source: sqlx::Error },
    #[error(
        "the database {url} has the schema version {found} ({name}), written by {program}, and this ezscale {PROGRAM_VERSION} \
         knows {known} at most: use that ezscale or a newer one, or restore a backup from before the upgrade (docs/upgrades.md)"
    )]
    TooNew {
        url: String,
        found: i64,
        name: String,
        known: i64,
        program: String,
    },
    #[error(
        "the database {url} lacks migration {version} ({name}), although later ones were applied: it was made by a program \
         that was never released; use that one, or restore a backup (docs/upgrades.md)"
    )]
    MissingMigration { url: String, version: i64, name: String },
    #[error(
        "migration {version} ({name}) of the database {url} is not the one that this ezscale {PROGRAM_VERSION} has: it was made \
         by a program that was never released; use that one, or restore a backup (docs/upgrades.md)"
    )]
    OtherMigration { url: String, version: i64, name: String },
    #[error(
        "the database {url} has the schema version {found} and must be upgraded to {known}, but not now: {because}"
    )]
    UpgradeRefused {
        url: String,
        found: i64,
        known: i64,
        because: String,
    },
}

crate::error_codes! {
    DatabaseError: "database";
    of []
    source []
    Refused: UnknownScheme = "unknown_scheme", Url = "url";
    Conflict: UpgradeRefused = "upgrade_refused";
    // What another program wrote and this one cannot open: as a file that cannot be read, for whoever runs it.
    Fault:
        Open = "open", Refused = "refused", Silent = "silent", Damaged = "damaged", Migrate = "migrate", ReadSchema = "read_schema",
        Unreleased = "unreleased", TooNew = "too_new", MissingMigration = "missing_migration",
        OtherMigration = "other_migration";
}

/// Which database answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    fn of(url: &str) -> Result<Backend, DatabaseError> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Ok(Backend::Sqlite),
            Some("postgres" | "postgresql") => Ok(Backend::Postgres),
            _ => Err(DatabaseError::UnknownScheme {
                url: without_password(url),
            }),
        }
    }
}

/// An open database with the current schema. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Database {
    pool: AnyPool,
    backend: Backend,
    vault: Vault,
    /// For messages: without its password.
    url: Arc<str>,
    discarded: Arc<AtomicU64>,
    checked: Arc<CheckResult>,
    upgrade: Option<Arc<Upgrade>>,
}

impl Database {
    /// Opens (SQLite: creates where missing) and migrates.
    ///
    /// # Errors
    /// When the URL is not understood, the database cannot be reached, or its schema is not one that this program knows: newer,
    /// or made by a program that was never released.
    pub async fn open(url: &str) -> Result<Database, DatabaseError> {
        Database::open_unless(url, &|| None).await
    }

    /// As [`Database::open`], but where migrations are missing in a database that has some, `hindrance` is asked first.
    ///
    /// # Errors
    /// As [`Database::open`]; [`DatabaseError::UpgradeRefused`] where something speaks against the upgrade.
    pub async fn open_unless(url: &str, hindrance: UpgradeBlocker<'_>) -> Result<Database, DatabaseError> {
        Database::open_up_to(url, Database::known_version(), hindrance).await
    }

    /// As [`Database::open`], with the schema of an earlier version: for tests of upgrades.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub async fn open_at_version(url: &str, version: i64) -> Result<Database, DatabaseError> {
        Database::open_up_to(url, version, &|| None).await
    }

    async fn open_up_to(url: &str, version: i64, hindrance: UpgradeBlocker<'_>) -> Result<Database, DatabaseError> {
        sqlx::any::install_default_drivers();
        let backend = Backend::of(url)?;
        let open_url = match backend {
            Backend::Sqlite if !url.contains('?') => format!("{url}?mode=rwc"),
            _ => url.to_owned(),
        };
        // Each connection to sqlite::memory: is a database of its own.
        let connections = if url.contains(":memory:") { 1 } else { MAX_CONNECTIONS };
        match backend {
            Backend::Sqlite => refuse_damaged(url, &open_url).await?,
            Backend::Postgres => Database::reach(url).await?,
        }
        let discarded = Arc::new(AtomicU64::new(0));
        let (discarded_idle, discarded_released) = (discarded.clone(), discarded.clone());
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if backend == Backend::Sqlite {
                        let pragmas = format!(
                            "PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT_MS}; PRAGMA journal_mode = WAL; \
                             PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                        );
                        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(pragmas))).await?;
                    }
                    Ok(())
                })
            })
            .before_acquire(move |connection, _| {
                let is_usable = !connection.is_in_transaction();
                count_discarded(is_usable, &discarded_idle);
                Box::pin(async move { Ok(is_usable) })
            })
            .after_release(move |connection, _| {
                let discarded = discarded_released.clone();
                Box::pin(async move {
                    let is_usable = match backend {
                        Backend::Sqlite => has_ended_its_transaction(connection).await?,
                        Backend::Postgres => is_outside_transaction(connection).await?,
                    };
                    count_discarded(is_usable, &discarded);
                    Ok(is_usable)
                })
            })
            .connect(&open_url)
            .await
            .map_err(|source| opening_failed(url, source))?;
        let mut database = Database {
            pool,
            backend,
            vault: Vault::default(),
            url: without_password(url).into(),
            discarded,
            checked: Arc::default(),
            upgrade: None,
        };
        let upgrade = database.migrate(version, hindrance).await;
        let upgrade = upgrade.map_err(|error| match error {
            DatabaseError::Migrate { source, .. } | DatabaseError::ReadSchema { source, .. }
                if check::is_damage(&source) =>
            {
                opening_failed(url, source)
            }
            other => other,
        })?;
        database.upgrade = upgrade.map(Arc::new);
        Ok(database)
    }

    /// Whether a URL is one that can be opened; nothing is opened.
    ///
    /// # Errors
    /// When it is of another kind of database, or not understood.
    pub fn check_url(url: &str) -> Result<(), DatabaseError> {
        let parsed = match Backend::of(url)? {
            Backend::Sqlite => SqliteConnectOptions::from_str(url).map(drop),
            Backend::Postgres => PgConnectOptions::from_str(url).map(drop),
        };
        parsed.map_err(|source| DatabaseError::Url {
            url: without_password(url),
            source,
        })
    }

    /// Connects to a PostgreSQL database once, and waits for a server that is about to start.
    ///
    /// # Errors
    /// With the cause when it cannot be reached.
    pub async fn reach(url: &str) -> Result<(), DatabaseError> {
        sqlx::any::install_default_drivers();
        let connection = reach::reach(url, ACQUIRE_TIMEOUT).await?;
        connection.close().await.map_err(|source| opening_failed(url, source))
    }

    /// What opening it applied; `None` where its schema was current.
    pub fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.as_deref()
    }

    /// Connections that were closed because a transaction on them could not be ended, since the start.
    pub fn discarded_connections(&self) -> u64 {
        self.discarded.load(Ordering::Relaxed)
    }

    /// The URL of the default database of a data directory.
    pub fn default_url(data_dir: &Path) -> String {
        format!("sqlite://{}", data_dir.join("ezscale.db").display())
    }

    /// Every migration that this program has, in order.
    pub fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }

    /// The schema version that this program knows.
    pub fn known_version() -> i64 {
        MIGRATIONS[MIGRATIONS.len() - 1].version
    }

    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The same with what seals and opens its secrets: see [`crate::secret_keys::unlock`].
    #[must_use]
    pub fn with_vault(self, vault: Vault) -> Database {
        Database { vault, ..self }
    }

    /// What seals and opens the secrets in it.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Starts a transaction that will write. On SQLite it takes the write lock at once, so that it never fails half way
    /// because a reader became a writer.
    ///
    /// # Errors
    /// When no connection or lock is to be had in time.
    pub async fn begin_write(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, sqlx::Error> {
        match self.backend {
            Backend::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await,
            Backend::Postgres => self.pool.begin().await,
        }
    }
}

/// A pool tries again for [`ACQUIRE_TIMEOUT`] what fails at each try: a file that is no database is told at once.
async fn refuse_damaged(url: &str, open_url: &str) -> Result<(), DatabaseError> {
    let opening = |source| opening_failed(url, source);
    let mut connection = AnyConnection::connect(open_url).await.map_err(opening)?;
    let read = connection.execute("SELECT count(*) FROM sqlite_schema").await;
    connection.close().await.map_err(opening)?;
    match read {
        Err(source) if check::is_damage(&source) => Err(opening_failed(url, source)),
        // Whatever else it is, such as a lock, is waited for as ever.
        _ => Ok(()),
    }
}

fn opening_failed(url: &str, source: sqlx::Error) -> DatabaseError {
    let url = without_password(url);
    if check::is_damage(&source) {
        let findings = source.to_string();
        return DatabaseError::Damaged { url, findings };
    }
    if let Some(said) = reach::refusal(&source) {
        return DatabaseError::Refused { url, said };
    }
    DatabaseError::Open { url, source }
}

fn count_discarded(is_usable: bool, discarded: &AtomicU64) {
    if !is_usable {
        discarded.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("a database connection is replaced: its transaction could not be ended");
    }
}

/// Whether a SQLite connection that is given back has no transaction open; one that has is closed by the pool, which also
/// releases its write lock.
///
/// On a full disk SQLite ends the transaction itself, and the `ROLLBACK` that follows fails. sqlx 0.9 then counts that
/// transaction for ever: every later one on this connection is refused ("begin_with at non-zero depth").
async fn has_ended_its_transaction(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The rollback of a transaction that was dropped is still on its way: a ping is answered after it.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Whether a PostgreSQL connection that is given back has no transaction open; one that has is closed by the pool.
///
/// sqlx 0.9 loses a transaction of PostgreSQL whose caller went away while it began, such as a request whose browser closed the
/// connection: what others wrote on that connection would be part of it, and never be committed.
async fn is_outside_transaction(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    // A statement of its own is a transaction of its own: both times are its start. In one message, because PostgreSQL takes
    // the time of each.
    let sql = "SELECT CASE WHEN now() = statement_timestamp() THEN 1 ELSE 0 END";
    let row = sqlx::raw_sql(sql).fetch_one(connection).await?;
    Ok(row.try_get::<i32, _>(0)? == 1)
}

/// Takes the next number of a sequence, inside the caller's transaction, so that a rollback leaves no gap.
///
/// # Errors
/// As the database answers.
pub async fn next_id(connection: &mut AnyConnection, sequence: &str) -> Result<i64, sqlx::Error> {
    next_ids(connection, sequence, 1).await
}

/// Takes the next `count` numbers of a sequence and returns the first of them, as [`next_id`] does.
///
/// # Errors
/// As the database answers.
pub async fn next_ids(connection: &mut AnyConnection, sequence: &str, count: i64) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO sequences (name, next_value) VALUES ($1, 1 + $2) \
         ON CONFLICT (name) DO UPDATE SET next_value = sequences.next_value + $2 RETURNING next_value - $2",
    )
    .bind(sequence)
    .bind(count)
    .fetch_one(connection)
    .await?
    .try_get(0)
}

/// The last number that was taken of a sequence; 0 where none was.
///
/// # Errors
/// As the database answers.
pub async fn last_id(connection: &mut AnyConnection, sequence: &str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT next_value - 1 FROM sequences WHERE name = $1")
        .bind(sequence)
        .fetch_optional(connection)
        .await?;
    row.map_or(Ok(0), |row| row.try_get(0))
}

/// A URL without its passwords, for messages: neither before the host nor among the parameters.
pub fn without_password(url: &str) -> String {
    let (base, query) = match url.split_once('?') {
        // A password may hold an unescaped question mark: then the @ before the host comes after it.
        Some((base, query)) if base.contains('@') || !query.contains('@') => (base, Some(query)),
        _ => (url, None),
    };
    let mut text = match (base.find("://"), base.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            let (scheme, user_info, host) = (&base[..scheme], &base[scheme + 3..at], &base[at..]);
            match user_info.split_once(':') {
                Some((user, _)) => format!("{scheme}://{user}:(hidden){host}"),
                None => base.to_owned(),
            }
        }
        _ => base.to_owned(),
    };
    for (number, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        text.push(if number == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if name.to_lowercase().contains("pass") => {
                text.push_str(name);
                text.push_str("=(hidden)");
            }
            _ => text.push_str(parameter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_database_is_migrated_once_and_sequences_have_no_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        let database = Database::open(&url).await.unwrap();
        let mut transaction = database.begin_write().await.unwrap();
        assert_eq!(next_id(&mut transaction, "service").await.unwrap(), 1);
        assert_eq!(next_id(&mut transaction, "service").await.unwrap(), 2);
        assert_eq!(next_ids(&mut transaction, "service", 10).await.unwrap(), 3);
        assert_eq!(next_id(&mut transaction, "service").await.unwrap(), 13);
        transaction.rollback().await.unwrap();
        let reopened = Database::open(&url).await.unwrap();
        let mut transaction = reopened.begin_write().await.unwrap();
        assert_eq!(next_id(&mut transaction, "service").await.unwrap(), 1);
        transaction.commit().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_open_a_new_database_at_once_and_who_opens_a_current_one_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        let opening: Vec<_> = (0..4)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { Database::open(&url).await.unwrap() })
            })
            .collect();
        let mut opened = Vec::new();
        for task in opening {
            opened.push(task.await.unwrap());
        }
        let sql = "SELECT count(*) FROM schema_migrations";
        let row = sqlx::query(sql).fetch_one(opened[0].pool()).await.unwrap();
        assert_eq!(row.try_get::<i64, _>(0).unwrap(), MIGRATIONS.len() as i64);
        // Sooner than who waits for a lock gives up.
        let writing = opened[0].begin_write().await.unwrap();
        let waited = Duration::from_millis(u64::from(SQLITE_BUSY_TIMEOUT_MS / 2));
        tokio::time::timeout(waited, Database::open(&url))
            .await
            .unwrap()
            .unwrap();
        writing.rollback().await.unwrap();
    }

    /// A database as version 7bef553 left it: the first migration, and these rows.
    async fn of_the_first_version(url: &str, rows: &[&'static str]) {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().connect(&format!("{url}?mode=rwc")).await.unwrap();
        let table = "CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at_ms BIGINT NOT NULL)";
        for sql in [
            table,
            MIGRATIONS[0].sql,
            "INSERT INTO schema_migrations VALUES (1, 'schema', 0)",
        ]
        .into_iter()
        .chain(rows.iter().copied())
        {
            pool.execute(sqlx::raw_sql(sql)).await.unwrap();
        }
        pool.close().await;
    }

    #[tokio::test]
    async fn what_was_agreed_before_an_upgrade_keeps_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        let rows = [
            "INSERT INTO customers (id, name, email, currency, time_zone, country, tax_rate_percent, created_at_ms) \
             VALUES (1, 'Ada', 'ada@example.net', 'USD', 'UTC', 'US', '0', 0)",
            "INSERT INTO services (id, customer_id, name, service_type, status, created_at_ms) VALUES (1, 1, 'web', 'vps', 'active', 0)",
            "INSERT INTO plans (id, kind, name, description, service_type, billing_model, included_transfer_units, quota_unit, \
             usage_mode, commit_mbps, base_timing, trial_days, attributes, badge, is_free, semi_annual_discount_percent, \
             created_at_ms) VALUES (1, 'plan', 'P', '', 'vps', 'flat', 0, 'GiB', 'sum', '0', 'advance', 0, '{}', '', 0, '10', 0)",
            "INSERT INTO prices VALUES (1, 1, 'USD', 12, 102000, '{}', 0)",
            "INSERT INTO coupons (id, code, percent, cycles, redeemed, created_at_ms) VALUES (1, 'HALF', '50', 2, 1, 0)",
            "INSERT INTO subscriptions (id, customer_id, service_id, status, time_zone, started_at_ms, cancel_at_ms, coupon_id, \
             created_at_ms) VALUES (1, 1, 1, 'cancelled', 'UTC', 0, 9000, 1, 7)",
            "INSERT INTO subscriptions (id, customer_id, service_id, parent_id, status, time_zone, started_at_ms, cancel_at_ms, \
             created_at_ms) VALUES (2, 1, 1, 1, 'cancelled', 'UTC', 0, 9000, 7)",
            "INSERT INTO subscriptions (id, customer_id, service_id, parent_id, status, time_zone, started_at_ms, cancel_at_ms, \
             created_at_ms) VALUES (3, 1, 1, 1, 'cancelled', 'UTC', 0, 8000, 7)",
            "INSERT INTO phases (id, subscription_id, plan_id, price_id, quantity, anchor_day, cycle_from, from_date, created_at_ms) \
             VALUES (1, 1, 1, 1, 1, 1, '2026-01-01', '2026-01-01', 7)",
        ];
        of_the_first_version(&url, &rows).await;
        let database = Database::open(&url).await.unwrap();
        let pool = database.pool();
        // Two cycles of the year that was ordered are 24 months, and the amount would be for twelve.
        let row = sqlx::query(
            "SELECT coupon_id, customer_id, cycle_months, months FROM coupon_redemptions WHERE subscription_id = 1",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        let redeemed: Vec<i64> = (0..4).map(|column| row.try_get(column).unwrap()).collect();
        assert_eq!(redeemed, [1, 1, 12, 24]);
        let row = sqlx::query("SELECT months, per_customer FROM coupons")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(
            (row.try_get::<i64, _>(0).unwrap(), row.try_get::<i64, _>(1).unwrap()),
            (2, 1)
        );
        // What ends at the instant of its plan was cancelled along; what ends before was cancelled by itself.
        let rows = sqlx::query("SELECT cancelled_with_parent FROM subscriptions ORDER BY id")
            .fetch_all(pool)
            .await
            .unwrap();
        let along: Vec<i64> = rows.iter().map(|row| row.try_get(0).unwrap()).collect();
        assert_eq!(along, [0, 1, 0]);
    }

    #[tokio::test]
    async fn names_of_who_acted_move_beside_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let url = Database::default_url(dir.path());
        let rows = [
            "INSERT INTO audit_log (id, at_ms, actor, ip, action, subject, change, risk) VALUES \
             (1, 5, 'command line', '', 'plan.create', 'pln_1', '{}', 'normal'), \
             (2, 6, 'ada@example.net', '192.0.2.7', 'plan.edit', 'pln_1', '{}', 'high'), \
             (3, 7, 'command line', '', 'plan.archive', 'pln_1', '{}', 'normal')",
        ];
        of_the_first_version(&url, &rows).await;
        let database = Database::open(&url).await.unwrap();
        let sql = "SELECT l.id, a.name, l.action, l.hash FROM audit_log l JOIN audit_actors a ON a.id = l.actor_id ORDER BY l.id";
        let rows = sqlx::query(sql).fetch_all(database.pool()).await.unwrap();
        let told: Vec<(i64, String, String, String)> = rows
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
            .collect();
        let entry = |id, name: &str, action: &str| (id, name.to_owned(), action.to_owned(), String::new());
        assert_eq!(
            told,
            [
                entry(1, "command line", "plan.create"),
                entry(2, "ada@example.net", "plan.edit"),
                entry(3, "command line", "plan.archive"),
            ]
        );
        let mut transaction = database.begin_write().await.unwrap();
        assert_eq!(next_id(&mut transaction, "audit_actor").await.unwrap(), 3);
    }

    /// Rows of `probes`, and that each connection of the pool can write.
    async fn write_on_every_connection(database: &Database) {
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            open.push(database.pool().acquire().await.unwrap());
        }
        for mut connection in open {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
            sqlx::query("INSERT INTO probes (name, at_ms) VALUES ('x', 1) ON CONFLICT (name) DO UPDATE SET at_ms = 1")
                .execute(&mut *transaction)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_whose_transaction_sqlite_ended_itself_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        for round in 1..=2 * u64::from(MAX_CONNECTIONS) {
            let mut transaction = database.begin_write().await.unwrap();
            // As SQLite does on a full disk, unseen by sqlx.
            transaction.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
            match round % 3 {
                0 => drop(transaction),
                1 => assert!(transaction.commit().await.is_err()),
                _ => assert!(transaction.rollback().await.is_err()),
            }
        }
        write_on_every_connection(&database).await;
        assert_eq!(database.discarded_connections(), 2 * u64::from(MAX_CONNECTIONS));
    }

    #[tokio::test]
    async fn a_database_that_was_full_is_written_again_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        let blob = "x".repeat(1 << 20);
        for _ in 0..2 * MAX_CONNECTIONS {
            let mut transaction = database.begin_write().await.unwrap();
            // The limit is the connection's, and lowered to what the file has already.
            transaction
                .execute(sqlx::raw_sql("PRAGMA max_page_count = 1"))
                .await
                .unwrap();
            let full = sqlx::query("INSERT INTO settings (name, value) VALUES ('full', $1)")
                .bind(&blob)
                .execute(&mut *transaction)
                .await
                .unwrap_err();
            assert!(full.to_string().contains("full"), "{full}");
            drop(transaction);
        }
        let mut transaction = database.begin_write().await.unwrap();
        transaction
            .execute(sqlx::raw_sql("PRAGMA max_page_count = 1000000"))
            .await
            .unwrap();
        drop(transaction);
        write_on_every_connection(&database).await;
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_keeps_its_connection() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        for _ in 0..20 {
            let mut transaction = database.begin_write().await.unwrap();
            sqlx::query("INSERT INTO settings (name, value) VALUES ('dropped', '')")
                .execute(&mut *transaction)
                .await
                .unwrap();
            drop(transaction);
        }
        write_on_every_connection(&database).await;
        assert_eq!(database.discarded_connections(), 0);
    }

    #[tokio::test]
    async fn a_url_of_another_kind_is_refused_without_its_password() {
        let error = Database::open("mysql://me:secret@host/db")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("sqlite://") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_url_is_shown_without_its_passwords() {
        for (url, shown) in [
            ("sqlite:///var/lib/ezscale.db", "sqlite:///var/lib/ezscale.db"),
            ("postgres://ez@db/x", "postgres://ez@db/x"),
            ("postgres://ez:p@db:5432/x", "postgres://ez:(hidden)@db:5432/x"),
            ("postgres://ez:p@s@db/x", "postgres://ez:(hidden)@db/x"),
            ("postgres://ez:p?s@db/x", "postgres://ez:(hidden)@db/x"),
            (
                "postgres://ez@db/x?password=a@b&sslmode=require",
                "postgres://ez@db/x?password=(hidden)&sslmode=require",
            ),
            ("https://me:p@s3.example.net", "https://me:(hidden)@s3.example.net"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
