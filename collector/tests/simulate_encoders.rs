//! What the simulated exporters send reads back, in tshark and in our own decoder, as the flows it was made from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;

use collector::decode::sflow::{SflowDecoder, SflowLimits};
use collector::decode::{Datagram, Decoded};
use collector::simulate::encode::{DATAGRAM_BYTES_MAX, EncodeError, SimExporter, SimExporterConfig, SimProtocol, Sums};
use collector::simulate::traffic::{Traffic, TrafficConfig};
use schemas::address::Address;
use schemas::metering::MeteringConfig;
use tables::flow::{Flow, marks};

use crate::oracle::tshark;

const NOW_MS: i64 = 1_700_000_000_123;
const BOOT_MS: i64 = NOW_MS - 7_200_000;
const RATE: u32 = 1_024;

fn exporter(protocol: SimProtocol) -> SimExporter {
    let address = "192.0.2.33".parse().unwrap();
    SimExporter::new(SimExporterConfig::new(address, 7, protocol, RATE, BOOT_MS))
}

fn flows(protocol: SimProtocol, count: usize) -> Vec<Flow> {
    let mut flows = Vec::new();
    let config = TrafficConfig {
        seed: 42,
        protocol,
        ipv6_percent: 30,
    };
    Traffic::new(config).fill(NOW_MS, count, &mut flows);
    flows
}

fn encoded(protocol: SimProtocol, flows: &[Flow]) -> (Vec<Vec<u8>>, Sums) {
    let mut datagrams = Vec::new();
    let sums = exporter(protocol).encode(NOW_MS, flows, &mut datagrams).unwrap();
    assert_eq!(sums.datagrams, datagrams.len() as u64);
    assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM_BYTES_MAX));
    (datagrams, sums)
}

/// All values of one field over all datagrams.
fn column(read: &[Vec<Vec<String>>], field: usize) -> Vec<String> {
    read.iter().flat_map(|cells| cells[field].clone()).collect()
}

fn texts<T: ToString>(flows: &[Flow], value: impl Fn(&Flow) -> T) -> Vec<String> {
    flows.iter().map(|flow| value(flow).to_string()).collect()
}

#[test]
fn tshark_reads_the_netflow_encoders() {
    for protocol in [SimProtocol::V5, SimProtocol::V9, SimProtocol::Ipfix] {
        let flows = flows(protocol, 500);
        let (datagrams, sums) = encoded(protocol, &flows);
        let read = tshark(
            2_055,
            &datagrams,
            &[
                "cflow.octets",
                "cflow.packets",
                "cflow.srcport",
                "cflow.dstport",
                "cflow.protocol",
                "cflow.inputint",
                "cflow.outputint",
                "cflow.srcaddr",
                "cflow.dstaddrv6",
                "cflow.srcas",
                "cflow.dstas",
                "cflow.tos",
                "_ws.malformed",
                "cflow.sampling_interval",
            ],
        );
        assert_eq!(read.len(), datagrams.len());
        assert_eq!(column(&read, 0), texts(&flows, |f| f.bytes), "{protocol}");
        assert_eq!(column(&read, 1), texts(&flows, |f| f.packets), "{protocol}");
        assert_eq!(column(&read, 2), texts(&flows, |f| f.src_port), "{protocol}");
        let dst_port = |f: &Flow| match (protocol, f.ip_protocol) {
            (SimProtocol::V5, 1) => f.icmp_type_code,
            _ => f.dst_port,
        };
        assert_eq!(column(&read, 3), texts(&flows, dst_port), "{protocol}");
        assert_eq!(column(&read, 4), texts(&flows, |f| f.ip_protocol), "{protocol}");
        assert_eq!(column(&read, 5), texts(&flows, |f| f.in_if), "{protocol}");
        assert_eq!(column(&read, 6), texts(&flows, |f| f.out_if), "{protocol}");
        let ipv4: Vec<Flow> = flows.iter().copied().filter(|f| f.src_addr.is_v4()).collect();
        let ipv6: Vec<Flow> = flows.iter().copied().filter(|f| !f.src_addr.is_v4()).collect();
        assert_eq!(column(&read, 7), texts(&ipv4, |f| f.src_addr), "{protocol}");
        assert_eq!(column(&read, 8), texts(&ipv6, |f| f.dst_addr), "{protocol}");
        assert_eq!(column(&read, 9), texts(&flows, |f| f.src_as), "{protocol}");
        assert_eq!(column(&read, 10), texts(&flows, |f| f.dst_as), "{protocol}");
        assert_eq!(
            column(&read, 11),
            texts(&flows, |f| format!("0x{:02x}", f.tos)),
            "{protocol}"
        );
        assert_eq!(
            column(&read, 12),
            Vec::<String>::new(),
            "{protocol}: nothing is malformed"
        );
        if protocol == SimProtocol::Ipfix {
            assert_eq!(column(&read, 13), [RATE.to_string()]);
        }
        assert_eq!(sums.flows, 500);
        assert_eq!(sums.bytes, flows.iter().map(|f| f.bytes).sum::<u64>());
        assert_eq!(sums.packets, flows.iter().map(|f| f.packets).sum::<u64>());
        assert_eq!(sums.bytes_scaled, sums.bytes * u64::from(RATE));
    }
}

#[test]
fn tshark_reads_the_times_to_the_millisecond() {
    let flows = flows(SimProtocol::Ipfix, 40);
    let (datagrams, _) = encoded(SimProtocol::Ipfix, &flows);
    let read = tshark(2_055, &datagrams, &["cflow.abstimestart", "cflow.abstimeend"]);
    // tshark prints dates with commas in them: only the fraction after the last point is compared.
    let fraction = |cells: Vec<String>| -> Vec<String> {
        let times = cells.into_iter().filter(|cell| cell.contains('.'));
        times
            .map(|cell| cell.rsplit('.').next().unwrap()[..3].to_owned())
            .collect()
    };
    let expected = |value: fn(&Flow) -> i64| texts(&flows, |f| format!("{:03}", value(f).rem_euclid(1_000)));
    assert_eq!(fraction(column(&read, 0)), expected(|f| f.start_at_ms));
    assert_eq!(fraction(column(&read, 1)), expected(|f| f.end_at_ms));
}

#[test]
fn our_decoder_reads_the_sflow_encoder() {
    let mut flows = flows(SimProtocol::Sflow, 3_000);
    for (index, flow) in flows.iter_mut().enumerate() {
        // Every shape of a sample: observed at the output, dropped, without VLAN, with a router record, wide indexes.
        match index % 6 {
            1 => flow.direction = 1,
            2 => (flow.out_if, flow.forwarding_status) = (0, 128),
            3 => (flow.in_vlan, flow.out_vlan) = (0, 0),
            4 => {
                flow.next_hop = "192.0.2.1".parse().unwrap();
                flow.src_as = 4_200_000_000;
            }
            5 => flow.in_if = 0x3fff_fff0,
            _ => {}
        }
    }
    let (datagrams, sums) = encoded(SimProtocol::Sflow, &flows);
    let mut decoder = SflowDecoder::new(SflowLimits::default(), &MeteringConfig::default());
    let mut decoded = Decoded::default();
    for payload in &datagrams {
        let datagram = Datagram {
            received_at_ms: NOW_MS,
            source: Address::UNSPECIFIED,
            source_port: 0,
            payload,
        };
        decoder.decode(&datagram, &mut decoded);
    }
    assert_eq!(decoded.flows.len() as u64, sums.flows);
    // A packet sampled on its way out counts there only where its input interface is not sampled: otherwise it had its chance there.
    let mut sampled_at_ingress = BTreeSet::new();
    let mut seconds = 0;
    for (sent, read) in flows.iter().zip(decoded.flows.rows()) {
        let is_second = sent.direction == 1 && sampled_at_ingress.contains(&sent.in_if);
        seconds += usize::from(is_second);
        if sent.direction == 0 {
            sampled_at_ingress.insert(sent.in_if);
        }
        let expected = Flow {
            marks: if is_second { marks::SECOND_OBSERVATION } else { 0 },
            exporter: "192.0.2.33".parse().unwrap(),
            observation_domain: 7,
            sampling_rate: RATE,
            received_at_ms: NOW_MS,
            start_at_ms: NOW_MS,
            end_at_ms: NOW_MS,
            ..*sent
        };
        assert_eq!(read, expected);
    }
    assert!((1..500).contains(&seconds), "both kinds at the output: {seconds}");
    let scaled_in: u64 = decoded.counters.iter().map(|counters| counters.in_bytes).sum();
    let on_the_wire = |flow: &Flow| (flow.bytes + if flow.in_vlan == 0 { 18 } else { 22 }).max(64);
    let expected_in: u64 = flows.iter().map(on_the_wire).sum::<u64>() * u64::from(RATE);
    assert_eq!(
        scaled_in, expected_in,
        "the interfaces' counters are the scaled frames that were sampled"
    );
    use collector::counts::Counter;
    for counter in [Counter::SamplesRejected, Counter::SequenceLost, Counter::SequenceReset] {
        assert_eq!(decoded.counts.total(counter), 0, "{}", counter.name());
    }
}

#[test]
fn tshark_reads_the_sflow_encoder() {
    let flows = flows(SimProtocol::Sflow, 200);
    let (datagrams, _) = encoded(SimProtocol::Sflow, &flows);
    let fields = [
        "sflow.flow_sample.sampling_rate",
        "ip.len",
        "ipv6.plen",
        "sflow_245.ifindex",
        "ip.checksum",
    ];
    let read = tshark(6_343, &datagrams, &fields);
    assert_eq!(column(&read, 0), vec![RATE.to_string(); 200]);
    let inner = |field: usize| -> Vec<String> { read.iter().flat_map(|cells| cells[field][1..].to_vec()).collect() };
    let ipv4: Vec<Flow> = flows.iter().copied().filter(|f| f.src_addr.is_v4()).collect();
    let ipv6: Vec<Flow> = flows.iter().copied().filter(|f| !f.src_addr.is_v4()).collect();
    assert_eq!(inner(1), texts(&ipv4, |f| f.bytes));
    assert_eq!(column(&read, 2), texts(&ipv6, |f| f.bytes - 40));
    let interfaces: BTreeSet<u32> = flows.iter().flat_map(|f| [f.in_if, f.out_if]).collect();
    assert_eq!(
        column(&read, 3).len(),
        interfaces.len(),
        "one counter sample per interface"
    );
}

#[test]
fn what_a_protocol_cannot_say_is_refused_whole() {
    let good = flows(SimProtocol::V5, 1)[0];
    let refused = |protocol, flow: Flow| {
        let mut out = Vec::new();
        let error = exporter(protocol).encode(NOW_MS, &[good, flow], &mut out).unwrap_err();
        assert!(out.is_empty());
        error
    };
    let ipv6 = Flow {
        src_addr: "2001:db8::1".parse().unwrap(),
        ..good
    };
    assert!(matches!(
        refused(SimProtocol::V5, ipv6),
        EncodeError::AddressFamily { .. }
    ));
    let wide = Flow { in_if: 70_000, ..good };
    assert!(matches!(
        refused(SimProtocol::V5, wide),
        EncodeError::OutOfRange { value: 70_000, .. }
    ));
    let single = Flow {
        packets: 1,
        bytes: 100,
        ..good
    };
    let mut out = Vec::new();
    let many = Flow { packets: 2, ..single };
    let error = exporter(SimProtocol::Sflow).encode(NOW_MS, &[single, many], &mut out);
    assert!(matches!(
        error,
        Err(EncodeError::OutOfRange {
            field: "packets",
            value: 2,
            ..
        })
    ));
    assert!(out.is_empty());
}

#[test]
fn templates_come_again_by_count_and_by_time() {
    let has_template = |datagram: &[u8]| datagram[16..18] == [0, 2];
    let config = SimExporterConfig {
        refresh_datagrams: 3,
        refresh_ms: 1_000,
        ..exporter(SimProtocol::Ipfix).config().clone()
    };
    let mut exporter = SimExporter::new(config);
    let flows = flows(SimProtocol::Ipfix, 100);
    let mut out = Vec::new();
    exporter.encode(NOW_MS, &flows, &mut out).unwrap();
    let refreshed: Vec<usize> = (0..out.len()).filter(|n| has_template(&out[*n])).collect();
    let every_third: Vec<usize> = (0..out.len()).step_by(3).collect();
    assert_eq!(refreshed, every_third);
    out.clear();
    exporter.encode(NOW_MS + 1_000, &flows[..1], &mut out).unwrap();
    assert!(has_template(&out[0]));
}
