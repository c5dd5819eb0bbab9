//! `ezscale exporter`: what is known of exporters, and what is said about their past.

mod heard;

use std::collections::BTreeSet;
use std::sync::Arc;

use activity::act::Note;
use activity::audit::Risk;
use analytics::Analytics;
use analytics::correct::{CorrectionEffect, Volume};
use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use schemas::address::Address;
use schemas::db::Database;
use schemas::ids::ServiceId;
use schemas::inventory::{self, CorrectionRow};
use schemas::metering::correction::{CorrectedDirection, Correction, CorrectionSettings};
use schemas::metering::{MeterMode, MeteringConfig};
use schemas::names::Names;
use schemas::sampling::SamplingRate;
use schemas::window::instant_text;
use serde_json::json;
use tables::metering::Enricher;

use super::audit;
use crate::config::Config;
use crate::jobs::apply_correction;
use crate::options::{Data, load_assignments, load_metering, now_ms};
use crate::output::{Cell, Format, Listing, Progress, ShowFormat, at, bytes, count, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List exporters: those that were heard, and those that are configured
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show an exporter with its observation domains
    Show {
        /// Its address as flows name it, or its configured name
        exporter: String,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Re-read an exporter's stored flows of a time range under other settings, and let billing adjust
    ///
    /// Without --apply nothing is written: what each service would have sent and received is printed, as stored and as
    /// corrected. With --apply the stored flows are rewritten, their windows are recomputed, and the next invoices carry
    /// the difference. It is audited, and the owner is alerted. What was not finished, because the machine went away, is
    /// finished by `ezscale serve`. See docs/exporters.md, Correcting the past.
    Correct(Box<Correct>),
    /// List what was corrected, latest first
    Corrections {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct Correct {
    /// Address of the exporter as flows name it, or its configured name
    exporter: String,
    /// Flows that ended from this instant on (RFC 3339, or a day)
    #[arg(long, value_parser = crate::options::instant)]
    from: Timestamp,
    /// Flows that ended before this instant (RFC 3339, or a day)
    #[arg(long, value_parser = crate::options::instant)]
    to: Timestamp,
    /// One packet in so many was sampled: 1000, or 3/2; flows of unknown rate get it too
    #[arg(long, value_name = "RATE")]
    sampling_rate: Option<SamplingRate>,
    /// What next hop 0 and output interface 0 mean, where the exporter said no forwarding status
    #[arg(long, value_enum, value_name = "MEANING")]
    zero_route: Option<ZeroRoute>,
    /// Active timeout in seconds: no flow holds bytes older than that; 0 = believe the reported start
    #[arg(long, value_name = "SECONDS")]
    active_timeout: Option<u32>,
    /// How its flows are metered
    #[arg(long, value_enum)]
    meter: Option<Meter>,
    /// Which observation of a packet counts
    #[arg(long, value_enum)]
    direction: Option<Direction>,
    /// SNMP indexes of the interfaces that faced other networks, separated by commas; every other one is internal
    #[arg(long, value_delimiter = ',', value_name = "INDEX")]
    external_interfaces: Option<Vec<u32>>,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
    /// Rewrite the flows; without it nothing is written
    #[arg(long, requires = "reason")]
    apply: bool,
    #[command(flatten)]
    data: Data,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ZeroRoute {
    /// The packets were dropped
    Discard,
    /// They were forwarded
    Forwarded,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Meter {
    Boundary,
    Addresses,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Direction {
    Ingress,
    Egress,
    Both,
    /// Of packets observed twice one, as where no direction is configured
    Auto,
}

impl Correct {
    fn settings(&self) -> CorrectionSettings {
        CorrectionSettings {
            sampling_rate: self.sampling_rate,
            zero_route_is_discard: self.zero_route.map(|meaning| matches!(meaning, ZeroRoute::Discard)),
            active_timeout_s: self.active_timeout,
            meter: self.meter.map(|meter| match meter {
                Meter::Boundary => MeterMode::Boundary,
                Meter::Addresses => MeterMode::Addresses,
                Meter::Off => MeterMode::Off,
            }),
            direction: self.direction.map(|direction| match direction {
                Direction::Ingress => CorrectedDirection::Ingress,
                Direction::Egress => CorrectedDirection::Egress,
                Direction::Both => CorrectedDirection::Both,
                Direction::Auto => CorrectedDirection::Auto,
            }),
            external_interfaces: self
                .external_interfaces
                .as_ref()
                .map(|indexes| indexes.iter().copied().collect::<BTreeSet<u32>>()),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Correct(correct) => run_correct(&correct).await,
        Command::Corrections { format, data } => list_corrections(format, &data).await,
        Command::List { format, data } => heard::list(format, &data),
        Command::Show { exporter, format, data } => heard::show(&exporter, format, &data),
    }
}

async fn run_correct(args: &Correct) -> anyhow::Result<()> {
    let (config, database) = args.data.open_database().await?;
    let metering = load_metering(&config, &database).await?;
    let correction = Correction {
        exporter: exporter_named(&args.exporter, &metering)?,
        from_ms: args.from.as_millisecond(),
        to_ms: args.to.as_millisecond(),
        settings: args.settings(),
    };
    // A rehearsal's clock may be ahead of the wall's, and what arrives keeps its real time.
    let now_ms = now_ms(&database).await?;
    correction.check(now_ms.max(schemas::clock::machine_now_ms()))?;
    let analytics = Analytics::open(&config.open_storage()?)?;
    refuse_removed_flows(&analytics, &correction)?;

    let effect = rehearse(&analytics, &database, &metering, &correction).await?;
    if effect.summary.flows_judged == 0 {
        bail!(
            "no stored flow of {} ended between {} and {}: see `ezscale query \"SELECT exporter, min(end_at), max(end_at) FROM flows GROUP BY 1\"`",
            correction.exporter,
            instant_text(correction.from_ms),
            instant_text(correction.to_ms)
        );
    }
    print_effect(&effect, &database).await?;
    if effect.summary.flows_changed == 0 && !correction.settings.judges() {
        say!("Nothing changes: the stored flows are as these settings make them.");
        return Ok(());
    }
    let Some(reason) = args.reason.as_deref().filter(|_| args.apply) else {
        say!("Nothing was written: run it again with --apply --reason TEXT to correct the stored flows.");
        return Ok(());
    };
    let row = keep(&database, &correction, reason, &effect, now_ms).await?;
    apply(&config, &database, &analytics, &row).await
}

/// Rehearses with this correction on top of those there are.
async fn rehearse(
    analytics: &Analytics,
    database: &Database,
    metering: &MeteringConfig,
    correction: &Correction,
) -> anyhow::Result<CorrectionEffect> {
    let mut with_it = metering.clone();
    with_it.corrections.push(correction.clone());
    let enricher = Arc::new(Enricher::new(&with_it, load_assignments(database).await?));
    let progress = Progress::counted("reading flows", 0);
    let effect = analytics
        .rehearse_correction(correction, &enricher, |now| {
            progress.set_of(now.files_done as u64, now.files_total as u64);
        })
        .await?;
    progress.clear();
    Ok(effect)
}

/// Keeps the correction and its audit entry: from here on it is finished by whoever looks for pending ones.
async fn keep(
    database: &Database,
    correction: &Correction,
    reason: &str,
    effect: &CorrectionEffect,
    now_ms: i64,
) -> anyhow::Result<CorrectionRow> {
    let mut act = audit::begin(database, now_ms).await?;
    let (connection, by) = act.parts();
    let rehearsed = (effect.summary.files_rewritten, effect.summary.flows_changed);
    let row = inventory::add_correction(connection, correction, reason, by.name, rehearsed, now_ms).await?;
    let change = json!({"after": {
        "exporter": correction.exporter.to_string(),
        "from": instant_text(correction.from_ms), "to": instant_text(correction.to_ms),
        "settings": correction.settings, "reason": row.reason,
        "flows_changed": effect.summary.flows_changed, "services": effect.services.len(),
    }});
    let note = Note::new("exporter.correct", row.id).change(change);
    act.commit(note.risk(Risk::High)).await?;
    Ok(row)
}

async fn apply(config: &Config, database: &Database, analytics: &Analytics, row: &CorrectionRow) -> anyhow::Result<()> {
    let metering = load_metering(config, database).await?;
    let progress = Progress::counted("rewriting flows", 0);
    apply_correction(database, analytics, &metering, row, |now| {
        progress.set_of(now.files_done as u64, now.files_total as u64);
    })
    .await
    .with_context(|| {
        format!(
            "{} is kept and not finished: `ezscale serve` finishes it, or run the command again",
            row.id
        )
    })?;
    progress.clear();
    analytics.refresh_rollups(|_| {}).await?;
    // `ezscale serve` may have rewritten some of the files meanwhile: what is kept of the correction counts for both.
    let kept = inventory::corrections(database.pool()).await?;
    let applied = kept.iter().find(|kept| kept.id == row.id).unwrap_or(row);
    say!(
        "{}: {} corrected in {}, their usage is recomputed.",
        row.id,
        count(applied.flows_changed, "flow"),
        count(applied.files_rewritten, "file")
    );
    say!("What was charged for them is adjusted on the next invoices: see `ezscale invoice preview`.");
    Ok(())
}

pub(super) fn exporter_named(text: &str, metering: &MeteringConfig) -> anyhow::Result<Address> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let named: Vec<Address> = metering
        .exporters
        .iter()
        .filter(|exporter| exporter.name.as_deref() == Some(text))
        .filter_map(|exporter| exporter.address.host())
        .collect();
    match named[..] {
        [address] => Ok(address),
        [] => bail!("{text:?} is neither an address nor the name of an exporter that is configured by its address"),
        _ => bail!(
            "{} configured exporters are named {text:?}: give the address",
            named.len()
        ),
    }
}

fn refuse_removed_flows(analytics: &Analytics, correction: &Correction) -> anyhow::Result<()> {
    if let Some(kept_from_ms) = analytics
        .flows_kept_from_ms()?
        .filter(|&kept| correction.from_ms < kept)
    {
        bail!(
            "flows before {} were removed by retention and cannot be re-read: give --from {} or later",
            instant_text(kept_from_ms),
            instant_text(kept_from_ms)
        );
    }
    Ok(())
}

async fn print_effect(effect: &CorrectionEffect, database: &Database) -> anyhow::Result<()> {
    let services = inventory::services(database.pool()).await?;
    let name_of = |number: u32| {
        let id = ServiceId::from(number);
        let name = services
            .iter()
            .find(|service| service.id == id)
            .map(|service| &service.name);
        match name {
            _ if number == 0 => "not attributed".to_owned(),
            Some(name) => format!("{id} {name}"),
            None => id.to_string(),
        }
    };
    let mut listing = Listing::new([
        text("service"),
        bytes("in_before"),
        bytes("in_after"),
        bytes("out_before"),
        bytes("out_after"),
    ]);
    let is_changed = |(_, (before, after)): &(&u32, &(Volume, Volume))| before != after;
    for (service, (before, after)) in effect.services.iter().filter(is_changed) {
        listing.row([
            name_of(*service).into(),
            before.bytes_in.into(),
            after.bytes_in.into(),
            before.bytes_out.into(),
            after.bytes_out.into(),
        ]);
    }
    listing.print(Format::Table, "no service's volume changes")?;
    let summary = effect.summary;
    say!(
        "flows that change: {} of {}; without a known sampling rate: {} before, {} now.",
        summary.flows_changed,
        summary.flows_judged,
        effect.unknown_rate_before,
        effect.unknown_rate_after
    );
    Ok(())
}

async fn list_corrections(format: Format, data: &Data) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let metering = config.metering();
    let names = Names::new(&metering);
    let mut rows = inventory::corrections(database.pool()).await?;
    rows.reverse();
    let mut listing = Listing::new([
        text("id"),
        text("exporter"),
        text("exporter_name"),
        text("from"),
        text("to"),
        text("settings"),
        number("files_rewritten"),
        number("flows_changed"),
        text("created_at"),
        text("applied_at").or("pending"),
        text("created_by"),
        text("reason"),
    ]);
    for row in rows {
        let settings = match format {
            Format::Json => Cell::json(&row.correction.settings)?,
            Format::Table | Format::Csv => row.correction.settings.text().into(),
        };
        listing.row([
            shown(row.id),
            shown(row.correction.exporter),
            names.exporter(row.correction.exporter).into(),
            at(row.correction.from_ms),
            at(row.correction.to_ms),
            settings,
            row.files_rewritten.into(),
            row.flows_changed.into(),
            at(row.created_at_ms),
            row.applied_at_ms.map(at).into(),
            row.created_by.into(),
            row.reason.into(),
        ]);
    }
    listing.print(format, "no corrections")
}
