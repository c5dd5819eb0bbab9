//! What a record's fields become.

use super::*;

#[test]
fn v5_records_are_read() {
    let out = decode_all(&mut decoder(), &[encode::v5(0, 0x4064, 2)]);
    let flow = out.flows.rows()[1];
    assert_eq!(out.flows.len(), 2);
    let addresses = [flow.src_addr, flow.dst_addr, flow.next_hop].map(|a| a.to_string());
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!((flow.bytes, flow.packets, flow.in_if, flow.out_if), (1500, 1, 7, 8));
    assert_eq!(
        (flow.src_port, flow.dst_port, flow.tcp_flags, flow.ip_protocol, flow.tos),
        (443, 51200, 0x12, 6, 0x20)
    );
    assert_eq!(
        (flow.src_as, flow.dst_as, flow.src_mask, flow.dst_mask),
        (65000, 65001, 24, 16)
    );
    // The header's clock stands at NOW + 500 ms.
    assert_eq!((flow.start_at_ms, flow.end_at_ms), (NOW_MS - 4500, NOW_MS - 500));
    assert_eq!(
        (flow.observation_domain, flow.protocol_version, flow.sampling_rate),
        (0x0102, 5, 100)
    );
}

#[test]
fn v7_records_are_four_bytes_longer() {
    let mut payload = encode::v5(0, 0, 2);
    payload[1] = 7;
    for at in [24 + 96, 24 + 48] {
        payload.splice(at..at, [192, 0, 2, 9]);
    }
    let out = decode_all(&mut decoder(), &[payload]);
    assert_eq!(out.flows.len(), 2);
    assert_eq!(
        (out.flows.rows()[1].bytes, out.flows.rows()[1].protocol_version),
        (1500, 7)
    );
}

/// Decodes one IPFIX record of a template with these fields.
fn decode_record(specs: &[(u16, u16)], record: &[u8]) -> Decoded {
    decode_all(
        &mut decoder(),
        &[Ipfix::new().template(256, specs).set(256, record).build()],
    )
}

#[test]
fn integers_may_be_shorter_than_their_type() {
    let specs = [(2, 1), (1, 3), (10, 2), (14, 1), (16, 2), (6, 2), (89, 4)];
    let flow = one_flow(&decode_record(
        &specs,
        &[200, 1, 0, 2, 1, 2, 9, 0xfd, 0xe8, 0x01, 0x12, 0, 0, 0, 64],
    ));
    assert_eq!(
        (flow.bytes, flow.packets, flow.in_if, flow.out_if),
        (65538, 200, 258, 9)
    );
    assert_eq!((flow.src_as, flow.tcp_flags, flow.forwarding_status), (65000, 0x12, 64));
}

#[test]
fn variable_lengths_have_a_short_and_a_long_form() {
    let specs = [(82, 65535), (1, 4), (371, 65535), (2, 4)];
    let mut body = vec![3, b'e', b't', b'h', 0, 0, 1, 0, 255, 0, 2, b'h', b'i', 0, 0, 0, 9];
    body.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 8]);
    let out = decode_record(&specs, &body);
    let read: Vec<(u64, u64)> = out.flows.rows().iter().map(|flow| (flow.bytes, flow.packets)).collect();
    assert_eq!(read, [(256, 9), (512, 8)]);
    let cut = decode_record(&specs, &body[..body.len() - 1]);
    assert_eq!(cut.flows.len(), 1);
    assert_eq!(cut.counts.total(Counter::RecordsRejectedLength), 1);
}

#[test]
fn of_both_address_families_in_one_record_the_inner_one_is_the_flow() {
    let (v4, v6) = ([198, 51, 100, 10], [0xfd; 16]);
    let (other_v4, other_v6) = ([203, 0, 113, 7], [0xfe; 16]);
    let counters = [0, 0, 5, 220, 0, 0, 0, 1];
    let read = |specs: &[(u16, u16)], parts: &[&[u8]]| {
        let flow = one_flow(&decode_record(specs, &[&parts.concat()[..], &counters].concat()));
        (flow.src_addr, flow.dst_addr)
    };
    let as_v4 = (Address::from_v4(v4), Address::from_v4(other_v4));
    let as_v6 = (Address(v6), Address(other_v6));
    // The outer header's fields come first (RFC 7011 §8).
    let outer_v6 = [(27, 16), (28, 16), (8, 4), (12, 4), (1, 4), (2, 4)];
    let outer_v4 = [(8, 4), (12, 4), (27, 16), (28, 16), (1, 4), (2, 4)];
    assert_eq!(
        read(&outer_v6, &[&v6, &other_v6, &v4, &other_v4]),
        as_v4,
        "IPv4 over SRv6"
    );
    assert_eq!(
        read(&outer_v4, &[&v4, &other_v4, &v6, &other_v6]),
        as_v6,
        "IPv6 in IPv4"
    );
    // Templates for either family, such as Cisco's for MPLS, have one of them zero.
    assert_eq!(read(&outer_v6, &[&v6, &other_v6, &[0; 4], &[0; 4]]), as_v6);
    assert_eq!(read(&outer_v4, &[&v4, &other_v4, &[0; 16], &[0; 16]]), as_v4);
    let twice = [(8, 4), (12, 4), (8, 4), (12, 4), (1, 4), (2, 4)];
    assert_eq!(
        read(&twice, &[&[10, 0, 0, 1], &[10, 0, 0, 2], &v4, &other_v4]),
        as_v4,
        "IP in IP"
    );
}

#[test]
fn enterprise_fields_and_reverse_ones_without_a_column_are_skipped_by_their_length() {
    let mut body = [256_u16.to_be_bytes(), 4_u16.to_be_bytes()].concat();
    for (element, length, enterprise) in [(137_u16, 4_u16, 2636_u32), (4, 4, 29305)] {
        body.extend((element | 0x8000).to_be_bytes());
        body.extend(length.to_be_bytes());
        body.extend(enterprise.to_be_bytes());
    }
    body.extend(fields(&[(1, 4), (2, 4)]));
    let record = [1_u32, 2, 300, 4].map(u32::to_be_bytes).concat();
    let out = decode_all(&mut decoder(), &[Ipfix::new().set(2, &body).set(256, &record).build()]);
    assert_eq!((one_flow(&out).bytes, one_flow(&out).packets), (300, 4));
}

#[test]
fn totals_count_only_where_no_delta_is_reported() {
    let srx = [(86, 8), (85, 8)];
    let record = [9_u64.to_be_bytes(), 900_u64.to_be_bytes()].concat();
    assert_eq!(
        (
            one_flow(&decode_record(&srx, &record)).bytes,
            one_flow(&decode_record(&srx, &record)).packets
        ),
        (900, 9)
    );
    let both = [(85, 8), (1, 8)];
    let record = [900_u64.to_be_bytes(), 0_u64.to_be_bytes()].concat();
    assert_eq!(
        one_flow(&decode_record(&both, &record)).bytes,
        0,
        "a delta of nothing is nothing"
    );
}

#[test]
fn records_without_a_byte_count_are_no_flows() {
    let out = decode_record(&[(8, 4), (353, 4), (2, 4)], &[10, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1]);
    assert!(out.flows.is_empty());
    assert_eq!(out.counts.total(Counter::RecordsWithoutCounters), 1);
}

#[test]
fn the_first_address_that_is_not_zero_is_taken() {
    let specs = [(27, 16), (8, 4), (28, 16), (12, 4), (1, 1)];
    let v6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let record = [&[0; 16][..], &[10, 0, 0, 1], &v6, &[0; 4], &[1]].concat();
    let flow = one_flow(&decode_record(&specs, &record));
    assert_eq!(
        (flow.src_addr.to_string(), flow.dst_addr.to_string()),
        ("10.0.0.1".into(), "2001:db8::1".into())
    );
}

#[test]
fn a_discard_without_next_hop_is_reported_not_guessed() {
    let specs = [(15, 4), (18, 4), (14, 4), (253, 4), (61, 1), (1, 1)];
    let record = [&[0; 4][..], &[10, 9, 9, 9], &[0; 4], &[0, 0, 0, 5], &[255], &[1]].concat();
    let flow = one_flow(&decode_record(&specs, &record));
    assert_eq!(
        (flow.next_hop, flow.out_if, flow.direction),
        (Address::UNSPECIFIED, 0, 255)
    );
}

#[test]
fn vlan_icmp_and_direction() {
    let flow = one_flow(&decode_record(
        &[(58, 2), (59, 2), (243, 2), (61, 1), (1, 1)],
        &[0, 0, 0, 7, 0x20, 9, 1, 1],
    ));
    assert_eq!(
        (flow.in_vlan, flow.direction),
        (9, 1),
        "the tag's priority bits are no part of it"
    );
    let flow = one_flow(&decode_record(&[(4, 1), (176, 1), (177, 1), (1, 1)], &[1, 8, 3, 1]));
    assert_eq!(flow.icmp_type_code, 0x0803);
    let flow = one_flow(&decode_record(&[(4, 1), (139, 2), (1, 1)], &[58, 0x80, 0, 1]));
    assert_eq!(flow.icmp_type_code, 0x8000);
    let flow = one_flow(&decode_record(&[(4, 1), (11, 2), (1, 1)], &[1, 3, 4, 1]));
    assert_eq!(flow.icmp_type_code, 0x0304, "in the port where no element carries it");
}

#[test]
fn times_of_every_kind() {
    let at = |specs: &[(u16, u16)], record: &[u8]| {
        let flow = one_flow(&decode_record(specs, record));
        (NOW_MS - flow.start_at_ms, NOW_MS - flow.end_at_ms)
    };
    let seconds = [(NOW_S - 9).to_be_bytes(), (NOW_S - 4).to_be_bytes()].concat();
    assert_eq!(
        at(&[(150, 4), (151, 4), (1, 1)], &[&seconds[..], &[1]].concat()),
        (9000, 4000)
    );
    let ntp = |s: u32| (((u64::from(s) + 2_208_988_800) << 32) | (1 << 31)).to_be_bytes();
    let both = [ntp(NOW_S - 9), ntp(NOW_S - 4)].concat();
    assert_eq!(
        at(&[(154, 8), (155, 8), (1, 1)], &[&both[..], &[1]].concat()),
        (8500, 3500)
    );
    assert_eq!(
        at(&[(156, 8), (157, 8), (1, 1)], &[&both[..], &[1]].concat()),
        (8500, 3500)
    );
    let delta = [9_000_000_u32.to_be_bytes(), 4_000_000_u32.to_be_bytes()].concat();
    assert_eq!(
        at(&[(158, 4), (159, 4), (1, 1)], &[&delta[..], &[1]].concat()),
        (9000, 4000)
    );
    let boot_and_uptimes = [
        &(NOW_MS - 100_000).to_be_bytes()[..],
        &91_000_u32.to_be_bytes(),
        &96_000_u32.to_be_bytes(),
        &[1],
    ]
    .concat();
    assert_eq!(
        at(&[(160, 8), (22, 4), (21, 4), (1, 1)], &boot_and_uptimes),
        (9000, 4000)
    );
    let end_and_duration = [&(NOW_MS - 4000).to_be_bytes()[..], &5000_u32.to_be_bytes(), &[1]].concat();
    assert_eq!(at(&[(153, 8), (161, 4), (1, 1)], &end_and_duration), (9000, 4000));
    let out = decode_record(&[(1, 1)], &[1]);
    assert_eq!(one_flow(&out).end_at_ms, NOW_MS);
    assert_eq!(out.counts.total(Counter::TimesMissing), 1);
}

#[test]
fn case_b8_seconds_are_read_where_uptimes_cannot_be() {
    let seconds = [(NOW_S - 60).to_be_bytes(), (NOW_S - 10).to_be_bytes()].concat();
    let uptimes = [91_000_u32.to_be_bytes(), 96_000_u32.to_be_bytes()].concat();
    let both = [&seconds[..], &uptimes, &[1]].concat();
    let times = |flow: Flow| (NOW_MS - flow.start_at_ms, NOW_MS - flow.end_at_ms);
    let specs = [(150, 4), (151, 4), (22, 4), (21, 4), (1, 1)];
    let out = decode_record(&specs, &both);
    assert_eq!(times(one_flow(&out)), (60_000, 10_000));
    assert_eq!(out.counts.total(Counter::TimesMissing), 0);
    let with_boot = [&(NOW_MS - 100_000).to_be_bytes()[..], &both].concat();
    let specs = [&[(160, 8)][..], &specs[..]].concat();
    assert_eq!(times(one_flow(&decode_record(&specs, &with_boot))), (9_000, 4_000));
    // The header of v9 tells the uptime.
    let specs = [(22, 4), (21, 4), (150, 4), (151, 4), (1, 1)];
    let record = [
        &595_000_u32.to_be_bytes()[..],
        &599_000_u32.to_be_bytes(),
        &seconds,
        &[1],
    ]
    .concat();
    let payload = V9::new().template(256, &specs).set(256, &record).build();
    assert_eq!(times(one_flow(&decode_all(&mut decoder(), &[payload]))), (5_000, 1_000));
}

#[test]
fn ipfix_uptimes_need_the_exporters_start() {
    let boot = Ipfix::new().options_template(300, 1, &[(144, 4), (160, 8)]);
    let options = [&7_u32.to_be_bytes()[..], &(NOW_MS - 100_000).to_be_bytes()].concat();
    let flows = [&91_000_u32.to_be_bytes()[..], &96_000_u32.to_be_bytes(), &[1]].concat();
    let specs = [(22, 4), (21, 4), (1, 1)];
    let payload = boot.template(256, &specs).set(256, &flows).set(300, &options).build();
    let flow = one_flow(&decode_all(&mut decoder(), &[payload]));
    assert_eq!((NOW_MS - flow.start_at_ms, NOW_MS - flow.end_at_ms), (9000, 4000));
}

#[test]
fn v9_uptimes_and_outgoing_counters() {
    let specs = [(22, 4), (21, 4), (23, 4), (24, 4)];
    let record = [595_000_u32, 599_000, 1500, 3].map(u32::to_be_bytes).concat();
    let out = decode_all(
        &mut decoder(),
        &[V9::new().template(256, &specs).set(256, &record).build()],
    );
    let flow = one_flow(&out);
    assert_eq!((flow.bytes, flow.packets), (1500, 3));
    assert_eq!((flow.start_at_ms, flow.end_at_ms), (NOW_MS - 5000, NOW_MS - 1000));
}

/// What options data says of interfaces: index, name, description.
fn told(out: &Decoded) -> Vec<(u32, &str, &str)> {
    out.interfaces
        .iter()
        .map(|told| {
            let interface = &told.interface;
            (told.if_index, interface.name.as_str(), interface.description.as_str())
        })
        .collect()
}

#[test]
fn options_data_names_interfaces() {
    let ipfix = |scopes, specs: &[(u16, u16)], body: &[u8]| {
        let message = Ipfix::new().options_template(257, scopes, specs).set(257, body).build();
        decode_all(&mut decoder(), &[message])
    };
    let fixed = [
        &[0, 0, 2, 1][..],
        b"ae0.0\0\0\0",
        b"Transit ",
        &[0, 0, 0, 0],
        b"none\0\0\0\0",
        &[0; 8],
    ]
    .concat();
    let out = ipfix(1, &[(10, 4), (82, 8), (83, 8)], &fixed);
    assert_eq!(told(&out), [(513, "ae0.0", "Transit")], "interface 0 is none");
    assert_eq!(out.counts.total(Counter::OptionsRecords), 2);
    assert_eq!(out.interfaces[0].exporter, exporter());
    // Not as a scope, and of variable length.
    let variable = [
        &[0, 0, 0, 1, 0, 0, 0, 7, 3][..],
        b"xe7",
        &[0, 0, 0, 1, 0, 0, 0, 8, 2],
        b"ge",
    ]
    .concat();
    let out = ipfix(1, &[(149, 4), (14, 4), (82, 65_535)], &variable);
    assert_eq!(told(&out), [(7, "xe7", ""), (8, "ge", "")]);
    let out = ipfix(1, &[(149, 4), (82, 8)], &[&[0, 0, 0, 1][..], b"nowhere\0"].concat());
    assert!(told(&out).is_empty(), "it says not of which interface");
}
