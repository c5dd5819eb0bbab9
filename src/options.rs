//! Options that several commands share, and how they override the configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use analytics::Analytics;
use analytics::MeteredUsage;
use anyhow::{Context as _, bail};
use billing::guard;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use schemas::assignment::Assignments;
use schemas::clock;
use schemas::db::Database;
use schemas::interfaces::KnownInterfaces;
use schemas::inventory;
use schemas::metering::MeteringConfig;
use schemas::money::{Currency, MoneyError};
use schemas::secret::KeyFile;
use schemas::secret_keys;
use schemas::window::instant_text;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Config, DatabaseUrl};
use crate::database_note::{self, NOTE};
use crate::log_limit::LogLimit;
use crate::{private, upgrade};

/// When the process began, UTC milliseconds of the machine's clock.
static BEGUN_MS: OnceLock<i64> = OnceLock::new();

/// Notes that the process begins.
pub(crate) fn note_beginning() {
    let _ = BEGUN_MS.set(clock::machine_now_ms());
}

/// When the process began; `None` in unit tests.
pub(crate) fn begun_ms() -> Option<i64> {
    BEGUN_MS.get().copied()
}

/// What a disk must have room for when a collector starts: SQLite's log and its index, a first segment.
const PROBE_BYTES: usize = 256 << 10;

/// How long the check of the database may hold up a start; what it has not read by then it reads while the program runs.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// A time that somebody typed: an instant, or a day, which is its start in UTC.
///
/// # Errors
/// In words, when it is neither.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    if let Ok(instant) = text.parse() {
        return Ok(instant);
    }
    let midnight = |day: Date| day.to_zoned(TimeZone::UTC).ok();
    // A date and time without an offset would be taken for a day, too.
    let day = Some(text).filter(|text| text.len() == "2026-11-29".len());
    match day.and_then(|text| text.parse().ok()).and_then(midnight) {
        Some(midnight) => Ok(midnight.timestamp()),
        None => Err("write a time like 2026-11-29T00:00:00Z, or a day like 2026-11-29".to_owned()),
    }
}

/// A currency that somebody typed: one that is in use.
///
/// # Errors
/// When there is none of this code.
pub(crate) fn currency(text: &str) -> Result<Currency, MoneyError> {
    Currency::in_use(text)
}

/// Refuses a time that is empty or reversed.
///
/// # Errors
/// When `from_ms` is not before `to_ms`.
pub(crate) fn check_order(from_ms: i64, to_ms: i64) -> anyhow::Result<()> {
    if from_ms < to_ms {
        return Ok(());
    }
    bail!(
        "--from {} must lie before --to {}",
        instant_text(from_ms),
        instant_text(to_ms)
    )
}

/// How the program logs; logs go to standard error.
#[derive(Args, Debug)]
pub(crate) struct Logging {
    /// What to log: error, warn, info, debug, trace, or per module (collector=debug) [default: info; warn for demo]
    #[arg(
        long,
        global = true,
        env = "EZSCALE_LOG",
        value_name = "FILTER",
        help_heading = "Logging",
        display_order = 1000
    )]
    log: Option<String>,
    /// Form of the log lines
    #[arg(
        long,
        global = true,
        env = "EZSCALE_LOG_FORMAT",
        value_enum,
        default_value = "text",
        help_heading = "Logging",
        display_order = 1001
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What libraries say that nobody can act on, or that we say ourselves with what to do: the text of statements that took long,
/// notices of PostgreSQL, exporters that do not answer by SNMP; and parameters of a database's URL that are not known, with their
/// values, which may be secret. Who names a library in the filter gets it.
const OF_LIBRARIES: &str =
    "sqlx::query=error,sqlx::postgres::notice=warn,sqlx_postgres::options::parse=off,async_snmp=off";

/// The filter that somebody typed; of what several parts of it name the last holds.
fn log_filter(wanted: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{OF_LIBRARIES},{wanted}"))
}

pub(crate) fn init_logging(logging: &Logging, default: &str) {
    use std::io::IsTerminal as _;

    use tracing_subscriber::Layer as _;
    use tracing_subscriber::filter::FilterExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;

    let wanted = logging.log.as_deref().unwrap_or(default);
    let filter = log_filter(wanted).unwrap_or_else(|error| {
        tell!("warning: --log {wanted:?} is not understood ({error}): logging at {default}");
        EnvFilter::new(format!("{OF_LIBRARIES},{default}"))
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A line that nobody reads is no reason to panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let filter = filter.and(LogLimit::default());
    let registry = tracing_subscriber::registry();
    match logging.log_format {
        LogFormat::Text => registry.with(lines.with_target(false).with_filter(filter)).init(),
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).init(),
    }
}

/// Where the data is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Data {
    /// Configuration file (TOML); see `ezscale config example` [default: ezscale.toml in the data folder, if there]
    #[arg(long, env = "EZSCALE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of journal, tables and the default database [default: ezscale-data]
    #[arg(long, env = "EZSCALE_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Relational database: sqlite:///path or postgres://user@host/name [default: SQLite in the data folder]
    #[arg(long, env = "EZSCALE_DATABASE", value_name = "URL", hide_env_values = true)]
    pub(crate) database: Option<DatabaseUrl>,
}

/// Where the collector listens.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Listen {
    /// Listen for NetFlow v5, v7, v9 and IPFIX; repeatable; port 0 picks a free one [default: 0.0.0.0:2055]
    #[arg(long, env = "EZSCALE_NETFLOW", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) netflow: Vec<SocketAddr>,
    /// Listen for sFlow v5; repeatable [default: 0.0.0.0:6343]
    #[arg(long, env = "EZSCALE_SFLOW", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) sflow: Vec<SocketAddr>,
}

impl Data {
    /// The configuration file: the one that was named, else `ezscale.toml` in the data folder, if it is there.
    pub(crate) fn config_path(&self) -> Option<PathBuf> {
        let in_data_dir = || {
            let data_dir = self.data_dir.clone().unwrap_or(Config::default().data_dir);
            Some(data_dir.join("ezscale.toml")).filter(|path| path.exists())
        };
        self.config.clone().or_else(in_data_dir)
    }

    /// The configuration with the flags applied. A data folder that is not there is an error: a mistyped path must not
    /// become an empty installation.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        self.secure_default()?;
        let config = self.config_to_look_at()?;
        if config.data_dir.exists() {
            private::secure(&config.data_dir)?;
        }
        Ok(config)
    }

    /// As [`Data::config`], for what changes nothing, not even who may read the folder.
    pub(crate) fn config_to_look_at(&self) -> anyhow::Result<Config> {
        let config = self.read_config()?;
        // Commands that only ask a database need no folder where that lies elsewhere.
        if config.database.is_none() && !is_data_folder(&config.data_dir) {
            bail!("{}", no_data(&config.data_dir));
        }
        database_note::refuse_forgotten(&config)?;
        Ok(config)
    }

    /// The configuration lies in the data folder: what an earlier version left is made private before it is judged.
    fn secure_default(&self) -> anyhow::Result<()> {
        if self.config.is_none() {
            let data_dir = self.data_dir.clone().unwrap_or(Config::default().data_dir);
            if is_data_folder(&data_dir) {
                private::secure(&data_dir)?;
            }
        }
        Ok(())
    }

    /// As [`Data::config`], for what reads the folder itself, wherever the database lies.
    pub(crate) fn config_with_tables(&self) -> anyhow::Result<Config> {
        self.secure_default()?;
        let config = self.read_config()?;
        if !is_data_folder(&config.data_dir) {
            bail!("{}", no_data(&config.data_dir));
        }
        private::secure(&config.data_dir)?;
        Ok(config)
    }

    /// The configuration with the flags applied, and the data folder made: for commands that begin something.
    pub(crate) fn config_and_folder(&self) -> anyhow::Result<Config> {
        self.secure_default()?;
        let mut config = self.read_config()?;
        private::secure(&config.data_dir)?;
        config.interfaces = known_interfaces(&config.data_dir);
        Ok(config)
    }

    /// The configuration with the flags applied; no folder is touched.
    pub(crate) fn read_config(&self) -> anyhow::Result<Config> {
        let mut config = match self.config_path() {
            Some(path) => Config::read(&path)?,
            None => Config::default(),
        };
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        if self.database.is_some() {
            config.database.clone_from(&self.database);
        }
        config.interfaces = known_interfaces(&config.data_dir);
        Ok(config)
    }

    /// As [`Data::open_database`], for what collects: a disk that takes nothing is told at once, with what to do.
    pub(crate) async fn open_to_write(&self) -> anyhow::Result<(Config, Database)> {
        let config = self.config_and_folder()?;
        let probe = config.data_dir.join(".writable");
        let written = std::fs::write(&probe, [0; PROBE_BYTES]);
        // Where it could not be made there is nothing to remove; where it could, a later start writes over it.
        let _ = std::fs::remove_file(&probe);
        if let Err(error) = written {
            let (folder, advice) = (config.data_dir.display(), collector::advice(&error));
            let context = format!("the data folder {folder} cannot be written: {advice}");
            return Err(anyhow::Error::new(error).context(context));
        }
        let (config, database) = self.open(config).await?;
        database.check_at_start(CHECK_LIMIT).await?;
        Ok((config, database))
    }

    /// The configuration and its open database, which must be there.
    pub(crate) async fn open_database(&self) -> anyhow::Result<(Config, Database)> {
        self.open(self.config()?).await
    }

    /// As [`Data::open_database`], for commands that add something: the data folder is made where it is missing.
    pub(crate) async fn open_or_create(&self) -> anyhow::Result<(Config, Database)> {
        self.open(self.config_and_folder()?).await
    }

    async fn open(&self, config: Config) -> anyhow::Result<(Config, Database)> {
        let database = open_database(&config, self.config_path().as_deref()).await?;
        billing::vat::switch(&database, config.vies.enabled).await?;
        Ok((config, database))
    }

    /// The configuration and the key file of its secrets.
    pub(crate) fn key_file(&self, config: &Config) -> KeyFile {
        config.secrets.key_file(self.config_path().as_deref(), &config.data_dir)
    }
}

/// A configuration's database, with its secrets. The key file is made where there is none and nothing is sealed yet; what
/// earlier versions stored as it is gets sealed.
pub(crate) async fn open_database(config: &Config, config_path: Option<&Path>) -> anyhow::Result<Database> {
    let file = config.secrets.key_file(config_path, &config.data_dir);
    let database = upgrade::open(config).await?;
    let (database, unlocked) = secret_keys::unlock(database, &file)
        .await
        .context("open the secrets in the database")?;
    let path = file.path().display();
    if unlocked.is_new {
        tracing::warn!(
            key_file = %path,
            "a key was made for the secrets in the database: keep a copy of it apart from the backups, which need it"
        );
    }
    if unlocked.sealed > 0 {
        tracing::info!(
            values = unlocked.sealed,
            "secrets that were stored as they are have been sealed"
        );
    }
    if unlocked.remains {
        tracing::warn!("run VACUUM on the database: its files may still hold secrets as they were stored before");
    }
    Ok(database)
}

/// What a folder has at least one of that data were written to.
const IN_DATA_FOLDERS: [&str; 6] = ["ezscale.db", "tables", "journal", "collector", "ezscale.toml", NOTE];

fn is_data_folder(path: &Path) -> bool {
    IN_DATA_FOLDERS.iter().any(|name| path.join(name).exists())
}

fn no_data(path: &Path) -> String {
    let problem = if path.exists() {
        "holds no data of ezscale"
    } else {
        "does not exist"
    };
    format!(
        "the data folder {} {problem}: name the right one with --data-dir or --config, or make it with `ezscale init`, `ezscale serve` \
         or `ezscale demo`",
        path.display()
    )
}

impl Listen {
    /// Listeners on the command line replace all configured ones: nobody gets a port open that was not asked for.
    pub(crate) fn apply(&self, config: &mut Config) {
        if self.netflow.is_empty() && self.sflow.is_empty() {
            return;
        }
        config.collector.netflow.clone_from(&self.netflow);
        config.collector.sflow.clone_from(&self.sflow);
    }
}

/// What the exporters said of their interfaces. A file that cannot be read is no reason not to run: names are missing, and
/// interfaces that are judged by name are not metered until the exporters are asked again.
pub(crate) fn known_interfaces(data_dir: &Path) -> Arc<KnownInterfaces> {
    let read = KnownInterfaces::read(data_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "the names of interfaces in collector/interfaces.json cannot be read");
        KnownInterfaces::default()
    });
    Arc::new(read)
}

/// A number of digits with a point at most, as people write amounts: not `1e1`.
pub(crate) fn plain_decimal(text: &str) -> Result<Decimal, String> {
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
    let value = is_plain.then(|| text.parse().ok()).flatten();
    value.ok_or_else(|| format!("{text:?} is no number such as 20 or 12.50"))
}

/// What time billing takes it for, UTC milliseconds: a database made for rehearsals has a clock of its own.
pub(crate) async fn now_ms(database: &Database) -> anyhow::Result<i64> {
    Ok(clock::of(database.pool()).await?.now_ms())
}

/// As [`now_ms`], for what charges or decides what is charged: refused while billing is stopped, because the clock moved
/// further than it can have.
pub(crate) async fn billing_now_ms(config: &Config, database: &Database) -> anyhow::Result<i64> {
    let now_ms = now_ms(database).await?;
    match guard::look(database, config.billing.clock_limits(), now_ms).await? {
        Some(stopped) => bail!("{stopped}"),
        None => Ok(now_ms),
    }
}

/// Usage for who finalises by it: what was not measured is held.
pub(crate) async fn guarded_usage(
    config: &Config,
    database: &Database,
    analytics: Analytics,
) -> anyhow::Result<MeteredUsage> {
    let guards = config.billing.guards(clock::of(database.pool()).await?.is_test());
    Ok(MeteredUsage::new(analytics, &config.metering()).guarded(guards))
}

/// The snapshot of assignments that the database holds.
pub(crate) async fn load_assignments(database: &Database) -> anyhow::Result<Arc<Assignments>> {
    let rows = inventory::load_assignments(database.pool())
        .await
        .context("read assignments")?;
    Ok(Arc::new(Assignments::new(rows)?))
}

/// The configuration of metering with what was said about exporters' past.
pub(crate) async fn load_metering(config: &Config, database: &Database) -> anyhow::Result<MeteringConfig> {
    let rows = inventory::corrections(database.pool())
        .await
        .context("read corrections of exporters")?;
    Ok(MeteringConfig {
        corrections: rows.into_iter().map(|row| row.correction).collect(),
        ..config.metering()
    })
}

/// Makes usage current: a reader then sees what was collected up to now.
pub(crate) async fn open_current(config: &Config) -> anyhow::Result<Analytics> {
    if !is_data_folder(&config.data_dir) {
        bail!("{}", no_data(&config.data_dir));
    }
    let analytics = Analytics::open(&config.open_storage()?)?;
    analytics.refresh_rollups(|_| {}).await?;
    Ok(analytics)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_time_is_an_instant_or_a_day() {
        for (text, expected) in [
            ("2026-11-29T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("2026-11-29", "2026-11-29T00:00:00Z"),
            ("2026-01-01T00:00:00+01:00", "2025-12-31T23:00:00Z"),
        ] {
            assert_eq!(instant(text).unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-11-29T00:00:00",
            "29.11.2026",
            "1764374400",
        ] {
            let refused = instant(text).unwrap_err();
            assert!(refused.contains("a day like 2026-11-29"), "{text}: {refused}");
        }
    }

    /// Counts what a filter lets through.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_log_has_no_statements_notices_and_failures_of_libraries_unless_they_are_asked_for() {
        for (wanted, expected) in [
            ("info", 1),
            ("debug", 1),
            ("warn,billing=error", 1),
            ("info,sqlx=info", 1),
            ("info,sqlx::query=warn", 2),
            ("info,async_snmp=error,sqlx::postgres::notice=info", 3),
        ] {
            let lines = Lines::default();
            let filtered = lines.clone().with_filter(log_filter(wanted).unwrap());
            tracing::subscriber::with_default(tracing_subscriber::registry().with(filtered), || {
                tracing::warn!(target: "sqlx::query", "slow statement");
                tracing::info!(target: "sqlx::postgres::notice", "relation exists, skipping");
                tracing::warn!(target: "sqlx_postgres::options::parse", value = "hush", "ignoring");
                tracing::error!(target: "async_snmp::client", "timeout");
                tracing::warn!("ours");
            });
            assert_eq!(lines.0.load(Ordering::Relaxed), expected, "{wanted}");
        }
        assert!(log_filter("ours=loud").is_err());
    }

    #[test]
    fn a_reversed_time_is_refused() {
        assert!(check_order(0, 1).is_ok());
        let refused = check_order(1_000, 1_000).unwrap_err().to_string();
        assert_eq!(
            refused,
            "--from 1970-01-01T00:00:01Z must lie before --to 1970-01-01T00:00:01Z"
        );
    }
}
