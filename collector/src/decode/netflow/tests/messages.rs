//! What a message is, and what a restart of its exporter means.

use super::*;

fn data(sequence: u32, bytes: u32) -> Ipfix {
    Ipfix::new().sequence(sequence).set(256, &flow_record(bytes, 1))
}

fn bytes_of(out: &Decoded) -> Vec<u64> {
    out.flows.rows().iter().map(|flow| flow.bytes).collect()
}

#[test]
fn case_24_two_messages_in_one_datagram() {
    let mut payload = Ipfix::new().template(256, FLOW_FIELDS).build();
    payload.extend(data(0, 1_500).build());
    payload.extend(data(1, 700).domain(2).build());
    payload.extend([0, 0, 7]);
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[payload.clone()]);
    assert_eq!(bytes_of(&out), [1_500]);
    let count = |counter| out.counts.total(counter);
    assert_eq!(
        (count(Counter::Datagrams), count(Counter::DatagramsDecoded)),
        (1, 1),
        "F2"
    );
    assert_eq!((count(Counter::MessagesFurther), count(Counter::SetsPending)), (2, 1));
    assert_eq!(count(Counter::DatagramBytesTrailing), 3, "what is no message");
    assert_eq!(count(Counter::DatagramBytes), payload.len() as u64);
    assert_eq!(count(Counter::SequenceLost), 0);
    assert_eq!(decoder.domains().len(), 2);
}

#[test]
fn two_messages_of_the_other_versions_in_one_datagram() {
    let v5 = [encode::v5(0, 0, 2), encode::v5(2, 0, 3)].concat();
    let out = decode_all(&mut decoder(), &[v5]);
    assert_eq!(
        (out.flows.len(), out.counts.total(Counter::DatagramBytesTrailing)),
        (5, 0)
    );
    let fields = &[(8, 4), (12, 4), (1, 4), (2, 4)];
    let first = V9::new().template(256, fields).build();
    let second = V9::new()
        .sequence(1)
        .set(256, &[1_u32, 2, 1_500, 1].map(u32::to_be_bytes).concat())
        .build();
    let out = decode_all(&mut decoder(), &[[first, second].concat()]);
    assert_eq!(bytes_of(&out), [1_500]);
    assert_eq!(
        out.counts.total(Counter::SetsRejectedReserved) + out.counts.total(Counter::SequenceLost),
        0
    );
}

#[test]
fn case_20_a_header_whose_length_is_short_of_its_last_set() {
    let mut payload = Ipfix::new()
        .template(256, FLOW_FIELDS)
        .set(256, &[flow_record(100, 1), flow_record(200, 1)].concat())
        .build();
    let length = u16::try_from(payload.len() - 2).unwrap();
    payload[2..4].copy_from_slice(&length.to_be_bytes());
    let out = decode_all(&mut decoder(), &[payload.clone()]);
    assert_eq!(bytes_of(&out), [100, 200]);
    assert_eq!(out.counts.total(Counter::SetsRejectedLength), 0);
    assert_eq!(out.counts.total(Counter::DatagramBytesTrailing), 0);
    // A length beyond the datagram is still none.
    let length = u16::try_from(payload.len() + 1).unwrap();
    payload[2..4].copy_from_slice(&length.to_be_bytes());
    let out = decode_all(&mut decoder(), &[payload]);
    assert_eq!(out.counts.total(Counter::DatagramsRejectedLength), 1);
}

#[test]
fn case_21_zeros_to_the_end_are_padding() {
    let fields = &[(8, 4), (12, 4), (1, 4), (2, 4)];
    let record = [1_u32, 2, 1_500, 1].map(u32::to_be_bytes).concat();
    let mut v9 = V9::new().template(256, fields).set(256, &record).build();
    v9.extend([0; 500]);
    let mut ipfix = Ipfix::new()
        .template(256, FLOW_FIELDS)
        .set(256, &flow_record(1_500, 1))
        .build();
    ipfix.extend([0; 40]);
    let length = u16::try_from(ipfix.len()).unwrap();
    ipfix[2..4].copy_from_slice(&length.to_be_bytes());
    for (payload, zeros) in [(v9, 500), (ipfix, 40)] {
        let out = decode_all(&mut decoder(), std::slice::from_ref(&payload));
        assert_eq!(bytes_of(&out), [1_500]);
        assert_eq!(out.counts.total(Counter::SetsRejectedLength), 0);
        assert_eq!(
            out.counts.total(Counter::DatagramBytesTrailing),
            zeros,
            "counted all the same"
        );
        let mut torn = payload;
        *torn.last_mut().unwrap() = 1;
        let out = decode_all(&mut decoder(), &[torn]);
        assert_eq!(
            out.counts.total(Counter::SetsRejectedLength),
            1,
            "anything else is damage"
        );
    }
}

#[test]
fn case_09_a_v9_template_may_have_a_variable_length() {
    let fields = &[(2, 4), (1, 4), (8, 4), (12, 4), (236, 65535)];
    let counters = [9_u32, 702].map(u32::to_be_bytes).concat();
    let addresses = [20, 20, 20, 20, 20, 20, 255, 255];
    let record = [&counters[..], &addresses, &[3], b"red"].concat();
    let short = [&counters[..], &addresses, &[0]].concat();
    let long = [&counters[..], &addresses, &[255, 0, 2], b"ab"].concat();
    let messages = [
        V9::new().template(3_281, fields).build(),
        V9::new()
            .sequence(1)
            .set(3_281, &[record, short, long].concat())
            .build(),
    ];
    let out = decode_all(&mut decoder(), &messages);
    assert_eq!(out.counts.total(Counter::TemplatesRejected), 0);
    assert_eq!(bytes_of(&out), [702, 702, 702]);
    let flow = out.flows.rows()[0];
    assert_eq!(
        (flow.dst_addr.to_string(), flow.packets),
        ("20.20.255.255".to_owned(), 9)
    );
}

#[test]
fn a_datagram_that_arrives_twice_counts_once() {
    let datagrams = |decoder: &mut NetflowDecoder, payloads: &[Vec<u8>]| {
        let out = decode_all(decoder, payloads);
        let counters = [
            Counter::Datagrams,
            Counter::DatagramsDecoded,
            Counter::DatagramsRejectedDuplicate,
            Counter::SequenceReordered,
        ];
        let bytes: u64 = out.flows.iter().map(|flow| flow.bytes).sum();
        (bytes, counters.map(|counter| out.counts.total(counter)))
    };
    // A whole stream of v5 that arrives twice: 12 datagrams of 30 records, 1,000,000 bytes each.
    let v5 = |sequence: u32| {
        let mut payload = encode::v5(sequence, 1, 30);
        for record in payload[24..].chunks_mut(48) {
            record[16..20].copy_from_slice(&1_000_u32.to_be_bytes());
            record[20..24].copy_from_slice(&1_000_000_u32.to_be_bytes());
        }
        payload
    };
    let stream: Vec<Vec<u8>> = (0..12).map(|number| v5(30 * number)).collect();
    let twice: Vec<Vec<u8>> = stream
        .iter()
        .flat_map(|payload| [payload.clone(), payload.clone()])
        .collect();
    assert_eq!(datagrams(&mut decoder(), &twice), (360_000_000, [24, 12, 12, 0]), "F2");
    let behind = [&stream[..], &stream].concat();
    assert_eq!(datagrams(&mut decoder(), &behind), (360_000_000, [24, 12, 12, 0]));
    // IPFIX and v9, and a datagram of two messages.
    let two = [data(0, 100).template(256, FLOW_FIELDS).build(), data(1, 200).build()].concat();
    let again = data(2, 300).build();
    let ipfix = [two.clone(), two, again.clone(), again];
    assert_eq!(datagrams(&mut decoder(), &ipfix), (600, [4, 2, 2, 0]));
    let fields = &[(8, 4), (12, 4), (1, 4), (2, 4)];
    let record = [1_u32, 2, 1_500, 1].map(u32::to_be_bytes).concat();
    let v9 = V9::new().template(256, fields).set(256, &record).build();
    assert_eq!(datagrams(&mut decoder(), &[v9.clone(), v9]), (1_500, [2, 1, 1, 0]));
    // An exporter that started again and counts anew says other times.
    let mut restarted = v5(0);
    restarted[4..8].copy_from_slice(&700_000_u32.to_be_bytes());
    let (bytes, _) = datagrams(&mut decoder(), &[v5(0), v5(30), restarted]);
    assert_eq!(bytes, 90_000_000);
}

#[test]
fn f1_a_copy_is_known_after_a_restart_of_the_collector() {
    let payloads: Vec<Vec<u8>> = (0..100).map(|number| encode::v5(number, 1, 1)).collect();
    let mut first = decoder();
    decode_all(&mut first, &payloads);
    let json = serde_json::to_string(&first.checkpoint()).unwrap();
    let mut second = NetflowDecoder::restore(
        DecodeLimits::default(),
        SamplingConfig::default(),
        serde_json::from_str(&json).unwrap(),
    );
    for decoder in [&mut first, &mut second] {
        let out = decode_all(decoder, &payloads[99..]);
        assert_eq!(
            (out.flows.len(), out.counts.total(Counter::DatagramsRejectedDuplicate)),
            (0, 1)
        );
    }
    assert_eq!(first.checkpoint(), second.checkpoint());
}

#[test]
fn case_13_a_restart_makes_templates_void() {
    // Bytes and packets changed places with the new software.
    let before = &[(8, 4), (12, 4), (1, 4), (2, 4)];
    let after = &[(8, 4), (12, 4), (2, 4), (1, 4)];
    let record = |third: u32, fourth: u32| [1, 2, third, fourth].map(u32::to_be_bytes).concat();
    let at = |uptime_ms, sequence| V9 {
        uptime_ms,
        ..V9::new().sequence(sequence)
    };
    let mut decoder = decoder();
    let first = at(900_000_000, 70_000)
        .template(256, before)
        .set(256, &record(150_000, 100));
    let early = at(5_000, 1).set(256, &record(100, 150_000));
    let late = at(35_000, 2).template(256, after).set(256, &record(100, 150_000));
    let mut out = Decoded::default();
    decode_at(&mut decoder, &first.build(), NOW_MS, &mut out);
    decode_at(&mut decoder, &early.build(), NOW_MS + 600_000, &mut out);
    assert_eq!(bytes_of(&out), [150_000], "the second one waits");
    assert_eq!(out.counts.total(Counter::TemplatesForgotten), 1);
    decode_at(&mut decoder, &late.build(), NOW_MS + 630_000, &mut out);
    assert_eq!(bytes_of(&out), [150_000, 150_000, 150_000]);
    assert!(out.flows.iter().all(|flow| flow.packets == 100));
    assert_eq!(out.counts.total(Counter::SequenceReset), 1);
    assert_eq!(out.counts.total(Counter::SetsReplayed), 1);
}

#[test]
fn what_waited_before_a_restart_is_not_read_by_a_template_after_it() {
    let record = [1_u32, 2, 1_500, 1].map(u32::to_be_bytes).concat();
    let at = |uptime_ms, sequence| V9 {
        uptime_ms,
        ..V9::new().sequence(sequence)
    };
    let messages = [
        at(900_000_000, 70_000).set(256, &record).build(),
        at(5_000, 1).template(256, &[(8, 4), (12, 4), (1, 4), (2, 4)]).build(),
    ];
    let out = decode_all(&mut decoder(), &messages);
    assert_eq!(out.flows.len(), 0);
    assert_eq!(out.counts.total(Counter::SetsDroppedPending), 1);
}

#[test]
fn an_uptime_that_wraps_or_a_datagram_that_is_late_is_no_restart() {
    let fields = &[(8, 4), (12, 4), (1, 4), (2, 4)];
    let record = [1_u32, 2, 1_500, 1].map(u32::to_be_bytes).concat();
    let at = |uptime_ms, sequence| V9 {
        uptime_ms,
        ..V9::new().sequence(sequence)
    };
    let messages = [
        at(u32::MAX - 1_000, 1).template(256, fields).build(),
        at(4_000, 3).set(256, &record).build(),
        at(u32::MAX - 500, 2).set(256, &record).build(),
    ];
    let out = decode_all(&mut decoder(), &messages);
    assert_eq!(out.flows.len(), 2);
    assert_eq!(out.counts.total(Counter::TemplatesForgotten), 0);
}

/// Templates that arrived before data with a lower uptime; (flows, templates forgotten).
fn after_an_uptime_that_went_back(uptime_ms: u32, sequence: u32, export_s: u32, received_at_ms: i64) -> (usize, u64) {
    let fields = &[(8, 4), (12, 4), (1, 4), (2, 4)];
    let record = [1_u32, 2, 1_500, 1].map(u32::to_be_bytes).concat();
    let mut out = Decoded::default();
    let mut decoder = decoder();
    let first = V9 {
        uptime_ms: 700_000_000,
        ..V9::new().sequence(900_000).template(256, fields)
    };
    decode_at(&mut decoder, &first.build(), NOW_MS, &mut out);
    let second = V9 {
        uptime_ms,
        ..V9::new().sequence(sequence).set(256, &record)
    };
    let mut payload = second.build();
    payload[8..12].copy_from_slice(&export_s.to_be_bytes());
    decode_at(&mut decoder, &payload, received_at_ms, &mut out);
    (out.flows.len(), out.counts.total(Counter::TemplatesForgotten))
}

#[test]
fn case_06a_an_uptime_that_goes_back_while_the_numbers_go_on_is_no_restart() {
    let later_ms = NOW_MS + 1_000;
    assert_eq!(
        after_an_uptime_that_went_back(100_000, 900_001, NOW_S, later_ms),
        (1, 0)
    );
    assert_eq!(after_an_uptime_that_went_back(100_000, 0, NOW_S, later_ms), (0, 1));
}

#[test]
fn case_03_a_datagram_that_is_minutes_late_is_no_restart() {
    // Its clock went back as far as its uptime: it started when the other one says, too.
    let late = after_an_uptime_that_went_back(699_920_000, 899_957, NOW_S - 80, NOW_MS);
    assert_eq!(late, (1, 0));
    // The clock of an exporter that begins with each start says so after every start.
    let year_ms = 365 * 86_400_000;
    let without_a_clock = after_an_uptime_that_went_back(699_920_000, 899_957, NOW_S - 80, NOW_MS + year_ms);
    assert_eq!(without_a_clock, (0, 1));
}

#[test]
fn an_ipfix_exporter_tells_its_restart_in_options() {
    let boot = |boot_ms: i64| {
        Ipfix::new()
            .options_template(512, 1, &[(144, 4), (160, 8)])
            .set(512, &[&[0, 0, 0, 1][..], &boot_ms.to_be_bytes()].concat())
            .build()
    };
    let mut decoder = decoder();
    let mut out = Decoded::default();
    let day_ms = 86_400_000;
    decode_at(&mut decoder, &boot(NOW_MS - 10 * day_ms), NOW_MS - day_ms, &mut out);
    let known = Ipfix::new().template(256, FLOW_FIELDS).build();
    decode_at(&mut decoder, &known, NOW_MS - day_ms, &mut out);
    decode_at(&mut decoder, &boot(NOW_MS - 10 * day_ms + 500), NOW_MS, &mut out);
    decode_at(&mut decoder, &data(0, 100).build(), NOW_MS, &mut out);
    assert_eq!(bytes_of(&out), [100], "the same start, told again");
    // Started five minutes ago; the template of before is void, the one that came since is not.
    let since = Ipfix::new().template(257, FLOW_FIELDS).build();
    decode_at(&mut decoder, &since, NOW_MS, &mut out);
    decode_at(&mut decoder, &boot(NOW_MS - 300_000), NOW_MS, &mut out);
    decode_at(
        &mut decoder,
        &data(1, 200).set(257, &flow_record(300, 1)).build(),
        NOW_MS,
        &mut out,
    );
    assert_eq!(bytes_of(&out), [100, 300]);
    assert_eq!(out.counts.total(Counter::TemplatesForgotten), 1);
}

#[test]
fn what_waits_behind_a_set_that_tells_a_restart_is_dropped_and_counted() {
    let boot = |boot_ms: i64| [&[0, 0, 0, 1][..], &boot_ms.to_be_bytes()].concat();
    // Its second start is later than when its template came: garbage, but no set may vanish by it.
    let waiting = Ipfix::new()
        .set(512, &boot(NOW_MS - 86_400_000))
        .set(512, &boot(NOW_MS + 300_000))
        .set(512, &boot(NOW_MS + 300_000));
    let template = Ipfix::new().options_template(512, 1, &[(144, 4), (160, 8)]);
    let out = decode_all(&mut decoder(), &[waiting.build(), template.build()]);
    let counters = [
        Counter::SetsPending,
        Counter::SetsReplayed,
        Counter::SetsDroppedPending,
        Counter::OptionsRecords,
        Counter::TemplatesForgotten,
    ];
    assert_eq!(counters.map(|counter| out.counts.total(counter)), [3, 2, 1, 2, 1]);
}

#[test]
fn rows_that_cannot_be_are_rejected_and_counted() {
    let fields = &[(8, 4), (12, 4), (1, 4), (2, 4)];
    let record = |bytes: u32, packets: u32| [1, 2, bytes, packets].map(u32::to_be_bytes).concat();
    let rows = [
        record(1_500, 1),
        record(100, 150_000),
        record(40, 2),
        record(39, 2),
        record(0, 5),
        record(32 << 20, 2),
        record((32 << 20) + 1, 2),
        record(u32::MAX, 0),
    ];
    // By column, and record by record: IE 34 makes the difference.
    let by_column = Ipfix::new().template(256, fields).set(256, &rows.concat());
    let one_by_one: Vec<u8> = rows
        .iter()
        .flat_map(|row| [row.clone(), 7_u32.to_be_bytes().to_vec()].concat())
        .collect();
    let with_rate = Ipfix::new()
        .template(256, &[&fields[..], &[(34, 4)]].concat())
        .set(256, &one_by_one);
    for message in [by_column, with_rate] {
        let out = decode_all(&mut decoder(), &[message.build()]);
        assert_eq!(bytes_of(&out), [1_500, 40, 0, 32 << 20, u64::from(u32::MAX)]);
        assert_eq!(out.counts.total(Counter::RecordsRejectedSize), 3);
        assert_eq!(out.counts.total(Counter::FlowRecords), 5, "F2");
        assert_eq!(out.counts.total(Counter::RecordsWithoutCounters), 0);
    }
    // More packets than bytes can be counted for.
    let huge = Ipfix::new()
        .template(256, &[(8, 4), (12, 4), (1, 8), (2, 8)])
        .set(256, &[0xff; 24]);
    let out = decode_all(&mut decoder(), &[huge.build()]);
    assert_eq!(
        (out.flows.len(), out.counts.total(Counter::RecordsRejectedSize)),
        (0, 1)
    );
    // All bytes that there are, in one packet; and the same in the answer, whose other half counts.
    let one_packet = [&[0xff; 16][..], &1_u64.to_be_bytes()].concat();
    let huge = Ipfix::new()
        .template(256, &[(8, 4), (12, 4), (1, 8), (2, 8)])
        .set(256, &one_packet);
    let out = decode_all(&mut decoder(), &[huge.build()]);
    assert_eq!(
        (out.flows.len(), out.counts.total(Counter::RecordsRejectedSize)),
        (0, 1)
    );
    let halves = [1_500_u64, 1, u64::MAX, 1].map(u64::to_be_bytes).concat();
    let both = Ipfix::new()
        .template(256, &[(231, 8), (298, 8), (232, 8), (299, 8)])
        .set(256, &halves);
    let out = decode_all(&mut decoder(), &[both.build()]);
    assert_eq!(bytes_of(&out), [1_500]);
    let counters = [
        Counter::FlowRecords,
        Counter::FlowsOfAnswers,
        Counter::RecordsRejectedSize,
    ];
    assert_eq!(counters.map(|counter| out.counts.total(counter)), [1, 0, 1]);
    // A delta of bytes beside a total of packets says nothing of one packet.
    let mixed = Ipfix::new()
        .template(256, &[(8, 4), (12, 4), (1, 4), (86, 4)])
        .set(256, &record(1_500, 1_000_000));
    assert_eq!(decode_all(&mut decoder(), &[mixed.build()]).flows.len(), 1);
    // v5: the packets of the first record of the second datagram.
    let mut v5 = encode::v5(0, 0, 2);
    v5[24 + 16..24 + 20].copy_from_slice(&1_000_u32.to_be_bytes());
    let out = decode_all(&mut decoder(), &[v5]);
    assert_eq!(
        (out.flows.len(), out.counts.total(Counter::RecordsRejectedSize)),
        (1, 1)
    );
}

#[test]
fn case_25_a_clock_that_is_off_is_told_with_its_offset() {
    let mut decoder = decoder();
    let mut out = Decoded::default();
    for minute in 0..10_i64 {
        let message = Ipfix {
            export_s: NOW_S + minute as u32 * 60,
            ..Ipfix::new()
        };
        let received_at_ms = NOW_MS + 45 * 60_000 + minute * 60_000 + minute * 90;
        decode_at(&mut decoder, &message.build(), received_at_ms, &mut out);
    }
    let offset_ms = decoder.domains()[0].clock_offset_ms.unwrap();
    assert!(
        (-45 * 60_000 - 1_000..=-45 * 60_000).contains(&offset_ms),
        "{offset_ms}"
    );
    assert_eq!(out.counts.total(Counter::DatagramsClockOff), 10);
    // It is set right: the next header is believed at once.
    let message = Ipfix {
        export_s: NOW_S + 7_200,
        ..Ipfix::new()
    };
    decode_at(&mut decoder, &message.build(), NOW_MS + 7_200_300, &mut out);
    assert_eq!(decoder.domains()[0].clock_offset_ms, Some(-300));
    assert_eq!(out.counts.total(Counter::DatagramsClockOff), 10);
}
