use std::collections::{BTreeMap, BTreeSet, HashMap};

use collector::decode::DomainView;
use collector::sampling::SamplingSource;
use collector::status::{CollectorStatus, ExporterStatus, InterfaceStatus};
use schemas::metering::{ExporterConfig, MeterMode, MeteringConfig};
use tables::flow::Boundary;

use super::*;

const NOW_MS: i64 = 1_795_348_800_000;

fn heard(address: &str, ago_ms: i64) -> ExporterStatus {
    ExporterStatus {
        last_heard_ms: NOW_MS - ago_ms,
        first_heard_ms: NOW_MS - 86_400_000,
        datagrams: 999,
        flows: 9_990,
        protocol_versions: BTreeSet::from([10]),
        sampling_rate: 1000,
        ..ExporterStatus::new(address.parse().unwrap())
    }
}

fn status(exporters: Vec<ExporterStatus>) -> CollectorStatus {
    CollectorStatus {
        written_at_ms: NOW_MS - 5_000,
        exporters,
        ..CollectorStatus::default()
    }
}

fn configured(address: &str, name: &str) -> ExporterConfig {
    ExporterConfig {
        name: Some(name.to_owned()),
        ..ExporterConfig::unlisted(address.parse().unwrap())
    }
}

fn metering(exporters: Vec<ExporterConfig>) -> MeteringConfig {
    MeteringConfig {
        exporters,
        ..MeteringConfig::default()
    }
}

fn whats(view: &ExporterView) -> Vec<&'static str> {
    view.problems.iter().map(|problem| problem.what).collect()
}

#[test]
fn a_source_that_is_not_allowed_is_listed_as_refused_until_it_is() {
    let mut exporter = ExporterStatus {
        last_heard_ms: NOW_MS - 10_000,
        refused_at_ms: NOW_MS - 10_000,
        ..ExporterStatus::new("198.51.100.9".parse().unwrap())
    };
    let judged = |exporter: &ExporterStatus| {
        let status = status(vec![exporter.clone()]);
        let view = judge(Some(status), &metering(Vec::new()), &HashMap::new(), NOW_MS);
        view.exporters[0].clone()
    };
    let view = judged(&exporter);
    assert_eq!(whats(&view), ["refused"]);
    assert!(view.problems[0].advice.contains("198.51.100.9"));
    exporter.last_heard_ms = NOW_MS - 1_000;
    assert_eq!(whats(&judged(&exporter)), ["not configured"], "it was read since");
}

#[test]
fn hearing_is_judged_by_the_time_since_the_last_datagram() {
    let all = status(vec![
        heard("192.0.2.1", 119_000),
        heard("192.0.2.2", 120_000),
        heard("192.0.2.3", 900_000),
    ]);
    let config = metering(vec![
        configured("192.0.2.1", "a"),
        configured("192.0.2.2", "b"),
        configured("192.0.2.3", "c"),
        configured("192.0.2.4", "d"),
    ]);
    let view = judge(Some(all), &config, &HashMap::new(), NOW_MS);
    assert_eq!(
        (view.presence.heard, view.presence.late, view.presence.silent),
        (1, 1, 2)
    );
    let problems: BTreeMap<&str, Vec<&str>> = view.exporters.iter().map(|e| (e.name.as_str(), whats(e))).collect();
    assert_eq!(problems["a"], [""; 0]);
    assert_eq!(problems["b"], ["late"]);
    assert_eq!(problems["c"], ["silent"]);
    assert_eq!(problems["d"], ["never heard"]);
    assert_eq!(
        view.missing_configuration, None,
        "what was never heard has its block already"
    );
    assert!(!view.collector_silent);
    assert_eq!(view.exporters[3].name, "a", "those that need somebody come first");
}

#[test]
fn an_unknown_rate_is_a_problem_of_the_last_hour_only() {
    let mut exporter = heard("192.0.2.1", 1_000);
    exporter.flows_without_rate = 500;
    let config = metering(vec![configured("192.0.2.1", "mx1")]);
    let address = exporter.address;
    let judged = |recent: u64| {
        let recent = HashMap::from([(address, recent)]);
        judge(Some(status(vec![exporter.clone()])), &config, &recent, NOW_MS)
    };
    let now = judged(12);
    assert_eq!(whats(&now.exporters[0]), ["unknown sampling rate"]);
    assert!(now.exporters[0].problems[0].advice.starts_with("12 flows"));
    assert!(now.missing_configuration.unwrap().replaces);
    let ambiguous = {
        let mut exporter = exporter.clone();
        exporter.domains = vec![DomainView {
            sampling_source: SamplingSource::Ambiguous.words().to_owned(),
            ..DomainView::default()
        }];
        let recent = HashMap::from([(address, 12)]);
        judge(Some(status(vec![exporter])), &config, &recent, NOW_MS)
    };
    let advice = &ambiguous.exporters[0].problems[0].advice;
    assert!(
        advice.contains("ambiguous") && advice.contains("Set sampling_rate"),
        "{advice}"
    );
    let since_repaired = judged(0);
    assert_eq!(whats(&since_repaired.exporters[0]), [""; 0]);
    assert_eq!(since_repaired.exporters[0].sampling.flows_without_rate, 500);
    assert_eq!(since_repaired.missing_configuration, None);
}

#[test]
fn the_source_of_the_rate_is_the_override_then_the_domains() {
    let mut exporter = heard("192.0.2.1", 1_000);
    let sampling_of = |exporter: &ExporterStatus, config: &ExporterConfig| {
        let view = view::exporter(exporter, Some(config), 0, NOW_MS);
        (view.sampling.rate, view.sampling.source)
    };
    let plain = configured("192.0.2.1", "mx1");
    assert_eq!(
        sampling_of(&exporter, &plain),
        (Some(1000), "as of its last flows".to_owned())
    );
    let domain = |observation_domain, rate| DomainView {
        observation_domain,
        protocol_version: 10,
        sampling_rate: Some(rate),
        sampling_source: "options of the exporter".to_owned(),
        ..DomainView::default()
    };
    exporter.domains = vec![domain(1, 500), domain(2, 500)];
    assert_eq!(
        sampling_of(&exporter, &plain),
        (Some(500), "options of the exporter".to_owned())
    );
    exporter.domains = vec![domain(1, 500), domain(2, 100)];
    assert_eq!(sampling_of(&exporter, &plain).0, Some(1000));
    let overridden = ExporterConfig {
        sampling_rate: Some(64),
        ..plain
    };
    assert_eq!(
        sampling_of(&exporter, &overridden),
        (Some(64), "configured override".to_owned())
    );
}

#[test]
fn sessions_clocks_agents_and_rates_that_need_somebody_are_problems() {
    let config = configured("192.0.2.1", "mx1");
    let problems = |domains: Vec<DomainView>| {
        let exporter = ExporterStatus {
            domains,
            ..heard("192.0.2.1", 1_000)
        };
        let view = view::exporter(&exporter, Some(&config), 0, NOW_MS);
        let advice: Vec<String> = view.problems.iter().map(|problem| problem.advice.clone()).collect();
        (
            whats(&view).iter().map(|what| (*what).to_owned()).collect::<Vec<_>>(),
            advice.concat(),
        )
    };
    let sound = DomainView {
        protocol_version: 9,
        port: 40_001,
        templates: 4,
        clock_offset_ms: Some(-900),
        ..DomainView::default()
    };
    assert_eq!(problems(vec![sound.clone()]).0, [""; 0]);
    let slow = DomainView {
        clock_offset_ms: Some(-45 * 60_000),
        ..sound.clone()
    };
    let (whats, advice) = problems(vec![slow]);
    assert_eq!(whats, ["clock is off"]);
    assert!(advice.contains("45 min behind"), "{advice}");
    let waiting = DomainView {
        port: 40_002,
        templates: 0,
        pending_sets: 3,
        ..sound.clone()
    };
    let (whats, advice) = problems(vec![sound.clone(), waiting]);
    assert_eq!(whats, ["templates from another port"]);
    assert!(advice.contains("UDP port 40002") && advice.contains("sessions = \"address\""));
    let claimed = DomainView {
        agent: Some("192.168.1.1".parse().unwrap()),
        ..DomainView::default()
    };
    assert_eq!(problems(vec![claimed]).0, ["agent address in use"]);
    let swapped = DomainView {
        sampling_rate: Some(3_909_288_960),
        sampling_divisor: 16_777_216,
        sampling_implausible: true,
        ..sound
    };
    let (whats, advice) = problems(vec![swapped]);
    assert_eq!(whats, ["implausible sampling rate"]);
    assert!(advice.contains("3909288960/16777216"), "{advice}");
}

#[test]
fn losses_are_a_share_of_what_was_sent() {
    let lost = |versions: &[u8], sequence_lost| {
        let exporter = ExporterStatus {
            protocol_versions: versions.iter().copied().collect(),
            sequence_lost,
            ..heard("192.0.2.1", 0)
        };
        view::exporter(&exporter, None, 0, NOW_MS).lost_percent
    };
    assert_eq!(lost(&[10], 10), Some(0.1), "IPFIX numbers records: 10 of 10,000");
    assert_eq!(lost(&[9], 1), Some(0.1), "v9 numbers datagrams: 1 of 1,000");
    assert_eq!(lost(&[9, 10], 1), None, "they cannot be added");
}

#[test]
fn boundary_metering_without_an_external_interface_is_told_with_a_snippet() {
    let mut exporter = heard("192.0.2.1", 0);
    let interface = |if_index, in_flows| InterfaceStatus {
        if_index,
        in_flows,
        out_flows: 0,
        in_bytes_scaled: 0,
        out_bytes_scaled: 0,
        last_seen_ms: NOW_MS,
        boundary: Boundary::Internal,
    };
    exporter.interfaces = vec![interface(1, 5), interface(513, 50)];
    let config = ExporterConfig {
        meter: MeterMode::Boundary,
        ..configured("192.0.2.1", "mx1")
    };
    let view = judge(
        Some(status(vec![exporter])),
        &metering(vec![config]),
        &HashMap::new(),
        NOW_MS,
    );
    assert_eq!(whats(&view.exporters[0]), ["nothing metered"]);
    let toml = view.missing_configuration.unwrap().toml;
    assert!(toml.contains("external_interfaces = [513, 1]"), "{toml}");
}

#[test]
fn an_exporter_of_whose_flows_none_counts_is_told_after_an_hour() {
    let judged = |meter, for_ms| {
        let exporter = ExporterStatus {
            unmetered_since_ms: NOW_MS - for_ms,
            ..heard("192.0.2.1", 0)
        };
        let config = ExporterConfig {
            meter,
            external_interfaces: vec![1],
            ..configured("192.0.2.1", "uplink")
        };
        let judged = judge(
            Some(status(vec![exporter])),
            &metering(vec![config]),
            &HashMap::new(),
            NOW_MS,
        );
        judged.exporters[0].clone()
    };
    for (meter, advice) in [
        (MeterMode::Boundary, "meter = \"addresses\""),
        (MeterMode::Addresses, "assign prefixes to services"),
    ] {
        let view = judged(meter, 3_600_000);
        assert_eq!(view.unmetered_since_ms, Some(NOW_MS - 3_600_000));
        assert_eq!(whats(&view), ["nothing metered"]);
        assert!(view.problems[0].advice.contains(advice), "{:?}", view.problems);
        assert_eq!(whats(&judged(meter, 3_599_999)), [""; 0]);
    }
    assert_eq!(whats(&judged(MeterMode::Off, 3_600_000)), [""; 0], "it is not to meter");
}

#[test]
fn a_collector_that_stopped_is_told() {
    let mut old = status(vec![]);
    old.written_at_ms = NOW_MS - STATUS_MAX_AGE_MS - 1;
    assert!(judge(Some(old), &MeteringConfig::default(), &HashMap::new(), NOW_MS).collector_silent);
    let never = judge(None, &MeteringConfig::default(), &HashMap::new(), NOW_MS);
    assert_eq!(never.status_at_ms, None);
    assert!(!never.collector_silent && never.exporters.is_empty());
}
