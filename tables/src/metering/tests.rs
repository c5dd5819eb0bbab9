//! Judging flows, once and again.

use schemas::metering::ExporterConfig;
use schemas::metering::correction::{Correction, CorrectionSettings};

use super::*;
use crate::flow::FORWARDING_DROPPED;

fn enricher(mode: MeterMode, direction: Option<MeterDirection>) -> Enricher {
    let exporter = ExporterConfig {
        meter: mode,
        direction,
        external_interfaces: vec![1],
        ..ExporterConfig::unlisted("198.51.100.1".parse().unwrap())
    };
    let config = MeteringConfig {
        own_networks: vec!["203.0.113.0/24".parse().unwrap()],
        exporters: vec![exporter],
        ..MeteringConfig::default()
    };
    let target = Target::Prefix("192.0.2.0/24".parse().unwrap());
    let assignments = Assignments::new([Assignment {
        service: 7,
        target,
        valid_from_ms: 0,
        valid_to_ms: None,
    }])
    .unwrap();
    Enricher::new(&config, Arc::new(assignments))
}

#[test]
fn a_corrected_direction_can_be_taken_back() {
    let exporter: Address = "198.51.100.1".parse().unwrap();
    let metered = |said: &[CorrectedDirection]| {
        let corrections = said.iter().map(|direction| Correction {
            exporter,
            from_ms: 0,
            to_ms: 1_000,
            settings: CorrectionSettings {
                direction: Some(*direction),
                ..CorrectionSettings::default()
            },
        });
        let config = MeteringConfig {
            own_networks: vec!["203.0.113.0/24".parse().unwrap()],
            corrections: corrections.collect(),
            ..MeteringConfig::default()
        };
        let mut flow = Flow {
            exporter,
            src_addr: "8.8.8.8".parse().unwrap(),
            dst_addr: "203.0.113.1".parse().unwrap(),
            end_at_ms: 500,
            direction: 1,
            marks: marks::SECOND_OBSERVATION,
            ..Flow::default()
        };
        Enricher::new(&config, Arc::new(Assignments::default())).enrich(&mut flow);
        flow.metered
    };
    assert_eq!(metered(&[]), Metered::No);
    assert_eq!(metered(&[CorrectedDirection::Both]), Metered::In);
    assert_eq!(
        metered(&[CorrectedDirection::Both, CorrectedDirection::Auto]),
        Metered::No
    );
}

#[test]
fn a_second_observation_counts_only_where_the_configuration_says_which_one_does() {
    let of = |direction, observed, marks| {
        let mut flow = Flow {
            exporter: "198.51.100.1".parse().unwrap(),
            src_addr: "8.8.8.8".parse().unwrap(),
            dst_addr: "192.0.2.1".parse().unwrap(),
            direction: observed,
            marks,
            ..Flow::default()
        };
        let enricher = enricher(MeterMode::Addresses, direction);
        enricher.enrich(&mut flow);
        let mut columns: FlowColumns = std::iter::once(flow).collect();
        enricher.enrich_columns(&mut columns);
        assert_eq!(columns.row(0), flow);
        flow.metered
    };
    assert_eq!(of(None, 0, 0), Metered::In);
    assert_eq!(of(None, 1, 0), Metered::In, "an answer that is called egress");
    assert_eq!(of(None, 1, marks::SECOND_OBSERVATION), Metered::No);
    for (direction, metered) in [
        (MeterDirection::Ingress, Metered::No),
        (MeterDirection::Egress, Metered::In),
        (MeterDirection::Both, Metered::In),
    ] {
        assert_eq!(
            of(Some(direction), 1, marks::SECOND_OBSERVATION),
            metered,
            "{direction:?}"
        );
    }
    // The answer in a biflow's record names no direction: that of the second observation counts only where each does.
    let of_answer = marks::SECOND_OBSERVATION | marks::ANSWER;
    assert_eq!(of(None, 255, of_answer), Metered::No);
    assert_eq!(of(None, 255, marks::ANSWER), Metered::In);
    for (direction, metered) in [
        (MeterDirection::Ingress, Metered::No),
        (MeterDirection::Egress, Metered::No),
        (MeterDirection::Both, Metered::In),
    ] {
        assert_eq!(of(Some(direction), 255, of_answer), metered, "{direction:?}");
        assert_eq!(of(Some(direction), 255, marks::ANSWER), Metered::In, "{direction:?}");
    }
}

fn judged(enricher: &Enricher, src: &str, dst: &str, in_if: u32, out_if: u32, direction: u8) -> (Metered, u32, u32) {
    let mut flow = Flow {
        exporter: "198.51.100.1".parse().unwrap(),
        src_addr: src.parse().unwrap(),
        dst_addr: dst.parse().unwrap(),
        in_if,
        out_if,
        direction,
        ..Flow::default()
    };
    enricher.enrich(&mut flow);
    (flow.metered, flow.src_service, flow.dst_service)
}

#[test]
fn a_boundary_crossing_counts_once_and_by_direction() {
    let e = enricher(MeterMode::Boundary, None);
    assert_eq!(judged(&e, "8.8.8.8", "192.0.2.1", 1, 2, 255), (Metered::In, 0, 7));
    assert_eq!(judged(&e, "192.0.2.1", "8.8.8.8", 2, 1, 0), (Metered::Out, 7, 0));
    assert_eq!(
        judged(&e, "192.0.2.1", "8.8.8.8", 2, 1, 1).0,
        Metered::No,
        "the egress observation is the second one"
    );
    assert_eq!(judged(&e, "192.0.2.1", "192.0.2.2", 2, 3, 0).0, Metered::No, "internal");
    assert_eq!(judged(&e, "8.8.8.8", "9.9.9.9", 1, 1, 0).0, Metered::No, "transit");
    assert_eq!(
        judged(&e, "8.8.8.8", "192.0.2.1", 1, 0, 0).0,
        Metered::No,
        "discarded: no output interface"
    );
    let e = enricher(MeterMode::Boundary, Some(MeterDirection::Egress));
    assert_eq!(judged(&e, "192.0.2.1", "8.8.8.8", 2, 1, 1).0, Metered::Out);
    assert_eq!(judged(&e, "192.0.2.1", "8.8.8.8", 2, 1, 0).0, Metered::No);
}

#[test]
fn by_addresses_our_side_is_what_is_assigned_or_own() {
    let e = enricher(MeterMode::Addresses, None);
    assert_eq!(judged(&e, "8.8.8.8", "192.0.2.1", 0, 0, 255), (Metered::In, 0, 7));
    assert_eq!(
        judged(&e, "203.0.113.9", "8.8.8.8", 0, 0, 255),
        (Metered::Out, 0, 0),
        "own but unattributed"
    );
    assert_eq!(
        judged(&e, "203.0.113.9", "192.0.2.1", 0, 0, 255).0,
        Metered::No,
        "both ours"
    );
    // softflowd's IPFIX calls the answering half of each conversation egress: it is no second observation.
    assert_eq!(judged(&e, "192.0.2.1", "8.8.8.8", 0, 0, 1).0, Metered::Out);
    let ingress = enricher(MeterMode::Addresses, Some(MeterDirection::Ingress));
    assert_eq!(judged(&ingress, "192.0.2.1", "8.8.8.8", 0, 0, 1).0, Metered::No);
}

#[test]
fn a_discarded_flow_is_attributed_and_not_metered_in_any_mode() {
    for (mode, out_if) in [(MeterMode::Boundary, 2), (MeterMode::Addresses, 0)] {
        let mut flow = Flow {
            exporter: "198.51.100.1".parse().unwrap(),
            src_addr: "8.8.8.8".parse().unwrap(),
            dst_addr: "192.0.2.1".parse().unwrap(),
            in_if: 1,
            out_if,
            ..Flow::default()
        };
        enricher(mode, None).enrich(&mut flow);
        assert_eq!(flow.metered, Metered::In, "{mode:?}");
        for (forwarding_status, metered) in [
            (128, Metered::No),
            (0xbf, Metered::No),
            (64, Metered::In),
            (192, Metered::In),
        ] {
            flow.forwarding_status = forwarding_status;
            enricher(mode, None).enrich(&mut flow);
            assert_eq!(
                (flow.metered, flow.dst_service),
                (metered, 7),
                "{mode:?} {forwarding_status}"
            );
        }
    }
}

#[test]
fn a_packet_sampled_on_its_way_in_and_on_its_way_out_counts_once() {
    // A switch reports it twice: as seen at the input interface, and as seen at the output interface.
    let twice = |direction| {
        let e = enricher(MeterMode::Boundary, direction);
        let count = |observed| u32::from(judged(&e, "8.8.8.8", "192.0.2.1", 1, 2, observed).0 == Metered::In);
        count(0) + count(1)
    };
    assert_eq!((twice(None), twice(Some(MeterDirection::Ingress))), (1, 1));
    assert_eq!(twice(Some(MeterDirection::Egress)), 1);
    assert_eq!(
        twice(Some(MeterDirection::Both)),
        2,
        "only where the configuration asks for it"
    );
}

#[test]
fn an_exporter_that_does_not_meter_still_attributes() {
    let e = enricher(MeterMode::Off, None);
    assert_eq!(judged(&e, "8.8.8.8", "192.0.2.1", 1, 2, 0), (Metered::No, 0, 7));
}

/// Everything that decides how a flow is judged, in each combination.
fn flows() -> Vec<Flow> {
    let addresses = ["192.0.2.1", "192.0.2.2", "203.0.113.1", "8.8.8.8"].map(|address| address.parse().unwrap());
    let mut flows = Vec::new();
    for (src_addr, dst_addr) in addresses.iter().flat_map(|src| addresses.map(|dst| (*src, dst))) {
        for (in_if, out_if) in [(1, 2), (2, 1), (2, 3), (0, 2)] {
            for direction in [0, 1, 255] {
                for of_record in [0, marks::SECOND_OBSERVATION, marks::SECOND_OBSERVATION | marks::ANSWER] {
                    flows.push(Flow {
                        exporter: "198.51.100.1".parse().unwrap(),
                        src_addr,
                        dst_addr,
                        in_if,
                        out_if,
                        direction,
                        marks: of_record,
                        end_at_ms: 500,
                        forwarding_status: if in_if == 0 { FORWARDING_DROPPED } else { 0 },
                        ..Flow::default()
                    });
                }
            }
        }
    }
    flows
}

/// A configuration of the exporter.
type Section = (MeterMode, Option<MeterDirection>, u32);

fn configured(told: Section, corrections: &[CorrectionSettings], held: &[(u32, &str)]) -> Enricher {
    let (mode, direction, external) = told;
    let exporter: Address = "198.51.100.1".parse().unwrap();
    let corrections = corrections.iter().map(|settings| Correction {
        exporter,
        from_ms: 0,
        to_ms: 1_000,
        settings: settings.clone(),
    });
    let config = MeteringConfig {
        own_networks: vec!["203.0.113.0/24".parse().unwrap()],
        exporters: vec![ExporterConfig {
            meter: mode,
            direction,
            external_interfaces: vec![external],
            ..ExporterConfig::unlisted(exporter)
        }],
        corrections: corrections.collect(),
        ..MeteringConfig::default()
    };
    let held = held.iter().map(|(service, net)| Assignment {
        service: *service,
        target: Target::Prefix(net.parse().unwrap()),
        valid_from_ms: 0,
        valid_to_ms: None,
    });
    Enricher::new(&config, Arc::new(Assignments::new(held).unwrap()))
}

/// U1: a backdated assignment or correction gives a stored flow what it would have had, had that been said in its time; the
/// configuration of now has no part in it.
#[test]
fn a_flow_that_is_judged_again_keeps_the_configuration_of_its_time() {
    let told: Vec<Section> = [MeterMode::Addresses, MeterMode::Boundary, MeterMode::Off]
        .into_iter()
        .flat_map(|mode| {
            let direction = [None, Some(MeterDirection::Egress), Some(MeterDirection::Both)];
            direction
                .into_iter()
                .flat_map(move |direction| [1, 2].map(|external| (mode, direction, external)))
        })
        .collect();
    let held: [&[(u32, &str)]; 3] = [&[], &[(7, "192.0.2.1/32")], &[(8, "192.0.2.0/24")]];
    let said: [&[CorrectionSettings]; 4] = [
        &[],
        &[CorrectionSettings {
            direction: Some(CorrectedDirection::Both),
            ..CorrectionSettings::default()
        }],
        &[CorrectionSettings {
            external_interfaces: Some([3].into()),
            ..CorrectionSettings::default()
        }],
        &[CorrectionSettings {
            meter: Some(MeterMode::Addresses),
            ..CorrectionSettings::default()
        }],
    ];
    for then in &told {
        for before in held {
            let first = configured(*then, &[], before);
            let stored: Vec<Flow> = flows()
                .into_iter()
                .map(|mut flow| {
                    first.enrich(&mut flow);
                    flow
                })
                .collect();
            for (corrections, after) in said.iter().flat_map(|said| held.map(|after| (*said, after))) {
                let wanted = configured(*then, corrections, after);
                for now in &told {
                    let again = configured(*now, corrections, after);
                    for flow in &stored {
                        let (mut judged, mut expected) = (*flow, *flow);
                        again.judge_again(&mut judged);
                        wanted.enrich(&mut expected);
                        assert_eq!(judged, expected, "{flow:?} of {then:?}, judged again under {now:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_does_not_say_how_it_was_judged_is_judged_by_the_configuration_of_now() {
    let now = configured((MeterMode::Boundary, None, 1), &[], &[(7, "192.0.2.0/24")]);
    for flow in flows() {
        let (mut judged, mut expected) = (flow, flow);
        now.judge_again(&mut judged);
        now.enrich(&mut expected);
        assert_eq!(judged, expected);
        assert_ne!(judged.marks & marks::JUDGED, 0, "it says so from now on");
    }
}

#[test]
fn a_name_that_comes_late_judges_the_unknown_side_alone() {
    let stored = Flow {
        exporter: "198.51.100.1".parse().unwrap(),
        src_addr: "8.8.8.8".parse().unwrap(),
        dst_addr: "192.0.2.1".parse().unwrap(),
        in_if: 1,
        out_if: 2,
        out_boundary: Boundary::Internal,
        dst_service: 5,
        marks: marks::METER_BOUNDARY | marks::NO_ROUTE,
        ..Flow::default()
    };
    let now = configured((MeterMode::Boundary, None, 1), &[], &[(7, "192.0.2.0/24")]);
    let judged = |flow: Flow| {
        let mut judged = flow;
        now.judge_unknown_sides(&mut judged);
        judged
    };
    let expected = Flow {
        in_boundary: Boundary::External,
        metered: Metered::In,
        ..stored
    };
    assert_eq!(judged(stored), expected, "the service stays whose it was");
    for marked in [marks::METER_ADDRESSES, marks::METER_BOUNDARY] {
        let known = Flow {
            in_boundary: Boundary::Internal,
            marks: marked,
            ..stored
        };
        assert_eq!(judged(known), known, "nothing was unknown");
    }
    for marked in [marks::METER_OFF, marks::METER_BOUNDARY | marks::OTHER_OBSERVATION] {
        let uncounted = Flow {
            marks: marked,
            ..stored
        };
        assert_eq!(judged(uncounted).metered, Metered::No);
    }
}
