//! Real captures by others; they lie beside the project, not in it.

use std::path::PathBuf;

use schemas::address::Address;

use super::beside;

/// One captured UDP payload.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) received_at_ms: i64,
    pub(crate) source: Address,
    pub(crate) payload: Vec<u8>,
}

/// The folder of the captures: `EZSCALE_GOLDEN_DIR`, else `../shared/golden` beside the repository.
pub(crate) fn golden_dir() -> PathBuf {
    beside::GOLDEN.folder()
}

/// Reads one file of the captures.
pub(crate) fn read(path: &str) -> Vec<u8> {
    let path = golden_dir().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Reads the UDP payloads of a pcap file, with the addresses that sent them.
pub(crate) fn read_pcap(path: &str) -> Vec<Captured> {
    let bytes = read(path);
    let mut reader = pcap_file::pcap::PcapReader::new(&bytes[..]).expect("a pcap header");
    let mut captured = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a whole packet");
        let sliced = etherparse::SlicedPacket::from_ethernet(&packet.data).expect("an Ethernet frame");
        let source = match sliced.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => Address::from_v4(ip.header().source()),
            Some(etherparse::NetSlice::Ipv6(ip)) => Address(ip.header().source()),
            _ => continue,
        };
        if let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport {
            captured.push(Captured {
                received_at_ms: i64::try_from(packet.timestamp.as_millis()).expect("a time of our age"),
                source,
                payload: udp.payload().to_vec(),
            });
        }
    }
    captured
}
