//! A PostgreSQL of a test's own: a private cluster in a temporary folder, on a free port, gone with its value.
//!
//! Debian's package keeps the programs out of the PATH, and PostgreSQL does not run as root: root's tests start it as the
//! package's user.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use schemas::db::Database;
use sqlx::{AnyConnection, Connection as _, Executor as _};

/// Until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Postgres {
    server: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Postgres {
    pub(crate) fn start() -> Postgres {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("ezscale-pg-").tempdir().unwrap();
        let data = folder.path().join("data");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let initdb = [
            "-A",
            "trust",
            "-U",
            "ezscale",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ];
        run(unprivileged(&programs.join("initdb")).args(initdb).arg(&data));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Postgres {
            server: serve(&programs, &data, port),
            port,
            folder,
        }
    }

    /// Ends the server as a crash would.
    fn crash(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts it again where it does not run, on the same data and port. It refuses to start until the last process of the
    /// one before has noticed that it is gone.
    fn start_again(&mut self) {
        if self.server.try_wait().unwrap().is_some() {
            self.server = serve(&programs(), &self.folder.path().join("data"), self.port);
        }
    }

    pub(crate) async fn database(&self) -> Database {
        self.open("postgres").await
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://ezscale@127.0.0.1:{}/{database}", self.port)
    }

    /// Opens a database of the server.
    pub(crate) async fn open(&self, name: &str) -> Database {
        let url = self.url(name);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            // The port answers before the server is ready, and the server says so.
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && let Ok(database) = Database::open(&url).await
            {
                return database;
            }
            assert!(
                Instant::now() < deadline,
                "PostgreSQL does not answer on port {}",
                self.port
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Postgres {
    /// Makes a database, as a copy of another that nobody has open.
    pub(crate) async fn create(&self, name: &str, template: Option<&str>) {
        let of = template.map_or(String::new(), |template| {
            format!(" TEMPLATE {template} STRATEGY file_copy")
        });
        self.run(format!("CREATE DATABASE {name}{of}")).await;
    }

    /// Removes a database.
    pub(crate) async fn remove(&self, name: &str) {
        self.run(format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }

    async fn run(&self, sql: String) {
        sqlx::any::install_default_drivers();
        let deadline = Instant::now() + START_LIMIT;
        let mut connection = loop {
            match AnyConnection::connect(&self.url("postgres")).await {
                Ok(connection) => break connection,
                Err(error) => assert!(Instant::now() < deadline, "PostgreSQL does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        connection
            .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)))
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A test's cluster is thrown away: there is nothing to keep.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn serve(programs: &Path, data: &Path, port: u16) -> Child {
    let mut command = unprivileged(&programs.join("postgres"));
    command.arg("-D").arg(data).args(["-h", "127.0.0.1", "-k", ""]);
    command.args(["-p", &port.to_string(), "-c", "max_connections=50"]);
    // It is thrown away: nothing need reach a disk.
    command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The folder of the newest installed version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter(|entry| entry.path().join("bin/initdb").exists())
        .max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    match newest {
        Some(entry) => entry.path().join("bin"),
        None => {
            panic!("PostgreSQL is not installed: run tests/run, which installs it, or `apt-get install postgresql`")
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    // One process, so that killing it kills the server: no `su` in between.
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--init-groups",
            "--pdeathsig",
            "keep",
        ])
        .arg(program)
        .current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_transaction_whose_caller_went_away_is_not_left_to_the_next() {
    let server = Postgres::start();
    let database = server.database().await;
    for polls in 0..300u32 {
        // Dropped after so many looks at it: before, while and after the server hears of it.
        let patience = async {
            for _ in 0..polls * 10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            begun = database.pool().begin() => drop(begun.unwrap()),
            () = patience => {}
        }
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, '1')")
            .bind(format!("name-{polls}"))
            .execute(database.pool())
            .await
            .unwrap();
    }
    let others = server.database().await;
    let row = sqlx::query("SELECT count(*) FROM settings WHERE name LIKE 'name-%'");
    let seen: i64 = sqlx::Row::get(&row.fetch_one(others.pool()).await.unwrap(), 0);
    assert_eq!(seen, 300, "what was written is there for all");
}

#[tokio::test]
async fn connections_that_a_crash_of_the_server_ended_are_replaced() {
    let mut server = Postgres::start();
    let database = server.database().await;
    let write = async || {
        let mut transaction = database.begin_write().await?;
        sqlx::query("INSERT INTO probes (name, at_ms) VALUES ('x', 1) ON CONFLICT (name) DO UPDATE SET at_ms = 2")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    };
    // Several connections, some of them in the middle of a transaction.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(database.begin_write().await.unwrap());
    }
    write().await.unwrap();
    server.crash();
    let patience = Duration::from_secs(2);
    let without_server = tokio::time::timeout(patience, write()).await;
    assert!(!matches!(without_server, Ok(Ok(()))), "nobody was there to take it");
    for transaction in open {
        assert!(transaction.commit().await.is_err());
    }
    let deadline = Instant::now() + START_LIMIT;
    loop {
        server.start_again();
        match tokio::time::timeout(patience, write()).await {
            Ok(Ok(())) => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
    // Whichever connection is taken.
    for _ in 0..20 {
        write().await.unwrap();
    }
    database.probe_write(1).await.unwrap();
}
