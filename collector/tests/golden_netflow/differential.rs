//! Our compiled templates against `netflow_parser`, which shares no code with them: both read every capture and random
//! templates, and a plain reading of `netflow_parser`'s fields must give the flow that we decoded.

use std::collections::HashMap;

use collector::counts::Counter;
use collector::decode::netflow::{DecodeLimits, NetflowDecoder};
use collector::decode::{Datagram, Decoded};
use collector::sampling::SamplingConfig;
use netflow_parser::variable_versions::{ipfix, v9};
use netflow_parser::{FieldValue, NetflowPacket, NetflowParser};
use proptest::prelude::*;
use schemas::address::Address;
use tables::flow::{Flow, marks};

use crate::beside::{GOLDEN, needs};
use crate::golden::{golden_dir, read, read_pcap};

/// One data record: (element, value) in the order of the template, IANA's elements only.
type Record = Vec<(u16, Vec<u8>)>;

/// `netflow_parser`, and the templates that it read.
#[derive(Default)]
struct Oracle {
    parser: NetflowParser,
    /// Elements by (version, template), `None` for enterprise ones.
    templates: HashMap<(u16, u16), Vec<Option<u16>>>,
}

impl Oracle {
    fn learn_ipfix(&mut self, templates: &[ipfix::Template]) {
        for template in templates {
            let elements = template
                .fields
                .iter()
                .map(|f| f.enterprise_number.is_none().then_some(f.field_type_number));
            self.templates.insert((10, template.template_id), elements.collect());
        }
    }

    fn record<'a>(&self, version: u16, id: u16, values: impl Iterator<Item = &'a FieldValue>) -> Record {
        let elements = &self.templates[&(version, id)];
        let values: Vec<Vec<u8>> = values
            .map(|value| {
                let mut bytes = Vec::new();
                value.write_be_bytes(&mut bytes).unwrap();
                bytes
            })
            .collect();
        assert_eq!(elements.len(), values.len());
        elements
            .iter()
            .zip(values)
            .filter_map(|(element, value)| Some(((*element)?, value)))
            .collect()
    }

    /// The data records of a datagram; options data is left out.
    fn records(&mut self, payload: &[u8]) -> Vec<Record> {
        let result = self.parser.parse_bytes(payload);
        assert!(result.error.is_none(), "{:?}", result.error);
        let mut records = Vec::new();
        for packet in result.packets {
            match packet {
                NetflowPacket::IPFix(message) => {
                    for set in message.flowsets {
                        match set.body {
                            ipfix::FlowSetBody::Template(template) => self.learn_ipfix(&[template]),
                            ipfix::FlowSetBody::Templates(templates) => self.learn_ipfix(&templates),
                            ipfix::FlowSetBody::Data(data) => {
                                for record in &data.fields {
                                    let values = record.iter().map(|(_, value)| value);
                                    records.push(self.record(10, set.header.header_id, values));
                                }
                            }
                            _ => {}
                        }
                    }
                }
                NetflowPacket::V9(message) => {
                    for set in message.flowsets {
                        match set.body {
                            v9::FlowSetBody::Template(templates) => {
                                for template in templates.templates {
                                    let elements = template.fields.iter().map(|f| Some(f.field_type_number));
                                    self.templates.insert((9, template.template_id), elements.collect());
                                }
                            }
                            v9::FlowSetBody::Data(data) => {
                                for record in &data.fields {
                                    let values = record.iter().map(|(_, value)| value);
                                    records.push(self.record(9, set.header.flowset_id, values));
                                }
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        records
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// The first value that is not zero among those of the first of `elements` that the record has.
fn by_presence(record: &Record, elements: &[&[u16]]) -> u64 {
    for same_rank in elements {
        let mut values = record
            .iter()
            .filter(|(element, _)| same_rank.contains(element))
            .map(|(_, v)| number(v))
            .peekable();
        if values.peek().is_some() {
            return values.find(|value| *value != 0).unwrap_or(0);
        }
    }
    0
}

fn address(record: &Record, elements: [u16; 2]) -> Address {
    let present: Vec<Address> = record
        .iter()
        .filter(|(element, _)| elements.contains(element))
        .map(|(_, value)| match value.len() {
            4 => Address::from_v4(value[..].try_into().unwrap()),
            _ => Address::from_slice(value).unwrap(),
        })
        .collect();
    let zero = |address: &Address| address.to_u128() as u32 == 0 && (address.is_v4() || address.to_u128() == 0);
    match present[..] {
        [] => Address::UNSPECIFIED,
        [only] => only,
        // The last one is of the innermost header.
        [first, ..] => present.iter().rev().copied().find(|a| !zero(a)).unwrap_or(first),
    }
}

/// Bytes and packets of the same packets that cannot be: an IP packet has at least its header of 20 bytes, and at most
/// 1 MiB.
fn cannot_be(record: &Record) -> bool {
    const BYTES: [u16; 5] = [1, 85, 23, 171, 231];
    const PACKETS: [u16; 5] = [2, 86, 24, 172, 298];
    let best = |elements: [u16; 5]| {
        elements
            .iter()
            .position(|wanted| record.iter().any(|(element, _)| element == wanted))
    };
    let (Some(of_bytes), Some(of_packets)) = (best(BYTES), best(PACKETS)) else {
        return false;
    };
    let counted = |element: u16| u128::from(by_presence(record, &[&[element]]));
    let (bytes, packets) = (counted(BYTES[of_bytes]), counted(PACKETS[of_packets]));
    let is_too_large = packets > 0 && bytes > packets << 24;
    of_bytes == of_packets && (is_too_large || (bytes > 0 && bytes < packets * 20))
}

/// The flow that a record stands for, as far as it is compared; `None` where it counts no bytes.
fn plain_reading(record: &Record) -> Option<Flow> {
    let has = |wanted: &[u16]| record.iter().any(|(element, _)| wanted.contains(element));
    if !has(&[1, 85, 23, 171, 231]) {
        return None;
    }
    let plain = |element: u16| by_presence(record, &[&[element]]);
    Some(Flow {
        bytes: by_presence(record, &[&[1], &[85], &[23], &[171], &[231]]),
        packets: by_presence(record, &[&[2], &[86], &[24], &[172], &[298]]),
        src_addr: address(record, [8, 27]),
        dst_addr: address(record, [12, 28]),
        ip_protocol: plain(4) as u8,
        tos: plain(5) as u8,
        // Of its two bytes the lower one is kept, and a repetition counts where what is kept of the first is zero.
        tcp_flags: record
            .iter()
            .filter(|(element, _)| *element == 6)
            .map(|(_, value)| number(value) as u8)
            .find(|flags| *flags != 0)
            .unwrap_or(0),
        src_port: plain(7) as u16,
        dst_port: plain(11) as u16,
        in_if: by_presence(record, &[&[10], &[252]]) as u32,
        out_if: by_presence(record, &[&[14], &[253]]) as u32,
        src_as: plain(16) as u32,
        dst_as: plain(17) as u32,
        src_mask: by_presence(record, &[&[9, 29]]) as u8,
        dst_mask: by_presence(record, &[&[13, 30]]) as u8,
        // Priority bits alone are no VLAN: the next that has one counts.
        in_vlan: vlan_of(record, [58, 243], [59, 254]),
        out_vlan: vlan_of(record, [59, 254], [58, 243]),
        ..Flow::default()
    })
}

/// The first of a side's VLAN elements that is not 0; the other side's where the record has none of this one.
fn vlan_of(record: &Record, side: [u16; 2], other: [u16; 2]) -> u16 {
    let has = |elements: [u16; 2]| record.iter().any(|(element, _)| elements.contains(element));
    let elements = if has(side) { side } else { other };
    elements
        .into_iter()
        .flat_map(|vlan| record.iter().filter(move |(element, _)| *element == vlan))
        .map(|(_, value)| number(value) as u16 & 0xfff)
        .find(|vlan| *vlan != 0)
        .unwrap_or(0)
}

/// Only what [`plain_reading`] reads.
fn compared(flow: &Flow) -> Flow {
    Flow {
        bytes: flow.bytes,
        packets: flow.packets,
        src_addr: flow.src_addr,
        dst_addr: flow.dst_addr,
        ip_protocol: flow.ip_protocol,
        tos: flow.tos,
        tcp_flags: flow.tcp_flags,
        src_port: flow.src_port,
        dst_port: flow.dst_port,
        in_if: flow.in_if,
        out_if: flow.out_if,
        src_as: flow.src_as,
        dst_as: flow.dst_as,
        src_mask: flow.src_mask,
        dst_mask: flow.dst_mask,
        in_vlan: flow.in_vlan,
        out_vlan: flow.out_vlan,
        ..Flow::default()
    }
}

/// Both read the datagrams in order; answers how many flows agreed.
fn compare(payloads: &[Vec<u8>]) -> usize {
    let mut oracle = Oracle::default();
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::default());
    let mut out = Decoded::default();
    let (mut expected, mut impossible) = (Vec::new(), 0);
    for payload in payloads {
        decoder.decode(
            &Datagram {
                received_at_ms: 1_480_000_000_000,
                source: Address::from_v4([192, 0, 2, 1]),
                source_port: 0,
                payload,
            },
            &mut out,
        );
        let (rejected, sound): (Vec<Record>, Vec<Record>) = oracle.records(payload).into_iter().partition(cannot_be);
        impossible += rejected.len() as u64;
        expected.extend(sound.iter().filter_map(plain_reading));
    }
    // Of a record that counts both directions only the first is compared.
    let rows = out.flows.rows().into_iter();
    let first_halves = rows.filter(|flow| !flow.is_marked(marks::ANSWER));
    let ours: Vec<Flow> = first_halves.map(|flow| compared(&flow)).collect();
    for (index, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        assert_eq!(ours, expected, "flow {index}");
    }
    assert_eq!(ours.len(), expected.len(), "as many flows");
    let rejected = out.counts.total(Counter::RecordsRejectedSize);
    assert_eq!(rejected, impossible, "records that cannot be are rejected, and counted");
    ours.len()
}

#[test]
fn both_read_the_captures_alike() {
    needs!(GOLDEN);
    let file = |name: &str| read(&format!("logstash/{name}.dat"));
    let together: &[&[&str]] = &[
        &["ipfix"],
        &[
            "ipfix_test_mikrotik_tpl",
            "ipfix_test_mikrotik_data258",
            "ipfix_test_mikrotik_data259",
        ],
        &["ipfix_test_netscaler_tpl", "ipfix_test_netscaler_data"],
        &["ipfix_test_openbsd_pflow_tpl", "ipfix_test_openbsd_pflow_data"],
        &[
            "ipfix_test_vmware_vds_tpl",
            "ipfix_test_vmware_vds_data264",
            "ipfix_test_vmware_vds_data266_267",
        ],
        &["netflow9_test_cisco_asr9k_tpl260", "netflow9_test_cisco_asr9k_data260"],
        &[
            "netflow9_test_huawei_netstream_tpl",
            "netflow9_test_huawei_netstream_data",
        ],
        &["netflow9_test_valid01"],
    ];
    for names in together {
        let payloads: Vec<Vec<u8>> = names.iter().map(|name| file(name)).collect();
        assert!(compare(&payloads) > 0, "{names:?}");
    }
    assert!(golden_dir().join("netgauze").is_dir());
    for pcap in [
        "110-IPFIXv10-NFv9-multiple-sources/traffic-00",
        "104-IPFIXv10-IPv6-CISCO-sampling_option/traffic-00",
    ] {
        let payloads: Vec<Vec<u8>> = read_pcap(&format!("netgauze/{pcap}.pcap"))
            .into_iter()
            .map(|captured| captured.payload)
            .collect();
        assert!(compare(&payloads) > 0, "{pcap}");
    }
}

/// A field of a random template.
#[derive(Clone, Copy, Debug)]
struct Field {
    element: u16,
    /// 65535 = variable.
    length: u16,
    enterprise: Option<u32>,
}

/// Elements with the lengths that both take.
fn kept_field() -> impl Strategy<Value = Field> {
    let lengths: &[(u16, &[u16])] = &[
        (1, &[1, 2, 3, 4, 8]),
        (2, &[1, 2, 4, 8]),
        // Not 85 and 86: running totals are differenced, which the plain reading does not do.
        (23, &[4, 8]),
        (24, &[4, 8]),
        (4, &[1]),
        (5, &[1]),
        (6, &[1, 2]),
        (7, &[2]),
        (11, &[2]),
        (8, &[4]),
        (12, &[4]),
        (27, &[16]),
        (28, &[16]),
        (9, &[1]),
        (13, &[1]),
        (29, &[1]),
        (30, &[1]),
        (10, &[1, 2, 4]),
        (14, &[1, 2, 4]),
        (252, &[2, 4]),
        (253, &[4]),
        (16, &[2, 4]),
        (17, &[2, 4]),
        (58, &[2]),
        (59, &[2]),
        (243, &[2]),
        (254, &[2]),
        // Skipped: both only have to agree on their lengths.
        (56, &[6]),
        (31, &[3, 4]),
        (32, &[2]),
        (82, &[1, 32]),
        (234, &[4]),
    ];
    let all: Vec<Field> = lengths
        .iter()
        .flat_map(|(element, lengths)| {
            lengths.iter().map(|length| Field {
                element: *element,
                length: *length,
                enterprise: None,
            })
        })
        .collect();
    prop::sample::select(all)
}

fn ipfix_field() -> impl Strategy<Value = Field> {
    let enterprise = (1_u16..400, 1_u16..20, prop::sample::select(vec![2636_u32, 29305, 9])).prop_map(
        |(element, length, enterprise)| Field {
            element,
            length,
            enterprise: Some(enterprise),
        },
    );
    let variable = prop::sample::select(vec![82_u16, 83, 335]).prop_map(|element| Field {
        element,
        length: 65535,
        enterprise: None,
    });
    // netflow_parser reads some enterprises' elements by their type; an unknown enterprise it takes as bytes.
    let enterprise = enterprise.prop_map(|field| Field {
        enterprise: Some(if field.enterprise == Some(2636) { 2636 } else { 65_000 }),
        ..field
    });
    prop_oneof![8 => kept_field(), 1 => enterprise, 1 => variable]
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    [words(&[id, u16::try_from(body.len() + 4).unwrap()]), body.to_vec()].concat()
}

fn template(fields: &[Field]) -> Vec<u8> {
    let mut body = words(&[256, u16::try_from(fields.len()).unwrap()]);
    for field in fields {
        let bit = if field.enterprise.is_some() { 0x8000 } else { 0 };
        body.extend(words(&[field.element | bit, field.length]));
        body.extend(field.enterprise.map(u32::to_be_bytes).into_iter().flatten());
    }
    body
}

/// Records of random bytes; one field in four is zero.
fn records(fields: &[Field], seed: &[u8], count: usize) -> Vec<u8> {
    let mut bytes = seed.iter().cycle();
    let mut next = || *bytes.next().unwrap();
    let mut body = Vec::new();
    for _ in 0..count {
        for field in fields {
            let mut length = field.length;
            if length == 65535 {
                // netflow_parser stops at a value of length 0, which RFC 7011 §7 allows.
                length = 1 + u16::from(next() % 40);
                if next().is_multiple_of(2) {
                    body.push(255);
                    body.extend(length.to_be_bytes());
                } else {
                    body.push(u8::try_from(length).unwrap());
                }
            }
            let zero = next().is_multiple_of(4);
            // Text that both take as it is.
            let text = matches!(field.element, 82 | 83 | 335) && field.enterprise.is_none();
            body.extend((0..length).map(|_| match next() {
                _ if text => b'x',
                _ if zero => 0,
                byte => byte,
            }));
        }
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_read_random_ipfix_templates_alike(
        fields in prop::collection::vec(ipfix_field(), 1..24),
        seed in prop::collection::vec(any::<u8>(), 97..200),
        count in 1_usize..6,
    ) {
        let sets = [set(2, &template(&fields)), set(256, &records(&fields, &seed, count))].concat();
        let length = u16::try_from(16 + sets.len()).unwrap();
        compare(&[[words(&[10, length, 0x5800, 0, 0, 0, 0, 1]), sets].concat()]);
    }

    #[test]
    fn both_read_random_v9_templates_alike(
        fields in prop::collection::vec(kept_field(), 1..24),
        seed in prop::collection::vec(any::<u8>(), 97..200),
        count in 1_usize..6,
    ) {
        let sets = [set(0, &template(&fields)), set(256, &records(&fields, &seed, count))].concat();
        compare(&[[words(&[9, 2, 0, 1000, 0x5800, 0, 0, 0, 0, 1]), sets].concat()]);
    }
}
