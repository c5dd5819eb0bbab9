//! Metering points: which flows count, and for whom.
//!
//! A packet may be seen at several exporters, and at one exporter on the way in and on the way out. It counts once: at an
//! exporter that meters, in the observation that the exporter's configuration names (ingress unless said otherwise), when
//! it crosses the external boundary. Traffic between two of our own services never crosses it and is not billed.
//!
//! [`Enricher::enrich`] is a function of the flow, the configuration and the assignments alone (U1): applied again to a
//! stored flow it gives the stored columns again, or, after a backdated change, the corrected ones.

mod boundary;
mod past;

use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use schemas::address::Address;
use schemas::assignment::{Assignment, Assignments, Found, Target};
use schemas::metering::{ExporterTable, MeterDirection, MeterMode, MeteringConfig};

use crate::flow::{Boundary, Flow, FlowColumns, Metered, marks, was_discarded};

pub use boundary::{Boundaries, BoundaryOf};
use past::Past;

#[derive(Clone, Copy, Debug)]
struct Meter {
    mode: MeterMode,
    direction: MeterDirection,
    /// The configuration says which observation counts: marks of the decoder do not.
    direction_is_configured: bool,
}

/// How one exporter's flows are judged: its section and its interfaces.
type MeterOf<'a> = (Option<Meter>, BoundaryOf<'a>);

/// What of a flow decides how it is judged.
struct Seen {
    exporter: Address,
    src_addr: Address,
    dst_addr: Address,
    /// The services that held these addresses when the flow ended.
    src_held: Option<u32>,
    dst_held: Option<u32>,
    in_if: u32,
    out_if: u32,
    in_vlan: u16,
    out_vlan: u16,
    direction: u8,
    end_at_ms: i64,
    forwarding_status: u8,
    marks: u16,
}

struct Judged {
    src_service: u32,
    dst_service: u32,
    in_boundary: Boundary,
    out_boundary: Boundary,
    metered: Metered,
}

/// Applies boundaries, metering points and attribution to flows.
#[derive(Debug)]
pub struct Enricher {
    meters: ExporterTable<Meter>,
    boundaries: Boundaries,
    past: Past,
    own: Assignments,
    assignments: Arc<Assignments>,
}

/// Rows whose prefixes, and then their holders, are looked up together: what is not in the core's cache is waited for once.
const FOUND_AT_ONCE: usize = 256;

/// Marks an address of an own network that no service holds.
const OWN_NETWORK: u32 = u32::MAX;

impl Enricher {
    pub fn new(config: &MeteringConfig, assignments: Arc<Assignments>) -> Enricher {
        let meters = ExporterTable::of(config, |exporter| Meter {
            mode: exporter.meter,
            direction: exporter.metered_direction(),
            direction_is_configured: exporter.direction.is_some(),
        });
        let mut nets: Vec<IpNet> = config.own_networks.iter().map(IpNet::trunc).collect();
        nets.sort_unstable();
        nets.dedup();
        let own = Assignments::new(nets.into_iter().map(|net| Assignment {
            service: OWN_NETWORK,
            target: Target::Prefix(net),
            valid_from_ms: i64::MIN,
            valid_to_ms: None,
        }))
        .expect("each own network is listed once");
        Enricher {
            meters,
            boundaries: Boundaries::new(config),
            past: Past::new(&config.corrections),
            own,
            assignments,
        }
    }

    /// Sets the boundary, metering and service columns of `flow` from its other columns.
    pub fn enrich(&self, flow: &mut Flow) {
        let seen = Seen {
            exporter: flow.exporter,
            src_addr: flow.src_addr,
            dst_addr: flow.dst_addr,
            src_held: self.assignments.service_of_address(flow.src_addr, flow.end_at_ms),
            dst_held: self.assignments.service_of_address(flow.dst_addr, flow.end_at_ms),
            in_if: flow.in_if,
            out_if: flow.out_if,
            in_vlan: flow.in_vlan,
            out_vlan: flow.out_vlan,
            direction: flow.direction,
            end_at_ms: flow.end_at_ms,
            forwarding_status: flow.forwarding_status,
            marks: flow.marks,
        };
        let judged = self.judge(&self.meter_of(flow.exporter, flow.exporter_port), &seen);
        flow.src_service = judged.src_service;
        flow.dst_service = judged.dst_service;
        flow.in_boundary = judged.in_boundary;
        flow.out_boundary = judged.out_boundary;
        flow.metered = judged.metered;
    }

    fn meter_of(&self, exporter: Address, port: u16) -> MeterOf<'_> {
        (
            self.meters.get(exporter, port).copied(),
            self.boundaries.of(exporter, port),
        )
    }

    /// The same for many flows by column.
    pub fn enrich_columns(&self, flows: &mut FlowColumns) {
        flows.complete();
        let mut found: Vec<(Found, Found)> = Vec::with_capacity(FOUND_AT_ONCE);
        let mut held: Vec<(Option<u32>, Option<u32>)> = Vec::with_capacity(FOUND_AT_ONCE);
        for first in (0..flows.len()).step_by(FOUND_AT_ONCE) {
            let rows = first..flows.len().min(first + FOUND_AT_ONCE);
            let pairs = flows.src_addr[rows.clone()].iter().zip(&flows.dst_addr[rows.clone()]);
            let find = |address: &[u8; 16]| self.assignments.find(Address(*address));
            found.clear();
            found.extend(pairs.map(|(src, dst)| (find(src), find(dst))));
            let ends = &flows.end_at_ms[rows.clone()];
            held.clear();
            held.extend(found.iter().zip(ends).map(|((src, dst), end_at_ms)| {
                let holder = |found| self.assignments.service_of(found, *end_at_ms);
                (holder(*src), holder(*dst))
            }));
            self.judge_rows(flows, rows, &held);
        }
    }

    fn judge_rows(&self, flows: &mut FlowColumns, rows: Range<usize>, held: &[(Option<u32>, Option<u32>)]) {
        let mut known: Option<(([u8; 16], u16), MeterOf<'_>)> = None;
        for (row, (src_held, dst_held)) in rows.zip(held) {
            // Flows of one datagram follow each other: the exporter is looked up once per run.
            let (exporter, port) = (flows.exporter[row], flows.exporter_port[row]);
            let meter = match known {
                Some((last, meter)) if last == (exporter, port) => meter,
                _ => {
                    let meter = self.meter_of(Address(exporter), port);
                    known = Some(((exporter, port), meter));
                    meter
                }
            };
            let seen = Seen {
                exporter: Address(exporter),
                src_addr: Address(flows.src_addr[row]),
                dst_addr: Address(flows.dst_addr[row]),
                src_held: *src_held,
                dst_held: *dst_held,
                in_if: flows.in_if[row],
                out_if: flows.out_if[row],
                in_vlan: flows.in_vlan[row],
                out_vlan: flows.out_vlan[row],
                direction: flows.direction[row],
                end_at_ms: flows.end_at_ms[row],
                forwarding_status: flows.forwarding_status[row],
                marks: flows.marks[row],
            };
            let judged = self.judge(&meter, &seen);
            flows.src_service[row] = judged.src_service;
            flows.dst_service[row] = judged.dst_service;
            flows.in_boundary[row] = judged.in_boundary as u8;
            flows.out_boundary[row] = judged.out_boundary as u8;
            flows.metered[row] = judged.metered as u8;
        }
    }

    #[inline]
    fn judge(&self, (meter, boundary): &MeterOf<'_>, seen: &Seen) -> Judged {
        let at_ms = seen.end_at_ms;
        let service = |held: Option<u32>, if_index, vlan| {
            held.or_else(|| {
                self.assignments
                    .service_of_interface(seen.exporter, if_index, vlan, at_ms)
            })
            .unwrap_or(0)
        };
        let src_service = service(seen.src_held, seen.in_if, seen.in_vlan);
        let dst_service = service(seen.dst_held, seen.out_if, seen.out_vlan);
        let past = self.past.at(seen.exporter, at_ms);
        let mode = past
            .and_then(|past| past.mode)
            .or(meter.map(|m| m.mode))
            .unwrap_or_default();
        // Which observation counts, and whether somebody said so.
        let observed = match (past.and_then(|past| past.direction), meter) {
            (Some(corrected), _) => match corrected.said() {
                Some(direction) => (direction, true),
                None => (mode.default_direction(), false),
            },
            (None, Some(meter)) => (meter.direction, meter.direction_is_configured),
            (None, None) => (MeterDirection::Both, false),
        };
        let side = |if_index| {
            let corrected = past.and_then(|past| past.boundary(if_index));
            corrected.unwrap_or_else(|| boundary.interface(if_index))
        };
        let (in_boundary, out_boundary) = match mode {
            MeterMode::Addresses => (
                self.side_of(seen.src_addr, src_service),
                self.side_of(seen.dst_addr, dst_service),
            ),
            MeterMode::Boundary | MeterMode::Off => (side(seen.in_if), side(seen.out_if)),
        };
        let metered = match (in_boundary, out_boundary) {
            // What the exporter did not forward reached nobody, even where addresses alone would call it a crossing.
            _ if was_discarded(seen.forwarding_status) => Metered::No,
            _ if mode == MeterMode::Off || !observation_counts(observed, seen.direction, seen.marks) => Metered::No,
            (Boundary::External, Boundary::Internal) => Metered::In,
            (Boundary::Internal, Boundary::External) => Metered::Out,
            _ => Metered::No,
        };
        Judged {
            src_service,
            dst_service,
            in_boundary,
            out_boundary,
            metered,
        }
    }

    fn side_of(&self, address: Address, service: u32) -> Boundary {
        if service != 0 || self.own.service_of_address(address, 0).is_some() {
            Boundary::Internal
        } else {
            Boundary::External
        }
    }
}

/// An exporter that reports one observation per packet leaves the direction out (255) or always says the same; only the
/// observation that is known to be the other one is dropped. Where nothing is said of it, a second observation of packets that
/// were metered at the exporter's other side is one, too; so is one that names no direction, the answer in a biflow's record, unless
/// each is said to count.
fn observation_counts((metered, is_said): (MeterDirection, bool), direction: u8, marked: u16) -> bool {
    let is_second = marked & marks::SECOND_OBSERVATION != 0;
    if is_second && (!is_said || (direction > 1 && metered != MeterDirection::Both)) {
        return false;
    }
    match metered {
        MeterDirection::Both => true,
        MeterDirection::Ingress => direction != 1,
        MeterDirection::Egress => direction != 0,
    }
}

#[cfg(test)]
mod tests {
    use schemas::correction::{CorrectedDirection, Correction, CorrectionSettings};
    use schemas::metering::ExporterConfig;

    use super::*;

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

    fn judged(
        enricher: &Enricher,
        src: &str,
        dst: &str,
        in_if: u32,
        out_if: u32,
        direction: u8,
    ) -> (Metered, u32, u32) {
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
}
