//! `ezscale job`: what runs by itself, and running it now.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use activity::act::Note;
use activity::job::{self, Job, JobBoard, JobRecord, LocalRun, Outcome, RequestState, Run, RunFilter, history};
use analytics::Analytics;
use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use schemas::clock;
use schemas::db::Database;
use schemas::ids::JobRunId;
use tokio::sync::watch;

use super::audit;
use crate::config::Config;
use crate::jobs::{self, Books, Metered, PrunedTotals};
use crate::options::{Data, load_metering, now_ms};
use crate::outbox::Outbox;
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, number, shown, text};
use crate::storage::Removed;

/// How often it is looked for what became of a run.
const LOOK: Duration = Duration::from_millis(300);
/// Until a process begins with what it was asked for.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List jobs with their state, next and last run
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a job with its schedule, state and last run
    Show {
        /// The job, such as close
        name: String,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Run a job now and wait for it: by the process that runs it anyway, or by this one where there is none
    Run {
        /// The job, such as close
        name: String,
        #[command(flatten)]
        data: Data,
    },
    /// List runs, latest first
    History {
        /// Only of this job
        name: Option<String>,
        /// Only with this outcome
        #[arg(long, value_enum)]
        outcome: Option<RunOutcome>,
        /// Older than this run (run_N)
        #[arg(long)]
        before: Option<JobRunId>,
        /// How many to list at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=history::MAX_PAGE))]
        limit: i64,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RunOutcome {
    Running,
    Succeeded,
    Failed,
    GivenUp,
    Abandoned,
}

impl From<RunOutcome> for Outcome {
    fn from(outcome: RunOutcome) -> Outcome {
        match outcome {
            RunOutcome::Running => Outcome::Running,
            RunOutcome::Succeeded => Outcome::Succeeded,
            RunOutcome::Failed => Outcome::Failed,
            RunOutcome::GivenUp => Outcome::GivenUp,
            RunOutcome::Abandoned => Outcome::Abandoned,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { format, data } => {
            let (_, database) = data.open_database().await?;
            list(&database, format).await
        }
        Command::Show { name, format, data } => {
            let (_, database) = data.open_database().await?;
            show(&database, &name, format).await
        }
        Command::Run { name, data } => {
            let (config, database) = data.open_database().await?;
            run_now(&config, &data, &database, &name).await
        }
        Command::History {
            name,
            outcome,
            before,
            limit,
            format,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let filter = RunFilter {
                job: name.as_deref(),
                outcome: outcome.map(Outcome::from),
                before,
            };
            print_runs(&job::runs(database.pool(), filter, limit).await?, format)
        }
    }
}

async fn list(database: &Database, format: Format) -> anyhow::Result<()> {
    let now_ms = clock::machine_now_ms();
    let mut listing = Listing::new([
        text("job"),
        text("state"),
        text("schedule"),
        text("next_at"),
        text("last_ended_at"),
        text("last_outcome"),
        text("did"),
        text("after").only_data(),
        text("progress").only_data(),
        text("running_since").only_data(),
        text("last_success_at").only_data(),
        number("failures_in_a_row").only_data(),
        text("process").only_data(),
        text("instance").only_data(),
        text("description").only_data(),
    ]);
    for job in job::list(database.pool()).await? {
        let process = job.lease.as_ref().map(|lease| lease.owner.clone());
        listing.row([
            job.name.clone().into(),
            job.condition(now_ms).name().into(),
            job.schedule.clone().into(),
            job.next_at_ms.map(at).into(),
            job.last_ended_at_ms.map(at).into(),
            job.last_outcome.map(Outcome::name).into(),
            doing(&job).into(),
            some(&job.waits_for),
            some(&progress(&job)),
            job.running_since_ms.map(at).into(),
            job.last_success_at_ms.map(at).into(),
            job.failures_in_a_row.into(),
            process.filter(|owner| !owner.is_empty()).into(),
            some(&job.instance),
            job.description.clone().into(),
        ]);
    }
    listing.print(format, "no jobs yet: `ezscale serve` makes them known when it starts")
}

/// Of a job that processes have each for themselves, the one that began last.
async fn show(database: &Database, name: &str, format: ShowFormat) -> anyhow::Result<()> {
    let now_ms = clock::machine_now_ms();
    let named = job::list(database.pool())
        .await?
        .into_iter()
        .filter(|job| job.name == name);
    let job = named
        .max_by_key(|job| job.last_started_at_ms)
        .with_context(|| format!("no job {name}: `ezscale job list` lists them"))?;
    let process = job.lease.as_ref().map(|lease| lease.owner.clone());
    Record::new()
        .field(text("job"), job.name.clone())
        .field(text("description"), job.description.clone())
        .field(text("state"), job.condition(now_ms).name())
        .field(text("schedule"), job.schedule.clone())
        .field(text("after"), some(&job.waits_for))
        .field(text("next_at"), job.next_at_ms.map(at))
        .field(text("running_since"), job.running_since_ms.map(at))
        .field(text("progress"), some(&progress(&job)))
        .field(text("last_started_at"), job.last_started_at_ms.map(at))
        .field(text("last_ended_at"), job.last_ended_at_ms.map(at))
        .field(text("last_success_at"), job.last_success_at_ms.map(at))
        .field(text("last_outcome"), job.last_outcome.map(Outcome::name))
        .field(text("did"), some(&doing(&job)))
        .field(number("failures_in_a_row"), job.failures_in_a_row)
        .field(text("process"), process.filter(|owner| !owner.is_empty()))
        .field(text("instance"), some(&job.instance))
        .print(format)
}

/// A text, or nothing where it is empty.
fn some(text: &str) -> Cell {
    match text {
        "" => Cell::Absent,
        text => text.into(),
    }
}

/// What it does now, why it does not, or what its last run did.
fn doing(job: &JobRecord) -> String {
    if !job.switched_off.is_empty() {
        return job.switched_off.clone();
    }
    if job.running_since_ms.is_some() {
        return progress(job);
    }
    match job.hold.as_str() {
        "" => job.last_text.clone(),
        hold => hold.to_owned(),
    }
}

fn progress(job: &JobRecord) -> String {
    let progress = &job.progress;
    match progress.total {
        0 => progress.text.clone(),
        total => format!("{} of {total} {}", progress.done, progress.text),
    }
}

fn print_runs(runs: &[Run], format: Format) -> anyhow::Result<()> {
    let mut listing = Listing::new([
        text("id"),
        text("job"),
        text("cause"),
        text("started_at"),
        text("ended_at"),
        text("outcome"),
        text("did"),
        text("scheduled_at").only_data(),
        text("process").only_data(),
        text("instance").only_data(),
    ]);
    for run in runs {
        listing.row([
            shown(run.id),
            run.job.clone().into(),
            run.cause.name().into(),
            at(run.started_at_ms),
            run.ended_at_ms.map(at).into(),
            run.outcome.name().into(),
            run.text.clone().into(),
            at(run.scheduled_ms),
            run.owner.clone().into(),
            some(&run.instance),
        ]);
    }
    listing.print(format, "no runs")
}

/// Has a job run, and says what it did.
async fn run_now(config: &Config, data: &Data, database: &Database, name: &str) -> anyhow::Result<()> {
    let listed: Vec<JobRecord> = job::list(database.pool()).await?;
    let machine_ms = clock::machine_now_ms();
    let of_name = || listed.iter().filter(|listed| listed.name == name);
    if of_name().any(|listed| listed.has_process(machine_ms)) {
        return ask(database, name).await;
    }
    // The process that decides whether it runs has switched it off.
    if let Some(off) = of_name().find(|listed| !listed.switched_off.is_empty() && listed.is_leased(machine_ms)) {
        bail!("{name} is switched off: {}", off.switched_off);
    }
    let jobs = jobs_here(config, data, database).await?;
    let names: Vec<&str> = jobs.iter().map(|job| job.name()).collect();
    let Some(job) = jobs.iter().find(|job| job.name() == name) else {
        if of_name().next().is_some() {
            bail!("{name} belongs to a process that serves or collects, and none runs: start `ezscale serve`");
        }
        bail!("no job is called {name:?}: there are {}", names.join(", "));
    };
    if let Some(why) = job.switched_off() {
        bail!("{name} is switched off: {why}");
    }
    // What comes of it is in the job's history.
    let act = audit::begin(database, now_ms(database).await?).await?;
    act.commit(Note::new("job.run", name)).await?;
    let clock = clock::of(database.pool()).await?;
    let settings = jobs::settings(config, database, &clock, &JobBoard::default());
    match job::run_here(Arc::clone(job), settings).await? {
        LocalRun::Ended { outcome, text } => report(name, outcome, &text),
        LocalRun::Held(why) => bail!("{name} is on hold: {why}"),
    }
}

/// Says how a run ended; one that failed is the command's failure.
fn report(name: &str, outcome: Outcome, text: &str) -> anyhow::Result<()> {
    let text = if text.is_empty() { "nothing to do" } else { text };
    if outcome != Outcome::Succeeded {
        bail!("{name} {}: {text}", outcome.name());
    }
    say!("{name} {}: {text}", outcome.name());
    Ok(())
}

/// Asks the processes that have a job to run it, and waits until all of them did.
async fn ask(database: &Database, name: &str) -> anyhow::Result<()> {
    // The job's row before the log's: as who records a run takes them.
    let mut act = audit::begin(database, now_ms(database).await?).await?;
    let asked = job::request(act.connection(), name, clock::machine_now_ms()).await?;
    act.commit(Note::new("job.run", name)).await?;
    let of_job = RunFilter {
        job: Some(name),
        ..RunFilter::default()
    };
    let since = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        // In this order: a run that the list says is over is among those that are read after it.
        let listed = job::list(database.pool()).await?;
        let runs = job::runs(database.pool(), of_job, history::MAX_PAGE).await?;
        let machine_ms = clock::machine_now_ms();
        let (mut waits, mut is_under_way) = (false, false);
        let mut ended: Vec<(Outcome, String)> = Vec::new();
        for request in &asked {
            match request.answer(&listed, &runs, machine_ms) {
                RequestState::Waiting => waits = true,
                RequestState::Begun => is_under_way = true,
                RequestState::Held(why) => {
                    job::withdraw(database, name).await?;
                    bail!("{name} is on hold: {why}");
                }
                RequestState::Withdrawn => bail!("{name} was not run: the request was withdrawn"),
                RequestState::Gone => {
                    // Nobody waits for it any more: the next process need not begin with it.
                    job::withdraw(database, name).await?;
                    bail!("{name}: its process ended, or does not answer (`ezscale job history {name}`)");
                }
                RequestState::Ended { outcome, text } => ended.push((outcome, text)),
            }
        }
        // One that was begun may take its time.
        if waits && since.elapsed() >= BEGIN_LIMIT && !is_behind(&listed, name) {
            job::withdraw(database, name).await?;
            bail!(
                "{name} was not begun within {} s: its process does not answer",
                BEGIN_LIMIT.as_secs()
            );
        }
        if !waits && !is_under_way {
            let failed = ended.iter().find(|(outcome, _)| *outcome != Outcome::Succeeded);
            let (outcome, text) = failed.or(ended.first()).context("a run ended")?;
            return report(name, *outcome, text);
        }
    }
}

/// Whether a job, or one that goes before it, runs.
fn is_behind(listed: &[JobRecord], name: &str) -> bool {
    let of_name = listed.iter().filter(|listed| listed.name == name);
    of_name
        .flat_map(|job| job.waits_for.split(", ").chain([name]))
        .any(|first| {
            let first = listed.iter().filter(|listed| listed.name == first);
            first.clone().any(|first| first.running_since_ms.is_some())
        })
}

/// The jobs that this process can run alone.
async fn jobs_here(config: &Config, data: &Data, database: &Database) -> anyhow::Result<Vec<Arc<dyn Job>>> {
    let analytics = Analytics::open(&config.open_storage()?)?;
    let clock = clock::of(database.pool()).await?;
    let metering = load_metering(config, database).await?;
    let tables = Metered::new(config, analytics.clone(), Removed::default());
    let books = Books {
        database: database.clone(),
        analytics,
        metering: watch::channel(Arc::new(metering)).1,
        gateways: config.gateways(database).await?,
        closes: config.billing.close_automatically,
        clock_limits: config.billing.clock_limits(),
        guards: config.billing.guards(clock.is_test()),
        clock,
        config_path: data.config_path(),
        keep: Mutex::new(config.retention.records),
        pruned: PrunedTotals::default(),
        outbox: Outbox::new(config, database)?,
        register: config.vies.register()?,
    };
    jobs::of_command(&tables, &Arc::new(books))
}
