//! Juniper's inline monitoring: each record carries the head of a sampled packet instead of counters. The layout is that of a
//! report published by the vendor's engineers: private common properties, interfaces, direction, frame size, frame.

use etherparse::PacketBuilder;

use super::*;

const JUNIPER: u32 = 2636;
const COMMON_PROPERTIES: u16 = 137;

/// The template 384 of a vMX: six private fields of 4, 2, 4, 4, 4 and 4 bytes before the public ones.
fn template(private: &[u16], public: &[(u16, u16)]) -> Vec<u8> {
    let count = u16::try_from(private.len() + public.len()).unwrap();
    let mut body = [384_u16.to_be_bytes(), count.to_be_bytes()].concat();
    for length in private {
        body.extend((COMMON_PROPERTIES | 0x8000).to_be_bytes());
        body.extend(length.to_be_bytes());
        body.extend(JUNIPER.to_be_bytes());
    }
    body.extend(fields(public));
    body
}

const PRIVATE: &[u16] = &[4, 2, 4, 4, 4, 4];
const PUBLIC: &[(u16, u16)] = &[(10, 4), (14, 4), (61, 1), (312, 2), (315, 65535)];

/// What an exporter keeps of a frame, behind its length in three bytes.
fn clipped(frame: &[u8], clip: usize) -> Vec<u8> {
    let head = &frame[..clip.min(frame.len())];
    [&[255][..], &u16::try_from(head.len()).unwrap().to_be_bytes(), head].concat()
}

fn record(in_if: u32, out_if: u32, frame: &[u8], clip: usize) -> Vec<u8> {
    record_with(&NO_EXCEPTION, in_if, out_if, frame, clip)
}

/// Common properties: egress interface, forwarding class, exception, next hop, underlying and ingress interface.
const NO_EXCEPTION: [u8; 22] = [
    0x10, 0, 2, 0x41, 0x04, 0x0a, 0x08, 0, 0, 0, 0x0c, 0, 2, 0x0a, 0x14, 0, 0, 0, 0x18, 0, 2, 0x40,
];

fn record_with(properties: &[u8; 22], in_if: u32, out_if: u32, frame: &[u8], clip: usize) -> Vec<u8> {
    let mut record = properties.to_vec();
    record.extend(in_if.to_be_bytes());
    record.extend(out_if.to_be_bytes());
    record.push(0);
    record.extend(u16::try_from(frame.len()).unwrap().to_be_bytes());
    record.extend(clipped(frame, clip));
    record
}

/// A full Ethernet frame with 1,400 bytes behind TCP, on VLAN 809.
fn tcp_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .single_vlan(809.try_into().unwrap())
        .ipv4([198, 51, 100, 7], [203, 0, 113, 9], 61)
        .tcp(443, 51_200, 1, 1024)
        .ack(9)
        .write(&mut frame, &[7; 1_400])
        .unwrap();
    frame
}

fn decode_records(records: &[Vec<u8>]) -> Decoded {
    let message = Ipfix::new()
        .options_template(640, 1, &[(144, 4), (34, 4)])
        .set(640, &[1_u32, 10].map(u32::to_be_bytes).concat())
        .set(2, &template(PRIVATE, PUBLIC))
        .set(384, &records.concat());
    decode_all(&mut decoder(), &[message.build()])
}

#[test]
fn inline_monitoring_records_become_flows_of_one_packet() {
    let frame = tcp_frame();
    let out = decode_records(&[record(576, 577, &frame, 126), record(576, 577, &frame, 126)]);
    assert_eq!(out.flows.len(), 2, "{:?}", out.counts);
    let flow = out.flows.rows()[1];
    assert_eq!(
        (flow.src_addr.to_string(), flow.dst_addr.to_string()),
        ("198.51.100.7".into(), "203.0.113.9".into())
    );
    assert_eq!(
        (flow.src_port, flow.dst_port, flow.ip_protocol, flow.tcp_flags),
        (443, 51_200, 6, 0x10)
    );
    assert_eq!(
        (flow.packets, flow.bytes),
        (1, 1_440),
        "layer 3: without 18 bytes of Ethernet and VLAN tag"
    );
    assert_eq!(
        (flow.in_if, flow.out_if, flow.direction, flow.in_vlan),
        (576, 577, 0, 809)
    );
    assert_eq!(flow.bytes_scaled(), 14_400, "one packet in ten, from the options");
    assert_eq!((flow.start_at_ms, flow.end_at_ms), (NOW_MS, NOW_MS));
    let counts = [
        Counter::FlowRecords,
        Counter::RecordsWithoutCounters,
        Counter::TimesMissing,
        Counter::FlowsWithoutRate,
    ];
    assert_eq!(counts.map(|counter| out.counts.total(counter)), [2, 0, 0, 0]);
}

#[test]
fn repeated_private_properties_are_passed_over_by_their_length() {
    let frame = tcp_frame();
    for private in [&[][..], &[4], &[4; 12]] {
        let skipped: usize = private.iter().map(|length| usize::from(*length)).sum();
        let body = [vec![0xff; skipped], record(576, 577, &frame, 126)[22..].to_vec()].concat();
        let message = Ipfix::new().set(2, &template(private, PUBLIC)).set(384, &body);
        let out = decode_all(&mut decoder(), &[message.build()]);
        assert_eq!(
            (one_flow(&out).bytes, one_flow(&out).in_if),
            (1_440, 576),
            "{private:?}"
        );
    }
}

#[test]
fn a_discard_route_exception_of_an_mpls_echo_is_read() {
    // The published report: an MPLS echo request from 10.0.36.1 that met a discard route.
    let mut frame = vec![0x56, 4, 0x19, 0, 0x37, 0x0e, 0x56, 4, 0x19, 0, 0xb7, 0x6e, 0x88, 0x47];
    frame.extend([
        0xf4, 0x24, 0x11, 0xff, 0x46, 0, 0, 0x4c, 0x48, 0x44, 0, 0, 1, 0x11, 0x2f, 0x57,
    ]);
    frame.extend([
        10, 0, 0x24, 1, 127, 0, 0, 1, 0x94, 4, 0, 0, 0xd7, 0xb1, 0x0d, 0xaf, 0, 0x34, 0x68, 0x6f,
    ]);
    frame.resize(94, 0);
    let mut properties = NO_EXCEPTION;
    properties[9] = 0x42;
    let dropped = one_flow(&decode_records(&[record_with(&properties, 576, 0, &frame, 94)]));
    assert_eq!(dropped.forwarding_status, 128, "the exception says it");
    let out = decode_records(&[record(576, 0, &frame, 94)]);
    let flow = one_flow(&out);
    assert_eq!((flow.src_addr.to_string(), flow.bytes), ("10.0.36.1".into(), 76));
    assert_eq!((flow.ip_protocol, flow.src_port, flow.dst_port), (17, 0xd7b1, 3503));
    assert_eq!((flow.in_if, flow.out_if), (576, 0));
    assert_eq!(
        flow.forwarding_status, 0,
        "no output interface says nothing where no next hop is told"
    );
}

#[test]
fn a_frame_section_of_fixed_length_and_an_ip_section_are_read() {
    let frame = tcp_frame();
    let fixed = Ipfix::new()
        .template(384, &[(10, 4), (315, 64)])
        .set(384, &[&576_u32.to_be_bytes()[..], &frame[..64]].concat());
    let out = decode_all(&mut decoder(), &[fixed.build()]);
    assert_eq!(
        (one_flow(&out).bytes, one_flow(&out).in_if, one_flow(&out).in_vlan),
        (1_440, 576, 809)
    );
    let ip = Ipfix::new().template(384, &[(10, 4), (313, 65535)]).set(
        384,
        &[576_u32.to_be_bytes().to_vec(), clipped(&frame[18..], 64)].concat(),
    );
    let out = decode_all(&mut decoder(), &[ip.build()]);
    assert_eq!((one_flow(&out).bytes, one_flow(&out).src_port), (1_440, 443));
}

#[test]
fn the_frame_size_stands_in_where_the_ip_header_gives_none() {
    let mut frame = tcp_frame();
    frame[20..22].fill(0);
    let out = decode_records(&[record(576, 577, &frame, 126)]);
    assert_eq!(one_flow(&out).bytes, 1_440);
}

#[test]
fn f2_sections_that_are_not_ip_or_damaged_are_counted() {
    let mut arp = tcp_frame();
    arp[16..18].copy_from_slice(&[0x08, 0x06]);
    let mut damaged = tcp_frame();
    damaged[18] = 0x42;
    let out = decode_records(&[
        record(1, 2, &tcp_frame(), 126),
        record(1, 2, &arp, 126),
        record(1, 2, &damaged, 126),
        record(1, 2, &tcp_frame(), 30),
        record(1, 2, &[], 0),
    ]);
    let counts = [
        Counter::FlowRecords,
        Counter::SamplesNotIp,
        Counter::SamplesRejected,
        Counter::RecordsWithoutCounters,
    ];
    assert_eq!(counts.map(|counter| out.counts.total(counter)), [1, 1, 3, 0]);
}

#[test]
fn a_record_with_counters_and_a_section_is_a_flow_by_its_counters() {
    let frame = tcp_frame();
    let message = Ipfix::new().template(384, &[(8, 4), (1, 4), (2, 4), (315, 64)]).set(
        384,
        &[&[10, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 3][..], &frame[..64]].concat(),
    );
    let flow = one_flow(&decode_all(&mut decoder(), &[message.build()]));
    assert_eq!(
        (flow.src_addr.to_string(), flow.bytes, flow.packets),
        ("10.0.0.1".into(), 4_096, 3)
    );
}
