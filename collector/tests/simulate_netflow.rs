//! Our own NetFlow decoder reads what the simulated exporters send as the very flows it was made from.

use collector::counts::Counter;
use collector::decode::netflow::{DecodeLimits, NetflowDecoder};
use collector::decode::{Datagram, Decoded};
use collector::sampling::SamplingConfig;
use collector::simulate::encode::{SimExporter, SimExporterConfig, SimProtocol};
use collector::simulate::fleet::Fleet;
use collector::simulate::traffic::{Traffic, TrafficConfig};
use schemas::address::Address;
use tables::flow::{DIRECTION_UNKNOWN, Flow};

const NOW_MS: i64 = 1_700_000_000_123;
const RATE: u32 = 1_024;

fn decode(source: Address, received_at_ms: i64, datagrams: &[Vec<u8>]) -> Decoded {
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::default());
    let mut decoded = Decoded::default();
    for payload in datagrams {
        let datagram = Datagram {
            received_at_ms,
            source,
            source_port: 0,
            payload,
        };
        decoder.decode(&datagram, &mut decoded);
    }
    decoded
}

fn nothing_was_lost(decoded: &Decoded, what: &str) {
    for (_, counter, value) in decoded.counts.iter() {
        let expected = [
            Counter::Datagrams,
            Counter::DatagramBytes,
            Counter::DatagramsDecoded,
            Counter::FlowRecords,
            Counter::OptionsRecords,
            Counter::Templates,
        ];
        assert!(expected.contains(&counter), "{what}: {} = {value}", counter.name());
    }
}

#[test]
fn random_traffic_comes_back_field_by_field() {
    let source: Address = "192.0.2.33".parse().unwrap();
    for protocol in [SimProtocol::V5, SimProtocol::V9, SimProtocol::Ipfix] {
        let mut flows = Vec::new();
        let config = TrafficConfig {
            seed: 42,
            protocol,
            ipv6_percent: 30,
        };
        Traffic::new(config).fill(NOW_MS, 2_000, &mut flows);
        let config = SimExporterConfig::new(source, 7, protocol, RATE, NOW_MS - 7_200_000);
        let mut datagrams = Vec::new();
        let sums = SimExporter::new(config).encode(NOW_MS, &flows, &mut datagrams).unwrap();
        let decoded = decode(source, NOW_MS, &datagrams);
        nothing_was_lost(&decoded, protocol.name());
        assert_eq!(decoded.counts.total(Counter::FlowRecords), sums.flows);
        for (sent, read) in flows.iter().zip(decoded.flows.rows()) {
            let v5 = protocol == SimProtocol::V5;
            let icmp = sent.ip_protocol == 1;
            let expected = Flow {
                exporter: source,
                observation_domain: 7,
                sampling_rate: RATE,
                direction: if v5 { DIRECTION_UNKNOWN } else { sent.direction },
                in_vlan: if v5 { 0 } else { sent.in_vlan },
                out_vlan: if v5 { 0 } else { sent.out_vlan },
                // Version 5 puts an ICMP type and code into the destination port.
                dst_port: if v5 && icmp { read.dst_port } else { sent.dst_port },
                ..*sent
            };
            assert_eq!(read, expected, "{protocol}");
        }
    }
}

#[test]
fn the_fleets_routers_come_back_field_by_field() {
    let fleet = Fleet::new(11);
    let from_ms = 1_793_577_600_000;
    let to_ms = from_ms + 3_600_000;
    for (index, exporter) in fleet.exporters.iter().enumerate() {
        if exporter.protocol == SimProtocol::Sflow {
            continue;
        }
        let mut flows = Vec::new();
        fleet.flows_of(index, from_ms, to_ms, 3, &mut flows);
        let mut datagrams = Vec::new();
        let mut sim = SimExporter::new(exporter.sim_config(from_ms - 86_400_000));
        sim.encode(to_ms, &flows, &mut datagrams).unwrap();
        let decoded = decode(exporter.config.address.first(), to_ms, &datagrams);
        nothing_was_lost(&decoded, exporter.name());
        assert_eq!(decoded.flows.len(), flows.len());
        for (sent, read) in flows.iter().zip(decoded.flows.rows()) {
            let expected = Flow {
                received_at_ms: to_ms,
                ..*sent
            };
            assert_eq!(read, expected, "{}", exporter.name());
        }
    }
}
