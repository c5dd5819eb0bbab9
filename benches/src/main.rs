//! EZSCALE beside nfdump and pmacct: the same datagrams to each, one after the other, on one machine; and what billing
//! costs.
//!
//! `benches/run` installs what is missing, builds and starts this; `benches/README.md` says what the figures mean.

mod addresses;
mod billing;
mod collect;
mod encode;
mod flows;
mod measure;
mod pool;
mod portal;
mod process;
mod query;
mod report;
mod scale;
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
#[expect(clippy::large_enum_variant, reason = "there is one, made by the command line")]
enum Command {
    /// Flows a second without loss, flows per CPU-second, memory and bytes on disk, by protocol and collector
    Collect {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: collect::CollectArgs,
    },
    /// What exporters, assigned prefixes and encoding threads cost at one rate
    Scale {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: scale::ScaleArgs,
    },
    /// Questions to stored flows, beside nfdump
    Query {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: query::QueryArgs,
    },
    /// What writing a flow costs, by writer and order
    Encode {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: encode::EncodeArgs,
    },
    /// What closing a month, posting and telling cost
    Billing {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: billing::BillingArgs,
    },
    /// Many people at once beside a collector that works: requests a second, times, errors, memory
    Portal {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        args: portal::PortalArgs,
    },
    /// Everything, one after the other
    All {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        collect: collect::CollectArgs,
        #[command(flatten)]
        scale: scale::ScaleArgs,
        #[command(flatten)]
        query: query::QueryArgs,
        #[command(flatten)]
        encode: encode::EncodeArgs,
        #[command(flatten)]
        billing: billing::BillingArgs,
        #[command(flatten)]
        portal: portal::PortalArgs,
        /// Parts to leave out: encode, collect, scale, query, billing, portal
        #[arg(long, value_delimiter = ',')]
        skip: Vec<Part>,
    },
    /// The sender's process
    #[command(hide = true)]
    Send(send::SendArgs),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    Encode,
    Collect,
    Scale,
    Query,
    Billing,
    Portal,
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
    /// Prefixes assigned to services in `collect`: 1, 1000, 100000 or 1000000
    #[arg(long, default_value_t = PREFIXES)]
    prefixes: u64,
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
    encode: Vec<encode::Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collect: Vec<collect::Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scale: Vec<scale::Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<query::Queries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billing: Option<billing::Billing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    portal: Vec<portal::Row>,
}

/// The parts to be measured.
#[derive(Default)]
struct Parts {
    encode: Option<encode::EncodeArgs>,
    collect: Option<collect::CollectArgs>,
    scale: Option<scale::ScaleArgs>,
    query: Option<query::QueryArgs>,
    billing: Option<billing::BillingArgs>,
    portal: Option<portal::PortalArgs>,
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
    let mut parts = Parts::default();
    let common = match cli.command {
        Command::Send(args) => return send::run(&args),
        Command::Encode { common, args } => {
            parts.encode = Some(args);
            common
        }
        Command::Collect { common, args } => {
            parts.collect = Some(args);
            common
        }
        Command::Scale { common, args } => {
            parts.scale = Some(args);
            common
        }
        Command::Query { common, args } => {
            parts.query = Some(args);
            common
        }
        Command::Billing { common, args } => {
            parts.billing = Some(args);
            common
        }
        Command::Portal { common, args } => {
            parts.portal = Some(args);
            common
        }
        Command::All {
            common,
            collect,
            scale,
            query,
            encode,
            billing,
            portal,
            skip,
        } => {
            let wanted = |part| !skip.contains(&part);
            parts = Parts {
                encode: wanted(Part::Encode).then_some(encode),
                collect: wanted(Part::Collect).then_some(collect),
                scale: wanted(Part::Scale).then_some(scale),
                query: wanted(Part::Query).then_some(query),
                billing: wanted(Part::Billing).then_some(billing),
                portal: wanted(Part::Portal).then_some(portal),
            };
            common
        }
    };
    measure(&common, parts)
}

fn measure(common: &Common, parts: Parts) -> anyhow::Result<()> {
    let bench = Bench::new(common)?;
    let mut results = bench.results();
    // What was measured is written after each part: a later one that fails takes nothing away.
    if let Some(args) = parts.encode {
        results.encode = encode::run(&args)?;
        bench.write(&results)?;
    }
    if let Some(args) = parts.collect {
        let ezscale = bench.ezscale(common.prefixes)?;
        results.collect = collect::run(&args, &common.only, common.seconds, &ezscale, &bench.dir)?;
        bench.write(&results)?;
    }
    if let Some(args) = parts.scale {
        // pmacct's cost is in the rows it writes, not in how many exporters or customers there are.
        let sides: Vec<Side> = common
            .only
            .iter()
            .copied()
            .filter(|side| scale::SIDES.contains(side))
            .collect();
        results.scale = scale::run(
            &args,
            &sides,
            common.seconds,
            |prefixes| bench.ezscale(prefixes),
            &bench.dir,
        )?;
        bench.write(&results)?;
    }
    if let Some(args) = parts.query {
        results.query = Some(query::run_all(&args, &bench.ezscale(common.prefixes)?, &bench.dir)?);
        bench.write(&results)?;
    }
    if let Some(args) = parts.billing {
        let ezscale = bench.ezscale(common.prefixes)?;
        results.billing = Some(billing::run(&args, common.seconds, &ezscale, &bench.dir)?);
        bench.write(&results)?;
    }
    if let Some(args) = parts.portal {
        results.portal = portal::run(&args, &bench.binary, &bench.dir)?;
        bench.write(&results)?;
    }
    progress("done");
    Ok(())
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
        Ezscale::prepare(&self.binary, self.scratch.path(), prefixes)
    }

    fn results(&self) -> Results {
        let machine = Machine::look();
        machine.print();
        Results {
            began_at: schemas::clock::machine_now().to_string(),
            machine,
            receive_buffer_bytes: side::RECEIVE_BUFFER_BYTES,
            encode: Vec::new(),
            collect: Vec::new(),
            scale: Vec::new(),
            query: None,
            billing: None,
            portal: Vec::new(),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
