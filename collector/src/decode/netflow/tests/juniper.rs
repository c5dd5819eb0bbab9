//! What Juniper's routers, firewalls and switches send, each case by its name. Field lists are those of the vendor's pages on
//! inline active flow monitoring and on version 9 formats; values are made up.

use super::*;
use crate::sampling::SamplingSource;

/// A field of a record: element, length, value as a number (addresses: see [`Value`]).
type Field = (u16, Value);

#[derive(Clone, Copy)]
enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    V4([u8; 4]),
    V6(u16),
    Mac(u8),
    Label(u32),
}

use Value::{Label, Mac, U8, U16, U32, U64, V4, V6};

fn bytes_of(value: Value) -> Vec<u8> {
    match value {
        U8(value) => vec![value],
        U16(value) => value.to_be_bytes().to_vec(),
        U32(value) => value.to_be_bytes().to_vec(),
        U64(value) => value.to_be_bytes().to_vec(),
        V4(octets) => octets.to_vec(),
        // 2001:db8::/32 with this last group.
        V6(last) => [&[0x20, 1, 0x0d, 0xb8][..], &[0; 10], &last.to_be_bytes()].concat(),
        Mac(last) => vec![2, 0, 0, 0, 0, last],
        Label(label) => label.to_be_bytes()[1..].to_vec(),
    }
}

fn specs(fields: &[Field]) -> Vec<(u16, u16)> {
    fields
        .iter()
        .map(|(element, value)| (*element, u16::try_from(bytes_of(*value).len()).unwrap()))
        .collect()
}

fn record(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(|(_, value)| bytes_of(*value)).collect()
}

fn ipfix_of(template: u16, fields: &[Field]) -> Vec<u8> {
    Ipfix::new()
        .template(template, &specs(fields))
        .set(template, &record(fields))
        .build()
}

fn v9_of(template: u16, fields: &[Field]) -> Vec<u8> {
    V9::new()
        .template(template, &specs(fields))
        .set(template, &record(fields))
        .build()
}

fn decode_one(payload: Vec<u8>) -> (Flow, Decoded) {
    let out = decode_all(&mut decoder(), &[payload]);
    (one_flow(&out), out)
}

/// The same from a router with `report-zero-oif-gw-on-discard`.
fn decode_with_zero_route(payload: Vec<u8>) -> (Flow, Decoded) {
    let metering = schemas::metering::MeteringConfig {
        exporters: vec![schemas::metering::ExporterConfig {
            zero_route_is_discard: true,
            ..schemas::metering::ExporterConfig::unlisted(exporter())
        }],
        ..schemas::metering::MeteringConfig::default()
    };
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::from(&metering));
    let out = decode_all(&mut decoder, &[payload]);
    (one_flow(&out), out)
}

const START_MS: u64 = NOW_MS as u64 - 60_000;
const END_MS: u64 = NOW_MS as u64 - 1_000;

/// MX, IPFIX, family inet: template 256 and the fields of Junos 18 and later.
const MX_IPV4: &[Field] = &[
    (8, V4([198, 51, 100, 7])),
    (12, V4([203, 0, 113, 9])),
    (5, U8(0xb8)),
    (4, U8(6)),
    (7, U16(443)),
    (11, U16(51_200)),
    (32, U16(0)),
    (10, U32(513)),
    (58, U16(0)),
    (9, U8(24)),
    (13, U8(22)),
    (16, U32(64_500)),
    (17, U32(4_200_000_001)),
    (15, V4([192, 0, 2, 254])),
    (6, U8(0x1b)),
    (14, U32(531)),
    (1, U64(1_234_567)),
    (2, U64(1_000)),
    (52, U8(57)),
    (53, U8(58)),
    (152, U64(START_MS)),
    (153, U64(END_MS)),
    (136, U8(2)),
    (243, U16(0)),
    (245, U16(0)),
    (54, U32(0)),
    (61, U8(255)),
];

/// MX, IPFIX, family inet6: template 257.
const MX_IPV6: &[Field] = &[
    (27, V6(7)),
    (28, V6(9)),
    (5, U8(0)),
    (4, U8(58)),
    (7, U16(0)),
    (11, U16(0)),
    (139, U16(0x8000)),
    (10, U32(513)),
    (58, U16(0)),
    (29, U8(48)),
    (30, U8(64)),
    (16, U32(64_500)),
    (17, U32(64_501)),
    (62, V6(1)),
    (6, U8(0)),
    (14, U32(531)),
    (1, U64(104)),
    (2, U64(1)),
    (52, U8(63)),
    (53, U8(63)),
    (152, U64(END_MS)),
    (153, U64(END_MS)),
    (136, U8(1)),
    (243, U16(0)),
    (245, U16(0)),
    (64, U32(0)),
    (61, U8(255)),
];

/// Family mpls: labels, interfaces and counters, no addresses.
const MX_MPLS: &[Field] = &[
    (70, Label(0x1_86a1)),
    (71, Label(0x1_86b1)),
    (72, Label(0)),
    (10, U32(513)),
    (14, U32(531)),
    (1, U64(9_000)),
    (2, U64(6)),
    (152, U64(START_MS)),
    (153, U64(END_MS)),
    (136, U8(2)),
];

/// Families vpls and bridge: MAC addresses, EtherType, VLANs, interfaces and counters.
const MX_VPLS: &[Field] = &[
    (80, Mac(1)),
    (56, Mac(2)),
    (256, U16(0x0800)),
    (10, U32(601)),
    (14, U32(602)),
    (1, U64(64_000)),
    (2, U64(100)),
    (152, U64(START_MS)),
    (153, U64(END_MS)),
    (136, U8(2)),
    (243, U16(0)),
];

fn with(fields: &[Field], changes: &[Field]) -> Vec<Field> {
    let changed = |element: u16| changes.iter().find(|(other, _)| *other == element);
    fields.iter().map(|field| *changed(field.0).unwrap_or(field)).collect()
}

#[test]
fn juniper_mx_inline_ipfix_ipv4_template_is_read() {
    let (flow, out) = decode_one(ipfix_of(256, MX_IPV4));
    assert_eq!(
        [flow.src_addr, flow.dst_addr, flow.next_hop].map(|address| address.to_string()),
        ["198.51.100.7", "203.0.113.9", "192.0.2.254"]
    );
    assert_eq!((flow.src_port, flow.dst_port, flow.ip_protocol), (443, 51_200, 6));
    assert_eq!((flow.tcp_flags, flow.tos, flow.icmp_type_code), (0x1b, 0xb8, 0));
    assert_eq!((flow.in_if, flow.out_if), (513, 531));
    assert_eq!((flow.src_mask, flow.dst_mask), (24, 22));
    assert_eq!((flow.src_as, flow.dst_as), (64_500, 4_200_000_001));
    assert_eq!((flow.bytes, flow.packets), (1_234_567, 1_000));
    assert_eq!((NOW_MS - flow.start_at_ms, NOW_MS - flow.end_at_ms), (60_000, 1_000));
    assert_eq!((flow.direction, flow.forwarding_status, flow.in_vlan), (255, 0, 0));
    assert_eq!(out.counts.total(Counter::FlowsDiscarded), 0);
}

#[test]
fn juniper_mx_inline_ipfix_ipv6_template_is_read() {
    let (flow, _) = decode_one(ipfix_of(257, MX_IPV6));
    assert_eq!(
        [flow.src_addr, flow.dst_addr, flow.next_hop].map(|address| address.to_string()),
        ["2001:db8::7", "2001:db8::9", "2001:db8::1"]
    );
    assert_eq!((flow.ip_protocol, flow.icmp_type_code), (58, 0x8000));
    assert_eq!((flow.src_mask, flow.dst_mask), (48, 64));
    assert_eq!((flow.bytes, flow.packets, flow.in_if, flow.out_if), (104, 1, 513, 531));
}

#[test]
fn juniper_mx_inline_mpls_template_counts_without_addresses() {
    let (flow, _) = decode_one(ipfix_of(258, MX_MPLS));
    assert_eq!((flow.bytes, flow.packets), (9_000, 6));
    assert_eq!((flow.in_if, flow.out_if), (513, 531));
    assert_eq!(
        (flow.src_addr, flow.dst_addr),
        (Address::UNSPECIFIED, Address::UNSPECIFIED)
    );
}

#[test]
fn juniper_mx_inline_mpls_ipv4_template_is_read_by_its_addresses() {
    let fields = [&[(70, Label(0x1_86a1)), (47, V4([10, 0, 0, 1]))][..], MX_IPV4].concat();
    let (flow, _) = decode_one(ipfix_of(259, &fields));
    assert_eq!(
        flow.src_addr.to_string(),
        "198.51.100.7",
        "not the label's forwarding class"
    );
    assert_eq!((flow.bytes, flow.out_if), (1_234_567, 531));
}

#[test]
fn juniper_mx_inline_vpls_and_bridge_templates_count_by_interface() {
    let (flow, out) = decode_one(ipfix_of(260, MX_VPLS));
    assert_eq!(
        (flow.in_if, flow.out_if, flow.bytes, flow.packets),
        (601, 602, 64_000, 100)
    );
    assert_eq!(flow.src_addr, Address::UNSPECIFIED);
    assert_eq!(flow.in_vlan, 0);
    let (flow, _) = decode_one(ipfix_of(260, &with(MX_VPLS, &[(243, U16(0x2064))])));
    assert_eq!(
        flow.in_vlan, 100,
        "the VLAN decides whose it is where addresses are missing"
    );
    assert_eq!(out.counts.total(Counter::FlowRecords), 1);
}

#[test]
fn a_vpls_flow_that_goes_to_no_interface_is_no_discard() {
    let (flow, out) = decode_one(ipfix_of(260, &with(MX_VPLS, &[(14, U32(0))])));
    assert_eq!(
        flow.forwarding_status, 0,
        "without a next hop field a zero output interface may be a flood"
    );
    assert_eq!(out.counts.total(Counter::FlowsDiscarded), 0);
}

/// The fields of Junos' version 9 IPv4 template: uptimes instead of instants.
const V9_IPV4: &[Field] = &[
    (8, V4([198, 51, 100, 7])),
    (12, V4([203, 0, 113, 9])),
    (5, U8(0)),
    (4, U8(17)),
    (7, U16(53)),
    (11, U16(40_000)),
    (32, U16(0)),
    (10, U32(513)),
    (9, U8(24)),
    (13, U8(22)),
    (16, U32(64_500)),
    (17, U32(64_501)),
    (15, V4([192, 0, 2, 254])),
    (6, U8(0)),
    (14, U32(531)),
    (1, U64(600)),
    (2, U64(4)),
    (22, U32(540_000)),
    (21, U32(599_000)),
];

#[test]
fn juniper_v9_ipv4_template_is_read() {
    let (flow, _) = decode_one(v9_of(320, V9_IPV4));
    assert_eq!((flow.protocol_version, flow.bytes, flow.packets), (9, 600, 4));
    assert_eq!(
        (flow.src_port, flow.dst_port, flow.in_if, flow.out_if),
        (53, 40_000, 513, 531)
    );
    // The header says an uptime of 600 s.
    assert_eq!((NOW_MS - flow.start_at_ms, NOW_MS - flow.end_at_ms), (60_000, 1_000));
}

#[test]
fn juniper_v9_ipv6_template_is_read() {
    let fields: Vec<Field> = V9_IPV4
        .iter()
        .map(|field| match field.0 {
            8 => (27, V6(7)),
            12 => (28, V6(9)),
            9 => (29, U8(48)),
            13 => (30, U8(64)),
            15 => (62, V6(1)),
            32 => (139, U16(0)),
            _ => *field,
        })
        .collect();
    let (flow, _) = decode_one(v9_of(321, &fields));
    assert_eq!(
        (flow.src_addr.to_string(), flow.next_hop.to_string()),
        ("2001:db8::7".into(), "2001:db8::1".into())
    );
    assert_eq!((flow.src_mask, flow.dst_mask, flow.bytes), (48, 64, 600));
}

#[test]
fn juniper_v9_options_with_a_system_scope_give_the_rate() {
    // Scope "system" of four bytes, then sampling interval and algorithm.
    let message = V9::new()
        .options_template(576, &[(1, 4)], &[(34, 4), (35, 1)])
        .set(576, &[0, 0, 0, 0, 0, 0, 3, 0xe8, 1])
        .template(320, &specs(V9_IPV4))
        .set(320, &record(V9_IPV4));
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[message.build()]);
    assert_eq!(one_flow(&out).sampling_rate, 1_000);
    assert_eq!(decoder.domains()[0].sampling.source, SamplingSource::OptionsDomain);
}

/// The fields of Junos' IPFIX options: scope exporting process, then what is exported and how it is sampled.
const MX_OPTIONS: &[Field] = &[
    (144, U32(1)),
    (41, U64(120)),
    (42, U64(2_400)),
    (160, U64(NOW_MS as u64 - 86_400_000)),
    (130, V4([192, 0, 2, 1])),
    (34, U32(2_048)),
    (36, U16(60)),
    (37, U16(15)),
    (214, U8(10)),
    (215, U8(17)),
];

fn options_of(message: Ipfix, fields: &[Field]) -> Ipfix {
    message
        .options_template(512, 1, &specs(fields))
        .set(512, &record(fields))
}

#[test]
fn juniper_ipfix_options_with_an_exporting_process_scope_give_the_rate() {
    let message = options_of(Ipfix::new(), MX_OPTIONS)
        .template(256, &specs(MX_IPV4))
        .set(256, &record(MX_IPV4));
    assert_eq!(decode_one(message.build()).0.sampling_rate, 2_048);
}

#[test]
fn options_of_another_observation_domain_hold_for_the_data_of_the_line_cards() {
    // Each family and each forwarding engine is a domain of its own; the options come in one of them.
    let data = |domain: u32| {
        Ipfix::new()
            .domain(domain)
            .template(256, &specs(MX_IPV4))
            .set(256, &record(MX_IPV4))
            .build()
    };
    let options = options_of(Ipfix::new().domain(0x0201_0000), MX_OPTIONS).build();
    let out = decode_all(&mut decoder(), &[options, data(0x0200_0000), data(0x0201_0100)]);
    let rates: Vec<u32> = out.flows.rows().iter().map(|flow| flow.sampling_rate).collect();
    assert_eq!(rates, [2_048, 2_048]);
}

#[test]
fn options_may_say_the_rate_by_ie_34_by_ie_50_or_by_ie_305_with_306() {
    let scope = (144, U32(1));
    for said in [
        vec![scope, (34, U32(512))],
        vec![scope, (50, U32(512))],
        vec![scope, (305, U32(1)), (306, U32(511))],
        vec![scope, (305, U32(10)), (306, U32(5_110))],
        vec![scope, (309, U32(1)), (310, U32(512))],
    ] {
        let message = options_of(Ipfix::new(), &said)
            .template(256, &specs(MX_IPV4))
            .set(256, &record(MX_IPV4));
        let elements: Vec<u16> = said.iter().map(|field| field.0).collect();
        assert_eq!(decode_one(message.build()).0.sampling_rate, 512, "{elements:?}");
    }
}

#[test]
fn an_options_scope_of_length_zero_is_read() {
    let body = [1_u32, 999].map(u32::to_be_bytes).concat();
    let message = Ipfix::new()
        .options_template(512, 1, &[(144, 0), (305, 4), (306, 4)])
        .set(512, &body)
        .template(256, &specs(MX_IPV4))
        .set(256, &record(MX_IPV4));
    let (flow, out) = decode_one(message.build());
    assert_eq!(flow.sampling_rate, 1_000);
    assert_eq!(
        [
            Counter::OptionsRecords,
            Counter::TemplatesRejected,
            Counter::RecordsRejectedLength
        ]
        .map(|counter| out.counts.total(counter)),
        [1, 0, 0]
    );
    let v9 = V9::new()
        .options_template(576, &[(1, 0)], &[(34, 4)])
        .set(576, &1_000_u32.to_be_bytes())
        .template(320, &specs(V9_IPV4))
        .set(320, &record(V9_IPV4));
    assert_eq!(decode_one(v9.build()).0.sampling_rate, 1_000);
}

#[test]
fn a_direction_of_255_is_not_reported() {
    for (value, direction) in [(0, 0), (1, 1), (255, 255), (2, 255)] {
        let (flow, _) = decode_one(ipfix_of(256, &with(MX_IPV4, &[(61, U8(value))])));
        assert_eq!(flow.direction, direction, "{value}");
    }
}

#[test]
fn a_discarded_packet_has_no_next_hop_and_no_output_interface_and_is_counted() {
    let discard = with(MX_IPV4, &[(15, V4([0; 4])), (14, U32(0))]);
    let (flow, out) = decode_with_zero_route(ipfix_of(256, &discard));
    assert_eq!(
        (flow.next_hop, flow.out_if),
        (Address::UNSPECIFIED, 0),
        "nothing is guessed"
    );
    assert!(flow.was_discarded());
    assert_eq!((flow.bytes, flow.packets), (1_234_567, 1_000), "it is kept");
    let counts = [Counter::FlowRecords, Counter::FlowsDiscarded].map(|counter| out.counts.total(counter));
    assert_eq!(counts, [1, 1]);

    let one_is_known = [
        with(MX_IPV4, &[(15, V4([0; 4]))]),
        with(MX_IPV4, &[(14, U32(0))]),
        with(&discard, &[(10, U32(0))]),
    ];
    for fields in one_is_known {
        let (flow, out) = decode_with_zero_route(ipfix_of(256, &fields));
        assert!(!flow.was_discarded());
        assert_eq!(out.counts.total(Counter::FlowsDiscarded), 0);
    }
}

#[test]
fn a_discard_in_version_5_is_counted_too() {
    let mut payload = encode::v5(0, 0, 1);
    payload[24 + 8..24 + 12].fill(0);
    payload[24 + 14..24 + 16].fill(0);
    assert!(
        !decode_one(payload.clone()).0.was_discarded(),
        "only where it is configured"
    );
    let (flow, out) = decode_with_zero_route(payload);
    assert!(flow.was_discarded() && flow.in_if == 7);
    assert_eq!(out.counts.total(Counter::FlowsDiscarded), 1);
    assert!(!decode_one(encode::v5(0, 0, 1)).0.was_discarded());
}

#[test]
fn a_forwarding_status_says_it_better_than_a_missing_next_hop() {
    let fields = |status: u8| [MX_IPV4, &[(89, U8(status))]].concat();
    let nowhere = [(15, V4([0; 4])), (14, U32(0))];
    for (fields, status, discarded) in [
        (with(&fields(64), &nowhere), 64, false),
        (with(&fields(0x81), &nowhere), 0x81, true),
        (with(&fields(0), &nowhere), 128, true),
        (fields(0x8b), 0x8b, true),
        (fields(64), 64, false),
    ] {
        let (flow, out) = decode_with_zero_route(ipfix_of(256, &fields));
        assert_eq!((flow.forwarding_status, flow.was_discarded()), (status, discarded));
        assert_eq!(out.counts.total(Counter::FlowsDiscarded), u64::from(discarded));
    }
}

#[test]
fn ptx_three_byte_variable_length_form() {
    // PTX writes 255 and two bytes of length for values that one byte would do for.
    let specs = [(82, 65535), (8, 4), (12, 4), (1, 8), (2, 8)];
    let counters = [
        &[10, 0, 0, 1, 10, 0, 0, 2][..],
        &1_500_u64.to_be_bytes(),
        &1_u64.to_be_bytes(),
    ]
    .concat();
    for name in [
        &[7, b'e', b't', b'-', b'0', b'/', b'0', b'0'][..],
        &[255, 0, 7, b'e', b't', b'-', b'0', b'/', b'0', b'0'],
    ] {
        let record = [name, &counters].concat();
        let two = [&record[..], &record].concat();
        let out = decode_all(
            &mut decoder(),
            &[Ipfix::new().template(256, &specs).set(256, &two).build()],
        );
        let read: Vec<(u64, u64)> = out.flows.rows().iter().map(|flow| (flow.bytes, flow.packets)).collect();
        assert_eq!(read, [(1_500, 1); 2]);
    }
}

#[test]
fn evolved_routers_without_a_flow_cache_report_each_sampled_packet() {
    // Active and idle timeout of 0: the record of a packet leaves at once.
    let uncached = with(MX_OPTIONS, &[(36, U16(0)), (37, U16(0))]);
    let packet = with(
        MX_IPV4,
        &[(1, U64(1_500)), (2, U64(1)), (152, U64(END_MS)), (153, U64(END_MS))],
    );
    let body = [record(&packet), record(&packet)].concat();
    let message = options_of(Ipfix::new(), &uncached)
        .template(256, &specs(&packet))
        .set(256, &body);
    let out = decode_all(&mut decoder(), &[message.build()]);
    assert_eq!(out.flows.len(), 2, "equal packets are two flows");
    for flow in out.flows.rows() {
        assert_eq!((flow.bytes_scaled(), flow.packets), (1_500 * 2_048, 1));
        assert_eq!((flow.start_at_ms, flow.end_at_ms), (NOW_MS - 1_000, NOW_MS - 1_000));
    }
    let changed = [Counter::TimesMissing, Counter::TimesNegativeDuration].map(|counter| out.counts.total(counter));
    assert_eq!(changed, [0, 0], "a flow may last no time");
}

#[test]
fn a_negative_duration_ends_where_it_ended_and_is_counted() {
    let (flow, out) = decode_one(ipfix_of(
        256,
        &with(MX_IPV4, &[(152, U64(END_MS + 500)), (153, U64(END_MS))]),
    ));
    assert_eq!((flow.start_at_ms, flow.end_at_ms), (NOW_MS - 1_000, NOW_MS - 1_000));
    assert_eq!(flow.bytes, 1_234_567, "no byte is lost");
    assert_eq!(out.counts.total(Counter::TimesNegativeDuration), 1);
}

#[test]
fn srx_counters_in_ie_85_and_86_are_the_volume_of_their_record() {
    let srx: Vec<Field> = MX_IPV4
        .iter()
        .map(|field| match field.0 {
            1 => (85, U64(4_000)),
            2 => (86, U64(10)),
            _ => *field,
        })
        .collect();
    let message = |sequence| {
        let message = Ipfix::new().sequence(sequence).template(256, &specs(&srx));
        message.set(256, &record(&srx)).build()
    };
    // The elements count the whole session (IANA: "since the Metering Process (re-)initialization for this Observation Point"): a report
    // that says the same again adds nothing.
    let out = decode_all(&mut decoder(), &[message(0), message(1)]);
    let volumes: Vec<(u64, u64)> = out.flows.rows().iter().map(|flow| (flow.bytes, flow.packets)).collect();
    assert_eq!(volumes, [(4_000, 10), (0, 0)]);
    // One report for each session, at its end: the next session of the same addresses and ports counts in full.
    let next: Vec<Field> = srx
        .iter()
        .map(|field| match field.0 {
            152 => (152, U64(END_MS - 2_500)),
            _ => *field,
        })
        .collect();
    let message = Ipfix::new()
        .template(256, &specs(&srx))
        .set(256, &[record(&srx), record(&next)].concat())
        .build();
    let out = decode_all(&mut decoder(), &[message]);
    let volumes: Vec<(u64, u64)> = out.flows.rows().iter().map(|flow| (flow.bytes, flow.packets)).collect();
    assert_eq!(volumes, [(4_000, 10); 2]);
}

#[test]
fn a_template_id_may_come_back_with_another_layout_after_a_reboot() {
    let before = V9::new()
        .sequence(900)
        .template(320, &specs(V9_IPV4))
        .set(320, &record(V9_IPV4));
    let shorter = &V9_IPV4[..17];
    let mut after = V9::new()
        .sequence(0)
        .template(320, &specs(shorter))
        .set(320, &record(shorter));
    after.uptime_ms = 5_000;
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &[before.build(), after.build()]);
    let bytes: Vec<u64> = out.flows.rows().iter().map(|flow| flow.bytes).collect();
    assert_eq!(bytes, [600, 600]);
    assert_eq!(decoder.domains()[0].templates[0].fields.len(), 17);
    let counts = [Counter::SequenceReset, Counter::SequenceLost, Counter::SetsPending];
    assert_eq!(counts.map(|counter| out.counts.total(counter)), [1, 0, 0]);
}

#[test]
fn the_rates_announced_before_a_reboot_hold_until_new_ones_come() {
    let data = |sequence| {
        Ipfix::new()
            .sequence(sequence)
            .template(256, &specs(MX_IPV4))
            .set(256, &record(MX_IPV4))
    };
    let slower = with(MX_OPTIONS, &[(34, U32(4_096))]);
    let out = decode_all(
        &mut decoder(),
        &[
            options_of(Ipfix::new().sequence(5_000), MX_OPTIONS).build(),
            data(0).build(),
            options_of(Ipfix::new().sequence(1), &slower).build(),
            data(2).build(),
        ],
    );
    let rates: Vec<u32> = out.flows.rows().iter().map(|flow| flow.sampling_rate).collect();
    assert_eq!(rates, [2_048, 4_096]);
}

#[test]
fn ipfix_sequence_numbers_count_records_per_observation_domain() {
    let two = [record(MX_IPV4), record(MX_IPV4)].concat();
    let message = |domain, sequence| {
        Ipfix::new()
            .domain(domain)
            .sequence(sequence)
            .template(256, &specs(MX_IPV4))
            .set(256, &two)
            .build()
    };
    // Two domains count on their own, interleaved; in the first, the second and third message change places.
    let order = [(1, 100), (2, 7), (1, 104), (1, 102), (2, 9), (1, 106)];
    let payloads = order.map(|(domain, sequence)| message(domain, sequence));
    let out = decode_all(&mut decoder(), &payloads);
    let counts = [
        Counter::SequenceLost,
        Counter::SequenceReset,
        Counter::SequenceReordered,
    ];
    assert_eq!(counts.map(|counter| out.counts.total(counter)), [0, 0, 1]);
}

#[test]
fn v9_sequence_numbers_count_datagrams_whatever_they_hold() {
    let three = [record(V9_IPV4), record(V9_IPV4), record(V9_IPV4)].concat();
    let payloads: Vec<Vec<u8>> = (0..5)
        .map(|sequence| {
            V9::new()
                .sequence(sequence)
                .template(320, &specs(V9_IPV4))
                .set(320, &three)
                .build()
        })
        .collect();
    let mut decoder = decoder();
    let out = decode_all(&mut decoder, &payloads);
    assert_eq!((out.flows.len(), out.counts.total(Counter::SequenceLost)), (15, 0));
    assert_eq!(decoder.domains()[0].sequence_waiting, 0);
    let out = decode_all(&mut decoder, &[V9::new().sequence(8).build()]);
    assert_eq!(out.counts.total(Counter::SequenceLost), 0, "three may still come");
    assert_eq!(decoder.domains()[0].sequence_waiting, 3);
    let mut ended = Decoded::default();
    decoder.give_up_gaps(&mut ended);
    assert_eq!(
        ended.counts.total(Counter::SequenceLost),
        3,
        "unless the capture ends here"
    );
}
