//! Metering points: which flows count, and for whom.
//!
//! A packet may be seen at several exporters, and at one exporter on the way in and on the way out. It counts once: at an
//! exporter that meters, in the observation that the exporter's configuration names (ingress unless said otherwise), when
//! it crosses the external boundary. Traffic between two of our own services never crosses it and is not billed.
//!
//! [`Enricher::enrich`] is a function of the flow, the configuration and the assignments alone (U1). How it judged is kept with the
//! flow ([`marks::JUDGED`]), because the configuration of a stored flow's time is gone: [`Enricher::judge_again`] changes of a
//! stored flow what assignments and corrections say of its time, and never takes the configuration of now for the one of then.

mod boundary;
mod correction_history;

use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use schemas::address::Address;
use schemas::assignment::{Assignment, Assignments, Found, Target};
use schemas::metering::correction::CorrectedDirection;
use schemas::metering::{ExporterTable, MeterDirection, MeterMode, MeteringConfig};

use crate::flow::{Boundary, Flow, FlowColumns, Metered, marks, was_discarded};

pub use boundary::{Boundaries, BoundaryOf};
use correction_history::CorrectionHistory;

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
struct MeteringInput {
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

struct MeteringDecision {
    src_service: u32,
    dst_service: u32,
    in_boundary: Boundary,
    out_boundary: Boundary,
    metered: Metered,
    /// The bits of [`marks::JUDGED`].
    how: u16,
}

/// Applies boundaries, metering points and attribution to flows.
#[derive(Debug)]
pub struct Enricher {
    meters: ExporterTable<Meter>,
    boundaries: Boundaries,
    past: CorrectionHistory,
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
            past: CorrectionHistory::new(&config.corrections),
            own,
            assignments,
        }
    }

    /// Sets the boundary, metering and service columns of `flow` from its other columns.
    pub fn enrich(&self, flow: &mut Flow) {
        let judged = self.judge(&self.meter_of(flow.exporter, flow.exporter_port), &self.seen(flow));
        judged.write(flow);
    }

    /// Judges a stored flow again by what assignments and corrections say of its time; all else stays as it was judged. A flow
    /// that does not say how it was judged is judged by the configuration of now.
    pub fn judge_again(&self, flow: &mut Flow) {
        let Some(mode) = stored_mode(flow.marks) else {
            return self.enrich(flow);
        };
        let seen = self.seen(flow);
        let (_, boundary) = self.meter_of(flow.exporter, flow.exporter_port);
        let (src_service, dst_service) = self.services(&seen);
        let past = self.past.at(seen.exporter, seen.end_at_ms);
        let corrected_mode = past.and_then(|past| past.mode);
        let counts = match past.and_then(|past| past.direction) {
            Some(corrected) => observation_counts(
                observed_by(corrected, corrected_mode.unwrap_or(mode)),
                seen.direction,
                seen.marks,
            ),
            None => !flow.is_marked(marks::OTHER_OBSERVATION),
        };
        let side = |if_index, stored: Boundary| {
            let corrected = past.and_then(|past| past.boundary(if_index));
            corrected.unwrap_or_else(|| match mode {
                MeterMode::Addresses => boundary.interface(if_index),
                MeterMode::Boundary | MeterMode::Off => stored,
            })
        };
        let side_of = |address, (service, stored_service): (u32, u32), stored: Boundary| {
            let is_as_stored = mode == MeterMode::Addresses && (service != 0) == (stored_service != 0);
            if is_as_stored {
                stored
            } else {
                self.side_of(address, service)
            }
        };
        let mode = corrected_mode.unwrap_or(mode);
        let sides = match mode {
            MeterMode::Addresses => (
                side_of(seen.src_addr, (src_service, flow.src_service), flow.in_boundary),
                side_of(seen.dst_addr, (dst_service, flow.dst_service), flow.out_boundary),
            ),
            MeterMode::Boundary | MeterMode::Off => {
                (side(seen.in_if, flow.in_boundary), side(seen.out_if, flow.out_boundary))
            }
        };
        MeteringDecision::new(
            (src_service, dst_service),
            sides,
            (mode, counts),
            seen.forwarding_status,
        )
        .write(flow);
    }

    /// Judges the sides of a stored flow that were unknown, because nothing was known of an interface: by what is known of it
    /// now.
    pub fn judge_unknown_sides(&self, flow: &mut Flow) {
        let is_unknown = |side| side == Boundary::Unknown;
        let mode = match stored_mode(flow.marks) {
            Some(MeterMode::Addresses) => return,
            Some(mode) if is_unknown(flow.in_boundary) || is_unknown(flow.out_boundary) => mode,
            Some(_) => return,
            None => return self.enrich(flow),
        };
        let (_, boundary) = self.meter_of(flow.exporter, flow.exporter_port);
        let side = |if_index, stored| match stored {
            Boundary::Unknown => boundary.interface(if_index),
            stored => stored,
        };
        let sides = (side(flow.in_if, flow.in_boundary), side(flow.out_if, flow.out_boundary));
        let counts = !flow.is_marked(marks::OTHER_OBSERVATION);
        let services = (flow.src_service, flow.dst_service);
        MeteringDecision::new(services, sides, (mode, counts), flow.forwarding_status).write(flow);
    }

    fn seen(&self, flow: &Flow) -> MeteringInput {
        MeteringInput {
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
        }
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
            let seen = MeteringInput {
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
            flows.marks[row] = flows.marks[row] & !marks::JUDGED | judged.how;
        }
    }

    /// The services of source and destination.
    #[inline]
    fn services(&self, seen: &MeteringInput) -> (u32, u32) {
        let service = |held: Option<u32>, if_index, vlan| {
            held.or_else(|| {
                self.assignments
                    .service_of_interface(seen.exporter, if_index, vlan, seen.end_at_ms)
            })
            .unwrap_or(0)
        };
        (
            service(seen.src_held, seen.in_if, seen.in_vlan),
            service(seen.dst_held, seen.out_if, seen.out_vlan),
        )
    }

    #[inline]
    fn judge(&self, (meter, boundary): &MeterOf<'_>, seen: &MeteringInput) -> MeteringDecision {
        let (src_service, dst_service) = self.services(seen);
        let past = self.past.at(seen.exporter, seen.end_at_ms);
        let mode = past
            .and_then(|past| past.mode)
            .or(meter.map(|m| m.mode))
            .unwrap_or_default();
        let observed = match (past.and_then(|past| past.direction), meter) {
            (Some(corrected), _) => observed_by(corrected, mode),
            (None, Some(meter)) => (meter.direction, meter.direction_is_configured),
            (None, None) => (MeterDirection::Both, false),
        };
        let side = |if_index| {
            let corrected = past.and_then(|past| past.boundary(if_index));
            corrected.unwrap_or_else(|| boundary.interface(if_index))
        };
        let sides = match mode {
            MeterMode::Addresses => (
                self.side_of(seen.src_addr, src_service),
                self.side_of(seen.dst_addr, dst_service),
            ),
            MeterMode::Boundary | MeterMode::Off => (side(seen.in_if), side(seen.out_if)),
        };
        let counts = observation_counts(observed, seen.direction, seen.marks);
        MeteringDecision::new(
            (src_service, dst_service),
            sides,
            (mode, counts),
            seen.forwarding_status,
        )
    }

    fn side_of(&self, address: Address, service: u32) -> Boundary {
        if service != 0 || self.own.service_of_address(address, 0).is_some() {
            Boundary::Internal
        } else {
            Boundary::External
        }
    }
}

impl MeteringDecision {
    /// `counts`: the observation of this record is the metered one.
    #[inline]
    fn new(
        (src_service, dst_service): (u32, u32),
        (in_boundary, out_boundary): (Boundary, Boundary),
        (mode, counts): (MeterMode, bool),
        forwarding_status: u8,
    ) -> MeteringDecision {
        let metered = match (in_boundary, out_boundary) {
            // What the exporter did not forward reached nobody, even where addresses alone would call it a crossing.
            _ if was_discarded(forwarding_status) => Metered::No,
            _ if mode == MeterMode::Off || !counts => Metered::No,
            (Boundary::External, Boundary::Internal) => Metered::In,
            (Boundary::Internal, Boundary::External) => Metered::Out,
            _ => Metered::No,
        };
        let of_mode = match mode {
            MeterMode::Addresses => marks::METER_ADDRESSES,
            MeterMode::Boundary => marks::METER_BOUNDARY,
            MeterMode::Off => marks::METER_OFF,
        };
        MeteringDecision {
            src_service,
            dst_service,
            in_boundary,
            out_boundary,
            metered,
            how: of_mode | if counts { 0 } else { marks::OTHER_OBSERVATION },
        }
    }

    fn write(&self, flow: &mut Flow) {
        flow.src_service = self.src_service;
        flow.dst_service = self.dst_service;
        flow.in_boundary = self.in_boundary;
        flow.out_boundary = self.out_boundary;
        flow.metered = self.metered;
        flow.marks = flow.marks & !marks::JUDGED | self.how;
    }
}

/// How the exporter metered when a flow was judged, as its marks say.
fn stored_mode(marked: u16) -> Option<MeterMode> {
    match marked & (marks::METER_ADDRESSES | marks::METER_BOUNDARY | marks::METER_OFF) {
        marks::METER_ADDRESSES => Some(MeterMode::Addresses),
        marks::METER_BOUNDARY => Some(MeterMode::Boundary),
        marks::METER_OFF => Some(MeterMode::Off),
        _ => None,
    }
}

/// Which observation a correction says to count, and whether it says so.
fn observed_by(corrected: CorrectedDirection, mode: MeterMode) -> (MeterDirection, bool) {
    match corrected.said() {
        Some(direction) => (direction, true),
        None => (mode.default_direction(), false),
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
mod tests;
