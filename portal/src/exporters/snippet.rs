//! The part of the configuration file that is still missing, ready to paste.
//!
//! It holds a complete `[[exporter]]` block for every exporter that
//! * is heard and not listed,
//! * sends flows whose sampling rate nobody knows, or
//! * is metered by the boundary of its interfaces while none of them is external.
//!
//! Pasted unchanged it changes no bill: a number that only a person can know (a sampling rate, which interfaces face other
//! networks) stands in a comment with what was seen, to be confirmed. A block for an exporter that is listed already
//! repeats everything that is configured and replaces the old block.

use std::fmt::Write as _;

use schemas::address::Address;
use schemas::metering::{ExporterConfig, MeterDirection, MeterMode, TunnelMode};
use schemas::text::is_plain;
use serde::Serialize;

/// Interfaces named in a comment at most.
const INTERFACES_NAMED: usize = 12;

/// What is known of an exporter.
#[derive(Clone, Debug)]
pub(crate) struct ObservedExporter {
    pub(crate) address: Address,
    /// Its block in the configuration.
    pub(crate) config: Option<ExporterConfig>,
    /// Flows arrived lately whose rate nobody knows.
    pub(crate) rate_unknown: bool,
    /// Indexes of the interfaces its flows crossed, the busiest first.
    pub(crate) interfaces: Vec<u32>,
}

/// Why a block is suggested.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    NotListed,
    SamplingRateUnknown,
    NoExternalInterface,
}

/// A piece of configuration with the reasons for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigurationSnippet)]
pub(crate) struct Snippet {
    pub(crate) toml: String,
    /// Exporters in it.
    pub(crate) exporters: usize,
    /// Some of its blocks replace blocks that exist.
    pub(crate) replaces: bool,
}

/// What is missing for one exporter, in order of weight.
pub(crate) fn reasons(seen: &ObservedExporter) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if seen.config.is_none() {
        reasons.push(Reason::NotListed);
    }
    if seen.rate_unknown {
        reasons.push(Reason::SamplingRateUnknown);
    }
    let blind = |config: &ExporterConfig| config.meter == MeterMode::Boundary && config.names_no_external_interface();
    if seen.config.as_ref().is_some_and(blind) {
        reasons.push(Reason::NoExternalInterface);
    }
    reasons
}

/// The missing configuration of all exporters; `None` when nothing is missing.
pub(crate) fn snippet(all: &[ObservedExporter]) -> Option<Snippet> {
    let mut snippet = Snippet {
        toml: String::new(),
        exporters: 0,
        replaces: false,
    };
    for seen in all {
        let reasons = reasons(seen);
        if reasons.is_empty() {
            continue;
        }
        if snippet.exporters > 0 {
            snippet.toml.push('\n');
        }
        snippet.exporters += 1;
        snippet.replaces |= seen.config.is_some();
        snippet.toml.push_str(&block(seen, &reasons));
    }
    (snippet.exporters > 0).then_some(snippet)
}

fn block(seen: &ObservedExporter, reasons: &[Reason]) -> String {
    let config = seen
        .config
        .clone()
        .unwrap_or_else(|| ExporterConfig::unlisted(seen.address));
    let listed = seen.config.is_some();
    let mut lines: Vec<String> = Vec::new();
    if listed {
        lines.push(format!("# Replaces the block of {}.", config.address));
    }
    lines.push("[[exporter]]".to_owned());
    lines.push(format!("address = {}", quoted(&config.address.to_string())));
    if let Some(port) = config.port {
        lines.push(format!("port = {port}"));
    }
    match &config.name {
        Some(name) => lines.push(format!("name = {}", quoted(name))),
        None => lines.push(r#"# name = "NAME"                   # what people call it"#.to_owned()),
    }
    match &config.site {
        Some(site) => lines.push(format!("site = {}", quoted(site))),
        None => lines.push(
            r#"# site = "SITE"                   # it meters the services of this site; without one, all"#.to_owned(),
        ),
    }
    lines.push(format!("meter = {}", quoted(meter_name(config.meter))));
    if let Some(direction) = config.direction {
        lines.push(format!("direction = {}", quoted(direction_name(direction))));
    }
    if let Some(pattern) = &config.external_interfaces_matching {
        lines.push(format!("external_interfaces_matching = {}", quoted(pattern.as_str())));
    }
    if !config.external_interfaces.is_empty() {
        lines.push(format!("external_interfaces = {:?}", config.external_interfaces));
    } else if reasons.contains(&Reason::NoExternalInterface) {
        lines.push(
            "# Nothing is metered here until an interface faces other networks: keep those, remove the #.".to_owned(),
        );
        lines.push(interfaces_comment(&seen.interfaces));
    } else if !listed {
        lines.push(
            r#"# To meter by interface instead of address, set meter = "boundary", keep the interfaces that"#
                .to_owned(),
        );
        lines.push("# face other networks, and remove the #.".to_owned());
        lines.push(interfaces_comment(&seen.interfaces));
    }
    if !config.interface_names.is_empty() {
        let names = config
            .interface_names
            .iter()
            .map(|(index, name)| format!("{index} = {}", quoted(name)));
        lines.push(format!(
            "interface_names = {{ {} }}",
            names.collect::<Vec<_>>().join(", ")
        ));
    }
    if let Some(rate) = config.sampling_rate {
        lines.push(format!("sampling_rate = {rate}"));
    }
    if let Some(rate) = config.default_sampling_rate {
        lines.push(format!("default_sampling_rate = {rate}"));
    }
    if let Some(mode_bits) = config.v5_sampling_mode_bits {
        lines.push(format!("v5_sampling_mode_bits = {mode_bits}"));
    }
    if let Some(seconds) = config.active_timeout_s {
        lines.push(format!("active_timeout_s = {seconds}"));
    }
    if config.zero_route_is_discard {
        lines.push("zero_route_is_discard = true".to_owned());
    }
    if let Some(out_bytes_are_answer) = config.out_bytes_are_answer {
        lines.push(format!("out_bytes_are_answer = {out_bytes_are_answer}"));
    }
    if config.layer2_octets > 0 {
        lines.push(format!("layer2_octets = {}", config.layer2_octets));
    }
    if config.tunnels == TunnelMode::Inner {
        lines.push("tunnels = \"inner\"".to_owned());
    }
    if config.snmp.is_some() {
        lines.push("# Keep your line snmp = { … } here: its secrets are not shown.".to_owned());
    }
    if reasons.contains(&Reason::SamplingRateUnknown) {
        lines.push(
            "# It does not say its sampling rate, and its flows are not billed: write the rate that is set on the"
                .to_owned(),
        );
        lines.push("# router (1 = every packet), and remove the #.".to_owned());
        lines.push("# default_sampling_rate = 1000".to_owned());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn interfaces_comment(interfaces: &[u32]) -> String {
    let mut text = "# external_interfaces = [".to_owned();
    for (position, index) in interfaces.iter().take(INTERFACES_NAMED).enumerate() {
        let comma = if position > 0 { ", " } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{index}");
    }
    text.push(']');
    text.push_str(match interfaces.len() {
        0 => "        # none seen yet",
        1..=INTERFACES_NAMED => "        # seen, busiest first",
        _ => "        # the busiest of those seen",
    });
    text
}

fn direction_name(direction: MeterDirection) -> &'static str {
    match direction {
        MeterDirection::Ingress => "ingress",
        MeterDirection::Egress => "egress",
        MeterDirection::Both => "both",
    }
}

fn meter_name(meter: MeterMode) -> &'static str {
    match meter {
        MeterMode::Boundary => "boundary",
        MeterMode::Addresses => "addresses",
        MeterMode::Off => "off",
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            unseen if !is_plain(unseen) => {
                let _ = write!(out, "\\u{:04X}", u32::from(unseen));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::metering::MeteringConfig;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn parsed(snippet: &Snippet) -> MeteringConfig {
        toml::from_str(&snippet.toml).unwrap_or_else(|error| panic!("{error}\n{}", snippet.toml))
    }

    fn uncommented(snippet: &Snippet, key: &str) -> MeteringConfig {
        let toml = snippet.toml.replace(&format!("# {key} ="), &format!("{key} ="));
        toml::from_str(&toml).unwrap_or_else(|error| panic!("{error}\n{toml}"))
    }

    #[test]
    fn an_unlisted_exporter_gets_a_block_that_changes_nothing_yet() {
        let seen = ObservedExporter {
            address: address("2001:db8::1"),
            config: None,
            rate_unknown: true,
            interfaces: vec![513, 7],
        };
        let snippet = snippet(&[seen]).unwrap();
        assert_eq!(
            parsed(&snippet).exporters,
            [ExporterConfig::unlisted(address("2001:db8::1"))]
        );
        assert!(!snippet.replaces);
        let confirmed = uncommented(&snippet, "default_sampling_rate");
        assert_eq!(confirmed.exporters[0].default_sampling_rate, Some(1000));
        let confirmed = uncommented(&snippet, "external_interfaces");
        assert_eq!(confirmed.exporters[0].external_interfaces, [513, 7]);
        for key in ["name", "site"] {
            uncommented(&snippet, key);
        }
    }

    #[test]
    fn a_listed_exporter_keeps_everything_that_is_configured() {
        let config = ExporterConfig {
            name: Some("mx \"one\" \\ \u{7}ü".to_owned()),
            site: Some("NYC1".to_owned()),
            meter: MeterMode::Boundary,
            direction: Some(MeterDirection::Egress),
            external_interfaces: vec![1, 2],
            v5_sampling_mode_bits: Some(false),
            interface_names: [(1, "ae0.0".to_owned()), (2, "xe-0/0/1 \"b\"".to_owned())].into(),
            default_sampling_rate: None,
            port: Some(40_001),
            external_interfaces_matching: Some("^transit|\"x\"".parse().unwrap()),
            tunnels: TunnelMode::Inner,
            ..ExporterConfig::unlisted(address("192.0.2.1"))
        };
        let seen = ObservedExporter {
            address: config.address.host().unwrap(),
            config: Some(config.clone()),
            rate_unknown: true,
            interfaces: vec![1, 2, 3],
        };
        let snippet = snippet(&[seen]).unwrap();
        assert!(snippet.replaces);
        assert_eq!(parsed(&snippet).exporters, [config]);
    }

    #[test]
    fn boundary_without_external_interfaces_lists_those_seen() {
        let config = ExporterConfig {
            meter: MeterMode::Boundary,
            sampling_rate: Some(100),
            ..ExporterConfig::unlisted(address("192.0.2.1"))
        };
        let seen = ObservedExporter {
            address: config.address.host().unwrap(),
            config: Some(config.clone()),
            rate_unknown: false,
            interfaces: (1..=40).collect(),
        };
        assert_eq!(reasons(&seen), [Reason::NoExternalInterface]);
        let snippet = snippet(&[seen]).unwrap();
        assert_eq!(parsed(&snippet).exporters, [config]);
        let confirmed = uncommented(&snippet, "external_interfaces");
        assert_eq!(confirmed.exporters[0].external_interfaces.len(), INTERFACES_NAMED);
    }

    #[test]
    fn several_blocks_make_one_file_and_the_complete_need_none() {
        let unlisted = |text| ObservedExporter {
            address: address(text),
            config: None,
            rate_unknown: false,
            interfaces: vec![],
        };
        let complete = ObservedExporter {
            config: Some(ExporterConfig::unlisted(address("192.0.2.3"))),
            ..unlisted("192.0.2.3")
        };
        assert_eq!(snippet(std::slice::from_ref(&complete)), None);
        let both = snippet(&[unlisted("192.0.2.1"), complete, unlisted("192.0.2.2")]).unwrap();
        assert_eq!(both.exporters, 2);
        let addresses: Vec<Address> = parsed(&both)
            .exporters
            .iter()
            .filter_map(|exporter| exporter.address.host())
            .collect();
        assert_eq!(addresses, [address("192.0.2.1"), address("192.0.2.2")]);
    }
}
