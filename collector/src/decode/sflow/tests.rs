//! What switches and routers send in sFlow, each case by its name. Captures are compared in `tests/golden_sflow.rs`; here
//! datagrams are written word by word.

mod agents;

use std::sync::Arc;

use etherparse::PacketBuilder;
use schemas::assignment::{Assignment, Assignments, Target};
use schemas::metering::{ExporterConfig, MeterDirection, MeterMode};
use tables::flow::{Flow, Metered};
use tables::metering::Enricher;

use super::*;

const NOW_MS: i64 = 1_767_225_600_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn switch() -> Address {
    "192.0.2.7".parse().unwrap()
}

fn forged(number: u32) -> Address {
    Address::from_v4((0x0a00_0000 + number).to_be_bytes())
}

/// A datagram of `agent` with samples of (format, body).
fn datagram_of(agent: Address, sub_agent: u32, sequence: u32, samples: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let octets = &agent.0[12..];
    let mut bytes = words(&[5, 1]);
    bytes.extend(octets);
    bytes.extend(words(&[sub_agent, sequence, 1_000 + sequence, samples.len() as u32]));
    for (format, body) in samples {
        bytes.extend(words(&[*format, body.len() as u32]));
        bytes.extend(body);
    }
    bytes
}

/// A raw packet header record of an Ethernet frame, clipped at 128 bytes.
fn raw_header(frame: &[u8]) -> Vec<u8> {
    let head = &frame[..frame.len().min(128)];
    let padding = head.len().wrapping_neg() % 4;
    let mut record = words(&[1, frame.len() as u32 + 4, 4, head.len() as u32]);
    record.extend(head);
    record.extend(vec![0; padding]);
    let mut bytes = words(&[1, record.len() as u32]);
    bytes.extend(record);
    bytes
}

fn sample(source: u32, rate: u32, input: u32, output: u32, records: &[Vec<u8>]) -> (u32, Vec<u8>) {
    let mut body = words(&[1, source, rate, 0, 0, input, output, records.len() as u32]);
    body.extend(records.concat());
    (1, body)
}

fn expanded(source: u32, rate: u32, input: (u32, u32), output: (u32, u32), record: &[u8]) -> (u32, Vec<u8>) {
    let mut body = words(&[1, 0, source, rate, 0, 0, input.0, input.1, output.0, output.1, 1]);
    body.extend(record);
    (3, body)
}

fn udp_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([198, 51, 100, 7], [203, 0, 113, 9], 61)
        .udp(53, 5_353)
        .write(&mut frame, &[7; 472])
        .unwrap();
    frame
}

fn decoder() -> SflowDecoder {
    SflowDecoder::new(SflowLimits::default(), &MeteringConfig::default())
}

fn decode_at(decoder: &mut SflowDecoder, source: Address, received_at_ms: i64, payload: &[u8]) -> Decoded {
    let mut out = Decoded::default();
    let datagram = Datagram {
        received_at_ms,
        source,
        source_port: 0,
        payload,
    };
    decoder.decode(&datagram, &mut out);
    out
}

fn decode(samples: &[(u32, Vec<u8>)]) -> Decoded {
    decode_at(&mut decoder(), switch(), NOW_MS, &datagram_of(switch(), 0, 1, samples))
}

fn flow_of(frame: &[u8]) -> Flow {
    let out = decode(&[sample(7, 512, 7, 8, &[raw_header(frame)])]);
    assert_eq!(out.flows.len(), 1, "{:?}", out.counts);
    out.flows.rows()[0]
}

#[test]
fn a_sampled_packet_larger_than_any_is_rejected() {
    let sampled_ip = |bytes: u32| words(&[3, 32, bytes, 17, 0xc633_6407, 0xcb00_7109, 53, 5_353, 0, 0]);
    for (bytes, flows, rejected) in [
        (1_500, 1, 0),
        (16 << 20, 1, 0),
        ((16 << 20) + 1, 0, 1),
        (u32::MAX, 0, 1),
    ] {
        let out = decode(&[sample(7, 512, 7, 8, &[sampled_ip(bytes)])]);
        let counted = (out.flows.len(), out.counts.total(Counter::SamplesRejected));
        assert_eq!(counted, (flows, rejected), "{bytes}");
    }
}

#[test]
fn an_output_interface_may_be_an_index_a_discard_several_or_the_device() {
    const DROPPED: u32 = 1 << 30;
    const SEVERAL: u32 = 2 << 30;
    let cases = [
        (531, (531, 0)),
        (0, (0, 0)),
        (DROPPED | 256, (0, 128)),
        (DROPPED | 258, (0, 129)),
        (DROPPED | 257, (0, 137)),
        (DROPPED | 262, (0, 133)),
        (DROPPED | 3, (0, 131)),
        (SEVERAL | 24, (0, 0)),
        (0x3fff_ffff, (0, 0)),
    ];
    for (output, expected) in cases {
        let out = decode(&[sample(7, 512, 7, output, &[raw_header(&udp_frame())])]);
        let flow = out.flows.rows()[0];
        assert_eq!((flow.out_if, flow.forwarding_status), expected, "{output:#x}");
        assert_eq!(flow.in_if, 7);
        let discarded = u64::from(expected.1 != 0);
        assert_eq!(out.counts.total(Counter::FlowsDiscarded), discarded, "{output:#x}");
    }
}

#[test]
fn an_expanded_sample_says_interface_formats_in_words_of_their_own() {
    let cases = [
        ((0, 0x0100_0001), (0x0100_0001, 0)),
        ((1, 258), (0, 129)),
        ((2, 24), (0, 0)),
        ((0, 0x3fff_ffff), (0, 0)),
    ];
    for (output, expected) in cases {
        let out = decode(&[expanded(7, 512, (0, 7), output, &raw_header(&udp_frame()))]);
        let flow = out.flows.rows()[0];
        assert_eq!((flow.out_if, flow.forwarding_status), expected, "{output:?}");
    }
}

#[test]
fn a_packet_that_came_from_the_device_itself_has_no_input_interface() {
    let out = decode(&[sample(8, 512, 0x3fff_ffff, 8, &[raw_header(&udp_frame())])]);
    let flow = out.flows.rows()[0];
    assert_eq!((flow.in_if, flow.out_if, flow.direction), (0, 8, 1));
}

#[test]
fn each_sample_is_scaled_by_its_own_adaptive_rate() {
    let header = raw_header(&udp_frame());
    let samples = [512, 8_192, 1, 16_777_215].map(|rate| sample(7, rate, 7, 8, std::slice::from_ref(&header)));
    let mut decoder = decoder();
    let out = decode_at(&mut decoder, switch(), NOW_MS, &datagram_of(switch(), 0, 1, &samples));
    let scaled: Vec<u64> = out.flows.rows().iter().map(Flow::bytes_scaled).collect();
    assert_eq!(scaled, [512, 8_192, 1, 16_777_215].map(|rate| 500 * rate));
    assert_eq!(
        decoder.agents()[0].sources[0].sampling_rate,
        16_777_215,
        "the newest is shown"
    );
}

#[test]
fn a_dynamic_agent_id_is_another_exporter_and_an_empty_one_its_udp_source() {
    let mut decoder = decoder();
    let samples = [sample(7, 512, 7, 8, &[raw_header(&udp_frame())])];
    let mut exporter = |agent: Address, sequence| {
        let payload = datagram_of(agent, 0, sequence, &samples);
        let out = decode_at(&mut decoder, switch(), NOW_MS, &payload);
        let counts = [Counter::SequenceLost, Counter::SequenceReset].map(|counter| out.counts.total(counter));
        assert_eq!(counts, [0, 0], "each agent has numbers of its own");
        out.flows.rows()[0].exporter
    };
    // The agent's address follows an interface that goes down: the same switch speaks under another name.
    assert_eq!(exporter(forged(1), 700), forged(1));
    assert_eq!(exporter(forged(2), 1), forged(2));
    assert_eq!(exporter(Address::from_v4([0; 4]), 9), switch());
    assert_eq!(exporter(forged(1), 701), forged(1));
    assert_eq!(decoder.agents().len(), 3);
}

#[test]
fn a_packet_sampled_at_ingress_and_at_egress_is_metered_once() {
    let header = raw_header(&udp_frame());
    let samples = [
        sample(1, 512, 1, 2, std::slice::from_ref(&header)),
        sample(2, 512, 1, 2, std::slice::from_ref(&header)),
    ];
    let mut out = decode(&samples);
    assert_eq!(out.flows.len(), 2, "both observations are kept");
    let metering = MeteringConfig {
        exporters: vec![ExporterConfig {
            meter: MeterMode::Boundary,
            external_interfaces: vec![1],
            ..ExporterConfig::unlisted(switch())
        }],
        ..MeteringConfig::default()
    };
    let enricher = Enricher::new(&metering, Arc::new(Assignments::default()));
    enricher.enrich_columns(&mut out.flows);
    let seen: Vec<(u8, Metered)> = out
        .flows
        .rows()
        .iter()
        .map(|flow| (flow.direction, flow.metered))
        .collect();
    assert_eq!(seen, [(0, Metered::In), (1, Metered::No)]);
}

#[test]
fn without_configuration_a_packet_sampled_on_its_way_in_and_out_counts_once() {
    let header = raw_header(&udp_frame());
    let at = |source, input, output| sample(source, 512, input, output, std::slice::from_ref(&header));
    // At ingress and egress of one way, at the egress of another that is not sampled where it comes in, and at a host's own interface.
    let out = decode(&[at(1, 1, 2), at(2, 1, 2), at(2, 3, 2), at(5, 0, 5)]);
    let is_second: Vec<bool> = out
        .flows
        .iter()
        .map(|flow| flow.is_marked(marks::SECOND_OBSERVATION))
        .collect();
    assert_eq!(is_second, [false, true, false, false]);
    assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 1);
}

#[test]
fn a_packet_sampled_by_two_sub_agents_of_one_agent_counts_once() {
    let header = raw_header(&udp_frame());
    let mut decoder = decoder();
    let mut metered = 0;
    for sequence in 1..=10 {
        for (sub_agent, source) in [(1, 1), (2, 2)] {
            let samples = [sample(source, 200, 1, 2, std::slice::from_ref(&header))];
            let payload = datagram_of(switch(), sub_agent, sequence, &samples);
            let out = decode_at(&mut decoder, switch(), NOW_MS, &payload);
            let once = out
                .flows
                .iter()
                .filter(|flow| !flow.is_marked(marks::SECOND_OBSERVATION));
            metered += once.map(|flow| flow.bytes_scaled()).sum::<u64>();
        }
    }
    assert_eq!(metered, 10 * 200 * 500, "1,000,000");
    let restored = SflowDecoder::restore(SflowLimits::default(), &MeteringConfig::default(), decoder.checkpoint());
    assert_eq!(restored.checkpoint(), decoder.checkpoint(), "F1");
}

#[test]
fn where_an_earlier_checkpoint_says_that_an_agent_samples_is_known_of_all_its_sub_agents() {
    let stored = serde_json::json!({ "strangers": [], "agents": [{
        "exporter": "192.0.2.7", "sub_agent": 1, "last_heard_ms": NOW_MS, "sequence": 41, "uptime_ms": 5_000,
        "source": "192.0.2.7", "sources": [], "interfaces": [], "ingress": { "1": NOW_MS },
    }] });
    let checkpoint = serde_json::from_value(stored).unwrap();
    let mut decoder = SflowDecoder::restore(SflowLimits::default(), &MeteringConfig::default(), checkpoint);
    let samples = [sample(2, 200, 1, 2, &[raw_header(&udp_frame())])];
    let out = decode_at(
        &mut decoder,
        switch(),
        NOW_MS + 1,
        &datagram_of(switch(), 2, 1, &samples),
    );
    assert_eq!(out.counts.total(Counter::FlowsSecondObservation), 1);
}

#[test]
fn vlan_tags_802_1q_and_qinq_give_the_outer_vlan() {
    let mac = [2_u8; 12];
    let ip = &udp_frame()[14..];
    let framed = |tags: &[u8]| flow_of(&[&mac[..], tags, &[0x08, 0x00], ip].concat());
    let dot1q = framed(&[0x81, 0x00, 0x60, 0x64]);
    assert_eq!(
        (dot1q.in_vlan, dot1q.bytes),
        (100, 500),
        "the priority bits are no part of it"
    );
    let qinq = framed(&[0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0xc8]);
    assert_eq!((qinq.in_vlan, qinq.bytes), (100, 500));
    let stacked_8100 = framed(&[0x81, 0x00, 0x00, 0x65, 0x81, 0x00, 0x00, 0xc8]);
    assert_eq!(stacked_8100.in_vlan, 101);
    let priority_only = framed(&[0x81, 0x00, 0xe0, 0x00, 0x81, 0x00, 0x00, 0xc8]);
    assert_eq!(priority_only.in_vlan, 200, "a priority tag names no VLAN");
}

#[test]
fn a_vlan_that_the_switch_tells_stands_in_for_a_stripped_tag() {
    let vlan = |records: &[Vec<u8>]| decode(&[sample(7, 512, 7, 8, records)]).flows.rows()[0].in_vlan;
    assert_eq!(vlan(&[raw_header(&udp_frame()), switch_record(300, 400)]), 300);
    assert_eq!(
        vlan(&[switch_record(0, 400), raw_header(&udp_frame())]),
        0,
        "400 is the other side's"
    );
    assert_eq!(vlan(&[raw_header(&udp_frame()), switch_record(u32::MAX, u32::MAX)]), 0);
}

#[test]
fn ipv6_packets_are_read() {
    let mut frame = Vec::new();
    let (src, dst): (Address, Address) = ("2001:db8::7".parse().unwrap(), "2001:db8::9".parse().unwrap());
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(src.0, dst.0, 64)
        .tcp(443, 51_200, 1, 64)
        .syn()
        .write(&mut frame, &[7; 700])
        .unwrap();
    let flow = flow_of(&frame);
    assert_eq!((flow.src_addr, flow.dst_addr), (src, dst));
    assert_eq!((flow.bytes, flow.src_port, flow.tcp_flags), (40 + 20 + 700, 443, 2));
}

#[test]
fn mpls_labels_are_passed_over() {
    let labels = [0x00, 0x01, 0x00, 0x40, 0x00, 0x02, 0x01, 0x40];
    let frame = [&[2; 12][..], &[0x88, 0x47], &labels, &udp_frame()[14..]].concat();
    let flow = flow_of(&frame);
    assert_eq!(
        (flow.src_addr.to_string(), flow.bytes, flow.src_port),
        ("198.51.100.7".into(), 500, 53)
    );
}

#[test]
fn tunnels_count_by_their_outer_addresses() {
    let inner = udp_frame();
    let outer = |protocol: u8, payload: &[u8]| {
        let mut frame = [&[2; 12][..], &[0x08, 0x00, 0x45, 0]].concat();
        frame.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 10, 192, 0, 2, 20]);
        frame.extend(payload);
        frame
    };
    let gre = outer(47, &[&[0, 0, 0x08, 0x00][..], &inner[14..]].concat());
    let udp = |port: u16, payload: &[u8]| {
        let length = u16::try_from(8 + payload.len()).unwrap();
        [
            &[0xc0, 0x00][..],
            &port.to_be_bytes(),
            &length.to_be_bytes(),
            &[0, 0],
            payload,
        ]
        .concat()
    };
    let vxlan = outer(17, &udp(4_789, &[&[8, 0, 0, 0, 0, 0, 100, 0][..], &inner].concat()));
    let ip_in_ip = outer(4, &inner[14..]);
    for (frame, ip_protocol, dst_port, bytes) in [
        (gre, 47, 0, 20 + 4 + 500),
        (vxlan, 17, 4_789, 20 + 8 + 8 + 514),
        (ip_in_ip, 4, 0, 20 + 500),
    ] {
        let flow = flow_of(&frame);
        assert_eq!(
            (flow.src_addr.to_string(), flow.dst_addr.to_string()),
            ("192.0.2.10".into(), "192.0.2.20".into())
        );
        assert_eq!(
            (flow.ip_protocol, flow.dst_port, flow.bytes),
            (ip_protocol, dst_port, bytes)
        );
    }
}

fn switch_record(src_vlan: u32, dst_vlan: u32) -> Vec<u8> {
    let mut bytes = words(&[1001, 16]);
    bytes.extend(words(&[src_vlan, 0, dst_vlan, 0]));
    bytes
}

/// Case 10a: a packet that came in tagged 10 and is routed to VLAN 100 belongs to the service of VLAN 100 on its way out.
#[test]
fn case_10a_each_direction_is_attributed_by_its_own_sides_vlan() {
    let mac = [2_u8; 12];
    let tagged = |vlan: u8| [&mac[..], &[0x81, 0x00, 0x00, vlan, 0x08, 0x00], &udp_frame()[14..]].concat();
    let metering = MeteringConfig {
        exporters: vec![ExporterConfig {
            meter: MeterMode::Boundary,
            direction: Some(MeterDirection::Both),
            external_interfaces: vec![1],
            ..ExporterConfig::unlisted(switch())
        }],
        ..MeteringConfig::default()
    };
    let of_vlan = |service, vlan| Assignment {
        service,
        target: Target::Vlan {
            exporter: switch(),
            vlan,
        },
        valid_from_ms: 0,
        valid_to_ms: None,
    };
    let assignments = Assignments::new([of_vlan(10, 10), of_vlan(100, 100)]).unwrap();
    let enricher = Enricher::new(&metering, Arc::new(assignments));
    let judged = |source, input, output, vlan, records: &[Vec<u8>]| {
        let all = [&[raw_header(&tagged(vlan))], records].concat();
        let mut out = decode(&[sample(source, 1_000, input, output, &all)]);
        enricher.enrich_columns(&mut out.flows);
        let flow = out.flows.rows()[0];
        (
            flow.in_vlan,
            flow.out_vlan,
            flow.src_service,
            flow.dst_service,
            flow.metered,
        )
    };
    let routed = [switch_record(10, 100)];
    assert_eq!(judged(1, 1, 2, 10, &routed), (10, 100, 10, 100, Metered::In));
    assert_eq!(
        judged(2, 1, 2, 100, &routed),
        (10, 100, 10, 100, Metered::In),
        "sampled on its way out"
    );
    let back = [switch_record(100, 10)];
    assert_eq!(judged(2, 2, 1, 100, &back), (100, 10, 100, 10, Metered::Out));
    assert_eq!(
        judged(1, 1, 2, 100, &[]),
        (100, 100, 100, 100, Metered::In),
        "bridged, nothing else is told"
    );
}

/// Case 16 of the telemetry cases: VXLAN, by setting the packet inside.
#[test]
fn case_16_a_sampled_tunnel_counts_for_the_packet_inside_where_its_exporter_is_set_so() {
    let mut inner = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([198, 51, 100, 10], [203, 0, 113, 7], 64)
        .tcp(443, 50_000, 1, 64)
        .write(&mut inner, &[7; 1_460])
        .unwrap();
    let mut frame = Vec::new();
    let vxlan = [&[8, 0, 0, 0, 0, 0x27, 0x10, 0][..], &inner].concat();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 255, 0, 1], [10, 255, 0, 2], 64)
        .udp(55_555, 4_789)
        .write(&mut frame, &vxlan)
        .unwrap();
    let read = |network: &str, tunnels, frame: &[u8]| {
        let config = MeteringConfig {
            exporters: vec![ExporterConfig {
                address: network.parse().unwrap(),
                tunnels,
                ..ExporterConfig::unlisted(switch())
            }],
            ..MeteringConfig::default()
        };
        let mut decoder = SflowDecoder::new(SflowLimits::default(), &config);
        let payload = datagram_of(switch(), 0, 1, &[sample(1, 1_000, 1, 2, &[raw_header(frame)])]);
        let out = decode_at(&mut decoder, switch(), NOW_MS, &payload);
        let flow = out.flows.rows()[0];
        let cut = out.counts.total(Counter::TunnelsCut);
        (flow.src_addr.to_string(), flow.dst_addr.to_string(), flow.bytes, cut)
    };
    let told = |src: &str, dst: &str, bytes, cut| (src.to_owned(), dst.to_owned(), bytes, cut);
    let outer = told("10.255.0.1", "10.255.0.2", 1_550, 0);
    let inside = told("198.51.100.10", "203.0.113.7", 1_500, 0);
    assert_eq!(read("192.0.2.7", TunnelMode::Outer, &frame), outer);
    assert_eq!(read("192.0.2.7", TunnelMode::Inner, &frame), inside);
    assert_eq!(
        read("192.0.2.0/24", TunnelMode::Inner, &frame),
        inside,
        "by its network's section"
    );
    assert_eq!(
        read("198.51.100.0/24", TunnelMode::Inner, &frame),
        outer,
        "another network's section"
    );
    let cut_short = told("10.255.0.1", "10.255.0.2", 1_550, 1);
    assert_eq!(
        read("192.0.2.7", TunnelMode::Inner, &frame[..80]),
        cut_short,
        "counted, and kept"
    );
}

/// Case 27: a gateway record with an empty path leads into the exporter's own AS.
#[test]
fn case_27_an_empty_as_path_is_the_exporters_own_as() {
    let gateway = |src_as: u32, path: &[u32]| {
        let mut body = words(&[1]);
        body.extend([192, 0, 2, 254]);
        body.extend(words(&[65_000, src_as, 64_501]));
        body.extend(words(path));
        body.extend(words(&[0, 100]));
        let mut bytes = words(&[1003, body.len() as u32]);
        bytes.extend(body);
        bytes
    };
    let both = |src_as, path: &[u32]| {
        let out = decode(&[sample(7, 512, 7, 8, &[raw_header(&udp_frame()), gateway(src_as, path)])]);
        let flow = out.flows.rows()[0];
        (flow.src_as, flow.dst_as)
    };
    assert_eq!(both(64_500, &[0]), (64_500, 65_000), "no segment at all");
    assert_eq!(both(64_500, &[1, 2, 0]), (64_500, 65_000), "a segment without an AS");
    assert_eq!(
        both(64_500, &[1, 2, 2, 64_510, 64_511]),
        (64_500, 64_511),
        "the last of the path"
    );
    assert_eq!(
        both(64_500, &[2, 2, 1, 64_510, 1, 2, 64_600, 64_601]),
        (64_500, 64_601),
        "a set at its end"
    );
    assert_eq!(both(0, &[1, 2, 1, 64_510]), (65_000, 64_510), "a source of its own");
}

#[test]
fn sequence_numbers_count_datagrams_per_agent_and_sub_agent_whatever_their_order() {
    let mut decoder = decoder();
    let mut counts = Counts::default();
    let mut feed = |decoder: &mut SflowDecoder, sub_agent, sequence| {
        let payload = datagram_of(switch(), sub_agent, sequence, &[]);
        counts.merge(&decode_at(decoder, switch(), NOW_MS, &payload).counts);
    };
    for sequence in [10, 12, 11, 13] {
        feed(&mut decoder, 0, sequence);
        feed(&mut decoder, 1, 5_000 + sequence);
    }
    feed(&mut decoder, 0, 17);
    assert_eq!(decoder.agents()[0].numbers.waiting(), 3);
    for sequence in 18..=18 + crate::sequence::REORDER_DATAGRAMS {
        feed(&mut decoder, 0, sequence);
    }
    let key = |sub_agent| count_key(switch(), sub_agent);
    assert_eq!(
        counts.get(key(0), Counter::SequenceLost),
        3,
        "14 to 16; 11 was only late"
    );
    assert_eq!(counts.get(key(1), Counter::SequenceLost), 0);
    assert_eq!(counts.get(key(0), Counter::SequenceReordered), 1);
    assert_eq!(counts.total(Counter::SequenceReset), 0);
}

#[test]
fn a_datagram_that_arrives_twice_counts_once() {
    let header = raw_header(&udp_frame());
    let payload = |sequence| {
        let samples = [sample(7, 200, 7, 8, std::slice::from_ref(&header))];
        datagram_of(switch(), 0, sequence, &samples)
    };
    let mut decoder = decoder();
    let mut counts = Counts::default();
    let mut bytes = 0;
    for sequence in [1, 2, 2, 3, 1] {
        let out = decode_at(&mut decoder, switch(), NOW_MS, &payload(sequence));
        bytes += out.flows.iter().map(|flow| flow.bytes_scaled()).sum::<u64>();
        counts.merge(&out.counts);
    }
    assert_eq!(bytes, 300_000);
    let counters = [
        Counter::Datagrams,
        Counter::DatagramsDecoded,
        Counter::DatagramsRejectedDuplicate,
        Counter::SequenceReordered,
    ];
    assert_eq!(counters.map(|counter| counts.total(counter)), [5, 3, 2, 0], "F2");
    // After a restart of the collector too.
    let json = serde_json::to_string(&decoder.checkpoint()).unwrap();
    let checkpoint = serde_json::from_str(&json).unwrap();
    let mut restored = SflowDecoder::restore(SflowLimits::default(), &MeteringConfig::default(), checkpoint);
    assert!(decode_at(&mut restored, switch(), NOW_MS, &payload(3)).flows.is_empty());
}

#[test]
fn what_a_capture_ends_with_is_counted_lost() {
    let mut decoder = decoder();
    for sequence in [1, 5] {
        decode_at(&mut decoder, switch(), NOW_MS, &datagram_of(switch(), 0, sequence, &[]));
    }
    let mut out = Decoded::default();
    decoder.give_up_gaps(&mut out);
    assert_eq!(out.counts.get(count_key(switch(), 0), Counter::SequenceLost), 3);
}

#[test]
fn the_collectors_default_rate_stands_in_for_agents_that_say_none() {
    let mut metering = MeteringConfig {
        exporters: vec![ExporterConfig {
            default_sampling_rate: Some(32),
            ..ExporterConfig::unlisted(forged(1))
        }],
        ..MeteringConfig::default()
    };
    metering.decoding.default_sampling_rate = Some(64);
    let mut decoder = SflowDecoder::new(SflowLimits::default(), &metering);
    let mut rate = |agent, of_sample| {
        let payload = datagram_of(agent, 0, 1, &[sample(7, of_sample, 7, 8, &[raw_header(&udp_frame())])]);
        decode_at(&mut decoder, switch(), NOW_MS, &payload).flows.rows()[0].sampling_rate
    };
    assert_eq!(
        (rate(switch(), 0), rate(forged(1), 0), rate(switch(), 512)),
        (64, 32, 512)
    );
}
