//! The relational database: taken as it is at one moment, without anybody waiting; put back whole or not at all.
//!
//! SQLite writes a copy of itself (`VACUUM INTO`), which is checked. PostgreSQL's own pg_dump and pg_restore do it there: they
//! know every version of it, and a dump of their custom format is restored in one transaction.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use schemas::db::{Backend, Database};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Row as _};

/// Where Debian keeps the programs of each version.
const POSTGRES_PROGRAMS: &str = "/usr/lib/postgresql";
/// Parameters of a connection that PostgreSQL's programs know as we do.
const LIBPQ_PARAMETERS: [&str; 8] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "options",
    "application_name",
];

/// Writes the database as of now into a file that is not there yet.
pub(super) async fn dump(database: &Database, url: &str, into: &Path) -> anyhow::Result<()> {
    match database.backend() {
        Backend::Sqlite => {
            sqlx::query("VACUUM INTO $1")
                .bind(into.display().to_string())
                .execute(database.pool())
                .await
                .with_context(|| format!("write a copy of the database to {}", into.display()))?;
            check_sqlite(into).await
        }
        Backend::Postgres => {
            let into = into.to_owned();
            let mut command = postgres_command("pg_dump", url)?;
            command.args(["--format=custom", "--no-owner", "--no-privileges", "--file"]);
            command.arg(&into);
            tokio::task::spawn_blocking(move || run(&mut command, "pg_dump")).await?
        }
    }
}

/// Asks SQLite whether a file is sound.
pub(super) async fn check_sqlite(path: &Path) -> anyhow::Result<()> {
    let url = format!("sqlite://{}?mode=ro", path.display());
    let pool = connect(&url)
        .await
        .with_context(|| format!("open {}", path.display()))?;
    let found: Result<Vec<String>, sqlx::Error> = sqlx::query("PRAGMA integrity_check")
        .fetch_all(&pool)
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
    pool.close().await;
    let found = found.with_context(|| format!("check {}", path.display()))?;
    match found.as_slice() {
        [only] if only == "ok" => Ok(()),
        [first, ..] => bail!("the database {} is damaged: {first}", path.display()),
        [] => bail!("the database {} is damaged", path.display()),
    }
}

async fn connect(url: &str) -> Result<AnyPool, sqlx::Error> {
    sqlx::any::install_default_drivers();
    AnyPoolOptions::new().max_connections(1).connect(url).await
}

/// Refuses a PostgreSQL database that holds anything.
pub(super) async fn refuse_full(url: &str) -> anyhow::Result<()> {
    let shown = schemas::db::without_password(url);
    Database::reach(url).await?;
    let pool = connect(url)
        .await
        .with_context(|| format!("open the database {shown}"))?;
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_one(&pool)
    .await
    .with_context(|| format!("ask the database {shown}"))?;
    pool.close().await;
    if tables > 0 {
        bail!("the database {shown} is not empty: make a new one (createdb), and name it with --database");
    }
    Ok(())
}

/// Puts a dump into an empty PostgreSQL database, in one transaction.
pub(super) async fn load(url: &str, dump: PathBuf) -> anyhow::Result<()> {
    let mut command = postgres_command("pg_restore", url)?;
    command.args([
        "--exit-on-error",
        "--single-transaction",
        "--no-owner",
        "--no-privileges",
    ]);
    command.arg(dump);
    tokio::task::spawn_blocking(move || run(&mut command, "pg_restore")).await?
}

/// Refuses a dump that pg_restore cannot read.
pub(super) async fn check_dump(dump: PathBuf) -> anyhow::Result<()> {
    let mut command = Command::new(program("pg_restore")?);
    command.arg("--list").arg(dump);
    tokio::task::spawn_blocking(move || run(&mut command, "pg_restore --list")).await?
}

fn run(command: &mut Command, name: &str) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}

/// One of PostgreSQL's programs: on the path, else the newest that is installed.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    let newest = || {
        let versions = std::fs::read_dir(POSTGRES_PROGRAMS).ok()?;
        let installed = versions.filter_map(|version| {
            let folder = version.ok()?;
            let number: u32 = folder.file_name().to_str()?.parse().ok()?;
            let file = folder.path().join("bin").join(name);
            file.is_file().then_some((number, file))
        });
        installed.max().map(|(_, file)| file)
    };
    on_path.or_else(newest).with_context(|| {
        format!("{name} is not installed: it comes with PostgreSQL's client (Debian: apt install postgresql-client)")
    })
}

/// With the password in the environment, where other users do not see it.
fn postgres_command(name: &str, url: &str) -> anyhow::Result<Command> {
    let (url, password) = connection(url);
    let mut command = Command::new(program(name)?);
    command.arg("--dbname").arg(url);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    Ok(command)
}

/// A URL as PostgreSQL's programs take it, and the password that was in it.
fn connection(url: &str) -> (String, Option<String>) {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut password = None;
    let mut text = match (base.find("://"), base.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            let user = match base[scheme + 3..at].split_once(':') {
                Some((user, secret)) => {
                    password = Some(percent_decoded(secret));
                    user
                }
                None => &base[scheme + 3..at],
            };
            format!("{}://{user}{}", &base[..scheme], &base[at..])
        }
        _ => base.to_owned(),
    };
    let mut separator = '?';
    for parameter in query.split('&') {
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        if name == "password" {
            password = Some(percent_decoded(value));
        } else if LIBPQ_PARAMETERS.contains(&name) {
            text.push(separator);
            text.push_str(parameter);
            separator = '&';
        }
    }
    (text, password)
}

/// RFC 3986 §2.1.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_leave_the_url() {
        for (url, expected, password) in [
            ("postgres://ez@db/x", "postgres://ez@db/x", None),
            (
                "postgres://ez:p%40s%3As@db:5433/x",
                "postgres://ez@db:5433/x",
                Some("p@s:s"),
            ),
            (
                "postgres://ez@db/x?password=a%20b&sslmode=require&statement-cache-capacity=1",
                "postgres://ez@db/x?sslmode=require",
                Some("a b"),
            ),
            (
                "postgres:///x?host=/run/postgresql",
                "postgres:///x?host=/run/postgresql",
                None,
            ),
        ] {
            assert_eq!(
                connection(url),
                (expected.to_owned(), password.map(str::to_owned)),
                "{url}"
            );
        }
    }
}
