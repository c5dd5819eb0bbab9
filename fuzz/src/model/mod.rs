//! The plainest reading of NetFlow v5, v7, v9 and IPFIX there is, to compare the decoder with: no plans, no scratch room, a
//! field at a time.
//!
//! It says what a datagram's flows and counts must be, under the decoder's default limits, none of which an input can reach but
//! that on a template's fields. Which rate is chosen, how an instant is resolved and how sequence numbers are followed it leaves to
//! [`collector::sampling`], [`collector::times`] and the decoder.

mod flow;
mod record;
mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use collector::counts::Counter;
use collector::decode::netflow::DecodeLimits;
use collector::sampling::{
    AnnouncedRates, Announcement, AnnouncementCapacity, ChosenRate, DomainKey, FlowScope, OptionsTemplate,
    SamplingConfig, SamplingSource, choose, v5_rate,
};
use collector::sequence::SequenceTracker;
use collector::times::{Clock, TimeKind, normalise, resolve};
use schemas::address::Address;
use tables::flow::{Flow, marks};

use record::{Values, template_record};
pub use rules::as_told;
use rules::{be16, be32, cannot_be, follows, is_understood, is_v9_message, mark_without_route, number};

const VARIABLE_LENGTH: u16 = 65535;
const FIRST_TEMPLATE_ID: u16 = 256;

/// Every exporter, as the model remembers it.
#[derive(Default)]
pub struct Model {
    exporters: BTreeMap<Address, Exporter>,
    /// What the datagrams so far must have given.
    pub flows: Vec<Flow>,
    /// A record carried the head of a packet (IE 313, 315), which the model does not read: it cannot judge this input.
    pub met_a_packet_section: bool,
    /// A record's counters run on (IE 85, IE 233): what it adds depends on records before, which the model does not remember.
    pub met_totals: bool,
    counts: BTreeMap<Counter, u64>,
    /// The source port of the datagram that is taken.
    port: u16,
}

#[derive(Default)]
struct Exporter {
    domains: BTreeMap<DomainKey, Domain>,
    rates: AnnouncedRates,
    boot_ms: Option<i64>,
    /// Datagrams whose header was understood.
    seen: BTreeSet<Vec<u8>>,
}

#[derive(Default)]
struct Domain {
    templates: BTreeMap<u16, Template>,
    /// When each was last sent.
    sent_ms: BTreeMap<u16, i64>,
    waiting: VecDeque<Waiting>,
    boot_ms: Option<i64>,
    numbers: SequenceTracker,
    /// By the header of the last datagram that told an uptime.
    uptime_told_at_ms: i64,
    /// The rate of the last header, and since when it is one that is not believed.
    told: Option<(u32, i64)>,
}

impl Domain {
    /// A rate that a header says, orders of magnitude from what headers said before, is doubted for a day.
    fn watched(&mut self, chosen: ChosenRate, now_ms: i64) -> ChosenRate {
        if chosen.source != SamplingSource::PerRecord {
            self.told = None;
            return chosen;
        }
        let doubted_ms = match self.told {
            Some((rate, since_ms)) if rate == chosen.rate && now_ms - since_ms >= 86_400_000 => 0,
            Some((rate, since_ms)) if rate == chosen.rate => since_ms,
            Some((rate, 0)) if rate.max(chosen.rate) / rate.min(chosen.rate) >= 100 => now_ms,
            _ => 0,
        };
        self.told = Some((chosen.rate, doubted_ms));
        ChosenRate {
            implausible: chosen.implausible || doubted_ms != 0,
            ..chosen
        }
    }
}

struct Waiting {
    id: u16,
    body: Vec<u8>,
    received_at_ms: i64,
    clock: Clock,
}

#[derive(Clone, PartialEq, Eq)]
struct Template {
    is_options: bool,
    scopes: usize,
    fields: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Field {
    element: u16,
    length: u16,
    enterprise: u32,
}

/// The counters that the model keeps; what is counted under others it does not judge.
pub const COUNTERS: &[Counter] = &[
    Counter::DatagramsDecoded,
    Counter::DatagramsRejectedShort,
    Counter::DatagramsRejectedVersion,
    Counter::DatagramsRejectedLength,
    Counter::DatagramsRejectedLimit,
    Counter::DatagramsRejectedDuplicate,
    Counter::DatagramBytesTrailing,
    Counter::FlowRecords,
    Counter::OptionsRecords,
    Counter::Templates,
    Counter::TemplateWithdrawals,
    Counter::TemplatesRejected,
    Counter::SamplersRejected,
    Counter::RatesEndedTemplate,
    Counter::RatesEndedSilent,
    Counter::SetsPending,
    Counter::SetsReplayed,
    Counter::SetsDroppedPending,
    Counter::SetsRejectedLength,
    Counter::SetsRejectedLimit,
    Counter::SetsRejectedReserved,
    Counter::RecordsRejectedLength,
    Counter::RecordsRejectedSize,
    Counter::MessagesFurther,
    Counter::TemplatesForgotten,
    Counter::DatagramsClockOff,
    Counter::RecordsWithoutCounters,
    Counter::FlowsWithoutRate,
    Counter::FlowsRateAmbiguous,
    Counter::FlowsSamplerNotAnnounced,
    Counter::FlowsRateImplausible,
    Counter::FlowsDiscarded,
    Counter::FlowsOfAnswers,
    Counter::TemplatesExpired,
    Counter::TimesNegativeDuration,
    Counter::TimesFuture,
    Counter::TimesMissing,
];

/// What surrounds the sets of a datagram.
struct Context<'a> {
    limits: &'a DecodeLimits,
    sampling: &'a SamplingConfig,
    source: Address,
    key: DomainKey,
    received_at_ms: i64,
    clock: Clock,
    sequence: u32,
}

impl Model {
    pub fn count(&self, counter: Counter) -> u64 {
        self.counts.get(&counter).copied().unwrap_or(0)
    }

    fn add(&mut self, counter: Counter, amount: u64) {
        *self.counts.entry(counter).or_default() += amount;
    }

    /// Takes one datagram.
    pub fn decode(
        &mut self,
        limits: &DecodeLimits,
        sampling: &SamplingConfig,
        (source, port): (Address, u16),
        received_at_ms: i64,
        payload: &[u8],
    ) {
        self.port = port;
        // An input has no more datagrams than are remembered.
        if is_understood(payload) && !self.exporters.entry(source).or_default().seen.insert(payload.to_vec()) {
            return self.add(Counter::DatagramsRejectedDuplicate, 1);
        }
        let (outcome, mut rest) = self.message(limits, sampling, source, received_at_ms, payload);
        self.add(outcome, 1);
        while outcome == Counter::DatagramsDecoded && follows(payload, rest) {
            self.add(Counter::MessagesFurther, 1);
            rest = self.message(limits, sampling, source, received_at_ms, rest).1;
        }
        self.add(Counter::DatagramBytesTrailing, rest.len() as u64);
    }

    /// Takes the message at the front of a datagram; answers what became of it, and what is behind it.
    fn message<'a>(
        &mut self,
        limits: &DecodeLimits,
        sampling: &SamplingConfig,
        source: Address,
        received_at_ms: i64,
        payload: &'a [u8],
    ) -> (Counter, &'a [u8]) {
        let outcome = match be16(payload, 0) {
            Some(version @ (5 | 7)) => self.fixed(limits, sampling, source, received_at_ms, version as u8, payload),
            Some(9) => self.v9(limits, sampling, source, received_at_ms, payload),
            Some(10) => self.ipfix(limits, sampling, source, received_at_ms, payload),
            Some(_) => Err(Counter::DatagramsRejectedVersion),
            None => Err(Counter::DatagramsRejectedShort),
        };
        match outcome {
            Ok(behind) => (Counter::DatagramsDecoded, behind),
            Err(cause) => (cause, &[]),
        }
    }

    fn clock_of(&mut self, clock: Clock, received_at_ms: i64, limits: &DecodeLimits) {
        let off_ms = clock.export_ms.abs_diff(received_at_ms);
        self.add(
            Counter::DatagramsClockOff,
            u64::from(off_ms > limits.max_clock_skew_ms as u64),
        );
    }

    fn fixed<'a>(
        &mut self,
        limits: &DecodeLimits,
        sampling: &SamplingConfig,
        source: Address,
        received_at_ms: i64,
        version: u8,
        payload: &'a [u8],
    ) -> Result<&'a [u8], Counter> {
        if payload.len() < 24 {
            return Err(Counter::DatagramsRejectedShort);
        }
        let word16 = |at| be16(payload, at).expect("within the header");
        let word32 = |at| be32(payload, at).expect("within the header");
        let record_bytes = if version == 5 { 48 } else { 52 };
        let end = 24 + usize::from(word16(2)) * record_bytes;
        if payload.len() < end {
            return Err(Counter::DatagramsRejectedLength);
        }
        let (engine, word) = if version == 5 { (word16(20), word16(22)) } else { (0, 0) };
        let key = DomainKey {
            protocol_version: version,
            observation_domain: u32::from(engine),
        };
        let clock = Clock {
            export_ms: i64::from(word32(8)) * 1000 + i64::from(word32(12) / 1_000_000),
            uptime_ms: Some(word32(4)),
        };
        self.clock_of(clock, received_at_ms, limits);
        let exporter = self.exporters.entry(source).or_default();
        exporter.domains.entry(key).or_default();
        let told = v5_rate(word, sampling.of(source).v5_mode_bits.unwrap_or(true));
        let chosen = choose(sampling.of(source), told, &exporter.rates, key, FlowScope::template(0));
        let chosen = exporter.domains.entry(key).or_default().watched(chosen, received_at_ms);
        for record in payload[24..end].chunks(record_bytes) {
            let word16 = |at| be16(record, at).expect("within the record");
            let word32 = |at| be32(record, at).expect("within the record");
            let address = |at| Address::from_v4(word32(at).to_be_bytes());
            let protocol = record[38];
            let mut flow = Flow {
                received_at_ms,
                exporter: source,
                observation_domain: key.observation_domain,
                protocol_version: version,
                sampling_rate: chosen.rate,
                sampling_divisor: chosen.divisor,
                marks: chosen.marks(),
                src_addr: address(0),
                dst_addr: address(4),
                in_if: word16(12).into(),
                out_if: word16(14).into(),
                packets: word32(16).into(),
                bytes: word32(20).into(),
                src_port: word16(32),
                dst_port: word16(34),
                tcp_flags: record[37],
                ip_protocol: protocol,
                tos: record[39],
                src_as: word16(40).into(),
                dst_as: word16(42).into(),
                src_mask: record[44],
                dst_mask: record[45],
                icmp_type_code: if [1, 58].contains(&protocol) { word16(34) } else { 0 },
                ..Flow::default()
            };
            if cannot_be(&flow) {
                self.add(Counter::RecordsRejectedSize, 1);
                continue;
            }
            if word32(8) != 0 {
                flow.next_hop = address(8);
            }
            mark_without_route(&mut flow);
            let at = |at| resolve(TimeKind::SysUptime, word32(at).into(), clock);
            self.push(flow, at(24), at(28), limits);
        }
        Ok(&payload[end..])
    }

    fn push(&mut self, mut flow: Flow, start_ms: Option<i64>, end_ms: Option<i64>, limits: &DecodeLimits) {
        let times = normalise(start_ms, end_ms, flow.received_at_ms, &limits.times());
        flow.start_at_ms = times.start_ms;
        flow.end_at_ms = times.end_ms;
        flow.exporter_port = self.port;
        self.add(Counter::TimesMissing, times.missing.into());
        self.add(Counter::TimesNegativeDuration, times.negative_duration.into());
        self.add(Counter::TimesFuture, times.future.into());
        self.add(Counter::FlowsWithoutRate, u64::from(flow.sampling_rate == 0));
        let marked = |mark| u64::from(flow.marks & mark != 0);
        let (ambiguous, not_announced) = (marked(marks::RATE_AMBIGUOUS), marked(marks::SAMPLER_NOT_ANNOUNCED));
        self.add(Counter::FlowsRateAmbiguous, ambiguous);
        self.add(Counter::FlowsSamplerNotAnnounced, not_announced);
        self.add(Counter::FlowsRateImplausible, marked(marks::RATE_IMPLAUSIBLE));
        self.add(Counter::FlowsDiscarded, u64::from(flow.forwarding_status >> 6 == 2));
        self.add(Counter::FlowRecords, 1);
        self.flows.push(flow);
    }

    fn v9<'a>(
        &mut self,
        limits: &DecodeLimits,
        sampling: &SamplingConfig,
        source: Address,
        received_at_ms: i64,
        payload: &'a [u8],
    ) -> Result<&'a [u8], Counter> {
        if payload.len() < 20 {
            return Err(Counter::DatagramsRejectedShort);
        }
        let word32 = |at| be32(payload, at).expect("within the header");
        let context = Context {
            limits,
            sampling,
            source,
            key: DomainKey {
                protocol_version: 9,
                observation_domain: word32(16),
            },
            received_at_ms,
            clock: Clock {
                export_ms: i64::from(word32(8)) * 1000,
                uptime_ms: Some(word32(4)),
            },
            sequence: word32(12),
        };
        let read_bytes = self.sets(&context, &payload[20..]);
        Ok(&payload[20 + read_bytes..])
    }

    fn ipfix<'a>(
        &mut self,
        limits: &DecodeLimits,
        sampling: &SamplingConfig,
        source: Address,
        received_at_ms: i64,
        payload: &'a [u8],
    ) -> Result<&'a [u8], Counter> {
        if payload.len() < 16 {
            return Err(Counter::DatagramsRejectedShort);
        }
        let mut length = usize::from(be16(payload, 2).expect("within the header"));
        if !(16..=payload.len()).contains(&length) {
            return Err(Counter::DatagramsRejectedLength);
        }
        // A last set that is whole though the header cuts it short.
        let mut at = 16;
        while at + 4 <= length {
            let set_bytes = usize::from(be16(payload, at + 2).expect("within the datagram"));
            if set_bytes < 4 {
                break;
            }
            at += set_bytes;
            if at > length && at <= payload.len() {
                length = at;
            }
        }
        let word32 = |at| be32(payload, at).expect("within the header");
        let context = Context {
            limits,
            sampling,
            source,
            key: DomainKey {
                protocol_version: 10,
                observation_domain: word32(12),
            },
            received_at_ms,
            clock: Clock {
                export_ms: i64::from(word32(4)) * 1000,
                uptime_ms: None,
            },
            sequence: word32(8),
        };
        self.sets(&context, &payload[16..length]);
        Ok(&payload[length..])
    }

    fn domain(&mut self, context: &Context<'_>) -> &mut Domain {
        let exporter = self.exporters.entry(context.source).or_default();
        exporter.domains.entry(context.key).or_default()
    }

    /// Reads the sets of a message; answers how many bytes are of it.
    fn sets(&mut self, context: &Context<'_>, body: &[u8]) -> usize {
        let is_v9 = context.key.protocol_version == 9;
        self.clock_of(context.clock, context.received_at_ms, context.limits);
        self.restart(context);
        let oldest_ms = context.received_at_ms - context.limits.pending_max_age_ms;
        let waiting = &mut self.domain(context).waiting;
        let mut expired = 0;
        while waiting.front().is_some_and(|set| set.received_at_ms < oldest_ms) {
            waiting.pop_front();
            expired += 1;
        }
        self.add(Counter::SetsDroppedPending, expired);

        // Data sets that were met and not read yet, in their order.
        let mut unread: Vec<(u16, &[u8])> = Vec::new();
        let mut defined: Vec<u16> = Vec::new();
        let mut rest = body;
        let mut rest_bytes = 0;
        while let (Some(id), Some(length)) = (be16(rest, 0), be16(rest, 2)) {
            rest_bytes = rest.len();
            let length = usize::from(length);
            if is_v9 && id == 9 && is_v9_message(rest, context.clock) {
                break;
            }
            if !(4..=rest.len()).contains(&length) {
                rest_bytes = 0;
                if rest.iter().all(|byte| *byte == 0) {
                    self.add(Counter::DatagramBytesTrailing, rest.len() as u64);
                    break;
                }
                self.add(Counter::SetsRejectedLength, 1);
                break;
            }
            let set = &rest[4..length];
            rest = &rest[length..];
            rest_bytes = 0;
            match (is_v9, id) {
                (true, 0) | (false, 2) => self.template_set(context, set, false, &mut unread, &mut defined),
                (true, 1) | (false, 3) => self.template_set(context, set, true, &mut unread, &mut defined),
                _ if id < FIRST_TEMPLATE_ID => self.add(Counter::SetsRejectedReserved, 1),
                _ => unread.push((id, set)),
            }
        }
        for is_options in [true, false] {
            for id in &defined {
                self.read_waiting(context, *id, is_options);
            }
            self.read_now(context, &mut unread, |_, template| template.is_options == is_options);
        }
        for (id, set) in unread {
            self.add(Counter::SetsPending, 1);
            let waiting = Waiting {
                id,
                body: set.to_vec(),
                received_at_ms: context.received_at_ms,
                clock: context.clock,
            };
            self.domain(context).waiting.push_back(waiting);
        }
        body.len() - rest_bytes
    }

    /// An uptime that went back by more than a minute, though the numbers do not go on and the datagram is not late: templates,
    /// and what waits for them, are void.
    fn restart(&mut self, context: &Context<'_>) {
        let Some(uptime_ms) = context.clock.uptime_ms else {
            return;
        };
        let export_ms = context.clock.export_ms;
        let domain = self.domain(context);
        let back_ms = domain
            .numbers
            .uptime_ms()
            .map(|before_ms| -i64::from(uptime_ms.wrapping_sub(before_ms) as i32));
        let is_late = back_ms.is_some_and(|back_ms| {
            let same_start = (domain.uptime_told_at_ms - export_ms).abs_diff(back_ms) <= 5_000;
            back_ms > 0 && same_start && export_ms.abs_diff(context.received_at_ms) <= 600_000
        });
        let goes_on = domain.numbers.step_to(context.sequence) == Some(0);
        if is_late {
            domain.numbers.observe(context.sequence, Some(1), None);
            return;
        }
        domain.uptime_told_at_ms = export_ms;
        domain.numbers.observe(context.sequence, Some(1), Some(uptime_ms));
        if back_ms.is_some_and(|back_ms| back_ms > 60_000) && !goes_on {
            self.forget(context, i64::MAX);
        }
    }

    fn forget(&mut self, context: &Context<'_>, before_ms: i64) {
        let domain = self.domain(context);
        let (templates, waiting) = (domain.templates.len(), domain.waiting.len());
        let sent_ms = std::mem::take(&mut domain.sent_ms);
        domain.templates.retain(|id, _| sent_ms[id] >= before_ms);
        domain.sent_ms = sent_ms;
        // Oldest first: a set that came late holds back those behind it.
        while domain.waiting.front().is_some_and(|set| set.received_at_ms < before_ms) {
            domain.waiting.pop_front();
        }
        let templates = templates - domain.templates.len();
        let waiting = waiting - domain.waiting.len();
        self.add(Counter::TemplatesForgotten, templates as u64);
        self.add(Counter::SetsDroppedPending, waiting as u64);
    }

    /// Reads and takes out the data sets whose template is known and wanted.
    fn read_now(
        &mut self,
        context: &Context<'_>,
        unread: &mut Vec<(u16, &[u8])>,
        wanted: impl Fn(u16, &Template) -> bool,
    ) {
        let sets = std::mem::take(unread);
        for (id, set) in sets {
            match self.domain(context).templates.get(&id).cloned() {
                Some(template) if wanted(id, &template) => self.data_set(context, id, &template, set),
                _ => unread.push((id, set)),
            }
        }
    }

    fn read_waiting(&mut self, context: &Context<'_>, id: u16, is_options: bool) {
        let domain = self.domain(context);
        let Some(template) = domain.templates.get(&id).cloned() else {
            return;
        };
        if template.is_options != is_options {
            return;
        }
        let (freed, kept): (Vec<Waiting>, Vec<Waiting>) = domain.waiting.drain(..).partition(|set| set.id == id);
        domain.waiting = kept.into();
        for set in freed {
            if !self.domain(context).templates.contains_key(&id) {
                // One before it told a restart.
                self.add(Counter::SetsDroppedPending, 1);
                continue;
            }
            self.add(Counter::SetsReplayed, 1);
            let then = Context {
                received_at_ms: set.received_at_ms,
                clock: set.clock,
                ..*context
            };
            self.data_set(&then, id, &template, &set.body);
        }
    }

    fn template_set(
        &mut self,
        context: &Context<'_>,
        mut set: &[u8],
        is_options: bool,
        unread: &mut Vec<(u16, &[u8])>,
        defined: &mut Vec<u16>,
    ) {
        while set.len() >= 4 {
            if set.starts_with(&[0, 0]) {
                self.add(Counter::TemplatesRejected, u64::from(set.iter().any(|byte| *byte != 0)));
                return;
            }
            match template_record(set, context.key.protocol_version == 9, is_options) {
                None => {
                    self.add(Counter::TemplatesRejected, 1);
                    return;
                }
                Some((id, None, behind)) => {
                    set = behind;
                    self.withdraw(context, id, is_options, unread);
                }
                Some((id, Some(template), behind)) => {
                    set = behind;
                    self.define(context, id, template, unread, defined);
                }
            }
        }
    }

    fn withdraw(&mut self, context: &Context<'_>, id: u16, is_options: bool, unread: &mut Vec<(u16, &[u8])>) {
        self.add(Counter::TemplateWithdrawals, 1);
        let all_of_kind = id == if is_options { 3 } else { 2 };
        if all_of_kind {
            self.read_now(context, unread, |_, _| true);
            let ids: Vec<u16> = self.domain(context).templates.keys().copied().collect();
            for id in ids.into_iter().filter(|_| is_options) {
                self.end_rates(context, id);
            }
            let templates = &mut self.domain(context).templates;
            templates.retain(|_, template| template.is_options != is_options);
        } else if id >= FIRST_TEMPLATE_ID {
            self.read_now(context, unread, |set_id, _| set_id == id);
            self.end_rates(context, id);
            self.domain(context).templates.remove(&id);
        }
    }

    /// What an options template announced ends with it.
    fn end_rates(&mut self, context: &Context<'_>, id: u16) {
        let template = self.domain(context).templates.get(&id);
        if template.is_some_and(|template| template.is_options) {
            let exporter = self.exporters.entry(context.source).or_default();
            let ended = exporter.rates.end_of_template(OptionsTemplate {
                domain: context.key,
                id,
            });
            self.add(Counter::RatesEndedTemplate, ended);
        }
    }

    fn define(
        &mut self,
        context: &Context<'_>,
        id: u16,
        template: Template,
        unread: &mut Vec<(u16, &[u8])>,
        defined: &mut Vec<u16>,
    ) {
        let usable = id >= FIRST_TEMPLATE_ID
            && (1..=context.limits.max_template_fields).contains(&template.fields.len())
            && template.scopes <= template.fields.len();
        if !usable {
            // What follows is not of the known layout.
            self.read_now(context, unread, |set_id, _| set_id == id);
            self.end_rates(context, id);
            self.domain(context).templates.remove(&id);
            return self.add(Counter::TemplatesRejected, 1);
        }
        let received_at_ms = context.received_at_ms;
        let known = self.domain(context).templates.get(&id);
        if known == Some(&template) {
            self.domain(context).sent_ms.insert(id, received_at_ms);
            return self.add(Counter::Templates, 1);
        }
        if known.is_some() {
            self.read_now(context, unread, |set_id, _| set_id == id);
            self.end_rates(context, id);
        }
        let record_bytes = template.record_min_bytes();
        if record_bytes == 0 || record_bytes > 65535 {
            self.domain(context).templates.remove(&id);
            return self.add(Counter::TemplatesRejected, 1);
        }
        self.add(Counter::Templates, 1);
        self.domain(context).templates.insert(id, template);
        self.domain(context).sent_ms.insert(id, received_at_ms);
        if !defined.contains(&id) {
            defined.push(id);
        }
    }

    fn data_set(&mut self, context: &Context<'_>, id: u16, template: &Template, set: &[u8]) {
        let is_v9 = context.key.protocol_version == 9;
        let mut rest = set;
        let mut restarted_at_ms = None;
        let mut announced = Vec::new();
        let exporter = self.exporters.entry(context.source).or_default();
        let boot_ms = exporter
            .domains
            .get(&context.key)
            .and_then(|domain| domain.boot_ms)
            .or(exporter.boot_ms);
        while rest.len() >= template.record_min_bytes() {
            let Some((values, behind)) = template.read(rest, is_v9) else {
                break;
            };
            rest = behind;
            if template.is_options {
                restarted_at_ms = self
                    .options_record(context, &values, &mut announced)
                    .or(restarted_at_ms);
            } else {
                self.flow_record(context, &values, boot_ms, id);
            }
        }
        if !announced.is_empty() {
            let exporter = self.exporters.entry(context.source).or_default();
            let room = AnnouncementCapacity {
                of_domain: context.limits.max_samplers_per_domain,
                elsewhere: 0,
                of_session: usize::MAX,
            };
            let refused = exporter.rates.announce(
                OptionsTemplate {
                    domain: context.key,
                    id,
                },
                &announced,
                room,
                context.received_at_ms,
            );
            let ended = exporter.rates.end_silent(context.received_at_ms);
            self.add(Counter::SamplersRejected, refused);
            self.add(Counter::RatesEndedSilent, ended);
        }
        let cut_off = rest.len() > 3 && rest.iter().any(|byte| *byte != 0);
        self.add(Counter::RecordsRejectedLength, cut_off.into());
        if let Some(restarted_at_ms) = restarted_at_ms {
            self.forget(context, restarted_at_ms.saturating_sub(60_000));
        }
    }

    /// Answers when the exporter started again, where the record tells a new start.
    fn options_record(
        &mut self,
        context: &Context<'_>,
        values: &Values<'_>,
        announced: &mut Vec<Announcement>,
    ) -> Option<i64> {
        self.add(Counter::OptionsRecords, 1);
        let told = values.sampling().told();
        if told.rate.is_known() {
            let is_v9 = context.key.protocol_version == 9;
            announced.push(Announcement {
                domain: values.named_domain(is_v9),
                selector: values.selector(is_v9),
                told,
            });
        }
        let boot_ms = values.number(&[&[160]]);
        if let (1.., Ok(boot_ms)) = (boot_ms, i64::try_from(boot_ms)) {
            let before_ms = self.domain(context).boot_ms.replace(boot_ms);
            self.exporters.entry(context.source).or_default().boot_ms = Some(boot_ms);
            if before_ms.is_some_and(|before_ms| boot_ms.saturating_sub(before_ms) > 60_000) {
                let up_ms = context.clock.export_ms.saturating_sub(boot_ms);
                return Some(context.received_at_ms.saturating_sub(up_ms));
            }
        }
        None
    }
}
