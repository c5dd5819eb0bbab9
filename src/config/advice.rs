//! What a configuration says without any effect, and what of a changed one waits for a restart: in sentences, for
//! `config check` and the log.

use std::collections::BTreeMap;

use activity::channel::MailConfig;
use ipnet::IpNet;
use schemas::inventory::prefix_length_min;
use schemas::metering::{ExporterConfig, MeterMode};

use super::Config;

/// Settings that change nothing, each with the reason.
pub(super) fn without_effect(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    config.portal.advice(&mut lines);
    networks(&config.own_networks, &mut lines);
    for exporter in &config.exporters {
        of_exporter(exporter, config, &mut lines);
    }
    mail(config, &mut lines);
    lines
}

fn mail(config: &Config, lines: &mut Vec<String>) {
    let sends = config.mail.smtp_url.is_some();
    if sends && config.mail.from == MailConfig::default().from {
        lines.push(format!(
            "mail.from is not set: mail comes from {}, which mail servers refuse; set it to an address of yours, such as \
             \"Example Hosting <billing@example.net>\"",
            config.mail.from
        ));
    }
    if !sends && !config.mail.reply_to.is_empty() {
        lines.push("mail.reply_to has no effect: without mail.smtp_url nothing is mailed".to_owned());
    }
    if !sends && let Some(url) = &config.portal.public_url {
        lines.push(format!(
            "mail.smtp_url is not set: people who use {url} get no mail, neither invoices nor links to verify an address or \
             to set a new password"
        ));
    }
}

fn networks(networks: &[IpNet], lines: &mut Vec<String>) {
    for (position, network) in networks.iter().enumerate() {
        if *network != network.trunc() {
            lines.push(format!(
                "own_networks: {network} names an address inside the network {0} and counts for all of {0}; write {0}",
                network.trunc()
            ));
        }
        if network.prefix_len() < prefix_length_min(network) {
            lines.push(format!(
                "own_networks: {network} is wider than anybody's networks: flows between its addresses are internal and not metered; \
                 list your own"
            ));
        }
        let covers = |(other_position, other): (usize, &IpNet)| {
            let is_the_same = other.trunc() == network.trunc();
            other_position != position
                && other.trunc().contains(&network.trunc())
                && (!is_the_same || other_position < position)
        };
        if let Some((_, other)) = networks.iter().enumerate().find(|pair| covers(*pair)) {
            lines.push(format!("own_networks: {network} has no effect, {other} holds it"));
        }
    }
}

fn of_exporter(exporter: &ExporterConfig, config: &Config, lines: &mut Vec<String>) {
    let who = match exporter.port {
        Some(port) => format!("exporter {} port {port}", exporter.address),
        None => format!("exporter {}", exporter.address),
    };
    let mut say = |text: String| lines.push(format!("{who}: {text}"));
    let is_boundary = exporter.meter == MeterMode::Boundary;
    if !is_boundary {
        for (setting, is_set) in [
            ("external_interfaces", !exporter.external_interfaces.is_empty()),
            (
                "external_interfaces_matching",
                exporter.external_interfaces_matching.is_some(),
            ),
        ] {
            if is_set && exporter.meter == MeterMode::Addresses {
                say(format!(
                    "{setting} has no effect: it meters by addresses; set meter = \"boundary\""
                ));
            }
        }
    }
    if exporter.meter == MeterMode::Off && exporter.direction.is_some() {
        say("direction has no effect: meter = \"off\" counts nothing".to_owned());
    }
    if let (Some(rate), Some(default)) = (exporter.sampling_rate, exporter.default_sampling_rate) {
        say(format!(
            "default_sampling_rate = {default} has no effect: sampling_rate = {rate} overrides whatever it says"
        ));
    }
    if is_boundary && exporter.external_interfaces_matching.is_some() && exporter.snmp.is_none() {
        say(
            "external_interfaces_matching needs names: set snmp, or let the exporter send them as options data (IE 82 and 83); \
             what crosses interfaces without a name is not metered"
                .to_owned(),
        );
    }
    if exporter.port.is_some() && exporter.snmp.as_ref().is_some_and(|snmp| snmp.counters) {
        say(
            "snmp.counters has no effect: devices that share an address cannot be told apart by their interfaces; names are \
             read"
                .to_owned(),
        );
    }
    if exporter.address.host().is_none() && exporter.snmp.as_ref().is_some_and(|snmp| snmp.address.is_some()) {
        say("snmp.address has no effect for a network: each exporter is asked at its own address".to_owned());
    }
    let wider = config.exporters.iter().filter(|other| {
        other.address.host().is_none() && other.address != exporter.address && other.address.covers(exporter.address)
    });
    for other in wider {
        say(format!(
            "takes nothing from the section of {}: sections are not added up",
            other.address
        ));
    }
}

/// What of `new` a running process goes on without.
pub(super) fn changes_that_need_a_restart(old: &Config, new: &Config) -> Vec<String> {
    // Compared as they are written, without secrets.
    let sections = |config: &Config| -> BTreeMap<String, toml::Value> {
        match toml::Value::try_from(config) {
            Ok(toml::Value::Table(table)) => table.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    };
    let (before, after) = (sections(old), sections(new));
    let mut lines = Vec::new();
    for (name, after) in &after {
        let Some(before) = before.get(name) else {
            if !TAKEN_OVER.contains(&name.as_str()) {
                lines.push(line(name));
            }
            continue;
        };
        if before == after || TAKEN_OVER.contains(&name.as_str()) {
            continue;
        }
        match (before, after) {
            (toml::Value::Table(before), toml::Value::Table(after)) => {
                let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for key in keys {
                    let setting = format!("{name}.{key}");
                    if before.get(key) != after.get(key) && !TAKEN_OVER.contains(&setting.as_str()) {
                        lines.push(line(&setting));
                    }
                }
            }
            _ => lines.push(line(name)),
        }
    }
    // Its password is not shown.
    if old.database != new.database && before.get("database") == after.get("database") {
        lines.push(line("database"));
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        lines.push(line(name));
    }
    lines
}

fn line(setting: &str) -> String {
    match setting {
        "collector.netflow" | "collector.sflow" => format!(
            "{setting} changed: the collector keeps listening on the old addresses; restart ezscale to listen on the new addresses"
        ),
        _ => format!("{setting} changed: it takes effect when ezscale is restarted"),
    }
}

/// What a running process takes over.
const TAKEN_OVER: [&str; 10] = [
    // By billing, from the file itself.
    "approvals",
    "collection",
    "own_networks",
    "metering",
    "retention",
    "exporter",
    "billing.correction_reach_days",
    "collector.allowed_exporters",
    "collector.default_sampling_rate",
    "collector.v5_sampling_mode_bits",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(text: &str) -> Vec<String> {
        without_effect(&Config::parse(text).unwrap())
    }

    #[test]
    fn settings_without_effect_are_named() {
        for (text, expected) in [
            ("own_networks = ['198.51.100.9/24']", "write 198.51.100.0/24"),
            (
                "[mail]\nsmtp_url = 'smtp://mx.example.net'",
                "mail comes from billing@localhost, which mail servers refuse",
            ),
            (
                "[portal]\npublic_url = 'https://portal.example.net'",
                "mail.smtp_url is not set: people who use https://portal.example.net get no mail",
            ),
            (
                "own_networks = ['198.51.100.0/24', '198.51.0.0/16']",
                "198.51.100.0/24 has no effect, 198.51.0.0/16 holds it",
            ),
            ("own_networks = ['2001:db8::/32', '2001:db8::/32']", "has no effect"),
            (
                "own_networks = ['0.0.0.0/0']",
                "0.0.0.0/0 is wider than anybody's networks",
            ),
            (
                "own_networks = ['2000::/3']",
                "2000::/3 is wider than anybody's networks",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nexternal_interfaces = [1]",
                "external_interfaces has no effect: it meters by addresses",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nmeter = 'off'\ndirection = 'ingress'",
                "direction has no effect",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nsampling_rate = 10\ndefault_sampling_rate = 5",
                "default_sampling_rate = 5 has no effect: sampling_rate = 10",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nmeter = 'boundary'\nexternal_interfaces_matching = '^ix'",
                "needs names: set snmp",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.1'\nport = 4711\nsnmp = { community = 'c' }",
                "exporter 192.0.2.1 port 4711: snmp.counters has no effect",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.0/24'\nsnmp = { community = 'c', address = '192.0.2.9' }",
                "snmp.address has no effect for a network",
            ),
            (
                "[[exporter]]\naddress = '192.0.2.0/24'\n[[exporter]]\naddress = '192.0.2.1'",
                "exporter 192.0.2.1: takes nothing from the section of 192.0.2.0/24",
            ),
            ("[mail]\nreply_to = 'a@example.net'", "mail.reply_to has no effect"),
        ] {
            let lines = advice(text);
            assert!(
                lines.iter().any(|line| line.contains(expected)),
                "{text:?} gave {lines:?}"
            );
        }
        assert_eq!(advice(""), [""; 0]);
        assert_eq!(advice("own_networks = ['198.51.100.0/24', '203.0.113.0/24']"), [""; 0]);
    }

    #[test]
    fn the_example_has_nothing_without_effect() {
        assert_eq!(without_effect(&Config::parse(super::super::EXAMPLE).unwrap()), [""; 0]);
    }

    #[test]
    fn the_head_of_the_example_names_what_is_taken_over() {
        let head = super::super::EXAMPLE.split("\n\n").next().unwrap();
        for setting in TAKEN_OVER {
            let name = setting.rsplit('.').next().unwrap();
            assert!(head.contains(name), "{setting}");
        }
    }

    #[test]
    fn a_changed_listen_address_is_said_to_need_a_restart() {
        let old = Config::parse("[collector]\nnetflow = ['127.0.0.1:2055']").unwrap();
        let told = |text: &str| changes_that_need_a_restart(&old, &Config::parse(text).unwrap());
        let lines = told("[collector]\nnetflow = ['127.0.0.1:9995']\ndefault_sampling_rate = 1");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("collector.netflow changed") && lines[0].contains("restart ezscale"),
            "{lines:?}"
        );
        let rest = "[collector]\nnetflow = ['127.0.0.1:2055']\n[portal]\nhttp = '127.0.0.1:9'\n[[exporter]]\naddress = '192.0.2.1'";
        let lines = told(rest);
        assert_eq!(
            lines,
            ["portal.http changed: it takes effect when ezscale is restarted"]
        );
        assert_eq!(
            told("[collector]\nnetflow = ['127.0.0.1:2055']\nallowed_exporters = ['192.0.2.0/24']"),
            [""; 0]
        );
        // What asks VIES is started once; the terms of collection are taken over.
        let listening = "[collector]\nnetflow = ['127.0.0.1:2055']\n";
        assert_eq!(
            told(&format!("{listening}[vies]\nenabled = true")),
            ["vies.enabled changed: it takes effect when ezscale is restarted"]
        );
        assert_eq!(told(&format!("{listening}[collection]\nsuspend_day = 30")), [""; 0]);
        let billing = told(&format!(
            "{listening}[billing]\ncorrection_reach_days = 90\nmin_coverage_percent = 80"
        ));
        assert_eq!(
            billing,
            ["billing.min_coverage_percent changed: it takes effect when ezscale is restarted"]
        );
        let database = told("database = 'sqlite://x'\n[collector]\nnetflow = ['127.0.0.1:2055']");
        assert_eq!(
            database,
            ["database changed: it takes effect when ezscale is restarted"]
        );
    }
}
