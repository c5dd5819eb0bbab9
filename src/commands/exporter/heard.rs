//! What the collector heard of exporters, and those of which it heard nothing yet.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use collector::status::{self, ExporterStatus};
use schemas::address::Address;

use super::exporter_named;
use crate::config::Config;
use crate::options::Data;
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, bytes, number, shown, text};

/// What is known of one, configured or heard.
struct KnownExporter {
    name: Option<String>,
    site: Option<String>,
    is_configured: bool,
    heard: Option<ExporterStatus>,
}

/// By address. A configured network stands for the exporters in it: they are listed once they are heard.
fn known(config: &Config) -> anyhow::Result<BTreeMap<Address, KnownExporter>> {
    let status = status::read(&config.data_dir).context("read the collector's status")?;
    let mut all = BTreeMap::new();
    for exporter in status.into_iter().flat_map(|status| status.exporters) {
        let known = KnownExporter {
            name: exporter.name.clone(),
            site: exporter.site.clone(),
            is_configured: exporter.configured,
            heard: Some(exporter.clone()),
        };
        all.insert(exporter.address, known);
    }
    for configured in &config.exporters {
        let Some(address) = configured.address.host() else {
            continue;
        };
        all.entry(address).or_insert_with(|| KnownExporter {
            name: configured.name.clone(),
            site: configured.site.clone(),
            is_configured: true,
            heard: None,
        });
    }
    Ok(all)
}

/// `NetFlow v9`, `IPFIX`, `sFlow v5`, as the `flows` table numbers them.
fn protocols(exporter: &ExporterStatus) -> Vec<String> {
    let name = |version: &u8| match version {
        10 => "IPFIX".to_owned(),
        105 => "sFlow v5".to_owned(),
        version => format!("NetFlow v{version}"),
    };
    exporter.protocol_versions.iter().map(name).collect()
}

fn rate(exporter: &ExporterStatus) -> Option<u32> {
    Some(exporter.sampling_rate).filter(|&rate| rate > 0)
}

/// Since when it sends flows of which none counts, where that is a fault.
fn unmetered_since(exporter: &ExporterStatus) -> Option<Cell> {
    exporter.nothing_metered_since_ms(exporter.meter).map(at)
}

pub(super) fn list(format: Format, data: &Data) -> anyhow::Result<()> {
    let config = data.config_with_tables()?;
    let mut listing = Listing::new([
        text("address"),
        text("name"),
        text("site").only_data(),
        text("configured").only_data(),
        text("protocols"),
        text("last_heard_at").or("never"),
        number("datagrams").only_data(),
        number("flows"),
        bytes("scaled_bytes"),
        number("sampling_rate").or("unknown"),
        number("flows_without_rate"),
        text("unmetered_since"),
        number("sequence_lost"),
    ]);
    for (address, known) in known(&config)? {
        let heard = known.heard.as_ref();
        let count = |of: fn(&ExporterStatus) -> u64| Cell::from(heard.map_or(0, of));
        listing.row([
            shown(address),
            known.name.clone().into(),
            known.site.clone().into(),
            known.is_configured.into(),
            Cell::json(&heard.map(protocols).unwrap_or_default())?,
            heard.map(|exporter| at(exporter.last_heard_ms)).into(),
            count(|exporter| exporter.datagrams),
            count(|exporter| exporter.flows),
            count(|exporter| exporter.bytes_scaled),
            heard.and_then(rate).into(),
            count(|exporter| exporter.flows_without_rate),
            heard.and_then(unmetered_since).into(),
            count(|exporter| exporter.sequence_lost),
        ]);
    }
    listing.print(
        format,
        "no exporter is configured and none was heard: point one at the collector (the portal's exporters page shows how)",
    )
}

pub(super) fn show(name: &str, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let config = data.config_with_tables()?;
    let address = exporter_named(name, &config.metering())?;
    let Some(known) = known(&config)?.remove(&address) else {
        bail!("{address} is not configured and was not heard: `ezscale exporter list` lists those that are");
    };
    let heard = known.heard.unwrap_or_else(|| ExporterStatus {
        address,
        ..ExporterStatus::default()
    });
    let was_heard = heard.last_heard_ms > 0;
    let mut domains = Listing::new([
        number("observation_domain"),
        number("port"),
        number("templates"),
        number("sampling_rate").or("unknown"),
        text("sampling_source"),
        number("active_timeout_seconds"),
        number("clock_offset_ms"),
        number("sequence_lost"),
    ]);
    for domain in &heard.domains {
        domains.row([
            domain.observation_domain.into(),
            Some(domain.port).filter(|&port| port > 0).into(),
            domain.templates.into(),
            domain.sampling_rate.into(),
            domain.sampling_source.as_str().into(),
            domain.active_timeout_s.into(),
            domain.clock_offset_ms.into(),
            domain.sequence_lost.into(),
        ]);
    }
    let mut counters = Listing::new([text("counter"), number("value")]);
    for (counter, value) in &heard.counters {
        counters.row([counter.as_str().into(), (*value).into()]);
    }
    Record::new()
        .field(text("address"), shown(address))
        .field(text("name"), known.name)
        .field(text("site"), known.site)
        .field(text("configured"), known.is_configured)
        .field(text("protocols"), Cell::json(&protocols(&heard))?)
        .field(
            text("first_heard_at").or("never"),
            Some(heard.first_heard_ms).filter(|_| was_heard).map(at),
        )
        .field(
            text("last_heard_at").or("never"),
            Some(heard.last_heard_ms).filter(|_| was_heard).map(at),
        )
        .field(number("datagrams"), heard.datagrams)
        .field(bytes("datagram_bytes").titled("datagram volume"), heard.datagram_bytes)
        .field(number("flows"), heard.flows)
        .field(number("packets"), heard.packets)
        .field(bytes("exported_bytes").titled("exported volume"), heard.bytes)
        .field(bytes("scaled_bytes").titled("scaled volume"), heard.bytes_scaled)
        .field(number("sampling_rate").or("unknown"), rate(&heard))
        .field(number("flows_without_rate"), heard.flows_without_rate)
        .field(text("unmetered_since"), unmetered_since(&heard))
        .field(number("sequence_lost"), heard.sequence_lost)
        .field(
            text("refused_at"),
            Some(heard.refused_at_ms).filter(|&at_ms| at_ms > 0).map(at),
        )
        .field(number("interfaces"), heard.interfaces.len())
        .list("domains", domains)
        .list("counters", counters)
        .print(format)
}
