//! A data record's flow, and that of its answer.

use collector::counts::Counter;
use collector::sampling::{FlowScope, choose};
use collector::times::{TimeKind, resolve};
use schemas::address::Address;
use tables::flow::{DIRECTION_UNKNOWN, FORWARDING_DROPPED, Flow, marks};

use super::record::{Ranks, Values};
use super::rules::{END_ELEMENTS, START_ELEMENTS, cannot_be, is_too_large, mark_without_route};
use super::{Context, Model};

impl Model {
    pub(super) fn flow_record(&mut self, context: &Context<'_>, values: &Values<'_>, boot_ms: Option<i64>, id: u16) {
        let bytes: Ranks<'_> = &[&[1], &[85], &[23], &[171], &[231], &[352, 417]];
        self.met_totals |= values.has(&[&[233]]) || (values.has(&[&[85]]) && !values.has(&[&[1]]));
        let of_vendor = if values.has(bytes) { None } else { values.procera() };
        if !values.has(bytes) && of_vendor.is_none() {
            self.met_a_packet_section |= values.has_packet_section;
            return self.add(Counter::RecordsWithoutCounters, 1);
        }
        let protocol = values.kept(&[&[4]], 8) as u8;
        let dst_port = values.kept(&[&[11], &[181, 183]], 16) as u16;
        let icmp = values.kept(&[&[32, 139]], 16) as u16;
        let icmp_type_code = if !values.has(&[&[32, 139], &[176, 178]]) {
            if [1, 58].contains(&protocol) { dst_port } else { 0 }
        } else if icmp != 0 {
            icmp
        } else {
            let (kind, code) = (values.first(&[&[176, 178]], 8), values.first(&[&[177, 179]], 8));
            u16::from_be_bytes([kind as u8, code as u8])
        };
        let mut flow = Flow {
            received_at_ms: context.received_at_ms,
            exporter: context.source,
            observation_domain: context.key.observation_domain,
            protocol_version: context.key.protocol_version,
            bytes: of_vendor.unwrap_or_else(|| values.number(bytes)),
            packets: values.number(&[&[2], &[86], &[24], &[172], &[298]]),
            ip_protocol: protocol,
            tos: values.kept(&[&[5]], 8) as u8,
            tcp_flags: values.kept(&[&[6]], 8) as u8,
            src_port: values.kept(&[&[7], &[180, 182]], 16) as u16,
            dst_port,
            src_addr: values.address(&[8, 27]),
            dst_addr: values.address(&[12, 28]),
            src_mask: values.kept(&[&[9, 29]], 8) as u8,
            dst_mask: values.kept(&[&[13, 30]], 8) as u8,
            in_if: values.kept(&[&[10], &[252]], 32) as u32,
            out_if: values.kept(&[&[14], &[253]], 32) as u32,
            next_hop: values.next_hop(),
            src_as: values.kept(&[&[16]], 32) as u32,
            dst_as: values.kept(&[&[17]], 32) as u32,
            icmp_type_code,
            in_vlan: values.vlan(&[&[58], &[243]], &[&[59], &[254]]),
            out_vlan: values.vlan(&[&[59], &[254]], &[&[58], &[243]]),
            direction: match values.number(&[&[61]]) {
                value @ 0..=1 if values.has(&[&[61]]) => value as u8,
                _ => DIRECTION_UNKNOWN,
            },
            forwarding_status: match values.kept(&[&[89]], 8) as u8 {
                0 if values.met_exception() => FORWARDING_DROPPED,
                told => told,
            },
            ..Flow::default()
        };
        if !values.has(&bytes[..5]) && of_vendor.is_none() && flow.packets.saturating_mul(14) <= flow.bytes {
            flow.bytes -= flow.packets.saturating_mul(14);
            flow.marks |= marks::LAYER2_TAKEN_OFF;
        }
        let station = values.address(&[366]);
        let side = if flow.direction == 1 {
            &mut flow.dst_addr
        } else {
            &mut flow.src_addr
        };
        if *side == Address::UNSPECIFIED {
            *side = station;
        }
        let of_same_packets = [(1, 2), (85, 86), (23, 24), (171, 172), (231, 298)];
        let counted = |elements: [u16; 5]| elements.into_iter().position(|element| values.has(&[&[element]]));
        let (of_bytes, of_packets) = (
            counted(of_same_packets.map(|(bytes, _)| bytes)),
            counted(of_same_packets.map(|(_, packets)| packets)),
        );
        if of_bytes == of_packets && cannot_be(&flow) {
            return self.add(Counter::RecordsRejectedSize, 1);
        }
        let named = FlowScope {
            sampler: values.sampler(),
            in_if: flow.in_if,
            out_if: flow.out_if,
            direction: flow.direction,
            template: id,
        };
        let exporter = self.exporters.entry(context.source).or_default();
        let (config, rates) = (context.sampling.of(context.source), &exporter.rates);
        let chosen = choose(config, values.sampling().told(), rates, context.key, named);
        flow.sampling_rate = chosen.rate;
        flow.sampling_divisor = chosen.divisor;
        flow.marks |= chosen.marks();
        if values.has(&[&[14], &[253]]) && values.has(&[&[15, 62], &[18, 63]]) {
            mark_without_route(&mut flow);
        }
        let own_boot_ms = match values.number(&[&[160]]) {
            0 => boot_ms,
            own => i64::try_from(own).ok(),
        };
        let mut clock = context.clock;
        if let (None, Some(boot_ms)) = (clock.uptime_ms, own_boot_ms) {
            clock.uptime_ms = Some(clock.export_ms.wrapping_sub(boot_ms) as u32);
        }
        // In IPFIX uptimes give way to times that need no start, where the template does not tell it.
        let reads_uptimes = context.key.protocol_version == 9
            || values.has(&[&[160]])
            || !values.has(&[&[150], &[158]])
            || !values.has(&[&[151], &[159]]);
        let instant = |elements: &[(u16, TimeKind)]| {
            let mut readable = elements
                .iter()
                .filter(|(_, kind)| reads_uptimes || *kind != TimeKind::SysUptime);
            let (element, kind) = *readable.find(|(element, _)| values.has(&[&[*element]]))?;
            resolve(kind, values.number(&[&[element]]), clock)
        };
        let (mut start_ms, mut end_ms) = (instant(&START_ELEMENTS), instant(&END_ELEMENTS));
        let duration_ms = if values.has(&[&[162]]) {
            Some(values.number(&[&[162]]) / 1000)
        } else {
            values.has(&[&[161]]).then(|| values.number(&[&[161]]))
        };
        if let Some(duration_ms) = duration_ms.and_then(|duration_ms| i64::try_from(duration_ms).ok()) {
            match (start_ms, end_ms) {
                (Some(start), None) => end_ms = start.checked_add(duration_ms),
                (None, Some(end)) => start_ms = end.checked_sub(duration_ms),
                _ => {}
            }
        }
        self.push(flow, start_ms, end_ms, context.limits);
        self.answer(values);
    }

    /// The other direction of the record that gave the last flow.
    fn answer(&mut self, values: &Values<'_>) {
        let bytes = values.answer(&[(true, 1), (false, 232), (true, 85)]).unwrap_or(0);
        let packets = values.answer(&[(true, 2), (false, 299), (true, 86)]).unwrap_or(0);
        let Some(flow) = self.flows.last().copied().filter(|_| bytes > 0 || packets > 0) else {
            return;
        };
        if is_too_large(bytes, packets) {
            return self.add(Counter::RecordsRejectedSize, 1);
        }
        let answer = Flow {
            src_addr: flow.dst_addr,
            dst_addr: flow.src_addr,
            src_port: flow.dst_port,
            dst_port: flow.src_port,
            src_as: flow.dst_as,
            dst_as: flow.src_as,
            src_mask: flow.dst_mask,
            dst_mask: flow.src_mask,
            in_if: flow.out_if,
            out_if: flow.in_if,
            in_vlan: flow.out_vlan,
            out_vlan: flow.in_vlan,
            next_hop: Address::UNSPECIFIED,
            direction: DIRECTION_UNKNOWN,
            tcp_flags: values.answer(&[(true, 6)]).unwrap_or(0) as u8,
            tos: values.answer(&[(true, 5)]).map_or(flow.tos, |tos| tos as u8),
            marks: (flow.marks & !marks::NO_ROUTE) | marks::ANSWER,
            bytes,
            packets,
            ..flow
        };
        self.add(Counter::FlowRecords, 1);
        self.add(Counter::FlowsOfAnswers, 1);
        self.add(Counter::FlowsWithoutRate, u64::from(answer.sampling_rate == 0));
        let marked = |mark| u64::from(answer.marks & mark != 0);
        let (ambiguous, not_announced) = (marked(marks::RATE_AMBIGUOUS), marked(marks::SAMPLER_NOT_ANNOUNCED));
        self.add(Counter::FlowsRateAmbiguous, ambiguous);
        self.add(Counter::FlowsSamplerNotAnnounced, not_announced);
        self.add(Counter::FlowsRateImplausible, marked(marks::RATE_IMPLAUSIBLE));
        self.add(Counter::FlowsDiscarded, u64::from(answer.forwarding_status >> 6 == 2));
        self.flows.push(answer);
    }
}
