//! `ezscale interface`: the interfaces of exporters that flows crossed or that the exporters told of.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use collector::status::{self, InterfaceStatus};
use schemas::address::Address;
use schemas::metering::{MeterMode, MeteringConfig};
use schemas::names::Names;
use tables::flow::Boundary;
use tables::metering::Boundaries;

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
    /// As its last flow was judged, else as one would be now; `None` where addresses decide.
    boundary: Option<Boundary>,
}

impl Interface {
    fn boundary(&self) -> Option<&'static str> {
        self.boundary.map(|boundary| match boundary {
            Boundary::External => "external",
            Boundary::Internal => "internal",
            Boundary::Unknown => "unknown",
        })
    }
}

/// On which side an interface lies by the configuration and what its exporter says of it; `None` where addresses decide.
fn decided(
    metering: &MeteringConfig,
    boundaries: &Boundaries,
    (exporter, port): (Address, u16),
    index: u32,
) -> Option<Boundary> {
    let section = metering.exporter(exporter, port)?;
    (section.meter != MeterMode::Addresses).then(|| boundaries.of(exporter, port).interface(index))
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
        of_exporter.map(|interface| ((exporter.address, interface.if_index), 0))
    });
    let told = metering
        .interfaces
        .iter()
        .flat_map(|(exporter, port, interfaces)| interfaces.keys().map(move |index| ((exporter, *index), port)));
    // With the port of the device that told of it, for those behind one address.
    let ports: BTreeMap<(Address, u32), u16> = crossed.chain(told).collect();
    let boundaries = Boundaries::new(&metering);
    let mut found = Vec::with_capacity(ports.len());
    for ((exporter, index), port) in ports {
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
            boundary: match crossed.map(|crossed| crossed.boundary) {
                Some(Boundary::Unknown) | None => {
                    decided(&metering, &boundaries, (exporter, port), index).or(crossed.map(|crossed| crossed.boundary))
                }
                judged => judged,
            },
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
        "no interface is known: no exporter was heard, and none announced its interfaces",
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schemas::interfaces::{KnownInterface, KnownInterfaces};
    use schemas::metering::ExporterConfig;

    use super::*;

    /// Interfaces that no flow has crossed yet, of which SNMP told.
    #[test]
    fn the_names_of_interfaces_decide_before_a_flow_crosses_them() {
        let exporter: Address = "192.0.2.1".parse().unwrap();
        let mut interfaces = KnownInterfaces::default();
        for (index, description) in [(1, "Transit: Example"), (2, "rack 7")] {
            let known = KnownInterface {
                description: description.to_owned(),
                ..KnownInterface::default()
            };
            interfaces.set(exporter, 0, index, known);
        }
        let sides = |meter, exporter: Address| {
            let metering = MeteringConfig {
                exporters: vec![ExporterConfig {
                    meter,
                    external_interfaces_matching: Some("^Transit".parse().unwrap()),
                    ..ExporterConfig::unlisted("192.0.2.1".parse().unwrap())
                }],
                interfaces: Arc::new(interfaces.clone()),
                ..MeteringConfig::default()
            };
            let boundaries = Boundaries::new(&metering);
            [1, 2, 3].map(|index| decided(&metering, &boundaries, (exporter, 0), index))
        };
        let by_name = [Boundary::External, Boundary::Internal, Boundary::Unknown].map(Some);
        assert_eq!(sides(MeterMode::Boundary, exporter), by_name);
        assert_eq!(sides(MeterMode::Off, exporter), by_name);
        assert_eq!(sides(MeterMode::Addresses, exporter), [None; 3]);
        assert_eq!(sides(MeterMode::Boundary, "192.0.2.2".parse().unwrap()), [None; 3]);
    }
}
