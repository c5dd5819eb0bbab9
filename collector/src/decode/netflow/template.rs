//! Templates, and the copy plan that each is compiled to.
//!
//! A plan is a list of (field, offset, length, target). Decoding a record of fixed length is then one pass over that list;
//! nothing is allocated, and fields that no column keeps cost nothing. A template with variable-length fields has its
//! offsets measured for each record first (RFC 7011 §7).

use schemas::address::Address;
use serde::{Deserialize, Serialize};
use tables::flow::{DIRECTION_UNKNOWN, Flow};

use super::biflow::REVERSE_ENTERPRISE;
use super::elements::{
    Choice, LAYER2_BYTES, Target, VENDOR_BYTES, beside_target_of, options_target_of, reverse_target_of,
    scope_target_of, target_of, time_kind_of,
};
use super::exception::CommonProperties;
use super::names::InterfaceNames;
use super::section::PacketSection;
use super::spec::{FieldSpec, TemplateKind, TemplateSpec, VARIABLE_LENGTH};
use super::totals::CounterLengths;
use super::wire::{be16, unsigned};
use crate::sampling::{SamplingElements, Selector};
use crate::times::TimeKind;

/// A known template: its description, its plan, and when it was last defined.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "StoredTemplate", into = "StoredTemplate")]
pub(super) struct Template {
    pub(super) spec: TemplateSpec,
    pub(super) last_seen_ms: i64,
    pub(super) plan: Plan,
}

#[derive(Serialize, Deserialize)]
struct StoredTemplate {
    spec: TemplateSpec,
    last_seen_ms: i64,
}

/// A checkpoint holds a template that no decoder would have kept.
#[derive(Debug, thiserror::Error)]
#[error("a stored template has no bytes or more than fit in a set")]
struct UnusableTemplate;

impl From<Template> for StoredTemplate {
    fn from(template: Template) -> StoredTemplate {
        StoredTemplate {
            spec: template.spec,
            last_seen_ms: template.last_seen_ms,
        }
    }
}

impl TryFrom<StoredTemplate> for Template {
    type Error = UnusableTemplate;

    fn try_from(stored: StoredTemplate) -> Result<Template, UnusableTemplate> {
        let plan = Plan::compile(&stored.spec).ok_or(UnusableTemplate)?;
        Ok(Template {
            spec: stored.spec,
            last_seen_ms: stored.last_seen_ms,
            plan,
        })
    }
}

/// One copy of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CopyField {
    pub(super) target: Target,
    /// Position in the template.
    pub(super) field: u16,
    /// Where the template has fixed lengths.
    pub(super) offset: u16,
    pub(super) length: u16,
    /// Another field fills the same target: a zero must not overwrite it.
    pub(super) keep_if_zero: bool,
}

/// A compiled template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// By target: those that speak of the exporter come last.
    pub(super) copies: Vec<CopyField>,
    /// Length of every field, only where at least one is variable.
    variable: Vec<u16>,
    /// Bytes of a record; of the shortest one where lengths vary.
    pub(super) record_min_bytes: usize,
    pub(super) start: Option<TimeKind>,
    pub(super) end: Option<TimeKind>,
    /// Has a byte count: without one, records are not flows.
    pub(super) counts_bytes: bool,
    pub(super) has_icmp: bool,
    /// Has bytes and packets of the same packets: one can be checked against the other.
    pub(super) compares_sizes: bool,
    /// Records say something of their own sampling.
    pub(super) tells_sampling: bool,
    /// Sets can be read column by column ([`super::columnar`]), where all records say the same of their exporter.
    pub(super) by_column: bool,
    /// The VLAN of one side is that of the other, too.
    pub(super) has_one_vlan: bool,
    /// Has a next hop and an output interface: both zero say something where it is configured.
    pub(super) tells_path: bool,
    /// Its bytes are of layer 2.
    pub(super) counts_layer2: bool,
    /// Says where packets were observed.
    pub(super) tells_direction: bool,
    /// Bytes are running totals.
    pub(super) counts_totals: bool,
    pub(super) counter_lengths: CounterLengths,
    /// Events of a firewall's connections.
    pub(super) tells_event: bool,
    /// Has IE 23 beside IE 1: the answer's bytes where that is configured.
    pub(super) counts_out: bool,
    /// Begins as Junos' templates do.
    pub(super) is_junos: bool,
    pub(super) common_properties: CommonProperties,
    /// Carries the head of a packet.
    pub(super) section: Option<PacketSection>,
    /// Names interfaces.
    pub(super) names: Option<InterfaceNames>,
}

/// What a record says beside the columns of [`Flow`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct ExtraFields {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) duration_ms: Option<u64>,
    /// IE 366.
    pub(super) station: Address,
    pub(super) icmp_type: u8,
    pub(super) icmp_code: u8,
    pub(super) sampling: SamplingElements,
    pub(super) sampler: u64,
    pub(super) scope_interface: u64,
    /// Of options data that names none: any.
    pub(super) scope_direction: u8,
    pub(super) scope_template: u64,
    /// Of options data that names one: 0 = the whole exporter.
    pub(super) scope_domain: Option<u32>,
    /// Of the values of what is not understood; 0 where there is nothing of the kind.
    pub(super) scope_other: u64,
    pub(super) scope_name: u64,
    pub(super) boot_ms: u64,
    /// The record was a sampled packet.
    pub(super) is_packet: bool,
    pub(super) answer_bytes: u64,
    pub(super) answer_packets: u64,
    pub(super) answer_tcp_flags: u8,
    pub(super) answer_tos: Option<u8>,
    pub(super) out_bytes: u64,
    pub(super) out_packets: u64,
    pub(super) event: Option<u8>,
    pub(super) flow_id: u64,
    pub(super) observation_point: u64,
    pub(super) active_timeout_s: Option<u32>,
}

/// How every template of Junos' flow monitoring begins: addresses, traffic class, protocol, ports, ICMP, input interface.
const JUNOS_FIELDS: [&[u16]; 8] = [&[8, 27], &[12, 28], &[5], &[4], &[7], &[11], &[32, 139], &[10]];

fn is_junos(spec: &TemplateSpec) -> bool {
    let begins_so =
        |(field, elements): (&FieldSpec, &&[u16])| field.enterprise == 0 && elements.contains(&field.element);
    spec.fields.len() > JUNOS_FIELDS.len() && spec.fields.iter().zip(&JUNOS_FIELDS).all(begins_so)
}

impl Default for ExtraFields {
    fn default() -> ExtraFields {
        ExtraFields {
            start: 0,
            end: 0,
            duration_ms: None,
            station: Address::UNSPECIFIED,
            icmp_type: 0,
            icmp_code: 0,
            sampling: SamplingElements::default(),
            sampler: 0,
            scope_interface: 0,
            scope_direction: DIRECTION_UNKNOWN,
            scope_template: 0,
            scope_domain: None,
            scope_other: 0,
            scope_name: 0,
            boot_ms: 0,
            is_packet: false,
            answer_bytes: 0,
            answer_packets: 0,
            answer_tcp_flags: 0,
            answer_tos: None,
            out_bytes: 0,
            out_packets: 0,
            event: None,
            flow_id: 0,
            observation_point: 0,
            active_timeout_s: None,
        }
    }
}

impl ExtraFields {
    /// Gives a wireless client's address to the side of the flow that it is: what it receives goes out to it.
    #[inline]
    pub(super) fn place_station(&self, flow: &mut Flow) {
        const EGRESS: u8 = 1;
        if self.station == Address::UNSPECIFIED {
            return;
        }
        let side = if flow.direction == EGRESS {
            &mut flow.dst_addr
        } else {
            &mut flow.src_addr
        };
        if *side == Address::UNSPECIFIED {
            *side = self.station;
        }
    }

    /// What a record of options data holds for.
    pub(super) fn selector(&self) -> Selector {
        Selector {
            sampler: self.sampler,
            interface: u32::try_from(self.scope_interface).unwrap_or(0),
            direction: self.scope_direction,
            template: u16::try_from(self.scope_template).unwrap_or(0),
            other: Selector::other_of(self.scope_other, self.scope_name),
        }
    }
}

impl Plan {
    /// Compiles a template; `None` when its records would have no bytes, or more than a set can hold.
    pub(super) fn compile(spec: &TemplateSpec) -> Option<Plan> {
        let is_variable = spec.fields.iter().any(|field| field.length == VARIABLE_LENGTH);
        let mut candidates: Vec<(Target, u8, CopyField)> = Vec::new();
        let mut offset = 0_usize;
        for (index, field) in spec.fields.iter().enumerate() {
            let found = match spec.kind {
                TemplateKind::Data if field.enterprise == REVERSE_ENTERPRISE => reverse_target_of(field.element),
                TemplateKind::Data => target_of(*field).filter(|(target, _)| *target != Target::ActiveTimeout),
                TemplateKind::Options if index < usize::from(spec.scope_fields) => scope_target_of(*field, spec.is_v9),
                TemplateKind::Options if field.enterprise == 0 => options_target_of(field.element),
                TemplateKind::Options => None,
            };
            if field.length > 0
                && let Some((target, rank)) = found
            {
                let copy = CopyField {
                    target,
                    field: u16::try_from(index).ok()?,
                    offset: u16::try_from(offset).ok()?,
                    length: field.length,
                    keep_if_zero: false,
                };
                candidates.push((target, rank, copy));
            }
            let is_prefixed = is_variable && field.length == VARIABLE_LENGTH;
            offset += if is_prefixed { 1 } else { usize::from(field.length) };
        }
        if offset == 0 || offset > usize::from(u16::MAX) {
            return None;
        }

        let has_one_vlan = vlan_of_both_sides(&mut candidates);
        leave_out_unreadable_uptimes(spec, &mut candidates);
        let counters_beside = counters_beside(spec, &candidates);
        candidates.extend(counters_beside);
        // Worst first within a target, so that the best one is written last and zeros are never written over others.
        // Of several addresses the last one is the innermost.
        let place = |target: Target, field: u16| if target.is_layered() { u16::MAX - field } else { field };
        candidates.sort_by_key(|(target, rank, copy)| {
            let place = place(*target, copy.field);
            (*target, std::cmp::Reverse((*rank, place)))
        });
        let best_rank = |target: Target| candidates.iter().filter(|c| c.0 == target).map(|c| c.1).min();
        let bytes_rank = best_rank(Target::Bytes);
        let mut copies: Vec<CopyField> = candidates
            .iter()
            .filter(|(target, ..)| *target != Target::MoreBytes || bytes_rank == Some(VENDOR_BYTES))
            .filter(|(target, rank, _)| target.choice() == Choice::ByValue || best_rank(*target) == Some(*rank))
            .map(|(_, _, copy)| *copy)
            .collect();
        for i in 1..copies.len() {
            copies[i].keep_if_zero = copies[i - 1].target == copies[i].target;
        }
        let counts_totals = copies.iter().any(|copy| {
            copy.target == Target::Bytes && spec.fields[usize::from(copy.field)].element == OCTET_TOTAL_COUNT
        });
        let tells_event = copies.iter().any(|copy| copy.target == Target::FirewallEvent);
        if !counts_totals && !tells_event {
            // Deltas add up whatever cache entry they are of.
            copies.retain(|copy| !matches!(copy.target, Target::FlowId | Target::ObservationPoint));
        }
        let time_kind = |target: Target| {
            let copy = copies.iter().rfind(|copy| copy.target == target)?;
            Some(time_kind_of(spec.fields[usize::from(copy.field)].element))
        };
        let has = |target: Target| copies.iter().any(|copy| copy.target == target);
        let counted = (best_rank(Target::Bytes), best_rank(Target::Packets));
        let common_properties = CommonProperties::find(spec);
        Some(Plan {
            start: time_kind(Target::Start),
            end: time_kind(Target::End),
            counts_bytes: has(Target::Bytes),
            has_icmp: has(Target::IcmpTypeCode) || has(Target::IcmpType),
            compares_sizes: matches!(counted, (Some(bytes), Some(packets)) if bytes == packets),
            tells_sampling: copies
                .iter()
                .any(|c| c.target.speaks_of_exporter() && c.target != Target::BootMs),
            tells_path: has(Target::NextHop) && has(Target::OutIf),
            counts_layer2: bytes_rank == Some(LAYER2_BYTES),
            tells_direction: has(Target::Direction),
            counts_totals,
            counter_lengths: counter_lengths(&copies),
            tells_event,
            counts_out: has(Target::OutBytes),
            is_junos: is_junos(spec),
            section: PacketSection::find(spec),
            has_one_vlan,
            names: InterfaceNames::find(spec),
            variable: if is_variable {
                spec.fields.iter().map(|f| f.length).collect()
            } else {
                Vec::new()
            },
            by_column: !is_variable
                && has(Target::Bytes)
                && bytes_rank != Some(LAYER2_BYTES)
                && !counts_totals
                && !common_properties.is_there()
                && copies.iter().all(|copy| !copy.target.is_read_by_record()),
            common_properties,
            record_min_bytes: offset,
            copies,
        })
    }

    /// Reads one record from the front of `bytes` into `flow` and `extras`; answers its length, or `None` when it is cut off.
    /// `spans` is scratch room.
    #[inline]
    pub(super) fn read(
        &self,
        bytes: &[u8],
        spans: &mut Vec<(u32, u32)>,
        flow: &mut Flow,
        extras: &mut ExtraFields,
    ) -> Option<usize> {
        if self.variable.is_empty() {
            let record = bytes.get(..self.record_min_bytes)?;
            for copy in &self.copies {
                let offset = usize::from(copy.offset);
                if let Some(field) = record.get(offset..offset + usize::from(copy.length)) {
                    apply(*copy, field, flow, extras);
                }
            }
            return Some(self.record_min_bytes);
        }
        let length = measure(&self.variable, bytes, spans)?;
        for copy in &self.copies {
            let (start, end) = spans[usize::from(copy.field)];
            apply(*copy, &bytes[start as usize..end as usize], flow, extras);
        }
        Some(length)
    }
}

/// octetTotalCount.
const OCTET_TOTAL_COUNT: u16 = 85;

/// How long the counters of a template's records are.
fn counter_lengths(copies: &[CopyField]) -> CounterLengths {
    let length_of = |targets: &[Target]| {
        let counters = copies.iter().filter(|copy| targets.contains(&copy.target));
        // One of variable length may have all eight bytes.
        let lengths = counters.map(|copy| u8::try_from(copy.length).map_or(8, |bytes| bytes.min(8)));
        lengths.max().unwrap_or(0)
    };
    CounterLengths {
        bytes: length_of(&[Target::Bytes]),
        packets: length_of(&[Target::Packets]),
        answer_bytes: length_of(&[Target::AnswerBytes, Target::OutBytes]),
        answer_packets: length_of(&[Target::AnswerPackets, Target::OutPackets]),
    }
}

/// Counters of what left the exporter, where the template has better ones of what came in.
fn counters_beside(spec: &TemplateSpec, candidates: &[(Target, u8, CopyField)]) -> Vec<(Target, u8, CopyField)> {
    let best = |wanted: Target| {
        candidates
            .iter()
            .filter(|(target, ..)| *target == wanted)
            .map(|c| c.1)
            .min()
    };
    let mut found = Vec::new();
    for (target, rank, copy) in candidates {
        let beside = beside_target_of(spec.fields[usize::from(copy.field)].element);
        if let Some(beside) = beside
            && matches!(target, Target::Bytes | Target::Packets)
            && best(*target).is_some_and(|best| best < *rank)
        {
            let copy = CopyField {
                target: beside,
                ..*copy
            };
            found.push((beside, 0, copy));
        }
    }
    found
}

/// In IPFIX uptimes (IE 22 and 21) can be read where the exporter's start is known. A template that does not tell it (IE 160) and
/// has times that need none is read by those.
fn leave_out_unreadable_uptimes(spec: &TemplateSpec, candidates: &mut Vec<(Target, u8, CopyField)>) {
    let element_of = |copy: &CopyField| spec.fields[usize::from(copy.field)].element;
    let has = |wanted: Target| candidates.iter().any(|(target, ..)| *target == wanted);
    // Seconds, or microseconds before the export.
    let has_one_of = |elements: [u16; 2]| candidates.iter().any(|c| elements.contains(&element_of(&c.2)));
    let is_readable = spec.is_v9 || has(Target::BootMs);
    if is_readable || !has_one_of([150, 158]) || !has_one_of([151, 159]) {
        return;
    }
    candidates.retain(|(target, _, copy)| {
        !matches!(target, Target::Start | Target::End) || time_kind_of(element_of(copy)) != TimeKind::SysUptime
    });
}

/// A template with the VLAN of one side only names that of the flow; answers whether it is one.
fn vlan_of_both_sides(candidates: &mut Vec<(Target, u8, CopyField)>) -> bool {
    let candidates_before = candidates.len();
    for (told, untold) in [(Target::InVlan, Target::OutVlan), (Target::OutVlan, Target::InVlan)] {
        if candidates.iter().any(|(target, ..)| *target == untold) {
            continue;
        }
        let same: Vec<_> = candidates
            .iter()
            .filter(|(target, ..)| *target == told)
            .map(|(_, rank, copy)| {
                (
                    untold,
                    *rank,
                    CopyField {
                        target: untold,
                        ..*copy
                    },
                )
            })
            .collect();
        candidates.extend(same);
    }
    candidates.len() > candidates_before
}

/// Finds where each field of a record with variable lengths lies; answers the record's length, or `None` when it is cut off.
fn measure(lengths: &[u16], bytes: &[u8], spans: &mut Vec<(u32, u32)>) -> Option<usize> {
    spans.clear();
    let mut at = 0_usize;
    for length in lengths {
        let length = match *length {
            VARIABLE_LENGTH => {
                let short = *bytes.get(at)?;
                at += 1;
                if short == u8::MAX {
                    // The three-byte form; PTX routers use it for short values too.
                    at += 2;
                    usize::from(be16(bytes, at - 2)?)
                } else {
                    usize::from(short)
                }
            }
            fixed => usize::from(fixed),
        };
        let end = at + length;
        if end > bytes.len() {
            return None;
        }
        spans.push((u32::try_from(at).ok()?, u32::try_from(end).ok()?));
        at = end;
    }
    Some(at)
}

/// Writes one field's value where it belongs. A value of a length that its element cannot have is left out.
#[inline]
pub(super) fn apply(copy: CopyField, field: &[u8], flow: &mut Flow, extras: &mut ExtraFields) {
    match copy.target {
        Target::SrcAddr => set_address(&mut flow.src_addr, field, copy.keep_if_zero),
        Target::DstAddr => set_address(&mut flow.dst_addr, field, copy.keep_if_zero),
        Target::StationAddr => set_address(&mut extras.station, field, copy.keep_if_zero),
        // A next hop of zero is none: `::`.
        Target::NextHop => set_address(&mut flow.next_hop, field, true),
        Target::SamplingProbability => extras.sampling.probability = probability(field),
        Target::ScopeOther => extras.scope_other = fingerprint(extras.scope_other, copy.field, field),
        Target::ScopeName => extras.scope_name = fingerprint(extras.scope_name, copy.field, field),
        _ => {
            let value = kept(copy.target, unsigned(field));
            if value == 0 && copy.keep_if_zero {
                return;
            }
            apply_number(copy.target, value, flow, extras);
        }
    }
}

/// What of a number its column keeps: a field may be longer than the column.
#[inline]
pub(super) fn kept(target: Target, value: u64) -> u64 {
    match target {
        Target::Protocol
        | Target::Tos
        | Target::TcpFlags
        | Target::SrcMask
        | Target::DstMask
        | Target::IcmpType
        | Target::IcmpCode
        | Target::AnswerTcpFlags
        | Target::AnswerTos
        | Target::FirewallEvent
        | Target::ForwardingStatus => value & 0xff,
        Target::SrcPort | Target::DstPort | Target::IcmpTypeCode => value & 0xffff,
        Target::InVlan | Target::OutVlan => value & 0x0fff,
        Target::InIf | Target::OutIf | Target::SrcAs | Target::DstAs => value & 0xffff_ffff,
        _ => value,
    }
}

#[inline]
fn apply_number(target: Target, value: u64, flow: &mut Flow, extras: &mut ExtraFields) {
    match target {
        Target::Bytes => flow.bytes = value,
        Target::MoreBytes => flow.bytes = flow.bytes.saturating_add(value),
        Target::Packets => flow.packets = value,
        Target::Protocol => flow.ip_protocol = value as u8,
        Target::Tos => flow.tos = value as u8,
        // Two bytes in IPFIX (RFC 7125): the flags are the lower one.
        Target::TcpFlags => flow.tcp_flags = value as u8,
        Target::SrcPort => flow.src_port = value as u16,
        Target::DstPort => flow.dst_port = value as u16,
        Target::SrcMask => flow.src_mask = value as u8,
        Target::DstMask => flow.dst_mask = value as u8,
        Target::InIf => flow.in_if = value as u32,
        Target::OutIf => flow.out_if = value as u32,
        Target::SrcAs => flow.src_as = value as u32,
        Target::DstAs => flow.dst_as = value as u32,
        Target::Start => extras.start = value,
        Target::End => extras.end = value,
        Target::DurationMs => extras.duration_ms = Some(value),
        Target::DurationUs => extras.duration_ms = Some(value / 1000),
        Target::IcmpTypeCode => flow.icmp_type_code = value as u16,
        Target::IcmpType => extras.icmp_type = value as u8,
        Target::IcmpCode => extras.icmp_code = value as u8,
        Target::InVlan => flow.in_vlan = value as u16 & 0x0fff,
        Target::OutVlan => flow.out_vlan = value as u16 & 0x0fff,
        // Juniper sends 255 where it does not know.
        Target::Direction => flow.direction = if value <= 1 { value as u8 } else { DIRECTION_UNKNOWN },
        // Four bytes in IPFIX (RFC 7270 §4.12), reduced to the lower one.
        Target::ForwardingStatus => flow.forwarding_status = value as u8,
        Target::SamplingInterval => extras.sampling.interval = value,
        Target::RandomInterval => extras.sampling.random_interval = value,
        Target::PacketInterval => extras.sampling.packet_interval = value,
        Target::PacketSpace => extras.sampling.packet_space = Some(value),
        Target::SamplingSize => extras.sampling.size = value,
        Target::SamplingPopulation => extras.sampling.population = value,
        Target::Sampler => extras.sampler = value,
        Target::ScopeInterface => extras.scope_interface = value,
        Target::ScopeDirection => extras.scope_direction = if value <= 1 { value as u8 } else { DIRECTION_UNKNOWN },
        Target::ScopeTemplate => extras.scope_template = value,
        Target::ScopeDomain => extras.scope_domain = u32::try_from(value).ok(),
        Target::BootMs => extras.boot_ms = value,
        Target::ActiveTimeout => extras.active_timeout_s = Some(u32::try_from(value).unwrap_or(u32::MAX)),
        Target::AnswerBytes => extras.answer_bytes = value,
        Target::AnswerPackets => extras.answer_packets = value,
        Target::AnswerTcpFlags => extras.answer_tcp_flags = value as u8,
        Target::AnswerTos => extras.answer_tos = Some(value as u8),
        Target::OutBytes => extras.out_bytes = value,
        Target::OutPackets => extras.out_packets = value,
        Target::FirewallEvent => extras.event = Some(value as u8),
        Target::FlowId => extras.flow_id = value,
        Target::ObservationPoint => extras.observation_point = value,
        Target::SrcAddr
        | Target::DstAddr
        | Target::StationAddr
        | Target::NextHop
        | Target::SamplingProbability
        | Target::ScopeOther
        | Target::ScopeName => {}
    }
}

/// Tells values apart by which options data holds for things that are not understood (FNV-1a); never 0.
fn fingerprint(before: u64, place: u16, field: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = place.to_be_bytes().into_iter().chain(field.iter().copied());
    let mixed = bytes.fold(before ^ OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    mixed.max(1)
}

#[inline]
fn set_address(to: &mut Address, field: &[u8], keep_if_zero: bool) {
    let address = match field.len() {
        4 => Address::from_v4([field[0], field[1], field[2], field[3]]),
        16 => Address::from_slice(field).unwrap_or_default(),
        _ => return,
    };
    if keep_if_zero && field.iter().all(|byte| *byte == 0) {
        return;
    }
    *to = address;
}

fn probability(field: &[u8]) -> f64 {
    match *field {
        [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => 0.0,
    }
}
