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
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);

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
    pub(crate) fn crash(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts it again where it does not run, on the same data and port. It refuses to start until the last process of the
    /// one before has noticed that it is gone.
    pub(crate) fn start_again(&mut self) {
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
