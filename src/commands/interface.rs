//! `ezscale interface`: the interfaces of exporters that flows crossed or that the exporters told of.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use collector::status::{self, InterfaceStatus};
use schemas::address::Address;
use schemas::metering::MeteringConfig;
use schemas::names::Names;
use tables::flow::Boundary;

use super::exporter::exporter_named;
use crate::options::Data;
use crate::output::{Format, Listing, Record, ShowFormat, at, bit_rate, bytes, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List interfaces
    List {
        /// Of this exporter: its address, or its configured name [default: all]
        #[arg(long)]
        exporter: Option<String>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show an interface
    Show {
        /// The exporter: its address, or its configured name
        exporter: String,
        /// SNMP index of the interface
        index: u32,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
}

/// An interface, as flows and the exporter tell of it.
struct Interface {
    exporter: Address,
    exporter_name: String,
    index: u32,
    name: Option<String>,
    description: String,
    speed_bps: Option<u64>,
    crossed: Option<InterfaceStatus>,
}

impl Interface {
    fn boundary(&self) -> Option<&'static str> {
        self.crossed.map(|crossed| match crossed.boundary {
            Boundary::External => "external",
            Boundary::Internal => "internal",
            Boundary::Unknown => "unknown",
        })
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { exporter, format, data } => list(exporter.as_deref(), format, &data),
        Command::Show {
            exporter,
            index,
            format,
            data,
        } => show(&exporter, index, format, &data),
    }
}

/// All of them, by exporter and index.
fn all(data: &Data) -> anyhow::Result<(Vec<Interface>, MeteringConfig)> {
    let config = data.config_with_tables()?;
    let metering = config.metering();
    let names = Names::new(&metering);
    let status = status::read(&config.data_dir).context("read the collector's status")?;
    let exporters = status.map(|status| status.exporters).unwrap_or_default();
    let crossed = exporters.iter().flat_map(|exporter| {
        let of_exporter = exporter.interfaces.iter();
        of_exporter.map(|interface| (exporter.address, interface.if_index))
    });
    let told = metering
        .interfaces
        .iter()
        .flat_map(|(exporter, _, interfaces)| interfaces.keys().map(move |index| (exporter, *index)));
    let keys: BTreeSet<(Address, u32)> = crossed.chain(told).collect();
    let mut found = Vec::with_capacity(keys.len());
    for (exporter, index) in keys {
        let known = names.known(exporter, index);
        let status = exporters.iter().find(|status| status.address == exporter);
        let crossed = status.and_then(|status| status.interfaces.iter().find(|interface| interface.if_index == index));
        found.push(Interface {
            exporter,
            exporter_name: names.exporter(exporter),
            index,
            name: names.interface_name(exporter, index).map(str::to_owned),
            description: known.map(|known| known.description.clone()).unwrap_or_default(),
            speed_bps: known.map(|known| known.speed_bps).filter(|&speed| speed > 0),
            crossed: crossed.copied(),
        });
    }
    drop(names);
    Ok((found, metering))
}

fn list(exporter: Option<&str>, format: Format, data: &Data) -> anyhow::Result<()> {
    let (interfaces, metering) = all(data)?;
    let only = exporter.map(|name| exporter_named(name, &metering)).transpose()?;
    let mut listing = Listing::new([
        text("exporter"),
        text("exporter_name"),
        number("index"),
        text("name"),
        text("description"),
        text("boundary"),
        bit_rate("speed_bps"),
        number("flows_in"),
        number("flows_out"),
        bytes("scaled_in_bytes"),
        bytes("scaled_out_bytes"),
        text("last_seen_at").or("never"),
    ]);
    for interface in interfaces {
        if only.is_some_and(|only| only != interface.exporter) {
            continue;
        }
        let crossed = interface.crossed;
        listing.row([
            shown(interface.exporter),
            interface.exporter_name.as_str().into(),
            interface.index.into(),
            interface.name.as_deref().into(),
            interface.description.as_str().into(),
            interface.boundary().into(),
            interface.speed_bps.into(),
            crossed.map_or(0, |crossed| crossed.in_flows).into(),
            crossed.map_or(0, |crossed| crossed.out_flows).into(),
            crossed.map_or(0, |crossed| crossed.in_bytes_scaled).into(),
            crossed.map_or(0, |crossed| crossed.out_bytes_scaled).into(),
            crossed.map(|crossed| at(crossed.last_seen_ms)).into(),
        ]);
    }
    listing.print(
        format,
        "no interface is known: no exporter was heard, and none told of its interfaces",
    )
}

fn show(exporter: &str, index: u32, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (interfaces, metering) = all(data)?;
    let exporter = exporter_named(exporter, &metering)?;
    let found = interfaces
        .into_iter()
        .find(|interface| interface.exporter == exporter && interface.index == index);
    let Some(found) = found else {
        bail!("no interface {index} of {exporter} is known: `ezscale interface list --exporter {exporter}` lists them");
    };
    let crossed = found.crossed;
    Record::new()
        .field(text("exporter"), shown(found.exporter))
        .field(text("exporter_name"), found.exporter_name.as_str())
        .field(number("index"), found.index)
        .field(text("name"), found.name.as_deref())
        .field(text("description"), found.description.as_str())
        .field(text("boundary"), found.boundary())
        .field(bit_rate("speed_bps"), found.speed_bps)
        .field(number("flows_in"), crossed.map_or(0, |crossed| crossed.in_flows))
        .field(number("flows_out"), crossed.map_or(0, |crossed| crossed.out_flows))
        .field(
            bytes("scaled_in_bytes"),
            crossed.map_or(0, |crossed| crossed.in_bytes_scaled),
        )
        .field(
            bytes("scaled_out_bytes"),
            crossed.map_or(0, |crossed| crossed.out_bytes_scaled),
        )
        .field(
            text("last_seen_at").or("never"),
            crossed.map(|crossed| at(crossed.last_seen_ms)),
        )
        .print(format)
}
