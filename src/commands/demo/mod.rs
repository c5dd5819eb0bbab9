//! `ezscale demo`: everything at once, on a machine where nothing else is installed.
//!
//! ```text
//! fleet ─▶ customers, services, plans               (setup), users (people)
//!       ─▶ 75 days of orders, payments and what staff did                                        (story)
//!       ─▶ 36 days of flows ─▶ datagrams ─▶ decode ─▶ tables ─▶ usage ─▶ last month's invoices   (history)
//!       ─▶ live exporters ──UDP──▶ collector, portal (live)
//! ```
//!
//! History goes through the same decoders and tables as live traffic; only the network is left out. A folder that already
//! holds a demo is served as it is.

mod history;
mod live;
mod people;
mod setup;
mod story;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use activity::act::Note;
use analytics::Analytics;
use analytics::MeteredUsage;
use anyhow::{Context as _, bail};
use billing::payment::trial;
use collector::simulate::fleet::Fleet;
use schemas::clock::Clock;
use schemas::window::{DAY_MS, WindowStart};

use super::audit;
use super::collect::{Running, StopSignal};
use super::serve::{Portal, bind, start_jobs, store_terms};
use crate::config::{Config, TestSettings};
use crate::options::open_database;
use crate::private;
use people::People;
use story::Story;

/// Lets the fleet be the same in every demo.
const SEED: u64 = 7;
/// Written last into a demo's folder: what is there is complete.
const MARKER: &str = "DEMO";
/// Days of history that reach back over one whole billing month, whatever the month: 31 days, the three since the oldest ended,
/// what there is of today, and the hour by which clocks were set in between.
const MIN_DAYS: i64 = 36;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Folder to make; one that holds a demo already is used again
    #[arg(long, env = "EZSCALE_DATA_DIR", value_name = "DIR", default_value = "ezscale-demo")]
    data_dir: PathBuf,
    /// Address of the portal
    #[arg(long, env = "EZSCALE_HTTP", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Days of history, 36 to 49
    #[arg(long, default_value_t = MIN_DAYS, value_parser = clap::value_parser!(i64).range(MIN_DAYS..=49))]
    days: i64,
    /// Flow records per service and five minutes, about
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    density: u32,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let fleet = Fleet::new(SEED);
    let fresh = prepare_folder(&args.data_dir)?;
    let listener = bind(args.http).await?;
    let address = listener.local_addr()?;

    let config_path = args.data_dir.join("ezscale.toml");
    if fresh {
        std::fs::write(&config_path, config_text(&fleet, address)?)
            .with_context(|| format!("write {}", config_path.display()))?;
    }
    private::secure(&args.data_dir)?;
    let mut config = Config::read(&config_path)?;
    config.data_dir.clone_from(&args.data_dir);
    config.portal.http = address;
    let database = open_database(&config, Some(&config_path)).await?;
    let now = schemas::clock::machine_now();
    let mut act = audit::begin(&database, now.as_millisecond()).await?;
    if trial::mark_demo_books(act.connection()).await? {
        act.commit(Note::new("books.mark_test", "books")).await?;
    } else {
        // It holds the lock for writing.
        drop(act);
    }
    let history_end_ms = WindowStart::containing(now.as_millisecond()).start_ms();
    // Until where the past is stored.
    let mut stored_to_ms = history_end_ms;
    let mut exporters = live::exporters(&fleet, history_end_ms - (args.days + 1) * DAY_MS);
    if fresh {
        let history_start_ms = history_end_ms - args.days * DAY_MS;
        tell!(
            "{} services of {} customers in {}",
            fleet.services.len(),
            fleet.customers.len(),
            args.data_dir.display()
        );
        let people = People::add(&database).await?;
        let usage = MeteredUsage::new(Analytics::open(&config.open_storage()?)?, &config.metering());
        let mut story = Story::new(&database, usage, &people, &config.portal_url(), now);
        story.set_up().await?;
        let filled = setup::fill(&database, &fleet, history_start_ms, now).await?;
        let (customer, _) = filled.showcase;
        // The story's customers have no traffic, and the fleet's nothing due before its history is there.
        let (told, filled_up) = tokio::join!(
            async {
                let signed_in = story.tell().await.context("tell the demo's story")?;
                story.cards(&filled.customers, customer).await?;
                anyhow::Ok(signed_in)
            },
            history::fill(
                &config,
                &database,
                &fleet,
                exporters,
                history_start_ms..history_end_ms,
                args.density,
            )
        );
        let (told, filled_up) = (told?, filled_up?);
        exporters = filled_up;
        let users = [customer, told.business, told.private, told.college];
        people::add_customers(&database, users).await?;
        history::close_invoices(&config, &database, now).await?;
        story.present(filled.showcase).await.context("tell the demo's story")?;
        // Windows that ended meanwhile were heard too: what is sent later says nothing of whether anybody listened then.
        stored_to_ms = WindowStart::containing(schemas::clock::machine_now_ms()).start_ms();
        if stored_to_ms > history_end_ms {
            let missed = history_end_ms..stored_to_ms;
            exporters = history::fill(&config, &database, &fleet, exporters, missed, args.density).await?;
        }
        std::fs::write(args.data_dir.join(MARKER), "made by `ezscale demo`\n")
            .context("mark the demo's folder as complete")?;
    }

    let signal = StopSignal::watch()?;
    store_terms(&config, &database, now.as_millisecond()).await?;
    let gateways = config.gateways(&database).await?;
    let mut running = Running::start(&config, database.clone(), Some(config_path.clone())).await?;
    let clock = Clock::system();
    let jobs = start_jobs(&config, Some(config_path), &database, &mut running, &clock, &gateways)?;
    // A demo that is started again goes on from now: what was sent before it stopped must not be sent twice.
    let live_from_ms = if fresh { stored_to_ms } else { now.as_millisecond() };
    let netflow = running.netflow_address()?;
    let senders = live::start(fleet, exporters, netflow, live_from_ms, args.density)?;
    let portal = Portal::start(listener, &config, database, &running, clock, gateways)?;
    say!("http listening on http://{address}");
    print_logins(address, started.elapsed(), fresh);
    portal.run_until(signal.received()).await?;
    senders.stop();
    jobs.stop().await?;
    running.stop().await
}

/// Makes the folder; `true` when it has to be filled.
fn prepare_folder(dir: &Path) -> anyhow::Result<bool> {
    if dir.join(MARKER).exists() {
        return Ok(false);
    }
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let mut entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    if entries.next().is_some() {
        bail!(
            "{} is not empty and holds no complete demo: remove it, or choose another folder with --data-dir",
            dir.display()
        );
    }
    Ok(true)
}

/// The configuration a network engineer would have written for this fleet.
fn config_text(fleet: &Fleet, http: SocketAddr) -> anyhow::Result<String> {
    let mut config = Config::default();
    config.portal.http = http;
    config.payments.test = Some(TestSettings::default());
    config.collector.netflow = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.collector.sflow = Vec::new();
    config.exporters = fleet.exporters.iter().map(|exporter| exporter.config.clone()).collect();
    config.exporters.push(live::never_heard());
    Ok(format!(
        "# The demo's configuration; `ezscale config example` explains every setting.\n{}",
        toml::to_string(&config)?
    ))
}

fn print_logins(address: SocketAddr, took: std::time::Duration, fresh: bool) {
    say!();
    say!(
        "  Open http://{address} and sign in with the password {}",
        people::PASSWORD
    );
    say!();
    for user in people::CUSTOMERS.iter().chain(&people::STAFF) {
        say!("    {:<24} {:<9} {}", user.email, user.role.name(), user.sees);
    }
    say!();
    say!("  Customers pay with test cards under “Payment methods”: no money moves.");
    say!();
    let made = if fresh { "made and started" } else { "started" };
    say!(
        "  {made} in {:.1} s; live exporters are sending. Stop with Ctrl-C.",
        took.as_secs_f64()
    );
}
