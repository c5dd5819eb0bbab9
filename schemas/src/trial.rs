//! Carrying something out on trial: everything happens as it would, and nothing of it stays.
//!
//! On PostgreSQL that is a transaction that is rolled back. On SQLite such a transaction would hold the one write lock that
//! there is, and wait for whoever has it: a page that only asks what something costs must do neither. There a trial works on
//! copies:
//!
//! ```text
//! connection of its own, opened read-only
//!   main.subscriptions  ◀── what is not copied is read here, in one snapshot
//!   temp.subscriptions  ◀── a name without its schema means this one: what is copied is read and written here
//! ```
//!
//! Temporary tables take no lock, and are gone with the connection. What writes to a table that was not copied fails, as the
//! database is read-only; so a copy that was forgotten is found by the first test, and changes nothing.

use std::str::FromStr as _;

use sqlx::any::AnyConnectOptions;
use sqlx::{
    Any, AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _, Transaction,
};

use crate::db::{Backend, Database};

/// A table that a trial writes to, and which of its rows it needs.
#[derive(Clone, Copy, Debug)]
pub struct TrialTable {
    pub name: &'static str,
    /// A condition, in which `$1` is what the trial is for; empty for all rows.
    pub rows: &'static str,
}

/// Something carried out on trial.
#[derive(Debug)]
pub struct Trial(Inner);

#[derive(Debug)]
enum Inner {
    OnCopies(AnyConnection),
    Undone(Transaction<'static, Any>),
}

impl Trial {
    /// Begins one that writes to these tables, for one customer, say.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn begin(database: &Database, tables: &[TrialTable], of: i64) -> Result<Trial, sqlx::Error> {
        let options = database.pool().connect_options();
        let url = options.database_url.as_str();
        // A database in memory is seen by one connection only, and held up by nobody else.
        if database.backend() == Backend::Postgres || url.contains(":memory:") {
            return Ok(Trial(Inner::Undone(database.begin_write().await?)));
        }
        let file = url.split('?').next().unwrap_or(url);
        let mut connection = AnyConnectOptions::from_str(&format!("{file}?mode=ro"))?
            .connect()
            .await?;
        let pragmas = "PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA busy_timeout = 2000; BEGIN";
        connection.execute(sqlx::raw_sql(pragmas)).await?;
        for table in tables {
            copy(&mut connection, table, of).await?;
        }
        Ok(Trial(Inner::OnCopies(connection)))
    }

    /// Where to do it.
    pub fn connection(&mut self) -> &mut AnyConnection {
        match &mut self.0 {
            Inner::OnCopies(connection) => connection,
            Inner::Undone(transaction) => transaction,
        }
    }

    /// Ends it: nothing stays.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn end(self) -> Result<(), sqlx::Error> {
        match self.0 {
            Inner::OnCopies(connection) => connection.close().await,
            Inner::Undone(transaction) => transaction.rollback().await,
        }
    }
}

/// Makes the temporary table, with its keys and indexes, and copies the rows.
async fn copy(connection: &mut AnyConnection, table: &TrialTable, of: i64) -> Result<(), sqlx::Error> {
    let name = table.name;
    let made = sqlx::query(
        "SELECT sql FROM main.sqlite_master WHERE tbl_name = $1 AND type IN ('table', 'index') AND sql IS NOT NULL \
         ORDER BY type DESC",
    )
    .bind(name)
    .fetch_all(&mut *connection)
    .await?;
    for row in made {
        let sql: String = row.try_get(0)?;
        if let Some(sql) = temporary(&sql) {
            connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        }
    }
    let condition = match table.rows {
        "" => "$1 = $1",
        condition => condition,
    };
    let sql = format!("INSERT INTO temp.{name} SELECT * FROM main.{name} WHERE {condition}");
    sqlx::query(AssertSqlSafe(sql)).bind(of).execute(connection).await?;
    Ok(())
}

/// A statement of the schema, as SQLite keeps them, for a temporary table.
fn temporary(sql: &str) -> Option<String> {
    for (is, becomes) in [
        ("CREATE TABLE ", "CREATE TEMP TABLE "),
        // An index lies where its table does.
        ("CREATE UNIQUE INDEX ", "CREATE UNIQUE INDEX temp."),
        ("CREATE INDEX ", "CREATE INDEX temp."),
    ] {
        if let Some(rest) = sql.strip_prefix(is) {
            return Some(format!("{becomes}{rest}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::next_id;

    const TABLES: &[TrialTable] = &[
        TrialTable {
            name: "sequences",
            rows: "",
        },
        TrialTable {
            name: "coupons",
            rows: "id = $1",
        },
    ];

    async fn coupons(connection: &mut AnyConnection) -> i64 {
        let row = sqlx::query("SELECT count(*) FROM coupons")
            .fetch_one(connection)
            .await
            .unwrap();
        row.try_get(0).unwrap()
    }

    #[tokio::test]
    async fn a_trial_sees_what_it_did_and_nobody_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&Database::default_url(dir.path())).await.unwrap();
        for id in [1, 2] {
            sqlx::query(
                "INSERT INTO coupons (id, code, percent, months, redeemed, per_customer, created_at_ms) \
                 VALUES ($1, $2, '50', 2, 0, 1, 0)",
            )
            .bind(id)
            .bind(format!("HALF{id}"))
            .execute(database.pool())
            .await
            .unwrap();
        }
        // Somebody else writes all the while.
        let mut writer = database.begin_write().await.unwrap();
        assert_eq!(next_id(&mut writer, "coupon").await.unwrap(), 1);

        let mut trial = Trial::begin(&database, TABLES, 2).await.unwrap();
        let connection = trial.connection();
        assert_eq!(coupons(connection).await, 1, "only the rows that were asked for");
        assert_eq!(next_id(connection, "coupon").await.unwrap(), 1);
        assert_eq!(
            next_id(connection, "coupon").await.unwrap(),
            2,
            "an upsert needs the key"
        );
        let taken = sqlx::query("INSERT INTO coupons SELECT * FROM main.coupons WHERE id = 2")
            .execute(&mut *connection)
            .await;
        assert!(taken.is_err(), "keys hold");
        let elsewhere = sqlx::query("UPDATE settings SET value = '1'")
            .execute(&mut *connection)
            .await;
        let error = elsewhere.unwrap_err().to_string();
        assert!(error.contains("readonly"), "{error}");
        trial.end().await.unwrap();

        writer.commit().await.unwrap();
        let mut writer = database.begin_write().await.unwrap();
        assert_eq!(
            next_id(&mut writer, "coupon").await.unwrap(),
            2,
            "nothing of the trial stayed"
        );
        assert_eq!(coupons(&mut writer).await, 2);
    }
}
