//! `ezscale replay` reads captured exports as tshark does, record by record.
//!
//! The captures are others' (see [`crate::support::golden`]): real routers' datagrams, for which tshark is the oracle. Each case
//! also says how many flows there are, so that an oracle that reads nothing does not agree with us.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::beside::{GOLDEN, needs};
use crate::support::ezscale::DataDir;
use crate::support::golden::golden;
use crate::support::pcap::PcapWriter;
use crate::support::tshark::{self, Dissector, ExportedFlow};

const EXPORTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const COLLECTOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const NETFLOW_PORT: u16 = 2055;
const SFLOW_PORT: u16 = 6343;
/// When the datagrams that came without a time are taken to have been captured: 2026-01-01T00:00:00Z.
const CAPTURED_AT_SECONDS: i64 = 1_767_225_600;

#[test]
fn netflow_v5_datagram() {
    needs!(GOLDEN);
    replay_datagram("vflow/v5_top_1.bin", Dissector::Cflow, 29);
}

/// A template alone: no flows, and no complaint.
#[test]
fn ipfix_template_of_juniper_inline_jflow() {
    needs!(GOLDEN);
    replay_datagram("vflow/ipfix_top_1.bin", Dissector::Cflow, 0);
}

#[test]
fn sflow_with_extended_switch_and_router_records() {
    needs!(GOLDEN);
    replay_datagram("vflow/sflow_top_1.bin", Dissector::Sflow, 5);
}

#[test]
fn sflow_flow_sample() {
    needs!(GOLDEN);
    replay_datagram("goflow2/sflow_TestSFlowDecode_1.bin", Dissector::Sflow, 1);
}

#[test]
fn sflow_expanded_samples() {
    needs!(GOLDEN);
    replay_datagram("goflow2/sflow_TestExpandedSFlowDecode_2.bin", Dissector::Sflow, 5);
}

#[test]
fn sflow_expanded_sample_with_a_vlan() {
    needs!(GOLDEN);
    replay_capture(&golden("tcpdump/sflow_expanded.pcap"), Dissector::Sflow, SFLOW_PORT, 1);
}

#[test]
fn ipfix_of_cisco_from_two_observation_domains() {
    needs!(GOLDEN);
    let capture = golden("netgauze/100-IPFIXv10-CISCO/traffic-00.pcap");
    replay_capture(&capture, Dissector::Cflow, 9991, 12);
}

#[test]
fn ipfix_of_cisco_over_ipv6_with_sampling_options() {
    needs!(GOLDEN);
    let capture = golden("netgauze/104-IPFIXv10-IPv6-CISCO-sampling_option/traffic-00.pcap");
    replay_capture(&capture, Dissector::Cflow, 9992, 3);
}

/// Records that have room for IPv4 and IPv6 addresses at once, with zeros in the unused ones.
#[test]
fn netflow_v9_of_labelled_packets_with_both_address_families() {
    needs!(GOLDEN);
    let capture = golden("netgauze/110-IPFIXv10-NFv9-multiple-sources/traffic-01.pcap");
    replay_capture(&capture, Dissector::Cflow, 9991, 51);
}

/// The same template ids in two source ids of one exporter.
#[test]
fn netflow_v9_with_templates_by_source_id() {
    needs!(GOLDEN);
    let capture = golden("netgauze/110-IPFIXv10-NFv9-multiple-sources/traffic-02.pcap");
    replay_capture(&capture, Dissector::Cflow, 9991, 35);
}

/// One UDP payload, put into a capture of its own.
fn replay_datagram(payload: &str, dissector: Dissector, expected_flows: usize) {
    let port = match dissector {
        Dissector::Cflow => NETFLOW_PORT,
        Dissector::Sflow => SFLOW_PORT,
    };
    let payload = std::fs::read(golden(payload)).expect("a golden file can be read");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let capture: PathBuf = dir.path().join("datagram.pcap");
    let captured_at = jiff::Timestamp::from_second(CAPTURED_AT_SECONDS).expect("a time of this century");
    let mut writer = PcapWriter::create(&capture);
    writer.udp(
        captured_at,
        SocketAddrV4::new(EXPORTER, 40_000),
        SocketAddrV4::new(COLLECTOR, port),
        &payload,
    );
    writer.finish();
    replay_capture(&capture, dissector, port, expected_flows);
}

fn replay_capture(capture: &Path, dissector: Dissector, port: u16, expected_flows: usize) {
    let mut expected = tshark::exported_flows(capture, dissector, port);
    assert_eq!(
        expected.len(),
        expected_flows,
        "flows that tshark reads in {}",
        capture.display()
    );

    let data = DataDir::new();
    data.run(&["init"]);
    data.run(&["replay", &capture.display().to_string()]);
    let rows = data.query_json("SELECT src_addr, dst_addr, bytes, packets FROM flows");
    let mut stored: Vec<ExportedFlow> = rows.iter().map(flow_of_row).collect();

    expected.sort();
    stored.sort();
    assert_eq!(stored, expected, "{}", capture.display());
}

fn flow_of_row(row: &Value) -> ExportedFlow {
    let address = |column: &str| {
        let text = row[column]
            .as_str()
            .unwrap_or_else(|| panic!("{column} is text in {row}"));
        text.parse()
            .unwrap_or_else(|error| panic!("{column} is an address in {row}: {error}"))
    };
    let number = |column: &str| {
        row[column]
            .as_u64()
            .unwrap_or_else(|| panic!("{column} is a whole number in {row}"))
    };
    ExportedFlow {
        source: address("src_addr"),
        destination: address("dst_addr"),
        bytes: number("bytes"),
        packets: number("packets"),
    }
}
