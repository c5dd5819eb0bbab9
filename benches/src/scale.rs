//! `scale`: what exporters, assigned prefixes and encoding threads cost at one rate.

use std::path::Path;

use collector::simulate::encode::SimProtocol;
use serde::Serialize;

use crate::collect::line;
use crate::measure::{Load, Outcome, run_once};
use crate::report::{Report, mebibytes, millions, progress};
use crate::side::{Ezscale, Side};

/// What is varied here means something to these.
pub(crate) const SIDES: [Side; 2] = [Side::Ezscale, Side::Nfdump];
const EXPORTERS: u32 = 100;
const PREFIXES: u64 = 100_000;

/// What `scale` is told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ScaleArgs {
    /// Flows a second
    #[arg(long, default_value_t = 250_000)]
    pub(crate) scale_rate: u64,
    /// Exporters to try with 100,000 prefixes
    #[arg(long, value_delimiter = ',', default_value = "1,10,1000,10000")]
    pub(crate) exporter_counts: Vec<u32>,
    /// Prefixes to try with 100 exporters: 1, 1000, 100000 or 1000000
    #[arg(long, value_delimiter = ',', default_value = "1,1000,100000,1000000")]
    pub(crate) prefix_counts: Vec<u64>,
    /// Encoding threads to try, where the collector has a setting for them
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub(crate) threads: Vec<u32>,
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) prefixes: Option<u64>,
    /// As configured; none: the collector's default.
    pub(crate) encode_threads: Option<u32>,
    pub(crate) outcome: Outcome,
}

/// Measures `sides`; `ezscale` gives the binary with so many assigned prefixes.
pub(crate) fn run(
    args: &ScaleArgs,
    sides: &[Side],
    seconds: u64,
    ezscale: impl Fn(u64) -> anyhow::Result<Ezscale>,
    base: &Path,
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut measure = |side: Side, exporters: u32, prefixes: u64, threads: Option<u32>| {
        let mut settings = ezscale(prefixes)?;
        settings.encode_threads = threads;
        let load = Load {
            side,
            protocol: SimProtocol::Ipfix,
            exporters,
            rate: args.scale_rate,
            flows: args.scale_rate * seconds,
        };
        let outcome = run_once(&load, &settings, base)?;
        progress(line(&outcome));
        rows.push(Row {
            prefixes: (side == Side::Ezscale).then_some(prefixes),
            encode_threads: threads,
            outcome,
        });
        anyhow::Ok(())
    };
    for side in sides {
        for exporters in &args.exporter_counts {
            measure(*side, *exporters, PREFIXES, None)?;
        }
    }
    if sides.contains(&Side::Ezscale) {
        for prefixes in &args.prefix_counts {
            measure(Side::Ezscale, EXPORTERS, *prefixes, None)?;
        }
        if ezscale(PREFIXES)?.knows_encode_threads(base)? {
            for threads in &args.threads {
                measure(Side::Ezscale, EXPORTERS, PREFIXES, Some(*threads))?;
            }
        } else {
            progress("this collector has no setting collector.encode_threads: not varied");
        }
    }
    print(&rows, args.scale_rate);
    Ok(rows)
}

fn print(rows: &[Row], rate: u64) {
    let mut report = Report::new(
        1,
        &[
            "COLLECTOR",
            "EXPORTERS",
            "PREFIXES",
            "ENCODING THREADS",
            "LOST",
            "FLOWS PER CPU-SECOND",
            "PEAK RSS",
            "STORED AFTER",
        ],
    );
    for row in rows {
        let outcome = &row.outcome;
        report.row(&[
            outcome.side.clone(),
            outcome.exporters.to_string(),
            row.prefixes
                .map_or_else(|| "-".to_owned(), |prefixes| prefixes.to_string()),
            match (row.prefixes, row.encode_threads) {
                (_, Some(threads)) => threads.to_string(),
                (Some(_), None) => "default".to_owned(),
                (None, None) => "-".to_owned(),
            },
            format!("{:.2} %", outcome.lost_percent()),
            millions(outcome.flows_per_cpu_second),
            mebibytes(outcome.rss_peak_bytes),
            format!("{:.1} s", outcome.drain_seconds),
        ]);
    }
    report.print(&format!("IPFIX at {}/s", millions(rate as f64)));
}
