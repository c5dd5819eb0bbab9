//! What billing costs: closing a month, the ledger, and events.
//!
//! A world is made with the library (customers in Europe/Berlin, a service and a subscription each), a month of metered usage
//! is stored as the collector's refresh stores it, and the built program closes: `ezscale invoice close`, measured as a
//! process, on SQLite and on a PostgreSQL of the measurement's own.

mod books;
mod month;
mod postgres;
mod world;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use billing::ledger;
use collector::simulate::encode::SimProtocol;
use schemas::clock;
use schemas::db::Database;
use serde::Serialize;
use sqlx::Row as _;

use crate::measure::{self, Load, Scratch};
use crate::process::{Measured, Used};
use crate::report::{Report, mebibytes, millions, progress};
use crate::side::{Ezscale, Side};
use books::{EventRow, LedgerRow};
use postgres::Postgres;

const CLOSE_LIMIT: Duration = Duration::from_secs(3600);
/// What Lago states for one PostgreSQL ("Postgres-only throughput", docs: Performance & Optimization, as of 2026-11).
const LAGO_EVENTS_PER_SECOND: u64 = 10_000;

/// A database that billing runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    Sqlite,
    Postgres,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Server::Sqlite => "SQLite",
            Server::Postgres => "PostgreSQL",
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BillingArgs {
    /// Subscriptions of which a month is closed; 100,000 take 12 GB of disk
    #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
    subscriptions: Vec<u32>,
    /// Databases to close on
    #[arg(long, value_delimiter = ',', value_enum, default_value = "sqlite,postgres")]
    databases: Vec<Server>,
    /// Flows a second that are tried, the first without loss is told
    #[arg(long, value_delimiter = ',', default_value = "1000000,750000,500000,250000")]
    flow_rates: Vec<u64>,
    /// Transactions and events of each kind
    #[arg(long, default_value_t = 20_000)]
    operations: u32,
}

/// One closing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClosingRow {
    database: Server,
    subscriptions: u32,
    pass: &'static str,
    /// Rows of `usage_5m` in the month that is charged.
    usage_rows: u64,
    invoices: u64,
    lines: u64,
    postings: u64,
    seconds: f64,
    subscriptions_per_second: f64,
    cpu_seconds: f64,
    rss_peak_bytes: u64,
}

/// Everything that the part measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Billing {
    closing: Vec<ClosingRow>,
    ledger: Vec<LedgerRow>,
    events: Vec<EventRow>,
}

pub(crate) fn run(args: &BillingArgs, seconds: u64, ezscale: &Ezscale, dir: &Path) -> anyhow::Result<Billing> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let mut measured = Billing {
        closing: Vec::new(),
        ledger: Vec::new(),
        events: vec![usage_events(&args.flow_rates, seconds, ezscale, dir)?],
    };
    for &subscriptions in &args.subscriptions {
        let folder = Scratch::new(dir, "billing")?;
        progress(format_args!("storing a month of usage of {subscriptions} services"));
        let usage_rows = month::store(folder.path(), subscriptions)?;
        for &server in &args.databases {
            let postgres = match server {
                Server::Sqlite => None,
                Server::Postgres => Some(Postgres::start(folder.path())?),
            };
            let url = match &postgres {
                None => Database::default_url(folder.path()),
                Some(postgres) => postgres.url(),
            };
            let database = runtime.block_on(async {
                let database = match &postgres {
                    None => Database::open(&url).await?,
                    Some(postgres) => postgres.open().await?,
                };
                progress(format_args!(
                    "making {subscriptions} subscriptions on {}",
                    server.name()
                ));
                world::make(&database, subscriptions).await?;
                anyhow::Ok(database)
            })?;
            let closer = Closer {
                runtime: &runtime,
                database: &database,
                server,
                subscriptions,
                ezscale,
                folder: folder.path(),
                url: &url,
            };
            measured.closing.push(closer.close("base in advance", month::BEGIN, 0)?);
            measured
                .closing
                .push(closer.close("month with usage", month::END, usage_rows)?);
            measured.closing.push(closer.close("again", month::END, 0)?);
            measured.ledger.push(closer.check()?);
            // Once on each database, however many subscriptions there are.
            if args.subscriptions.first() == Some(&subscriptions) {
                progress(format_args!("posting and telling on {}", server.name()));
                let made = runtime.block_on(books::run(&database, server, subscriptions, args.operations))?;
                measured.ledger.extend(made.ledger);
                measured.events.extend(made.events);
            }
            runtime.block_on(database.pool().close());
        }
    }
    measured.print();
    Ok(measured)
}

/// The built program on one database.
struct Closer<'a> {
    runtime: &'a tokio::runtime::Runtime,
    database: &'a Database,
    server: Server,
    subscriptions: u32,
    ezscale: &'a Ezscale,
    folder: &'a Path,
    url: &'a str,
}

/// What is in the books.
#[derive(Clone, Copy, Debug)]
struct Counts {
    invoices: u64,
    lines: u64,
    postings: u64,
}

impl Closer<'_> {
    /// Closes what is due at `at`, a local time of the customers.
    fn close(&self, pass: &'static str, at: &str, usage_rows: u64) -> anyhow::Result<ClosingRow> {
        progress(format_args!(
            "closing {} on {}: {pass}",
            self.subscriptions,
            self.server.name()
        ));
        let at = at.parse::<jiff::Zoned>()?.timestamp();
        let before = self.runtime.block_on(async {
            clock::store(&mut *self.database.pool().acquire().await?, at).await?;
            counts(self.database).await
        })?;
        let (used, seconds) = self.program(&["invoice", "close"])?;
        let after = self.runtime.block_on(async {
            for currency in ledger::trial_balance(self.database.pool()).await? {
                ensure!(currency.is_balanced(), "the books do not balance: {currency:?}");
            }
            counts(self.database).await
        })?;
        let invoices = after.invoices - before.invoices;
        let expected = if pass == "again" {
            0
        } else {
            u64::from(self.subscriptions)
        };
        ensure!(
            invoices == expected,
            "{pass}: {invoices} invoices for {} subscriptions",
            self.subscriptions
        );
        Ok(ClosingRow {
            database: self.server,
            subscriptions: self.subscriptions,
            pass,
            usage_rows,
            invoices,
            lines: after.lines - before.lines,
            postings: after.postings - before.postings,
            seconds,
            subscriptions_per_second: f64::from(self.subscriptions) / seconds,
            cpu_seconds: used.cpu_seconds,
            rss_peak_bytes: used.rss_peak_bytes,
        })
    }

    fn check(&self) -> anyhow::Result<LedgerRow> {
        let counts = self.runtime.block_on(counts(self.database))?;
        let (_, seconds) = self.program(&["ledger", "check"])?;
        Ok(LedgerRow::new(
            self.server,
            format!("ledger check, {} invoices", counts.invoices),
            counts.postings,
            seconds,
        ))
    }

    fn program(&self, arguments: &[&str]) -> anyhow::Result<(Used, f64)> {
        let mut command = Command::new(&self.ezscale.binary);
        command.args(arguments).args(["--log", "warn"]);
        command
            .arg("--data-dir")
            .arg(self.folder)
            .args(["--database", self.url]);
        let log = self.folder.join("closing.log");
        let begun = Instant::now();
        let running = Measured::start("ezscale", command, &log)?;
        let used = running.finish(CLOSE_LIMIT)?;
        Ok((used, begun.elapsed().as_secs_f64()))
    }
}

async fn counts(database: &Database) -> anyhow::Result<Counts> {
    let count = async |sql: &'static str| -> anyhow::Result<u64> {
        let row = sqlx::query(sql).fetch_one(database.pool()).await?;
        Ok(u64::try_from(row.try_get::<i64, _>(0)?)?)
    };
    Ok(Counts {
        invoices: count("SELECT count(*) FROM invoices").await?,
        lines: count("SELECT count(*) FROM invoice_lines").await?,
        postings: count("SELECT count(*) FROM ledger_postings").await?,
    })
}

/// What a usage event is here: a flow, journalled, attributed to a service, metered and stored.
fn usage_events(rates: &[u64], seconds: u64, ezscale: &Ezscale, dir: &Path) -> anyhow::Result<EventRow> {
    for &rate in rates {
        progress(format_args!("metering {rate} flows/s"));
        let load = Load {
            side: Side::Ezscale,
            protocol: SimProtocol::Ipfix,
            exporters: 1,
            rate,
            flows: rate * seconds,
        };
        let outcome = measure::run_once(&load, ezscale, dir)?;
        if outcome.lost() == 0 {
            return Ok(EventRow::new(
                "usage: flows received, journalled, attributed, metered, stored",
                outcome.flows_stored,
                outcome.sent.seconds,
            ));
        }
    }
    bail!("flows were lost at every rate of {rates:?}");
}

impl Billing {
    fn print(&self) {
        let columns = [
            "database",
            "closing",
            "subscriptions",
            "usage rows",
            "invoices",
            "lines",
            "seconds",
            "subscriptions/s",
            "CPU s",
            "peak RSS",
        ];
        let mut report = Report::new(2, &columns);
        for row in &self.closing {
            report.row(&[
                row.database.name().to_owned(),
                row.pass.to_owned(),
                row.subscriptions.to_string(),
                millions(row.usage_rows as f64),
                row.invoices.to_string(),
                row.lines.to_string(),
                format!("{:.1}", row.seconds),
                format!("{:.0}", row.subscriptions_per_second),
                format!("{:.1}", row.cpu_seconds),
                mebibytes(row.rss_peak_bytes),
            ]);
        }
        report.print("Closing a month: one `ezscale invoice close`");
        let mut report = Report::new(2, &["database", "ledger", "postings", "seconds", "postings/s"]);
        for row in &self.ledger {
            report.row(&row.cells());
        }
        report.print("Ledger");
        let mut report = Report::new(1, &["events", "number", "seconds", "events/s"]);
        for row in &self.events {
            report.row(&row.cells());
        }
        report.print("Events");
        println!("Lago states {LAGO_EVENTS_PER_SECOND} usage events/s for one PostgreSQL.");
    }
}
