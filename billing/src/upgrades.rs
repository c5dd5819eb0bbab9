//! Tests of upgrades: databases of every earlier schema, with data in them, become today's on SQLite and PostgreSQL.
//!
//! One database is built step by step: after each migration come the rows of its fixture (`schemas/sql/fixtures/NNN.sql`), which
//! fill what it added. As of each version a copy is taken, opened by today's program, and looked at: every value that was there
//! is there, the constraints and the books hold. So a row is upgraded from the version it was written by, and from every later
//! one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use activity::audit::chain;
use fixtures::postgres::Cluster;
use schemas::db::{Backend, Database, MigrationState, MigrationStatus};
use schemas::inventory;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _};

use crate::ledger;
use crate::testing::Postgres;

/// Columns that a migration gave another name: the migration, the table, before, after.
const RENAMED: &[(i64, &str, &str, &str)] = &[
    (11, "coupons", "cycles", "months"),
    (33, "given_back", "of_line_id", "credited_line_id"),
    (33, "budget_alerts", "said_at_ms", "alerted_at_ms"),
    (33, "top_ups", "low_said_at_ms", "low_balance_notified_at_ms"),
    (33, "address_changes", "asked_at_ms", "requested_at_ms"),
    (33, "sign_in_attempts", "means", "method"),
    (33, "held_invoices", "at_ms", "rate_at_ms"),
];

/// Tables that a migration gave another name: the migration, before, after.
const RENAMED_TABLES: &[(i64, &str, &str)] = &[(33, "given_back", "line_credits")];

/// Values that a migration moved out of their table: the table, the column they were in, and the query that finds them now.
const MOVED: &[(&str, &str, &str)] = &[(
    "audit_log",
    "actor",
    "SELECT a.name FROM audit_actors a WHERE a.id = audit_log.actor_id",
)];

/// Columns by table.
type Columns = BTreeMap<String, Vec<String>>;
/// The values of a table's rows, as text, by column.
type Rows = Vec<BTreeMap<String, Option<String>>>;

fn fixture(version: i64) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../schemas/sql/fixtures/{version:03}.sql"));
    std::fs::read_to_string(&path).map_err(|error| {
        format!(
            "migration {version} has no fixture: write rows for what it adds to schemas/sql/fixtures/{version:03}.sql ({error})"
        )
    })
}

/// Where the databases are.
enum Ground {
    Sqlite(tempfile::TempDir),
    Postgres(Cluster),
}

/// The database that grows.
const GROWING: &str = "growing";

impl Ground {
    async fn postgres() -> Ground {
        let server = Cluster::start();
        run_on(&server, format!("CREATE DATABASE {GROWING}")).await;
        Ground::Postgres(server)
    }

    fn file(folder: &tempfile::TempDir, name: &str) -> PathBuf {
        folder.path().join(format!("{name}.db"))
    }

    fn url(&self, name: &str) -> String {
        match self {
            Ground::Sqlite(folder) => format!("sqlite://{}", Ground::file(folder, name).display()),
            Ground::Postgres(server) => server.url(name),
        }
    }

    /// A copy of the growing database, which nobody has open.
    async fn copy(&self, name: &str) {
        match self {
            Ground::Sqlite(folder) => {
                std::fs::copy(Ground::file(folder, GROWING), Ground::file(folder, name)).unwrap();
            }
            Ground::Postgres(server) => {
                run_on(
                    server,
                    format!("CREATE DATABASE {name} TEMPLATE {GROWING} STRATEGY file_copy"),
                )
                .await;
            }
        }
    }

    async fn remove(&self, name: &str) {
        match self {
            Ground::Sqlite(folder) => std::fs::remove_file(Ground::file(folder, name)).unwrap(),
            Ground::Postgres(server) => run_on(server, format!("DROP DATABASE {name} WITH (FORCE)")).await,
        }
    }
}

/// A statement that no transaction may hold.
async fn run_on(server: &Cluster, sql: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&server.url("postgres")).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    connection.close().await.unwrap();
}

async fn columns(database: &Database) -> Columns {
    let sql = match database.backend() {
        Backend::Sqlite => {
            "SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' ORDER BY m.name, c.cid"
        }
        Backend::Postgres => {
            "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT) FROM information_schema.columns \
             WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
        }
    };
    let mut columns = Columns::new();
    for row in sqlx::query(sql).fetch_all(database.pool()).await.unwrap() {
        let (table, column): (String, String) = (row.try_get(0).unwrap(), row.try_get(1).unwrap());
        columns.entry(table).or_default().push(column);
    }
    columns
}

async fn rows(database: &Database, table: &str, columns: &[String]) -> Rows {
    let mut names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut texts: Vec<String> = names.iter().map(|column| format!("CAST({column} AS TEXT)")).collect();
    for (_, column, query) in MOVED.iter().filter(|(of, ..)| *of == table) {
        if !names.contains(column) {
            names.push(column);
            texts.push(format!("({query})"));
        }
    }
    let sql = format!("SELECT {} FROM {table}", texts.join(", "));
    let found = sqlx::query(AssertSqlSafe(sql))
        .fetch_all(database.pool())
        .await
        .unwrap();
    let values = |row: &AnyRow| -> BTreeMap<String, Option<String>> {
        let value = |(at, column): (usize, &&str)| ((*column).to_owned(), row.try_get(at).unwrap());
        names.iter().enumerate().map(value).collect()
    };
    found.iter().map(values).collect()
}

async fn contents(database: &Database) -> BTreeMap<String, Rows> {
    let mut contents = BTreeMap::new();
    for (table, columns) in columns(database).await {
        let rows = rows(database, &table, &columns).await;
        contents.insert(table, rows);
    }
    contents
}

/// Every table has rows, and every column a value: what a migration adds is in its fixture.
async fn refuse_unfilled(database: &Database, version: i64) {
    let contents = contents(database).await;
    for (table, columns) in columns(database).await {
        for column in columns {
            let is_filled = contents[&table].iter().any(|row| row[&column].is_some());
            assert!(
                is_filled,
                "as of migration {version} no row has a value in {table}.{column}, so that its upgrade is not tested: add one \
                 to schemas/sql/fixtures/{version:03}.sql"
            );
        }
    }
}

/// What a column of version `from` is called today.
fn name_today<'a>(from: i64, table: &str, column: &'a str) -> &'a str {
    RENAMED.iter().fold(column, |name, (version, of, before, after)| {
        if *version > from && *of == table && *before == name {
            *after
        } else {
            name
        }
    })
}

/// What a table of version `from` is called today.
fn table_today(from: i64, table: &str) -> &str {
    RENAMED_TABLES.iter().fold(table, |name, (version, before, after)| {
        if *version > from && *before == name {
            after
        } else {
            name
        }
    })
}

/// Every row is there, with the values that it had.
fn compare(from: i64, before: &BTreeMap<String, Rows>, after: &BTreeMap<String, Rows>) {
    for (table, old) in before {
        let Some(new) = after.get(table_today(from, table)) else {
            panic!("the upgrade from {from} loses the table {table}");
        };
        let mut new = new.clone();
        for row in old {
            let is_same = |candidate: &BTreeMap<String, Option<String>>| {
                row.iter()
                    .all(|(column, value)| candidate.get(name_today(from, table, column)) == Some(value))
            };
            let at = new.iter().position(is_same);
            let at = at.unwrap_or_else(|| panic!("the upgrade from {from} loses or changes a row of {table}: {row:?}"));
            new.swap_remove(at);
        }
    }
}

async fn refuse_unsound(database: &Database, from: i64) {
    let pool = database.pool();
    match database.backend() {
        Backend::Sqlite => {
            let found = sqlx::raw_sql("PRAGMA foreign_key_check").fetch_all(pool).await.unwrap();
            assert_eq!(found.len(), 0, "rows refer to nothing after the upgrade from {from}");
            let found = sqlx::raw_sql("PRAGMA integrity_check").fetch_one(pool).await.unwrap();
            assert_eq!(found.try_get::<String, _>(0).unwrap(), "ok", "from {from}");
        }
        Backend::Postgres => {
            let sql = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated";
            let row = sqlx::query(sql).fetch_one(pool).await.unwrap();
            assert_eq!(row.try_get::<i64, _>(0).unwrap(), 0, "from {from}");
        }
    }
    let log = chain::verify(database).await.unwrap();
    assert!(log.entries >= 3, "{log:?}");
    assert_eq!(log.broken, None, "the upgrade from {from} breaks the audit log");
    let books = ledger::check(database).await.unwrap();
    assert!(books.transactions > 10 && books.invoices > 5, "{books:?}");
    assert!(books.is_clean(), "the upgrade from {from} breaks the books: {books:?}");
    assert!(!inventory::load_assignments(pool).await.unwrap().is_empty());
    assert!(!inventory::customers(pool).await.unwrap().is_empty());
    database.probe_write(1).await.unwrap();
}

async fn upgrade_from_every_version(ground: Ground) {
    let growing = ground.url(GROWING);
    for migration in Database::migrations() {
        let version = migration.version;
        let database = Database::open_at_version(&growing, version).await.unwrap();
        let rows = fixture(version).unwrap_or_else(|missing| panic!("{missing}"));
        let filled = database.pool().execute(sqlx::raw_sql(AssertSqlSafe(rows))).await;
        filled.unwrap_or_else(|error| panic!("schemas/sql/fixtures/{version:03}.sql: {error}"));
        refuse_unfilled(&database, version).await;
        let before = contents(&database).await;
        database.pool().close().await;

        let name = format!("from_{version}");
        ground.copy(&name).await;
        let database = Database::open(&ground.url(&name)).await.unwrap();
        let upgraded_from = database.upgrade().map(|upgrade| upgrade.from);
        let is_latest = version == Database::known_version();
        assert_eq!(upgraded_from, Some(version).filter(|_| !is_latest));
        compare(version, &before, &contents(&database).await);
        refuse_unsound(&database, version).await;
        database.pool().close().await;
        let status = Database::schema_status(&ground.url(&name)).await.unwrap();
        let is_applied = |migration: &MigrationStatus| migration.state == MigrationState::Applied;
        assert!(status.migrations.iter().all(is_applied), "{status:?}");
        ground.remove(&name).await;
    }
}

#[tokio::test]
async fn databases_of_every_earlier_schema_upgrade_on_sqlite() {
    upgrade_from_every_version(Ground::Sqlite(fixtures::in_memory_folder())).await;
}

#[tokio::test]
async fn databases_of_every_earlier_schema_upgrade_on_postgresql() {
    upgrade_from_every_version(Ground::postgres().await).await;
}

#[test]
fn a_migration_without_a_fixture_is_named() {
    let missing = fixture(999).unwrap_err();
    assert!(
        missing.contains("migration 999 has no fixture") && missing.contains("schemas/sql/fixtures/999.sql"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_newer_postgresql_database_is_refused_and_left_as_it_is() {
    let copy = Postgres::migrated().await.copy();
    let url = copy.url();
    let database = Database::open(&url).await.unwrap();
    let newer = "INSERT INTO schema_migrations (version, name, applied_at_ms, checksum, program) \
                 VALUES (9001, 'next century', 0, 'ff', '9.9.9')";
    database.pool().execute(newer).await.unwrap();
    let refused = Database::open(&url).await.unwrap_err().to_string();
    assert!(
        refused.contains("schema version 9001 (next century), written by ezscale 9.9.9") && refused.contains("backup"),
        "{refused}"
    );
    let status = Database::schema_status(&url).await.unwrap();
    assert_eq!((status.exists, status.version), (true, 9001));
    assert_eq!(status.check().unwrap_err().to_string(), refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_upgrade_a_postgresql_database_at_once() {
    let ground = Ground::postgres().await;
    let url = ground.url(GROWING);
    let database = Database::open_at_version(&url, 5).await.unwrap();
    database.pool().close().await;
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { Database::open(&url).await })
        })
        .collect();
    let mut upgrades = 0;
    for task in opening {
        let database = task.await.unwrap().unwrap();
        upgrades += usize::from(database.upgrade().is_some());
        assert!(inventory::customers(database.pool()).await.unwrap().is_empty());
    }
    assert_eq!(upgrades, 1, "one of them upgraded it");
    Database::schema_status(&url).await.unwrap().check().unwrap();
}
