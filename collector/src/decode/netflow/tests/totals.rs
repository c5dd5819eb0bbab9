//! Counters that run on, as exporters send them: every case is read by a decoder that goes on, and by one that is restored from its
//! checkpoint before each datagram (F1).

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::assignment::{Assignment, Assignments, Target};
use schemas::metering::correction::CorrectionSettings;
use schemas::metering::{ExporterConfig, MeterDirection, MeterMode, MeteringConfig};
use schemas::window::{WindowStart, spread};
use tables::flow::{Metered, marks};
use tables::metering::Enricher;

use super::*;

const OUTSIDE: u64 = 0xcb00_7105; // 203.0.113.5
const OF_SERVICE: u64 = 0xc633_640a; // 198.51.100.10
const SERVICE: u32 = 1;

/// Element, length and enterprise of a field.
type Field = (u16, u16, u32);

const ENTRY: &[Field] = &[
    (8, 4, 0),
    (12, 4, 0),
    (4, 1, 0),
    (7, 2, 0),
    (11, 2, 0),
    (10, 4, 0),
    (14, 4, 0),
    (152, 8, 0),
    (153, 8, 0),
];
const TOTALS: &[Field] = &[(85, 8, 0), (86, 8, 0)];
/// What an ASA sends: connection, addresses, ports, interfaces, protocol, event, its time, start, octets of both sides.
const NSEL: &[Field] = &[
    (148, 4, 0),
    (8, 4, 0),
    (12, 4, 0),
    (4, 1, 0),
    (7, 2, 0),
    (11, 2, 0),
    (10, 2, 0),
    (14, 2, 0),
    (233, 1, 0),
    (152, 8, 0),
    (323, 8, 0),
    (231, 4, 0),
    (232, 4, 0),
];

/// A message; times are seconds after [`NOW_MS`].
struct Sent {
    received_s: i64,
    exported_s: i64,
    sequence: u32,
    records: Vec<Vec<u64>>,
}

fn at_once(second: i64, sequence: u32, records: Vec<Vec<u64>>) -> Sent {
    Sent {
        received_s: second,
        exported_s: second,
        sequence,
        records,
    }
}

fn ms(second: i64) -> u64 {
    u64::try_from(NOW_MS + second * 1000).unwrap()
}

/// A record of [`ENTRY`] with the values of further fields.
fn entry(in_if: u64, (start_s, end_s): (i64, i64), more: &[u64]) -> Vec<u64> {
    let head = [OUTSIDE, OF_SERVICE, 6, 1_000, 80, in_if, 2, ms(start_s), ms(end_s)];
    [&head[..], more].concat()
}

/// Packets of 1,000 bytes.
fn of_packets(bytes: u64) -> [u64; 2] {
    [bytes, bytes / 1_000]
}

/// An event of a connection that began at 0.
fn event(event: u64, second: i64, initiator: u64, responder: u64) -> Vec<u64> {
    let head = [7, OUTSIDE, OF_SERVICE, 6, 1_000, 80, 1, 2, event, ms(0), ms(second)];
    [&head[..], &[initiator, responder]].concat()
}

fn payload(fields: &[Field], sent: &Sent) -> Vec<u8> {
    let mut template = [256_u16, u16::try_from(fields.len()).unwrap()]
        .map(u16::to_be_bytes)
        .concat();
    for &(element, length, enterprise) in fields {
        let bit: u16 = if enterprise == 0 { 0 } else { 0x8000 };
        template.extend((element | bit).to_be_bytes());
        template.extend(length.to_be_bytes());
        if enterprise != 0 {
            template.extend(enterprise.to_be_bytes());
        }
    }
    let mut body: Vec<u8> = Vec::new();
    for values in &sent.records {
        assert_eq!(values.len(), fields.len());
        for ((_, length, _), value) in fields.iter().zip(values) {
            body.extend(&value.to_be_bytes()[8 - usize::from(*length)..]);
        }
    }
    let mut message = Ipfix::new().sequence(sent.sequence).set(2, &template).set(256, &body);
    message.export_s = u32::try_from(i64::from(NOW_S) + sent.exported_s).unwrap();
    message.build()
}

fn unsampled() -> MeteringConfig {
    let mut metering = MeteringConfig::default();
    metering.decoding.default_sampling_rate = Some(1);
    metering
}

fn decode_as(metering: &MeteringConfig, fields: &[Field], sent: &[Sent]) -> Decoded {
    let limits = DecodeLimits::default();
    let sampling = || SamplingConfig::from(metering);
    let mut decoder = NetflowDecoder::new(limits, sampling());
    let mut restarted = NetflowDecoder::new(limits, sampling());
    let (mut out, mut out_of_restarted) = (Decoded::default(), Decoded::default());
    for sent in sent {
        let payload = payload(fields, sent);
        let received_at_ms = NOW_MS + sent.received_s * 1000;
        decode_at(&mut decoder, &payload, received_at_ms, &mut out);
        let text = serde_json::to_string(&restarted.checkpoint()).unwrap();
        let checkpoint = serde_json::from_str(&text).unwrap();
        restarted = NetflowDecoder::restore(limits, sampling(), checkpoint);
        decode_at(&mut restarted, &payload, received_at_ms, &mut out_of_restarted);
    }
    assert_eq!(out.flows, out_of_restarted.flows, "F1");
    assert_eq!(out.counts, out_of_restarted.counts, "F1");
    let assignment = Assignment {
        service: SERVICE,
        target: Target::Prefix("198.51.100.0/24".parse().unwrap()),
        valid_from_ms: 0,
        valid_to_ms: None,
    };
    let assignments = Arc::new(Assignments::new([assignment]).unwrap());
    Enricher::new(metering, assignments).enrich_columns(&mut out.flows);
    out
}

fn decode(fields: &[Field], sent: &[Sent]) -> Decoded {
    decode_as(&unsampled(), fields, sent)
}

/// Bytes that the service received and sent.
fn volume(out: &Decoded) -> (u64, u64) {
    let rows = out.flows.rows();
    let sum = |metered: Metered| -> u64 {
        let counted = rows.iter().filter(|flow| flow.metered == metered);
        counted.map(Flow::bytes_scaled).sum()
    };
    (sum(Metered::In), sum(Metered::Out))
}

/// Bytes by the window they are of, in seconds after [`NOW_MS`].
fn windows<'a>(flows: impl IntoIterator<Item = &'a Flow>) -> BTreeMap<i64, u64> {
    let mut windows = BTreeMap::new();
    for flow in flows {
        spread(
            flow.bytes,
            flow.start_at_ms,
            flow.end_at_ms,
            |window: WindowStart, bytes| {
                *windows.entry((window.start_ms() - NOW_MS) / 1000).or_default() += bytes;
            },
        );
    }
    windows.retain(|_, bytes| *bytes > 0);
    windows
}

/// Two cache entries of one flow key, each reported each minute: their totals in thousands of bytes, and what makes them distinct.
fn two_entries(first: &[u64; 3], second: &[u64; 3], record_of: impl Fn(usize, i64, u64) -> Vec<u64>) -> Vec<Sent> {
    (0..3_usize)
        .map(|report| {
            let second_s = 60 * (report as i64 + 1);
            let records = [first, second]
                .into_iter()
                .enumerate()
                .map(|(which, totals)| record_of(which, second_s, totals[report] * 1_000));
            at_once(second_s, 2 * report as u32, records.collect())
        })
        .collect()
}

#[test]
fn case_n2_one_flow_key_at_two_interfaces_is_two_sessions() {
    let fields = [ENTRY, TOTALS].concat();
    for second_start_s in [30, 0] {
        let sent = two_entries(&[1_000, 2_000, 3_000], &[500, 600, 700], |which, end_s, bytes| {
            let (in_if, start_s) = [(1, 0), (3, second_start_s)][which];
            entry(in_if, (start_s, end_s), &of_packets(bytes))
        });
        assert_eq!(volume(&decode(&fields, &sent)), (3_700_000, 0), "{second_start_s}");
    }
}

#[test]
fn case_n1_totals_at_ingress_and_egress_are_two_sessions() {
    let fields = [ENTRY, TOTALS, &[(61, 1, 0)]].concat();
    let sent = two_entries(&[1_000, 2_000, 3_000], &[900, 1_900, 2_900], |which, end_s, bytes| {
        let [bytes, packets] = of_packets(bytes);
        entry(1, (0, end_s), &[bytes, packets, which as u64])
    });
    assert_eq!(volume(&decode(&fields, &sent)), (3_000_000, 0));
}

#[test]
fn case_n4_equal_totals_of_both_sides_count_at_egress_where_it_is_configured() {
    let fields = [ENTRY, TOTALS, &[(61, 1, 0)]].concat();
    let totals = [1_000, 2_000, 3_000];
    let sent = two_entries(&totals, &totals, |which, end_s, bytes| {
        let [bytes, packets] = of_packets(bytes);
        entry(1, (0, end_s), &[bytes, packets, which as u64])
    });
    let mut metering = unsampled();
    metering.exporters = vec![ExporterConfig {
        meter: MeterMode::Addresses,
        direction: Some(MeterDirection::Egress),
        ..ExporterConfig::unlisted(exporter())
    }];
    assert_eq!(volume(&decode_as(&metering, &fields, &sent)), (3_000_000, 0));
}

#[test]
fn entries_are_told_apart_by_flow_id_observation_point_and_vlan() {
    for (element, length) in [(148_u16, 4_u16), (148, 8), (138, 8), (58, 2), (59, 2)] {
        let fields = [ENTRY, TOTALS, &[(element, length, 0)]].concat();
        let sent = two_entries(&[1_000, 2_000, 3_000], &[500, 600, 700], |which, end_s, bytes| {
            let [bytes, packets] = of_packets(bytes);
            entry(1, (0, end_s), &[bytes, packets, which as u64 + 1])
        });
        assert_eq!(volume(&decode(&fields, &sent)), (3_700_000, 0), "IE {element}");
    }
}

#[test]
fn case_a1_a_late_total_adds_nothing() {
    let fields = [ENTRY, TOTALS].concat();
    let sent = |received_s, exported_s, sequence, end_s, bytes| Sent {
        received_s,
        exported_s,
        sequence,
        records: vec![entry(1, (0, end_s), &of_packets(bytes))],
    };
    let by_time = [
        sent(61, 61, 0, 60, 1_000_000),
        sent(181, 181, 2, 180, 3_000_000),
        sent(182, 121, 1, 120, 2_000_000),
        sent(241, 241, 3, 240, 4_000_000),
    ];
    // In one second, and of packets of one moment.
    let by_number = [
        sent(61, 61, 0, 60, 1_000_000),
        sent(61, 61, 2, 60, 3_000_000),
        sent(61, 61, 1, 60, 2_000_000),
        sent(61, 61, 3, 60, 4_000_000),
    ];
    for messages in [by_time, by_number] {
        let out = decode(&fields, &messages);
        assert_eq!(volume(&out), (4_000_000, 0));
        let counts = [Counter::TotalsLate, Counter::TotalsFell].map(|counter| out.counts.total(counter));
        assert_eq!(counts, [1, 0]);
        assert_eq!(out.counts.total(Counter::FlowRecords), 4, "F2");
    }
}

#[test]
fn case_h1_a_total_with_another_start_is_another_session() {
    let fields = [ENTRY, TOTALS].concat();
    let report = |sequence, start_s, end_s, bytes| {
        at_once(end_s, sequence, vec![entry(1, (start_s, end_s), &of_packets(bytes))])
    };
    let sent = [
        report(0, 0, 60, 1_000_000),
        report(1, 0, 120, 2_000_000),
        report(2, 130, 180, 500_000),
        report(3, 130, 240, 800_000),
        report(4, 130, 300, 800_000),
    ];
    assert_eq!(volume(&decode(&fields, &sent)), (2_800_000, 0));
    // Two short sessions within two seconds.
    let sent = [report(0, 0, 0, 5_000), report(1, 1, 1, 3_000)];
    assert_eq!(volume(&decode(&fields, &sent)), (8_000, 0));
}

#[test]
fn case_h5_a_counter_that_wraps_leaves_the_other_direction_alone() {
    let reverse = [(85, 8, 29_305), (86, 8, 29_305)];
    let fields = [ENTRY, TOTALS, &reverse].concat();
    // The answer is counted with 32 bits.
    let answers: [u64; 3] = [
        4_294_000_000,
        4_295_000_000 - (1_u64 << 32),
        4_296_000_000 - (1_u64 << 32),
    ];
    let sent: Vec<Sent> = (1..=3_u64)
        .zip(answers)
        .map(|(minute, answer)| {
            let [bytes, packets] = of_packets(minute * 1_000_000);
            let more = [bytes, packets, answer, (answer / 1_000).max(1)];
            let second = minute as i64 * 60;
            at_once(second, minute as u32 - 1, vec![entry(1, (0, second), &more)])
        })
        .collect();
    assert_eq!(volume(&decode(&fields, &sent)), (3_000_000, 4_296_000_000));
}

/// Events of one connection, in the order they arrive; numbered as they are given.
fn nsel(events: &[(u64, i64, u64, u64)], order: &[usize]) -> Decoded {
    let last_s = events.iter().map(|(_, second, ..)| *second).max().unwrap();
    let sent: Vec<Sent> = order
        .iter()
        .map(|index| {
            let (kind, second, initiator, responder) = events[*index];
            Sent {
                received_s: last_s,
                exported_s: second,
                sequence: *index as u32,
                records: vec![event(kind, second, initiator, responder)],
            }
        })
        .collect();
    decode(NSEL, &sent)
}

#[test]
fn case_i1_a_teardown_with_one_less_counts_the_other_direction_once() {
    let events = [
        (1, 0, 0, 0),
        (5, 60, 1_000_000, 5_000_000),
        (2, 150, 2_000_000, 4_999_999),
    ];
    let out = nsel(&events, &[0, 1, 2]);
    assert_eq!(volume(&out), (2_000_000, 5_000_000));
    assert_eq!(out.counts.total(Counter::TotalsFell), 1);
}

#[test]
fn case_i5_a_teardown_that_wrapped_adds_nothing_more() {
    let events = [
        (1, 0, 0, 0),
        (5, 60, 1_000_000, 2_000_000_000),
        (5, 120, 1_000_000, 2_000_000_000),
        (5, 180, 1_000_000, 1_000_000_000),
        (2, 200, 3_000_000, 5_000_000_000 % (1_u64 << 32)),
    ];
    let out = nsel(&events, &[0, 1, 2, 3, 4]);
    assert_eq!(volume(&out), (3_000_000, 5_000_000_000));
}

#[test]
fn case_i2_an_update_after_the_teardown_was_counted_with_it() {
    let events = [
        (1, 0, 0, 0),
        (5, 60, 1_000_000, 5_000_000),
        (5, 120, 400_000, 600_000),
        (2, 150, 2_000_000, 6_000_000),
    ];
    assert_eq!(volume(&nsel(&events, &[0, 1, 2, 3])), (2_000_000, 6_000_000));
    let out = nsel(&events, &[0, 1, 3, 2]);
    assert_eq!(volume(&out), (2_000_000, 6_000_000));
    assert_eq!(out.counts.total(Counter::TotalsLate), 1);
    let out = nsel(&events, &[3, 1, 2, 0]);
    assert_eq!(volume(&out), (2_000_000, 6_000_000), "all of them");
    assert_eq!(out.counts.total(Counter::TotalsLate), 3);
}

#[test]
fn case_a2_and_b1_a_total_of_32_bits_wraps() {
    let totals = [4_294_000_000_u64, 4_296_000_000, 4_297_000_000];
    for counters in [&[(85, 4, 0), (86, 4, 0)][..], &[(85, 4, 0)]] {
        let fields = [ENTRY, counters].concat();
        let sent: Vec<Sent> = (1..=3_i64)
            .zip(totals)
            .map(|(minute, total)| {
                let more = &of_packets(total)[..counters.len()];
                let second = minute * 60;
                at_once(second, minute as u32 - 1, vec![entry(1, (0, second), more)])
            })
            .collect();
        let out = decode(&fields, &sent);
        assert_eq!(volume(&out), (4_297_000_000, 0), "{} counters", counters.len());
        assert_eq!(out.counts.total(Counter::RecordsRejectedSize), 0);
    }
}

#[test]
fn a_session_of_days_goes_on_whatever_the_clock_of_its_exporter() {
    let fields = [ENTRY, TOTALS].concat();
    for clock_ahead_s in [0, 7_200, -7_200] {
        let sent: Vec<Sent> = (1..=5_i64)
            .map(|minute| {
                let second = minute * 60;
                // Its last packet came some time before the report.
                let end_s = second - 7 * (minute % 3);
                let times = (clock_ahead_s - 3 * 86_400, clock_ahead_s + end_s);
                Sent {
                    received_s: second,
                    exported_s: clock_ahead_s + second,
                    sequence: minute as u32 - 1,
                    records: vec![entry(1, times, &of_packets(minute as u64 * 1_000_000))],
                }
            })
            .collect();
        let out = decode(&fields, &sent);
        assert_eq!(volume(&out), (5_000_000, 0), "{clock_ahead_s} s");
    }
}

#[test]
fn case_g1b_and_f1_a_corrected_timeout_leaves_totals_in_their_minutes() {
    let fields = [ENTRY, TOTALS].concat();
    let sent: Vec<Sent> = (1..=10_i64)
        .map(|minute| {
            let second = minute * 60;
            let record = entry(1, (0, second), &of_packets(minute as u64 * 1_000_000));
            at_once(second, minute as u32 - 1, vec![record])
        })
        .collect();
    let mut rows = decode(&fields, &sent).flows.rows();
    let right = BTreeMap::from([(0, 5_000_000), (300, 5_000_000)]);
    assert_eq!(windows(&rows), right);
    assert!(rows.iter().all(|flow| flow.is_marked(marks::OF_TOTALS)));
    for active_timeout_s in [600, 0, 60] {
        let settings = CorrectionSettings {
            active_timeout_s: Some(active_timeout_s),
            ..CorrectionSettings::default()
        };
        rows.iter_mut()
            .for_each(|flow| tables::correction::apply(&settings, flow));
        assert_eq!(windows(&rows), right, "{active_timeout_s} s");
    }
}
