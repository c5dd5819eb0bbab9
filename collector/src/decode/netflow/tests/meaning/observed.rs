//! Packets that an exporter observes on their way in and out: which of two records counts.

use super::*;

/// Open vSwitch: observed at its input without an output, and at its output. (source is inside, direction, in, out, packets, bytes)
fn observed(is_sent: bool, port: u64, direction: u64, packets: u64, bytes: u64) -> Vec<u64> {
    let (src, dst, in_if) = if is_sent {
        (V4_OF_SERVICE, V4_OUTSIDE, 6)
    } else {
        (V4_OUTSIDE, V4_OF_SERVICE, 5)
    };
    let out_if = if direction == 1 { 11 - in_if } else { 0 };
    let ports = if is_sent { (5_201, port) } else { (port, 5_201) };
    vec![
        src,
        dst,
        ports.0,
        ports.1,
        in_if,
        out_if,
        direction,
        bytes,
        packets,
        at(0) as u64 - 7_000,
        at(0) as u64 - 5_000,
    ]
}

const OBSERVED: &[(u16, u16)] = &[
    (8, 4),
    (12, 4),
    (7, 2),
    (11, 2),
    (10, 4),
    (14, 4),
    (61, 1),
    (1, 8),
    (2, 8),
    (152, 8),
    (153, 8),
];

fn metered_once(out: &Decoded) -> [u64; 2] {
    let mut flows = out.flows.clone();
    let once: FlowColumns = flows
        .iter()
        .filter(|flow| !flow.is_marked(marks::SECOND_OBSERVATION))
        .collect();
    flows.clear();
    let [(sent, _), (received, _)] = both_ways(&Decoded {
        flows: once,
        ..Decoded::default()
    });
    [sent, received]
}

#[test]
fn packets_observed_on_their_way_in_and_out_count_once_from_the_first_record_on() {
    let pairs = [
        (false, 33_000, 16, 1_295),
        (true, 33_000, 13, 999),
        (false, 33_002, 732, 1_086_685),
        (true, 33_002, 448, 23_304),
    ];
    let of = |direction: u64| {
        move |(sent, port, packets, bytes): (bool, u64, u64, u64)| observed(sent, port, direction, packets, bytes)
    };
    let ingress_first: Vec<_> = pairs.iter().flat_map(|pair| [of(0)(*pair), of(1)(*pair)]).collect();
    let egress_first: Vec<_> = pairs.map(of(1)).into_iter().chain(pairs.map(of(0))).collect();
    for records in [ingress_first, egress_first] {
        let mut decoder = decoder();
        let out = decode_all(&mut decoder, &[message(0, OBSERVED, &records)]);
        assert_eq!(out.flows.len(), 8, "both are stored");
        assert_eq!(
            metered_once(&out),
            [24_303, 1_087_980],
            "the kernel's counter of the receiver"
        );
        assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 4);
        assert!(decoder.domains()[0].observes_twice);
    }
}

#[test]
fn a_packet_that_was_flooded_does_not_hide_its_flow() {
    // Open vSwitch does not know yet where the host is: the first packet goes out at its own port, too, in a record of its own.
    let mut flooded = observed(false, 33_000, 1, 1, 60);
    flooded[5] = 65_534;
    flooded[10] = flooded[9];
    let records = [
        observed(false, 33_000, 0, 19, 1_501),
        flooded,
        observed(false, 33_000, 1, 19, 1_501),
    ];
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[message(0, OBSERVED, &records)]);
    assert_eq!(metered_once(&out), [0, 1_501]);
    assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 2);

    // Alone at the very end of another record it may be the beginning of the next one.
    let mut next = observed(false, 33_000, 1, 1, 60);
    next[9] = next[10];
    let mut decoder = self::decoder();
    let out = decode_all(&mut decoder, &[message(0, OBSERVED, &[records[0].clone(), next])]);
    assert_eq!(metered_once(&out), [0, 1_561]);
    assert!(!decoder.domains()[0].observes_twice);
}

#[test]
fn an_answer_that_is_called_egress_counts() {
    // softflowd: the answering half of each conversation is egress, later conversations of the same ports may begin at the other end.
    let mut records = Vec::new();
    for port in 0..200 {
        records.push(observed(false, port, 0, 10, 1_000));
        records.push(observed(true, port, 1, 10, 2_000));
    }
    let mut later = observed(false, 7, 1, 10, 1_000);
    (later[9], later[10]) = (at(0) as u64 - 4_000, at(0) as u64 - 3_000);
    records.push(later);
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[message(0, OBSERVED, &records)]);
    assert_eq!(metered_once(&out), [400_000, 201_000]);
    assert!(!decoder.domains()[0].observes_twice);
}

#[test]
fn what_is_observed_at_its_output_only_counts_there() {
    let mut records = vec![observed(false, 1, 0, 10, 1_000), observed(false, 1, 1, 10, 1_000)];
    // Another input interface that is not observed.
    let mut unobserved = observed(false, 2, 1, 10, 500);
    unobserved[4] = 9;
    records.push(unobserved);
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[message(0, OBSERVED, &records)]);
    assert_eq!(metered_once(&out), [0, 1_500]);
    // Ten minutes after the last record at ingress nothing is observed there any more.
    let late = decode_each(
        &mut decoder,
        &[(11, message(11, OBSERVED, &[observed(false, 3, 1, 10, 700)]))],
    );
    assert_eq!(metered_once(&late), [0, 700]);
}

/// One record of [`OBSERVED`] of so many packets of 1,000 bytes to the service, over the minute before `minute`.
fn crossed(port: u64, direction: u64, packets: u64, minute: i64) -> Vec<u64> {
    vec![
        V4_OUTSIDE,
        V4_OF_SERVICE,
        port,
        80,
        1,
        2,
        direction,
        1_000 * packets,
        packets,
        at(minute - 1) as u64,
        at(minute) as u64,
    ]
}

#[test]
fn packets_in_at_one_line_card_and_out_at_another_count_once() {
    let mut decoder = decoder();
    let mut out = Decoded::default();
    for minute in 1..=5 {
        for (domain, direction) in [(1, 0), (2, 1)] {
            let values = crossed(minute as u64, direction, 1_000, minute);
            let mut ipfix = Ipfix::new()
                .domain(domain)
                .template(256, OBSERVED)
                .set(256, &record(OBSERVED, &values));
            ipfix.export_s = NOW_S + u32::try_from(minute * 60).unwrap();
            decode_at(&mut decoder, &ipfix.build(), at(minute), &mut out);
        }
    }
    assert_eq!(out.flows.len(), 10);
    assert_eq!(metered_once(&out), [0, 5_000_000]);
    assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 5);
    assert!(
        decoder.domains().iter().all(|domain| domain.observes_twice),
        "of one device"
    );
}

/// Both caches of a minute with so many flows each, one after the other, 20 records a datagram.
fn caches(flows: u64, directions: [u64; 2], minute: i64) -> Vec<(i64, Vec<u8>)> {
    let mut messages = Vec::new();
    for direction in directions {
        let records: Vec<Vec<u64>> = (0..flows).map(|port| crossed(port, direction, 1, minute)).collect();
        messages.extend(
            records
                .chunks(20)
                .map(|chunk| (minute, message(minute, OBSERVED, chunk))),
        );
    }
    messages
}

#[test]
fn caches_exported_one_after_the_other_count_once_whatever_their_size() {
    for flows in [400, 2_000] {
        let mut decoder = decoder();
        let messages: Vec<_> = (1..=3).flat_map(|minute| caches(flows, [0, 1], minute)).collect();
        let out = decode_each(&mut decoder, &messages);
        assert_eq!(metered_once(&out), [0, 3 * flows * 1_000], "{flows} flows");
        assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 3 * flows);
        assert!(decoder.remembered_flows <= 1_024, "{}", decoder.remembered_flows);
    }
    // More in a row than are followed of an exporter that names one direction: the other cache shows it with its first records.
    let mut decoder = decoder();
    let messages: Vec<_> = (1..=3).flat_map(|minute| caches(6_000, [0, 1], minute)).collect();
    let [_, received] = metered_once(&decode_each(&mut decoder, &messages));
    assert!((18_000_000..18_200_000).contains(&received), "{received}");
}

#[test]
fn an_egress_cache_that_comes_first_is_noticed_with_the_one_at_ingress() {
    let mut decoder = decoder();
    decode_each(&mut decoder, &caches(2_000, [1, 0], 1));
    assert!(decoder.domains()[0].observes_twice);
    let messages: Vec<_> = (2..=3).flat_map(|minute| caches(2_000, [1, 0], minute)).collect();
    assert_eq!(metered_once(&decode_each(&mut decoder, &messages)), [0, 4_000_000]);
}

#[test]
fn an_address_family_that_is_observed_at_its_output_only_counts_there() {
    let v6 = [&[(27_u16, 16_u16), (28, 16)][..], &OBSERVED[2..]].concat();
    let of_v6 = |port, packets| {
        let addresses: [Address; 2] = ["2001:db8:ffff::5", "2001:db8:1::10"].map(|text| text.parse().unwrap());
        let tail = record(&OBSERVED[2..], &crossed(port, 1, packets, 0)[2..]);
        [&addresses[0].0[..], &addresses[1].0, &tail].concat()
    };
    let of_v4 = |direction| record(OBSERVED, &crossed(1, direction, 1_000, 0));
    let payload = Ipfix::new()
        .template(256, OBSERVED)
        .template(257, &v6)
        .set(256, &[of_v4(0), of_v4(1)].concat())
        .set(257, &[of_v6(2, 7_000), of_v6(3, 9_000)].concat())
        .build();
    let out = decode_all(&mut decoder(), &[payload]);
    let metered = out
        .flows
        .iter()
        .filter(|flow| !flow.is_marked(marks::SECOND_OBSERVATION));
    assert_eq!(metered.map(|flow| flow.bytes).sum::<u64>(), 17_000_000);
    assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 1);
}

#[test]
fn the_answer_of_a_biflow_that_is_observed_twice_counts_once() {
    let reverse = [(1_u16, 8_u16), (2, 8)];
    let mut template = [256_u16, (OBSERVED.len() + reverse.len()) as u16]
        .map(u16::to_be_bytes)
        .concat();
    template.extend(fields(OBSERVED));
    for (element, length) in reverse {
        template.extend([(element | 0x8000).to_be_bytes(), length.to_be_bytes()].concat());
        template.extend(29_305_u32.to_be_bytes());
    }
    let layout = [OBSERVED, &reverse].concat();
    let mut body = Vec::new();
    for port in 0..3 {
        for direction in [0, 1] {
            let values = [crossed(port, direction, 1_000, 0), vec![5_000_000, 5_000]].concat();
            body.extend(record(&layout, &values));
        }
    }
    let payload = Ipfix::new().set(2, &template).set(256, &body).build();
    let out = decode_all(&mut decoder(), std::slice::from_ref(&payload));
    assert_eq!(metered_once(&out), [15_000_000, 3_000_000]);
    assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 6);
    // The same where the direction that counts is configured.
    let metering = MeteringConfig {
        exporters: vec![ExporterConfig {
            direction: Some(MeterDirection::Ingress),
            default_sampling_rate: Some(1),
            ..ExporterConfig::unlisted(exporter())
        }],
        ..MeteringConfig::default()
    };
    let assignments = Assignments::new([Assignment {
        service: 1,
        target: Target::Prefix("198.51.100.0/24".parse().unwrap()),
        valid_from_ms: 0,
        valid_to_ms: None,
    }]);
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::from(&metering));
    let mut out = decode_all(&mut decoder, &[payload]);
    let enricher = Enricher::new(&metering, Arc::new(assignments.unwrap()));
    enricher.enrich_columns(&mut out.flows);
    let sum = |wanted| -> u64 {
        let flows = out.flows.iter().filter(|flow| flow.metered == wanted);
        flows.map(|flow| flow.bytes_scaled()).sum()
    };
    assert_eq!((sum(Metered::In), sum(Metered::Out)), (3_000_000, 15_000_000));
}
