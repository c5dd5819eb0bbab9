//! A PostgreSQL of the measurement's own, with its defaults: it syncs what it commits.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use schemas::db::Database;

const START_LIMIT: Duration = Duration::from_secs(60);
/// Debian keeps the versions of its package side by side, out of the PATH.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Ended, with its data, when dropped.
#[derive(Debug)]
pub(super) struct Postgres {
    server: Child,
    port: u16,
}

impl Postgres {
    /// Makes a cluster in a folder of the package's user under `folder`, and starts it.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Postgres> {
        let programs = programs()?;
        let home = folder.join("postgres");
        std::fs::create_dir_all(&home)?;
        if is_root()? {
            // It does not run as root; its user must be able to reach its folder.
            for above in folder.ancestors().filter(|above| !above.as_os_str().is_empty()) {
                let searchable = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(above)?.permissions());
                ensure!(
                    searchable & 0o001 != 0,
                    "the user postgres cannot enter {}: give a folder with --dir that everybody can",
                    above.display()
                );
            }
            run(Command::new("chown").arg("postgres").arg(&home))?;
        }
        let data = home.join("data");
        let mut initdb = unprivileged(&programs.join("initdb"))?;
        initdb.args(["--auth=trust", "--username=ezscale", "--encoding=UTF8", "--locale=C"]);
        run(initdb.arg("--pgdata").arg(&data))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = unprivileged(&programs.join("postgres"))?;
        server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-k", ""]);
        let server = server
            .args(["-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start PostgreSQL")?;
        Ok(Postgres { server, port })
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://ezscale@127.0.0.1:{}/postgres", self.port)
    }

    /// Opens it as soon as it answers.
    pub(super) async fn open(&self) -> anyhow::Result<Database> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match Database::open(&self.url()).await {
                Ok(database) => return Ok(database),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context("PostgreSQL does not answer");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // What it holds is thrown away with its folder.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    versions
        .filter(|version| version.path().join("bin/initdb").exists())
        .max_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0))
        .map(|version| version.path().join("bin"))
        .context("PostgreSQL is not installed: `benches/run` installs it, or `apt-get install postgresql`")
}

fn is_root() -> anyhow::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?) == 0)
}

fn unprivileged(program: &Path) -> anyhow::Result<Command> {
    if !is_root()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    command.arg(program).current_dir("/");
    Ok(command)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
