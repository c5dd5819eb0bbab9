//! The background jobs of `serve`, `collect` and `demo`: one file for each, and the lists of them here. `activity::job` drives
//! them; `docs/jobs.md` says what each does, when, and what it waits for.
//!
//! ```text
//! of the data folder (each process its own)        of the books (one process for all)
//!   configuration   5 s, SIGHUP                      lifecycle   1 min ─▶ idle_plans  daily
//!   interface_names 5 s                                  │
//!   assignments     5 s ─▶ usage  5 s ─▶ traffic  10 s     ▼
//!   retention       10 min                           close      10 min ─▶ collect  1 min ─▶ budgets  10 min
//!   truth           hourly                                                  ─▶ reconcile  15 s ─▶ prune  1 h
//!   billing_clock   1 s                              vat_numbers 30 s
//!   what is sent over each channel  5 s              what reacts to events, each by itself  5 s
//! ```
//!
//! An arrow: what is right of it comes after, when both are due ([`activity::job::JobDependency`]).

mod assignments;
mod billing_clock;
mod books;
mod budgets;
mod close;
mod collect;
mod config_file;
mod configuration;
mod consume;
mod counter_reconciliation;
mod idle_plans;
mod interface_names;
mod lifecycle;
mod prune;
mod reconcile;
mod retention;
mod send;
mod site;
mod traffic;
mod usage;
mod vat_numbers;

use std::sync::Arc;
use std::time::Duration;

use activity::channel::CHANNELS;
use activity::event::JobAlerts;
use activity::job::{Driver, Job, JobBoard, Settings};
use anyhow::Context as _;
use schemas::clock::Clock;
use schemas::db::Database;
use tokio::signal::unix::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use assignments::{apply_backdated, apply_correction};
pub(crate) use books::{Books, PrunedTotals};
pub(crate) use prune::JOB_RUNS;
pub(crate) use site::{Metered, Site, StartState};

use crate::config::Config;
use crate::outbox;

/// How often jobs that look for work do so with a test clock, which may be set at any time.
const TEST_PERIOD: Duration = Duration::from_secs(1);

/// The jobs of the data folder, which a collector has. The first three are bound to its process; what else works on the folder
/// can be run by a command too. `hangup`: SIGHUP, where it can be watched.
pub(crate) fn of_site(site: &Arc<Site>, hangup: Option<Signal>) -> anyhow::Result<Vec<Arc<dyn Job>>> {
    let mut jobs: Vec<Arc<dyn Job>> = vec![
        Arc::new(configuration::Configuration::new(site, hangup)),
        Arc::new(interface_names::InterfaceNames::new(site)),
        Arc::new(assignments::Assignments::new(site)),
    ];
    jobs.extend(of_tables(&site.metered)?);
    Ok(jobs)
}

/// The jobs of the stored tables.
fn of_tables(metered: &Metered) -> anyhow::Result<Vec<Arc<dyn Job>>> {
    Ok(vec![
        Arc::new(usage::Usage::new(metered)),
        Arc::new(traffic::Traffic::new(metered)),
        Arc::new(retention::Retention::new(metered)),
        Arc::new(counter_reconciliation::CounterReconciliation::new(metered)?),
    ])
}

/// The jobs of the books and of what is told of them.
pub(crate) fn of_books(books: &Arc<Books>) -> anyhow::Result<Vec<Arc<dyn Job>>> {
    let mut jobs: Vec<Arc<dyn Job>> = vec![
        Arc::new(billing_clock::BillingClock::new(books)),
        Arc::new(lifecycle::Lifecycle::new(books)),
        Arc::new(idle_plans::IdlePlans::new(books)?),
        Arc::new(close::Close::new(books)),
        Arc::new(collect::Collect::new(books)),
        Arc::new(budgets::Budgets::new(books)),
        Arc::new(reconcile::Reconcile::new(books)),
        Arc::new(prune::Prune::new(books)),
        Arc::new(vat_numbers::VatNumbers::new(books)),
    ];
    for consumer in outbox::consumers() {
        jobs.push(Arc::new(consume::Consume::new(books, consumer)));
    }
    for channel in CHANNELS {
        if let Some(sending) = channel.sending() {
            jobs.push(Arc::new(send::SendDue::new(books, channel, sending)));
        }
    }
    Ok(jobs)
}

/// What a command can run by itself, without a process that serves.
pub(crate) fn of_command(metered: &Metered, books: &Arc<Books>) -> anyhow::Result<Vec<Arc<dyn Job>>> {
    let mut jobs = of_tables(metered)?;
    jobs.extend(of_books(books)?);
    Ok(jobs)
}

/// What a driver in this process works with.
pub(crate) fn settings(config: &Config, database: &Database, clock: &Clock, board: &JobBoard) -> Settings {
    let folder = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    Settings {
        database: database.clone(),
        clock: clock.clone(),
        board: board.clone(),
        alerts: Arc::new(JobAlerts),
        folder: folder.display().to_string(),
    }
}

/// Jobs that run.
pub(crate) struct RunningJobs {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl RunningJobs {
    pub(crate) fn start(settings: Settings, jobs: Vec<Arc<dyn Job>>) -> RunningJobs {
        let stop = CancellationToken::new();
        let task = tokio::spawn(Driver::new(settings, jobs).run(stop.clone()));
        RunningJobs { task, stop }
    }

    /// Lets what is under way end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.await.context("background jobs")
    }
}
