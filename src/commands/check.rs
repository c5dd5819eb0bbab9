//! `ezscale check`: whether what was measured is right.

use analytics::FlowStore as _;
use analytics::counter_reconciliation::{
    self, CounterReconciliationRow, MismatchCause, Verdict, finding_text, percent_text,
};
use anyhow::bail;
use clap::Subcommand;
use jiff::Timestamp;
use schemas::metering::MeteringConfig;
use schemas::names::Names;
use schemas::window::{HOUR_MS, instant_text};

use crate::options::{Data, check_order, now_ms, open_current};
use crate::output::{Format, Listing, at, bytes, count, number, ppm, shown, text};

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
        /// First instant (RFC 3339, or a day) [default: 24 hours before the end]
        #[arg(long, value_parser = crate::options::instant)]
        from: Option<Timestamp>,
        /// First instant after the range (RFC 3339, or a day); hours that are not over are left out [default: now]
        #[arg(long, value_parser = crate::options::instant)]
        to: Option<Timestamp>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Command::Truth { from, to, format, data } = args.command;
    let (config, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let to_ms = to.map_or(now_ms, Timestamp::as_millisecond);
    let from_ms = from.map_or(to_ms - counter_reconciliation::LOOKBACK_MS, Timestamp::as_millisecond);
    check_order(from_ms, to_ms)?;
    let longest_ms = counter_reconciliation::HOURS_MAX as i64 * HOUR_MS;
    if to_ms.saturating_sub(from_ms) > longest_ms {
        bail!(
            "the range is longer than {} hours: ask for less at a time",
            counter_reconciliation::HOURS_MAX
        );
    }
    let analytics = open_current(&config).await?;
    let settings = config.counter_reconciliation();
    analytics.refresh_counter_reconciliation(&settings, now_ms).await?;
    let pass = analytics.reconcile_counters(&settings, from_ms, to_ms, now_ms).await?;
    if pass.interfaces_skipped > 0 {
        tell!(
            "warning: {} left out: {} are compared in an hour",
            count(pass.interfaces_skipped, "interface"),
            counter_reconciliation::INTERFACES_MAX
        );
    }
    let rows = analytics.counter_reconciliation(from_ms, to_ms).await?;
    list(&rows, &settings.metering, format)?;
    if format == Format::Table && !rows.is_empty() {
        print_findings(&rows, &settings.metering, settings.tolerance_percent);
    }
    Ok(())
}

fn list(rows: &[CounterReconciliationRow], metering: &MeteringConfig, format: Format) -> anyhow::Result<()> {
    let names = Names::new(metering);
    let mut listing = Listing::new([
        text("hour"),
        text("exporter"),
        text("exporter_address").only_data(),
        text("interface"),
        number("if_index").only_data(),
        text("direction"),
        number("covered_seconds").only_data(),
        bytes("counter_bytes"),
        bytes("metered_bytes").or("-"),
        bytes("bytes_scaled").only_data(),
        number("samples").only_data(),
        number("sampling_rate").only_data(),
        ppm("ratio_ppm").or("-"),
        ppm("bound_ppm").or("-"),
        text("verdict"),
        text("guess").only_data(),
        text("finding").only_data(),
    ]);
    for row in rows {
        let (exporter, interface) = (
            names.exporter(row.exporter),
            names.interface(row.exporter, row.if_index),
        );
        let finding = row
            .is_finding()
            .then(|| finding_text(row.ratio_ppm, &exporter, &interface, row.guess));
        let is_table = format == Format::Table;
        let verdict = match (is_table, row.guess) {
            (true, Some(guess)) if row.is_finding() => {
                format!("{}: {}", verdict_words(row.verdict), guess.question())
            }
            (true, _) => verdict_words(row.verdict).to_owned(),
            (false, _) => row.verdict.name().to_owned(),
        };
        let has_ratio = row.has_ratio() || !is_table;
        let bound = match is_table {
            true => shown(format!("± {} %", percent_text(row.bound_ppm))),
            false => row.bound_ppm.into(),
        };
        listing.row([
            at(row.hour_start_ms),
            exporter.into(),
            shown(row.exporter),
            interface.into(),
            row.if_index.into(),
            row.direction.name().into(),
            (row.covered_ms / 1000).into(),
            row.counter_bytes.into(),
            Some(row.metered_bytes).filter(|_| has_ratio).into(),
            row.bytes_scaled.into(),
            row.samples.into(),
            row.sampling_rate.into(),
            Some(row.ratio_ppm).filter(|_| has_ratio).into(),
            Some(bound).filter(|_| has_ratio).into(),
            verdict.into(),
            row.guess.map(MismatchCause::question).into(),
            finding.into(),
        ]);
    }
    listing.print(
        format,
        "nothing to compare: no interface reported counters in an hour of this range that is over",
    )
}

fn print_findings(rows: &[CounterReconciliationRow], metering: &MeteringConfig, tolerance_percent: u32) {
    let names = Names::new(metering);
    say!();
    let mut count = 0;
    for row in rows.iter().filter(|row| row.is_finding()) {
        let (exporter, interface) = (
            names.exporter(row.exporter),
            names.interface(row.exporter, row.if_index),
        );
        say!(
            "{}  {} ({}, ± {} %)",
            instant_text(row.hour_start_ms),
            finding_text(row.ratio_ppm, &exporter, &interface, row.guess),
            row.direction.name(),
            percent_text(row.bound_ppm)
        );
        count += 1;
    }
    if count == 0 {
        say!("no findings beyond the bound and {tolerance_percent} %");
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
