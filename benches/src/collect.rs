//! `collect`: what each collector takes without loss, what that costs, and what it leaves on disk.
//!
//! For each protocol and side the highest of a list of rates without loss is searched by halving: a side that loses at a
//! rate is taken to lose at higher ones. The figures shown are those of the run at that rate.

use std::path::Path;

use collector::simulate::encode::SimProtocol;
use serde::Serialize;

use crate::measure::{Load, Outcome, run_once};
use crate::report::{Report, mebibytes, millions, progress};
use crate::side::{Ezscale, Side};

/// The sender must have managed this share of the rate that was asked of it, or the rate was not tried.
const SENDER_SHARE_MIN: f64 = 0.97;

/// What `collect` is told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct CollectArgs {
    /// Protocols: ipfix, v9, v5, sflow
    #[arg(long, value_delimiter = ',', default_value = "ipfix,v9,v5,sflow")]
    pub(crate) protocols: Vec<SimProtocol>,
    /// Rates to try, in flows a second, ascending
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100000,250000,500000,750000,1000000,1250000,1500000,2000000"
    )]
    pub(crate) rates: Vec<u64>,
    /// One rate only, with loss or without
    #[arg(long, conflicts_with = "rates")]
    pub(crate) rate: Option<u64>,
    /// Flows of each run, in place of --seconds
    #[arg(long)]
    pub(crate) flows: Option<u64>,
    /// Exporters (source addresses)
    #[arg(long, default_value_t = 100)]
    pub(crate) exporters: u32,
}

/// One row of the table, and every run behind it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The run at the highest rate without loss, or the last tried when each lost.
    pub(crate) best: Outcome,
    pub(crate) without_loss: bool,
    pub(crate) runs: Vec<Outcome>,
}

pub(crate) fn run(
    args: &CollectArgs,
    sides: &[Side],
    seconds: u64,
    ezscale: &Ezscale,
    base: &Path,
) -> anyhow::Result<Vec<Row>> {
    let mut rates = args.rate.map_or_else(|| args.rates.clone(), |rate| vec![rate]);
    rates.sort_unstable();
    let mut rows = Vec::new();
    for protocol in &args.protocols {
        let first_row = rows.len();
        for side in sides {
            let try_rate = |rate: u64| {
                let load = Load {
                    side: *side,
                    protocol: *protocol,
                    exporters: args.exporters,
                    rate,
                    flows: args.flows.unwrap_or(rate * seconds),
                };
                let outcome = run_once(&load, ezscale, base)?;
                progress(line(&outcome));
                Ok(outcome)
            };
            // pmacct holds rows in memory until they are written: a rate far beyond it is not tried.
            rows.push(search(&rates, *side == Side::Pmacct, try_rate)?);
        }
        print(&rows[first_row..], *protocol);
    }
    Ok(rows)
}

/// The highest rate without loss: halving, or from the lowest on.
fn search(
    rates: &[u64],
    ascending: bool,
    mut try_rate: impl FnMut(u64) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Row> {
    let (mut low, mut high) = (0, rates.len());
    let mut best: Option<Outcome> = None;
    let mut runs = Vec::new();
    while low < high {
        let middle = if ascending { low } else { (low + high) / 2 };
        let outcome = try_rate(rates[middle])?;
        runs.push(outcome.clone());
        let tried = outcome.rate_sent >= rates[middle] as f64 * SENDER_SHARE_MIN;
        if outcome.lost() == 0 && tried {
            low = middle + 1;
            best = Some(outcome);
        } else {
            high = middle;
        }
    }
    let without_loss = best.is_some();
    let last = runs.last().cloned();
    let best = best
        .or(last)
        .ok_or_else(|| anyhow::anyhow!("there are no rates to try"))?;
    Ok(Row {
        best,
        without_loss,
        runs,
    })
}

/// A run in one line.
pub(crate) fn line(outcome: &Outcome) -> String {
    let late = if outcome.rate_sent < outcome.rate_asked as f64 * SENDER_SHARE_MIN {
        format!(" (the sender managed {}/s)", millions(outcome.rate_sent))
    } else {
        String::new()
    };
    format!(
        "{} {} at {}/s{late}: {:.3} % lost, {} flows per CPU-second, {} RSS, {:.1} B/flow, stored {:.1} s after",
        outcome.protocol,
        outcome.side,
        millions(outcome.rate_asked as f64),
        outcome.lost_percent(),
        millions(outcome.flows_per_cpu_second),
        mebibytes(outcome.rss_peak_bytes),
        outcome.disk_bytes_per_flow,
        outcome.drain_seconds
    )
}

fn print(rows: &[Row], protocol: SimProtocol) {
    let mut report = Report::new(
        1,
        &[
            "COLLECTOR",
            "FLOWS/S WITHOUT LOSS",
            "FLOWS PER CPU-SECOND",
            "PEAK RSS",
            "BYTES/FLOW",
            "STORED AFTER",
        ],
    );
    for row in rows {
        let best = &row.best;
        let asked = millions(best.rate_asked as f64);
        let rate = match (row.without_loss, best.lost()) {
            (true, _) => asked,
            (false, 0) => format!("the sender cannot send {asked}"),
            (false, _) => format!("none: {:.2} % lost at {asked}", best.lost_percent()),
        };
        report.row(&[
            best.side.clone(),
            rate,
            millions(best.flows_per_cpu_second),
            mebibytes(best.rss_peak_bytes),
            format!("{:.1}", best.disk_bytes_per_flow),
            format!("{:.1} s", best.drain_seconds),
        ]);
    }
    let exporters = rows.first().map_or(0, |row| row.best.exporters);
    report.print(&format!("{} from {exporters} exporters", name(protocol)));
}

fn name(protocol: SimProtocol) -> &'static str {
    match protocol {
        SimProtocol::Ipfix => "IPFIX (28 fields, as an MX sends them)",
        SimProtocol::V9 => "NetFlow v9 (MX layout)",
        SimProtocol::V5 => "NetFlow v5 (30 records a datagram)",
        SimProtocol::Sflow => "sFlow v5 (sampled headers and counters)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::Sent;

    fn outcome(rate: u64, lost: u64) -> Outcome {
        let flows = rate * 10;
        Outcome {
            side: "x".to_owned(),
            protocol: "v5",
            exporters: 1,
            rate_asked: rate,
            rate_sent: rate as f64,
            sent: Sent {
                flows,
                ..Sent::default()
            },
            flows_stored: flows - lost,
            bytes_stored: None,
            kernel_dropped: 0,
            cpu_seconds: 1.0,
            flows_per_cpu_second: 1.0,
            rss_peak_bytes: 0,
            disk_bytes: 0,
            disk_bytes_per_flow: 0.0,
            drain_seconds: 0.0,
        }
    }

    #[test]
    fn the_highest_rate_without_loss_is_found() {
        let rates = [10, 20, 30, 40, 50, 60, 70, 80];
        for capacity in [0, 10, 35, 50, 79, 80, 99] {
            let mut tries = 0;
            let mut try_rate = |rate| {
                tries += 1;
                Ok(outcome(rate, u64::from(rate > capacity)))
            };
            let row = search(&rates, false, &mut try_rate).unwrap();
            let slowly = search(&rates, true, |rate| Ok(outcome(rate, u64::from(rate > capacity)))).unwrap();
            assert_eq!(slowly.best.rate_asked, row.best.rate_asked);
            let expected = rates.iter().rev().find(|rate| **rate <= capacity);
            assert_eq!(row.without_loss, expected.is_some());
            assert_eq!(row.best.rate_asked, *expected.unwrap_or(&10));
            assert!(tries <= 4 && row.runs.len() == tries);
        }
    }
}
