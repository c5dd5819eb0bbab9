//! Capture files: writing UDP datagrams into one, and counting what is in one.
//!
//! The classic format (not pcapng), little endian, microseconds, Ethernet:
//!
//! ```text
//! file:   magic a1b2c3d4 (4) | major 2, minor 4 (2+2) | zone, accuracy (4+4, zero) | snap length (4) | link type 1 (4)
//! record: seconds (4) | microseconds (4) | captured length (4) | length (4) | frame
//! frame:  Ethernet (14) | IPv4 (20) | UDP (8) | payload
//! ```

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddrV4;
use std::path::Path;

use jiff::Timestamp;

const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;
const MAGIC: u32 = 0xa1b2_c3d4;
/// Linux's own limit for a packet; no datagram comes near.
const SNAP_LENGTH_BYTES: u32 = 262_144;
const LINK_TYPE_ETHERNET: u32 = 1;
const ETHERNET_BYTES: u16 = 14;
const IPV4_BYTES: u16 = 20;
const UDP_BYTES: u16 = 8;
/// What an IPv4 packet has room for.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 65_535 - (IPV4_BYTES + UDP_BYTES) as usize;

/// Writes datagrams as if they had been captured.
#[derive(Debug)]
pub(crate) struct PcapWriter {
    file: BufWriter<File>,
}

impl PcapWriter {
    pub(crate) fn create(path: &Path) -> Self {
        let file = File::create(path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        let mut writer = Self {
            file: BufWriter::new(file),
        };
        writer.put(&MAGIC.to_le_bytes());
        writer.put(&2u16.to_le_bytes());
        writer.put(&4u16.to_le_bytes());
        writer.put(&[0; 8]);
        writer.put(&SNAP_LENGTH_BYTES.to_le_bytes());
        writer.put(&LINK_TYPE_ETHERNET.to_le_bytes());
        writer
    }

    /// Adds one datagram of at most [`PAYLOAD_BYTES_MAX`], captured at `at`.
    pub(crate) fn udp(&mut self, at: Timestamp, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "{} bytes do not fit into a datagram",
            payload.len()
        );
        let payload_bytes = u16::try_from(payload.len()).expect("just checked");
        let udp_bytes = UDP_BYTES + payload_bytes;
        let ip_bytes = IPV4_BYTES + udp_bytes;
        let frame_bytes = u32::from(ETHERNET_BYTES) + u32::from(ip_bytes);

        let seconds = u32::try_from(at.as_second()).expect("a capture is of this century");
        let microseconds = u32::try_from(at.subsec_microsecond()).expect("a time after 1970 has no negative part");
        for field in [seconds, microseconds, frame_bytes, frame_bytes] {
            self.put(&field.to_le_bytes());
        }
        self.put(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);

        let mut ip = [0u8; IPV4_BYTES as usize];
        ip[0] = 0x45; // version 4, five words
        ip[2..4].copy_from_slice(&ip_bytes.to_be_bytes());
        ip[8] = 64; // time to live
        ip[9] = 17; // UDP
        ip[12..16].copy_from_slice(&from.ip().octets());
        ip[16..20].copy_from_slice(&to.ip().octets());
        let checksum = internet_checksum(&ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        self.put(&ip);

        self.put(&from.port().to_be_bytes());
        self.put(&to.port().to_be_bytes());
        self.put(&udp_bytes.to_be_bytes());
        self.put(&[0, 0]); // no checksum: allowed in IPv4 (RFC 768)
        self.put(payload);
    }

    /// Ends the file.
    pub(crate) fn finish(mut self) {
        self.file.flush().expect("the capture can be written");
    }

    fn put(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).expect("the capture can be written");
    }
}

/// Complete records in a capture that may still be growing. Zero while it has no header.
pub(crate) fn frame_count(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap_or_default();
    if bytes.len() < FILE_HEADER_BYTES {
        return 0;
    }
    let mut rest = &bytes[FILE_HEADER_BYTES..];
    let mut count = 0;
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(after) = rest.get(RECORD_HEADER_BYTES + length..) else {
            break;
        };
        rest = after;
        count += 1;
    }
    count
}

/// The ones' complement sum of 16-bit words, of an even number of bytes (RFC 1071).
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}
