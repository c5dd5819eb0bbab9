//! `ezscale check`: whether what was measured is right.

use analytics::truth::{self, Guess, TruthRow, Verdict, finding_text, percent_text};
use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use schemas::metering::MeteringConfig;
use schemas::names::Names;
use schemas::window::{HOUR_MS, instant_text};
use serde_json::json;

use crate::options::{Data, now_ms, open_current};
use crate::output::{Listing, byte_count};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Compare flows with the counters of the interfaces they crossed, by hour
    ///
    /// Every interface that reports counters (sFlow counter samples) has a row for each direction. Both volumes are layer 2,
    /// over the time for which the counter could be followed. The bound is the sampling error of 99 of 100 hours; a
    /// difference beyond it and the tolerance (metering.truth_tolerance_percent) is a finding. See docs/metering.md.
    Truth {
        /// First instant (RFC 3339) [default: 24 hours before the end]
        #[arg(long)]
        from: Option<Timestamp>,
        /// First instant after the range (RFC 3339); hours that are not over are left out [default: now]
        #[arg(long)]
        to: Option<Timestamp>,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Command::Truth { from, to, format, data } = args.command;
    let (config, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let to_ms = to.map_or(now_ms, Timestamp::as_millisecond);
    let from_ms = from.map_or(to_ms - truth::LOOKBACK_MS, Timestamp::as_millisecond);
    if from_ms >= to_ms {
        bail!(
            "--from {} must lie before --to {}",
            instant_text(from_ms),
            instant_text(to_ms)
        );
    }
    let longest_ms = truth::HOURS_MAX as i64 * HOUR_MS;
    if to_ms.saturating_sub(from_ms) > longest_ms {
        bail!(
            "the range is longer than {} hours: ask for less at a time",
            truth::HOURS_MAX
        );
    }
    let analytics = open_current(&config).await?;
    let settings = config.truth();
    analytics.refresh_truth(&settings, now_ms).await?;
    let pass = analytics.judge_truth(&settings, from_ms, to_ms, now_ms).await?;
    if pass.interfaces_skipped > 0 {
        eprintln!(
            "warning: {} interfaces were left out: {} are compared in an hour",
            pass.interfaces_skipped,
            truth::INTERFACES_MAX
        );
    }
    let rows = analytics.truth(from_ms, to_ms).await?;
    match format {
        Format::Json => print_json(&rows, &settings.metering),
        Format::Table => print_table(&rows, &settings.metering, settings.tolerance_percent),
    }
    Ok(())
}

fn print_json(rows: &[TruthRow], metering: &MeteringConfig) {
    let names = Names::new(metering);
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            let (exporter, interface) = (
                names.exporter(row.exporter),
                names.interface(row.exporter, row.if_index),
            );
            json!({
                "hour": instant_text(row.hour_start_ms),
                "exporter": exporter,
                "exporter_address": row.exporter.to_string(),
                "interface": interface,
                "if_index": row.if_index,
                "direction": row.direction.name(),
                "covered_seconds": row.covered_ms / 1000,
                "counter_bytes": row.counter_bytes,
                "metered_bytes": row.metered_bytes,
                "bytes_scaled": row.bytes_scaled,
                "samples": row.samples,
                "sampling_rate": row.sampling_rate,
                "ratio_ppm": row.ratio_ppm,
                "bound_ppm": row.bound_ppm,
                "verdict": row.verdict.name(),
                "guess": row.guess.map(Guess::question),
                "finding": row.is_finding().then(|| finding_text(row.ratio_ppm, &exporter, &interface, row.guess)),
            })
        })
        .collect();
    println!("{}", serde_json::Value::Array(rows));
}

fn print_table(rows: &[TruthRow], metering: &MeteringConfig, tolerance_percent: u32) {
    let names = Names::new(metering);
    let mut listing = Listing::new(&[
        "hour",
        "exporter",
        "interface",
        "direction",
        "counter",
        "metered",
        "ratio",
        "bound",
        "verdict",
    ]);
    for column in 4..8 {
        listing = listing.right(column);
    }
    let mut findings = Vec::new();
    for row in rows {
        let (exporter, interface) = (
            names.exporter(row.exporter),
            names.interface(row.exporter, row.if_index),
        );
        let verdict = match row.guess {
            Some(guess) => format!("{}: {}", verdict_words(row.verdict), guess.question()),
            None => verdict_words(row.verdict).to_owned(),
        };
        if row.is_finding() {
            let text = finding_text(row.ratio_ppm, &exporter, &interface, row.guess);
            findings.push(format!(
                "{}  {text} ({}, ± {} %)",
                instant_text(row.hour_start_ms),
                row.direction.name(),
                percent_text(row.bound_ppm)
            ));
        }
        let known = |text: String| if row.has_ratio() { text } else { "-".to_owned() };
        listing.row([
            instant_text(row.hour_start_ms),
            exporter,
            interface,
            row.direction.name().to_owned(),
            byte_count(row.counter_bytes),
            match row.verdict {
                Verdict::NotSampled => "-".to_owned(),
                _ => byte_count(row.metered_bytes),
            },
            known(format!("{} %", percent_text(row.ratio_ppm))),
            known(format!("± {} %", percent_text(row.bound_ppm))),
            verdict,
        ]);
    }
    let is_empty = rows.is_empty();
    listing.print("nothing to compare: no interface reported counters in an hour of this range that is over");
    if is_empty {
        return;
    }
    println!();
    if findings.is_empty() {
        println!("no findings beyond the bound and {tolerance_percent} %");
    }
    for finding in findings {
        println!("{finding}");
    }
}

fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Agrees => "agrees",
        Verdict::Mismatch => "mismatch",
        Verdict::NotSampled => "not sampled here",
        Verdict::PartlySampled => "partly sampled?",
        Verdict::RateUnknown => "sampling rate unknown",
        Verdict::TooFewSamples => "too few samples",
        Verdict::TooShort => "less than 10 minutes of counters",
        Verdict::NoCounter => "no counter",
    }
}
