//! sFlow captures of real devices decode to the values that people and tshark read in them, and no datagram, however
//! damaged, goes uncounted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use collector::counts::Counter;
use collector::decode::sflow::{SflowCheckpoint, SflowDecoder, SflowLimits};
use collector::decode::{Datagram, Decoded};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use schemas::address::Address;
use schemas::metering::{ExporterConfig, MeteringConfig};
use tables::flow::Flow;

use crate::beside::{GOLDEN, needs};
use crate::oracle::{golden, tshark, udp_payloads_of_pcap};

const RECEIVED_AT_MS: i64 = 1_700_000_000_000;

fn decoder() -> SflowDecoder {
    SflowDecoder::new(SflowLimits::default(), &MeteringConfig::default())
}

fn decode(decoder: &mut SflowDecoder, payload: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    let datagram = Datagram {
        received_at_ms: RECEIVED_AT_MS,
        source: address("198.51.100.99"),
        source_port: 0,
        payload,
    };
    decoder.decode(&datagram, &mut decoded);
    decoded
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn flow(exporter: &str, domain: u32, rate: u32, in_if: u32, out_if: u32, direction: u8) -> Flow {
    Flow {
        received_at_ms: RECEIVED_AT_MS,
        start_at_ms: RECEIVED_AT_MS,
        end_at_ms: RECEIVED_AT_MS,
        exporter: address(exporter),
        observation_domain: domain,
        protocol_version: 105,
        sampling_rate: rate,
        in_if,
        out_if,
        direction,
        ip_protocol: 6,
        tcp_flags: 0x10,
        packets: 1,
        ..Flow::default()
    }
}

#[derive(Clone, Copy)]
struct Ends(&'static str, u16, &'static str, u16);

fn tcp(base: Flow, ends: Ends, bytes: u64) -> Flow {
    Flow {
        src_addr: address(ends.0),
        src_port: ends.1,
        dst_addr: address(ends.2),
        dst_port: ends.3,
        bytes,
        ..base
    }
}

fn routed(base: Flow, next_hop: &str, src_mask: u8, dst_mask: u8) -> Flow {
    Flow {
        next_hop: address(next_hop),
        src_mask,
        dst_mask,
        ..base
    }
}

#[test]
fn vflow_samples_with_switch_and_router_records() {
    needs!(GOLDEN);
    let decoded = decode(&mut decoder(), &golden("vflow/sflow_top_1.bin"));
    let base = |in_if, out_if| flow("24.3.64.33", 1, 4_096, in_if, out_if, 255);
    let https = |src, dst, port| Ends(src, 443, dst, port);
    let expected = [
        routed(
            tcp(base(561, 707), https("152.195.33.40", "69.42.22.51", 54_482), 1_500),
            "206.72.210.70",
            24,
            19,
        ),
        routed(
            tcp(base(561, 707), https("152.195.13.89", "172.58.27.156", 47_609), 1_440),
            "206.72.211.22",
            24,
            21,
        ),
        routed(
            Flow {
                tos: 2,
                ..tcp(base(561, 707), https("152.195.33.132", "172.58.30.212", 40_920), 1_420)
            },
            "206.72.211.22",
            24,
            21,
        ),
        routed(
            tcp(base(707, 561), Ends("104.220.197.6", 38_296, "93.184.215.178", 443), 52),
            "152.195.77.131",
            16,
            24,
        ),
        routed(
            Flow {
                tcp_flags: 0x18,
                ..tcp(base(562, 707), https("192.229.210.181", "172.58.25.132", 40_206), 1_400)
            },
            "206.72.211.22",
            24,
            21,
        ),
    ];
    assert_eq!(decoded.flows.rows(), expected);
    assert_eq!(decoded.counts.total(Counter::DatagramsDecoded), 1);
    assert_eq!(decoded.counts.total(Counter::FlowRecords), 5);
    assert_eq!(decoded.counts.total(Counter::SamplesRejected), 0);
}

#[test]
fn goflow2_expanded_samples_on_a_vlan() {
    needs!(GOLDEN);
    let decoded = decode(&mut decoder(), &golden("goflow2/sflow_TestExpandedSFlowDecode_2.bin"));
    let base = |in_if, out_if, vlan| Flow {
        in_vlan: vlan,
        out_vlan: vlan,
        ..flow("1.2.3.4", 0, 16_383, in_if, out_if, 0)
    };
    let expected = [
        tcp(
            base(1_000_100, 1_000_018, 30),
            Ends("185.59.220.147", 443, "88.238.78.19", 53_206),
            1_492,
        ),
        tcp(
            base(1_000_100, 1_000_011, 23),
            Ends("195.181.175.38", 80, "5.146.198.158", 4_019),
            1_460,
        ),
        Flow {
            tos: 0x18,
            ..tcp(
                base(1_000_104, 1_000_100, 1_337),
                Ends("137.74.204.213", 1_935, "89.187.169.85", 44_508),
                1_500,
            )
        },
        tcp(
            base(1_000_100, 1_000_011, 23),
            Ends("185.102.219.67", 25_461, "103.194.169.32", 22_446),
            1_500,
        ),
        tcp(
            base(1_000_100, 1_000_101, 957),
            Ends("51.91.116.108", 8_000, "195.181.174.135", 32_872),
            1_500,
        ),
    ];
    assert_eq!(decoded.flows.rows(), expected);
}

#[test]
fn goflow2_ping_seen_at_its_output() {
    needs!(GOLDEN);
    let mut decoder = decoder();
    let decoded = decode(&mut decoder, &golden("goflow2/sflow_TestSFlowDecode_1.bin"));
    let expected = Flow {
        src_addr: address("172.16.32.254"),
        dst_addr: address("172.16.32.241"),
        ip_protocol: 1,
        tcp_flags: 0,
        icmp_type_code: 8 << 8,
        in_vlan: 32,
        out_vlan: 32,
        bytes: 60,
        ..flow("172.16.0.17", 1, 2_048, 1_194, 1_043, 1)
    };
    assert_eq!(decoded.flows.rows(), [expected]);
    let agents = decoder.agents();
    assert_eq!(agents.len(), 1);
    assert_eq!(
        (agents[0].exporter, agents[0].sub_agent, agents[0].sequence),
        (address("172.16.0.17"), 1, 426)
    );
    assert_eq!(agents[0].interfaces, [1_043, 1_194]);
    assert_eq!(
        (agents[0].sources[0].index, agents[0].sources[0].sampling_rate),
        (1_043, 2_048)
    );
}

#[test]
fn tcpdump_expanded_sample_with_gateway_record() {
    needs!(GOLDEN);
    let payloads = udp_payloads_of_pcap(&golden("tcpdump/sflow_expanded.pcap"));
    assert_eq!(payloads.len(), 1);
    let decoded = decode(&mut decoder(), &payloads[0]);
    let expected = Flow {
        tcp_flags: 0x18,
        tos: 0x08,
        in_vlan: 809,
        out_vlan: 809,
        src_as: 203_476,
        dst_as: 203_361,
        ..routed(
            tcp(
                flow("49.49.49.49", 0, 1_000, 29_001, 1_285_816_721, 255),
                Ends("52.52.52.52", 22, "53.53.53.53", 52_237),
                104,
            ),
            "54.54.54.54",
            32,
            22,
        )
    };
    assert_eq!(decoded.flows.rows(), [expected]);
    // What tcpdump's authors print of it.
    let printed = String::from_utf8(golden("tcpdump/sflow_expanded.out")).unwrap();
    assert!(printed.contains("agent 49.49.49.49, agent-id 0, seqnum 115694180"));
    assert!(printed.contains("rate 1000, pool 1521799520, drops 0, input 29001 (0), output 1285816721 (0)"));
}

/// Values of the sampled packets: the carrying datagram's own come first where tshark knows both.
fn inner(cells: &[String]) -> Vec<String> {
    cells[1..].to_vec()
}

#[test]
fn tshark_reads_the_same() {
    needs!(GOLDEN);
    let mut datagrams = vec![
        golden("vflow/sflow_top_1.bin"),
        golden("goflow2/sflow_TestExpandedSFlowDecode_2.bin"),
        golden("goflow2/sflow_TestSFlowDecode_1.bin"),
    ];
    datagrams.extend(udp_payloads_of_pcap(&golden("tcpdump/sflow_expanded.pcap")));
    let fields = [
        "sflow_245.agent",
        "ip.src",
        "ip.dst",
        "ip.len",
        "ip.proto",
        "sflow.flow_sample.sampling_rate",
        "tcp.srcport",
        "tcp.dstport",
        "tcp.flags",
        "vlan.id",
        "sflow_245.nexthop.src_mask",
        "sflow_245.nexthop.dst_mask",
    ];
    let read = tshark(6_343, &datagrams, &fields);
    assert_eq!(read.len(), datagrams.len());
    for (payload, cells) in datagrams.iter().zip(&read) {
        let decoded = decode(&mut decoder(), payload);
        let flows = decoded.flows.rows();
        let of = |value: fn(&Flow) -> String| -> Vec<String> { flows.iter().map(value).collect() };
        let where_set = |value: fn(&Flow) -> u64| -> Vec<String> {
            let values = flows.iter().map(value).filter(|value| *value != 0);
            values.map(|value| value.to_string()).collect()
        };
        assert_eq!(vec![flows[0].exporter.to_string()], cells[0]);
        assert_eq!(of(|f| f.src_addr.to_string()), inner(&cells[1]));
        assert_eq!(of(|f| f.dst_addr.to_string()), inner(&cells[2]));
        assert_eq!(of(|f| f.bytes.to_string()), inner(&cells[3]));
        assert_eq!(of(|f| f.ip_protocol.to_string()), inner(&cells[4]));
        assert_eq!(of(|f| f.sampling_rate.to_string()), cells[5]);
        assert_eq!(where_set(|f| u64::from(f.src_port)), cells[6]);
        assert_eq!(where_set(|f| u64::from(f.dst_port)), cells[7]);
        let flags = flows.iter().filter(|f| f.ip_protocol == 6);
        assert_eq!(
            flags.map(|f| format!("0x{:04x}", f.tcp_flags)).collect::<Vec<_>>(),
            cells[8]
        );
        assert_eq!(where_set(|f| u64::from(f.in_vlan)), cells[9]);
        assert_eq!(where_set(|f| u64::from(f.src_mask)), cells[10]);
        assert_eq!(where_set(|f| u64::from(f.dst_mask)), cells[11]);
    }
}

#[test]
fn sflow_parser_frames_the_same_samples() {
    needs!(GOLDEN);
    for name in [
        "vflow/sflow_top_1.bin",
        "goflow2/sflow_TestExpandedSFlowDecode_2.bin",
        "goflow2/sflow_TestSFlowDecode_1.bin",
    ] {
        let payload = golden(name);
        let oracle = sflow_parser::parse_datagram(&payload).unwrap();
        let mut decoder = decoder();
        let decoded = decode(&mut decoder, &payload);
        assert_eq!(decoded.flows.len(), oracle.samples.len(), "{name}");
        assert_eq!(decoder.agents()[0].sequence, oracle.sequence_number, "{name}");
        assert_eq!(decoder.agents()[0].uptime_ms, oracle.uptime, "{name}");
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A datagram of agent 192.0.2.7, sub-agent 3.
fn datagram(sequence: u32, uptime_ms: u32, samples: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = words(&[5, 1, 0xc000_0207, 3, sequence, uptime_ms, samples.len() as u32]);
    for (format, body) in samples {
        bytes.extend(words(&[*format, body.len() as u32]));
        bytes.extend(body);
    }
    bytes
}

/// `sampled_ipv4` of a UDP packet of 100 bytes.
fn sampled_ipv4() -> Vec<u8> {
    words(&[3, 32, 100, 17, 0x0a00_0001, 0x0a00_0002, 53, 5_353, 0, 0x28])
}

fn flow_sample(source: u32, rate: u32, input: u32, output: u32) -> (u32, Vec<u8>) {
    let mut body = words(&[1, source, rate, 0, 0, input, output, 1]);
    body.extend(sampled_ipv4());
    (1, body)
}

#[test]
fn interfaces_rates_and_directions() {
    let cases = [
        // (source, input, output) → (in, out, direction, forwarding)
        ((7, 7, 8), (7, 8, 0, 0)),
        ((8, 7, 8), (7, 8, 1, 0)),
        ((9, 7, 8), (7, 8, 255, 0)),
        ((7, 7, 0x4000_0102), (7, 0, 0, 129)),
        ((7, 7, 0x4000_0103), (7, 0, 0, 128)),
        ((7, 7, 0x8000_0003), (7, 0, 0, 0)),
        ((8, 0x3fff_ffff, 8), (0, 8, 1, 0)),
        // A source that is a VLAN (type 1) is no interface.
        ((0x0100_0007, 7, 8), (7, 8, 255, 0)),
    ];
    for ((source, input, output), expected) in cases {
        let decoded = decode(
            &mut decoder(),
            &datagram(1, 1, &[flow_sample(source, 512, input, output)]),
        );
        let flow = &decoded.flows.rows()[0];
        let found = (flow.in_if, flow.out_if, flow.direction, flow.forwarding_status);
        assert_eq!(
            found, expected,
            "source {source:#x} input {input:#x} output {output:#x}"
        );
        assert_eq!(
            (flow.bytes, flow.src_port, flow.dst_port, flow.tos),
            (100, 53, 5_353, 0x28)
        );
    }
}

#[test]
fn the_configured_rate_overrides_and_stands_in() {
    let config = |sampling_rate, default_sampling_rate| MeteringConfig {
        exporters: vec![ExporterConfig {
            sampling_rate,
            default_sampling_rate,
            ..ExporterConfig::unlisted(address("192.0.2.7"))
        }],
        ..MeteringConfig::default()
    };
    let cases = [
        (config(None, None), 512, 512),
        (config(Some(100), None), 512, 100),
        (config(None, Some(200)), 512, 512),
        (config(None, Some(200)), 0, 200),
        (config(None, None), 0, 0),
    ];
    for (config, of_sample, expected) in cases {
        let mut decoder = SflowDecoder::new(SflowLimits::default(), &config);
        let decoded = decode(&mut decoder, &datagram(1, 1, &[flow_sample(7, of_sample, 7, 8)]));
        assert_eq!(decoded.flows.rows()[0].sampling_rate, expected);
        let unknown = decoded.counts.total(Counter::FlowsWithoutRate);
        assert_eq!(unknown, u64::from(expected == 0));
    }
}

#[test]
fn interface_counters_are_kept_and_others_counted() {
    let mut record = words(&[1, 88, 12, 6, 0, 1_000_000_000, 1, 3, 1, 2]);
    record.extend(words(&[
        10,
        11,
        12,
        13,
        14,
        u32::MAX,
        0,
        99,
        20,
        21,
        22,
        u32::MAX,
        24,
        2,
    ]));
    let mut body = words(&[1, 12, 2]);
    body.extend(&record);
    body.extend(words(&[2, 4, 0]));
    let broken = words(&[2, 12, 1, 1, 88, 12]);
    let mut decoder = decoder();
    let decoded = decode(
        &mut decoder,
        &datagram(1, 1, &[(2, body), (2, broken), (5, vec![0; 8])]),
    );
    assert_eq!(decoded.counters.len(), 1);
    let counters = decoded.counters[0];
    assert_eq!(
        (counters.exporter, counters.observation_domain),
        (address("192.0.2.7"), 3)
    );
    assert_eq!(
        (counters.if_index, counters.speed_bps, counters.status),
        (12, 1_000_000_000, 3)
    );
    assert_eq!((counters.in_bytes, counters.out_bytes), ((1 << 32) | 2, 99));
    assert_eq!((counters.in_unicast_packets, counters.in_errors), (10, 14));
    assert_eq!(
        (counters.out_unicast_packets, counters.out_discards),
        (20, 0),
        "not supported reads 0"
    );
    assert_eq!(counters.out_errors, 24);
    assert_eq!(decoded.counts.total(Counter::CounterSamples), 1);
    assert_eq!(decoded.counts.total(Counter::CounterRecordsIgnored), 1);
    assert_eq!(decoded.counts.total(Counter::SamplesRejected), 1);
    assert_eq!(decoded.counts.total(Counter::SamplesIgnored), 1);
    assert_eq!(decoder.agents()[0].interfaces, [12]);
}

#[test]
fn a_bad_sample_loses_itself_only() {
    let bad = (1, words(&[1, 7, 512, 0, 0, 7, 8, 1, 3, 400]));
    let samples = [flow_sample(7, 512, 7, 8), bad, flow_sample(7, 512, 7, 9)];
    let payload = datagram(1, 1, &samples);
    let decoded = decode(&mut decoder(), &payload);
    assert_eq!(decoded.flows.len(), 2);
    assert_eq!(decoded.counts.total(Counter::SamplesRejected), 1);

    let cut = decode(&mut decoder(), &payload[..payload.len() - 4]);
    assert_eq!(cut.flows.len(), 1);
    assert_eq!(cut.counts.total(Counter::SamplesRejected), 2);
    assert_eq!(cut.counts.total(Counter::DatagramsDecoded), 1);
}

#[test]
fn sequence_gaps_restarts_and_late_datagrams() {
    let hour_ms = 3_600_000;
    // Heads as (sequence, uptime) and what they count: (lost, reordered, restarts).
    /// Sequence numbers with uptimes; what is counted lost, reset and reordered.
    type Case<'a> = (&'a [(u32, u32)], (u64, u64, u64));
    let cases: [Case<'_>; 6] = [
        (&[(10, hour_ms), (11, hour_ms + 1)], (0, 0, 0)),
        (
            &[
                (10, hour_ms),
                (14, hour_ms + 40),
                (13, hour_ms + 30),
                (15, hour_ms + 50),
            ],
            (2, 1, 0),
        ),
        (&[(500, hour_ms), (1, 10), (2, 20)], (0, 0, 1)),
        // A low number under a later uptime may be late; two in a row began anew.
        (&[(500, hour_ms), (1, hour_ms + 10), (2, hour_ms + 20)], (0, 1, 1)),
        (&[(u32::MAX - 1, hour_ms), (1, hour_ms + 10)], (2, 0, 0)),
        (
            &[(10, hour_ms), (50_000_000, hour_ms + 10), (50_000_001, hour_ms + 20)],
            (0, 0, 1),
        ),
    ];
    for (heads, expected) in cases {
        let mut decoder = decoder();
        let mut counts = collector::counts::Counts::default();
        for (sequence, uptime_ms) in heads {
            counts.merge(&decode(&mut decoder, &datagram(*sequence, *uptime_ms, &[])).counts);
        }
        // A gap is a loss once enough datagrams came after it.
        let (last, uptime_ms) = heads[heads.len() - 1];
        for step in 1..=collector::sequence::REORDER_DATAGRAMS + 1 {
            let datagram = datagram(last.wrapping_add(step), uptime_ms + step, &[]);
            counts.merge(&decode(&mut decoder, &datagram).counts);
        }
        let found = (
            counts.total(Counter::SequenceLost),
            counts.total(Counter::SequenceReordered),
            counts.total(Counter::SequenceReset),
        );
        assert_eq!(found, expected, "{heads:?}");
    }
}

#[test]
fn agents_without_an_address_are_known_by_their_source() {
    let mut payload = words(&[5, 1, 0, 0, 1, 1, 1]);
    let (format, body) = flow_sample(7, 512, 7, 8);
    payload.extend(words(&[format, body.len() as u32]));
    payload.extend(body);
    let decoded = decode(&mut decoder(), &payload);
    assert_eq!(decoded.flows.rows()[0].exporter, address("198.51.100.99"));
}

#[test]
fn too_many_agents_are_rejected_and_counted() {
    let limits = SflowLimits {
        agents_max: 2,
        sources_per_agent_max: 1,
        interfaces_per_agent_max: 1,
        strangers_max: 1,
        ..SflowLimits::default()
    };
    let mut decoder = SflowDecoder::new(limits, &MeteringConfig::default());
    let mut rejected = 0;
    for sub_agent in 0..5u32 {
        let mut payload = datagram(1, 1, &[flow_sample(7, 512, 7, 8), flow_sample(9, 512, 9, 8)]);
        payload[12..16].copy_from_slice(&sub_agent.to_be_bytes());
        rejected += decode(&mut decoder, &payload)
            .counts
            .total(Counter::DatagramsRejectedLimit);
    }
    assert_eq!(rejected, 3);
    let agents = decoder.agents();
    assert_eq!(agents.len(), 2);
    assert!(
        agents
            .iter()
            .all(|agent| agent.sources.len() == 1 && agent.interfaces.len() == 1)
    );
}

#[test]
fn forged_sources_do_not_grow_the_counts() {
    let limits = SflowLimits {
        strangers_max: 3,
        ..SflowLimits::default()
    };
    let mut decoder = SflowDecoder::new(limits, &MeteringConfig::default());
    let mut decoded = Decoded::default();
    for host in 0..50 {
        let datagram = Datagram {
            received_at_ms: RECEIVED_AT_MS,
            source: Address::from_v4([10, 0, 0, host]),
            source_port: 0,
            payload: &words(&[4, 1, 0xc000_0207]),
        };
        decoder.decode(&datagram, &mut decoded);
    }
    assert_eq!(decoded.counts.total(Counter::DatagramsRejectedVersion), 50);
    let named: std::collections::BTreeSet<Address> = decoded.counts.iter().map(|(key, _, _)| key.exporter).collect();
    assert_eq!(named.len(), 3 + 1, "three by name, the rest under ::");
    assert_eq!(decoder.checkpoint().strangers.len(), 3);
}

#[test]
fn a_restored_decoder_goes_on_alike() {
    let payloads: Vec<Vec<u8>> = (0..20)
        .map(|n| datagram(n * 2, n * 100, &[flow_sample(7 + n % 3, 512, 7, 8 + n)]))
        .collect();
    let mut whole = decoder();
    let mut first = decoder();
    for payload in &payloads[..10] {
        decode(&mut whole, payload);
        decode(&mut first, payload);
    }
    let text = serde_json::to_string(&first.checkpoint()).unwrap();
    assert_eq!(
        text,
        serde_json::to_string(&whole.checkpoint()).unwrap(),
        "deterministic"
    );
    let checkpoint: SflowCheckpoint = serde_json::from_str(&text).unwrap();
    let mut restored = SflowDecoder::restore(SflowLimits::default(), &MeteringConfig::default(), checkpoint);
    for payload in &payloads[10..] {
        let (left, right) = (decode(&mut whole, payload), decode(&mut restored, payload));
        assert_eq!(left.flows.rows(), right.flows.rows());
        assert_eq!(left.counts, right.counts);
    }
    assert_eq!(whole.checkpoint(), restored.checkpoint());
}

const REJECTED: [Counter; 5] = [
    Counter::DatagramsRejectedShort,
    Counter::DatagramsRejectedVersion,
    Counter::DatagramsRejectedLength,
    Counter::DatagramsRejectedLimit,
    Counter::DatagramsRejectedDuplicate,
];

fn check_f2(decoded: &Decoded, payload: &[u8]) {
    let total = |counter| decoded.counts.total(counter);
    let rejected: u64 = REJECTED.into_iter().map(total).sum();
    assert_eq!(total(Counter::Datagrams), 1);
    assert_eq!(total(Counter::DatagramBytes), payload.len() as u64);
    assert_eq!(total(Counter::DatagramsDecoded) + rejected, 1, "F2");
    assert_eq!(total(Counter::FlowRecords), decoded.flows.len() as u64, "F2");
    // The smallest flow sample is 40 bytes, the smallest interface record 96: nothing comes from nothing.
    assert!(decoded.flows.len() * 40 <= payload.len());
    assert!(decoded.counters.len() * 96 <= payload.len());
}

/// Known datagrams, each with samples of several kinds.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        golden("vflow/sflow_top_1.bin"),
        golden("goflow2/sflow_TestExpandedSFlowDecode_2.bin"),
        golden("goflow2/sflow_TestSFlowDecode_1.bin"),
    ];
    seeds.extend(udp_payloads_of_pcap(&golden("tcpdump/sflow_expanded.pcap")));
    let mut counters = words(&[1, 12, 1, 1, 88]);
    counters.extend(words(&[9; 22]));
    let mut expanded = words(&[1, 0, 12, 1, 1, 88]);
    expanded.extend(words(&[9; 22]));
    seeds.push(datagram(
        1,
        1,
        &[
            flow_sample(7, 512, 7, 8),
            (2, counters),
            (4, expanded),
            (5, vec![0; 40]),
        ],
    ));
    seeds
}

#[test]
fn ten_thousand_hostile_datagrams() {
    needs!(GOLDEN);
    let seeds = seeds();
    let words_of_evil = [
        0u32,
        1,
        3,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
        u32::MAX - 3,
        0x3fff_ffff,
    ];
    let mutation = (
        0..seeds.len(),
        prop::collection::vec((any::<prop::sample::Index>(), 0..10usize, any::<u8>()), 0..8),
        prop::option::of(any::<prop::sample::Index>()),
    );
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    let mut runner = TestRunner::new_with_rng(
        Config::with_cases(10_000),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let decoder = std::cell::RefCell::new(decoder());
    let readable = std::cell::Cell::new(0u64);
    runner
        .run(&(mutation, noise, 0..10u8), |((seed, changes, cut), noise, kind)| {
            let payload = if kind == 0 {
                noise
            } else {
                let mut payload = seeds[seed].clone();
                for (at, evil, byte) in changes {
                    match words_of_evil.get(evil) {
                        Some(word) => {
                            let offset = at.index(payload.len() / 4) * 4;
                            payload[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
                        }
                        None => {
                            let offset = at.index(payload.len());
                            payload[offset] = byte;
                        }
                    }
                }
                if let Some(cut) = cut {
                    payload.truncate(cut.index(payload.len()));
                }
                payload
            };
            let decoded = decode(&mut decoder.borrow_mut(), &payload);
            check_f2(&decoded, &payload);
            readable.set(readable.get() + decoded.counts.total(Counter::DatagramsDecoded));
            Ok(())
        })
        .unwrap();
    assert!(
        readable.get() > 5_000,
        "most keep a readable head, or this tests nothing"
    );
    let agents = decoder.borrow().agents();
    assert!(agents.len() <= SflowLimits::default().agents_max);
}
