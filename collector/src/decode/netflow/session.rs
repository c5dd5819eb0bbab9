//! One v9 or IPFIX datagram: its sets are found first, then taken in the order templates, options data, flow data, so that
//! a template or a sampling rate holds for the whole datagram that brings it.
//!
//! A template that replaces another layout, or a withdrawal, first lets the sets before it be read by the old one. Data
//! whose template is not known waits in [`super::state::PendingSets`] with the times of its own header.

use schemas::address::Address;
use tables::flow::{FORWARDING_DROPPED, Flow, FlowColumns, marks};

use super::biflow::answer_of;
use super::columnar::{append_set, is_same_of_all};
use super::double_counting::DoubleCounting;
use super::limits::{DecodeLimits, FlowCapacity};
use super::message::starts_with_v9;
use super::names::AnnouncedInterface;
use super::row_times::{note_times, times_of, with_boot};
use super::scratch::{Scratch, SetRef};
use super::semantics::RowFacts;
use super::spec::{FIRST_TEMPLATE_ID, TemplateKind, TemplateReader, TemplateRecord, TemplateSpec};
use super::state::{Domain, PendingSet};
use super::tally::Tally;
use super::template::{ExtraFields, Plan, Template};
use super::totals::{CountKind, Counted, Report};
use super::wire::be16;
use crate::counts::Counter;
use crate::decode::packet_header::HeaderError;
use crate::sampling::{
    AnnouncedRates, Announcement, AnnouncementCapacity, ChosenRate, DomainKey, ExporterSampling, FlowScope,
    OptionsTemplate, StatedRate, choose,
};
use crate::times::{Clock, normalise};

const SET_HEADER_BYTES: usize = 4;
/// In the place of a set's id: another message begins.
const V9_VERSION: u16 = 9;
/// An exporter whose start (IE 160) moved by less told the same start again.
const RESTART_MIN_MS: i64 = 60_000;
/// Interfaces that options data may name until somebody takes what was said.
const INTERFACES_TOLD_MAX: usize = 65_536;

/// A set may be padded to a multiple of four bytes.
const PADDING_BYTES: usize = 3;

/// When a set was received, and its header's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) received_at_ms: i64,
    pub(super) clock: Clock,
    /// Of its datagram; `None` where it is not known any more, because the set waited for its template.
    pub(super) sequence: Option<u32>,
}

/// Data records that were in a datagram; `None` when some of its data could not be counted.
pub(super) type Records = Option<u32>;

/// Everything that decoding one datagram touches.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) limits: &'a DecodeLimits,
    pub(super) source: Address,
    pub(super) source_port: u16,
    pub(super) key: DomainKey,
    pub(super) config: ExporterSampling,
    pub(super) rates: &'a mut AnnouncedRates,
    /// Known in the exporter's other sessions.
    pub(super) samplers_elsewhere: usize,
    /// Rates that this session may have announced while exporters that are not listed have a bound of their own.
    pub(super) samplers_max: usize,
    pub(super) session_boot_ms: &'a mut Option<i64>,
    pub(super) session_active_timeout_s: &'a mut Option<u32>,
    pub(super) twice: &'a mut DoubleCounting,
    pub(super) domain: &'a mut Domain,
    /// The exporter started again before this message.
    pub(super) restarted: bool,
    /// What the exporter, and what all exporters, may still let wait.
    pub(super) pending_room_bytes: usize,
    /// Fields that the templates of this domain may have together.
    pub(super) template_fields_max: usize,
    /// Flows that may be remembered.
    pub(super) room: FlowCapacity,
    pub(super) scratch: &'a mut Scratch,
    pub(super) tally: &'a mut Tally,
    pub(super) flows: &'a mut FlowColumns,
    /// What options data says of interfaces.
    pub(super) interfaces: &'a mut Vec<AnnouncedInterface>,
}

impl Session<'_> {
    fn is_ipfix(&self) -> bool {
        self.key.protocol_version == 10
    }

    /// Decodes the sets of a message; `body` is what follows its header. Answers its records, and how many bytes of `body` are
    /// of this message.
    pub(super) fn decode(&mut self, body: &[u8], moment: Moment) -> (Records, usize) {
        if self.restarted {
            let forgotten = self.domain.forget_templates();
            self.count_forgotten(forgotten);
        }
        let expired = self
            .domain
            .pending
            .expire(moment.received_at_ms.saturating_sub(self.limits.pending_max_age_ms));
        self.tally.add(Counter::SetsDroppedPending, expired);

        let mut sets = std::mem::take(&mut self.scratch.sets);
        let (is_complete, read_bytes) = self.find_sets(body, moment.clock, &mut sets);
        let mut records = if is_complete { Some(0) } else { None };
        let mut defined: Vec<u16> = Vec::new();
        for index in 0..sets.len() {
            if let Some(kind) = self.template_kind(sets[index].id) {
                sets[index].done = true;
                self.template_set(body, &mut sets, index, kind, moment, &mut records, &mut defined);
            }
        }
        self.replay(&defined, TemplateKind::Options);
        self.data_sets(body, &mut sets, Some(TemplateKind::Options), moment, &mut records);
        self.replay(&defined, TemplateKind::Data);
        self.data_sets(body, &mut sets, None, moment, &mut records);
        for set in sets.iter().filter(|set| !set.done) {
            records = None;
            self.wait_for_template(set.id, &body[set.start..set.end], moment);
        }
        sets.clear();
        self.scratch.sets = sets;
        (records, read_bytes)
    }

    /// Counts templates, and sets that waited for some, which a restart made void.
    fn count_forgotten(&mut self, (templates, sets): (u64, u64)) {
        self.tally.add(Counter::TemplatesForgotten, templates);
        self.tally.add(Counter::SetsDroppedPending, sets);
    }

    /// The kind of templates that a set holds, by its id (RFC 3954 §5.2, RFC 7011 §3.3.2).
    fn template_kind(&self, id: u16) -> Option<TemplateKind> {
        match (self.is_ipfix(), id) {
            (false, 0) | (true, 2) => Some(TemplateKind::Data),
            (false, 1) | (true, 3) => Some(TemplateKind::Options),
            _ => None,
        }
    }

    /// Lists the sets of a message; false when some are missing: a length is wrong, or there are too many. Answers where the
    /// message ends, too: zeros to the end of `body` are padding.
    fn find_sets(&mut self, body: &[u8], clock: Clock, sets: &mut Vec<SetRef>) -> (bool, usize) {
        sets.clear();
        let mut complete = true;
        let mut at = 0;
        while body.len() - at >= SET_HEADER_BYTES {
            let (Some(id), Some(length)) = (be16(body, at), be16(body, at + 2)) else {
                break;
            };
            let end = at + usize::from(length);
            if id == V9_VERSION && !self.is_ipfix() && starts_with_v9(&body[at..], clock) {
                return (complete, at);
            }
            if usize::from(length) < SET_HEADER_BYTES || end > body.len() {
                if body[at..].iter().all(|byte| *byte == 0) {
                    let padding_bytes = body.len() - at;
                    self.tally.add(Counter::DatagramBytesTrailing, padding_bytes as u64);
                    return (complete, body.len());
                }
                self.tally.add(Counter::SetsRejectedLength, 1);
                return (false, body.len());
            }
            if id < FIRST_TEMPLATE_ID && self.template_kind(id).is_none() {
                self.tally.add(Counter::SetsRejectedReserved, 1);
            } else if sets.len() >= self.limits.max_sets_per_datagram {
                self.tally.add(Counter::SetsRejectedLimit, 1);
                complete = false;
            } else {
                sets.push(SetRef {
                    id,
                    start: at + SET_HEADER_BYTES,
                    end,
                    done: false,
                });
            }
            at = end;
        }
        (complete, body.len())
    }

    #[expect(clippy::too_many_arguments, reason = "the walk over one datagram's sets")]
    fn template_set(
        &mut self,
        body: &[u8],
        sets: &mut [SetRef],
        index: usize,
        kind: TemplateKind,
        moment: Moment,
        records: &mut Records,
        defined: &mut Vec<u16>,
    ) {
        let set = &body[sets[index].start..sets[index].end];
        for record in TemplateReader::new(set, kind, self.is_ipfix(), self.limits.max_template_fields) {
            match record {
                TemplateRecord::Define { id, spec } => {
                    let known = self.domain.templates.get(&id).map(|template| template.spec == spec);
                    if known == Some(false) {
                        self.data_sets_of(body, &mut sets[..index], Some(id), moment, records);
                        self.end_rates(id);
                    }
                    self.define(id, spec, known, moment.received_at_ms, defined);
                }
                TemplateRecord::Withdraw { id } => {
                    self.tally.add(Counter::TemplateWithdrawals, 1);
                    if id < FIRST_TEMPLATE_ID {
                        if self.template_kind(id) == Some(kind) {
                            self.data_sets_of(body, &mut sets[..index], None, moment, records);
                            if kind == TemplateKind::Options {
                                let ids: Vec<u16> = self.domain.templates.keys().copied().collect();
                                ids.into_iter().for_each(|id| self.end_rates(id));
                            }
                            self.domain.remove_templates_of(kind);
                        }
                    } else if self.domain.templates.contains_key(&id) {
                        self.data_sets_of(body, &mut sets[..index], Some(id), moment, records);
                        self.end_rates(id);
                        self.domain.remove_template(id);
                    }
                }
                TemplateRecord::Reject { id } => {
                    self.tally.add(Counter::TemplatesRejected, 1);
                    if id.is_some_and(|id| self.domain.templates.contains_key(&id)) {
                        self.data_sets_of(body, &mut sets[..index], id, moment, records);
                        if let Some(id) = id {
                            self.end_rates(id);
                            self.domain.remove_template(id);
                        }
                    }
                }
            }
        }
    }

    /// Ends the rates that a template's data announced, which is withdrawn or gets another layout.
    fn end_rates(&mut self, id: u16) {
        let template = self.domain.templates.get(&id);
        if template.is_some_and(|template| template.spec.kind == TemplateKind::Options) {
            let ended = self.rates.end_of_template(OptionsTemplate { domain: self.key, id });
            self.tally.add(Counter::RatesEndedTemplate, ended);
        }
    }

    /// Keeps a template; `known` says whether its id is known with this layout. One that is refused takes the known one
    /// with it: what its exporter sends from now on is not of that layout, and must not be read as if it were.
    fn define(&mut self, id: u16, spec: TemplateSpec, known: Option<bool>, now_ms: i64, defined: &mut Vec<u16>) {
        if known == Some(true) {
            if let Some(template) = self.domain.templates.get_mut(&id) {
                template.last_seen_ms = now_ms;
            }
            self.tally.add(Counter::Templates, 1);
            return;
        }
        let plan = Plan::compile(&spec);
        match plan.filter(|_| self.has_room_for(id, &spec, now_ms)) {
            Some(plan) => {
                let template = Template {
                    spec,
                    last_seen_ms: now_ms,
                    plan,
                };
                self.domain.put_template(id, template);
                self.tally.add(Counter::Templates, 1);
                // Once each: a datagram may define and withdraw an id many times.
                if !defined.contains(&id) {
                    defined.push(id);
                }
            }
            None => {
                self.tally.add(Counter::TemplatesRejected, 1);
                self.domain.remove_template(id);
            }
        }
    }

    /// Whether another template may be kept, after an outdated one made room where that is needed.
    fn has_room_for(&mut self, id: u16, spec: &TemplateSpec, now_ms: i64) -> bool {
        let replaced = self
            .domain
            .templates
            .get(&id)
            .map(|template| template.spec.fields.len());
        let fields_kept = self.domain.template_fields - replaced.unwrap_or(0);
        if spec.fields.len() > self.template_fields_max.saturating_sub(fields_kept) {
            return false;
        }
        if replaced.is_some() || self.domain.templates.len() < self.limits.max_templates_per_domain {
            return true;
        }
        let expired = self.domain.expire_template(now_ms, self.limits.template_lifetime_ms);
        self.tally.add(Counter::TemplatesExpired, u64::from(expired));
        expired
    }

    /// Reads what waited for templates of one kind that this datagram defined.
    fn replay(&mut self, defined: &[u16], kind: TemplateKind) {
        for id in defined {
            if self
                .domain
                .templates
                .get(id)
                .is_none_or(|template| template.spec.kind != kind)
            {
                continue;
            }
            for set in self.domain.pending.take(*id) {
                if !self.domain.templates.contains_key(id) {
                    // One before it told a restart.
                    self.tally.add(Counter::SetsDroppedPending, 1);
                    continue;
                }
                self.tally.add(Counter::SetsReplayed, 1);
                let moment = Moment {
                    received_at_ms: set.received_at_ms,
                    clock: Clock {
                        export_ms: set.export_ms,
                        uptime_ms: set.uptime_ms,
                    },
                    sequence: None,
                };
                self.data_set(*id, &set.body, moment);
            }
        }
    }

    /// Reads the data sets that are not done and whose template is known, of one kind or (`None`) of both.
    fn data_sets(
        &mut self,
        body: &[u8],
        sets: &mut [SetRef],
        kind: Option<TemplateKind>,
        moment: Moment,
        records: &mut Records,
    ) {
        for set in sets.iter_mut().filter(|set| !set.done) {
            let Some(template) = self.domain.templates.get(&set.id) else {
                continue;
            };
            if kind.is_none_or(|kind| template.spec.kind == kind) {
                set.done = true;
                let read = self.data_set(set.id, &body[set.start..set.end], moment);
                *records = records.map(|sum| sum.saturating_add(read));
            }
        }
    }

    /// Reads the data sets of one template (`None`: of any) that are not done, before it changes.
    fn data_sets_of(
        &mut self,
        body: &[u8],
        sets: &mut [SetRef],
        id: Option<u16>,
        moment: Moment,
        records: &mut Records,
    ) {
        for set in sets.iter_mut().filter(|set| id.is_none_or(|id| set.id == id)) {
            self.data_sets(body, std::slice::from_mut(set), None, moment, records);
        }
    }

    /// Reads one data set whose template is known; answers how many records it held.
    fn data_set(&mut self, id: u16, body: &[u8], moment: Moment) -> u32 {
        match self.domain.templates.get(&id).map(|template| template.spec.kind) {
            Some(TemplateKind::Data) => self.flow_set(id, body, moment),
            Some(TemplateKind::Options) => self.options_set(id, body, moment),
            None => 0,
        }
    }

    fn flow_set(&mut self, id: u16, body: &[u8], moment: Moment) -> u32 {
        let Some(template) = self.domain.templates.get(&id) else {
            return 0;
        };
        let plan = &template.plan;
        let base = Flow {
            received_at_ms: moment.received_at_ms,
            exporter: self.source,
            observation_domain: self.key.observation_domain,
            protocol_version: self.key.protocol_version,
            exporter_port: self.source_port,
            ..Flow::default()
        };
        let boot_ms = self.domain.boot_ms.or(*self.session_boot_ms);
        let clock = with_boot(moment.clock, boot_ms);
        let times = self.limits.times();
        let reading = self.config.reading;
        let facts = RowFacts {
            reading,
            received_at_ms: moment.received_at_ms,
            export_ms: moment.clock.export_ms,
            tells_path: plan.tells_path,
            tells_direction: plan.tells_direction,
            is_junos: plan.is_junos,
            of_session_s: *self.session_active_timeout_s,
            room: self.room,
        };
        let first = self.flows.len();
        let counts_out = plan.counts_out && reading.out_bytes_are_answer;
        let runs_on = plan.counts_totals || plan.tells_event;
        self.domain.meaning.has_out_counters |= plan.counts_out;
        let by_flow = self.rates.by_flow(self.key);
        let of_template = FlowScope::template(id);
        let mut chosen = choose(self.config, StatedRate::default(), self.rates, self.key, of_template);
        let mut chosen_for = (StatedRate::default(), of_template);
        let count = body.len() / plan.record_min_bytes;
        let (records_body, rest) = body.split_at(count * plan.record_min_bytes);
        let mut of_all = ExtraFields::default();
        let reads_columns = plan.by_column && !by_flow && !counts_out;
        if reads_columns && is_same_of_all(plan, records_body, &mut of_all) {
            let for_all = stated_rate(plan, &of_all, of_template);
            if for_all != chosen_for {
                chosen = choose(self.config, for_all.0, self.rates, self.key, for_all.1);
                chosen_for = for_all;
            }
            let mut base = base;
            scale(&mut base, chosen);
            let clock = clock_of(clock, moment.clock, &of_all);
            let is_sound = append_set(
                plan,
                records_body,
                count,
                &base,
                clock,
                &times,
                &mut self.scratch.times,
                &mut self.scratch.long_rows,
                self.flows,
                self.tally,
            );
            if is_sound {
                let long_rows = &mut self.scratch.long_rows;
                self.domain
                    .meaning
                    .finish(self.flows, first, facts, self.twice, long_rows, self.tally);
                count_rest(rest, self.tally);
                let records = u32::try_from(count).unwrap_or(u32::MAX);
                self.tally.add(Counter::FlowRecords, u64::from(records));
                if records > 0 {
                    self.domain.sampling = chosen;
                    self.tally.count_rate(chosen, u64::from(records));
                }
                return records;
            }
            // A record among them cannot be: it is found one by one.
        }
        let (mut at, mut records, mut kept, mut answers) = (0, 0_u32, 0_u64, 0_u64);
        let (mut not_ip, mut malformed, mut impossible, mut impossible_answers) = (0_u64, 0_u64, 0_u64, 0_u64);
        while body.len() - at >= plan.record_min_bytes {
            let mut flow = base;
            let mut extras = ExtraFields::default();
            let Some(length) = plan.read(&body[at..], &mut self.scratch.spans, &mut flow, &mut extras) else {
                break;
            };
            let record = &body[at..at + length];
            at += length;
            records += 1;
            if !plan.counts_bytes {
                let Some(section) = plan.section else {
                    continue;
                };
                match section.read(record, &self.scratch.spans, self.config.tunnels, &mut flow) {
                    Ok(tunnel_is_cut) => {
                        extras.is_packet = true;
                        self.tally.add(Counter::TunnelsCut, u64::from(tunnel_is_cut));
                    }
                    Err(HeaderError::NotIp) => not_ip += 1,
                    Err(HeaderError::Malformed) => malformed += 1,
                }
                if !extras.is_packet {
                    continue;
                }
            }
            if plan.counts_layer2 {
                take_off_layer2(&mut flow);
            }
            extras.place_station(&mut flow);
            // Of a total what it grew by is looked at: it may have wrapped.
            if plan.compares_sizes && !runs_on && super::cannot_be(flow.bytes, flow.packets) {
                impossible += 1;
                continue;
            }
            if plan.tells_sampling || by_flow {
                let (told, mut named) = stated_rate(plan, &extras, of_template);
                if by_flow {
                    (named.in_if, named.out_if, named.direction) = (flow.in_if, flow.out_if, flow.direction);
                }
                if (told, named) != chosen_for {
                    chosen = choose(self.config, told, self.rates, self.key, named);
                    chosen_for = (told, named);
                }
            }
            scale(&mut flow, chosen);
            if flow.forwarding_status == 0
                && plan
                    .common_properties
                    .is_forwarding_exception(record, &self.scratch.spans)
            {
                flow.forwarding_status = FORWARDING_DROPPED;
            }
            if extras.is_packet {
                // The packet itself told.
            } else if !plan.has_icmp {
                flow.icmp_type_code = super::icmp_from_port(flow.ip_protocol, flow.dst_port);
            } else if flow.icmp_type_code == 0 {
                flow.icmp_type_code = u16::from_be_bytes([extras.icmp_type, extras.icmp_code]);
            }
            let record_clock = clock_of(clock, moment.clock, &extras);
            let (mut told_times, mut plausible) = ((None, None), None);
            if extras.is_packet && plan.start.or(plan.end).is_none() {
                // A sampled packet is exported at once, without times.
                flow.start_at_ms = flow.received_at_ms;
                flow.end_at_ms = flow.received_at_ms;
            } else {
                told_times = times_of(plan, extras.start, extras.end, extras.duration_ms, record_clock);
                let (start_ms, end_ms) = told_times;
                let found = normalise(start_ms, end_ms, moment.received_at_ms, &times);
                (flow.start_at_ms, flow.end_at_ms) = (found.start_ms, found.end_ms);
                plausible = Some(found);
            }
            let mut counted = Counted {
                bytes: flow.bytes,
                packets: flow.packets,
                answer_bytes: extras.answer_bytes,
                answer_packets: extras.answer_packets,
            };
            if counts_out {
                counted.answer_bytes = counted.answer_bytes.saturating_add(extras.out_bytes);
                counted.answer_packets = counted.answer_packets.saturating_add(extras.out_packets);
            }
            if runs_on {
                let report = Report {
                    kind: CountKind::of(extras.event, plan.counts_totals),
                    told: counted,
                    lengths: plan.counter_lengths,
                    compares_sizes: plan.compares_sizes,
                    flow_id: extras.flow_id,
                    observation_point: extras.observation_point,
                    start_ms: told_times.0.unwrap_or(flow.start_at_ms),
                    end_ms: told_times.1.unwrap_or(flow.end_at_ms),
                    export_ms: moment.clock.export_ms,
                    sequence: moment.sequence,
                };
                let totals = &mut self.domain.meaning.totals;
                let Some(added) = totals.difference(&mut flow, &report, self.room, self.tally) else {
                    impossible += 1;
                    continue;
                };
                counted = added;
                (flow.bytes, flow.packets) = (counted.bytes, counted.packets);
            }
            if let Some(found) = plausible {
                note_times(found, self.flows.len(), &mut self.scratch.long_rows, self.tally);
            }
            self.tally.count_rate(chosen, 1);
            self.flows.push(flow);
            kept += 1;
            if super::is_too_large(counted.answer_bytes, counted.answer_packets) {
                impossible_answers += 1;
            } else if let Some(answer) = answer_of(&flow, counted, extras.answer_tcp_flags, extras.answer_tos) {
                self.tally.count_rate(chosen, 1);
                self.flows.push(answer);
                answers += 1;
            }
        }
        let long_rows = &mut self.scratch.long_rows;
        self.domain
            .meaning
            .finish(self.flows, first, facts, self.twice, long_rows, self.tally);
        self.tally.add(Counter::FlowRecords, kept + answers);
        self.tally.add(Counter::FlowsOfAnswers, answers);
        self.tally.add(Counter::SamplesNotIp, not_ip);
        self.tally.add(Counter::SamplesRejected, malformed);
        self.tally
            .add(Counter::RecordsRejectedSize, impossible + impossible_answers);
        self.tally.add(
            Counter::RecordsWithoutCounters,
            u64::from(records) - kept - not_ip - malformed - impossible,
        );
        count_rest(&body[at..], self.tally);
        if kept > 0 {
            self.domain.sampling = chosen;
        }
        records
    }

    /// Options data: sampling rates and the start of the exporter's clock.
    fn options_set(&mut self, id: u16, body: &[u8], moment: Moment) -> u32 {
        let Some(template) = self.domain.templates.get(&id) else {
            return 0;
        };
        let plan = &template.plan;
        let (mut at, mut records) = (0, 0_u32);
        let mut unused = Flow::default();
        let mut announcements = Vec::new();
        let mut restarted_at_ms = None;
        let mut active_timeout_s: Option<u32> = None;
        while body.len() - at >= plan.record_min_bytes {
            let mut extras = ExtraFields::default();
            let Some(length) = plan.read(&body[at..], &mut self.scratch.spans, &mut unused, &mut extras) else {
                break;
            };
            let record = &body[at..at + length];
            at += length;
            records += 1;
            active_timeout_s = active_timeout_s.max(extras.active_timeout_s);
            if let Some(names) = plan.names
                && self.interfaces.len() < INTERFACES_TOLD_MAX
                && let Some((if_index, interface)) = names.read(record, &self.scratch.spans)
            {
                self.interfaces.push(AnnouncedInterface {
                    exporter: self.source,
                    if_index,
                    interface,
                });
            }
            let told = extras.sampling.told();
            if told.rate.is_known() {
                announcements.push(Announcement {
                    domain: extras.scope_domain,
                    selector: extras.selector(),
                    told,
                });
            }
            if let (1.., Ok(boot_ms)) = (extras.boot_ms, i64::try_from(extras.boot_ms)) {
                let before_ms = self.domain.boot_ms.replace(boot_ms);
                *self.session_boot_ms = Some(boot_ms);
                if before_ms.is_some_and(|before_ms| boot_ms.saturating_sub(before_ms) > RESTART_MIN_MS) {
                    // In our time, which its clock may be ahead of or behind.
                    let since_ms = moment.clock.export_ms.saturating_sub(boot_ms);
                    restarted_at_ms = Some(moment.received_at_ms.saturating_sub(since_ms));
                }
            }
        }
        if let Some(seconds) = active_timeout_s {
            self.domain.meaning.spans.announce(id, seconds);
            *self.session_active_timeout_s = Some(seconds).filter(|seconds| *seconds > 0);
        }
        if !announcements.is_empty() {
            let room = AnnouncementCapacity {
                of_domain: self.limits.max_samplers_per_domain,
                elsewhere: self.samplers_elsewhere,
                of_session: self.samplers_max,
            };
            let refused = self.rates.announce(
                OptionsTemplate { domain: self.key, id },
                &announcements,
                room,
                moment.received_at_ms,
            );
            self.tally.add(Counter::SamplersRejected, refused);
            let ended = self.rates.end_silent(moment.received_at_ms);
            self.tally.add(Counter::RatesEndedSilent, ended);
        }
        self.tally.add(Counter::OptionsRecords, u64::from(records));
        count_rest(&body[at..], self.tally);
        if let Some(restarted_at_ms) = restarted_at_ms {
            let forgotten = self
                .domain
                .forget_templates_before(restarted_at_ms.saturating_sub(RESTART_MIN_MS));
            self.count_forgotten(forgotten);
        }
        records
    }

    fn wait_for_template(&mut self, template_id: u16, body: &[u8], moment: Moment) {
        let cost_bytes = PendingSet::cost_bytes(body);
        let domain_room_bytes = self
            .limits
            .max_pending_bytes_per_domain
            .saturating_sub(self.domain.pending.bytes());
        if cost_bytes > self.pending_room_bytes.min(domain_room_bytes) {
            self.tally.add(Counter::SetsDroppedPending, 1);
            return;
        }
        self.pending_room_bytes -= cost_bytes;
        self.tally.add(Counter::SetsPending, 1);
        self.domain.pending.push(PendingSet {
            template_id,
            received_at_ms: moment.received_at_ms,
            export_ms: moment.clock.export_ms,
            uptime_ms: moment.clock.uptime_ms,
            body: body.to_vec(),
        });
    }
}

/// What a record says of its rate, and what it names that one may be announced for; both but its interfaces and direction.
fn stated_rate(plan: &Plan, extras: &ExtraFields, of_template: FlowScope) -> (StatedRate, FlowScope) {
    let told = if plan.tells_sampling {
        extras.sampling.told()
    } else {
        StatedRate::default()
    };
    let named = FlowScope {
        sampler: extras.sampler,
        ..of_template
    };
    (told, named)
}

/// By which clock a record's times are: `clock`, or, where it says itself when its exporter started, that of its header.
fn clock_of(clock: Clock, of_header: Clock, extras: &ExtraFields) -> Clock {
    match extras.boot_ms {
        0 => clock,
        boot_ms => with_boot(of_header, i64::try_from(boot_ms).ok()),
    }
}

/// Gives a flow its rate, and the marks that it has because of it.
#[inline]
pub(super) fn scale(flow: &mut Flow, chosen: ChosenRate) {
    flow.sampling_rate = chosen.rate;
    flow.sampling_divisor = chosen.divisor;
    flow.marks |= chosen.marks();
}

/// Layer 3 of bytes that count layer 2 (IE 352: headers and payload): without an Ethernet header for each packet.
fn take_off_layer2(flow: &mut Flow) {
    const ETHERNET_HEADER_BYTES: u64 = 14;
    let headers = flow.packets.saturating_mul(ETHERNET_HEADER_BYTES);
    if headers <= flow.bytes {
        flow.bytes -= headers;
        flow.marks |= marks::LAYER2_TAKEN_OFF;
    }
}

/// What is left of a set: padding is at most three bytes, or zeros; anything else is a record that was cut off.
fn count_rest(rest: &[u8], tally: &mut Tally) {
    if rest.len() > PADDING_BYTES && rest.iter().any(|byte| *byte != 0) {
        tally.add(Counter::RecordsRejectedLength, 1);
    }
}
