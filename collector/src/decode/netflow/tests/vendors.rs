//! Templates that count, place or time a flow in elements of their own.

use super::*;
use tables::flow::marks;

#[test]
fn case_14_layer_2_octets_alone_make_a_flow() {
    let fields = &[(8, 4), (12, 4), (352, 8), (2, 8)];
    let record = |octets: u64, packets: u64| {
        let addresses = [203, 0, 113, 7, 198, 51, 100, 10];
        [&addresses[..], &octets.to_be_bytes(), &packets.to_be_bytes()].concat()
    };
    let message = Ipfix::new()
        .template(300, fields)
        .set(300, &[record(15_140, 10), record(5, 1)].concat());
    let out = decode_all(&mut decoder(), &[message.build()]);
    let flow = out.flows.row(0);
    assert_eq!(
        (flow.bytes, flow.packets),
        (15_000, 10),
        "layer 3: without Ethernet's headers"
    );
    assert!(flow.is_marked(marks::LAYER2_TAKEN_OFF));
    let odd = out.flows.row(1);
    assert_eq!((odd.bytes, odd.is_marked(marks::LAYER2_TAKEN_OFF)), (5, false));
    assert_eq!(out.counts.total(Counter::RecordsWithoutCounters), 0);
    // Layer 3 is better where a template has both.
    let both = Ipfix::new()
        .template(300, &[(352, 4), (1, 4), (2, 4)])
        .set(300, &[15_140, 15_000, 10_u32].map(u32::to_be_bytes).concat());
    let flow = one_flow(&decode_all(&mut decoder(), &[both.build()]));
    assert_eq!((flow.bytes, flow.marks & marks::LAYER2_TAKEN_OFF), (15_000, 0));
}

#[test]
fn case_15_the_time_of_an_event_is_the_end_of_its_flow() {
    let start_ms = NOW_MS - 50 * 60_000;
    for (element, length, end) in [
        (323, 8, NOW_MS.to_be_bytes().to_vec()),
        (322, 4, NOW_S.to_be_bytes().to_vec()),
        (
            324,
            8,
            ((u64::from(NOW_S) + 2_208_988_800) << 32).to_be_bytes().to_vec(),
        ),
    ] {
        let message = V9::new()
            .template(263, &[(8, 4), (12, 4), (152, 8), (element, length), (1, 4)])
            .set(
                263,
                &[&[1; 8][..], &start_ms.to_be_bytes(), &end, &1_500_u32.to_be_bytes()].concat(),
            );
        let out = decode_all(&mut decoder(), &[message.build()]);
        let flow = one_flow(&out);
        assert_eq!(
            (flow.reported_start(), flow.end_at_ms),
            (start_ms, NOW_MS),
            "IE {element}"
        );
        assert_eq!(out.counts.total(Counter::TimesMissing), 0);
    }
    // An end of its own is better.
    let message = Ipfix::new()
        .template(263, &[(8, 4), (12, 4), (323, 8), (153, 8), (1, 4)])
        .set(
            263,
            &[
                &[1; 8][..],
                &NOW_MS.to_be_bytes(),
                &(NOW_MS - 9_000).to_be_bytes(),
                &9_u32.to_be_bytes(),
            ]
            .concat(),
        );
    assert_eq!(
        one_flow(&decode_all(&mut decoder(), &[message.build()])).end_at_ms,
        NOW_MS - 9_000
    );
}

#[test]
fn case_19_a_wireless_clients_address_is_a_side_by_direction() {
    let fields = &[(365, 6), (366, 4), (61, 1), (1, 8), (2, 8)];
    let record = |direction: u8| {
        let client = [0xa6, 0xc8, 0, 0, 0, 2, 192, 168, 20, 121, direction];
        [&client[..], &3_320_u64.to_be_bytes(), &83_u64.to_be_bytes()].concat()
    };
    let message = V9::new()
        .template(261, fields)
        .set(261, &[record(0), record(1), record(255)].concat());
    let out = decode_all(&mut decoder(), &[message.build()]);
    let sides: Vec<(String, String)> = out
        .flows
        .iter()
        .map(|flow| (flow.src_addr.to_string(), flow.dst_addr.to_string()))
        .collect();
    let pair = |src: &str, dst: &str| (src.to_owned(), dst.to_owned());
    let client = "192.168.20.121";
    assert_eq!(sides, [pair(client, "::"), pair("::", client), pair(client, "::")]);
    // Addresses that a record has besides stay.
    let named = V9::new().template(261, &[(366, 4), (8, 4), (12, 4), (1, 4)]).set(
        261,
        &[[192, 168, 20, 121], [10, 0, 0, 1], [10, 0, 0, 2], [0, 0, 5, 0]].concat(),
    );
    let flow = one_flow(&decode_all(&mut decoder(), &[named.build()]));
    assert_eq!(
        (flow.src_addr.to_string(), flow.dst_addr.to_string()),
        pair("10.0.0.1", "10.0.0.2")
    );
}

/// A template of fields with their enterprises.
fn template_of(id: u16, fields: &[(u32, u16, u16)]) -> Vec<u8> {
    let mut body = [id.to_be_bytes(), u16::try_from(fields.len()).unwrap().to_be_bytes()].concat();
    for (enterprise, element, length) in fields {
        let flag = if *enterprise == 0 { 0 } else { 0x8000 };
        body.extend((element | flag).to_be_bytes());
        body.extend(length.to_be_bytes());
        if *enterprise != 0 {
            body.extend(enterprise.to_be_bytes());
        }
    }
    body
}

#[test]
fn case_22_octets_in_elements_of_a_vendor() {
    const PROCERA: u32 = 15_397;
    let fields = [
        (0, 8, 4),
        (0, 12, 4),
        (PROCERA, 1, 65_535),
        (PROCERA, 3, 8),
        (PROCERA, 4, 8),
    ];
    let record = |incoming: u64, outgoing: u64| {
        let service = b"\x05BGP-4";
        [&[1; 8][..], service, &incoming.to_be_bytes(), &outgoing.to_be_bytes()].concat()
    };
    let message = Ipfix::new()
        .set(2, &template_of(52_935, &fields))
        .set(52_935, &[record(7_076, 3_310), record(60, 0), record(0, 0)].concat());
    let out = decode_all(&mut decoder(), &[message.build()]);
    let bytes: Vec<u64> = out.flows.iter().map(|flow| flow.bytes).collect();
    assert_eq!(bytes, [10_386, 60, 0], "both directions of a record");
    assert_eq!(out.counts.total(Counter::RecordsWithoutCounters), 0);
    // Beside counters of IANA's they are no more octets; nor are equal numbers of other enterprises.
    let fields = [(0, 1, 4), (PROCERA, 3, 4), (PROCERA, 4, 4), (2_636, 3, 4)];
    let message = Ipfix::new()
        .set(2, &template_of(300, &fields))
        .set(300, &[1_500_u32, 7, 8, 9].map(u32::to_be_bytes).concat());
    assert_eq!(one_flow(&decode_all(&mut decoder(), &[message.build()])).bytes, 1_500);
    let message = Ipfix::new()
        .set(2, &template_of(300, &[(2_636, 3, 4)]))
        .set(300, &[0, 0, 0, 9]);
    let out = decode_all(&mut decoder(), &[message.build()]);
    assert_eq!(out.counts.total(Counter::RecordsWithoutCounters), 1);
}

#[test]
fn case_23_netflow_lite_sends_the_head_of_a_packet() {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([203, 0, 113, 7], [198, 51, 100, 10], 64)
        .tcp(443, 50_000, 1, 64)
        .write(&mut frame, &[7; 20])
        .unwrap();
    frame.truncate(64);
    frame.resize(64, 0);
    let message = V9::new()
        .template(260, &[(103, 2), (102, 2), (104, 64), (10, 4)])
        .set(260, &[&[0, 64, 0, 0][..], &frame, &513_u32.to_be_bytes()].concat());
    let flow = one_flow(&decode_all(&mut decoder(), &[message.build()]));
    assert_eq!(
        (flow.src_addr.to_string(), flow.dst_addr.to_string(), flow.dst_port),
        ("203.0.113.7".to_owned(), "198.51.100.10".to_owned(), 50_000)
    );
    assert_eq!((flow.bytes, flow.packets, flow.in_if), (60, 1, 513));
}
