//! EZSCALE beside nfdump and pmacct: the same datagrams to each, one after the other, on one machine.
//!
//! `benches/run` installs what is missing, builds and starts this; `benches/README.md` says what the figures mean.

mod addresses;
mod collect;
mod flows;
mod measure;
mod pool;
mod process;
mod report;
mod send;
mod side;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;

use report::{Machine, progress};
use side::{Ezscale, Side};

/// Prefixes assigned to services, where nothing else is said.
const PREFIXES: u64 = 100_000;

/// Measure `ezscale collect` and `ezscale query` beside nfdump and pmacct.
#[derive(Parser, Debug)]
#[command(name = "ezscale-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Flows a second without loss, flows per CPU-second, memory and bytes on disk, by protocol and collector
    Collect {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: collect::CollectArgs,
    },
    /// The sender's process
    #[command(hide = true)]
    Send(send::SendArgs),
}

/// What every measurement is told.
#[derive(clap::Args, Clone, Debug)]
struct Common {
    /// Seconds of sending in each run
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Sides to measure: ezscale, nfdump, nfdump-plain, pmacct
    #[arg(long, value_delimiter = ',', default_value = "ezscale,nfdump,nfdump-plain,pmacct")]
    only: Vec<Side>,
    /// Where data is kept while measuring; it is removed afterwards
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    dir: PathBuf,
    /// Write every figure as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Everything measured in one go.
#[derive(Debug, Serialize)]
struct Results {
    began_at: String,
    machine: Machine,
    receive_buffer_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collect: Vec<collect::Row>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Send(args) => send::run(&args),
        Command::Collect { common, args } => {
            let bench = Bench::new(&common)?;
            let mut results = bench.results();
            results.collect = collect::run(
                &args,
                &common.only,
                common.seconds,
                &bench.ezscale(PREFIXES)?,
                &bench.dir,
            )?;
            bench.write(&results)
        }
    }
}

/// The programs and folders of a run.
struct Bench {
    binary: PathBuf,
    dir: PathBuf,
    json: Option<PathBuf>,
    scratch: measure::Scratch,
}

impl Bench {
    fn new(common: &Common) -> anyhow::Result<Bench> {
        std::fs::create_dir_all(&common.dir).with_context(|| format!("make {}", common.dir.display()))?;
        let dir = std::path::absolute(&common.dir)?;
        // One measurement at a time, so one folder: what an interrupted one left is gone with it.
        let scratch = measure::Scratch::new(&dir, "measuring")?;
        Ok(Bench {
            binary: Ezscale::find()?,
            dir: scratch.path().to_owned(),
            json: common.json.clone(),
            scratch,
        })
    }

    fn ezscale(&self, prefixes: u64) -> anyhow::Result<Ezscale> {
        progress(format_args!("assigning {prefixes} prefixes"));
        Ezscale::prepare(&self.binary, self.scratch.path(), prefixes)
    }

    fn results(&self) -> Results {
        let machine = Machine::look();
        machine.print();
        Results {
            began_at: jiff::Timestamp::now().to_string(),
            machine,
            receive_buffer_bytes: side::RECEIVE_BUFFER_BYTES,
            collect: Vec::new(),
        }
    }

    fn write(&self, results: &Results) -> anyhow::Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let text = serde_json::to_string_pretty(results)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}
