//! `ezscale simulate`: real datagrams of known sums, for trying a collector out and for tests.

use std::net::SocketAddr;

use anyhow::bail;
use clap::ValueEnum;
use collector::simulate::{SimProtocol, SimulateConfig};

use crate::output::Progress;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Collector to send to
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    #[arg(long, value_parser = clap::value_parser!(SimProtocol), value_name = "v5|v9|ipfix|sflow")]
    protocol: SimProtocol,
    /// Flow records (sFlow: samples) to send
    #[arg(long, default_value_t = 100_000)]
    flows: u64,
    /// Flows per second; 0 sends as fast as it can, which loses datagrams in the kernel
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// How many exporters to be; to a loopback address each sends from an address of its own
    #[arg(long, default_value_t = 3)]
    exporters: u32,
    /// Same seed, same flows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Form of the sums printed at the end
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    if args.exporters == 0 || args.flows == 0 {
        bail!("--exporters and --flows must be at least 1");
    }
    let progress = Progress::counted("sending flows", args.flows);
    let config = SimulateConfig {
        to: args.to,
        protocol: args.protocol,
        flows: args.flows,
        rate: args.rate,
        exporters: args.exporters,
        seed: args.seed,
    };
    let sums = collector::simulate::run(&config, |sums| progress.set(sums.flows))?;
    progress.finish();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string(&sums)?),
        Format::Text => {
            println!("sent {} flows in {} datagrams: {} bytes, {} packets as exported", sums.flows, sums.datagrams, sums.bytes, sums.packets);
        }
    }
    Ok(())
}
