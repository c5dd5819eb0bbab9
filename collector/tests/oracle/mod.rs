//! What the tests of the flow protocols share: the golden captures and tshark as a second reader.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]
#![allow(unreachable_pub, reason = "a module of the tests' binary")]

use std::process::Command;

use etherparse::PacketBuilder;

use crate::beside;

/// Reads a golden capture.
///
/// # Panics
/// When it is missing: a test that reads it begins with `needs!`.
pub fn golden(name: &str) -> Vec<u8> {
    let path = beside::GOLDEN.folder().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// UDP payloads of a capture of Ethernet frames.
pub fn udp_payloads_of_pcap(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = pcap_file::pcap::PcapReader::new(bytes).unwrap();
    let mut payloads = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        let sliced = etherparse::SlicedPacket::from_ethernet(&packet.data).unwrap();
        if let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport {
            payloads.push(udp.payload().to_vec());
        }
    }
    payloads
}

/// What tshark reads of datagrams sent to `port`: per datagram, per field, the values in order. Of fields that the
/// carrying IP and UDP headers have too, the first value is theirs.
///
/// # Panics
/// When tshark is missing or fails.
pub fn tshark(port: u16, datagrams: &[Vec<u8>], fields: &[&str]) -> Vec<Vec<Vec<String>>> {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("datagrams.pcap");
    let mut writer = pcap_file::pcap::PcapWriter::new(std::fs::File::create(&capture).unwrap()).unwrap();
    for datagram in datagrams {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 10], [192, 0, 2, 20], 64);
        builder.udp(40_000, port).write(&mut frame, datagram).unwrap();
        let length = frame.len() as u32;
        let packet = pcap_file::pcap::PcapPacket::new(std::time::Duration::from_secs(1_700_000_000), length, &frame);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&capture).args(["-n", "-T", "fields"]);
    command.args(["-E", "separator=|", "-E", "aggregator=,"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command
        .output()
        .expect("tshark must be on PATH: it is the second reader (Debian package tshark)");
    assert!(
        output.status.success(),
        "tshark failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let values = |cell: &str| cell.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect();
    text.lines().map(|line| line.split('|').map(values).collect()).collect()
}
