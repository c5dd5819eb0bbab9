//! What exporters say of their own interfaces, and how asking them by SNMP goes.

use std::collections::HashMap;

use collector::snmp::SnmpStatus;
use schemas::address::Address;
use schemas::metering::{ExporterConfig, MeterMode, MeteringConfig};
use schemas::names::Names;
use serde::Serialize;

use super::view::{ExporterView, Problem};

/// One failed attempt may be a lost datagram; from here on it is a finding.
const FAILURES_TOLERATED: u32 = 1;

/// How asking an exporter goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SnmpStatus)]
pub(crate) struct SnmpView {
    pub(crate) asked: String,
    pub(crate) interval_seconds: u64,
    /// `None` where it never answered.
    pub(crate) answered_at_ms: Option<i64>,
    pub(crate) interfaces: usize,
    pub(crate) took_ms: u64,
    pub(crate) error: Option<String>,
}

/// Gives each exporter the names of its interfaces and how asking it goes, and problems for what is missing.
pub(crate) fn attach(exporters: &mut [ExporterView], statuses: &[SnmpStatus], metering: &MeteringConfig) {
    let names = Names::new(metering);
    let statuses: HashMap<Address, &SnmpStatus> = statuses.iter().map(|status| (status.exporter, status)).collect();
    for exporter in exporters {
        let config = metering.exporter(exporter.address, 0);
        for interface in &mut exporter.interfaces {
            let name = names.interface_name(exporter.address, interface.if_index);
            interface.name = name.map(str::to_owned);
            if let Some(known) = names.known(exporter.address, interface.if_index) {
                interface.description.clone_from(&known.description);
                interface.speed_bps = known.speed_bps;
            }
        }
        if let Some(status) = statuses.get(&exporter.address) {
            exporter.problems.extend(no_answer(status));
            exporter.snmp = Some(view(status));
        }
        let nameless = config.and_then(|config| nameless(exporter, config, &names));
        exporter.problems.extend(nameless);
    }
}

fn view(status: &SnmpStatus) -> SnmpView {
    SnmpView {
        asked: status.asked.clone(),
        interval_seconds: status.interval_seconds,
        answered_at_ms: Some(status.answered_at_ms).filter(|at_ms| *at_ms > 0),
        interfaces: status.interfaces,
        took_ms: status.took_ms,
        error: Some(status.error.clone()).filter(|error| !error.is_empty()),
    }
}

fn no_answer(status: &SnmpStatus) -> Option<Problem> {
    (status.failures > FAILURES_TOLERATED).then(|| Problem {
        what: "no SNMP answer",
        advice: format!(
            "Asked at {} {} times without a good answer: {}. Its names may be old, and its flows are not compared with its \
             counters.",
            status.asked, status.failures, status.error
        ),
    })
}

/// Interfaces that flows cross and whose side cannot be told without a name.
fn nameless(exporter: &ExporterView, config: &ExporterConfig, names: &Names<'_>) -> Option<Problem> {
    if config.meter != MeterMode::Boundary || !config.judges_by_name() {
        return None;
    }
    let is_nameless = |if_index: u32| {
        if_index != 0
            && !config.external_interfaces.contains(&if_index)
            && names.known(exporter.address, if_index).is_none()
    };
    let nameless = exporter
        .interfaces
        .iter()
        .filter(|interface| is_nameless(interface.if_index));
    let indexes: Vec<String> = nameless.map(|interface| interface.if_index.to_string()).collect();
    (!indexes.is_empty()).then(|| Problem {
        what: "interfaces without a name",
        advice: format!(
            "external_interfaces_matching cannot judge {} (index {}): what crosses them is kept and not metered until their names \
             are known, by SNMP or by options data.",
            if indexes.len() == 1 { "an interface" } else { "some interfaces" },
            indexes.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use collector::status::{ExporterStatus, InterfaceStatus};
    use schemas::interfaces::{KnownInterface, KnownInterfaces};
    use tables::flow::Boundary;

    use super::super::view;
    use super::*;

    fn attached(failures: u32) -> ExporterView {
        let address: Address = "192.0.2.1".parse().unwrap();
        let mut known = KnownInterfaces::default();
        let uplink = KnownInterface {
            name: "ae0".to_owned(),
            description: "Transit: Example".to_owned(),
            speed_bps: 100_000_000_000,
            ..KnownInterface::default()
        };
        known.set(address, 0, 513, uplink);
        let metering = MeteringConfig {
            exporters: vec![ExporterConfig {
                meter: MeterMode::Boundary,
                external_interfaces_matching: Some("^transit".parse().unwrap()),
                ..ExporterConfig::unlisted(address)
            }],
            interfaces: Arc::new(known),
            ..MeteringConfig::default()
        };
        let crossed = |if_index| InterfaceStatus {
            if_index,
            in_flows: 1,
            out_flows: 0,
            in_bytes_scaled: 1,
            out_bytes_scaled: 0,
            last_seen_ms: 1,
            boundary: Boundary::Unknown,
        };
        let status = ExporterStatus {
            interfaces: vec![crossed(513), crossed(600)],
            ..ExporterStatus::new(address)
        };
        let snmp = SnmpStatus {
            exporter: address,
            asked: "192.0.2.1:161".to_owned(),
            failures,
            error: if failures > 0 { "timeout" } else { "" }.to_owned(),
            answered_at_ms: 7,
            ..SnmpStatus::default()
        };
        let mut exporters = [view::exporter(&status, metering.exporters.first(), 0, 2)];
        exporters[0].problems.clear();
        attach(&mut exporters, &[snmp], &metering);
        let [exporter] = exporters;
        exporter
    }

    #[test]
    fn interfaces_have_names_and_those_without_are_a_problem() {
        let exporter = attached(0);
        let uplink = &exporter.interfaces[0];
        assert_eq!(
            (uplink.name.as_deref(), uplink.speed_bps),
            (Some("ae0"), 100_000_000_000)
        );
        assert_eq!(
            (exporter.interfaces[1].name.as_deref(), exporter.problems.len()),
            (None, 1)
        );
        assert_eq!(exporter.problems[0].what, "interfaces without a name");
        assert!(
            exporter.problems[0].advice.contains("(index 600)"),
            "{:?}",
            exporter.problems
        );
        let snmp = exporter.snmp.unwrap();
        assert_eq!((snmp.answered_at_ms, snmp.error), (Some(7), None));
    }

    #[test]
    fn a_device_that_does_not_answer_is_a_problem_with_its_reason() {
        let whats = |failures| {
            let problems = attached(failures).problems;
            problems
                .iter()
                .filter(|problem| problem.what == "no SNMP answer")
                .count()
        };
        assert_eq!(
            (whats(0), whats(1), whats(2)),
            (0, 0, 1),
            "one lost datagram is no finding"
        );
        assert!(
            attached(2).problems[0]
                .advice
                .contains("Asked at 192.0.2.1:161 2 times without a good answer: timeout.")
        );
    }
}
