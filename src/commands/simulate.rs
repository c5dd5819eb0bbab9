//! `ezscale simulate`: real datagrams of known sums, for trying a collector out and for tests.

use std::net::SocketAddr;

use anyhow::bail;
use collector::simulate::encode::SimProtocol;
use collector::simulate::send::{self, SimulateConfig};
use serde_json::json;

use crate::output::{Progress, ShowFormat, count};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Collector to send to
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// Protocol of the datagrams
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
    /// One packet in so many, as the exporters say
    #[arg(long, default_value_t = 1000)]
    sampling_rate: u32,
    /// Share of IPv6 flows in percent (v5 has none)
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=100))]
    ipv6_percent: u8,
    /// Form of the sums printed at the end
    #[arg(long, value_enum, default_value_t)]
    format: ShowFormat,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
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
        sampling_rate: args.sampling_rate,
        ipv6_percent: if args.protocol == SimProtocol::V5 {
            0
        } else {
            args.ipv6_percent
        },
    };
    let sums = send::run(&config, |sums| progress.set(sums.flows))?;
    progress.finish();
    match args.format {
        ShowFormat::Json => say!(
            "{}",
            json!({
                "protocol": args.protocol.name(),
                "datagrams": sums.datagrams,
                "flows": sums.flows,
                "bytes": sums.bytes,
                "packets": sums.packets,
                "sampled_bytes": sums.bytes_scaled,
            })
        ),
        ShowFormat::Table => {
            say!(
                "sent {} in {}",
                count(sums.flows, "flow"),
                count(sums.datagrams, "datagram")
            );
            say!(
                "{}, {} as exported; {} after sampling",
                count(sums.bytes, "byte"),
                count(sums.packets, "packet"),
                count(sums.bytes_scaled, "byte")
            );
        }
    }
    Ok(())
}
