//! Transport sessions: what belongs to an exporter's port, and what becomes of it when the port changes.

use super::*;
use crate::decode::netflow::sessions::PORT_NOT_KNOWN;
use crate::sampling::ExporterSampling;

/// Both layouts are of one length: read by the other's template, source and destination are swapped, and bytes and packets too.
const FIRST_FIELDS: &[(u16, u16)] = &[(8, 4), (12, 4), (1, 4), (2, 4)];
const SECOND_FIELDS: &[(u16, u16)] = &[(12, 4), (8, 4), (2, 4), (1, 4)];

fn record(words: [u32; 4]) -> Vec<u8> {
    words.map(u32::to_be_bytes).concat()
}

const OURS: u32 = 0xc633_640a;
const THEIRS: u32 = 0xcb00_7107;

fn decode_from(decoder: &mut NetflowDecoder, port: u16, received_at_ms: i64, payload: &[u8]) -> Decoded {
    let mut out = Decoded::default();
    let datagram = Datagram {
        received_at_ms,
        source: exporter(),
        source_port: port,
        payload,
    };
    decoder.decode(&datagram, &mut out);
    out
}

/// A v9 datagram of a router that started `uptime_ms` before `NOW_MS`.
fn v9(sequence: u32, uptime_ms: u32) -> V9 {
    V9 {
        uptime_ms,
        ..V9::new().sequence(sequence)
    }
}

#[test]
fn case_06a_two_exporters_behind_one_address() {
    let mut decoder = decoder();
    let mut sums = (0, 0);
    let mut counts = crate::counts::Counts::default();
    let mut feed = |port, message: V9| {
        let out = decode_from(&mut decoder, port, NOW_MS, &message.build());
        for flow in out.flows.iter() {
            assert_eq!(flow.dst_addr, Address::from_v4(OURS.to_be_bytes()), "never swapped");
            assert_eq!(flow.packets, 1);
            sums = (sums.0 + 1, sums.1 + flow.bytes);
        }
        counts.merge(&out.counts);
    };
    feed(40_001, v9(1_000, 100_000).template(256, FIRST_FIELDS));
    feed(40_002, v9(900_000, 5_000_000).template(256, SECOND_FIELDS));
    for i in 0..6 {
        feed(
            40_001,
            v9(1_001 + i, 100_000).set(256, &record([THEIRS, OURS, 1_500, 1])),
        );
        feed(
            40_002,
            v9(900_001 + i, 5_000_000).set(256, &record([OURS, THEIRS, 1, 1_500])),
        );
    }
    assert_eq!(sums, (12, 18_000));
    for counter in [Counter::SequenceLost, Counter::SequenceReset, Counter::SetsPending] {
        assert_eq!(counts.total(counter), 0, "{}", counter.name());
    }
    let ports: Vec<u16> = decoder.domains().iter().map(|domain| domain.port).collect();
    assert_eq!(ports, [40_001, 40_002], "the page shows both");
}

#[test]
fn data_of_another_port_waits_for_its_own_template() {
    let mut decoder = decoder();
    decode_from(
        &mut decoder,
        40_001,
        NOW_MS,
        &v9(1_000, 100_000).template(256, FIRST_FIELDS).build(),
    );
    let data = v9(900_000, 5_000_000)
        .set(256, &record([OURS, THEIRS, 1, 1_500]))
        .build();
    let out = decode_from(&mut decoder, 40_002, NOW_MS, &data);
    assert_eq!((out.flows.len(), out.counts.total(Counter::SetsPending)), (0, 1));
    let template = v9(900_001, 5_000_000).template(256, SECOND_FIELDS).build();
    let out = decode_from(&mut decoder, 40_002, NOW_MS + 60_000, &template);
    assert_eq!(one_flow(&out).bytes, 1_500, "the late template frees it");
}

#[test]
fn a_session_goes_on_under_another_port() {
    let mut decoder = decoder();
    let data = |sequence: u32, uptime_ms: u32| {
        v9(sequence, uptime_ms)
            .set(256, &record([THEIRS, OURS, 1_500, 1]))
            .build()
    };
    decode_from(
        &mut decoder,
        40_001,
        NOW_MS,
        &v9(1_000, 100_000).template(256, FIRST_FIELDS).build(),
    );
    // NAT gave it another port an hour later; two datagrams were lost.
    let out = decode_from(&mut decoder, 51_000, NOW_MS + 3_600_000, &data(1_003, 3_700_000));
    assert_eq!((out.flows.len(), out.counts.total(Counter::SessionsMoved)), (1, 1));
    // A sender with a socket for each datagram keeps its templates, too.
    for i in 0..2_000_u32 {
        let port = 10_000 + (i * 7 % 50_000) as u16;
        let out = decode_from(&mut decoder, port, NOW_MS + 3_600_000, &data(1_004 + i, 3_700_000));
        assert_eq!(out.flows.len(), 1, "datagram {i}");
    }
    assert_eq!(decoder.domains().len(), 1);
    // The same numbers of another start are another router.
    let out = decode_from(&mut decoder, 9, NOW_MS + 3_600_000, &data(3_004, 200_000));
    assert_eq!((out.flows.len(), out.counts.total(Counter::SessionsMoved)), (0, 0));
}

#[test]
fn a_port_that_nat_gives_to_another_router_is_read_with_that_routers_templates() {
    // The first router falls silent, and NAT gives its port to the second one; or they change ports with each other.
    for first_goes_on in [false, true] {
        let mut decoder = decoder();
        let mut sums = (0, 0);
        let mut moved = 0;
        let mut feed = |port, at_ms, payload: &[u8]| {
            let out = decode_from(&mut decoder, port, NOW_MS + at_ms, payload);
            for flow in out.flows.iter() {
                assert_eq!(flow.dst_addr, Address::from_v4(OURS.to_be_bytes()), "never swapped");
                sums = (sums.0 + 1, sums.1 + flow.bytes);
            }
            moved += out.counts.total(Counter::SessionsMoved);
        };
        for round in 0..8_u32 {
            let at_ms = 10_000 * i64::from(round);
            let (first_port, second_port) = match (round < 4, first_goes_on) {
                (true, _) => (40_001, 40_002),
                (false, _) => (40_002, 40_001),
            };
            if round < 4 || first_goes_on {
                let mut first = v9(500 + round, 1_000_000 + 10_000 * round);
                if round == 0 {
                    first = first.template(256, FIRST_FIELDS);
                }
                let payload = first.set(256, &record([THEIRS, OURS, 1_000, 1])).build();
                feed(first_port, at_ms, &payload);
            }
            let mut second = v9(90 + round, 5_000_000 + 10_000 * round);
            if round == 0 {
                second = second.template(256, SECOND_FIELDS);
            }
            let payload = second.set(256, &record([OURS, THEIRS, 3, 3_000])).build();
            feed(second_port, at_ms + 1_000, &payload);
        }
        let right = if first_goes_on { (16, 32_000) } else { (12, 28_000) };
        assert_eq!((sums, moved), (right, 1));
    }
}

#[test]
fn an_ipfix_port_that_nat_gives_to_another_router_is_read_with_that_routers_templates() {
    let mut decoder = decoder();
    let mut bytes = 0;
    let mut feed = |port, at_ms, message: Ipfix| {
        let out = decode_from(&mut decoder, port, NOW_MS + at_ms, &message.build());
        for flow in out.flows.iter() {
            assert_eq!(flow.dst_addr, Address::from_v4(OURS.to_be_bytes()), "never swapped");
            bytes += flow.bytes;
        }
    };
    for round in 0..8_u32 {
        let at_ms = 10_000 * i64::from(round);
        let of = |sequence: u32, fields, words| {
            let message = Ipfix::new().sequence(sequence + round);
            let message = if round == 0 {
                message.template(256, fields)
            } else {
                message
            };
            message.set(256, &record(words))
        };
        if round < 4 {
            feed(2_055, at_ms, of(100_000, FIRST_FIELDS, [THEIRS, OURS, 1_000, 1]));
        }
        let second = of(7, SECOND_FIELDS, [OURS, THEIRS, 3, 3_000]);
        feed(if round < 4 { 1_024 } else { 2_055 }, at_ms + 1_000, second);
    }
    assert_eq!(bytes, 28_000);
}

#[test]
fn an_ipfix_session_goes_on_where_its_numbers_do() {
    let mut decoder = decoder();
    let data = |sequence| Ipfix::new().sequence(sequence).set(256, &flow_record(100, 1)).build();
    let known = Ipfix::new()
        .sequence(7)
        .template(256, FLOW_FIELDS)
        .set(256, &flow_record(100, 1));
    decode_from(&mut decoder, 40_001, NOW_MS, &known.build());
    assert_eq!(decode_from(&mut decoder, 40_002, NOW_MS, &data(8)).flows.len(), 1);
    let other = decode_from(&mut decoder, 40_003, NOW_MS, &data(0));
    assert_eq!(other.flows.len(), 0, "a count that begins is another exporter");
    assert_eq!(decode_from(&mut decoder, 40_002, NOW_MS, &data(9)).flows.len(), 1);
    // Records may be missing where the number is one that no other exporter is likely to be at.
    assert_eq!(decode_from(&mut decoder, 40_004, NOW_MS, &data(40)).flows.len(), 0);
    assert_eq!(
        decode_from(&mut decoder, 40_002, NOW_MS, &data(1_000_000)).flows.len(),
        1
    );
    let out = decode_from(&mut decoder, 40_005, NOW_MS, &data(1_000_100));
    assert_eq!((out.flows.len(), out.counts.total(Counter::SessionsMoved)), (1, 1));
}

#[test]
fn sessions_of_an_address_are_bounded_and_the_one_with_templates_stays() {
    let mut decoder = decoder();
    let limits = DecodeLimits::default();
    let known = v9(5_000, 100_000).template(256, FIRST_FIELDS).build();
    decode_from(&mut decoder, 40_001, NOW_MS, &known);
    let mut counts = crate::counts::Counts::default();
    for port in 1..=1_000_u16 {
        // Numbers without order: a new session each time.
        let message = v9(u32::from(port) * 100_000, 1).set(256, &record([1, 2, 1_500, 1]));
        counts.merge(&decode_from(&mut decoder, port, NOW_MS + i64::from(port), &message.build()).counts);
    }
    assert_eq!(decoder.domains().len(), limits.max_sessions_per_exporter);
    let expired = 1_001 - limits.max_sessions_per_exporter as u64;
    assert_eq!(counts.total(Counter::SessionsExpired), expired);
    let waiting: usize = decoder.domains().iter().map(|domain| domain.pending_sets).sum();
    let dropped = counts.total(Counter::SetsDroppedPending);
    assert_eq!((waiting as u64 + dropped, dropped), (1_000, expired), "F2");
    let pending_bytes: usize = decoder.domains().iter().map(|domain| domain.pending_bytes).sum();
    assert_eq!(decoder.pending_bytes, pending_bytes);
    let data = v9(5_001, 101_000).set(256, &record([THEIRS, OURS, 1_500, 1])).build();
    let out = decode_from(&mut decoder, 40_001, NOW_MS + 1_000, &data);
    assert_eq!(out.flows.len(), 1, "its templates are there");
}

#[test]
fn a_silent_session_is_forgotten_beside_another_one() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let mut decoder = decoder();
    decode_from(
        &mut decoder,
        1,
        NOW_MS,
        &v9(1_000, 100_000).template(256, FIRST_FIELDS).build(),
    );
    decode_from(
        &mut decoder,
        2,
        NOW_MS + DAY_MS + 1,
        &v9(9, 5_000).template(256, FIRST_FIELDS).build(),
    );
    let mut out = Decoded::default();
    decoder.forget_silent(&mut out);
    assert_eq!(out.counts.total(Counter::SessionsExpired), 1);
    let ports: Vec<u16> = decoder.domains().iter().map(|domain| domain.port).collect();
    assert_eq!(ports, [2]);
    assert_eq!(decoder.template_fields, FIRST_FIELDS.len());
}

#[test]
fn options_of_one_session_are_not_for_another() {
    let mut decoder = decoder();
    let options = |rate: u32| {
        Ipfix::new()
            .options_template(512, 1, &[(144, 0), (34, 4)])
            .set(512, &rate.to_be_bytes())
    };
    let flows = || Ipfix::new().template(256, FLOW_FIELDS).set(256, &flow_record(100, 1));
    decode_from(&mut decoder, 40_001, NOW_MS, &options(1_000).build());
    let rate = |decoder: &mut NetflowDecoder, port| {
        one_flow(&decode_from(decoder, port, NOW_MS, &flows().build())).sampling_rate
    };
    assert_eq!((rate(&mut decoder, 40_002), rate(&mut decoder, 40_001)), (0, 1_000));
}

#[test]
fn an_exporter_may_be_configured_as_one_session_for_all_ports() {
    let sampling = SamplingConfig {
        exporters: [(
            exporter(),
            ExporterSampling {
                joins_ports: true,
                ..ExporterSampling::default()
            },
        )]
        .into(),
        ..SamplingConfig::default()
    };
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), sampling);
    decode_from(
        &mut decoder,
        40_001,
        NOW_MS,
        &v9(1_000, 100_000).template(256, FIRST_FIELDS).build(),
    );
    let data = v9(77, 100_000).set(256, &record([THEIRS, OURS, 1_500, 1])).build();
    assert_eq!(decode_from(&mut decoder, 40_002, NOW_MS, &data).flows.len(), 1);
    assert_eq!(decoder.domains()[0].port, PORT_NOT_KNOWN);
    // The setting is taken back: what is known stays with the port that speaks next.
    decoder.set_sampling(SamplingConfig::default());
    let data = v9(78, 100_000).set(256, &record([THEIRS, OURS, 1_500, 1])).build();
    assert_eq!(decode_from(&mut decoder, 40_002, NOW_MS, &data).flows.len(), 1);
    assert_eq!(decoder.domains()[0].port, 40_002);
}

#[test]
fn a_checkpoint_of_version_1_0_is_read_and_goes_on() {
    // What 7bef553 wrote after one template, cut to what it had: no sessions, no port.
    let stored = serde_json::json!({ "exporters": { "192.0.2.1": {
        "domains": { "9/1": {
            "last_heard_ms": NOW_MS,
            "templates": { "256": {
                "spec": { "kind": "data", "scope_fields": 0, "is_v9": true, "fields": [
                    { "element": 8, "length": 4 }, { "element": 12, "length": 4 },
                    { "element": 1, "length": 4 }, { "element": 2, "length": 4 },
                ] },
                "last_seen_ms": NOW_MS,
            } },
            "template_fields": 4, "no_template_expires_before_ms": 0,
            "sequence": { "next": 1_001, "gaps": [], "behind": null, "uptime_ms": 100_000 },
            "pending": { "sets": [], "bytes": 0 },
            "boot_ms": null,
            "sampling": { "rate": 1_000, "source": "options_domain" },
        } },
        "rates": {
            "domains": { "9/1": { "plain": 1_000, "samplers": {}, "of_samplers": null } },
            "of_exporter": { "lowest": 1_000, "highest": 1_000 },
            "samplers": 0,
        },
        "boot_ms": null, "pending_bytes": 0, "template_fields": 4,
    } } });
    let checkpoint: NetflowCheckpoint = serde_json::from_value(stored).unwrap();
    let mut decoder = NetflowDecoder::restore(DecodeLimits::default(), SamplingConfig::default(), checkpoint);
    let data = v9(1_001, 160_000).set(256, &record([THEIRS, OURS, 1_500, 1])).build();
    let out = decode_from(&mut decoder, 40_001, NOW_MS + 60_000, &data);
    let flow = one_flow(&out);
    assert_eq!((flow.bytes, flow.sampling_rate), (1_500, 1_000));
    assert_eq!(out.counts.total(Counter::SequenceLost), 0);
    let ports: Vec<u16> = decoder.domains().iter().map(|domain| domain.port).collect();
    assert_eq!(ports, [40_001]);
    // A second router behind the address begins with nothing.
    let data = v9(5, 160_000).set(256, &record([THEIRS, OURS, 1_500, 1])).build();
    assert_eq!(decode_from(&mut decoder, 40_002, NOW_MS + 60_000, &data).flows.len(), 0);
}

#[test]
fn f1_sessions_survive_a_checkpoint() {
    let mut decoder = decoder();
    decode_from(
        &mut decoder,
        1,
        NOW_MS,
        &v9(1_000, 100_000).template(256, FIRST_FIELDS).build(),
    );
    decode_from(
        &mut decoder,
        2,
        NOW_MS,
        &v9(9, 5_000).template(256, SECOND_FIELDS).build(),
    );
    let json = serde_json::to_vec(&decoder.checkpoint()).unwrap();
    let checkpoint: NetflowCheckpoint = serde_json::from_slice(&json).unwrap();
    assert_eq!(checkpoint, decoder.checkpoint());
    let mut restored = NetflowDecoder::restore(DecodeLimits::default(), SamplingConfig::default(), checkpoint);
    for (port, sequence, uptime_ms) in [(1, 1_001, 100_000), (2, 10, 5_000), (3, 1_002, 100_000)] {
        let payload = v9(sequence, uptime_ms).set(256, &record([THEIRS, OURS, 1, 1])).build();
        let [one, other] = [&mut decoder, &mut restored].map(|d| decode_from(d, port, NOW_MS, &payload));
        assert_eq!((one.flows, one.counts), (other.flows, other.counts));
    }
}
