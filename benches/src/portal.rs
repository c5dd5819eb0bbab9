//! `portal`: many people at once, beside a collector that works.
//!
//! Each program that is compared makes its own demo (36 days of history), and serves it with a collector beside. People with
//! kept connections, each from an address of its own, open one page after the other without a pause: customers their usage,
//! a service and an invoice, operators the traffic of the network and of a service. What the collector uses by itself
//! is measured before, and taken off.

mod client;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use client::Browser;
use collector::simulate::encode::SimProtocol;
use serde::Serialize;

use crate::measure::{Load, Scratch, SenderProcess, free_port};
use crate::process::{Measured, udp_socket};
use crate::report::{Report, mebibytes, progress};
use crate::side::Side;

const PASSWORD: &str = "load-of-many-people";
/// To make a demo.
const DEMO_LIMIT: Duration = Duration::from_secs(600);
const START_LIMIT: Duration = Duration::from_secs(120);
/// To store what was received and to end.
const STOP_LIMIT: Duration = Duration::from_secs(180);
/// Sending begins so long before anything is measured.
const SETTLE: Duration = Duration::from_secs(5);
/// One person in so many is of the staff.
const STAFF_EVERY: usize = 4;
/// Customers of the demo that people belong to.
const CUSTOMERS: usize = 8;

/// What `portal` is told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PortalArgs {
    /// Programs to compare, as NAME=PATH or PATH; default: the one beside this
    #[arg(long, value_name = "NAME=PATH")]
    binary: Vec<String>,
    /// People at one time
    #[arg(long, default_value_t = 200)]
    users: usize,
    /// Flows a second that the collector takes meanwhile
    #[arg(long, default_value_t = 20_000)]
    flow_rate: u64,
    /// Seconds of load; those before it show what the collector uses alone
    #[arg(long, default_value_t = 60)]
    load_seconds: u64,
    /// Seconds without load
    #[arg(long, default_value_t = 15)]
    quiet_seconds: u64,
    /// Days of the demo's history
    #[arg(long, default_value_t = 36)]
    days: u64,
}

/// How one kind of page was answered.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Pages {
    requests: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// What one program did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    binary: PathBuf,
    users: usize,
    seconds: f64,
    requests: u64,
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// By what went wrong; none is what should be.
    errors: BTreeMap<String, u64>,
    by_page: BTreeMap<&'static str, Pages>,
    rss_peak_bytes: u64,
    /// Of a processor, while nobody asks.
    collector_cpu_share: f64,
    cpu_ms_per_request: f64,
    flows_sent: u64,
    flows_stored: u64,
    kernel_dropped_datagrams: u64,
}

/// A page that was asked for: its kind, how long it took, what went wrong.
struct Asked {
    page: &'static str,
    took: Duration,
    problem: Option<String>,
}

pub(crate) fn run(args: &PortalArgs, own: &Path, base: &Path) -> anyhow::Result<Vec<Row>> {
    let mut binaries: Vec<(String, PathBuf)> = Vec::new();
    for text in &args.binary {
        let (name, path) = text.split_once('=').unwrap_or(("ezscale", text));
        let path = std::path::absolute(path)?;
        if !path.is_file() {
            bail!("{} is not there", path.display());
        }
        binaries.push((name.to_owned(), path));
    }
    if binaries.is_empty() {
        binaries.push(("ezscale".to_owned(), own.to_owned()));
    }
    let mut rows = Vec::new();
    for (name, binary) in binaries {
        let row = measure(args, &name, &binary, base).with_context(|| format!("measure {name}"))?;
        progress(format_args!(
            "{name}: {:.0} requests/s, p50 {:.0} ms, p99 {:.0} ms, {} errors, {} of {} flows stored",
            row.requests_per_second,
            row.p50_ms,
            row.p99_ms,
            row.errors.values().sum::<u64>(),
            row.flows_stored,
            row.flows_sent
        ));
        rows.push(row);
    }
    print(args, &rows);
    Ok(rows)
}

fn measure(args: &PortalArgs, name: &str, binary: &Path, base: &Path) -> anyhow::Result<Row> {
    let scratch = Scratch::new(base, "portal")?;
    let data = scratch.path().join("data");
    progress(format_args!("{name}: making the demo"));
    make_demo(args, binary, &data, scratch.path())?;
    let emails = add_people(args, binary, &data)?;

    let (netflow, http) = (free_port()?, free_port()?);
    let mut command = Command::new(binary);
    command.arg("serve").arg("--data-dir").arg(&data);
    command.args([
        "--netflow",
        &format!("127.0.0.1:{netflow}"),
        "--http",
        &format!("127.0.0.1:{http}"),
    ]);
    let flows_before = flows_stored(binary, &data)?;
    let mut server = Measured::start(name, command, &scratch.path().join("serve.log"))?;
    server.wait_for_text("http listening on", START_LIMIT)?;

    let load = Load {
        side: Side::Ezscale,
        protocol: SimProtocol::Ipfix,
        exporters: 10,
        rate: args.flow_rate,
        flows: args.flow_rate * (args.load_seconds + args.quiet_seconds + 2 * SETTLE.as_secs()),
    };
    let mut sender = SenderProcess::start(&load, SocketAddr::from(([127, 0, 0, 1], netflow)))?;
    progress(format_args!("{name}: signing in {} people", emails.len()));
    let people = sign_in_all(SocketAddr::from(([127, 0, 0, 1], http)), &emails)?;

    server.begin();
    sender.go()?;
    watch(&mut server, SETTLE)?;
    let quiet_began = (Instant::now(), server.cpu_seconds());
    watch(&mut server, Duration::from_secs(args.quiet_seconds))?;
    let collector_cpu_share = (server.cpu_seconds() - quiet_began.1) / quiet_began.0.elapsed().as_secs_f64();

    progress(format_args!(
        "{name}: {} people for {} s",
        people.len(),
        args.load_seconds
    ));
    let (asked, seconds, cpu_seconds) = load_with(people, Duration::from_secs(args.load_seconds), &mut server)?;
    while !sender.has_ended()? {
        watch(&mut server, Duration::from_millis(100))?;
    }
    let sent = sender.sent()?;
    let deadline = Instant::now() + STOP_LIMIT;
    while udp_socket(netflow)?.is_some_and(|socket| socket.queued_bytes > 0) && Instant::now() < deadline {
        watch(&mut server, Duration::from_millis(100))?;
    }
    let dropped = udp_socket(netflow)?.unwrap_or_default().dropped;
    let used = server.stop("TERM", STOP_LIMIT)?;
    let flows_stored = flows_stored(binary, &data)? - flows_before;

    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    for problem in asked.iter().filter_map(|asked| asked.problem.as_ref()) {
        *errors.entry(problem.clone()).or_default() += 1;
    }
    let all = times(&asked, None);
    let kinds = ["/usage", "service", "invoice", "/ops", "service of ops"];
    let by_page = kinds
        .into_iter()
        .map(|page| (page, pages(&times(&asked, Some(page)))))
        .collect();
    let requests = all.len() as u64;
    let overall = pages(&all);
    Ok(Row {
        name: name.to_owned(),
        binary: binary.to_owned(),
        users: emails.len(),
        seconds,
        requests,
        requests_per_second: requests as f64 / seconds,
        p50_ms: overall.p50_ms,
        p99_ms: overall.p99_ms,
        errors,
        by_page,
        rss_peak_bytes: used.rss_peak_bytes,
        collector_cpu_share,
        cpu_ms_per_request: 1e3 * (cpu_seconds - collector_cpu_share * seconds).max(0.0) / requests.max(1) as f64,
        flows_sent: sent.flows,
        flows_stored,
        kernel_dropped_datagrams: dropped,
    })
}

fn watch(server: &mut Measured, time: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        server.sample()?;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

/// Has the program make its demo, and ends it again.
fn make_demo(args: &PortalArgs, binary: &Path, data: &Path, scratch: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(binary);
    command.arg("demo").arg("--data-dir").arg(data);
    command.args(["--http", "127.0.0.1:0", "--days", &args.days.to_string()]);
    let mut demo = Measured::start("the demo", command, &scratch.join("demo.log"))?;
    demo.wait_for_text("http listening on", DEMO_LIMIT)?;
    demo.stop("TERM", STOP_LIMIT)?;
    Ok(())
}

/// Adds the people: customers and operators, each with an account of their own.
fn add_people(args: &PortalArgs, binary: &Path, data: &Path) -> anyhow::Result<Vec<(String, bool)>> {
    progress(format_args!("adding {} people", args.users));
    let mut people = Vec::new();
    for number in 0..args.users {
        let is_staff = number % STAFF_EVERY == STAFF_EVERY - 1;
        let email = format!("load-{number}@example.net");
        let mut command = Command::new(binary);
        command.args([
            "--log", "warn", "user", "add", "--email", &email, "--name", "Somebody", "--role",
        ]);
        match is_staff {
            true => command.arg("ops"),
            false => command.args(["customer", "--customer", &format!("cus_{}", 1 + number % CUSTOMERS)]),
        };
        let mut added = command
            .arg("--data-dir")
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("add a user")?;
        let mut input = added.stdin.take().context("the command has no input")?;
        writeln!(input, "{PASSWORD}")?;
        drop(input);
        let status = added.wait()?;
        if !status.success() {
            bail!("`user add` ended with {status}");
        }
        people.push((email, is_staff));
    }
    Ok(people)
}

fn flows_stored(binary: &Path, data: &Path) -> anyhow::Result<u64> {
    let mut command = Command::new(binary);
    command.args([
        "--log",
        "warn",
        "query",
        "SELECT count(*) AS n FROM flows",
        "--format",
        "json",
    ]);
    let output = command
        .arg("--data-dir")
        .arg(data)
        .output()
        .context("count the flows")?;
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("count the flows: {}", String::from_utf8_lossy(&output.stderr)))?;
    rows[0]["n"].as_u64().context("the flows are counted")
}

/// Somebody who is signed in, and the pages that are opened in turn.
struct Person {
    browser: Browser,
    pages: Vec<(&'static str, String)>,
}

fn sign_in_all(to: SocketAddr, people: &[(String, bool)]) -> anyhow::Result<Vec<Person>> {
    let mut signed_in = Vec::with_capacity(people.len());
    for (number, (email, is_staff)) in people.iter().enumerate() {
        let from = Ipv4Addr::new(127, 8, (number / 250) as u8, (1 + number % 250) as u8);
        let mut browser = Browser::new(to, from);
        browser.sign_in(email, PASSWORD)?;
        let mut found = |page: &str, begin: &str| -> anyhow::Result<String> {
            let shown = browser.get(page)?;
            shown.link(begin).with_context(|| {
                format!(
                    "a link {begin}… on {page} of {email}, which was answered {}",
                    shown.status
                )
            })
        };
        let pages = match is_staff {
            true => vec![
                ("/ops", "/ops".to_owned()),
                ("service of ops", found("/ops", "/ops/services/")?),
            ],
            false => vec![
                ("/usage", "/usage".to_owned()),
                ("service", found("/usage", "/usage/")?),
                ("invoice", found("/invoices", "/invoices/")?),
            ],
        };
        browser.accepts = "gzip";
        signed_in.push(Person { browser, pages });
    }
    Ok(signed_in)
}

/// Everybody opens page after page. Answers what was asked, in how many seconds, and what the server used of a processor.
fn load_with(people: Vec<Person>, time: Duration, server: &mut Measured) -> anyhow::Result<(Vec<Asked>, f64, f64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let cpu_before = server.cpu_seconds();
    let began = Instant::now();
    let threads: Vec<_> = people
        .into_iter()
        .map(|mut person| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut asked = Vec::new();
                for (page, path) in person.pages.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = Instant::now();
                    let problem = match person.browser.get(path) {
                        Ok(shown) if shown.status == 200 => None,
                        Ok(shown) => Some(format!("{page}: {}", shown.status)),
                        Err(error) => Some(format!("{page}: {}", error.root_cause())),
                    };
                    asked.push(Asked {
                        page,
                        took: began.elapsed(),
                        problem,
                    });
                }
                asked
            })
        })
        .collect();
    let watched = watch(server, time);
    stop.store(true, Ordering::Relaxed);
    let mut asked = Vec::new();
    for thread in threads {
        asked.extend(
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("one of the people gave up"))?,
        );
    }
    watched?;
    let seconds = began.elapsed().as_secs_f64();
    Ok((asked, seconds, server.cpu_seconds() - cpu_before))
}

/// Times of what was answered, in milliseconds, ascending.
fn times(asked: &[Asked], page: Option<&str>) -> Vec<f64> {
    let mut times: Vec<f64> = asked
        .iter()
        .filter(|asked| asked.problem.is_none() && page.is_none_or(|page| page == asked.page))
        .map(|asked| asked.took.as_secs_f64() * 1e3)
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn pages(times: &[f64]) -> Pages {
    let at = |share: f64| {
        let index = (times.len() as f64 * share).ceil() as usize;
        times.get(index.saturating_sub(1)).copied().unwrap_or_default()
    };
    Pages {
        requests: times.len() as u64,
        p50_ms: at(0.50),
        p99_ms: at(0.99),
        max_ms: at(1.0),
    }
}

fn print(args: &PortalArgs, rows: &[Row]) {
    let columns = [
        "PROGRAM",
        "REQUESTS/S",
        "P50",
        "P99",
        "ERRORS",
        "PEAK RSS",
        "CPU/REQUEST",
        "COLLECTOR ALONE",
        "FLOWS LOST",
    ];
    let mut report = Report::new(1, &columns);
    for row in rows {
        report.row(&[
            row.name.clone(),
            format!("{:.1}", row.requests_per_second),
            format!("{:.0} ms", row.p50_ms),
            format!("{:.0} ms", row.p99_ms),
            row.errors.values().sum::<u64>().to_string(),
            mebibytes(row.rss_peak_bytes),
            format!("{:.1} ms", row.cpu_ms_per_request),
            format!("{:.0} %", 100.0 * row.collector_cpu_share),
            row.flows_sent.saturating_sub(row.flows_stored).to_string(),
        ]);
    }
    report.print(&format!(
        "{} people for {} s beside {} flows/s",
        args.users, args.load_seconds, args.flow_rate
    ));
    let mut report = Report::new(2, &["PROGRAM", "PAGE", "REQUESTS", "P50", "P99", "SLOWEST"]);
    for row in rows {
        for (page, pages) in &row.by_page {
            report.row(&[
                row.name.clone(),
                (*page).to_owned(),
                pages.requests.to_string(),
                format!("{:.0} ms", pages.p50_ms),
                format!("{:.0} ms", pages.p99_ms),
                format!("{:.0} ms", pages.max_ms),
            ]);
        }
    }
    report.print("by page");
    for row in rows {
        for (problem, count) in &row.errors {
            println!("{}: {count} × {problem}", row.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_ranks() {
        let of = |count: u32| pages(&(1..=count).map(f64::from).collect::<Vec<_>>());
        assert_eq!((of(100).p50_ms, of(100).p99_ms, of(100).max_ms), (50.0, 99.0, 100.0));
        assert_eq!((of(1).p50_ms, of(1).p99_ms), (1.0, 1.0));
        assert_eq!(of(0).requests, 0);
    }
}
