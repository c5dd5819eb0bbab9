//! What records mean beyond their fields, with the facts of captures of real devices.

mod observed;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::assignment::{Assignment, Assignments, Target};
use schemas::metering::{ExporterConfig, MeterDirection, MeteringConfig};
use schemas::window::{WindowStart, spread};
use tables::flow::{FlowColumns, Metered, SpanBound, marks};
use tables::metering::Enricher;

use super::*;

const MINUTE_MS: i64 = 60_000;
const V4_OF_SERVICE: u64 = 0xc633_640a; // 198.51.100.10
const V4_OUTSIDE: u64 = 0xcb00_7107; // 203.0.113.7

fn configured(set: impl FnOnce(&mut ExporterConfig)) -> NetflowDecoder {
    let mut config = ExporterConfig {
        default_sampling_rate: Some(1),
        ..ExporterConfig::unlisted(exporter())
    };
    set(&mut config);
    let metering = MeteringConfig {
        exporters: vec![config],
        ..MeteringConfig::default()
    };
    NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::from(&metering))
}

fn record(template: &[(u16, u16)], values: &[u64]) -> Vec<u8> {
    let field = |((_, length), value): (&(u16, u16), &u64)| {
        let bytes = value.to_be_bytes();
        bytes[8 - usize::from(*length)..].to_vec()
    };
    template.iter().zip(values).flat_map(field).collect()
}

/// A message of one template and records of it, exported at a minute after [`NOW_MS`].
fn message(minute: i64, template: &[(u16, u16)], records: &[Vec<u64>]) -> Vec<u8> {
    numbered(0, minute, template, records)
}

fn numbered(sequence: u32, minute: i64, template: &[(u16, u16)], records: &[Vec<u64>]) -> Vec<u8> {
    let body: Vec<u8> = records.iter().flat_map(|values| record(template, values)).collect();
    let mut ipfix = Ipfix::new().sequence(sequence).template(256, template).set(256, &body);
    ipfix.export_s = NOW_S + u32::try_from(minute * 60).unwrap();
    ipfix.build()
}

fn at(minute: i64) -> i64 {
    NOW_MS + minute * MINUTE_MS
}

fn decode_each(decoder: &mut NetflowDecoder, messages: &[(i64, Vec<u8>)]) -> Decoded {
    let mut out = Decoded::default();
    for (minute, payload) in messages {
        decode_at(decoder, payload, at(*minute), &mut out);
    }
    out
}

/// What Junos' templates begin with, and another order of the same fields.
const JUNOS: &[(u16, u16)] = &[
    (8, 4),
    (12, 4),
    (5, 1),
    (4, 1),
    (7, 2),
    (11, 2),
    (32, 2),
    (10, 4),
    (14, 4),
    (1, 8),
    (2, 8),
    (152, 8),
    (153, 8),
    (61, 1),
];
const OTHER: &[(u16, u16)] = &[
    (8, 4),
    (12, 4),
    (10, 4),
    (14, 4),
    (1, 8),
    (2, 8),
    (152, 8),
    (153, 8),
    (7, 2),
    (11, 2),
    (4, 1),
    (5, 1),
    (32, 2),
    (61, 1),
];

/// A report of one long flow: its start and its end.
fn report(template: &[(u16, u16)], start_ms: i64, end_ms: i64) -> Vec<u64> {
    let value = |element: u16| match element {
        8 => V4_OUTSIDE,
        12 => V4_OF_SERVICE,
        4 => 6,
        7 => 443,
        11 => 50_000,
        10 => 513,
        14 => 600,
        1 => 7_500_000,
        2 => 5_000,
        152 => start_ms as u64,
        153 => end_ms as u64,
        _ => 0,
    };
    template.iter().map(|(element, _)| value(*element)).collect()
}

/// Deltas of a minute each, of a session that began five days before.
fn minutes_of_a_session(template: &[(u16, u16)], minutes: std::ops::RangeInclusive<i64>) -> Vec<(i64, Vec<u8>)> {
    let start_ms = at(0) - 5 * 86_400_000;
    let of_minute = |minute| {
        let values = report(template, start_ms, at(minute) - 500);
        (minute, message(minute, template, &[values]))
    };
    minutes.map(of_minute).collect()
}

fn spans(out: &Decoded) -> Vec<(i64, SpanBound)> {
    let rows = out.flows.rows();
    rows.iter()
        .map(|flow| (flow.start_at_ms - NOW_MS, flow.span_bound))
        .collect()
}

#[test]
fn a_delta_of_a_long_session_is_of_the_minute_since_the_last_report() {
    let session = minutes_of_a_session(JUNOS, 1..=10);
    for (mut decoder, first, counter) in [
        (
            configured(|exporter| exporter.active_timeout_s = Some(60)),
            SpanBound::Configured,
            Counter::SpansBoundedConfigured,
        ),
        (decoder(), SpanBound::Learned, Counter::SpansBoundedLearned),
    ] {
        let out = decode_each(&mut decoder, &session);
        let expected: Vec<_> = (0..10).map(|minute| (minute * MINUTE_MS, first)).collect();
        assert_eq!(spans(&out), expected, "from the first report on");
        let flow = out.flows.rows()[3];
        assert_eq!(flow.reported_start(), NOW_MS - 5 * 86_400_000, "what was said is kept");
        assert_eq!(flow.end_at_ms, at(4) - 500);
        assert_eq!(out.counts.total(counter), 10);
        assert_eq!(out.counts.total(Counter::TimesTooOld), 0, "bounded, not shortened");
        let timeout = decoder.domains()[0].active_timeout.unwrap();
        assert_eq!((timeout.seconds(), timeout.told_by), (60, first));
    }
}

#[test]
fn a_delta_of_the_first_minute_of_a_month_stays_in_it() {
    // One record of a session of three days, the first one that is heard.
    let midnight_ms = NOW_MS;
    let values = report(JUNOS, midnight_ms - 3 * 86_400_000, midnight_ms + 59_500);
    let out = decode_each(&mut decoder(), &[(1, message(1, JUNOS, &[values]))]);
    assert_eq!(spans(&out), [(0, SpanBound::Learned)]);
}

#[test]
fn options_data_tells_the_active_timeout() {
    let mut decoder = decoder();
    let options = Ipfix::new()
        .options_template(512, 1, &[(144, 4), (36, 2), (37, 2)])
        .set(512, &[0, 0, 0, 1, 0, 60, 0, 60])
        .build();
    let mut messages = vec![(0, options)];
    messages.extend(minutes_of_a_session(OTHER, 1..=3));
    let out = decode_each(&mut decoder, &messages);
    let expected: Vec<_> = (0..3).map(|minute| (minute * MINUTE_MS, SpanBound::Options)).collect();
    assert_eq!(spans(&out), expected);
    assert_eq!(out.counts.total(Counter::SpansBoundedOptions), 3);
    // Junos without a flow cache announces 0.
    let none = Ipfix::new()
        .options_template(512, 1, &[(144, 4), (36, 2), (37, 2)])
        .set(512, &[0, 0, 0, 1, 0, 0, 0, 0])
        .build();
    decode_each(&mut decoder, &[(4, none)]);
    assert_ne!(
        decoder.domains()[0].active_timeout.map(|timeout| timeout.told_by),
        Some(SpanBound::Options)
    );
}

#[test]
fn an_exporter_that_keeps_starts_is_found_out_by_its_records() {
    let mut decoder = decoder();
    let start_ms = at(0) - 5 * 86_400_000;
    let of_minute = |minute: i64| {
        let values = report(OTHER, start_ms, at(minute) - 500);
        (minute, numbered(minute as u32 - 1, minute, OTHER, &[values]))
    };
    let mut session: Vec<_> = (1..=6).map(of_minute).collect();
    // The fourth report is lost.
    session.remove(3);
    let out = decode_each(&mut decoder, &session);
    let bounded = spans(&out);
    assert_eq!(bounded[0].1, SpanBound::None, "one report shows nothing");
    assert_eq!(
        bounded[1..],
        [1, 2, 4, 5].map(|minute| (minute * MINUTE_MS, SpanBound::Learned)),
        "what came since the lost report, too, is of its last minute"
    );
    // Without numbers nothing shows that one was lost: it is as if the timeout had been changed.
    let mut unnumbered = minutes_of_a_session(OTHER, 1..=6);
    unnumbered.remove(3);
    assert_eq!(
        spans(&decode_each(&mut super::decoder(), &unnumbered))[1..],
        [1, 2, 3, 5].map(|minute| (minute * MINUTE_MS, SpanBound::Learned))
    );
    let timeout = decoder.domains()[0].active_timeout.unwrap();
    assert_eq!((timeout.seconds(), timeout.told_by), (60, SpanBound::Learned));
}

#[test]
fn a_restarted_decoder_goes_on_with_what_was_learned() {
    let session = minutes_of_a_session(OTHER, 1..=8);
    let whole = decode_each(&mut decoder(), &session);
    let mut first = decoder();
    let mut halves = decode_each(&mut first, &session[..4]).flows.rows();
    let checkpoint = serde_json::to_string(&first.checkpoint()).unwrap();
    let restored = serde_json::from_str(&checkpoint).unwrap();
    let mut second = NetflowDecoder::restore(DecodeLimits::default(), SamplingConfig::default(), restored);
    halves.extend(decode_each(&mut second, &session[4..]).flows.rows());
    assert_eq!(whole.flows.rows(), halves);
}

#[test]
fn an_ordinary_flow_as_long_as_the_timeout_is_left_alone() {
    // Half an hour each, begun anew with each report, of twenty flows.
    let mut messages = Vec::new();
    for report_number in 1..=4 {
        let records: Vec<Vec<u64>> = (0..20)
            .map(|flow| {
                let mut values = report(OTHER, at((report_number - 1) * 30), at(report_number * 30) - 500);
                values[9] = 50_000 + flow;
                values
            })
            .collect();
        messages.push((report_number * 30, message(report_number * 30, OTHER, &records)));
    }
    let mut decoder = decoder();
    let out = decode_each(&mut decoder, &messages);
    assert_eq!(out.flows.len(), 80);
    assert!(
        out.flows
            .iter()
            .all(|flow| flow.span_bound == SpanBound::None && flow.reported_start_at_ms == 0)
    );
    assert_eq!(decoder.domains()[0].active_timeout, None);
    // Junos' own longest timeout is ten minutes.
    let ten = message(10, JUNOS, &[report(JUNOS, at(0), at(10) - 500)]);
    assert_eq!(
        spans(&decode_each(&mut super::decoder(), &[(10, ten)])),
        [(0, SpanBound::None)]
    );
}

#[test]
fn shorter_reports_of_a_session_count_from_the_last_one() {
    let mut decoder = configured(|exporter| exporter.active_timeout_s = Some(60));
    let mut messages = minutes_of_a_session(OTHER, 1..=2);
    // The session ends 20 seconds after its last report.
    let values = report(OTHER, at(0) - 5 * 86_400_000, at(2) + 20_000);
    let mut last = Ipfix::new().template(256, OTHER).set(256, &record(OTHER, &values));
    last.export_s = NOW_S + 141;
    messages.push((3, last.build()));
    let out = decode_each(&mut decoder, &messages);
    assert_eq!(spans(&out)[2], (2 * MINUTE_MS, SpanBound::Configured));
}

/// Reports of one session at these minutes, 1 MB for each minute since the one before.
fn megabyte_a_minute(start_ms: i64, minutes: &[i64]) -> Decoded {
    let mut before = 0;
    let mut messages = Vec::new();
    for (number, &minute) in minutes.iter().enumerate() {
        let mut values = report(OTHER, start_ms, at(minute));
        (values[4], values[5]) = ((minute - before) as u64 * 1_000_000, (minute - before) as u64 * 1_000);
        messages.push((minute, numbered(number as u32, minute, OTHER, &[values])));
        before = minute;
    }
    decode_each(&mut decoder(), &messages)
}

#[test]
fn case_b2_a_timeout_that_was_changed_leaves_each_minute_its_bytes() {
    let minutes: Vec<i64> = (1..=60).chain((70..=120).step_by(10)).collect();
    let out = megabyte_a_minute(at(0), &minutes);
    let mut windows: BTreeMap<i64, u64> = BTreeMap::new();
    for flow in out.flows.iter() {
        spread(
            flow.bytes,
            flow.start_at_ms,
            flow.end_at_ms,
            |window: WindowStart, bytes| {
                *windows.entry((window.start_ms() - NOW_MS) / MINUTE_MS).or_default() += bytes;
            },
        );
    }
    let after_the_change: Vec<u64> = windows
        .range(60..)
        .map(|(_, bytes)| *bytes)
        .filter(|bytes| *bytes > 0)
        .collect();
    assert_eq!(after_the_change, [5_000_000; 12]);
}

#[test]
fn case_a4_a_timeout_that_was_doubled_is_followed_at_once() {
    let minutes = [1, 2, 3, 4, 5, 7, 9, 11, 13, 15];
    let out = megabyte_a_minute(at(0) - 86_400_000, &minutes);
    let expected: Vec<_> = minutes[..9]
        .iter()
        .map(|minute| (minute * MINUTE_MS, SpanBound::Learned))
        .collect();
    assert_eq!(spans(&out)[1..], expected);
}

#[test]
fn next_hop_zero_and_output_zero_are_forwarded_unless_configured() {
    let template = [&OTHER[..4], &[(15, 4)], &OTHER[4..]].concat();
    let mut values = report(&template, at(0), at(1) - 500);
    values[3] = 0;
    let payload = message(1, &template, &[values]);
    let told = |decoder: &mut NetflowDecoder| {
        let out = decode_each(decoder, &[(1, payload.clone())]);
        let counts = [Counter::FlowsDiscarded, Counter::FlowsWithoutRoute].map(|counter| out.counts.total(counter));
        (one_flow(&out).forwarding_status, one_flow(&out).marks, counts)
    };
    assert_eq!(
        told(&mut decoder()),
        (0, marks::NO_ROUTE, [0, 1]),
        "multipath, multicast, to the router itself"
    );
    let mut configured = configured(|exporter| exporter.zero_route_is_discard = true);
    assert_eq!(
        told(&mut configured),
        (128, marks::NO_ROUTE | marks::DROPPED_BY_RULE, [1, 0])
    );
}

const CONVERSATION: &[(u16, u16)] = &[
    (8, 4),
    (12, 4),
    (7, 2),
    (11, 2),
    (10, 4),
    (14, 4),
    (58, 2),
    (59, 2),
    (152, 8),
    (153, 8),
];

fn conversation(more: &[u64]) -> Vec<u64> {
    let head = [
        V4_OF_SERVICE,
        V4_OUTSIDE,
        40_000,
        443,
        600,
        513,
        10,
        20,
        at(0) as u64 - 5_000,
        at(0) as u64 - 1_000,
    ];
    [&head[..], more].concat()
}

/// What was sent and received by the service: bytes and packets.
fn both_ways(out: &Decoded) -> [(u64, u64); 2] {
    let service = "198.51.100.10".parse().unwrap();
    let sum = |is_sent: bool| {
        let flows = out.flows.rows().into_iter();
        let wanted = flows.filter(|flow| (flow.src_addr == service) == is_sent);
        wanted.fold((0, 0), |(bytes, packets), flow| {
            (bytes + flow.bytes, packets + flow.packets)
        })
    };
    [sum(true), sum(false)]
}

#[test]
fn reverse_elements_are_a_flow_of_the_other_direction() {
    // RFC 5103: octets and packets of both, with flags of the answer.
    let forward = [CONVERSATION, &[(1, 8), (2, 8)]].concat();
    let reverse = [(1_u16, 8_u16), (2, 8), (6, 1)];
    let mut template = [256_u16, (forward.len() + reverse.len()) as u16]
        .map(u16::to_be_bytes)
        .concat();
    template.extend(fields(&forward));
    for (element, length) in reverse {
        template.extend([(element | 0x8000).to_be_bytes(), length.to_be_bytes()].concat());
        template.extend(29_305_u32.to_be_bytes());
    }
    let layout = [&forward[..], &reverse].concat();
    let body = record(&layout, &conversation(&[10_000, 20, 900_000, 700, 0x1b]));
    let out = decode_all(
        &mut decoder(),
        &[Ipfix::new().set(2, &template).set(256, &body).build()],
    );
    assert_eq!(both_ways(&out), [(10_000, 20), (900_000, 700)]);
    let answer = out.flows.rows()[1];
    assert_eq!(
        (answer.src_port, answer.dst_port, answer.in_if, answer.out_if),
        (443, 40_000, 513, 600)
    );
    assert_eq!(
        (answer.in_vlan, answer.out_vlan, answer.direction, answer.tcp_flags),
        (20, 10, 255, 0x1b)
    );
    assert_eq!(answer.marks, marks::ANSWER);
    let counts = [
        Counter::FlowRecords,
        Counter::FlowsOfAnswers,
        Counter::RecordsWithoutCounters,
    ];
    assert_eq!(counts.map(|counter| out.counts.total(counter)), [2, 1, 0]);
}

#[test]
fn an_asa_counts_both_directions_and_repeats_them_at_the_end() {
    let template = [CONVERSATION, &[(233, 1), (231, 8), (232, 8)]].concat();
    let event = |event, sent, received| conversation(&[event, sent, received]);
    let events = [
        event(1, 0, 0),
        event(5, 81, 6_207),
        event(5, 19, 1_000),
        event(2, 100, 7_207),
        // Another connection of the same ports, without an update.
        event(2, 81, 763),
    ];
    let out = decode_all(&mut decoder(), &[message(0, &template, &events)]);
    let [(sent, _), (received, _)] = both_ways(&out);
    assert_eq!((sent, received), (181, 7_970));
}

#[test]
fn out_counters_are_the_answer_by_setting_only() {
    let template = [CONVERSATION, &[(1, 8), (2, 8), (23, 8), (24, 8)]].concat();
    let body = record(&template, &conversation(&[10_000, 20, 900_000, 700]));
    let payload = V9::new().template(256, &template).set(256, &body).build();
    let mut plain = decoder();
    let out = decode_all(&mut plain, std::slice::from_ref(&payload));
    assert_eq!(both_ways(&out), [(10_000, 20), (0, 0)], "FortiOS repeats IE 1 there");
    assert!(plain.domains()[0].has_out_counters, "pointed out");
    let mut told = configured(|exporter| exporter.out_bytes_are_answer = Some(true));
    let out = decode_all(&mut told, &[payload]);
    assert_eq!(both_ways(&out), [(10_000, 20), (900_000, 700)]);
}

#[test]
fn running_totals_count_what_they_grew_by() {
    let template = [
        (8, 4),
        (12, 4),
        (7, 2),
        (11, 2),
        (10, 4),
        (14, 4),
        (85, 8),
        (86, 8),
        (152, 8),
        (153, 8),
    ];
    let of_minute = |minute: i64| {
        let total = minute as u64;
        let times = [at(0) as u64, at(minute) as u64 - 500];
        let values = [
            V4_OUTSIDE,
            V4_OF_SERVICE,
            443,
            50_000,
            513,
            600,
            total * 1_000_000,
            total * 1_000,
            times[0],
            times[1],
        ];
        (minute, message(minute, &template, &[values.to_vec()]))
    };
    let messages: Vec<_> = (1..=5).map(of_minute).collect();
    let out = decode_each(&mut decoder(), &messages);
    assert_eq!(both_ways(&out), [(0, 0), (5_000_000, 5_000)]);
    assert!(
        out.flows
            .iter()
            .all(|flow| flow.bytes == 1_000_000 && flow.is_marked(marks::OF_TOTALS))
    );
    assert_eq!(out.flows.rows()[4].start_at_ms, at(4) - 500, "since the last report");
    // IE 1 beside it is the delta, and is taken.
    let with_delta = [&template[..], &[(1, 8)]].concat();
    let values = [
        V4_OUTSIDE,
        V4_OF_SERVICE,
        443,
        50_000,
        513,
        600,
        9_000_000,
        9_000,
        at(0) as u64,
        at(9) as u64,
        777,
    ];
    let out = decode_all(&mut decoder(), &[message(9, &with_delta, &[values.to_vec()])]);
    assert_eq!((one_flow(&out).bytes, one_flow(&out).marks), (777, 0));
}

#[test]
fn octets_of_layer_2_are_taken_off_by_setting() {
    let template = [CONVERSATION, &[(1, 8), (2, 8)]].concat();
    // The second one is the least that an IP packet is: less is rejected as it came, whatever is taken off.
    let records = [&[1_096_933, 732], &[20, 1], &[5, 1]].map(|counted| conversation(counted));
    let payload = message(0, &template, &records);
    let mut taken_off = configured(|exporter| exporter.layer2_octets = 14);
    let out = decode_all(&mut taken_off, std::slice::from_ref(&payload));
    let flows = out.flows.rows();
    assert_eq!((flows[0].bytes, flows[0].marks), (1_086_685, marks::LAYER2_TAKEN_OFF));
    assert_eq!(flows.iter().map(|flow| flow.bytes).collect::<Vec<_>>(), [1_086_685, 6]);
    assert_eq!(out.counts.total(Counter::RecordsRejectedSize), 1);
    assert_eq!(out.counts.total(Counter::FlowsLayer2TakenOff), 2);
    let mut more = configured(|exporter| exporter.layer2_octets = 30);
    let out = decode_all(&mut more, std::slice::from_ref(&payload));
    assert_eq!(out.flows.rows()[1].bytes, 0, "never below nothing");
    assert_eq!(decode_all(&mut decoder(), &[payload]).flows.rows()[0].bytes, 1_096_933);
}

#[test]
fn what_is_remembered_is_bounded() {
    let limits = DecodeLimits {
        max_remembered_flows: 100,
        max_remembered_flows_per_domain: 64,
        ..DecodeLimits::default()
    };
    let template = [(8, 4), (12, 4), (7, 2), (85, 8), (86, 8), (152, 8), (153, 8), (61, 1)];
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    for domain in 0..6 {
        let records: Vec<u8> = (0..200_u64)
            .flat_map(|port| {
                let values = [
                    V4_OUTSIDE,
                    V4_OF_SERVICE,
                    port,
                    1_000,
                    1,
                    at(0) as u64 - 200_000,
                    at(0) as u64,
                    port % 2,
                ];
                record(&template, &values)
            })
            .collect();
        let payload = Ipfix::new()
            .domain(domain)
            .template(256, &template)
            .set(256, &records)
            .build();
        decode_all(&mut decoder, &[payload]);
        assert!(decoder.remembered_flows <= 100 + 64, "{}", decoder.remembered_flows);
    }
    let counted: usize = decoder.exporters.values().map(Exporter::remembered_flows).sum();
    assert_eq!(decoder.remembered_flows, counted);
}
